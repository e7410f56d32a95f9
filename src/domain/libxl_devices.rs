//! The devices in libxl's configuration of a guest that exists: one is added or removed, everything else stays.

use serde_json::{Value, json};

use super::libxl_json::{disk, nic};
use crate::config::devices::disk::Disk;
use crate::config::devices::nic::Nic;
use crate::config::devices::virtual_device::VirtualDevice;
use crate::memory::Kind;

/// Adds a disk; one of the same number is replaced, as libxl does.
pub fn add_disk(configuration: &mut Value, new: &Disk) {
    remove_disk(configuration, new.vdev.number);
    push(configuration, "disks", disk(new));
}

/// Adds a network card; one of the same number is replaced, as libxl does.
pub fn add_nic(configuration: &mut Value, devid: u32, new: &Nic, kind: Kind) {
    remove_nic(configuration, devid);
    push(configuration, "nics", nic(devid, new, kind));
}

/// Removes the disk of this number.
pub fn remove_disk(configuration: &mut Value, number: u32) {
    remove(configuration, "disks", |disk| {
        let vdev = disk.get("vdev").and_then(Value::as_str).and_then(|vdev| vdev.parse::<VirtualDevice>().ok());
        vdev.is_some_and(|vdev| vdev.number == number)
    });
}

/// Removes the network card of this number.
pub fn remove_nic(configuration: &mut Value, devid: u32) {
    // libxl leaves out what has its default, and that of the number is -1.
    remove(configuration, "nics", |nic| nic.get("devid").and_then(Value::as_u64) == Some(devid.into()));
}

fn push(configuration: &mut Value, list: &str, device: Value) {
    let Some(fields) = configuration.as_object_mut() else { return };
    if let Some(devices) = fields.entry(list).or_insert_with(|| json!([])).as_array_mut() {
        devices.push(device);
    }
}

fn remove(configuration: &mut Value, list: &str, is_it: impl Fn(&Value) -> bool) {
    if let Some(devices) = configuration.get_mut(list).and_then(Value::as_array_mut) {
        devices.retain(|device| !is_it(device));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_device_changes_and_the_rest_stays() {
        let mut configuration = json!({
            "b_info": { "a field": "of another version" },
            "disks": [{ "vdev": "xvda", "pdev_path": "/a" }, { "vdev": "51728" }, { "vdev": "no disk", "x": 1 }],
            "nics": [{ "devid": 0, "mac": "00:16:3e:00:00:01" }, { "mac": "00:16:3e:00:00:02" }],
        });
        let before = configuration.clone();
        add_disk(&mut configuration, &"/c,raw,xvdc,w".parse().expect("a disk"));
        add_nic(&mut configuration, 7, &"bridge=b0".parse().expect("a card"), Kind::Pvh);
        assert_eq!(
            configuration["disks"][3],
            json!({ "vdev": "xvdc", "pdev_path": "/c", "format": "raw", "readwrite": 1 })
        );
        assert_eq!(configuration["nics"][2], json!({ "devid": 7, "bridge": "b0", "nictype": "vif" }));
        remove_disk(&mut configuration, 51744);
        remove_nic(&mut configuration, 7);
        assert_eq!(configuration, before);

        add_disk(&mut configuration, &"/b,raw,xvdb,r".parse().expect("a disk"));
        let disks = configuration["disks"].as_array().expect("a list");
        assert_eq!(disks.iter().map(|disk| &disk["vdev"]).collect::<Vec<_>>(), ["xvda", "no disk", "xvdb"]);
    }

    #[test]
    fn a_configuration_without_devices_gets_a_list() {
        let mut configuration = json!({});
        remove_disk(&mut configuration, 51712);
        remove_nic(&mut configuration, 0);
        assert_eq!(configuration, json!({}));
        add_nic(&mut configuration, 0, &"".parse().expect("a card"), Kind::Pv);
        assert_eq!(configuration, json!({ "nics": [{ "devid": 0, "nictype": "vif" }] }));
        for mut other in [json!([]), json!({ "disks": "none" })] {
            let before = other.clone();
            add_disk(&mut other, &"/a,raw,xvda,w".parse().expect("a disk"));
            remove_disk(&mut other, 51712);
            assert_eq!(other, before);
        }
    }
}
