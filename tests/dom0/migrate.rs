//! Guests migrate within this host, between dombuild and xl in turn.

use std::fs;
use std::thread;
use std::time::Duration;

use dombuild::xen::{Interface, ShutdownReason};
use serde_json::{Value, json};

use super::Test;
use super::devices::{Images, Link, loops, message};
use super::linux::{CRASHED, kernel_crashed, said, start};
use super::sample::{Random, count, full};
use super::save_restore::{By, assert_hvm_lives, assert_runs, info, small_hvm, start_hvm_linux};
use super::support::{create, dombuild, path_text, run, shell, wait_for};

pub(crate) const TESTS: &[Test] = &[
    ("migrate_linux_between_xl_and_dombuild", linux_moves),
    ("migrate_limits_of_a_busy_guest", busy),
    ("migrate_pv_without_live", pv_moves),
    ("migrate_hvm_between_xl_and_dombuild", hvm_moves),
    ("migrate_hvm_with_drivers_between_xl_and_dombuild", hvm_with_drivers),
    ("migrate_devices_go_along", devices_go_along),
    ("migrate_refuses_before_memory_is_sent", refused),
    ("walk_round_trips_without_drift", round_trips),
];

const BRIDGE: &str = "moved0";

/// The logs of a guest that has arrived: xenconsoled takes the name that the guest has when it finds it, while it arrives or later.
const LOGS: [&str; 2] = ["/var/log/xen/console/guest-t--incoming.log", "/var/log/xen/console/guest-t.log"];

pub(crate) fn receiver(to: By) -> &'static str {
    match to {
        By::Dombuild => "dombuild migrate-receive",
        By::Xl => "xl migrate-receive",
    }
}

/// Migrates a guest, which has another domid then and the same name.
fn migrate(from: By, to: By, name: &str, flags: &[&str]) -> Value {
    let before = info(name);
    assert_ne!(before.shutdown, Some(ShutdownReason::Crash), "{CRASHED}");
    for log in LOGS {
        // xenconsoled appends to what it has open.
        fs::write(log, "").expect("emptied");
    }
    let told = match from {
        By::Dombuild => dombuild(&[&["migrate", name, receiver(to), "--ssh", ""], flags].concat()).success().json(),
        By::Xl => {
            run("xl", &["migrate", "-s", "", name, receiver(to)]).success();
            Value::Null
        }
    };
    let after = info(name);
    assert!(after.domid != before.domid && after.uuid == before.uuid, "{before:?} {after:?}");
    for gone in ["--incoming", "--migratedaway"] {
        assert_eq!(run("xl", &["domid", &format!("{name}{gone}")]).status, Some(1), "{gone}");
    }
    assert_eq!(dombuild(&["cleanup"]).success().json(), json!([]));
    told
}

/// The last words of this kind of a guest that has arrived.
fn said_there(word: &str) -> Option<String> {
    let text: String =
        LOGS.iter().map(|log| String::from_utf8_lossy(&fs::read(log).expect("a log")).into_owned()).collect();
    let prefix = format!("guest: {word}");
    text.lines().rev().find_map(|line| Some(line.split_once(&prefix)?.1.trim().to_owned()))
}

/// The guest's first process goes on, its balloon follows, and its memory has the sum that it had.
fn assert_same(sum: &str, target_mib: u64) {
    run("xl", &["mem-set", "t", &format!("{target_mib}m")]).success();
    let arrived = || {
        let current = said_there("current_kb").and_then(|text| text.parse::<u64>().ok());
        current.is_some_and(|kib| kib.abs_diff(target_mib << 10) < 4096)
    };
    // Its kernel crashes at times under double emulation, behind a migration of xl's as well.
    let is_there = || run("xl", &["domid", "t"]).status == Some(0);
    let crashed = || !is_there() || info("t").shutdown.is_some() || kernel_crashed();
    wait_for("the first process goes on", 120, || arrived() || crashed());
    assert!(arrived(), "{CRASHED}");
    assert_eq!(said_there("sum").as_deref(), Some(sum));
}

fn linux_moves() {
    use By::{Dombuild, Xl};
    start(&["--kind", "pvh", "--memory", "112"], "guest.touch=16 guest.sum");
    wait_for("its memory is full", 120, || said("sum").is_some());
    let sum = said("sum").expect("it is there");
    for ((from, to), target) in [(Dombuild, Dombuild), (Dombuild, Xl), (Xl, Dombuild)].into_iter().zip([108, 104, 100])
    {
        let told = migrate(from, to, "t", &[]);
        println!("{from:?} to {to:?}: {told}");
        assert_same(&sum, target);
    }
    // It is dombuild's, with its plan.
    let shown = dombuild(&["inspect", "t"]).success().json();
    assert_eq!((&shown["recorded"], &shown["model"]), (&json!(true), &json!("xenops")), "{shown}");

    dombuild(&["destroy", "t"]).success();
}

