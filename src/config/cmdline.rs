//! How long a kernel's command line may be. libxenguest cuts one that is too long, or aborts on it.

use crate::memory::Kind;

/// What a PV guest's start info holds (`MAX_GUEST_CMDLINE` is 1024 with the NUL, xen/include/public/xen.h; libxenguest cuts
/// the rest in `start_info_x86_64`), and what libxenguest takes of a module's line (it asserts so in `add_module_to_list`,
/// tools/libs/guest/xg_dom_x86.c, Xen 4.17).
const PV: usize = 1023;

/// What Linux keeps on x86 (`COMMAND_LINE_SIZE` is 2048 with the NUL, arch/x86/include/asm/setup.h). The start info of a PVH
/// guest has no limit.
const PVH: usize = 2047;

/// The reader of a command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CmdlineOf {
    /// The kernel that the guest starts with.
    Kernel(Kind),
    /// A module, such as the kernel that the PV shim starts.
    Module,
}

impl CmdlineOf {
    /// Makes sure that a line of so many bytes, without its NUL, arrives whole. `name` is the option that it was given with.
    ///
    /// # Errors
    /// A message with both lengths.
    pub fn check(self, name: &str, length: usize) -> Result<(), String> {
        let (most, whose) = match self {
            Self::Kernel(Kind::Pvh) => (PVH, "Linux keeps of a pvh guest's"),
            Self::Kernel(Kind::Pv | Kind::Hvm) => (PV, "a pv guest's start info holds"),
            Self::Module => (PV, "a module of a pvh guest can have"),
        };
        if length <= most {
            return Ok(());
        }
        Err(format!("{name} of {length} bytes is longer than the {most} that {whose}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_limit() {
        for (line, most) in
            [(CmdlineOf::Kernel(Kind::Pvh), 2047), (CmdlineOf::Kernel(Kind::Pv), 1023), (CmdlineOf::Module, 1023)]
        {
            assert_eq!(line.check("--cmdline", most), Ok(()));
            let message = line.check("--cmdline", most + 1).expect_err("too long");
            assert!(
                message.starts_with(&format!("--cmdline of {} bytes is longer than the {most} ", most + 1)),
                "{message}"
            );
        }
    }
}
