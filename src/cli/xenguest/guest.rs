//! Converts the helper's options and the xenstore keys to the guest to build.

use std::ffi::CString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::options::Options;
use crate::builder::given_domain::check_buildable;
use crate::builder::hvmloader_keys::{write_firmware, write_hole, write_modules};
use crate::builder::image::BuildResult;
use crate::builder::pre::Ports;
use crate::builder::shortage::check_room;
use crate::config::autoballoon::Dom0Share;
use crate::config::cmdline::CmdlineOf;
use crate::config::guest::{Claim, Guest};
use crate::config::placement::Placement;
use crate::config::platform::Platform;
use crate::config::platform::value::number;
use crate::context::Context;
use crate::devices::pci::{SYSFS, Sizing, sizing};
use crate::domain::paths::XenstorePaths;
use crate::error::Error;
use crate::error::domain::DomainError;
use crate::memory::{Bytes, Kib, Kind, Mib, Model, Plan, Request};
use crate::payload::boot_files::{BootFiles, FirmwareModules, Module};
use crate::payload::error::FileError;
use crate::payload::firmware::{FirmwareChoice, FirmwareKind};
use crate::payload::kernel::placement::check_placement;
use crate::payload::kernel::{Keep, Unpacker, Unpacking};
use crate::payload::search::{Candidates, load_ramdisk, map_ramdisk, read_firmware, read_hvmloader};
use crate::payload::{acpi_tables, smbios};
use crate::xen::{DomId, DomainInfo, ImageLimits, PciAddress, Transaction, XenError};

/// The guest to build, as far as the command line describes it.
pub(super) struct Job {
    pub(super) kind: Kind,
    pub(super) ports: Ports,
    pub(super) memory_node: Option<u32>,
    domid: DomId,
    max: Mib,
    start: Mib,
    image: PathBuf,
    cmdlines: Vec<CString>,
    /// PVH: its modules. PV: its ramdisk, where it has one.
    modules: Vec<PathBuf>,
    features: CString,
    flags: u32,
    devices: Vec<PciAddress>,
    sysfs: PathBuf,
    vgpu: bool,
    force: bool,
}

impl Job {
    /// Checks that everything is there that the mode needs.
    ///
    /// # Errors
    /// What is missing, or what is no such number.
    pub(super) fn of(options: &Options, kind: Kind) -> Result<Self, String> {
        let missing = |option: &str| format!("missing command line options: -{option}");
        let number = |option: &str, value: i32| {
            u32::try_from(value).map_err(|_| format!("'{value}' is not a valid integer (-{option})"))
        };
        let needed = |option: &str, value: Option<i32>| {
            value.ok_or_else(|| missing(option)).and_then(|value| number(option, value))
        };
        let domain = |option: &str, value: i32| {
            DomId::new(number(option, value)?).ok_or_else(|| format!("{value} is no domain (-{option})"))
        };
        let domid = options.domid.ok_or_else(|| missing("domid")).and_then(|domid| domain("domid", domid))?;
        if domid == DomId::DOM0 {
            return Err("domain 0 is the one that this runs in (-domid)".to_owned());
        }
        if kind != Kind::Hvm {
            if options.cmdlines.is_empty() {
                return Err(missing("cmdline"));
            }
            if options.features.is_none() {
                return Err(missing("features"));
            }
            for (index, cmdline) in options.cmdlines.iter().enumerate() {
                // Those behind the kernel's are the modules'; a PV guest's ramdisk has none.
                let reader = if index == 0 { CmdlineOf::Kernel(kind) } else { CmdlineOf::Module };
                reader.check("a -cmdline", cmdline.as_bytes().len())?;
            }
        }
        let ramdisk = options.ramdisk.clone();
        let modules = match kind {
            Kind::Hvm => Vec::new(),
            Kind::Pvh => options.modules.clone(),
            Kind::Pv => {
                let ramdisk = ramdisk.ok_or_else(|| missing("ramdisk"))?;
                Some(ramdisk).filter(|path| !path.as_os_str().is_empty()).into_iter().collect()
            }
        };
        Ok(Self {
            kind,
            ports: super::ports(
                (needed("store_port", options.store_port)?, domain("store_domid", options.store_domid)?),
                (needed("console_port", options.console_port)?, domain("console_domid", options.console_domid)?),
            ),
            memory_node: options.mem_pnode.map(|node| number("mem_pnode", node)).transpose()?,
            domid,
            max: Mib(needed("mem_max_mib", options.mem_max_mib)?),
            start: Mib(needed("mem_start_mib", options.mem_start_mib)?),
            image: options.image.clone().ok_or_else(|| missing("image"))?,
            cmdlines: options.cmdlines.clone(),
            modules,
            features: options.features.clone().unwrap_or_default(),
            flags: number("flags", options.flags)?,
            devices: devices(options.pci_passthrough.as_deref(), kind)?,
            sysfs: options.sysfs.clone().unwrap_or_else(|| PathBuf::from(SYSFS)),
            vgpu: options.vgpu,
            force: options.force,
        })
    }

