//! A plan as a drawing for the terminal: what the domain's memory is made of, where it stands, and what Xen will report.

mod breakdown;
mod canvas;
mod map;

use super::layout::{IOREQ_SERVER_PAGES, SPECIAL_PAGES, VGA_HOLE_PAGES};
use super::model::{Memory, SHADOW_PAGES_PER_MIB, SHADOW_PAGES_PER_VCPU};
use super::multiplier::ShadowMultiplier;
use super::plan::{Plan, VGA_ROM};

/// The most columns that a drawing takes.
pub const WIDTH: usize = 78;

/// What the blocks of the breakdown are.
const BLOCKS: [(&str, &str); 6] = [
    ("shadow", "the paging pool, in which Xen keeps the guest's page tables"),
    ("extra external", "what else Xen allocates on the guest's behalf"),
    ("extra internal", "room for pages that QEMU adds, such as option ROMs"),
    ("video", "the VGA card's memory, which QEMU adds"),
    ("guest", "the guest's own RAM"),
    ("balloon", "RAM that the guest sees but does not hold"),
];

/// What the brackets of the breakdown are, and how they are computed.
const SUMS: [(&str, &str); 7] = [
    ("static max", "the most that it may ever have: guest + balloon + video"),
    ("target", "what it runs with: guest + video"),
    ("build max", "the RAM that it sees, and QEMU's -m: static max − video"),
    ("build start", "the RAM that it is given to begin with: target − video"),
    ("xen max", "Xen's limit for it: static max + extra internal"),
    ("overhead", "shadow + extra external + extra internal"),
    ("footprint", "what the host must have free: target + overhead"),
];

/// Draws a plan: plain text of at most [`WIDTH`] columns, with box-drawing characters, without colours.
#[must_use]
pub fn render(plan: &Plan) -> String {
    let memory = &plan.memory;
    let mut out = format!("{}\n\n", title(plan));
    out.push_str("What its memory is made of (not to scale)\n\n");
    out.push_str(&breakdown::draw(memory));
    out.push('\n');
    let there = |word| match word {
        "video" => !memory.video.is_zero(),
        "balloon" => !memory.balloon.is_zero(),
        _ => true,
    };
    for (word, meaning) in BLOCKS.iter().filter(|(word, _)| there(word)).chain(&[("", "")]).chain(&SUMS) {
        out.push_str(format!(" {word:<14}  {meaning}").trim_end());
        out.push('\n');
    }
    if memory.populate_on_demand {
        out.push_str(&on_demand(memory));
    }
    out.push_str("\nWhere it stands in the guest (physical addresses, not to scale; dots: no RAM)\n\n");
    out.push_str(&map::draw(&plan.layout));
    out.push_str("\nWhat Xen will report (hvmloader adds a few pages of its own later)\n\n");
    out.push_str(&figures(plan));
    out
}

fn title(plan: &Plan) -> String {
    let memory = &plan.memory;
    let vcpus = if plan.vcpus == 1 { "1 vCPU".to_owned() } else { format!("{} vCPUs", plan.vcpus) };
    if memory.populate_on_demand {
        format!("HVM guest of {} that may grow to {}, with {vcpus}", memory.target, memory.static_max)
    } else {
        format!("HVM guest of {} with {vcpus}", memory.target)
    }
}

fn on_demand(memory: &Memory) -> String {
    let lines = [
        "Populate on demand: the guest holds less than it sees. Xen puts a page in".to_owned(),
        format!("where the guest first touches one, up to {} in all. Its balloon", memory.build_start),
        format!("driver has to give back {} soon: a guest that touches more", memory.balloon),
        "than it may hold is crashed by Xen.".to_owned(),
    ];
    format!("\n{}", lines.map(|line| format!(" {line}\n")).concat())
}

