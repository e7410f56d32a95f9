//! Domains that are destroyed and stay, because a process still maps a page of theirs.

use std::fs;
use std::time::{Duration, Instant};

use dombuild::memory::{Gfn, Pages};
use dombuild::xen::{DomId, ForeignPages, Interface};
use serde_json::{Value, json};

use super::Test;
use super::support::{RUNS, create, destroy, dombuild, domid, number, run, shell, wait_for};

pub(crate) const TESTS: &[Test] = &[
    ("zombies_have_no_name_and_no_uuid", no_name_and_no_uuid),
    ("zombies_are_destroyed_with_the_same_answer", same_answer),
    ("zombies_of_xl_are_its_own", of_xl),
];

const UUID: &str = "6d0d1b3e-3f0e-4a55-9a3a-2b8f6a8f0f12";
const GUEST: [&str; 7] = ["--memory", "64", "--device-model", "none", "--paused", "--uuid", UUID];

/// A page of the guest's RAM, mapped by this process.
fn hold(xen: &Interface, domid: DomId) -> ForeignPages {
    xen.map(domid, Gfn(0x200), Pages(1)).expect("mapped")
}

fn wait_gone(xen: &Interface, domid: DomId) {
    wait_for("the zombie is gone", 20, || xen.domain(domid).expect("asked").is_none());
}

fn records() -> usize {
    let files = fs::read_dir(RUNS).expect("the directory").flatten();
    files.filter(|file| file.path().extension().is_some_and(|extension| extension == "json")).count()
}

fn exists(path: &str) -> bool {
    run("xenstore-exists", &[path]).status == Some(0)
}

/// Its keys are all there, as where another toolstack has come no further than to destroy it.
fn no_name_and_no_uuid() {
    let xen = Interface::open().expect("Xen");
    let first = domid(&create("t", &GUEST));
    let held = hold(&xen, first);
    destroy(&xen, first);
    assert!(xen.domain(first).expect("asked").expect("held").dying);
    let second = create("t", &GUEST);
    let vm = format!("/vm/{UUID}");
    assert_eq!(shell(&format!("xenstore-read {vm}/name")).trim(), "t");
    // A user who says the name means the one that lives.
    assert_eq!(dombuild(&["inspect", "t"]).success().json()["domid"], second["domid"]);
    dombuild(&["create", "--name", "other", "--memory", "64", "--uuid", UUID]).failed_with(3, "bad-config");

    // The end of the first takes nothing of the second.
    dombuild(&["destroy", &first.to_string()]).failed_with(7, "left-behind");
    assert!(!exists(&format!("/local/domain/{first}")) && exists(&vm), "it has its path");
    let shown = dombuild(&["inspect", "t"]).success().json();
    assert_eq!((&shown["domid"], &shown["differences"]), (&second["domid"], &json!([])));
    // A cleanup distinguishes them, too.
    let found = dombuild(&["cleanup"]).success().json();
    let what = (&found[0]["domid"], &found[0]["what"], &found[1]);
    assert_eq!(what, (&json!(first), &json!("domain"), &Value::Null), "{found}");
    // And the end of the second leaves nothing, although the first still has its UUID.
    dombuild(&["destroy", "t"]).success();
    assert!(!exists(&vm), "nobody has it any more");
    assert_eq!(records(), 1, "the first one's");
    drop(held);
    wait_gone(&xen, first);
    dombuild(&["cleanup", "--apply"]).success();
    assert_eq!(records(), 0);
}

fn same_answer() {
    let xen = Interface::open().expect("Xen");
    let first = domid(&create("t", &GUEST));
    let held = hold(&xen, first);
    let attempt = |word: &str| {
        let start = Instant::now();
        let error = dombuild(&["destroy", word]).failed_with(7, "left-behind");
        assert_eq!(number(&error, "domid"), u64::from(first.get()));
        assert_eq!(records(), 1);
        (error["message"].as_str().expect("text").to_owned(), start.elapsed())
    };
    let (message, _) = attempt("t");
    let own = format!("process {} (", std::process::id());
    for words in
        ["1 of its pages is still mapped by others", &own, "): 1 page", "backends in dom0 and in xenstore: none"]
    {
        assert!(message.contains(words), "{words}: {message}");
    }
    for _ in 0..2 {
        let (again, took) = attempt(&first.to_string());
        assert_eq!(again, message);
        assert!(took < Duration::from_secs(10), "{took:?}");
    }
    // A backend that another domain runs is named as well. It is not dom0's to remove.
    let backend = format!("/local/domain/{}/backend/vbd/{first}/51712", domid(&create("driver", &GUEST[..5])));
    shell(&format!("xenstore-write {backend}/state 4"));
    let (message, _) = attempt(&first.to_string());
    assert!(message.contains(&format!("in xenstore: {backend};")), "{message}");
    dombuild(&["destroy", "driver"]).success();
    let found = dombuild(&["cleanup", "--apply"]).failed_with(7, "left-behind")["found"].clone();
    assert_eq!((&found[0]["what"], &found[1]), (&json!("domain"), &Value::Null), "{found}");
    assert_eq!(records(), 1);
    drop(held);
    wait_gone(&xen, first);
    assert_eq!(dombuild(&["cleanup", "--apply"]).success().json()[0]["what"], "record");
}

/// Another toolstack's domain does not become dombuild's by dying.
fn of_xl() {
    let xen = Interface::open().expect("Xen");
    let first = domid(&create("t", &GUEST));
    let held = hold(&xen, first);
    shell(&format!("xl destroy {first}"));
    assert!(xen.domain(first).expect("asked").expect("held").dying);
    dombuild(&["destroy", &first.to_string()]).failed_with(3, "not-ours");
    dombuild(&["destroy", "--force", &first.to_string()]).failed_with(7, "left-behind");
    drop(held);
    wait_gone(&xen, first);
    dombuild(&["cleanup", "--apply"]).success();
}
