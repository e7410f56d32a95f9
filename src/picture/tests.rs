//! Drawings of every kind and model.

use proptest::prelude::*;

use super::regions::Map;
use super::stack::{Stack, short};
use super::text::{WIDTH, render};
use super::*;
use crate::memory::layout::{DEFAULT_MMIO_START, FOUR_GIB};
use crate::memory::limits::{HVM_MAX_VCPUS, MAX_STATIC_MAX};
use crate::memory::multiplier::ShadowMultiplier;
use crate::memory::request::Request;
use crate::memory::reserved::Reserved;
use crate::memory::units::{Bytes, Kib, MIB, Mib};
use crate::memory::{Kind, Model, Plan};

fn plan(target: u32, static_max: u32, video: u32) -> Plan {
    let request = Request {
        static_max: Some(Mib(static_max).to_kib()),
        video: Some(Mib(video).to_kib()),
        ..Request::new(Mib(target).to_kib())
    };
    Plan::new(&request).expect("a plan")
}

/// Checks that each line of a bracket or box is continuous.
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
    let breakdown = breakdown::draw(&Stack::new(plan));
    assert_unbroken(&breakdown);
    assert_unbroken(&map::draw(&Map::new(plan)));
    for (name, size) in [("build max", memory.build_max), ("footprint", memory.footprint), ("target", memory.target)] {
        let line = breakdown.lines().find(|line| line.contains(name)).expect(name);
        assert!(line.ends_with(&format!(" {}", short(size))), "{line}");
    }
    assert_eq!(breakdown.contains("balloon"), !memory.balloon.is_zero());
    assert_eq!(breakdown.contains("video"), !memory.video.is_zero());
    assert_eq!(picture.contains("Populate on demand"), memory.populate_on_demand);
    assert_eq!(picture.contains("high RAM"), !plan.layout.highmem_end.is_zero());
    assert!(picture.contains(&format!(" {}  build start", plan.owned_pages_built.get())));
}

/// The output of `dombuild plan --memory 4GiB --maxmem 5GiB --vcpus 2 --shadow-multiplier 1.5`.
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
    for (target, static_max, video) in [(256, 256, 16), (256, 256, 0), (2, 2, 0), (2, 1 << 20, 0), (3840, 3840, 0)] {
        assert_well_formed(&plan(target, static_max, video));
    }
    let low = map::draw(&Map::new(&plan(256, 256, 16)));
    assert!(low.contains("unused") && low.contains(&format!("{:#x}", Mib(240).to_bytes().get())), "{low}");
    let full = map::draw(&Map::new(&plan(3840, 3840, 0)));
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
                video: Some(Kib(0)),
                vcpus,
                shadow_multiplier: ShadowMultiplier::new(99.000_000_000_000_01).expect("a multiplier"),
                ..Request::new(Mib(target).to_kib())
            };
            assert_well_formed(&Plan::new(&request).expect("a plan"));
        }
    }
}

#[test]
fn every_kind_and_model() {
    for kind in Kind::ALL {
        for model in Model::ALL {
            for (target, static_max) in [(Kib(1 << 20), Kib(1 << 20)), (Kib(1 << 20), Kib(5 << 20))] {
                let request = Request { kind, model, static_max: Some(static_max), ..Request::new(target) };
                let plan = Plan::new(&request).expect("a plan");
                assert_well_formed(&plan);
                let picture = render(&plan);
                let title = format!("{} guest of 1024 MiB", kind.name().to_uppercase());
                assert!(picture.starts_with(&title), "{picture}");
                let first = picture.lines().next().expect("a title");
                assert_eq!(first.contains(&format!("({model})")), model != Model::Xenops, "{first}");
                assert_eq!(picture.contains("VGA"), kind == Kind::Hvm, "{picture}");
                assert_eq!(picture.contains("hvmloader"), kind == Kind::Hvm, "{picture}");
                assert_eq!(picture.contains("MMIO hole"), kind != Kind::Pv, "{picture}");
                assert_eq!(picture.contains(" vcpu overhead "), model == Model::Xapi, "{picture}");
            }
        }
    }
}

