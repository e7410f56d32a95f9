//! xl's configuration files: the language, the keys of a guest, and what is wrong with a file.
//!
//! `source` has the texts and the places in them, `lexer`, `parser` and `document` the language, `keys` the table of all keys,
//! `guest` the checks of a whole configuration, and `report` what is printed.

mod cpu_list;
mod device_lists;
mod diagnostic;
mod document;
pub mod file;
mod flags;
pub mod guest;
pub mod host_defaults;
mod keys;
mod lexer;
mod number;
mod parser;
mod reader;
pub mod report;
mod source;
#[cfg(test)]
mod tests;
mod value;
mod values;
