//! QEMU's arguments for a sound card and USB (tools/libs/light/libxl_dm.c, `libxl__build_device_model_args_new`, Xen 4.17 and
//! 4.20).

use crate::config::devices::emulated::{SoundModel, Usb, UsbVersion};

/// The arguments of a sound card. Unlike libxl, they name an audio backend, which discards the sound: QEMU 10 refuses a card
/// without one, and QEMU 7.2 then looks for a sound card of dom0.
pub(super) fn sound(model: SoundModel) -> Vec<String> {
    let card = |device: &str| format!("{device},audiodev=sound");
    let mut arguments = vec!["-audiodev".to_owned(), "none,id=sound".to_owned()];
    let mut add = |device: String| arguments.extend(["-device".to_owned(), device]);
    if model == SoundModel::Hda {
        add("intel-hda".to_owned());
        add(card("hda-duplex"));
    } else {
        add(card(model.as_str()));
    }
    arguments
}

/// The arguments of USB.
pub(super) fn usb(usb: &Usb) -> Vec<String> {
    match usb {
        Usb::Devices(devices) => {
            let words = devices.iter().flat_map(|device| ["-usbdevice", device.as_str()]);
            std::iter::once("-usb").chain(words).map(str::to_owned).collect()
        }
        Usb::Controller(version) => {
            let devices = match version {
                UsbVersion::One => vec!["piix3-usb-uhci,id=usb"],
                UsbVersion::Two => vec![
                    "ich9-usb-ehci1,id=usb,addr=0x1d.0x7,multifunction=on",
                    "ich9-usb-uhci1,masterbus=usb.0,firstport=0,addr=0x1d.0,multifunction=on",
                    "ich9-usb-uhci2,masterbus=usb.0,firstport=2,addr=0x1d.0x1,multifunction=on",
                    "ich9-usb-uhci3,masterbus=usb.0,firstport=4,addr=0x1d.0x2,multifunction=on",
                ],
                UsbVersion::Three => vec!["nec-usb-xhci,id=usb"],
            };
            devices.into_iter().flat_map(|device| ["-device", device]).map(str::to_owned).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::devices::emulated::UsbDevice;

    #[test]
    fn a_sound_card_has_a_backend() {
        let arguments = |model| sound(model).join(" ");
        assert_eq!(arguments(SoundModel::Ac97), "-audiodev none,id=sound -device ac97,audiodev=sound");
        assert_eq!(
            arguments(SoundModel::Hda),
            "-audiodev none,id=sound -device intel-hda -device hda-duplex,audiodev=sound"
        );
    }

    #[test]
    fn usb_is_a_controller_or_devices() {
        let arguments = |of: &Usb| usb(of).join(" ");
        assert_eq!(arguments(&Usb::Devices(Vec::new())), "-usb");
        let two = Usb::Devices(vec![UsbDevice::Tablet, UsbDevice::Keyboard]);
        assert_eq!(arguments(&two), "-usb -usbdevice tablet -usbdevice keyboard");
        assert_eq!(arguments(&Usb::Controller(UsbVersion::One)), "-device piix3-usb-uhci,id=usb");
        assert_eq!(arguments(&Usb::Controller(UsbVersion::Three)), "-device nec-usb-xhci,id=usb");
        assert_eq!(usb(&Usb::Controller(UsbVersion::Two)).len(), 8);
    }
}
