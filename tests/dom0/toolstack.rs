//! Guests that a stand-in for xenopsd builds through the front door `xenguest`.

use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dombuild::memory::{Gfn, Kib, Kind, Pages};

use super::Test;
use super::faults::tiny_kernel;
use super::linux::{expect_guest, said, wait_until_ready};
use super::platform::rtc_year;
use super::sample::{self, Random};
use super::support::{file, pages_in_dump, path_text, script, shell, wait_for, wait_for_guest_line};
use super::xenopsd::{USUAL, Vm, hvmloader};

pub(crate) const TESTS: &[Test] = &[
    ("xenguest_starts_seabios", starts_seabios),
    ("xenguest_starts_linux_as_pvh", || starts_linux(Kind::Pvh)),
    ("xenguest_starts_linux_as_pv", || starts_linux(Kind::Pv)),
    ("xenguest_builds_on_demand", builds_on_demand),
    ("xenguest_tells_why_not", tells_why_not),
    ("xenguest_hands_migration_over", hands_migration_over),
    ("xenguest_saves_and_restores", saves_and_restores),
    ("xenguest_leaves_its_callers_work_alone", leaves_its_callers_work_alone),
    ("walk_kills_of_xenguest", killed_at_any_moment),
];

fn starts_seabios() {
    // Ten years ahead of the host.
    let vm = Vm::new(Kind::Hvm, 2, 240, 240, &[USUAL, &[("platform/timeoffset", "315576000")]].concat());
    let (store, console, protocol) = vm.build(&[]).result();
    assert_eq!((store, console, protocol), (0xfeffc, 0xfefff, None));
    let (owned, _) = pages_in_dump(vm.domid);
    assert_eq!(owned, 240 * 256 - 32 + 16);
    assert_eq!(vm.key("hvmloader/bios").as_deref(), Some("seabios"), "nobody had written it");
    assert_eq!(vm.key("platform/acpi").as_deref(), Some("1"), "hvmloader knows no true");
    assert_eq!(vm.key("vm-data/mmio-hole-size").as_deref(), Some("268435456"));

    vm.introduce(store, console);
    vm.store
        .plain()
        .write(&format!("/local/domain/{}/hvmloader/allow-memory-relocate", vm.domid), "0")
        .expect("written");
    shell(&format!(
        "/usr/libexec/xen-qemu-system-i386 -xen-domid {} -no-shutdown -nodefaults -no-user-config -display none -serial null \
         -device VGA,vgamem_mb=16 -boot order=cda -smp 2,maxcpus=2 -net none -machine xenfv,suppress-vmdesc=on -m 240 \
         >/dev/null 2>&1 & xenstore-write /local/domain/{}/qemu-pid $!",
        vm.domid, vm.domid
    ));
    let state = format!("/local/domain/0/device-model/{}/state", vm.domid);
    wait_for("QEMU", 60, || vm.store.plain().read(&state).expect("asked").as_deref() == Some("running"));
    vm.xen.unpause(vm.domid).expect("it starts");
    wait_for_guest_line(vm.domid, "SeaBIOS (version", 180);
    let year: u8 = shell("date -u -d @$(($(date +%s) + 315576000)) +%y").trim().parse().expect("a year");
    wait_for("the guest has read its clock", 60, || rtc_year(vm.domid) == year);
    vm.destroy();
}

fn starts_linux(kind: Kind) {
    let vm = Vm::new(kind, 2, 256, 256, USUAL);
    let reply = vm.build(&[]);
    let (store, console, protocol) = reply.result();
    if kind == Kind::Pv {
        assert_eq!(protocol.as_deref(), Some("x86_64-abi"), "{reply:?}");
    } else {
        assert_eq!((store, console, protocol), (0xfeffc, 0xfefff, None));
    }
    expect_guest();
    vm.introduce(store, console);
    vm.xen.unpause(vm.domid).expect("it starts");
    wait_until_ready(vm.domid);
    assert_eq!(said("cpus").as_deref(), Some("2"), "both vCPUs");
    vm.destroy();
}

fn builds_on_demand() {
    let vm = Vm::new(Kind::Hvm, 1, 128, 256, USUAL);
    vm.build(&[]).result();
    assert_eq!(pages_in_dump(vm.domid).0, 128 * 256 - 32 + 16);
    let pod = vm.xen.pod_pages(vm.domid).expect("asked");
    assert!(pod.cache.0 > 30_000 && pod.entries.0 > 60_000, "{pod:?}");
    vm.destroy();
}

