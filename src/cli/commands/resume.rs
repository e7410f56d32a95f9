//! `resume`: a suspended guest runs on.

use serde_json::json;

use crate::cli::args::migration::ResumeArgs;
use crate::cli::connection::{Connection, find_guest};
use crate::cli::print::{self, Done};
use crate::cli::reporter::Reporter;
use crate::domain::paths::XenstorePaths;
use crate::error::migration::{MigrationError, Obstacle};
use crate::error::{AtStage, Error};
use crate::lifecycle::migrated::{name_before, rename_back};
use crate::lifecycle::suspend::{is_suspending, resume, stop_recording};
use crate::runs::journal::is_worked_on;
use crate::stage::Stage;

pub(crate) fn run(reporter: &Reporter, arguments: &ResumeArgs, json: bool) -> anyhow::Result<Done> {
    let connection = Connection::open(reporter, true, arguments.store.store_timeout)?;
    let domain = find_guest(&connection, &arguments.domain).at(Stage::Resume)?;
    let (context, domid, held) = (connection.context(), domain.domid, domain.held());
    let name = context.step::<_, Error>(Stage::Resume, || {
        if is_worked_on(held)? {
            return Err(MigrationError::Obstacle { domid, obstacle: Obstacle::Busy }.into());
        }
        if !is_suspending(context.store, &domain)? {
            return Err(Error::BadConfig(format!("domain {domid} is not suspended: there is nothing to resume")));
        }
        stop_recording(context.xen, &domain);
        let stuck = |problem| MigrationError::StillSuspended { domid, problem, cause: None };
        resume(context.xen, context.store, held).map_err(stuck)?;
        let node = XenstorePaths::new(domid).of_domain("name");
        let present = context.store.plain().read(&node)?.unwrap_or_default();
        let before = name_before(&present);
        if let Some(name) = &before {
            rename_back(&context, held, name).map_err(Error::Internal)?;
        }
        Ok(before.map_or(present, |name| name.to_string()))
    })?;
    let object = json!({ "domid": domid, "uuid": domain.uuid, "name": name });
    print::finish(json, &object, &format!("domain {domid} runs on, as {name}"))
}
