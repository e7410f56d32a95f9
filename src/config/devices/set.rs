//! The devices of one guest, checked against each other and against the guest's kind.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::channel::{Channel, ChannelConnection};
use super::disk::{Disk, DiskBackend, DiskFormat};
use super::emulated::{SoundModel, Usb};
use super::error::DeviceSetError;
use super::framebuffer::Framebuffer;
use super::machine::{DiskController, Machine};
use super::nic::{MacAddress, Nic};
use super::pci::PciDevice;
use super::pvcalls::PvCalls;
use super::share::Share;
use super::sound::SoundCard;
use super::vdispl::Vdispl;
use super::virtual_device::DiskClass;
use super::vtpm::Vtpm;
use crate::config::host_access::HostAccess;
use crate::memory::Kind;

/// The most network cards of a guest: the numbers are 0 to 99.
pub const MOST_NICS: u32 = 100;

/// The devices of a guest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Devices {
    /// The disks and CD drives.
    pub disks: Vec<Disk>,
    /// The network cards.
    pub nics: Vec<Nic>,
    /// The directories that it mounts.
    pub shares: Vec<Share>,
    /// The consoles behind its first.
    pub channels: Vec<Channel>,
    /// What VNC shows.
    pub framebuffer: Option<Framebuffer>,
    /// The virtual TPMs.
    pub vtpms: Vec<Vtpm>,
    /// The paravirtual displays.
    pub vdispls: Vec<Vdispl>,
    /// The paravirtual sound cards.
    pub sound_cards: Vec<SoundCard>,
    /// The connections for PV calls.
    pub pvcalls: Vec<PvCalls>,
    /// The emulated sound card.
    pub sound: Option<SoundModel>,
    /// The emulated USB.
    pub usb: Option<Usb>,
    /// The emulated machine of an HVM guest.
    pub machine: Machine,
    /// The PCI devices of the host that it gets.
    pub pci: Vec<PciDevice>,
    /// What it may reach of the host's hardware.
    pub host_access: HostAccess,
    /// Where the guest is while it migrates.
    pub migrates_from: MigratesFrom,
}

/// Where a guest is while it migrates. It has its images there until it starts here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MigratesFrom {
    /// It does not migrate.
    #[default]
    Nowhere,
    /// On another host, whose locks on shared storage are seen here.
    AnotherHost,
    /// In this domain of this host.
    Domain(u32),
}

impl MigratesFrom {
    /// The domain of this host.
    #[must_use]
    pub const fn domain(self) -> Option<u32> {
        if let Self::Domain(number) = self { Some(number) } else { None }
    }
}

/// A place on the emulated controllers of an HVM guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum EmulatedPlace {
    /// IDE, 0 to 3.
    Ide(u32),
    /// AHCI, 0 to 5.
    Ahci(u32),
    /// SCSI, 0 to 15.
    Scsi(u32),
}

fn emulated_place(disk: &Disk, controller: DiskController) -> Option<EmulatedPlace> {
    match disk.vdev.class {
        DiskClass::Scsi if !disk.cdrom => Some(EmulatedPlace::Scsi(disk.vdev.disk)),
        _ if controller == DiskController::Ahci && !disk.cdrom => disk.vdev.ahci_port().map(EmulatedPlace::Ahci),
        _ => disk.vdev.ide_place().map(EmulatedPlace::Ide),
    }
}

impl Devices {
    /// Checks that a guest of this kind can have these devices together.
    ///
    /// # Errors
    /// What stands against it, the first that is found.
    pub fn check(&self, kind: Kind) -> Result<(), DeviceSetError> {
        let (mut numbers, mut places) = (BTreeMap::new(), BTreeMap::new());
        for disk in &self.disks {
            let place = emulated_place(disk, self.machine.disks).filter(|_| kind == Kind::Hvm);
            check_disk(disk, place, kind)?;
            let name = || disk.vdev.name.clone();
            if let Some(first) = numbers.insert(disk.vdev.number, name()) {
                return Err(DeviceSetError::SameNumber { first, second: name(), number: disk.vdev.number });
            }
            if let Some(first) = place.and_then(|place| places.insert(place, name())) {
                return Err(DeviceSetError::SameEmulatedPlace { first, second: name() });
            }
        }
        for (is_there, what) in [(self.sound.is_some(), "a sound card"), (self.usb.is_some(), "USB")] {
            if is_there && kind != Kind::Hvm {
                return Err(DeviceSetError::NotEmulated { what, kind });
            }
        }
        self.check_nics(kind)?;
        self.check_served()
    }

