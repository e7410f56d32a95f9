//! A kernel's ELF file: the parts that the guest gets, and the checks that it can be loaded.
//!
//! Accepts what Xen's own loaders accept, with the same meaning, except for the differences in docs/interface.md:
//! libelf, and libxenguest's loaders around it (xen/common/libelf/, xg_dom_elfloader.c and xg_dom_hvmloader.c in
//! tools/libs/guest/, Xen 4.17 to 4.20).

use std::ops::Range;

use elf::abi::{EM_386, EM_ARM, EM_X86_64, PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE, SHT_NOTE};

use super::elf_notes::{
    ENTRY, GUEST_OS, HYPERCALL_PAGE, INIT_P2M, LOADER, Notes, PADDR_OFFSET, PHYS32_ENTRY, VIRT_BASE, XEN_VERSION,
};
use super::fields::Fields;
use crate::memory::{Bytes, Kind};
use crate::xen::PVH_PADDR_OFFSET_NEEDS_BASE;

/// An ELF file has at most 65535 program headers, and one of the plain file's is that of the notes.
const MOST_SEGMENTS: usize = 65534;

const PAGE: u64 = 4096;

/// To compare with: byte by byte, a search for the last that is none takes longer.
const ZEROS: [u8; 4096] = [0; 4096];

/// A part of the file that goes into the guest's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// Its range in the file.
    pub(super) file: Range<usize>,
    /// Its physical address.
    pub(super) address: u64,
    /// Its size in the guest, no less than in the file.
    pub(super) size: u64,
    /// Read, write, execute: at least one of them.
    pub(super) flags: u32,
}

impl Segment {
    /// libelf computes it without a range check: for a PV kernel, only the distance from the first segment counts.
    fn end(&self) -> u64 {
        self.address.wrapping_add(self.size)
    }
}

/// The memory of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ram {
    /// The end of the memory that begins at 0 and has no hole.
    pub(super) end: Bytes,
    /// The maximum of that end in a guest of any size, if it is limited.
    pub(super) most: Option<Bytes>,
}

/// A kernel, as its ELF file describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    /// `EM_386`, `EM_X86_64`, or another one, which PVH does not look at.
    pub(super) machine: u16,
    /// The entry point, unless a note overrides it.
    pub(super) entry: u64,
    /// In load order: where two overlap, the second one's content remains. At least one.
    pub(super) segments: Vec<Segment>,
    /// The notes for Xen.
    pub(super) notes: Notes,
}

/// The range and the entry point of a kernel, in its link addresses.
struct Placed {
    base: u64,
    start: u64,
    end: u64,
    entry: u64,
    /// The offset of these addresses from physical ones.
    distance: u64,
}

impl Program {
    /// Reads the headers of an ELF file.
    ///
    /// # Errors
    /// A description of the fault.
    pub(super) fn parse(file: &[u8]) -> Result<Self, String> {
        Self::of(&Fields::of(file)?, file.len())
    }

    /// As [`parse`](Self::parse), of the first bytes of a file of this length. `None`: something else of the file is needed.
    pub(super) fn parse_start(file: &[u8], length: usize) -> Option<Self> {
        let fields = Fields::of_start(file, length as u64).ok()?;
        let program = Self::of(&fields, length).ok()?;
        (!fields.has_missed()).then_some(program)
    }

    fn of(fields: &Fields<'_>, length: usize) -> Result<Self, String> {
        let segments = segments(fields, length)?;
        let machine = u16::try_from(fields.machine()).unwrap_or(0);
        let mut program = Self { machine, entry: fields.entry(), segments, notes: Notes::default() };
        program.check_copies()?;
        let read = read_notes(fields, &mut program.notes);
        if fields.is_32_bit() && program.is_for_firmware_loader(read.is_ok()) {
            // This loader reads no notes. The other fields matter only to PV.
            let is_pv = read.is_ok() && !program.notes.is_for_dom0() && program.placed(false).is_ok();
            if !is_pv {
                program.notes = Notes::default();
            }
            program.notes.set_entry(program.entry);
            // The plain file has one.
            program.notes.had_place = true;
        } else {
            read?;
        }
        Ok(program)
    }

