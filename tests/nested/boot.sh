# shellcheck shell=bash
# Boots a real Xen in QEMU's software emulation, runs a job in its dom0 and reports how it ended. Sourced by tests/nested.sh.
#
#   prepare_job MODE COMMAND...   MODE is run or shell; dom0 runs COMMAND. Afterwards put files into $JOB (/job in dom0)
#   boot_xen VERSION              boots and watches; returns the job's exit status, TIMED_OUT or HARNESS_FAILED
#
# Emulated AMD SVM with nested paging works with this CPU model, and with none that has more features.

TIMED_OUT=124
HARNESS_FAILED=125

# Any of these on the serial line, except in a guest's lines, means that the job will not report a status.
FATAL_LINES='Kernel panic|Panic on CPU|FATAL TRAP|BUG: soft lockup|Dom0 crashed'

prepare_job() { # sets WORK, JOB, RESULTS
    local mode=$1 nested
    shift
    nested=$(dirname "${BASH_SOURCE[0]}")
    WORK=$(mktemp -d "${TMPDIR:-/tmp}/dombuild-nested.XXXXXX")
    JOB=$WORK/job RESULTS=$WORK/back/results
    mkdir -p "$JOB/bin" "$RESULTS"
    chmod 755 "$WORK" "$JOB"
    install -m 755 "$nested/dom0-init" "$JOB/dom0-init"
    printf '%s\n' "$mode" >"$JOB/mode"
    printf '%s\n' "$XENSTORED" >"$JOB/xenstored"
    printf '%s\n' "$@" >"$JOB/command"
    env | grep -E '^(RUST_LOG|RUST_BACKTRACE|DOMBUILD_TEST_[A-Z]+)=' >"$JOB/environment" || true
}

boot_xen() {
    local version=$1 mode console began=$SECONDS
    mode=$(<"$JOB/mode")
    printf '%s\n' "NESTED_XEN=$version" "NESTED_XENSTORED=$XENSTORED" >>"$JOB/environment"
    new_serial_log "$version"
    if [[ $mode == shell ]]; then
        console=(-chardev 'stdio,id=job,mux=on,signal=off' -mon chardev=job -device 'virtconsole,chardev=job,nr=0')
        printf '%s\n' "TERM=${TERM:-dumb}" >>"$JOB/environment"
        stty size | { read -r rows cols && printf 'ROWS=%s\nCOLS=%s\n' "$rows" "$cols"; } >>"$JOB/environment"
        TTY_STATE=$(stty -g)
    else
        # Through a fifo: with stdio, QEMU treats the end of stdin as a closed port, and makes our stdout non-blocking.
        mkfifo "$WORK/output"
        cat "$WORK/output" &
        OUTPUT=$!
        exec {output_open}<>"$WORK/output" # cat ends when this is closed and QEMU is gone, even if QEMU never started
        console=(-chardev "file,id=job,path=$WORK/output" -device 'virtserialport,chardev=job,nr=1')
        printf '%s\n' TERM=dumb >>"$JOB/environment"
        exec </dev/null
    fi
    local accelerator=(-accel 'tcg,thread=multi' -smp "$VCPUS")
    # A guest's tick every 4 ms costs the emulator too much: timers may be up to 10 ms late.
    local timers=timer_slop=10000000
    # One instruction is one nanosecond, and an idle processor skips to the next timer.
    [[ -z $VIRTUAL_TIME ]] || accelerator=(-accel 'tcg,thread=single,tb-size=512' -icount 'shift=0,sleep=off' -smp 1) timers=
    local machine=pc devices=() xen_options='' memory=$MEMORY
    host_shape
    say "Xen $version: booting${HOST_SHAPES:+ (host: $HOST_SHAPES)}"
    # Xen scrubs free memory while idle, as on a real host. Otherwise guests would find data of the boot in it, and two that
    # are built alike would differ. spec-ctrl=no, mitigations=off: emulating these protections takes a third of the time, and
    # this machine needs none. watchdog_thresh: a busy host is not a soft lockup in dom0.
    # setpriv: if this shell is killed, QEMU ends, too.
    setpriv --pdeathsig TERM qemu-system-x86_64 -nodefaults -no-user-config -display none -no-reboot \
        -machine "$machine" "${accelerator[@]}" -cpu qemu64,+svm,+npt,+nrip-save,+pdpe1gb -m "$memory" "${devices[@]}" \
        -kernel "$IMAGE/xen" \
        -append "console=com1 com1=115200,8n1 dom0_mem=${DOM0_MEMORY}M,max:${DOM0_MEMORY}M loglvl=all guest_loglvl=all conring_size=2M noreboot spec-ctrl=no $timers$xen_options" \
        -initrd "$IMAGE/vmlinuz console=hvc0 loglevel=6 watchdog_thresh=60 mitigations=off panic=1,$IMAGE/initrd" \
        -drive "file=$IMAGE/dom0.ext4,format=raw,if=virtio,snapshot=on" \
        -fsdev "local,id=job,path=$JOB,security_model=none,readonly=on" -device virtio-9p-pci,fsdev=job,mount_tag=job \
        -fsdev "local,id=back,path=$WORK/back,security_model=none" -device virtio-9p-pci,fsdev=back,mount_tag=back \
        -chardev "file,id=com1,path=$SERIAL" -serial chardev:com1 \
        -device virtio-serial-pci "${console[@]}" <&0 2>"$WORK/qemu.log" &
    QEMU=$!
    watch_xen "$version" "$mode" "$began"
}

