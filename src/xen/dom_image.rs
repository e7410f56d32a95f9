//! The handle of libxenguest: loads a kernel into a domain and makes it bootable.

use std::ffi::CStr;
use std::fmt;
use std::os::raw::{c_char, c_int};
use std::ptr::NonNull;

use nix::errno::Errno;
use xen_sys as sys;

use super::error::{self, XenError};
use super::gzip_mask::GzipMask;
use super::hvm::raw_e820;
use super::{DomId, EventPort, HvmModules, Interface, PlacedModules, logger};
use dombuild_memory::{Bytes, Gfn, Layout, Mib, NodeRange, PAGE_SIZE, Pages};
use dombuild_os::sealed::Sealed;

/// The first bytes of a PV guest's start info (`magic`, xen/include/public/xen.h).
const START_INFO_MAGIC: [u8; 4] = *b"xen-";

/// The parts of an image. The files must outlive the image: libxenguest keeps pointers to them.
#[derive(Debug, Clone, Copy)]
pub struct ImageParts<'a> {
    /// hvmloader, or the guest's kernel.
    pub kernel: &'a [u8],
    /// The other parts, by kind of guest.
    pub contents: ImageContents<'a>,
    /// The layout of the memory, with the guest's memory map.
    pub layout: &'a Layout,
    /// `mem_target` in pages: the populated pages, or the PoD target. Ignored for PV.
    pub target_pages: Pages,
    /// The number of vCPUs.
    pub vcpus: u32,
    /// The size limits of kernel and modules.
    pub limits: ImageLimits,
    /// The event channel of the xenstore ring.
    pub store_port: EventPort,
    /// The domain that serves the ring.
    pub store_domain: DomId,
    /// The event channel of the console ring.
    pub console_port: EventPort,
    /// The domain that serves the ring.
    pub console_domain: DomId,
    /// PV: the physical nodes from which libxenguest populates the guest, without other nodes. Empty: from those of the domain's
    /// affinity. The guest does not see them.
    pub nodes: &'a [NodeRange],
}

/// Whether libelf refuses a PVH kernel with a note PADDR_OFFSET and no VIRT_BASE, although PVH uses neither
/// (`elf_xen_addr_calc_check`, xen/common/libelf/libelf-dominfo.c, Xen 4.17).
pub const PVH_PADDR_OFFSET_NEEDS_BASE: bool = !cfg!(xen_4_18_or_later);

/// The size limits of a kernel, packed and unpacked, and of a module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageLimits {
    /// The limit of the kernel, at most [`ImageLimits::MAX`].
    pub kernel: Bytes,
    /// The limit of each module, at most [`ImageLimits::MAX`].
    pub module: Bytes,
}

impl ImageLimits {
    /// The largest limit of libxenguest (`XC_DOM_DECOMPRESS_MAX`, tools/include/xenguest.h): 1 GiB.
    pub const MAX: Bytes = Bytes(1 << 30);
}

impl Default for ImageLimits {
    fn default() -> Self {
        Self { kernel: Self::MAX, module: Self::MAX }
    }
}

/// The parts of an image other than the kernel.
#[derive(Debug, Clone, Copy)]
pub enum ImageContents<'a> {
    /// A guest under hvmloader.
    Hvm {
        /// SeaBIOS or OVMF: hvmloader's module `firmware`.
        firmware: &'a [u8],
        /// SMBIOS structures and ACPI tables.
        modules: &'a HvmModules,
        /// The pages of the VGA hole, which stay empty.
        vga_hole: Pages,
    },
    /// A kernel started at its PVH entry point.
    Pvh {
        /// The command line and the modules.
        start: DirectStart<'a>,
        /// ACPI tables, which begin with the RSDP.
        acpi: &'a [u8],
        /// Their guest-physical address.
        acpi_at: Bytes,
    },
    /// A paravirtualised kernel.
    Pv(DirectStart<'a>),
}

