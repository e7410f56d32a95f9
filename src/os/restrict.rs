//! Namespaces, resource limits and a system call filter for a device model, which a guest may compromise.

use std::io;

use super::launch::Step;
use super::system_call_filter::SystemCallFilter;

/// Resource limits: no core file (it would contain guest memory), no message queues, no locked memory, no raised
/// priority, and bounds on descriptors, processes and threads.
const LIMITS: [(libc::__rlimit_resource_t, libc::rlim_t); 8] = [
    (libc::RLIMIT_CORE, 0),
    (libc::RLIMIT_MSGQUEUE, 0),
    (libc::RLIMIT_LOCKS, 0),
    (libc::RLIMIT_MEMLOCK, 0),
    (libc::RLIMIT_NICE, 0),
    (libc::RLIMIT_RTPRIO, 0),
    (libc::RLIMIT_NOFILE, 4096),
    (libc::RLIMIT_NPROC, 1024),
];

/// The settings that differ between device models.
#[derive(Debug)]
pub struct Restriction {
    /// It keeps the network namespace of this process.
    pub network: bool,
    /// The system call filter; `None` permits every call.
    pub filter: Option<SystemCallFilter>,
}

/// Returns the step that confines a program at start: its own mount, IPC, UTS and cgroup namespaces, and a network
/// namespace unless it keeps this process's; resource limits; `PR_SET_NO_NEW_PRIVS`; the filter. libxl does less for a
/// restricted device model (tools/libs/light/libxl_linux.c, libxl__local_dm_preexec_restrict, Xen 4.17). Without the
/// privileges for it, the program does not start. It must be the last step, because the filter applies to later ones.
#[must_use]
pub fn restrict_device_model(restriction: Restriction) -> Step {
    let Restriction { network, mut filter } = restriction;
    let shared = if network { 0 } else { libc::CLONE_NEWNET };
    let spaces = libc::CLONE_NEWNS | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | shared;
    // SAFETY: between fork and exec, the closure makes system calls only: it allocates nothing, takes no lock, and its
    // pointers refer to locals that outlive the call. The filter is compiled before.
    unsafe {
        Step::new(move || {
            // A kernel without cgroups has no cgroup namespace, and nothing to hide. A second unshare would cost as
            // much as the first.
            match done(libc::unshare(spaces | libc::CLONE_NEWCGROUP)) {
                Err(error) if error.raw_os_error() == Some(libc::EINVAL) => done(libc::unshare(spaces))?,
                outcome => outcome?,
            }
            for (resource, most) in LIMITS {
                let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
                done(libc::getrlimit(resource, &raw mut limit))?;
                let limit = libc::rlimit { rlim_cur: limit.rlim_cur.min(most), rlim_max: limit.rlim_max.min(most) };
                done(libc::setrlimit(resource, &raw const limit))?;
            }
            done(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))?;
            filter.as_mut().map_or(Ok(()), SystemCallFilter::apply)
        })
    }
}

fn done(returned: libc::c_int) -> io::Result<()> {
    if returned == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::process::Command;

    use super::super::system_call_filter::Additional;
    use super::*;

    const SPACES: [&str; 5] = ["mnt", "ipc", "uts", "cgroup", "net"];

    fn restricted(network: bool) -> Option<String> {
        let filter = SystemCallFilter::new(Additional { network, programs: false });
        let mut command = Command::new("sh");
        // Builtins only: it may not start programs.
        let links = SPACES.map(|space| format!("/proc/self/ns/{space}")).join(" ");
        let line = format!(
            "while read -r line; do echo \"$line\"; done </proc/self/status; ulimit -c; ulimit -n; exec readlink {links}"
        );
        restrict_device_model(Restriction { network, filter: Some(filter) }).put_into(command.args(["-c", &line]));
        // Without root, or without namespaces, there is nothing to test.
        match command.output() {
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => None,
            output => Some(String::from_utf8(output.expect("sh").stdout).expect("UTF-8")),
        }
    }

    #[test]
    fn a_device_model_is_restricted() {
        for network in [false, true] {
            let Some(text) = restricted(network) else { return };
            let line = |name: &str| {
                let line =
                    text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("{name}: {text}"));
                line.trim().to_owned()
            };
            assert_eq!(line("NoNewPrivs:"), "1");
            assert_eq!(line("Seccomp:"), "2");
            assert!(text.lines().any(|line| line == "0"), "core: {text}");
            for space in SPACES {
                let own = fs::read_link(format!("/proc/self/ns/{space}")).expect("a namespace").display().to_string();
                assert_eq!(text.contains(&own), space == "net" && network, "{space}: {text}");
            }
        }
    }

    #[test]
    fn without_a_filter_every_call_is_there() {
        let mut command = Command::new("cat");
        restrict_device_model(Restriction { network: true, filter: None }).put_into(command.arg("/proc/self/status"));
        let Ok(output) = command.output() else { return };
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(text.lines().any(|line| line.starts_with("NoNewPrivs:") && line.ends_with('1')), "{text}");
    }
}
