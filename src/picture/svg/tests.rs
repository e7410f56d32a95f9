//! Drawings of every kind and model, parsed.

use proptest::prelude::*;
use roxmltree::{Document, Node};

use super::comparison::svg_comparison;
use super::*;
use crate::memory::compare::{Difference, Measured, compare};
use crate::memory::limits::{HVM_MAX_VCPUS, MAX_STATIC_MAX};
use crate::memory::model::Model;
use crate::memory::multiplier::ShadowMultiplier;
use crate::memory::request::Request;
use crate::memory::reserved::Reserved;
use crate::memory::units::{Bytes, Kib, MIB, Mib, Pages};
use crate::picture::figures::Figure;

const FONTS: [Font; 7] = [Font::Title, Font::Heading, Font::Name, Font::Number, Font::Plain, Font::Soft, Font::Code];

/// A rectangle on the sheet.
#[derive(Debug, Clone, Copy)]
struct Area {
    left: i32,
    top: i32,
    right: i32,
    bottom: i32,
}

impl Area {
    fn overlaps(&self, other: &Self) -> bool {
        self.left < other.right && other.left < self.right && self.top < other.bottom && other.top < self.bottom
    }

    fn is_inside(&self, other: &Self) -> bool {
        other.left <= self.left && self.right <= other.right && other.top <= self.top && self.bottom <= other.bottom
    }
}

fn number(node: Node<'_, '_>, name: &str) -> i32 {
    node.attribute(name).and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name} of {node:?}"))
}

/// The area of a text, at the largest width of its font.
fn area_of(text: Node<'_, '_>) -> Area {
    let classes: Vec<&str> = text.attribute("class").expect("a class").split(' ').collect();
    let font = FONTS.into_iter().find(|font| font.class().0 == classes[0]).expect("a font");
    let (x, y, width) = (number(text, "x"), number(text, "y"), font.width(text.text().expect("a text")));
    let left = if text.attribute("text-anchor") == Some("end") { x - width } else { x };
    let size = font.class().1;
    Area { left, top: y - size * 3 / 4, right: left + width, bottom: y + size / 5 }
}

/// A parsed drawing.
struct Picture {
    /// Filled rectangles with the names of their fills.
    rectangles: Vec<(Area, String)>,
    texts: Vec<(Area, String)>,
}

impl Picture {
    /// Parses a drawing and checks what must hold for all of them.
    fn of(svg: &str) -> Self {
        let document = Document::parse(svg).unwrap_or_else(|error| panic!("{error} in\n{svg}"));
        let root = document.root_element();
        assert_eq!((root.tag_name().name(), root.attribute("role")), ("svg", Some("img")));
        let (width, height) = (number(root, "width"), number(root, "height"));
        let viewed = format!("0 0 {width} {height}");
        assert_eq!(root.attribute("viewBox"), Some(viewed.as_str()));
        let sheet = Area { left: 0, top: 0, right: width, bottom: height };
        for (name, attribute) in [("title", "dombuild-title"), ("desc", "dombuild-desc")] {
            let node = root.children().find(|node| node.has_tag_name(("http://www.w3.org/2000/svg", name)));
            let node = node.expect("a kind of element");
            assert!(node.attribute("id") == Some(attribute) && node.text().is_some(), "{node:?}");
        }
        let names = ["svg", "title", "desc", "style", "defs", "pattern", "rect", "path", "g", "text"];
        let elements = || document.descendants().filter(Node::is_element);
        assert!(elements().all(|node| names.contains(&node.tag_name().name())), "{svg}");
        // No external references, and no scripts.
        for attribute in elements().flat_map(|node| node.attributes()) {
            assert!(attribute.name() != "href" && !attribute.name().starts_with("on"), "{attribute:?}");
            assert!(
                !attribute.value().contains("url(") || attribute.value().starts_with("url(#dombuild-"),
                "{attribute:?}"
            );
        }
        let style = elements().find(|node| node.tag_name().name() == "style").and_then(|node| node.text());
        assert!(style.is_some_and(|style| ["//", "url(", "@import"].iter().all(|word| !style.contains(word))));

        let mut picture = Self { rectangles: Vec::new(), texts: Vec::new() };
        for node in elements() {
            let class = node.attribute("class").unwrap_or("");
            match node.tag_name().name() {
                "rect" if class.starts_with("edge") => {
                    let (left, top) = (number(node, "x"), number(node, "y"));
                    let (right, bottom) = (left + number(node, "width"), top + number(node, "height"));
                    let name = class.trim_start_matches("edge ").to_owned();
                    let id = format!("dombuild-{name}");
                    assert_eq!(node.attribute("fill"), Some(format!("url(#{id})").as_str()));
                    assert!(elements().any(|node| node.attribute("id") == Some(&id)), "{id} is not there");
                    picture.rectangles.push((Area { left, top, right, bottom }, name));
                }
                "text" => picture.texts.push((area_of(node), node.text().expect("a text").to_owned())),
                _ => {}
            }
        }
        for (area, what) in picture.rectangles.iter().chain(&picture.texts) {
            assert!(area.is_inside(&sheet), "{what:?} at {area:?} is not inside {sheet:?}");
        }
        for (index, (area, text)) in picture.texts.iter().enumerate() {
            for (other, over) in &picture.texts[..index] {
                assert!(!area.overlaps(other), "{text:?} at {area:?} is over {over:?} at {other:?}");
            }
        }
        for (index, (area, what)) in picture.rectangles.iter().enumerate() {
            for (other, over) in &picture.rectangles[..index] {
                assert!(!area.overlaps(other), "{what} at {area:?} is over {over} at {other:?}");
            }
        }
        picture
    }

