#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# --minutes and --size: the choices are printed, recorded and reproduced; the duration of a run is not tested.
set -u
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"

perl -e 'local $/; my $text = <STDIN>; print $text x (1 + 4000000 / length $text)' <text.txt >long.txt
train=("$bitbyte" train --data long.txt --threads 1 --device "$device" --log_every 1000)

# ---- what contradicts, or has no effect, is said
expect 2 "${train[@]}" --minutes 1 --steps 5
complains "give --minutes or --steps, not both"
expect 2 "${train[@]}" --minutes 1 --steps_before 10@5
complains "give --minutes or --steps_before, not both"
expect 2 "${train[@]}" --size 4m --steps 1
complains "train: --size '4m': expected 1m, 3m, 10m"
expect 2 "${train[@]}" --size 1m --d_model 64 --steps 1
complains "give --size or --d_model, not both"
expect 2 "${train[@]}" --size auto --steps 1
complains "--size auto requires --minutes"

expect 2 "${train[@]}" --minutes 0
complains "--minutes"
expect 2 "${train[@]}" --minutes 1 --global_batch 3000000000
complains "--global_batch 3000000000: expected at most 2147483647 with --minutes"

# ---- a size alone is a shape
expect 0 "${train[@]}" --size 1m --steps 1 --seq_len 16 --grad_accum 1 --out sized
[ "$(json_value sized/config.json d_model)" = 128 ] && [ "$(json_value sized/config.json n_layer)" = 4 ] || fail "--size 1m: its shape"

