//! SIGKILL at any moment: `cleanup` finds what is left and removes it, and touches nothing else.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dombuild::memory::{Kind, Pages};
use dombuild::os::cgroup::Cgroup;
use dombuild::os::pidfd::ProcessId;
use dombuild::qemu::helpers::{LIMITS, cgroup_name};
use dombuild::xen::{DomId, DomainRef, Interface, Store};
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::close;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Test;
use super::faults::tiny_kernel;
use super::sample::{Random, count};
use super::support::{
    Host, RUNS, create, dombuild, empty_domain, figures, file, path_text, script, shell, start_silently, wait_for,
};

pub(crate) const TESTS: &[Test] = &[
    ("walk_kills_of_create", killed_creates),
    ("a_killed_foreground_run_takes_its_device_model_along", killed_foreground),
    ("a_killed_build_gives_its_claim_back", killed_build),
    ("walk_kills_of_destroy", killed_destroys),
    ("cleanup_touches_what_is_dead_alone", dead_alone),
    ("cleanup_goes_by_handles", by_handles),
];

/// What `cleanup` finds.
fn found() -> Vec<Value> {
    let found = dombuild(&["cleanup"]).success().json();
    found.as_array().expect("a list").clone()
}

/// Removes it, and checks that nothing is left after that.
pub(crate) fn clean() -> Vec<Value> {
    let found = found();
    let removed = dombuild(&["cleanup", "--apply"]).success().json();
    let removed = removed.as_array().expect("a list").clone();
    let kinds = |list: &[Value]| -> Vec<(Value, Value)> {
        list.iter().map(|left| (left["uuid"].clone(), left["what"].clone())).collect()
    };
    assert_eq!(kinds(&found), kinds(&removed), "a dry run tells what would be done");
    assert!(found.iter().all(|left| left["removed"] == false) && removed.iter().all(|left| left["removed"] == true));
    assert_eq!(self::found(), [Value::Null; 0], "after {removed:?}");
    removed
}

fn records() -> Vec<PathBuf> {
    let files = fs::read_dir(RUNS).into_iter().flatten().map(|entry| entry.expect("an entry").path());
    files.filter(|path| path.extension().is_some_and(|extension| extension == "json")).collect()
}

pub(crate) fn domain_named(name: &str) -> bool {
    shell("xl list").lines().any(|line| line.starts_with(&format!("{name} ")))
}

fn device_models() -> usize {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let lines = processes.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.filter(|line| line.windows(11).any(|word| word == b"-xen-domid\0")).count()
}

/// Other toolstacks' domains, which must survive all of it: one of xl's, and one without any keys.
fn bystanders(xen: &Interface) -> DomId {
    let config = file(b"type=\"hvm\"\nname=\"theirs\"\nmemory=64\nvga=\"none\"\n");
    shell(&format!("xl create -p {}", path_text(&config)));
    empty_domain(xen, Kind::Hvm, 1, false).expect("a domain")
}

fn assert_standing(xen: &Interface, empty: DomId) {
    assert!(domain_named("theirs"));
    assert!(xen.domain(empty).expect("asked").is_some());
}

fn remove(domid: DomId) {
    dombuild(&["destroy", "--force", &domid.to_string()]).success();
}

/// What a run came to that was killed after so long.
#[derive(Debug, PartialEq)]
pub(crate) enum Kill {
    /// It had ended by then.
    Late,
    /// It was killed, and the guest is whole and its user's.
    HandedOver,
    /// It was killed before that.
    Caught,
}

/// Starts a run, and kills it after so long.
pub(crate) fn kill_after(arguments: &[&str], delay: Duration) -> Kill {
    let mut child = start_silently(arguments);
    thread::sleep(delay);
    child.kill().expect("it is ours to kill");
    let ended = child.wait().expect("waited for");
    if ended.signal().is_none() {
        assert!(ended.success(), "{ended:?}");
        return Kill::Late;
    }
    if records().is_empty() && domain_named("t") { Kill::HandedOver } else { Kill::Caught }
}

