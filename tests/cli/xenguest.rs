//! The front door for xenopsd's family, as far as it goes without Xen: every option, and what is wrong with a command line.

use std::fs;
use std::io::Read;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Stdio};

use super::run::{PROGRAM, copy_program};

/// What came out of the helper: the answer on the control descriptor, the rest, and the exit status.
#[derive(Debug, PartialEq)]
struct Answer {
    line: String,
    stdout: String,
    status: Option<i32>,
}

/// Calls the helper as xenopsd does, its answer on a descriptor of its own; by the verb or by a link of its name.
fn call_as(program: &[&str], words: &[&str]) -> Answer {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let other = directory.path().join("stdout");
    let mut child = Command::new("sh")
        .args(["-c", "exec \"$@\" 7>&1 8</dev/null >\"$OTHER\" 2>/dev/null", "sh"])
        .args(program)
        .args(["-controloutfd", "7", "-controlinfd", "8"])
        .args(words)
        .env("OTHER", &other)
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("sh");
    let mut line = String::new();
    child.stdout.take().expect("piped").read_to_string(&mut line).expect("UTF-8");
    let status = child.wait().expect("it ended").code();
    Answer { line, stdout: fs::read_to_string(other).unwrap_or_default(), status }
}

fn call(words: &[&str]) -> Answer {
    call_as(&[PROGRAM, "xenguest"], words)
}

/// Checks that the answer is this line, and that the helper failed as it fails always.
fn refused(words: &[&str], line: &str) {
    let expected = Answer { line: format!("error:{line}\n"), stdout: String::new(), status: Some(1) };
    assert_eq!(call(words), expected, "{words:?}");
}

/// All that `-mode hvm_build` needs.
const HVM: &[&str] = &[
    "-mode",
    "hvm_build",
    "-domid",
    "7",
    "-image",
    "/x",
    "-store_port",
    "1",
    "-console_port",
    "2",
    "-mem_max_mib",
    "64",
    "-mem_start_mib",
    "64",
];

fn without(words: &[&'static str], option: &str) -> Vec<&'static str> {
    let at = words.iter().position(|word| *word == option).expect("it is there");
    [&words[..at], &words[at + 2..]].concat()
}

/// Whether this machine has a Xen: then it answers for itself, and these tests would build guests.
fn has_xen() -> bool {
    let there = Path::new("/proc/xen/privcmd").exists() || Path::new("/dev/xen/privcmd").exists();
    if there {
        eprintln!("skipped: this machine runs under Xen, where tests/dom0 has the rest");
    }
    there
}

#[test]
fn a_wrong_command_line_is_one_line_of_error() {
    refused(&["-nonsense"], "xenguest: invalid command line '-nonsense'");
    refused(&["-f"], "xenguest: invalid command line '-f'");
    refused(&["-domid"], "xenguest: -domid needs a value");
    refused(&["-domid", "seven"], "xenguest: 'seven' is not a valid integer (-domid)");
    refused(&["-mode", "-domid"], "xenguest: unrecognized mode '-domid'");
    refused(&[], "xenguest: no `-mode' option specified");
    refused(&["-mode", "build"], "xenguest: unrecognized mode 'build'");
    refused(&["-mode", "two\nlines"], "xenguest: unrecognized mode 'two lines'");
    refused(&["-mode", "test"], "xenguest: test mode not supported");
    refused(&["-force=1"], "xenguest: -force takes no value, but got '-force=1'");
}

#[test]
fn every_mode_says_what_it_lacks() {
    for option in ["-domid", "-image", "-store_port", "-console_port", "-mem_max_mib", "-mem_start_mib"] {
        refused(&without(HVM, option), &format!("xenguest: missing command line options: {option}"));
    }
    let of = |mode: &'static str, more: &[&'static str]| [HVM, &["-mode", mode], more].concat();
    let missing = |option: &str| format!("xenguest: missing command line options: {option}");
    refused(&of("pvh_build", &[]), &missing("-cmdline"));
    refused(&of("pvh_build", &["-cmdline", ""]), &missing("-features"));
    refused(&of("linux_build", &["-ramdisk", "", "-features", ""]), &missing("-cmdline"));
    refused(&of("linux_build", &["-cmdline", "", "-ramdisk", ""]), &missing("-features"));
    refused(&of("linux_build", &["-cmdline", "", "-features", ""]), &missing("-ramdisk"));
}

/// libxenguest would cut a PV kernel's line without a word, and abort on a module's.
#[test]
fn command_lines_that_would_not_arrive_whole() {
    let [pv, pvh] = [1024, 2048].map(|length| "x".repeat(length));
    let build = |mode: &'static str, lines: &[&str]| -> Vec<String> {
        let words = [HVM, &["-mode", mode, "-features", "", "-ramdisk", "", "-module", "/m"]].concat();
        let lines = lines.iter().flat_map(|line| ["-cmdline", line]);
        words.into_iter().chain(lines).map(str::to_owned).collect()
    };
    let answer = |words: &[String]| call(&words.iter().map(String::as_str).collect::<Vec<_>>()).line;
    for (mode, lines, message) in [
        ("linux_build", vec![pv.as_str()], "1024 bytes is longer than the 1023 that a pv guest's start info holds"),
        ("pvh_build", vec![&pvh], "2048 bytes is longer than the 2047 that Linux keeps of a pvh guest's"),
        ("pvh_build", vec!["", &pv], "1024 bytes is longer than the 1023 that a module of a pvh guest can have"),
    ] {
        assert_eq!(answer(&build(mode, &lines)), format!("error:xenguest: a -cmdline of {message}\n"));
        let shorter: Vec<&str> = lines.iter().map(|line| line.get(1..).unwrap_or_default()).collect();
        let line = answer(&build(mode, &shorter));
        assert!(!line.contains("-cmdline"), "{line}");
    }
}

