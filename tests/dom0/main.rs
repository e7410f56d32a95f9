//! The tests that need a real Xen: run as root in dom0, by `tests/nested.sh test` or by hand.
//!
//! Outside Xen every one of them is reported as ignored, with the reason on stderr.

mod agreement;
mod big;
mod bootloader;
mod bounds;
mod cage;
mod cd_drives;
mod config_files;
mod config_shapes;
mod cpuid_policy;
mod create;
mod device_failures;
mod device_model;
mod device_scripts;
mod device_walks;
mod devices;
mod documentation;
mod dom0_memory;
mod dry_run;
mod emu_manager;
mod emulated_devices;
mod events;
mod external_devices;
mod failures;
mod fat_image;
mod faults;
mod foreign_domain;
mod guests_of_a_folder;
mod host_memory;
mod hotplug;
mod images;
mod interrupts;
mod kills;
mod library;
mod libxl_record;
mod libxl_verbs;
mod life;
mod limits;
mod linux;
mod list;
mod lock_holder;
mod long_tests;
mod memory;
mod migrate;
mod migrate_failures;
mod names;
mod neighbours;
mod numa;
mod odd_kernels;
mod ownership;
mod parallel;
mod passthrough;
mod pci;
mod pci_dma;
mod pci_kills;
mod pci_several;
mod pci_support;
mod placement;
mod platform;
mod qemu_devices;
mod readback;
mod sample;
mod save_failures;
mod save_restore;
mod served_devices;
mod sick_store;
mod soak;
mod stalls;
mod standing;
mod store;
mod supervisor;
mod support;
mod toolstack;
mod twin;
mod vnc;
mod xenopsd;
mod xl_cfg;
mod xl_cfg_json;
mod zombies;

use std::env;
use std::panic;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::long_tests::{LONG, MIDDLING};
use crate::sample::Parts;

