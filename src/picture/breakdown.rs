//! Draws the blocks of a [`Stack`] in characters, with brackets for its sums.

use super::canvas::Canvas;
use super::stack::{Block, Part, Stack, Sum, short};
use crate::memory::units::Kib;

/// The first column.
const INDENT: usize = 1;
/// Columns between brackets.
const BRACKET_STEP: usize = 2;
/// The height of the guest's block if there is no balloon, in lines.
const GUEST_ROWS: usize = 5;
/// The lines that the guest's and the balloon's block share, in proportion to their sizes.
const SHARED_ROWS: usize = 10;
/// The least lines of either block.
const MIN_ROWS: usize = 3;

/// The sums on the left; they do not overlap.
const LEFT_SUMS: [&str; 2] = ["overhead", "static max"];
/// The sums on the right, from the inside out, so that few leaders cross brackets. Each is labelled at an end block, if
/// that is not the guest's.
const RIGHT_SUMS: [(&str, End); 5] = [
    ("build start", End::Last),
    ("build max", End::Last),
    ("target", End::First),
    ("footprint", End::First),
    ("xen max", End::First),
];
/// The order of the labels at the guest's block, from the top.
const GUEST_LABELS: [&str; 5] = ["footprint", "target", "build start", "build max", "xen max"];

#[derive(Clone, Copy)]
enum End {
    First,
    Last,
}

/// A block and its lines.
struct Shape<'a> {
    block: &'a Block,
    /// The line of the upper border.
    top: usize,
    rows: usize,
}

impl Shape<'_> {
    /// The line of the lower border.
    fn bottom(&self) -> usize {
        self.top + self.rows + 1
    }

    /// The middle line.
    fn middle(&self) -> usize {
        self.row(0, 1)
    }

    /// The line of the label `index` of `count`, which are spread over the block.
    fn row(&self, index: usize, count: usize) -> usize {
        self.top + 1 + (2 * index + 1) * self.rows / (2 * count.max(1))
    }
}

/// A sum and its lines.
struct Bracket<'a> {
    name: &'a str,
    size: String,
    /// The line of the upper end.
    top: usize,
    /// The line of the lower end.
    bottom: usize,
    /// The line of the label.
    label: usize,
}

/// Draws the breakdown.
pub(super) fn draw(stack: &Stack) -> String {
    let shapes = shapes(&stack.blocks);
    let left = left_brackets(stack, &shapes);
    let right = right_brackets(stack, &shapes);
    let left_width = left.iter().map(|b| b.name.len().max(b.size.len())).max().unwrap_or(0);
    let inner = stack.blocks.iter().map(|b| b.name.len() + short(b.size).len()).max().unwrap_or(0) + 4;
    let names = right.iter().map(|b| b.name.len()).max().unwrap_or(0);
    let sizes = right.iter().map(|b| b.size.len()).max().unwrap_or(0);

    let mut canvas = Canvas::default();
    let left_end = INDENT + left_width;
    let left_x = left_end + 1;
    let box_x = left_x + 2;
    draw_blocks(&mut canvas, &shapes, box_x, inner);

    for bracket in &left {
        vertical(&mut canvas, left_x, bracket, ['┌', '┤', '└']);
        canvas.text_ending(left_end, bracket.label, bracket.name);
        canvas.text_ending(left_end, bracket.label + 1, &bracket.size);
    }
    // Each begins where the previous one ends.
    for pair in left.windows(2) {
        if let [above, below] = pair
            && above.bottom == below.top
        {
            canvas.text(left_x, above.bottom, "├");
        }
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

fn shapes(blocks: &[Block]) -> Vec<Shape<'_>> {
    let size_of = |part| blocks.iter().find(|block| block.part == part).map_or(Kib::ZERO, |block| block.size);
    let (held_rows, missing_rows) = shared_rows(size_of(Part::Held), size_of(Part::Missing));
    let mut shapes: Vec<Shape<'_>> = Vec::new();
    for block in blocks {
        let rows = match block.part {
            Part::Overhead => 1,
            Part::Held => held_rows,
            Part::Missing => missing_rows,
        };
        let top = shapes.last().map_or(0, Shape::bottom);
        shapes.push(Shape { block, top, rows });
    }
    shapes
}

/// The lines of the guest's and the balloon's block.
fn shared_rows(held: Kib, missing: Kib) -> (usize, usize) {
    if missing.is_zero() {
        return (GUEST_ROWS, 0);
    }
    let all = u128::from(held.get()) + u128::from(missing.get());
    let share = 10 * u128::from(held.get()) / all.max(1);
    let held = usize::try_from(share).unwrap_or(SHARED_ROWS).clamp(MIN_ROWS, SHARED_ROWS - MIN_ROWS);
    (held, SHARED_ROWS - held)
}

/// The first and the last block of a sum.
fn ends<'a, 'b>(sum: &Sum, shapes: &'b [Shape<'a>]) -> Option<(&'b Shape<'a>, &'b Shape<'a>)> {
    let (first, last) = sum.span?;
    Some((shapes.get(first)?, shapes.get(last)?))
}

