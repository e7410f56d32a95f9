//! The parts outside the build: QEMU's own start, and the time until the guest's firmware prints.

use std::fs::{self, File};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};

use dombuild::qemu::confinement::FIRST_USER;
use dombuild::qemu::qmp::QmpQuery;
use dombuild::xen::{DomId, Store};

use super::figures::Pairs;
use super::guests::{Guest, NAME};
use super::run;
use super::support::{dombuild, shell};
use super::ways::{Bench, Way};

/// Time from spawn until QEMU is ready, on a domain that is built already, with the arguments that dombuild or xl gives it.
/// Ready is what each of them waits for: the monitor's answer, or the state that xl's QEMU writes into xenstore.
pub(crate) fn qemu_alone(bench: &Bench, guest: &Guest, way: Way) -> u64 {
    let arguments = arguments_of(bench, guest, way);
    bench.start(guest, Way::Bare);
    let domid = the_domid();
    let arguments: Vec<_> = arguments.iter().map(|argument| for_domain(argument, domid)).collect();
    let log = File::create("/tmp/bench-qemu").expect("a log");
    let store = Store::open().expect("xenstored");
    let state = format!("/local/domain/0/device-model/{domid}/state");
    store.watch(&state).expect("watched");
    let began = Instant::now();
    let mut child = Command::new(&arguments[0])
        .args(&arguments[1..])
        .env("XEN_DOMAIN_ID", domid.to_string())
        .stdout(log.try_clone().expect("its log"))
        .stderr(log)
        .process_group(0)
        .spawn()
        .expect("QEMU");
    if way == Way::Xl {
        while store.plain().read(&state).expect("asked").as_deref() != Some("running") {
            store.wait(Duration::from_secs(10)).expect("told");
        }
    } else {
        wait_for_answer(domid);
    }
    let taken = u64::try_from(began.elapsed().as_nanos()).expect("seconds");
    child.kill().expect("killed");
    child.wait().expect("ended");
    dombuild(&["destroy", NAME]).success();
    bench.settle();
    taken
}

fn wait_for_answer(domid: DomId) {
    let mut question =
        QmpQuery::new(format!("/run/xen/qmp-libxl-{domid}").into(), "query-chardev", serde_json::json!({}));
    let end = Instant::now() + Duration::from_secs(20);
    while question.answer().expect("no refusal").is_none() {
        assert!(Instant::now() < end, "{}", shell("cat /tmp/bench-qemu"));
    }
}

/// The command line of the QEMU of a guest that is made and destroyed, with `@` for its number.
fn arguments_of(bench: &Bench, guest: &Guest, way: Way) -> Vec<String> {
    bench.start(guest, way);
    let domid = the_domid();
    let pid = shell(&format!("xenstore-read /local/domain/{domid}/image/device-model-pid"));
    let line = fs::read_to_string(format!("/proc/{}/cmdline", pid.trim())).expect("it runs");
    bench.end(way);
    let (socket, user) = (format!("-{domid},"), (FIRST_USER + domid.get()).to_string());
    let mut words: Vec<_> =
        line.split_terminator('\0').map(|word| word.replace(&socket, "-@,").replace(&user, "user@")).collect();
    let at = words.iter().position(|word| word == "-xen-domid").expect("a domain");
    "@".clone_into(&mut words[at + 1]);
    words
}

fn for_domain(argument: &str, domid: DomId) -> String {
    let user = (FIRST_USER + domid.get()).to_string();
    argument.replace("user@", &user).replace('@', &domid.to_string())
}

fn the_domid() -> DomId {
    shell(&format!("xl domid {NAME}")).trim().parse().ok().and_then(DomId::new).expect("a domid")
}

/// Nanoseconds from unpause to hvmloader's first line, and to SeaBIOS's.
pub(crate) fn firmware(bench: &Bench, guest: &Guest, way: Way) -> (u64, u64) {
    bench.start(guest, way);
    let words = ["unpause", &the_domid().to_string(), "HVM Loader", "SeaBIOS (version"].map(str::to_owned);
    let ran = run::launch(false, &words);
    bench.end(way);
    let mut times = ran.output.lines().map(|line| line.parse().expect("nanoseconds"));
    (times.next().expect("hvmloader"), times.next().expect("SeaBIOS"))
}

/// QEMU alone, as dombuild and as xl starts it, in turns.
pub(crate) fn qemu_pairs(bench: &Bench, guest: &Guest, count: usize) -> Pairs {
    let one = |way| qemu_alone(bench, guest, way);
    (0..count).map(|_| (one(Way::Create), one(Way::Xl))).collect()
}

/// `dombuild create` and `xl create -p` in turns, by the clock: what each took.
pub(crate) fn pairs(bench: &Bench, guest: &Guest, count: usize) -> Pairs {
    let one = |way| bench.time(guest, way).ns;
    (0..count).map(|_| (one(Way::Create), one(Way::Xl))).collect()
}
