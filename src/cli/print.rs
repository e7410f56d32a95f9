//! Output for people and programs: the message and the code of an error, and the two ways to print.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process;

use anyhow::Context;
use log::Level;
use nix::errno::Errno;
use serde::Serialize;
use serde_json::{Value, json};

use super::advice::advice;
use super::events::Events;
pub use super::exit_codes::Code;
use super::{call_advice, plan_advice};
use crate::error::bootloader::BootloaderError;
use crate::error::damage::Damage;
use crate::error::device::DeviceError;
use crate::error::device_user::DeviceUserError;
use crate::error::host::HostError;
use crate::error::migration::{FileProblem, MigrationError};
use crate::error::pci::PciError;
use crate::error::{Error, Failure};
use crate::logging;
use crate::os::shared_file::is_trusted;
use crate::os::{self, lines, one_line};
use crate::payload::error::FileError;
use crate::xen::XenError;

/// The code of an error: every error has one line here.
#[must_use]
pub fn code_of(error: &Error) -> Code {
    match error {
        Error::Internal(_) | Error::Io { .. } | Error::Json(_) | Error::NotWholeMib(_) => Code::INTERNAL,
        Error::Host(HostError::NotADomid { .. } | HostError::PagingPool { .. } | HostError::Userdata { .. }) => {
            Code::INTERNAL
        }
        Error::Host(HostError::NodesFull { .. } | HostError::NodeRanOut { .. }) => Code::NOT_ENOUGH_MEMORY,
        Error::DeviceModel { .. } | Error::DeviceMemory { .. } => Code::DEVICE_MODEL_FAILED,
        Error::Plan(_) => Code::BAD_MEMORY,
        Error::BadFile { .. } => Code::BAD_FILE,
        Error::Bootloader(BootloaderError::TimedOut { .. }) => Code::TIMED_OUT,
        Error::Bootloader(BootloaderError::NoDisk | BootloaderError::Disk { .. }) => Code::BAD_CONFIG,
        Error::Bootloader(_) => Code::BAD_FILE,
        Error::Device(error) => code_of_device(error),
        Error::Pci(error) => match **error {
            PciError::TimedOut { .. } => Code::TIMED_OUT,
            _ => Code::BAD_CONFIG,
        },
        Error::DeviceUser(DeviceUserError::NotXens(_) | DeviceUserError::NoConfinement { .. }) => Code::BAD_FILE,
        Error::BadConfig(_)
        | Error::BadConfigFile { .. }
        | Error::Config(_)
        | Error::Domain(_)
        | Error::Host(_)
        | Error::DeviceUser(_) => Code::BAD_CONFIG,
        Error::File(error) => code_of_file(error),
        Error::RestartsTooOften { .. } => Code::RESTARTS_TOO_OFTEN,
        Error::NameTaken { .. } => Code::NAME_TAKEN,
        Error::NoSuchDomain(_) => Code::NO_SUCH_DOMAIN,
        Error::NotOurs { .. } => Code::NOT_OURS,
        Error::NotEnoughMemory { .. } => Code::NOT_ENOUGH_MEMORY,
        Error::LimitTooLow { .. } => Code::LIMIT_TOO_LOW,
        Error::Xen(error) => code_of_call(error),
        Error::Migration(error) => code_of_migration(error),
        Error::LeftBehind { .. } | Error::NotCleaned { .. } => Code::LEFT_BEHIND,
        Error::TimedOut { .. } => Code::TIMED_OUT,
        Error::Interrupted { signal: 2 } => Code::INTERRUPTED,
        Error::Interrupted { .. } => Code::TERMINATED,
    }
}

