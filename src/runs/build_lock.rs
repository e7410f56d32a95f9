//! The locks that serialise builds: dombuild's own, and those of toolstacks that have one; and the lock of names.
//!
//! A run holds them from its check of free memory until the guest's memory is reserved, and not while it waits for memory.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use crate::context::Context;
use crate::error::{Error, Wait};
use crate::os::lock_holders::{Holder, LockKind, LockedFile};
use crate::os::procfs;
use crate::os::shared_file::{self, SharedFile};
use crate::runs::journal::{self, STATE_DIR};

/// The file that xl locks with `fcntl` while it frees memory for a guest and creates it (`XL_LOCK_FILE`, tools/xl/xl.h,
/// Xen 4.17).
pub const XL_LOCK: &str = "/var/lock/xl";

/// The file that OpenXT's toolstack locks with `flock` while it builds a guest.
pub const OPENXT_LOCK: &str = "/var/lock/xen-buildvm-lock";

/// Shortest interval between two attempts to take a lock.
const POLL: Duration = Duration::from_millis(20);
/// Longest interval, if the search for the holder is slow.
const LONGEST_POLL: Duration = Duration::from_millis(250);
/// What protects the guest's memory without another toolstack's lock.
const ALONE: &str = "the guest's memory is guarded by its claim alone";
/// The least time that a run waits for a lock, even if it does not wait for memory: others hold these locks only briefly.
const MIN_LOCK_WAIT: Duration = Duration::from_secs(10);
/// The paths at which xl may be installed.
const XL_PROGRAMS: [&str; 3] = ["/usr/sbin/xl", "/usr/local/sbin/xl", "/usr/bin/xl"];

/// The locks. Dropping this releases them.
#[derive(Debug)]
pub(crate) struct BuildLocks {
    _files: Vec<File>,
}

/// Takes all build locks, those of other toolstacks only if `others` is set. A lock that an ancestor of this process holds
/// counts as taken, because the ancestor waits for this run.
///
/// # Errors
/// [`Error::TimedOut`] with the holders, after `patience` or 10 s, whichever is longer; [`Error::Interrupted`].
pub(crate) fn take(context: &Context<'_>, others: bool, patience: Duration) -> Result<BuildLocks, Error> {
    let mut files = Vec::new();
    if others {
        // In order of hold time: the lock that is held longest comes first, dombuild's own last.
        files.extend(take_others(context, Path::new(OPENXT_LOCK), LockKind::Flock, false, patience)?);
        let xl = XL_PROGRAMS.iter().any(|program| Path::new(program).exists());
        files.extend(take_others(context, Path::new(XL_LOCK), LockKind::Fcntl, xl, patience)?);
    }
    let path = Path::new(STATE_DIR).join("build.lock");
    let failed = |error| Error::io(format!("take the lock {}", path.display()))(error);
    let lock = Lock { path: &path, file: open(&path, Some(0o600)).map_err(failed)?.into_file(), kind: LockKind::Flock };
    // Only root can open it, so every holder counts.
    match lock.wait(context, patience, |_| true)? {
        Outcome::Taken => files.push(lock.file),
        Outcome::Ancestors | Outcome::Ignored(_) => {}
        Outcome::Failed(error) => return Err(failed(error)),
    }
    Ok(BuildLocks { _files: files })
}

