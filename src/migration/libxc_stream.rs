//! The stream of libxenguest (docs/specs/libxc-migration-stream.pandoc, versions 2 and 3), looked through: the order and the
//! lengths of its records, and the frames whose pages it has. libxenguest itself believes them.

use super::records::{ReadError, RecordHead, Source, expect};
use crate::error::migration::FileProblem;
use crate::memory::Pages;

/// The name of a record in errors.
const WHAT: &str = "a record of libxc";

/// The first eight bytes, and "XENF" behind them.
const MARKER: u64 = u64::MAX;
const ID: u32 = 0x5845_4e46;

/// The length of both headers, and that of the image's alone.
const HEADERS: u64 = 40;
const IMAGE_HEADER: u64 = 24;

/// The shift of a page of 4 KiB.
const PAGE_SHIFT: u16 = 12;
const PAGE_SIZE: u64 = 1 << PAGE_SHIFT;

/// The most bytes of a record (`REC_LENGTH_MAX`, tools/libs/guest/xg_sr_stream_format.h).
const LONGEST_RECORD: u64 = 128 << 20;

/// A record with this bit may be left out by a reader that does not know it.
const OPTIONAL: u32 = 1 << 31;

/// The most frames of a record of pages. libxenguest writes 1024.
const MOST_FRAMES: u64 = 1 << 16;

/// Types of records (`REC_TYPE_*`).
mod kind {
    pub(super) const END: u32 = 0x0;
    pub(super) const PAGE_DATA: u32 = 0x1;
    pub(super) const X86_PV_INFO: u32 = 0x2;
    pub(super) const X86_PV_P2M_FRAMES: u32 = 0x3;
    pub(super) const X86_PV_VCPU_BASIC: u32 = 0x4;
    pub(super) const X86_PV_VCPU_EXTENDED: u32 = 0x5;
    pub(super) const X86_PV_VCPU_XSAVE: u32 = 0x6;
    pub(super) const SHARED_INFO: u32 = 0x7;
    pub(super) const X86_TSC_INFO: u32 = 0x8;
    pub(super) const HVM_CONTEXT: u32 = 0x9;
    pub(super) const HVM_PARAMS: u32 = 0xa;
    pub(super) const X86_PV_VCPU_MSRS: u32 = 0xc;
    pub(super) const VERIFY: u32 = 0xd;
    pub(super) const STATIC_DATA_END: u32 = 0x10;
    pub(super) const X86_CPUID_POLICY: u32 = 0x11;
    pub(super) const X86_MSR_POLICY: u32 = 0x12;
}

/// The container of a domain, as the stream names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Container {
    /// A PV guest.
    Pv,
    /// An HVM or PVH guest.
    Hvm,
}

/// What a look through a stream has found.
#[derive(Debug)]
pub(super) struct Scanned {
    pub(super) container: Container,
    /// Where the stream ends.
    pub(super) end: u64,
    /// The number of frames that have pages.
    pub(super) pages: Pages,
    /// The release of Xen that wrote it: major and minor.
    pub(super) xen: (u32, u32),
}

/// Looks through the stream that begins at `start`.
///
/// # Errors
/// What is wrong with it, or it cannot be read.
pub(super) fn scan(source: Source<'_>, start: u64, last_frame: u64) -> Result<Scanned, ReadError> {
    let (container, version) = read_headers(source, start)?;
    let xen = (source.u32(start + IMAGE_HEADER + 8, WHAT)?, source.u32(start + IMAGE_HEADER + 12, WHAT)?);
    let mut frames = Frames { source, seen: Vec::new(), count: 0, last: last_frame };
    // Version 2 has no mark between what is fixed at the creation of a domain and what follows.
    let mut fixed_ended = version == 2;
    let mut at = start + HEADERS;
    loop {
        let record = source.record(at, WHAT)?;
        if record.length() > LONGEST_RECORD {
            return Err(FileProblem::Field { offset: at + 4, what: "a record's length", value: record.length() }.into());
        }
        at = record.next;
        let pv = container == Container::Pv;
        match record.kind {
            kind::END if record.length() == 0 && fixed_ended => break,
            kind::STATIC_DATA_END if record.length() == 0 && !fixed_ended => fixed_ended = true,
            kind::X86_CPUID_POLICY | kind::X86_MSR_POLICY if !fixed_ended => {}
            kind::X86_PV_INFO if pv => {}
            kind::PAGE_DATA if fixed_ended => frames.add(&record)?,
            kind::X86_PV_P2M_FRAMES
            | kind::X86_PV_VCPU_BASIC
            | kind::X86_PV_VCPU_EXTENDED
            | kind::X86_PV_VCPU_XSAVE
            | kind::X86_PV_VCPU_MSRS
            | kind::SHARED_INFO
                if pv && fixed_ended => {}
            kind::HVM_CONTEXT | kind::HVM_PARAMS if !pv && fixed_ended => {}
            kind::X86_TSC_INFO | kind::VERIFY if fixed_ended => {}
            other if other & OPTIONAL != 0 => {}
            // Among them those of checkpoints, which only a second host reads.
            _ => return Err(record.misplaced(WHAT)),
        }
    }
    Ok(Scanned { container, end: at, pages: Pages(frames.count), xen })
}

