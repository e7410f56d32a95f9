//! The ELF file that libxenguest gets in place of the owner's: a header, the segments to load, and Xen's notes.
//!
//! It has no sections, and the owner chooses no offset in it: the headers begin at [`HEADERS`], after every place in
//! which libxenguest's other loaders search for their signatures (the boot header of Linux at 0x202, and 8 KiB for a
//! table of `xen_bin_image`). Its class is always 64 bits; the machine field states the guest's type.

use std::ops::Range;

use elf::abi::{EI_NIDENT, ET_EXEC, PF_R, PT_LOAD, PT_NOTE};

use super::elf::{Program, Ram};
use crate::memory::{Bytes, Kind};

/// The offset of the program headers.
const HEADERS: usize = 0x3000;

/// The notes, and each segment, begin at a multiple of this.
const ALIGNMENT: usize = 0x1000;

/// `sizeof(Elf64_Ehdr)`.
const HEADER_SIZE: u16 = 64;

/// `sizeof(Elf64_Phdr)`.
const SEGMENT_SIZE: u16 = 56;

/// `ELFCLASS64`, `ELFDATA2LSB`, `EV_CURRENT`.
const IDENT: [u8; EI_NIDENT] = [0x7f, b'E', b'L', b'F', 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0];

/// The data to write, piece by piece.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plain {
    /// Everything before the first segment.
    pub(super) head: Vec<u8>,
    /// The ranges of the owner's file that follow, and their offsets: multiples of [`ALIGNMENT`], with zeros in
    /// between.
    pub(super) pieces: Vec<(usize, Range<usize>)>,
    /// The total length.
    pub(super) size: usize,
}

impl Plain {
    /// The plain form of a program. It may be much larger than the program's file, because segments may share bytes.
    pub(super) fn of(program: &Program) -> Self {
        let notes = program.notes.bytes();
        let table = (program.segments.len() + 1).saturating_mul(usize::from(SEGMENT_SIZE));
        let notes_at = (HEADERS + table).next_multiple_of(ALIGNMENT);
        let mut size = (notes_at + notes.len()).next_multiple_of(ALIGNMENT);
        let mut head = vec![0; size];
        let mut pieces = Vec::new();
        let mut headers = Vec::new();
        for segment in &program.segments {
            let length = segment.file.len();
            headers.extend(header(PT_LOAD, segment.flags, size, segment.address, length, segment.size));
            if length > 0 {
                pieces.push((size, segment.file.clone()));
            }
            size = size.saturating_add(length).saturating_add(ALIGNMENT - 1) & !(ALIGNMENT - 1);
        }
        headers.extend(header(PT_NOTE, PF_R, notes_at, 0, notes.len(), notes.len() as u64));
        let count = u16::try_from(program.segments.len() + 1).unwrap_or(u16::MAX);
        place(&mut head, 0, &file_header(program, count));
        place(&mut head, HEADERS, &headers);
        place(&mut head, notes_at, &notes);
        Self { head, pieces, size }
    }
}

/// The maximum length of a plain file whose segments have `most` bytes in all.
pub(super) fn largest(most: Bytes) -> Bytes {
    Bytes(most.0.saturating_add(1 << 20))
}

/// Checks that a file is plain in every byte of its headers, and that a guest of this kind can start it.
///
/// # Errors
/// A description of the fault.
pub(super) fn check(file: &[u8], kind: Kind, ram: Ram) -> Result<(), String> {
    let program = Program::parse(file)?;
    let plain = Plain::of(&program);
    if plain.size != file.len() || file.get(..plain.head.len()) != Some(plain.head.as_slice()) {
        return Err("was not unpacked into the form that it has to have".to_owned());
    }
    program.check(kind, ram)
}

fn place(into: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(room) = into.get_mut(at..).and_then(|rest| rest.get_mut(..bytes.len())) {
        room.copy_from_slice(bytes);
    }
}

fn file_header(program: &Program, count: u16) -> Vec<u8> {
    let mut bytes = IDENT.to_vec();
    bytes.extend(ET_EXEC.to_le_bytes());
    bytes.extend(program.machine.to_le_bytes());
    bytes.extend(1u32.to_le_bytes());
    for word in [program.entry, HEADERS as u64, 0] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(0u32.to_le_bytes());
    // There are no sections, and no section names.
    for half in [HEADER_SIZE, SEGMENT_SIZE, count, 0, 0, 0] {
        bytes.extend(half.to_le_bytes());
    }
    bytes
}

