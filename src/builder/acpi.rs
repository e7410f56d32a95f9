//! The ACPI tables of a PVH guest: enough for an operating system to find its vCPUs, and to expect no absent hardware.
//!
//! libxl makes its tables with code that no package installs (tools/libacpi, Xen 4.17). These tables describe the same
//! hardware, local APICs and no PC chipset, as a hardware-reduced platform.

use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::madt::{EnabledStatus, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};

use crate::memory::Bytes;
use crate::memory::layout::LOCAL_APIC;

const OEM: [u8; 6] = *b"Xen\0\0\0";
const OEM_TABLE: [u8; 8] = *b"HVM\0\0\0\0\0";
const OEM_REVISION: u32 = 0;
/// `No VGA` and `No CMOS RTC` of the FADT's IA-PC boot architecture flags (ACPI 5.0, table 5-35).
const NO_VGA_NO_CMOS_RTC: u16 = 1 << 2 | 1 << 5;
/// The length of a table's header in bytes, and so of a DSDT that describes nothing.
const HEADER: u32 = 36;

/// The tables for a guest with `vcpus` vCPUs, at most 128, at the address `at`. They begin with the RSDP and fit in one page.
#[must_use]
pub(crate) fn tables(vcpus: u32, at: Bytes) -> Vec<u8> {
    let mut out = Tables { at: at.0, bytes: Vec::new() };
    // The RSDP comes first in memory, but its content is known last.
    out.reserve(Rsdp::len());

    let dsdt = out.add(&Sdt::new(*b"DSDT", HEADER, 2, OEM, OEM_TABLE, OEM_REVISION));

    let mut fadt = FADTBuilder::new(OEM, OEM_TABLE, OEM_REVISION).dsdt_64(dsdt).flag(Flags::HwReducedAcpi);
    fadt = fadt.flag(Flags::Wbinvd).flag(Flags::Headless);
    fadt.iapc_boot_arch = NO_VGA_NO_CMOS_RTC.into();
    let fadt = out.add(&fadt.finalize());

    let lapic = u32::try_from(LOCAL_APIC.0).unwrap_or_default();
    let mut madt = MADT::new(OEM, OEM_TABLE, OEM_REVISION, LocalInterruptController::Address(lapic));
    // Xen gives vCPU N the APIC id 2 N (vlapic_init, xen/arch/x86/hvm/vlapic.c): the last of 128 has 254.
    for vcpu in (0..=127).take(usize::try_from(vcpus).unwrap_or(usize::MAX)) {
        madt.add_structure(ProcessorLocalApic::new(vcpu, vcpu * 2, EnabledStatus::Enabled));
    }
    let madt = out.add(&madt);

    let mut xsdt = XSDT::new(OEM, OEM_TABLE, OEM_REVISION);
    xsdt.add_entry(fadt);
    xsdt.add_entry(madt);
    let xsdt = out.add(&xsdt);

    let mut rsdp = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut rsdp);
    out.bytes.splice(..rsdp.len(), rsdp);
    out.bytes
}

/// Tables in a row, each aligned to 16 bytes.
struct Tables {
    at: u64,
    bytes: Vec<u8>,
}

impl Tables {
    fn reserve(&mut self, length: usize) {
        self.bytes.resize((self.bytes.len() + length).next_multiple_of(16), 0);
    }

    /// Adds a table and returns its guest-physical address.
    fn add(&mut self, table: &dyn Aml) -> u64 {
        let start = self.bytes.len();
        table.to_aml_bytes(&mut self.bytes as &mut dyn AmlSink);
        self.reserve(0);
        self.at + start as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::layout::ACPI_PAGES;

    const AT: u64 = 0xfc00_0000;

    fn u32_at(bytes: &[u8], at: usize) -> u32 {
        u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
    }

    fn u64_at(bytes: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
    }

    /// The table at an address. Checks its checksum.
    fn table(bytes: &[u8], address: u64) -> &[u8] {
        let start = usize::try_from(address - AT).expect("inside");
        let table = &bytes[start..start + u32_at(bytes, start + 4) as usize];
        assert_eq!(table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0, "the sum of {:?}", &table[..4]);
        table
    }

    #[test]
    fn every_table_is_found_from_the_rsdp() {
        for vcpus in [1, 2, 128] {
            let bytes = tables(vcpus, Bytes(AT));
            assert!(bytes.len() as u64 <= ACPI_PAGES.0 * 4096, "{} bytes", bytes.len());
            assert_eq!(&bytes[..8], b"RSD PTR ");
            assert_eq!(bytes[..36].iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte)), 0);
            let xsdt = table(&bytes, u64_at(&bytes, 24));
            assert_eq!((&xsdt[..4], xsdt.len()), (&b"XSDT"[..], 36 + 2 * 8));

            let fadt = table(&bytes, u64_at(xsdt, 36));
            assert_eq!(&fadt[..4], b"FACP");
            assert_eq!(u32_at(fadt, 112) & 1 << 20, 1 << 20, "hardware-reduced");
            assert_eq!(&table(&bytes, u64_at(fadt, 140))[..4], b"DSDT");

            let madt = table(&bytes, u64_at(xsdt, 44));
            assert_eq!((&madt[..4], u32_at(madt, 36)), (&b"APIC"[..], 0xfee0_0000));
            assert_eq!(madt.len(), 44 + 8 * vcpus as usize);
            for (vcpu, entry) in (0_u8..).zip(madt[44..].chunks(8)) {
                assert_eq!(entry, [0, 8, vcpu, vcpu * 2, 1, 0, 0, 0]);
            }
        }
    }
}
