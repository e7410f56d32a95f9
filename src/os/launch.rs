//! Starts a program inside a cgroup, from its first instruction.
//!
//! [`std::process::Command`] cannot do that. A process that moves into a cgroup after its start waits for an RCU grace
//! period of about 10 ms, and delays every fork and exit of the host meanwhile. A process that starts there does not
//! (`CLONE_INTO_CGROUP`, clone3(2), Linux 5.7).

use std::ffi::{CString, NulError, OsStr};
use std::io::{self, ErrorKind, PipeWriter, Read};
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, ExitStatus};
use std::ptr;

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::cgroup::{Cgroup, Entrance};

/// `CLONE_INTO_CGROUP` (linux/sched.h); the type of the constant in the crate `libc` is too narrow.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// A step that the child executes between fork and exec.
pub struct Step(Box<dyn FnMut() -> io::Result<()> + Send + Sync>);

impl Step {
    /// # Safety
    /// The closure runs in the forked child of a process that may have several threads: it may only make system calls,
    /// allocates nothing, and takes no lock.
    pub unsafe fn new(step: impl FnMut() -> io::Result<()> + Send + Sync + 'static) -> Self {
        Self(Box::new(step))
    }

    /// Adds the step to a program that the standard library starts.
    pub fn put_into(self, command: &mut Command) {
        // SAFETY: the caller of `Step::new` has promised what `pre_exec` needs.
        unsafe { command.pre_exec(self.0) };
    }
}

/// A program to start with default signal handling, as the leader of a new process group unless it is to join its parent's.
pub struct Launch {
    path: CString,
    arguments: Vec<CString>,
    environment: Vec<CString>,
    /// Standard input, output and error.
    descriptors: [OwnedFd; 3],
    entrance: Option<Entrance>,
    /// It leads a process group of its own.
    leads: bool,
    steps: Vec<Step>,
}

impl Launch {
    /// Prepares the program at this path (without a search in `PATH`), without arguments, environment and cgroup.
    ///
    /// # Errors
    /// If the path contains a NUL byte.
    pub fn new(path: &Path, descriptors: [OwnedFd; 3]) -> io::Result<Self> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let arguments = vec![path.clone()];
        let (environment, steps) = (Vec::new(), Vec::new());
        Ok(Self { path, arguments, environment, descriptors, entrance: None, leads: true, steps })
    }

    /// Sets the name of the program among its arguments, which is its path otherwise.
    ///
    /// # Errors
    /// If it contains a NUL byte.
    pub fn name(&mut self, name: &str) -> io::Result<()> {
        let name = CString::new(name)?;
        self.arguments.splice(..1, [name]);
        Ok(())
    }

    /// Adds arguments.
    ///
    /// # Errors
    /// If one contains a NUL byte.
    pub fn arguments<T: AsRef<OsStr>>(&mut self, arguments: &[T]) -> io::Result<()> {
        let arguments = arguments.iter().map(|argument| CString::new(argument.as_ref().as_bytes()));
        self.arguments.extend(arguments.collect::<Result<Vec<_>, NulError>>()?);
        Ok(())
    }

    /// Adds an environment variable.
    ///
    /// # Errors
    /// If one contains a NUL byte.
    pub fn variable(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> io::Result<()> {
        let text = [name.as_ref().as_bytes(), b"=", value.as_ref().as_bytes()].concat();
        self.environment.push(CString::new(text)?);
        Ok(())
    }

    /// Sets the cgroup in which the program starts.
    ///
    /// # Errors
    /// If the cgroup does not exist.
    pub fn cgroup(&mut self, cgroup: &Cgroup) -> io::Result<()> {
        self.entrance = Some(cgroup.entrance()?);
        Ok(())
    }

    /// Leaves the program in the process group of its parent, of which a terminal makes one job.
    pub fn join_group(&mut self) {
        self.leads = false;
    }

    /// Adds a step before exec, after the earlier ones.
    pub fn step(&mut self, step: Step) {
        self.steps.push(step);
    }

    /// Starts the program, and returns once exec has succeeded.
    ///
    /// # Errors
    /// The error of fork, a step or exec.
    pub fn start(mut self) -> io::Result<Child> {
        let (mut report, writer) = io::pipe()?;
        let pointers = |strings: &[CString]| -> Vec<*const libc::c_char> {
            strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
        };
        let (arguments, environment) = (pointers(&self.arguments), pointers(&self.environment));
        let (pid, inside) = fork(self.entrance.as_ref())?;
        if pid == 0 {
            // SAFETY: this is the child; both lists end with a null pointer and point to strings that are alive.
            unsafe { self.run(&arguments, &environment, inside, &writer) };
        }
        drop(writer);
        let mut child = Child { pid: Pid::from_raw(pid), status: None };
        let mut number = [0; 4];
        match report.read_exact(&mut number) {
            // Closed by exec.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(child),
            outcome => {
                child.wait()?;
                outcome?;
                Err(io::Error::from_raw_os_error(i32::from_ne_bytes(number)))
            }
        }
    }

    /// Runs the child until exec. On failure it sends errno through the pipe and exits.
    ///
    /// # Safety
    /// Only the child may call it. The lists must be as execve(2) takes them.
    unsafe fn run(
        &mut self,
        arguments: &[*const libc::c_char],
        environment: &[*const libc::c_char],
        inside: bool,
        report: &PipeWriter,
    ) -> ! {
        let errno = match self.prepare(inside) {
            // An error without errno does not occur here.
            Err(error) => error.raw_os_error().unwrap_or(libc::EIO),
            Ok(()) => {
                // SAFETY: the caller's promise.
                unsafe { libc::execve(self.path.as_ptr(), arguments.as_ptr(), environment.as_ptr()) };
                Errno::last_raw()
            }
        };
        let number = errno.to_ne_bytes();
        // SAFETY: the pointer is to this many bytes; _exit runs no exit handlers.
        unsafe {
            libc::write(report.as_raw_fd(), number.as_ptr().cast(), number.len());
            libc::_exit(127)
        }
    }

    /// Makes system calls only: another thread of the parent may have held the heap's lock at the fork.
    fn prepare(&mut self, inside: bool) -> io::Result<()> {
        let done = |returned: libc::c_int| if returned < 0 { Err(io::Error::last_os_error()) } else { Ok(()) };
        if let Some(entrance) = self.entrance.as_ref().filter(|_| !inside) {
            entrance.enter()?;
        }
        for (number, descriptor) in (0..).zip(&self.descriptors) {
            // SAFETY: the call takes numbers. None of the descriptors is 0 to 2, which the program keeps open from its start on.
            done(unsafe { libc::dup2(descriptor.as_raw_fd(), number) })?;
        }
        // SAFETY: these calls access no memory except the set, which outlives them.
        unsafe {
            if self.leads {
                done(libc::setpgid(0, 0))?;
            }
            let mut none: libc::sigset_t = mem::zeroed();
            libc::sigemptyset(&raw mut none);
            done(libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()))?;
            // The program ignores SIGPIPE, and exec would preserve that.
            libc::signal(libc::SIGPIPE, libc::SIG_DFL);
        }
        self.steps.iter_mut().try_for_each(|step| (step.0)())
    }
}