/// A test and its name. A test panics, or returns an error, when it fails.
type Test = (&'static str, fn());

fn main() -> ExitCode {
    let mut arguments = Arguments::from_args();
    // One host, one set of domains: two tests at once would see each other's.
    arguments.test_threads = Some(1);
    // One line says where; a backtrace through the test runner says nothing more.
    panic::set_hook(Box::new(|panic| eprintln!("{panic}")));
    let reason = support::why_not_here();
    if let Some(reason) = &reason {
        eprintln!("skipped: {reason}");
    }
    // Several names, with | between them: libtest-mimic takes one.
    let filters = arguments.filter.take();
    let wanted = |name: &str| filters.as_ref().is_none_or(|filters| filters.split('|').any(|part| name.contains(part)));
    let mut elsewhere = sample::left_to_others(LONG, Parts::One);
    elsewhere.extend(sample::left_to_others(MIDDLING, Parts::EverySecond));
    if !elsewhere.is_empty() {
        let all = LONG.len() + MIDDLING.len();
        println!("{} of {all} long and middling tests are in the other runs with this seed", elsewhere.len());
    }
    let tests = [
        config_files::TESTS,
        config_shapes::TESTS,
        supervisor::TESTS,
        create::TESTS,
        device_model::TESTS,
        devices::TESTS,
        device_failures::TESTS,
        device_scripts::TESTS,
        device_walks::TESTS,
        cage::TESTS,
        dry_run::TESTS,
        library::TESTS,
        list::TESTS,
        xl_cfg::TESTS,
        xl_cfg_json::TESTS,
        life::TESTS,
        save_restore::TESTS,
        readback::TESTS,
        save_failures::TESTS,
        migrate::TESTS,
        migrate_failures::TESTS,
        libxl_record::TESTS,
        libxl_verbs::TESTS,
        memory::TESTS,
        twin::TESTS,
        foreign_domain::TESTS,
        linux::TESTS,
        hotplug::TESTS,
        limits::TESTS,
        passthrough::TESTS,
        numa::TESTS,
        pci::TESTS,
        pci_dma::TESTS,
        pci_several::TESTS,
        pci_kills::TESTS,
        qemu_devices::TESTS,
        served_devices::TESTS,
        external_devices::TESTS,
        emulated_devices::TESTS,
        cd_drives::TESTS,
        agreement::TESTS,
        platform::TESTS,
        cpuid_policy::TESTS,
        toolstack::TESTS,
        emu_manager::TESTS,
        documentation::TESTS,
        store::TESTS,
        failures::TESTS,
        faults::TESTS,
        images::TESTS,
        odd_kernels::TESTS,
        guests_of_a_folder::TESTS,
        host_memory::TESTS,
        placement::TESTS,
        bounds::TESTS,
        bootloader::TESTS,
        dom0_memory::TESTS,
        interrupts::TESTS,
        kills::TESTS,
        parallel::TESTS,
        names::TESTS,
        neighbours::TESTS,
        stalls::TESTS,
        soak::TESTS,
        ownership::TESTS,
        zombies::TESTS,
        sick_store::TESTS,
        events::TESTS,
        sick_store::LAST,
        big::TESTS,
    ]
    .concat();
    if let Some(unknown) = LONG.iter().chain(MIDDLING).find(|long| !tests.iter().any(|(name, _)| name == *long)) {
        eprintln!("{unknown}, which is in a list of long tests, is no test");
        return ExitCode::FAILURE;
    }
    let trials = tests
        .into_iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, test): Test| {
            let ignored = reason.is_some() || elsewhere.contains(name) || !is_for_this_host(name);
            Trial::test(name, move || timed(name, test)).with_ignored_flag(ignored)
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    print_slowest();
    conclusion.exit_code()
}

/// The tests, by the start of their names, that need a host of a special shape, and the variable that says so
/// (`tests/nested.sh --host`). They run only there, and no others do.
const SPECIAL_HOSTS: [(&str, &str); 3] =
    [("numa_", "NESTED_HOST_NUMA"), ("pci_", "NESTED_HOST_IOMMU"), ("big_", "NESTED_HOST_BIG")];

fn is_for_this_host(name: &str) -> bool {
    let is = |variable: &str| env::var_os(variable).is_some();
    match SPECIAL_HOSTS.iter().find(|(start, _)| name.starts_with(start)) {
        Some((_, variable)) => is(variable),
        None => !SPECIAL_HOSTS.iter().any(|(_, variable)| is(variable)),
    }
}

/// How long each test took.
static TIMES: Mutex<Vec<(Duration, &str)>> = Mutex::new(Vec::new());

fn timed(name: &'static str, test: fn()) -> Result<(), Failed> {
    let began = Instant::now();
    let outcome = attempts(test);
    TIMES.lock().expect("one thread").push((began.elapsed(), name));
    outcome
}

/// Where the time went: what to look at when a run takes too long.
fn print_slowest() {
    let mut times = TIMES.lock().expect("one thread");
    times.sort_unstable_by(|one, other| other.cmp(one));
    let shown = times.iter().take(100).map(|(time, name)| format!("{name} {}", time.as_secs()));
    println!("slowest, in seconds: {}", shown.collect::<Vec<_>>().join(", "));
}

/// Runs a test again, at most four times, if a Linux guest's kernel has crashed: the emulated CPU causes such crashes
/// now and then, with every builder. A builder's own error occurs each time.
fn attempts(test: fn()) -> Result<(), Failed> {
    let mut left = 5;
    let before = support::Host::now();
    loop {
        left -= 1;
        linux::expect_guest();
        let outcome = panic::catch_unwind(test);
        support::destroy_everything();
        match outcome {
            Ok(()) => return before.assert_back().map_err(Failed::from),
            Err(panic) => {
                let text = support::text_of(&*panic);
                if left == 0 || !(text.contains(linux::CRASHED) || linux::kernel_crashed()) {
                    return Err(Failed::from(text));
                }
                println!("{}\n{}; once more", linux::console(), linux::CRASHED);
            }
        }
    }
}
