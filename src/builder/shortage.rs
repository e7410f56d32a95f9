//! Why the host lacks memory: what is required, what is free, and which claims hold the rest.

use super::dom0_memory::dom0_memory;
use crate::context::Context;
use crate::domain::paths::XenstorePaths;
use crate::error::{Error, Relief};
use crate::memory::{Kib, Pages, Plan};
use crate::os::Untrusted;
use crate::xen::DomId;

/// The error for a host with `free` KiB outside all claims where `required` are needed. It lists the claims of domains other
/// than `of`: their memory counts as free in Xen, but nothing else can allocate it.
#[must_use]
pub fn shortage(context: &Context<'_>, of: Option<DomId>, required: Kib, free: Kib) -> Error {
    // A failed query here must not hide the shortage.
    let mut claims = Vec::new();
    let mut guests = false;
    for domain in context.xen.domains().unwrap_or_default() {
        let is_another = Some(domain.domid) != of && domain.domid != DomId::DOM0;
        guests |= is_another && !domain.dying && domain.owned_pages.0 > 0;
        if domain.outstanding_pages.0 > 0 && Some(domain.domid) != of {
            let name = context.store.plain().read(&XenstorePaths::new(domain.domid).of_domain("name")).ok().flatten();
            claims.push((domain.domid.get(), name.map(Untrusted::from), domain.outstanding_pages.to_kib()));
        }
    }
    let relief = Relief { guests, dom0: dom0_memory(context, None) };
    Error::NotEnoughMemory { required, free, claims: describe(&claims), relief }
}

/// Lists claims as `1024 KiB that are claimed for domain 3 (web), 2048 KiB for domain 4`. `None` if there are none.
fn describe(claims: &[(u32, Option<Untrusted>, Kib)]) -> Option<String> {
    let shown: Vec<String> = claims
        .iter()
        .enumerate()
        .map(|(index, (domid, name, size))| {
            let verb = if index == 0 { "that are claimed " } else { "" };
            let name = name.as_ref().map(|name| format!(" ({name})")).unwrap_or_default();
            format!("{} KiB {verb}for domain {domid}{name}", size.0)
        })
        .collect();
    (!shown.is_empty()).then(|| shown.join(", "))
}

/// The error of a guest at its memory limit whose device model has taken more memory than the plan leaves for it. `own` is
/// the number of the guest's own pages that are populated. `None` if that is not the cause.
pub fn device_memory(context: &Context<'_>, domid: DomId, plan: &Plan, own: Pages) -> Option<Error> {
    let domain = context.xen.domain(domid).ok().flatten().filter(|_| plan.device_model)?;
    let planned = plan.owned_pages_running.0.saturating_sub(plan.owned_pages_built.0);
    let taken = domain.owned_pages.0.checked_sub(own.0).filter(|taken| *taken > planned)?;
    // The room left is less than what the guest still lacks, or less than one page.
    let lacks = plan.owned_pages_built.0.saturating_sub(own.0).max(1);
    (domain.max_pages.0.saturating_sub(domain.owned_pages.0) < lacks).then(|| Error::DeviceMemory {
        limit: domain.max_pages.to_kib(),
        guest: plan.owned_pages_built.to_kib(),
        taken: Pages(taken).to_kib(),
        extra_internal: plan.memory.extra_internal,
    })
}

/// Checks that a domain may own `wanted` pages, and that the host has the pages that it still lacks.
///
/// # Errors
/// [`Error::LimitTooLow`] or [`Error::NotEnoughMemory`]. A domain that Xen cannot report on is no error here.
pub fn check_room(context: &Context<'_>, domid: DomId, wanted: Pages) -> Result<(), Error> {
    let (Ok(host), Ok(Some(domain))) = (context.xen.physinfo(), context.xen.domain(domid)) else {
        return Ok(());
    };
    if domain.max_pages < wanted {
        return Err(Error::LimitTooLow { domid, required: wanted.to_kib(), limit: domain.max_pages.to_kib() });
    }
    let required = Pages(wanted.0.saturating_sub(domain.owned_pages.0)).to_kib();
    // Memory claimed for this domain is free for it.
    let free = Kib(host.available().0.saturating_add(domain.outstanding_pages.to_kib().0));
    if free < required { Err(shortage(context, Some(domid), required, free)) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_are_told_by_whom() {
        assert_eq!(describe(&[]), None);
        let claims = [(3, Some("web".into()), Kib(1024)), (4, None, Kib(2048))];
        let relief = Relief { guests: true, dom0: None };
        let error =
            Error::NotEnoughMemory { required: Kib(9), free: Kib(7), claims: describe(&claims), relief }.to_string();
        let text = "9 KiB are required and 7 KiB are free, not counting 1024 KiB that are claimed for domain 3 (web), 2048 KiB \
                    for domain 4";
        assert!(error.contains(text), "{error}");
    }
}
