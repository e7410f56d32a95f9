# shellcheck shell=bash
# Builds dombuild and its tests for one Xen version, and runs the checks that need no Xen. Sourced by tests/nested.sh.
#
# The libraries' ABI differs between Xen releases. Everything is therefore built against the libxen-dev in that version's dom0
# image, as a sysroot, and not against the host's own Xen libraries. Needs IMAGE (image.sh).

require_cargo() {
    PATH=$PATH:$HOME/.cargo/bin
    command -v cargo >/dev/null ||
        die "cargo is missing. Install Rust (rustup brings cargo, clippy and rustfmt), or put the folder of an existing one on the PATH."
}

# cargo ARGS... with the environment of that Xen version, and a target folder of its own.
cargo_for() {
    local version=$1 lib=$IMAGE/root/usr/lib/x86_64-linux-gnu
    shift
    # --allow-shlib-undefined: the libraries need other Xen libraries and, for 4.20, a newer glibc than this host's; dom0 has both.
    PKG_CONFIG_SYSROOT_DIR=$IMAGE/root PKG_CONFIG_LIBDIR=$lib/pkgconfig:$IMAGE/root/usr/share/pkgconfig \
        PKG_CONFIG_ALLOW_SYSTEM_CFLAGS=1 PKG_CONFIG_ALLOW_SYSTEM_LIBS=1 \
        RUSTFLAGS="${RUSTFLAGS:-} -C link-arg=-Wl,--allow-shlib-undefined" \
        CARGO_TARGET_DIR=$REPO/target/xen-$version \
        cargo --color "${CARGO_COLOR:-auto}" "$@"
}

# Puts dombuild into $JOB/bin, from which dom0 takes its programs.
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

# The programs that run in dom0 are ordinary cargo test targets; cargo prints the path of each.
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

# The tests, in the profile of the unit tests, and the library with which they make calls fail.
build_dom0_tests() {
    build_test_program "$1" dom0 || return
    cc -O2 -Wall -Wextra -Werror -isystem "$IMAGE/root/usr/include" -shared -fPIC -o "$JOB/bin/fault-shim.so" "$NESTED/fault-shim.c" || return
    build_guest_program readback-guest && build_guest_program pci-guest || return
    cc -O2 -static -Wall -Wextra -Werror -o "$JOB/bin/edu-dma" "$NESTED/edu-dma.c"
}

# A guest has no library, and no floating point.
build_guest_program() { # NAME
    cc -m32 -O2 -Wall -Wextra -Werror -ffreestanding -nostdlib -static -fno-pic -no-pie -fno-stack-protector -fcf-protection=none \
        -fno-asynchronous-unwind-tables -mno-sse -Wl,-Ttext-segment=0x100000 -Wl,--build-id=none -Wl,-z,noexecstack \
        -o "$JOB/bin/$1" "$NESTED/$1.c"
}

# A program outside the workspace, from the packages that cargo makes of the crates: tests/outside.
build_outside() {
    local version=$1 room=$REPO/target/xen-$1/outside package name
    rm -rf "$room" "$REPO/target/xen-$version/package"
    mkdir -p "$room"
    (cd "$REPO" && cargo_for "$version" package --workspace --no-verify --allow-dirty --quiet) >&2 || return
    for package in "$REPO/target/xen-$version/package"/*.crate; do
        name=$(basename "$package" .crate)
        mkdir "$room/${name%-*}"
        # A package has old dates: cargo would take a changed file for one that it has compiled.
        tar -xmzf "$package" -C "$room/${name%-*}" --strip-components=1 || return
    done
    cp -r "$REPO/tests/outside" "$room/program"
    cp "$REPO/Cargo.lock" "$room/program/"
    (cd "$room/program" && cargo_for "$version" build --quiet) >&2 || return
    install -m 755 "$REPO/target/xen-$version/debug/outside" "$JOB/bin/outside"
}

# The benchmark, and the programs that it measures with.
build_bench() {
    local root=$IMAGE/root compile
    compile=(cc -O2 -Wall -Wextra -Werror -isystem "$root/usr/include" -L "$root/usr/lib/x86_64-linux-gnu" -Wl,--allow-shlib-undefined)
    build_test_program "$1" bench --release || return
    "${compile[@]}" -o "$JOB/bin/floor" "$REPO/tests/bench/floor.c" -lxenguest -lxenctrl &&
        "${compile[@]}" -o "$JOB/bin/unpause" "$REPO/tests/bench/unpause.c" -lxenctrl &&
        cc -O2 -static -Wall -Wextra -Werror -o "$JOB/bin/launch" "$REPO/tests/bench/launch.c" &&
        build_guest_program readback-guest
}

# Format, lints, documentation, and the tests that need no Xen. Runs every step; adds the failed ones to FAILED.
check_without_xen() {
    local version=$1 lib=$IMAGE/root/usr/lib/x86_64-linux-gnu
    cd "$REPO" || return
    step 'format' cargo fmt --all --check
    step 'lints' cargo_for "$version" clippy --workspace --all-targets --quiet -- -D warnings
    RUSTDOCFLAGS='-D warnings' step 'documentation' cargo_for "$version" doc --workspace --no-deps --quiet
    if [[ -e /usr/lib/x86_64-linux-gnu/libxenguest.so.$version ]]; then
        step 'unit and command-line tests' cargo_for "$version" test --workspace
    else
        # This host lacks the libraries of that Xen, and its glibc is too old for them: the sysroot's loader has both. A
        # program that a test starts would get the host's loader again, so the command-line tests run for the host's Xen only.
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
