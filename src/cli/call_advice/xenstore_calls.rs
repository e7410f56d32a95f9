//! The requests to xenstored, by the functions of libxenstore.

use nix::errno::Errno;

use super::{Call, GONE, LOCAL_MEMORY, ROOT};

const STORE_GONE: &str = "xenstored ended or closed the connection; check whether it runs, and read its log";
const STORE_FULL: &str = "xenstored reached a limit of its own; its log and `xenstore-control quota` show which";
const STORE_TEXT: &str = "xenstored does not accept this path or value";
const STORE_LONG: &str = "a path or a value is longer than the 4096 bytes that xenstored accepts at once";
const STORE_DENIED: &str = "xenstored takes the caller for another domain than dom0: run in dom0, as root";
const STORE_MISSING: &str = "another program removed the node in xenstore, most likely with its domain";

/// Each request, in alphabetical order.
pub(super) const CALLS: &[Call] = &[
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
            (Errno::ENOMEM, "xenstored has no memory for another domain: read its log"),
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
                "xenstored ended and left its socket behind: start it (systemctl start xenstored, or xencommons)",
            ),
            (Errno::EAGAIN, "xenstored accepts no more connections; find the program that has so many open"),
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
    (
        "xs_resume_domain",
        &[(Errno::EACCES, STORE_DENIED), (Errno::ENOENT, GONE), (Errno::EINVAL, "xenstored does not know the domain")],
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
            (Errno::EAGAIN, "other programs keep changing the same nodes of xenstore; try again"),
            (Errno::ENOENT, STORE_MISSING),
            (Errno::ENOSPC, STORE_FULL),
        ],
    ),
    ("xs_transaction_start", &[(Errno::ENOSPC, STORE_FULL), (Errno::EBUSY, STORE_FULL)]),
    (
        "xs_watch",
        &[
            (Errno::EEXIST, "this process already watches the node"),
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

/// What an errno means, whichever request it ended.
pub(super) const ANY: &[(Errno, &str)] = &[
    (Errno::EACCES, STORE_DENIED),
    (Errno::EPERM, STORE_DENIED),
    (Errno::EPIPE, STORE_GONE),
    (Errno::ECONNRESET, STORE_GONE),
    (
        Errno::ETIMEDOUT,
        "xenstored is stopped or overloaded: look at its process and its log; --store-timeout gives it longer, and `dombuild \
         cleanup` finds what is left once it answers",
    ),
    (Errno::ECANCELED, "a signal ended the wait for xenstored's answer"),
    (Errno::EIO, "xenstored cannot use its database: read its log"),
    (Errno::ENOMEM, "xenstored has no memory left: read its log, and give its domain more"),
    (Errno::E2BIG, STORE_LONG),
    (Errno::ENOSPC, STORE_FULL),
    (
        Errno::EPROTO,
        "xenstored sent an answer that does not fit the request: read its log, and check whether it is Xen's own xenstored",
    ),
];
