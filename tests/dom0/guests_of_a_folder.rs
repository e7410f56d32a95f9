//! The guests of /etc/dombuild/auto: the package's generator and unit start five guests in order and shut them down in the reverse
//! order. Where dom0's image has systemd, a systemd of its own namespaces does that; elsewhere this test does what the unit says, with
//! the socket that systemd would give to each run.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use nix::sys::signal::Signal;

use super::Test;
use super::sample::full;
use super::supervisor::{NotifySocket, Run, idle_kernel};
use super::support::{Host, path_text, run, shell};

pub(crate) const TESTS: &[Test] = &[("run_as_units_of_a_folder", units_of_a_folder)];

const UNIT: &str = include_str!("../../packaging/debian/dombuild@.service");
const GENERATOR: &str = include_str!("../../packaging/debian/dombuild-generator");
const SYSTEMD: &str = "/usr/lib/systemd/systemd";

/// The guests in the order of their links.
const GUESTS: [&str; 5] = ["d", "a", "web", "b", "c"];

/// /etc/dombuild with the guests; it goes with the value.
struct Folder(tempfile::TempDir);

const ETC: &str = "/etc/dombuild";

impl Folder {
    fn new() -> Self {
        assert!(!Path::new(ETC).exists(), "dom0's image has no {ETC}");
        fs::create_dir_all(format!("{ETC}/auto")).expect("made");
        let folder = Self(tempfile::tempdir().expect("a folder"));
        let kernel = folder.path("kernel");
        fs::write(&kernel, idle_kernel()).expect("written");
        for (number, name) in (1..).zip(GUESTS) {
            let text = format!("name = '{name}'\ntype = 'pvh'\nmemory = 32\nkernel = '{kernel}'\n");
            fs::write(format!("{ETC}/{name}.cfg"), text).expect("written");
            // These guests do not listen.
            fs::write(format!("{ETC}/{name}.conf"), "RUN_ARGS=--shutdown-timeout 2\n").expect("written");
            symlink(format!("../{name}.cfg"), format!("{ETC}/auto/{number}0-{name}")).expect("made");
        }
        folder
    }

    fn path(&self, name: &str) -> String {
        path_text(&self.0.path().join(name)).to_owned()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(ETC);
    }
}

/// The domids of the guests, in the order of their links.
fn domids() -> Vec<Option<u32>> {
    GUESTS.map(|name| run("xl", &["domid", name]).stdout.trim().parse().ok()).to_vec()
}

fn units_of_a_folder() {
    if Path::new(SYSTEMD).exists() && !full() {
        println!("only with --full: this dom0's image has systemd, which changes more of dom0 than its units");
        return;
    }
    let before = Host::now();
    let folder = Folder::new();
    let generator = folder.path("generator");
    fs::write(&generator, GENERATOR).expect("written");
    fs::set_permissions(&generator, fs::Permissions::from_mode(0o755)).expect("set");
    if Path::new(SYSTEMD).exists() {
        by_systemd(&folder, &generator);
    } else {
        println!("dom0's image has no systemd: this test gives each run its socket");
        by_sockets(&folder, &generator);
    }
    assert_eq!(domids(), [None; 5]);
    drop(folder);
    before.assert_back().expect("nothing is left");
}

