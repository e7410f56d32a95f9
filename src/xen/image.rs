//! The handle of libxenguest: one domain image, from the kernel file to a bootable guest.

use std::fmt;
use std::os::raw::c_int;
use std::ptr::NonNull;

use nix::errno::Errno;
use xen_sys as sys;

use super::error::{self, XenError};
use super::hvm::raw_e820;
use super::{DomId, EventPort, Interface};
use crate::memory::{Gfn, Layout, Mib, Pages};

/// What an HVM image is made of. The kernel and the firmware must live as long as the image: libxenguest keeps
/// pointers into them until the end.
#[derive(Debug, Clone, Copy)]
pub struct HvmImage<'a> {
    /// hvmloader, an ELF file.
    pub kernel: &'a [u8],
    /// SeaBIOS or OVMF: the module that hvmloader finds under the name `firmware`.
    pub firmware: &'a [u8],
    /// Where the memory goes, and the map that the guest is told.
    pub layout: &'a Layout,
    /// `mem_target` in pages: what is populated, or granted to populate on demand where it is less than the size.
    pub target_pages: Pages,
    /// Frames left out for the VGA hole.
    pub vga_hole: Pages,
    /// Number of vCPUs.
    pub vcpus: u32,
    /// Event channel of the xenstore ring.
    pub store_port: EventPort,
    /// The domain that serves it.
    pub store_domain: DomId,
    /// Event channel of the console ring.
    pub console_port: EventPort,
    /// The domain that serves it.
    pub console_domain: DomId,
}

/// Where a built HVM guest has its rings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HvmBoot {
    /// Frame of the xenstore ring.
    pub store_gfn: Gfn,
    /// Frame of the console ring.
    pub console_gfn: Gfn,
}

/// A `struct xc_dom_image`. It borrows the interface, the kernel, the firmware and the layout until it is dropped.
pub struct DomainImage<'a> {
    raw: NonNull<sys::xc_dom_image>,
    interface: &'a Interface,
    domid: DomId,
    /// libxenguest reads it when it writes the start info.
    _memory_map: Vec<sys::e820entry>,
    _parts: HvmImage<'a>,
}

impl fmt::Debug for DomainImage<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DomainImage(domid {})", self.domid)
    }
}

impl Drop for DomainImage<'_> {
    fn drop(&mut self) {
        // SAFETY: `raw` came from xc_dom_allocate and is released once; libxenguest does not free what we lent it.
        unsafe { sys::xc_dom_release(self.raw.as_ptr()) };
        log::debug!("xc_dom_release()");
    }
}

impl<'a> DomainImage<'a> {
    /// Allocates an image for an HVM guest and hands it its parts.
    ///
    /// # Errors
    /// Where memory is short, or the kernel is larger than libxenguest accepts (1 GiB).
    pub fn new_hvm(interface: &'a Interface, domid: DomId, parts: HvmImage<'a>) -> Result<Self, XenError> {
        // SAFETY: null command line and features are allowed and mean none.
        let raw = error::pointer("xc_dom_allocate", format_args!("no command line"), unsafe {
            sys::xc_dom_allocate(interface.as_raw(), std::ptr::null(), std::ptr::null())
        })?;
        let memory_map = raw_e820(&parts.layout.e820);
        let mut image = Self { raw, interface, domid, _memory_map: memory_map, _parts: parts };
        image.fill_in(&parts)?;
        Ok(image)
    }

