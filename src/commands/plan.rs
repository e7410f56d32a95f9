//! `plan`: the memory of a guest, computed and drawn.

use super::settings;
use crate::args::MemoryArgs;
use crate::error::{AtStage, Stage};
use crate::memory::render;
use crate::report;

pub(super) fn run(arguments: &MemoryArgs, json: bool) -> anyhow::Result<()> {
    let plan = settings::plan(arguments, true).at(Stage::CheckInput)?;
    if json { report::print_json(&plan) } else { report::print_text(&render(&plan)) }
}
