//! PCI devices of the host in guests: an e1000e behind a root port, and QEMU's edu, on a host with an IOMMU
//! (`tests/nested.sh --host iommu`).

use std::path::Path;
use std::thread;
use std::time::Duration;

use dombuild::xen::{DomId, Interface};
use serde_json::Value;

use super::Test;
use super::linux::{said, start};
use super::pci_support::{
    Assignable, CARD, EDU, MAC, PV, hvm_flags, is_assignable_for_xl, listed, nodes, of, owner, program, recorded,
    xl_config,
};
use super::support::{
    GUEST_INITRD, GUEST_KERNEL, Host, create, destroy, dombuild, domid, path_text, run, shell, wait_for,
    wait_for_guest_line,
};

pub(crate) const TESTS: &[Test] = &[
    ("pci_assignable_devices_are_xls", assignable),
    ("pci_card_of_a_pv_guest", card_of_pv),
    ("pci_device_of_an_hvm_guest", device_of_hvm),
    ("pci_attach_and_detach", attach_and_detach),
    ("pci_notes_of_a_dead_guest", dead_guest),
    ("pci_nodes_are_those_of_xl", nodes_of_xl),
    ("pci_refusals", refusals),
];

fn assignable() {
    shell("modprobe xen-pciback; modprobe e1000e");
    wait_for("dom0's driver has the card", 20, || Path::new("/sys/bus/pci/drivers/e1000e").join(CARD).exists());
    assert_eq!(listed(CARD), None);
    // An interface that is up belongs to dom0.
    let interface = shell(&format!("ls /sys/bus/pci/devices/{CARD}/net")).trim().to_owned();
    shell(&format!("ip link set {interface} up"));
    let error = dombuild(&["pci", "assign", CARD]).failed_with(3, "bad-config");
    assert!(error["message"].as_str().expect("text").contains(&format!("{interface} is up")), "{error}");
    shell(&format!("ip link set {interface} down"));

    dombuild(&["pci", "assign", CARD]).success();
    assert!(is_assignable_for_xl(CARD) && owner(CARD) == "d[IO]");
    let row = listed(CARD).expect("listed");
    assert_eq!([&row["driver"], &row["former_driver"]], ["pciback", "e1000e"]);
    assert_eq!(row["assignable"], true);
    assert_eq!(dombuild(&["pci", "assign", CARD]).success().json()["changed"], false);
    // xl gives back what dombuild has taken, and the other way around.
    shell(&format!("xl pci-assignable-remove -r {CARD}"));
    assert!(listed(CARD).is_none() && owner(CARD) == "d0");
    assert!(Path::new("/sys/bus/pci/drivers/e1000e").join(CARD).exists());
    shell(&format!("xl pci-assignable-add {CARD}"));
    assert_eq!(listed(CARD).expect("listed")["former_driver"], "e1000e");
    let released = dombuild(&["pci", "release", CARD]).success().json();
    assert_eq!(released["driver"], "e1000e");
    assert!(!is_assignable_for_xl(CARD) && owner(CARD) == "d0");
    assert!(Path::new("/sys/bus/pci/drivers/e1000e").join(CARD).exists());
    dombuild(&["pci", "release", CARD]).failed_with(3, "bad-config");
    for (device, words) in
        [("0000:00:02.0", "is a bridge"), ("0000:00:06.0", "has mounted"), ("0000:7f:00.0", "no PCI device")]
    {
        let error = dombuild(&["pci", "assign", device]).failed_with(3, "bad-config");
        assert!(error["message"].as_str().expect("text").contains(words), "{error}");
    }
    shell("modprobe -r e1000e");
}

fn card_of_pv() {
    let _assignable = Assignable::new(&[CARD]);
    let host = Host::now();
    let domid = domid(&start(&PV, "guest.pci guest.net=0,10.0.2.15,10.0.2.2"));
    assert_eq!(owner(CARD), of(domid));
    wait_for("the guest has used its card", 120, || said("net 0").is_some());
    assert_eq!(said("net 0").as_deref(), Some(&*format!("{MAC} ping 10.0.2.2 yes")));
    assert!(shell("xl pci-list t").contains(CARD));
    assert_eq!(listed(CARD).expect("listed")["domid"], domid.get());
    assert!(!is_assignable_for_xl(CARD));
    dombuild(&["destroy", "t"]).success();
    assert_eq!(owner(CARD), "d[IO]");
    assert!(is_assignable_for_xl(CARD));
    host.assert_back().expect("nothing is left");

    // xl destroys dombuild's guest, and dombuild xl's.
    let flags = [&PV[..], &["--kernel", GUEST_KERNEL, "--ramdisk", GUEST_INITRD, "--paused"]].concat();
    create("t", &flags);
    run("xl", &["destroy", "t"]);
    assert_eq!(owner(CARD), "d[IO]");
    // xl has left the backend of a guest that has never connected, and this goes on all the same.
    create("t", &flags);
    dombuild(&["destroy", "t"]).success();
    let config = xl_config("pv", CARD);
    run("xl", &["create", "-p", path_text(&config)]).success();
    dombuild(&["destroy", "--force", "t"]).success();
    assert!(owner(CARD) == "d[IO]" && listed(CARD).expect("listed")["assignable"] == true);
}

