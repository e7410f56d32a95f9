//! Layouts of every kind.

use proptest::prelude::*;

use super::*;
use crate::limits::{MAX_E820_ENTRIES, MIN_LOWMEM, VGPU_VRAM};
use crate::reserved::Reserved;
use crate::units::{GIB, Gfn, MIB, Pages};

const HOLE: Bytes = DEFAULT_MMIO_HOLE;

fn hvm(build_max: u32, hole: Bytes) -> Result<Layout, PlanError> {
    Layout::new(Kind::Hvm, Mib(build_max).to_kib(), Some(hole))
}

fn ram(addr: u64, size: u64) -> E820Entry {
    E820Entry { addr: Bytes(addr), size: Bytes(size), kind: E820Kind::Ram }
}

#[test]
fn below_the_hole() {
    let layout = hvm(240, HOLE).expect("a layout");
    assert_eq!(layout.lowmem_end, Bytes(240 * MIB));
    assert_eq!((layout.mmio_start, layout.mmio_size), (DEFAULT_MMIO_START, HOLE));
    assert_eq!((layout.highmem_end, layout.highmem()), (Bytes(0), Bytes(0)));
    assert_eq!(layout.e820, [ram(0x10_0000, 239 * MIB)]);
}

#[test]
fn at_the_hole_and_across_it() {
    let full = hvm(3840, HOLE).expect("a layout");
    assert_eq!((full.lowmem_end, full.highmem_end, full.e820.len()), (DEFAULT_MMIO_START, Bytes(0), 1));

    let over = hvm(3841, HOLE).expect("a layout");
    assert_eq!((over.lowmem_end, over.highmem_end), (DEFAULT_MMIO_START, Bytes(0x1_0010_0000)));
    assert_eq!(over.e820, [ram(0x10_0000, 0xeff0_0000), ram(0x1_0000_0000, MIB)]);

    let wide = hvm(8176, MAX_MMIO_HOLE).expect("a layout");
    assert_eq!((wide.lowmem_end, wide.highmem_end), (Bytes(2 * GIB), Bytes(0x2_7f00_0000)));
    assert_eq!(wide.highmem(), Bytes(6128 * MIB));
    assert!(wide.has_custom_hole() && !over.has_custom_hole());
}

#[test]
fn pvh_around_its_hole() {
    let pvh = |mib: u32| Layout::new(Kind::Pvh, Mib(mib).to_kib(), None).expect("a layout");
    let entry = |addr, size, kind| E820Entry { addr: Bytes(addr), size: Bytes(size), kind };
    let acpi = entry(0xfc00_0000, 0x1000, E820Kind::Acpi);
    let special = entry(0xfeff_8000, 0x8000, E820Kind::Reserved);

    let low = pvh(256);
    assert_eq!((low.lowmem_end, low.highmem_end), (Bytes(256 * MIB), Bytes(0)));
    assert_eq!((low.mmio_start, low.mmio_size), (Bytes(0xfc00_0000), Bytes(64 * MIB)));
    assert_eq!(low.e820, [ram(0, 256 * MIB), acpi, special]);
    assert_eq!(pvh(4032).e820, [ram(0, 0xfc00_0000), acpi, special]);
    let over = pvh(4096);
    assert_eq!((over.lowmem_end, over.highmem_end), (Bytes(0xfc00_0000), Bytes(0x1_0400_0000)));
    assert_eq!(over.e820, [ram(0, 0xfc00_0000), acpi, special, ram(0x1_0000_0000, 64 * MIB)]);
    assert!(!over.has_custom_hole());
    assert_eq!(below_4_gib(PVH_MMIO_HOLE), ACPI_START);
}

#[test]
fn pv_without_a_gap() {
    let pv = Layout::new(Kind::Pv, Kib(8 << 20), None).expect("a layout");
    assert_eq!(pv.e820, [ram(0, 8 * GIB)]);
    assert_eq!((pv.lowmem_end, pv.highmem_end), (Bytes(8 * GIB), Bytes(0)));
    assert_eq!((pv.mmio_start, pv.mmio_size, pv.has_custom_hole()), (Bytes(0), Bytes(0), false));
    assert!(matches!(Layout::new(Kind::Pv, Kib(0), None), Err(PlanError::TooSmall { .. })));
}