fn tells_why_not() {
    // Too little memory on the host: what is required and what is free, and the errno.
    let vm = Vm::new(Kind::Hvm, 1, 20_000, 20_000, USUAL);
    let line = vm.build(&[]).error("hvm_build_mem 12 ");
    for words in ["not enough memory", "KiB are required", "KiB are free"] {
        assert!(line.contains(words), "{line}");
    }
    vm.destroy();

    let vm = Vm::new(Kind::Hvm, 1, 64, 64, &[USUAL, &[("platform/tsc_mode", "9")]].concat());
    let line = vm.build(&[]).error("hvm_build 22 ");
    assert!(line.contains("platform/tsc_mode is \"9\""), "{line}");
    assert_eq!(pages_in_dump(vm.domid).0, 0, "nothing was populated");
    vm.destroy();

    // A limit that its caller set too low.
    let vm = Vm::new(Kind::Hvm, 1, 128, 128, USUAL);
    vm.xen.set_max_memory(vm.domid, Kib(64 << 10)).expect("a limit");
    let line = vm.build(&[]).error("hvm_build_mem 7 ");
    assert!(line.contains("may own 65536 KiB") && line.contains("xc_domain_setmaxmem"), "{line}");
    vm.destroy();

    // Of another kind, built already, or none at all.
    let vm = Vm::new(Kind::Pvh, 1, 128, 128, USUAL);
    let line = vm.build(&["-mode", "hvm_build", "-image", &hvmloader()]).error("hvm_build 22 ");
    assert!(line.contains("was created as a pvh guest"), "{line}");
    vm.build(&["-image", "/nowhere/vmlinuz"]).error("hvm_build 8 check-input: kernel /nowhere/vmlinuz: ");
    vm.build(&[]).result();
    vm.build(&[]).error("hvm_build 22 create-domain: domain ");
    vm.build(&["-domid", "4711"]).error("hvm_build 3 create-domain: there is no domain 4711");
    vm.build(&["-mem_pnode", "63"]).error("hvm_build 22 ");
    vm.destroy();

    let vm = Vm::new(Kind::Pv, 1, 128, 128, USUAL);
    vm.build(&["-image", "/etc/passwd"]).error("xc_dom_linux_build 8 ");
    vm.store.plain().write("/mh/limits/pv-kernel-max_size", "1000000").expect("written");
    let line = vm.build(&[]).error("xc_dom_linux_build 8 ");
    vm.store.plain().remove("/mh").expect("removed");
    assert!(line.contains("/mh/limits allow 1000000"), "{line}");
    vm.build(&["-mem_pnode", "0"]).result();
    vm.destroy();

    // Memory on demand excludes two things, unless its caller insists.
    let vm = Vm::new(Kind::Hvm, 1, 64, 128, USUAL);
    let line = vm.build(&["-pci_passthrough", "0000:00:00.0"]).error("hvm_build");
    assert!(line.contains("on demand"), "{line}");
    vm.destroy();
}

fn hands_migration_over() {
    let vm = Vm::new(Kind::Pvh, 1, 64, 64, USUAL);
    vm.build(&["-mode", "hvm_save", "-fd", "0"]).error("xenguest: -fd: descriptor 0 ");
    // The original gets its words and its descriptors, and nothing of ours.
    let original = script("#!/bin/sh\necho \"result:$(echo \"$*\" | wc -w) $0\" >&7\n");
    let path = path_text(&original).to_owned();
    let words: usize = vm.arguments().iter().map(|argument| argument.split_whitespace().count()).sum();
    let reply = vm.build(&["-mode", "save", "-fallback", &path, "-live"]);
    assert_eq!(reply.status, Some(0), "{reply:?}");
    // -controloutfd 7 -controlinfd 8, -mode save -live.
    assert_eq!(reply.text, format!("result:{} {path}\n", words + 4 + 3));
    assert_eq!(shell("xenguest -supports migration-v2; xenguest -supports telepathy"), "true\nfalse\n");
    let original = script("#!/bin/sh\necho \"true of $*\"\n");
    let asked = shell(&format!("xenguest -supports migration-v2 --fallback {}", path_text(&original)));
    assert_eq!(asked, "true of -supports migration-v2\n");
    vm.destroy();
}

