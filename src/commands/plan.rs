//! `plan`: the memory of a guest, computed and drawn.

use super::{picture, settings};
use crate::args::PlanArgs;
use crate::error::{AtStage, Stage};
use crate::events;
use crate::memory::{render, svg};
use crate::report::{self, Done};

pub(super) fn run(arguments: &PlanArgs, json: bool) -> anyhow::Result<Done> {
    let plan = events::step(Stage::CheckInput, || settings::plan(&arguments.memory, true))?;
    if picture(arguments.svg.as_deref(), json, || svg(&plan)).at(Stage::CheckInput)? {
        return Done::new(&plan, &render(&plan));
    }
    report::finish(json, &plan, &render(&plan))
}