/// Forks, into the cgroup if the kernel can; also returns whether the child is in it.
fn fork(entrance: Option<&Entrance>) -> io::Result<(libc::pid_t, bool)> {
    if let Some(entrance) = entrance {
        match fork_into(entrance.directory()) {
            // Linux before 5.7, or a container that blocks clone3.
            Err(Errno::ENOSYS | Errno::EINVAL | Errno::E2BIG) => {}
            outcome => return Ok((outcome?, true)),
        }
    }
    // SAFETY: the child only calls `run`.
    let pid = unsafe { libc::fork() };
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok((pid, false)) }
}

fn fork_into(directory: RawFd) -> Result<libc::pid_t, Errno> {
    // SAFETY: a struct of integers, for which zero is valid.
    let mut arguments: libc::clone_args = unsafe { mem::zeroed() };
    arguments.flags = CLONE_INTO_CGROUP;
    arguments.exit_signal = u64::try_from(libc::SIGCHLD).unwrap_or(0);
    arguments.cgroup = u64::try_from(directory).unwrap_or(0);
    // SAFETY: the struct has the given size and outlives the call. Without a stack of its own, the child is a copy of
    // this process as after fork, and only calls `run`.
    let returned = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
    if returned < 0 { Err(Errno::last()) } else { Ok(libc::pid_t::try_from(returned).unwrap_or(0)) }
}

/// A child of this process. Dropping the value does not change it.
#[derive(Debug)]
pub struct Child {
    pid: Pid,
    status: Option<ExitStatus>,
}

