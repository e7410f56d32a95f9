//! Which domain a domid stands for, and whether dombuild created it.

use uuid::Uuid;

use super::paths::XenstorePaths;
use crate::error::Error;
use crate::error::domain::DomainError;
use crate::xen::{DomId, Interface, Store, XenError};

/// Whether the keys at a domid belong to a domain other than `uuid`: by dombuild's owner tag (`mark`) and by `vm`, the path
/// that every toolstack writes. Keys without either belong to the present domain of that domid. The tag's node is empty where only
/// a node below it was written.
pub(crate) fn belongs_to_another(mark: Option<&str>, vm: Option<&str>, uuid: Uuid) -> bool {
    let mark = mark.filter(|mark| !mark.is_empty());
    let named = [mark.map(|mark| mark == uuid.to_string()), vm.map(|vm| vm == format!("/vm/{uuid}"))];
    named.iter().flatten().count() > 0 && !named.contains(&Some(true))
}

/// Whether dombuild created the domain, or the gone domain whose keys remain.
///
/// # Errors
/// An error of xenstored.
pub fn created_by_dombuild(xen: &Interface, store: &Store, domid: DomId) -> Result<bool, XenError> {
    let mark = owner_tag(store, domid)?;
    let domain = xen.domain(domid)?;
    Ok(mark.is_some_and(|mark| domain.is_none_or(|domain| mark == domain.uuid)))
}

/// The owner tag at a domid: the UUID of the domain for which dombuild wrote the keys. `None` if dombuild did not write them.
///
/// # Errors
/// An error of xenstored.
pub fn owner_tag(store: &Store, domid: DomId) -> Result<Option<Uuid>, XenError> {
    Ok(store.plain().read(&XenstorePaths::new(domid).owner_tag())?.and_then(|mark| mark.parse().ok()))
}

/// Whether there are keys at this domid. Xen may no longer know the domain.
///
/// # Errors
/// An error of xenstored.
pub fn has_keys(store: &Store, domid: DomId) -> Result<bool, XenError> {
    let (plain, keys) = (store.plain(), XenstorePaths::new(domid));
    Ok(plain.read(&keys.domain)?.is_some() || plain.read(&keys.libxl)?.is_some())
}

/// Fails if a domain other than `except` has the UUID. As in libxl, a dying domain does not count.
///
/// # Errors
/// [`Error::BadConfig`]; an error of Xen.
pub fn check_uuid_free(xen: &Interface, uuid: Uuid, except: &[DomId]) -> Result<(), Error> {
    let domains = xen.domains()?;
    match domains.iter().find(|domain| !domain.dying && domain.uuid == uuid && !except.contains(&domain.domid)) {
        Some(other) => Err(DomainError::UuidTaken { uuid, domid: other.domid }.into()),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_anothers_if_they_name_it_and_not_this_domain() {
        let (own, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
        let [mark, anothers] = [own, other].map(|uuid| uuid.to_string());
        let [vm, anothers_vm] = [own, other].map(|uuid| format!("/vm/{uuid}"));
        for (mark, vm, expected) in [
            (None, None, false),
            (Some(""), None, false),
            (Some(""), Some(vm.as_str()), false),
            (Some(""), Some(anothers_vm.as_str()), true),
            (Some(mark.as_str()), Some(anothers_vm.as_str()), false),
            (Some(anothers.as_str()), None, true),
            (Some(anothers.as_str()), Some(vm.as_str()), false),
        ] {
            assert_eq!(belongs_to_another(mark, vm, own), expected, "{mark:?} {vm:?}");
        }
    }
}
