//! A plan as a drawing for the terminal.

use super::plan::Plan;

/// Draws a plan.
#[must_use]
pub fn render(plan: &Plan) -> String {
    format!("{plan:#?}\n")
}
