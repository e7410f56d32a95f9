//! `plan`: the memory of a guest, computed and drawn.

use super::{picture, settings};
use crate::args::PlanArgs;
use crate::error::{AtStage, Stage};
use crate::memory::{render, svg};
use crate::report;

pub(super) fn run(arguments: &PlanArgs, json: bool) -> anyhow::Result<()> {
    let plan = settings::plan(&arguments.memory, true).at(Stage::CheckInput)?;
    if picture(arguments.svg.as_deref(), json, || svg(&plan)).at(Stage::CheckInput)? {
        return Ok(());
    }
    if json { report::print_json(&plan) } else { report::print_text(&render(&plan)) }
}
