//! Devices that neither dom0's kernel nor a QEMU serves: virtual TPMs, displays, sound cards and PV calls.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use dombuild::xen::{DomId, Store, XenError};
use serde_json::Value;

use super::Test;
use super::devices::{create_with, message};
use super::faults::tiny_kernel;
use super::libxl_record::listed;
use super::support::{create, dombuild, domid, file, number, path_text, run, shell};
use super::twin::same_keys_but;

pub(crate) const TESTS: &[Test] = &[
    ("external_devices_are_as_xl_has_them_pvh", || same_as_xl("pvh")),
    ("external_devices_are_as_xl_has_them_pv", || same_as_xl("pv")),
    ("external_devices_come_and_go", come_and_go),
    ("external_devices_without_a_backend", without_a_backend),
];

/// The classes, and their lists in libxl's configuration.
const CLASSES: [(&str, &str); 4] =
    [("pvcalls", "pvcallsifs"), ("vdispl", "vdispls"), ("vsnd", "vsnds"), ("vtpm", "vtpms")];

/// Answers as a backend of these classes does in a domain: it gets ready for the guest, and closes when dom0 asks.
struct Backend {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Backend {
    fn of(domid: DomId) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let store = Store::open().expect("xenstored");
            while !stopped.load(Ordering::Relaxed) {
                answer(&store, domid).expect("answered");
                thread::sleep(Duration::from_millis(100));
            }
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take().map(JoinHandle::join);
        assert!(thread::panicking() || matches!(ended, Some(Ok(()))), "the backend has answered to its end");
    }
}

fn answer(store: &Store, domid: DomId) -> Result<(), XenError> {
    for (kind, _) in CLASSES {
        let root = format!("/local/domain/{domid}/backend/{kind}");
        for guest in store.plain().children(&root)? {
            for devid in store.plain().children(&format!("{root}/{guest}"))? {
                let node = format!("{root}/{guest}/{devid}/state");
                store.transaction(|transaction| {
                    let next = match transaction.read(&node)?.as_deref() {
                        // Nothing waits for the backend of PV calls: a paused guest's stays as it was written.
                        Some("1") if kind != "pvcalls" => "2",
                        Some("5") => "6",
                        _ => return Ok(()),
                    };
                    transaction.write(&node, next)
                })?;
            }
        }
    }
    Ok(())
}

/// A list of libxl's configuration, without what says that dom0 serves a device: xl has it as it was written.
fn list(name: &str, list: &str) -> Value {
    let mut found = listed(name)[list].clone();
    for device in found.as_array_mut().into_iter().flatten() {
        let fields = device.as_object_mut().expect("an object");
        if fields.get("backend_domname").is_some_and(|name| name == "Domain-0") {
            fields.remove("backend_domname");
        }
        // xl leaves out the number of PV calls.
        if list == "pvcallsifs" {
            fields.remove("devid");
        }
    }
    found
}

fn same_as_xl(kind: &str) {
    let _backend = Backend::of(DomId::DOM0);
    let kernel = file(&tiny_kernel());
    let kernel = path_text(&kernel);
    let vtpm = "backend=Domain-0,uuid=69b92c70-99c7-4502-9334-6cf87ad556ee";
    let vdispls = ["be-alloc=1,connectors=a:800x600;b:1024x768,backend=Domain-0", "connectors=only:640x480"];
    let cards = [
        vec![
            "CARD, short-name=Main, long-name=The main card, backend=Domain-0, sample-formats=s16_le;S8;f32_le",
            "PCM, name=first, sample-rates=8000;44100, buffer-size=4096",
            "STREAM, unique-id=0, type=p",
            "STREAM, unique-id=1, type=c, channels-min=1, channels-max=2",
            "PCM, name=second",
            "STREAM, unique-id=2",
        ],
        vec!["CARD", "STREAM, unique-id=only, type=p"],
    ];
    let pvcalls = "backend=Domain-0";
    let config = format!(
        "type=\"{kind}\"\nname=\"x\"\nmemory=64\nkernel=\"{kernel}\"\nextra=\"quiet\"\nvtpm=[\"{vtpm}\"]\n\
         vdispl={vdispls:?}\nvsnd={cards:?}\npvcalls=[\"{pvcalls}\"]\n"
    );
    let config = file(config.as_bytes());
    shell(&format!("xl create -p {}", path_text(&config)));
    let theirs = DomId::new(shell("xl domid x").trim().parse().expect("a domid")).expect("a domid");

    let cards = cards.map(|items| items.join(","));
    let guest = ["--kind", kind, "--model", "libxl", "--memory", "64", "--kernel", kernel, "--cmdline", "quiet"];
    let mut flags = [&guest[..], &["--paused", "--vtpm", vtpm, "--pvcalls", pvcalls]].concat();
    flags.extend(vdispls.iter().flat_map(|spec| ["--vdispl", spec]));
    flags.extend(cards.iter().flat_map(|spec| ["--vsnd", spec.as_str()]));
    let ours = domid(&create("t", &flags));

    let differing: &[&str] = if kind == "pv" { &["/ring-ref"] } else { &[] };
    let keys = same_keys_but(theirs, ours, differing, &[]);
    for (class, name) in CLASSES {
        let found = list("t", name);
        assert_eq!(found, list("x", name));
        assert!(!found.as_array().expect("a list").is_empty(), "{name}");
        assert!(shell(&format!("xenstore-ls /libxl/{ours}/device/{class}")).contains("backend"), "{class}");
    }
    println!("{kind} with devices of other backends, the same as xl's: {keys} keys");
    // libxl removes ours as its own.
    for name in ["x", "t"] {
        shell(&format!("xl destroy {name}"));
    }
}

