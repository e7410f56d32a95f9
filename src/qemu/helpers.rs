//! The helper processes of a guest, mainly QEMU: how dombuild finds and ends them.
//!
//! The guest's own cgroup lists its helpers. On a host without cgroups, a xenstore node that only dom0 may write names
//! the process with its start time and boot. For a guest of another toolstack, xenstore holds only the process number;
//! the number counts only if the process shows the guest's domain ID on its command line. A user or a command line
//! alone proves nothing, because any local user can show either.

use std::io;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::domain::identity::belongs_to_another;
use crate::domain::paths::XenstorePaths;
use crate::error::Error;
use crate::os::cgroup::{Cgroup, CgroupLimits};
use crate::os::pauses::Pauses;
use crate::os::pidfd::{Process, ProcessId, members};
use crate::os::procfs;
use crate::xen::{DomId, DomainInfo, DomainRef, Interface, Store, XenError};

/// How long QEMU may take to flush its disks and exit.
const TERM_GRACE: Duration = Duration::from_secs(5);
/// How long a killed process may take to disappear.
const KILL_TIMEOUT: Duration = Duration::from_secs(20);

/// The memory limit of QEMU. QEMU needs some 100 MiB for itself; the guest's memory belongs to Xen, and QEMU's mappings
/// of it are not counted. Without a limit, a compromised QEMU could exhaust dom0.
pub const LIMITS: CgroupLimits = CgroupLimits { memory: 1 << 30, tasks: 1024 };

/// How processes are ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// SIGTERM, then SIGKILL after 5 s: a guest that ran may have unwritten disk data.
    InOrder,
    /// SIGKILL at once: the guest has never run.
    AtOnce,
}

/// The name of the cgroup of a guest's helpers.
#[must_use]
pub fn cgroup_name(domain: DomainRef) -> String {
    format!("{}.{}", domain.domid, domain.uuid)
}

/// The domain ID of the guest whose cgroup has this name.
pub(crate) fn domain_of_cgroup(name: &str) -> Option<DomainRef> {
    let (domid, uuid) = name.split_once('.')?;
    Some(DomainRef { domid: DomId::new(domid.parse().ok()?)?, uuid: uuid.parse().ok()? })
}

/// Makes the cgroup of a guest's helpers; `None` on a host without cgroups. Removes empty cgroups of guests that no
/// longer exist: another toolstack that destroys a guest ends its QEMU but leaves the cgroup.
///
/// # Errors
/// If Xen cannot list the domains.
pub fn make_cgroup(xen: &Interface, domain: DomainRef) -> Result<Option<Cgroup>, XenError> {
    let others: Vec<_> = Cgroup::names().iter().filter_map(|name| domain_of_cgroup(name.to_str()?)).collect();
    if !others.is_empty() {
        let domains: Vec<_> = xen.domains()?.iter().map(DomainInfo::held).collect();
        for gone in others.iter().filter(|other| !domains.contains(other)) {
            // `cleanup` handles a non-empty one, because it checks the owner.
            let removed = Cgroup::find(&cgroup_name(*gone)).map_or(Ok(()), |group| group.remove(Duration::ZERO));
            removed.unwrap_or_else(|error| log::debug!("the cgroup of {gone}, which is gone: {error}"));
        }
    }
    let made = Cgroup::make(&cgroup_name(domain), LIMITS);
    Ok(made.map_err(|error| log::info!("QEMU has no cgroup of its own: {error}")).ok())
}

/// Processes that belong together.
pub(crate) enum Helpers {
    /// In the guest's cgroup: all of them, always.
    InCgroup(Cgroup),
    /// The device model that xenstore names, and its process group.
    Known(Vec<Process>),
}

impl Helpers {
    /// The helpers of a guest; none if the guest has none.
    ///
    /// # Errors
    /// If xenstored or the kernel does not answer.
    pub(crate) fn of(store: &Store, domain: DomainRef) -> Result<Option<Self>, String> {
        if let Some(group) = Cgroup::find(&cgroup_name(domain)) {
            return Ok(Some(Self::InCgroup(group)));
        }
        let leader = recorded(store, domain).map_err(|error| error.to_string())?;
        let Some(leader) = leader.transpose().map_err(|error| error.to_string())? else { return Ok(None) };
        let mut known = members(leader.pid()).map_err(|error| error.to_string())?;
        if leader.has_ended() {
            // The number may have belonged to another process while the group was listed.
            known.clear();
        }
        known.push(leader);
        Ok(Some(Self::Known(known)))
    }

