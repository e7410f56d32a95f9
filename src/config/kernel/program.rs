//! A kernel's ELF file: what of it gets into the guest, and whether that can be.

use std::ops::Range;

use elf::ElfBytes;
use elf::abi::{EM_386, EM_X86_64, ET_DYN, ET_EXEC, PF_R, PF_W, PF_X, PT_LOAD, PT_NOTE, SHT_NOTE};
use elf::endian::LittleEndian;

use super::notes::{
    ENTRY, GUEST_OS, HYPERCALL_PAGE, INIT_P2M, LOADER, Notes, PADDR_OFFSET, PHYS32_ENTRY, VIRT_BASE, XEN_VERSION,
};
use crate::memory::{Bytes, Kind};

/// FreeBSD's kernel has nine; Linux four.
pub(super) const MOST_SEGMENTS: usize = 32;

const PAGE: u64 = 4096;

/// To compare with: byte by byte, a search for the last that is none takes longer.
const ZEROS: [u8; 4096] = [0; 4096];

/// A part of the file that goes into the guest's memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where it stands in the file.
    pub(super) file: Range<usize>,
    /// Its physical address.
    pub(super) address: u64,
    /// How much of the guest it takes, no less than in the file.
    pub(super) size: u64,
    /// Read, write, execute: at least one of them.
    pub(super) flags: u32,
}

impl Segment {
    /// Never beyond what a number can be: that was checked.
    fn end(&self) -> u64 {
        self.address.saturating_add(self.size)
    }

    fn in_file(&self) -> u64 {
        self.file.len() as u64
    }
}

/// A kernel as an ELF file has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Program {
    /// `EM_386` or `EM_X86_64`.
    pub(super) machine: u16,
    /// Where it starts, unless a note says otherwise.
    pub(super) entry: u64,
    /// By their addresses, none empty, no two of which overlap; at least one.
    pub(super) segments: Vec<Segment>,
    /// What Xen is told.
    pub(super) notes: Notes,
}

