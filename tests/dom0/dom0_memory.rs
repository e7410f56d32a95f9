//! The memory and the disk space that a build takes from dom0 while it prepares a guest's files.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use dombuild::payload::kernel::cache::KERNELS_DIRECTORY;

use super::Test;
use super::faults::tiny_kernel;
use super::images::kernels::{CODE, DATA, NOTES, bzimage, elf_of, header, notes, sized, zstd, zstd_zeros};
use super::support::{DOMBUILD, Ran, dombuild, file, path_text, run, shell};

#[path = "../data/orphans.rs"]
mod orphans;

pub(crate) const TESTS: &[Test] = &[
    ("dom0_memory_bounds_kernels", kernels_are_bounded),
    ("dom0_memory_ramdisks_are_mapped", ramdisks_are_mapped),
    ("dom0_memory_ramdisks_of_others_are_copied", ramdisks_of_others),
    ("dom0_memory_no_child_outlives_a_killed_run", no_orphans),
    ("dom0_memory_the_cache_leaves_disk_space", cache_leaves_space),
];

const MIB: u64 = 1 << 20;

/// A good PVH kernel of so many MiB, packed with Zstandard, in which they take a few KiB.
fn large_kernel(mib: u64) -> Vec<u8> {
    let blocks = usize::try_from(mib * 8).expect("small");
    let length = 0x40 + (blocks << 17) + 1;
    let headers = [
        header(1, 5, CODE, 0x10_0000, 0x40, 0x1000),
        header(1, 6, DATA, 0x20_0000, length, length as u64),
        header(4, 4, NOTES, 0, notes().len(), notes().len() as u64),
    ];
    let front = elf_of(&headers, &notes());
    // One frame after the other: what they become is put together. The last byte is none of the zeros that are left out.
    let packed = [zstd(&front), zstd_zeros(blocks), zstd(&[1])].concat();
    bzimage(&sized(packed, front.len() + (blocks << 17) + 1))
}

fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(DOMBUILD);
    command.args(arguments).env("RUST_LOG", "dombuild=info").stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts")
}

/// Looks at a run again and again until it has ended.
fn watch(mut child: Child, mut look: impl FnMut(u32)) -> Ran {
    while child.try_wait().expect("ours").is_none() {
        look(child.id());
        thread::sleep(Duration::from_millis(2));
    }
    Ran::new(&child.wait_with_output().expect("it ended"))
}

/// A field of one of the kernel's tables, in bytes; 0 where it is not there, as in a process that has ended.
fn field(table: &str, name: &str) -> u64 {
    let text = fs::read_to_string(table).unwrap_or_default();
    let rest = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    rest.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap_or(0) * 1024
}

fn available() -> u64 {
    field("/proc/meminfo", "MemAvailable:")
}

/// What is left to other programs.
fn reserve() -> u64 {
    (64 * MIB).max(field("/proc/meminfo", "MemTotal:") / 8)
}

/// The numbers of processes that unpack a kernel.
fn unpackers() -> Vec<String> {
    let pids = fs::read_dir("/proc").expect("/proc").flatten().map(|entry| entry.path());
    let unpacks = |path: &Path| {
        fs::read(path.join("cmdline"))
            .is_ok_and(|words| words.split(|byte| *byte == 0).nth(1) == Some(b"unpack-kernel"))
    };
    pids.filter(|path| unpacks(path)).map(|path| path.display().to_string()).collect()
}

/// What dom0 had least, while a kernel of so many MiB was checked; and how that ended.
fn checked(mib: u64, scores: &mut Vec<String>) -> (u64, Ran) {
    let kernel = file(&large_kernel(mib));
    assert!(fs::metadata(&kernel).expect("there").len() < MIB / 2);
    let words = ["--json", "create", "--dry-run", "--name", "t", "--kind", "pvh", "--memory", "600", "--kernel"];
    let mut least = available();
    let ran = watch(start(&[&words[..], &[path_text(&kernel)]].concat()), |_| {
        least = least.min(available());
        scores.extend(unpackers().iter().filter_map(|path| fs::read_to_string(format!("{path}/oom_score_adj")).ok()));
    });
    (least, ran)
}

/// A kernel of 0.5 MB at most that becomes large: what fits is unpacked, what does not is refused, and other programs keep their
/// memory.
fn kernels_are_bounded() {
    shell("sync; echo 3 >/proc/sys/vm/drop_caches");
    let (before, reserve) = (available(), reserve());
    let mut scores = Vec::new();
    let (least, ran) = checked(200, &mut scores);
    ran.success();
    let taken = before.saturating_sub(least);
    println!("200 MiB: {} of {} MiB taken, {} are left to others", taken / MIB, before / MIB, reserve / MIB);
    assert!(taken > 300 * MIB && taken < 480 * MIB, "child and memory have 200 MiB each: {taken}");
    assert!(least >= reserve, "{least} of {reserve}");
    // The last look may meet it before it has begun.
    assert!(scores.iter().any(|score| score.trim() == "1000"), "{scores:?}");

    let (least, ran) = checked(500, &mut scores);
    let error = ran.failed_with(4, "not-enough-memory");
    assert!(least >= reserve, "{least} of {reserve}");
    assert_eq!((&error["stage"], &error["errno"]), (&"check-input".into(), &"ENOMEM".into()), "{error}");
    let kib = |name: &str| error[name].as_u64().unwrap_or_else(|| panic!("{name}: {error}"));
    let message = error["message"].as_str().expect("text");
    for words in ["dom0", "give dom0 more memory", "smaller kernel", &format!("{} KiB", kib("dom0_required_kib"))] {
        assert!(message.contains(words), "{words}: {message}");
    }
    assert!(kib("dom0_required_kib") > 1000 << 10 && kib("dom0_required_kib") < 1030 << 10, "{error}");
    assert!(kib("dom0_available_kib") * 1024 <= before + 64 * MIB, "{error}");
    assert_eq!(kib("dom0_reserve_kib") * 1024, reserve / 1024 * 1024, "{error}");
    println!("500 MiB: {message}");
}

