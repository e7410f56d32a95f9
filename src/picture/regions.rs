//! The guest-physical address space as data for a drawing: regions with notes.

use crate::memory::kind::Kind;
use crate::memory::layout::{
    ACPI_PAGES, ACPI_START, E820_LOW_START, E820Entry, E820Kind, FIRST_IOREQ_SERVER_PAGE, FIRST_SPECIAL_PAGE, FOUR_GIB,
    HVM_INFO, HVMLOADER_RESERVED, IO_APIC, IOREQ_SERVER_PAGES, LOCAL_APIC, Layout, SPECIAL_PAGE_NAMES, SPECIAL_PAGES,
    VGA_HOLE_END, VGA_HOLE_PAGES, VGA_HOLE_START,
};
use crate::memory::plan::Plan;
use crate::memory::units::{Bytes, Gfn};
use crate::memory::vnuma::{VnodeRange, Vnuma};

/// A region; it ends where the one above it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Region {
    /// The first address.
    pub(super) start: Bytes,
    /// The name of that address, or "".
    pub(super) mark: &'static str,
    /// The name of the region.
    pub(super) name: &'static str,
    /// The notes, at least one line.
    pub(super) notes: Vec<String>,
    /// The memory in the region when the guest is built.
    pub(super) filling: Filling,
}

/// The memory in a region when the guest is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Filling {
    /// RAM, populated or PoD.
    Ram,
    /// Frames that a PV guest may populate later.
    Missing,
    /// No memory.
    Nothing,
}

/// The address space of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Map {
    /// The end.
    pub(super) top: Bytes,
    /// The name of the end.
    pub(super) top_mark: &'static str,
    /// From the top down, without gaps.
    pub(super) regions: Vec<Region>,
    /// The start of the MMIO hole, which ends at 4 GiB. Its name is the last note of the region that begins there.
    pub(super) hole: Option<Bytes>,
}

impl Map {
    /// The address space of a plan.
    pub(super) fn new(plan: &Plan) -> Self {
        let layout = &plan.layout;
        if layout.kind == Kind::Pv {
            return Self { top: layout.lowmem_end, top_mark: "static max", regions: pv(plan), hole: None };
        }
        let (top, top_mark) =
            if layout.highmem_end.is_zero() { (FOUR_GIB, "4 GiB") } else { (layout.highmem_end, "highmem_end") };
        let mut regions = Vec::new();
        if !layout.highmem_end.is_zero() {
            let note = format!("{}, the rest of the RAM", layout.highmem());
            regions.push(region(FOUR_GIB, "4 GiB", "high RAM", Filling::Ram, [note]));
        }
        regions.extend(if layout.kind == Kind::Hvm { hvm(layout) } else { pvh(layout) });
        let mut map = Self { top, top_mark, regions, hole: Some(layout.mmio_start) };
        if layout.kind == Kind::Hvm {
            map.put_in_reserved(layout);
        }
        if let Some(vnuma) = &plan.vnuma {
            map.put_in_nodes(vnuma);
        }
        map
    }
}

impl Map {
    /// Divides the RAM above 1 MiB by the NUMA nodes that the guest sees.
    fn put_in_nodes(&mut self, vnuma: &Vnuma) {
        let mut top = self.top;
        let mut regions = Vec::new();
        for whole in std::mem::take(&mut self.regions) {
            let bottom = whole.start;
            let is_ram = whole.name.ends_with(" RAM") && (bottom >= E820_LOW_START || top > E820_LOW_START);
            let inside: Vec<&VnodeRange> =
                vnuma.ranges.iter().rev().filter(|range| is_ram && range.start < top && range.end > bottom).collect();
            let mut whole = Some(whole);
            for range in &inside {
                let size = Bytes(range.end.get().saturating_sub(range.start.max(bottom).get()));
                let note = format!("virtual node {}, of the host's node {}", range.vnode, range.pnode);
                if range.start > bottom {
                    regions.push(region(range.start, "", "RAM", Filling::Ram, [size.to_string(), note]));
                } else if let Some(mut lowest) = whole.take() {
                    if inside.len() > 1 {
                        lowest.notes = vec![size.to_string()];
                    }
                    lowest.notes.push(note);
                    regions.push(lowest);
                }
            }
            regions.extend(whole);
            top = bottom;
        }
        self.regions = regions;
    }
}

