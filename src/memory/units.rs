//! One type per unit of memory: a count of pages cannot be passed as a size in KiB.
//!
//! Conversions name their rounding: `_exact` returns `None` if there is a remainder, `_ceil` rounds up and `_floor`
//! rounds down. A conversion also returns `None` if the result does not fit. Every value of [`Mib`] fits in the other
//! units. Arithmetic is checked.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Bytes in a page, the only page size that Xen's interfaces count in (`XC_PAGE_SIZE`).
pub const PAGE_SIZE: u64 = 4096;
/// Bytes in a KiB.
pub const KIB: u64 = 1 << 10;
/// Bytes in a MiB.
pub const MIB: u64 = 1 << 20;
/// Bytes in a GiB.
pub const GIB: u64 = 1 << 30;
/// KiB in a page.
pub const KIB_PER_PAGE: u64 = PAGE_SIZE / KIB;
/// KiB in a MiB.
pub const KIB_PER_MIB: u64 = MIB / KIB;
/// Pages in a MiB.
pub const PAGES_PER_MIB: u64 = MIB / PAGE_SIZE;

macro_rules! unit {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub $inner);

        impl $name {
            /// 0.
            pub const ZERO: Self = Self(0);

            /// The number, in
            #[must_use]
            pub const fn get(self) -> $inner {
                self.0
            }

            /// Whether this is 0.
            #[must_use]
            pub const fn is_zero(self) -> bool {
                self.0 == 0
            }

            /// The sum; `None` if it does not fit.
            #[must_use]
            pub const fn checked_add(self, other: Self) -> Option<Self> {
                match self.0.checked_add(other.0) {
                    Some(sum) => Some(Self(sum)),
                    None => None,
                }
            }

            /// The difference; `None` if it would be negative.
            #[must_use]
            pub const fn checked_sub(self, other: Self) -> Option<Self> {
                match self.0.checked_sub(other.0) {
                    Some(difference) => Some(Self(difference)),
                    None => None,
                }
            }
        }
    };
}

unit! {
    /// A size or a guest-physical address, in bytes.
    Bytes(u64)
}
unit! {
    /// A size in KiB (1024 bytes): the unit of Xen's memory limits, of physinfo and of the memory keys in xenstore.
    Kib(u64)
}
unit! {
    /// A size in MiB: the unit of video RAM and of `xc_dom_mem_init`.
    ///
    /// 32 bits, like the `unsigned int` of that call. The largest value is just under 4 PiB, more than Xen can give to
    /// one domain. Every value fits in [`Bytes`], [`Kib`] and [`Pages`].
    Mib(u32)
}
unit! {
    /// A count of 4 KiB pages.
    Pages(u64)
}
unit! {
    /// A guest frame number: a guest-physical address in units of 4 KiB pages.
    Gfn(u64)
}

/// `n / per`; `None` if there is a remainder.
const fn divide_exact(n: u64, per: u64) -> Option<u64> {
    if n.is_multiple_of(per) { n.checked_div(per) } else { None }
}

/// A number of MiB as a [`Mib`], if it fits.
fn narrow(mib: u64) -> Option<Mib> {
    u32::try_from(mib).ok().map(Mib)
}

impl Bytes {
    /// In KiB; `None` unless it is a whole number.
    #[must_use]
    pub const fn to_kib_exact(self) -> Option<Kib> {
        match divide_exact(self.0, KIB) {
            Some(n) => Some(Kib(n)),
            None => None,
        }
    }

    /// In MiB; `None` unless it is a whole number that fits in 32 bits.
    #[must_use]
    pub fn to_mib_exact(self) -> Option<Mib> {
        divide_exact(self.0, MIB).and_then(narrow)
    }

    /// In MiB, rounded up; `None` if it does not fit in 32 bits.
    #[must_use]
    pub fn to_mib_ceil(self) -> Option<Mib> {
        narrow(self.0.div_ceil(MIB))
    }

    /// In pages; `None` unless it is a whole number.
    #[must_use]
    pub const fn to_pages_exact(self) -> Option<Pages> {
        match divide_exact(self.0, PAGE_SIZE) {
            Some(n) => Some(Pages(n)),
            None => None,
        }
    }

    /// In pages, rounded up.
    #[must_use]
    pub const fn to_pages_ceil(self) -> Pages {
        Pages(self.0.div_ceil(PAGE_SIZE))
    }

    /// In pages, rounded down.
    #[must_use]
    pub const fn to_pages_floor(self) -> Pages {
        Pages(self.0 / PAGE_SIZE)
    }

