//! The paravirtual framebuffer with its keyboard and pointer, which QEMU serves and VNC shows.

use super::xenbus::XenbusDevice;
use crate::config::devices::framebuffer::Framebuffer;
use crate::xen::DomId;

/// The devices in xenstore: framebuffer and keyboard (tools/libs/light/libxl_vfb.c and libxl_vkb.c, Xen 4.17). The password is not
/// among the nodes: the guest reads them, and QEMU gets it through its monitor.
#[must_use]
pub fn devices(framebuffer: &Framebuffer) -> [XenbusDevice; 2] {
    let device = |kind, backend_kind, backend_nodes| XenbusDevice {
        kind,
        backend_kind,
        backend: DomId::DOM0,
        devid: 0,
        backend_nodes,
        frontend_nodes: Vec::new(),
        frontend_fixed: Vec::new(),
    };
    let flag = |set: bool| if set { "1" } else { "0" }.to_owned();
    let nodes = vec![
        ("vnc", flag(true)),
        ("vnclisten", framebuffer.listen.to_string()),
        ("vncdisplay", framebuffer.display.to_string()),
        ("vncunused", flag(framebuffer.unused)),
        ("sdl", flag(false)),
        ("opengl", flag(false)),
    ];
    [device("vfb", "vfb", nodes), device("vkbd", "vkbd", Vec::new())]
}
