#!/usr/bin/env bash
# SPDX-License-Identifier: MIT
# The library for large products, for which libraries/cublaslt.cpp stands: it is taken when its products are right, and left alone when
# one is not. $1: the emulated program, $2: the folder with the stand-in, $3: the comparison of linear operations with ref, $4: the test
# of the device.
set -uo pipefail
libraries=$(realpath "$2") comparison=$(realpath "$3") operations=$(realpath "$4")
# shellcheck source=tests/program_helpers.sh
. "$(dirname "$0")/../program_helpers.sh"
info=("$bitbyte" info --memory --n_layer 1 --d_model 64 --n_head 2 --d_ff 96 --device cuda)
with() { env LD_LIBRARY_PATH="$libraries" STAND_IN_LOG="$tmp/log" "$@"; }
products() { if [ -f log ]; then grep -c "$1" log; else echo 0; fi; }

expect 0 "${info[@]}"
grep -q cuBLASLt out && fail "a library that is not there"
for seed in 0 3; do
    EMULATION_SEED=$seed EMULATION_LAZY=1 expect 0 with "${info[@]}"
    says ", cuBLASLt 990099"
done
[ "$(products int8)" = 4 ] && [ "$(products bf16)" = 2 ] || fail "the check at the start: $(cat log)"

# ---- one product is wrong, or there is none: the kernels compute, and it is said why
for wrong in forward:forward input:"input gradient" weights:"weight gradient" none:"it has no way for this card" fails:"it has no way for this card"; do
    STAND_IN_CUBLASLT=${wrong%%:*} expect 0 with "${info[@]}"
    says "; cuBLASLt is not used: ${wrong#*:}"
done
BITBYTE_CUDA_GEMM=kernels expect 0 with "${info[@]}"
grep -q cuBLASLt out && fail "BITBYTE_CUDA_GEMM=kernels has no effect"

# ---- what it computes: as ref within the bounds of its arithmetic; training with it, bit for bit the same again
rm log
expect 0 with "$comparison" cuda
[ "$(products int8)" -gt 2 ] && [ "$(products bf16)" -gt 1 ] || fail "the comparison used it for nothing but the check: $(cat log)"
rm log
EMULATION_COMPUTE=7.5 expect 0 with "$comparison" cuda fp16
[ "$(products fp16)" -gt 1 ] && [ "$(products bf16)" = 0 ] || fail "the comparison in fp16 did not use it: $(cat log)"
rm log
EMULATION_SEED=4 EMULATION_LAZY=1 expect 0 with "$operations" every_operation_runs
run=(--data text.txt --n_layer 1 --d_model 64 --n_head 2 --d_ff 96 --seq_len 64 --batch_size 1 --grad_accum 2 --steps 3 --save_every 3 --device cuda)
expect 0 with "$bitbyte" train --out whole "${run[@]}"
expect 0 with "$bitbyte" train --out parts "${run[@]}" --stop_at 1
EMULATION_SEED=2 expect 0 with "$bitbyte" train --resume parts
cmp whole/step-00000003.safetensors parts/step-00000003.safetensors || fail "a resumed run differs"
[ "$(products "int8 64 192 64")" -gt 0 ] && [ "$(products "bf16 192 64 64")" -gt 0 ] || fail "training did not use it: $(cat log)"
STAND_IN_CUBLASLT=forward expect 0 with "$bitbyte" train --out kernels "${run[@]}"
BITBYTE_CUDA_GEMM=kernels expect 0 "$bitbyte" train --out own "${run[@]}"
cmp kernels/step-00000003.safetensors own/step-00000003.safetensors || fail "a library that was refused had an effect"
