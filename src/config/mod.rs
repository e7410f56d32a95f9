//! What a guest is, typed and checked once. No file is read here, and Xen is not asked.

pub mod autoballoon;
pub mod cmdline;
pub mod error;
pub mod guest;
pub mod name;
pub mod platform;
