//! Draws a plan as an SVG document, for browsers and print.
//!
//! It has the content of the drawing for the terminal, with the blocks to scale as far as they stay legible.

mod column;
pub mod comparison;
mod sheet;
mod style;
#[cfg(test)]
mod tests;

use super::figures::figures;
use super::regions::{Filling, Map, Region, address};
use super::stack::{Block, Part, Stack, Sum, VIDEO, short};
use super::text::{ballooned, title};
use crate::memory::kind::Kind;
use crate::memory::layout::FOUR_GIB;
use crate::memory::plan::Plan;
use crate::memory::units::Kib;
use column::{BASELINE_OFFSET, BLOCK_PADDING, Bar, Place, Scale, TICK_WIDTH};
use sheet::{Anchor, Font, MARGIN, Sheet};
use style::Fill;

/// The baseline of the title, in pixels, as all that follow.
const TITLE_Y: i32 = 50;
/// The baseline of the headings below it.
const HEADING_Y: i32 = 94;
/// The top of the stack and of the map.
const COLUMNS_Y: i32 = 136;
/// The least height of both.
const MIN_SHEET_HEIGHT: i32 = 440;
/// The width of the map's regions.
const REGION_WIDTH: i32 = 178;
/// The size of the legend's rectangles.
const SWATCH_WIDTH: i32 = 28;
const SWATCH_HEIGHT: i32 = 16;
/// The distance between lines of text.
const LINE_HEIGHT: i32 = 16;
/// The distance between rows of a table.
const ROW_HEIGHT: i32 = 20;
/// The space between adjacent elements.
const GAP: i32 = 12;
/// The space between a bracket and its label.
const LABEL_GAP: i32 = 7;
/// The offset of a note's second column.
const NOTE_COLUMN: i32 = 128;

/// The sums on the left; they do not overlap.
const LEFT_SUMS: [&str; 2] = ["overhead", "static max"];
/// The sums on the right, from the inside out.
const RIGHT_SUMS: [&str; 5] = ["build start", "build max", "target", "xen max", "footprint"];

/// Draws a plan as a standalone SVG document.
///
/// It has no scripts and no external references. It follows the reader's preference of light or dark, and prints light.
#[must_use]
pub fn svg(plan: &Plan) -> String {
    let (stack, map) = (Stack::new(plan), Map::new(plan));
    let title = title(plan);
    let mut sheet = Sheet::default();

    let least: i32 = map.regions.iter().map(least_height).sum();
    let height = least.max(MIN_SHEET_HEIGHT);
    let scale = Scale::fitting(&[stack.blocks.iter().map(|block| block.size).collect()], height);
    let below = COLUMNS_Y + height + 84;

    let to_scale = "to scale, except the blocks whose sides are cut";
    heading(&mut sheet, MARGIN, HEADING_Y, "What its memory is made of", to_scale);
    draw_stack(&mut sheet, &stack, scale);
    draw_words(&mut sheet, &stack, below);

    let right = sheet.right() + 3 * GAP;
    let addresses = match plan.request.kind {
        Kind::Hvm | Kind::Pvh => "physical addresses, not to scale",
        Kind::Pv => "pseudo-physical addresses, not to scale",
    };
    heading(&mut sheet, right, HEADING_Y, "Where it stands in the guest", addresses);
    draw_map(&mut sheet, &map, right, height - least);
    draw_figures(&mut sheet, plan, right, below);
    draw_legend(&mut sheet, COLUMNS_Y + height + 34, scale);
    sheet.text(MARGIN, TITLE_Y, Font::Title, Anchor::Start, &title);
    sheet.finish(&title, &description(&stack))
}

/// Draws a heading with a remark below it.
fn heading(sheet: &mut Sheet, x: i32, y: i32, text: &str, remark: &str) {
    sheet.text(x, y, Font::Heading, Anchor::Start, text);
    sheet.text(x, y + 19, Font::Soft, Anchor::Start, remark);
}

/// The description for screen readers.
fn description(stack: &Stack) -> String {
    let blocks = stack.blocks.iter().map(|block| format!("{} {}", block.name, short(block.size)));
    let sums = stack.sums.iter().map(|sum| format!("{} {}", sum.name, short(sum.size)));
    let (blocks, sums) = (blocks.collect::<Vec<_>>().join(", "), sums.collect::<Vec<_>>().join(", "));
    format!(
        "Blocks of memory from the top down: {blocks}. Sums: {sums}. Beside them the guest's address space, below tables."
    )
}

fn fill_of(block: &Block) -> Fill {
    match block.part {
        Part::Overhead if block.name == VIDEO => Fill::Video,
        Part::Overhead => Fill::Overhead,
        Part::Held => Fill::Ram,
        Part::Missing => Fill::Missing,
    }
}

