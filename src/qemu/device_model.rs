//! QEMU as the device model: starts it with the same numbers as the builder, and waits until it is ready.

use std::env;
use std::fs::{self, File};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use nix::sys::signal::Signal;
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;

use super::command_line::{MONITORS, of_backend, of_device_model, socket};
use super::devices::QemuDevices;
use super::log::{last_line, open_log};
use crate::builder::shortage::device_memory;
use crate::config::devices::framebuffer::Framebuffer;
use crate::config::name::DomainName;
use crate::context::Context;
use crate::domain::paths::XenstorePaths;
use crate::error::device_user::DeviceUserError;
use crate::error::{DeviceModelCause, Error, Failure, Wait};
use crate::memory::Plan;
use crate::os::Untrusted;
use crate::os::cgroup::Cgroup;
use crate::os::launch::{Child, Launch};
use crate::os::parent_death::KillOnParentDeath;
use crate::os::pidfd::{Process, ProcessId, members};
use crate::os::process;
use crate::os::restrict::{Restriction, restrict_device_model};
use crate::os::shared_file::remove_file;
use crate::os::system_call_filter::{Additional, SystemCallFilter};
use crate::qemu::config::{DeviceModelConfig, QemuRole};
use crate::qemu::confinement::{EMPTY_DIRECTORY, RunAs};
use crate::qemu::helpers::make_cgroup;
use crate::qemu::qmp::QmpQuery;
use crate::stage::Stage;
use crate::xen::{DomId, DomainRef};

/// How long a killed QEMU may take to disappear.
const KILL_TIMEOUT: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(2);

/// The signal that kills a device model which makes a system call that its filter does not allow.
const SIGSYS: i32 = Signal::SIGSYS as i32;

/// QEMU's message if Xen refuses memory for a device (`xen_ram_alloc`, hw/xen/xen-hvm-common.c, QEMU 7.2 and 10.0).
const NO_MEMORY: &str = "failed to populate ram";

/// QEMU's message if its libraries lack the cipher of VNC's passwords (`vnc_display_open`, ui/vnc.c, QEMU 7.2 and 10.0).
const NO_VNC_PASSWORD: &str = "Cipher backend does not support DES";

const FILTERED: &str =
    "was killed by its system call filter; the kernel's log (dmesg: audit, type=1326) names the number of the call";

/// A started QEMU. It ends with this process at the latest, unless it is detached.
#[derive(Debug)]
pub struct DeviceModel {
    process: Child,
    /// The cgroup of QEMU and its children, if the host has cgroups.
    cgroup: Option<Cgroup>,
    /// The children of QEMU at its end, if it has no cgroup.
    orphans: Vec<Process>,
    parent_death: Option<KillOnParentDeath>,
    log: PathBuf,
    /// It has rights only on its own guest, and so none on xenstore.
    confined: bool,
    /// It runs under a system call filter.
    filtered: bool,
    /// The VNC server that is published when QEMU is ready.
    vnc: Option<Framebuffer>,
    /// The deadline for its readiness, and the time allowed from its start.
    end: Instant,
    timeout: Duration,
}

