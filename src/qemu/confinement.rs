//! QEMU without root's rights: the user that runs it, and the options that make this QEMU drop its rights.
//!
//! QEMU opens its disks, sockets and Xen as root. It then keeps what it has opened, restricts its Xen handles to its
//! own guest (`-xen-domid-restrict`), and gives up root and the file system. A guest that takes over its device model
//! gains only those open files.

use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::str::FromStr;

use elf::ElfStream;
use elf::endian::AnyEndian;
use memchr::memmem;
use nix::errno::Errno;
use nix::unistd::{Uid, User};

use crate::domain::libxl_json::LibxlUser;
use crate::error::Error;
use crate::error::device_user::DeviceUserError;
use crate::payload::search::Candidates;
use crate::xen::DomId;

/// QEMU's root directory afterwards: an empty directory without permissions, the same for every guest.
pub const EMPTY_DIRECTORY: &str = "/run/dombuild/empty";

/// The user of a guest's QEMU is this number plus the domain ID, unless the host has reserved another range. The range
/// is above those of systemd (containers), shadow (subordinate users) and sssd (directories), and below the one that
/// systemd calls foreign.
pub const FIRST_USER: u32 = 0x7f00_0000;

/// The user whose number libxl adds to the domain ID for a restricted QEMU (docs/features/qemu-deprivilege.pandoc).
const LIBXL_RANGE_BASE: &str = "xen-qemuuser-range-base";

/// The user that libxl takes for every restricted QEMU, if the host has no such range.
const LIBXL_SHARED_USER: &str = "xen-qemuuser-shared";

/// `--device-model-user`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserChoice {
    /// By name.
    Name(String),
    /// By number.
    Number {
        /// The user.
        uid: u32,
        /// The group, if given.
        gid: Option<u32>,
    },
}

impl FromStr for UserChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = |text: &str| match text.parse() {
            // System calls read all ones as "leave unchanged"; the older ones read 65535 so.
            Ok(u32::MAX | 0xffff) | Err(_) => Err(format!("{text:?} is no number of a user or group")),
            Ok(number) => Ok(number),
        };
        if text.starts_with(|first: char| first.is_ascii_digit()) {
            let (uid, gid) = text.split_once(':').map_or((text, None), |(uid, gid)| (uid, Some(gid)));
            return Ok(Self::Number { uid: number(uid)?, gid: gid.map(number).transpose()? });
        }
        let good = |char: char| char.is_ascii_alphanumeric() || "._-".contains(char);
        if text.is_empty() || text.len() > 64 || text.starts_with('-') || !text.chars().all(good) {
            return Err(format!("{text:?} is neither a user's name nor UID or UID:GID"));
        }
        Ok(Self::Name(text.to_owned()))
    }
}

/// The user that runs QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunAs {
    /// As root, with every right.
    Root,
    /// As root, in the namespaces and under the filter of a QEMU that serves devices: the guest may get PCI devices, which QEMU
    /// opens in sysfs when they come.
    RestrictedRoot,
    /// As a user without rights.
    User(Confinement),
}

/// A QEMU without root's rights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confinement {
    user: DeviceUser,
    abilities: Abilities,
}

/// The user of QEMU: one for all guests, or one for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum DeviceUser {
    /// The same user for every guest.
    Chosen { uid: u32, gid: u32 },
    /// One user for each guest: `base` plus the domain ID, in one common group or in a group of the same number.
    OfDomain { base: u32, gid: Option<u32> },
}

impl RunAs {
    /// Returns the user that was asked for, or the guest's own. `devices` is true if the guest may get PCI devices,
    /// which QEMU cannot open later without root.
    ///
    /// # Errors
    /// [`Error::BadConfig`] for root or a user that does not exist; [`Error::BadFile`] if this QEMU cannot drop its
    /// rights.
    pub fn asked(chosen: Option<&UserChoice>, root: bool, devices: bool, qemu: &Path) -> Result<Self, Error> {
        if root {
            return Ok(Self::Root);
        }
        if devices {
            if chosen.is_some() {
                return Err(DeviceUserError::PciDevices.into());
            }
            log::info!("QEMU runs as root, since it opens the guest's PCI devices when they come");
            // A script must start other programs, which the filter does not allow.
            let is_program = Program::open(qemu).is_ok_and(|program| program.is_some());
            return Ok(if is_program { Self::RestrictedRoot } else { Self::Root });
        }
        let looked_up = |user: nix::Result<Option<User>>| user.map_err(DeviceUserError::Lookup);
        let user = match chosen {
            Some(UserChoice::Name(name)) => match looked_up(User::from_name(name))? {
                Some(user) => DeviceUser::Chosen { uid: user.uid.as_raw(), gid: user.gid.as_raw() },
                None => {
                    return Err(DeviceUserError::NoSuchUser(name.clone()).into());
                }
            },
            Some(UserChoice::Number { uid, gid }) => {
                let known = looked_up(User::from_uid(Uid::from_raw(*uid)))?.map(|user| user.gid.as_raw());
                DeviceUser::Chosen { uid: *uid, gid: gid.or(known).unwrap_or(*uid) }
            }
            None => of_domain(),
        };
        if matches!(user, DeviceUser::Chosen { uid: 0, .. } | DeviceUser::Chosen { gid: 0, .. }) {
            return Err(DeviceUserError::Root.into());
        }
        Ok(Self::User(Confinement { user, abilities: Abilities::of(qemu)? }))
    }
}