#[test]
fn holes_that_cannot_be() {
    for kind in [Kind::Pvh, Kind::Pv] {
        let chosen = Layout::new(kind, Kib(1 << 20), Some(HOLE));
        assert_eq!(chosen, Err(PlanError::HoleNotHvm { kind }));
    }
    assert_eq!(Layout::new(Kind::Hvm, Kib(1 << 20), None), hvm(1024, HOLE));
    for hole in [0, 255 * MIB, 256 * MIB + 1, 256 * MIB + 4096, 2 * GIB + MIB, u64::MAX] {
        let hole = Bytes(hole);
        assert_eq!(hvm(256, hole), Err(PlanError::MmioHole { hole }));
    }
    assert!(matches!(hvm(1, HOLE), Err(PlanError::TooSmall { .. })));
}

#[test]
fn high_ram_ends_where_hvm_info_does() {
    let limit = Mib(MAX_COUNTABLE_SIZE.0 - 256);
    let most = hvm(limit.0, HOLE).expect("a layout");
    assert!(u32::try_from(most.highmem_end.0 / 4096).is_ok());
    for size in [limit.0 + 1, MAX_COUNTABLE_SIZE.0, u32::MAX] {
        let error = PlanError::TooLarge { what: "build max", size: Mib(size).to_kib(), limit };
        assert_eq!(hvm(size, HOLE), Err(error));
    }
}

#[test]
fn the_special_pages_are_in_order() {
    for (index, (gfn, _)) in (0..).zip(SPECIAL_PAGE_NAMES) {
        assert_eq!(FIRST_SPECIAL_PAGE.checked_add_pages(Pages(index)), Some(gfn));
    }
    assert_eq!(FIRST_IOREQ_SERVER_PAGE.checked_add_pages(IOREQ_SERVER_PAGES), Some(FIRST_SPECIAL_PAGE));
    assert_eq!(CONSOLE.checked_add_pages(Pages(1)), Some(Gfn(0xff000)));
    assert_eq!(VGA_HOLE_END.checked_sub(VGA_HOLE_START).and_then(Bytes::to_pages_exact), Some(VGA_HOLE_PAGES));
    assert_eq!(HVM_INFO.checked_add_pages(Pages(1)), Some(VGA_HOLE_START.to_gfn_floor()));
    assert_eq!(FOUR_GIB.checked_sub(HOLE), Some(DEFAULT_MMIO_START));
}

proptest! {
    #[test]
    fn ram_is_conserved_and_the_map_in_order(build_max in 2_u32..1 << 23, hole in 256_u64..=2048) {
        let layout = hvm(build_max, Bytes(hole * MIB)).expect("a layout");
        prop_assert_eq!(layout.lowmem_end.0 + layout.highmem().0, Mib(build_max).to_bytes().0);
        prop_assert!(layout.lowmem_end <= layout.mmio_start);
        prop_assert_eq!(layout.mmio_start.0 + layout.mmio_size.0, FOUR_GIB.0);
        prop_assert!(layout.highmem_end.is_zero() || layout.highmem_end > FOUR_GIB);
        prop_assert!(layout.highmem_end.is_zero() || layout.lowmem_end == layout.mmio_start);
        prop_assert!(layout.e820.iter().all(|entry| !entry.size.is_zero()));
        prop_assert!(layout.e820.windows(2).all(|pair| pair[0].addr.0 + pair[0].size.0 <= pair[1].addr.0));
        let mapped: u64 = layout.e820.iter().map(|entry| entry.size.0).sum();
        prop_assert_eq!(mapped + MIB, Mib(build_max).to_bytes().0);

        let more = hvm(build_max + 1, Bytes(hole * MIB)).expect("a layout");
        prop_assert!(more.lowmem_end >= layout.lowmem_end && more.highmem_end >= layout.highmem_end);
    }

    #[test]
    fn pvh_and_pv_conserve_ram_too(build_max in 2_u32..1 << 23) {
        for kind in [Kind::Pvh, Kind::Pv] {
            let layout = Layout::new(kind, Mib(build_max).to_kib(), None).expect("a layout");
            let size = Mib(build_max).to_bytes().0;
            prop_assert_eq!(layout.lowmem_end.0 + layout.highmem().0, size);
            prop_assert!(layout.e820.iter().all(|entry| !entry.size.is_zero()));
            prop_assert!(layout.e820.windows(2).all(|pair| pair[0].addr.0 + pair[0].size.0 <= pair[1].addr.0));
            let mapped = layout.e820.iter().filter(|entry| entry.kind == E820Kind::Ram);
            prop_assert_eq!(mapped.map(|entry| entry.size.0).sum::<u64>(), size);
            prop_assert!(!layout.has_custom_hole());
        }
    }

    #[test]
    fn no_input_panics(build_max: u64, hole: Option<u64>) {
        for kind in Kind::ALL {
            let _ = Layout::new(kind, Kib(build_max), hole.map(Bytes));
        }
    }
}

