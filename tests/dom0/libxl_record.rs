//! The configuration that `create` writes for libxl: with it, every command of xl works on a guest of dombuild.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use dombuild::domain::userdata::{configuration_path, parse};
use dombuild::xen::{DomId, DomainRef, Interface};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Test;
use super::device_model::status;
use super::linux;
use super::support::{
    GUEST_INITRD, GUEST_KERNEL, Ran, create, dombuild, domid, file, number, path_text, run, shell, start_silently,
    wait_for,
};

pub(crate) const TESTS: &[Test] = &[
    ("xl_knows_every_kind_of_guest", every_kind),
    ("xl_would_write_the_same_configuration", same_as_xls),
    ("xl_saves_and_restores_a_linux_guest", restored_linux),
    ("xl_saves_and_restores_an_hvm_guest", restored_hvm),
    ("the_configuration_is_shown_without_a_guest", shown),
    ("the_configuration_goes_with_a_killed_run", killed),
    ("a_configuration_that_cannot_be_written_is_an_error", not_writable),
];

/// The directory of libxl's files.
const DIRECTORY: &str = "/var/lib/xen";

fn direct<'a>(kind: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let files = ["--kind", kind, "--kernel", GUEST_KERNEL, "--ramdisk", GUEST_INITRD, "--cmdline", "console=hvc0"];
    [&files, more].concat()
}

fn held(domid: DomId) -> DomainRef {
    Interface::open().expect("Xen").domain(domid).expect("asked").expect("it is there").held()
}

/// The file of a domain, with its content.
fn configuration(domid: DomId) -> (PathBuf, Value) {
    let path = configuration_path(held(domid));
    let text = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    // libxl takes it for a string of C.
    assert_eq!(text.last(), Some(&0), "{}", path.display());
    let value = parse(&text).expect("JSON");
    (path, value)
}

/// What `xl list -l` prints of a domain.
pub(crate) fn listed(name: &str) -> Value {
    let all: Value = serde_json::from_str(&run("xl", &["list", "-l", name]).success().stdout).expect("JSON");
    all.get(0).unwrap_or_else(|| panic!("xl does not know the configuration of {name}: {all}"))["config"].clone()
}

fn xl(arguments: &[&str]) -> Ran {
    run("xl", arguments).success()
}

/// The files of guests in libxl's directory; dom0 has one as well.
fn files_of_guests() -> Vec<String> {
    let names = fs::read_dir(DIRECTORY).expect("a directory").map(|entry| entry.expect("an entry").file_name());
    let names = names.map(|name| name.to_string_lossy().into_owned());
    names.filter(|name| name.starts_with("userdata-") && !name.starts_with("userdata-d.0.")).collect()
}

fn every_kind() {
    let kinds = [
        ("pvh", direct("pvh", &["--memory", "128", "--maxmem", "160", "--vcpus", "2", "--paused"])),
        ("pv", direct("pv", &["--memory", "128", "--maxmem", "160", "--vcpus", "2", "--paused"])),
        ("hvm", vec!["--memory", "64", "--vcpus", "2", "--paused", "--dm-arg=-serial", "--dm-arg=null"]),
    ];
    for (kind, arguments) in kinds {
        let built = create("t", &[&arguments[..], &["--model", "libxl"]].concat());
        let (path, written) = configuration(domid(&built));
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o600, "{}", path.display());
        assert_eq!(files_of_guests().len(), 1, "no lock and no half of a file: {:?}", files_of_guests());

        let shown = listed("t");
        let plan = &built["plan"];
        for config in [&written, &shown] {
            assert_eq!(config["c_info"]["type"], kind, "{config}");
            assert_eq!(config["c_info"]["name"], "t");
            assert_eq!(config["c_info"]["uuid"], built["uuid"]);
            let info = &config["b_info"];
            assert_eq!(number(info, "max_memkb"), number(plan, "static_max_kib"), "{config}");
            assert_eq!(number(info, "video_memkb"), number(plan, "video_kib"));
            assert_eq!(info["avail_vcpus"], json!([0, 1]));
            assert!(info[format!("type.{kind}")].is_object(), "{config}");
        }
        assert_eq!(number(&written["b_info"], "target_memkb"), number(plan, "target_kib"));
        // libxl's view is the balloon driver's target, which is 1 MiB lower while a guest is populated on demand.
        let lowered = if kind == "pvh" { 1024 } else { 0 };
        assert_eq!(number(&shown["b_info"], "target_memkb"), number(plan, "target_kib") - lowered);

        xl(&["rename", "t", "other"]);
        assert_eq!(listed("other")["c_info"]["name"], "other");
        xl(&["rename", "other", "t"]);
        xl(&["vcpu-set", "t", "1"]);
        if kind != "hvm" {
            assert_eq!(listed("t")["b_info"]["avail_vcpus"], json!([0]));
            xl(&["mem-set", "t", "120"]);
            assert_eq!(number(&listed("t")["b_info"], "target_memkb"), 120 << 10);
        }
        xl(&["mem-max", "t", "200"]);
        assert_eq!(number(&listed("t")["b_info"], "max_memkb"), 200 << 10);
        dombuild(&["destroy", "t"]).success();
        assert!(!path.exists(), "{}", path.display());
        assert_eq!(files_of_guests(), Vec::<String>::new());
    }
}

