//! Pauses between questions whose answer is about to change: short ones at first, since most waits are short.

use std::thread;
use std::time::Duration;

const FIRST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_millis(16);

/// Pauses of 1 ms, then of twice as long each time, up to 16 ms.
#[derive(Debug)]
pub struct Pauses(Duration);

impl Pauses {
    /// Begins with the shortest.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "a default would be another name for it")]
    pub const fn new() -> Self {
        Self(FIRST)
    }

    /// Sleeps for the next one.
    pub fn sleep(&mut self) {
        thread::sleep(self.0);
        self.0 = (self.0 * 2).min(LONGEST);
    }
}
