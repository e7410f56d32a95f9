//! The journal of runs: one file for each run that changes a domain, so that cleanup can remove what a killed run left.
//!
//! The file is written before the domain exists, and removed when the guest is complete or everything is removed again. A
//! file whose process is gone belongs to a killed run.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

pub use crate::domain::paths::STATE_DIR;
use crate::error::Error;
use crate::error::domain::DomainError;
use crate::memory::Pages;
use crate::os::pidfd::{ProcessId, boot};
use crate::os::procfs;
use crate::xen::{DomId, DomainRef};

/// The kind of work that a run does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RunVerb {
    /// Creates a guest in a domain of its own.
    Create,
    /// Builds into a domain that another program created.
    Build,
    /// Removes a domain.
    Destroy,
    /// Attaches a device to a domain.
    Attach,
    /// Saves a guest to a file.
    Save,
    /// Sends a guest to another host.
    Migrate,
}

/// A run, as its file in the journal stores it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunRecord {
    /// The UUID of the domain.
    pub(crate) uuid: Uuid,
    /// What the run does to the domain.
    pub(crate) verb: RunVerb,
    /// The process of the run.
    #[serde(flatten)]
    pub(crate) process: ProcessId,
    /// The domid. `None` before the domain exists.
    domid: Option<u32>,
    /// The reserve: the pages that the domain will own, for which the host has the memory. 0 before and after.
    promised: u64,
    /// Whether the run claims memory for the domain, or is about to. Only then may cleanup release the domain's claim.
    #[serde(default)]
    pub(crate) claims: bool,
    /// What the guest takes from each NUMA node of the host, in pages, while that is reserved.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    nodes: BTreeMap<u32, u64>,
    /// The file that the run writes, while it is not complete.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) file: Option<PathBuf>,
    /// The guest is saved completely, and the run is about to destroy it; or the other host may start it.
    #[serde(default)]
    pub(crate) saved: bool,
}

impl RunRecord {
    fn of_this_process(verb: RunVerb, uuid: Uuid, domid: Option<DomId>) -> io::Result<Self> {
        let pid = i32::try_from(std::process::id()).map_err(io::Error::other)?;
        let process = ProcessId::of(pid)?.ok_or_else(|| io::Error::other("/proc does not tell of this process"))?;
        Ok(Self {
            uuid,
            verb,
            process,
            domid: domid.map(DomId::get),
            promised: 0,
            claims: false,
            nodes: BTreeMap::new(),
            file: None,
            saved: false,
        })
    }

    /// The value of [`RUN_NODE`](crate::domain::devices::RUN_NODE) that devices of this run have until it ends.
    #[must_use]
    pub(crate) fn mark(&self) -> String {
        format!("{} {}", self.process.pid, self.process.start)
    }

    /// The domid. `None` before the domain exists.
    #[must_use]
    pub(crate) fn domid(&self) -> Option<DomId> {
        self.domid.and_then(DomId::new)
    }

    /// The pages that the domain will own, while this run reserves them.
    #[must_use]
    pub(crate) fn reserved(&self) -> Pages {
        Pages(self.promised)
    }

    /// What the guest takes from each NUMA node, in pages, while this run reserves it.
    #[must_use]
    pub(crate) fn promised_nodes(&self) -> &BTreeMap<u32, u64> {
        &self.nodes
    }

    /// Whether the run has recorded that it works on this domain.
    pub(crate) fn is_about(&self, domain: DomainRef) -> bool {
        self.uuid == domain.uuid && self.domid() == Some(domain.domid)
    }

    fn is_alive(&self, boot: Uuid) -> bool {
        self.process.boot == boot && procfs::start_time(self.process.pid) == Some(self.process.start)
    }

    fn path(&self, directory: &Path) -> PathBuf {
        directory.join(format!("{}.{}.json", self.uuid, self.process.pid))
    }
}

/// The journal entry of this run. Dropping it removes the entry.
#[derive(Debug)]
pub struct JournalEntry {
    run: RunRecord,
    directory: PathBuf,
    there: bool,
}

