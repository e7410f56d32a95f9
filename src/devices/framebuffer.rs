//! The paravirtual framebuffer with its keyboard and pointer, which QEMU serves and VNC shows.

use std::io::ErrorKind;
use std::net::TcpListener;

use super::xenbus::{XenbusDevice, nodes};
use crate::config::devices::framebuffer::Framebuffer;
use crate::error::device::DeviceError;
use crate::xen::DomId;

/// The port of VNC's display 0.
const FIRST_PORT: u32 = 5900;

/// How many displays are tried behind the one that is asked for (libxl's `to=99`).
const MOST_TRIES: u32 = 99;

/// The framebuffer with a display that is free now: the one that is asked for, or the next one where that is wanted. QEMU 10 takes
/// a port on which another QEMU listens.
///
/// # Errors
/// [`DeviceError::System`] if dom0 cannot listen there.
pub fn with_free_display(asked: &Framebuffer) -> Result<Framebuffer, DeviceError> {
    let tries = if asked.unused { MOST_TRIES } else { 0 };
    let mut display = asked.display;
    loop {
        let port = u16::try_from(display.saturating_add(FIRST_PORT)).unwrap_or(u16::MAX);
        match TcpListener::bind((asked.listen, port)) {
            Ok(_) => return Ok(Framebuffer { display, ..asked.clone() }),
            Err(error) if error.kind() == ErrorKind::AddrInUse && display < asked.display + tries => display += 1,
            Err(source) => {
                let action = format!("listen on port {port} of {}", asked.listen);
                return Err(DeviceError::System { device: "VNC".to_owned(), action, source });
            }
        }
    }
}

/// The devices in xenstore: framebuffer and keyboard (tools/libs/light/libxl_vfb.c and libxl_vkb.c, Xen 4.17). The password is not
/// among the nodes: the guest reads them, and QEMU gets it through its monitor.
#[must_use]
pub fn devices(framebuffer: &Framebuffer) -> [XenbusDevice; 2] {
    let flag = |set: bool| if set { "1" } else { "0" }.to_owned();
    let of_screen = vec![
        ("vnc", flag(true)),
        ("vnclisten", framebuffer.listen.to_string()),
        ("vncdisplay", framebuffer.display.to_string()),
        ("vncunused", flag(framebuffer.unused)),
        ("sdl", flag(false)),
        ("opengl", flag(false)),
    ];
    [device("vfb", of_screen), keyboard()]
}

/// A paravirtual keyboard and pointer. xl gives one to HVM guests as well.
#[must_use]
pub fn keyboard() -> XenbusDevice {
    device("vkbd", Vec::new())
}

fn device(kind: &'static str, backend_nodes: Vec<(&'static str, String)>) -> XenbusDevice {
    XenbusDevice {
        kind,
        backend_kind: kind,
        backend: DomId::DOM0,
        devid: 0,
        backend_nodes: nodes(backend_nodes),
        frontend_nodes: Vec::new(),
        frontend_fixed: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_display_in_use_is_passed_over_or_refused() {
        let busy = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
        let port = u32::from(busy.local_addr().expect("its address").port());
        if port < FIRST_PORT + 1 {
            return;
        }
        let asked: Framebuffer = format!("vncdisplay={}", port - FIRST_PORT).parse().expect("a framebuffer");
        let found = with_free_display(&asked).expect("another");
        assert!(found.display > asked.display && found.display <= asked.display + MOST_TRIES, "{found:?}");
        let refused = with_free_display(&Framebuffer { unused: false, ..asked }).expect_err("in use");
        assert!(refused.to_string().contains(&format!("listen on port {port} of 127.0.0.1")), "{refused}");
    }
}
