//! Whatever ends in the middle of a migration, the guest runs exactly once, or stands still at its source and says so.

use std::fs;
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Instant;

use dombuild::xen::ShutdownReason;
use nix::fcntl::{FcntlArg, fcntl};
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, close};
use serde_json::json;

use super::Test;
use super::migrate::receiver;
use super::sample::{Random, count};
use super::save_restore::{By, assert_runs, info};
use super::support::{DOMBUILD, Ran, create, dombuild, run, start_silently, wait_for};

pub(crate) const TESTS: &[Test] =
    &[("migrate_connections_that_are_cut", cuts), ("walk_migrate_kills_of_either_side", kills)];

/// The last word of the source.
const GO: &[u8] = b"domain is yours, you are cleared to unpause\0";

/// Where the relay cuts the connection.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cut {
    Never,
    /// After so many bytes of the source.
    Source(u64),
    /// Before the word by which the guest may start.
    Word,
    /// After so many bytes of the receiver.
    Receiver(u64),
}

/// Copies until the end, or until `most` bytes are copied; returns how many were.
fn relay(mut from: impl Read, mut to: impl Write, most: u64, keep_word: bool) -> u64 {
    let (mut copied, mut buffer) = (0, vec![0; 64 << 10]);
    loop {
        let room = usize::try_from(most - copied).unwrap_or(usize::MAX).min(buffer.len());
        let length = match from.read(&mut buffer[..room]) {
            Ok(length) if length > 0 => length,
            _ => return copied,
        };
        // It is sent alone, because the source waits before it.
        if keep_word && buffer[..length] == *GO {
            return copied;
        }
        if to.write_all(&buffer[..length]).is_err() {
            return copied;
        }
        copied += length as u64;
    }
}

/// The flag by which the source asks the other side when the last answer is lost.
const ASK: [&str; 2] = ["--ask", "dombuild migrate-receive"];

