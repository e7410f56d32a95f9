//! The examples of docs/toolstack.md do what the page says.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Test;
use super::support::wait_for;

pub(crate) const TESTS: &[Test] =
    &[("documentation_examples", examples), ("documentation_unit_of_systemd", unit_of_systemd)];

const PAGE: &str = include_str!("../../docs/toolstack.md");

/// The blocks of this language, each with its lines.
fn blocks(language: &str) -> Vec<Vec<&'static str>> {
    let mut found = Vec::new();
    let mut lines = PAGE.lines();
    while let Some(line) = lines.next() {
        if let Some(of) = line.strip_prefix("```") {
            let block: Vec<_> = lines.by_ref().take_while(|line| *line != "```").collect();
            if of == language {
                found.push(block);
            }
        }
    }
    found
}

/// Whether a line is what the page says: `…` stands for anything.
fn fits(pattern: &str, line: &str) -> bool {
    let mut rest = line;
    let parts: Vec<&str> = pattern.split('…').collect();
    for (index, part) in parts.iter().enumerate() {
        let found = if index == 0 {
            rest.starts_with(part).then_some(0)
        } else if index + 1 == parts.len() {
            rest.ends_with(part).then(|| rest.len() - part.len())
        } else {
            rest.find(part)
        };
        let Some(at) = found else { return false };
        rest = &rest[at + part.len()..];
    }
    parts.len() > 1 || rest.is_empty()
}

fn run(directory: &Path, command: &str) -> String {
    let output = Command::new("sh").args(["-c", &format!("({command}) 2>&1")]).current_dir(directory).output();
    String::from_utf8_lossy(&output.expect("sh").stdout).into_owned()
}

fn examples() {
    let directory = tempfile::tempdir().expect("a directory");
    let scripts = blocks("sh");
    assert_eq!(scripts.len(), 1, "the script");
    let script = directory.path().join("start-guest");
    fs::write(&script, scripts[0].join("\n") + "\n").expect("written");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("made executable");
    let mut commands = 0;
    for block in blocks("console") {
        let mut lines = block.into_iter().peekable();
        while let Some(line) = lines.next() {
            let command = line.strip_prefix("# ").unwrap_or_else(|| panic!("{line:?} is no command"));
            let mut expected = Vec::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with("# ")) {
                expected.push(line);
            }
            let printed = run(directory.path(), command);
            // A helper's error also has a text form.
            let got: Vec<&str> = printed.lines().filter(|line| !line.starts_with("dombuild: error:")).collect();
            let same = if expected.last() == Some(&"…") {
                got.iter().zip(&expected[..expected.len() - 1]).all(|(line, pattern)| fits(pattern, line))
                    && got.len() >= expected.len() - 1
            } else {
                got.len() == expected.len() && got.iter().zip(&expected).all(|(line, pattern)| fits(pattern, line))
            };
            assert!(same, "{command}\nprinted:\n{printed}the page says:\n{}", expected.join("\n"));
            commands += 1;
        }
    }
    assert!(commands > 0, "the page has no example");
    println!("{commands} examples of docs/toolstack.md do what it says");
}

/// Its command line stays as long as the guest, and ends both when it is asked to.
fn unit_of_systemd() {
    let lines: Vec<&str> = blocks("text").concat();
    let value = |name: &str| lines.iter().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}"));
    let words: Vec<String> = value("ExecStart=").split(' ').map(|word| word.replace("%i", "t")).collect();
    assert_eq!(words[0], "/usr/local/sbin/dombuild");
    let mut service = Command::new("dombuild").args(&words[1..]).spawn().expect("it starts");
    wait_for("the guest runs", 60, || {
        super::support::shell("xl list").lines().any(|line| line.starts_with("t ") && !line.contains("--p"))
    });
    kill(Pid::from_raw(i32::try_from(service.id()).expect("a pid")), Signal::SIGTERM).expect("signalled");
    let status = service.wait().expect("it ended").code();
    assert_eq!(status.map(|code| code.to_string()).as_deref(), Some(value("SuccessExitStatus=")));
}
