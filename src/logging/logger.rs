//! The log: standard error, and a file, syslog or the journal in addition.
//!
//! Every destination that accepts a record's level gets the record from the `log` facade. `env_logger` filters, and writes
//! whole records. The last record of a destination is the result of the run: see [`conclude`].

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

/// The target of this program's records, and the prefix of its other targets. Records of libraries are dropped.
const TARGET: &str = "dombuild";

/// What to log, and the destinations.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// The destinations besides standard error.
    pub destinations: Vec<Destination>,
    /// The format on standard error and in a file. Syslog and the journal have formats of their own.
    pub format: Format,
    /// The level of the destinations. It is at least [`LevelFilter::Info`], so that they get the result of every run.
    pub level: LevelFilter,
    /// The level of standard error, unless `RUST_LOG` is set. `None`: nothing is logged there, even if `RUST_LOG` is set.
    pub stderr: Option<LevelFilter>,
    /// Whether a missing syslog or journal is ignored. Otherwise it is an error. A file that cannot be opened is always an
    /// error.
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

/// The logger of this process. Empty before [`init`].
static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Distributes records to standard error and the destinations.
struct Logger {
    stderr: Option<env_logger::Logger>,
    destinations: Vec<Sink>,
    level: LevelFilter,
    format: Format,
}

/// Opens the destinations and directs the process's log to them. Only the first call of a process has an effect.
///
/// # Errors
/// [`Error::BadFile`] for a file that cannot be opened; without `best_effort`, [`Error::BadConfig`] if there is no syslog or
/// journal. No logger is installed then.
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
    // A second call changes nothing.
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
                // The other destinations get the warning. Each destination is given up at most once, so this recursion ends.
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

/// Writes the last record of a run by `write`, and waits until all destinations have it, at most one second for those that
/// stall. A destination that stalls only then is reported on standard error alone, so that the last record stays the last.
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

/// Writes the last record, the result of the run, to every destination. Standard error gets the result in a form for the
/// user instead.
pub fn conclude(level: Level, message: &str) {
    finish(|| {
        for destination in LOGGER.get().iter().flat_map(|logger| &logger.destinations) {
            // A destination that is given up here was flushed just before, and its warning is written.
            destination.log(&Record::builder().level(level).target(TARGET).args(format_args!("{message}")).build());
        }
    });
}

/// Reports an error on standard error: as a record if the log there is JSON, so that every line is JSON, and otherwise by
/// `for_people`.
pub fn tell_error(message: &str, for_people: impl FnOnce()) {
    if LOGGER.get().is_some_and(|logger| logger.format == Format::Json) {
        // A closed standard error must not cause another error.
        let _ = writeln!(io::stderr(), "{}", os::json(&record::json(Level::Error, message)));
    } else {
        for_people();
    }
}
