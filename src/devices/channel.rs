//! Channels: the second and further paravirtual consoles, which QEMU serves.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::xenbus::{XenbusDevice, nodes};
use crate::config::devices::channel::{Channel, ChannelConnection};
use crate::error::device::DeviceError;
use crate::os::socket::try_connect;
use crate::qemu::devices::channel_id;
use crate::xen::DomId;

/// The most output of a console that is kept for a program that reads it later, in bytes (`LIBXL_XENCONSOLE_LIMIT`, Xen 4.17).
const LIMIT: &str = "1048576";

/// The protocol of a console (`LIBXL_XENCONSOLE_PROTOCOL`, Xen 4.17).
const PROTOCOL: &str = "vt100";

/// The device in xenstore (tools/libs/light/libxl_console.c, libxl__device_console_add, Xen 4.20; 4.17 loses the first channel).
/// The number of the first channel is 1: 0 is the first console.
///
/// # Errors
/// [`DeviceError::SocketTaken`]: QEMU removes what is at the place of its socket.
pub fn device(devid: u32, channel: &Channel) -> Result<XenbusDevice, DeviceError> {
    let mut backend = vec![
        ("protocol", PROTOCOL.to_owned()),
        ("name", channel.name.clone()),
        ("connection", channel.connection.as_str().to_owned()),
    ];
    let output = match &channel.connection {
        ChannelConnection::Pty => "pty".to_owned(),
        ChannelConnection::Socket(path) => {
            if fs::symlink_metadata(path).is_ok() {
                return Err(DeviceError::SocketTaken { name: channel.name.clone(), path: path.clone() });
            }
            backend.push(("path", path.display().to_string()));
            format!("chardev:{}", channel_id(devid))
        }
    };
    Ok(XenbusDevice {
        kind: "console",
        backend_kind: "console",
        backend: DomId::DOM0,
        devid,
        backend_nodes: nodes(backend),
        frontend_nodes: nodes(vec![("protocol", PROTOCOL.to_owned())]),
        frontend_fixed: nodes(vec![
            ("name", channel.name.clone()),
            ("limit", LIMIT.to_owned()),
            ("type", "ioemu".to_owned()),
            ("output", output),
            // QEMU tells that of a pty.
            ("tty", String::new()),
        ]),
    })
}

/// Removes the socket of a channel whose QEMU has ended: QEMU leaves it behind when it is killed. A socket on which a program
/// listens, and a file that is none, stay.
pub(super) fn remove_socket(path: &Path) {
    let is_socket = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    let refused = || try_connect(path).is_err_and(|error| error.kind() == ErrorKind::ConnectionRefused);
    if is_socket
        && refused()
        && let Err(error) = fs::remove_file(path)
    {
        log::warn!("the socket {} of a channel was left behind: {error}", path.display());
    }
}
