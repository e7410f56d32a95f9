//! The program `dombuild`.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    dombuild::cli::dispatch::main()
}