    fn fill_in(&mut self, parts: &HvmImage<'a>) -> Result<(), XenError> {
        let firmware_length = u32::try_from(parts.firmware.len()).map_err(|_| {
            XenError::unexpected(
                "xc_dom_allocate",
                format!("firmware of {} bytes", parts.firmware.len()),
                "too large".into(),
            )
        })?;
        let memory_map = self._memory_map.as_mut_ptr();
        let entries = u32::try_from(self._memory_map.len()).unwrap_or(u32::MAX);
        // SAFETY: `raw` is a valid image that only we refer to.
        let dom = unsafe { self.raw.as_mut() };
        dom.container_type = sys::XC_DOM_HVM_CONTAINER;
        // False would build a PVH guest: no VGA hole, no hvm_info, no ioreq server pages.
        dom.device_model = true;
        dom.target_pages = parts.target_pages.0;
        dom.mmio_start = parts.layout.mmio_start.0;
        dom.mmio_size = parts.layout.mmio_size.0;
        dom.lowmem_end = parts.layout.lowmem_end.0;
        dom.highmem_end = parts.layout.highmem_end.0;
        dom.vga_hole_size = parts.vga_hole.0;
        dom.max_vcpus = parts.vcpus;
        dom.console_evtchn = parts.console_port.0;
        dom.xenstore_evtchn = parts.store_port.0;
        dom.console_domid = parts.console_domain.get();
        dom.xenstore_domid = parts.store_domain.get();
        // libxenguest only reads the firmware (it copies it into the guest), though its field is not const.
        dom.system_firmware_module.data = parts.firmware.as_ptr().cast_mut();
        dom.system_firmware_module.length = firmware_length;
        dom.e820 = memory_map;
        dom.e820_entries = entries;

        let size = parts.kernel.len();
        // SAFETY: the kernel lives as long as this image and is only read.
        self.call("xc_dom_kernel_mem", format_args!("{size} bytes"), |dom| unsafe {
            sys::xc_dom_kernel_mem(dom, parts.kernel.as_ptr().cast(), size)
        })
    }

    /// Reads the hypervisor's abilities, then the kernel's headers.
    ///
    /// # Errors
    /// Where the kernel is not one that an HVM guest can start.
    pub fn parse(&mut self) -> Result<(), XenError> {
        let (interface, domid) = (self.interface.as_raw(), self.domid);
        // SAFETY: the image and the interface are valid.
        self.call("xc_dom_boot_xen_init", format_args!("domid {domid}"), |dom| unsafe {
            sys::xc_dom_boot_xen_init(dom, interface, domid.get())
        })?;
        // SAFETY: the image is valid and has its kernel.
        self.call("xc_dom_parse_image", format_args!(""), |dom| unsafe { sys::xc_dom_parse_image(dom) })
    }

    /// Populates `size` of memory as the layout says.
    ///
    /// # Errors
    /// Where the host or the domain's maximum lacks the memory.
    pub fn populate(&mut self, size: Mib) -> Result<(), XenError> {
        let mib = size.0;
        // SAFETY: the image is valid and parsed.
        self.call("xc_dom_mem_init", format_args!("{mib} MiB"), |dom| unsafe { sys::xc_dom_mem_init(dom, mib) })?;
        // SAFETY: as above, and its layout adds up to that size.
        self.call("xc_dom_boot_mem_init", format_args!("{mib} MiB"), |dom| unsafe { sys::xc_dom_boot_mem_init(dom) })
    }

    /// Loads the kernel and the firmware, and makes the special pages.
    ///
    /// # Errors
    /// Where they do not fit into low memory, or memory is short.
    pub fn load(&mut self) -> Result<(), XenError> {
        // SAFETY: the image is valid and populated.
        self.call("xc_dom_build_image", format_args!(""), |dom| unsafe { sys::xc_dom_build_image(dom) })
    }

    /// Writes start info, hvm_info and the first vCPU's state, and sets the event channel parameters.
    ///
    /// # Errors
    /// Where Xen refuses one of these.
    pub fn boot(&mut self) -> Result<(), XenError> {
        // SAFETY: the image is valid and built.
        self.call("xc_dom_boot_image", format_args!(""), |dom| unsafe { sys::xc_dom_boot_image(dom) })
    }

    /// Seeds the grant table with the console and xenstore rings, and tells where they are.
    ///
    /// # Errors
    /// Where Xen refuses it.
    pub fn seed_grant_table(&mut self) -> Result<HvmBoot, XenError> {
        // SAFETY: the image is valid and booted.
        self.call("xc_dom_gnttab_init", format_args!(""), |dom| unsafe { sys::xc_dom_gnttab_init(dom) })?;
        // SAFETY: `raw` is a valid image that only we refer to.
        let dom = unsafe { self.raw.as_ref() };
        Ok(HvmBoot { store_gfn: Gfn(dom.xenstore_pfn), console_gfn: Gfn(dom.console_pfn) })
    }

    fn call(
        &mut self,
        name: &'static str,
        arguments: fmt::Arguments<'_>,
        run: impl FnOnce(*mut sys::xc_dom_image) -> c_int,
    ) -> Result<(), XenError> {
        // These calls often fail without setting errno, so that an old one must not be taken for the reason.
        Errno::clear();
        let returned = run(self.raw.as_ptr());
        error::builder(name, arguments, returned)
    }
}
