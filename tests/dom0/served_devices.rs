//! Devices that only QEMU serves: shares, the framebuffer and channels.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::thread;
use std::time::Duration;

use dombuild::xen::DomId;
use serde_json::json;

use super::Test;
use super::cage::assert_filtered;
use super::device_model::ask;
use super::devices::{create_with, message};
use super::faults::tiny_kernel;
use super::linux::{said, start};
use super::support::{create, dombuild, domid, file, number, path_text, run, shell, wait_for};
use super::twin::same_keys_but;
use super::vnc::{Picture, choose_first_console};

pub(crate) const TESTS: &[Test] = &[
    ("served_devices_work_as_pvh", || work("pvh")),
    ("served_devices_work_as_pv", || work("pv")),
    ("served_devices_are_as_xl_has_them", same_as_xl),
    ("vnc_shows_an_hvm_guests_card", vnc_of_hvm),
    ("served_devices_of_bad_input", bad_input),
];

/// The QEMU and the xl of Xen 4.17 and of 4.20 differ.
const IS_417: bool = matches!(env!("DOMBUILD_XEN_VERSION").as_bytes(), b"4.17");

fn node(domid: DomId, path: &str) -> String {
    shell(&format!("xenstore-read /local/domain/{domid}/{path}")).trim().to_owned()
}

/// A line that a guest writes to a channel, after one that it gets.
fn exchange(mut to: impl Write, from: impl std::io::Read, number: u32) {
    to.write_all(b"from dom0\n").expect("written");
    let mut lines = BufReader::new(from).lines();
    // A terminal echoes what the guest is told.
    let answered = lines.any(|line| line.expect("a line").trim() == "from the guest");
    assert!(answered, "the guest answers");
    wait_for("the guest has read", 30, || said(&format!("channel {number}")).as_deref() == Some("from dom0"));
}

fn work(kind: &str) {
    let folder = tempfile::tempdir().expect("a folder");
    let (share, socket) = (folder.path().join("share"), folder.path().join("socket"));
    fs::create_dir(&share).expect("made");
    fs::write(share.join("line"), "line of the share\n").expect("written");
    shell("ip link set lo up");
    let flags = [
        "--kind".to_owned(),
        kind.to_owned(),
        "--memory=128".to_owned(),
        format!("--p9=tag=data,path={},security_model=none", path_text(&share)),
        "--vfb=".to_owned(),
        "--channel=name=org.example.a,connection=pty".to_owned(),
        format!("--channel=name=org.example.b,connection=socket,path={}", path_text(&socket)),
    ];
    let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
    let built = start(&flags, "guest.screen guest.drivers guest.share=data guest.channel=1 guest.channel=2");
    let domain = domid(&built);
    wait_for("the share is mounted", 60, || said("share data").is_some());
    assert_eq!(said("share data").as_deref(), Some("line of the share"));
    wait_for("the guest writes to the share", 30, || share.join("written").exists());

    wait_for("the first channel is open", 60, || said("channel").is_some());
    let tty = node(domain, "device/console/1/tty");
    let pty = fs::OpenOptions::new().read(true).write(true).open(&tty).expect("the channel's pty");
    exchange(&pty, &pty, 1);
    let stream = UnixStream::connect(&socket).expect("QEMU listens");
    exchange(&stream, &stream, 2);
    assert_eq!(fs::read_to_string(share.join("written")).expect("text"), "from the guest\n");

    wait_for("the guest writes to its screen", 30, || said("screen").is_some());
    let port = node(domain, "console/vnc-port");
    if !IS_417 {
        // QEMU 10 has chosen a console before there is one.
        choose_first_console(&port);
    }
    // QEMU draws while a client looks.
    let mut picture = Picture::take(&port);
    wait_for("VNC shows the guest's console", 30, || {
        picture = Picture::take(&port);
        picture.width == 800 && picture.lit() > 2000
    });
    assert_eq!(picture.height, 600, "the framebuffer of Linux");
    if Path::new("/results").is_dir() {
        fs::write(format!("/results/console-{kind}.ppm"), picture.pixmap()).expect("written");
    }
    assert_filtered(number(&built, "device_model_pid"));
    let listed = shell("xl list -l t");
    for list in ["vfbs", "vkbs", "p9s", "channels"] {
        assert!(listed.contains(&format!("\"{list}\"")), "{list}: {listed}");
    }
    dombuild(&["destroy", "t"]).success();
    assert!(!socket.exists(), "the socket goes with the guest");
}

