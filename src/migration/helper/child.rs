//! The child itself: it does nothing but call libxenguest, and asks its parent for everything else.

use std::ffi::OsString;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, RawFd};
use std::sync::Arc;

use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};

use super::message::{Answer, Message};
use super::{Task, VERB};
use crate::os::entry::{FAILURE, SUCCESS};
use crate::os::fd::take;
use crate::xen::{DomId, EventPort, Interface, NextRound, RingPorts, Round, SaveCallbacks, XenError};

/// The address space of the program itself, of a record (128 MiB, and a copy), and of a batch of mapped pages.
const OWN_ADDRESSES: u64 = 1 << 30;

/// The arguments behind the verb, if this process is such a child.
#[must_use]
pub fn helper_words(arguments: &[OsString]) -> Option<&[OsString]> {
    match arguments {
        [_, verb, words @ ..] if verb == VERB => Some(words),
        _ => None,
    }
}

/// The task in the child's arguments: the descriptor, the domain, its frames and what is to be done.
pub(super) fn task_of(words: &[OsString]) -> Option<(RawFd, DomId, u64, Task)> {
    let number = |word: &OsString| word.to_str()?.parse::<u32>().ok();
    let domain = |word: &OsString| DomId::new(number(word)?);
    let [stream, domid, frames, rest @ ..] = words else { return None };
    let task = match rest {
        [word] if word == "live" => Task::Save { live: true },
        [] => Task::Save { live: false },
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
pub fn helper_main(words: &[OsString]) -> u8 {
    let Some((stream, domid, frames, task)) = task_of(words) else {
        eprintln!("this verb is for dombuild itself, which starts it where it needs it");
        return FAILURE;
    };
    match carry_out(stream, domid, frames, task) {
        Ok(()) => SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            FAILURE
        }
    }
}

/// Lets a write beyond a limit of the process (`ulimit -f`) fail, where it would otherwise kill the process.
///
/// # Errors
/// If the signal cannot be handled.
pub fn let_long_writes_fail() -> io::Result<()> {
    signal_hook::flag::register(libc::SIGXFSZ, Arc::default()).map(drop)
}

fn carry_out(stream: RawFd, domid: DomId, frames: u64, task: Task) -> io::Result<()> {
    let stream = take(stream).map_err(io::Error::other)?.fd;
    // Bitmaps of frames, the lists of a PV guest's frames, and what libxenguest keeps of each: at most 64 bytes a frame.
    let most = OWN_ADDRESSES.saturating_add(frames.saturating_mul(64));
    setrlimit(Resource::RLIMIT_AS, most, most)?;
    let_long_writes_fail()?;
    let done = Interface::open().and_then(|xen| match task {
        Task::Save { live } => xen.save(domid, stream.as_fd(), live, &mut Parent { live }).map(|()| None),
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

/// The parent, which answers the questions of a save.
struct Parent {
    live: bool,
}

impl Parent {
    /// Asks the parent. Another parent than dombuild answers nothing, and the save fails.
    fn ask(message: &Message) -> Answer {
        let mut stdout = io::stdout();
        let answered = tell(&mut stdout, message).and_then(|()| hear(&stdout));
        answered.ok().and_then(Answer::of).unwrap_or(Answer::Refuse)
    }
}

impl SaveCallbacks for Parent {
    fn suspend(&mut self) -> bool {
        Self::ask(&Message::Suspend) == Answer::GoOn
    }

    fn round(&mut self, round: Round) -> NextRound {
        match Self::ask(&round.into()) {
            Answer::GoOn => NextRound::Continue,
            Answer::Stop => NextRound::Stop,
            Answer::Refuse => NextRound::Abort,
        }
    }

    fn log_dirty(&mut self, on: bool) -> bool {
        // Where nothing runs while memory is copied, there is nothing to record.
        !self.live || Self::ask(&Message::LogDirty(on)) == Answer::GoOn
    }
}

/// Sends a message in one piece.
fn tell(parent: &mut io::Stdout, message: &Message) -> io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    parent.write_all(&line)?;
    parent.flush()
}

/// Waits for the parent's answer, a byte on the same socket.
fn hear(socket: impl AsFd) -> io::Result<u8> {
    let mut answer = [0];
    loop {
        match nix::unistd::read(socket.as_fd(), &mut answer) {
            Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
            Ok(_) => return Ok(answer[0]),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}