fn region(start: u64, size: u64) -> Reserved {
    Reserved { start: Bytes(start), size: Bytes(size) }
}

fn reserved(addr: u64, size: u64) -> E820Entry {
    E820Entry { addr: Bytes(addr), size: Bytes(size), kind: E820Kind::Reserved }
}

#[test]
fn a_region_in_low_ram_ends_it() {
    // Of 4 GiB with the default hole, 256 MiB are above 4 GiB already.
    let layout = hvm(4096, HOLE).expect("a layout");
    let around = layout.with_reserved(&[region(0x7b80_1000, 0x4000)], false).expect("a layout");
    assert_eq!((around.lowmem_end, around.mmio_start), (Bytes(0x7b80_0000), Bytes(0x7b80_0000)));
    assert_eq!(around.mmio_size, Bytes(0x8480_0000));
    assert_eq!(around.highmem(), Bytes(4 * GIB - 0x7b80_0000));
    let high = ram(4 * GIB, 0x8480_0000);
    assert_eq!(around.e820, [ram(0x10_0000, 0x7b70_0000), reserved(0x7b80_1000, 0x4000), high]);
    assert!(around.has_custom_hole());

    // Low RAM that ends below the default hole: the hole is extended down to it.
    let small = hvm(1024, HOLE).expect("a layout").with_reserved(&[region(0x3fff_f000, 0x1000)], false);
    let small = small.expect("a layout");
    assert_eq!((small.lowmem_end, small.mmio_start), (Bytes(0x3fe0_0000), Bytes(0x3fe0_0000)));
    assert_eq!(small.highmem(), Bytes(2 * MIB));
    assert_eq!(small.e820.last(), Some(&ram(4 * GIB, 2 * MIB)));
}

#[test]
fn a_region_elsewhere_moves_no_ram() {
    let plain = hvm(1024, HOLE).expect("a layout");
    for start in [0x4000_0000, 0x8000_0000, 0xefff_f000, 0xf000_0000, 0xfbff_e000, 4 * GIB, 8 * GIB] {
        let around = plain.clone().with_reserved(&[region(start, 0x2000)], false).expect("a layout");
        assert_eq!((around.lowmem_end, around.highmem_end), (plain.lowmem_end, plain.highmem_end));
        assert_eq!((around.mmio_start, around.mmio_size), (plain.mmio_start, plain.mmio_size));
        assert_eq!(around.e820, [plain.e820[0], reserved(start, 0x2000)]);
    }
    assert_eq!(plain.clone().with_reserved(&[], false), Ok(plain));
}

#[test]
fn regions_are_sorted_and_merged() {
    let regions = [
        region(0xe000_0000, 0x2000),
        region(0xc000_0000, 0x1000),
        region(0xe000_1000, 0x3000),
        region(0xc000_0000, 0x1000),
    ];
    let layout = hvm(64, HOLE).expect("a layout").with_reserved(&regions, false).expect("a layout");
    assert_eq!(layout.e820[1..], [reserved(0xc000_0000, 0x1000), reserved(0xe000_0000, 0x4000)]);
    let touching = [region(0xc000_1000, 0x1000), region(0xc000_0000, 0x1000)];
    let layout = hvm(64, HOLE).expect("a layout").with_reserved(&touching, false).expect("a layout");
    assert_eq!(layout.e820[1..], [reserved(0xc000_0000, 0x2000)]);
}

