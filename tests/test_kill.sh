#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# kill -9 at random moments, 20 times, during a run that saves every step: the run directory can always be resumed, and the killed
# run ends with the same checkpoint, bit for bit, as an undisturbed one.
set -euo pipefail
bitbyte=$1
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
fail() { echo "FAILED: $*"; cat "$dir/log" 2>/dev/null; exit 1; }

for i in $(seq 2000); do echo "$i bytes of the text, and $((i * i % 97)) more."; done > "$dir/text"
train=("$bitbyte" train --data "$dir/text" --steps 400 --seq_len 32 --batch_size 1 --grad_accum 1 --n_layer 2 --d_model 64
    --n_head 2 --d_ff 128 --lr 1e-3 --seed 3 --threads 1 --log_every 1 --save_every 1 --keep 3
    --val_data "$dir/text" --val_every 7 --val_batches 1 --val_seq_len 32 --patience 1000)

microseconds() { local now=${EPOCHREALTIME/[.,]/}; echo "$now"; }
begin=$(microseconds)
"${train[@]}" --out "$dir/straight" > "$dir/log" 2>&1 || fail "the run that nothing disturbs"
whole=$(($(microseconds) - begin))

RANDOM=4
# kill_often: 20 starts, each killed at some moment; kills: how many of them were still running
kill_often() {
    kills=0
    for i in $(seq 20); do
        # Up to a twelfth of what the whole run takes on this machine: so twenty starts seldom come to its end.
        delay=$(printf '%d.%06d' 0 $((RANDOM * whole / 12 / 32768 % 1000000)))
        if [ -e "$dir/killed/latest" ]; then resume=(--resume "$dir/killed"); else resume=(--out "$dir/killed"); fi
        if ls "$dir"/killed/step-*.safetensors > /dev/null 2>&1; then resume=(--resume "$dir/killed"); fi
        "${train[@]}" "${resume[@]}" > "$dir/log" 2>&1 &
        pid=$!
        sleep "$delay"
        if kill -9 "$pid" 2> /dev/null; then kills=$((kills + 1)); fi
        wait "$pid" 2> /dev/null && status=0 || status=$?
        [ "$status" = 137 ] || [ "$status" = 0 ] || fail "start $i ended with status $status"
        for file in "$dir"/killed/step-*.safetensors; do
            [ -e "$file" ] || continue
            "$bitbyte" info "$file" --json > /dev/null 2> "$dir/log" || fail "$file is not whole after kill $i"
        done
        best=$dir/killed/best
        [ ! -e "$best" ] || [ -e "$dir/killed/$(cat "$best")" ] || fail "best names $(cat "$best"), which is gone after kill $i"
    done
}
# A machine that was busier while `whole` was measured lets the run end too soon: then once more, with kills that come earlier.
for tries in 1 2 3 4 5; do
    kill_often
    [ "$kills" -lt 10 ] || break
    [ "$tries" -lt 5 ] || fail "only $kills of 20 kills met a running process"
    rm -rf "$dir/killed"
    whole=$((whole / 2))
done
if ls "$dir"/killed/step-*.safetensors > /dev/null 2>&1; then resume=(--resume "$dir/killed"); else resume=(--out "$dir/killed"); fi
"${train[@]}" "${resume[@]}" > "$dir/log" 2>&1 || fail "the last resume"
cmp "$dir/straight/step-00000400.safetensors" "$dir/killed/step-00000400.safetensors" || fail "the checkpoints differ"
cmp "$dir/straight/best" "$dir/killed/best" && [ -e "$dir/killed/$(cat "$dir/killed/best")" ] || fail "the best checkpoints differ"
if ls "$dir"/killed/*.tmp.* > /dev/null 2>&1; then fail "temporary files were left"; fi
# every step has its one line, and each 7th and the last one more, whatever was killed
[ "$(wc -l < "$dir/killed/metrics.jsonl")" = 458 ] || fail "metrics.jsonl has $(wc -l < "$dir/killed/metrics.jsonl") lines, not 458"
echo "20 starts, $kills kills, the same checkpoint"
