//! Layouts of every kind.

use proptest::prelude::*;

use super::super::units::{GIB, Gfn, MIB, Pages};
use super::*;

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
    let limit = Mib(MAX_COUNTED.0 - 256);
    let most = hvm(limit.0, HOLE).expect("a layout");
    assert!(u32::try_from(most.highmem_end.0 / 4096).is_ok());
    for size in [limit.0 + 1, MAX_COUNTED.0, u32::MAX] {
        let error = PlanError::TooLarge { what: "build max", size: Mib(size).to_kib(), limit };
        assert_eq!(hvm(size, HOLE), Err(error));
    }
}

#[test]
fn the_special_pages_are_in_order() {
    for (index, (gfn, _)) in (0..).zip(SPECIAL_PAGE_NAMES) {
        assert_eq!(SPECIAL_FIRST.checked_add_pages(Pages(index)), Some(gfn));
    }
    assert_eq!(IOREQ_SERVER_FIRST.checked_add_pages(IOREQ_SERVER_PAGES), Some(SPECIAL_FIRST));
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
