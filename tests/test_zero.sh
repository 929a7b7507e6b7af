#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# --zero 1: the optimizer's state shared over ranks gives exactly the same files as without sharing, on 1, 2, 3 and 4 ranks, and
# a run can continue with either. Needs a build with MPI, and mpirun.
set -u
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"

expect 0 "$bitbyte" train --data text.txt "${tiny[@]}" --steps 1 --zero 1 --out without_ddp # one process: its part is all
expect 2 "$bitbyte" train --data text.txt --zero 2
complains "--zero 2: expected 0 or 1"
expect 2 "$bitbyte" train --data text.txt --zero -1
complains "--zero"
needs_mpi

# ranks N ARGUMENTS…: a job of N ranks, whatever processors there are
ranks() { timeout 120 mpirun --oversubscribe --bind-to none -np "$1" "$bitbyte" train --ddp "${@:2}"; }
same() { # A B STEP…
    local step
    for step in "${@:3}"; do
        cmp -s "$1/step-0000000$step.safetensors" "$2/step-0000000$step.safetensors" || fail "checkpoints $step of $1 and $2 differ"
    done
}
# Tensors whose blocks and units end short, and some too small for 8 bits.
model=(--data text.txt --n_layer 2 --d_model 100 --n_head 2 --d_ff 150 --seq_len 32 --batch_size 1 --threads 1 --device "$device"
    --seed 3 --lr 1e-3 --global_batch 8 --steps 6 --save_every 3)
# state FILE: the bytes of the optimizer's state of each rank, on a line; from the first line of --json
state() { perl -MJSON::PP -e 'print join(" ", map { $_->{optimizer} } @{decode_json(scalar <STDIN>)->{ranks}}), "\n"' <"$1"; }

# n-gram embeddings, which ranks share out by whole rows
plus=("${model[@]}" --optim muon --arch plus --ngram_bits 10 --reduce exact)
expect 0 "$bitbyte" train "${plus[@]}" --out plus-1
for count in 2 4; do
    expect 0 ranks $count "${plus[@]}" --zero 1 --out plus-$count
    same plus-1 plus-$count 3 6
done

for optim in adamw adamw8bit muon; do
    exact=("${model[@]}" --optim $optim --reduce exact)
    expect 0 "$bitbyte" train "${exact[@]}" --out $optim-1 --json
    whole=$(state out)
    limit=120
    [ $optim = adamw ] || limit=200 # with muon, a part is whole matrices
    for count in 1 2 4; do
        sync=()
        [ $count = 2 ] || sync=(--save_sync) # once from a copy, once as it is written
        expect 0 ranks $count "${exact[@]}" --zero 1 "${sync[@]}" --out $optim-$count-zero --json
        same $optim-1 $optim-$count-zero 3 6
        read -r -a parts <<<"$(state out)"
        [ "${#parts[@]}" = $count ] || fail "${#parts[@]} ranks told their memory instead of $count"
        sum=0
        for part in "${parts[@]}"; do
            sum=$((sum + part))
            # Parts are cut by elements, at this width into whole tensors, the largest of which have a seventh of them. With
            # adamw8bit the embedding, in f32, is a tenth of the elements and over a third of the bytes.
            [ $((part * count * 100)) -le $((whole * limit)) ] || fail "a rank of $count holds $part of $whole bytes"
        done
        [ $sum -ge "$whole" ] && [ $((sum * 100)) -le $((whole * 102)) ] || fail "$count ranks hold $sum of $whole bytes"
    done
    # as it is gathered to a copy on 4 ranks
    expect 0 ranks 4 "${exact[@]}" --zero 1 --out $optim-4-copied
    same $optim-1 $optim-4-copied 3 6
    # three ranks: with it and without; their sums have an order of their own
    for zero in 0 1; do expect 0 ranks 3 "${model[@]}" --optim $optim --zero $zero --out $optim-3-$zero; done
    same $optim-3-0 $optim-3-1 3 6

    # from 4 ranks with it to 1, 2 and 3, with it and without
    for to in 1 2-0 2-1 3-0 3-1; do
        mkdir again-$to
        cp $optim-4-zero/config.json $optim-4-zero/step-00000003.safetensors again-$to
        if [ $to = 1 ]; then
            expect 0 "$bitbyte" train --resume again-$to
        else
            expect 0 ranks ${to%-*} --resume again-$to --zero ${to#*-}
        fi
    done
    for to in 1 2-0 2-1; do same $optim-1 again-$to 6; done
    same again-3-0 again-3-1 6
    rm -r again-*
done

# so little that not every rank has a part
small=(--data text.txt --n_layer 1 --d_model 8 --n_head 1 --d_ff 8 --seq_len 16 --batch_size 1 --threads 1 --global_batch 4 --steps 2
    --reduce exact --device "$device")
expect 0 "$bitbyte" train "${small[@]}" --out small-1
for sync in "" --save_sync; do
    # shellcheck disable=SC2086 # none, or one option
    expect 0 ranks 4 "${small[@]}" --zero 1 --out small-4$sync $sync --json
    same small-1 small-4$sync 2
done
# what ranks took and waited is said at the end
says '"memory_peak"'
says '"exposed_share"'
expect 0 ranks 2 "${small[@]}" --zero 1 --out said
says "peak resident "
says "for communication not hidden by computation"
echo "passed"
