//! Disks and network cards: a guest uses them, they are the devices that xl attaches, and nothing of them stays.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dombuild::xen::DomId;
use serde_json::Value;

use super::Test;
use super::faults::tiny_kernel;
use super::libxl_record::listed;
use super::linux::{self, CRASHED, QUICK};
use super::support::{
    CMDLINE, DOMBUILD, GUEST_INITRD, GUEST_KERNEL, Host, PACKED_KERNEL, Ran, dombuild, domid, file, path_text, run,
    shell,
};
use super::twin::same_keys_but;

pub(crate) const TESTS: &[Test] = &[
    ("devices_work_as_pvh", || work("pvh")),
    ("devices_work_as_pv", || work("pv")),
    ("devices_work_as_hvm", work_as_hvm),
    ("the_same_devices_as_xl_attaches_to_pvh", || same_as_xl("pvh")),
    ("the_same_devices_as_xl_attaches_to_pv", || same_as_xl("pv")),
    ("devices_many_disks", many_disks),
    ("devices_odd_paths", odd_paths),
];

/// Images of disks; they go with the value.
pub(crate) struct Images(tempfile::TempDir);

impl Images {
    /// The size of each, in bytes.
    const SIZE: usize = 1 << 20;

    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub(crate) fn path(&self, name: &str) -> String {
        path_text(&self.0.path().join(name)).to_owned()
    }

    /// An image of this name, whose first line is `line of NAME`.
    pub(crate) fn image(&self, name: &str) -> String {
        let path = self.path(name);
        fs::create_dir_all(Path::new(&path).parent().expect("a directory")).expect("made");
        let mut content = format!("line of {name}\n").into_bytes();
        content.resize(Self::SIZE, 0);
        fs::write(&path, content).expect("written");
        path
    }
}

/// A loop device that no guest and no toolstack has made; it goes with the value.
pub(crate) struct LoopDevice(pub(crate) String);

impl LoopDevice {
    pub(crate) fn of(image: &str) -> Self {
        Self(run("losetup", &["-f", "--show", image]).success().stdout.trim().to_owned())
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        run("losetup", &["-d", &self.0]);
    }
}

