#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Each planted fault of faults.cu is found: by an order of threads or of streams ($1), or by AddressSanitizer ($2) or ThreadSanitizer ($3). Without a fault
# none of them says anything.
set -uo pipefail
# found_by FAULT: what notices it.
found_by() {
    local seed lazy status
    for seed in 0 1 2 3 4 5 "0, streams late" "0, streams by chance"; do
        case $seed in *late) lazy=1 ;; *chance) lazy=2 ;; *) lazy='' ;; esac
        EMULATION_LAZY=$lazy EMULATION_SEED=${seed%%,*} "$plain" "$1" 2>err
        status=$?
        if [ $status -eq 99 ]; then echo "a message with seed $seed: $(head -n 1 err)"; return; fi
        if [ $status -ne 0 ]; then echo "wrong results with seed $seed"; return; fi
    done
    for seed in 0 2; do
        EMULATION_SEED=$seed "$asan" "$1" 2>err || { echo "AddressSanitizer: $(grep -m 1 ERROR err)"; return; }
    done
    for seed in 0 2; do
        EMULATION_SEED=$seed "$tsan" "$1" 2>err || { echo "ThreadSanitizer: $(grep -m 1 WARNING err)"; return; }
    done
}

plain=$1 asan=$2 tsan=$3
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT
cd "$directory" || exit 1
export ASAN_OPTIONS=detect_leaks=0
found=$(found_by 0)
if [ -n "$found" ]; then echo "FAILED: without a fault: $found"; cat err; exit 1; fi
failed=0
for fault in 1 2 3 4 5 6 7 8 9 10 11 12; do
    found=$(found_by $fault)
    echo "fault $fault: ${found:-NOT FOUND}"
    [ -n "$found" ] || failed=1
done
exit $failed
