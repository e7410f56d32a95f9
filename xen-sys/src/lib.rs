//! Raw bindings of Xen's toolstack libraries: libxenctrl, libxenguest and libxentoollog, and of the protocol of xenstored.
//!
//! bindgen makes them from the headers that are installed, because the ABI of libxenctrl and libxenguest changes with
//! every Xen release. There is no logic here; the safe wrappers are in the crate `dombuild-xen`.

include!(concat!(env!("OUT_DIR"), "/bindings.rs"));
include!(concat!(env!("OUT_DIR"), "/cpu_features.rs"));
