//! The user data file in which libxl keeps a domain's configuration: `/var/lib/xen/userdata-d.N.UUID.libxl-json`.
//!
//! A new content is written to `userdata-n…` and renamed, under the lock `userdata-l…` (libxl__userdata_store and
//! libxl__lock_domain_userdata, tools/libs/light/libxl_dom.c and libxl_internal.c, Xen 4.17 and 4.20).

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::context::Context;
use crate::error::host::HostError;
use crate::error::{Error, Wait};
use crate::os::shared_file::{self, remove_file};
use crate::xen::{DomId, DomainRef};

/// The directory of libxl's files for its domains.
const DIRECTORY: &str = "/var/lib/xen";

/// How long another program may hold the lock. libxl holds it while it reads or writes the file, or destroys the domain.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// The interval between two attempts to take it.
const POLL: Duration = Duration::from_millis(20);

/// The path of the file of one purpose: `d` for the data, `n` for a new content, `l` for a lock.
fn path(directory: &Path, purpose: char, DomainRef { domid, uuid }: DomainRef, name: &str) -> PathBuf {
    directory.join(format!("userdata-{purpose}.{domid}.{uuid}.{name}"))
}

/// The file with the configuration of a domain. It may not exist.
#[must_use]
pub fn configuration_path(domain: DomainRef) -> PathBuf {
    path(Path::new(DIRECTORY), 'd', domain, "libxl-json")
}

/// Writes the configuration of a domain, for root alone.
///
/// # Errors
/// [`HostError::Userdata`] if the file cannot be written; [`Error::TimedOut`] if the lock stays taken;
/// [`Error::NoSuchDomain`] if the domain is gone; [`Error::Interrupted`].
pub fn write(context: &Context<'_>, domain: DomainRef, configuration: &Value) -> Result<(), Error> {
    let directory = Path::new(DIRECTORY);
    // Xen's packages bring it along, and a host without xl may lack it.
    let made = DirBuilder::new().recursive(true).mode(0o755).create(directory);
    made.map_err(failed("make", directory))?;
    let _lock = lock(context, domain)?;
    store(directory, domain, configuration)
}

/// Changes the configuration of a domain, and keeps what `change` does not touch. A domain without a configuration, and one
/// whose file is not JSON, stays as it is.
///
/// # Errors
/// Those of [`write()`], and [`HostError::Userdata`] if the file cannot be read.
pub fn update(context: &Context<'_>, domain: DomainRef, change: impl FnOnce(&mut Value)) -> Result<(), Error> {
    let file = configuration_path(domain);
    if !file.exists() {
        return Ok(());
    }
    let _lock = lock(context, domain)?;
    let text = match fs::read(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read.map_err(failed("read", &file))?,
    };
    match parse(&text) {
        Ok(mut configuration) => {
            let before = configuration.clone();
            change(&mut configuration);
            if configuration == before {
                return Ok(());
            }
            store(Path::new(DIRECTORY), domain, &configuration)
        }
        Err(error) => {
            log::warn!("{} is not JSON ({error}): it stays as it is", file.display());
            Ok(())
        }
    }
}

/// The configuration of a domain. `None` if it has none, or one that is not JSON.
///
/// # Errors
/// [`HostError::Userdata`] if the file cannot be read.
pub fn read(domain: DomainRef) -> Result<Option<Value>, Error> {
    let file = configuration_path(domain);
    match fs::read(&file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        // A writer puts a whole file in the place of another: there is no need for the lock.
        read => Ok(parse(&read.map_err(failed("read", &file))?).ok()),
    }
}

/// The configuration in a file's content, which ends with a NUL.
///
/// # Errors
/// If it is not JSON.
pub fn parse(content: &[u8]) -> serde_json::Result<Value> {
    serde_json::from_slice(content.split(|byte| *byte == 0).next().unwrap_or_default())
}

