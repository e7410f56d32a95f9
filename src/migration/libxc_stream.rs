//! The stream of libxenguest (docs/specs/libxc-migration-stream.pandoc, versions 2 and 3), checked in one pass: the order of its
//! records, their lengths and inner shapes, and the frames whose pages it has. libxenguest itself believes most of them.
//!
//! The same code looks through a file, and checks a stream before it is passed on: a record is passed on once all of it is
//! checked, and a page once the record's frames and the page itself are.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};

use serde::{Deserialize, Serialize};

use super::libxc_pages::{Pages, PvFrames};
use super::libxc_records::{Bounds, Container, OPTIONAL, Place, kind, name, needs, place};
use super::libxc_shapes::{self as shapes, Body, Width};
use super::passage::{Passage, ReadError, RecordHead, expect};
use crate::error::damage::{Damage, Fault};
use crate::memory::Pages as PageCount;

/// The name of both headers in errors.
const HEADER: &str = "libxc's header";

/// The first eight bytes, and "XENF" behind them.
const MARKER: u64 = u64::MAX;
const ID: u32 = 0x5845_4e46;

/// The length of the image's header, and that of the domain's behind it.
const IMAGE_HEADER: usize = 24;
const HEADERS: usize = 40;

/// The bytes of a stream with nothing but its headers and its end.
pub(super) const SHORTEST: u64 = HEADERS as u64 + 8;

/// The shift of a page of 4 KiB.
const PAGE_SHIFT: u16 = 12;

/// The most bytes of a record (`REC_LENGTH_MAX`, tools/libs/guest/xg_sr_stream_format.h).
const LONGEST_RECORD: u64 = 128 << 20;

/// How many records of a type a stream has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RecordSum {
    /// The type; that of the first, for all that may be left out.
    pub kind: u32,
    /// The number of them.
    pub count: u64,
    /// Their bytes, with heads and padding.
    pub bytes: u64,
}

/// What a stream has, once it is found whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckedStream {
    /// The container of the domain.
    pub container: Container,
    /// The place behind its last byte.
    pub end: u64,
    /// The number of frames that have pages.
    pub pages: PageCount,
    /// The release of Xen that wrote it: major and minor.
    pub xen: (u32, u32),
    /// Its records, by type.
    pub records: Vec<RecordSum>,
}

/// Checks a stream and passes it on, up to its END and not a byte further.
pub(super) fn check<R: Read, W: Write>(
    passage: &mut Passage<R, W>,
    bounds: Bounds,
) -> Result<CheckedStream, ReadError> {
    let (container, version, xen) = headers(passage)?;
    let mut stream = Stream {
        container,
        bounds,
        // Version 2 has no mark between what is fixed at the creation of a domain and what follows.
        static_ended: version == 2,
        width: None,
        last_pv_frame: None,
        seen: BTreeSet::new(),
        sums: BTreeMap::new(),
        pages: Pages::new(bounds.last_frame),
    };
    while stream.record(passage)? != kind::END {}
    let records = stream.sums.into_values().collect();
    Ok(CheckedStream { container, end: passage.offset, pages: PageCount(stream.pages.count), xen, records })
}

/// The image's header and the domain's (`read_headers`, xg_sr_restore.c).
fn headers<R: Read, W: Write>(passage: &mut Passage<R, W>) -> Result<(Container, u32, (u32, u32)), ReadError> {
    let start = passage.offset;
    let image: [u8; IMAGE_HEADER] = passage.array(HEADER)?;
    let be = |at: usize| image.get(at..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u32::from_be_bytes);
    let damage =
        |at, what, value: u32| Damage { offset: start + at, record: HEADER.into(), fault: Fault::value(what, value) };
    expect(start, HEADER, "the mark", image.first_chunk().copied().map_or(0, u64::from_be_bytes), MARKER)?;
    expect(start + 8, HEADER, "the second mark", be(8).into(), ID.into())?;
    let version = be(12);
    if !(2..=3).contains(&version) {
        return Err(damage(12, "the version", version).into());
    }
    // Bit 0, among the upper 16: big-endian.
    expect(start + 16, HEADER, "the set of options", (be(16) >> 16).into(), 0)?;
    let domain: [u8; HEADERS - IMAGE_HEADER] = passage.array(HEADER)?;
    let le = |at: usize| domain.get(at..).and_then(|rest| rest.first_chunk()).copied().map_or(0, u32::from_le_bytes);
    let container = match le(0) {
        1 => Container::Pv,
        2 => Container::Hvm,
        other => return Err(damage(24, "the container", other).into()),
    };
    expect(start + 28, HEADER, "the shift of a page", (le(4) & 0xffff).into(), PAGE_SHIFT.into())?;
    passage.pass(&image)?;
    passage.pass(&domain)?;
    Ok((container, version, (le(8), le(12))))
}

