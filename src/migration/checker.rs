//! The child that checks a guest's state: this program, started again under an internal verb, in the sandbox of
//! [`sandbox::enter_sandbox`].
//!
//! Its standard input is the state: a file from libxl's stream on, or a pipe or a socket from libxenguest's stream on. In the
//! second case it passes on to standard output what it has checked. Its standard error gets one line of JSON. The parent does
//! not trust it: what it says is checked again.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write, pipe};
use std::os::fd::{AsFd, OwnedFd};
use std::panic;
use std::path::PathBuf;
use std::process;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::{self, Pid, Whence};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::libxc_records::Bounds;
use super::libxc_stream::{self, CheckedStream};
use super::passage::{Passage, ReadError};
use super::stream::{self, State};
use crate::cancel::Cancel;
use crate::error::damage::Damage;
use crate::error::migration::{FileProblem, MigrationError};
use crate::error::{Error, Wait};
use crate::os::Untrusted;
use crate::os::entry::{FAILURE, SUCCESS};
use crate::os::sandbox::{self, Limits};
use crate::os::sandboxed_child::{Ended, NoAnswer, SandboxedChild, Work};

/// The first word of the child's command line.
const VERB: &str = "check-state";

/// The address space of the program itself, of the records that are held, and of buffers.
const OWN_ADDRESSES: u64 = 192 << 20;

/// The memory that the program takes, with the records that are held.
const OWN_MEMORY: u64 = 48 << 20;

/// The most characters of a text of the child.
const LONGEST_TEXT: usize = 400;

/// The bytes of a pipe to libxenguest: fewer changes between the two processes.
const PIPE_SIZE: i32 = 1 << 20;

/// What the child reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// A file, from libxl's stream to its end.
    File,
    /// libxenguest's stream, which is passed on.
    Stream,
}

/// The child's task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Task {
    source: Source,
    /// The place in the file or the stream, at which errors count.
    offset: u64,
    bounds: Bounds,
    cpu_seconds: u64,
    /// The parent process; the child dies with it.
    parent: i32,
}

impl Task {
    fn words(self) -> [String; 7] {
        let source = if self.source == Source::File { "file" } else { "stream" };
        let Bounds { last_frame, vcpus } = self.bounds;
        let numbers = [self.offset, last_frame, vcpus.into(), self.cpu_seconds].map(|number| number.to_string());
        let [offset, last_frame, vcpus, seconds] = numbers;
        [VERB.to_owned(), source.to_owned(), offset, last_frame, vcpus, seconds, self.parent.to_string()]
    }

    fn of(words: &[OsString]) -> Option<Self> {
        let [source, offset, last_frame, vcpus, seconds, parent] = words else { return None };
        let number = |word: &OsString| word.to_str()?.parse::<u64>().ok();
        let source = match source.to_str()? {
            "file" => Source::File,
            "stream" => Source::Stream,
            _ => return None,
        };
        Some(Self {
            source,
            offset: number(offset)?,
            bounds: Bounds::new(number(last_frame)?, u32::try_from(number(vcpus)?).ok()?),
            cpu_seconds: number(seconds)?,
            parent: parent.to_str()?.parse().ok()?,
        })
    }

    /// The bytes for what the child keeps of each frame: a bit, and a PV guest's list of frames.
    fn frames(self) -> u64 {
        2 * self.bounds.bitmap()
    }
}

/// The line that the child writes.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Answer<T> {
    /// The state is whole.
    Whole {
        /// What it has.
        found: T,
        /// The sandbox parts that the host lacks.
        missing: Vec<String>,
    },
    /// The state is damaged.
    Damaged(Damage),
    /// It could not be read or passed on.
    Failed(String),
    /// The child read nothing, because the host lacks a required part of the sandbox.
    Unsafe(String),
}

/// The program that checks a guest's state.
///
/// It must begin with [`check_words`] and [`check_main`], as dombuild does: it enters its sandbox before it reads the state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateChecker(PathBuf);

impl StateChecker {
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

    /// Starts to check the state in a file, from its position on, which is `offset`.
    pub(super) fn check_file(
        &self,
        file: &File,
        offset: u64,
        bounds: Bounds,
        timeout: Duration,
    ) -> Result<Checking, Error> {
        let input = file.try_clone().map_err(failed())?;
        let nowhere = File::open("/dev/null").map_err(failed())?;
        self.start(Source::File, [input.into(), nowhere.into()], offset, bounds, timeout)
    }

