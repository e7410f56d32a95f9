//! hvmloader's modules other than the firmware: SMBIOS structures and ACPI tables.

use dombuild_memory::Bytes;

/// The alignment of each module.
const ALIGNMENT: usize = 16;

/// The modules, joined into one for libxenguest to place.
///
/// libxenguest can place each of them, but it populates an ACPI module twice: after `modules_init`
/// (tools/libs/guest/xg_dom_hvmloader.c, Xen 4.17) has put it into RAM, `xc_dom_load_acpi` (xg_dom_core.c) populates
/// the same frames again, as PVH needs it. The domain keeps the first pages, which are unreachable (measured on Xen
/// 4.17: with an `acpi_firmware` of 5000 bytes, an xl guest owns 2 pages more). Joined, both go where the SMBIOS module
/// goes; hvmloader reads their addresses from xenstore.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HvmModules {
    bytes: Vec<u8>,
    /// The offset and length in the joined module.
    smbios: Option<(usize, usize)>,
    acpi: Option<(usize, usize)>,
}

/// The place of a module in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placed {
    /// The guest-physical address of the first byte.
    pub address: Bytes,
    /// The length.
    pub length: Bytes,
}

/// The places of the modules in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct PlacedModules {
    /// SMBIOS structures.
    pub smbios: Option<Placed>,
    /// ACPI tables.
    pub acpi: Option<Placed>,
}

impl HvmModules {
    /// Joins the modules; `None` and empty ones are omitted.
    #[must_use]
    pub fn new(smbios: Option<&[u8]>, acpi: Option<&[u8]>) -> Self {
        let mut bytes = Vec::new();
        let mut add = |data: Option<&[u8]>| {
            let data = data.filter(|data| !data.is_empty())?;
            bytes.resize(bytes.len().next_multiple_of(ALIGNMENT), 0);
            let offset = bytes.len();
            bytes.extend_from_slice(data);
            Some((offset, data.len()))
        };
        let (smbios, acpi) = (add(smbios), add(acpi));
        Self { bytes, smbios, acpi }
    }

    /// The joined module; empty if there is none.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The places of the modules if the joined one is at `start`.
    pub(super) fn placed_at(&self, start: Bytes) -> PlacedModules {
        let placed = |(offset, length): (usize, usize)| {
            let length = Bytes(u64::try_from(length).ok()?);
            Some(Placed { address: start.checked_add(Bytes(u64::try_from(offset).ok()?))?, length })
        };
        PlacedModules { smbios: self.smbios.and_then(placed), acpi: self.acpi.and_then(placed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_in_one_piece() {
        let placed = |address, length| Some(Placed { address: Bytes(address), length: Bytes(length) });
        let both = HvmModules::new(Some(b"smbios"), Some(b"acpi!"));
        assert_eq!(both.bytes(), b"smbios\0\0\0\0\0\0\0\0\0\0acpi!");
        let at = both.placed_at(Bytes(0x20_0000));
        assert_eq!(at, PlacedModules { smbios: placed(0x20_0000, 6), acpi: placed(0x20_0010, 5) });
        let acpi = HvmModules::new(None, Some(b"acpi!"));
        assert_eq!((acpi.bytes(), acpi.placed_at(Bytes(4096)).acpi), (&b"acpi!"[..], placed(4096, 5)));
        assert_eq!(acpi.placed_at(Bytes(4096)).smbios, None);
        assert_eq!(HvmModules::new(Some(b""), None), HvmModules::default());
    }
}