    /// Whether a QEMU in dom0 must serve some of them to the paravirtual drivers of a guest.
    #[must_use]
    pub fn need_backend(&self) -> bool {
        !self.shares.is_empty() || !self.channels.is_empty() || self.framebuffer.is_some()
    }

    fn check_served(&self) -> Result<(), DeviceSetError> {
        let (mut tags, mut names, mut sockets) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        let twice = |class, what| Err(DeviceSetError::Twice { class, what });
        for share in &self.shares {
            if !tags.insert(&share.tag) {
                return twice("p9", format!("two shares have the tag {}", share.tag));
            }
        }
        for channel in &self.channels {
            if !names.insert(&channel.name) {
                return twice("channel", format!("two channels have the name {}", channel.name));
            }
            if let ChannelConnection::Socket(path) = &channel.connection
                && !sockets.insert(path)
            {
                return twice("channel", format!("two channels have the socket {}", path.display()));
            }
        }
        Ok(())
    }

    /// The disks of a guest of this kind that only its paravirtual drivers see. They do not exist for firmware, so that the
    /// guest cannot start from them.
    pub fn paravirtual_only(&self, kind: Kind) -> impl Iterator<Item = &Disk> {
        self.disks.iter().filter(move |disk| kind == Kind::Hvm && emulated_place(disk, self.machine.disks).is_none())
    }

    fn check_nics(&self, kind: Kind) -> Result<(), DeviceSetError> {
        let (mut devids, mut macs, mut interfaces) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for (nic, card) in self.nics.iter().zip(1..) {
            if card > MOST_NICS {
                return Err(DeviceSetError::TooManyNics { most: MOST_NICS });
            }
            let emulated = check_nic(nic, card, kind)?;
            let same = |first, what: String| Err(DeviceSetError::SameNic { first, second: card, what });
            if let Some((devid, first)) = nic.devid.and_then(|devid| Some((devid, devids.insert(devid, card)?))) {
                return same(first, format!("devid {devid}"));
            }
            if let Some((mac, first)) = nic.mac.and_then(|mac| Some((mac, macs.insert(mac.0, card)?))) {
                return same(first, format!("MAC {mac}"));
            }
            let Some(vifname) = &nic.vifname else { continue };
            let tap = emulated.then(|| format!("{vifname}{}", Nic::EMULATED_SUFFIX));
            for interface in [Some(vifname.clone()), tap].into_iter().flatten() {
                if let Some(first) = interfaces.insert((&nic.backend_domain, interface.clone()), card) {
                    return same(first, format!("interface {interface}"));
                }
            }
        }
        Ok(())
    }

    /// Gives each network card a number and an address that has none: the lowest free number, in their order, and a random
    /// address (00:16:3e:00:00:00 to 00:16:3e:7f:ff:ff, Xen's own). Gives each virtual TPM a UUID. [`check`](Self::check) has
    /// passed.
    pub fn complete(&mut self) {
        let mut devids: BTreeSet<u32> = self.nics.iter().filter_map(|nic| nic.devid).collect();
        let mut macs: BTreeSet<[u8; 6]> = self.nics.iter().filter_map(|nic| nic.mac.map(|mac| mac.0)).collect();
        for nic in &mut self.nics {
            if nic.devid.is_none() {
                nic.devid = (0..MOST_NICS).find(|devid| devids.insert(*devid));
            }
            while nic.mac.is_none() {
                let mac = random_mac();
                nic.mac = macs.insert(mac.0).then_some(mac);
            }
        }
        for vtpm in &mut self.vtpms {
            vtpm.uuid.get_or_insert_with(Uuid::new_v4);
        }
    }
}

/// A random address of Xen's. The top bit of the fourth byte is clear, as it is in libxl's.
fn random_mac() -> MacAddress {
    // The first six bytes of such a UUID are random.
    let [a, b, c, ..] = Uuid::new_v4().into_bytes();
    MacAddress([0x00, 0x16, 0x3e, a & 0x7f, b, c])
}

