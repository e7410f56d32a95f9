//! Keeps libxenguest from unpacking modules.
//!
//! Up to Xen 4.19 libxenguest unpacks a gzip module in this process, to the size that the module's trailer claims
//! (`xc_dom_build_module`, tools/libs/guest/xg_dom_core.c). The guest unpacks its modules itself.

use std::ptr::NonNull;

use xen_sys as sys;

use super::DomId;
use super::error::XenError;
use dombuild_os::sealed::Sealed;

/// The first bytes of a gzip file.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// Replacement mappings by module number. Their first byte is 0 instead of gzip's, until they are in the guest.
#[derive(Debug, Default)]
pub(super) struct GzipMask {
    others: Vec<(usize, Sealed)>,
}

impl GzipMask {
    /// The bytes to give to libxenguest: the module itself, or a replacement that lives as long as this value.
    ///
    /// # Errors
    /// If the module cannot be mapped again.
    pub(super) fn mask<'a>(&'a mut self, number: usize, data: &'a Sealed) -> Result<&'a [u8], XenError> {
        if cfg!(xen_4_20_or_later) || !data.starts_with(&GZIP_MAGIC) {
            return Ok(data);
        }
        let other = data.with_first(0).map_err(|error| {
            let arguments = format!("module {number} of {} bytes", data.len());
            XenError::unexpected("xc_dom_module_mem", arguments, format!("cannot map the module: {error}"))
        })?;
        // A move of the vector does not move the mappings.
        self.others.push((number, other));
        Ok(self.others.last().map_or(data, |(_, other)| other))
    }

    /// Restores the first bytes in the guest. The image must be built and not booted yet.
    ///
    /// # Errors
    /// If libxenguest did not load a module.
    pub(super) fn unmask(&self, mut image: NonNull<sys::xc_dom_image>, domid: DomId) -> Result<(), XenError> {
        for (number, other) in &self.others {
            let lost = || {
                let arguments = format!("domid {domid}, module {number} of {} bytes", other.len());
                XenError::unexpected("xc_dom_build_image", arguments, "put it nowhere".to_owned())
            };
            // SAFETY: the caller's image is valid, and nothing else refers to it during this call.
            let image = unsafe { image.as_mut() };
            let segment = image.modules.get(*number).map(|module| module.seg).filter(|segment| segment.pages > 0);
            let segment = segment.ok_or_else(lost)?;
            // SAFETY: the image is built, and libxenguest has mapped the frames of this segment.
            let start = unsafe { sys::xc_dom_pfn_to_ptr(image, segment.pfn, segment.pages) };
            let first = NonNull::new(start.cast::<u8>()).ok_or_else(lost)?;
            // SAFETY: the mapping has at least a page and stays until the image is booted; nothing else refers to it.
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
