//! The child that calls libxenguest to save or restore a domain: this program, started again under an internal verb.
//!
//! libxenguest asserts, allocates what a stream says, and has no deadline. So the child does nothing else: it has the
//! descriptor of the stream, a socket to its parent as standard output, and the confinement of a device model. The parent
//! decides, waits with a deadline, and kills it. The child dies with its parent.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::fs::FileExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;
use nix::sys::resource::{Resource, setrlimit};
use serde::{Deserialize, Serialize};

use crate::builder::pre::Ports;
use crate::context::Context;
use crate::error::migration::MigrationError;
use crate::error::{Error, Wait};
use crate::memory::{Gfn, Pages};
use crate::os::Untrusted;
use crate::os::fd::take;
use crate::os::launch::{Child, Launch};
use crate::os::parent_death::KillOnParentDeath;
use crate::os::process;
use crate::os::restrict::{Restriction, restrict_device_model};
use crate::os::sealed::MemoryFile;
use crate::os::system_call_filter::{Additional, SystemCallFilter};
use crate::os::wait::{WaitLimit, WaitResult};
use crate::xen::{DomId, EventPort, Interface, RingPorts, XenError};

/// The first word of the child's command line.
const VERB: &str = "migration-helper";

/// The most bytes of a message.
const LONGEST_MESSAGE: usize = 16 << 10;

/// The most bytes that are shown of what the child wrote before it died.
const LONGEST_LAST_WORDS: usize = 400;

/// How long one look for a message takes: progress is shown between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// How long a killed child may take to disappear: the hypercall that it is in ends first.
const KILL_TIMEOUT: Duration = Duration::from_secs(20);

/// The address space of the program itself, of a record (128 MiB, and a copy), and of a batch of mapped pages.
const OWN_ADDRESSES: u64 = 1 << 30;

/// What the child does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// Writes the domain's state to the stream.
    Save,
    /// Reads the domain's state from the stream.
    Restore(RingPorts),
}

impl Task {
    const fn verb(self) -> &'static str {
        match self {
            Self::Save => "saves",
            Self::Restore(_) => "restores",
        }
    }
}

/// A message of the child, a line of JSON.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
enum Message {
    /// The guest is to be suspended. The parent answers with one byte when it is.
    Suspend,
    /// The task is done.
    Done {
        /// The frames of the store ring and of the console ring, behind a restore.
        rings: Option<(u64, u64)>,
    },
    /// A call failed.
    Failed {
        /// The C function.
        call: String,
        /// What it was asked for.
        arguments: String,
        /// The errno.
        errno: Option<i32>,
        /// What the library said.
        detail: Option<String>,
    },
}

/// The C functions that the child calls.
const CALLS: [&str; 3] = ["xc_domain_save", "xc_domain_restore", "xc_interface_open"];

