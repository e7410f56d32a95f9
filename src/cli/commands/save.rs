//! `save`: a guest is written to a file, and destroyed then.

use std::time::Instant;

use serde_json::json;

use crate::cli::args::migration::SaveArgs;
use crate::cli::connection::{Connection, find_guest};
use crate::cli::print::{self, Done};
use crate::cli::reporter::Reporter;
use crate::error::AtStage;
use crate::migration::save::{After, SaveJob, Saved, save};
use crate::stage::Stage;

pub(crate) fn run(reporter: &Reporter, arguments: &SaveArgs, json: bool) -> anyhow::Result<Done> {
    let connection = Connection::open(reporter, true, arguments.store.store_timeout)?;
    let domain = find_guest(&connection, &arguments.domain).at(Stage::CheckInput)?;
    let after = match (arguments.checkpoint, arguments.keep_paused) {
        (true, _) => After::Resume,
        (_, true) => After::Pause,
        _ => After::Destroy,
    };
    let start = Instant::now();
    let job = SaveJob {
        domain: &domain,
        path: &arguments.file,
        after,
        suspend_timeout: arguments.suspend_timeout,
        timeout: arguments.timeout,
    };
    let Saved { bytes, suspended_ms } = save(&connection.context(), &job)?;
    reporter.clear_line();
    let (state, then) = match after {
        After::Destroy => ("destroyed", "and destroyed"),
        After::Resume => ("running", "and runs on"),
        After::Pause => ("paused", "and is paused"),
    };
    let object = json!({
        "domid": domain.domid,
        "uuid": domain.uuid,
        "file": arguments.file,
        "bytes": bytes,
        "suspended_ms": suspended_ms,
        "state": state,
    });
    let (mib, seconds) = (bytes >> 20, start.elapsed().as_secs_f64());
    let summary =
        format!("domain {} is saved to {}, {mib} MiB, {then} ({seconds:.1} s)", domain.domid, arguments.file.display());
    print::finish(json, &object, &summary)
}
