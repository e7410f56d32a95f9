//! Files as xl writes them, and what is wrong with others.

use std::io::Write;
use std::os::unix::fs::FileExt;

use proptest::prelude::*;
use serde_json::json;

use super::*;

/// A stream of libxc of a guest with these frames, each a word with the type above the number.
fn libxc(container: u32, records: &[(u32, Vec<u8>)]) -> Vec<u8> {
    let mut bytes = vec![0xff; 8];
    bytes.extend(*b"XENF");
    bytes.extend(3_u32.to_be_bytes());
    bytes.extend([0; 8]);
    bytes.extend(container.to_le_bytes());
    bytes.extend(12_u16.to_le_bytes());
    bytes.extend([0; 2]);
    bytes.extend([4_u32, 17].into_iter().flat_map(u32::to_le_bytes));
    for (kind, body) in records {
        bytes.extend(record(*kind, body));
    }
    bytes
}

fn pages(words: &[u64], data: usize) -> (u32, Vec<u8>) {
    let mut body = u64::from(u32::try_from(words.len()).expect("few")).to_le_bytes().to_vec();
    body.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    body.extend(vec![7; data * 4096]);
    (0x1, body)
}

fn hvm(words: &[u64], data: usize) -> Vec<u8> {
    let all =
        [(0x11, vec![1; 12]), (0x10, vec![]), pages(words, data), (0x9, vec![2; 5]), (0xa, vec![]), (0x0, vec![])];
    libxc(2, &all)
}

fn file(parts: &[&[u8]]) -> File {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(&parts.concat()).expect("written");
    file
}

fn state(file: &File, last: u64) -> Result<State, FileProblem> {
    let of = |error| match error {
        ReadError::Problem(problem) => problem,
        ReadError::Io(error) => panic!("{error}"),
    };
    let header = read_header(file).map_err(of)?;
    read_state(file, &header, last).map_err(of)
}

const ABSENT: u64 = 15 << 60;
const ALLOCATED: u64 = 14 << 60;
const PINNED: u64 = 12 << 60;

#[test]
fn a_file_is_read_as_it_is_written() {
    let configuration = json!({ "c_info": { "name": "web" } });
    let head = head(&configuration).expect("short");
    let libxc = hvm(&[0, 1, ABSENT | 2, PINNED | 3, ALLOCATED | 9], 3);
    let emulator = b"state of QEMU";
    let file = file(&[&head, &libxc, &tail(Some(emulator))]);
    assert_eq!(read_header(&file).expect("a header").configuration, configuration);
    let found = state(&file, 9).expect("a state");
    let (start, length) = (head.len() as u64, libxc.len() as u64);
    assert_eq!((found.container, found.pages), (Container::Hvm, Pages(4)));
    assert_eq!(found.libxc, start..start + length);
    let range = found.emulator.expect("QEMU's");
    let mut bytes = vec![0; emulator.len()];
    file.read_exact_at(&mut bytes, range.start).expect("read");
    assert_eq!((bytes.as_slice(), range.end - range.start), (&emulator[..], emulator.len() as u64));
}

#[test]
fn frames_are_counted_once_and_have_a_bound() {
    let head = head(&json!({})).expect("short");
    let all = [(0x10, vec![]), pages(&[5, 6], 2), pages(&[6, 5, 7], 3), (0x0, vec![])];
    let found = |last| state(&file(&[&head, &libxc(1, &all), &tail(None)]), last);
    assert_eq!(
        found(7).map(|state| (state.container, state.pages, state.emulator)),
        Ok((Container::Pv, Pages(3), None))
    );
    assert!(matches!(found(6), Err(FileProblem::Frame { frame: 7, last: 6, .. })));
}

#[test]
fn what_does_not_belong_there_is_refused() {
    let head = head(&json!({})).expect("short");
    let (good, end) = (hvm(&[0], 1), tail(None));
    let libxl =
        |records: &[(u32, &[u8])]| records.iter().flat_map(|(kind, body)| record(*kind, body)).collect::<Vec<_>>();
    let of = |libxc: &[u8], rest: &[u8]| state(&file(&[&head, libxc, rest]), 100).expect_err("refused");
    let fixed = |records: &[(u32, Vec<u8>)]| libxc(2, &[&[(0x10, vec![])], records].concat());
    for (problem, what) in [
        (of(&libxc(3, &[]), &end), "container"),
        (of(&libxc(2, &[(0x1, vec![0; 8])]), &end), "record type 0x1"),
        (of(&libxc(2, &[(0x0, vec![])]), &end), "record type 0x0"),
        (of(&fixed(&[(0x7, vec![0; 8])]), &end), "record type 0x7"),
        (of(&fixed(&[(0xe, vec![])]), &end), "record type 0xe"),
        (of(&fixed(&[(0x77, vec![])]), &end), "record type 0x77"),
        (of(&fixed(&[pages(&[], 0)]), &end), "number of frames is 0x0"),
        (of(&fixed(&[pages(&[1, 2], 1)]), &end), "length of the pages"),
        (of(&fixed(&[pages(&[7 << 60], 0)]), &end), "type of a frame is 0x7"),
        (of(&good, &libxl(&[(9, &[])])), "record of libxl"),
        (of(&good, &libxl(&[(2, &[0; 20])])), "record type 0x2"),
        (of(&good, &libxl(&[(3, &[1, 0, 0, 0, 0, 0, 0, 0, 5])])), "emulator is 0x1"),
        (of(&good, &[&end[..], b"more"].concat()), "4 bytes follow"),
        (of(&good, &[]), "ends at byte"),
    ] {
        assert!(problem.to_string().contains(what), "{what}: {problem}");
    }
    // A record that may be left out, and one of QEMU before 2.12 without a key.
    let optional = fixed(&[(0x8000_0077, vec![1; 3]), (0x0, vec![])]);
    state(&file(&[&head, &optional, &libxl(&[(2, &[0; 8]), (0, &[])])]), 0).expect("both are passed over");
}

#[test]
fn a_header_is_checked() {
    let good = head(&json!({ "c_info": {} })).expect("short");
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        match read_header(&file(&[&bytes])) {
            Ok(header) => panic!("{header:?}"),
            Err(ReadError::Problem(problem)) => problem.to_string(),
            Err(ReadError::Io(error)) => panic!("{error}"),
        }
    };
    assert_eq!(with(0, b'x'), "it does not begin with xl's mark");
    for (at, byte, what) in [
        (32, 1, "byte order is 0x1020301"),
        (36, 7, "mandatory flags is 0x7"),
        (44, 1, "configuration's length"),
        (50, 0xff, "configuration's length"),
        (52, b'x', "not JSON"),
    ] {
        assert!(with(at, byte).contains(what), "{what}: {}", with(at, byte));
    }
    assert!(head(&json!("x".repeat(1 << 20))).is_err());
}

proptest! {
    /// A file that is cut off anywhere is refused, and one with other bytes never makes the reader fail otherwise.
    #[test]
    fn no_file_is_too_odd(cut in 0_usize..10_000, at in 0_usize..10_000, byte: u8) {
        let all = [head(&json!({})).expect("short"), hvm(&[0, ABSENT | 1, 2], 2), tail(Some(b"q"))].concat();
        let cut = cut.min(all.len() - 1);
        prop_assert!(state(&file(&[&all[..cut]]), 5).is_err());
        let mut changed = all.clone();
        let at = at.min(all.len() - 1);
        changed[at] = byte;
        let _ = state(&file(&[&changed]), 5);
    }
}
