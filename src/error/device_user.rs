//! Why QEMU cannot run as a user.

use std::io;
use std::path::PathBuf;

use nix::errno::Errno;

use crate::xen::DomId;

/// Why QEMU cannot run as a user.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceUserError {
    /// QEMU opens PCI devices as root, later.
    #[error("the device model of a guest with PCI devices cannot have a user: QEMU opens the devices as root")]
    PciDevices,
    /// The program cannot confine itself.
    #[error(
        "device model {0}: cannot be confined to its guest: it is no QEMU of Xen's, or was built for a Xen before 4.10"
    )]
    NotXens(PathBuf),
    /// The kernel of dom0 refuses what confines the program.
    #[error(
        "device model {program}: cannot be started: {source}; it is confined by namespaces and a filter of system calls \
         (CONFIG_NET_NS, CONFIG_UTS_NS, CONFIG_IPC_NS, CONFIG_SECCOMP_FILTER), which dom0's kernel and its limits must allow"
    )]
    NoConfinement {
        /// The program.
        program: PathBuf,
        /// The error of the start.
        source: io::Error,
    },
    /// The user database does not answer.
    #[error("the system's users cannot be looked up: {0}")]
    Lookup(Errno),
    /// There is no such user.
    #[error("there is no user {0:?}")]
    NoSuchUser(String),
    /// The user is root, or has root's group.
    #[error("the user of the device model is root, or has root's group")]
    Root,
    /// Another program or person has the user of this guest.
    #[error("the QEMU of domain {domid} would run as user {uid}, which is {name}")]
    Taken {
        /// The domain.
        domid: DomId,
        /// The user.
        uid: u32,
        /// The user's name.
        name: String,
    },
    /// The user database does not tell whether the user exists.
    #[error(
        "the QEMU of domain {domid} would run as user {uid}, and whether that user exists cannot be looked up ({errno})"
    )]
    Unknown {
        /// The domain.
        domid: DomId,
        /// The user.
        uid: u32,
        /// The error of the lookup.
        errno: Errno,
    },
}