    fn has(&self, text: &str) -> bool {
        self.texts.iter().any(|(_, there)| there == text)
    }

    /// The columns of blocks from left to right, each from the top down.
    fn columns(&self) -> Vec<Vec<Area>> {
        let mut columns: Vec<Vec<Area>> = Vec::new();
        for (area, _) in self.rectangles.iter().filter(|(area, _)| area.right - area.left >= column::MIN_COLUMN_WIDTH) {
            match columns.last_mut().filter(|column| column[0].left == area.left) {
                Some(column) => column.push(*area),
                None => columns.push(vec![*area]),
            }
        }
        columns
    }
}

/// Blocks are adjacent, and none is lower than a smaller one.
fn assert_stacked(column: &[Area], sizes: &[Kib]) {
    assert_eq!(column.len(), sizes.len());
    for pair in column.windows(2) {
        assert_eq!(pair[0].bottom, pair[1].top, "{column:?}");
    }
    let height = |area: &Area| area.bottom - area.top;
    for (a, size) in column.iter().zip(sizes) {
        assert!(height(a) >= column::MIN_BLOCK_HEIGHT, "{column:?}");
        for (b, other) in column.iter().zip(sizes) {
            assert!(size < other || height(a) >= height(b), "{column:?} of {sizes:?}");
        }
    }
}

fn assert_drawn(plan: &Plan) {
    let picture = Picture::of(&svg(plan));
    let (stack, map) = (Stack::new(plan), Map::new(plan));
    assert!(picture.has(&title(plan)));
    for block in &stack.blocks {
        assert!(picture.has(block.name) && picture.has(&short(block.size)) && picture.has(block.meaning), "{block:?}");
    }
    for sum in &stack.sums {
        assert!(picture.has(sum.name) && picture.has(&short(sum.size)) && picture.has(&sum.meaning), "{sum:?}");
    }
    for region in &map.regions {
        assert!(picture.has(region.name) && picture.has(&address(region.start)), "{region:?}");
        assert!(region.mark.is_empty() || picture.has(region.mark), "{region:?}");
        for word in region.notes.iter().flat_map(|note| note.split("  ")) {
            assert!(word.is_empty() || picture.has(word.trim()), "{word}");
        }
    }
    for figure in figures(plan) {
        let Figure { name, value, origin } = figure;
        assert!([name, &value, &origin].iter().all(|text| text.is_empty() || picture.has(text)), "{name}");
    }
    assert_eq!(picture.texts.iter().any(|(_, text)| text.contains("Populate on demand")), plan.pod.is_some());
    let sizes: Vec<Kib> = stack.blocks.iter().map(|block| block.size).collect();
    match picture.columns().as_slice() {
        [column] => assert_stacked(column, &sizes),
        columns => panic!("{} columns", columns.len()),
    }
}

#[test]
fn what_is_reserved_is_drawn() {
    let reserved = [(0x7b80_0000, 0x10_0000), (0xe000_0000, 0x1000), (8 << 30, 0x2000)];
    let reserved = reserved.map(|(start, size)| Reserved { start: Bytes(start), size: Bytes(size) }).to_vec();
    let request = Request { reserved, vgpu: true, ..Request::new(Mib(4096).to_kib()) };
    assert_drawn(&Plan::new(&request).expect("a plan"));
}

fn measured(plan: &Plan) -> Measured {
    let pod = plan.pod.unwrap_or_default();
    Measured {
        owned_pages: plan.owned_pages_running,
        max_pages: plan.max_pages,
        pod_cache_pages: pod.cache,
        pod_entries: pod.entries,
        paging_pool_kib: plan.paging_pool,
        claimed_pages: Pages(0),
    }
}

