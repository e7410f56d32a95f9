//! What another host sends around the stream of libxenguest: the configuration before it, the state of QEMU behind it. The
//! format is that of a file ([`super::stream`]).

use std::fs::File;
use std::io::{Seek, Write};
use std::os::fd::OwnedFd;

use serde::Deserialize;

use super::configuration::SavedGuest;
use super::libxc_records::Bounds;
use super::outline::Outline;
use super::passage::ReadError;
use super::saved::{Saved, Source};
use super::stream::{self, Header};
use super::wire::{READY, Wire, WireReader};
use crate::error::Error;
use crate::error::migration::{FileProblem, MigrationError};
use crate::memory::{Kind, Pages};
use crate::os::sealed::MemoryFile;

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
/// [`MigrationError::BadIncoming`], and those of the connection.
pub fn receive(wire: Wire) -> Result<Saved, Error> {
    wire.write(READY, "the readiness for it")?;
    let mut reader = wire.reader("the configuration");
    let read = stream::read_header(&mut reader).and_then(|header| {
        let offset = stream::read_head(&mut reader, header.stream)?;
        Ok((header, offset))
    });
    let (Header { configuration, behind, .. }, offset) = read.map_err(|error| explain(&mut reader, error))?;
    drop(reader);
    // Another program's text there is none of this side's business.
    let more: More = serde_json::from_slice(&behind).unwrap_or_default();
    let bounds: Bounds = Outline::read(&configuration).map_err(MigrationError::BadIncoming)?.bounds();
    let mut guest = SavedGuest::read(&configuration).map_err(MigrationError::BadIncoming)?;
    let has_qemu = guest.request.kind == Kind::Hvm && more.qemu.unwrap_or(true);
    guest.request.device_model = has_qemu;
    let source = Source::Wire { wire, offset };
    Ok(Saved { configuration, bounds, guest, pages: more.pages.map(Pages), has_qemu, xen: more.xen, source })
}

/// What went wrong: the connection, or what came over it.
fn explain(reader: &mut WireReader<'_>, error: ReadError) -> Error {
    match error {
        ReadError::Problem(problem) => MigrationError::BadIncoming(*problem).into(),
        ReadError::Read(error) | ReadError::Write(error) => {
            reader.error.take().unwrap_or_else(|| Error::io("read from the other side")(error))
        }
    }
}

/// Reads what follows the stream of libxenguest, which ends at `offset`, and returns the state of QEMU, as a descriptor that QEMU
/// reads from its begin.
pub(super) fn read_tail(wire: &Wire, offset: u64) -> Result<Option<OwnedFd>, Error> {
    let mut reader = wire.reader("the state of QEMU");
    let state = stream::read_tail(&mut reader, offset).map_err(|error| explain(&mut reader, error))?;
    let copied = |bytes: Vec<u8>| {
        let memory = MemoryFile::new(c"qemu state")?;
        let mut file = File::from(memory.writer()?);
        file.write_all(&bytes)?;
        file.rewind()?;
        // A writable descriptor does not keep it from being sealed, but a mapping would.
        drop(file);
        memory.end_writing()
    };
    state.map(copied).transpose().map_err(Error::io("keep QEMU's state"))
}

/// The error where a guest's QEMU and its state do not fit together.
pub(super) fn check_qemu(has_state: bool, has_qemu: bool) -> Result<(), Error> {
    match (has_state, has_qemu) {
        (true, false) => Err(MigrationError::BadIncoming(FileProblem::QemuState).into()),
        (false, true) => Err(MigrationError::BadIncoming(FileProblem::Missing("state of QEMU".to_owned())).into()),
        _ => Ok(()),
    }
}