impl Map {
    /// Adds the reserved regions of an HVM guest.
    fn put_in_reserved(&mut self, layout: &Layout) {
        let end = |entry: &E820Entry| Bytes(entry.addr.get().saturating_add(entry.size.get()));
        let reserved: Vec<&E820Entry> =
            layout.e820.iter().rev().filter(|entry| entry.kind == E820Kind::Reserved).collect();
        if let Some(highest) = reserved.first().filter(|entry| end(entry) > self.top) {
            let above = region(self.top, self.top_mark, "unused", Filling::Nothing, [String::new()]);
            self.regions.insert(0, above);
            (self.top, self.top_mark) = (end(highest), "");
        }
        let mut top = self.top;
        let mut regions = Vec::new();
        for whole in std::mem::take(&mut self.regions) {
            let (bottom, mut above) = (whole.start, top);
            let mut pieces: Vec<Region> = Vec::new();
            for entry in &reserved {
                let (from, to) = (entry.addr.max(bottom), end(entry).min(top));
                if from >= to {
                    continue;
                }
                if to < above {
                    pieces.push(Region { start: to, mark: "", notes: vec![String::new()], ..whole.clone() });
                }
                let what =
                    if layout.vram == Some(entry.addr) { "for a vGPU's memory" } else { "the host's, for a device" };
                let note = format!("{}, {what}", entry.size);
                pieces.push(region(from, "", "reserved", Filling::Nothing, [note]));
                above = from;
            }
            top = bottom;
            if above > bottom {
                pieces.push(whole);
            } else if let Some(lowest) = pieces.pop() {
                // The lower part keeps the region's mark, and the hole's name if the hole begins here.
                let mut whole_notes = whole.notes;
                let name = whole_notes.pop().filter(|_| self.hole == Some(bottom));
                let notes = lowest.notes.into_iter().chain(name).collect();
                if let Some(above) =
                    pieces.last_mut().filter(|piece| piece.name == whole.name && !whole_notes.is_empty())
                {
                    above.notes = whole_notes;
                }
                pieces.push(Region { mark: whole.mark, notes, ..lowest });
            }
            regions.extend(pieces);
        }
        self.regions = regions;
    }
}

fn region<const N: usize>(
    start: Bytes,
    mark: &'static str,
    name: &'static str,
    filling: Filling,
    notes: [String; N],
) -> Region {
    Region { start, mark, name, notes: notes.to_vec(), filling }
}

/// An HVM guest's regions below 4 GiB.
fn hvm(layout: &Layout) -> Vec<Region> {
    let note = "OVMF, where that is the firmware".to_owned();
    let mut regions = vec![region(start_of(special_end()), "", "flash", Filling::Nothing, [note])];
    regions.push(special_pages());
    let note = format!("{IOREQ_SERVER_PAGES} from gfn {:x} on", FIRST_IOREQ_SERVER_PAGE.get());
    regions.push(region(start_of(FIRST_IOREQ_SERVER_PAGE), "", "ioreq server pages", Filling::Ram, [note]));
    let notes = [
        format!("local APIC at {}", address(LOCAL_APIC)),
        format!("I/O APIC at {}", address(IO_APIC)),
        format!("ACPI tables from {} on", address(HVMLOADER_RESERVED)),
    ];
    regions.push(region(HVMLOADER_RESERVED, "", "chipset, hvmloader", Filling::Nothing, notes));
    let notes = ["where hvmloader places their memory".to_owned(), hole(layout)];
    regions.push(region(layout.mmio_start, hole_mark(layout), "PCI devices", Filling::Nothing, notes));
    regions.extend(unused(layout));
    let low = layout.lowmem_end.checked_sub(E820_LOW_START).unwrap_or_default();
    regions.push(region(E820_LOW_START, "1 MiB", "low RAM", Filling::Ram, [low.to_string()]));
    let note = "256 KiB: option ROMs and BIOS".to_owned();
    regions.push(region(VGA_HOLE_END, "768 KiB", "ROM area", Filling::Ram, [note]));
    let note = format!("{VGA_HOLE_PAGES} that the builder leaves out");
    regions.push(region(VGA_HOLE_START, "640 KiB", "VGA hole", Filling::Nothing, [note]));
    let note = format!("640 KiB; hvm_info is in gfn {:x}", HVM_INFO.get());
    regions.push(region(Bytes::ZERO, "", "low RAM", Filling::Ram, [note]));
    regions
}