fn figures(plan: &Plan) -> String {
    let memory = &plan.memory;
    let special = SPECIAL_PAGES.get() + IOREQ_SERVER_PAGES.get();
    let running = if plan.owned_pages_running > plan.owned_pages_built {
        format!("+ {} of video RAM + {} of its ROM", memory.video.to_pages().get(), VGA_ROM.get())
    } else if plan.device_model {
        "the same: no VGA card".to_owned()
    } else {
        "the same: no device model".to_owned()
    };
    let lines = [
        ("max pages", plan.max_pages.get().to_string(), "xen max".to_owned()),
        (
            "owned pages, built",
            plan.owned_pages_built.get().to_string(),
            format!("build start − {} of VGA hole + {special} special", VGA_HOLE_PAGES.get()),
        ),
        ("owned pages, running", plan.owned_pages_running.get().to_string(), running),
        (
            "paging pool",
            memory.shadow.to_string(),
            format!("{SHADOW_PAGES_PER_VCPU} pages a vCPU + {SHADOW_PAGES_PER_MIB} a MiB of static max"),
        ),
    ];
    let width = lines.iter().map(|(_, value, _)| value.len()).max().unwrap_or(0);
    let mut out = lines.map(|(name, value, how)| format!(" {name:<20}  {value:>width$}  {how}\n")).concat();
    if plan.shadow_multiplier != ShadowMultiplier::ONE {
        out.push_str(&format!(" {:<20}  {:width$}  × {}\n", "", "", plan.shadow_multiplier));
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::layout::{DEFAULT_MMIO_START, FOUR_GIB};
    use super::super::model::{HVM_MAX_VCPUS, MAX_STATIC_MAX, Request};
    use super::super::units::{Bytes, Kib, MIB, Mib};
    use super::*;

    fn plan(target: u32, static_max: u32, video: u32) -> Plan {
        let request = Request {
            static_max: Some(Mib(static_max).to_kib()),
            video: Mib(video).to_kib(),
            ..Request::new(Mib(target).to_kib())
        };
        Plan::new(&request).expect("a plan")
    }

    /// Every line that a bracket or a box begins goes on without a gap until it ends.
    fn assert_unbroken(picture: &str) {
        let lines: Vec<Vec<char>> = picture.lines().map(|line| line.chars().collect()).collect();
        let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
        for column in 0..columns {
            let mut inside = false;
            for line in &lines {
                let c = line.get(column).copied().unwrap_or(' ');
                match c {
                    '┌' | '┐' => {
                        assert!(!inside, "a line begins twice in column {column} of\n{picture}");
                        inside = true;
                    }
                    '└' | '┘' => {
                        assert!(inside, "a line ends twice in column {column} of\n{picture}");
                        inside = false;
                    }
                    '│' | '├' | '┤' | '┼' => assert!(inside, "a stray {c} in column {column} of\n{picture}"),
                    _ => assert!(!inside, "a gap in column {column} of\n{picture}"),
                }
            }
            assert!(!inside, "no end in column {column} of\n{picture}");
        }
    }

    fn assert_well_formed(plan: &Plan) {
        let picture = render(plan);
        for line in picture.lines() {
            assert!(line.chars().count() <= WIDTH, "too wide: {line}");
            assert_eq!(line, line.trim_end());
            assert!(line.chars().all(|c| c.is_ascii() || "┌┐└┘├┤┼│─░·−×".contains(c)), "{line}");
        }
        let memory = &plan.memory;
        let breakdown = breakdown::draw(memory);
        assert_unbroken(&breakdown);
        assert_unbroken(&map::draw(&plan.layout));
        for (name, size) in
            [("build max", memory.build_max), ("footprint", memory.footprint), ("target", memory.target)]
        {
            let line = breakdown.lines().find(|line| line.contains(name)).expect(name);
            assert!(line.ends_with(&format!(" {size}")), "{line}");
        }
        assert_eq!(breakdown.contains("balloon"), !memory.balloon.is_zero());
        assert_eq!(breakdown.contains("video"), !memory.video.is_zero());
        assert_eq!(picture.contains("Populate on demand"), memory.populate_on_demand);
        assert_eq!(picture.contains("high RAM"), !plan.layout.highmem_end.is_zero());
        assert!(picture.contains(&format!(" {}  build start", plan.owned_pages_built.get())));
    }

    /// To see what changed, `dombuild plan --memory 4GiB --maxmem 5GiB --vcpus 2 --shadow-multiplier 1.5` draws this one.
    #[test]
    fn the_picture_of_a_guest_that_has_it_all() {
        let request = Request {
            static_max: Some(Kib(5 << 20)),
            vcpus: 2,
            shadow_multiplier: ShadowMultiplier::new(1.5).expect("a multiplier"),
            ..Request::new(Kib(4 << 20))
        };
        assert_eq!(render(&Plan::new(&request).expect("a plan")), include_str!("golden.txt"));
    }

    #[test]
    fn the_plain_ones() {
        for (target, static_max, video) in [(256, 256, 16), (256, 256, 0), (2, 2, 0), (2, 1 << 20, 0), (3840, 3840, 0)]
        {
            assert_well_formed(&plan(target, static_max, video));
        }
        let low = map::draw(&plan(256, 256, 16).layout);
        assert!(low.contains("unused") && low.contains(&format!("{:#x}", Mib(240).to_bytes().get())), "{low}");
        let full = map::draw(&plan(3840, 3840, 0).layout);
        assert!(!full.contains("unused") && !full.contains("high RAM"), "{full}");
        assert!(full.contains(&format!("{:#x}", DEFAULT_MMIO_START.get())), "{full}");
        assert!(full.starts_with(&format!(" {:#x} ", FOUR_GIB.get())), "{full}");
        let none = Request { device_model: false, ..Request::new(Kib(1 << 20)) };
        assert!(render(&Plan::new(&none).expect("a plan")).contains("no device model"));
    }

    #[test]
    fn the_widest_fit() {
        let most = MAX_STATIC_MAX.0 - 256;
        for target in [2, 1 << 23, most] {
            for vcpus in [1, HVM_MAX_VCPUS] {
                let request = Request {
                    static_max: Some(Mib(most).to_kib()),
                    video: Kib(0),
                    vcpus,
                    shadow_multiplier: ShadowMultiplier::new(99.000_000_000_000_01).expect("a multiplier"),
                    ..Request::new(Mib(target).to_kib())
                };
                assert_well_formed(&Plan::new(&request).expect("a plan"));
            }
        }
    }

    proptest! {
        #[test]
        fn every_plan_can_be_drawn(
            guest in 2_u32..1 << 23, balloon in prop_oneof![Just(0), 1_u32..1 << 22], shift in 0_u32..9,
            hole in 256..=2048_u64, vcpus in 1..=HVM_MAX_VCPUS, by in 0.001..=100.0_f64, device_model: bool,
        ) {
            let video = (1 << shift) / 2;
            let target = guest + video;
            let request = Request {
                static_max: Some(Mib(target + balloon).to_kib()),
                video: Mib(video).to_kib(),
                vcpus,
                shadow_multiplier: ShadowMultiplier::new(by).expect("a multiplier"),
                mmio_hole: Bytes(hole * MIB),
                device_model,
                ..Request::new(Mib(target).to_kib())
            };
            assert_well_formed(&Plan::new(&request).expect("a plan"));
        }
    }
}
