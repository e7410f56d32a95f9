//! Regions in which an HVM guest must have no RAM: the host's reserved regions for a PCI device, and one for a vGPU.
//!
//! A device may access memory that the host's firmware reserved for it (RMRR, IVMD), at the same addresses in the
//! guest. So low RAM ends below the lowest of these regions, and the rest moves above 4 GiB. The MMIO hole begins there
//! too: hvmloader and QEMU know only the hole.

use super::{E820_LOW_START, E820Entry, E820Kind, FOUR_GIB, HVMLOADER_RESERVED, Layout, around};
use crate::error::PlanError;
use crate::kind::Kind;
use crate::limits::{MAX_E820_ENTRIES, MIN_LOWMEM, VGPU_VRAM};
use crate::reserved::Reserved;
use crate::units::{Bytes, MIB, PAGE_SIZE};

/// Low RAM below a region ends at a multiple of this, for large pages and few MTRRs (as libxl's
/// `libxl__domain_device_construct_rdm`).
pub const LOWMEM_STEP: Bytes = Bytes(2 * MIB);
/// The highest address of that region: below hvmloader's own area and OVMF (XenServer's figure).
pub const VGPU_VRAM_START: Bytes = Bytes(0xfb00_0000);

impl Layout {
    /// Reserves these regions, in any order and possibly overlapping, and one for a vGPU if `vgpu` is set. Displaced
    /// RAM moves above 4 GiB.
    ///
    /// # Errors
    /// [`PlanError::ReservedNotHvm`] for another kind of guest; [`PlanError::ReservedNotPages`] for a region that is
    /// empty, not whole pages or beyond the address space; [`PlanError::ReservedTooLow`] for a region below 1 MiB, or
    /// one that leaves less low RAM than [`MIN_LOWMEM`]; [`PlanError::ReservedInFirmware`] for a region in the last 64
    /// MiB below 4 GiB, where hvmloader aborts (`memory_map_setup`, `tools/firmware/hvmloader/e820.c`) or Xen has its
    /// special pages; [`PlanError::ReservedInHighRam`] for a region in RAM above 4 GiB; [`PlanError::TooManyRegions`];
    /// [`PlanError::NoRoomForVram`]; [`PlanError::TooLarge`] if hvm_info cannot hold the end of high RAM.
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

    /// Ends low RAM, and begins the MMIO hole, below a region.
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

    /// The highest free address in the MMIO hole for a vGPU's video RAM.
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

/// The regions sorted by address; adjacent and overlapping ones are merged.
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