fn check_disk(disk: &Disk, place: Option<EmulatedPlace>, kind: Kind) -> Result<(), DeviceSetError> {
    let name = || disk.vdev.name.clone();
    let refused = |reason| Err(DeviceSetError::Disk { vdev: name(), reason });
    match disk.backend {
        Some(DiskBackend::Standalone) => {
            return refused("backendtype=standalone is for virtio disks, which are for Arm");
        }
        Some(DiskBackend::Tap) => {
            return refused(
                "backendtype=tap needs tapdisk, which Xen 4.17 does not use; a kernel or QEMU serves the disk",
            );
        }
        Some(DiskBackend::Phy) if disk.format != DiskFormat::Raw => {
            return refused("backendtype=phy serves raw images only; QEMU (qdisk) serves the other formats");
        }
        Some(DiskBackend::Qdisk) if disk.script.is_some() => {
            return refused("backendtype=qdisk and a script exclude each other: a script makes a block device for phy");
        }
        _ => {}
    }
    if disk.script.is_some() && disk.format != DiskFormat::Raw {
        return refused("a script makes a block device, whose format is raw");
    }
    let on_controller = matches!(place, Some(EmulatedPlace::Ide(_) | EmulatedPlace::Ahci(_)));
    match kind {
        Kind::Hvm if disk.cdrom && !on_controller => {
            refused("a CD drive of an HVM guest is an emulated IDE drive: its place is one of hda to hdd")
        }
        Kind::Hvm if on_controller && !disk.cdrom && !disk.writable => {
            let ahci = matches!(place, Some(EmulatedPlace::Ahci(_)));
            Err(DeviceSetError::ReadOnlyIde { vdev: name(), ahci })
        }
        Kind::Pvh | Kind::Pv if disk.target.is_none() => refused(
            "only HVM guests can have an empty CD drive: no backend serves a paravirtual disk without an image, and the \
             guest would wait for it",
        ),
        _ => Ok(()),
    }
}

