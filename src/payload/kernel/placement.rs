//! Checks that a kernel and its modules fit into the memory of their guest.
//!
//! libxenguest places them in sequence from the kernel's address, each on a new page, and fails only after it has
//! populated the guest. The rules here are those of libxenguest: `xc_dom_build_image` and `xc_dom_chk_alloc_pages`
//! (tools/libs/guest/xg_dom_core.c), `alloc_magic_pages_hvm`, `alloc_magic_pages_pv`, `alloc_p2m_list_x86_64` and
//! `alloc_pgtables_pv` (tools/libs/guest/xg_dom_x86.c), Xen 4.17 and 4.20. The result is exact, with two exceptions in
//! which it asks for more than libxenguest does:
//!
//! - populate on demand: frames below the kernel in its first 2 MiB count too, at most 511 pages, because Xen populates 2 MiB
//!   at once while it has them;
//! - PV: page tables that the two initial mappings share count twice, at most 2 pages; 3 pages for a 32-bit kernel.

use elf::abi::EM_386;

use super::elf::Program;
use super::elf_notes::{INIT_P2M, MOD_START_PFN, PADDR_OFFSET, VIRT_BASE};
use crate::memory::{Bytes, Kib, Kind, Mib, PAGE_SIZE, Pages, Plan, Request};
use crate::payload::boot_files::Module;
use crate::payload::error::FileError;

/// The number of frames that Xen populates on demand at once, if it can.
const SUPERPAGE: u64 = 512;

/// `sizeof(struct hvm_start_info)`, and of two modules their entries and command lines (xen/include/public/arch-x86/hvm/start_info.h).
const START_INFO: u64 = 56 + 2 * (32 + 1024);

/// `sizeof(struct hvm_memmap_table_entry)`.
const MEMORY_MAP_ENTRY: u64 = 24;

/// Start info, xenstore ring and console ring of a PV guest.
const MAGIC_PAGES: u64 = 3;

/// The space mapped after a PV kernel's page tables: its first stack, and 512 KiB.
const MAPPED_EXTRA: u64 = 1 + 128;

/// The end of a PV kernel's initial mapping is a multiple of this.
const MAPPING_ALIGNMENT: u128 = 4 << 20;

/// How much of the guest's memory each level of page tables maps with one table: 2 MiB, 1 GiB and 512 GiB.
const TABLE_SHIFTS: [u32; 3] = [21, 30, 39];

/// Makes sure that a kernel, a plain ELF file, and its modules fit into the guest of this plan.
///
/// # Errors
/// [`FileError::Unusable`] for the last module, or for the kernel if it has no modules. It names a size that fits.
pub fn check_placement(plan: &Plan, kernel: &Module, modules: &[Module]) -> Result<(), FileError> {
    let bad = |module: &Module, what, reason| FileError::Unusable { what, path: module.path.clone(), reason };
    let program = match Program::parse(&kernel.data) {
        Ok(program) => program,
        Err(reason) if plan.request.shim => {
            // This is the host's own file, and libxenguest may accept more formats than this parser.
            log::warn!("whether the guest's files fit into its memory is not checked: the PV shim {reason}");
            return Ok(());
        }
        Err(reason) => return Err(bad(kernel, super::KIND, reason)),
    };
    let cmdline = kernel.cmdline.as_bytes().len();
    let sizes: Vec<u64> = modules.iter().map(|module| module.data.len() as u64).collect();
    let image = Image { program: &program, cmdline, modules: &sizes };
    if image.fits(plan) {
        return Ok(());
    }
    let has = Room::of(plan).least().to_kib();
    let least = image.least_target(&plan.request);
    let enough = least.map_or_else(
        || "no guest of this kind has room for them below 4 GiB".to_owned(),
        |least| format!("a guest that starts with {least} has room for them"),
    );
    Err(match modules.last() {
        None => bad(kernel, super::KIND, format!("does not fit into the {has} that the guest starts with: {enough}")),
        Some(last) => {
            let largest = match image.largest_last(plan) {
                Some(largest) => {
                    format!("this one has room for a {} of {} bytes", crate::payload::file::RAMDISK, largest.0)
                }
                None => "this one has no room for the kernel alone".to_owned(),
            };
            let (bytes, what) = (last.data.len(), crate::payload::file::RAMDISK);
            let reason = format!(
                "has {bytes} bytes, which do not fit with the kernel into the {has} that the guest starts with: \
                 {enough}, and {largest}"
            );
            bad(last, what, reason)
        }
    })
}

/// The objects that libxenguest places.
#[derive(Debug, Clone, Copy)]
struct Image<'a> {
    program: &'a Program,
    /// Length of the kernel's command line.
    cmdline: usize,
    /// Sizes of the modules, in bytes.
    modules: &'a [u64],
}

