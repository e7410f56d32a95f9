//! Process handles (pidfd): an operation cannot reach another process that got the same number later.

use std::fs;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::procfs;

/// Identifies a process across reboots, although the kernel reuses process numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessId {
    /// The process ID.
    pub pid: i32,
    /// The start time, in clock ticks since boot.
    pub start: u64,
    /// The boot ID.
    pub boot: Uuid,
}

impl ProcessId {
    /// The current process with this number; `None` if there is none.
    ///
    /// # Errors
    /// If the kernel does not report the boot ID.
    pub fn of(pid: i32) -> io::Result<Option<Self>> {
        let boot = boot()?;
        Ok(procfs::start_time(pid).map(|start| Self { pid, start, boot }))
    }
}

/// The boot ID of the running kernel.
///
/// # Errors
/// If the kernel does not report it.
pub fn boot() -> io::Result<Uuid> {
    fs::read_to_string("/proc/sys/kernel/random/boot_id")?.trim().parse().map_err(io::Error::other)
}

/// A process, held by pidfd_open(2); before Linux 5.3, by its number and start time.
#[derive(Debug)]
pub struct Process {
    pid: i32,
    start: u64,
    fd: Option<OwnedFd>,
}

impl Process {
    /// Opens the process with this number; `None` if none runs.
    ///
    /// # Errors
    /// The error of the system call.
    pub fn open(pid: i32) -> io::Result<Option<Self>> {
        // SAFETY: the call takes two numbers and accesses no memory.
        let returned = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let fd = match (libc::c_int::try_from(returned), Errno::last()) {
            (Ok(number @ 0..), _) => {
                // SAFETY: the call returned this descriptor, which nothing else owns.
                Some(unsafe { OwnedFd::from_raw_fd(number) })
            }
            (_, Errno::ENOSYS) => None,
            (_, Errno::ESRCH | Errno::EINVAL) => return Ok(None),
            (_, errno) => return Err(errno.into()),
        };
        // Read while the pidfd is open, so it belongs to this process.
        Ok(procfs::start_time(pid).map(|start| Self { pid, start, fd }))
    }

    /// Opens the identified process; `None` if it has ended or belongs to another boot.
    ///
    /// # Errors
    /// The error of the system call.
    pub fn find(id: &ProcessId) -> io::Result<Option<Self>> {
        if boot()? != id.boot {
            return Ok(None);
        }
        Ok(Self::open(id.pid)?.filter(|process| process.start == id.start))
    }

    /// The process ID.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Whether it has ended, reaped or not.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        match &self.fd {
            // A pidfd is readable once the process has ended.
            Some(fd) => {
                poll(&mut [PollFd::new(std::os::fd::AsFd::as_fd(fd), PollFlags::POLLIN)], PollTimeout::ZERO) == Ok(1)
            }
            None => procfs::start_time(self.pid) != Some(self.start),
        }
    }

    /// Sends a signal; does nothing if the process has ended.
    ///
    /// # Errors
    /// The error of the system call.
    pub fn signal(&self, signal: Signal) -> io::Result<()> {
        let outcome = match &self.fd {
            Some(fd) => {
                let info = std::ptr::null::<libc::siginfo_t>();
                // SAFETY: the descriptor is open, and a null siginfo is allowed.
                let returned =
                    unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd.as_raw_fd(), signal as i32, info, 0) };
                if returned == 0 { Ok(()) } else { Err(Errno::last()) }
            }
            None if self.has_ended() => Ok(()),
            None => kill(Pid::from_raw(self.pid), signal),
        };
        match outcome {
            Ok(()) | Err(Errno::ESRCH) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Opens the processes of a group except its leader. The caller must keep the group's number in use: the leader runs,
/// or is not reaped yet.
///
/// # Errors
/// The error of the system call.
pub fn members(group: i32) -> io::Result<Vec<Process>> {
    let mut members = Vec::new();
    for pid in procfs::pids().filter(|pid| *pid != group && procfs::group(*pid) == Some(group)) {
        // Checked again with the pidfd open: the number may have been reused.
        members.extend(Process::open(pid)?.filter(|_| procfs::group(pid) == Some(group)));
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Command};
    use std::thread;
    use std::time::Duration;

    use super::*;

    fn sleeper(line: &str) -> (Child, i32) {
        let child = Command::new("sh").args(["-c", line]).process_group(0).spawn().expect("a shell");
        let pid = i32::try_from(child.id()).expect("a pid");
        (child, pid)
    }

    #[test]
    fn a_process_that_has_ended_gets_no_signal() {
        let (mut child, pid) = sleeper("exec sleep 1000");
        let id = ProcessId::of(pid).expect("asked").expect("it runs");
        let process = Process::find(&id).expect("held").expect("it runs");
        assert!(!process.has_ended());
        process.signal(Signal::SIGTERM).expect("sent");
        while !process.has_ended() {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(Process::find(&id).expect("asked").is_none(), "it is not reaped yet");
        assert_eq!(child.wait().expect("waited").signal(), Some(15));
        process.signal(Signal::SIGKILL).expect("no error for an ended process");
        assert!(Process::find(&id).expect("asked").is_none() && Process::open(pid).expect("asked").is_none());
        assert!(Process::open(-1).expect("asked").is_none() && Process::open(i32::MAX).expect("asked").is_none());
    }

    #[test]
    fn a_number_alone_is_not_the_process() {
        let (mut child, pid) = sleeper("exec sleep 1000");
        let id = ProcessId::of(pid).expect("asked").expect("it runs");
        for other in [ProcessId { start: id.start - 1, ..id.clone() }, ProcessId { boot: Uuid::nil(), ..id }] {
            assert!(Process::find(&other).expect("asked").is_none());
        }
        child.kill().expect("killed");
        child.wait().expect("waited");
    }

    #[test]
    fn a_group_is_found_also_when_its_leader_has_ended() {
        let (mut child, pid) = sleeper("sleep 1000 & sleep 1000 &");
        let leader = Process::open(pid).expect("held");
        while leader.as_ref().is_some_and(|leader| !leader.has_ended()) {
            thread::sleep(Duration::from_millis(1));
        }
        let found = members(pid).expect("listed");
        assert_eq!(found.len(), 2);
        for process in &found {
            process.signal(Signal::SIGKILL).expect("sent");
        }
        child.wait().expect("waited");
        while !found.iter().all(Process::has_ended) {
            thread::sleep(Duration::from_millis(1));
        }
        assert!(members(pid).expect("listed").is_empty());
    }
}
