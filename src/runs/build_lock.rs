//! The locks under which guests are given their memory: dombuild's own, and those of toolstacks that have one.
//!
//! They are held from the look at free memory until what the guest needs is set aside, and not while memory is waited for.

use std::fmt;
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use crate::context::Context;
use crate::error::Error;
use crate::os::lock_holders::{Holder, LockKind, LockedFile};
use crate::os::procfs;
use crate::os::shared_file::{self, SharedFile};
use crate::runs::journal::STATE_DIR;

/// What xl locks with `fcntl` while it makes room for a guest and creates it (`XL_LOCK_FILE`, tools/xl/xl.h, Xen 4.17).
pub const XL_LOCK: &str = "/var/lock/xl";

/// What OpenXT's toolstack locks with `flock` while it builds a guest.
pub const OPENXT_LOCK: &str = "/var/lock/xen-buildvm-lock";

/// How often a lock that somebody else has is tried.
const POLL: Duration = Duration::from_millis(20);
/// How seldom, where looking for its holder takes long.
const LONGEST_POLL: Duration = Duration::from_millis(250);
/// What is left where another toolstack's lock is not used.
const ALONE: &str = "the guest's memory is guarded by its claim alone";
/// Others hold these locks for moments, but not for none: even a run that is not to wait for memory waits so long for a lock.
const MIN_LOCK_WAIT: Duration = Duration::from_secs(10);
/// Where xl is, if it is installed.
const XL_PROGRAMS: [&str; 3] = ["/usr/sbin/xl", "/usr/local/sbin/xl", "/usr/bin/xl"];

/// The locks, held until this is dropped.
#[derive(Debug)]
pub(crate) struct BuildLocks {
    _files: Vec<File>,
}

/// Takes every lock that there is, other toolstacks' where `others` says so. One that a process holds which started this one
/// counts as taken: it waits for us.
///
/// # Errors
/// [`Error::TimedOut`], with who holds it, after `patience`, at least 10 s; [`Error::Interrupted`].
pub(crate) fn take(context: &Context<'_>, others: bool, patience: Duration) -> Result<BuildLocks, Error> {
    let mut files = Vec::new();
    if others {
        // From the one that is held longest to our own.
        files.extend(take_others(context, Path::new(OPENXT_LOCK), LockKind::Flock, false, patience)?);
        let xl = XL_PROGRAMS.iter().any(|program| Path::new(program).exists());
        files.extend(take_others(context, Path::new(XL_LOCK), LockKind::Fcntl, xl, patience)?);
    }
    let path = Path::new(STATE_DIR).join("build.lock");
    let failed = |error: io::Error| Error::Internal(format!("cannot take the lock {}: {error}", path.display()));
    let lock = Lock { path: &path, file: open(&path, Some(0o600)).map_err(failed)?.into_file(), kind: LockKind::Flock };
    // Nobody but root can reach it: whoever holds it counts.
    match lock.wait(context, patience, |_| true)? {
        Outcome::Taken => files.push(lock.file),
        Outcome::Ancestors | Outcome::Ignored(_) => {}
        Outcome::Failed(error) => return Err(failed(error)),
    }
    Ok(BuildLocks { _files: files })
}

/// Another toolstack's lock; none where it has no file and is not to get one.
///
/// Its directory is everybody's to write, so that the file, or the lock on it, can be any user's. A lock counts where nobody
/// but root can open the file, or where a process of root holds it: a toolstack locks its file whoever made it. Any other lock
/// keeps nobody from building, and neither does a file that cannot be used: claims see to it that no memory is given away twice.
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
        // Through a hard link, it could be the lock of something that never gives it up.
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

/// Opens a lock's file, which must be a regular one.
fn open(path: &Path, make: Option<u32>) -> io::Result<SharedFile> {
    let shared = shared_file::open(path, OpenOptions::new().write(true), make)?;
    if shared.is_regular() { Ok(shared) } else { Err(io::Error::other("it is no regular file")) }
}

/// A lock that is waited for.
struct Lock<'a> {
    path: &'a Path,
    file: File,
    kind: LockKind,
}

/// How waiting for a lock ended.
enum Outcome {
    Taken,
    /// A process that started this run holds it.
    Ancestors,
    /// It is held, and that does not count; by whom.
    Ignored(String),
    /// It cannot be locked, or not be looked at.
    Failed(io::Error),
}

impl Lock<'_> {
    /// Waits until the lock is taken, at least 10 s. `counts` decides by the holders whether they are waited for.
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
        let mut told = String::new();
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
            let names = if holders.is_empty() { "somebody".to_owned() } else { join(&holders) };
            // A lock without a holder was given up between the two looks.
            if !holders.is_empty() && !counts(&holders) {
                return Ok(Outcome::Ignored(names));
            }
            if start.elapsed() >= patience {
                return Err(Error::TimedOut {
                    what: format!("the build lock {path}, held by {names}, was not given up"),
                    after: patience,
                    advice: "--wait-memory waits longer, --no-build-lock builds without xl's and OpenXT's locks"
                        .to_owned(),
                });
            }
            if told != names {
                log::info!("waiting for the build lock {path}, held by {names}");
                context.observer.note(&format!("waiting for the build lock {path}, held by {names}"));
                told = names;
            }
            // Where there are many processes, a look takes longer than POLL.
            thread::sleep((look.elapsed() * 4).clamp(POLL, LONGEST_POLL));
            context.cancel.check()?;
        }
    }
}

fn join(holders: &[Holder]) -> String {
    let all: Vec<String> = holders.iter().map(Holder::to_string).collect();
    all.join(" and ")
}

/// Whether the lock could be taken.
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

/// Takes a lock on something that is open, and waits for it at most `patience`.
///
/// # Errors
/// [`Error::TimedOut`], with who holds it; what the system says.
pub(crate) fn take_alone(file: &File, what: &str, patience: Duration, advice: &str) -> Result<(), Error> {
    let failed = |error: io::Error| Error::Internal(format!("cannot lock {what}: {error}"));
    let start = Instant::now();
    while !try_lock(file, LockKind::Flock).map_err(failed)? {
        if start.elapsed() >= patience {
            let holders = LockedFile::of(file, LockKind::Flock).map_err(failed)?.holders();
            let holders = if holders.is_empty() { "somebody".to_owned() } else { join(&holders) };
            let what = format!("{what}, held by {holders}, was not given up");
            return Err(Error::TimedOut { what, after: patience, advice: advice.to_owned() });
        }
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
        let refused = take_alone(&second, "the lock", Duration::ZERO, "").expect_err("held").to_string();
        assert!(refused.starts_with(&format!("the lock, held by process {} (", std::process::id())), "{refused}");
        drop(first);
        // What another test starts has the open file too, until it is executed.
        take_alone(&second, "the lock", MIN_LOCK_WAIT, "").expect("free");
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
