//! Runs of this program: what each has begun, and the locks that keep them apart.

pub mod build_lock;
pub mod journal;
