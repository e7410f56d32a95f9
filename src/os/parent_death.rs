//! A child process that dies when this one does, however this one ends: no watcher, no handler.
//!
//! The child's standard input is a pipe that nobody writes to. The kernel is told to send SIGKILL when something happens
//! there (`F_SETOWN`, `F_SETSIG` and `O_ASYNC`, fcntl(2)), and what happens is that the last writer goes, which is this
//! process. Nothing of Xen's, but `unsafe` all the same: what runs between fork and exec has to be.

use std::io::{self, PipeReader, PipeWriter, pipe};
use std::mem::ManuallyDrop;
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::launch::Step;

/// What ties a child to this process. Dropped without [`KillOnParentDeath::cut`], it holds until this process ends, so that a child can
/// still be ended in order.
#[derive(Debug)]
pub struct KillOnParentDeath {
    reader: ManuallyDrop<PipeReader>,
    writer: ManuallyDrop<PipeWriter>,
}

impl KillOnParentDeath {
    /// What ties a child, and the process group that it leads, which must be one of its own: the leash, the child's standard
    /// input, and what the child does once that is in place. What it reads from standard input is an end of file as soon as
    /// this process is gone or lets it go.
    ///
    /// # Errors
    /// Where the system has no pipe for it.
    pub fn new() -> io::Result<(Self, PipeReader, Step)> {
        let (reader, writer) = pipe()?;
        let input = reader.try_clone()?;
        // SAFETY: the closure calls nothing but fcntl and getpid, which are async-signal-safe, and allocates nothing. It
        // runs when standard input is in place already. The child has a copy of the write end until it calls exec, which
        // closes it: were this process to die meanwhile, the kernel would send the signal then.
        let step = unsafe { Step::new(tie) };
        Ok((Self { reader: ManuallyDrop::new(reader), writer: ManuallyDrop::new(writer) }, input, step))
    }

    /// Lets the child go: it may outlive this process.
    ///
    /// # Errors
    /// Where the kernel refuses that; the child stays tied then.
    pub fn detach(self) -> io::Result<()> {
        let flags = OFlag::from_bits_retain(fcntl(self.reader.as_fd(), FcntlArg::F_GETFL)?);
        // The child's standard input is the same open file.
        fcntl(self.reader.as_fd(), FcntlArg::F_SETFL(flags - OFlag::O_ASYNC))?;
        drop((ManuallyDrop::into_inner(self.reader), ManuallyDrop::into_inner(self.writer)));
        Ok(())
    }
}

/// In the child: its process group is killed when its standard input has lost its writer.
fn tie() -> io::Result<()> {
    let check = |returned: libc::c_int| if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) };
    // SAFETY: these commands take integers, and no memory is touched.
    unsafe {
        check(libc::fcntl(libc::STDIN_FILENO, libc::F_SETOWN, -libc::getpid()))?;
        check(libc::fcntl(libc::STDIN_FILENO, F_SETSIG, libc::SIGKILL))?;
        let flags = check(libc::fcntl(libc::STDIN_FILENO, libc::F_GETFL))?;
        check(libc::fcntl(libc::STDIN_FILENO, libc::F_SETFL, flags | libc::O_ASYNC))?;
    }
    Ok(())
}

/// `F_SETSIG` of Linux on every architecture (asm-generic/fcntl.h), which the crate `libc` does not have.
const F_SETSIG: libc::c_int = 10;

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn child() -> (Child, KillOnParentDeath, PipeReader) {
        let (alive, held) = pipe().expect("a pipe");
        let mut command = Command::new("sh");
        // A child of its own, as QEMU behind a script would be.
        command.args(["-c", "sleep 1000 & wait"]).stdout(held).stderr(Stdio::null()).process_group(0);
        let (leash, input, step) = KillOnParentDeath::new().expect("a pipe");
        step.put_into(command.stdin(input));
        let child = command.spawn().expect("there is a shell");
        drop(command);
        (child, leash, alive)
    }

    /// The end of the process: its descriptors are closed.
    fn die(leash: KillOnParentDeath) {
        drop((ManuallyDrop::into_inner(leash.reader), ManuallyDrop::into_inner(leash.writer)));
    }

    #[test]
    fn a_child_and_its_children_die_with_us() {
        let (mut child, leash, mut alive) = child();
        assert!(child.try_wait().expect("asked").is_none());
        die(leash);
        assert_eq!(child.wait().expect("it ended").signal(), Some(libc::SIGKILL));
        // Whoever held the other end is gone.
        assert_eq!(io::copy(&mut alive, &mut io::sink()).expect("read"), 0);
    }

    #[test]
    fn a_child_that_was_let_go_lives() {
        let (mut child, leash, _alive) = child();
        leash.detach().expect("cut");
        // A signal would have been sent by the time that the descriptors were closed.
        assert!(child.try_wait().expect("asked").is_none());
        let group = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGTERM).expect("it lives");
        assert_eq!(child.wait().expect("it ended").signal(), Some(libc::SIGTERM));
    }
}
