//! Disks and network cards that a guest cannot have: `create` says why and what to do, and the host is as it was.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::symlink;

use nix::fcntl::{FcntlArg, fcntl};
use nix::libc;

use super::Test;
use super::devices::{Images, Link, LoopDevice, create_with, loops, message};
use super::failures::dombuild_after;
use super::support::{dombuild, domid, file, path_text, run, shell};

pub(crate) const TESTS: &[Test] = &[
    ("device_failures_of_input", bad_input),
    ("device_failures_of_images_in_use", in_use),
    ("device_failures_of_one_image_twice", one_image_twice),
    ("device_failures_of_mounted_images", mounted),
    ("device_failures_of_images_that_qemu_has", held_by_qemu),
    ("device_failures_of_interfaces", taken_interface),
    ("device_failures_of_drivers", no_driver),
];

/// Asks for a guest that it does not get, and checks the error. What stays fails the test at its end.
fn refused(flags: &[&str], code: &str, words: &[&str]) {
    let error = create_with("refused", flags).failed_with(3, code);
    for word in words {
        assert!(message(&error).contains(word), "{word}: {error}");
    }
}

fn refused_disk(spec: &str, code: &str, words: &[&str]) {
    refused(&["--disk", spec], code, words);
}

fn bad_input() {
    let images = Images::new();
    let image = images.image("image");
    let empty = images.path("empty");
    File::create(&empty).expect("made");
    let text = images.path("text");
    fs::write(&text, "#!/bin/sh\n").expect("written");
    let _link = Link::bridge("test0");
    let disk = |target: &str| format!("vdev=xvda,target={target}");
    refused_disk(&disk("/nowhere/image"), "bad-file", &["disk xvda", "/nowhere/image", "No such file"]);
    refused_disk(&disk("/tmp"), "bad-file", &["/tmp is a directory"]);
    refused_disk(&disk("/dev/zero"), "bad-file", &["/dev/zero is a special file"]);
    refused_disk(&disk(&empty), "bad-file", &[&empty, "size of 0"]);
    // Nothing else is attached when one device is wrong.
    refused(
        &["--disk", &disk(&image), "--vif", "bridge=none0"],
        "bad-config",
        &["no bridge \"none0\"", "ip link add none0 type bridge"],
    );
    refused(&["--vif", ""], "bad-config", &["no bridge \"xenbr0\"", "bridge=NAME in --vif"]);
    refused(&["--vif", "bridge=lo"], "bad-config", &["\"lo\" is not a bridge", "ip link show type bridge"]);
    refused_disk(
        &format!("{},backend=missing", disk("").replace("target=", "backendtype=phy")),
        "bad-config",
        &["target"],
    );
    refused(
        &["--disk", &format!("vdev=xvda,backend=missing,target={image}")],
        "bad-config",
        &["no domain \"missing\"", "dombuild list"],
    );
    refused(&["--vif", "bridge=test0,backend=32000"], "bad-config", &["no domain \"32000\""]);
    for (script, says) in
        [("no-such-script", "No such file"), (text.as_str(), "Permission denied"), ("/etc", "Permission denied")]
    {
        let path = if script.starts_with('/') { script.to_owned() } else { format!("/etc/xen/scripts/{script}") };
        refused(&["--disk", &format!("vdev=xvda,script={script},target=x")], "bad-file", &[&path, says]);
        refused(&["--vif", &format!("bridge=test0,script={script}")], "bad-file", &[&path, says]);
    }
    refused(&["--vif", "brigde=test0"], "bad-config", &["column 1", "brigde"]);
}

/// The guest `t` has the image, as `spec` says.
struct Holder;

impl Holder {
    fn of(spec: &str) -> Self {
        create_with("t", &["--disk", spec]).success();
        Self
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        dombuild(&["destroy", "t"]);
    }
}

const WAY_OUT: &str = "detach it there, or give it to all of them with access=ro; access=w! shares it for writing";

fn in_use() {
    let images = Images::new();
    let image = images.image("image");
    let link = images.path("link");
    symlink(&image, &link).expect("linked");
    let with = |access: &str, target: &str| format!("vdev=xvdb,access={access},target={target}");
    {
        let _holder = Holder::of(&with("rw", &image));
        let user = format!("domain {} has it for writing", shell("xl domid t").trim());
        for (access, target) in [("rw", &image), ("ro", &link)] {
            refused_disk(&with(access, target), "bad-config", &["disk xvdb", target, &user, WAY_OUT]);
        }
        // The other devices of a guest go with it.
        let other = images.image("other");
        refused(
            &["--disk", &format!("vdev=xvda,target={other}"), "--disk", &with("rw", &image)],
            "bad-config",
            &[&user],
        );
        let one = loops().len();
        create_with("u", &["--disk", &with("w!", &image)]).success();
        assert_eq!(loops().len(), one + 1);
        dombuild(&["destroy", "u"]).success();
    }
    {
        let _holder = Holder::of(&with("ro", &image));
        refused_disk(&with("rw", &image), "bad-config", &["has it for reading", WAY_OUT]);
        create_with("u", &["--disk", &with("ro", &image)]).success();
        dombuild(&["destroy", "u"]).success();
    }
    // A block device, and the file below it.
    let block = LoopDevice::of(&image);
    {
        let _holder = Holder::of(&with("rw", &block.0));
        for target in [&block.0, &image] {
            refused_disk(&with("rw", target), "bad-config", &["has it for writing"]);
        }
    }
    {
        let _holder = Holder::of(&with("rw", &image));
        refused_disk(&with("ro", &block.0), "bad-config", &["has it for writing"]);
    }
}