fn killed_creates() {
    let xen = Interface::open().expect("Xen");
    let empty = bystanders(&xen);
    let standing = device_models();
    let before = Host::now();
    let mut random = Random::new("kills");
    let kernel = file(&tiny_kernel());
    let pvh = ["--kind", "pvh", "--kernel", path_text(&kernel), "--ramdisk", path_text(&kernel)];
    let kinds: [(&str, &[&str]); 3] =
        [("hvm", &[]), ("hvm without device model", &["--device-model", "none"]), ("pvh", &pvh)];
    // How long such a run takes.
    let lengths = kinds.map(|(_, arguments)| {
        let start = Instant::now();
        create("t", &[&["--memory", "64", "--paused"], arguments].concat());
        let length = start.elapsed();
        dombuild(&["destroy", "t"]).success();
        length
    });
    let runs = count(9, 210);
    let mut table = String::new();
    for (index, (name, arguments)) in kinds.iter().enumerate() {
        let (mut caught, mut left, mut handed_over) = (0, 0, 0);
        for _ in 0..runs / 3 {
            let delay = lengths[index] * random.permille() * 11 / 10_000;
            let words = [&["create", "--name", "t", "--memory", "64", "--paused"], *arguments].concat();
            match kill_after(&words, delay) {
                Kill::Caught => {
                    caught += 1;
                    // Without help from another process.
                    wait_for("QEMU dies with the run", 20, || device_models() <= standing);
                    left += u32::from(!clean().is_empty());
                    assert!(!domain_named("t"));
                }
                end => {
                    handed_over += u32::from(end == Kill::HandedOver);
                    assert!(domain_named("t") && found().is_empty(), "a guest that was handed over is nobody's rest");
                    if *name == "hvm" {
                        assert!(device_models() > standing, "its QEMU lives on");
                    }
                    dombuild(&["destroy", "t"]).success();
                }
            }
            assert_standing(&xen, empty);
            before.assert_back().unwrap_or_else(|error| panic!("{name}, killed after {delay:?}: {error}"));
        }
        table.push_str(&format!(
            "{name}: {} runs killed, {caught} before their end, {left} of them had left something; {handed_over} were killed \
             after the guest was handed over\n",
            runs / 3
        ));
    }
    figures("kills", &table);
    remove(empty);
    shell("xl destroy theirs");
}

/// Its QEMU dies with the run at any time, even if no process is left to end it.
fn killed_foreground() {
    let mut child = start_silently(&["create", "--name", "t", "--memory", "64", "--foreground"]);
    wait_for("the guest runs", 60, || {
        shell("xl list").lines().any(|line| line.starts_with("t ") && !line.contains("--p"))
    });
    assert_eq!(found(), [Value::Null; 0], "a living run's guest is not touched");
    dombuild(&["cleanup", "--apply"]).success();
    assert!(domain_named("t"));
    child.kill().expect("killed");
    child.wait().expect("waited for");
    wait_for("QEMU dies with the run", 20, || device_models() == 0);
    let removed = clean();
    assert_eq!((removed.len(), &removed[0]["what"], &removed[0]["verb"]), (1, &json!("domain"), &json!("create")));
    assert_eq!(removed[0]["pid"], child.id());
}

/// Starts a run, and kills it this long after the event that begins this step.
pub(crate) fn kill_in(step: &str, arguments: &[&str], delay: Duration) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let events = fcntl(&writer, FcntlArg::F_DUPFD(20)).expect("a descriptor that is handed on");
    let mut child = start_silently(&[&["--events-fd", &events.to_string()], arguments].concat());
    drop(writer);
    close(events).expect("closed");
    let began = |line: std::io::Result<String>| {
        let event: Value = serde_json::from_str(&line.expect("a line")).expect("an object");
        event["state"] == "started" && event["stage"] == step
    };
    assert!(BufReader::new(reader).lines().any(began), "{step} is one of its steps");
    thread::sleep(delay);
    child.kill().expect("killed");
    child.wait().expect("waited for");
}

/// A `build` is killed while memory is claimed for another toolstack's domain: the domain stays, and the claim goes.
fn killed_build() {
    let xen = Interface::open().expect("Xen");
    let mut random = Random::new("killed builds");
    let mut with_claim = 0;
    for _ in 0..count(4, 40) {
        let domid = empty_domain(&xen, Kind::Hvm, 1, false).expect("a domain");
        let words = ["build", "--domid", &domid.to_string(), "--memory", "2GiB"];
        kill_in("populate", &words, Duration::from_millis(random.below(60)));
        let claimed = xen.domain(domid).expect("asked").expect("there").outstanding_pages;
        let removed = clean();
        if claimed > Pages(0) {
            with_claim += 1;
            assert_eq!(
                (removed.len(), &removed[0]["what"], &removed[0]["verb"]),
                (1, &json!("claim"), &json!("build"))
            );
        }
        let left = xen.domain(domid).expect("asked").expect("it is its owner's");
        assert_eq!(left.outstanding_pages, Pages(0));
        remove(domid);
    }
    println!("{with_claim} builds were killed while they had a claim");
    assert!(with_claim > 0, "populating takes longer than that");
}

