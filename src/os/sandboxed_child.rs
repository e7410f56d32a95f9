//! Starts a program that enters the [sandbox](crate::sandbox), and waits for its answer: a few bytes on standard error.

use std::ffi::OsStr;
use std::fmt;
use std::io::{self, PipeReader, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::ExitStatus;
use std::thread;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::signal::Signal;

use super::cgroup::Cgroup;
pub use super::child_cgroup::Work;
use super::child_cgroup::{make, remove};
use super::launch::{Child, Launch};
use super::process;
use super::sandbox::die_with_parent;
use super::wait::{Interrupt, WaitLimit, WaitResult};

/// The maximum length of an answer.
pub const LONGEST_ANSWER: usize = 4096;

/// The name of every such child in lists of processes.
const NAME: &str = "dombuild";

/// How long one wait takes: progress is shown between two waits.
const LOOK: Duration = Duration::from_millis(200);

/// The interval between two looks for the end of a child that has closed its standard error.
const POLL: Duration = Duration::from_millis(1);

/// How long a killed child may take to disappear.
const KILL_TIMEOUT: Duration = Duration::from_secs(20);

/// Why there is no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// The deadline has passed.
    TimedOut,
    /// A signal came.
    Interrupted,
    /// The child has written more than [`LONGEST_ANSWER`] bytes.
    TooLong,
    /// The answer was taken before.
    Taken,
    /// A system call failed.
    Io(io::Error),
}

/// A child that ends with this value at the latest, and its cgroup. The child also dies with the thread that started it.
#[derive(Debug)]
pub struct SandboxedChild {
    child: Child,
    /// What it writes to standard error, until that is waited for.
    answer: Option<PipeReader>,
    cgroup: Option<Cgroup>,
}

