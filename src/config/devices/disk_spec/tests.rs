//! The answers of libxlutil 4.17.5 to the same texts, and what differs from them.

use proptest::prelude::*;

use super::*;

fn disk(spec: &str) -> Disk {
    spec.parse().unwrap_or_else(|error| panic!("{spec}: {error}"))
}

/// What libxlutil says of a disk: target, vdev, format (`empty`: no target), write access, CD, script.
type Answer<'a> = (&'a str, &'a str, &'a str, bool, bool, Option<&'a str>);

fn answer(disk: &Disk) -> Answer<'_> {
    let format = if disk.target.is_some() { disk.format.as_str() } else { "empty" };
    let target = disk.target.as_deref().unwrap_or_default();
    (target, &disk.vdev.name, format, disk.writable, disk.cdrom, disk.script.as_deref())
}

#[test]
fn a_text_is_the_disk_that_libxlutil_makes_of_it() {
    for (spec, expected) in [
        ("phy:/dev/vg/x,xvda,w", ("/dev/vg/x", "xvda", "raw", true, false, None)),
        ("phy:/dev/vg/x,hda,w", ("/dev/vg/x", "hda", "raw", true, false, None)),
        ("file:/a.img,xvda,rw", ("/a.img", "xvda", "raw", true, false, None)),
        ("/dev/vg/x,raw,xvda,rw", ("/dev/vg/x", "xvda", "raw", true, false, None)),
        ("file:/a.iso,hdc:cdrom,r", ("/a.iso", "hdc", "raw", false, true, None)),
        ("/a.iso,raw,hdc:cdrom,r", ("/a.iso", "hdc", "raw", false, true, None)),
        ("/a.iso,,hdc,cdrom", ("/a.iso", "hdc", "raw", false, true, None)),
        (",hdc:cdrom,r", ("", "hdc", "empty", false, true, None)),
        (",,hdc,cdrom", ("", "hdc", "empty", false, true, None)),
        (",empty,hdc:cdrom,r", ("", "hdc", "empty", false, true, None)),
        ("tap:aio:/a.img,xvda,w", ("/a.img", "xvda", "raw", true, false, None)),
        ("tap2:qcow2:/a.img,xvda,w", ("/a.img", "xvda", "qcow2", true, false, None)),
        ("tap:tapdisk:aio:/a,xvda,w", ("/a", "xvda", "raw", true, false, None)),
        ("file:/a,ioemu:hda,w", ("/a", "hda", "raw", true, false, None)),
        ("phy:/dev/hde,ioemu:hdc:cdrom,r", ("/dev/hde", "hdc", "raw", false, true, None)),
        ("iscsi:iqn.x,xvda,w", ("iqn.x", "xvda", "raw", true, false, Some("block-iscsi"))),
        ("nbd:1.2.3.4:10809,xvda,w", ("1.2.3.4:10809", "xvda", "raw", true, false, Some("block-nbd"))),
        ("drbd:res,xvda,w", ("res", "xvda", "raw", true, false, Some("block-drbd"))),
        ("vdev=xvda,format=raw,target=/a,b:c", ("/a,b:c", "xvda", "raw", true, false, None)),
        ("vdev=hdc,cdrom", ("", "hdc", "empty", false, true, None)),
        ("vdev=hdc,devtype=cdrom,access=ro", ("", "hdc", "empty", false, true, None)),
        ("backendtype=phy,vdev=xvda,target=/a", ("/a", "xvda", "raw", true, false, None)),
        ("backendtype=tap,vdev=xvda,target=/a", ("/a", "xvda", "raw", true, false, None)),
        ("format=raw, vdev=xvda, access=rw, target=/a", ("/a", "xvda", "raw", true, false, None)),
        ("script=block-iscsi,vdev=xvda,target=iqn=x", ("iqn=x", "xvda", "raw", true, false, Some("block-iscsi"))),
        ("phy:vg/x,xvda,w", ("vg/x", "xvda", "raw", true, false, None)),
        ("phy:/dev/x,xvda,r,backend=dom1", ("/dev/x", "xvda", "raw", false, false, None)),
        ("format=qcow2,vdev=xvda,direct-io-safe,discard,target=/a", ("/a", "xvda", "qcow2", true, false, None)),
        ("aio:/a.img,xvda,w", ("/a.img", "xvda", "raw", true, false, None)),
        ("vhd:/a.vhd,xvda,w", ("/a.vhd", "xvda", "vhd", true, false, None)),
        ("backend=0,vdev=xvda,target=/a", ("/a", "xvda", "raw", true, false, None)),
        ("phy:/dev/x,0x1601,w", ("/dev/x", "0x1601", "raw", true, false, None)),
        // What the scanner's rules say of others.
        ("/a,,xvda", ("/a", "xvda", "raw", true, false, None)),
        ("/a,raw,xvda:disk,", ("/a", "xvda", "raw", true, false, None)),
        ("/a,qed,xvda,ro", ("/a", "xvda", "qed", false, false, None)),
        ("vdev=xvda,target=/a,,", ("/a,", "xvda", "raw", true, false, None)),
        ("/a,vdev=xvda,raw,access=r", ("/a", "xvda", "raw", false, false, None)),
        ("host:port,raw,xvda", ("host:port", "xvda", "raw", true, false, None)),
        ("/a ,raw,xvda,access=w", ("/a ", "xvda", "raw", true, false, None)),
        ("raw:/a,xvda,format=raw", ("/a", "xvda", "raw", true, false, None)),
        ("/a,raw,hda,w,devtype=cdrom", ("/a", "hda", "raw", false, true, None)),
        ("specification=xen,vdev=xvda,target=/a", ("/a", "xvda", "raw", true, false, None)),
    ] {
        assert_eq!(answer(&disk(spec)), expected, "{spec}");
    }
}

