//! Shapes of files that operators have, as twins of xl's guests: graphics cards, machines without Xen's PCI device, CPUs and pools,
//! cards and grant tables, shares and channels, and QEMU's direct boot.

use std::fs;

use dombuild::xen::{DomId, Interface};

use super::Test;
use super::config_files::{compared, compared_but, destroy_both};
use super::devices::{HVM_QUICK, Images, Link};
use super::linux::{self, QUICK};
use super::parallel::SecondProcessor;
use super::support::{CMDLINE, GUEST_INITRD, GUEST_KERNEL, PACKED_KERNEL, dombuild, file, path_text, shell};
use super::twin::same_params;

pub(crate) const TESTS: &[Test] = &[
    ("config_shapes_of_the_machine", machines),
    ("config_shapes_of_processors_and_memory", processors),
    ("config_shapes_of_cards_and_grant_tables", cards),
    ("config_shapes_of_shares_and_channels", shares),
    ("config_shapes_start_linux_with_a_share", start_linux),
];

const IS_417: bool = matches!(env!("DOMBUILD_XEN_VERSION").as_bytes(), b"4.17");

fn machines() {
    shell("ip link set lo up");
    let images = Images::new();
    let (one, other, cd) = (images.image("x.img"), images.image("t.img"), images.image("cd.iso"));
    let cmdline = format!("console=hvc0 {HVM_QUICK}");
    for text in [
        "vga = 'none'\nvnc = 0\n",
        "vga = 'stdvga'\nvnc = 1\nxen_platform_pci = 0\ndisk = ['file:IMAGE,hda,w', 'file:CD,hdc:cdrom,r']\nboot = 'dca'\n",
        "vnc = 0\nkernel = 'KERNEL'\nramdisk = 'RAMDISK'\ncmdline = 'CMDLINE'\ndisk = ['file:IMAGE,hda,w']\n",
        "vnc = 0\nkernel = 'KERNEL'\nroot = '/dev/xvda'\nextra = \"quiet\"\nfirmware = 'seabios'\n",
    ] {
        let text = format!("type = 'hvm'\nmemory = 128\n{text}");
        let files = [("KERNEL", PACKED_KERNEL), ("RAMDISK", GUEST_INITRD), ("CMDLINE", cmdline.as_str()), ("CD", &cd)];
        let words = |image| [&[("IMAGE", image)][..], &files].concat();
        let (theirs, ours) = compared(&text, [&words(one.as_str()), &words(other.as_str())], true);
        same_params(&Interface::open().expect("Xen"), theirs, ours);
        destroy_both();
    }
}

fn processors() {
    let _both = SecondProcessor::wake();
    let kernel = file(&super::faults::tiny_kernel());
    let words: &[(&str, &str)] = &[("KERNEL", path_text(&kernel))];
    let xen = Interface::open().expect("Xen");
    for text in [
        "type = 'hvm'\nvnc = 0\nvcpus = 2\nmaxvcpus = 3\ncpus = ['0', '1']\ncpus_soft = ['1', '0-1', '0']\nshadow_memory = 16\n\
         cpu_weight = 512\ncap = 75\ncpuid = 'host,sse3=0'\n",
        "type = 'pvh'\nkernel = 'KERNEL'\nvcpus = 2\ncpus = '0-1,^0'\nshadow_memory = 9\npool = '0'\nnomigrate = 1\n",
        "kernel = 'KERNEL'\nvcpus = 2\ncpus = 'all'\ncpus_soft = '1'\ncap = 10\nmaxmem = 128\n",
    ] {
        let (theirs, ours) = compared(&format!("memory = 64\n{text}"), [words; 2], text.contains("'hvm'"));
        if text.contains("type") {
            same_params(&xen, theirs, ours);
            let pools = [theirs, ours].map(|domid| xen.paging_pool(domid).expect("it has one"));
            assert_eq!(pools[0], pools[1], "{text}");
        }
        destroy_both();
    }
}

/// The limits of a domain's grant table as Xen prints them: `1 frames (8 max), 0 maptrack frames (1024 max)`.
fn grant_table(domid: DomId) -> String {
    shell("xl debug-keys g");
    let log = shell("xl dmesg");
    let (_, after) = log.rsplit_once(&format!("grant-table for remote d{domid} ")).expect("it has a table");
    let table: Vec<&str> = after.lines().take(2).map(|line| line.trim_start_matches("(XEN)").trim()).collect();
    assert!(table[1].contains("maptrack"), "{table:?}");
    table.join(" ")
}

