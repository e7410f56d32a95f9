//! A channel: a second or further paravirtual console, on which host and guest exchange bytes; the text that xl takes in
//! `channel=[...]` (xl-channel-configuration; `parse_channel_config`, xl_parse.c, Xen 4.17).

use std::path::PathBuf;
use std::str::FromStr;

use super::error::{DeviceSpecError, SpecProblem};
use super::share::absolute_path;
use super::text::{missing, words};

/// The words of a channel.
pub(super) const WORDS: &str = "name=, connection=, path= and backend=";

/// The longest path of a socket, in bytes (`sun_path`, without its NUL).
const LONGEST_SOCKET: usize = 107;

/// A channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// The name by which the guest finds it, as in `org.example.agent`.
    pub name: String,
    /// Where the host has it.
    pub connection: ChannelConnection,
}

/// The host's end of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelConnection {
    /// A pseudo-terminal, whose path xenstore tells.
    Pty,
    /// A Unix socket on which QEMU listens: its path.
    Socket(PathBuf),
}

impl ChannelConnection {
    /// The word for xl and xenstore.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Pty => "pty",
            Self::Socket(_) => "socket",
        }
    }
}

impl FromStr for Channel {
    type Err = DeviceSpecError;

    fn from_str(spec: &str) -> Result<Self, DeviceSpecError> {
        let (mut name, mut connection, mut path, mut backend) = (None, None, None, None);
        for (key, value) in words(spec) {
            let unknown = || key.error(SpecProblem::UnknownWord { word: key.text.to_owned(), takes: WORDS });
            let value = value.ok_or_else(unknown)?;
            match key.text {
                "name" => key.once(&mut name, "name", value.value("name")?)?,
                "connection" => {
                    let is_socket = match value.text {
                        "pty" => false,
                        "socket" => true,
                        _ => return Err(value.bad_value("connection", "pty or socket")),
                    };
                    key.once(&mut connection, "connection", is_socket)?;
                }
                "path" => {
                    let socket = absolute_path(value, "path")?;
                    if value.text.len() > LONGEST_SOCKET {
                        return Err(value.bad_value("path", "at most 107 bytes: it is that of a socket"));
                    }
                    key.once(&mut path, "path", (key, socket))?;
                }
                "backend" => key.only_dom0(value, &mut backend, "the guest's QEMU in dom0 serves a channel")?,
                _ => return Err(unknown()),
            }
        }
        let missing = |key, example| missing(spec, key, example);
        let connection = match (connection.ok_or_else(|| missing("connection", "connection=pty"))?, path) {
            (true, Some((_, path))) => ChannelConnection::Socket(path),
            (true, None) => return Err(missing("path", "path=/run/guest.sock, where QEMU listens")),
            (false, None) => ChannelConnection::Pty,
            (false, Some((key, _))) => {
                let reason = "it is for connection=socket; a pty has the path that the kernel gives it";
                return Err(key.error(SpecProblem::Unsupported { word: "path".to_owned(), reason }));
            }
        };
        Ok(Self { name: name.ok_or_else(|| missing("name", "name=org.example.agent"))?, connection })
    }
}

#[cfg(test)]
mod tests {
    use super::super::text::assert_documented;
    use super::*;

    #[test]
    fn a_channel_is_a_pty_or_a_socket() {
        let pty: Channel = "name=org.example.a,connection=pty".parse().expect("a channel");
        assert_eq!(pty, Channel { name: "org.example.a".to_owned(), connection: ChannelConnection::Pty });
        let socket: Channel = "connection=socket,path=/run/x,name=b,backend=Domain-0".parse().expect("a channel");
        assert_eq!(socket.connection, ChannelConnection::Socket("/run/x".into()));
    }

    #[test]
    fn what_is_wrong_has_a_place() {
        for (spec, at, text) in [
            ("", 0, "there is no connection; give connection=pty"),
            ("connection=pty", 14, "there is no name"),
            ("name=a,connection=socket", 24, "there is no path; give path="),
            ("name=a,connection=pty,path=/x", 22, "it is for connection=socket"),
            ("name=a,connection=tcp", 18, "it takes pty or socket"),
            ("name=a,connection=socket,path=x", 30, "an absolute path"),
            ("name=a,connection=pty,x=1", 22, "\"x\" is unknown; the words are name="),
            ("name=a,name=b,connection=pty", 7, "name is given twice"),
            ("name=a,connection=pty,backend=net", 22, "QEMU in dom0"),
        ] {
            let error = spec.parse::<Channel>().expect_err(spec);
            assert!(error.span.start == at && error.to_string().contains(text), "{spec}: {error:?} {error}");
        }
        let long = format!("name=a,connection=socket,path=/{}", "x".repeat(107));
        assert!(long.parse::<Channel>().expect_err("long").to_string().contains("107 bytes"));
    }

    #[test]
    fn the_page_has_every_word() {
        assert_documented(WORDS);
    }
}