impl Program {
    /// Reads the headers of an ELF file of 32 or 64 bits.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn parse(file: &[u8]) -> Result<Self, String> {
        let broken = |error: elf::ParseError| format!("is not a usable ELF file ({error})");
        let elf = ElfBytes::<LittleEndian>::minimal_parse(file).map_err(broken)?;
        let header = elf.ehdr;
        if ![EM_386, EM_X86_64].contains(&header.e_machine) {
            return Err(format!("is a program for machine {}, not for an x86 one", header.e_machine));
        }
        if ![ET_EXEC, ET_DYN].contains(&header.e_type) {
            return Err(format!("is an ELF file of type {}, which is no program", header.e_type));
        }
        let mut segments = Vec::new();
        let mut notes = Notes::default();
        let headers = elf.segments().ok_or_else(|| "has no program headers".to_owned())?;
        for header in headers {
            let data = || elf.segment_data(&header).map_err(|error| format!("is cut off: {error}"));
            match header.p_type {
                // libelf loads no other; an empty one loads nothing.
                PT_LOAD if header.p_flags & (PF_R | PF_W | PF_X) != 0 && header.p_memsz > 0 => {
                    if header.p_filesz > header.p_memsz {
                        return Err(format!(
                            "has a segment of {} bytes in the file and {} in memory",
                            header.p_filesz, header.p_memsz
                        ));
                    }
                    if header.p_paddr.checked_add(header.p_memsz).is_none() {
                        return Err(format!(
                            "has a segment of {} bytes at {:#x}, which goes beyond any address",
                            header.p_memsz, header.p_paddr
                        ));
                    }
                    let length = data()?.len();
                    let start = usize::try_from(header.p_offset).unwrap_or(usize::MAX);
                    let start = if length == 0 { 0 } else { start };
                    segments.push(Segment {
                        file: start..start.saturating_add(length),
                        address: header.p_paddr,
                        size: header.p_memsz,
                        flags: header.p_flags & (PF_R | PF_W | PF_X),
                    });
                }
                // Some linkers leave the place of an empty one at 0.
                PT_NOTE if header.p_offset != 0 => notes.add(data()?)?,
                _ => {}
            }
            if segments.len() > MOST_SEGMENTS {
                return Err(format!("has more than {MOST_SEGMENTS} segments to load"));
            }
        }
        if notes.is_empty() {
            for section in elf.section_headers().into_iter().flatten().filter(|section| section.sh_type == SHT_NOTE) {
                let (data, _) = elf.section_data(&section).map_err(|error| format!("is cut off: {error}"))?;
                notes.add(data)?;
            }
        }
        segments.sort_by_key(|segment| segment.address);
        if segments.is_empty() {
            return Err("has nothing to load".to_owned());
        }
        for pair in segments.windows(2) {
            if let [one, other] = pair
                && one.end() > other.address
            {
                return Err(format!(
                    "has segments that overlap: {} bytes at {:#x} and {} at {:#x}",
                    one.size, one.address, other.size, other.address
                ));
            }
        }
        if notes.is_empty() {
            // Since 2006 there are notes; before, a section __xen_guest had it.
            return Err("has no ELF notes for Xen: it was not made to run under Xen without firmware".to_owned());
        }
        Ok(Self { machine: header.e_machine, entry: header.e_entry, segments, notes })
    }

    /// Leaves out the zeros at the end of each segment, of which what is loaded beyond the file consists anyway. `file` is what
    /// this was read from. Of Linux, they are nearly half.
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

    /// Makes sure that a guest of this kind, with so much memory from 0 on, can start it. The rules are libelf's
    /// (`elf_xen_note_check` and `elf_xen_addr_calc_check` in xen/common/libelf/libelf-dominfo.c, Xen 4.17), and that the
    /// kernel lies where the guest has memory, and its entry in what is loaded.
    ///
    /// # Errors
    /// What cannot be.
    pub(super) fn check(&self, kind: Kind, memory: Bytes) -> Result<(), String> {
        match kind {
            Kind::Hvm | Kind::Pvh => self.check_pvh(memory),
            Kind::Pv => self.check_pv(memory),
        }
    }

    fn start(&self) -> u64 {
        self.segments.first().map_or(0, |segment| segment.address)
    }

    fn end(&self) -> u64 {
        self.segments.last().map_or(0, Segment::end)
    }

    fn check_pvh(&self, memory: Bytes) -> Result<(), String> {
        let entry = self.notes.number(PHYS32_ENTRY).ok_or_else(|| {
            "has no PVH entry point (the note XEN_ELFNOTE_PHYS32_ENTRY; Linux has it with CONFIG_PVH)".to_owned()
        })?;
        if u32::try_from(entry).is_err() {
            return Err(format!("has its PVH entry point at {entry:#x}, beyond 4 GiB"));
        }
        self.check_room(self.end(), memory)?;
        self.check_entry(entry, entry)
    }

    fn check_pv(&self, memory: Bytes) -> Result<(), String> {
        let notes = &self.notes;
        let (loader, system) = (notes.text(LOADER), notes.text(GUEST_OS));
        if !loader.starts_with("generic") && !system.starts_with("linux") {
            return Err(format!("is no kernel for PV guests (its loader is {loader:?}, its system {system:?})"));
        }
        let version = notes.text(XEN_VERSION);
        if !version.starts_with("xen-3.0") {
            return Err(format!("was made for another Xen than a PV guest has (note {XEN_VERSION} is {version:?})"));
        }
        let (base, offset) = (notes.number(VIRT_BASE), notes.number(PADDR_OFFSET));
        if base.is_none() && offset.is_some() {
            return Err("has a note PADDR_OFFSET and none of VIRT_BASE".to_owned());
        }
        let (base, offset) = (base.unwrap_or(0), offset.unwrap_or(0));
        let out = |what: &str, address: u64| {
            format!("has {what} at {address:#x}, which cannot be with VIRT_BASE {base:#x} and PADDR_OFFSET {offset:#x}")
        };
        if !base.is_multiple_of(PAGE) {
            return Err(out("its memory", base));
        }
        // How far virtual addresses are from physical ones.
        let distance = base.checked_sub(offset).ok_or_else(|| out("its memory", base))?;
        let first = self.start().checked_sub(offset).ok_or_else(|| out("its first segment", self.start()))?;
        let last = self.end().saturating_sub(offset);
        let (start, end) = match (base.checked_add(first), base.checked_add(last)) {
            (Some(start), Some(end)) => (start, end),
            _ => return Err(out("its last segment", self.end())),
        };
        self.check_room(last, memory)?;
        let entry = notes.number(ENTRY).unwrap_or(self.entry);
        self.check_entry(entry, entry.checked_sub(distance).unwrap_or(u64::MAX))?;
        let inside = |address: u64| (start..end).contains(&address);
        if let Some(page) = notes.number(HYPERCALL_PAGE)
            && !(page.is_multiple_of(PAGE) && inside(page))
        {
            return Err(out("its hypercall page", page));
        }
        match notes.number(INIT_P2M) {
            Some(table) if inside(table) => Err(out("the table of its frames", table)),
            _ => Ok(()),
        }
    }

    fn check_room(&self, end: u64, memory: Bytes) -> Result<(), String> {
        if end <= memory.0 {
            return Ok(());
        }
        Err(format!(
            "needs memory up to {end:#x}, and the guest has it up to {:#x}: give it more than {} MiB",
            memory.0,
            end.div_ceil(1 << 20)
        ))
    }

    fn check_entry(&self, shown: u64, address: u64) -> Result<(), String> {
        let holds =
            |segment: &Segment| address.checked_sub(segment.address).is_some_and(|offset| offset < segment.in_file());
        if self.segments.iter().any(holds) {
            return Ok(());
        }
        Err(format!("has its entry point at {shown:#x}, where nothing of it is loaded"))
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernels::{changed, good, notes};
    use super::*;

    #[test]
    fn a_good_kernel_is_read() {
        let program = Program::parse(&good()).expect("good");
        let places: Vec<_> = program.segments.iter().map(|segment| (segment.address, segment.size)).collect();
        assert_eq!(places, [(0x10_0000, 0x2000), (0x20_0000, 0x3000)]);
        assert_eq!(program.segments[1].file, 0x1040..0x1080);
        let all = Bytes(0x20_3000);
        for kind in [Kind::Pvh, Kind::Pv] {
            program.check(kind, all).expect("it fits exactly");
            let error = program.check(kind, Bytes(all.0 - 1)).expect_err("a byte too little");
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
        // Two pages and a half, of which the first has something in it.
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
        program.check(Kind::Pvh, Bytes(1 << 24)).expect("it begins in the first");
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
        program.check(Kind::Pvh, Bytes(1 << 24)).expect("it fits");
    }

    #[test]
    fn notes_may_stand_in_a_section() {
        // No segment has them: its type is another.
        let mut file = changed(64 + 2 * 56, &7u32.to_le_bytes());
        assert!(Program::parse(&file).expect_err("none").contains("no ELF notes"));
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
