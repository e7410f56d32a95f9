//! `--log`, `--log-format` and `--debug`: where the log goes, how it looks, and that its last line holds the cause.

use std::fs;
use std::io::Read;
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::pty::openpty;
use nix::sys::termios::{FlowArg, tcflow};
use nix::unistd::ttyname;

use serde_json::Value;

use super::run::{Files, PROGRAM, Ran, command, has_xen, line, refused, skipped, text, with};

/// A directory for a log, and the run's arguments with the log in it.
fn logged(arguments: &[&str], log_format: &str) -> (Ran, String) {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("log");
    let ran = Ran::of(command(arguments).args(["--log", &text(&path), "--log-format", log_format]));
    let log = fs::read_to_string(&path).expect("a log");
    assert!(log.ends_with('\n'), "whole lines: {log:?}");
    (ran, log)
}

/// The records of a JSON log, once each of them is what it should be.
fn records(log: &str) -> Vec<Value> {
    let records: Vec<Value> = log.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    for record in &records {
        let fields: Vec<&str> = record.as_object().expect("an object").keys().map(String::as_str).collect();
        assert_eq!(fields, ["level", "msg", "time"], "{record}");
        let level = record["level"].as_str().expect("a word");
        assert!(["error", "warn", "info", "debug", "trace"].contains(&level), "{record}");
        let time: String = record["time"].as_str().expect("text").replace(|c: char| c.is_ascii_digit(), "0");
        assert_eq!(time, "0000-00-00T00:00:00.000Z", "{record}");
    }
    records
}

#[test]
fn the_last_line_of_a_success_says_what_was_done() {
    let (ran, log) = logged(&["plan", "--memory", "256"], "json");
    assert_eq!((ran.exit, ran.stderr.as_str()), (0, ""));
    assert_eq!(ran.stdout, line("plan --memory 256").stdout, "the log is beside the result");
    let records = records(&log);
    let last = records.last().expect("a record");
    assert_eq!(last["level"], "info");
    assert_eq!(last["msg"], "plan done: HVM guest of 256 MiB with 1 vCPU");
    let (_, log) = logged(&["plan", "--memory", "256"], "text");
    let last = log.lines().last().expect("a line");
    assert!(
        last.contains(" INFO  dombuild") && last.ends_with("] plan done: HVM guest of 256 MiB with 1 vCPU"),
        "{last}"
    );
}

#[test]
fn the_last_line_of_a_failure_is_the_whole_cause() {
    let files = Files::new();
    let create = with(&files.create(), "--uuid", "00000000-0000-0000-0000-000000000000");
    let create: Vec<&str> = create.iter().map(String::as_str).collect();
    for (arguments, exit) in [
        (&create[..], 3),
        (&["plan", "--memory", "0"], 3),
        (&["plan", "--memory", "4GB"], 2),
        (&["plna"], 2),
        (&[], 2),
        (&["plan", "--memory", "256", "--events-fd", "77"], 2),
    ] {
        // The same text as everywhere else.
        let error = Ran::of(command(arguments).arg("--json")).error();
        let (ran, log) = logged(arguments, "json");
        assert_eq!((ran.exit, ran.stdout.as_str()), (exit, ""), "{arguments:?}");
        let last = records(&log).pop().expect("a record");
        assert_eq!((&last["level"], &last["msg"]), (&"error".into(), &error["message"]), "{arguments:?}");
        // Where the log is JSON, all of standard error is.
        let told = records(&ran.stderr).pop().expect("a record");
        assert_eq!((&told["level"], &told["msg"]), (&last["level"], &last["msg"]), "{arguments:?}");

        let (ran, log) = logged(arguments, "text");
        assert_eq!(ran.exit, exit, "{arguments:?}");
        let message = error["message"].as_str().expect("text").replace('\n', "\\n");
        let last = log.lines().last().expect("a line");
        assert!(last.ends_with(&format!(" ERROR dombuild] {message}")), "{last}");
    }
}

#[test]
fn without_xen_the_log_ends_with_that() {
    if has_xen("without_xen_the_log_ends_with_that") {
        return;
    }
    let (ran, log) = logged(&["destroy", "7"], "text");
    assert_eq!(ran.exit, 5);
    let message = ran.stderr.trim_end().strip_prefix("dombuild: ").expect("the usual error");
    assert!(log.trim_end().ends_with(&format!("ERROR dombuild] {message}")), "{log}");
}