    /// The frame that holds this address.
    #[must_use]
    pub const fn to_gfn_floor(self) -> Gfn {
        Gfn(self.0 / PAGE_SIZE)
    }
}

impl Kib {
    /// In bytes; `None` if it does not fit in 64 bits.
    #[must_use]
    pub fn to_bytes(self) -> Option<Bytes> {
        self.0.checked_mul(KIB).map(Bytes)
    }

    /// In bytes; 16 EiB and more saturate. Every size of a [`Memory`](super::Memory) is far below that.
    #[must_use]
    pub const fn to_bytes_saturating(self) -> Bytes {
        Bytes(self.0.saturating_mul(KIB))
    }

    /// Rounded up to a multiple of `unit`; `None` if the result does not fit or the unit is 0.
    #[must_use]
    pub const fn round_up(self, unit: Self) -> Option<Self> {
        match self.0.checked_next_multiple_of(unit.0) {
            Some(rounded) => Some(Self(rounded)),
            None => None,
        }
    }

    /// In MiB, rounded up; `None` if it does not fit in 32 bits.
    #[must_use]
    pub fn to_mib_ceil(self) -> Option<Mib> {
        narrow(self.0.div_ceil(KIB_PER_MIB))
    }

    /// In MiB; `None` unless it is a whole number that fits in 32 bits.
    #[must_use]
    pub fn to_mib_exact(self) -> Option<Mib> {
        divide_exact(self.0, KIB_PER_MIB).and_then(narrow)
    }

    /// In MiB, rounded down; `None` if it does not fit in 32 bits.
    #[must_use]
    pub fn to_mib_floor(self) -> Option<Mib> {
        narrow(self.0 / KIB_PER_MIB)
    }

    /// In pages; `None` unless it is a whole number.
    #[must_use]
    pub const fn to_pages_exact(self) -> Option<Pages> {
        match divide_exact(self.0, KIB_PER_PAGE) {
            Some(n) => Some(Pages(n)),
            None => None,
        }
    }

    /// In pages, rounded down.
    #[must_use]
    pub const fn to_pages_floor(self) -> Pages {
        Pages(self.0 / KIB_PER_PAGE)
    }
}

impl Mib {
    /// In bytes; always fits.
    #[must_use]
    pub fn to_bytes(self) -> Bytes {
        Bytes(u64::from(self.0) << 20)
    }

    /// In KiB; always fits.
    #[must_use]
    pub fn to_kib(self) -> Kib {
        Kib(u64::from(self.0) << 10)
    }

    /// In pages; always fits.
    #[must_use]
    pub fn to_pages(self) -> Pages {
        Pages(u64::from(self.0) << 8)
    }
}

impl Pages {
    /// In bytes; `None` if it does not fit in 64 bits.
    #[must_use]
    pub fn to_bytes(self) -> Option<Bytes> {
        self.0.checked_mul(PAGE_SIZE).map(Bytes)
    }

    /// In KiB; 2^62 pages and more saturate. Xen reports no such count, and comparisons with sizes stay correct.
    #[must_use]
    pub const fn to_kib(self) -> Kib {
        Kib(self.0.saturating_mul(KIB_PER_PAGE))
    }

    /// In MiB, rounded up; `None` if it does not fit in 32 bits.
    #[must_use]
    pub fn to_mib_ceil(self) -> Option<Mib> {
        narrow(self.0.div_ceil(PAGES_PER_MIB))
    }
}

impl Gfn {
    /// The address of the frame's first byte; `None` if it does not fit in 64 bits.
    #[must_use]
    pub fn to_bytes(self) -> Option<Bytes> {
        self.0.checked_mul(PAGE_SIZE).map(Bytes)
    }

    /// The frame that is `pages` higher; `None` if it does not fit.
    #[must_use]
    pub fn checked_add_pages(self, pages: Pages) -> Option<Self> {
        self.0.checked_add(pages.0).map(Self)
    }
}

impl From<Mib> for Bytes {
    fn from(size: Mib) -> Self {
        size.to_bytes()
    }
}

impl From<Mib> for Kib {
    fn from(size: Mib) -> Self {
        size.to_kib()
    }
}

impl From<Mib> for Pages {
    fn from(size: Mib) -> Self {
        size.to_pages()
    }
}

/// Shown in the largest of MiB, KiB and bytes in which it is a whole number.
impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.to_kib_exact() {
            Some(kib) => kib.fmt(f),
            None => f.pad(&format!("{} bytes", self.0)),
        }
    }
}