    /// Omits the zeros at the end of each segment, because the loader fills memory beyond the file's bytes with zeros
    /// anyway. `file` is the file of these headers. Nearly half of a Linux kernel is such zeros.
    pub(super) fn leave_out_zeros(&mut self, file: &[u8]) {
        for segment in &mut self.segments {
            let content = file.get(segment.file.clone()).unwrap_or_default();
            let zeros: usize =
                content.rchunks(ZEROS.len()).take_while(|chunk| ZEROS.starts_with(chunk)).map(<[u8]>::len).sum();
            segment.file.end = segment.file.end.saturating_sub(zeros);
            if segment.file.is_empty() {
                segment.file = 0..0;
            }
        }
    }

    /// Checks that libxenguest can load it into a guest of this kind with this memory.
    ///
    /// # Errors
    /// The reason why libxenguest cannot load it.
    pub(super) fn check(&self, kind: Kind, ram: Ram) -> Result<(), String> {
        if kind == Kind::Hvm && self.notes.number(PHYS32_ENTRY).is_none() {
            return Err(
                "is neither a 32-bit x86 program nor one with a PVH entry point; an HVM guest starts with hvmloader, not \
                 with its own kernel"
                    .to_owned(),
            );
        }
        if self.notes.bytes().is_empty() {
            return Err("has no ELF notes for Xen: it was not made to run under Xen without firmware".to_owned());
        }
        if self.notes.is_for_dom0() {
            return Err("is a kernel for dom0 alone (it needs the feature dom0)".to_owned());
        }
        match kind {
            Kind::Hvm | Kind::Pvh => self.check_pvh(kind, ram),
            Kind::Pv => self.check_pv(ram),
        }
    }

    fn start(&self) -> u64 {
        self.segments.iter().map(|segment| segment.address).min().unwrap_or(0)
    }

    fn end(&self) -> u64 {
        self.segments.iter().map(Segment::end).max().unwrap_or(0)
    }

    /// Checks that libelf copies every segment completely. libelf skips what it cannot copy, and still reports success
    /// (`elf_load_binary`).
    fn check_copies(&self) -> Result<(), String> {
        let start = self.start();
        let room = self.end().wrapping_sub(start).div_ceil(PAGE).saturating_mul(PAGE);
        if room == 0 {
            return Err("has nothing to load".to_owned());
        }
        let mut left = room.saturating_mul(2);
        for Segment { address, size, .. } in &self.segments {
            let offset = address.wrapping_sub(start);
            if offset.checked_add(*size).is_none_or(|end| end > room) {
                return Err(format!("has a segment of {size} bytes at {address:#x}, which goes beyond any address"));
            }
            left = left.checked_sub(*size).ok_or_else(|| {
                format!(
                    "has segments that take more than twice the memory in which they are: the one at {address:#x} and \
                     those behind it would not be loaded"
                )
            })?;
        }
        Ok(())
    }

    /// Whether libxenguest leaves it to its loader of firmware, which starts it where the file's header says: where libelf
    /// refuses it. The base that a note names counts where that is before it has looked at addresses.
    fn is_for_firmware_loader(&self, notes_are_read: bool) -> bool {
        if notes_are_read && self.check_notes(true).is_ok() {
            return self.placed(true).is_err();
        }
        self.notes.number(VIRT_BASE).is_none_or(|base| base <= self.start() || self.start() == 0)
    }

    /// `elf_xen_note_check`.
    fn check_notes(&self, hvm: bool) -> Result<(), String> {
        let notes = &self.notes;
        if !notes.had_place {
            let is_x86 = [EM_386, EM_X86_64].contains(&self.machine);
            return if is_x86 { Err("has no place for ELF notes".to_owned()) } else { Ok(()) };
        }
        if self.machine == EM_ARM || hvm && notes.number(PHYS32_ENTRY).is_some() {
            return Ok(());
        }
        let (loader, system) = (notes.text(LOADER), notes.text(GUEST_OS));
        if !loader.starts_with("generic") && !system.starts_with("linux") {
            return Err(format!("is no kernel for PV guests (its loader is {loader:?}, its system {system:?})"));
        }
        let version = notes.text(XEN_VERSION);
        if !version.starts_with("xen-3.0") {
            return Err(format!("was made for another Xen than a PV guest has (note {XEN_VERSION} is {version:?})"));
        }
        Ok(())
    }

