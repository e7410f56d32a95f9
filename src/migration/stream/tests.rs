//! Files as xl writes them, and what is wrong with others.

use std::io::Cursor;

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::migration::libxc_records::Container;
use crate::migration::streams::{self, LAST, VCPUS};

fn hvm() -> Vec<u8> {
    streams::stream(2, 3, &streams::hvm())
}

fn problem(error: ReadError) -> FileProblem {
    match error {
        ReadError::Problem(problem) => *problem,
        error => panic!("{error:?}"),
    }
}

fn state(file: &[u8]) -> Result<State, FileProblem> {
    let mut source = Cursor::new(file);
    let header = read_header(&mut source).map_err(problem)?;
    assert_eq!(header.stream, source.position(), "nothing is read ahead");
    check(source, header.stream, Bounds::new(LAST, VCPUS)).map_err(problem)
}

#[test]
fn a_file_is_read_as_it_is_written() {
    let configuration = json!({ "c_info": { "name": "web" } });
    let head = head(&configuration, None).expect("short");
    let (libxc, emulator) = (hvm(), b"state of QEMU");
    let file = [&head[..], &libxc, &tail_of(Some(emulator))].concat();
    let header = read_header(&file[..]).expect("a header");
    assert_eq!((&header.configuration, header.length), (&configuration, configuration.to_string().len() as u64 + 1));
    let found = state(&file).expect("a state");
    assert_eq!((found.start, found.libxc.end), (head.len() as u64, (head.len() + libxc.len()) as u64));
    assert_eq!((found.libxc.container, found.libxc.pages.0), (Container::Hvm, 4));
    let range = found.emulator.expect("QEMU's");
    let range = usize::try_from(range.start).expect("small")..usize::try_from(range.end).expect("small");
    assert_eq!(&file[range.clone()], &emulator[..]);
    let record = file[range.start - 16..range.start].try_into().expect("16 bytes");
    assert!(is_emulator_record(record, 13) && !is_emulator_record(record, 12));
    assert_eq!(MARK, &file[..16]);
}

/// The same parts from a socket, one after the other.
#[test]
fn a_stream_is_read_in_parts() {
    let file = [&head(&json!({}), None).expect("short")[..], &hvm(), &tail_of(Some(b"QEMU's")), b"next"].concat();
    let mut source = Cursor::new(&file[..]);
    let header = read_header(&mut source).expect("a header");
    let start = read_head(&mut source, header.stream).expect("libxl's head");
    assert_eq!(start, source.position());
    let mut passage = Passage::new(&mut source, sink(), start);
    let libxc = libxc_stream::check(&mut passage, Bounds::new(LAST, VCPUS)).expect("a state");
    assert_eq!(read_tail(&mut source, libxc.end).expect("the rest").as_deref(), Some(&b"QEMU's"[..]));
    assert_eq!(source.position(), file.len() as u64 - 4);
    assert_eq!(read_tail(&tail_of(None)[..], 0).expect("the rest"), None);
}

#[test]
fn what_does_not_belong_there_is_refused() {
    let head = head(&json!({}), None).expect("short");
    let (good, end) = (hvm(), tail_of(None));
    let libxl =
        |records: &[(u32, &[u8])]| records.iter().flat_map(|(kind, body)| record(*kind, body)).collect::<Vec<_>>();
    let of = |libxc: &[u8], rest: &[u8]| state(&[&head[..], libxc, rest].concat()).expect_err("refused").to_string();
    let qemu = |emulator: u8| [emulator, 0, 0, 0, 0, 0, 0, 0, 5];
    for (problem, what) in [
        (of(&streams::stream(3, 3, &[]), &end), "libxc's header: the container is 0x3"),
        (of(&good, &libxl(&[(9, &[])])), "a record of libxl of another type: it does not belong there"),
        (of(&good, &libxl(&[(1, &[])])), "LIBXC_CONTEXT: it does not belong there"),
        (of(&good, &libxl(&[(2, &[0; 20])])), "EMULATOR_XENSTORE_DATA: its length is 0x14"),
        (of(&good, &libxl(&[(3, &[0; 8])])), "EMULATOR_CONTEXT: its length is 0x8"),
        (of(&good, &libxl(&[(3, &qemu(1))])), "EMULATOR_CONTEXT: the emulator is 0x1"),
        (of(&good, &libxl(&[(3, &qemu(2)), (3, &qemu(2))])), "EMULATOR_CONTEXT: it is there twice"),
        (of(&good, &libxl(&[(0, &[1])])), "libxl's END: its length is 0x1"),
        (of(&good, &[&end[..], b"more"].concat()), "libxl's END: more follows it"),
        (of(&good, &[]), "the head of a record of libxl: it is cut off"),
    ] {
        assert!(problem.contains(what), "{what}: {problem}");
    }
    // One of QEMU before 2.12 without a key.
    state(&[&head[..], &good, &libxl(&[(2, &[0; 8]), (0, &[])])].concat()).expect("it is passed over");
}

#[test]
fn a_header_is_checked() {
    let good = head(&json!({ "c_info": {} }), None).expect("short");
    let with = |at: usize, byte: u8| {
        let mut bytes = good.clone();
        bytes[at] = byte;
        problem(read_header(&bytes[..]).expect_err("refused")).to_string()
    };
    assert_eq!(with(0, b'x'), "it does not begin with xl's mark");
    for (at, byte, what) in [
        (32, 1, "at byte 32, xl's header: the byte order is 0x1020301"),
        (36, 7, "mandatory flags is 0x7"),
        (44, 1, "the length of what is optional is 0x1"),
        (46, 0xff, "the length of what is optional"),
        (50, 0xff, "configuration's length"),
        (52, b'x', "not JSON"),
    ] {
        assert!(with(at, byte).contains(what), "{what}: {}", with(at, byte));
    }
    for (length, what) in
        [(0, "xl's mark"), (20, "at byte 20, xl's header: it is cut off"), (60, "at byte 60, the conf")]
    {
        let found = problem(read_header(&good[..length]).expect_err("refused")).to_string();
        assert!(found.contains(what), "{what}: {found}");
    }
    assert_eq!(problem(read_header(&b"kernel"[..]).expect_err("refused")), FileProblem::NoMark);
    assert!(head(&json!("x".repeat(1 << 20)), None).is_err());
}

proptest! {
    /// A file that is cut off anywhere is refused, and one with other bytes never makes the reader fail otherwise.
    #[test]
    fn no_file_is_too_odd(cut in 0_usize..20_000, at in 0_usize..20_000, byte: u8) {
        let all = [&head(&json!({}), None).expect("short")[..], &hvm(), &tail_of(Some(b"q"))].concat();
        prop_assert!(state(&all[..cut.min(all.len() - 1)]).is_err());
        let mut changed = all.clone();
        let at = at.min(all.len() - 1);
        changed[at] = byte;
        let _ = state(&changed);
    }
}