impl SandboxedChild {
    /// Starts a program (a path, without a search in `PATH`) with these arguments, this standard input and output, and an empty
    /// environment. Its task needs `memory` bytes.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start<T: AsRef<OsStr>>(
        program: &Path,
        arguments: &[T],
        [input, output]: [OwnedFd; 2],
        work: Work,
        memory: u64,
    ) -> io::Result<Self> {
        let (answer, writer) = io::pipe()?;
        let mut launch = Launch::new(program, [input, output, writer.into()])?;
        launch.name(NAME)?;
        launch.join_group();
        launch.arguments(arguments)?;
        // This comes first: once this process is dead, another one may remove the cgroup.
        launch.step(die_with_parent());
        launch.step(process::go_to_root());
        let cgroup = make(work, memory);
        let entered = cgroup.as_ref().map_or(Ok(()), |cgroup| launch.cgroup(cgroup));
        match entered.and_then(|()| launch.start()) {
            Ok(child) => Ok(Self { child, answer: Some(answer), cgroup }),
            Err(error) => {
                cgroup.iter().for_each(remove);
                Err(error)
            }
        }
    }

    /// Its process ID.
    #[must_use]
    pub fn id(&self) -> i32 {
        self.child.pid()
    }

    /// Its answer and its exit status. `look` is called a few times a second.
    ///
    /// # Errors
    /// [`NoAnswer`]. The child may still run.
    pub fn wait(
        &mut self,
        end: Instant,
        interrupt: &Interrupt,
        mut look: impl FnMut(),
    ) -> Result<(Vec<u8>, ExitStatus), NoAnswer> {
        let mut pipe = self.answer.take().ok_or(NoAnswer::Taken)?;
        let mut answer = Vec::new();
        loop {
            let timeout = end.saturating_duration_since(Instant::now()).min(LOOK);
            let limit = WaitLimit { timeout, interrupt: interrupt.clone(), ..WaitLimit::default() };
            match limit.wait(&pipe, PollFlags::POLLIN).map_err(NoAnswer::Io)? {
                WaitResult::Interrupted => return Err(NoAnswer::Interrupted),
                WaitResult::TimedOut if Instant::now() >= end => return Err(NoAnswer::TimedOut),
                WaitResult::TimedOut => {
                    look();
                    continue;
                }
                WaitResult::Ready => {}
            }
            let mut part = [0; LONGEST_ANSWER];
            let count = pipe.read(&mut part).map_err(NoAnswer::Io)?;
            answer.extend_from_slice(part.get(..count).unwrap_or_default());
            if answer.len() > LONGEST_ANSWER {
                return Err(NoAnswer::TooLong);
            }
            if count == 0 {
                break;
            }
        }
        // The child closes the pipe only by its end.
        loop {
            match self.child.try_wait().map_err(NoAnswer::Io)? {
                Some(status) => return Ok((answer, status)),
                None if Instant::now() < end => thread::sleep(POLL),
                None => return Err(NoAnswer::TimedOut),
            }
        }
    }

    /// Kills it, unless it has ended, and waits for its end.
    fn end(&mut self) -> io::Result<()> {
        self.child.kill()?;
        let start = Instant::now();
        while self.child.try_wait()?.is_none() {
            if start.elapsed() >= KILL_TIMEOUT {
                return Err(io::ErrorKind::TimedOut.into());
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

impl Drop for SandboxedChild {
    fn drop(&mut self) {
        // After a wait, both calls have no effect.
        if let Err(error) = self.end() {
            log::error!("the child {} in a sandbox may still run: {error}", self.child.pid());
        }
        self.cgroup.iter().for_each(remove);
    }
}

/// How a child without an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended(pub ExitStatus);

impl Ended {
    /// Whether its limit of CPU time ended it.
    #[must_use]
    pub fn used_its_time(self) -> bool {
        self.0.signal() == Some(libc::SIGXCPU)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(signal) = self.0.signal() else { return write!(formatter, "{}", self.0) };
        let why = match Signal::try_from(signal) {
            Ok(Signal::SIGSYS) => " (seccomp)",
            Ok(Signal::SIGXFSZ) => " (too much came out)",
            Ok(Signal::SIGBUS) => " (memory)",
            Ok(Signal::SIGKILL) => " (by another process, or memory was too short)",
            _ => "",
        };
        write!(formatter, "killed by signal {signal}{why}")
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn child(script: &str) -> SandboxedChild {
        let null = || File::open("/dev/null").expect("it is there").into();
        let arguments = ["-c", script];
        SandboxedChild::start(Path::new("/bin/sh"), &arguments, [null(), null()], Work::Check, 1 << 20)
            .expect("there is a shell")
    }

    fn wait(child: &mut SandboxedChild, millis: u64) -> Result<(Vec<u8>, ExitStatus), NoAnswer> {
        child.wait(Instant::now() + Duration::from_millis(millis), &Interrupt::default(), || ())
    }

    #[test]
    fn an_answer_comes_with_the_status() {
        let mut asked = child("echo answer >&2; exit 3");
        let (answer, status) = wait(&mut asked, 60_000).expect("an answer");
        assert_eq!((answer.as_slice(), status.code()), (&b"answer\n"[..], Some(3)));
        assert!(matches!(wait(&mut asked, 60_000), Err(NoAnswer::Taken)));
        let (answer, status) = wait(&mut child("kill -XCPU $$"), 60_000).expect("its end");
        assert!(answer.is_empty() && Ended(status).used_its_time());
        let (_, status) = wait(&mut child("kill -SYS $$"), 60_000).expect("its end");
        assert_eq!(Ended(status).to_string(), "killed by signal 31 (seccomp)");
    }

    #[test]
    fn without_an_answer_the_child_ends() {
        let long = "i=0; while [ $i -lt 600 ]; do echo 123456789 >&2; i=$((i+1)); done; read line";
        assert!(matches!(wait(&mut child(long), 60_000), Err(NoAnswer::TooLong)));
        let mut silent = child("while :; do :; done");
        assert!(matches!(wait(&mut silent, 50), Err(NoAnswer::TimedOut)));
        let id = silent.id();
        drop(silent);
        assert!(super::super::procfs::start_time(id).is_none(), "a drop ends it");
    }
}
