//! A xenstored that has died, or that does not answer: every run ends in time, says so, and what it could not roll back is
//! found later.

use std::env;
use std::fs;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, close};
use serde_json::Value;

use super::Test;
use super::sample::{Random, count};
use super::support::{DOMBUILD, Host, Ran, dombuild, run, shell};

pub(crate) const TESTS: &[Test] = &[
    ("store_that_died_leaves_its_socket", leaves_its_socket),
    ("store_that_is_stopped_is_given_up", is_given_up),
    ("store_that_is_stopped_holds_no_signal_up", holds_no_signal_up),
    ("walk_stops_of_xenstored", stops_at_every_step),
    ("walk_deaths_of_xenstored", deaths_at_every_step),
];

/// The last test of all: other daemons have to be started again after it.
pub(crate) const LAST: &[Test] = &[("store_is_killed", is_killed)];

const SOCKET: &str = "/run/xenstored/socket";

/// A run of dombuild, whatever xenstored does.
const CREATE: [&str; 6] = ["create", "--name", "t", "--memory", "64", "--paused"];

fn xenstored() -> Pid {
    let text = fs::read_to_string("/run/xen/xenstored.pid").expect("its pid");
    Pid::from_raw(text.trim().parse().expect("a pid"))
}

/// xenstored, stopped until this is dropped.
struct Stopped(Pid);

impl Stopped {
    fn now() -> Self {
        let pid = xenstored();
        kill(pid, Signal::SIGSTOP).expect("stopped");
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        kill(self.0, Signal::SIGCONT).expect("continued");
    }
}

fn message(error: &Value) -> &str {
    error["message"].as_str().expect("text")
}

/// dombuild must not wait in vain at the kernel's own device either, which has no server in dom0.
fn leaves_its_socket() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("socket");
    drop(UnixListener::bind(&path).expect("bound"));
    assert!(path.exists(), "as a process that is killed leaves it");
    for words in [&CREATE[..], &["inspect", "0"], &["cleanup"]] {
        let start = Instant::now();
        let output = Command::new(DOMBUILD).arg("--json").args(words).env("XENSTORED_PATH", &path).output();
        let error = Ran::new(&output.expect("it runs")).failed_with(6, "xenstore");
        assert_eq!((&error["call"], &error["errno"]), (&"xs_open".into(), &"ECONNREFUSED".into()), "{error}");
        assert!(message(&error).contains("ended and left its socket behind"), "{error}");
        assert!(start.elapsed() < Duration::from_secs(10));
    }
}

fn is_given_up() {
    let stopped = Stopped::now();
    for words in [&CREATE[..], &["inspect", "0"], &["cleanup"], &["destroy", "0"], &["balloon", "t", "64"]] {
        let start = Instant::now();
        let error = dombuild(&[words, &["--store-timeout", "2"]].concat()).failed_with(6, "xenstore");
        assert_eq!(error["errno"], "ETIMEDOUT", "{error}");
        let text = format!("xenstored at {SOCKET} has not answered for 2 s");
        assert!(message(&error).contains(&text) && message(&error).contains("--store-timeout"), "{error}");
        let took = start.elapsed();
        assert!(took >= Duration::from_secs(2) && took < Duration::from_secs(12), "{words:?} took {took:?}");
    }
    drop(stopped);
    dombuild(&["inspect", "0"]);
}

/// What one run came to.
#[derive(Debug)]
struct Outcome {
    status: Option<i32>,
    output: Value,
    took: Duration,
}

/// Runs `create` and does something as soon as it begins the step of this number; then, where that is given, sends it a signal.
/// `None` where it has no such step.
fn create_until(step: usize, words: &[&str], at: &mut dyn FnMut(&Child), path: Option<&Path>) -> Option<Outcome> {
    let (reader, writer) = io::pipe().expect("a pipe");
    let events = fcntl(&writer, FcntlArg::F_DUPFD(20)).expect("a descriptor that is handed on");
    let mut command = Command::new(DOMBUILD);
    command.args(["--json", "--events-fd", &events.to_string()]).args(CREATE).args(words);
    command.envs(path.map(|path| ("XENSTORED_PATH", path)));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("it starts");
    drop(writer);
    close(events).expect("closed");
    let mut began = None;
    let mut steps = 0;
    for line in BufReader::new(reader).lines() {
        let event: Value = serde_json::from_str(&line.expect("a line")).expect("an object");
        if event["state"] == "started" {
            if steps == step {
                at(&child);
                began = Some(Instant::now());
            }
            steps += 1;
        }
    }
    let mut text = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut text).expect("UTF-8");
    let status = child.wait().expect("it ended").code();
    let took = began?.elapsed();
    Some(Outcome { status, output: serde_json::from_str(&text).unwrap_or(Value::Null), took })
}

/// SIGINT ends the wait at once, and the roll-back does without xenstored.
fn holds_no_signal_up() {
    let before = Host::now();
    for (signal, status, word) in [(Signal::SIGINT, 130, "SIGINT"), (Signal::SIGTERM, 143, "SIGTERM")] {
        let mut stopped = None;
        let mut at = |child: &Child| {
            stopped = Some(Stopped::now());
            let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
            thread::spawn(move || {
                thread::sleep(Duration::from_millis(500));
                kill(pid, signal).expect("it waits");
            });
        };
        // The keys of the new domain: the third step after its input and the connection.
        let outcome = create_until(3, &[], &mut at, None).expect("a step");
        drop(stopped);
        assert!(outcome.took < Duration::from_secs(10), "{outcome:?}");
        assert!(outcome.status == Some(status) || outcome.status == Some(7), "{outcome:?}");
        assert!(message(&outcome.output["error"]).contains(word), "{outcome:?}");
        dombuild(&["cleanup", "--apply"]).success();
        before.assert_back().expect("cleanup finds the rest");
    }
    println!("the keys could not be removed, and cleanup found them");
}

