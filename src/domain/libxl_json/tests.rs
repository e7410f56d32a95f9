//! What libxl reads of a guest.

use std::ffi::CString;
use std::fs::File;
use std::sync::LazyLock;

use super::*;
use crate::config::devices::disk::{Disk, DiskBackend, DiskFormat};
use crate::config::devices::emulated::{SoundModel, Usb, UsbDevice, UsbVersion};
use crate::config::devices::machine::Machine;
use crate::config::devices::nic::{MacAddress, Nic, Rate};
use crate::config::devices::virtual_device::{DiskClass, VirtualDevice};
use crate::config::platform::Platform;
use crate::memory::{Mib, Plan, Request, units::Bytes};
use crate::os::sealed::MemoryFile;
use crate::payload::boot_files::FirmwareModules;
use crate::payload::firmware::FirmwareKind;

const UUID: Uuid = Uuid::from_u128(7);

fn guest(request: Request, boot_files: BootFiles, platform: &[&str]) -> Guest {
    let plan = Plan::new(&request).expect("a plan");
    Guest { platform: Platform::asked(platform).expect("settings"), ..Guest::new(plan, boot_files) }
}

fn firmware() -> BootFiles {
    BootFiles::Firmware {
        hvmloader: Vec::new(),
        kind: FirmwareKind::Ovmf,
        firmware: Vec::new(),
        modules: FirmwareModules::default(),
    }
}

fn module(path: &str, cmdline: &str) -> Module {
    let memory = MemoryFile::new(c"module").expect("memory");
    memory.fill(&File::open("/dev/zero").expect("Linux has it"), 1).expect("filled");
    let data = memory.seal(1).expect("sealed");
    Module { data, path: path.into(), cmdline: CString::new(cmdline).expect("text") }
}

fn kernel(kernel: Module, modules: Vec<Module>) -> BootFiles {
    BootFiles::Kernel { kernel, modules, features: CString::default(), start_flags: 0 }
}

fn value<'a>(guest: &'a Guest, change: impl FnOnce(&mut LibxlConfig<'a>)) -> Value {
    static NONE: LazyLock<Devices> = LazyLock::new(Devices::default);
    static NAME: LazyLock<DomainName> = LazyLock::new(|| "web".parse().expect("a name"));
    let mut config = LibxlConfig {
        name: &NAME,
        uuid: UUID,
        guest,
        firmware: FirmwarePaths::default(),
        device_model: None,
        max_grant_version: None,
        pirqs: false,
        vmtrace: Kib(0),
        driver_domain: false,
        vpmu: false,
        msr_relaxed: false,
        cpupool: 0,
        pool_cpus: &[0b101],
        seclabel: None,
        max_grant_frames: None,
        max_maptrack_frames: None,
        event_channels: EVENT_CHANNELS,
        devices: &NONE,
        bootloader: None,
    };
    change(&mut config);
    config.value().expect("a value")
}

