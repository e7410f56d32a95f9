//! Passes the version of Xen that xen-sys found to the program, as a compile-time string.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let version = env::var("DEP_XENGUEST_VERSION").unwrap_or_default();
    println!("cargo::rustc-env=DOMBUILD_XEN_VERSION={version}");
}
