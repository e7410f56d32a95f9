//! The ELF notes by which a kernel states how Xen must start it (xen/include/public/elfnote.h).
//!
//! They are read as libelf reads them (`elf_xen_parse_notes`, `elf_xen_parse_note`, `elf_note_next`,
//! xen/common/libelf/libelf-dominfo.c and libelf-tools.c, Xen 4.17 to 4.20): every part counts as a multiple of 4
//! bytes, whatever the alignment of the segment; a truncated note ends the walk; a number of another size than 1, 2, 4
//! or 8 bytes is 0. The notes that libxenguest uses are written anew in one form: numbers of 8 bytes, texts of at most
//! 15 plain characters, features by the names that Xen knows. The others are omitted.

use std::collections::BTreeMap;

use super::fields::Fields;

/// The entry point of a PV kernel, a virtual address.
pub(super) const ENTRY: u32 = 1;
/// The virtual address of the hypercall page.
pub(super) const HYPERCALL_PAGE: u32 = 2;
/// The virtual address at which a PV guest's memory begins.
pub(super) const VIRT_BASE: u32 = 3;
/// The offset that a PV kernel adds to its physical addresses.
pub(super) const PADDR_OFFSET: u32 = 4;
/// The Xen version for which a PV kernel was made.
pub(super) const XEN_VERSION: u32 = 5;
/// The name of the guest operating system.
pub(super) const GUEST_OS: u32 = 6;
/// The loader that the kernel requests.
pub(super) const LOADER: u32 = 8;
const PAE_MODE: u32 = 9;
const FEATURES: u32 = 10;
/// The virtual address of a PV guest's frame table.
pub(super) const INIT_P2M: u32 = 15;
/// A PV kernel does not need its modules mapped.
pub(super) const MOD_START_PFN: u32 = 16;
const SUPPORTED_FEATURES: u32 = 17;
/// The entry point of a PVH kernel, a physical address below 4 GiB.
pub(super) const PHYS32_ENTRY: u32 = 18;

/// `ELF_MAX_TOTAL_NOTE_COUNT` (xen/include/xen/libelf.h).
const MOST_NOTES: usize = 65536;

/// `namesz`, `descsz` and `type`.
const HEADER: u64 = 12;

const NAME: &[u8] = b"Xen";

/// libelf keeps texts in 16 bytes, with a NUL.
const LONGEST_TEXT: usize = 15;

/// libelf reads words of this many bytes; the rest of a longer word is a new word.
const LONGEST_FEATURE: usize = 63;

/// The features that libelf knows by name, and their bits (`XENFEAT_*`, xen/include/public/features.h).
const KNOWN_FEATURES: [(&str, u32); 7] = [
    ("writable_page_tables", 0),
    ("writable_descriptor_tables", 1),
    ("auto_translated_physmap", 2),
    ("supervisor_mode_kernel", 3),
    ("pae_pgdir_above_4gb", 4),
    ("hvm_callback_vector", 8),
    ("dom0", DOM0_FEATURE),
];

const DOM0_FEATURE: u32 = 11;

/// Pointers into the file are below this on x86-64. A range that ends further up wraps around in libelf, and is empty.
const ADDRESSES: u64 = 1 << 47;

/// Xen's notes of a kernel; of several of one kind the last one counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Notes {
    numbers: BTreeMap<u32, u64>,
    texts: BTreeMap<u32, String>,
    /// What the note PAE_MODE says to a 32-bit PV kernel's loader; empty for no PAE.
    pae: &'static str,
    supported: u32,
    required: u32,
    /// The file has a place for notes, with or without content.
    pub(super) had_place: bool,
    /// The number of notes, and the number of Xen's among them.
    seen: usize,
    of_xen: usize,
}

