//! `build` on a domain of another creator: here, this test, with only libxenctrl.

use dombuild::memory::Kind;
use dombuild::xen::{DomId, Interface};

use super::Test;
use super::support::{dombuild, empty_domain, number, pages_in_dump, shell};

pub(crate) const TESTS: &[Test] = &[
    ("build_into_a_given_domain", build_into_a_given_domain),
    ("build_with_given_ports", build_with_given_ports),
    ("build_checks_the_vcpus_first", build_checks_the_vcpus_first),
    ("build_never_destroys_a_given_domain", build_never_destroys),
    ("build_refuses_what_is_built_already", build_refuses_what_is_built),
];

fn remove(domid: DomId) {
    dombuild(&["destroy", "--force", &domid.to_string()]).success();
}

fn build_into_a_given_domain() {
    let xen = Interface::open().expect("Xen");
    let domid = empty_domain(&xen, Kind::Hvm, 2, false).expect("a domain");
    let text = domid.to_string();
    let built = dombuild(&["build", "--domid", &text, "--memory", "128", "--vcpus", "2"]).success().json();
    assert_eq!(number(&built, "domid"), u64::from(domid.get()));
    assert_eq!(pages_in_dump(domid).0, number(&built["plan"], "owned_pages_built"));
    assert_eq!(shell(&format!("xenstore-read /local/domain/{domid}/domid")).trim(), text);
    assert_eq!(
        shell(&format!("xenstore-read /local/domain/{domid}/store/port")).trim(),
        built["store_port"].to_string()
    );
    // Not marked as ours: its creator decides over its end.
    dombuild(&["destroy", &text]).failed_with(3, "not-ours");
    remove(domid);
}

fn build_with_given_ports() {
    let xen = Interface::open().expect("Xen");
    let domid = empty_domain(&xen, Kind::Hvm, 1, false).expect("a domain");
    let console = xen.alloc_event_port(domid, DomId::DOM0).expect("a port").to_string();
    let store = xen.alloc_event_port(domid, DomId::DOM0).expect("a port").to_string();
    let text = domid.to_string();
    let ports = ["--store-port", &store, "--console-port", &console];
    let built = dombuild(&[&["build", "--domid", &text, "--memory", "64"], &ports[..]].concat()).success().json();
    assert_eq!(built["store_port"].to_string(), store);
    assert_eq!(built["console_port"].to_string(), console);
    remove(domid);
}

fn build_checks_the_vcpus_first() {
    let xen = Interface::open().expect("Xen");
    for created in [1, 3, 8] {
        let domid = empty_domain(&xen, Kind::Hvm, created, false).expect("a domain");
        assert_eq!(xen.created_vcpus(domid).expect("asked"), created);
        let text = domid.to_string();
        let ran = dombuild(&["build", "--domid", &text, "--memory", "64", "--vcpus", "2"]);
        let error = ran.failed_with(3, "bad-config");
        assert!(error["message"].as_str().expect("text").contains(&format!("{created} vCPUs")), "{error}");
        let info = xen.domain(domid).expect("asked").expect("still there");
        assert_eq!((info.existing_vcpus, info.max_pages.0), (0, 0), "nothing was changed");
        remove(domid);
    }
}

fn build_never_destroys() {
    let xen = Interface::open().expect("Xen");
    let domid = empty_domain(&xen, Kind::Hvm, 1, false).expect("a domain");
    let text = domid.to_string();
    let ran = dombuild(&["build", "--domid", &text, "--memory", "1TiB", "--wait-memory", "0"]);
    let error = ran.failed_with(4, "not-enough-memory");
    assert!(error["message"].as_str().expect("text").contains("left to whoever created it"), "{error}");
    assert!(xen.domain(domid).expect("asked").is_some(), "it is still there");
    remove(domid);
    dombuild(&["build", "--domid", &text, "--memory", "64"]).failed_with(3, "no-such-domain");
}

fn build_refuses_what_is_built() {
    let built = super::support::create("t", &["--memory", "64", "--device-model", "none", "--paused"]);
    let text = number(&built, "domid").to_string();
    let error = dombuild(&["build", "--domid", &text, "--memory", "64"]).failed_with(3, "bad-config");
    assert!(error["message"].as_str().expect("text").contains("only an empty domain"), "{error}");
    dombuild(&["destroy", "t"]).success();
}
