//! Finds domains by name.

use super::name_index::{candidates, forget};
use super::paths::XenstorePaths;
use crate::error::Error;
use crate::xen::{DomId, DomainInfo, Interface, Transaction};

/// The domain that has this name, among all that Xen has. A dying domain has lost its name, although its keys may still exist.
///
/// # Errors
/// An error of xenstored or Xen.
pub fn name_owner(xen: &Interface, transaction: &Transaction<'_>, name: &str) -> Result<Option<DomId>, Error> {
    let domains = xen.domains()?;
    forget(|noted| !domains.iter().any(|domain| domain.held() == noted));
    let named = all_named(domains, transaction, name)?;
    Ok(named.iter().find(|domain| !domain.dying).map(|domain| domain.domid))
}

/// The domain that a user means by this name: the one that has it, or else a dying one that had it. The index of names saves
/// the look at all domains.
///
/// # Errors
/// An error of xenstored or Xen.
pub fn find_by_name(xen: &Interface, transaction: &Transaction<'_>, name: &str) -> Result<Option<DomId>, Error> {
    for noted in candidates(name) {
        let lives = xen.find(noted)?.is_some_and(|domain| !domain.dying);
        if lives && transaction.read(&XenstorePaths::new(noted.domid).of_domain("name"))?.as_deref() == Some(name) {
            return Ok(Some(noted.domid));
        }
    }
    let named = all_named(xen.domains()?, transaction, name)?;
    Ok(named.iter().min_by_key(|domain| domain.dying).map(|domain| domain.domid))
}

/// Those of these domains that have this name; names in xenstore without a domain do not count. dombuild and xl keep names
/// unique among living domains.
fn all_named(domains: Vec<DomainInfo>, transaction: &Transaction<'_>, name: &str) -> Result<Vec<DomainInfo>, Error> {
    let paths: Vec<_> = domains.iter().map(|domain| XenstorePaths::new(domain.domid).of_domain("name")).collect();
    let names = transaction.read_all(&paths)?;
    let named = domains.into_iter().zip(names).filter(|(_, other)| other.as_deref() == Some(name));
    Ok(named.map(|(domain, _)| domain).collect())
}
