//! The program as its users meet it: the real binary, its two outputs and its exit status.
//!
//! All of this runs without Xen, as root or not. Where a test needs a host that the machine cannot be, it says on stderr
//! that it was skipped and why.

mod cli {
    mod check;
    mod check_saved;
    mod devices;
    mod escapes;
    mod events;
    mod help;
    mod host;
    mod images;
    mod input;
    mod logs;
    mod migration;
    mod output;
    mod plan;
    mod refusals;
    mod run;
    #[path = "../data/streams.rs"]
    mod streams;
    mod usage;
    mod virtual_devices;
    mod xenguest;
}
