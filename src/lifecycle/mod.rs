//! Everything that happens to a domain besides its build: cleanup, resizing and removal.

pub mod balloon;
pub mod cleanup;
pub mod guard;
pub mod teardown;
pub mod zombie;