/// Takes another toolstack's lock. `None` if its file does not exist and `make` is not set, or if the lock is not used.
///
/// Every user can write to the lock's directory, so any user may own the file or hold the lock. A lock counts if only root can
/// open its file, or if a process of root holds it: a toolstack locks its file regardless of the file's owner. Any other lock
/// does not stop the build, and neither does an unusable file: claims keep memory from being allocated twice.
fn take_others(
    context: &Context<'_>,
    path: &Path,
    kind: LockKind,
    make: bool,
    patience: Duration,
) -> Result<Option<File>, Error> {
    let left_alone = |reason: &dyn fmt::Display| {
        log::warn!("the build lock {} is not used: {reason}; {ALONE}", path.display());
        Ok(None)
    };
    let shared = match open(path, make.then_some(0o200)) {
        Ok(shared) => shared,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return left_alone(&error),
    };
    if shared.has_other_names() {
        // Through a hard link, it could be the lock of another program that never releases it.
        return left_alone(&"the file has a second name");
    }
    let (private, whose) = (shared.is_private(), shared.to_string());
    let lock = Lock { path, file: shared.into_file(), kind };
    match lock.wait(context, patience, |holders| private || holders.iter().any(Holder::is_trusted))? {
        Outcome::Taken if private => Ok(Some(lock.file)),
        Outcome::Taken => {
            log::warn!(
                "the build lock {} is unsafe: the file ({whose}) can be locked by others than root; remove it while no \
                 guest is built",
                path.display()
            );
            Ok(Some(lock.file))
        }
        Outcome::Ancestors => Ok(None),
        Outcome::Ignored(holders) => left_alone(&format!("{holders} holds it, and the file is {whose}")),
        Outcome::Failed(error) => left_alone(&error),
    }
}

/// Opens a lock's file. It must be a regular file.
fn open(path: &Path, make: Option<u32>) -> io::Result<SharedFile> {
    let shared = shared_file::open(path, OpenOptions::new().write(true), make)?;
    if shared.is_regular() { Ok(shared) } else { Err(io::Error::other("it is no regular file")) }
}

/// A lock for which this run waits.
struct Lock<'a> {
    path: &'a Path,
    file: File,
    kind: LockKind,
}

/// How a wait for a lock ended.
enum Outcome {
    Taken,
    /// An ancestor of this process holds it.
    Ancestors,
    /// It is held, but its holders do not count: their names.
    Ignored(String),
    /// It cannot be locked or examined.
    Failed(io::Error),
}

impl Lock<'_> {
    /// Waits until the lock is taken, for at least 10 s. `counts` decides by the holders whether to wait for them.
    fn wait(
        &self,
        context: &Context<'_>,
        patience: Duration,
        counts: impl Fn(&[Holder]) -> bool,
    ) -> Result<Outcome, Error> {
        let patience = patience.max(MIN_LOCK_WAIT);
        let locked = match LockedFile::of(&self.file, self.kind) {
            Ok(locked) => locked,
            Err(error) => return Ok(Outcome::Failed(error)),
        };
        let start = Instant::now();
        let mut shown = String::new();
        loop {
            match try_lock(&self.file, self.kind) {
                Ok(true) => return Ok(Outcome::Taken),
                Ok(false) => {}
                Err(error) => return Ok(Outcome::Failed(error)),
            }
            let look = Instant::now();
            let path = self.path.display();
            if let Some(pid) = procfs::lineage().into_iter().find(|pid| locked.is_held_through(*pid)) {
                log::info!("the build lock {path} is held by process {pid}, which started this run");
                return Ok(Outcome::Ancestors);
            }
            let holders = locked.holders();
            let names = if holders.is_empty() { "another process".to_owned() } else { join(&holders) };
            // If there is no holder, the lock was released between the two checks.
            if !holders.is_empty() && !counts(&holders) {
                return Ok(Outcome::Ignored(names));
            }
            if start.elapsed() >= patience {
                return Err(Error::TimedOut {
                    what: format!("the build lock {path}, held by {names}, was not given up"),
                    after: patience,
                    wait: Wait::BuildLock,
                });
            }
            if shown != names {
                log::info!("waiting for the build lock {path}, held by {names}");
                context.observer.note(&format!("waiting for the build lock {path}, held by {names}"));
                shown = names;
            }
            // On a host with many processes, one check takes longer than POLL.
            thread::sleep((look.elapsed() * 4).clamp(POLL, LONGEST_POLL));
            context.cancel.check()?;
        }
    }
}

fn join(holders: &[Holder]) -> String {
    let all: Vec<String> = holders.iter().map(Holder::to_string).collect();
    all.join(" and ")
}

