//! A guest's configuration as a whole: its kind, what becomes of each key, and its memory.

use std::collections::BTreeMap;

use clap::ValueEnum;

use super::checks::{Aim, Checks};
use super::device_lists;
use super::diagnostic::Diagnostics;
use super::document::{Document, Setting};
use super::flags::{self, Flag};
use super::keys::{self, Key, State, a_guest};
use super::libxl_json;
use super::libxl_parts;
use super::reader::{Read, Reader, Values};
use super::source::Source;
use super::values;
use super::vnuma;
use crate::cli::nearest::nearest;
use crate::config::on_end::{EndActions, OnEnd};
use crate::memory::limits::DEFAULT_VIDEO;
use crate::memory::{Kib, Kind, Mib, Model, Plan, PlanError, Request};

/// What has become of a key.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) setting: Setting,
    /// Its line in the table; `None` if it is unknown.
    pub(super) key: Option<&'static Key>,
    pub(super) state: State,
    /// Why `create` cannot carry it out, if it cannot.
    pub(super) refused: Option<String>,
}

/// A configuration that has been checked.
#[derive(Debug, Default)]
pub(super) struct Report {
    pub(super) kind: Kind,
    pub(super) outcomes: Vec<Outcome>,
    pub(super) diagnostics: Diagnostics,
    /// If the file names memory and nothing stands against it.
    pub(super) plan: Option<Plan>,
    /// What the plan leaves out.
    pub(super) plan_notes: Vec<&'static str>,
    /// What happens when it ends.
    pub(super) on_end: EndActions,
    /// The flags of `create` that it stands for, if nothing stands against it.
    pub(super) flags: Vec<Flag>,
    /// The configuration that xl makes of it, if it was asked for.
    pub(super) libxl: Option<serde_json::Value>,
}

/// The likeness of a key to the one that was meant. Keys are short, and more of them are alike by accident than flags are.
const NEAR: f64 = 0.8;

/// Whether this program is for Xen 4.17, whose xl does not know the keys of 4.20.
const XEN_4_17: bool = matches!(env!("DOMBUILD_XEN_VERSION").as_bytes(), b"4.17");

/// The state of a key that xl 4.17 does not know.
const TOO_NEW: State = State::Ignored("xl 4.17 does not know it");

/// The state of a key that a guest of this kind does not have.
const fn not_of(kind: Kind) -> State {
    match kind {
        Kind::Hvm => State::Ignored("HVM guests do not have it"),
        Kind::Pvh => State::Ignored("PVH guests do not have it"),
        Kind::Pv => State::Ignored("PV guests do not have it"),
    }
}

/// Checks the file, which is the first text, with the arguments after it.
pub(super) fn check(sources: &[Source], checks: &Checks) -> Report {
    let mut diagnostics = Diagnostics::default();
    let document = Document::read(sources, &mut diagnostics);
    if diagnostics.failed() {
        // What is not read could change everything else.
        return Report { diagnostics, ..Report::default() };
    }
    let mut reader = Reader { sources, diagnostics };
    let Some(kind) = kind(&mut reader, &document) else {
        // Which keys a guest has depends on it.
        return Report { diagnostics: reader.diagnostics, ..Report::default() };
    };
    let (mut read, mut others) = (Values::new(), Values::new());
    let mut states = BTreeMap::new();
    for setting in &document.settings {
        let state = match keys::find(&setting.key) {
            Some(key) => known(&mut reader, setting, key, kind, &mut read, &mut others),
            None => unknown(&mut reader, setting, checks.strict),
        };
        states.insert(setting.key.as_str(), state);
    }
    device_lists::check(&mut reader, &document, &read, kind);
    check_together(&mut reader, &document, &read, kind);
    let mut plan_notes = Vec::new();
    let plan =
        if reader.diagnostics.failed() { None } else { plan(&mut reader, &document, &read, kind, &mut plan_notes) };
    let flags = if reader.diagnostics.failed() || checks.aim == Aim::LibxlJson {
        flags::Flags::default()
    } else {
        flags::of(&mut reader, &document, &read, kind, checks)
    };
    let mut libxl = None;
    if checks.aim == Aim::LibxlJson && !reader.diagnostics.failed() {
        let mut all = read.clone();
        all.append(&mut others);
        let (configuration, notes) = libxl_json::of(kind, &all, &checks.xl_conf);
        libxl = Some(configuration);
        for (key, note) in notes {
            reader.diagnostics.warn(document.get(key).and_then(|setting| setting.value.place()), note);
        }
    }
    let outcome = |setting: &Setting| Outcome {
        setting: setting.clone(),
        key: keys::find(&setting.key),
        state: states.get(setting.key.as_str()).copied().unwrap_or(State::Read),
        refused: flags.refused.get(setting.key.as_str()).cloned(),
    };
    let outcomes = document.settings.iter().map(outcome).collect();
    let on_end = on_end(&read);
    Report { kind, outcomes, diagnostics: reader.diagnostics, plan, plan_notes, on_end, flags: flags.all, libxl }
}

