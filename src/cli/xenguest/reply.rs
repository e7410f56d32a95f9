//! The helper's answer: one line on the control descriptor, which its caller parses.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;

use crate::builder::image::BuildResult;
use crate::cli::advice::advice_without_flags;
use crate::error::{Error, Failure};
use crate::memory::Kind;
use crate::os::{fd, one_line};
use crate::payload::error::FileError;
use crate::stage::Stage;

/// A write of so many bytes into a pipe happens as a whole (`PIPE_BUF` of Linux, pipe(7)).
const ATOMIC: usize = 4096;

/// Where the answer goes.
pub(super) enum Control {
    /// The caller's pipe.
    Pipe(File),
    /// Standard output, where the caller named none or this.
    Stdout,
    /// Standard error, where the caller named that.
    Stderr,
}

impl Control {
    /// The descriptor that a command line names which is wrong elsewhere.
    pub(super) fn of_words(words: &[OsString]) -> Self {
        let named = |word: &OsString| matches!(word.to_str(), Some("-controloutfd" | "--controloutfd"));
        let number = words.iter().position(named).and_then(|index| words.get(index + 1)?.to_str()?.parse().ok());
        Self::take(number).unwrap_or(Self::Stdout)
    }

    /// The descriptor of this number.
    ///
    /// # Errors
    /// If it is not open, or not for writing.
    pub(super) fn take(number: Option<i32>) -> Result<Self, String> {
        match number {
            None | Some(1) => Ok(Self::Stdout),
            Some(2) => Ok(Self::Stderr),
            Some(number) => {
                let taken = fd::take(number).map_err(|error| format!("-controloutfd: {error}"))?;
                if !taken.access.writes() {
                    return Err(format!("-controloutfd: descriptor {number} is open for reading alone"));
                }
                Ok(Self::Pipe(File::from(taken.fd)))
            }
        }
    }

    /// Sends one line, in one write.
    ///
    /// # Errors
    /// If the reader has gone.
    pub(super) fn send(&mut self, line: &str) -> io::Result<()> {
        let line = format!("{}\n", one_line(line.trim_end_matches('\n')));
        match self {
            Self::Pipe(pipe) => pipe.write_all(line.as_bytes()),
            Self::Stdout => io::stdout().write_all(line.as_bytes()).and_then(|()| io::stdout().flush()),
            Self::Stderr => io::stderr().write_all(line.as_bytes()),
        }
    }
}

/// The descriptor that commands come on. No build has any, but it must be one, and no program started from here may
/// have it.
///
/// # Errors
/// If it is not open.
pub(super) fn take_control_in(number: Option<i32>) -> Result<Option<OwnedFd>, String> {
    match number {
        Some(0) => io::stdin().as_fd().try_clone_to_owned().map(Some).map_err(|error| format!("-controlinfd: {error}")),
        None | Some(1..=2) => Ok(None),
        Some(number) => fd::take(number).map(|taken| Some(taken.fd)).map_err(|error| format!("-controlinfd: {error}")),
    }
}

/// The line for a built guest: two numbers, and for PV its ABI.
pub(super) fn result_line(rings: BuildResult, protocol: Option<&str>) -> String {
    let protocol = protocol.map(|protocol| format!(" {protocol}")).unwrap_or_default();
    format!("result:{} {}{protocol}\n", rings.store_gfn.0, rings.console_gfn.0)
}

/// The line for a failure before anything was built: of the helper itself.
pub(super) fn usage_line(message: &str) -> String {
    error_line(&format!("xenguest: {message}"))
}

/// The line for a failed build: a word that xenopsd knows, the errno, and the whole cause.
///
/// xenopsd raises a typed exception where the first word is `hvm_build`, `hvm_build_mem`, `hvm_build_params`,
/// `xc_dom_allocate` or `xc_dom_linux_build` and the second a number (`receive_success`,
/// ocaml/xenopsd/xc/xenguestHelper.ml).
pub(super) fn failure_line(kind: Kind, failure: &Failure) -> String {
    let (word, code) = (word_of(kind, failure), code_of(&failure.error));
    let advice = advice_without_flags(&failure.error).map(|advice| format!("; {advice}")).unwrap_or_default();
    error_line(&format!("{word} {code} {failure}{advice}"))
}

