//! Each call of `save` and of `restore` fails once. The child that calls libxenguest has no part in it: it is killed elsewhere.

use nix::errno::Errno;
use serde_json::json;

use super::super::save_restore::assert_runs;
use super::super::support::{Host, dombuild, path_text, run};
use super::check::check_error;
use super::shim::{Traced, points};
use super::{Walk, all, traced};

fn make() {
    dombuild(&["create", "--name", "t", "--memory", "64", "--device-model", "none"]).success();
}

fn is_there() -> bool {
    run("xl", &["domid", "t"]).status == Some(0)
}

fn remove() {
    if is_there() {
        dombuild(&["destroy", "t"]).success();
    }
}

/// The guest runs on, or is saved whole.
pub(super) fn save_walk() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.saved");
    let words = ["save", "t", path_text(&path)];
    let files = || std::fs::read_dir(folder.path()).expect("a folder").count();
    let clear = || {
        remove();
        let _ = std::fs::remove_file(&path);
    };
    let host = Host::now();
    make();
    let whole = traced(&words, &[]);
    whole.ran.success();
    clear();
    let mut walk = Walk::new("save", host, whole.calls.len());
    for point in points(&whole.calls, &all(&whole.calls), &walk.name, 3) {
        let errno = walk.errno();
        make();
        let run = traced(&words, &[(point, errno)]);
        let outcome = match run.ran.status {
            Some(0) if is_there() || files() != 1 => Err("it is not saved".to_owned()),
            Some(0) => Ok(false),
            Some(7) => after_cleanup(&run),
            _ => check_error(&run.ran, run.until(point), errno).map(|_| true),
        };
        // It is saved, and its domain could not be destroyed.
        let is_saved = run.ran.status == Some(7) && run.ran.stderr.contains("has the guest");
        let outcome = outcome.and_then(|noticed| {
            if is_saved {
                return if is_there() || files() != 1 { Err("it is not saved".to_owned()) } else { Ok(noticed) };
            }
            if noticed && files() != 0 {
                return Err("a file is left".to_owned());
            }
            if noticed {
                assert_runs("t");
            }
            Ok(noticed)
        });
        clear();
        walk.step(point, &run, outcome);
    }
    walk.end();
}

/// A guest that stands suspended runs on by `cleanup`, as the error says. One that is saved and could not be destroyed is destroyed by
/// it, or by `destroy --force`.
fn after_cleanup(run: &Traced) -> Result<bool, String> {
    let error = run.ran.json()["error"].clone();
    let message = error["message"].as_str().unwrap_or_default();
    let says = ["cleanup --apply", "destroy --force"].iter().any(|words| run.ran.stderr.contains(words));
    if error["code"] != "left-behind" || !says {
        return Err(format!("it should say how the guest runs on: {message}"));
    }
    dombuild(&["cleanup", "--apply"]).success();
    if dombuild(&["cleanup"]).success().json() == json!([]) { Ok(true) } else { Err("something is left".to_owned()) }
}

/// The guest is restored whole, or nothing of it is there.
pub(super) fn restore_walk() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("t.saved");
    make();
    dombuild(&["save", "t", path_text(&path)]).success();
    let words = ["restore", path_text(&path)];
    let host = Host::now();
    let whole = traced(&words, &[]);
    whole.ran.success();
    assert_runs("t");
    remove();
    let mut walk = Walk::new("restore", host, whole.calls.len());
    for point in points(&whole.calls, &all(&whole.calls), &walk.name, 4) {
        let errno: Errno = walk.errno();
        let run = traced(&words, &[(point, errno)]);
        let outcome = if run.ran.status == Some(0) {
            assert_runs("t");
            remove();
            Ok(false)
        } else {
            check_error(&run.ran, run.until(point), errno).map(|_| true)
        };
        walk.step(point, &run, outcome);
    }
    walk.end();
}
