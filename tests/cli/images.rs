//! Kernels of guests' owners, good and hostile, through the real child; and what that child can do while it looks at one.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dombuild::memory::Kind;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::run::{Files, Ran, command, has_xen, skipped, text};

#[path = "../data/kernels.rs"]
mod kernels;
#[path = "../data/odd_kernels.rs"]
mod odd_kernels;
#[path = "../data/orphans.rs"]
mod orphans;

use kernels::{CODE, NOTES, bzimage, changed, good, good_forms, hostile, note, sized, zstd_zeros};

/// A `create` of such a guest, with 64 MiB.
fn create(kind: &str, kernel: &std::path::Path) -> Ran {
    let words = ["create", "--json", "--name", "web", "--memory", "64", "--kind", kind, "--kernel", &text(kernel)];
    Ran::of(&mut command(&words))
}

/// Makes sure that it is refused as a kernel, and gives back what was said.
fn refused(name: &str, kind: &str, kernel: &std::path::Path) -> String {
    let ran = create(kind, kernel);
    assert_eq!(ran.exit, 3, "{name} as {kind}: {ran:?}");
    let error = ran.error();
    assert_eq!((&error["code"], &error["stage"]), (&"bad-kernel".into(), &"check-input".into()), "{name}: {error}");
    let message = error["message"].as_str().expect("text").to_owned();
    assert!(message.contains(&text(kernel)), "{name}: {message}");
    assert!(!message.contains("panicked"), "{name}: {message}");
    assert!(!message.chars().any(char::is_control), "{name}: {message:?}");
    message
}

#[test]
fn good_kernels_of_every_form_get_as_far_as_xen() {
    if has_xen("good_kernels_of_every_form_get_as_far_as_xen") {
        return;
    }
    let files = Files::new();
    let both: &[Kind] = &[Kind::Pvh, Kind::Pv];
    let forms = good_forms().into_iter().chain(odd_kernels::odd_forms()).map(|(name, form)| (name, form, both));
    for (name, form, kinds) in forms.chain(odd_kernels::tolerated()) {
        let path = files.add(name, &form);
        for kind in kinds.iter().map(Kind::to_string) {
            let kind = kind.as_str();
            let error = create(kind, &path).error();
            assert!(["no-xen", "permission"].contains(&error["code"].as_str().expect("text")), "{name}: {error}");
        }
    }
}

#[test]
fn hostile_kernels_are_refused() {
    let files = Files::new();
    let all = hostile();
    let mut names: Vec<_> = all.iter().map(|(name, _, _)| name).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), all.len(), "each has its own name");
    for (name, file, words) in &all {
        let path = files.add("kernel", file);
        for kind in kernels::kinds_that_refuse(name) {
            let message = refused(name, &kind.to_string(), &path);
            assert!(message.contains(words), "{name}: {words:?} is missing: {message}");
            // None of them makes the child do what it may not.
            assert!(!message.contains("signal"), "{name}: {message}");
        }
    }
    println!("{} images refused", all.len());
}

/// A kernel that lies where no PVH guest has memory: more of it would not help.
#[test]
fn kernels_that_are_linked_too_high() {
    let files = Files::new();
    let at = |address: u64| {
        let notes = note(18, &address.to_le_bytes());
        let header = |kind, place, address, size: usize| kernels::header(kind, 5, place, address, size, size as u64);
        kernels::elf_of(&[header(1, CODE, address, 0x40), header(4, NOTES, 0, notes.len())], &notes)
    };
    for (address, words) in [
        (
            0xfd00_0000,
            "0xfd000000 to 0xfd000040, where a pvh guest has no memory, whatever its size: low memory ends at 0xfc000000",
        ),
        (0x1_0000_0000, "entry point at 0x0"),
        (0xfbff_f000, "give it more than 4032 MiB"),
        (0x10_0200, "begins at 0x100200, which is no multiple of 4096"),
    ] {
        let message = refused("high", "pvh", &files.add("kernel", &at(address)));
        assert!(message.contains(words), "{address:#x}: {message}");
    }
}

