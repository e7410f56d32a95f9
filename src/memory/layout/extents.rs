//! In which pieces the frames of a guest are populated: the largest pages that fit, many to a call.

use super::{Bytes, FOUR_GIB, Layout, VGA_HOLE_END, VGA_HOLE_START};
use crate::kind::Kind;
use crate::units::{Gfn, Pages};

/// Orders of the page sizes that the CPU's tables have, in 4 KiB pages: 1 GiB, 2 MiB, 4 KiB.
pub const ORDERS: [u32; 3] = [18, 9, 0];

/// Equally large extents, one behind the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extents {
    /// Where the first begins; a multiple of their size.
    pub first: Gfn,
    /// Each has 2^order pages.
    pub order: u32,
    /// How many, at least 1 and at most 512: 1 GiB of 1 GiB or 2 MiB extents.
    pub count: u64,
}

impl Extents {
    /// The next extents to populate of the frames `at..end`, which are not empty: of the largest order that fits there and
    /// is at most `most`, up to where a larger one may begin.
    #[must_use]
    pub fn next(at: u64, end: u64, most: u32) -> Self {
        let fits = |order: u32| at.trailing_zeros() >= order && end.saturating_sub(at) >> order > 0;
        let order = ORDERS.into_iter().find(|order| *order <= most && fits(*order)).unwrap_or(0);
        let larger = ORDERS.into_iter().rfind(|larger| *larger > order);
        let boundary = match larger {
            Some(larger) => ((at >> larger) + 1) << larger,
            None => at.saturating_add(1 << order),
        };
        Self { first: Gfn(at), order, count: end.min(boundary).saturating_sub(at) >> order }
    }

    /// The next smaller order, where there is one.
    #[must_use]
    pub fn smaller(self) -> Option<u32> {
        ORDERS.into_iter().find(|order| *order < self.order)
    }

    /// Pages in so many of them.
    #[must_use]
    pub const fn pages(self, extents: u64) -> Pages {
        Pages(extents << self.order)
    }
}

impl Layout {
    /// The frames of RAM that the builder populates: all of it but an HVM guest's VGA hole. For a PV guest, which has no frames
    /// of its own, all.
    #[must_use]
    pub fn populated(&self) -> Vec<(u64, u64)> {
        let page = |address: Bytes| address.to_pages_floor().0;
        let low = page(self.lowmem_end);
        let mut ranges = match self.kind {
            Kind::Hvm => vec![(0, page(VGA_HOLE_START).min(low)), (page(VGA_HOLE_END), low)],
            Kind::Pvh | Kind::Pv => vec![(0, low)],
        };
        ranges.push((page(FOUR_GIB), page(self.highmem_end)));
        ranges.retain(|(start, end)| start < end);
        ranges
    }
}
