//! SIGINT and SIGTERM at different moments: everything is removed, and the exit status names the signal.

use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command, Stdio};

use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, close};
use serde_json::Value;

use super::Test;
use super::support::{DOMBUILD, create, path_text, script, shell, wait_for};

pub(crate) const TESTS: &[Test] = &[
    ("sigterm_while_waiting_for_the_device_model", || while_waiting(Signal::SIGTERM, 143, "terminated")),
    ("sigint_while_waiting_for_the_device_model", || while_waiting(Signal::SIGINT, 130, "interrupted")),
    ("sigint_at_every_step", at_every_step),
    ("sigterm_ends_a_foreground_run", || foreground(Signal::SIGTERM)),
    ("a_lost_terminal_ends_a_foreground_run", || foreground(Signal::SIGHUP)),
];

fn start(arguments: &[&str]) -> Child {
    Command::new(DOMBUILD)
        .args(["--json", "create", "--name", "t", "--memory", "256"])
        .args(arguments)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts")
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), signal).expect("it still runs");
}

/// Exit status and output; no output where the signal came before anything was done.
fn end(mut child: Child) -> (Option<i32>, Value) {
    let mut text = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut text).expect("UTF-8");
    let status = child.wait().expect("it ended").code();
    let output = if status.is_none() { Ok(Value::Null) } else { serde_json::from_str(&text) };
    (status, output.unwrap_or_else(|error| panic!("{error}: {text:?}")))
}

fn while_waiting(with: Signal, status: i32, code: &str) {
    let sleeper = script("#!/bin/sh\nsleep 1000\n");
    let child = start(&["--device-model", path_text(&sleeper)]);
    wait_for("the device model runs", 60, || shell("ps ax").contains("sleep 1000"));
    signal(&child, with);
    let (ended, output) = end(child);
    assert_eq!(ended, Some(status), "{output}");
    assert_eq!(output["error"]["code"], code, "{output}");
    assert!(output["error"]["message"].as_str().expect("text").contains("nothing is left"), "{output}");
}

/// At every step, as soon as the events tell that it has begun. Until QEMU is waited for, each such run is
/// stopped half way; a later one may have built its guest whole.
fn at_every_step() {
    const UNTIL_DEVICE_MODEL: usize = 25;
    let whole = create_until(None);
    assert_eq!(whole.status, Some(0), "{whole:?}");
    assert_eq!(whole.steps.get(UNTIL_DEVICE_MODEL).map(String::as_str), Some("device-model"), "{:?}", whole.steps);
    shell("dombuild destroy t");
    for (index, step) in whole.steps.iter().enumerate() {
        let ran = create_until(Some(index));
        match ran.status {
            Some(130) => assert_eq!(ran.output["error"]["code"], "interrupted", "at {step}: {ran:?}"),
            Some(0) if index >= UNTIL_DEVICE_MODEL => drop(shell("dombuild destroy t")),
            // The handler was not in place yet: the default action ended it, with nothing done so far.
            None if index < 2 => {}
            other => panic!("{other:?} at {step}: {ran:?}"),
        }
        assert!(!shell("xl list").contains("\nt "), "at {step}");
    }
}

/// What one run came to, and the steps that it began.
#[derive(Debug)]
struct Stopped {
    status: Option<i32>,
    output: Value,
    steps: Vec<String>,
}

/// Runs `create`, and interrupts it when it begins the step of this number.
fn create_until(stop_at: Option<usize>) -> Stopped {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let events = fcntl(&writer, FcntlArg::F_DUPFD(20)).expect("a descriptor that is handed on");
    let child = start(&["--paused", "--events-fd", &events.to_string()]);
    drop(writer);
    close(events).expect("closed");
    let mut steps = Vec::new();
    for line in BufReader::new(reader).lines() {
        let event: Value = serde_json::from_str(&line.expect("a line")).expect("an object");
        if event["state"] == "started" {
            if stop_at == Some(steps.len()) {
                signal(&child, Signal::SIGINT);
            }
            steps.push(event["stage"].as_str().expect("a word").to_owned());
        }
    }
    let (status, output) = end(child);
    Stopped { status, output, steps }
}

fn foreground(with: Signal) {
    let child = start(&["--foreground"]);
    wait_for("the guest runs", 60, || {
        shell("xl list").lines().any(|line| line.starts_with("t ") && !line.contains("--p"))
    });
    signal(&child, with);
    let (status, output) = end(child);
    assert_eq!(status, Some(143), "{output}");
    // And one more guest of that name can be had at once.
    create("t", &["--memory", "64", "--paused"]);
    shell("dombuild destroy t");
}