/// The classes and numbers of a guest's devices.
fn devices(name: &str) -> Vec<(String, u64)> {
    let found = dombuild(&["list", "--devices", name]).success().json();
    let rows = found.as_array().expect("a list").iter();
    let mut rows: Vec<_> =
        rows.map(|row| (row["kind"].as_str().expect("text").to_owned(), number(row, "devid"))).collect();
    rows.sort();
    rows
}

fn come_and_go() {
    let other = domid(&create_with("b", &[]).success().json());
    let _backend = Backend::of(other);
    let specs = [
        ["--vtpm", "backend=b"],
        ["--vtpm", "backend=b"],
        ["--vdispl", "backend=b,connectors=a:1x1"],
        ["--vsnd", "CARD,backend=b"],
        ["--pvcalls", &format!("backend={other}")],
    ];
    // xl has no check of the kind either.
    let guest = ["--memory", "64", "--paused"];
    let ours = domid(&create("t", &[&guest[..], &specs.concat()].concat()));
    let all = shell("xenstore-ls -f -p");
    for (class, _) in CLASSES {
        for (path, permissions) in [
            (format!("/local/domain/{other}/backend/{class}/{ours}/0"), format!("(n{other},r{ours})")),
            (format!("/local/domain/{ours}/device/{class}/0"), format!("(n{ours},r{other})")),
            (format!("/libxl/{ours}/device/{class}/0"), "(n0)".to_owned()),
        ] {
            let line = all.lines().find(|line| line.starts_with(&format!("{path} = ")));
            assert!(line.is_some_and(|line| line.ends_with(&permissions)), "{path}: {line:?}");
        }
    }
    let uuid = |devid| shell(&format!("xenstore-read /libxl/{ours}/device/vtpm/{devid}/uuid")).trim().to_owned();
    let recorded = list("t", "vtpms");
    assert_eq!([&recorded[0]["uuid"], &recorded[1]["uuid"]], [&uuid(0), &uuid(1)]);
    assert_ne!(uuid(0), uuid(1), "each TPM is another one");

    let all = [("pvcalls", 0), ("vdispl", 0), ("vsnd", 0), ("vtpm", 0), ("vtpm", 1)];
    assert_eq!(devices("t"), all.map(|(kind, devid)| (kind.to_owned(), devid)));
    let error = dombuild(&["detach", "vtpm", "t", "2"]).failed_with(3, "bad-config");
    assert!(message(&error).contains("vtpm 2"), "{error}");
    // The backend closes without the guest, which is paused.
    dombuild(&["detach", "vtpm", "t", "0"]).success();
    for class in ["pvcalls", "vdispl", "vsnd"] {
        dombuild(&["detach", class, "t", "0", "--force"]).success();
    }
    assert_eq!(devices("t"), [("vtpm".to_owned(), 1)]);
    for (class, name) in CLASSES {
        let left: Vec<Value> = list("t", name).as_array().cloned().unwrap_or_default();
        assert_eq!(
            left.iter().map(|device| number(device, "devid")).collect::<Vec<_>>(),
            if class == "vtpm" { vec![1] } else { vec![] }
        );
        let backends = run("xenstore-exists", &[&format!("/local/domain/{other}/backend/{class}")]);
        assert_eq!(backends.status, Some(i32::from(class != "vtpm")), "{class}");
    }
    dombuild(&["destroy", "t"]).success();
    assert_eq!(run("xenstore-exists", &[&format!("/local/domain/{other}/backend/vtpm")]).status, Some(1));
    dombuild(&["destroy", "b"]).success();
}

fn without_a_backend() {
    // Nothing answers in dom0.
    let start = Instant::now();
    let error = create_with("t", &["--vtpm", "backend=Domain-0"]).failed_with(8, "timed-out");
    assert!(message(&error).contains("vtpm 0: its backend did not get ready within 10 seconds"), "{error}");
    assert!(start.elapsed() >= Duration::from_secs(10), "{:?}", start.elapsed());
    assert_eq!(run("xl", &["domid", "t"]).status, Some(1));

    // For PV calls nothing is waited for, as in libxl.
    create_with("t", &["--pvcalls", ""]).success();
    assert_eq!(devices("t"), [("pvcalls".to_owned(), 0)]);
    dombuild(&["destroy", "t"]).success();

    // A domain that is not there, or no longer.
    let gone = domid(&create_with("b", &[]).success().json());
    dombuild(&["destroy", "b"]).success();
    let number = format!("backend={gone}");
    for (flag, spec, label) in [
        ("--vtpm", "backend=b", "vtpm 0"),
        ("--vdispl", "connectors=a:1x1,backend=b", "vdispl 0"),
        ("--vsnd", "CARD,backend=b", "vsnd 0"),
        ("--pvcalls", number.as_str(), "pvcalls 0"),
    ] {
        let error = create_with("t", &[flag, spec]).failed_with(3, "bad-config");
        assert!(message(&error).contains(&format!("device {label}: there is no domain")), "{error}");
    }
}