fn same_as_xl() {
    if !IS_417 {
        println!("not on this Xen: xl 4.20 starts no QEMU for a guest that has shares and channels alone");
        return;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let share = path_text(folder.path()).to_owned();
    shell("ip link set lo up");
    let kernel = file(&tiny_kernel());
    let kernel = path_text(&kernel);
    let sockets = ["theirs", "ours"].map(|name| format!("{share}/{name}"));
    let (p9, vfb) = (format!("tag=data,path={share},security_model=none"), "vnc=1,vncdisplay=7");
    // xl of Xen 4.17 loses the first channel.
    let lost = "\"name=lost,connection=pty\",";
    let channel = |own: usize| format!("name=org.example.a,connection=socket,path={}", sockets[own]);
    let vfb_line = format!("vfb=[\"{vfb}\"]\n");
    let config = format!(
        "type=\"pvh\"\nname=\"x\"\nmemory=64\nkernel=\"{kernel}\"\nextra=\"quiet\"\np9=[\"{p9}\"]\n{vfb_line}\
         channel=[{lost}\"{}\"]\n",
        channel(0)
    );
    let config = file(config.as_bytes());
    shell(&format!("xl create -p {}", path_text(&config)));
    let theirs = DomId::new(shell("xl domid x").trim().parse().expect("a domid")).expect("a domid");
    let flags = ["--kind", "pvh", "--model", "libxl", "--memory", "64", "--kernel", kernel, "--cmdline", "quiet"];
    let channel = channel(1);
    let devices = ["--paused", "--p9", &p9, "--channel", &channel, "--vfb", vfb];
    let ours = domid(&create("t", &[&flags[..], &devices].concat()));
    // VNC takes the next free display.
    let ports = [theirs, ours].map(|domid| node(domid, "console/vnc-port"));
    assert_eq!(ports, ["5907", "5908"]);
    let pairs = [(sockets[0].as_str(), sockets[1].as_str()), ("\"5907\"", "\"5908\"")];
    let keys = same_keys_but(theirs, ours, &[], &pairs);
    println!("with devices that QEMU serves, the same as xl's: {keys} keys");
    shell("xl destroy x");
    dombuild(&["destroy", "t"]).success();
    assert!(!Path::new(&sockets[1]).exists());
}

/// The port, and a picture of what the firmware shows. A password is told to QEMU, or refused with the reason.
fn vnc_of_hvm() {
    shell("ip link set lo up");
    let built = create("t", &["--memory", "64", "--vfb", "vncdisplay=3,keymap=de"]);
    let domain = domid(&built);
    assert_eq!(node(domain, "console/vnc-port"), "5903");
    assert_filtered(number(&built, "device_model_pid"));
    wait_for("the firmware shows something", 60, || Picture::take("5903").lit() > 500);
    // The firmware changes the mode of the card, and QEMU the picture. QEMU still serves both: it shows what comes then.
    thread::sleep(Duration::from_secs(2));
    Picture::take("5903");
    assert!(ask(u64::from(domain.get()), &json!({ "execute": "query-vnc" })).is_some());
    // A display that is in use, and must be that one.
    let ran = dombuild(&["create", "--name", "u", "--memory", "64", "--vfb", "vncdisplay=3,vncunused=0"]);
    assert_ne!(ran.status, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("listen on port 5903 of 127.0.0.1"), "{ran:?}");
    dombuild(&["destroy", "t"]).success();

    let ran = dombuild(&["create", "--name", "t", "--memory", "64", "--vfb", "vncpasswd=secret"]);
    match ran.status {
        Some(0) => {
            let stream = std::net::TcpStream::connect("127.0.0.1:5900").expect("VNC listens");
            let mut reader = BufReader::new(stream);
            let mut greeting = [0; 12];
            std::io::Read::read_exact(&mut reader, &mut greeting).expect("a greeting");
            reader.get_mut().write_all(&greeting).expect("written");
            let mut kinds = [0; 2];
            std::io::Read::read_exact(&mut reader, &mut kinds).expect("kinds");
            assert_eq!(kinds, [1, 2], "a password is wanted");
            dombuild(&["destroy", "t"]).success();
        }
        _ => {
            println!("this QEMU takes no password: {}", ran.stderr.trim());
            let error = ran.json()["error"].clone();
            assert!(message(&error).contains("leave vncpasswd out"), "{error}");
        }
    }
    assert!(!ran.stderr.contains("secret") && !ran.stdout.contains("secret"), "{ran:?}");
}

fn bad_input() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| path_text(&folder.path().join(name)).to_owned();
    fs::write(path("file"), "x").expect("written");
    let listener = UnixListener::bind(path("busy")).expect("bound");
    let channel = |name: &str| format!("name=a,connection=socket,path={}", path(name));
    for (words, code, text) in [
        (vec!["--p9".to_owned(), format!("tag=t,path={}", path("none"))], "bad-file", "No such file or directory"),
        (vec!["--p9".to_owned(), format!("tag=t,path={}", path("file"))], "bad-file", "not a directory"),
        (vec!["--channel".to_owned(), channel("file")], "bad-file", "QEMU would make its socket there"),
        (vec!["--channel".to_owned(), channel("busy")], "bad-file", "removes it"),
    ] {
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let ran = create_with("t", &words);
        let error = ran.failed_with(3, code);
        assert!(message(&error).contains(text), "{words:?}: {error}");
    }
    let share = format!("tag=t,path={}", path(""));
    let error = dombuild(&["create", "--name", "t", "--memory", "64", "--p9", &share]).failed_with(3, "bad-config");
    assert!(
        message(&error).contains("share t: only QEMU can serve it") && message(&error).contains("--device-model-root")
    );
    drop(listener);
    assert!(Path::new(&path("busy")).exists() && Path::new(&path("file")).exists());
    assert_eq!(run("xl", &["domid", "t"]).status, Some(1));
}
