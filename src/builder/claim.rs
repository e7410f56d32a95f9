//! Claims: memory is set aside before it is allocated, so that if only one of two builds fits, one succeeds.
//!
//! A claim makes Xen keep free pages for one domain. libxenguest drops the claim when it has populated a PV guest
//! (`meminit_pv`, tools/libs/guest/xg_dom_x86.c, Xen 4.17), so the rest is claimed again then. The paging pool and Xen's own
//! overhead for a domain are not pages of the domain and cannot be claimed. A lock serialises dombuild runs while they
//! allocate those.

use nix::errno::Errno;

use super::shortage::check_room;
use crate::config::guest::Guest;
use crate::context::Context;
use crate::error::Error;
use crate::memory::Pages;
use crate::runs::journal::JournalEntry;
use crate::xen::{DomId, XenError};

/// Claims the pages that the domain will own and does not own yet. Does nothing if the guest wants no claim.
///
/// # Errors
/// [`Error::NotEnoughMemory`], or another error of Xen.
pub(crate) fn claim(context: &Context<'_>, domid: DomId, guest: &Guest) -> Result<(), Error> {
    if !guest.is_claimed() {
        return Ok(());
    }
    let domain = context.xen.domain(domid)?.ok_or_else(|| Error::NoSuchDomain(domid.to_string()))?;
    // Xen refuses a claim above the domain's limit, and one that the owned pages already cover.
    let total = Pages(guest.final_pages().0.min(domain.max_pages.0));
    if domain.owned_pages.0.saturating_add(domain.outstanding_pages.0) >= total.0 {
        return Ok(());
    }
    // A domain has at most one claim.
    if domain.outstanding_pages.0 > 0 {
        context.xen.claim(domid, Pages(0))?;
    }
    context.xen.claim(domid, total).map_err(|error| match error.errno {
        Some(Errno::ENOMEM) => match check_room(context, domid, total) {
            Err(cause @ Error::NotEnoughMemory { .. }) => {
                log::info!("{error}");
                cause
            }
            _ => error.into(),
        },
        _ => error.into(),
    })
}

/// Releases what is left of the claim that this run has made. A claim of another program stays.
///
/// # Errors
/// An error of Xen.
pub fn give_back_claim(context: &Context<'_>, domid: DomId, run: &JournalEntry) -> Result<(), XenError> {
    if run.claims() { context.xen.claim(domid, Pages(0)) } else { Ok(()) }
}
