//! SMBIOS structures that hvmloader adds to a guest's table, or that replace its own.
//!
//! hvmloader takes a sequence of structures, each after its length as a 32-bit little-endian number
//! (`get_smbios_pt_struct`, tools/firmware/hvmloader/smbios.c, Xen 4.17). It does not check its input: a wrong length
//! makes it read wrong data, so everything is checked here. The firmware's own form, which Linux shows in
//! /sys/firmware/dmi/tables/DMI and `dmidecode --dump-bin` writes, has structures without such lengths.

use std::path::Path;

use super::file;
use crate::payload::error::FileError;

/// The maximum length of hvmloader's input, in bytes. The guest's whole table has 20 KiB under OVMF
/// (`SMBIOS_PHYSICAL_END`, tools/firmware/rombios/config.h) and 64 KiB under SeaBIOS; hvmloader omits a table that does
/// not fit.
pub const LARGEST: usize = 32 << 10;
/// The types of which hvmloader uses the first structure: BIOS, system, board, chassis, OEM strings, battery, power
/// supply.
pub const FIRST_OF: [u8; 7] = [0, 1, 2, 3, 11, 22, 39];
/// The first vendor type; hvmloader uses every structure of vendor types.
pub const VENDORS: u8 = 128;

/// Type, length of the formatted part, handle.
const HEADER: usize = 4;
/// The type of the structure that ends a firmware's table.
const END_OF_TABLE: u8 = 127;
/// The maximum length of a firmware's table; its length field has 32 bits, and real tables are far smaller.
const LARGEST_TABLE: u64 = 1 << 20;
/// The format of a file.
const FORMAT: &str = "a file of structures, each with its length in front as a 32-bit little-endian number, or a firmware's whole table, as dmidecode --dump-bin writes it";

/// Reads the structures of `--smbios`: a file in hvmloader's format unchanged, or the structures that hvmloader uses
/// from a firmware's table.
///
/// # Errors
/// [`FileError::Unusable`], with the byte at which the file is wrong.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    const KIND: &str = "SMBIOS file";
    let bad = |reason: String| FileError::Unusable { what: KIND, path: path.to_owned(), reason };
    let data = file::read(KIND, path, LARGEST_TABLE)?;
    match check(&data) {
        Ok(types) => {
            let ignored = |number: &&u8| !FIRST_OF.contains(number) && **number < VENDORS;
            for number in types.iter().filter(ignored) {
                log::warn!("{}: hvmloader makes its own SMBIOS structures of type {number}", path.display());
            }
            Ok(data)
        }
        Err(reason) => match table_of(&data).and_then(select) {
            Ok(selected) => Ok(selected),
            // A file with an entry point, or one that is a table except for the structures that hvmloader uses, gets
            // the error of a table.
            Err(of_table) if is_dump(&data) => Err(bad(of_table)),
            Err(_) => Err(bad(format!("{reason}; {FORMAT} was expected"))),
        },
    }
}

/// The host's own structures, from sysfs at `sysfs`: the first of each type that hvmloader uses, and all vendor ones.
///
/// # Errors
/// [`FileError::NoHostSmbios`]; [`FileError::Unusable`] if its table is incomplete.
pub fn of_host(sysfs: &Path) -> Result<Vec<u8>, FileError> {
    const KIND: &str = "SMBIOS table";
    let path = sysfs.join("firmware/dmi/tables/DMI");
    if !path.exists() {
        return Err(FileError::NoHostSmbios(path));
    }
    let data = file::read(KIND, &path, LARGEST_TABLE)?;
    select(&data).map_err(|reason| FileError::Unusable { what: KIND, path, reason })
}

/// Checks structures in hvmloader's format and returns their types.
///
/// # Errors
/// A description of the fault, with its byte offset.
pub fn check(data: &[u8]) -> Result<Vec<u8>, String> {
    if data.len() > LARGEST {
        return Err(format!(
            "has {} bytes of structures, more than the {LARGEST} that a guest's table has room for",
            data.len()
        ));
    }
    let mut types = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        let at = data.len() - rest.len();
        let cut_off = || format!("is cut off in the length at byte {at}");
        let (length, behind) = rest.split_first_chunk().ok_or_else(cut_off)?;
        let length = u32::from_le_bytes(*length);
        let taken = usize::try_from(length).ok().and_then(|length| behind.split_at_checked(length));
        let (structure, behind) = taken
            .ok_or_else(|| format!("says at byte {at} that {length} bytes follow, but only {} do", behind.len()))?;
        let whole =
            structure_length(structure).map_err(|reason| format!("has no structure at byte {}: {reason}", at + 4))?;
        if whole != structure.len() {
            return Err(format!(
                "says at byte {at} that the structure has {length} bytes, but with its strings it ends after {whole}"
            ));
        }
        types.extend(structure.first());
        rest = behind;
    }
    if types.is_empty() { Err("has no structure".to_owned()) } else { Ok(types) }
}

