//! QEMU as the device model: started with the same numbers as the builder, and waited for.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use nix::sys::signal::Signal;

use crate::builder::{Context, Keys, end_process};
use crate::config::{DeviceModelConfig, LOG_DIRECTORY, RUN_DIRECTORY};
use crate::error::{Error, Failure, Stage};
use crate::memory::units::KIB_PER_MIB;
use crate::memory::{Kib, Plan};
use crate::xen::{DomId, Leash};

/// A monitor that answers no question in this time is stuck.
const MONITOR_PATIENCE: Duration = Duration::from_secs(10);

/// A QEMU that is ready.
#[derive(Debug)]
pub struct DeviceModel {
    process: Child,
    leash: Option<Leash>,
    log: PathBuf,
}

impl DeviceModel {
    /// Starts QEMU for a built domain and waits until it says in xenstore that it is running. Its first serial port
    /// becomes what `xl console` shows.
    ///
    /// # Errors
    /// Where QEMU cannot be started, dies, or takes longer than it may; the message names its log.
    pub fn start(
        context: &Context<'_>,
        domid: DomId,
        name: &str,
        plan: &Plan,
        config: &DeviceModelConfig,
    ) -> Result<Self, Failure> {
        context.step(Stage::DeviceModel, || {
            let keys = Keys::new(domid);
            let (log, output) = open_log(name)?;
            let arguments = arguments(domid, name, plan, &config.arguments);
            log::debug!("{} {}", config.path.display(), arguments.join(" "));
            context.store.transaction(|transaction| {
                transaction.remove(&keys.device_model)?;
                transaction.write(&keys.device_model, "")?;
                transaction.write(&format!("{}/dm-version", keys.libxl), "qemu_xen")?;
                transaction.write(&keys.of_domain("platform/device-model"), "qemu_xen")
            })?;
            let (process, leash) = spawn(&config.path, &arguments, domid, &output).map_err(|error| Error::BadFile {
                what: "device model",
                path: config.path.clone(),
                reason: format!("cannot be started: {error}"),
            })?;
            let mut model = Self { process, leash: Some(leash), log };
            match model.get_ready(context, &keys, config.timeout) {
                Ok(()) => Ok::<_, Error>(model),
                Err(error) => {
                    // Whatever it was that we started, and even where xenstore cannot tell any more.
                    model.kill();
                    Err(error)
                }
            }
        })
    }

    /// QEMU may outlive this process from now on. Until then, and where nobody lets it go, it is killed with it.
    ///
    /// # Errors
    /// Where the system refuses that.
    pub fn let_go(&mut self) -> Result<(), Error> {
        let cut = self.leash.take().map_or(Ok(()), Leash::cut);
        cut.map_err(|error| Error::Internal(format!("cannot let the device model {} go: {error}", self.pid())))
    }

    /// QEMU's process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Fails once QEMU has ended.
    ///
    /// # Errors
    /// [`Error::DeviceModel`], with how it ended.
    pub fn check(&mut self) -> Result<(), Error> {
        match self.process.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => {
                let last = last_line(&self.log).map(|line| format!(", its last words: {line:?}")).unwrap_or_default();
                Err(Error::DeviceModel { reason: format!("ended ({status}){last}"), log: self.log.clone() })
            }
            Err(error) => Err(Error::Internal(format!("cannot wait for process {}: {error}", self.pid()))),
        }
    }

    fn get_ready(&mut self, context: &Context<'_>, keys: &Keys, timeout: Duration) -> Result<(), Error> {
        context.store.plain().write(&keys.device_model_pid(), &self.pid().to_string())?;
        let state = keys.device_model_state();
        context.store.watch(&state)?;
        let outcome = self.wait_running(context, &state, timeout);
        context.store.unwatch(&state)?;
        outcome?;
        self.publish_serial_ports(context, keys)
    }

    fn wait_running(&mut self, context: &Context<'_>, state: &str, timeout: Duration) -> Result<(), Error> {
        let end = Instant::now() + timeout;
        loop {
            if context.store.plain().read(state)?.as_deref() == Some("running") {
                return Ok(());
            }
            self.check()?;
            context.cancel.check()?;
            if Instant::now() >= end {
                return Err(Error::TimedOut {
                    what: format!("the device model {} did not get ready", self.pid()),
                    after: timeout,
                    advice: format!("its log is {}; --dm-timeout gives it longer", self.log.display()),
                });
            }
            // The watch wakes us when QEMU writes; the short limit is for a QEMU that dies without writing.
            context.store.wait(Duration::from_millis(50))?;
        }
    }

    /// Ends QEMU and what it started at once.
    fn kill(&mut self) {
        let ended = i32::try_from(self.pid())
            .map_err(|error| error.to_string())
            .and_then(|pid| end_process(pid, Signal::SIGKILL))
            .and_then(|()| self.process.wait().map_err(|error| error.to_string()));
        if let Err(problem) = ended {
            log::error!("the device model {} may still run: {problem}", self.pid());
        }
    }

    /// `xl console` reads serial/N/tty, which only QEMU can tell: it is the pty that it opened.
    fn publish_serial_ports(&self, context: &Context<'_>, keys: &Keys) -> Result<(), Error> {
        let broken = |error: std::io::Error| Error::DeviceModel {
            reason: format!("does not answer on its monitor: {error}"),
            log: self.log.clone(),
        };
        let devices = query(&socket("libxl", keys.domid), "query-chardev").map_err(broken)?;
        for device in devices.as_array().into_iter().flatten() {
            let number = device["label"].as_str().and_then(|label| label.strip_prefix("serial"));
            let tty = device["filename"].as_str().and_then(|name| name.strip_prefix("pty:"));
            if let (Some(number), Some(tty)) = (number, tty)
                && !number.is_empty()
                && number.bytes().all(|byte| byte.is_ascii_digit())
            {
                context.store.plain().write(&keys.of_domain(&format!("serial/{number}/tty")), tty)?;
            }
        }
        Ok(())
    }
}

