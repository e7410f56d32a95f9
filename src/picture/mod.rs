//! A plan as a drawing: what the domain's memory is made of, its addresses, and what Xen will report.
//!
//! The content of a drawing is data: a `Stack` of blocks and sums, a `Map` of regions, and a table of figures. `breakdown`
//! and `map` draw it in characters, `svg` as an SVG document.

mod breakdown;
mod canvas;
pub mod comparison;
mod figures;
mod map;
mod regions;
mod stack;
pub mod svg;
#[cfg(test)]
mod tests;
pub mod text;
