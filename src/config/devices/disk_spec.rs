//! The text of a disk, as xl takes it (xl-disk-configuration.5; `libxlu_disk_l.l`, Xen 4.17).
//!
//! Differences from xl: `w!` is an access mode; an empty target, an empty value of a key and an empty place are errors, and so
//! are settings that no x86 guest has.

use std::fmt;
use std::str::FromStr;

use super::disk::{Disk, DiskBackend, DiskFormat};
use super::error::{DeviceSpecError, SpecProblem};
use super::text::Word;
use super::virtual_device::VirtualDevice;

/// The words of a disk.
const WORDS: &str = "format=, vdev=, access=, backendtype=, backend=, script=, devtype=, cdrom, discard, no-discard, \
    direct-io-safe, trusted, untrusted and, at the end, target=";

/// The formats.
const FORMATS: [DiskFormat; 5] =
    [DiskFormat::Raw, DiskFormat::Qcow, DiskFormat::Qcow2, DiskFormat::Vhd, DiskFormat::Qed];

/// What `format` takes.
const TAKES_FORMAT: &str = "raw, qcow, qcow2, vhd, qed, or empty for a CD drive; nothing between two commas is raw";

/// The backends.
const BACKENDS: [DiskBackend; 4] = [DiskBackend::Phy, DiskBackend::Qdisk, DiskBackend::Tap, DiskBackend::Standalone];

/// What `devtype` takes, and the word behind a place.
const TAKES_TYPE: &str = "disk or cdrom";

/// Old prefixes that name a script.
const SCRIPTS: [(&str, &str); 4] =
    [("iscsi:", "block-iscsi"), ("nbd:", "block-nbd"), ("enbd:", "block-enbd"), ("drbd:", "block-drbd")];

/// Old prefixes that set nothing: xl chooses the backend by itself.
const PLAIN: [&str; 7] = ["tapdisk:", "tap:", "tap2:", "aio:", "ioemu:", "file:", "phy:"];

/// Why the words of COLO are refused.
const COLO: &str = "it is for COLO, which keeps a second copy of a running guest and which dombuild does not do";

/// Why the words of virtio are refused.
const VIRTIO: &str = "virtio disks of Xen are for Arm";

/// What has been read.
#[derive(Debug, Default)]
struct Reader<'a> {
    target: Option<Word<'a>>,
    /// `Some(None)`: empty.
    format: Option<(Option<DiskFormat>, Word<'a>)>,
    vdev: Option<VirtualDevice>,
    /// May write, may be shared.
    access: Option<(bool, bool)>,
    /// The access mode was given by its position.
    access_by_position: bool,
    prefixed: bool,
    backend: Option<DiskBackend>,
    backend_domain: Option<Option<String>>,
    script: Option<String>,
    cdrom: bool,
    direct_io_safe: bool,
    discard: Option<bool>,
    trusted: Option<bool>,
}

fn unsupported(word: Word<'_>, reason: &'static str) -> DeviceSpecError {
    word.error(SpecProblem::Unsupported { word: word.text.to_owned(), reason })
}

impl<'a> Reader<'a> {
    fn set_target(&mut self, word: Word<'a>) -> Result<(), DeviceSpecError> {
        if self.target.is_some_and(|target| !target.text.is_empty()) {
            return Err(word.repeated("target"));
        }
        self.target = Some(word);
        Ok(())
    }

    fn set_format(&mut self, word: Word<'a>) -> Result<(), DeviceSpecError> {
        let format = match word.text {
            "" => Some(DiskFormat::Raw),
            "empty" => None,
            name => {
                let known = FORMATS.into_iter().find(|format| format.as_str() == name);
                Some(known.ok_or_else(|| word.bad_value("format", TAKES_FORMAT))?)
            }
        };
        if self.format.is_some_and(|(before, _)| before != format) {
            return Err(word.repeated("format"));
        }
        self.format = Some((format, word));
        Ok(())
    }

    fn set_vdev(&mut self, word: Word<'a>) -> Result<(), DeviceSpecError> {
        word.once(&mut self.vdev, "vdev", word.parse()?)
    }

    fn set_type(&mut self, word: Word<'a>) -> Result<(), DeviceSpecError> {
        self.cdrom = match word.text {
            "cdrom" => true,
            "disk" => false,
            _ => return Err(word.bad_value("devtype", TAKES_TYPE)),
        };
        Ok(())
    }

    /// `VDEV:TYPE`; `false` and nothing done where it is no such text.
    fn set_vdev_and_type(&mut self, word: Word<'a>) -> Result<bool, DeviceSpecError> {
        let Some(colon) = word.text.rfind(':') else { return Ok(false) };
        let (vdev, rest) = word.split(colon);
        self.set_vdev(vdev)?;
        self.set_type(rest.split(1).1)?;
        Ok(true)
    }

