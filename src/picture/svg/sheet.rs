//! An SVG canvas: a few kinds of elements, escaped, and the extent of the drawing.
//!
//! Coordinates are whole pixels. Text widths are those of DejaVu Sans, which is wider than most systems' fonts, so that
//! the text fits anywhere.

use std::fmt::Write;

use super::style::{Fill, defs, style};

/// The margin.
pub(super) const MARGIN: i32 = 32;

/// The style of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Font {
    /// The title of the drawing.
    Title,
    /// A heading of a part.
    Heading,
    /// A name.
    Name,
    /// A size or a number, with digits of equal width.
    Number,
    /// Ordinary text.
    Plain,
    /// Less prominent text.
    Soft,
    /// An address.
    Code,
}

impl Font {
    /// The class and the size in pixels.
    pub(super) const fn class(self) -> (&'static str, i32) {
        match self {
            Self::Title => ("title", 22),
            Self::Heading => ("heading", 16),
            Self::Name => ("name", 13),
            Self::Number => ("number", 13),
            Self::Plain => ("plain", 13),
            Self::Soft => ("soft", 12),
            Self::Code => ("code", 12),
        }
    }

    /// The largest width of a text in pixels.
    pub(super) fn width(self, text: &str) -> i32 {
        let per_mille = |c| match self {
            Self::Code => 620,
            Self::Title | Self::Heading | Self::Name => advance(c) * 113 / 100,
            Self::Number | Self::Plain | Self::Soft => advance(c),
        };
        let sum: i32 = text.chars().map(per_mille).fold(0, i32::saturating_add);
        sum.saturating_mul(self.class().1) / 1000 + 1
    }

    /// The part of a text that fits into `room`.
    pub(super) fn fit(self, text: &str, room: i32) -> String {
        let mut text = clean(text).trim().to_owned();
        if self.width(&text) > room {
            while !text.is_empty() && self.width(&text) + self.width("…") > room {
                text.pop();
            }
            text.push('…');
        }
        text
    }

    /// Wraps a text at words into lines of at most `room`.
    pub(super) fn wrap(self, text: &str, room: i32) -> Vec<String> {
        let mut lines: Vec<String> = Vec::new();
        for word in text.split_whitespace() {
            match lines.last_mut() {
                Some(line) if self.width(line) + self.width(" ") + self.width(word) <= room => {
                    line.push(' ');
                    line.push_str(word);
                }
                _ => lines.push(word.to_owned()),
            }
        }
        lines
    }
}

/// The width of a character in thousandths of the font size; at least that of the widest of its kind.
fn advance(c: char) -> i32 {
    match c {
        ' ' | '·' | 'i' | 'j' | 'l' | 'I' | '.' | ',' | '\'' | '|' | ':' | ';' => 340,
        'f' | 't' | 'r' | '(' | ')' | '[' | ']' | '/' | '-' | '!' => 420,
        'm' | 'w' | 'M' | 'W' | '%' | '@' | '…' => 1000,
        '+' | '−' | '×' | '=' | '<' | '>' | '≠' | '&' => 840,
        'c' | 's' | 'z' => 560,
        'a' | 'e' | 'k' | 'o' | 'v' | 'x' | 'y' => 620,
        '0'..='9' | 'a'..='z' => 640,
        '!'..='~' => 790,
        _ => 1400,
    }
}

/// The alignment of a text to its position.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Anchor {
    Start,
    End,
}

/// The drawing so far.
#[derive(Default)]
pub(super) struct Sheet {
    body: String,
    right: i32,
    bottom: i32,
    fills: Vec<Fill>,
    has_cuts: bool,
}

impl Sheet {
    /// Writes one line of text, whose baseline begins or ends at a position.
    pub(super) fn text(&mut self, x: i32, y: i32, font: Font, anchor: Anchor, text: &str) {
        self.write("", x, y, font, anchor, text);
    }

