# shellcheck shell=bash
# Debian root directories for packaging, kept in the cache of tests/nested.sh. Sourced by build.sh and test.sh, after
# tests/nested/image.sh.
#
#   ensure_root PURPOSE XEN PACKAGE...   sets ROOT to a directory with that Debian and these packages, and makes it if needed
#   in_root ROOT COMMAND...              runs a command in it, with /proc and /dev

ensure_root() {
    local purpose=$1 version=$2 suite sources key name log
    shift 2
    suite=$(xen_suite "$version")
    sources=$(debian_sources "$suite")
    key=$({ echo "$suite" "$sources" "$@" && declare -f make_package_root; } | sha256sum | cut -c -12)
    name=packaging-$purpose-$suite-$key
    mkdir -p "$CACHE"
    ROOT=$CACHE/$name
    # The lock goes with the descriptor. A second run waits for the first and finds the root.
    exec {root_lock}>"$CACHE/$name.lock"
    flock "$root_lock"
    if [[ ! -d $ROOT ]]; then
        say "making the root of Debian $suite to $purpose packages in (once; one to three minutes)"
        log=$CACHE/$name.log
        rm -rf "$ROOT.new"
        make_package_root "$suite" "$sources" "$ROOT.new" "$@" </dev/null >"$log" 2>&1 || {
            tail -n 20 "$log" >&2
            rm -rf "$ROOT.new"
            die "making the root failed; its log: $log"
        }
        mv "$ROOT.new" "$ROOT"
        # Roots of older recipes, and what a killed run left
        find "$CACHE" -maxdepth 1 -name 'packaging-*' -mtime +7 -exec rm -rf {} +
    fi
    touch "$ROOT"
    exec {root_lock}>&-
}

make_package_root() { # SUITE SOURCES ROOT PACKAGE...
    local suite=$1 sources=$2 root=$3 proxy='' opts=()
    shift 3
    eval "$(apt-config shell proxy Acquire::http::Proxy)"
    [[ -z $proxy ]] || opts+=(--aptopt="Acquire::http::Proxy \"$proxy\"")
    # The lists of packages stay, so that apt in the root finds dependencies.
    mmdebstrap --mode=root --variant=apt --include="$(tr ' ' , <<<"$*")" --aptopt='APT::Install-Recommends "false"' \
        --skip=cleanup/apt/lists "${opts[@]}" "$suite" "$root" - <<<"$sources"
}

# In a mount namespace of its own: what is mounted ends with the command.
in_root() { # ROOT COMMAND...
    # shellcheck disable=SC2016
    unshare --mount bash -c '
        root=$1
        shift
        mount -t proc proc "$root/proc" && mount --rbind /dev "$root/dev" &&
            exec env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 DEBIAN_FRONTEND=noninteractive TERM=dumb \
                chroot "$root" "$@"' in_root "$@"
}