/// What has been seen of a stream.
struct Stream {
    container: Container,
    bounds: Bounds,
    static_ended: bool,
    /// A PV guest's, from X86_PV_INFO.
    width: Option<Width>,
    /// A PV guest's last frame, from X86_PV_P2M_FRAMES.
    last_pv_frame: Option<u64>,
    /// The records that may be there once, with the vCPU or 0.
    seen: BTreeSet<(u32, u32)>,
    sums: BTreeMap<u32, RecordSum>,
    pages: Pages,
}

impl Stream {
    /// Checks the next record, passes it on, and returns its type.
    fn record<R: Read, W: Write>(&mut self, passage: &mut Passage<R, W>) -> Result<u32, ReadError> {
        let head = passage.head("the head of a record of libxc")?;
        let name = name(head.kind);
        if head.length > LONGEST_RECORD {
            return Err(head.bad_length(name).into());
        }
        self.may_stand_here(&head)?;
        match head.kind {
            kind::PAGE_DATA => {
                let tables = self.width.zip(self.last_pv_frame);
                let tables = tables.map(|(width, last)| PvFrames { levels: width.levels(), last });
                self.pages.pass(passage, &head, tables)?;
            }
            other if other & OPTIONAL != 0 => {
                passage.pass(&head.bytes)?;
                passage.pass_unread(head.padded(), &mut self.pages.buffer, name)?;
            }
            other => {
                if head.length > shapes::longest(other, self.bounds) {
                    return Err(head.bad_length(name).into());
                }
                let body = passage.body(&head, name)?;
                let bytes = usize::try_from(head.length).ok().and_then(|length| body.get(..length));
                self.shape(Body { head: &head, bytes: bytes.unwrap_or_default() })?;
                passage.pass(&head.bytes)?;
                passage.pass(&body)?;
            }
        }
        let group = if head.kind & OPTIONAL == 0 { head.kind } else { OPTIONAL };
        let sum = self.sums.entry(group).or_insert(RecordSum { kind: head.kind, count: 0, bytes: 0 });
        sum.count += 1;
        sum.bytes += 8 + head.padded();
        Ok(head.kind)
    }

    /// Fails for a record that does not belong there, or needs another before it.
    fn may_stand_here(&self, head: &RecordHead) -> Result<(), Damage> {
        let belongs = match place(head.kind, self.container) {
            Place::Static => !self.static_ended,
            Place::Dynamic => self.static_ended,
            Place::Anywhere => true,
            Place::Nowhere => false,
        };
        if !belongs {
            return Err(head.damage(0, name(head.kind), Fault::Misplaced));
        }
        match needs(head.kind, self.container).iter().find(|needed| !self.seen.contains(&(**needed, 0))) {
            Some(missing) => Err(head.damage(0, name(head.kind), Fault::Missing(name(*missing).into()))),
            None => Ok(()),
        }
    }

    /// Checks the inner shape of a small record.
    fn shape(&mut self, body: Body<'_>) -> Result<(), Damage> {
        let (head, bounds) = (body.head, self.bounds);
        let name = name(head.kind);
        // X86_PV_INFO has come where it is needed.
        let width = self.width.unwrap_or(Width::Wide);
        let mut part = 0;
        match head.kind {
            kind::X86_PV_INFO => self.width = Some(shapes::pv_info(body)?),
            kind::X86_PV_P2M_FRAMES => self.last_pv_frame = Some(shapes::p2m_frames(body, width, bounds)?),
            kind::X86_PV_VCPU_BASIC | kind::X86_PV_VCPU_EXTENDED | kind::X86_PV_VCPU_XSAVE | kind::X86_PV_VCPU_MSRS => {
                match shapes::pv_vcpu(body, width, bounds)? {
                    Some(vcpu) => part = vcpu,
                    None => return Ok(()),
                }
            }
            kind::SHARED_INFO => shapes::shared_info(body)?,
            kind::X86_TSC_INFO => shapes::tsc_info(body)?,
            kind::X86_CPUID_POLICY => shapes::cpuid_policy(body)?,
            kind::X86_MSR_POLICY => shapes::msr_policy(body)?,
            kind::HVM_PARAMS => shapes::hvm_params(body, bounds)?,
            kind::HVM_CONTEXT => shapes::hvm_context(body, bounds)?,
            kind::STATIC_DATA_END if head.length == 0 => self.static_ended = true,
            kind::END | kind::VERIFY if head.length == 0 => {}
            _ => return Err(head.bad_length(name)),
        }
        // libxenguest refuses a second X86_PV_INFO, and believes the last of the others.
        if self.seen.insert((head.kind, part)) { Ok(()) } else { Err(head.damage(0, name, Fault::Repeated)) }
    }
}

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod tests;
