//! The start and end of a program, in place of those of Rust's standard library.
//!
//! At each start, the standard library reads `/proc/self/maps` to find the end of the stack, for a message when it overflows
//! (`std::sys::pal::unix::stack_overflow`, Rust 1.89). For a short-lived program with many shared libraries that is a tenth of its
//! start. Without it, a stack that overflows ends the program by SIGSEGV, as in C.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::IntoRawFd;
use std::panic;

use libc::c_int;
use nix::sys::signal::{SigHandler, Signal, signal};

/// The exit status of success.
pub const SUCCESS: u8 = 0;
/// The exit status of a failure that has no other.
pub const FAILURE: u8 = 1;
/// The exit status after a panic, as in Rust's own start.
const PANICKED: u8 = 101;

/// Makes a function `fn() -> u8`, which returns an exit status, the program's `main`. For a binary with `#![no_main]`.
#[macro_export]
macro_rules! entry {
    ($function:path) => {
        #[unsafe(no_mangle)]
        extern "C" fn main(_: i32, _: *const *const u8) -> i32 {
            $crate::entry::run($function)
        }
    };
}

/// What the standard library's start does, except for the message of a stack that overflows: open standard streams, SIGPIPE
/// ignored, a status for a panic, and the standard output written out. Returns the exit status. The arguments are those of
/// `std::env::args_os`, which glibc passes to each program before `main`.
pub fn run(program: fn() -> u8) -> c_int {
    open_standard_streams();
    // It fails for numbers that are no signals.
    // SAFETY: ignoring a signal runs no code. The one thread of the program starts no other before this.
    let _ = unsafe { signal(Signal::SIGPIPE, SigHandler::SigIgn) };
    let status = panic::catch_unwind(program).unwrap_or(PANICKED);
    // Who prints looks at the outcome; this is for what a panic left.
    let _ = io::stdout().flush();
    status.into()
}

/// Opens `/dev/null` for each standard stream that the caller closed: the next file would get its number, and messages would be
/// written into it.
fn open_standard_streams() {
    for stream in 0..=2 {
        // SAFETY: the call takes numbers, and only looks at the descriptor, which may be closed.
        if unsafe { libc::fcntl(stream, libc::F_GETFD) } < 0 {
            // It gets the lowest free number. The program must not run on with that number free.
            let Ok(file) = OpenOptions::new().read(true).write(true).open("/dev/null") else { std::process::abort() };
            let _ = file.into_raw_fd();
        }
    }
}
