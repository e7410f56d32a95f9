//! Destinations of the log besides standard error.

use std::ffi::OsString;
use std::fmt;
use std::fs::{File, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use env_logger::{Builder, Target};
use log::{LevelFilter, Log, Record};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::statfs::{
    BTRFS_SUPER_MAGIC, EXT4_SUPER_MAGIC, F2FS_SUPER_MAGIC, FsType, OVERLAYFS_SUPER_MAGIC, TMPFS_MAGIC, XFS_SUPER_MAGIC,
    fstatfs,
};
use systemd_journal_logger::JournalLog;

use super::record::Format;
use super::relay::Relay;
use super::syslog::Syslog;
use crate::error::Error;
use crate::error::host::HostError;
use crate::os::shared_file;

/// The identifier of records in syslog and the journal, unless another one is given.
const IDENT: &str = "dombuild";

/// A destination of the log besides standard error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A file. Records are appended. It is created with mode 0640 if it does not exist.
    File(PathBuf),
    /// /dev/log, as `LOG_DAEMON`.
    Syslog {
        /// The identifier before the pid.
        ident: String,
    },
    /// The systemd journal, by its native protocol, with priority, source and `STAGE` as fields.
    Journald {
        /// `SYSLOG_IDENTIFIER`.
        ident: String,
    },
}

impl fmt::Display for Destination {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(formatter, "file:{}", path.display()),
            Self::Syslog { ident } => write!(formatter, "syslog:{ident}"),
            Self::Journald { ident } => write!(formatter, "journald:{ident}"),
        }
    }
}

impl Destination {
    /// Parses a destination of the command line: `syslog` or `journald`, each with `:IDENT` for an identifier other than
    /// `dombuild`, or a file, with or without the prefix `file:`.
    ///
    /// # Errors
    /// The word is empty, or the identifier has characters that syslog cannot separate from the message.
    pub fn parse(word: &OsString) -> Result<Self, String> {
        let bytes = word.as_bytes();
        let text = word.to_str().unwrap_or_default();
        let (kind, ident) = text.split_once(':').unwrap_or((text, IDENT));
        match kind {
            "syslog" => Ok(Self::Syslog { ident: check_ident(ident)? }),
            "journald" => Ok(Self::Journald { ident: check_ident(ident)? }),
            _ => match bytes.strip_prefix(b"file:").unwrap_or(bytes) {
                [] => Err("a file, syslog or journald is missing".to_owned()),
                path => Ok(Self::File(PathBuf::from(std::ffi::OsStr::from_bytes(path)))),
            },
        }
    }

    /// Opens the destination.
    ///
    /// # Errors
    /// [`Error::BadFile`] or [`Error::BadConfig`] if it does not exist or is unsuitable.
    pub(super) fn open(&self, format: Format) -> Result<Sink, Error> {
        match self {
            Self::File(path) => {
                let (file, may_stall) =
                    open_file(path).map_err(|reason| Error::BadFile { what: "log", path: path.clone(), reason })?;
                // The caller has filtered the records already. Each record is one write to a file in append mode.
                let logger = Builder::new()
                    .filter_level(LevelFilter::Trace)
                    .target(Target::Pipe(Box::new(file)))
                    .format(move |buffer, record| format.write(buffer, record))
                    .build();
                if may_stall { self.relay(|| Ok(Box::new(logger))) } else { Ok(Sink::Direct(Box::new(logger))) }
            }
            Self::Syslog { ident } => {
                // The check for the daemon does not block.
                let syslog = Syslog::open(ident)?;
                self.relay(|| Ok(Box::new(syslog)))
            }
            Self::Journald { ident } => {
                let ident = ident.clone();
                self.relay(|| {
                    // Opening the journal sends a datagram, which blocks if the journal stalls.
                    let journal = JournalLog::new().map_err(HostError::NoJournal)?;
                    let fields = [("DOMBUILD_VERSION", env!("CARGO_PKG_VERSION"))];
                    Ok(Box::new(journal.with_syslog_identifier(ident).with_extra_fields(fields)))
                })
            }
        }
    }

    fn relay(&self, open: impl FnOnce() -> Result<Box<dyn Log>, Error> + Send + 'static) -> Result<Sink, Error> {
        Ok(Sink::Relayed(Relay::start(self.to_string(), open)?))
    }
}

/// An open destination.
pub(super) enum Sink {
    /// It does not stall: a file on a local file system.
    Direct(Box<dyn Log>),
    /// It may stall.
    Relayed(Relay),
}

impl Sink {
    /// Logs a record. If this call gives the destination up, returns the reason, once.
    pub(super) fn log(&self, record: &Record<'_>) -> Option<String> {
        match self {
            Self::Direct(log) => {
                log.log(record);
                None
            }
            Self::Relayed(relay) => relay.log(record),
        }
    }

