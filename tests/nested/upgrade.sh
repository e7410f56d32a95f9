#!/bin/bash
# One half of `tests/nested.sh upgrade`, in dom0: guests are saved on one version of Xen and restored on another.
#   upgrade.sh save       makes a Linux guest (PVH) and an HVM guest with QEMU for each of dombuild and xl, which saves them
#                         into /results: NAME.saved, and NAME.sum, the sum of its memory by the guest itself
#   upgrade.sh restore    restores each of them from /job/files/saved by dombuild and by xl, and has the Linux guests compute
#                         their sums again
set -euo pipefail

CONSOLE=/var/log/xen/console
SAVED=/job/files/saved

fail() {
    echo "FAILED: $*" >&2
    tail -n 20 "$CONSOLE/guest-$NAME.log" >&2 || true
    xl dmesg | tail -n 20 >&2
    exit 1
}

# until_true SECONDS WHAT COMMAND...
until_true() {
    local end=$((SECONDS + $1)) what=$2
    shift 2
    until "$@"; do
        ((SECONDS < end)) || fail "not within the time: $what"
        sleep 0.5
    done
}

sum() { grep -a '^guest: sum ' "$CONSOLE/guest-$NAME.log" 2>/dev/null | tail -n 1 | tr -d '\r' | cut -d ' ' -f 3; }
has_sum() { [[ -n $(sum) ]]; }
cpu_time() { xl list "$NAME" | awk 'NR == 2 { print $6 }'; }
runs_on() { [[ $(xl list "$NAME" | awk 'NR == 2 { print $5 }') != *[ps]* && $(cpu_time) != "$1" ]]; }

save() { # by NAME
    local by=$1 file=/var/tmp/$NAME.saved
    # Not in the shared folder itself: a file there takes no direct writes.
    if [[ $by == dombuild ]]; then dombuild save "$NAME" "$file"; else xl save "$NAME" "$file"; fi >/dev/null
    dombuild check "$file" >/dev/null || fail "dombuild check refuses the file of $NAME"
    cp "$file" /results/
    rm "$file"
}

save_all() {
    local by
    for by in dombuild xl; do
        NAME=linux-of-$by
        # mitigations=off and the like only save time in emulation.
        dombuild create --name "$NAME" --kind pvh --memory 112 --platform tsc_mode=2 --kernel /srv/guest/vmlinux --ramdisk /srv/guest/initrd \
            --cmdline 'console=hvc0 tsc=unstable mitigations=off guest.touch=16 guest.sum' >/dev/null
        until_true 240 "$NAME is up" has_sum
        sum >"/results/$NAME.sum"
        save "$by"
        NAME=seabios-of-$by
        dombuild create --name "$NAME" --memory 96 >/dev/null
        sleep 5
        save "$by"
        echo "saved by $by on Xen $NESTED_XEN: linux-of-$by, $NAME"
    done
}

restore_all() {
    local by file before
    for file in "$SAVED"/*.saved; do
        for by in dombuild xl; do
            NAME=$(basename "$file" .saved)
            rm -f "$CONSOLE/guest-$NAME.log"
            if [[ $by == dombuild ]]; then dombuild restore "$file" >/dev/null; else xl restore "$file" >/dev/null 2>&1; fi ||
                fail "$by cannot restore $NAME"
            before=$(cpu_time)
            until_true 60 "$NAME runs" runs_on "$before"
            if [[ -e $SAVED/$NAME.sum ]]; then
                # It computes the sum again when its size changes.
                xl mem-set "$NAME" 104m
                until_true 120 "$NAME follows its balloon" has_sum
                [[ $(sum) == "$(<"$SAVED/$NAME.sum")" ]] || fail "the memory of $NAME, restored by $by, has changed"
            fi
            dombuild destroy --force "$NAME" >/dev/null
            echo "restored by $by on Xen $NESTED_XEN: $NAME"
        done
    done
    [[ $(dombuild --json cleanup | tr -d ' \n') == '[]' ]] || fail 'something is left on the host'
}

"${1}_all"
