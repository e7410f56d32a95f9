//! `check`: a guest's configuration file, as xl reads it.

use std::path::Path;

use serde_json::Value;

use crate::cli::args::CheckArgs;
use crate::cli::print::{self, Done};
use crate::cli::reporter::Reporter;
use crate::cli::xl_cfg::{file, report};
use crate::error::Error;
use crate::observer;
use crate::stage::Stage;

/// xl's own configuration.
const XL_CONF: &str = "/etc/xen/xl.conf";

pub(crate) fn run(reporter: &Reporter, arguments: &CheckArgs, json: bool) -> anyhow::Result<Done> {
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
        report::of(&name, bytes, &arguments.settings, arguments.strict)
    })?;
    print::finish(json, &checked, checked.text())
}

/// The configuration that xl makes of the file, and the warnings.
fn libxl(arguments: &CheckArgs) -> Result<(Value, String), Error> {
    let name = arguments.file.to_string_lossy();
    let bytes = file::read(&arguments.file)?;
    let xl_conf = match &arguments.xl_conf {
        Some(path) => (path.to_string_lossy(), file::read(path)?),
        None if Path::new(XL_CONF).exists() => (XL_CONF.into(), file::read(Path::new(XL_CONF))?),
        None => (XL_CONF.into(), Vec::new()),
    };
    report::libxl(&name, bytes, &arguments.settings, arguments.strict, (&xl_conf.0, xl_conf.1))
}
