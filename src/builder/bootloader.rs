//! Runs a boot loader in dom0, which takes the kernel out of a guest's first disk (`libxl__bootloader_run`,
//! tools/libs/light/libxl_bootloader.c, Xen 4.17): its command line and its answer are libxl's.
//!
//! Differences from libxl: the program is confined unless the caller turns that off, since it parses what the guest has
//! written; it has no terminal, so pygrub is started with `--quiet`, as libxl starts it without root's rights; a disk that is
//! not raw is refused, where libxl attaches it to dom0; its files must be in its own directory.

mod answer;
mod boot_disk;
mod work_directory;

use std::collections::VecDeque;
use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::PollFlags;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use self::answer::read_answer;
use self::boot_disk::BootDisk;
use self::work_directory::{DIRECTORY, WorkDirectory};
use crate::cancel::Cancel;
use crate::config::devices::disk::Disk;
use crate::error::Error;
use crate::error::bootloader::BootloaderError;
use crate::os::Untrusted;
use crate::os::confined_program::{Confinement, confine_program};
use crate::os::launch::{Child, Launch};
use crate::os::parent_death::KillOnParentDeath;
use crate::os::wait::WaitLimit;

/// How many bytes of its output are kept, from the end.
const KEPT: usize = 2000;

/// The largest file that it writes, in bytes: the largest ramdisk that libxenguest loads.
const LARGEST_FILE: u64 = 1 << 30;

/// What it may write in all, in bytes: a kernel and a ramdisk.
const LARGEST_OUTPUT: u64 = LARGEST_FILE + (512 << 20);

/// How long a wait lasts before the child is looked at again.
const SLICE: Duration = Duration::from_millis(50);

/// How long a killed child may take to end.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

/// A boot loader to run.
#[derive(Debug, Clone)]
pub struct Bootloader {
    /// The program: a path, or a name that is looked for where Xen's own programs are.
    pub name: String,
    /// The caller's arguments.
    pub arguments: Vec<String>,
    /// How long it may take.
    pub timeout: Duration,
    /// It runs as root, without a confinement.
    pub unconfined: bool,
    /// The kernel to look for on the disk, if it is not to choose one.
    pub kernel: Option<PathBuf>,
    /// The ramdisk to look for.
    pub ramdisk: Option<PathBuf>,
    /// The command line to add.
    pub cmdline: Option<String>,
}

/// What a boot loader found. The files last as long as the value.
#[derive(Debug)]
pub struct BootedFiles {
    /// The kernel.
    pub kernel: PathBuf,
    /// The ramdisk.
    pub ramdisk: Option<PathBuf>,
    /// The kernel's command line.
    pub cmdline: Option<String>,
    _directory: WorkDirectory,
}

/// The program's path.
fn find(name: &str) -> Result<PathBuf, BootloaderError> {
    let tried: Vec<PathBuf> = if name.contains('/') {
        vec![name.into()]
    } else {
        let own = concat!("/usr/lib/xen-", env!("DOMBUILD_XEN_VERSION"), "/bin");
        [own, "/usr/lib/xen/bin", "/usr/libexec/xen/bin", "/usr/local/lib/xen/bin", "/usr/bin"]
            .map(|directory| Path::new(directory).join(name))
            .into()
    };
    let found = tried.iter().find(|path| path.is_file()).cloned();
    // Debian's /usr/bin/pygrub chooses the one of the running Xen by a program of its own, which a confined one cannot start.
    found
        .map(|path| std::fs::canonicalize(&path).unwrap_or(path))
        .ok_or(BootloaderError::NotFound { name: name.to_owned(), tried })
}

/// Runs a boot loader on the first of these disks, and returns what it found.
///
/// # Errors
/// [`BootloaderError`]; [`Error::Interrupted`].
pub fn run(bootloader: &Bootloader, disks: &[Disk], cancel: &Cancel) -> Result<BootedFiles, Error> {
    let program = find(&bootloader.name)?;
    let disk = BootDisk::open(disks)?;
    let directory = WorkDirectory::new().map_err(Error::io(format!("make a directory in {DIRECTORY}")))?;
    let mut running = start(bootloader, &program, &disk, &directory)?;
    let ended = running.wait(bootloader.timeout, cancel, &directory);
    running.kill();
    let says = running.last_words();
    let path = program.clone();
    match ended? {
        Ended::Itself(status) if status.success() => {}
        Ended::Itself(status) => return Err(BootloaderError::Failed { path, status: status.to_string(), says }.into()),
        Ended::TimedOut => return Err(BootloaderError::TimedOut { path, after: bootloader.timeout, says }.into()),
        Ended::TooMuch => return Err(BootloaderError::TooMuch { path, most: LARGEST_OUTPUT }.into()),
    }
    let answer = read_answer(&directory, bootloader.unconfined);
    let (kernel, ramdisk, cmdline) =
        answer.map_err(|reason| BootloaderError::Answer { path: program.clone(), reason, says })?;
    log::info!(
        "the boot loader {} found {}{}, command line {:?}",
        program.display(),
        kernel.display(),
        ramdisk.as_ref().map_or_else(String::new, |ramdisk| format!(" and {}", ramdisk.display())),
        cmdline.as_deref().unwrap_or_default(),
    );
    Ok(BootedFiles { kernel, ramdisk, cmdline, _directory: directory })
}

/// A boot loader that runs.
struct Running {
    child: Child,
    output: PipeReader,
    kept: VecDeque<u8>,
    _tie: KillOnParentDeath,
}

/// How it ended.
enum Ended {
    Itself(ExitStatus),
    TimedOut,
    TooMuch,
}

