//! Why a guest cannot be saved, restored or migrated.

use std::path::PathBuf;
use std::time::Duration;

use crate::memory::Pages;
use crate::os::Untrusted;
use crate::xen::{DomId, ShutdownReason};

use super::Failure;
use super::damage::Damage;
use super::monitor::MonitorError;

/// Why a guest cannot be saved, restored or migrated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MigrationError {
    /// The guest cannot be saved as it is.
    #[error("domain {domid} cannot be saved: {obstacle}")]
    Obstacle {
        /// The domain.
        domid: DomId,
        /// What is in the way.
        obstacle: Obstacle,
    },
    /// The guest shut down instead of suspending itself.
    #[error("domain {domid} was asked to suspend itself, and shut down: {reason}")]
    ShutDown {
        /// The domain.
        domid: DomId,
        /// The reason that it gave.
        reason: ShutdownReason,
    },
    /// The guest could not be resumed after a failure.
    #[error("domain {domid} stays suspended, because {problem}{}",
        cause.as_ref().map(|cause| format!(" (first error: {cause})")).unwrap_or_default())]
    StillSuspended {
        /// The domain.
        domid: DomId,
        /// Why it could not be resumed.
        problem: String,
        /// The error that led to the attempt.
        cause: Option<Box<Failure>>,
    },
    /// There is a file of this name.
    #[error("{0} exists: it is not overwritten")]
    Exists(PathBuf),
    /// The file system has no room for the guest.
    #[error("the file system of {path} has no room for {needed} bytes")]
    NoRoom {
        /// The file that was to be written.
        path: PathBuf,
        /// What the guest takes.
        needed: u64,
    },
    /// A file is not a saved guest, or not a whole one.
    #[error("{path} is not a saved guest that can be restored: {problem}")]
    BadFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: FileProblem,
    },
    /// A stream is not a guest's state, or not a whole one.
    #[error("the guest's state is damaged: {0}")]
    BadStream(Damage),
    /// The child that checks a guest's state has no result.
    #[error("the guest's state is not checked: {0}")]
    NotChecked(Untrusted),
    /// What the other side sends is no guest that can be restored.
    #[error("the other side sends no guest that can be restored: {0}")]
    BadIncoming(FileProblem),
    /// The configuration of a guest cannot be sent.
    #[error("the configuration of the guest cannot be sent: {0}")]
    BadConfiguration(FileProblem),
    /// The other side is gone.
    #[error("the connection to the other side is lost ({what}): {source}")]
    ConnectionLost {
        /// What was to be read or written.
        what: &'static str,
        /// The error of the system.
        source: std::io::Error,
    },
    /// The other side says something else than xl would.
    #[error("the other side does not say {what}, it says {says:?}")]
    OtherMessage {
        /// The expected message.
        what: &'static str,
        /// Its text.
        says: Untrusted,
    },
    /// The guest changes its memory faster than it can be sent.
    #[error("after {rounds} rounds {} pages have still changed, and the guest would stand still for {} ms", dirty.0,
        foreseen.as_millis())]
    TooManyChanges {
        /// The rounds.
        rounds: u32,
        /// The pages that changed in the last.
        dirty: Pages,
        /// The time that it would take to send them.
        foreseen: Duration,
    },
    /// The other side had the guest and could not start it.
    #[error("the other side had the guest and could not start it (status {status}); its copy is gone")]
    NotStarted {
        /// What it reports.
        status: u8,
    },
    /// The last answer is lost, and the guest is not on the other side.
    #[error("{problem}; asked again, the other side says that the guest does not run there")]
    AnswerLost {
        /// What went wrong.
        problem: String,
    },
    /// It is not known whether the guest runs on the other side.
    #[error(
        "it is not known whether the guest runs on the other side ({problem}): domain {domid} stays suspended here, as {name:?}"
    )]
    Undecided {
        /// The domain.
        domid: DomId,
        /// Its name here.
        name: String,
        /// What went wrong.
        problem: String,
    },
    /// The other side did not let the guest start here.
    #[error("the other side has not let the guest start here: {0}")]
    NotLetGo(String),
    /// The child that calls libxenguest ended without a result.
    #[error("the child that {task} the guest ended without a result ({status}){}",
        says.as_ref().map(|says| format!(", its last words: {says:?}")).unwrap_or_default())]
    ChildDied {
        /// `saves` or `restores`.
        task: &'static str,
        /// How it ended.
        status: String,
        /// The last line that it wrote.
        says: Option<Untrusted>,
    },
    /// QEMU's monitor does not do what is needed.
    #[error("the state of QEMU's devices is not to be had: {0}")]
    Monitor(#[source] MonitorError),
    /// QEMU has not taken on the saved state.
    #[error("QEMU has not taken on the state of its devices: it is {0:?}")]
    NotIncoming(Untrusted),
}

