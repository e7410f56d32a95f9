//! Modules that libxenguest shall not unpack.
//!
//! Up to Xen 4.19 it unpacks a module packed with gzip, in this process, and into as much as the module's own trailer says
//! (`xc_dom_build_module`, tools/libs/guest/xg_dom_core.c). What is in a module is for the guest to find out.

use std::ptr::NonNull;

use xen_sys as sys;

use super::DomId;
use super::error::XenError;
use dombuild_os::sealed::Sealed;

/// What gzip's files begin with.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Mappings that stand in for modules, by their numbers, and do not look like gzip: their first byte is 0 until they are in
/// the guest.
#[derive(Debug, Default)]
pub(super) struct GzipMask {
    others: Vec<(usize, Sealed)>,
}

impl GzipMask {
    /// What libxenguest is to be handed for a module: the module itself, or another mapping, which lives as long as this.
    ///
    /// # Errors
    /// If it cannot be mapped once more.
    pub(super) fn mask<'a>(&'a mut self, number: usize, data: &'a Sealed) -> Result<&'a [u8], XenError> {
        if cfg!(xen_4_20_or_later) || !data.starts_with(&GZIP_MAGIC) {
            return Ok(data);
        }
        let other = data.with_first(0).map_err(|error| {
            let arguments = format!("module {number} of {} bytes", data.len());
            XenError::unexpected("xc_dom_module_mem", arguments, format!("cannot be handed the module: {error}"))
        })?;
        // Where the vector of them moves, the mappings stay where they are.
        self.others.push((number, other));
        Ok(self.others.last().map_or(data, |(_, other)| other))
    }

    /// Puts the first bytes where they belong, in the guest. The image must be built, and not be booted yet.
    ///
    /// # Errors
    /// If libxenguest has put a module nowhere.
    pub(super) fn unmask(&self, mut image: NonNull<sys::xc_dom_image>, domid: DomId) -> Result<(), XenError> {
        for (number, other) in &self.others {
            let lost = || {
                let arguments = format!("domid {domid}, module {number} of {} bytes", other.len());
                XenError::unexpected("xc_dom_build_image", arguments, "put it nowhere".to_owned())
            };
            // SAFETY: the caller's image is valid, and nobody else refers to it during this call.
            let image = unsafe { image.as_mut() };
            let segment = image.modules.get(*number).map(|module| module.seg).filter(|segment| segment.pages > 0);
            let segment = segment.ok_or_else(lost)?;
            // SAFETY: the image is built, and the frames are those of a segment of it, which it has mapped.
            let start = unsafe { sys::xc_dom_pfn_to_ptr(image, segment.pfn, segment.pages) };
            let first = NonNull::new(start.cast::<u8>()).ok_or_else(lost)?;
            // SAFETY: the mapping has at least a page, and stays until the image is booted; nobody else refers to it.
            unsafe { first.write(GZIP_MAGIC[0]) };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;

    use super::*;
    use dombuild_os::sealed::MemoryFile;

    #[test]
    fn gzip_is_veiled_and_nothing_else() {
        let mut gzip_mask = GzipMask::default();
        let sealed = |content: &[u8]| {
            let memory = MemoryFile::new(c"test").expect("memory");
            File::from(memory.writer().expect("a descriptor")).write_all(content).expect("written");
            memory.seal(100).expect("small")
        };
        for plain in [&b"\x1f"[..], b"070701", b"\x28\xb5\x2f\xfd", b"\x8b\x1f"] {
            let plain = sealed(plain);
            assert_eq!(gzip_mask.mask(0, &plain).expect("no copy").as_ptr(), plain.as_ptr());
        }
        let packed = [0x1f, 0x8b, 8, 0];
        let wanted = if cfg!(xen_4_20_or_later) { packed } else { [0, 0x8b, 8, 0] };
        assert_eq!(gzip_mask.mask(1, &sealed(&packed)).expect("mapped"), wanted);
    }
}
