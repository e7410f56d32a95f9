//! Finds the processes that map pages of guests, by Xen's drivers in `/proc/PID/maps` (proc(5)).

use std::fmt;
use std::fs;

use super::procfs;
use super::untrusted::Untrusted;

/// Path suffixes of the devices that map pages of other domains: `/dev/xen/privcmd`, `/proc/xen/privcmd`,
/// `/dev/xen/gntdev`.
const DRIVERS: [&str; 2] = ["/xen/privcmd", "/xen/gntdev"];
const PAGE_SIZE: u64 = 4096;

/// A process with mapped pages of guests. Linux does not report whose pages they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapper {
    /// The process ID.
    pub pid: i32,
    /// The number of 4 KiB pages, of all domains together.
    pub pages: u64,
    name: Option<Untrusted>,
}

impl fmt::Display for Mapper {
    /// `process 7 (qemu): 3 pages`
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "process {}", self.pid)?;
        if let Some(name) = &self.name {
            write!(formatter, " ({name})")?;
        }
        write!(formatter, ": {} page{}", self.pages, if self.pages == 1 { "" } else { "s" })
    }
}

/// Returns every other process that maps pages of guests. Processes that the caller may not inspect are missing; root
/// may inspect all.
#[must_use]
pub fn mappers() -> Vec<Mapper> {
    let own = i32::try_from(std::process::id()).unwrap_or(0);
    let mut found: Vec<Mapper> = procfs::pids()
        .filter(|pid| *pid != own)
        .filter_map(|pid| {
            let maps = fs::read(format!("/proc/{pid}/maps")).ok()?;
            let pages = foreign_pages(&String::from_utf8_lossy(&maps));
            (pages > 0).then(|| Mapper { pid, pages, name: procfs::name(pid) })
        })
        .collect();
    found.sort_by_key(|mapper| mapper.pid);
    found
}

/// The pages in the lines of `/proc/PID/maps` that name Xen's drivers.
fn foreign_pages(maps: &str) -> u64 {
    let sizes = maps.lines().filter_map(|line| {
        let mut fields = line.split_whitespace();
        let (start, end) = fields.next()?.split_once('-')?;
        let path = fields.nth(4)?;
        let is_xens = DRIVERS.iter().any(|driver| path.ends_with(driver));
        let bytes = u64::from_str_radix(end, 16).ok()?.saturating_sub(u64::from_str_radix(start, 16).ok()?);
        is_xens.then_some(bytes / PAGE_SIZE)
    });
    sizes.fold(0, u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mappings_of_xens_drivers_count() {
        let maps = "7f0000000000-7f0000003000 rw-s 00000000 00:06 123                        /dev/xen/privcmd\n\
                    7f0000003000-7f0000004000 rw-s 00000000 00:06 124                        /dev/xen/gntdev\n\
                    7f0000004000-7f0000008000 rw-s 00000000 00:06 125                        /dev/xen/hypercall\n\
                    7f0000008000-7f0000009000 rw-p 00000000 00:00 0 \n\
                    nonsense\n";
        assert_eq!(foreign_pages(maps), 4);
        assert_eq!(foreign_pages(""), 0);
    }

    #[test]
    fn a_mapper_is_shown_on_one_line() {
        let mapper = Mapper { pid: 7, pages: 1, name: Some("a\x1b[2J".into()) };
        assert_eq!(mapper.to_string(), "process 7 (a\\u{1b}[2J): 1 page");
        assert_eq!(Mapper { name: None, pages: 2, ..mapper }.to_string(), "process 7: 2 pages");
    }

    #[test]
    fn no_process_of_a_host_without_xen_maps_such_pages() {
        if !std::path::Path::new("/proc/xen").exists() {
            assert_eq!(mappers(), []);
        }
    }
}
