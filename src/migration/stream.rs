//! The file of a saved guest, as xl writes and reads it: xl's header with the guest's configuration (`save_domain_core_writeconfig`,
//! tools/xl/xl_saverestore.c), then libxl's stream (docs/specs/libxl-migration-stream.pandoc, version 2), in which the stream
//! of libxenguest is ([`super::libxc_stream`]). Xen 4.17 and 4.20 write the same.
//!
//! All of it is read in sequence, from a file, a pipe or a socket, and nothing beyond a part that is asked for.

use std::io::{Read, Seek, Write, sink};
use std::ops::Range;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::libxc_records::Bounds;
use super::libxc_stream::{self, CheckedStream};
use super::passage::{Passage, ReadError, RecordHead, expect};
use crate::domain::userdata;
use crate::error::damage::{Damage, Fault};
use crate::error::migration::FileProblem;

/// The first bytes of a file (`savefileheader_magic`, tools/xl/xl.h).
const MAGIC: &[u8; 32] = b"Xen saved domain, xl format\n \0 \r";

/// The part of them by which a file is known, even one that is cut off.
pub const MARK: &[u8] = MAGIC.split_at(16).0;

/// The byte order of the numbers behind it.
const BYTE_ORDER: u32 = 0x0102_0304;

/// The flags that the file must have: the configuration is JSON, the stream has version 2.
const MANDATORY: u32 = 0x3;

/// The most bytes of a configuration. libxl's are a few thousand bytes.
const LONGEST_CONFIGURATION: u32 = 1 << 20;

/// The most bytes of xl's optional part, which has the configuration and what other programs may put behind it.
const LONGEST_OPTIONAL: u32 = 2 << 20;

/// The most bytes behind the configuration that are read.
const LONGEST_BEHIND: usize = 4096;

/// The first bytes of libxl's stream, and its version; both are big-endian.
const LIBXL_MAGIC: u64 = u64::from_be_bytes(*b"LibxlFmt");
const LIBXL_VERSION: u32 = 2;

/// The most bytes of QEMU's state. That of a guest with the usual devices has a few thousand bytes.
pub const LONGEST_EMULATOR: u64 = 64 << 20;

/// The frames of an HVM or PVH guest below 4 GiB, each of which takes a word in the stream, even if it is a hole.
pub const LOW_FRAMES: u64 = 1 << 20;

/// The number of QEMU among the emulators (`EMULATOR_QEMU_UPSTREAM`).
const QEMU: u32 = 2;

/// The names of the parts in errors.
const XL_HEADER: &str = "xl's header";
const LIBXL_HEADER: &str = "libxl's header";

/// Types of libxl's records.
pub(super) mod kind {
    pub(in crate::migration) const END: u32 = 0;
    pub(in crate::migration) const LIBXC_CONTEXT: u32 = 1;
    pub(in crate::migration) const EMULATOR_XENSTORE_DATA: u32 = 2;
    pub(in crate::migration) const EMULATOR_CONTEXT: u32 = 3;
}

/// The names of the types 0 to 5, which the specification shares with libxc's END.
fn name(kind: u32) -> &'static str {
    match kind {
        kind::END => "libxl's END",
        kind::LIBXC_CONTEXT => "LIBXC_CONTEXT",
        kind::EMULATOR_XENSTORE_DATA => "EMULATOR_XENSTORE_DATA",
        kind::EMULATOR_CONTEXT => "EMULATOR_CONTEXT",
        _ => "a record of libxl of another type",
    }
}

/// The part of a file before the state: the configuration.
#[derive(Debug)]
pub struct Header {
    /// The configuration.
    pub configuration: Value,
    /// Its length, in bytes.
    pub length: u64,
    /// What stands behind it, if that is short: for the program that wrote it.
    pub(super) behind: Vec<u8>,
    /// Where libxl's stream begins.
    pub(super) stream: u64,
}

/// The state in a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    /// Where the stream of libxenguest begins.
    pub start: u64,
    /// What it has, and where it ends.
    pub libxc: CheckedStream,
    /// The state of QEMU's devices, if there is one.
    pub emulator: Option<Range<u64>>,
}

