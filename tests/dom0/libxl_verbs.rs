//! xl's verbs on a guest of dombuild and on its twin of xl: the same exit status and the same effect. docs/toolstack.md has
//! the table.

use std::fs::{self, File};
use std::process::{Command, Stdio};

use dombuild::xen::{DomId, DomainInfo, Interface, ShutdownReason};
use serde_json::json;

use super::Test;
use super::device_model::ask;
use super::devices::{Images, Link, loops};
use super::libxl_record::listed;
use super::linux::{QUICK, expect_guest, kernel_crashed, said, start, wait_until_ready};
use super::parallel::SecondProcessor;
use super::support::{CMDLINE, GUEST_INITRD, GUEST_KERNEL, Ran, create, domid, file, path_text, run, shell, wait_for};

pub(crate) const TESTS: &[Test] = &[
    ("xl_verbs_on_an_hvm_guest", on_hvm),
    ("xl_saves_and_restores_a_guest_with_devices", saved_with_devices),
    ("xl_verbs_on_a_linux_guest", on_linux),
];

const BRIDGE: &str = "verbs0";

/// dombuild's guest and xl's.
const GUESTS: [&str; 2] = ["t", "x"];

/// Runs a verb on both guests, whose name stands for `{}`. It ends with this status on both.
fn both(status: i32, words: &str) -> [Ran; 2] {
    GUESTS.map(|name| {
        let words = words.replace("{}", name);
        let ran = run("xl", &words.split_whitespace().collect::<Vec<_>>());
        assert_eq!(ran.status, Some(status), "xl {words}: {ran:?}");
        ran
    })
}

/// What shows the effect of a verb is the same on both guests; returns it.
fn same<T: PartialEq + std::fmt::Debug>(what: &str, shown: impl Fn(&str) -> T) -> T {
    let [ours, xls] = GUESTS.map(shown);
    assert_eq!(ours, xls, "{what}: ours, xl's");
    ours
}

fn id(name: &str) -> DomId {
    DomId::new(shell(&format!("xl domid {name}")).trim().parse().expect("a domid")).expect("a domid")
}

fn info(name: &str) -> DomainInfo {
    Interface::open().expect("Xen").domain(id(name)).expect("asked").expect("it is there")
}

/// Some columns of the rows below the title of what xl prints.
fn columns(words: &str, name: &str, wanted: &[usize]) -> Vec<Vec<String>> {
    let text = shell(&format!("xl {}", words.replace("{}", name)));
    let row = |line: &str| {
        let words: Vec<_> = line.split_whitespace().collect();
        wanted.iter().map(|column| words.get(*column).copied().unwrap_or("none").to_owned()).collect()
    };
    text.lines().skip(1).map(row).collect()
}

/// Places and states of disks; numbers and states of cards.
fn devices(name: &str) -> Vec<Vec<String>> {
    [columns("block-list {}", name, &[0, 1, 3]), columns("network-list {}", name, &[0, 1, 4])].concat()
}

/// What the guest's directory says, a line each, without the guest's own number.
fn keys(directory: &str, name: &str) -> String {
    shell(&format!("xenstore-ls -f /local/domain/{0}/{directory} | sed s,/local/domain/{0}/,,", id(name)))
}

/// Waits until the guest has connected all of its devices.
fn wait_connected(count: usize) {
    wait_for("the guests connect their devices", 60, || {
        GUESTS.iter().all(|name| {
            let devices = devices(name);
            devices.len() == count && devices.iter().all(|device| device[2] == "4")
        })
    });
}

/// The twin guests of Linux, both with a disk and a card.
fn linux_pair(images: &Images) {
    let _second = SecondProcessor::wake();
    let cmdline = format!("{CMDLINE} {QUICK} guest.drivers guest.disk=xvda");
    let spec = |name: &str| format!("{},raw,xvda,w", images.image(name));
    let config = format!(
        "type=\"pvh\"\nname=\"x\"\nmemory=112\nkernel=\"{GUEST_KERNEL}\"\nramdisk=\"{GUEST_INITRD}\"\nextra=\"{cmdline}\"\n\
         tsc_mode=\"native\"\ndisk=[\"{}\"]\nvif=[\"bridge={BRIDGE}\"]\n",
        spec("x")
    );
    let config = file(config.as_bytes());
    expect_guest();
    let _ = fs::remove_file("/var/log/xen/console/guest-x.log");
    shell(&format!("xl create {}", path_text(&config)));
    let (disk, card) = (spec("t"), format!("bridge={BRIDGE}"));
    let flags = ["--kind", "pvh", "--memory", "112", "--model", "libxl", "--platform", "tsc_mode=2"];
    let files = ["--kernel", GUEST_KERNEL, "--ramdisk", GUEST_INITRD, "--cmdline", &cmdline];
    let built = create("t", &[&flags[..], &files, &["--disk", &disk, "--vif", &card]].concat());
    wait_until_ready(domid(&built));
    let log = || fs::read_to_string("/var/log/xen/console/guest-x.log").unwrap_or_default();
    wait_for("both guests have their disks", 120, || {
        kernel_crashed() || (said("wrote xvda").is_some() && log().contains("guest: wrote xvda"))
    });
    assert!(!kernel_crashed(), "{}", super::linux::CRASHED);
    wait_connected(2);
}

