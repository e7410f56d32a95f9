//! Streams as libxenguest writes them, and what is wrong with others.

use std::io::{self, Cursor};
use std::thread;

use super::*;
use crate::error::migration::FileProblem;
use crate::migration::passage::ReadError;
use crate::migration::streams::{self, ABSENT, L1, LAST, PINNED_L4, VCPUS, pages, state, stream};

/// What becomes of a stream.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) found: Result<CheckedStream, Damage>,
    /// What was passed on.
    pub(super) passed: Vec<u8>,
    /// The bytes that were read.
    pub(super) read: usize,
    /// The number of reads.
    pub(super) reads: usize,
}

/// Counts reads.
struct Counted<'a>(Cursor<&'a [u8]>, usize);

impl Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.1 += 1;
        self.0.read(buffer)
    }
}

pub(super) fn outcome(bytes: &[u8]) -> Outcome {
    let (mut source, mut passed) = (Counted(Cursor::new(bytes), 0), Vec::new());
    let found = check(&mut Passage::new(&mut source, &mut passed, 0), Bounds::new(LAST, VCPUS));
    let found = found.map_err(|error| match error {
        ReadError::Problem(problem) => match *problem {
            FileProblem::Damaged(damage) => damage,
            other => panic!("{other}"),
        },
        other => panic!("{other:?}"),
    });
    Outcome { found, passed, read: usize::try_from(source.0.position()).expect("short"), reads: source.1 }
}

/// Streams of each container and version, by those and their records.
pub(super) fn whole() -> [(u32, u32, Vec<streams::Record>); 5] {
    [
        (2, 3, streams::hvm()),
        (2, 2, streams::hvm_old()),
        (1, 3, streams::pv()),
        (1, 2, streams::pv_old()),
        (1, 3, streams::pv_narrow()),
    ]
}

#[test]
fn whole_streams_are_passed_on_up_to_their_end() {
    for ((container, version, records), count) in whole().into_iter().zip([4, 2, 4, 4, 4]) {
        let bytes = stream(container, version, &records);
        let more = [&bytes[..], b"libxl's next record"].concat();
        let Outcome { found, passed, read, reads } = outcome(&more);
        let found = found.expect("it is whole");
        assert_eq!((found.end, found.pages.0, found.xen), (bytes.len() as u64, count, (4, 17)));
        assert_eq!(found.container == Container::Pv, container == 1);
        assert!(passed == bytes && read == bytes.len(), "{read} of {} bytes were read", bytes.len());
        assert!(reads < 5 * records.len() + 3, "{reads} reads");
        let sum: u64 = found.records.iter().map(|sum| sum.bytes).sum();
        assert_eq!(sum + 40, bytes.len() as u64);
        assert_eq!(found.records.iter().map(|sum| sum.count).sum::<u64>(), records.len() as u64);
    }
}

/// Changes one record of a stream, and returns the damage.
fn damaged(container: u32, records: &[streams::Record]) -> String {
    let bytes = stream(container, 3, records);
    let Outcome { found, passed, .. } = outcome(&bytes);
    let damage = found.expect_err("it is damaged");
    assert!(damage.offset <= bytes.len() as u64 && bytes.starts_with(&passed));
    damage.to_string()
}

