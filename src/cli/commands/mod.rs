//! One file for each verb.

pub mod attach;
pub mod balloon;
pub mod build;
pub mod check;
mod check_saved;
pub mod cleanup;
pub mod create;
pub mod destroy;
pub mod detach;
pub mod dry_run;
pub mod features;
pub mod inspect;
pub mod list;
pub mod medium;
pub mod migrate;
pub mod migrate_receive;
pub mod pci;
pub mod plan;
pub mod restore;
pub mod resume;
pub mod run;
pub mod save;