fn read_headers(source: Source<'_>, start: u64) -> Result<(Container, u32), ReadError> {
    expect(start, "libxc's mark", source.u64_be(start, WHAT)?, MARKER)?;
    expect(start + 8, "libxc's second mark", source.u32_be(start + 8, WHAT)?.into(), ID.into())?;
    let version = source.u32_be(start + 12, WHAT)?;
    if !(2..=3).contains(&version) {
        let what = "the version of libxc's stream";
        return Err(FileProblem::Field { offset: start + 12, what, value: version.into() }.into());
    }
    // Bit 0 of the options: big-endian.
    let options = u16::from_be_bytes(source.array(start + 16, WHAT)?);
    expect(start + 16, "the set of libxc's options", options.into(), 0)?;
    let domain = start + IMAGE_HEADER;
    let container = match source.u32(domain, WHAT)? {
        1 => Container::Pv,
        2 => Container::Hvm,
        other => {
            let what = "the container of the domain";
            return Err(FileProblem::Field { offset: domain, what, value: other.into() }.into());
        }
    };
    let shift = u16::from_le_bytes(source.array(domain + 4, WHAT)?);
    expect(domain + 4, "the shift of a page", shift.into(), PAGE_SHIFT.into())?;
    Ok((container, version))
}

/// The frames that have pages.
struct Frames<'a> {
    source: Source<'a>,
    /// A bit for each frame.
    seen: Vec<u64>,
    count: u64,
    last: u64,
}

impl Frames<'_> {
    /// A record of pages: a count, a word for each frame, and the pages of those that have one.
    fn add(&mut self, record: &RecordHead) -> Result<(), ReadError> {
        let wrong = |what, value| Err(FileProblem::Field { offset: record.body.start, what, value }.into());
        let count = u64::from(self.source.u32(record.body.start, WHAT)?);
        if !(1..=MOST_FRAMES).contains(&count) || record.length() < 8 + 8 * count {
            return wrong("the number of frames", count);
        }
        let mut words = vec![0; usize::try_from(count * 8).unwrap_or(0)];
        self.source.bytes(record.body.start + 8, &mut words, WHAT)?;
        let mut with_data = 0;
        for word in words.chunks_exact(8) {
            let word = u64::from_le_bytes(word.try_into().unwrap_or_default());
            let (frame, kind) = (word & 0x000f_ffff_ffff_ffff, word >> 60);
            if frame > self.last {
                return Err(FileProblem::Frame { offset: record.offset, frame, last: self.last }.into());
            }
            // An ordinary page or a page table, pinned or not; then those that have no data: broken, allocated, absent.
            let (has_data, is_there) = match kind {
                0..=4 | 9..=12 => (true, true),
                13 | 15 => (false, false),
                14 => (false, true),
                other => return wrong("the type of a frame", other),
            };
            with_data += u64::from(has_data);
            if is_there {
                self.see(frame);
            }
        }
        expect(record.body.start - 4, "the length of the pages", record.length(), 8 + 8 * count + PAGE_SIZE * with_data)
    }

    /// Counts a frame once: a live save sends some again.
    fn see(&mut self, frame: u64) {
        let (index, bit) = (usize::try_from(frame / 64).unwrap_or(usize::MAX), 1 << (frame % 64));
        if index >= self.seen.len() {
            self.seen.resize(index + 1, 0);
        }
        if let Some(word) = self.seen.get_mut(index).filter(|word| **word & bit == 0) {
            *word |= bit;
            self.count += 1;
        }
    }
}