fn start(
    bootloader: &Bootloader,
    program: &Path,
    disk: &BootDisk,
    directory: &WorkDirectory,
) -> Result<Running, BootloaderError> {
    let failed = |source| BootloaderError::Start { path: program.to_owned(), source };
    let (output, writer) = io::pipe().map_err(failed)?;
    fcntl(output.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).map_err(|errno| failed(errno.into()))?;
    let (tie, input, tied) = KillOnParentDeath::new().map_err(failed)?;
    let descriptors = [input.into(), writer.try_clone().map_err(failed)?.into(), writer.into()];
    let mut launch = Launch::new(program, descriptors).map_err(failed)?;
    let node = if bootloader.unconfined { disk.path.clone() } else { directory.device() };
    let arguments = arguments(bootloader, program, directory, &node);
    launch.arguments(&arguments).map_err(failed)?;
    for (name, value) in [("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"), ("TERM", "vt100"), ("LC_ALL", "C.UTF-8")] {
        launch.variable(name, value).map_err(failed)?;
    }
    launch.step(tied);
    if !bootloader.unconfined {
        let confinement = Confinement {
            program,
            device: disk.number,
            node: &node,
            output_directory: &directory.files(),
            output: &directory.answer(),
            file_size: LARGEST_FILE,
            cpu_seconds: bootloader.timeout.as_secs().max(1),
        };
        launch.step(confine_program(&confinement).map_err(BootloaderError::NoConfinement)?);
    }
    log::debug!("{} {arguments:?}", program.display());
    let child = launch.start().map_err(|source| match source.raw_os_error() {
        // The kernel has no such namespace, or this is not the root that may make one.
        Some(libc::EPERM | libc::ENOSYS | libc::EINVAL | libc::EOPNOTSUPP) if !bootloader.unconfined => {
            BootloaderError::NoConfinement(source)
        }
        _ => failed(source),
    })?;
    Ok(Running { child, output, kept: VecDeque::new(), _tie: tie })
}

/// libxl's arguments (`make_bootloader_args`).
fn arguments(bootloader: &Bootloader, program: &Path, directory: &WorkDirectory, disk: &Path) -> Vec<String> {
    let shown = |path: &Path| path.to_string_lossy().into_owned();
    let mut arguments = Vec::new();
    for (flag, path) in [("--kernel", &bootloader.kernel), ("--ramdisk", &bootloader.ramdisk)] {
        arguments.extend(path.as_ref().map(|path| format!("{flag}={}", shown(path))));
    }
    let cmdline = bootloader.cmdline.as_ref().filter(|cmdline| !cmdline.is_empty());
    arguments.extend(cmdline.map(|cmdline| format!("--args={cmdline}")));
    if program.file_name().is_some_and(|name| name == "pygrub") {
        arguments.push("--quiet".to_owned());
    }
    arguments.push(format!("--output={}", shown(&directory.answer())));
    arguments.push("--output-format=simple0".to_owned());
    arguments.push(format!("--output-directory={}", shown(&directory.files())));
    arguments.extend(bootloader.arguments.iter().cloned());
    arguments.push(shown(disk));
    arguments
}

impl Running {
    fn wait(&mut self, timeout: Duration, cancel: &Cancel, directory: &WorkDirectory) -> Result<Ended, Error> {
        let end = Instant::now() + timeout;
        loop {
            let closed = self.read();
            if let Some(status) = self.child.try_wait().map_err(Error::io("wait for the boot loader"))? {
                self.read();
                return Ok(Ended::Itself(status));
            }
            cancel.check()?;
            if Instant::now() >= end {
                return Ok(Ended::TimedOut);
            }
            if directory.written() > LARGEST_OUTPUT {
                return Ok(Ended::TooMuch);
            }
            if closed {
                // It has closed its output, which would be readable for ever.
                std::thread::sleep(SLICE);
                continue;
            }
            let limit = WaitLimit { timeout: SLICE, grace: Duration::ZERO, interrupt: cancel.interrupt().clone() };
            limit.wait(self.output.as_fd(), PollFlags::POLLIN).map_err(Error::io("wait for the boot loader"))?;
        }
    }

    /// Takes what it has said so far; whether its output is closed.
    fn read(&mut self) -> bool {
        let mut buffer = [0; 4096];
        // What it writes without an end does not keep this from looking at the clock.
        for _ in 0..64 {
            match self.output.read(&mut buffer) {
                Ok(0) => return true,
                Ok(length) => {
                    self.kept.extend(buffer.iter().take(length));
                    let surplus = self.kept.len().saturating_sub(KEPT);
                    self.kept.drain(..surplus);
                }
                Err(_) => return false,
            }
        }
        false
    }

    /// Its last line that is not empty, with those before it as far as they are kept.
    fn last_words(&mut self) -> Option<Untrusted> {
        let text = Untrusted::from_bytes(self.kept.make_contiguous());
        let text = text.raw_for_comparison().trim().to_owned();
        (!text.is_empty()).then(|| Untrusted::from(text))
    }

    /// Kills it and what it has started, and waits until it is gone.
    fn kill(&mut self) {
        let _ = killpg(Pid::from_raw(self.child.pid()), Signal::SIGKILL);
        let _ = self.child.kill();
        let end = Instant::now() + KILL_TIMEOUT;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_is_not_there() {
        let error = find("no-such-loader").expect_err("not there").to_string();
        assert!(error.contains("/bin/no-such-loader") && error.contains("/usr/bin/no-such-loader"), "{error}");
        assert!(find("/no/such/loader").expect_err("not there").to_string().ends_with("looked for /no/such/loader"));
    }
}
