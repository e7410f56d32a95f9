//! What to do about an error: the flags and commands that the errors themselves do not know.

use super::nearest::{NEAR, nearest};
use crate::config::error::ConfigError;
use crate::config::platform::settings::SETTINGS;
use crate::error::bootloader::BootloaderError;
use crate::error::damage::{Damage, Fault};
use crate::error::device::{DeviceError, DiskUser, GuestPart};
use crate::error::device_user::DeviceUserError;
use crate::error::domain::DomainError;
use crate::error::host::HostError;
use crate::error::migration::{FileProblem, MigrationError, Obstacle};
use crate::error::monitor::MonitorError;
use crate::error::pci::{PciError, PciHolder};
use crate::error::{DeviceModelCause, Error, Relief, Wait};
use crate::memory::Kib;
use crate::payload::error::FileError;
use crate::xen::ShutdownReason;

/// The advice for an error, if there is any beyond its own words.
pub(crate) fn advice(error: &Error) -> Option<String> {
    match error {
        Error::NotEnoughMemory { required, free, relief, .. } => {
            Some(of_shortage(relief, Kib(required.0.saturating_sub(free.0))))
        }
        Error::LimitTooLow { .. } => {
            Some("raise its limit first (xc_domain_setmaxmem; `xl mem-max` for a guest of xl's)".to_owned())
        }
        Error::DeviceMemory { extra_internal, .. } => {
            Some(format!("raise --extra-internal, which is {} KiB here", extra_internal.0))
        }
        Error::DeviceModel { cause, .. } => of_device_model(*cause).map(str::to_owned),
        Error::NameTaken { .. } => Some("choose another, or destroy that domain first".to_owned()),
        Error::NoSuchDomain(_) => Some("`dombuild list` shows which there are".to_owned()),
        Error::NotOurs { .. } => Some("--force destroys it all the same".to_owned()),
        Error::TimedOut { wait, .. } => of_wait(wait),
        Error::LeftBehind { domid, .. } => Some(format!("`dombuild destroy --force {domid}` tries again")),
        Error::NotCleaned { .. } => Some("`dombuild cleanup` shows what is left".to_owned()),
        Error::File(error) => of_file(error).map(str::to_owned),
        Error::Config(error) => of_config(error),
        Error::Domain(error) => of_domain(error),
        Error::Host(error) => of_host(error),
        Error::Bootloader(error) => of_bootloader(error).map(str::to_owned),
        Error::Device(error) => of_device(error),
        Error::Pci(error) => of_pci(error),
        Error::Migration(error) => of_migration(error).map(str::to_owned),
        Error::DeviceUser(error) => of_device_user(error).map(str::to_owned),
        _ => None,
    }
}

/// What to do where so much memory is missing.
fn of_shortage(relief: &Relief, missing: Kib) -> String {
    const MIB: u64 = 1024;
    let guests = if relief.guests {
        "shut down or balloon down another guest, or give this one less"
    } else {
        "give this guest less"
    };
    let Some(dom0) = relief.dom0 else { return guests.to_owned() };
    let has = format!("{guests}; dom0 itself has {} MiB", dom0.owned.0 / MIB);
    if missing > dom0.spare {
        return format!("{has} and can spare {} MiB of them", dom0.spare.0 / MIB);
    }
    format!(
        "{has}: `xl mem-set 0 {}m` gives away what is missing, and dom0_mem= on Xen's command line keeps dom0 small from the start",
        dom0.owned.0.saturating_sub(missing.0) / MIB
    )
}

fn of_bootloader(error: &BootloaderError) -> Option<&'static str> {
    match error {
        BootloaderError::NotFound { .. } => Some("Debian's pygrub is in the package xen-utils-4.17 or xen-utils-4.20"),
        BootloaderError::NoConfinement(_) => Some(
            "run as root on Linux 5.13 or later, with landlock in lsm= on its command line; --bootloader-unconfined runs it \
             with every right",
        ),
        BootloaderError::NoDisk => Some("give --disk"),
        BootloaderError::TimedOut { .. } => Some("--bootloader-timeout gives it longer"),
        _ => None,
    }
}

fn of_device_model(cause: DeviceModelCause) -> Option<&'static str> {
    match cause {
        DeviceModelCause::Filtered => {
            Some("--device-model-filter off runs it without the filter, --device-model-root with every right")
        }
        DeviceModelCause::Confined => Some("--device-model-root runs it with every right"),
        DeviceModelCause::VncPassword => Some(
            "this QEMU is built without passwords for VNC: leave vncpasswd out, keep vnclisten=127.0.0.1 and reach it through \
             ssh",
        ),
        _ => None,
    }
}