/// Each named sum except one is a run of blocks, for every kind and model.
#[test]
fn the_sums_are_runs() {
    for kind in Kind::ALL {
        for model in Model::ALL {
            for static_max in [1 << 20, 3 << 20] {
                let request = Request { kind, model, static_max: Some(Kib(static_max)), ..Request::new(Kib(1 << 20)) };
                let stack = Stack::new(&Plan::new(&request).expect("a plan"));
                assert!(stack.sums.iter().all(|sum| sum.span.is_some()), "{stack:?}");
            }
        }
    }
    // The shim needs more for a guest that may grow than for its start size.
    let shim = Request {
        kind: Kind::Pvh,
        model: Model::Xapi,
        shim: true,
        static_max: Some(Kib(2 << 20)),
        ..Request::new(Kib(1 << 20))
    };
    let plan = Plan::new(&shim).expect("a plan");
    let stack = Stack::new(&plan);
    let without: Vec<&str> = stack.sums.iter().filter(|sum| sum.span.is_none()).map(|sum| sum.name).collect();
    assert_eq!(without, ["build start"]);
    assert_well_formed(&plan);
    assert!(render(&plan).contains(" build start     1058 MiB: what it starts with: target + shim for that\n"));
}

/// Sizes that are not whole MiB are long, and libxl accepts them.
#[test]
fn the_widest_by_libxl() {
    let most = Mib(MAX_STATIC_MAX.0 - 256).to_kib().0;
    let request = Request {
        model: Model::Libxl,
        static_max: Some(Kib(most)),
        video: Some(Kib(0)),
        vcpus: HVM_MAX_VCPUS,
        shadow_multiplier: ShadowMultiplier::new(99.000_000_000_000_01).expect("a multiplier"),
        ..Request::new(Kib(most - 3))
    };
    assert_well_formed(&Plan::new(&request).expect("a plan"));
}

proptest! {
    #[test]
    fn every_plan_can_be_drawn(
        guest in 2_u32..1 << 23, balloon in prop_oneof![Just(0), 1_u32..1 << 22], shift in 0_u32..9,
        hole in 256..=2048_u64, vcpus in 1..=HVM_MAX_VCPUS, by in 0.001..=100.0_f64, device_model: bool,
        kind in prop::sample::select(Kind::ALL.to_vec()), model in prop::sample::select(Model::ALL.to_vec()),
        (shim, cut) in (any::<bool>(), 0_u64..1024),
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
        assert_well_formed(&Plan::new(&request).expect("a plan"));
    }
}

#[test]
fn what_is_reserved_is_drawn() {
    let reserve = |mib: u32, regions: &[(u64, u64)], vgpu| {
        let reserved = regions.iter().map(|(start, size)| Reserved { start: Bytes(*start), size: Bytes(*size) });
        let request = Request { reserved: reserved.collect(), vgpu, ..Request::new(Mib(mib).to_kib()) };
        let plan = Plan::new(&request).expect("a plan");
        assert_well_formed(&plan);
        let map = Map::new(&plan);
        assert!(map.regions.windows(2).all(|pair| pair[0].start > pair[1].start), "{map:?}");
        assert_eq!(map.regions.iter().filter(|region| Some(region.start) == map.hole).count(), 1);
        assert!(map.regions.iter().all(|region| !region.notes.is_empty()));
        map::draw(&map)
    };
    // If low RAM and the hole meet, the region is the first one in the hole, and the hole keeps its name.
    let at_the_hole = reserve(4096, &[(0x7b80_0000, 0x10_0000)], false);
    for words in
        ["0x7b800000", "0x7b900000", "mmio_start, lowmem_end", "1 MiB, the host's, for a device", "MMIO hole: 2120 MiB"]
    {
        assert!(at_the_hole.contains(words), "{words} in\n{at_the_hole}");
    }
    // In the middle of the hole, across its start, in unused addresses, and above all RAM.
    let many = reserve(
        1024,
        &[(0xf800_0000, 0x1000), (0xefff_0000, 0x2_0000), (0x8000_0000, 0x1000), (8 << 30, 0x1000)],
        true,
    );
    assert_eq!(many.matches(" reserved ").count(), 6, "{many}");
    for words in ["16 MiB, for a vGPU's memory", "4 KiB, the host's, for a device", "0x200001000", "MMIO hole: 256 MiB"]
    {
        assert!(many.contains(words), "{words} in\n{many}");
    }
    assert!(!reserve(256, &[], false).contains("reserved"));
    assert_eq!(reserve(8192, &[(12 << 30, 0x1000), (0xf000_0000, 0x1000)], false).matches(" reserved ").count(), 2);
}
