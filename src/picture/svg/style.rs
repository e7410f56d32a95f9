//! Colours, patterns and fonts of the drawings.
//!
//! Each colour is a CSS custom property with a light and a dark value; programs without custom properties use the light
//! value, which is written before it. Print is light. The hues are those of Okabe and Ito's palette, which colour-blind
//! people can distinguish, and each fill has its own pattern.

/// The fill of a rectangle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fill {
    /// Memory that the guest owns.
    Ram,
    /// Memory of the PoD cache.
    Kept,
    /// Memory that the guest may get later.
    Missing,
    /// The video card's memory.
    Video,
    /// Memory that the guest cannot use.
    Overhead,
    /// Addresses without memory.
    Nothing,
}

impl Fill {
    /// Every fill.
    pub(super) const ALL: [Self; 6] =
        [Self::Ram, Self::Kept, Self::Missing, Self::Video, Self::Overhead, Self::Nothing];

    /// The class, also part of the pattern's name.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Ram => "ram",
            Self::Kept => "kept",
            Self::Missing => "missing",
            Self::Video => "video",
            Self::Overhead => "overhead",
            Self::Nothing => "nothing",
        }
    }

    /// The meaning, for the legend.
    pub(super) const fn meaning(self) -> &'static str {
        match self {
            Self::Ram => "RAM",
            Self::Kept => "RAM kept until it is touched",
            Self::Missing => "not held, may be taken later",
            Self::Video => "video memory",
            Self::Overhead => "not the guest's to use",
            Self::Nothing => "no RAM",
        }
    }

    /// The background and the pattern's marks on it, each in light and in dark. Text has a contrast of at least 7 : 1
    /// to the background, and a margin of it.
    pub(super) const fn colours(self) -> [[&'static str; 2]; 2] {
        match self {
            Self::Ram => [["#b5d9f3", "#174a70"], ["#b5d9f3", "#174a70"]],
            Self::Kept => [["#dcecf8", "#15334b"], ["#7fb6de", "#3f81b3"]],
            Self::Missing => [["#f7f9fb", "#1a2027"], ["#3c83b8", "#6ba9d9"]],
            Self::Video => [["#c6ecdf", "#0e4a3a"], ["#7fcdb3", "#1f7a60"]],
            Self::Overhead => [["#fde7c2", "#4d3610"], ["#eebd62", "#8a6420"]],
            Self::Nothing => [["#eff1f4", "#20262d"], ["#c9cfd6", "#3b444e"]],
        }
    }

    /// The pattern: the side of its square, its rotation in degrees, and a path.
    const fn pattern(self) -> (u32, u32, &'static str) {
        match self {
            Self::Ram => (8, 0, "M0 0"),
            Self::Kept => (13, 135, "M6.5 0v13"),
            Self::Missing => (10, 0, "M2 3h2M7 8h2"),
            Self::Video => (8, 0, "M4 0v8"),
            Self::Overhead => (9, 45, "M4.5 0v9"),
            Self::Nothing => (10, 45, "M5 0v10M0 5h10"),
        }
    }
}

/// Colours without a pattern: name, light and dark value.
pub(super) const COLOURS: [(&str, [&str; 2]); 5] = [
    ("paper", ["#ffffff", "#14181d"]),
    ("ink", ["#16202a", "#e9edf1"]),
    ("soft", ["#4d5863", "#aab4be"]),
    ("edge", ["#5b6670", "#8b96a1"]),
    ("guide", ["#c3cad1", "#414b56"]),
];

/// The use of the colours: selector, property and colour.
const PAINTS: [(&str, &str, &str); 8] = [
    (".paper", "fill", "paper"),
    ("text", "fill", "ink"),
    ("text.soft", "fill", "soft"),
    (".over", "stroke", "paper"),
    (".edge", "stroke", "edge"),
    (".bracket", "stroke", "soft"),
    (".guide", "stroke", "guide"),
    (".gap", "stroke", "paper"),
];

/// Rules without colours.
const RULES: &str = "\
@page{size:landscape;margin:10mm}
.dombuild{max-width:100%;height:auto}
.dombuild text{font:13px system-ui,-apple-system,'Segoe UI',Roboto,'Noto Sans','DejaVu Sans',Arial,sans-serif}
.dombuild text.title{font-size:22px;font-weight:600}
.dombuild text.heading{font-size:16px;font-weight:600}
.dombuild text.name{font-weight:600}
.dombuild text.number{font-variant-numeric:tabular-nums}
.dombuild text.soft{font-size:12px}
.dombuild text.code{font:12px ui-monospace,'Cascadia Mono',Menlo,Consolas,'DejaVu Sans Mono',monospace}
.dombuild .over{paint-order:stroke;stroke-width:5px;stroke-linejoin:round}
.dombuild path{fill:none;stroke-width:1px}
.dombuild .edge,.dombuild .bracket,.dombuild .guide{shape-rendering:crispEdges}
.dombuild .edge.missing{stroke-dasharray:5 3}
.dombuild .guide{stroke-dasharray:2 3}
.dombuild .mark{stroke-width:1.4px}
.dombuild .gap{stroke-width:4px}
.dombuild .slant{shape-rendering:auto}
";

/// The style sheet.
pub(super) fn style() -> String {
    let fills = Fill::ALL.into_iter().flat_map(|fill| {
        let [ground, mark] = fill.colours();
        [(fill.name().to_owned(), ground), (format!("{}-mark", fill.name()), mark)]
    });
    let colours: Vec<(String, [&str; 2])> =
        COLOURS.into_iter().map(|(name, values)| (name.to_owned(), values)).chain(fills).collect();
    let values = |scheme: usize| -> String {
        let all: Vec<String> = colours.iter().map(|(name, values)| format!("--{name}:{}", values[scheme])).collect();
        format!(".dombuild{{{}}}", all.join(";"))
    };

    let mut out = format!(
        "{}\n@media (prefers-color-scheme:dark){{{}}}\n@media print{{{}}}\n{RULES}",
        values(0),
        values(1),
        values(0)
    );
    let mut paint = |selector: &str, property: &str, colour: &str| {
        let light = colours.iter().find(|(name, _)| name == colour).map_or("", |(_, values)| values[0]);
        out.push_str(&format!(".dombuild {selector}{{{property}:{light};{property}:var(--{colour})}}\n"));
    };
    for (selector, property, colour) in PAINTS {
        paint(selector, property, colour);
    }
    for name in Fill::ALL.map(Fill::name) {
        paint(&format!(".over.{name}"), "stroke", name);
        paint(&format!(".ground.{name}"), "fill", name);
        paint(&format!(".mark.{name}"), "stroke", &format!("{name}-mark"));
    }
    out
}

/// The pattern definitions of these fills.
pub(super) fn defs(fills: &[Fill]) -> String {
    let pattern = |fill: &Fill| {
        let name = fill.name();
        let (side, turned, path) = fill.pattern();
        format!(
            r#"<pattern id="dombuild-{name}" width="{side}" height="{side}" patternUnits="userSpaceOnUse" patternTransform="rotate({turned})"><rect class="ground {name}" width="{side}" height="{side}"/><path class="mark {name}" d="{path}"/></pattern>
"#
        )
    };
    fills.iter().map(pattern).collect()
}