    /// `elf_xen_note_check` and `elf_xen_addr_calc_check`, with numbers that wrap around as there.
    fn placed(&self, hvm: bool) -> Result<Placed, String> {
        self.check_notes(hvm)?;
        let notes = &self.notes;
        let (base, offset) = (notes.number(VIRT_BASE), notes.number(PADDR_OFFSET));
        if base.is_none() && offset.is_some() && (!hvm || PVH_PADDR_OFFSET_NEEDS_BASE) {
            return Err("has a note PADDR_OFFSET and none of VIRT_BASE".to_owned());
        }
        let (base, offset, entry) = if hvm {
            (0, 0, notes.number(PHYS32_ENTRY))
        } else {
            (base.unwrap_or(0), offset.unwrap_or(0), notes.number(ENTRY))
        };
        let entry = entry.unwrap_or(self.entry);
        let distance = base.wrapping_sub(offset);
        let (start, end) = (self.start().wrapping_add(distance), self.end().wrapping_add(distance));
        let with = if hvm { String::new() } else { format!(" with VIRT_BASE {base:#x} and PADDR_OFFSET {offset:#x}") };
        if start > end || base > start {
            return Err(format!("is linked to {start:#x} to {end:#x}, which cannot be{with}"));
        }
        if !(start..=end).contains(&entry) {
            return Err(format!(
                "has its entry point at {entry:#x}, and nothing of it is loaded there but from {start:#x} to \
                 {end:#x}{with}"
            ));
        }
        if let Some(table) = notes.number(INIT_P2M).filter(|table| (start..end).contains(table)) {
            return Err(format!("has the table of its frames at {table:#x}, within itself"));
        }
        Ok(Placed { base, start, end, entry, distance })
    }

    fn check_pvh(&self, kind: Kind, ram: Ram) -> Result<(), String> {
        if self.notes.number(PHYS32_ENTRY).is_none() {
            return Err(
                "has no PVH entry point (the note XEN_ELFNOTE_PHYS32_ENTRY; Linux has it with CONFIG_PVH)".to_owned()
            );
        }
        let placed = self.placed(true)?;
        if let Some(most) = ram.most.filter(|most| placed.end > most.0) {
            return Err(format!(
                "is linked to {:#x} to {:#x}, where a {kind} guest has no memory, whatever its size: low memory ends at \
                 {:#x}; link it lower",
                placed.start, placed.end, most.0
            ));
        }
        self.check_room(&placed, ram)
    }

    fn check_pv(&self, ram: Ram) -> Result<(), String> {
        match self.machine {
            EM_X86_64 => {}
            EM_386 if self.notes.has_pae() => {}
            EM_386 => {
                return Err("is a 32-bit PV kernel without PAE (note PAE_MODE), which Xen does not run".to_owned());
            }
            other => return Err(format!("is a program for machine {other}, not for an x86 one")),
        }
        let placed = self.placed(false)?;
        if !placed.base.is_multiple_of(PAGE) {
            return Err(format!("has VIRT_BASE {:#x}, which is no multiple of {PAGE}", placed.base));
        }
        if let Some(page) = self.notes.number(HYPERCALL_PAGE)
            && page.wrapping_sub(placed.base) / PAGE >= ram.end.0 / PAGE
        {
            return Err(format!(
                "has its hypercall page at {page:#x}, where the guest has no memory with VIRT_BASE {:#x}",
                placed.base
            ));
        }
        self.check_room(&placed, ram)
    }

    /// The rules of libxenguest's allocation of the kernel's memory (`xc_dom_alloc_segment`,
    /// tools/libs/guest/xg_dom_core.c).
    fn check_room(&self, placed: &Placed, ram: Ram) -> Result<(), String> {
        if !placed.start.is_multiple_of(PAGE) {
            return Err(format!("begins at {:#x}, which is no multiple of {PAGE}", placed.start));
        }
        let end = placed.end.wrapping_sub(placed.base);
        if end > ram.end.0 {
            return Err(format!(
                "needs memory up to {end:#x}, and the guest has it up to {:#x}: give it more than {} MiB",
                ram.end.0,
                end.div_ceil(1 << 20)
            ));
        }
        let physical = placed.entry.wrapping_sub(placed.distance);
        let holds = |segment: &Segment| {
            let offset = physical.checked_sub(segment.address);
            offset.is_some_and(|offset| offset < segment.file.len() as u64)
        };
        if !self.segments.iter().any(holds) {
            log::warn!("the kernel has its entry point at {:#x}, where all of it is zero", placed.entry);
        }
        Ok(())
    }
}

