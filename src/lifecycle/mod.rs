//! Everything that happens to a domain besides its build: cleanup, resizing, its devices, suspension, and removal.

pub mod attach_device;
pub mod balloon;
pub mod change_medium;
pub mod cleanup;
pub mod detach_device;
pub mod guard;
pub mod suspend;
pub mod teardown;
pub mod zombie;