#[test]
fn each_shape_is_looked_at() {
    let change = |container, kind: u32, change: &dyn Fn(&mut Vec<u8>)| {
        let mut records = if container == 1 { streams::pv() } else { streams::hvm() };
        change(&mut records.iter_mut().find(|(other, _)| *other == kind).expect("it has one").1);
        damaged(container, &records)
    };
    let at = |container, kind, at: usize, byte| change(container, kind, &move |body| body[at] = byte);
    let length = |container, kind, length| change(container, kind, &move |body| body.resize(length, 0));
    let context = |states: &[Vec<u8>]| change(2, 0x9, &|body| *body = states.concat());
    let header = || state(1, 0, &[&streams::context()[8..16], &[0; 16]].concat());
    let end = || state(0, 0, &[]);
    for (found, words) in [
        (length(2, 0x11, 0), "X86_CPUID_POLICY: its length is 0x0"),
        (length(2, 0x11, 25), "X86_CPUID_POLICY: its length is 0x19"),
        (at(2, 0x11, 28, 1), "a leaf that is there twice is 0x4"),
        (length(2, 0x12, 17), "X86_MSR_POLICY: its length"),
        (at(2, 0x12, 4, 1), "X86_MSR_POLICY: the set of a register's flags is 0x1"),
        (change(2, 0x12, &|body| *body = body.repeat(2)), "a register that is there twice is 0xce"),
        (length(2, 0x10, 8), "STATIC_DATA_END: its length"),
        (length(2, 0x8, 16), "X86_TSC_INFO: its length is 0x10"),
        (at(2, 0x8, 0, 4), "the mode of the TSC is 0x4"),
        (length(2, 0xa, 7), "HVM_PARAMS: its length is 0x7"),
        (at(2, 0xa, 0, 4), "HVM_PARAMS: its length is 0x38"),
        (at(2, 0xa, 24, 1), "a parameter that is there twice is 0x1"),
        (at(2, 0xa, 12, 1), "HVM_PARAMS: a parameter is 0x100000001"),
        (at(2, 0xa, 16, 0x21), "HVM_PARAMS: frame 0x21 lies beyond the guest's last, 0x20"),
        (length(2, 0x9, 4), "HVM_CONTEXT: the room for the next state is 0x4"),
        (context(&[state(2, 0, &[]), end()]), "HVM_CONTEXT: the type of a state is 0x2"),
        (context(&[state(1, 0, &[0; 24]), end()]), "the mark of Xen's state is 0x0"),
        (context(&[header(), state(2, 2, &[]), end()]), "the number of a vCPU is 0x2"),
        (context(&[header(), state(3, 2, &[]), state(3, 2, &[]), end()]), "is there twice is 0x3"),
        (context(&[header(), header(), end()]), "the type of a state is 0x1"),
        (context(&[header(), end(), end()]), "bytes behind the end is 0x8"),
        (context(&[header(), state(3, 0, &[1])[..8].to_vec()]), "the length of a state is 0x1"),
        (context(&[header()]), "the room for the next state"),
        (at(1, 0x2, 0, 4), "X86_PV_INFO: the guest's width and levels of page tables is 0x404"),
        (length(1, 0x2, 16), "X86_PV_INFO: its length"),
        (at(1, 0x3, 0, 10), "X86_PV_P2M_FRAMES: the first frame, behind the last, is 0xa"),
        (at(1, 0x3, 4, 0x21), "frame 0x21 lies beyond the guest's last, 0x20"),
        (at(1, 0x3, 8, 10), "X86_PV_P2M_FRAMES: frame 0xa lies beyond the guest's last, 0x9"),
        (length(1, 0x3, 24), "X86_PV_P2M_FRAMES: its length is 0x18"),
        (length(1, 0x7, 4095), "SHARED_INFO: its length is 0xfff"),
        (length(1, 0x4, 2808), "X86_PV_VCPU_BASIC: its length is 0xaf8"),
        (at(1, 0x4, 0, 2), "X86_PV_VCPU_BASIC: the number of a vCPU is 0x2"),
        (at(1, 0x4, 0, 1), "X86_PV_VCPU_BASIC: it is there twice"),
        (length(1, 0x5, 137), "X86_PV_VCPU_EXTENDED: its length is 0x89"),
        (length(1, 0x6, 23), "X86_PV_VCPU_XSAVE: its length is 0x17"),
        (length(1, 0xc, 25), "X86_PV_VCPU_MSRS: its length is 0x19"),
        (at(1, 0xc, 12, 1), "the reserved part of a register is 0x1"),
        (length(1, 0xc, 3), "X86_PV_VCPU_MSRS: its length is 0x3"),
        // The frames of its entries are 1.
        (
            change(1, 0x1, &|body| body[8 + 8 * 5 + 4096 + 2] = 1),
            "PAGE_DATA: frame 0x11 lies beyond the guest's last, 0x9",
        ),
        (change(1, 0x1, &|body| *body = pages(&[10]).1), "PAGE_DATA: frame 0xa lies beyond the guest's last, 0x9"),
        (change(2, 0x1, &|body| *body = pages(&[0x21 | ABSENT]).1), "frame 0x21 lies beyond the guest's last, 0x20"),
        (change(2, 0x1, &|body| *body = pages(&[L1]).1), "the type of a frame is 0x1"),
        (change(2, 0x1, &|body| *body = pages(&[PINNED_L4]).1), "the type of a frame is 0xc"),
        (damaged(1, &[&streams::pv_narrow()[..5], &[pages(&[PINNED_L4])]].concat()), "the type of a frame is 0xc"),
        (change(1, 0x1, &|body| *body = pages(&[8 << 60]).1), "the type of a frame is 0x8"),
        (change(2, 0x1, &|body| *body = pages(&[]).1), "the number of frames is 0x0"),
        (change(2, 0x1, &|body| body[0] = 5), "PAGE_DATA: its length"),
        (change(2, 0x1, &|body| body[2] = 2), "the number of frames is 0x20006"),
    ] {
        assert!(found.contains(words), "{words}: {found}");
    }
}