/// The structures that hvmloader uses from a firmware's table, in hvmloader's format.
///
/// # Errors
/// A description of the fault, with its byte offset; also if no structure is left, or too much.
pub fn select(table: &[u8]) -> Result<Vec<u8>, String> {
    let mut out = Vec::new();
    let mut seen = Vec::new();
    let mut rest = table;
    // Some firmware includes trailing zeros in its table.
    while rest.iter().any(|byte| *byte != 0) {
        let at = table.len() - rest.len();
        let length = structure_length(rest).map_err(|reason| format!("has no structure at byte {at}: {reason}"))?;
        let (structure, behind) = rest.split_at(length);
        let number = structure.first().copied().unwrap_or(END_OF_TABLE);
        if number == END_OF_TABLE {
            break;
        }
        if number >= VENDORS || FIRST_OF.contains(&number) && !seen.contains(&number) {
            seen.push(number);
            out.extend_from_slice(&u32::try_from(length).unwrap_or(0).to_le_bytes());
            out.extend_from_slice(structure);
        }
        rest = behind;
    }
    if out.is_empty() {
        return Err("has no structure of a type that hvmloader takes".to_owned());
    }
    check(&out).map(|_| out)
}

/// The length of the structure at the beginning: the formatted part, and strings up to two zero bytes.
fn structure_length(data: &[u8]) -> Result<usize, String> {
    let formatted = match data.get(..HEADER) {
        Some(header) => usize::from(header[1]),
        None => return Err(format!("only {} bytes are left", data.len())),
    };
    if formatted < HEADER {
        return Err(format!("its formatted part is {formatted} bytes long, less than its header"));
    }
    let strings = data.get(formatted..).ok_or_else(|| format!("its formatted part of {formatted} bytes is cut off"))?;
    let end = strings.windows(2).position(|pair| pair == [0, 0]);
    end.map(|end| formatted + end + 2).ok_or_else(|| "no two zero bytes end its strings".to_owned())
}

fn is_dump(data: &[u8]) -> bool {
    data.starts_with(b"_SM_") || data.starts_with(b"_SM3_")
}

