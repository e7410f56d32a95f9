//! Why the host's memory does not do: what is needed, what is free, and whose claims stand in the way.

use super::dom0_memory::dom0_memory;
use crate::context::Context;
use crate::domain::paths::XenstorePaths;
use crate::error::{Error, Relief};
use crate::memory::Kib;
use crate::os::Untrusted;
use crate::xen::DomId;

/// The error for a host that has `free` KiB beside all claims where `required` are needed. It names the claims of other
/// domains than the one that it is for: their memory is free to look at, and not to be had.
#[must_use]
pub fn shortage(context: &Context<'_>, of: Option<DomId>, required: Kib, free: Kib) -> Error {
    // Where it cannot be told, that is no reason for another error.
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

/// `1024 KiB that are claimed for domain 3 (web), 2048 KiB for domain 4`.
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
                    for domain 4; shut down";
        assert!(error.contains(text), "{error}");
    }
}
