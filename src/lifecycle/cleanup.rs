//! Cleanup: finds what killed runs left, by the journal, the owner tags in xenstore and the cgroups, and removes it.
//!
//! Something belongs to a dead run only if the domain's UUID says so, and the run's entry or the owner tag as well. Cleanup
//! never touches a domain whose guest was completed, a domain of a living run, or a domain of another toolstack.

use std::path::{Path, PathBuf};
use std::slice;
use std::time::Duration;

use serde::Serialize;
use uuid::Uuid;

use super::migrated::{name_before, rename_back};
use super::pci_device::take_back;
use super::suspend::{is_suspending, resume, stop_recording};
use super::teardown::{files_of, remove, remove_rest, teardown};
use crate::cancel::Cancel;
use crate::context::Context;
use crate::devices::pci::SYSFS;
use crate::devices::pci_notes::owned;
use crate::devices::pci_take::take_all;
use crate::devices::remove::remove_at_once;
use crate::domain::devices::devices_of;
use crate::domain::identity::owner_tag;
use crate::domain::name_index;
use crate::domain::paths::XenstorePaths;
use crate::domain::userdata;
use crate::error::{Error, Wait};
use crate::memory::Pages;
use crate::observer::Silent;
use crate::os::cgroup::Cgroup;
use crate::os::child_cgroup::remove_dead;
use crate::qemu::helpers::{Ending, Helpers, domain_of_cgroup};
use crate::runs::build_lock::take_alone;
use crate::runs::journal::{self, FoundRun, RunRecord, RunVerb, STATE_DIR};
use crate::xen::{DomId, DomainInfo, DomainRef, Interface, Store, XenError};

/// How long to wait for another cleanup. Removing one domain takes less than half of that.
const PATIENCE: Duration = Duration::from_secs(60);

/// The problem with a guest that the other side of a migration may have started.
const UNDECIDED: &str = "the other host may have started it: look there. If it runs there, destroy this one; if it does not, \
    `dombuild resume` lets this one run on";

/// One thing that a killed run left.
#[derive(Debug, Serialize)]
pub struct Leftover {
    /// The domid, if known. The domain itself may be gone.
    pub domid: Option<DomId>,
    /// The domain's UUID.
    pub uuid: Uuid,
    /// What the run did. `None` if only an owner tag or a cgroup shows that there was one.
    pub verb: Option<RunVerb>,
    /// The pid of the killed process.
    pub pid: Option<i32>,
    /// The kind of thing.
    pub what: LeftoverKind,
    /// Whether cleanup has removed it.
    pub removed: bool,
    /// Why it could not be removed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
}

/// What a killed run can leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum LeftoverKind {
    /// A domain, with everything that belongs to it.
    Domain,
    /// A claim on memory for a domain that another program created.
    Claim,
    /// The QEMU of a domain that is gone.
    DeviceModel,
    /// The xenstore keys of a domain that is gone.
    Keys,
    /// The sockets and files of a domain that is gone.
    Files,
    /// A device of a domain, which was not attached completely.
    Device,
    /// A PCI device of the host that a domain had which is gone.
    PciDevice,
    /// A guest that was suspended to be saved, and runs on.
    Suspended,
    /// The file of a guest that was not saved completely.
    PartialFile,
    /// The lock on the user data of a domain that exists.
    Lock,
    /// The journal entry of the run, and nothing else.
    Record,
}

/// Finds what killed runs left, and removes it if `apply` is set. Continues if something cannot be removed.
///
/// # Errors
/// The search fails: the journal cannot be read, Xen or xenstored return an error, or another cleanup is running.
pub fn clean_up(xen: &Interface, store: &Store, apply: bool) -> Result<Vec<Leftover>, Error> {
    let failed = |error| Error::io(format!("use {STATE_DIR}"))(error);
    // Two cleanups at once would remove the same things, and one would report errors. The lock is held until the end.
    let directory = journal::directory().map_err(failed)?;
    take_alone(&directory, STATE_DIR, PATIENCE, Wait::CleanupLock, || Ok(()))?;

    // The journal has a run before its domain exists. So the domain list, read after the journal, has the domain of every dead
    // run in it, and the journal, read again after the list, has the living run of every listed domain.
    let entries = journal::others()?;
    let domains = xen.domains()?;
    let mut living: Vec<_> = living(&entries).collect();
    living.extend(self::living(&journal::others()?));
    let mut survey = Findings { xen, store, domains, living, apply, found: Vec::new() };
    for entry in entries.iter().filter(|entry| !entry.alive) {
        survey.run(&entry.run)?;
    }
    survey.marks()?;
    survey.cgroups()?;
    survey.pci_devices()?;
    survey.locks();
    if apply {
        journal::forget_unfinished();
        name_index::forget(|noted| !survey.domains.iter().any(|domain| domain.held() == noted));
    }
    Ok(survey.found)
}

