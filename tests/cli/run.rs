//! Runs the binary, and reads what it said.

use std::ffi::OsStr;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;

/// The binary that these tests are about.
pub(super) const PROGRAM: &str = env!("CARGO_BIN_EXE_dombuild");

/// The line that `RUST_LOG=dombuild=debug` shows as soon as Xen is touched.
pub(super) const FIRST_CALL: &str = "xc_interface_open(";

/// What a run came to.
#[derive(Debug)]
pub(super) struct Ran {
    /// The exit status; no run here ends by a signal.
    pub(super) exit: i32,
    /// All of its standard output.
    pub(super) stdout: String,
    /// All of its standard error.
    pub(super) stderr: String,
}

impl Ran {
    /// Runs a command to its end.
    pub(super) fn of(command: &mut Command) -> Self {
        let Output { status, stdout, stderr } = command.output().expect("the command starts");
        assert_eq!(status.signal(), None, "{command:?} was killed: {}", String::from_utf8_lossy(&stderr));
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let ran = Self { exit: status.code().expect("an exit status"), stdout: text(stdout), stderr: text(stderr) };
        assert!(!ran.stderr.contains("panicked"), "{}", ran.stderr);
        ran
    }

    /// The one JSON object on standard output; anything else there is an error.
    pub(super) fn json(&self) -> Value {
        let value: Value =
            serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {:?}", self.stdout));
        assert!(value.is_object(), "{value}");
        value
    }

    /// The error object of a failed `--json` run, once it is what every such run has to print.
    pub(super) fn error(&self) -> Value {
        let object = self.json();
        assert_eq!(object.as_object().map(serde_json::Map::len), Some(1), "{object}");
        let error = &object["error"];
        assert!(error["code"].is_string(), "{error}");
        let message = error["message"].as_str().expect("a message");
        assert!(self.stderr.contains(message), "{message:?} is not on stderr: {}", self.stderr);
        error.clone()
    }
}

/// The program with these arguments and an environment in which nothing changes what it prints.
pub(super) fn command(arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(arguments);
    for variable in ["RUST_LOG", "RUST_LOG_STYLE", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
        command.env_remove(variable);
    }
    command
}

/// Runs the program with these arguments.
pub(super) fn run(arguments: &[impl AsRef<OsStr>]) -> Ran {
    Ran::of(&mut command(arguments))
}

/// Runs the program with arguments that stand in one line; none of them has a space in it.
pub(super) fn line(arguments: &str) -> Ran {
    run(&arguments.split_whitespace().collect::<Vec<_>>())
}

/// Makes sure that these arguments are refused without a call to Xen, the same way for people and for programs; gives
/// back the error object.
pub(super) fn refused(arguments: &[impl AsRef<OsStr>], exit: i32, code: &str) -> Value {
    let plain = Ran::of(command(arguments).env("RUST_LOG", "dombuild=debug"));
    let shown = || format!("{:?}: {plain:?}", arguments.iter().map(AsRef::as_ref).collect::<Vec<_>>());
    assert_eq!(plain.exit, exit, "{}", shown());
    assert_eq!(plain.stdout, "", "without --json an error is on stderr alone: {}", shown());
    assert!(!plain.stderr.contains(FIRST_CALL), "Xen was touched: {}", shown());

    let json = Ran::of(command(arguments).arg("--json"));
    assert_eq!(json.exit, exit, "{json:?}");
    let error = json.error();
    assert_eq!(error["code"], code, "{error}");
    error
}

/// The files that a guest is built from, none of them real.
pub(super) struct Files {
    directory: tempfile::TempDir,
}

impl Files {
    /// A directory with `hvmloader`, `firmware`, and `qemu`, which would fail at once if anybody started it.
    pub(super) fn new() -> Self {
        let files = Self { directory: tempfile::tempdir().expect("a temporary directory") };
        // Some runs are another user's.
        fs::set_permissions(files.directory.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
        // A 32-bit program of four bytes of code stands in for hvmloader.
        files.add("hvmloader", include_bytes!("../data/halt.elf"));
        files.add("firmware", &vec![1; 256 << 10]);
        let qemu = files.add("qemu", b"#!/bin/false\n");
        fs::set_permissions(qemu, fs::Permissions::from_mode(0o755)).expect("permissions");
        files
    }

    /// Where a file of this name is, or would be.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// One more file.
    pub(super) fn add(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).expect("permissions");
        path
    }

    /// A `create` that lacks nothing but a Xen.
    pub(super) fn create(&self) -> Vec<String> {
        self.guest(&["create", "--name", "web", "--device-model", &text(&self.path("qemu"))])
    }

    /// A `build` that lacks nothing but a Xen.
    pub(super) fn build(&self) -> Vec<String> {
        self.guest(&["build", "--domid", "7"])
    }

    fn guest(&self, start: &[&str]) -> Vec<String> {
        let kernel = text(&self.path("hvmloader"));
        let firmware = format!("seabios:{}", text(&self.path("firmware")));
        let rest = ["--memory", "256", "--hvmloader", &kernel, "--firmware", &firmware];
        start.iter().chain(&rest).map(|word| (*word).to_owned()).collect()
    }
}

/// A path as text; temporary directories have names that are.
pub(super) fn text(path: &Path) -> String {
    path.to_str().expect("UTF-8").to_owned()
}

/// The same arguments with the value of one flag replaced, or the flag added.
pub(super) fn with(arguments: &[String], flag: &str, value: &str) -> Vec<String> {
    let mut changed = arguments.to_vec();
    match changed.iter().position(|argument| argument == flag) {
        Some(at) => value.clone_into(&mut changed[at + 1]),
        None => changed.extend([flag.to_owned(), value.to_owned()]),
    }
    changed
}

/// Whether this machine is a dom0, where what these tests say of a machine without Xen is not so.
pub(super) fn has_xen(test: &str) -> bool {
    let there = ["/dev/xen/privcmd", "/proc/xen/privcmd"].into_iter().find(|path| Path::new(path).exists());
    if let Some(path) = there {
        skipped(test, &format!("{path} exists, and the test is of a machine without Xen"));
    }
    there.is_some()
}

/// Says that a test was skipped, past the test harness, which keeps what passing tests print to itself.
pub(super) fn skipped(test: &str, why: &str) {
    writeln!(io::stderr(), "skipped {test}: {why}").expect("stderr");
}

/// Copies a program, or a script, to where it is to be executed. Another process does so: a child that another test forks
/// meanwhile would keep a file open that this process writes, and what somebody has open for writing cannot be executed.
pub(super) fn copy_program(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("--").arg(from).arg(to).status().expect("there is cp");
    assert!(copied.success(), "{} to {}", from.display(), to.display());
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).expect("made executable");
}
