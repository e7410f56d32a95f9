//! Guests of little memory, whose files libxenguest takes.

use dombuild::memory::Kind;

use super::super::support::{file, path_text};
use super::count;

/// A guest of little memory that uses as many different calls as it can; the kernel's file must outlive its use.
pub(crate) struct Guest {
    kernel: tempfile::TempPath,
    kind: &'static str,
}

impl Guest {
    pub(crate) fn new(kind: &'static str) -> Self {
        Self { kernel: file(&tiny_kernel()), kind }
    }

    pub(crate) fn of(kind: Kind) -> Self {
        Self::new(match kind {
            Kind::Hvm => "hvm",
            Kind::Pvh => "pvh",
            Kind::Pv => "pv",
        })
    }

    pub(crate) fn arguments(&self) -> Vec<&str> {
        let mut all = vec!["--kind", self.kind, "--memory", "64", "--vcpus", "2"];
        all.extend([
            "--platform",
            "vcpu/0/affinity=11",
            "--platform",
            "vcpu/weight=300",
            "--platform",
            "timeoffset=60",
        ]);
        if self.kind == "hvm" {
            all.extend(["--maxmem", "96", "--platform", "cores-per-socket=2", "--platform", "viridian=true"]);
            all.extend(["--platform", "nx=false"]);
        } else {
            all.extend(["--kernel", path_text(&self.kernel), "--ramdisk", path_text(&self.kernel)]);
        }
        all
    }

    pub(crate) fn create(&self) -> Vec<&str> {
        [&["create", "--name", "t", "--device-model", "none", "--paused"][..], &self.arguments()].concat()
    }
}

/// An ELF file that libxenguest takes for a kernel, for PVH and for PV: it halts.
pub(crate) fn tiny_kernel() -> Vec<u8> {
    const VIRTUAL: u64 = 0xffff_ffff_8000_0000;
    const START: u64 = 0x10_0000;
    const HEADERS: usize = 64 + 2 * 56;
    let mut notes = Vec::new();
    // XEN_ELFNOTE_* of xen/include/public/elfnote.h
    for (number, value) in [
        (1_u32, (VIRTUAL + START).to_le_bytes().to_vec()),      // ENTRY
        (2, (VIRTUAL + START + 0x1000).to_le_bytes().to_vec()), // HYPERCALL_PAGE
        (3, VIRTUAL.to_le_bytes().to_vec()),                    // VIRT_BASE
        (5, b"xen-3.0\0".to_vec()),                             // XEN_VERSION
        (6, b"tiny\0\0\0\0".to_vec()),                          // GUEST_OS
        (8, b"generic\0".to_vec()),                             // LOADER
        (9, b"yes\0".to_vec()),                                 // PAE_MODE
        (18, 0x10_0000_u32.to_le_bytes().to_vec()),             // PHYS32_ENTRY
    ] {
        notes.extend(4_u32.to_le_bytes());
        notes.extend(u32::try_from(value.len()).expect("short").to_le_bytes());
        notes.extend(number.to_le_bytes());
        notes.extend(b"Xen\0");
        notes.extend(value);
    }
    let length = count(notes.len());
    let mut elf = Vec::new();
    elf.extend(b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0");
    elf.extend([2, 0, 62, 0, 1, 0, 0, 0]); // ET_EXEC, EM_X86_64
    for word in [VIRTUAL + START, 64, 0] {
        elf.extend(word.to_le_bytes());
    }
    for half in [0_u16, 0, 64, 56, 2, 0, 0, 0] {
        elf.extend(half.to_le_bytes());
    }
    let at = count(HEADERS);
    for (kind, flags, words) in [
        (1_u32, 7_u32, [0x1000, VIRTUAL + START, START, 4, 0x2000, 0x1000]), // PT_LOAD
        (4, 4, [at, VIRTUAL + START, START, length, length, 4]),             // PT_NOTE
    ] {
        elf.extend(kind.to_le_bytes());
        elf.extend(flags.to_le_bytes());
        for word in words {
            elf.extend(word.to_le_bytes());
        }
    }
    elf.extend(notes);
    elf.resize(0x1000, 0);
    elf.extend([0xfa, 0xf4, 0xeb, 0xfc]); // cli; hlt; jmp back
    elf
}
