//! Finds domains by name.

use super::paths::XenstorePaths;
use crate::error::Error;
use crate::xen::{DomId, DomainInfo, Interface, Transaction};

/// The domain that has this name. A dying domain has lost its name, although its keys may still exist.
///
/// # Errors
/// An error of xenstored or Xen.
pub fn name_owner(xen: &Interface, transaction: &Transaction<'_>, name: &str) -> Result<Option<DomId>, Error> {
    let named = all_named(xen, transaction, name)?;
    Ok(named.iter().find(|domain| !domain.dying).map(|domain| domain.domid))
}

/// The domain that a user means by this name: the one that has it, or else a dying one that had it.
///
/// # Errors
/// An error of xenstored or Xen.
pub fn find_by_name(xen: &Interface, transaction: &Transaction<'_>, name: &str) -> Result<Option<DomId>, Error> {
    let named = all_named(xen, transaction, name)?;
    Ok(named.iter().min_by_key(|domain| domain.dying).map(|domain| domain.domid))
}

/// Every domain of this name that Xen knows; names in xenstore without a domain do not count. dombuild and xl keep names
/// unique among living domains.
fn all_named(xen: &Interface, transaction: &Transaction<'_>, name: &str) -> Result<Vec<DomainInfo>, Error> {
    let domains = xen.domains()?;
    let paths: Vec<_> = domains.iter().map(|domain| XenstorePaths::new(domain.domid).of_domain("name")).collect();
    let names = transaction.read_all(&paths)?;
    let named = domains.into_iter().zip(names).filter(|(_, other)| other.as_deref() == Some(name));
    Ok(named.map(|(domain, _)| domain).collect())
}
