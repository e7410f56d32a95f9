//! A guest's configuration file as a part of the command line: its flags come first, and those that were given change them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{ArgMatches, CommandFactory, FromArgMatches};

use crate::cli::args::{Cli, Command, CreateArgs};
use crate::cli::lenient_args::parse_lenient;
use crate::cli::print;
use crate::cli::reporter::Reporter;
use crate::cli::xl_cfg::xl_conf::XlConf;
use crate::cli::xl_cfg::{file, report};
use crate::config::on_end::EndActions;
use crate::error::Error;
use crate::observer;
use crate::stage::Stage;

/// A guest's file, as it was read.
#[derive(Debug)]
pub(crate) struct GuestFile {
    name: String,
    create: report::Create,
}

impl GuestFile {
    /// Reads the file, with the settings behind it, and prints its warnings.
    ///
    /// # Errors
    /// A file that cannot be read, or what is wrong in it.
    pub(crate) fn read(reporter: &Reporter, path: &Path, settings: &[String]) -> Result<Self, Error> {
        let bytes = file::read(path).map_err(Error::from)?;
        let name = path.to_string_lossy().into_owned();
        let create = report::flags(&name, bytes, settings, XlConf::of_host(None)?)?;
        if !create.warnings.is_empty() {
            reporter.clear_line();
            print::print_lines_to_stderr(&create.warnings);
        }
        log::debug!("the flags of {name}: {:?}", create.shown);
        Ok(Self { name, create })
    }

    /// What happens when its guest ends.
    pub(crate) const fn on_end(&self) -> EndActions {
        self.create.on_end
    }

    /// The command line with its flags between the verb and what follows that.
    fn parse(&self, before: &[OsString], after: &[OsString]) -> Result<Cli, Error> {
        let flags = self.create.words.iter().map(OsString::from);
        let words: Vec<OsString> = before.iter().cloned().chain(flags).chain(after.iter().cloned()).collect();
        let command = Cli::command().mut_subcommand("create", |command| command.args_override_self(true));
        let refused = |error: clap::Error| {
            let text = error.to_string();
            let text = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
            Error::BadConfig(format!("{} with these flags: {text}", self.name))
        };
        let matches = command.try_get_matches_from(words).map_err(refused)?;
        Cli::from_arg_matches(&matches).map_err(refused)
    }

    /// What `create` gets for it, with more flags.
    ///
    /// # Errors
    /// [`Error::BadConfig`] for flags that `create` does not have, or that do not go together with the file.
    pub(crate) fn create_args(&self, flags: &[OsString]) -> Result<CreateArgs, Error> {
        match self.parse(&["dombuild".into(), "create".into()], flags)?.command {
            Command::Create(arguments) => Ok(*arguments),
            other => Err(Error::Internal(format!("create became {other:?}"))),
        }
    }
}

/// What was given, with the flags of a guest's file if `create` has one.
///
/// # Errors
/// Those of [`GuestFile::read`]; flags that the file does not go together with.
pub(crate) fn complete(reporter: &Reporter, matches: &ArgMatches, arguments: &[OsString]) -> anyhow::Result<Cli> {
    let create = matches.subcommand().filter(|(verb, _)| *verb == "create").map(|(_, given)| given);
    let Some((given, path)) = create.and_then(|given| Some((given, given.get_one::<PathBuf>("file")?))) else {
        return Ok(Cli::from_arg_matches(matches)?);
    };
    let settings: Vec<String> = given.get_many("settings").into_iter().flatten().cloned().collect();
    let with_file = observer::step(reporter, Stage::CheckInput, || {
        let file = GuestFile::read(reporter, path, &settings)?;
        let at = parse_lenient(arguments).verb_at.saturating_add(1).min(arguments.len());
        let (before, after) = arguments.split_at(at);
        file.parse(before, after)
    });
    Ok(with_file?)
}