    /// Makes sure that the domain is one that can be built into.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn check_domain(&self, context: &Context<'_>) -> Result<DomainInfo, Error> {
        let domain = check_buildable(context, self.domid, self.kind, self.force)?;
        if domain.existing_vcpus == 0 {
            return Err(DomainError::NoVcpus(self.domid).into());
        }
        Ok(domain)
    }

    /// The guest, with its files read.
    ///
    /// # Errors
    /// A key or a file that cannot be used; numbers that make no guest; too little memory.
    pub(super) fn guest(&self, context: &Context<'_>, domain: &DomainInfo) -> Result<Guest, Error> {
        let store = context.store.plain();
        let platform = platform_of(&store, &XenstorePaths::new(self.domid))?;
        log::info!("settings: {platform:?}");
        let vcpus = platform.vcpus.ok_or_else(|| {
            Error::BadConfig("platform/vcpu/number is missing in xenstore: how many vCPUs has the guest?".to_owned())
        })?;
        if vcpus > domain.existing_vcpus {
            return Err(Error::BadConfig(format!(
                "platform/vcpu/number is {vcpus}, but domain {} has {} vCPUs",
                self.domid, domain.existing_vcpus
            )));
        }
        let vgpu = self.vgpu && self.kind == Kind::Hvm;
        let Sizing { mmio_hole, reserved } = sizing(context.xen, &self.devices, vgpu, &self.sysfs)?;
        let plan = Plan::new(&Request {
            kind: self.kind,
            model: Model::Xapi,
            static_max: Some(self.max.to_kib()),
            video: Some(Kib::ZERO),
            vcpus,
            mmio_hole,
            reserved,
            vgpu,
            passthrough: !self.devices.is_empty() && !self.force,
            ..Request::new(self.start.to_kib())
        })?;
        platform.check(plan.request.kind, vcpus, plan.pod.is_some() && !self.force)?;
        if platform.nested && !domain.hap && !self.force {
            return Err(Error::BadConfig("nested virtualisation needs hardware-assisted paging".to_owned()));
        }
        check_room(context, self.domid, plan.owned_pages_built)?;
        // hvmloader is the host's own.
        let limits = if self.kind == Kind::Hvm { ImageLimits::default() } else { limits_of_host(&store)? };
        let payload = match self.kind {
            Kind::Hvm => self.firmware(&platform, &plan)?,
            Kind::Pvh | Kind::Pv => self.kernel(limits, &plan)?,
        };
        let devices = self.devices.clone();
        // Its caller has set the memory aside, and would not know of a claim that a killed helper left.
        let (claim, build_locks, dom0_share) = (Claim::Nothing { device_model: false }, false, Dom0Share::NOTHING);
        let wait_memory = Duration::ZERO;
        Ok(Guest {
            plan,
            boot_files: payload,
            platform,
            placement: Placement::NONE,
            limits,
            devices,
            wait_memory,
            claim,
            build_locks,
            dom0_share,
        })
    }

    fn firmware(&self, platform: &Platform, plan: &Plan) -> Result<BootFiles, Error> {
        let kind = platform.firmware.unwrap_or_default();
        let path = match (&platform.ovmf_override, kind) {
            (Some(name), FirmwareKind::Ovmf) => Some(start_device_model_ovmf(name)?),
            _ => None,
        };
        let firmware = read_firmware(&FirmwareChoice { kind, path }, plan.low_memory_at_start())?;
        let modules = self.modules_of_host(platform);
        Ok(BootFiles::Firmware { hvmloader: read_hvmloader(Some(&self.image), plan)?, kind, firmware, modules })
    }

    /// The host's own tables for the guest. A host without them is not an error.
    fn modules_of_host(&self, platform: &Platform) -> FirmwareModules {
        let warn = |error: FileError| log::warn!("{error}");
        FirmwareModules {
            smbios: if platform.smbios_passthrough { smbios::of_host(&self.sysfs).map_err(warn).ok() } else { None },
            acpi: if platform.acpi_passthrough {
                acpi_tables::slic_of_host(&self.sysfs).map_err(warn).ok().flatten()
            } else {
                None
            },
        }
    }

    fn kernel(&self, limits: ImageLimits, plan: &Plan) -> Result<BootFiles, Error> {
        let within = |what, path: &Path, size: u64, limit: Bytes| {
            if size <= limit.0 {
                return Ok(());
            }
            let reason = format!("has {size} bytes, but xenstore's /mh/limits allow {}", limit.0);
            Err(Error::BadFile { what, path: path.to_owned(), reason })
        };
        let mut cmdlines = self.cmdlines.iter().cloned();
        // The size that counts is looked at when it is opened; this one is for the message.
        let size = std::fs::metadata(&self.image).map_or(0, |metadata| metadata.len());
        within("kernel", &self.image, size, limits.kernel)?;
        let cmdline = cmdlines.next().unwrap_or_default();
        // First, as they may take memory, of which the rest is the kernel's.
        let modules = self.modules.iter().map(|path| {
            let data = map_ramdisk(path)?;
            within("ramdisk", path, data.len() as u64, limits.module)?;
            Ok::<_, Error>(Module { data, path: path.clone(), cmdline: cmdlines.next().unwrap_or_default() })
        });
        let modules = modules.collect::<Result<Vec<_>, _>>()?;
        let unpacking = Unpacking::start(&Unpacker::this_program(), &self.image, limits.kernel, Keep::Yes)?;
        modules.iter().try_for_each(load_ramdisk)?;
        let data = unpacking.finish(plan)?;
        let kernel = Module { data, path: self.image.clone(), cmdline };
        check_placement(plan, &kernel, &modules)?;
        Ok(BootFiles::Kernel { kernel, modules, features: self.features.clone(), start_flags: self.flags })
    }

    /// Writes what hvmloader and QEMU of an HVM guest look for, whether or not the caller has.
    ///
    /// # Errors
    /// If xenstored refuses.
    pub(super) fn write_keys(&self, context: &Context<'_>, guest: &Guest) -> Result<(), XenError> {
        let keys = XenstorePaths::new(self.domid);
        let platform = &guest.platform;
        let firmware = platform.firmware.unwrap_or_default();
        context.store.batch(|transaction| {
            write_firmware(transaction, &keys, platform, firmware)?;
            write_hole(transaction, &keys, &guest.plan)
        })
    }

    /// Writes the addresses of hvmloader's tables, if there are any.
    ///
    /// # Errors
    /// If xenstored refuses.
    pub(super) fn write_modules(&self, context: &Context<'_>, rings: BuildResult) -> Result<(), XenError> {
        write_modules(&context.store.plain(), &XenstorePaths::new(self.domid), rings.modules)
    }
}

