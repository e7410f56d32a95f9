//! syslog: datagrams to /dev/log in the format of the C library's syslog(3).

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::PathBuf;
use std::process;

use jiff::Zoned;
use log::{Level, Log, Metadata, Record};

use crate::error::Error;
use crate::error::host::HostError;
use crate::os::one_line;

/// The socket of the host's syslogd or journald (`_PATH_LOG` of syslog.h).
const PATH: &str = "/dev/log";

/// The connection to the host's syslog daemon. A write blocks without limit if the daemon does not read.
pub(super) struct Syslog {
    socket: UnixDatagram,
    path: PathBuf,
    ident: String,
}

impl Syslog {
    /// Opens a socket, after a check that a daemon listens.
    ///
    /// # Errors
    /// [`Error::BadConfig`] if no daemon listens.
    pub(super) fn open(ident: &str) -> Result<Self, Error> {
        Self::open_at(PathBuf::from(PATH), ident)
    }

    fn open_at(path: PathBuf, ident: &str) -> Result<Self, Error> {
        let probe = || -> io::Result<UnixDatagram> {
            UnixDatagram::unbound()?.connect(&path)?;
            // The socket is not connected, so that it reaches a restarted daemon too.
            UnixDatagram::unbound()
        };
        match probe() {
            Ok(socket) => Ok(Self { socket, path, ident: one_line(ident).into_owned() }),
            Err(source) => Err(HostError::NoSyslog { path, source }.into()),
        }
    }
}

impl Log for Syslog {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = line(record.level(), &self.ident, &record.args().to_string());
        // Without a daemon the record is lost. A later record may reach a restarted daemon.
        let _ = self.socket.send_to(line.as_bytes(), &self.path);
    }

    fn flush(&self) {}
}

/// `<PRIORITY>TIME IDENT[PID]: MESSAGE` (RFC 3164), with the local time as the daemons expect it.
fn line(level: Level, ident: &str, message: &str) -> String {
    let severity = match level {
        Level::Error => libc::LOG_ERR,
        Level::Warn => libc::LOG_WARNING,
        Level::Info => libc::LOG_INFO,
        Level::Debug | Level::Trace => libc::LOG_DEBUG,
    };
    let time = Zoned::now().strftime("%b %e %H:%M:%S").to_string();
    format!("<{}>{time} {ident}[{}]: {}", libc::LOG_DAEMON | severity, process::id(), one_line(message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_receives_the_lines_of_syslog_3() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("log");
        let refused = Syslog::open_at(path.clone(), "x").err().expect("no daemon").to_string();
        assert!(refused.contains("No such file") && refused.contains("syslog daemon"), "{refused}");

        let daemon = UnixDatagram::bind(&path).expect("bound");
        let syslog = Syslog::open_at(path, "xenguest-7-build").expect("a daemon");
        for (level, priority) in [(Level::Error, 27), (Level::Warn, 28), (Level::Info, 30), (Level::Trace, 31)] {
            syslog.log(&Record::builder().level(level).args(format_args!("a\nb %n")).build());
            let mut buffer = [0; 256];
            let length = daemon.recv(&mut buffer).expect("received");
            let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
            // 15 characters of time.
            let (head, rest) = text.split_at(format!("<{priority}>").len() + 15);
            assert!(head.starts_with(&format!("<{priority}>")), "{text}");
            assert_eq!(rest, format!(" xenguest-7-build[{}]: a\\nb %n", process::id()));
        }
    }
}
