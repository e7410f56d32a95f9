//! The devices of a domain, as libxl's copy in xenstore lists them. The guest cannot change that copy.

use super::paths::XenstorePaths;
use crate::xen::{DomId, Transaction, XenError};

/// The node in libxl's copy of a device that dombuild has plugged without a script: none has to unplug it. It goes with the
/// device, whoever removes that.
pub const NATIVE_NODE: &str = "dombuild-native";

/// The node in libxl's copy of a device whose attachment is not complete. Its value is that of
/// [`JournalEntry::mark`](crate::runs::journal::JournalEntry::mark).
pub const RUN_NODE: &str = "dombuild-run";

/// A device of a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedDevice {
    /// The class of the frontend, as in `vbd`.
    pub kind: String,
    /// Its number.
    pub devid: u32,
    /// The directory of its frontend.
    pub frontend: String,
    /// The directory of its backend.
    pub backend: String,
    /// The class of the backend, as in `qdisk`.
    pub backend_kind: String,
    /// The domain of the backend.
    pub backend_domid: DomId,
    /// Its hotplug script, if it has one.
    pub script: Option<String>,
    /// The gateway's interface, for network scripts.
    pub gatewaydev: Option<String>,
    /// The name of the interface of a network card, if it was chosen.
    pub vifname: Option<String>,
    /// The path of a channel's socket, or of a share's directory.
    pub path: Option<String>,
    /// dombuild has plugged the device without its script.
    pub native: bool,
    /// The run that is attaching the device, or was killed while it did.
    pub run: Option<String>,
}

impl ListedDevice {
    /// The device in messages, as in `vbd 51712`.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{} {}", self.kind, self.devid)
    }
}

/// The devices of a domain, except its first console. A device whose paths are not those of this domain is left out.
///
/// # Errors
/// An error of xenstored.
pub fn devices_of(transaction: &Transaction<'_>, domid: DomId) -> Result<Vec<ListedDevice>, XenError> {
    let keys = XenstorePaths::new(domid);
    let root = format!("{}/device", keys.libxl);
    let kinds = transaction.children(&root)?;
    let directories: Vec<_> = kinds.iter().map(|kind| format!("{root}/{kind}")).collect();
    let mut places = Vec::new();
    for (kind, devids) in kinds.iter().zip(transaction.children_of_all(&directories)?) {
        let numbers = devids.iter().filter_map(|devid| devid.parse::<u32>().ok());
        places.extend(numbers.filter(|devid| (kind.as_str(), *devid) != ("console", 0)).map(|devid| (kind, devid)));
    }
    if places.is_empty() {
        return Ok(Vec::new());
    }
    const NODES: [&str; 8] = ["frontend", "backend", "script", "gatewaydev", "vifname", "path", NATIVE_NODE, RUN_NODE];
    let mut paths = Vec::new();
    for (kind, devid) in &places {
        paths.extend(NODES.map(|node| format!("{root}/{kind}/{devid}/{node}")));
    }
    let values = transaction.read_all(&paths)?;
    let mut found = Vec::new();
    for ((kind, devid), values) in places.iter().zip(values.chunks(NODES.len())) {
        let [frontend, backend, script, gatewaydev, vifname, path, native, run] = values else { continue };
        let (Some(frontend), Some(backend)) = (frontend.clone(), backend.clone()) else { continue };
        let Some((backend_domid, backend_kind)) = place_of_backend(&backend, domid, *devid) else {
            log::warn!("the {kind} {devid} of domain {domid} names a backend of another domain: it is left alone");
            continue;
        };
        found.push(ListedDevice {
            kind: (*kind).clone(),
            devid: *devid,
            frontend,
            backend_kind: backend_kind.to_owned(),
            backend_domid,
            backend: backend.clone(),
            script: script.clone(),
            gatewaydev: gatewaydev.clone(),
            vifname: vifname.clone(),
            path: path.clone(),
            native: native.is_some(),
            run: run.clone(),
        });
    }
    Ok(found)
}

/// The domain and class in the path of a backend, `/local/domain/B/backend/KIND/N/DEVID`.
fn place_of_backend(path: &str, domid: DomId, devid: u32) -> Option<(DomId, &str)> {
    let words: Vec<_> = path.split('/').collect();
    let ["", "local", "domain", backend, "backend", kind, of, number] = words.as_slice() else { return None };
    let fits = *of == domid.to_string() && *number == devid.to_string();
    Some((DomId::new(backend.parse().ok()?)?, *kind)).filter(|_| fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backend_belongs_to_the_device_or_not() {
        let seven = DomId::new(7).expect("a domid");
        let place = |path| place_of_backend(path, seven, 51712);
        assert_eq!(place("/local/domain/0/backend/vbd/7/51712"), Some((DomId::DOM0, "vbd")));
        assert_eq!(place("/local/domain/3/backend/qdisk/7/51712"), DomId::new(3).map(|three| (three, "qdisk")));
        for other in [
            "/local/domain/0/backend/vbd/8/51712",
            "/local/domain/0/backend/vbd/7/51728",
            "/local/domain/0/backend/vbd/7/51712/x",
            "/local/domain/0/backend",
            "local/domain/0/backend/vbd/7/51712",
            "",
        ] {
            assert_eq!(place(other), None, "{other}");
        }
    }
}
