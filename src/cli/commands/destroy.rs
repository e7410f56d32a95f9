//! `destroy`: a guest, its device model and its keys are removed.

use serde_json::json;

use crate::cli::args::DestroyArgs;
use crate::cli::connection::{Connection, find_domain};
use crate::cli::print::{self, Done};
use crate::cli::reporter::Reporter;
use crate::domain::identity::{created_by_dombuild, has_keys, owner_tag};
use crate::error::{AtStage, Error, Failure};
use crate::lifecycle::teardown::remove_unknown;
use crate::observer;
use crate::runs::journal::{JournalEntry, RunVerb, forget_dead, is_recorded};
use crate::stage::Stage;
use crate::xen::{DomId, DomainRef};

pub(crate) fn run(reporter: &Reporter, arguments: &DestroyArgs, json: bool) -> anyhow::Result<Done> {
    let connection = Connection::open(reporter, false, arguments.store.store_timeout)?;
    let domid = find_domain_or_rest(&connection, &arguments.domain).at(Stage::Destroy)?;
    if domid == DomId::DOM0 {
        return Err(Error::BadConfig("domain 0 is the one that this runs in".to_owned())).at(Stage::Destroy)?;
    }
    let domain = connection.xen.domain(domid).at(Stage::Destroy)?;
    // If an earlier run has destroyed the domain and others still map its memory, only that run's record is left.
    let is_zombie_of_ours = || match &domain {
        Some(domain) if domain.dying => is_recorded(domain.held()),
        _ => Ok(false),
    };
    if !arguments.force
        && !created_by_dombuild(&connection.xen, &connection.store, domid).at(Stage::Destroy)?
        && !is_zombie_of_ours().at(Stage::Destroy)?
    {
        return Err(Error::NotOurs { domid }).at(Stage::Destroy)?;
    }
    // The keys of a domain that no longer exists still hold its UUID.
    let uuid = domain.map_or_else(|| owner_tag(&connection.store, domid), |domain| Ok(Some(domain.uuid)));
    let Some(uuid) = uuid.at(Stage::Destroy)? else {
        let left_behind = |cleanup| Error::LeftBehind { domid, cleanup, cause: None };
        let removed = || remove_unknown(&connection.xen, &connection.store, domid).map_err(left_behind);
        observer::step(reporter, Stage::Destroy, removed)?;
        return print::finish(json, &json!({ "destroyed": domid }), &format!("domain {domid} is destroyed"));
    };
    destroy(&connection, DomainRef { domid, uuid })?;
    print::finish(json, &json!({ "destroyed": domid }), &format!("domain {domid} is destroyed"))
}

/// Destroys a domain with all that belongs to it.
///
/// # Errors
/// What is left of it; a record of this run lists it.
pub(crate) fn destroy(connection: &Connection<'_>, held: DomainRef) -> Result<(), Failure> {
    // A killed run leaves things that the domain no longer identifies. If the record cannot be written, the domain is
    // destroyed all the same.
    let mut run =
        JournalEntry::begin(RunVerb::Destroy, held.uuid, Some(held.domid)).map_err(|error| log::warn!("{error}")).ok();
    let destroyed = connection.destroy(held);
    let is_recorded = match (&destroyed, &mut run) {
        (Err(_), Some(run)) => {
            run.leave();
            true
        }
        (outcome, _) => outcome.is_ok(),
    };
    drop(run);
    // What earlier runs left of the domain is removed as well, or this run's record lists it.
    if is_recorded && let Err(error) = forget_dead(held) {
        log::warn!("{error}");
    }
    destroyed
}

/// The domain that a user means; or, by its number, one that is gone and has left keys behind, as a clean-up does that could
/// not end.
fn find_domain_or_rest(connection: &Connection<'_>, text: &str) -> Result<DomId, Error> {
    match find_domain(connection, text) {
        // Not even the sign of a number is one of its digits: names may begin with it.
        Err(Error::NoSuchDomain(unknown)) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
            match text.parse().ok().and_then(DomId::new) {
                Some(domid) if has_keys(&connection.store, domid)? => Ok(domid),
                _ => Err(Error::NoSuchDomain(unknown)),
            }
        }
        found => found,
    }
}