/// A ramdisk of so many MiB, which begins as one that is packed with gzip does, and ends with a byte that is not 0.
fn ramdisk(mib: u64) -> tempfile::TempPath {
    // On a disk: what is mapped of a tmpfs counts as shared memory, as a copy does.
    let mut ramdisk = tempfile::NamedTempFile::new_in("/srv/guest").expect("a file");
    ramdisk.write_all(&[0x1f, 0x8b, 8, 0]).expect("written");
    ramdisk.seek(SeekFrom::Start(mib * MIB - 1)).expect("a file");
    ramdisk.write_all(&[1]).expect("written");
    ramdisk.into_temp_path()
}

/// Starts to create a guest with it.
fn create_with(ramdisk: &Path) -> (Child, tempfile::TempPath) {
    let kernel = file(&tiny_kernel());
    let words = ["create", "--name", "t", "--kind", "pvh", "--memory", "512", "--paused", "--kernel"];
    let child = start(&[&words[..], &[path_text(&kernel), "--ramdisk", path_text(ramdisk)]].concat());
    (child, kernel)
}

fn ramdisks_are_mapped() {
    let ramdisk = ramdisk(128);
    let (child, _kernel) = create_with(&ramdisk);
    let (mut own, mut is_mapped) = (0, false);
    watch(child, |pid| {
        // For a moment at its start it shows the memory of the process that starts it, which is this one.
        if fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.trim() != "dombuild") {
            return;
        }
        own = own.max(field(&format!("/proc/{pid}/status"), "RssAnon:"));
        // How much of it is in memory at a look depends on the moment; that it is mapped does not.
        is_mapped |=
            fs::read_to_string(format!("/proc/{pid}/maps")).is_ok_and(|maps| maps.contains(path_text(&ramdisk)));
    })
    .success();
    dombuild(&["destroy", "t"]).success();
    println!("a ramdisk of 128 MiB: {} KiB of dombuild's own", own >> 10);
    assert!(is_mapped);
    assert!(own < 24 * MIB, "{own}");
}

fn ramdisks_of_others() {
    let ramdisk = ramdisk(64);
    chown(&ramdisk, Some(1000), None).expect("root may");
    let (child, _kernel) = create_with(&ramdisk);
    let mut cut = false;
    let ran = watch(child, |pid| {
        // Mapped: it is whole by then.
        let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap_or_default();
        if !cut && maps.contains("/memfd:ramdisk") {
            File::options().write(true).open(&ramdisk).and_then(|file| file.set_len(0)).expect("cut off");
            cut = true;
        }
    });
    assert!(cut, "the copy was not seen: {ran:?}");
    ran.success();
    dombuild(&["destroy", "t"]).success();
    // Cut off at any other time: an error, or a guest, and no signal.
    for delay in 0..8 {
        let ramdisk = self::ramdisk(64);
        chown(&ramdisk, Some(1000), None).expect("root may");
        let (child, _kernel) = create_with(&ramdisk);
        thread::sleep(Duration::from_millis(20 * delay));
        File::options().write(true).open(&ramdisk).and_then(|file| file.set_len(0)).expect("cut off");
        match watch(child, |_| {}) {
            Ran { status: Some(0), .. } => drop(dombuild(&["destroy", "t"]).success()),
            ran => assert!(ran.status == Some(3) && ran.stderr.contains("ramdisk"), "{ran:?}"),
        }
    }
}

fn no_orphans() {
    let kernel = file(&large_kernel(300));
    let words =
        ["create", "--dry-run", "--name", "t", "--kind", "pvh", "--memory", "600", "--kernel", path_text(&kernel)];
    // How long the child takes to appear depends on the host.
    let began = Instant::now();
    let mut appeared = None;
    watch(start(&words), |_| {
        if appeared.is_none() && !unpackers().is_empty() {
            appeared = Some(began.elapsed());
        }
    });
    let appeared = appeared.expect("it was seen");
    let orphans = orphans::kill_parents(DOMBUILD, &words, 24, appeared / 2..appeared * 9 / 8);
    println!("{orphans} of 24 killed runs had a child, which died too; it appears after {appeared:?}");
    assert!(orphans >= 3, "{orphans}");
    assert_eq!(unpackers(), [""; 0]);
}

fn cache_leaves_space() {
    shell(&format!("rm -rf {KERNELS_DIRECTORY}; mkdir -p -m 700 {KERNELS_DIRECTORY}"));
    let kernel = file(&large_kernel(30));
    for (size, is_kept) in [("32m", false), ("64m", true)] {
        shell(&format!("mount -t tmpfs -o size={size},mode=700 kernels {KERNELS_DIRECTORY}"));
        let words = ["create", "--name", "t", "--kind", "pvh", "--memory", "128", "--paused", "--kernel"];
        let ran = watch(start(&[&words[..], &[path_text(&kernel)]].concat()), |_| {});
        let kept = fs::read_dir(KERNELS_DIRECTORY).expect("there").count();
        shell(&format!("umount {KERNELS_DIRECTORY}"));
        let ran = ran.success();
        run(DOMBUILD, &["destroy", "t"]).success();
        assert_eq!((kept, ran.stderr.contains("is not kept in")), (usize::from(is_kept), !is_kept), "{size}: {ran:?}");
    }
    shell(&format!("rm -rf {KERNELS_DIRECTORY}"));
}