/// What stands in the way of saving a guest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Obstacle {
    /// It is being destroyed.
    #[error("it is being destroyed")]
    Dying,
    /// Another run saves, creates or destroys it.
    #[error("another run of dombuild works on it")]
    Busy,
    /// It has shut down.
    #[error("it has shut down ({0})")]
    ShutDown(ShutdownReason),
    /// Part of its memory is populated on demand, which a saved guest cannot be.
    #[error("{} of its pages are populated on demand, and {} pages are there for them", entries.0, cache.0)]
    OnDemand {
        /// The pages that are not populated yet.
        entries: Pages,
        /// The pages that it owns for them.
        cache: Pages,
    },
    /// It has PCI devices of the host.
    #[error("it has PCI devices of this host, whose state Xen cannot save")]
    PciDevices,
    /// It sees NUMA nodes.
    #[error("it sees NUMA nodes, which the format does not have")]
    VirtualNuma,
    /// It can run guests itself.
    #[error("it has nested virtualisation, whose state Xen does not save")]
    Nested,
    /// It was created never to move.
    #[error("it was created with nomigrate: it may rely on the clock of this host's CPUs")]
    NoMigrate,
    /// It is paused, and so cannot suspend itself.
    #[error("it is paused, and its kernel has to suspend itself")]
    Paused,
    /// It has never run.
    #[error("it has never run, and only its own kernel can suspend a PV guest")]
    NeverRan,
    /// Its kernel has not set up Xen's drivers.
    #[error("its kernel has not set up Xen's drivers, and only they can suspend it")]
    NoDrivers,
    /// It is PV, and this Xen cannot record which pages it changes.
    #[error(
        "it is a PV guest, and this Xen has no shadow paging, by which a PV guest's changes of memory are recorded"
    )]
    NoShadow,
    /// It has no name under which it can migrate.
    #[error("its name cannot be that of a guest that migrates: {reason}")]
    Name {
        /// What is wrong with it.
        reason: String,
    },
    /// It has no configuration for libxl.
    #[error("it has no configuration in libxl's format ({0}): nothing could restore it")]
    NoConfiguration(PathBuf),
}

/// What is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FileProblem {
    /// It does not begin as such a file does.
    #[error("it does not begin with xl's mark")]
    NoMark,
    /// The header or the state is damaged.
    #[error("{0}")]
    Damaged(Damage),
    /// The configuration is not JSON.
    #[error("its configuration is not JSON: {0}")]
    NotJson(String),
    /// The configuration has something that this version cannot give the guest again.
    #[error("its configuration has {name} = {value:?}, which dombuild cannot give the guest")]
    Unknown {
        /// The field, with the objects around it.
        name: String,
        /// Its value, shortened.
        value: Untrusted,
    },
    /// The configuration has a device that cannot be.
    #[error("{name} of its configuration is no device that dombuild can give the guest: {reason}")]
    Device {
        /// The device.
        name: String,
        /// What is wrong with it.
        reason: Untrusted,
    },
    /// The configuration lacks something.
    #[error("its configuration has no usable {0}")]
    Missing(String),
    /// The stream is that of another kind of guest.
    #[error("its configuration is of a {configured} guest, and the state behind it is not")]
    OtherKind {
        /// The kind in the configuration.
        configured: crate::memory::Kind,
    },
    /// The file has a state of QEMU, and the guest has none.
    #[error("it has a state of QEMU, and its guest has no QEMU")]
    QemuState,
}