impl DeviceModel {
    /// Starts QEMU for a domain that has its vCPUs, limits and keys; its memory may follow later. `xl console` shows
    /// its first serial port.
    ///
    /// # Errors
    /// If QEMU cannot be started.
    pub fn start(
        context: &Context<'_>,
        domain: DomainRef,
        name: &DomainName,
        plan: &Plan,
        config: &DeviceModelConfig,
        devices: QemuDevices,
    ) -> Result<Self, Failure> {
        context.step(Stage::StartDeviceModel, || {
            let domid = domain.domid;
            let keys = XenstorePaths::new(domid);
            let (log, output) = open_log(name)?;
            let confinement = confinement(domid, &config.run_as)?;
            let arguments = match config.role {
                QemuRole::DeviceModel => of_device_model(domid, name, plan, config, &devices.arguments, &confinement),
                QemuRole::Backend => of_backend(domid, name, plan, &devices.arguments),
            };
            log::debug!("{} {}", config.path.display(), arguments.join(" "));
            context.store.batch(|transaction| {
                transaction.remove(&keys.device_model)?;
                transaction.write(&keys.device_model, "")?;
                transaction.write(&format!("{}/dm-version", keys.libxl), "qemu_xen")?;
                if let RunAs::User(user) = &config.run_as
                    && let Some(uid) = user.libxl_user(domid)
                {
                    transaction.write(&keys.of_domain("image/device-model-kill-uid"), &uid.to_string())?;
                }
                match config.role {
                    QemuRole::DeviceModel => transaction.write(&keys.of_domain("platform/device-model"), "qemu_xen"),
                    QemuRole::Backend => Ok(()),
                }
            })?;
            let confined = !confinement.is_empty();
            // A backend needs Xen's and xenstore's rights, and PCI devices root's, but neither the network nor programs.
            let restricted = confined || config.role == QemuRole::Backend || config.run_as == RunAs::RestrictedRoot;
            let restriction = restricted.then(|| restriction(config));
            // QEMU would otherwise take the remains of an earlier guest's QEMU for its own.
            for id in MONITORS {
                {
                    let socket = socket(id, domid);
                    remove_file(&socket).map_err(Error::io(format!("remove {}", socket.display())))?;
                };
            }
            let cgroup = make_cgroup(context.xen, domain)?;
            let (process, parent_death) =
                spawn(&config.path, &arguments, domid, &output, devices.descriptors, restriction, cgroup.as_ref())
                    .map_err(|error| {
                        let program = config.path.clone();
                        if confined && is_of_confinement(&error) {
                            return DeviceUserError::NoConfinement { program, source: error }.into();
                        }
                        let reason = format!("cannot be started: {error}");
                        Error::BadFile { what: "device model", path: program, reason }
                    })?;
            let mut model = Self {
                process,
                cgroup,
                orphans: Vec::new(),
                parent_death: Some(parent_death),
                log,
                confined,
                vnc: devices.vnc,
                filtered: restricted && config.filter,
                end: Instant::now() + config.timeout,
                timeout: config.timeout,
            };
            match model.publish(context, &keys) {
                Ok(()) => Ok::<_, Error>(model),
                Err(error) => {
                    model.kill();
                    Err(error)
                }
            }
        })
    }

    /// Writes the process number for xl, and for a later `destroy` on a host without cgroups.
    fn publish(&self, context: &Context<'_>, keys: &XenstorePaths) -> Result<(), Error> {
        let plain = context.store.plain();
        if self.cgroup.is_none() {
            let text = ProcessId::of(self.pid())
                .and_then(|id| Ok(serde_json::to_string(&id)?))
                .map_err(Error::io("find the device model that was started"))?;
            plain.write(&keys.device_model_process(), &text)?;
        }
        Ok(plain.write(&keys.device_model_pid(), &self.pid().to_string())?)
    }

    /// Waits until QEMU answers on its monitor, which shows that it is running.
    ///
    /// # Errors
    /// If QEMU dies or misses its deadline; the message names its log.
    pub fn get_ready(&mut self, context: &Context<'_>, domid: DomId, plan: &Plan) -> Result<(), Failure> {
        context.step(Stage::DeviceModel, || {
            let outcome = self.wait_and_publish(context, &XenstorePaths::new(domid));
            let outcome = outcome.map_err(|error| self.cause(context, domid, plan, error));
            if outcome.is_err() {
                // This applies to whatever program was started, even if xenstore no longer answers.
                self.kill();
            }
            outcome
        })
    }

    /// The cause of QEMU's end if it found no memory for one of its devices, which QEMU's own message does not explain.
    /// The guest's own memory is populated by now.
    fn cause(&self, context: &Context<'_>, domid: DomId, plan: &Plan, error: Error) -> Error {
        let Error::DeviceModel { reason, .. } = &error else { return error };
        let refused = last_line(&self.log).is_some_and(|line| line.raw_for_comparison().contains(NO_MEMORY));
        match device_memory(context, domid, plan, plan.owned_pages_built).filter(|_| refused) {
            Some(cause) => {
                log::info!("the device model {reason}");
                cause
            }
            None => error,
        }
    }

    /// From now on QEMU may outlive this process. Without this call, it is killed with this process.
    ///
    /// # Errors
    /// If the kernel refuses that.
    pub fn let_go(&mut self) -> Result<(), Error> {
        let cut = self.parent_death.take().map_or(Ok(()), KillOnParentDeath::detach);
        cut.map_err(Error::io(format!("let the device model {} go", self.pid())))
    }

