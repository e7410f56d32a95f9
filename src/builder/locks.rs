//! The locks under which guests are given their memory: dombuild's own, and those of toolstacks that have one.
//!
//! They are held from the look at free memory until what the guest needs is set aside, and not while memory is waited for.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};

use super::Context;
use crate::config::{OPENXT_LOCK, RUNS_DIRECTORY, XL_LOCK};
use crate::error::Error;
use crate::os::procfs;

/// How often a lock that somebody else has is tried.
const POLL: Duration = Duration::from_millis(20);
/// Others hold these locks for moments, but not for none: even a run that is not to wait for memory waits so long for a lock.
const LEAST: Duration = Duration::from_secs(10);
/// Where xl is, if it is installed.
const XL_PROGRAMS: [&str; 3] = ["/usr/sbin/xl", "/usr/local/sbin/xl", "/usr/bin/xl"];

/// How a lock is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// `flock`.
    Flock,
    /// `fcntl` with `F_SETLK`, on the whole file.
    Fcntl,
}

/// The locks, held until this is dropped.
#[derive(Debug)]
pub(super) struct BuildLocks {
    _files: Vec<File>,
}

/// Takes every lock that there is, other toolstacks' where `others` says so. One that a process holds which started this one
/// counts as taken: it waits for us.
///
/// # Errors
/// [`Error::TimedOut`], with who holds it, after `patience`, at least 10 s; [`Error::Interrupted`].
pub(super) fn take(context: &Context<'_>, others: bool, patience: Duration) -> Result<BuildLocks, Error> {
    let mut files = Vec::new();
    if others {
        // From the one that is held longest to our own.
        files.extend(take_others(context, Path::new(OPENXT_LOCK), Manner::Flock, false, patience)?);
        let xl = XL_PROGRAMS.iter().any(|program| Path::new(program).exists());
        files.extend(take_others(context, Path::new(XL_LOCK), Manner::Fcntl, xl, patience)?);
    }
    let own = Path::new(RUNS_DIRECTORY).join("build.lock");
    let file = open(&own, true, 0o600)
        .map_err(|error| Error::Internal(format!("cannot open the lock {}: {error}", own.display())))?;
    files.extend(wait_for(context, &own, file, Manner::Flock, patience)?);
    Ok(BuildLocks { _files: files })
}

/// Another toolstack's lock; none where it has no file and is not to get one. A file that cannot be used keeps nobody from
/// building: Xen itself sees to it that no memory is given away twice.
fn take_others(
    context: &Context<'_>,
    path: &Path,
    manner: Manner,
    make: bool,
    patience: Duration,
) -> Result<Option<File>, Error> {
    match open(path, make, 0o200) {
        Ok(file) => wait_for(context, path, file, manner, patience),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => {
            log::warn!("the build lock {} is left alone: {error}", path.display());
            Ok(None)
        }
    }
}