impl Child {
    /// The process ID, which stays valid until the child is reaped.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw()
    }

    /// The exit status, once it has ended.
    ///
    /// # Errors
    /// The error of the system call.
    pub fn try_wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.look(libc::WNOHANG)
    }

    fn wait(&mut self) -> io::Result<Option<ExitStatus>> {
        self.look(0)
    }

    fn look(&mut self, flags: libc::c_int) -> io::Result<Option<ExitStatus>> {
        while self.status.is_none() {
            let mut status = 0;
            // SAFETY: the pointer is to an integer that lives through the call.
            match unsafe { libc::waitpid(self.pid(), &raw mut status, flags) } {
                0 => break,
                -1 if Errno::last() != Errno::EINTR => return Err(io::Error::last_os_error()),
                -1 => {}
                _ => self.status = Some(ExitStatus::from_raw(status)),
            }
        }
        Ok(self.status)
    }

    /// Kills it, unless it is reaped already.
    ///
    /// # Errors
    /// The error of the system call.
    pub fn kill(&self) -> io::Result<()> {
        if self.status.is_some() { Ok(()) } else { Ok(kill(self.pid, Signal::SIGKILL)?) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::PipeReader;
    use std::time::Duration;

    use super::super::cgroup::CgroupLimits;
    use super::*;

    fn shell(line: &str) -> (Launch, PipeReader) {
        let (reader, writer) = io::pipe().expect("a pipe");
        let null = || OwnedFd::from(File::open("/dev/null").expect("it is there"));
        let mut launch = Launch::new(Path::new("/bin/sh"), [null(), writer.into(), null()]).expect("a path");
        launch.arguments(&["-c", line]).expect("no zero byte");
        (launch, reader)
    }

    fn ended(mut child: Child) -> ExitStatus {
        child.wait().expect("it is ours").expect("it has ended")
    }

    #[test]
    fn it_has_what_it_is_given_and_nothing_else() {
        let (mut launch, reader) = shell("echo \"$A $B\"; env; read -r line; echo \"got $?\"; kill -PIPE $$");
        launch.variable("A", "one").expect("no zero byte");
        launch.variable("B", "two=2").expect("no zero byte");
        let child = launch.start().expect("there is a shell");
        let group = nix::unistd::getpgid(Some(child.pid)).expect("it runs or is a zombie");
        assert_eq!(group, child.pid, "a group of its own");
        let text = io::read_to_string(reader).expect("UTF-8");
        assert!(text.starts_with("one two=2\n") && text.ends_with("got 1\n"), "{text}");
        assert!(!text.contains("PATH=/") && !text.contains("CARGO"), "{text}");
        assert_eq!(ended(child).signal(), Some(libc::SIGPIPE), "it is not ignored");
    }

    #[test]
    fn what_fails_is_told_by_its_number() {
        let null = || OwnedFd::from(File::open("/dev/null").expect("it is there"));
        for (path, number) in [("/nowhere", libc::ENOENT), ("/etc/passwd", libc::EACCES), ("/", libc::EACCES)] {
            let launch = Launch::new(Path::new(path), [null(), null(), null()]).expect("a path");
            assert_eq!(launch.start().expect_err(path).raw_os_error(), Some(number), "{path}");
        }
        let (mut launch, _reader) = shell("true");
        // SAFETY: it makes nothing but a number.
        launch.step(unsafe { Step::new(|| Err(io::Error::from_raw_os_error(libc::EDOM))) });
        assert_eq!(launch.start().expect_err("a step").raw_os_error(), Some(libc::EDOM));
        assert!(Launch::new(Path::new("a\0b"), [null(), null(), null()]).is_err());
    }

    #[test]
    fn it_is_waited_for_and_killed() {
        let (launch, reader) = shell("echo up; exec sleep 1000");
        let mut child = launch.start().expect("there is a shell");
        let mut up = [0; 3];
        (&reader).read_exact(&mut up).expect("it runs");
        assert_eq!(child.try_wait().expect("asked"), None);
        child.kill().expect("ours");
        let status = child.wait().expect("ours");
        assert_eq!(status.and_then(|status| status.signal()), Some(libc::SIGKILL));
        assert_eq!(child.try_wait().expect("asked again"), status);
        child.kill().expect("no other process is meant");
    }

    /// Does nothing where cgroups cannot be created (another user, a container).
    #[test]
    fn it_begins_in_its_cgroup() {
        let name = format!("test-{}-launch", std::process::id());
        let Ok(cgroup) = Cgroup::make(&name, CgroupLimits { memory: 64 << 20, tasks: 100 }) else { return };
        let (mut launch, reader) = shell("while read -r line; do echo \"$line\"; done </proc/self/cgroup");
        launch.cgroup(&cgroup).expect("it is there");
        assert!(ended(launch.start().expect("there is a shell")).success());
        let text = io::read_to_string(reader).expect("UTF-8");
        assert!(text.contains(&name), "{text}");
        cgroup.remove(Duration::from_secs(20)).expect("removed");
    }
}
