//! Where the output goes: readers that leave, disks that are full, terminals and their colours.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::process::{Command, Stdio};

use super::run::{Files, PROGRAM, Ran, command, line, skipped};

/// Runs with a closed reader on standard output or error: the very first write fails.
fn unread(arguments: &str, stderr_too: bool) -> (i32, String) {
    let broken = || {
        let (reader, writer) = io::pipe().expect("a pipe");
        drop(reader);
        Stdio::from(writer)
    };
    let mut command = command(&arguments.split_whitespace().collect::<Vec<_>>());
    command.stdin(Stdio::null()).stdout(broken()).stderr(if stderr_too { broken() } else { Stdio::piped() });
    let mut child = command.spawn().expect("started");
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said).expect("read");
    }
    (child.wait().expect("ended").code().expect("an exit status and no signal"), said)
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    for arguments in ["plan --memory 256", "plan --memory 256 --json", "features", "features --json", "--help", "-V"] {
        assert_eq!(unread(arguments, false), (0, String::new()), "{arguments}");
        assert_eq!(unread(arguments, true).0, 0, "{arguments}");
    }
}

#[test]
fn an_error_keeps_its_exit_code_whoever_reads_it() {
    for (arguments, exit) in [("plan --memory 0 --json", 3), ("plan --memory 4GB --json", 2), ("plan --json", 2)] {
        let (status, said) = unread(arguments, false);
        assert_eq!(status, exit, "{arguments}");
        assert_eq!(said, line(arguments).stderr, "the message is there all the same, and no other");
        assert_eq!(unread(arguments, true).0, exit, "{arguments}");
    }
}

#[test]
fn the_first_line_is_enough_for_head() {
    let script = r#""$0" plan --memory 1GiB | head -n 1"#;
    for _ in 0..20 {
        let ran = Ran::of(Command::new("sh").args(["-c", script, PROGRAM]).env_remove("RUST_LOG"));
        assert_eq!(ran.stdout, "HVM guest of 1024 MiB with 1 vCPU\n");
        assert_eq!(ran.stderr, "");
    }
}

#[test]
fn a_full_disk_is_an_error() {
    for arguments in ["plan --memory 256", "plan --memory 256 --json", "features"] {
        let full = OpenOptions::new().write(true).open("/dev/full").expect("Linux has it");
        let mut command = command(&arguments.split_whitespace().collect::<Vec<_>>());
        let output = command.stdout(full).output().expect("ran");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("dombuild: cannot write to standard output: No space left"), "{said}");
        assert!(!said.contains("panicked"), "{said}");
    }
}

#[test]
fn closed_descriptors_do_not_matter() {
    for (script, exit) in [
        (r#"exec "$0" plan --memory 256 >&-"#, 0),
        (r#"exec "$0" plan --memory 256 --json <&- 2>&-"#, 0),
        (r#"exec "$0" plan --memory 0 --json >&- 2>&-"#, 3),
        (r#"exec "$0" plan >&- 2>&-"#, 2),
    ] {
        let ran = Ran::of(Command::new("sh").args(["-c", script, PROGRAM]).env_remove("RUST_LOG"));
        assert_eq!((ran.exit, ran.stderr.as_str()), (exit, ""), "{script}");
    }
}

#[test]
fn nothing_is_coloured_but_usage_on_a_terminal() {
    let piped = line("plan --memory 4GB");
    assert!(!piped.stderr.contains('\x1b'), "{:?}", piped.stderr);

    // script(1) gives a command a terminal, and what it shows there comes out of script.
    let on_terminal = |arguments: &str, no_color: bool| {
        let mut script = Command::new("script");
        script.args(["-qec", &format!(r#""$DOMBUILD" {arguments}"#), "/dev/null"]).stdin(Stdio::null());
        script.env("DOMBUILD", PROGRAM).env("TERM", "xterm").env("SHELL", "/bin/sh");
        for variable in ["RUST_LOG", "NO_COLOR", "CLICOLOR", "CLICOLOR_FORCE"] {
            script.env_remove(variable);
        }
        if no_color {
            script.env("NO_COLOR", "1");
        }
        script.output().map(|output| (output.status.code(), String::from_utf8_lossy(&output.stdout).into_owned()))
    };
    let coloured = match on_terminal("plan --memory 4GB", false) {
        Ok(coloured) => coloured,
        Err(error) => return skipped("nothing_is_coloured_but_usage_on_a_terminal", &format!("script(1): {error}")),
    };
    assert_eq!(coloured.0, Some(2), "{}", coloured.1);
    assert!(coloured.1.contains("\x1b["), "this terminal would show colours: {:?}", coloured.1);
    let plain = on_terminal("plan --memory 4GB", true).expect("as before");
    assert!(plain.1.contains("not a unit") && !plain.1.contains("\x1b["), "{:?}", plain.1);
    let picture = on_terminal("plan --memory 256", false).expect("as before");
    assert_eq!(picture.0, Some(0));
    assert_eq!(picture.1.replace("\r\n", "\n"), line("plan --memory 256").stdout, "the picture is the same everywhere");
}

/// What is asked for twice is answered twice the same: nothing in a plan or a refusal depends on time or chance.
#[test]
fn the_same_question_has_the_same_answer() {
    let files = Files::new();
    for arguments in [vec!["plan", "--memory", "5GiB"], vec!["plan", "--memory", "5GiB", "--json"], vec!["features"]] {
        let (one, two) = (Ran::of(&mut command(&arguments)), Ran::of(&mut command(&arguments)));
        assert_eq!((one.exit, one.stdout, one.stderr), (two.exit, two.stdout, two.stderr));
    }
    let mut refused = files.create();
    refused.extend(["--uuid", "00000000-0000-0000-0000-000000000000"].map(str::to_owned));
    assert_eq!(Ran::of(&mut command(&refused)).stderr, Ran::of(&mut command(&refused)).stderr);
}
