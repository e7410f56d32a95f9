//! `check`: a guest's configuration file, as xl reads it, or a saved guest's file.

use serde_json::Value;

use super::check_saved;
use crate::cli::args::CheckArgs;
use crate::cli::print::{self, Done};
use crate::cli::reporter::Reporter;
use crate::cli::xl_cfg::checks::Checks;
use crate::cli::xl_cfg::xl_conf::XlConf;
use crate::cli::xl_cfg::{file, report};
use crate::error::Error;
use crate::migration::saved_file::is_saved_guest;
use crate::observer;
use crate::stage::Stage;

pub(crate) fn run(reporter: &Reporter, arguments: &CheckArgs, json: bool) -> anyhow::Result<Done> {
    if is_saved_guest(&arguments.file) {
        return check_saved::run(reporter, arguments, json);
    }
    if arguments.libxl_json {
        let (value, warnings) = observer::step(reporter, Stage::CheckInput, || libxl(arguments))?;
        reporter.clear_line();
        if !warnings.is_empty() {
            print::print_lines_to_stderr(&warnings);
        }
        return print::finish(true, &value, "");
    }
    let checked = observer::step(reporter, Stage::CheckInput, || {
        let name = arguments.file.to_string_lossy();
        let bytes = file::read(&arguments.file).map_err(Error::from)?;
        report::of(&name, bytes, &arguments.settings, &Checks { strict: arguments.strict, ..Checks::default() })
    })?;
    print::finish(json, &checked, checked.text())
}

/// The configuration that xl makes of the file, and the warnings.
fn libxl(arguments: &CheckArgs) -> Result<(Value, String), Error> {
    let name = arguments.file.to_string_lossy();
    let bytes = file::read(&arguments.file)?;
    let xl_conf = XlConf::of_host(arguments.xl_conf.as_deref())?;
    report::libxl(&name, bytes, &arguments.settings, arguments.strict, xl_conf)
}
