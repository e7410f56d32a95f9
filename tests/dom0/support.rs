//! What the tests share: running programs, and the state of the host before and after.

use std::any::Any;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dombuild::memory::{Kib, Kind};
use dombuild::os::cgroup::Cgroup;
use dombuild::xen::{CreateDomain, DomId, Interface, Store, XenError};
use serde_json::Value;
use uuid::Uuid;

use super::standing::{Standing, stays};

/// The program under test, found on the PATH as an operator would find it.
pub(crate) const DOMBUILD: &str = "dombuild";

/// The command line of every guest's kernel. A guest whose processors wait half a minute for the host's does not hang;
/// one that hangs reports it after one minute.
pub(crate) const CMDLINE: &str = "console=hvc0 watchdog_thresh=30";

/// The small Linux guest that dom0 of the nested Xen has, for PVH and PV (tests/nested/guest-init). Its kernel is unpacked
/// already: that takes seconds of every guest here.
pub(crate) const GUEST_KERNEL: &str = "/srv/guest/vmlinux";
/// The same kernel as Debian ships it.
pub(crate) const PACKED_KERNEL: &str = "/srv/guest/vmlinuz";
pub(crate) const GUEST_INITRD: &str = "/srv/guest/initrd";

/// Where runs are recorded while they last.
pub(crate) const RUNS: &str = "/run/dombuild";

/// Why these tests cannot run here, if they cannot.
pub(crate) fn why_not_here() -> Option<String> {
    if !Path::new("/proc/xen/privcmd").exists() {
        return Some("this is not dom0 of a running Xen (no /proc/xen/privcmd); see tests/nested.sh".to_owned());
    }
    Interface::open().err().map(|error| error.to_string())
}

/// What a program printed, and how it ended.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) status: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn new(output: &Output) -> Self {
        Self {
            status: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The one JSON document on stdout.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error} in {self:?}"))
    }

    pub(crate) fn success(self) -> Self {
        assert_eq!(self.status, Some(0), "{self:?}");
        self
    }

    /// Checks exit status and error object, and that the message stands on stderr too; returns the error object.
    pub(crate) fn failed_with(&self, status: i32, code: &str) -> Value {
        assert_eq!(self.status, Some(status), "{self:?}");
        let error = self.json()["error"].clone();
        assert_eq!(error["code"], code, "{self:?}");
        let message = error["message"].as_str().expect("a message");
        assert!(self.stderr.contains(message), "{self:?}");
        error
    }
}

/// Prints a table of figures, and leaves it where the harness takes it home from: docs/memory.md is made of these.
pub(crate) fn figures(file: &str, table: &str) {
    println!("\n{table}");
    if Path::new("/results").is_dir() {
        fs::write(Path::new("/results").join(file), table).expect("written");
    }
}

/// Runs a program to its end.
pub(crate) fn run(program: &str, arguments: &[&str]) -> Ran {
    let output = Command::new(program).args(arguments).output();
    Ran::new(&output.unwrap_or_else(|error| panic!("{program}: {error}")))
}

/// Starts dombuild; its output goes nowhere.
pub(crate) fn start_silently(arguments: &[&str]) -> Child {
    Command::new(DOMBUILD)
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("it starts")
}

/// Runs dombuild with `--json`.
pub(crate) fn dombuild(arguments: &[&str]) -> Ran {
    run(DOMBUILD, &[&["--json"], arguments].concat())
}

/// Runs a line of shell that must succeed; what it printed.
pub(crate) fn shell(line: &str) -> String {
    run("sh", &["-c", line]).success().stdout
}

/// Creates a guest and returns what dombuild printed of it.
pub(crate) fn create(name: &str, arguments: &[&str]) -> Value {
    dombuild(&[&["create", "--name", name], arguments].concat()).success().json()
}

/// An integer of a JSON object.
pub(crate) fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("{name} in {value}"))
}

/// A domain's number in what `create` printed.
pub(crate) fn domid(value: &Value) -> DomId {
    u32::try_from(number(value, "domid")).ok().and_then(DomId::new).expect("a domid")
}

/// A domain as a toolstack of its own would create it: empty, without any key.
pub(crate) fn empty_domain(xen: &Interface, kind: Kind, vcpus: u32, nested: bool) -> Result<DomId, XenError> {
    xen.create(&CreateDomain {
        kind,
        passthrough: false,
        nested,
        uuid: Uuid::new_v4(),
        vcpus,
        max_event_channel: 1023,
        max_grant_frames: None,
        max_maptrack_frames: None,
        grant_version: 1,
        vpmu: false,
        msr_relaxed: false,
        cpupool: 0,
        ssid: 0,
        pirqs: false,
        altp2m: None,
        vmtrace: Kib(0),
    })
}

