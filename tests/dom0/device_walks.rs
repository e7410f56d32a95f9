//! Long walks with disks and network cards: each call of a `create` with devices fails once, SIGKILL ends `create`, `attach`
//! and `detach` at any moment, and a QEMU that serves a disk stops. Each time, the host is as before in the end.

use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::Test;
use super::devices::{Images, Link, create_with, message};
use super::faults::{Guest, Walk, split_by, traced, walk_of_create};
use super::kills::{Kill, clean, domain_named, kill_after, kill_in};
use super::linux::{said, start};
use super::sample::{Random, count};
use super::support::{Host, dombuild, number, shell, wait_for};

pub(crate) const TESTS: &[Test] = &[
    ("walk_devices_faults_in_create", faults_in_create),
    ("walk_devices_kills_of_create", kills_of_create),
    ("walk_devices_kills_of_attach", kills_of_attach),
    ("walk_devices_kills_of_detach", kills_of_detach),
    ("a_qemu_that_stops_with_its_disk", stopped_qemu),
];

const BRIDGE: &str = "walk0";

/// Images and a bridge; they go with the value.
struct Site {
    images: Images,
    _bridge: Link,
}

impl Site {
    fn new() -> Self {
        Self { images: Images::new(), _bridge: Link::bridge(BRIDGE) }
    }

    /// The flags of four devices: two disks of files, one of them read-only, and two cards, one with a name.
    fn devices(&self) -> Vec<String> {
        let (first, second) = (self.images.image("a"), self.images.image("b"));
        let flags = [
            ["--disk".to_owned(), format!("{first},raw,xvda,w")],
            ["--disk".to_owned(), format!("{second},raw,xvdb,r")],
            ["--vif".to_owned(), format!("bridge={BRIDGE}")],
            ["--vif".to_owned(), format!("bridge={BRIDGE},vifname=walk-second")],
        ];
        flags.concat()
    }
}

/// The calls that a `create` without devices does not have, and in a full run all others as well.
fn faults_in_create() {
    let site = Site::new();
    let guest = Guest::new("pvh");
    let host = Host::now();
    let devices = site.devices();
    let arguments = [guest.create(), devices.iter().map(String::as_str).collect()].concat();
    let [without, whole] = [guest.create(), arguments.clone()].map(|arguments| {
        let run = traced(&arguments, &[]);
        assert_eq!(run.ran.status, Some(0), "{:?}", run.ran);
        dombuild(&["destroy", "t"]).success();
        run.calls
    });
    host.assert_back().expect("nothing is left");
    let (of_devices, others) = split_by(&whole, &without);
    for request in ["LOOP_CONFIGURE", "LOOP_GET_STATUS64", "SIOCBRADDIF", "SIOCSIFNAME", "xs_watch"] {
        assert!(of_devices.iter().any(|index| whole[*index].inner == request), "{request} is not among the calls");
    }
    println!("create with devices: {} calls, {} of them for the devices", whole.len(), of_devices.len());
    let among = if super::sample::full() { [of_devices, others].concat() } else { of_devices };
    walk_of_create(Walk::new("create pvh with devices", host, among.len()), &arguments, &whole, &among, 6);
}

/// How long a run of dombuild takes that must succeed.
fn length_of(arguments: &[&str]) -> Duration {
    let start = Instant::now();
    dombuild(arguments).success();
    start.elapsed()
}

fn kills_of_create() {
    let site = Site::new();
    let guest = Guest::new("pvh");
    let devices = site.devices();
    let words = [guest.create(), devices.iter().map(String::as_str).collect()].concat();
    let length = length_of(&words);
    dombuild(&["destroy", "t"]).success();
    let before = Host::now();
    let mut random = Random::new("kills of create with devices");
    let (mut with_devices, mut with_loops, mut complete) = (0, 0, 0);
    let runs = count(4, 200);
    for run in 0..runs {
        // At any moment, or after the start of the step that attaches.
        let delay = length * random.permille() * 11 / 10_000;
        if run % 4 == 0 {
            kill_after(&words, delay);
        } else {
            kill_in("devices", &words, delay * 2 / 3);
        }
        with_devices += u32::from(shell("xenstore-ls /local/domain/0/backend/vbd 2>&1 || true").contains("xvda"));
        with_loops += u32::from(shell("losetup -a").contains(&site.images.path("a")));
        clean();
        // The run may have ended before that, or have left its guest to the user.
        if domain_named("t") {
            complete += 1;
            dombuild(&["destroy", "t"]).success();
        }
        before.assert_back().unwrap_or_else(|left| panic!("run {run}, killed after {delay:?}: {left}"));
    }
    println!(
        "create with devices: {runs} runs were killed, {with_devices} with nodes of devices, {with_loops} with a loop \
         device; {complete} guests were complete"
    );
    assert!(with_devices > 0, "the step takes longer than that");
}

/// What `list --devices t` shows.
fn devices() -> Vec<Value> {
    dombuild(&["list", "--devices", "t"]).success().json().as_array().expect("a list").clone()
}

/// A paused guest, and the host with it.
fn paused_guest() -> Host {
    create_with("t", &[]).success();
    Host::now()
}