    /// Starts to check libxenguest's stream from a blocking pipe or socket, and to pass it on. Errors count bytes from `offset`,
    /// the place of its first byte. Returns the read end of a pipe, for libxenguest.
    ///
    /// The child reads up to the stream's END and not a byte further: what follows is for the caller, who keeps a duplicate of
    /// the descriptor, and reads there once [`Checking::wait`] has returned.
    ///
    /// The caller waits for libxenguest first, and then for the verdict, which decides: without it, the domain is to be
    /// destroyed, whatever libxenguest says. If the stream is damaged, the pipe ends early, and
    /// [`MigrationError::BadStream`] is the cause of libxenguest's error. If libxenguest ends early,
    /// [`MigrationError::NotChecked`] is a consequence of its error.
    ///
    /// # Errors
    /// If the child cannot be started.
    pub fn forward(
        &self,
        from: OwnedFd,
        offset: u64,
        bounds: Bounds,
        timeout: Duration,
    ) -> Result<(Checking, OwnedFd), Error> {
        let (reader, writer) = pipe().map_err(failed())?;
        if let Err(errno) = fcntl(writer.as_fd(), FcntlArg::F_SETPIPE_SZ(PIPE_SIZE)) {
            log::debug!("the pipe to libxenguest keeps its size: {errno}");
        }
        let checking = self.start(Source::Stream, [from, writer.into()], offset, bounds, timeout)?;
        Ok((checking, reader.into()))
    }

    fn start(
        &self,
        source: Source,
        descriptors: [OwnedFd; 2],
        offset: u64,
        bounds: Bounds,
        timeout: Duration,
    ) -> Result<Checking, Error> {
        let parent = i32::try_from(process::id()).unwrap_or(0);
        let task = Task { source, offset, bounds, cpu_seconds: timeout.as_secs().max(1), parent };
        let memory = OWN_MEMORY + task.frames();
        let child = SandboxedChild::start(&self.0, &task.words(), descriptors, Work::Check, memory).map_err(failed())?;
        log::debug!("process {} checks the guest's state", child.id());
        Ok(Checking { child, task, end: Instant::now() + timeout, timeout })
    }
}

fn failed() -> impl FnOnce(io::Error) -> Error {
    Error::io("start the child that checks the guest's state")
}

/// A child that checks a guest's state. A drop ends it. It also ends with the thread that has started it.
#[derive(Debug)]
pub struct Checking {
    child: SandboxedChild,
    task: Task,
    end: Instant,
    timeout: Duration,
}

impl Checking {
    /// Waits until libxenguest's stream is checked and passed on. `look` is called a few times a second.
    ///
    /// # Errors
    /// [`MigrationError::BadStream`]; [`MigrationError::NotChecked`]; [`Error::TimedOut`]; [`Error::Interrupted`].
    pub fn wait(self, cancel: &Cancel, look: impl FnMut()) -> Result<CheckedStream, Error> {
        let task = self.task;
        let found: CheckedStream = self.found(cancel, look)?;
        if is_plausible(&found, task.offset, task.bounds) { Ok(found) } else { Err(answers_wrongly()) }
    }

    /// Ends the check within this time, if it would end later.
    pub(super) fn hurry(&mut self, timeout: Duration) {
        self.end = self.end.min(Instant::now() + timeout);
    }

    /// Waits until a file of this length is checked.
    pub(super) fn wait_file(self, length: u64, cancel: &Cancel, look: impl FnMut()) -> Result<State, Error> {
        let task = self.task;
        let found: State = self.found(cancel, look)?;
        let State { start, libxc, emulator } = &found;
        let last = emulator.as_ref().map_or(libxc.end, |range| range.end);
        let is_state = emulator.as_ref().is_none_or(|range| {
            range.start < range.end
                && range.start.checked_sub(16).is_some_and(|head| head >= libxc.end)
                && range.end - range.start <= stream::LONGEST_EMULATOR
        });
        let fits = *start >= task.offset && last < length && is_state && is_plausible(libxc, *start, task.bounds);
        if fits { Ok(found) } else { Err(answers_wrongly()) }
    }

    /// The child's answer.
    fn found<T: DeserializeOwned>(mut self, cancel: &Cancel, look: impl FnMut()) -> Result<T, Error> {
        let (line, status) = match self.child.wait(self.end, cancel.interrupt(), look) {
            Ok(answer) => answer,
            Err(NoAnswer::Interrupted) => {
                cancel.check()?;
                return Err(not_checked("a signal came"));
            }
            Err(NoAnswer::TimedOut) => {
                return Err(Error::TimedOut {
                    what: "the guest's state is not checked".to_owned(),
                    after: self.timeout,
                    wait: Wait::Migration,
                });
            }
            Err(NoAnswer::TooLong | NoAnswer::Taken) => return Err(answers_wrongly()),
            Err(NoAnswer::Io(error)) => {
                return Err(Error::io("wait for the child that checks the guest's state")(error));
            }
        };
        match serde_json::from_slice(&line) {
            Ok(Answer::Whole { found, missing }) if status.success() => {
                for wall in missing {
                    log::info!("the child that checks a guest's state: {}", shown(&wall));
                }
                Ok(found)
            }
            Ok(Answer::Damaged(damage)) => {
                let short = |text: &Untrusted| text.raw_for_comparison().len() <= LONGEST_TEXT;
                let believable =
                    short(&damage.record) && damage.fault.text().is_none_or(short) && damage.offset >= self.task.offset;
                Err(if believable { MigrationError::BadStream(damage).into() } else { answers_wrongly() })
            }
            Ok(Answer::Failed(reason)) => Err(not_checked(&reason)),
            Ok(Answer::Unsafe(reason)) => {
                Err(not_checked(&format!("this host cannot confine the child that does it: {reason}")))
            }
            _ => Err(not_checked(&format!("the child that does it ended without an answer ({})", Ended(status)))),
        }
    }
}