fn code_of_migration(error: &MigrationError) -> Code {
    match error {
        MigrationError::Obstacle { .. } | MigrationError::ShutDown { .. } => Code::BAD_CONFIG,
        MigrationError::Exists(_)
        | MigrationError::NoRoom { .. }
        | MigrationError::BadFile { .. }
        | MigrationError::BadStream(_) => Code::BAD_FILE,
        MigrationError::StillSuspended { .. } => Code::LEFT_BEHIND,
        MigrationError::Monitor(_) | MigrationError::NotIncoming(_) => Code::DEVICE_MODEL_FAILED,
        MigrationError::BadIncoming(_) => Code::BAD_FILE,
        MigrationError::Undecided { .. } => Code::UNDECIDED,
        MigrationError::ChildDied { .. } | MigrationError::NotChecked(_) => Code::INTERNAL,
        MigrationError::ConnectionLost { .. }
        | MigrationError::OtherMessage { .. }
        | MigrationError::NotStarted { .. }
        | MigrationError::AnswerLost { .. }
        | MigrationError::TooManyChanges { .. }
        | MigrationError::NotLetGo(_)
        | MigrationError::BadConfiguration(_) => Code::NOT_MIGRATED,
    }
}

fn code_of_file(error: &FileError) -> Code {
    match error {
        FileError::Unusable { what: "kernel", .. } | FileError::NotInstalled { what: "kernel", .. } => Code::BAD_KERNEL,
        FileError::Unusable { what: "firmware", .. } | FileError::NotInstalled { what: "firmware", .. } => {
            Code::BAD_FIRMWARE
        }
        FileError::Unusable { .. } | FileError::NotInstalled { .. } => Code::BAD_FILE,
        FileError::NotEnoughDom0Memory { .. } => Code::NOT_ENOUGH_MEMORY,
        FileError::NoHostSmbios(_) => Code::BAD_CONFIG,
        _ => Code::INTERNAL,
    }
}

fn code_of_device(error: &DeviceError) -> Code {
    match error {
        DeviceError::Open { .. }
        | DeviceError::Share { .. }
        | DeviceError::SocketTaken { .. }
        | DeviceError::NotADisk { .. }
        | DeviceError::EmptyDisk { .. }
        | DeviceError::NoScript { .. } => Code::BAD_FILE,
        DeviceError::NoBackendDriver { .. }
        | DeviceError::InUse { .. }
        | DeviceError::NoQemu { .. }
        | DeviceError::NoBridge { .. }
        | DeviceError::NotABridge { .. }
        | DeviceError::InterfaceTaken { .. }
        | DeviceError::NumberTaken { .. }
        | DeviceError::MacTaken { .. }
        | DeviceError::TooManyNics { .. }
        | DeviceError::NotHotplugged { .. }
        | DeviceError::NoSuchDevice { .. }
        | DeviceError::Stopped { .. }
        | DeviceError::NoBackendDomain { .. } => Code::BAD_CONFIG,
        DeviceError::TimedOut { .. }
        | DeviceError::ScriptTimedOut { .. }
        | DeviceError::GuestTimedOut { .. }
        | DeviceError::BackendTimedOut { .. } => Code::TIMED_OUT,
        DeviceError::LeftBehind { .. } => Code::LEFT_BEHIND,
        _ => Code::DEVICE_FAILED,
    }
}

fn code_of_call(error: &XenError) -> Code {
    match (error.call, error.errno) {
        (call, _) if call.starts_with("xs_") => Code::XENSTORE,
        ("xc_interface_open", Some(Errno::EACCES | Errno::EPERM)) => Code::PERMISSION,
        ("xc_interface_open", _) => Code::NO_XEN,
        ("xc_dom_kernel_mem" | "xc_dom_parse_image", _) => Code::BAD_KERNEL,
        // Without an errno, it is libxenguest's own judgement of what it was to load.
        ("xc_dom_build_image", None) => Code::BAD_KERNEL,
        (_, Some(Errno::ENOMEM)) => Code::NOT_ENOUGH_MEMORY,
        _ => Code::XEN_REFUSED,
    }
}

/// An error with the advice that goes with it: what the user of the command line is shown.
#[must_use]
pub fn explain(error: &Error) -> String {
    match error {
        Error::Plan(plan) => format!("{plan}: {}", plan_advice::advice(plan)),
        Error::Xen(failed) => explain_call(failed),
        _ => match advice(error) {
            Some(advice) => format!("{error}; {advice}"),
            None => error.to_string(),
        },
    }
}

