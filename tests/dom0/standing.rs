//! A guest that stays to the end of a run, because its end would cost the machine more than it has: what the tests leave
//! behind is compared without it.

use std::sync::Mutex;

use dombuild::memory::Kib;
use dombuild::xen::{DomId, DomainInfo, Interface, Store};

/// Its name, once a test says that it will create it.
static NAME: Mutex<Option<&'static str>> = Mutex::new(None);

/// From now on, a domain of this name is never destroyed, and does not count as left behind: neither it, nor its keys, nor
/// its files, nor its memory.
pub(crate) fn leave_standing(name: &'static str) {
    *NAME.lock().expect("one thread") = Some(name);
}

/// The guest, if it is there.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) domid: DomId,
    places: [String; 5],
    /// Its pages and its paging pool, and what Xen may take for a domain besides.
    pub(crate) kib: u64,
}

impl Standing {
    pub(crate) fn find() -> Option<Self> {
        let name = (*NAME.lock().expect("one thread"))?;
        let xen = Interface::open().expect("Xen");
        let domains = xen.domains().expect("domains");
        let DomainInfo { domid, uuid, owned_pages, .. } =
            domains.into_iter().find(|info| is_named(info.domid, name))?;
        let Kib(pool) = xen.paging_pool(domid).expect("its pool");
        let places = [
            format!("/local/domain/{domid}"),
            format!("/libxl/{domid}"),
            format!("/vm/{uuid}"),
            format!("/local/domain/0/backend/console/{domid}"),
            format!(".{domid}.{uuid}."),
        ];
        Some(Self { domid, places, kib: owned_pages.0 * 4 + pool + XENS_OWN_KIB })
    }

    /// Whether a path, or a line that begins with one, is of something that belongs to it.
    pub(crate) fn has(&self, path: &str) -> bool {
        let path = path.split(" = ").next().unwrap_or(path);
        let [keys @ .., userdata] = &self.places;
        let is_in = |place: &String| {
            path.strip_prefix(place.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        keys.iter().any(is_in) || (path.starts_with("/var/lib/xen/userdata-") && path.contains(userdata.as_str()))
    }
}

/// The most that Xen takes for a domain of some vCPUs, apart from its pages and its pool.
const XENS_OWN_KIB: u64 = 32 << 10;

fn is_named(domid: DomId, name: &str) -> bool {
    let store = Store::open().expect("xenstored");
    store.plain().read(&format!("/local/domain/{domid}/name")).expect("read").as_deref() == Some(name)
}

/// Whether a domain is the one that stays.
pub(crate) fn stays(domid: DomId) -> bool {
    NAME.lock().expect("one thread").is_some_and(|name| is_named(domid, name))
}