/// Shown in MiB if it is a whole number of MiB, and in KiB otherwise.
impl fmt::Display for Kib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match divide_exact(self.0, KIB_PER_MIB) {
            Some(mib) => f.pad(&format!("{mib} MiB")),
            None => f.pad(&format!("{} KiB", self.0)),
        }
    }
}

impl fmt::Display for Mib {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} MiB", self.0))
    }
}

impl fmt::Display for Pages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{} {}", self.0, if self.0 == 1 { "page" } else { "pages" }))
    }
}

/// Shown in hexadecimal, as Xen does.
impl fmt::Display for Gfn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:#x}", self.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn rounding_says_what_it_does() {
        assert_eq!(Kib(1025).to_mib_ceil(), Some(Mib(2)));
        assert_eq!(Kib(1025).to_mib_exact(), None);
        assert_eq!(Kib(7).to_pages_floor(), Pages(1));
        assert_eq!(Kib(7).to_pages_exact(), None);
        assert_eq!((Kib(0).round_up(Kib(4)), Kib(5).round_up(Kib(4))), (Some(Kib(0)), Some(Kib(8))));
        assert_eq!((Kib(5).round_up(Kib(1)), Kib(5).round_up(Kib(0))), (Some(Kib(5)), None));
        assert_eq!(Bytes(4097).to_pages_ceil(), Pages(2));
        assert_eq!(Bytes(8191).to_pages_floor(), Pages(1));
        assert_eq!(Bytes(4097).to_pages_exact(), None);
        assert_eq!(Bytes(0xf_0000).to_gfn_floor(), Gfn(0xf0));
        assert_eq!(Pages(257).to_mib_ceil(), Some(Mib(2)));
    }

    #[test]
    fn nothing_overflows() {
        assert_eq!(Kib(u64::MAX).to_bytes(), None);
        assert_eq!(Kib(u64::MAX).to_bytes_saturating(), Bytes(u64::MAX));
        assert_eq!(Kib(u64::MAX).round_up(Kib(1024)), None);
        assert_eq!(Kib(u64::MAX).to_mib_ceil(), None);
        assert_eq!(Bytes(u64::MAX).to_mib_ceil(), None);
        assert_eq!(Bytes(u64::MAX).to_pages_ceil(), Pages(1 << 52));
        assert_eq!(Pages(u64::MAX).to_bytes(), None);
        assert_eq!(Pages(u64::MAX).to_kib(), Kib(u64::MAX));
        assert_eq!(Gfn(u64::MAX).to_bytes(), None);
        assert_eq!(Gfn(u64::MAX).checked_add_pages(Pages(1)), None);
        assert_eq!(Mib(u32::MAX).to_bytes(), Bytes(0x000f_ffff_fff0_0000));
        assert_eq!(Mib(u32::MAX).checked_add(Mib(1)), None);
        assert_eq!(Mib(0).checked_sub(Mib(1)), None);
    }

    #[test]
    fn they_print_in_their_unit() {
        assert_eq!(Mib(256).to_string(), "256 MiB");
        assert_eq!(Kib(262_144).to_string(), "256 MiB");
        assert_eq!(Kib(1000).to_string(), "1000 KiB");
        assert_eq!(Bytes(2 * GIB).to_string(), "2048 MiB");
        assert_eq!(Bytes(513).to_string(), "513 bytes");
        assert_eq!(Pages(1).to_string(), "1 page");
        assert_eq!(Gfn(0xfeff8).to_string(), "0xfeff8");
        assert_eq!(format!("{:>9}", Mib(16)), "   16 MiB");
        assert_eq!(serde_json::to_string(&Kib(5)).expect("a number"), "5");
    }

    proptest! {
        #[test]
        fn mib_goes_down_and_back(n: u32) {
            let mib = Mib(n);
            prop_assert_eq!(mib.to_bytes().to_mib_exact(), Some(mib));
            prop_assert_eq!(mib.to_kib().to_mib_exact(), Some(mib));
            prop_assert_eq!(mib.to_pages().to_mib_ceil(), Some(mib));
        }

        #[test]
        fn rounding_up_adds_less_than_one(n in 0..=Mib(u32::MAX).to_kib().0) {
            let up = Kib(n).to_mib_ceil().expect("fits").to_kib().0;
            prop_assert!((n..n + KIB_PER_MIB).contains(&up));
        }
    }
}
