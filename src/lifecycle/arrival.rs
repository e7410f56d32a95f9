//! Whether a guest has come to this host: what the source of a migration asks when the last answer is lost.
//!
//! The destination records how far a guest has come, in a file that lasts for a day: a guest that ran and is gone is not one that
//! never ran, and of one that has no record nothing is known.

use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::migrated::{is_away, is_incoming};
use crate::context::Context;
use crate::domain::paths::XenstorePaths;
use crate::error::Error;
use crate::runs::day_records::DayRecords;
use crate::xen::DomId;

/// The directory of the records, within that of the journal.
const RECORDS: &str = "arrivals";

/// The interval between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// How long a receiver may take for the record of a domain that it has removed.
const RECORDING: Duration = Duration::from_secs(3);

/// How far a guest has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// It is here, and does not run before its source says so.
    Incoming,
    /// It may run here.
    Arrived,
    /// It could not run here, and was removed completely.
    Removed,
}

impl Progress {
    const ALL: [Self; 3] = [Self::Incoming, Self::Arrived, Self::Removed];

    const fn word(self) -> &'static str {
        match self {
            Self::Incoming => "incoming",
            Self::Arrived => "arrived",
            Self::Removed => "removed",
        }
    }
}

/// Where a guest is that was sent to this host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "state", rename_all = "kebab-case")]
pub enum Arrival {
    /// It runs here.
    Runs {
        /// Its domain.
        domid: DomId,
    },
    /// It is here, and does not run.
    Stands {
        /// Its domain.
        domid: DomId,
    },
    /// It could run here, and there is no domain of it any more.
    Gone,
    /// It was here, did not run, and is removed.
    Never,
    /// There is no domain of it, and no record.
    Unknown,
}

/// Says where a guest is, except as the source of a migration that has given the word. As long as it is about to run or to be
/// removed, this waits, at most for `timeout`.
///
/// # Errors
/// An error of Xen, xenstored or the system; [`Error::Interrupted`].
pub fn arrival(context: &Context<'_>, uuid: Uuid, timeout: Duration) -> Result<Arrival, Error> {
    let start = Instant::now();
    loop {
        match look(context, uuid)? {
            Arrival::Stands { .. } if start.elapsed() < timeout => {}
            // A removal ends with the record of it.
            Arrival::Gone if start.elapsed() < timeout.min(RECORDING) => {}
            found => return Ok(found),
        }
        context.cancel.check()?;
        thread::sleep(LOOK);
    }
}

fn look(context: &Context<'_>, uuid: Uuid) -> Result<Arrival, Error> {
    for domain in context.xen.domains()?.into_iter().filter(|domain| domain.uuid == uuid) {
        let domid = domain.domid;
        let name = context.store.plain().read(&XenstorePaths::new(domid).of_domain("name"))?.unwrap_or_default();
        if is_away(&name) {
            continue;
        }
        let stands = is_incoming(&name) || domain.paused || domain.shutdown.is_some() || domain.dying;
        return Ok(if stands { Arrival::Stands { domid } } else { Arrival::Runs { domid } });
    }
    // Behind the domains: a guest is recorded as arrived before it runs.
    let text = records().read(uuid).map_err(Error::io("read the record of a guest that came"))?;
    let record = text.and_then(|text| Progress::ALL.into_iter().find(|progress| progress.word() == text));
    Ok(match record {
        // A receiver that was killed before the word leaves a paused domain, which cleanup has removed.
        Some(Progress::Incoming | Progress::Removed) => Arrival::Never,
        Some(Progress::Arrived) => Arrival::Gone,
        None => Arrival::Unknown,
    })
}

/// Records how far a guest has come.
///
/// # Errors
/// An error of the system.
pub fn record(uuid: Uuid, progress: Progress) -> Result<(), Error> {
    records().write(uuid, progress.word()).map_err(Error::io("record that the guest came"))
}

/// Removes the record of a guest that runs elsewhere now.
pub fn forget(uuid: Uuid) {
    records().remove(uuid);
}

fn records() -> DayRecords {
    DayRecords::named(RECORDS)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_an_object_of_its_state() {
        let domid = DomId::new(7).expect("a domid");
        let all = [
            (Arrival::Runs { domid }, json!({ "state": "runs", "domid": 7 })),
            (Arrival::Stands { domid }, json!({ "state": "stands", "domid": 7 })),
            (Arrival::Gone, json!({ "state": "gone" })),
            (Arrival::Never, json!({ "state": "never" })),
            (Arrival::Unknown, json!({ "state": "unknown" })),
        ];
        for (arrival, object) in all {
            assert_eq!(serde_json::to_value(arrival).expect("it is one"), object);
            assert_eq!(serde_json::from_value::<Arrival>(object).expect("it is read back"), arrival);
        }
        serde_json::from_value::<Arrival>(json!({ "state": "runs", "domid": 40_000 })).expect_err("no domid");
    }
}