impl Notes {
    /// Adds the notes between two offsets of the file.
    ///
    /// # Errors
    /// If libelf does not know a required feature.
    pub(super) fn add(&mut self, fields: &Fields<'_>, start: u64, size: u64) -> Result<(), String> {
        self.had_place = true;
        let end = start.wrapping_add(size);
        let mut at = start;
        if end > ADDRESSES.wrapping_neg() {
            return Ok(());
        }
        while at < end && self.seen < MOST_NOTES {
            self.seen += 1;
            let word = |offset: u64| fields.number(at.wrapping_add(offset), 4);
            let padded = |size: u64| size.saturating_add(3) & 0xffff_fffc;
            let (value, size, kind) = (at.wrapping_add(HEADER).wrapping_add(padded(word(0))), word(4), word(8));
            if fields.text(at.wrapping_add(HEADER)) == Some(NAME) {
                self.of_xen += 1;
                self.read(fields, u32::try_from(kind).unwrap_or(u32::MAX), value, size)?;
            }
            if !fields.has(at) {
                break;
            }
            at = value.wrapping_add(padded(size));
        }
        Ok(())
    }

    fn read(&mut self, fields: &Fields<'_>, kind: u32, at: u64, size: u64) -> Result<(), String> {
        let number = || match size {
            1 => fields.number(at, 1),
            2 => fields.number(at, 2),
            4 => fields.number(at, 4),
            8 => fields.number(at, 8),
            _ => 0,
        };
        match kind {
            ENTRY | HYPERCALL_PAGE | VIRT_BASE | PADDR_OFFSET | INIT_P2M => self.set(kind, number(), u64::MAX),
            PHYS32_ENTRY => self.set_entry(number()),
            MOD_START_PFN => self.set(kind, u64::from(number() != 0), 0),
            SUPPORTED_FEATURES if size >= 4 && size.is_multiple_of(4) => {
                self.supported |= u32::try_from(fields.number(at, 4)).unwrap_or(0);
            }
            XEN_VERSION | GUEST_OS | LOADER => {
                if let Some(text) = fields.text(at) {
                    self.texts.insert(kind, plain(text));
                }
            }
            PAE_MODE => match fields.text(at) {
                Some(text) if memchr::memmem::find(text, b"bimodal").is_some() => self.pae = "bimodal",
                Some(b"yes") => self.pae = "yes",
                _ => {}
            },
            FEATURES => {
                if let Some(text) = fields.text(at) {
                    self.add_features(text)?;
                }
            }
            // Among them the kernel's symbol table, which libxenguest would take out of its sections: it starts without.
            _ => {}
        }
        Ok(())
    }

    /// One value means that there is none.
    fn set(&mut self, kind: u32, value: u64, unset: u64) {
        if value == unset {
            self.numbers.remove(&kind);
        } else {
            self.numbers.insert(kind, value);
        }
    }

    /// Sets the entry point of a PVH kernel, of which libelf keeps 32 bits.
    pub(super) fn set_entry(&mut self, entry: u64) {
        self.set(PHYS32_ENTRY, entry & u64::from(u32::MAX), u64::from(u32::MAX));
    }

    fn add_features(&mut self, text: &[u8]) -> Result<(), String> {
        let mut rest = text;
        while !rest.is_empty() {
            let longest = rest.get(..LONGEST_FEATURE).unwrap_or(rest);
            let end = longest.iter().position(|byte| *byte == b'|');
            let word = longest.get(..end.unwrap_or(longest.len())).unwrap_or_default();
            rest = rest.get(end.map_or(longest.len(), |end| end + 1)..).unwrap_or_default();
            let (name, required) = word.strip_prefix(b"!").map_or((word, false), |name| (name, true));
            match KNOWN_FEATURES.iter().find(|(known, _)| known.as_bytes() == name) {
                Some((_, bit)) => {
                    self.supported |= 1 << bit;
                    self.required |= u32::from(required) << bit;
                }
                None if required => {
                    let name = String::from_utf8_lossy(name).into_owned();
                    return Err(format!("needs the feature {name:?}, which Xen's loader does not know"));
                }
                None => {}
            }
        }
        Ok(())
    }

