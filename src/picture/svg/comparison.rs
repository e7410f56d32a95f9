//! Draws the plan and Xen's figures as two columns on one scale.

use super::column::{self, Bar, Place, Scale, TICK_WIDTH};
use super::sheet::{Anchor, Font, MARGIN, Sheet};
use super::style::Fill;
use super::{GAP, LABEL_GAP, LINE_HEIGHT, ROW_HEIGHT, TITLE_Y, draw_label, draw_legend, heading};
use crate::memory::compare::{Difference, Measured, NodeFigure};
use crate::memory::plan::Plan;
use crate::memory::units::{Kib, Pages};
use crate::picture::stack::short;
use crate::picture::text::title as plan_title;

/// The baseline of the heading, in pixels, as all that follow.
const HEADING_Y: i32 = 122;
/// The top of the columns.
const COLUMNS_Y: i32 = 190;
/// The height of the higher column.
const COLUMN_HEIGHT: i32 = 340;
/// The space between the columns.
const COLUMN_GAP: i32 = 140;
/// The width of a cause, which is wrapped.
const CAUSE_WIDTH: i32 = 600;
/// The most width of the title.
const MAX_TITLE_WIDTH: i32 = 900;

/// The parts of a column from the top down: name, fill and tooltip.
const PARTS: [(&str, Fill, &str); 4] = [
    ("paging pool", Fill::Overhead, "Xen keeps the guest's page tables in it; it is not among the pages owned"),
    ("held", Fill::Ram, "pages that stand in the guest's address space"),
    ("on demand", Fill::Kept, "pages that the guest owns, and that are put in where it first touches one"),
    ("up to limit", Fill::Missing, "what Xen's limit leaves"),
];
/// The sums of parts, from the inside out: name, first and last part.
const SUMS: [(&str, usize, usize); 2] = [("owned", 1, 2), ("limit", 1, 3)];

/// One of the two columns.
struct Side {
    name: &'static str,
    pool: Kib,
    owned: Pages,
    kept: Pages,
    most: Pages,
}

impl Side {
    /// The sizes of the parts.
    fn parts(&self) -> [Kib; 4] {
        let less = |a: Pages, b: Pages| a.checked_sub(b).unwrap_or_default().to_kib();
        [self.pool, less(self.owned, self.kept), self.kept.min(self.owned).to_kib(), less(self.most, self.owned)]
    }

    /// The sizes of the sums, by index. A limit below the owned pages has no bracket.
    fn sums(&self) -> Vec<(usize, Kib)> {
        let limit = (self.most >= self.owned).then_some(self.most);
        [Some(self.owned), limit].into_iter().flatten().map(Pages::to_kib).enumerate().collect()
    }

    /// The parts that are not 0, by index.
    fn there(&self) -> Vec<(usize, Kib)> {
        self.parts().into_iter().enumerate().filter(|(_, size)| !size.is_zero()).collect()
    }
}

/// Draws a plan and Xen's figures of the domain as one standalone SVG document: two columns on one scale, the figures,
/// and the likely causes of differences. `title` may be untrusted text, such as the domain's name.
#[must_use]
pub fn svg_comparison(
    plan: &Plan,
    xen: &Measured,
    nodes: &[NodeFigure],
    differences: &[Difference],
    title: &str,
) -> String {
    let planned = Side {
        name: "Plan",
        pool: plan.paging_pool,
        owned: plan.owned_pages_running,
        kept: plan.pod.unwrap_or_default().cache,
        most: plan.max_pages,
    };
    let shown = Side {
        name: "Xen",
        pool: xen.paging_pool_kib,
        owned: xen.owned_pages,
        kept: xen.pod_cache_pages,
        most: xen.max_pages,
    };
    let sides = [planned, shown];
    let sizes = |side: &Side| side.there().into_iter().map(|(_, size)| size).collect();
    let scale = Scale::fitting(&sides.each_ref().map(sizes), COLUMN_HEIGHT);

    let mut sheet = Sheet::default();
    let of_plan = plan_title(plan);
    let mut title = Font::Title.fit(title.trim(), MAX_TITLE_WIDTH);
    if title.is_empty() {
        title.clone_from(&of_plan);
    } else {
        sheet.text(MARGIN, TITLE_Y + 26, Font::Plain, Anchor::Start, &of_plan);
    }
    sheet.text(MARGIN, TITLE_Y, Font::Title, Anchor::Start, &title);
    heading(&mut sheet, MARGIN, HEADING_Y, "Planned and shown", "on one scale, except the blocks whose sides are cut");
    draw_sides(&mut sheet, &sides, scale);
    let legend = sheet.bottom() + 34;
    draw_legend(&mut sheet, legend, scale);
    draw_table(&mut sheet, &rows(plan, xen, nodes), differences, legend + 50);
    sheet.finish(&title, &description(&sides, differences))
}

/// The description for screen readers.
fn description(sides: &[Side; 2], differences: &[Difference]) -> String {
    let side = |side: &Side| {
        let parts = side.there().into_iter().map(|(index, size)| format!("{} {}", PARTS[index].0, short(size)));
        format!("{}: {}. ", side.name, parts.collect::<Vec<_>>().join(", "))
    };
    let causes = differences.iter().map(|found| format!("{}: {}. ", found.what.replace('_', " "), found.cause));
    sides.iter().map(side).chain(causes).collect::<String>().trim_end().to_owned()
}