/// The boot parameters of a kernel that Xen starts directly.
#[derive(Debug, Clone, Copy)]
pub struct DirectStart<'a> {
    /// The command line.
    pub cmdline: &'a CStr,
    /// The modules, each with a command line; Linux takes one, the initial ramdisk.
    pub modules: &'a [(&'a Sealed, &'a CStr)],
    /// PV: features that the kernel must have, as words; empty for none.
    pub features: &'a CStr,
    /// PV: flags of the start info (`SIF_*`, xen/include/public/xen.h).
    pub start_flags: u32,
}

impl<'a> ImageContents<'a> {
    fn direct(&self) -> Option<DirectStart<'a>> {
        match self {
            Self::Hvm { .. } => None,
            Self::Pvh { start, .. } | Self::Pv(start) => Some(*start),
        }
    }
}

/// The rings of a built guest. For PV these are machine frames, which Xen calls gfns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Boot {
    /// The frame of the xenstore ring.
    pub store_gfn: Gfn,
    /// The frame of the console ring.
    pub console_gfn: Gfn,
    /// The addresses of hvmloader's modules.
    pub modules: PlacedModules,
}

/// A `struct xc_dom_image`. It borrows the interface, the files and the layout until it is dropped.
pub struct DomainImage<'a> {
    raw: NonNull<sys::xc_dom_image>,
    interface: &'a Interface,
    domid: DomId,
    /// libxenguest reads it for the start info.
    memory_map: Vec<sys::e820entry>,
    gzip_mask: GzipMask,
    /// libxenguest reads both while it populates a PV guest: one virtual node for each range.
    node_ranges: (Vec<sys::xen_vmemrange_t>, Vec<u32>),
    parts: ImageParts<'a>,
}

impl fmt::Debug for DomainImage<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DomainImage(domid {})", self.domid)
    }
}

impl Drop for DomainImage<'_> {
    fn drop(&mut self) {
        // SAFETY: `raw` came from xc_dom_allocate and is released once; libxenguest does not free borrowed memory.
        unsafe { sys::xc_dom_release(self.raw.as_ptr()) };
        log::debug!("xc_dom_release()");
    }
}

impl<'a> DomainImage<'a> {
    /// Allocates an image and adds its parts.
    ///
    /// # Errors
    /// If memory is short, or a file is larger than libxenguest accepts (1 GiB).
    pub fn new(interface: &'a Interface, domid: DomId, parts: ImageParts<'a>) -> Result<Self, XenError> {
        let cmdline = parts.contents.direct().map_or(c"", |start| start.cmdline);
        let pointer = null_if_empty(cmdline);
        let features = parts.contents.direct().map_or(c"", |start| start.features);
        let arguments = format_args!("command line {cmdline:?}, features {features:?}");
        // SAFETY: null is allowed for command line and features; libxenguest copies or reads them during the call.
        let raw = error::pointer("xc_dom_allocate", arguments, unsafe {
            sys::xc_dom_allocate(interface.as_raw(), pointer, null_if_empty(features))
        })?;
        let memory_map = raw_e820(&parts.layout.e820);
        let mut image = Self {
            raw,
            interface,
            domid,
            memory_map,
            gzip_mask: GzipMask::default(),
            node_ranges: (Vec::new(), Vec::new()),
            parts,
        };
        image.fill_in(&parts)?;
        Ok(image)
    }

