//! The formats of a record.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;

use jiff::Timestamp;
use log::{Level, Record};
use serde::Serialize;

use crate::os::{self, one_line};

/// Text for people, or one JSON object per line for programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `[2024-05-01T12:00:00.000Z INFO  crate::events] stage populate`
    #[default]
    Text,
    /// `{"level":"info","msg":"stage populate","time":"2024-05-01T12:00:00.000Z"}`
    Json,
}

impl fmt::Display for Format {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Text => "text",
            Self::Json => "json",
        })
    }
}

impl FromStr for Format {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("it is text or json"),
        }
    }
}

impl Format {
    /// Writes a record as one line.
    pub(super) fn write(self, output: &mut impl Write, record: &Record<'_>) -> io::Result<()> {
        let message = record.args().to_string();
        match self {
            Self::Text => {
                let (time, level) = (timestamp(), record.level());
                writeln!(output, "[{time} {level:<5} {}] {}", record.target(), one_line(&message))
            }
            Self::Json => writeln!(output, "{}", os::json(&json(record.level(), &message))),
        }
    }
}

/// A record as JSON, with exactly these three fields.
pub(super) fn json(level: Level, message: &str) -> String {
    #[derive(Serialize)]
    struct Line<'a> {
        level: &'static str,
        msg: &'a str,
        time: String,
    }
    let level = match level {
        Level::Error => "error",
        Level::Warn => "warn",
        Level::Info => "info",
        Level::Debug => "debug",
        Level::Trace => "trace",
    };
    // Strings always serialise.
    serde_json::to_string(&Line { level, msg: message, time: timestamp() }).unwrap_or_default()
}

/// The present time in UTC, with milliseconds (RFC 3339).
#[must_use]
pub fn timestamp() -> String {
    format!("{:.3}", Timestamp::now())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::*;

    fn written(format: Format, message: &str) -> String {
        let mut output = Vec::new();
        let arguments = format_args!("{message}").to_string();
        format
            .write(
                &mut output,
                &Record::builder().level(Level::Info).target("crate::x").args(format_args!("{arguments}")).build(),
            )
            .expect("into memory");
        String::from_utf8(output).expect("UTF-8")
    }

    #[test]
    fn text_is_one_line_whatever_it_holds() {
        let line = written(Format::Text, "name \"a\n[2024-05-01T12:00:00.000Z ERROR dombuild] forged\r\x1b[2J\t%s {}");
        assert_eq!(line.matches('\n').count(), 1, "{line:?}");
        assert!(line.ends_with("forged\\r\\u{1b}[2J\\t%s {}\n"), "{line:?}");
        assert!(line.contains("INFO  crate::x] name \"a\\n[2024"), "{line:?}");
    }

    #[test]
    fn the_time_is_utc_with_milliseconds() {
        let time = timestamp();
        let shape: String = time.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000Z");
        assert!(time.parse::<Timestamp>().is_ok());
    }

    #[test]
    fn formats_have_their_names() {
        for format in [Format::Text, Format::Json] {
            assert_eq!(format.to_string().parse(), Ok(format));
        }
        assert!("JSON".parse::<Format>().is_err());
    }

    proptest! {
        #[test]
        fn json_holds_the_message_as_it_is(message in any::<String>()) {
            let line = written(Format::Json, &message);
            prop_assert_eq!(line.matches('\n').count(), 1);
            let value: Value = serde_json::from_str(&line).expect("JSON");
            let object = value.as_object().expect("an object");
            prop_assert_eq!(object.keys().map(String::as_str).collect::<Vec<_>>(), ["level", "msg", "time"]);
            prop_assert_eq!(&object["msg"], &message);
            prop_assert_eq!(&object["level"], "info");
        }
    }
}
