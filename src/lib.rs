//! Builds Xen domains through Xen's own libraries.
//!
//! [`memory`] decides: it computes a guest's memory and its layout, without Xen. [`builder`] carries a plan out, step by
//! step, through the safe wrappers in [`xen`]. [`config`] types and checks what the user asked for, [`commands`] has one
//! file for each verb, [`report`] the one table of error codes. [`events`] and [`logging`] tell of a run while it lasts, and how
//! it ended.

#![deny(unsafe_code)]

pub mod args;
pub mod builder;
pub mod cancel;
pub mod commands;
pub mod config;
pub mod device_model;
pub mod error;
pub mod events;
pub mod given;
pub mod logging;
pub mod memory;
pub mod monitor;
pub mod os;
pub mod report;
pub mod xen;
