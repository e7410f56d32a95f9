//! A stand-in for XenServer's emu-manager, which xenopsd starts to migrate a guest, drives `xenguest -mode listen`.

use std::fs::File;
use std::io::{BufRead, BufReader, IoSlice, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use dombuild::memory::Kind;
use dombuild::xen::DomId;
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};

use super::Test;
use super::support::{path_text, shell, wait_for};
use super::toolstack::memory;
use super::xenopsd::{USUAL, Vm};

pub(crate) const TESTS: &[Test] = &[
    ("emu_manager_saves_and_restores", saves_and_restores),
    ("emu_manager_aborts", aborts),
    ("emu_manager_gets_errors", gets_errors),
];

/// The most bytes that emu-manager reads at once.
const ITS_BUFFER: usize = 1024;

/// How long it waits for an answer, in seconds.
const ITS_PATIENCE: u64 = 30;

struct EmuManager {
    helper: Child,
    socket: UnixStream,
    unread: Vec<u8>,
    events: Vec<Value>,
}

fn socket_of(domid: DomId) -> String {
    format!("/var/xen/xenguest/{domid}/control")
}

/// The helper with emu-manager's command line, once it is ready.
fn helper(domid: DomId) -> Child {
    let words = ["-debug", "-domid", &domid.to_string(), "-controloutfd", "2", "-controlinfd", "0", "-mode", "listen"];
    let mut command = Command::new("xenguest");
    command.args(words).env_clear().env("PATH", std::env::var("PATH").unwrap_or_default());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().expect("xenguest")
}

impl EmuManager {
    fn start(domid: DomId) -> Self {
        let mut helper = helper(domid);
        let mut word = [0; 6];
        helper.stdout.as_mut().expect("piped").read_exact(&mut word).expect("it says something");
        assert_eq!(&word, b"Ready\n");
        let socket = UnixStream::connect(socket_of(domid)).expect("it listens");
        socket.set_read_timeout(Some(Duration::from_secs(ITS_PATIENCE))).expect("set");
        Self { helper, socket, unread: Vec::new(), events: Vec::new() }
    }

    /// Sends a command with the stream, if there is one, and returns the answer.
    fn say(&mut self, command: &str, arguments: Option<&Value>, stream: Option<&File>) -> Result<(), String> {
        let text = match arguments {
            None => format!("{{ \"execute\" : \"{command}\"}}"),
            Some(arguments) => format!("{{ \"execute\" : \"{command}\", \"arguments\" : {arguments} }}"),
        };
        let descriptors: Vec<_> = stream.iter().map(|file| file.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&descriptors)];
        let message = if stream.is_some() { &rights[..] } else { &[] };
        let parts = [IoSlice::new(text.as_bytes())];
        sendmsg::<()>(self.socket.as_raw_fd(), &parts, message, MsgFlags::empty(), None).expect("sent");
        loop {
            let object = self.object().expect("an answer");
            match object.as_object().expect("an object").iter().next().expect("a key") {
                (key, _) if key == "return" => return Ok(()),
                (key, text) if key == "error" => return Err(text.as_str().expect("a text").to_owned()),
                _ => self.events.push(object),
            }
        }
    }

    fn must(&mut self, command: &str) {
        self.say(command, None, None).expect(command);
    }

    /// The next object, and nothing once the helper has ended.
    fn object(&mut self) -> Option<Value> {
        loop {
            let mut objects = serde_json::Deserializer::from_slice(&self.unread).into_iter::<Value>();
            if let Some(Ok(object)) = objects.next() {
                let length = objects.byte_offset();
                self.unread.drain(..length);
                for key in object.as_object().expect("an object").keys() {
                    let known = ["return", "error", "event", "data", "QMP", "timestamp"];
                    assert!(known.contains(&key.as_str()), "emu-manager knows no {key}: {object}");
                }
                return Some(object);
            }
            assert!(self.unread.len() < ITS_BUFFER, "more than emu-manager's buffer holds");
            let mut buffer = [0; ITS_BUFFER];
            let space = ITS_BUFFER - self.unread.len();
            match self.socket.read(&mut buffer[..space]).expect("in time") {
                0 => return None,
                length => self.unread.extend_from_slice(&buffer[..length]),
            }
        }
    }

    /// The data of the next event.
    fn event(&mut self) -> Option<Value> {
        let object = if self.events.is_empty() { self.object()? } else { self.events.remove(0) };
        assert_eq!(object["event"], "MIGRATION", "{object}");
        Some(object["data"].clone())
    }

    /// Waits for the end, and returns its result.
    fn completed(&mut self) -> Option<String> {
        loop {
            let data = self.event().expect("the helper goes on");
            if data.get("status").is_some() {
                assert_eq!(data["status"], "completed");
                return data["result"].as_str().map(str::to_owned);
            }
        }
    }

    /// Ends the helper, which is to leave nothing.
    fn quit(mut self, domid: DomId) {
        self.must("quit");
        let output = self.helper.wait_with_output().expect("it ends");
        assert!(output.status.success(), "{output:?}");
        assert_eq!(String::from_utf8_lossy(&output.stdout), "", "its word was all");
        assert_eq!(shell(&format!("ls -d {} 2>&1 | grep -c '^/' || :", socket_of(domid))).trim(), "0");
    }

    /// Waits for the helper's end, which is an error, and returns its line.
    fn failed(self) -> String {
        let output = self.helper.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        let lines: Vec<_> = text.lines().filter(|line| line.starts_with("error:")).collect();
        assert_eq!(lines.len(), 1, "{text}");
        lines[0].to_owned()
    }
}

