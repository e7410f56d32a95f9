//! Network interfaces and bridges (netdevice(7)), and tap devices.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

/// The longest name of an interface, in bytes.
pub const NAME_MAX: usize = libc::IFNAMSIZ - 1;

/// linux/sockios.h.
const SIOCBRADDIF: libc::c_ulong = 0x89a2;

/// linux/if_tun.h.
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;

/// A network interface of this network namespace, by its name. It may be gone at any time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkInterface {
    name: String,
}

impl NetworkInterface {
    /// The interface of this name, if it exists.
    #[must_use]
    pub fn find(name: &str) -> Option<Self> {
        let interface = Self { name: name.to_owned() };
        (is_name(name) && interface.directory().exists()).then_some(interface)
    }

    /// The first bridge by name, if there is any.
    ///
    /// # Errors
    /// If /sys/class/net cannot be read.
    pub fn first_bridge() -> io::Result<Option<Self>> {
        let mut bridges = Vec::new();
        for entry in fs::read_dir("/sys/class/net")? {
            let name = entry?.file_name();
            bridges.extend(name.to_str().and_then(Self::find).filter(Self::is_bridge));
        }
        Ok(bridges.into_iter().min_by(|one, other| one.name.cmp(&other.name)))
    }

    /// Its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    fn directory(&self) -> PathBuf {
        Path::new("/sys/class/net").join(&self.name)
    }

    /// Whether it is a bridge.
    #[must_use]
    pub fn is_bridge(&self) -> bool {
        self.directory().join("bridge").exists()
    }

    /// The name of the bridge that it is a port of, if any.
    #[must_use]
    pub fn bridge(&self) -> Option<String> {
        let master = fs::read_link(self.directory().join("master")).ok()?;
        Some(master.file_name()?.to_string_lossy().into_owned())
    }

    /// Its MTU, in bytes.
    ///
    /// # Errors
    /// If the interface is gone.
    pub fn mtu(&self) -> io::Result<u32> {
        let text = fs::read_to_string(self.directory().join("mtu"))?;
        text.trim().parse().map_err(io::Error::other)
    }

    /// Sets its MTU, in bytes.
    ///
    /// # Errors
    /// If the interface cannot have it.
    pub fn set_mtu(&self, bytes: u32) -> io::Result<()> {
        fs::write(self.directory().join("mtu"), bytes.to_string())
    }

    /// Starts or stops it.
    ///
    /// # Errors
    /// The error of the kernel.
    pub fn set_up(&self, up: bool) -> io::Result<()> {
        let mut request = self.request();
        control(libc::SIOCGIFFLAGS, &mut request)?;
        let bit = libc::c_short::try_from(libc::IFF_UP).unwrap_or(1);
        // SAFETY: SIOCGIFFLAGS has set this member of the union.
        let flags = unsafe { request.ifr_ifru.ifru_flags };
        request.ifr_ifru.ifru_flags = if up { flags | bit } else { flags & !bit };
        control(libc::SIOCSIFFLAGS, &mut request)
    }

    /// Sets its Ethernet address.
    ///
    /// # Errors
    /// The error of the kernel.
    pub fn set_address(&self, address: [u8; 6]) -> io::Result<()> {
        let mut request = self.request();
        // SAFETY: a struct of integers, for which zero is valid.
        let mut value: libc::sockaddr = unsafe { mem::zeroed() };
        value.sa_family = libc::ARPHRD_ETHER;
        for (to, from) in value.sa_data.iter_mut().zip(address) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        request.ifr_ifru.ifru_hwaddr = value;
        control(libc::SIOCSIFHWADDR, &mut request)
    }

    /// Gives it another name. It must be down.
    ///
    /// # Errors
    /// `EEXIST` if another interface has the name; any other error of the kernel.
    pub fn rename(&mut self, name: &str) -> io::Result<()> {
        if !is_name(name) {
            return Err(Errno::EINVAL.into());
        }
        let mut request = self.request();
        let mut text = [0; libc::IFNAMSIZ];
        copy(&mut text, name);
        request.ifr_ifru.ifru_newname = text;
        control(libc::SIOCSIFNAME, &mut request)?;
        name.clone_into(&mut self.name);
        Ok(())
    }

    /// Makes another interface a port of this bridge.
    ///
    /// # Errors
    /// `EBUSY` if it is a port of a bridge already; any other error of the kernel.
    pub fn add_port(&self, port: &Self) -> io::Result<()> {
        let mut index = port.request();
        control(libc::SIOCGIFINDEX, &mut index)?;
        let mut request = self.request();
        // SAFETY: SIOCGIFINDEX has set this member of the union.
        request.ifr_ifru.ifru_ifindex = unsafe { index.ifr_ifru.ifru_ifindex };
        control(SIOCBRADDIF, &mut request)
    }

    fn request(&self) -> libc::ifreq {
        // SAFETY: a struct of integers, for which zero is valid.
        let mut request: libc::ifreq = unsafe { mem::zeroed() };
        copy(&mut request.ifr_name, &self.name);
        request
    }
}

/// Makes a tap device of this name. It exists as long as the descriptor, or a copy of it, is open.
///
/// # Errors
/// If the kernel has no tap devices, or has an interface of this name.
pub fn make_tap(name: &str) -> io::Result<(NetworkInterface, OwnedFd)> {
    if !is_name(name) {
        return Err(Errno::EINVAL.into());
    }
    if NetworkInterface::find(name).is_some() {
        return Err(Errno::EEXIST.into());
    }
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    let interface = NetworkInterface { name: name.to_owned() };
    let mut request = interface.request();
    request.ifr_ifru.ifru_flags = libc::c_short::try_from(libc::IFF_TAP | libc::IFF_NO_PI).map_err(io::Error::other)?;
    ioctl(&file, TUNSETIFF, &mut request)?;
    Ok((interface, file.into()))
}

/// Whether the kernel takes a name for an interface (`dev_valid_name`, net/core/dev.c).
fn is_name(name: &str) -> bool {
    let odd = |byte: u8| byte == b'/' || byte == b':' || byte == 0 || byte.is_ascii_whitespace();
    !name.is_empty() && name.len() <= NAME_MAX && name != "." && name != ".." && !name.bytes().any(odd)
}

fn copy(to: &mut [libc::c_char], text: &str) {
    for (to, from) in to.iter_mut().zip(text.bytes()) {
        *to = libc::c_char::from_ne_bytes([from]);
    }
}

fn control(call: libc::c_ulong, request: &mut libc::ifreq) -> io::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let call = libc::Ioctl::try_from(call).map_err(io::Error::other)?;
    ioctl(&File::from(socket), call, request)
}

fn ioctl(file: &File, call: libc::Ioctl, request: &mut libc::ifreq) -> io::Result<()> {
    // SAFETY: all these calls take a pointer to an ifreq, which outlives the call.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), call, std::ptr::from_mut(request)) })?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_no_interface_has() {
        for name in ["", ".", "..", "a/b", "a b", "a:b", "a\0", "sixteen-bytes-xx", "a\n"] {
            assert!(!is_name(name) && NetworkInterface::find(name).is_none(), "{name:?}");
            assert!(make_tap(name).is_err(), "{name:?}");
        }
        assert!(is_name("fifteen-bytes-x"));
    }

    #[test]
    fn the_loopback_interface_is_no_bridge() {
        let Some(lo) = NetworkInterface::find("lo") else { return };
        assert!(!lo.is_bridge() && lo.bridge().is_none());
        assert!(lo.mtu().expect("it has one") >= 1280);
    }
}
