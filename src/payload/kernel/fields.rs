//! The fields of an ELF file, read as Xen's loader reads them (`elf_init` and `elf_access_unsigned`, xen/common/libelf/,
//! `elf_uval`, xen/include/xen/libelf.h, Xen 4.17 to 4.20).
//!
//! A field beyond the end of the file is 0. A class that is not 64 bits is 32 bits, and a byte order that is not little endian
//! is big endian. The entries of a table are as far apart as the file header says. File type and version are not read.

use std::cell::Cell;

use elf::abi::{EI_CLASS, EI_DATA, ELFCLASS32, ELFCLASS64, ELFDATA2LSB, ELFMAGIC};

/// `sizeof(Elf32_Ehdr)`, which every file has at least.
const SHORTEST: usize = 52;

/// `sizeof(Elf32_Shdr)`: more sections than fit into the file are not counted.
const SECTION_SIZE: u64 = 40;

/// `ELF_MAX_STRING_LENGTH` (xen/include/xen/libelf.h).
const LONGEST_TEXT: usize = 4096;

/// An ELF file.
#[derive(Debug)]
pub(super) struct Fields<'a> {
    file: &'a [u8],
    /// The length of the whole file, which can be longer than what is there of it.
    length: u64,
    /// A field was read that is in the file, but not there.
    missed: Cell<bool>,
    class: u8,
    big_endian: bool,
}

/// A program header.
#[derive(Debug, Clone, Copy)]
pub(super) struct ProgramHeader {
    /// `PT_LOAD` and others.
    pub(super) kind: u64,
    /// `PF_R` and others.
    pub(super) flags: u64,
    /// The offset of its bytes in the file.
    pub(super) offset: u64,
    /// Its physical address.
    pub(super) address: u64,
    /// The number of its bytes in the file.
    pub(super) in_file: u64,
    /// The number of its bytes in memory.
    pub(super) in_memory: u64,
}

/// A section header.
#[derive(Debug, Clone, Copy)]
pub(super) struct SectionHeader {
    /// `SHT_NOTE` and others.
    pub(super) kind: u64,
    /// The offset of its bytes in the file.
    pub(super) offset: u64,
    /// The number of its bytes in the file.
    pub(super) size: u64,
}

/// A table of headers: its offset, the distance of its entries, and their number.
#[derive(Debug, Clone, Copy)]
struct Table {
    offset: u64,
    stride: u64,
    count: u64,
}

impl Table {
    fn entry(self, index: u64) -> u64 {
        self.offset.wrapping_add(self.stride.wrapping_mul(index))
    }
}

impl<'a> Fields<'a> {
    /// Checks that this is an ELF file and that its tables end within it.
    ///
    /// # Errors
    /// A description of the fault.
    pub(super) fn of(file: &'a [u8]) -> Result<Self, String> {
        Self::of_start(file, file.len() as u64)
    }

    /// As [`of`](Self::of), of the first bytes of a file of this length. Fields behind them are 0;
    /// [`has_missed`](Self::has_missed) tells whether one was read.
    pub(super) fn of_start(file: &'a [u8], length: u64) -> Result<Self, String> {
        let byte = |at: usize| file.get(at).copied().unwrap_or(0);
        if length < SHORTEST as u64 || !file.starts_with(&ELFMAGIC) {
            return Err(format!("is not a usable ELF file (it has {length} bytes)"));
        }
        let fields = Self {
            file,
            length,
            missed: Cell::new(false),
            class: byte(EI_CLASS),
            big_endian: byte(EI_DATA) != ELFDATA2LSB,
        };
        for (what, table) in [("program", fields.program_table()), ("section", fields.section_table())] {
            let end = table.entry(table.count);
            if end > length {
                return Err(format!(
                    "is not a usable ELF file (its {what} headers end at {end:#x}, and it has {length:#x} bytes)"
                ));
            }
        }
        Ok(fields)
    }

    /// Whether libxenguest's firmware loader accepts its class; it accepts no other.
    pub(super) fn is_32_bit(&self) -> bool {
        self.class == ELFCLASS32
    }

    /// `EM_386` and others.
    pub(super) fn machine(&self) -> u64 {
        self.number(18, 2)
    }

    /// The entry point.
    pub(super) fn entry(&self) -> u64 {
        self.word(0, 24, 24)
    }

    /// The program headers.
    pub(super) fn program_headers(&self) -> impl Iterator<Item = ProgramHeader> {
        self.entries(self.program_table(), 0).map(|at| ProgramHeader {
            kind: self.number(at, 4),
            flags: self.number(at.wrapping_add(if self.is_64_bit() { 4 } else { 24 }), 4),
            offset: self.word(at, 4, 8),
            address: self.word(at, 12, 24),
            in_file: self.word(at, 16, 32),
            in_memory: self.word(at, 20, 40),
        })
    }

