//! `run`: a guest that is looked after. It starts again, it is shut down, and it outlives the run that looks after it.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use dombuild::xen::{DomId, Interface, ShutdownReason};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Test;
use super::faults::tiny_kernel;
use super::linux::{QUICK, expect_guest, wait_until_ready};
use super::sample::full;
use super::support::{
    CMDLINE, DOMBUILD, GUEST_INITRD, GUEST_KERNEL, Host, dombuild, file, path_text, run, shell, wait_for,
    wait_for_guest_line,
};

pub(crate) const TESTS: &[Test] = &[
    ("run_starts_a_guest_again_and_again", again_and_again),
    ("run_is_killed_and_takes_over", takes_over),
    ("run_follows_the_file", follows_the_file),
    ("run_says_where_the_guest_has_gone", says_where_the_guest_has_gone),
    ("run_looks_after_xls_guest", adopts),
    ("run_refuses", refuses),
];

/// A run, with what it prints.
pub(crate) struct Run {
    child: Child,
    output: tempfile::TempPath,
}

impl Run {
    fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, None)
    }

    pub(crate) fn start_with(arguments: &[&str], notify: Option<&str>) -> Self {
        let output = file(b"");
        let opened = || Stdio::from(fs::OpenOptions::new().append(true).open(&output).expect("opened"));
        let mut command = Command::new(DOMBUILD);
        command.arg("run").args(arguments).stdin(Stdio::null()).stdout(opened()).stderr(opened());
        match notify {
            Some(socket) => command.env("NOTIFY_SOCKET", socket),
            None => command.env_remove("NOTIFY_SOCKET"),
        };
        Self { child: command.spawn().expect("it starts"), output }
    }

    fn said(&self) -> String {
        fs::read_to_string(&self.output).expect("read")
    }

    /// Waits until it has said a text that many times.
    fn wait_for(&self, text: &str, times: usize) {
        wait_for(&format!("{text:?} {times} times: {}", self.said()), 240, || {
            self.said().matches(text).count() >= times
        });
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().cast_signed()), signal).expect("sent");
    }

    /// Its exit status, and what it said.
    pub(crate) fn end(mut self) -> (Option<i32>, String) {
        let mut status = None;
        wait_for(&format!("the end of the run: {}", self.said()), 240, || {
            status = self.child.try_wait().expect("asked");
            status.is_some()
        });
        (status.and_then(|status| status.code()), self.said())
    }
}

/// The socket by which a run tells systemd how it is (sd_notify(3)).
pub(crate) struct NotifySocket {
    path: String,
    socket: UnixDatagram,
}

