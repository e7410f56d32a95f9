//! Populate on demand (PoD): Xen's counts.

use crate::breakdown::Memory;
use crate::kind::Kind;
use crate::layout::VGA_HOLE_PAGES;
use crate::units::Pages;

/// Xen's PoD counts after all frames are marked and before any is populated.
///
/// Each first access takes a page from the cache and turns an entry into an ordinary one. Measured on Xen 4.17: a guest
/// of 256 MiB that may grow to 512 MiB, without video RAM, has 130921 entries and a cache of 65385 pages after the
/// build. That is 119 fewer of each than planned, because the builder writes hvmloader, SeaBIOS, hvm_info and the start
/// info.
///
/// The difference entries − cache stays constant, and is what the guest's balloon driver must give back: the balloon.
/// With the PV shim under xapi it is build max − build start, which is slightly more. Under libxl it is one page more
/// if build start ends within a page.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pod {
    /// The pages that the domain owns and Xen has not placed yet: build start less the VGA hole.
    pub cache: Pages,
    /// The frames marked PoD: build max less the VGA hole.
    pub entries: Pages,
}

impl Pod {
    /// The counts; `None` if the guest is not populated on demand.
    pub(super) fn of(kind: Kind, memory: &Memory) -> Option<Self> {
        let hole = if kind == Kind::Hvm { VGA_HOLE_PAGES } else { Pages::ZERO };
        let less_hole = |pages: Pages| pages.checked_sub(hole);
        memory.populate_on_demand.then_some(())?;
        Some(Self {
            cache: less_hole(memory.build_start.to_pages_floor())?,
            entries: less_hole(memory.build_max.to_pages_floor())?,
        })
    }
}
