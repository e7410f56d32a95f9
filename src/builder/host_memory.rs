//! The host's free memory, by one rule for every command that takes some.

use crate::context::Context;
use crate::error::Error;
use crate::memory::{Kib, Pages};
use crate::runs::journal;

/// Memory that is free in Xen, outside all claims and outside the reserves of other dombuild runs.
///
/// The answer can change at once. A run that is about to take some of this memory holds the build lock from this call until
/// its own claim or reserve is visible.
///
/// # Errors
/// An error of Xen, or of reading the journal.
pub fn free_memory(context: &Context<'_>) -> Result<Kib, Error> {
    let unclaimed = context.xen.physinfo()?.available();
    Ok(Kib(unclaimed.0.saturating_sub(reserved_by_others(context)?.to_kib().0)))
}

/// Free memory that other living runs have reserved and not claimed: between populating and the claim that follows, or
/// because they make no claims.
///
/// # Errors
/// An error of reading the journal, or of Xen.
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
