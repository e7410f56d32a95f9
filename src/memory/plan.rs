//! A plan: the memory model and the layout of one domain, and the figures that Xen will report for it.

mod json;
mod pod;
#[cfg(test)]
mod tests;

pub use json::SCHEMA;
pub use pod::Pod;

use super::error::PlanError;
use super::kind::Kind;
use super::layout::{ACPI_PAGES, IOREQ_SERVER_PAGES, Layout, SPECIAL_PAGES, VGA_HOLE_PAGES};
use super::model::Memory;
use super::request::{MAX_STATIC_MAX, Request};
use super::units::{Bytes, Kib, Pages};

/// Pages that QEMU populates for the option ROM of its std VGA card.
///
/// 16 pages hold the 64 KiB that vgabios-stdvga.bin is rounded up to. Measured: 4112 pages for a card with 16 MiB (QEMU
/// 7.2 under Xen 4.17).
pub const VGA_ROM: Pages = Pages(16);

/// Everything that is decided before a domain is built.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// What was asked for.
    pub request: Request,
    /// The breakdown of its memory.
    pub memory: Memory,
    /// Where that memory stands in the guest.
    pub layout: Layout,
    /// How many vCPUs it has.
    pub vcpus: u32,
    /// Whether a QEMU will be there: only HVM guests have one.
    pub device_model: bool,
    /// The paging pool to set: a whole number of pages; 0 for a PV guest, which has none, whatever the model counts for it.
    pub paging_pool: Kib,
    /// Pages that Xen counts as the domain's when the build ends.
    pub owned_pages_built: Pages,
    /// Pages that Xen counts as the domain's once QEMU has added its video RAM and ROM, and before the guest is unpaused
    /// (hvmloader then adds a few more). A network card's ROM would come on top.
    pub owned_pages_running: Pages,
    /// Xen's limit for the domain, in pages: xen max.
    pub max_pages: Pages,
    /// What Xen will hold back of the memory, where the guest is populated on demand.
    pub pod: Option<Pod>,
}

impl Plan {
    /// The plan for a request.
    ///
    /// # Errors
    /// Where the request cannot be built: see [`PlanError`].
    pub fn new(request: &Request) -> Result<Self, PlanError> {
        let kind = request.kind;
        let memory = Memory::new(request)?;
        let layout = Layout::new(kind, memory.build_max, request.mmio_hole)?;
        let layout = layout.with_reserved(&request.reserved, request.vgpu)?;
        let device_model = request.has_device_model();
        // hvmloader places PCI memory in [mmio_start, 0xfc000000), each BAR aligned to its size: a card's memory finds its
        // place, and leaves some to other devices, exactly where the hole is at least twice as large.
        let video = memory.video.to_mib_exact().unwrap_or_default();
        if device_model && video.to_bytes() > Bytes(layout.mmio_size.get() / 2) {
            return Err(PlanError::VideoPastHole { video, hole: layout.mmio_size });
        }

        let too_large = || PlanError::TooLarge { what: "target", size: memory.target, limit: MAX_STATIC_MAX };
        let owned_pages_built = owned(kind, memory.build_start).ok_or_else(too_large)?;
        let owned_pages_running = if device_model && !video.is_zero() {
            let card = video.to_pages().checked_add(VGA_ROM);
            card.and_then(|card| owned_pages_built.checked_add(card)).ok_or_else(too_large)?
        } else {
            owned_pages_built
        };
        Ok(Self {
            request: request.clone(),
            vcpus: request.vcpus,
            device_model,
            paging_pool: if kind.is_translated() { memory.shadow } else { Kib::ZERO },
            owned_pages_built,
            owned_pages_running,
            max_pages: memory.xen_max.to_pages_floor(),
            pod: Pod::of(kind, &memory),
            memory,
            layout,
        })
    }

    /// How much of the memory below 4 GiB can be filled before the guest runs: all of it, or what is granted to populate on
    /// demand where that is less.
    #[must_use]
    pub fn low_memory_at_start(&self) -> Bytes {
        self.layout.lowmem_end.min(self.memory.build_start.to_bytes_saturating())
    }
}

/// Pages of a domain of which `build_start` was populated, with those that come on top; where that is no whole number of
/// pages, libxl leaves the rest out.
///
/// Populate on demand changes nothing here: pages waiting in the cache are owned too, and the cache is filled up to build
/// start less the VGA hole (`meminit_hvm`, tools/libs/guest/xg_dom_x86.c).
fn owned(kind: Kind, build_start: Kib) -> Option<Pages> {
    let populated = build_start.to_pages_floor();
    match kind {
        Kind::Hvm => populated.checked_sub(VGA_HOLE_PAGES)?.checked_add(SPECIAL_PAGES)?.checked_add(IOREQ_SERVER_PAGES),
        Kind::Pvh => populated.checked_add(SPECIAL_PAGES)?.checked_add(ACPI_PAGES),
        Kind::Pv => Some(populated),
    }
}
