#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# --minutes and --size: what is chosen is said, recorded and reproduced; how long a run takes is not tested.
set -u
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"

perl -e 'local $/; my $text = <STDIN>; print $text x (1 + 4000000 / length $text)' <text.txt >long.txt
train=("$bitbyte" train --data long.txt --threads 1 --device "$device" --log_every 1000 --lr_schedule constant)

# ---- what contradicts, or has no effect, is said
expect 2 "${train[@]}" --minutes 1 --steps 5
complains "give --minutes or --steps, not both"
expect 2 "${train[@]}" --size 4m --steps 1
complains "size '4m': expected 1m, 3m, 10m"
expect 2 "${train[@]}" --size 1m --d_model 64 --steps 1
complains "give --size or --d_model, not both"
expect 2 "${train[@]}" --size auto --steps 1
complains "--size auto requires --minutes"

# ---- a size alone is a shape
expect 0 "${train[@]}" --size 1m --steps 1 --seq_len 16 --grad_accum 1 --out sized
[ "$(json_value sized/config.json d_model)" = 128 ] && [ "$(json_value sized/config.json n_layer)" = 4 ] || fail "--size 1m: its shape"

# ---- a plan: what is given stays, the rest is chosen, said and recorded; steps are corrected once
tiny_shape=(--n_layer 1 --d_model 16 --n_head 1 --d_ff 16 --seq_len 16 --batch_size 2)
expect 0 "${train[@]}" "${tiny_shape[@]}" --minutes 0.05 --out planned
says "plan     shape as given"
says "a step   2 x "
grep -q "note: the run has [0-9]* steps instead of [0-9]*, at the speed of its first" out err || fail "the correction is not said"
steps=$(json_value planned/config.json steps)
grep -q "done: $steps steps" out || fail "the run did not end after the $steps steps that config.json records"
for key in d_model:16 seq_len:16 batch_size:2; do
    [ "$(json_value planned/config.json ${key%:*})" = ${key#*:} ] || fail "--minutes changed ${key%:*}, which was given"
done
last=planned/step-$(printf %08d "$steps").safetensors
[ -e "$last" ] || fail "$last is missing"
"$bitbyte" info "$last" --json >info.json
grep -q "\"step\": *$steps" info.json || fail "the checkpoint has another step than $steps"

# ---- the recorded options say it all: a run with them computes the same (with another schedule, but for the rates before the correction)
warmup=$(json_value planned/config.json warmup_steps)
expect 0 "${train[@]}" "${tiny_shape[@]}" --steps "$steps" --warmup_steps "$warmup" --grad_accum "$(json_value planned/config.json grad_accum)" \
    $([ "$(json_value planned/config.json no_ckpt)" = true ] && echo --no_ckpt) --out again
# The files name their options, so they differ; what the last step computed does not.
outcome() { perl -MJSON::PP -ne '$l = decode_json($_); END { print join(" ", @$l{qw(step loss grad_norm lr)}), "\n" }' "$1/metrics.jsonl"; }
[ "$(outcome planned)" = "$(outcome again)" ] || fail "with the recorded steps: $(outcome again); planned: $(outcome planned)"

# ---- resuming keeps the steps
expect 0 "$bitbyte" train --resume planned --minutes 3
complains "--minutes has no effect"
says "$steps steps are done"

# ---- a run of days says so before its first step
timeout 60 "${train[@]}" --steps 1000000000000 --n_layer 1 --d_model 16 --n_head 1 --d_ff 16 --seq_len 16 --out endless >out 2>&1 &
wait_until "the note on a run of days" grep -q "days; --minutes 30" out
kill %1
wait

# ---- data too small for the time: the data ends the run
head -c 300 text.txt >small.txt
expect 0 "$bitbyte" train --data small.txt --threads 1 --device "$device" "${tiny_shape[@]}" --minutes 60 --out bounded
says "20 epochs of the data"