#[test]
fn a_name_cannot_forge_a_record() {
    let files = Files::new();
    let kernel =
        "/nowhere\n[2024-05-01T12:00:00.000Z ERROR dombuild] forged\n{\"level\":\"error\",\"msg\":\"forged\"}\x1b[2J";
    let create = with(&files.create(), "--hvmloader", kernel);
    let create: Vec<&str> = create.iter().map(String::as_str).collect();
    let (ran, log) = logged(&create, "text");
    assert_eq!(ran.exit, 3, "{ran:?}");
    assert_eq!(log.lines().filter(|line| line.contains("forged")).count(), 1, "{log}");
    assert!(log.lines().all(|line| line.contains(" dombuild") && line.matches(" dombuild").count() <= 2), "{log}");
    assert!(!log.contains('\x1b') && log.contains("/nowhere\\n[2024"), "{log}");
    let (_, log) = logged(&create, "json");
    assert_eq!(records(&log).iter().filter(|record| record["msg"].as_str().expect("text").contains(kernel)).count(), 1);
}

#[test]
fn a_log_that_cannot_be_opened_is_an_error_before_anything_is_done() {
    let files = Files::new();
    let link = files.path("link");
    symlink(files.path("target"), &link).expect("made");
    let directory = text(&files.path("."));
    for (log, why) in
        [(text(&files.path("no/log")), "No such file"), (text(&link), "symbolic link"), (directory, "directory")]
    {
        let error = refused(&with(&files.create(), "--log", &log), 3, "bad-file");
        let message = error["message"].as_str().expect("text");
        assert!(message.contains(&log) && message.contains(why), "{message}");
    }
    assert!(!files.path("target").exists(), "what a link leads to is not touched");
    // What is wrong with the command line comes before it.
    let both = Ran::of(&mut command(&["plan", "--memory", "4GB", "--json", "--log", &text(&files.path("no/log"))]));
    assert_eq!((both.exit, &both.error()["code"]), (2, &"usage".into()));
    refused(&["plan", "--memory", "256", "--log", ""], 2, "usage");
    refused(&["plan", "--memory", "256", "--log", "syslog:a b"], 2, "usage");
    refused(&["plan", "--memory", "256", "--log-format", "xml"], 2, "usage");
}

#[test]
fn a_log_is_appended_to_and_not_for_everybody() {
    let files = Files::new();
    let path = files.path("log");
    for destination in [text(&path), format!("file:{}", text(&path))] {
        let ran = Ran::of(command(&["plan", "--memory", "256", "--log"]).arg(destination));
        assert_eq!(ran.exit, 0, "{ran:?}");
    }
    let log = fs::read_to_string(&path).expect("a log");
    assert_eq!(log.matches("plan done").count(), 2, "{log}");
    assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o137, 0, "no more than 0640");
}

#[test]
fn debug_shows_the_arguments_and_every_setting_first() {
    let files = Files::new();
    let create = files.create();
    let mut words: Vec<&str> = create.iter().map(String::as_str).collect();
    words.extend(["--debug", "--cpupool", "3"]);
    let (ran, log) = logged(&words, "text");
    for text in [&ran.stderr, &log] {
        let first = text.lines().next().expect("a line");
        assert!(
            first.contains("DEBUG") && first.contains("arguments [") && first.contains("\"--cpupool\", \"3\""),
            "{first}"
        );
        for setting in [
            "--cpupool 3 (given)",
            "--name web (given)",
            "--vcpus 1 (default)",
            "--wait-memory 64 (default)",
            "--event-channels 1023 (default)",
            "--maxmem not given",
        ] {
            assert!(text.contains(&format!("] setting {setting}\n")), "{setting} is not in {text}");
        }
        // What the defaults come to: the plan, and the files.
        assert!(text.contains("\"static_max_kib\":262144") && text.contains("\"video_kib\":16384"), "{text}");
        assert!(text.contains("] device model /"), "{text}");
        let at = |word: &str| text.find(word).unwrap_or_else(|| panic!("{word} is not in {text}"));
        assert!(at("arguments [") < at("setting ") && at("setting --debug") < at("stage check-input"), "{text}");
    }
}

