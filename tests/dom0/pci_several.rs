//! Several PCI devices: in one guest, as functions of one device, and behind one bridge, where they share their DMA.

use std::thread;

use serde_json::{Value, json};

use super::Test;
use super::linux::{said, start};
use super::pci_support::{Assignable, CARD, EDU, MAC, PV, hvm_flags, listed, of, owner, program};
use super::support::{Host, create, dombuild, domid, shell, wait_for, wait_for_guest_line};

pub(crate) const TESTS: &[Test] = &[
    ("pci_two_devices_of_an_hvm_guest", two_of_hvm),
    ("pci_two_devices_of_a_pv_guest", two_of_pv),
    ("pci_devices_leave_with_the_foreground", foreground),
    ("pci_functions_of_one_device", functions),
    ("pci_devices_that_share_their_dma", shared_dma),
];

/// The functions of one edu, and two of them behind a bridge from PCI Express to PCI (tests/nested/boot.sh).
const FUNCTIONS: [&str; 2] = ["0000:00:09.0", "0000:00:09.1"];
const SHARING: [&str; 2] = ["0000:02:01.0", "0000:02:02.0"];

/// The PCI devices of a guest, as `list --devices` shows them.
fn devices(name: &str) -> Vec<Value> {
    let all = dombuild(&["list", "--devices", name]).success().json();
    all.as_array().expect("a list").iter().filter(|row| row["kind"] == "pci").cloned().collect()
}

fn column(rows: &[Value], name: &str) -> Vec<Value> {
    rows.iter().map(|row| row[name].clone()).collect()
}

fn two_of_hvm() {
    let _assignable = Assignable::new(&[CARD, EDU]);
    let host = Host::now();
    let program = program();
    let both = format!("{CARD}@6,{EDU}@7");
    let flags = [&hvm_flags(&program)[..6], &["--pci", &both]].concat();
    let number = domid(&create("t", &flags));
    wait_for_guest_line(number, "pci end", 120);
    let log = shell("xl dmesg");
    for line in ["pci card 00000006", "pci edu 00000007", "pci factorial 00000078", "pci dma cafe0001"] {
        assert!(log.contains(&format!("(d{number}) {line}")), "{line}: {log}");
    }
    assert_eq!([owner(CARD), owner(EDU)], [of(number), of(number)]);
    let rows = devices("t");
    assert_eq!(column(&rows, "address"), [CARD, EDU]);
    assert_eq!(column(&rows, "place"), ["06.0", "07.0"]);
    assert_eq!(column(&rows, "devid"), [0, 1]);
    let theirs = shell("xl pci-list t");
    assert!(theirs.contains(&format!("06.0 {CARD}")) && theirs.contains(&format!("07.0 {EDU}")), "{theirs}");
    let table = super::support::run("dombuild", &["list", "--devices", "t"]).success().stdout;
    assert!(table.lines().any(|line| line.contains("pci 1") && line.contains(&format!("{EDU} at 07.0"))), "{table}");
    dombuild(&["destroy", "t"]).success();
    assert_eq!([owner(CARD), owner(EDU)], ["d[IO]", "d[IO]"]);
    host.assert_back().expect("nothing is left");
}

fn two_of_pv() {
    let _assignable = Assignable::new(&[CARD, EDU]);
    let host = Host::now();
    let flags = [&PV[..], &["--pci", EDU]].concat();
    let number = domid(&start(&flags, "guest.pci guest.net=0,10.0.2.15,10.0.2.2"));
    assert_eq!([owner(CARD), owner(EDU)], [of(number), of(number)]);
    wait_for("the guest has used its card", 120, || said("net 0").is_some());
    assert_eq!(said("net 0").as_deref(), Some(&*format!("{MAC} ping 10.0.2.2 yes")));
    let rows = devices("t");
    assert_eq!(column(&rows, "address"), [CARD, EDU]);
    // pcifront has found both on its bus before it connects.
    assert_eq!(column(&rows, "frontend_state"), ["connected", "connected"]);
    assert!(rows[0]["place"] != rows[1]["place"] && rows[1]["place"].is_string(), "{rows:?}");
    // One of them goes, and the other stays in use.
    dombuild(&["detach", "pci", "t", EDU]).success();
    assert_eq!([owner(CARD), owner(EDU)], [of(number), "d[IO]".to_owned()]);
    assert_eq!(column(&devices("t"), "address"), [CARD]);
    dombuild(&["attach", "pci", "t", EDU]).success();
    assert_eq!(column(&devices("t"), "address"), [CARD, EDU]);
    dombuild(&["destroy", "t"]).success();
    assert_eq!([owner(CARD), owner(EDU)], ["d[IO]", "d[IO]"]);
    host.assert_back().expect("nothing is left");
}

