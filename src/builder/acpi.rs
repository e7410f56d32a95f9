//! The ACPI tables of a PVH guest: enough for an operating system to find its vCPUs and NUMA nodes, and to expect no absent
//! hardware.
//!
//! libxl makes its tables with code that no package installs (tools/libacpi, Xen 4.17). These tables describe the same
//! hardware, local APICs and no PC chipset, as a hardware-reduced platform.

use acpi_tables::fadt::{FADTBuilder, Flags};
use acpi_tables::madt::{EnabledStatus, LocalInterruptController, MADT, ProcessorLocalApic};
use acpi_tables::rsdp::Rsdp;
use acpi_tables::sdt::Sdt;
use acpi_tables::xsdt::XSDT;
use acpi_tables::{Aml, AmlSink};

use crate::memory::layout::LOCAL_APIC;
use crate::memory::{Bytes, Vnuma};

const OEM: [u8; 6] = *b"Xen\0\0\0";
const OEM_TABLE: [u8; 8] = *b"HVM\0\0\0\0\0";
const OEM_REVISION: u32 = 0;
/// `No VGA` and `No CMOS RTC` of the FADT's IA-PC boot architecture flags (ACPI 5.0, table 5-35).
const NO_VGA_NO_CMOS_RTC: u16 = 1 << 2 | 1 << 5;
/// The length of a table's header in bytes, and so of a DSDT that describes nothing.
const HEADER: u32 = 36;

/// The tables for a guest with `vcpus` vCPUs, at most 128, at the address `at`. They begin with the RSDP and fit in one page, which
/// [`Plan`](crate::memory::Plan) checks for those of the NUMA nodes.
#[must_use]
pub(crate) fn tables(vcpus: u32, vnuma: Option<&Vnuma>, at: Bytes) -> Vec<u8> {
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
    if let Some(vnuma) = vnuma {
        xsdt.add_entry(out.add(&affinities(vnuma)));
        xsdt.add_entry(out.add(&distances(vnuma)));
    }
    let xsdt = out.add(&xsdt);

    let mut rsdp = Vec::new();
    Rsdp::new(OEM, xsdt).to_aml_bytes(&mut rsdp);
    out.bytes.splice(..rsdp.len(), rsdp);
    out.bytes
}

/// The SRAT: the node of each vCPU and of each range of memory (ACPI 5.0, section 5.2.16).
fn affinities(vnuma: &Vnuma) -> Sdt {
    const REVISION: u8 = 3;
    /// Bit 0 of the flags of both structures.
    const ENABLED: u32 = 1;
    let mut table = Sdt::new(*b"SRAT", HEADER, REVISION, OEM, OEM_TABLE, OEM_REVISION);
    // "Reserved to be 1 for backward compatibility", and 8 bytes.
    table.append_slice(&1_u32.to_le_bytes());
    table.append_slice(&[0; 8]);
    for (vcpu, node) in (0..=127_u8).zip(&vnuma.vcpu_nodes) {
        let [low, upper @ ..] = node.to_le_bytes();
        table.append_slice(&[0, 16, low, vcpu * 2]);
        table.append_slice(&ENABLED.to_le_bytes());
        table.append_slice(&[0]);
        table.append_slice(&upper);
        table.append_slice(&[0; 4]);
    }
    for range in &vnuma.ranges {
        table.append_slice(&[1, 40]);
        table.append_slice(&range.vnode.to_le_bytes());
        table.append_slice(&[0; 2]);
        table.append_slice(&range.start.0.to_le_bytes());
        table.append_slice(&range.end.0.saturating_sub(range.start.0).to_le_bytes());
        table.append_slice(&[0; 4]);
        table.append_slice(&ENABLED.to_le_bytes());
        table.append_slice(&[0; 8]);
    }
    table
}

/// The SLIT: the distance from each node to each (ACPI 5.0, section 5.2.17).
fn distances(vnuma: &Vnuma) -> Sdt {
    let mut table = Sdt::new(*b"SLIT", HEADER, 1, OEM, OEM_TABLE, OEM_REVISION);
    table.append_slice(&(vnuma.count() as u64).to_le_bytes());
    let rows: Vec<u8> = vnuma.distances.iter().map(|distance| u8::try_from(*distance).unwrap_or(u8::MAX)).collect();
    table.append_slice(&rows);
    table
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
    use crate::memory::{Kind, Mib, Plan, PlanError, Request, Vnode};

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
            let bytes = tables(vcpus, None, Bytes(AT));
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
    /// A plan with so many nodes of 64 MiB, and a vCPU in each; the other vCPUs are in the first.
    fn plan(nodes: u32, vcpus: u32) -> Result<Plan, PlanError> {
        let vnodes = (0..nodes).map(|node| {
            let others = nodes..vcpus.max(nodes);
            let vcpus = if node == 0 { [0].into_iter().chain(others).collect() } else { vec![node] };
            Vnode { pnode: 0, size: Mib(64), vcpus, distances: Vec::new() }
        });
        let request = Request::new(Mib(64 * nodes).to_kib());
        Plan::new(&Request { kind: Kind::Pvh, vcpus, vnodes: vnodes.collect(), ..request })
    }

    #[test]
    fn nodes_are_in_srat_and_slit() {
        let plan = plan(2, 3).expect("a plan");
        let bytes = tables(3, plan.vnuma.as_ref(), Bytes(AT));
        let xsdt = table(&bytes, u64_at(&bytes, 24));
        assert_eq!(xsdt.len(), 36 + 4 * 8);
        let srat = table(&bytes, u64_at(xsdt, 52));
        assert_eq!((&srat[..4], srat.len()), (&b"SRAT"[..], 48 + 3 * 16 + 2 * 40));
        let processors: Vec<_> =
            srat[48..96].chunks(16).map(|entry| (entry[0], entry[1], entry[2], entry[3])).collect();
        assert_eq!(processors, [(0, 16, 0, 0), (0, 16, 1, 2), (0, 16, 0, 4)]);
        let ranges: Vec<_> =
            srat[96..].chunks(40).map(|entry| (entry[2], u64_at(entry, 8), u64_at(entry, 16))).collect();
        assert_eq!(ranges, [(0, 0, 64 << 20), (1, 64 << 20, 64 << 20)]);
        let slit = table(&bytes, u64_at(xsdt, 60));
        assert_eq!((&slit[..4], &slit[36..]), (&b"SLIT"[..], &[2, 0, 0, 0, 0, 0, 0, 0, 10, 20, 20, 10][..]));
    }

    #[test]
    fn a_plan_has_no_more_nodes_than_the_page_holds() {
        for vcpus in [1, 64, 128] {
            let most = (1..=vcpus).take_while(|nodes| plan(*nodes, vcpus).is_ok()).last().expect("one node fits");
            let fits = plan(most, vcpus).expect("a plan");
            let length = tables(vcpus, fits.vnuma.as_ref(), Bytes(AT)).len() as u64;
            assert!(length <= ACPI_PAGES.0 * 4096, "{vcpus} vCPUs in {most} nodes: {length} bytes");
            assert!(
                most == vcpus || length > ACPI_PAGES.0 * 4096 - 300,
                "{vcpus} vCPUs in {most} nodes: {length} bytes"
            );
        }
    }
}
