//! What stands below the options in the help of the program and of each verb.

/// What a size looks like, for every verb that takes one.
macro_rules! sizes {
    () => {
        "Sizes take KiB MiB GiB TiB or K M G T (powers of 1024); a bare number is MiB."
    };
}

pub(super) const AFTER_HELP: &str = concat!(
    sizes!(),
    "
--debug, or RUST_LOG=dombuild=debug, logs every call to Xen with its arguments.

Examples:
  dombuild plan --memory 1GiB --vcpus 2
  dombuild inspect web
  dombuild balloon web 3GiB
  dombuild create --name web --memory 2GiB --maxmem 4GiB --vcpus 2 \\
                  --dm-arg -cdrom --dm-arg /srv/debian.iso
  dombuild destroy web

Exit codes:
  0 done                        5 Xen is absent or refused
  1 internal, or QEMU died      6 xenstore
  2 usage                       7 a domain was left behind
  3 bad input                   8 timed out waiting
  4 not enough memory           130, 143 after SIGINT, SIGTERM"
);

pub(super) const AFTER_PLAN: &str = concat!(
    sizes!(),
    "

Examples:
  dombuild plan --memory 1GiB --vcpus 2
  dombuild plan --memory 4GiB --maxmem 6GiB --json
  dombuild plan --memory 4GiB --maxmem 6GiB --svg -
  dombuild plan --memory 4GiB --pci 03:00.0
  dombuild plan --memory 4GiB --vcpus 2 \\
                --vnode pnode=0,size=2GiB,vcpus=0 \\
                --vnode pnode=1,size=2GiB,vcpus=1

Exit codes:
  0 done   2 usage   3 these numbers make no guest, or the file cannot be written"
);

pub(super) const AFTER_CHECK: &str = "\
The language is xl's. Where xl drops a value or ignores a word in silence, check
says so, with line, column and a mark. It does not look at files, disks and
bridges that the configuration names.

A saved guest is known by the first bytes of its file. check says what is in it
and how large each part is, once all records are found whole. Damage is shown
with its offset and the name of the record.

Examples:
  dombuild check /etc/xen/web.cfg
  dombuild check /etc/xen/web.cfg memory=2048 --strict
  dombuild check /etc/xen/web.cfg --json
  dombuild check /etc/xen/web.cfg --libxl-json
  dombuild check /srv/web.saved

Exit codes:
  0 done, perhaps with warnings   2 usage   3 the file cannot be used";

pub(super) const AFTER_CREATE: &str = concat!(
    sizes!(),
    "

Examples:
  dombuild create --name web --memory 2GiB --vcpus 2 \\
                  --dm-arg -cdrom --dm-arg /srv/debian.iso
  dombuild create --name web --memory 2GiB --maxmem 4GiB \\
                  --firmware ovmf --paused
  dombuild create --name web --memory 2GiB --disk /dev/vg/web,raw,xvda,w \\
                  --disk format=qcow2,vdev=xvdb,target=/srv/b.qcow2 --vif ''
  dombuild create --name test --memory 128 --device-model none --foreground
  dombuild create --name big --memory 16GiB --nodes 0,1 --placement strict
  dombuild create --name web --memory 4GiB --pci 03:00.0,03:00.1 \\
                  --smbios-passthrough --paused
  dombuild create --name fast --kind pvh --memory 1GiB \\
                  --kernel /srv/vmlinuz --ramdisk /srv/initrd
  dombuild create --name web --kind pvh --memory 1GiB \\
                  --disk /dev/vg/web,raw,xvda,w --bootloader pygrub

Exit codes:
  0 done                        5 Xen is absent or refused
  1 internal, or QEMU died      6 xenstore
  2 usage                       7 the domain was left behind
  3 bad input, or name taken    8 timed out waiting
  4 not enough memory           130, 143 after SIGINT, SIGTERM
create removes the domain after every failure except 7."
);

pub(super) const AFTER_RUN: &str = "\
Examples:
  dombuild run /etc/xen/web.cfg
  dombuild run web.cfg memory=2048 --on-crash restart
  dombuild run web.cfg --adopt -- --device-model-root

Signals:
  SIGTERM, SIGINT    shut the guest down, then end; twice: destroy it
  SIGHUP             read the file again before the next start
  SIGUSR1            end, and leave the guest running

If a guest of this name runs that dombuild made, run looks after that one.

Exit codes:
  0 done: the guest has ended         5 Xen is absent or refused
  1 internal, or it restarts too often
  2 usage                             6 xenstore
  3 bad input, or name taken          7 the domain was left behind
  4 not enough memory                 8 timed out waiting
  130, 143 after SIGINT, SIGTERM while it starts";

