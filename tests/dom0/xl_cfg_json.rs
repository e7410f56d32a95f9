//! `dombuild check --libxl-json` against `xl create -n`: files of every key, made by a grammar from a seed, have one configuration
//! in libxl's form. A wrong value in such a file is an error of `check` wherever xl refuses it or reads something else.

use std::collections::BTreeSet;
use std::fs;

use serde_json::Value;

use super::Test;
use super::sample::{Random, count};
use super::support::{Ran, dombuild, path_text, run};

pub(crate) const TESTS: &[Test] = &[
    ("walk_xl_and_check_make_the_same_configuration", same_configuration),
    ("walk_check_says_what_xl_leaves_out", wrong_values),
    ("check_takes_the_defaults_of_xl_conf", defaults),
];

const IS_417: bool = matches!(env!("DOMBUILD_XEN_VERSION").as_bytes(), b"4.17");

/// The kinds that a line of the table is for.
const HVM: &[&str] = &["hvm"];
const PV: &[&str] = &["pv"];
const PVH: &[&str] = &["pvh"];
const DIRECT: &[&str] = &["pvh", "pv"];
const HAP: &[&str] = &["hvm", "pvh"];
const ALL: &[&str] = &["hvm", "pvh", "pv"];

/// The guest's UUID, where it has one.
const UUID: &str = "'8D1C4F5E-2b7a-4c39-9d60-31c6f2aa7e10'";

const FLAG: &[&str] = &["0", "1", "'1'", "\"0\""];
const ACTION: &[&str] = &[
    "'destroy'",
    "'restart'",
    "'rename-restart'",
    "'preserve'",
    "'coredump-destroy'",
    "'coredump-restart'",
    "'soft-reset'",
];
const TEXT: &[&str] = &["'x'", "\"a b\"", "'a,b=c'", "\"it's\"", "'\u{e9}'"];
const PATH: &[&str] = &["'/srv/a'", "\"/srv/b c\"", "'relative'"];