#[test]
fn numbers_that_cannot_be() {
    for (option, value, words) in [
        ("-domid", "-1", "'-1' is not a valid integer (-domid)"),
        ("-domid", "0", "domain 0 is the one that this runs in (-domid)"),
        ("-domid", "40000", "40000 is no domain (-domid)"),
        ("-store_port", "-1", "'-1' is not a valid integer (-store_port)"),
        ("-store_domid", "40000", "40000 is no domain (-store_domid)"),
        ("-console_domid", "x", "'x' is not a valid integer (-console_domid)"),
        ("-mem_max_mib", "99999999999", "'99999999999' is not a valid integer (-mem_max_mib)"),
        ("-mem_start_mib", "", "'' is not a valid integer (-mem_start_mib)"),
        ("-mem_pnode", "-2", "'-2' is not a valid integer (-mem_pnode)"),
        ("-flags", "-1", "'-1' is not a valid integer (-flags)"),
        (
            "-debuglog",
            "/nowhere/log",
            "-debuglog: log /nowhere/log: cannot be opened: No such file or directory (os error 2)",
        ),
    ] {
        refused(&[HVM, &[option, value]].concat(), &format!("xenguest: {words}"));
    }
    let line = call(&[HVM, &["-pci_passthrough", "0000:00:1f.0,nonsense"]].concat()).line;
    assert!(line.starts_with("error:xenguest: 'nonsense': ") && line.ends_with("(-pci_passthrough)\n"), "{line}");
    let line = call(
        &[HVM, &["-mode", "pvh_build", "-cmdline", "", "-features", "", "-pci_passthrough", "0000:00:1f.0"]].concat(),
    )
    .line;
    assert_eq!(line, "error:xenguest: PCI passthrough is not supported under PVH (-pci_passthrough)\n");
}

#[test]
fn where_there_is_no_xen_the_word_and_the_errno_say_so() {
    if has_xen() {
        return;
    }
    for (mode, more, word) in [
        ("hvm_build", &[][..], "hvm_build"),
        ("pvh_build", &["-cmdline", "", "-features", ""], "hvm_build"),
        ("linux_build", &["-cmdline", "", "-features", "", "-ramdisk", ""], "xc_dom_linux_build"),
    ] {
        let answer = call(&[HVM, &["-mode", mode], more].concat());
        assert!(answer.line.starts_with(&format!("error:{word} 2 connect: xc_interface_open(")), "{answer:?}");
        assert_eq!((answer.line.matches('\n').count(), answer.status), (1, Some(1)), "{answer:?}");
    }
    // With every other option there is, in both spellings.
    let all = [
        "-fake",
        "-fork",
        "--no_incr_generationid",
        "-live",
        "-debug",
        "-vgpu",
        "--force",
        "-fd",
        "3",
        "-dm",
        "qemu",
        "-mem_pnode=0",
        "--flags=0",
        "-module",
        "/m",
        "-pci_passthrough",
        "",
        "-store_domid",
        "0",
        "-console_domid=0",
        "-features",
        "",
        "-cmdline",
        "one",
        "-cmdline",
        "two",
        "-ramdisk",
        "",
        "word",
    ];
    let answer = call(&[HVM, &all].concat());
    assert!(answer.line.starts_with("error:hvm_build 2 connect: "), "{answer:?}");
}