/// Writes the file, with the lock held.
fn store(directory: &Path, domain: DomainRef, configuration: &Value) -> Result<(), Error> {
    let (new, file) = (path(directory, 'n', domain, "libxl-json"), path(directory, 'd', domain, "libxl-json"));
    // libxl parses what it has read up to a NUL, and has no NUL but the file's (libxl__get_domain_configuration).
    let mut text = serde_json::to_vec_pretty(configuration)?;
    text.push(0);
    let write = || {
        // A run that was killed may have left one.
        remove_file(&new)?;
        let mut created = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        created.write_all(&text)?;
        fs::rename(&new, &file)
    };
    write().map_err(|error| {
        // What is left of it is removed with the domain.
        drop(remove_file(&new));
        failed("write", &file)(error)
    })
}

/// Every user data file of a domain. With `None` for the UUID of a domain that is gone: of every domain that had the domid.
pub(crate) fn files_of(domid: DomId, uuid: Option<uuid::Uuid>) -> Vec<PathBuf> {
    files_in(Path::new(DIRECTORY), domid, uuid)
}

fn files_in(directory: &Path, domid: DomId, uuid: Option<uuid::Uuid>) -> Vec<PathBuf> {
    let (domid, uuid) = (domid.to_string(), uuid.map(|uuid| uuid.to_string()));
    let belongs = |path: &PathBuf| {
        let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_prefix("userdata-"));
        let mut parts = name.unwrap_or_default().splitn(4, '.').skip(1);
        let (number, handle, rest) = (parts.next(), parts.next(), parts.next());
        number == Some(&domid) && rest.is_some() && uuid.as_ref().is_none_or(|uuid| handle == Some(uuid))
    };
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(belongs).collect()
}

/// Whether a killed program left its lock on a domain's user data: the file of a lock that no program holds.
#[must_use]
pub fn has_dead_lock(domain: DomainRef) -> bool {
    is_dead(&lock_path(Path::new(DIRECTORY), domain))
}

fn is_dead(lock: &Path) -> bool {
    let file = shared_file::open(lock, OpenOptions::new().read(true).write(true), None);
    file.is_ok_and(|file| file.into_file().try_lock().is_ok())
}

/// Removes the lock that a killed program left, and the content that it had not written completely.
///
/// # Errors
/// A text with the path if one of the files cannot be removed. A lock that a program holds is no error.
pub fn remove_dead_lock(domain: DomainRef) -> Result<(), String> {
    let directory = Path::new(DIRECTORY);
    let (lock, new) = (lock_path(directory, domain), path(directory, 'n', domain, "libxl-json"));
    match is_dead(&lock).then(|| try_lock(&lock)).transpose() {
        // The lock, if it was taken, is released behind the removal, and its file with it.
        Ok(held) => match held.flatten() {
            Some(_lock) => remove_file(&new).map_err(|error| format!("cannot remove {}: {error}", new.display())),
            None => Ok(()),
        },
        Err(error) => Err(format!("cannot lock {}: {error}", lock.display())),
    }
}

fn lock_path(directory: &Path, domain: DomainRef) -> PathBuf {
    path(directory, 'l', domain, "domain-userdata-lock")
}

/// The lock on a domain's user data. Dropping it releases it.
struct Lock {
    path: PathBuf,
    _file: File,
}

