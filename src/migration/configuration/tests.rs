//! Configurations as xl 4.17 writes them, and what dombuild does not know.

use serde_json::json;

use super::*;
use crate::config::devices::disk::DiskFormat;
use crate::config::devices::emulated::{Usb, UsbDevice};
use crate::config::devices::machine::GraphicsCard;
use crate::memory::Plan;
use crate::migration::libxc_records::Bounds;
use crate::migration::outline::Outline;

const UUID: &str = "4c11f710-ec8d-11f1-ae77-cdbfcc4f498c";

fn xls_pvh() -> Value {
    json!({
        "c_info": { "type": "pvh", "name": "p", "domid": 4_294_967_295_u32, "uuid": UUID, "run_hotplug_scripts": "True" },
        "b_info": { "max_vcpus": 2, "avail_vcpus": [0, 1], "max_memkb": 114_688, "target_memkb": 100_000, "video_memkb": 0,
            "sched_params": {}, "claim_mode": "True", "kernel": "/vmlinux", "cmdline": "console=hvc0", "ramdisk": "/initrd",
            "type.pvh": {}, "arch_arm": {}, "arch_x86": { "msr_relaxed": "False" } },
        "disks": [{ "pdev_path": "/tmp/a,b.img", "vdev": "xvda", "format": "raw", "readwrite": 1, "colo_restore_enable": "False" }],
        "nics": [{ "devid": 0, "mac": "00:16:3e:4d:d4:d6", "bridge": "b0", "nictype": "vif" }],
        "on_reboot": "restart", "on_soft_reset": "soft_reset",
    })
}

fn xls_hvm() -> Value {
    json!({
        "c_info": { "type": "hvm", "name": "h", "uuid": UUID, "run_hotplug_scripts": "True" },
        "b_info": { "max_memkb": 131_072, "target_memkb": 131_072, "video_memkb": 8192, "sched_params": {}, "claim_mode": "True",
            "type.hvm": { "vga": {}, "vnc": { "enable": "True" }, "sdl": {}, "spice": {}, "serial": "pty", "boot": "c",
                "usbdevice_list": ["tablet"], "rdm": {} },
            "arch_arm": {}, "arch_x86": { "msr_relaxed": "False" } },
        "nics": [{ "devid": 0, "model": "e1000", "mac": "00:16:3e:69:36:f2", "bridge": "b0", "nictype": "vif_ioemu" }],
    })
}

fn read(configuration: &Value) -> SavedGuest {
    SavedGuest::read(configuration).unwrap_or_else(|problem| panic!("{problem}"))
}

#[test]
fn a_pvh_guest_of_xl() {
    let guest = read(&xls_pvh());
    assert_eq!((guest.name.as_str(), guest.uuid.to_string().as_str()), ("p", UUID));
    let request = &guest.request;
    assert_eq!((request.kind, request.model, request.vcpus), (Kind::Pvh, Model::Libxl, 2));
    assert_eq!((request.target, request.static_max, request.video), (Kib(100_000), Some(Kib(114_688)), None));
    let disk = &guest.devices.disks[0];
    assert_eq!((disk.target.as_deref(), disk.format, disk.writable), (Some("/tmp/a,b.img"), DiskFormat::Raw, true));
    let nic = &guest.devices.nics[0];
    assert_eq!((nic.devid, nic.bridge.as_deref(), nic.emulated), (Some(0), Some("b0"), Some(false)));
    assert_eq!((guest.platform.online_vcpus, guest.event_channels, guest.ours), (Some(2), 1023, false));
    assert!(!guest.relaxed_msrs);
    let mut older = xls_pvh();
    older["b_info"].as_object_mut().expect("an object").remove("arch_x86");
    assert!(read(&older).relaxed_msrs);
    let outline = Outline::read(&xls_pvh()).expect("an outline");
    assert_eq!(outline.bounds(), Bounds::new((114_688 + (4 << 20) + (1 << 20)) / 4, 2));
    assert_eq!((outline.kind, outline.target, outline.static_max), (Kind::Pvh, Kib(100_000), Kib(114_688)));
    let devices: Vec<String> = outline.devices.iter().map(|(list, device)| format!("{list}: {device}")).collect();
    assert!(devices.iter().any(|device| device == "disks: xvda /tmp/a,b.img"), "{devices:?}");
}

#[test]
fn an_hvm_guest_of_xl() {
    let guest = read(&xls_hvm());
    let qemu = &guest.qemu;
    assert_eq!((qemu.machine.graphics, qemu.keyboard, qemu.restricted), (GraphicsCard::Cirrus, true, false));
    assert_eq!((qemu.arguments.as_slice(), qemu.machine.serial.as_slice()), (&[][..], &["pty".to_owned()][..]));
    assert_eq!(guest.devices.usb, Some(Usb::Devices(vec![UsbDevice::Tablet])));
    assert_eq!(guest.devices.framebuffer.as_ref().map(|vnc| vnc.address()).as_deref(), Some("127.0.0.1:0"));
    assert_eq!((guest.request.video, guest.firmware), (Some(Kib(8192)), Some(FirmwareKind::SeaBios)));
    let mut other = xls_hvm();
    let hvm = &mut other["b_info"]["type.hvm"];
    hvm.as_object_mut().expect("an object").remove("serial");
    hvm["vga"]["kind"] = "std".into();
    hvm["vnc"]["enable"] = "False".into();
    hvm["hpet"] = "False".into();
    other["b_info"]["timer_mode"] = "one_missed_tick_pending".into();
    other["b_info"].as_object_mut().expect("an object").remove("video_memkb");
    let guest = read(&other);
    assert_eq!(
        (guest.qemu.machine.graphics, guest.request.video),
        (GraphicsCard::Std, Some(GraphicsCard::Std.usual_video()))
    );
    assert!(guest.qemu.machine.serial.is_empty());
    assert_eq!((guest.platform.hpet, guest.platform.timer_mode), (false, Some(3)));
    assert!(guest.devices.framebuffer.is_none());
    assert_eq!(guest.platform.viridian.mask(false), None, "in the state");
}

