//! What a run reports to a wrapper: events on a descriptor, and syslog.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::thread;

use serde_json::Value;

use super::Test;
use super::support::{create, dombuild, number, run, shell};

pub(crate) const TESTS: &[Test] = &[
    ("events_tell_every_step_of_a_build", every_step),
    ("events_of_a_large_guest_tell_that_qemu_starts_late", large_guest),
    ("events_of_a_failure_end_with_the_error", failure),
    ("events_count_while_memory_is_waited_for", waiting),
    ("events_of_a_guest_that_moves", moving),
    ("syslog_receives_the_end_of_a_run", syslog),
];

/// The steps of `create` for an HVM guest, in the order of docs/interface.md, until the device model is waited for.
const BUILD: &str = "check-input connect create-domain xenstore wait-free-memory max-vcpus platform-params scheduling \
                     set-max-memory paging-pool claim-memory event-channels parse-image start-device-model populate memory-map load-image boot-image grant-table hvm-info \
                     hvm-params cpuid-policy check-paging-pool xenstore introduce";

/// Runs dombuild with `--json` and a pipe for its events; exit status, result and events.
fn told(arguments: &[&str]) -> (Option<i32>, Value, Vec<Value>) {
    let script = r#"dombuild --json --events-fd 9 "$@" 9>&1 >/tmp/result 2>/dev/null"#;
    let ran = run("sh", &[&["-c", script, "sh"], arguments].concat());
    let result = fs::read_to_string("/tmp/result").expect("made by the shell");
    fs::remove_file("/tmp/result").expect("removed");
    let events: Vec<Value> = ran
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    assert_eq!((&events[0]["event"], &events[0]["schema"]), (&"start".into(), &1.into()), "{events:?}");
    (ran.status, serde_json::from_str(&result).expect("the object"), events)
}

/// The steps with how each ended. Each has a start, and its end is the next event of a step.
fn steps(events: &[Value]) -> Vec<(&str, &str)> {
    let word = |event: &'_ Value, field: &str| event[field].as_str().expect("a word").to_owned();
    let of_steps: Vec<&Value> = events.iter().filter(|event| event["event"] == "stage").collect();
    of_steps
        .chunks(2)
        .map(|pair| {
            assert_eq!(pair.len(), 2, "a step without an end: {pair:?}");
            assert_eq!(word(pair[0], "state"), "started", "{pair:?}");
            assert_eq!(pair[0]["stage"], pair[1]["stage"], "{pair:?}");
            assert!(pair[1]["seconds"].as_f64().is_some_and(|seconds| seconds >= 0.0), "{pair:?}");
            (pair[1]["stage"].as_str().expect("a word"), pair[1]["state"].as_str().expect("a word"))
        })
        .collect()
}

fn done(names: &str) -> Vec<(&str, &str)> {
    names.split_whitespace().map(|name| (name, "done")).collect()
}

fn every_step() {
    let (status, result, events) = told(&["create", "--name", "t", "--memory", "128", "--paused"]);
    assert_eq!(status, Some(0), "{events:?}");
    assert_eq!(events[0]["verb"], "create");
    assert_eq!(steps(&events), done(&format!("{BUILD} device-model userdata")));
    let last = events.last().expect("an event");
    assert_eq!((&last["event"], &last["result"]), (&"result".into(), &result));
    // The pipe has ended though QEMU lives on: it has no end of it.
    let name = shell(&format!("cat /proc/{}/comm", number(&result, "device_model_pid")));
    assert!(name.contains("qemu"), "{name}");

    let (status, result, events) = told(&["destroy", "t"]);
    assert_eq!((status, steps(&events)), (Some(0), done("connect destroy")));
    assert_eq!(events.last().expect("an event")["result"], result);
}

/// Most of it is populated before QEMU starts, and a dry run says so.
fn large_guest() {
    let arguments = ["create", "--name", "t", "--memory", "3GiB", "--paused"];
    let before = "start-device-model populate";
    let expected = format!("{} device-model userdata", BUILD.replace(before, &format!("populate {before}")));
    let planned = dombuild(&[&arguments[..], &["--dry-run"]].concat()).success().json();
    let planned: Vec<_> = planned["steps"].as_array().expect("steps").iter().filter_map(Value::as_str).collect();
    // The dry run itself has gone through the first two.
    assert_eq!(planned, expected.split_whitespace().skip(2).collect::<Vec<_>>());
    let (status, _, events) = told(&arguments);
    assert_eq!((status, steps(&events)), (Some(0), done(&expected)));
    let counted = |event: &&Value| event["event"] == "progress" && event["stage"] == "populate";
    let amounts: Vec<_> = events.iter().filter(counted).map(|event| number(event, "done")).collect();
    assert!(amounts.is_sorted(), "the second time goes on where the first one ended: {amounts:?}");
    let last = events.iter().rfind(counted).expect("one at the end");
    assert_eq!(last["done"], last["total"]);
    dombuild(&["destroy", "t"]).success();
}

