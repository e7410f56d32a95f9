//! `run`: starts the guest of a configuration file, or takes over the one that runs, and looks after it until its end.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use sd_notify::NotifyState;
use serde_json::{Value, json};
use signal_hook::consts::{SIGHUP, SIGUSR1};
use signal_hook::flag;

use super::create::start_guest;
use super::destroy::destroy;
use crate::cli::args::CreateArgs;
use crate::cli::args::run::RunArgs;
use crate::cli::connection::Connection;
use crate::cli::guest_file::GuestFile;
use crate::cli::print::{self, Done};
use crate::cli::reporter::Reporter;
use crate::config::name::DomainName;
use crate::config::on_end::{EndActions, OnEnd};
use crate::domain::find::name_owner;
use crate::domain::identity::created_by_dombuild;
use crate::error::{AtStage, Error, Failure};
use crate::lifecycle::adopt::end_xls_supervisors;
use crate::lifecycle::departure::{Departure, departure};
use crate::lifecycle::supervise::{GuestEnd, RestartLimit, rename, shut_down, wait_end, watch_ends};
use crate::observer;
use crate::os::shared_file;
use crate::runs::journal::STATE_DIR;
use crate::stage::Stage;
use crate::xen::DomainRef;

/// Where xl writes the memory of guests that have ended (`XEN_DUMP_DIR`).
const DUMPS: &str = "/var/lib/xen/dump";

/// The most names that are tried for a guest that stays as it is.
const MOST_NAMES: u32 = 1000;

/// What is started again.
struct Guest {
    create: CreateArgs,
    name: DomainName,
    on_end: EndActions,
}

pub(crate) fn run(reporter: &Reporter, arguments: &RunArgs, json: bool) -> anyhow::Result<Done> {
    let reread = Arc::new(AtomicBool::new(false));
    flag::register(SIGHUP, Arc::clone(&reread)).map_err(Error::io("handle SIGHUP")).at(Stage::CheckInput)?;
    let guest = observer::step(reporter, Stage::CheckInput, || read(reporter, arguments))?;
    let lock = lock(&guest.name).at(Stage::CheckInput)?;
    let connection = Connection::open_for_supervisor(reporter, arguments.store.store_timeout)?;
    let mut supervisor = Supervisor { reporter, arguments, json, connection, guest, reread };
    let done = supervisor.look_after();
    lock.release();
    // Each event was printed when it happened.
    Ok(done?)
}

fn read(reporter: &Reporter, arguments: &RunArgs) -> Result<Guest, Error> {
    let file = GuestFile::read(reporter, &arguments.file, &arguments.settings)?;
    let create = file.create_args(&arguments.flags)?;
    for (flag, given) in [
        ("--dry-run", create.dry_run),
        ("--paused", create.paused),
        ("--foreground", create.foreground),
        ("--console", create.console),
        ("--vncviewer", create.vncviewer),
    ] {
        if given {
            return Err(Error::BadConfig(format!("{flag} is for create: run starts the guest and looks after it")));
        }
    }
    let name = create.name.parse().map_err(|reason| Error::BadConfig(format!("name {:?}: {reason}", create.name)))?;
    let of_file = file.on_end();
    let on_end = EndActions {
        poweroff: arguments.on_poweroff.unwrap_or(of_file.poweroff),
        reboot: arguments.on_reboot.unwrap_or(of_file.reboot),
        crash: arguments.on_crash.unwrap_or(of_file.crash),
        watchdog: arguments.on_watchdog.unwrap_or(of_file.watchdog),
        soft_reset: of_file.soft_reset,
    };
    let EndActions { poweroff, reboot, crash, watchdog, soft_reset } = on_end;
    let renames = [poweroff, reboot, crash, watchdog, soft_reset].contains(&OnEnd::RenameRestart);
    if renames && create.domain.uuid.is_some() {
        return Err(Error::BadConfig(
            "rename-restart keeps the old guest with its UUID, and two guests cannot have the same: leave out uuid"
                .to_owned(),
        ));
    }
    Ok(Guest { create, name, on_end })
}

/// The lock of the run that looks after a guest. The file of a killed run stays, and the next run takes it.
struct RunLock {
    path: PathBuf,
    file: File,
}