/// Destroys a domain of any owner.
pub(crate) fn destroy(xen: &Interface, domid: DomId) {
    let domain = xen.domain(domid).expect("asked").expect("it is there");
    xen.destroy(domain.held()).expect("destroyed");
}

/// Waits until `done`, at most `seconds`.
pub(crate) fn wait_for(what: &str, seconds: u64, mut done: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(seconds);
    while !done() {
        assert!(Instant::now() < end, "not within {seconds} s: {what}\n{}", shell("xl dmesg | tail -40"));
        thread::sleep(Duration::from_millis(200));
    }
}

/// Waits for a line that a guest's firmware writes to Xen's console.
pub(crate) fn wait_for_guest_line(domid: DomId, text: &str, seconds: u64) -> String {
    let prefix = format!("(d{domid}) ");
    let mut found = None;
    wait_for(&format!("{prefix}... {text}"), seconds, || {
        found = shell("xl dmesg").lines().find(|line| line.contains(&prefix) && line.contains(text)).map(str::to_owned);
        found.is_some()
    });
    found.expect("it was found")
}

/// `nr_pages` and `max_pages` of a domain, from the hypervisor's own dump of its domains: a witness that shares no code
/// with dombuild.
pub(crate) fn pages_in_dump(domid: DomId) -> (u64, u64) {
    shell("xl debug-keys q");
    thread::sleep(Duration::from_millis(300));
    let dump = shell("xl dmesg");
    let title = format!("General information for domain {domid}:");
    let start = dump.rfind(&title).unwrap_or_else(|| panic!("{title} is not in the dump"));
    let value = |name: &str| {
        let rest = &dump[start + dump[start..].find(name).expect(name) + name.len()..];
        rest.chars().take_while(char::is_ascii_digit).collect::<String>().parse().expect(name)
    };
    (value("nr_pages="), value("max_pages="))
}

/// A file for one test; removed with the value.
pub(crate) fn file(content: &[u8]) -> tempfile::TempPath {
    let path = tempfile::NamedTempFile::new().expect("a temporary file").into_temp_path();
    fs::write(&path, content).expect("written");
    path
}

/// An executable script.
pub(crate) fn script(text: &str) -> tempfile::TempPath {
    use std::os::unix::fs::PermissionsExt;
    let path = file(text.as_bytes());
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("made executable");
    path
}

pub(crate) fn path_text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// What a panic said.
pub(crate) fn text_of(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_else(|| "panicked".to_owned())
}

/// Removes what a failed test left, so that the next one starts clean.
pub(crate) fn destroy_everything() {
    let xen = Interface::open().expect("Xen");
    let others = xen.domains().expect("domains").into_iter().map(|domain| domain.domid);
    for domid in others.filter(|domid| *domid != DomId::DOM0 && !stays(*domid)) {
        run(DOMBUILD, &["destroy", "--force", &domid.to_string()]);
    }
}

fn is_in_use(cgroup: &OsStr) -> bool {
    cgroup.to_str().and_then(Cgroup::find).is_some_and(|group| !group.is_empty().expect("asked"))
}

/// What must be the same after a test as before it.
#[derive(Debug)]
pub(crate) struct Host {
    domains: BTreeSet<String>,
    xenstore: BTreeSet<String>,
    processes: BTreeSet<String>,
    files: BTreeSet<String>,
    devices: BTreeSet<String>,
    free_kib: u64,
    claimed_kib: u64,
}

impl Host {
    pub(crate) fn now() -> Self {
        let xen = Interface::open().expect("Xen");
        let info = xen.physinfo().expect("physinfo");
        let standing = Standing::find();
        let counts = |path: &String| standing.as_ref().is_none_or(|guest| !guest.has(path));
        let domains = xen.domains().expect("domains").into_iter().map(|domain| domain.domid);
        let domains = domains.filter(|domid| standing.as_ref().is_none_or(|guest| guest.domid != *domid));
        Self {
            domains: domains.map(|domid| domid.to_string()).collect(),
            xenstore: tree().into_iter().filter(counts).collect(),
            processes: processes(),
            files: ["/run/xen", "/var/lib/xen", RUNS]
                .iter()
                // The last is there after the first run.
                .flat_map(|directory| fs::read_dir(directory).into_iter().flatten())
                .map(|entry| entry.expect("an entry").path())
                // libxl's own list of numbers that were in use not long ago, our locks of builds and names, the records of guests
                // that came and went, and the root directory of every QEMU
                .filter(|path| {
                    !["domid-history", "build.lock", "names.lock", "arrivals", "departures", "names", "empty"]
                        .iter()
                        .any(|lasting| path.ends_with(lasting))
                })
                .map(|path| path.display().to_string())
                .filter(counts)
                // Empty ones are left by xl, and by a run that was killed while a kernel was unpacked: the next run removes them.
                .chain(
                    Cgroup::names()
                        .iter()
                        .filter(|name| is_in_use(name))
                        .map(|name| format!("cgroup {}", name.display())),
                )
                .collect(),
            devices: devices(),
            free_kib: info.free_kib.0 + standing.as_ref().map_or(0, |guest| guest.kib),
            claimed_kib: info.claimed_kib.0,
        }
    }

