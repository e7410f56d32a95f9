#!/bin/bash
# Makes Debian packages of dombuild: see --help, and README.md in this directory.
set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
NESTED=$REPO/tests/nested
. "$NESTED/image.sh"
. "$NESTED/build.sh"
. "$REPO/packaging/root.sh"

say() { printf 'packaging: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit 1
}

# libxen-dev brings the libraries: dpkg-shlibdeps asks their packages for the dependencies.
BUILD_PACKAGES=(dpkg-dev debhelper libxen-dev lintian man-db)

help() {
    cat <<'HELP'
Makes the Debian packages dombuild and dombuild-xenguest, for Debian 12 (Xen 4.17) and Debian 13 (Xen 4.20).

  packaging/build.sh [OPTIONS]

  --xen 4.17|4.20   for this Xen only (default: both)
  --output DIR      where the packages go (default: target/packages)
  --revision VER    another version than the changelog's, such as 0.1.0-1, to test upgrades

It wants root on Debian 12, and cargo from rustup. The first run makes a dom0 image, which the program is built against,
and a Debian root with debhelper, which the packages are made in, for each Xen; both are kept in a cache (DOMBUILD_CACHE).
lintian checks the packages. Exit status: 0, 1 when something failed or lintian found an error or a warning, 2 wrong usage.
HELP
}

usage() {
    printf 'build.sh: %s\nMore: packaging/build.sh --help\n' "$1" >&2
    exit 2
}

parse() {
    VERSIONS=(4.17 4.20) OUTPUT=$REPO/target/packages REVISION=
    while (($#)); do
        case $1 in
        -h | --help) help && exit 0 ;;
        --xen | --output | --revision) (($# > 1)) || usage "$1 needs a value" ;;&
        --xen) [[ $2 == 4.17 || $2 == 4.20 ]] || usage "--xen takes 4.17 or 4.20, not $2" ;;&
        --xen) VERSIONS=("$2") ;;
        --output) OUTPUT=$2 ;;
        --revision) REVISION=$2 ;;
        *) usage "there is no option $1" ;;
        esac
        shift 2
    done
}

main() {
    parse "$@"
    ((EUID == 0)) || die 'this must run as root: it makes Debian root directories'
    trap 'rm -rf "${STAGE:-}" "${IMAGE_NEW:-}" "${ROOT_NEW:-}"' EXIT
    require_cargo
    install_host_packages
    mkdir -p "$OUTPUT"
    local version
    for version in "${VERSIONS[@]}"; do
        ensure_image "$version"
        ensure_root build "$version" "${BUILD_PACKAGES[@]}"
        make_packages "$version"
    done
}

make_packages() { # XEN
    local version=$1 tree
    say "Xen $version: building the program"
    (cd "$REPO" && cargo_for "$version" build --release --quiet --bin dombuild &&
        cargo_for "$version" build --quiet --example man-and-completions) || die "dombuild does not build for Xen $version"
    STAGE=$(mktemp -d "$ROOT/tmp/packages.XXXXXX")
    tree=$STAGE/dombuild
    mkdir -p "$tree/program"
    cp "$REPO/target/xen-$version/release/dombuild" "$REPO/target/xen-$version/debug/examples/man-and-completions" "$tree/program/"
    cp -r "$REPO/packaging/debian" "$REPO/docs" "$REPO/README.md" "$REPO/CHANGELOG.md" "$tree/"
    (cd "$REPO" && cargo_for "$version" tree --edges normal --prefix none --format '{p} {l}' --no-dedupe --color never) |
        sed 's/ (.*[/][^)]*)//' | sort -u >"$tree/crates"
    set_version "$version" "$tree/debian/changelog"
    say "Xen $version: making the packages"
    # -d: no compiler runs here, so that build-essential is not missed.
    in_root "$ROOT" env "XEN_VERSION=$version" sh -ec 'cd "$1" && dpkg-buildpackage -us -uc -b -d' sh "${tree#"$ROOT"}" \
        >"$STAGE/log" 2>&1 || { cat "$STAGE/log" >&2 && die "dpkg-buildpackage failed"; }
    if [[ -z $REVISION ]]; then
        in_root "$ROOT" sh -ec 'cd "$1" && exec lintian --allow-root --fail-on error,warning --info --tag-display-limit 0 ./*.changes' \
            sh "${STAGE#"$ROOT"}" >&2 || die "lintian found something"
    fi
    cp "$STAGE"/*.deb "$OUTPUT/"
    ls "$STAGE"/*.deb | sed "s,.*/,$OUTPUT/,"
    rm -rf "$STAGE"
}

# The version of the changelog, with the release of Debian; its first half is the program's.
set_version() { # XEN CHANGELOG
    local suite base program release
    suite=$(xen_suite "$1")
    case $suite in
    bookworm) release=12 ;;
    trixie) release=13 ;;
    esac
    base=${REVISION:-$(sed -n '1s/.*(\(.*\)).*/\1/p' "$2")}
    program=$(sed -n '/^\[workspace.package\]/,/^$/s/^version = "\(.*\)"$/\1/p' "$REPO/Cargo.toml")
    [[ -n $REVISION || ${base%-*} == "$program" ]] ||
        die "packaging/debian/changelog is about ${base%-*} and Cargo.toml about $program"
    sed -i "1s/(.*) [a-z]*;/($base~deb${release}u1) $suite;/" "$2"
}

main "$@"