fn guest() -> (Vm, u64, u64) {
    let vm = Vm::new(Kind::Hvm, 1, 64, 64, USUAL);
    let (store, console, _) = vm.build(&[]).result();
    vm.introduce(store, console);
    vm.xen.unpause(vm.domid).expect("it starts");
    thread::sleep(Duration::from_secs(3));
    (vm, store, console)
}

fn runs(vm: &Vm) {
    let time = || vm.xen.domain(vm.domid).expect("asked").expect("there").cpu_time;
    let now = time();
    wait_for("the guest runs", 30, || time() > now);
}

fn saves_and_restores() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("stream");
    for live in [true, false] {
        let (vm, store, console) = guest();
        let mut manager = EmuManager::start(vm.domid);
        let stream = File::create(&path).expect("a file");
        manager.say("migrate_init", None, Some(&stream)).expect("it takes the stream");
        drop(stream);
        if live {
            for command in ["track_dirty", "migrate_progress", "migrate_live"] {
                manager.must(command);
            }
            // emu-manager's own rule for the end of the live rounds.
            loop {
                let data = manager.event().expect("the helper goes on");
                let (iteration, remaining) = (data["iteration"].as_i64(), data["remaining"].as_i64());
                let (iteration, remaining) = (iteration.expect("a number"), remaining.expect("a number"));
                assert!(data["sent"].is_u64(), "{data}");
                if iteration > 0 && ((0..50).contains(&remaining) || iteration >= 4) {
                    break;
                }
            }
            // Once at once, and once more when the guest is suspended.
            manager.must("migrate_pause");
            vm.xen.shut_down_to_suspend(vm.domid).expect("suspended");
            manager.must("migrate_pause");
            manager.must("migrate_paused");
        } else {
            vm.xen.shut_down_to_suspend(vm.domid).expect("suspended");
            for command in ["migrate_pause", "migrate_paused", "migrate_nonlive"] {
                manager.must(command);
            }
        }
        assert_eq!(manager.completed(), None);
        manager.quit(vm.domid);
        let before = memory(&vm);
        vm.destroy();

        let vm = Vm::new(Kind::Hvm, 1, 64, 64, USUAL);
        let mut manager = EmuManager::start(vm.domid);
        let stream = File::open(&path).expect("the file");
        manager.say("migrate_init", None, Some(&stream)).expect("it takes the stream");
        let (store_port, console_port) = (vm.store_port.0.to_string(), vm.console_port.0.to_string());
        let ports = json!({ "store_port": store_port, "console_port": console_port, "pv": "false" });
        manager.say("set_args", Some(&ports), None).expect("it takes them");
        manager.must("restore");
        assert_eq!(manager.completed(), Some(format!("{store} {console}")));
        manager.quit(vm.domid);
        assert!(before.len() > 16 << 20 && memory(&vm) == before, "its memory is the same");
        vm.introduce(store, console);
        vm.xen.unpause(vm.domid).expect("it goes on");
        runs(&vm);
        vm.destroy();
    }
}

