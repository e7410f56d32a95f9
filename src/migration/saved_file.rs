//! A file with a saved guest: opened, and checked completely by a child without rights.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use super::checker::StateChecker;
use super::libxc_records::Container;
use super::outline::Outline;
use super::passage::ReadError;
use super::stream::{self, Header, State};
use crate::cancel::Cancel;
use crate::error::Error;
use crate::error::migration::{FileProblem, MigrationError};
use crate::memory::Kind;
use crate::observer::{Observer, Progress, Unit};

/// A file whose state was checked completely.
#[derive(Debug)]
pub struct CheckedFile {
    /// The file.
    pub file: File,
    /// Its length, in bytes.
    pub length: u64,
    /// The length of its configuration, in bytes.
    pub configuration_length: u64,
    /// Its configuration, as it stands there.
    pub configuration: Value,
    /// What the configuration says of the guest.
    pub outline: Outline,
    /// Its state.
    pub state: State,
}

/// How a file is checked.
#[derive(Debug)]
pub struct CheckJob<'a> {
    /// The program that checks the state.
    pub checker: &'a StateChecker,
    /// How long it may take.
    pub timeout: Duration,
    /// Ends it.
    pub cancel: &'a Cancel,
    /// Gets the progress.
    pub observer: &'a dyn Observer,
}

/// Whether a file begins as one of a saved guest does, even one that is cut off behind a few bytes.
#[must_use]
pub fn is_saved_guest(path: &Path) -> bool {
    let mut start = [0; stream::MARK.len()];
    open(path).is_ok_and(|(mut file, _)| file.read_exact(&mut start).is_ok() && start == *stream::MARK)
}

/// Opens a regular file, without a wait for a pipe.
fn open(path: &Path) -> Result<(File, u64), Error> {
    let unreadable = |reason: String| Error::BadFile { what: "saved guest", path: path.to_owned(), reason };
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path);
    let file = file.map_err(|error| unreadable(format!("cannot be opened: {error}")))?;
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok((file, metadata.len())),
        _ => Err(unreadable("is no regular file".to_owned())),
    }
}

impl CheckedFile {
    /// Opens a file, reads its configuration, and checks its state. Neither Xen nor the guest's other files are touched.
    /// `look` may refuse the configuration first.
    ///
    /// # Errors
    /// [`MigrationError::BadFile`]; [`Error::BadFile`] if it cannot be read; [`MigrationError::NotChecked`];
    /// [`Error::TimedOut`]; [`Error::Interrupted`].
    pub fn open<T>(
        path: &Path,
        job: &CheckJob<'_>,
        look: impl FnOnce(&Value) -> Result<T, FileProblem>,
    ) -> Result<(Self, T), Error> {
        let bad = |problem| Error::from(MigrationError::BadFile { path: path.to_owned(), problem });
        let unreadable = |error| Error::BadFile {
            what: "saved guest",
            path: path.to_owned(),
            reason: format!("cannot be read: {error}"),
        };
        let (file, length) = open(path)?;
        let Header { configuration, length: configuration_length, stream, .. } =
            stream::read_header(&file).map_err(|error| match error {
                ReadError::Problem(problem) => bad(*problem),
                ReadError::Read(error) | ReadError::Write(error) => unreadable(error),
            })?;
        let outline = Outline::read(&configuration).map_err(bad)?;
        let looked = look(&configuration).map_err(bad)?;
        let state = Self::check(&file, stream, length, &outline, job).map_err(|error| match error {
            Error::Migration(error) => match *error {
                MigrationError::BadStream(damage) => bad(FileProblem::Damaged(damage)),
                other => other.into(),
            },
            other => other,
        })?;
        if (state.libxc.container == Container::Pv) != (outline.kind == Kind::Pv) {
            return Err(bad(FileProblem::OtherKind { configured: outline.kind }));
        }
        if outline.kind != Kind::Hvm && state.emulator.is_some() {
            return Err(bad(FileProblem::QemuState));
        }
        Ok((Self { file, length, configuration_length, configuration, outline, state }, looked))
    }

    fn check(file: &File, start: u64, length: u64, outline: &Outline, job: &CheckJob<'_>) -> Result<State, Error> {
        let checking = job.checker.check_file(file, start, outline.bounds(), job.timeout)?;
        // Both descriptors have one position.
        let mut position = file;
        let state = checking.wait_file(length, job.cancel, || {
            let (done, total) = (position.stream_position().unwrap_or(0) >> 10, length >> 10);
            let text = format!("{} of {} MiB are checked", done >> 10, total >> 10);
            job.observer.progress(&Progress {
                what: "checking",
                done: done.min(total),
                total,
                unit: Unit::Kib,
                text: &text,
            });
        })?;
        // The places that others rely on: libxenguest's END, and QEMU's record.
        let (mut end, mut record) = ([1; 8], [0; 16]);
        file.read_exact_at(&mut end, state.libxc.end.saturating_sub(8)).map_err(Error::io("read the saved guest"))?;
        let is_record = match &state.emulator {
            Some(range) => {
                file.read_exact_at(&mut record, range.start - 16).map_err(Error::io("read the saved guest"))?;
                stream::is_emulator_record(record, range.end - range.start)
            }
            None => true,
        };
        if end == [0; 8] && is_record {
            return Ok(state);
        }
        Err(MigrationError::NotChecked("the child that does it answers wrongly, or the file has changed".into()).into())
    }
}

impl CheckedFile {
    /// The descriptor, at the start of libxenguest's stream.
    pub(super) fn at_stream(&self) -> std::io::Result<&File> {
        let mut file = &self.file;
        file.seek(SeekFrom::Start(self.state.start))?;
        Ok(file)
    }
}