pub(super) const AFTER_BUILD: &str = concat!(
    sizes!(),
    "

Examples:
  dombuild build --domid 7 --memory 2GiB --vcpus 2
  dombuild build --domid 7 --memory 2GiB --vcpus 2 \\
                 --store-port 1 --console-port 2 --json

Exit codes:
  0 done                        4 not enough memory
  1 internal                    5 Xen is absent or refused
  2 usage                       6 xenstore
  3 bad input or domain         130, 143 after SIGINT, SIGTERM
build never destroys the domain."
);

pub(super) const AFTER_INSPECT: &str = "\
Examples:
  dombuild inspect web
  dombuild inspect 7 --watch
  dombuild inspect 7 --svg memory.svg
  dombuild inspect 7 --nodes
  dombuild inspect 7 --json

Exit codes:
  0 done             3 no such domain    6 xenstore
  2 usage            5 Xen refused";

pub(super) const AFTER_BALLOON: &str = concat!(
    sizes!(),
    "

Examples:
  dombuild balloon web 1GiB
  dombuild balloon 7 512 --timeout 10 --json

Exit codes:
  0 done: it is there                 5 Xen refused
  2 usage                             6 xenstore
  3 no such guest, or no such size    8 timed out waiting
  4 the host lacks the memory         130, 143 after SIGINT, SIGTERM"
);

pub(super) const AFTER_ATTACH: &str = "\
Examples:
  dombuild attach disk web /srv/b.img,raw,xvdb,w
  dombuild attach vif web bridge=xenbr0 --timeout 10 --json

Exit codes:
  0 done: the guest has connected it    5 Xen refused
  1 a script or a backend failed        6 xenstore
  2 usage                               7 the device was left behind
  3 no such guest, or a bad device      8 timed out waiting
  130, 143 after SIGINT, SIGTERM
attach takes the device away again after every failure except 7.";

pub(super) const AFTER_DETACH: &str = "\
Examples:
  dombuild detach disk web xvdb
  dombuild detach vif web 00:16:3e:12:34:56 --timeout 10
  dombuild detach disk 7 51728 --force

Exit codes:
  0 done                             6 xenstore
  1 internal                         7 the device was left behind
  2 usage                            8 the guest has not released it
  3 no such guest, or no such device
  5 Xen refused                      130, 143 after SIGINT, SIGTERM";

pub(super) const AFTER_INSERT: &str = "\
Examples:
  dombuild insert web hdc /srv/iso/driver.iso
  dombuild insert web hdc /dev/sr0 --timeout 60

Exit codes:
  0 done                             5 Xen refused
  1 internal, or QEMU refused it     6 xenstore
  2 usage                            8 the guest has locked the drive
  3 no such guest, drive or image    130, 143 after SIGINT, SIGTERM";

pub(super) const AFTER_EJECT: &str = "\
Examples:
  dombuild eject web hdc
  dombuild eject web hdc --force

Exit codes:
  0 done                             5 Xen refused
  1 internal, or QEMU refused it     6 xenstore
  2 usage                            8 the guest has locked the drive
  3 no such guest, or no such drive  130, 143 after SIGINT, SIGTERM";

pub(super) const AFTER_SAVE: &str = "\
The file has another name in its folder until it is complete and
on the disk. Then the guest is destroyed. After every failure but 7 the guest
runs on, and there is no file. docs/migration.md says what a file has.

Examples:
  dombuild save web /srv/web.saved
  dombuild save web /srv/web.saved --checkpoint
  dombuild restore /srv/web.saved

Exit codes:
  0 done                               5 Xen refused
  1 internal, or QEMU                  6 xenstore
  2 usage                              7 the guest stays suspended, or was not
  3 no such guest, or it cannot be       destroyed
    saved; no room, or a file there    8 timed out waiting
  130, 143 after SIGINT, SIGTERM";

pub(super) const AFTER_RESTORE: &str = concat!(
    sizes!(),
    "

The file is looked through before Xen is touched. What its configuration has and
dombuild cannot give the guest is refused by name. The file stays.

Examples:
  dombuild restore /srv/web.saved
  dombuild restore /srv/web.saved --dry-run --json

Exit codes:
  0 done                          5 Xen is absent or refused
  1 internal, or QEMU died        6 xenstore
  2 usage                         7 the domain was left behind
  3 bad file, or name taken       8 timed out waiting
  4 not enough memory             130, 143 after SIGINT, SIGTERM
restore removes the domain after every failure except 7."
);

pub(super) const AFTER_MIGRATE: &str = "\
The guest runs while its memory is sent in rounds, and is suspended for the
last. Until the other side has it, every failure lets it run on here. It is
destroyed here once the other side says that it runs there. The other side may
be xl: --receiver 'xl migrate-receive' sends to it, and
  xl migrate -s '' GUEST 'ssh HOST dombuild migrate-receive'
sends from it. Disks are not sent: both hosts must reach the same images.
docs/migration.md has the details.

