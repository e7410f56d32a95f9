//! Sets the cfgs `xen_4_N_or_later` for the version of Xen that xen-sys found.

use std::env;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let version = env::var("DEP_XENGUEST_VERSION").unwrap_or_default();
    let newest = number(&env::var("DEP_XENGUEST_NEWEST").unwrap_or_default());
    let minor = number(version.trim_start_matches("4."));
    for candidate in 18..=newest {
        println!("cargo::rustc-check-cfg=cfg(xen_4_{candidate}_or_later)");
        if minor >= candidate {
            println!("cargo::rustc-cfg=xen_4_{candidate}_or_later");
        }
    }
}

fn number(text: &str) -> u32 {
    text.parse().unwrap_or(0)
}
