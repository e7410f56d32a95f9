//! The file of a saved guest, as xl writes and reads it: xl's header with the guest's configuration (`save_domain_core_writeconfig`,
//! tools/xl/xl_saverestore.c), then libxl's stream (docs/specs/libxl-migration-stream.pandoc, version 2), in which the stream
//! of libxenguest is ([`super::libxc_stream`]). Xen 4.17 and 4.20 write the same.
//!
//! A file is looked through completely before anything else sees it, except for the pages of memory.

use std::fs::File;
use std::ops::Range;

use serde_json::Value;

use super::libxc_stream::{self, Container};
use super::records::{ReadError, Source, expect};
use crate::domain::userdata;
use crate::error::migration::FileProblem;
use crate::memory::Pages;

/// The first bytes of a file (`savefileheader_magic`, tools/xl/xl.h).
const MAGIC: &[u8; 32] = b"Xen saved domain, xl format\n \0 \r";

/// The byte order of the numbers behind it.
const BYTE_ORDER: u32 = 0x0102_0304;

/// The flags that the file must have: the configuration is JSON, the stream has version 2.
const MANDATORY: u32 = 0x3;

/// The most bytes of a configuration. libxl's are a few thousand bytes.
pub(super) const LONGEST_CONFIGURATION: u32 = 1 << 20;

/// The first bytes of libxl's stream, and its version; both are big-endian.
const LIBXL_MAGIC: u64 = u64::from_be_bytes(*b"LibxlFmt");
const LIBXL_VERSION: u32 = 2;

/// The most bytes of QEMU's state. That of a guest with the usual devices has a few thousand bytes.
pub const LONGEST_EMULATOR: u64 = 64 << 20;

/// The frames of an HVM or PVH guest below 4 GiB, each of which takes a word in the stream, even if it is a hole.
pub(super) const LOW_FRAMES: u64 = 1 << 20;

/// The number of QEMU among the emulators (`EMULATOR_QEMU_UPSTREAM`).
const QEMU: u32 = 2;

/// What precedes QEMU's state in its record: its number, and that of the emulator of that kind.
pub(super) const QEMU_STATE: [u8; 8] = [2, 0, 0, 0, 0, 0, 0, 0];

/// The bytes before a configuration.
pub(super) const START: usize = 52;

/// The bytes between a configuration and the stream of libxenguest: libxl's mark, and a record without a body.
pub(super) const LIBXL_START: usize = 24;

/// Types of libxl's records.
pub(super) mod kind {
    pub(in super::super) const END: u32 = 0;
    pub(in super::super) const LIBXC_CONTEXT: u32 = 1;
    pub(in super::super) const EMULATOR_XENSTORE_DATA: u32 = 2;
    pub(in super::super) const EMULATOR_CONTEXT: u32 = 3;
}

/// The part of a file before the state: the configuration.
#[derive(Debug)]
pub struct Header {
    /// The configuration.
    pub configuration: Value,
    /// Where libxl's stream begins.
    stream: u64,
}

/// The state in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The container of the domain.
    pub container: Container,
    /// Where the stream of libxenguest begins, and its end.
    pub libxc: Range<u64>,
    /// The pages that the guest owned.
    pub pages: Pages,
    /// The release of Xen on which it was saved: major and minor.
    pub xen: (u32, u32),
    /// The state of QEMU's devices, if there is one.
    pub emulator: Option<Range<u64>>,
}

/// Reads the configuration of a saved guest.
///
/// # Errors
/// The file is not one of xl's, or cannot be read.
pub fn read_header(file: &File) -> Result<Header, ReadError> {
    const WHAT: &str = "xl's header";
    let source = Source::of(file)?;
    if source.length < 32 || source.array::<32>(0, WHAT)? != *MAGIC {
        return Err(FileProblem::NoMark.into());
    }
    expect(32, "the byte order", source.u32(32, WHAT)?.into(), BYTE_ORDER.into())?;
    expect(36, "the set of mandatory flags", source.u32(36, WHAT)?.into(), MANDATORY.into())?;
    // Flags at 40 are optional: they are for programs that know them.
    let (optional, length) = (source.u32(44, WHAT)?, source.u32(48, WHAT)?);
    if length > LONGEST_CONFIGURATION || u64::from(optional) < u64::from(length) + 4 {
        return Err(FileProblem::Field { offset: 48, what: "the configuration's length", value: length.into() }.into());
    }
    let mut text = vec![0; usize::try_from(length).unwrap_or(0)];
    source.bytes(52, &mut text, "the configuration")?;
    let configuration = userdata::parse(&text).map_err(|error| FileProblem::NotJson(error.to_string()))?;
    Ok(Header { configuration, stream: 48 + u64::from(optional) })
}