/// The paths of all fields of a configuration.
fn fields(prefix: &str, value: &Value, found: &mut Vec<(String, Value)>) {
    match value.as_object() {
        Some(object) if !object.is_empty() => {
            object.iter().for_each(|(name, value)| fields(&format!("{prefix}/{name}"), value, found));
        }
        // What xl writes of a part that has no field set means the same as no part.
        Some(_) if !prefix.rsplit('/').next().is_some_and(|name| name.starts_with("type.")) => {}
        _ => found.push((prefix.to_owned(), value.clone())),
    }
}

/// The fields that one configuration has and the other has not, or has with another value.
fn differences(xls: &Value, ours: &Value) -> Vec<String> {
    let list = |value| {
        let mut found = Vec::new();
        fields("", value, &mut found);
        found
    };
    let (xls, ours) = (list(xls), list(ours));
    let only = |one: &[(String, Value)], other: &[(String, Value)], whose: &str| -> Vec<String> {
        let missing = one.iter().filter(|field| !other.contains(field));
        missing.map(|(path, value)| format!("{whose} {path} {value}")).collect()
    };
    [only(&xls, &ours, "xl's"), only(&ours, &xls, "ours")].concat()
}

/// docs/toolstack.md has the differences.
fn same_as_xls() {
    let uuid = Uuid::new_v4().to_string();
    let kernel = format!("kernel = {GUEST_KERNEL:?}\nramdisk = {GUEST_INITRD:?}\ncmdline = \"console=hvc0\"\n");
    let hvm = "vga = \"stdvga\"\nvideoram = 16\nvnc = 0\nserial = \"pty\"\nvkb_device = 0\n\
               bios = \"seabios\"\ntsc_mode = \"native\"\nviridian = [\"base\", \"apic_assist\", \"freq\"]\nhpet = 0\nmmio_hole = 512\n\
               acpi_s3 = 0\ndevice_model_args_hvm = [\"-device\", \"e1000\"]\nrtc_timeoffset = 60\n";
    let memory = "memory = 128\nvcpus = 2\nmax_event_channels = 2000\ncpu_weight = 512\ncap = 50\n";
    let common = ["--memory", "128", "--vcpus", "2", "--event-channels", "2000", "--model", "libxl", "--paused"];
    let share = ["--platform", "vcpu/weight=512", "--platform", "vcpu/cap=50"];
    let hvm_flags = "--mmio-hole 512MiB --dm-arg=-device --dm-arg=e1000 --platform hpet=0 --platform acpi_s3=0 --platform tsc_mode=2 \
                     --platform viridian=base,apic_assist,freq --platform timeoffset=60";
    for kind in ["pvh", "pv", "hvm"] {
        let own = if kind == "hvm" { hvm } else { &kernel };
        let config = file(format!("type = {kind:?}\nname = \"t\"\nuuid = {uuid:?}\n{memory}{own}").as_bytes());
        shell(&format!("xl create -p {}", path_text(&config)));
        let xls = configuration(the_guest()).1;
        xl(&["destroy", "t"]);
        let flags: Vec<&str> = if kind == "hvm" { hvm_flags.split_whitespace().collect() } else { direct(kind, &[]) };
        let built = create("t", &[&common[..], &share, &flags, &["--uuid", &uuid]].concat());
        let ours = configuration(domid(&built)).1;
        let shown = listed("t");
        dombuild(&["destroy", "t"]).success();

        let mut expected = vec![
            // What libxl writes has no domid yet.
            "xl's /c_info/domid 4294967295".to_owned(),
            "xl's /b_info/arch_x86/msr_relaxed \"False\"".to_owned(),
            format!("ours /c_info/xsdata/dombuild/request {}", ours["c_info"]["xsdata"]["dombuild/request"]),
        ];
        if kind != "pv" {
            // libxl computes the pool when it creates the domain.
            expected.push(format!("ours /b_info/shadow_memkb {}", number(&built["plan"], "paging_pool_kib")));
        }
        if kind == "hvm" {
            expected.push(format!("ours /b_info/device_model {}", ours["b_info"]["device_model"]));
            expected.push("ours /b_info/device_model_version \"qemu_xen\"".to_owned());
        }
        let mut found = differences(&xls, &ours);
        // Only Xen 4.20 knows it.
        found.retain(|field| field != "xl's /b_info/type.hvm/pirq \"False\"");
        found.sort();
        expected.sort();
        assert_eq!(found, expected, "{kind}: xl's {xls}\nours {ours}");

        // libxl has read and understood every field: it prints what it knows.
        let lost: Vec<_> = differences(&shown, &ours).into_iter().filter(|field| field.starts_with("ours")).collect();
        assert_eq!(lost, Vec::<String>::new(), "{kind}");
    }
}

