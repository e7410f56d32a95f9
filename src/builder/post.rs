//! build_post: writes the xenstore keys that the guest, hvmloader, QEMU, xl and the usual tools expect, and introduces the
//! domain to xenstored.

use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::hvmloader_keys::{write_firmware, write_hole, write_modules};
use super::image::BuildResult;
use super::pre::{Ports, Prepared};
use crate::config::guest::Guest;
use crate::config::name::DomainName;
use crate::context::Context;
use crate::domain::paths::XenstorePaths;
use crate::domain::saved_request::save_request;
use crate::error::{Error, Failure};
use crate::memory::{Kind, Request};
use crate::payload::boot_files::{BootFiles, Module};
use crate::payload::firmware::FirmwareKind;
use crate::stage::Stage;
use crate::xen::{DomId, Permissions, Transaction, XenError};

/// How much of a guest's output xenconsoled keeps, in bytes. xl sets the same limit.
const CONSOLE_LIMIT: &str = "1048576";

/// `XenbusStateInitialising` (xen/include/public/io/xenbus.h).
const INITIALISING: &str = "1";

/// What a domain is in xenstore: its UUID, its name and its role.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The domain's UUID, which Xen calls its handle.
    pub uuid: Uuid,
    /// The domain's name. `None` for a domain of another toolstack, which may have no name or has one already.
    pub name: Option<DomainName>,
    /// It may serve devices to others: it owns the directories for that (`driver_domain`, libxl_create.c, Xen 4.17).
    pub driver_domain: bool,
}

impl Identity {
    fn vm_path(&self) -> String {
        format!("/vm/{}", self.uuid)
    }
}

/// Makes the domain's directories with the permissions that guests rely on, and sets its name, which no other domain may have.
/// Keys of an earlier domain with the same domid are removed.
///
/// # Errors
/// An error of xenstored.
pub fn make_skeleton(context: &Context<'_>, domid: DomId, identity: &Identity, kind: Kind) -> Result<(), Failure> {
    context.step(Stage::Xenstore, || {
        context.store.batch(|nodes| {
            let keys = XenstorePaths::new(domid);
            nodes.remove(&keys.domain)?;
            nodes.remove(&keys.libxl)?;
            nodes.remove(&identity.vm_path())?;
            write_skeleton(nodes, &keys, identity, kind)?;
            nodes.write(&keys.owner_tag(), &identity.uuid.to_string())?;
            Ok::<_, XenError>(())
        })
    })
}

/// Writes the tree that libxl makes for a new domain (tools/libs/light/libxl_create.c, libxl__domain_make, Xen 4.17). If a
/// part of the tree exists already, the nodes below the directories named here keep their permissions.
fn write_skeleton(
    transaction: &Transaction<'_>,
    keys: &XenstorePaths,
    identity: &Identity,
    kind: Kind,
) -> Result<(), XenError> {
    let readable = Permissions::read_only_for(keys.domid);
    let owned = Permissions::owned_by(keys.domid);
    let vm_path = identity.vm_path();

    // A new node inherits the permissions of its parent, which saves one request for each node that the guest owns. The
    // parents return to dom0 before the guest is introduced to xenstored.
    let (domain, control) = (&keys.domain, &keys.of_domain("control"));
    for node in [domain, control] {
        transaction.make_as(node, owned)?;
    }
    let sleeps: &[&str] = if kind == Kind::Hvm { &["control/feature-s3", "control/feature-s4"] } else { &[] };
    for node in [
        "data",
        "drivers",
        "feature",
        "attr",
        "error",
        "control/shutdown",
        "control/feature-poweroff",
        "control/feature-reboot",
        "control/feature-suspend",
        "control/sysrq",
    ]
    .iter()
    .chain(sleeps)
    {
        transaction.make(&keys.of_domain(node))?;
    }
    for node in [domain, control] {
        transaction.set_permissions(node, readable)?;
    }
    transaction.make_as(&keys.of_domain("device/suspend/event-channel"), owned)?;
    if identity.driver_domain {
        for node in ["libxl", "device-model"] {
            transaction.make_as(&keys.of_domain(node), owned)?;
        }
    }
    transaction.make_as(&vm_path, readable)?;
    transaction.make_as(&keys.libxl, Permissions::dom0_only())?;
    transaction.write(&keys.of_domain("control/platform-feature-multiprocessor-suspend"), "1")?;
    transaction.write(&keys.of_domain("control/platform-feature-xs_reset_watches"), "1")?;
    transaction.write(&keys.of_domain("vm"), &vm_path)?;
    transaction.write(&format!("{vm_path}/uuid"), &identity.uuid.to_string())?;
    if let Some(name) = &identity.name {
        transaction.write(&keys.of_domain("name"), name.as_str())?;
        transaction.write(&format!("{vm_path}/name"), name.as_str())?;
    }
    transaction.write(&format!("{}/type", keys.libxl), &kind.to_string())
}

