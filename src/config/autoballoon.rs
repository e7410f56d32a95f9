//! Whether a guest may take memory from dom0.

use crate::memory::Kib;

/// When dom0 is ballooned down for a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum Autoballoon {
    /// Unless `dom0_mem=` on Xen's command line fixes its size, as xl's default is.
    #[default]
    Auto,
    /// Wherever memory is missing.
    On,
    /// Never.
    Off,
}

impl Autoballoon {
    /// Whether dom0 may be made smaller under a hypervisor with this command line (`auto_autoballoon`, tools/xl/xl.c, Xen 4.17).
    #[must_use]
    pub fn is_on(self, command_line: &str) -> bool {
        let fixes = |word: &str| word.strip_prefix("dom0_mem=").is_some_and(|size| !size.is_empty());
        match self {
            Self::Auto => !command_line.split_ascii_whitespace().any(fixes),
            Self::On => true,
            Self::Off => false,
        }
    }
}

/// What a guest may have of dom0's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dom0Share {
    /// Whether it may have any.
    pub autoballoon: Autoballoon,
    /// What dom0 keeps at least; `None` takes what a guest that sees as much memory needs to live.
    pub least: Option<Kib>,
}

impl Dom0Share {
    /// dom0 keeps all.
    pub const NOTHING: Self = Self { autoballoon: Autoballoon::Off, least: None };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dom0_is_left_alone_where_its_size_is_fixed() {
        for fixed in
            ["dom0_mem=1024M", "console=com1 dom0_mem=min:512M,max:1G loglvl=all", "dom0_mem=-1G", "dom0_mem=25%"]
        {
            assert!(!Autoballoon::Auto.is_on(fixed) && Autoballoon::On.is_on(fixed), "{fixed}");
        }
        for free in ["", "console=com1", "dom0_mem=", "xdom0_mem=1G", "dom0_max_vcpus=2"] {
            assert!(Autoballoon::Auto.is_on(free) && !Autoballoon::Off.is_on(free), "{free}");
        }
    }
}
