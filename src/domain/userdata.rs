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
/// Those of [`write`], and [`HostError::Userdata`] if the file cannot be read.
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
    match serde_json::from_slice::<Value>(&text) {
        Ok(mut configuration) => {
            change(&mut configuration);
            store(Path::new(DIRECTORY), domain, &configuration)
        }
        Err(error) => {
            log::warn!("{} is not JSON ({error}): it stays as it is", file.display());
            Ok(())
        }
    }
}

/// Writes the file, with the lock held.
fn store(directory: &Path, domain: DomainRef, configuration: &Value) -> Result<(), Error> {
    let (new, file) = (path(directory, 'n', domain, "libxl-json"), path(directory, 'd', domain, "libxl-json"));
    let text = serde_json::to_vec_pretty(configuration)?;
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
    let path = path(Path::new(DIRECTORY), 'l', domain, "domain-userdata-lock");
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
