//! A client of xenstored, with transactions, permissions and watches. Errors use libxenstore's names for the calls.

mod connection;
mod permissions;
mod transaction;

use std::cell::RefCell;
use std::fmt;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::PollFlags;

use super::error::{self, XenError};
use super::{DomId, EventPort};
use connection::{Connection, Kind};
use dombuild_memory::Gfn;
use dombuild_os::wait::{Interrupt, WaitLimit, WaitResult};
pub use permissions::Permissions;
pub use transaction::Transaction;

/// The attempts at a transaction that conflicts with others.
const MAX_TRANSACTION_ATTEMPTS: u32 = 50;

/// The default deadline of an answer. A busy xenstored takes milliseconds.
pub const STORE_TIMEOUT: Duration = Duration::from_secs(30);

/// The deadline after one answer timed out: a roll-back that needs no xenstored must not wait.
const TIMEOUT_AFTER_STALL: Duration = Duration::from_secs(1);

/// The deadline during a roll-back after a signal.
const ROLLBACK_GRACE: Duration = Duration::from_secs(3);

/// A connection to xenstored. Every answer has a deadline.
pub struct Store(RefCell<Inner>);

struct Inner {
    connection: Connection,
    /// This is the second connection, after the first was lost; there is no third.
    is_second: bool,
    /// The description of the answer that timed out.
    stalled: Option<String>,
    /// Changes whose answers are not read yet.
    open: Vec<Open>,
    /// The first change of the transaction or batch that failed, reported or not.
    failed: Option<XenError>,
}

/// A request whose answer is not read yet.
struct Open {
    number: u32,
    kind: Kind,
    call: &'static str,
    arguments: String,
    /// It is a change in a transaction or batch.
    is_change: bool,
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Store")
    }
}

impl Inner {
    /// Queues a request.
    fn prepare(&mut self, request: Request<'_>) -> Result<(), XenError> {
        // Transactions end with their connection.
        if self.connection.is_lost() && request.transaction == 0 && self.open.is_empty() {
            self.reconnect();
        }
        let Request { call, kind, transaction, parts, arguments, is_change } = request;
        let arguments = arguments.to_string();
        if matches!(parts, [path, _, ..] if path.contains(&0)) {
            return Err(XenError::unexpected(call, arguments, "contains a NUL byte".to_owned()));
        }
        match self.connection.prepare(kind, transaction, parts) {
            Ok(number) => {
                self.open.push(Open { number, kind, call, arguments, is_change });
                Ok(())
            }
            Err(errno) => error::answered(call, format_args!("{arguments}"), Err(errno)),
        }
    }

    /// Sends the queued requests and reads one answer for each.
    fn answers(&mut self) -> Vec<Result<Vec<u8>, XenError>> {
        let sent = self.connection.send();
        let open = std::mem::take(&mut self.open).into_iter();
        open.map(|Open { number, kind, call, arguments, is_change }| {
            let answer = match sent.and_then(|()| self.connection.answer(number, kind)) {
                // The node does not exist, so it is removed.
                Err(Errno::ENOENT) if kind == Kind::XS_RM => Ok(Vec::new()),
                answer => answer,
            };
            let answer = error::answered(call, format_args!("{arguments}"), answer);
            let answer = answer.map_err(|error| self.with_stall(error));
            if let Err(error) = answer.as_ref()
                && is_change
            {
                self.failed.get_or_insert_with(|| error.clone());
            }
            answer
        })
        .collect()
    }

    /// Reconnects with a shorter deadline if the connection is lost: a roll-back may still get an answer.
    fn reconnect(&mut self) {
        if !std::mem::replace(&mut self.is_second, true) {
            let limit = self.connection.limit.clone();
            let timeout = limit.timeout.min(TIMEOUT_AFTER_STALL);
            match Connection::open(WaitLimit { timeout, grace: timeout, ..limit }) {
                (_, Ok(connection)) => self.connection = connection,
                (path, Err(errno)) => log::debug!("{} again: {errno}", path.display()),
            }
        }
    }

