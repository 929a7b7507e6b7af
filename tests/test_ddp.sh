#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Training in several processes: the same checkpoint from 1, 2 and 4 ranks, with which it can resume; and what happens when a rank
# is asked to stop, is killed, hangs, or cannot see the data. Needs a build with MPI, and mpirun.
set -u
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"

needs_mpi

# ranks N ARGUMENTS…: a job of N ranks, whatever processors there are
# shellcheck disable=SC2086 # $quiet may be no word at all
ranks() { timeout 60 mpirun ${quiet--q} --oversubscribe --bind-to none -np "$1" "$bitbyte" train --ddp "${@:2}"; }
model=(--data text.txt --n_layer 2 --d_model 32 --n_head 2 --d_ff 48 --seq_len 32 --batch_size 1 --threads 1 --device "$device"
    --seed 3 --lr 1e-3)
last() { echo "$1/$(printf 'step-%08d.safetensors' "$2")"; }
same() { cmp -s "$(last "$1" "$3")" "$(last "$2" "$3")" || fail "the checkpoints of $1 and $2 differ"; }

# ---- as help shows it: for root, and with fewer cores than ranks
"$bitbyte" help train >help.txt
(
    unset OMPI_ALLOW_RUN_AS_ROOT OMPI_ALLOW_RUN_AS_ROOT_CONFIRM
    mkdir shown && cd shown && ln -s "$bitbyte" bitbyte && ln -s ../text.txt data && PATH=$PWD:$PATH || exit 1
    eval "$(grep -E '^ *export OMPI' ../help.txt)"
    eval "$(grep -E '^ *mpirun ' ../help.txt) --steps 1 ${model[*]:2}"
) >out 2>err </dev/null || fail "the command that help shows"
says "rank     3 on "
expect 0 "$bitbyte" train --ddp "${model[@]}" --steps 1 --out alone
grep -qF -- "--ddp: this job has one rank" out err || fail "--ddp without a launcher does not say that it is one rank"