    fn fill_in(&mut self, parts: &ImageParts<'a>) -> Result<(), XenError> {
        let memory_map = self.memory_map.as_mut_ptr();
        let entries = u32::try_from(self.memory_map.len()).unwrap_or(u32::MAX);
        // SAFETY: `raw` is a valid image that only we refer to.
        let dom = unsafe { self.raw.as_mut() };
        dom.container_type = match parts.contents {
            ImageContents::Pv(_) => sys::XC_DOM_PV_CONTAINER,
            ImageContents::Hvm { .. } | ImageContents::Pvh { .. } => sys::XC_DOM_HVM_CONTAINER,
        };
        dom.target_pages = parts.target_pages.0;
        dom.mmio_start = parts.layout.mmio_start.0;
        dom.mmio_size = parts.layout.mmio_size.0;
        dom.lowmem_end = parts.layout.lowmem_end.0;
        dom.highmem_end = parts.layout.highmem_end.0;
        dom.max_vcpus = parts.vcpus;
        dom.console_evtchn = parts.console_port.0;
        dom.xenstore_evtchn = parts.store_port.0;
        dom.console_domid = parts.console_domain.get();
        dom.xenstore_domid = parts.store_domain.get();
        match parts.contents {
            ImageContents::Hvm { firmware, modules, vga_hole } => {
                // False would mean PVH: no hvm_info, no ioreq server pages.
                dom.device_model = true;
                dom.vga_hole_size = vga_hole.0;
                dom.system_firmware_module = module(firmware)?;
                if !modules.bytes().is_empty() {
                    dom.smbios_module = module(modules.bytes())?;
                }
            }
            ImageContents::Pvh { acpi, acpi_at, .. } => {
                // The start info points to the first of these as the RSDP.
                let tables = sys::xc_hvm_firmware_module { guest_addr_out: acpi_at.0, ..module(acpi)? };
                if let Some(first) = dom.acpi_modules.first_mut() {
                    *first = tables;
                }
            }
            ImageContents::Pv(start) => dom.flags = u64::from(start.start_flags),
        }
        if !matches!(parts.contents, ImageContents::Pv(_)) {
            dom.e820 = memory_map;
            dom.e820_entries = entries;
        }

        let size_of = |limit: Bytes| usize::try_from(limit.0).unwrap_or(usize::MAX);
        let limit = size_of(parts.limits.kernel);
        // SAFETY: the image is valid.
        self.call("xc_dom_kernel_max_size", format_args!("{limit} bytes"), |dom| unsafe {
            sys::xc_dom_kernel_max_size(dom, limit)
        })?;
        let limit = size_of(parts.limits.module);
        // SAFETY: the image is valid.
        self.call("xc_dom_module_max_size", format_args!("{limit} bytes"), |dom| unsafe {
            sys::xc_dom_module_max_size(dom, limit)
        })?;
        let size = parts.kernel.len();
        // SAFETY: the kernel lives as long as this image and is only read.
        self.call("xc_dom_kernel_mem", format_args!("{size} bytes"), |dom| unsafe {
            sys::xc_dom_kernel_mem(dom, parts.kernel.as_ptr().cast(), size)
        })?;
        let modules = parts.contents.direct().map_or(0, |start| start.modules.len());
        if modules > usize::try_from(sys::XG_MAX_MODULES).unwrap_or(0) {
            let detail = format!("takes no {modules} modules");
            return Err(XenError::unexpected("xc_dom_module_mem", format!("domid {}", self.domid), detail));
        }
        for (number, (data, cmdline)) in
            parts.contents.direct().map_or(&[][..], |start| start.modules).iter().enumerate()
        {
            let (size, cmdline) = (data.len(), null_if_empty(cmdline));
            let start = self.gzip_mask.mask(number, data)?.as_ptr();
            // SAFETY: the module or its replacement lives as long as this image and is only read; its command line is
            // copied, and null means none.
            self.call("xc_dom_module_mem", format_args!("{size} bytes"), |dom| unsafe {
                sys::xc_dom_module_mem(dom, start.cast(), size, cmdline)
            })?;
        }
        Ok(())
    }

    /// Reads the hypervisor's capabilities and the kernel's headers.
    ///
    /// # Errors
    /// If this kind of guest cannot start the kernel.
    pub fn parse(&mut self) -> Result<(), XenError> {
        let (interface, domid) = (self.interface.as_raw(), self.domid);
        // SAFETY: the image and the interface are valid.
        self.call("xc_dom_boot_xen_init", format_args!("domid {domid}"), |dom| unsafe {
            sys::xc_dom_boot_xen_init(dom, interface, domid.get())
        })?;
        // SAFETY: the image is valid and has its kernel.
        self.call("xc_dom_parse_image", format_args!(""), |dom| unsafe { sys::xc_dom_parse_image(dom) })
    }

