//! The blocks that a domain's memory is made of, stacked, with brackets for the sums that have names.
//!
//! The order of the blocks is that of the drawings in xenops' `memory.ml` and Xen's `docs/misc/libxl_memory.txt`: every
//! named sum is a run of neighbours.

use super::super::model::Memory;
use super::super::units::Mib;
use super::canvas::Canvas;

/// Column at which everything begins.
const INDENT: usize = 1;
/// Columns from one bracket to the next.
const BRACKET_STEP: usize = 2;
/// Lines of the guest's block where there is no balloon below it.
const GUEST_ROWS: usize = 5;
/// Lines that the guest's and the balloon's block share, in proportion to their sizes.
const SHARED_ROWS: usize = 10;
/// Least lines of either of the two.
const LEAST_ROWS: usize = 3;

/// Order of the blocks above the domain's own memory.
const SHADOW: usize = 0;
const EXTRA_EXTERNAL: usize = 1;
const EXTRA_INTERNAL: usize = 2;
const FIRST_OWN: usize = 3;

struct Block {
    name: &'static str,
    size: String,
    /// Line of its upper border.
    top: usize,
    rows: usize,
    fill: char,
}

impl Block {
    /// Line of the border below it.
    fn bottom(&self) -> usize {
        self.top + self.rows + 1
    }

    /// Line in its middle.
    fn middle(&self) -> usize {
        self.row(0, 1)
    }

    /// Line of the `index`th of `count` labels that are spread over it.
    fn row(&self, index: usize, count: usize) -> usize {
        self.top + 1 + (2 * index + 1) * self.rows / (2 * count.max(1))
    }
}

/// A sum with a name: a run of blocks.
struct Bracket {
    name: &'static str,
    size: String,
    /// Line of its upper end.
    top: usize,
    /// Line of its lower end.
    bottom: usize,
    /// Line of its name.
    label: usize,
}

/// Draws the breakdown.
pub(super) fn draw(memory: &Memory) -> String {
    let blocks = blocks(memory);
    let left = left_brackets(memory, &blocks);
    let right = right_brackets(memory, &blocks);
    let left_width = left.iter().map(|b| b.name.len().max(b.size.len())).max().unwrap_or(0);
    let inner = blocks.iter().map(|b| b.name.len() + b.size.len()).max().unwrap_or(0) + 4;
    let names = right.iter().map(|b| b.name.len()).max().unwrap_or(0);
    let sizes = right.iter().map(|b| b.size.len()).max().unwrap_or(0);

    let mut canvas = Canvas::default();
    let left_end = INDENT + left_width;
    let left_x = left_end + 1;
    let box_x = left_x + 2;
    draw_blocks(&mut canvas, &blocks, box_x, inner);

    for bracket in &left {
        vertical(&mut canvas, left_x, bracket, ['┌', '┤', '└']);
        canvas.text_ending(left_end, bracket.label, bracket.name);
        canvas.text_ending(left_end, bracket.label + 1, &bracket.size);
    }
    // Where the overhead ends, the static max begins.
    if let [overhead, _] = &left[..] {
        canvas.text(left_x, overhead.bottom, "├");
    }

    let columns = || (box_x + inner + 3..).step_by(BRACKET_STEP);
    for (x, bracket) in columns().zip(&right) {
        vertical(&mut canvas, x, bracket, ['┐', '├', '┘']);
    }
    let labels_x = box_x + inner + 4 + right.len() * BRACKET_STEP;
    for (x, bracket) in columns().zip(&right) {
        canvas.leader(x + 1, labels_x - 1, bracket.label);
        canvas.text(labels_x, bracket.label, bracket.name);
        canvas.text_ending(labels_x + names + 2 + sizes, bracket.label, &bracket.size);
    }
    canvas.finish()
}

fn blocks(memory: &Memory) -> Vec<Block> {
    let (guest_rows, balloon_rows) = shared_rows(memory);
    let parts = [
        ("shadow", memory.shadow, 1, ' '),
        ("extra external", memory.extra_external, 1, ' '),
        ("extra internal", memory.extra_internal, 1, ' '),
        ("video", memory.video, 1, ' '),
        ("guest", memory.guest, guest_rows, ' '),
        ("balloon", memory.balloon, balloon_rows, '░'),
    ];
    let mut blocks: Vec<Block> = Vec::new();
    for (name, size, rows, fill) in parts.into_iter().filter(|(_, size, ..)| !size.is_zero()) {
        let top = blocks.last().map_or(0, Block::bottom);
        blocks.push(Block { name, size: size.to_string(), top, rows, fill });
    }
    blocks
}