/// What happens when the guest ends.
fn on_end(read: &Values<'_>) -> EndActions {
    let usual = EndActions::default();
    let of = |key: &str, usual| {
        let word = read.get(key).and_then(Read::text);
        word.and_then(|word| OnEnd::from_str(word, false).ok()).unwrap_or(usual)
    };
    EndActions {
        poweroff: of("on_poweroff", usual.poweroff),
        reboot: of("on_reboot", usual.reboot),
        crash: of("on_crash", usual.crash),
        watchdog: of("on_watchdog", usual.watchdog),
        soft_reset: of("on_soft_reset", usual.soft_reset),
    }
}

/// The kind of the guest; `None` if its word is wrong.
fn kind(reader: &mut Reader<'_>, document: &Document) -> Option<Kind> {
    let mut word = |name| match (document.get(name), keys::find(name)) {
        (Some(setting), Some(key)) => reader.read(setting, key.takes).map(Some),
        _ => Some(None),
    };
    let (named, built) = (word("type"), word("builder"));
    let named = named?.and_then(|word| word.text()?.parse::<Kind>().ok());
    let built = built?.map(|word| if word.text() == Some("hvm") { Kind::Hvm } else { Kind::Pv });
    if let (Some(named), Some(built)) = (named, built)
        && named != built
    {
        let place = document.get("builder").and_then(|setting| setting.value.place());
        reader.diagnostics.error(place, format!("builder says {built}, and type says {named}"));
        return None;
    }
    Some(named.or(built).unwrap_or(Kind::Pv))
}

fn unknown(reader: &mut Reader<'_>, setting: &Setting, strict: bool) -> State {
    let key = &setting.key;
    let message = if keys::is_of_xend(key) {
        format!("{key} was a key of xend; xl ignores it")
    } else {
        // The search costs more than all else, and what comes beyond is not shown.
        let near = reader.diagnostics.has_room().then(|| nearest(key, NEAR, keys::all().map(|key| key.name))).flatten();
        match near {
            Some(near) => format!("xl has no key {key}, and ignores it; did you mean {near}?"),
            None => format!("xl has no key {key}, and ignores it"),
        }
    };
    if strict {
        reader.diagnostics.error(setting.place, message);
    } else {
        reader.diagnostics.warn(setting.place, message);
    }
    State::Ignored("xl does not know it")
}

