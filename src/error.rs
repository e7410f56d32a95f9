//! Errors, and the step of the procedure at which they happen.

pub mod bootloader;
pub mod damage;
pub mod device;
pub mod device_user;
pub mod domain;
pub mod host;
pub mod migration;
pub mod monitor;
pub mod pci;

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use self::bootloader::BootloaderError;
use self::device::DeviceError;
use self::device_user::DeviceUserError;
use self::domain::DomainError;
use self::host::HostError;
use self::migration::MigrationError;
use self::pci::PciError;
use crate::config::error::ConfigError;
use crate::memory::{Kib, PlanError};
use crate::payload::error::FileError;
use crate::stage::Stage;
use crate::xen::{DomId, XenError};

/// dom0's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dom0Memory {
    /// The memory that it owns.
    pub owned: Kib,
    /// The part of it that dom0 can spare.
    pub spare: Kib,
}

/// The domains that could release the memory that a guest lacks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Relief {
    /// Whether there are other guests with memory.
    pub guests: bool,
    /// dom0's memory, if known.
    pub dom0: Option<Dom0Memory>,
}

/// A wait that has a deadline.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Wait {
    /// For the build locks, before a build.
    BuildLock,
    /// For the lock under which a domain gets its name.
    NameLock,
    /// For dombuild's build lock, before a guest grows.
    ResizeLock,
    /// For the lock of another cleanup.
    CleanupLock,
    /// For the lock of Xen's block script.
    BlockLock,
    /// For the lock of libxl's user data file of a domain.
    UserdataLock,
    /// For the device model, which writes this log.
    DeviceModel(PathBuf),
    /// For what Xen prints to its console.
    Console,
    /// For a guest to reach its size.
    Resize {
        /// Whether the guest is paused, and so cannot.
        paused: bool,
    },
    /// For a guest to suspend itself.
    Suspend {
        /// Whether it has answered that it will, and so may still do it.
        answered: bool,
    },
    /// For a guest's state to be written or read.
    Migration,
}

/// Why a device model ended or cannot work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum DeviceModelCause {
    /// Its system call filter killed it.
    Filtered,
    /// It does not know an option that confines it, or needs a right that it lacks.
    Confined,
    /// Its libraries cannot check the passwords of VNC.
    VncPassword,
    /// Unknown.
    Unknown,
}