/// Whether there is an emulated card.
fn check_nic(nic: &Nic, card: u32, kind: Kind) -> Result<bool, DeviceSetError> {
    let refused = |reason| Err(DeviceSetError::Nic { card, reason });
    let emulated = nic.emulated.unwrap_or(kind == Kind::Hvm);
    if kind != Kind::Hvm && emulated {
        return refused("type=ioemu is for HVM guests: the others have no emulated cards");
    }
    if kind != Kind::Hvm && nic.model.is_some() {
        return refused("model is for HVM guests: the others have no emulated cards");
    }
    if !emulated && nic.model.is_some() {
        return refused("model is that of an emulated card, and type=vif leaves it out");
    }
    match &nic.vifname {
        Some(vifname) if vifname.len() > Nic::longest_vifname(emulated) => Err(DeviceSetError::LongVifname {
            card,
            vifname: vifname.clone(),
            longest: Nic::longest_vifname(emulated),
            suffix: Nic::EMULATED_SUFFIX,
        }),
        _ => Ok(emulated),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn devices(disks: &[&str], nics: &[&str]) -> Devices {
        Devices {
            disks: disks.iter().map(|spec| spec.parse().unwrap_or_else(|error| panic!("{spec}: {error}"))).collect(),
            nics: nics.iter().map(|spec| spec.parse().unwrap_or_else(|error| panic!("{spec}: {error}"))).collect(),
            ..Devices::default()
        }
    }

    fn refusal(kind: Kind, disks: &[&str], nics: &[&str]) -> Option<String> {
        devices(disks, nics).check(kind).err().map(|error| error.to_string())
    }

    #[test]
    fn a_usual_guest_passes() {
        let disks = ["/a,raw,xvda,w", "/b,qcow2,xvdb,w", "/c,raw,sda,r", "/d,raw,xvde,r"];
        let nics = ["", "bridge=br1,type=vif", "mac=00:16:3e:00:00:01"];
        for kind in Kind::ALL {
            assert_eq!(refusal(kind, &disks, &nics), None, "{kind}");
        }
        assert_eq!(refusal(Kind::Hvm, &[",hdc:cdrom,r", "/a,raw,hda,w"], &["model=e1000", "type=ioemu"]), None);
        assert_eq!(refusal(Kind::Pv, &["/a.iso,raw,xvdc:cdrom,r"], &[]), None);
        assert_eq!(devices(&[], &[]).check(Kind::Pvh), Ok(()));
    }

    #[test]
    fn one_place_has_one_disk() {
        for kind in Kind::ALL {
            let same = refusal(kind, &["/a,raw,xvda,w", "/b,raw,51712,w"], &[]).expect("one number");
            assert_eq!(same, "the disks xvda and 51712 have one number, 51712: the guest sees one of them only");
        }
        let both = ["/a,raw,xvdc,w", "/b,raw,hdc,w"];
        let same = refusal(Kind::Hvm, &both, &[]).expect("one place");
        assert_eq!(same, "the disks xvdc and hdc have one place on the emulated controller of an HVM guest");
        assert_eq!(refusal(Kind::Pv, &both, &[]), None);
        assert!(refusal(Kind::Hvm, &["/a,raw,sda1,w", "/b,raw,sda2,w"], &[]).is_some());
        assert!(refusal(Kind::Hvm, &["/a,raw,xvda1,w", "/b,raw,xvda2,w"], &[]).is_some());
        assert_eq!(refusal(Kind::Pvh, &["/a,raw,xvda1,w", "/b,raw,xvda2,w"], &[]), None);
        assert_eq!(refusal(Kind::Hvm, &["/a,raw,xvdc,w", "/b,raw,sdc,w"], &[]), None);
    }

    #[test]
    fn a_kind_of_guest_has_its_disks() {
        let cases: [(&[Kind], &str, &str); 12] = [
            (&[Kind::Pv, Kind::Pvh], ",hdc:cdrom,r", "disk hdc: only HVM guests can have an empty CD drive"),
            (&[Kind::Hvm], "/a.iso,raw,sda:cdrom,r", "disk sda: a CD drive of an HVM guest is an emulated IDE drive"),
            (&[Kind::Hvm], "/a.iso,raw,xvde:cdrom,r", "one of hda to hdd"),
            (&[Kind::Hvm], "/a,raw,hda,r", "disk hda: QEMU has no read-only IDE disks"),
            (&[Kind::Hvm], "/a,raw,xvdd,r", "place it at xvde or beyond"),
            (&Kind::ALL, "/a,qcow2,xvde,w,script=x", "a script makes a block device, whose format is raw"),
            (&Kind::ALL, "/a,vhd,xvde,w,script=x", "a script"),
            (&Kind::ALL, "/a,qed,xvde,w,script=x", "a script"),
            (&Kind::ALL, "/a,qcow2,xvde,w,backendtype=phy", "backendtype=phy serves raw images only"),
            (&Kind::ALL, "/a,raw,xvde,w,script=x,backendtype=qdisk", "exclude each other"),
            (&Kind::ALL, "/a,raw,xvde,w,backendtype=tap", "tapdisk"),
            (&Kind::ALL, "/a,raw,xvde,w,backendtype=standalone", "for Arm"),
        ];
        for (refused, spec, text) in cases {
            for kind in Kind::ALL {
                let message = refusal(kind, &[spec], &[]);
                assert_eq!(message.is_some(), refused.contains(&kind), "{kind} {spec}: {message:?}");
                assert!(message.is_none_or(|message| message.contains(text)), "{kind} {spec}");
            }
        }
    }

    #[test]
    fn ahci_has_six_ports_and_leaves_cd_drives_on_ide() {
        let of = |specs: &[&str]| {
            let machine = Machine { disks: DiskController::Ahci, ..Machine::default() };
            Devices {
                disks: specs.iter().map(|spec| spec.parse().expect(spec)).collect(),
                machine,
                ..Devices::default()
            }
        };
        let devices = of(&["/a,raw,xvdc,w", "/b,raw,hdc:cdrom,r", "/c,raw,xvdf,w", "/d,raw,xvdg,r"]);
        assert_eq!(devices.check(Kind::Hvm), Ok(()));
        let beyond: Vec<&str> = devices.paravirtual_only(Kind::Hvm).map(|disk| disk.vdev.name.as_str()).collect();
        assert_eq!(beyond, ["xvdg"]);
        assert!(matches!(of(&["/a,raw,xvde,r"]).check(Kind::Hvm), Err(DeviceSetError::ReadOnlyIde { ahci: true, .. })));
        assert!(matches!(
            of(&["/a,raw,xvdb,w", "/b,raw,hdb,w"]).check(Kind::Hvm),
            Err(DeviceSetError::SameEmulatedPlace { .. })
        ));
        assert_eq!(of(&["/a,raw,xvde,r"]).check(Kind::Pv), Ok(()));
    }

    #[test]
    fn disks_beyond_the_controller_are_paravirtual_only() {
        let devices = devices(&["/a,raw,xvdd,w", "/b,raw,xvde,w", "/c,raw,sdb,w", "/d,raw,0x2100,w"], &[]);
        assert_eq!(devices.check(Kind::Hvm), Ok(()));
        let names: Vec<&str> = devices.paravirtual_only(Kind::Hvm).map(|disk| disk.vdev.name.as_str()).collect();
        assert_eq!(names, ["xvde", "0x2100"]);
        assert_eq!(devices.paravirtual_only(Kind::Pv).count(), 0);
    }

    #[test]
    fn a_network_card_has_a_number_an_address_and_an_interface_of_its_own() {
        for (nics, text) in [
            (&["", "devid=1", "devid=1"][..], "the network cards 2 and 3 have one devid 1"),
            (&["mac=00:16:3e:00:00:0a", "mac=00-16-3E-00-00-0A"], "1 and 2 have one MAC 00:16:3e:00:00:0a"),
            (&["vifname=web,type=vif", "vifname=web,type=vif"], "1 and 2 have one interface web"),
        ] {
            for kind in Kind::ALL {
                let message = refusal(kind, &[], nics).expect("refused");
                assert!(message.contains(text), "{message}");
            }
        }
        let other_domain = ["vifname=web", "vifname=web,backend=net"];
        assert_eq!(refusal(Kind::Hvm, &[], &other_domain), None);
        let tap = refusal(Kind::Hvm, &[], &["vifname=web", "vifname=web-emu,type=vif"]).expect("the tap's name");
        assert!(tap.contains("interface web-emu"), "{tap}");
        let many = [""; 101];
        assert_eq!(refusal(Kind::Pv, &[], &many[..100]), None);
        assert!(refusal(Kind::Pv, &[], &many).expect("too many").contains("at most 100"));
    }

    #[test]
    fn sound_and_usb_are_for_an_hvm_guest() {
        let sound = Devices { sound: Some(SoundModel::Ac97), ..Devices::default() };
        let usb = Devices { usb: Some(Usb::Devices(Vec::new())), ..Devices::default() };
        for (devices, what) in [(sound, "a sound card"), (usb, "USB")] {
            assert_eq!(devices.check(Kind::Hvm), Ok(()));
            for kind in [Kind::Pv, Kind::Pvh] {
                let refused = devices.check(kind).expect_err("refused").to_string();
                assert!(refused.contains(&format!("a {kind} guest cannot have {what}")), "{refused}");
            }
        }
    }

    #[test]
    fn an_emulated_card_is_for_an_hvm_guest() {
        for (spec, text) in [("type=ioemu", "type=ioemu is for HVM"), ("model=e1000", "model is for HVM")] {
            assert_eq!(refusal(Kind::Hvm, &[], &[spec]), None);
            for kind in [Kind::Pv, Kind::Pvh] {
                assert!(refusal(kind, &[], &["", spec]).expect("refused").contains("network card 2: "), "{spec}");
                assert!(refusal(kind, &[], &[spec]).expect("refused").contains(text), "{spec}");
            }
        }
        assert!(
            refusal(Kind::Hvm, &[], &["type=vif,model=e1000"]).expect("refused").contains("type=vif leaves it out")
        );
        let long = ["vifname=a12345678901"];
        assert!(refusal(Kind::Hvm, &[], &long).expect("refused").contains("at most 11 bytes"));
        assert_eq!(refusal(Kind::Hvm, &[], &["vifname=a12345678901,type=vif"]), None);
        assert_eq!(refusal(Kind::Pvh, &[], &long), None);
    }

    proptest! {
        #[test]
        fn what_is_complete_has_no_gaps_and_passes(
            chosen in proptest::collection::vec(proptest::option::of(0_u32..100), 0..100),
        ) {
            let mut seen = BTreeSet::new();
            let nics = chosen.iter().map(|devid| Nic {
                devid: devid.filter(|devid| seen.insert(*devid)),
                ..devices(&[], &[""]).nics.remove(0)
            });
            let mut devices = Devices { nics: nics.collect(), ..Devices::default() };
            let before = devices.clone();
            devices.complete();
            prop_assert_eq!(devices.check(Kind::Pvh), Ok(()));
            let mut last = None;
            for (nic, old) in devices.nics.iter().zip(&before.nics) {
                let MacAddress(mac) = nic.mac.expect("an address");
                prop_assert!(mac[..3] == [0x00, 0x16, 0x3e] && mac[3] < 0x80);
                if old.devid.is_some() {
                    prop_assert_eq!(nic.devid, old.devid);
                } else {
                    // In their order.
                    prop_assert!(nic.devid > last);
                    last = nic.devid;
                }
            }
            // The lowest free ones.
            let devids: BTreeSet<u32> = devices.nics.iter().filter_map(|nic| nic.devid).collect();
            prop_assert_eq!(devids.len(), devices.nics.len());
            prop_assert!((0..last.unwrap_or(0)).all(|devid| devids.contains(&devid)));
            let same = devices.clone();
            devices.complete();
            prop_assert_eq!(devices, same);
        }
    }

    #[test]
    fn random_addresses_differ() {
        let macs: BTreeSet<[u8; 6]> = (0..64).map(|_| random_mac().0).collect();
        assert!(macs.len() > 60, "{macs:x?}");
    }
}