impl RunLock {
    /// Whether the file still has its name: the run that had the lock before removes it.
    fn is_current(&self) -> io::Result<bool> {
        let own = self.file.metadata()?;
        match fs::symlink_metadata(&self.path) {
            Ok(named) => Ok((named.dev(), named.ino()) == (own.dev(), own.ino())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn release(self) {
        // While it is locked, so that no other run has it.
        if let Err(error) = shared_file::remove_file(&self.path) {
            log::warn!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// One run looks after a guest at a time.
fn lock(name: &DomainName) -> Result<RunLock, Error> {
    let path = Path::new(STATE_DIR).join(format!("run-{}.lock", name.file_name()));
    let failed = |error| Error::io(format!("take the lock {}", path.display()))(error);
    DirBuilder::new().recursive(true).mode(0o700).create(STATE_DIR).map_err(failed)?;
    loop {
        let file = shared_file::open(&path, OpenOptions::new().write(true), Some(0o600)).map_err(failed)?.into_file();
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(Error::BadConfig(format!(
                    "another dombuild run looks after {name}: end that one first ({} is locked)",
                    path.display()
                )));
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let lock = RunLock { path: path.clone(), file };
        if lock.is_current().map_err(failed)? {
            return Ok(lock);
        }
    }
}

/// Tells the service manager, if there is one.
fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        log::warn!("no message to the service manager: {error}");
    }
}

/// Removes ended QEMUs from the list of processes: this process started them.
fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            break;
        }
    }
}

/// A guest under this run.
struct Supervisor<'a> {
    reporter: &'a Reporter,
    arguments: &'a RunArgs,
    json: bool,
    connection: Connection<'a>,
    guest: Guest,
    /// SIGHUP has come.
    reread: Arc<AtomicBool>,
}