/// `xl console` shows what the guest prints when `xl sysrq` asks it to.
fn console_and_sysrq() {
    for name in GUESTS {
        let output = file(b"");
        let mut console = Command::new("xl")
            .args(["console", "-t", "pv", name])
            .stdin(Stdio::piped())
            .stdout(File::create(&output).expect("made"))
            .stderr(Stdio::null())
            .spawn()
            .expect("xl");
        let shown = || String::from_utf8_lossy(&fs::read(&output).expect("read")).into_owned();
        let mut asked = 0;
        wait_for("xl console shows the help of sysrq", 20, || {
            asked += 1;
            if asked % 10 == 1 {
                shell(&format!("xl sysrq {name} h"));
            }
            shown().contains("sysrq: HELP")
        });
        console.kill().expect("killed");
        console.wait().expect("ended");
    }
}

fn hotplug(images: &Images) {
    let before = loops().len();
    for (name, mac) in [("t", "00:16:3e:00:00:0a"), ("x", "00:16:3e:00:00:0b")] {
        let spec = format!("{},raw,xvdb,w", images.image(&format!("{name}-later")));
        run("xl", &["block-attach", name, &spec]).success();
        run("xl", &["network-attach", name, &format!("bridge={BRIDGE}"), &format!("mac={mac}")]).success();
    }
    wait_connected(4);
    same("block-attach, network-attach", devices);
    assert_eq!(loops().len(), before + 2);
    both(0, "block-detach {} xvdb");
    both(0, "network-detach {} 1");
    assert_eq!(same("block-detach, network-detach", devices).len(), 2);
    same("what detaching leaves in the guest's directory", |name| {
        let keys = keys("device", name);
        keys.lines().map(|line| line.split(" = ").next().unwrap_or_default().to_owned()).collect::<Vec<_>>()
    });
    assert_eq!(loops().len(), before);
}

fn on_linux() {
    let images = Images::new();
    let _bridge = Link::bridge(BRIDGE);
    linux_pair(&images);
    console_and_sysrq();
    hotplug(&images);

    for (words, title) in [("uptime {}", "Name"), ("vcpu-list {}", "Name"), ("list -v {}", "Name")] {
        assert!(both(0, words).iter().all(|ran| ran.stdout.starts_with(title)), "{words}");
    }
    both(0, "list -l {}");
    same("list -l", |name| {
        let config = listed(name);
        (
            config["disks"].as_array().map(Vec::len),
            config["nics"].as_array().map(Vec::len),
            config["c_info"]["type"].clone(),
        )
    });
    both(0, "vcpu-pin {} 0 0");
    assert_eq!(same("vcpu-pin", |name| columns("vcpu-list {}", name, &[2, 6])), [["0", "0"]]);
    both(0, "sched-credit2 -d {} -w 300");
    assert_eq!(same("sched-credit2", |name| columns("sched-credit2 -d {}", name, &[2, 3])), [["300", "0"]]);
    both(0, "rename {} {}-renamed");
    for name in GUESTS {
        let domid = id(&format!("{name}-renamed"));
        assert_eq!(shell(&format!("xl domname {domid}")).trim(), format!("{name}-renamed"));
        run("xl", &["rename", &format!("{name}-renamed"), name]).success();
    }
    both(0, "pause {}");
    assert!(same("pause", |name| info(name).paused));
    both(0, "unpause {}");
    assert!(!same("unpause", |name| info(name).paused));
    for trigger in ["power", "sleep", "s3resume"] {
        both(0, &format!("trigger {{}} {trigger}"));
    }
    both(0, "mem-max {} 144");
    same("mem-max", |name| (info(name).max_pages, keys("memory/static-max", name)));
    both(0, "mem-set {} 96");
    same("mem-set", |name| keys("memory/target", name));
    wait_for("both guests give memory back", 60, || GUESTS.iter().all(|name| info(name).owned_pages.0 < 100 * 256));

    // xl stays with a guest of its own, and starts it again. No program stays with dombuild's, which stops.
    let theirs = id("x");
    both(0, "reboot {}");
    let ours = id("t");
    wait_for("dombuild's guest stops", 120, || info("t").shutdown.is_some());
    assert_eq!(info("t").shutdown, Some(ShutdownReason::Reboot));
    // The last thing that xl does for a new guest is to unpause it.
    wait_for("xl starts its guest again", 180, || {
        let domains = Interface::open().expect("Xen").domains().expect("domains");
        domains.iter().any(|other| other.domid > ours && other.domid > theirs && !other.paused && !other.dying)
    });
    assert_eq!(id("t"), ours);
    both(0, "destroy {}");
    for name in GUESTS {
        assert_eq!(run("xl", &["domid", name]).status, Some(1));
    }
}

