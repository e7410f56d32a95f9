//! A guest's configuration as `xl create -n` prints it, from the table of keys and xl.conf's defaults.

use serde_json::{Value, json};
use uuid::Uuid;

use super::fields::{Configuration, truth};
use super::keys;
use super::libxl_devices;
use super::reader::Values;
use super::xl_conf::XlConf;
use crate::memory::Kind;

/// The configuration, and what is said of keys whose field is left out.
pub(super) fn of(kind: Kind, values: &Values<'_>, xl_conf: &XlConf) -> (Value, Vec<(&'static str, String)>) {
    let mut configuration = Configuration::new(kind, values, xl_conf);
    configuration.put("c_info.type", kind.name());
    for key in keys::all() {
        if let Some(value) = values.get(key.name) {
            configuration.add(key.field, value);
        }
    }
    libxl_devices::framebuffers(&mut configuration);
    put_defaults(&mut configuration);
    configuration.finish()
}

/// What xl sets without a key.
fn put_defaults(configuration: &mut Configuration<'_>) {
    let xl_conf = configuration.xl_conf;
    configuration.put_default("c_info.uuid", Uuid::new_v4().to_string());
    configuration.put("c_info.run_hotplug_scripts", truth(xl_conf.run_hotplug_scripts));
    configuration.put("b_info.claim_mode", truth(xl_conf.claim_mode));
    configuration.put_some("b_info.blkdev_start", xl_conf.blkdev_start.clone());
    for (path, number) in [
        ("b_info.max_grant_frames", xl_conf.max_grant_frames),
        ("b_info.max_maptrack_frames", xl_conf.max_maptrack_frames),
        ("b_info.max_grant_version", xl_conf.max_grant_version),
    ] {
        if let Some(number) = number {
            configuration.put_default(path, number);
        }
    }
    if let Some(memory) = configuration.number("memory") {
        configuration.put_default("b_info.max_memkb", memory.saturating_mul(1024));
    }
    // It replaces what the guest's file says.
    configuration.put_some("b_info.bootloader_restrict", xl_conf.bootloader_restrict.map(truth));
    for (key, action) in [("on_reboot", "restart"), ("on_soft_reset", "soft_reset")] {
        if !configuration.values.contains_key(key) {
            configuration.put(key, action);
        }
    }
    for part in ["sched_params", "arch_arm", "arch_x86", "type.hvm", "type.pv", "type.pvh"] {
        configuration.put_default(&format!("b_info.{part}"), json!({}));
    }
    for part in ["vga", "vnc", "sdl", "spice", "rdm"] {
        configuration.put_default(&format!("b_info.type.hvm.{part}"), json!({}));
    }
}
