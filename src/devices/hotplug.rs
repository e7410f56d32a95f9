//! What dom0 does for a device once its backend is there: Xen's hotplug scripts, or the same done by this program.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::bridge::BridgePort;
use super::image::OpenImage;

/// The directory of Xen's hotplug scripts.
pub const SCRIPTS: &str = "/etc/xen/scripts";

/// The directory of the administrator's own additions to the network scripts.
const VIF_HOOKS: &str = "/etc/xen/scripts/vif-post.d";

/// The files of the script `block`, by SHA-256, that do what [`super::block`] does (Xen 4.17 and 4.20, Debian 12 and 13).
const BLOCK_FILES: [(&str, &str); 5] = [
    ("block", "2bcb11f9041fceceddccc9e07314ea60a8505e185f54d7c7d77b5a37b9936e26"),
    ("block-common.sh", "b478cff89cbf00b492015885d6962f28962b077d7e4a639c11de0cc14d108eb1"),
    ("xen-hotplug-common.sh", "d52cdbf3649222a64bdd842fbdcd0ec0302caa6737d9274490cdd295cbd3f1f3"),
    ("xen-script-common.sh", "111773d49072538273b334e8cd04b181adfb2096c96b2603e98b8ab7d9d32af9"),
    ("locking.sh", "6cc8c1fae81bf1cded7bef07256b9518ffaa40eff32d8bbbf05e21a8392b1be1"),
];

/// The files of the script `vif-bridge`, by SHA-256, that do what [`super::bridge`] does.
const BRIDGE_FILES: [(&str, &str); 5] = [
    ("vif-bridge", "82529bd2e11e9d49d76b0570314b45ec99605b9bacf7eff4380efe435f773ad6"),
    ("vif-common.sh", "2ab11fa10f4817f5838b08175a6e529fab97cb5caad756988e14aee9c0230459"),
    ("xen-network-common.sh", "ec81a4c006292601b6dfa3103a7794bc2442d8d2504fc2bb2e4bc63af03c1e72"),
    ("xen-hotplug-common.sh", "d52cdbf3649222a64bdd842fbdcd0ec0302caa6737d9274490cdd295cbd3f1f3"),
    ("xen-script-common.sh", "111773d49072538273b334e8cd04b181adfb2096c96b2603e98b8ab7d9d32af9"),
];

/// What dom0 does for a device.
#[derive(Debug)]
pub enum Hotplug {
    /// Nothing: QEMU serves the device, or another program for which libxl does not wait either.
    None,
    /// Nothing: another domain, or a program, does it. dom0 waits for its backend.
    WaitOnly,
    /// The image becomes a block device of blkback.
    Block(OpenImage),
    /// The interface becomes a port of a bridge.
    Bridge(BridgePort),
    /// A script runs.
    Script(Script),
}

/// A hotplug script and how it is called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script {
    /// Its path.
    pub path: PathBuf,
    /// The class of the device.
    pub class: ScriptClass,
    /// The gateway's interface, for network scripts.
    pub gatewaydev: Option<String>,
    /// The card has an emulated twin, whose tap device is plugged as well.
    pub tap: bool,
}

/// The class of a device, by which its script is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScriptClass {
    /// A disk: `add`, `remove`.
    Disk,
    /// A network card: `online type_if=vif` and `offline type_if=vif`; `add type_if=tap` for its tap device.
    Nic,
}

/// The path of a script: a name without a slash is below [`SCRIPTS`] (libxl__abs_path).
#[must_use]
pub fn script_path(name: &str) -> PathBuf {
    // An absolute path replaces the directory.
    Path::new(SCRIPTS).join(name)
}

/// Whether a script exists and can be executed.
///
/// # Errors
/// The error of the system; `EACCES` if it is not executable.
pub fn check_script(path: &Path) -> io::Result<()> {
    let status = fs::metadata(path)?;
    if !status.is_file() || status.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    Ok(())
}

/// Whether the path is Xen's own script `block`, unchanged.
#[must_use]
pub fn is_stock_block(path: &Path) -> bool {
    path == script_path("block") && are_unchanged(&BLOCK_FILES)
}

/// Whether the path is Xen's own script `vif-bridge`, unchanged, and no hook of the administrator follows it.
#[must_use]
pub fn is_stock_bridge(path: &Path) -> bool {
    let hooks = || fs::read_dir(VIF_HOOKS).is_ok_and(|mut hooks| hooks.next().is_some());
    path == script_path("vif-bridge") && are_unchanged(&BRIDGE_FILES) && !hooks()
}

/// Whether these files of [`SCRIPTS`] have these hashes.
fn are_unchanged(files: &[(&str, &str)]) -> bool {
    files.iter().all(|(name, hash)| {
        fs::read(Path::new(SCRIPTS).join(name)).is_ok_and(|content| format!("{:x}", Sha256::digest(content)) == **hash)
    })
}
