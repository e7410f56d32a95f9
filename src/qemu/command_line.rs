//! The command line of QEMU as a device model.

use std::path::{Path, PathBuf};

use super::config::DeviceModelConfig;
use super::devices::SCSI_CONTROLLER;
use super::log::XEN_RUN_DIR;
use crate::config::name::DomainName;
use crate::memory::units::KIB_PER_MIB;
use crate::memory::{Kib, Plan};
use crate::xen::DomId;

/// QEMU's monitors: one for dombuild as the toolstack, one for `xentop`.
pub(crate) const MONITORS: [&str; 2] = ["libxl", "libxenstat"];

/// The QEMU of Xen 4.20 (10.0 in Debian 13) serves a framebuffer only with `-vga xenfb` (`xen_ui_register_backend`,
/// hw/display/xenfb.c), which libxl does not give it. That of Xen 4.17 (7.2) serves it without.
const VFB_NEEDS_VGA: bool = !matches!(env!("DOMBUILD_XEN_VERSION").as_bytes(), b"4.17");

/// The arguments that every QEMU of a guest has: its guest and its monitors.
fn common(domid: DomId) -> Vec<String> {
    let mut all: Vec<String> = Vec::new();
    let mut add = |words: &[&str]| all.extend(words.iter().map(|word| (*word).to_owned()));
    let monitor = |id: &str| {
        (
            format!("socket,id={id}-cmd,path={},server=on,wait=off", socket(id, domid).display()),
            format!("chardev={id}-cmd,mode=control"),
        )
    };

    add(&["-xen-domid", &domid.to_string(), "-no-shutdown"]);
    for id in MONITORS {
        let (chardev, mon) = monitor(id);
        add(&["-chardev", &chardev, "-mon", &mon]);
    }
    add(&["-nodefaults", "-no-user-config"]);
    all
}

/// The arguments that libxl gives a QEMU that only serves Xen's devices (libxl__build_device_model_args_new for PV, Xen
/// 4.17).
pub(crate) fn of_backend(domid: DomId, name: &DomainName, plan: &Plan, devices: &[String]) -> Vec<String> {
    let mut all = common(domid);
    let mib = plan.memory.build_max.get() / KIB_PER_MIB;
    let rest = ["-xen-attach", "-name", &name.qemu_option(), "-display", "none", "-machine", "xenpv", "-m"];
    all.extend(rest.iter().map(|word| (*word).to_owned()));
    all.push(mib.to_string());
    if VFB_NEEDS_VGA && devices.iter().any(|argument| argument == "-vnc") {
        all.extend(["-vga", "xenfb"].map(str::to_owned));
    }
    all.extend_from_slice(devices);
    all
}

