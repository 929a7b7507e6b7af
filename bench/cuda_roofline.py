#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the cuda backend's operations could take at best on a card: bytes moved and operations executed by the kernels as they are,
over a card's peaks; and what ptxas says of the kernels. Nothing is measured.

usage: bench/cuda_roofline.py [REPORTS]   (build/tests/cuda/ptxas, which the tests cuda_compile_* fill)"""
import glob
import os
import re
import subprocess
import sys

# SXM, dense, from NVIDIA's data sheets: operations a second of both, and bytes
PEAK = {"int8": 1979e12, "bf16": 989e12, "f32": 67e12}
BANDWIDTH = {"H200": 4.8e12, "H100": 3.35e12}
# the default model, one sequence
L, C, H, F, T, V = 24, 1536, 12, 4096, 2048, 256
D = C // H
MATRICES = {"qkv": (3 * C, C), "o": (C, C), "gate_up": (2 * F, C), "down": (C, F)}
TILE = 64


def products(kind, operand_bytes, result):
    """Over a block's four matrices: operations; bytes, each operand read once; result(N, K) bytes written."""
    ops = sum(2 * T * n * k for n, k in MATRICES.values())
    moved = sum(operand_bytes(n, k) + result(n, k) for n, k in MATRICES.values())
    return kind, ops, moved


def attention(forward):
    """Causal tiles only. Scores are computed for each 128 elements of a head, in the backward pass for each 64, and twice. The forward pass
    reads f32, and is in bf16 where a backward pass follows."""
    tiles = T // TILE * (T // TILE + 1) / 2
    score, part, parts = 2 * TILE * TILE * D, 2 * TILE * TILE * TILE, D // TILE
    if forward:
        return "bf16", H * tiles * (-(-D // 128) * score + parts * part), (4 * 4 + 2) * T * C
    return "bf16", H * tiles * parts * (2 * 2 * score + 3 * part), 2 * 9 * T * C


OPERATIONS = [
    ("linear_forward", L, products("int8", lambda n, k: T * k + n * k / 4, lambda n, k: 4 * T * n)),
    ("linear_backward, dx", L, products("int8", lambda n, k: 5 * T * n + n * k / 4, lambda n, k: 2 * T * k)),
    ("linear_backward, dW", L, products("bf16", lambda n, k: 2 * T * n + T * k, lambda n, k: 4 * n * k)),
    ("attention_forward", L, attention(True)),
    ("attention_backward", L, attention(False)),
    ("rmsnorm_forward, twice", L, ("f32", 0, 2 * T * C * 5)),
    ("rmsnorm_backward, twice", L, ("f32", 0, 2 * T * C * 20)),
    ("rope, forward and back", L, ("f32", 0, T * 3 * C * 14)),
    ("swiglu_forward", L, ("f32", 0, T * F * 13)),
    ("swiglu_backward", L, ("f32", 0, T * F * 10)),
    ("head, forward and back", 1, ("f32", 3 * 2 * T * V * C, 4 * (3 * T * V + 3 * T * C + 3 * V * C))),
    ("adamw8bit_step", 1, ("f32", 0, 16 * (L * sum(n * k for n, k in MATRICES.values()) + V * C))),
    ("ternary_quant", 1, ("f32", 0, 8.25 * L * sum(n * k for n, k in MATRICES.values()))),
]


def operations():
    print("| operation, a step of one sequence of 2,048 | GFLOP | MB | limit | ms at best, H200 | H100 |\n|---|---|---|---|---|---|")
    total = dict.fromkeys(BANDWIDTH, 0)
    for name, times, (kind, ops, moved) in OPERATIONS:
        compute, memory = ops / PEAK[kind], {card: moved / rate for card, rate in BANDWIDTH.items()}
        ms = {card: times * max(compute, seconds) * 1e3 for card, seconds in memory.items()}
        for card in total:
            total[card] += ms[card]
        limit = f"{kind} products" if compute > memory["H200"] else "memory"
        print(f"| {name} | {times * ops * 1e-9:,.0f} | {times * moved * 1e-6:,.0f} | {limit} | {ms['H200']:.2f} | {ms['H100']:.2f} |")
    print(f"| together | | | | {total['H200']:.1f} | {total['H100']:.1f} |")
    weights = L * sum(n * k for n, k in MATRICES.values())
    flop = 6 * (weights + V * C) * T + 6 * L * T * T * C
    share = " and ".join(f"{flop / (ms * 1e-3) / PEAK['bf16']:.0%}" for ms in total.values())
    print(f"\nA step is {flop * 1e-12:.1f} TFLOP by 6N + 6 L T C: {share} of the bf16 peak at best.")
    print("\n| decoding, a pass | MB | µs at best, H200 | H100 |\n|---|---|---|---|")
    for texts in 1, 64:
        for position in 0, T:
            moved = weights / 4 + 4 * V * C + texts * 2 * L * C * position  # an int8 cache
            at = " | ".join(f"{moved / rate * 1e6:,.0f}" for rate in BANDWIDTH.values())
            print(f"| {texts} text{'s' * (texts > 1)} at position {position:,} | {moved * 1e-6:,.0f} | {at} |")


def kernels(path):
    """Registers and shared memory of the kernels with products, and the blocks that a processor of 9.0 holds."""
    names = {}
    lines = [line for name in sorted(glob.glob(os.path.join(path, "*.txt"))) for line in open(name) if "'sm_90a'" in line]
    mangled = "\n".join(line.split()[1] for line in lines)
    demangled = subprocess.run(["c++filt"], input=mangled, capture_output=True, text=True, check=True).stdout.split("\n")
    for line, name in zip(lines, demangled):
        registers = int(re.search(r"Used (\d+) registers", line)[1])
        shared = int(m[1]) if (m := re.search(r"(\d+) bytes smem", line)) else 0
        name = re.sub(r"^void ", "", name.split("(")[0]).replace("bb_cuda_", "").replace("signed char", "int8")
        names[name] = (line.split()[0], registers, shared, int(line.split()[-1]))
    threads_of = {"product": 128, "key_gradients": 128, "query_gradients": 128, "multiply_few": 128, "attend": 128,
                  "attention_forward_act": 128}
    dynamic = {"key_gradients": 64 << 10, "query_gradients": 64 << 10, "attention_forward_act": 62464}
    print("| kernel | registers | shared, bytes | spilled, bytes | blocks, warps a processor |\n|---|---|---|---|---|")
    for name, (_, registers, shared, spilled) in sorted(names.items()):
        base = name.split("<")[0]
        if base not in threads_of and base not in ("product_f32", "attention_forward", "rmsnorm_forward", "swiglu_forward", "adamw8bit_step", "tree_sum",
                                                "finish", "unpack_transposed"):
            continue
        threads, shared = threads_of.get(base, 256), shared + dynamic.get(base, 0)
        warps = threads // 32
        blocks = min(65536 // (-(-registers // 8) * 8 * threads), (227 << 10) // (shared + 1024), 64 // warps, 32)
        shown = re.sub(r", (int8_rows|ternary_rows|value_rows|gradient_rows|matrix|transposed|ternary_transposed|ternary_rows_act)\b", "", name)
        print(f"| {shown.replace('__nv_bfloat16', 'bf16').replace('__half', 'fp16').replace(' >', '>')} | {registers} | {shared:,} | {spilled} | {blocks}, {blocks * warps} |")


operations()
if len(sys.argv) > 1:
    print()
    kernels(sys.argv[1])
