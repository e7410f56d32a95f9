//! Why QEMU cannot run as a user.

use nix::errno::Errno;

use crate::xen::DomId;

/// Why QEMU cannot run as a user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DeviceUserError {
    /// QEMU opens PCI devices as root, later.
    #[error("the device model of a guest with PCI devices cannot have a user: QEMU opens the devices as root")]
    PciDevices,
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
