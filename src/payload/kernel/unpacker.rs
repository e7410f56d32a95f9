//! The child that unpacks kernels: this program, started again under an internal verb, in the sandbox of
//! [`sandbox::enter_sandbox`].
//!
//! Its standard input is the kernel's file, its standard output the memory for the result, and its standard error gets
//! one line of JSON. The child trusts its parent; the parent does not trust the child.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::panic;

use nix::errno::Errno;
use nix::unistd::{self, Pid};
use serde::{Deserialize, Serialize};

use super::container::{self, Packing, Refusal};
use super::elf::{self, Program};
use super::plain_elf::{self, Plain};
use crate::memory::Bytes;
use crate::os::entry::{FAILURE, SUCCESS};
use crate::os::sandbox::{self, Limits};

/// The first word of the child's command line.
pub(super) const VERB: &str = "unpack-kernel";

/// The CPU time limit for a kernel. Debian's kernels take 1 to 2 seconds.
pub(super) const CPU_SECONDS: u64 = 60;

/// The address space of the program itself, plus the maximum that XZ needs.
const OWN_ADDRESSES: u64 = (64 << 20) + container::LZMA_MEMORY;

/// The memory that the program itself takes, with page tables.
const OWN_MEMORY: u64 = 16 << 20;

/// The line that the child writes.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Answer {
    /// The kernel is unpacked.
    Unpacked {
        /// The compression of the kernel.
        packing: Packing,
        /// The length of its ELF file.
        unpacked: u64,
        /// The length of the output.
        written: u64,
        /// The sandbox parts that the host lacks.
        missing: Vec<String>,
    },
    /// The kernel is unusable; with the reason.
    Refused(String),
    /// The output would exceed its limit.
    TooLarge {
        /// The size of the output.
        bytes: u64,
        /// The message.
        reason: String,
    },
    /// The child read nothing, because the host lacks a required part of the sandbox.
    Unsafe(String),
}

/// The child's task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Task {
    /// The length of the file.
    pub(super) file: u64,
    /// The maximum length of the output.
    pub(super) most: Bytes,
    /// The parent process; the child dies with it.
    pub(super) parent: i32,
}

impl Task {
    /// As arguments of a command line.
    pub(super) fn words(self) -> [String; 4] {
        [VERB.to_owned(), self.file.to_string(), self.most.0.to_string(), self.parent.to_string()]
    }

    fn of(words: &[OsString]) -> Option<Self> {
        let [file, most, parent] = words else { return None };
        let number = |word: &OsString| word.to_str()?.parse().ok();
        let parent = parent.to_str()?.parse().ok()?;
        Some(Self { file: number(file)?, most: Bytes(number(most)?), parent })
    }
}

/// The minimum memory to unpack a kernel: for the child, and for its output.
///
/// Both hold the output of a packed kernel; XZ and LZMA hold as much again until it is written. The input is dropped
/// after unpacking. The output of a kernel that is not packed is about as large as its file.
pub(super) fn required(file: u64, is_packed: bool, unpacked: u64) -> u64 {
    let copies = if is_packed { 2 } else { 1 };
    let written = plain_elf::largest(Bytes(unpacked.saturating_mul(copies)));
    OWN_MEMORY.saturating_add(file).saturating_add(written.0)
}

/// The maximum output of a kernel for which this much memory may be taken; the inverse of [`required`].
pub(super) fn most_within(usable: Bytes, file: u64, is_packed: bool) -> Bytes {
    let copies = if is_packed { 2 } else { 1 };
    Bytes(usable.0.saturating_sub(required(file, is_packed, 0)) / copies)
}

/// The arguments after the verb, if this process is such a child.
#[must_use]
pub fn unpack_words(arguments: &[OsString]) -> Option<&[OsString]> {
    match arguments {
        [_, verb, words @ ..] if verb == VERB => Some(words),
        _ => None,
    }
}

/// Runs the child.
#[must_use]
pub fn unpack_main(words: &[OsString]) -> u8 {
    let Some(task) = Task::of(words) else {
        return tell(&Answer::Unsafe("this verb is for dombuild itself, which starts it where it needs it".to_owned()));
    };
    let limits = Limits {
        address_space: OWN_ADDRESSES.saturating_add(task.file).saturating_add(task.most.0),
        file_size: plain_elf::largest(task.most).0,
        cpu_seconds: CPU_SECONDS,
    };
    let missing = match sandbox::enter_sandbox(&limits, Pid::from_raw(task.parent)) {
        Ok(missing) => missing,
        Err(reason) => return tell(&Answer::Unsafe(reason)),
    };
    // The answer reports the panic; the default message would search for the program's file.
    panic::set_hook(Box::new(|_| {}));
    let outcome = panic::catch_unwind(|| run(task));
    tell(&match outcome {
        Ok(Ok((packing, unpacked, written))) => Answer::Unpacked { packing, unpacked, written, missing },
        Ok(Err(Refusal::Bad(reason))) => Answer::Refused(reason),
        Ok(Err(Refusal::TooLarge { bytes, reason })) => Answer::TooLarge { bytes, reason },
        Err(_) => Answer::Refused("has something in it that dombuild cannot cope with (it panicked)".to_owned()),
    })
}

