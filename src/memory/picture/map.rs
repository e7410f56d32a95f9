//! The guest-physical address space, highest address at the top, not to scale.

use super::super::layout::{
    DEFAULT_MMIO_START, E820_LOW_START, FOUR_GIB, HVM_INFO, HVMLOADER_RESERVED, IO_APIC, IOREQ_SERVER_FIRST,
    IOREQ_SERVER_PAGES, LOCAL_APIC, Layout, SPECIAL_FIRST, SPECIAL_PAGE_NAMES, SPECIAL_PAGES, VGA_HOLE_END,
    VGA_HOLE_PAGES, VGA_HOLE_START,
};
use super::super::units::{Bytes, Gfn};
use super::canvas::Canvas;

/// Column at which everything begins.
const INDENT: usize = 1;
/// Columns between the sides of the drawing.
const INNER: usize = 20;

/// What a region of RAM is filled with, and any other.
const RAM: char = ' ';
const NOT_RAM: char = '·';

/// One stretch of addresses.
struct Region {
    /// Its first address.
    start: Bytes,
    /// What stands beside its lower border.
    mark: &'static str,
    name: &'static str,
    /// What is told about it, one line each.
    notes: Vec<String>,
    fill: char,
}

/// Draws the map.
pub(super) fn draw(layout: &Layout) -> String {
    let top = layout.highmem_end.max(FOUR_GIB);
    let addresses_end = INDENT + address(top).len();
    let box_x = addresses_end + 1;
    let side_x = box_x + INNER + 1;
    let bracket_x = side_x + 2;
    let notes_x = bracket_x + 3;

    let mut canvas = Canvas::default();
    let border = |canvas: &mut Canvas, y: usize, at: Bytes, mark: &str, sides: [char; 2]| {
        canvas.text_ending(addresses_end, y, &address(at));
        canvas.border(box_x, y, INNER, sides[0], sides[1]);
        canvas.text(notes_x, y, mark);
    };
    border(&mut canvas, 0, top, if top == FOUR_GIB { "4 GiB" } else { "highmem_end" }, ['┌', '┐']);
    let (mut y, mut hole_top, mut hole_bottom) = (0, 0, 0);
    for region in regions(layout) {
        let first = y + 1;
        y = first + region.notes.len();
        let middle = (first + y) / 2;
        for (row, note) in (first..y).zip(&region.notes) {
            canvas.text(box_x, row, "│");
            canvas.fill(box_x + 1, row, INNER, region.fill);
            canvas.text(side_x, row, "│");
            canvas.text(notes_x, row, note);
        }
        canvas.text(box_x + 1, middle, &format!(" {} ", region.name));
        let sides = if region.start.is_zero() { ['└', '┘'] } else { ['├', '┤'] };
        border(&mut canvas, y, region.start, region.mark, sides);
        if region.start == FOUR_GIB {
            hole_top = y;
        }
        if region.start == layout.mmio_start {
            hole_bottom = y;
        }
    }

    canvas.fill(bracket_x, hole_top, 1, '┐');
    for row in hole_top + 1..hole_bottom {
        canvas.fill(bracket_x, row, 1, '│');
    }
    // The hole's name is the last note of its lowest region.
    canvas.text(bracket_x, hole_bottom - 1, "├─");
    canvas.fill(bracket_x, hole_bottom, 1, '┘');
    canvas.finish()
}

/// The regions from the top down, each with at least one note.
fn regions(layout: &Layout) -> Vec<Region> {
    let full = layout.lowmem_end == layout.mmio_start;
    let low = layout.lowmem_end.checked_sub(E820_LOW_START).unwrap_or_default();
    let special_end = SPECIAL_FIRST.checked_add_pages(SPECIAL_PAGES).unwrap_or(SPECIAL_FIRST);
    let region = |start, mark, name, fill, notes| Region { start, mark, name, fill, notes };
    let one = |note: String| vec![note];

    let mut regions = Vec::new();
    if !layout.highmem_end.is_zero() {
        let note = format!("{}, the rest of the RAM", layout.highmem());
        regions.push(region(FOUR_GIB, "4 GiB", "high RAM", RAM, one(note)));
    }
    let note = "OVMF, where that is the firmware";
    regions.push(region(start_of(special_end), "", "flash", NOT_RAM, one(note.to_owned())));
    regions.push(region(start_of(SPECIAL_FIRST), "", "special pages", RAM, special_pages()));
    let note = format!("{IOREQ_SERVER_PAGES} from gfn {:x} on", IOREQ_SERVER_FIRST.get());
    regions.push(region(start_of(IOREQ_SERVER_FIRST), "", "ioreq server pages", RAM, one(note)));
    let notes = vec![
        format!("local APIC at {}", address(LOCAL_APIC)),
        format!("I/O APIC at {}", address(IO_APIC)),
        format!("ACPI tables from {} on", address(HVMLOADER_RESERVED)),
    ];
    regions.push(region(HVMLOADER_RESERVED, "", "chipset, hvmloader", NOT_RAM, notes));
    let notes =
        vec!["where hvmloader places their memory".to_owned(), format!("MMIO hole: {} below 4 GiB", layout.mmio_size)];
    let mark = if full { "mmio_start, lowmem_end" } else { "mmio_start" };
    regions.push(region(layout.mmio_start, mark, "PCI devices", NOT_RAM, notes));
    if !full {
        regions.push(region(layout.lowmem_end, "lowmem_end", "unused", NOT_RAM, one(String::new())));
    }
    regions.push(region(E820_LOW_START, "1 MiB", "low RAM", RAM, one(low.to_string())));
    let note = "256 KiB: option ROMs and BIOS";
    regions.push(region(VGA_HOLE_END, "768 KiB", "ROM area", RAM, one(note.to_owned())));
    let note = format!("{VGA_HOLE_PAGES} that the builder leaves out");
    regions.push(region(VGA_HOLE_START, "640 KiB", "VGA hole", NOT_RAM, one(note)));
    let note = format!("640 KiB; hvm_info is in gfn {:x}", HVM_INFO.get());
    regions.push(region(Bytes::ZERO, "", "low RAM", RAM, one(note)));
    regions
}

/// The special pages in two columns: frame and name.
fn special_pages() -> Vec<String> {
    let (first, second) = SPECIAL_PAGE_NAMES.split_at(SPECIAL_PAGE_NAMES.len() / 2);
    let cell = |(gfn, name): &(Gfn, &str)| format!("{:x} {name}", gfn.get());
    first.iter().zip(second).map(|(left, right)| format!("{:<18}   {}", cell(left), cell(right))).collect()
}

fn start_of(gfn: Gfn) -> Bytes {
    gfn.to_bytes().unwrap_or(DEFAULT_MMIO_START)
}

fn address(at: Bytes) -> String {
    format!("{:#x}", at.get())
}