    /// Adds to an error which answer timed out, and after what time.
    fn with_stall(&mut self, error: XenError) -> XenError {
        if error.errno != Some(Errno::ETIMEDOUT) {
            return error;
        }
        let detail = self.stalled.get_or_insert_with(|| stall(self.connection.path(), self.connection.limit.timeout));
        XenError { detail: Some(detail.clone()), ..error }
    }

    /// Sends the queued requests and reads all answers: returns the last one, or the first error.
    fn settle(&mut self) -> Result<Vec<u8>, XenError> {
        self.answers().into_iter().try_fold(Vec::new(), |_, answer| answer)
    }

    /// Sends a request after the queued ones and returns its answer.
    fn ask(&mut self, request: Request<'_>) -> Result<Vec<u8>, XenError> {
        self.prepare(request)?;
        self.settle()
    }
}

fn stall(path: &Path, timeout: Duration) -> String {
    format!("xenstored at {} has not answered for {} s", path.display(), timeout.as_secs())
}

/// A request. If it has several parts, the first is a path.
struct Request<'a> {
    call: &'static str,
    kind: Kind,
    transaction: u32,
    parts: &'a [&'a [u8]],
    arguments: fmt::Arguments<'a>,
    is_change: bool,
}

impl Store {
    /// Connects to xenstored, with a deadline of [`STORE_TIMEOUT`] for each answer.
    ///
    /// # Errors
    /// If xenstored is not running, or the caller lacks the right.
    pub fn open() -> Result<Self, XenError> {
        Self::open_with(STORE_TIMEOUT, &Interrupt::default())
    }

    /// Connects to xenstored with a deadline for each answer. An answer that takes longer is an error with `ETIMEDOUT`;
    /// a signal ends the wait with `ECANCELED`. After either, the connection is not used again: one second connection
    /// has a deadline of one second.
    ///
    /// # Errors
    /// If xenstored is not running, or the caller lacks the right.
    pub fn open_with(timeout: Duration, interrupt: &Interrupt) -> Result<Self, XenError> {
        let limit = WaitLimit { timeout, grace: Duration::ZERO, interrupt: interrupt.clone() };
        let (path, opened) = Connection::open(limit);
        let connection = error::answered("xs_open", format_args!("{}", path.display()), opened).map_err(|error| {
            let late = error.errno == Some(Errno::ETIMEDOUT);
            if late { XenError { detail: Some(stall(&path, timeout)), ..error } } else { error }
        })?;
        Ok(Self::on(connection))
    }

    fn on(connection: Connection) -> Self {
        let (open, failed, stalled) = (Vec::new(), None, None);
        Self(RefCell::new(Inner { connection, is_second: false, stalled, open, failed }))
    }

    /// Lets waits continue for 3 seconds after a signal: the roll-back that the signal starts needs answers too.
    pub fn begin_rollback(&self) {
        self.0.borrow_mut().connection.limit.grace = ROLLBACK_GRACE;
    }

