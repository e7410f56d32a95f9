//! What others do not do: a journal that does not read, and a QEMU that is stopped. The run goes on, or ends in time.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, close};
use serde_json::Value;

use super::Test;
use super::sample::Random;
use super::support::{DOMBUILD, Ran, dombuild, path_text, run, script, shell};

pub(crate) const TESTS: &[Test] = &[
    ("a_stalled_journal_stops_no_build", stalled_journal),
    ("a_stalled_syslog_stops_no_build", stalled_syslog),
    ("walk_a_journal_that_stalls_at_every_step", at_every_step),
    ("a_stopped_qemu_is_a_timeout", stopped_qemu),
];

const JOURNAL: &str = "/run/systemd/journal/socket";
const SYSLOG: &str = "/dev/log";
const GUEST: [&str; 6] = ["create", "--name", "t", "--memory", "64", "--paused"];

/// A daemon that may read or not. dom0 has none of its own.
struct Daemon {
    path: &'static str,
    socket: UnixDatagram,
}

impl Daemon {
    fn new(path: &'static str) -> Self {
        fs::create_dir_all("/run/systemd/journal").expect("made");
        let socket = UnixDatagram::bind(path).expect("this dom0 has no such daemon; the test is to be one");
        socket.set_nonblocking(true).expect("set");
        Self { path, socket }
    }

    /// Leaves no room for another datagram.
    fn fill(&self) {
        let sender = UnixDatagram::unbound().expect("a socket");
        sender.set_nonblocking(true).expect("set");
        while sender.send_to(b"MESSAGE=x\n", self.path).is_ok() {}
    }

    fn drain(&self) {
        while self.socket.recv(&mut [0; 16]).is_ok() {}
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        fs::remove_file(self.path).expect("removed");
        // Of systemd's, this dom0 has nothing else.
        let _ = fs::remove_dir("/run/systemd/journal");
        let _ = fs::remove_dir("/run/systemd");
    }
}

fn assert_warns_once(ran: &Ran, log: &str) {
    let told = ran.stderr.lines().filter(|line| line.contains(&format!("the log {log} stalls: it was waited for 1 s")));
    assert_eq!(told.count(), 1, "{ran:?}");
}

fn timed(arguments: &[&str]) -> (Ran, Duration) {
    let start = Instant::now();
    (dombuild(arguments), start.elapsed())
}

/// It is full from the beginning.
fn builds_in_spite(daemon: &Daemon, log: &str, named: &str) {
    let (ran, usual) = timed(&GUEST);
    ran.success();
    dombuild(&["destroy", "t"]).success();
    daemon.fill();
    let (ran, took) = timed(&[&GUEST[..], &["--log", log]].concat());
    let ran = ran.success();
    assert_warns_once(&ran, named);
    // Emulated builds differ by seconds; a run that waited for the journal would not end at all.
    println!("{log}: {usual:.2?} without it, {took:.2?} with one that stalls");
    assert!(took < usual + Duration::from_secs(30), "{usual:?} without it, {took:?} with it");
    dombuild(&["destroy", "t"]).success();
    // A failed run reports its own error last.
    let (ran, _) = timed(&["destroy", "nobody", "--log", log]);
    ran.failed_with(3, "no-such-domain");
    assert_warns_once(&ran, named);
    assert!(ran.stderr.lines().last().is_some_and(|line| line.starts_with("dombuild: ")), "{ran:?}");
}

fn stalled_journal() {
    let daemon = Daemon::new(JOURNAL);
    builds_in_spite(&daemon, "journald", "journald:dombuild");
}

fn stalled_syslog() {
    let daemon = Daemon::new(SYSLOG);
    builds_in_spite(&daemon, "syslog:me", "syslog:me");
}