fn of_wait(wait: &Wait) -> Option<String> {
    let text = match wait {
        Wait::BuildLock => "--wait-memory waits longer, --no-build-lock builds without xl's and OpenXT's locks",
        Wait::ResizeLock => "another run is about to take memory: call this one again, or give it a longer --timeout",
        Wait::NameLock => "another run is about to name its domain: call this one again",
        Wait::BlockLock => "a hotplug script holds it, or another run that attaches disks: call this one again",
        Wait::CleanupLock => "another cleanup is at it: call this one again",
        Wait::UserdataLock => {
            "another toolstack holds that lock (`fuser -v` on the file shows the process): wait for it to end, or end it"
        }
        Wait::DeviceModel(log) => return Some(format!("its log is {}; --dm-timeout gives it longer", log.display())),
        Wait::Suspend { answered: false } => {
            "is its kernel alive? --suspend-timeout gives it longer; a guest without Xen's drivers is not asked"
        }
        Wait::Suspend { answered: true } => "one of its drivers does not stop; --suspend-timeout gives it longer",
        Wait::Console => {
            "Xen's console ring may be too small for all its domains: boot it with a larger conring_size=, and see `xl dmesg`"
        }
        Wait::Migration => {
            "a file on a slow or stuck file system is the usual cause; --timeout of save and restore gives it longer"
        }
        Wait::Resize { paused: true } => "it is paused: `xl unpause` lets it follow",
        Wait::Resize { paused: false } => {
            "is its balloon driver running? Its target stays set, and it may still follow; its limits are as they were where it was to shrink"
        }
    };
    Some(text.to_owned())
}

/// The advice for a caller of the helper `xenguest`, which has none of dombuild's flags.
pub(crate) fn advice_without_flags(error: &Error) -> Option<String> {
    matches!(error, Error::NotEnoughMemory { .. } | Error::LimitTooLow { .. }).then(|| advice(error)).flatten()
}

fn of_migration(error: &MigrationError) -> Option<&'static str> {
    let text = match error {
        MigrationError::Obstacle { obstacle, .. } => match obstacle {
            Obstacle::ShutDown(ShutdownReason::Suspend) => {
                "`dombuild cleanup --apply` lets a guest of a killed save run on"
            }
            Obstacle::OnDemand { .. } => {
                "its balloon driver gives back what is missing when it starts: wait for that (`dombuild inspect --watch`), or \
                 give the guest all of its memory (`dombuild balloon`)"
            }
            Obstacle::PciDevices => "detach them first (`xl pci-detach`)",
            Obstacle::Paused => "`xl unpause` lets it",
            Obstacle::NoDrivers => "wait until it has started; a kernel without them cannot be saved",
            Obstacle::NoShadow => "`--no-live` suspends it before its memory is sent",
            Obstacle::Busy => "wait until that has ended",
            _ => return None,
        },
        MigrationError::Undecided { .. } => {
            "look at the other host: if the guest runs there, `dombuild destroy` removes this one; if it does not, \
             `dombuild resume` lets this one run on"
        }
        MigrationError::OtherMessage { .. } => {
            "is the program there `dombuild migrate-receive` or `xl migrate-receive`?"
        }
        MigrationError::TooManyChanges { .. } => {
            "give it more --max-rounds or a longer --max-downtime, or --at-limit suspend"
        }
        MigrationError::ConnectionLost { .. } => "the messages of the other side, above, say why",
        MigrationError::StillSuspended { .. } => "`dombuild cleanup --apply` tries again",
        MigrationError::Exists(_) => "remove it, or give another name",
        MigrationError::NoRoom { .. } => "the guest runs on; give a file elsewhere",
        MigrationError::BadFile { problem: FileProblem::Unknown { .. }, .. } => {
            "`xl restore` restores it, where xl has saved it"
        }
        MigrationError::BadFile { problem: FileProblem::Damaged(Damage { fault: Fault::CutOff, .. }), .. } => {
            "it was not copied completely"
        }
        _ => return None,
    };
    Some(text)
}