fn one_image_twice() {
    let images = Images::new();
    let image = images.image("image");
    let block = LoopDevice::of(&image);
    let twice = |one: &str, other: &str, second: &str| {
        [format!("vdev=xvda,access={one},target={image}"), format!("vdev=xvdb,access={other},target={second}")]
    };
    for (one, other, second) in
        [("rw", "rw", &image), ("ro", "rw", &image), ("w!", "ro", &image), ("rw", "ro", &block.0)]
    {
        let [one, other] = twice(one, other, second);
        refused(
            &["--disk", &one, "--disk", &other],
            "bad-config",
            &["disk xvdb", "vbd 51712 of this guest has it, too"],
        );
    }
    // QEMU does not lock what it serves.
    let [one, other] = ["xvda", "xvdb"].map(|vdev| format!("vdev={vdev},backendtype=qdisk,target={image}"));
    refused(&["--disk", &one, "--disk", &other], "bad-config", &["vbd 51712 of this guest has it, too"]);
    for (one, other) in [("ro", "ro"), ("w!", "w!")] {
        let [one, other] = twice(one, other, &image);
        create_with("t", &["--disk", &one, "--disk", &other]).success();
        dombuild(&["destroy", "t"]).success();
    }
}

/// A mounted file system in a file: the first part of dom0's own has all that a mount reads.
fn mounted() {
    let images = Images::new();
    let (image, directory) = (images.path("image"), images.path("mounted"));
    shell(&format!(
        "dd if=/dev/vda of={image} bs=1M count=6 2>/dev/null && truncate -s 2G {image} && mkdir {directory}"
    ));
    let block = LoopDevice::of(&image);
    for (options, may_read) in [("rw", false), ("ro", true)] {
        shell(&format!("mount -t ext4 -o {options} {} {directory}", block.0));
        for target in [&image, &block.0] {
            let spec = |access: &str| format!("vdev=xvda,access={access},target={target}");
            let says = format!("dom0 has mounted it at \"{directory}\"");
            if may_read {
                refused_disk(&spec("rw"), "bad-config", &[&says, "unmount it first"]);
                create_with("t", &["--disk", &spec("ro")]).success();
                dombuild(&["destroy", "t"]).success();
            } else {
                refused_disk(&spec("ro"), "bad-config", &[&says]);
            }
        }
        shell(&format!("umount {directory}"));
    }
    refused_disk("/dev/vda,raw,xvda,r", "bad-config", &["dom0 has mounted it at \"/\""]);
}

/// A lock as QEMU takes it: of an open file description, shared, on one byte (`raw_apply_lock_bytes`, block/file-posix.c,
/// QEMU 7.2).
fn held_by_qemu() {
    let images = Images::new();
    let image = images.image("image");
    let spec = |access: &str| format!("vdev=xvda,access={access},target={image}");
    for (byte, says, may_read) in [(101, "a QEMU has it for writing", false), (100, "a QEMU has it for reading", true)]
    {
        let held = OpenOptions::new().read(true).write(true).open(&image).expect("opened");
        let lock = libc::flock {
            l_type: libc::c_short::try_from(libc::F_RDLCK).expect("small"),
            l_whence: libc::c_short::try_from(libc::SEEK_SET).expect("small"),
            l_start: byte,
            l_len: 1,
            l_pid: 0,
        };
        fcntl(&held, FcntlArg::F_OFD_SETLK(&lock)).expect("locked");
        refused_disk(&spec("rw"), "bad-config", &[says, WAY_OUT]);
        if !may_read {
            refused_disk(&spec("ro"), "bad-config", &[says]);
        }
        create_with("t", &["--disk", &spec(if may_read { "ro" } else { "w!" })]).success();
        dombuild(&["destroy", "t"]).success();
        drop(held);
    }
    create_with("t", &["--disk", &spec("rw")]).success();
    dombuild(&["destroy", "t"]).success();
}

fn taken_interface() {
    let images = Images::new();
    let image = images.image("image");
    let _bridge = Link::bridge("test0");
    let disk = format!("vdev=xvda,target={image}");
    let card = "bridge=test0,vifname=taken";
    let created = create_with("t", &["--vif", card]).success().json();
    // The interface that the card has at first is in order, its name is not.
    refused(
        &["--disk", &disk, "--vif", card],
        "bad-config",
        &["dom0 has an interface \"taken\" already", "another vifname"],
    );
    refused(
        &["--vif", "bridge=test0", "--vif", "bridge=test0,vifname=test0"],
        "bad-config",
        &["network card 1", "\"test0\""],
    );
    let ports = shell("ls /sys/class/net/test0/brif");
    assert_eq!(ports.trim(), "taken", "{created}");
    assert_eq!(run("ip", &["link", "show", &format!("vif{}.0", domid(&created))]).status, Some(1));
    dombuild(&["destroy", "t"]).success();
}

fn no_driver() {
    let images = Images::new();
    let image = images.image("image");
    let _bridge = Link::bridge("test0");
    shell("modprobe -r xen-netback");
    let refusal = std::panic::catch_unwind(|| {
        refused(&["--vif", "bridge=test0"], "bad-config", &["no backend for vif", "`modprobe xen-netback` loads it"]);
    });
    shell("modprobe xen-netback");
    refusal.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    // A directory without drivers, for this process alone.
    let kernel = file(&super::faults::tiny_kernel());
    let kernel = path_text(&kernel);
    let disk = format!("vdev=xvda,target={image}");
    let words =
        ["create", "--name", "t", "--kind", "pvh", "--memory", "64", "--kernel", kernel, "--paused", "--disk", &disk];
    let ran = dombuild_after("mount -t tmpfs none /sys/bus/xen-backend/drivers", &words);
    let error = ran.failed_with(3, "bad-config");
    assert!(message(&error).contains("`modprobe xen-blkback` loads it"), "{error}");
}
