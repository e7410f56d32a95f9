//! Waiting for a descriptor: never without a deadline, and never past a signal that asks this run to stop.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// What ends waits before their time: the signal that came, and a pipe that can be read once one has come. Without a
/// pipe, nothing ends them.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    signal: Arc<AtomicUsize>,
    pipe: Option<Arc<OwnedFd>>,
}

impl Interrupt {
    /// Nothing has come yet. A signal handler stores the signal's number in the first of the other two, and then writes into
    /// the second.
    ///
    /// # Errors
    /// Where the system has no pipe.
    pub fn new() -> io::Result<(Self, Arc<AtomicUsize>, OwnedFd)> {
        let (reader, writer) = io::pipe()?;
        let signal = Arc::new(AtomicUsize::new(0));
        let interrupt = Self { signal: Arc::clone(&signal), pipe: Some(Arc::new(reader.into())) };
        Ok((interrupt, signal, writer.into()))
    }

    /// The signal that came.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        i32::try_from(self.signal.load(Ordering::Relaxed)).ok().filter(|signal| *signal != 0)
    }
}

/// How a wait ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The descriptor is ready; or it is closed or broken, which the next read or write tells.
    Ready,
    /// The deadline has passed.
    TimedOut,
    /// A signal has come, and its grace has passed.
    Interrupted,
}

/// How long a wait may last.
#[derive(Debug, Clone, Default)]
pub struct Patience {
    /// Without a signal.
    pub timeout: Duration,
    /// After a signal: 0 ends the wait at once; a roll-back takes some time for itself.
    pub grace: Duration,
    /// What tells of a signal.
    pub interrupt: Interrupt,
}

impl Patience {
    /// Waits until a descriptor can be read (`POLLIN`) or written (`POLLOUT`), counted from now.
    ///
    /// # Errors
    /// What poll(2) says, but for `EINTR`.
    pub fn wait(&self, fd: impl AsFd, events: PollFlags) -> io::Result<Ended> {
        let start = Instant::now();
        loop {
            let came = self.interrupt.signal().is_some();
            let limit = if came { self.timeout.min(self.grace) } else { self.timeout };
            let left = limit.saturating_sub(start.elapsed());
            let own = PollFd::new(fd.as_fd(), events);
            let (ready, polled) = match self.interrupt.pipe.as_deref().filter(|_| !came) {
                Some(pipe) => {
                    let mut both = [own, PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
                    let polled = poll(&mut both, timeout_of(left));
                    (both[0].any(), polled)
                }
                None => {
                    let mut alone = [own];
                    let polled = poll(&mut alone, timeout_of(left));
                    (alone[0].any(), polled)
                }
            };
            match polled {
                Err(Errno::EINTR) => continue,
                Err(errno) => return Err(errno.into()),
                Ok(_) if ready == Some(true) => return Ok(Ended::Ready),
                Ok(_) => {}
            }
            if start.elapsed() >= limit {
                return Ok(if came { Ended::Interrupted } else { Ended::TimedOut });
            }
        }
    }
}

/// In milliseconds, rounded up: a wait must not end just before its deadline, and begin again without pause.
fn timeout_of(left: Duration) -> PollTimeout {
    let millis = left.as_nanos().div_ceil(1_000_000);
    PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::unix::net::UnixStream;
    use std::thread;

    use super::*;

    fn patience(timeout: u64, grace: u64) -> (Patience, Arc<AtomicUsize>, std::fs::File) {
        let (interrupt, signal, writer) = Interrupt::new().expect("a pipe");
        let (timeout, grace) = (Duration::from_millis(timeout), Duration::from_millis(grace));
        (Patience { timeout, grace, interrupt }, signal, writer.into())
    }

    #[test]
    fn a_wait_ends_when_there_is_something_or_its_time_is_over() {
        let (patience, _signal, _writer) = patience(30, 0);
        let (ours, mut theirs) = UnixStream::pair().expect("sockets");
        let start = Instant::now();
        assert_eq!(patience.wait(&ours, PollFlags::POLLIN).expect("waited"), Ended::TimedOut);
        assert!(start.elapsed() >= Duration::from_millis(30));
        theirs.write_all(b"x").expect("written");
        assert_eq!(patience.wait(&ours, PollFlags::POLLIN).expect("waited"), Ended::Ready);
        drop(theirs);
        assert_eq!(patience.wait(&ours, PollFlags::POLLIN).expect("waited"), Ended::Ready, "its end is to be read");
    }

    #[test]
    fn a_signal_ends_a_wait_after_its_grace() {
        let (ours, _theirs) = UnixStream::pair().expect("sockets");
        for grace in [0, 50] {
            let (patience, signal, mut writer) = patience(60_000, grace);
            let handler = thread::spawn(move || {
                thread::sleep(Duration::from_millis(20));
                signal.store(15, Ordering::Relaxed);
                writer.write_all(b"x").expect("written");
                writer
            });
            let start = Instant::now();
            assert_eq!(patience.wait(&ours, PollFlags::POLLIN).expect("waited"), Ended::Interrupted);
            assert!(start.elapsed() >= Duration::from_millis(grace) && start.elapsed() < Duration::from_secs(30));
            assert_eq!(patience.interrupt.signal(), Some(15));
            handler.join().expect("it wrote");
            // One that came before counts as well, and what is there already is read all the same.
            assert_eq!(patience.wait(&ours, PollFlags::POLLIN).expect("waited"), Ended::Interrupted);
            assert_eq!(patience.wait(&ours, PollFlags::POLLOUT).expect("waited"), Ended::Ready);
        }
    }

    #[test]
    fn without_a_pipe_nothing_ends_a_wait_early() {
        let (ours, _theirs) = UnixStream::pair().expect("sockets");
        let patience = Patience { timeout: Duration::from_millis(5), ..Patience::default() };
        assert_eq!(patience.wait(&ours, PollFlags::POLLIN).expect("waited"), Ended::TimedOut);
        assert_eq!(patience.interrupt.signal(), None);
    }
}
