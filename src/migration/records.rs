//! Reads records of a file, each a type and a length before its body, as libxl and libxenguest write them.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use crate::error::migration::FileProblem;

/// Reads from a file, with an error that says what is cut off.
#[derive(Debug, Clone, Copy)]
pub(super) struct Source<'a> {
    file: &'a File,
    pub(super) length: u64,
}

/// Why a file cannot be read.
#[derive(Debug)]
pub enum ReadError {
    /// The error of the system.
    Io(io::Error),
    /// What is wrong with the file.
    Problem(FileProblem),
}

impl From<FileProblem> for ReadError {
    fn from(problem: FileProblem) -> Self {
        Self::Problem(problem)
    }
}

impl<'a> Source<'a> {
    pub(super) fn of(file: &'a File) -> Result<Self, ReadError> {
        Ok(Self { file, length: file.metadata().map_err(ReadError::Io)?.len() })
    }

    /// The bytes from `offset`.
    pub(super) fn bytes(&self, offset: u64, buffer: &mut [u8], what: &'static str) -> Result<(), ReadError> {
        match self.file.read_exact_at(buffer, offset) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.truncated(what)),
            read => read.map_err(ReadError::Io),
        }
    }

    pub(super) fn array<const N: usize>(&self, offset: u64, what: &'static str) -> Result<[u8; N], ReadError> {
        let mut buffer = [0; N];
        self.bytes(offset, &mut buffer, what)?;
        Ok(buffer)
    }

    pub(super) fn u32(&self, offset: u64, what: &'static str) -> Result<u32, ReadError> {
        self.array(offset, what).map(u32::from_le_bytes)
    }

    pub(super) fn u32_be(&self, offset: u64, what: &'static str) -> Result<u32, ReadError> {
        self.array(offset, what).map(u32::from_be_bytes)
    }

    pub(super) fn u64_be(&self, offset: u64, what: &'static str) -> Result<u64, ReadError> {
        self.array(offset, what).map(u64::from_be_bytes)
    }

    /// The type and the length of the record at `offset`, whose body is in the file.
    pub(super) fn record(&self, offset: u64, what: &'static str) -> Result<RecordHead, ReadError> {
        let head: [u8; 8] = self.array(offset, what)?;
        let [a, b, c, d, e, f, g, h] = head;
        let (kind, length) = (u32::from_le_bytes([a, b, c, d]), u64::from(u32::from_le_bytes([e, f, g, h])));
        let body = offset + 8;
        // Bodies are padded to whole 8 bytes, the last one too.
        let next = body + length.next_multiple_of(8);
        if next > self.length {
            return Err(self.truncated(what));
        }
        Ok(RecordHead { offset, kind, body: body..body + length, next })
    }

    fn truncated(&self, what: &'static str) -> ReadError {
        FileProblem::Truncated { length: self.length, what }.into()
    }
}

/// Where a record is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecordHead {
    pub(super) offset: u64,
    pub(super) kind: u32,
    pub(super) body: Range<u64>,
    pub(super) next: u64,
}

impl RecordHead {
    pub(super) fn length(&self) -> u64 {
        self.body.end - self.body.start
    }

    pub(super) fn misplaced(&self, what: &'static str) -> ReadError {
        FileProblem::Record { offset: self.offset, what, kind: self.kind }.into()
    }
}

/// Fails unless a field has the value that it must have.
pub(super) fn expect(offset: u64, what: &'static str, value: u64, expected: u64) -> Result<(), ReadError> {
    if value == expected { Ok(()) } else { Err(FileProblem::Field { offset, what, value }.into()) }
}