/// libxl's range if the host has it, otherwise dombuild's.
fn of_domain() -> DeviceUser {
    match User::from_name(LIBXL_RANGE_BASE) {
        Ok(Some(base)) if !base.uid.is_root() && base.gid.as_raw() != 0 => {
            DeviceUser::OfDomain { base: base.uid.as_raw(), gid: Some(base.gid.as_raw()) }
        }
        _ => DeviceUser::OfDomain { base: FIRST_USER, gid: None },
    }
}

impl Confinement {
    /// The user and group of this guest's QEMU.
    ///
    /// # Errors
    /// [`Error::BadConfig`] if the host's user database already has this user.
    pub fn ids(&self, domid: DomId) -> Result<(u32, u32), Error> {
        match self.user {
            DeviceUser::Chosen { uid, gid } => Ok((uid, gid)),
            DeviceUser::OfDomain { base, gid } => {
                let uid = base.saturating_add(domid.get());
                match User::from_uid(Uid::from_raw(uid)) {
                    Ok(Some(user)) => Err(DeviceUserError::Taken { domid, uid, name: user.name }.into()),
                    // What getpwuid_r(3) may return of a user that there is not.
                    Ok(None) | Err(Errno::ENOENT | Errno::ESRCH | Errno::EBADF | Errno::EPERM) => {
                        Ok((uid, gid.unwrap_or(uid)))
                    }
                    Err(errno) => Err(DeviceUserError::Unknown { domid, uid, errno }.into()),
                }
            }
        }
    }

    /// The user whose processes `xl destroy` may all kill, if the host has reserved one for that.
    #[must_use]
    pub fn libxl_user(&self, domid: DomId) -> Option<u32> {
        match self.user {
            DeviceUser::OfDomain { base, gid: Some(_) } => base.checked_add(domid.get()),
            _ => None,
        }
    }

    /// The user in libxl's terms. libxl can name only users that have a name, and has a range of its own.
    ///
    /// libxl limits the files of a restricted QEMU to 256 KiB (`RLIMIT_FSIZE`, tools/libs/light/libxl_linux.c, Xen 4.17 and 4.20).
    /// A VGA card's picture is such a file since QEMU 9.2, and SIGXFSZ kills the QEMU: `-run-with user=`, which is hardly older,
    /// shows that it is one of these.
    #[must_use]
    pub fn in_libxl(&self) -> LibxlUser {
        if self.abilities.run_with_user {
            return LibxlUser::Root;
        }
        match self.user {
            DeviceUser::Chosen { uid, gid } => match User::from_uid(Uid::from_raw(uid)) {
                Ok(Some(user)) if user.gid.as_raw() == gid => LibxlUser::Named(user.name),
                _ => LibxlUser::Root,
            },
            DeviceUser::OfDomain { gid: Some(_), .. } => LibxlUser::OfLibxl,
            DeviceUser::OfDomain { gid: None, .. } => match User::from_name(LIBXL_SHARED_USER) {
                Ok(Some(_)) => LibxlUser::OfLibxl,
                _ => LibxlUser::Root,
            },
        }
    }

    /// Whether the program is a script, which must start other programs.
    #[must_use]
    pub fn is_script(&self) -> bool {
        self.abilities.script
    }

    /// The arguments that make QEMU drop its rights.
    ///
    /// # Errors
    /// Those of [`Self::ids`].
    pub fn arguments(&self, domid: DomId) -> Result<Vec<String>, Error> {
        let (uid, gid) = self.ids(domid)?;
        Ok(self.abilities.arguments(uid, gid))
    }
}

