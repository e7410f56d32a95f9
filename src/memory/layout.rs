//! Where a domain's memory stands in its physical address space, as libxl lays it out (Xen 4.17).
//!
//! The constants stand in order of address:
//!
//! ```text
//!       0 –   a0000   low RAM below the VGA hole; the page at 9f000 holds hvm_info
//!   a0000 –   c0000   VGA hole: never populated by the builder
//!   c0000 –  100000   RAM, into which hvmloader puts option ROMs and the BIOS
//!  100000 – lowmem    low RAM, up to the MMIO hole at most
//!  mmio_start – 4 GiB MMIO hole: PCI windows, and from feff0000 on the special pages
//!   4 GiB – highmem   high RAM, what the hole displaced
//! ```

use serde::Serialize;

use super::error::PlanError;
use super::model::{DEFAULT_MMIO_HOLE, MAX_COUNTED, MAX_MMIO_HOLE};
use super::units::{Bytes, GIB, Gfn, KIB, MIB, Mib, Pages};

/// Frame of the hvm_info table (`HVM_INFO_PFN`, `xen/include/public/hvm/hvm_info_table.h`).
pub const HVM_INFO: Gfn = Gfn(0x9f);
/// Where the VGA hole begins: 640 KiB.
pub const VGA_HOLE_START: Bytes = Bytes(640 * KIB);
/// Length of the VGA hole (`LIBXL_VGA_HOLE_SIZE`, `tools/libs/light/libxl_internal.h`).
pub const VGA_HOLE_PAGES: Pages = Pages(32);
/// Where the VGA hole ends: 768 KiB.
pub const VGA_HOLE_END: Bytes = Bytes(768 * KIB);
/// Where the e820 map's low RAM begins; what is below, hvmloader describes (`GUEST_LOW_MEM_START_DEFAULT`,
/// `tools/libs/light/libxl_x86.c`).
pub const E820_LOW_START: Bytes = Bytes(MIB);
/// Start of the default MMIO hole (`HVM_BELOW_4G_MMIO_START`, `xen/include/public/hvm/e820.h`).
pub const DEFAULT_MMIO_START: Bytes = Bytes(0xf000_0000);
/// End of the window in which hvmloader places PCI devices, and start of its own reserved area with the ACPI tables
/// (`RESERVED_MEMBASE`, `tools/firmware/hvmloader/config.h`).
pub const HVMLOADER_RESERVED: Bytes = Bytes(0xfc00_0000);
/// The I/O APIC (`ioapic_base_address`, `tools/firmware/hvmloader/hvmloader.c`).
pub const IO_APIC: Bytes = Bytes(0xfec0_0000);
/// The local APIC (`LAPIC_BASE_ADDRESS`, `tools/firmware/hvmloader/config.h`).
pub const LOCAL_APIC: Bytes = Bytes(0xfee0_0000);
/// First of the pages for ioreq servers (`ioreq_server_pfn(0)`, `tools/libs/guest/xg_dom_x86.c`), and where hvm_info says
/// that reserved frames begin.
pub const IOREQ_SERVER_FIRST: Gfn = Gfn(0xfeff0);
/// How many pages there are for ioreq servers (`NR_IOREQ_SERVER_PAGES`, same file).
pub const IOREQ_SERVER_PAGES: Pages = Pages(8);
/// First of the special pages (`X86_HVM_END_SPECIAL_REGION - X86_HVM_NR_SPECIAL_PAGES`, `tools/include/xenguest.h`).
pub const SPECIAL_FIRST: Gfn = Gfn(0xfeff8);
/// How many special pages there are (`X86_HVM_NR_SPECIAL_PAGES`, same file).
pub const SPECIAL_PAGES: Pages = Pages(8);
/// Page of the ring for memory paging events.
pub const PAGING_RING: Gfn = Gfn(0xfeff8);
/// Page of the ring for monitor (once: access) events.
pub const MONITOR_RING: Gfn = Gfn(0xfeff9);
/// Page of the ring for memory sharing events.
pub const SHARING_RING: Gfn = Gfn(0xfeffa);
/// Page of buffered I/O requests to the device model.
pub const BUFIOREQ: Gfn = Gfn(0xfeffb);
/// Page shared with xenstored.
pub const XENSTORE: Gfn = Gfn(0xfeffc);
/// Page of I/O requests to the device model.
pub const IOREQ: Gfn = Gfn(0xfeffd);
/// Page of the identity page table that stands in while a vCPU has paging off.
pub const IDENT_PT: Gfn = Gfn(0xfeffe);
/// Page of the PV console.
pub const CONSOLE: Gfn = Gfn(0xfefff);
/// The special pages in order of frame, each with its name (`SPECIALPAGE_*`, `tools/libs/guest/xg_dom_x86.c`).
pub const SPECIAL_PAGE_NAMES: [(Gfn, &str); 8] = [
    (PAGING_RING, "paging ring"),
    (MONITOR_RING, "monitor ring"),
    (SHARING_RING, "sharing ring"),
    (BUFIOREQ, "bufioreq"),
    (XENSTORE, "xenstore"),
    (IOREQ, "ioreq"),
    (IDENT_PT, "ident_pt"),
    (CONSOLE, "console"),
];
/// Where the MMIO hole ends and high RAM begins.
pub const FOUR_GIB: Bytes = Bytes(4 * GIB);

