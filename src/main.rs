//! The program `dombuild`: arguments in, one result or error and an exit status out.

#![forbid(unsafe_code)]

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use dombuild::args::{Cli, TellArgs};
use dombuild::error::{Error, Failure, Stage};
use dombuild::logging::{self, LogConfig};
use dombuild::os::lines;
use dombuild::report::{self, Code};
use dombuild::xen::process;
use dombuild::{commands, config, events, given};
use log::{Level, LevelFilter};
use nix::sys::stat::{Mode, umask};

fn main() -> ExitCode {
    let arguments: Vec<OsString> = env::args_os().collect();
    if process::has_borrowed_rights() {
        return refuse_borrowed_rights(&arguments);
    }
    restrict_new_files();
    if let Some(words) = config::unpack_words(&arguments) {
        return config::unpack_main(words);
    }
    if let Some(words) = helper_words(&arguments) {
        return commands::xenguest::main(words);
    }
    let parsed = Cli::command()
        .try_get_matches_from(&arguments)
        .and_then(|matches| Ok((Cli::from_arg_matches(&matches)?, matches)));
    match parsed {
        Ok((cli, matches)) => run(&cli, &matches, &arguments),
        // `--help` and `--version` end here too: they are no errors, and go to stdout.
        Err(text) if !text.use_stderr() => {
            let _ = text.print();
            ExitCode::SUCCESS
        }
        Err(error) => {
            let given = given::despite_errors(&arguments);
            // Whatever else is wrong: this error is the one that is told, to everybody who can be told.
            let _ = open_events(&given.told);
            if open_log(&given.told).is_err() {
                let _ = open_log(&TellArgs { log: None, ..given.told });
            }
            events::start(given.verb.as_deref());
            usage(&error, given.json)
        }
    }
}

/// What is made without a mode of its own is nobody's to write but the caller's; QEMU inherits that.
fn restrict_new_files() {
    let given = umask(Mode::empty());
    umask(given | Mode::S_IWGRP | Mode::S_IWOTH);
}

/// Paths, the environment and the log would all be the caller's word, and the rights another's. Nothing is opened that either
/// names.
fn refuse_borrowed_rights(arguments: &[OsString]) -> ExitCode {
    let message = "dombuild does not run set-uid, set-gid or with file capabilities: let root call it";
    if given::despite_errors(arguments).json {
        report::print_line(&report::error_message(Code::PERMISSION, message));
    }
    report::print_stderr(message);
    ExitCode::from(Code::PERMISSION.exit)
}

fn run(cli: &Cli, matches: &ArgMatches, arguments: &[OsString]) -> ExitCode {
    let verb = matches.subcommand_name().unwrap_or_default();
    // Before anything else is opened: the number could be taken then.
    let events = open_events(&cli.told);
    let log = open_log(&cli.told);
    events::start(Some(verb));
    if let Err(error) = log {
        return report::print_error(&Failure { stage: Stage::CheckInput, error, aftermath: None }.into(), cli.json);
    }
    if let Err(problem) = events {
        let message = format!("invalid value for '--events-fd <N>': {problem}");
        return usage(&Cli::command().error(ErrorKind::ValueValidation, message), cli.json);
    }
    log::debug!("arguments {arguments:?}");
    if log::log_enabled!(Level::Debug) {
        for setting in given::settings(matches) {
            log::debug!("setting {setting}");
        }
    }
    match logging::catch(|| commands::run(cli)) {
        Ok(done) => {
            report::tell_done(verb, &done);
            ExitCode::SUCCESS
        }
        Err(error) => report::print_error(&error, cli.json),
    }
}

/// The command line of XenServer's helper, where this is called by its name or by the verb. Its options are no more
/// clap's than its answers are ours, but for its help.
fn helper_words(words: &[OsString]) -> Option<&[OsString]> {
    let named = words.first().is_some_and(|name| Path::new(name).file_name() == Some("xenguest".as_ref()));
    let verb = words.get(1).is_some_and(|verb| verb == "xenguest");
    let skip = if named {
        1
    } else if verb {
        2
    } else {
        return None;
    };
    let rest = words.get(skip..).unwrap_or_default();
    let asks_for_help = rest.first().is_some_and(|word| word == "--help" || word == "-h");
    (named || !asks_for_help).then_some(rest)
}

fn open_events(told: &TellArgs) -> Result<(), String> {
    told.events_fd.map_or(Ok(()), events::open)
}

fn open_log(told: &TellArgs) -> Result<(), Error> {
    let (level, stderr) =
        if told.debug { (LevelFilter::Debug, LevelFilter::Debug) } else { (LevelFilter::Info, LevelFilter::Warn) };
    logging::init(&LogConfig {
        destinations: told.log.iter().cloned().collect(),
        format: told.log_format,
        level,
        stderr: Some(stderr),
        best_effort: false,
    })
}

fn usage(error: &clap::Error, json: bool) -> ExitCode {
    let text = error.to_string();
    // Without a verb clap's text is the whole help: for people.
    let message = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "a verb is missing; see dombuild --help",
        _ => text.trim_end().trim_start_matches("error: "),
    };
    let object = report::error_message(Code::USAGE, message);
    if json {
        report::print_line(&object);
    }
    report::tell_error(&object, Code::USAGE, || {
        // A closed stderr is no reason for another error. clap prints the arguments as they came.
        let shown = lines(&text);
        let _ = if shown == text { error.print() } else { io::stderr().write_all(shown.as_bytes()) };
    })
}