#[test]
fn regions_that_cannot_be() {
    let with = |mib, region| hvm(mib, HOLE).expect("a layout").with_reserved(&[region], false);
    for bad in [region(0, 0x1000), region(0xf_f000, 0x1000), region(0xf_f000, 0x2000), region(0xff_f000, 0x1000)] {
        assert_eq!(with(64, bad), Err(PlanError::ReservedTooLow { region: bad }));
    }
    // A region above a small guest's RAM changes nothing; one inside it must leave 16 MiB.
    assert!(with(8, region(0xc0_0000, 0x1000)).is_ok());
    assert_eq!(with(64, region(0x101_f000, 0x1000)).expect("a layout").lowmem_end, MIN_LOWMEM);
    for bad in [
        region(0xfbff_f000, 0x2000),
        region(0xfc00_0000, 0x1000),
        region(0xfeff_c000, 0x1000),
        region(0xffff_f000, 0x2000),
    ] {
        assert_eq!(with(64, bad), Err(PlanError::ReservedInFirmware { region: bad }));
    }
    let high = region(4 * GIB + 255 * MIB, MIB);
    let error = PlanError::ReservedInHighRam { region: high, end: Bytes(4 * GIB + 256 * MIB) };
    assert_eq!(with(4096, high), Err(error));
    assert!(with(4095, high).is_ok());
    for bad in [
        region(0xc000_0000, 0),
        region(0xc000_0800, 0x1000),
        region(0xc000_0000, 0x800),
        region(u64::MAX - 0xfff, 0x1000),
    ] {
        assert_eq!(with(64, bad), Err(PlanError::ReservedNotPages { region: bad }));
    }
    for kind in [Kind::Pvh, Kind::Pv] {
        let layout = Layout::new(kind, Kib(1 << 20), None).expect("a layout");
        assert_eq!(layout.clone().with_reserved(&[high], false), Err(PlanError::ReservedNotHvm { kind }));
        assert_eq!(layout.with_reserved(&[], true), Err(PlanError::ReservedNotHvm { kind }));
    }
    let many: Vec<Reserved> = (0..127).map(|index| region(0x8000_0000 + index * 0x2000, 0x1000)).collect();
    let small = hvm(64, HOLE).expect("a layout");
    assert_eq!(small.clone().with_reserved(&many, false).expect("a layout").e820.len(), MAX_E820_ENTRIES);
    assert_eq!(small.with_reserved(&many, true), Err(PlanError::TooManyRegions { entries: 129 }));
    // The displaced RAM counts towards hvm_info's limit too.
    let most = hvm(MAX_COUNTABLE_SIZE.0 - 256, HOLE).expect("a layout");
    assert!(matches!(most.with_reserved(&[region(0x8000_0000, 0x1000)], false), Err(PlanError::TooLarge { .. })));
}

#[test]
fn a_vgpu_has_a_place() {
    let place = |mib, hole, regions: &[Reserved]| {
        hvm(mib, Bytes(hole * MIB)).expect("a layout").with_reserved(regions, true).map(|layout| layout.vram)
    };
    assert_eq!(place(4096, 512, &[]), Ok(Some(Bytes(0xfb00_0000))));
    assert_eq!(place(4096, 512, &[region(0xfbff_f000, 0x1000)]), Ok(Some(Bytes(0xfa00_0000))));
    assert_eq!(place(64, 512, &[region(0xf900_0000, 0x280_0000)]), Ok(Some(Bytes(0xf800_0000))));
    assert_eq!(place(64, 256, &[region(0xf100_0000, 0xa80_0000)]), Ok(Some(Bytes(0xf000_0000))));
    let error = PlanError::NoRoomForVram { hole: Bytes(256 * MIB) };
    assert_eq!(place(64, 256, &[region(0xf080_0000, 0xb00_0000)]), Err(error));
    let layout = hvm(4096, Bytes(512 * MIB)).expect("a layout").with_reserved(&[], true).expect("a layout");
    assert_eq!(layout.e820[1], reserved(0xfb00_0000, 16 * MIB));
    assert_eq!(layout.e820.len(), 3);
}

prop_compose! {
    /// Regions of a host, close to one another and to forbidden addresses.
    fn regions()(
        starts in prop::collection::vec(prop_oneof![
            0x100_u64..0xfd000, 0xf000_u64..0x12000, 0xeff00_u64..0xf0100, 0xffff0_u64..0x10_0100, 0x10_0000_u64..0x80_0000,
        ], 0..12),
        sizes in prop::collection::vec(1_u64..0x200, 12),
    ) -> Vec<Reserved> {
        starts.into_iter().zip(sizes).map(|(start, size)| region(start * 4096, size * 4096)).collect()
    }
}

