//! The hvm_info table, from which hvmloader reads vCPUs and APIC mode (xen/include/public/hvm/hvm_info_table.h).

use std::mem::{offset_of, size_of};

use xen_sys as sys;

use super::{DomId, Interface, XenError};
use dombuild_memory::{Gfn, Pages};

const SIZE: usize = size_of::<sys::hvm_info_table>();
const OFFSET: usize = sys::HVM_INFO_OFFSET as usize;

/// The bytes of `hvm_info`; libxenguest writes it with one vCPU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HvmInfo {
    bytes: [u8; SIZE],
}

impl HvmInfo {
    /// Sets what libxenguest leaves to its caller: APIC mode, vCPU count, online vCPUs, checksum.
    ///
    /// # Errors
    /// If the page cannot be mapped, or does not hold libxenguest's table.
    pub fn finish(xen: &Interface, domid: DomId, vcpus: u32, online: u32, apic: bool) -> Result<(), XenError> {
        let mut page = xen.map(domid, Gfn(u64::from(sys::HVM_INFO_PFN)), Pages(1))?;
        let mut info = Self { bytes: [0; SIZE] };
        page.read(OFFSET, &mut info.bytes);
        if !info.is_intact() {
            return Err(XenError::unexpected(
                "xc_dom_boot_image",
                format!("domid {domid}"),
                "left no intact hvm_info table in the guest".to_owned(),
            ));
        }
        info.set_vcpus(vcpus, online, apic);
        page.write(OFFSET, &info.bytes);
        Ok(())
    }

    fn set_vcpus(&mut self, vcpus: u32, online: u32, apic: bool) {
        const APIC_MODE: usize = offset_of!(sys::hvm_info_table, apic_mode);
        const NR_VCPUS: usize = offset_of!(sys::hvm_info_table, nr_vcpus);
        const ONLINE: usize = offset_of!(sys::hvm_info_table, vcpu_online);
        const CHECKSUM: usize = offset_of!(sys::hvm_info_table, checksum);
        self.bytes[APIC_MODE] = u8::from(apic);
        self.bytes[NR_VCPUS..NR_VCPUS + 4].copy_from_slice(&vcpus.to_le_bytes());
        for (index, byte) in self.bytes[ONLINE..].iter_mut().enumerate() {
            *byte = (0..8_u8).filter(|bit| index * 8 + usize::from(*bit) < online as usize).map(|bit| 1 << bit).sum();
        }
        self.bytes[CHECKSUM] = 0;
        self.bytes[CHECKSUM] = self.sum().wrapping_neg();
    }

    fn is_intact(&self) -> bool {
        const LENGTH: usize = offset_of!(sys::hvm_info_table, length);
        let length = u32::try_from(SIZE).unwrap_or(0).to_le_bytes();
        self.bytes.starts_with(b"HVM INFO") && self.bytes[LENGTH..LENGTH + 4] == length && self.sum() == 0
    }

    fn sum(&self) -> u8 {
        self.bytes.iter().fold(0, |sum, byte| sum.wrapping_add(*byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fresh() -> HvmInfo {
        let mut info = HvmInfo { bytes: [0; SIZE] };
        info.bytes[..8].copy_from_slice(b"HVM INFO");
        info.bytes[8] = u8::try_from(SIZE).expect("48");
        info.set_vcpus(1, 1, true);
        info
    }

    #[test]
    fn count_map_and_checksum() {
        for (vcpus, first, second) in [(1, 1, 0), (4, 0x0f, 0), (9, 0xff, 1), (128, 0xff, 0xff)] {
            let mut info = fresh();
            info.set_vcpus(vcpus, vcpus, true);
            assert!(info.is_intact(), "{vcpus}");
            assert_eq!(info.bytes[32..34], [first, second], "{vcpus}");
            assert_eq!(info.bytes[16], u8::try_from(vcpus).expect("small"));
            info.set_vcpus(vcpus, 1, false);
            assert!(info.is_intact(), "{vcpus}");
            assert_eq!((info.bytes[13], &info.bytes[32..34]), (0, &[1, 0][..]), "{vcpus}");
        }
    }

    #[test]
    fn a_damaged_table_is_noticed() {
        let mut info = fresh();
        info.bytes[40] ^= 1;
        assert!(!info.is_intact());
    }
}
