#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The program with the emulated cuda device ($1) and the ordinary one ($2): runs that stop, go on and change their device, what either
# makes of the other's files, and what is said where something is missing.
set -uo pipefail
ordinary=$(realpath "$2")
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/../program_helpers.sh"
shape=(--n_layer 2 --d_model 32 --n_head 4 --n_kv_head 2 --d_ff 48 --seq_len 24 --batch_size 2 --grad_accum 2)

# ---- a run that was stopped goes on as if it had not been, bit for bit, whatever the order of threads
for optim in adamw adamw8bit muon; do
    run=(--data text.txt "${shape[@]}" --optim "$optim" --steps 4 --save_every 4 --device cuda)
    expect 0 "$bitbyte" train --out whole-$optim "${run[@]}"
    EMULATION_SEED=2 expect 0 "$bitbyte" train --out parts-$optim "${run[@]}" --stop_at 2
    EMULATION_SEED=3 EMULATION_LAZY=1 expect 0 "$bitbyte" train --resume parts-$optim
    cmp whole-$optim/step-00000004.safetensors parts-$optim/step-00000004.safetensors || fail "$optim: a resumed run differs"
done
says "emulated card, card 0"

# ---- on the second card, without recomputing: the same bits; from there to the cpu and back
expect 0 "$bitbyte" train --out second --data text.txt "${shape[@]}" --optim adamw --steps 4 --save_every 4 --device cuda:1 --no_ckpt
says "card 1"
cmp whole-adamw/step-00000004.safetensors second/step-00000004.safetensors || fail "keeping activations, or another card, changes the result"
expect 0 "$ordinary" train --resume second --steps 5 --device cpu
expect 0 "$bitbyte" train --resume second --steps 6 --device cuda
[ -f second/step-00000006.safetensors ] || fail "the run did not go on"

# ---- in fp16, with its scaler: resumed bit for bit; a card that has no bf16 takes it by itself, and there a checkpoint goes on
run=(--data text.txt "${shape[@]}" --optim adamw --steps 4 --save_every 2 --log_every 1 --device cuda)
expect 0 "$bitbyte" train --out half "${run[@]}" --dtype fp16
says ", fp16"
grep -qF '"loss_scale":65536' half/metrics.jsonl || fail "metrics.jsonl does not have the loss scale"
grep -qF loss_scale whole-adamw/metrics.jsonl && fail "a loss scale without fp16"
cmp -s whole-adamw/step-00000004.safetensors half/step-00000004.safetensors && fail "fp16 changes nothing"
EMULATION_SEED=2 EMULATION_COMPUTE=7.5 expect 0 "$bitbyte" train --out half-parts "${run[@]}" --stop_at 2
says "compute 7.5"
expect 0 "$bitbyte" train --resume half-parts --dtype fp16
cmp half/step-00000004.safetensors half-parts/step-00000004.safetensors || fail "fp16: a resumed run differs"
expect 0 "$ordinary" train --resume half --steps 5 --device cpu --dtype auto
EMULATION_COMPUTE=7.5 expect 1 "$bitbyte" train --out none "${run[@]}" --dtype bf16
complains "compute capability 7.5 and no products in bf16"
EMULATION_COMPUTE=7.0 expect 1 "$bitbyte" train --out none "${run[@]}"
complains "compute capability 7.0; 7.5 (Turing) is the least"
expect 1 "$ordinary" train --out none "${run[@]}" --device cpu --dtype fp16
complains 'device "cpu" keeps activations in bf16, not fp16'
expect 1 "$ordinary" train --out none "${run[@]}" --device ref --dtype fp16
complains 'device "ref" keeps activations in f32, not fp16'
expect 0 "$ordinary" train --out on-cpu "${run[@]}" --device cpu --dtype bf16 --loss_scale 2
complains "--dtype"
complains "--loss_scale"
[ ! -e none ] || fail "a run that could not start left its directory"

# ---- the ordinary program reads what was trained here, and measures the same
head -c 700 text.txt >held_out.txt
expect 0 "$ordinary" eval whole-muon held_out.txt --seq_len 24 --json
json_value out bpb >bpb_cpu
expect 0 "$bitbyte" eval whole-muon held_out.txt --seq_len 24 --json --device cuda
json_value out bpb >bpb_cuda
perl -e '($a, $b) = map { open F, $_ or die; <F> + 0 } @ARGV; exit !(abs($a - $b) < 1e-4 * $a)' bpb_cpu bpb_cuda ||
    fail "bits per byte on cpu and cuda: $(cat bpb_cpu bpb_cuda)"
expect 0 "$bitbyte" export whole-muon --out packed.safetensors --device cuda
expect 0 "$ordinary" generate packed.safetensors --prompt 'The ' --max_new_bytes 8 --seed 5 --kv_cache f32 --temperature 0
cp out on_cpu
expect 0 "$bitbyte" generate packed.safetensors --prompt 'The ' --max_new_bytes 8 --seed 5 --kv_cache f32 --temperature 0 --device cuda
cmp out on_cpu || fail "another text"

# ---- what is missing
expect 2 "$bitbyte" eval whole-muon held_out.txt --device cuda:2
complains "there are 2 cards, numbered from 0"
expect 1 env EMULATION_MEMORY=300000 "$bitbyte" train --steps 1 --out small --data text.txt "${shape[@]}" --device cuda
complains "of the card's memory, but only 300 KB of 300 KB is free"
[ ! -e small/latest ] || fail "trained without memory"
expect 0 "$bitbyte" info --memory --n_layer 2 --d_model 64 --n_head 2 --d_ff 96 --device cuda
says "emulated card"
expect 0 "$bitbyte" eval whole-muon held_out.txt --seq_len 24 --device cuda --threads 2
complains "--threads"
if "$ordinary" eval whole-muon held_out.txt --device cuda >out 2>err; then fail "a card where there is none"; fi
grep -qE "no CUDA|nvidia-smi" err || fail "does not say how to get it: $(cat err)"

# ---- what a machine may be like, and what may become of it
EMULATION_FAULT=no_driver expect 1 "$bitbyte" eval whole-muon held_out.txt --device cuda
complains "NVIDIA's driver is missing: install driver 580 or later"
EMULATION_FAULT=old_driver expect 1 "$bitbyte" eval whole-muon held_out.txt --device cuda
complains "NVIDIA's driver is for CUDA 12.2, and this build needs 13.0"
EMULATION_FAULT=no_card expect 1 "$bitbyte" eval whole-muon held_out.txt --device cuda
complains "no card is visible"
EMULATION_FAULT=busy expect 1 "$bitbyte" eval whole-muon held_out.txt --device cuda
complains "another process has the card for itself"
# A card that is lost, or whose memory is bad, in the middle of a step, or while a checkpoint is copied: the one before stands.
run=(--data text.txt "${shape[@]}" --optim adamw --steps 4 --save_every 2 --device cuda)
for fault in lost@900::"the card stopped computing, or is gone" ecc@1000:1:"the card's memory has an error that it could not correct" \
    lost@1200:1:"the card stopped computing, or is gone"; do
    at=${fault%%:*} says=${fault#*:}
    EMULATION_LAZY=${says%%:*} EMULATION_FAULT=$at expect 1 "$bitbyte" train --out "broken-$at" "${run[@]}"
    complains "${says#*:}"
    complains "the newest checkpoint is of step 2"
    expect 0 "$bitbyte" info --verify "broken-$at"
    expect 0 "$bitbyte" train --resume "broken-$at"
    cmp whole-adamw/step-00000004.safetensors "broken-$at/step-00000004.safetensors" || fail "a run that lost its card differs: $at"
done
