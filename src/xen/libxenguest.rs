//! Loads a kernel through libxenguest without a hypervisor, for tests that compare their rules with libxenguest's.
//!
//! It uses a libxenctrl handle that is not open, and domid 0, for which libxenguest takes guest memory from its own
//! process (`xc_dom_pfn_to_ptr_retcount`, tools/libs/guest/xg_dom_core.c, Xen 4.17 and 4.20). The build stops once the
//! kernel is loaded, because all later steps need Xen.

use std::ffi::{CStr, c_char, c_int};
use std::ptr::NonNull;
use std::slice;

use xen_sys as sys;

use super::logger;
use dombuild_memory::{Kind, Mib};

/// `XC_OPENFLAG_DUMMY` (tools/include/xenctrl.h).
const OPENFLAG_DUMMY: u32 = 1;

/// The capabilities of a host with all kinds of guests.
const CAPABILITIES: &[u8] = b"xen-3.0-x86_64 xen-3.0-x86_32p hvm-3.0-x86_32 hvm-3.0-x86_32p hvm-3.0-x86_64";

/// Bytes in a page.
const PAGE_SIZE: u64 = 4096;

/// The mark that [`kernel_loaded`] leaves in a field of the image that is not read before.
const LOADED_MARK: u32 = 0x00e1_f000;

/// A kernel as libxenguest loaded it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The name of the loader.
    pub loader: String,
    /// The kind of guest.
    pub guest_type: String,
    /// The first frame of the kernel.
    pub first: u64,
    /// Its memory in whole pages; `None` under the firmware loader, which needs Xen.
    pub memory: Option<Vec<u8>>,
    /// `virt_base`, `virt_entry` and `virt_hypercall`.
    pub addresses: [u64; 3],
    /// The active features.
    pub features: Vec<u32>,
}

/// An image that is released when dropped.
struct Image {
    raw: NonNull<sys::xc_dom_image>,
    interface: NonNull<sys::xc_interface>,
}

impl Drop for Image {
    fn drop(&mut self) {
        // SAFETY: both came from libxenguest and libxenctrl, and nothing uses them afterwards.
        unsafe {
            sys::xc_dom_release(self.raw.as_ptr());
            sys::xc_interface_close(self.interface.as_ptr());
        }
    }
}

/// Replaces the first call after the kernel that needs Xen.
unsafe extern "C" fn kernel_loaded(dom: *mut sys::xc_dom_image) -> c_int {
    // SAFETY: libxenguest passes its valid image, to which nothing else refers during the call.
    unsafe { (*dom).console_evtchn = LOADED_MARK };
    -1
}

/// Loads a kernel for a guest of this size.
///
/// # Errors
/// The name of the step that failed.
pub fn load(kernel: &[u8], kind: Kind, size: Mib) -> Result<Taken, &'static str> {
    let callbacks = logger::callbacks();
    // SAFETY: the callbacks are static; no call needs an open handle.
    let interface = unsafe { sys::xc_interface_open(callbacks, callbacks, OPENFLAG_DUMMY) };
    let interface = NonNull::new(interface).expect("memory");
    // SAFETY: the handle is valid, and null is allowed for command line and features.
    let raw = unsafe { sys::xc_dom_allocate(interface.as_ptr(), std::ptr::null(), std::ptr::null()) };
    let mut image = Image { raw: NonNull::new(raw).expect("memory"), interface };
    let dom = image.raw.as_ptr();
    {
        // SAFETY: the image is valid and only we refer to it.
        let dom = unsafe { image.raw.as_mut() };
        dom.container_type = if kind == Kind::Pv { sys::XC_DOM_PV_CONTAINER } else { sys::XC_DOM_HVM_CONTAINER };
        for (to, from) in dom.xen_caps.iter_mut().zip(CAPABILITIES) {
            *to = c_char::try_from(*from).expect("ASCII");
        }
    }
    let done = |returned: c_int, step: &'static str| if returned == 0 { Ok(()) } else { Err(step) };
    // SAFETY: the kernel outlives the image, and libxenguest only reads from it.
    done(unsafe { sys::xc_dom_kernel_mem(dom, kernel.as_ptr().cast(), kernel.len()) }, "kernel_mem")?;
    // SAFETY: the image has its kernel.
    done(unsafe { sys::xc_dom_parse_image(dom) }, "parse_image")?;
    // SAFETY: the image is parsed.
    done(unsafe { sys::xc_dom_mem_init(dom, size.0) }, "mem_init")?;
    // SAFETY: a parsed image has a loader, whose struct begins with its name (tools/libs/guest/xg_private.h).
    let loader = unsafe { text(*(*dom).kernel_loader.cast::<*const c_char>()) };
    let is_firmware = loader == "HVM-generic";
    if is_firmware {
        allocate(dom)?;
    } else {
        // SAFETY: mem_init has chosen a valid table, which is copied.
        let mut hooks = unsafe { *(*dom).arch_hooks };
        hooks.alloc_p2m_list = None;
        hooks.alloc_magic_pages = Some(kernel_loaded);
        // SAFETY: the copy outlives the call, and the original is back before the image is released.
        unsafe {
            let original = (*dom).arch_hooks;
            (*dom).arch_hooks = &raw mut hooks;
            sys::xc_dom_build_image(dom);
            (*dom).arch_hooks = original;
        }
        // SAFETY: the image is valid.
        if unsafe { (*dom).console_evtchn } != LOADED_MARK {
            return Err("build_image");
        }
    }
    // SAFETY: the image is valid.
    let segment = unsafe { (*dom).kernel_seg };
    let memory = (!is_firmware).then(|| {
        // SAFETY: the kernel's frames are mapped.
        let start = unsafe { sys::xc_dom_pfn_to_ptr(dom, segment.pfn, segment.pages) };
        let length = usize::try_from(segment.pages * PAGE_SIZE).expect("it fits");
        // SAFETY: this many bytes are mapped there until the image is released.
        unsafe { slice::from_raw_parts(start.cast::<u8>(), length) }.to_vec()
    });
    // SAFETY: the image is valid and parsed.
    let addresses =
        unsafe { [sys::xc_dom_virt_base(dom), sys::xc_dom_virt_entry(dom), sys::xc_dom_virt_hypercall(dom)] };
    // SAFETY: the image is valid and parsed, and a submap has 32 bits.
    let features = (0..32).filter(|number| unsafe { sys::xc_dom_feature_get(dom, *number) }).collect();
    // SAFETY: a parsed image has a type.
    let guest_type = unsafe { text((*dom).guest_type) };
    Ok(Taken { loader, guest_type, first: segment.pfn, memory, addresses, features })
}

/// Does what `xc_dom_build_image` does before it calls the loader; for firmware that would map guest memory through
/// Xen.
fn allocate(dom: *mut sys::xc_dom_image) -> Result<(), &'static str> {
    // SAFETY: the image is valid and parsed, and only we refer to it.
    let returned = unsafe {
        let base = sys::xc_dom_virt_base(dom);
        if base != u64::MAX {
            (*dom).virt_alloc_end = base;
        }
        let segment = &raw mut (*dom).kernel_seg;
        let size = (*segment).vend.wrapping_sub((*segment).vstart);
        sys::xc_dom_alloc_segment(dom, segment, c"kernel".as_ptr(), (*segment).vstart, size)
    };
    if returned == 0 { Ok(()) } else { Err("alloc_segment") }
}

/// SAFETY: `text` must be a NUL-terminated string of libxenguest.
unsafe fn text(text: *const c_char) -> String {
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned()
}