fn assert_drawn_beside(plan: &Plan, xen: &Measured, title: &str) {
    let differences = compare(plan, xen, None, true);
    let picture = Picture::of(&svg_comparison(plan, xen, &[], &differences, title));
    assert!(["Plan", "Xen", "owned", "What differs"].iter().all(|text| picture.has(text)));
    let same = "The domain is as it was planned, to the page.";
    assert_eq!(picture.has(same), differences.is_empty());
    for Difference { plan, xen, cause, .. } in &differences {
        assert!(picture.has(&plan.to_string()) && picture.has(&xen.to_string()));
        // It may be wrapped.
        let start: Vec<&str> = cause.split(' ').take(3).collect();
        assert!(picture.texts.iter().any(|(_, text)| text.starts_with(&start.join(" "))), "{cause}");
    }
    let sizes = |pool: Kib, owned: Pages, cache: Pages, most: Pages| -> Vec<Kib> {
        let kept = cache.min(owned);
        let held = Pages(owned.get() - kept.get());
        let sizes = [pool, held.to_kib(), kept.to_kib(), Pages(most.get().saturating_sub(owned.get())).to_kib()];
        sizes.into_iter().filter(|size| !size.is_zero()).collect()
    };
    let pod = plan.pod.unwrap_or_default();
    let of_plan = sizes(plan.paging_pool, plan.owned_pages_running, pod.cache, plan.max_pages);
    let of_xen = sizes(xen.paging_pool_kib, xen.owned_pages, xen.pod_cache_pages, xen.max_pages);
    let columns = picture.columns();
    assert_stacked(&columns[0], &of_plan);
    if let Some(column) = columns.get(1) {
        assert_stacked(column, &of_xen);
        // Both columns have one scale.
        let all: Vec<(i32, Kib)> = columns[0]
            .iter()
            .zip(&of_plan)
            .chain(column.iter().zip(&of_xen))
            .map(|(area, size)| (area.bottom - area.top, *size))
            .collect();
        assert!(all.iter().all(|(a, x)| all.iter().all(|(b, y)| x < y || a >= b)), "{all:?}");
    } else {
        assert!(of_xen.is_empty());
    }
}

/// `dombuild plan --memory 4GiB --maxmem 6GiB --vcpus 2 --svg docs/images/plan.svg` draws it again.
#[test]
fn the_example() {
    let request = Request { static_max: Some(Kib(6 << 20)), vcpus: 2, ..Request::new(Kib(4 << 20)) };
    let plan = Plan::new(&request).expect("a plan");
    assert!(svg(&plan) == include_str!("../../../docs/images/plan.svg"), "docs/images/plan.svg is not what is drawn");
    assert_drawn(&plan);
}

#[test]
fn every_kind_and_model() {
    for kind in Kind::ALL {
        for model in Model::ALL {
            for static_max in [1 << 20, (1 << 20) + 1024, 5 << 20, 1 << 32] {
                let request = Request { kind, model, static_max: Some(Kib(static_max)), ..Request::new(Kib(1 << 20)) };
                let plan = Plan::new(&request).expect("a plan");
                assert_drawn(&plan);
                assert_drawn_beside(&plan, &measured(&plan), "web");
                assert_drawn_beside(&plan, &Measured::default(), "");
            }
        }
    }
}

/// The labels of the sums do not overlap even if their blocks are low.
#[test]
fn the_least_and_the_most() {
    let most = Mib(MAX_STATIC_MAX.0 - 256).to_kib();
    let times = |by| ShadowMultiplier::new(by).expect("a multiplier");
    for (target, static_max) in [(Kib(2048), Kib(2048)), (Kib(2048), most), (Kib(most.0 - 3), most), (most, most)] {
        for (vcpus, shadow_multiplier) in [(1, times(0.001)), (HVM_MAX_VCPUS, times(99.000_000_000_000_01))] {
            let request = Request {
                model: Model::Libxl,
                static_max: Some(static_max),
                video: Some(Kib(0)),
                vcpus,
                shadow_multiplier,
                ..Request::new(target)
            };
            let plan = Plan::new(&request).expect("a plan");
            assert_drawn(&plan);
            let all = Pages(u64::MAX);
            let xen = Measured { owned_pages: all, max_pages: all, pod_cache_pages: Pages(1), ..Measured::default() };
            assert_drawn_beside(&plan, &xen, "web");
        }
    }
}