/// The kernel's compression, the length of its ELF file, and the length of the output.
fn run(task: Task) -> Result<(Packing, u64, u64), Refusal> {
    let mut input = Input::of(task.file)?;
    input.read_to(HEAD)?;
    let (unpacked, packing, mut program) = match plain_program(&mut input)? {
        Some(program) => (input.content, Packing::None, program),
        None => {
            input.read_to(input.length)?;
            let (unpacked, packing) = container::unpack(input.content, task.most)?;
            let program = Program::parse(&unpacked)?;
            (unpacked, packing, program)
        }
    };
    let length = if packing == Packing::None { task.file } else { unpacked.len() as u64 };
    program.leave_out_zeros(&unpacked);
    let plain = Plain::of(&program);
    if plain.size as u64 > plain_elf::largest(task.most).0 {
        let (bytes, reason) = (plain.size as u64, format!("has {} bytes to load", plain.size));
        return Err(Refusal::TooLarge { bytes, reason });
    }
    let failed = |error: Errno| format!("cannot be put into memory: {error}");
    write(&plain.head).map_err(failed)?;
    let mut at = plain.head.len();
    for (start, piece) in plain.pieces {
        write(&vec![0; start.saturating_sub(at)]).map_err(failed)?;
        let piece = unpacked.get(piece).unwrap_or_default();
        write(piece).map_err(failed)?;
        at = start.saturating_add(piece.len());
    }
    write(&vec![0; plain.size.saturating_sub(at)]).map_err(failed)?;
    Ok((packing, length, plain.size as u64))
}

/// The program in an ELF file that is not packed, read as far as it goes: behind it, a kernel has as much again of symbols.
/// `None`: the whole file is needed.
fn plain_program(input: &mut Input) -> Result<Option<Program>, String> {
    if !input.content.starts_with(container::ELF) || container::bzimage_payload(&input.content) != Ok(None) {
        return Ok(None);
    }
    let Some(end) = elf::end_of_program(&input.content, input.length) else { return Ok(None) };
    input.read_to(end)?;
    // Without notes of Xen's in the program, those of the sections count, which stand at the end of the file.
    Ok(Program::parse_start(&input.content, input.length))
}

/// The bytes at the start of a file that have all program headers of a usual kernel.
const HEAD: usize = 1 << 16;

/// The kernel's file, read with only the system call `read`.
struct Input {
    length: usize,
    content: Vec<u8>,
}

impl Input {
    /// A file of this length, of which nothing is read yet.
    fn of(size: u64) -> Result<Self, String> {
        let length = usize::try_from(size).unwrap_or(usize::MAX);
        let mut content = Vec::new();
        content.try_reserve_exact(length).map_err(|_| format!("has {size} bytes, for which memory is too short"))?;
        Ok(Self { length, content })
    }

    /// Reads on, up to this offset or the end.
    fn read_to(&mut self, end: usize) -> Result<(), String> {
        let (mut filled, end) = (self.content.len(), end.min(self.length));
        if end > filled {
            self.content.resize(end, 0);
        }
        while let Some(room) = self.content.get_mut(filled..end).filter(|room| !room.is_empty()) {
            match unistd::read(io::stdin().as_fd(), room) {
                Ok(0) => return Err(format!("ended after {filled} bytes, and had {} before", self.length)),
                Ok(count) => filled += count,
                Err(Errno::EINTR) => {}
                Err(error) => return Err(format!("cannot be read: {error}")),
            }
        }
        Ok(())
    }
}

fn write(bytes: &[u8]) -> nix::Result<()> {
    write_all(io::stdout().as_fd(), bytes)
}

fn write_all(to: impl AsFd, bytes: &[u8]) -> nix::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match unistd::write(to.as_fd(), rest) {
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn tell(answer: &Answer) -> u8 {
    let line = serde_json::to_string(answer).unwrap_or_default();
    match write_all(io::stderr().as_fd(), format!("{line}\n").as_bytes()) {
        Ok(()) if matches!(answer, Answer::Unpacked { .. }) => SUCCESS,
        _ => FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_much_may_come_out_as_fits() {
        const MIB: u64 = 1 << 20;
        for (usable, file, is_packed, most) in [
            (700 * MIB, MIB, true, 341 * MIB),
            (700 * MIB, 300 * MIB, false, 383 * MIB),
            (18 * MIB, MIB, true, 0),
            (0, u64::MAX, true, 0),
        ] {
            let found = most_within(Bytes(usable), file, is_packed);
            assert_eq!(found, Bytes(most));
            assert!(found.0 == 0 || required(file, is_packed, found.0) <= usable);
            assert!(required(file, is_packed, found.0 + 1) > usable);
        }
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        let task = Task { file: 1, most: Bytes(2), parent: 3 };
        let words = task.words().map(OsString::from);
        assert_eq!(words[0], VERB);
        assert_eq!(Task::of(&words[1..]), Some(task));
        assert_eq!(Task::of(&words[2..]), None);
    }
}
