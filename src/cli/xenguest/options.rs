//! The command line of XenServer's helper: `getopt_long_only`'s words, one dash or two.

use std::ffi::{CString, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// What is asked of the helper. Numbers are those of the command line; what is missing is `None`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Options {
    pub(super) mode: Option<String>,
    pub(super) control_in: Option<i32>,
    pub(super) control_out: Option<i32>,
    pub(super) debug_log: Option<PathBuf>,
    pub(super) image: Option<PathBuf>,
    /// The kernel's first, then one for each module.
    pub(super) cmdlines: Vec<CString>,
    pub(super) ramdisk: Option<PathBuf>,
    pub(super) modules: Vec<PathBuf>,
    pub(super) domid: Option<i32>,
    pub(super) store_port: Option<i32>,
    pub(super) store_domid: i32,
    pub(super) console_port: Option<i32>,
    pub(super) console_domid: i32,
    pub(super) features: Option<CString>,
    pub(super) flags: i32,
    pub(super) mem_max_mib: Option<i32>,
    pub(super) mem_start_mib: Option<i32>,
    pub(super) mem_pnode: Option<i32>,
    pub(super) pci_passthrough: Option<String>,
    pub(super) vgpu: bool,
    pub(super) force: bool,
    pub(super) debug: bool,
    /// The stream of a migration.
    pub(super) stream: Option<i32>,
    pub(super) live: bool,
    pub(super) supports: Option<String>,
    /// Ours: where the original helper is.
    pub(super) fallback: Option<PathBuf>,
    /// Ours, for tests: another /sys.
    pub(super) sysfs: Option<PathBuf>,
}

/// Options that the original has not: they have no short forms, lest they make one of its ambiguous.
const OURS: [&str; 2] = ["fallback", "sysfs"];

/// Every option, and whether a value follows.
const OPTIONS: &[(&str, bool)] = &[
    ("mode", true),
    ("controlinfd", true),
    ("controloutfd", true),
    ("debuglog", true),
    ("fake", false),
    ("fd", true),
    ("image", true),
    ("cmdline", true),
    ("ramdisk", true),
    ("domid", true),
    ("live", false),
    ("debug", false),
    ("store_port", true),
    ("store_domid", true),
    ("console_port", true),
    ("console_domid", true),
    ("features", true),
    ("flags", true),
    ("mem_max_mib", true),
    ("mem_start_mib", true),
    ("mem_pnode", true),
    ("fork", false),
    ("no_incr_generationid", false),
    ("supports", true),
    ("pci_passthrough", true),
    ("force", false),
    ("vgpu", false),
    ("module", true),
    ("dm", true),
    ("fallback", true),
    ("sysfs", true),
];

