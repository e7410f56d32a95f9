//! The socket on which emu-manager gives its orders, and the clients on it.

use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::Value;

use super::emp::Client;
use crate::os::socket::try_connect;
use crate::xen::DomId;

/// The folder in which emu-manager looks for `DOMID/control`.
const FOLDER: &str = "/var/xen/xenguest";

/// The most clients.
const MOST_CLIENTS: usize = 8;

/// The clients, and their socket, which goes with this process.
pub(super) struct Clients {
    listener: UnixListener,
    path: PathBuf,
    all: Vec<Client>,
}

/// What has come.
pub(super) struct Ready {
    /// The places of the clients that said something, the last one first.
    pub(super) clients: Vec<usize>,
    /// The other descriptor is readable.
    pub(super) work: bool,
}

impl Clients {
    /// Listens for the clients of a guest.
    ///
    /// # Errors
    /// `EADDRINUSE` if another process does so; an error of the system.
    pub(super) fn listen(domid: DomId) -> io::Result<Self> {
        let folder = Path::new(FOLDER).join(domid.to_string());
        // The parents are not this program's alone.
        DirBuilder::new().recursive(true).mode(0o755).create(FOLDER)?;
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
        Ok(Self { listener, path, all: Vec::new() })
    }

    pub(super) fn are_none(&self) -> bool {
        self.all.is_empty()
    }

    pub(super) fn get_mut(&mut self, index: usize) -> Option<&mut Client> {
        self.all.get_mut(index)
    }

    /// Waits until clients have said something or another descriptor is readable, at most for `timeout`. A client that is gone is
    /// forgotten.
    ///
    /// # Errors
    /// The error of poll(2).
    pub(super) fn wait(&mut self, work: Option<BorrowedFd<'_>>, timeout: Duration) -> io::Result<Ready> {
        let mut watched = vec![PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        watched.extend(self.all.iter().map(|client| {
            let output = if client.has_unsent() { PollFlags::POLLOUT } else { PollFlags::empty() };
            PollFd::new(client.socket(), PollFlags::POLLIN | output)
        }));
        watched.extend(work.map(|work| PollFd::new(work, PollFlags::POLLIN)));
        match poll(&mut watched, PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
        let ready: Vec<bool> = watched.iter().map(|one| one.any().unwrap_or(false)).collect();
        drop(watched);
        let known = self.all.len();
        let is_ready = |place: usize| ready.get(place).copied().unwrap_or(false);
        for index in (0..known).rev().filter(|index| is_ready(index + 1)) {
            self.hear(index);
        }
        if is_ready(0) {
            self.accept();
        }
        self.keep(Client::flush);
        Ok(Ready { clients: (0..self.all.len()).rev().collect(), work: is_ready(known + 1) })
    }

    /// Reads what a client has sent.
    fn hear(&mut self, index: usize) {
        match self.all.get_mut(index).map(Client::read) {
            None | Some(Ok(true)) => return,
            Some(Ok(false)) => {}
            Some(Err(error)) => log::warn!("a client is lost: {error}"),
        }
        self.all.remove(index);
    }

    fn accept(&mut self) {
        match self.listener.accept().and_then(|(stream, _)| Client::new(stream)) {
            Ok(client) if self.all.len() < MOST_CLIENTS => self.all.push(client),
            Ok(_) => log::warn!("more than {MOST_CLIENTS} clients: the last one is turned away"),
            Err(error) => log::warn!("a client that has gone: {error}"),
        }
    }

    /// Sends to a client; one that is gone is forgotten.
    pub(super) fn send(&mut self, index: usize, object: &Value) {
        let Some(Err(error)) = self.all.get_mut(index).map(|client| client.send(object)) else { return };
        log::warn!("a client is lost: {error}");
        self.all.remove(index);
    }

    /// Sends the event of the end to each client that wants events.
    pub(super) fn tell_all(&mut self, event: &Value) {
        self.keep(|client| if client.watches { client.send(event) } else { Ok(()) });
    }

    /// Sends an event to each client that wants events and reads them.
    pub(super) fn tell_progress(&mut self, event: &Value) {
        self.keep(|client| if client.watches { client.send_progress(event) } else { Ok(()) });
    }

    /// Keeps the clients with which this goes well.
    fn keep(&mut self, mut use_client: impl FnMut(&mut Client) -> io::Result<()>) {
        self.all.retain_mut(|client| match use_client(client) {
            Ok(()) => true,
            Err(error) => {
                log::warn!("a client is lost: {error}");
                false
            }
        });
    }
}

impl Drop for Clients {
    fn drop(&mut self) {
        // The folder only if it is empty.
        let removed = fs::remove_file(&self.path).and_then(|()| self.path.parent().map_or(Ok(()), fs::remove_dir));
        if let Err(error) = removed {
            log::warn!("{}: {error}", self.path.display());
        }
    }
}