/// A `destroy` that was killed: the domain is there, and can be destroyed again; or it is gone, and the rest goes too.
fn killed_destroys() {
    let xen = Interface::open().expect("Xen");
    let empty = bystanders(&xen);
    let before = Host::now();
    let mut random = Random::new("killed destroys");
    let (mut unharmed, mut rest) = (0, 0);
    let runs = count(5, 60);
    for _ in 0..runs {
        create("t", &["--memory", "64", "--paused"]);
        kill_in("destroy", &["destroy", "t"], Duration::from_millis(random.below(120)));
        let removed = clean();
        let is = |what: &str| removed.iter().any(|left| left["what"] == what);
        rest += u32::from(is("domain") || is("keys") || is("files") || is("device-model"));
        if domain_named("t") {
            unharmed += 1;
            assert!(
                !is("domain") && device_models() == 2,
                "a guest that lives is not cleanup's to remove: {removed:?}"
            );
            dombuild(&["destroy", "t"]).success();
        }
        assert_standing(&xen, empty);
        before.assert_back().unwrap_or_else(|error| panic!("{removed:?}: {error}"));
    }
    println!("{runs} destroys killed: {unharmed} before the domain was, {rest} half way");
    assert!(rest > 0, "QEMU takes some time to end");
    remove(empty);
    shell("xl destroy theirs");
}

/// A record as a run of this process's number would have written it.
fn record(uuid: Uuid, pid: u32, domid: Option<DomId>, change: &dyn Fn(&mut Value)) -> PathBuf {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let start = stat.rsplit_once(") ").expect("a name").1.split_whitespace().nth(19).expect("a start").to_owned();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").expect("Linux has it");
    let mut run = json!({
        "uuid": uuid, "verb": "create", "pid": pid, "start": start.parse::<u64>().expect("ticks"), "boot": boot.trim(),
        "domid": domid, "promised": 0,
    });
    change(&mut run);
    let path = PathBuf::from(RUNS).join(format!("{uuid}.{pid}.json"));
    fs::write(&path, run.to_string()).expect("written");
    path
}

/// A process is known by its number and by when it began, and what it was doing by the handle of the domain.
fn dead_alone() {
    let xen = Interface::open().expect("Xen");
    // A run, so that there is the directory.
    dombuild(&["create", "--name", "t", "--memory", "64", "--cpupool", "77"]);
    let domid = empty_domain(&xen, Kind::Hvm, 1, false).expect("a domain");
    let uuid = xen.domain(domid).expect("asked").expect("there").uuid;
    let own = std::process::id();
    record(uuid, own, Some(domid), &|_| {});
    assert_eq!(found(), [Value::Null; 0], "this process lives");
    dombuild(&["cleanup", "--apply"]).success();
    assert!(xen.domain(domid).expect("asked").is_some());
    // The number is the same, the process is another.
    record(uuid, own, Some(domid), &|run| run["start"] = json!(run["start"].as_u64().expect("ticks") - 1));
    let removed = clean();
    assert_eq!(removed.len(), 1, "{removed:?}");
    assert_eq!((&removed[0]["what"], &removed[0]["domid"]), (&json!("domain"), &json!(domid)));
    assert!(xen.domain(domid).expect("asked").is_none());

    // A dead run, and a living one on the same handle.
    let domid = empty_domain(&xen, Kind::Hvm, 1, false).expect("a domain");
    let uuid = xen.domain(domid).expect("asked").expect("there").uuid;
    let living = record(uuid, own, Some(domid), &|_| {});
    let parent = std::os::unix::process::parent_id();
    record(uuid, parent, Some(domid), &|run| run["boot"] = json!(Uuid::nil()));
    let removed = clean();
    assert_eq!((removed.len(), &removed[0]["what"]), (1, &json!("record")), "{removed:?}");
    assert!(xen.domain(domid).expect("asked").is_some() && living.exists());
    fs::remove_file(living).expect("removed");
    remove(domid);
}

