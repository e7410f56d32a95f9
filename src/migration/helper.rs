//! The child that calls libxenguest to save or restore a domain: this program, started again under an internal verb.
//!
//! libxenguest asserts, allocates what a stream says, and has no deadline. So the child does nothing else: it has the
//! descriptor of the stream, a socket to its parent as standard output, and the confinement of a device model. The parent
//! decides, waits with a deadline, and kills it. The child dies with its parent.

mod child;
mod message;

use std::fs::File;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;

pub use self::child::{helper_main, helper_words, let_long_writes_fail};
pub use self::message::Answer;
use self::message::{LONGEST_MESSAGE, Message};
use crate::builder::pre::Ports;
use crate::cancel::Cancel;
use crate::error::migration::MigrationError;
use crate::error::{Error, Wait};
use crate::memory::{Gfn, Pages};
use crate::os::Untrusted;
use crate::os::launch::{Child, Launch};
use crate::os::parent_death::KillOnParentDeath;
use crate::os::process;
use crate::os::restrict::{Restriction, restrict_device_model};
use crate::os::sealed::MemoryFile;
use crate::os::system_call_filter::{Additional, SystemCallFilter};
use crate::os::wait::{WaitLimit, WaitResult};
use crate::xen::{DomId, RingPorts, Round, XenError};

/// The first word of the child's command line.
const VERB: &str = "migration-helper";

/// The most bytes that are shown of what the child wrote before it died.
const LONGEST_LAST_WORDS: usize = 400;

/// How long one look for a message takes: progress is shown between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// How long a killed child may take to disappear: the hypercall that it is in ends first.
const KILL_TIMEOUT: Duration = Duration::from_secs(20);

/// What the child does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Writes the domain's state to the stream; memory in rounds while the guest runs, if it is `live`.
    Save {
        /// The guest runs meanwhile.
        live: bool,
    },
    /// Reads the domain's state from the stream.
    Restore(RingPorts),
}

impl Task {
    const fn verb(self) -> &'static str {
        match self {
            Self::Save { .. } => "saves",
            Self::Restore(_) => "restores",
        }
    }
}

/// The C functions that the child calls.
const CALLS: [&str; 3] = ["xc_domain_save", "xc_domain_restore", "xc_interface_open"];

/// What the parent hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The child is ready to read memory, or its rest: the guest is to be suspended, and [`Helper::answer`] called.
    Suspend,
    /// A live save begins or has ended a round, and waits for an answer.
    Round(Round),
    /// QEMU is to record what it changes, or not any more; the child waits for an answer.
    LogDirty(bool),
    /// The task is done. After a restore, with the frames of the store ring and of the console ring.
    Done(Option<(Gfn, Gfn)>),
}

/// A running child. A drop kills it.
#[derive(Debug)]
pub struct Helper {
    task: Task,
    child: Child,
    socket: BufReader<UnixStream>,
    says: File,
    _parent_death: KillOnParentDeath,
    end: Instant,
    timeout: Duration,
}

impl Helper {
    /// Starts the child for a domain whose frames end before `frames`. Its task ends within `timeout`.
    ///
    /// # Errors
    /// If it cannot be started.
    pub fn start(task: Task, domid: DomId, stream: OwnedFd, frames: Pages, timeout: Duration) -> Result<Self, Error> {
        Self::launch(task, domid, stream, frames, timeout).map_err(Error::io("start the child that calls libxenguest"))
    }

    fn launch(task: Task, domid: DomId, stream: OwnedFd, frames: Pages, timeout: Duration) -> io::Result<Self> {
        let (parent_death, input, tie) = KillOnParentDeath::new()?;
        let (ours, theirs) = UnixStream::pair()?;
        let says = MemoryFile::new(c"migration helper")?;
        let program = Path::new("/proc/self/exe");
        let mut launch = Launch::new(program, [input.into(), theirs.into(), says.writer()?])?;
        launch.arguments(&words(task, domid, stream.as_raw_fd(), frames))?;
        launch.step(process::withhold_descriptors()?);
        launch.step(process::pass_descriptors(vec![stream]));
        launch.step(tie);
        let filter = SystemCallFilter::new(Additional { network: false, programs: false });
        launch.step(restrict_device_model(Restriction { network: false, filter: Some(filter) }));
        let child = launch.start()?;
        let says = File::from(says.writer()?);
        let socket = BufReader::with_capacity(LONGEST_MESSAGE, ours);
        Ok(Self { task, child, socket, says, _parent_death: parent_death, end: Instant::now() + timeout, timeout })
    }