/// Lines of the guest's and of the balloon's block.
fn shared_rows(memory: &Memory) -> (usize, usize) {
    if memory.balloon.is_zero() {
        return (GUEST_ROWS, 0);
    }
    let share = 10 * u64::from(memory.guest.get()) / u64::from(memory.build_max.get().max(1));
    let guest = usize::try_from(share).unwrap_or(SHARED_ROWS).clamp(LEAST_ROWS, SHARED_ROWS - LEAST_ROWS);
    (guest, SHARED_ROWS - guest)
}

/// Overhead, and below it static max: together the whole stack.
fn left_brackets(memory: &Memory, blocks: &[Block]) -> Vec<Bracket> {
    let (Some(overhead_end), Some(external), Some(last)) =
        (blocks.get(EXTRA_INTERNAL), blocks.get(EXTRA_EXTERNAL), blocks.last())
    else {
        return Vec::new();
    };
    let top = overhead_end.bottom();
    let middle = (top + last.bottom()) / 2;
    // The name stands beside a block, not beside a border.
    let middle = if blocks.iter().any(|block| block.top == middle) { middle - 1 } else { middle };
    vec![
        bracket("overhead", memory.overhead, (0, top), external.middle()),
        bracket("static max", memory.static_max, (top, last.bottom()), middle),
    ]
}

/// The brackets that overlap, from the innermost outwards, so that few leaders cross other brackets.
fn right_brackets(memory: &Memory, blocks: &[Block]) -> Vec<Bracket> {
    let (Some(shadow), Some(internal), Some(own), Some(last)) =
        (blocks.get(SHADOW), blocks.get(EXTRA_INTERNAL), blocks.get(FIRST_OWN), blocks.last())
    else {
        return Vec::new();
    };
    let has_balloon = !memory.balloon.is_zero();
    let Some(guest) = blocks.iter().find(|block| block.name == "guest") else { return Vec::new() };
    // What is not named at a block of its own is named at the guest's, from top to bottom.
    let in_guest = [(memory.video.is_zero(), "target"), (true, "build start"), (!has_balloon, "build max")];
    let in_guest: Vec<&str> = in_guest.into_iter().filter(|(there, _)| *there).map(|(_, name)| name).collect();
    let label = |name: &str, otherwise: &Block| {
        let index = in_guest.iter().position(|other| *other == name);
        index.map_or(otherwise.middle(), |index| guest.row(index, in_guest.len()))
    };
    vec![
        bracket("build start", memory.build_start, (guest.top, guest.bottom()), label("build start", guest)),
        bracket("build max", memory.build_max, (guest.top, last.bottom()), label("build max", last)),
        bracket("target", memory.target, (own.top, guest.bottom()), label("target", own)),
        bracket("footprint", memory.footprint, (shadow.top, guest.bottom()), shadow.middle()),
        bracket("xen max", memory.xen_max, (internal.top, last.bottom()), internal.middle()),
    ]
}

fn bracket(name: &'static str, size: Mib, (top, bottom): (usize, usize), label: usize) -> Bracket {
    Bracket { name, size: size.to_string(), top, bottom, label }
}

fn draw_blocks(canvas: &mut Canvas, blocks: &[Block], x: usize, inner: usize) {
    let (content, side) = (x + 1, x + inner + 1);
    for block in blocks {
        let (left, right) = if block.top == 0 { ('┌', '┐') } else { ('├', '┤') };
        canvas.border(x, block.top, inner, left, right);
        for y in block.top + 1..block.bottom() {
            canvas.text(x, y, "│");
            canvas.fill(content, y, inner, if y == block.middle() { ' ' } else { block.fill });
            canvas.text(side, y, "│");
        }
        canvas.text(content + 1, block.middle(), block.name);
        canvas.text_ending(side - 1, block.middle(), &block.size);
    }
    if let Some(last) = blocks.last() {
        canvas.border(x, last.bottom(), inner, '└', '┘');
    }
}

/// Draws a bracket's line with its upper end, its tick and its lower end.
fn vertical(canvas: &mut Canvas, x: usize, bracket: &Bracket, [upper, tick, lower]: [char; 3]) {
    for y in bracket.top..=bracket.bottom {
        canvas.fill(x, y, 1, '│');
    }
    canvas.fill(x, bracket.top, 1, upper);
    canvas.fill(x, bracket.label, 1, tick);
    canvas.fill(x, bracket.bottom, 1, lower);
}