/// Migrates the guest through a relay: what the source and the receiver came to, and the bytes that the source has sent.
fn migrate_through(cut: Cut, flags: &[&str]) -> (Ran, Ran, u64) {
    let mut there = Command::new(DOMBUILD)
        .args(["--json", "migrate-receive"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let number = fcntl(&theirs, FcntlArg::F_DUPFD(20)).expect("a descriptor that is handed on");
    let here = Command::new(DOMBUILD)
        .args(["--json", "migrate", "t", "--fd", &number.to_string()])
        .args(flags)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(theirs);
    close(number).expect("closed");
    let (input, output) = (there.stdin.take().expect("piped"), there.stdout.take().expect("piped"));
    let sent = thread::scope(|scope| {
        let sent = scope.spawn(|| {
            let bytes = if let Cut::Source(bytes) = cut { bytes } else { u64::MAX };
            let sent = relay(&ours, input, bytes, cut == Cut::Word);
            if cut != Cut::Never {
                let _ = ours.shutdown(Shutdown::Both);
            }
            sent
        });
        let bytes = if let Cut::Receiver(bytes) = cut { bytes } else { u64::MAX };
        relay(output, &ours, bytes, false);
        let _ = ours.shutdown(Shutdown::Both);
        sent.join().expect("it ends")
    });
    let there = Ran::new(&there.wait_with_output().expect("it ends"));
    (Ran::new(&here.wait_with_output().expect("it ends")), there, sent)
}

fn is_there(name: &str) -> bool {
    run("xl", &["domid", name]).status == Some(0)
}

/// Settles what a person would settle, and checks that the guest runs once. Returns whether there was something to settle.
fn settle(undecided: bool, what: &str) -> bool {
    let away = "t--migratedaway";
    if undecided {
        assert_eq!(info(away).shutdown, Some(ShutdownReason::Suspend), "{what}");
        let settled = if is_there("t") { ["destroy", away] } else { ["resume", away] };
        dombuild(&settled).success();
    }
    dombuild(&["cleanup", "--apply"]).success();
    for gone in [away, "t--incoming"] {
        assert!(!is_there(gone), "{what}: {gone}");
    }
    assert_eq!(dombuild(&["cleanup"]).success().json(), json!([]), "{what}");
    assert_runs("t");
    undecided
}

/// A guest that lives for a minute: SeaBIOS starts again then, because it finds nothing to boot.
fn fresh() {
    if is_there("t") {
        dombuild(&["destroy", "t"]).success();
    }
    create("t", &["--memory", "64", "--device-model", "none"]);
}

fn cuts() {
    fresh();
    let (here, there, length) = migrate_through(Cut::Never, &[]);
    here.success();
    there.success();
    settle(false, "no cut");
    let mut random = Random::new("cuts");
    let mut cuts = vec![Cut::Word];
    // Within each of the receiver's messages, and behind them: 54, 34 and 40 bytes.
    cuts.extend([0, 20, 54, 70, 88, 100, 127].map(Cut::Receiver));
    for _ in 0..count(3, 200) {
        // The first bytes are the configuration, and the last ones are QEMU's or the word.
        let most = if random.permille() < 300 { 4000 } else { length };
        cuts.push(Cut::Source(random.below(most)));
    }
    let mut undecided = 0;
    for cut in cuts {
        fresh();
        let before = info("t").domid;
        let (here, there, _) = migrate_through(cut, &[]);
        let what = format!("{cut:?}: {here:?} {there:?}");
        let open = here.status == Some(7);
        if !open && here.status != Some(0) {
            assert_eq!(here.status, Some(1), "{what}");
            assert!(there.status != Some(0), "{what}");
            assert_eq!(info("t").domid, before, "{what}");
        }
        undecided += u32::from(settle(open, &what));
        // Before the word, nothing is open.
        let may_be_open =
            matches!(cut, Cut::Word | Cut::Receiver(88..)) || matches!(cut, Cut::Source(bytes) if bytes + 44 > length);
        assert!(may_be_open || !open, "{what}");
    }
    println!("{undecided} cuts left the end open");
    assert!(undecided > 0);
    // A source that can ask knows: it does not run there, or it does.
    // Behind its message that it has the guest, the word may come through or not.
    for (cut, possible) in [(Cut::Word, &[1][..]), (Cut::Receiver(88), &[0, 1]), (Cut::Receiver(127), &[0])] {
        fresh();
        let before = info("t").domid;
        let (here, there, _) = migrate_through(cut, &ASK);
        let what = format!("{cut:?}: {here:?} {there:?}");
        let status = here.status.expect("it ended by itself");
        assert!(possible.contains(&status), "{what}");
        assert_eq!(info("t").domid == before, status == 1, "{what}");
        settle(false, &what);
    }
    // Where the source cannot ask, a person can.
    fresh();
    let (here, ..) = migrate_through(Cut::Receiver(127), &[]);
    here.failed_with(7, "undecided");
    let uuid = info("t").uuid.to_string();
    let has = |uuid: &str| dombuild(&["migrate-receive", "--has", uuid]).success().json();
    assert_eq!(has(&uuid), json!({ "state": "runs", "domid": info("t").domid }));
    dombuild(&["destroy", "t"]).success();
    assert_eq!(has(&uuid), json!({ "state": "gone" }));
    dombuild(&["destroy", "t--migratedaway"]).success();
    assert_eq!(has("00000000-0000-4000-8000-000000000001"), json!({ "state": "unknown" }));
}

fn pids_of(word: &str) -> Vec<Pid> {
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|entry| {
        let words = fs::read(entry.path().join("cmdline")).ok()?;
        let found = words.split(|byte| *byte == 0).any(|argument| argument == word.as_bytes());
        found.then(|| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw)).flatten()
    });
    pids.collect()
}

fn kills() {
    fresh();
    let plain = ["migrate", "t", receiver(By::Dombuild), "--ssh", ""];
    let start = Instant::now();
    dombuild(&plain).success();
    let length = start.elapsed();
    let mut random = Random::new("kills of migrations");
    let (mut moved, mut stayed, mut undecided) = (0, 0, 0);
    for number in 0..count(4, 300) {
        fresh();
        let before = info("t").domid;
        let delay = length * random.permille() * 11 / 10_000;
        let words = [&plain[..], if number % 2 == 0 { &ASK[..] } else { &[] }].concat();
        let mut source = start_silently(&words);
        thread::sleep(delay);
        let victim = ["migrate", "migrate-receive", "migration-helper"][usize::try_from(number % 3).expect("small")];
        let victims = if victim == "migrate" { vec![pid(&source)] } else { pids_of(victim) };
        for pid in &victims {
            let _ = kill(*pid, Signal::SIGKILL);
        }
        let ended = source.wait().expect("waited for");
        wait_for("the receiver ends as well", 60, || pids_of("migrate-receive").is_empty());
        wait_for("no helper is left", 60, || pids_of("migration-helper").is_empty());
        let what = format!("{victim}, killed after {delay:?}: {ended:?}");
        // A source that was killed before its word runs on by that; behind it, a person decides.
        dombuild(&["cleanup", "--apply"]);
        undecided += u32::from(settle(is_there("t--migratedaway"), &what));
        if info("t").domid == before { stayed += 1 } else { moved += 1 }
    }
    println!("{moved} guests moved, {stayed} stayed, {undecided} were for a person to settle");
    dombuild(&["destroy", "t"]).success();
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(i32::try_from(child.id()).expect("a pid"))
}
