//! The plan of a domain: its memory breakdown and layout, and the page counts that Xen reports.

mod json;
mod pod;
#[cfg(test)]
mod tests;

pub use json::SCHEMA;
pub use pod::Pod;

use super::breakdown::Memory;
use super::error::PlanError;
use super::kind::Kind;
use super::layout::{ACPI_PAGES, IOREQ_SERVER_PAGES, Layout, SPECIAL_PAGES, VGA_HOLE_PAGES};
use super::limits::MAX_STATIC_MAX;
use super::request::Request;
use super::units::{Bytes, Kib, Pages};
use super::vnuma::{Vnuma, Whole};

/// Pages that QEMU populates for the option ROM of its std VGA card.
///
/// vgabios-stdvga.bin is rounded up to 64 KiB, which is 16 pages. Measured: 4112 pages for a card with 16 MiB (QEMU 7.2,
/// Xen 4.17).
pub const VGA_ROM: Pages = Pages(16);

/// The plan of a domain.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Plan {
    /// The request.
    pub request: Request,
    /// The breakdown of the memory.
    pub memory: Memory,
    /// The physical address space.
    pub layout: Layout,
    /// The number of vCPUs.
    pub vcpus: u32,
    /// Whether a QEMU serves the guest: HVM guests only.
    pub device_model: bool,
    /// The paging pool to set, in whole pages; 0 for a PV guest, which has none.
    pub paging_pool: Kib,
    /// The pages that the domain owns after the build (`tot_pages`).
    pub owned_pages_built: Pages,
    /// The pages that the domain owns once QEMU has added its video RAM and ROM, before the guest runs. hvmloader then
    /// adds a few pages; a network card's ROM adds more.
    pub owned_pages_running: Pages,
    /// The most pages that the domain may own (`max_pages`): xen max.
    pub max_pages: Pages,
    /// The PoD counts, if the guest is populated on demand.
    pub pod: Option<Pod>,
    /// The NUMA nodes that the guest sees, if it sees any.
    pub vnuma: Option<Vnuma>,
}

impl Plan {
    /// Plans a request.
    ///
    /// # Errors
    /// If the request cannot be built: see [`PlanError`].
    pub fn new(request: &Request) -> Result<Self, PlanError> {
        let kind = request.kind;
        let memory = Memory::new(request)?;
        let layout = Layout::new(kind, memory.build_max, request.mmio_hole)?;
        let layout = layout.with_reserved(&request.reserved, request.vgpu)?;
        let whole = Whole {
            kind,
            model: request.model,
            vcpus: request.vcpus,
            target: memory.target,
            static_max: memory.static_max,
            build_max: memory.build_max,
        };
        let vnuma = Vnuma::new(&request.vnodes, whole, &layout)?;
        let device_model = request.has_device_model();
        // hvmloader places PCI memory in [mmio_start, 0xfc000000) and aligns each BAR to its size. So a card's memory
        // fits, with room for other devices, exactly if the hole is at least twice as large.
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
            vnuma,
        })
    }

    /// The memory below 4 GiB that can be filled before the guest runs: all of it, or the PoD target if that is less.
    #[must_use]
    pub fn low_memory_at_start(&self) -> Bytes {
        self.layout.lowmem_end.min(self.memory.build_start.to_bytes_saturating())
    }
}

/// The pages that a domain owns after the build: `build_start` and the special pages. As libxl does, a partial page is
/// dropped.
///
/// Populate on demand does not change the count: the pages of the cache are owned, and the cache is filled up to build
/// start less the VGA hole (`meminit_hvm`, tools/libs/guest/xg_dom_x86.c).
fn owned(kind: Kind, build_start: Kib) -> Option<Pages> {
    let populated = build_start.to_pages_floor();
    match kind {
        Kind::Hvm => populated.checked_sub(VGA_HOLE_PAGES)?.checked_add(SPECIAL_PAGES)?.checked_add(IOREQ_SERVER_PAGES),
        Kind::Pvh => populated.checked_add(SPECIAL_PAGES)?.checked_add(ACPI_PAGES),
        Kind::Pv => Some(populated),
    }
}