/// A disk and a card, by turns: the words that attach it, and its name for `detach`.
fn device(site: &Site, run: u32) -> (Vec<String>, [&'static str; 2]) {
    let (class, spec, name) = match run % 2 {
        0 => ("disk", format!("{},raw,xvdb,w", site.images.image("a")), "xvdb"),
        _ => ("vif", format!("bridge={BRIDGE},vifname=walk-card"), "0"),
    };
    (["attach", class, "t", &spec, "--no-wait"].map(str::to_owned).to_vec(), [class, name])
}

fn words(owned: &[String]) -> Vec<&str> {
    owned.iter().map(String::as_str).collect()
}

fn kills_of_attach() {
    let site = Site::new();
    let before = paused_guest();
    let mut random = Random::new("kills of attach");
    let (mut removed, mut complete) = (0, 0);
    let runs = count(2, 60);
    for run in 0..runs {
        let (attach, [class, name]) = device(&site, run);
        let detach = ["detach", class, "t", name, "--force"];
        let length = length_of(&words(&attach));
        dombuild(&detach).success();
        let delay = length * random.permille() * 11 / 10_000;
        let ended = kill_after(&words(&attach), delay) == Kill::Late;
        removed += u32::from(clean().iter().any(|left| left["what"] == "device"));
        // What cleanup leaves there is complete.
        let left = devices();
        assert!(!ended || left.len() == 1, "{left:?}");
        if let [device] = &left[..] {
            complete += 1;
            assert_eq!(device["backend_state"], "init-wait", "{device}");
            dombuild(&detach).success();
        }
        assert_eq!(devices(), [Value::Null; 0]);
        before.assert_back().unwrap_or_else(|left| panic!("attach {class}, killed after {delay:?}: {left}"));
    }
    println!("attach: {runs} runs were killed, {removed} of them with a device; {complete} devices were complete");
    dombuild(&["destroy", "t"]).success();
}

/// A `detach` that was killed can be repeated, or the device is gone.
fn kills_of_detach() {
    let site = Site::new();
    let before = paused_guest();
    let mut random = Random::new("kills of detach");
    let (mut repeated, mut gone) = (0, 0);
    let runs = count(2, 60);
    for run in 0..runs {
        let (attach, [class, name]) = device(&site, run);
        let detach = ["detach", class, "t", name, "--force"];
        dombuild(&words(&attach)).success();
        let length = length_of(&detach);
        dombuild(&words(&attach)).success();
        let delay = length * random.permille() * 11 / 10_000;
        kill_after(&detach, delay);
        clean();
        if devices().is_empty() {
            gone += 1;
        } else {
            repeated += 1;
            dombuild(&detach).success();
        }
        let configuration = shell("xl list -l t");
        assert!(!configuration.contains("xvdb") && !configuration.contains(BRIDGE), "{configuration}");
        before.assert_back().unwrap_or_else(|left| panic!("detach {class}, killed after {delay:?}: {left}"));
    }
    println!("detach: {runs} runs were killed, {repeated} of them had to be repeated; {gone} devices were gone");
    dombuild(&["destroy", "t"]).success();
}

/// A QEMU that does nothing any more, as one that waits for a dead server does: nothing waits for it without end.
fn stopped_qemu() {
    let images = Images::new();
    let image = images.path("c.qcow2");
    shell(&format!("qemu-img convert -f raw -O qcow2 {} {image}", images.image("c")));
    let before = Host::now();
    let disk = format!("{image},qcow2,xvda,w");
    let built = start(&["--kind", "pvh", "--memory", "128", "--disk", &disk], "guest.drivers guest.disk=xvda");
    wait_for("the guest writes", 60, || said("wrote xvda").is_some());
    let qemu = Pid::from_raw(i32::try_from(number(&built, "device_model_pid")).expect("a pid"));
    kill(qemu, Signal::SIGSTOP).expect("stopped");

    let begin = Instant::now();
    let error = dombuild(&["detach", "disk", "t", "xvda", "--timeout", "2"]).failed_with(8, "timed-out");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    for words in ["although the guest has released it", "within 2 seconds", "served by a QEMU", "--force"] {
        assert!(message(&error).contains(words), "{words}: {error}");
    }
    let begin = Instant::now();
    let error = dombuild(&["detach", "disk", "t", "xvda", "--force"]);
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert_eq!(error.status, Some(0), "{error:?}");
    assert_eq!(devices(), [Value::Null; 0]);

    // A guest that waits for its disk is destroyed all the same, and so is its QEMU.
    thread::sleep(Duration::from_millis(500));
    let begin = Instant::now();
    dombuild(&["destroy", "t"]).success();
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
    assert!(kill(qemu, None).is_err(), "the QEMU is gone");
    before.assert_back().unwrap_or_else(|left| panic!("{left}"));

    // The same without `detach`.
    let built = create_with("t", &["--disk", &disk]).success().json();
    let qemu = Pid::from_raw(i32::try_from(number(&built, "device_model_pid")).expect("a pid"));
    kill(qemu, Signal::SIGSTOP).expect("stopped");
    dombuild(&["destroy", "t"]).success();
    before.assert_back().unwrap_or_else(|left| panic!("{left}"));
}
