//! The kernel of a PVH or PV guest, which comes from the guest's owner.
//!
//! A child without privileges unpacks it and writes it anew as a plain ELF file (module `plain_elf`). That file is sealed and
//! checked again; libxenguest sees no other. The child can be started early and waited for late. It dies with the
//! thread that started it. A [`cache`] holds the results of earlier kernels.

#[cfg(test)]
mod agreement;
pub mod cache;
pub mod container;
mod elf;
mod elf_notes;
mod fields;
#[cfg(test)]
#[path = "../../tests/data/generated_kernels.rs"]
mod generated_kernels;
#[cfg(test)]
#[path = "../../tests/data/kernels.rs"]
mod kernels;
#[cfg(test)]
#[path = "../../tests/data/odd_kernels.rs"]
mod odd_kernels;
pub mod placement;
mod plain_elf;
pub mod unpacker;

use std::fs::File;
use std::io::{self, Seek};
use std::os::unix::fs::FileExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{self, ExitStatus};
use std::time::{Duration, Instant};

use ::elf::abi::{ELFMAGIC, EM_386};

pub use cache::KERNELS_DIRECTORY;
pub use container::Packing;
pub use placement::check_placement;
pub use unpacker::{unpack_main, unpack_words};

use super::file::open;
use super::room::Room;
use crate::memory::{Bytes, Kind, Plan};
use crate::os::Untrusted;
use crate::os::sandboxed_child::{Ended, LONGEST_ANSWER, NoAnswer, SandboxedChild, Work};
use crate::os::sealed::{MemoryFile, Sealed};
use crate::os::wait::Interrupt;
use crate::payload::error::FileError;
use cache::Cache;
use elf::{Program, Ram};
use unpacker::{Answer, Task};

/// The maximum size of a kernel's file and of its unpacked form; less if the host sets a limit.
pub const LARGEST_KERNEL: Bytes = Bytes(512 << 20);

/// The time limit of the child.
const PATIENCE: Duration = Duration::from_secs(180);

/// The program that unpacks a kernel.
///
/// It must begin with [`unpack_words`] and [`unpack_main`], as dombuild does: it starts as root, and enters its sandbox
/// before it reads the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unpacker(PathBuf);

impl Unpacker {
    /// The program at this path.
    #[must_use]
    pub fn new(program: PathBuf) -> Self {
        Self(program)
    }

    /// The running program, even if its file was replaced or removed.
    #[must_use]
    pub fn this_program() -> Self {
        Self(PathBuf::from("/proc/self/exe"))
    }
}

const KIND: &str = "kernel";

/// Whether the cache keeps an unpacked kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// The cache keeps it.
    Yes,
    /// The host stays unchanged.
    No,
}

/// A kernel that a child unpacks. A drop ends the child.
#[derive(Debug)]
pub struct Unpacking {
    path: PathBuf,
    state: State,
}

#[derive(Debug)]
enum State {
    /// The cache has the result.
    Known(Sealed),
    /// A child unpacks the kernel. If the result goes to the cache, the child's input is an immutable copy.
    Unknown {
        task: Task,
        allowance: Allowance,
        child: SandboxedChild,
        memory: MemoryFile,
        end: Instant,
        packed: Option<File>,
    },
}

/// The maximum unpacked size of a kernel, and the reason for it.
#[derive(Debug)]
struct Allowance {
    /// The limit on a host with enough memory.
    most: Bytes,
    /// The memory of dom0 when the child was started.
    room: Room,
    /// Whether there is anything to unpack.
    is_packed: bool,
}

impl Allowance {
    /// The error for a kernel with this unpacked size.
    fn exceeded(&self, path: &Path, task: Task, bytes: u64, reason: &str) -> FileError {
        if task.most < self.most && bytes <= self.most.0 {
            return self.room.shortage(KIND, path, unpacker::required(task.file, self.is_packed, bytes));
        }
        let reason = format!("{reason}; more than {} are not allowed", self.most.0);
        FileError::Unusable { what: KIND, path: path.to_owned(), reason }
    }
}

