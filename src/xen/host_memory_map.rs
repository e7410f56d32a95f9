//! The host's memory map for a PV guest with PCI devices: the guest maps a device at its machine addresses, so it must not take
//! these for memory or for room. Linux before 6.5 works without; a later one sets up DMA for PCI devices only if its map shows
//! what is not RAM on the host (`xen_pv_pci_possible`, arch/x86/xen/setup.c).

use xen_sys as sys;

use super::error::{self, XenError};
use super::{DomId, Interface};
use dombuild_memory::Bytes;

/// The most entries of a map (`E820MAX`, xen/include/asm-x86/e820.h, Xen 4.17: 1024; libxl takes 128).
const MOST: usize = 1024;
const LOW: u64 = 1 << 20;
const FOUR_GIB: u64 = 1 << 32;

impl Interface {
    /// Sets a PV guest's memory map to its RAM and what is not RAM on the host, as libxl's `e820_host` does
    /// (`XENMEM_machine_memory_map`, `XENMEM_set_memory_map`).
    ///
    /// # Errors
    /// If Xen refuses one of the calls.
    pub fn set_host_memory_map(&self, domid: DomId, ram: Bytes) -> Result<(), XenError> {
        let mut host = vec![sys::e820entry::default(); MOST];
        let most = u32::try_from(MOST).unwrap_or(0);
        // SAFETY: the array has `most` entries, which the call fills.
        let returned = unsafe { sys::xc_get_machine_memory_map(self.as_raw(), host.as_mut_ptr(), most) };
        let found = error::minus_one("xc_get_machine_memory_map", format_args!("{most} entries"), returned)?;
        host.truncate(usize::try_from(found).unwrap_or(0));
        let mut map = for_guest(&host, ram.0);
        let count = u32::try_from(map.len()).unwrap_or(u32::MAX);
        // SAFETY: `map` has `count` entries and lives through the call.
        let returned = unsafe { sys::xc_domain_set_memory_map(self.as_raw(), domid.get(), map.as_mut_ptr(), count) };
        error::minus_one("xc_domain_set_memory_map", format_args!("domid {domid}, {count} entries"), returned).map(drop)
    }
}

/// RAM from 0 to the host's first reserved range above 1 MiB, and unusable memory between the two; the host's other ranges,
/// RAM below 4 GiB as unusable; above, the guest's RAM that has found no place.
fn for_guest(host: &[sys::e820entry], ram: u64) -> Vec<sys::e820entry> {
    let entry =
        |start: u64, end: u64, type_: u32| sys::e820entry { addr: start, size: end.saturating_sub(start), type_ };
    let end = |entry: &sys::e820entry| entry.addr.saturating_add(entry.size);
    let is_memory = |entry: &&sys::e820entry| matches!(entry.type_, sys::E820_RAM | sys::E820_UNUSABLE);
    let first = host.iter().filter(|entry| !is_memory(entry) && entry.addr >= LOW).map(|entry| entry.addr).min();
    let Some(first) = first else { return vec![entry(0, ram, sys::E820_RAM)] };
    let mut map = vec![entry(0, ram.min(first), sys::E820_RAM)];
    if ram < first {
        map.push(entry(ram, first, sys::E820_UNUSABLE));
    }
    let mut others: Vec<sys::e820entry> = host
        .iter()
        .filter(|entry| entry.addr >= first && !(is_memory(entry) && entry.addr >= FOUR_GIB))
        .map(|found| if is_memory(&found) { entry(found.addr, end(found), sys::E820_UNUSABLE) } else { *found })
        .collect();
    others.sort_by_key(|entry| entry.addr);
    let left = ram.saturating_sub(first);
    if left > 0 {
        let taken = |start: u64| others.iter().any(|other| other.addr < start + left && end(other) > start);
        let last = others.iter().map(end).max().unwrap_or(0);
        let start = if taken(FOUR_GIB) { last.max(FOUR_GIB) } else { FOUR_GIB };
        others.push(entry(start, start.saturating_add(left), sys::E820_RAM));
        others.sort_by_key(|entry| entry.addr);
    }
    map.append(&mut others);
    map
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn map(entries: &[(u64, u64, u32)]) -> Vec<sys::e820entry> {
        entries
            .iter()
            .map(|(start, end, type_)| sys::e820entry { addr: *start, size: end - start, type_: *type_ })
            .collect()
    }

    fn of(entries: &[sys::e820entry]) -> Vec<(u64, u64, u32)> {
        entries.iter().map(|entry| (entry.addr, entry.addr + entry.size, entry.type_)).collect()
    }

    #[test]
    fn what_is_not_ram_on_the_host_is_none_in_the_guest() {
        let (reserved, acpi) = (sys::E820_RESERVED, sys::E820_ACPI);
        let low = (0xf_0000, MIB, reserved);
        let host = map(&[
            (0, 0x9_fc00, sys::E820_RAM),
            low,
            (MIB, 2047 * MIB, sys::E820_RAM),
            (2047 * MIB, 2048 * MIB, acpi),
            (2048 * MIB, 2050 * MIB, sys::E820_RAM),
            (0xfec0_0000, 0xfec0_1000, reserved),
            (FOUR_GIB, 2 * FOUR_GIB, sys::E820_RAM),
            (0xfd_0000_0000, 0x100_0000_0000, reserved),
        ]);
        let rest = [
            (2047 * MIB, 2048 * MIB, acpi),
            (2048 * MIB, 2050 * MIB, sys::E820_UNUSABLE),
            (0xfec0_0000, 0xfec0_1000, reserved),
        ];
        let far = (0xfd_0000_0000, 0x100_0000_0000, reserved);
        let small = [(0, 160 * MIB, sys::E820_RAM), (160 * MIB, 2047 * MIB, sys::E820_UNUSABLE)];
        assert_eq!(of(&for_guest(&host, 160 * MIB)), [&small[..], &rest, &[far]].concat());
        let large = (0, 2047 * MIB, sys::E820_RAM);
        let above = (FOUR_GIB, FOUR_GIB + 2049 * MIB, sys::E820_RAM);
        assert_eq!(of(&for_guest(&host, 4096 * MIB)), [&[large][..], &rest, &[above, far]].concat());
        assert_eq!(of(&for_guest(&host, 2047 * MIB)), [&[large][..], &rest, &[far]].concat());
        assert_eq!(of(&for_guest(&map(&[(0, MIB, sys::E820_RAM)]), 9)), [(0, 9, sys::E820_RAM)]);
    }
}
