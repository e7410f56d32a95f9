//! The tests that need a real Xen: run as root in dom0, by `tests/nested.sh test` or by hand.
//!
//! Outside Xen every one of them is reported as ignored, with the reason on stderr.

mod agreement;
mod bootloader;
mod bounds;
mod cage;
mod cd_drives;
mod config_files;
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
mod emulated_devices;
mod events;
mod external_devices;
mod failures;
mod fat_image;
mod faults;
mod foreign_domain;
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
mod memory;
mod migrate;
mod migrate_failures;
mod names;
mod neighbours;
mod odd_kernels;
mod ownership;
mod parallel;
mod passthrough;
mod placement;
mod platform;
mod qemu_devices;
mod sample;
mod save_failures;
mod save_restore;
mod served_devices;
mod sick_store;
mod soak;
mod stalls;
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

use std::panic;
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Failed, Trial};

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
    let elsewhere = sample::left_to_others(LONG);
    if !elsewhere.is_empty() {
        println!("{} of {} long tests are in the other runs with this seed", elsewhere.len(), LONG.len());
    }
    let tests = [
        config_files::TESTS,
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
        qemu_devices::TESTS,
        served_devices::TESTS,
        external_devices::TESTS,
        emulated_devices::TESTS,
        cd_drives::TESTS,
        agreement::TESTS,
        platform::TESTS,
        cpuid_policy::TESTS,
        toolstack::TESTS,
        documentation::TESTS,
        store::TESTS,
        failures::TESTS,
        faults::TESTS,
        images::TESTS,
        odd_kernels::TESTS,
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
    ]
    .concat();
    if let Some(unknown) = LONG.iter().find(|long| !tests.iter().any(|(name, _)| name == *long)) {
        eprintln!("{unknown}, which is in the list of long tests, is no test");
        return ExitCode::FAILURE;
    }
    let trials = tests
        .into_iter()
        .filter(|(name, _)| wanted(name))
        .map(|(name, test): Test| {
            let ignored = reason.is_some() || elsewhere.contains(name);
            Trial::test(name, move || timed(name, test)).with_ignored_flag(ignored)
        })
        .collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    print_slowest();
    conclusion.exit_code()
}

/// The tests that take long, about in the order of their time: runs that share the tests have some of them each, chosen by the
/// seed, so that another run has others.
const LONG: &[&str] = &[
    "config_files_make_xls_hvm_guests",
    "config_files_make_xls_pvh_and_pv_guests",
    "config_files_start_linux",
    "run_starts_a_guest_again_and_again",
    "run_is_killed_and_takes_over",
    "saved_hvm_with_drivers_moves_between_xl_and_dombuild",
    "saved_hvm_of_xl_has_its_devices",
    "saved_pvh_moves_between_xl_and_dombuild",
    "saved_devices_come_back",
    "saved_pv_moves_between_xl_and_dombuild",
    "saved_hvm_moves_between_xl_and_dombuild",
    "saved_files_that_are_damaged",
    "saved_guests_run_on_after_failures",
    "migrate_linux_between_xl_and_dombuild",
    "migrate_limits_of_a_busy_guest",
    "migrate_pv_without_live",
    "migrate_hvm_between_xl_and_dombuild",
    "migrate_devices_go_along",
    "migrate_refuses_before_memory_is_sent",
    "migrate_connections_that_are_cut",
    "walk_migrate_kills_of_either_side",
    "devices_work_as_hvm",
    "placement_is_libxenguests_own",
    "walk_kills_of_create",
    "bounds_devices_with_memory_need_room",
    "walk_kills_of_destroy",
    "platform_viridian_is_as_xl_has_it",
    "the_same_devices_as_xl_attaches_to_pvh",
    "sigint_at_every_step",
    "a_grown_guest_leaves_no_room_for_another",
    "figures_inspect_agrees_with_plan",
    "the_same_devices_as_xl_attaches_to_pv",
    "walk_soak",
    "xls_guest_balloons",
    "xl_verbs_on_a_linux_guest",
    "walk_pygrub_boots_a_guest_from_its_disk",
    "cpuid_is_changed_as_xl_changes_it",
    "served_devices_work_as_pvh",
    "served_devices_work_as_pv",
    "devices_come_to_a_running_guest_and_go",
    "a_paused_guest_keeps_what_it_has",
    "no_limit_saves_a_guest_that_never_balloons_down",
    "walk_hostile_images",
    "xl_saves_and_restores_a_guest_with_devices",
    "xl_saves_and_restores_an_hvm_guest",
    "figures_of_ballooning_on_demand",
    "xenguest_starts_linux_as_pvh",
    "linux_sees_its_memory_as_pvh",
    "device_model_without_rights_has_its_disks",
    "devices_work_as_pvh",
    "zombies_are_destroyed_with_the_same_answer",
    "images_become_what_xl_makes_of_them",
    "dom0_memory_bounds_kernels",
    "devices_many_disks",
    "vnc_shows_an_hvm_guests_card",
    "emulated_devices_are_as_xl_has_them",
    "a_qemu_that_stops_with_its_disk",
    "qemu_serves_a_qcow2_disk",
    "xenguest_starts_seabios",
    "devices_that_cannot_be_attached",
    "devices_work_as_pv",
    "figures_of_ballooning_without_on_demand",
    "figures_of_ballooning_as_pv",
    "dry_run_tells_every_step",
    "the_same_pvh_and_pv_domains_as_xl_builds",
    "linux_sees_its_memory_as_pv",
    "device_model_leaves_no_process_of_its_user",
    "xl_saves_and_restores_a_linux_guest",
    "external_devices_are_as_xl_has_them_pvh",
    "external_devices_are_as_xl_has_them_pv",
    "libxl_keeps_a_guest_at_its_target",
    "walk_stops_of_xenstored",
    "walk_deaths_of_xenstored",
    "a_killed_attach_is_cleaned_up",
    "the_same_domain_as_xl_builds",
    "walk_devices_faults_in_create",
    "walk_devices_kills_of_create",
    "walk_devices_kills_of_attach",
    "walk_devices_kills_of_detach",
    "a_medium_is_inserted_and_ejected",
    "dry_run_changes_nothing",
    "a_medium_for_a_guest_of_xl",
    "device_failures_of_one_image_twice",
    "documentation_examples",
    "events_tell_every_step_of_a_build",
    "an_hvm_guest_has_emulated_twins",
    "dry_run_fails_as_create_does",
];

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
    let shown = times.iter().take(60).map(|(time, name)| format!("{name} {}", time.as_secs()));
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
