//! A failed call into Xen's libraries, and one check for each way in which they report failure.
//!
//! Every check reads `errno` before anything else can change it, logs the call with its arguments and result at debug
//! level, and turns a failure into a [`XenError`] that names the call, the errno and what was asked for.

use std::fmt;
use std::os::raw::c_int;
use std::ptr::NonNull;

use nix::errno::Errno;

use super::logger;

/// A call into libxenctrl or libxenguest, or to xenstored, that failed.
#[derive(Debug, Clone, thiserror::Error)]
pub struct XenError {
    /// The C function, for example `xc_domain_setmaxmem`; for a request to xenstored, libxenstore's.
    pub call: &'static str,
    /// What it was asked for, readable: `domid 3, 264192 KiB`.
    pub arguments: String,
    /// The errno, where the call's convention has one.
    pub errno: Option<Errno>,
    /// What the library itself said, where it said anything.
    pub detail: Option<String>,
}

impl XenError {
    /// An error for a `call` whose result is wrong although the call itself did not fail.
    #[must_use]
    pub fn unexpected(call: &'static str, arguments: String, detail: String) -> Self {
        Self { call, arguments, errno: None, detail: Some(detail) }
    }

    /// The errno's symbolic name, for example `ENOMEM`.
    #[must_use]
    pub fn errno_name(&self) -> Option<String> {
        self.errno.map(|errno| format!("{errno:?}"))
    }
}

impl fmt::Display for XenError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}({}) failed", self.call, self.arguments)?;
        if let Some(errno) = self.errno {
            write!(formatter, ": {errno:?} ({}): {}", errno as i32, errno.desc())?;
        }
        match &self.detail {
            Some(detail) => write!(formatter, ": {detail}"),
            None => Ok(()),
        }
    }
}

/// Checks a call that returns -1 and sets errno (most `xc_*`): gives back what it returned.
pub(super) fn minus_one(call: &'static str, arguments: fmt::Arguments<'_>, returned: c_int) -> Result<u32, XenError> {
    let errno = Errno::last();
    conclude(call, arguments, returned, u32::try_from(returned).map_err(|_| Some(errno)))
}

/// Checks a call that returns a negative errno (`xc_cpuid_apply_policy`), or -1 with errno set.
pub(super) fn negative_errno(
    call: &'static str,
    arguments: fmt::Arguments<'_>,
    returned: c_int,
) -> Result<(), XenError> {
    let errno = Errno::last();
    let outcome = match returned {
        0.. => Ok(()),
        -1 => Err(Some(errno)),
        code => Err(Some(Errno::from_raw(code.saturating_neg()))),
    };
    conclude(call, arguments, returned, outcome)
}

/// Checks an `xc_dom_*` call: non-zero is failure; it may leave errno alone, which was therefore cleared before the
/// call, and what the library logged on the way is the real reason. So is success after what it calls a panic: the memory
/// types of a PVH guest's vCPU that were refused, for one, would make it build a guest that crawls (`vcpu_hvm`,
/// tools/libs/guest/xg_dom_x86.c, Xen 4.17).
pub(super) fn builder(call: &'static str, arguments: fmt::Arguments<'_>, returned: c_int) -> Result<(), XenError> {
    let errno = Errno::last();
    let known = (errno != Errno::UnknownErrno).then_some(errno);
    let failed = returned != 0 || logger::has_panicked();
    conclude(call, arguments, returned, if failed { Err(known) } else { Ok(()) })
}

/// What xenstored answered, or why nothing came.
pub(super) fn answered<T>(
    call: &'static str,
    arguments: fmt::Arguments<'_>,
    answer: Result<T, Errno>,
) -> Result<T, XenError> {
    let shown = answer.as_ref().map_or_else(|errno| format!("{errno:?}"), |_| "done".to_owned());
    conclude(call, arguments, shown, answer.map_err(Some))
}

/// Checks a call that returns a pointer, or NULL with errno set.
pub(super) fn pointer<T>(
    call: &'static str,
    arguments: fmt::Arguments<'_>,
    returned: *mut T,
) -> Result<NonNull<T>, XenError> {
    let errno = Errno::last();
    let shown = if returned.is_null() { "NULL" } else { "a pointer" };
    conclude(call, arguments, shown, NonNull::new(returned).ok_or(Some(errno)))
}

/// Logs the call; takes what the library said meanwhile, so that the message belongs to this call.
fn conclude<T>(
    call: &'static str,
    arguments: fmt::Arguments<'_>,
    returned: impl fmt::Display,
    outcome: Result<T, Option<Errno>>,
) -> Result<T, XenError> {
    log::debug!("{call}({arguments}) = {returned}");
    let detail = logger::take_last_error();
    outcome.map_err(|errno| XenError { call, arguments: arguments.to_string(), errno, detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_call_errno_number_and_arguments() {
        Errno::ENOMEM.set();
        let error = minus_one("xc_domain_setmaxmem", format_args!("domid 3, 1024 KiB"), -1).expect_err("-1 is failure");
        let text = error.to_string();
        assert_eq!(text, "xc_domain_setmaxmem(domid 3, 1024 KiB) failed: ENOMEM (12): Out of memory");
        assert_eq!(error.errno_name().as_deref(), Some("ENOMEM"));
    }

    #[test]
    fn each_convention_is_read_its_own_way() {
        assert_eq!(minus_one("x", format_args!(""), 7).expect("7 is a count"), 7);
        let error = negative_errno("x", format_args!(""), -22).expect_err("-EINVAL");
        assert_eq!(error.errno, Some(Errno::EINVAL));
        Errno::EPERM.set();
        let error = negative_errno("x", format_args!(""), -1).expect_err("-1 means: look at errno");
        assert_eq!(error.errno, Some(Errno::EPERM));
        assert!(builder("x", format_args!(""), 3).is_err());
        assert!(builder("x", format_args!(""), 0).is_ok());
        logger::tests::say("xc: panic: xg_dom_x86.c:1129: vcpu_hvm: SETHVMCONTEXT failed");
        assert!(builder("x", format_args!(""), 0).expect_err("a panic").to_string().contains("SETHVMCONTEXT"));
        assert!(pointer::<u8>("x", format_args!(""), std::ptr::null_mut()).is_err());
        let error = answered::<()>("x", format_args!(""), Err(Errno::ENOENT)).expect_err("an error");
        assert_eq!(error.errno, Some(Errno::ENOENT));
    }
}
