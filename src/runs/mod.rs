//! Runs of this program: the journal of what each has begun, the locks that serialise them, and what outlives a guest's domain.

pub mod build_lock;
pub(crate) mod day_records;
pub mod journal;
