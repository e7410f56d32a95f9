//! Devices of an HVM guest that QEMU emulates and that have no nodes in xenstore: a sound card and USB.

/// A sound card of QEMU's, by the name that libxl takes in `soundhw` (`libxl__qemu_soundhw`, libxl_types_internal.idl, Xen
/// 4.17).
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum SoundModel {
    /// Intel HD Audio
    Hda,
    /// Intel 82801AA
    Ac97,
    /// Ensoniq AudioPCI
    Es1370,
    /// Sound Blaster 16
    Sb16,
    /// Yamaha YM3812
    Adlib,
    /// Crystal CS4231A
    Cs4231a,
    /// Gravis Ultrasound
    Gus,
}

impl SoundModel {
    /// The word for libxl, which is also that of the device in QEMU, except for `hda`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Hda => "hda",
            Self::Ac97 => "ac97",
            Self::Es1370 => "es1370",
            Self::Sb16 => "sb16",
            Self::Adlib => "adlib",
            Self::Cs4231a => "cs4231a",
            Self::Gus => "gus",
        }
    }
}

/// USB of a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Usb {
    /// The machine's own USB 1.1 controller with these devices.
    Devices(Vec<UsbDevice>),
    /// A controller without devices.
    Controller(UsbVersion),
}

/// A USB device that QEMU emulates.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum UsbDevice {
    /// A pointer with absolute coordinates: that of VNC stays where the mouse is
    Tablet,
    /// A pointer with relative coordinates
    Mouse,
    /// A keyboard
    Keyboard,
}

impl UsbDevice {
    /// The word for libxl and QEMU.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Tablet => "tablet",
            Self::Mouse => "mouse",
            Self::Keyboard => "keyboard",
        }
    }
}

/// The version of USB of a controller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum UsbVersion {
    /// USB 1.1 (UHCI)
    #[value(name = "1")]
    One,
    /// USB 2.0 (EHCI with UHCI companions)
    #[value(name = "2")]
    Two,
    /// USB 3.0 (xHCI)
    #[value(name = "3")]
    Three,
}

impl UsbVersion {
    /// The number for libxl.
    #[must_use]
    pub const fn number(self) -> u32 {
        match self {
            Self::One => 1,
            Self::Two => 2,
            Self::Three => 3,
        }
    }
}