/// The domid of the only guest.
fn the_guest() -> DomId {
    let domains = Interface::open().expect("Xen").domains().expect("domains");
    domains.iter().map(|domain| domain.domid).find(|domid| *domid != DomId::DOM0).expect("a guest")
}

/// A file for a saved guest.
fn save_file() -> tempfile::TempPath {
    file(&[])
}

/// Saves the guest `t`, and restores it. The domid of the new domain.
fn save_and_restore() -> DomId {
    let old = the_guest();
    let saved = save_file();
    xl(&["save", "t", path_text(&saved)]);
    assert_eq!(files_of_guests(), Vec::<String>::new(), "xl removes the file with the guest");
    xl(&["restore", path_text(&saved)]);
    let new = the_guest();
    assert_ne!(new, old);
    new
}

fn restored_linux() {
    let built = linux::start(&["--kind", "pvh", "--memory", "128", "--maxmem", "160"], "");
    let (path, before) = configuration(domid(&built));
    // What dombuild does not know stays.
    let mut more = before.clone();
    more["b_info"]["of_another_version"] = json!([{"kept": true}]);
    fs::write(&path, format!("{more}\0")).expect("written");

    // A lock that another toolstack holds is waited for. Its file may have no name any more when it is free.
    let lock = path.to_string_lossy().replace("userdata-d", "userdata-l").replace("libxl-json", "domain-userdata-lock");
    let mut holder = std::process::Command::new("flock")
        .args([&lock, "sh", "-c", &format!("sleep 3; rm {lock}")])
        .spawn()
        .expect("flock");
    wait_for("the lock is held", 10, || run("flock", &["-n", &lock, "true"]).status == Some(1));
    let start = Instant::now();
    dombuild(&["balloon", "t", "112", "--timeout", "60"]).success();
    assert!(start.elapsed() > Duration::from_secs(1), "{:?}", start.elapsed());
    assert!(holder.wait().expect("it ends").success());

    let after = configuration(domid(&built)).1;
    more["b_info"]["target_memkb"] = json!(number(&listed("t")["b_info"], "target_memkb"));
    assert_eq!(after, more, "the target is that of xl, and the rest is as it was");
    assert!(number(&after["b_info"], "target_memkb").abs_diff(112 << 10) <= 1024, "{after}");
    assert_eq!(files_of_guests().len(), 1, "{:?}", files_of_guests());

    let domid = save_and_restore();
    // The guest runs on, and dombuild still knows the request that the guest was built for.
    let shown = dombuild(&["inspect", "t"]).success().json();
    assert_eq!(shown["recorded"], true, "{shown}");
    assert_eq!(shown["plan"]["model"], built["plan"]["model"]);
    assert_eq!(configuration(domid).1["c_info"]["uuid"], built["uuid"]);
    xl(&["shutdown", "-w", "t"]);
    wait_for("xl removes the guest that it watches", 120, || files_of_guests().is_empty());
}