/// A failed call with what its errno means and what to do about it.
#[must_use]
pub fn explain_call(failed: &XenError) -> String {
    match failed.errno.and_then(|errno| call_advice::advice(failed.call, errno)) {
        Some(advice) => format!("{failed}; {advice}"),
        None => failed.to_string(),
    }
}

/// The message of a run that failed, for stderr, JSON, events and the log. The stage is a field of its own.
#[must_use]
pub fn message_of(failure: &Failure) -> String {
    let message = explain(&failure.error);
    match &failure.aftermath {
        Some(aftermath) => format!("{message} ({aftermath})"),
        None => message,
    }
}

/// An error as the object that `--json` prints, with its exit code.
#[must_use]
pub fn error_object(failure: &Failure) -> (Value, Code) {
    let code = code_of(&failure.error);
    let mut object = json!({
        "code": code.word,
        "stage": failure.stage.name(),
        "message": message_of(failure),
    });
    match &failure.error {
        Error::NotEnoughMemory { required, free, relief, .. } => {
            object["errno"] = json!("ENOMEM");
            object["required_kib"] = json!(required.0);
            object["free_kib"] = json!(free.0);
            if let Some(dom0) = relief.dom0 {
                object["dom0_kib"] = json!(dom0.owned.0);
                object["dom0_spare_kib"] = json!(dom0.spare.0);
            }
        }
        Error::File(FileError::NotEnoughDom0Memory { required, available, reserve, .. }) => {
            object["errno"] = json!("ENOMEM");
            object["dom0_required_kib"] = json!(required.0);
            object["dom0_available_kib"] = json!(available.0);
            object["dom0_reserve_kib"] = json!(reserve.0);
        }
        Error::Xen(error) => {
            object["errno"] = json!(error.errno_name());
            object["call"] = json!(error.call);
        }
        Error::LeftBehind { domid, .. } => object["domid"] = json!(domid),
        Error::Migration(error) => match &**error {
            MigrationError::StillSuspended { domid, .. } | MigrationError::Undecided { domid, .. } => {
                object["domid"] = json!(domid);
            }
            MigrationError::BadFile { problem: FileProblem::Damaged(Damage { offset, record, .. }), .. }
            | MigrationError::BadStream(Damage { offset, record, .. }) => {
                object["offset"] = json!(offset);
                object["record"] = json!(record);
            }
            _ => {}
        },
        Error::NotCleaned { found, .. } => object["found"] = found.clone(),
        Error::BadConfigFile { problems, .. } => object["problems"] = problems.clone(),
        _ => {}
    }
    (json!({ "error": object }), code)
}

/// What a verb that succeeded came to.
#[derive(Debug)]
pub struct Done {
    /// What `--json` prints.
    pub object: Value,
    /// The same in a line, for the log.
    pub summary: String,
}

impl Done {
    /// From the object and from the text for people, which begins with a line that says what was done.
    ///
    /// # Errors
    /// Where the object cannot be JSON.
    pub fn new(object: &impl Serialize, text: &str) -> anyhow::Result<Self> {
        let summary = text.lines().next().unwrap_or_default().to_owned();
        Ok(Self { object: serde_json::to_value(object)?, summary })
    }
}

/// Prints a verb's result as JSON or text, and returns the outcome for the log and the events.
///
/// # Errors
/// Where stdout cannot be written.
pub fn finish(json: bool, object: &impl Serialize, text: &str) -> anyhow::Result<Done> {
    if json {
        print_json(object)?
    } else {
        print_text(text)?
    }
    Done::new(object, text)
}

/// The end of a run that succeeded: its last event, and the last record of its log.
pub fn tell_done(events: &Events, verb: &str, done: &Done) {
    events.result(&done.object);
    logging::finish(|| log::info!("{verb} done: {}", done.summary));
}