# ---- one result, by micro-batch: however many ranks, and on any number of them after a stop
exact=("${model[@]}" --reduce exact --global_batch 8 --steps 8)
expect 0 "$bitbyte" train "${exact[@]}" --out one
expect 0 ranks 2 "${exact[@]}" --out two
says "rank     1 on "
grep -q $'[\r\033]' out && fail "progress under mpirun is not plain lines"
expect 0 ranks 2 "${exact[@]}" --log_every 1 --stop_at 2
[ "$(find runs -mindepth 1 -maxdepth 1 | wc -l)" = 1 ] || fail "2 ranks made $(find runs -mindepth 1 -maxdepth 1 | wc -l) directories"
perl -MJSON::PP -ne 'decode_json($_)' runs/*/metrics.jsonl || fail "metrics.jsonl under mpirun is not plain lines"
expect 0 ranks 4 "${exact[@]}" --out four --save_every 4 --zero 0
same one two 8
same one four 8
[ "$(wc -l <four/metrics.jsonl)" = 1 ] || fail "metrics.jsonl of 4 ranks has $(wc -l <four/metrics.jsonl) lines, not 1"
for count in 1 2; do
    mkdir "again$count"
    cp four/config.json four/step-00000004.safetensors "again$count"
    if [ $count = 1 ]; then
        expect 0 "$bitbyte" train --resume again1
    else
        expect 0 ranks $count --resume "again$count"
    fi
    same one "again$count" 8
done
# fast: the same ranks, the same bits; three ranks share 8 batches as 2, 3 and 3
expect 0 ranks 3 "${model[@]}" --global_batch 8 --steps 4 --out three
expect 0 ranks 3 "${model[@]}" --global_batch 8 --steps 4 --out three_again
same three three_again 4

# ---- mistakes: said once, by rank 0
expect 2 ranks 2 "${model[@]}" --nonsense
complains "unknown option '--nonsense'"
[ "$(grep -c nonsense err)" = 1 ] || fail "a mistake of the command line is said more than once"
expect 2 ranks 3 "${model[@]}" --global_batch 2
complains "too small for 3 ranks"
expect 2 timeout 60 mpirun -q --oversubscribe -np 2 "$bitbyte" train "${model[@]}"
complains "add --ddp to train one model with all of them"
# one rank in a place where the data is not
cat >elsewhere.sh <<'SCRIPT'
if [ "${OMPI_COMM_WORLD_RANK:-0}" = 1 ]; then cd elsewhere || exit 1; fi
exec "$@"
SCRIPT
mkdir elsewhere
expect 1 timeout 60 mpirun -q --oversubscribe -np 3 bash elsewhere.sh "$bitbyte" train --ddp "${model[@]}" --out unseen
complains "rank 1 on "
complains "no such file"
[ ! -e unseen ] || fail "a run that could not start left its directory"
# or where the model is not, before the others measure for a plan
expect 1 timeout 60 mpirun -q --oversubscribe -np 3 bash elsewhere.sh "$bitbyte" train --ddp "${model[@]}" --data "$tmp/text.txt" --minutes 1 \
    --init one/step-00000008.safetensors --out unseen
complains "rank 1 on "
complains "one/step-00000008.safetensors"

# one rank that begins with other weights
cat >other.sh <<'SCRIPT'
if [ "${OMPI_COMM_WORLD_RANK:-0}" = 1 ]; then set -- "${@/%3/4}"; fi # --seed 3 becomes 4
exec "$@"
SCRIPT
expect 2 timeout 60 mpirun -q --oversubscribe -np 2 bash other.sh "$bitbyte" train --ddp "${model[@]}" --steps 9 --out apart
complains "at step 0 the weights of rank 1 on "
complains "differ from those of rank 0"

# ---- a stop, a death, a disk that is full, a rank that hangs
# begin NAME ARGUMENTS…: a long job of 3 ranks in the background
begin() {
    begin_output
    quiet='' ranks 3 "${model[@]}" --steps 1000000 --save_every 3 --log_every 1 --dist_timeout 3 --out "$tmp/$1" "${@:2}" >out 2>err &
    job=$!
    wait_for out "step 4/"
}
ended() { # STATUS SECONDS: of the job
    local start=$SECONDS got=0
    wait "$job" || got=$?
    [ "$got" = "$1" ] || fail "exit status $got instead of $1: $name"
    [ $((SECONDS - start)) -le "$2" ] || fail "$name took $((SECONDS - start)) seconds to end"
}
goes_on() {
    local step
    step=$(find "$name" -name 'step-*.safetensors' | sed -E 's/.*step-0*([0-9]+)\.safetensors/\1/' | sort -n | tail -n 1)
    expect 0 ranks 2 --resume "$name" --stop_at $((step + 1))
    says "stopped after step $((step + 1))"
}

# One that does not come: MPI's start waits for it. Looked at below, as this takes half a minute.
cat >late.sh <<'SCRIPT'
[ "${OMPI_COMM_WORLD_RANK:-0}" != 1 ] || kill -STOP $$
exec "$@"
SCRIPT
timeout 60 mpirun -q --oversubscribe -np 3 bash late.sh "$bitbyte" train --ddp "${model[@]}" --steps 9 --out late >late_out 2>late_err \
    </dev/null &
late=$!

name=asked
begin asked
kill -TERM "$(rank_of "$name" 1)"
ended 143 15
says "rank 1 on "
says "was asked to stop"
says "stopped after step"
[ "$(grep -c ' saved ' out)" = "$(grep ' saved ' out | sort -u | wc -l)" ] || fail "a stop saved more than once"
goes_on

# Errors of one rank, which all learn of: they save together, with the moments shared out among them.
name=lost
mkdir lost_data
cp text.txt lost_data/text.txt
cat >apart.sh <<'SCRIPT'
if [ "${OMPI_COMM_WORLD_RANK:-0}" = 1 ]; then cd lost_data || exit 1; fi
exec "$@"
SCRIPT
begin_output
timeout 60 mpirun --oversubscribe --bind-to none -np 3 bash apart.sh "$bitbyte" train --ddp "${model[@]}" --steps 1000000 --save_every 0 --log_every 1 \
    --out "$PWD/lost" >out 2>err &
job=$!
wait_for out "step 4/"
rm lost_data/text.txt
ended 1 15
complains "rank 1 on "
complains "lost_data/text.txt"
complains "is saved"
goes_on
name=unlogged
begin unlogged --save_every 0
mkdir unlogged/folder # one rename, so that no step finds the name free
ln -s folder unlogged/link
mv -T unlogged/link unlogged/metrics.jsonl
ended 1 15
complains "unlogged/metrics.jsonl"
complains "is saved"
rm unlogged/metrics.jsonl
goes_on

# A stop of a rank that waits for a long validation does not wait for its end.
name=validates
for ((i = 0; i < 300; i++)); do cat text.txt; done >many.txt
begin validates --save_every 0 --val_data many.txt --val_seq_len 8 --val_every 5 --val_batches 0
wait_for out "step 5/"
sleep 1
kill -TERM "$(rank_of "$name" 1)"
ended 143 15
says "the validation at step 5 was abandoned"
says "stopped after step 5 "
[ -f "$(last validates 5)" ] || fail "no checkpoint of the step that was being validated"

name=killed
begin killed
kill -KILL "$(rank_of "$name" 2)"
ended 137 15
complains "rank 2 with PID" # Open MPI says so
goes_on

name=hung
begin hung
victim=$(rank_of "$name" 1)
kill -STOP "$victim"
ended 1 15
complains "rank 1 on "
complains "sent no heartbeat for 3 seconds"
kill -KILL "$victim" 2>/dev/null
goes_on

# rank 0, through which the others hear of each other: the lowest that is well speaks for all
name=hung0
begin hung0
victim=$(rank_of "$name" 0)
kill -STOP "$victim"
ended 1 20
complains "rank 0 on "
complains "sent no heartbeat for 3 seconds"
[ "$(grep -c '^bitbyte' err)" = 1 ] || fail "a rank 0 that hangs is said $(grep -c '^bitbyte' err) times"
kill -KILL "$victim" 2>/dev/null
goes_on

wait $late
status=$?
[ $status = 1 ] || fail "a rank that does not come: exit status $status: $(cat late_err)"
[ "$(grep -c '^bitbyte' late_err)" = 1 ] || fail "a rank that does not come: $(cat late_err)"
grep -q "^bitbyte: rank 0 on .*: MPI did not start within 24 seconds: one of the job's 3 processes hangs" late_err ||
    fail "a rank that does not come: $(cat late_err)"
[ ! -e late ] || fail "a run that could not start left its directory"

expect 3 ranks 2 "${model[@]}" --steps 1000000 --max_minutes 0.05 --save_minutes 0.01 --out timed
says "stopped after step"
[ "$(grep -c ' saved ' out)" -ge 2 ] || fail "--save_minutes saved $(grep -c ' saved ' out) times"

# A plan and its correction are the same for all ranks.
perl -e 'local $/; my $text = <STDIN>; print $text x (1 + 4000000 / length $text)' <text.txt >long.txt
expect 0 ranks 2 --data long.txt "${model[@]:2}" --minutes 0.05 --out planned
says "plan     shape as specified"
steps=$(json_value planned/config.json steps)
says "done: $steps steps"
[ -f "$(last planned "$steps")" ] || fail "2 ranks with --minutes: no checkpoint of step $steps, the last"

if unshare -m true 2>/dev/null; then
    mkdir full
    bytes=$(wc -c <"$(last one 8)")
    cat >full.sh <<'SCRIPT'
mount -t tmpfs -o size="$1" none full || exit 99
"${@:2}"
status=$?
cp -r full/run full_run
exit $status
SCRIPT
    expect 1 unshare -m bash full.sh $((bytes * 5 / 2)) timeout 60 mpirun -q --oversubscribe -np 2 "$bitbyte" train --ddp \
        "${model[@]}" --steps 1000 --save_every 1 --out full/run
    complains "rank 0 on "
    complains "No space left on device"
    expect 0 "$bitbyte" info full_run --json
else
    echo "skipped: a full disk (no right to mount)"
fi
echo "passed"
