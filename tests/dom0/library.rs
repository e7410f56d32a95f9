//! A program outside the workspace plans, builds and measures guests by the packages of the library (tests/outside).

use std::process::Command;

use dombuild::memory::Kind;
use dombuild::xen::Interface;
use serde_json::Value;

use super::Test;
use super::support::{GUEST_KERNEL, Ran, dombuild, empty_domain, number, shell};

pub(crate) const TESTS: &[Test] =
    &[("library_builds_hvm", builds_hvm), ("library_starts_the_unpacker_that_it_is_given", builds_pvh)];

fn outside(words: &[&str]) -> Ran {
    Ran::new(&Command::new("outside").args(words).output().expect("tests/nested.sh puts it on the PATH"))
}

fn assert_measured(domid: &str, built: &Value) {
    let measured = outside(&["measure", domid]).success().json();
    let plan = &built["plan"];
    for (seen, planned) in [("owned_pages", "owned_pages_built"), ("max_pages", "max_pages")] {
        assert_eq!(measured[seen], plan[planned], "{seen}: {measured}");
    }
    let inspected = dombuild(&["inspect", domid]).success().json();
    assert_eq!(number(&inspected, "owned_pages"), number(&measured, "owned_pages"));
}

fn builds_hvm() {
    let xen = Interface::open().expect("Xen");
    let domid = empty_domain(&xen, Kind::Hvm, 1, false).expect("a domain").to_string();
    let plan = outside(&["plan"]).success().json();
    let built = outside(&["hvm", &domid]).success().json();
    assert_eq!(built["plan"], plan);
    assert_measured(&domid, &built);
    dombuild(&["destroy", "--force", &domid]).success();
}

/// The child that unpacks kernels is the given program, and never the one that links the library.
fn builds_pvh() {
    let xen = Interface::open().expect("Xen");
    let domid = empty_domain(&xen, Kind::Pvh, 1, false).expect("a domain").to_string();
    let ran = outside(&["pvh", &domid, "/bin/false", GUEST_KERNEL]);
    assert_eq!(ran.status, Some(1), "{ran:?}");
    assert!(ran.stderr.contains("without an answer") && !ran.stderr.contains("not started by"), "{ran:?}");
    let program = shell("command -v dombuild");
    let built = outside(&["pvh", &domid, program.trim(), GUEST_KERNEL]).success().json();
    assert_measured(&domid, &built);
    dombuild(&["destroy", "--force", &domid]).success();
}
