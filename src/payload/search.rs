//! The boot files of a guest: the search for them, and the checks that need no Xen.

use std::fs::{self};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{self, Path, PathBuf};

use super::boot_files::Module;
use super::file::{RAMDISK, map, read};
use super::firmware::{FirmwareChoice, FirmwareKind};
use super::kernel::check_firmware;
use crate::memory::{Bytes, Plan};
use crate::os::sealed::Sealed;
use crate::payload::error::FileError;

/// The maximum size of hvmloader or a firmware; OVMF has 4 MiB.
const LARGEST_FILE: u64 = 16 << 20;

/// libxenguest's maximum size of a kernel or a ramdisk (`XC_DOM_DECOMPRESS_MAX`, tools/include/xenguest.h).
const LARGEST_IMAGE: u64 = 1 << 30;

/// The paths at which distributions install a file, the most likely first.
#[derive(Debug, Clone)]
pub struct Candidates {
    /// A description of the file.
    pub what: &'static str,
    /// The Debian package that contains it.
    pub package: String,
    /// Absolute paths.
    pub paths: Vec<PathBuf>,
}

impl Candidates {
    /// hvmloader; the one for the Xen version of this binary comes first.
    #[must_use]
    pub fn kernel() -> Self {
        let version = env!("DOMBUILD_XEN_VERSION");
        Self::new(
            "hvmloader",
            &format!("xen-utils-{version}"),
            &[
                &format!("/usr/lib/xen-{version}/boot/hvmloader"),
                "/usr/lib/xen/boot/hvmloader",
                "/usr/libexec/xen/boot/hvmloader",
                "/usr/local/lib/xen/boot/hvmloader",
            ],
        )
    }

    /// Xen's PV shim, which distributions install in hvmloader's directory.
    #[must_use]
    pub fn shim() -> Self {
        let hvmloader = Self::kernel();
        let paths = hvmloader.paths.iter().map(|path| path.with_file_name("xen-shim")).collect();
        Self { what: "PV shim", paths, ..hvmloader }
    }

    /// SeaBIOS or OVMF.
    #[must_use]
    pub fn firmware(kind: FirmwareKind) -> Self {
        match kind {
            FirmwareKind::SeaBios => Self::new(
                "SeaBIOS",
                "seabios",
                &[
                    "/usr/share/seabios/bios-256k.bin",
                    "/usr/lib/xen/boot/seabios.bin",
                    "/usr/libexec/xen/boot/seabios.bin",
                    "/usr/share/qemu/bios-256k.bin",
                ],
            ),
            FirmwareKind::Ovmf => Self::new(
                "OVMF",
                "ovmf",
                &[
                    "/usr/share/ovmf/OVMF.fd",
                    "/usr/lib/xen/boot/ovmf.bin",
                    "/usr/libexec/xen/boot/ovmf.bin",
                    "/usr/share/edk2/OVMF-release.fd",
                ],
            ),
        }
    }

    /// QEMU as Xen's device model.
    #[must_use]
    pub fn device_model() -> Self {
        Self::new(
            "QEMU",
            "qemu-system-xen",
            &[
                "/usr/libexec/xen-qemu-system-i386",
                "/usr/lib/xen/bin/qemu-system-i386",
                "/usr/libexec/xen/bin/qemu-system-i386",
            ],
        )
    }

    fn new(what: &'static str, package: &str, paths: &[&str]) -> Self {
        Self { what, package: package.to_owned(), paths: paths.iter().map(PathBuf::from).collect() }
    }

    /// The first path that exists.
    #[must_use]
    pub fn find(&self) -> Option<PathBuf> {
        self.paths.iter().find(|path| path.is_file()).cloned()
    }

    fn find_or_fail(&self, kind: &'static str) -> Result<PathBuf, FileError> {
        self.find().ok_or_else(|| FileError::NotInstalled {
            what: kind,
            path: self.paths.first().cloned().unwrap_or_default(),
            name: self.what,
            package: self.package.clone(),
        })
    }
}

