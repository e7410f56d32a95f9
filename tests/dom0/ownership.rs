//! dombuild kills no process and destroys no domain of others, and no other user can prevent a domain's destruction: a
//! user ID, a command line or a domain ID alone does not assign a process to a guest.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use dombuild::lifecycle::teardown::teardown;
use dombuild::memory::{Kib, Kind, Pages};
use dombuild::qemu::confinement::FIRST_USER;
use dombuild::qemu::helpers::Ending;
use dombuild::xen::{DomId, DomainRef, Interface, Store};
use serde_json::json;
use uuid::Uuid;

use super::Test;
use super::failures::dombuild_after;
use super::support::{create, dombuild, domid, empty_domain, file, number, path_text, script, shell, wait_for};

pub(crate) const TESTS: &[Test] = &[
    ("ownership_of_processes_is_not_by_user", not_by_user),
    ("ownership_of_processes_is_not_by_command_line", not_by_command_line),
    ("ownership_of_processes_without_cgroups", without_cgroups),
    ("ownership_of_domains_is_by_handle", by_handle),
    ("ownership_of_a_claim_is_its_makers", claim_of_the_caller),
];

const SMALL: [&str; 3] = ["--memory", "64", "--paused"];

/// A process of some user, with what it shows on its command line.
fn process(uid: u32, line: &str, words: &[&str]) -> Child {
    let mut command = Command::new("sh");
    command.args(["-c", line, "sh"]).args(words).uid(uid).gid(65_534).process_group(0);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts")
}

/// It lives still, and is ended now.
fn assert_unharmed(mut child: Child) {
    assert!(child.try_wait().expect("asked").is_none(), "somebody has killed it");
    child.kill().expect("killed");
    child.wait().expect("waited for");
}

/// Users whose numbers are those of the guests that come next.
struct Users {
    passwd: String,
}

impl Users {
    fn add(first: u32) -> Self {
        let passwd = fs::read_to_string("/etc/passwd").expect("users");
        let users = (first..first + 8).map(|number| {
            let uid = FIRST_USER + number;
            format!("person{number}:x:{uid}:65534::/nonexistent:/bin/sh\n")
        });
        fs::write("/etc/passwd", format!("{passwd}{}", users.collect::<String>())).expect("written");
        Self { passwd }
    }
}

impl Drop for Users {
    fn drop(&mut self) {
        fs::write("/etc/passwd", &self.passwd).expect("written");
    }
}

/// The numbers of the next domains follow this one.
fn last_domid() -> u32 {
    let built = create("t", &[&SMALL[..], &["--device-model", "none"]].concat());
    dombuild(&["destroy", "t"]).success();
    domid(&built).get()
}

fn not_by_user() {
    // A user ID that has an account is refused, and none of its processes is touched.
    let last = last_domid();
    let users = Users::add(last + 1);
    let theirs: Vec<_> = (1..8).map(|more| process(FIRST_USER + last + more, "exec sleep 1000", &[])).collect();
    let error = dombuild(&[&["create", "--name", "t"], &SMALL[..]].concat()).failed_with(3, "bad-config");
    let message = error["message"].as_str().expect("text");
    assert!(message.contains("person") && message.contains("--device-model-user"), "{error}");
    // A guest without QEMU needs no user, and its destruction ends no user's processes.
    create("t", &[&SMALL[..], &["--device-model", "none"]].concat());
    dombuild(&["destroy", "t"]).success();
    create("t", &[&SMALL[..], &["--device-model-root"]].concat());
    dombuild(&["destroy", "t"]).success();
    drop(users);
    // The same for a user ID without an account: its processes are not in the guest's cgroup.
    create("t", &SMALL);
    dombuild(&["destroy", "t"]).success();
    theirs.into_iter().for_each(assert_unharmed);
}

/// Processes that show a device model's command line, and some of them another one all the time.
struct Decoys(Vec<Child>);

const CHANGING: &str = "/run/decoy";

impl Decoys {
    fn assert_unharmed(mut self) {
        self.0.drain(..).for_each(assert_unharmed);
    }
}