fn cards() {
    let _bridges = [Link::bridge("test0"), Link::bridge("test1")];
    let kernel = file(&super::faults::tiny_kernel());
    let kernel = path_text(&kernel);
    for text in [
        "type = 'hvm'\nvnc = 0\nmax_grant_frames = 40\nmax_maptrack_frames = 16\nmax_grant_version = 1\n\
         vif = ['mac=00:16:3e:00:00:0N,bridge=test0,model=e1000,vifname=CARD,rate=10Mb/s', 'mac=00:16:3e:00:01:0N,bridge=test1,type=vif']\n",
        "type = 'pvh'\nkernel = 'KERNEL'\nmax_grant_frames = 8\n\
         vif = ['mac=00:16:3e:00:00:0N,bridge=test0,mtu=1400,ip=10.0.0.2', 'mac=00:16:3e:00:01:0N,bridge=test1,devid=3,vifname=CARD']\n",
        "kernel = 'KERNEL'\nmax_maptrack_frames = 0\nmax_grant_version = 2\nmax_event_channels = 4095\n\
         vif = ['mac=00:16:3e:00:00:0N,bridge=test1,script=vif-bridge,untrusted']\n",
    ] {
        let words = |card| [("CARD", card), ("KERNEL", kernel)];
        // The guest of a confined QEMU has no CD drive; the frames of a PV guest are those of the machine.
        let differing = ["vbd/5632", "/ring-ref"];
        let text = format!("memory = 64\n{text}");
        let both = compared_but(&text, [&words("cardx"), &words("cardt")], text.contains("'hvm'"), &differing);
        let (one, other) = (grant_table(both.0), grant_table(both.1));
        assert_eq!(one, other, "{text}");
        for key in ["max_grant_frames", "max_maptrack_frames"] {
            let number = text.split_once(&format!("{key} = ")).map(|(_, rest)| rest.lines().next().expect("a number"));
            assert!(number.is_none_or(|number| one.contains(&format!("({number} max)"))), "{key}: {one}");
        }
        destroy_both();
        // What vif-bridge writes for a card with a name of its own, and xl leaves (Xen 4.20).
        shell("xenstore-rm /local/domain/cardx 2>/dev/null || true");
    }
}

/// xl of Xen 4.17 loses the first channel, and xl of 4.20 starts no QEMU for shares and channels alone.
fn shares() {
    if !IS_417 {
        println!("compared on Xen 4.17 alone: xl of 4.20 starts no QEMU for them");
        return;
    }
    shell("ip link set lo up");
    let images = Images::new();
    let kernel = file(&super::faults::tiny_kernel());
    let share = images.path("share");
    fs::create_dir(&share).expect("made");
    // xl 4.17 loses the first channel.
    let lost = "'name=lost,connection=pty', ";
    for kind in ["pvh", "pv"] {
        let xls = format!(
            "type = '{kind}'\nmemory = 64\nkernel = 'KERNEL'\np9 = ['tag=data,path=SHARE,security_model=none']\n\
             channel = [LOST'name=org.example.a,connection=socket,path=SOCKET']\n"
        );
        let sockets = [images.path("x.sock"), images.path("t.sock")];
        let words = |own: usize| {
            [
                ("KERNEL", path_text(&kernel)),
                ("SHARE", share.as_str()),
                ("SOCKET", sockets[own].as_str()),
                ("LOST", if own == 0 { lost } else { "" }),
            ]
        };
        let differing: &[&str] = &["/ring-ref", "/vncdisplay"];
        compared_but(&xls, [&words(0), &words(1)], false, differing);
        destroy_both();
    }
}

/// Two disks, two cards, a share and a channel from one file, as far as the guest's userspace.
fn start_linux() {
    let images = Images::new();
    let _bridges = [Link::bridge("test0"), Link::bridge("test1")];
    shell("ip addr add 10.9.0.1/24 dev test0 && ip addr add 10.9.1.1/24 dev test1");
    let (first, second) = (images.image("first"), images.image("second"));
    let share = images.path("share");
    fs::create_dir(&share).expect("made");
    fs::write(format!("{share}/line"), "line of the share\n").expect("written");
    let config = format!(
        "name = 't'\ntype = 'pvh'\nmemory = 128\nkernel = '{GUEST_KERNEL}'\nramdisk = '{GUEST_INITRD}'\ntsc_mode = 'native'\n\
         extra = '{CMDLINE} {QUICK} guest.drivers guest.disk=xvda guest.disk=xvdb guest.net=0,10.9.0.2,10.9.0.1 '\n\
         extra += 'guest.net=1,10.9.1.2,10.9.1.1 guest.share=data guest.poweroff'\n\
         disk = ['phy:{first},xvda,w', 'format=raw,vdev=xvdb,access=ro,target={second}']\n\
         vif = ['mac=00:16:3e:00:00:01,bridge=test0', 'mac=00:16:3e:00:00:02,bridge=test1']\n\
         p9 = ['tag=data,path={share},security_model=none']\nchannel = ['name=org.example.a,connection=pty']\n"
    );
    let config = file(config.as_bytes());
    linux::expect_guest();
    let ran = dombuild(&["create", path_text(&config), "-F"]).success();
    assert_eq!(ran.json()["ended"], "poweroff", "{ran:?}");
    let console = linux::console();
    for line in [
        "disk xvda 2048 line of first",
        "wrote xvda",
        "disk xvdb 2048 line of second",
        "disk xvdb is read-only",
        "net 0 00:16:3e:00:00:01 ping 10.9.0.1 yes",
        "net 1 00:16:3e:00:00:02 ping 10.9.1.1 yes",
        "share data line of the share",
    ] {
        assert!(console.lines().any(|shown| shown.trim() == format!("guest: {line}")), "{line}: {console}");
    }
    assert_eq!(fs::read_to_string(format!("{share}/written")).expect("written"), "from the guest\n");
}
