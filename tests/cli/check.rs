//! `check`: xl's configuration files, right ones and wrong ones.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use serde_json::{Value, json};

use super::run::{FIRST_CALL, Files, Ran, command, line, refused, run, text};

/// A file of this project.
fn file(name: &str) -> String {
    format!("{}/tests/xl_cfg/{name}", env!("CARGO_MANIFEST_DIR"))
}

/// Runs in the folder of the files, so that messages have their names alone.
fn check(arguments: &[&str]) -> Ran {
    let mut command = command(&[&["check"], arguments].concat());
    Ran::of(command.current_dir(format!("{}/tests/xl_cfg", env!("CARGO_MANIFEST_DIR"))))
}

/// The message of an error on stderr.
fn message(ran: &Ran) -> &str {
    assert_eq!((ran.exit, ran.stdout.as_str()), (3, ""), "{ran:?}");
    ran.stderr.strip_prefix("dombuild: ").expect("the program's name")
}

fn keys(ran: &Ran) -> Vec<Value> {
    ran.json()["keys"].as_array().expect("a list").clone()
}

fn key<'a>(keys: &'a [Value], name: &str) -> &'a Value {
    keys.iter().find(|key| key["key"] == name).unwrap_or_else(|| panic!("no {name} in {keys:?}"))
}

#[test]
fn a_right_file() {
    let ran = check(&["web.cfg"]);
    assert_eq!((ran.exit, ran.stderr.as_str()), (0, ""), "{ran:?}");
    let table = "\
web.cfg: a PVH guest

  line  key        value                                   becomes
     2  name       \"web\"                                   --name=web
     3  type       \"pvh\"                                   checked
     4  uuid       \"8d1c4f5e-2b7a-4c39-9d60-31c6f2aa7e10\"  --uuid=8d1c4f5e-2b7a-4c39-9d60-31c6...
     5  kernel     \"/srv/web/vmlinuz\"                      --kernel=/srv/web/vmlinuz
     6  ramdisk    \"/srv/web/initrd.img\"                   --ramdisk=/srv/web/initrd.img
     8  extra      \"root=/dev/xvda1 console=hvc0\"          --cmdline=root=/dev/xvda1 console=hvc0
     9  memory     1024                                    --memory=1024MiB
    10  maxmem     2048                                    --maxmem=2048MiB
    11  vcpus      2                                       --vcpus=2
    12  disk       [2 values]                              --disk=format=raw, vdev=xvda, acces...
    16  vif        [2 values]                              --vif=bridge=xenbr0,mac=00:16:3e:0a...
    17  on_crash   \"preserve\"                              read by run
    17  on_reboot  \"restart\"                               read by run

PVH guest of 1024 MiB that may grow to 2048 MiB, with 2 vCPUs (libxl)
";
    assert!(ran.stdout.starts_with(table), "{}", ran.stdout);
    // The plan is the one of the same flags.
    let plan = line("plan --kind pvh --model libxl --memory 1024 --maxmem 2048 --vcpus 2");
    assert!(ran.stdout.ends_with(&plan.stdout), "{}", ran.stdout);

    let ran = check(&["web.cfg", "--json", "--strict"]);
    let object = ran.json();
    let plan = line("plan --kind pvh --model libxl --memory 1024 --maxmem 2048 --vcpus 2 --json").json();
    assert_eq!(
        (&object["schema"], &object["kind"], &object["problems"], &object["plan"]),
        (&json!(1), &json!("pvh"), &json!([]), &plan)
    );
    let keys = keys(&ran);
    let extra = key(&keys, "extra");
    assert_eq!((&extra["line"], &extra["column"], &extra["state"]), (&json!(8), &json!(1), &json!("checked")));
    assert_eq!(extra["value"], "root=/dev/xvda1 console=hvc0");
    assert_eq!(extra["flags"], json!(["--cmdline=root=/dev/xvda1 console=hvc0"]));
    assert_eq!(object["flags"][0], "--kind=pvh");
    assert_eq!(extra["refused_by_create"], Value::Null);
    assert_eq!(key(&keys, "disk")["value"][1], "phy:/dev/vg/data,xvdb,w");
}

