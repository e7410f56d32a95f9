//! The curves: what each verb costs by the number of guests that stand, as SVG that follows the reader's light or dark.

use std::fmt::Write;

use super::chart::{STYLE, text};

/// A panel holds the curve of dombuild and that of xl.
const PANEL: (f64, f64) = (270.0, 190.0);
/// The part of a panel that the curves take.
const PLOT: (f64, f64) = (200.0, 120.0);
const COLUMNS: u32 = 3;
const TOP: f64 = 76.0;

/// One curve.
pub(crate) struct Curve {
    /// The command.
    pub(crate) title: String,
    pub(crate) of_xl: bool,
    /// Guests and virtual milliseconds, in order of the guests.
    pub(crate) points: Vec<(f64, f64)>,
}

/// What is drawn together, with its place.
struct Panel<'a> {
    curves: Vec<&'a Curve>,
    x: f64,
    y: f64,
}

/// Draws a panel for each of dombuild's curves, with xl's that follows it.
pub(crate) fn draw(curves: &[Curve], version: &str) -> String {
    let mut panels: Vec<Panel<'_>> = Vec::new();
    for curve in curves {
        if curve.of_xl {
            panels.last_mut().expect("xl's is the second").curves.push(curve);
        } else {
            let number = u32::try_from(panels.len()).expect("few");
            let (column, row) = (f64::from(number % COLUMNS), f64::from(number / COLUMNS));
            panels.push(Panel { curves: vec![curve], x: 16.0 + column * PANEL.0, y: TOP + row * PANEL.1 });
        }
    }
    let mut body = String::new();
    text(&mut body, 16.0, 26.0, "head", &format!("Virtual ms by the number of guests that stand, Xen {version}"));
    for (x, class, title) in [(16.0, "ours", "dombuild"), (130.0, "xl", "xl")] {
        let _ =
            writeln!(body, "<rect x=\"{x:.0}\" y=\"38\" width=\"12\" height=\"12\" style=\"fill:var(--{class})\"/>");
        text(&mut body, x + 18.0, 49.0, "soft", title);
    }
    for panel in &panels {
        panel.draw(&mut body);
    }
    let width = 16.0 + PANEL.0 * f64::from(COLUMNS);
    let height = panels.last().map_or(TOP, |panel| panel.y + PANEL.1);
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"bench\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {width} {height}\" role=\"img\" aria-labelledby=\"slope-title\">\n\
         <title id=\"slope-title\">Virtual milliseconds of each command by the number of guests that stand</title>\n\
         <style>\n{STYLE}.bench polyline{{fill:none;stroke-width:2}}\n</style>\n\
         <rect width=\"{width}\" height=\"{height}\" style=\"fill:var(--paper)\"/>\n{body}</svg>\n"
    )
}

impl Panel<'_> {
    fn draw(&self, body: &mut String) {
        let all = || self.curves.iter().flat_map(|curve| &curve.points);
        let most = |of: fn(&(f64, f64)) -> f64| all().map(of).fold(1.0, f64::max);
        let (guests, ms) = (most(|point| point.0), most(|point| point.1));
        let (left, base) = (self.x + 48.0, self.y + 18.0 + PLOT.1);
        let place = |point: &(f64, f64)| (left + point.0 / guests * PLOT.0, base - point.1 / ms * PLOT.1);
        let title = self.curves[0].title.trim_start_matches("dombuild ");
        text(body, self.x, self.y + 4.0, "head", title);
        let _ = writeln!(
            body,
            "<path d=\"M{left} {:.0}V{base}H{:.0}\" style=\"fill:none;stroke:var(--soft)\"/>",
            base - PLOT.1,
            left + PLOT.0
        );
        for (x, y, label) in [
            (self.x, base - PLOT.1 + 10.0, format!("{ms:.0}")),
            (self.x, base, "0 ms".to_owned()),
            (left + PLOT.0 - 70.0, base + 18.0, format!("{guests:.0} guests")),
        ] {
            text(body, x, y, "soft", &label);
        }
        for curve in &self.curves {
            let points: Vec<_> = curve.points.iter().map(place).map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let class = if curve.of_xl { "xl" } else { "ours" };
            let _ = writeln!(body, "<polyline points=\"{}\" style=\"stroke:var(--{class})\"/>", points.join(" "));
        }
    }
}