    fn set_access(&mut self, word: Word<'a>) -> Result<(), DeviceSpecError> {
        self.access = Some(match word.text {
            "r" | "ro" => (false, false),
            "" | "w" | "rw" => (true, false),
            "w!" => (true, true),
            _ => return Err(word.bad_value("access", "r, ro, w, rw, or w! for an image that may be in use elsewhere")),
        });
        Ok(())
    }

    /// A prefix of the target, if there is one.
    fn prefix(&mut self, rest: Word<'a>) -> Result<Option<Word<'a>>, DeviceSpecError> {
        let Some(colon) = rest.text.find(':') else { return Ok(None) };
        let (prefix, after) = rest.split(colon + 1);
        let name = rest.split(colon).0;
        if FORMATS.iter().any(|format| *format != DiskFormat::Qed && format.as_str() == name.text) {
            self.set_format(name)?;
        } else if let Some((_, script)) = SCRIPTS.iter().find(|(script, _)| *script == prefix.text) {
            name.once(&mut self.script, "script", (*script).to_owned())?;
        } else if !PLAIN.contains(&prefix.text) {
            let lower = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
            let is_word =
                name.text.starts_with(|first: char| first.is_ascii_lowercase()) && name.text.bytes().all(lower);
            // `word:` in front of a letter or a digit can be part of a target, such as HOST:PORT, or of `hdc:cdrom`.
            if is_word && !after.text.bytes().next().is_some_and(lower) {
                let takes = "phy: file: tap: tap2: aio: tapdisk: ioemu: raw: qcow: qcow2: vhd: iscsi: nbd: enbd: drbd: before a target";
                return Err(prefix.error(SpecProblem::UnknownWord { word: prefix.text.to_owned(), takes }));
            }
            return Ok(None);
        }
        self.prefixed = true;
        Ok(Some(after))
    }

    fn keyed(&mut self, key: Word<'a>, value: Word<'a>) -> Result<(), DeviceSpecError> {
        value.printable()?;
        match key.text {
            "format" => self.set_format(value),
            "devtype" => self.set_type(value),
            "access" => self.set_access(value),
            "vdev" => self.set_vdev(value),
            "backend" => key.once(&mut self.backend_domain, "backend", value.backend_domain()?),
            "script" => key.once(&mut self.script, "script", value.value("script")?),
            "backendtype" => {
                let known = BACKENDS.into_iter().find(|backend| backend.as_str() == value.text);
                let backend = known.ok_or_else(|| value.bad_value("backendtype", "phy or qdisk"))?;
                if self.backend.is_some_and(|before| before != backend) {
                    return Err(value.repeated("backendtype"));
                }
                self.backend = Some(backend);
                Ok(())
            }
            "specification" if value.text == "xen" => Ok(()),
            "specification" if value.text == "virtio" => Err(unsupported(value, VIRTIO)),
            "specification" => Err(value.bad_value("specification", "xen")),
            "grant_usage" => Err(unsupported(key, VIRTIO)),
            "colo-host" | "colo-port" | "colo-export" | "active-disk" | "hidden-disk" => Err(unsupported(key, COLO)),
            word if word.starts_with(|first: char| first.is_ascii_alphabetic())
                && word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)) =>
            {
                Err(key.error(SpecProblem::UnknownWord { word: word.to_owned(), takes: WORDS }))
            }
            word => Err(key.error(SpecProblem::NoKey { word: word.to_owned() })),
        }
    }

    fn bare(&mut self, word: Word<'a>) -> Result<(), DeviceSpecError> {
        match word.printable()? {
            "cdrom" => self.cdrom = true,
            "direct-io-safe" => self.direct_io_safe = true,
            "discard" => self.discard = Some(true),
            "no-discard" => self.discard = Some(false),
            "trusted" => self.trusted = Some(true),
            "untrusted" => self.trusted = Some(false),
            "colo" | "no-colo" => return Err(unsupported(word, COLO)),
            _ => return self.positional(word),
        }
        Ok(())
    }

    fn positional(&mut self, word: Word<'a>) -> Result<(), DeviceSpecError> {
        let Some(target) = self.target else {
            return self.set_target(word);
        };
        if !self.prefixed && self.format.is_none() {
            if target.text.is_empty() && self.set_vdev_and_type(word)? {
                self.format = Some((None, word));
                return Ok(());
            }
            return self.set_format(word);
        }
        if self.vdev.is_none() {
            if self.prefixed && FORMATS.iter().any(|format| format.as_str() == word.text) {
                return Err(word.error(SpecProblem::FormatAfterPrefix { word: word.text.to_owned() }));
            }
            return if self.set_vdev_and_type(word)? { Ok(()) } else { self.set_vdev(word) };
        }
        if self.access_by_position {
            return Err(word.error(SpecProblem::TooMany { word: word.text.to_owned() }));
        }
        self.access_by_position = true;
        self.set_access(word)
    }

    fn read(&mut self, spec: &'a str) -> Result<(), DeviceSpecError> {
        let mut rest = Word { text: spec, offset: 0 };
        loop {
            rest = rest.trim_start();
            if rest.text.is_empty() {
                return Ok(());
            }
            if rest.text.starts_with("target=") {
                let (key, value) = rest.split("target=".len());
                if value.text.is_empty() && self.target.is_none() && !self.cdrom {
                    return Err(key.error(SpecProblem::BadValue {
                        key: "target",
                        value: String::new(),
                        takes: "a file, a device or what the script takes",
                    }));
                }
                // libxlutil takes one comma at the end off.
                let value = Word { text: value.text.strip_suffix(',').unwrap_or(value.text), ..value };
                return self.set_target(value);
            }
            if let Some(after) = self.prefix(rest)? {
                rest = after;
                continue;
            }
            let end = rest.text.find([',', '=']).unwrap_or(rest.text.len());
            let (word, after) = rest.split(end);
            rest = if after.text.starts_with('=') {
                let value = after.split(1).1;
                let (value, after) = value.split(value.text.find(',').unwrap_or(value.text.len()));
                self.keyed(word, value)?;
                after.split(1).1
            } else {
                self.bare(word)?;
                after.split(1).1
            };
        }
    }

    fn finish(self, end: Word<'a>) -> Result<Disk, DeviceSpecError> {
        let missing = |key, example| end.error(SpecProblem::Missing { key, example });
        let Some(vdev) = self.vdev else {
            return Err(missing("vdev", "the place of the disk in the guest, such as vdev=xvda"));
        };
        let target = match self.target {
            Some(word) if !word.text.is_empty() => Some(word.value("target")?),
            _ if self.cdrom => None,
            _ => return Err(missing("target", "a file or a block device, such as target=/dev/vg/lv at the end")),
        };
        let format = match (self.format, &target) {
            (Some((None, word)), Some(_)) => {
                let takes = "another format, since there is a target";
                return Err(word.error(SpecProblem::BadValue { key: "format", value: "empty".to_owned(), takes }));
            }
            (Some((Some(format), _)), Some(_)) => format,
            _ => DiskFormat::Raw,
        };
        let (writable, shared) = if self.cdrom { (false, false) } else { self.access.unwrap_or((true, false)) };
        Ok(Disk {
            vdev,
            target,
            format,
            backend: self.backend,
            script: self.script,
            backend_domain: self.backend_domain.flatten(),
            cdrom: self.cdrom,
            writable,
            shared,
            discard: self.discard,
            direct_io_safe: self.direct_io_safe,
            trusted: self.trusted,
        })
    }
}

