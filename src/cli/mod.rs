//! The command line: flags, verbs, the helper `xenguest`, and everything that is printed.

mod advice;
pub mod args;
pub mod boot_file_flags;
mod call_advice;
pub mod commands;
pub mod connection;
pub mod create_request;
mod device_flags;
mod device_table;
pub mod dispatch;
pub mod events;
pub mod exit_codes;
pub mod from_flags;
mod from_saved;
mod guest_file;
pub mod lenient_args;
mod libxl_configuration;
mod machine_flags;
mod nearest;
mod plan_advice;
pub mod print;
pub mod progress_line;
pub mod reporter;
pub mod xenguest;
pub mod xl_cfg;