    /// Sets the guest's RAM. libxenguest populates it for a PV guest, and assumes that other guests are populated.
    ///
    /// # Errors
    /// If libxenguest refuses it.
    pub fn set_size(&mut self, size: Mib) -> Result<(), XenError> {
        let mib = size.0;
        // SAFETY: the image is valid and parsed.
        self.call("xc_dom_mem_init", format_args!("{mib} MiB"), |dom| unsafe { sys::xc_dom_mem_init(dom, mib) })?;
        // As `meminit_hvm` sets it for the later calls (tools/libs/guest/xg_dom_x86.c, Xen 4.17).
        let end = self.parts.layout.lowmem_end.max(self.parts.layout.highmem_end);
        if !matches!(self.parts.contents, ImageContents::Pv(_)) {
            // SAFETY: `raw` is a valid image that only we refer to.
            unsafe { self.raw.as_mut() }.p2m_size = end.to_pages_floor().0;
        }
        Ok(())
    }

    /// Populates the memory of a PV guest.
    ///
    /// # Errors
    /// If the host lacks the memory, or the domain's limit is too low.
    pub fn populate_pv(&mut self) -> Result<(), XenError> {
        if !self.parts.nodes.is_empty() {
            let address = |frame: u64| Gfn(frame).to_bytes().map_or(u64::MAX, |bytes| bytes.0);
            let ranges = (0_u32..).zip(self.parts.nodes).map(|(nid, range)| sys::xen_vmemrange_t {
                start: address(range.start),
                end: address(range.end),
                flags: 0,
                nid,
            });
            self.node_ranges = (ranges.collect(), self.parts.nodes.iter().map(|range| range.node).collect());
            let count = u32::try_from(self.node_ranges.0.len()).unwrap_or(u32::MAX);
            // SAFETY: `raw` is a valid image that only we refer to. The arrays have `count` entries and live as long as it.
            let dom = unsafe { self.raw.as_mut() };
            dom.vmemranges = self.node_ranges.0.as_mut_ptr();
            dom.nr_vmemranges = count;
            dom.vnode_to_pnode = self.node_ranges.1.as_mut_ptr();
            dom.nr_vnodes = count;
        }
        // SAFETY: the image is valid and parsed, and its size is set.
        self.call("xc_dom_boot_mem_init", format_args!(""), |dom| unsafe { sys::xc_dom_boot_mem_init(dom) })
    }

    /// Loads the kernel and the other parts, and populates the special pages.
    ///
    /// # Errors
    /// If they do not fit into low memory, or memory is short.
    pub fn load(&mut self) -> Result<(), XenError> {
        // SAFETY: the image is valid and populated.
        self.call("xc_dom_build_image", format_args!(""), |dom| unsafe { sys::xc_dom_build_image(dom) })?;
        self.gzip_mask.unmask(self.raw, self.domid)
    }

    /// Writes start info, hvm_info or page tables, and the first vCPU's state; sets the event channel parameters.
    ///
    /// # Errors
    /// If a hypercall fails.
    pub fn boot(&mut self) -> Result<(), XenError> {
        // SAFETY: the image is valid and built.
        self.call("xc_dom_boot_image", format_args!(""), |dom| unsafe { sys::xc_dom_boot_image(dom) })?;
        if matches!(self.parts.contents, ImageContents::Pv(_)) { self.finish_pv_pages() } else { Ok(()) }
    }

    /// Checks two pages of a PV guest that libxenguest writes without error checks: it clears the rings and writes the
    /// start info (`alloc_magic_pages_pv`, tools/libs/guest/xg_dom_x86.c, `xc_dom_boot_image`, Xen 4.17).
    fn finish_pv_pages(&self) -> Result<(), XenError> {
        // SAFETY: `raw` is a valid image that only we refer to.
        let dom = unsafe { self.raw.as_ref() };
        let map = |what: &str, pfn: u64| self.interface.map(self.domid, self.gfn_of(what, pfn)?, Pages(1));
        let mut magic = [0; START_INFO_MAGIC.len()];
        map("start info", dom.start_info_pfn)?.read(0, &mut magic);
        if magic != START_INFO_MAGIC {
            let detail = "left no start info in the guest".to_owned();
            return Err(XenError::unexpected("xc_dom_boot_image", format!("domid {}", self.domid), detail));
        }
        let empty = vec![0; usize::try_from(PAGE_SIZE).unwrap_or(0)];
        map("xenstore ring", dom.xenstore_pfn)?.write(0, &empty);
        map("console ring", dom.console_pfn)?.write(0, &empty);
        Ok(())
    }

