#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The dense twin on the command line: training, resuming, ranks, its uses, and what is refused.
set -uo pipefail
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/program_helpers.sh"
shape=(--n_layer 2 --d_model 40 --n_head 2 --d_ff 52)
small=("${shape[@]}" --dense --seq_len 32 --batch_size 2 --threads 1 --device "$device")
train() { expect 0 "$bitbyte" train "${@}"; }

train --data text.txt --out whole "${small[@]}" --grad_accum 1 --steps 8
says ", d_ff 52, dense"
grep -qF "no effect" err && fail "an option without effect: $(cat err)"
grep -qF '"quantized_weights":' out && fail "a dense model has no quantized weights"
train --data text.txt --out run "${small[@]}" --grad_accum 1 --steps 8 --stop_at 3
train --resume run
model=whole/step-00000008.safetensors
cmp $model run/step-00000008.safetensors || fail "a resumed run gives another model"
train --data text.txt --out threads "${small[@]}" --grad_accum 1 --steps 8 --threads 2
cmp $model threads/step-00000008.safetensors || fail "two threads give another model"
train --data text.txt --out next --init $model --steps 1 --seq_len 32 --device "$device"
says ", dense"

# Options that contradict it, or do nothing.
train --data text.txt --out ternary "${shape[@]}" --seq_len 32 --steps 1 --device "$device"
expect 2 "$bitbyte" train --resume ternary --steps 3 --dense
complains "--dense"
expect 2 "$bitbyte" train --data text.txt --out x --init ternary/step-00000001.safetensors --dense
complains "ternary/step-00000001.safetensors, which has ternary weights"
expect 2 "$bitbyte" train --data text.txt --out x "${shape[@]}" --dense --ste clipped
complains "a dense model quantizes nothing"
expect 2 "$bitbyte" train --data text.txt --out x --dense --minutes 1
complains "with --dense, give --size and --steps"
train --data text.txt --out none "${small[@]}" --steps 1 --no_act_quant --ste identity
complains "--no_act_quant has no effect"
complains "--ste has no effect"

# What reads it, and what cannot.
expect 0 "$bitbyte" generate $model --prompt "the " --max_new_bytes 20 --seed 3 --device "$device"
cp out generated
expect 0 "$bitbyte" eval $model --data text.txt --seq_len 64 --json --device "$device"
json_value out bpb >bpb
expect 0 "$bitbyte" info $model --verify
expect 0 "$bitbyte" info $model
says "dense"
for format in packed gguf hf safetensors; do
    expect 1 "$bitbyte" export $model --out other --format $format
    complains "only format bitbyte can hold it"
    [ ! -e other ] || fail "a refused export left something"
done
train --data text.txt --out both "${small[@]}" --arch plus --ngram_bits 8 --steps 1
expect 1 "$bitbyte" export both --out other.gguf
complains "only format bitbyte can hold it"
expect 0 "$bitbyte" convert $model own.safetensors
expect 0 "$bitbyte" generate own.safetensors --prompt "the " --max_new_bytes 20 --seed 3 --device "$device"
cmp out generated || fail "the converted model writes something else"
expect 1 "$bitbyte" compress --model $model --device "$device" -k -o text.bby text.txt
complains "--dense"

# Ranks, with the optimizer's state shared out or not.
needs_mpi
for optim in muon adamw8bit; do
    exact=(--data text.txt "${small[@]}" --batch_size 1 --global_batch 4 --steps 4 --optim $optim --reduce exact)
    train "${exact[@]}" --out $optim-1
    for zero in 0 1; do
        expect 0 timeout 120 mpirun --oversubscribe --bind-to none -np 2 "$bitbyte" train --ddp "${exact[@]}" --zero $zero \
            --out $optim-2-$zero
        cmp $optim-1/step-00000004.safetensors $optim-2-$zero/step-00000004.safetensors ||
            fail "$optim: two ranks, --zero $zero, give another model"
    done
done