/// Keys with values that both read: the kinds, the key, the values. At most one line of a key is taken.
const KEYS: &[(&[&str], &str, &[&str])] = &[
    (ALL, "uuid", &[UUID]),
    (ALL, "seclabel", &["'system_u:system_r:domU_t'"]),
    (ALL, "init_seclabel", &["'system_u:system_r:domU_b'"]),
    (ALL, "pool", &["'Pool-0'", "'other'"]),
    (ALL, "cpus", &["'0-3,^2'", "'1'", "['0', '1-2']", "['0,3']", "[]", "' 0, 5,^5,6'"]),
    (ALL, "cpus_soft", &["'0-1'", "['7', '0-7,^3', '1']"]),
    (ALL, "cpu_weight", &["256", "1", "65535"]),
    (ALL, "cap", &["0", "50"]),
    (ALL, "max_event_channels", &["16", "4096"]),
    (ALL, "max_grant_frames", &["1", "64"]),
    (ALL, "max_maptrack_frames", &["0", "1024"]),
    (ALL, "max_grant_version", &["1", "2"]),
    (ALL, "nomigrate", FLAG),
    (ALL, "driver_domain", FLAG),
    (ALL, "xend_suspend_evtchn_compat", FLAG),
    (ALL, "vpmu", FLAG),
    (ALL, "vmtrace_buf_kb", &["0", "64"]),
    (ALL, "msr_relaxed", FLAG),
    (ALL, "on_poweroff", ACTION),
    (ALL, "on_reboot", ACTION),
    (ALL, "on_watchdog", ACTION),
    (ALL, "on_crash", ACTION),
    (ALL, "on_soft_reset", ACTION),
    (HAP, "oos", FLAG),
    (HAP, "hap", &["1"]),
    (HAP, "shadow_memory", &["8", "64"]),
    (HAP, "altp2m", &["'disabled'", "'mixed'", "'external'", "'limited'", "2"]),
    (HVM, "altp2mhvm", FLAG),
    (PV, "e820_host", FLAG),
    (DIRECT, "ramdisk", PATH),
    (DIRECT, "cmdline", TEXT),
    (DIRECT, "root", &["'/dev/xvda1 ro'"]),
    (DIRECT, "extra", TEXT),
    (DIRECT, "bootloader", &["'pygrub'", "\"/usr/bin/pygrub\""]),
    (DIRECT, "bootloader_args", &["['--quiet', '--entry=1']", "'-q  -i'", "[]"]),
    (HVM, "firmware", &["'seabios'", "'ovmf'", "'uefi'", "'bios'", "'/srv/hvmloader'"]),
    (HVM, "bios", &["'seabios'", "'ovmf'"]),
    (HVM, "bios_path_override", PATH),
    (HVM, "firmware_override", PATH),
    (PVH, "pvshim", FLAG),
    (PVH, "pvshim_path", PATH),
    (PVH, "pvshim_cmdline", TEXT),
    (PVH, "pvshim_extra", TEXT),
    (ALL, "tsc_mode", &["'default'", "'always_emulate'", "'native'", "1"]),
    (HAP, "timer_mode", &["'delay_for_missed_ticks'", "'one_missed_tick_pending'", "1", "0"]),
    (ALL, "rtc_timeoffset", &["0", "3600", "'-3600'"]),
    (ALL, "localtime", FLAG),
    (HAP, "acpi", FLAG),
    (PV, "acpi", &["0"]),
    (HAP, "apic", FLAG),
    (HVM, "hpet", FLAG),
    (HVM, "vpt_align", FLAG),
    (HVM, "pae", FLAG),
    (HVM, "nx", FLAG),
    (HVM, "acpi_s3", FLAG),
    (HVM, "acpi_s4", FLAG),
    (HVM, "acpi_laptop_slate", FLAG),
    (HAP, "nestedhvm", FLAG),
    (PV, "nestedhvm", &["0"]),
    (HVM, "viridian", &["0", "1", "['base', 'freq', 'stimer']", "['all']", "['defaults', '!freq']", "[]"]),
    (ALL, "cpuid", &["'host,tm=0,family=25,lm=k,stepping=0x3'", "'host'", "'host,rdcl-no=1,,est=s'"]),
    (HVM, "mca_caps", &["['lmce']", "[]"]),
    (HVM, "ms_vm_genid", &["'generate'", "'none'"]),
    (HVM, "smbios_firmware", PATH),
    (HVM, "acpi_firmware", PATH),
    (HVM, "mmio_hole", &["1024", "2048"]),
    (HVM, "videoram", &["16", "32"]),
    (HVM, "rdm", &["'strategy=host'"]),
    (HVM, "rdm_mem_boundary", &["0", "4096"]),
    (ALL, "p9", &["['tag=a,security_model=none,path=/srv/a', 'path=/b, tag=b,security_model=mapped']"]),
    (ALL, "channel", &["['name=a,connection=pty', 'connection=socket, path=/run/b.sock,name=org.b']"]),
    (ALL, "vtpm", &["['backend=tpm,uuid=69B92C70-99c7-4502-9334-6cf87ad556ee']", "['backend=tpm']"]),
    (ALL, "pvcalls", &["['backend=calls']", "['']"]),
    (ALL, "vdispl", &["['backend=d,be-alloc=1,connectors=a:800x600;b:1x2']"]),
    (
        ALL,
        "vsnd",
        &["[['card, backend=d, buffer-size=65536, short-name=V, sample-rates=8000;11025', 'pcm, name=dev1', \
             'stream, unique-id=p, type=P,sample-formats=s16_le;u8', 'STREAM,unique-id=c,type=C,channels-max=2']]"],
    ),
    (ALL, "usbctrl", &["['type=auto,version=2,ports=4']", "['type=qusb', '']", "['version=1, ports=15,type=pv']"]),
    (ALL, "usbdev", &["['type=hostdev,hostbus=1,hostaddr=4']", "['hostbus=1,hostaddr=4,controller=0,port=2']"]),
    (ALL, "ioports", &["['2f8-2ff', '0']"]),
    (ALL, "irqs", &["[5, '17']"]),
    (ALL, "iomem", &["['fd010,1', '0xa0,2@0xb0']"]),
    (DIRECT, "vfb", &["['vnc=1,vnclisten=0.0.0.0,vncdisplay=3,keymap=de']", "['vncunused=0,vncpasswd=x']", "['']"]),
    (ALL, "vkb", &["['backend-type=linux, unique-id=T:1,multi-touch-width=10', 'backend-type=qemu,width=5']"]),
    (HVM, "vkb_device", FLAG),
    (HVM, "gfx_passthru", &["0", "1", "'igd'"]),
    (HVM, "vnc", FLAG),
    (HVM, "vncdisplay", &["0", "7"]),
    (HVM, "vnclisten", &["'127.0.0.1'", "'0.0.0.0'"]),
    (HVM, "vncunused", FLAG),
    (HVM, "vncpasswd", &["'secret'", "''"]),
    (HVM, "keymap", &["'de'"]),
    (HVM, "sdl", FLAG),
    (HVM, "opengl", FLAG),
    (HVM, "display", TEXT),
    (HVM, "xauthority", PATH),
    (HVM, "boot", &["'cda'", "'n'", "''"]),
    (HVM, "serial", &["'pty'", "['pty', 'null']", "[]"]),
    (HVM, "nographic", FLAG),
    (HVM, "device_model_version", &["'qemu-xen'"]),
    (ALL, "device_model_override", PATH),
    (ALL, "device_model_user", &["'qemu'"]),
    (ALL, "device_model_args", &["['-a', 'b c']", "[]"]),
    (HVM, "device_model_args_hvm", &["['-a']"]),
    (ALL, "device_model_args_pv", &["['-a']"]),
    (HVM, "dm_restrict", FLAG),
    (HVM, "vga", &["'stdvga'", "'cirrus'", "'none'"]),
    (HVM, "stdvga", FLAG),
    (HVM, "hdtype", &["'ide'", "'ahci'"]),
    (HVM, "xen_platform_pci", FLAG),
    (HVM, "vendor_device", &["'none'", "'xenserver'"]),
    (HVM, "usb", FLAG),
    (HVM, "usbdevice", &["'tablet'", "['tablet', 'mouse']"]),
    (HVM, "soundhw", &["'hda'"]),
    (HVM, "spice", FLAG),
    (HVM, "spicehost", &["'0.0.0.0'"]),
    (HVM, "spiceport", &["0", "6000"]),
    (HVM, "spicetls_port", &["6001"]),
    (HVM, "spicedisable_ticketing", FLAG),
    (HVM, "spicepasswd", TEXT),
    (HVM, "spiceagent_mouse", FLAG),
    (HVM, "spicevdagent", FLAG),
    (HVM, "spice_clipboard_sharing", FLAG),
    (HVM, "spiceusbredirection", &["0", "4"]),
    (HVM, "spice_image_compression", &["'auto_glz'"]),
    (HVM, "spice_streaming_video", &["'filter'"]),
];