    /// Xen's frame for a page of the guest.
    fn gfn_of(&self, what: &str, pfn: u64) -> Result<Gfn, XenError> {
        // SAFETY: `raw` is a valid image that only we refer to.
        let dom = unsafe { self.raw.as_ref() };
        let gfn = match self.parts.contents {
            // SAFETY: a PV image that was populated has a table of `p2m_size` frames, and the index is below it.
            ImageContents::Pv(_) if !dom.pv_p2m.is_null() && pfn < dom.p2m_size => unsafe {
                usize::try_from(pfn).ok().map(|index| *dom.pv_p2m.add(index))
            },
            ImageContents::Pv(_) => None,
            ImageContents::Hvm { .. } | ImageContents::Pvh { .. } => Some(pfn),
        };
        gfn.map(Gfn).ok_or_else(|| {
            let arguments = format!("domid {}", self.domid);
            XenError::unexpected("xc_dom_build_image", arguments, format!("put the {what} at pfn {pfn:#x}"))
        })
    }

    /// Adds the console and xenstore rings to the grant table, and returns their frames.
    ///
    /// # Errors
    /// If Xen refuses it.
    pub fn seed_grant_table(&mut self) -> Result<Boot, XenError> {
        // SAFETY: the image is valid and booted.
        self.call("xc_dom_gnttab_init", format_args!(""), |dom| unsafe { sys::xc_dom_gnttab_init(dom) })?;
        // SAFETY: `raw` is a valid image that only we refer to.
        let dom = unsafe { self.raw.as_ref() };
        Ok(Boot {
            store_gfn: self.gfn_of("xenstore ring", dom.xenstore_pfn)?,
            console_gfn: self.gfn_of("console ring", dom.console_pfn)?,
            modules: self.placed_modules()?,
        })
    }

    /// The addresses of hvmloader's modules.
    fn placed_modules(&self) -> Result<PlacedModules, XenError> {
        let ImageContents::Hvm { modules, .. } = self.parts.contents else { return Ok(PlacedModules::default()) };
        if modules.bytes().is_empty() {
            return Ok(PlacedModules::default());
        }
        // SAFETY: `raw` is a valid image that only we refer to.
        let at = unsafe { self.raw.as_ref() }.smbios_module.guest_addr_out;
        if at == 0 {
            let detail = "put the SMBIOS and ACPI modules nowhere".to_owned();
            return Err(XenError::unexpected("xc_dom_build_image", format!("domid {}", self.domid), detail));
        }
        Ok(modules.placed_at(Bytes(at)))
    }

    fn call(
        &mut self,
        name: &'static str,
        arguments: fmt::Arguments<'_>,
        run: impl FnOnce(*mut sys::xc_dom_image) -> c_int,
    ) -> Result<(), XenError> {
        // These calls often fail without setting errno, so a previous value must not count as the reason.
        Errno::clear();
        logger::take_last_error();
        let returned = run(self.raw.as_ptr());
        error::builder(name, arguments, returned)
    }
}

/// A null pointer means no command line to libxenguest.
fn null_if_empty(cmdline: &CStr) -> *const c_char {
    if cmdline.is_empty() { std::ptr::null() } else { cmdline.as_ptr() }
}

/// libxenguest's struct for a file. It only reads the file, although the field is not const.
fn module(data: &[u8]) -> Result<sys::xc_hvm_firmware_module, XenError> {
    let length = u32::try_from(data.len()).map_err(|_| {
        XenError::unexpected("xc_dom_allocate", format!("a module of {} bytes", data.len()), "too large".to_owned())
    })?;
    Ok(sys::xc_hvm_firmware_module { data: data.as_ptr().cast_mut(), length, ..Default::default() })
}