/// The table in a file: the whole file, or the part that its entry point names.
fn table_of(data: &[u8]) -> Result<&[u8], String> {
    let short = || "is cut off in its entry point".to_owned();
    let number = |at: usize, length: usize| {
        let bytes = data.get(at..at + length).ok_or_else(short)?;
        Ok::<_, String>(bytes.iter().rev().fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte)))
    };
    // The structure table's length and address in SMBIOS 2 and 3 (DMTF DSP0134, 5.2); in SMBIOS 3 the length is a
    // maximum.
    let (length, address) = if data.starts_with(b"_SM3_") {
        (number(0x0c, 4)?, number(0x10, 8)?)
    } else if data.starts_with(b"_SM_") {
        (number(0x16, 2)?, number(0x18, 4)?)
    } else {
        return Ok(data);
    };
    let start = usize::try_from(address).ok();
    let table = start.and_then(|start| data.get(start..)).ok_or_else(|| {
        format!("has an entry point that says that the table is at byte {address:#x}, which is beyond the file's end")
    })?;
    Ok(table.get(..usize::try_from(length).unwrap_or(usize::MAX)).unwrap_or(table))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn structure(number: u8, formatted: &[u8], strings: &[&str]) -> Vec<u8> {
        let length = u8::try_from(formatted.len() + HEADER).expect("short");
        let mut out = [&[number, length, 0x34, 0x12][..], formatted].concat();
        for string in strings {
            out.extend_from_slice(string.as_bytes());
            out.push(0);
        }
        out.extend_from_slice(if strings.is_empty() { &[0, 0] } else { &[0] });
        out
    }

    fn framed(structures: &[Vec<u8>]) -> Vec<u8> {
        let length = |structure: &Vec<u8>| u32::try_from(structure.len()).expect("short").to_le_bytes();
        structures.iter().flat_map(|structure| [&length(structure)[..], structure].concat()).collect()
    }

    fn file(content: &[u8]) -> tempfile::TempPath {
        let path = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
        std::fs::write(&path, content).expect("written");
        path
    }

    #[test]
    fn hvmloaders_format() {
        let system = structure(1, &[1, 2, 0, 0], &["Maker", "Product"]);
        let good = framed(&[system.clone(), structure(200, &[], &[])]);
        assert_eq!(check(&good), Ok(vec![1, 200]));
        assert_eq!(read(&file(&good)).expect("good"), good);

        let refused = |data: &[u8], words: &str| {
            let reason = check(data).expect_err(words);
            assert!(reason.contains(words), "{reason}");
            let error = read(&file(data)).expect_err(words).to_string();
            assert!(error.contains(words) && error.contains("32-bit little-endian"), "{error}");
        };
        refused(&good[..good.len() - 1], "at byte 27 that 6 bytes follow, but only 5 do");
        refused(&good[..29], "cut off in the length at byte 27");
        let longer = [&[28, 0, 0, 0][..], &system, &[0, 0, 0, 0, 0]].concat();
        refused(&longer, "says at byte 0 that the structure has 28 bytes, but with its strings it ends after 23");
        refused(&framed(&[system[..21].to_vec()]), "no structure at byte 4: no two zero bytes end its strings");
        refused(&framed(&[vec![1, 3, 0, 0, 0, 0]]), "3 bytes long, less than its header");
        refused(&framed(&[vec![1, 40, 0, 0, 0, 0]]), "formatted part of 40 bytes is cut off");
        refused(&framed(&[vec![]]), "only 0 bytes are left");
        assert!(check(&[]).expect_err("nothing").contains("no structure"));
        let many = framed(&vec![structure(200, &[0; 250], &[]); 127]);
        assert!(check(&many).expect_err("too much").contains("more than the 32768"));
    }

    #[test]
    fn a_firmwares_table() {
        let of = |number: u8, text: &str| structure(number, &[1], &[text]);
        let all = [
            of(0, "BIOS"),
            of(4, "CPU"),
            of(1, "first"),
            of(1, "second"),
            of(221, "OEM"),
            of(221, "more"),
            of(39, "power"),
        ];
        let expected = framed(&[of(0, "BIOS"), of(1, "first"), of(221, "OEM"), of(221, "more"), of(39, "power")]);
        let table = [&all.concat()[..], &structure(127, &[], &[]), b"rubbish behind the end"].concat();
        assert_eq!(select(&table).expect("a table"), expected);
        assert_eq!(read(&file(&table)).expect("a table"), expected);
        assert_eq!(select(&[&all.concat()[..], &[0; 9]].concat()).expect("zeros behind it"), expected);

        // As dmidecode --dump-bin writes it, by both entry points.
        let size = u16::try_from(table.len()).expect("short");
        let mut old = b"_SM_".to_vec();
        old.resize(0x16, 0xff);
        old.extend([size.to_le_bytes(), [0x20, 0], [0, 0]].concat());
        old.resize(0x20, 0xff);
        let mut new = b"_SM3_".to_vec();
        new.resize(0x0c, 0xff);
        new.extend([0, 0, 1, 0, 0x20, 0, 0, 0, 0, 0, 0, 0]);
        new.resize(0x20, 0xff);
        for entry_point in [old, new] {
            assert_eq!(read(&file(&[&entry_point[..], &table].concat())).expect("a dump"), expected);
            assert!(read(&file(&entry_point[..0x12])).expect_err("short").to_string().contains("entry point"));
        }
        assert!(select(&of(4, "CPU")).expect_err("nothing to take").contains("hvmloader takes"));
        assert!(select(&[0, 3, 0, 0, 1]).expect_err("no table").contains("byte 0"));
    }

    #[test]
    fn of_a_host_without_it() {
        let empty = tempfile::tempdir().expect("a directory");
        let error = of_host(empty.path()).expect_err("none").to_string();
        assert!(error.contains("no SMBIOS table") && error.contains("firmware/dmi/tables/DMI"), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(data in prop::collection::vec(any::<u8>(), 0..300), front in prop::sample::select(vec!["", "_SM_", "_SM3_"])) {
            let data = [front.as_bytes(), &data].concat();
            let _ = check(&data);
            if let Ok(selected) = table_of(&data).and_then(select) {
                prop_assert!(check(&selected).is_ok());
            }
        }

        #[test]
        fn what_is_selected_is_whole(
            types in prop::collection::vec(any::<u8>(), 1..20), text in "[a-z]{1,20}", extra in prop::collection::vec(any::<u8>(), 0..40),
        ) {
            let all: Vec<Vec<u8>> = types.iter().map(|number| structure(*number, &extra, &[&text])).collect();
            let taken = types.iter().take_while(|number| **number != END_OF_TABLE);
            let mut expected = Vec::new();
            for number in taken {
                if *number >= VENDORS || FIRST_OF.contains(number) && !expected.contains(number) {
                    expected.push(*number);
                }
            }
            match select(&all.concat()) {
                Ok(selected) => prop_assert_eq!(check(&selected), Ok(expected)),
                Err(_) => prop_assert!(expected.is_empty()),
            }
        }
    }
}
