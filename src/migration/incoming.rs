//! What another host sends around the stream of libxenguest: the configuration before it, the state of QEMU behind it. The
//! format is that of a file ([`super::stream`]).

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;

use serde::Deserialize;
use serde_json::Value;

use super::configuration::SavedGuest;
use super::restore::{Saved, Source};
use super::stream::{self, LONGEST_CONFIGURATION, LONGEST_EMULATOR, kind};
use super::wire::{READY, Wire};
use crate::domain::userdata;
use crate::error::Error;
use crate::error::migration::{FileProblem, MigrationError};
use crate::memory::{Kind, Pages};
use crate::os::sealed::MemoryFile;

/// The most bytes behind the configuration.
const LONGEST_REST: u32 = 64 << 10;

/// What dombuild sends behind the configuration, and xl does not.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct More {
    /// The pages that the guest owns.
    pages: Option<u64>,
    /// Whether the state of QEMU follows.
    qemu: Option<bool>,
    /// The release of Xen that it comes from.
    xen: Option<(u32, u32)>,
}

/// Says that this side is ready, and reads the configuration of the guest and everything before the stream of libxenguest.
///
/// # Errors
/// [`MigrationError::BadStream`], and those of the connection.
pub fn receive(wire: Wire) -> Result<Saved, Error> {
    const WHAT: &str = "the configuration";
    wire.write(READY, "the readiness for it")?;
    let start: [u8; stream::START] = wire.array(WHAT)?;
    let (length, rest) = stream::read_start(&start).map_err(MigrationError::BadStream)?;
    if length > LONGEST_CONFIGURATION || rest > LONGEST_REST {
        let value = length.max(rest).into();
        return Err(bad(FileProblem::Field { offset: 44, what: "the configuration's length", value }));
    }
    let mut text = vec![0; usize::try_from(length).unwrap_or(0)];
    wire.read(&mut text, WHAT)?;
    let configuration: Value = userdata::parse(&text).map_err(|error| bad(FileProblem::NotJson(error.to_string())))?;
    let mut text = vec![0; usize::try_from(rest).unwrap_or(0)];
    wire.read(&mut text, WHAT)?;
    // Another program's text there is none of this side's business.
    let more: More = serde_json::from_slice(&text).unwrap_or_default();
    let libxl: [u8; stream::LIBXL_START] = wire.array("libxl's mark")?;
    stream::check_libxl_start(&libxl).map_err(MigrationError::BadStream)?;
    let mut guest = SavedGuest::read(&configuration).map_err(MigrationError::BadStream)?;
    let has_qemu = guest.request.kind == Kind::Hvm && more.qemu.unwrap_or(true);
    guest.request.device_model = has_qemu;
    Ok(Saved {
        configuration,
        guest,
        pages: more.pages.map(Pages),
        has_qemu,
        xen: more.xen,
        source: Source::Wire(wire),
    })
}

fn bad(problem: FileProblem) -> Error {
    MigrationError::BadStream(problem).into()
}

/// Reads what follows the stream of libxenguest, and returns the state of QEMU, as a descriptor that QEMU reads from its begin.
pub(super) fn read_tail(wire: &Wire) -> Result<Option<OwnedFd>, Error> {
    let mut emulator = None;
    loop {
        let [a, b, c, d, e, f, g, h] = wire.array("a record of libxl")?;
        let (kind, length) = (u32::from_le_bytes([a, b, c, d]), u64::from(u32::from_le_bytes([e, f, g, h])));
        match kind {
            kind::END if length == 0 => return Ok(emulator),
            kind::EMULATOR_XENSTORE_DATA if length <= 8 && emulator.is_none() => skip(wire, length)?,
            kind::EMULATOR_CONTEXT if (9..=LONGEST_EMULATOR).contains(&length) && emulator.is_none() => {
                let numbers: [u8; 8] = wire.array("the state of QEMU")?;
                if numbers != stream::QEMU_STATE {
                    let value = u64::from_le_bytes(numbers);
                    return Err(bad(FileProblem::Field { offset: 0, what: "the emulator behind the memory", value }));
                }
                emulator = Some(copy(wire, length - 8)?);
                skip(wire, length.next_multiple_of(8) - length)?;
            }
            _ => return Err(bad(FileProblem::Record { offset: 0, what: "a record of libxl behind the memory", kind })),
        }
    }
}

/// Reads at most 8 bytes that mean nothing.
fn skip(wire: &Wire, length: u64) -> Result<(), Error> {
    let mut bytes = [0; 8];
    let length = usize::try_from(length).unwrap_or(0);
    wire.read(bytes.get_mut(..length).unwrap_or_default(), "a record of libxl")
}

fn copy(wire: &Wire, mut length: u64) -> Result<OwnedFd, Error> {
    let failed = || Error::io("keep QEMU's state");
    let memory = MemoryFile::new(c"qemu state").map_err(failed())?;
    let mut file = File::from(memory.writer().map_err(failed())?);
    let mut buffer = vec![0; 64 << 10];
    while length > 0 {
        let now = usize::try_from(length).unwrap_or(usize::MAX).min(buffer.len());
        let piece = buffer.get_mut(..now).unwrap_or_default();
        wire.read(piece, "the state of QEMU")?;
        file.write_all(piece).map_err(failed())?;
        length -= now as u64;
    }
    file.rewind().map_err(failed())?;
    memory.end_writing().map_err(failed())
}
