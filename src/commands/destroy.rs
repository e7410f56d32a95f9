//! `destroy`: a guest, its device model and its keys are removed.

use serde_json::json;

use super::{Connection, find_domain};
use crate::args::DestroyArgs;
use crate::builder::{is_ours, teardown};
use crate::error::{AtStage, Error, Stage};
use crate::report;
use crate::xen::DomId;

pub(super) fn run(arguments: &DestroyArgs, json: bool) -> anyhow::Result<()> {
    let connection = Connection::open(false)?;
    let domid = find_domain(&connection, &arguments.domain).at(Stage::Destroy)?;
    if domid == DomId::DOM0 {
        return Err(Error::BadConfig("domain 0 is the one that this runs in".to_owned())).at(Stage::Destroy)?;
    }
    if !arguments.force && !is_ours(&connection.xen, &connection.store, domid).at(Stage::Destroy)? {
        return Err(Error::NotOurs { domid }).at(Stage::Destroy)?;
    }
    teardown(&connection.xen, &connection.store, domid)
        .map_err(|cleanup| Error::LeftBehind { domid, cleanup, cause: None })
        .at(Stage::Destroy)?;
    if json {
        report::print_json(&json!({ "destroyed": domid }))
    } else {
        report::print_text(&format!("domain {domid} is destroyed"))
    }
}
