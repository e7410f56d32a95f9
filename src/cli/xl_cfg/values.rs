//! Checks of single values beyond their types.

use uuid::Uuid;

use super::cpu_list;
use super::device_texts::{self, Wrong};
use super::document::Setting;
use super::keys::a_guest;
use super::libxl_parts::is_hvmloader;
use super::reader::{Read, Reader};
use super::vnuma;
use crate::config::cmdline::CmdlineOf;
use crate::config::cpuid_policy;
use crate::config::devices::framebuffer::Framebuffer;
use crate::config::devices::sound::SoundCard;
use crate::config::error::ConfigError;
use crate::config::name::DomainName;
use crate::config::platform::Platform;
use crate::memory::Kind;
use crate::xen::CpuidRules;

/// Checks the value of a setting, which has the type of its key, for a guest of this kind.
pub(super) fn check(reader: &mut Reader<'_>, setting: &Setting, value: &Read<'_>, kind: Kind) {
    match (setting.key.as_str(), value) {
        (_, Read::Texts(items)) => check_list(reader, setting, items),
        (key, Read::Lists(lists)) => check_lists(reader, key, lists),
        (key, Read::Text(text)) => check_text(reader, setting, key, text, kind),
        ("hap", Read::Flag(false)) => {
            refuse(reader, setting, "hap = 0 asks for shadow paging, and dombuild builds under HAP only")
        }
        ("device_model_stubdomain_override", Read::Flag(true)) => {
            refuse(reader, setting, "dombuild runs QEMU in dom0, and in no stub domain");
        }
        _ => {}
    }
}

fn refuse(reader: &mut Reader<'_>, setting: &Setting, message: impl Into<String>) {
    reader.diagnostics.error(setting.value.place(), message);
}

fn check_list(reader: &mut Reader<'_>, setting: &Setting, items: &[(String, &super::value::Text)]) {
    match setting.key.as_str() {
        "cpus" | "cpus_soft" => {
            for (item, text) in items {
                if let Err((span, problem)) = cpu_list::check(item) {
                    reader.error_in(text, span, format!("{}: {problem}", setting.key));
                }
            }
        }
        "cpuid" => {
            let mut rules = CpuidRules::default();
            for (item, text) in items {
                if let Err(error) = cpuid_policy::add_registers(&mut rules, item) {
                    reader.error_in(text, error.span.clone(), format!("cpuid: {error}"));
                }
            }
        }
        "usbctrl" => check_texts(reader, setting, items, device_texts::usbctrl),
        "usbdev" => check_texts(reader, setting, items, device_texts::usbdev),
        "vkb" => check_texts(reader, setting, items, device_texts::vkb),
        "pci" => check_texts(reader, setting, items, device_texts::pci),
        "ioports" => check_texts(reader, setting, items, device_texts::ioports),
        "irqs" => check_texts(reader, setting, items, device_texts::irq),
        "iomem" => check_texts(reader, setting, items, device_texts::iomem),
        "smbios" => check_texts(reader, setting, items, device_texts::smbios),
        "mca_caps" => {
            for (item, text) in items.iter().filter(|(item, _)| item != "lmce") {
                reader.error_in(text, 0..item.len(), format!("mca_caps: {item:?} is no capability; there is lmce"));
            }
        }
        // As in xl, an empty list asks for nothing.
        "viridian" if !items.is_empty() => {
            let words: Vec<&str> = items.iter().map(|(word, _)| word.as_str()).collect();
            if let Err(ConfigError::BadSetting { reason, .. }) =
                Platform::asked(&[format!("viridian={}", words.join(","))])
            {
                refuse(reader, setting, format!("viridian: {reason}"));
            }
        }
        _ => {}
    }
}

/// Checks each text of a list by its own parser.
fn check_texts<T>(
    reader: &mut Reader<'_>,
    setting: &Setting,
    items: &[(String, &super::value::Text)],
    read: fn(&str) -> Result<T, Wrong>,
) {
    for (item, text) in items {
        if let Err(Wrong { span, message }) = read(item) {
            reader.error_in(text, span, format!("{}: {message}", setting.key));
        }
    }
}

fn check_lists(reader: &mut Reader<'_>, key: &str, lists: &[Vec<(String, &super::value::Text)>]) {
    match key {
        "vnuma" => {
            if let Err((text, message)) = vnuma::nodes(lists) {
                reader.error_in(text, 0..text.bytes().len(), message);
            }
        }
        "vsnd" => {
            for words in lists {
                let whole = words.iter().map(|(word, _)| word.as_str()).collect::<Vec<_>>().join(",");
                let Err(error) = whole.parse::<SoundCard>() else { continue };
                // The word that has the place of the error.
                let mut start = 0_usize;
                let place = words.iter().find(|(word, _)| {
                    let end = start.saturating_add(word.len());
                    let is_here = error.span.start <= end;
                    start = if is_here { start } else { end.saturating_add(1) };
                    is_here
                });
                match place.or(words.last()) {
                    Some((_, text)) => {
                        let span = error.span.start.saturating_sub(start)..error.span.end.saturating_sub(start);
                        reader.error_in(text, span, format!("vsnd: {error}"));
                    }
                    None => reader.diagnostics.error(None, format!("vsnd: {error}")),
                }
            }
        }
        _ => {}
    }
}