/// The same of Xen 4.20 alone.
const KEYS_OF_4_20: &[(&[&str], &str, &[&str])] = &[
    (DIRECT, "bootloader_restrict", FLAG),
    (DIRECT, "bootloader_user", &["'nobody'"]),
    (HVM, "hvm_pirq", FLAG),
    (HVM, "smbios", &["['bios_vendor=x y', 'oem=a', 'oem=b=c']"]),
];

/// Disks; each has its own place.
const DISKS: &[&str] = &[
    "phy:/dev/vg/a,xvda,w",
    "file:/b.img,xvdj,r",
    "/c.qcow2,qcow2,xvde",
    "format=raw, vdev=xvdk, access=ro, backendtype=phy, target=/d,e=f",
    "backend=store,vdev=xvdg,script=block-x,discard,target=res",
    "vdev=xvdh,specification=xen,direct-io-safe,no-discard,target=/h",
    "tap:qcow2:/i,xvdi,w",
    "backend=0,vdev=sda,format=vhd,target=/j",
];

/// Disks of HVM guests alone.
const DRIVES: &[&str] = &[",hdc:cdrom,r", "vdev=hdd,cdrom", "/g.iso,,hdb,cdrom"];

/// Disks of the other guests.
const DIRECT_DISKS: &[&str] = &["/g.iso,,xvdf,cdrom", "file:/l.img,xvda1,r"];

/// Network cards.
const CARDS: &[&str] = &[
    "",
    "mac=00:16:3E:00:00:0a,bridge=xenbr0",
    "bridge=br1, script=vif-route,ip=192.0.2.1 ,vifname=web",
    "rate=10Mb/s,mtu=9000",
    "devid=7,gatewaydev=eth0,untrusted",
    "netdev=eth1,backend=net,trusted",
    "rate=1MB/s@20ms,type=vif",
];

/// Network cards of HVM guests alone.
const EMULATED_CARDS: &[&str] = &["model=e1000", "type=ioemu,bridge=br2"];

/// PCI devices.
const PCI: &[&str] = &["01:00.0", "0000:02:1f.7@5,seize=1,permissive=0", "bdf=03:00.0,rdm_policy=relaxed", "04:00.*"];

struct Generator(Random);

impl Generator {
    fn below(&mut self, limit: usize) -> usize {
        let limit = u64::try_from(limit).expect("small");
        usize::try_from(self.0.below(limit)).expect("small")
    }

