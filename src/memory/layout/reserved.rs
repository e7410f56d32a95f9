//! Regions in which an HVM guest must have no RAM: the host's own, for a PCI device, and one for a virtual GPU.
//!
//! A device may read and write memory that the host's firmware reserved for it (RMRR, IVMD) at the same addresses in the
//! guest. Low RAM therefore ends where the lowest of these regions begins, and what it loses stands above 4 GiB. The MMIO
//! hole begins there too, so that hvmloader and QEMU, which know of the hole alone, see the RAM where it is.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::{E820_LOW_START, E820Entry, E820Kind, FOUR_GIB, HVMLOADER_RESERVED, Layout, around};
use crate::error::PlanError;
use crate::kind::Kind;
use crate::units::{Bytes, KIB, MIB, PAGE_SIZE};

/// The most entries that hvmloader has room for when it reads the memory map (`E820MAX`,
/// `tools/firmware/hvmloader/e820.h`, and `tools/include/xenctrl.h`, Xen 4.17).
pub const MAX_E820_ENTRIES: usize = 128;
/// Least low RAM that a region may leave: hvmloader, the firmware and its modules stand there.
pub const MIN_LOWMEM: Bytes = Bytes(16 * MIB);
/// Low RAM that ends for a region ends at a multiple of this, which large pages and hvmloader's MTRRs like better
/// (libxl, `libxl__domain_device_construct_rdm`, does the same).
pub const LOWMEM_STEP: Bytes = Bytes(2 * MIB);
/// Length of the region that NVIDIA's vGPUs want for their video RAM, and of the steps in which a place is looked for
/// (XenServer's figure).
pub const VGPU_VRAM: Bytes = Bytes(16 * MIB);
/// The first place that is tried for it: below hvmloader's own area and OVMF (XenServer's figure).
pub const VGPU_VRAM_START: Bytes = Bytes(0xfb00_0000);

/// A region of guest-physical addresses that must not be RAM. Whole pages of 4 KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Reserved {
    /// Its first address.
    pub start: Bytes,
    /// Its length.
    pub size: Bytes,
}

impl Reserved {
    /// Behind its last address; the highest address where it would be beyond.
    fn end(self) -> Bytes {
        self.start.checked_add(self.size).unwrap_or(Bytes(u64::MAX))
    }

    /// Whether any of it is in `from` to before `to`.
    fn overlaps(self, from: Bytes, to: Bytes) -> bool {
        self.start < to && from < self.end()
    }
}

impl fmt::Display for Reserved {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{:#x} to {:#x} ({} KiB)", self.start.get(), self.end().get(), self.size.get() / KIB)
    }
}

