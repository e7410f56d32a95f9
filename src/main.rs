//! The program `dombuild`.

#![forbid(unsafe_code)]
#![cfg_attr(not(test), no_main)]

#[cfg(not(test))]
dombuild_os::entry!(dombuild::cli::dispatch::main);
