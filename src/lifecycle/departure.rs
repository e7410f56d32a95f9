//! Where a guest has gone whose domain dombuild has destroyed because the guest is in a file, or on another host: what the program
//! that looks after the guest learns when the domain is gone.
//!
//! A file that lasts for a day: the guest's keys go with its domain.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use uuid::Uuid;

use crate::runs::journal;
use crate::xen::DomainRef;

/// The directory of the records, within that of the journal.
const RECORDS: &str = "departures";

/// How long a record is kept. Whoever looks after the guest reads it at once.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Where a guest has gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Departure {
    /// It is in a file.
    Saved,
    /// It runs on another host, or in another domain of this one.
    Migrated,
}

impl Departure {
    const ALL: [Self; 2] = [Self::Saved, Self::Migrated];

    /// The word for it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Saved => "saved",
            Self::Migrated => "migrated",
        }
    }
}

/// Records where a guest has gone, before its domain is destroyed. A failure leaves only the reason unknown: it is a warning.
pub fn record(domain: DomainRef, departure: Departure) {
    let written = || -> io::Result<()> {
        journal::directory()?;
        record_in(&directory(), domain, departure)
    };
    if let Err(error) = written() {
        log::warn!("a program that looks after domain {} does not learn where it has gone: {error}", domain.domid);
    }
}

/// Where the guest of a domain has gone that does not exist any more. `None` if nothing is known of it.
#[must_use]
pub fn departure(domain: DomainRef) -> Option<Departure> {
    departure_in(&directory(), domain)
}

fn record_in(directory: &Path, domain: DomainRef, departure: Departure) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(directory) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    for file in fs::read_dir(directory)?.flatten() {
        let age = file.metadata().and_then(|data| data.modified()).ok().and_then(|time| time.elapsed().ok());
        if age.is_some_and(|age| age > KEPT) {
            let _ = fs::remove_file(file.path());
        }
    }
    // Readers see the old record or the new one.
    let new = directory.join(format!(".{}.new", domain.uuid));
    fs::write(&new, text(domain, departure))?;
    fs::rename(&new, path(directory, domain.uuid))
}

fn departure_in(directory: &Path, domain: DomainRef) -> Option<Departure> {
    let found = fs::read_to_string(path(directory, domain.uuid)).ok()?;
    Departure::ALL.into_iter().find(|departure| found == text(domain, *departure))
}

/// A guest that comes back has its UUID again, in another domain.
fn text(domain: DomainRef, departure: Departure) -> String {
    format!("{} {}", domain.domid, departure.word())
}

fn directory() -> PathBuf {
    Path::new(journal::STATE_DIR).join(RECORDS)
}

fn path(directory: &Path, uuid: Uuid) -> PathBuf {
    directory.join(uuid.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::xen::DomId;

    #[test]
    fn a_record_is_of_one_domain() {
        let folder = tempfile::tempdir().expect("a folder");
        let directory = folder.path().join(RECORDS);
        let domain = |number| DomainRef { domid: DomId::new(number).expect("a domid"), uuid: Uuid::from_u128(7) };
        assert_eq!(departure_in(&directory, domain(5)), None);
        for departure in Departure::ALL {
            record_in(&directory, domain(5), departure).expect("recorded");
            assert_eq!(departure_in(&directory, domain(5)), Some(departure));
            assert_eq!(
                departure_in(&directory, domain(6)),
                None,
                "the guest has come back, and another program ended it"
            );
        }
        assert_eq!(fs::read_dir(&directory).expect("a folder").count(), 1);
    }
}
