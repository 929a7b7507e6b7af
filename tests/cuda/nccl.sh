#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# Exchanges between cards without the host's memory, for which libraries/nccl.cpp stands: the same bits as through it, from any number of
# ranks; what is done when the library is not right; a rank that is lost. $1: the emulated program, $2: the folder with the stand-in.
set -uo pipefail
libraries=$(realpath "$2")
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/../program_helpers.sh"
needs_mpi
export EMULATION_CARDS=4 STAND_IN_LOG=$tmp/log BITBYTE_CUDA_GEMM=kernels
# ranks N ARGUMENTS…: a job of N ranks; with N ARGUMENTS…: one that finds the library
ranks() { timeout 120 mpirun -q --oversubscribe --bind-to none -np "$1" "$bitbyte" train --ddp "${@:2}"; }
with() { LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} ranks "$@"; }
same() { cmp -s "$1/step-00000003.safetensors" "$2/step-00000003.safetensors" || fail "the checkpoints of $1 and $2 differ"; }
used() { [ -s log ] || fail "the library was not used"; }
model=(--data text.txt --n_layer 2 --d_model 64 --n_head 2 --n_kv_head 1 --d_ff 96 --seq_len 20 --batch_size 1 --seed 3 --device cuda)

# ---- the bits of one rank, with parts that are summed by twos, in order (3 ranks), and with f32 weights exchanged
run=("${model[@]}" --reduce exact --global_batch 4 --steps 3 --save_every 3 --optim adamw8bit)
expect 0 "$bitbyte" train "${run[@]}" --out one
expect 0 with 2 "${run[@]}" --out two
used
says ", NCCL 99999"
same one two
for lazy in '' 1; do
    rm -f log
    EMULATION_SEED=3 EMULATION_LAZY=$lazy expect 0 with 4 "${run[@]}" --out four$lazy
    used
    same one four$lazy
done
expect 0 with 2 "${run[@]}" --zero 0 --out whole
same one whole
three=("${model[@]}" --global_batch 3 --steps 3 --save_every 3 --optim adamw --ste clipped --save_copy no)
rm -f log
BITBYTE_CUDA_NCCL=off expect 0 with 3 "${three[@]}" --out through_host
says "; NCCL is not used: rank 0 on "
[ ! -e log ] || fail "BITBYTE_CUDA_NCCL=off has no effect"
expect 0 with 3 "${three[@]}" --out three
used
same through_host three

# ---- what is not right is not used
for wrong in join:"NCCL: unhandled system error" bytes:"a wrong sum" error:"remote process exited"; do
    rm -f log
    STAND_IN_NCCL=${wrong%%:*} expect 0 with 2 "${run[@]}" --dist_timeout 4 --out refused-"${wrong%%:*}"
    says "; NCCL is not used: "
    says "${wrong#*:}"
    same one refused-"${wrong%%:*}"
done

# ---- a rank that is lost while the others wait for its messages
for signal in STOP KILL; do
    begin_output
    LD_LIBRARY_PATH=$libraries${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} timeout 120 mpirun --oversubscribe --bind-to none -np 3 "$bitbyte" train --ddp \
        "${model[@]}" --global_batch 3 --steps 1000000 --save_every 2 --log_every 1 --dist_timeout 3 --out "$tmp/lost-$signal" >out 2>err &
    job=$!
    wait_for out "step 4/"
    victim=$(rank_of lost-$signal 1)
    kill -$signal "$victim"
    begin=$SECONDS
    wait $job && fail "a job went on without a rank"
    [ $((SECONDS - begin)) -le 30 ] || fail "a lost rank ended the job after $((SECONDS - begin)) seconds"
    if [ $signal = STOP ]; then complains "sent no heartbeat for 3 seconds"; complains "rank 1 on "; else complains "rank 1 with PID"; fi
    kill -KILL "$victim" 2>/dev/null
    expect 0 "$bitbyte" info lost-$signal
done