impl fmt::Display for Confinement {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.user {
            DeviceUser::Chosen { uid, gid } => write!(formatter, "user {uid}, group {gid}"),
            DeviceUser::OfDomain { base, gid: None } => write!(formatter, "user and group {base} + domid"),
            DeviceUser::OfDomain { base, gid: Some(gid) } => write!(formatter, "user {base} + domid, group {gid}"),
        }
    }
}

/// The options by which a QEMU gives up its rights. They are read from its file, because a query would cost one start
/// of QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Abilities {
    /// `-run-with chroot=` (QEMU 8.1), or `-chroot`.
    run_with_chroot: bool,
    /// `-run-with user=` (QEMU 9.1), or `-runas`.
    run_with_user: bool,
    /// The program is a script, which starts other programs.
    script: bool,
}

impl Abilities {
    /// Searches a program's string tables for the library functions that it calls and for its own help. A script has no
    /// such tables; it counts as a wrapper of the installed QEMU.
    fn of(qemu: &Path) -> Result<Self, Error> {
        let bad = |reason: String| Error::BadFile { what: "device model", path: qemu.to_owned(), reason };
        let Some(program) = Program::open(qemu).map_err(|error| bad(error.to_string()))? else {
            let installed = Candidates::device_model().find().and_then(|path| Program::open(&path).ok().flatten());
            // A wrapper of a QEMU elsewhere, most likely a recent one.
            let newest = Self { run_with_chroot: true, run_with_user: true, script: true };
            let installed = installed.and_then(|program| Self::of_program(&program).ok()).unwrap_or(newest);
            return Ok(Self { script: true, ..installed });
        };
        if !program.calls("xentoolcore_restrict_all") {
            return Err(DeviceUserError::NotXens(qemu.to_owned()).into());
        }
        Self::of_program(&program).map_err(|error| bad(error.to_string()))
    }

    fn of_program(program: &Program) -> io::Result<Self> {
        let run_with = program.help_of("-run-with [")?;
        let says = |text| memmem::find(&run_with, text).is_some();
        Ok(Self {
            run_with_chroot: says(b",chroot=dir]"),
            run_with_user: says(b"user=username|uid:gid]"),
            script: false,
        })
    }

    fn arguments(self, uid: u32, gid: u32) -> Vec<String> {
        let mut all = vec!["-xen-domid-restrict".to_owned()];
        let mut add = |option: &str, value: String| all.extend([option.to_owned(), value]);
        if self.run_with_chroot {
            add("-run-with", format!("chroot={EMPTY_DIRECTORY}"));
        } else {
            add("-chroot", EMPTY_DIRECTORY.to_owned());
        }
        if self.run_with_user {
            add("-run-with", format!("user={uid}:{gid}"));
        } else {
            add("-runas", format!("{uid}:{gid}"));
        }
        all
    }
}

/// A program's file: the functions that it calls, and the place of its constants.
struct Program {
    file: File,
    linked: Vec<u8>,
    constants: Range<u64>,
}

impl Program {
    /// Opens an ELF file; `None` for any other file.
    fn open(path: &Path) -> io::Result<Option<Self>> {
        let file = File::open(path)?;
        let Ok(mut program) = ElfStream::<AnyEndian, _>::open_stream(file.try_clone()?) else { return Ok(None) };
        let mut section = |name| program.section_header_by_name(name).ok().flatten().copied();
        let (names, constants) = (section(".dynstr"), section(".rodata"));
        let linked = names.and_then(|header| Some(program.section_data(&header).ok()?.0.to_vec())).unwrap_or_default();
        let constants =
            constants.map_or(0..0, |header| header.sh_offset..header.sh_offset.saturating_add(header.sh_size));
        Ok(Some(Self { file, linked, constants }))
    }

    fn calls(&self, name: &str) -> bool {
        memmem::find(&self.linked, name.as_bytes()).is_some()
    }

