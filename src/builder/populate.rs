//! Memory for an HVM or PVH guest: in as few calls as its frames allow, told of as it goes, and stopped between any two.
//!
//! libxenguest does the same (`meminit_hvm`, tools/libs/guest/xg_dom_x86.c, Xen 4.17 and 4.20) in pieces of 8 MiB, without a
//! word until all is done, and gives back the domain's claim in the end.

use std::time::{Duration, Instant};

use super::Context;
use crate::error::Error;
use crate::events::Unit;
use crate::memory::layout::{Extents, ORDERS};
use crate::memory::{Pages, Plan};
use crate::xen::{DomId, XenError};

/// How often it is told how far it is.
const OFTEN: Duration = Duration::from_millis(200);

/// Populates all frames of RAM, on demand where the plan says so: then Xen gets the pages for its cache first.
///
/// `explain` looks for the cause of what Xen refused.
///
/// # Errors
/// [`Error::NotEnoughMemory`], [`Error::LimitTooLow`], or the call that Xen refused; [`Error::Interrupted`].
pub(super) fn populate(
    context: &Context<'_>,
    domid: DomId,
    plan: &Plan,
    explain: impl Fn(XenError) -> Error,
) -> Result<(), Error> {
    if let Some(pod) = &plan.pod {
        context.xen.set_pod_target(domid, pod.cache).map_err(&explain)?;
    }
    let ranges = plan.layout.populated();
    let total = Pages(ranges.iter().map(|(start, end)| end.saturating_sub(*start)).sum());
    let mut left = total;
    let mut told = Instant::now();
    for (start, end) in ranges {
        let (mut at, mut most) = (start, ORDERS[0]);
        while at < end {
            context.cancel.check()?;
            let extents = Extents::next(at, end, most);
            let smaller = extents.smaller();
            let done = match (context.xen.populate(domid, extents, plan.pod.is_some()), smaller) {
                (Ok(done), _) => done,
                // What stands against large pages alone shows with small ones.
                (Err(_), Some(_)) => 0,
                (Err(error), None) => return Err(explain(error)),
            };
            let pages = extents.pages(done);
            at = at.saturating_add(pages.0);
            left = Pages(left.0.saturating_sub(pages.0));
            // The host has no more pages of that size, here: smaller ones up to where one may begin again.
            most = smaller.filter(|_| done < extents.count).unwrap_or(ORDERS[0]);
            if left.0 == 0 || told.elapsed() >= OFTEN {
                tell(context, Pages(total.0.saturating_sub(left.0)), total);
                told = Instant::now();
            }
        }
    }
    Ok(())
}

fn tell(context: &Context<'_>, done: Pages, total: Pages) {
    let (done, total) = (done.to_kib().0, total.to_kib().0);
    let text = format!("{} of {} MiB are populated", done / 1024, total / 1024);
    context.progress.count("populate", done, total, Unit::Kib, &text);
}
