//! What the guest starts with: kernel, firmware, tables, processor and clocks.

use jiff::Zoned;

use super::Mapper;
use crate::cli::xl_cfg::keys::Type;
use crate::cli::xl_cfg::reader::Read;
use crate::cli::xl_cfg::{keys, libxl_parts};
use crate::memory::Kind;

/// Flags of a file and the settings that they are, with the value that a guest has without them.
const SETTINGS: [(&str, &str); 9] = [
    ("hpet", "hpet"),
    ("vpt_align", "vpt-align"),
    ("pae", "pae"),
    ("nx", "nx"),
    ("acpi_s3", "acpi_s3"),
    ("acpi_s4", "acpi_s4"),
    ("acpi_laptop_slate", "acpi_laptop_slate"),
    ("nestedhvm", "nested-virt"),
    ("nomigrate", "nomigrate"),
];

impl Mapper<'_> {
    pub(super) fn boot(&mut self) {
        self.kernel();
        if self.is_hvm() {
            self.firmware();
        } else if self.word("firmware").is_some() {
            self.refuse("firmware", "Debian has no pvgrub; give a kernel or a bootloader");
        }
        self.same("smbios_firmware", "--smbios");
        self.same("smbios", "--bios-string");
        self.same("acpi_firmware", "--acpi");
        self.shim();
        for (key, setting) in SETTINGS {
            if let Some(on) = self.flag(key) {
                self.platform(key, &format!("{setting}={on}"));
            }
        }
        for key in ["apic", "acpi"] {
            match self.flag(key) {
                Some(false) if self.kind == Kind::Pvh => {
                    self.refuse(key, "every PVH guest of dombuild has it");
                }
                Some(on) if self.is_hvm() => self.platform(key, &format!("{key}={on}")),
                _ => {}
            }
        }
        self.word_as_number("tsc_mode", "tsc_mode");
        self.word_as_number("timer_mode", "timer_mode");
        self.clock();
        match self.take("viridian") {
            Some(Read::Flag(true)) => self.platform("viridian", "viridian=defaults"),
            Some(Read::Texts(words)) if !words.is_empty() => {
                let words = self.texts("viridian").join(",");
                self.platform("viridian", &format!("viridian={words}"));
            }
            _ => {}
        }
        if self.text("ms_vm_genid") == Some("generate") {
            self.platform("ms_vm_genid", "generation-id=generate");
        }
        for capability in self.texts("mca_caps") {
            self.platform("mca_caps", &format!("mca-caps={capability}"));
        }
        self.same("cpuid", "--cpuid");
        self.same("bootloader", "--bootloader");
        self.same("bootloader_args", "--bootloader-arg");
    }

    /// The words of these keys stand in the order of Xen's numbers.
    fn word_as_number(&mut self, key: &'static str, setting: &str) {
        let (Some(word), Some(Type::WordOrNumber(words))) = (self.text(key), keys::find(key).map(|key| key.takes))
        else {
            return;
        };
        if let Some(number) = words.iter().position(|each| *each == word) {
            self.platform(key, &format!("{setting}={number}"));
        }
    }

    fn kernel(&mut self) {
        let kernel = self.word("kernel").filter(|path| !(self.is_hvm() && libxl_parts::is_hvmloader(path)));
        if let Some(path) = kernel {
            self.add("kernel", format!("--kernel={path}"));
        }
        let boots = kernel.is_some() || self.read.contains_key("bootloader");
        self.same("ramdisk", "--ramdisk");
        let (whole, root, extra) = (self.text("cmdline"), self.word("root"), self.word("extra"));
        let (key, text) = match (whole, root, extra) {
            (Some(whole), ..) => ("cmdline", whole.to_owned()),
            (None, Some(root), Some(extra)) => ("root", format!("root={root} {extra}")),
            (None, Some(root), None) => ("root", format!("root={root}")),
            (None, None, Some(extra)) => ("extra", extra.to_owned()),
            (None, None, None) => return,
        };
        if boots && !text.is_empty() {
            self.add(key, format!("--cmdline={text}"));
        }
    }

    fn shim(&mut self) {
        let has_shim = self.flag("pvshim") == Some(true);
        self.same("pvshim", "--shim");
        for (key, flag) in
            [("pvshim_path", "--shim-file"), ("pvshim_cmdline", "--shim-cmdline"), ("pvshim_extra", "--shim-extra")]
        {
            // Without a shim, libxl does not look at them.
            if let Some(text) = self.word(key)
                && has_shim
            {
                self.add(key, format!("{flag}={text}"));
            }
        }
    }

    fn firmware(&mut self) {
        self.same("firmware_override", "--hvmloader");
        let (firmware, bios) = (self.word("firmware"), self.word("bios"));
        let name = match firmware {
            Some("ovmf" | "uefi") => Some(("firmware", "ovmf")),
            Some("seabios" | "bios") => Some(("firmware", "seabios")),
            Some(path) => {
                self.add("firmware", format!("--hvmloader={path}"));
                None
            }
            None => None,
        };
        let name = bios.map(|bios| ("bios", bios)).or(name);
        match (name, self.word("bios_path_override")) {
            (name, Some(path)) => {
                let (_, firmware) = name.unwrap_or(("bios", "seabios"));
                self.add("bios_path_override", format!("--firmware={firmware}:{path}"));
            }
            (Some((key, firmware)), None) => self.add(key, format!("--firmware={firmware}")),
            (None, None) => {}
        }
    }

    fn clock(&mut self) {
        let offset = self.number("rtc_timeoffset");
        let local = if self.flag("localtime") == Some(true) { i64::from(Zoned::now().offset().seconds()) } else { 0 };
        let seconds = offset.unwrap_or(0).saturating_add(local);
        if seconds != 0 {
            let key = if offset.is_some() { "rtc_timeoffset" } else { "localtime" };
            self.platform(key, &format!("timeoffset={seconds}"));
        }
    }
}
