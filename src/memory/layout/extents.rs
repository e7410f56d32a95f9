//! The extents in which a guest is populated: the largest pages that fit, many per hypercall.

use super::{Bytes, FOUR_GIB, Layout, VGA_HOLE_END, VGA_HOLE_START};
use crate::kind::Kind;
use crate::units::{Gfn, Pages};

/// The orders of the CPU's page sizes, in 4 KiB pages: 1 GiB, 2 MiB, 4 KiB.
pub const ORDERS: [u32; 3] = [18, 9, 0];

/// Consecutive extents of one size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extents {
    /// The first frame; a multiple of the extent's size.
    pub first: Gfn,
    /// The order: each extent has 2^order pages.
    pub order: u32,
    /// The number of extents, 1 to 512: at most 1 GiB of 2 MiB extents.
    pub count: u64,
}

impl Extents {
    /// The next extents of the non-empty range `at..end`: of the largest order that fits at `at` and does not exceed
    /// `most`, up to the next frame at which a larger order fits.
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

    /// The next smaller order; `None` for single pages.
    #[must_use]
    pub fn smaller(self) -> Option<u32> {
        ORDERS.into_iter().find(|order| *order < self.order)
    }

    /// The pages of this many extents.
    #[must_use]
    pub const fn pages(self, extents: u64) -> Pages {
        Pages(extents << self.order)
    }
}

impl Layout {
    /// The ranges of frames that the builder populates: all RAM except an HVM guest's VGA hole. For a PV guest, which
    /// has no gfns of its own, all RAM.
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
