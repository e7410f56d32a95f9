//! Every call fails once: of all that dombuild and libxenguest ask of Xen and of xenstored, one call after the other is made
//! to fail (tests/nested/fault-shim.c). Each time the exit code is right, the error names the call, and the host is as it
//! was; where the clean-up fails as well, the error says what is left, and `dombuild destroy` removes it.

mod check;
mod guest;
mod saved;
mod shim;

use std::collections::BTreeMap;
use std::time::Instant;

use dombuild::memory::Kind;
use dombuild::xen::Interface;
use nix::errno::Errno;

use super::Test;
use super::sample::{self, Random};
use super::support::{Host, destroy_everything, dombuild, empty_domain};
use check::{check_error, check_left_alone, check_left_behind, check_whole};
pub(crate) use guest::{Guest, tiny_kernel};
pub(crate) use shim::{Call, traced};
use shim::{Traced, points};

pub(crate) const TESTS: &[Test] = &[
    ("faults_every_call_can_be_made_to_fail", shim::every_call_has_a_stub),
    ("walk_faults_in_create_hvm", || create_walk("hvm", 5)),
    ("walk_faults_in_create_pvh", || create_walk("pvh", 2)),
    ("walk_faults_in_create_pv", || create_walk("pv", 3)),
    ("walk_faults_in_create_with_a_device_model", device_model_walk),
    ("walk_faults_in_build_hvm", || build_walk(Kind::Hvm, 1)),
    ("walk_faults_in_build_pvh", || build_walk(Kind::Pvh, 1)),
    ("walk_faults_in_build_pv", || build_walk(Kind::Pv, 1)),
    ("walk_faults_in_cleaning_up", clean_up_walk),
    ("walk_faults_in_destroy", destroy_walk),
    ("walk_faults_in_save", saved::save_walk),
    ("walk_faults_in_restore", saved::restore_walk),
];

/// Calls that may fail without any harm.
struct Harmless {
    /// dombuild's call.
    outer: &'static str,
    /// The one that fails: that one or one below it; empty for any.
    inner: &'static str,
    /// Only behind this call of dombuild's; empty for everywhere.
    behind: &'static str,
}

const HARMLESS: &[Harmless] = &[
    // A domain about to be destroyed need not stop first.
    Harmless { outer: "xc_domain_pause", inner: "", behind: "" },
    // Whether a destroyed domain is gone is asked until there is an answer.
    Harmless { outer: "xc_domain_getinfolist", inner: "", behind: "xc_domain_destroy" },
    // What belongs to it is looked for and removed a second time where that fails; that nothing is left is checked.
    Harmless { outer: "xs_read", inner: "", behind: "xc_domain_pause" },
    Harmless { outer: "xs_directory", inner: "", behind: "xc_domain_pause" },
    Harmless { outer: "xs_rm", inner: "", behind: "xc_domain_pause" },
    Harmless { outer: "xs_transaction_start", inner: "", behind: "xc_domain_pause" },
    Harmless { outer: "xs_transaction_end", inner: "", behind: "xc_domain_pause" },
    // Where there are no large pages, small ones are taken; that the guest has them all is checked.
    Harmless { outer: "xc_domain_populate_physmap", inner: "", behind: "" },
    Harmless { outer: "xc_dom_boot_mem_init", inner: "xc_domain_populate_physmap", behind: "" },
    Harmless { outer: "xc_dom_boot_mem_init", inner: "xc__hypercall_buffer_alloc", behind: "" },
    Harmless { outer: "xc_dom_boot_mem_init", inner: "xc__hypercall_bounce_pre", behind: "" },
    Harmless { outer: "xc_dom_boot_mem_init", inner: "xc_memory_op", behind: "" },
    Harmless { outer: "xc_dom_boot_mem_init", inner: "ioctl", behind: "" },
    // In the end libxenguest gives up a claim, whether there is one or not; that there is none is checked.
    Harmless { outer: "xc_dom_boot_mem_init", inner: "xc_domain_claim_pages", behind: "" },
    // The rings of a PVH and an HVM guest are emptied twice, and those of a PV guest by dombuild again; that they are empty is
    // checked. What is mapped for them, others look at.
    Harmless { outer: "xc_dom_build_image", inner: "xc_clear_domain_pages", behind: "" },
    Harmless { outer: "xc_dom_build_image", inner: "xc_map_foreign_range", behind: "" },
    Harmless { outer: "xc_dom_build_image", inner: "xc_map_foreign_pages", behind: "" },
    Harmless { outer: "xc_dom_build_image", inner: "mmap", behind: "" },
    Harmless { outer: "xc_dom_build_image", inner: "ioctl", behind: "" },
    // The release of the hypervisor is asked for the log alone, and where a library looks for an older kernel's ways.
    Harmless { outer: "xc_dom_boot_xen_init", inner: "xc_version", behind: "" },
    Harmless { outer: "xc_dom_boot_xen_init", inner: "ioctl", behind: "" },
    Harmless { outer: "xc_interface_open", inner: "ioctl", behind: "" },
    // The x86 has no caches to flush for a guest: the function does nothing there.
    Harmless { outer: "xc_dom_build_image", inner: "xc_domain_cacheflush", behind: "" },
    Harmless { outer: "xc_dom_boot_image", inner: "xc_domain_cacheflush", behind: "" },
    Harmless { outer: "xc_dom_gnttab_init", inner: "xc_domain_cacheflush", behind: "" },
];