/// The guest's memory for them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Room {
    /// The frames from 0 to the first hole.
    frames: u64,
    /// Populate on demand: the pages that Xen has for all touched frames.
    cache: Option<u64>,
}

impl Room {
    fn of(plan: &Plan) -> Self {
        match plan.request.kind {
            Kind::Hvm | Kind::Pvh => {
                Self { frames: plan.layout.lowmem_end.to_pages_floor().0, cache: plan.pod.map(|pod| pod.cache.0) }
            }
            Kind::Pv => Self { frames: plan.memory.build_start.to_pages_floor().0, cache: None },
        }
    }

    fn least(self) -> Pages {
        Pages(self.cache.unwrap_or(u64::MAX).min(self.frames))
    }
}

impl Image<'_> {
    fn fits(&self, plan: &Plan) -> bool {
        let room = Room::of(plan);
        match plan.request.kind {
            Kind::Hvm | Kind::Pvh => {
                let (start, end) = self.frames_pvh(plan.layout.e820.len());
                let touched = end.saturating_sub(start - start % SUPERPAGE);
                end <= room.frames && room.cache.is_none_or(|cache| touched <= cache)
            }
            Kind::Pv => self.frames_pv(room.frames) <= room.frames,
        }
    }

    /// The first frame of the kernel, and the frame after all placed objects.
    fn frames_pvh(&self, entries: usize) -> (u64, u64) {
        // A command line ends with a NUL, and with the next multiple of 8.
        let cmdline = if self.cmdline == 0 { 0 } else { (self.cmdline as u64 + 1).next_multiple_of(8) };
        let start_info = START_INFO + entries as u64 * MEMORY_MAP_ENTRY + cmdline;
        let (start, end) = self.kernel();
        (start / PAGE_SIZE, pages(end).saturating_add(self.module_pages()).saturating_add(pages(start_info)))
    }

    /// The number of frames that a PV guest of this size needs for all placed objects.
    fn frames_pv(&self, frames: u64) -> u64 {
        let notes = &self.program.notes;
        let offset = notes.number(PADDR_OFFSET).unwrap_or(0);
        let base = notes.number(VIRT_BASE).unwrap_or(0);
        let narrow = self.program.machine == EM_386;
        let modules_unmapped = notes.number(MOD_START_PFN).is_some_and(|number| number != 0);
        let table_at = notes.number(INIT_P2M).filter(|at| !narrow && *at < base && at % PAGE_SIZE == 0);
        let modules = self.module_pages();
        let p2m = pages(frames.saturating_mul(if narrow { 4 } else { 8 }));
        let mapped = pages(self.kernel().1.saturating_sub(offset))
            .saturating_add(if modules_unmapped { 0 } else { modules })
            .saturating_add(if table_at.is_some() { 0 } else { p2m })
            .saturating_add(MAGIC_PAGES);
        let behind = mapping_end(base, mapped, narrow).saturating_add(if modules_unmapped { modules } else { 0 });
        let tables = |at: u64| tables(at.into(), u128::from(at) + u128::from(p2m * PAGE_SIZE) - 1, false);
        behind.saturating_add(table_at.map_or(0, |at| p2m.saturating_add(tables(at))))
    }

    /// The physical start and end addresses of the kernel.
    fn kernel(&self) -> (u64, u64) {
        let segments = &self.program.segments;
        let start = segments.iter().map(|segment| segment.address).min().unwrap_or(0);
        let end = segments.iter().map(|segment| segment.address.saturating_add(segment.size)).max().unwrap_or(0);
        (start, end)
    }

    fn module_pages(&self) -> u64 {
        self.modules.iter().map(|size| pages(*size)).fold(0, u64::saturating_add)
    }

    /// The smallest sufficient target above the requested one, in whole MiB; `None` if no size is sufficient.
    fn least_target(&self, request: &Request) -> Option<Mib> {
        let fits = |mib: u32| {
            let target = Mib(mib).to_kib();
            let static_max = request.static_max.map(|most: Kib| most.max(target));
            let plan = Plan::new(&Request { target, static_max, ..request.clone() }).ok()?;
            Some(self.fits(&plan))
        };
        let mut small = request.target.to_mib_floor()?.0.max(1);
        let mut large = small.checked_mul(2)?;
        while !fits(large)? {
            (small, large) = (large, large.checked_mul(2)?);
        }
        while large - small > 1 {
            let middle = small + (large - small) / 2;
            if fits(middle)? { large = middle } else { small = middle }
        }
        Some(Mib(large))
    }

    /// The maximum size of the last module next to the others, in whole pages; `None` if there is no space for any.
    fn largest_last(&self, plan: &Plan) -> Option<Bytes> {
        let (last, others) = self.modules.split_last()?;
        let fits = |pages: u64| {
            let modules = [others, &[pages * PAGE_SIZE]].concat();
            Image { modules: &modules, ..*self }.fits(plan)
        };
        if !fits(1) {
            return None;
        }
        let (mut small, mut large) = (1, pages(*last));
        while large - small > 1 {
            let middle = small + (large - small) / 2;
            if fits(middle) { small = middle } else { large = middle }
        }
        Some(Bytes(small * PAGE_SIZE))
    }
}