fn known<'a>(
    reader: &mut Reader<'_>,
    setting: &'a Setting,
    key: &'static Key,
    kind: Kind,
    read: &mut Values<'a>,
    others: &mut Values<'a>,
) -> State {
    if let State::Refused(reason) = key.state {
        reader.diagnostics.error(setting.place, format!("{} cannot be used: {reason}", key.name));
        return key.state;
    }
    if key.is_of_4_20 && XEN_4_17 {
        reader.diagnostics.warn(setting.place, format!("{} is of Xen 4.20: xl 4.17 ignores it", key.name));
        return TOO_NEW;
    }
    if let State::Ignored(reason) = key.state {
        reader.diagnostics.warn(setting.place, format!("{} has no effect: {reason}", key.name));
    }
    if let Some(instead) = key.instead {
        reader.diagnostics.warn(setting.place, format!("{} is an old key: the present one is {instead}", key.name));
    }
    let value = reader.read(setting, key.takes);
    if key.name == "bootloader_args" && matches!(value, Some(Read::Text(_))) {
        reader.diagnostics.warn(setting.value.place(), "bootloader_args as one text is an old form: write a list");
    }
    if !key.kinds.has(kind) {
        // A value that turns off what the guest does not have says nothing new.
        let is_off = matches!(value, Some(Read::Flag(false)));
        if !is_off {
            let message = format!(
                "{} is for {} guests, and this is {}: it has no effect",
                key.name,
                key.kinds.words(),
                a_guest(kind)
            );
            reader.diagnostics.warn(setting.place, message);
        }
        if let Some(value) = value {
            others.insert(key.name, value);
        }
        return not_of(kind);
    }
    if let Some(value) = value {
        values::check(reader, setting, &value, kind);
        read.insert(key.name, value);
    }
    key.state
}

/// What several keys say together.
fn check_together(reader: &mut Reader<'_>, document: &Document, read: &Values<'_>, kind: Kind) {
    let key_place = |name| document.get(name).map(|setting| setting.place);
    let value_place = |name| document.get(name).and_then(|setting| setting.value.place());
    let given = |name: &str| document.get(name).is_some();
    let is_empty = |name: &str| read.get(name).and_then(Read::text).is_some_and(str::is_empty);
    if !given("name") {
        reader.diagnostics.error(None, "there is no name: every guest has one");
    }
    if !given("memory") && !given("maxmem") {
        reader.diagnostics.warn(None, "there is no memory: xl gives the guest 32 MiB");
    }
    if let (Some(online), Some(all)) = (number(read, "vcpus"), number(read, "maxvcpus"))
        && online > all
    {
        reader.diagnostics.error(value_place("vcpus"), format!("vcpus is {online}, and maxvcpus is {all}"));
    }
    for name in ["root", "extra"].into_iter().filter(|name| given("cmdline") && given(name)) {
        reader
            .diagnostics
            .warn(key_place(name), format!("{name} has no effect: cmdline is given, and xl takes that alone"));
    }
    if kind == Kind::Pv && given("timer_mode") {
        reader.diagnostics.error(key_place("timer_mode"), "timer_mode is not for PV guests: xl refuses it");
    }
    if let Some(Read::Lists(lists)) = read.get("vnuma")
        && let Ok(nodes) = vnuma::nodes(lists)
        && !nodes.is_empty()
    {
        let vcpus: usize = nodes.iter().map(|node| node.vcpus.len()).sum();
        let mib: u64 = nodes.iter().filter_map(|node| node.memory_mib).sum();
        if number(read, "maxvcpus").is_some_and(|all| usize::try_from(all) != Ok(vcpus)) {
            let message = format!("vnuma has {vcpus} vCPUs, and maxvcpus is another number");
            reader.diagnostics.error(value_place("maxvcpus"), message);
        }
        if number(read, "vcpus").is_some_and(|online| usize::try_from(online).is_ok_and(|online| online > vcpus)) {
            reader.diagnostics.error(value_place("vcpus"), format!("vnuma has {vcpus} vCPUs, and vcpus is more"));
        }
        if number(read, "maxmem").is_some_and(|all| all != mib) {
            let message = format!("vnuma has {mib} MiB, and maxmem is another size");
            reader.diagnostics.error(value_place("maxmem"), message);
        }
    }
    if given("usbversion") {
        for name in ["usb", "usbdevice"].into_iter().filter(|name| given(name)) {
            reader.diagnostics.error(key_place(name), format!("{name} and usbversion exclude each other"));
        }
    }
    let has_kernel = given("kernel") && !is_empty("kernel");
    if kind == Kind::Hvm {
        let boots = has_kernel && !read.get("kernel").and_then(Read::text).is_some_and(libxl_parts::is_hvmloader);
        for name in ["ramdisk", "cmdline", "root", "extra"].into_iter().filter(|name| !boots && given(name)) {
            let message = format!("{name} is for a kernel, and there is none: libxl refuses an HVM guest with this");
            reader.diagnostics.error(key_place(name), message);
        }
        return;
    }
    if has_kernel && given("firmware") {
        reader
            .diagnostics
            .error(key_place("firmware"), format!("kernel and firmware of {} exclude each other", a_guest(kind)));
    }
    if !has_kernel && !given("firmware") && !given("bootloader") {
        let message = format!(
            "there is no kernel: {} starts with kernel, or with what bootloader takes from its disk",
            a_guest(kind)
        );
        reader.diagnostics.error(None, message);
    }
}

