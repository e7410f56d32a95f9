//! Fixed addresses of Xen's tools and hvmloader, in ascending order.
//!
//! An HVM guest:
//!
//! ```text
//!       0 –   a0000   low RAM below the VGA hole; the page at 9f000 holds hvm_info
//!   a0000 –   c0000   VGA hole: never populated by the builder
//!   c0000 –  100000   RAM, into which hvmloader puts option ROMs and the BIOS
//!  100000 – lowmem    low RAM, up to the MMIO hole at most
//!  mmio_start – 4 GiB MMIO hole: PCI windows, and from feff0000 on the special pages
//!   4 GiB – highmem   high RAM, what the hole displaced
//! ```
//!
//! A PVH guest:
//!
//! ```text
//!       0 – lowmem    low RAM, up to fc000000 at most
//! fc000000 – 4 GiB    hole: ACPI tables, local APIC, special pages
//!   4 GiB – highmem   high RAM, what the hole displaced
//! ```

use crate::units::{Bytes, GIB, Gfn, KIB, MIB, Pages};

/// The frame of the hvm_info table (`HVM_INFO_PFN`, `xen/include/public/hvm/hvm_info_table.h`).
pub const HVM_INFO: Gfn = Gfn(0x9f);
/// The start of the VGA hole: 640 KiB.
pub const VGA_HOLE_START: Bytes = Bytes(640 * KIB);
/// The length of the VGA hole (`LIBXL_VGA_HOLE_SIZE`, `tools/libs/light/libxl_internal.h`).
pub const VGA_HOLE_PAGES: Pages = Pages(32);
/// The end of the VGA hole: 768 KiB.
pub const VGA_HOLE_END: Bytes = Bytes(768 * KIB);
/// The start of low RAM in the e820 map of an HVM guest; hvmloader describes the addresses below
/// (`GUEST_LOW_MEM_START_DEFAULT`, `tools/libs/light/libxl_x86.c`).
pub const E820_LOW_START: Bytes = Bytes(MIB);
/// The start of the default MMIO hole (`HVM_BELOW_4G_MMIO_START`, `xen/include/public/hvm/e820.h`).
pub const DEFAULT_MMIO_START: Bytes = Bytes(0xf000_0000);
/// The end of hvmloader's window for PCI devices, and the start of its own area with the ACPI tables
/// (`RESERVED_MEMBASE`, `tools/firmware/hvmloader/config.h`).
pub const HVMLOADER_RESERVED: Bytes = Bytes(0xfc00_0000);
/// The start of a PVH guest's hole, and of its ACPI tables (`ACPI_INFO_PHYSICAL_ADDRESS`,
/// `tools/firmware/hvmloader/config.h`; `libxl__build_hvm`, `tools/libs/light/libxl_dom.c`).
pub const ACPI_START: Bytes = Bytes(0xfc00_0000);
/// The pages of a PVH guest's ACPI tables.
pub const ACPI_PAGES: Pages = Pages(1);
/// The I/O APIC (`ioapic_base_address`, `tools/firmware/hvmloader/hvmloader.c`).
pub const IO_APIC: Bytes = Bytes(0xfec0_0000);
/// The local APIC (`LAPIC_BASE_ADDRESS`, `tools/firmware/hvmloader/config.h`).
pub const LOCAL_APIC: Bytes = Bytes(0xfee0_0000);
/// The first page for ioreq servers (`ioreq_server_pfn(0)`, `tools/libs/guest/xg_dom_x86.c`). hvm_info's reserved
/// frames begin here.
pub const FIRST_IOREQ_SERVER_PAGE: Gfn = Gfn(0xfeff0);
/// The number of pages for ioreq servers (`NR_IOREQ_SERVER_PAGES`, same file).
pub const IOREQ_SERVER_PAGES: Pages = Pages(8);
/// The first special page (`X86_HVM_END_SPECIAL_REGION - X86_HVM_NR_SPECIAL_PAGES`, `tools/include/xenguest.h`).
pub const FIRST_SPECIAL_PAGE: Gfn = Gfn(0xfeff8);
/// The number of special pages (`X86_HVM_NR_SPECIAL_PAGES`, same file).
pub const SPECIAL_PAGES: Pages = Pages(8);
/// Page of the ring for memory paging events.
pub const PAGING_RING: Gfn = Gfn(0xfeff8);
/// The page of the ring for monitor events (formerly: access events).
pub const MONITOR_RING: Gfn = Gfn(0xfeff9);
/// Page of the ring for memory sharing events.
pub const SHARING_RING: Gfn = Gfn(0xfeffa);
/// Page of buffered I/O requests to the device model.
pub const BUFIOREQ: Gfn = Gfn(0xfeffb);
/// Page shared with xenstored.
pub const XENSTORE: Gfn = Gfn(0xfeffc);
/// Page of I/O requests to the device model.
pub const IOREQ: Gfn = Gfn(0xfeffd);
/// The page of the identity page table, which Xen uses while a vCPU has paging off.
pub const IDENT_PT: Gfn = Gfn(0xfeffe);
/// Page of the PV console.
pub const CONSOLE: Gfn = Gfn(0xfefff);
/// The special pages by frame, with their names (`SPECIALPAGE_*`, `tools/libs/guest/xg_dom_x86.c`).
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
/// The end of the MMIO hole and the start of high RAM.
pub const FOUR_GIB: Bytes = Bytes(4 * GIB);