/// Draws the blocks and the brackets of the sums.
fn draw_stack(sheet: &mut Sheet, stack: &Stack, scale: Scale) {
    let label = |sum: &&Sum| Font::Name.width(sum.name).max(Font::Number.width(&short(sum.size)));
    let of = |names: &[&str]| -> Vec<&Sum> { names.iter().filter_map(|name| stack.sum(name)).collect() };
    let (left, right) = (of(&LEFT_SUMS), of(&RIGHT_SUMS));
    let line = MARGIN + left.iter().map(label).max().unwrap_or(0) + LABEL_GAP;
    let x = line + 2 * TICK_WIDTH + LABEL_GAP;

    let width = column::width(stack.blocks.iter().map(|block| (block.name, block.size)));
    let places = scale.places(COLUMNS_Y, stack.blocks.iter().map(|block| block.size));
    let place = |sum: &Sum| sum.span.and_then(|(first, last)| Place::across(&places, first, last));
    let step = right.iter().map(label).max().unwrap_or(0) + 3 * LABEL_GAP;
    let mut bracket = x + width + GAP - step;
    let brackets = right.into_iter().filter_map(|sum| {
        let place = place(sum)?;
        bracket += step;
        Some((bracket, sum, place))
    });
    let brackets: Vec<(i32, &Sum, Place)> = brackets.collect();
    // First, so that the labels cover them.
    for (end, _, at) in &brackets {
        for y in [at.top, at.bottom] {
            sheet.path("guide", &format!("M{} {y}H{end}", x + width));
        }
    }
    for (block, place) in stack.blocks.iter().zip(&places) {
        let bar = Bar { name: block.name, size: block.size, fill: fill_of(block), words: block.meaning };
        column::draw(sheet, x, width, *place, &bar, scale);
    }

    let guest = stack.blocks.iter().position(|block| block.part == Part::Held);
    let label = guest.and_then(|guest| places.get(guest)).map_or(COLUMNS_Y, |place| place.middle());
    for (x, sum, at) in brackets {
        column::bracket(sheet, x, at, -1);
        draw_sum(sheet, x + LABEL_GAP, label, Anchor::Start, sum);
    }
    let mut least = COLUMNS_Y;
    for (sum, at) in left.into_iter().filter_map(|sum| Some((sum, place(sum)?))) {
        column::bracket(sheet, line, at, 1);
        let y = at.middle().max(least);
        draw_sum(sheet, line - LABEL_GAP, y, Anchor::End, sum);
        least = y + 2 * LINE_HEIGHT + 2;
    }
}

/// Draws a sum's name with its size below and its meaning as a tooltip.
fn draw_sum(sheet: &mut Sheet, x: i32, y: i32, anchor: Anchor, sum: &Sum) {
    sheet.group(&sum.meaning, |sheet| draw_label(sheet, x, y, anchor, sum.name, sum.size));
}

/// Draws a name with its size below, around `y`.
fn draw_label(sheet: &mut Sheet, x: i32, y: i32, anchor: Anchor, name: &str, size: Kib) {
    sheet.text_over(None, x, y - 3, Font::Name, anchor, name);
    sheet.text_over(None, x, y - 3 + LINE_HEIGHT, Font::Number, anchor, &short(size));
}

/// The least height of a region: its notes and the marks at its borders.
fn least_height(region: &Region) -> i32 {
    lines(region) * LINE_HEIGHT + 22
}

fn lines(region: &Region) -> i32 {
    i32::try_from(region.notes.len()).unwrap_or(1)
}

/// Draws the address space, the highest address at the top; `more` pixels are divided among the regions.
fn draw_map(sheet: &mut Sheet, map: &Map, x: i32, more: i32) {
    let starts = map.regions.iter().map(|region| Font::Code.width(&address(region.start)));
    let line = x + starts.max().unwrap_or(0).max(Font::Code.width(&address(map.top))) + GAP;
    let hole = line + REGION_WIDTH + GAP;
    let notes = hole + GAP;
    let border = |sheet: &mut Sheet, y: i32, at: &str, mark: &str| {
        sheet.text(line - 8, y + 4, Font::Code, Anchor::End, at);
        if !mark.is_empty() {
            sheet.path("guide", &format!("M{} {y}H{}", line + REGION_WIDTH, notes - 3));
            sheet.text(notes, y + 4, Font::Code, Anchor::Start, mark);
        }
    };
    border(sheet, COLUMNS_Y, &address(map.top), map.top_mark);

    let count = i32::try_from(map.regions.len()).unwrap_or(1).max(1);
    let (mut y, mut hole_top) = (COLUMNS_Y, COLUMNS_Y);
    for (index, region) in (0..).zip(&map.regions) {
        let share = more / count + i32::from(index < more % count);
        let place = Place { top: y, bottom: y + least_height(region) + share };
        y = place.bottom;
        let fill = match region.filling {
            Filling::Ram => Fill::Ram,
            Filling::Missing => Fill::Missing,
            Filling::Nothing => Fill::Nothing,
        };
        sheet.rect(line, place.top, REGION_WIDTH, place.bottom - place.top, fill);
        sheet.text_over(
            Some(fill),
            line + BLOCK_PADDING,
            place.middle() + BASELINE_OFFSET,
            Font::Name,
            Anchor::Start,
            region.name,
        );
        border(sheet, y, &address(region.start), region.mark);

        let first = place.middle() + 4 - (lines(region) - 1) * LINE_HEIGHT / 2;
        for (row, note) in (0..).zip(&region.notes) {
            // Several spaces separate the columns of a note.
            let columns = note.split("  ").map(str::trim).filter(|column| !column.is_empty());
            for (column, text) in (0..).zip(columns) {
                sheet.text(notes + column * NOTE_COLUMN, first + row * LINE_HEIGHT, Font::Soft, Anchor::Start, text);
            }
        }
        if region.start == FOUR_GIB {
            hole_top = y;
        }
        if map.hole == Some(region.start) {
            column::bracket(sheet, hole, Place { top: hole_top, bottom: y }, -1);
        }
    }
}

