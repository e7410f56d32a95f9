//! xl's configuration files: the language, the keys of a guest, and what is wrong with a file.
//!
//! `source` has the texts and the places in them, `lexer`, `parser` and `document` the language, `keys` the table of all keys,
//! `guest` the checks of a whole configuration, and `report` what is printed.

pub mod checks;
mod cpu_list;
mod device_lists;
mod device_texts;
mod diagnostic;
mod document;
mod fields;
pub mod file;
mod flags;
#[cfg(test)]
mod fuzz;
mod guest;
mod keys;
mod lexer;
mod libxl_devices;
mod libxl_json;
mod libxl_parts;
mod number;
mod parser;
mod reader;
pub mod report;
mod source;
#[cfg(test)]
mod tests;
mod types;
mod value;
mod values;
mod vnuma;
pub mod xl_conf;
