# shellcheck shell=bash
# The dom0 image, made of Debian packages only and kept in a cache. Sourced by tests/nested.sh.
#
#   install_host_packages       installs what the harness and the Rust build need on this machine
#   ensure_image VERSION        sets IMAGE to a folder with these files, and makes them if they are missing:
#     root/      dom0's file system; also the sysroot that dombuild is built against. In it, /srv/guest/vmlinuz and
#                /srv/guest/initrd: a small Linux guest, see guest-init
#     dom0.ext4  the same as a disk image      vmlinuz  dom0's kernel
#     xen        the hypervisor, unpacked      initrd   finds the disk, starts dom0-init from the 9p share

# Packages for the host. libxen-dev is here for its libraries: `cargo test` runs programs that are linked to them.
HOST_PACKAGES=(mmdebstrap libxen-dev libclang-dev clang qemu-system-x86 seabios pkg-config
    gcc libc6-dev e2fsprogs xz-utils zstd ca-certificates debian-archive-keyring)

CACHE=${DOMBUILD_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/dombuild}

install_host_packages() {
    local package missing=()
    mkdir -p "$CACHE"
    # If two runs start at once, the second one finds the packages installed.
    exec {packages_lock}>"$CACHE/packages.lock"
    flock "$packages_lock"
    for package in "${HOST_PACKAGES[@]}"; do
        [[ $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
    done
    if ((!${#missing[@]})); then
        exec {packages_lock}>&-
        return
    fi
    say "installing ${missing[*]}"
    local log
    log=$(mktemp)
    # The package lists may be old (404s) or missing, so a failed installation is repeated with new ones.
    if ! apt_install "${missing[@]}" >"$log" 2>&1; then
        { apt-get update && apt_install "${missing[@]}"; } >>"$log" 2>&1 || {
            cat "$log" >&2
            die "apt-get could not install ${missing[*]}"
        }
    fi
    rm -f "$log"
    exec {packages_lock}>&-
}

apt_install() { DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@"; }

xen_suite() {
    case $1 in
    4.17) echo bookworm ;;
    4.20) echo trixie ;;
    esac
}

# This machine's Debian mirrors, according to apt, as source lines for another suite: a mirror has all suites.
debian_sources() { # SUITE
    local here sources
    # shellcheck source=/dev/null
    here=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
    # $(...) is apt's own format language here
    # shellcheck disable=SC2016
    sources=$(apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' |
        awk -v here="$here" -v suite="$1" '$2 == "main" && sub("^" here, suite, $1) &&
            ($1 == suite || $1 == suite "-security") && !seen[$1]++ { print "deb", $3, $1, "main" }')
    [[ $sources == *" $1 main"* ]] || die "apt has no source for Debian ${here:-?} main: this needs a Debian host with its package sources set up"
    echo "$sources"
}

dom0_packages() {
    local version=$1
    echo "xen-hypervisor-$version-amd64" "xen-utils-$version" xenstore-utils qemu-system-xen seabios ovmf \
        linux-image-amd64 kmod busybox-static libxen-dev strace procps iproute2 mount hostname less qemu-utils
}

# ---- the recipe: the code of the functions from here to image_key, and guest-init, are part of the cache's key ----

make_root() {
    local version=$1 suite=$2 sources=$3 root=$4 proxy='' packages path opts=()
    packages=$(dom0_packages "$version" | tr ' ' ,)
    # No documentation, and only those of the kernel's 4000 modules that dom0 may use: unpacking takes most of the time.
    for path in '/usr/share/doc/*' '/usr/share/man/*' '/usr/share/info/*' '/usr/share/locale/*' '*/lib/modules/*/kernel/*' \
        '*/lib/firmware/*' '/usr/lib/udev/hwdb.d/*'; do
        opts+=(--dpkgopt="path-exclude=$path")
    done
    for path in arch crypto lib fs/9p fs/ext4 fs/jbd2 'fs/mbcache*' fs/fscache fs/netfs fs/nls net/9p net/core net/bridge \
        net/802 net/llc drivers/xen drivers/virtio 'drivers/block/virtio*' 'drivers/block/loop*' drivers/block/xen-blkback \
        'drivers/block/xen-blkfront*' 'drivers/char/virtio*' 'drivers/net/tun*' drivers/net/xen-netback 'drivers/net/xen-netfront*' \
        drivers/cpufreq drivers/pci drivers/net/ethernet/intel/e1000e drivers/ptp drivers/pps; do
        opts+=(--dpkgopt="path-include=*/lib/modules/*/kernel/$path" --dpkgopt="path-include=*/lib/modules/*/kernel/$path/*")
    done
    eval "$(apt-config shell proxy Acquire::http::Proxy)"
    [[ -z $proxy ]] || opts+=(--aptopt="Acquire::http::Proxy \"$proxy\"")
    # INITRD=No: the kernel's postinst makes no initrd (20 s); make_initrd does.
    INITRD=No mmdebstrap --mode=root --variant=apt --include="$packages" --aptopt='APT::Install-Recommends "false"' \
        "${opts[@]}" "$suite" "$root" - <<<"$sources"
}

# Puts modules of the kernel and those that they need into a folder, unpacked for busybox's insmod; prints their files in the
# order in which they are loaded.
unpack_modules() { # ROOT FOLDER MODULE...
    local root=$1 folder=$2 kernel module file name order=''
    shift 2
    kernel=$(ls "$root/usr/lib/modules")
    for module; do
        while read -r _ file _; do
            name=$(basename "${file%.xz}")
            # Some need instructions that the emulated CPU lacks, and insmod would report that.
            [[ $name == *-intel.ko || " $order" == *" $name "* ]] && continue
            order+="$name "
            case $file in
            *.xz) xz -dc "$root$file" ;;
            *) cat "$root$file" ;;
            esac >"$folder/$name"
        done < <(chroot "$root" modprobe -S "$kernel" --show-depends "$module" 2>/dev/null | grep ^insmod)
    done
    echo "$order"
}

# An initrd of busybox and a dozen modules: it boots 13 s faster than Debian's.
make_initrd() {
    local root=$1 initrd=$2 tree order
    tree=$(mktemp -d)
    mkdir -p "$tree"/{bin,dev,proc,sys,modules,root}
    cp "$root/bin/busybox" "$tree/bin/busybox"
    order=$(unpack_modules "$root" "$tree/modules" virtio_pci virtio_blk crc32c_generic ext4 9p 9pnet_virtio virtio_console)
    cat >"$tree/init" <<-INIT
	#!/bin/busybox sh
	/bin/busybox --install -s /bin
	export PATH=/bin
	mount -t proc proc /proc
	mount -t sysfs sys /sys
	mount -t devtmpfs dev /dev
	for m in $order; do insmod /modules/\$m; done
	n=0
	until [ -b /dev/vda ] || [ \$n = 100 ]; do sleep 0.1; n=\$((n + 1)); done
	mount -t ext4 -o noatime /dev/vda /root
	mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=262144,cache=loose job /root/job
	for d in proc sys dev; do mount --move /\$d /root/\$d; done
	exec switch_root /root /job/dom0-init </root/dev/console >/root/dev/console 2>&1
	INIT
    chmod 755 "$tree/init"
    cpio_of "$tree" >"$initrd"
    rm -rf "$tree"
}

cpio_of() { (cd "$1" && find . | bin/busybox cpio -o -H newc 2>/dev/null); }

# The kernel is dom0's own, packed and unpacked. Its initrd has guest-init, the busybox applets that it uses, and the drivers of
# Xen's devices.
make_guest() {
    local root=$1 guest=$1/srv/guest tree sectors offset length applet
    mkdir -p "$guest"
    ln "$root"/boot/vmlinuz-* "$guest/vmlinuz"
    # Linux's boot protocol: setup_sects at 0x1f1, payload_offset and payload_length at 0x248; 4 bytes of length follow the payload
    read -r sectors < <(od -An -tu1 -j 0x1f1 -N 1 "$guest/vmlinuz")
    read -r offset length < <(od -An -tu4 -j 0x248 -N 8 "$guest/vmlinuz")
    head -c "$(((sectors + 1) * 512 + offset + length - 4))" "$guest/vmlinuz" | tail -c "$((length - 4))" >"$guest/payload"
    case $(od -An -tx1 -N 4 "$guest/payload") in
    ' fd 37 7a 58') xz -dc ;;   # Debian 12
    ' 28 b5 2f fd') zstd -dc ;; # Debian 13
    esac <"$guest/payload" >"$guest/vmlinux"
    rm "$guest/payload"
    tree=$(mktemp -d)
    mkdir "$tree"/{bin,dev,proc,sys,modules}
    cp "$root/bin/busybox" "$tree/bin/busybox"
    unpack_modules "$root" "$tree/modules" xen-blkfront xen-netfront 9p 9pnet_xen >"$tree/modules/order"
    unpack_modules "$root" "$tree/modules" xen-pcifront e1000e >"$tree/modules/pci-order"
    for applet in cat dd dmesg head insmod ip md5sum mkdir mount ping poweroff sed seq sleep sync tr; do ln -s busybox "$tree/bin/$applet"; done
    install -m 755 "$NESTED/guest-init" "$tree/init"
    cpio_of "$tree" | gzip >"$guest/initrd"
    rm -rf "$tree"
}

make_image() {
    local version=$1 suite=$2 sources=$3 out=$4
    make_root "$version" "$suite" "$sources" "$out/root"
    mkdir -p "$out/root/job" "$out/root/results"
    rm -rf "$out/root/var/cache/apt" "$out/root/var/lib/apt/lists"
    make_initrd "$out/root" "$out/initrd"
    make_guest "$out/root"
    cp "$out"/root/boot/vmlinuz-* "$out/vmlinuz"
    # QEMU's multiboot loader does not accept a compressed hypervisor.
    gzip -dc "$out/root/boot/xen-$version-amd64.gz" >"$out/xen"
    mke2fs -q -F -t ext4 -O ^has_journal -m 0 -d "$out/root" "$out/dom0.ext4" 2G
}

image_key() { # VERSION SUITE SOURCES
    {
        echo "$@" && dom0_packages "$1" && cat "$NESTED/guest-init" &&
            declare -f make_root unpack_modules make_initrd cpio_of make_guest make_image
    } | sha256sum | cut -c -12
}

ensure_image() {
    local version=$1 suite sources name key log started status
    suite=$(xen_suite "$version")
    sources=$(debian_sources "$suite")
    key=$(image_key "$version" "$suite" "$sources")
    name=dom0-xen-$version-$key
    mkdir -p "$CACHE"
    IMAGE=$CACHE/$name
    # If two runs start at once, the second one waits for the first and finds the image. Closing the descriptor releases the lock.
    exec {image_lock}>"$CACHE/$name.lock"
    if [[ ! -d $IMAGE ]]; then
        flock -n "$image_lock" || { say "another run is making the Xen $version image: waiting for it" && flock "$image_lock"; }
    fi
    if [[ ! -d $IMAGE ]]; then
        say "making the dom0 image for Xen $version from Debian $suite (once; one to two minutes)"
        started=$SECONDS
        rm -rf "$CACHE/$name".new.*
        IMAGE_NEW=$(mktemp -d "$CACHE/$name.new.XXXXXX") # clean_up in nested.sh removes it
        chmod 755 "$IMAGE_NEW"
        log=$CACHE/$name.log
        set +e # `if` and `||` would switch off the subshell's own set -e
        (set -e && make_image "$version" "$suite" "$sources" "$IMAGE_NEW") </dev/null >"$log" 2>&1
        status=$?
        set -e
        ((status == 0)) || { tail -n 20 "$log" >&2 && die "making the dom0 image failed; its log: $log"; }
        mv "$IMAGE_NEW" "$IMAGE"
        IMAGE_NEW=
        # Removes images that no run has used for a week, and the remains of killed runs.
        find "$CACHE" -maxdepth 1 -name 'dom0-xen-*' -mtime +7 -exec rm -rf {} +
        say "dom0 image made in $((SECONDS - started)) s: $IMAGE"
    fi
    touch "$IMAGE"
    exec {image_lock}>&-
}