/// An error, without the step at which it happened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot go into the guest.
    #[error(transparent)]
    File(#[from] FileError),
    /// The settings make no guest.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Something is wrong with a domain.
    #[error(transparent)]
    Domain(#[from] DomainError),
    /// The host lacks or refuses something.
    #[error(transparent)]
    Host(#[from] HostError),
    /// A boot loader has no kernel for the guest.
    #[error(transparent)]
    Bootloader(#[from] BootloaderError),
    /// A device cannot be given to the guest.
    #[error(transparent)]
    Device(Box<DeviceError>),
    /// A PCI device cannot be given to the guest.
    #[error(transparent)]
    Pci(Box<PciError>),
    /// QEMU cannot run as a user.
    #[error(transparent)]
    DeviceUser(#[from] DeviceUserError),
    /// A guest cannot be saved, restored or migrated.
    #[error(transparent)]
    Migration(Box<MigrationError>),
    /// An operation on a file or process of this program's own failed.
    #[error("cannot {action}: {source}")]
    Io {
        /// What failed, as in `take the lock /run/dombuild/build.lock`.
        action: String,
        /// The error of the system.
        source: io::Error,
    },
    /// A size that a plan always has in whole MiB.
    #[error("{} KiB to populate are not whole MiB", .0.0)]
    NotWholeMib(Kib),
    /// A value cannot be JSON.
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    /// No guest is possible with the requested memory.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A file that the guest needs is missing or invalid, or an output file cannot be written.
    #[error("{what} {path}: {reason}")]
    BadFile {
        /// The kind of file: `kernel`, `firmware`, `device model`, `picture`, `SMBIOS file` …
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Flags or keys that are refused. Only the command line makes this error.
    #[error("{0}")]
    BadConfig(String),
    /// A guest's configuration file is refused. Only the command line makes this error.
    #[error("{text}")]
    BadConfigFile {
        /// Every error and warning with its line and a mark below it: several lines, with nothing that a terminal obeys.
        text: String,
        /// The same for programs: a list.
        problems: serde_json::Value,
    },
    /// A guest ends and starts again too often.
    #[error("{name} restarts too often: more than {most} times within {} s", window.as_secs())]
    RestartsTooOften {
        /// Its name.
        name: String,
        /// The most restarts.
        most: u16,
        /// The time in which they are counted.
        window: Duration,
    },
    /// The name belongs to another domain.
    #[error("the name {name:?} is taken by domain {owner}")]
    NameTaken {
        /// The name.
        name: String,
        /// The domain that has it.
        owner: DomId,
    },
    /// There is no such domain.
    #[error("there is no domain {0}")]
    NoSuchDomain(String),
    /// The domain belongs to another toolstack.
    #[error("domain {domid} was not created by dombuild")]
    NotOurs {
        /// The domain.
        domid: DomId,
    },
    /// The host lacks the memory.
    #[error(
        "not enough memory on the host: {} KiB are required and {} KiB are free{}", required.0, free.0,
        claims.as_ref().map(|claims| format!(", not counting {claims}")).unwrap_or_default()
    )]
    NotEnoughMemory {
        /// The memory that the step needs.
        required: Kib,
        /// Free memory, less outstanding claims.
        free: Kib,
        /// The outstanding claims, if any: how much for which domain.
        claims: Option<String>,
        /// The domains that could release the rest.
        relief: Relief,
    },
    /// The domain's memory limit is lower than what it needs.
    #[error(
        "domain {domid} needs {} KiB and may own {} KiB",
        required.0, limit.0
    )]
    LimitTooLow {
        /// The domain.
        domid: DomId,
        /// The memory that it will own.
        required: Kib,
        /// The most that it may own.
        limit: Kib,
    },
    /// A call to Xen or xenstore failed.
    #[error(transparent)]
    Xen(#[from] XenError),
    /// The device model did not become ready.
    #[error("the device model {reason}; its log is {log}")]
    DeviceModel {
        /// What happened.
        reason: String,
        /// The file of its log.
        log: PathBuf,
        /// The likely cause, if it is known.
        cause: DeviceModelCause,
    },
    /// The devices of the device model need more memory of their own than Xen's limit for the domain allows.
    #[error(
        "the device model's devices need more memory of their own than Xen's limit leaves them: the domain may own {} KiB, \
         the guest's own memory takes {} KiB of that, and the devices have taken {} KiB and need more", limit.0, guest.0, taken.0
    )]
    DeviceMemory {
        /// Xen's limit for the domain.
        limit: Kib,
        /// The memory that the guest owns, without that of the devices.
        guest: Kib,
        /// The memory that the devices had taken when the limit was reached.
        taken: Kib,
        /// The memory that the plan leaves for them besides that of the VGA card.
        extra_internal: Kib,
    },
    /// A wait reached its deadline.
    #[error("{what} within {} seconds", after.as_secs())]
    TimedOut {
        /// What did not happen.
        what: String,
        /// The time limit.
        after: Duration,
        /// The kind of wait.
        wait: Wait,
    },
    /// The user stopped the run.
    #[error("stopped by {}", if *signal == 2 { "SIGINT" } else { "SIGTERM" })]
    Interrupted {
        /// The number of the signal: 2 (SIGINT) or 15 (SIGTERM).
        signal: i32,
    },
    /// The domain could not be removed.
    #[error("domain {domid} was left behind, because {cleanup}{}",
        cause.as_ref().map(|cause| format!(" (first error: {cause})")).unwrap_or_default())]
    LeftBehind {
        /// The domain.
        domid: DomId,
        /// Why it could not be removed.
        cleanup: String,
        /// The error that led to the removal. `None` if the user asked for the removal.
        cause: Option<Box<Failure>>,
    },
    /// `cleanup` could not remove everything.
    #[error("{problems}")]
    NotCleaned {
        /// What could not be removed, and why.
        problems: String,
        /// Everything that was found, as `cleanup` prints it.
        found: serde_json::Value,
    },
    /// A panic: a bug in this program.
    #[error("{0}")]
    Internal(String),
}

/// An [`Error`] and the step at which it happened.
#[derive(Debug)]
pub struct Failure {
    /// The step.
    pub stage: Stage,
    /// What went wrong.
    pub error: Error,
    /// What happened to the domain after the error.
    pub aftermath: Option<String>,
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.stage, self.error)?;
        match &self.aftermath {
            Some(aftermath) => write!(formatter, " ({aftermath})"),
            None => Ok(()),
        }
    }
}

// There is no `source`: the message above already has the text of the whole chain.
impl std::error::Error for Failure {}

/// Adds the step to an error.
pub trait AtStage<T> {
    /// The same result, with the step at which it failed.
    ///
    /// # Errors
    /// The original error, as a [`Failure`].
    fn at(self, stage: Stage) -> Result<T, Failure>;
}

impl<T, E: Into<Error>> AtStage<T> for Result<T, E> {
    fn at(self, stage: Stage) -> Result<T, Failure> {
        self.map_err(|error| Failure { stage, error: error.into(), aftermath: None })
    }
}

impl From<DeviceError> for Error {
    fn from(error: DeviceError) -> Self {
        Self::Device(Box::new(error))
    }
}

impl From<PciError> for Error {
    fn from(error: PciError) -> Self {
        Self::Pci(Box::new(error))
    }
}

impl From<MigrationError> for Error {
    fn from(error: MigrationError) -> Self {
        Self::Migration(Box::new(error))
    }
}

impl Error {
    /// Makes the error of a failed operation: `action` completes the sentence "cannot ...".
    pub fn io(action: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let action = action.into();
        move |source| Self::Io { action, source }
    }
}
