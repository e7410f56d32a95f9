//! The DMA of PCI devices: a device that may still write to memory is the guest's or in quarantine, and never dom0's or
//! another guest's.
//!
//! A guest that has edu lets it write to a page again and again (tests/nested/pci-guest.c). The test maps that page: as long
//! as it does, the page stays as it is when the guest is gone. `edu-dma` lets the device write from dom0.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use dombuild::memory::{Gfn, Pages};
use dombuild::xen::{DomId, ForeignPages, Interface};

use super::Test;
use super::kills::{clean, domain_named, kill_in};
use super::pci_support::{Assignable, EDU, hvm_flags, listed, of, owner, program};
use super::sample::{Random, count};
use super::support::{Host, create, destroy, dombuild, domid, run, shell, start_silently, wait_for};

pub(crate) const TESTS: &[Test] = &[
    ("pci_dma_ends_with_the_guest", ends_with_the_guest),
    ("pci_dma_is_off_before_dom0_has_the_device", off_for_dom0),
    ("pci_dma_is_off_before_a_guest_has_the_device", off_for_the_next),
];

/// Where the device writes, and what (tests/nested/pci-guest.c).
const GOAL: u64 = 0x80_0000;
const WRITTEN: u32 = 0xcafe_0001;

/// The page of a guest that the device writes to.
struct Goal(ForeignPages);

impl Goal {
    fn of(domid: DomId) -> Self {
        let xen = Interface::open().expect("Xen");
        Self(xen.map(domid, Gfn(GOAL >> 12), Pages(1)).expect("mapped"))
    }

    /// Whether the device writes to it within four times the time that edu takes.
    fn is_written(&mut self) -> bool {
        self.0.write(0, &[0; 4]);
        thread::sleep(Duration::from_millis(400));
        let mut bytes = [0; 4];
        self.0.read(0, &mut bytes);
        u32::from_le_bytes(bytes) == WRITTEN
    }

    /// The same while dom0 lets it write as well.
    fn is_written_by_dom0(&mut self) -> bool {
        self.0.write(0, &[0; 4]);
        run("edu-dma", &[EDU, &GOAL.to_string()]).success();
        let mut bytes = [0; 4];
        self.0.read(0, &mut bytes);
        u32::from_le_bytes(bytes) == WRITTEN
    }
}

/// Bus mastering is on afterwards, as a guest leaves it.
fn run_device() {
    run("edu-dma", &[EDU, &GOAL.to_string(), "leave"]).success();
}

/// Whether the device may use memory by itself: bit 2 of its command register.
fn is_bus_master() -> bool {
    let config = fs::read(format!("/sys/bus/pci/devices/{EDU}/config")).expect("read");
    u16::from_le_bytes([config[4], config[5]]) & 4 != 0
}

/// What the device may do now is seen: `true` if the guest has it, and all of its memory; `false` if it is in quarantine,
/// where nothing that it writes arrives.
fn is_guests(domid: DomId, goal: &mut Goal) -> bool {
    let pages = || Interface::open().expect("Xen").domain(domid).expect("asked").map(|info| info.owned_pages);
    let before = pages();
    let owner = owner(EDU);
    if owner == of(domid) {
        assert!(before.is_some() && pages() == before, "the guest has the device, and loses memory: {before:?}");
        return true;
    }
    assert_eq!(owner, "d[IO]");
    assert!(!goal.is_written(), "what the guest has begun arrives");
    assert!(!goal.is_written_by_dom0(), "the device reaches memory from its quarantine");
    false
}