/// What an e820 entry describes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum E820Kind {
    /// RAM for the guest to use.
    Ram,
    /// Not for the guest to use.
    Reserved,
}

/// One range of the memory map that hvmloader is given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct E820Entry {
    /// Guest-physical address of its first byte.
    pub addr: Bytes,
    /// Its length, never 0.
    pub size: Bytes,
    /// What it describes.
    #[serde(rename = "type")]
    pub kind: E820Kind,
}

/// The guest-physical layout: addresses in bytes, all of them multiples of 1 MiB.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Layout {
    /// End of low RAM: build max, or where the MMIO hole begins.
    pub lowmem_end: Bytes,
    /// Start of the MMIO hole, which ends at 4 GiB.
    pub mmio_start: Bytes,
    /// Length of the MMIO hole.
    pub mmio_size: Bytes,
    /// End of high RAM, which begins at 4 GiB; 0 where there is none.
    pub highmem_end: Bytes,
    /// The map for `xc_domain_set_memory_map`: RAM from 1 MiB to the end of low RAM, and high RAM where there is any.
    pub e820: Vec<E820Entry>,
}

impl Layout {
    /// The layout of `build_max` of RAM around a hole of `mmio_hole` below 4 GiB, as `libxl__build_hvm` and
    /// `domain_construct_memmap` make it.
    ///
    /// # Errors
    /// [`PlanError::MmioHole`] for a hole outside 256 MiB to 2 GiB or not of whole MiB; [`PlanError::TooLarge`] where high RAM would
    /// end past what hvm_info can say; [`PlanError::TooSmall`] where there is nothing above 1 MiB.
    pub fn new(build_max: Mib, mmio_hole: Bytes) -> Result<Self, PlanError> {
        let bad_hole = PlanError::MmioHole { hole: mmio_hole };
        if !(DEFAULT_MMIO_HOLE..=MAX_MMIO_HOLE).contains(&mmio_hole) {
            return Err(bad_hole);
        }
        let hole = mmio_hole.to_mib_exact().ok_or_else(|| bad_hole.clone())?;
        let mmio_start = FOUR_GIB.checked_sub(mmio_hole).ok_or(bad_hole)?;

        let ram = build_max.to_bytes();
        let limit = Mib(MAX_COUNTED.get().saturating_sub(hole.get()));
        let (lowmem_end, highmem_end) = match ram.checked_sub(mmio_start) {
            Some(above) if !above.is_zero() => {
                let end = FOUR_GIB.checked_add(above).filter(|_| build_max <= limit);
                let too_large = PlanError::TooLarge { what: "build max", size: build_max.to_kib(), limit };
                (mmio_start, end.ok_or(too_large)?)
            }
            _ => (ram, Bytes::ZERO),
        };

        let range = |from: Bytes, to: Bytes| {
            to.checked_sub(from).filter(|size| !size.is_zero()).map(|size| E820Entry {
                addr: from,
                size,
                kind: E820Kind::Ram,
            })
        };
        let low =
            range(E820_LOW_START, lowmem_end).ok_or(PlanError::TooSmall { target: build_max, video: Mib::ZERO })?;
        let e820 = [Some(low), range(FOUR_GIB, highmem_end)].into_iter().flatten().collect();
        Ok(Self { lowmem_end, mmio_start, mmio_size: mmio_hole, highmem_end, e820 })
    }

    /// Whether the MMIO hole is not the default one, so that hvmloader has to be told of it.
    #[must_use]
    pub fn has_custom_hole(&self) -> bool {
        self.mmio_size != DEFAULT_MMIO_HOLE
    }