/// Tells of an error: the message on stderr and in the log in any case, the object to events, and on stdout where JSON is
/// asked for.
pub fn print_error(events: &Events, failure: &anyhow::Error, json: bool) -> u8 {
    let known = failure.downcast_ref::<Failure>();
    let message = known.map_or_else(|| format!("{failure:#}"), message_of);
    let (object, code) = known.map_or_else(|| (error_message(Code::INTERNAL, &message), Code::INTERNAL), error_object);
    if json {
        print_line(&object);
    }
    let several_lines = known.is_some_and(|known| matches!(known.error, Error::BadConfigFile { .. }));
    tell_error(events, &object, code, || {
        let message = object["error"]["message"].as_str().unwrap_or_default();
        if several_lines { print_lines_to_stderr(message) } else { print_stderr(message) }
    })
}

/// Ends a failed run: writes its last event, the last record of its log, and the message on stderr.
pub fn tell_error(events: &Events, object: &Value, code: Code, for_people: impl FnOnce()) -> u8 {
    let error = &object["error"];
    let message = error["message"].as_str().unwrap_or_default();
    events.error(error, code.exit);
    logging::conclude(Level::Error, message);
    logging::tell_error(message, for_people);
    code.exit
}

/// The end of a process that is about to be aborted.
pub(crate) fn last_words(events: &Events, message: &str) {
    tell_error(events, &error_message(Code::INTERNAL, message), Code::INTERNAL, || {
        let _ = writeln!(io::stderr(), "dombuild: {}", one_line(message));
    });
}

/// An error object from a word and a message alone.
#[must_use]
pub fn error_message(code: Code, message: &str) -> Value {
    json!({ "error": { "code": code.word, "message": message } })
}

/// Prints a verb's result as one JSON document.
///
/// # Errors
/// Where stdout cannot be written.
pub fn print_json(result: &impl Serialize) -> anyhow::Result<()> {
    // JSON has escapes of its own.
    print_more(&os::json(&serde_json::to_string_pretty(result)?)).map(drop)
}

/// Prints a verb's result for people; what a terminal would obey stands there as its escape. A reader that has seen enough
/// (`| head`) is no error: the verb did its work.
///
/// # Errors
/// Where stdout cannot be written.
pub fn print_text(text: &str) -> anyhow::Result<()> {
    print_more(&lines(text)).map(drop)
}

/// Prints one of several texts; false where the reader has seen enough.
///
/// # Errors
/// Where stdout cannot be written.
pub fn print_more(text: &str) -> anyhow::Result<bool> {
    let mut stdout = io::stdout();
    match writeln!(stdout, "{}", text.trim_end()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        result => result.map(|()| true).context("cannot write to standard output"),
    }
}

/// Writes the picture where `--svg` says. Whether that was standard output, which then has nothing else to take.
pub(crate) fn picture(path: Option<&Path>, json: bool, draw: impl FnOnce() -> String) -> Result<bool, Error> {
    match path {
        None => Ok(false),
        Some(path) if path == Path::new("-") => {
            if json {
                let both = "--svg - and --json both want standard output: give --svg a file";
                return Err(Error::BadConfig(both.to_owned()));
            }
            print_text(&draw()).map_err(|error| Error::Internal(format!("{error:#}")))?;
            Ok(true)
        }
        Some(path) => write_picture(path, &draw()).map(|()| false),
    }
}

/// Writes a picture into a file, which is the old one or the whole new one at any time.
///
/// # Errors
/// Where there is something at `path` that is no file, or the file cannot be written.
pub fn write_picture(path: &Path, text: &str) -> Result<(), Error> {
    let failed = |reason| Error::BadFile { what: "picture", path: path.to_owned(), reason };
    if fs::metadata(path).is_ok_and(|there| !there.is_file()) {
        return Err(failed("it is there, and no regular file".to_owned()));
    }
    if let Ok(link) = fs::symlink_metadata(path)
        && link.is_symlink()
        && !is_trusted(link.uid())
    {
        // It would make root replace whatever file that user names.
        return Err(failed(format!("it is a symbolic link of user {}: name the file itself", link.uid())));
    }
    // A symbolic link stays; its target is replaced.
    let place = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    replace(&place, text.as_bytes()).map_err(|error| failed(error.to_string()))
}