/// The arguments that libxl gives QEMU for a plain HVM guest (tools/libs/light/libxl_dm.c, Xen 4.17) with those
/// of its devices, then those of the confinement, then the user's.
pub(crate) fn of_device_model(
    domid: DomId,
    name: &DomainName,
    plan: &Plan,
    config: &DeviceModelConfig,
    devices: &[String],
    confinement: &[String],
) -> Vec<String> {
    let mut all = common(domid);
    let mut add = |words: &[&str]| all.extend(words.iter().map(|word| (*word).to_owned()));
    let DeviceModelConfig { machine, arguments: own, .. } = config;

    add(&["-name", &name.qemu_option(), "-display", "none"]);
    if let Some(direct) = &machine.kernel {
        add(&["-kernel", &direct.kernel.to_string_lossy()]);
        if let Some(ramdisk) = &direct.ramdisk {
            add(&["-initrd", &ramdisk.to_string_lossy()]);
        }
        if !direct.cmdline.is_empty() {
            add(&["-append", &direct.cmdline]);
        }
    }
    for port in &machine.serial {
        add(&["-serial", port]);
    }
    // Whole MiB in every memory model.
    let mib = |size: Kib| size.get() / KIB_PER_MIB;
    let video = mib(plan.memory.video);
    // libxl has it first, so that it is in the same place on the PCI bus whatever else there is.
    let controller = devices.windows(2).position(|pair| pair.iter().eq(["-device", SCSI_CONTROLLER]));
    let (before, behind) = controller.map_or((devices, &[][..]), |at| (&devices[..at], &devices[at + 2..]));
    if controller.is_some() {
        add(&["-device", SCSI_CONTROLLER]);
    }
    if let Some(card) = machine.graphics.device(video) {
        add(&["-device", &card]);
    }
    add(&["-boot", &format!("order={}", machine.boot)]);
    if plan.vcpus > 1 {
        let online = machine.online_vcpus.unwrap_or(plan.vcpus);
        add(&["-smp", &format!("{online},maxcpus={}", plan.vcpus)]);
    }
    if !devices.iter().any(|argument| argument == "-netdev") {
        add(&["-net", "none"]);
    }
    // The machine xenfv has Xen's platform device.
    let board = if machine.platform_device { "xenfv" } else { "pc,accel=xen" };
    let mut board = format!("{board},suppress-vmdesc=on");
    if plan.layout.has_custom_hole() {
        board = format!("{board},max-ram-below-4g={}", plan.layout.mmio_start.get());
    }
    // QEMU places its video RAM directly after this size, so it must match what the builder populated.
    add(&["-machine", &board, "-m", &mib(plan.memory.build_max).to_string()]);
    all.extend_from_slice(before);
    all.extend_from_slice(behind);
    all.extend_from_slice(confinement);
    all.extend_from_slice(own);
    all
}

/// QEMU takes its options with one dash or two.
pub(crate) fn is_option(argument: &str, name: &str) -> bool {
    argument.strip_prefix('-').is_some_and(|rest| rest.strip_prefix('-').unwrap_or(rest) == name)
}

/// The socket of a monitor.
pub(crate) fn socket(id: &str, domid: DomId) -> PathBuf {
    Path::new(XEN_RUN_DIR).join(format!("qmp-{id}-{domid}"))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::devices::machine::{GraphicsCard, Machine};
    use crate::memory::{Mib, Request};
    use crate::qemu::config::QemuRole;
    use crate::qemu::confinement::RunAs;
    use crate::qemu::needs::Needs;

    /// QEMU gives a device its place on the PCI bus by the order of its arguments, and libxl's order must be the same.
    #[test]
    fn the_scsi_controller_comes_before_the_card() {
        let plan = Plan::new(&Request::new(Mib(256).to_kib())).expect("a plan");
        let name = "web".parse().expect("a name");
        let devices = ["-drive", "a", "-device", SCSI_CONTROLLER, "-device", "scsi-hd"].map(str::to_owned);
        let devices_of = |graphics| {
            let config = DeviceModelConfig {
                role: QemuRole::DeviceModel,
                path: PathBuf::new(),
                machine: Machine { graphics, ..Machine::default() },
                arguments: Vec::new(),
                timeout: Duration::ZERO,
                run_as: RunAs::Root,
                needs: Needs::default(),
                filter: true,
            };
            let all = of_device_model(DomId::DOM0, &name, &plan, &config, &devices, &[]);
            let pairs = all.windows(2).filter(|pair| pair[0] == "-device" || pair[0] == "-drive");
            pairs.map(|pair| pair[1].clone()).collect::<Vec<_>>()
        };
        let scsi = SCSI_CONTROLLER;
        assert_eq!(devices_of(GraphicsCard::Std), [scsi, "VGA,vgamem_mb=16", "a", "scsi-hd"]);
        assert_eq!(devices_of(GraphicsCard::Cirrus), [scsi, "cirrus-vga,vgamem_mb=16", "a", "scsi-hd"]);
        assert_eq!(devices_of(GraphicsCard::None), [scsi, "a", "scsi-hd"]);
    }
}
