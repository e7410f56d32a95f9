//! One file for each verb.

mod balloon;
mod build;
mod cleanup;
mod create;
mod destroy;
mod dry_run;
mod features;
mod inspect;
mod payload;
mod plan;
mod settings;
pub mod xenguest;

use std::fmt;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::args::{Cli, Command};
use crate::builder::{Ending, Ports, Rings, teardown};
use crate::cancel::Cancel;
use crate::error::{AtStage, Error, Failure, Stage};
use crate::events;
use crate::memory::{Measured, Plan};
use crate::report::{self, Done};
use crate::xen::{DomId, DomainRef, Interface, Store};

/// Carries out what the command line says.
///
/// # Errors
/// A [`Failure`], or what printing the result met with.
pub fn run(cli: &Cli) -> anyhow::Result<Done> {
    match &cli.command {
        // Its command line and its answers are its own, and were taken care of before.
        Command::Xenguest(_) => {
            let reason =
                "xenguest must be the first word: all behind it is its own, and dombuild's options are not for it";
            Ok(Err(Error::BadConfig(reason.to_owned())).at(Stage::CheckInput)?)
        }
        Command::Plan(arguments) => plan::run(arguments, cli.json),
        Command::Create(arguments) => create::run(arguments, cli.json),
        Command::Build(arguments) => build::run(arguments, cli.json),
        Command::Balloon(arguments) => balloon::run(arguments, cli.json),
        Command::Destroy(arguments) => destroy::run(arguments, cli.json),
        Command::Cleanup(arguments) => cleanup::run(arguments, cli.json),
        Command::Inspect(arguments) => inspect::run(arguments, cli.json),
        Command::Features => features::run(cli.json),
    }
}

/// The handles that every verb on a real Xen needs.
struct Connection {
    xen: Interface,
    store: Store,
    cancel: Cancel,
}

impl Connection {
    /// `cancel` is whether a signal stops the run in order; without it, it ends at once. `store_timeout` is how long
    /// xenstored may take for an answer.
    fn open(cancel: bool, store_timeout: Duration) -> Result<Self, Failure> {
        events::step(Stage::Connect, || {
            let cancel = if cancel { Cancel::install()? } else { Cancel::default() };
            let xen = Interface::open()?;
            let store = Store::open_with(store_timeout, cancel.interrupt());
            let store = store.map_err(|error| cancel.explain(error.into()))?;
            Ok::<_, Error>(Self { xen, store, cancel })
        })
    }

    /// Removes a domain and all that belongs to it.
    fn destroy(&self, domain: DomainRef) -> Result<(), Failure> {
        let left_behind = |cleanup| Error::LeftBehind { domid: domain.domid, cleanup, cause: None };
        let removed = || teardown(&self.xen, &self.store, domain, Ending::InOrder);
        events::step(Stage::Destroy, || removed().map_err(left_behind))
    }
}

/// What `create` and `build` print of a built guest: where its rings are, what was planned and what Xen shows.
#[derive(Debug, Serialize)]
struct Built {
    domid: DomId,
    #[serde(flatten)]
    rings: Rings,
    #[serde(flatten)]
    ports: Ports,
    /// What Xen shows at the end of the build; nothing where a device model took its own memory meanwhile.
    #[serde(skip_serializing_if = "Option::is_none")]
    measured_built: Option<Measured>,
    /// What Xen shows once the device model is ready, where there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    measured_running: Option<Measured>,
    plan: Plan,
}

impl fmt::Display for Built {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let row = |formatter: &mut fmt::Formatter<'_>, what: &str, planned: u64, xen: u64| {
            let verdict = if planned == xen { "" } else { "  differs" };
            writeln!(formatter, "  {what:<22} {planned:>12} {xen:>12}{verdict}")
        };
        writeln!(formatter, "  {:<22} {:>12} {:>12}", "", "planned", "Xen shows")?;
        let plan = &self.plan;
        let measured = [
            (&self.measured_built, "owned pages, built", plan.owned_pages_built),
            (&self.measured_running, "owned pages, running", plan.owned_pages_running),
        ];
        for (seen, what, planned) in measured {
            let Some(seen) = seen else { continue };
            row(formatter, "max pages", plan.max_pages.0, seen.max_pages.0)?;
            row(formatter, what, planned.0, seen.owned_pages.0)?;
            row(formatter, "paging pool, KiB", plan.paging_pool.0, seen.paging_pool_kib.0)?;
        }
        write!(
            formatter,
            "  store ring gfn {:#x} port {}, console ring gfn {:#x} port {}",
            self.rings.store_gfn.0, self.ports.store, self.rings.console_gfn.0, self.ports.console
        )
    }
}

/// Writes the picture where `--svg` says. Whether that was standard output, which then has nothing else to take.
fn picture(path: Option<&Path>, json: bool, draw: impl FnOnce() -> String) -> Result<bool, Error> {
    match path {
        None => Ok(false),
        Some(path) if path == Path::new("-") => {
            if json {
                let both = "--svg - and --json both want standard output: give --svg a file";
                return Err(Error::BadConfig(both.to_owned()));
            }
            report::print_text(&draw()).map_err(|error| Error::Internal(format!("{error:#}")))?;
            Ok(true)
        }
        Some(path) => report::write_picture(path, &draw()).map(|()| false),
    }
}

/// The domain that a user means by a number or a name.
fn find_domain(connection: &Connection, text: &str) -> Result<DomId, Error> {
    let unknown = || Error::NoSuchDomain(text.to_owned());
    if text.bytes().all(|byte| byte.is_ascii_digit()) {
        let domid = text.parse().ok().and_then(DomId::new).ok_or_else(unknown)?;
        return connection.xen.domain(domid)?.map(|info| info.domid).ok_or_else(unknown);
    }
    crate::builder::find_by_name(&connection.xen, &connection.store.plain(), text)?.ok_or_else(unknown)
}