/// The virtual address, which no loader reads, equals the physical one.
fn header(kind: u32, flags: u32, at: usize, address: u64, in_file: usize, size: u64) -> Vec<u8> {
    let mut bytes = [kind.to_le_bytes(), flags.to_le_bytes()].concat();
    for word in [at as u64, address, address, in_file as u64, size, ALIGNMENT as u64] {
        bytes.extend(word.to_le_bytes());
    }
    bytes
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::payload::kernel::container;
    use crate::payload::kernel::kernels::{CODE, DATA, good, good_forms, hostile, kinds_that_refuse};

    const MOST: Bytes = Bytes(1 << 24);

    const RAM: Ram = Ram { end: MOST, most: Some(Bytes(0xfc00_0000)) };

    /// Where the notes of the good kernel are.
    const NOTES: usize = 0x4000;

    static FORMS: LazyLock<Vec<(&str, Vec<u8>)>> = LazyLock::new(good_forms);

    /// As the child writes it.
    pub(in super::super) fn written(file: &[u8]) -> Result<Vec<u8>, String> {
        let (unpacked, _) = container::unpack(file.to_vec(), MOST).map_err(|refusal| format!("{refusal:?}"))?;
        let mut program = Program::parse(&unpacked)?;
        program.leave_out_zeros(&unpacked);
        let plain = Plain::of(&program);
        if plain.size as u64 > largest(MOST).0 {
            return Err("too large".to_owned());
        }
        let mut bytes = plain.head;
        for (at, piece) in plain.pieces {
            bytes.resize(at, 0);
            bytes.extend_from_slice(&unpacked[piece]);
        }
        bytes.resize(plain.size, 0);
        Ok(bytes)
    }

    #[test]
    fn every_form_becomes_the_same_file() {
        let plain = written(&good()).expect("good");
        check(&plain, Kind::Pvh, RAM).expect("good for PVH");
        check(&plain, Kind::Pv, RAM).expect("good for PV");
        for (name, form) in FORMS.iter() {
            assert!(written(form).expect(name) == plain, "{name}");
        }
        assert!(written(&plain).expect("good") == plain, "and so does the plain file");
    }

    #[test]
    fn nothing_of_the_owners_is_where_signatures_are_searched() {
        let plain = written(&good()).expect("good");
        assert!(plain[usize::from(HEADER_SIZE)..HEADERS].iter().all(|byte| *byte == 0));
        let source = Program::parse(&good()).expect("good");
        let program = Program::parse(&plain).expect("good");
        assert_eq!(program.notes.bytes(), source.notes.bytes());
        for (segment, from) in program.segments.iter().zip(&source.segments) {
            assert_eq!((segment.address, segment.size, segment.flags), (from.address, from.size, from.flags));
            assert_eq!(plain[segment.file.clone()], good()[from.file.clone()]);
        }
    }

    #[test]
    fn hostile_files_are_refused() {
        let mut taken = Vec::new();
        for (name, file, _) in hostile() {
            for kind in kinds_that_refuse(&name) {
                let outcome =
                    written(&file).and_then(|plain| check(&plain, *kind, Ram { end: Bytes(64 << 20), ..RAM }));
                taken.extend(outcome.is_ok().then(|| format!("{name} as {kind}")));
            }
        }
        assert_eq!(taken, [""; 0]);
    }

    /// A segment may be empty without its zeros, at any offset.
    #[test]
    fn segments_of_zeros_are_plain() {
        for zeros in [DATA..DATA + 0x40, CODE..CODE + 0x40] {
            let mut file = good();
            file[zeros].fill(0);
            let plain = written(&file).expect("good");
            assert!(written(&plain).expect("good") == plain);
            for kind in [Kind::Pvh, Kind::Pv] {
                check(&plain, kind, RAM).expect("libelf does not look whether the entry point is zero");
            }
        }
    }

    #[test]
    fn a_file_of_another_form_is_not_taken() {
        assert!(check(&good(), Kind::Pvh, RAM).expect_err("not plain").contains("form"));
        let plain = written(&good()).expect("good");
        for at in [24, 40, 54, 60, 100, 0x2000, HEADERS + 16, HEADERS + 48, NOTES - 1, NOTES + 3, 0x4fff] {
            let mut other = plain.clone();
            other[at] ^= 1;
            // A different entry point is a different kernel, and no other form.
            assert!(at == 24 || check(&other, Kind::Pvh, RAM).is_err(), "{at:#x}");
        }
        assert!(check(&plain[..plain.len() - 1], Kind::Pvh, RAM).is_err());
        assert!(check(&[plain, vec![0]].concat(), Kind::Pvh, RAM).is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever is changed: an error, or a plain file that stays what it is.
        #[test]
        fn changed_files_are_refused_or_plain(
            form in 0..9usize,
            changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>(), any::<bool>()), 1..6),
        ) {
            let (_, mut file) = FORMS[form].clone();
            for (at, value, early) in changes {
                let room = if early { file.len().min(0x400) } else { file.len() };
                file[at.index(room)] = value;
            }
            if let Ok(plain) = written(&file) {
                prop_assert!(written(&plain).expect("it is one") == plain);
                // Neither of them may panic.
                let _ = (check(&plain, Kind::Pvh, RAM), check(&plain, Kind::Pv, RAM));
            }
        }

        /// Bytes that are nothing, behind the signatures of something.
        #[test]
        fn noise_is_refused(start in 0..9usize, noise in prop::collection::vec(any::<u8>(), 0..2000)) {
            let (_, file) = &FORMS[start];
            let _ = written(&[&file[..file.len().min(6)], &noise].concat()).map_err(|reason| assert!(!reason.is_empty()));
        }
    }
}