#[test]
fn rust_log_is_for_standard_error_alone() {
    let files = Files::new();
    let path = text(&files.path("log"));
    let quiet = Ran::of(command(&["plan", "--memory", "256", "--debug", "--log", &path]).env("RUST_LOG", "off"));
    assert_eq!((quiet.exit, quiet.stderr.as_str()), (0, ""));
    let log = fs::read_to_string(&path).expect("a log");
    assert!(log.contains("DEBUG") && log.contains("plan done"), "{log}");
    let loud = Ran::of(command(&["plan", "--memory", "256", "--log", &path]).env("RUST_LOG", "dombuild=trace"));
    assert!(loud.stderr.contains("setting --memory 256 (given)"), "{}", loud.stderr);
    let added = fs::read_to_string(&path).expect("a log");
    assert!(added[log.len()..].lines().all(|line| line.contains(" INFO ")), "{added}");
}

/// Runs on a machine whose /dev/log and journal are the given socket, or where neither is.
fn with_daemon(socket: Option<&Path>, arguments: &[&str]) -> Option<Ran> {
    const SCRIPT: &str = r#"
set -e
mount -t tmpfs none /run
mkdir -p /run/systemd/journal
cp "$0" /run/dombuild
: > /run/socket
if [ -n "$SOCKET" ]; then mount --bind "$SOCKET" /run/socket; fi
mount -t tmpfs none /dev
if [ -n "$SOCKET" ]; then
    : > /dev/log; mount --bind /run/socket /dev/log
    : > /run/systemd/journal/socket; mount --bind /run/socket /run/systemd/journal/socket
fi
exec /run/dombuild "$@"
"#;
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", SCRIPT, PROGRAM]).args(arguments).env_remove("RUST_LOG");
    command.env("SOCKET", socket.map(text).unwrap_or_default());
    let probe = Command::new("unshare").args(["--mount", "mount", "-t", "tmpfs", "none", "/mnt"]).status();
    probe.is_ok_and(|status| status.success()).then(|| Ran::of(&mut command))
}

/// All that has come so far.
fn received(daemon: &UnixDatagram) -> Vec<String> {
    daemon.set_nonblocking(true).expect("set");
    let mut buffer = vec![0; 64 << 10];
    let datagrams = std::iter::from_fn(|| daemon.recv(&mut buffer).ok().map(|n| buffer[..n].to_vec()));
    datagrams.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect()
}

#[test]
fn syslog_and_the_journal_have_it_or_are_missed() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("socket");
    let daemon = UnixDatagram::bind(&path).expect("bound");
    let plan = |log| ["plan", "--memory", "256", "--json", "--log", log];
    let Some(ran) = with_daemon(Some(&path), &plan("syslog")) else {
        return skipped(
            "syslog_and_the_journal_have_it_or_are_missed",
            "it takes root and a mount namespace of its own",
        );
    };
    assert_eq!((ran.exit, ran.stderr.as_str()), (0, ""));
    let lines = received(&daemon);
    // LOG_DAEMON (3) and LOG_INFO (6).
    assert!(lines.iter().all(|line| line.starts_with("<30>") && line.contains(" dombuild[")), "{lines:?}");
    assert!(
        lines.last().is_some_and(|line| line.ends_with("]: plan done: HVM guest of 256 MiB with 1 vCPU")),
        "{lines:?}"
    );

    let ran = with_daemon(Some(&path), &["plan", "--memory", "0", "--log", "syslog:wrapper-7"]).expect("as before");
    assert_eq!(ran.exit, 3);
    let message = ran.stderr.trim_end().strip_prefix("dombuild: ").expect("the usual error").to_owned();
    let last = received(&daemon).pop().expect("a line");
    assert!(last.starts_with("<27>") && last.contains(" wrapper-7["), "{last}");
    assert!(last.ends_with(&format!("]: {message}")), "{last}");

    let ran = with_daemon(Some(&path), &plan("journald")).expect("as before");
    assert_eq!((ran.exit, ran.stderr.as_str()), (0, ""));
    let entries = received(&daemon);
    let last = entries.last().expect("an entry");
    for field in ["PRIORITY=", "SYSLOG_IDENTIFIER", "dombuild", "DOMBUILD_VERSION", "plan done: HVM guest"] {
        assert!(last.contains(field), "{field} is not in {last:?}");
    }
    assert!(entries.iter().any(|entry| entry.contains("STAGE") && entry.contains("check-input")), "{entries:?}");

    for log in ["syslog", "journald"] {
        let ran = with_daemon(None, &plan(log)).expect("as before");
        let error = ran.error();
        assert_eq!((ran.exit, &error["code"]), (3, &"bad-config".into()), "{error}");
        assert!(error["message"].as_str().is_some_and(|message| message.contains("nobody listens at /")), "{error}");
    }
}

