//! `check`: a guest's configuration file, as xl reads it.

use crate::cli::args::CheckArgs;
use crate::cli::print::{self, Done};
use crate::cli::reporter::Reporter;
use crate::cli::xl_cfg::guest::Checks;
use crate::cli::xl_cfg::{file, report};
use crate::error::Error;
use crate::observer;
use crate::stage::Stage;

pub(crate) fn run(reporter: &Reporter, arguments: &CheckArgs, json: bool) -> anyhow::Result<Done> {
    let checked = observer::step(reporter, Stage::CheckInput, || {
        let name = arguments.file.to_string_lossy();
        let bytes = file::read(&arguments.file).map_err(Error::from)?;
        report::of(&name, bytes, &arguments.settings, &Checks { strict: arguments.strict, ..Checks::default() })
    })?;
    print::finish(json, &checked, checked.text())
}