/// Whether the last of these calls is one of them.
fn is_harmless(calls: &[Call]) -> bool {
    let Some((call, before)) = calls.split_last() else { return false };
    HARMLESS.iter().any(|harmless| {
        harmless.outer == call.outer
            && (harmless.inner.is_empty() || harmless.inner == call.inner)
            && (harmless.behind.is_empty() || before.iter().any(|earlier| earlier.outer == harmless.behind))
    })
}

fn all(calls: &[Call]) -> Vec<usize> {
    (0..calls.len()).collect()
}

fn count(length: usize) -> u64 {
    u64::try_from(length).expect("a count")
}

/// One walk: continues after a problem, and reports all problems at the end.
pub(crate) struct Walk {
    name: String,
    host: Host,
    of: usize,
    failed: usize,
    harmless: BTreeMap<Call, usize>,
    problems: Vec<String>,
    random: Random,
    /// What the last call failed with.
    errno: Errno,
    began: Instant,
}

impl Walk {
    pub(crate) fn new(name: &str, host: Host, calls: usize) -> Self {
        Self {
            name: name.to_owned(),
            host,
            of: calls,
            failed: 0,
            harmless: BTreeMap::new(),
            problems: Vec::new(),
            random: Random::new(name),
            errno: Errno::EIO,
            began: Instant::now(),
        }
    }

    /// What the next call fails with: never what means an answer somewhere, as ENOENT and ESRCH do.
    fn errno(&mut self) -> Errno {
        self.errno = if self.random.below(2) == 0 { Errno::EIO } else { Errno::ENOMEM };
        self.errno
    }

    /// The failure of the call of this number, and what it came to: whether it was noticed.
    fn step(&mut self, point: usize, run: &Traced, outcome: Result<bool, String>) {
        // Where a run waits for something, it asks as often as it takes, and this call may not have been one of them.
        let Some(call) = run.calls.get(point) else { return };
        self.failed += 1;
        let outcome = outcome.and_then(|noticed| {
            if !noticed {
                *self.harmless.entry(call.clone()).or_default() += 1;
            }
            if noticed || is_harmless(&run.calls[..=point]) { Ok(()) } else { Err("nobody noticed".to_owned()) }
        });
        let problem = outcome.and_then(|()| self.host.assert_back());
        if let Err(problem) = problem {
            let Call { outer, inner } = call;
            let errno = self.errno;
            let problem = format!("{point}, {inner} in {outer}, {errno:?}: {problem}\n    {:?}", run.ran);
            // A walk takes long.
            println!("{}: {problem}", self.name);
            self.problems.push(problem);
            destroy_everything();
            self.host = Host::now();
        }
    }