    /// Waits until all records are written. If this call gives the destination up, returns the reason, once.
    pub(super) fn flush(&self) -> Option<String> {
        match self {
            Self::Direct(_) => None,
            Self::Relayed(relay) => relay.flush(),
        }
    }
}

fn check_ident(ident: &str) -> Result<String, String> {
    let good = |byte: u8| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte);
    if ident.is_empty() || ident.len() > 64 || !ident.bytes().all(good) {
        return Err(format!("{ident:?} is no name for a log: give 1 to 64 letters, digits or - _ . /"));
    }
    Ok(ident.to_owned())
}

/// Opens a log file, and returns whether a write may stall. Other users may be able to write to its directory. There, a link,
/// another user's file or a file with a second name could make root write to a file of that user's choice.
fn open_file(path: &Path) -> Result<(File, bool), String> {
    let shared = shared_file::open(path, OpenOptions::new().append(true), Some(0o640)).map_err(|error| match error
        .raw_os_error()
    {
        Some(libc::ELOOP) => "is a symbolic link: name the file that it leads to".to_owned(),
        _ => format!("cannot be opened: {error}"),
    })?;
    if shared.is_character_device() {
        let file = shared.into_file();
        // The relay's thread waits for a full terminal, so no record is lost in the meantime.
        let blocking = fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND));
        return blocking.map(|_| (file, true)).map_err(|error| error.to_string());
    }
    if !shared.is_regular() {
        return Err("is no regular file".to_owned());
    }
    if !shared.is_ours() {
        return Err(format!("belongs to another user ({shared}): remove it, or name another file"));
    }
    if shared.has_other_names() {
        return Err("has a second name (a hard link), and so is another file as well: name another file".to_owned());
    }
    let file = shared.into_file();
    let may_stall = fstatfs(&file).is_ok_and(|found| !LOCAL.contains(&found.filesystem_type()));
    Ok((file, may_stall))
}

/// File systems that store their files on this host. Any other may wait for a server.
const LOCAL: [FsType; 6] =
    [EXT4_SUPER_MAGIC, XFS_SUPER_MAGIC, BTRFS_SUPER_MAGIC, TMPFS_MAGIC, OVERLAYFS_SUPER_MAGIC, F2FS_SUPER_MAGIC];

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use log::Level;

    use super::*;

    fn parse(word: &str) -> Result<Destination, String> {
        Destination::parse(&OsString::from(word))
    }

    #[test]
    fn words_name_their_destinations() {
        let ident = || "dombuild".to_owned();
        let file = |path: &str| Ok(Destination::File(PathBuf::from(path)));
        assert_eq!(parse("syslog"), Ok(Destination::Syslog { ident: ident() }));
        assert_eq!(parse("journald"), Ok(Destination::Journald { ident: ident() }));
        assert_eq!(parse("syslog:xl-7"), Ok(Destination::Syslog { ident: "xl-7".to_owned() }));
        assert_eq!(parse("/var/log/x"), file("/var/log/x"));
        assert_eq!(parse("file:/var/log/x"), file("/var/log/x"));
        assert_eq!(parse("file:syslog"), file("syslog"));
        assert_eq!(parse("./syslog"), file("./syslog"));
        assert_eq!(parse("a:b"), file("a:b"));
        for bad in ["", "file:", "syslog:", "journald:", "syslog:a b", "syslog:a\n", "syslog:x[1]", "syslog:a:b"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_file_is_appended_to_and_made_for_few_eyes() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("log");
        for message in ["one", "two"] {
            let sink = Destination::File(path.clone()).open(Format::Json).expect("it can be opened");
            sink.log(&Record::builder().level(Level::Info).args(format_args!("{message}")).build());
        }
        let text = fs::read_to_string(&path).expect("there");
        assert_eq!(text.lines().count(), 2, "{text}");
        assert_eq!(fs::metadata(&path).expect("there").permissions().mode() & 0o137, 0, "no more than 0640");
    }

    #[test]
    fn what_is_no_file_of_ours_is_refused() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let link = directory.path().join("link");
        symlink("/dev/null", &link).expect("made");
        let socket = directory.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("bound");
        let two = directory.path().join("two");
        fs::write(&two, "").expect("made");
        fs::hard_link(&two, directory.path().join("names")).expect("linked");
        for (path, word) in [
            (link, "symbolic link"),
            (directory.path().to_owned(), "directory"),
            (directory.path().join("no/log"), "No such file"),
            (socket, "cannot be opened"),
            (two, "second name"),
        ] {
            let error = Destination::File(path).open(Format::Text).err().expect("refused").to_string();
            assert!(error.starts_with("log /") && error.contains(word), "{error}");
        }
    }
}
