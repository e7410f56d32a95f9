//! Draws a [`Map`] in characters: the highest address at the top, not to scale.

use super::canvas::Canvas;
use super::regions::{Filling, Map, address};
use crate::memory::layout::FOUR_GIB;
use crate::memory::units::Bytes;

/// The first column.
const INDENT: usize = 1;
/// The inner width in columns.
const INNER_WIDTH: usize = 20;

/// Draws the map.
pub(super) fn draw(map: &Map) -> String {
    let addresses_end = INDENT + address(map.top).len();
    let box_x = addresses_end + 1;
    let side_x = box_x + INNER_WIDTH + 1;
    let bracket_x = side_x + 2;
    let notes_x = bracket_x + 3;

    let mut canvas = Canvas::default();
    let border = |canvas: &mut Canvas, y: usize, at: Bytes, mark: &str, sides: [char; 2]| {
        canvas.text_ending(addresses_end, y, &address(at));
        canvas.border(box_x, y, INNER_WIDTH, sides[0], sides[1]);
        canvas.text(notes_x, y, mark);
    };
    border(&mut canvas, 0, map.top, map.top_mark, ['┌', '┐']);
    let (mut y, mut hole_top, mut hole_bottom) = (0, 0, None);
    for region in &map.regions {
        let first = y + 1;
        y = first + region.notes.len();
        let middle = (first + y) / 2;
        let fill = match region.filling {
            Filling::Ram => ' ',
            Filling::Missing => '░',
            Filling::Nothing => '·',
        };
        for (row, note) in (first..y).zip(&region.notes) {
            canvas.text(box_x, row, "│");
            canvas.fill(box_x + 1, row, INNER_WIDTH, fill);
            canvas.text(side_x, row, "│");
            canvas.text(notes_x, row, note);
        }
        canvas.text(box_x + 1, middle, &format!(" {} ", region.name));
        let sides = if region.start.is_zero() { ['└', '┘'] } else { ['├', '┤'] };
        border(&mut canvas, y, region.start, region.mark, sides);
        if region.start == FOUR_GIB {
            hole_top = y;
        }
        if map.hole == Some(region.start) {
            hole_bottom = Some(y);
        }
    }

    if let Some(hole_bottom) = hole_bottom {
        canvas.fill(bracket_x, hole_top, 1, '┐');
        for row in hole_top + 1..hole_bottom {
            canvas.fill(bracket_x, row, 1, '│');
        }
        canvas.text(bracket_x, hole_bottom - 1, "├─");
        canvas.fill(bracket_x, hole_bottom, 1, '┘');
    }
    canvas.finish()
}
