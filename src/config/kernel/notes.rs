//! The notes by which a kernel tells Xen how it wants to be started (xen/include/public/elfnote.h).
//!
//! Those that libelf makes use of are read and written out anew, in one form: a number has 8 bytes, a text ends with a NUL.
//! The others are left out.

/// Where a PV kernel is entered, a virtual address.
pub(super) const ENTRY: u32 = 1;
/// The virtual address of the page for hypercalls.
pub(super) const HYPERCALL_PAGE: u32 = 2;
/// The virtual address at which a PV guest's memory begins.
pub(super) const VIRT_BASE: u32 = 3;
/// What a PV kernel's physical addresses have on top.
pub(super) const PADDR_OFFSET: u32 = 4;
/// The Xen that a PV kernel was made for.
pub(super) const XEN_VERSION: u32 = 5;
/// What it is.
pub(super) const GUEST_OS: u32 = 6;
const GUEST_VERSION: u32 = 7;
/// Which loader it wants.
pub(super) const LOADER: u32 = 8;
const PAE_MODE: u32 = 9;
const FEATURES: u32 = 10;
const HV_START_LOW: u32 = 12;
const SUSPEND_CANCEL: u32 = 14;
/// Where the table of a PV guest's frames goes, a virtual address.
pub(super) const INIT_P2M: u32 = 15;
/// A PV kernel does not need its modules mapped.
pub(super) const MOD_START_PFN: u32 = 16;
const SUPPORTED_FEATURES: u32 = 17;
/// Where a PVH kernel is entered, a physical address below 4 GiB.
pub(super) const PHYS32_ENTRY: u32 = 18;

/// A file with more notes than this has them for another reason.
const MOST_NOTES: usize = 4096;

/// Linux has 16 of Xen's.
const MOST_OF_XEN: usize = 64;

/// `namesz`, `descsz` and `type`.
const HEADER: usize = 12;

const NAME: &[u8] = b"Xen\0";

/// No text of a kernel comes close to this; libxenguest copies some of them into 16 bytes.
const LONGEST_TEXT: usize = 255;

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Number(u64),
    /// One word of `XENFEAT_*` bits.
    Features(u32),
    Text(String),
}

/// Xen's notes of a kernel, in their order; of two of a kind the last one counts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Notes {
    list: Vec<(u32, Value)>,
    seen: usize,
}

impl Notes {
    /// Adds those of a segment or section. Whatever its alignment says, libelf takes every part for a multiple of 4 bytes.
    ///
    /// # Errors
    /// What is wrong with a note; those that are not Xen's only have to end where the next one begins.
    pub(super) fn add(&mut self, data: &[u8]) -> Result<(), String> {
        let mut rest = data;
        // What is left may be padding.
        while rest.len() >= HEADER {
            self.seen += 1;
            if self.seen > MOST_NOTES {
                return Err(format!("has more than {MOST_NOTES} notes"));
            }
            let word =
                |at: usize| rest.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_le_bytes);
            let (name_size, size, kind) = (word(0), word(4), word(8));
            let at = data.len() - rest.len();
            let cut =
                || format!("has a note at byte {at} of its notes, of {name_size} and {size} bytes, which is cut off");
            let (name, behind) = part(rest.get(HEADER..).unwrap_or_default(), name_size).ok_or_else(cut)?;
            let (value, behind) = part(behind, size).ok_or_else(cut)?;
            if name == NAME
                && let Some(value) = read(kind, value)?
            {
                self.list.push((kind, value));
            }
            rest = behind;
        }
        if self.list.len() > MOST_OF_XEN {
            return Err(format!("has {} notes for Xen; more than {MOST_OF_XEN} cannot be right", self.list.len()));
        }
        Ok(())
    }

    /// Whether there are none.
    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// The number of the last note of this kind.
    pub(super) fn number(&self, wanted: u32) -> Option<u64> {
        self.list.iter().rev().find_map(|(kind, value)| match value {
            Value::Number(number) if *kind == wanted => Some(*number),
            _ => None,
        })
    }

    /// The text of the last note of this kind; empty where there is none.
    pub(super) fn text(&self, wanted: u32) -> &str {
        let text = self.list.iter().rev().find_map(|(kind, value)| match value {
            Value::Text(text) if *kind == wanted => Some(text.as_str()),
            _ => None,
        });
        text.unwrap_or_default()
    }

    /// All of them as the content of a note segment.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for (kind, value) in &self.list {
            let value = match value {
                Value::Number(number) => number.to_le_bytes().to_vec(),
                Value::Features(word) => word.to_le_bytes().to_vec(),
                Value::Text(text) => [text.as_bytes(), b"\0"].concat(),
            };
            let size = |part: &[u8]| u32::try_from(part.len()).unwrap_or(u32::MAX);
            for word in [size(NAME), size(&value), *kind] {
                bytes.extend(word.to_le_bytes());
            }
            bytes.extend(NAME);
            bytes.extend(value);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }
}

/// A name or a value, and what is behind it and its padding. The last padding of all may be missing.
fn part(bytes: &[u8], size: u32) -> Option<(&[u8], &[u8])> {
    let size = usize::try_from(size).ok()?;
    let (part, _) = bytes.split_at_checked(size)?;
    let behind = bytes.get(size.checked_next_multiple_of(4)?..).unwrap_or_default();
    Some((part, behind))
}