    fn one_of<'a>(&mut self, texts: &[&'a str]) -> &'a str {
        texts[self.below(texts.len())]
    }

    /// Some of the texts as a list, in any order.
    fn list(&mut self, texts: &[&str]) -> String {
        let mut left: Vec<&str> = texts.to_vec();
        let mut list = String::from("[ ");
        for _ in 0..self.below(4) {
            let quote = self.one_of(&["'", "\""]);
            let index = self.below(left.len());
            list.push_str(&format!("{quote}{}{quote},{}", left.remove(index), self.one_of(&["", " ", "\n  "])));
        }
        list + "]"
    }

    /// The lines of a guest that both read, and its kind.
    fn guest(&mut self) -> (&'static str, Vec<(&'static str, String)>) {
        let kind = ["hvm", "pvh", "pv"][self.below(3)];
        let mut lines = vec![("name", "'generated'".to_owned())];
        let mut put = |key, value: &str| lines.push((key, value.to_owned()));
        match kind {
            "hvm" if self.below(4) == 0 => put("builder", "'hvm'"),
            "pv" if self.below(2) == 0 => {}
            kind => put("type", &format!("{kind:?}")),
        }
        put("memory", self.one_of(&["256", "'512'", "0x100"]));
        if self.below(3) > 0 {
            put("vcpus", self.one_of(&["1", "2", "'3'"]));
            if self.below(3) == 0 {
                put("maxvcpus", self.one_of(&["3", "4"]));
            }
        } else if self.below(3) == 0 && kind != "pv" {
            put("vnuma", "[['pnode=0', 'size=128', 'vcpus=0', 'vdistances=10,20'], ['size=128','vcpus=1-2']]");
            // Without it, the host must have as many CPUs.
            put("maxvcpus", "3");
        }
        let can_grow = kind == "pv" && self.below(3) == 0;
        if can_grow {
            put("maxmem", "1024");
        }
        if kind != "hvm" || self.below(8) == 0 {
            put("kernel", self.one_of(&["'/srv/vmlinuz'", "\"k\""]));
        }
        let of_hvm = |all: &[&'static str], own: &[&'static str]| -> Vec<&'static str> {
            all.iter().chain(own.iter().filter(|_| kind == "hvm")).copied().collect()
        };
        let disks = if kind == "hvm" { DRIVES } else { DIRECT_DISKS };
        put("disk", &self.list(&[DISKS, disks].concat()));
        put("vif", &self.list(&of_hvm(CARDS, EMULATED_CARDS)));
        if self.below(4) == 0 && !can_grow {
            put("pci", &self.list(PCI));
            if self.below(2) == 0 {
                put(["pci_msitranslate", "pci_permissive", "pci_seize", "pci_power_mgmt"][self.below(4)], "1");
            }
        }
        if !can_grow && self.below(4) == 0 {
            put("passthrough", self.one_of(&["'disabled'", "'enabled'", "'sync_pt'", "'share_pt'"]));
        }
        if kind == "pv" && self.below(4) == 0 {
            for (key, values) in [("vnc", FLAG), ("sdl", FLAG), ("vnclisten", &["'0.0.0.0'"]), ("keymap", &["'de'"])] {
                put(key, self.one_of(values));
            }
        }
        if kind == "hvm" && self.below(6) == 0 {
            put("usbversion", self.one_of(&["1", "2", "3"]));
        }
        let of_release: &[_] = if IS_417 { &[] } else { KEYS_OF_4_20 };
        let odds = 2 + self.below(12);
        for (kinds, key, values) in KEYS.iter().chain(of_release) {
            if kinds.contains(&kind) && self.below(odds) == 0 {
                let value = self.one_of(values).to_owned();
                lines.push((key, value));
            }
        }
        let has = |lines: &[(&str, String)], key: &str| lines.iter().any(|(known, _)| *known == key);
        // What excludes each other.
        if has(&lines, "usbversion") {
            lines.retain(|(key, _)| *key != "usb" && *key != "usbdevice");
        }
        if has(&lines, "vnuma") {
            lines.retain(|(key, _)| *key != "maxmem");
        }
        (kind, lines)
    }

    /// The lines in any order, as a file. Keys that no xl knows stand between them.
    fn file(&mut self, mut lines: Vec<(&'static str, String)>) -> String {
        let mut file = String::new();
        while !lines.is_empty() {
            let (key, value) = lines.swap_remove(self.below(lines.len()));
            let (blanks, end) = (self.one_of(&["", " ", "\t"]), self.one_of(&["\n", ";", " # c\n", "\n\n"]));
            file.push_str(&format!("{blanks}{key}{blanks}={blanks}{value}{blanks}{end}"));
        }
        file + "\n"
    }
}