#[test]
fn an_old_file_has_warnings_where_xl_is_silent() {
    let ran = check(&["old.cfg"]);
    assert_eq!((ran.exit, ran.stderr.as_str()), (0, ""), "{ran:?}");
    let warnings = "\
old.cfg:2:10: warning: xl ignores a kernel that is hvmloader: leave it out, or give firmware_override
    kernel = '/usr/lib/xen/boot/hvmloader'
             ^~~~~~~~~~~~~~~~~~~~~~~~~~~~~
old.cfg:3:1: warning: builder is an old key: the present one is type
    builder = 'hvm'
    ^~~~~~~
old.cfg:6:1: warning: xl has no key vcpu, and ignores it; did you mean vcpus?
    vcpu = 2
    ^~~~
old.cfg:7:1: warning: nic was a key of xend; xl ignores it
    nic = 1
    ^~~
old.cfg:10:1: warning: device_model has no effect: xl ignores it, too
    device_model = 'qemu-dm'
    ^~~~~~~~~~~~
old.cfg:10:1: warning: device_model is an old key: the present one is device_model_override
    device_model = 'qemu-dm'
    ^~~~~~~~~~~~
old.cfg:12:1: warning: boot is set twice: line 12 counts, line 11 does not
    boot = 'c'
    ^~~~
old.cfg:14:13: warning: vnclisten is empty: QEMU may listen on every address then; give 127.0.0.1, 0.0.0.0 or another one
    vnclisten = ''
                ^~
old.cfg:16:12: warning: tsc_mode = 0 is an old form: write \"default\"
    tsc_mode = 0
               ^
old.cfg:18:14: warning: cpu_weight = 0400 is octal, because it begins with 0: it counts as 256
    cpu_weight = 0400
                 ^~~~
old.cfg:19:1: warning: stdvga is an old key: the present one is vga
    stdvga = 1
    ^~~~~~
old.cfg:20:1: warning: e820_host is for PV guests, and this is an HVM guest: it has no effect
    e820_host = 1
    ^~~~~~~~~
";
    assert!(ran.stdout.contains(warnings), "{}", ran.stdout);
    assert!(ran.stdout.starts_with("old.cfg: an HVM guest, with 12 warnings\n"), "{}", ran.stdout);
    // stdvga has 16 MiB.
    let plan = line("plan --model libxl --memory 512 --video 16");
    assert!(ran.stdout.ends_with(&plan.stdout), "{}", ran.stdout);
    assert!(!ran.stdout.contains("secret"), "{}", ran.stdout);
    let keys = keys(&check(&["old.cfg", "--json"]));
    assert!(key(&keys, "vncpasswd")["value"].is_null() && key(&keys, "vcpu")["meaning"].is_null());

    let strict = check(&["old.cfg", "--strict"]);
    let message = message(&strict);
    assert!(message.starts_with("old.cfg: 2 errors and 10 warnings\n"), "{message}");
    assert!(message.contains("\nold.cfg:6:1: error: xl has no key vcpu"), "{message}");
}