/// At every step that begins, xenstored stops: the run ends in time, and what it leaves is found when xenstored runs again.
fn stops_at_every_step() {
    walk("stops of xenstored", &mut |step| {
        let mut stopped = None;
        let outcome = create_until(
            step,
            &["--store-timeout", "1", "--dm-timeout", "5"],
            &mut |_| stopped = Some(Stopped::now()),
            None,
        );
        drop(stopped);
        outcome
    });
}

/// The same if it dies, as far as this run can detect it: its socket stays without a listener.
fn deaths_at_every_step() {
    walk("deaths of xenstored", &mut |step| {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let relay = Relay::start(&path);
        create_until(step, &["--device-model", "none"], &mut |_| relay.die(), Some(&path))
    });
}

fn walk(name: &str, one: &mut dyn FnMut(usize) -> Option<Outcome>) {
    const STEPS: u64 = 26;
    let before = Host::now();
    let (mut given_up, mut left_behind, mut unharmed) = (0, 0, 0);
    for step in Random::new(name).choose(STEPS, count(6, 26).into()) {
        let step = usize::try_from(step).expect("small");
        let Some(outcome) = one(step) else {
            dombuild(&["destroy", "t"]).success();
            continue;
        };
        assert!(outcome.took < Duration::from_secs(40), "at {step}: {outcome:?}");
        match outcome.status {
            Some(6) => given_up += 1,
            Some(7) => {
                left_behind += 1;
                assert!(message(&outcome.output["error"]).contains("xs_"), "at {step}: {outcome:?}");
            }
            // It had asked all that it needed.
            Some(0) => unharmed += 1,
            other => panic!("{other:?} at {step}: {outcome:?}"),
        }
        dombuild(&["cleanup", "--apply"]).success();
        if outcome.status == Some(0) {
            dombuild(&["destroy", "t"]).success();
        }
        before.assert_back().unwrap_or_else(|error| panic!("at {step}: {outcome:?}: {error}"));
    }
    println!(
        "{name}: {given_up} runs undone, {left_behind} left something that cleanup removed, {unharmed} had done all"
    );
    assert!(given_up + left_behind > 0);
}

/// Between dombuild and xenstored, until it dies.
struct Relay {
    dead: Arc<AtomicBool>,
}

impl Relay {
    fn start(path: &Path) -> Self {
        let listener = UnixListener::bind(path).expect("bound");
        listener.set_nonblocking(true).expect("set");
        let dead = Arc::new(AtomicBool::new(false));
        let gone = Arc::clone(&dead);
        thread::spawn(move || {
            while !gone.load(Ordering::SeqCst) {
                if let Ok((stream, _)) = listener.accept() {
                    let store = UnixStream::connect(SOCKET).expect("xenstored");
                    for (from, to) in [(&stream, &store), (&store, &stream)] {
                        let (from, to) = (from.try_clone().expect("one more"), to.try_clone().expect("one more"));
                        let gone = Arc::clone(&gone);
                        thread::spawn(move || copy(from, to, &gone));
                    }
                }
                thread::sleep(Duration::from_millis(1));
            }
        });
        Self { dead }
    }

    fn die(&self) {
        self.dead.store(true, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(20));
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.die();
    }
}

fn copy(mut from: UnixStream, mut to: UnixStream, gone: &AtomicBool) {
    from.set_nonblocking(false).expect("set");
    from.set_read_timeout(Some(Duration::from_millis(5))).expect("set");
    let mut piece = [0; 4096];
    while !gone.load(Ordering::SeqCst) {
        match from.read(&mut piece) {
            Ok(0) => break,
            Ok(count) => {
                if gone.load(Ordering::SeqCst) || io::Write::write_all(&mut to, &piece[..count]).is_err() {
                    break;
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            Err(_) => break,
        }
    }
    // As the kernel closes what a killed process had open.
    let _ = from.shutdown(std::net::Shutdown::Both);
    let _ = to.shutdown(std::net::Shutdown::Both);
}

/// The real one, by SIGKILL. It keeps everything in its memory: what stood there is written again.
fn is_killed() {
    let tree = shell("xenstore-ls -f /");
    kill(xenstored(), Signal::SIGKILL).expect("killed");
    thread::sleep(Duration::from_millis(200));
    assert!(Path::new(SOCKET).exists());
    let mut outcomes = Vec::new();
    for words in [&CREATE[..], &["inspect", "0"]] {
        let start = Instant::now();
        outcomes.push((dombuild(words), start.elapsed()));
    }
    shell("kill -9 $(cat /run/xen/xenconsoled.pid); rm -f /run/xen/xenstored.pid /run/xen/xenconsoled.pid");
    match env::var("NESTED_XENSTORED").as_deref() {
        Ok("oxenstored") => shell("oxenstored"),
        _ => shell("xenstored --pid-file /run/xen/xenstored.pid"),
    };
    shell("xenconsoled --log=all --log-dir=/var/log/xen/console --pid-file /run/xen/xenconsoled.pid");
    shell("PATH=$PATH:$(ls -d /usr/lib/xen-*/bin) xen-init-dom0");
    for line in tree.lines() {
        let (path, value) = line.split_once(" = ").unwrap_or((line, "\"\""));
        let value = value.trim().trim_matches('"');
        run("xenstore-write", &[path.trim(), value]);
    }
    for (ran, took) in outcomes {
        let error = ran.failed_with(6, "xenstore");
        assert_eq!((&error["call"], &error["errno"]), (&"xs_open".into(), &"ECONNREFUSED".into()), "{error}");
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
}
