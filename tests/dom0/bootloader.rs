//! `create --bootloader`: pygrub takes the kernel of a guest from an image with a partition table and a file system, as with xl; and
//! programs in its place that look around, hang, write without an end, or answer with what is not theirs.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::Test;
use super::fat_image::{Entry, image};
use super::libxl_record::listed;
use super::linux::{QUICK, expect_guest, said, wait_until_ready};
use super::sample::Random;
use super::support::{
    CMDLINE, GUEST_INITRD, PACKED_KERNEL, create, dombuild, domid, file, path_text, run, script, shell, start_silently,
    wait_for,
};

pub(crate) const TESTS: &[Test] = &[
    ("walk_pygrub_boots_a_guest_from_its_disk", boots),
    ("a_boot_loader_reaches_nothing_but_its_disk", confined),
    ("a_boot_loader_that_hangs_or_writes_without_an_end", without_an_end),
    ("a_boot_loader_that_gives_no_kernel", no_kernel),
];

/// The directories of boot loaders' runs.
fn work_directories() -> Vec<PathBuf> {
    let entries = fs::read_dir("/var/tmp").expect("a directory").map(|entry| entry.expect("an entry").path());
    entries.filter(|path| path_text(path).contains("dombuild-bootloader-")).collect()
}

/// Nothing is left of a run: no directory, no loop device.
fn assert_nothing_left() {
    assert_eq!(work_directories(), Vec::<PathBuf>::new());
    assert_eq!(shell("losetup -a"), "");
}

/// An image with a configuration of GRUB, whose kernel has this command line.
fn disk(cmdline: &str) -> tempfile::TempPath {
    let (kernel, ramdisk) =
        (fs::read(PACKED_KERNEL).expect("it is there"), fs::read(GUEST_INITRD).expect("it is there"));
    let config = format!(
        "set timeout=1\nmenuentry 'Linux' {{\n  linux /vmlinuz {cmdline}\n  initrd /initrd\n}}\nmenuentry 'Other' {{\n  linux \
         /other\n}}\n"
    );
    let grub = vec![Entry::File("grub.cfg", config.as_bytes())];
    let boot = vec![Entry::Directory("grub", grub)];
    file(&image(&[Entry::Directory("boot", boot), Entry::File("vmlinuz", &kernel), Entry::File("initrd", &ramdisk)]))
}

fn boots() {
    let image = disk(&format!("{CMDLINE} {QUICK}"));
    let spec = format!("{},raw,xvda,w", path_text(&image));
    // A start takes minutes in emulation: one kind, or both in a full run.
    for index in Random::new("pygrub").sample(2, 1) {
        let kind = ["pvh", "pv"][usize::try_from(index).expect("0 or 1")];
        let arguments = [
            "--kind",
            kind,
            "--memory",
            "256",
            "--bootloader",
            "pygrub",
            "--cmdline",
            "added=1",
            "--disk",
            &spec,
            "--platform",
            "tsc_mode=2",
        ];
        expect_guest();
        let built = create("t", &arguments);
        wait_until_ready(domid(&built));
        let cmdline = said("cmdline");
        assert!(cmdline.is_none_or(|cmdline| cmdline.contains("added=1")), "its command line has both parts");
        assert_eq!(work_directories(), Vec::<PathBuf>::new());
        let ours = listed("t")["b_info"].clone();
        dombuild(&["destroy", "t"]).success();
        assert_nothing_left();

        // Beside xl's guest with the same file.
        let config = format!(
            "name='t'\ntype='{kind}'\nmemory=256\nbootloader='pygrub'\nextra='added=1'\ndisk=['{spec}']\ntsc_mode='native'\n"
        );
        let config = file(config.as_bytes());
        run("xl", &["create", "-p", path_text(&config)]).success();
        let theirs = listed("t")["b_info"].clone();
        run("xl", &["destroy", "t"]).success();
        for field in ["bootloader", "bootloader_args", "cmdline", "kernel", "ramdisk"] {
            assert_eq!(ours.get(field), theirs.get(field), "{kind}: {field}");
        }
    }
    // The second entry names a kernel that is not there.
    let arguments = [
        "create",
        "--name",
        "t",
        "--kind",
        "pvh",
        "--memory",
        "256",
        "--bootloader",
        "pygrub",
        "--bootloader-arg",
        "--entry=1",
    ];
    let error = dombuild(&[&arguments[..], &["--disk", &spec]].concat()).failed_with(3, "bad-file");
    let message = error["message"].as_str().expect("text");
    assert!(message.contains("pygrub ended with exit status: 1; it says: ") && message.contains("other"), "{message}");
    assert_nothing_left();
}