    /// Whether none of them was Xen's.
    pub(super) fn is_empty(&self) -> bool {
        self.of_xen == 0
    }

    /// The number of the last note of this kind.
    pub(super) fn number(&self, wanted: u32) -> Option<u64> {
        self.numbers.get(&wanted).copied()
    }

    /// The text of the last note of this kind, truncated; empty if there is none.
    pub(super) fn text(&self, wanted: u32) -> &str {
        self.texts.get(&wanted).map_or("", String::as_str)
    }

    /// The PAE mode of a 32-bit PV kernel.
    pub(super) fn has_pae(&self) -> bool {
        !self.pae.is_empty()
    }

    /// Whether the kernel can run only as dom0.
    pub(super) fn is_for_dom0(&self) -> bool {
        self.required & 1 << DOM0_FEATURE != 0
    }

    /// All of them as the content of a note segment.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut add = |kind: u32, value: &[u8]| {
            let size = |part: &[u8]| u32::try_from(part.len()).unwrap_or(u32::MAX);
            for word in [size(NAME) + 1, size(value), kind] {
                bytes.extend(word.to_le_bytes());
            }
            bytes.extend(NAME);
            bytes.push(0);
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        };
        for (kind, number) in &self.numbers {
            add(*kind, &number.to_le_bytes());
        }
        let required = KNOWN_FEATURES.iter().filter(|(_, bit)| self.required & 1 << bit != 0);
        let required = required.map(|(name, _)| format!("!{name}")).collect::<Vec<_>>().join("|");
        let texts = self.texts.iter().map(|(kind, text)| (*kind, text.as_str()));
        for (kind, text) in texts.chain([(PAE_MODE, self.pae), (FEATURES, required.as_str())]) {
            if !text.is_empty() {
                add(kind, &[text.as_bytes(), b"\0"].concat());
            }
        }
        if self.supported != 0 {
            add(SUPPORTED_FEATURES, &self.supported.to_le_bytes());
        }
        bytes
    }
}