#[test]
fn a_pv_guest_and_the_nodes_that_it_was_created_with() {
    let mut pv = xls_pvh();
    pv["c_info"]["type"] = "pv".into();
    pv["c_info"]["xsdata"] = json!({ "vm-data/a": "1", "dombuild/request": "{}" });
    pv["c_info"]["platformdata"] = json!({ "x": "2" });
    pv["b_info"]["target_memkb"] = 100_001.into();
    let fields = pv["b_info"].as_object_mut().expect("an object");
    fields.remove("type.pvh");
    fields.insert("type.pv".to_owned(), json!({}));
    let guest = read(&pv);
    assert_eq!(guest.request.target, Kib(98 * 1024), "whole MiB");
    let keys = [("vm-data/a", "1"), ("platform/x", "2")].map(|(name, text)| (name.to_owned(), text.to_owned()));
    assert_eq!(guest.keys, keys);
    let image: Vec<_> = guest.image.iter().map(|(name, text)| (*name, text.as_str())).collect();
    assert_eq!(
        image,
        [("kernel", "/vmlinux"), ("ramdisk", "/initrd"), ("cmdline", "console=hvc0"), ("ostype", "linux")]
    );
    Plan::new(&guest.request).expect("a plan");
}

#[test]
fn dombuilds_own_request_comes_back() {
    let request = Request { kind: Kind::Pvh, ..Request::new(Kib(112 * 1024)) };
    let record = json!({ "uuid": UUID, "request": request });
    let mut saved = xls_pvh();
    saved["c_info"]["xsdata"] = json!({ "dombuild/request": record.to_string() });
    let guest = read(&saved);
    assert!(guest.ours && guest.keys.is_empty());
    saved["b_info"].as_object_mut().expect("an object").remove("arch_x86");
    assert!(!read(&saved).relaxed_msrs);
    assert_eq!((guest.request.model, guest.request.target), (Model::Xenops, Kib(100_000)), "with the present size");
    // The card that libxl has no words for.
    let mut hvm = xls_hvm();
    hvm["b_info"]["type.hvm"]["vga"]["kind"] = "none".into();
    hvm["b_info"]["extra_hvm"] = json!(["-device", "VGA,vgamem_mb=8", "-cdrom", "/a"]);
    let qemu = read(&hvm).qemu;
    assert_eq!(
        (qemu.machine.graphics, qemu.arguments),
        (GraphicsCard::Std, vec!["-cdrom".to_owned(), "/a".to_owned()])
    );
}

#[test]
fn what_dombuild_does_not_know_is_refused_by_name() {
    for (path, value, name) in [
        ("/c_info/hap", json!("False"), "c_info.hap"),
        ("/c_info/driver_domain", json!("True"), "c_info.driver_domain"),
        ("/c_info/new", json!(1), "c_info.new"),
        ("/b_info/vnuma_nodes", json!([{ "memkb": 1 }]), "b_info.vnuma_nodes"),
        ("/b_info/device_model_stubdomain", json!("True"), "b_info.device_model_stubdomain"),
        ("/b_info/nested_hvm", json!("True"), "b_info.nested_hvm"),
        ("/b_info/avail_vcpus", json!([1]), "b_info.avail_vcpus"),
        ("/b_info/arch_x86/new", json!("True"), "b_info.arch_x86.new"),
        ("/b_info/type.hvm/vga/kind", json!("tga"), "b_info.type.hvm.vga.kind"),
        ("/b_info/type.hvm/spice/enable", json!("True"), "b_info.type.hvm.spice.enable"),
        ("/b_info/type.hvm/soundhw", json!("beep"), "b_info.type.hvm.soundhw"),
        ("/b_info/type.hvm/ms_vm_genid", json!([1, 2]), "b_info.type.hvm.ms_vm_genid"),
        ("/b_info/kernel", json!("/vmlinuz"), "b_info.kernel"),
        ("/pcidevs", json!([{ "func": 0, "dev": 3 }]), "pcidevs"),
        ("/nics/0/coloft_forwarddev", json!("x"), "nics[0].coloft_forwarddev"),
        ("/nics/0/nictype", json!("vdpa"), "nics[0].nictype"),
        ("/usbctrls", json!([{ "version": 2 }]), "usbctrls"),
    ] {
        let mut changed = xls_hvm();
        let (parent, field) = path.rsplit_once('/').expect("a path");
        changed.pointer_mut(parent).expect("it is there")[field] = value;
        let problem = SavedGuest::read(&changed).expect_err(path);
        assert!(matches!(&problem, FileProblem::Unknown { name: found, .. } if found == name), "{path}: {problem}");
    }
    let mut odd = xls_pvh();
    odd["disks"][0]["vdev"] = "nowhere".into();
    assert!(matches!(SavedGuest::read(&odd), Err(FileProblem::Device { name, .. }) if name == "disks[0]"));
    for missing in ["type", "name", "uuid"] {
        let mut odd = xls_pvh();
        odd["c_info"].as_object_mut().expect("an object").remove(missing);
        assert_eq!(SavedGuest::read(&odd).err(), Some(FileProblem::Missing(format!("c_info.{missing}"))));
    }
    for bad in ["../x", "a//b", "a b"] {
        let mut odd = xls_pvh();
        odd["c_info"]["xsdata"] = json!({ bad: "1" });
        assert!(SavedGuest::read(&odd).is_err(), "{bad}");
    }
}
