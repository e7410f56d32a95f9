//! The handle of libxenstore, with transactions, permissions and watches.

use std::ffi::{CStr, CString};
use std::fmt;
use std::os::fd::BorrowedFd;
use std::os::raw::{c_char, c_uint, c_void};
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use xen_sys as sys;

use super::error::{self, XenError};
use super::{DomId, EventPort};
use crate::memory::Gfn;

/// How often a transaction that collided with another is tried again.
const TRANSACTION_TRIES: u32 = 50;

/// A connection to xenstored.
pub struct Store {
    raw: NonNull<sys::xs_handle>,
}

impl fmt::Debug for Store {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Store")
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: `raw` came from xs_open and is closed once. An open transaction ends with it.
        unsafe { sys::xs_close(self.raw.as_ptr()) };
    }
}

/// What a domain may do with a node that it does not own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Nothing.
    None,
    /// Read it.
    Read,
}

/// Who may do what with a node (docs/misc/xenstore.txt: the first entry names the owner and everybody's rights).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Permissions {
    /// The owner, who may always read and write.
    pub owner: DomId,
    /// One more domain and its access.
    pub other: Option<(DomId, Access)>,
}

impl Permissions {
    /// dom0's alone.
    #[must_use]
    pub fn dom0_only() -> Self {
        Self { owner: DomId::DOM0, other: None }
    }

    /// dom0's, and the guest may read it.
    #[must_use]
    pub fn read_only_for(guest: DomId) -> Self {
        Self { owner: DomId::DOM0, other: Some((guest, Access::Read)) }
    }

    /// The guest's own.
    #[must_use]
    pub fn owned_by(guest: DomId) -> Self {
        Self { owner: guest, other: None }
    }

    fn raw(self) -> Vec<sys::xs_permissions> {
        let mut list = vec![sys::xs_permissions { id: self.owner.get(), perms: sys::XS_PERM_NONE }];
        if let Some((domain, access)) = self.other {
            let perms = match access {
                Access::None => sys::XS_PERM_NONE,
                Access::Read => sys::XS_PERM_READ,
            };
            list.push(sys::xs_permissions { id: domain.get(), perms });
        }
        list
    }
}

/// Reads and writes, either one by one or inside a transaction. Paths are absolute.
#[derive(Debug, Clone, Copy)]
pub struct Transaction<'a> {
    store: &'a Store,
    id: sys::xs_transaction_t,
}

