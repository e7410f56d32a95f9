//! Draws one or more columns of blocks on one scale.

use super::sheet::{Anchor, Font, Sheet};
use super::style::Fill;
use crate::memory::units::Kib;
use crate::picture::stack::short;

/// The least height of a block, which fits its name.
pub(super) const MIN_BLOCK_HEIGHT: i32 = 26;
/// The least width of a block.
pub(super) const MIN_COLUMN_WIDTH: i32 = 200;
/// The distance from a line's middle to the baseline of its text.
pub(super) const BASELINE_OFFSET: i32 = 5;
/// The padding inside a block.
pub(super) const BLOCK_PADDING: i32 = 14;
/// The width of a bracket's ends.
pub(super) const TICK_WIDTH: i32 = 6;

/// The scale: proportional, but at least [`MIN_BLOCK_HEIGHT`] per block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    pixels: u128,
    kib: u128,
}

impl Scale {
    /// The largest scale at which no column exceeds `room`.
    pub(super) fn fitting(columns: &[Vec<Kib>], room: i32) -> Self {
        let scales = columns.iter().map(|column| Self::of(column, room));
        scales.reduce(|a, b| if a.pixels * b.kib <= b.pixels * a.kib { a } else { b }).unwrap_or(Self::of(&[], room))
    }

    /// Gives small blocks the least height, until the others fit the remaining room in proportion.
    fn of(column: &[Kib], room: i32) -> Self {
        let mut scale = Self { pixels: wide(room), kib: total(column.iter()) };
        loop {
            let (large, small): (Vec<&Kib>, Vec<&Kib>) = column.iter().partition(|size| scale.is_exact(**size));
            let small = i32::try_from(small.len()).unwrap_or(0);
            let next = Self { pixels: wide(room - small * MIN_BLOCK_HEIGHT), kib: total(large.into_iter()) };
            if next.kib == scale.kib {
                return next;
            }
            scale = next;
        }
    }

    /// Whether a size is drawn in proportion.
    pub(super) fn is_exact(self, size: Kib) -> bool {
        u128::from(size.get()) * self.pixels >= wide(MIN_BLOCK_HEIGHT) * self.kib
    }

    /// The height of a block; 0 for size 0.
    fn height(self, size: Kib) -> i32 {
        if size.is_zero() {
            return 0;
        }
        let exact = (u128::from(size.get()) * self.pixels).checked_div(self.kib).unwrap_or(0);
        i32::try_from(exact).unwrap_or(i32::MAX).max(MIN_BLOCK_HEIGHT)
    }

    /// The places of stacked blocks, from the top down.
    pub(super) fn places(self, mut top: i32, sizes: impl Iterator<Item = Kib>) -> Vec<Place> {
        sizes
            .map(|size| {
                let place = Place { top, bottom: top + self.height(size) };
                top = place.bottom;
                place
            })
            .collect()
    }

    /// A round size and its height of at most `most` pixels, for the legend.
    pub(super) fn unit(self, most: i32) -> (Kib, i32) {
        let pixels = |size: u64| u128::from(size) * self.pixels / self.kib.max(1);
        let size = (0..u64::BITS).map(|shift| 1_u64 << shift).take_while(|size| pixels(*size) <= wide(most)).last();
        let size = size.unwrap_or(1);
        (Kib(size), i32::try_from(pixels(size)).unwrap_or(most))
    }
}

fn wide(pixels: i32) -> u128 {
    u128::try_from(pixels).unwrap_or(0)
}

fn total<'a>(sizes: impl Iterator<Item = &'a Kib>) -> u128 {
    sizes.map(|size| u128::from(size.get())).sum()
}

/// A block to draw.
pub(super) struct Bar<'a> {
    pub(super) name: &'a str,
    pub(super) size: Kib,
    pub(super) fill: Fill,
    /// The tooltip.
    pub(super) words: &'a str,
}

/// The vertical range of one or several blocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) top: i32,
    pub(super) bottom: i32,
}

impl Place {
    /// The range from the first to the last of these places.
    pub(super) fn across(places: &[Self], first: usize, last: usize) -> Option<Self> {
        Some(Self { top: places.get(first)?.top, bottom: places.get(last)?.bottom })
    }

    /// The middle.
    pub(super) fn middle(self) -> i32 {
        i32::midpoint(self.top, self.bottom)
    }
}

/// The width at which each block fits its name and size.
pub(super) fn width<'a>(blocks: impl Iterator<Item = (&'a str, Kib)>) -> i32 {
    let widths =
        blocks.map(|(name, size)| Font::Name.width(name) + Font::Number.width(&short(size)) + 3 * BLOCK_PADDING);
    widths.max().unwrap_or(0).max(MIN_COLUMN_WIDTH)
}

/// Draws a block.
pub(super) fn draw(sheet: &mut Sheet, x: i32, width: i32, place: Place, bar: &Bar<'_>, scale: Scale) {
    let (middle, end) = (place.middle(), x + width);
    sheet.group(bar.words, |sheet| {
        sheet.rect(x, place.top, width, place.bottom - place.top, bar.fill);
        let fill = Some(bar.fill);
        sheet.text_over(fill, x + BLOCK_PADDING, middle + BASELINE_OFFSET, Font::Name, Anchor::Start, bar.name);
        sheet.text_over(
            fill,
            end - BLOCK_PADDING,
            middle + BASELINE_OFFSET,
            Font::Number,
            Anchor::End,
            &short(bar.size),
        );
        if !scale.is_exact(bar.size) {
            sheet.cut(x, middle);
            sheet.cut(end, middle);
        }
    });
}

/// Draws a bracket at `x`, with ends to the left (−1) or right (1).
pub(super) fn bracket(sheet: &mut Sheet, x: i32, place: Place, towards: i32) {
    // Adjacent brackets are one pixel apart.
    let (end, top, bottom) = (x + towards * TICK_WIDTH, place.top + 1, place.bottom - 1);
    sheet.path("bracket", &format!("M{end} {top}H{x}V{bottom}H{end}"));
}