impl JournalEntry {
    /// Writes the entry of this run. The domain may not exist yet.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn begin(verb: RunVerb, uuid: Uuid, domid: Option<DomId>) -> Result<Self, Error> {
        Self::begin_in(Path::new(STATE_DIR), verb, uuid, domid)
            .map_err(Error::io(format!("record this run in {STATE_DIR}")))
    }

    fn begin_in(directory: &Path, verb: RunVerb, uuid: Uuid, domid: Option<DomId>) -> io::Result<Self> {
        make_directory(directory)?;
        let run = RunRecord::of_this_process(verb, uuid, domid)?;
        write(directory, &run)?;
        Ok(Self { run, directory: directory.to_owned(), there: true })
    }

    /// Records the domid of the domain, which exists now.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn set_domain(&mut self, domid: DomId) -> Result<(), Error> {
        self.run.domid = Some(domid.get());
        self.update()
    }

    /// Reserves the pages that the domain will own: the host has them, and other runs must not count on them. 0 once the domain
    /// owns them. `claims` records that this run is about to claim them from Xen.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub fn reserve(&mut self, pages: Pages, claims: bool) -> Result<(), Error> {
        self.reserve_by_node(pages, claims, &BTreeMap::new())
    }

    /// The same, with what the guest takes from each NUMA node of the host.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written.
    pub(crate) fn reserve_by_node(
        &mut self,
        pages: Pages,
        claims: bool,
        nodes: &BTreeMap<u32, Pages>,
    ) -> Result<(), Error> {
        self.run.nodes = nodes.iter().map(|(node, pages)| (*node, pages.0)).collect();
        self.run.promised = pages.0;
        self.run.claims |= claims;
        self.update()
    }

    /// Records the file that the run is about to write.
    ///
    /// # Errors
    /// [`Error::Io`] if the entry cannot be written.
    pub fn set_file(&mut self, file: &Path) -> Result<(), Error> {
        self.run.file = Some(file.to_owned());
        self.update()
    }

    /// Records that the file is complete, and that the guest is destroyed now; or that the other host may start the guest.
    ///
    /// # Errors
    /// [`Error::Io`] if the entry cannot be written.
    pub fn set_saved(&mut self) -> Result<(), Error> {
        self.run.file = None;
        self.run.saved = true;
        self.update()
    }

    /// The mark of this run on the devices that it attaches, by which cleanup finds them.
    #[must_use]
    pub fn mark(&self) -> String {
        self.run.mark()
    }

    /// Whether this run has claimed memory or tried to.
    #[must_use]
    pub fn claims(&self) -> bool {
        self.run.claims
    }

    fn update(&self) -> Result<(), Error> {
        write(&self.directory, &self.run).map_err(Error::io(format!("record this run in {STATE_DIR}")))
    }

    /// Removes the entry: there is nothing to clean up after this run.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be removed: a later cleanup would then remove what this run made.
    pub fn end(&mut self) -> Result<(), Error> {
        if self.there {
            let path = self.run.path(&self.directory);
            fs::remove_file(&path).map_err(Error::io(format!("remove {}", path.display())))?;
            self.there = false;
        }
        Ok(())
    }

    /// Writes the entry again after [`JournalEntry::end`], because the guest must be removed after all. If the entry cannot be
    /// written, the run removes the guest all the same.
    pub fn resume(&mut self) {
        if !self.there {
            self.there = write(&self.directory, &self.run).is_ok();
        }
    }

    /// Keeps the entry when this is dropped: this run could not remove what it made, and a later cleanup finds it.
    pub fn leave(&mut self) {
        self.there = false;
    }
}

impl Drop for JournalEntry {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            log::warn!("{error}");
        }
    }
}

/// A run that was found in the journal, and whether its process is alive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FoundRun {
    pub(crate) run: RunRecord,
    pub(crate) alive: bool,
}

impl FoundRun {
    /// Whether this run saves or migrates a domain.
    fn takes_away(&self, domain: DomainRef) -> bool {
        self.alive && matches!(self.run.verb, RunVerb::Save | RunVerb::Migrate) && self.run.is_about(domain)
    }
}

/// Every run in the journal except this one, in no order.
///
/// # Errors
/// [`Error::Io`] if the directory cannot be read.
pub(crate) fn others() -> Result<Vec<FoundRun>, Error> {
    others_in(Path::new(STATE_DIR)).map_err(Error::io(format!("read {STATE_DIR}")))
}