impl Drop for Decoys {
    fn drop(&mut self) {
        for mut decoy in self.0.drain(..) {
            let _ = decoy.kill();
            let _ = decoy.wait();
        }
        let _ = fs::remove_file(CHANGING);
    }
}

fn decoys() -> Decoys {
    let last = last_domid();
    let numbers = (last + 1..last + 4).map(|number| number.to_string()).collect::<Vec<_>>();
    let plain = numbers.iter().map(|number| process(65_534, "while :; do sleep 1; done", &["-xen-domid", number]));
    let mut all: Vec<Child> = plain.collect();
    fs::write(CHANGING, "#!/bin/sh\nsleep 0.2\nexec \"$0\" -xen-domid \"$3\" \"$2\"\n").expect("written");
    fs::set_permissions(CHANGING, fs::Permissions::from_mode(0o755)).expect("made executable");
    for pair in numbers.windows(2) {
        let mut command = Command::new(CHANGING);
        command.args(["-xen-domid", &pair[0], &pair[1]]).uid(65_534).gid(65_534).process_group(0);
        all.push(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts"));
    }
    Decoys(all)
}

fn not_by_command_line() {
    let decoys = decoys();
    for words in [&SMALL[..], &["--memory", "64", "--paused", "--device-model-root"]] {
        create("t", words);
        let start = Instant::now();
        dombuild(&["destroy", "t"]).success();
        assert!(start.elapsed() < Duration::from_secs(15), "QEMU alone is waited for");
    }
    // dombuild finds another toolstack's QEMU by its xenstore entry.
    let config = file(b"type=\"hvm\"\nname=\"theirs\"\nmemory=64\nvga=\"none\"\n");
    shell(&format!("xl create -p {}", path_text(&config)));
    let pid = shell("xenstore-read /local/domain/$(xl domid theirs)/image/device-model-pid");
    let is_there = || fs::exists(format!("/proc/{}", pid.trim())).expect("asked");
    assert!(is_there(), "{pid}");
    dombuild(&["destroy", "--force", "theirs"]).success();
    // Its parent takes note of its end after that.
    wait_for("QEMU is gone", 20, || !is_there());
    decoys.assert_unharmed();
}

/// On a host without cgroups of version 2, a process is known by its number, its start and its boot.
fn without_cgroups() {
    const HIDE: &str = "umount /sys/fs/cgroup";
    let decoys = decoys();
    let words = ["create", "--name", "t", "--memory", "64", "--paused"];
    let built = dombuild_after(HIDE, &words).success().json();
    let (guest, pid) = (domid(&built), number(&built, "device_model_pid"));
    let node = shell(&format!("xenstore-read /libxl/{guest}/dombuild/device-model"));
    assert!(node.contains(&format!("\"pid\":{pid}")) && node.contains("\"start\":"), "{node}");
    dombuild_after(HIDE, &["destroy", "t"]).success();
    wait_for("QEMU is gone", 20, || !fs::exists(format!("/proc/{pid}")).expect("asked"));
    // Where another process has the number by now, it is that one's.
    let built = dombuild_after(HIDE, &words).success().json();
    let (guest, pid) = (domid(&built), number(&built, "device_model_pid"));
    let mut other = process(0, "while :; do sleep 1; done", &["-xen-domid", &guest.to_string()]);
    let node = shell(&format!("xenstore-read /libxl/{guest}/dombuild/device-model"));
    let forged = node.trim().replace(&format!("\"pid\":{pid}"), &format!("\"pid\":{}", other.id()));
    shell(&format!("xenstore-write /libxl/{guest}/dombuild/device-model '{forged}'; kill -9 {pid}"));
    dombuild_after(HIDE, &["destroy", "t"]).success();
    assert!(other.try_wait().expect("asked").is_none());
    assert_unharmed(other);
    // What a wrapper has started, and then left to itself.
    let wrapper = script("#!/bin/sh\nsleep 987 &\nexit 0\n");
    let words = ["create", "--name", "t", "--memory", "64", "--device-model", path_text(&wrapper)];
    dombuild_after(HIDE, &words).failed_with(1, "device-model-failed");
    wait_for("nothing is left of it", 20, || shell("pgrep -fc 'sleep 98[7]' || true").trim() == "0");
    decoys.assert_unharmed();
}

/// A number whose domain is another one by now is not that domain.
fn by_handle() {
    let (xen, store) = (Interface::open().expect("Xen"), Store::open().expect("xenstored"));
    let built = create("t", &SMALL);
    let guest = domid(&built);
    let stranger = DomainRef { domid: guest, uuid: Uuid::new_v4() };
    xen.destroy(stranger).expect("it is gone");
    teardown(&xen, &store, stranger, Ending::AtOnce).expect("nothing of it is left");
    assert_eq!(dombuild(&["inspect", "t"]).success().json()["differences"], json!([]));
    let pid = number(&built, "device_model_pid");
    assert!(fs::exists(format!("/proc/{pid}")).expect("asked"), "its QEMU runs");
    assert!(fs::exists(format!("/run/xen/qmp-libxl-{guest}")).expect("asked"));
    dombuild(&["destroy", "t"]).success();

    // Keys at a number that name another domain are not this one's either: Xen does not know a domain there any more.
    let number = DomId::new(32_000).expect("a domid");
    let theirs = Uuid::new_v4();
    shell(&format!("xenstore-write /local/domain/{number}/vm /vm/{theirs} /vm/{theirs}/uuid {theirs}"));
    let gone = DomainRef { domid: number, uuid: Uuid::new_v4() };
    teardown(&xen, &store, gone, Ending::AtOnce).expect("nothing of it is left");
    assert_eq!(shell(&format!("xenstore-read /local/domain/{number}/vm")).trim(), format!("/vm/{theirs}"));
    shell(&format!("xenstore-rm /local/domain/{number}; xenstore-rm /vm/{theirs}"));
}

/// What the caller of `build` has claimed stays claimed, whatever becomes of the build.
fn claim_of_the_caller() {
    const CLAIM: Pages = Pages(20_000);
    let xen = Interface::open().expect("Xen");
    let claimed = |guest: DomId| xen.domain(guest).expect("asked").expect("there").outstanding_pages;
    let claiming = || {
        let guest = empty_domain(&xen, Kind::Hvm, 1, false).expect("a domain");
        xen.set_max_memory(guest, Kib(1 << 20)).expect("set");
        xen.claim(guest, CLAIM).expect("claimed");
        guest
    };
    let guest = claiming();
    let domid = guest.to_string();
    let build = |more: &[&str]| dombuild(&[&["build", "--domid", &domid, "--memory", "64"], more].concat());
    // Before it would have made one of its own.
    build(&["--vcpus", "2"]).failed_with(3, "bad-config");
    assert_eq!(claimed(guest), CLAIM);
    build(&["--platform", "vcpu/0/affinity=8000000000000000"]);
    assert_eq!(claimed(guest), CLAIM);
    // While it waits for memory, killed.
    let words = ["build", "--domid", &domid, "--memory", "64GiB", "--wait-memory", "60"];
    let mut child = Command::new("dombuild").args(words).stderr(Stdio::null()).spawn().expect("it starts");
    wait_for("it is recorded", 20, || shell("ls /run/dombuild").contains(".json"));
    child.kill().expect("killed");
    assert_eq!(child.wait().expect("waited for").signal(), Some(9));
    dombuild(&["cleanup", "--apply"]).success();
    assert_eq!(claimed(guest), CLAIM);
    // And whole: what it populates counts against the claim, and the rest stays.
    build(&[]).success();
    let owned = xen.domain(guest).expect("asked").expect("there").owned_pages;
    assert_eq!(claimed(guest).0, CLAIM.0.saturating_sub(owned.0));
    assert!(claimed(guest).0 > 0);
    dombuild(&["destroy", "--force", &domid]).success();
}