impl Options {
    /// Parses what stands behind the program's name.
    ///
    /// Words that are no options are passed over, and `--` ends them, as getopt has it; an option that comes twice counts
    /// by its last value.
    ///
    /// # Errors
    /// What is wrong, and with which word.
    pub(super) fn parse(words: &[OsString]) -> Result<Self, String> {
        let mut options = Self::default();
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let bytes = word.as_bytes();
            if bytes == b"--" {
                break;
            }
            let Some(rest) = bytes.strip_prefix(b"--").or_else(|| bytes.strip_prefix(b"-")).filter(|_| bytes != b"-")
            else {
                continue;
            };
            let (name, attached) = match rest.iter().position(|byte| *byte == b'=') {
                Some(equals) => (&rest[..equals], Some(&rest[equals + 1..])),
                None => (rest, None),
            };
            let (name, takes_value) = find(name).ok_or_else(|| format!("invalid command line '{}'", word.display()))?;
            let value = match (takes_value, attached) {
                (false, None) => OsString::new(),
                (false, Some(_)) => return Err(format!("-{name} takes no value, but got '{}'", word.display())),
                (true, Some(value)) => OsString::from_vec(value.to_vec()),
                (true, None) => words.next().cloned().ok_or_else(|| format!("-{name} needs a value"))?,
            };
            options.put(name, value)?;
        }
        Ok(options)
    }

    fn put(&mut self, name: &'static str, value: OsString) -> Result<(), String> {
        match name {
            "mode" => self.mode = Some(text(name, value)?),
            "controlinfd" => self.control_in = Some(integer(name, value)?),
            "controloutfd" => self.control_out = Some(integer(name, value)?),
            "debuglog" => self.debug_log = Some(value.into()),
            "image" => self.image = Some(value.into()),
            "cmdline" => self.cmdlines.push(c_string(name, value)?),
            "ramdisk" => self.ramdisk = Some(value.into()),
            "module" => self.modules.push(value.into()),
            "domid" => self.domid = Some(integer(name, value)?),
            "store_port" => self.store_port = Some(integer(name, value)?),
            "store_domid" => self.store_domid = integer(name, value)?,
            "console_port" => self.console_port = Some(integer(name, value)?),
            "console_domid" => self.console_domid = integer(name, value)?,
            "features" => self.features = Some(c_string(name, value)?),
            "flags" => self.flags = integer(name, value)?,
            "mem_max_mib" => self.mem_max_mib = Some(integer(name, value)?),
            "mem_start_mib" => self.mem_start_mib = Some(integer(name, value)?),
            "mem_pnode" => self.mem_pnode = Some(integer(name, value)?),
            "pci_passthrough" => self.pci_passthrough = Some(text(name, value)?),
            "vgpu" => self.vgpu = true,
            "force" => self.force = true,
            "debug" => self.debug = true,
            "supports" => self.supports = Some(text(name, value)?),
            "fallback" => self.fallback = Some(value.into()),
            "sysfs" => self.sysfs = Some(value.into()),
            "fd" => self.stream = Some(integer(name, value)?),
            "live" => self.live = true,
            // Of migration, or long without a meaning.
            _ => {}
        }
        Ok(())
    }
}

/// The option of this name, or the one that it is the beginning of, where there is only one.
fn find(name: &[u8]) -> Option<(&'static str, bool)> {
    let exact = OPTIONS.iter().find(|(option, _)| option.as_bytes() == name);
    let begins = |option: &str| !name.is_empty() && option.as_bytes().starts_with(name) && !OURS.contains(&option);
    let mut begun = OPTIONS.iter().filter(|(option, _)| begins(option));
    match (exact, begun.next(), begun.next()) {
        (Some(option), ..) | (None, Some(option), None) => Some(*option),
        _ => None,
    }
}

/// A decimal number with all of its word. The original let an overflow and an empty word through.
fn integer(name: &str, value: OsString) -> Result<i32, String> {
    let parsed = value.to_str().and_then(|text| text.trim_start().parse().ok());
    parsed.ok_or_else(|| format!("'{}' is not a valid integer (-{name})", value.display()))
}

fn text(name: &str, value: OsString) -> Result<String, String> {
    value.into_string().map_err(|value| format!("-{name} '{}' is no text", value.display()))
}

