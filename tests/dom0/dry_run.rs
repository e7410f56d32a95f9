//! `create --dry-run` says what `create` would, and changes nothing.

use std::fs;

use super::Test;
use super::support::{GUEST_KERNEL, create, dombuild, domid, number, run, shell};

pub(crate) const TESTS: &[Test] = &[
    ("dry_run_changes_nothing", changes_nothing),
    ("dry_run_fails_as_create_does", fails_as_create_does),
    ("dry_run_tells_every_step", tells_every_step),
];

/// All that a guest would leave a trace in.
fn traces() -> String {
    // Not how long dom0 has run, and not what Xen said meanwhile.
    shell(
        "xenstore-ls -f; xl list | awk '{ print $1, $2, $3, $4 }'; find /run/xen /run/dombuild /var/log/xen /var/lib/xen ! -name hypervisor.log -printf '%M %u %s %t %p\\n' | sort",
    )
}

fn changes_nothing() {
    let one = |name| {
        let built = create(name, &["--memory", "64", "--device-model", "none", "--paused"]);
        dombuild(&["destroy", name]).success();
        domid(&built).get()
    };
    let before_number = one("a");
    let before = traces();
    for kind in [&[][..], &["--device-model", "none"], &["--kind", "pvh", "--kernel", GUEST_KERNEL]] {
        let words = [&["create", "--dry-run", "--name", "t", "--memory", "128"], kind].concat();
        let told = dombuild(&words).success().json();
        assert_eq!(told["dry_run"], true, "{told}");
        assert!(number(&told, "required_kib") <= number(&told, "free_kib"), "{told}");
        assert_eq!(number(&told, "required_kib"), number(&told["plan"], "footprint_kib"));
        let text = run("dombuild", &words).success().stdout;
        assert!(text.starts_with("t can be created now; nothing was changed\n"), "{text}");
    }
    assert_eq!(traces(), before);
    assert_eq!(one("b"), before_number + 1, "Xen has given out no number meanwhile");
}

fn fails_as_create_does() {
    create("taken", &["--memory", "64", "--device-model", "none", "--paused"]);
    for (arguments, word) in [
        (&["--name", "taken", "--memory", "64"][..], "taken by domain"),
        (&["--name", "t", "--memory", "1TiB", "--device-model", "none", "--wait-memory", "0"], "are required and"),
        (&["--name", "t", "--memory", "64", "--cpupool", "77"], "--cpupool 77"),
        (&["--name", "t", "--memory", "64", "--seclabel", "no:such:label"], "--seclabel"),
        (&["--name", "t", "--memory", "64", "--platform", "vcpu/0/affinity=0000000001"], "vcpu/N/affinity"),
        (&["--name", "t", "--memory", "64", "--passthrough"], "IOMMU"),
        (&["--name", "t/t", "--memory", "64"], "cannot be part of a name"),
        (&["--name", "t", "--memory", "64", "--hvmloader", "/nowhere"], "/nowhere"),
        (&["--name", "t", "--memory", "64", "--device-model-user", "no-such-user"], "no-such-user"),
        (&["--name", "t"], "--memory"),
    ] {
        let real = dombuild(&[&["create"], arguments].concat());
        let dry = dombuild(&[&["create", "--dry-run"], arguments].concat());
        assert_ne!(real.status, Some(0), "{real:?}");
        assert_eq!(dry.status, real.status, "{dry:?}\n{real:?}");
        let (dry, real) = (dry.json()["error"].clone(), real.json()["error"].clone());
        for field in ["code", "call", "errno", "required_kib"] {
            assert_eq!(dry[field], real[field], "{field}: {dry}\n{real}");
        }
        for message in [&dry, &real] {
            assert!(message["message"].as_str().expect("text").contains(word), "{word:?} is not in {message}");
        }
    }
    dombuild(&["destroy", "taken"]).success();
}

/// The steps that it tells are those that `create` then takes.
fn tells_every_step() {
    for kind in
        [&["--device-model", "none", "--paused"][..], &["--kind", "pv", "--kernel", GUEST_KERNEL, "--paused"], &[]]
    {
        let words = [&["--name", "t", "--memory", "128"], kind].concat();
        let told = dombuild(&[&["create", "--dry-run"], &words[..]].concat()).success().json();
        let line = format!("dombuild --events-fd 3 create {} 3>/tmp/events >/dev/null", words.join(" "));
        shell(&line);
        let events = fs::read_to_string("/tmp/events").expect("events");
        fs::remove_file("/tmp/events").expect("removed");
        let taken: Vec<serde_json::Value> = events
            .lines()
            .map(|line| serde_json::from_str::<serde_json::Value>(line).expect("JSON"))
            .filter(|event| event["event"] == "stage" && event["state"] == "done")
            .map(|event| event["stage"].clone())
            .filter(|stage| stage != "check-input" && stage != "connect")
            .collect();
        assert_eq!(told["steps"].as_array().expect("a list"), &taken);
        dombuild(&["destroy", "t"]).success();
    }
}
