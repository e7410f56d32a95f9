//! What a command line gave: for the log, and for the message of one that cannot be parsed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, CommandFactory};

use crate::cli::args::{Cli, output::OutputArgs};
use crate::logging::destination::Destination;

/// Where a usage error is reported.
#[derive(Debug, Default)]
pub struct Given {
    /// `--json` was given.
    pub json: bool,
    /// Where else to tell it, as far as that was understood.
    pub output: OutputArgs,
    /// The verb, where there is one.
    pub verb: Option<String>,
    /// Its place among the words, which counts from 0.
    pub verb_at: usize,
}

/// Looks for those flags and for the verb in a command line that clap refused, wherever they stand; what is the value of
/// another flag is none of them. Values that are no good are left out: they may be the very error.
#[must_use]
pub fn parse_lenient(arguments: &[OsString]) -> Given {
    let mut command = Cli::command();
    command.build();
    let all = command.get_arguments().chain(command.get_subcommands().flat_map(clap::Command::get_arguments));
    let flags: BTreeMap<&str, &Arg> = all.filter_map(|arg| Some((arg.get_long()?, arg))).collect();

    let mut given = Given::default();
    let mut words = arguments.iter().enumerate().skip(1).peekable();
    while let Some((at, word)) = words.next() {
        let text = word.to_str().unwrap_or_default();
        let Some(flag) = text.strip_prefix("--") else {
            if given.verb.is_none() && command.find_subcommand(text).is_some() {
                given.verb = Some(text.to_owned());
                given.verb_at = at;
            }
            continue;
        };
        if flag.is_empty() {
            // The rest are no flags.
            break;
        }
        let (flag, attached) = match flag.split_once('=') {
            Some((flag, value)) => (flag, Some(OsString::from(value))),
            None => (flag, None),
        };
        let value = match attached {
            None => flags
                .get(flag)
                .and_then(|arg| words.next_if(|(_, next)| takes(arg, next)))
                .map(|(_, next)| next.clone()),
            attached => attached,
        };
        let as_text = || value.as_ref().and_then(|value| value.to_str());
        let output = &mut given.output;
        match flag {
            "json" => given.json = true,
            "debug" => output.debug = true,
            "log" => output.log = value.as_ref().and_then(|value| Destination::parse(value).ok()),
            "log-format" => output.log_format = as_text().and_then(|text| text.parse().ok()).unwrap_or_default(),
            "events-fd" => output.events_fd = as_text().and_then(|text| text.parse().ok()),
            _ => {}
        }
    }
    given
}

/// Whether the word after it is its value.
fn takes(arg: &Arg, next: &OsString) -> bool {
    let value = arg.get_action().takes_values() && !arg.is_require_equals_set();
    value && (arg.is_allow_hyphen_values_set() || !next.as_bytes().starts_with(b"--"))
}

/// Every setting of the verb, one by one: its value, and whether that was given or is the default.
#[must_use]
pub fn settings(matches: &ArgMatches) -> Vec<String> {
    let mut command = Cli::command();
    command.build();
    let Some((verb, matches)) = matches.subcommand() else { return Vec::new() };
    let Some(subcommand) = command.find_subcommand(verb) else { return Vec::new() };
    let all = subcommand.get_arguments().chain(command.get_arguments());
    all.filter(|arg| !matches!(arg.get_id().as_str(), "help" | "version")).map(|arg| setting(arg, matches)).collect()
}

fn setting(arg: &Arg, matches: &ArgMatches) -> String {
    let id = arg.get_id().as_str();
    let name = arg.get_long().map_or_else(|| arg.get_id().to_string(), |long| format!("--{long}"));
    let values: Vec<_> =
        matches.get_raw(id).into_iter().flatten().map(|value| value.to_string_lossy().into_owned()).collect();
    match matches.value_source(id) {
        Some(ValueSource::DefaultValue) => format!("{name} {} (default)", values.join(" ")),
        Some(_) => format!("{name} {} (given)", values.join(" ")),
        None => format!("{name} not given"),
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::logging::record::Format;

    fn words(line: &str) -> Vec<OsString> {
        line.split(' ').map(OsString::from).collect()
    }

    #[test]
    fn what_was_understood_is_told_of_despite_errors() {
        let given = parse_lenient(&words("dombuild --log=/x plan --nonsense --events-fd 9 --log-format json --json"));
        assert_eq!((given.json, given.verb.as_deref(), given.output.events_fd), (true, Some("plan"), Some(9)));
        assert_eq!(given.output.log, Some(Destination::File(PathBuf::from("/x"))));
        assert_eq!(given.output.log_format, Format::Json);
        assert!(parse_lenient(&words("dombuild plan --memory --json")).json, "the value is what is missing");
        let given = parse_lenient(&words("dombuild inspect --watch --debug --log-format xml --events-fd x"));
        assert_eq!((given.json, given.output.debug, given.output.events_fd), (false, true, None));
    }

    #[test]
    fn a_value_of_another_flag_is_no_flag() {
        let given = parse_lenient(&words(
            "dombuild --log plan create --dm-arg --json --cmdline --debug --name -- --events-fd 3",
        ));
        assert_eq!((given.json, given.output.debug, given.output.events_fd), (false, false, None));
        assert_eq!(given.verb.as_deref(), Some("create"));
    }

    #[test]
    fn settings_tell_where_they_come_from() {
        let matches = Cli::command()
            .try_get_matches_from(words("dombuild create --name web --memory 1GiB --dm-arg -cdrom --dm-arg x"))
            .expect("good");
        let settings = settings(&matches);
        for setting in [
            "--name web (given)",
            "--memory 1GiB (given)",
            "--vcpus 1 (default)",
            "--kind hvm (default)",
            "--maxmem not given",
            "--paused false (default)",
            "--dm-arg -cdrom x (given)",
            "--json false (default)",
        ] {
            assert!(settings.iter().any(|one| one == setting), "{setting} is not in {settings:#?}");
        }
    }
}
