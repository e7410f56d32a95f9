//! The handle of xenstored, with transactions, permissions and watches. Its calls have libxenstore's names in errors.

mod connection;
mod permissions;

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

/// So many reads are asked for in one piece: oxenstored reads no more while 1024 answers wait.
const AT_ONCE: usize = 256;
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

/// Reads and writes, either one by one or inside a transaction. Paths are absolute.
///
/// Of changes in a transaction the errors may be told by a later call: at the latest where the transaction ends.
#[derive(Debug, Clone, Copy)]
pub struct Transaction<'a> {
    store: &'a Store,
    id: u32,
}

impl Transaction<'_> {
    /// A node's value, or `None` where there is no such node. Bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// Where xenstored refuses it.
    pub fn read(&self, path: &str) -> Result<Option<String>, XenError> {
        Ok(self.read_all(&[path])?.into_iter().next().flatten())
    }

    /// The values of many nodes, as [`Transaction::read`] has them: they are asked for in one piece.
    ///
    /// # Errors
    /// Where xenstored refuses one of them.
    pub fn read_all(&self, paths: &[impl AsRef<str>]) -> Result<Vec<Option<String>>, XenError> {
        let answers = self.ask_all("xs_read", Kind::XS_READ, paths)?.into_iter();
        answers.map(|answer| Ok(found(answer)?.map(|value| String::from_utf8_lossy(&value).into_owned()))).collect()
    }

    /// Writes a node, and makes it and its parents where they are missing. A new node takes its parent's permissions.
    ///
    /// # Errors
    /// Where xenstored refuses it.
    pub fn write(&self, path: &str, value: &str) -> Result<(), XenError> {
        let parts = [path.as_bytes(), b"\0", value.as_bytes()];
        self.change("xs_write", Kind::XS_WRITE, &parts, format_args!("{path} = {value:?}"))
    }

    /// Makes an empty node, and its parents where they are missing; one that is there already stays as it is. A new node
    /// takes its parent's permissions, the owner as well.
    ///
    /// # Errors
    /// Where xenstored refuses it.
    pub fn make(&self, path: &str) -> Result<(), XenError> {
        self.change("xs_mkdir", Kind::XS_MKDIR, &[path.as_bytes(), b"\0"], format_args!("{path}"))
    }

    /// Makes a node with these permissions; one that is there already gets them.
    ///
    /// # Errors
    /// Where xenstored refuses it.
    pub fn make_as(&self, path: &str, permissions: Permissions) -> Result<(), XenError> {
        self.make(path)?;
        self.set_permissions(path, permissions)
    }

    /// Says who may do what with a node, not with those below it.
    ///
    /// # Errors
    /// Where xenstored refuses it.
    pub fn set_permissions(&self, path: &str, permissions: Permissions) -> Result<(), XenError> {
        let text = permissions.text();
        let parts = [path.as_bytes(), b"\0", text.as_bytes()];
        self.change("xs_set_permissions", Kind::XS_SET_PERMS, &parts, format_args!("{path}, {permissions:?}"))
    }

    /// Removes a node and everything below it; one that is not there is no error.
    ///
    /// # Errors
    /// Where xenstored refuses it.
    pub fn remove(&self, path: &str) -> Result<(), XenError> {
        self.change("xs_rm", Kind::XS_RM, &[path.as_bytes(), b"\0"], format_args!("{path}"))
    }

    /// The names of a node's children; none where there is no such node.
    ///
    /// # Errors
    /// Where xenstored refuses it.
    pub fn children(&self, path: &str) -> Result<Vec<String>, XenError> {
        Ok(self.children_of_all(&[path])?.into_iter().flatten().collect())
    }

    /// The names of many nodes' children, as [`Transaction::children`] has them: they are asked for in one piece.
    ///
    /// # Errors
    /// Where xenstored refuses one of them.
    pub fn children_of_all(&self, paths: &[impl AsRef<str>]) -> Result<Vec<Vec<String>>, XenError> {
        let answers = self.ask_all("xs_directory", Kind::XS_DIRECTORY, paths)?;
        let lists = paths.iter().zip(answers).map(|(path, answer)| {
            let list = match answer {
                Err(error) if error.errno == Some(Errno::E2BIG) => found(self.children_in_parts(path.as_ref()))?,
                answer => found(answer)?,
            };
            let names = list.iter().flat_map(|list| list.split(|byte| *byte == 0)).filter(|name| !name.is_empty());
            Ok(names.map(|name| String::from_utf8_lossy(name).into_owned()).collect())
        });
        lists.collect()
    }

    /// The same list where it does not fit into one answer. Each part begins with a number that changes with the children.
    fn children_in_parts(&self, path: &str) -> Result<Vec<u8>, XenError> {
        let (mut list, mut number) = (Vec::new(), Vec::new());
        loop {
            let from = list.len().to_string();
            let parts = [path.as_bytes(), b"\0", from.as_bytes(), b"\0"];
            let part =
                self.ask("xs_directory", Kind::XS_DIRECTORY_PART, &parts, format_args!("{path} from {from} on"))?;
            let end = part.iter().position(|byte| *byte == 0).unwrap_or(part.len());
            let (now, names) = part.split_at(end);
            let names = names.get(1..).unwrap_or_default();
            if list.is_empty() {
                now.clone_into(&mut number);
            } else if now != number {
                list.clear();
                continue;
            }
            list.extend_from_slice(names);
            // Behind the last name there is an empty one.
            if names.is_empty() || names == b"\0" || names.ends_with(b"\0\0") {
                return Ok(list);
            }
        }
    }

    fn request<'a>(
        &self,
        call: &'static str,
        kind: Kind,
        parts: &'a [&'a [u8]],
        arguments: fmt::Arguments<'a>,
    ) -> Request<'a> {
        Request { call, kind, transaction: self.id, parts, arguments, is_change: false }
    }

    fn ask(
        &self,
        call: &'static str,
        kind: Kind,
        parts: &[&[u8]],
        arguments: fmt::Arguments<'_>,
    ) -> Result<Vec<u8>, XenError> {
        self.store.0.borrow_mut().ask(self.request(call, kind, parts, arguments))
    }

    /// The answers about many nodes, in one piece where that can be. Changes that are open have to have succeeded.
    fn ask_all(
        &self,
        call: &'static str,
        kind: Kind,
        paths: &[impl AsRef<str>],
    ) -> Result<Vec<Result<Vec<u8>, XenError>>, XenError> {
        let inner = &mut *self.store.0.borrow_mut();
        let changes = inner.open.len();
        let mut answers = Vec::with_capacity(changes + paths.len());
        let at_once = if inner.connection.takes_many { AT_ONCE } else { 1 };
        let mut prepared = Ok(());
        for path in paths.iter().map(AsRef::as_ref) {
            prepared = inner.prepare(self.request(call, kind, &[path.as_bytes(), b"\0"], format_args!("{path}")));
            if prepared.is_err() {
                break;
            }
            if inner.open.len() >= at_once {
                answers.extend(inner.answers());
            }
        }
        answers.extend(inner.answers());
        for change in answers.drain(..changes) {
            change?;
        }
        prepared.map(|()| answers)
    }

    /// Inside a transaction, nobody waits for it where that can be.
    fn change(
        &self,
        call: &'static str,
        kind: Kind,
        parts: &[&[u8]],
        arguments: fmt::Arguments<'_>,
    ) -> Result<(), XenError> {
        let request = Request { is_change: self.id != 0, ..self.request(call, kind, parts, arguments) };
        let inner = &mut *self.store.0.borrow_mut();
        if self.id == 0 || !inner.connection.takes_many {
            return inner.ask(request).map(drop);
        }
        inner.prepare(request)
    }
}

/// An answer, or nothing where there is no such node.
fn found(answer: Result<Vec<u8>, XenError>) -> Result<Option<Vec<u8>>, XenError> {
    match answer {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.errno == Some(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
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
