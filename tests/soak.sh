#!/usr/bin/env bash
# Trains under kills, stops, and disks that are full for a while, and compares every end with a run that nothing disturbed: the same
# checkpoint, bit for bit. What happens when is by chance, of a seed; how it ends is not.
#   tests/soak.sh PROGRAM [SECONDS] [SEED]      SECONDS: 3600
# Full disks need the right to mount a tmpfs; without it they are left out, aloud.
# SPDX-License-Identifier: MIT
set -euo pipefail
bitbyte=$(realpath "$1")
seconds=${2:-3600}
RANDOM=${3:-1}
export OMP_WAIT_POLICY=passive
dir=$(mktemp -d)
mounted=
cleanup() {
    [ -z "$mounted" ] || umount "$mounted" || true
    rm -rf "$dir"
}
trap cleanup EXIT
fail() {
    echo "FAILED: $*" >&2
    tail -n 20 "$dir/log" >&2 || true
    exit 1
}
now() { local t=${EPOCHREALTIME/[.,]/}; echo "$t"; } # microseconds
pause() { sleep "$(printf '%d.%06d' $(($1 / 1000000)) $(($1 % 1000000)))"; }

for i in $(seq 3000); do echo "$i bytes of the text, and $((i * i % 97)) more."; done >"$dir/text"
train=("$bitbyte" train --data "$dir/text" --steps 300 --seq_len 32 --batch_size 2 --grad_accum 1 --n_layer 2 --d_model 64 --n_head 2
    --d_ff 128 --lr 1e-3 --seed 3 --log_every 1 --spike_skip 5 --keep 3)

begin=$(now)
"${train[@]}" --out "$dir/straight" --save_every 7 >"$dir/log" 2>&1 || fail "the run that nothing disturbs"
whole=$(($(now) - begin))
expected=$dir/straight/step-00000300.safetensors
bytes=$(wc -c <"$expected")

# Room for the three checkpoints that are kept, the one that is being written, and the rest of a run folder.
out=$dir/disk
mkdir "$out"
if mount -t tmpfs -o size=$((bytes * 6)) none "$out" 2>/dev/null; then
    mounted=$out
else
    echo "SKIPPED: full disks (no right to mount)"
fi

holds_checkpoint() { compgen -G "$1/step-*.safetensors" >/dev/null; }

# One run from its beginning to its end through as many disturbances as it takes.
disturbed_run() {
    local run=$1 start status stopper action resume filler=$out/filler
    for ((start = 1; ; start++)); do
        [ $start -le 200 ] || fail "a run did not end after 200 starts"
        if holds_checkpoint "$run"; then resume=(--resume "$run"); else resume=(--out "$run"); fi
        # Now and then with another number of threads, another rhythm of saving, and no thread that saves.
        resume+=(--threads $((1 + RANDOM % 2)) --save_every $((1 + RANDOM % 9)))
        if ((RANDOM % 4 == 0)); then resume+=(--save_sync); fi
        action=$((RANDOM % 8))
        "${train[@]}" "${resume[@]}" >"$dir/log" 2>&1 &
        local pid=$!
        pause $((RANDOM * (whole / 4 + 1) / 32768))
        case $action in
            0 | 1 | 2) stopper=kill; kill -KILL $pid 2>/dev/null || true ;;
            3 | 4) stopper=stop; kill -INT $pid 2>/dev/null || true ;;
            5) stopper=stop; kill -TERM $pid 2>/dev/null || true ;;
            6) # the disk is full from now on, until the run has met that or ended
                stopper=full
                if [ -n "$mounted" ]; then dd if=/dev/zero of="$filler" bs=4096 >/dev/null 2>&1 || true; fi
                ;;
            *) stopper=none ;;
        esac
        status=0
        wait $pid 2>/dev/null || status=$?
        rm -f "$filler"
        count[$stopper]=$((${count[$stopper]:-0} + 1))
        case $stopper:$status in
            *:0) ;; # it came to its end first
            kill:137 | stop:130 | stop:143) ;;
            full:1) grep -qE "No space left|cannot" "$dir/log" || fail "a full disk, and another error" ;;
            *) fail "start $start ended with status $status after '$stopper'" ;;
        esac
        if holds_checkpoint "$run"; then
            "$bitbyte" info --verify "$run" >"$dir/verified" 2>&1 || { cat "$dir/verified"; fail "a damaged checkpoint after '$stopper'"; }
        fi
        if [ $status = 0 ]; then break; fi
    done
    cmp "$expected" "$run/step-00000300.safetensors" || fail "a disturbed run ended with another checkpoint"
    if compgen -G "$run/*.tmp.*" >/dev/null; then fail "temporary files were left"; fi
    [ "$(wc -l <"$run/metrics.jsonl")" = 300 ] || fail "metrics.jsonl has $(wc -l <"$run/metrics.jsonl") lines, not 300"
    starts=$((starts + start))
}

declare -A count=()
runs=0 starts=0
end=$((SECONDS + seconds))
while :; do
    disturbed_run "$out/run"
    rm -rf "$out/run"
    runs=$((runs + 1))
    [ $SECONDS -lt $end ] || break
done
echo "$runs runs, $starts starts: ${count[kill]:-0} kills, ${count[stop]:-0} stops, ${count[full]:-0} full disks; each ended with the checkpoint of the undisturbed run"
