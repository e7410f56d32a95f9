//! Finds the processes that hold a lock on a file: `/proc/locks`, and `/proc/PID/fdinfo` if that list does not name
//! them (proc(5)).

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;

use super::procfs;
use super::shared_file::is_trusted;
use super::untrusted::Untrusted;

/// The two kinds of locks, which are independent of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LockKind {
    /// `flock`.
    Flock,
    /// `fcntl`: process locks and open file description locks.
    Fcntl,
}

/// A process that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The process ID; `None` if no process was found.
    pub pid: Option<i32>,
    /// The real user: a set-uid program, whose effective user differs, inherits its caller's locks.
    pub user: Option<u32>,
    name: Option<Untrusted>,
}

impl Holder {
    fn of(pid: i32) -> Option<Self> {
        Some(Self { pid: Some(pid), user: Some(procfs::user(pid)?), name: procfs::name(pid) })
    }

    /// Whether the process belongs to root or to this process's user.
    #[must_use]
    pub fn is_trusted(&self) -> bool {
        self.user.is_some_and(is_trusted)
    }
}

impl fmt::Display for Holder {
    /// `process 7 (xl)`, `process 8 (sleep) of user 65534`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(pid) = self.pid else { return formatter.write_str("an unknown process") };
        write!(formatter, "process {pid}")?;
        if let Some(name) = &self.name {
            write!(formatter, " ({name})")?;
        }
        match self.user {
            Some(user) if !is_trusted(user) => write!(formatter, " of user {user}"),
            _ => Ok(()),
        }
    }
}

/// A file as `/proc/locks` identifies it: device and inode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockedFile {
    place: String,
    kind: LockKind,
}

impl LockedFile {
    /// Selects the locks of a kind on an open file.
    ///
    /// # Errors
    /// If fstat(2) fails.
    pub fn of(file: &File, kind: LockKind) -> io::Result<Self> {
        let found = file.metadata()?;
        let (major, minor) = (libc::major(found.dev()), libc::minor(found.dev()));
        Ok(Self { place: format!("{major:02x}:{minor:02x}:{}", found.ino()), kind })
    }

    /// Returns every process that holds a lock; empty if the lock is free. Each call reads the whole list.
    ///
    /// The list names the process that took a lock. That process may have ended, because a `flock` lasts as long as the
    /// open file; an open file description lock has no process. Only trusted processes are searched for such locks:
    /// other users could start so many that the search takes long.
    #[must_use]
    pub fn holders(&self) -> Vec<Holder> {
        let pids = self.pids_in(&fs::read_to_string("/proc/locks").unwrap_or_default());
        let mut holders: Vec<Holder> = Vec::new();
        let mut unknown = false;
        for pid in pids {
            match pid.and_then(Holder::of) {
                Some(holder) => holders.push(holder),
                None => unknown = true,
            }
        }
        if unknown && !holders.iter().any(Holder::is_trusted) {
            let found = procfs::pids().filter(|pid| procfs::user(*pid).is_some_and(is_trusted));
            let found = found.filter(|pid| self.is_held_through(*pid)).find_map(Holder::of);
            holders.push(found.unwrap_or(Holder { pid: None, user: None, name: None }));
        }
        holders
    }

    /// Whether a process has the locked file open: it took the lock, or inherited or received the open file.
    #[must_use]
    pub fn is_held_through(&self, pid: i32) -> bool {
        let files = fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten().flatten();
        files
            .filter_map(|file| fs::read_to_string(file.path()).ok())
            .any(|text| text.lines().any(|line| line.starts_with("lock:") && self.is_in(line)))
    }

    /// The processes in a list; `None` for a lock without a process.
    fn pids_in(&self, locks: &str) -> Vec<Option<i32>> {
        let held = locks.lines().filter(|line| self.is_in(line) && !line.contains(" -> "));
        held.map(|line| line.split_whitespace().nth(4)?.parse().ok().filter(|pid| *pid > 0)).collect()
    }

    fn is_in(&self, line: &str) -> bool {
        let kinds: &[&str] = match self.kind {
            LockKind::Flock => &["FLOCK"],
            LockKind::Fcntl => &["POSIX", "OFDLCK"],
        };
        let mut words = line.split_whitespace();
        words.any(|word| kinds.contains(&word)) && words.any(|word| word == self.place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCKS: &str = "1: POSIX  ADVISORY  WRITE 7 00:1a:5678 0 EOF\n\
                         2: FLOCK  ADVISORY  READ 815 fe:01:99 0 EOF\n\
                         2: -> FLOCK  ADVISORY  WRITE 816 fe:01:99 0 EOF\n\
                         3: FLOCK  ADVISORY  READ 817 fe:01:99 0 EOF\n\
                         4: OFDLCK ADVISORY  WRITE -1 00:1a:77 0 EOF\n\
                         5: LEASE  ACTIVE    WRITE 9 00:1a:78 0 EOF\n";

    #[test]
    fn the_kernels_list_names_the_holders() {
        let pids = |place: &str, kind| LockedFile { place: place.to_owned(), kind }.pids_in(LOCKS);
        assert_eq!(pids("00:1a:5678", LockKind::Fcntl), [Some(7)]);
        assert_eq!(pids("00:1a:5678", LockKind::Flock), [], "another family");
        assert_eq!(
            pids("fe:01:99", LockKind::Flock),
            [Some(815), Some(817)],
            "two that share it, not the one that waits"
        );
        assert_eq!(pids("00:1a:77", LockKind::Fcntl), [None], "a lock without a process");
        assert_eq!(pids("00:1a:78", LockKind::Flock), [], "a lease");
        assert_eq!(pids("fe:01:9", LockKind::Flock), []);
    }

    #[test]
    fn a_lock_of_our_own_is_found() {
        let path = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
        let file = File::open(&path).expect("opened");
        let locked = LockedFile::of(&file, LockKind::Flock).expect("a place");
        let own = i32::try_from(std::process::id()).expect("a pid");
        assert!(!locked.is_held_through(own) && locked.holders().is_empty());
        file.try_lock_shared().expect("free");
        assert!(locked.is_held_through(own));
        let holders = locked.holders();
        assert!(
            matches!(holders.as_slice(), [holder] if holder.pid == Some(own) && holder.is_trusted()),
            "{holders:?}"
        );
    }

    #[test]
    fn a_holder_cannot_speak_to_a_terminal() {
        let holder = Holder { pid: Some(7), user: Some(12_345), name: Some("a\x1b[2J".into()) };
        assert_eq!(holder.to_string(), "process 7 (a\\u{1b}[2J) of user 12345");
        assert!(!holder.is_trusted());
        assert_eq!(Holder { user: Some(0), ..holder }.to_string(), "process 7 (a\\u{1b}[2J)");
    }
}
