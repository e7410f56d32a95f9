//! The mode `listen`: emu-manager, which xenopsd starts to migrate a guest, starts this helper and says by [`super::emp`] what is to
//! be done.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind, Write};
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use super::emp::{self, Client, Command, Name};
use super::migrate::{Restoring, check_may_move, domain_of, guest_number, node_of, start_save, tell};
use super::options::Options;
use crate::context::Context;
use crate::error::{AtStage, Error, Failure, Wait};
use crate::memory::{Gfn, Pages};
use crate::migration::helper::{Answer, Event, Helper};
use crate::os::socket::try_connect;
use crate::stage::Stage;
use crate::xen::{DomId, DomainInfo, Round};

/// The folder in which emu-manager looks for `DOMID/control`.
const FOLDER: &str = "/var/xen/xenguest";

/// How long there may be no client.
const WITHOUT_CLIENT: Duration = Duration::from_secs(120);

/// The interval of events while a round lasts.
const INTERVAL: Duration = Duration::from_millis(500);

/// The most clients.
const MOST_CLIENTS: usize = 8;

/// What the command line asks for.
pub(super) struct Job {
    domid: DomId,
    force: bool,
    node: Option<u32>,
}

impl Job {
    /// # Errors
    /// What is missing, or what is no such number.
    pub(super) fn of(options: &Options) -> Result<Self, String> {
        Ok(Self { domid: guest_number(options)?, force: options.force, node: node_of(options)? })
    }

    /// Answers clients until one of them says that it is over.
    ///
    /// # Errors
    /// The step and the call that failed, also of what a client asked for.
    pub(super) fn serve(self, context: &Context<'_>) -> Result<(), Failure> {
        let domain = domain_of(context, self.domid)?;
        let socket = context.step(Stage::CheckInput, || {
            Socket::listen(self.domid).map_err(Error::io("listen for emu-manager in /var/xen/xenguest"))
        })?;
        let said = say_ready().map_err(Error::io("write the word Ready to standard output"));
        said.at(Stage::CheckInput)?;
        let mut server = Server {
            context,
            domain,
            job: self,
            clients: Vec::new(),
            stream: None,
            ports: (None, None),
            rule: Answer::GoOn,
            suspended: false,
            work: Work::Nothing,
            ended: false,
        };
        server.run(&socket)
    }
}

/// The word that emu-manager waits for before it connects.
fn say_ready() -> io::Result<()> {
    let mut output = io::stdout();
    output.write_all(b"Ready\n").and_then(|()| output.flush())
}

/// The socket, which goes with this process.
struct Socket {
    listener: UnixListener,
    path: PathBuf,
}

impl Socket {
    fn listen(domid: DomId) -> io::Result<Self> {
        let folder = Path::new(FOLDER).join(domid.to_string());
        DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let path = folder.join("control");
        match try_connect(&path) {
            Ok(_) => return Err(Errno::EADDRINUSE.into()),
            // A helper that was killed has left it.
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(&path)?,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let listener = UnixListener::bind(&path)?;
        listener.set_nonblocking(true)?;
        Ok(Self { listener, path })
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // The folder only if it is empty.
        let removed = fs::remove_file(&self.path).and_then(|()| self.path.parent().map_or(Ok(()), fs::remove_dir));
        if let Err(error) = removed {
            log::warn!("{}: {error}", self.path.display());
        }
    }
}

/// What is being done.
enum Work {
    Nothing,
    /// `held`: libxenguest waits until the guest is suspended. `round`: the last one.
    Saving {
        helper: Helper,
        held: bool,
        round: Option<Round>,
    },
    Restoring(Box<Restoring>),
    Done,
}

struct Server<'a> {
    context: &'a Context<'a>,
    domain: DomainInfo,
    job: Job,
    clients: Vec<Client>,
    stream: Option<OwnedFd>,
    /// The event channels of the store ring and of the console ring.
    ports: (Option<u32>, Option<u32>),
    /// What a live save does after a round.
    rule: Answer,
    /// The guest is suspended.
    suspended: bool,
    work: Work,
    /// A client has said so.
    ended: bool,
}

