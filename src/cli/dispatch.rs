//! The program: arguments in, one result or error and an exit status out.

use std::env;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::RawFd;
use std::path::Path;
use std::sync::Arc;

use clap::error::ErrorKind;
use clap::{ArgMatches, CommandFactory, FromArgMatches};
use log::{Level, LevelFilter};
use nix::sys::stat::{Mode, umask};

use super::args::output::OutputArgs;
use super::args::{Cli, Command};
use super::commands::{
    attach, balloon, build, check, cleanup, create, destroy, detach, features, inspect, list, medium, migrate,
    migrate_receive, pci, plan, restore, resume, run, save,
};
use super::events::Events;
use super::print::{self, Code, Done};
use super::reporter::Reporter;
use super::{guest_file, lenient_args as given, xenguest};
use crate::error::{AtStage, Error, Failure};
use crate::logging::{self, LogConfig};
use crate::migration::{checker, helper};
use crate::os::entry::SUCCESS;
use crate::os::{lines, process};
use crate::payload::kernel;
use crate::stage::Stage;

/// The program: arguments in, one result or error and an exit status out.
#[must_use]
pub fn main() -> u8 {
    let arguments = help_verb_as_flag(env::args_os().collect());
    if process::has_borrowed_rights() {
        return refuse_borrowed_rights(&arguments);
    }
    restrict_new_files();
    if let Some(words) = kernel::unpack_words(&arguments) {
        return kernel::unpack_main(words);
    }
    if let Some(words) = checker::check_words(&arguments) {
        return checker::check_main(words);
    }
    if let Some(words) = helper::helper_words(&arguments) {
        return helper::helper_main(words);
    }
    if let Some(words) = helper_words(&arguments) {
        return xenguest::main(words);
    }
    // The flags and what was given live as long as the process: its end frees them in less time.
    let parsed = Box::leak(Box::new(Cli::command()))
        .try_get_matches_from_mut(&arguments)
        .and_then(|matches| Ok((OutputArgs::from_arg_matches(&matches)?, &*Box::leak(Box::new(matches)))));
    match parsed {
        Ok((output, matches)) => run(&output, matches, &arguments),
        // `--help` and `--version` end here too: they are no errors, and go to stdout.
        Err(text) if !text.use_stderr() => {
            let _ = text.print();
            SUCCESS
        }
        Err(error) => {
            let given = given::parse_lenient(&arguments);
            // Whatever else fails, this is the error to report, to every output that works.
            let events = Events::default();
            let _ = open_events(&events, &given.output);
            if open_log(&given.output).is_err() {
                let _ = open_log(&OutputArgs { log: None, ..given.output });
            }
            events.start(given.verb.as_deref());
            usage(&events, &error, given.json, tip(&arguments))
        }
    }
}

/// `help VERB` is `VERB --help`, and `help` alone is `--help`. clap's own verb would have a man page and completions.
fn help_verb_as_flag(mut words: Vec<OsString>) -> Vec<OsString> {
    if words.get(1).is_some_and(|word| word == "help") {
        words.remove(1);
        words.push("--help".into());
    }
    words
}

/// Only the caller may write to files that are made without an explicit mode; QEMU inherits that.
fn restrict_new_files() {
    let given = umask(Mode::empty());
    umask(given | Mode::S_IWGRP | Mode::S_IWOTH);
}

/// Paths, the environment and the log would all be the caller's word, and the rights another's. Nothing is opened that either
/// names.
fn refuse_borrowed_rights(arguments: &[OsString]) -> u8 {
    let message = "dombuild does not run set-uid, set-gid or with file capabilities: let root call it";
    if given::parse_lenient(arguments).json {
        print::print_line(&print::error_message(Code::PERMISSION, message));
    }
    print::print_stderr(message);
    Code::PERMISSION.exit
}

/// Whether standard output is the connection to another host.
fn has_wire_on_stdout(matches: &ArgMatches) -> bool {
    let receive = matches.subcommand_matches("migrate-receive");
    receive.is_some_and(|matches| matches.get_one::<RawFd>("fd").is_none())
}

