//! The log: standard error, and a file, syslog or the journal.

pub mod destination;
mod logger;
mod panics;
pub mod record;
mod relay;
mod syslog;

pub use destination::Destination;
pub use logger::{LogConfig, conclude, finish, init, tell_error};
pub use panics::catch;
pub use record::{Format, timestamp};