/// Starts a mode of migration with the stream on this file, and returns the helper with its control descriptors.
fn migration(vm: &Vm, mode: &str, redirect: &str, more: &[&str]) -> Child {
    let line = format!(
        "exec xenguest -debug -controloutfd 7 -controlinfd 8 -mode {mode} -domid {} -fd 9 \"$@\" 7>&1 8<&0 9{redirect} >/dev/null",
        vm.domid
    );
    let mut command = Command::new("sh");
    command.args(["-c", &line, "xenopsd"]).args(more).stdin(Stdio::piped()).stdout(Stdio::piped());
    command.spawn().expect("sh")
}

/// A line of the helper's.
fn line_of(helper: &mut Child) -> String {
    let (mut line, mut byte) = (Vec::new(), [0]);
    let output = helper.stdout.as_mut().expect("piped");
    while line.last() != Some(&b'\n') && output.read(&mut byte).expect("readable") == 1 {
        line.push(byte[0]);
    }
    String::from_utf8(line).expect("UTF-8")
}

/// The first 32 MiB of a guest's memory, as far as there are pages.
pub(crate) fn memory(vm: &Vm) -> Vec<u8> {
    let mut all = Vec::new();
    for first in (0..32 << 8_u64).step_by(128) {
        let Ok(mapped) = vm.xen.map(vm.domid, Gfn(first), Pages(128)) else { continue };
        let mut bytes = vec![0; 128 << 12];
        mapped.read(0, &mut bytes);
        all.extend(bytes);
    }
    all
}

fn saves_and_restores() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = path_text(&folder.path().join("stream")).to_owned();
    for (live, word) in [(false, "done"), (true, "suspended")] {
        let vm = Vm::new(Kind::Hvm, 1, 64, 64, USUAL);
        let (store, console, _) = vm.build(&[]).result();
        vm.introduce(store, console);
        vm.xen.unpause(vm.domid).expect("it starts");
        thread::sleep(Duration::from_secs(3));
        let mut helper = migration(&vm, "hvm_save", &format!(">{path}"), if live { &["-live"] } else { &[] });
        assert_eq!(line_of(&mut helper), "suspend:\n");
        vm.xen.shut_down_to_suspend(vm.domid).expect("suspended");
        writeln!(helper.stdin.as_mut().expect("piped"), "{word}").expect("answered");
        assert_eq!(line_of(&mut helper), "result:0 0\n");
        assert!(helper.wait().expect("it ends").success());
        let before = memory(&vm);

        // Its caller may let it run on.
        let resumed = migration(&vm, "resume_slow", "</dev/null", &[]).wait_with_output().expect("it ends");
        assert_eq!(String::from_utf8_lossy(&resumed.stdout), "result:0 0\n");
        let runs = |vm: &Vm| {
            let time = || vm.xen.domain(vm.domid).expect("asked").expect("there").cpu_time;
            let now = time();
            wait_for("the guest runs", 30, || time() > now);
        };
        runs(&vm);
        vm.destroy();

        let vm = Vm::new(Kind::Hvm, 1, 64, 64, USUAL);
        let ports = [vm.store_port, vm.console_port].map(|port| port.0.to_string());
        let more = ["-store_port", &ports[0], "-console_port", &ports[1]];
        let mut helper = migration(&vm, "hvm_restore", &format!("<{path}"), &more);
        assert_eq!(line_of(&mut helper), format!("result:{store} {console}\n"));
        assert!(helper.wait().expect("it ends").success());
        assert!(before.len() > 16 << 20 && memory(&vm) == before, "its memory is the same");
        vm.introduce(store, console);
        vm.xen.unpause(vm.domid).expect("it goes on");
        runs(&vm);
        vm.destroy();
    }
    // A caller that gives up, and a stream that is cut off.
    let vm = Vm::new(Kind::Hvm, 1, 64, 64, USUAL);
    vm.build(&[]).result();
    let mut helper = migration(&vm, "hvm_save", ">/dev/null", &[]);
    assert_eq!(line_of(&mut helper), "suspend:\n");
    drop(helper.stdin.take());
    let line = line_of(&mut helper);
    assert!(
        line.starts_with("error:xc_domain_save 5 save-memory: ") && !helper.wait().expect("it ends").success(),
        "{line}"
    );
    vm.destroy();
    let vm = Vm::new(Kind::Hvm, 1, 64, 64, USUAL);
    let ports = [vm.store_port, vm.console_port].map(|port| port.0.to_string());
    shell(&format!("truncate -s 30M {path}"));
    let more = ["-store_port", &ports[0], "-console_port", &ports[1]];
    let mut helper = migration(&vm, "hvm_restore", &format!("<{path}"), &more);
    let line = line_of(&mut helper);
    assert!(line.starts_with("error:xc_domain_restore ") && !helper.wait().expect("it ends").success(), "{line}");
    vm.destroy();
}

