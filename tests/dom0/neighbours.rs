//! Other users of the host: locks in /run/lock, which is everybody's to write, and names that speak to a terminal.

use std::fs;
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, chown};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use dombuild::runs::build_lock::{OPENXT_LOCK, XL_LOCK};
use nix::pty::{Winsize, openpty};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Test;
use super::lock_holder::LockHolder;
use super::support::{DOMBUILD, Ran, dombuild, file, path_text, run, wait_for};

pub(crate) const TESTS: &[Test] = &[
    ("a_lock_of_another_user_stops_no_build", another_users_lock),
    ("a_lock_through_a_readable_file_stops_no_build", readable_file),
    ("a_lock_that_only_looks_like_roots_stops_no_build", disguised),
    ("a_lock_file_that_is_something_else_stops_no_build", something_else),
    ("xl_is_waited_for_through_another_users_file", root_on_another_users_file),
    ("of_several_holders_only_root_is_waited_for", several_holders),
    ("the_name_of_a_locks_holder_is_escaped", holders_name),
];

const DIRECTORY: &str = "/run/lock";
const NOBODY: u32 = 65_534;
const PROTECTED: &str = "/proc/sys/fs/protected_regular";
const GUEST: [&str; 8] = ["create", "--name", "t", "--memory", "64", "--paused", "--device-model", "none"];

/// The directory of locks as distributions have it, for as long as this lives; then it is empty and as it was.
struct Shared {
    mode: u32,
    protected: String,
}

impl Shared {
    fn new() -> Self {
        let mode = fs::metadata(DIRECTORY).expect("it is there").permissions().mode();
        let protected = fs::read_to_string(PROTECTED).expect("Linux has it");
        fs::set_permissions(DIRECTORY, fs::Permissions::from_mode(0o1777)).expect("set");
        fs::write(PROTECTED, "2").expect("set");
        Self::empty();
        Self { mode, protected }
    }

