//! The calls to Xen: libxenctrl's and libxenguest's.
//!
//! The errnos of a call are those that Xen 4.17 to 4.20 return there for a call such as dombuild makes it
//! (xen/common/domctl.c, xen/common/domain.c, xen/common/memory.c, xen/common/grant_table.c, xen/common/sched/cpupool.c,
//! xen/arch/x86/domctl.c, xen/arch/x86/hvm/hvm.c, xen/arch/x86/mm/paging.c, xen/arch/x86/mm/p2m-pod.c, xen/xsm/flask), or
//! that the library itself sets.

use nix::errno::Errno;

use super::{Call, GONE, LOCAL_MEMORY, ROOT};

const DENIED: &str = "Xen refused this to the calling domain: run in dom0, and check FLASK's policy";
const LABEL: &str =
    "FLASK's policy does not allow this: `xl dmesg` shows what was denied; load a policy that allows it";
const RELEASE: &str =
    "the running Xen is another release than dombuild was built for, or lacks this; see `dombuild features`";
const NOT_DOM0S: &str = "dom0 itself may not use this: Xen keeps it, or the host does not have it; `xl debug-keys q` and `xl dmesg` show what dom0 has";
const NO_MEMORY: &str = "the host has too little free memory; `xl info` shows free_memory and outstanding_claims: shut down another guest, or give this one less";
const XEN_HEAP: &str =
    "Xen has no memory for its own structures of this domain: shut down another guest, or give this one less";
const NOT_HVM: &str = "the domain is of another kind than this call is for; --kind must say what it was created as";
const LIBRARY: &str = "the library could not allocate memory in dom0: give dom0 more, or end a program in it";