    /// Fails where the host is not what it was. Xen gives back a domain's last structures some time after the domain is
    /// gone from its list, so that it is asked for a while.
    pub(crate) fn assert_back(&self) -> Result<(), String> {
        let end = Instant::now() + Duration::from_secs(15);
        loop {
            let differences = self.differences(&Self::now());
            if differences.is_empty() {
                return Ok(());
            }
            if Instant::now() >= end {
                return Err(format!("something was left behind:\n{}", differences.join("\n")));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// What is not as it was, a line each.
    pub(crate) fn differences(&self, now: &Self) -> Vec<String> {
        let mut found = Vec::new();
        for (what, before, after) in [
            ("domain", &self.domains, &now.domains),
            ("key", &self.xenstore, &now.xenstore),
            ("process", &self.processes, &now.processes),
            ("file", &self.files, &now.files),
            ("device", &self.devices, &now.devices),
        ] {
            found.extend(after.difference(before).map(|new| format!("new {what}: {new}")));
            found.extend(before.difference(after).map(|gone| format!("lost {what}: {gone}")));
        }
        if now.free_kib + XENS_OWN_KIB < self.free_kib {
            found.push(format!("free memory: {} KiB before, {} after", self.free_kib, now.free_kib));
        }
        if now.claimed_kib != self.claimed_kib {
            found.push(format!("claimed memory: {} KiB before, {} after", self.claimed_kib, now.claimed_kib));
        }
        found
    }
}

/// What Xen's own allocator may keep of a guest larger than any before it. The least that a lost guest would take is its
/// paging pool, 1 MiB; `a_soak_costs_nothing` watches for less.
const XENS_OWN_KIB: u64 = 512;

/// Every lasting key of xenstore, with its value. Not by xenstore-ls: the walks ask thousands of times.
fn tree() -> BTreeSet<String> {
    let store = Store::open().expect("xenstored");
    let store = store.plain();
    let mut found = BTreeSet::new();
    let mut left = vec![String::new()];
    while let Some(path) = left.pop() {
        let under = if path.is_empty() { "/" } else { &path };
        for child in store.children(under).expect("listed") {
            let path = format!("{path}/{child}");
            // Another may remove it meanwhile.
            if let Some(value) = store.read(&path).expect("read") {
                let line = format!("{path} = {value:?}");
                if is_lasting(&line) {
                    found.insert(line);
                }
                left.push(path);
            }
        }
    }
    found
}

/// Not so the directories that no domain owns, which the first guest after boot brings about and xl leaves as well.
fn is_lasting(line: &str) -> bool {
    let path = line.split(" = ").next().unwrap_or(line);
    let kind = path.strip_prefix("/local/domain/0/backend/").filter(|kind| !kind.contains('/'));
    kind.is_none() && !["/libxl", "/vm", "/local/domain/0/device-model", "/local/domain/0/backend"].contains(&path)
}

/// The network interfaces, and the loop devices that have a file.
fn devices() -> BTreeSet<String> {
    let names = |directory: &str| {
        let entries = fs::read_dir(directory).unwrap_or_else(|error| panic!("{directory}: {error}"));
        entries.map(|entry| entry.expect("an entry").path())
    };
    let loops = names("/sys/block").filter_map(|device| {
        let file = fs::read_to_string(device.join("loop/backing_file")).ok()?;
        Some(format!("{} {}", device.display(), file.trim()))
    });
    loops.chain(names("/sys/class/net").map(|interface| interface.display().to_string())).collect()
}

/// Programs that a guest brings along: anything of QEMU's or ours, and whatever names a domain on its command line.
fn processes() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for entry in fs::read_dir("/proc").expect("/proc").flatten() {
        let Ok(arguments) = fs::read(entry.path().join("cmdline")) else { continue };
        let line = String::from_utf8_lossy(&arguments).replace('\0', " ");
        if ["qemu", "-xen-domid", "dombuild ", "xl "].iter().any(|word| line.contains(word)) {
            found.insert(format!("{} {line}", entry.file_name().to_string_lossy()));
        }
    }
    found
}
