//! A guest that xl looks after comes under another supervisor: xl's own ends.

use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::error::Error;
use crate::os::pidfd::Process;
use crate::os::procfs;

/// Where xl's process for a guest writes its log, which it has open as long as it lives (`create_domain`, xl_vmcontrol.c, and
/// `do_daemonize`, xl_utils.c, Xen 4.17).
const LOGS: &str = "/var/log/xen";

/// How long xl may take to end.
const END_TIMEOUT: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);

/// Ends the processes of xl that look after the guest of this name, so that they do not restart or destroy it. Returns their
/// number.
///
/// # Errors
/// [`Error::Io`] if one cannot be ended.
pub fn end_xls_supervisors(name: &str) -> Result<usize, Error> {
    let log = Path::new(LOGS).join(format!("xl-{name}.log"));
    let mut ended = 0;
    for pid in procfs::pids().filter(|pid| is_supervisor(*pid, &log)) {
        let failed = |source| Error::io(format!("end xl's process {pid}, which looks after {name}"))(source);
        let Some(process) = Process::open(pid).map_err(failed)? else { continue };
        // The number could have become another process's since.
        if !is_supervisor(pid, &log) {
            continue;
        }
        process.signal(Signal::SIGTERM).map_err(failed)?;
        let end = Instant::now() + END_TIMEOUT;
        while !process.has_ended() {
            if Instant::now() > end {
                process.signal(Signal::SIGKILL).map_err(failed)?;
                break;
            }
            thread::sleep(POLL);
        }
        ended += 1;
    }
    Ok(ended)
}

/// Whether a process of root is xl and has this log as its output.
fn is_supervisor(pid: i32, log: &Path) -> bool {
    let link = |what: &str| fs::read_link(format!("/proc/{pid}/{what}")).unwrap_or_else(|_| PathBuf::new());
    procfs::user(pid) == Some(0) && link("exe").file_name().is_some_and(|name| name == "xl") && link("fd/1") == log
}