impl Server<'_> {
    fn run(&mut self, socket: &Socket) -> Result<(), Failure> {
        let mut without_client = Instant::now();
        let mut last_event = Instant::now();
        while !self.ended {
            let ready = self.wait(socket).map_err(Error::io("wait for emu-manager")).at(Stage::CheckInput)?;
            if ready.listener {
                self.accept(socket);
            }
            for index in ready.clients.into_iter().rev() {
                self.read(index)?;
            }
            if ready.work {
                self.go_on()?;
            }
            if last_event.elapsed() >= INTERVAL {
                last_event = Instant::now();
                self.tell_meanwhile();
            }
            if !self.clients.is_empty() {
                without_client = Instant::now();
            } else if without_client.elapsed() >= WITHOUT_CLIENT {
                self.abort();
                let what = "emu-manager did not connect, or has gone".to_owned();
                return Err(Error::TimedOut { what, after: WITHOUT_CLIENT, wait: Wait::Migration })
                    .at(Stage::CheckInput);
            }
        }
        match self.work {
            Work::Nothing | Work::Done => Ok(()),
            Work::Saving { .. } | Work::Restoring(_) => {
                self.abort();
                Err(aborted())
            }
        }
    }

    /// Waits until something can be read.
    fn wait(&self, socket: &Socket) -> io::Result<Ready> {
        let mut watched = vec![PollFd::new(socket.listener.as_fd(), PollFlags::POLLIN)];
        watched.extend(self.clients.iter().map(|client| PollFd::new(client.socket(), PollFlags::POLLIN)));
        match &self.work {
            // A child that waits for an answer says nothing before its end.
            Work::Saving { helper, .. } => watched.push(PollFd::new(helper.socket(), PollFlags::POLLIN)),
            Work::Restoring(restoring) => watched.push(PollFd::new(restoring.end(), PollFlags::POLLIN)),
            Work::Nothing | Work::Done => {}
        }
        match poll(&mut watched, PollTimeout::try_from(INTERVAL).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let mut readable = watched.iter().map(|one| one.any().unwrap_or(false));
        let listener = readable.next().unwrap_or(false);
        let clients = readable.by_ref().take(self.clients.len()).enumerate();
        let clients = clients.filter_map(|(index, ready)| ready.then_some(index)).collect();
        Ok(Ready { listener, clients, work: readable.next().unwrap_or(false) })
    }

    fn accept(&mut self, socket: &Socket) {
        let accepted = socket.listener.accept().and_then(|(stream, _)| Client::new(stream));
        match accepted {
            Ok(client) if self.clients.len() < MOST_CLIENTS => self.clients.push(client),
            Ok(_) => log::warn!("more than {MOST_CLIENTS} clients: the last one is turned away"),
            Err(error) => log::warn!("a client that has gone: {error}"),
        }
    }

    /// Reads from a client, and does what it says. A client that is gone, or says nothing that can be read, is forgotten.
    fn read(&mut self, index: usize) -> Result<(), Failure> {
        let Some(client) = self.clients.get_mut(index) else { return Ok(()) };
        match client.read() {
            Ok(true) => {}
            Ok(false) => {
                self.clients.remove(index);
                return Ok(());
            }
            Err(error) => {
                log::warn!("a client is lost: {error}");
                self.clients.remove(index);
                return Ok(());
            }
        }
        while let Some(client) = self.clients.get_mut(index) {
            let command = match client.command() {
                Ok(None) => break,
                Ok(Some(command)) => command,
                Err(problem) => {
                    log::error!("{problem}");
                    self.send(index, &emp::refused(&problem));
                    continue;
                }
            };
            log::info!("command: {:?}", command.execute);
            match self.execute(index, command) {
                Ok(answer) => self.send(index, &answer),
                Err(Refusal::Command(problem)) => {
                    log::error!("{problem}");
                    self.send(index, &emp::refused(&problem));
                }
                Err(Refusal::Failed(failure)) => {
                    self.send(index, &emp::refused(&failure.to_string()));
                    return Err(failure);
                }
            }
        }
        Ok(())
    }

    /// Sends to a client; one that does not read is forgotten.
    fn send(&mut self, index: usize, object: &Value) {
        let Some(Err(error)) = self.clients.get_mut(index).map(|client| client.send(object)) else { return };
        log::warn!("a client does not read: {error}");
        self.clients.remove(index);
    }

    fn execute(&mut self, index: usize, command: Command) -> Result<Value, Refusal> {
        let Some(client) = self.clients.get_mut(index) else { return Ok(emp::done()) };
        match command.execute {
            Name::MigrateInit => self.stream = client.take_descriptor(),
            Name::SetArgs => self.set_arguments(command.arguments.as_ref())?,
            Name::TrackDirty => {}
            Name::MigrateProgress => client.watches = true,
            Name::MigrateLive => self.save(true)?,
            Name::MigrateNonlive => {
                // It hears of the end in any case.
                client.watches = true;
                self.save(false)?;
            }
            Name::Restore => {
                client.watches = true;
                self.restore()?;
            }
            Name::MigratePause => self.rule = Answer::Stop,
            Name::MigratePaused => {
                self.suspended = true;
                self.answer_held(Answer::GoOn)?;
            }
            Name::MigrateAbort => {
                self.rule = Answer::Refuse;
                self.answer_held(Answer::Refuse)?;
                if matches!(self.work, Work::Restoring(_)) {
                    self.abort();
                    return Err(aborted().into());
                }
            }
            Name::Quit => self.ended = true,
        }
        Ok(emp::done())
    }

    fn set_arguments(&mut self, arguments: Option<&Value>) -> Result<(), Refusal> {
        let Some(Value::Object(arguments)) = arguments else { return Err("No Args".into()) };
        for (name, value) in arguments {
            let bad = || Refusal::Command(format!("Bad Args: {name} is {value}"));
            let text = value.as_str().ok_or_else(bad)?;
            match name.as_str() {
                "store_port" => self.ports.0 = Some(text.parse().map_err(|_| bad())?),
                "console_port" => self.ports.1 = Some(text.parse().map_err(|_| bad())?),
                // Xen knows what kind of guest it is, and a virtual GPU changes nothing here.
                "pv" | "vgpu" if matches!(text, "true" | "false") => {}
                _ => return Err(bad()),
            }
        }
        Ok(())
    }

    /// The stream, if nothing has used it.
    fn stream(&mut self) -> Result<OwnedFd, Refusal> {
        if !matches!(self.work, Work::Nothing) {
            return Err("this helper does one thing, and has begun".into());
        }
        self.stream.take().ok_or_else(|| "Missing options: no stream came with migrate_init".into())
    }

    fn save(&mut self, live: bool) -> Result<(), Refusal> {
        let stream = self.stream()?;
        check_may_move(self.context, self.domain.domid, self.job.force)?;
        let helper = self.context.step(Stage::SaveMemory, || start_save(&self.domain, stream, live))?;
        self.work = Work::Saving { helper, held: false, round: None };
        Ok(())
    }

    fn restore(&mut self) -> Result<(), Refusal> {
        let (Some(store), Some(console)) = self.ports else {
            return Err("Missing options: store_port and console_port".into());
        };
        let stream = self.stream()?;
        let domain = domain_of(self.context, self.domain.domid)?;
        let restoring = Restoring::start(self.context, domain, stream, (store, console), self.job.node)?;
        self.work = Work::Restoring(Box::new(restoring));
        Ok(())
    }

    /// Answers libxenguest, if it waits for the guest's suspension.
    fn answer_held(&mut self, answer: Answer) -> Result<(), Failure> {
        let Work::Saving { helper, held, .. } = &mut self.work else { return Ok(()) };
        if *held {
            *held = false;
            helper.answer(answer).at(Stage::SaveMemory)?;
        }
        Ok(())
    }

    /// Hears what the child says that saves or restores.
    fn go_on(&mut self) -> Result<(), Failure> {
        match mem::replace(&mut self.work, Work::Done) {
            Work::Saving { mut helper, round, .. } => {
                let event = self.context.step(Stage::SaveMemory, || helper.wait(self.context.cancel, || ()))?;
                let (answer, round) = match event {
                    Event::Done(_) => {
                        self.tell_all(&emp::completed(None));
                        return Ok(());
                    }
                    // emu-manager has QEMU record what it changes.
                    Event::LogDirty(_) => (Some(Answer::GoOn), round),
                    Event::Round(round) => {
                        tell(round);
                        if round.dirty.is_some() {
                            self.tell_all(&emp::progress(round, false));
                        }
                        (Some(self.after(round)), Some(round))
                    }
                    Event::Suspend if self.rule == Answer::Refuse => (Some(Answer::Refuse), round),
                    Event::Suspend => (self.suspended.then_some(Answer::GoOn), round),
                };
                if let Some(answer) = answer {
                    helper.answer(answer).at(Stage::SaveMemory)?;
                }
                self.work = Work::Saving { helper, held: answer.is_none(), round };
            }
            Work::Restoring(restoring) => {
                let (store, console): (Gfn, Gfn) = restoring.finish(self.context)?;
                self.tell_all(&emp::completed(Some((store, console))));
            }
            before @ (Work::Nothing | Work::Done) => self.work = before,
        }
        Ok(())
    }

    /// What follows a round: emu-manager says when the last one is, unless there is nothing left to send.
    fn after(&self, round: Round) -> Answer {
        match self.rule {
            Answer::GoOn if round.dirty == Some(Pages(0)) => Answer::Stop,
            rule => rule,
        }
    }

    /// Tells that the save goes on, while a round lasts.
    fn tell_meanwhile(&mut self) {
        if let Work::Saving { round: Some(round), .. } = self.work {
            self.tell_all(&emp::progress(round, true));
        }
    }

    /// Sends an event to each client that wants events.
    fn tell_all(&mut self, event: &Value) {
        for index in (0..self.clients.len()).rev().filter(|index| self.watched_by(*index)).collect::<Vec<_>>() {
            self.send(index, event);
        }
    }

    fn watched_by(&self, index: usize) -> bool {
        self.clients.get(index).is_some_and(|client| client.watches)
    }

    /// Ends what is being done. The guest runs on at its caller's word.
    fn abort(&mut self) {
        let was = mem::replace(&mut self.work, Work::Done);
        if let Work::Saving { helper, .. } = was {
            drop(helper);
            if let Err(error) = self.context.xen.stop_log_dirty(self.domain.domid) {
                log::warn!("domain {} still records which pages it changes: {error}", self.domain.domid);
            }
        }
    }
}

/// What can be read.
struct Ready {
    listener: bool,
    /// By their places.
    clients: Vec<usize>,
    /// The child that saves or restores.
    work: bool,
}

/// Why a command is not carried out.
enum Refusal {
    /// The client may go on.
    Command(String),
    /// The helper ends.
    Failed(Failure),
}

impl From<&str> for Refusal {
    fn from(text: &str) -> Self {
        Self::Command(text.to_owned())
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

fn aborted() -> Failure {
    let source = io::Error::new(ErrorKind::ConnectionAborted, "emu-manager has ended it");
    Failure { stage: Stage::CheckInput, error: Error::io("save or restore the guest")(source), aftermath: None }
}