/// What must not drift: owned pages, the limit, the paging pool, and the keys of memory.
fn measures() -> (u64, u64, u64, String) {
    let guest = info("t");
    let pool = Interface::open().expect("Xen").paging_pool(guest.domid).expect("asked");
    let keys = shell(&format!("xenstore-ls -f /local/domain/{}/memory | sed 's,^[^=]*/,,' | sort", guest.domid));
    (guest.owned_pages.0, guest.max_pages.0, pool.0, keys)
}

/// One guest, saved and restored, and migrated, again and again.
fn round_trips() {
    start(&["--kind", "pvh", "--memory", "112"], "guest.touch=16 guest.sum");
    wait_for("its memory is full", 120, || said("sum").is_some());
    // xl's mem-set would lower the limit as well, which a restore sets by the plan.
    dombuild(&["balloon", "t", "104"]).success();
    wait_for("its balloon follows", 60, || info("t").owned_pages.0 <= (104 + 1) << 8);
    thread::sleep(Duration::from_secs(2));
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("t.saved");
    let before = measures();
    let trips = count(3, 100);
    for trip in 0..trips {
        if trip % 2 == 0 {
            migrate(By::Dombuild, By::Dombuild, "t", &[]);
        } else {
            dombuild(&["save", "t", path_text(&file)]).success();
            dombuild(&["restore", path_text(&file)]).success();
            fs::remove_file(&file).expect("it is there");
        }
        assert_runs("t");
        // The balloon driver looks at its target when it goes on.
        let (mut last, mut same) = (measures(), false);
        for _ in 0..100 {
            same = last == before;
            if same {
                break;
            }
            thread::sleep(Duration::from_millis(200));
            last = measures();
        }
        assert!(same, "trip {trip}: {before:?} became {last:?}");
    }
    println!("{trips} trips, {} pages, limit {}", before.0, before.1);
    dombuild(&["destroy", "t"]).success();
}

/// It changes 4 MiB without a pause: that is never sent within a millisecond.
fn busy() {
    start(&["--kind", "pvh", "--memory", "112"], "guest.touch=16 guest.sum guest.dirty=4");
    wait_for("its memory is full", 120, || said("sum").is_some());
    let before = info("t").domid;
    let strict = ["--ssh", "", "--max-rounds", "2", "--max-downtime", "1", "--at-limit", "give-up"];
    let failed = dombuild(&[&["migrate", "t", receiver(By::Dombuild)], &strict[..]].concat());
    let error = failed.failed_with(1, "not-migrated");
    assert!(message(&error).contains("after 2 rounds") && message(&error).contains("goes on here"), "{error}");
    assert_eq!(info("t").domid, before);
    assert_runs("t");
    let told = migrate(By::Dombuild, By::Dombuild, "t", &["--max-rounds", "2"]);
    assert_eq!(told["rounds"], 3, "two while it runs, and the last: {told}");
    assert_runs("t");
    dombuild(&["destroy", "t"]).success();
}

/// Debian's Xen has no shadow paging, and a PV guest is not migrated live without it.
fn pv_moves() {
    start(&["--kind", "pv", "--memory", "112"], "guest.touch=16 guest.sum");
    wait_for("its memory is full", 120, || said("sum").is_some());
    let sum = said("sum").expect("it is there");
    let error = dombuild(&["migrate", "t", "false", "--ssh", ""]).failed_with(3, "bad-config");
    assert!(message(&error).contains("no shadow paging") && message(&error).contains("--no-live"), "{error}");
    let told = migrate(By::Dombuild, By::Dombuild, "t", &["--no-live"]);
    assert!(told["downtime_ms"].as_u64().is_some_and(|time| time > 0), "{told}");
    assert_same(&sum, 108);
    dombuild(&["destroy", "t"]).success();
}

fn hvm_moves() {
    use By::{Dombuild, Xl};
    let all = [(Dombuild, Dombuild), (Dombuild, Xl), (Xl, Dombuild)];
    // Each takes about 20 seconds here.
    let chosen = Random::new("hvm migrations").sample(3, 2);
    for index in chosen {
        let (from, to) = all[usize::try_from(index).expect("small")];
        // SeaBIOS starts again after a minute, because it finds nothing to boot.
        create("t", &["--memory", "96", "--vcpus", "2"]);
        thread::sleep(Duration::from_secs(5));
        println!("{from:?} to {to:?}: {}", migrate(from, to, "t", &[]));
        assert_hvm_lives("t");
        dombuild(&["destroy", "--force", "t"]).success();
    }
}