fn others_in(directory: &Path) -> io::Result<Vec<FoundRun>> {
    let files = match fs::read_dir(directory) {
        Ok(files) => files,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let boot = boot()?;
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let mut entries = Vec::new();
    for file in files {
        let path = file?.path();
        if path.extension().is_none_or(|extension| extension != "json") {
            continue;
        }
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            // Its run has ended since.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        match serde_json::from_str::<RunRecord>(&text) {
            Ok(run) if run.path(directory) == path => {
                let alive = run.is_alive(boot);
                if !(alive && run.process.pid == own) {
                    entries.push(FoundRun { run, alive });
                }
            }
            Ok(_) => log::warn!("{} is not the record of the run that it tells of; it is left alone", path.display()),
            Err(error) => log::warn!("{} is no record of a run ({error}); it is left alone", path.display()),
        }
    }
    Ok(entries)
}

/// Whether another run, dead or alive, has recorded that it creates or removes this domain.
///
/// # Errors
/// [`Error::Io`] if the directory cannot be read.
pub fn is_recorded(domain: DomainRef) -> Result<bool, Error> {
    Ok(others()?.iter().any(|entry| {
        !matches!(entry.run.verb, RunVerb::Build | RunVerb::Attach | RunVerb::Save) && entry.run.is_about(domain)
    }))
}

/// Whether another run that is alive creates, destroys, saves or migrates this domain.
///
/// # Errors
/// [`Error::Io`] if the directory cannot be read.
pub fn is_worked_on(domain: DomainRef) -> Result<bool, Error> {
    Ok(others()?.iter().any(|entry| entry.alive && entry.run.verb != RunVerb::Attach && entry.run.is_about(domain)))
}

/// Fails if another run that is alive saves or migrates this domain: it must not be changed meanwhile.
///
/// # Errors
/// [`DomainError::Leaves`]; [`Error::Io`] if the directory cannot be read.
pub fn check_stays(domain: DomainRef) -> Result<(), Error> {
    if others()?.iter().any(|entry| entry.takes_away(domain)) {
        Err(DomainError::Leaves(domain.domid).into())
    } else {
        Ok(())
    }
}

/// Removes the entries of dead runs for a domain that is completely gone, or that a later run has recorded. Entries for
/// another domain with the same UUID stay.
///
/// # Errors
/// [`Error::Io`] if the directory cannot be read, or a file cannot be removed.
pub fn forget_dead(domain: DomainRef) -> Result<(), Error> {
    for entry in others()?.iter().filter(|entry| !entry.alive && entry.run.is_about(domain)) {
        forget(&entry.run).map_err(Error::io("remove the record of a dead run"))?;
    }
    Ok(())
}

/// Removes the entry of a dead run.
///
/// # Errors
/// An error of the system.
pub(crate) fn forget(run: &RunRecord) -> io::Result<()> {
    forget_in(Path::new(STATE_DIR), run)
}

fn forget_in(directory: &Path, run: &RunRecord) -> io::Result<()> {
    match fs::remove_file(run.path(directory)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// Removes incomplete entries of killed processes.
pub(crate) fn forget_unfinished() {
    forget_unfinished_in(Path::new(STATE_DIR));
}

fn forget_unfinished_in(directory: &Path) {
    for file in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = file.file_name().to_string_lossy().into_owned();
        let pid = name.strip_suffix(".new").and_then(|rest| rest.rsplit('.').next()?.parse::<i32>().ok());
        if pid.is_some_and(|pid| procfs::start_time(pid).is_none()) {
            // It holds nothing that the complete entry, if there is one, does not.
            let _ = fs::remove_file(file.path());
        }
    }
}

/// Opens the directory of the journal, and makes it if it is missing.
///
/// # Errors
/// An error of the system.
pub(crate) fn directory() -> io::Result<File> {
    let path = Path::new(STATE_DIR);
    make_directory(path)?;
    File::open(path)
}

/// Makes the directory. Only this user may write to it, because its files decide what cleanup destroys.
fn make_directory(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let found = fs::symlink_metadata(path)?;
    if !found.is_dir() || found.uid() != geteuid().as_raw() || found.mode() & 0o022 != 0 {
        return Err(io::Error::other("it is no directory that belongs to this user alone"));
    }
    Ok(())
}

/// Writes an entry atomically: readers see the old one or the new one.
fn write(directory: &Path, run: &RunRecord) -> io::Result<()> {
    let path = run.path(directory);
    let new = path.with_file_name(format!(".{}.{}.new", run.uuid, run.process.pid));
    let text = serde_json::to_string(run)?;
    // A killed process with the same pid may have left its file. (The standard library sets O_CLOEXEC on every file.)
    let _ = fs::remove_file(&new);
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| fs::rename(&new, &path));
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests;
