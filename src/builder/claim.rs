//! Memory that is set aside before it is taken, so that of two builds which do not both fit one is built whole.
//!
//! A claim is Xen's: free pages that only this domain may have. libxenguest gives back every claim when it has populated a
//! PV guest (`meminit_pv`, tools/libs/guest/xg_dom_x86.c, Xen 4.17), so that what is still to come is
//! claimed again then. The paging pool and what Xen keeps of a domain itself are no pages of the domain's, and not claimed;
//! while those are allocated, runs of dombuild keep each other off by a lock.

use nix::errno::Errno;

use super::shortage::check_room;
use crate::config::guest::Guest;
use crate::context::Context;
use crate::error::Error;
use crate::memory::Pages;
use crate::runs::journal::JournalEntry;
use crate::xen::{DomId, XenError};

/// Claims what the domain does not own yet of what it will own in the end; nothing where no claim is wanted.
///
/// # Errors
/// [`Error::NotEnoughMemory`], or what Xen says.
pub(crate) fn claim(context: &Context<'_>, domid: DomId, guest: &Guest) -> Result<(), Error> {
    if !guest.is_claimed() {
        return Ok(());
    }
    let domain = context.xen.domain(domid)?.ok_or_else(|| Error::NoSuchDomain(domid.to_string()))?;
    // Xen refuses a claim above the limit, and one of what is owned already.
    let total = Pages(guest.final_pages().0.min(domain.max_pages.0));
    if domain.owned_pages.0.saturating_add(domain.outstanding_pages.0) >= total.0 {
        return Ok(());
    }
    // There may be one claim at a time.
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

/// Gives back what is left of the claim that this run has made; one that somebody else has made stays.
///
/// # Errors
/// Where Xen refuses it.
pub fn give_back_claim(context: &Context<'_>, domid: DomId, run: &JournalEntry) -> Result<(), XenError> {
    if run.claims() { context.xen.claim(domid, Pages(0)) } else { Ok(()) }
}
