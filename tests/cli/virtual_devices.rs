//! `--disk` and `--vif`: what is refused before a file is read or Xen is touched.

use super::run::{Files, line, refused, run, text, with};

/// The message of a refused `create` with these flags.
fn message(flags: &[&str]) -> String {
    let files = Files::new();
    let arguments: Vec<String> =
        files.create().into_iter().chain(flags.iter().map(|flag| (*flag).to_owned())).collect();
    let error = refused(&arguments, 3, "bad-config");
    assert_eq!(error["stage"], "check-input", "{error}");
    error["message"].as_str().expect("text").to_owned()
}

#[test]
fn a_wrong_word_is_named_with_its_column() {
    for (flags, expected) in [
        (&["--vif", "mac=00:16:3e:00:00"][..], &["--vif \"mac=00:16:3e:00:00\", column 5: mac is", "six pairs"][..]),
        (&["--vif", "bridge=b0,mac=01:00:5e:00:00:01"], &["column 15: mac is", "stands for a group"]),
        (&["--vif", "brigde=xenbr0"], &["column 1: \"brigde\" is unknown", "bridge=", "vifname="]),
        (&["--vif", "type=netfront"], &["column 6: type is \"netfront\"; it takes vif, or ioemu"]),
        (&["--vif", "rate=10MB"], &["column 6: rate is \"10MB\"", "10Mb/s"]),
        (&["--vif", "mtu=67"], &["68 to 65535"]),
        (&["--vtpm", "uuid=7"], &["--vtpm \"uuid=7\", column 6: uuid is \"7\"; it takes a UUID"]),
        (&["--vtpm", ""], &["--vtpm \"\", column 1: there is no backend; give backend=DOMAIN"]),
        (&["--vdispl", "connectors=a:1"], &["column 12: connectors is \"a:1\"; it takes ID:WIDTHxHEIGHT"]),
        (&["--vsnd", "CARD,PCM,id=0"], &["column 10: \"id\" is unknown; the words are CARD, PCM and STREAM"]),
        (&["--pvcalls", "backend=a/b"], &["column 9: backend is", "the name or the number of a domain"]),
        (&["--cpuid", "host,sse3=0,é=1"], &["--cpuid \"host,sse3=0,é=1\", column 13: \"é\" is no CPU feature"]),
        (&["--cpuid", "1:ecx"], &["column 3: \"ecx\" is no register with its bits"]),
        (&["--disk", "/ä,xvda,w"], &["--disk \"/ä,xvda,w\", column 4: format is \"xvda\"; it takes raw, qcow"]),
        (&["--disk", "/a,raw,xvda,w", "--disk", "vdev=xvdb,mode=w,target=/b"], &["column 11: \"mode\" is unknown"]),
        (&["--disk", "/a"], &["column 3: there is no vdev"]),
        (&["--disk", ""], &["--disk \"\", column 1: there is no vdev"]),
        (&["--disk", "vdev=xvda,target="], &["column 11: target is \"\""]),
        (&["--disk", "/a,raw,vda,w"], &["column 8: vdev is \"vda\"; it takes xvda"]),
        (&["--disk", "phy:/a,raw,xvda,w"], &["column 8: there is no format after a prefix"]),
        (&["--disk", "vdev=xvda,specification=virtio,target=/a"], &["for Arm"]),
        (&["--disk", "vdev=xvda,target=/a\x1b[31m"], &["column 20: '\\u{1b}' is a control character"]),
    ] {
        let message = message(flags);
        for word in expected {
            assert!(message.contains(word), "{flags:?}: {word:?} is missing: {message}");
        }
        assert!(!message.contains(['\n', '\x1b']), "shown as it is: {message:?}");
    }
}

