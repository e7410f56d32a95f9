#!/bin/bash
# Runs in dom0 of the nested Xen: plans, creates and starts an HVM guest, and compares every figure of the plan with Xen's.
# Ends with an error if one of them differs, or if SeaBIOS does not start.
set -euo pipefail

NAME=demo
SHAPE=(--memory 256MiB --vcpus 2)
FAILED=

title() { printf '\n\033[1m── %s\033[0m\n' "$*"; }
command_line() { printf '\033[1m$ %s\033[0m\n' "$*"; "$@"; }

# An integer field of a JSON document that dombuild printed.
field() { sed -n "s/^ *\"$1\": \([0-9]*\),\{0,1\}$/\1/p" "$2" | head -n 1; }

# What the hypervisor itself prints of a domain, in the newest of its dumps.
in_dump() { # DOMID FIELD
    xl debug-keys q
    sleep 0.5
    xl dmesg | awk -v title="General information for domain $1:" -v name="$2=" '
        index($0, title) { inside = 1 }
        inside && match($0, name "[0-9]+") {
            value = substr($0, RSTART + length(name), RLENGTH - length(name))
            inside = 0
        }
        END { print value }'
}

check() { # WHAT PLANNED XEN
    local verdict=equal
    [[ $2 == "$3" ]] || verdict='DIFFERENT' FAILED=yes
    printf '  %-34s %10s %10s   %s\n' "$1" "$2" "$3" "$verdict"
}

title 'The host'
command_line dombuild features

title 'The plan of a guest, computed without Xen'
command_line dombuild plan "${SHAPE[@]}"
dombuild --json plan "${SHAPE[@]}" >/tmp/plan

title 'The guest without a device model: what the build alone populates'
command_line dombuild create --name "$NAME-built" "${SHAPE[@]}" --device-model none --paused
BUILT=$(xl domid "$NAME-built")
BUILT_PAGES=$(in_dump "$BUILT" nr_pages)
command_line dombuild destroy "$NAME-built"

title 'The guest with QEMU'
command_line dombuild create --name "$NAME" "${SHAPE[@]}" --paused | tee /tmp/created
DOMID=$(xl domid "$NAME")
command_line xl list

title 'The plan, and what the hypervisor shows (xl debug-keys q)'
printf '  %-34s %10s %10s\n' '' plan Xen
check 'max pages' "$(field max_pages /tmp/plan)" "$(in_dump "$DOMID" max_pages)"
check 'owned pages, built' "$(field owned_pages_built /tmp/plan)" "$BUILT_PAGES"
check 'owned pages, running' "$(field owned_pages_running /tmp/plan)" "$(in_dump "$DOMID" nr_pages)"
check 'paging pool, KiB' "$(field shadow_kib /tmp/plan)" "$(awk '/paging pool/ { print $5 }' /tmp/created)"
check 'memory of xl list, MiB' $(($(field target_kib /tmp/plan) / 1024)) "$(xl list "$NAME" | awk 'NR == 2 { print $3 }')"
check 'memory/static-max, KiB' "$(field static_max_kib /tmp/plan)" "$(xenstore-read "/local/domain/$DOMID/memory/static-max")"

title 'Start: the messages of hvmloader, then of SeaBIOS'
command_line xl unpause "$NAME"
SHOWN=0
for ((second = 0; second < 180; second++)); do
    mapfile -t LINES_NOW < <(xl dmesg | grep -a "(d$DOMID) " || true)
    for ((; SHOWN < ${#LINES_NOW[@]}; SHOWN++)); do printf '  %s\n' "${LINES_NOW[SHOWN]#(XEN) }"; done
    [[ "${LINES_NOW[*]-}" != *'SeaBIOS (version'* ]] || break
    sleep 1
done
if [[ "${LINES_NOW[*]-}" == *'SeaBIOS (version'* ]]; then
    command_line xl list
    printf '  SeaBIOS runs. hvmloader populated %s pages for ACPI tables and the like: the guest owns %s now.\n' \
        $(($(in_dump "$DOMID" nr_pages) - $(field owned_pages_running /tmp/plan))) "$(in_dump "$DOMID" nr_pages)"
else
    echo '  SeaBIOS did not start within 180 seconds'
    FAILED=yes
fi

title 'Destroy the guest'
command_line dombuild destroy "$NAME"
command_line xl list

[[ -z $FAILED ]] || { printf '\nFAILED: see above\n'; exit 1; }
printf '\nEvery figure of the plan equals what Xen shows, and SeaBIOS ran in the guest that dombuild built.\n'