#[test]
fn only_what_is_not_to_scale_is_cut() {
    let cuts = |plan: &Plan| svg(plan).matches(r#"class="gap""#).count();
    let request = Request { kind: Kind::Pvh, static_max: Some(Kib(3 << 20)), ..Request::new(Kib(2 << 20)) };
    let plan = Plan::new(&request).expect("a plan");
    // Both sides of three blocks, and one in the legend.
    assert_eq!(cuts(&plan), 2 * 3 + 1);
    let areas = Picture::of(&svg(&plan)).columns().concat();
    let heights: Vec<i32> = areas.iter().map(|area| area.bottom - area.top).collect();
    let [shadow, external, internal, guest, balloon] = heights[..] else { panic!("{heights:?}") };
    assert_eq!([shadow, external, internal], [column::MIN_BLOCK_HEIGHT; 3]);
    assert!((guest - 2 * balloon).abs() <= 1, "{heights:?}");
}

#[test]
fn a_hostile_title() {
    let plan = Plan::new(&Request::new(Kib(1 << 20))).expect("a plan");
    let title = "a<script>alert(\"1\")</script>&amp;']]>\u{0}\u{1b}[2J\u{202e}\u{feff}\u{ffff}\u{85}\nb";
    let drawn = svg_comparison(&plan, &measured(&plan), &[], &[], title);
    assert!(Picture::of(&drawn).has("a<script>alert(\"1\")</script>&amp;']]>[2Jb"), "{drawn}");
    assert_drawn_beside(&plan, &measured(&plan), &"<&\"'>".repeat(1000));
    assert_drawn_beside(&plan, &measured(&plan), &"漢".repeat(1000));
    let long = Picture::of(&svg_comparison(&plan, &measured(&plan), &[], &[], &"x".repeat(1000)));
    assert!(long.texts.iter().any(|(_, text)| text.starts_with("xxx") && text.ends_with("x…")));
}

/// Text is legible on every fill, in light and dark: the contrast of WCAG 2, level AAA.
#[test]
fn the_colours_have_contrast() {
    let luminance = |colour: &str| -> f64 {
        let part = |at: usize| {
            let value = f64::from(u8::from_str_radix(&colour[at..at + 2], 16).expect("hexadecimal")) / 255.0;
            if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5)
    };
    let contrast = |a: &str, b: &str| {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    };
    let of = |wanted: &str| style::COLOURS.iter().find(|(name, _)| *name == wanted).expect("a colour").1;
    for scheme in [0, 1] {
        let (ink, soft, paper) = (of("ink")[scheme], of("soft")[scheme], of("paper")[scheme]);
        assert!(contrast(ink, paper) >= 7.0 && contrast(soft, paper) >= 7.0);
        for fill in Fill::ALL {
            assert!(contrast(ink, fill.colours()[0][scheme]) >= 7.0, "{fill:?}");
        }
    }
}

proptest! {
    #[test]
    fn every_plan_can_be_drawn(
        guest in prop_oneof![2_u32..64, 2_u32..1 << 23], balloon in prop_oneof![Just(0), 1_u32..1 << 22],
        shift in 0_u32..9, hole in 256..=2048_u64, vcpus in 1..=HVM_MAX_VCPUS, by in 0.001..=100.0_f64,
        device_model: bool, kind in prop::sample::select(Kind::ALL.to_vec()),
        model in prop::sample::select(Model::ALL.to_vec()), (shim, cut) in (any::<bool>(), 0_u64..1024),
        (owned, most, cache, pool, title) in (any::<u64>(), any::<u64>(), any::<u64>(), any::<u64>(), any::<String>()),
        (fewer, planned) in (0_u32..64, any::<bool>()),
    ) {
        let hvm = kind == Kind::Hvm;
        let video = if hvm { (1 << shift) / 2 } else { 0 };
        // libxl accepts sizes that are not whole MiB.
        let cut = if balloon > 0 && guest > 2 && kind != Kind::Pv { cut } else { 0 };
        let target = guest + video;
        let request = Request {
            static_max: Some(Mib(target + balloon).to_kib()),
            kind,
            model,
            shim: shim && kind == Kind::Pvh && model != Model::Xenops,
            video: Some(Mib(video).to_kib()),
            vcpus,
            shadow_multiplier: ShadowMultiplier::new(by).expect("a multiplier"),
            mmio_hole: hvm.then_some(Bytes(hole * MIB)),
            device_model,
            ..Request::new(Kib(Mib(target).to_kib().0 - cut))
        };
        let plan = Plan::new(&request).expect("a plan");
        assert_drawn(&plan);

        // Sizes of all magnitudes.
        let xen = Measured {
            owned_pages: if planned { plan.owned_pages_running } else { Pages(owned >> fewer) },
            max_pages: Pages(most >> fewer),
            pod_cache_pages: Pages(cache >> fewer),
            pod_entries: Pages(cache),
            paging_pool_kib: Kib(pool >> fewer),
            claimed_pages: Pages(owned),
        };
        assert_drawn_beside(&plan, &xen, &title);
    }
}