impl NotifySocket {
    /// Listens in this folder.
    pub(crate) fn new(folder: &Path) -> Self {
        let path = path_text(&folder.join("notify")).to_owned();
        let socket = UnixDatagram::bind(&path).expect("bound");
        socket.set_read_timeout(Some(Duration::from_secs(240))).expect("set");
        Self { path, socket }
    }

    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    /// Waits for a message with this line, and returns it.
    pub(crate) fn wait_for(&self, line: &str) -> String {
        let mut bytes = [0; 512];
        loop {
            let count = self.socket.recv(&mut bytes).unwrap_or_else(|error| panic!("{line}: {error}"));
            let text = String::from_utf8_lossy(&bytes[..count]).into_owned();
            if text.lines().any(|found| found == line) {
                return text;
            }
        }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        // If a test has failed: its guest is not started again.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The kernel of a guest that does nothing.
pub(crate) fn idle_kernel() -> Vec<u8> {
    // With interrupts disabled, Xen takes a halted guest for one that has powered off.
    let mut kernel = tiny_kernel();
    let halt = kernel.windows(2).position(|code| code == [0xfa, 0xf4]).expect("cli, hlt");
    kernel[halt] = 0xfb;
    kernel
}

/// A guest that does nothing, with more lines.
fn idle(lines: &str) -> (tempfile::TempPath, tempfile::TempPath) {
    let kernel = file(&idle_kernel());
    let text = format!("name = 't'\ntype = 'pvh'\nmemory = 32\nkernel = '{}'\n{lines}\n", path_text(&kernel));
    (file(text.as_bytes()), kernel)
}

/// Linux, with more lines.
fn linux(words: &str, lines: &str) -> tempfile::TempPath {
    let text = format!(
        "name = 't'\ntype = 'pvh'\nmemory = 128\nkernel = '{GUEST_KERNEL}'\nramdisk = '{GUEST_INITRD}'\ntsc_mode = 'native'\n\
         extra = '{CMDLINE} {QUICK} {words}'\n{lines}\n"
    );
    file(text.as_bytes())
}

fn domid() -> Option<u32> {
    run("xl", &["domid", "t"]).stdout.trim().parse().ok()
}

/// Ends a guest as it would end itself.
fn ends(reason: ShutdownReason) {
    let domid = domid().and_then(DomId::new).expect("a guest");
    Interface::open().expect("Xen").shut_down(domid, reason).expect("it ends");
}

fn again_and_again() {
    let before = Host::now();
    let (config, _kernel) = idle("on_watchdog = 'rename-restart'\non_crash = 'coredump-restart'");
    let guest = Run::start(&[path_text(&config), "--restart-limit", "30"]);
    guest.wait_for("is domain", 1);
    for times in 2..=21 {
        ends(ShutdownReason::Reboot);
        guest.wait_for("is domain", times);
    }
    assert_eq!(guest.said().matches("ended: reboot; restart").count(), 20);
    // Writing its memory to a file takes minutes in emulation: libxc looks at every frame below 4 GiB.
    let mut starts = 22;
    if full() {
        ends(ShutdownReason::Crash);
        guest.wait_for("ended: crash; coredump-restart", 1);
        wait_for("the dump", 1200, || guest.said().matches("is domain").count() == starts);
        starts += 1;
        let dumps: Vec<_> =
            fs::read_dir("/var/lib/xen/dump").expect("listed").map(|entry| entry.expect("read").path()).collect();
        assert_eq!(dumps.len(), 1, "{dumps:?}");
        assert!(fs::read(&dumps[0]).expect("read").starts_with(b"\x7fELF"));
        fs::remove_file(&dumps[0]).expect("removed");
    }
    ends(ShutdownReason::Watchdog);
    guest.wait_for("is t-1 from now on", 1);
    guest.wait_for("is domain", starts);
    assert_eq!(run("xl", &["domid", "t-1"]).status, Some(0));
    ends(ShutdownReason::Poweroff);
    let (status, said) = guest.end();
    assert_eq!(status, Some(0), "{said}");
    assert!(said.contains("ended: poweroff; destroy"), "{said}");
    dombuild(&["destroy", "t-1"]).success();

    // A guest that ends at once does not do so for ever.
    let (config, _kernel) = idle("on_poweroff = 'restart'");
    let guest = Run::start(&[path_text(&config), "--restart-limit", "2"]);
    for times in 1..=3 {
        guest.wait_for("is domain", times);
        ends(ShutdownReason::Poweroff);
    }
    let (status, said) = guest.end();
    assert_eq!(status, Some(1), "{said}");
    assert!(said.contains("restarts too often: more than 2 times within 60 s"), "{said}");
    assert_eq!(domid(), None);

    let (config, _kernel) = idle("on_crash = 'preserve'");
    let guest = Run::start(&["--json", path_text(&config)]);
    guest.wait_for("\"domid\"", 1);
    ends(ShutdownReason::Crash);
    let (status, said) = guest.end();
    assert!(status == Some(0) && said.contains("\"event\": \"preserved\""), "{said}");
    dombuild(&["destroy", "t"]).success();
    before.assert_back().expect("nothing is left");
}

fn takes_over() {
    let before = Host::now();
    let config = linux("", "on_reboot = 'restart'");
    let directory = tempfile::tempdir().expect("a directory");
    let manager = NotifySocket::new(directory.path());
    expect_guest();
    let guest = Run::start_with(&[path_text(&config)], Some(manager.path()));
    assert!(manager.wait_for("READY=1").contains("STATUS=t is domain"));
    let first = domid().expect("a guest");
    guest.signal(Signal::SIGKILL);
    drop(guest);
    assert_eq!(domid(), Some(first));

    // The next one looks after the same guest, and only one does.
    let guest = Run::start_with(&[path_text(&config)], Some(manager.path()));
    manager.wait_for("READY=1");
    guest.wait_for("is looked after from now on", 1);
    let second = dombuild(&["run", path_text(&config)]).failed_with(3, "bad-config");
    assert!(second["message"].as_str().is_some_and(|text| text.contains("another dombuild run looks after t")));
    guest.signal(Signal::SIGUSR1);
    let (status, said) = guest.end();
    assert!(status == Some(0) && said.contains("left running"), "{said}");
    assert_eq!(domid(), Some(first));

    // It reboots itself, and is shut down in the end.
    let guest = Run::start_with(&[path_text(&config)], Some(manager.path()));
    manager.wait_for("READY=1");
    let held = |number: Option<u32>| number.and_then(DomId::new).expect("a guest");
    wait_until_ready(held(domid()));
    expect_guest();
    shell("xl reboot t");
    guest.wait_for("ended: reboot; restart", 1);
    manager.wait_for("READY=1");
    assert_ne!(domid(), Some(first));
    wait_until_ready(held(domid()));
    guest.signal(Signal::SIGTERM);
    manager.wait_for("STOPPING=1");
    let (status, said) = guest.end();
    assert!(status == Some(0) && said.contains("is destroyed: poweroff"), "{said}");

    // A guest that does not listen is destroyed in the end, and with a second signal at once.
    for twice in [false, true] {
        let (config, _kernel) = idle("");
        let timeout = if twice { "600" } else { "3" };
        let guest = Run::start(&[path_text(&config), "--shutdown-timeout", timeout]);
        guest.wait_for("is domain", 1);
        guest.signal(Signal::SIGTERM);
        guest.wait_for("is asked to shut down", 1);
        if twice {
            guest.signal(Signal::SIGINT);
        }
        let (status, said) = guest.end();
        let how = if twice { "a second signal came" } else { "did not shut down within 3 s" };
        assert!(status == Some(0) && said.contains(how), "{said}");
    }
    before.assert_back().expect("nothing is left");
}

fn follows_the_file() {
    let before = Host::now();
    let (config, kernel) = idle("on_poweroff = 'restart'");
    let size = || shell("xl list t | tail -n 1").split_whitespace().nth(2).map(str::to_owned);
    let guest = Run::start(&[path_text(&config), "--", "--vcpus", "2"]);
    guest.wait_for("is domain", 1);
    assert_eq!(size().as_deref(), Some("32"));
    let changed =
        |memory: &str| format!("name = 't'\ntype = 'pvh'\nmemory = {memory}\nkernel = '{}'\n", path_text(&kernel));
    fs::write(&config, changed("48")).expect("written");
    ends(ShutdownReason::Poweroff);
    guest.wait_for("is domain", 2);
    assert_eq!(size().as_deref(), Some("32"), "the file as it was read");
    guest.signal(Signal::SIGHUP);
    ends(ShutdownReason::Poweroff);
    guest.wait_for("is domain", 3);
    assert_eq!(size().as_deref(), Some("48"));
    // A file that is wrong by then changes nothing; the last one that was right says what happens.
    fs::write(&config, changed("'x'")).expect("written");
    guest.signal(Signal::SIGHUP);
    ends(ShutdownReason::Reboot);
    guest.wait_for("is domain", 4);
    assert_eq!(size().as_deref(), Some("48"));
    assert!(guest.said().contains("starts as before"), "{}", guest.said());
    assert!(shell("xl vcpu-list t").lines().count() == 3, "two vCPUs by the flag");
    // Another program destroys it.
    dombuild(&["destroy", "t"]).success();
    let (status, said) = guest.end();
    assert!(status == Some(0) && said.contains("was destroyed by another program"), "{said}");
    before.assert_back().expect("nothing is left");
}

/// A guest that dombuild saves or migrates has not ended, and does not start again.
fn says_where_the_guest_has_gone() {
    let before = Host::now();
    // SeaBIOS: it is stopped from outside, which a PVH kernel without drivers is not. It starts again after a minute: each guest
    // here is younger.
    let config = file(b"name = 't'\ntype = 'hvm'\nmemory = 64\nvnc = 0\nvga = 'none'\non_poweroff = 'restart'\n");
    let folder = tempfile::tempdir().expect("a folder");
    let start = || {
        let guest = Run::start(&[path_text(&config)]);
        guest.wait_for("is domain", 1);
        // While hvmloader places the devices, and SeaBIOS looks at their ROMs, QEMU moves a card's memory: a live migration would
        // have it twice, above the guest's limit. So there is no card.
        let domid = domid().and_then(DomId::new).expect("a guest");
        wait_for_guest_line(domid, "Invoking SeaBIOS", 60);
        guest
    };
    let guest = start();
    dombuild(&["save", "t", path_text(&folder.path().join("saved"))]).success();
    let (status, said) = guest.end();
    assert!(status == Some(0) && said.contains("was saved to a file"), "{said}");
    let guest = start();
    dombuild(&["migrate", "t", "dombuild migrate-receive", "--ssh", ""]).success();
    let (status, said) = guest.end();
    assert!(status == Some(0) && said.contains("has migrated to another host"), "{said}");
    // The same file takes the guest over.
    let guest = Run::start(&[path_text(&config)]);
    guest.wait_for("is looked after from now on", 1);
    dombuild(&["destroy", "t"]).success();
    let (status, said) = guest.end();
    assert!(status == Some(0) && said.contains("was destroyed by another program"), "{said}");
    before.assert_back().expect("nothing is left");
}

fn adopts() {
    let (config, _kernel) = idle("on_reboot = 'restart'");
    shell(&format!("xl create {}", path_text(&config)));
    let theirs = domid().expect("a guest");
    let refused = dombuild(&["run", path_text(&config)]).failed_with(3, "bad-config");
    assert!(refused["message"].as_str().is_some_and(|text| text.contains("--adopt")), "{refused}");
    let supervisors = || shell("pgrep -x xl || true").lines().count();
    assert_eq!(supervisors(), 1, "xl's own");
    let guest = Run::start(&[path_text(&config), "--adopt"]);
    guest.wait_for("is looked after from now on", 1);
    assert_eq!(supervisors(), 0);
    assert_eq!(domid(), Some(theirs));
    ends(ShutdownReason::Reboot);
    guest.wait_for("is domain", 1);
    assert_ne!(domid(), Some(theirs));
    guest.signal(Signal::SIGTERM);
    guest.wait_for("is asked to shut down", 1);
    guest.signal(Signal::SIGTERM);
    let (status, said) = guest.end();
    assert!(status == Some(0), "{said}");
    assert_eq!(domid(), None);
}

fn refuses() {
    let (config, _kernel) = idle("");
    let path = path_text(&config);
    for (words, reason) in [
        (vec![path, "--", "--paused"], "--paused is for create"),
        (vec![path, "--", "--dry-run"], "--dry-run is for create"),
        (vec![path, "--", "--nonsense"], "--nonsense"),
        (vec![path, "memori=5", "pci=['00:03.0']"], "create cannot carry out pci"),
        (vec![path, "uuid='11111111-2222-3333-4444-555555555555'", "--on-crash", "rename-restart"], "rename-restart"),
        (vec!["/no/file"], "/no/file"),
    ] {
        let ran = run(DOMBUILD, &[&["run"], &words[..]].concat());
        assert!(ran.status == Some(3) && ran.stderr.contains(reason), "{words:?}: {ran:?}");
    }
    assert_eq!(domid(), None);
}