/// In the place of hvmloader, a file of 64 bits starts only with a PVH entry point; the machine of one of 32 bits does not matter.
#[test]
fn programs_in_hvmloaders_place() {
    const HALT: &[u8] = include_bytes!("../data/halt.elf");
    let files = Files::new();
    // The type of the good kernel's note segment is another, and it has no sections.
    let without_notes = kernels::field(2, 0, 7);
    let firmware = text(&files.add("firmware", &[1; 0x1_0000]));
    let create = |kernel: &[u8]| {
        let path = text(&files.add("kernel", kernel));
        let words = ["--device-model", "none", "--firmware", &format!("seabios:{firmware}"), "--hvmloader", &path];
        Ran::of(&mut command(&[&["create", "--json", "--name", "web", "--memory", "64"], &words[..]].concat())).error()
    };
    let error = create(&without_notes);
    let message = error["message"].as_str().expect("text");
    assert_eq!(error["code"], "bad-kernel", "{error}");
    assert!(message.contains("neither a 32-bit x86 program nor one with a PVH entry point"), "{message}");
    if has_xen("programs_in_hvmloaders_place") {
        return;
    }
    let mut halt = HALT.to_vec();
    halt[18] = 62;
    for (name, program) in [("x86-64", &halt), ("pvh", &good())] {
        let error = create(program);
        assert!(["no-xen", "permission"].contains(&error["code"].as_str().expect("text")), "{name}: {error}");
    }
}

/// What is wrong for a PV guest alone, or for a PVH guest alone.
#[test]
fn notes_that_do_not_fit_the_kind() {
    let files = Files::new();
    // The order of kernels::notes: 16 bytes of header and name before each value.
    let with = |kind: u32, value: &[u8]| {
        let notes = [kernels::notes(), note(kind, value)].concat();
        let length = notes.len() as u64;
        let header = kernels::header(4, 4, NOTES, 0, notes.len(), length);
        let mut file = changed(kernels::PROGRAM_HEADERS + 2 * 56, &header);
        file[NOTES..NOTES + notes.len()].copy_from_slice(&notes);
        file
    };
    let number = |kind, value: u64| with(kind, &value.to_le_bytes());
    for (name, file, words) in [
        ("loader", with(8, b"own\0"), None),
        ("version", with(5, b"xen-2.0\0"), Some("another Xen")),
        ("entry-physical", number(1, 0x10_0000), Some("entry point")),
        ("entry-in-bss", number(1, 0xffff_ffff_8010_0800), None),
        ("base-crooked", number(3, 0xffff_ffff_8000_0001), Some("VIRT_BASE")),
        ("base-top", number(3, 0xffff_ffff_ffff_f000), Some("VIRT_BASE")),
        ("base-0", number(3, 0), Some("entry point")),
        ("offset-beyond-base", number(4, u64::MAX - 1), Some("PADDR_OFFSET")),
        ("offset-of-all-ones", number(4, u64::MAX), None),
        ("offset-beyond-kernel", number(4, 0x20_0000), Some("PADDR_OFFSET")),
        ("hypercalls-outside", number(2, 0xffff_ffff_8400_0000), Some("hypercall page")),
        ("hypercalls-behind", number(2, 0xffff_ffff_8030_0000), None),
        ("hypercalls-crooked", number(2, 0xffff_ffff_8010_0010), None),
        ("hypercalls-0", number(2, 0), Some("hypercall page")),
        ("frames-inside", number(15, 0xffff_ffff_8010_1000), Some("table of its frames")),
    ] {
        let path = files.add(name, &file);
        if let Some(words) = words {
            let message = refused(name, "pv", &path);
            assert!(message.contains(words), "{name}: {message}");
        } else if !has_xen("notes_that_do_not_fit_the_kind") {
            assert_ne!(create("pv", &path).error()["code"], "bad-kernel", "{name}");
        }
    }
    // The number of a note is at its third word.
    let end = NOTES + kernels::notes().len();
    let pvh_only = files.add("no-pvh", &changed(end - 16, &99u32.to_le_bytes()));
    assert!(refused("no-pvh", "pvh", &pvh_only).contains("XEN_ELFNOTE_PHYS32_ENTRY"));
}

