//! Passes libxc's messages to the `log` crate.
//!
//! libxc takes a `xentoollog_logger`, a table of callbacks. This one formats each message and logs it under the target
//! `dombuild::libxc`. With this logger, libxenguest does not open its own log file, /var/log/xen/domain-builder-ng.log
//! (`xc_dom_loginit`).

use std::cell::Cell;
use std::ffi::CStr;
use std::os::raw::{c_char, c_int, c_ulong};

use xen_sys as sys;

const TARGET: &str = "dombuild::libxc";

thread_local! {
    /// The last error message of libxc on this thread: `xc_dom_*` report the reason only there.
    static LAST_ERROR: Cell<Option<String>> = const { Cell::new(None) };
}

/// Takes the last error message of libxc, so that it is shown once.
pub(super) fn take_last_error() -> Option<String> {
    LAST_ERROR.take()
}

/// Whether that message is from libxenguest's `xc_dom_panic`: the call failed, whatever it returns.
pub(super) fn has_panicked() -> bool {
    let last = LAST_ERROR.take();
    let panicked = last.as_ref().is_some_and(|message| message.contains("panic: "));
    LAST_ERROR.set(last);
    panicked
}

/// The callbacks; they have no state.
static CALLBACKS: sys::xentoollog_logger =
    sys::xentoollog_logger { vmessage: Some(vmessage), progress: Some(progress), destroy: Some(destroy) };

/// The pointer for `xc_interface_open`. libxc does not write through it, although its type permits it.
pub(super) fn callbacks() -> *mut sys::xentoollog_logger {
    (&raw const CALLBACKS).cast_mut()
}

/// Maps libxc's levels (`xentoollog.h`, Xen 4.17) to those of `log`.
fn level_of(level: sys::xentoollog_level) -> log::Level {
    match level {
        sys::xentoollog_level::XTL_CRITICAL | sys::xentoollog_level::XTL_ERROR => log::Level::Error,
        sys::xentoollog_level::XTL_WARN => log::Level::Warn,
        sys::xentoollog_level::XTL_NOTICE | sys::xentoollog_level::XTL_PROGRESS => log::Level::Info,
        sys::xentoollog_level::XTL_INFO | sys::xentoollog_level::XTL_DETAIL => log::Level::Debug,
        _ => log::Level::Trace,
    }
}

/// libxc calls it for each message. It must not panic: unwinding must not cross into C.
unsafe extern "C" fn vmessage(
    _logger: *mut sys::xentoollog_logger,
    level: sys::xentoollog_level,
    errnoval: c_int,
    context: *const c_char,
    format: *const c_char,
    arguments: *mut sys::__va_list_tag,
) {
    let level = level_of(level);
    if level != log::Level::Error && !log::log_enabled!(target: TARGET, level) {
        return;
    }
    let mut text: *mut c_char = std::ptr::null_mut();
    // SAFETY: `format` and `arguments` are what libxc's caller wrote for printf, valid for this call, and consumed once.
    let length = unsafe { sys::vasprintf(&raw mut text, format, arguments) };
    if length < 0 || text.is_null() {
        return;
    }
    // SAFETY: vasprintf succeeded, so `text` is a NUL-terminated string that we own.
    let message = on_one_line(&unsafe { CStr::from_ptr(text) }.to_string_lossy());
    // SAFETY: `text` came from malloc inside vasprintf and is not used afterwards.
    unsafe { libc::free(text.cast()) };

    let context = if context.is_null() {
        String::new()
    } else {
        // SAFETY: a non-null context is a NUL-terminated string of the library, valid for this call.
        format!("{}: ", unsafe { CStr::from_ptr(context) }.to_string_lossy())
    };
    let errno = if errnoval >= 0 { format!(" ({:?})", nix::errno::Errno::from_raw(errnoval)) } else { String::new() };
    let message = format!("{context}{message}{errno}");
    if level == log::Level::Error {
        // The returned error repeats the message, with the failed call.
        log::debug!(target: TARGET, "{message}");
        // Messages after a panic are its consequences.
        if !has_panicked() {
            LAST_ERROR.set(Some(message));
        }
        return;
    }
    log::log!(target: TARGET, level, "{message}");
}

/// Some messages of libxenguest end a line that libxenctrl continues.
fn on_one_line(message: &str) -> String {
    message.trim_end().replace("\n:", ":").replace('\n', " ")
}

/// libxc calls it with the progress of long calls.
unsafe extern "C" fn progress(
    _logger: *mut sys::xentoollog_logger,
    _context: *const c_char,
    doing_what: *const c_char,
    percent: c_int,
    done: c_ulong,
    total: c_ulong,
) {
    if doing_what.is_null() {
        return;
    }
    // SAFETY: a non-null `doing_what` is a NUL-terminated string of the library, valid for this call.
    let what = unsafe { CStr::from_ptr(doing_what) }.to_string_lossy();
    log::trace!(target: TARGET, "{what}: {done}/{total} ({percent} %)");
}

/// `xtl_logger_destroy` calls it; the static logger is never destroyed.
unsafe extern "C" fn destroy(_logger: *mut sys::xentoollog_logger) {}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Records an error message as libxc would.
    pub(crate) fn say(message: &str) {
        LAST_ERROR.set(Some(message.to_owned()));
    }

    #[test]
    fn a_panic_is_known_and_stays_to_be_told() {
        for (message, panicked) in
            [("xc: panic: xg_dom_x86.c:1129: vcpu_hvm: SETHVMCONTEXT failed", true), ("xc: no", false)]
        {
            say(message);
            assert_eq!(has_panicked(), panicked);
            assert_eq!(take_last_error().as_deref(), Some(message));
        }
        assert!(!has_panicked());
    }

    #[test]
    fn a_message_is_a_line() {
        let seed = "xc_dom_gnttab_seed: failed to acquire d7 grant table [errno=5]\n: Internal error";
        assert_eq!(on_one_line(seed), seed.replace('\n', ""));
        assert_eq!(on_one_line("one\ntwo\n"), "one two");
    }
}