/// Each call, in alphabetical order.
pub(super) const CALLS: &[Call] = &[
    (
        "xc_assign_device",
        &[
            (Errno::EBUSY, "another domain has the PCI device; `dombuild pci list` and `xl debug-keys Q` show which"),
            (Errno::ENODEV, "Xen does not know the PCI device, or no IOMMU is in front of it; `xl dmesg` says more"),
            (
                Errno::EXDEV,
                "Xen gives PCI devices to no domain that is populated on demand, shares pages or is being saved",
            ),
            (Errno::EINVAL, "the domain was created without passthrough; create it with --passthrough or --pci"),
            (
                Errno::EPERM,
                "memory that the host reserves for the device is in use in the domain; rdm_policy=relaxed allows it",
            ),
            (Errno::ENOMEM, NO_MEMORY),
            (Errno::ESRCH, GONE),
        ],
    ),
    ("xc_cpu_policy_get_domain", &[(Errno::ESRCH, GONE), (Errno::ENOBUFS, RELEASE)]),
    ("xc_cpu_policy_get_size", &[(Errno::EOPNOTSUPP, RELEASE)]),
    ("xc_cpu_policy_get_system", &[(Errno::EOPNOTSUPP, RELEASE), (Errno::ENOBUFS, RELEASE)]),
    ("xc_cpu_policy_init", &[(Errno::ENOMEM, LIBRARY)]),
    ("xc_cpu_policy_serialise", &[(Errno::ENOBUFS, RELEASE)]),
    (
        "xc_cpuid_apply_policy",
        &[
            (
                Errno::EINVAL,
                "the featureset, the topology or --cpuid cannot be shown on this host: leave out --platform featureset and cores-per-socket, or the --cpuid that Xen refuses",
            ),
            (Errno::ENOENT, "this Xen has no such MSR for guests: leave its features out of --cpuid"),
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
    (
        "xc_cputopoinfo",
        &[(Errno::EACCES, RELEASE), (Errno::ENOBUFS, "CPUs were added to the host meanwhile; try again")],
    ),
    ("xc_deassign_device", &[(Errno::EINVAL, "the IOMMU refuses it; `xl dmesg` says more")]),
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
        &[(Errno::EINVAL, "libxenguest does not know the kernel's format"), (Errno::ENOMEM, LIBRARY)],
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
                "Xen does not create domains for the calling domain, or none on this CPU for security reasons; `xl dmesg` shows the reason and the option that allows it",
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
    (
        "xc_domain_dumpcore",
        &[(Errno::ENOSPC, "the file system of the file is full"), (Errno::ENOMEM, LOCAL_MEMORY), (Errno::ESRCH, GONE)],
    ),
    ("xc_domain_get_native_protocol", &[(Errno::ESRCH, GONE)]),
    (
        "xc_domain_get_pod_target",
        &[(Errno::ESRCH, GONE), (Errno::EINVAL, "a PV guest is not populated on demand"), (Errno::EOPNOTSUPP, RELEASE)],
    ),
    ("xc_domain_get_tsc_info", &[(Errno::ESRCH, GONE), (Errno::EINVAL, "Xen does not return dom0's own clock")]),
    ("xc_domain_getinfolist", &[(Errno::ENOMEM, LOCAL_MEMORY)]),
    ("xc_domain_getvnuma", &[(Errno::ESRCH, GONE)]),
    (
        "xc_domain_hvm_getcontext",
        &[
            (Errno::ESRCH, GONE),
            (Errno::EINVAL, NOT_HVM),
            (Errno::ENOSPC, "the domain got more devices during the call; try again"),
            (Errno::ENOMEM, XEN_HEAP),
        ],
    ),
    (
        "xc_domain_iomem_permission",
        &[
            (Errno::EPERM, NOT_DOM0S),
            (Errno::EINVAL, "there is no such I/O memory: the pages are beyond this CPU's addresses, or none"),
            (Errno::ESRCH, GONE),
        ],
    ),
    (
        "xc_domain_ioport_permission",
        &[(Errno::EPERM, NOT_DOM0S), (Errno::EINVAL, "the host's I/O ports are 0 to ffff"), (Errno::ESRCH, GONE)],
    ),
    (
        "xc_domain_irq_permission",
        &[
            (Errno::EPERM, NOT_DOM0S),
            (Errno::EINVAL, "the host has no such interrupt; `cat /proc/interrupts` in dom0 shows which are in use"),
            (Errno::ESRCH, GONE),
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
        "xc_domain_memory_mapping",
        &[
            (Errno::EPERM, "the domain has no permission for these pages of I/O memory, or dom0 has none"),
            (Errno::EINVAL, "there is no such I/O memory, or the guest cannot have it at that GFN"),
            (Errno::ENOMEM, XEN_HEAP),
            (Errno::ESRCH, GONE),
        ],
    ),
    ("xc_domain_node_getaffinity", &[(Errno::ESRCH, GONE), (Errno::ENOMEM, LOCAL_MEMORY)]),
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
                "the host's memory and the domain's limit suffice, but the domain's paging pool is too small for so many pages",
            ),
            (
                Errno::EINVAL,
                "the domain cannot be populated like this: it is of another kind than --kind, or is not empty any more",
            ),
            (Errno::ESRCH, GONE),
            (Errno::ENOMEM, LOCAL_MEMORY),
        ],
    ),
    (
        "xc_domain_restore",
        &[
            (
                Errno::EBUSY,
                "the guest has more pages than its limit in the new domain: its configuration in the file says less than it owned",
            ),
            (Errno::ENOMEM, NO_MEMORY),
            (
                Errno::EINVAL,
                "the state in the file is not that of this kind of guest, or this CPU lacks a feature that the guest has seen",
            ),
            (Errno::EOPNOTSUPP, "the state in the file needs something that this Xen or this CPU lacks"),
            (Errno::ESRCH, GONE),
        ],
    ),
    (
        "xc_domain_resume",
        &[(Errno::EINVAL, "the domain is not suspended: it has shut down for another reason"), (Errno::ESRCH, GONE)],
    ),
    (
        "xc_domain_save",
        &[
            (Errno::ENOSPC, "the file system is full; give a file elsewhere"),
            (Errno::EDQUOT, "the disk quota is used up; give a file elsewhere"),
            (Errno::EFBIG, "the file would be larger than its file system or this process's limit (ulimit -f) allows"),
            (Errno::EIO, "the disk does not take the file; the kernel's log has the reason"),
            (Errno::EINVAL, "the guest has something that Xen does not save, such as PCI devices"),
            (Errno::ESRCH, GONE),
        ],
    ),
    (
        "xc_domain_send_trigger",
        &[
            (Errno::ESRCH, GONE),
            (Errno::ENOSYS, "guests of this kind have no power button: shut the guest down from inside"),
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
    (
        "xc_domain_setvnuma",
        &[
            (Errno::EINVAL, "the domain has another number of vCPUs than the guest's virtual nodes name"),
            (Errno::E2BIG, "there are more virtual nodes than Xen takes: give fewer --vnode"),
            (Errno::ENOMEM, XEN_HEAP),
            (Errno::ESRCH, GONE),
        ],
    ),
    ("xc_domain_shutdown", &[(Errno::ESRCH, GONE)]),
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
    (
        "xc_get_device_group",
        &[
            (Errno::EPERM, "Xen's security policy (FLASK) forbids it"),
            (Errno::EFAULT, "the IOMMU's driver does not know the PCI device; `xl dmesg` says more"),
        ],
    ),
    ("xc_get_machine_memory_map", &[(Errno::EACCES, RELEASE), (Errno::ENOMEM, LOCAL_MEMORY)]),
    ("xc_get_nodemap_size", &[(Errno::EACCES, RELEASE)]),
    ("xc_get_paging_mempool_size", &[(Errno::EOPNOTSUPP, NOT_HVM), (Errno::ESRCH, GONE)]),
    ("xc_gnttab_query_size", &[(Errno::EFAULT, RELEASE), (Errno::ENOMEM, LOCAL_MEMORY)]),
    ("xc_hvm_param_get", &[(Errno::EINVAL, NOT_HVM), (Errno::ESRCH, GONE)]),
    (
        "xc_hvm_param_set",
        &[
            (
                Errno::EINVAL,
                "this Xen does not accept the value, or the domain is not an HVM or PVH guest; --platform sets most of these values",
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
    ("xc_numainfo", &[(Errno::EACCES, RELEASE), (Errno::ENOMEM, LOCAL_MEMORY)]),
    (
        "xc_physdev_map_pirq",
        &[
            (Errno::EPERM, NOT_DOM0S),
            (Errno::EINVAL, "the host has no such interrupt; `cat /proc/interrupts` in dom0 shows which are in use"),
            (Errno::EBUSY, "another domain has the interrupt"),
            (Errno::ESRCH, GONE),
        ],
    ),
    ("xc_physdev_unmap_pirq", &[(Errno::EINVAL, "the guest does not have this interrupt"), (Errno::ESRCH, GONE)]),
    ("xc_physinfo", &[(Errno::EACCES, RELEASE)]),
    ("xc_readconsolering", &[(Errno::ENOMEM, LOCAL_MEMORY)]),
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
    ("xc_send_debug_keys", &[(Errno::ENOMEM, LOCAL_MEMORY)]),
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
    ("xc_shadow_control", &[(Errno::ESRCH, GONE), (Errno::EPERM, "Xen's security policy (FLASK) forbids it")]),
    (
        "xc_test_assign_device",
        &[
            (Errno::ENODEV, "no IOMMU is in front of the device"),
            (Errno::ENOSYS, RELEASE),
            (Errno::EOPNOTSUPP, RELEASE),
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
                "none of these CPUs exists or is in the domain's CPU pool: --platform vcpu/N/affinity must name one that is",
            ),
            (Errno::EBUSY, "Xen just moved the vCPU off a CPU that is being removed; try again"),
            (Errno::ESRCH, GONE),
            (Errno::ENOMEM, LOCAL_MEMORY),
        ],
    ),
    ("xc_version", &[(Errno::ENOSYS, RELEASE)]),
];

/// What an errno means, whichever call returned it.
pub(super) const ANY: &[(Errno, &str)] = &[
    (Errno::ESRCH, GONE),
    (Errno::EPERM, DENIED),
    // A domctl or sysctl of another interface version (xen/common/domctl.c, do_domctl).
    (Errno::EACCES, RELEASE),
    (Errno::E2BIG, "the domain would own more pages than its maximum (setmaxmem) allows"),
    (Errno::ENOMEM, NO_MEMORY),
    (Errno::EFAULT, RELEASE),
    (Errno::ENOSYS, RELEASE),
    (Errno::EOPNOTSUPP, RELEASE),
    (Errno::EBADF, "the handle of Xen was closed unexpectedly"),
];
