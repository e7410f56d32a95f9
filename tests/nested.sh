#!/bin/bash
# Runs a real Xen on a machine that has none: see --help.
set -euo pipefail

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
NESTED=$REPO/tests/nested
. "$NESTED/image.sh"
. "$NESTED/build.sh"
. "$NESTED/boot.sh"

say() { printf 'nested: %s\n' "$*" >&2; }
die() {
    say "$*"
    exit "$HARNESS_FAILED"
}

help() {
    cat <<'HELP'
Runs a real Xen, with a real dom0 and real guests, inside QEMU's software
emulation. This machine needs neither Xen nor virtualisation hardware. The first
run needs root and Debian 12: it installs the Debian packages that it needs,
makes a dom0 image (about a minute and 700 MB; kept in a cache) and builds
dombuild for that Xen. Later runs reach dom0 in about 20 seconds.

  tests/nested.sh demo
      plans, builds and starts an HVM guest, step by step
  tests/nested.sh test [ARGS...]
      runs every test: format, lints, unit and command-line tests on this
      machine, then the tests in dom0. ARGS go to the program of the tests in
      dom0 (a name or NAME|NAME, --list, ...)
  tests/nested.sh figures
      measures the figures in docs/memory.md on both versions of Xen, and writes
      them there
  tests/nested.sh bench [WORDS...]
      measures how long guests take to build on both versions of Xen, and writes
      docs/benchmarks.md. With WORDS: measures only guests that have one of them
      in their titles, and writes nothing
  tests/nested.sh upgrade
      saves guests on Xen 4.17, by dombuild and by xl, and restores each of them
      on Xen 4.20 by dombuild and by xl. Linux guests compare the sums of their
      own memory. Two boots, some five minutes
  tests/nested.sh run FILE [ARGS...]
      runs FILE, a script or a program, in dom0 as root. Prints its output as it
      comes, and exits with its exit status
  tests/nested.sh shell
      opens a shell in dom0 on this terminal. Leave it with exit, or at once
      with Ctrl-A x

Options, anywhere after the verb (what follows -- goes to FILE or to the tests):
  --xen 4.17|4.20    the version of Xen: 4.17 with Debian 12's dom0 (default),
                     4.20 with Debian 13's
  --only-dom0        test: leaves out what needs no Xen
  --full             test: runs the long tests in full (three to four hours);
                     without it, a sample of each
  --seed N           test: repeats the sample of a run, which prints its N
  --share I/N        test: of the long tests, runs part I of N, and of the
                     middling ones every second. N runs with one seed, each with
                     another I, run all of them
  --calls LIST       test: in tests of failing calls, only these calls fail, as
                     in 7,300-310; a long test prints such numbers
  --no-build         run, shell: does not build dombuild; dom0 has only its own
                     files and those of --with
  --breakdown        bench: prints the time of each stage; writes nothing
  --migration        bench: measures only how long it takes to save, restore and
                     migrate guests, and writes that table; WORDS as above
  --slope            bench: measures only what a host full of guests costs, and
                     writes that table and the picture
  --clock            bench: measures only by the clock, on both versions; needs
                     a machine with no other load
  --check            bench: measures some figures on Xen 4.17 and compares them
                     with tests/bench/expected-4.17.json; writes nothing
  --update           bench --check: writes that file
  --package FILE     test, run, shell: a Debian package of packaging/build.sh,
                     which dpkg installs in dom0 (repeatable). Its dombuild is on
                     the PATH then, and none is built
  --with PATH        run, shell: puts a file or folder into /job/files of dom0,
                     next to FILE (repeatable)
  --results FOLDER   copies what the job wrote to /results there when it ends
  --timeout SECONDS  limits the job, from the end of the boot (default 3600;
                     test 7200)
  --host SHAPE,...   the machine that Xen runs on: numa has two nodes, iommu an
                     IOMMU and two PCI devices to assign, big 40 GiB of memory
                     of which this host gives what is touched. test: only tests
                     that need such a host run there, and they run nowhere else
  --xenstored NAME   the xenstore daemon of dom0: xenstored, in C (default), or
                     oxenstored, as on XenServer
  --memory MIB       memory of the whole machine that Xen runs on (default 8192;
                     bench 11264, its --check and --breakdown 4096, its
                     --migration and --slope 6144). dom0 has 1024 of them, with
                     --migration 3072. Xen touches all of it, so this host must have
                     it
  --vcpus N          CPUs of that machine (default 2; test: one of the two is
                     offline except in tests that need both)
  --virtual-time     run, shell: one CPU, on which an instruction takes a
                     nanosecond and idling takes no real time. What a program in
                     dom0 measures is the same each time, however busy this host
                     is

In dom0, dombuild and Xen's tools are on the PATH, FILE is /job/files/FILE,
`xl dmesg` has the messages of Xen and of the guests' firmware, and NESTED_XEN
is the version. RUST_LOG and RUST_BACKTRACE are passed on. No change there
outlives the run. /srv/guest/vmlinuz and /srv/guest/initrd are a small Linux
guest, PVH or PV, for the command line console=hvc0. Its output is in
/var/log/xen/console/guest-NAME.log; tests/nested/guest-init describes it and
the arguments that it takes.

Exit status: demo, run: that of the job in dom0. test: 0, or 1 if something
failed. All: 2 usage error; 124 the boot or the job took too long; 125 the
harness failed (no image, no build, or dom0 or Xen crashed). A line
`nested: Xen ...` on stderr has the result and the serial log, which has all
messages of Xen, dom0's kernel and the guests' firmware.

Environment:
  DOMBUILD_CACHE     folder of the images (default $XDG_CACHE_HOME/dombuild or
                     ~/.cache/dombuild)
  BOOT_TIMEOUT       seconds from power-on to the start of the job (default 240;
                     1800 in virtual time)
HELP
}