impl FromStr for Disk {
    type Err = DeviceSpecError;

    fn from_str(spec: &str) -> Result<Self, DeviceSpecError> {
        let mut reader = Reader::default();
        reader.read(spec)?;
        reader.finish(Word { text: "", offset: spec.len() })
    }
}

impl fmt::Display for Disk {
    /// Writes the text that xl and [`Disk::from_str`] read as this disk.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let format = if self.target.is_some() { self.format.as_str() } else { "empty" };
        let access = match (self.writable, self.shared) {
            (false, _) => "ro",
            (true, false) => "rw",
            (true, true) => "w!",
        };
        write!(f, "format={format},vdev={},access={access}", self.vdev)?;
        if let Some(backend) = self.backend {
            write!(f, ",backendtype={backend}")?;
        }
        for (key, value) in [("backend", &self.backend_domain), ("script", &self.script)] {
            if let Some(value) = value {
                write!(f, ",{key}={value}")?;
            }
        }
        let words = [
            (self.cdrom, "cdrom"),
            (self.direct_io_safe, "direct-io-safe"),
            (self.discard == Some(true), "discard"),
            (self.discard == Some(false), "no-discard"),
            (self.trusted == Some(true), "trusted"),
            (self.trusted == Some(false), "untrusted"),
        ];
        for (_, word) in words.iter().filter(|(given, _)| *given) {
            write!(f, ",{word}")?;
        }
        match &self.target {
            // The reader takes one comma at the end off.
            Some(target) if target.ends_with(',') => write!(f, ",target={target},"),
            Some(target) => write!(f, ",target={target}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