/// Never setmaxmem, paging pool, event channels or introduce.
fn leaves_its_callers_work_alone() {
    let vm = Vm::new(Kind::Hvm, 1, 64, 64, USUAL);
    let before = (
        vm.xen.paging_pool(vm.domid).expect("asked"),
        vm.xen.domain(vm.domid).expect("asked").expect("there").max_pages,
    );
    let tree = |vm: &Vm| shell(&format!("xenstore-ls -f /local/domain/{}", vm.domid));
    let (old, calls) = (tree(&vm), "/tmp/xenguest-calls");
    shell("rm -f /tmp/xenguest-calls");
    let reply = vm.build(&["-debuglog", calls, "-debug"]);
    reply.result();
    let log = std::fs::read_to_string(calls).expect("a log");
    assert!(log.contains("xc_domain_populate_physmap("), "calls stand in it: {log}");
    for call in [
        "xc_domain_setmaxmem",
        "xc_set_paging_mempool_size",
        "xc_evtchn_alloc_unbound",
        "xc_domain_max_vcpus",
        "xs_introduce_domain",
        "xc_domain_unpause",
    ] {
        assert!(!log.contains(call), "{call} is in {log}");
    }
    assert!(log.contains("Command line: "), "{log}");
    shell("rm -f /tmp/xenguest-calls");
    let after = (
        vm.xen.paging_pool(vm.domid).expect("asked"),
        vm.xen.domain(vm.domid).expect("asked").expect("there").max_pages,
    );
    assert_eq!(before, after);
    let new = tree(&vm);
    let added: Vec<&str> = new.lines().filter(|line| !old.contains(*line)).collect();
    let expected = [
        "platform/acpi = \"1\"",
        // hvmloader's own value where the key is missing.
        "platform/acpi_laptop_slate = \"0\"",
        "hvmloader",
        "hvmloader/bios = \"seabios\"",
        "vm-data",
        "mmio-hole-size",
    ];
    assert!(added.iter().all(|line| expected.iter().any(|known| line.contains(known))), "{added:#?}");
    vm.destroy();
}

/// SIGKILL, as xenopsd does it when a task is cancelled, and then what a toolstack does with the domain. That the host is
/// as it was is checked after every test.
fn killed_at_any_moment() {
    let kills = sample::count(9, 50);
    let mut random = Random::new("kill xenguest");
    let kinds = [Kind::Hvm, Kind::Pvh, Kind::Pv];
    // A small one, lest most of the time go into its unpacking, where there is nothing to leave behind.
    let kernel = file(&tiny_kernel());
    let image = ["-image", path_text(&kernel)];
    let words = |kind| if kind == Kind::Hvm { &[][..] } else { &image };
    let whole = kinds.map(|kind| {
        let vm = Vm::new(kind, 2, 128, 128, USUAL);
        let began = Instant::now();
        vm.build(words(kind)).result();
        let took = began.elapsed();
        vm.destroy();
        took
    });
    let (mut killed, mut rounds) = (0, 0);
    while killed < kills {
        let index = rounds % kinds.len();
        rounds += 1;
        assert!(rounds <= 150, "only {killed} of {rounds} were killed in time");
        let vm = Vm::new(kinds[index], 2, 128, 128, USUAL);
        let mut child = vm.spawn(words(kinds[index]));
        thread::sleep(whole[index].mul_f64(f64::from(random.permille()) / 1000.0));
        child.kill().expect("signalled");
        if child.wait().expect("it ended").signal() == Some(9) {
            killed += 1;
        }
        let mut text = String::new();
        child.stdout.take().expect("piped").read_to_string(&mut text).expect("UTF-8");
        assert!(text.is_empty() || text.ends_with('\n'), "half an answer: {text:?}");
        vm.destroy();
    }
    println!("{killed} helpers were killed before their end, of {rounds}");
}
