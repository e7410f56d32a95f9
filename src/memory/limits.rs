//! The limits of a guest's memory and the defaults of a request.

use super::units::{Bytes, GIB, Kib, MIB, Mib};

/// The most vCPUs of a guest (`HVM_MAX_VCPUS`, `xen/include/public/hvm/hvm_info_table.h`, Xen 4.17). Xen allows more
/// for PV guests; this crate has one limit for all kinds.
pub const HVM_MAX_VCPUS: u32 = 128;
/// The least build start (`xc_hvm_build`, `tools/libxc/xc_hvm_build_x86.c`, Xen 4.6).
pub const MIN_BUILD_START: Mib = Mib(2);
/// The default video RAM of an HVM guest: QEMU's default for its std VGA card.
pub const DEFAULT_VIDEO: Kib = Kib(16 * 1024);
/// The most video RAM of QEMU's VGA cards, which silently reduce a larger size (`vga_common_init`, `hw/display/vga.c`,
/// QEMU 7.2).
pub const MAX_VIDEO: Mib = Mib(512);
/// The default MMIO hole of an HVM guest, and the smallest: libxl and hvmloader accept no smaller one
/// (`HVM_BELOW_4G_MMIO_LENGTH`, `xen/include/public/hvm/e820.h`).
pub const DEFAULT_MMIO_HOLE: Bytes = Bytes(256 * MIB);
/// The largest MMIO hole of an HVM guest.
pub const MAX_MMIO_HOLE: Bytes = Bytes(2 * GIB);
/// The length of a PVH guest's hole, which ends at 4 GiB.
pub const PVH_MMIO_HOLE: Bytes = Bytes(64 * MIB);
/// The most MiB whose pages an `unsigned int` can count: 16 TiB less 1 MiB.
///
/// Three figures of Xen 4.17 are 32 bits wide. `XEN_DOMCTL_max_mem` silently truncates a larger limit
/// (`xen/common/domctl.c`); `XEN_DOMCTL_shadow_op` shifts the pool's MiB left by 8 in 32 bits (`hap_domctl`); hvm_info
/// holds the end of high RAM as a 32-bit frame number. The width of guest-physical addresses depends on the host's CPU
/// (`paging_max_paddr_bits`, `xen/arch/x86/include/asm/paging.h`: 36 to 48 bits) and is not checked here.
pub const MAX_COUNTABLE_SIZE: Mib = Mib((1 << 24) - 1);
/// The largest static max: its xen max is [`MAX_COUNTABLE_SIZE`]. An MMIO hole lowers it by up to its own length.
pub const MAX_STATIC_MAX: Mib = Mib((1 << 24) - 2);
/// The most entries of an e820 map that hvmloader reads (`E820MAX`, `tools/firmware/hvmloader/e820.h`, and
/// `tools/include/xenctrl.h`, Xen 4.17).
pub const MAX_E820_ENTRIES: usize = 128;
/// The least low RAM: hvmloader, the firmware and its modules need it.
pub const MIN_LOWMEM: Bytes = Bytes(16 * MIB);
/// The length of the region for the video RAM of NVIDIA vGPUs, and the step of the search for its address (XenServer's
/// figure).
pub const VGPU_VRAM: Bytes = Bytes(16 * MIB);

/// The distance of a node to itself (ACPI 5.0, section 5.2.17). Linux ignores a table with another (`slit_valid`, Linux 6.1).
pub const LOCAL_DISTANCE: u32 = 10;
/// The distance to another node, where none is given.
pub const REMOTE_DISTANCE: u32 = 20;
/// The largest distance: in the table, 255 stands for a node that cannot be reached.
pub const MAX_DISTANCE: u32 = 254;
/// The most physical nodes that Xen knows (`MAX_NUMNODES`, xen/include/asm-x86/numa.h, Xen 4.17).
pub const MAX_PNODES: u32 = 64;
