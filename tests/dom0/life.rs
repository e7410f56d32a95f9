//! The life of a guest after it was built: xl's commands work on it, and `--foreground` sees its end.

use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use super::Test;
use super::support::{
    DOMBUILD, Ran, create, dombuild, domid, file, number, path_text, run, shell, wait_for, wait_for_guest_line,
};

pub(crate) const TESTS: &[Test] = &[
    ("xl_lists_pauses_and_destroys", xl_lists_pauses_and_destroys),
    ("xl_console_shows_the_serial_port", xl_console),
    ("xl_guests_need_force", xl_guests_need_force),
    ("foreground_tells_that_the_guest_powered_off", foreground_poweroff),
    ("foreground_tells_that_the_guest_was_destroyed", foreground_destroyed),
    ("features_tells_what_runs", features),
];

fn state_of(name: &str) -> String {
    let line = shell(&format!("xl list {name} | tail -1"));
    line.split_whitespace().nth(4).expect("a state").to_owned()
}

fn xl_lists_pauses_and_destroys() {
    let built = create("t", &["--memory", "128"]);
    assert_eq!(shell("xl domid t").trim(), domid(&built).to_string());
    assert_eq!(shell("xl domname $(xl domid t)").trim(), "t");
    assert!(!state_of("t").contains('p'), "it runs");
    shell("xl pause t");
    assert!(state_of("t").contains('p'), "it is paused");
    shell("xl unpause t");
    assert!(!state_of("t").contains('p'), "it runs again");
    wait_for_guest_line(domid(&built), "SeaBIOS (version", 120);
    // That QEMU and every key go with it is what the check after each test sees.
    shell("xl destroy t");
}

/// A boot sector that does this and nothing else.
fn boot_sector(code: &[u8]) -> Vec<u8> {
    let mut sector = code.to_vec();
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    // QEMU wants whole cylinders to guess a geometry from.
    sector.resize(1 << 20, 0);
    sector
}

fn drive(path: &str) -> [String; 4] {
    ["--dm-arg".into(), "-drive".into(), "--dm-arg".into(), format!("file={path},format=raw,if=ide,media=disk")]
}

fn xl_console() {
    // mov dx,0x3f8; again: mov al,'x'; out dx,al; mov cx,0; wait: loop wait; jmp again
    let disk = file(&boot_sector(&[0xba, 0xf8, 0x03, 0xb0, b'x', 0xee, 0xb9, 0, 0, 0xe2, 0xfe, 0xeb, 0xf6]));
    let drive = drive(path_text(&disk));
    let drive: Vec<&str> = drive.iter().map(String::as_str).collect();
    create("t", &[&["--memory", "64"], &drive[..]].concat());
    let tty = shell("xenstore-read /local/domain/$(xl domid t)/serial/0/tty");
    assert!(tty.starts_with("/dev/pts/"), "{tty}");
    // An input that never ends, since xl console ends with it.
    let seen = shell("mkfifo /tmp/input; exec 3<>/tmp/input; timeout 90 xl console t <&3 | head -c 5; rm /tmp/input");
    assert!(seen.contains("xxx"), "{seen:?}");
    shell("xl destroy t");
}

fn xl_guests_need_force() {
    let config = file(b"type=\"hvm\"\nname=\"theirs\"\nmemory=64\nvga=\"none\"\n");
    shell(&format!("xl create -p {}", path_text(&config)));
    dombuild(&["destroy", "theirs"]).failed_with(3, "not-ours");
    assert!(shell("xl list").contains("theirs"), "it is still there");
    dombuild(&["destroy", "theirs", "--force"]).success();
}

fn in_foreground(arguments: &[&str]) -> thread::JoinHandle<Ran> {
    let arguments: Vec<String> = arguments.iter().map(|word| (*word).to_owned()).collect();
    thread::spawn(move || {
        let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
        dombuild(&[&["create", "--foreground", "--name", "t", "--memory", "64"], &words[..]].concat())
    })
}

fn foreground_poweroff() {
    // mov dx,0xb004 (PM1a control, as hvmloader places it); mov ax,0x2000 (sleep enable, type 0: soft off); out dx,ax;
    // hlt; jmp $-1
    let disk = file(&boot_sector(&[0xba, 0x04, 0xb0, 0xb8, 0x00, 0x20, 0xef, 0xf4, 0xeb, 0xfd]));
    let drive = drive(path_text(&disk));
    let drive: Vec<&str> = drive.iter().map(String::as_str).collect();
    let ran = in_foreground(&drive).join().expect("it ran").success();
    assert_eq!(ran.json()["ended"], "poweroff", "{ran:?}");
}

fn foreground_destroyed() {
    let run = in_foreground(&[]);
    wait_for("the guest runs", 60, || {
        shell("xl list").lines().any(|line| line.starts_with("t ") && !line.contains("--p"))
    });
    thread::sleep(Duration::from_secs(1));
    shell("xl destroy t");
    let ran = run.join().expect("it ran").success();
    assert_eq!(ran.json()["ended"], "destroyed", "{ran:?}");
}

fn features() {
    let features = dombuild(&["features"]).success().json();
    assert_eq!(features["xen"]["matches"], true, "{features}");
    assert_eq!(features["xen"]["hvm"], true);
    assert_eq!(features["xen"]["hap"], true);
    assert_eq!(features["missing"].as_array().map(Vec::len), Some(0), "{features}");
    let version = shell("xl info xen_version");
    assert_eq!(features["xen"]["version"], version.trim());
    let free_mib: u64 = shell("xl info free_memory").trim().parse().expect("MiB");
    assert_eq!(number(&features["xen"], "free_kib") >> 10, free_mib);
    // The text output says the same.
    let text = Command::new(DOMBUILD).arg("features").stderr(Stdio::inherit()).output().expect("it ran");
    assert!(String::from_utf8_lossy(&text.stdout).contains(version.trim()));
    assert_eq!(run(DOMBUILD, &["--version"]).status, Some(0));
}