    fn end(self) {
        let Self { name, of, failed, harmless, problems, began, .. } = self;
        println!("{name}: {failed} calls failed, of {of}, in {} s", began.elapsed().as_secs());
        for (call, times) in harmless {
            println!("  without harm: {} in {}, {times} times", call.inner, call.outer);
        }
        assert!(problems.is_empty(), "{name}: {} problems\n{}", problems.len(), problems.join("\n"));
        assert!(failed > 0, "{name}: no call failed");
    }
}

fn create_walk(kind: &'static str, wanted: u64) {
    let xen = Interface::open().expect("Xen");
    let guest = Guest::new(kind);
    let host = Host::now();
    let whole = traced(&guest.create(), &[]);
    check_whole(&xen, &whole.ran).expect("a guest without faults");
    dombuild(&["destroy", "t"]).success();
    host.assert_back().expect("nothing is left");
    walk_of_create(
        Walk::new(&format!("create {kind}"), host, whole.calls.len()),
        &guest.create(),
        &whole.calls,
        &all(&whole.calls),
        wanted,
    );
}

/// Lets calls of a `create` fail, each in a run of its own: of those `among` its calls, `wanted` in a run that takes a sample.
pub(crate) fn walk_of_create(mut walk: Walk, arguments: &[&str], calls: &[Call], among: &[usize], wanted: u64) {
    let xen = Interface::open().expect("Xen");
    for point in points(calls, among, &walk.name, wanted) {
        let errno = walk.errno();
        let run = traced(arguments, &[(point, errno)]);
        let outcome = if run.ran.status == Some(0) {
            let whole = check_whole(&xen, &run.ran);
            dombuild(&["destroy", "t"]).success();
            whole.map(|()| false)
        } else {
            check_error(&run.ran, run.until(point), errno).and_then(|error| {
                let told = error["message"].as_str().unwrap_or_default().contains("nothing is left");
                // Before it is there, nothing needs to be said.
                let made = run.calls[..point].iter().any(|call| call.outer == "xc_domain_max_vcpus");
                if made && !told { Err("what became of the domain is not told".to_owned()) } else { Ok(true) }
            })
        };
        walk.step(point, &run, outcome);
    }
    walk.end();
}

/// What is done for QEMU alone, and some of the rest: a QEMU that was started goes with the domain.
fn device_model_walk() {
    let arguments = ["create", "--name", "t", "--memory", "64"];
    let host = Host::now();
    let without = traced(&[&arguments[..], &["--device-model", "none", "--paused"]].concat(), &[]);
    without.ran.success();
    dombuild(&["destroy", "t"]).success();
    let whole = traced(&arguments, &[]);
    whole.ran.success();
    dombuild(&["destroy", "t"]).success();
    host.assert_back().expect("nothing is left");
    let (of_qemus, others) = split_by(&whole.calls, &without.calls);
    let mut among = of_qemus;
    if sample::full() {
        let some = Random::new("beside a device model").choose(count(others.len()), 30);
        among.extend(some.into_iter().map(|index| others[usize::try_from(index).expect("small")]));
    }
    let walk = Walk::new("create hvm with a device model", host, among.len());
    walk_of_create(walk, &arguments, &whole.calls, &among, 1);
}

/// The numbers of the calls of a run that another one has not, and of those that it has.
pub(crate) fn split_by(calls: &[Call], less: &[Call]) -> (Vec<usize>, Vec<usize>) {
    let mut left = less.iter().peekable();
    (0..calls.len()).partition(|index| left.next_if_eq(&&calls[*index]).is_none())
}

