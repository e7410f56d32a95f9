//! The guests, and the arguments with which each program builds them.

use dombuild::memory::Kind;

use super::devices::{BRIDGE, image};
use super::support::{GUEST_INITRD, GUEST_KERNEL, PACKED_KERNEL, shell};
use super::xenopsd::hvmloader;

/// The name of every guest that dombuild or xl makes here.
pub(crate) const NAME: &str = "bench";

/// A guest by its size.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Guest {
    /// What it is called in the tables.
    pub(crate) title: &'static str,
    pub(crate) kind: Kind,
    /// What it runs with, and the most that it may have, in MiB; populated on demand where they differ.
    pub(crate) memory: u64,
    pub(crate) most: u64,
    pub(crate) vcpus: u32,
    /// Whether Xen's free memory still holds what another guest left there.
    pub(crate) dirty: bool,
    /// The kernel of a PVH guest.
    pub(crate) kernel: &'static str,
    /// How many disks of a raw file it has, and how many network cards on the bridge.
    pub(crate) disks: u8,
    pub(crate) cards: u8,
}

impl Guest {
    pub(crate) const fn hvm(title: &'static str, memory: u64) -> Self {
        Self {
            title,
            kind: Kind::Hvm,
            memory,
            most: memory,
            vcpus: 1,
            dirty: false,
            kernel: PACKED_KERNEL,
            disks: 0,
            cards: 0,
        }
    }

    /// A small guest whose kernel is unpacked already.
    pub(crate) const fn pvh(title: &'static str, disks: u8, cards: u8) -> Self {
        Self { kind: Kind::Pvh, kernel: GUEST_KERNEL, disks, cards, ..Self::hvm(title, 128) }
    }
}

pub(crate) const HVM_128_MIB: Guest = Guest::hvm("HVM 128 MiB", 128);
pub(crate) const HVM_1_GIB: Guest = Guest::hvm("HVM 1 GiB", 1024);
pub(crate) const HVM_8_GIB: Guest = Guest::hvm("HVM 8 GiB", 8192);
pub(crate) const PVH_512_MIB: Guest = Guest { kind: Kind::Pvh, ..Guest::hvm("PVH 512 MiB, packed kernel", 512) };

/// All that have a row, in their order.
pub(crate) const ALL: &[Guest] = &[
    HVM_128_MIB,
    HVM_1_GIB,
    Guest::hvm("HVM 4 GiB", 4096),
    HVM_8_GIB,
    PVH_512_MIB,
    Guest { dirty: true, ..Guest::hvm("HVM 1 GiB, dirty memory", 1024) },
    Guest { dirty: true, ..Guest::hvm("HVM 8 GiB, dirty memory", 8192) },
    Guest { vcpus: 8, ..Guest::hvm("HVM 128 MiB, 8 vCPUs", 128) },
    Guest { vcpus: 8, ..Guest::hvm("HVM 1 GiB, 8 vCPUs", 1024) },
    Guest { most: 1024, ..Guest::hvm("HVM 512 MiB of 1 GiB, on demand", 512) },
    Guest { most: 8192, ..Guest::hvm("HVM 4 GiB of 8 GiB, on demand", 4096) },
];

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

impl Guest {
    /// Of the VGA card, which QEMU populates.
    fn video(&self) -> u64 {
        if self.kind == Kind::Hvm { 16 } else { 0 }
    }

    /// What the builder gives the guest, and what it shows it, in MiB.
    pub(crate) fn built(&self) -> (u64, u64) {
        (self.memory - self.video(), self.most - self.video())
    }

    fn disk_specs(&self) -> Vec<String> {
        let place = |number: u8| char::from(b'a' + number);
        (0..self.disks).map(|number| format!("{},raw,xvd{},w", image(number), place(number))).collect()
    }

    fn card_specs(&self) -> Vec<String> {
        vec![format!("bridge={BRIDGE}"); usize::from(self.cards)]
    }

    /// dombuild's flags: the same guest for `create` and `build`.
    pub(crate) fn flags(&self) -> Vec<String> {
        let Self { kind, memory, most, vcpus, kernel, .. } = self;
        let mut all = words(&format!("--kind {} --memory {memory} --maxmem {most} --vcpus {vcpus}", kind.name()));
        if *kind == Kind::Pvh {
            all.extend(words(&format!("--kernel {kernel} --ramdisk {GUEST_INITRD} --cmdline console=hvc0")));
        }
        all.extend(self.disk_specs().into_iter().flat_map(|spec| ["--disk".to_owned(), spec]));
        all.extend(self.card_specs().into_iter().flat_map(|spec| ["--vif".to_owned(), spec]));
        all
    }

    /// The floor's arguments: the same limits and the same paging pool as dombuild's.
    pub(crate) fn floor(&self) -> Vec<String> {
        let (target, size) = self.built();
        let Self { most, vcpus, .. } = self;
        let (limit, pool) = ((most + 1) * 1024, u64::from(*vcpus) * 1024 + most.div_ceil(128) * 1024);
        let (kernel, module) = match self.kind {
            Kind::Hvm => (hvmloader(), "/usr/share/seabios/bios-256k.bin"),
            Kind::Pvh | Kind::Pv => (self.kernel.to_owned(), GUEST_INITRD),
        };
        words(&format!("floor {} {size} {target} {limit} {pool} {vcpus} {kernel} {module}", self.kind.name()))
    }

    /// What xl reads. Without a VNC server, which dombuild's QEMU has not either.
    pub(crate) fn xl_config(&self) -> String {
        let Self { kind, memory, most, vcpus, kernel, .. } = self;
        let kind_lines = match kind {
            Kind::Hvm => "vga=\"stdvga\"\nvideoram=16\nvnc=0\n".to_owned(),
            Kind::Pvh | Kind::Pv => {
                format!("kernel=\"{kernel}\"\nramdisk=\"{GUEST_INITRD}\"\nextra=\"console=hvc0\"\n")
            }
        };
        let mut text = format!(
            "type=\"{}\"\nname=\"{NAME}\"\nmemory={memory}\nmaxmem={most}\nvcpus={vcpus}\n{kind_lines}",
            kind.name()
        );
        for (key, specs) in [("disk", self.disk_specs()), ("vif", self.card_specs())] {
            if !specs.is_empty() {
                text.push_str(&format!("{key}={specs:?}\n"));
            }
        }
        text
    }
}

/// What the tables are of: Xen's version as it says itself.
pub(crate) fn xen_version() -> String {
    let text = shell("xl info | grep -E '^xen_version' | cut -d : -f 2");
    text.trim().trim_end_matches("-pre").to_owned()
}