/// Writes a new file in the same directory, then renames it to the target.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let new = path.with_file_name(format!(".dombuild-{}.new", process::id()));
    let mut file = OpenOptions::new().write(true).create_new(true).open(&new)?;
    let written = file.write_all(content).and_then(|()| file.sync_all()).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        // The first error is the one to report.
        let _ = fs::remove_file(&new);
    }
    written
}

/// A line on stderr for people; a closed one is no reason for another error.
pub fn print_stderr(text: &str) {
    let _ = writeln!(io::stderr(), "dombuild: {}", one_line(text.trim_end()));
}

/// Several lines on stderr for people.
pub(crate) fn print_lines_to_stderr(text: &str) {
    let _ = writeln!(io::stderr(), "dombuild: {}", lines(text.trim_end()));
}

/// One JSON document on stdout; a reader that went away is no reason for another error.
pub fn print_line(value: &Value) {
    let _ = writeln!(io::stdout(), "{}", os::json(&value.to_string()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{AtStage, Relief};
    use crate::memory::Kib;
    use crate::stage::Stage;

    #[test]
    fn the_memory_error_tells_required_and_free() {
        let failure = Err::<(), _>(Error::NotEnoughMemory {
            required: Kib(266_240),
            free: Kib(1024),
            claims: None,
            relief: Relief::default(),
        })
        .at(Stage::WaitFreeMemory)
        .expect_err("it is one");
        let (object, code) = error_object(&failure);
        assert_eq!(code, Code { word: "not-enough-memory", exit: 4 });
        assert_eq!(object["error"]["stage"], "wait-free-memory");
        assert_eq!(object["error"]["errno"], "ENOMEM");
        assert_eq!(object["error"]["required_kib"], 266_240);
        assert_eq!(object["error"]["free_kib"], 1024);
    }

    #[test]
    fn a_message_has_the_facts_the_advice_once_and_the_aftermath() {
        let failed = XenError {
            call: "xc_domain_max_vcpus",
            arguments: "domid 7, 2".to_owned(),
            errno: Some(Errno::EINVAL),
            detail: Some("said".to_owned()),
        };
        let mut failure = Failure { stage: Stage::MaxVcpus, error: failed.into(), aftermath: None };
        let facts = "xc_domain_max_vcpus(domid 7, 2) failed: EINVAL (22): Invalid argument: said";
        let advice = "the domain was created with another number of vCPUs: --vcpus must equal it";
        assert_eq!(failure.error.to_string(), facts);
        assert_eq!(message_of(&failure), format!("{facts}; {advice}"));
        failure.aftermath = Some("domain 7 was removed".to_owned());
        assert_eq!(message_of(&failure), format!("{facts}; {advice} (domain 7 was removed)"));
        assert_eq!(error_object(&failure).0["error"]["message"], message_of(&failure));
    }

    #[test]
    fn xenstore_and_xen_have_their_own_exit_codes() {
        let error =
            |call, errno| Error::Xen(XenError { call, arguments: String::new(), errno: Some(errno), detail: None });
        assert_eq!(code_of(&error("xs_open", Errno::ENOENT)).exit, 6);
        assert_eq!(code_of(&error("xc_interface_open", Errno::ENOENT)).word, "no-xen");
        assert_eq!(code_of(&error("xc_interface_open", Errno::EACCES)).word, "permission");
        assert_eq!(code_of(&error("xc_domain_create", Errno::EINVAL)).exit, 5);
        assert_eq!(code_of(&error("xc_set_paging_mempool_size", Errno::ENOMEM)).exit, 4);
        assert_eq!(code_of(&Error::Interrupted { signal: 15 }).exit, 143);
    }
}