/// Reads hvmloader or its replacement, and checks that libxenguest can load it into the guest of this plan.
///
/// # Errors
/// [`FileError::Unusable`].
pub fn read_hvmloader(chosen: Option<&Path>, plan: &Plan) -> Result<Vec<u8>, FileError> {
    const KIND: &str = "kernel";
    let path = choose(KIND, chosen, &Candidates::kernel())?;
    let data = read(KIND, &path, LARGEST_FILE)?;
    check_firmware(&data, plan).map_err(|reason| FileError::Unusable { what: KIND, path, reason })?;
    Ok(data)
}

/// Maps the kernel of a PV guest under the shim. The shim loads it; neither this program nor libxenguest parses it. It
/// must have a format that Xen knows: an ELF file, or a Linux bzImage.
///
/// # Errors
/// [`FileError::Unusable`], or [`FileError::NotEnoughDom0Memory`].
pub fn map_shim_kernel(path: &Path) -> Result<Sealed, FileError> {
    const KIND: &str = "kernel";
    let data = map(KIND, path, LARGEST_IMAGE)?;
    let elf = data.starts_with(b"\x7fELF");
    // The signature of Linux's boot protocol (Documentation/arch/x86/boot.rst).
    let linux = data.get(0x202..0x206) == Some(b"HdrS");
    let gzip = data.starts_with(&[0x1f, 0x8b]);
    if !(elf || linux || gzip) {
        let reason = "is neither an ELF file nor a bzImage of Linux, and not one of these packed with gzip".to_owned();
        return Err(FileError::Unusable { what: KIND, path: path.to_owned(), reason });
    }
    Ok(data)
}

/// Maps Xen's PV shim, the installed one or its replacement, and returns its path too.
///
/// # Errors
/// [`FileError::Unusable`], or [`FileError::NotEnoughDom0Memory`].
pub fn map_shim(chosen: Option<&Path>) -> Result<(Sealed, PathBuf), FileError> {
    const KIND: &str = "kernel";
    let path = choose(KIND, chosen, &Candidates::shim())?;
    Ok((map(KIND, &path, LARGEST_FILE)?, path))
}

/// Maps an initial ramdisk, which only the guest's kernel parses. Call [`load_ramdisk`] before its use.
///
/// # Errors
/// [`FileError::Unusable`], or [`FileError::NotEnoughDom0Memory`].
pub fn map_ramdisk(path: &Path) -> Result<Sealed, FileError> {
    map(RAMDISK, path, LARGEST_IMAGE)
}

/// Reads a mapped ramdisk from its storage.
///
/// # Errors
/// [`FileError::Unusable`].
pub fn load_ramdisk(module: &Module) -> Result<(), FileError> {
    let bad =
        |error: io::Error| FileError::Unusable { what: RAMDISK, path: module.path.clone(), reason: error.to_string() };
    module.data.load().map_err(bad)
}

/// Reads the firmware; hvmloader puts it below 4 GiB, from a copy in low memory.
///
/// # Errors
/// [`FileError::Unusable`].
pub fn read_firmware(chosen: &FirmwareChoice, low_memory: Bytes) -> Result<Vec<u8>, FileError> {
    const KIND: &str = "firmware";
    let path = choose(KIND, chosen.path.as_deref(), &Candidates::firmware(chosen.kind))?;
    let data = read(KIND, &path, LARGEST_FILE)?;
    let needed = firmware_needs(data.len()).0;
    if low_memory.0 < needed {
        return Err(FileError::Unusable {
            what: KIND,
            path,
            reason: format!(
                "needs a guest of at least {} MiB without its video memory; this one has {} MiB",
                needed.div_ceil(1 << 20),
                low_memory.0 >> 20
            ),
        });
    }
    Ok(data)
}

/// The low memory that a guest with a firmware of this length needs: hvmloader's modules start at 1 MiB plus its own
/// size; both must fit below the end of low memory, with working space.
#[must_use]
pub fn firmware_needs(length: usize) -> Bytes {
    Bytes((4 << 20) + length as u64)
}

