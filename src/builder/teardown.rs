//! Removes a domain and everything that belongs to it: device model, sockets, xenstore, memory.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

use super::Keys;
use crate::config::RUN_DIRECTORY;
use crate::config::confinement::{REAPER, users_of};
use crate::xen::{DomId, Interface, Store, XenError, process};

/// How long QEMU may take to end by itself, with its disks written.
const POLITE: Duration = Duration::from_secs(5);
/// How long a killed process may take to be gone, and a destroyed domain to give its memory back.
const FINAL: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(10);

/// Where libxl keeps files of domains that it created.
const LIBXL_USERDATA: &str = "/var/lib/xen";

/// Removes the domain: pauses it, destroys it, ends its device model, removes its keys and waits until it is gone.
///
/// The domain goes before its device model: QEMU frees the ioreq page when it ends, and Xen scrubs what is freed of a
/// dying domain only (`free_domheap_pages`), so that otherwise the next guest would find this one's last I/O in its RAM.
/// The pages that QEMU maps stay until it has ended, and so does the domain's number.
///
/// Goes on after a failure, so that as little as possible stays. Killed half way, it is gone on with by `cleanup`, where the
/// run was recorded.
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
    // Its handle is asked for while there is one: what /vm/UUID belongs to it, no node may claim.
    let vm_path = vm_path(xen, store, &keys).map_err(|error| error.to_string());
    let destroyed = xen.destroy(domid).or_else(ignore_gone).map_err(|error| error.to_string());
    // One that Xen refused to destroy will not go, however long it is waited for.
    let goes = destroyed.is_ok();
    note(destroyed);
    note(stop_device_model(domid));
    note(kill_users_of(domid));
    note(vm_path.and_then(|vm_path| remove_keys(store, &keys, vm_path).map_err(|error| error.to_string())));
    for file in files_of(domid) {
        note(remove_file(&file));
    }
    if goes {
        note(wait_gone(xen, domid));
    }
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

/// `/vm/UUID` of this domain, unless another one has the same UUID. Where an earlier clean-up came no further than the
/// domain itself, its mark tells the UUID.
fn vm_path(xen: &Interface, store: &Store, keys: &Keys) -> Result<Option<String>, XenError> {
    let domains = xen.domains()?;
    let uuid = match domains.iter().find(|domain| domain.domid == keys.domid) {
        Some(own) => Some(own.uuid),
        None => store.plain().read(&keys.mark())?.and_then(|text| text.parse().ok()),
    };
    Ok(uuid
        .filter(|uuid| !domains.iter().any(|domain| domain.domid != keys.domid && domain.uuid == *uuid))
        .map(|uuid| format!("/vm/{uuid}")))
}

fn ignore_gone(error: XenError) -> Result<(), XenError> {
    if error.errno == Some(Errno::ESRCH) { Ok(()) } else { Err(error) }
}

/// Ends every process that serves this domain as its device model, politely at first. They are found by their
/// arguments: neither xenstored nor a process number from earlier has to be trusted for that.
pub(super) fn stop_device_model(domid: DomId) -> Result<(), String> {
    for (signal, patience) in [(Signal::SIGTERM, POLITE), (Signal::SIGKILL, FINAL)] {
        for pid in device_models_of(domid) {
            end_process(pid, signal)?;
        }
        if wait_until(patience, || device_models_of(domid).is_empty()) {
            return Ok(());
        }
    }
    Err(format!("the device model (process {:?}) does not end", device_models_of(domid)))
}

/// Kills whatever a device model that was taken over has left behind: all processes of the users that belong to this
/// domain. It could hide itself from its arguments and its process group, but not from its user.
///
/// # Errors
/// Where the system refuses.
pub fn kill_users_of(domid: DomId) -> Result<(), String> {
    for uid in users_of(domid) {
        match process::kill_all_of(uid, REAPER) {
            // There can be no such user here (a user namespace), and so no such process.
            Err(error) if error.raw_os_error() == Some(Errno::EINVAL as i32) => {}
            Err(error) => return Err(format!("cannot end the processes of user {uid}: {error}")),
            Ok(()) => {}
        }
    }
    Ok(())
}

/// Signals a process, and with it what it started, where it leads a process group, as ours and xl's do.
///
/// # Errors
/// Where the system refuses the signal.
pub fn end_process(pid: i32, signal: Signal) -> Result<(), String> {
    let group = killpg(Pid::from_raw(pid), signal);
    match if group == Err(Errno::ESRCH) { kill(Pid::from_raw(pid), signal) } else { group } {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => Err(format!("kill({pid}, {signal}) failed: {errno}")),
    }
}

/// The processes with `-xen-domid N` among their arguments; one that has ended has no arguments any more.
pub(super) fn device_models_of(domid: DomId) -> Vec<i32> {
    let wanted = domid.to_string();
    let serves = |arguments: &[u8]| {
        let words: Vec<&[u8]> = arguments.split(|byte| *byte == 0).collect();
        words.windows(2).any(|pair| pair[0].ends_with(b"-xen-domid") && pair[1] == wanted.as_bytes())
    };
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|arguments| serves(&arguments)))
        .collect()
}

/// Removes every node that belongs to the domain, in one transaction.
pub(super) fn remove_keys(store: &Store, keys: &Keys, vm_path: Option<String>) -> Result<(), XenError> {
    store.transaction(|transaction| {
        if let Some(path) = &vm_path {
            transaction.remove(path)?;
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
pub(super) fn files_of(domid: DomId) -> Vec<PathBuf> {
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

/// Removes a file; one that is not there is no error.
///
/// # Errors
/// What the system says.
pub fn remove_file(path: &Path) -> Result<(), String> {
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