#[test]
fn devices_that_exclude_each_other_or_the_kind() {
    let pvh = &["--kind", "pvh", "--device-model", "none"][..];
    for (flags, expected) in [
        (&["--disk", "/a,raw,xvda,w", "--disk", "/b,raw,xvda,w"][..], "the disks xvda and xvda have one number, 51712"),
        (&["--disk", "/a,raw,xvdc,w", "--disk", ",hdc:cdrom,r"], "xvdc and hdc have one place"),
        (&["--disk", "/a,raw,xvda,r"], "no read-only IDE disks"),
        (&["--disk", "/a,raw,xvde,w,backendtype=tap"], "disk xvde: backendtype=tap needs tapdisk"),
        (&["--vif", "devid=1", "--vif", "devid=1"], "the network cards 1 and 2 have one devid 1"),
        (&["--vif", "mac=00:16:3e:00:00:01", "--vif", "mac=00-16-3e-00-00-01"], "one MAC 00:16:3e:00:00:01"),
        (&["--vif", "vifname=web-interface"], "at most 11 bytes"),
    ] {
        let message = message(flags);
        assert!(message.contains(expected), "{flags:?}: {message}");
    }
    let files = Files::new();
    let kernel = text(&files.path("hvmloader"));
    let start = ["create", "--name", "web", "--memory", "256", "--kernel", &kernel];
    for (flags, expected) in [
        (["--disk", ",hdc:cdrom,r"], "only HVM guests can have an empty CD drive"),
        (["--vif", "type=ioemu"], "network card 1: type=ioemu is for HVM guests"),
        (["--vif", "model=e1000"], "network card 1: model is for HVM guests"),
    ] {
        let arguments: Vec<&str> = start.iter().chain(pvh).chain(&flags).copied().collect();
        let error = refused(&arguments, 3, "bad-config");
        let message = error["message"].as_str().expect("text");
        assert!(message.contains(expected), "{flags:?}: {message}");
    }
}

/// What is right comes as far as the next thing that is wrong: the file.
#[test]
fn devices_that_are_right_are_taken() {
    let files = Files::new();
    let no_loader = with(&files.create(), "--hvmloader", "/nowhere/hvmloader");
    let flags = ["--disk", "/a,raw,xvda,w", "--disk=,hdc:cdrom,r", "--vif", "", "--vif", "bridge=br1,type=vif"];
    let arguments: Vec<String> = no_loader.into_iter().chain(flags.map(str::to_owned)).collect();
    let error = refused(&arguments, 3, "bad-kernel");
    assert!(error["message"].as_str().expect("text").contains("/nowhere/hvmloader"), "{error}");
    // A disk that QEMU does not emulate is no error, and is not taken without a word.
    let ran = run(&[arguments.as_slice(), &["--disk".to_owned(), "/b,raw,xvde,w".to_owned()]].concat());
    assert!(ran.stderr.contains("disk xvde: only the guest's Xen drivers see it"), "{ran:?}");
}

/// What comes to a guest that exists is read like what it is created with, before Xen is touched.
#[test]
fn attach_and_detach_read_their_device_first() {
    for (arguments, expected) in [
        (&["attach", "vif", "web", "mac=00:16:3e:00:00"][..], "vif \"mac=00:16:3e:00:00\", column 5: mac is"),
        (&["attach", "disk", "web", ""], "disk \"\", column 1: there is no vdev"),
        (&["attach", "disk", "web", "/a,raw,xvda,w\x1b[m"], "is a control character"),
        (&["detach", "disk", "web", "vda"], "disk \"vda\", column 1: vdev is \"vda\"; it takes xvda"),
        (&["detach", "vif", "web", "99999999999"], "\"99999999999\" is no number of a network card"),
        (&["detach", "vtpm", "web", "tpm"], "\"tpm\" is no number of a virtual TPM"),
        (&["detach", "pvcalls", "web", "x"], "\"x\" is no number of PV calls"),
        (&["detach", "vif", "web", "eth0"], "vif \"eth0\", column 1: mac is"),
        (&["detach", "vif", "web", "\x1b[31m"], "mac is \"\\u{1b}[31m\""),
    ] {
        let error = refused(arguments, 3, "bad-config");
        assert_eq!(error["stage"], "check-input", "{error}");
        let message = error["message"].as_str().expect("text");
        assert!(message.contains(expected), "{arguments:?}: {message}");
        assert!(!message.contains(['\n', '\x1b']), "shown as it is: {message:?}");
    }
}

#[test]
fn only_create_has_them() {
    for verb in ["plan --memory 256", "build --domid 7 --memory 256"] {
        for flag in ["--disk /a,raw,xvda,w", "--vif bridge=xenbr0"] {
            assert_eq!(line(&format!("{verb} {flag}")).exit, 2, "{verb} {flag}");
        }
    }
}