/// The value of one of Xen's notes; `None` for one that nobody looks at.
fn read(kind: u32, value: &[u8]) -> Result<Option<Value>, String> {
    let size = value.len();
    let number = || {
        let mut wide = [0; 8];
        match (wide.get_mut(..size), size) {
            (Some(low), 1 | 2 | 4 | 8) => low.copy_from_slice(value),
            _ => return Err(format!("has a note {kind} for Xen of {size} bytes, which is no number")),
        }
        Ok(u64::from_le_bytes(wide))
    };
    let read = match kind {
        ENTRY | HYPERCALL_PAGE | VIRT_BASE | PADDR_OFFSET | HV_START_LOW | SUSPEND_CANCEL | INIT_P2M
        | MOD_START_PFN | PHYS32_ENTRY => Value::Number(number()?),
        SUPPORTED_FEATURES => match value.first_chunk().filter(|_| size.is_multiple_of(4)) {
            Some(word) => Value::Features(u32::from_le_bytes(*word)),
            None => return Err(format!("has a note {kind} for Xen of {size} bytes, which are no words")),
        },
        XEN_VERSION | GUEST_OS | GUEST_VERSION | LOADER | PAE_MODE | FEATURES => Value::Text(text(kind, value)?),
        // The kernel's symbol table, which Xen's loader would take out of its sections: it starts without.
        _ => return Ok(None),
    };
    Ok(Some(read))
}

/// The text ends at its first NUL; Linux leaves it out where the padding has one.
fn text(kind: u32, value: &[u8]) -> Result<String, String> {
    let text = value.split(|byte| *byte == 0).next().unwrap_or_default();
    let plain = text.iter().all(|byte| (b' '..=b'~').contains(byte));
    if text.len() > LONGEST_TEXT || !plain {
        return Err(format!(
            "has a note {kind} for Xen of {} bytes, which is no text of at most {LONGEST_TEXT} plain characters",
            value.len()
        ));
    }
    Ok(String::from_utf8_lossy(text).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(name: &[u8], kind: u32, value: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for word in [name.len(), value.len()] {
            bytes.extend(u32::try_from(word).expect("small").to_le_bytes());
        }
        bytes.extend(kind.to_le_bytes());
        for part in [name, value] {
            bytes.extend(part);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        bytes
    }

    fn read_all(data: &[u8]) -> Result<Notes, String> {
        let mut notes = Notes::default();
        notes.add(data).map(|()| notes)
    }

    #[test]
    fn what_xen_looks_at_is_kept_in_one_form() {
        let data = [
            note(b"GNU\0", 3, &[7; 20]),
            note(NAME, PHYS32_ENTRY, &0x100_0000u32.to_le_bytes()),
            // As Linux has it: no NUL of its own.
            note(NAME, FEATURES, b"!writable_page_tables|pae_pgdir_above_4gb"),
            note(NAME, SUPPORTED_FEATURES, &0x8801u32.to_le_bytes()),
            note(NAME, GUEST_OS, b"linux\0"),
            // BSD_SYMTAB, L1_MFN_VALID, and one of the future.
            note(NAME, 11, b"yes\0"),
            note(NAME, 13, &[1; 16]),
            note(NAME, 99, &[1; 3]),
        ]
        .concat();
        let notes = read_all(&data).expect("good");
        assert_eq!(notes.list.len(), 4);
        assert_eq!(notes.number(PHYS32_ENTRY), Some(0x100_0000));
        assert_eq!(notes.text(FEATURES), "!writable_page_tables|pae_pgdir_above_4gb");
        assert_eq!((notes.text(GUEST_OS), notes.text(LOADER)), ("linux", ""));
        let again = read_all(&notes.bytes()).expect("good");
        assert_eq!((again.list, again.seen), (notes.list.clone(), 4));
        assert_eq!(notes.bytes().len() % 4, 0);
    }

    #[test]
    fn the_last_of_a_kind_counts() {
        let data = [note(NAME, ENTRY, &[1]), note(NAME, ENTRY, &[2, 0])].concat();
        assert_eq!(read_all(&data).expect("good").number(ENTRY), Some(2));
    }

    #[test]
    fn notes_that_are_none() {
        let good = note(NAME, ENTRY, &[0; 8]);
        for at in [0, 4] {
            for size in [25u32, 0x7fff_ffff, 0xffff_fffd, u32::MAX] {
                let mut bad = good.clone();
                bad[at..at + 4].copy_from_slice(&size.to_le_bytes());
                assert!(read_all(&bad).expect_err("too long").contains("cut off"), "{at} {size}");
            }
        }
        for size in [0, 3, 5, 9] {
            assert!(read_all(&note(NAME, VIRT_BASE, &vec![0; size])).expect_err("odd").contains("no number"));
        }
        for text in [&b"a\x1b[31mb\0"[..], b"\xff\0", &[b'x'; 256]] {
            assert!(read_all(&note(NAME, LOADER, text)).expect_err("no text").contains("plain characters"));
        }
        assert!(read_all(&note(NAME, SUPPORTED_FEATURES, &[0; 6])).is_err());
        assert!(read_all(&note(b"", 0, b"").repeat(MOST_NOTES + 1)).expect_err("many").contains("4096"));
        assert!(read_all(&note(NAME, ENTRY, &[1]).repeat(65)).expect_err("many").contains("64"));
        // Less than a header is padding.
        assert!(read_all(&good[..11]).expect("nothing").is_empty());
    }
}