impl Layout {
    /// The same guest with these regions reserved, in any order and overlapping or not, and with one for a vGPU. RAM that
    /// loses its place moves above 4 GiB.
    ///
    /// # Errors
    /// [`PlanError::ReservedNotHvm`] for another kind of guest; [`PlanError::ReservedNotPages`] for a region that is empty,
    /// not whole pages or beyond any address; [`PlanError::ReservedTooLow`] for one that leaves less than [`MIN_LOWMEM`], or
    /// lies below 1 MiB; [`PlanError::ReservedInFirmware`] for one in the last 64 MiB below 4 GiB, where hvmloader stops at
    /// one (`memory_map_setup`, `tools/firmware/hvmloader/e820.c`) or Xen's special pages are;
    /// [`PlanError::ReservedInHighRam`] for one in RAM above 4 GiB; [`PlanError::TooManyRegions`];
    /// [`PlanError::NoRoomForVram`]; [`PlanError::TooLarge`] where high RAM would end past what hvm_info can say.
    pub fn with_reserved(mut self, reserved: &[Reserved], vgpu: bool) -> Result<Self, PlanError> {
        if reserved.is_empty() && !vgpu {
            return Ok(self);
        }
        if self.kind != Kind::Hvm {
            return Err(PlanError::ReservedNotHvm { kind: self.kind });
        }
        let regions = merged(reserved)?;
        for region in regions.iter().copied() {
            if region.start < E820_LOW_START {
                return Err(PlanError::ReservedTooLow { region });
            }
            if region.overlaps(HVMLOADER_RESERVED, FOUR_GIB) {
                return Err(PlanError::ReservedInFirmware { region });
            }
        }
        if let Some(lowest) = regions.first().copied().filter(|region| region.start < self.lowmem_end) {
            self.end_low_ram(lowest)?;
        }
        if let Some(region) = regions.iter().copied().find(|region| region.overlaps(FOUR_GIB, self.highmem_end)) {
            return Err(PlanError::ReservedInHighRam { region, end: self.highmem_end });
        }
        let entry = |kind, from, to| E820Entry::range(kind, from, to);
        self.e820 =
            [entry(E820Kind::Ram, E820_LOW_START, self.lowmem_end), entry(E820Kind::Ram, FOUR_GIB, self.highmem_end)]
                .into_iter()
                .chain(regions.iter().map(|region| entry(E820Kind::Reserved, region.start, region.end())))
                .flatten()
                .collect();
        if vgpu {
            self.vram = Some(self.place_vram()?);
            self.e820.extend(self.vram.map(|addr| E820Entry { addr, size: VGPU_VRAM, kind: E820Kind::Reserved }));
        }
        self.e820.sort_unstable_by_key(|entry| entry.addr);
        if self.e820.len() > MAX_E820_ENTRIES {
            return Err(PlanError::TooManyRegions { entries: self.e820.len() });
        }
        Ok(self)
    }

    /// Low RAM ends for a region that begins in it. The MMIO hole begins where low RAM ends.
    fn end_low_ram(&mut self, region: Reserved) -> Result<(), PlanError> {
        let end = Bytes(region.start.get() / LOWMEM_STEP.get() * LOWMEM_STEP.get());
        if end < MIN_LOWMEM {
            return Err(PlanError::ReservedTooLow { region });
        }
        let ram = self.lowmem_end.checked_add(self.highmem()).and_then(Bytes::to_kib_exact).unwrap_or_default();
        self.mmio_size = FOUR_GIB.checked_sub(end).unwrap_or_default();
        (self.lowmem_end, self.highmem_end) = around(ram, self.mmio_size)?;
        self.mmio_start = end;
        Ok(())
    }

    /// The highest place in the MMIO hole that is free for a vGPU's video RAM.
    fn place_vram(&self) -> Result<Bytes, PlanError> {
        let mut start = VGPU_VRAM_START;
        loop {
            let place = Reserved { start, size: VGPU_VRAM };
            if start < self.mmio_start {
                return Err(PlanError::NoRoomForVram { hole: self.mmio_size });
            }
            if self.e820.iter().all(|entry| !place.overlaps(entry.addr, Bytes(entry.addr.get() + entry.size.get()))) {
                return Ok(start);
            }
            start = start.checked_sub(VGPU_VRAM).unwrap_or_default();
        }
    }
}

/// The regions in order of address, those that touch or overlap as one.
fn merged(reserved: &[Reserved]) -> Result<Vec<Reserved>, PlanError> {
    let whole = |size: Bytes| size.get().is_multiple_of(PAGE_SIZE);
    for region in reserved.iter().copied() {
        let beyond = region.start.checked_add(region.size).is_none();
        if region.size.is_zero() || beyond || !whole(region.start) || !whole(region.size) {
            return Err(PlanError::ReservedNotPages { region });
        }
    }
    let mut sorted = reserved.to_vec();
    sorted.sort_unstable();
    let mut out: Vec<Reserved> = Vec::new();
    for region in sorted {
        match out.last_mut().filter(|last| region.start <= last.end()) {
            Some(last) => {
                let end = last.end().max(region.end());
                last.size = end.checked_sub(last.start).unwrap_or_default();
            }
            None => out.push(region),
        }
    }
    Ok(out)
}