/// What systemd makes of the units is seen in a file, to which each of them adds a line.
fn by_systemd(folder: &Folder, generator: &str) {
    let program = shell("command -v dombuild");
    let (lines, shown) = (folder.path("lines"), folder.path("shown"));
    let drop_in = format!(
        "[Service]\nExecStart=\nExecStart={} run {ETC}/%i.cfg $RUN_ARGS\nExecStartPost=/bin/sh -c 'echo %i started >>{lines}'\n\
         ExecStopPost=/bin/sh -c 'echo %i stopped >>{lines}'\nStandardOutput=append:{shown}\nStandardError=append:{shown}\n",
        program.trim()
    );
    // In one transaction, as at the boot and at the shutdown of a host: units that are named one by one have no order.
    let job = format!(
        "[Service]\nType=oneshot\nTimeoutStartSec=10min\nExecStart=/bin/sh -c 'cd /run/systemd/generator/multi-user.target.wants; \
         guests=$$(ls | grep dombuild@); cp -a $$guests /run/systemd/system/guests.target.wants/; systemctl daemon-reload; \
         systemctl start guests.target; xl list >{lines}.list; systemctl restart dombuild@web; \
         systemctl is-active $$guests >{lines}.active; systemctl --no-block exit 0'\n"
    );
    let own = |name: &str, text: &str| {
        fs::write(folder.path(name), text).expect("written");
        folder.path(name)
    };
    let (unit, drop_in, job) = (own("unit", UNIT), own("here.conf", &drop_in), own("job.service", &job));
    let script = format!(
        "mount -t proc proc /proc && mount -t xenfs xenfs /proc/xen && mount -t cgroup2 cgroup2 /sys/fs/cgroup && mount --bind /run /run
         mount -t tmpfs tmpfs /run/systemd
         mkdir -p /run/systemd/system/dombuild@.service.d /run/systemd/system/guests.target.wants /run/systemd/system-generators
         echo '[Unit]' >/run/systemd/system/guests.target
         cp {unit} /run/systemd/system/dombuild@.service; cp {drop_in} /run/systemd/system/dombuild@.service.d/
         cp {job} /run/systemd/system/job.service; cp {generator} /run/systemd/system-generators/dombuild
         exec env container=lxc {SYSTEMD} --unit=job.service --log-target=null --show-status=false"
    );
    fs::create_dir_all("/run/systemd").expect("made");
    let words =
        ["600", "unshare", "--mount", "--pid", "--cgroup", "--net", "--fork", "--kill-child", "sh", "-ec", &script];
    let ran = run("timeout", &words);
    fs::remove_dir("/run/systemd").expect("nothing is in it");
    // Its journald makes that, which other tests listen at.
    let _ = fs::remove_file("/dev/log");
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let all = format!("{ran:?}\n{}\n{}\n{}", read(&lines), read(&shown), read(&format!("{lines}.list")));
    let web = ["web stopped", "web started"].map(str::to_owned);
    let started = GUESTS.map(|name| format!("{name} started"));
    let stopped = GUESTS.iter().rev().map(|name| format!("{name} stopped"));
    let expected: Vec<String> = started.into_iter().chain(web).chain(stopped).collect();
    assert_eq!(read(&lines).lines().collect::<Vec<_>>(), expected, "{all}");
    assert_eq!(read(&format!("{lines}.active")).lines().collect::<Vec<_>>(), ["active"; 5], "{all}");
    // The guest of the restarted unit was left running, and taken over.
    assert!(read(&shown).contains("is looked after from now on"), "{all}");
    let list = read(&format!("{lines}.list"));
    let order = list.lines().filter_map(|line| line.split_whitespace().next().filter(|name| GUESTS.contains(name)));
    assert_eq!(order.collect::<Vec<_>>(), GUESTS, "xl lists domains in the order of their numbers: {all}");
}

/// The units that the generator makes, in the order that it gives them, each with its own socket.
fn by_sockets(folder: &Folder, generator: &str) {
    let units = folder.path("units");
    fs::create_dir(&units).expect("made");
    run(generator, &[&units]).success();
    for pair in GUESTS.windows(2) {
        let order = fs::read_to_string(format!("{units}/dombuild@{}.service.d/order.conf", pair[1])).expect("made");
        assert_eq!(order, format!("[Unit]\nAfter=dombuild@{}.service\n", pair[0]));
    }
    assert_eq!(fs::read_dir(format!("{units}/multi-user.target.wants")).expect("made").count(), GUESTS.len());
    assert!(UNIT.contains("ExecStart=/usr/bin/dombuild run /etc/dombuild/%i.cfg $RUN_ARGS\n"), "{UNIT}");
    let manager = NotifySocket::new(folder.0.path());
    let mut runs = Vec::new();
    for name in GUESTS {
        let configuration = format!("{ETC}/{name}.cfg");
        runs.push(Run::start_with(&[&configuration, "--shutdown-timeout", "2"], Some(manager.path())));
        manager.wait_for("READY=1");
    }
    let numbers: Vec<u32> = domids().into_iter().map(|domid| domid.expect("it runs")).collect();
    assert!(numbers.is_sorted(), "each after the other: {numbers:?}");
    while let Some(guest) = runs.pop() {
        guest.signal(Signal::SIGTERM);
        let (status, said) = guest.end();
        assert_eq!(status, Some(0), "{said}");
        assert_eq!(domids().iter().flatten().count(), runs.len());
    }
}