/// Looks the state through: the order of the records and their lengths, and every frame. No frame may be beyond `last_frame`.
///
/// # Errors
/// What is wrong with the file, or it cannot be read.
pub fn read_state(file: &File, header: &Header, last_frame: u64) -> Result<State, ReadError> {
    const WHAT: &str = "a record of libxl";
    let source = Source::of(file)?;
    let at = header.stream;
    expect(at, "libxl's mark", source.u64_be(at, WHAT)?, LIBXL_MAGIC)?;
    expect(at + 8, "the version of libxl's stream", source.u32_be(at + 8, WHAT)?.into(), LIBXL_VERSION.into())?;
    // Bit 0: big-endian; bit 1: converted from an old stream, which has no CPUID policy.
    expect(at + 12, "the set of libxl's options", source.u32_be(at + 12, WHAT)?.into(), 0)?;
    let context = source.record(at + 16, WHAT)?;
    if context.kind != kind::LIBXC_CONTEXT || context.length() != 0 {
        return Err(context.misplaced(WHAT));
    }
    let scanned = libxc_stream::scan(source, context.next, last_frame)?;
    let mut state = State {
        container: scanned.container,
        libxc: context.next..scanned.end,
        pages: scanned.pages,
        xen: scanned.xen,
        emulator: None,
    };
    let mut at = scanned.end;
    loop {
        let record = source.record(at, WHAT)?;
        at = record.next;
        match record.kind {
            kind::END if record.length() == 0 => break,
            // Keys of QEMU before 2.12. The two numbers of every record of an emulator are no keys.
            kind::EMULATOR_XENSTORE_DATA if record.length() <= 8 && state.emulator.is_none() => {}
            kind::EMULATOR_CONTEXT if (9..=LONGEST_EMULATOR).contains(&record.length()) && state.emulator.is_none() => {
                let start = record.body.start;
                expect(start, "the emulator", source.u32(start, WHAT)?.into(), QEMU.into())?;
                expect(start + 4, "the number of the emulator", source.u32(start + 4, WHAT)?.into(), 0)?;
                state.emulator = Some(start + 8..record.body.end);
            }
            _ => return Err(record.misplaced(WHAT)),
        }
    }
    match source.length - at {
        0 => Ok(state),
        rest => Err(FileProblem::Rest(rest).into()),
    }
}

/// Checks what precedes a configuration, and returns the length of the configuration and of what follows it.
pub(super) fn read_start(bytes: &[u8; START]) -> Result<(u32, u32), FileProblem> {
    let Some((MAGIC, numbers)) = bytes.split_first_chunk::<32>() else { return Err(FileProblem::NoMark) };
    let number = |index: usize| {
        let bytes = numbers.chunks_exact(4).nth(index).and_then(|bytes| bytes.try_into().ok());
        u32::from_le_bytes(bytes.unwrap_or_default())
    };
    for (index, what, expected) in [(0, "the byte order", BYTE_ORDER), (1, "the set of mandatory flags", MANDATORY)] {
        if number(index) != expected {
            return Err(FileProblem::Field { offset: 32 + 4 * index as u64, what, value: number(index).into() });
        }
    }
    let (optional, length) = (number(3), number(4));
    match optional.checked_sub(4).and_then(|most| most.checked_sub(length)) {
        Some(rest) => Ok((length, rest)),
        None => Err(FileProblem::Field { offset: 48, what: "the configuration's length", value: length.into() }),
    }
}

/// Checks what stands between the configuration and the stream of libxenguest.
pub(super) fn check_libxl_start(bytes: &[u8; LIBXL_START]) -> Result<(), FileProblem> {
    if *bytes == libxl_start() { Ok(()) } else { Err(FileProblem::NoLibxlMark) }
}

fn libxl_start() -> [u8; LIBXL_START] {
    let mut bytes = [0; LIBXL_START];
    let context = record(kind::LIBXC_CONTEXT, &[]);
    let all = LIBXL_MAGIC.to_be_bytes().into_iter().chain(LIBXL_VERSION.to_be_bytes()).chain([0; 4]).chain(context);
    bytes.iter_mut().zip(all).for_each(|(byte, value)| *byte = value);
    bytes
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
    bytes.extend(libxl_start());
    Ok(bytes)
}

/// What a file has behind the stream of libxenguest: QEMU's state, if the guest has a QEMU, and the end.
#[must_use]
pub fn tail(emulator: Option<&[u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(state) = emulator {
        bytes.extend(record(kind::EMULATOR_CONTEXT, &[&QEMU_STATE, state].concat()));
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
