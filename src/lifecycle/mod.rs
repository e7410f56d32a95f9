//! Everything that happens to a domain besides its build: cleanup, resizing, its devices, suspension, what follows its end, and
//! removal.

pub mod adopt;
pub mod arrival;
pub mod attach_device;
pub mod balloon;
pub mod change_medium;
pub mod cleanup;
pub mod departure;
pub mod detach_device;
pub mod guard;
pub mod migrated;
pub mod pci_device;
pub mod supervise;
pub mod suspend;
pub mod teardown;
pub mod zombie;