/// A network interface of dom0's; it goes with the value.
pub(crate) struct Link(&'static str);

impl Link {
    pub(crate) fn bridge(name: &'static str) -> Self {
        let link = Self(name);
        shell(&format!("ip link add {name} type bridge && ip link set {name} up"));
        link
    }

    pub(crate) fn address(self, address: &str) -> Self {
        shell(&format!("ip addr add {address}/24 dev {}", self.0));
        self
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        run("ip", &["link", "del", self.0]);
    }
}

/// Creates a small paused guest with these flags.
pub(crate) fn create_with(name: &str, flags: &[&str]) -> Ran {
    let kernel = file(&tiny_kernel());
    let kernel = path_text(&kernel);
    let guest = ["--kind", "pvh", "--memory", "64", "--kernel", kernel, "--ramdisk", kernel, "--paused"];
    dombuild(&[&["create", "--name", name], &guest[..], flags].concat())
}

/// The loop devices that have a file, a line each.
pub(crate) fn loops() -> Vec<String> {
    shell("losetup -a").lines().map(str::to_owned).collect()
}

/// What an emulated PC's kernel leaves out, since each access to its devices takes long here.
pub(crate) const HVM_QUICK: &str =
    "quiet edd=off nokaslr tsc=reliable no_timer_check i8042.noaux i8042.nokbd 8250.nr_uarts=0";

/// Creates the small Linux guest in the foreground, and waits until it has ended.
fn run_linux(kind: &str, flags: &[&str], words: &str) -> Ran {
    let (stdout, stderr) = (file(b""), file(b""));
    let cmdline = format!("{CMDLINE} {QUICK} {words} guest.poweroff");
    let opened = |path: &Path| Stdio::from(File::create(path).expect("opened"));
    // An HVM guest gets its kernel from QEMU, which takes a packed one alone.
    let files: Vec<String> = match kind {
        "hvm" => {
            [("-kernel", PACKED_KERNEL), ("-initrd", GUEST_INITRD), ("-append", &format!("{cmdline} {HVM_QUICK}"))]
                .iter()
                .flat_map(|(flag, value)| [format!("--dm-arg={flag}"), format!("--dm-arg={value}")])
                .collect()
        }
        _ => ["--kernel", GUEST_KERNEL, "--ramdisk", GUEST_INITRD, "--cmdline", &cmdline].map(str::to_owned).to_vec(),
    };
    linux::expect_guest();
    let mut child = Command::new(DOMBUILD)
        .args(["--json", "create", "--name", "t", "--foreground", "--platform", "tsc_mode=2"])
        .args(["--kind", kind, "--memory", if kind == "hvm" { "192" } else { "128" }])
        .args(files)
        .args(flags)
        .stdin(Stdio::null())
        .stdout(opened(&stdout))
        .stderr(opened(&stderr))
        .spawn()
        .expect("it starts");
    let end = Instant::now() + Duration::from_secs(if kind == "hvm" { 1800 } else { 240 });
    while child.try_wait().expect("asked").is_none() {
        if linux::kernel_crashed() || Instant::now() > end {
            shell("xl destroy t");
            child.wait().expect("it ends");
            panic!("{CRASHED}: {}", linux::console());
        }
        thread::sleep(Duration::from_millis(200));
    }
    let read = |path: &Path| fs::read_to_string(path).expect("read");
    Ran { status: child.wait().expect("it ended").code(), stdout: read(&stdout), stderr: read(&stderr) }
}

/// On Xen 4.17, whose dom0 has a kernel packed by xz, the unpacking alone takes minutes in the emulation.
fn work_as_hvm() {
    if env!("DOMBUILD_XEN_VERSION") != "4.17" || super::sample::full() {
        work("hvm");
    } else {
        println!("on this Xen only with --full: the guest's kernel takes many minutes to unpack itself");
    }
}

fn work(kind: &str) {
    let images = Images::new();
    let (own, of_block, fixed) = (images.image("file"), images.image("block"), images.image("fixed"));
    let block = LoopDevice::of(&of_block);
    let _bridges = [Link::bridge("test0").address("10.9.0.1"), Link::bridge("test1").address("10.9.1.1")];
    let before = Host::now();
    // QEMU has no read-only IDE disks, and xvdc is one of an HVM guest.
    let third = if kind == "hvm" { "xvde" } else { "xvdc" };
    let disks = [
        format!("{own},raw,xvda,w"),
        format!("{},raw,xvdb,w", block.0),
        format!("vdev={third},access=ro,target={fixed}"),
    ];
    let cards = ["bridge=test0,mac=00:16:3e:00:00:01", "bridge=test1,mac=00:16:3e:00:00:02,vifname=second"];
    let mut flags: Vec<&str> = disks.iter().flat_map(|disk| ["--disk", disk]).collect();
    flags.extend(cards.iter().flat_map(|card| ["--vif", card]));
    let words = format!(
        "guest.drivers guest.disk=xvda guest.disk=xvdb guest.disk={third} guest.net=0,10.9.0.2,10.9.0.1 \
         guest.net=1,10.9.1.2,10.9.1.1"
    );
    let ran = run_linux(kind, &flags, &words).success();
    assert_eq!(ran.json()["ended"], "poweroff", "{ran:?}");
    let console = linux::console();
    for line in [
        "disk xvda 2048 line of file",
        "wrote xvda",
        "disk xvdb 2048 line of block",
        "wrote xvdb",
        &format!("disk {third} 2048 line of fixed"),
        &format!("disk {third} is read-only"),
        "net 0 00:16:3e:00:00:01 ping 10.9.0.1 yes",
        "net 1 00:16:3e:00:00:02 ping 10.9.1.1 yes",
    ] {
        assert!(console.lines().any(|shown| shown.trim() == format!("guest: {line}")), "{line}: {console}");
    }
    for (path, written) in [(&own, true), (&of_block, true), (&fixed, false)] {
        let content = fs::read(path).expect("read");
        assert_eq!(content.len(), Images::SIZE, "{path}");
        assert_eq!(content[512..].starts_with(b"from the guest\n"), written, "{path}");
        assert!(written || content[512..].iter().all(|byte| *byte == 0), "{path}");
    }
    before.assert_back().unwrap_or_else(|left| panic!("{left}"));
}

/// The value of a node of a device's backend.
fn backend_node(domid: DomId, device: &str, node: &str) -> String {
    let (kind, devid) = device.split_once('/').expect("a class and a number");
    shell(&format!("xenstore-read /local/domain/0/backend/{kind}/{domid}/{devid}/{node}")).trim().to_owned()
}

fn same_as_xl(kind: &str) {
    let images = Images::new();
    let _bridges = [Link::bridge("test0"), Link::bridge("test1")];
    let shared = images.image("shared");
    let kernel = file(&tiny_kernel());
    let kernel = path_text(&kernel);
    let owns = [images.image("x/own"), images.image("t/own")];
    let directories = [images.path("x/"), images.path("t/")];
    // Each kind of guest has other options.
    let (first, second, options, name, card) = match kind {
        "pvh" => ("xvda,access=ro", "xvdb,access=rw", "direct-io-safe", "vifname=", "ip=10.0.0.2 10.0.0.3"),
        _ => ("xvdc,cdrom", "sda1,access=rw", "no-discard", "vifname=", "gatewaydev=lo"),
    };
    let spec = |own: usize| {
        let name = format!("{name}{}", if own == 0 { "theirs" } else { "ours" });
        let disks = [format!("vdev={first},target={shared}"), format!("vdev={second},{options},target={}", owns[own])];
        let cards = [
            format!("bridge=test0,mac=00:16:3e:00:00:01,rate=10Mb/s,mtu=1400,{card},{name}"),
            format!("bridge=test1,mac=00:16:3e:00:00:02{}", if kind == "pv" { ",devid=3" } else { "" }),
        ];
        (disks, cards)
    };
    let (disks, cards) = spec(0);
    let config = format!(
        "type=\"{kind}\"\nname=\"x\"\nmemory=64\nkernel=\"{kernel}\"\nextra=\"quiet\"\ndisk={disks:?}\nvif={cards:?}\n"
    );
    let config = file(config.as_bytes());
    shell(&format!("xl create -p {}", path_text(&config)));
    let theirs = DomId::new(shell("xl domid x").trim().parse().expect("a domid")).expect("a domid");

    let (disks, cards) = spec(1);
    let mut flags = vec![
        "--kind",
        kind,
        "--model",
        "libxl",
        "--memory",
        "64",
        "--kernel",
        kernel,
        "--cmdline",
        "quiet",
        "--paused",
    ];
    flags.extend(disks.iter().flat_map(|disk| ["--disk", disk]));
    flags.extend(cards.iter().flat_map(|card| ["--vif", card]));
    let ours = domid(&super::support::create("t", &flags));

    // Each guest has loop devices, an image and an interface of its own. The nodes must be there in both.
    let vbds = if kind == "pvh" { ["vbd/51712", "vbd/51728"] } else { ["vbd/51744", "vbd/2049"] };
    let mut pairs =
        vec![[directories[0].clone(), directories[1].clone()], ["\"theirs\"".to_owned(), "\"ours\"".to_owned()]];
    for vbd in vbds {
        for node in ["physical-device", "physical-device-path"] {
            pairs.push([theirs, ours].map(|domid| format!("\"{}\"", backend_node(domid, vbd, node))));
        }
        assert_eq!(backend_node(ours, vbd, "node"), backend_node(ours, vbd, "physical-device-path"));
    }
    let pairs: Vec<(&str, &str)> = pairs.iter().map(|[their, our]| (their.as_str(), our.as_str())).collect();
    let differing: &[&str] = if kind == "pv" { &["/ring-ref"] } else { &[] };
    let keys = same_keys_but(theirs, ours, differing, &pairs);
    println!("{kind} with devices, the same as xl's: {keys} keys");

    // What xl itself shows of both.
    let shown = |name: &str, part: &str| {
        // xl writes down that no disk has a copy on another host, which is the default.
        let text = listed(name)[part].to_string().replace("\"colo_restore_enable\":\"False\",", "");
        let own = usize::from(name == "t");
        pairs.iter().fold(text, |text, pair| text.replace([pair.0, pair.1][own], "OWN"))
    };
    for part in ["disks", "nics"] {
        assert_eq!(shown("t", part), shown("x", part));
    }

    // xl's guest may write to its image: no other guest gets it.
    for access in ["rw", "ro"] {
        let ran = create_with("u", &["--disk", &format!("vdev=xvda,access={access},target={}", owns[0])]);
        let error = ran.failed_with(3, "bad-config");
        let message = error["message"].as_str().expect("text");
        assert!(message.contains(&format!("domain {theirs} has it for writing")), "{message}");
    }
    shell("xl destroy x");
    dombuild(&["destroy", "t"]).success();
    // xl's vif-bridge takes the name of the interface for the number of a domain, and writes an MTU for that domain.
    assert_eq!(run("xenstore-exists", &["/local/domain/theirs/device/vif"]).status, Some(0));
    assert_eq!(run("xenstore-exists", &["/local/domain/ours"]).status, Some(1));
    shell("xenstore-rm /local/domain/theirs");
}

fn many_disks() {
    let images = Images::new();
    for most in [16_u8, 17] {
        let before = loops().len();
        let disks: Vec<String> = (b'a'..b'a' + most)
            .map(|letter| format!("{},raw,xvd{},w", images.image(&char::from(letter).to_string()), char::from(letter)))
            .collect();
        let flags: Vec<&str> = disks.iter().flat_map(|disk| ["--disk", disk]).collect();
        let created = create_with("t", &flags).success().json();
        assert_eq!(loops().len(), before + usize::from(most));
        let listed = shell("xl block-list t");
        let states = listed.lines().skip(1).map(|line| line.split_whitespace().nth(3));
        assert_eq!(states.filter(|state| *state == Some("1")).count(), usize::from(most), "{listed}");
        let opened = shell(&format!("ls -d /sys/bus/xen-backend/devices/vbd-{}-*/physical_device", domid(&created)));
        assert_eq!(opened.lines().count(), usize::from(most), "{opened}");
        dombuild(&["destroy", "t"]).success();
        assert_eq!(loops().len(), before);
    }
}

fn odd_paths() {
    let images = Images::new();
    let path = images.image("a b,c=d,é'\"$(x)\\");
    create_with("t", &["--disk", &format!("vdev=xvda,access=ro,target={path}")]).success();
    let params = shell("xenstore-read /local/domain/0/backend/vbd/$(xl domid t)/51712/params");
    // xenstore-read shows bytes beyond ASCII as octal numbers.
    assert!(params.trim_end().contains("/a b,c=d,"), "{params}");
    let backing = shell("cat /sys/block/loop*/loop/backing_file");
    assert_eq!(backing.trim_end(), path);
    assert_eq!(shell("cat $(dirname $(dirname $(ls /sys/block/loop*/loop/backing_file)))/ro").trim(), "1");
    dombuild(&["destroy", "t"]).success();

    // A name that is no text of xenstore's.
    let spec = [b"vdev=xvda,target=".as_slice(), images.path("").as_bytes(), b"\xff"].concat();
    let output = Command::new(DOMBUILD)
        .args(["--json", "create", "--name", "t", "--disk"])
        .arg(std::ffi::OsStr::from_bytes(&spec))
        .output();
    let ran = Ran::new(&output.expect("it runs"));
    assert_eq!(ran.status, Some(2), "{ran:?}");
    assert!(ran.stderr.contains("invalid UTF-8"), "{ran:?}");
}

/// What a guest's record of an error shows.
pub(crate) fn message(error: &Value) -> &str {
    error["message"].as_str().expect("text")
}