impl Transaction<'_> {
    /// A node's value, or `None` where there is no such node. Bytes that are not UTF-8 are replaced.
    ///
    /// # Errors
    /// Where xenstored refuses it.
    pub fn read(&self, path: &str) -> Result<Option<String>, XenError> {
        let c_path = c_string("xs_read", path)?;
        let mut length: c_uint = 0;
        // SAFETY: the path is NUL-terminated and `length` is a live integer.
        let value = unsafe { sys::xs_read(self.raw(), self.id, c_path.as_ptr(), &raw mut length) };
        let value = match error::pointer("xs_read", format_args!("{path}"), value) {
            Ok(value) => value,
            Err(error) if error.errno == Some(Errno::ENOENT) => return Ok(None),
            Err(error) => return Err(error),
        };
        let length = usize::try_from(length).unwrap_or(0);
        // SAFETY: xs_read returned `length` bytes that we own.
        let bytes = unsafe { std::slice::from_raw_parts(value.as_ptr().cast::<u8>(), length) };
        let text = String::from_utf8_lossy(bytes).into_owned();
        // SAFETY: the value came from malloc and is not used afterwards.
        unsafe { libc::free(value.as_ptr()) };
        Ok(Some(text))
    }

    /// Writes a node, and makes it and its parents where they are missing. A new node takes its parent's permissions.
    ///
    /// # Errors
    /// Where xenstored refuses it.
    pub fn write(&self, path: &str, value: &str) -> Result<(), XenError> {
        let c_path = c_string("xs_write", path)?;
        let length = c_uint::try_from(value.len()).unwrap_or(c_uint::MAX);
        // SAFETY: the path is NUL-terminated and the value has `length` bytes.
        let done =
            unsafe { sys::xs_write(self.raw(), self.id, c_path.as_ptr(), value.as_ptr().cast::<c_void>(), length) };
        error::truth("xs_write", format_args!("{path} = {value:?}"), done)
    }

    /// Makes an empty node, and its parents where they are missing; one that is there already stays as it is. A new node
    /// takes its parent's permissions, the owner as well.
    ///
    /// # Errors
    /// Where xenstored refuses it.
    pub fn make(&self, path: &str) -> Result<(), XenError> {
        let c_path = c_string("xs_mkdir", path)?;
        // SAFETY: the path is NUL-terminated.
        let done = unsafe { sys::xs_mkdir(self.raw(), self.id, c_path.as_ptr()) };
        error::truth("xs_mkdir", format_args!("{path}"), done)
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
        let c_path = c_string("xs_set_permissions", path)?;
        let mut list = permissions.raw();
        let count = c_uint::try_from(list.len()).unwrap_or(0);
        // SAFETY: the path is NUL-terminated and the list has `count` entries.
        let done = unsafe { sys::xs_set_permissions(self.raw(), self.id, c_path.as_ptr(), list.as_mut_ptr(), count) };
        error::truth("xs_set_permissions", format_args!("{path}, {permissions:?}"), done)
    }

    /// Removes a node and everything below it; one that is not there is no error.
    ///
    /// # Errors
    /// Where xenstored refuses it.
    pub fn remove(&self, path: &str) -> Result<(), XenError> {
        let c_path = c_string("xs_rm", path)?;
        // SAFETY: the path is NUL-terminated.
        let done = unsafe { sys::xs_rm(self.raw(), self.id, c_path.as_ptr()) };
        match error::truth("xs_rm", format_args!("{path}"), done) {
            Err(error) if error.errno == Some(Errno::ENOENT) => Ok(()),
            other => other,
        }
    }

    /// The names of a node's children; none where there is no such node.
    ///
    /// # Errors
    /// Where xenstored refuses it.
    pub fn children(&self, path: &str) -> Result<Vec<String>, XenError> {
        let c_path = c_string("xs_directory", path)?;
        let mut count: c_uint = 0;
        // SAFETY: the path is NUL-terminated and `count` is a live integer.
        let list = unsafe { sys::xs_directory(self.raw(), self.id, c_path.as_ptr(), &raw mut count) };
        let list = match error::pointer("xs_directory", format_args!("{path}"), list) {
            Ok(list) => list,
            Err(error) if error.errno == Some(Errno::ENOENT) => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let count = usize::try_from(count).unwrap_or(0);
        // SAFETY: xs_directory returned `count` pointers to NUL-terminated strings, in one allocation of ours.
        let names = unsafe { std::slice::from_raw_parts(list.as_ptr().cast::<*const c_char>(), count) }
            .iter()
            // SAFETY: as above; the allocation is freed below only.
            .map(|name| unsafe { CStr::from_ptr(*name) }.to_string_lossy().into_owned())
            .collect();
        // SAFETY: the list came from malloc and is not used afterwards.
        unsafe { libc::free(list.as_ptr().cast()) };
        Ok(names)
    }

    fn raw(&self) -> *mut sys::xs_handle {
        self.store.raw.as_ptr()
    }
}

