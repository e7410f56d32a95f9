# shellcheck shell=bash
# Builds dombuild and its tests for one Xen version, and runs the checks that need no Xen. Sourced by tests/nested.sh.
#
# The libraries' ABI differs per Xen release, so everything is built against the libxen-dev inside that version's dom0
# image, as a sysroot; the host's own Xen libraries do not matter for that. Needs IMAGE (image.sh).

require_cargo() {
    PATH=$PATH:$HOME/.cargo/bin
    command -v cargo >/dev/null ||
        die "cargo is missing. Install Rust (rustup brings cargo, clippy and rustfmt), or put the folder of an existing one on the PATH."
}

# cargo ARGS... with the environment of that Xen version; one target folder for each.
cargo_for() {
    local version=$1 lib=$IMAGE/root/usr/lib/x86_64-linux-gnu
    shift
    # --allow-shlib-undefined: the libraries want other Xen libraries, and for 4.20 a newer glibc than this host's; dom0 has both.
    PKG_CONFIG_SYSROOT_DIR=$IMAGE/root PKG_CONFIG_LIBDIR=$lib/pkgconfig:$IMAGE/root/usr/share/pkgconfig \
        PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1 PKG_CONFIG_ALLOW_SYSTEM_LIBS=1 \
        RUSTFLAGS="${RUSTFLAGS:-} -C link-arg=-Wl,--allow-shlib-undefined" \
        CARGO_TARGET_DIR=$REPO/target/xen-$version \
        cargo --color "${CARGO_COLOR:-auto}" "$@"
}

# Into $JOB/bin, where dom0 takes its programs from.
build_dombuild() {
    local version=$1
    (cd "$REPO" && cargo_for "$version" build --release --quiet --bin dombuild) >&2 || return
    install -m 755 "$REPO/target/xen-$version/release/dombuild" "$JOB/bin/dombuild"
    ln -sf dombuild "$JOB/bin/xenguest"
}

# The program itself, or the packages that have it, for dom0 to install.
bring_program() {
    if [[ -z ${PACKAGES[*]} ]]; then
        build_dombuild "$1"
    else
        mkdir -p "$JOB/packages"
        cp "${PACKAGES[@]}" "$JOB/packages/"
        ln -sf /usr/bin/dombuild "$JOB/bin/xenguest"
    fi
}

# The programs that run in dom0 are ordinary cargo test targets; cargo names the program it made.
build_test_program() { # VERSION TARGET [FLAGS OF CARGO'S]
    local version=$1 target=$2 messages program
    shift 2
    messages=$(cd "$REPO" && cargo_for "$version" test --workspace --no-run --test "$target" "$@" --message-format=json) || return
    program=$(grep -E '"kind":\["test"\].*"name":"'"$target"'"' <<<"$messages" | sed -n 's/.*"executable":"\([^"]*\)".*/\1/p' | tail -n 1)
    [[ -n $program ]] || {
        say "cargo made no test program named $target"
        return 1
    }
    install -m 755 "$program" "$JOB/bin/$target-tests"
}

# The tests, as the unit tests were built; and the library with which they let calls fail.
build_dom0_tests() {
    build_test_program "$1" dom0 || return
    cc -O2 -Wall -Wextra -Werror -isystem "$IMAGE/root/usr/include" -shared -fPIC -o "$JOB/bin/fault-shim.so" "$NESTED/fault-shim.c"
}

# The benchmark, and what it measures with.
build_bench() {
    local root=$IMAGE/root compile
    compile=(cc -O2 -Wall -Wextra -Werror -isystem "$root/usr/include" -L "$root/usr/lib/x86_64-linux-gnu" -Wl,--allow-shlib-undefined)
    build_test_program "$1" bench --release || return
    "${compile[@]}" -o "$JOB/bin/floor" "$REPO/tests/bench/floor.c" -lxenguest -lxenctrl &&
        "${compile[@]}" -o "$JOB/bin/unpause" "$REPO/tests/bench/unpause.c" -lxenctrl &&
        cc -O2 -static -Wall -Wextra -Werror -o "$JOB/bin/launch" "$REPO/tests/bench/launch.c"
}

# Format, lints, documentation, and the tests that need no Xen. Every step runs; adds to FAILED.
check_without_xen() {
    local version=$1 lib=$IMAGE/root/usr/lib/x86_64-linux-gnu
    cd "$REPO" || return
    step 'format' cargo fmt --all --check
    step 'lints' cargo_for "$version" clippy --workspace --all-targets --quiet -- -D warnings
    RUSTDOCFLAGS='-D warnings' step 'documentation' cargo_for "$version" doc --workspace --no-deps --quiet
    if [[ -e /usr/lib/x86_64-linux-gnu/libxenguest.so.$version ]]; then
        step 'unit and command-line tests' cargo_for "$version" test --workspace
    else
        # This host has no libraries of that Xen, and too old a glibc for them: the sysroot's own loader brings all of it.
        # A program started by a test would get the host's loader again, so the command-line tests belong to the host's Xen.
        CARGO_TARGET_X86_64_UNKNOWN_LINUX_GNU_RUNNER="$IMAGE/root/lib64/ld-linux-x86-64.so.2 --library-path $lib" \
            step 'unit tests' cargo_for "$version" test --workspace --lib --bins
    fi
}

step() { # NAME COMMAND...
    local name=$1 began=$SECONDS
    shift
    say "$name ..."
    if "$@"; then
        say "$name: passed ($((SECONDS - began)) s)"
    else
        FAILED+=("$name")
        say "$name: FAILED ($((SECONDS - began)) s)"
    fi
}