# ---- a plan: what is given stays, the rest is chosen, said and recorded; steps are corrected
tiny_shape=(--n_layer 1 --d_model 16 --n_head 1 --d_ff 16 --seq_len 16 --batch_size 2)
expect 0 "${train[@]}" "${tiny_shape[@]}" --minutes 0.05 --out planned
says "plan     shape as specified"
says "a step   2 x "
grep -q "note: the run has [0-9]* steps instead of [0-9]*, at the speed measured up to step" out err || fail "the correction is not said"
steps=$(json_value planned/config.json steps)
grep -q "done: $steps steps" out || fail "the run did not end after the $steps steps that config.json records"
for key in d_model:16 seq_len:16 batch_size:2; do
    [ "$(json_value planned/config.json ${key%:*})" = ${key#*:} ] || fail "--minutes changed ${key%:*}, which was given"
done
last=planned/step-$(printf %08d "$steps").safetensors
[ -e "$last" ] || fail "$last is missing"
"$bitbyte" info "$last" --json >info.json
grep -q "\"step\": *$steps" info.json || fail "the checkpoint has another step than $steps"

# ---- the recorded options say it all: a run with them computes the same. The rates of its steps depend on each correction.
# recorded RUN: the options that a run of --minutes recorded, as words.
recorded() {
    local name
    for name in steps steps_before warmup_steps global_batch; do printf -- '--%s %s ' $name "$(json_value "$1/config.json" $name)"; done
    [ "$(json_value "$1/config.json" no_ckpt)" = true ] && echo --no_ckpt
}
# The files name their options, so they differ; what the last step computed does not.
outcome() { perl -MJSON::PP -ne '$l = decode_json($_); END { print join(" ", @$l{qw(step loss grad_norm lr)}), "\n" }' "$1/metrics.jsonl"; }
[[ "$(json_value planned/config.json steps_before)" =~ ^[0-9]+@[0-9]+(,[0-9]+@[0-9]+)*$ ]] || fail "steps_before: $(cat planned/config.json)"
# shellcheck disable=SC2046
expect 0 "${train[@]}" "${tiny_shape[@]}" $(recorded planned) --out again
[ "$(outcome planned)" = "$(outcome again)" ] || fail "with the recorded steps: $(outcome again); planned: $(outcome planned)"

# ---- so does a run that was killed, whenever that was: here it has no checkpoint but its last one, and one from before a correction
# shellcheck disable=SC2046
expect 0 "${train[@]}" "${tiny_shape[@]}" $(recorded planned) --out killed --stop_at 8
cp planned/config.json killed/
expect 0 "$bitbyte" train --resume killed --log_every 1000
[ "$(outcome planned)" = "$(outcome killed)" ] || fail "resumed at step 8: $(outcome killed); planned: $(outcome planned)"

# ---- a checkpoint records its own schedule, without changes too: config.json, which later corrections rewrite, cannot change it
# schedules NAME OPTION…: a run to its end, and one that is resumed from a checkpoint beside another record of changes; both learn the same.
schedules() {
    local name=$1
    shift
    expect 0 "${train[@]}" "${tiny_shape[@]}" --steps 12 "${@:2}" --out "$name"
    expect 0 "${train[@]}" "${tiny_shape[@]}" --steps 12 "${@:2}" --stop_at 6 --out "$name-half"
    sed -i "s/\"steps_before\": [^,]*/\"steps_before\": $1/" "$name-half/config.json"
    expect 0 "$bitbyte" train --resume "$name-half/step-00000006.safetensors" --log_every 1000 --out "$name-resumed"
    [ "$(outcome "$name")" = "$(outcome "$name-resumed")" ] ||
        fail "$name, resumed from a checkpoint: $(outcome "$name-resumed"); from the beginning: $(outcome "$name")"
}
schedules unchanged '"40@8"'
schedules changed null --steps_before 40@8

# ---- and a run of several ranks
if ! ("$bitbyte" train --ddp --data missing 2>&1 || true) | grep -qF "without MPI" && command -v mpirun >/dev/null; then
    export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
    expect 0 env ASAN_OPTIONS=detect_leaks=0 mpirun --oversubscribe --bind-to none -np 2 "${train[@]}" "${tiny_shape[@]}" --batch_size 1 \
        --minutes 0.05 --ddp --reduce exact --out ranks
    # shellcheck disable=SC2046
    expect 0 env ASAN_OPTIONS=detect_leaks=0 "${train[@]}" "${tiny_shape[@]}" --batch_size 1 $(recorded ranks) --ddp --reduce exact --out one
    [ "$(outcome ranks)" = "$(outcome one)" ] || fail "one process with the steps of two ranks: $(outcome one); they had $(outcome ranks)"
fi

# ---- resuming keeps the steps
expect 0 "$bitbyte" train --resume planned --minutes 3
complains "--minutes has no effect"
says "$steps steps are done"

# ---- a run of days says so before its first step
timeout 60 "${train[@]}" --steps 1000000000000 --n_layer 1 --d_model 16 --n_head 1 --d_ff 16 --seq_len 16 --out endless >out 2>&1 &
wait_until "the note on a run of days" grep -q "days; --minutes 30" out
kill %1
wait

# ---- --stop_at is judged by the steps that the data allow: 312,500 here, for those that are planned may change
expect 0 "${train[@]}" "${tiny_shape[@]}" --grad_accum 8 --minutes 0.02 --stop_at 300000 --out stopping
grep -qF -- "--stop_at has no effect" err && fail "--stop_at is judged by steps that may change"

# ---- data too small for the time: the data ends the run
head -c 300 text.txt >small.txt
expect 0 "$bitbyte" train --data small.txt --threads 1 --device "$device" "${tiny_shape[@]}" --minutes 60 --stop_at 100000 --out bounded
complains "--stop_at has no effect"
says "20 epochs of the data"

# ---- and a text that is read often does not call for a larger model
yes "$(head -c 1000 text.txt)" | head -c 600000 >repeated.txt
expect 0 "$bitbyte" train --data repeated.txt --threads 1 --device "$device" --minutes 60 --stop_at 1 --out repeated
says "plan     size 1m: the largest that reads a byte per parameter in 4 epochs of the data"
