//! What a failed call means, and what to do about it: one table, by call and errno.
//!
//! Each call's errnos are those that Xen 4.17 to 4.20 return there for a call such as dombuild makes it (xen/common/domctl.c,
//! xen/common/domain.c, xen/common/memory.c, xen/common/grant_table.c, xen/common/sched/cpupool.c, xen/arch/x86/domctl.c,
//! xen/arch/x86/hvm/hvm.c, xen/arch/x86/mm/paging.c, xen/arch/x86/mm/p2m-pod.c, xen/xsm/flask), or that the library itself sets.
//! docs/errors.md is made from it.

use nix::errno::Errno;

/// A call, and each errno that is known of it, with what it means and what to do.
type Call = (&'static str, &'static [(Errno, &'static str)]);

const ROOT: &str = "run dombuild as root in dom0";
const GONE: &str = "the domain is gone, somebody else has destroyed it; `xl list` shows which are there";
const DENIED: &str = "Xen refused this to the calling domain: run in dom0, and check FLASK's policy";
const LABEL: &str =
    "FLASK's policy does not allow this: `xl dmesg` shows what was denied; load a policy that allows it";
const RELEASE: &str =
    "the running Xen is another release than dombuild was built for, or lacks this; see `dombuild features`";
const NO_MEMORY: &str = "the host ran out of free memory; `xl info` shows free_memory and outstanding_claims: shut down another guest, or give this one less";
const XEN_HEAP: &str =
    "Xen has no memory for its own structures of this domain: shut down another guest, or give this one less";
const LOCAL_MEMORY: &str = "dom0 itself has no memory left for the call: give dom0 more, or end something in it";
const NOT_HVM: &str = "the domain is of another kind than this call is for; --kind must say what it was created as";
const LIBRARY: &str = "the library could not allocate memory in dom0: give dom0 more, or end something in it";
const STORE_GONE: &str = "xenstored has ended or closed the connection; see whether it runs, and its log";
const STORE_FULL: &str = "xenstored has reached a limit of its own; its log and `xenstore-control quota` tell which";
const STORE_TEXT: &str = "a path or a value is none that xenstored takes";
const STORE_LONG: &str = "a path or a value is longer than the 4096 bytes that xenstored takes at once";
const STORE_DENIED: &str = "xenstored takes the caller for another domain than dom0: run in dom0, as root";
const STORE_MISSING: &str = "somebody has removed the node in xenstore, most likely with its domain";

/// The table, in alphabetical order.
pub const TABLE: &[Call] = &[
    ("xc_cpu_policy_get_domain", &[(Errno::ESRCH, GONE), (Errno::ENOBUFS, RELEASE)]),
    ("xc_cpu_policy_get_size", &[(Errno::EOPNOTSUPP, RELEASE)]),
    ("xc_cpu_policy_init", &[(Errno::ENOMEM, LIBRARY)]),
    ("xc_cpu_policy_serialise", &[(Errno::ENOBUFS, RELEASE)]),
    (
        "xc_cpuid_apply_policy",
        &[
            (
                Errno::EINVAL,
                "the featureset or the topology cannot be shown on this host: leave out --platform featureset and cores-per-socket",
            ),
            (Errno::EOPNOTSUPP, "the CPU cannot show this to guests of this kind: leave out --platform featureset"),
            (Errno::ENOMEM, LIBRARY),
            (Errno::ESRCH, GONE),
        ],
    ),
    (
        "xc_cpupool_getinfo",
        &[
            (Errno::ENOENT, "there is no CPU pool of this number; `xl cpupool-list` shows which there are"),
            (Errno::ENOMEM, LIBRARY),
        ],
    ),
    ("xc_dom_allocate", &[(Errno::ENOMEM, LIBRARY)]),
    (
        "xc_dom_boot_image",
        &[
            (Errno::ENOMEM, NO_MEMORY),
            (Errno::ESRCH, GONE),
            (Errno::EINVAL, "Xen refused the first vCPU's registers: the kernel is for another mode of the CPU"),
        ],
    ),
    (
        "xc_dom_boot_mem_init",
        &[
            (Errno::ENOMEM, NO_MEMORY),
            (
                Errno::E2BIG,
                "the domain would own more pages than its maximum: raise its limit (xc_domain_setmaxmem; `xl mem-max` for a guest \
                 of xl's)",
            ),
            (
                Errno::EINVAL,
                "the domain cannot be populated like this: it is of another kind than --kind, or is not empty any more",
            ),
            (Errno::EBUSY, "something of the domain is populated already; build into an empty domain"),
            (Errno::ESRCH, GONE),
        ],
    ),
    ("xc_dom_boot_xen_init", &[(Errno::EINVAL, RELEASE), (Errno::ESRCH, GONE), (Errno::ENOMEM, LIBRARY)]),
    (
        "xc_dom_build_image",
        &[
            (Errno::ENOMEM, NO_MEMORY),
            (Errno::EINVAL, "the kernel asks for memory where the guest has none: give it more, or another kernel"),
            (Errno::ESRCH, GONE),
        ],
    ),
    (
        "xc_dom_gnttab_init",
        &[
            (Errno::ENOMEM, NO_MEMORY),
            (Errno::ESRCH, GONE),
            (Errno::EINVAL, "the domain has no grant table: it was created with another version, or is dying"),
        ],
    ),
    ("xc_dom_kernel_max_size", &[(Errno::EINVAL, "the kernel is larger than libxenguest takes")]),
    ("xc_dom_kernel_mem", &[(Errno::ENOMEM, LIBRARY), (Errno::EINVAL, "the kernel cannot be unpacked")]),
    ("xc_dom_mem_init", &[(Errno::ENOMEM, LIBRARY)]),
    ("xc_dom_module_max_size", &[(Errno::EINVAL, "the ramdisk is larger than libxenguest takes")]),
    (
        "xc_dom_module_mem",
        &[(Errno::ENOMEM, LIBRARY), (Errno::EINVAL, "there are too many modules, or one is too large")],
    ),
    (
        "xc_dom_parse_image",
        &[(Errno::EINVAL, "the kernel is of no form that libxenguest knows"), (Errno::ENOMEM, LIBRARY)],
    ),
    ("xc_dom_pfn_to_ptr", &[(Errno::EINVAL, LIBRARY), (Errno::ENOMEM, LOCAL_MEMORY)]),
    (
        "xc_domain_claim_pages",
        &[
            (Errno::ENOMEM, NO_MEMORY),
            (Errno::EINVAL, "the domain has a claim already, owns more than was claimed, or its limit is lower"),
            (Errno::ESRCH, GONE),
        ],
    ),
    (
        "xc_domain_create",
        &[
            (Errno::EINVAL, "Xen refused one of the domain's settings; a debug build of Xen says which in `xl dmesg`"),
            (
                Errno::ENOMEM,
                "Xen has no memory for the domain's structures, or no number left: lower --max-grant-frames, --max-maptrack-frames or --vcpus, or shut down another guest",
            ),
            (Errno::ESRCH, "there is no CPU pool of this number; `xl cpupool-list` shows which there are"),
            (Errno::ENODEV, "the CPU pool has no CPU; give it one (`xl cpupool-cpu-add`), or choose another"),
            (Errno::EEXIST, "the number belongs to another domain"),
            (Errno::EACCES, LABEL),
            (
                Errno::EPERM,
                "Xen does not create domains for the calling domain, or none on this CPU for security reasons; `xl dmesg` tells, and which option allows it",
            ),
            (Errno::ENOSYS, "this Xen cannot run guests of this kind; `dombuild features` shows what it can"),
            (Errno::EOPNOTSUPP, "this Xen cannot run guests of this kind; `dombuild features` shows what it can"),
        ],
    ),
    (
        "xc_domain_destroy",
        &[
            (Errno::ESRCH, GONE),
            (Errno::EINVAL, "dom0 cannot be destroyed"),
            (Errno::EBUSY, "Xen is still busy with the domain; try again"),
        ],
    ),
    ("xc_domain_get_native_protocol", &[(Errno::ESRCH, GONE)]),
    (
        "xc_domain_get_pod_target",
        &[(Errno::ESRCH, GONE), (Errno::EINVAL, "a PV guest is not populated on demand"), (Errno::EOPNOTSUPP, RELEASE)],
    ),
    ("xc_domain_get_tsc_info", &[(Errno::ESRCH, GONE), (Errno::EINVAL, "dom0's own clock cannot be asked for")]),
    ("xc_domain_getinfolist", &[(Errno::ENOMEM, LOCAL_MEMORY)]),
    (
        "xc_domain_hvm_getcontext",
        &[
            (Errno::ESRCH, GONE),
            (Errno::EINVAL, NOT_HVM),
            (Errno::ENOSPC, "the domain has got more devices meanwhile; try again"),
            (Errno::ENOMEM, XEN_HEAP),
        ],
    ),
    (
        "xc_domain_max_vcpus",
        &[
            (Errno::EINVAL, "the domain was created with another number of vCPUs: --vcpus must equal it"),
            (Errno::ENOMEM, "Xen has no memory for the vCPUs: give fewer with --vcpus, or shut down another guest"),
            (Errno::ESRCH, GONE),
        ],
    ),
    (
        "xc_domain_node_setaffinity",
        &[
            (Errno::EINVAL, "this host has none of these NUMA nodes; `xl info -n` shows which it has"),
            (Errno::ESRCH, GONE),
            (Errno::ENOMEM, LOCAL_MEMORY),
        ],
    ),
    (
        "xc_domain_pause",
        &[
            (Errno::ESRCH, GONE),
            (Errno::EINVAL, "the calling domain cannot pause itself"),
            (Errno::EUSERS, "it was paused too many times"),
        ],
    ),
    (
        "xc_domain_populate_physmap",
        &[
            (
                Errno::EBUSY,
                "the host's memory and the domain's limit would do: its paging pool is too small for so many pages",
            ),
            (
                Errno::EINVAL,
                "the domain cannot be populated like this: it is of another kind than --kind, or is not empty any more",
            ),
            (Errno::ESRCH, GONE),
            (Errno::ENOMEM, LOCAL_MEMORY),
        ],
    ),
    ("xc_domain_set_memmap_limit", &[(Errno::ESRCH, GONE), (Errno::ENOMEM, XEN_HEAP)]),
    (
        "xc_domain_set_memory_map",
        &[
            (Errno::EINVAL, "the memory map has more ranges than Xen takes: leave out a device of --pci"),
            (Errno::ESRCH, GONE),
            (Errno::ENOMEM, XEN_HEAP),
        ],
    ),
    (
        "xc_domain_set_pod_target",
        &[
            (
                Errno::EINVAL,
                "the target is above the domain's limit: raise that first (xc_domain_setmaxmem; `xl mem-max` for a guest of xl's)",
            ),
            (Errno::ENOMEM, NO_MEMORY),
            (Errno::ESRCH, GONE),
            (Errno::EOPNOTSUPP, RELEASE),
        ],
    ),
    ("xc_domain_set_time_offset", &[(Errno::ESRCH, GONE)]),
    (
        "xc_domain_set_tsc_info",
        &[
            (Errno::EINVAL, "this Xen does not know that mode of the TSC: --platform tsc-mode takes 0, 1 or 2"),
            (Errno::ESRCH, GONE),
        ],
    ),
    ("xc_domain_setmaxmem", &[(Errno::ESRCH, GONE)]),
    ("xc_domain_unpause", &[(Errno::ESRCH, GONE), (Errno::EINVAL, "the domain is not paused")]),
    (
        "xc_evtchn_alloc_unbound",
        &[
            (Errno::ENOSPC, "the domain has no port left: give more with --event-channels"),
            (Errno::EINVAL, "the domain is dying"),
            (Errno::ENOMEM, XEN_HEAP),
            (
                Errno::ESRCH,
                "one of the two domains is gone: this one, or the one where xenstored or xenconsoled runs (`xenstore-read /tool/xenstored/domid`)",
            ),
            (Errno::EACCES, LABEL),
        ],
    ),
    (
        "xc_flask_context_to_sid",
        &[
            (Errno::ENOSYS, "this Xen runs without FLASK; leave --seclabel out, or boot Xen with flask=enforcing"),
            (
                Errno::EINVAL,
                "the loaded FLASK policy does not know this label; `xl dmesg` and the policy's sources have the names",
            ),
            (Errno::ENOENT, "the label is longer than FLASK takes"),
            (Errno::ENOMEM, LOCAL_MEMORY),
            (Errno::EACCES, LABEL),
        ],
    ),
    ("xc_get_cpu_featureset", &[(Errno::ENOBUFS, RELEASE), (Errno::EOPNOTSUPP, RELEASE), (Errno::EINVAL, RELEASE)]),
    ("xc_get_cpumap_size", &[(Errno::EACCES, RELEASE)]),
    ("xc_get_nodemap_size", &[(Errno::EACCES, RELEASE)]),
    ("xc_get_paging_mempool_size", &[(Errno::EOPNOTSUPP, NOT_HVM), (Errno::ESRCH, GONE)]),
    ("xc_gnttab_query_size", &[(Errno::EFAULT, RELEASE), (Errno::ENOMEM, LOCAL_MEMORY)]),
    ("xc_hvm_param_get", &[(Errno::EINVAL, NOT_HVM), (Errno::ESRCH, GONE)]),
    (
        "xc_hvm_param_set",
        &[
            (
                Errno::EINVAL,
                "the value is none that this Xen takes, or the domain is no HVM or PVH guest; --platform sets most of them",
            ),
            (Errno::EEXIST, "the domain has another value already, and this can be set once: build into a new domain"),
            (Errno::ENXIO, "the domain has no such frame, or the port no such channel"),
            (Errno::EOPNOTSUPP, "this CPU or this Xen cannot do it; leave the --platform setting out"),
            (Errno::ESRCH, GONE),
        ],
    ),
    (
        "xc_interface_open",
        &[
            (Errno::EACCES, ROOT),
            (Errno::EPERM, ROOT),
            (Errno::ENOENT, "is this dom0 of a running Xen? `modprobe xen-privcmd` makes /dev/xen/privcmd there"),
            (Errno::ENODEV, "is this dom0 of a running Xen? `modprobe xen-privcmd` makes /dev/xen/privcmd there"),
            (Errno::ENXIO, "is this dom0 of a running Xen? `modprobe xen-privcmd` makes /dev/xen/privcmd there"),
            (Errno::EMFILE, "too many files are open in this process: raise its limit (ulimit -n)"),
            (Errno::ENFILE, "too many files are open on this host"),
            (Errno::ENOMEM, LIBRARY),
        ],
    ),
    (
        "xc_map_foreign_range",
        &[
            (Errno::EINVAL, "the guest has no page there"),
            (Errno::ENOENT, "the guest's page is paged out"),
            (Errno::ENOMEM, LOCAL_MEMORY),
            (Errno::ESRCH, GONE),
            (Errno::EFAULT, "the guest has no page there"),
        ],
    ),
    ("xc_physinfo", &[(Errno::EACCES, RELEASE)]),
    (
        "xc_reserved_device_memory_map",
        &[
            (Errno::ENOBUFS, "the host reserves more regions than were asked for; try again"),
            (Errno::ENODEV, "there is no such PCI device; `lspci -D` shows which there are"),
            (Errno::ENOSYS, RELEASE),
        ],
    ),
    (
        "xc_sched_credit2_domain_get",
        &[
            (Errno::EINVAL, "the domain's scheduler is another one; `xl cpupool-list` shows which"),
            (Errno::ESRCH, GONE),
        ],
    ),
    (
        "xc_sched_credit2_domain_set",
        &[
            (Errno::EINVAL, "the scheduler does not take this weight or cap: 1 to 65535, and 100 per vCPU at most"),
            (Errno::ESRCH, GONE),
        ],
    ),
    (
        "xc_sched_credit_domain_get",
        &[
            (Errno::EINVAL, "the domain's scheduler is another one; `xl cpupool-list` shows which"),
            (Errno::ESRCH, GONE),
        ],
    ),
    (
        "xc_sched_credit_domain_set",
        &[
            (Errno::EINVAL, "the scheduler does not take this weight or cap: 1 to 65535, and 100 per vCPU at most"),
            (Errno::ESRCH, GONE),
        ],
    ),
    (
        "xc_set_domain_cpu_policy",
        &[
            (
                Errno::EINVAL,
                "Xen refuses what the guest would see of the CPU: leave out --platform cores-per-socket and featureset",
            ),
            (Errno::EEXIST, "the domain runs already, or has run: what it sees of the CPU cannot be changed"),
            (Errno::ESRCH, GONE),
            (Errno::ENOMEM, LOCAL_MEMORY),
        ],
    ),
    (
        "xc_set_paging_mempool_size",
        &[
            (Errno::ENOMEM, NO_MEMORY),
            (Errno::EINVAL, "the pool is not whole pages, or more than Xen can count: lower --shadow-multiplier"),
            (Errno::EOPNOTSUPP, NOT_HVM),
            (Errno::ESRCH, GONE),
        ],
    ),
    (
        "xc_vcpu_getaffinity",
        &[(Errno::EINVAL, "there is no such vCPU"), (Errno::ESRCH, GONE), (Errno::ENOMEM, LOCAL_MEMORY)],
    ),
    ("xc_vcpu_getinfo", &[(Errno::EINVAL, "there is no such vCPU"), (Errno::ESRCH, GONE)]),
    (
        "xc_vcpu_setaffinity",
        &[
            (
                Errno::EINVAL,
                "none of these CPUs is there, or in the domain's CPU pool: --platform vcpu/N/affinity must name one that is",
            ),
            (Errno::EBUSY, "Xen has just moved the vCPU off a CPU that goes away; try again"),
            (Errno::ESRCH, GONE),
            (Errno::ENOMEM, LOCAL_MEMORY),
        ],
    ),
    ("xc_version", &[(Errno::ENOSYS, RELEASE)]),
    ("xs_check_watch", &[(Errno::EPIPE, STORE_GONE)]),
    ("xs_directory", &[(Errno::ENOENT, STORE_MISSING), (Errno::EACCES, STORE_DENIED)]),
    (
        "xs_introduce_domain",
        &[
            (
                Errno::EINVAL,
                "xenstored cannot reach the domain's ring: the frame or the port is not the guest's, or another xenstored has it",
            ),
            (Errno::EACCES, STORE_DENIED),
            (Errno::ENOENT, GONE),
            (Errno::ENOMEM, "xenstored has no memory for another domain: see its log"),
        ],
    ),
    (
        "xs_mkdir",
        &[
            (Errno::EACCES, STORE_DENIED),
            (Errno::EINVAL, STORE_TEXT),
            (Errno::ENOSPC, STORE_FULL),
            (Errno::E2BIG, STORE_LONG),
        ],
    ),
    (
        "xs_open",
        &[
            (Errno::EACCES, ROOT),
            (Errno::EPERM, ROOT),
            (Errno::ENOENT, "start xenstored (systemctl start xenstored, or xencommons)"),
            (
                Errno::ECONNREFUSED,
                "xenstored has ended and left its socket behind: start it (systemctl start xenstored, or xencommons)",
            ),
            (Errno::EAGAIN, "xenstored takes no more connections; see what has so many open"),
            (Errno::EMFILE, "too many files are open in this process: raise its limit (ulimit -n)"),
            (Errno::ENOMEM, LOCAL_MEMORY),
        ],
    ),
    (
        "xs_read",
        &[
            (Errno::ENOENT, STORE_MISSING),
            (Errno::EACCES, STORE_DENIED),
            (Errno::EISDIR, STORE_TEXT),
            (Errno::EINVAL, STORE_TEXT),
        ],
    ),
    ("xs_rm", &[(Errno::EACCES, STORE_DENIED), (Errno::ENOENT, STORE_MISSING), (Errno::EINVAL, STORE_TEXT)]),
    (
        "xs_set_permissions",
        &[
            (Errno::EACCES, STORE_DENIED),
            (Errno::ENOENT, STORE_MISSING),
            (Errno::EINVAL, STORE_TEXT),
            (Errno::ENOSPC, STORE_FULL),
        ],
    ),
    (
        "xs_transaction_end",
        &[
            (Errno::EAGAIN, "others keep changing the same nodes of xenstore; try again"),
            (Errno::ENOENT, STORE_MISSING),
            (Errno::ENOSPC, STORE_FULL),
        ],
    ),
    ("xs_transaction_start", &[(Errno::ENOSPC, STORE_FULL), (Errno::EBUSY, STORE_FULL)]),
    (
        "xs_watch",
        &[
            (Errno::EEXIST, "this process watches the node already"),
            (Errno::EINVAL, STORE_TEXT),
            (Errno::ENOSPC, STORE_FULL),
            (Errno::E2BIG, STORE_FULL),
        ],
    ),
    (
        "xs_write",
        &[
            (Errno::EACCES, STORE_DENIED),
            (Errno::EINVAL, STORE_TEXT),
            (Errno::E2BIG, STORE_LONG),
            (Errno::ENOSPC, STORE_FULL),
        ],
    ),
];

/// What an errno means whichever call to Xen it came from.
const OF_XEN: &[(Errno, &str)] = &[
    (Errno::ESRCH, GONE),
    (Errno::EPERM, DENIED),
    // A domctl or sysctl of another interface version (xen/common/domctl.c, do_domctl).
    (Errno::EACCES, RELEASE),
    (Errno::E2BIG, "the domain would own more pages than its maximum (setmaxmem) allows"),
    (Errno::ENOMEM, NO_MEMORY),
    (Errno::EFAULT, RELEASE),
    (Errno::ENOSYS, RELEASE),
    (Errno::EOPNOTSUPP, RELEASE),
    (Errno::EBADF, "the handle of Xen was closed under dombuild's feet: something else in the process did that"),
];

/// And to xenstored.
const OF_XENSTORE: &[(Errno, &str)] = &[
    (Errno::EACCES, STORE_DENIED),
    (Errno::EPERM, STORE_DENIED),
    (Errno::EPIPE, STORE_GONE),
    (Errno::ECONNRESET, STORE_GONE),
    (
        Errno::ETIMEDOUT,
        "it is stopped or overloaded: look at its process and its log; --store-timeout gives it longer, and `dombuild \
         cleanup` finds what is left once it answers",
    ),
    (Errno::ECANCELED, "a signal ended the wait for xenstored's answer"),
    (Errno::EIO, "xenstored cannot work on its database: see its log"),
    (Errno::ENOMEM, "xenstored has no memory left: see its log, and give its domain more"),
    (Errno::E2BIG, STORE_LONG),
    (Errno::ENOSPC, STORE_FULL),
    (
        Errno::EPROTO,
        "xenstored answers something else than it was asked: its log may tell why, and whether it is Xen's own",
    ),
];

/// What to do about this errno of this call, where that is known.
#[must_use]
pub fn advice(call: &str, errno: Errno) -> Option<&'static str> {
    let of_call = TABLE.iter().find(|(name, _)| *name == call).map_or(&[][..], |(_, known)| known);
    let of_all = if call.starts_with("xs_") { OF_XENSTORE } else { OF_XEN };
    of_call.iter().chain(of_all).find(|(known, _)| *known == errno).map(|(_, text)| *text)
}

/// The table as docs/errors.md shows it, in Markdown.
#[must_use]
pub fn describe() -> String {
    let mut text = "| call | errno | what it means, and what to do |\n|---|---|---|\n".to_owned();
    let any = [("any call to Xen", OF_XEN), ("any call to xenstored", OF_XENSTORE)];
    let named = TABLE.iter().map(|(name, known)| (format!("`{name}`"), *known));
    for (name, known) in named.chain(any.map(|(name, known)| (name.to_owned(), known))) {
        for (index, (errno, advice)) in known.iter().enumerate() {
            let name = if index == 0 { name.as_str() } else { "" };
            text.push_str(&format!("| {name} | {errno:?} | {advice} |\n"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    fn in_project(path: &str) -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)
    }

    /// The functions of the C libraries that `src/xen` calls, and its requests to xenstored.
    fn called() -> BTreeSet<String> {
        let files = ["src/xen/store.rs", "src/xen/store/transaction.rs"];
        let requests = files.map(|path| fs::read_to_string(in_project(path)).expect("UTF-8")).concat();
        let words = requests.split('"').filter(|word| word.starts_with("xs_"));
        let mut found: BTreeSet<String> = words.map(str::to_owned).collect();
        assert!(found.len() > 10, "{found:?}");
        for entry in fs::read_dir(in_project("src/xen")).expect("the folder").flatten() {
            // The witness of tests is called by nothing else.
            if entry.path().is_dir() || entry.file_name() == "libxenguest.rs" {
                continue;
            }
            let text = fs::read_to_string(entry.path()).expect("UTF-8");
            for rest in text.split("sys::").skip(1) {
                let name: String =
                    rest.chars().take_while(|char| char.is_ascii_alphanumeric() || *char == '_').collect();
                let called = rest[name.len()..].starts_with('(');
                if called && name.starts_with("xc_") {
                    found.insert(name);
                }
            }
        }
        found
    }

    /// Those that only give back, close or tell a number, and have no failure that anybody could do something about.
    const SILENT: [&str; 4] = ["xc_cpu_policy_destroy", "xc_dom_release", "xc_interface_close", "xc_cpupool_infofree"];

    #[test]
    fn every_call_has_its_advice() {
        let listed: BTreeSet<&str> = TABLE.iter().map(|(name, _)| *name).collect();
        let called = called();
        assert!(called.len() > 50, "{called:?}");
        let missing: Vec<_> =
            called.iter().filter(|name| !listed.contains(name.as_str()) && !SILENT.contains(&name.as_str())).collect();
        assert!(missing.is_empty(), "no line in the table of src/xen/advice.rs: {missing:?}");
    }

    #[test]
    fn the_table_is_in_order_and_says_something() {
        assert!(TABLE.is_sorted_by(|one, other| one.0 < other.0), "each call once, in alphabetical order");
        for (call, known) in TABLE {
            assert!(!known.is_empty(), "{call}");
            for (index, (errno, text)) in known.iter().enumerate() {
                assert!(!known[..index].iter().any(|(other, _)| other == errno), "{call} has {errno} twice");
                assert!(text.len() > 15 && !text.ends_with('.') && !text.contains(['|', '\n']), "{call}: {text}");
                assert_eq!(advice(call, *errno), Some(*text));
            }
        }
    }

    /// xl changes the limit of a guest whose configuration it keeps, and so of none that dombuild has made.
    #[test]
    fn xl_mem_max_is_advised_for_guests_of_xl() {
        let texts: Vec<&str> = TABLE.iter().flat_map(|(_, known)| known.iter()).map(|(_, text)| *text).collect();
        let about: Vec<&str> = texts.into_iter().filter(|text| text.contains("mem-max")).collect();
        assert!(!about.is_empty(), "{about:?}");
        assert!(about.iter().all(|text| text.contains("`xl mem-max` for a guest of xl's")), "{about:?}");
    }

    #[test]
    fn an_errno_means_what_its_call_makes_it_mean() {
        let says = |call, errno, word: &str| {
            let text = advice(call, errno).unwrap_or_default();
            assert!(text.contains(word), "{call} {errno}: {text}");
        };
        says("xc_domain_create", Errno::ESRCH, "CPU pool");
        says("xc_domain_setmaxmem", Errno::ESRCH, "the domain is gone");
        says("xc_dom_boot_mem_init", Errno::E2BIG, "raise its limit");
        says("xc_dom_boot_mem_init", Errno::ENOMEM, "outstanding_claims");
        says("xc_domain_create", Errno::ENOMEM, "--max-grant-frames");
        says("xc_physinfo", Errno::EACCES, "another release");
        says("xs_write", Errno::EPIPE, "xenstored has ended");
        says("xs_open", Errno::EACCES, "as root");
        says("xc_evtchn_alloc_unbound", Errno::ENOSPC, "--event-channels");
        assert_eq!(advice("xc_domain_setmaxmem", Errno::ELOOP), None, "nothing is made up");
    }

    /// docs/errors.md holds the table as it is. `DOMBUILD_WRITE_DOCS=1 cargo test` writes it there.
    #[test]
    fn the_page_has_this_table() {
        const BEGIN: &str = "<!-- calls -->\n";
        const END: &str = "<!-- /calls -->";
        let path = in_project("docs/errors.md");
        let page = fs::read_to_string(&path).expect("the page");
        let (before, rest) = page.split_once(BEGIN).expect("where the table begins");
        let (_, after) = rest.split_once(END).expect("where it ends");
        let right = format!("{before}{BEGIN}{}{END}{after}", describe());
        if std::env::var_os("DOMBUILD_WRITE_DOCS").is_some() {
            fs::write(&path, &right).expect("written");
        } else {
            assert_eq!(page, right, "DOMBUILD_WRITE_DOCS=1 cargo test writes it anew");
        }
    }

    proptest! {
        /// What Xen says of any domain has an answer for every call that names one.
        #[test]
        fn the_usual_refusals_are_always_explained(index in 0..TABLE.len()) {
            let (call, _) = TABLE[index];
            let usual = if call.starts_with("xs_") {
                [Errno::EACCES, Errno::EPIPE, Errno::ENOMEM, Errno::ENOSPC]
            } else {
                [Errno::EPERM, Errno::ESRCH, Errno::ENOMEM, Errno::EFAULT]
            };
            for errno in usual {
                prop_assert!(advice(call, errno).is_some(), "{} {}", call, errno);
            }
        }
    }
}