fn failure() {
    let arguments = ["create", "--name", "t", "--memory", "128", "--dm-arg", "-nonsense"];
    let (status, printed, events) = told(&arguments);
    assert_eq!(status, Some(1), "{events:?}");
    let mut expected = done(BUILD);
    expected.extend([("device-model", "failed"), ("destroy", "done")]);
    assert_eq!(steps(&events), expected);
    let last = events.last().expect("an event");
    assert_eq!((&last["event"], &last["error"], &last["exit"]), (&"error".into(), &printed["error"], &1.into()));
    assert_eq!(printed["error"]["code"], "device-model-failed");

    let (status, _, events) = told(&["create", "--name", "t", "--memory", "128", "--cpupool", "77"]);
    assert_eq!(status, Some(5));
    assert_eq!(steps(&events), [("check-input", "done"), ("connect", "done"), ("create-domain", "failed")]);
}

fn waiting() {
    let (status, printed, events) = told(&["create", "--name", "t", "--memory", "1TiB", "--device-model", "none"]);
    assert_eq!(status, Some(4), "{events:?}");
    let counted: Vec<&Value> = events.iter().filter(|event| event["event"] == "progress").collect();
    assert!(!counted.is_empty(), "{events:?}");
    for event in counted {
        assert_eq!((&event["stage"], &event["unit"]), (&"wait-free-memory".into(), &"kib".into()), "{event}");
        assert_eq!(number(event, "total"), number(&printed["error"], "required_kib"));
        assert!(number(event, "done") > 0 && number(event, "done") < number(event, "total"), "{event}");
        assert!(event["text"].as_str().expect("text").contains("waiting for memory"), "{event}");
    }
}

/// A guest that never starts does not move, and is waited for as long as `--timeout` says.
fn moving() {
    let built = create("t", &["--memory", "128", "--maxmem", "256", "--device-model", "none", "--paused"]);
    let (status, printed, events) = told(&["balloon", "t", "192", "--timeout", "1"]);
    assert_eq!((status, &printed["error"]["code"]), (Some(8), &"timed-out".into()), "{events:?}");
    let counted: Vec<&Value> = events.iter().filter(|event| event["event"] == "progress").collect();
    assert!(!counted.is_empty(), "{events:?}");
    for event in counted {
        assert_eq!((&event["stage"], &event["unit"]), (&"wait-balloon".into(), &"pages".into()), "{event}");
        assert!(number(event, "done") <= number(event, "total"), "{event}");
    }
    assert_eq!(steps(&events).last(), Some(&("wait-balloon", "failed")), "domain {}", built["domid"]);
    dombuild(&["destroy", "t"]).success();
}

fn syslog() {
    const STOP: &str = "no more";
    let path = Path::new("/dev/log");
    assert!(!path.exists(), "this dom0 has no syslog daemon; the test is to be one");
    let daemon = UnixDatagram::bind(path).expect("bound");
    // The kernel keeps ten datagrams for a daemon that does not read.
    let listener = thread::spawn(move || {
        let mut buffer = [0; 8192];
        let mut receive =
            || daemon.recv(&mut buffer).map(|length| String::from_utf8_lossy(&buffer[..length]).into_owned());
        std::iter::from_fn(|| Some(receive().expect("received"))).take_while(|line| line != STOP).collect::<Vec<_>>()
    });
    let ran =
        dombuild(&["create", "--name", "t", "--memory", "64", "--device-model", "none", "--paused", "--log", "syslog"]);
    let destroyed = dombuild(&["destroy", "nobody", "--log", "syslog:wrapper"]);
    UnixDatagram::unbound().and_then(|socket| socket.send_to(STOP.as_bytes(), path)).expect("sent");
    fs::remove_file(path).expect("removed");
    let lines = listener.join().expect("it has read all");
    let ran = ran.success().json();
    let created = format!("]: create done: t is domain {}, paused", number(&ran, "domid"));
    // LOG_DAEMON (3) with LOG_INFO (6), and with LOG_ERR (3).
    let said = |line: &&String| line.starts_with("<30>") && line.contains(" dombuild[") && line.ends_with(&created);
    assert_eq!(lines.iter().filter(said).count(), 1, "{lines:?}");
    let error = destroyed.failed_with(3, "no-such-domain");
    let message = format!("]: {}", error["message"].as_str().expect("text"));
    let last = lines.last().expect("a line");
    assert!(last.starts_with("<27>") && last.contains(" wrapper[") && last.ends_with(&message), "{last}");
    dombuild(&["destroy", "t"]).success();
}
