//! Runs Xen's hotplug scripts: those of several devices at once, with a deadline, and with their last words kept.

use std::collections::VecDeque;
use std::io::{self, PipeReader, Read};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::hotplug::{Script, ScriptClass};
use super::nic::interface_name;
use crate::error::device::DeviceError;
use crate::os::Untrusted;
use crate::xen::DomId;

/// How many bytes of a script's output are kept, from its end.
const KEPT: usize = 2000;

/// How long a killed script may take to disappear.
const KILL_TIMEOUT: Duration = Duration::from_secs(5);

const POLL: Duration = Duration::from_millis(5);

/// How a script is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    /// The device is there: plug it.
    Plug,
    /// The tap device of an emulated card is there.
    PlugTap,
    /// The device is gone.
    Unplug,
}

impl Action {
    /// The arguments (libxl__get_hotplug_script_info, tools/libs/light/libxl_linux.c, Xen 4.17).
    fn arguments(self, class: ScriptClass) -> &'static [&'static str] {
        match (class, self) {
            (ScriptClass::Disk, Self::Unplug) => &["remove"],
            (ScriptClass::Disk, _) => &["add"],
            (ScriptClass::Nic, Self::Plug) => &["online", "type_if=vif"],
            (ScriptClass::Nic, Self::PlugTap) => &["add", "type_if=tap"],
            (ScriptClass::Nic, Self::Unplug) => &["offline", "type_if=vif"],
        }
    }
}

/// A call of a script for one device.
#[derive(Debug)]
pub(crate) struct Call<'a> {
    pub(crate) script: &'a Script,
    pub(crate) action: Action,
    pub(crate) domid: DomId,
    /// The class of the backend, as in `vbd`.
    pub(crate) backend_kind: &'a str,
    pub(crate) devid: u32,
}

impl Call<'_> {
    fn device(&self) -> String {
        format!("{} {}", self.backend_kind, self.devid)
    }

    /// The command, in a process group of its own, with libxl's environment for it.
    fn command(&self, output: impl Into<Stdio>, errors: impl Into<Stdio>) -> Command {
        let mut command = Command::new(&self.script.path);
        command
            .args(self.action.arguments(self.script.class))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(errors)
            .process_group(0)
            .env("script", &self.script.path)
            .env("XENBUS_TYPE", self.backend_kind)
            .env("XENBUS_PATH", format!("backend/{}/{}/{}", self.backend_kind, self.domid, self.devid))
            .env("XENBUS_BASE_PATH", "backend");
        if self.script.class == ScriptClass::Nic {
            let interface = interface_name(self.domid, self.devid);
            command
                .env("netdev", self.script.gatewaydev.as_deref().unwrap_or_default())
                .env("INTERFACE", format!("{interface}-emu"))
                .env("vif", interface);
        }
        command
    }
}

/// A script that runs.
struct Running<'a> {
    call: &'a Call<'a>,
    child: Child,
    output: PipeReader,
    kept: VecDeque<u8>,
}

/// How the call of a script ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    Ended { status: ExitStatus, says: Option<Untrusted> },
    TimedOut { says: Option<Untrusted> },
}

impl Outcome {
    /// The error of a script that did not succeed. `noted` is what it wrote to `hotplug-error`.
    pub(crate) fn check(self, call: &Call<'_>, noted: Option<Untrusted>, after: Duration) -> Result<(), DeviceError> {
        match self {
            Self::Ended { status, .. } if status.success() => Ok(()),
            Self::Ended { status, says } => Err(DeviceError::Script {
                device: call.device(),
                script: call.script.path.clone(),
                action: call.action.arguments(call.script.class).join(" "),
                status: status.to_string(),
                says: noted.or(says),
            }),
            Self::TimedOut { says } => Err(DeviceError::ScriptTimedOut {
                device: call.device(),
                script: call.script.path.clone(),
                action: call.action.arguments(call.script.class).join(" "),
                says: noted.or(says),
                after,
            }),
        }
    }
}

/// Runs the scripts of all calls at once, until the last one has ended or `timeout` has passed: then those that still run are
/// killed with their process groups. `stop` ends the wait early in the same way.
///
/// # Errors
/// If a script cannot be started; the others are killed.
pub(crate) fn run_all<'a, E>(
    calls: &'a [Call<'a>],
    timeout: Duration,
    mut stop: impl FnMut() -> Result<(), E>,
) -> Result<Vec<Outcome>, E>
where
    E: From<DeviceError>,
{
    let end = Instant::now() + timeout;
    let mut running = Vec::with_capacity(calls.len());
    let mut outcomes: Vec<Option<Outcome>> = Vec::new();
    for call in calls {
        match start(call) {
            Ok(started) => running.push(started),
            Err(source) => {
                running.iter_mut().for_each(Running::kill);
                let script = call.script.path.clone();
                return Err(DeviceError::NoScript { device: call.device(), script, source }.into());
            }
        }
        outcomes.push(None);
    }
    loop {
        for (running, outcome) in running.iter_mut().zip(&mut outcomes).filter(|(_, outcome)| outcome.is_none()) {
            running.read();
            if let Ok(Some(status)) = running.child.try_wait() {
                running.read();
                *outcome = Some(Outcome::Ended { status, says: running.last_words() });
            }
        }
        if outcomes.iter().all(Option::is_some) {
            return Ok(outcomes.into_iter().flatten().collect());
        }
        let stopped = stop();
        if stopped.is_err() || Instant::now() >= end {
            for (running, outcome) in running.iter_mut().zip(&mut outcomes).filter(|(_, outcome)| outcome.is_none()) {
                running.kill();
                *outcome = Some(Outcome::TimedOut { says: running.last_words() });
            }
            stopped?;
        } else {
            thread::sleep(POLL);
        }
    }
}

fn start<'a>(call: &'a Call<'a>) -> io::Result<Running<'a>> {
    let (output, writer) = io::pipe()?;
    fcntl(output.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    log::debug!("{} {}", call.script.path.display(), call.action.arguments(call.script.class).join(" "));
    let child = call.command(writer.try_clone()?, writer).spawn()?;
    Ok(Running { call, child, output, kept: VecDeque::new() })
}

impl Running<'_> {
    /// Takes what the script has written, and keeps the end of it.
    fn read(&mut self) {
        let mut buffer = [0; 4096];
        // A script that writes without end must not keep this loop.
        for _ in 0..64 {
            match self.output.read(&mut buffer) {
                Ok(length @ 1..) => {
                    self.kept.extend(buffer.iter().take(length));
                    let excess = self.kept.len().saturating_sub(KEPT);
                    self.kept.drain(..excess);
                }
                _ => return,
            }
        }
    }

    fn last_words(&mut self) -> Option<Untrusted> {
        let text = String::from_utf8_lossy(self.kept.make_contiguous()).trim().to_owned();
        (!text.is_empty()).then(|| Untrusted::from(text))
    }

    /// Kills the script and its process group, and reaps the script.
    fn kill(&mut self) {
        log::debug!("{} of {} is killed", self.call.script.path.display(), self.call.device());
        let killed = i32::try_from(self.child.id()).map(|pid| killpg(Pid::from_raw(pid), Signal::SIGKILL));
        if !matches!(killed, Ok(Ok(()))) {
            let _ = self.child.kill();
        }
        let end = Instant::now() + KILL_TIMEOUT;
        while !matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
            if Instant::now() >= end {
                // It waits for a disk, and ends when the disk answers.
                log::warn!("{} of {} has not ended after SIGKILL", self.call.script.path.display(), self.call.device());
                return;
            }
            thread::sleep(POLL);
        }
    }
}