fn check_text(reader: &mut Reader<'_>, setting: &Setting, key: &str, text: &str, kind: Kind) {
    match key {
        "name" => {
            if let Err(reason) = text.parse::<DomainName>() {
                refuse(reader, setting, format!("name: {reason}"));
            }
        }
        "uuid" => match Uuid::try_parse(text).ok().filter(|_| text.len() == 36) {
            None => refuse(reader, setting, format!("uuid is {text:?}; it takes 8-4-4-4-12 hexadecimal digits")),
            Some(uuid) if uuid.is_nil() => refuse(reader, setting, "the nil UUID belongs to dom0"),
            Some(_) => {}
        },
        "rdm" => {
            if let (Err(Wrong { span, message }), Some(whole)) = (device_texts::rdm(text), setting.text()) {
                reader.error_in(whole, span, message);
            }
        }
        "bootloader_args" if text.trim().is_empty() => {
            refuse(reader, setting, "bootloader_args has no arguments: leave it out")
        }
        "cpus" | "cpus_soft" => {
            if let (Err((span, problem)), Some(whole)) = (cpu_list::check(text), setting.text()) {
                reader.error_in(whole, span, format!("{key}: {problem}"));
            }
        }
        "cpuid" => {
            if let (Err(error), Some(whole)) =
                (cpuid_policy::add_features(&mut CpuidRules::default(), text), setting.text())
            {
                reader.error_in(whole, error.span.clone(), format!("cpuid: {error}"));
            }
        }
        "cmdline" | "root" | "extra" if kind != Kind::Hvm => {
            if let Err(reason) = CmdlineOf::Kernel(kind).check(key, text.len()) {
                refuse(reader, setting, reason);
            }
        }
        "kernel" if kind == Kind::Hvm && is_hvmloader(text) => {
            let message = "xl ignores a kernel that is hvmloader: leave it out, or give firmware_override";
            reader.diagnostics.warn(setting.value.place(), message);
        }
        "firmware" => check_firmware(reader, setting, text, kind),
        "bios" if text == "rombios" => {
            refuse(reader, setting, "rombios needs QEMU's old fork, qemu-xen-traditional, which Debian does not have");
        }
        "device_model_version" if text == "qemu-xen-traditional" => {
            refuse(
                reader,
                setting,
                "Debian does not have qemu-xen-traditional, QEMU's old fork: use qemu-xen, or leave it out",
            );
        }
        "tsc_mode" if text == "native_paravirt" => {
            refuse(reader, setting, "Xen no longer has native_paravirt: use default");
        }
        "vnclisten" => check_listen(reader, setting, text),
        "vncpasswd" if text.len() > 8 => {
            refuse(reader, setting, "VNC compares 8 bytes of a password: give one of 1 to 8 bytes");
        }
        "boot" => {
            let mut seen = String::new();
            for letter in text.chars() {
                if !"acdn".contains(letter) || seen.contains(letter) {
                    let message = format!("boot is {text:?}; it takes each of the letters a, c, d and n once at most");
                    refuse(reader, setting, message);
                    return;
                }
                seen.push(letter);
            }
        }
        _ => {}
    }
}

fn check_firmware(reader: &mut Reader<'_>, setting: &Setting, text: &str, kind: Kind) {
    match (kind, text) {
        (Kind::Hvm, "rombios") => {
            refuse(reader, setting, "rombios needs QEMU's old fork, qemu-xen-traditional, which Debian does not have");
        }
        (Kind::Hvm, "seabios" | "ovmf" | "uefi" | "bios") | (Kind::Pvh | Kind::Pv, "pvgrub32" | "pvgrub64") => {}
        (Kind::Hvm, path) if path.starts_with('/') => {}
        (Kind::Hvm, _) => {
            refuse(
                reader,
                setting,
                format!("firmware is {text:?}; it takes seabios, ovmf, uefi, bios, or an absolute path"),
            );
        }
        (Kind::Pvh | Kind::Pv, _) => {
            refuse(
                reader,
                setting,
                format!("firmware of {} is {text:?}; it takes pvgrub32 or pvgrub64", a_guest(kind)),
            );
        }
    }
}

/// The words of VNC are those of a framebuffer.
fn check_listen(reader: &mut Reader<'_>, setting: &Setting, text: &str) {
    const KEY: &str = "vnclisten=";
    if text.is_empty() {
        let message =
            "vnclisten is empty: QEMU may listen on every address then; give 127.0.0.1, 0.0.0.0 or another one";
        reader.diagnostics.warn(setting.value.place(), message);
        return;
    }
    let spec = format!("{KEY}{text}");
    let problem = match spec.parse::<Framebuffer>() {
        _ if text.contains([',', ' ']) => "it takes an IP address, such as 127.0.0.1 or 0.0.0.0".to_owned(),
        Ok(_) => return,
        Err(error) => error.to_string(),
    };
    refuse(reader, setting, format!("vnclisten: {problem}"));
}