/// Its kernel is asked to suspend itself, and connects its disk and its card again.
fn hvm_with_drivers() {
    use By::{Dombuild, Xl};
    if !full() {
        println!("only with --full: the guest's kernel takes many minutes to unpack itself and to start");
        return;
    }
    let images = Images::new();
    let _bridge = Link::bridge(BRIDGE).address("10.9.0.1");
    let words = "guest.touch=16 guest.sum guest.drivers guest.net=0,10.9.0.2,10.9.0.1 guest.disk=xvda";
    start_hvm_linux(&images, BRIDGE, words);
    let sum = said("sum").expect("it is there");
    let answers = || run("busybox", &["ping", "-c", "1", "-W", "1", "10.9.0.2"]).status == Some(0);
    wait_for("the guest answers to ping", 120, answers);
    let all = [(Dombuild, Dombuild), (Dombuild, Xl), (Xl, Dombuild)];
    for ((from, to), target) in all.into_iter().zip([180, 176, 172]) {
        println!("{from:?} to {to:?}: {}", migrate(from, to, "t", &[]));
        assert_same(&sum, target);
        assert_hvm_lives("t");
        wait_for("the guest connects its disk and its card again", 60, devices_are_connected);
        wait_for("the guest answers to ping", 60, answers);
    }
    dombuild(&["destroy", "t"]).success();
}

/// Whether the guest has its disk and its card.
fn devices_are_connected() -> bool {
    let all = dombuild(&["list", "--devices", "t"]).success().json();
    let all = all.as_array().cloned().unwrap_or_default();
    all.len() == 2 && all.iter().all(|device| device["frontend_state"] == "connected")
}

fn devices_go_along() {
    let _bridge = Link::bridge(BRIDGE);
    let images = Images::new();
    let disk = format!("{},raw,xvda,w", images.image("t"));
    let card = format!("bridge={BRIDGE},mac=00:16:3e:00:00:0a");
    start(&["--kind", "pvh", "--memory", "112", "--disk", &disk, "--vif", &card], "guest.drivers guest.disk=xvda");
    wait_for("the guest has its devices", 60, || said("wrote xvda").is_some() && devices_are_connected());
    let loops_before = loops().len();
    for (from, to) in [(By::Dombuild, By::Dombuild), (By::Xl, By::Dombuild)] {
        migrate(from, to, "t", &[]);
        wait_for("the guest connects its devices again", 60, devices_are_connected);
        assert_eq!(loops().len(), loops_before, "the disk of the source is gone");
    }
    // Another guest has no right to the image while this one has it.
    let other = dombuild(&["create", "--name", "u", "--memory", "64", "--device-model", "none", "--disk", &disk]);
    other.failed_with(3, "bad-config");
    dombuild(&["destroy", "t"]).success();
}

fn refused() {
    let free = || dombuild(&["features"]).success().json()["xen"]["free_kib"].as_u64().expect("a number") / 1024;
    // Two such guests do not fit.
    let size = (free() * 6 / 10).to_string();
    create("t", &["--memory", &size, "--device-model", "none"]);
    thread::sleep(Duration::from_secs(3));
    let migrate = |words: &[&str]| dombuild(&[&["migrate", "t"], words].concat());
    let goes_on = |error: &Value| {
        assert!(message(error).contains("goes on here as before"), "{error}");
        assert_runs("t");
        assert_eq!(shell("xl list | tail -n +3 | awk '{ print $1 }'"), "t\n");
        assert_eq!(dombuild(&["cleanup"]).success().json(), json!([]));
    };
    let here = ["dombuild migrate-receive", "--ssh", ""];
    let ran = migrate(&here);
    goes_on(&ran.failed_with(1, "not-migrated"));
    assert!(ran.stderr.contains("KiB are free"), "{ran:?}");
    for (command, words) in [("true", "the connection to the other side is lost"), ("echo hello", "hello")] {
        let error = migrate(&[command, "--ssh", ""]).failed_with(1, "not-migrated");
        assert!(message(&error).contains(words), "{error}");
        goes_on(&error);
    }
    dombuild(&["destroy", "t"]).success();
    small_hvm();
    create("t--incoming", &["--memory", "64", "--device-model", "none", "--paused"]);
    let ran = migrate(&here);
    ran.failed_with(1, "not-migrated");
    assert!(ran.stderr.contains("t--incoming"), "{ran:?}");
    assert_runs("t");
    let error = migrate(&["somewhere", "--ssh", "false", "--suspend-timeout", "1"]).failed_with(1, "not-migrated");
    assert!(message(&error).contains("the connection to the other side is lost"), "{error}");
    dombuild(&["resume", "t"]).failed_with(3, "bad-config");
    for name in ["t", "t--incoming"] {
        dombuild(&["destroy", name]).success();
    }
}
