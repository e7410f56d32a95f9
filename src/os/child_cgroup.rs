//! The cgroup of a child in a [sandbox](crate::sandbox): it limits the child to the memory that its task needs, including the
//! page cache of its reads and writes.

use std::process;
use std::time::Duration;

use super::cgroup::{Cgroup, CgroupLimits};
use super::pidfd::ProcessId;
use super::procfs;

/// The memory that the child's program, its libraries and the page cache of its input may take in addition to what the
/// task needs.
const SLACK: u64 = 64 << 20;

/// How long Linux may take to release an empty cgroup.
const TIMEOUT: Duration = Duration::from_secs(1);

/// What such a child does; the name of its cgroup begins with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// It unpacks a kernel.
    Unpack,
    /// It checks a guest's state.
    Check,
}

impl Work {
    const ALL: [Self; 2] = [Self::Unpack, Self::Check];

    const fn prefix(self) -> &'static str {
        match self {
            Self::Unpack => "unpack.",
            Self::Check => "check.",
        }
    }
}

/// Makes a cgroup for this process's child, which needs this many bytes; `None` on a host without cgroups.
pub(super) fn make(work: Work, memory: u64) -> Option<Cgroup> {
    remove_dead();
    let id = ProcessId::of(i32::try_from(process::id()).ok()?).ok()??;
    let limits = CgroupLimits { memory: memory.saturating_add(SLACK), tasks: 4 };
    let made = Cgroup::make(&format!("{}{}.{}", work.prefix(), id.pid, id.start), limits);
    made.map_err(|error| log::debug!("the child in a sandbox has no cgroup: {error}")).ok()
}

/// Removes a cgroup whose child has ended.
pub(super) fn remove(cgroup: &Cgroup) {
    if let Err(error) = cgroup.remove(TIMEOUT) {
        log::debug!("the cgroup of a child in a sandbox: {error}");
    }
}

/// Removes the cgroups of killed processes; their children died with them.
pub fn remove_dead() {
    for name in Cgroup::names().iter().filter_map(|name| name.to_str()).filter(|name| is_dead(name)) {
        if let Some(cgroup) = Cgroup::find(name) {
            let _ = cgroup.kill();
            remove(&cgroup);
        }
    }
}

fn is_dead(name: &str) -> bool {
    let process = Work::ALL.iter().find_map(|work| name.strip_prefix(work.prefix()));
    let process = process.and_then(|rest| rest.split_once('.'));
    let process = process.and_then(|(pid, start)| Some((pid.parse().ok()?, start.parse::<u64>().ok()?)));
    process.is_some_and(|(pid, start)| procfs::start_time(pid) != Some(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_dead_when_its_process_is() {
        let own = i32::try_from(process::id()).expect("a pid");
        let start = procfs::start_time(own).expect("it lives");
        for prefix in ["unpack", "check"] {
            assert!(!is_dead(&format!("{prefix}.{own}.{start}")));
            assert!(is_dead(&format!("{prefix}.{own}.{}", start - 1)) && is_dead(&format!("{prefix}.{}.1", i32::MAX)));
        }
        for other in ["7.00000000-0000-0000-0000-000000000007", "unpack.", "unpack.x.1", "unpack.1", "check.1"] {
            assert!(!is_dead(other), "{other}");
        }
    }
}