/// Finds QEMU; `None` for the word `none`.
///
/// # Errors
/// [`FileError::Unusable`].
pub fn resolve_device_model(chosen: Option<&Path>) -> Result<Option<PathBuf>, FileError> {
    const KIND: &str = "device model";
    if chosen == Some(Path::new("none")) {
        return Ok(None);
    }
    let path = choose(KIND, chosen, &Candidates::device_model())?;
    let bad = |reason: String| FileError::Unusable { what: KIND, path: path.clone(), reason };
    let metadata = fs::metadata(&path).map_err(|error| bad(error.to_string()))?;
    if !(metadata.is_file() && metadata.permissions().mode() & 0o111 != 0) {
        return Err(bad("is not an executable file".to_owned()));
    }
    // `execve` would search PATH for a bare word, and could start another file than the checked one.
    let path = path::absolute(&path).map_err(|error| bad(error.to_string()))?;
    log::debug!("{KIND} {}", path.display());
    Ok(Some(path))
}

fn choose(kind: &'static str, chosen: Option<&Path>, candidates: &Candidates) -> Result<PathBuf, FileError> {
    match chosen {
        Some(path) => Ok(path.to_owned()),
        None => candidates.find_or_fail(kind),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::{Mib, Request};

    fn file(content: &[u8]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        fs::write(file.path(), content).expect("written");
        file
    }

    /// The smallest 32-bit program: a header, one segment at 1 MiB, and `cli; hlt; jmp` in it.
    const HALT: &[u8] = include_bytes!("../../tests/data/halt.elf");

    fn plan() -> Plan {
        Plan::new(&Request::new(Mib(64).to_kib())).expect("a small guest")
    }

    #[test]
    fn what_starts_in_hvmloaders_place_is_a_32_bit_program() {
        let read = |content: &[u8]| read_hvmloader(Some(file(content).path()), &plan());
        read(HALT).expect("good");
        let changed = |offset: usize, value: u8| {
            let mut elf = HALT.to_vec();
            elf[offset] = value;
            read(&elf).map_err(|error| error.to_string())
        };
        changed(18, 62).expect("the number of x86-64 does not matter");
        assert!(changed(4, 2).is_err(), "the class does");
        assert!(changed(26, 0x20).expect_err("an entry point outside").contains("entry point"));
        let error = |content: &[u8]| read(content).expect_err("refused").to_string();
        assert!(error(&HALT[..86]).contains("cut off"));
        assert!(error(&HALT[..20]).contains("ELF"), "half a header");
        assert!(error(b"hello").contains("ELF"));
        assert!(error(b"").contains("empty"));
        let directory = read_hvmloader(Some(Path::new("/")), &plan()).expect_err("a directory");
        assert!(directory.to_string().contains("regular"));
    }

    #[test]
    fn firmware_needs_room() {
        let seabios = file(&vec![1; 256 << 10]);
        let choice = FirmwareChoice { kind: FirmwareKind::SeaBios, path: Some(seabios.path().to_owned()) };
        assert!(read_firmware(&choice, Bytes(8 << 20)).is_ok());
        assert!(read_firmware(&choice, Bytes(4 << 20)).expect_err("too small").to_string().contains("at least 5 MiB"));
    }

    #[test]
    fn a_device_model_is_the_file_that_was_checked() {
        let here = tempfile::NamedTempFile::new_in(".").expect("a temporary file");
        let name = Path::new(here.path().file_name().expect("a name"));
        assert!(resolve_device_model(Some(name)).expect_err("no execute bit").to_string().contains("executable"));
        fs::set_permissions(here.path(), fs::Permissions::from_mode(0o700)).expect("permissions");
        let found = resolve_device_model(Some(name)).expect("executable").expect("not none");
        assert!(found.is_absolute() && found.ends_with(name), "{}", found.display());
        assert_eq!(resolve_device_model(Some(Path::new("none"))).expect("none is a choice"), None);
    }

    #[test]
    fn firmware_flags() {
        let choice: FirmwareChoice = "ovmf:/x/OVMF.fd".parse().expect("good");
        assert_eq!(choice, FirmwareChoice { kind: FirmwareKind::Ovmf, path: Some("/x/OVMF.fd".into()) });
        assert!("rombios".parse::<FirmwareChoice>().is_err());
        assert!("seabios:".parse::<FirmwareChoice>().is_err());
    }
}