    /// QEMU's process number.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.process.pid()
    }

    /// Fails once QEMU has ended.
    ///
    /// # Errors
    /// [`Error::DeviceModel`] with the exit status or signal.
    pub fn check(&mut self) -> Result<(), Error> {
        if self.cgroup.is_none() {
            // The kernel does not reuse its number, or its group's, until it has been waited for.
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
            match waitid(Id::Pid(Pid::from_raw(self.pid())), flags) {
                Ok(WaitStatus::StillAlive) => return Ok(()),
                _ => self.orphans = members(self.pid()).unwrap_or_default(),
            }
        }
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                // A shell reports the end of its child in its own status.
                if self.filtered && (status.signal() == Some(SIGSYS) || status.code() == Some(128 + SIGSYS)) {
                    return Err(Error::DeviceModel {
                        reason: FILTERED.to_owned(),
                        log: self.log.clone(),
                        cause: DeviceModelCause::Filtered,
                    });
                }
                let last = last_line(&self.log);
                let says = |word| last.as_ref().is_some_and(|line| line.raw_for_comparison().contains(word));
                let confined = self.confined && (says("restrict") || says("invalid option"));
                let cause = match confined {
                    true => DeviceModelCause::Confined,
                    false if says(NO_VNC_PASSWORD) => DeviceModelCause::VncPassword,
                    false => DeviceModelCause::Unknown,
                };
                let last = last.map(|line| format!(", its last words: {line:?}")).unwrap_or_default();
                Err(Error::DeviceModel { reason: format!("ended ({status}){last}"), log: self.log.clone(), cause })
            }
            Err(error) => Err(Error::io(format!("wait for process {}", self.pid()))(error)),
        }
    }

    fn wait_and_publish(&mut self, context: &Context<'_>, keys: &XenstorePaths) -> Result<(), Error> {
        let devices = self.ask(context, keys, "query-chardev", json!({}))?;
        let plain = context.store.plain();
        if self.confined {
            // A QEMU without xenstore rights cannot write this itself, and other tools read it there.
            plain.write(&keys.device_model_state(), "running")?;
        }
        for (number, tty) in serial_ports(&devices) {
            plain.write(&keys.of_domain(&format!("serial/{number}/tty")), tty)?;
        }
        if let Some(vnc) = self.vnc.take() {
            self.publish_vnc(context, keys, &vnc)?;
        }
        Ok(())
    }

    /// Gives VNC its password, and writes its address for `xl vncviewer`.
    fn publish_vnc(&mut self, context: &Context<'_>, keys: &XenstorePaths, vnc: &Framebuffer) -> Result<(), Error> {
        if let Some(password) = &vnc.password {
            self.ask(context, keys, "change-vnc-password", json!({ "password": password }))?;
        }
        let server = self.ask(context, keys, "query-vnc", json!({}))?;
        let (Some(host), Some(port)) = (server["host"].as_str(), server["service"].as_str()) else {
            let reason = format!("has no VNC server: {:?}", Untrusted::from(server.to_string()).shortened(200));
            return Err(Error::DeviceModel { reason, log: self.log.clone(), cause: DeviceModelCause::Unknown });
        };
        let plain = context.store.plain();
        plain.write(&keys.of_domain("console/vnc-listen"), host)?;
        Ok(plain.write(&keys.of_domain("console/vnc-port"), port)?)
    }

    /// The answer to a command. QEMU gives the first one when it is ready.
    fn ask(
        &mut self,
        context: &Context<'_>,
        keys: &XenstorePaths,
        command: &'static str,
        arguments: Value,
    ) -> Result<Value, Error> {
        let mut question = QmpQuery::new(socket("libxl", keys.domid), command, arguments);
        loop {
            let answer = question.answer().map_err(|error| Error::DeviceModel {
                reason: format!("answers wrongly on its monitor: {error}"),
                log: self.log.clone(),
                cause: DeviceModelCause::Unknown,
            })?;
            // Another process may have answered.
            self.check()?;
            context.cancel.check()?;
            if let Some(devices) = answer {
                return Ok(devices);
            }
            if Instant::now() >= self.end {
                return Err(Error::TimedOut {
                    what: format!("the device model {} did not get ready", self.pid()),
                    after: self.timeout,
                    wait: Wait::DeviceModel(self.log.clone()),
                });
            }
        }
    }

    /// Kills QEMU and its children at once.
    fn kill(&mut self) {
        if let Err(problem) = self.try_kill() {
            log::error!("the device model {} may still run: {problem}", self.pid());
        }
    }

    fn try_kill(&mut self) -> std::io::Result<()> {
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill()?;
        } else if self.process.try_wait()?.is_none() {
            self.orphans = members(self.pid())?;
            self.process.kill()?;
        }
        self.orphans.iter().try_for_each(|process| process.signal(Signal::SIGKILL))?;
        // A process that waits for a disk takes the signal only when the disk answers.
        let start = Instant::now();
        while self.process.try_wait()?.is_none() {
            if start.elapsed() >= KILL_TIMEOUT {
                let text = format!("it has not ended {} s after SIGKILL", KILL_TIMEOUT.as_secs());
                return Err(std::io::Error::other(text));
            }
            thread::sleep(POLL);
        }
        Ok(())
    }
}