Examples:
  dombuild migrate web other-host
  dombuild migrate web other-host --max-downtime 300 --at-limit give-up
  dombuild migrate web other-host --no-live

Exit codes:
  0 done                               5 Xen refused
  1 internal, QEMU, or the other       6 xenstore
    side failed                        7 the guest stays suspended here, or was
  2 usage                                not destroyed
  3 no such guest, or it cannot move   8 timed out
  130, 143 after SIGINT, SIGTERM";

pub(super) const AFTER_MIGRATE_RECEIVE: &str = concat!(
    sizes!(),
    "

The program at the other end of standard input and output is `dombuild migrate`
or `xl migrate`. The guest is NAME--incoming until it may start; if the
connection ends before, it is removed. Messages go to standard error.

Examples:
  dombuild migrate-receive --paused

Exit codes:
  0 done, the guest runs here     5 Xen is absent or refused
  1 internal, QEMU died, or the   6 xenstore
    other side ended              7 the domain was left behind
  2 usage                         8 timed out waiting
  3 the guest cannot run here     130, 143 after SIGINT, SIGTERM
  4 not enough memory"
);

pub(super) const AFTER_RESUME: &str = "\
For a guest of a migration whose end is not known (NAME--migratedaway). Make
sure that it does not run on the other host first: two copies destroy each
other's disks.

Examples:
  dombuild resume web--migratedaway

Exit codes:
  0 done                               5 Xen refused
  1 internal, or QEMU                  6 xenstore
  2 usage                              7 the guest stays suspended
  3 no such guest, or not suspended";

pub(super) const AFTER_DESTROY: &str = "\
Examples:
  dombuild destroy web
  dombuild destroy --force 7

Exit codes:
  0 done                            5 Xen is absent or refused
  1 internal                        6 xenstore
  2 usage                           7 the domain was left behind
  3 no such domain, or another's";

pub(super) const AFTER_CLEANUP: &str = "\
A run that ends by itself, or by SIGINT or SIGTERM, leaves nothing. A run that
is killed (SIGKILL, OOM killer) leaves its record in /run/dombuild. The record
names its domain, its QEMU, its keys in xenstore and its claim on memory.
cleanup does not touch complete guests, guests of live runs and guests of other
toolstacks.

Examples:
  dombuild cleanup
  dombuild cleanup --apply --json

Exit codes:
  0 done, or nothing to do          5 Xen is absent or refused
  1 internal                        6 xenstore
  2 usage                           7 something could not be removed
  8 another cleanup runs";

pub(super) const AFTER_PCI: &str = "\
An assignable device is with dom0's driver pciback and in Xen's quarantine, from
where its DMA reaches no memory. xl sees the same devices.

Examples:
  dombuild pci list --all
  dombuild pci assign 03:00.0
  dombuild create --name web --memory 1GiB --pci 03:00.0
  dombuild pci release 03:00.0

Exit codes:
  0 done   1 the kernel refuses it   2 usage   3 no such device, or it is in use
  5 Xen is absent or refused   6 xenstore   130 Ctrl-C   143 SIGTERM";

pub(super) const AFTER_LIST: &str = "\
The plan is the one that the domain was built by, or else the one that fits its
keys in xenstore best; a guest that was resized differs from it.

Examples:
  dombuild list
  dombuild list --json
  dombuild list --devices web

Exit codes:
  0 done   2 usage   3 no such guest   5 Xen is absent or refused   6 xenstore";

pub(super) const AFTER_FEATURES: &str = "\
Examples:
  dombuild features
  dombuild features --json

Exit codes:
  0 done, whatever is missing   2 usage";

pub(super) const AFTER_XENGUEST: &str = "\
Options have one dash or two: -mode hvm_build|pvh_build|linux_build -domid N -image PATH -mem_max_mib N -mem_start_mib N
-store_port N -console_port N [-store_domid N] [-console_domid N] [-controloutfd FD] [-controlinfd FD] [-cmdline TEXT]
[-module PATH [-cmdline TEXT]]... [-ramdisk PATH] [-features TEXT] [-flags N] [-pci_passthrough SBDF,...] [-vgpu]
[-mem_pnode NODE] [-force] [-debug] [-debuglog FILE]; -supports FEATURE.
Migration: -mode save|hvm_save|restore|hvm_restore -domid N -fd FD [-live], resume_slow -domid N, and listen -domid N for
emu-manager. With --fallback PATH, the original helper there does it instead.

One line is answered: result:STORE CONSOLE[ ABI], or error:WORD ERRNO MESSAGE. docs/toolstack.md has the contract.

Examples:
  dombuild xenguest -mode hvm_build -domid 7 \\
                    -image /usr/lib/xen-4.17/boot/hvmloader \\
                    -mem_max_mib 1008 -mem_start_mib 1008 \\
                    -store_port 1 -console_port 2

Exit codes:
  0 done   1 anything else; there is no 2 usage here";