#[test]
fn a_disk_has_the_other_settings_of_its_text() {
    let full = disk(
        "vdev=sda1,format=qcow2,backendtype=qdisk,backend=disks,direct-io-safe,no-discard,untrusted,access=w!,target=/a",
    );
    assert_eq!((full.backend, full.backend_domain.as_deref()), (Some(DiskBackend::Qdisk), Some("disks")));
    assert_eq!((full.direct_io_safe, full.discard, full.trusted), (true, Some(false), Some(false)));
    assert_eq!((full.writable, full.shared), (true, true));
    let plain = disk("/a,raw,xvda,w");
    assert_eq!((plain.backend, plain.backend_domain, plain.shared), (None, None, false));
    assert_eq!((plain.direct_io_safe, plain.discard, plain.trusted), (false, None, None));
    // dom0 is the default; a CD is never writable.
    assert_eq!(disk("backend=0,vdev=xvda,target=/a").backend_domain, None);
    let cd = disk("/a.iso,raw,hdc:cdrom,w!");
    assert_eq!((cd.writable, cd.shared), (false, false));
    assert_eq!(disk("/a,raw,xvda,w!"), Disk { shared: true, ..disk("/a,raw,xvda,w") });
}

#[test]
fn what_libxlutil_refuses_is_refused_with_its_place() {
    for (spec, span, text) in [
        ("ioemu:sda", 9..9, "there is no vdev"),
        ("target=/a,vdev=xvda", 19..19, "there is no vdev"),
        ("xvda", 4..4, "there is no vdev"),
        ("", 0..0, "there is no vdev"),
        ("/a,xvda,w", 3..7, "format is \"xvda\"; it takes raw, qcow"),
        ("/a,raw,xvda,rw,extra", 15..20, "\"extra\" is one word too many"),
        ("/a,qcow3,xvda", 3..8, "format is \"qcow3\""),
        ("file:/a.img,qcow2,xvda,rw", 12..17, "no format after a prefix such as phy: leave qcow2 out"),
        ("phy:/dev/zvol/t/x,raw,xvda,rw", 18..21, "leave raw out"),
        ("vdev=xvda,unknown=1,target=/a", 10..17, "\"unknown\" is unknown; the words are format="),
        ("vdev=xvda,unknown=12,target=/a", 10..17, "\"unknown\" is unknown"),
        ("rbd:pool/img:id=x,xvda,w", 0..15, "\"rbd:pool/img:id\" before = is no key"),
        ("/a.img , raw , xvda , rw", 9..13, "format is \"raw \""),
        // What the scanner's rules say of others.
        ("rbd:/pool,raw,xvda", 0..4, "\"rbd:\" is unknown; the words are phy: file:"),
        ("vdev=xvda,vdev=xvdb,target=/a", 15..19, "vdev is given twice"),
        ("/a,raw,xvda,w,target=/b", 21..23, "target is given twice"),
        ("qcow2:/a,xvda,format=raw", 21..24, "format is given twice"),
        ("iscsi:x,xvda,script=y", 13..19, "script is given twice"),
        ("backendtype=phy,backendtype=qdisk,vdev=xvda,target=/a", 28..33, "backendtype is given twice"),
        ("vdev=xvda", 9..9, "there is no target"),
        ("vdev=xvda,devtype=floppy,target=/a", 18..24, "devtype is \"floppy\"; it takes disk or cdrom"),
        ("/a,raw,xvda:floppy,w", 12..18, "devtype is \"floppy\""),
        ("vdev=xvda,backendtype=loop,target=/a", 22..26, "backendtype is \"loop\""),
        ("vdev=xvda,access=x,target=/a", 17..18, "access is \"x\"; it takes r, ro"),
        ("vdev=xvda,cdrom=1,target=/a", 10..15, "\"cdrom\" is unknown"),
    ] {
        let error = spec.parse::<Disk>().expect_err(spec);
        assert_eq!(error.span, span, "{spec}: {error}");
        assert!(error.to_string().contains(text), "{spec}: {error}");
    }
}