    fn empty() {
        for path in [XL_LOCK, OPENXT_LOCK] {
            let _ = fs::remove_file(path);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        Self::empty();
        fs::write(PROTECTED, self.protected.trim()).expect("set");
        fs::set_permissions(DIRECTORY, fs::Permissions::from_mode(self.mode)).expect("set");
    }
}

/// `fcntl` by a lock of this type: struct flock of Linux on x86-64.
fn fcntl(kind: &str) -> String {
    format!("do {{ my $lock = pack('s s x4 q q l x4', {kind}, 0, 0, 0, 0); fcntl($file, F_SETLK, $lock) }}")
}

/// Makes a file with this owner and mode.
fn make(path: &str, user: u32, mode: u32) {
    // The kernel refuses another user's file to `O_CREAT`.
    let _ = fs::remove_file(path);
    fs::write(path, "").expect("made");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    chown(path, Some(user), Some(user)).expect("given away");
}

/// A build that succeeds though the lock is never given up, and warns with these words in one line.
fn builds_with_warning(words: &[&str]) -> Ran {
    let ran = dombuild(&GUEST).success();
    let warned = ran.stderr.lines().any(|line| line.contains("WARN") && words.iter().all(|word| line.contains(word)));
    assert!(warned, "{words:?} are not in {:?}", ran.stderr);
    dombuild(&["destroy", "t"]).success();
    ran
}

fn another_users_lock() {
    let _shared = Shared::new();
    for (path, call) in [(XL_LOCK, fcntl("F_WRLCK")), (OPENXT_LOCK, "flock($file, LOCK_EX)".to_owned())] {
        let holder = LockHolder::new(NOBODY, path, "O_WRONLY | O_CREAT", &call, "");
        let who = format!("process {} (perl) of user {NOBODY}", holder.pid());
        builds_with_warning(&[path, &who, "user 65534's, mode 0600", "claim alone"]);
        // The file stays when its maker is gone. It is locked then, for what that is worth, and not without a word.
        drop(holder);
        builds_with_warning(&[path, "unsafe", "user 65534's, mode 0600"]);
        // If only root can open it, it is a lock like any other.
        make(path, 0, 0o600);
        let ran = dombuild(&GUEST).success();
        assert!(!ran.stderr.contains(path), "{ran:?}");
        dombuild(&["destroy", "t"]).success();
        fs::remove_file(path).expect("removed");
    }
}

fn readable_file() {
    let _shared = Shared::new();
    for (path, call) in [(XL_LOCK, fcntl("F_RDLCK")), (OPENXT_LOCK, "flock($file, LOCK_SH)".to_owned())] {
        make(path, 0, 0o644);
        let holder = LockHolder::new(NOBODY, path, "O_RDONLY", &call, "");
        let who = format!("process {} (perl) of user {NOBODY}", holder.pid());
        builds_with_warning(&[path, &who, "user 0's, mode 0644", "claim alone"]);
        fs::remove_file(path).expect("removed");
    }
}

/// A set-uid program inherits its caller's lock; one that cannot be dumped has a directory of root's in /proc; and a lock of a
/// process that is gone is whose the open file is.
fn disguised() {
    let _shared = Shared::new();
    make(OPENXT_LOCK, 0, 0o644);
    let set_uid = LockHolder::new(0, OPENXT_LOCK, "O_RDONLY", "flock($file, LOCK_SH)", "$< = 65534");
    builds_with_warning(&[OPENXT_LOCK, &format!("process {} (perl) of user {NOBODY}", set_uid.pid())]);
    drop(set_uid);
    // prctl(PR_SET_DUMPABLE, 0)
    let hidden =
        LockHolder::new(NOBODY, OPENXT_LOCK, "O_RDONLY", "flock($file, LOCK_SH)", "syscall(157, 4, 0, 0, 0, 0)");
    builds_with_warning(&[OPENXT_LOCK, &format!("process {} (perl) of user {NOBODY}", hidden.pid())]);
    drop(hidden);
    let child =
        "(my $kid = open(my $out, '-|')) // die; if (!$kid) { flock($file, LOCK_SH) or die; exit } waitpid($kid, 0)";
    let heir = LockHolder::new(NOBODY, OPENXT_LOCK, "O_RDONLY", child, "");
    builds_with_warning(&[OPENXT_LOCK, "an unknown process holds it"]);
    drop(heir);
    // Of root's processes, the one that has the open file is found.
    let heir = LockHolder::new(0, OPENXT_LOCK, "O_RDONLY", child, "");
    let child = waiting(&file(b""), &format!("the build lock {OPENXT_LOCK}, held by process {} (perl)\n", heir.pid()));
    interrupt(child);
}

fn interrupt(mut child: Child) {
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGINT).expect("it runs");
    assert_eq!(child.wait().expect("waited for").code(), Some(130));
}

fn something_else() {
    let _shared = Shared::new();
    let target = file(b"");
    for (make, word) in [
        (format!("ln -s {} {XL_LOCK}", path_text(&target)), "symbolic link"),
        (format!("mkfifo {XL_LOCK}"), "No such device or address"),
        (format!("mkdir {XL_LOCK}"), "directory"),
        (format!("touch {DIRECTORY}/other; ln {DIRECTORY}/other {XL_LOCK}"), "second name"),
    ] {
        run("setpriv", &["--reuid=65534", "--clear-groups", "sh", "-c", &make]).success();
        builds_with_warning(&[XL_LOCK, "is not used", word]);
        run("rm", &["-rf", XL_LOCK, &format!("{DIRECTORY}/other")]).success();
    }
}

/// Starts a build, and waits until its log has these words.
fn waiting(log: &tempfile::TempPath, words: &str) -> Child {
    fs::write(log, "").expect("emptied");
    let child = Command::new(DOMBUILD)
        .args(GUEST)
        .args(["--log", path_text(log)])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts");
    wait_for(words, 30, || fs::read_to_string(log).expect("the log").contains(words));
    child
}