/// The same number or the same handle alone does not make a domain a dead run's.
fn by_handles() {
    let xen = Interface::open().expect("Xen");
    let dead = |run: &mut Value| run["start"] = json!(1);
    let own = std::process::id();
    // The number is another domain's by now.
    let built = create("t", &["--memory", "64", "--device-model", "none", "--paused"]);
    let domid = super::support::domid(&built);
    record(Uuid::new_v4(), own, Some(domid), &dead);
    let removed = clean();
    assert_eq!((removed.len(), &removed[0]["what"]), (1, &json!("record")), "{removed:?}");
    // The handle is, and the run had not come to a domain of its own: there is something in this one.
    let uuid: Uuid = built["uuid"].as_str().expect("a UUID").parse().expect("a UUID");
    record(uuid, own, None, &dead);
    assert_eq!(clean()[0]["what"], "record");
    // It had another number.
    record(uuid, own, DomId::new(domid.get() - 1), &dead);
    assert_eq!(clean()[0]["what"], "record");
    assert_eq!(dombuild(&["inspect", "t"]).success().json()["differences"], json!([]));
    // The run was killed right after its domain was created: nothing is in there.
    let empty = empty_domain(&xen, Kind::Pvh, 1, false).expect("a domain");
    record(xen.domain(empty).expect("asked").expect("there").uuid, own, None, &dead);
    assert_eq!(clean()[0]["domid"], json!(empty));
    assert!(xen.domain(empty).expect("asked").is_none());
    dombuild(&["destroy", "t"]).success();

    // dombuild's keys and files whose domain no longer exists, with a record and without; and a QEMU, identified by its
    // number.
    for recorded in [true, false] {
        let (uuid, number) = (Uuid::new_v4(), DomId::new(32_000).expect("a domid"));
        let mark = format!("/libxl/{number}/dombuild");
        for (key, value) in [
            (mark.clone(), uuid.to_string()),
            (format!("/local/domain/{number}/name"), "gone".to_owned()),
            (format!("/vm/{uuid}/uuid"), uuid.to_string()),
            (format!("/local/domain/0/backend/console/{number}/0/state"), "1".to_owned()),
        ] {
            shell(&format!("xenstore-write {key} {value}"));
        }
        fs::write(format!("/run/xen/qmp-libxl-{number}"), "").expect("written");
        if recorded {
            record(uuid, own, Some(number), &dead);
        }
        let (qemu, decoy) = (script("#!/bin/sh\nsleep 1000\n"), script("#!/bin/sh\nwhile :; do sleep 1; done\n"));
        let mut qemu = start_as_qemu(path_text(&qemu), number);
        let mut decoy = start_as_qemu(path_text(&decoy), number);
        let pid = i32::try_from(qemu.id()).expect("a pid");
        if recorded {
            let id = ProcessId::of(pid).expect("asked").expect("it runs");
            let text = serde_json::to_string(&id).expect("JSON");
            Store::open().expect("xenstored").plain().write(&format!("{mark}/device-model"), &text).expect("written");
        } else {
            let name = cgroup_name(DomainRef { domid: number, uuid });
            Cgroup::make(&name, LIMITS).expect("a cgroup");
            fs::write(format!("/sys/fs/cgroup/dombuild/{name}/cgroup.procs"), pid.to_string()).expect("put into it");
        }
        let mut whats: Vec<String> =
            clean().iter().map(|left| left["what"].as_str().expect("a word").to_owned()).collect();
        whats.sort();
        assert_eq!(whats, ["device-model", "files", "keys"]);
        // The shell's status may also report that its child was killed.
        assert!(!qemu.wait().expect("waited for").success());
        assert!(decoy.try_wait().expect("asked").is_none(), "its command line alone makes it nobody's device model");
        decoy.kill().expect("killed");
        decoy.wait().expect("waited for");
    }
    // What cannot be removed is reported, and the next cleanup tries again.
    let (uuid, number) = (Uuid::new_v4(), DomId::new(32_000).expect("a domid"));
    let socket = format!("/run/xen/qmp-libxl-{number}");
    fs::create_dir(&socket).expect("made");
    record(uuid, own, Some(number), &dead);
    let error = dombuild(&["cleanup", "--apply"]).failed_with(7, "left-behind");
    assert!(error["message"].as_str().expect("text").contains(&socket), "{error}");
    assert_eq!((&error["found"][0]["what"], &error["found"][0]["removed"]), (&json!("files"), &json!(false)));
    fs::remove_dir(&socket).expect("removed");
    assert_eq!(clean()[0]["what"], "record");
    // Another toolstack's rest is its own.
    shell("xenstore-write /libxl/32000/type hvm");
    assert_eq!(found(), [Value::Null; 0]);
    shell("xenstore-rm /libxl/32000");
}

fn start_as_qemu(program: &str, domid: DomId) -> Child {
    use std::os::unix::process::CommandExt;
    Command::new("sh")
        .args([program, "-xen-domid", &domid.to_string()])
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts")
}
