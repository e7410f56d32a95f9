//! Tables of arguments.

use super::*;

fn needs(line: &str) -> Needs {
    Needs::of(&line.split(' ').map(str::to_owned).collect::<Vec<_>>())
}

#[test]
fn what_stays_on_this_host_needs_no_network() {
    for line in [
        "-cdrom /srv/debian.iso",
        "-hda a/b:c",
        "-hda /a:b",
        "-drive file=/srv/a.qcow2,format=qcow2,if=ide,media=disk,aio=native,cache=none",
        "--drive file.driver=host_device,file.filename=/dev/vg/a,driver=raw,if=none,id=x",
        "-drive file=nbd:unix:/run/nbd.sock",
        "-hda nbd+unix:///a?socket=/run/nbd.sock",
        r#"-blockdev {"driver":"qcow2","node-name":"a","file":{"driver":"file","filename":"/srv/a"}}"#,
        "-blockdev driver=raw,node-name=a,file.driver=file,file.filename=/srv/a",
        "-device virtio-blk-pci,drive=x -device usb-tablet -device {\"driver\":\"e1000\"}",
        "-usb -usbdevice tablet -vga none -vnc none -display none -k de",
        "-vnc unix:/run/vnc,password=on",
        "-spice unix=on,addr=/run/spice,disable-ticketing=on",
        "-net none -net nic,model=e1000 -nic none -netdev hubport,id=a,hubid=0",
        "-netdev stream,id=a,server=on,addr.type=unix,addr.path=/run/net",
        "-serial pty -serial none -serial null -serial /dev/ttyS0 -serial file:/tmp/x -serial unix:/run/s,server,nowait",
        "-monitor unix:/run/m,server,nowait -qmp mon:stdio -parallel chardev:x -debugcon vc:80Cx24C -gdb none",
        "-chardev socket,id=a,path=/run/a,server=on,wait=off -mon chardev=a -chardev pty,id=b -chardev ringbuf,id=c",
        "-object iothread,id=a -object {\"qom-type\":\"rng-random\",\"id\":\"b\"} -object memory-backend-ram,id=c,size=1M",
        "-audiodev none,id=a -audiodev driver=wav,id=b,path=/tmp/x -incoming unix:/run/in",
        "-S -name x -smbios type=1 -rtc base=utc -boot order=d -kernel /srv/vmlinuz -initrd /srv/initrd -append quiet",
    ] {
        assert_eq!(needs(line), Needs::default(), "{line}");
    }
}

#[test]
fn what_goes_beyond_it_or_is_not_known_needs_the_network() {
    for line in [
        "-vnc :0",
        "-vnc 127.0.0.1:0,to=99",
        "-vnc unix:/run/vnc,websocket=5700",
        "-vnc 127.0.0.1:1,reverse=on",
        "-vnc",
        "-spice port=5900",
        "-spice unix=on,addr=/run/spice,tls-port=5901",
        "-display vnc=:0",
        "-display gtk",
        "-netdev user,id=a",
        "-netdev tap,id=a,ifname=tap0,script=no,downscript=no",
        "-netdev bridge,id=a",
        "-netdev socket,id=a,listen=:1234",
        "-netdev stream,id=a,addr.type=inet,addr.host=a,addr.port=1",
        "-netdev stream,id=a,addr.type=unix,addr.path=a,addr.abstract=on",
        r#"-netdev {"type":"user","id":"a"}"#,
        "-nic user",
        "-net nic,netdev=a",
        "-net user",
        "-serial tcp::4444,server",
        "-serial udp::4444@:4445",
        "-serial telnet:localhost:4444",
        "-monitor mon:websocket:0.0.0.0:1,server",
        "-qmp tcp:localhost:4444",
        "-gdb tcp::1234",
        "-serial braille",
        "-s",
        "--s",
        "-chardev socket,id=a,host=localhost,port=4444",
        "-chardev socket,id=a,fd=3",
        "-chardev socket,id=a,path=a,abstract=on",
        "-chardev backend=udp,id=a,port=1",
        "-chardev dbus,id=a",
        "-incoming tcp:0:4444",
        "-incoming defer",
        "-cdrom http://example.org/a.iso",
        "-hda nbd://10.0.0.1/a",
        "-hda nbd:localhost:10809",
        "-drive file=iscsi://10.0.0.1/iqn/0,format=raw",
        "-drive file=rbd:pool/image",
        "-drive file=ssh://a/b",
        "-drive file=json:{}",
        "-drive driver=nbd,host=localhost",
        "-drive file=/srv/a,backing.file.driver=https",
        r#"-blockdev {"driver":"qcow2","file":{"driver":"nbd","server":{"type":"inet"}}}"#,
        r#"-blockdev {"driver":"raw","file":{"driver":"file","filename":"/a"},"children":[{"driver":"gluster"}]}"#,
        "-device usb-host,hostbus=1",
        "-device {",
        "-object can-host-socketcan,id=a",
        "-object",
        "-audiodev pa,id=a,server=10.0.0.1",
        "-readconfig /etc/qemu.conf",
        "-set drive.a.file=nbd:localhost:1",
        "-an-option-of-tomorrow",
        // A value that looks like an option may be one.
        "-name -s",
    ] {
        assert!(needs(line).network.is_some(), "{line}");
    }
    assert_eq!(needs("-usb -vnc :1 -s").network.as_deref(), Some("-vnc :1"));
}

#[test]
fn what_starts_programs_is_known() {
    for (line, programs) in [
        ("-netdev tap,id=a", true),
        ("-netdev tap,id=a,script=no", true),
        ("-netdev tap,id=a,script=no,downscript=no", false),
        ("-nic bridge", true),
        ("-netdev user,id=a", false),
        ("-netdev user,id=a,smb=/srv", true),
        ("-netdev user,id=a,guestfwd=tcp:10.0.2.1:1-cmd:cat", true),
        ("-incoming exec:cat", true),
        ("-incoming unix:/run/in", false),
    ] {
        assert_eq!(needs(line).programs.is_some(), programs, "{line}");
    }
}
