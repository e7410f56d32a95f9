//! A process that holds locks on files, which is no ancestor of any build.

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// A process of a user that holds a lock, or several.
pub(crate) struct LockHolder(Child);

impl LockHolder {
    /// Opens the file with these flags, locks it by this call, and does the rest.
    pub(crate) fn new(user: u32, path: &str, flags: &str, call: &str, rest: &str) -> Self {
        let program = format!(
            "use Fcntl ':DEFAULT', ':flock'; sysopen(my $file, '{path}', {flags}, 0600) or die \"{path}: $!\"; \
             {call} or die \"not locked: $!\"; {rest}; $| = 1; print \"locked\\n\"; <STDIN>"
        );
        let mut child = Command::new("perl")
            .args(["-e", &program])
            .uid(user)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("there is a perl");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("piped")).read_line(&mut line).expect("read");
        assert_eq!(line, "locked\n");
        Self(child)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for LockHolder {
    fn drop(&mut self) {
        self.0.kill().expect("killed");
        self.0.wait().expect("waited for");
    }
}
