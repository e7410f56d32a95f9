//! SIGINT and SIGTERM at different moments: everything is removed, and the exit status tells the signal.

use std::io::Read;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::Test;
use super::support::{DOMBUILD, create, path_text, script, shell, wait_for};

pub(crate) const TESTS: &[Test] = &[
    ("sigterm_while_waiting_for_the_device_model", || while_waiting(Signal::SIGTERM, 143, "terminated")),
    ("sigint_while_waiting_for_the_device_model", || while_waiting(Signal::SIGINT, 130, "interrupted")),
    ("sigint_at_any_moment", at_any_moment),
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

/// From before the domain exists until after QEMU has started. A run that had ended before the signal came has built its
/// guest whole.
fn at_any_moment() {
    let mut stopped = 0;
    for delay in [5, 20, 40, 80, 120, 200, 300, 500, 800] {
        let child = start(&["--paused"]);
        thread::sleep(Duration::from_millis(delay));
        signal(&child, Signal::SIGINT);
        let (status, output) = end(child);
        match status {
            Some(130) => stopped += 1,
            Some(0) => drop(shell("dombuild destroy t")),
            // The handler was not in place yet: the default action ended it, with nothing done so far.
            None => {}
            other => panic!("{other:?} after {delay} ms: {output}"),
        }
        assert!(!shell("xl list").contains("\nt "), "{delay} ms");
    }
    assert!(stopped >= 3, "only {stopped} runs were stopped half way");
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
