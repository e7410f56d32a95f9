//! Which domain a number stands for, and whether this program created it.

use uuid::Uuid;

use super::paths::XenstorePaths;
use crate::error::Error;
use crate::xen::{DomId, Interface, Store, XenError};

/// Whether the keys at a domain's number name another one: by dombuild's mark and by `vm`, the path that every toolstack
/// writes. Keys that name none are of whoever has the number.
pub(crate) fn name_another(mark: Option<&str>, vm: Option<&str>, uuid: Uuid) -> bool {
    let named = [mark.map(|mark| mark == uuid.to_string()), vm.map(|vm| vm == format!("/vm/{uuid}"))];
    named.iter().flatten().count() > 0 && !named.contains(&Some(true))
}

/// Whether dombuild created the domain, or that of which there are only keys any more.
///
/// # Errors
/// Where xenstored refuses to tell.
pub fn created_by_dombuild(xen: &Interface, store: &Store, domid: DomId) -> Result<bool, XenError> {
    let mark = owner_tag(store, domid)?;
    let domain = xen.domain(domid)?;
    Ok(mark.is_some_and(|mark| domain.is_none_or(|domain| mark == domain.uuid)))
}

/// The handle of the domain for which a number's keys were made, where dombuild made them.
///
/// # Errors
/// Where xenstored refuses to tell.
pub fn owner_tag(store: &Store, domid: DomId) -> Result<Option<Uuid>, XenError> {
    Ok(store.plain().read(&XenstorePaths::new(domid).owner_tag())?.and_then(|mark| mark.parse().ok()))
}

/// Whether a domain of this number has keys, although Xen may not know it any more.
///
/// # Errors
/// Where xenstored refuses to tell.
pub fn has_keys(store: &Store, domid: DomId) -> Result<bool, XenError> {
    let (plain, keys) = (store.plain(), XenstorePaths::new(domid));
    Ok(plain.read(&keys.domain)?.is_some() || plain.read(&keys.libxl)?.is_some())
}

/// Fails where a domain other than `except` has the UUID. One that is dying has it no more, as for libxl.
///
/// # Errors
/// [`Error::BadConfig`]; where Xen refuses to tell.
pub fn check_uuid_free(xen: &Interface, uuid: Uuid, except: Option<DomId>) -> Result<(), Error> {
    let domains = xen.domains()?;
    match domains.iter().find(|domain| !domain.dying && domain.uuid == uuid && Some(domain.domid) != except) {
        Some(other) => Err(Error::BadConfig(format!("the UUID {uuid} belongs to domain {}", other.domid))),
        None => Ok(()),
    }
}