/// What both make of a file: xl's configuration where it has one, and what `check` does.
fn both(directory: &tempfile::TempDir, file: &str) -> (Result<Value, String>, Ran) {
    let path = directory.path().join("x.cfg");
    fs::write(&path, file).expect("written");
    let xl = run("xl", &["create", "-n", path_text(&path)]);
    let xls = if xl.status == Some(0) { Ok(xl.json()) } else { Err(xl.stderr) };
    (xls, dombuild(&["check", path_text(&path), "--libxl-json"]))
}

/// The same without what xl prints as null: the name of a value that has none. With `rdm`, the policy of each PCI device is such a
/// value, because xl reads it from a variable that it has not set (`parse_config_data`, tools/xl/xl_parse.c, Xen 4.17).
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Array(all) => all.iter().map(without_nulls).collect(),
        Value::Object(all) => {
            let named = all.iter().filter(|(_, value)| !value.is_null());
            named.map(|(name, value)| (name.clone(), without_nulls(value))).collect()
        }
        other => other.clone(),
    }
}

/// The paths of fields that are not equal, without what is random.
fn differences(file: &str, xl: &Value, ours: &Value) -> Vec<String> {
    fn walk(path: &str, xl: &Value, ours: &Value, found: &mut Vec<String>) {
        if let (Value::Object(one), Value::Object(other)) = (xl, ours) {
            let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            for name in names {
                let (one, other) = (one.get(name).unwrap_or(&Value::Null), other.get(name).unwrap_or(&Value::Null));
                walk(&format!("{path}/{name}"), one, other, found);
            }
        } else if xl != ours {
            found.push(format!("{path}: xl {xl}, check {ours}"));
        }
    }
    let mut found = Vec::new();
    walk("", &without_nulls(xl), &without_nulls(ours), &mut found);
    found.retain(|path| file.contains(UUID) || !path.starts_with("/c_info/uuid"));
    found.retain(|path| {
        !path.starts_with("/b_info/type.hvm/ms_vm_genid: xl [") || ours["b_info"]["type.hvm"]["ms_vm_genid"].is_null()
    });
    found
}

