//! Names with characters that a shell, QEMU or a file system reads as something else.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;

use serde_json::{Value, json};

use super::Test;
use super::support::{RUNS, create, dombuild, number, run, shell, wait_for};

pub(crate) const TESTS: &[Test] = &[
    ("names_of_any_printable_text", printable),
    ("names_are_no_numbers", no_numbers),
    ("names_that_others_change", changed_by_others),
];

const NAMES: [(&str, &str); 2] =
    [("a ~&=,b", "a%20%7E%26%3D%2Cb"), ("größe,process=x", "gr%C3%B6%C3%9Fe%2Cprocess%3Dx")];

/// What QEMU's monitor answers to a command.
fn ask_monitor(domid: u64, command: &str) -> Value {
    let mut stream = UnixStream::connect(format!("/run/xen/qmp-libxenstat-{domid}")).expect("it listens");
    let commands = [json!({ "execute": "qmp_capabilities" }), json!({ "execute": command, "id": 1 })];
    commands.iter().for_each(|command| writeln!(stream, "{command}").expect("sent"));
    let answers =
        BufReader::new(stream).lines().map(|line| serde_json::from_str(&line.expect("a line")).expect("JSON"));
    let mut answers = answers.filter(|answer: &Value| answer["id"] == 1);
    answers.next().expect("an answer")["return"].clone()
}

fn printable() {
    for (name, file) in NAMES {
        let built = create(name, &["--memory", "64", "--paused"]);
        let domid = number(&built, "domid");
        assert_eq!(built["name"], name);
        // xl, xenstore and the programs that read it.
        assert_eq!(run("xl", &["domid", name]).success().stdout.trim(), domid.to_string());
        assert_eq!(run("xl", &["domname", &domid.to_string()]).success().stdout, format!("{name}\n"));
        assert!(run("xl", &["list", name]).success().stdout.contains(name));
        assert_eq!(dombuild(&["inspect", name]).success().json()["name"], name);
        dombuild(&["create", "--name", name, "--memory", "64"]).failed_with(3, "name-taken");
        // QEMU, its monitor and its log.
        assert_eq!(ask_monitor(domid, "query-name"), json!({ "name": name }));
        let pid = number(&built, "device_model_pid");
        let log = format!("/var/log/xen/qemu-dm-{file}.log");
        assert_eq!(fs::read_link(format!("/proc/{pid}/fd/2")).expect("it runs"), Path::new(&log));
        // Its console, which xenconsoled names.
        let console = format!("/var/log/xen/console/guest-{name}.log");
        wait_for(&console, 20, || Path::new(&console).exists());
        dombuild(&["destroy", name]).success();
        assert_ne!(run("xl", &["domid", name]).status, Some(0));
        fs::remove_file(log).expect("removed");
    }
    // A run that was killed: what it left is found, and the name is free again.
    let (name, _) = NAMES[0];
    shell(&format!(
        "dombuild create --name '{name}' --memory 64 --foreground & \
         until xl domid '{name}' 2>/dev/null; do sleep 0.2; done; kill -9 $!; wait; true"
    ));
    let found = dombuild(&["cleanup", "--apply"]).success().json();
    assert_eq!((&found[0]["what"], &found[0]["removed"]), (&json!("domain"), &json!(true)), "{found}");
    assert_ne!(run("xl", &["domid", name]).status, Some(0));
    assert!(
        fs::read_dir(RUNS).expect("there").flatten().all(|entry| entry.path().extension().is_none_or(|e| e != "json"))
    );
}

/// A name that begins like a number is one all the same, to dombuild as to xl.
fn no_numbers() {
    let first = create("t", &["--memory", "64", "--device-model", "none", "--paused"]);
    let name = format!("{}x", first["domid"]);
    let second = create(&name, &["--memory", "64", "--device-model", "none", "--paused"]);
    assert_eq!(dombuild(&["inspect", &name]).success().json()["domid"], second["domid"]);
    assert_eq!(run("xl", &["domid", &name]).success().stdout.trim(), second["domid"].to_string());
    dombuild(&["destroy", &format!("+{}", first["domid"])]).failed_with(3, "no-such-domain");
    dombuild(&["destroy", &name]).success();
    dombuild(&["destroy", "t"]).success();
}

/// The entries of the index of names.
fn index() -> Vec<String> {
    let entries = fs::read_dir(Path::new(RUNS).join("names")).into_iter().flatten();
    entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("text")).collect()
}

/// The index of names is a hint: xenstore says whose a name is.
fn changed_by_others() {
    let flags = ["--memory", "64", "--device-model", "none", "--paused"];
    let (first, second) = (create("t", &flags), create("u", &flags));
    let found = |name: &str| dombuild(&["inspect", name]).success().json()["domid"].clone();
    assert_eq!([found("t"), found("u")], [first["domid"].clone(), second["domid"].clone()]);
    assert!(index().iter().any(|entry| entry.ends_with(".t") && entry.starts_with(&format!("{}.", first["domid"]))));
    shell("xl rename t v && xl rename u t");
    assert_eq!([found("v"), found("t")], [first["domid"].clone(), second["domid"].clone()]);
    dombuild(&["inspect", "u"]).failed_with(3, "no-such-domain");
    dombuild(&["create", "--name", "v", "--memory", "64"]).failed_with(3, "name-taken");
    shell("xl destroy v");
    dombuild(&["inspect", "v"]).failed_with(3, "no-such-domain");
    let third = create("v", &flags);
    assert_eq!(found("v"), third["domid"]);
    assert_eq!(index().len(), 2, "the entry of a domain that is gone goes with the next one: {:?}", index());
    for name in ["t", "v"] {
        dombuild(&["destroy", name]).success();
    }
    assert_eq!(index(), [""; 0]);
}
