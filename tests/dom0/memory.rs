//! The content of a guest's memory at the end of the build.

use std::collections::BTreeMap;

use dombuild::memory::{Gfn, Pages};
use dombuild::xen::{DomId, Interface};

use super::Test;
use super::support::{create, dombuild, domid};

pub(crate) const TESTS: &[Test] =
    &[("a_guest_finds_nothing_of_the_one_before", a_guest_finds_nothing_of_the_one_before)];

const PAGE: usize = 4096;
const ZEROS: &[u8] = &[0; PAGE];
/// 256 MiB, and the option ROMs that QEMU puts behind the video memory.
const RAM_AND_ROMS: u64 = 65_536 + 256;
/// The ioreq server's pages and the special pages.
const SPECIAL: u64 = 0xfeff0;

/// Every page of a guest of at most 256 MiB: how many are populated, and the content of those that are not all zero.
#[derive(PartialEq)]
pub(crate) struct Memory {
    pub(crate) populated: usize,
    pub(crate) non_zero: BTreeMap<u64, Vec<u8>>,
}

impl Memory {
    pub(crate) fn of(xen: &Interface, domid: DomId) -> Self {
        const BATCH: u64 = 256;
        let mut memory = Self { populated: 0, non_zero: BTreeMap::new() };
        for first in (0..RAM_AND_ROMS).step_by(256) {
            memory.add(xen, domid, first, BATCH);
        }
        memory.add(xen, domid, SPECIAL, 16);
        memory
    }

    fn add(&mut self, xen: &Interface, domid: DomId, first: u64, count: u64) {
        let Ok(mapping) = xen.map(domid, Gfn(first), Pages(count)) else {
            // A hole somewhere in this batch.
            if count > 1 {
                (first..first + count).for_each(|gfn| self.add(xen, domid, gfn, 1));
            }
            return;
        };
        let mut data = vec![0; PAGE * usize::try_from(count).expect("small")];
        mapping.read(0, &mut data);
        for (gfn, page) in (first..).zip(data.chunks(PAGE)) {
            self.populated += 1;
            if page != ZEROS {
                self.non_zero.insert(gfn, page.to_vec());
            }
        }
    }

    /// The pages whose content is not the same in both.
    pub(crate) fn differences(&self, other: &Self) -> Vec<u64> {
        let mut gfns: Vec<u64> = self.non_zero.keys().chain(other.non_zero.keys()).copied().collect();
        gfns.sort_unstable();
        gfns.dedup();
        gfns.retain(|gfn| self.non_zero.get(gfn) != other.non_zero.get(gfn));
        gfns
    }
}

/// Xen does not scrub a page that is freed while its domain lives. QEMU's exit frees the page through which a guest's
/// I/O went, so a domain must be dying by then; else the next guest has that page among its own, as it was.
fn a_guest_finds_nothing_of_the_one_before() {
    let xen = Interface::open().expect("Xen");
    let build = || {
        let guest = domid(&create("t", &["--memory", "256", "--vcpus", "2", "--paused"]));
        let memory = Memory::of(&xen, guest);
        dombuild(&["destroy", "t"]).success();
        memory
    };
    // The first one takes what earlier tests may have left.
    build();
    let first = build();
    for _ in 0..3 {
        let next = build();
        assert_eq!(first.differences(&next), [0; 0], "pages that hold something else");
        assert_eq!(first.populated, next.populated);
    }
}
