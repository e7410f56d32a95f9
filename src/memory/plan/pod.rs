//! Populate on demand, in Xen's own counts.

use crate::kind::Kind;
use crate::layout::VGA_HOLE_PAGES;
use crate::model::Memory;
use crate::units::Pages;

/// What Xen has of a guest that is populated on demand when all of it is marked, and before anything is touched.
///
/// Each page that is touched moves out of both: it is taken from the cache, and its entry becomes an ordinary one. Measured
/// on Xen 4.17: a guest of 256 MiB that may grow to 512 MiB, without video, shows 130921 entries and a cache of 65385 pages
/// after the build, 119 fewer of each than here, because hvmloader, SeaBIOS, hvm_info and the start info were written into
/// it.
///
/// The difference entries − cache stays the same through that, and is what the guest's balloon driver has to give back: the
/// balloon. (With the PV shim under xapi it is build max − build start, which is a little more; a build start under libxl
/// that ends within a page makes it one page more.)
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pod {
    /// Pages that the domain owns and that wait to be put in where the guest touches: build start less the VGA hole.
    pub cache: Pages,
    /// Frames that are marked to be populated: build max less the VGA hole.
    pub entries: Pages,
}

impl Pod {
    /// `None` where the guest is not populated on demand.
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