/// The end of all that is read of a program whose notes are in its segments, in bytes from the start of its file of this length.
/// `None` if the program headers do not end in `head`, the first bytes of the file.
pub(super) fn end_of_program(head: &[u8], length: usize) -> Option<usize> {
    let fields = Fields::of_start(head, length as u64).ok()?;
    if fields.end_of_program_headers() > head.len() as u64 {
        return None;
    }
    let ends = fields
        .program_headers()
        .filter(|header| [PT_LOAD, PT_NOTE].map(u64::from).contains(&header.kind))
        .map(|header| header.offset.saturating_add(header.in_file));
    usize::try_from(ends.max()?.min(length as u64)).ok()
}

/// The segments that libelf loads, including empty ones, whose addresses are part of the kernel's memory.
fn segments(fields: &Fields<'_>, length: usize) -> Result<Vec<Segment>, String> {
    let loaded = fields
        .program_headers()
        .filter(|header| header.kind == u64::from(PT_LOAD) && header.flags & u64::from(PF_R | PF_W | PF_X) != 0);
    let mut segments = Vec::new();
    for header in loaded {
        if header.in_file > header.in_memory {
            return Err(format!(
                "has a segment of {} bytes in the file and {} in memory",
                header.in_file, header.in_memory
            ));
        }
        let end = header.offset.checked_add(header.in_file).filter(|end| *end <= length as u64);
        let range = usize::try_from(header.offset).ok().zip(end.and_then(|end| usize::try_from(end).ok()));
        let file = match range {
            _ if header.in_file == 0 => 0..0,
            Some((start, end)) => start..end,
            None => {
                return Err(format!(
                    "is cut off: a segment has {} bytes at {:#x}, and the file has {length:#x}",
                    header.in_file, header.offset
                ));
            }
        };
        let flags = u32::try_from(header.flags).unwrap_or(0) & (PF_R | PF_W | PF_X);
        segments.push(Segment { file, address: header.address, size: header.in_memory, flags });
        if segments.len() > MOST_SEGMENTS {
            return Err(format!("has more than {MOST_SEGMENTS} segments to load"));
        }
    }
    if segments.is_empty() { Err("has nothing to load".to_owned()) } else { Ok(segments) }
}