/// The line for a failed migration: the call, the errno, and the whole cause.
pub(super) fn migration_failure_line(call: &str, failure: &Failure) -> String {
    error_line(&format!("{call} {} {failure}", code_of(&failure.error)))
}

fn word_of(kind: Kind, failure: &Failure) -> &'static str {
    match (&failure.error, failure.stage) {
        (Error::Xen(error), _) if error.call == "xc_dom_allocate" => "xc_dom_allocate",
        _ if kind == Kind::Pv => "xc_dom_linux_build",
        (
            Error::NotEnoughMemory { .. }
            | Error::File(FileError::NotEnoughDom0Memory { .. })
            | Error::LimitTooLow { .. }
            | Error::Plan(_),
            _,
        )
        | (_, Stage::Populate) => "hvm_build_mem",
        (_, Stage::PlatformParams | Stage::Scheduling | Stage::HvmInfo | Stage::HvmParams | Stage::CpuidPolicy) => {
            "hvm_build_params"
        }
        _ => "hvm_build",
    }
}

fn code_of(error: &Error) -> i32 {
    let errno = match error {
        Error::NotEnoughMemory { .. } | Error::File(FileError::NotEnoughDom0Memory { .. }) => Errno::ENOMEM,
        Error::LimitTooLow { .. } => Errno::E2BIG,
        Error::NoSuchDomain(_) => Errno::ESRCH,
        Error::Plan(_)
        | Error::BadConfig(_)
        | Error::BadConfigFile { .. }
        | Error::Config(_)
        | Error::Domain(_)
        | Error::Host(_) => Errno::EINVAL,
        Error::BadFile { .. } | Error::File(FileError::Unusable { .. } | FileError::NotInstalled { .. }) => {
            Errno::ENOEXEC
        }
        Error::Xen(error) => error.errno.unwrap_or(Errno::EINVAL),
        _ => Errno::EIO,
    };
    errno as i32
}

