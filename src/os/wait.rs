//! Waits for a descriptor, with a deadline and cancellation by a signal.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Ends waits early: the signal that arrived, and a pipe that becomes readable with it. The default never ends a wait.
#[derive(Debug, Clone, Default)]
pub struct Interrupt {
    signal: Arc<AtomicUsize>,
    pipe: Option<Arc<OwnedFd>>,
}

impl Interrupt {
    /// Returns an interrupt without a signal, the place for the signal's number, and the pipe's write end. A signal
    /// handler stores the number first, then writes to the pipe.
    ///
    /// # Errors
    /// If the pipe cannot be created.
    pub fn new() -> io::Result<(Self, Arc<AtomicUsize>, OwnedFd)> {
        let (reader, writer) = io::pipe()?;
        let signal = Arc::new(AtomicUsize::new(0));
        let interrupt = Self { signal: Arc::clone(&signal), pipe: Some(Arc::new(reader.into())) };
        Ok((interrupt, signal, writer.into()))
    }

    /// The signal that arrived, if any.
    #[must_use]
    pub fn signal(&self) -> Option<i32> {
        i32::try_from(self.signal.load(Ordering::Relaxed)).ok().filter(|signal| *signal != 0)
    }
}

/// The result of a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitResult {
    /// The descriptor is ready, or it is closed or broken: the next read or write returns the error.
    Ready,
    /// The timeout passed.
    TimedOut,
    /// A signal arrived, and the grace period passed.
    Interrupted,
}

/// The limits of a wait.
#[derive(Debug, Clone, Default)]
pub struct WaitLimit {
    /// The timeout.
    pub timeout: Duration,
    /// The time that a wait may last after a signal; 0 ends it at once. A roll-back needs some time.
    pub grace: Duration,
    /// The source of signals.
    pub interrupt: Interrupt,
}

impl WaitLimit {
    /// Waits until a descriptor is readable (`POLLIN`) or writable (`POLLOUT`). The limits count from the call.
    ///
    /// # Errors
    /// The error of poll(2), except `EINTR`.
    pub fn wait(&self, fd: impl AsFd, events: PollFlags) -> io::Result<WaitResult> {
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
                Ok(_) if ready == Some(true) => return Ok(WaitResult::Ready),
                Ok(_) => {}
            }
            if start.elapsed() >= limit {
                return Ok(if came { WaitResult::Interrupted } else { WaitResult::TimedOut });
            }
        }
    }
}

/// In milliseconds, rounded up: rounded down, a wait would end just before its deadline and repeat without pause.
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

    fn limit(timeout: u64, grace: u64) -> (WaitLimit, Arc<AtomicUsize>, std::fs::File) {
        let (interrupt, signal, writer) = Interrupt::new().expect("a pipe");
        let (timeout, grace) = (Duration::from_millis(timeout), Duration::from_millis(grace));
        (WaitLimit { timeout, grace, interrupt }, signal, writer.into())
    }

    #[test]
    fn a_wait_ends_when_there_is_something_or_its_time_is_over() {
        let (limit, _signal, _writer) = limit(30, 0);
        let (ours, mut theirs) = UnixStream::pair().expect("sockets");
        let start = Instant::now();
        assert_eq!(limit.wait(&ours, PollFlags::POLLIN).expect("waited"), WaitResult::TimedOut);
        assert!(start.elapsed() >= Duration::from_millis(30));
        theirs.write_all(b"x").expect("written");
        assert_eq!(limit.wait(&ours, PollFlags::POLLIN).expect("waited"), WaitResult::Ready);
        drop(theirs);
        assert_eq!(limit.wait(&ours, PollFlags::POLLIN).expect("waited"), WaitResult::Ready, "its end is to be read");
    }

    #[test]
    fn a_signal_ends_a_wait_after_its_grace() {
        let (ours, _theirs) = UnixStream::pair().expect("sockets");
        for grace in [0, 50] {
            let (limit, signal, mut writer) = limit(60_000, grace);
            let handler = thread::spawn(move || {
                thread::sleep(Duration::from_millis(20));
                signal.store(15, Ordering::Relaxed);
                writer.write_all(b"x").expect("written");
                writer
            });
            let start = Instant::now();
            assert_eq!(limit.wait(&ours, PollFlags::POLLIN).expect("waited"), WaitResult::Interrupted);
            assert!(start.elapsed() >= Duration::from_millis(grace) && start.elapsed() < Duration::from_secs(30));
            assert_eq!(limit.interrupt.signal(), Some(15));
            handler.join().expect("it wrote");
            // An earlier signal counts too, and a readable descriptor is still reported.
            assert_eq!(limit.wait(&ours, PollFlags::POLLIN).expect("waited"), WaitResult::Interrupted);
            assert_eq!(limit.wait(&ours, PollFlags::POLLOUT).expect("waited"), WaitResult::Ready);
        }
    }

    #[test]
    fn without_a_pipe_nothing_ends_a_wait_early() {
        let (ours, _theirs) = UnixStream::pair().expect("sockets");
        let limit = WaitLimit { timeout: Duration::from_millis(5), ..WaitLimit::default() };
        assert_eq!(limit.wait(&ours, PollFlags::POLLIN).expect("waited"), WaitResult::TimedOut);
        assert_eq!(limit.interrupt.signal(), None);
    }
}