#[test]
fn what_only_libxlutil_takes_is_refused() {
    let long = format!("vdev=xvda,target=/{}", "a".repeat(3072));
    for (spec, span, text) in [
        ("vdev=xvda,target=", 10..17, "target is \"\"; it takes a file"),
        (",,xvda", 6..6, "there is no target"),
        (",xvda:disk", 10..10, "there is no target"),
        ("vdev=xvda,format=empty,target=/a", 17..22, "format is \"empty\"; it takes another format"),
        ("vdev=hdc,cdrom,format=empty,target=/a", 22..27, "format is \"empty\""),
        (",hdc:cdrom,r,target=/a", 1..10, "format is \"empty\"; it takes another format"),
        ("vdev=,target=/a", 5..5, "vdev is \"\""),
        ("/a,raw,xvd1", 7..11, "vdev is \"xvd1\"; it takes xvda to"),
        ("/a,raw,vda,w", 7..10, "vdev is \"vda\""),
        ("vdev=hdc:cdrom,target=/a", 5..14, "vdev is \"hdc:cdrom\""),
        ("vdev=xvda,script=,target=/a", 17..17, "script is \"\""),
        ("vdev=xvda,backend=,target=/a", 18..18, "backend is \"\""),
        ("vdev=xvda,backend=a/b,target=/a", 18..21, "backend is \"a/b\"; it takes the name"),
        ("vdev=xvda,backend=99999,target=/a", 18..23, "backend is \"99999\""),
        ("vdev=xvda,backend=a,backend=b,target=/a", 20..27, "backend is given twice"),
        ("vdev=xvda,specification=virtio,target=/a", 24..30, "\"virtio\" cannot be used: virtio disks"),
        ("vdev=xvda,specification=x,target=/a", 24..25, "specification is \"x\"; it takes xen"),
        ("vdev=xvda,grant_usage=1,target=/a", 10..21, "\"grant_usage\" cannot be used"),
        ("vdev=xvda,colo,target=/a", 10..14, "\"colo\" cannot be used: it is for COLO"),
        ("vdev=xvda,colo-host=h,target=/a", 10..19, "COLO"),
        ("vdev=xvda,active-disk=h,target=/a", 10..21, "COLO"),
        ("vdev=xvda,target=/a\0b", 19..20, "'\\0' is a control character"),
        ("/a\nb,raw,xvda", 2..3, "'\\n' is a control character"),
        ("vdev=xvda,script=a\x1b[2J,target=/a", 18..19, "control character"),
        (&long, 17..3090, "1 to 3072 bytes"),
    ] {
        let error = spec.parse::<Disk>().expect_err(spec);
        assert_eq!(error.span, span, "{spec}: {error}");
        assert!(error.to_string().contains(text), "{spec}: {error}");
    }
}

#[test]
fn the_page_has_every_word() {
    super::super::text::assert_documented(WORDS);
}

fn disks() -> impl Strategy<Value = Disk> {
    let name = || proptest::option::of("[a-z][a-z0-9_-]{0,9}");
    let backend = proptest::option::of(proptest::sample::select(BACKENDS.to_vec()));
    let flag = || proptest::option::of(any::<bool>());
    let vdev = "xvd[a-z]{1,2}[1-9]?|hd[a-d]|sd[a-p]|d[1-9]p[0-9]";
    let target = proptest::option::of("[^\\p{Cc}]{1,20}");
    let parts = (vdev, target, proptest::sample::select(FORMATS.to_vec()), backend, name(), name());
    (parts, any::<(bool, bool, bool, bool)>(), flag(), flag()).prop_map(
        |((vdev, target, format, backend, script, backend_domain), bits, discard, trusted)| {
            let (cdrom, writable, shared, direct_io_safe) = bits;
            let cdrom = cdrom || target.is_none();
            Disk {
                vdev: vdev.parse().expect("a place"),
                format: if target.is_some() { format } else { DiskFormat::Raw },
                target,
                backend,
                script,
                backend_domain,
                cdrom,
                writable: writable && !cdrom,
                shared: shared && writable && !cdrom,
                discard,
                direct_io_safe,
                trusted,
            }
        },
    )
}

proptest! {
    #[test]
    fn a_printed_disk_is_read_again(disk in disks()) {
        prop_assert_eq!(disk.to_string().parse(), Ok(disk));
    }

    #[test]
    fn no_text_makes_it_panic_and_a_place_is_in_the_text(
        text in "\\PC{0,40}|((phy|qcow2|x|hdc|vdev|format|target|cdrom|raw|/a|xvda)?[:=,!]?){0,8}|.{0,12}"
    ) {
        match text.parse::<Disk>() {
            Err(error) => prop_assert!(text.get(error.span.clone()).is_some(), "{:?}", error.span),
            Ok(disk) => {
                prop_assert_eq!(disk.to_string().parse(), Ok(disk));
            }
        }
    }
}