#[test]
fn records_belong_in_their_order() {
    let hvm = |records: &[(u32, Vec<u8>)]| damaged(2, &[&streams::hvm()[..3], records].concat());
    let without =
        |kind: u32| damaged(1, &streams::pv().into_iter().filter(|record| record.0 != kind).collect::<Vec<_>>());
    for (found, words) in [
        (hvm(&[(0x0, vec![])]), "at byte 152, END: HVM_CONTEXT is missing before it"),
        (hvm(&[(0x7, vec![0; 4096])]), "SHARED_INFO: it does not belong there"),
        (hvm(&[(0xe, vec![])]), "CHECKPOINT: it does not belong there"),
        (hvm(&[(0x77, vec![])]), "a record of an unknown type: it does not belong there"),
        (hvm(&[(0x9, streams::context()), (0x9, streams::context())]), "HVM_CONTEXT: it is there twice"),
        (hvm(&[(0x11, vec![0; 24])]), "X86_CPUID_POLICY: it does not belong there"),
        (hvm(&[]), "the head of a record of libxc: it is cut off"),
        (damaged(2, &[pages(&[1])]), "PAGE_DATA: it does not belong there"),
        (damaged(3, &[]), "libxc's header: the container is 0x3"),
        (without(0x2), "X86_PV_P2M_FRAMES: X86_PV_INFO is missing before it"),
        (without(0x3), "PAGE_DATA: X86_PV_P2M_FRAMES is missing before it"),
        (without(0x4), "END: X86_PV_VCPU_BASIC is missing before it"),
        (without(0x7), "END: SHARED_INFO is missing before it"),
    ] {
        assert!(found.contains(words), "{words}: {found}");
    }
    let optional = [&streams::hvm()[..3], &[(0x8000_0077, vec![1; 3])], &streams::hvm()[3..]].concat();
    let bytes = stream(2, 3, &optional);
    assert!(outcome(&bytes).found.is_ok() && outcome(&bytes).passed == bytes, "it may be left out");
}

/// A stream through a pipe: what follows is left to the next reader, and a damage ends what is passed on before it.
#[test]
fn a_pipe_is_read_up_to_the_end() {
    let mut records = streams::hvm();
    records.insert(3, pages(&[7].repeat(700)));
    let bytes = stream(2, 3, &records);
    let (mut reader, mut sender) = io::pipe().expect("a pipe");
    let (mut receiver, mut writer) = io::pipe().expect("a pipe");
    let sent = [&bytes[..], b"behind it"].concat();
    let sending = thread::spawn(move || sender.write_all(&sent));
    let receiving = thread::spawn(move || {
        let mut got = Vec::new();
        receiver.read_to_end(&mut got).map(|_| got)
    });
    let found = check(&mut Passage::new(&mut reader, &mut writer, 0), Bounds::new(LAST, VCPUS)).expect("it is whole");
    drop(writer);
    assert_eq!(found.end, bytes.len() as u64);
    assert!(receiving.join().expect("it ended").expect("read") == bytes);
    sending.join().expect("it ended").expect("sent");
    let mut rest = String::new();
    reader.read_to_string(&mut rest).expect("read");
    assert_eq!(rest, "behind it");
}