/// Writes the keys of the guest, hvmloader and the tools, and introduces the domain to xenstored.
///
/// # Errors
/// An error of xenstored.
pub fn build_post(
    context: &Context<'_>,
    domid: DomId,
    guest: &Guest,
    identity: &Identity,
    prepared: &Prepared,
    rings: BuildResult,
) -> Result<(), Failure> {
    let keys = XenstorePaths::new(domid);
    context.step(Stage::Xenstore, || {
        context.store.batch(|transaction| {
            write_all_but_rings(transaction, &keys, guest, identity, prepared)?;
            write_rings(transaction, &keys, guest, rings)
        })
    })?;
    introduce(context, domid, prepared, rings)
}

/// The first part of [`build_post`], of a guest whose memory is to come: all that says nothing of it.
///
/// # Errors
/// An error of xenstored.
pub fn prepare_post(
    context: &Context<'_>,
    domid: DomId,
    guest: &Guest,
    identity: &Identity,
    prepared: &Prepared,
) -> Result<(), Failure> {
    context.step(Stage::Xenstore, || {
        let write =
            |nodes: &Transaction<'_>| write_all_but_rings(nodes, &XenstorePaths::new(domid), guest, identity, prepared);
        context.store.batch(write)
    })
}

/// The rest of [`build_post`].
///
/// # Errors
/// An error of xenstored.
pub fn finish_post(
    context: &Context<'_>,
    domid: DomId,
    guest: &Guest,
    prepared: &Prepared,
    rings: BuildResult,
) -> Result<(), Failure> {
    context.step(Stage::Xenstore, || {
        context.store.batch(|nodes| write_rings(nodes, &XenstorePaths::new(domid), guest, rings))
    })?;
    introduce(context, domid, prepared, rings)
}

fn introduce(context: &Context<'_>, domid: DomId, prepared: &Prepared, rings: BuildResult) -> Result<(), Failure> {
    // If the domain is already introduced, xenstored accepts the new ring and port.
    context.step(Stage::Introduce, || context.store.introduce(domid, rings.store_gfn, prepared.ports.store))
}

fn write_all_but_rings(
    transaction: &Transaction<'_>,
    keys: &XenstorePaths,
    guest: &Guest,
    identity: &Identity,
    prepared: &Prepared,
) -> Result<(), Error> {
    // A domain of another toolstack may have no tree yet.
    let vm_path = match transaction.read(&keys.of_domain("vm"))? {
        Some(path) => path,
        None => {
            write_skeleton(transaction, keys, identity, guest.plan.request.kind)?;
            identity.vm_path()
        }
    };
    save_request(transaction, keys, identity.uuid, &guest.plan.request, prepared.nodes.node_pages())?;
    write_guest_keys(transaction, keys, guest, &vm_path, prepared.ports)?;
    write_console(transaction, keys, prepared.ports)?;
    Ok(())
}

/// Writes the keys that say where something is in the guest's memory.
fn write_rings(
    transaction: &Transaction<'_>,
    keys: &XenstorePaths,
    guest: &Guest,
    rings: BuildResult,
) -> Result<(), Error> {
    transaction.write(&keys.of_domain("store/ring-ref"), &rings.store_gfn.0.to_string())?;
    transaction.write(&keys.of_domain("console/ring-ref"), &rings.console_gfn.0.to_string())?;
    if matches!(guest.boot_files, BootFiles::Firmware { .. } | BootFiles::Saved { firmware: Some(_), .. }) {
        write_modules(transaction, keys, rings.modules)?;
    }
    Ok(())
}

