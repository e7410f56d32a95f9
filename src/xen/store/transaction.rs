//! Reads and changes nodes, inside a transaction or outside; requests are sent in batches.

use std::fmt;

use nix::errno::Errno;

use super::connection::Kind;
use super::{Permissions, Request, Store};
use crate::error::XenError;

/// The most reads in a batch: oxenstored stops reading while 1024 answers wait.
const MAX_BATCH: usize = 256;

/// The attempts to read a long list that changes meanwhile.
const MAX_LIST_READS: u32 = 50;

/// Reads and writes nodes, inside a transaction or outside. Paths are absolute.
///
/// A later call may return the error of a change in a transaction or batch, at the latest its end.
#[derive(Debug, Clone, Copy)]
pub struct Transaction<'a> {
    pub(super) store: &'a Store,
    pub(super) id: u32,
    /// Changes are queued, and their answers are read together. So it is in every transaction.
    pub(super) queues: bool,
}

impl Transaction<'_> {
    /// Reads a node; `None` if there is no such node. Invalid UTF-8 is replaced.
    ///
    /// # Errors
    /// If xenstored refuses it.
    pub fn read(&self, path: &str) -> Result<Option<String>, XenError> {
        Ok(self.read_all(&[path])?.into_iter().next().flatten())
    }

    /// Reads many nodes in batches, as [`Transaction::read`].
    ///
    /// # Errors
    /// If xenstored refuses one of the reads.
    pub fn read_all(&self, paths: &[impl AsRef<str>]) -> Result<Vec<Option<String>>, XenError> {
        let answers = self.ask_all("xs_read", Kind::XS_READ, paths)?.into_iter();
        answers.map(|answer| Ok(found(answer)?.map(|value| String::from_utf8_lossy(&value).into_owned()))).collect()
    }

    /// Writes a node and creates it and its parents if necessary. A new node inherits its parent's permissions.
    ///
    /// # Errors
    /// If xenstored refuses it.
    pub fn write(&self, path: &str, value: &str) -> Result<(), XenError> {
        let parts = [path.as_bytes(), b"\0", value.as_bytes()];
        self.change("xs_write", Kind::XS_WRITE, &parts, format_args!("{path} = {value:?}"))
    }

    /// Creates an empty node and its parents if necessary; an existing node keeps its value. A new node inherits its
    /// parent's permissions, including the owner.
    ///
    /// # Errors
    /// If xenstored refuses it.
    pub fn make(&self, path: &str) -> Result<(), XenError> {
        self.change("xs_mkdir", Kind::XS_MKDIR, &[path.as_bytes(), b"\0"], format_args!("{path}"))
    }

    /// Creates a node if necessary, and sets its permissions.
    ///
    /// # Errors
    /// If xenstored refuses it.
    pub fn make_as(&self, path: &str, permissions: Permissions) -> Result<(), XenError> {
        self.make(path)?;
        self.set_permissions(path, permissions)
    }

    /// Sets the permissions of a node, but not of its children.
    ///
    /// # Errors
    /// If xenstored refuses it.
    pub fn set_permissions(&self, path: &str, permissions: Permissions) -> Result<(), XenError> {
        let text = permissions.text();
        let parts = [path.as_bytes(), b"\0", text.as_bytes()];
        self.change("xs_set_permissions", Kind::XS_SET_PERMS, &parts, format_args!("{path}, {permissions:?}"))
    }

    /// Removes a node and its children; a missing node is no error.
    ///
    /// # Errors
    /// If xenstored refuses it.
    pub fn remove(&self, path: &str) -> Result<(), XenError> {
        self.change("xs_rm", Kind::XS_RM, &[path.as_bytes(), b"\0"], format_args!("{path}"))
    }

    /// Lists a node's children; empty if there is no such node.
    ///
    /// # Errors
    /// If xenstored refuses it.
    pub fn children(&self, path: &str) -> Result<Vec<String>, XenError> {
        Ok(self.children_of_all(&[path])?.into_iter().flatten().collect())
    }

    /// Lists the children of many nodes in batches, as [`Transaction::children`].
    ///
    /// # Errors
    /// If xenstored refuses one of the reads.
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

    /// Lists children that do not fit into one answer, in parts. Each part begins with a number that changes with the
    /// children.
    fn children_in_parts(&self, path: &str) -> Result<Vec<u8>, XenError> {
        let (mut list, mut number) = (Vec::new(), Vec::new());
        let mut changes = 0;
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
                changes += 1;
                if changes >= MAX_LIST_READS {
                    let text = format!("the list changed {changes} times while it was read");
                    return Err(XenError::unexpected("xs_directory", path.to_owned(), text));
                }
                list.clear();
                continue;
            }
            list.extend_from_slice(names);
            // An empty name follows the last one.
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

    pub(super) fn ask(
        &self,
        call: &'static str,
        kind: Kind,
        parts: &[&[u8]],
        arguments: fmt::Arguments<'_>,
    ) -> Result<Vec<u8>, XenError> {
        self.store.0.borrow_mut().ask(self.request(call, kind, parts, arguments))
    }

    /// Sends a request for each node, in batches if possible. The queued changes must succeed.
    fn ask_all(
        &self,
        call: &'static str,
        kind: Kind,
        paths: &[impl AsRef<str>],
    ) -> Result<Vec<Result<Vec<u8>, XenError>>, XenError> {
        let inner = &mut *self.store.0.borrow_mut();
        let changes = inner.open.len();
        let mut answers = Vec::with_capacity(changes + paths.len());
        let at_once = if inner.connection.takes_many { MAX_BATCH } else { 1 };
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

    /// Sends a change; inside a transaction or batch it is queued if possible.
    fn change(
        &self,
        call: &'static str,
        kind: Kind,
        parts: &[&[u8]],
        arguments: fmt::Arguments<'_>,
    ) -> Result<(), XenError> {
        let request = Request { is_change: self.queues, ..self.request(call, kind, parts, arguments) };
        let inner = &mut *self.store.0.borrow_mut();
        if !self.queues || !inner.connection.takes_many {
            return inner.ask(request).map(drop);
        }
        inner.prepare(request)
    }
}

