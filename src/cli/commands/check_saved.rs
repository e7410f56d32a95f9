//! `check` of a saved guest's file: what is in it, and that it is whole.

use std::time::Duration;

use serde_json::{Value, json};

use crate::cancel::Cancel;
use crate::cli::args::CheckArgs;
use crate::cli::print::{self, Done};
use crate::cli::reporter::Reporter;
use crate::error::Error;
use crate::memory::Pages;
use crate::migration::checker::StateChecker;
use crate::migration::configuration::SavedGuest;
use crate::migration::libxc_records::name;
use crate::migration::saved_file::{CheckJob, CheckedFile};
use crate::observer;
use crate::os::one_line;
use crate::stage::Stage;

/// How long a file may take.
const TIMEOUT: Duration = Duration::from_secs(3600);

pub(crate) fn run(reporter: &Reporter, arguments: &CheckArgs, json: bool) -> anyhow::Result<Done> {
    let (checked, restorable) = observer::step(reporter, Stage::CheckInput, || {
        if arguments.strict || !arguments.settings.is_empty() {
            let reason = "the file is a saved guest: settings and --strict are for configuration files of xl";
            return Err(Error::BadConfig(reason.to_owned()));
        }
        let cancel = Cancel::install()?;
        let checker = StateChecker::this_program();
        let job = CheckJob { checker: &checker, timeout: TIMEOUT, cancel: &cancel, observer: reporter };
        // What dombuild cannot give the guest is no damage.
        CheckedFile::open(&arguments.file, &job, |configuration| Ok(SavedGuest::read(configuration).map(drop)))
    })?;
    reporter.clear_line();
    if arguments.libxl_json {
        return print::finish(true, &checked.configuration, "");
    }
    let obstacle = restorable.err().map(|problem| problem.to_string());
    let parts = parts(&checked);
    let text = text(arguments, &checked, obstacle.as_deref(), &parts);
    print::finish(json, &object(arguments, &checked, obstacle, &parts), &text)
}

/// A part of the file.
struct Part {
    name: &'static str,
    /// The number of records, for one of libxenguest's.
    records: Option<u64>,
    bytes: u64,
}

/// The parts of a file. Those between them are heads.
fn parts(checked: &CheckedFile) -> Vec<Part> {
    let configuration = Part { name: "configuration", records: None, bytes: checked.configuration_length };
    let records = checked.state.libxc.records.iter();
    let records = records.map(|sum| Part { name: name(sum.kind), records: Some(sum.count), bytes: sum.bytes });
    let emulator = checked.state.emulator.iter();
    let emulator = emulator.map(|range| Part { name: "QEMU's state", records: None, bytes: range.end - range.start });
    std::iter::once(configuration).chain(records).chain(emulator).collect()
}

fn object(arguments: &CheckArgs, checked: &CheckedFile, obstacle: Option<String>, parts: &[Part]) -> Value {
    let CheckedFile { outline, state, .. } = checked;
    let devices = outline.devices.iter().map(|(list, device)| json!({ "list": list, "device": device }));
    let parts = parts.iter().map(|part| json!({ "name": part.name, "records": part.records, "bytes": part.bytes }));
    let (major, minor) = state.libxc.xen;
    json!({
        "schema": 1,
        "file": arguments.file,
        "format": "saved-guest",
        "bytes": checked.length,
        "kind": outline.kind,
        "name": outline.name,
        "uuid": outline.uuid,
        "vcpus": outline.vcpus,
        "target_kib": outline.target,
        "static_max_kib": outline.static_max,
        "pages": state.libxc.pages,
        "xen": format!("{major}.{minor}"),
        "qemu_state": state.emulator.is_some(),
        "devices": devices.collect::<Vec<_>>(),
        "parts": parts.collect::<Vec<_>>(),
        "restorable": obstacle.is_none(),
        "obstacle": obstacle,
    })
}

fn text(arguments: &CheckArgs, checked: &CheckedFile, obstacle: Option<&str>, parts: &[Part]) -> String {
    let CheckedFile { outline, state, .. } = checked;
    let file = arguments.file.to_string_lossy();
    let mib = |pages: Pages| pages.to_kib().0 / 1024;
    let (major, minor) = state.libxc.xen;
    let kind = outline.kind.name().to_uppercase();
    let mut text = format!("{}: a saved {kind} guest, whole, {} bytes\n\n", one_line(&file), checked.length);
    let mut row = |name: &str, value: String| text.push_str(&format!("  {name:<10}  {value}\n"));
    row("name", outline.name.as_ref().map_or("none".to_owned(), ToString::to_string));
    row("UUID", outline.uuid.map_or("none".to_owned(), |uuid| uuid.to_string()));
    row("vCPUs", outline.vcpus.to_string());
    let sizes = [outline.target, outline.static_max].map(|size| size.0 / 1024);
    row("memory", format!("target {} MiB, static max {} MiB", sizes[0], sizes[1]));
    row("pages", format!("{}, {} MiB", state.libxc.pages.0, mib(state.libxc.pages)));
    row("saved on", format!("Xen {major}.{minor}"));
    for (list, device) in &outline.devices {
        row("device", format!("{list}: {device}"));
    }
    text.push_str(&format!("\n  {:<22}  {:>9}  {:>14}\n", "part", "records", "bytes"));
    for part in parts {
        let records = part.records.map_or(String::new(), |count| count.to_string());
        text.push_str(&format!("  {:<22}  {records:>9}  {:>14}\n", part.name, part.bytes));
    }
    if let Some(obstacle) = obstacle {
        text.push_str(&format!("\nNote: `dombuild restore` refuses it: {obstacle}.\n"));
    }
    text
}
