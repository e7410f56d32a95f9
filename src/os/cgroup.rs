//! A cgroup of version 2 for each guest's helpers: what is in it can be found, limited and ended, whatever it does.
//!
//! A process cannot leave its cgroup, nor can what it forks, unless it is root. So the cgroup, and neither a user nor a
//! command line, tells which processes belong to a guest (Documentation/admin-guide/cgroup-v2.rst, Linux 6.1).

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::sys::statfs::{CGROUP2_SUPER_MAGIC, statfs};

use super::pidfd::Process;

/// Where version 2 is: alone, or beside version 1, where it has no controllers.
const MOUNTS: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// The directory of all cgroups of this program.
const OWN: &str = "dombuild";

const POLL: Duration = Duration::from_millis(5);

/// What the processes of a cgroup may use together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CgroupLimits {
    /// Bytes of memory, page cache and shared memory that they fill included.
    pub memory: u64,
    /// Processes and threads.
    pub tasks: u32,
}

/// A cgroup of this program's. Dropping it leaves it as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes an empty cgroup, or takes the one of that name that is there. Limits that the host has no controllers for
    /// are left out.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`] where the host has no cgroups of version 2; what the system says.
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
            // The first cgroup of this boot, most likely: the controllers are not handed down yet.
            if let Err(error) = hand_down_controllers(&root).and_then(|()| group.limit(limits)) {
                log::info!("no limits for {}: {error}", group.0.display());
            }
            log::debug!("{}: {error}", group.0.display());
        }
        Ok(group)
    }

    /// The cgroup of that name, where it is there.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        let path = own_root()?.join(name);
        path.is_dir().then_some(Self(path))
    }

    /// The names of all that are there.
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
        // Never made anew: a file that is not there is a controller that is not there.
        OpenOptions::new().write(true).open(self.0.join(file))?.write_all(text.as_bytes())
    }

    /// Opens it for a process that is to begin there.
    ///
    /// # Errors
    /// Where the cgroup is not there any more.
    pub(super) fn entrance(&self) -> io::Result<Entrance> {
        let procs = OpenOptions::new().write(true).open(self.0.join("cgroup.procs"))?;
        Ok(Entrance { directory: File::open(&self.0)?.into(), procs: procs.into() })
    }

    /// Has a program start and move into it before anything else.
    ///
    /// # Errors
    /// Where the cgroup is not there any more.
    pub fn put_into(&self, command: &mut Command) -> io::Result<()> {
        let entrance = self.entrance()?;
        // SAFETY: between fork and exec, the closure makes one system call and nothing else. The descriptors live as long as
        // the closure, and are closed by exec.
        unsafe { command.pre_exec(move || entrance.enter()) };
        Ok(())
    }

    /// The processes in it, each held.
    ///
    /// # Errors
    /// What the system says.
    pub fn processes(&self) -> io::Result<Vec<Process>> {
        let mut held = Vec::new();
        for pid in self.numbers()? {
            held.extend(Process::open(pid)?);
        }
        // Looked at again once they are held: a number may have changed hands in between.
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

    /// Whether no process is in it that still runs.
    ///
    /// # Errors
    /// What the system says.
    pub fn is_empty(&self) -> io::Result<bool> {
        match fs::read_to_string(self.0.join("cgroup.events")) {
            Ok(text) => Ok(text.lines().any(|line| line == "populated 0")),
            Err(error) if is_gone(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Kills everything in it at once, what is just being forked included.
    ///
    /// # Errors
    /// What the system says.
    pub fn kill(&self) -> io::Result<()> {
        match self.write("cgroup.kill", "1") {
            Err(error) if is_gone(&error) && self.0.is_dir() => {
                // A Linux before 5.14. What is stopped forks no more; a signal that kills is taken all the same.
                self.write("cgroup.freeze", "1")?;
                self.processes()?.iter().try_for_each(|process| process.signal(Signal::SIGKILL))?;
                self.write("cgroup.freeze", "0")
            }
            Err(error) if is_gone(&error) => Ok(()),
            outcome => outcome,
        }
    }

    /// Removes it, at most after `patience`: what was killed may take that long to be gone.
    ///
    /// # Errors
    /// Where something is in it still; what the system says.
    pub fn remove(&self, patience: Duration) -> io::Result<()> {
        let start = Instant::now();
        loop {
            match fs::remove_dir(&self.0) {
                Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
                Err(error) if error.kind() == ErrorKind::ResourceBusy && start.elapsed() < patience => {
                    thread::sleep(POLL);
                }
                outcome => return outcome,
            }
        }
    }
}

/// The ways for a process into a cgroup; open descriptors.
#[derive(Debug)]
pub(super) struct Entrance {
    directory: OwnedFd,
    procs: OwnedFd,
}

impl Entrance {
    /// What `CLONE_INTO_CGROUP` takes.
    pub(super) fn directory(&self) -> RawFd {
        self.directory.as_raw_fd()
    }

    /// Moves the process that calls it. A system call alone, so that a child may call it before exec.
    pub(super) fn enter(&self) -> io::Result<()> {
        // SAFETY: the call reads one static byte.
        let written = unsafe { libc::write(self.procs.as_raw_fd(), c"0".as_ptr().cast(), 1) };
        if written == 1 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

/// The directory or file is not there (any more).
fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ENODEV)
}

fn own_root() -> Option<PathBuf> {
    let is_version_2 = |path: &Path| statfs(path).is_ok_and(|found| found.filesystem_type() == CGROUP2_SUPER_MAGIC);
    MOUNTS.iter().map(Path::new).find(|path| is_version_2(path)).map(|path| path.join(OWN))
}

/// Makes the controllers of memory and tasks usable in this program's cgroups.
fn hand_down_controllers(root: &Path) -> io::Result<()> {
    for directory in root.parent().into_iter().chain([root]) {
        File::options().write(true).open(directory.join("cgroup.subtree_control"))?.write_all(b"+memory +pids")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    const LIMITS: CgroupLimits = CgroupLimits { memory: 64 << 20, tasks: 100 };

    /// Where cgroups cannot be made (another user, a container), there is nothing to see.
    fn group(name: &str) -> Option<Cgroup> {
        Cgroup::make(&format!("test-{}-{name}", std::process::id()), LIMITS).ok()
    }

    #[test]
    fn all_that_was_started_in_it_is_killed() {
        let Some(group) = group("kill") else { return };
        let mut command = Command::new("sh");
        // Neither its process group nor its command line tells of it.
        command.args(["-c", "setsid sleep 1000 & setsid sleep 1000 & wait"]);
        group.put_into(&mut command).expect("it is there");
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
