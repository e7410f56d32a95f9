//! Runs of this program: the journal of what each has begun, and the locks that serialise them.

pub mod build_lock;
pub mod journal;