usage() {
    printf 'nested.sh: %s\nusage: tests/nested.sh demo | test [ARGS...] | upgrade | run FILE [ARGS...] | shell   [--xen 4.17|4.20] [OPTIONS]\nMore: tests/nested.sh --help\n' "$1" >&2
    exit 2
}

clean_up() {
    stop_qemu
    if [[ -n ${WORK:-} ]]; then
        [[ -z $RESULTS_TO ]] || { mkdir -p "$RESULTS_TO" && cp -r "$RESULTS/." "$RESULTS_TO/"; }
        rm -rf "$WORK"
    fi
    [[ -z ${IMAGE_NEW:-} ]] || rm -rf "$IMAGE_NEW"
    [[ -z ${FIGURES:-} ]] || rm -rf "$FIGURES"
}

parse() {
    VERB='' XEN=4.17 XEN_GIVEN='' JOB_TIMEOUT='' MEMORY='' VCPUS=2 BUILD=yes ONLY_DOM0='' VIRTUAL_TIME='' RESULTS_TO='' WITH=() PACKAGES=() ARGS=() JOB_FILES=() HOST_SHAPES='' BENCH_PART='' UPDATE='' XENSTORED=xenstored DOM0_MEMORY=''
    case ${1:-} in
    demo | test | figures | bench | upgrade | run | shell) VERB=$1 ;;
    -h | --help | help) help && exit 0 ;;
    '') usage 'which verb?' ;;
    *) usage "there is no verb $1" ;;
    esac
    shift
    while (($#)); do
        case $1 in
        --xen | --with | --package | --results | --timeout | --memory | --vcpus | --seed | --share | --calls | --host | --xenstored) (($# > 1)) || usage "$1 needs a value" ;;&
        --xen) XEN=$2 XEN_GIVEN=$2 && shift ;;
        --xen=*) XEN=${1#*=} XEN_GIVEN=$XEN ;;
        --with) WITH+=("$2") && shift ;;
        --package) PACKAGES+=("$2") && shift ;;
        --results) RESULTS_TO=$2 && shift ;;
        --timeout) number "$1" "$2" && JOB_TIMEOUT=$2 && shift ;;
        --memory) number "$1" "$2" && MEMORY=$2 && shift ;;
        --vcpus) number "$1" "$2" && VCPUS=$2 && shift ;;
        --host)
            [[ $2 =~ ^(numa|iommu|big)(,(numa|iommu|big))*$ ]] || usage "--host takes numa, iommu and big, with commas between them, not $2"
            HOST_SHAPES=$2 && shift
            ;;
        --xenstored)
            [[ $2 == xenstored || $2 == oxenstored ]] || usage "--xenstored takes xenstored or oxenstored, not $2"
            XENSTORED=$2 && shift
            ;;
        --virtual-time) VIRTUAL_TIME=yes ;;
        --breakdown | --check) BENCH_PART=${1#--} VIRTUAL_TIME=yes ;;
        --migration | --slope) BENCH_PART=${1#--} VIRTUAL_TIME=yes ;;
        --clock) BENCH_PART=clock ;;
        --update) UPDATE=yes ;;
        --no-build) BUILD='' ;;
        --only-dom0) ONLY_DOM0=yes ;;
        --full) export DOMBUILD_TEST_FULL=1 && JOB_TIMEOUT=21600 ;;
        --seed) number "$1" "$2" && export DOMBUILD_TEST_SEED=$2 && shift ;;
        --share)
            [[ $2 =~ ^[1-9]/[1-9]$ ]] || usage "--share takes a part as in 1/2, not $2"
            export DOMBUILD_TEST_SHARE=$2 && shift
            ;;
        --calls)
            [[ $2 =~ ^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$ ]] || usage "--calls takes numbers as in 7,300-310, not $2"
            export DOMBUILD_TEST_CALLS=$2 && shift
            ;;
        -h | --help) help && exit 0 ;;
        --) shift && ARGS+=("$@") && break ;;
        -*) # after FILE it is an argument of FILE
            [[ $VERB == test || ($VERB == run && ${#ARGS[@]} -gt 0) ]] || usage "there is no option $1"
            ARGS+=("$1")
            ;;
        *) ARGS+=("$1") ;;
        esac
        shift
    done
    # dom0 needs room for a saved guest of 2 GiB.
    [[ $BENCH_PART != migration ]] || : "${MEMORY:=6144}" "${DOM0_MEMORY:=3072}"
    [[ $BENCH_PART != slope ]] || : "${MEMORY:=6144}"
    # The table needs room for guests of 8 GiB; measuring takes long.
    [[ $VERB != bench || -n $BENCH_PART ]] || : "${MEMORY:=11264}"
    [[ $VERB != bench ]] || : "${MEMORY:=4096}" "${JOB_TIMEOUT:=14400}"
    # In parallel to another Xen it takes twice as long.
    [[ $VERB != test ]] || : "${JOB_TIMEOUT:=7200}"
    # In virtual time one thread emulates everything: the boot takes a minute on an idle host.
    [[ $VERB != bench && -z $VIRTUAL_TIME ]] || : "${BOOT_TIMEOUT:=1800}"
    : "${MEMORY:=8192}" "${DOM0_MEMORY:=1024}" "${JOB_TIMEOUT:=3600}" "${BOOT_TIMEOUT:=240}"
    [[ $XEN == 4.17 || $XEN == 4.20 ]] || usage "--xen takes 4.17 or 4.20, not $XEN"
    [[ $VERB == bench || -z $BENCH_PART$UPDATE ]] || usage '--breakdown, --migration, --slope, --clock, --check and --update are for bench'
    [[ -z $HOST_SHAPES || $VERB =~ ^(test|run|shell)$ ]] || usage '--host is for test, run and shell'
    [[ $VERB != upgrade || -z $XEN_GIVEN ]] || usage 'upgrade takes no --xen: it is from 4.17 to 4.20'
    [[ -z $UPDATE || $BENCH_PART == check ]] || usage '--update goes with --check'
    [[ $BENCH_PART != check || $XEN == 4.17 ]] || usage '--check is for Xen 4.17 alone'
    local file
    case $VERB in
    run) ((${#ARGS[@]})) || usage 'run which FILE?' ;;
    demo | figures | upgrade | shell) ((!${#ARGS[@]})) || usage "$VERB takes no arguments: ${ARGS[*]}" ;;
    esac
    [[ $VERB != shell || (-t 0 && -t 1) ]] || usage 'shell needs a terminal; run is for scripts'
    [[ $VERB != run || -f ${ARGS[0]} ]] || usage "${ARGS[0]} is not a file"
    for file in "${WITH[@]}"; do [[ -e $file ]] || usage "--with: there is no $file"; done
    for file in "${PACKAGES[@]}"; do [[ $file == *.deb && -f $file ]] || usage "--package: $file is no Debian package"; done
    [[ -z ${PACKAGES[*]} || $VERB =~ ^(test|run|shell)$ ]] || usage '--package is for test, run and shell'
}

number() {
    [[ $2 =~ ^[1-9][0-9]{0,8}$ ]] || usage "$1 takes a number, not $2"
}

main() {
    parse "$@"
    ((EUID == 0)) || die 'this must run as root: it installs packages and makes a Debian root file system'
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    [[ -z $BUILD ]] || require_cargo
    install_host_packages
    ensure_image "$XEN"
    "verb_$VERB"
}

verb_demo() {
    prepare_job run /job/files/demo.sh
    job_files "$NESTED/demo.sh"
    bring_dombuild
    boot_xen "$XEN"
}

# The files go from one dom0 to the other by way of this machine.
verb_upgrade() {
    FIGURES=$(mktemp -d)
    upgrade_half 4.17 save && upgrade_half 4.20 restore "$FIGURES/saved" || return
    say 'guests of Xen 4.17 run on Xen 4.20'
}

upgrade_half() { # VERSION HALF [FILES]
    local status=0
    XEN=$1
    ensure_image "$XEN"
    prepare_job run /job/files/upgrade.sh "$2"
    job_files "${@:3}" "$NESTED/upgrade.sh"
    bring_dombuild
    boot_xen "$XEN" || status=$?
    cp -r "$RESULTS" "$FIGURES/saved"
    rm -rf "$WORK"
    WORK=''
    return "$status"
}

verb_run() {
    prepare_job run "/job/files/$(basename "${ARGS[0]}")" "${ARGS[@]:1}"
    job_files "${WITH[@]}" "${ARGS[0]}"
    bring_dombuild
    boot_xen "$XEN"
}

verb_shell() {
    prepare_job shell bash --login
    job_files "${WITH[@]}"
    bring_dombuild
    boot_xen "$XEN"
}

verb_test() {
    local began=$SECONDS status=0
    FAILED=()
    [[ -n $ONLY_DOM0 ]] || check_without_xen "$XEN"
    prepare_job run dom0-tests --test-threads=1 "${ARGS[@]}"
    # Emulating two CPUs that wait for each other takes a third more time.
    [[ $VCPUS == 1 || -n $VIRTUAL_TIME ]] || echo NESTED_RESTING=1 >>"$JOB/environment"
    if bring_program "$XEN" && build_dom0_tests "$XEN" && build_outside "$XEN"; then
        boot_xen "$XEN" || status=$?
        if [[ -n $EMULATOR_CRASHED ]]; then
            say 'QEMU, which emulates the machine below Xen, failed one of its own assertions: starting again'
            rm -rf "$WORK/output" "$WORK/back/started" "$WORK/back/results/"*
            status=0
            boot_xen "$XEN" || status=$?
        fi
        ((status == 0)) || FAILED+=("tests in dom0 (status $status)")
    else
        FAILED+=('building for dom0')
    fi
    if ((${#FAILED[@]})); then
        say "FAILED on Xen $XEN after $((SECONDS - began)) s: $(printf '%s; ' "${FAILED[@]}" | sed 's/; $//')"
        ((status >= TIMED_OUT && status <= HARNESS_FAILED)) && return "$status"
        return 1
    fi
    say "ALL PASSED on Xen $XEN in $((SECONDS - began)) s"
}

# The tests that measure write their tables to /results; each table belongs between two comments of the page.
verb_figures() {
    local version table
    for version in 4.17 4.20; do
        FIGURES=$(mktemp -d)
        "${BASH_SOURCE[0]}" test figures --only-dom0 --full --xen "$version" --results "$FIGURES" || return
        "${BASH_SOURCE[0]}" test numa_memory --only-dom0 --host numa --memory 4096 --xen "$version" --results "$FIGURES" || return
        for table in "$FIGURES"/*.md; do
            put_into_page "$REPO/docs/memory.md" "$version $(basename "$table" .md)" "$table"
        done
        rm -rf "$FIGURES"
    done
}

# All tables are in virtual time except the last one: one CPU cannot show what runs in parallel.
verb_bench() {
    local version table expected=$REPO/tests/bench/expected-4.17.json
    FIGURES=$(mktemp -d)
    case $BENCH_PART in
    breakdown) bench_in_dom0 breakdown ;;
    check)
        local status=0
        JOB_FILES=("$expected")
        bench_in_dom0 check "/job/files/${expected##*/}" || status=$?
        [[ -z $UPDATE || ! -e $FIGURES/expected.json ]] || { cp "$FIGURES/expected.json" "$expected" && say "written: $expected" && status=0; }
        return "$status"
        ;;
    slope)
        for version in ${XEN_GIVEN:-4.17 4.20}; do
            XEN=$version
            ensure_image "$XEN"
            bench_in_dom0 slope || return
            put_into_page "$REPO/docs/benchmarks.md" "$version slope of $XENSTORED" "$FIGURES/slope.md"
            [[ $version != 4.17 || $XENSTORED != xenstored ]] || cp "$FIGURES/slope.svg" "$REPO/docs/slope.svg"
        done
        ;;
    migration)
        for version in ${XEN_GIVEN:-4.17 4.20}; do
            XEN=$version
            ensure_image "$XEN"
            bench_in_dom0 migration "${ARGS[@]}" || return
            ((${#ARGS[@]})) || put_into_page "$REPO/docs/benchmarks.md" "$version migration" "$FIGURES/migration.md"
        done
        ;;
    *)
        for version in ${XEN_GIVEN:-4.17 4.20}; do
            XEN=$version
            ensure_image "$XEN"
            [[ $BENCH_PART == clock ]] || VIRTUAL_TIME=yes bench_in_dom0 table "${ARGS[@]}" || return
            ((!${#ARGS[@]})) || continue
            VIRTUAL_TIME='' MEMORY=4096 bench_in_dom0 wall || return
            for table in "$FIGURES"/*.md; do
                put_into_page "$REPO/docs/benchmarks.md" "$version $(basename "$table" .md)" "$table"
            done
            # One chart is enough: that of the other Xen looks the same.
            [[ $version != 4.17 || $BENCH_PART == clock ]] || cp "$FIGURES/benchmarks.svg" "$REPO/docs/benchmarks.svg"
        done
        ;;
    esac
}

bench_in_dom0() { # ARGS
    local status=0
    prepare_job run bench-tests "$@"
    ((!${#JOB_FILES[@]})) || { mkdir -p "$JOB/files" && cp "${JOB_FILES[@]}" "$JOB/files/" 2>/dev/null || true; }
    build_dombuild "$XEN" && build_bench "$XEN" || die "the benchmark does not build for Xen $XEN"
    boot_xen "$XEN" || status=$?
    cp -r "$RESULTS/." "$FIGURES/"
    [[ -z $RESULTS_TO ]] || { mkdir -p "$RESULTS_TO/$XEN" && cp -r "$RESULTS/." "$RESULTS_TO/$XEN/"; }
    rm -rf "$WORK"
    WORK=''
    return "$status"
}

put_into_page() { # PAGE NAME TABLE
    grep -q "^<!-- figures: $2 -->$" "$1" || die "$1 has no place for the figures called $2"
    awk -v name="$2" -v table="$3" '
        $0 == "<!-- /figures -->" { inside = 0 }
        !inside
        $0 == "<!-- figures: " name " -->" { inside = 1; while ((getline line < table) > 0) print line }
    ' "$1" >"$1.new"
    mv "$1.new" "$1"
}

job_files() {
    mkdir -p "$JOB/files"
    (($# == 0)) || cp -rL "$@" "$JOB/files/"
    [[ $VERB == shell ]] || chmod +x "$JOB/files/$(basename "${!#}")"
}

bring_dombuild() {
    [[ -z $BUILD ]] || bring_program "$XEN" || die "dombuild does not build for Xen $XEN (--no-build goes without it)"
}

main "$@"
