//! The handle of xenstored, with transactions, permissions and watches. Its calls have libxenstore's names in errors.

mod connection;
mod permissions;
mod transaction;

use std::cell::RefCell;
use std::fmt;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::error::{self, XenError};
use super::{DomId, EventPort};
use crate::memory::Gfn;
use connection::{Connection, Kind};
pub use permissions::Permissions;
pub use transaction::Transaction;

/// How often a transaction that collided with another is tried again.
const TRANSACTION_TRIES: u32 = 50;

/// A connection to xenstored.
pub struct Store(RefCell<Inner>);

struct Inner {
    connection: Connection,
    /// Changes whose answers nobody has read yet.
    open: Vec<Open>,
    /// The first change of the transaction that failed, whoever was told of it.
    failed: Option<XenError>,
}

/// A request that waits for its answer.
struct Open {
    number: u32,
    kind: Kind,
    call: &'static str,
    arguments: String,
    /// It changes something in a transaction.
    is_change: bool,
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Store")
    }
}

impl Inner {
    /// Prepares a request.
    fn prepare(&mut self, request: Request<'_>) -> Result<(), XenError> {
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

    /// Sends what was prepared and reads the answers, one for each request.
    fn answers(&mut self) -> Vec<Result<Vec<u8>, XenError>> {
        let sent = self.connection.send();
        let open = std::mem::take(&mut self.open).into_iter();
        open.map(|Open { number, kind, call, arguments, is_change }| {
            let answer = match sent.and_then(|()| self.connection.answer(number, kind)) {
                // It is gone already, which is as good.
                Err(Errno::ENOENT) if kind == Kind::XS_RM => Ok(Vec::new()),
                answer => answer,
            };
            let answer = error::answered(call, format_args!("{arguments}"), answer);
            if let Err(error) = answer.as_ref()
                && is_change
            {
                self.failed.get_or_insert_with(|| error.clone());
            }
            answer
        })
        .collect()
    }

    /// Sends what was prepared and reads all answers: the last one, or the first error.
    fn settle(&mut self) -> Result<Vec<u8>, XenError> {
        self.answers().into_iter().try_fold(Vec::new(), |_, answer| answer)
    }

    /// A request of which the answer matters at once, behind those that are open.
    fn ask(&mut self, request: Request<'_>) -> Result<Vec<u8>, XenError> {
        self.prepare(request)?;
        self.settle()
    }
}

/// What is asked of xenstored. Of several parts the first one is a path.
struct Request<'a> {
    call: &'static str,
    kind: Kind,
    transaction: u32,
    parts: &'a [&'a [u8]],
    arguments: fmt::Arguments<'a>,
    is_change: bool,
}

impl Store {
    /// Connects to xenstored.
    ///
    /// # Errors
    /// Where it is not running, or the caller may not.
    pub fn open() -> Result<Self, XenError> {
        let connection = error::answered("xs_open", format_args!(""), Connection::open())?;
        Ok(Self(RefCell::new(Inner { connection, open: Vec::new(), failed: None })))
    }

    /// Single reads and writes, each for itself.
    #[must_use]
    pub fn plain(&self) -> Transaction<'_> {
        Transaction { store: self, id: 0 }
    }

    /// Runs `work` in a transaction: all of it happens, or nothing. Runs it again where another writer came between.
    ///
    /// # Errors
    /// What `work` returns, or where xenstored refuses the transaction.
    pub fn transaction<T, E: From<XenError>>(
        &self,
        mut work: impl FnMut(&Transaction<'_>) -> Result<T, E>,
    ) -> Result<T, E> {
        let mut tries = 0;
        loop {
            tries += 1;
            let id = self.begin()?;
            let outcome = work(&Transaction { store: self, id });
            // Every change has to have succeeded, also one whose error was told to somebody who went on.
            let failed = {
                let inner = &mut *self.0.borrow_mut();
                inner.answers();
                inner.failed.take()
            };
            let outcome = outcome.and_then(|value| Ok(failed.map_or(Ok(value), Err)?));
            let (word, text): (&[u8], _) = if outcome.is_ok() { (b"T\0", "commit") } else { (b"F\0", "abort") };
            let ended = Transaction { store: self, id }.ask(
                "xs_transaction_end",
                Kind::XS_TRANSACTION_END,
                &[word],
                format_args!("{text}"),
            );
            // Why it is aborted is what matters then.
            let value = outcome?;
            match ended {
                Ok(_) => return Ok(value),
                Err(error) if error.errno == Some(Errno::EAGAIN) && tries < TRANSACTION_TRIES => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// The number of a new transaction.
    fn begin(&self) -> Result<u32, XenError> {
        const CALL: &str = "xs_transaction_start";
        let answer = self.plain().ask(CALL, Kind::XS_TRANSACTION_START, &[b"\0"], format_args!(""))?;
        let text = String::from_utf8_lossy(&answer).into_owned();
        let id = text.trim_end_matches('\0').parse().ok().filter(|id| *id != 0);
        id.ok_or_else(|| XenError::unexpected(CALL, String::new(), format!("xenstored calls it {text:?}")))
    }

    /// Tells xenstored about a domain's ring, so that the guest can talk to it.
    ///
    /// # Errors
    /// Where xenstored refuses it.
    pub fn introduce(&self, domid: DomId, ring: Gfn, port: EventPort) -> Result<(), XenError> {
        let words = format!("{domid}\0{}\0{port}\0", ring.0);
        let arguments = format_args!("domid {domid}, gfn {:#x}, port {port}", ring.0);
        self.plain().ask("xs_introduce_domain", Kind::XS_INTRODUCE, &[words.as_bytes()], arguments).map(drop)
    }

    /// Asks to be woken when a node changes; [`Store::wait`] does the waiting. The watch fires once at once.
    ///
    /// # Errors
    /// Where xenstored refuses it.
    pub fn watch(&self, path: &str) -> Result<(), XenError> {
        // The path is the watch's name as well.
        let parts = [path.as_bytes(), b"\0", path.as_bytes(), b"\0"];
        self.plain().ask("xs_watch", Kind::XS_WATCH, &parts, format_args!("{path}")).map(drop)
    }

    /// Waits until a watch fires or `timeout` has passed (also when a signal comes). What fired is not told: the caller
    /// looks again anyway.
    ///
    /// # Errors
    /// Where the connection is gone.
    pub fn wait(&self, timeout: Duration) -> Result<(), XenError> {
        let connection = &mut self.0.borrow_mut().connection;
        let end = Instant::now() + timeout;
        let mut told = connection.take_fired();
        loop {
            let left = if told { Duration::ZERO } else { end.saturating_duration_since(Instant::now()) };
            let ready = connection.has_more() || {
                let mut polled = [PollFd::new(connection.as_fd(), PollFlags::POLLIN)];
                let ready = poll(&mut polled, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
                let ready = if ready == Err(Errno::EINTR) { Ok(0) } else { ready };
                error::answered("xs_check_watch", format_args!(""), ready)? > 0
            };
            if !ready {
                connection.take_fired();
                return Ok(());
            }
            error::answered("xs_check_watch", format_args!(""), connection.read_event())?;
            told = true;
        }
    }
}
