//! ACPI tables that hvmloader adds to its own for a guest.
//!
//! hvmloader takes a sequence of tables, by the length in each header, and adds them to RSDT and XSDT
//! (`construct_passthrough_tables`, tools/libacpi/build.c, Xen 4.17). It checks nothing, so everything is checked here.

use std::io::ErrorKind;
use std::path::Path;

use super::file;
use crate::payload::error::FileError;

/// The maximum number of bytes: hvmloader has 1020 KiB for all tables, and stops the guest if they do not fit
/// (`acpi_mem_alloc`, tools/firmware/hvmloader/util.c).
pub const LARGEST: usize = 512 << 10;
/// The maximum number of tables: hvmloader lists 15 in addition to FADT and DSDT (`ACPI_MAX_SECONDARY_TABLES`,
/// tools/libacpi/build.c), silently drops the rest, and makes up to 7 of its own for a dombuild guest.
pub const MOST: usize = 8;

/// Signature, length, revision, checksum, and creator (ACPI 6.5, 5.2.6).
const HEADER: usize = 36;
/// Tables that a guest already has, or that have no checksum.
const HVMLOADERS: [&[u8; 4]; 6] = [b"RSDT", b"XSDT", b"FACP", b"FACS", b"DSDT", b"APIC"];
/// Software licensing, by which Windows identifies a machine of its vendor.
const SLIC: &str = "SLIC";

/// Reads the tables of `--acpi`.
///
/// # Errors
/// [`FileError::Unusable`], with the byte at which the file is wrong.
pub fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    const KIND: &str = "ACPI file";
    let data = file::read(KIND, path, u64::try_from(LARGEST).unwrap_or(u64::MAX))?;
    check(&data).map_err(|reason| FileError::Unusable { what: KIND, path: path.to_owned(), reason })?;
    Ok(data)
}

/// The host's SLIC table for a guest, from sysfs at `sysfs`; `None` if the host has none.
///
/// # Errors
/// [`FileError::Unusable`] if it cannot be read, or is incomplete.
pub fn slic_of_host(sysfs: &Path) -> Result<Option<Vec<u8>>, FileError> {
    let path = sysfs.join("firmware/acpi/tables").join(SLIC);
    match path.metadata() {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        _ => read(&path).map(Some),
    }
}