/// Leaves no room for another datagram.
fn fill(path: &Path) {
    let sender = UnixDatagram::unbound().expect("a socket");
    sender.set_nonblocking(true).expect("set");
    while sender.send_to(b"MESSAGE=x\n", path).is_ok() {}
}

/// One warning, and nothing else.
fn assert_stalls(ran: &Ran, log: &str) {
    assert_eq!(ran.exit, 0, "{ran:?}");
    assert!(ran.stdout.contains("HVM guest of 256 MiB"), "{ran:?}");
    assert!(ran.stderr.contains(&format!(" WARN  dombuild] the log {log} stalls: it was waited for 1 s")), "{ran:?}");
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
}

#[test]
fn a_daemon_that_does_not_read_is_given_up() {
    const TEST: &str = "a_daemon_that_does_not_read_is_given_up";
    let directory = tempfile::tempdir().expect("a temporary directory");
    let path = directory.path().join("socket");
    let _daemon = UnixDatagram::bind(&path).expect("bound");
    fill(&path);
    for (log, name) in [("syslog:x", "syslog:x"), ("journald", "journald:dombuild")] {
        let start = Instant::now();
        let Some(ran) = with_daemon(Some(&path), &["plan", "--memory", "256", "--log", log]) else {
            return skipped(TEST, "it takes root and a mount namespace of its own");
        };
        assert_stalls(&ran, name);
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }
}

/// Ctrl-S at a terminal stops its output.
#[test]
fn a_terminal_that_is_stopped_is_given_up() {
    let terminal = openpty(None, None).expect("a terminal");
    let path = ttyname(&terminal.slave).expect("its name");
    tcflow(&terminal.slave, FlowArg::TCOOFF).expect("stopped");
    let start = Instant::now();
    let ran = Ran::of(command(&["plan", "--memory", "256", "--log"]).arg(&path));
    assert_stalls(&ran, &format!("file:{}", text(&path)));
    assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    // One that goes on has it all.
    tcflow(&terminal.slave, FlowArg::TCOON).expect("it goes on");
    let ran = Ran::of(command(&["plan", "--memory", "256", "--log"]).arg(&path));
    assert_eq!((ran.exit, ran.stderr.as_str()), (0, ""));
    let mut shown = vec![0; 64 << 10];
    let mut length = 0;
    let mut master = fs::File::from(terminal.master);
    while !String::from_utf8_lossy(&shown[..length]).contains("plan done") {
        length += master.read(&mut shown[length..]).expect("it comes");
    }
}

#[test]
fn a_log_that_another_user_prepared_is_refused() {
    let files = Files::new();
    let path = files.add("log", b"");
    if chown(&path, Some(65_534), None).is_err() {
        return skipped("a_log_that_another_user_prepared_is_refused", "it takes root to make a file another user's");
    }
    let plan = |log: &Path| ["plan", "--memory", "256", "--log", &text(log)].map(str::to_owned);
    let error = refused(&plan(&path), 3, "bad-file");
    let message = error["message"].as_str().expect("text");
    assert!(message.contains("belongs to another user (user 65534's, mode 0"), "{message}");
    assert_eq!(fs::read(&path).expect("there"), b"");
    // The directory may be everybody's: what is made there is ours.
    fs::set_permissions(path.parent().expect("a directory"), fs::Permissions::from_mode(0o1777)).expect("set");
    assert_eq!(Ran::of(&mut command(&plan(&files.path("new")))).exit, 0);
}