/// Reads until a step begins, and then no more; without and with SIGINT at that moment.
fn at_every_step() {
    let daemon = Daemon::new(JOURNAL);
    let whole = create_until(&daemon, usize::MAX, false);
    assert_eq!(whole.ran.status, Some(0), "{whole:?}");
    assert!(!whole.ran.stderr.contains("stalls"), "{whole:?}");
    dombuild(&["destroy", "t"]).success();
    let steps = u64::try_from(whole.steps.len()).expect("a count");
    for step in Random::new("stalls").sample(steps, 4) {
        let step = usize::try_from(step).expect("a count");
        let name = &whole.steps[step];
        let stalled = create_until(&daemon, step, false);
        assert_eq!(stalled.ran.status, Some(0), "at {name}: {stalled:?}");
        assert_warns_once(&stalled.ran, "journald:dombuild");
        dombuild(&["destroy", "t"]).success();
        let interrupted = create_until(&daemon, step, true);
        match interrupted.ran.status {
            Some(130) => {}
            // The last steps may be over before the signal is there.
            Some(0) if ["device-model", "userdata"].contains(&name.as_str()) => {
                drop(dombuild(&["destroy", "t"]).success())
            }
            // The handler was not in place yet.
            None if step < 2 => {}
            other => panic!("{other:?} at {name}: {interrupted:?}"),
        }
        println!("{name}: stopped after {:.2?}", interrupted.rest);
        assert!(interrupted.rest < Duration::from_secs(10), "at {name}: {interrupted:?}");
        assert!(!shell("xl list").contains("\nt "), "at {name}");
    }
}

/// What a run came to, the steps that it began, and how long it went on after the one of the stall.
#[derive(Debug)]
struct Stalled {
    ran: Ran,
    steps: Vec<String>,
    rest: Duration,
}

fn create_until(daemon: &Daemon, step: usize, interrupt: bool) -> Stalled {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let events = fcntl(&writer, FcntlArg::F_DUPFD(20)).expect("a descriptor that is handed on");
    let child = Command::new(DOMBUILD)
        .args(GUEST)
        .args(["--json", "--log", "journald", "--events-fd", &events.to_string()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(writer);
    close(events).expect("closed");
    let reads = AtomicBool::new(true);
    daemon.drain();
    thread::scope(|scope| {
        let journal = scope.spawn(|| {
            while reads.load(Ordering::Relaxed) {
                daemon.drain();
                thread::sleep(Duration::from_millis(2));
            }
        });
        let (mut journal, mut steps, mut from) = (Some(journal), Vec::new(), Instant::now());
        for line in BufReader::new(reader).lines() {
            let event: Value = serde_json::from_str(&line.expect("a line")).expect("an object");
            if event["state"] == "started" {
                if steps.len() == step {
                    reads.store(false, Ordering::Relaxed);
                    journal.take().map_or(Ok(()), |thread| thread.join()).expect("it ends");
                    daemon.fill();
                    if interrupt {
                        kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGINT)
                            .expect("it runs");
                    }
                    from = Instant::now();
                }
                steps.push(event["stage"].as_str().expect("a word").to_owned());
            }
        }
        let ran = end(child);
        let rest = from.elapsed();
        reads.store(false, Ordering::Relaxed);
        Stalled { ran, steps, rest }
    })
}

/// The end of a run, which is killed where it does not come.
fn end(mut child: Child) -> Ran {
    let end = Instant::now() + Duration::from_secs(60);
    while child.try_wait().expect("asked").is_none() && Instant::now() < end {
        thread::sleep(Duration::from_millis(5));
    }
    // Where it has ended, this does nothing.
    let _ = child.kill();
    Ran::new(&child.wait_with_output().expect("it ended"))
}

/// It listens, so that a connection is made, and never says a word.
fn stopped_qemu() {
    const QEMU: &str = "/usr/libexec/xen-qemu-system-i386";
    let model = script(&format!(
        "#!/bin/sh\n\
         me=$$\n\
         (while [ ! -S /run/xen/qmp-libxl-$XEN_DOMAIN_ID ]; do sleep 0.005; done; kill -STOP $me) &\n\
         exec {QEMU} \"$@\"\n"
    ));
    let start = Instant::now();
    let ran = dombuild(&[&GUEST[..], &["--device-model", path_text(&model), "--dm-timeout", "3"]].concat());
    let took = start.elapsed();
    let error = ran.failed_with(8, "timed-out");
    assert_eq!(error["stage"], "device-model", "{error}");
    println!("ended after {took:.2?}");
    assert!(took >= Duration::from_secs(3) && took < Duration::from_secs(20), "{took:?}");
    assert_ne!(run("pgrep", &["-f", "xen-domid"]).status, Some(0), "it is killed");
}