impl Drop for Lock {
    fn drop(&mut self) {
        // While the lock is held: another program that has opened the file then sees that it has no name any more.
        if let Err(error) = remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Takes the lock, as long as the domain exists.
fn lock(context: &Context<'_>, domain: DomainRef) -> Result<Lock, Error> {
    let path = lock_path(Path::new(DIRECTORY), domain);
    let start = Instant::now();
    let lock = loop {
        if let Some(lock) = try_lock(&path).map_err(failed("lock", &path))? {
            break lock;
        }
        context.cancel.check()?;
        if start.elapsed() >= LOCK_TIMEOUT {
            return Err(Error::TimedOut {
                what: format!("{} was not released", path.display()),
                after: LOCK_TIMEOUT,
                wait: Wait::UserdataLock,
            });
        }
        thread::sleep(POLL);
    };
    // The destruction of the domain removes its files under this lock: none may be written after that.
    match context.xen.find(domain)? {
        Some(_) => Ok(lock),
        None => Err(Error::NoSuchDomain(domain.domid.to_string())),
    }
}

/// `None` if another program holds the lock, or has just released it.
fn try_lock(path: &Path) -> io::Result<Option<Lock>> {
    let file = shared_file::open(path, OpenOptions::new().read(true).write(true), Some(0o600))?.into_file();
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // The file that is locked must still be the one that others find.
    let named = match fs::symlink_metadata(path) {
        Ok(named) => named,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let locked = file.metadata()?;
    let same = (named.dev(), named.ino()) == (locked.dev(), locked.ino());
    Ok(same.then(|| Lock { path: path.to_owned(), _file: file }))
}

/// The error of an operation on one of the files.
fn failed<'a>(action: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Error + use<'a> {
    move |source| HostError::Userdata { action, path: path.to_owned(), source }.into()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use serde_json::json;
    use uuid::Uuid;

    use super::*;

    fn domain(number: u32, uuid: u128) -> DomainRef {
        DomainRef { domid: DomId::new(number).expect("a domid"), uuid: Uuid::from_u128(uuid) }
    }

    #[test]
    fn only_root_reads_the_file_and_its_end_is_a_nul() {
        let folder = tempfile::tempdir().expect("a folder");
        let held = domain(7, 1);
        // A run was killed here.
        let half = path(folder.path(), 'n', held, "libxl-json");
        fs::write(&half, "{").expect("written");
        fs::set_permissions(&half, fs::Permissions::from_mode(0o666)).expect("set");
        for content in [json!({"a": [1]}), json!({"a": "shorter"})] {
            store(folder.path(), held, &content).expect("written");
            let file = path(folder.path(), 'd', held, "libxl-json");
            let text = fs::read(&file).expect("read");
            assert_eq!(text.last(), Some(&0));
            assert_eq!(parse(&text).expect("JSON"), content);
            assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o7777, 0o600);
            assert!(!half.exists());
        }
        store(&folder.path().join("missing"), held, &json!(1)).expect_err("no directory");
    }

    #[test]
    fn the_lock_is_held_once_and_its_file_is_gone_after_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("lock");
        assert!(!is_dead(&path), "there is none");
        let lock = try_lock(&path).expect("made").expect("free");
        assert!(try_lock(&path).expect("opened").is_none(), "held");
        assert!(!is_dead(&path), "held");
        // Another program opened the file while it had its name.
        let late = File::open(&path).expect("opened");
        drop(lock);
        assert!(!path.exists());
        late.try_lock().expect("free");
        let next = try_lock(&path).expect("made").expect("another file");
        drop(next);
        assert!(!path.exists());
        fs::write(&path, "").expect("its program was killed");
        assert!(is_dead(&path) && path.exists());
    }

    #[test]
    fn the_files_are_those_of_one_domain() {
        let folder = tempfile::tempdir().expect("a folder");
        let (held, earlier, other) = (domain(7, 1), domain(7, 2), domain(71, 1));
        for (purpose, domain, name) in [
            ('d', held, "libxl-json"),
            ('n', held, "libxl-json"),
            ('l', held, "domain-userdata-lock"),
            ('d', held, "xl.cfg"),
            ('d', earlier, "libxl-json"),
            ('d', other, "libxl-json"),
        ] {
            fs::write(path(folder.path(), purpose, domain, name), "").expect("written");
        }
        for odd in ["userdata-", "userdata-d.7", "userdata", "domid-history", "7"] {
            fs::write(folder.path().join(odd), "").expect("written");
        }
        let found = files_in(folder.path(), held.domid, Some(held.uuid));
        assert_eq!(found.len(), 4, "{found:?}");
        assert!(found.iter().all(|path| path.to_string_lossy().contains(&format!(".7.{}.", held.uuid))), "{found:?}");
        assert_eq!(files_in(folder.path(), held.domid, None).len(), 5);
    }
}