impl Store {
    /// Connects to xenstored.
    ///
    /// # Errors
    /// Where it is not running, or the caller may not.
    pub fn open() -> Result<Self, XenError> {
        // SAFETY: takes no pointers.
        let raw = error::pointer("xs_open", format_args!(""), unsafe { sys::xs_open(0) })?;
        Ok(Self { raw })
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
            // SAFETY: the handle is open.
            let id = unsafe { sys::xs_transaction_start(self.raw.as_ptr()) };
            error::truth("xs_transaction_start", format_args!(""), id != 0)?;
            let outcome = work(&Transaction { store: self, id });
            let abort = outcome.is_err();
            // SAFETY: the handle is open and `id` is the transaction started above, ended here once.
            let ended = unsafe { sys::xs_transaction_end(self.raw.as_ptr(), id, abort) };
            let ended =
                error::truth("xs_transaction_end", format_args!("{}", if abort { "abort" } else { "commit" }), ended);
            // Why it is aborted is what matters then.
            let value = outcome?;
            match ended {
                Ok(()) => return Ok(value),
                Err(error) if error.errno == Some(Errno::EAGAIN) && tries < TRANSACTION_TRIES => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Tells xenstored about a domain's ring, so that the guest can talk to it.
    ///
    /// # Errors
    /// Where xenstored refuses it.
    pub fn introduce(&self, domid: DomId, ring: Gfn, port: EventPort) -> Result<(), XenError> {
        // SAFETY: takes no pointers but the handle.
        let done = unsafe { sys::xs_introduce_domain(self.raw.as_ptr(), domid.get(), ring.0, port.0) };
        error::truth("xs_introduce_domain", format_args!("domid {domid}, gfn {:#x}, port {port}", ring.0), done)
    }

    /// Asks to be woken when a node changes; [`Store::wait`] does the waiting. The watch fires once at once.
    ///
    /// # Errors
    /// Where xenstored refuses it.
    pub fn watch(&self, path: &str) -> Result<(), XenError> {
        let c_path = c_string("xs_watch", path)?;
        // SAFETY: path and token are NUL-terminated.
        let done = unsafe { sys::xs_watch(self.raw.as_ptr(), c_path.as_ptr(), c_path.as_ptr()) };
        error::truth("xs_watch", format_args!("{path}"), done)
    }

    /// Ends a watch.
    ///
    /// # Errors
    /// Where xenstored refuses it.
    pub fn unwatch(&self, path: &str) -> Result<(), XenError> {
        let c_path = c_string("xs_unwatch", path)?;
        // SAFETY: path and token are NUL-terminated.
        let done = unsafe { sys::xs_unwatch(self.raw.as_ptr(), c_path.as_ptr(), c_path.as_ptr()) };
        error::truth("xs_unwatch", format_args!("{path}"), done)
    }

    /// Waits until a watch fires or `timeout` has passed (also when a signal comes). What fired is not told: the caller
    /// looks again anyway.
    ///
    /// # Errors
    /// Where the connection is gone.
    pub fn wait(&self, timeout: Duration) -> Result<(), XenError> {
        // SAFETY: the handle is open; its descriptor stays open for as long as the handle.
        let descriptor = unsafe { sys::xs_fileno(self.raw.as_ptr()) };
        let end = Instant::now() + timeout;
        // SAFETY: the descriptor is open for the whole of this function, since `self` is borrowed.
        let mut polled = [PollFd::new(unsafe { BorrowedFd::borrow_raw(descriptor) }, PollFlags::POLLIN)];
        let left = end.saturating_duration_since(Instant::now());
        match poll(&mut polled, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX)) {
            Ok(0) | Err(Errno::EINTR) => return Ok(()),
            Ok(_) => {}
            Err(errno) => {
                return Err(XenError::unexpected("xs_check_watch", "poll".to_owned(), errno.desc().to_owned()));
            }
        }
        loop {
            // SAFETY: the handle is open; the result is one allocation that we own.
            let fired = unsafe { sys::xs_check_watch(self.raw.as_ptr()) };
            let errno = Errno::last();
            match NonNull::new(fired) {
                // SAFETY: the result came from malloc and is not used.
                Some(fired) => unsafe { libc::free(fired.as_ptr().cast()) },
                None if errno == Errno::EAGAIN || errno == Errno::EINTR => return Ok(()),
                None => return error::truth("xs_check_watch", format_args!(""), false),
            }
        }
    }
}

fn c_string(call: &'static str, path: &str) -> Result<CString, XenError> {
    CString::new(path).map_err(|_| XenError::unexpected(call, format!("{path:?}"), "contains a NUL byte".to_owned()))
}