    /// Whether any of them runs.
    pub(crate) fn are_running(&self) -> bool {
        match self {
            Self::InCgroup(group) => !group.is_empty().unwrap_or(false),
            Self::Known(processes) => !processes.iter().all(Process::has_ended),
        }
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        match self {
            Self::InCgroup(group) if signal == Signal::SIGKILL => group.kill(),
            Self::InCgroup(group) => group.processes()?.iter().try_for_each(|process| process.signal(signal)),
            Self::Known(processes) => processes.iter().try_for_each(|process| process.signal(signal)),
        }
    }

    fn pids(&self) -> Vec<i32> {
        match self {
            Self::InCgroup(group) => group.processes().unwrap_or_default().iter().map(Process::pid).collect(),
            Self::Known(all) => all.iter().filter(|process| !process.has_ended()).map(Process::pid).collect(),
        }
    }

    /// Ends the processes and removes their cgroup.
    ///
    /// # Errors
    /// If a process does not end, or the kernel refuses a call.
    pub(crate) fn end(&self, ending: Ending) -> Result<(), String> {
        let failed =
            |error: io::Error| format!("the device model (process {:?}) cannot be ended: {error}", self.pids());
        let in_order = [(Signal::SIGTERM, TERM_GRACE), (Signal::SIGKILL, KILL_TIMEOUT)];
        let steps = if ending == Ending::InOrder { &in_order[..] } else { &in_order[1..] };
        for (signal, patience) in steps {
            self.signal(*signal).map_err(failed)?;
            let (start, mut pauses) = (Instant::now(), Pauses::new());
            while self.are_running() && start.elapsed() < *patience {
                pauses.sleep();
            }
            if !self.are_running() {
                break;
            }
        }
        if self.are_running() {
            return Err(format!("the device model (process {:?}) does not end", self.pids()));
        }
        match self {
            Self::InCgroup(group) => group.remove(KILL_TIMEOUT).map_err(failed),
            Self::Known(_) => Ok(()),
        }
    }
}

/// Whether the guest has a QEMU that serves disks to its paravirtual drivers. QEMU makes a directory for the classes of devices
/// that it serves (`xenstore_mkdir` in `xen_be_register`, hw/xen/xen-legacy-backend.c, QEMU 7.2 and 10.0); one without rights on
/// xenstore makes none.
///
/// # Errors
/// If xenstored or the kernel does not answer.
pub fn serves_disks(store: &Store, domain: DomainRef) -> Result<bool, Error> {
    let directory = format!("{}/backends", XenstorePaths::new(domain.domid).device_model);
    if store.plain().read(&directory)?.is_none() {
        return Ok(false);
    }
    let running = Helpers::of(store, domain).map(|helpers| helpers.is_some_and(|helpers| helpers.are_running()));
    running.map_err(|problem| Error::io("look for the guest's QEMU")(io::Error::other(problem)))
}

/// The running device model that xenstore names, if the keys belong to this domain.
fn recorded(store: &Store, domain: DomainRef) -> Result<Option<io::Result<Process>>, XenError> {
    let keys = XenstorePaths::new(domain.domid);
    // The nodes of libxl and xenopsd.
    let processes = [keys.device_model_process(), keys.device_model_pid(), keys.of_domain("qemu-pid")];
    let paths = [&[keys.owner_tag(), keys.of_domain("vm")], &processes[..]].concat();
    let [mark, vm, own, libxl, xenopsd] = store.plain().read_all(&paths)?.try_into().unwrap_or_default();
    if belongs_to_another(mark.as_deref(), vm.as_deref(), domain.uuid) {
        return Ok(None);
    }
    if let Some(id) = own.and_then(|text| serde_json::from_str::<ProcessId>(&text).ok()) {
        return Ok(Process::find(&id).transpose());
    }
    let pid = libxl.or(xenopsd).and_then(|text| text.parse().ok()).filter(|pid| *pid > 1);
    let process = pid.and_then(|pid| Process::open(pid).transpose());
    // Checked after the process is held, so that its number cannot be reused.
    Ok(process.filter(|held| held.as_ref().map_or(true, |held| serves(held.pid(), domain.domid))))
}

/// Whether a process shows that it serves this domain as its device model.
fn serves(pid: i32, domid: DomId) -> bool {
    let wanted = domid.to_string();
    let words = procfs::command_line(pid);
    words.windows(2).any(|pair| pair[0].ends_with(b"-xen-domid") && pair[1] == wanted.as_bytes())
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_cgroup_names_its_guest() {
        let domain = DomainRef { domid: DomId::new(7).expect("a domid"), uuid: Uuid::from_u128(7) };
        assert_eq!(domain_of_cgroup(&cgroup_name(domain)), Some(domain));
        for other in ["", "7", "7.", ".7", "x.00000000-0000-0000-0000-000000000007", "unpack.7"] {
            assert_eq!(domain_of_cgroup(other), None, "{other}");
        }
    }
}
