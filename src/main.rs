//! The program `dombuild`.

#![forbid(unsafe_code)]
#![no_main]

dombuild_os::entry!(dombuild::cli::dispatch::main);