impl Unpacking {
    /// Starts to unpack a kernel that has at most `most` bytes, packed and unpacked, and for which dom0 has the memory.
    /// Needs no open Xen handle; the child would not get it.
    ///
    /// # Errors
    /// [`FileError::Unusable`] for a file that cannot be a kernel by its size; [`FileError::NotEnoughDom0Memory`];
    /// [`FileError::Unpacker`] if the child cannot be started.
    pub fn start(unpacker: &Unpacker, path: &Path, most: Bytes, keep: Keep) -> Result<Self, FileError> {
        let most = most.min(LARGEST_KERNEL);
        let (mut file, size) = open(KIND, path, most.0)?;
        let failed = FileError::Unpacker;
        let is_packed = is_packed(&file);
        // Under a smaller limit the child may give another result.
        let may_be_known = most == LARGEST_KERNEL && is_packed;
        if may_be_known && let Some(sealed) = Cache::of_host().find(&file, keep) {
            log::debug!("{KIND} {}, {size} bytes: was unpacked before", path.display());
            return Ok(Self { path: path.to_owned(), state: State::Known(sealed) });
        }
        let mut room = Room::now()?;
        let least = unpacker::required(size, is_packed, 1);
        room.check(KIND, path, least)?;
        let mut packed = None;
        if may_be_known && keep == Keep::Yes && Cache::takes(size) && least.saturating_add(size) <= room.usable().0 {
            match copied(&file, size) {
                Ok((copy, sealed)) => (file, packed) = (copy, Some(sealed)),
                Err(error) => {
                    log::info!("{KIND} {} will not be kept: {error}", path.display());
                    file.rewind().map_err(failed)?;
                }
            }
            room = Room::now()?;
            room.check(KIND, path, least)?;
        }
        let fits = unpacker::most_within(room.usable(), size, is_packed);
        let parent = i32::try_from(process::id()).unwrap_or(0);
        let task = Task { file: size, most: most.min(fits), parent };
        let memory = MemoryFile::new(c"kernel").map_err(failed)?;
        let writer = memory.writer().map_err(failed)?;
        let needed = unpacker::required(size, is_packed, task.most.0);
        let descriptors = [file.into(), writer];
        let child =
            SandboxedChild::start(&unpacker.0, &task.words(), descriptors, Work::Unpack, needed).map_err(failed)?;
        let (id, most_bytes) = (child.id(), task.most.0);
        log::debug!("{KIND} {}, {size} bytes: process {id} unpacks it, to at most {most_bytes} bytes", path.display());
        let (allowance, end) = (Allowance { most, room, is_packed }, Instant::now() + PATIENCE);
        let state = State::Unknown { task, allowance, child, memory, end, packed };
        Ok(Self { path: path.to_owned(), state })
    }

    /// Waits for the child and checks its output for the guest of this plan.
    ///
    /// # Errors
    /// [`FileError::Unusable`] with the fault of the kernel; [`FileError::NotEnoughDom0Memory`] if the unpacked kernel exceeds
    /// dom0's memory; [`FileError::Unconfined`] if the host cannot confine the child.
    pub fn finish(self, plan: &Plan) -> Result<Sealed, FileError> {
        let path = self.path;
        let bad = |reason: String| FileError::Unusable { what: KIND, path: path.clone(), reason };
        let check = |sealed: &Sealed| plain_elf::check(sealed, plan.request.kind, ram_of(plan)).map_err(bad);
        let (task, allowance, mut child, memory, end, packed) = match self.state {
            State::Known(sealed) => return check(&sealed).map(|()| sealed),
            State::Unknown { task, allowance, child, memory, end, packed } => {
                (task, allowance, child, memory, end, packed)
            }
        };
        let (line, status) = child.wait(end, &Interrupt::default(), || ()).map_err(|none| bad(no_answer(none)))?;
        let (packing, unpacked, written) = match serde_json::from_slice(&line) {
            Ok(Answer::Unpacked { packing, unpacked, written, missing }) if status.success() => {
                for wall in missing {
                    log::info!("the child that unpacks kernels: {}", shown(&wall));
                }
                (packing, unpacked, written)
            }
            Ok(Answer::Refused(reason)) => return Err(bad(shown(&reason))),
            Ok(Answer::TooLarge { bytes, reason }) => {
                return Err(allowance.exceeded(&path, task, bytes, &shown(&reason)));
            }
            Ok(Answer::Unsafe(reason)) => {
                return Err(FileError::Unconfined(shown(&reason)));
            }
            _ => return Err(bad(ended(status))),
        };
        let sealed = memory.seal(plain_elf::largest(task.most).0);
        let sealed = sealed.map_err(|error| bad(format!("was not unpacked into usable memory: {error}")))?;
        if sealed.len() as u64 != written {
            return Err(bad(format!("was unpacked to {} bytes, not to the {written} that it reported", sealed.len())));
        }
        check(&sealed)?;
        log::debug!(
            "{KIND} {}: packed with {packing}, ELF file of {unpacked} bytes, {written} to load",
            path.display()
        );
        if let Some(packed) = packed {
            Cache::of_host().keep(&packed, &sealed);
        }
        Ok(sealed)
    }
}

