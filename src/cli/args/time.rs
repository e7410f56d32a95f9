//! Times on the command line.

use std::time::Duration;

/// At least one second.
pub(super) fn some_seconds(text: &str) -> Result<Duration, String> {
    let time = seconds(text)?;
    if time.is_zero() { Err("at least 1 second".to_owned()) } else { Ok(time) }
}

/// Whole seconds, up to a day.
pub(super) fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: u64 = text.parse().map_err(|_| format!("{text:?} is not a number of seconds"))?;
    if seconds > 86_400 {
        return Err("at most 86400 seconds (a day)".to_owned());
    }
    Ok(Duration::from_secs(seconds))
}
