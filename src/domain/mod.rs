//! One domain, as Xen and xenstore report it.

pub mod devices;
pub mod find;
pub mod identity;
pub mod libxl_cpuid;
pub mod libxl_devices;
mod libxl_fields;
pub mod libxl_json;
pub mod measure;
pub(crate) mod name_index;
pub mod node_pages;
pub mod paths;
pub mod saved_request;
pub mod userdata;