/// A guest that powers itself off under `--foreground` and `run` leaves its device in quarantine.
fn foreground() {
    let _assignable = Assignable::new(&[CARD]);
    let host = Host::now();
    let kernel = super::support::GUEST_KERNEL;
    let cmdline = format!("{} {} guest.poweroff", super::support::CMDLINE, super::linux::QUICK);
    let flags = ["--kernel", kernel, "--ramdisk", super::support::GUEST_INITRD, "--cmdline", &cmdline];
    let words = [&["create", "--name", "t", "--foreground"], &PV[..], &flags].concat();
    let words: Vec<String> = words.into_iter().map(str::to_owned).collect();
    let run = thread::spawn(move || dombuild(&words.iter().map(String::as_str).collect::<Vec<_>>()));
    wait_for("the guest has its device", 60, || owner(CARD) != "d[IO]");
    let ran = run.join().expect("it ran").success();
    assert_eq!(ran.json()["ended"], "poweroff", "{ran:?}");
    assert_eq!(owner(CARD), "d[IO]");
    host.assert_back().expect("nothing is left");
    let config = super::support::file(
        format!(
            "name = 't'\ntype = 'pv'\nmemory = 160\nkernel = '{kernel}'\nramdisk = '{}'\npci = ['{CARD}']\n\
             cmdline = '{cmdline}'\non_poweroff = 'destroy'\n",
            super::support::GUEST_INITRD
        )
        .as_bytes(),
    );
    dombuild(&["run", super::support::path_text(&config)]).success();
    assert_eq!(owner(CARD), "d[IO]");
    assert!(listed(CARD).expect("listed")["assignable"] == true);
    host.assert_back().expect("nothing is left");
}

/// What a run logs at the level of warnings.
fn warnings(words: &[&str]) -> String {
    let ran = super::support::run("dombuild", words).success();
    ran.stderr
}

fn functions() {
    shell("modprobe xen-pciback");
    let [first, second] = FUNCTIONS;
    let all = dombuild(&["pci", "list", "--all"]).success().json();
    let row = all.as_array().expect("a list").iter().find(|row| row["address"] == first).expect("listed").clone();
    assert_eq!((&row["functions"], &row["shares_dma_with"]), (&json!([second]), &json!([])));
    let said = warnings(&["pci", "assign", first]);
    assert!(said.contains(&format!("dom0 has {second}, another function of {first}")), "{said}");
    let _assignable = Assignable::new(&FUNCTIONS);
    let text = super::support::run("dombuild", &["pci", "list"]).success().stdout;
    assert!(
        text.lines().any(|line| line.starts_with(first) && line.contains(&format!("{second} (function)"))),
        "{text}"
    );
    // Each goes to another guest, with a word about it.
    let program = program();
    let flags = &hvm_flags(&program)[..6];
    create("t", &[flags, &["--pci", first, "--paused"]].concat());
    let number = shell("xl domid t").trim().to_owned();
    let words = [&["create", "--name", "other", "--paused"], flags, &["--pci", second]].concat();
    let said = warnings(&words);
    assert!(said.contains(&format!("domain {number} has {first}, another function of {second}")), "{said}");
    for name in ["t", "other"] {
        dombuild(&["destroy", name]).success();
    }
}

fn shared_dma() {
    shell("modprobe xen-pciback");
    let [first, second] = SHARING;
    let all = dombuild(&["pci", "list", "--all"]).success().json();
    for (one, other) in [(first, second), (second, first)] {
        let row = all.as_array().expect("a list").iter().find(|row| row["address"] == one).expect("listed");
        assert_eq!((&row["functions"], &row["shares_dma_with"]), (&json!([]), &json!([other])), "{one}");
    }
    let program = program();
    let flags = &hvm_flags(&program)[..6];
    let refused = |words: &[&str], why: &str| {
        let error = dombuild(words).failed_with(3, "bad-config");
        let message = error["message"].as_str().expect("text");
        assert!(message.contains("the IOMMU cannot tell") && message.contains(why), "{why}: {error}");
    };
    let new = |name: &'static str, device: &'static str| {
        [&["create", "--name", name, "--paused"], flags, &["--pci", device]].concat()
    };
    // dom0 keeps the other one.
    dombuild(&["pci", "assign", first]).success();
    let host = Host::now();
    refused(&new("t", first), "dom0 has");
    host.assert_back().expect("nothing is changed");
    let _assignable = Assignable::new(&SHARING);
    let host = Host::now();
    let number = domid(&dombuild(&new("t", first)).success().json());
    // A guest has the other one.
    let has = format!("{first}, which domain {number} has");
    refused(&new("other", second), &has);
    refused(&["pci", "release", second], &has);
    refused(&["pci", "assign", second], &has);
    assert_eq!(listed(second).expect("listed")["shares_dma_with"], json!([first]));
    dombuild(&["destroy", "t"]).success();
    host.assert_back().expect("nothing is left");
    // The guest gets both.
    let both = format!("{first},{second}");
    let number = domid(&create("t", &[flags, &["--pci", &both, "--paused"]].concat()));
    assert_eq!([owner(first), owner(second)], [of(number), of(number)]);
    dombuild(&["destroy", "t"]).success();
    assert_eq!([owner(first), owner(second)], ["d[IO]", "d[IO]"]);
    host.assert_back().expect("nothing is left");
}