/// The part of a text that libelf keeps. Only the first few characters count, and those are plain.
fn plain(text: &[u8]) -> String {
    let shown = |byte: &u8| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '?' };
    text.iter().take(LONGEST_TEXT).map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::super::kernels::{NOTES, elf_of, note};
    use super::*;

    const XEN: &[u8] = b"Xen\0";

    fn named(name: &[u8], kind: u32, value: &[u8]) -> Vec<u8> {
        let mut bytes = note(kind, value);
        bytes[..4].copy_from_slice(&u32::try_from(name.len()).expect("small").to_le_bytes());
        bytes[12..16].copy_from_slice(name);
        bytes
    }

    fn read_all(data: &[u8]) -> Result<Notes, String> {
        let file = elf_of(&[], data);
        let mut notes = Notes::default();
        notes.add(&Fields::of(&file).expect("an ELF file"), NOTES as u64, data.len() as u64).map(|()| notes)
    }

    #[test]
    fn what_libxenguest_looks_at_is_kept_in_one_form() {
        let data = [
            named(b"GNU\0", 3, &[7; 20]),
            note(PHYS32_ENTRY, &0x100_0000u32.to_le_bytes()),
            // As Linux has it: no NUL of its own.
            note(FEATURES, b"!writable_page_tables|pae_pgdir_above_4gb"),
            note(SUPPORTED_FEATURES, &0x8801u32.to_le_bytes()),
            note(GUEST_OS, b"linux\0"),
            note(LOADER, b"a\x1b]0;very long\0"),
            note(PAE_MODE, b"yes\0"),
            // GUEST_VERSION, BSD_SYMTAB, L1_MFN_VALID, and one of the future.
            note(7, b"6.1\0"),
            note(11, b"yes\0"),
            note(13, &[1; 16]),
            note(99, &[1; 3]),
        ]
        .concat();
        let notes = read_all(&data).expect("good");
        assert_eq!((notes.seen, notes.of_xen, notes.had_place), (11, 10, true));
        assert_eq!(notes.number(PHYS32_ENTRY), Some(0x100_0000));
        assert_eq!((notes.supported, notes.required), (0x8811, 1));
        assert_eq!((notes.text(GUEST_OS), notes.text(LOADER), notes.pae), ("linux", "a?]0;very long", "yes"));
        let again = read_all(&notes.bytes()).expect("good");
        assert_eq!(again.bytes(), notes.bytes());
        assert_eq!((again.seen, again.of_xen), (6, 6));
    }

    #[test]
    fn the_last_of_a_kind_counts() {
        let number = |value: u64| note(ENTRY, &value.to_le_bytes());
        assert_eq!(read_all(&[number(1), number(2)].concat()).expect("good").number(ENTRY), Some(2));
        assert_eq!(read_all(&[number(1), number(u64::MAX)].concat()).expect("good").number(ENTRY), None);
        let wide = note(PHYS32_ENTRY, &0x1_0010_0000u64.to_le_bytes());
        assert_eq!(read_all(&wide).expect("good").number(PHYS32_ENTRY), Some(0x10_0000), "libelf keeps 32 bits");
    }

    #[test]
    fn a_note_that_is_cut_off_ends_the_walk() {
        let (first, last) = (note(ENTRY, &[1; 8]), note(VIRT_BASE, &[0; 8]));
        for at in [0, 4] {
            for size in [0x1000u32, 0x7fff_ffff, 0xffff_fff0] {
                let mut bad = note(99, &[0; 8]);
                bad[at..at + 4].copy_from_slice(&size.to_le_bytes());
                let notes = read_all(&[first.clone(), bad, last.clone()].concat()).expect("good");
                assert_eq!((notes.numbers.len(), notes.seen), (1, 2), "{at} {size:#x}");
            }
        }
        // Its value is in the file all the same: that is all that libelf asks for.
        let notes = read_all(&[first, last[..20].to_vec()].concat()).expect("good");
        assert_eq!(notes.number(VIRT_BASE), Some(0));
    }

    #[test]
    fn as_many_count_as_in_libelf() {
        let padding = vec![0; 12 * (MOST_NOTES - 1)];
        let entry = note(ENTRY, &[1; 8]);
        assert!(read_all(&[padding.clone(), entry.clone()].concat()).expect("good").number(ENTRY).is_some());
        let one_more = [padding, vec![0; 12], entry].concat();
        assert_eq!(read_all(&one_more).expect("good").number(ENTRY), None, "it is behind the last that counts");
    }

    #[test]
    fn odd_sizes_are_nothing() {
        for size in [0, 3, 5, 9] {
            assert_eq!(read_all(&note(VIRT_BASE, &vec![7; size])).expect("good").number(VIRT_BASE), Some(0));
        }
        assert_eq!(read_all(&note(SUPPORTED_FEATURES, &[7; 6])).expect("good").supported, 0);
        let long = vec![b'x'; 4097];
        assert!(read_all(&note(LOADER, &long)).expect("good").texts.is_empty(), "too long to be a text");
        assert!(read_all(&named(b"Xeno", ENTRY, &[1])).expect("good").is_empty());
        assert_eq!(XEN, [NAME, b"\0"].concat());
    }

    #[test]
    fn features_are_words_that_xen_knows() {
        let read = |text: &str| read_all(&note(FEATURES, format!("{text}\0").as_bytes()));
        let notes = read("unknown|dom0|!hvm_callback_vector||").expect("good");
        assert_eq!((notes.supported, notes.required, notes.is_for_dom0()), (0x900, 0x100, false));
        assert!(read("!dom0").expect("good").is_for_dom0());
        assert!(read("dom0|!\x1b[31m").expect_err("required").contains(r#""\u{1b}[31m""#));
        // The 64th character begins another word.
        let split = format!("{}dom0", "x".repeat(LONGEST_FEATURE));
        assert_eq!(read(&split).expect("good").supported, 1 << DOM0_FEATURE);
    }
}