/// Reads the configuration of a saved guest, from the start of a file or of a stream of xl's.
///
/// # Errors
/// It is not one of xl's, or cannot be read.
pub fn read_header(from: impl Read) -> Result<Header, ReadError> {
    let mut passage = Passage::new(from, sink(), 0);
    let mut magic = [0; 32];
    if let Err(error) = passage.read(&mut magic, XL_HEADER) {
        let begins = usize::try_from(passage.offset).ok().and_then(|length| magic.get(..length));
        return match error {
            ReadError::Problem(_) if begins.is_none_or(|begins| begins.is_empty() || !MAGIC.starts_with(begins)) => {
                Err(FileProblem::NoMark.into())
            }
            error => Err(error),
        };
    }
    if magic != *MAGIC {
        return Err(FileProblem::NoMark.into());
    }
    let mut number = || passage.array(XL_HEADER).map(u32::from_le_bytes);
    // The third ones, optional flags, are for programs that know them.
    let (order, mandatory, _, optional, length) = (number()?, number()?, number()?, number()?, number()?);
    expect(32, XL_HEADER, "the byte order", order.into(), BYTE_ORDER.into())?;
    expect(36, XL_HEADER, "the set of mandatory flags", mandatory.into(), MANDATORY.into())?;
    let wrong =
        |at, what, value: u32| Damage { offset: at, record: XL_HEADER.into(), fault: Fault::value(what, value) };
    if length > LONGEST_CONFIGURATION {
        return Err(wrong(48, "the configuration's length", length).into());
    }
    let behind = optional.checked_sub(4).and_then(|rest| rest.checked_sub(length));
    let Some(behind) = behind.filter(|_| optional <= LONGEST_OPTIONAL) else {
        return Err(wrong(44, "the length of what is optional", optional).into());
    };
    let mut text = vec![0; usize::try_from(length).unwrap_or(0)];
    passage.read(&mut text, "the configuration")?;
    let mut more = vec![0; usize::try_from(behind).ok().filter(|length| *length <= LONGEST_BEHIND).unwrap_or(0)];
    passage.read(&mut more, XL_HEADER)?;
    passage.pass_unread(u64::from(behind) - more.len() as u64, &mut [0; 4096], XL_HEADER)?;
    let configuration = userdata::parse(&text).map_err(|error| FileProblem::NotJson(error.to_string()))?;
    Ok(Header { configuration, length: length.into(), behind: more, stream: passage.offset })
}

/// Reads libxl's stream of a regular file, from its start to the end of the file, and checks all of it.
pub(super) fn check(from: impl Read + Seek, start: u64, bounds: Bounds) -> Result<State, ReadError> {
    let mut passage = Passage::over_file(from, start)?;
    context(&mut passage)?;
    let start = passage.offset;
    let libxc = libxc_stream::check(&mut passage, bounds)?;
    let mut emulator = None;
    tail(&mut passage, |passage, head| {
        let range = head.offset + 16..head.offset + 8 + head.length;
        let mut buffer = [0; 4096];
        passage.pass_unread(head.padded() - 8, &mut buffer, name(head.kind))?;
        emulator = Some(range);
        Ok(())
    })?;
    passage.at_end(name(kind::END))?;
    Ok(State { start, libxc, emulator })
}

/// Reads libxl's head up to libxenguest's stream, from a stream that begins at `offset`. The next byte is that stream's first.
/// Returns its place.
///
/// # Errors
/// It is not one of libxl's, or cannot be read.
pub fn read_head(from: impl Read, offset: u64) -> Result<u64, ReadError> {
    let mut passage = Passage::new(from, sink(), offset);
    context(&mut passage)?;
    Ok(passage.offset)
}

/// Reads what libxl has behind libxenguest's stream, from a stream that is at `offset`: QEMU's state, if there is one, and the
/// end. Nothing is read behind that.
///
/// # Errors
/// It is not one of libxl's, or cannot be read.
pub fn read_tail(from: impl Read, offset: u64) -> Result<Option<Vec<u8>>, ReadError> {
    let mut passage = Passage::new(from, sink(), offset);
    let mut emulator = None;
    tail(&mut passage, |passage, head| {
        let too_long = |_| head.bad_length(name(head.kind));
        let mut state = vec![0; usize::try_from(head.padded() - 8).map_err(too_long)?];
        passage.read(&mut state, name(head.kind))?;
        state.truncate(usize::try_from(head.length - 8).map_err(too_long)?);
        emulator = Some(state);
        Ok(())
    })?;
    Ok(emulator)
}

/// Whether these are the head of QEMU's record, with this length behind them, and the emulator's numbers.
pub(super) fn is_emulator_record(bytes: [u8; 16], length: u64) -> bool {
    let length = u32::try_from(length + 8).unwrap_or(0);
    let numbers = [kind::EMULATOR_CONTEXT, length, QEMU, 0];
    bytes.chunks_exact(4).zip(numbers).all(|(number, expected)| *number == expected.to_le_bytes())
}

