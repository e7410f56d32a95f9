//! What a guest may reach of the host's hardware: I/O ports, interrupts and pages of I/O memory, in the words of xl's `ioports`,
//! `irqs` and `iomem` (tools/xl/xl_parse.c, Xen 4.17 and 4.20).

use std::fmt;
use std::str::FromStr;

/// One more than the highest I/O port (`MAX_IOPORTS`, xen/include/asm-x86/iocap.h, Xen 4.17).
const PORTS: u32 = 0x1_0000;

/// The highest page frame number that x86 has: addresses have 52 bits.
const LAST_FRAME: u64 = (1 << 40) - 1;

/// I/O ports of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PortRange {
    /// The first port.
    pub first: u32,
    /// How many ports, 1 to 65536.
    pub count: u32,
}

impl FromStr for PortRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        match (digits(first, 16), digits(last, 16)) {
            (Some(first), Some(last)) if first <= last && last < PORTS.into() => {
                let narrow = |number: u64| u32::try_from(number).unwrap_or(PORTS);
                Ok(Self { first: narrow(first), count: narrow(last - first + 1) })
            }
            _ => Err(format!("{text:?} are no I/O ports; give two hexadecimal numbers, as in 2f8-2ff, or one")),
        }
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.first, self.first.saturating_add(self.count).saturating_sub(1))
    }
}

/// An interrupt of the host: the number of an I/O APIC's pin, as Linux shows it in /proc/interrupts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Irq(pub u32);

impl FromStr for Irq {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // xl takes every number below UINT_MAX; libxl refuses those that are negative as an int.
        let number = digits(text, 10).and_then(|number| u32::try_from(number).ok()).filter(|number| *number < u32::MAX);
        number.map(Self).ok_or_else(|| format!("{text:?} is no interrupt; give a decimal number"))
    }
}

/// Pages of the host's I/O memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IoMemory {
    /// The first frame of the host.
    pub start: u64,
    /// How many pages; of none, Xen refuses them.
    pub count: u64,
    /// The guest's frame where an HVM or PVH guest sees the first one; `None` is the host's own.
    pub gfn: Option<u64>,
}

impl FromStr for IoMemory {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let frame = |part: &str| digits(part.strip_prefix("0x").unwrap_or(part), 16);
        let parts = || {
            let (start, rest) = text.split_once(',')?;
            let (count, gfn) = rest.split_once('@').map_or((rest, None), |(count, gfn)| (count, Some(gfn)));
            let gfn = match gfn {
                Some(gfn) => Some(frame(gfn)?),
                None => None,
            };
            let all = Self { start: frame(start)?, count: frame(count)?, gfn };
            let ends = [all.start, all.gfn.unwrap_or(0)].map(|first| first.checked_add(all.count));
            ends.iter().all(|end| end.is_some_and(|end| end <= LAST_FRAME + 1)).then_some(all)
        };
        parts().ok_or_else(|| format!("{text:?} is no I/O memory; give START,COUNT[@GFN] in hexadecimal pages"))
    }
}

/// Digits alone: no sign and no prefix.
fn digits(text: &str, radix: u32) -> Option<u64> {
    let is_digits = !text.is_empty() && text.chars().all(|digit| digit.is_digit(radix));
    u64::from_str_radix(text, radix).ok().filter(|_| is_digits)
}

/// What one guest may reach.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostAccess {
    /// I/O ports.
    pub ports: Vec<PortRange>,
    /// Interrupts.
    pub irqs: Vec<Irq>,
    /// I/O memory.
    pub memory: Vec<IoMemory>,
}

impl HostAccess {
    /// Whether it is nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ports.is_empty() && self.irqs.is_empty() && self.memory.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports() {
        let ports: PortRange = "2f8-2ff".parse().expect("ports");
        assert_eq!((ports, ports.to_string().as_str()), (PortRange { first: 0x2f8, count: 8 }, "2f8-2ff"));
        assert_eq!("0-ffff".parse(), Ok(PortRange { first: 0, count: 0x1_0000 }));
        assert_eq!("80".parse(), Ok(PortRange { first: 0x80, count: 1 }));
        for bad in ["", "2ff-2f8", "10000", "0x2f8", "+1", "1-", "-1", "1-2-3"] {
            assert!(bad.parse::<PortRange>().is_err(), "{bad}");
        }
    }

    #[test]
    fn irqs() {
        assert_eq!("017".parse(), Ok(Irq(17)));
        for bad in ["", "0x10", "-1", "4294967295"] {
            assert!(bad.parse::<Irq>().is_err(), "{bad}");
        }
    }

    #[test]
    fn memory() {
        assert_eq!("a0,20".parse(), Ok(IoMemory { start: 0xa0, count: 0x20, gfn: None }));
        assert_eq!("0xfd010,1@0xfd000".parse(), Ok(IoMemory { start: 0xfd010, count: 1, gfn: Some(0xfd000) }));
        for bad in ["", "a0", "a0,", "a0,1@", "a0,-1", "ffffffffff,2", "0,1@10000000000"] {
            assert!(bad.parse::<IoMemory>().is_err(), "{bad}");
        }
    }
}
