//! `plan`: the memory of a guest, computed and drawn.

use std::path::Path;

use super::settings;
use crate::args::PlanArgs;
use crate::error::{AtStage, Error, Stage};
use crate::memory::{render, svg};
use crate::report;

pub(super) fn run(arguments: &PlanArgs, json: bool) -> anyhow::Result<()> {
    let plan = settings::plan(&arguments.memory, true).at(Stage::CheckInput)?;
    match arguments.svg.as_deref() {
        Some(path) if path == Path::new("-") => {
            if json {
                let both = "--svg - and --json both want standard output: give --svg a file";
                return Err(Error::BadConfig(both.to_owned())).at(Stage::CheckInput)?;
            }
            return report::print_text(&svg(&plan));
        }
        Some(path) => report::write_picture(path, &svg(&plan)).at(Stage::CheckInput)?,
        None => {}
    }
    if json { report::print_json(&plan) } else { report::print_text(&render(&plan)) }
}