/// The number of pages for this many bytes.
fn pages(bytes: u64) -> u64 {
    bytes.div_ceil(PAGE_SIZE)
}

/// The number of frames of a PV guest up to the end of its initial mapping. The mapping begins at `base` with this many
/// mapped pages and ends with its page tables and [`MAPPED_EXTRA`].
fn mapping_end(base: u64, mapped: u64, narrow: bool) -> u64 {
    let start = u128::from(base);
    let end_of =
        |pages: u64| start + u128::from(mapped) * u128::from(PAGE_SIZE) + u128::from(pages) * u128::from(PAGE_SIZE);
    let mut extra = MAPPED_EXTRA;
    loop {
        // The first address after the mapping.
        let end = (end_of(extra) | (MAPPING_ALIGNMENT - 1)) + 1;
        extra = tables(start, end - 1, true) + if narrow { 3 } else { 0 } + MAPPED_EXTRA;
        if end_of(extra) <= end {
            return u64::try_from((end - start) / u128::from(PAGE_SIZE)).unwrap_or(u64::MAX);
        }
    }
}

/// The number of page tables that map the addresses from the first to the last, including the single top-level table.
fn tables(first: u128, last: u128, top: bool) -> u64 {
    let count = |shift: &u32| u64::try_from((last >> shift) - (first >> shift) + 1).unwrap_or(u64::MAX);
    TABLE_SHIFTS.iter().map(count).fold(u64::from(top), u64::saturating_add)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::super::kernels::{good, header, note, notes};
    use super::*;
    use crate::memory::Model;
    use crate::os::sealed::MemoryFile;

    fn plan(kind: Kind, mib: u32, most: Option<u32>) -> Plan {
        let static_max = most.map(|most| Mib(most).to_kib());
        let request = Request { kind, static_max, model: Model::Libxl, ..Request::new(Mib(mib).to_kib()) };
        Plan::new(&request).expect("a plan")
    }

    /// From 1 MiB to 0x203000: 515 pages with what is below.
    fn program() -> Program {
        Program::parse(&good()).expect("good")
    }

    fn with_notes(more: &[u8]) -> Program {
        let notes = [notes(), more.to_vec()].concat();
        let headers = [
            header(1, 5, super::super::kernels::CODE, 0x10_0000, 0x40, 0x2000),
            header(4, 4, super::super::kernels::NOTES, 0, notes.len(), notes.len() as u64),
        ];
        Program::parse(&super::super::kernels::elf_of(&headers, &notes)).expect("good")
    }

    fn fits(program: &Program, plan: &Plan, cmdline: usize, modules: &[u64]) -> bool {
        Image { program, cmdline, modules }.fits(plan)
    }

    #[test]
    fn a_pvh_guest_has_its_low_memory() {
        let (program, plan) = (program(), plan(Kind::Pvh, 64, None));
        // 16384 pages, less 515 and one of start info.
        let room = (16_384 - 515 - 1) * PAGE_SIZE;
        assert!(fits(&program, &plan, 0, &[room]));
        assert!(!fits(&program, &plan, 0, &[room + 1]));
        assert!(fits(&program, &plan, 0, &[1, room - PAGE_SIZE]), "each begins with a page");
        assert!(!fits(&program, &plan, 0, &[1, room - PAGE_SIZE + 1]));
        // 56 + 2112 + 3 entries of 24 leave 1856 bytes of the page.
        assert!(fits(&program, &plan, 1855, &[room]));
        assert!(!fits(&program, &plan, 1856, &[room]), "the start info has two pages");
    }

    #[test]
    fn on_demand_counts_what_is_granted() {
        let (program, plan) = (program(), plan(Kind::Pvh, 64, Some(512)));
        // The kernel's first 2 MiB begin at 0.
        let room = (16_384 - 515 - 1) * PAGE_SIZE;
        assert!(fits(&program, &plan, 0, &[room]));
        assert!(!fits(&program, &plan, 0, &[room + 1]));
    }

    #[test]
    fn beyond_the_hole_is_no_room() {
        let (program, plan) = (program(), plan(Kind::Pvh, 8192, None));
        assert!(fits(&program, &plan, 0, &[1 << 30, 1 << 30, 1 << 30]));
        assert!(!fits(&program, &plan, 0, &[1 << 30, 1 << 30, 1 << 30, 1 << 30]));
        let image = Image { program: &program, cmdline: 0, modules: &[1 << 30, 1 << 30, 1 << 30, 1 << 30] };
        assert_eq!(image.least_target(&plan.request), None);
    }

    /// Page tables of a guest of 64 MiB: 4 MiB are mapped, by one table of each level and two of the lowest.
    #[test]
    fn a_pv_guest_has_page_tables_and_its_frames() {
        let plan = plan(Kind::Pv, 64, None);
        // Mapped: kernel (515), module, list of frames (32), three pages, five tables and 129 more, up to 4 MiB.
        let program = program();
        let mapped =
            |pages: u64| Image { program: &program, cmdline: 0, modules: &[pages * PAGE_SIZE] }.frames_pv(16_384);
        assert_eq!(mapped(1024 - 515 - 32 - 3 - 5 - 129), 1024);
        assert_eq!(mapped(1024 - 515 - 32 - 3 - 5 - 129 + 1), 2048);
        // Unmapped, and the list elsewhere, as Linux has it: behind the 4 MiB.
        let linux = [note(16, &1u64.to_le_bytes()), note(15, &(1u64 << 39).to_le_bytes())].concat();
        let program = with_notes(&linux);
        let frames =
            |pages: u64| Image { program: &program, cmdline: 0, modules: &[pages * PAGE_SIZE] }.frames_pv(16_384);
        assert_eq!(frames(100), 1024 + 100 + 32 + 3);
        let room = (16_384 - 1024 - 32 - 3) * PAGE_SIZE;
        assert!(fits(&program, &plan, 0, &[room]) && !fits(&program, &plan, 0, &[room + 1]));
    }

    #[test]
    fn the_message_has_both_sizes() {
        let module = |what: &str, data: &[u8]| {
            let file = tempfile::NamedTempFile::new().expect("a file");
            fs::write(file.path(), data).expect("written");
            let memory = MemoryFile::new(c"test").expect("memory");
            memory.fill(file.as_file(), data.len() as u64).expect("filled");
            let data = memory.seal(data.len() as u64).expect("sealed");
            Module { data, path: PathBuf::from(what), cmdline: c"".into() }
        };
        let (kernel, ramdisk) = (module("/k", &good()), module("/r", &vec![1; 3 << 20]));
        let small = plan(Kind::Pvh, 4, None);
        let error = check_placement(&small, &kernel, &[ramdisk]).expect_err("no room").to_string();
        assert_eq!(
            error,
            "ramdisk /r: has 3145728 bytes, which do not fit with the kernel into the 4 MiB that the guest starts with: a \
             guest that starts with 6 MiB has room for them, and this one has room for a ramdisk of 2080768 bytes"
        );
        let tiny = plan(Kind::Pvh, 2, Some(64));
        let error = check_placement(&tiny, &kernel, &[]).expect_err("no room").to_string();
        assert!(error.starts_with("kernel /k: does not fit into the 2 MiB"), "{error}");
        assert!(error.ends_with("a guest that starts with 3 MiB has room for them"), "{error}");
    }

    proptest! {
        /// The reported sizes are exactly the smallest and the largest that fit.
        #[test]
        fn what_is_told_fits(mib in 4_u32..600, more in 0_u32..600, size in 1_u64..1 << 30, kind in 0..2_usize) {
            let kind = [Kind::Pvh, Kind::Pv][kind];
            let program = program();
            let plan = plan(kind, mib, Some(mib + more));
            let image = Image { program: &program, cmdline: 9, modules: &[size] };
            if !image.fits(&plan) {
                let least = image.least_target(&plan.request).expect("there is one");
                let at = |mib: u32| {
                    let target = Mib(mib).to_kib();
                    let static_max = plan.request.static_max.map(|most| most.max(target));
                    Plan::new(&Request { target, static_max, ..plan.request.clone() }).expect("a plan")
                };
                prop_assert!(image.fits(&at(least.0)) && !image.fits(&at(least.0 - 1)));
                if let Some(largest) = image.largest_last(&plan) {
                    prop_assert!(largest.0 < size);
                    prop_assert!(fits(&program, &plan, 9, &[largest.0]));
                    prop_assert!(!fits(&program, &plan, 9, &[largest.0 + 1]));
                }
            }
        }
    }
}