/// Checks a sequence of tables and returns their signatures.
///
/// # Errors
/// A description of the fault, with its byte offset.
pub fn check(data: &[u8]) -> Result<Vec<String>, String> {
    if data.len() > LARGEST {
        return Err(format!("has {} bytes, more than the {LARGEST} that hvmloader has room for", data.len()));
    }
    let mut found = Vec::new();
    let mut rest = data;
    while !rest.is_empty() {
        let at = data.len() - rest.len();
        let (Some(header), Some((signature, [a, b, c, d, ..]))) = (rest.get(..HEADER), rest.split_first_chunk::<4>())
        else {
            return Err(format!("has {} bytes at byte {at}, too few for the header of an ACPI table", rest.len()));
        };
        let named = signature.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_');
        if !named {
            let shown = String::from_utf8_lossy(&header[..4]).into_owned();
            return Err(format!(
                "has no ACPI table at byte {at}: {shown:?} is no signature; raw tables as in /sys/firmware/acpi/tables were expected"
            ));
        }
        let name = String::from_utf8_lossy(signature).into_owned();
        if HVMLOADERS.contains(&signature) {
            return Err(format!(
                "has a table {name} at byte {at}, of which hvmloader makes the guest's own: leave it out"
            ));
        }
        let length = u32::from_le_bytes([*a, *b, *c, *d]);
        let taken = usize::try_from(length).ok().filter(|length| *length >= HEADER);
        let Some((table, behind)) = taken.and_then(|length| rest.split_at_checked(length)) else {
            return Err(format!(
                "says that the table {name} at byte {at} has {length} bytes, but at least {HEADER} and at most {} are possible",
                rest.len()
            ));
        };
        let sum = table.iter().fold(0_u8, |sum, byte| sum.wrapping_add(*byte));
        if sum != 0 {
            return Err(format!(
                "has a table {name} at byte {at} whose bytes add up to {sum:#04x}, where a checksum makes them 0"
            ));
        }
        found.push(name);
        rest = behind;
    }
    match found.len() {
        0 => Err("has no ACPI table".to_owned()),
        1..=MOST => Ok(found),
        count => Err(format!("has {count} ACPI tables, more than the {MOST} that hvmloader can add")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn table(signature: [u8; 4], content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + content.len()).expect("short").to_le_bytes();
        let mut out = [&signature[..], &length, &[1, 0], b"OEMID OEMTABLE", &[0; 12], content].concat();
        out[9] = out.iter().fold(0_u8, |sum, byte| sum.wrapping_sub(*byte));
        out
    }

    fn tree(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let directory = tempfile::tempdir().expect("a directory");
        for (name, content) in files {
            let path = directory.path().join("firmware/acpi/tables").join(name);
            std::fs::create_dir_all(path.parent().expect("a parent")).expect("made");
            std::fs::write(path, content).expect("written");
        }
        directory
    }

    #[test]
    fn whole_tables_one_after_the_other() {
        let (slic, oem) = (table(*b"SLIC", b"licence"), table(*b"OEM1", b""));
        assert_eq!(check(&slic).expect("one"), ["SLIC"]);
        assert_eq!(check(&[&slic[..], &oem].concat()).expect("two"), ["SLIC", "OEM1"]);

        let refused = |data: &[u8], words: &str| {
            let reason = check(data).expect_err(words);
            assert!(reason.contains(words), "{reason}");
        };
        refused(&[], "no ACPI table");
        refused(&slic[..42], "SLIC at byte 0 has 43 bytes, but at least 36 and at most 42");
        refused(&[&slic[..], &oem[..35]].concat(), "35 bytes at byte 43");
        refused(&[&slic[..], &table(*b"oem1", b"")].concat(), "byte 43: \"oem1\" is no signature");
        let mut wrong = [&slic[..], &oem].concat();
        wrong[43 + 20] ^= 1;
        refused(&wrong, "OEM1 at byte 43 whose bytes add up to 0x");
        let mut short = oem.clone();
        short[4] = 35;
        refused(&short, "has 35 bytes");
        refused(&table(*b"DSDT", b""), "DSDT at byte 0, of which hvmloader makes");
        refused(&oem.repeat(9), "9 ACPI tables, more than the 8");
        assert_eq!(check(&oem.repeat(8)).expect("eight").len(), 8);
        refused(&vec![0; LARGEST + 1], "more than the 524288");
    }

    #[test]
    fn the_hosts_slic() {
        assert_eq!(slic_of_host(tree(&[]).path()).expect("none"), None);
        let slic = table(*b"SLIC", b"licence");
        assert_eq!(slic_of_host(tree(&[("SLIC", &slic)]).path()).expect("one"), Some(slic.clone()));
        let error = slic_of_host(tree(&[("SLIC", &slic[..40])]).path()).expect_err("cut off").to_string();
        assert!(error.contains("tables/SLIC") && error.contains("at most 40"), "{error}");
    }

    proptest! {
        #[test]
        fn no_bytes_panic(data in prop::collection::vec(any::<u8>(), 0..200), front in prop::sample::select(vec!["", "SLIC"])) {
            let _ = check(&[front.as_bytes(), &data].concat());
        }

        #[test]
        fn whole_tables_are_found(contents in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..=8)) {
            let all: Vec<u8> = contents.iter().flat_map(|content| table(*b"OEM1", content)).collect();
            prop_assert_eq!(check(&all).map(|found| found.len()), Ok(contents.len()));
            prop_assert!(check(&all[..all.len() - 1]).is_err());
        }
    }
}
