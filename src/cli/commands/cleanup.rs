//! `cleanup`: what killed runs left behind is found, and removed.

use crate::cli::args::CleanupArgs;
use crate::cli::connection::Connection;
use crate::cli::print::{self, Done};
use crate::cli::reporter::Reporter;
use crate::error::{AtStage, Error};
use crate::lifecycle::cleanup::{Leftover, LeftoverKind, clean_up};
use crate::observer;
use crate::runs::journal::RunVerb;
use crate::stage::Stage;

pub(crate) fn run(reporter: &Reporter, arguments: &CleanupArgs, json: bool) -> anyhow::Result<Done> {
    let connection = Connection::open(reporter, false, arguments.store.store_timeout)?;
    let found =
        observer::step(reporter, Stage::Cleanup, || clean_up(&connection.xen, &connection.store, arguments.apply))?;
    let object = serde_json::to_value(&found)?;
    let problems: Vec<String> = found.iter().filter_map(problem).collect();
    if !problems.is_empty() {
        return Ok(Err(Error::NotCleaned { problems: problems.join("; "), found: object }).at(Stage::Cleanup)?);
    }
    print::finish(json, &object, &text(&found, arguments.apply))
}

fn problem(left: &Leftover) -> Option<String> {
    left.problem.as_ref().map(|problem| format!("{} could not be removed: {problem}", name(left)))
}

/// What it is, and of whose.
fn name(left: &Leftover) -> String {
    let of =
        left.domid.map_or_else(|| format!("domain {}", left.uuid), |domid| format!("domain {domid} ({})", left.uuid));
    match left.what {
        LeftoverKind::Domain => of,
        LeftoverKind::Claim => format!("the claim on memory of {of}"),
        LeftoverKind::DeviceModel => format!("the device model of {of}"),
        LeftoverKind::Keys => format!("the keys of {of}"),
        LeftoverKind::Files => format!("the files of {of}"),
        LeftoverKind::Device => format!("a device of {of}"),
        LeftoverKind::PciDevice => format!("a PCI device of {of}"),
        LeftoverKind::Suspended => format!("the suspension of {of}"),
        LeftoverKind::PartialFile => format!("the incomplete file of {of}"),
        LeftoverKind::Lock => format!("the lock on the user data of {of}"),
        LeftoverKind::Record => format!("the record of {of}"),
    }
}

fn text(found: &[Leftover], apply: bool) -> String {
    if found.is_empty() {
        return "nothing was left behind".to_owned();
    }
    let things = if found.len() == 1 { "1 thing" } else { &format!("{} things", found.len()) };
    let end = if apply { "removed" } else { "found; --apply removes it" };
    let mut lines = vec![format!("{things} of killed runs {end}")];
    for left in found {
        let verb = left.verb.map(|verb| match verb {
            RunVerb::Create => "create",
            RunVerb::Build => "build",
            RunVerb::Destroy => "destroy",
            RunVerb::Attach => "attach",
            RunVerb::Save => "save",
            RunVerb::Migrate => "migrate",
        });
        let by = verb.zip(left.pid).map(|(verb, pid)| format!(", by {verb}, process {pid}")).unwrap_or_default();
        lines.push(format!("  {}{by}", name(left)));
    }
    lines.join("\n")
}
