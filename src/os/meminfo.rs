//! The memory of this machine; under Xen, of dom0 (`/proc/meminfo`, proc(5)).

use std::fs;
use std::io;

use dombuild_memory::{Bytes, Kib};

/// The least memory that is left to other programs.
const MIN_RESERVE: Kib = Kib(64 << 10);

/// The divisor of the total for the reserve, if that is more than the least.
const RESERVE_PART: u64 = 8;

/// Total and available memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineMemory {
    /// `MemTotal`.
    pub total: Kib,
    /// `MemAvailable`: free memory, and what the kernel can drop from its caches.
    pub available: Kib,
}

impl MachineMemory {
    /// Reads the current values.
    ///
    /// # Errors
    /// If the kernel does not report it.
    pub fn now() -> io::Result<Self> {
        let text = fs::read_to_string("/proc/meminfo")?;
        parse(&text).ok_or_else(|| io::Error::other("/proc/meminfo has no MemTotal and MemAvailable"))
    }

    /// The memory to leave to other programs: 64 MiB, or an eighth of the total if that is more.
    #[must_use]
    pub fn reserve(&self) -> Kib {
        MIN_RESERVE.max(Kib(self.total.0 / RESERVE_PART))
    }

    /// The memory that this program may use.
    #[must_use]
    pub fn usable(&self) -> Bytes {
        Kib(self.available.0.saturating_sub(self.reserve().0)).to_bytes().unwrap_or(Bytes(u64::MAX))
    }
}

fn parse(text: &str) -> Option<MachineMemory> {
    let field = |name: &str| {
        let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
        rest.strip_suffix("kB")?.trim().parse().ok().map(Kib)
    };
    Some(MachineMemory { total: field("MemTotal:")?, available: field("MemAvailable:")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_machine_has_memory() {
        let now = MachineMemory::now().expect("/proc/meminfo");
        assert!(now.available > Kib(0) && now.available <= now.total, "{now:?}");
    }

    #[test]
    fn an_eighth_is_left_and_at_least_64_mib() {
        let text = "MemTotal:        1048576 kB\nMemFree:          512 kB\nMemAvailable:     524288 kB\n";
        let memory = parse(text).expect("both fields");
        assert_eq!((memory.total, memory.available), (Kib(1 << 20), Kib(512 << 10)));
        assert_eq!((memory.reserve(), memory.usable()), (Kib(128 << 10), Bytes(384 << 20)));
        let small = MachineMemory { total: Kib(256 << 10), available: Kib(100 << 10) };
        assert_eq!((small.reserve(), small.usable()), (Kib(64 << 10), Bytes(36 << 20)));
        let full = MachineMemory { available: Kib(10 << 10), ..small };
        assert_eq!(full.usable(), Bytes(0));
        assert_eq!(parse("MemTotal: 1 kB\nMemFree: 1 kB\n"), None);
    }
}
