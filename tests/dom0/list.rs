//! `dombuild list` against `xl list` and `inspect`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::Test;
use super::support::{create, dombuild, domid, number, shell};

pub(crate) const TESTS: &[Test] = &[("list_has_every_domain_that_xl_lists", lists)];

fn lists() {
    let flags = ["--memory", "64", "--device-model", "none", "--paused"];
    let guest = domid(&create("t", &flags));
    shell("xl create -p /dev/null 'name=\"x\"' 'type=\"pvh\"' 'kernel=\"/srv/guest/vmlinuz\"' 'memory=128'");
    let list = dombuild(&["list"]).success().json();
    let rows = list.as_array().expect("a list");
    let row = |name: &str| rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name}: {list}"));

    let by_xl: BTreeSet<u64> = shell("xl list")
        .lines()
        .skip(1)
        .map(|line| line.split_whitespace().nth(1).and_then(|domid| domid.parse().ok()).expect("a domid"))
        .collect();
    assert_eq!(rows.iter().map(|row| number(row, "domid")).collect::<BTreeSet<_>>(), by_xl);

    let ours = row("t");
    let inspected = dombuild(&["inspect", "t"]).success().json();
    assert_eq!(number(ours, "domid"), u64::from(guest.get()));
    for (field, value) in [("kind", "hvm"), ("state", "paused"), ("created_by", "dombuild"), ("model", "xenops")] {
        assert_eq!(ours[field], value, "{field}: {ours}");
    }
    assert_eq!(number(ours, "owned_kib"), number(&inspected, "owned_pages") * 4);
    assert_eq!(number(ours, "planned_kib"), number(&inspected["plan"], "owned_pages_running") * 4);
    assert!(number(ours, "uptime_seconds") < 600, "{ours}");

    let (theirs, dom0) = (row("x"), row("Domain-0"));
    assert_eq!((&theirs["created_by"], &theirs["kind"]), (&"libxl".into(), &"pvh".into()), "{theirs}");
    assert_eq!((&dom0["created_by"], &dom0["planned_kib"]), (&"xen".into(), &Value::Null), "{dom0}");
    assert!(dom0["cpu_seconds"].as_f64().is_some_and(|seconds| seconds > 1.0), "{dom0}");

    let text = shell("dombuild list");
    assert_eq!(text.lines().count(), rows.len() + 1, "{text}");
    assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
    dombuild(&["destroy", "t"]).success();
    shell("xl destroy x");
}