    /// Where the program headers end.
    pub(super) fn end_of_program_headers(&self) -> u64 {
        let table = self.program_table();
        table.entry(table.count)
    }

    /// The section headers without the first, which is the null section.
    pub(super) fn section_headers(&self) -> impl Iterator<Item = SectionHeader> {
        self.entries(self.section_table(), 1).map(|at| SectionHeader {
            kind: self.number(at.wrapping_add(4), 4),
            offset: self.word(at, 16, 24),
            size: self.word(at, 20, 32),
        })
    }

    /// A number of at most 8 bytes; 0 if it is not completely in the file.
    pub(super) fn number(&self, at: u64, size: usize) -> u64 {
        let there = usize::try_from(at).ok().and_then(|at| self.file.get(at..at.checked_add(size)?));
        let bytes = there.unwrap_or_else(|| {
            self.note_missed();
            &[]
        });
        let join = |number: u64, byte: &u8| number << 8 | u64::from(*byte);
        if self.big_endian { bytes.iter().fold(0, join) } else { bytes.iter().rev().fold(0, join) }
    }

    /// Whether a field was read that is in the file, but not in the bytes that are there.
    pub(super) fn has_missed(&self) -> bool {
        self.missed.get()
    }

    fn note_missed(&self) {
        if (self.file.len() as u64) < self.length {
            self.missed.set(true);
        }
    }

    /// The text before the next NUL; `None` if it is too long or the file ends first.
    pub(super) fn text(&self, at: u64) -> Option<&'a [u8]> {
        let rest = usize::try_from(at).ok().and_then(|at| self.file.get(at..)).unwrap_or_default();
        let text = rest.iter().take(LONGEST_TEXT + 1).position(|byte| *byte == 0).and_then(|length| rest.get(..length));
        if text.is_none() {
            self.note_missed();
        }
        text
    }

    /// Whether the file has this byte.
    pub(super) fn has(&self, at: u64) -> bool {
        at < self.length
    }

    fn is_64_bit(&self) -> bool {
        self.class == ELFCLASS64
    }

    /// A field of 4 or 8 bytes, by its offsets in the two classes.
    fn word(&self, base: u64, narrow: u64, wide: u64) -> u64 {
        if self.is_64_bit() {
            self.number(base.wrapping_add(wide), 8)
        } else {
            self.number(base.wrapping_add(narrow), 4)
        }
    }

    fn program_table(&self) -> Table {
        let sizes = if self.is_64_bit() { 54 } else { 42 };
        Table { offset: self.word(0, 28, 32), stride: self.number(sizes, 2), count: self.number(sizes + 2, 2) }
    }

    fn section_table(&self) -> Table {
        let sizes = if self.is_64_bit() { 58 } else { 46 };
        let count = self.number(sizes + 2, 2).min(self.length / SECTION_SIZE);
        Table { offset: self.word(0, 32, 40), stride: self.number(sizes, 2), count }
    }

    /// Where the entries of a table are, up to the first that does not begin in the file.
    fn entries(&self, table: Table, first: u64) -> impl Iterator<Item = u64> {
        (first..table.count).map(move |index| table.entry(index)).take_while(|at| self.has(*at))
    }
}

#[cfg(test)]
mod tests {
    use super::super::kernels::{changed, good};
    use super::*;

    #[test]
    fn what_is_not_in_the_file_is_0() {
        let file = good();
        let fields = Fields::of(&file).expect("good");
        let end = file.len() as u64;
        assert_eq!((fields.number(18, 2), fields.number(19, 2)), (62, 0x0100));
        assert_eq!(
            (fields.number(end - 4, 4), fields.number(end - 3, 4)),
            (u64::from(u32::from_le_bytes(*b"data")), 0)
        );
        assert_eq!((fields.number(u64::MAX, 8), fields.text(u64::MAX), fields.text(end - 4)), (0, None, None));
        assert!(fields.has(end - 1) && !fields.has(end));
    }

    #[test]
    fn texts_have_a_limit() {
        let text = |length: usize| {
            let mut file = good();
            let at = file.len();
            file.extend(vec![b'x'; length]);
            file.push(0);
            Fields::of(&file).expect("good").text(at as u64).map(<[u8]>::len)
        };
        assert_eq!((text(0), text(4096), text(4097)), (Some(0), Some(4096), None));
    }

    #[test]
    fn the_other_byte_order_is_read() {
        let big = changed(5, &[2]);
        let reversed = |at: usize, size: usize, file: &mut Vec<u8>| file[at..at + size].reverse();
        let mut file = big;
        for (at, size) in [(16, 2), (18, 2), (24, 8), (32, 8), (40, 8), (54, 2), (56, 2), (58, 2), (60, 2), (62, 2)] {
            reversed(at, size, &mut file);
        }
        let fields = Fields::of(&file).expect("its tables are in the file");
        assert_eq!((fields.machine(), fields.entry(), fields.program_headers().count()), (62, 0x10_0000, 3));
    }
}