/// Draws both columns with their sums outside, and lines between equal parts.
fn draw_sides(sheet: &mut Sheet, sides: &[Side; 2], scale: Scale) {
    let widths = sides
        .iter()
        .flat_map(Side::sums)
        .map(|(index, size)| Font::Name.width(SUMS[index].0).max(Font::Number.width(&short(size))));
    let step = widths.max().unwrap_or(0) + 3 * LABEL_GAP;
    let blocks = sides.iter().flat_map(Side::there).map(|(index, size)| (PARTS[index].0, size));
    let width = column::width(blocks);
    let left = MARGIN + step * 2 + TICK_WIDTH;
    let ends = [left + width, left + width + COLUMN_GAP];

    // The places of the parts, including those of size 0.
    let edges = sides.each_ref().map(|side| scale.places(COLUMNS_Y, side.parts().into_iter()));
    for (plan, xen) in edges[0].iter().zip(&edges[1]) {
        sheet.path("guide slant", &format!("M{} {}L{} {}", ends[0], plan.bottom, ends[1], xen.bottom));
    }
    sheet.path("guide slant", &format!("M{} {COLUMNS_Y}H{}", ends[0], ends[1]));

    let columns = [(left, left - LABEL_GAP - TICK_WIDTH, -1), (ends[1], ends[1] + width + LABEL_GAP + TICK_WIDTH, 1)];
    for ((side, places), (x, line, outwards)) in sides.iter().zip(&edges).zip(columns) {
        sheet.text(x, COLUMNS_Y - 10, Font::Heading, Anchor::Start, side.name);
        for (index, size) in side.there() {
            let (name, fill, words) = PARTS[index];
            column::draw(sheet, x, width, places[index], &Bar { name, size, fill, words }, scale);
        }
        let anchor = if outwards < 0 { Anchor::End } else { Anchor::Start };
        let label = places[SUMS[0].1].top + COLUMN_HEIGHT / 8;
        let mut x = line;
        for (index, size) in side.sums() {
            let (name, first, last) = SUMS[index];
            if let Some(place) = Place::across(places, first, last).filter(|place| place.top < place.bottom) {
                column::bracket(sheet, x, place, -outwards);
            }
            draw_label(sheet, x + outwards * LABEL_GAP, label, anchor, name, size);
            x += outwards * step;
        }
    }
}

/// A figure: its name, its JSON name, which the differences use, the planned value and Xen's.
type Row = (String, &'static str, u64, u64);

fn rows(plan: &Plan, xen: &Measured, nodes: &[NodeFigure]) -> Vec<Row> {
    let pod = plan.pod.unwrap_or_default();
    let figures = [
        ("owned pages", "owned_pages", plan.owned_pages_running.get(), xen.owned_pages.get()),
        ("max pages", "max_pages", plan.max_pages.get(), xen.max_pages.get()),
        ("on demand, entries", "pod_entries", pod.entries.get(), xen.pod_entries.get()),
        ("on demand, cache", "pod_cache_pages", pod.cache.get(), xen.pod_cache_pages.get()),
        ("paging pool, KiB", "paging_pool_kib", plan.paging_pool.get(), xen.paging_pool_kib.get()),
        ("claimed pages", "claimed_pages", 0, xen.claimed_pages.get()),
    ];
    let figures = figures.into_iter().map(|(name, key, plan, xen)| (name.to_owned(), key, plan, xen));
    let nodes = nodes.iter().filter_map(|figure| {
        Some((format!("pages on node {}", figure.node), "nodes", figure.planned?.get(), figure.xen.get()))
    });
    figures.chain(nodes).collect()
}

/// Draws the figures, the differences and their causes.
fn draw_table(sheet: &mut Sheet, rows: &[Row], differences: &[Difference], top: i32) {
    let difference = |plan: u64, xen: u64| match xen.cmp(&plan) {
        std::cmp::Ordering::Less => format!("−{}", plan - xen),
        std::cmp::Ordering::Equal => "same".to_owned(),
        std::cmp::Ordering::Greater => format!("+{}", xen - plan),
    };
    let same = rows.iter().all(|(_, _, plan, xen)| plan == xen);
    let remark = if same { "The domain is as it was planned, to the page." } else { "" };
    heading(sheet, MARGIN, top, "What differs", remark);

    let head = ["plan", "Xen shows", "difference"];
    let cells = |plan: u64, xen: u64| [plan.to_string(), xen.to_string(), difference(plan, xen)];
    let mut x = MARGIN + rows.iter().map(|(name, ..)| Font::Name.width(name)).max().unwrap_or(0);
    let ends = [0, 1, 2].map(|column| {
        let widths = rows.iter().map(|(_, _, plan, xen)| Font::Number.width(&cells(*plan, *xen)[column]));
        x += 2 * GAP + widths.max().unwrap_or(0).max(Font::Soft.width(head[column]));
        x
    });
    let causes = x + 2 * GAP;
    let mut y = top + if same { 42 } else { 26 };
    for (end, text) in ends.into_iter().zip(head) {
        sheet.text(end, y, Font::Soft, Anchor::End, text);
    }
    if !differences.is_empty() {
        sheet.text(causes, y, Font::Soft, Anchor::Start, "most likely because");
    }
    for (name, key, plan, xen) in rows.iter().map(|(name, key, plan, xen)| (name, *key, *plan, *xen)) {
        y += ROW_HEIGHT + 2;
        let font = if plan == xen { Font::Plain } else { Font::Name };
        sheet.text(MARGIN, y, font, Anchor::Start, name);
        for (end, text) in ends.into_iter().zip(cells(plan, xen)) {
            sheet.text(end, y, Font::Number, Anchor::End, &text);
        }
        let found = differences.iter().filter(|found| found.what == key);
        for (row, line) in (0..).zip(found.flat_map(|found| Font::Plain.wrap(&found.cause, CAUSE_WIDTH))) {
            y += if row > 0 { LINE_HEIGHT } else { 0 };
            sheet.text(causes, y, Font::Plain, Anchor::Start, &line);
        }
    }
}