fn of_device(error: &DeviceError) -> Option<String> {
    match error {
        DeviceError::NoBackendDriver { module, .. } => Some(format!("`modprobe {module}` loads it")),
        DeviceError::InUse { user: DiskUser::Mounted(_), .. } => Some("unmount it first".to_owned()),
        DeviceError::InUse { .. } => Some(
            "detach it there, or give it to all of them with access=ro; access=w! shares it for writing".to_owned(),
        ),
        DeviceError::NoQemu { is_disk: true, .. } => Some(
            "place it at hda to hdd or sda to sdp, where an HVM guest's QEMU emulates it, or let that QEMU serve it \
             with --device-model-root"
                .to_owned(),
        ),
        DeviceError::NoQemu { is_disk: false, .. } => {
            Some("an HVM guest's QEMU serves it with --device-model-root, where it has rights on xenstore".to_owned())
        }
        DeviceError::Monitor { error: MonitorError::Io { .. }, .. } => Some(
            "is the guest's QEMU there, and does no other program hold its monitor? `dombuild inspect` shows it".to_owned(),
        ),
        DeviceError::SocketTaken { path, .. } => {
            Some(format!("if no program uses it, `rm {}` removes it", path.display()))
        }
        DeviceError::NoBridge { bridge, .. } => {
            Some(format!("`ip link add {bridge} type bridge` makes it; bridge=NAME in --vif names another"))
        }
        DeviceError::NotABridge { .. } => Some("`ip link show type bridge` lists the bridges".to_owned()),
        DeviceError::InterfaceTaken { .. } => Some("give another vifname".to_owned()),
        DeviceError::ScriptTimedOut { .. } => Some("--hotplug-timeout gives it longer".to_owned()),
        DeviceError::Script { .. } => Some("/var/log/xen/xen-hotplug.log may have more".to_owned()),
        DeviceError::NumberTaken { .. } | DeviceError::MacTaken { .. } | DeviceError::NoSuchDevice { .. } => {
            Some("`dombuild list --devices` shows which there are".to_owned())
        }
        DeviceError::GuestTimedOut { paused: true, .. } => {
            Some("it is paused: `xl unpause` lets it follow".to_owned())
        }
        DeviceError::GuestTimedOut { part: GuestPart::Connect, .. } => Some(
            "does it have Xen's drivers? --timeout gives it longer, --no-wait leaves the device attached".to_owned(),
        ),
        DeviceError::GuestTimedOut { part: GuestPart::Release, .. } => Some(
            "does it still use the device? --timeout gives it longer, --force takes the device away without its consent"
                .to_owned(),
        ),
        DeviceError::BackendTimedOut { .. } => {
            Some("does its server still run? --force takes the device away without waiting for it".to_owned())
        }
        DeviceError::LeftBehind { .. } => Some("`dombuild detach --force` tries again".to_owned()),
        DeviceError::NoBackendDomain { .. } => Some("`dombuild list` shows which there are".to_owned()),
        _ => None,
    }
}

fn of_pci(error: &PciError) -> Option<String> {
    let text = match error {
        PciError::NoIommu => {
            "enable it in the firmware and with iommu=1 on Xen's command line, or leave out --passthrough and --pci"
        }
        PciError::NoDevice { .. } => "`dombuild pci list` and `lspci -D` list those that there are",
        PciError::NoPciback => "`modprobe xen-pciback` loads it",
        PciError::NotAssignable { address, .. } => {
            return Some(format!("`dombuild pci assign {address}` takes it from dom0; so does seize=1"));
        }
        PciError::InGuest { domid, address } => {
            return Some(format!(
                "`dombuild detach pci {domid} {address}` takes it away; if that domain is gone, `dombuild cleanup --apply`"
            ));
        }
        PciError::SharedDma { other, holder, .. } => {
            return Some(match holder {
                PciHolder::Guest(domid) => {
                    format!("give both to domain {domid}, or `dombuild detach pci {domid} {other}` first")
                }
                _ => format!(
                    "take {other} from its driver as well, so that both are assignable; `dombuild pci assign --force` takes the \
                     device all the same, and the other's DMA ends"
                ),
            });
        }
        PciError::UsedByDom0 { .. } => {
            "end that use first; `dombuild pci assign --force` takes the device all the same"
        }
        PciError::Collision { .. } => "give the guest less --maxmem, or make it an HVM guest",
        PciError::NoQemu => "leave --device-model none out",
        PciError::NotFree(_) => "`xl debug-keys Q` and `xl dmesg` show which domain has each device",
        PciError::NotIts { .. } | PciError::NotWithPciback(_) => "`dombuild pci list` shows who has each",
        PciError::NoPassthrough(_) => "create it with --passthrough or --pci",
        PciError::TimedOut { .. } => "--timeout gives it longer; does the guest have pcifront?",
        _ => return None,
    };
    Some(text.to_owned())
}

