//! Alternate memory maps of HVM and PVH guests (altp2m).

use std::fmt;
use std::str::FromStr;

use super::{DomId, HvmParam, Interface, XenError};

/// Who may use a guest's alternate memory maps (`XEN_ALTP2M_*`, xen/include/public/hvm/params.h, Xen 4.17;
/// `XEN_DOMCTL_ALTP2M_*`, xen/include/public/domctl.h, since Xen 4.19).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Altp2m {
    /// The guest and tools outside it.
    Mixed,
    /// Tools outside the guest.
    External,
    /// The guest, which cannot create maps itself, and tools outside it.
    Limited,
}

impl Altp2m {
    const ALL: [Self; 3] = [Self::Mixed, Self::External, Self::Limited];

    /// The word of xl and of libxl's JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Mixed => "mixed",
            Self::External => "external",
            Self::Limited => "limited",
        }
    }

    /// Xen's number.
    pub(super) const fn code(self) -> u32 {
        match self {
            Self::Mixed => 1,
            Self::External => 2,
            Self::Limited => 3,
        }
    }
}

impl fmt::Display for Altp2m {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Altp2m {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|mode| mode.as_str() == text);
        found.ok_or_else(|| format!("{text:?} is no mode of altp2m: mixed, external or limited"))
    }
}

impl Interface {
    /// Sets who may use the alternate memory maps of a domain. Since Xen 4.19 a domain is created with them, and this does
    /// nothing.
    ///
    /// # Errors
    /// `EINVAL` for a guest with nested virtualisation.
    pub fn set_altp2m(&self, domid: DomId, mode: Altp2m) -> Result<(), XenError> {
        /// `HVM_PARAM_ALTP2M` (xen/include/public/hvm/params.h).
        const PARAM: HvmParam = HvmParam::Number(35);
        if cfg!(xen_4_19_or_later) {
            return Ok(());
        }
        self.set_hvm_param(domid, PARAM, mode.code().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes() {
        for (number, mode) in (1..).zip(Altp2m::ALL) {
            assert_eq!((mode.code(), mode.to_string().parse()), (number, Ok(mode)));
        }
        assert!("disabled".parse::<Altp2m>().is_err());
    }
}