/// What the parent hears.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// The child is ready to read memory: the guest is to be suspended, and [`Helper::go_on`] called.
    Suspend,
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

    /// Waits for the next event, and calls `progress` meanwhile.
    ///
    /// # Errors
    /// The call that failed; [`MigrationError::ChildDied`]; [`Error::TimedOut`]; [`Error::Interrupted`].
    pub fn wait(&mut self, context: &Context<'_>, mut progress: impl FnMut()) -> Result<Event, Error> {
        let limit = WaitLimit { timeout: LOOK, interrupt: context.cancel.interrupt().clone(), ..WaitLimit::default() };
        loop {
            context.cancel.check()?;
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

    /// Tells the child that the guest is suspended.
    ///
    /// # Errors
    /// If the child has ended.
    pub fn go_on(&mut self) -> Result<(), Error> {
        self.socket.get_ref().write_all(b"\n").map_err(|_| self.died())
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
    if let Task::Restore(ports) = task {
        words.extend([ports.store.0, ports.store_domain.get()].map(|number| number.to_string()));
        words.extend([ports.console.0, ports.console_domain.get()].map(|number| number.to_string()));
    }
    words
}

/// The arguments behind the verb, if this process is such a child.
#[must_use]
pub fn helper_words(arguments: &[OsString]) -> Option<&[OsString]> {
    match arguments {
        [_, verb, words @ ..] if verb == VERB => Some(words),
        _ => None,
    }
}

/// The task in the child's arguments: the descriptor, the domain, its frames and what is to be done.
fn task_of(words: &[OsString]) -> Option<(RawFd, DomId, u64, Task)> {
    let number = |word: &OsString| word.to_str()?.parse::<u32>().ok();
    let domain = |word: &OsString| DomId::new(number(word)?);
    let [stream, domid, frames, rest @ ..] = words else { return None };
    let task = match rest {
        [] => Task::Save,
        [store, store_domain, console, console_domain] => Task::Restore(RingPorts {
            store: EventPort(number(store)?),
            store_domain: domain(store_domain)?,
            console: EventPort(number(console)?),
            console_domain: domain(console_domain)?,
        }),
        _ => return None,
    };
    Some((RawFd::try_from(number(stream)?).ok()?, domain(domid)?, frames.to_str()?.parse().ok()?, task))
}

/// Runs the child.
#[must_use]
pub fn helper_main(words: &[OsString]) -> ExitCode {
    let Some((stream, domid, frames, task)) = task_of(words) else {
        eprintln!("this verb is for dombuild itself, which starts it where it needs it");
        return ExitCode::FAILURE;
    };
    match carry_out(stream, domid, frames, task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Lets a write beyond a limit of the process (`ulimit -f`) fail, where it would otherwise kill the process.
///
/// # Errors
/// If the signal cannot be handled.
pub(super) fn let_long_writes_fail() -> io::Result<()> {
    signal_hook::flag::register(libc::SIGXFSZ, Arc::default()).map(drop)
}

fn carry_out(stream: RawFd, domid: DomId, frames: u64, task: Task) -> io::Result<()> {
    let stream = take(stream).map_err(io::Error::other)?.fd;
    // Bitmaps of frames, the lists of a PV guest's frames, and what libxenguest keeps of each: at most 64 bytes a frame.
    let most = OWN_ADDRESSES.saturating_add(frames.saturating_mul(64));
    setrlimit(Resource::RLIMIT_AS, most, most)?;
    let_long_writes_fail()?;
    let mut parent = io::stdout();
    let done = Interface::open().and_then(|xen| match task {
        Task::Save => {
            // Another parent than dombuild answers nothing, and the save fails.
            let mut suspend = || tell(&mut parent, &Message::Suspend).and_then(|()| hear(io::stdout())).is_ok();
            xen.save(domid, stream.as_fd(), &mut suspend).map(|()| None)
        }
        Task::Restore(ports) => {
            xen.restore(domid, stream.as_fd(), ports).map(|(store, console)| Some((store.0, console.0)))
        }
    });
    let message = match done {
        Ok(rings) => Message::Done { rings },
        Err(XenError { call, arguments, errno, detail }) => {
            Message::Failed { call: call.to_owned(), arguments, errno: errno.map(|errno| errno as i32), detail }
        }
    };
    tell(&mut io::stdout(), &message)
}

/// Sends a message in one piece.
fn tell(parent: &mut io::Stdout, message: &Message) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    parent.write_all(&line)?;
    parent.flush()
}

/// Waits for the parent's answer, a byte on the same socket.
fn hear(socket: impl AsFd) -> io::Result<()> {
    let mut answer = [0];
    loop {
        match nix::unistd::read(socket.as_fd(), &mut answer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_as_they_are_written() {
        let seven = DomId::new(7).expect("a domid");
        let (store, console) = (EventPort(1), EventPort(2));
        let ports = RingPorts { store, store_domain: DomId::DOM0, console, console_domain: seven };
        for task in [Task::Save, Task::Restore(ports)] {
            let words: Vec<OsString> = words(task, seven, 5, Pages(9)).into_iter().map(OsString::from).collect();
            let all = [&[OsString::from("dombuild")], words.as_slice()].concat();
            let rest = helper_words(&all).expect("the verb");
            assert_eq!(task_of(rest), Some((5, seven, 9, task)));
            assert_eq!(task_of(&rest[..2]), None);
        }
        assert_eq!(helper_words(&["dombuild".into(), "save".into()]), None);
    }
}