    /// Whether xenstored no longer answers.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.0.borrow().connection.is_lost()
    }

    /// Returns access without a transaction.
    #[must_use]
    pub fn plain(&self) -> Transaction<'_> {
        Transaction { store: self, id: 0, queues: false }
    }

    /// Runs `work` outside a transaction, and sends its changes together. Each change happens by itself, also if another
    /// one fails. Others see them one after the other.
    ///
    /// For new nodes this costs xenstored a fraction of a transaction: at the end of a transaction, the C xenstored reads each
    /// changed node again for each connection (`fire_watches`, tools/xenstore/xenstored_watch.c, Xen 4.17), and each domain is
    /// a connection.
    ///
    /// # Errors
    /// The error of `work`, or of a change.
    pub fn batch<T, E: From<XenError>>(&self, work: impl FnOnce(&Transaction<'_>) -> Result<T, E>) -> Result<T, E> {
        let outcome = work(&Transaction { store: self, id: 0, queues: true });
        self.with_changes(outcome)
    }

    /// Reads the answers of all queued changes. Each must have succeeded, even if its error was ignored.
    fn with_changes<T, E: From<XenError>>(&self, outcome: Result<T, E>) -> Result<T, E> {
        let inner = &mut *self.0.borrow_mut();
        inner.answers();
        let failed = inner.failed.take();
        outcome.and_then(|value| Ok(failed.map_or(Ok(value), Err)?))
    }

    /// Runs `work` in a transaction: all changes happen, or none. Repeats it after a conflict with another writer.
    ///
    /// # Errors
    /// The error of `work`, or of xenstored.
    pub fn transaction<T, E: From<XenError>>(
        &self,
        mut work: impl FnMut(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut tries = 0;
        loop {
            tries += 1;
            let id = self.begin()?;
            let transaction = Transaction { store: self, id, queues: true };
            let outcome = self.with_changes(work(&transaction));
            let (word, text): (&[u8], _) = if outcome.is_ok() { (b"T\0", "commit") } else { (b"F\0", "abort") };
            let ended =
                transaction.ask("xs_transaction_end", Kind::XS_TRANSACTION_END, &[word], format_args!("{text}"));
            // The reason for the abort takes precedence.
            let value = outcome?;
            match ended {
                Ok(_) => return Ok(value),
                Err(error) if error.errno == Some(Errno::EAGAIN) && tries < MAX_TRANSACTION_ATTEMPTS => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Starts a transaction and returns its ID.
    fn begin(&self) -> Result<u32, XenError> {
        const CALL: &str = "xs_transaction_start";
        let answer = self.plain().ask(CALL, Kind::XS_TRANSACTION_START, &[b"\0"], format_args!(""))?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        let id = text.trim_end_matches('\0').parse().ok().filter(|id| *id != 0);
        id.ok_or_else(|| XenError::unexpected(CALL, String::new(), format!("xenstored calls it {text:?}")))
    }

    /// Introduces a domain's ring to xenstored, so that the guest can connect.
    ///
    /// # Errors
    /// If xenstored refuses it.
    pub fn introduce(&self, domid: DomId, ring: Gfn, port: EventPort) -> Result<(), XenError> {
        let words = format!("{domid}\0{}\0{port}\0", ring.0);
        let arguments = format_args!("domid {domid}, gfn {:#x}, port {port}", ring.0);
        self.plain().ask("xs_introduce_domain", Kind::XS_INTRODUCE, &[words.as_bytes()], arguments).map(drop)
    }

    /// Tells xenstored that a domain which had shut down runs again, so that its next shutdown fires `@releaseDomain`.
    ///
    /// # Errors
    /// If xenstored refuses it.
    pub fn resume(&self, domid: DomId) -> Result<(), XenError> {
        let words = format!("{domid}\0");
        let arguments = format_args!("domid {domid}");
        self.plain().ask("xs_resume_domain", Kind::XS_RESUME, &[words.as_bytes()], arguments).map(drop)
    }

    /// Watches a node; [`Store::wait`] waits for it. The watch fires immediately once.
    /// # Errors
    /// If xenstored refuses it.
    pub fn watch(&self, path: &str) -> Result<(), XenError> {
        // The path is also the token.
        let parts = [path.as_bytes(), b"\0", path.as_bytes(), b"\0"];
        self.plain().ask("xs_watch", Kind::XS_WATCH, &parts, format_args!("{path}")).map(drop)
    }

    /// Waits until a watch fires, a signal arrives or `timeout` passes. It does not report which watch fired: the
    /// caller reads the nodes again.
    ///
    /// # Errors
    /// If the connection is lost.
    pub fn wait(&self, timeout: Duration) -> Result<(), XenError> {
        let connection = &mut self.0.borrow_mut().connection;
        let end = Instant::now() + timeout;
        let mut fired = connection.take_fired();
        loop {
            let left = if fired { Duration::ZERO } else { end.saturating_duration_since(Instant::now()) };
            let ready = connection.has_more() || {
                let limit = WaitLimit { timeout: left, ..connection.limit.clone() };
                let waited = limit.wait(connection.as_fd(), PollFlags::POLLIN);
                let waited = waited.map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw));
                error::answered("xs_check_watch", format_args!(""), waited)? == WaitResult::Ready
            };
            if !ready {
                connection.take_fired();
                return Ok(());
            }
            error::answered("xs_check_watch", format_args!(""), connection.read_event())?;
            fired = true;
        }
    }
}