fn aborts() {
    // Before the guest is suspended: it runs on, and nothing records what it changes.
    let (vm, ..) = guest();
    let mut manager = EmuManager::start(vm.domid);
    manager.say("migrate_init", None, Some(&File::create("/dev/null").expect("opened"))).expect("it takes the stream");
    for command in ["migrate_progress", "migrate_live", "migrate_pause"] {
        manager.must(command);
    }
    thread::sleep(Duration::from_secs(3));
    manager.must("migrate_abort");
    let line = manager.failed();
    assert!(line.starts_with("error:xc_domain_save "), "{line}");
    runs(&vm);

    // A client that goes without a word is waited for, and another may come.
    let mut manager = EmuManager::start(vm.domid);
    manager.socket = UnixStream::connect(socket_of(vm.domid)).expect("it listens on");
    manager.quit(vm.domid);

    // A helper that is killed leaves its socket, which the next one takes.
    let mut manager = EmuManager::start(vm.domid);
    manager.helper.kill().expect("killed");
    manager.helper.wait().expect("it ended");
    EmuManager::start(vm.domid).quit(vm.domid);

    // In the middle of a round: the connection takes no more.
    let (reader, writer) = std::io::pipe().expect("a pipe");
    let mut manager = EmuManager::start(vm.domid);
    let writer = File::from(std::os::fd::OwnedFd::from(writer));
    manager.say("migrate_init", None, Some(&writer)).expect("it takes the stream");
    for command in ["migrate_live", "migrate_abort", "quit"] {
        manager.must(command);
    }
    let line = manager.failed();
    assert!(line.contains("emu-manager has ended it"), "{line}");
    drop(reader);
    runs(&vm);
    vm.destroy();
}

fn gets_errors() {
    let vm = Vm::new(Kind::Hvm, 1, 64, 64, USUAL);
    let folder = tempfile::tempdir().expect("a folder");
    let mut manager = EmuManager::start(vm.domid);
    let why = |manager: &mut EmuManager, command: &str, arguments: Option<&Value>| {
        manager.say(command, arguments, None).expect_err("it is refused")
    };
    assert!(why(&mut manager, "dance", None).contains("dance"));
    assert_eq!(why(&mut manager, "set_args", None), "No Args");
    for bad in
        [json!({ "store_port": 7 }), json!({ "console_port": "seven" }), json!({ "pv": "maybe" }), json!({ "x": "y" })]
    {
        assert!(why(&mut manager, "set_args", Some(&bad)).starts_with("Bad Args"));
    }
    assert!(why(&mut manager, "restore", None).starts_with("Missing options"));
    assert!(why(&mut manager, "migrate_live", None).starts_with("Missing options"));

    // Two helpers for one guest.
    let second = helper(vm.domid).wait_with_output().expect("it ends");
    let text = String::from_utf8_lossy(&second.stderr);
    assert!(second.status.code() == Some(1) && text.contains("error:xc_domain_save 5 "), "{text}");

    // A stream that is none: the checker says where.
    let path = folder.path().join("stream");
    std::fs::write(&path, [7; 4096]).expect("written");
    manager.say("migrate_init", None, Some(&File::open(&path).expect("opened"))).expect("it takes the stream");
    let ports = json!({ "store_port": vm.store_port.0.to_string(), "console_port": vm.console_port.0.to_string() });
    manager.say("set_args", Some(&ports), None).expect("it takes them");
    manager.must("restore");
    assert_eq!(manager.event(), None, "the helper has ended");
    let line = manager.failed();
    assert!(line.starts_with("error:xc_domain_restore 5 restore-memory: "), "{line}");
    assert_eq!(
        shell(&format!("ls {} 2>&1 | grep -c '^/' || :", path_text(std::path::Path::new(&socket_of(vm.domid))))).trim(),
        "0"
    );
    vm.destroy();

    let mut without_guest = helper(DomId::new(4711).expect("a domid"));
    let mut line = String::new();
    BufReader::new(without_guest.stderr.take().expect("piped")).read_line(&mut line).expect("a line");
    assert!(line.starts_with("error:xc_domain_save 3 "), "{line}");
    without_guest.wait().expect("it ends");
}
