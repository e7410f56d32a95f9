//! Domids and event channel ports.

use std::fmt;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

/// A domid. Guests have 1 to 32751 (`DOMID_FIRST_RESERVED` is 0x7FF0, xen/include/public/xen.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(transparent)]
pub struct DomId(u16);

impl<'de> Deserialize<'de> for DomId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        Self::new(number).ok_or_else(|| D::Error::custom(format!("{number} is no domid")))
    }
}

impl DomId {
    /// dom0.
    pub const DOM0: Self = Self(0);
    const FIRST_RESERVED: u16 = 0x7ff0;

    /// A domid; `None` unless `number` is 0 to 32751.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        u16::try_from(number).ok().filter(|number| *number < Self::FIRST_RESERVED).map(Self)
    }

    /// The number, as libxenctrl takes it.
    #[must_use]
    pub fn get(self) -> u32 {
        u32::from(self.0)
    }
}

impl fmt::Display for DomId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// An event channel port in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct EventPort(pub u32);

impl fmt::Display for EventPort {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
