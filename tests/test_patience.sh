#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# --patience: a run that overfits ends; its best checkpoint is kept, and `best` names it.
set -u
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"

head -c 600 text.txt >few.txt
for ((i = 0; i < 60; i++)); do printf 'Other words (no. %d): 0x%04x\n' $((i * i)) $((i * 977)); done >other.txt
train=("$bitbyte" train --data few.txt --val_data other.txt --val_every 5 --val_batches 0 --steps 1000 "${tiny[@]}" --lr 1e-2)
names() { (cd "$1" && ls) | tr '\n' ' '; }
# The step of the lowest val_bpb, and that value, from metrics.jsonl itself.
lowest() { perl -MJSON::PP -ne 'my $m = decode_json($_); my $v = $m->{val_bpb} // next; ($step, $best) = ($m->{step}, $v) if !defined $best || $v < $best;
    END { print "$step $best" }' "$1/metrics.jsonl"; }
last() { tail -n 1 "$1/metrics.jsonl"; }
checkpoint() { printf 'step-%08d.safetensors' "$1"; }

expect 0 "${train[@]}" --patience 3 --keep 1 --out run
read -r best bpb <<<"$(lowest run)"
last run >line
end=$(json_value line step)
[ "$best" -gt 0 ] && [ "$end" -lt 1000 ] && [ "$end" = $((best + 15)) ] || fail "best at $best, ended at $end: not three validations later"
[ "$(json_value line patience_left)" = 0 ] && [ "$(json_value line best_step)" = "$best" ] || fail "metrics.jsonl does not say so: $(cat line)"
says "step $best  validation bpb $(printf %.4f "$bpb"), the best so far"
says "; best at step $best, patience 0"
says "done: $end of 1000 steps"
says "3 validations in a row (--patience) were not better than the best one"
says "best: step $best, bpb $(printf %.4f "$bpb")"
says "bitbyte generate run/best --prompt"
[ "$(cat run/best)" = "$(checkpoint "$best")" ] || fail "best names $(cat run/best)"
[ "$(names run)" = "best config.json latest metrics.jsonl $(checkpoint "$best") $(checkpoint "$end") " ] || fail "--keep 1 leaves $(names run)"

# It has ended: resuming it does nothing, and more patience continues it.
cp -r run before
expect 0 "$bitbyte" train --resume run --threads 1
says "nothing to do: the run ended at step $end, 3 validations after the best one (bpb $(printf %.4f "$bpb") at step $best)"
diff -r run before || fail "resuming a run that has ended changed it"
expect 0 "$bitbyte" train --resume run --patience 5 --threads 1
says "done: $((best + 25)) of 1000 steps"
[ "$(cat run/best)" = "$(checkpoint "$best")" ] && [ -e "run/$(checkpoint "$best")" ] || fail "the best checkpoint is gone after more patience"

# Stopped amid counting, and resumed, and never stopped: the same.
expect 0 "${train[@]}" --patience 3 --keep 1 --out halves --stop_at $((best + 7))
says "stopped after step $((best + 7))"
rm halves/best # killed before it was written, say
expect 0 "$bitbyte" train --resume halves --threads 1
diff <(grep val_bpb halves/metrics.jsonl) <(grep val_bpb before/metrics.jsonl) || fail "the resumed run counted otherwise"
for file in best latest "$(checkpoint "$best")" "$(checkpoint "$end")"; do
    cmp "halves/$file" "before/$file" || fail "the resumed run left another $file"
done

# ---- RUN/best where a model is asked for
expect 0 "$bitbyte" eval before/best other.txt --seq_len 32 --threads 1 --device "$device" --json
[ "$(json_value out model)" = "before/$(checkpoint "$best")" ] || fail "eval RUN/best reads $(json_value out model)"
perl -e 'exit !(abs($ARGV[0] - $ARGV[1]) < 1e-6)' "$(json_value out bpb)" "$bpb" || fail "eval RUN/best: $(json_value out bpb), not $bpb"
expect 0 "$bitbyte" eval before/latest other.txt --seq_len 32 --threads 1 --device "$device" --json
[ "$(json_value out model)" = "before/$(checkpoint "$end")" ] || fail "eval RUN/latest"
expect 0 "$bitbyte" generate before/best --prompt a --max_new_bytes 4 --threads 1 --device "$device"
expect 0 "$bitbyte" export before/best --out packed --device "$device"
says "from before/$(checkpoint "$best")"
expect 0 "$bitbyte" info before/best --json
[ "$(json_value out training_state | json_value /dev/stdin step)" = "$best" ] || fail "info RUN/best"
expect 0 "$bitbyte" info --verify before/best
says "before/$(checkpoint "$best")"
expect 0 "$bitbyte" train --init before/best --data few.txt --steps 1 --seq_len 32 --batch_size 1 --grad_accum 1 --threads 1 --out from
[ "$(json_value from/config.json init)" = "$tmp/before/$(checkpoint "$best")" ] || fail "--init RUN/best"
expect 0 "$bitbyte" train --resume before/best --steps $((best + 1)) --out on --threads 1
says "resumes  before/$(checkpoint "$best")"
expect 2 "$bitbyte" export before/best --out before/best
complains "the pointer to a run's best checkpoint"
cp -r before gone
rm "gone/$(checkpoint "$best")"
expect 1 "$bitbyte" eval gone/best other.txt
complains "gone/best: names $(checkpoint "$best"), which cannot be found"
expect 0 "$bitbyte" train --resume gone --patience 4 --threads 1
says "the best validation so far, bpb $(printf %.4f "$bpb") at step $best, has no checkpoint"
[ ! -e gone/best ] || fail "best names what is gone"

# ---- another program's best, and another run's
mkdir foreign
echo "my best recipes" >foreign/best
expect 2 "${train[@]}" --patience 3 --out foreign
complains "foreign/best: expected a file of a training run"
expect 0 "${train[@]}" --patience 3 --out before --allow_overwrite --steps 5
[ "$(cat before/best)" = "$(checkpoint 5)" ] || fail "best of a run that was overwritten: $(cat before/best)"
expect 0 "${train[@]}" --patience 0 --out before --allow_overwrite --steps 2
[ ! -e before/best ] || fail "best of a run that was overwritten is left"

# ---- without effect, or with another
expect 0 "$bitbyte" train --data few.txt --steps 1 "${tiny[@]}" --patience 2 --out plain
complains "note: --patience has no effect: it requires --val_data"
expect 0 "$bitbyte" train --data few.txt --val_data other.txt --val_every 0 --steps 1 "${tiny[@]}" --patience 2 --out once
complains "note: --patience has no effect: --val_every 0 validates only after the last step"
expect 0 "$bitbyte" train --data few.txt --val_data other.txt --val_every 2 --steps 2 "${tiny[@]}" --patience 2 --out short
complains "note: --patience has no effect: the run has no more steps than --val_every"
expect 2 "${train[@]}" --patience -1 --out negative
complains "--patience"
expect 0 "$bitbyte" train --resume halves --patience 4 --val_batches 1 --threads 1
complains "note: --val_batches has changed since the earlier validations, which --patience compares with"

# ---- as JSON, and on two ranks: one decides, both end
expect 0 "${train[@]}" --patience 2 --out json --json
json_lines out >/dev/null
grep '"validation"' out | tail -n 1 >line
[ "$(json_value line patience_left)" = 0 ] && [ "$(json_value line best_step)" = "$best" ] || fail "--json: $(cat line)"
tail -n 1 out >line
[ "$(json_value line event)" = done ] && [ "$(json_value line out_of_patience)" = 1 ] || fail "--json: the end: $(cat line)"
needs_mpi
expect 0 "${train[@]}" --grad_accum 2 --reduce exact --patience 2 --keep 1 --out alone
expect 0 mpirun --oversubscribe --bind-to none -np 2 "${train[@]}" --ddp --reduce exact --patience 2 --keep 1 --out pair
diff <(grep val_bpb alone/metrics.jsonl) <(grep val_bpb pair/metrics.jsonl) || fail "two ranks count otherwise"
[ "$(names alone)" = "$(names pair)" ] && cmp alone/best pair/best && cmp "alone/$(cat alone/best)" "pair/$(cat pair/best)" ||
    fail "two ranks leave $(names pair), one leaves $(names alone)"
expect 0 mpirun --oversubscribe --bind-to none -np 2 "$bitbyte" train --ddp --resume pair --threads 1
says "nothing to do: the run ended at step"
echo "passed"
