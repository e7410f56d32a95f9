//! What a QEMU that its guest has taken over could reach, seen from outside of it.

use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixAddress, UnixListener, UnixStream};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use serde_json::{Value, json};

use super::Test;
use super::device_model::{ask, status};
use super::support::{DOMBUILD, create, dombuild, number, path_text, run, script, shell, wait_for};

pub(crate) const TESTS: &[Test] = &[
    ("device_model_cage_holds_from_outside", holds),
    ("device_model_cage_keeps_the_network_where_an_argument_needs_it", network_where_needed),
    ("device_model_cage_ends_a_device_model_that_leaves_it", forbidden_call),
    ("device_model_cage_lets_no_process_be_started", no_process),
    ("device_model_cage_has_room_for_hot_plug", hot_plug),
];

const SMALL: [&str; 3] = ["--memory", "64", "--paused"];

pub(crate) fn namespace(pid: &str, space: &str) -> String {
    fs::read_link(format!("/proc/{pid}/ns/{space}")).expect("a namespace").display().to_string()
}

/// Which of a TCP port on dom0's loopback and an abstract unix socket of dom0 answer a thread in a process's network.
fn reachable(pid: u64) -> [bool; 2] {
    let tcp = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = UnixAddress::from_abstract_name(b"dombuild-test-of-the-cage").expect("a name");
    let _unix = UnixListener::bind_addr(&address).expect("a socket");
    let port = tcp.local_addr().expect("a port");
    let witness = move |space: Option<File>| {
        if let Some(space) = space {
            setns(space, CloneFlags::CLONE_NEWNET).expect("its network");
        }
        let tcp = TcpStream::connect_timeout(&port, Duration::from_secs(5)).is_ok();
        [tcp, UnixStream::connect_addr(&address).is_ok()]
    };
    let space = File::open(format!("/proc/{pid}/ns/net")).expect("a namespace");
    // The thread alone changes over.
    let from_dom0 = thread::spawn({
        let witness = witness.clone();
        move || witness(None)
    })
    .join()
    .expect("a thread");
    assert_eq!(from_dom0, [true, true], "dom0 reaches both");
    thread::spawn(move || witness(Some(space))).join().expect("a thread")
}

pub(crate) fn assert_filtered(pid: u64) {
    assert_eq!(status(pid, "Seccomp"), ["2"]);
    assert_eq!(status(pid, "Seccomp_filters"), ["1"]);
    assert_eq!(status(pid, "NoNewPrivs"), ["1"]);
}

fn holds() {
    let built = create("t", &SMALL);
    let pid = number(&built, "device_model_pid");
    assert_filtered(pid);
    for space in ["net", "uts", "cgroup", "mnt", "ipc"] {
        assert_ne!(namespace(&pid.to_string(), space), namespace("self", space), "{space}");
    }
    assert_eq!(namespace(&pid.to_string(), "pid"), namespace("self", "pid"), "dom0's, without /proc to see it");
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("limits");
    for (name, most) in [
        ("Max core file size", 0),
        ("Max locked memory", 0),
        ("Max msgqueue size", 0),
        ("Max nice priority", 0),
        ("Max realtime priority", 0),
        ("Max open files", 4096),
        ("Max processes", 1024),
    ] {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect(name);
        for limit in line.split_whitespace().take(2) {
            assert!(limit.parse::<u64>().expect(name) <= most, "{name} {line}");
        }
    }
    assert_eq!(reachable(pid), [false, false]);
    dombuild(&["destroy", "t"]).success();
}

fn network_where_needed() {
    let arguments = [&SMALL[..], &["--dm-arg", "-vnc", "--dm-arg", "127.0.0.1:77"]].concat();
    let checks =
        dombuild(&[&["create", "--name", "t", "--dry-run"], &arguments[..]].concat()).success().json()["checks"]
            .to_string();
    assert!(checks.contains("dom0's network") && checks.contains("-vnc 127.0.0.1:77"), "{checks}");
    let built = create("t", &arguments);
    let pid = number(&built, "device_model_pid");
    assert_filtered(pid);
    assert_eq!(namespace(&pid.to_string(), "net"), namespace("self", "net"));
    assert_eq!(reachable(pid), [true, true]);
    let vnc: SocketAddr = "127.0.0.1:5977".parse().expect("an address");
    drop(TcpStream::connect(vnc).expect("QEMU listens there"));
    dombuild(&["destroy", "t"]).success();

    let socket = "/run/dombuild-test-vnc";
    let built = create("t", &[&SMALL[..], &["--dm-arg", "-vnc", "--dm-arg", &format!("unix:{socket}")]].concat());
    assert_ne!(namespace(&number(&built, "device_model_pid").to_string(), "net"), namespace("self", "net"));
    drop(UnixStream::connect(socket).expect("its socket is reached all the same"));
    dombuild(&["destroy", "t"]).success();
    let _ = fs::remove_file(socket);
}

