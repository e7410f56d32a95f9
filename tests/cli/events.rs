//! `--events-fd`: the events of a run, and how a run ends without a reader.

use std::fs;
use std::io::{self, Write};
use std::process::{Command, Output, Stdio};

use serde_json::Value;

use super::run::{Files, PROGRAM, Ran, has_xen, line, with};

/// Hands the program a pipe as descriptor 5; its standard output goes to a file.
const PIPE: &str = r#"exec "$0" "$@" --events-fd 5 5>&1 >"$RESULT""#;

/// What a run printed, and its events.
struct Told {
    exit: i32,
    stdout: String,
    stderr: String,
    events: Vec<Value>,
}

impl Told {
    fn last(&self) -> &Value {
        self.events.last().expect("an event")
    }

    /// `stage state` of each step's events.
    fn stages(&self) -> Vec<String> {
        let word = |event: &Value, field: &str| event[field].as_str().expect("a word").to_owned();
        let stages = self.events.iter().filter(|event| event["event"] == "stage");
        stages.map(|event| format!("{} {}", word(event, "stage"), word(event, "state"))).collect()
    }
}

fn shell(script: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("sh");
    command.args(["-c", script, PROGRAM]).args(arguments);
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// Runs the program with a pipe for its events, and checks what holds for the events of every run.
fn told(arguments: &[&str]) -> Told {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let result = directory.path().join("result");
    let Output { status, stdout, stderr } =
        shell(PIPE, arguments).env("RESULT", &result).output().expect("the command starts");
    let text = String::from_utf8(stdout).expect("UTF-8");
    assert!(text.is_empty() || text.ends_with('\n'), "whole lines: {text:?}");
    let told = Told {
        exit: status.code().expect("an exit status"),
        stdout: fs::read_to_string(result).expect("made by the shell"),
        stderr: String::from_utf8(stderr).expect("UTF-8"),
        events: text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect(),
    };
    let first = &told.events[0];
    assert_eq!((&first["schema"], &first["event"]), (&1.into(), &"start".into()), "{first}");
    assert!(first["pid"].as_u64().is_some_and(|pid| pid > 1), "{first}");
    let ends = told.events.iter().filter(|event| event["event"] == "result" || event["event"] == "error").count();
    assert_eq!(ends, 1, "one last record: {text}");
    let last = if told.exit == 0 { "result" } else { "error" };
    assert_eq!(told.last()["event"], last, "{text}");
    for event in &told.events {
        let time = event.get("time").map(|time| time.as_str().expect("text"));
        assert!(time.is_none_or(|time| time.len() == 24 && time.ends_with('Z')), "{event}");
        assert_eq!(event.get("seconds").is_some(), event["state"] == "done" || event["state"] == "failed", "{event}");
    }
    told
}

#[test]
fn a_plan_ends_with_its_result() {
    let json = told(&["plan", "--memory", "256", "--json"]);
    assert_eq!(json.exit, 0);
    assert_eq!(json.events[0]["verb"], "plan");
    assert_eq!(json.stages(), ["check-input started", "check-input done"]);
    assert_eq!(json.last()["result"], serde_json::from_str::<Value>(&json.stdout).expect("the object"));

    // People's text and a picture change nothing for the program that listens.
    let text = told(&["plan", "--memory", "256"]);
    assert_eq!(text.stdout, line("plan --memory 256").stdout);
    assert_eq!(text.last(), json.last());
    let picture = told(&["plan", "--memory", "256", "--svg", "-"]);
    assert!(picture.stdout.starts_with("<svg"), "{}", picture.stdout);
    assert_eq!(picture.last(), json.last());
    assert_eq!(told(&["features", "--json"]).stages(), [""; 0]);
}

#[test]
fn a_refused_setting_ends_with_its_error() {
    let files = Files::new();
    let create = with(&files.create(), "--uuid", "00000000-0000-0000-0000-000000000000");
    let mut words: Vec<&str> = create.iter().map(String::as_str).collect();
    words.push("--json");
    let told = told(&words);
    assert_eq!((told.exit, &told.last()["exit"]), (3, &3.into()));
    assert_eq!(told.stages(), ["check-input started", "check-input failed"]);
    let printed: Value = serde_json::from_str(&told.stdout).expect("the object");
    assert_eq!(told.last()["error"], printed["error"]);
    assert_eq!(printed["error"]["code"], "bad-config");
}

#[test]
fn a_usage_error_is_told_too() {
    for (arguments, verb) in [
        (&["plan", "--memory", "4GB"][..], Value::from("plan")),
        (&["plna"], Value::Null),
        (&[], Value::Null),
        (&["create", "--memory", "256"], "create".into()),
    ] {
        let told = told(arguments);
        assert_eq!((told.exit, &told.last()["exit"]), (2, &2.into()), "{arguments:?}");
        assert_eq!((&told.events[0]["verb"], told.events.len()), (&verb, 2), "{arguments:?}");
        assert_eq!(told.last()["error"]["code"], "usage");
    }
}

#[test]
fn without_xen_the_step_has_failed() {
    if has_xen("without_xen_the_step_has_failed") {
        return;
    }
    let files = Files::new();
    let create = files.create();
    let told = told(&create.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(told.exit, 5);
    assert_eq!(told.stages(), ["check-input started", "check-input done", "connect started", "connect failed"]);
    let error = &told.last()["error"];
    assert_eq!((&error["code"], &error["stage"]), (&"no-xen".into(), &"connect".into()));
    assert!(told.stderr.contains(error["message"].as_str().expect("text")), "{}", told.stderr);
}

#[test]
fn a_descriptor_that_is_none_is_a_usage_error() {
    for (script, number, why) in [
        (r#"exec "$0" "$@""#, "5", "is not open"),
        (r#"exec "$0" "$@""#, "1000000", "is not open"),
        (r#"exec "$0" "$@" 5</dev/null"#, "5", "not open for writing"),
        (r#"exec "$0" "$@""#, "0", "3 and above"),
        (r#"exec "$0" "$@""#, "1", "3 and above"),
        (r#"exec "$0" "$@""#, "2", "3 and above"),
        (r#"exec "$0" "$@""#, "five", "invalid value"),
    ] {
        let ran = Ran::of(&mut shell(script, &["plan", "--memory", "256", "--json", "--events-fd", number]));
        assert_eq!(ran.exit, 2, "{script} {number}: {ran:?}");
        let error = ran.error();
        assert_eq!(error["code"], "usage", "{error}");
        let message = error["message"].as_str().expect("text");
        assert!(message.contains(why) && message.contains("--events-fd"), "{number}: {message}");
    }
}

/// Runs a plan whose events go into a pipe that is prepared by the caller.
fn into_pipe(writer: io::PipeWriter) -> Ran {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let result = directory.path().join("result");
    let mut command = shell(PIPE, &["plan", "--memory", "256"]);
    let output = command.env("RESULT", &result).stdout(writer).stderr(Stdio::piped()).spawn().expect("started");
    let output = output.wait_with_output().expect("ended");
    Ran {
        exit: output.status.code().expect("an exit status and no signal"),
        stdout: fs::read_to_string(result).expect("made by the shell"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

#[test]
fn a_listener_that_went_away_is_no_error() {
    let (reader, writer) = io::pipe().expect("a pipe");
    drop(reader);
    let ran = into_pipe(writer);
    assert_eq!((ran.exit, ran.stdout), (0, line("plan --memory 256").stdout));
    assert_eq!(ran.stderr.lines().count(), 1, "told once: {}", ran.stderr);
    assert!(ran.stderr.contains("WARN") && ran.stderr.contains("no more events are sent"), "{}", ran.stderr);
}

#[test]
fn a_listener_that_does_not_read_stops_nobody() {
    let (_reader, mut writer) = io::pipe().expect("a pipe");
    // As much as a pipe holds (pipe(7)).
    writer.write_all(&[b'\n'; 64 << 10]).expect("it fits");
    let ran = into_pipe(writer);
    assert_eq!((ran.exit, ran.stdout), (0, line("plan --memory 256").stdout));
    assert_eq!(ran.stderr.matches("the reader has not read").count(), 1, "{}", ran.stderr);
}