/// The brackets of overhead and static max, which together span the stack.
fn left_brackets<'a>(stack: &'a Stack, shapes: &[Shape<'_>]) -> Vec<Bracket<'a>> {
    let bracket = |name| {
        let sum = stack.sum(name)?;
        let (first, last) = ends(sum, shapes)?;
        let (top, bottom) = (first.top, last.bottom());
        let middle = (top + bottom) / 2;
        // The label is at a block, not at a border.
        let label = if shapes.iter().any(|shape| shape.top == middle) { middle - 1 } else { middle };
        Some(Bracket { name: sum.name, size: short(sum.size), top, bottom, label })
    };
    LEFT_SUMS.into_iter().filter_map(bracket).collect()
}

fn right_brackets<'a>(stack: &'a Stack, shapes: &[Shape<'_>]) -> Vec<Bracket<'a>> {
    let placed: Vec<(&Sum, &Shape<'_>, usize, usize)> = RIGHT_SUMS
        .into_iter()
        .filter_map(|(name, end)| {
            let sum = stack.sum(name)?;
            let (first, last) = ends(sum, shapes)?;
            let at = match end {
                End::First => first,
                End::Last => last,
            };
            Some((sum, at, first.top, last.bottom()))
        })
        .collect();
    // Labels without a block of their own share the guest's.
    let is_guest = |shape: &Shape<'_>| shape.block.part == Part::Held;
    let at_guest: Vec<&str> = GUEST_LABELS
        .into_iter()
        .filter(|name| placed.iter().any(|(sum, at, ..)| sum.name == *name && is_guest(at)))
        .collect();
    placed
        .into_iter()
        .map(|(sum, at, top, bottom)| {
            let index = at_guest.iter().position(|name| *name == sum.name);
            let label = index.map_or(at.middle(), |index| at.row(index, at_guest.len()));
            Bracket { name: sum.name, size: short(sum.size), top, bottom, label }
        })
        .collect()
}

fn draw_blocks(canvas: &mut Canvas, shapes: &[Shape<'_>], x: usize, inner: usize) {
    let (content, side) = (x + 1, x + inner + 1);
    for shape in shapes {
        let fill = if shape.block.part == Part::Missing { '░' } else { ' ' };
        let (left, right) = if shape.top == 0 { ('┌', '┐') } else { ('├', '┤') };
        canvas.border(x, shape.top, inner, left, right);
        for y in shape.top + 1..shape.bottom() {
            canvas.text(x, y, "│");
            canvas.fill(content, y, inner, if y == shape.middle() { ' ' } else { fill });
            canvas.text(side, y, "│");
        }
        canvas.text(content + 1, shape.middle(), shape.block.name);
        canvas.text_ending(side - 1, shape.middle(), &short(shape.block.size));
    }
    if let Some(last) = shapes.last() {
        canvas.border(x, last.bottom(), inner, '└', '┘');
    }
}

/// Draws a bracket: the line, its upper end, its tick and its lower end.
fn vertical(canvas: &mut Canvas, x: usize, bracket: &Bracket<'_>, [upper, tick, lower]: [char; 3]) {
    for y in bracket.top..=bracket.bottom {
        canvas.fill(x, y, 1, '│');
    }
    canvas.fill(x, bracket.top, 1, upper);
    canvas.fill(x, bracket.label, 1, tick);
    canvas.fill(x, bracket.bottom, 1, lower);
}