/// Gives a guest that was to migrate its name again.
fn restore_name(xen: &Interface, store: &Store, domain: DomainRef) -> Result<(), String> {
    let context = Context { xen, store, observer: &Silent, cancel: &Cancel::default() };
    let name = store.plain().read(&XenstorePaths::new(domain.domid).of_domain("name"));
    let before = name.map_err(|error| error.to_string())?.as_deref().and_then(name_before);
    before.map_or(Ok(()), |name| rename_back(&context, domain, &name))
}

fn living(entries: &[FoundRun]) -> impl Iterator<Item = (Uuid, Option<DomId>)> {
    entries.iter().filter(|entry| entry.alive).map(|entry| (entry.run.uuid, entry.run.domid()))
}

struct Findings<'a> {
    xen: &'a Interface,
    store: &'a Store,
    domains: Vec<DomainInfo>,
    /// UUIDs and domids of the domains of living runs. A run that is about to create a domain has no domid yet.
    living: Vec<(Uuid, Option<DomId>)>,
    apply: bool,
    found: Vec<Leftover>,
}

impl Findings<'_> {
    /// Handles what a dead run left, then the run's journal entry once the rest is gone.
    fn run(&mut self, run: &RunRecord) -> Result<(), Error> {
        let before = self.found.len();
        let now = |(handle, number): &(Uuid, Option<DomId>)| {
            *handle == run.uuid && (run.domid().is_none() || *number == run.domid())
        };
        // The mark on a device names its run: no other run has to do with it.
        if run.verb == RunVerb::Attach || !self.living.iter().any(now) {
            match self.domain_of(run)? {
                Some(domain) => self.domain(run, &domain)?,
                None if matches!(run.verb, RunVerb::Build | RunVerb::Attach) => {}
                None => {
                    if let Some(domid) = run.domid() {
                        self.rest(run.uuid, domid, Some(run))?;
                    }
                }
            }
        }
        if let Some(file) = run.file.as_deref().filter(|file| file.exists()) {
            self.note(run.uuid, run.domid(), Some(run), LeftoverKind::PartialFile, || remove(file));
        }
        if self.found.len() == before {
            self.note(run.uuid, run.domid(), Some(run), LeftoverKind::Record, || {
                journal::forget(run).map_err(|error| error.to_string())
            });
        } else if self.apply && self.found.iter().skip(before).all(|left| left.removed) {
            // With something left, the entry stays, and the next cleanup tries again.
            journal::forget(run).map_err(Error::io("remove the record of a run"))?;
        }
        Ok(())
    }

    /// Whether a living run works on the domain, or may do so. Of two domains with one UUID, one is dying.
    fn is_worked_on(&self, uuid: Uuid, domid: DomId) -> bool {
        self.living.iter().any(|(handle, number)| *handle == uuid && number.is_none_or(|number| number == domid))
    }

    /// The domain of a run, if it still exists.
    fn domain_of(&self, run: &RunRecord) -> Result<Option<DomainInfo>, XenError> {
        let same = self.domains.iter().filter(|domain| domain.uuid == run.uuid);
        for domain in same {
            let known = match run.domid() {
                Some(domid) => domain.domid == domid,
                // The run was killed before it recorded the domid: the domain is still empty, without an owner tag.
                None => run.verb == RunVerb::Create && self.is_bare(domain)?,
            };
            if known {
                return Ok(Some(domain.clone()));
            }
        }
        Ok(None)
    }

    /// Whether the domain is empty: no vCPU, no page, no key.
    fn is_bare(&self, domain: &DomainInfo) -> Result<bool, XenError> {
        let (keys, plain) = (XenstorePaths::new(domain.domid), self.store.plain());
        Ok(domain.existing_vcpus == 0
            && domain.owned_pages == Pages(0)
            && plain.read(&keys.domain)?.is_none()
            && plain.read(&keys.libxl)?.is_none())
    }

    /// Whether a domain still has its directory in xenstore; `destroy` removes it first.
    fn has_directory(&self, domid: DomId) -> Result<bool, XenError> {
        Ok(self.store.plain().read(&XenstorePaths::new(domid).domain)?.is_some())
    }

    /// Handles the existing domain of a dead run.
    fn domain(&mut self, run: &RunRecord, domain: &DomainInfo) -> Result<(), XenError> {
        let (xen, store, domid, held) = (self.xen, self.store, domain.domid, domain.held());
        match run.verb {
            RunVerb::Create => {
                self.note(run.uuid, Some(domid), Some(run), LeftoverKind::Domain, || {
                    teardown(xen, store, held, Ending::AtOnce)
                });
            }
            // The domain lives, with its keys. The user who called `destroy` can see it and call `destroy` again.
            RunVerb::Destroy if !domain.dying && self.has_directory(domid)? => {}
            RunVerb::Destroy => {
                self.note(run.uuid, Some(domid), Some(run), LeftoverKind::Domain, || {
                    teardown(xen, store, held, Ending::InOrder)
                });
            }
            RunVerb::Build if !run.claims => {}
            RunVerb::Build if domain.outstanding_pages == Pages(0) => {}
            RunVerb::Build => self.note(run.uuid, Some(domid), Some(run), LeftoverKind::Claim, || {
                let found = xen.find(held).map_err(|error| error.to_string())?;
                found.map_or(Ok(()), |_| xen.claim(domid, Pages(0))).map_err(|error| error.to_string())
            }),
            // The file is complete, and the guest was to be destroyed.
            RunVerb::Save if run.saved => {
                self.note(run.uuid, Some(domid), Some(run), LeftoverKind::Domain, || {
                    teardown(xen, store, held, Ending::InOrder)
                });
            }
            RunVerb::Save if is_suspending(store, domain)? => {
                self.note(run.uuid, Some(domid), Some(run), LeftoverKind::Suspended, || resume(xen, store, held));
            }
            RunVerb::Save => {}
            // Whether the guest runs on the other host is for a person to find out.
            RunVerb::Migrate if run.saved => {
                if is_suspending(store, domain)? {
                    self.note(run.uuid, Some(domid), Some(run), LeftoverKind::Suspended, || Err(UNDECIDED.to_owned()));
                }
            }
            RunVerb::Migrate => {
                if is_suspending(store, domain)? {
                    self.note(run.uuid, Some(domid), Some(run), LeftoverKind::Suspended, || {
                        stop_recording(xen, domain);
                        resume(xen, store, held).and_then(|()| restore_name(xen, store, held))
                    });
                } else if self.apply {
                    stop_recording(xen, domain);
                }
            }
            RunVerb::Attach => {
                let context = Context { xen, store, observer: &Silent, cancel: &Cancel::default() };
                let noted = owned(&store.plain())?.into_iter().filter(|device| device.domid == domid);
                for device in noted.filter(|device| device.run.as_ref() == Some(&run.mark())) {
                    self.note(run.uuid, Some(domid), Some(run), LeftoverKind::PciDevice, || {
                        take_back(&context, domain, device.address)
                    });
                }
                let devices = devices_of(&store.plain(), domid)?.into_iter();
                for device in devices.filter(|device| device.run.as_ref() == Some(&run.mark())) {
                    self.note(run.uuid, Some(domid), Some(run), LeftoverKind::Device, || {
                        remove_at_once(store, domid, slice::from_ref(&device))
                    });
                }
            }
        }
        Ok(())
    }

    /// Handles owner tags of domains that are gone and have no journal entry.
    fn marks(&mut self) -> Result<(), XenError> {
        let names = self.store.plain().children("/libxl")?.into_iter();
        let domids: Vec<_> = names.filter_map(|name| name.parse().ok().and_then(DomId::new)).collect();
        let paths: Vec<_> = domids.iter().map(|domid| XenstorePaths::new(*domid).owner_tag()).collect();
        let marks = self.store.plain().read_all(&paths)?;
        for (domid, mark) in domids.into_iter().zip(marks) {
            let Some(uuid) = mark.and_then(|mark| mark.parse().ok()) else { continue };
            let held = DomainRef { domid, uuid };
            let lived = self.domains.iter().any(|domain| domain.held() == held);
            let known = lived || self.found.iter().any(|left| left.uuid == uuid && left.domid == Some(domid));
            // Handling the previous one may have taken long: the domid may belong to another domain by now.
            if !known && !self.is_worked_on(uuid, domid) && owner_tag(self.store, domid)? == Some(uuid) {
                self.rest(uuid, domid, None)?;
            }
        }
        Ok(())
    }

    /// Handles cgroups of domains that are gone and have neither a journal entry nor an owner tag, and cgroups in which a killed
    /// run unpacked a kernel (the unpacker died with the run).
    fn cgroups(&mut self) -> Result<(), XenError> {
        if self.apply {
            remove_dead();
        }
        for domain in Cgroup::names().iter().filter_map(|name| domain_of_cgroup(name.to_str()?)) {
            let known = self.found.iter().any(|left| left.uuid == domain.uuid && left.domid == Some(domain.domid));
            if !known && !self.is_worked_on(domain.uuid, domain.domid) {
                self.rest(domain.uuid, domain.domid, None)?;
            }
        }
        Ok(())
    }

    /// Handles PCI devices that dombuild gave to domains that are gone.
    fn pci_devices(&mut self) -> Result<(), XenError> {
        let (xen, store) = (self.xen, self.store);
        for device in owned(&store.plain())? {
            let Some(uuid) = device.uuid else { continue };
            let domain = DomainRef { domid: device.domid, uuid };
            // They go with the keys of the domain, if these are still there.
            let known = self.found.iter().any(|left| left.uuid == uuid && left.domid == Some(device.domid));
            if !known && !self.is_worked_on(uuid, device.domid) && xen.find(domain)?.is_none() {
                self.note(uuid, Some(device.domid), None, LeftoverKind::PciDevice, || {
                    take_all(xen, store, Path::new(SYSFS), domain)
                });
            }
        }
        Ok(())
    }

    /// Handles locks on the user data of domains that exist. The run that took one may have had no journal entry.
    fn locks(&mut self) {
        for domain in self.domains.clone() {
            let held = domain.held();
            if !self.is_worked_on(domain.uuid, domain.domid) && userdata::has_dead_lock(held) {
                let remove = || userdata::remove_dead_lock(held);
                self.note(domain.uuid, Some(domain.domid), None, LeftoverKind::Lock, remove);
            }
        }
    }

    /// Handles the rest of a domain that is gone, unless its domid belongs to another domain by now.
    fn rest(&mut self, uuid: Uuid, domid: DomId, run: Option<&RunRecord>) -> Result<(), XenError> {
        // The domain list may be old: handling the previous one may have taken long.
        if self.xen.domain(domid)?.is_some() {
            return Ok(());
        }
        let (xen, store, domain) = (self.xen, self.store, DomainRef { domid, uuid });
        let keys = XenstorePaths::new(domid);
        // Without a cgroup, only the keys at the domid identify the device model, so they must belong to this domain.
        let has_keys = self.has_keys_of(uuid, &keys)?;
        let in_cgroup = |helpers: &Helpers| matches!(helpers, Helpers::InCgroup(_));
        match Helpers::of(store, domain).map(|helpers| helpers.filter(|helpers| has_keys || in_cgroup(helpers))) {
            Ok(Some(helpers)) if helpers.are_running() => {
                self.note(uuid, Some(domid), run, LeftoverKind::DeviceModel, || helpers.end(Ending::InOrder));
            }
            // An empty cgroup is not worth a report.
            Ok(Some(helpers)) if self.apply => drop(helpers.end(Ending::AtOnce)),
            Ok(_) => {}
            Err(problem) => log::warn!("{problem}"),
        }
        let files: Vec<PathBuf> = files_of(domid, Some(uuid)).into_iter().filter(|path| path.exists()).collect();
        if has_keys {
            self.note(uuid, Some(domid), run, LeftoverKind::Keys, || remove_rest(xen, store, domain));
        }
        if !files.is_empty() {
            self.note(uuid, Some(domid), run, LeftoverKind::Files, || files.iter().try_for_each(|file| remove(file)));
        }
        Ok(())
    }

    /// Whether the keys at the domid belong to this domain: by the owner tag, or by the path that every toolstack writes.
    fn has_keys_of(&self, uuid: Uuid, keys: &XenstorePaths) -> Result<bool, XenError> {
        let plain = self.store.plain();
        let vm = plain.read(&keys.of_domain("vm"))?;
        Ok(owner_tag(self.store, keys.domid)? == Some(uuid) || vm == Some(format!("/vm/{uuid}")))
    }

    /// Records something that is left, and removes it if cleanup applies its findings.
    fn note(
        &mut self,
        uuid: Uuid,
        domid: Option<DomId>,
        run: Option<&RunRecord>,
        what: LeftoverKind,
        remove: impl FnOnce() -> Result<(), String>,
    ) {
        let outcome = if self.apply { remove().map(|()| true) } else { Ok(false) };
        let (removed, problem) = match outcome {
            Ok(removed) => (removed, None),
            Err(problem) => (false, Some(problem)),
        };
        let (verb, pid) = (run.map(|run| run.verb), run.map(|run| run.process.pid));
        self.found.push(Leftover { domid, uuid, verb, pid, what, removed, problem });
    }
}