fn context<R: Read, W: Write>(passage: &mut Passage<R, W>) -> Result<(), ReadError> {
    let at = passage.offset;
    expect(at, LIBXL_HEADER, "the mark", u64::from_be_bytes(passage.array(LIBXL_HEADER)?), LIBXL_MAGIC)?;
    let mut number = || passage.array(LIBXL_HEADER).map(|bytes| u64::from(u32::from_be_bytes(bytes)));
    let (version, options) = (number()?, number()?);
    expect(at + 8, LIBXL_HEADER, "the version", version, LIBXL_VERSION.into())?;
    // Bit 0: big-endian; bit 1: converted from an old stream, which has no CPUID policy.
    expect(at + 12, LIBXL_HEADER, "the set of options", options, 0)?;
    let head = passage.head(name(kind::LIBXC_CONTEXT))?;
    if head.kind != kind::LIBXC_CONTEXT {
        return Err(head.damage(0, name(head.kind), Fault::Misplaced).into());
    }
    if head.length != 0 {
        return Err(head.bad_length(name(head.kind)).into());
    }
    Ok(())
}

/// Reads libxl's records up to the end, and lets `take` read QEMU's state with its padding, behind the emulator's numbers.
fn tail<R: Read, W: Write>(
    passage: &mut Passage<R, W>,
    mut take: impl FnMut(&mut Passage<R, W>, &RecordHead) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let mut seen = false;
    loop {
        let head = passage.head("the head of a record of libxl")?;
        let record = name(head.kind);
        let length = head.length;
        match head.kind {
            kind::END if length == 0 => return Ok(()),
            // Keys of QEMU before 2.12. The two numbers of every record of an emulator are no keys.
            kind::EMULATOR_XENSTORE_DATA if length <= 8 && !seen => drop(passage.body(&head, record)?),
            kind::EMULATOR_CONTEXT if !seen && (9..=LONGEST_EMULATOR).contains(&length) => {
                let mut number = || passage.array(record).map(|bytes| u64::from(u32::from_le_bytes(bytes)));
                let (emulator, index) = (number()?, number()?);
                expect(head.offset + 8, record, "the emulator", emulator, QEMU.into())?;
                expect(head.offset + 12, record, "the number of the emulator", index, 0)?;
                take(passage, &head)?;
                seen = true;
            }
            kind::EMULATOR_CONTEXT if seen => return Err(head.damage(0, record, Fault::Repeated).into()),
            kind::END | kind::EMULATOR_XENSTORE_DATA | kind::EMULATOR_CONTEXT if !seen || head.kind == kind::END => {
                return Err(head.bad_length(record).into());
            }
            _ => return Err(head.damage(0, record, Fault::Misplaced).into()),
        }
    }
}

/// What a file has before the stream of libxenguest: xl's header with the configuration, and the head of libxl's stream. `more` is
/// for dombuild: xl leaves out what stands behind the configuration.
///
/// # Errors
/// The configuration is too long.
pub fn head(configuration: &Value, more: Option<&Value>) -> Result<Vec<u8>, FileProblem> {
    let mut text = serde_json::to_vec(configuration).map_err(|error| FileProblem::NotJson(error.to_string()))?;
    text.push(0);
    let length = u32::try_from(text.len()).ok().filter(|length| *length <= LONGEST_CONFIGURATION);
    let length = length.ok_or_else(|| FileProblem::NotJson(format!("it has {} bytes", text.len())))?;
    let more = more.map_or_else(String::new, Value::to_string);
    let optional = u32::try_from(more.len()).unwrap_or(u32::MAX).saturating_add(length + 4);
    let mut bytes = MAGIC.to_vec();
    for number in [BYTE_ORDER, MANDATORY, 0, optional, length] {
        bytes.extend(number.to_le_bytes());
    }
    bytes.extend(text);
    bytes.extend(more.into_bytes());
    bytes.extend(LIBXL_MAGIC.to_be_bytes());
    for number in [LIBXL_VERSION, 0] {
        bytes.extend(number.to_be_bytes());
    }
    bytes.extend(record(kind::LIBXC_CONTEXT, &[]));
    Ok(bytes)
}

/// What a file has behind the stream of libxenguest: QEMU's state, if the guest has a QEMU, and the end.
#[must_use]
pub fn tail_of(emulator: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(state) = emulator {
        let numbers = [QEMU, 0].into_iter().flat_map(u32::to_le_bytes);
        bytes.extend(record(kind::EMULATOR_CONTEXT, &numbers.chain(state.iter().copied()).collect::<Vec<_>>()));
    }
    bytes.extend(record(kind::END, &[]));
    bytes
}

fn record(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut bytes: Vec<u8> = [kind, length].into_iter().flat_map(u32::to_le_bytes).collect();
    bytes.extend(body);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes
}

#[cfg(test)]
mod tests;
