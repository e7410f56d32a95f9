//! The program `dombuild`: arguments in, one result or error and an exit status out.

#![forbid(unsafe_code)]

use std::env;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use dombuild::args::Cli;
use dombuild::commands;
use dombuild::report::{self, Code};

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("dombuild=warn")).init();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match commands::run(&cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => report::print_error(&error, cli.json),
    }
}

/// `--help` and `--version` end here too: they are no errors, and go to stdout.
fn usage(error: &clap::Error) -> ExitCode {
    let failed = error.use_stderr();
    if failed && env::args_os().any(|argument| argument == "--json") {
        let text = error.to_string();
        // Without a verb clap's text is the whole help: for people.
        let message = match error.kind() {
            ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "a verb is missing; see dombuild --help",
            _ => text.trim_end().trim_start_matches("error: "),
        };
        report::print_line(&report::error_message(Code::USAGE, message));
    }
    // A closed stdout or stderr is no reason for another error.
    let _ = error.print();
    if failed { ExitCode::from(Code::USAGE.exit) } else { ExitCode::SUCCESS }
}
