//! Drawings of a plan: the breakdown of the memory, the address map, and the page counts that Xen will report.
//!
//! The content of a drawing is data: a `Stack` of blocks and sums, a `Map` of regions, and a table of figures.
//! `breakdown` and `map` draw it in characters, `svg` draws an SVG document.

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
