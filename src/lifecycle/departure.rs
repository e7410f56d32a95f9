//! Where a guest has gone whose domain dombuild has destroyed because the guest is in a file, or on another host: what the program
//! that looks after the guest learns when the domain is gone.
//!
//! A file that lasts for a day: the guest's keys go with its domain.

use std::io;

use crate::runs::day_records::DayRecords;
use crate::xen::DomainRef;

/// The directory of the records, within that of the journal.
const RECORDS: &str = "departures";

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
    if let Err(error) = record_in(&records(), domain, departure) {
        log::warn!("a program that looks after domain {} does not learn where it has gone: {error}", domain.domid);
    }
}

/// Where the guest of a domain has gone that does not exist any more. `None` if nothing is known of it.
#[must_use]
pub fn departure(domain: DomainRef) -> Option<Departure> {
    departure_in(&records(), domain)
}

fn record_in(records: &DayRecords, domain: DomainRef, departure: Departure) -> io::Result<()> {
    records.write(domain.uuid, &text(domain, departure))
}

fn departure_in(records: &DayRecords, domain: DomainRef) -> Option<Departure> {
    let found = records.read(domain.uuid).inspect_err(|error| log::warn!("where a guest has gone: {error}")).ok()??;
    Departure::ALL.into_iter().find(|departure| found == text(domain, *departure))
}

/// A guest that comes back has its UUID again, in another domain.
fn text(domain: DomainRef, departure: Departure) -> String {
    format!("{} {}", domain.domid, departure.word())
}

fn records() -> DayRecords {
    DayRecords::named(RECORDS)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::xen::DomId;

    #[test]
    fn a_record_is_of_one_domain() {
        let folder = tempfile::tempdir().expect("a folder");
        let records = DayRecords::within(folder.path().join(RECORDS));
        let domain = |number| DomainRef { domid: DomId::new(number).expect("a domid"), uuid: Uuid::from_u128(7) };
        assert_eq!(departure_in(&records, domain(5)), None);
        for departure in Departure::ALL {
            record_in(&records, domain(5), departure).expect("recorded");
            assert_eq!(departure_in(&records, domain(5)), Some(departure));
            assert_eq!(
                departure_in(&records, domain(6)),
                None,
                "the guest has come back, and another program ended it"
            );
        }
    }
}