fn device_of_hvm() {
    let assignable = Assignable::new(&[EDU]);
    let host = Host::now();
    let program = program();
    let domid = domid(&create("t", &hvm_flags(&program)));
    wait_for_guest_line(domid, "pci end", 120);
    let log = shell("xl dmesg");
    for line in ["pci factorial 00000078", "pci dma cafe0001"] {
        assert!(log.contains(&format!("(d{domid}) {line}")), "{line}: {log}");
    }
    assert_eq!(owner(EDU), of(domid));
    assert!(shell("xl pci-list t").contains(EDU));
    dombuild(&["destroy", "t"]).success();
    assert_eq!(owner(EDU), "d[IO]");
    host.assert_back().expect("nothing is left");

    // A device with MSI-X, whose table QEMU maps from dom0's memory, at a chosen place; and one that dom0 still had.
    drop(assignable);
    let device = format!("{CARD}@5,permissive=1,seize=1");
    create("t", &["--memory", "160", "--vga", "none", "--hvmloader", &program, "--pci", &device, "--paused"]);
    assert!(shell("xl pci-list t").lines().any(|line| line.trim() == format!("05.0 {CARD}")));
    dombuild(&["destroy", "t"]).success();
    assert_eq!(owner(CARD), "d[IO]");
    dombuild(&["pci", "release", CARD]).success();
    assert_eq!(owner(CARD), "d0");
}

/// A domain that something destroys without a word to xenstore: Xen takes the device back, and `cleanup` its note.
fn dead_guest() {
    let _assignable = Assignable::new(&[CARD]);
    let host = Host::now();
    for keys_stay in [true, false] {
        let flags = [&PV[..], &["--kernel", GUEST_KERNEL, "--paused"]].concat();
        let number = domid(&create("t", &flags));
        destroy(&Interface::open().expect("Xen"), number);
        wait_for("it is gone", 20, || owner(CARD) == "d[IO]");
        if !keys_stay {
            // As after a tool that removes what it knows of a domain.
            let vm = shell(&format!("xenstore-read /local/domain/{number}/vm"));
            shell(&format!("xenstore-rm /local/domain/{number} && xenstore-rm /libxl/{number} && xenstore-rm {vm}"));
            shell(&format!("xenstore-rm /local/domain/0/backend/console/{number}"));
            shell(&format!("rm -f /var/lib/xen/userdata-?.{number}.*"));
        }
        let found = dombuild(&["cleanup"]).success().json();
        assert_eq!(found.to_string().contains("pci-device"), !keys_stay, "{found}");
        dombuild(&["cleanup", "--apply"]).success();
        assert_eq!(listed(CARD).expect("listed")["assignable"], true);
        assert_eq!(owner(CARD), "d[IO]");
    }
    host.assert_back().expect("nothing is left");
}

/// A card comes to a PV guest that runs, and goes; an HVM guest that does not eject a device keeps it.
fn attach_and_detach() {
    let _assignable = Assignable::new(&[CARD, EDU]);
    let host = Host::now();
    let flags = ["--kind", "pv", "--memory", "160", "--passthrough"];
    let domid = domid(&start(&flags, "guest.pci guest.net=0,10.0.2.15,10.0.2.2"));
    wait_for("the guest has its drivers", 60, || said("pci").is_some());
    dombuild(&["attach", "pci", "t", CARD]).success();
    assert_eq!(owner(CARD), of(domid));
    wait_for("the guest has used its card", 120, || said("net 0").is_some());
    assert_eq!(said("net 0").as_deref(), Some(&*format!("{MAC} ping 10.0.2.2 yes")));
    assert_eq!(recorded(domid).as_array().map(Vec::len), Some(1));
    assert!(shell("xl pci-list t").contains(CARD));
    dombuild(&["detach", "pci", "t", CARD, "--force"]).failed_with(3, "bad-config");
    dombuild(&["detach", "pci", "t", CARD]).success();
    assert_eq!(owner(CARD), "d[IO]");
    assert_eq!(recorded(domid).as_array().map(Vec::len), Some(0));
    dombuild(&["detach", "pci", "t", CARD]).failed_with(3, "bad-config");
    // xl takes what dombuild has attached. It withdraws the device's memory before it asks the guest: a driver that still
    // starts would fault.
    dombuild(&["attach", "pci", "t", CARD]).success();
    thread::sleep(Duration::from_secs(10));
    shell(&format!("xl pci-detach t {CARD}"));
    assert_eq!(owner(CARD), "d[IO]");
    dombuild(&["destroy", "t"]).success();
    host.assert_back().expect("nothing is left");

    let program = program();
    let number = super::support::domid(&create("t", &[&hvm_flags(&program)[..6], &["--passthrough"]].concat()));
    dombuild(&["attach", "pci", "t", EDU]).success();
    assert!(owner(EDU) == of(number) && shell("xl pci-list t").contains(EDU));
    dombuild(&["detach", "pci", "t", EDU, "--timeout", "2"]).failed_with(8, "timed-out");
    assert_eq!(owner(EDU), of(number));
    dombuild(&["destroy", "t"]).success();
    assert_eq!(owner(EDU), "d[IO]");
    // A guest that was created without passthrough gets no device.
    let kernel = ["--kind", "pv", "--memory", "160", "--kernel", GUEST_KERNEL, "--paused"];
    create("t", &kernel);
    assert_ne!(dombuild(&["attach", "pci", "t", CARD]).status, Some(0));
    assert_eq!(owner(CARD), "d[IO]");
    dombuild(&["destroy", "t"]).success();
    host.assert_back().expect("nothing is left");
}

