//! A guest's memory, mapped into this process.

use std::os::raw::c_int;
use std::ptr::NonNull;

use xen_sys as sys;

use super::error::{self, XenError};
use super::{DomId, Interface};
use dombuild_memory::{Gfn, PAGE_SIZE, Pages};

/// Frames of a guest, mapped until dropped. Other processes and a running guest can change them, so there is no
/// reference to the memory: it is only copied in and out. A copy of memory that changes meanwhile may be inconsistent.
#[derive(Debug)]
pub struct ForeignPages {
    start: NonNull<u8>,
    length: usize,
}

impl ForeignPages {
    /// Maps frames; `protection` is that of mmap(2).
    pub(super) fn map(
        interface: &Interface,
        domid: DomId,
        first: Gfn,
        count: Pages,
        protection: c_int,
    ) -> Result<Self, XenError> {
        let bytes = count.0.checked_mul(PAGE_SIZE).and_then(|bytes| c_int::try_from(bytes).ok());
        let arguments = format_args!("domid {domid}, gfn {:#x}, {} pages", first.0, count.0);
        let (Some(size), true) = (bytes, count.0 > 0) else {
            return Err(XenError::unexpected(
                "xc_map_foreign_range",
                arguments.to_string(),
                "takes 1 to 524287 pages".to_owned(),
            ));
        };
        // SAFETY: the handle is valid, and the call takes no other pointer; the mapping that it returns is owned by the value made here.
        let start = error::pointer("xc_map_foreign_range", arguments, unsafe {
            sys::xc_map_foreign_range(interface.as_raw(), domid.get(), size, protection, first.0)
        })?;
        Ok(Self { start: start.cast(), length: usize::try_from(size).unwrap_or(0) })
    }

    /// Copies `buffer.len()` bytes from byte `offset` of the mapping.
    ///
    /// # Panics
    /// If the range exceeds the mapping.
    pub fn read(&self, offset: usize, buffer: &mut [u8]) {
        self.assert_within(offset, buffer.len());
        // SAFETY: the range is within the mapping, which cannot overlap a Rust buffer.
        unsafe { std::ptr::copy_nonoverlapping(self.start.as_ptr().add(offset), buffer.as_mut_ptr(), buffer.len()) };
    }

    /// Copies `data` to byte `offset` of the mapping.
    ///
    /// # Panics
    /// If the range exceeds the mapping.
    pub fn write(&mut self, offset: usize, data: &[u8]) {
        self.assert_within(offset, data.len());
        // SAFETY: the range is within the mapping, which cannot overlap a Rust slice.
        unsafe { std::ptr::copy_nonoverlapping(data.as_ptr(), self.start.as_ptr().add(offset), data.len()) };
    }

    fn assert_within(&self, offset: usize, length: usize) {
        let end = offset.checked_add(length);
        assert!(end.is_some_and(|end| end <= self.length), "{offset} + {length} is beyond {}", self.length);
    }
}

impl Drop for ForeignPages {
    fn drop(&mut self) {
        // SAFETY: this value owns the mapping of `length` bytes, and nothing refers to it any more.
        let returned = unsafe { libc::munmap(self.start.as_ptr().cast(), self.length) };
        if returned != 0 {
            log::error!("munmap of {} bytes of a guest failed: {}", self.length, nix::errno::Errno::last());
        }
    }
}