/// The process of a domain's QEMU.
fn device_model(domid: DomId) -> u64 {
    let pids = run("pgrep", &["-f", "--", &format!("-xen-domid {domid} ")]).success().stdout;
    pids.trim().parse().expect("one QEMU")
}

/// QEMU's arguments that describe the machine, the devices in their order, then the rest. What differs between two starts of
/// the same guest is left out.
fn machine(domid: DomId) -> Vec<String> {
    let line = fs::read(format!("/proc/{}/cmdline", device_model(domid))).expect("its command line");
    let words: Vec<String> =
        line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    let kept = ["-serial", "-device", "-boot", "-smp", "-machine", "-m", "-vnc"];
    let described = words.windows(2).filter(|pair| kept.contains(&pair[0].as_str())).map(|pair| pair.join(" "));
    // Without VNC, libxl says so.
    let described = described.filter(|words| words != "-vnc none");
    let (devices, mut rest): (Vec<_>, Vec<_>) = described.partition(|words| words.starts_with("-device"));
    rest.sort();
    [devices, rest].concat()
}

/// The users of libxl's restricted QEMUs, for as long as this lives.
struct LibxlUsers {
    passwd: String,
}

const PASSWD: &str = "/etc/passwd";
const FIRST_LIBXL_USER: u32 = 1_500_000;

impl LibxlUsers {
    fn new() -> Self {
        let passwd = fs::read_to_string(PASSWD).expect("users");
        let line = format!("xen-qemuuser-range-base:x:{FIRST_LIBXL_USER}:65534::/nonexistent:/usr/sbin/nologin\n");
        fs::write(PASSWD, format!("{passwd}{line}")).expect("written");
        Self { passwd }
    }
}

impl Drop for LibxlUsers {
    fn drop(&mut self) {
        fs::write(PASSWD, &self.passwd).expect("written");
    }
}

/// Saves and restores an HVM guest. The new QEMU is the old one, or it could not read the saved state, and the guest goes on.
fn hvm_goes_on(arguments: &str) -> DomId {
    let built = create("t", &arguments.split_whitespace().collect::<Vec<_>>());
    let before = machine(domid(&built));
    // hvmloader and the firmware are at work.
    thread::sleep(Duration::from_secs(2));
    let new = save_and_restore();
    assert_eq!(machine(new), before);
    let info = Interface::open().expect("Xen").domain(new).expect("asked").expect("it is there");
    assert!(!info.paused && info.shutdown.is_none(), "{info:?}");
    let shown = dombuild(&["inspect", "t"]).success().json();
    assert_eq!(shown["recorded"], true, "{shown}");
    new
}

