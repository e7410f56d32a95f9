//! The layout of a domain's physical address space, as libxl makes it (Xen 4.17).

mod address;
mod e820;
mod extents;
mod reserved;
#[cfg(test)]
mod tests;

pub use address::*;
pub use e820::{E820Entry, E820Kind};
pub use extents::{Extents, ORDERS};
pub use reserved::{LOWMEM_STEP, VGPU_VRAM_START};

use super::error::PlanError;
use super::kind::Kind;
use super::limits::{DEFAULT_MMIO_HOLE, MAX_COUNTABLE_SIZE, MAX_MMIO_HOLE, PVH_MMIO_HOLE};
use super::units::{Bytes, Kib, Mib};

/// The guest-physical layout; for a PV guest the pseudo-physical one. Addresses are in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layout {
    /// The kind of guest.
    pub kind: Kind,
    /// The end of low RAM: build max, the start of the MMIO hole, or the start of a reserved region, whichever is
    /// lowest.
    pub lowmem_end: Bytes,
    /// The start of the MMIO hole, which ends at 4 GiB; 0 for a PV guest, which has none.
    pub mmio_start: Bytes,
    /// The length of the MMIO hole; 0 if there is none.
    pub mmio_size: Bytes,
    /// The end of high RAM, which begins at 4 GiB; 0 if there is none.
    pub highmem_end: Bytes,
    /// The e820 map for `xc_domain_set_memory_map`, sorted by address, without overlaps.
    pub e820: Vec<E820Entry>,
    /// The start of the region of [`VGPU_VRAM`](super::limits::VGPU_VRAM) bytes for a vGPU, if there is one.
    pub vram: Option<Bytes>,
}

impl Layout {
    /// Lays out `build_max` of RAM around the MMIO hole below 4 GiB, if the kind has one. `mmio_hole` is for HVM guests
    /// only; `None` means [`DEFAULT_MMIO_HOLE`].
    ///
    /// # Errors
    /// [`PlanError::MmioHole`] for a hole outside 256 MiB to 2 GiB or not of whole MiB; [`PlanError::HoleNotHvm`] for a
    /// hole in another kind of guest; [`PlanError::TooLarge`] if hvm_info cannot hold the end of high RAM;
    /// [`PlanError::TooSmall`] if there is no RAM above 1 MiB.
    pub fn new(kind: Kind, build_max: Kib, mmio_hole: Option<Bytes>) -> Result<Self, PlanError> {
        match (kind, mmio_hole) {
            (Kind::Hvm, hole) => Self::hvm(build_max, hole.unwrap_or(DEFAULT_MMIO_HOLE)),
            (_, Some(_)) => Err(PlanError::HoleNotHvm { kind }),
            (Kind::Pvh, None) => Self::pvh(build_max),
            (Kind::Pv, None) => Self::pv(build_max),
        }
    }

    /// As `libxl__build_hvm` and `domain_construct_memmap`: RAM from 1 MiB. hvmloader describes the addresses below.
    fn hvm(build_max: Kib, mmio_hole: Bytes) -> Result<Self, PlanError> {
        if !(DEFAULT_MMIO_HOLE..=MAX_MMIO_HOLE).contains(&mmio_hole) || mmio_hole.to_mib_exact().is_none() {
            return Err(PlanError::MmioHole { hole: mmio_hole });
        }
        let (lowmem_end, highmem_end) = around(build_max, mmio_hole)?;
        let entries = [ram(E820_LOW_START, lowmem_end)?, E820Entry::range(E820Kind::Ram, FOUR_GIB, highmem_end)];
        Ok(Self {
            kind: Kind::Hvm,
            lowmem_end,
            mmio_start: below_4_gib(mmio_hole),
            mmio_size: mmio_hole,
            highmem_end,
            e820: entries.into_iter().flatten().collect(),
            vram: None,
        })
    }

    /// As the same functions for a PVH guest, with the entries sorted by address.
    fn pvh(build_max: Kib) -> Result<Self, PlanError> {
        let (lowmem_end, highmem_end) = around(build_max, PVH_MMIO_HOLE)?;
        let special = FIRST_SPECIAL_PAGE.to_bytes().unwrap_or_default();
        let behind = |start: Bytes, length: Option<Bytes>| length.and_then(|length| start.checked_add(length));
        let acpi_end = behind(ACPI_START, ACPI_PAGES.to_bytes()).unwrap_or(ACPI_START);
        let special_end = behind(special, SPECIAL_PAGES.to_bytes()).unwrap_or(special);
        let entries = [
            ram(Bytes::ZERO, lowmem_end)?,
            E820Entry::range(E820Kind::Acpi, ACPI_START, acpi_end),
            E820Entry::range(E820Kind::Reserved, special, special_end),
            E820Entry::range(E820Kind::Ram, FOUR_GIB, highmem_end),
        ];
        Ok(Self {
            kind: Kind::Pvh,
            lowmem_end,
            mmio_start: below_4_gib(PVH_MMIO_HOLE),
            mmio_size: PVH_MMIO_HOLE,
            highmem_end,
            e820: entries.into_iter().flatten().collect(),
            vram: None,
        })
    }

    /// Pseudo-physical memory without a gap, and the single entry that `xc_domain_set_memmap_limit` makes.
    fn pv(static_max: Kib) -> Result<Self, PlanError> {
        let end = static_max.to_bytes_saturating();
        Ok(Self {
            kind: Kind::Pv,
            lowmem_end: end,
            mmio_start: Bytes::ZERO,
            mmio_size: Bytes::ZERO,
            highmem_end: Bytes::ZERO,
            e820: ram(Bytes::ZERO, end)?.into_iter().collect(),
            vram: None,
        })
    }

    /// Whether an HVM guest has another MMIO hole than the default, which hvmloader must be given.
    #[must_use]
    pub fn has_custom_hole(&self) -> bool {
        self.kind == Kind::Hvm && self.mmio_size != DEFAULT_MMIO_HOLE
    }

    /// The size of RAM above 4 GiB.
    #[must_use]
    pub fn highmem(&self) -> Bytes {
        self.highmem_end.checked_sub(FOUR_GIB).unwrap_or_default()
    }
}

fn below_4_gib(hole: Bytes) -> Bytes {
    FOUR_GIB.checked_sub(hole).unwrap_or_default()
}

/// The ends of low and high RAM around a hole that ends at 4 GiB.
fn around(build_max: Kib, hole: Bytes) -> Result<(Bytes, Bytes), PlanError> {
    let ram = build_max.to_bytes_saturating();
    let mmio_start = below_4_gib(hole);
    let Some(above) = ram.checked_sub(mmio_start).filter(|above| !above.is_zero()) else {
        return Ok((ram, Bytes::ZERO));
    };
    let limit = Mib(MAX_COUNTABLE_SIZE.get().saturating_sub(hole.to_mib_ceil().unwrap_or(MAX_COUNTABLE_SIZE).get()));
    let end = FOUR_GIB.checked_add(above).filter(|_| build_max <= limit.to_kib());
    let end = end.ok_or(PlanError::TooLarge { what: "build max", size: build_max, limit })?;
    Ok((mmio_start, end))
}

/// The entry for low RAM, which every guest has.
fn ram(from: Bytes, to: Bytes) -> Result<Option<E820Entry>, PlanError> {
    let too_small = PlanError::TooSmall { target: Kib(to.get() / 1024), video: Mib::ZERO };
    E820Entry::range(E820Kind::Ram, from, to).ok_or(too_small).map(Some)
}
