#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# One process a card, emulated ($1), the ordinary program ($2), and the test of steps without waits ($3): the same bits from 1, 2 and 4 ranks, resumed on either device by any
# number of them; which card a rank takes; a rank that is lost.
set -uo pipefail
ordinary=$(realpath "$2") ahead=$(realpath "$3")
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/../program_helpers.sh"
needs_mpi
export EMULATION_CARDS=4
# ranks PROGRAM N ARGUMENTS…: a job of N ranks
ranks() { timeout 120 mpirun -q --oversubscribe --bind-to none -np "$2" "$1" train --ddp "${@:3}"; }
last() { printf '%s/step-%08d.safetensors' "$1" "$2"; }
same() { cmp -s "$(last "$1" "$3")" "$(last "$2" "$3")" || fail "the checkpoints of $1 and $2 differ"; }
model=(--data text.txt --n_layer 2 --d_model 64 --n_head 2 --n_kv_head 1 --d_ff 96 --seq_len 20 --batch_size 1 --seed 3 --device cuda)

# ---- one result, however many cards: moments in 8 bits, f32 weights where the estimator reads them, whole matrices
declare -A also=([adamw8bit]='' [adamw]='--ste clipped' [muon]='')
for optim in adamw8bit adamw muon; do
    # shellcheck disable=SC2206 # no word, or some
    run=("${model[@]}" --optim $optim ${also[$optim]} --reduce exact --global_batch 4 --steps 4 --save_every 2)
    expect 0 "$bitbyte" train "${run[@]}" --out one-$optim
    expect 0 ranks "$bitbyte" 2 "${run[@]}" --out two-$optim
    EMULATION_SEED=2 EMULATION_LAZY=1 expect 0 ranks "$bitbyte" 4 "${run[@]}" --out four-$optim
    same one-$optim two-$optim 4
    same one-$optim four-$optim 4
done
expect 0 ranks "$bitbyte" 2 "${run[@]}" --zero 0 --save_copy no --out whole
same one-muon whole 4
# without a copy of what other ranks hold, and in the order that is fast
for again in '' -again; do
    expect 0 ranks "$bitbyte" 3 "${model[@]}" --global_batch 4 --steps 2 --save_copy no --out three$again
done
same three three-again 2

# ---- from cards to processors and back, with other numbers of ranks
mkdir moved
cp four-adamw8bit/config.json "$(last four-adamw8bit 2)" moved
expect 0 ranks "$bitbyte" 2 --resume moved
same moved four-adamw8bit 4
expect 0 ranks "$ordinary" 2 --resume moved --steps 5 --device cpu --threads 1
expect 0 ranks "$bitbyte" 4 --resume moved --steps 6 --device cuda
expect 0 "$ordinary" eval moved text.txt --seq_len 20 --threads 1

# ---- fp16: a scale that overflows is skipped and halved by all ranks alike, whether or not each holds all of the moments
run=("${model[@]}" --dtype fp16 --loss_scale 1e8 --reduce exact --global_batch 4 --steps 12 --save_every 12 --log_every 1 --optim adamw8bit)
for job in "alone 1" "divided 2" "each 2 --zero 0"; do
    read -r name count zero <<<"$job"
    # shellcheck disable=SC2086 # no word, or some
    expect 0 ranks "$bitbyte" "$count" "${run[@]}" $zero --out "$name"
    says "the gradient norm is not finite; the loss scale is now 5e+07"
    same alone "$name" 12
done
tail -n 1 alone/metrics.jsonl >line
perl -MJSON::PP -e 'my $line = decode_json(<STDIN>); exit !($line->{skipped} > 1 && $line->{skipped} < 10 && $line->{loss_scale} < 5e7 && $line->{grad_norm} > 0)' <line ||
    fail "fp16 did not recover: $(cat line)"

# ---- a loss that is not finite on one rank: all do the step again without it
EMULATION_LAZY=1 expect 0 timeout 120 mpirun -q --oversubscribe --bind-to none -np 2 "$ahead" ranks

# ---- each rank has a card of its own
EMULATION_CARDS=2 expect 2 ranks "$bitbyte" 3 "${model[@]}" --out shared
complains "ranks 0 and 2, both on "
complains "would compute on the same card"
expect 2 ranks "$bitbyte" 2 "${model[@]}" --device cuda:1 --out shared
complains "ranks 0 and 1, both on "
EMULATION_CARDS=2 expect 2 ranks "$bitbyte" 2 "${model[@]}" --device cuda:2 --out shared
complains "there are 2 cards"
[ ! -e shared ] || fail "a run that could not start left its directory"
export EMULATION_MEMORY=300000
expect 1 ranks "$bitbyte" 2 "${model[@]}" --out small
complains "of the card's memory, but only 300 KB of 300 KB is free"
unset EMULATION_MEMORY

# ---- a rank that is lost ends the job, and is named
begin_output
timeout 120 mpirun --oversubscribe --bind-to none -np 3 "$bitbyte" train --ddp "${model[@]}" --global_batch 3 --steps 1000000 --save_every 2 \
    --log_every 1 --dist_timeout 3 --out "$tmp/lost" >out 2>err &
job=$!
wait_for out "step 4/"
victim=$(rank_of lost 1)
kill -STOP "$victim"
begin=$SECONDS
wait $job && fail "a job went on without a rank"
[ $((SECONDS - begin)) -le 30 ] || fail "a lost rank ended the job after $((SECONDS - begin)) seconds"
complains "rank 1 on "
complains "sent no heartbeat for 3 seconds"
kill -KILL "$victim" 2>/dev/null
expect 0 "$bitbyte" info lost