fn restored_hvm() {
    hvm_goes_on(
        "--memory 72 --video 8MiB --mmio-hole 512MiB --platform viridian=defaults --platform hpet=0 --platform timeoffset=-60 \
         --platform acpi=0 --dm-arg=-device --dm-arg=e1000 --dm-arg=-serial --dm-arg=null",
    );
    xl(&["destroy", "t"]);
    assert_eq!(files_of_guests(), Vec::<String>::new());

    // A QEMU without root's rights has none after the restore either, where libxl has a user for it and can start it.
    let users = LibxlUsers::new();
    let new = hvm_goes_on("--memory 64 --vcpus 2 --model libxl --disk ,hdc:cdrom,r --vfb vncdisplay=4");
    let config = configuration(new).1;
    let path = config["b_info"]["device_model"].as_str().expect("a path");
    let version = run(path, &["--version"]).success().stdout;
    let version =
        version.split_whitespace().nth(3).and_then(|text| text.split('.').next()).and_then(|text| text.parse().ok());
    let restricted = version.is_some_and(|major: u32| major < 9);
    let user = if restricted { FIRST_LIBXL_USER + new.get() } else { 0 };
    assert_eq!(status(device_model(new), "Uid"), vec![user.to_string(); 4], "QEMU {version:?}");
    assert_eq!(config["b_info"]["dm_restrict"], if restricted { json!("True") } else { Value::Null });
    xl(&["destroy", "t"]);
    drop(users);
    // What xl leaves of every restricted QEMU.
    shell("rm -rf /run/xen/qemu-root-* /run/xen/dm-reaper-lock");
    assert_eq!(files_of_guests(), Vec::<String>::new());
}

fn shown() {
    let uuid = Uuid::new_v4().to_string();
    let arguments = ["--memory", "64", "--platform", "vcpu/0/affinity=1", "--vcpus", "2", "--uuid", &uuid];
    let ran = dombuild(&[&["create", "--name", "t", "--dry-run", "--libxl-json"], &arguments[..]].concat()).success();
    let shown = ran.json();
    assert_eq!(shown["b_info"]["vcpu_hard_affinity"][0], json!([0]), "{shown}");
    assert_eq!(files_of_guests(), Vec::<String>::new());
    let built = create("t", &[&arguments[..], &["--paused"]].concat());
    assert_eq!(configuration(domid(&built)).1, shown);
    dombuild(&["destroy", "t"]).success();
}

fn killed() {
    let mut child = start_silently(&["create", "--name", "t", "--memory", "64", "--foreground"]);
    wait_for("the configuration is written", 60, || {
        files_of_guests().iter().any(|name| name.starts_with("userdata-d"))
    });
    kill(Pid::from_raw(i32::try_from(child.id()).expect("a pid")), Signal::SIGKILL).expect("killed");
    child.wait().expect("it ended");
    // What a run that is killed in the middle of the write leaves.
    let names = files_of_guests();
    for (purpose, name) in [("n", "libxl-json"), ("l", "domain-userdata-lock")] {
        let path = names[0].replacen("userdata-d", &format!("userdata-{purpose}"), 1).replace("libxl-json", name);
        fs::write(format!("{DIRECTORY}/{path}"), "{").expect("written");
    }
    // The file of another domain that had the same number, and names that only begin alike.
    let parts: Vec<&str> = names[0].splitn(4, '.').collect();
    let (number, uuid) = (parts[1], parts[2]);
    let others = [
        format!("{DIRECTORY}/userdata-d.{number}.{}.libxl-json", Uuid::new_v4()),
        format!("{DIRECTORY}/userdata-d.{number}1.{uuid}.libxl-json"),
    ];
    for other in &others {
        fs::write(other, "{}").expect("written");
    }
    dombuild(&["cleanup", "--apply"]).success();
    for other in &others {
        fs::remove_file(other).unwrap_or_else(|error| panic!("{other}: {error}"));
    }
    assert_eq!(files_of_guests(), Vec::<String>::new());
}

fn not_writable() {
    shell(&format!("mount -t tmpfs -o ro none {DIRECTORY}"));
    let ran = dombuild(&["create", "--name", "t", "--memory", "64"]);
    shell(&format!("umount {DIRECTORY}"));
    let error = ran.failed_with(1, "internal");
    assert_eq!(error["stage"], "userdata", "{error}");
    let message = error["message"].as_str().expect("a message");
    assert!(message.contains(DIRECTORY) && message.contains("xl keeps"), "{message}");
}
