//! Guests with PCI devices come and go many times, and runs with them are killed and fail: the devices come back.

use super::Test;
use super::faults::{Walk, split_by, traced, walk_of_create};
use super::kills::{clean, domain_named, kill_after, kill_in};
use super::pci_support::{Assignable, CARD, EDU, PV, hvm_flags, of, owner, program};
use super::sample::{Random, count};
use super::support::{GUEST_INITRD, GUEST_KERNEL, Host, create, dombuild, domid, file, path_text, run};

pub(crate) const TESTS: &[Test] = &[
    ("pci_devices_come_back", rounds),
    ("pci_kills_of_create", kills_of_create),
    ("pci_kills_of_attach", kills_of_attach),
    ("pci_faults_in_create", faults_in_create),
];

/// Guests come and go with their devices, and the devices are in quarantine each time.
fn rounds() {
    let _assignable = Assignable::new(&[CARD, EDU]);
    let host = Host::now();
    let program = program();
    let pv = [&PV[..], &["--kernel", GUEST_KERNEL, "--ramdisk", GUEST_INITRD]].concat();
    for round in 0..count(4, 100) {
        let (flags, device) = if round % 2 == 0 { (pv.clone(), CARD) } else { (hvm_flags(&program), EDU) };
        let number = domid(&create("t", &flags));
        assert_eq!(owner(device), of(number), "round {round}");
        dombuild(&["destroy", "t"]).success();
        assert_eq!(owner(device), "d[IO]", "round {round}");
        host.assert_back().unwrap_or_else(|left| panic!("round {round}: {left}"));
    }
    // A create that fails late: the guest's kernel is not one.
    let bad = file(&[0; 4096]);
    dombuild(&["create", "--name", "t", "--kind", "pv", "--memory", "160", "--pci", CARD, "--kernel", path_text(&bad)])
        .failed_with(3, "bad-kernel");
    assert_eq!(owner(CARD), "d[IO]");
    host.assert_back().expect("nothing is left");
}

fn kills_of_create() {
    let _assignable = Assignable::new(&[CARD, EDU]);
    let program = program();
    let pv = [&["create", "--name", "t"], &PV[..], &["--kernel", GUEST_KERNEL, "--ramdisk", GUEST_INITRD]].concat();
    let hvm = [&["create", "--name", "t"], &hvm_flags(&program)[..]].concat();
    for (words, device) in [(pv, CARD), (hvm, EDU)] {
        let started = std::time::Instant::now();
        dombuild(&words).success();
        let length = started.elapsed();
        dombuild(&["destroy", "t"]).success();
        let host = Host::now();
        let mut random = Random::new("kills of create with PCI devices");
        let mut noted = 0;
        for round in 0..count(4, 60) {
            let delay = length * random.permille() / 1000;
            match round % 4 {
                0 => kill_in("host-access", &words, delay / 20),
                1 => kill_in("devices", &words, delay / 10),
                _ => drop(kill_after(&words, delay)),
            }
            let node = format!("/libxl/pci/{}/domid", device.replace([':', '.'], "-"));
            noted += u32::from(run("xenstore-read", &[&node]).status == Some(0));
            clean();
            if domain_named("t") {
                dombuild(&["destroy", "t"]).success();
            }
            assert_eq!(owner(device), "d[IO]", "round {round}, killed after {delay:?}");
            host.assert_back().unwrap_or_else(|left| panic!("round {round}, killed after {delay:?}: {left}"));
        }
        println!("{device}: {noted} runs were killed while the device was noted");
        assert!(noted > 0, "the step takes longer than that");
    }
}

/// An attachment that is killed is complete, or `cleanup` takes it back; the guest stays.
fn kills_of_attach() {
    let _assignable = Assignable::new(&[CARD]);
    let flags = ["--kind", "pv", "--memory", "160", "--kernel", GUEST_KERNEL, "--passthrough", "--paused"];
    let number = domid(&create("t", &flags));
    let host = Host::now();
    let words = ["attach", "pci", "t", CARD, "--no-wait"];
    let detach = || dombuild(&["detach", "pci", "t", CARD]).success();
    let started = std::time::Instant::now();
    dombuild(&words).success();
    let length = started.elapsed();
    assert_eq!(owner(CARD), of(number));
    detach();
    host.assert_back().expect("nothing is left");
    let mut random = Random::new("kills of attach pci");
    let (mut begun, mut complete) = (0, 0);
    for round in 0..count(6, 60) {
        let delay = length * random.permille() / 1000;
        match round % 3 {
            0 => kill_in("host-access", &words, delay / 20),
            1 => kill_in("devices", &words, delay / 10),
            _ => drop(kill_after(&words, delay)),
        }
        begun += u32::from(owner(CARD) == of(number));
        clean();
        if owner(CARD) == of(number) {
            complete += 1;
            detach();
        }
        assert_eq!(owner(CARD), "d[IO]", "round {round}, killed after {delay:?}");
        host.assert_back().unwrap_or_else(|left| panic!("round {round}, killed after {delay:?}: {left}"));
    }
    println!("{begun} runs were killed when the guest had the device; {complete} of them were complete");
    assert!(begun > complete, "cleanup has taken none back");
    dombuild(&["destroy", "t"]).success();
}

/// Each call that a `create` without the device does not have fails once.
fn faults_in_create() {
    let _assignable = Assignable::new(&[CARD]);
    let host = Host::now();
    let pv = ["create", "--name", "t", "--kind", "pv", "--memory", "160", "--kernel", GUEST_KERNEL, "--passthrough"];
    let with = [&pv[..], &["--pci", CARD]].concat();
    let [without, whole] = [&pv[..], &with].map(|arguments| {
        let run = traced(arguments, &[]);
        assert_eq!(run.ran.status, Some(0), "{:?}", run.ran);
        dombuild(&["destroy", "t"]).success();
        run.calls
    });
    host.assert_back().expect("nothing is left");
    let (of_device, _) = split_by(&whole, &without);
    for call in ["xc_assign_device", "xc_test_assign_device", "xc_domain_iomem_permission"] {
        assert!(of_device.iter().any(|index| whole[*index].outer == call), "{call} is not among the calls");
    }
    walk_of_create(Walk::new("create pv with a PCI device", host, of_device.len()), &with, &whole, &of_device, 6);
    assert_eq!(owner(CARD), "d[IO]");
}
