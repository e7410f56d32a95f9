//! A cgroup of version 2 for a guest's helper processes: finds, limits and kills them all.
//!
//! Unless it is root, a process cannot leave its cgroup, nor can its descendants. So the cgroup identifies a guest's
//! processes; users and command lines do not (Documentation/admin-guide/cgroup-v2.rst, Linux 6.1).

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::pidfd::Process;

/// Mount points of version 2: alone, or next to version 1, where it has no controllers.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The parent of this program's cgroups.
const PARENT_DIR: &str = "dombuild";

const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// The limits of all processes of a cgroup together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CgroupLimits {
    /// Memory in bytes, including their page cache and shared memory.
    pub memory: u64,
    /// The number of processes and threads.
    pub tasks: u32,
}

/// A cgroup below `dombuild`. Dropping the value does not change it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Creates a cgroup, or opens the existing one of that name. Limits without a controller on this host are skipped.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] if the host has no cgroups of version 2; the error of the system call.
    pub fn make(name: &str, limits: CgroupLimits) -> io::Result<Self> {
        let root = own_root().ok_or_else(|| io::Error::new(ErrorKind::Unsupported, "no cgroups of version 2"))?;
        let path = root.join(name);
        match fs::create_dir(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                fs::create_dir_all(&path)?;
            }
            Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
            outcome => outcome?,
        }
        let group = Self(path);
        if let Err(error) = group.limit(limits) {
            // Most likely the first cgroup since boot: the controllers are not delegated yet.
            if let Err(error) = hand_down_controllers(&root).and_then(|()| group.limit(limits)) {
                log::info!("no limits for {}: {error}", group.0.display());
            }
            log::debug!("{}: {error}", group.0.display());
        }
        Ok(group)
    }

    /// The existing cgroup of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        let path = own_root()?.join(name);
        path.is_dir().then_some(Self(path))
    }

    /// The names of all existing cgroups.
    #[must_use]
    pub fn names() -> Vec<OsString> {
        let entries = own_root().and_then(|root| fs::read_dir(root).ok()).into_iter().flatten().flatten();
        entries
            .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
            .map(|entry| entry.file_name())
            .collect()
    }

    fn limit(&self, limits: CgroupLimits) -> io::Result<()> {
        self.write("memory.max", &limits.memory.to_string())?;
        self.write("pids.max", &limits.tasks.to_string())
    }

    fn write(&self, file: &str, text: &str) -> io::Result<()> {
        // Without O_CREAT: a missing file is a missing controller.
        OpenOptions::new().write(true).open(self.0.join(file))?.write_all(text.as_bytes())
    }

    /// Opens the cgroup for a process that starts in it.
    ///
    /// # Errors
    /// If the cgroup does not exist.
    pub(super) fn entrance(&self) -> io::Result<Entrance> {
        let procs = OpenOptions::new().write(true).open(self.0.join("cgroup.procs"))?;
        Ok(Entrance { directory: File::open(&self.0)?.into(), procs: procs.into() })
    }

    /// Opens the processes in the cgroup.
    ///
    /// # Errors
    /// The error of the system call.
    pub fn processes(&self) -> io::Result<Vec<Process>> {
        let mut held = Vec::new();
        for pid in self.numbers()? {
            held.extend(Process::open(pid)?);
        }
        // Checked again with the pidfds open: a number may have been reused.
        let still = self.numbers()?;
        held.retain(|process| still.contains(&process.pid()));
        Ok(held)
    }

    fn numbers(&self) -> io::Result<Vec<i32>> {
        match fs::read_to_string(self.0.join("cgroup.procs")) {
            Ok(text) => Ok(text.lines().filter_map(|line| line.parse().ok()).collect()),
            Err(error) if is_gone(&error) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    /// Whether the cgroup has no running process.
    ///
    /// # Errors
    /// The error of the system call.
    pub fn is_empty(&self) -> io::Result<bool> {
        match fs::read_to_string(self.0.join("cgroup.events")) {
            Ok(text) => Ok(text.lines().any(|line| line == "populated 0")),
            Err(error) if is_gone(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Kills all processes in the cgroup, including ones that are being forked.
    ///
    /// # Errors
    /// The error of the system call.
    pub fn kill(&self) -> io::Result<()> {
        match self.write("cgroup.kill", "1") {
            Err(error) if is_gone(&error) && self.0.is_dir() => {
                // Linux before 5.14 has no cgroup.kill. Frozen processes cannot fork, and SIGKILL still reaches them.
                self.write("cgroup.freeze", "1")?;
                self.processes()?.iter().try_for_each(|process| process.signal(Signal::SIGKILL))?;
                self.write("cgroup.freeze", "0")
            }
            Err(error) if is_gone(&error) => Ok(()),
            outcome => outcome,
        }
    }

    /// Removes the cgroup. Killed processes may take up to `timeout` to disappear.
    ///
    /// # Errors
    /// If a process remains in the cgroup; the error of the system call.
    pub fn remove(&self, timeout: Duration) -> io::Result<()> {
        let start = Instant::now();
        loop {
            match fs::remove_dir(&self.0) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ResourceBusy && start.elapsed() < timeout => {
                    thread::sleep(POLL_INTERVAL);
                }
                outcome => return outcome,
            }
        }
    }
}

/// Open descriptors by which a process enters a cgroup.
#[derive(Debug)]
pub(super) struct Entrance {
    directory: OwnedFd,
    procs: OwnedFd,
}

impl Entrance {
    /// The descriptor for `CLONE_INTO_CGROUP`.
    pub(super) fn directory(&self) -> RawFd {
        self.directory.as_raw_fd()
    }

    /// Moves the calling process. One system call, so a child may use it before exec.
    pub(super) fn enter(&self) -> io::Result<()> {
        // SAFETY: the call reads one static byte.
        let written = unsafe { libc::write(self.procs.as_raw_fd(), c"0".as_ptr().cast(), 1) };
        if written == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// Whether the directory or file does not exist.
fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

fn own_root() -> Option<PathBuf> {
    let is_version_2 = |path: &Path| statfs(path).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC);
    MOUNTS.iter().map(Path::new).find(|path| is_version_2(path)).map(|path| path.join(PARENT_DIR))
}

/// Delegates the memory and pids controllers to this program's cgroups.
fn hand_down_controllers(root: &Path) -> io::Result<()> {
    for directory in root.parent().into_iter().chain([root]) {
        File::options().write(true).open(directory.join("cgroup.subtree_control"))?.write_all(b"+memory +pids")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    use super::*;

    const LIMITS: CgroupLimits = CgroupLimits { memory: 64 << 20, tasks: 100 };

    /// `None` where cgroups cannot be created (another user, a container).
    fn group(name: &str) -> Option<Cgroup> {
        Cgroup::make(&format!("test-{}-{name}", std::process::id()), LIMITS).ok()
    }

    #[test]
    fn all_that_was_started_in_it_is_killed() {
        let Some(group) = group("kill") else { return };
        let mut command = Command::new("sh");
        // They leave the process group, and have other command lines.
        command.args(["-c", "setsid sleep 1000 & setsid sleep 1000 & wait"]);
        let entrance = group.entrance().expect("it is there");
        // SAFETY: the closure makes one system call. The descriptors live as long as it does.
        unsafe { command.pre_exec(move || entrance.enter()) };
        let mut child = command.spawn().expect("a shell");
        while group.processes().expect("listed").len() < 3 {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(!group.is_empty().expect("asked"));
        assert!(group.remove(Duration::ZERO).is_err(), "it is in use");
        group.kill().expect("killed");
        assert_eq!(child.wait().expect("waited").signal(), Some(9));
        group.remove(Duration::from_secs(20)).expect("removed");
        assert!(group.is_empty().expect("asked") && group.processes().expect("listed").is_empty());
        group.kill().expect("there is none");
        group.remove(Duration::ZERO).expect("there is none");
    }
}
