//! Why a destroyed domain still exists: how many of its pages are held, and the candidates that may hold them.
//!
//! Xen counts the pages and does not report who maps them. Two kinds of holders are possible: a backend driver, in dom0 or in
//! another domain, and a process that maps `/dev/xen/privcmd` or `/dev/xen/gntdev`. The message names every candidate.

use std::fs;
use std::path::Path;

use crate::memory::Pages;
use crate::os::Untrusted;
use crate::os::foreign_mappings::mappers;
use crate::xen::{DomId, Store, XenError};

/// The directory in which dom0's kernel lists the devices that its backend drivers serve, as `vbd-5-51712`.
const KERNEL_BACKENDS: &str = "/sys/bus/xen-backend/devices";
/// The most candidates of a kind that are named, because other domains decide how many there are.
const MOST: usize = 10;

/// One sentence without a full stop: the pages that are held, and each candidate. `owned` is the page count that Xen reports.
#[must_use]
pub(crate) fn describe(store: &Store, domid: DomId, owned: Option<Pages>) -> String {
    let pages = match owned {
        None => "an unknown number of its pages is".to_owned(),
        Some(Pages(0)) => {
            "none of its RAM but a page that Xen keeps for it, such as one of its grant table, is".to_owned()
        }
        Some(Pages(1)) => "1 of its pages is".to_owned(),
        Some(Pages(count)) => format!("{count} of its pages are"),
    };
    let mut backends = kernel_backends(Path::new(KERNEL_BACKENDS), domid);
    let mut unknown = "";
    match if store.is_lost() { Ok(Vec::new()) } else { stored_backends(store, domid) } {
        Ok(stored) => backends.extend(stored),
        Err(error) => {
            log::info!("{error}");
            unknown = " (xenstore does not show all of them)";
        }
    }
    let processes = mappers().iter().map(|mapper| mapper.to_string().into()).collect();
    format!(
        "{pages} still mapped by others; backends in dom0 and in xenstore: {}{unknown}; processes that map pages of guests: {}; \
         Xen frees it when they let go",
        list(backends),
        list(processes)
    )
}

fn list(all: Vec<Untrusted>) -> String {
    if all.is_empty() {
        return "none".to_owned();
    }
    let more = if all.len() > MOST { format!(" and {} more", all.len() - MOST) } else { String::new() };
    let shown: Vec<String> = all.into_iter().take(MOST).map(|one| one.shortened(80).to_string()).collect();
    shown.join(", ") + &more
}

/// The devices of the domain that a driver of dom0's kernel still serves. Their keys may be gone.
fn kernel_backends(directory: &Path, domid: DomId) -> Vec<Untrusted> {
    let wanted = domid.to_string();
    let names = fs::read_dir(directory).into_iter().flatten().flatten();
    let names = names.map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut found: Vec<_> = names
        .filter(|name| name.split('-').nth(1) == Some(&wanted))
        .map(|name| format!("{name} in dom0's kernel").into())
        .collect();
    found.sort();
    found
}

/// The backend directories in xenstore that serve the domain, in any domain.
fn stored_backends(store: &Store, domid: DomId) -> Result<Vec<Untrusted>, XenError> {
    let plain = store.plain();
    let below = |parents: Vec<String>| -> Result<Vec<String>, XenError> {
        let children = plain.children_of_all(&parents)?;
        let paths = parents
            .iter()
            .zip(children)
            .flat_map(|(parent, names)| names.into_iter().map(move |name| format!("{parent}/{name}")));
        Ok(paths.collect())
    };
    let backends =
        below(vec!["/local/domain".to_owned()])?.into_iter().map(|domain| format!("{domain}/backend")).collect();
    let of_domain = below(backends)?.into_iter().map(|kind| format!("{kind}/{domid}")).collect();
    Ok(below(of_domain)?.into_iter().map(Untrusted::from).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_of_the_kernel_are_those_of_the_domain() {
        let folder = tempfile::tempdir().expect("a folder");
        for name in ["vbd-5-51712", "vif-5-0", "vbd-51-5", "5", "console-15-0"] {
            fs::create_dir(folder.path().join(name)).expect("made");
        }
        let five = DomId::new(5).expect("a domid");
        assert_eq!(
            list(kernel_backends(folder.path(), five)),
            "vbd-5-51712 in dom0's kernel, vif-5-0 in dom0's kernel"
        );
        assert_eq!(kernel_backends(&folder.path().join("none"), five), []);
    }

    #[test]
    fn lists_are_short_and_hold_no_escapes() {
        assert_eq!(list(Vec::new()), "none");
        let many = vec![Untrusted::from("a\x1b".repeat(99)); 12];
        let shown = list(many);
        assert!(shown.ends_with(" and 2 more") && !shown.contains('\x1b') && shown.len() < 5000, "{shown}");
    }
}