fn c_string(name: &str, value: OsString) -> Result<CString, String> {
    // execve cannot pass one on, but the library's callers could.
    CString::new(value.into_vec()).map_err(|_| format!("-{name} has a NUL byte in it"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(words: &[&str]) -> Result<Options, String> {
        Options::parse(&words.iter().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn what_xenopsd_says() {
        let line = "-controloutfd 8 -controlinfd 9 -mode hvm_build -image /usr/libexec/xen/boot/hvmloader -vgpu -domid 7 \
                    -store_port 3 -store_domid 0 -console_port 4 -console_domid 0 -mem_max_mib 4080 -mem_start_mib 2032 \
                    -mem_pnode 1 --force -pci_passthrough 0000:00:1f.0,0000:03:00.1";
        let words: Vec<&str> = line.split_whitespace().collect();
        assert_eq!(
            parse(&words).expect("good"),
            Options {
                mode: Some("hvm_build".to_owned()),
                control_in: Some(9),
                control_out: Some(8),
                image: Some("/usr/libexec/xen/boot/hvmloader".into()),
                domid: Some(7),
                store_port: Some(3),
                console_port: Some(4),
                mem_max_mib: Some(4080),
                mem_start_mib: Some(2032),
                mem_pnode: Some(1),
                pci_passthrough: Some("0000:00:1f.0,0000:03:00.1".to_owned()),
                vgpu: true,
                force: true,
                ..Options::default()
            }
        );
        let pvh = parse(&[
            "-mode",
            "pvh_build",
            "-cmdline",
            "a b",
            "-features",
            "",
            "-flags",
            "0",
            "-module",
            "/m",
            "-cmdline",
            "c",
        ]);
        let pvh = pvh.expect("good");
        assert_eq!(pvh.cmdlines, [c"a b".to_owned(), c"c".to_owned()]);
        assert_eq!((pvh.modules, pvh.features), (vec![PathBuf::from("/m")], Some(CString::default())));
    }

    #[test]
    fn every_option_is_known_by_one_dash_and_by_two_and_by_an_equals_sign() {
        for (name, takes_value) in OPTIONS {
            for dashes in ["-", "--"] {
                let option = format!("{dashes}{name}");
                if *takes_value {
                    assert!(parse(&[&option, "1"]).is_ok(), "{option}");
                    assert!(parse(&[&format!("{option}=1")]).is_ok(), "{option}=1");
                    let error = parse(&[&option]).expect_err(&option);
                    assert_eq!(error, format!("-{name} needs a value"));
                } else {
                    assert!(parse(&[&option]).is_ok(), "{option}");
                    assert!(parse(&[&format!("{option}=1")]).is_err(), "{option}=1");
                }
            }
        }
    }

    #[test]
    fn beginnings_and_what_is_no_option() {
        assert_eq!(parse(&["-dom", "5"]).expect("one begins so").domid, Some(5));
        assert_eq!(parse(&["-mem_s=6"]).expect("one begins so").mem_start_mib, Some(6));
        assert!(parse(&["-f"]).is_err(), "fake, fd, features …");
        assert!(parse(&["-fa"]).is_ok(), "fake alone: ours has no short form");
        assert!(parse(&["-fall", "x"]).is_err());
        assert_eq!(parse(&["-fo"]), Err("invalid command line '-fo'".to_owned()), "fork, force");
        assert_eq!(parse(&["-nonsense"]), Err("invalid command line '-nonsense'".to_owned()));
        assert_eq!(parse(&["-=x"]), Err("invalid command line '-=x'".to_owned()));
        let passed_over = parse(&["word", "-", "-domid", "1", "--", "-nonsense"]).expect("good");
        assert_eq!(passed_over, Options { domid: Some(1), ..Options::default() });
        assert_eq!(parse(&["-domid", "1", "-domid", "2"]).expect("good").domid, Some(2));
    }

    #[test]
    fn numbers_are_whole_words() {
        for word in ["", "x", "1x", "0x10", "99999999999", "1 "] {
            let error = parse(&["-domid", word]).expect_err(word);
            assert_eq!(error, format!("'{word}' is not a valid integer (-domid)"));
        }
        assert_eq!(parse(&["-flags", "-1"]).expect("as strtol has it").flags, -1);
        assert_eq!(parse(&["-flags", " +5"]).expect("as strtol has it").flags, 5);
    }

    proptest! {
        #[test]
        fn no_command_line_panics(words in proptest::collection::vec(
            prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..20),
                (0..OPTIONS.len(), 0..3_usize).prop_map(|(index, dashes)| {
                    [&b"--"[..dashes.min(2)], OPTIONS[index].0.as_bytes()].concat()
                }),
                "-{0,3}[a-z_]{0,12}=?[0-9a-z]{0,5}".prop_map(String::into_bytes),
            ],
            0..12,
        )) {
            let words: Vec<OsString> = words.into_iter().map(OsString::from_vec).collect();
            let _ = Options::parse(&words);
        }
    }
}
