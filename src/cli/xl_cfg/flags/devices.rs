//! Devices, and QEMU.

use super::Mapper;
use crate::cli::xl_cfg::reader::Read;
use crate::memory::Kind;

/// The device of XenServer's drivers (`libxl__build_device_model_args_new`, libxl_dm.c, Xen 4.17).
const XENSERVER_DEVICE: [&str; 2] = ["-device", "xen-pvdevice,device-id=0xc000"];

/// The agent of SPICE in the guest (as above).
const SPICE_AGENT: [&str; 6] = [
    "-device",
    "virtio-serial",
    "-chardev",
    "spicevmc,id=vdagent,name=vdagent",
    "-device",
    "virtserialport,chardev=vdagent,name=com.redhat.spice.0",
];

impl Mapper<'_> {
    pub(super) fn devices(&mut self) {
        for (key, flag) in [
            ("disk", "--disk"),
            ("p9", "--p9"),
            ("channel", "--channel"),
            ("vtpm", "--vtpm"),
            ("pvcalls", "--pvcalls"),
            ("vdispl", "--vdispl"),
            ("ioports", "--ioport"),
            ("irqs", "--irq"),
            ("iomem", "--iomem"),
        ] {
            self.same(key, flag);
        }
        for card in self.texts("vif") {
            let card = self.xl_conf.complete_vif(card);
            self.add("vif", format!("--vif={card}"));
        }
        if let Some(Read::Lists(cards)) = self.take("vsnd") {
            for card in cards {
                let words: Vec<&str> = card.iter().map(|(word, _)| word.as_str()).collect();
                self.add("vsnd", format!("--vsnd={}", words.join(",")));
            }
        }
        self.pci();
        if self.is_hvm() {
            self.machine();
            self.qemu();
        } else {
            self.framebuffer();
        }
    }

    /// PCI devices of the host, each with the settings of all of them that it does not have itself.
    fn pci(&mut self) {
        let mut of_all = Vec::new();
        for (key, setting) in [
            ("pci_permissive", "permissive="),
            ("pci_msitranslate", "msitranslate="),
            ("pci_power_mgmt", "power_mgmt="),
            ("pci_seize", "seize="),
        ] {
            of_all.extend((self.flag(key) == Some(true)).then_some(setting));
        }
        for text in self.texts("pci") {
            if self.kind == Kind::Pvh {
                return self.refuse("pci", "Xen has no passthrough for x86 PVH guests, and xl refuses it as well");
            }
            let mut words: Vec<String> = text.split(',').map(str::to_owned).collect();
            // The device comes before its settings.
            words.sort_by_key(|word| word.contains('=') && !word.starts_with("bdf="));
            let first = words.first().map_or("", String::as_str);
            if text.contains("name=") || first.contains(".*") {
                return self.refuse("pci", format!("{text:?}: give the address of each function"));
            }
            let missing = of_all.iter().filter(|setting| !text.contains(**setting));
            words.extend(missing.map(|setting| format!("{setting}1")));
            self.add("pci", format!("--pci={}", words.join(",")));
        }
    }

    fn machine(&mut self) {
        let card = match (self.text("vga"), self.flag("stdvga")) {
            (Some(card), _) => Some(("vga", card)),
            (None, Some(true)) => Some(("stdvga", "stdvga")),
            (None, Some(false)) => Some(("stdvga", "cirrus")),
            (None, None) => None,
        };
        match card {
            Some((key, card)) => self.add(key, format!("--vga={card}")),
            None => self.usual("--vga=cirrus".to_owned()),
        }
        if let Some(mib) = self.number("videoram") {
            self.add("videoram", format!("--video={mib}MiB"));
        }
        self.same("boot", "--boot");
        if self.flag("xen_platform_pci") == Some(false) {
            self.add("xen_platform_pci", "--xen-platform-pci=off");
        }
        if self.text("hdtype") == Some("ahci") {
            self.add("hdtype", "--hdtype=ahci");
        }
        let ports = self.texts("serial");
        if ports.is_empty() {
            self.usual("--serial=none".to_owned());
        }
        for port in ports {
            self.add("serial", format!("--serial={port}"));
        }
        self.display();
        self.same("usbversion", "--usb-version");
        self.same("usb", "--usb");
        for device in self.texts("usbdevice") {
            if ["tablet", "mouse", "keyboard"].contains(&device) {
                self.add("usbdevice", format!("--usb-device={device}"));
            } else {
                self.refuse(
                    "usbdevice",
                    format!("{device:?} is no device that QEMU emulates: tablet, mouse or keyboard"),
                );
            }
        }
        self.same("soundhw", "--sound");
    }

    /// What shows the graphics card: xl starts a VNC server unless the file says otherwise.
    fn display(&mut self) {
        let keymap = self.word("keymap").map(|layout| format!("keymap={layout}"));
        let vnc = self.vnc_words();
        match self.flag("vnc") {
            Some(false) => {}
            given => {
                let words: Vec<String> = ["vnc=1".to_owned()].into_iter().chain(vnc).chain(keymap).collect();
                let word = format!("--vfb={}", words.join(","));
                if given.is_some() { self.add("vnc", word) } else { self.usual(word) }
            }
        }
        self.spice();
        if self.flag("sdl") == Some(true) {
            self.refuse("sdl", "QEMU is confined, and has no window on dom0's display: vnc = 1 shows the guest");
        }
        self.done.extend(["opengl", "display", "xauthority"]);
        if self.flag("nographic") == Some(true) && self.flag("vnc") == Some(false) {
            self.add("nographic", "--dm-arg=-nographic");
        }
    }

    fn vnc_words(&mut self) -> Vec<String> {
        let mut words = Vec::new();
        for key in ["vnclisten", "vncpasswd"] {
            words.extend(self.word(key).map(|text| format!("{key}={text}")));
        }
        words.extend(self.number("vncdisplay").map(|number| format!("vncdisplay={number}")));
        words.extend(self.flag("vncunused").map(|on| format!("vncunused={}", u8::from(on))));
        words
    }

    /// `-spice` as libxl writes it (`dm_spice_options`, libxl_dm.c, Xen 4.17).
    fn spice(&mut self) {
        let on = self.flag("spice") == Some(true);
        let (port, tls) = (self.number("spiceport"), self.number("spicetls_port"));
        let (host, password) = (self.word("spicehost"), self.word("spicepasswd"));
        let is_open = self.flag("spicedisable_ticketing") == Some(true);
        let moves = self.flag("spiceagent_mouse") != Some(false);
        let (agent, shares) = (self.flag("spicevdagent") == Some(true), self.flag("spice_clipboard_sharing"));
        let (compression, video) = (self.word("spice_image_compression"), self.word("spice_streaming_video"));
        let redirected = self.number("spiceusbredirection").unwrap_or(0);
        if !on {
            return;
        }
        if port.is_none() && tls.is_none() {
            return self.refuse("spice", "it needs spiceport or spicetls_port");
        }
        if password.is_some() || !is_open {
            return self.refuse("spice", "dombuild gives QEMU no password on its command line, which every user sees: give spicedisable_ticketing = 1");
        }
        if redirected > 0 {
            return self.refuse("spiceusbredirection", "Debian's QEMU has no usb-redir: leave it out");
        }
        let mut words = vec![format!("port={},tls-port={}", port.unwrap_or(0), tls.unwrap_or(0))];
        words.extend(host.map(|host| format!("addr={host}")));
        words.push("disable-ticketing=on".to_owned());
        words.push(format!("agent-mouse={}", if moves { "on" } else { "off" }));
        if shares != Some(true) {
            words.push("disable-copy-paste=on".to_owned());
        }
        words.extend(compression.map(|word| format!("image-compression={word}")));
        words.extend(video.map(|word| format!("streaming-video={word}")));
        self.qemu_arguments("spice", &["-spice", &words.join(",")]);
        if agent {
            self.qemu_arguments("spicevdagent", &SPICE_AGENT);
        }
    }

    fn qemu(&mut self) {
        self.same("device_model_override", "--device-model");
        self.same("device_model_user", "--device-model-user");
        if self.text("vendor_device") == Some("xenserver") {
            self.qemu_arguments("vendor_device", &XENSERVER_DEVICE);
        }
        for key in ["device_model_args", "device_model_args_hvm"] {
            let words = self.texts(key);
            self.qemu_arguments(key, &words);
        }
        self.done.insert("device_model_args_pv");
    }

    fn qemu_arguments(&mut self, key: &'static str, words: &[&str]) {
        for word in words {
            self.add(key, format!("--dm-arg={word}"));
        }
    }

    /// Of a PV guest without vfb, vnc = 1 makes a framebuffer.
    fn framebuffer(&mut self) {
        let vnc = self.flag("vnc") == Some(true);
        let words = self.vnc_words();
        let keymap = self.word("keymap").map(|layout| format!("keymap={layout}"));
        self.done.extend(["sdl", "opengl", "display", "xauthority", "device_model_args_hvm"]);
        self.same("vfb", "--vfb");
        if self.kind == Kind::Pv && vnc && self.texts("vfb").is_empty() {
            let words: Vec<String> = ["vnc=1".to_owned()].into_iter().chain(words).chain(keymap).collect();
            self.add("vnc", format!("--vfb={}", words.join(",")));
        }
    }
}