#[test]
fn a_wrong_file_has_every_error_with_its_place() {
    let ran = check(&["wrong.cfg"]);
    let expected = "\
wrong.cfg: 9 errors
wrong.cfg:1:8: error: name: '/' cannot be part of a name; printable characters other than / can
    name = \"a/b\"
           ^~~~~
wrong.cfg:4:10: error: memory is \"lots\"; it takes a whole number from 1 to 16777214
    memory = \"lots\"
             ^~~~~~
wrong.cfg:5:9: error: vcpus is 0; it takes a whole number from 1 to 128
    vcpus = 0
            ^
wrong.cfg:6:10: error: maxmem takes a whole number from 1 to 16777214; this is a list
    maxmem = [ 512 ]
             ^~~~~~~
wrong.cfg:7:12: error: on_crash is \"explode\"; it takes destroy, restart, rename-restart, preserve, coredump-destroy, coredump-restart or soft-reset
    on_crash = \"explode\"
               ^~~~~~~~~
wrong.cfg:8:8: error: disk takes a list of texts; this is a text: put it into [ ]
    disk = 'phy:/dev/vg/a,xvda,w'
           ^~~~~~~~~~~~~~~~~~~~~~
wrong.cfg:9:31: error: vif: mac is \"00:16:3e:00:00:zz\"; it takes six pairs of hexadecimal digits, such as 00:16:3e:12:34:56
    vif = [ 'bridge=xenbr0', 'mac=00:16:3e:00:00:zz' ]
                                  ^~~~~~~~~~~~~~~~~
wrong.cfg:10:7: error: hap = 0 asks for shadow paging, and dombuild builds under HAP only
    hap = 0
          ^
wrong.cfg:11:1: error: tee cannot be used: it is for Arm, and dombuild builds guests on x86; xl ignores it there
    tee = \"optee\"
    ^~~
";
    assert_eq!(message(&ran), expected);

    let error = refused(&["check", &file("wrong.cfg")], 3, "bad-config");
    let problems = error["problems"].as_array().expect("a list");
    assert_eq!(problems.len(), 9, "{error}");
    assert_eq!(
        (&problems[6]["line"], &problems[6]["column"], &problems[6]["severity"]),
        (&json!(9), &json!(31), &json!("error"))
    );
    assert_eq!((&error["stage"], &problems[0]["source"]), (&json!("check-input"), &json!(file("wrong.cfg"))));
}