fn same_configuration() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut generator = Generator(Random::new("xl_cfg_json"));
    let (mut wrong, files) = (Vec::new(), count(24, 2000));
    for _ in 0..files {
        let (_, lines) = generator.guest();
        let file = generator.file(lines);
        let (xl, ran) = both(&directory, &file);
        match (xl, ran.status) {
            (Ok(xl), Some(0)) => {
                let found = differences(&file, &xl, &ran.json());
                if !found.is_empty() {
                    wrong.push(format!("{file}\n{}", found.join("\n")));
                }
            }
            (xl, _) => wrong.push(format!("{file}\nxl: {:?}\n{}", xl.err(), ran.stderr)),
        }
    }
    println!("{} of {files} configurations are equal", files as usize - wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// Values that xl leaves out, reads otherwise or refuses.
const WRONG: &[(&[&str], &str, &[&str])] = &[
    (ALL, "vcpus", &["'2 '", "[2]", "08", "'x'"]),
    (ALL, "cpus", &["'all,x'", "['1-0']", "'^all'", "'node:^0'"]),
    (ALL, "cap", &["'50%'", "99999999999999999999"]),
    (ALL, "nomigrate", &["'yes'", "'True'", "[1]"]),
    (ALL, "on_crash", &["'reboot'"]),
    (ALL, "cpuid", &["'tm=0'", "'host, tm=0'", "'host,nonsense=1'", "'host,tm'", "['1:ecx=01']", "['ecx=0']"]),
    (ALL, "vif", &["['brigde=x']", "['type=netfront']", "['mac=00:16']", "['rate=10MB']", "'bridge=x'"]),
    (ALL, "disk", &["['/a,xvda,w']", "['phy:/a']", "['phy:/a,xvda,w!x']"]),
    (ALL, "pci", &["['01:00.0,permissive=yes']", "['01:20.0']", "[' 01:00.0']", "['01:00.0,foo=1']"]),
    (HVM, "rdm", &["'strategy=host,policy=strict'", "'strategy=none'"]),
    (ALL, "usbctrl", &["['type=x']", "['version=two']", "['port=1']"]),
    (ALL, "usbdev", &["['hostbus=one']", "['type=x']"]),
    (ALL, "vkb", &["['unique-id=x']", "['backend-type=x']"]),
    (ALL, "ioports", &["['2f8-2ff-']", "['zz']"]),
    (ALL, "irqs", &["['x']", "['0x5']"]),
    (ALL, "iomem", &["['fd010']", "['fd010,1@']"]),
    (HVM, "mca_caps", &["['mce']"]),
    (HVM, "viridian", &["['basic']"]),
    (HVM, "boot", &["['c']"]),
    (PV, "timer_mode", &["1", "'one_missed_tick_pending'"]),
    (HAP, "vnuma", &["[['size=1'], ['vcpus=0','pnodes=1']]", "[['size']]"]),
    (ALL, "p9", &["['tag=a,security_model=none']", "['tag=a,path=/a,security_model=none,mode=1']"]),
    (ALL, "channel", &["['name=a']", "['name=a,connection=tcp']"]),
    (ALL, "vtpm", &["['uuid=x']"]),
    (ALL, "vsnd", &["[['card','pcm,foo=1']]", "['card']"]),
    (ALL, "unknown_key", &["1"]),
];

fn wrong_values() {
    let directory = tempfile::tempdir().expect("a directory");
    let mut generator = Generator(Random::new("xl_cfg_wrong"));
    let all: Vec<_> =
        WRONG.iter().flat_map(|(kinds, key, values)| values.iter().map(move |value| (kinds, key, value))).collect();
    let mut missed = Vec::new();
    let mut random = Random::new("xl_cfg_wrong_values");
    for index in random.sample(u64::try_from(all.len()).expect("few"), 16) {
        let (kinds, key, value) = all[usize::try_from(index).expect("few")];
        let (kind, mut lines) = generator.guest();
        if !kinds.contains(&kind) {
            lines = vec![("name", "'x'".to_owned()), ("type", format!("{:?}", kinds[0])), ("memory", "64".to_owned())];
            if kinds[0] != "hvm" {
                lines.push(("kernel", "'/k'".to_owned()));
            }
        }
        lines.retain(|(known, _)| known != key);
        lines.push((key, (*value).to_owned()));
        let file = generator.file(lines);
        let (xl, ran) = both(&directory, &file);
        let says = ran.stderr.contains(*key);
        let refuses = ran.status == Some(3);
        if !says || !(refuses || *key == "unknown_key" && ran.status == Some(0)) {
            missed.push(format!("{file}\nxl: {:?}\n{ran:?}", xl.err()));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n\n"));
}

/// Puts a text into xl.conf as long as it lives.
struct XlConf(Vec<u8>);

const XL_CONF: &str = "/etc/xen/xl.conf";

impl XlConf {
    fn with(more: &str) -> Self {
        let before = fs::read(XL_CONF).expect("it is there");
        fs::write(XL_CONF, [&before, more.as_bytes()].concat()).expect("written");
        Self(before)
    }
}

impl Drop for XlConf {
    fn drop(&mut self) {
        fs::write(XL_CONF, &self.0).expect("written");
    }
}

fn defaults() {
    let directory = tempfile::tempdir().expect("a directory");
    let restrict = if IS_417 { "" } else { "bootloader_restrict=1\n" };
    let conf = format!(
        "\nvif.default.script='vif-x'\nvif.default.bridge=\"br7\"\nvif.default.gatewaydev='eth7'\nvif.default.backend='net'\n\
         claim_mode=0\nrun_hotplug_scripts=0\nblkdev_start='xvdb'\nmax_grant_frames=77\nmax_maptrack_frames=0\n\
         max_grant_version=1\n{restrict}"
    );
    let _conf = XlConf::with(&conf);
    for lines in ["vif=['', 'bridge=a,script=b', 'gatewaydev=c,backend=d']", "max_grant_frames=5\nmax_grant_version=2"]
    {
        let file = format!("name='x'\ntype='pvh'\nkernel='/k'\nmemory=64\n{lines}\n");
        let (xl, ran) = both(&directory, &file);
        let xl = xl.expect("xl reads it");
        assert_eq!(differences(&file, &xl, &ran.success().json()), Vec::<String>::new(), "{xl}");
        assert_eq!(xl["b_info"]["blkdev_start"], "xvdb", "xl has read xl.conf: {xl}");
    }
}
