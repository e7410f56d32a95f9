//! Where the log goes: standard error, and a file, syslog or the journal beside it.
//!
//! The `log` facade's records are handed to every place that takes their level; filters and the writing of whole records
//! are `env_logger`'s. The last record of a destination holds what a run came to: see [`conclude`].

use std::env;
use std::fmt;
use std::io::{self, Write};
use std::sync::OnceLock;

use env_logger::{Builder, Target};
use log::{Level, LevelFilter, Log, Metadata, Record};

use super::destination::{Destination, Sink};
use super::record::{self, Format};

use crate::error::Error;
use crate::os;

/// The target of this program's records, and the beginning of all others'; libraries' own are left out.
const TARGET: &str = "dombuild";

/// What is to be logged, and where to.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Beside standard error.
    pub destinations: Vec<Destination>,
    /// How a record looks on standard error and in a file; syslog and the journal have forms of their own.
    pub format: Format,
    /// What the destinations take; at least [`LevelFilter::Info`], so that they have the end of every run.
    pub level: LevelFilter,
    /// What standard error takes, unless `RUST_LOG` says something else. `None`: nothing goes there, whatever it says.
    pub stderr: Option<LevelFilter>,
    /// Syslog or a journal that is not there is left out silently. Otherwise it is an error, as a file that cannot be
    /// opened is in any case.
    pub best_effort: bool,
}

impl Default for LogConfig {
    /// Warnings on standard error, and nothing else.
    fn default() -> Self {
        Self {
            destinations: Vec::new(),
            format: Format::Text,
            level: LevelFilter::Info,
            stderr: Some(LevelFilter::Warn),
            best_effort: false,
        }
    }
}

/// The logger of this process, once it is set up.
static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Hands records out.
struct Logger {
    stderr: Option<env_logger::Logger>,
    destinations: Vec<Sink>,
    level: LevelFilter,
    format: Format,
}

/// Opens the destinations and sends the process's log to them from here on; only the first call of a process does so.
///
/// # Errors
/// [`Error::BadFile`] for a file that cannot be opened; unless it is `best_effort`, [`Error::BadConfig`] where there is no
/// syslog or journal. Nothing is set up then.
pub fn init(config: &LogConfig) -> Result<(), Error> {
    let mut destinations = Vec::new();
    for destination in &config.destinations {
        match destination.open(config.format) {
            Ok(sink) => destinations.push(sink),
            Err(_) if config.best_effort && !matches!(destination, Destination::File(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let format = config.format;
    let stderr = config.stderr.map(|level| {
        let mut builder = Builder::new();
        match env::var(env_logger::DEFAULT_FILTER_ENV) {
            Ok(filters) => builder.parse_filters(&filters),
            Err(_) => builder.filter_module(TARGET, level),
        };
        builder.target(Target::Stderr).format(move |buffer, record| format.write(buffer, record)).build()
    });
    let level = config.level.max(LevelFilter::Info);
    let most = if destinations.is_empty() { LevelFilter::Off } else { level };
    let most = stderr.as_ref().map_or(LevelFilter::Off, env_logger::Logger::filter).max(most);
    let logger = LOGGER.get_or_init(|| Logger { stderr, destinations, level, format });
    // Whoever comes second leaves all as it is.
    if log::set_logger(logger).is_ok() {
        log::set_max_level(most);
    }
    Ok(())
}

impl Logger {
    fn taken(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.level && metadata.target().starts_with(TARGET)
    }
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.stderr.as_ref().is_some_and(|stderr| stderr.enabled(metadata))
            || (!self.destinations.is_empty() && self.taken(metadata))
    }

    fn log(&self, record: &Record<'_>) {
        if let Some(stderr) = &self.stderr {
            stderr.log(record);
        }
        if self.taken(record.metadata()) {
            for problem in self.destinations.iter().filter_map(|destination| destination.log(record)) {
                // To the others. A destination is given up once, so that this comes to an end.
                self.log(&warning(format_args!("{problem}")));
            }
        }
    }

    fn flush(&self) {
        for problem in self.destinations.iter().filter_map(Sink::flush) {
            self.log(&warning(format_args!("{problem}")));
        }
    }
}

fn warning<'a>(message: fmt::Arguments<'a>) -> Record<'a> {
    Record::builder().level(Level::Warn).target(TARGET).args(message).build()
}

/// Writes the last record of a run by `write`, and waits until all destinations have it. Those that stall are waited for a
/// second in all. The last record stays the last one: what stalls only then is reported on standard error alone.
pub fn finish(write: impl FnOnce()) {
    let Some(logger) = LOGGER.get() else { return write() };
    logger.flush();
    write();
    for problem in logger.destinations.iter().filter_map(Sink::flush) {
        if let Some(stderr) = &logger.stderr {
            stderr.log(&warning(format_args!("{problem}")));
        }
    }
}

/// Writes the last record, what the run came to, to every destination but standard error, where people are told in
/// other words.
pub fn conclude(level: Level, message: &str) {
    finish(|| {
        for destination in LOGGER.get().iter().flat_map(|logger| &logger.destinations) {
            // One that is given up here was flushed a moment ago; it has had its warning.
            destination.log(&Record::builder().level(level).target(TARGET).args(format_args!("{message}")).build());
        }
    });
}

/// Tells an error on standard error: as a record where its log is JSON, so that every line of it is, and otherwise in the
/// words for people.
pub fn tell_error(message: &str, for_people: impl FnOnce()) {
    if LOGGER.get().is_some_and(|logger| logger.format == Format::Json) {
        // A closed stderr is no reason for another error.
        let _ = writeln!(io::stderr(), "{}", os::json(&record::json(Level::Error, message)));
    } else {
        for_people();
    }
}
