//! The mode `listen`: emu-manager, which xenopsd starts to migrate a guest, starts this helper and gives orders by [`super::emp`].

use std::io::{self, ErrorKind, Write};
use std::mem;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::clients::Clients;
use super::emp::{self, Command, Name};
use super::migrate::{Restoring, check_may_move, domain_of, guest_number, node_of, start_save, tell};
use super::options::Options;
use crate::context::Context;
use crate::error::{AtStage, Error, Failure, Wait};
use crate::memory::{Gfn, Pages};
use crate::migration::helper::{Answer, Event, Helper};
use crate::stage::Stage;
use crate::xen::{DomId, DomainInfo, Round};

/// How long there may be no client.
const WITHOUT_CLIENT: Duration = Duration::from_secs(120);

/// The interval of events while a round lasts.
const INTERVAL: Duration = Duration::from_millis(500);

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
        let clients = context.step(Stage::CheckInput, || {
            Clients::listen(self.domid).map_err(Error::io("listen for emu-manager in /var/xen/xenguest"))
        })?;
        let said = say_ready().map_err(Error::io("write the word Ready to standard output"));
        said.at(Stage::CheckInput)?;
        let mut server = Server {
            context,
            domain,
            job: self,
            clients,
            stream: None,
            ports: (None, None),
            rule: Answer::GoOn,
            suspended: false,
            work: Work::Nothing,
            records: false,
            ended: false,
        };
        let served = server.run();
        if served.is_err() {
            server.abort();
        }
        served
    }
}

/// The word that emu-manager waits for before it connects.
fn say_ready() -> io::Result<()> {
    let mut output = io::stdout();
    output.write_all(b"Ready\n").and_then(|()| output.flush())
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
    clients: Clients,
    stream: Option<OwnedFd>,
    /// The event channels of the store ring and of the console ring.
    ports: (Option<u32>, Option<u32>),
    /// What a live save does after a round.
    rule: Answer,
    /// The guest is suspended.
    suspended: bool,
    work: Work,
    /// A live save has begun, and Xen records what the guest changes.
    records: bool,
    /// A client has said that this is all.
    ended: bool,
}

impl Server<'_> {
    fn run(&mut self) -> Result<(), Failure> {
        let mut without_client = Instant::now();
        let mut last_event = Instant::now();
        while !self.ended {
            let work = match &self.work {
                // A child that waits for an answer says nothing before its end.
                Work::Saving { helper, .. } => Some(helper.socket()),
                Work::Restoring(restoring) => Some(restoring.end()),
                Work::Nothing | Work::Done => None,
            };
            let waited = self.clients.wait(work, INTERVAL).map_err(Error::io("wait for emu-manager"));
            let ready = waited.at(Stage::CheckInput)?;
            for index in ready.clients {
                self.obey(index)?;
            }
            if ready.work {
                self.go_on()?;
            }
            if last_event.elapsed() >= INTERVAL {
                last_event = Instant::now();
                self.tell_meanwhile();
            }
            if !self.clients.are_none() {
                without_client = Instant::now();
            } else if without_client.elapsed() >= WITHOUT_CLIENT {
                let what = "emu-manager did not connect, or has gone".to_owned();
                return Err(Error::TimedOut { what, after: WITHOUT_CLIENT, wait: Wait::Migration })
                    .at(Stage::CheckInput);
            }
        }
        match self.work {
            Work::Nothing | Work::Done => Ok(()),
            Work::Saving { .. } | Work::Restoring(_) => Err(aborted()),
        }
    }

    /// Does what a client says.
    fn obey(&mut self, index: usize) -> Result<(), Failure> {
        while let Some(client) = self.clients.get_mut(index) {
            let command = match client.command() {
                Ok(None) => break,
                Ok(Some(command)) => command,
                Err(problem) => {
                    log::error!("{problem}");
                    self.clients.send(index, &emp::refused(&problem));
                    continue;
                }
            };
            log::info!("command: {:?}", command.execute);
            match self.execute(index, command) {
                Ok(answer) => self.clients.send(index, &answer),
                Err(Refusal::Command(problem)) => {
                    log::error!("{problem}");
                    self.clients.send(index, &emp::refused(&problem));
                }
                Err(Refusal::Failed(failure)) => {
                    self.clients.send(index, &emp::refused(&failure.to_string()));
                    return Err(failure);
                }
            }
        }
        Ok(())
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
        self.records = live;
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
                        self.clients.tell_all(&emp::completed(None));
                        return Ok(());
                    }
                    // emu-manager has QEMU record what it changes.
                    Event::LogDirty(_) => (Some(Answer::GoOn), round),
                    Event::Round(round) => {
                        tell(round);
                        if round.dirty.is_some() {
                            self.clients.tell_progress(&emp::progress(round, false));
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
                self.clients.tell_all(&emp::completed(Some((store, console))));
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
        if let Work::Saving { round: Some(round), held: false, .. } = self.work {
            self.clients.tell_progress(&emp::progress(round, true));
        }
    }

    /// Ends what is being done. The guest runs on at its caller's word.
    fn abort(&mut self) {
        // The child first: it may begin to record.
        self.work = Work::Done;
        if !self.records {
            return;
        }
        if let Err(error) = self.context.xen.stop_log_dirty(self.domain.domid) {
            log::warn!("domain {} still records which pages it changes: {error}", self.domain.domid);
        }
    }
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