/// xl locks its file, whatever user made it. The kernel would refuse `O_CREAT` on it (`fs.protected_regular`).
fn root_on_another_users_file() {
    let _shared = Shared::new();
    let log = file(b"");
    make(XL_LOCK, NOBODY, 0o666);
    let holder = LockHolder::new(0, XL_LOCK, "O_WRONLY", &fcntl("F_WRLCK"), "");
    let error = dombuild(&[&GUEST[..], &["--wait-memory", "0"]].concat()).failed_with(8, "timed-out");
    let who = format!("{XL_LOCK}, held by process {} (perl),", holder.pid());
    assert!(error["message"].as_str().expect("text").contains(&who), "{error}");
    let mut child = waiting(&log, "waiting for the build lock");
    assert!(child.try_wait().expect("asked").is_none());
    drop(holder);
    assert!(child.wait().expect("waited for").success(), "it goes on");
    assert!(fs::read_to_string(&log).expect("the log").contains("is unsafe"));
    dombuild(&["destroy", "t"]).success();
}

fn several_holders() {
    let _shared = Shared::new();
    let log = file(b"");
    make(OPENXT_LOCK, 0, 0o644);
    let shared = |user| LockHolder::new(user, OPENXT_LOCK, "O_RDONLY", "flock($file, LOCK_SH)", "");
    let (user, root) = (shared(NOBODY), shared(0));
    let mut child = waiting(&log, "waiting for the build lock");
    let text = fs::read_to_string(&log).expect("the log");
    for holder in [&user, &root] {
        assert!(text.contains(&format!("process {} (perl)", holder.pid())), "{text}");
    }
    thread::sleep(Duration::from_millis(500));
    assert!(child.try_wait().expect("asked").is_none());
    drop(root);
    assert!(child.wait().expect("waited for").success(), "the other one is not waited for");
    let text = fs::read_to_string(&log).expect("the log");
    assert!(text.contains(&format!("process {} (perl) of user {NOBODY} holds it", user.pid())), "{text}");
    dombuild(&["destroy", "t"]).success();
}

/// The name sets the title of a terminal. It comes by the warning, by the progress line and by the final error.
fn holders_name() {
    const NAME: &str = r#"$0 = "\e]0;pwn\a\e[2J""#;
    let _shared = Shared::new();
    let holder = LockHolder::new(NOBODY, XL_LOCK, "O_WRONLY | O_CREAT", &fcntl("F_WRLCK"), NAME);
    let comm = fs::read(format!("/proc/{}/comm", holder.pid())).expect("it runs");
    assert!(comm.starts_with(b"\x1b]0;pwn\x07"), "{comm:?}");
    let ran = builds_with_warning(&[XL_LOCK, "(\\u{1b}]0;pwn\\u{7}\\u{1b}[2J) of user 65534"]);
    assert!(!ran.stderr.contains("\x1b]") && !ran.stderr.contains('\x07'), "{ran:?}");
    drop(holder);

    let holder = LockHolder::new(0, XL_LOCK, "O_WRONLY", &fcntl("F_WRLCK"), NAME);
    let size = Winsize { ws_row: 24, ws_col: 200, ws_xpixel: 0, ws_ypixel: 0 };
    let terminal = openpty(Some(&size), None).expect("a terminal");
    let second: OwnedFd = terminal.slave.try_clone().expect("a second handle");
    let child = Command::new(DOMBUILD)
        .args(GUEST)
        .env("TERM", "xterm")
        .stdout(Stdio::from(second))
        .stderr(Stdio::from(terminal.slave))
        .spawn()
        .expect("it starts");
    let (mut terminal, mut shown) = (fs::File::from(terminal.master), Vec::new());
    let waits = format!("waiting for the build lock {XL_LOCK}, held by process {} (", holder.pid());
    while !String::from_utf8_lossy(&shown).contains(&waits) {
        let mut part = [0; 4096];
        let length = terminal.read(&mut part).expect("it is shown");
        shown.extend_from_slice(&part[..length]);
    }
    interrupt(child);
    // A terminal whose other end is closed is an error to read.
    let _ = terminal.read_to_end(&mut shown);
    let shown = String::from_utf8_lossy(&shown);
    assert!(!shown.contains("\x1b]") && !shown.contains('\x07'), "{shown:?}");
    assert!(shown.contains(&format!("{waits}\\u{{1b}}]0;pwn\\u{{7}}\\u{{1b}}[2J)")), "{shown:?}");
}