# The host that --host asks for: sets machine, devices, xen_options, memory and accelerator of boot_xen.
#   numa    two nodes with two CPUs and half the memory each
#   iommu   an AMD IOMMU with interrupt remapping; behind it QEMU's edu device, below a root port an e1000e, an edu with two
#           functions, and two of them behind a bridge from PCI Express to PCI, which share their DMA
#   big     40 GiB of memory: Xen scrubs none of it at boot, and QEMU takes what is touched
host_shape() {
    local shape each=$((MEMORY / 2)) reserve=on
    for shape in ${HOST_SHAPES//,/ }; do
        printf 'NESTED_HOST_%s=1\n' "${shape^^}" >>"$JOB/environment"
    done
    [[ ,$HOST_SHAPES, != *,big,* ]] || { memory=40960 each=20480 reserve=off xen_options+=' bootscrub=0'; }
    case ,$HOST_SHAPES, in
    *,numa,*)
        [[ -n $VIRTUAL_TIME ]] && accelerator+=(-smp '2,sockets=2,cores=1') || accelerator+=(-smp '4,sockets=2,cores=2')
        local cpus=(0-1 2-3)
        [[ -z $VIRTUAL_TIME ]] || cpus=(0 1)
        devices+=(-object "memory-backend-ram,id=node0,size=${each}M,reserve=$reserve" -numa "node,nodeid=0,memdev=node0,cpus=${cpus[0]}"
            -object "memory-backend-ram,id=node1,size=${each}M,reserve=$reserve" -numa "node,nodeid=1,memdev=node1,cpus=${cpus[1]}"
            -numa 'dist,src=0,dst=1,val=21')
        ;;
    *,big,*) devices+=(-object "memory-backend-ram,id=all,size=${memory}M,reserve=$reserve" -numa 'node,nodeid=0,memdev=all') ;;
    esac
    if [[ ,$HOST_SHAPES, == *,iommu,* ]]; then
        # The quarantine with a page table of its own: in Xen's usual quarantine, which has none, the DMA of edu goes on, and does not
        # reach the guest that gets it next. QEMU 7.2 seems to let such DMA through untranslated, and to keep that translation.
        machine=q35 xen_options+=' iommu=verbose,quarantine=scratch-page'
        devices+=(-device 'amd-iommu,intremap=on' -device edu,addr=0x8
            -device 'pcie-root-port,id=port1,chassis=1' -netdev 'user,id=net0' -device 'e1000e,bus=port1,netdev=net0,mac=52:54:00:12:34:56'
            -device edu,addr=0x9.0,multifunction=on -device edu,addr=0x9.1
            -device 'pcie-pci-bridge,id=bridge1,addr=0xa' -device edu,bus=bridge1,addr=1 -device edu,bus=bridge1,addr=2)
    fi
}