    /// RAM above 4 GiB.
    #[must_use]
    pub fn highmem(&self) -> Bytes {
        self.highmem_end.checked_sub(FOUR_GIB).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HOLE: Bytes = DEFAULT_MMIO_HOLE;

    fn ram(addr: u64, size: u64) -> E820Entry {
        E820Entry { addr: Bytes(addr), size: Bytes(size), kind: E820Kind::Ram }
    }

    #[test]
    fn below_the_hole() {
        let layout = Layout::new(Mib(240), HOLE).expect("a layout");
        assert_eq!(layout.lowmem_end, Bytes(240 * MIB));
        assert_eq!((layout.mmio_start, layout.mmio_size), (DEFAULT_MMIO_START, HOLE));
        assert_eq!((layout.highmem_end, layout.highmem()), (Bytes(0), Bytes(0)));
        assert_eq!(layout.e820, [ram(0x10_0000, 239 * MIB)]);
    }

    #[test]
    fn at_the_hole_and_across_it() {
        let full = Layout::new(Mib(3840), HOLE).expect("a layout");
        assert_eq!((full.lowmem_end, full.highmem_end, full.e820.len()), (DEFAULT_MMIO_START, Bytes(0), 1));

        let over = Layout::new(Mib(3841), HOLE).expect("a layout");
        assert_eq!((over.lowmem_end, over.highmem_end), (DEFAULT_MMIO_START, Bytes(0x1_0010_0000)));
        assert_eq!(over.e820, [ram(0x10_0000, 0xeff0_0000), ram(0x1_0000_0000, MIB)]);

        let wide = Layout::new(Mib(8176), MAX_MMIO_HOLE).expect("a layout");
        assert_eq!((wide.lowmem_end, wide.highmem_end), (Bytes(2 * GIB), Bytes(0x2_7f00_0000)));
        assert_eq!(wide.highmem(), Bytes(6128 * MIB));
        assert!(wide.has_custom_hole() && !over.has_custom_hole());
    }

    #[test]
    fn holes_that_cannot_be() {
        for hole in [0, 255 * MIB, 256 * MIB + 1, 256 * MIB + 4096, 2 * GIB + MIB, u64::MAX] {
            let hole = Bytes(hole);
            assert_eq!(Layout::new(Mib(256), hole), Err(PlanError::MmioHole { hole }));
        }
        assert!(matches!(Layout::new(Mib(1), HOLE), Err(PlanError::TooSmall { .. })));
    }

    #[test]
    fn high_ram_ends_where_hvm_info_does() {
        let limit = Mib(MAX_COUNTED.0 - 256);
        let most = Layout::new(limit, HOLE).expect("a layout");
        assert!(u32::try_from(most.highmem_end.0 / 4096).is_ok());
        for size in [limit.0 + 1, MAX_COUNTED.0, u32::MAX].map(Mib) {
            let error = PlanError::TooLarge { what: "build max", size: size.to_kib(), limit };
            assert_eq!(Layout::new(size, HOLE), Err(error));
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

    #[test]
    fn it_serializes_with_short_words() {
        let entry = E820Entry { kind: E820Kind::Reserved, ..ram(4096, 8192) };
        let json = serde_json::to_string(&entry).expect("json");
        assert_eq!(json, r#"{"addr":4096,"size":8192,"type":"reserved"}"#);
    }

    proptest! {
        #[test]
        fn ram_is_conserved_and_the_map_in_order(build_max in 2_u32..1 << 23, hole in 256_u64..=2048) {
            let layout = Layout::new(Mib(build_max), Bytes(hole * MIB)).expect("a layout");
            prop_assert_eq!(layout.lowmem_end.0 + layout.highmem().0, Mib(build_max).to_bytes().0);
            prop_assert!(layout.lowmem_end <= layout.mmio_start);
            prop_assert_eq!(layout.mmio_start.0 + layout.mmio_size.0, FOUR_GIB.0);
            prop_assert!(layout.highmem_end.is_zero() || layout.highmem_end > FOUR_GIB);
            prop_assert!(layout.highmem_end.is_zero() || layout.lowmem_end == layout.mmio_start);
            prop_assert!(layout.e820.iter().all(|entry| !entry.size.is_zero()));
            prop_assert!(layout.e820.windows(2).all(|pair| pair[0].addr.0 + pair[0].size.0 <= pair[1].addr.0));
            let mapped: u64 = layout.e820.iter().map(|entry| entry.size.0).sum();
            prop_assert_eq!(mapped + MIB, Mib(build_max).to_bytes().0);

            let more = Layout::new(Mib(build_max + 1), Bytes(hole * MIB)).expect("a layout");
            prop_assert!(more.lowmem_end >= layout.lowmem_end && more.highmem_end >= layout.highmem_end);
        }

        #[test]
        fn no_input_panics(build_max: u32, hole: u64) {
            let _ = Layout::new(Mib(build_max), Bytes(hole));
        }
    }
}
