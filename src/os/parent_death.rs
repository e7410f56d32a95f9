//! Kills a child when this process ends for any reason, without a watcher process or a handler.
//!
//! The child's standard input is a pipe without data. It asks the kernel for SIGKILL on an event of that pipe
//! (`F_SETOWN`, `F_SETSIG` and `O_ASYNC`, fcntl(2)). The event is the close of the last write end, which this process
//! holds.

use std::io::{self, PipeReader, PipeWriter, pipe};
use std::mem::ManuallyDrop;
use std::os::fd::AsFd;

use nix::fcntl::{FcntlArg, OFlag, fcntl};

use crate::launch::Step;

/// The tie between a child and this process. If it is dropped without [`KillOnParentDeath::detach`], the tie lasts
/// until this process ends, so that the child can still be stopped in order.
#[derive(Debug)]
pub struct KillOnParentDeath {
    reader: ManuallyDrop<PipeReader>,
    writer: ManuallyDrop<PipeWriter>,
}

impl KillOnParentDeath {
    /// Returns the tie, the child's standard input, and the step for the child to execute once standard input is in
    /// place. The child must lead its own process group, which is killed with it. Its standard input reaches end of
    /// file when this process ends or detaches it.
    ///
    /// # Errors
    /// If the pipe cannot be created.
    pub fn new() -> io::Result<(Self, PipeReader, Step)> {
        let (reader, writer) = pipe()?;
        let input = reader.try_clone()?;
        // SAFETY: the closure only calls fcntl and getpid, which are async-signal-safe, and allocates nothing. It runs
        // once standard input is in place. The child has a copy of the write end until exec closes it: if this process
        // dies earlier, the kernel sends the signal then.
        let step = unsafe { Step::new(tie) };
        Ok((Self { reader: ManuallyDrop::new(reader), writer: ManuallyDrop::new(writer) }, input, step))
    }

    /// Detaches the child, which may then outlive this process.
    ///
    /// # Errors
    /// If the kernel refuses it; then the child stays tied.
    pub fn detach(self) -> io::Result<()> {
        let flags = OFlag::from_bits_retain(fcntl(self.reader.as_fd(), FcntlArg::F_GETFL)?);
        // The child's standard input is the same open file description.
        fcntl(self.reader.as_fd(), FcntlArg::F_SETFL(flags - OFlag::O_ASYNC))?;
        drop((ManuallyDrop::into_inner(self.reader), ManuallyDrop::into_inner(self.writer)));
        Ok(())
    }
}

/// In the child: requests SIGKILL for its process group when its standard input loses the last writer.
fn tie() -> io::Result<()> {
    let check = |returned: libc::c_int| if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(returned) };
    // SAFETY: these commands take integers and access no memory.
    unsafe {
        check(libc::fcntl(libc::STDIN_FILENO, libc::F_SETOWN, -libc::getpid()))?;
        check(libc::fcntl(libc::STDIN_FILENO, F_SETSIG, libc::SIGKILL))?;
        let flags = check(libc::fcntl(libc::STDIN_FILENO, libc::F_GETFL))?;
        check(libc::fcntl(libc::STDIN_FILENO, libc::F_SETFL, flags | libc::O_ASYNC))?;
    }
    Ok(())
}

/// `F_SETSIG` on every architecture (asm-generic/fcntl.h); the crate `libc` lacks it.
const F_SETSIG: libc::c_int = 10;

#[cfg(test)]
mod tests {
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn child() -> (Child, KillOnParentDeath, PipeReader) {
        let (alive, held) = pipe().expect("a pipe");
        let mut command = Command::new("sh");
        // A grandchild, as QEMU started by a script is.
        command.args(["-c", "sleep 1000 & wait"]).stdout(held).stderr(Stdio::null()).process_group(0);
        let (leash, input, step) = KillOnParentDeath::new().expect("a pipe");
        step.put_into(command.stdin(input));
        let child = command.spawn().expect("there is a shell");
        drop(command);
        (child, leash, alive)
    }

    /// As at the end of the process: closes its descriptors.
    fn die(leash: KillOnParentDeath) {
        drop((ManuallyDrop::into_inner(leash.reader), ManuallyDrop::into_inner(leash.writer)));
    }

    #[test]
    fn a_child_and_its_children_die_with_us() {
        let (mut child, leash, mut alive) = child();
        assert!(child.try_wait().expect("asked").is_none());
        die(leash);
        assert_eq!(child.wait().expect("it ended").signal(), Some(libc::SIGKILL));
        // All processes with the write end have ended.
        assert_eq!(io::copy(&mut alive, &mut io::sink()).expect("read"), 0);
    }

    #[test]
    fn a_child_that_was_let_go_lives() {
        let (mut child, leash, _alive) = child();
        leash.detach().expect("cut");
        // The kernel sends a signal before the close returns.
        assert!(child.try_wait().expect("asked").is_none());
        let group = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
        nix::sys::signal::killpg(group, nix::sys::signal::Signal::SIGTERM).expect("it lives");
        assert_eq!(child.wait().expect("it ended").signal(), Some(libc::SIGTERM));
    }
}