fn of_file(error: &FileError) -> Option<&'static str> {
    match error {
        FileError::NotInstalled { name, .. } => match *name {
            "hvmloader" => Some("or name a file with --hvmloader"),
            "SeaBIOS" => Some("or name a file with --firmware seabios:PATH"),
            "OVMF" => Some("or name a file with --firmware ovmf:PATH"),
            "QEMU" => Some("or name a file with --device-model"),
            "PV shim" => Some("or start the kernel without --shim"),
            _ => None,
        },
        FileError::NoHostSmbios(_) => Some("leave --smbios-passthrough out, or give --smbios FILE"),
        _ => None,
    }
}

fn of_config(error: &ConfigError) -> Option<String> {
    match error {
        ConfigError::NotKeyValue(_) => Some("give --platform KEY=VALUE".to_owned()),
        ConfigError::UnknownSetting(key) => Some(of_unknown_setting(key)),
        ConfigError::HasFlag { flag, .. } => Some(format!("give {flag} instead of --platform")),
        _ => None,
    }
}

/// The nearest setting, if one is near.
fn of_unknown_setting(key: &str) -> String {
    let page = "docs/platform.md has all that --platform takes";
    let names = SETTINGS.iter().map(|setting| setting.name.strip_prefix("platform/").unwrap_or(setting.name));
    match nearest(key, NEAR, names) {
        Some(name) => format!("did you mean {name}? {page}"),
        None => page.to_owned(),
    }
}

fn of_domain(error: &DomainError) -> Option<String> {
    match error {
        DomainError::WrongKind { was, .. } => Some(format!("give --kind {was}")),
        DomainError::VcpusDiffer { created, .. } => Some(format!("give --vcpus {created}")),
        _ => None,
    }
}

fn of_host(error: &HostError) -> Option<String> {
    match error {
        HostError::NoNode { .. } => Some("name one of these with --nodes or pnode=".to_owned()),
        HostError::NodesFull { .. } | HostError::NodeRanOut { .. } => Some(
            "make room there, or name other nodes; only --placement strict and --vnode forbid memory of others"
                .to_owned(),
        ),
        HostError::ReservedTooMuch { .. } => Some("leave a device out of --pci".to_owned()),
        HostError::HoleTooSmall { needed, .. } => {
            Some(format!("give --mmio-hole {}MiB or leave it out", needed.get() >> 20))
        }
        HostError::Userdata { .. } => Some(
            "xl keeps its guests' configurations there: see that the directory is root's, writable and not full"
                .to_owned(),
        ),
        _ => None,
    }
}

fn of_device_user(error: &DeviceUserError) -> Option<&'static str> {
    match error {
        DeviceUserError::PciDevices => Some("leave --device-model-user out"),
        DeviceUserError::NoSuchUser(_) => Some("make that user, or give --device-model-user a UID"),
        DeviceUserError::NotXens(_) => Some("--device-model-root runs it as root"),
        DeviceUserError::NoConfinement { .. } => Some("--device-model-root runs it without"),
        DeviceUserError::Root => Some("to run QEMU as root give --device-model-root"),
        DeviceUserError::Taken { .. } => Some("name another user with --device-model-user"),
        DeviceUserError::Unknown { .. } => {
            Some("see to the host's user database, or name a user with --device-model-user")
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Dom0Memory;

    #[test]
    fn a_shortage_names_who_could_give_memory() {
        let error = |guests, spare: Option<u64>| {
            let dom0 = spare.map(|spare| Dom0Memory { owned: Kib(1 << 20), spare: Kib(spare << 10) });
            let (required, free) = (Kib(300 << 10), Kib((200 << 10) + 1));
            advice(&Error::NotEnoughMemory { required, free, claims: None, relief: Relief { guests, dom0 } })
                .unwrap_or_default()
        };
        assert!(error(true, None).ends_with("shut down or balloon down another guest, or give this one less"));
        assert!(
            error(false, Some(99))
                .ends_with("give this guest less; dom0 itself has 1024 MiB and can spare 99 MiB of them")
        );
        let words = "give this guest less; dom0 itself has 1024 MiB: `xl mem-set 0 924m` gives away what is missing, and dom0_mem= on \
                      Xen's command line keeps dom0 small from the start";
        assert!(error(false, Some(100)).ends_with(words), "{}", error(false, Some(100)));
    }

    #[test]
    fn a_typing_error_names_the_nearest_setting() {
        let advice = |key: &str| of_unknown_setting(key);
        assert!(advice("timmer_mode").starts_with("did you mean timer_mode? "), "{}", advice("timmer_mode"));
        assert!(advice("viridain").starts_with("did you mean viridian? "), "{}", advice("viridain"));
        assert!(advice("colour").starts_with("docs/platform.md"), "{}", advice("colour"));
    }
}