fn write_guest_keys(
    transaction: &Transaction<'_>,
    keys: &XenstorePaths,
    guest: &Guest,
    vm_path: &str,
    ports: Ports,
) -> Result<(), XenError> {
    let memory = &guest.plan.memory;
    let domain = [
        ("memory/static-max", memory.static_max.0.to_string()),
        ("memory/target", memory.balloon_target().0.to_string()),
        ("memory/videoram", memory.video.0.to_string()),
        ("domid", keys.domid.to_string()),
        ("store/port", ports.store.to_string()),
    ];
    for (name, value) in domain {
        transaction.write(&keys.of_domain(name), &value)?;
    }
    let online = guest.platform.online(guest.plan.vcpus);
    for vcpu in 0..guest.plan.vcpus {
        let availability = if vcpu < online { "online" } else { "offline" };
        transaction.write(&keys.of_domain(&format!("cpu/{vcpu}/availability")), availability)?;
    }
    match &guest.boot_files {
        BootFiles::Firmware { kind, .. } | BootFiles::Saved { firmware: Some(kind), .. } => {
            write_firmware_keys(transaction, keys, guest, *kind, vm_path)?;
            let Request { passthrough, vgpu, .. } = guest.plan.request;
            if passthrough || vgpu {
                write_hole(transaction, keys, &guest.plan)?;
            }
        }
        BootFiles::Kernel { kernel, modules, .. } => {
            // libxl starts the QEMU named here if it later adds a device that QEMU serves.
            transaction.write(&format!("{}/dm-version", keys.libxl), "qemu_xen")?;
            if guest.plan.request.kind == Kind::Pv {
                write_image_keys(transaction, kernel, modules, vm_path)?;
            }
        }
        BootFiles::Saved { firmware: None, image } => {
            transaction.write(&format!("{}/dm-version", keys.libxl), "qemu_xen")?;
            for (name, value) in image {
                transaction.write(&format!("{vm_path}/image/{name}"), value)?;
            }
        }
    }
    let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    transaction
        .write(&format!("{vm_path}/start_time"), &format!("{}.{:02}", started.as_secs(), started.subsec_millis() / 10))
}

/// Writes the kernel, ramdisks and command line of a PV guest below its `/vm` path.
fn write_image_keys(
    transaction: &Transaction<'_>,
    kernel: &Module,
    modules: &[Module],
    vm_path: &str,
) -> Result<(), XenError> {
    let image = |name: &str| format!("{vm_path}/image/{name}");
    transaction.write(&image("ostype"), "linux")?;
    transaction.write(&image("kernel"), &kernel.path.to_string_lossy())?;
    for ramdisk in modules {
        transaction.write(&image("ramdisk"), &ramdisk.path.to_string_lossy())?;
    }
    if kernel.cmdline.is_empty() {
        return Ok(());
    }
    transaction.write(&image("cmdline"), &kernel.cmdline.to_string_lossy())
}

/// Writes the keys that hvmloader and QEMU read.
fn write_firmware_keys(
    transaction: &Transaction<'_>,
    keys: &XenstorePaths,
    guest: &Guest,
    firmware: FirmwareKind,
    vm_path: &str,
) -> Result<(), XenError> {
    let (plan, platform) = (&guest.plan, &guest.platform);
    write_firmware(transaction, keys, platform, firmware)?;
    // QEMU could not follow if hvmloader moved RAM to make the MMIO hole larger.
    transaction.write(&keys.of_domain("hvmloader/allow-memory-relocate"), "0")?;
    if plan.layout.has_custom_hole() {
        transaction.write(&keys.of_domain("platform/mmio_hole_size"), &plan.layout.mmio_size.0.to_string())?;
    }
    transaction.write(&format!("{vm_path}/image/ostype"), "hvm")?;
    transaction.make_as(&format!("{vm_path}/rtc/timeoffset"), Permissions::read_only_for(keys.domid))
}

/// Writes the keys of the first console, which xenconsoled serves. dom0 owns the directory, because other tools keep keys
/// there that the guest must not change.
fn write_console(transaction: &Transaction<'_>, keys: &XenstorePaths, ports: Ports) -> Result<(), XenError> {
    let readable = Permissions::read_only_for(keys.domid);
    // As in libxl: the guest owns the node, and the backend's domain may read it.
    let owned = Permissions { owner: keys.domid, reader: Some(DomId::DOM0) };
    let frontend = keys.of_domain("console");
    let backend = &keys.console_backend;
    let libxl = format!("{}/device/console/0", keys.libxl);

    // Another toolstack may have made the domain's directory, with other permissions.
    transaction.make_as(&frontend, readable)?;
    for (name, value) in [
        ("backend", backend.clone()),
        ("limit", CONSOLE_LIMIT.to_owned()),
        ("type", "xenconsoled".to_owned()),
        ("output", "pty".to_owned()),
        ("tty", String::new()),
        ("port", ports.console.to_string()),
    ] {
        transaction.write(&format!("{frontend}/{name}"), &value)?;
    }
    transaction.write(&format!("{frontend}/backend-id"), "0")?;
    transaction.set_permissions(&format!("{frontend}/backend-id"), owned)?;

    transaction.make_as(backend, readable)?;
    for directory in [backend, &libxl] {
        for (name, value) in [
            ("frontend", frontend.as_str()),
            ("frontend-id", &keys.domid.to_string()),
            ("online", "1"),
            ("state", INITIALISING),
            ("protocol", "vt100"),
        ] {
            transaction.write(&format!("{directory}/{name}"), value)?;
        }
    }
    transaction.write(&format!("{libxl}/backend"), backend)
}