#[test]
fn a_link_of_its_name_is_the_helper() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let link = directory.path().join("xenguest");
    symlink(PROGRAM, &link).expect("linked");
    let link = link.to_str().expect("UTF-8");
    let answer = call_as(&[link], &["-mode", "nothing"]);
    assert_eq!(answer.line, "error:xenguest: unrecognized mode 'nothing'\n");

    for mode in ["listen", "hvm_restore"] {
        let answer = call_as(&[link], &["-mode", mode, "-fd", "5"]);
        assert_eq!(answer.line, "error:xenguest: missing command line options: -domid\n");
    }
    let supports = call_as(&[link], &["-supports", "migration-v2"]);
    assert_eq!((supports.stdout.as_str(), supports.status), ("true\n", Some(0)), "{supports:?}");
    // The original gets the same command line.
    let original = directory.path().join("xenguest.orig");
    let text = directory.path().join("text");
    fs::write(&text, "#!/bin/sh\necho \"$# $*\"\necho from the original >&7\nexit 3\n").expect("written");
    copy_program(&text, &original);
    let named = original.to_str().expect("UTF-8");
    for mode in ["listen", "save", "hvm_save", "restore", "hvm_restore", "resume_slow"] {
        let answer = call_as(&[link], &["-mode", mode, "-fd", "5", "--fallback", named]);
        let stdout = format!("8 -controloutfd 7 -controlinfd 8 -mode {mode} -fd 5\n");
        assert_eq!(answer, Answer { line: "from the original\n".to_owned(), stdout, status: Some(3) });
    }
    let supports = call_as(&[link], &["-supports", "migration-v2", "--fallback", named]);
    assert_eq!(supports.stdout, "6 -controloutfd 7 -controlinfd 8 -supports migration-v2\n");
    let answer = call(&["-mode", "save", "--fallback", "/nowhere/xenguest"]);
    assert!(
        answer.line.starts_with("error:xenguest: cannot start the original helper /nowhere/xenguest: "),
        "{answer:?}"
    );
}

#[test]
fn descriptors_that_cannot_be() {
    let run = |line: &str| {
        let output = Command::new("sh").args(["-c", line, "sh", PROGRAM]).output().expect("sh");
        (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
    };
    let (line, status) = run("\"$1\" xenguest -mode test -controloutfd 77 2>/dev/null");
    assert!(
        line.starts_with("error:xenguest: -controloutfd: descriptor 77 is not open") && status == Some(1),
        "{line}"
    );
    let (line, _) = run("\"$1\" xenguest -mode test -controloutfd 7 7</dev/null 2>/dev/null");
    assert_eq!(line, "error:xenguest: -controloutfd: descriptor 7 is open for reading alone\n");
    let (line, _) = run("\"$1\" xenguest -mode hvm_build -controlinfd 78 2>/dev/null");
    assert!(line.starts_with("error:xenguest: -controlinfd: descriptor 78 is not open"), "{line}");
    // Without a reader for the answer, the exit status still shows the failure.
    let (_, status) = run("\"$1\" xenguest -mode test -controloutfd 7 7>/dev/full 2>/dev/null");
    assert_eq!(status, Some(1));
    // Without a descriptor it is standard output's: for shells.
    assert_eq!(
        run("\"$1\" xenguest -mode test 2>/dev/null"),
        ("error:xenguest: test mode not supported\n".to_owned(), Some(1))
    );
}

#[test]
fn the_debug_log_has_the_command_line_and_the_end() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let log = directory.path().join("log");
    let log_text = log.to_str().expect("UTF-8");
    for _ in 0..2 {
        call(&[&without(HVM, "-domid")[..], &["-debuglog", log_text]].concat());
    }
    let text = fs::read_to_string(&log).expect("there");
    assert_eq!(
        text.matches("Command line: -controloutfd 7 -controlinfd 8 -mode hvm_build").count(),
        2,
        "it is appended to: {text}"
    );
    let last = text.lines().last().expect("a line");
    assert!(last.ends_with("error:xenguest: missing command line options: -domid"), "{text}");
}
