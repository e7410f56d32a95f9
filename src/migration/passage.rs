//! Reads records in sequence, and passes on what was checked: from a file, a pipe or a socket, to a pipe or to nothing.
//!
//! Nothing is read ahead: behind the last record, the next byte of the source is the one behind it.

use std::io::{self, Read, Seek, SeekFrom, Sink, Write, sink};

use crate::error::damage::{Damage, Fault};
use crate::error::migration::FileProblem;

/// Why a stream cannot be read or passed on.
#[derive(Debug)]
pub enum ReadError {
    /// The error of a read.
    Read(io::Error),
    /// The error of a write.
    Write(io::Error),
    /// What is wrong with the file or the stream.
    Problem(Box<FileProblem>),
}

impl From<FileProblem> for ReadError {
    fn from(problem: FileProblem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

impl From<Damage> for ReadError {
    fn from(damage: Damage) -> Self {
        FileProblem::Damaged(damage).into()
    }
}

/// A source, a sink, and the place in the source.
#[derive(Debug)]
pub(super) struct Passage<R, W> {
    from: R,
    to: W,
    /// The bytes that were read or left out, and those before the start.
    pub(super) offset: u64,
    /// For a file: how the bytes that are not checked are skipped.
    skip: Option<Skip<R>>,
}

/// Moves the place in a file.
#[derive(Debug, Clone, Copy)]
struct Skip<R> {
    seek: fn(&mut R, SeekFrom) -> io::Result<u64>,
    /// The offset of the file's end.
    end: u64,
}

/// The type and the length of a record, at its place.
#[derive(Debug, Clone, Copy)]
pub(super) struct RecordHead {
    /// Where the record begins. Its body is 8 bytes further.
    pub(super) offset: u64,
    /// Its type.
    pub(super) kind: u32,
    /// The length of its body.
    pub(super) length: u64,
    /// The same as it was read.
    pub(super) bytes: [u8; 8],
}

impl RecordHead {
    /// The length of its body with the padding to whole 8 bytes.
    pub(super) fn padded(&self) -> u64 {
        self.length.next_multiple_of(8)
    }

    /// The damage of its length.
    pub(super) fn bad_length(&self, name: &str) -> Damage {
        self.damage(4, name, Fault::value("its length", self.length))
    }

    /// A damage at a place in it.
    pub(super) fn damage(&self, at: u64, name: &str, fault: Fault) -> Damage {
        Damage { offset: self.offset + at, record: name.into(), fault }
    }
}

impl<R: Read + Seek> Passage<R, Sink> {
    /// Begins at the place of a regular file, which is `offset`. What is passed on unread is skipped: the pages of a guest are
    /// most of a file, and reading them would take a fifth of a restore.
    ///
    /// # Errors
    /// If the file's end cannot be found.
    pub(super) fn over_file(mut from: R, offset: u64) -> Result<Self, ReadError> {
        let mut find = || {
            let start = from.stream_position()?;
            let end = from.seek(SeekFrom::End(0))?;
            from.seek(SeekFrom::Start(start))?;
            Ok(end.saturating_sub(start))
        };
        let end = offset.saturating_add(find().map_err(ReadError::Read)?);
        Ok(Self { from, to: sink(), offset, skip: Some(Skip { seek: R::seek, end }) })
    }
}

impl<R: Read, W: Write> Passage<R, W> {
    /// Begins at this place of the source.
    pub(super) fn new(from: R, to: W, offset: u64) -> Self {
        Self { from, to, offset, skip: None }
    }

    /// Fills the buffer, from a record of this name.
    pub(super) fn read(&mut self, buffer: &mut [u8], name: &str) -> Result<(), ReadError> {
        let mut rest = buffer;
        while !rest.is_empty() {
            match self.from.read(rest) {
                Ok(0) => {
                    return Err(Damage { offset: self.offset, record: name.into(), fault: Fault::CutOff }.into());
                }
                Ok(count) => {
                    self.offset += count as u64;
                    rest = rest.get_mut(count..).unwrap_or_default();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(ReadError::Read(error)),
            }
        }
        Ok(())
    }

    /// Reads a few bytes.
    pub(super) fn array<const N: usize>(&mut self, name: &str) -> Result<[u8; N], ReadError> {
        let mut buffer = [0; N];
        self.read(&mut buffer, name)?;
        Ok(buffer)
    }

    /// Reads the head of a record, whose name is not known yet.
    pub(super) fn head(&mut self, name: &str) -> Result<RecordHead, ReadError> {
        let offset = self.offset;
        let bytes: [u8; 8] = self.array(name)?;
        let [a, b, c, d, e, f, g, h] = bytes;
        let (kind, length) = (u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h]).into());
        Ok(RecordHead { offset, kind, length, bytes })
    }

    /// Reads the body of a record with its padding. The caller has bounded its length.
    pub(super) fn body(&mut self, head: &RecordHead, name: &str) -> Result<Vec<u8>, ReadError> {
        let mut body = vec![0; usize::try_from(head.padded()).map_err(|_| head.bad_length(name))?];
        self.read(&mut body, name)?;
        Ok(body)
    }

    /// Passes on what was checked.
    pub(super) fn pass(&mut self, bytes: &[u8]) -> Result<(), ReadError> {
        self.to.write_all(bytes).map_err(ReadError::Write)
    }

    /// Passes on the next `length` bytes in pieces, and looks at none of them.
    pub(super) fn pass_unread(&mut self, length: u64, buffer: &mut [u8], name: &str) -> Result<(), ReadError> {
        if let Some(Skip { seek, end }) = self.skip {
            let there = length.min(end.saturating_sub(self.offset));
            let step = i64::try_from(there).unwrap_or(i64::MAX);
            seek(&mut self.from, SeekFrom::Current(step)).map_err(ReadError::Read)?;
            self.offset += there;
            let cut_off = || Damage { offset: self.offset, record: name.into(), fault: Fault::CutOff };
            return if there == length { Ok(()) } else { Err(cut_off().into()) };
        }
        let mut left = length;
        while left > 0 {
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            let piece = buffer.get_mut(..count).unwrap_or_default();
            self.read(piece, name)?;
            self.to.write_all(piece).map_err(ReadError::Write)?;
            left -= count as u64;
        }
        Ok(())
    }

    /// Fails if the source has one more byte.
    pub(super) fn at_end(&mut self, name: &str) -> Result<(), ReadError> {
        let offset = self.offset;
        match self.read(&mut [0], name) {
            Ok(()) => Err(Damage { offset, record: name.into(), fault: Fault::Rest }.into()),
            Err(ReadError::Problem(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

/// Fails unless a field at this place has the value that it must have.
pub(super) fn expect(offset: u64, record: &str, what: &str, value: u64, expected: u64) -> Result<(), Damage> {
    if value == expected {
        return Ok(());
    }
    Err(Damage { offset, record: record.into(), fault: Fault::value(what, value) })
}