/// Runs `create` with this program as the boot loader.
fn with(program: &Path, more: &[&str]) -> (i32, Value) {
    let image = file(&[0; 4096]);
    let spec = format!("{},raw,xvda,w", path_text(&image));
    let arguments = [
        "create",
        "--name",
        "t",
        "--kind",
        "pvh",
        "--memory",
        "128",
        "--bootloader",
        path_text(program),
        "--disk",
        &spec,
    ];
    let ran = dombuild(&[&arguments[..], more].concat());
    assert_nothing_left();
    (ran.status.expect("it ended"), ran.json())
}

/// What a program tries, and whether it may.
const TRIES: &[(&str, &str, bool)] = &[
    ("its disk", "open(sys.argv[-1], 'rb').read(512)", true),
    ("a file of its own", "open(files + '/x', 'w').write('x')", true),
    ("a program's library", "open('/usr/lib/os-release').read()", true),
    ("its disk, to write", "open(sys.argv[-1], 'r+b')", false),
    ("shadow", "open('/etc/shadow').read()", false),
    ("passwd", "open('/etc/passwd').read()", false),
    ("a file in /tmp", "open('/tmp/bootloader-was-here', 'w')", false),
    ("a file in /var/tmp", "open('/var/tmp/bootloader-was-here', 'w')", false),
    ("a file beside its own", "open(files + '/../x', 'w')", false),
    ("a list of /tmp", "os.listdir('/tmp')", false),
    ("a shorter passwd", "os.truncate('/etc/passwd', 0)", false),
    ("the network", "socket.create_connection(('127.0.0.1', 22), 1)", false),
    ("a Unix socket", "socket.socket(socket.AF_UNIX)", false),
    ("Xen", "open('/dev/xen/privcmd', 'rb')", false),
    ("another disk", "open('/dev/loop-control', 'rb')", false),
    ("init's environment", "open('/proc/1/environ').read()", false),
    ("a signal to all", "os.kill(-1, 9)", false),
    ("a child", "os.fork()", false),
    ("a program", "os.posix_spawn('/bin/true', ['true'], {})", false),
    ("root", "os.setuid(0)", false),
    ("another root directory", "os.chroot(files)", false),
    ("a large file", "os.truncate(files + '/x', 2 << 30)", false),
    ("a device", "os.mknod(files + '/d', 0o60600, os.makedev(7, 0))", false),
];

fn confined() {
    let mut text =
        "#!/usr/bin/python3\nimport os, signal, socket, sys\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n\
        files = [word[19:] for word in sys.argv if word.startswith('--output-directory=')][0]\nfound = []\n"
            .to_owned();
    for (number, (_, attempt, _)) in TRIES.iter().enumerate() {
        text.push_str(&format!("try:\n  {attempt}\n  found.append('{number}')\nexcept OSError:\n  pass\n"));
    }
    text.push_str("print('done', ','.join(found), os.getresuid(), os.getresgid(), os.getgroups())\nsys.exit(3)\n");
    let program = script(&text);
    let (status, error) = with(&program, &[]);
    assert_eq!((status, &error["error"]["code"]), (3, &json!("bad-file")), "{error}");
    let message = error["error"]["message"].as_str().expect("text");
    let nobody = "(65534, 65534, 65534)";
    let may: Vec<String> =
        (0..TRIES.len()).filter(|number| TRIES[*number].2).map(|number| number.to_string()).collect();
    let expected = format!("it says: done {} {nobody} {nobody} []", may.join(","));
    assert!(message.contains("ended with exit status: 3") && message.contains(&expected), "{message}\n{expected}");
    for path in ["/tmp/bootloader-was-here", "/var/tmp/bootloader-was-here"] {
        assert!(!Path::new(path).exists(), "{path}");
    }
    assert!(fs::metadata("/etc/passwd").expect("it is there").len() > 0);
    // Without the confinement, the same program may do some of that: the attempts are real ones.
    let harmless = "#!/usr/bin/python3\nimport sys\nopen('/etc/shadow').read()\nprint('read')\nsys.exit(4)\n";
    let (_, error) = with(&script(harmless), &["--bootloader-unconfined"]);
    assert!(error["error"]["message"].as_str().is_some_and(|message| message.contains("it says: read")), "{error}");
}