#[test]
fn a_python_program_is_called_one() {
    let expected = "\
program.cfg: 5 errors
program.cfg:1:1: error: import is no key; this looks like Python, which neither xl nor dombuild runs: write plain values
    import os
    ^~~~~~
program.cfg:2:17: error: \"%\" is no value; this looks like Python, which neither xl nor dombuild runs: write plain values
    name = \"web-%d\" % 7
                    ^
program.cfg:3:10: error: \"(512)\" is no value; this looks like Python, which neither xl nor dombuild runs: write plain values
    memory = (512)
             ^~~~~
program.cfg:4:34: error: a list goes on in the next line without a backslash, and nothing else does: leave it out
    disk = [ 'phy:/dev/vg/a,xvda,w', \\
                                     ^
program.cfg:6:13: error: True is Python: write 1
    nographic = True
                ^~~~
";
    assert_eq!(message(&check(&["program.cfg"])), expected);
}

#[test]
fn arguments_are_read_after_the_file() {
    let ran = check(&["web.cfg", "memory=512", "maxmem=512", "extra=\"single\"", "--json"]);
    let keys = keys(&ran);
    assert_eq!(ran.json()["problems"], json!([]), "an argument is there to replace what the file says");
    assert_eq!(
        (&key(&keys, "memory")["value"], &key(&keys, "memory")["source"]),
        (&json!("512"), &json!("argument 1"))
    );
    assert_eq!(
        (&key(&keys, "extra")["value"], &ran.json()["plan"]["target_kib"]),
        (&json!("single"), &json!(512 << 10))
    );
    assert_eq!(
        key(&self::keys(&check(&["web.cfg", "extra+=' quiet'", "--json"])), "extra")["value"],
        "root=/dev/xvda1 console=hvc0 quiet"
    );

    let ran = check(&["web.cfg", "vcpus=2", "memory=much"]);
    let expected = "web.cfg: 1 error\nargument 2:1:8: error: much stands here without quotes; a value is a text in quotes, a number or a \
        list in [ ]\n    memory=much\n           ^~~~\n";
    assert_eq!(message(&ran), expected);
    for (argument, words) in
        [("vcpus=3", "argument 1:1:7: error: vcpus is 3, and maxvcpus is 2"), ("name", "argument 1:1:5")]
    {
        let ran = check(&["web.cfg", argument, "maxvcpus=2"]);
        assert!(message(&ran).contains(words), "{ran:?}");
    }
    let ran = check(&["/dev/null", "name='x'", "kernel='/k'", "memory=64", "memory=65"]);
    assert!(
        ran.exit == 0 && ran.stdout.contains("memory is set twice: argument 4 counts, argument 3 does not"),
        "{ran:?}"
    );
}

/// Each pair: lines behind a name, a kernel and memory, and what is said of them.
#[test]
fn what_xl_misreads_is_said() {
    let files = Files::new();
    let mut missed = Vec::new();
    for (lines, words) in [
        ("disk=['/a,xvda,w']", ":1:11: error: disk: format is \"xvda\""),
        ("disk=['\\t/a,raw,xvda,rw,x']", ":1:25: error: disk: \"x\" is one word too many"),
        ("disk=['phy:/a,xvda,w','phy:/b,xvda,w']", ":1:23: error: the disks xvda and xvda have one number"),
        ("disk=['phy:/a,xvda']\ndisk+=['phy:/b,xvdz9999']", ":2:16: error: disk: vdev is \"xvdz9999\""),
        ("disk=['phy:/a']", ":1:13: error: disk: there is no vdev"),
        ("disk=[['phy:/a,xvda']]", ":1:7: error: disk has a list in its list"),
        ("vif=['type=ioemu']", ":1:6: error: network card 1: type=ioemu is for HVM guests"),
        ("vif=['','brigde=x']", ":1:10: error: vif: \"brigde\" is unknown"),
        ("vif=['rate=10MB']", ":1:12: error: vif: rate"),
        ("p9=['tag=a']", ":1:10: error: p9: there is no path"),
        ("channel=['name=a,connection=tcp']", ":1:29: error: channel: connection is \"tcp\""),
        ("vfb=['vnc=1,vncdisplay=x']", ":1:24: error: vfb: vncdisplay is \"x\""),
        ("vfb=['','']", ":1:9: error: vfb has a second framebuffer"),
        ("cpus='0-3,x'", ":1:11: error: cpus: \"x\" is no CPU"),
        ("cpus=['0','3-1']", ":1:12: error: cpus: \"3-1\" is no CPU"),
        ("cpuid='tm=0'", ":1:8: error: cpuid: it begins with \"tm=0\"; the first word is host"),
        ("cpuid='host,sse3=0, tm=0'", ":1:20: error: cpuid: \" tm\" is no CPU feature"),
        ("cpuid='host,tm=2'", ":1:16: error: cpuid: tm is \"2\"; it takes 0, 1, x, k or s"),
        ("cpuid=['1:ecx=01','host,tm=0']", ":1:15: error: cpuid: ecx has 2 bits; it takes 32"),
        ("pci=['01:00.0,permissive=yes']", ":1:26: error: pci: permissive is \"yes\"; it takes 0 or 1"),
        ("usbctrl=['type=qusb, port=1']", ":1:22: error: usbctrl: \"port=1\" is unknown"),
        ("vkb=['unique-id=a']", ":1:7: error: vkb: there is no backend-type"),
        ("vsnd=[['card','pcm, nam=a']]", ":1:21: error: vsnd: \"nam\" is unknown"),
        ("ioports=['2f8-2f7']", ":1:11: error: ioports: \"2f8-2f7\" are no I/O ports"),
        ("irqs=[5,'x']", ":1:10: error: irqs: \"x\" is no interrupt"),
        ("iomem=['a0']", ":1:9: error: iomem: \"a0\" is no I/O memory"),
        ("timer_mode=1", ":1:1: error: timer_mode is not for PV guests"),
        ("type='pvh'\nvnuma=[['size=64','vcpus=0-1']]\nmaxvcpus=3", ":3:10: error: vnuma has 2 vCPUs"),
        ("type='pvh'\nvnuma=[['pnod=1']]", ":2:10: error: vnuma: \"pnod=1\" is unknown"),
        ("type='hvm'\nrdm='strategy=host,policy=strict'", ":2:6: error: rdm is"),
        ("type='hvm'\nmca_caps=['mce']", ":2:12: error: mca_caps: \"mce\" is no capability"),
        ("vcpus='2 '", ":1:7: error: vcpus is \"2 \"; it takes a whole number"),
        ("vcpus=08", ":1:7: error: vcpus is \"08\": a number that begins with 0 is octal"),
        ("vcpus+=2", ":1:8: error: vcpus is a number, and xl reads none that was set by +="),
        ("cap=99999999999999999999", ":1:5: error: cap is 99999999999999999999, which no number of 64 bits is"),
        ("nomigrate='yes'", ":1:11: error: nomigrate is \"yes\"; it takes 1 or 0"),
        ("memory=64\nmaxmem=32", ":1:8: error: the target of 64 MiB is more than the static max of 32 MiB"),
        ("firmware='ovmf'", ":1:10: error: firmware of a PV guest is \"ovmf\""),
        ("uuid='1'", ":1:6: error: uuid is \"1\""),
        ("type='h'", ":1:6: error: type is \"h\"; it takes hvm, pvh or pv"),
        ("type='pv'\nbuilder='hvm'", ":2:9: error: builder says hvm, and type says pv"),
        ("type='hvm'\nextra='x'", ":2:1: error: extra is for a kernel"),
        ("type='hvm'\nviridian=['base','x']", ":2:10: error: viridian: \"x\" is no group"),
        ("type='hvm'\nvideoram=12", ":2:10: error: video RAM of 12 MiB"),
        ("type='hvm'\nboot='cx'", ":2:6: error: boot is \"cx\""),
        ("type='hvm'\nusb=1\nusbversion=2", ":2:1: error: usb and usbversion exclude each other"),
        ("type='hvm'\nvnclisten='localhost'", ":2:11: error: vnclisten: vnclisten is \"localhost\""),
        ("type='hvm'\nvncpasswd='far too long'", ":2:11: error: VNC compares 8 bytes"),
        ("type='hvm'\nbios='rombios'", ":2:6: error: rombios needs"),
        ("extra='\\101'", ":1:7: error: escapes by number"),
        ("seclabel='\u{e9}\u{ff}'\nextra='x\u{1b}[2J'\nvcpus='\u{1b}'", ":3:7: error: vcpus is \"\\u{1b}\""),
    ] {
        let kernel = if lines.contains("'hvm'") || lines.contains("firmware") { "" } else { "kernel='/k'\n" };
        let memory = if lines.contains("memory") { "" } else { "memory=64\n" };
        let path = text(&files.add("x.cfg", format!("{lines}\nname='x'\n{kernel}{memory}").as_bytes()));
        let ran = run(&["check", &path]);
        let message = message(&ran);
        if !message.contains(&format!("\n{path}{words}")) {
            missed.push(format!("{lines}: {message}"));
        }
        assert!(!message.contains("far too long") && !message.contains('\u{1b}'), "{message}");
    }
    assert!(missed.is_empty(), "{}", missed.join("\n"));
    for (lines, words) in [
        ("kernel='/k'", "there is no name"),
        ("name='x'\nmemory=64", "there is no kernel: a PV guest starts with kernel"),
        ("name='x'\ntype='pvh'\nmemory=64\nbootloader=''", ""),
        ("name='x'\ntype='hvm'\nmemory=64\nviridian=[]", ""),
    ] {
        let path = text(&files.add("x.cfg", lines.as_bytes()));
        let ran = run(&["check", &path]);
        if words.is_empty() {
            assert_eq!(ran.exit, 0, "{ran:?}");
        } else {
            assert!(message(&ran).contains(&format!("\n{path}: error: {words}")), "{ran:?}");
        }
    }
}

#[test]
fn a_key_of_a_later_release_has_no_effect_in_an_earlier_one() {
    let ran = check(&["/dev/null", "name='x'", "type='hvm'", "memory=64", "smbios=['bios_vendor=x']", "--json"]);
    let keys = keys(&ran);
    let (state, problem) = (&key(&keys, "smbios")["state"], &ran.json()["problems"][0]["message"]);
    match env!("DOMBUILD_XEN_VERSION") {
        "4.17" => {
            assert_eq!((state, problem), (&json!("ignored"), &json!("smbios is of Xen 4.20: xl 4.17 ignores it")))
        }
        _ => assert_eq!((state, problem), (&json!("read"), &Value::Null)),
    }
}

#[test]
fn editors_of_every_system() {
    let files = Files::new();
    let text_of = "name = 'x'\r\nkernel = '/k' # c\r\nmemory = 64 # \u{fc}\r\n# last line";
    for bytes in [
        text_of.as_bytes().to_vec(),
        format!("\u{feff}{text_of}").into_bytes(),
        text_of.replace("\r\n", "\n").into_bytes(),
    ] {
        let path = text(&files.add("x.cfg", &bytes));
        let ran = run(&["check", &path, "--strict"]);
        assert_eq!((ran.exit, ran.stderr.as_str()), (0, ""), "{ran:?}");
        assert!(ran.stdout.starts_with(&format!("{path}: a PV guest\n")), "{ran:?}");
    }
    // Latin-1 does no harm in a comment, and is an error in a value.
    let comment = text(&files.add("x.cfg", b"name='x' # gr\xfc\xdfe\nkernel='/k'\nmemory=64\n"));
    assert_eq!(run(&["check", &comment]).exit, 0);
    let value = text(&files.add("x.cfg", b"name='gr\xfc\xdfe'\nkernel='/k'\nmemory=64\n"));
    let ran = run(&["check", &value]);
    assert!(message(&ran).contains(":1:9: error: name is not UTF-8 here"), "{ran:?}");
}

#[test]
fn what_is_no_file_is_refused_at_once() {
    let files = Files::new();
    let fifo = files.path("fifo");
    mkfifo(&fifo, Mode::S_IRWXU).expect("a FIFO");
    let socket = files.path("socket");
    let _listener = UnixListener::bind(&socket).expect("a socket");
    let large = files.add("large", &vec![b'\n'; (1 << 20) + 1]);
    let start = Instant::now();
    for (path, words) in [
        (text(&fifo), "no regular file"),
        (text(&socket), "No such device or address"),
        (text(&files.path("")), "no regular file"),
        (text(&files.path("missing")), "No such file"),
        ("/dev/zero".to_owned(), "no regular file"),
        (text(&large), "more than 1048576 bytes"),
    ] {
        let error = refused(&["check", &path], 3, "bad-file");
        let message = error["message"].as_str().expect("text");
        assert!(message.contains(words) && message.contains(&path), "{message}");
    }
    assert!(start.elapsed() < Duration::from_secs(20), "{:?}", start.elapsed());
    fs::write(&large, vec![b'\n'; 1 << 20]).expect("written");
    let ran = run(&["check", &text(&large), "name='x'", "kernel='/k'", "memory=64"]);
    assert_eq!(ran.exit, 0, "{ran:?}");
}

#[test]
fn the_name_of_a_file_and_its_words_do_not_reach_the_terminal() {
    let files = Files::new();
    let path = text(&files.add("\u{1b}[2J.cfg", b"na\x1b[2Jme = 1\nname = \"\x1b]0;x\x07\xe2\x80\xae\" 2\n"));
    for flags in [&[][..], &["--json"]] {
        let ran = run(&[&["check", &path], flags].concat());
        for output in [&ran.stdout, &ran.stderr] {
            assert!(
                !output.contains(
                    |character: char| character != '\n' && (character.is_control() || character == '\u{202e}')
                ),
                "{output:?}"
            );
        }
        assert_eq!(ran.exit, 3, "{ran:?}");
    }
    let odd = OsStr::from_bytes(b"/nonexistent/\xff.cfg");
    refused(&[OsStr::new("check"), odd], 3, "bad-file");
}

#[test]
fn it_needs_no_xen() {
    let ran = Ran::of(command(&["check", &file("web.cfg")]).env("RUST_LOG", "dombuild=debug"));
    assert!(ran.exit == 0 && !ran.stderr.contains(FIRST_CALL), "{ran:?}");
    refused(&["check"], 2, "usage");
    refused(&["check", &file("web.cfg"), "--lax"], 2, "usage");
}

/// The tests in dom0 compare many configurations with xl's own.
#[test]
fn the_configuration_in_libxls_form() {
    let ran = check(&["web.cfg", "--libxl-json", "--xl-conf", "/dev/null", "apic=0"]);
    assert_eq!(ran.exit, 0, "{ran:?}");
    let expected = json!({
        "c_info": {"type": "pvh", "name": "web", "uuid": "8d1c4f5e-2b7a-4c39-9d60-31c6f2aa7e10", "run_hotplug_scripts": "True"},
        "b_info": {
            "max_vcpus": 2, "avail_vcpus": [0, 1], "max_memkb": 2048 << 10, "target_memkb": 1024 << 10, "sched_params": {},
            "claim_mode": "True", "kernel": "/srv/web/vmlinuz", "cmdline": "root=/dev/xvda1 console=hvc0",
            "ramdisk": "/srv/web/initrd.img", "type.pvh": {}, "arch_arm": {}, "arch_x86": {},
        },
        "disks": [
            {"pdev_path": "/srv/web/root.img", "vdev": "xvda", "format": "raw", "readwrite": 1},
            {"pdev_path": "/dev/vg/data", "vdev": "xvdb", "format": "raw", "readwrite": 1},
        ],
        "nics": [{"devid": 0, "mac": "00:16:3e:0a:0b:0c", "bridge": "xenbr0"}, {"devid": 1}],
        "on_reboot": "restart", "on_crash": "preserve", "on_soft_reset": "soft_reset",
    });
    assert_eq!(ran.json(), expected);

    let files = Files::new();
    let conf = text(&files.add("xl.conf", b"vif.default.bridge='br7'\nclaim_mode=0\n"));
    let ran = check(&["web.cfg", "--libxl-json", "--xl-conf", &conf, "cpus='node:0'"]);
    let object = ran.json();
    assert_eq!((&object["nics"][1]["bridge"], &object["b_info"]["claim_mode"]), (&json!("br7"), &json!("False")));
    assert!(object["b_info"].get("vcpu_hard_affinity").is_none(), "{object}");
    assert!(ran.stderr.contains("argument 1:1:6: warning: which CPUs cpus names depends on the host"), "{ran:?}");

    let conf = text(&files.add("wrong.conf", b"claim_mode=yes\n"));
    let ran = check(&["web.cfg", "--libxl-json", "--xl-conf", &conf]);
    assert!(message(&ran).contains("wrong.conf:1:12: error: yes is no value: write 1"), "{ran:?}");
    let ran = check(&["web.cfg", "--libxl-json", "--xl-conf", "/dev/null", "vcpus='x'"]);
    assert!(message(&ran).contains("vcpus is \"x\""), "{ran:?}");
    assert_eq!(check(&["web.cfg", "--xl-conf", "/dev/null"]).exit, 2);
    assert_eq!(check(&["web.cfg", "--libxl-json", "--xl-conf", "/no/such/file"]).exit, 3);
}
