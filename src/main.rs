//! The program `dombuild`: arguments in, one result or error and an exit status out.

#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use clap::Parser;
use clap::error::ErrorKind;
use dombuild::args::Cli;
use dombuild::commands;
use dombuild::report::{self, Code};

fn main() -> ExitCode {
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or("dombuild=warn")).init();
    if let Some(words) = helper_words(env::args_os().collect()) {
        return commands::xenguest::main(&words);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return usage(&error),
    };
    match commands::run(&cli) {
        Ok(code) => code,
        Err(error) => report::print_error(&error, cli.json),
    }
}

/// The command line of XenServer's helper, where this is called by its name or by the verb. Its options are no more
/// clap's than its answers are ours, but for its help.
fn helper_words(words: Vec<OsString>) -> Option<Vec<OsString>> {
    let named = words.first().is_some_and(|name| Path::new(name).file_name() == Some("xenguest".as_ref()));
    let verb = words.get(1).is_some_and(|verb| verb == "xenguest");
    let skip = if named {
        1
    } else if verb {
        2
    } else {
        return None;
    };
    let rest: Vec<OsString> = words.into_iter().skip(skip).collect();
    let asks_for_help = rest.first().is_some_and(|word| word == "--help" || word == "-h");
    (named || !asks_for_help).then_some(rest)
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