/// One line, whatever stands in the message, and short enough to arrive whole.
fn error_line(message: &str) -> String {
    let message = message.trim().replace(['\n', '\r', '\0'], " ");
    let mut line = format!("error:{}", one_line(&message));
    if line.len() >= ATOMIC {
        let end = (0..ATOMIC - 1).rev().find(|end| line.is_char_boundary(*end)).unwrap_or(0);
        line.truncate(end);
    }
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::AtStage;
    use crate::memory::{Gfn, Kib, Pages, PlanError};
    use crate::xen::{DomId, PlacedModules, XenError};

    fn xen(call: &'static str, errno: Option<Errno>) -> Error {
        XenError { call, arguments: "domid 7".to_owned(), errno, detail: None }.into()
    }

    fn line(kind: Kind, stage: Stage, error: Error) -> String {
        failure_line(kind, &Err::<(), _>(error).at(stage).expect_err("it is one"))
    }

    #[test]
    fn results_to_the_byte() {
        let rings = BuildResult {
            store_gfn: Gfn(0xfeffc),
            console_gfn: Gfn(0xfefff),
            modules: PlacedModules::default(),
            elsewhere: Pages(0),
        };
        assert_eq!(result_line(rings, None), "result:1044476 1044479\n");
        assert_eq!(result_line(rings, Some("x86_64-abi")), "result:1044476 1044479 x86_64-abi\n");
    }

    /// Word and number of each error, as xenopsd takes them apart: at spaces, with a number where it knows the word.
    #[test]
    fn every_word_and_its_number() {
        let memory = || Error::NotEnoughMemory {
            required: Kib(2048),
            free: Kib(1024),
            claims: None,
            relief: crate::error::Relief::default(),
        };
        let dom0 = || {
            Error::File(FileError::NotEnoughDom0Memory {
                what: "kernel",
                path: "/x".into(),
                required: Kib(2048),
                available: Kib(1024),
                reserve: Kib(512),
            })
        };
        let limit =
            || Error::LimitTooLow { domid: DomId::new(7).expect("a domid"), required: Kib(2048), limit: Kib(1024) };
        let config = || Error::BadConfig("platform/nx is \"x\"".to_owned());
        let file =
            || Error::File(FileError::Unusable { what: "kernel", path: "/x".into(), reason: "is empty".to_owned() });
        for (kind, stage, error, word, number) in [
            (Kind::Hvm, Stage::CheckInput, memory(), "hvm_build_mem", 12),
            (Kind::Pvh, Stage::CheckInput, dom0(), "hvm_build_mem", 12),
            (Kind::Pv, Stage::CheckInput, dom0(), "xc_dom_linux_build", 12),
            (Kind::Pvh, Stage::CheckInput, limit(), "hvm_build_mem", 7),
            (Kind::Hvm, Stage::CheckInput, Error::Plan(PlanError::NoVcpus), "hvm_build_mem", 22),
            (Kind::Hvm, Stage::Populate, xen("xc_dom_boot_mem_init", Some(Errno::EBUSY)), "hvm_build_mem", 16),
            (Kind::Hvm, Stage::PlatformParams, xen("xc_hvm_param_set", Some(Errno::EEXIST)), "hvm_build_params", 17),
            (Kind::Hvm, Stage::Scheduling, xen("xc_vcpu_setaffinity", Some(Errno::EINVAL)), "hvm_build_params", 22),
            (Kind::Hvm, Stage::HvmInfo, xen("xc_map_foreign_range", None), "hvm_build_params", 22),
            (Kind::Pvh, Stage::HvmParams, xen("xc_hvm_param_get", Some(Errno::EPERM)), "hvm_build_params", 1),
            (Kind::Pvh, Stage::CpuidPolicy, config(), "hvm_build_params", 22),
            (Kind::Hvm, Stage::CheckInput, config(), "hvm_build", 22),
            (Kind::Hvm, Stage::CheckInput, file(), "hvm_build", 8),
            (Kind::Hvm, Stage::CreateDomain, Error::NoSuchDomain("7".to_owned()), "hvm_build", 3),
            (Kind::Hvm, Stage::Xenstore, xen("xs_write", Some(Errno::EACCES)), "hvm_build", 13),
            (Kind::Hvm, Stage::LoadImage, Error::Internal("odd".to_owned()), "hvm_build", 5),
            (Kind::Hvm, Stage::ParseImage, xen("xc_dom_allocate", Some(Errno::ENOMEM)), "xc_dom_allocate", 12),
            (Kind::Pv, Stage::ParseImage, xen("xc_dom_allocate", Some(Errno::ENOMEM)), "xc_dom_allocate", 12),
            (Kind::Pv, Stage::Populate, memory(), "xc_dom_linux_build", 12),
            (Kind::Pv, Stage::CheckInput, config(), "xc_dom_linux_build", 22),
        ] {
            let line = line(kind, stage, error);
            let words: Vec<&str> = line.strip_prefix("error:").expect("its beginning").split(' ').collect();
            assert_eq!((words[0], words[1].parse()), (word, Ok(number)), "{line}");
            assert_eq!(words[2], format!("{stage}:"), "{line}");
            assert!(line.ends_with('\n') && line.matches('\n').count() == 1, "{line}");
        }
        assert_eq!(usage_line("no `-mode' option specified"), "error:xenguest: no `-mode' option specified\n");
    }

    #[test]
    fn a_message_cannot_speak_to_a_terminal() {
        assert_eq!(usage_line("a\x1b[2J\tb\u{202e}"), "error:xenguest: a\\u{1b}[2J\\tb\\u{202e}\n");
    }

    #[test]
    fn one_line_that_arrives_whole() {
        let long = "ä\n%s\r".repeat(5000);
        let line = line(Kind::Hvm, Stage::CheckInput, Error::BadConfig(long));
        assert!(line.len() <= ATOMIC && line.len() > ATOMIC - 4, "{}", line.len());
        assert!(line.starts_with("error:hvm_build 22 check-input: ä %s ") && line.matches('\n').count() == 1);
    }
}
