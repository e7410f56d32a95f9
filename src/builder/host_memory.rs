//! What memory of the host is free: the one answer for every verb that takes some.

use crate::context::Context;
use crate::error::Error;
use crate::memory::{Kib, Pages};
use crate::runs::journal;

/// Memory that Xen has free, that no claim stands on and that no other run of dombuild counts on.
///
/// It is an answer for a moment: a run that is to take of it holds the build lock from here until others can see what it takes.
///
/// # Errors
/// Where Xen does not tell, or the ledger of runs cannot be read.
pub fn free_memory(context: &Context<'_>) -> Result<Kib, Error> {
    let unclaimed = context.xen.physinfo()?.available();
    Ok(Kib(unclaimed.0.saturating_sub(reserved_by_others(context)?.to_kib().0)))
}

/// Free memory that other living runs count on although it is not claimed at the moment: between populating and the claim
/// that follows, or because they do not claim.
///
/// # Errors
/// Where the ledger cannot be read, or Xen refuses to tell.
fn reserved_by_others(context: &Context<'_>) -> Result<Pages, Error> {
    let runs: Vec<_> =
        journal::others()?.into_iter().filter(|entry| entry.alive && entry.run.reserved().0 > 0).collect();
    if runs.is_empty() {
        return Ok(Pages(0));
    }
    let domains = context.xen.domains()?;
    let missing = runs.iter().filter_map(|entry| {
        let domain = domains.iter().find(|domain| Some(domain.domid) == entry.run.domid())?;
        (domain.uuid == entry.run.uuid && !domain.dying).then_some(())?;
        let has = domain.owned_pages.0.saturating_add(domain.outstanding_pages.0);
        Some(entry.run.reserved().0.saturating_sub(has))
    });
    Ok(Pages(missing.fold(0, u64::saturating_add)))
}
