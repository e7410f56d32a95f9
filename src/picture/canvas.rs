//! A canvas of characters, which grows on writes.

/// The lines; each character is one column wide.
#[derive(Default)]
pub(super) struct Canvas {
    lines: Vec<Vec<char>>,
}

impl Canvas {
    /// Writes `text` from column `x` of line `y`.
    pub(super) fn text(&mut self, x: usize, y: usize, text: &str) {
        if self.lines.len() <= y {
            self.lines.resize_with(y + 1, Vec::new);
        }
        let line = &mut self.lines[y];
        let end = x + text.chars().count();
        if line.len() < end {
            line.resize(end, ' ');
        }
        for (cell, c) in line.iter_mut().skip(x).zip(text.chars()) {
            *cell = c;
        }
    }

    /// Writes `text` to end before column `end`.
    pub(super) fn text_ending(&mut self, end: usize, y: usize, text: &str) {
        self.text(end.saturating_sub(text.chars().count()), y, text);
    }

    /// Fills `width` columns with one character.
    pub(super) fn fill(&mut self, x: usize, y: usize, width: usize, c: char) {
        self.text(x, y, &String::from_iter(std::iter::repeat_n(c, width)));
    }

    /// Draws a horizontal border of a box that is `inner` columns wide, with the corners `left` and `right`.
    pub(super) fn border(&mut self, x: usize, y: usize, inner: usize, left: char, right: char) {
        self.text(x, y, &format!("{left}{}{right}", "─".repeat(inner)));
    }

    /// Draws a leader from column `x` to before column `end`, across vertical lines.
    pub(super) fn leader(&mut self, x: usize, end: usize, y: usize) {
        for column in x..end {
            let crossed = self.lines.get(y).and_then(|line| line.get(column)).is_some_and(|c| *c == '│');
            self.text(column, y, if crossed { "┼" } else { "─" });
        }
    }

    /// Returns the lines without trailing spaces.
    pub(super) fn finish(self) -> String {
        let mut out = String::new();
        for line in self.lines {
            out.push_str(String::from_iter(line).trim_end());
            out.push('\n');
        }
        out
    }
}