fn run(output: &OutputArgs, matches: &ArgMatches, arguments: &[OsString]) -> u8 {
    let json = matches.get_flag("json") && !has_wire_on_stdout(matches);
    let verb = matches.subcommand_name().unwrap_or_default();
    // Before anything else is opened: the number could be taken then.
    let events = Arc::new(Events::default());
    let opened = open_events(&events, output);
    let log = open_log(output);
    events.start(Some(verb));
    if let Err(error) = log {
        return print::print_error(&events, &Failure { stage: Stage::CheckInput, error, aftermath: None }.into(), json);
    }
    if let Err(problem) = opened {
        let message = format!("invalid value for '--events-fd <N>': {problem}");
        return usage(&events, &Cli::command().error(ErrorKind::ValueValidation, message), json, None);
    }
    log::debug!("arguments {arguments:?}");
    if log::log_enabled!(Level::Debug) {
        for setting in given::settings(matches) {
            log::debug!("setting {setting}");
        }
    }
    let reporter = Reporter::new(events.clone());
    let last_words = {
        let events = events.clone();
        move |message: &str| print::last_words(&events, message)
    };
    match logging::catch(last_words, || carry_out(&reporter, &guest_file::complete(&reporter, matches, arguments)?)) {
        Ok(done) => {
            print::tell_done(&events, verb, &done);
            SUCCESS
        }
        Err(error) => print::print_error(&events, &error, json),
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

fn open_events(events: &Events, output: &OutputArgs) -> Result<(), String> {
    output.events_fd.map_or(Ok(()), |number| events.open(number))
}

fn open_log(output: &OutputArgs) -> Result<(), Error> {
    let (level, stderr) =
        if output.debug { (LevelFilter::Debug, LevelFilter::Debug) } else { (LevelFilter::Info, LevelFilter::Warn) };
    logging::init(&LogConfig {
        destinations: output.log.iter().cloned().collect(),
        format: output.log_format,
        level,
        stderr: Some(stderr),
        best_effort: false,
    })
}

/// The right spelling of a flag whose value needs an equals sign.
fn tip(arguments: &[OsString]) -> Option<String> {
    let pair = arguments.windows(2).find(|pair| pair.first().is_some_and(|flag| flag == "--watch"))?;
    let seconds: u32 = pair.get(1)?.to_str()?.parse().ok()?;
    Some(format!("to measure every {seconds} seconds, give --watch={seconds}"))
}

fn usage(events: &Events, error: &clap::Error, json: bool, tip: Option<String>) -> u8 {
    let mut text = error.to_string();
    if let Some(tip) = &tip {
        text = text.replacen("\n\nUsage:", &format!("\n\n  tip: {tip}\n\nUsage:"), 1);
    }
    // Without a verb clap's text is the whole help: for people.
    let message = match error.kind() {
        ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => "a verb is missing; see dombuild --help",
        _ => text.trim_end().trim_start_matches("error: "),
    };
    let mut object = print::error_message(Code::USAGE, message);
    object["error"]["stage"] = Stage::CheckInput.name().into();
    if json {
        print::print_line(&object);
    }
    print::tell_error(events, &object, Code::USAGE, || {
        // A closed stderr is no reason for another error. clap prints the arguments as they came.
        let shown = lines(&text);
        let _ = if shown == text && tip.is_none() { error.print() } else { io::stderr().write_all(shown.as_bytes()) };
    })
}

/// Carries out what the command line says.
///
/// # Errors
/// A [`Failure`], or what printing the result met with.
fn carry_out(reporter: &Reporter, cli: &Cli) -> anyhow::Result<Done> {
    match &cli.command {
        // Its command line and its answers are its own, and were taken care of before.
        Command::Xenguest(_) => {
            let reason =
                "xenguest must be the first word: all behind it is its own, and dombuild's options are not for it";
            Ok(Err(Error::BadConfig(reason.to_owned())).at(Stage::CheckInput)?)
        }
        Command::Plan(arguments) => plan::run(reporter, arguments, cli.json),
        Command::Check(arguments) => check::run(reporter, arguments, cli.json),
        Command::Create(arguments) => create::run(reporter, arguments, cli.json),
        Command::Run(arguments) => run::run(reporter, arguments, cli.json),
        Command::Build(arguments) => build::run(reporter, arguments, cli.json),
        Command::Balloon(arguments) => balloon::run(reporter, arguments, cli.json),
        Command::Attach(arguments) => attach::run(reporter, arguments, cli.json),
        Command::Detach(arguments) => detach::run(reporter, arguments, cli.json),
        Command::Insert(arguments) => medium::insert(reporter, arguments, cli.json),
        Command::Eject(arguments) => medium::eject(reporter, arguments, cli.json),
        Command::Save(arguments) => save::run(reporter, arguments, cli.json),
        Command::Restore(arguments) => restore::run(reporter, arguments, cli.json),
        Command::Migrate(arguments) => migrate::run(reporter, arguments, cli.json),
        Command::MigrateReceive(arguments) => migrate_receive::run(reporter, arguments, cli.json),
        Command::Resume(arguments) => resume::run(reporter, arguments, cli.json),
        Command::Destroy(arguments) => destroy::run(reporter, arguments, cli.json),
        Command::Cleanup(arguments) => cleanup::run(reporter, arguments, cli.json),
        Command::Inspect(arguments) => inspect::run(reporter, arguments, cli.json),
        Command::Pci(arguments) => pci::run(reporter, arguments, cli.json),
        Command::List(arguments) => list::run(reporter, arguments, cli.json),
        Command::Features => features::run(cli.json),
    }
}