/// Checks that libxenguest can load a file in place of hvmloader: a 32-bit program, or one with a PVH entry point.
///
/// # Errors
/// A description of the fault.
pub(crate) fn check_firmware(file: &[u8], plan: &Plan) -> Result<(), String> {
    Program::parse(file)?.check(Kind::Hvm, ram_of(plan))
}

/// Whether a kernel that [`Unpacking::finish`] has checked is a 32-bit one, which not every Xen runs as PV.
#[must_use]
pub fn is_32_bit(kernel: &[u8]) -> bool {
    Program::parse(kernel).is_ok_and(|program| program.machine == EM_386)
}

/// An immutable copy of a packed kernel, read from its start, for the child and for the cache.
fn copied(file: &File, size: u64) -> io::Result<(File, File)> {
    let memory = MemoryFile::new(c"packed kernel")?;
    memory.fill(file, size)?;
    let mut copy = File::from(memory.writer()?);
    copy.rewind()?;
    Ok((copy, memory.end_writing()?.into()))
}

/// Whether the file needs unpacking; an ELF file does not.
fn is_packed(file: &File) -> bool {
    let mut magic = [0; ELFMAGIC.len()];
    file.read_exact_at(&mut magic, 0).is_ok() && magic != ELFMAGIC
}

/// The memory of the guest.
fn ram_of(plan: &Plan) -> Ram {
    let layout = &plan.layout;
    match plan.request.kind {
        // More memory after the hole does not move the hole.
        Kind::Hvm | Kind::Pvh if !layout.highmem_end.is_zero() => {
            Ram { end: layout.lowmem_end, most: Some(layout.lowmem_end) }
        }
        Kind::Hvm | Kind::Pvh => Ram { end: layout.lowmem_end, most: Some(layout.mmio_start) },
        // It has no addresses but those in its own tables.
        Kind::Pv => Ram { end: plan.memory.build_start.to_bytes().unwrap_or(Bytes(u64::MAX)), most: None },
    }
}

/// Why the child has no answer.
fn no_answer(none: NoAnswer) -> String {
    match none {
        NoAnswer::TimedOut => format!("took longer than {} s to unpack", PATIENCE.as_secs()),
        NoAnswer::TooLong => format!("made the child that unpacks it say more than {LONGEST_ANSWER} bytes"),
        NoAnswer::Interrupted => "was not unpacked: a signal came".to_owned(),
        NoAnswer::Taken => "was unpacked before".to_owned(),
        NoAnswer::Io(error) => format!("cannot be unpacked: {error}"),
    }
}

/// The cause of death of a child that gave no answer.
fn ended(status: ExitStatus) -> String {
    let ended = Ended(status);
    if ended.used_its_time() {
        return format!("took longer than {} s of CPU time to unpack", unpacker::CPU_SECONDS);
    }
    if status.signal().is_none() {
        return format!("made the child that unpacks it end without an answer ({ended})");
    }
    format!("cannot be unpacked: the unpacking child was {ended}")
}

/// The child's text, which the kernel's owner may have chosen.
fn shown(text: &str) -> String {
    const LONGEST: usize = 400;
    Untrusted::from(text).shortened(LONGEST).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::Kib;

    #[test]
    fn dom0_or_the_limit_is_what_stops_a_kernel() {
        // A dom0 of 1 GiB.
        let room = Room::of(Kib(1 << 20), Kib(800 << 10));
        let allowance = Allowance { most: LARGEST_KERNEL, room, is_packed: true };
        let file = 512 << 10;
        let task = Task { file, most: unpacker::most_within(room.usable(), file, true), parent: 1 };
        let path = Path::new("/k");
        let error = allowance.exceeded(path, task, 500 << 20, "unpacks to it");
        let FileError::NotEnoughDom0Memory { what: KIND, required, available, reserve, .. } = error else {
            panic!("{error}")
        };
        assert_eq!((available, reserve), (Kib(800 << 10), Kib(128 << 10)));
        assert!(required > Kib(1000 << 10) && required < Kib(1030 << 10), "{required:?}");
        for bytes in [LARGEST_KERNEL.0 + 1, u64::MAX] {
            let error = allowance.exceeded(path, task, bytes, "unpacks to it").to_string();
            assert!(error.contains("unpacks to it; more than 536870912 are not allowed"), "{error}");
        }
        let roomy = Task { most: LARGEST_KERNEL, ..task };
        assert!(matches!(allowance.exceeded(path, roomy, 1, ""), FileError::Unusable { .. }));
    }
}