fn nodes_of_xl() {
    let _assignable = Assignable::new(&[CARD, EDU]);
    for (kind, device) in [("pv", CARD), ("hvm", EDU)] {
        let config = xl_config(kind, device);
        run("xl", &["create", "-p", path_text(&config)]).success();
        let number = DomId::new(shell("xl domid t").trim().parse().expect("a domid")).expect("a domid");
        let theirs = (nodes(number), recorded(number), owner(device).replace(&of(number), "dN"));
        assert!(theirs.0.len() > 12, "{theirs:#?}");
        run("xl", &["destroy", "t"]).success();
        // What xl leaves of a guest whose frontend has never connected.
        shell(&format!("xenstore-rm /local/domain/0/backend/pci/{number} 2>/dev/null || true"));
        let number = domid(&dombuild(&["create", path_text(&config), "-p"]).success().json());
        let ours = (nodes(number), recorded(number), owner(device).replace(&of(number), "dN"));
        assert_eq!(ours, theirs, "{kind}");
        let full: Value = serde_json::from_str(&shell("xl list -l t")).expect("JSON");
        assert_eq!(full[0]["config"]["pcidevs"].as_array().map(Vec::len), Some(1), "{full}");
        dombuild(&["destroy", "t"]).success();
    }
}

fn refusals() {
    let host = Host::now();
    let refused = |flags: &[&str], words: &str| {
        let kernel = ["--kernel", GUEST_KERNEL, "--paused"];
        let kernel = if flags.contains(&"hvm") { &kernel[2..] } else { &kernel[..] };
        let ran = dombuild(&[&["create", "--name", "t", "--memory", "160"], kernel, flags].concat());
        let error = ran.failed_with(3, "bad-config");
        assert!(error["message"].as_str().expect("text").contains(words), "{words}: {error}");
        host.assert_back().expect("nothing is changed");
    };
    shell("modprobe xen-pciback");
    refused(&["--kind", "pv", "--pci", CARD], "`dombuild pci assign 0000:01:00.0`");
    refused(&["--kind", "pv", "--pci", "0000:00:06.0"], "driver \"virtio-pci\" has it");
    refused(&["--kind", "pv", "--pci", "0000:7f:00.0"], "no PCI device 0000:7f:00.0");
    refused(&["--kind", "pv", "--pci", "0000:00:02.0"], "is a bridge");
    refused(&["--kind", "pvh", "--pci", CARD], "no passthrough for x86 PVH guests");
    let _assignable = Assignable::new(&[CARD]);
    let host = Host::now();
    let refused = |flags: &[&str], words: &str| {
        let ran = dombuild(&[&["create", "--name", "t", "--memory", "160", "--paused"], flags].concat());
        let error = ran.failed_with(3, "bad-config");
        assert!(error["message"].as_str().expect("text").contains(words), "{words}: {error}");
        host.assert_back().expect("nothing is changed");
    };
    let pv = ["--kind", "pv", "--kernel", GUEST_KERNEL];
    refused(&[&pv[..], &["--pci", &format!("{CARD},{CARD}")]].concat(), "named twice");
    refused(&[&pv[..], &["--maxmem", "4GiB", "--pci", CARD]].concat(), "reaches 0x100000000");
    refused(&["--device-model", "none", "--pci", CARD], "through its QEMU");
    create("other", &[&pv[..], &["--memory", "160", "--paused", "--pci", CARD]].concat());
    let other = shell("xl domid other").trim().to_owned();
    let ran = dombuild(&[&["create", "--name", "t", "--memory", "160", "--paused", "--pci", CARD], &pv[..]].concat());
    let error = ran.failed_with(3, "bad-config");
    assert!(error["message"].as_str().expect("text").contains(&format!("domain {other} has")), "{error}");
    for verb in ["release", "assign"] {
        let error = dombuild(&["pci", verb, CARD]).failed_with(3, "bad-config");
        assert!(error["message"].as_str().expect("text").contains(&format!("domain {other} has")), "{error}");
    }
    dombuild(&["destroy", "other"]).success();
}