/// A good kernel with a few bytes changed is refused, or starts; nothing else happens to it.
#[test]
fn changed_kernels_are_refused_or_good() {
    if has_xen("changed_kernels_are_refused_or_good") {
        return;
    }
    let files = Files::new();
    let forms = good_forms();
    let path = files.path("kernel");
    let change =
        (0..forms.len(), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..6));
    let mut counts = BTreeMap::new();
    let counted = std::cell::RefCell::new(&mut counts);
    TestRunner::new(Config { cases: 400, failure_persistence: None, ..Config::default() })
        .run(&change, |(form, changes)| {
            let (name, mut file) = forms[form].clone();
            for (at, value, early) in changes {
                // Headers are at the front.
                let room = if early { file.len().min(0x400) } else { file.len() };
                file[at.index(room)] = value;
            }
            fs::write(&path, &file).expect("written");
            let ran = create("pvh", &path);
            let error = ran.error();
            let code = error["code"].as_str().expect("text").to_owned();
            prop_assert!(["bad-kernel", "no-xen", "permission"].contains(&code.as_str()), "{name}: {error}");
            let message = error["message"].as_str().expect("text");
            prop_assert!(!message.contains("signal") && !message.contains("panicked"), "{name}: {message}");
            *counted.borrow_mut().entry(code).or_insert(0) += 1;
            Ok(())
        })
        .expect("no surprise");
    println!("changed kernels: {counts:?}");
}

#[test]
fn sizes_have_limits() {
    let files = Files::new();
    let huge = fs::File::create(files.path("huge")).expect("created");
    huge.set_len((512 << 20) + 1).expect("a sparse file");
    assert!(refused("huge", "pvh", &files.path("huge")).contains("536870913 bytes; more than 536870912"));
    // All that may be: it is looked at, and is none.
    huge.set_len(512 << 20).expect("a sparse file");
    assert!(refused("huge", "pvh", &files.path("huge")).contains("neither an ELF file nor a bzImage"));
    let path = files.add("over", &bzimage(&sized(zstd_zeros(1), (512 << 20) + 1)));
    assert!(
        refused("over", "pvh", &path).contains("unpacks to 536870913 bytes, as it says itself; more than 536870912")
    );
    nix::unistd::mkfifo(&files.path("pipe"), nix::sys::stat::Mode::S_IRUSR).expect("a pipe");
    assert!(refused("pipe", "pvh", &files.path("pipe")).contains("not a regular file"));
}

/// The verb is not for users: it says so, does nothing, and is in no help.
#[test]
fn the_childs_verb_is_hidden() {
    let ran = Ran::of(command(&["unpack-kernel", "--help"]).stdin(Stdio::null()));
    assert_eq!((ran.exit, ran.stdout.as_str()), (1, ""));
    assert!(ran.stderr.contains("for dombuild itself"), "{}", ran.stderr);
    assert!(!super::run::line("--help").stdout.contains("unpack"));
}

/// What Linux shows of a process in one of its files.
fn shown(pid: u32, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap_or_default()
}

