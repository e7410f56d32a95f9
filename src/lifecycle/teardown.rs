//! Removes a domain and everything that belongs to it: device model, sockets, xenstore, memory.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use uuid::Uuid;

use super::zombie;
use crate::devices::pci::SYSFS;
use crate::devices::pci_take::take_all;
use crate::devices::remove::remove_at_once;
use crate::domain::devices::devices_of;
use crate::domain::identity::belongs_to_another;
use crate::domain::name_index;
use crate::domain::paths::XenstorePaths;
use crate::domain::userdata;
use crate::os::pauses::Pauses;
use crate::os::shared_file::remove_file;
use crate::qemu::helpers::{Ending, Helpers};
use crate::qemu::log::XEN_RUN_DIR;
use crate::runs::build_lock;
use crate::xen::{DomId, DomainInfo, DomainRef, Interface, Store, Transaction, XenError};

/// How long a destroyed domain may take to release its memory.
const DESTROY_TIMEOUT: Duration = Duration::from_secs(20);
/// The same if xenstored does not answer: it maps a page of every guest, and releases it when it runs again.
const DESTROY_TIMEOUT_WITHOUT_STORE: Duration = Duration::from_secs(1);
/// How long the page count of a domain that was already dying may stay the same: its device model ended long ago.
const ZOMBIE_TIMEOUT: Duration = Duration::from_secs(2);