fn without_an_end() {
    let hanging = script("#!/bin/sh\nprintf 'waiting\\033[2J\\n'\nwhile :; do :; done\n");
    let start = Instant::now();
    let (status, error) = with(&hanging, &["--bootloader-timeout", "3"]);
    assert_eq!((status, &error["error"]["code"]), (8, &json!("timed-out")), "{error}");
    let message = error["error"]["message"].as_str().expect("text");
    assert!(message.contains("was killed after 3 s; it says: waiting\\u{1b}[2J"), "{message}");
    assert!(start.elapsed() < Duration::from_secs(60));
    let runs = || run("pgrep", &["-f", &format!("^/bin/sh {}", path_text(&hanging))]).status == Some(0);
    assert!(!runs());

    // A stop, and a kill: the boot loader goes with its run, and the next run removes what that left.
    let image = file(&[0; 4096]);
    let spec = format!("{},raw,xvda,w", path_text(&image));
    for signal in ["TERM", "KILL"] {
        let arguments = [
            "create",
            "--name",
            "t",
            "--kind",
            "pvh",
            "--memory",
            "128",
            "--bootloader",
            path_text(&hanging),
            "--disk",
            &spec,
        ];
        let mut child = start_silently(&arguments);
        wait_for("the boot loader", 60, runs);
        shell(&format!("kill -{signal} {}", child.id()));
        let status = child.wait().expect("it ends");
        assert_eq!(status.code(), if signal == "TERM" { Some(143) } else { None });
        wait_for("its end", 20, || !runs());
        assert_eq!(work_directories().len(), usize::from(signal == "KILL"));
    }
    let (status, error) =
        with(&script("#!/bin/sh\nwhile :; do echo 0123456789; done\n"), &["--bootloader-timeout", "2"]);
    assert_eq!(status, 8, "{error}");
}

fn no_kernel() {
    let answer = |text: &str| {
        script(&format!(
            "#!/usr/bin/python3\nimport os, sys\nvalue = lambda flag: [w[len(flag):] for w in sys.argv if w.startswith(flag)][0]\n\
             out, files = value('--output='), value('--output-directory=')\n{text}\n"
        ))
    };
    for (text, words) in [
        ("", "gives no kernel: its answer names none"),
        ("open(out, 'w').write('kernel /etc/shadow\\0')", "kernel \"/etc/shadow\" is no file in its directory"),
        ("os.symlink('/etc/shadow', files + '/k')", "ended with exit status: 1; it says: "),
        ("os.mkdir(files + '/k')", "ended with exit status: 1"),
        ("open(out, 'w').write('kernel ' + files + '/../answer\\0')", "is no file in its directory"),
        ("open(files + '/k', 'w').write('x' * 4096)\nopen(out, 'w').write('kernel ' + files + '/k\\0')", "kernel"),
        ("open(out, 'w').write('x' * 100000)", "its answer has more than 65536 bytes"),
    ] {
        let (status, error) = with(&answer(text), &[]);
        let message = error["error"]["message"].as_str().expect("text");
        assert!(status == 3 && message.contains(words), "{text}: {error}");
    }
    let arguments = ["create", "--name", "t", "--kind", "pv", "--memory", "128", "--bootloader", "pygrub"];
    dombuild(&arguments).failed_with(3, "bad-config");
    dombuild(&[&arguments[..], &["--disk", "/a,qcow2,xvda,w"]].concat()).failed_with(3, "bad-config");
}