/// Tries to take the lock. Returns whether it is taken.
fn try_lock(file: &File, kind: LockKind) -> io::Result<bool> {
    match kind {
        LockKind::Flock => match file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        },
        LockKind::Fcntl => {
            let whole = libc::flock {
                l_type: libc::F_WRLCK.try_into().map_err(io::Error::other)?,
                l_whence: libc::SEEK_SET.try_into().map_err(io::Error::other)?,
                l_start: 0,
                l_len: 0,
                l_pid: 0,
            };
            match fcntl(file, FcntlArg::F_SETLK(&whole)) {
                Ok(_) => Ok(true),
                Err(Errno::EACCES | Errno::EAGAIN) => Ok(false),
                Err(errno) => Err(errno.into()),
            }
        }
    }
}

/// Takes the lock under which dombuild's runs look for a domain's name and UUID, create the domain and write them. It is held
/// for milliseconds.
/// xl has no such lock. `check` ends the wait if it fails.
///
/// # Errors
/// [`Error::TimedOut`] with the holders, after 10 s; an error of `check` or of the system.
pub(crate) fn take_names(check: impl Fn() -> Result<(), Error>) -> Result<File, Error> {
    let path = Path::new(STATE_DIR).join("names.lock");
    let name = path.display().to_string();
    let opened = journal::directory().and_then(|_| open(&path, Some(0o600)));
    let file = opened.map_err(Error::io(format!("take the lock {name}")))?.into_file();
    take_alone(&file, &name, MIN_LOCK_WAIT, Wait::NameLock, check)?;
    Ok(file)
}

/// Takes an exclusive `flock` on an open file or directory, and waits for it at most `patience`. `check` ends the wait if it fails.
///
/// # Errors
/// [`Error::TimedOut`] with the holders; an error of `check` or of the system.
pub(crate) fn take_alone(
    file: &File,
    what: &str,
    patience: Duration,
    wait: Wait,
    check: impl Fn() -> Result<(), Error>,
) -> Result<(), Error> {
    let failed = |error| Error::io(format!("lock {what}"))(error);
    let start = Instant::now();
    while !try_lock(file, LockKind::Flock).map_err(failed)? {
        if start.elapsed() >= patience {
            let holders = LockedFile::of(file, LockKind::Flock).map_err(failed)?.holders();
            let holders = if holders.is_empty() { "another process".to_owned() } else { join(&holders) };
            let what = format!("{what}, held by {holders}, was not given up");
            return Err(Error::TimedOut { what, after: patience, wait });
        }
        check()?;
        thread::sleep(POLL);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_lock_is_taken_when_it_is_free() {
        let path = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
        let opened = || open(&path, None).expect("opened").into_file();
        let (first, second) = (opened(), opened());
        for kind in [LockKind::Flock, LockKind::Fcntl] {
            assert!(try_lock(&first, kind).expect("tried"));
        }
        assert!(!try_lock(&second, LockKind::Flock).expect("tried"), "another open file");
        let refused = take_alone(&second, "the lock", Duration::ZERO, Wait::CleanupLock, || Ok(()))
            .expect_err("held")
            .to_string();
        assert!(refused.starts_with(&format!("the lock, held by process {} (", std::process::id())), "{refused}");
        let stop = || Err(Error::BadConfig("stopped".to_owned()));
        let stopped = take_alone(&second, "the lock", MIN_LOCK_WAIT, Wait::NameLock, stop).expect_err("held");
        assert!(matches!(stopped, Error::BadConfig(_)), "{stopped}");
        drop(first);
        // A child that another test starts shares the open file until it calls execve.
        take_alone(&second, "the lock", MIN_LOCK_WAIT, Wait::CleanupLock, || Ok(())).expect("free");
    }

    #[test]
    fn what_is_no_file_is_no_lock() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        assert_eq!(open(&path, None).expect_err("none").kind(), io::ErrorKind::NotFound);
        symlink("elsewhere", &path).expect("linked");
        assert!(open(&path, Some(0o200)).is_err());
        assert!(!folder.path().join("elsewhere").exists());
        assert!(open(Path::new("/dev/null"), None).is_err());
    }
}
