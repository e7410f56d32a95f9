//! The procedure that applies a plan: build_pre, hvm_build (pvh_build, pv_build) and build_post.

pub mod acpi;
pub mod bootloader;
pub mod build;
pub mod built;
pub mod claim;
pub mod cpuid;
pub mod dom0_memory;
pub mod given_domain;
pub mod host_access;
pub mod host_memory;
pub mod hvm;
pub mod hvmloader_keys;
pub mod image;
pub mod numa_placement;
pub mod platform;
pub mod populate;
pub mod post;
pub mod pre;
pub mod pv;
pub mod pvh;
pub mod shortage;