/// The ptys of serial ports, by port number. `xl console` reads them in xenstore; only QEMU, which opened them, knows
/// them.
fn serial_ports(devices: &Value) -> impl Iterator<Item = (&str, &str)> {
    devices.as_array().into_iter().flatten().filter_map(|device| {
        let number = device["label"].as_str()?.strip_prefix("serial")?;
        let tty = device["filename"].as_str()?.strip_prefix("pty:")?;
        (!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())).then_some((number, tty))
    })
}

/// Prepares the confinement of QEMU and returns its arguments; none if QEMU runs as root.
fn confinement(domid: DomId, run_as: &RunAs) -> Result<Vec<String>, Error> {
    let RunAs::User(user) = run_as else { return Ok(Vec::new()) };
    let missing = |error| Error::io(format!("make QEMU's root directory {EMPTY_DIRECTORY}"))(error);
    let directory = Path::new(EMPTY_DIRECTORY);
    let make = |mode, path: &Path| match fs::DirBuilder::new().mode(mode).create(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(missing(error)),
        _ => Ok(()),
    };
    make(0o755, directory.parent().unwrap_or(directory))?;
    // The directory needs no permission at all: QEMU enters it while it is root.
    make(0, directory)?;
    let there = fs::symlink_metadata(directory).map_err(missing)?;
    let empty = fs::read_dir(directory).map_err(missing)?.next().is_none();
    if !there.is_dir() || there.uid() != 0 || there.mode() & 0o7777 != 0 || !empty {
        let wrong = "it is not an empty directory of root's with mode 0: remove it, it is made anew";
        return Err(missing(std::io::Error::other(wrong)));
    }
    user.arguments(domid)
}

/// Whether the kernel refused the confinement: `execve` fails with other errors.
fn is_of_confinement(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOSYS | libc::ENOSPC | libc::EPERM))
}

/// The confinement of the process, as its arguments need it.
fn restriction(config: &DeviceModelConfig) -> Restriction {
    let (network, programs) = (config.needs.network.is_some(), config.needs.programs.is_some());
    Restriction { network, filter: config.filter.then(|| SystemCallFilter::new(Additional { network, programs })) }
}

fn spawn(
    path: &Path,
    arguments: &[String],
    domid: DomId,
    output: &File,
    descriptors: Vec<OwnedFd>,
    restriction: Option<Restriction>,
    cgroup: Option<&Cgroup>,
) -> std::io::Result<(Child, KillOnParentDeath)> {
    let (parent_death, input, tie) = KillOnParentDeath::new()?;
    // A separate process group: a Ctrl-C at the terminal is for dombuild, and must not reach a QEMU that ends in order
    // or stays.
    let mut launch = Launch::new(path, [input.into(), output.try_clone()?.into(), output.try_clone()?.into()])?;
    launch.arguments(arguments)?;
    // The caller's environment is for the caller's programs, except for the address of xenstored, which QEMU needs too.
    for (name, value) in env::vars_os().filter(|(name, _)| name.as_encoded_bytes().starts_with(b"XENSTORED_")) {
        launch.variable(name, value)?;
    }
    launch.variable("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")?;
    launch.variable("LANG", "C.UTF-8")?;
    launch.variable("XEN_DOMAIN_ID", domid.to_string())?;
    cgroup.map_or(Ok(()), |cgroup| launch.cgroup(cgroup))?;
    launch.step(process::withhold_descriptors()?);
    launch.step(process::pass_descriptors(descriptors));
    launch.step(tie);
    if let Some(restriction) = restriction {
        launch.step(restrict_device_model(restriction));
    }
    Ok((launch.start()?, parent_death))
}