/// Maps `ENOENT` to `None`.
fn found(answer: Result<Vec<u8>, XenError>) -> Result<Option<Vec<u8>>, XenError> {
    match answer {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.errno == Some(Errno::ENOENT) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::path::PathBuf;
    use std::thread;
    use std::time::Duration;

    use super::*;
    use crate::store::connection::Connection;
    use dombuild_os::wait::WaitLimit;

    /// A xenstored that answers each request by `answer`.
    fn store(mut answer: impl FnMut(u32) -> (Kind, Vec<u8>) + Send + 'static) -> (Store, thread::JoinHandle<()>) {
        let (ours, mut theirs) = UnixStream::pair().expect("sockets");
        ours.set_nonblocking(true).expect("set");
        let server = thread::spawn(move || {
            let mut header = [0; 16];
            while theirs.read_exact(&mut header).is_ok() {
                let word = |at: usize| u32::from_ne_bytes(header[at..at + 4].try_into().expect("four"));
                let mut content = vec![0; usize::try_from(word(12)).expect("small")];
                theirs.read_exact(&mut content).expect("a request");
                let (kind, content) = answer(word(0));
                let length = u32::try_from(content.len()).expect("small");
                let head = [kind.0, word(4), word(8), length].into_iter().flat_map(u32::to_ne_bytes);
                theirs.write_all(&head.chain(content).collect::<Vec<_>>()).expect("sent");
            }
        });
        let limit = WaitLimit { timeout: Duration::from_secs(60), ..WaitLimit::default() };
        (Store::on(Connection::on(File::from(OwnedFd::from(ours)), PathBuf::new(), true, limit)), server)
    }

    #[test]
    fn a_list_that_never_stops_changing_is_given_up() {
        let mut generation = 0;
        let (store, server) = store(move |kind| {
            if kind == Kind::XS_DIRECTORY.0 {
                return (Kind::XS_ERROR, b"E2BIG\0".to_vec());
            }
            generation += 1;
            (Kind::XS_DIRECTORY_PART, format!("{generation}\0name\0").into_bytes())
        });
        let error = store.plain().children("/local").expect_err("it never ends");
        assert!(error.call == "xs_directory" && error.to_string().contains("changed 50 times"), "{error}");
        drop(store);
        server.join().expect("it ended");
    }
}