    /// What becomes readable with the next event.
    #[must_use]
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.socket.get_ref().as_fd()
    }

    /// Waits for the next event, and calls `progress` meanwhile.
    ///
    /// # Errors
    /// The call that failed; [`MigrationError::ChildDied`]; [`Error::TimedOut`]; [`Error::Interrupted`].
    pub fn wait(&mut self, cancel: &Cancel, mut progress: impl FnMut()) -> Result<Event, Error> {
        let limit = WaitLimit { timeout: LOOK, interrupt: cancel.interrupt().clone(), ..WaitLimit::default() };
        loop {
            cancel.check()?;
            if Instant::now() >= self.end {
                return Err(Error::TimedOut {
                    what: format!("the child that {} the guest did not end", self.task.verb()),
                    after: self.timeout,
                    wait: Wait::Migration,
                });
            }
            let waited = limit.wait(self.socket.get_ref(), PollFlags::POLLIN);
            if waited.map_err(Error::io("wait for the child that calls libxenguest"))? == WaitResult::Ready {
                return self.event();
            }
            progress();
        }
    }

    /// The message that is there, or the child's end.
    fn event(&mut self) -> Result<Event, Error> {
        let mut line = Vec::new();
        let most = u64::try_from(LONGEST_MESSAGE).unwrap_or(u64::MAX);
        // A message is written at once, and the child's end closes the socket.
        let read = self.socket.by_ref().take(most).read_until(b'\n', &mut line);
        match read.ok().and_then(|_| serde_json::from_slice(&line).ok()) {
            Some(Message::Suspend) => Ok(Event::Suspend),
            Some(Message::Round { iteration, written, dirty }) => {
                Ok(Event::Round(Round { iteration, written: Pages(written), dirty: dirty.map(Pages) }))
            }
            Some(Message::LogDirty(on)) => Ok(Event::LogDirty(on)),
            Some(Message::Done { rings }) => Ok(Event::Done(rings.map(|(store, console)| (Gfn(store), Gfn(console))))),
            Some(Message::Failed { call, arguments, errno, detail }) => {
                let known = CALLS.into_iter().find(|known| *known == call);
                Err(XenError { call: known.unwrap_or(CALLS[0]), arguments, errno: errno.map(Errno::from_raw), detail }
                    .into())
            }
            None => Err(self.died()),
        }
    }

    fn died(&mut self) -> Error {
        let status = match self.reap() {
            Ok(status) => status,
            Err(error) => return error,
        };
        let mut text = vec![0; LONGEST_LAST_WORDS];
        let length = self.says.read_at(&mut text, 0).unwrap_or(0);
        text.truncate(length);
        let text = String::from_utf8_lossy(&text);
        let says = text.lines().rev().find(|line| !line.trim().is_empty()).map(Untrusted::from);
        MigrationError::ChildDied { task: self.task.verb(), status, says }.into()
    }

    /// Answers the question of the last event.
    ///
    /// # Errors
    /// If the child has ended.
    pub fn answer(&mut self, answer: Answer) -> Result<(), Error> {
        self.socket.get_ref().write_all(&[answer.byte()]).map_err(|_| self.died())
    }

    /// Kills the child, unless it has ended, and waits for its end.
    fn reap(&mut self) -> Result<String, Error> {
        let failed = |source| Error::io("end the child that calls libxenguest")(source);
        let start = Instant::now();
        let mut killed = false;
        loop {
            if let Some(status) = self.child.try_wait().map_err(failed)? {
                return Ok(status.to_string());
            }
            if !killed && start.elapsed() > LOOK {
                self.child.kill().map_err(failed)?;
                killed = true;
            }
            if start.elapsed() >= KILL_TIMEOUT {
                let text = format!("it has not ended {} s after SIGKILL", KILL_TIMEOUT.as_secs());
                return Err(failed(io::Error::other(text)));
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Helper {
    fn drop(&mut self) {
        let ended = self.child.kill().map_err(Error::io("kill the child that calls libxenguest"));
        if let Err(error) = ended.and_then(|()| self.reap()) {
            log::error!("{error}");
        }
    }
}

/// The ports of a build as the child takes them.
impl From<Ports> for RingPorts {
    fn from(ports: Ports) -> Self {
        let Ports { store, console, store_domain, console_domain } = ports;
        Self { store, store_domain, console, console_domain }
    }
}

/// The child's arguments.
fn words(task: Task, domid: DomId, stream: RawFd, frames: Pages) -> Vec<String> {
    let mut words = vec![VERB.to_owned(), stream.to_string(), domid.to_string(), frames.0.to_string()];
    match task {
        Task::Save { live } => words.extend(live.then(|| "live".to_owned())),
        Task::Restore(ports) => {
            words.extend([ports.store.0, ports.store_domain.get()].map(|number| number.to_string()));
            words.extend([ports.console.0, ports.console_domain.get()].map(|number| number.to_string()));
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::child::task_of;
    use super::*;
    use crate::xen::EventPort;

    #[test]
    fn words_are_read_as_they_are_written() {
        let seven = DomId::new(7).expect("a domid");
        let (store, console) = (EventPort(1), EventPort(2));
        let ports = RingPorts { store, store_domain: DomId::DOM0, console, console_domain: seven };
        for task in [Task::Save { live: false }, Task::Save { live: true }, Task::Restore(ports)] {
            let words: Vec<OsString> = words(task, seven, 5, Pages(9)).into_iter().map(OsString::from).collect();
            let all = [&[OsString::from("dombuild")], words.as_slice()].concat();
            let rest = helper_words(&all).expect("the verb");
            assert_eq!(task_of(rest), Some((5, seven, 9, task)));
            assert_eq!(task_of(&rest[..2]), None);
            assert_eq!(task_of(&[rest, &[OsString::from("more")]].concat()), None);
        }
        assert_eq!(helper_words(&["dombuild".into(), "save".into()]), None);
    }
}