#[test]
fn a_pvh_guest() {
    let request = Request { kind: Kind::Pvh, vcpus: 2, ..Request::new(Mib(128).to_kib()) };
    let files = kernel(module("/vmlinuz", "console=hvc0"), vec![module("/initrd", "")]);
    let guest = guest(request, files, &["vcpu/1/affinity=01", "vcpu/weight=512", "vcpu/current=1"]);
    let mut value = value(&guest, |_| {});
    let saved = value["c_info"]["xsdata"]["dombuild/request"].take();
    assert!(saved.as_str().expect("text").contains(r#""kind":"pvh""#), "{saved}");
    let expected = json!({
        "c_info": {"type": "pvh", "name": "web", "uuid": UUID.to_string(), "run_hotplug_scripts": "True",
            "xsdata": {"dombuild/request": null}},
        "b_info": {
            "max_vcpus": 2, "avail_vcpus": [0], "max_memkb": 131_072, "target_memkb": 131_072, "video_memkb": 0,
            "shadow_memkb": guest.plan.paging_pool.0, "sched_params": {"weight": 512}, "claim_mode": "True",
            "vcpu_hard_affinity": [[0, 2], [1]], "numa_placement": "False",
            "kernel": "/vmlinuz", "cmdline": "console=hvc0", "ramdisk": "/initrd", "type.pvh": {},
        },
        "on_reboot": "restart", "on_soft_reset": "soft_reset",
    });
    assert_eq!(value, expected);
}

#[test]
fn a_pv_guest_has_no_paging_pool_and_a_shim_is_no_kernel() {
    let request = Request { kind: Kind::Pv, ..Request::new(Mib(128).to_kib()) };
    let pv = guest(request.clone(), kernel(module("/vmlinuz", ""), Vec::new()), &["timeoffset=-1", "tsc_mode=1"]);
    let info = value(&pv, |config| config.cpupool = 3);
    assert_eq!(info["c_info"]["poolid"], 3);
    let info = &info["b_info"];
    for absent in ["shadow_memkb", "cmdline", "ramdisk", "timer_mode", "type.pvh"] {
        assert_eq!(info.get(absent), None, "{absent}");
    }
    assert_eq!(info["type.pv"], json!({}));
    assert_eq!(info["rtc_timeoffset"], u32::MAX);
    assert_eq!(info["tsc_mode"], "always_emulate");

    let request = Request { kind: Kind::Pvh, shim: true, model: crate::memory::Model::Libxl, ..request };
    let files = kernel(module("/xen-shim", "pv-shim"), vec![module("/vmlinuz", "quiet"), module("/initrd", "")]);
    let info = value(&guest(request, files, &[]), |_| {})["b_info"].take();
    assert_eq!([&info["kernel"], &info["cmdline"], &info["ramdisk"]], ["/vmlinuz", "quiet", "/initrd"]);
    let shim = json!({"pvshim": "True", "pvshim_path": "/xen-shim", "pvshim_cmdline": "pv-shim"});
    assert_eq!(info["type.pvh"], shim);
}

#[test]
fn an_hvm_guest_has_the_qemu_that_runs() {
    let request = Request {
        mmio_hole: Some(Bytes(512 << 20)),
        passthrough: true,
        device_model: true,
        ..Request::new(Mib(256).to_kib())
    };
    let settings = ["hpet=0", "acpi=0", "acpi_s4=0", "viridian=base,freq", "timer_mode=2", "nomigrate=1"];
    let arguments = ["-serial", "null"].map(str::to_owned);
    let hvm = guest(request.clone(), firmware(), &settings);
    let model = |own_arguments, user| LibxlDeviceModel {
        path: Path::new("/qemu"),
        arguments: if own_arguments { &arguments } else { &[] },
        user,
    };
    let full = value(&hvm, |config| {
        config.device_model = Some(model(false, LibxlUser::Named("qemu".to_owned())));
        config.firmware.system = Some(Path::new("/OVMF.fd"));
        config.event_channels = 4096;
        config.max_grant_frames = Some(128);
        config.seclabel = Some("a:b:c");
    });
    assert_eq!([&full["c_info"]["passthrough"], &full["c_info"]["ssid_label"]], ["enabled", "a:b:c"]);
    let info = &full["b_info"];
    for (name, expected) in [
        ("device_model", json!("/qemu")),
        ("device_model_version", json!("qemu_xen")),
        ("device_model_user", json!("qemu")),
        ("dm_restrict", json!("True")),
        ("event_channels", json!(4096)),
        ("max_grant_frames", json!(128)),
        ("timer_mode", json!("no_missed_ticks_pending")),
        ("disable_migrate", json!("True")),
        ("video_memkb", json!(16384)),
    ] {
        assert_eq!(info[name], expected, "{name}");
    }
    let expected = json!({
        "bios": "ovmf", "system_firmware": "/OVMF.fd", "vga": {"kind": "std"}, "vnc": {"enable": "False"},
        "serial": "pty", "vkb_device": "False", "hpet": "False", "acpi_s4": "False",
        "viridian_enable": [0, 1], "mmio_hole_memkb": 524_288,
    });
    assert_eq!(info["type.hvm"], expected);

    let small = guest(Request { video: Some(Mib(8).to_kib()), ..request }, firmware(), &[]);
    let silent = Devices { machine: Machine { serial: Vec::new(), ..Machine::default() }, ..Devices::default() };
    let mut json = value(&small, |config| {
        config.device_model = Some(model(true, LibxlUser::Root));
        config.devices = &silent;
    });
    let info = json["b_info"].take();
    assert_eq!(info["extra_hvm"], json!(["-device", "VGA,vgamem_mb=8", "-serial", "null"]));
    assert_eq!(info["type.hvm"]["vga"], json!({"kind": "none"}));
    assert_eq!((info["type.hvm"].get("serial"), info.get("dm_restrict")), (None, None));
}

#[test]
fn disks_and_network_cards() {
    let disk = Disk {
        vdev: VirtualDevice { name: "hdc".to_owned(), number: 5632, disk: 2, partition: 0, class: DiskClass::Ide },
        target: None,
        format: DiskFormat::Raw,
        backend: None,
        script: None,
        backend_domain: None,
        cdrom: true,
        writable: false,
        shared: false,
        discard: None,
        direct_io_safe: false,
        trusted: None,
    };
    let image = Disk {
        target: Some("/a.img".to_owned()),
        format: DiskFormat::Qcow2,
        backend: Some(DiskBackend::Qdisk),
        cdrom: false,
        writable: true,
        discard: Some(false),
        direct_io_safe: true,
        ..disk.clone()
    };
    let card = Nic {
        devid: None,
        mac: Some(MacAddress([0, 0x16, 0x3e, 0, 0, 1])),
        bridge: Some("xenbr0".to_owned()),
        script: None,
        ip: None,
        vifname: Some("web0".to_owned()),
        rate: Some(Rate { bytes: 62_500, interval_us: 50_000 }),
        mtu: None,
        gatewaydev: None,
        model: None,
        emulated: None,
        backend_domain: None,
        trusted: Some(false),
    };
    let plain = Nic { emulated: Some(false), rate: None, trusted: None, ..card.clone() };
    let devices = Devices { disks: vec![disk, image], nics: vec![card, plain], ..Devices::default() };
    let hvm = guest(Request::new(Mib(256).to_kib()), firmware(), &[]);
    let value = value(&hvm, |config| config.devices = &devices);
    let disks = json!([
        {"vdev": "hdc", "format": "empty", "removable": 1, "is_cdrom": 1},
        {"pdev_path": "/a.img", "vdev": "hdc", "format": "qcow2", "backend": "qdisk", "readwrite": 1, "direct_io_safe": true,
            "discard_enable": "False"},
    ]);
    assert_eq!(value["disks"], disks);
    let nics = json!([
        {"devid": 0, "mac": "00:16:3e:00:00:01", "bridge": "xenbr0", "ifname": "web0", "nictype": "vif_ioemu",
            "rate_bytes_per_interval": 62_500, "rate_interval_usecs": 50_000, "trusted": "False"},
        {"devid": 1, "mac": "00:16:3e:00:00:01", "bridge": "xenbr0", "ifname": "web0", "nictype": "vif"},
    ]);
    assert_eq!(value["nics"], nics);
}

#[test]
fn devices_that_other_domains_serve() {
    let sound = "CARD,short-name=s,buffer-size=64,PCM,name=d,STREAM,unique-id=0,type=p,sample-rates=8000;44100,\
                 sample-formats=S8;u8,channels-min=1,channels-max=2";
    let mut devices = Devices {
        vtpms: vec!["backend=tpm,uuid=69b92c70-99c7-4502-9334-6cf87ad556ee".parse().expect("a TPM")],
        vdispls: vec!["connectors=a:2x1,be-alloc=1,backend=0".parse().expect("a display")],
        sound_cards: vec![sound.parse().expect("a card"), "CARD,backend=7".parse().expect("a card")],
        pvcalls: vec!["backend=net".parse().expect("a connection")],
        ..Devices::default()
    };
    devices.complete();
    let pvh = guest(
        Request { kind: Kind::Pvh, ..Request::new(Mib(256).to_kib()) },
        kernel(module("/k", "console=hvc0"), Vec::new()),
        &[],
    );
    let found = value(&pvh, |config| config.devices = &devices);
    assert_eq!(
        found["vtpms"],
        json!([{"devid": 0, "backend_domname": "tpm", "uuid": "69b92c70-99c7-4502-9334-6cf87ad556ee"}])
    );
    let connectors = json!([{"unique_id": "a", "width": 2, "height": 1}]);
    assert_eq!(found["vdispls"], json!([{"devid": 0, "be_alloc": true, "connectors": connectors}]));
    let stream = json!({"unique_id": "0", "type": "p", "params": {
        "sample_rates": [8000, 44100], "sample_formats": ["s8", "u8"], "channels_min": 1, "channels_max": 2,
    }});
    assert_eq!(
        found["vsnds"],
        json!([
            {"devid": 0, "short_name": "s", "params": {"buffer_size": 64},
                "pcms": [{"name": "d", "params": {}, "streams": [stream]}]},
            {"devid": 1, "backend_domname": "7", "params": {}, "pcms": []},
        ])
    );
    assert_eq!(found["pvcallsifs"], json!([{"devid": 0, "backend_domname": "net"}]));
    // A TPM without a UUID has a random one, the same in xenstore and for libxl.
    let mut random = Devices { vtpms: vec!["backend=tpm".parse().expect("a TPM"); 2], ..Devices::default() };
    random.complete();
    assert!(random.vtpms[0].uuid.is_some() && random.vtpms[0].uuid != random.vtpms[1].uuid);
    let uuid = random.vtpms[0].uuid.expect("a UUID").to_string();
    assert_eq!(value(&pvh, |config| config.devices = &random)["vtpms"][0]["uuid"], uuid);
}

#[test]
fn devices_that_qemu_emulates() {
    let usb = |usb| Devices { sound: Some(SoundModel::Ac97), usb: Some(usb), ..Devices::default() };
    let hvm = guest(Request::new(Mib(256).to_kib()), firmware(), &[]);
    let fields = |devices: &Devices| {
        let found = value(&hvm, |config| config.devices = devices)["b_info"]["type.hvm"].clone();
        ["soundhw", "usb", "usbdevice_list", "usbversion"].map(|name| found[name].clone())
    };
    let list = usb(Usb::Devices(vec![UsbDevice::Tablet, UsbDevice::Mouse]));
    assert_eq!(fields(&list), [json!("ac97"), json!("True"), json!(["tablet", "mouse"]), json!(null)]);
    let plain = usb(Usb::Devices(Vec::new()));
    assert_eq!(fields(&plain), [json!("ac97"), json!("True"), json!(null), json!(null)]);
    let version = usb(Usb::Controller(UsbVersion::Three));
    assert_eq!(fields(&version), [json!("ac97"), json!(null), json!(null), json!(3)]);
}

#[test]
fn devices_that_qemu_serves() {
    let devices = Devices {
        shares: vec!["tag=t,path=/srv/t,security_model=none".parse().expect("a share")],
        channels: vec![
            "name=a,connection=pty".parse().expect("a channel"),
            "name=b,connection=socket,path=/run/b".parse().expect("a channel"),
        ],
        framebuffer: Some("vncdisplay=3,vncpasswd=x,keymap=de".parse().expect("a framebuffer")),
        ..Devices::default()
    };
    let vnc = json!({"enable": "True", "listen": "127.0.0.1", "passwd": "x", "display": 3, "findunused": "True"});
    let pvh = guest(
        Request { kind: Kind::Pvh, ..Request::new(Mib(256).to_kib()) },
        kernel(module("/k", "console=hvc0"), Vec::new()),
        &[],
    );
    let found = value(&pvh, |config| config.devices = &devices);
    assert_eq!(found["p9s"], json!([{"devid": 0, "tag": "t", "path": "/srv/t", "security_model": "none"}]));
    assert_eq!(
        found["channels"],
        json!([
            {"devid": 1, "name": "a", "connection.pty": {}},
            {"devid": 2, "name": "b", "connection.socket": {"path": "/run/b"}},
        ])
    );
    assert_eq!(found["vfbs"], json!([{"devid": 0, "vnc": vnc, "sdl": {"enable": "False"}, "keymap": "de"}]));
    assert_eq!(found["vkbs"], json!([{"devid": 0}]));
    let hvm = guest(Request::new(Mib(256).to_kib()), firmware(), &[]);
    let found = value(&hvm, |config| config.devices = &devices);
    assert_eq!((found.get("vfbs"), &found["b_info"]["type.hvm"]["vnc"]), (None, &vnc));
    assert_eq!(found["b_info"]["type.hvm"]["keymap"], "de");
}