/// The devices of a list with commas. A PV guest's memory makes no room for them, so that they do not matter there.
fn devices(list: Option<&str>, kind: Kind) -> Result<Vec<PciAddress>, String> {
    let list = list.filter(|list| !list.is_empty() && kind != Kind::Pv);
    if list.is_some() && kind == Kind::Pvh {
        return Err("PCI passthrough is not supported under PVH (-pci_passthrough)".to_owned());
    }
    let devices = list.into_iter().flat_map(|list| list.split(',')).filter(|word| !word.is_empty());
    devices.map(|word| word.parse().map_err(|reason| format!("'{word}': {reason} (-pci_passthrough)"))).collect()
}

/// A file in OVMF's own directory; a link there could lead anywhere.
fn start_device_model_ovmf(name: &str) -> Result<PathBuf, Error> {
    let usual = Candidates::firmware(FirmwareKind::Ovmf);
    let usual = usual.find().or_else(|| usual.paths.first().cloned()).unwrap_or_default();
    let path = usual.with_file_name(name);
    if path.is_symlink() {
        let reason = "is a symbolic link; platform/ovmf-override takes a file".to_owned();
        return Err(Error::BadFile { what: "firmware", path, reason });
    }
    Ok(path)
}

/// The settings in the domain's keys. The directories are listed first, so that only what is there is read.
pub(super) fn platform_of(transaction: &Transaction<'_>, keys: &XenstorePaths) -> Result<Platform, Error> {
    let directories = Platform::directories();
    let paths: Vec<_> = directories.iter().map(|directory| keys.of_domain(directory)).collect();
    let listed = directories.into_iter().zip(transaction.children_of_all(&paths)?);
    let listed = listed.flat_map(|(directory, names)| names.into_iter().map(move |name| format!("{directory}/{name}")));
    let nodes = Platform::nodes(&listed.collect());
    let paths: Vec<_> = nodes.iter().map(|node| keys.of_domain(node)).collect();
    let values = nodes.into_iter().zip(transaction.read_all(&paths)?);
    Ok(Platform::of_keys(&values.filter_map(|(node, value)| Some((node, value?))).collect())?)
}

/// How large a kernel and a ramdisk may be, unpacked: the host's limits, where it has any.
fn limits_of_host(transaction: &Transaction<'_>) -> Result<ImageLimits, Error> {
    let paths = ["/mh/limits/pv-kernel-max_size", "/mh/limits/pv-ramdisk-max_size"];
    let mut limits = [ImageLimits::MAX; 2];
    for ((limit, path), text) in limits.iter_mut().zip(paths).zip(transaction.read_all(&paths)?) {
        let Some(text) = text.filter(|text| !text.is_empty()) else { continue };
        let bytes = number(&text).map_err(|reason| Error::BadConfig(format!("{path} is {text:?}: {reason}")))?;
        if bytes != 0 {
            *limit = Bytes(bytes).min(ImageLimits::MAX);
        }
    }
    let [kernel, module] = limits;
    Ok(ImageLimits { kernel, module })
}