/// The notes of the segments; if none of them is Xen's, those of the sections.
fn read_notes(fields: &Fields<'_>, notes: &mut Notes) -> Result<(), String> {
    // Some linkers set the offset of an empty one to 0.
    let in_segments = |header: &super::fields::ProgramHeader| header.kind == u64::from(PT_NOTE) && header.offset != 0;
    for header in fields.program_headers().filter(in_segments) {
        notes.add(fields, header.offset, header.in_file)?;
    }
    if notes.is_empty() {
        for section in fields.section_headers().filter(|section| section.kind == u64::from(SHT_NOTE)) {
            notes.add(fields, section.offset, section.size)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::kernels::{changed, field, good, notes};
    use super::*;

    fn ram(end: Bytes) -> Ram {
        Ram { end, most: Some(Bytes(0xfc00_0000)) }
    }

    #[test]
    fn a_good_kernel_is_read() {
        let program = Program::parse(&good()).expect("good");
        let places: Vec<_> = program.segments.iter().map(|segment| (segment.address, segment.size)).collect();
        assert_eq!(places, [(0x10_0000, 0x2000), (0x20_0000, 0x3000)]);
        assert_eq!(program.segments[1].file, 0x1040..0x1080);
        let all = Bytes(0x20_3000);
        for kind in [Kind::Pvh, Kind::Pv] {
            program.check(kind, ram(all)).expect("it fits exactly");
            let error = program.check(kind, ram(Bytes(all.0 - 1))).expect_err("a byte too little");
            assert!(error.contains("up to 0x203000") && error.contains("0x202fff"), "{error}");
        }
    }

    #[test]
    fn zeros_at_the_end_are_left_out() {
        let mut file = good();
        let mut program = Program::parse(&file).expect("good");
        let whole = program.clone();
        program.leave_out_zeros(&file);
        assert_eq!(program, whole, "there are none");
        // Two and a half pages, with content in the first.
        let start = file.len();
        file.resize(start + 0x2800, 0);
        file[start + 0xfff] = 1;
        program.segments[1].file = start..file.len();
        program.leave_out_zeros(&file);
        let kept = program.segments[1].file.clone();
        assert!(kept.start == start && (start + 0x1000..start + 0x2000).contains(&kept.end), "{kept:?}");
        assert_eq!(program.segments[1].size, whole.segments[1].size);
        file[start + 0xfff] = 0;
        program.leave_out_zeros(&file);
        assert_eq!(program.segments[1].file, 0..0, "nothing but zeros");
        program.check(Kind::Pvh, ram(Bytes(1 << 24))).expect("it begins in the first");
    }

    #[test]
    fn a_kernel_of_32_bits_is_read() {
        // The header, one segment at 1 MiB, and a note segment, as elf(5) has them.
        let mut file = b"\x7fELF\x01\x01\x01".to_vec();
        file.resize(16, 0);
        file.extend([2, 0, 3, 0, 1, 0, 0, 0]);
        for word in [0x10_0000u32, 52, 0, 0] {
            file.extend(word.to_le_bytes());
        }
        for half in [52u16, 32, 2, 0, 0, 0] {
            file.extend(half.to_le_bytes());
        }
        let notes = notes();
        let size = u32::try_from(notes.len()).expect("small");
        for words in [[1, 0, 0, 0x10_0000, 116, 0x1000, 5, 4096], [4, 116, 0, 0, size, size, 4, 4]] {
            file.extend(words.iter().flat_map(|word: &u32| word.to_le_bytes()));
        }
        file.extend(&notes);
        let program = Program::parse(&file).expect("good");
        assert_eq!((program.machine, program.entry), (EM_386, 0x10_0000));
        assert_eq!(program.segments, [Segment { file: 0..116, address: 0x10_0000, size: 0x1000, flags: 5 }]);
        program.check(Kind::Pvh, ram(Bytes(1 << 24))).expect("it fits");
    }

    #[test]
    fn a_32_bit_pv_kernel_has_pae() {
        let mut file = changed(18, &[3, 0]);
        Program::parse(&file).expect("good").check(Kind::Pv, ram(Bytes(1 << 24))).expect("as Linux says");
        // The note becomes an unknown one.
        let at = file.windows(8).position(|bytes| bytes == b"\x09\0\0\0Xen\0").expect("PAE_MODE");
        file[at] = 99;
        let error = Program::parse(&file).expect("good").check(Kind::Pv, ram(Bytes(1 << 24)));
        assert!(error.expect_err("none runs").contains("without PAE"));
    }

    /// Where two segments overlap, the second one's content remains: both stay, in their order.
    #[test]
    fn segments_keep_their_order() {
        let program = Program::parse(&field(0, 24, 0x20_1000)).expect("they overlap");
        let places: Vec<_> = program.segments.iter().map(|segment| segment.address).collect();
        assert_eq!(places, [0x20_1000, 0x20_0000]);
        assert_eq!((program.start(), program.end()), (0x20_0000, 0x20_3000));
    }

    #[test]
    fn notes_may_stand_in_a_section() {
        // No segment has them: its type is another.
        let mut file = changed(64 + 2 * 56, &7u32.to_le_bytes());
        let none = Program::parse(&file).expect("an ELF file");
        assert!(none.check(Kind::Pvh, ram(Bytes(1 << 24))).expect_err("none").contains("no ELF notes"));
        let start = file.len();
        for words in [[0u64; 8], [u64::from(SHT_NOTE) << 32, 0, 0, 0x200, notes().len() as u64, 0, 4, 0]] {
            file.extend(words.iter().flat_map(|word| word.to_le_bytes()));
        }
        file[40..48].copy_from_slice(&(start as u64).to_le_bytes());
        file[58..62].copy_from_slice(&[64, 0, 2, 0]);
        let program = Program::parse(&file).expect("good");
        assert_eq!(program.notes.number(PHYS32_ENTRY), Some(0x10_0000));
    }
}
