//! `plan`: the memory of a guest, computed and drawn.

use crate::cli::args::PlanArgs;
use crate::cli::from_flags;
use crate::cli::print::{self, Done, picture};
use crate::cli::reporter::Reporter;
use crate::error::AtStage;
use crate::observer;
use crate::picture::svg::svg;
use crate::picture::text::render;
use crate::stage::Stage;

pub(crate) fn run(reporter: &Reporter, arguments: &PlanArgs, json: bool) -> anyhow::Result<Done> {
    let plan = observer::step(reporter, Stage::CheckInput, || from_flags::plan(&arguments.memory, true))?;
    if picture(arguments.svg.as_deref(), json, || svg(&plan)).at(Stage::CheckInput)? {
        return Done::new(&plan, &render(&plan));
    }
    print::finish(json, &plan, &render(&plan))
}