/// Its last step is a call that the filter does not allow; before, it starts a program, as a script may.
fn forbidden_call() {
    let wrapper = script("#!/bin/sh\nls / >/dev/null || exit 9\nexec unshare --mount true\n");
    let words = |filter| {
        let words = ["create", "--name", "t", "--device-model", path_text(&wrapper), "--device-model-filter", filter];
        dombuild(&[&words[..], &SMALL].concat())
    };
    let before = shell("dmesg | grep -c type=1326 || true");
    let message = words("on").failed_with(1, "device-model-failed")["message"].to_string();
    assert!(
        message.contains("killed by its system call filter") && message.contains("--device-model-filter off"),
        "{message}"
    );
    let lines = shell("dmesg | grep type=1326");
    assert_ne!(lines.lines().count().to_string(), before.trim(), "{lines}");
    // unshare (asm/unistd_64.h)
    assert!(lines.lines().last().is_some_and(|line| line.contains("syscall=272")), "{lines}");
    let message = words("off").failed_with(1, "device-model-failed")["message"].to_string();
    assert!(message.contains("exit status: 0"), "it gets to its end without: {message}");
}

/// QEMU is asked to start a program for a migration. Under the filter, that is its end.
fn no_process() {
    let migrate = |domid: u64| ask(domid, &json!({ "execute": "migrate", "arguments": { "uri": "exec:sleep 1000" } }));
    let built = create("t", &SMALL);
    let (domid, pid) = (number(&built, "domid"), number(&built, "device_model_pid"));
    assert_eq!(migrate(domid), None, "it ends before it answers");
    wait_for("QEMU has ended", 10, || !fs::exists(format!("/proc/{pid}/exe")).unwrap_or(true));
    dombuild(&["destroy", "t"]).success();

    let built = create("t", &[&SMALL[..], &["--device-model-filter", "off"]].concat());
    let pid = number(&built, "device_model_pid");
    assert_eq!(status(pid, "Seccomp"), ["0"]);
    assert_ne!(namespace(&pid.to_string(), "net"), namespace("self", "net"), "the rest of it holds");
    assert!(migrate(number(&built, "domid")).is_some(), "it answers without");
    run(DOMBUILD, &["destroy", "t"]).success();
}

/// Devices come and go, and the guest is reset.
fn hot_plug() {
    let built = create("t", &[&SMALL[..], &["--dm-arg", "-usb"]].concat());
    let domid = number(&built, "domid");
    let done = |command: Value| {
        let answer = ask(domid, &command).expect("QEMU lives");
        assert!(answer.get("error").is_none(), "{command}: {answer}");
        answer["return"].clone()
    };
    done(
        json!({ "execute": "blockdev-add", "arguments": { "driver": "null-co", "node-name": "n", "size": 1 << 20, "read-zeroes": true } }),
    );
    for device in [
        json!({ "driver": "virtio-blk-pci", "drive": "n", "id": "disk" }),
        json!({ "driver": "usb-tablet", "id": "tablet" }),
        json!({ "driver": "e1000", "id": "nic", "romfile": "" }),
    ] {
        done(json!({ "execute": "device_add", "arguments": device }));
    }
    done(json!({ "execute": "object-add", "arguments": { "qom-type": "iothread", "id": "thread" } }));
    done(json!({ "execute": "chardev-add", "arguments": { "id": "c", "backend": { "type": "null", "data": {} } } }));
    done(json!({ "execute": "device_del", "arguments": { "id": "tablet" } }));
    done(json!({ "execute": "system_reset" }));
    let blocks = done(json!({ "execute": "query-named-block-nodes" }));
    assert!(blocks.to_string().contains("null-co"), "{blocks}");
    dombuild(&["destroy", "t"]).success();
}