/// Draws the explanation of the blocks and the sums.
fn draw_words(sheet: &mut Sheet, stack: &Stack, top: i32) {
    heading(sheet, MARGIN, top, "What the names mean", "");
    let blocks = stack.blocks.iter().map(|block| (block.name, block.size, block.meaning));
    let sums = stack.sums.iter().map(|sum| (sum.name, sum.size, sum.meaning.as_str()));
    let names = MARGIN + blocks.clone().chain(sums.clone()).map(|(name, ..)| Font::Name.width(name)).max().unwrap_or(0);
    let widths = blocks.clone().chain(sums.clone()).map(|(_, size, _)| Font::Number.width(&short(size)));
    let sizes = names + GAP + widths.max().unwrap_or(0);
    let mut y = top + 6;
    let mut row = |(name, size, words): (&str, _, &str), y: i32| {
        sheet.text(MARGIN, y, Font::Name, Anchor::Start, name);
        sheet.text(sizes, y, Font::Number, Anchor::End, &short(size));
        sheet.text(sizes + GAP, y, Font::Plain, Anchor::Start, words);
    };
    for block in blocks {
        y += ROW_HEIGHT;
        row(block, y);
    }
    y += ROW_HEIGHT / 2;
    for sum in sums {
        y += ROW_HEIGHT;
        row(sum, y);
    }
}

/// Draws the page counts that Xen will report, and the notes on a guest with a balloon.
fn draw_figures(sheet: &mut Sheet, plan: &Plan, x: i32, top: i32) {
    heading(sheet, x, top, "What Xen will report", "");
    let figures = figures(plan);
    let values = x + figures.iter().map(|figure| Font::Name.width(figure.name)).max().unwrap_or(0) + GAP;
    let values = values + figures.iter().map(|figure| Font::Number.width(&figure.value)).max().unwrap_or(0);
    let mut y = top + 6;
    for figure in figures {
        y += ROW_HEIGHT;
        sheet.text(x, y, Font::Name, Anchor::Start, figure.name);
        sheet.text(values, y, Font::Number, Anchor::End, &figure.value);
        sheet.text(values + GAP, y, Font::Plain, Anchor::Start, &figure.origin);
    }
    if plan.request.kind == Kind::Hvm {
        y += ROW_HEIGHT;
        sheet.text(x, y, Font::Soft, Anchor::Start, "hvmloader adds a few pages of its own later.");
    }
    y += ROW_HEIGHT / 2;
    for line in ballooned(plan).into_iter().flatten() {
        y += ROW_HEIGHT;
        sheet.text(x, y, Font::Plain, Anchor::Start, &line);
    }
}

/// Draws the legend of the fills and the scale.
fn draw_legend(sheet: &mut Sheet, y: i32, scale: Scale) {
    let mut x = MARGIN;
    for fill in sheet.fills().to_vec() {
        sheet.rect(x, y - SWATCH_HEIGHT / 2, SWATCH_WIDTH, SWATCH_HEIGHT, fill);
        sheet.text(x + SWATCH_WIDTH + 8, y + 4, Font::Soft, Anchor::Start, fill.meaning());
        x += SWATCH_WIDTH + 8 + Font::Soft.width(fill.meaning()) + 2 * GAP;
    }
    if sheet.has_cuts() {
        let cut = "cut: drawn higher than to scale";
        sheet.path("edge", &format!("M{} {}v{SWATCH_HEIGHT}", x + 8, y - SWATCH_HEIGHT / 2));
        sheet.cut(x + 8, y);
        sheet.text(x + 22, y + 4, Font::Soft, Anchor::Start, cut);
        x += 22 + Font::Soft.width(cut) + 2 * GAP;
    }
    let (size, pixels) = scale.unit(40);
    column::bracket(sheet, x + 6, Place { top: y - pixels / 2, bottom: y - pixels / 2 + pixels }, -1);
    sheet.text(x + 14, y + 4, Font::Soft, Anchor::Start, &format!("{} to scale", short(size)));
}