fn line_of(text: &str, name: &str) -> String {
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {text}"));
    line.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The child of a process, once its last wall stands; it is stopped then.
fn stopped_child(parent: u32) -> u32 {
    let end = Instant::now() + Duration::from_secs(60);
    while Instant::now() < end {
        let children = fs::read_dir("/proc").expect("it is there").filter_map(|entry| {
            let pid: u32 = entry.ok()?.file_name().to_str()?.parse().ok()?;
            let status = shown(pid, "status");
            let ours = status.lines().any(|line| line.split_whitespace().eq(["PPid:", &parent.to_string()]));
            (ours && line_of(&status, "Seccomp:") == "2").then_some(pid)
        });
        if let Some(child) = children.last() {
            kill(process(child), Signal::SIGSTOP).expect("it runs");
            return child;
        }
        thread::sleep(Duration::from_millis(1));
    }
    panic!("the child was not seen");
}

fn process(pid: u32) -> Pid {
    Pid::from_raw(i32::try_from(pid).expect("a process number"))
}

#[test]
fn the_child_has_nothing_but_its_three_descriptors() {
    const TEST: &str = "the_child_has_nothing_but_its_three_descriptors";
    let files = Files::new();
    // Zeros keep it busy for a while.
    let kernel = files.add("kernel", &bzimage(&sized(zstd_zeros(1 << 12), 512 << 20)));
    let words = ["create", "--name", "web", "--memory", "64", "--kind", "pvh", "--kernel", &text(&kernel)];
    let mut run = command(&words);
    run.env("RUST_LOG", "dombuild=debug").env("LD_DEBUG", "unused").stdout(Stdio::piped()).stderr(Stdio::piped());
    let run = run.spawn().expect("it starts");
    let child = stopped_child(run.id());

    let status = shown(child, "status");
    for set in ["CapInh:", "CapPrm:", "CapEff:", "CapAmb:"] {
        assert_eq!(line_of(&status, set), "0000000000000000", "{set}");
    }
    assert_eq!(line_of(&status, "NoNewPrivs:"), "1");
    assert_eq!(line_of(&status, "Seccomp:"), "2");
    assert_eq!(line_of(&status, "Threads:"), "1");
    assert_eq!(shown(child, "oom_score_adj").trim(), "1000");
    let limits = shown(child, "limits");
    for (name, limit) in [
        ("Max cpu time", "60 61 seconds"),
        ("Max open files", "0 0 files"),
        ("Max processes", "0 0 processes"),
        ("Max core file size", "0 0 bytes"),
        ("Max locked memory", "0 0 bytes"),
        ("Max file size", "537919488 537919488 bytes"),
    ] {
        assert_eq!(line_of(&limits, name), limit, "{name}");
    }
    let memory: u64 =
        line_of(&limits, "Max address space").split(' ').next().expect("a word").parse().expect("a number");
    assert!(
        memory <= (320 << 20) + (512 << 20) + (1 << 20),
        "{memory}: 320 MiB for itself, the file, and what may come out"
    );
    if geteuid().is_root() {
        assert_eq!(line_of(&status, "Uid:"), "65534 65534 65534 65534");
        assert_eq!(line_of(&status, "Gid:"), "65534 65534 65534 65534");
        assert_eq!(line_of(&status, "Groups:"), "");
        assert_eq!(line_of(&status, "CapBnd:"), "0000000000000000");
        let mut open: Vec<(String, PathBuf)> = fs::read_dir(format!("/proc/{child}/fd"))
            .expect("root may")
            .map(|entry| entry.expect("an entry"))
            .map(|entry| {
                (entry.file_name().into_string().expect("a number"), fs::read_link(entry.path()).expect("a link"))
            })
            .collect();
        open.sort();
        let names: Vec<_> = open.iter().map(|(number, _)| number.as_str()).collect();
        assert_eq!(names, ["0", "1", "2"], "{open:?}");
        // A copy, which is kept beside what comes out of it.
        assert!(open[0].1.starts_with("/memfd:packed kernel (deleted)"), "{open:?}");
        assert!(open[1].1.starts_with("/memfd:kernel (deleted)"), "{open:?}");
        assert!(text(&open[2].1).starts_with("pipe:"), "{open:?}");
        assert_eq!(shown(child, "environ"), "", "no variable reaches it");
        if Command::new("unshare").args(["-mniu", "true"]).status().is_ok_and(|status| status.success()) {
            for space in ["mnt", "net", "ipc", "uts"] {
                let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{space}")).expect("a link");
                assert_ne!(of(&child.to_string()), of("self"), "{space}");
            }
            let root = fs::read_dir(format!("/proc/{child}/root/")).expect("root may").count();
            assert_eq!(root, 0, "its file system is empty");
            assert_eq!(shown(child, "net/dev").lines().skip(2).filter(|line| !line.contains("lo:")).count(), 0);
        } else {
            skipped(TEST, "namespaces: this machine refuses them");
        }
    } else {
        skipped(TEST, "user, descriptors and namespaces: root alone sees them");
    }
    kill(process(child), Signal::SIGCONT).expect("it is there");
    let output = run.wait_with_output().expect("it ends");
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{stderr}");
    assert!(stderr.contains("no ELF file"), "{stderr}");
}

/// Whatever ends the child, it is an error like any other; and the child does not outlive the run.
#[test]
fn neither_outlives_the_other() {
    let files = Files::new();
    let kernel = files.add("kernel", &bzimage(&sized(zstd_zeros(1 << 12), 512 << 20)));
    let words = ["create", "--name", "web", "--memory", "64", "--kind", "pvh", "--kernel", &text(&kernel)];
    let start = || command(&words).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    for (signal, words) in [
        (Signal::SIGKILL, "killed by signal 9"),
        (Signal::SIGSYS, "killed by signal 31 (seccomp)"),
        (Signal::SIGXCPU, "took longer than 60 s of CPU time"),
        (Signal::SIGTERM, "killed by signal 15"),
    ] {
        let run = start();
        let child = stopped_child(run.id());
        kill(process(child), signal).expect("it is there");
        kill(process(child), Signal::SIGCONT).expect("it is there");
        let output = run.wait_with_output().expect("it ends");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{stderr}");
        assert!(stderr.contains(words), "{stderr}");
    }
    let mut run = start();
    let child = stopped_child(run.id());
    run.kill().expect("it runs");
    run.wait().expect("it ends");
    let end = Instant::now() + Duration::from_secs(60);
    while !["", "Z (zombie)", "X (dead)"].contains(&state(child).as_str()) {
        assert!(Instant::now() < end, "the child is still there: {}", state(child));
        thread::sleep(Duration::from_millis(5));
    }
}

/// Whenever the run is killed: before there is a child, in the first moments of the child, and while it unpacks.
#[test]
fn no_child_outlives_a_killed_run() {
    let files = Files::new();
    let kernel = files.add("kernel", &bzimage(&sized(zstd_zeros(1 << 12), 512 << 20)));
    let kernel = text(&kernel);
    let words = ["create", "--name", "web", "--memory", "64", "--kind", "pvh", "--kernel", &kernel];
    let mut span = Duration::from_millis(20);
    let kill = |count, span| orphans::kill_parents(super::run::PROGRAM, &words, count, Duration::ZERO..span);
    let (mut runs, mut orphans) = (200, kill(200, span));
    // A machine that is busy takes longer to come to a child.
    while orphans < 50 {
        span *= 2;
        assert!(span < Duration::from_secs(2), "of {runs} runs {orphans} had a child when they were killed");
        (runs, orphans) = (runs + 50, orphans + kill(50, span));
    }
    println!("{orphans} of {runs} killed runs had a child, which died too");
}

fn state(pid: u32) -> String {
    let status = shown(pid, "status");
    if status.is_empty() { String::new() } else { line_of(&status, "State:") }
}

/// Nobody has to guess how the good one is made.
#[test]
fn the_good_kernel_is_one_that_readelf_takes() {
    let files = Files::new();
    let path = files.add("kernel", &good());
    let Ok(output) = Command::new("readelf").args(["-lW", &text(&path)]).output() else {
        skipped("the_good_kernel_is_one_that_readelf_takes", "there is no readelf");
        return;
    };
    let shown = String::from_utf8_lossy(&output.stdout);
    assert_eq!(shown.matches("LOAD").count(), 2, "{shown}");
    assert!(output.stderr.is_empty(), "{}", String::from_utf8_lossy(&output.stderr));
}