/// Opens a lock's file as a regular file that is no link: others may write to its directory.
fn open(path: &Path, make: bool, mode: u32) -> io::Result<File> {
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let file = OpenOptions::new().write(true).create(make).truncate(false).mode(mode).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

fn wait_for(
    context: &Context<'_>,
    path: &Path,
    file: File,
    manner: Manner,
    patience: Duration,
) -> Result<Option<File>, Error> {
    let patience = patience.max(LEAST);
    let failed = |error: io::Error| Error::Internal(format!("cannot take the build lock {}: {error}", path.display()));
    let start = Instant::now();
    let mut told = None;
    while !try_lock(&file, manner).map_err(failed)? {
        let place = Place::of(&file).map_err(failed)?;
        if let Some(pid) = procfs::lineage().into_iter().find(|pid| place.is_locked_through(*pid)) {
            log::info!("the build lock {} is held by process {pid}, which started this run", path.display());
            return Ok(None);
        }
        let holder = place.holder().map_or_else(
            || "somebody".to_owned(),
            |pid| {
                let name = procfs::name(pid).map(|name| format!(" ({name})")).unwrap_or_default();
                format!("process {pid}{name}")
            },
        );
        if start.elapsed() >= patience {
            return Err(Error::TimedOut {
                what: format!("the build lock {}, held by {holder}, was not given up", path.display()),
                after: patience,
                advice: "--wait-memory waits longer, --no-build-lock builds without xl's and OpenXT's locks".to_owned(),
            });
        }
        if told.as_ref() != Some(&holder) {
            log::info!("waiting for the build lock {}, held by {holder}", path.display());
            context.progress.note(format!("waiting for the build lock {}, held by {holder}", path.display()));
            told = Some(holder);
        }
        thread::sleep(POLL);
        context.cancel.check()?;
    }
    Ok(Some(file))
}

/// Whether the lock could be taken.
fn try_lock(file: &File, manner: Manner) -> io::Result<bool> {
    match manner {
        Manner::Flock => match file.try_lock() {
            Ok(()) => Ok(true),
            Err(TryLockError::WouldBlock) => Ok(false),
            Err(TryLockError::Error(error)) => Err(error),
        },
        Manner::Fcntl => {
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

/// A file as the kernel names it in its lists of locks: device and inode (proc(5), /proc/locks).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Place(String);

impl Place {
    fn of(file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        Ok(Self(format!("{:02x}:{:02x}:{}", libc::major(found.dev()), libc::minor(found.dev()), found.ino())))
    }

    /// The process that took the lock. It need not have it any more: a flock goes with the open file, to whoever has that.
    fn holder(&self) -> Option<i32> {
        self.holder_in(&fs::read_to_string("/proc/locks").ok()?)
    }

    fn holder_in(&self, locks: &str) -> Option<i32> {
        let line = locks.lines().find(|line| self.is_in(line) && !line.contains(" -> "))?;
        line.split_whitespace().nth(4)?.parse().ok().filter(|pid| *pid > 0)
    }

    fn is_in(&self, line: &str) -> bool {
        line.split_whitespace().any(|word| word == self.0)
    }

    /// Whether a process has the file open and locked: itself, or as it was handed on to it.
    fn is_locked_through(&self, pid: i32) -> bool {
        let files = fs::read_dir(PathBuf::from(format!("/proc/{pid}/fdinfo"))).into_iter().flatten().flatten();
        files
            .filter_map(|file| fs::read_to_string(file.path()).ok())
            .any(|text| text.lines().any(|line| line.starts_with("lock:") && self.is_in(line)))
    }
}

/// Takes a lock on something that is open, and waits for it at most `patience`.
///
/// # Errors
/// [`Error::TimedOut`], with who holds it; what the system says.
pub(super) fn take_alone(file: &File, what: &str, patience: Duration, advice: &str) -> Result<(), Error> {
    let failed = |error: io::Error| Error::Internal(format!("cannot lock {what}: {error}"));
    let start = Instant::now();
    while !try_lock(file, Manner::Flock).map_err(failed)? {
        if start.elapsed() >= patience {
            let holder = Place::of(file).map_err(failed)?.holder();
            let holder = holder.map_or_else(|| "somebody".to_owned(), |pid| format!("process {pid}"));
            let what = format!("{what}, held by {holder}, was not given up");
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
    fn the_holder_stands_in_the_kernels_list() {
        let locks = "1: POSIX  ADVISORY  WRITE 7 00:1a:5678 0 EOF\n\
                     2: FLOCK  ADVISORY  WRITE 815 fe:01:99 0 EOF\n\
                     2: -> FLOCK  ADVISORY  WRITE 816 fe:01:99 0 EOF\n\
                     3: OFDLCK ADVISORY  WRITE -1 00:1a:77 0 EOF\n";
        let holder = |place: &str| Place(place.to_owned()).holder_in(locks);
        assert_eq!(holder("00:1a:5678"), Some(7));
        assert_eq!(holder("fe:01:99"), Some(815));
        assert_eq!(holder("00:1a:77"), None, "a lock of nobody's in particular");
        assert_eq!(holder("fe:01:9"), None);
    }

    #[test]
    fn a_lock_of_our_own_is_found_by_its_open_file() {
        let path = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
        let first = open(&path, false, 0).expect("opened");
        let second = open(&path, false, 0).expect("opened");
        let place = Place::of(&first).expect("a place");
        let own = i32::try_from(std::process::id()).expect("a pid");
        assert!(!place.is_locked_through(own));
        assert!(try_lock(&first, Manner::Flock).expect("tried"));
        assert!(!try_lock(&second, Manner::Flock).expect("tried"), "another open file");
        assert!(place.is_locked_through(own));
        assert_eq!(place.holder(), Some(own));
        drop(first);
        // What another test starts has the open file too, until it is executed.
        take_alone(&second, "the lock", LEAST, "").expect("free");
    }

    #[test]
    fn what_is_no_file_is_no_lock() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        assert_eq!(open(&path, false, 0o200).expect_err("none").kind(), io::ErrorKind::NotFound);
        symlink("elsewhere", &path).expect("linked");
        assert!(open(&path, true, 0o200).is_err());
        assert!(!folder.path().join("elsewhere").exists());
        assert!(open(Path::new("/dev/null"), false, 0o200).is_err());
    }
}