/// The arguments that libxl gives QEMU for a plain HVM guest (tools/libs/light/libxl_dm.c, Xen 4.17), less its VNC
/// server, and the user's own at the end.
fn arguments(domid: DomId, name: &str, plan: &Plan, own: &[String]) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| all.extend(words.iter().map(|word| (*word).to_owned()));
    let monitor = |id: &str| {
        (
            format!("socket,id={id}-cmd,path={},server=on,wait=off", socket(id, domid).display()),
            format!("chardev={id}-cmd,mode=control"),
        )
    };

    add(&["-xen-domid", &domid.to_string(), "-no-shutdown"]);
    for id in ["libxl", "libxenstat"] {
        let (chardev, mon) = monitor(id);
        add(&["-chardev", &chardev, "-mon", &mon]);
    }
    add(&["-nodefaults", "-no-user-config", "-name", name, "-display", "none"]);
    if !own.iter().any(|argument| is_option(argument, "serial")) {
        add(&["-serial", "pty"]);
    }
    // Whole MiB in every memory model.
    let mib = |size: Kib| size.get() / KIB_PER_MIB;
    let video = mib(plan.memory.video);
    if video > 0 {
        add(&["-device", &format!("VGA,vgamem_mb={video}")]);
    }
    add(&["-boot", "order=cda"]);
    if plan.vcpus > 1 {
        add(&["-smp", &format!("{0},maxcpus={0}", plan.vcpus)]);
    }
    add(&["-net", "none"]);
    let mut machine = "xenfv,suppress-vmdesc=on".to_owned();
    if plan.layout.has_custom_hole() {
        machine = format!("{machine},max-ram-below-4g={}", plan.layout.mmio_start.get());
    }
    // QEMU places its video RAM right behind what it is told here: it must be what the builder populated.
    add(&["-machine", &machine, "-m", &mib(plan.memory.build_max).to_string()]);
    all.extend_from_slice(own);
    all
}

/// QEMU takes its options with one dash or two.
pub(crate) fn is_option(argument: &str, name: &str) -> bool {
    argument.strip_prefix('-').is_some_and(|rest| rest.strip_prefix('-').unwrap_or(rest) == name)
}

fn spawn(path: &Path, arguments: &[String], domid: DomId, output: &File) -> std::io::Result<(Child, Leash)> {
    let mut command = Command::new(path);
    command
        .args(arguments)
        .env("XEN_DOMAIN_ID", domid.to_string())
        .stdout(output.try_clone()?)
        .stderr(output.try_clone()?)
        // A Ctrl-C at our terminal is ours; it must not reach a QEMU that is to be ended in order, or to stay.
        .process_group(0);
    let leash = Leash::on(&mut command)?;
    Ok((command.spawn()?, leash))
}

fn socket(id: &str, domid: DomId) -> PathBuf {
    Path::new(RUN_DIRECTORY).join(format!("qmp-{id}-{domid}"))
}

/// Opens QEMU's log anew; the one of the name's last run stays beside it.
fn open_log(name: &str) -> Result<(PathBuf, File), Error> {
    let path = Path::new(LOG_DIRECTORY).join(format!("qemu-dm-{name}.log"));
    let failed = |what: &str, error: &std::io::Error| {
        Error::Internal(format!("cannot {what} the device model's log {}: {error}", path.display()))
    };
    for directory in [LOG_DIRECTORY, RUN_DIRECTORY] {
        fs::create_dir_all(directory).map_err(|error| failed("make the directories for", &error))?;
    }
    if path.exists() {
        fs::rename(&path, path.with_extension("log.1")).map_err(|error| failed("move", &error))?;
    }
    let file = OpenOptions::new()
        .create_new(true)
        .append(true)
        .mode(0o640)
        .open(&path)
        .map_err(|error| failed("open", &error))?;
    Ok((path, file))
}

/// The last line of a log that may be of any size.
fn last_line(log: &Path) -> Option<String> {
    const TAIL: u64 = 4096;
    let mut file = File::open(log).ok()?;
    let length = file.metadata().ok()?.len();
    file.seek(SeekFrom::Start(length.saturating_sub(TAIL))).ok()?;
    let mut text = Vec::new();
    file.take(TAIL).read_to_end(&mut text).ok()?;
    String::from_utf8_lossy(&text).lines().rev().find(|line| !line.trim().is_empty()).map(str::to_owned)
}

/// Asks QEMU's monitor one question (docs/interop/qmp-spec: a greeting, then one object a line).
fn query(socket: &Path, command: &str) -> std::io::Result<Value> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(MONITOR_PATIENCE))?;
    stream.set_write_timeout(Some(MONITOR_PATIENCE))?;
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let mut writer = stream;
    let mut answer = || -> std::io::Result<Value> {
        loop {
            let line = lines.next().ok_or_else(|| std::io::Error::other("the connection was closed"))??;
            let mut value: Value = serde_json::from_str(&line)?;
            if value.get("error").is_some() {
                return Err(std::io::Error::other(value["error"].to_string()));
            }
            if value.get("QMP").is_some() || value.get("return").is_some() {
                return Ok(value["return"].take());
            }
            // Anything else is an event.
        }
    };
    answer()?;
    writeln!(writer, "{}", json!({ "execute": "qmp_capabilities" }))?;
    answer()?;
    writeln!(writer, "{}", json!({ "execute": command }))?;
    answer()
}
