// What becomes of a program's child when the program is killed. Part of the command-line tests, and of those in dom0.

use std::ops::Range;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// Starts a program `count` times and kills each with SIGKILL, after delays spread over a range. Returns how many had a
/// child by then. Each child must die of SIGKILL too: the kernel makes this process their parent, so it can wait for
/// them and see their status. A child that is not killed with its parent exits by itself, with another status.
pub(crate) fn kill_parents(program: &str, arguments: &[&str], count: u32, delays: Range<Duration>) -> u32 {
    set_child_subreaper(true).expect("Linux has it");
    let mut orphans = 0;
    for number in 0..count {
        let delay = delays.start + (delays.end - delays.start) * number / count;
        let mut command = Command::new(program);
        // A group of its own, by which its children are found.
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        let mut parent = command.spawn().expect("it starts");
        thread::sleep(delay);
        parent.kill().expect("it was not waited for");
        parent.wait().expect("it ended");
        let group = Pid::from_raw(-i32::try_from(parent.id()).expect("a pid"));
        loop {
            match waitpid(group, None) {
                Err(Errno::ECHILD) => break,
                Ok(WaitStatus::Signaled(_, Signal::SIGKILL, _)) => orphans += 1,
                other => panic!("killed after {delay:?}: its child went on, and ended by itself: {other:?}"),
            }
        }
    }
    // What others leave behind is for the host's own process 1 again.
    set_child_subreaper(false).expect("Linux has it");
    orphans
}