    /// Writes text over lines or a pattern, with a margin of the background around it.
    pub(super) fn text_over(&mut self, fill: Option<Fill>, x: i32, y: i32, font: Font, anchor: Anchor, text: &str) {
        let over = fill.map_or_else(|| " over".to_owned(), |fill| format!(" over {}", fill.name()));
        self.write(&over, x, y, font, anchor, text);
    }

    fn write(&mut self, over: &str, x: i32, y: i32, font: Font, anchor: Anchor, text: &str) {
        if text.is_empty() {
            return;
        }
        let class = font.class().0;
        let (end, right) = match anchor {
            Anchor::Start => ("", x.saturating_add(font.width(text))),
            Anchor::End => (r#" text-anchor="end""#, x),
        };
        self.reach(right, y);
        self.add(format_args!(r#"<text class="{class}{over}" x="{x}" y="{y}"{end}>{}</text>"#, escape(text)));
    }

    /// Draws a filled rectangle.
    pub(super) fn rect(&mut self, x: i32, y: i32, width: i32, height: i32, fill: Fill) {
        if !self.fills.contains(&fill) {
            self.fills.push(fill);
        }
        self.reach(x + width, y + height);
        let name = fill.name();
        self.add(format_args!(
            r#"<rect class="edge {name}" x="{x}" y="{y}" width="{width}" height="{height}" fill="url(#dombuild-{name})"/>"#
        ));
    }

    /// Draws a line along `path`, in SVG's syntax.
    pub(super) fn path(&mut self, class: &str, path: &str) {
        self.add(format_args!(r#"<path class="{class}" d="{path}"/>"#));
    }

    /// Draws the sign for "not to scale" across a vertical line.
    pub(super) fn cut(&mut self, x: i32, y: i32) {
        self.has_cuts = true;
        let (left, right) = (x - 6, x + 6);
        self.path("gap", &format!("M{left} {}L{right} {}", y + 3, y - 3));
        self.path("edge slant", &format!("M{left} {}L{right} {}M{left} {}L{right} {}", y + 1, y - 5, y + 5, y - 1));
    }

    /// Adds a tooltip to what `draw` draws.
    pub(super) fn group(&mut self, words: &str, draw: impl FnOnce(&mut Self)) {
        self.add(format_args!("<g><title>{}</title>", escape(words)));
        draw(self);
        self.add(format_args!("</g>"));
    }

    /// The first free x coordinate.
    pub(super) fn right(&self) -> i32 {
        self.right
    }

    /// The first free y coordinate.
    pub(super) fn bottom(&self) -> i32 {
        self.bottom
    }

    /// The fills in the order of first use.
    pub(super) fn fills(&self) -> &[Fill] {
        &self.fills
    }

    /// Whether anything is marked "not to scale".
    pub(super) fn has_cuts(&self) -> bool {
        self.has_cuts
    }

    fn reach(&mut self, right: i32, bottom: i32) {
        self.right = self.right.max(right);
        self.bottom = self.bottom.max(bottom);
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.body, "{element}");
    }

    /// Returns the document with its title and its description for screen readers.
    pub(super) fn finish(self, title: &str, description: &str) -> String {
        let (width, height) = (self.right + MARGIN, self.bottom + MARGIN);
        let (title, description) = (escape(title), escape(description));
        format!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" class="dombuild" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" aria-labelledby="dombuild-title dombuild-desc">
<title id="dombuild-title">{title}</title>
<desc id="dombuild-desc">{description}</desc>
<style>
{}</style>
<defs>
{}</defs>
<rect class="paper" width="{width}" height="{height}"/>
{}</svg>
"#,
            style(),
            defs(&self.fills),
            self.body
        )
    }
}

/// Removes characters that XML forbids or that change how other text reads: control characters, zero-width and
/// bidirectional format characters, and noncharacters.
pub(super) fn clean(text: &str) -> String {
    let unwanted = |c: char| {
        c.is_control()
            || matches!(c, '\u{61c}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{fffe}' | '\u{ffff}')
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}')
            || matches!(c, '\u{e0000}'..='\u{e0fff}')
    };
    text.chars().filter(|c| !unwanted(*c)).collect()
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in clean(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}