/// The calls are those of `create`, and what differs is what becomes of the domain.
fn build_walk(kind: Kind, wanted: u64) {
    let xen = Interface::open().expect("Xen");
    let guest = Guest::of(kind);
    let host = Host::now();
    let build = |faults: &[(usize, Errno)]| {
        let domid = empty_domain(&xen, kind, 2, false).expect("a domain");
        let text = domid.to_string();
        let run = traced(&[&["build", "--domid", &text][..], &guest.arguments()].concat(), faults);
        (domid, run)
    };
    let (domid, whole) = build(&[]);
    check_whole(&xen, &whole.ran).expect("a guest without faults");
    dombuild(&["destroy", "--force", &domid.to_string()]).success();
    host.assert_back().expect("nothing is left");
    let mut walk = Walk::new(&format!("build {kind}"), host, whole.calls.len());
    for point in points(&whole.calls, &all(&whole.calls), &walk.name, wanted) {
        let errno = walk.errno();
        let (domid, run) = build(&[(point, errno)]);
        let outcome = if run.ran.status == Some(0) {
            check_whole(&xen, &run.ran).map(|()| false)
        } else {
            check_left_alone(&xen, &walk.host, domid, &run, point)
                .and_then(|()| check_error(&run.ran, run.until(point), errno))
                .and_then(|error| {
                    let told = error["message"].as_str().unwrap_or_default().contains("is left to whoever created it");
                    // Before the first check, no report is needed.
                    let looked = run.calls[..point].iter().any(|call| call.outer == "xc_domain_getinfolist");
                    if looked && !told { Err("whose the domain is, is not told".to_owned()) } else { Ok(true) }
                })
        };
        dombuild(&["destroy", "--force", &domid.to_string()]).success();
        walk.step(point, &run, outcome);
    }
    walk.end();
}

/// `create` fails at its last call, and then a call fails by which the domain is removed.
fn clean_up_walk() {
    let guest = Guest::new("hvm");
    let arguments = guest.create();
    let host = Host::now();
    let whole = traced(&arguments, &[]);
    whole.ran.success();
    dombuild(&["destroy", "t"]).success();
    let last = whole.calls.len() - 1;
    let undone = traced(&arguments, &[(last, Errno::EIO)]);
    let mut walk = Walk::new("clean-up of create", host, undone.calls.len() - last - 1);
    for point in points(&undone.calls, &(last + 1..undone.calls.len()).collect::<Vec<_>>(), &walk.name, 3) {
        let errno = walk.errno();
        let run = traced(&arguments, &[(last, Errno::EIO), (point, errno)]);
        let call = run.calls.get(point).unwrap_or(&undone.calls[point]).clone();
        let outcome = if run.ran.status == Some(7) {
            check_left_behind(&run.ran, &[&call.outer, &whole.calls[last].outer])
        } else {
            check_error(&run.ran, undone.until(last), Errno::EIO).map(|_| false)
        };
        walk.step(point, &run, outcome);
    }
    walk.end();
}

fn destroy_walk() {
    let guest = Guest::new("hvm");
    let arguments = guest.create();
    let host = Host::now();
    let made = || dombuild(&arguments).success();
    made();
    let whole = traced(&["destroy", "t"], &[]);
    whole.ran.success();
    let mut walk = Walk::new("destroy", host, whole.calls.len());
    for point in points(&whole.calls, &all(&whole.calls), &walk.name, 2) {
        let errno = walk.errno();
        made();
        let run = traced(&["destroy", "t"], &[(point, errno)]);
        let call = run.calls.get(point).unwrap_or(&whole.calls[point]).clone();
        let outcome = match run.ran.status {
            Some(0) => Ok(false),
            Some(7) => check_left_behind(&run.ran, &[&call.outer]),
            // It was not begun.
            _ => check_error(&run.ran, run.until(point), errno).map(|_| {
                dombuild(&["destroy", "t"]).success();
                true
            }),
        };
        walk.step(point, &run, outcome);
    }
    walk.end();
}
