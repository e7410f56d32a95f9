//! Why a boot loader has no kernel for a guest.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::os::Untrusted;

/// Why a boot loader has no kernel for a guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum BootloaderError {
    /// The program is missing.
    #[error("there is no boot loader {name}; looked for {}", shown(tried))]
    NotFound {
        /// What was asked for.
        name: String,
        /// Where it was looked for.
        tried: Vec<PathBuf>,
    },
    /// The guest has no disk.
    #[error("a boot loader reads the guest's first disk, and there is none")]
    NoDisk,
    /// The first disk is none that a boot loader can read.
    #[error("the boot loader cannot read the first disk, {vdev}: {reason}")]
    Disk {
        /// The disk.
        vdev: String,
        /// Why not.
        reason: String,
    },
    /// The disk cannot be opened.
    #[error("the boot loader cannot read the first disk: {}: {source}", path.display())]
    OpenDisk {
        /// The file or device.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// This host cannot confine it.
    #[error("this host cannot confine a boot loader, which reads what the guest has written to its disk: {0}")]
    NoConfinement(#[source] io::Error),
    /// It cannot be started.
    #[error("the boot loader {} cannot be started: {source}", path.display())]
    Start {
        /// The program.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// It failed.
    #[error("the boot loader {} ended with {status}{}", path.display(), words(says))]
    Failed {
        /// The program.
        path: PathBuf,
        /// How it ended.
        status: String,
        /// Its last words.
        says: Option<Untrusted>,
    },
    /// It took too long.
    #[error("the boot loader {} was killed after {} s{}", path.display(), after.as_secs(), words(says))]
    TimedOut {
        /// The program.
        path: PathBuf,
        /// The time that it had.
        after: Duration,
        /// Its last words.
        says: Option<Untrusted>,
    },
    /// It wrote too much.
    #[error("the boot loader {} wrote more than {most} bytes, and was killed", path.display())]
    TooMuch {
        /// The program.
        path: PathBuf,
        /// What it may write, in bytes.
        most: u64,
    },
    /// Its answer names no kernel that can be used.
    #[error("the boot loader {} gives no kernel: {reason}{}", path.display(), words(says))]
    Answer {
        /// The program.
        path: PathBuf,
        /// What is wrong with the answer.
        reason: String,
        /// Its last words.
        says: Option<Untrusted>,
    },
}

fn shown(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(", ")
}

fn words(says: &Option<Untrusted>) -> String {
    says.as_ref().map_or_else(String::new, |says| format!("; it says: {says}"))
}