/// Removes the domain: pauses it, removes its devices and nodes, destroys it, ends its device model, removes the other keys and
/// waits until it is gone. If another domain has the domid by now, that domain and everything that belongs to it stay.
///
/// What the guest owns in xenstore goes before the domain: xenstored would look for it in its whole tree
/// (`domain_tree_remove`, tools/xenstore/xenstored_domain.c, Xen 4.17), which takes as long as the host has guests.
///
/// The domain is destroyed before its device model ends: QEMU frees the ioreq page when it ends, and Xen scrubs freed pages
/// of dying domains only (`free_domheap_pages`). In the other order, the next guest would find this guest's last I/O in its
/// RAM. The pages that QEMU maps, and the domid, remain until QEMU has ended.
///
/// Continues after a failure, so that as little as possible is left. If this run is killed during the removal, `cleanup`
/// continues it by the journal entry.
///
/// # Errors
/// Everything that could not be removed, in one sentence.
pub fn teardown(xen: &Interface, store: &Store, domain: DomainRef, ending: Ending) -> Result<(), String> {
    let mut problems: Vec<String> = Vec::new();
    let mut note = |problem: Result<(), String>| problems.extend(problem.err());

    let paused = pause(xen, domain);
    // While the guest cannot change them: its DMA ends before its memory is another's.
    note(once_more(store, || take_all(xen, store, Path::new(SYSFS), domain)));
    let helpers = once_more(store, || Helpers::of(store, domain));
    if matches!(paused, Ok(Some(_))) && matches!(helpers, Ok(None | Some(Helpers::InCgroup(_)))) {
        // What fails is tried again below.
        remove_nodes_of_guest(xen, store, domain).unwrap_or_else(|problem| log::debug!("{domain}: {problem}"));
    }
    let destroyed = paused.and_then(|found| destroy(xen, domain, found)).map_err(|error| error.to_string());
    // A domain that Xen refused to destroy does not go away: there is nothing to wait for.
    let goes = destroyed.as_ref().ok().copied();
    note(destroyed.map(drop));
    // Keys that could not be read may name a running device model. They stay, so that the next attempt finds it.
    let keys_stay = helpers.is_err() && !store.is_lost();
    note(helpers.and_then(|helpers| helpers.map_or(Ok(()), |helpers| helpers.end(ending))));
    if !keys_stay {
        note(once_more(store, || remove_rest(xen, store, domain)));
    }
    if let Some(was_dying) = goes {
        note(wait_gone(xen, store, domain, was_dying));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

/// Runs an idempotent step, and once more if it fails while xenstored answers, so that a transient failure leaves nothing
/// behind.
fn once_more<T>(store: &Store, step: impl Fn() -> Result<T, String>) -> Result<T, String> {
    match step() {
        Err(_) if !store.is_lost() => step(),
        outcome => outcome,
    }
}

/// Pauses the domain, if it still exists.
fn pause(xen: &Interface, domain: DomainRef) -> Result<Option<DomainInfo>, XenError> {
    let found = xen.find(domain)?;
    // A guest without its device model can only wait for it, and a failed pause does no harm.
    if found.is_some()
        && let Err(error) = xen.pause(domain.domid)
    {
        log::debug!("{error}");
    }
    Ok(found)
}

/// Removes the devices of a paused domain, and its directory, of which the guest owns a part.
fn remove_nodes_of_guest(xen: &Interface, store: &Store, domain: DomainRef) -> Result<(), String> {
    remove_devices(xen, store, domain)?;
    let removed = store.batch(|nodes| match keys_are_anothers(nodes, domain)? {
        true => Ok(()),
        false => nodes.remove(&XenstorePaths::new(domain.domid).domain),
    });
    removed.map_err(|error: XenError| error.to_string())
}

/// Whether the keys at the domid are those of another domain.
fn keys_are_anothers(nodes: &Transaction<'_>, domain: DomainRef) -> Result<bool, XenError> {
    let keys = XenstorePaths::new(domain.domid);
    let [mark, vm] = nodes.read_all(&[keys.owner_tag(), keys.of_domain("vm")])?.try_into().unwrap_or_default();
    Ok(belongs_to_another(mark.as_deref(), vm.as_deref(), domain.uuid))
}

/// Destroys the domain that was found. Returns whether it was dying already.
fn destroy(xen: &Interface, domain: DomainRef, found: Option<DomainInfo>) -> Result<bool, XenError> {
    let Some(info) = found else { return Ok(false) };
    xen.destroy(domain).map(|()| info.dying)
}

/// Removes the keys and files of a domain. Those at its domid stay if another domain has the domid by now.
///
/// # Errors
/// Everything that could not be removed, in one sentence.
pub(crate) fn remove_rest(xen: &Interface, store: &Store, domain: DomainRef) -> Result<(), String> {
    let mut problems: Vec<String> = Vec::new();
    let was_lost = store.is_lost();
    problems.extend(remove_devices(xen, store, domain).err());
    problems.extend(take_all(xen, store, Path::new(SYSFS), domain).err());
    // Under the lock, no other run writes the keys of a later domain with the same domid.
    let removed = match build_lock::take_names(|| Ok(())) {
        Ok(_lock) => store.batch(|nodes| remove_keys(xen, nodes, domain)),
        Err(_) => store.transaction(|transaction| remove_keys(xen, transaction, domain)),
    };
    if let Err(error) = removed {
        let again = was_lost && error.errno == Some(Errno::ETIMEDOUT);
        problems.push(if again { "so its keys stay".to_owned() } else { error.to_string() });
    }
    name_index::forget(|other| other == domain);
    if !number_is_anothers(&xen.domains().map_err(|error| error.to_string())?, domain) {
        problems.extend(files_of(domain.domid, Some(domain.uuid)).iter().filter_map(|file| remove(file).err()));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

/// Removes the devices of a domain, unless its keys are another domain's by now.
fn remove_devices(xen: &Interface, store: &Store, domain: DomainRef) -> Result<(), String> {
    let found = || {
        let plain = store.plain();
        let devices = devices_of(&plain, domain.domid)?;
        if devices.is_empty() {
            return Ok(devices);
        }
        let others = keys_are_anothers(&plain, domain)? || number_is_anothers(&xen.domains()?, domain);
        Ok::<_, XenError>(if others { Vec::new() } else { devices })
    };
    let devices = found().map_err(|error| error.to_string())?;
    remove_at_once(store, domain.domid, &devices)
}

fn number_is_anothers(domains: &[DomainInfo], domain: DomainRef) -> bool {
    domains.iter().any(|other| other.domid == domain.domid && other.uuid != domain.uuid)
}

/// Removes the keys and files at a domid that Xen does not know and whose UUID is unknown.
///
/// # Errors
/// There is a domain with that domid again; everything that could not be removed.
pub fn remove_unknown(xen: &Interface, store: &Store, domid: DomId) -> Result<(), String> {
    match xen.domain(domid) {
        Err(error) => return Err(error.to_string()),
        Ok(Some(other)) => return Err(format!("its number belongs to another one by now, {}", other.held())),
        Ok(None) => {}
    }
    store
        .transaction(|transaction| remove_at_number(transaction, &XenstorePaths::new(domid)))
        .map_err(|error| error.to_string())?;
    files_of(domid, None).iter().try_for_each(|file| remove(file))
}

/// Removes every node at the domid, and `/vm/UUID`. Nodes of another domain stay, and so does `/vm/UUID` if a living domain
/// has that UUID. (Of two domains with one UUID, one is dying, and only its domid identifies it.) Outside a transaction,
/// xenstored takes a fraction of the time; see [`Store::batch`].
fn remove_keys(xen: &Interface, transaction: &Transaction<'_>, domain: DomainRef) -> Result<(), XenError> {
    let DomainRef { domid, uuid } = domain;
    let anothers = keys_are_anothers(transaction, domain)?;
    // Xen is asked after the keys are read. In a transaction: if a later domain's keys are written during it, it fails and is
    // repeated.
    let domains = xen.domains()?;
    if !domains.iter().any(|other| other.domid != domid && other.uuid == uuid && !other.dying) {
        transaction.remove(&format!("/vm/{uuid}"))?;
    }
    if number_is_anothers(&domains, domain) {
        return Ok(());
    }
    if anothers {
        log::info!("the keys at number {domid} are another domain's: they stay");
        return Ok(());
    }
    remove_at_number(transaction, &XenstorePaths::new(domid))
}

fn remove_at_number(transaction: &Transaction<'_>, keys: &XenstorePaths) -> Result<(), XenError> {
    let backends = "/local/domain/0/backend";
    for kind in transaction.children(backends)? {
        transaction.remove(&format!("{backends}/{kind}/{}", keys.domid))?;
    }
    transaction.remove(&keys.device_model)?;
    transaction.remove(&keys.libxl)?;
    transaction.remove(&keys.domain)
}

/// QEMU's sockets, and libxl's files for a domain. With `None` for the UUID of a domain that is gone: the files of every domain
/// that had the domid.
pub(crate) fn files_of(domid: DomId, uuid: Option<Uuid>) -> Vec<PathBuf> {
    let run = Path::new(XEN_RUN_DIR);
    let mut files = vec![run.join(format!("qmp-libxl-{domid}")), run.join(format!("qmp-libxenstat-{domid}"))];
    files.extend(userdata::files_of(domid, uuid));
    files
}

/// Removes a file, with an error that names it.
pub(crate) fn remove(file: &Path) -> Result<(), String> {
    remove_file(file).map_err(|error| format!("cannot remove {}: {error}", file.display()))
}

/// Waits until the domain is gone. Xen frees its pages in the background, once no other domain or process maps them. A domain
/// that was already dying has had that time, so the wait lasts only while its pages become fewer.
fn wait_gone(xen: &Interface, store: &Store, domain: DomainRef, was_dying: bool) -> Result<(), String> {
    let limit = if store.is_lost() { DESTROY_TIMEOUT_WITHOUT_STORE } else { DESTROY_TIMEOUT };
    let start = Instant::now();
    let mut owned = None;
    let (mut changed, mut pauses) = (start, Pauses::new());
    loop {
        match xen.find(domain) {
            Ok(None) => return Ok(()),
            Ok(Some(info)) if owned != Some(info.owned_pages) => {
                (owned, changed) = (Some(info.owned_pages), Instant::now())
            }
            _ => {}
        }
        if start.elapsed() >= limit || (was_dying && changed.elapsed() >= ZOMBIE_TIMEOUT) {
            return Err(zombie::describe(store, domain.domid, owned));
        }
        pauses.sleep();
    }
}
