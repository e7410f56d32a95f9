//! The child that unpacks kernels: this program, started again under a verb that no user has, behind the walls of
//! [`sandbox::confine`].
//!
//! Its standard input is the kernel's file, its standard output the memory for what comes out, and its standard error takes
//! one line of JSON. It trusts its parent, and its parent does not trust it.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::panic;
use std::process::ExitCode;

use nix::errno::Errno;
use nix::unistd;
use serde::{Deserialize, Serialize};

use super::container::{self, Packing};
use super::plain::{self, Plain};
use super::program::Program;
use crate::memory::Bytes;
use crate::xen::sandbox::{self, Limits};

/// The first word of the child's command line.
pub(super) const VERB: &str = "unpack-kernel";

/// The CPU time that a kernel may take. Debian's take 1 to 2 seconds.
pub(super) const CPU_SECONDS: u64 = 60;

/// What the program itself takes of its address space, and the most that XZ needs besides.
const OWN_MEMORY: u64 = 512 << 20;

/// The child's one line.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) enum Answer {
    /// It is done.
    Unpacked {
        /// How the kernel was packed.
        packing: Packing,
        /// The length of its ELF file.
        unpacked: u64,
        /// The length of what was written.
        written: u64,
        /// The walls that the host has not got.
        missing: Vec<String>,
    },
    /// The kernel is not usable, and why.
    Refused(String),
    /// Nothing was read, since a wall is missing that must be there.
    Unsafe(String),
}

/// What the child is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Task {
    /// The length of the file.
    pub(super) file: u64,
    /// The most that may come out.
    pub(super) most: Bytes,
}

impl Task {
    /// As words of a command line.
    pub(super) fn words(self) -> [String; 3] {
        [VERB.to_owned(), self.file.to_string(), self.most.0.to_string()]
    }

    fn of(words: &[OsString]) -> Option<Self> {
        match words {
            [file, most] => {
                Some(Self { file: file.to_str()?.parse().ok()?, most: Bytes(most.to_str()?.parse().ok()?) })
            }
            _ => None,
        }
    }
}

/// The words behind the verb, where this process is such a child.
#[must_use]
pub fn unpack_words(arguments: &[OsString]) -> Option<&[OsString]> {
    match arguments {
        [_, verb, words @ ..] if verb == VERB => Some(words),
        _ => None,
    }
}

/// Runs the child.
#[must_use]
pub fn unpack_main(words: &[OsString]) -> ExitCode {
    let Some(task) = Task::of(words) else {
        return tell(&Answer::Unsafe("this verb is for dombuild itself, which starts it where it needs it".to_owned()));
    };
    let limits = Limits {
        address_space: OWN_MEMORY.saturating_add(task.file).saturating_add(task.most.0.saturating_mul(2)),
        file_size: plain::largest(task.most).0,
        cpu_seconds: CPU_SECONDS,
    };
    let missing = match sandbox::confine(&limits) {
        Ok(missing) => missing,
        Err(reason) => return tell(&Answer::Unsafe(reason)),
    };
    // The answer tells of it; the usual text would look for the program's file.
    panic::set_hook(Box::new(|_| {}));
    let outcome = panic::catch_unwind(|| run(task));
    tell(&match outcome {
        Ok(Ok((packing, unpacked, written))) => Answer::Unpacked { packing, unpacked, written, missing },
        Ok(Err(reason)) => Answer::Refused(reason),
        Err(_) => Answer::Refused("has something in it that dombuild cannot cope with (it panicked)".to_owned()),
    })
}

/// How the kernel was packed, the length of its ELF file, and of what was written.
fn run(task: Task) -> Result<(Packing, u64, u64), String> {
    let file = read(task.file)?;
    let (unpacked, packing) = container::unpack(&file, task.most)?;
    let mut program = Program::parse(&unpacked)?;
    program.leave_out_zeros(&unpacked);
    let plain = Plain::of(&program, plain::largest(task.most))?;
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
    Ok((packing, unpacked.len() as u64, plain.size as u64))
}

/// The whole file, with nothing but `read`.
fn read(size: u64) -> Result<Vec<u8>, String> {
    let length = usize::try_from(size).unwrap_or(usize::MAX);
    let mut file = Vec::new();
    file.try_reserve_exact(length).map_err(|_| format!("has {size} bytes, for which memory is too short"))?;
    file.resize(length, 0);
    let mut filled = 0;
    while let Some(room) = file.get_mut(filled..).filter(|room| !room.is_empty()) {
        match unistd::read(io::stdin().as_fd(), room) {
            Ok(0) => return Err(format!("ended after {filled} bytes, and had {size} before")),
            Ok(count) => filled += count,
            Err(Errno::EINTR) => {}
            Err(error) => return Err(format!("cannot be read: {error}")),
        }
    }
    Ok(file)
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

fn tell(answer: &Answer) -> ExitCode {
    let line = serde_json::to_string(answer).unwrap_or_default();
    match write_all(io::stderr().as_fd(), format!("{line}\n").as_bytes()) {
        Ok(()) if matches!(answer, Answer::Unpacked { .. }) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}