proptest! {
    #[test]
    fn ram_is_conserved_around_any_regions(
        build_max in 2_u32..1 << 14, hole in 256_u64..=2048, wanted in regions(), vgpu: bool,
    ) {
        let plain = hvm(build_max, Bytes(hole * MIB)).expect("a layout");
        let Ok(layout) = plain.clone().with_reserved(&wanted, vgpu) else { return Ok(()) };
        let size = Mib(build_max).to_bytes().0;
        prop_assert_eq!(layout.lowmem_end.0 + layout.highmem().0, size);
        prop_assert_eq!(layout.mmio_start.0 + layout.mmio_size.0, FOUR_GIB.0);
        prop_assert!(layout.lowmem_end <= layout.mmio_start && layout.mmio_start <= plain.mmio_start);
        prop_assert!(layout.mmio_size.to_mib_exact().is_some());
        prop_assert!(layout.highmem_end.is_zero() || layout.lowmem_end == layout.mmio_start);
        prop_assert!(layout.lowmem_end == plain.lowmem_end || layout.lowmem_end >= MIN_LOWMEM);

        let e820 = &layout.e820;
        prop_assert!(e820.len() <= MAX_E820_ENTRIES && e820.iter().all(|entry| !entry.size.is_zero()));
        prop_assert!(e820.windows(2).all(|pair| pair[0].addr.0 + pair[0].size.0 <= pair[1].addr.0));
        let of = |kind| e820.iter().filter(move |entry| entry.kind == kind);
        prop_assert_eq!(of(E820Kind::Ram).map(|entry| entry.size.0).sum::<u64>() + MIB, size);
        let within = |at: u64| of(E820Kind::Reserved).any(|entry| entry.addr.0 <= at && at < entry.addr.0 + entry.size.0);
        for region in &wanted {
            prop_assert!(within(region.start.0) && within(region.start.0 + region.size.0 - 1));
        }
        for entry in of(E820Kind::Reserved).filter(|entry| layout.vram != Some(entry.addr)) {
            prop_assert!(wanted.iter().any(|region| region.start == entry.addr));
        }
        prop_assert_eq!(layout.vram.is_some(), vgpu);
        if let Some(vram) = layout.vram {
            prop_assert!(vram >= layout.mmio_start && e820.contains(&reserved(vram.0, VGPU_VRAM.0)));
        }
        let mut turned = wanted;
        turned.reverse();
        prop_assert_eq!(plain.with_reserved(&turned, vgpu), Ok(layout));
    }

    #[test]
    fn no_region_panics(build_max in 2_u32..1 << 23, all in prop::collection::vec((any::<u64>(), any::<u64>()), 0..8)) {
        let wanted: Vec<Reserved> = all.into_iter().map(|(start, size)| region(start & !0xfff, size & !0xfff)).collect();
        for vgpu in [false, true] {
            let _ = hvm(build_max, HOLE).expect("a layout").with_reserved(&wanted, vgpu);
        }
    }
}

/// Populates the layout on a host that grants at most `granted` extents of each order; returns the extents.
fn populate(layout: &Layout, granted: &mut impl FnMut(Extents) -> u64) -> Vec<(u64, u64, u32)> {
    let mut got = Vec::new();
    for (start, end) in layout.populated() {
        let (mut at, mut most) = (start, ORDERS[0]);
        while at < end {
            let extents = Extents::next(at, end, most);
            assert!((1..=512).contains(&extents.count) && extents.first.0 == at, "{extents:?}");
            assert_eq!(at % (1 << extents.order), 0, "{extents:?}");
            let done = if extents.order == 0 { extents.count } else { granted(extents).min(extents.count) };
            got.push((at, extents.pages(done).0, extents.order));
            at += extents.pages(done).0;
            most = extents.smaller().filter(|_| done < extents.count).unwrap_or(ORDERS[0]);
        }
        assert_eq!(at, end, "and no further");
    }
    got
}

#[test]
fn the_largest_pages_that_fit() {
    let layout = hvm(1024 + 512 + 1, DEFAULT_MMIO_HOLE).expect("a layout");
    assert_eq!(
        populate(&layout, &mut |extents| extents.count),
        [(0, 0xa0, 0), (0xc0, 0x140, 0), (0x200, 0x3_fe00, 9), (0x4_0000, 0x2_0000, 9), (0x6_0000, 0x100, 0)]
    );
    let layout = Layout::new(Kind::Pvh, Mib(5 << 10).to_kib(), None).expect("a layout");
    assert_eq!(
        populate(&layout, &mut |extents| extents.count),
        [
            (0, 0x4_0000, 18),
            (0x4_0000, 0x4_0000, 18),
            (0x8_0000, 0x4_0000, 18),
            (0xc_0000, 0x3_c000, 9),
            (0x10_0000, 0x4_0000, 18),
            (0x14_0000, 0x4000, 9)
        ]
    );
}

proptest! {
    #[test]
    fn every_frame_of_ram_is_populated_once(build_max in 2_u32..1 << 15, given in prop::collection::vec(0_u64..600, 1..9)) {
        for kind in [Kind::Hvm, Kind::Pvh] {
            let layout = Layout::new(kind, Mib(build_max).to_kib(), None).expect("a layout");
            let mut turn = given.iter().cycle();
            let all = populate(&layout, &mut |_| *turn.next().expect("endless"));
            let pages: u64 = all.iter().map(|(_, pages, _)| pages).sum();
            let hole = if kind == Kind::Hvm { VGA_HOLE_PAGES.0 } else { 0 };
            prop_assert_eq!(pages + hole, u64::from(build_max) * 256);
        }
    }
}
