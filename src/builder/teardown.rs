//! Removes a domain and everything that belongs to it: device model, sockets, xenstore, memory.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use super::Keys;
use crate::config::RUN_DIRECTORY;
use crate::xen::{DomId, Interface, Store, XenError};

/// How long QEMU may take to end by itself, with its disks written.
const POLITE: Duration = Duration::from_secs(5);
/// How long a killed process may take to be gone, and a destroyed domain to give its memory back.
const FINAL: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// Where libxl keeps files of domains that it created.
const LIBXL_USERDATA: &str = "/var/lib/xen";

/// Removes the domain: pauses it, ends its device model, destroys it, removes its keys and waits until it is gone.
/// Goes on after a failure, so that as little as possible stays.
///
/// # Errors
/// Everything that could not be removed, in one sentence.
pub fn teardown(xen: &Interface, store: &Store, domid: DomId) -> Result<(), String> {
    let keys = Keys::new(domid);
    let mut problems: Vec<String> = Vec::new();
    let mut note = |problem: Result<(), String>| problems.extend(problem.err());

    // A guest without its device model would only wait for it; and a pause that fails does no harm.
    if let Err(error) = xen.pause(domid) {
        log::debug!("{error}");
    }
    note(stop_device_model(store, &keys));
    note(xen.destroy(domid).or_else(ignore_gone).map_err(|error| error.to_string()));
    note(remove_keys(store, &keys).map_err(|error| error.to_string()));
    for file in files_of(domid) {
        note(remove_file(&file));
    }
    note(wait_gone(xen, domid));
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

fn ignore_gone(error: XenError) -> Result<(), XenError> {
    if error.errno == Some(Errno::ESRCH) { Ok(()) } else { Err(error) }
}

/// Ends the process named in xenstore, if it really is this domain's device model.
fn stop_device_model(store: &Store, keys: &Keys) -> Result<(), String> {
    let text = store.plain().read(&keys.device_model_pid()).map_err(|error| error.to_string())?;
    let Some(pid) = text.and_then(|text| text.trim().parse::<i32>().ok()).filter(|pid| *pid > 1) else {
        return Ok(());
    };
    if !is_device_model_of(pid, keys.domid) {
        return Ok(());
    }
    for (signal, patience) in [(Signal::SIGTERM, POLITE), (Signal::SIGKILL, FINAL)] {
        // It leads a process group of its own, with whatever it started; xl's does as well.
        let group = killpg(Pid::from_raw(pid), signal);
        match if group == Err(Errno::ESRCH) { kill(Pid::from_raw(pid), signal) } else { group } {
            Ok(()) => {}
            Err(Errno::ESRCH) => return Ok(()),
            Err(errno) => return Err(format!("kill({pid}, {signal}) failed: {errno}")),
        }
        if wait_until(patience, || has_ended(pid)) {
            return Ok(());
        }
    }
    Err(format!("the device model (process {pid}) does not end"))
}

/// A process number may have been given to another process meanwhile: look at its arguments.
fn is_device_model_of(pid: i32, domid: DomId) -> bool {
    let Ok(arguments) = fs::read(format!("/proc/{pid}/cmdline")) else { return false };
    let words: Vec<&[u8]> = arguments.split(|byte| *byte == 0).collect();
    let domid = domid.to_string();
    words.windows(2).any(|pair| pair[0] == b"-xen-domid" && pair[1] == domid.as_bytes())
}

/// Whether the process is gone; one that was started by this run is reaped.
fn has_ended(pid: i32) -> bool {
    match waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)) {
        Ok(WaitStatus::StillAlive) => false,
        Ok(_) => true,
        Err(_) => kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH),
    }
}

/// Removes every node that belongs to the domain, in one transaction.
fn remove_keys(store: &Store, keys: &Keys) -> Result<(), XenError> {
    store.transaction(|transaction| {
        let vm_path = transaction.read(&keys.of_domain("vm"))?;
        if let Some(path) = vm_path.filter(|path| path.starts_with("/vm/") && path.len() > "/vm/".len()) {
            transaction.remove(&path)?;
        }
        let backends = "/local/domain/0/backend";
        for kind in transaction.children(backends)? {
            transaction.remove(&format!("{backends}/{kind}/{}", keys.domid))?;
        }
        transaction.remove(&keys.device_model)?;
        transaction.remove(&keys.libxl)?;
        transaction.remove(&keys.domain)
    })
}

/// QEMU's sockets, and what libxl keeps about a domain of its own.
fn files_of(domid: DomId) -> Vec<PathBuf> {
    let run = Path::new(RUN_DIRECTORY);
    let mut files = vec![run.join(format!("qmp-libxl-{domid}")), run.join(format!("qmp-libxenstat-{domid}"))];
    if let Ok(entries) = fs::read_dir(LIBXL_USERDATA) {
        let belongs = |name: &str| {
            name.strip_prefix("userdata-").and_then(|rest| rest.split('.').nth(1)) == Some(&domid.to_string())
        };
        let userdata = entries.flatten().map(|entry| entry.path());
        files.extend(userdata.filter(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(belongs)));
    }
    files
}

fn remove_file(path: &Path) -> Result<(), String> {
    match fs::remove_file(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(format!("cannot remove {}: {error}", path.display())),
    }
}

/// Xen frees a domain's pages in the background, once nobody maps them any more.
fn wait_gone(xen: &Interface, domid: DomId) -> Result<(), String> {
    let mut last = None;
    let gone = wait_until(FINAL, || match xen.domain(domid) {
        Ok(info) => {
            last = info.map(|info| info.owned_pages);
            last.is_none()
        }
        Err(_) => false,
    });
    if gone {
        return Ok(());
    }
    let pages = last.map_or_else(|| "an unknown number of".to_owned(), |pages| pages.0.to_string());
    Err(format!("it still owns {pages} pages after {} s; some process may still map them", FINAL.as_secs()))
}

fn wait_until(patience: Duration, mut done: impl FnMut() -> bool) -> bool {
    let end = Instant::now() + patience;
    loop {
        if done() {
            return true;
        }
        if Instant::now() >= end {
            return false;
        }
        thread::sleep(POLL);
    }
}
