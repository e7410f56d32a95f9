//! Whether a guest has come to this host: what the source of a migration asks when the last answer is lost.
//!
//! The destination marks the guest before it may run, in a file that lasts for a day: a guest that ran and is gone is
//! not one that never came.

use std::fs::{self, DirBuilder, File};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::migrated::{is_away, is_incoming};
use crate::context::Context;
use crate::domain::paths::XenstorePaths;
use crate::error::Error;
use crate::runs::journal;
use crate::xen::DomId;

/// The directory of the marks, within that of the journal.
const MARKS: &str = "arrived";

/// The interval between two looks.
const LOOK: Duration = Duration::from_millis(200);

/// How long a mark is kept. A source asks within minutes.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

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
    /// It was here, and there is no domain of it any more.
    Gone,
    /// It has never run here since this host started, or it was sent away since.
    Never,
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
            found => return Ok(found),
        }
        context.cancel.check()?;
        thread::sleep(LOOK);
    }
}

fn look(context: &Context<'_>, uuid: Uuid) -> Result<Arrival, Error> {
    // Before the domains: a mark that comes later belongs to a domain that is there.
    let marked = fs::exists(mark(uuid)).map_err(Error::io("look for the marks of guests that came"))?;
    for domain in context.xen.domains()?.into_iter().filter(|domain| domain.uuid == uuid) {
        let domid = domain.domid;
        let name = context.store.plain().read(&XenstorePaths::new(domid).of_domain("name"))?.unwrap_or_default();
        if is_away(&name) {
            continue;
        }
        let stands = is_incoming(&name) || domain.paused || domain.shutdown.is_some() || domain.dying;
        return Ok(if stands { Arrival::Stands { domid } } else { Arrival::Runs { domid } });
    }
    Ok(if marked { Arrival::Gone } else { Arrival::Never })
}

/// Marks a guest that may run here from now on.
///
/// # Errors
/// An error of the system.
pub fn mark_arrived(uuid: Uuid) -> Result<(), Error> {
    let made = || -> io::Result<()> {
        journal::directory()?;
        match DirBuilder::new().mode(0o700).create(Path::new(journal::STATE_DIR).join(MARKS)) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
            _ => {}
        }
        forget_old_marks();
        File::create(mark(uuid)).map(drop)
    };
    made().map_err(Error::io("mark the guest as one that came"))
}

/// Removes the marks that no source asks about any more.
fn forget_old_marks() {
    for file in fs::read_dir(Path::new(journal::STATE_DIR).join(MARKS)).into_iter().flatten().flatten() {
        let age = file.metadata().and_then(|data| data.modified()).ok().and_then(|time| time.elapsed().ok());
        if age.is_some_and(|age| age > KEPT) {
            let _ = fs::remove_file(file.path());
        }
    }
}

/// Removes the mark of a guest that has not run here, or that runs elsewhere now.
pub fn unmark_arrived(uuid: Uuid) {
    match fs::remove_file(mark(uuid)) {
        Err(error) if error.kind() != ErrorKind::NotFound => log::warn!("{}: {error}", mark(uuid).display()),
        _ => {}
    }
}

fn mark(uuid: Uuid) -> PathBuf {
    Path::new(journal::STATE_DIR).join(MARKS).join(uuid.to_string())
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
        ];
        for (arrival, object) in all {
            assert_eq!(serde_json::to_value(arrival).expect("it is one"), object);
            assert_eq!(serde_json::from_value::<Arrival>(object).expect("it is read back"), arrival);
        }
    }
}