/// A PVH guest's regions below 4 GiB.
fn pvh(layout: &Layout) -> Vec<Region> {
    let acpi_end = ACPI_PAGES.to_bytes().and_then(|length| ACPI_START.checked_add(length)).unwrap_or(ACPI_START);
    let mut regions = vec![region(start_of(special_end()), "", "nothing", Filling::Nothing, [String::new()])];
    regions.push(special_pages());
    let note = format!("local APIC at {}", address(LOCAL_APIC));
    regions.push(region(acpi_end, "", "chipset", Filling::Nothing, [note]));
    let notes = [ACPI_PAGES.to_string(), hole(layout)];
    regions.push(region(ACPI_START, hole_mark(layout), "ACPI tables", Filling::Ram, notes));
    regions.extend(unused(layout));
    regions.push(region(Bytes::ZERO, "", "low RAM", Filling::Ram, [layout.lowmem_end.to_string()]));
    regions
}

/// A PV guest's pseudo-physical memory.
fn pv(plan: &Plan) -> Vec<Region> {
    let memory = &plan.memory;
    let mut regions = Vec::new();
    if !memory.balloon.is_zero() {
        let note = format!("{}, not held to begin with", memory.balloon);
        let start = memory.build_start.to_bytes_saturating();
        regions.push(region(start, "build start", "balloon", Filling::Missing, [note]));
    }
    let notes = [memory.build_start.to_string(), "kernel, page tables and rings".to_owned()];
    regions.push(region(Bytes::ZERO, "", "RAM", Filling::Ram, notes));
    regions
}

fn hole(layout: &Layout) -> String {
    format!("MMIO hole: {} below 4 GiB", layout.mmio_size)
}

fn hole_mark(layout: &Layout) -> &'static str {
    if layout.lowmem_end == layout.mmio_start { "mmio_start, lowmem_end" } else { "mmio_start" }
}

/// The unused addresses between low RAM and the hole.
fn unused(layout: &Layout) -> Option<Region> {
    let unused = || region(layout.lowmem_end, "lowmem_end", "unused", Filling::Nothing, [String::new()]);
    (layout.lowmem_end != layout.mmio_start).then(unused)
}

/// The special pages, listed in two columns: frame and name.
fn special_pages() -> Region {
    let (first, second) = SPECIAL_PAGE_NAMES.split_at(SPECIAL_PAGE_NAMES.len() / 2);
    let cell = |(gfn, name): &(Gfn, &str)| format!("{:x} {name}", gfn.get());
    let notes = first.iter().zip(second).map(|(left, right)| format!("{:<18}   {}", cell(left), cell(right))).collect();
    Region { start: start_of(FIRST_SPECIAL_PAGE), mark: "", name: "special pages", notes, filling: Filling::Ram }
}

fn special_end() -> Gfn {
    FIRST_SPECIAL_PAGE.checked_add_pages(SPECIAL_PAGES).unwrap_or(FIRST_SPECIAL_PAGE)
}

/// The address of a frame, which is below 4 GiB.
fn start_of(gfn: Gfn) -> Bytes {
    gfn.to_bytes().unwrap_or(FOUR_GIB)
}

/// An address in the drawing's format.
pub(super) fn address(at: Bytes) -> String {
    format!("{:#x}", at.get())
}