impl Supervisor<'_> {
    fn look_after(&mut self) -> Result<Done, Failure> {
        let (most, window) = (self.arguments.restart_limit, self.arguments.restart_window);
        let mut limit = RestartLimit::new(most.into(), window);
        watch_ends(&self.connection.context()).at(Stage::Connect)?;
        let mut domain = self.first()?;
        loop {
            let status = format!("{} is domain {}", self.guest.name, domain.domid);
            notify(&[NotifyState::Ready, NotifyState::Status(&status)]);
            let context = self.connection.context();
            let waited = context.step(Stage::WaitGuest, || wait_end(&context, domain));
            self.reporter.clear_line();
            let end = match waited {
                Err(Failure { error: Error::Interrupted { signal: SIGUSR1 }, .. }) => {
                    return self.done(domain, "left running", "is left running");
                }
                Err(Failure { error: Error::Interrupted { .. }, .. }) => return self.stop(domain),
                end => end?,
            };
            let GuestEnd::Shutdown(reason) = end else {
                reap();
                return self.gone(domain);
            };
            let action = self.guest.on_end.of(reason);
            self.tell(domain, &reason.to_string(), &format!("ended: {reason}; {}", action.as_str()), Some(action))?;
            if action.dumps() {
                self.dump(domain);
            }
            match action {
                OnEnd::Preserve => return self.done(domain, "preserved", "stays as it is"),
                OnEnd::RenameRestart => self.rename(domain)?,
                _ => destroy(&self.connection, domain)?,
            }
            reap();
            if !action.restarts() {
                return self.done(domain, "destroyed", "is destroyed");
            }
            if !limit.allows(Instant::now()) {
                let name = self.guest.name.to_string();
                return Err(Error::RestartsTooOften { name, most, window }).at(Stage::WaitGuest);
            }
            self.read_again();
            domain = self.start()?;
        }
    }

    /// The guest that runs already, or a new one.
    fn first(&mut self) -> Result<DomainRef, Failure> {
        let (connection, name) = (&self.connection, &self.guest.name);
        let owner = name_owner(&connection.xen, &connection.store.plain(), name.as_str()).at(Stage::CreateDomain)?;
        let running = owner.map(|domid| connection.xen.domain(domid)).transpose().at(Stage::CreateDomain)?.flatten();
        let Some(info) = running else { return self.start() };
        let (domid, domain) = (info.domid, info.held());
        let is_ours = created_by_dombuild(&connection.xen, &connection.store, domid).at(Stage::CreateDomain)?;
        if !is_ours && !self.arguments.adopt {
            let message =
                format!("{name} is domain {domid}, which another toolstack made: --adopt looks after it, too");
            return Err(Error::BadConfig(message)).at(Stage::CreateDomain);
        }
        let ended = end_xls_supervisors(name.as_str()).at(Stage::CreateDomain)?;
        if ended > 0 {
            log::info!("xl no longer looks after {name}: {ended} of its processes have ended");
        }
        self.tell(domain, "taken-over", "runs already, and is looked after from now on", None)?;
        Ok(domain)
    }

    fn start(&self) -> Result<DomainRef, Failure> {
        start_guest(self.reporter, &self.connection, &self.guest.create, self.json)
    }

    /// Reads the file again if that was asked for. A file that is wrong now changes nothing.
    fn read_again(&mut self) {
        if !self.reread.swap(false, Ordering::Relaxed) && !self.arguments.reread {
            return;
        }
        match read(self.reporter, self.arguments) {
            Ok(new) if new.name.as_str() == self.guest.name.as_str() => self.guest = new,
            Ok(new) => log::warn!("the file now names {}: {} starts as before", new.name, self.guest.name),
            Err(error) => log::warn!("{}: {} starts as before", print::explain(&error), self.guest.name),
        }
    }

    /// Writes its memory to a file. If that fails, the guest goes all the same.
    fn dump(&self, domain: DomainRef) {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let file = Path::new(DUMPS).join(format!("{}-{seconds}.core", self.guest.name.file_name()));
        let made = DirBuilder::new().recursive(true).mode(0o700).create(DUMPS).map_err(|error| error.to_string());
        let dumped =
            made.and_then(|()| self.connection.xen.dump_core(domain.domid, &file).map_err(|error| error.to_string()));
        match dumped {
            Ok(()) => log::info!("the memory of domain {} is in {}", domain.domid, file.display()),
            Err(error) => log::error!("the memory of domain {} is not kept: {error}", domain.domid),
        }
    }

    /// Gives an ended guest the first free name of NAME-1, NAME-2, ...
    fn rename(&self, domain: DomainRef) -> Result<(), Failure> {
        let context = self.connection.context();
        let free = |number: u32| -> Result<Option<DomainName>, Error> {
            let Ok(name) = format!("{}-{number}", self.guest.name).parse::<DomainName>() else { return Ok(None) };
            let owner = name_owner(context.xen, &context.store.plain(), name.as_str())?;
            Ok(owner.is_none().then_some(name))
        };
        let found = (1..=MOST_NAMES).find_map(|number| free(number).transpose()).transpose().at(Stage::WaitGuest)?;
        let no_name = || Error::BadConfig(format!("there is no free name for the guest that was {}", self.guest.name));
        let name = found.ok_or_else(no_name).at(Stage::WaitGuest)?;
        rename(&context, domain, &name).at(Stage::WaitGuest)?;
        self.tell(domain, "renamed", &format!("is {name} from now on"), None)
    }

    /// Shuts the guest down, and destroys it in the end. A second signal destroys it at once.
    fn stop(&self, domain: DomainRef) -> Result<Done, Failure> {
        notify(&[NotifyState::Stopping]);
        let connection = Connection::open_for_supervisor(self.reporter, self.arguments.store.store_timeout)?;
        let context = connection.context();
        watch_ends(&context).at(Stage::Connect)?;
        self.tell(domain, "stopping", "is asked to shut down", None)?;
        let end = context.step(Stage::WaitGuest, || shut_down(&context, domain, self.arguments.shutdown_timeout));
        self.reporter.clear_line();
        let how = match end {
            Ok(Some(GuestEnd::Shutdown(reason))) => reason.to_string(),
            Ok(Some(GuestEnd::Gone)) => return self.gone(domain),
            Ok(None) => format!("it did not shut down within {} s", self.arguments.shutdown_timeout.as_secs()),
            Err(Failure { error: Error::Interrupted { .. }, .. }) => "a second signal came".to_owned(),
            Err(failure) => {
                log::warn!("{}", print::explain(&failure.error));
                "it cannot be asked".to_owned()
            }
        };
        // A signal that came meanwhile would end this connection's waits.
        let last = Connection::open(self.reporter, false, self.arguments.store.store_timeout)?;
        destroy(&last, domain)?;
        reap();
        self.done(domain, "stopped", &format!("is destroyed: {how}"))
    }

    /// Prints what has happened.
    fn tell(&self, domain: DomainRef, event: &str, text: &str, action: Option<OnEnd>) -> Result<(), Failure> {
        self.reporter.clear_line();
        let printed = if self.json {
            print::print_json(&self.object(domain, event, action))
        } else {
            print::print_text(&format!("{} (domain {}) {text}", self.guest.name, domain.domid))
        };
        printed.map_err(|error| Error::Internal(format!("{error:#}"))).at(Stage::WaitGuest)
    }

    fn object(&self, domain: DomainRef, event: &str, action: Option<OnEnd>) -> Value {
        json!({
            "name": self.guest.name.as_str(),
            "domid": domain.domid,
            "uuid": domain.uuid,
            "event": event,
            "action": action.map(OnEnd::as_str),
        })
    }

    /// The guest's domain does not exist any more.
    fn gone(&self, domain: DomainRef) -> Result<Done, Failure> {
        match departure(domain) {
            Some(Departure::Saved) => self.done(domain, "saved", "was saved to a file"),
            Some(Departure::Migrated) => self.done(domain, "migrated", "has migrated to another host"),
            None => self.done(domain, "destroyed", "was destroyed by another program"),
        }
    }

    /// The end of this run.
    fn done(&self, domain: DomainRef, event: &str, text: &str) -> Result<Done, Failure> {
        self.tell(domain, event, text, None)?;
        let summary = format!("{} (domain {}) {text}", self.guest.name, domain.domid);
        Ok(Done { object: self.object(domain, event, None), summary })
    }
}
