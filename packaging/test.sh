#!/bin/bash
# Installs the packages in clean Debian 12 and 13 roots, uses, upgrades, removes and purges them: see --help.
set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
NESTED=$REPO/tests/nested
. "$NESTED/image.sh"
. "$REPO/packaging/root.sh"

say() { printf 'packaging: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# What the checks use; what the packages need, apt brings with them.
TEST_PACKAGES=(man-db bash-completion zsh fish systemd logrotate)

help() {
    cat <<'HELP'
Builds the packages and tests them in a clean root of their Debian: install, use, upgrade, remove, purge.

  packaging/test.sh [--xen 4.17|4.20]    default: both

It wants what packaging/build.sh wants, and Debian's package mirror. The root is an overlay: nothing is kept of a test.
Exit status: 0, 1 when a step failed, 2 wrong usage.
HELP
}

VERSIONS=(4.17 4.20)
case ${1:-} in
'') ;;
-h | --help) help && exit 0 ;;
--xen)
    [[ ${2:-} == 4.17 || ${2:-} == 4.20 ]] || { say "--xen takes 4.17 or 4.20" && exit 2; }
    VERSIONS=("$2")
    ;;
*) say "there is no option $1" && exit 2 ;;
esac

clean_up() {
    if [[ -n ${WORK:-} ]]; then
        ! mountpoint -q "$WORK/root" || umount "$WORK/root"
        rm -rf "$WORK"
    fi
}

test_packages() { # XEN
    local version=$1
    WORK=$(mktemp -d)
    "$REPO/packaging/build.sh" --xen "$version" --output "$WORK/new" >/dev/null
    # The same program with a lower version stands for the last release.
    "$REPO/packaging/build.sh" --xen "$version" --output "$WORK/old" --revision 0.1.0-1 >/dev/null
    ensure_root test "$version" "${TEST_PACKAGES[@]}"
    mkdir "$WORK/upper" "$WORK/work" "$WORK/root"
    mount -t overlay overlay -o "lowerdir=$ROOT,upperdir=$WORK/upper,workdir=$WORK/work" "$WORK/root"
    mkdir "$WORK/root/srv/packages"
    cp -r "$WORK/old" "$WORK/new" "$WORK/root/srv/packages/"
    install -m 755 "$REPO/packaging/test-in-root.sh" "$WORK/root/srv/test-in-root.sh"
    cp /etc/resolv.conf "$WORK/root/etc/resolv.conf"
    say "Debian $(xen_suite "$version"), Xen $version"
    in_root "$WORK/root" /srv/test-in-root.sh || FAILED+=("$version")
    clean_up
    WORK=
}

((EUID == 0)) || die 'this must run as root: it makes Debian root directories'
trap clean_up EXIT
FAILED=()
for version in "${VERSIONS[@]}"; do test_packages "$version"; done
((!${#FAILED[@]})) || die "FAILED for Xen ${FAILED[*]}"
say 'ALL PASSED'