    /// The constant that begins with these words, or its first 4096 bytes; empty if there is none. The file is read
    /// piece by piece, because memory for all constants costs more than the search.
    fn help_of(&self, words: &str) -> io::Result<Vec<u8>> {
        const PIECE: usize = 64 * 1024;
        const LONGEST: usize = 4096;
        let finder = memmem::Finder::new(words);
        // The next piece begins at the end of the last complete constant of this one.
        let mut piece = vec![0; PIECE + LONGEST];
        let mut at = self.constants.start;
        while at < self.constants.end {
            let length = self.file.read_at(&mut piece, at)?;
            let read = piece.get(..length).unwrap_or_default();
            let last = length < PIECE + LONGEST;
            if let Some(found) = finder.find(read).filter(|found| last || *found < PIECE) {
                let text = read.get(found..length.min(found + LONGEST)).unwrap_or_default();
                return Ok(text.split(|byte| *byte == 0).next().unwrap_or_default().to_vec());
            }
            if last {
                break;
            }
            at += PIECE as u64;
        }
        Ok(Vec::new())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use proptest::prelude::*;

    use super::*;

    fn domain(number: u32) -> DomId {
        DomId::new(number).expect("a domid")
    }

    #[test]
    fn users_are_named_or_numbered() {
        assert_eq!("qemu".parse(), Ok(UserChoice::Name("qemu".to_owned())));
        assert_eq!("107".parse(), Ok(UserChoice::Number { uid: 107, gid: None }));
        assert_eq!("107:108".parse(), Ok(UserChoice::Number { uid: 107, gid: Some(108) }));
        for bad in
            ["", ":", "1:", ":1", "1:2:3", "-1", "a:b", "a,b", "a b", "a\nb", "1x", "4294967295", "65535", "é", "../x"]
        {
            assert!(bad.parse::<UserChoice>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn each_qemu_is_told_in_its_own_words() {
        let words = |run_with_chroot, run_with_user| {
            Abilities { run_with_chroot, run_with_user, script: false }.arguments(7, 8).join(" ")
        };
        assert_eq!(words(false, false), "-xen-domid-restrict -chroot /run/dombuild/empty -runas 7:8");
        assert_eq!(words(true, false), "-xen-domid-restrict -run-with chroot=/run/dombuild/empty -runas 7:8");
        assert_eq!(words(true, true), "-xen-domid-restrict -run-with chroot=/run/dombuild/empty -run-with user=7:8");
    }

    #[test]
    fn every_domain_has_a_user_of_its_own() {
        let own = Confinement {
            user: DeviceUser::OfDomain { base: FIRST_USER, gid: None },
            abilities: Abilities { run_with_chroot: true, run_with_user: true, script: false },
        };
        assert_eq!(own.ids(domain(7)).expect("free"), (FIRST_USER + 7, FIRST_USER + 7));
        assert_eq!(own.libxl_user(domain(7)), None, "xl knows nothing of that range");
        const { assert!(FIRST_USER + 0x7ff0 < 0x7ffe_0000, "systemd's foreign users") };
    }

    #[test]
    fn root_is_asked_for_by_its_own_flag() {
        let script = tempfile::NamedTempFile::new().expect("a file");
        let asked = |chosen: &str| {
            let chosen = chosen.parse().expect("a user");
            RunAs::asked(Some(&chosen), false, false, script.path())
        };
        for root in ["root", "0", "0:7", "7:0"] {
            let error = asked(root).expect_err("refused");
            assert!(matches!(error, Error::DeviceUser(DeviceUserError::Root)), "{root}: {error}");
        }
        assert!(asked("no-such-user").expect_err("refused").to_string().contains("no-such-user"));
        assert!(matches!(asked("2130000000").expect("free"), RunAs::User(_)));
        assert_eq!(RunAs::asked(None, true, false, Path::new("/x")).expect("root"), RunAs::Root);
        assert_eq!(
            RunAs::asked(None, false, true, Path::new("/proc/self/exe")).expect("devices"),
            RunAs::RestrictedRoot
        );
    }

    #[test]
    fn a_program_that_cannot_be_confined_is_refused() {
        let this = std::env::current_exe().expect("this program");
        let error = Abilities::of(&this).expect_err("no QEMU").to_string();
        assert!(error.contains("cannot be confined to its guest"), "{error}");
    }

    #[test]
    fn a_programs_help_is_found_wherever_it_stands() {
        const TEXT: &[u8] = b"-run-with [one][,two]\0-another [three]\0";
        let piece = 64 * 1024;
        for at in [0, piece - 10, piece, piece + 4086, piece + 4096, 3 * piece - 1] {
            let mut file = tempfile::NamedTempFile::new().expect("a file");
            file.write_all(&[vec![1; at], TEXT.to_vec(), vec![1; piece]].concat()).expect("written");
            let length = file.as_file().metadata().expect("a size").len();
            let program = Program { file: file.into_file(), linked: Vec::new(), constants: 0..length };
            assert_eq!(program.help_of("-run-with [").expect("read"), TEXT[..21], "at {at}");
            assert_eq!(program.help_of("-run_with [").expect("read"), b"");
        }
        let script = tempfile::NamedTempFile::new().expect("a file");
        assert!(Program::open(script.path()).expect("readable").is_none());
    }

    proptest! {
        #[test]
        fn no_choice_panics(text in ".{0,80}") {
            if let Ok(UserChoice::Name(name)) = text.parse::<UserChoice>() {
                prop_assert!(name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b',' && byte != b':'));
            }
        }
    }
}
