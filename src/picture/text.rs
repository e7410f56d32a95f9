//! Draws a plan in characters, for a terminal.

use super::regions::Map;
use super::stack::{Stack, short};
use super::{breakdown, figures, map};
use crate::memory::model::Model;
use crate::memory::{Kind, Plan};

/// The most columns of a drawing.
pub const WIDTH: usize = 79;

/// Draws a plan as text of at most [`WIDTH`] columns, with box-drawing characters and without colours.
#[must_use]
pub fn render(plan: &Plan) -> String {
    let stack = Stack::new(plan);
    let mut out = format!("{}\n\n", title(plan));
    out.push_str("What its memory is made of (not to scale)\n\n");
    out.push_str(&breakdown::draw(&stack));
    out.push('\n');
    out.push_str(&words(&stack));
    if let Some(lines) = ballooned(plan) {
        out.push('\n');
        out.push_str(&lines.map(|line| format!(" {line}\n")).concat());
    }
    out.push_str(match plan.request.kind {
        Kind::Hvm | Kind::Pvh => "\nWhere it stands in the guest (physical addresses, not to scale; dots: no RAM)\n\n",
        Kind::Pv => "\nWhere it stands in the guest (pseudo-physical addresses, not to scale)\n\n",
    });
    out.push_str(&map::draw(&Map::new(plan)));
    out.push_str(match plan.request.kind {
        Kind::Hvm => "\nWhat Xen will report (hvmloader adds a few pages of its own later)\n\n",
        Kind::Pvh | Kind::Pv => "\nWhat Xen will report\n\n",
    });
    out.push_str(&figures::draw(plan));
    out
}

/// The drawing's first line.
pub(super) fn title(plan: &Plan) -> String {
    let memory = &plan.memory;
    let kind = plan.request.kind.name().to_uppercase();
    let vcpus = if plan.vcpus == 1 { "1 vCPU".to_owned() } else { format!("{} vCPUs", plan.vcpus) };
    let model = match plan.request.model {
        Model::Xenops => String::new(),
        model => format!(" ({model})"),
    };
    if memory.balloon.is_zero() {
        format!("{kind} guest of {} with {vcpus}{model}", short(memory.target))
    } else {
        format!(
            "{kind} guest of {} that may grow to {}, with {vcpus}{model}",
            short(memory.target),
            short(memory.static_max)
        )
    }
}

/// The explanation of the blocks and the sums.
pub(super) fn words(stack: &Stack) -> String {
    let mut out = String::new();
    for block in &stack.blocks {
        out.push_str(&format!(" {:<14}  {}\n", block.name, block.meaning));
    }
    out.push('\n');
    for sum in &stack.sums {
        // A sum without a bracket has its size here.
        let size = if sum.span.is_none() { format!("{}: ", short(sum.size)) } else { String::new() };
        out.push_str(&format!(" {:<14}  {size}{}\n", sum.name, sum.meaning));
    }
    out
}

/// The notes on a guest that starts with less than it may have.
pub(super) fn ballooned(plan: &Plan) -> Option<[String; 4]> {
    let memory = &plan.memory;
    if memory.populate_on_demand {
        // With the shim's part, which is larger for a larger guest, this is slightly more than the balloon.
        let missing = memory.build_max.checked_sub(memory.build_start).unwrap_or(memory.balloon);
        Some([
            "Populate on demand: the guest holds less than it sees. Xen puts a page in".to_owned(),
            format!("where the guest first touches one, up to {} in all. Its balloon", short(memory.build_start)),
            format!("driver has to give back {} soon: a guest that touches more", short(missing)),
            "than it may hold is crashed by Xen.".to_owned(),
        ])
    } else if memory.balloon.is_zero() {
        None
    } else {
        Some([
            "Ballooned down: the guest knows that it holds less than it may have. It".to_owned(),
            format!("runs with its {}, and its balloon driver takes up to", memory.build_start),
            format!("{} more when memory/target in xenstore is raised", memory.balloon),
            "(and Xen's limit with it, where that is the target's).".to_owned(),
        ])
    }
}