# One log per run. The newest ten are kept; xen-VERSION.log is a link to the last one.
new_serial_log() {
    local logs=$REPO/target/nested
    mkdir -p "$logs"
    find "$logs" -name 'xen-*-*.log' -printf '%T@ %p\n' | sort -rn | tail -n +10 | cut -d ' ' -f 2- | xargs -r -d '\n' rm -f
    SERIAL=$logs/xen-$1-$$.log
    : >"$SERIAL"
    ln -sfn "${SERIAL##*/}" "$logs/xen-$1.log"
}

# Waits for the job's status, or for the first sign that it will not come.
watch_xen() {
    local version=$1 mode=$2 began=$3 started='' problem='' code=$HARNESS_FAILED
    EMULATOR_CRASHED=
    until [[ -e $WORK/back/status ]]; do
        problem=$(fatal_line)
        if [[ -n $problem ]]; then
            problem="dom0 or Xen crashed: ${problem#* }"
        elif ! kill -0 "$QEMU" 2>/dev/null; then
            [[ -z $started || $mode == run ]] || { stop_qemu && say "Xen $version: left" && return 0; } # Ctrl-A x
            [[ -e $WORK/back/status ]] || problem='QEMU ended before the job did'
            # QEMU 7.2 sometimes fails with "tcg_handle_interrupt: assertion failed". Neither Xen nor dombuild causes that.
            ! grep -q 'assertion failed' "$WORK/qemu.log" || EMULATOR_CRASHED=yes
        elif [[ -z $started && -e $WORK/back/started ]]; then
            started=$SECONDS
        elif [[ -z $started ]] && ((SECONDS - began >= BOOT_TIMEOUT)); then
            problem="dom0 did not come up in $BOOT_TIMEOUT s" code=$TIMED_OUT
        elif [[ -n $started && $mode == run ]] && ((SECONDS - started >= JOB_TIMEOUT)); then
            problem="the job did not end in $JOB_TIMEOUT s" code=$TIMED_OUT
        fi
        if [[ -n $problem ]]; then
            sleep 1 # for the lines that follow
            stop_qemu
            show_end | sed 's/^/  | /' >&2
            say "Xen $version: NO RESULT: $problem (status $code; serial log: $SERIAL)"
            return "$code"
        fi
        sleep 0.3
    done
    local status ended=$SECONDS
    status=$(<"$WORK/back/status")
    for _ in {1..20}; do # powering off takes two seconds; all results are here already
        kill -0 "$QEMU" 2>/dev/null || break
        sleep 0.3
    done
    stop_qemu
    : "${started:=$ended}"
    say "Xen $version: the job ended with status $status (boot $((started - began)) s, job $((ended - started)) s; serial log: $SERIAL)"
    return "$status"
}

# Number and text of the first fatal line. Lines of guests are marked (d1) and so on: a guest's panic is not fatal.
fatal_line() {
    awk -v fatal="$FATAL_LINES" '!/\(d[0-9]+\)/ && match($0, fatal) { sub(/\r/, ""); print NR, substr($0, RSTART); exit }' "$SERIAL"
}

# The lines before the fatal one, or else the last ones. The call trace after it stays in the log.
show_end() {
    local fatal
    fatal=$(fatal_line)
    fatal=${fatal%% *}
    if [[ -n $fatal ]]; then
        sed -n "$((fatal > 25 ? fatal - 25 : 1)),$((fatal + 4))p" "$SERIAL"
    else
        tail -n 30 "$SERIAL"
    fi | tr -d '\r'
    grep -v 'nrip-save' "$WORK/qemu.log" || true # TCG warns that it lacks this; nothing here needs it
}

stop_qemu() {
    [[ -n ${QEMU:-} ]] || return 0
    kill "$QEMU" 2>/dev/null || true
    for _ in 1 2 3 4 5 6 7 8 9 10; do
        kill -0 "$QEMU" 2>/dev/null || break
        sleep 0.2
    done
    kill -9 "$QEMU" 2>/dev/null || true
    wait "$QEMU" 2>/dev/null || true
    QEMU=
    if [[ -n ${OUTPUT:-} ]]; then
        exec {output_open}>&-
        wait "$OUTPUT" || true
        OUTPUT=
    fi
    [[ -z ${TTY_STATE:-} ]] || stty "$TTY_STATE"
}
