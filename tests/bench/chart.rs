//! The chart: a group of bars for each guest, as SVG that follows the reader's light or dark.

use std::fmt::Write;

use super::figures::{Row, find};
use super::ways::Way;

const WIDTH: f64 = 880.0;
const LEFT: f64 = 290.0;
/// The longest bar; its number stands behind it.
const BAR: f64 = 500.0;
const LINE: f64 = 22.0;
const WAYS: [(Way, &str, &str); 4] = [
    (Way::Floor, "floor", "libxenguest's calls alone"),
    (Way::Bare, "bare", "dombuild create --device-model none"),
    (Way::Create, "ours", "dombuild create"),
    (Way::Xl, "xl", "xl create -p"),
];
pub(crate) const STYLE: &str = ".bench{--paper:#ffffff;--ink:#16202a;--soft:#4d5863;--floor:#9aa5b0;--bare:#7fb6de;--ours:#1f77b4;--xl:#eebd62}
@media (prefers-color-scheme:dark){.bench{--paper:#14181d;--ink:#e9edf1;--soft:#aab4be;--floor:#68737e;--bare:#3f81b3;--ours:#6ab4ee;--xl:#b98a2e}}
.bench{max-width:100%;height:auto}
.bench text{font:13px system-ui,sans-serif;fill:var(--ink)}
.bench .soft{fill:var(--soft)}
.bench .head{font-weight:600}
";

/// Draws every guest whose memory is clean; each group of bars has its own scale.
pub(crate) fn draw(rows: &[Row], version: &str) -> String {
    let mut guests: Vec<&str> = rows.iter().map(|row| row.guest).filter(|guest| !guest.contains("dirty")).collect();
    guests.dedup();
    let mut body = String::new();
    let mut y = 58.0;
    text(
        &mut body,
        16.0,
        26.0,
        "head",
        &format!("From the command to a paused guest, Xen {version}, virtual ms (each guest to its own scale)"),
    );
    let mut x = 16.0;
    for (_, class, title) in WAYS {
        let _ =
            writeln!(body, "<rect x=\"{x:.0}\" y=\"38\" width=\"12\" height=\"12\" style=\"fill:var(--{class})\"/>");
        text(&mut body, x + 18.0, 49.0, "soft", title);
        x += 40.0 + 7.0 * f64::from(u32::try_from(title.len()).unwrap_or(0));
    }
    for guest in guests {
        let bars: Vec<_> =
            WAYS.iter().filter_map(|(way, class, _)| Some((find(rows, guest, *way)?.ms(), *class))).collect();
        let most = bars.iter().map(|(ms, _)| *ms).fold(0.0, f64::max);
        y += 12.0;
        text(&mut body, 16.0, y + 15.0, "head", guest);
        for (ms, class) in bars {
            let width = (ms / most * BAR).max(1.0);
            let _ = writeln!(
                body,
                "<rect x=\"{LEFT}\" y=\"{y:.0}\" width=\"{width:.1}\" height=\"18\" rx=\"2\" style=\"fill:var(--{class})\"/>"
            );
            text(&mut body, LEFT + width + 6.0, y + 14.0, "", &format!("{ms:.1}"));
            y += LINE;
        }
    }
    let height = y + 16.0;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"bench\" width=\"{WIDTH}\" height=\"{height}\" \
         viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-labelledby=\"bench-title\">\n\
         <title id=\"bench-title\">Virtual milliseconds from the command to a paused guest, by guest and program</title>\n\
         <style>\n{STYLE}</style>\n\
         <rect width=\"{WIDTH}\" height=\"{height}\" style=\"fill:var(--paper)\"/>\n{body}</svg>\n"
    )
}

pub(crate) fn text(body: &mut String, x: f64, y: f64, class: &str, text: &str) {
    let _ = writeln!(body, "<text x=\"{x:.1}\" y=\"{y:.1}\" class=\"{class}\">{text}</text>");
}
