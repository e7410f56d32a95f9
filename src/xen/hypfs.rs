//! Reads settings of the running hypervisor from Xen's file system (hypfs).
//!
//! libxenhypfs is loaded on first use, because few runs need it. Without the library, or without hypfs in Xen, the
//! settings are unknown.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::mem;
use std::ptr::NonNull;

use xen_sys as sys;

use super::{Interface, logger};

/// The library; its interface has had this version since Xen 4.14.
const LIBRARY: &CStr = c"libxenhypfs.so.1";

type Open = unsafe extern "C" fn(*mut sys::xentoollog_logger, c_uint) -> *mut c_void;
type Read = unsafe extern "C" fn(*mut c_void, *const c_char) -> *mut c_char;
type Close = unsafe extern "C" fn(*mut c_void) -> c_int;

/// A numeric setting of Xen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum XenParameter {
    /// `gnttab_max_frames`.
    MaxGrantFrames,
    /// `gnttab_max_maptrack_frames`.
    MaxMaptrackFrames,
}

impl XenParameter {
    /// The name of Xen's boot option.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::MaxGrantFrames => "gnttab_max_frames",
            Self::MaxMaptrackFrames => "gnttab_max_maptrack_frames",
        }
    }

    fn path(self) -> &'static CStr {
        match self {
            Self::MaxGrantFrames => c"/params/gnttab_max_frames",
            Self::MaxMaptrackFrames => c"/params/gnttab_max_maptrack_frames",
        }
    }
}

impl Interface {
    /// The current value; `None` if it is unknown.
    #[must_use]
    pub fn parameter(&self, parameter: XenParameter) -> Option<u32> {
        let value = Library::load().and_then(|library| library.read(parameter.path()));
        log::debug!("xenhypfs_read({}) = {value:?}", parameter.name());
        value?.trim().parse().ok()
    }
}

/// The loaded library. It is never unloaded: it may be needed again, and the process is short-lived.
struct Library {
    open: Open,
    read: Read,
    close: Close,
}

impl Library {
    fn load() -> Option<Self> {
        // SAFETY: the name ends with a NUL. The library's initialisers are Xen's own.
        let handle = NonNull::new(unsafe { libc::dlopen(LIBRARY.as_ptr(), libc::RTLD_NOW) })?;
        let symbol = |name: &CStr| {
            // SAFETY: the handle is of a loaded library, and the name ends with a NUL.
            NonNull::new(unsafe { libc::dlsym(handle.as_ptr(), name.as_ptr()) })
        };
        let (open, read, close) = (symbol(c"xenhypfs_open")?, symbol(c"xenhypfs_read")?, symbol(c"xenhypfs_close")?);
        // SAFETY: the functions of these names have these types (tools/include/xenhypfs.h, Xen 4.14 to 4.20).
        unsafe {
            Some(Self {
                open: mem::transmute::<*mut c_void, Open>(open.as_ptr()),
                read: mem::transmute::<*mut c_void, Read>(read.as_ptr()),
                close: mem::transmute::<*mut c_void, Close>(close.as_ptr()),
            })
        }
    }

    fn read(&self, path: &CStr) -> Option<String> {
        // SAFETY: the callbacks are static, and the library only reads them.
        let handle = NonNull::new(unsafe { (self.open)(logger::callbacks(), 0) })?;
        // SAFETY: the handle is open, and the path ends with a NUL.
        let text = NonNull::new(unsafe { (self.read)(handle.as_ptr(), path.as_ptr()) });
        let value = text.map(|text| {
            // SAFETY: the library returns a NUL-terminated string, which the caller frees.
            unsafe {
                let value = CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned();
                libc::free(text.as_ptr().cast());
                value
            }
        });
        // SAFETY: the handle is open, and not used after this.
        let closed = unsafe { (self.close)(handle.as_ptr()) };
        log::debug!("xenhypfs_close() = {closed}");
        value
    }
}
