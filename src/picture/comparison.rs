//! Draws a domain's memory as two bars on one scale: planned, and reported by Xen.

use crate::memory::compare::Measured;
use crate::memory::plan::Plan;
use crate::memory::units::Pages;

/// The columns of the longer bar.
const BAR_WIDTH: u64 = 60;
/// The fills: pages owned, pages of the PoD cache, and pages that may still be added.
const HELD_FILL: char = '█';
const KEPT_FILL: char = '▒';
const OPEN_FILL: char = '░';

/// Draws both bars up to the domain's limit, with a legend.
#[must_use]
pub fn draw_comparison(plan: &Plan, xen: &Measured) -> String {
    let pod = plan.pod.unwrap_or_default();
    let longest = plan.max_pages.max(xen.max_pages).max(xen.owned_pages).0.max(1);
    let columns = |pages: u64| {
        // A part that is not 0 has at least one column.
        let rounded = (u128::from(pages) * u128::from(BAR_WIDTH) + u128::from(longest) / 2) / u128::from(longest);
        let rounded = usize::try_from(rounded).unwrap_or(0);
        if pages > 0 { rounded.max(1) } else { 0 }
    };
    let bar = |owned: Pages, cache: Pages, most: Pages| {
        let held = columns(owned.0.saturating_sub(cache.0));
        let kept = columns(cache.0);
        let open = columns(most.0).saturating_sub(held + kept);
        [(HELD_FILL, held), (KEPT_FILL, kept), (OPEN_FILL, open)]
            .map(|(fill, count)| fill.to_string().repeat(count))
            .concat()
    };
    let mut out = String::new();
    for (name, owned, cache, most) in [
        ("plan", plan.owned_pages_running, pod.cache, plan.max_pages),
        ("Xen", xen.owned_pages, xen.pod_cache_pages, xen.max_pages),
    ] {
        out.push_str(&format!("  {name:<5} {}\n", bar(owned, cache, most)));
    }
    let on_demand = pod.cache.0 > 0 || xen.pod_cache_pages.0 > 0;
    let kept = if on_demand { format!("   {KEPT_FILL} kept to populate on demand") } else { String::new() };
    out.push_str(&format!("        {HELD_FILL} held{kept}   {OPEN_FILL} up to Xen's limit\n"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::request::Request;
    use crate::memory::units::Mib;

    fn count(text: &str, line: usize, fill: char) -> usize {
        text.lines().nth(line).expect("a line").chars().filter(|c| *c == fill).count()
    }

    #[test]
    fn bars_are_to_scale() {
        let request = Request { static_max: Some(Mib(512).to_kib()), ..Request::new(Mib(256).to_kib()) };
        let plan = Plan::new(&request).expect("a plan");
        let xen = Measured { owned_pages: Pages(32_768), max_pages: Pages(131_328), ..Measured::default() };
        let drawn = draw_comparison(&plan, &xen);
        // Of 513 MiB, 16 MiB of video RAM are owned, and 240 MiB are in the PoD cache.
        assert_eq!(
            (count(&drawn, 0, HELD_FILL), count(&drawn, 0, KEPT_FILL), count(&drawn, 0, OPEN_FILL)),
            (2, 28, 30)
        );
        assert_eq!(
            (count(&drawn, 1, HELD_FILL), count(&drawn, 1, KEPT_FILL), count(&drawn, 1, OPEN_FILL)),
            (15, 0, 45)
        );
        assert!(drawn.contains("on demand"));
        assert_eq!(draw_comparison(&plan, &Measured::default()).lines().count(), 3);
    }
}
