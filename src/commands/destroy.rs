//! `destroy`: a guest, its device model and its keys are removed.

use serde_json::json;

use super::{Connection, find_domain};
use crate::args::DestroyArgs;
use crate::builder::{Recorded, RunVerb, forget_dead, has_keys, is_ours, mark_of};
use crate::error::{AtStage, Error, Stage};
use crate::report::{self, Done};
use crate::xen::DomId;

pub(super) fn run(arguments: &DestroyArgs, json: bool) -> anyhow::Result<Done> {
    let connection = Connection::open(false, arguments.store.store_timeout)?;
    let domid = find_domain_or_rest(&connection, &arguments.domain).at(Stage::Destroy)?;
    if domid == DomId::DOM0 {
        return Err(Error::BadConfig("domain 0 is the one that this runs in".to_owned())).at(Stage::Destroy)?;
    }
    if !arguments.force && !is_ours(&connection.xen, &connection.store, domid).at(Stage::Destroy)? {
        return Err(Error::NotOurs { domid }).at(Stage::Destroy)?;
    }
    // A run that is killed half way leaves what cannot be told from the domain any more. Where it cannot be recorded, the
    // domain goes all the same.
    let uuid = connection.xen.domain(domid).at(Stage::Destroy)?.map(|domain| domain.uuid);
    let run = uuid.map(|uuid| Recorded::begin(RunVerb::Destroy, uuid, Some(domid))).transpose();
    let mut run = run.unwrap_or_else(|error| {
        log::warn!("{error}");
        None
    });
    let uuid = uuid.map_or_else(|| mark_of(&connection.store, domid), |uuid| Ok(Some(uuid))).at(Stage::Destroy)?;
    let destroyed = connection.destroy(domid);
    if let (Err(_), Some(run)) = (&destroyed, &mut run) {
        run.leave();
    }
    destroyed?;
    drop(run);
    // What earlier runs could not remove of it is gone as well.
    if let Some(Err(error)) = uuid.map(forget_dead) {
        log::warn!("{error}");
    }
    report::finish(json, &json!({ "destroyed": domid }), &format!("domain {domid} is destroyed"))
}

/// The domain that a user means; or, by its number, one that is gone and has left keys behind, as a clean-up does that could
/// not end.
fn find_domain_or_rest(connection: &Connection, text: &str) -> Result<DomId, Error> {
    match find_domain(connection, text) {
        Err(Error::NoSuchDomain(unknown)) => match text.parse().ok().and_then(DomId::new) {
            Some(domid) if has_keys(&connection.store, domid)? => Ok(domid),
            _ => Err(Error::NoSuchDomain(unknown)),
        },
        found => found,
    }
}