/// The file in the drive, as QEMU names it.
fn medium(name: &str) -> String {
    let answer = ask(u64::from(id(name).get()), &json!({ "execute": "query-block" })).expect("QEMU lives");
    let drives = answer["return"].as_array().expect("a list").clone();
    let drive = drives.iter().find(|drive| drive["qdev"] == "ide-5632" || drive["device"] == "ide-5632");
    let drive = drive.unwrap_or_else(|| panic!("no drive: {answer}"));
    drive["inserted"]["file"].as_str().unwrap_or("none").to_owned()
}

fn on_hvm() {
    let images = Images::new();
    let image = images.image("cd");
    let config = "type=\"hvm\"\nname=\"x\"\nmemory=64\nvcpus=2\nvga=\"stdvga\"\nvideoram=16\nvnc=0\nserial=\"pty\"\n\
                  disk=[\",hdc:cdrom,r\"]\n";
    let config = file(config.as_bytes());
    shell(&format!("xl create -p {}", path_text(&config)));
    create("t", &["--memory", "64", "--vcpus", "2", "--model", "libxl", "--paused", "--disk", ",hdc:cdrom,r"]);

    // The QEMU of Xen 4.17 ends when xl inserts a medium into an empty drive of xl's own guest.
    let guests = if env!("DOMBUILD_XEN_VERSION") == "4.17" { &GUESTS[..1] } else { &GUESTS };
    for name in guests {
        assert_eq!(medium(name), "none");
        let recorded = || listed(name)["disks"][0]["pdev_path"].as_str().unwrap_or_default().to_owned();
        run("xl", &["cd-insert", name, "hdc", &image]).success();
        assert!(medium(name) != "none" && recorded() == image, "{name}: {}, {}", medium(name), recorded());
        run("xl", &["cd-eject", name, "hdc"]).success();
        assert_eq!((medium(name).as_str(), recorded().as_str()), ("none", ""), "{name}");
    }

    both(0, "vcpu-set {} 1");
    same("vcpu-set", |name| keys("cpu", name));
    both(0, "vcpu-pin {} all 0");
    same("vcpu-pin", |name| columns("vcpu-list {}", name, &[2, 6]));
    for trigger in ["nmi 0", "power", "sleep"] {
        both(0, &format!("trigger {{}} {trigger}"));
    }
    both(0, "mem-max {} 80");
    same("mem-max", |name| (info(name).max_pages, keys("memory/static-max", name)));
    both(0, "destroy {}");
}

/// What xl restores has its disk and its card again.
fn saved_with_devices() {
    let images = Images::new();
    let _bridge = Link::bridge(BRIDGE);
    let disk = format!("{},raw,xvda,w", images.image("t"));
    let card = format!("bridge={BRIDGE},mac=00:16:3e:00:00:0a");
    let flags = ["--kind", "pvh", "--memory", "112", "--disk", &disk, "--vif", &card];
    start(&flags, "guest.drivers guest.disk=xvda");
    let connected = || {
        let devices = devices("t");
        devices.len() == 2 && devices.iter().all(|device| device[2] == "4")
    };
    wait_for("the guest has its devices", 60, || said("wrote xvda").is_some() && connected());
    // xl writes down that no disk has a copy on another host, which is the default.
    let shown = |part: &str| listed("t")[part].to_string().replace("\"colo_restore_enable\":\"False\",", "");
    let before = ["disks", "nics"].map(shown);
    let loops_before = loops().len();
    let saved = file(b"");
    run("xl", &["save", "t", path_text(&saved)]).success();
    assert_eq!(loops().len(), loops_before - 1, "the disk goes with the saved guest");
    run("xl", &["restore", path_text(&saved)]).success();
    wait_for("the restored guest connects its devices", 60, connected);
    assert_eq!(["disks", "nics"].map(shown), before);
    // It is xl's now: xl removes it when it stops.
    run("xl", &["shutdown", "-w", "t"]).success();
    wait_for("xl removes the guest", 120, || run("xl", &["domid", "t"]).status == Some(1));
    wait_for("the loop device goes", 10, || loops().len() == loops_before - 1);
}