/// Whether a stream that begins there can be as the child says.
fn is_plausible(found: &CheckedStream, start: u64, bounds: Bounds) -> bool {
    let length = found.end.checked_sub(start);
    length.is_some_and(|length| length >= libxc_stream::SHORTEST && length % 8 == 0)
        && found.pages.0 <= bounds.last_frame + 1
}

fn answers_wrongly() -> Error {
    not_checked("the child that does it answers wrongly")
}

fn not_checked(reason: &str) -> Error {
    MigrationError::NotChecked(Untrusted::from(reason).shortened(LONGEST_TEXT)).into()
}

fn shown(text: &str) -> Untrusted {
    Untrusted::from(text).shortened(LONGEST_TEXT)
}

/// The arguments after the verb, if this process is such a child.
#[must_use]
pub fn check_words(arguments: &[OsString]) -> Option<&[OsString]> {
    match arguments {
        [_, verb, words @ ..] if verb == VERB => Some(words),
        _ => None,
    }
}

/// Runs the child.
#[must_use]
pub fn check_main(words: &[OsString]) -> u8 {
    let Some(task) = Task::of(words) else {
        return tell::<()>(&Answer::Unsafe(
            "this verb is for dombuild itself, which starts it where it needs it".to_owned(),
        ));
    };
    let limits = Limits {
        address_space: OWN_ADDRESSES.saturating_add(task.frames()),
        file_size: 0,
        cpu_seconds: task.cpu_seconds,
    };
    let missing = match sandbox::enter_sandbox(&limits, Pid::from_raw(task.parent)) {
        Ok(missing) => missing,
        Err(reason) => return tell::<()>(&Answer::Unsafe(reason)),
    };
    // The answer reports the panic; the default message would search for the program's file.
    panic::set_hook(Box::new(|_| {}));
    let (input, output) = (Descriptor(io::stdin()), Descriptor(io::stdout()));
    match task.source {
        Source::File => answer(missing, || stream::check(input, task.offset, task.bounds)),
        Source::Stream => {
            answer(missing, || libxc_stream::check(&mut Passage::new(input, output, task.offset), task.bounds))
        }
    }
}

/// Checks, and tells the parent.
fn answer<T: Serialize>(missing: Vec<String>, check: impl FnOnce() -> Result<T, ReadError>) -> u8 {
    tell(&match panic::catch_unwind(panic::AssertUnwindSafe(check)) {
        Ok(Ok(found)) => Answer::Whole { found, missing },
        Ok(Err(ReadError::Problem(problem))) => match *problem {
            FileProblem::Damaged(damage) => Answer::Damaged(damage),
            other => Answer::Failed(other.to_string()),
        },
        Ok(Err(ReadError::Read(error))) => Answer::Failed(format!("it cannot be read: {error}")),
        Ok(Err(ReadError::Write(error))) => Answer::Failed(format!("it cannot be passed on to libxenguest: {error}")),
        Err(_) => Answer::Failed("it has something in it that dombuild cannot cope with (it panicked)".to_owned()),
    })
}

fn tell<T: Serialize>(answer: &Answer<T>) -> u8 {
    let line = serde_json::to_string(answer).unwrap_or_default();
    match Descriptor(io::stderr()).write_all(format!("{line}\n").as_bytes()) {
        Ok(()) if matches!(answer, Answer::Whole { .. }) => SUCCESS,
        _ => FAILURE,
    }
}

/// A descriptor, used with only the system calls `read`, `write` and `lseek`.
struct Descriptor<F>(F);

impl<F: AsFd> Read for Descriptor<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        unistd::read(self.0.as_fd(), buffer).map_err(Errno::into)
    }
}

impl<F: AsFd> Seek for Descriptor<F> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        let out_of_range = |_| io::Error::from(io::ErrorKind::InvalidInput);
        let (offset, whence) = match to {
            SeekFrom::Start(offset) => (i64::try_from(offset).map_err(out_of_range)?, Whence::SeekSet),
            SeekFrom::Current(step) => (step, Whence::SeekCur),
            SeekFrom::End(step) => (step, Whence::SeekEnd),
        };
        u64::try_from(unistd::lseek(self.0.as_fd(), offset, whence)?).map_err(out_of_range)
    }
}

impl<F: AsFd> Write for Descriptor<F> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        unistd::write(self.0.as_fd(), bytes).map_err(Errno::into)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        let bounds = Bounds::new(0x10_0000, 3);
        for source in [Source::File, Source::Stream] {
            let task = Task { source, offset: 77, bounds, cpu_seconds: 9, parent: 5 };
            let words = task.words().map(OsString::from);
            assert_eq!(check_words(&[&["dombuild".into()], &words[..]].concat()), Some(&words[1..]));
            assert_eq!(Task::of(&words[1..]), Some(task));
            assert_eq!(Task::of(&words[2..]), None);
        }
    }
}