fn number(read: &Values<'_>, key: &str) -> Option<u64> {
    read.get(key).and_then(Read::number).and_then(|number| u64::try_from(number).ok())
}

/// The plan by libxl's model, if the file names memory.
fn plan(
    reader: &mut Reader<'_>,
    document: &Document,
    read: &Values<'_>,
    kind: Kind,
    notes: &mut Vec<&'static str>,
) -> Option<Plan> {
    let mib = |key: &str| number(read, key).and_then(|mib| u32::try_from(mib).ok()).map(|mib| Mib(mib).to_kib());
    let (memory, maxmem) = (mib("memory"), mib("maxmem"));
    let target = memory.or(maxmem)?;
    if document.get("vnuma").is_some() {
        notes.push("there is no plan: vnuma sets the sizes of the guest's nodes");
        return None;
    }
    if document.get("shadow_memory").is_some() {
        notes.push("the plan has the paging pool by libxl's formula, and shadow_memory replaces it");
    }
    let flag = |key: &str| read.get(key).and_then(Read::flag).unwrap_or(false);
    let host_devices = |key: &str| matches!(read.get(key), Some(Read::Texts(items)) if !items.is_empty());
    let asked_iommu = matches!(read.get("passthrough").and_then(Read::text), Some(word) if word != "disabled");
    let vcpus = number(read, "maxvcpus").or_else(|| number(read, "vcpus")).unwrap_or(1);
    let request = Request {
        kind,
        model: Model::Libxl,
        static_max: maxmem,
        video: (kind == Kind::Hvm).then(|| mib("videoram").unwrap_or_else(|| video(read))),
        vcpus: u32::try_from(vcpus).ok()?,
        mmio_hole: mib("mmio_hole").and_then(Kib::to_bytes),
        passthrough: host_devices("pci") || asked_iommu,
        shim: flag("pvshim"),
        ..Request::new(target)
    };
    match Plan::new(&request) {
        Ok(plan) => Some(plan),
        Err(error) => {
            let key = match error {
                PlanError::VideoNotPowerOfTwo { .. }
                | PlanError::VideoTooLarge { .. }
                | PlanError::VideoPastHole { .. } => "videoram",
                PlanError::MmioHole { .. } => "mmio_hole",
                _ if memory.is_some() => "memory",
                _ => "maxmem",
            };
            let place = document.get(key).and_then(|setting| setting.value.place());
            reader.diagnostics.error(place, error.to_string());
            None
        }
    }
}

/// The memory of the graphics card where videoram does not say it (`libxl__domain_build_info_setdefault`, Xen 4.17).
fn video(read: &Values<'_>) -> Kib {
    const MIB: u64 = 1024;
    match read.get("vga").and_then(Read::text) {
        Some("stdvga") => DEFAULT_VIDEO,
        Some("qxl") => Kib(128 * MIB),
        Some("none") => Kib::ZERO,
        Some(_) => Kib(8 * MIB),
        None if read.get("stdvga").and_then(Read::flag) == Some(true) => DEFAULT_VIDEO,
        None => Kib(8 * MIB),
    }
}