fn ends_with_the_guest() {
    let _assignable = Assignable::new(&[EDU]);
    let program = program();
    let host = Host::now();
    let mut random = Random::new("ends of guests whose device does DMA");
    let began = || {
        let number = domid(&create("t", &hvm_flags(&program)));
        let mut goal = Goal::of(number);
        wait_for("the device writes", 120, || goal.is_written());
        (number, goal)
    };
    let (number, goal) = began();
    drop(goal);
    let started = Instant::now();
    dombuild(&["destroy", "t"]).success();
    let length = started.elapsed();
    assert!(owner(EDU) == "d[IO]" && !is_bus_master(), "{number}");
    let (mut guests, mut quarantined) = (0, 0);
    for round in 0..count(5, 60) {
        let (number, mut goal) = began();
        let mut see = |goal: &mut Goal| match is_guests(number, goal) {
            true => guests += 1,
            false => quarantined += 1,
        };
        match round % 5 {
            // Its page stays, so that this run waits for the end of the domain.
            0 => {
                let mut run = start_silently(&["destroy", "t"]);
                while run.try_wait().expect("asked").is_none() {
                    see(&mut goal);
                }
            }
            1 => {
                shell(&format!("kill -9 $(pgrep -f -- '[-]xen-domid {number}')"));
                see(&mut goal);
                destroy(&Interface::open().expect("Xen"), number);
                see(&mut goal);
                assert_eq!(owner(EDU), "d[IO]");
            }
            _ => {
                kill_in("destroy", &["destroy", "t"], length * random.permille() / 2000);
                see(&mut goal);
            }
        }
        drop(goal);
        clean();
        if domain_named("t") {
            dombuild(&["destroy", "t"]).success();
        }
        assert!(owner(EDU) == "d[IO]" && !is_bus_master(), "round {round}");
        host.assert_back().unwrap_or_else(|left| panic!("round {round}: {left}"));
    }
    println!("seen {guests} times with the guest, {quarantined} times in quarantine");
    assert!(quarantined > 0);
}

/// A guest has left the device with its bus mastering on, and `release` is killed.
fn off_for_dom0() {
    let assignable = Assignable::new(&[EDU]);
    let mut random = Random::new("kills of release");
    let release = ["pci", "release", EDU];
    let started = Instant::now();
    dombuild(&release).success();
    let length = started.elapsed();
    let (mut quarantined, mut dom0s) = (0, 0);
    for round in 0..count(10, 200) {
        dombuild(&["pci", "assign", EDU]).success();
        assert_eq!(owner(EDU), "d[IO]");
        run_device();
        assert!(is_bus_master());
        match round {
            0 => drop(dombuild(&release).success()),
            _ => kill_in("remove-device", &release, length * random.permille() / 2000),
        }
        match owner(EDU).as_str() {
            "d[IO]" => quarantined += 1,
            "d0" => {
                assert!(!is_bus_master(), "round {round}: dom0 has a device that may still do a guest's DMA");
                dom0s += 1;
            }
            other => panic!("{other} has it"),
        }
        if listed(EDU).is_some() {
            dombuild(&release).success();
        }
        assert!(owner(EDU) == "d0" && !is_bus_master(), "round {round}");
    }
    println!("{quarantined} runs were killed before dom0 had the device, {dom0s} after that");
    drop(assignable);
}

/// The same for the next guest, which has not run yet.
fn off_for_the_next() {
    let _assignable = Assignable::new(&[EDU]);
    let program = program();
    let host = Host::now();
    let create = [&["create", "--name", "t", "--paused"], &hvm_flags(&program)[..]].concat();
    let mut random = Random::new("kills of create with a device that does DMA");
    let mut guests = 0;
    for round in 0..count(4, 60) {
        run_device();
        assert!(is_bus_master());
        match round % 4 {
            0 => drop(dombuild(&create).success()),
            1 => kill_in("devices", &create, Duration::from_millis(random.below(200))),
            _ => kill_in("host-access", &create, Duration::from_millis(random.below(40))),
        }
        if owner(EDU) != "d[IO]" {
            assert!(!is_bus_master(), "round {round}: the next guest has a device that still does the DMA of another");
            guests += 1;
        }
        clean();
        if domain_named("t") {
            dombuild(&["destroy", "t"]).success();
        }
        assert_eq!(owner(EDU), "d[IO]", "round {round}");
        host.assert_back().unwrap_or_else(|left| panic!("round {round}: {left}"));
    }
    println!("the guest had the device in {guests} runs");
    assert!(guests > 0);
}
