#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Trains one model with bitbyte and with PyTorch, in alternation, and prints one table; bench/run.sh installs torch for it.

Every variant of torch is a separate process, so that its peak memory is measured separately. It stays alive between its turns, so that it
compiles once.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import warnings

from common import BITBYTE, SHAPES, Failed, choices, ended, measured, peak_mb, print_table, write_json

BATCH_SIZES = {"S": 8, "M": 4, "L": 1}  # sequences a step: those of `bitbyte bench`
VARIANTS = [
    f"{layers}-{dtype}-{how}" for layers in ("ternary", "dense") for dtype in ("f32", "bf16") for how in ("eager", "compiled")
]
# torch at its fastest: large buffers stay with the process, in large pages, instead of being faulted in again for each tensor.
TORCH_ENV = {"MALLOC_MMAP_THRESHOLD_": str(1 << 34), "MALLOC_TRIM_THRESHOLD_": str(1 << 34), "THP_MEM_ALLOC_ENABLE": "1"}


def torch_model(torch, shape, B, T, ternary, bf16):
    """The model of tests/golden/reference.py in torch's fused operations: its parameters, and a function x, y -> loss."""
    F = torch.nn.functional
    n_layer, C, H, d_ff = shape
    D, V = C // H, 256

    class WeightQuant(torch.autograd.Function):
        @staticmethod
        def forward(ctx, w):
            g = w.abs().mean().clamp(min=1e-8)
            return torch.round((w / g).clamp(-1, 1)) * g

        @staticmethod
        def backward(ctx, dw):
            return dw

    class ActQuant(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            s = (x.abs().amax(dim=-1, keepdim=True) / 127).clamp(min=1e-8)
            return torch.round(x / s).clamp(-127, 127) * s

        @staticmethod
        def backward(ctx, dx):
            return dx

    def quantized(x):
        return ActQuant.apply(x) if ternary else x

    def linear(x, w):
        return F.linear(x, WeightQuant.apply(w) if ternary else w)

    def norm(x, w):
        return F.rms_norm(x, (C,), w, 1e-6)

    def rope(x):
        c, s = cos.to(x.dtype), sin.to(x.dtype)
        a, b = x.chunk(2, dim=-1)
        return torch.cat([a * c - b * s, b * c + a * s], dim=-1)

    def attention(q, k, v):
        if not bf16:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        # In bf16, torch 2.15's fused kernel takes longer than this, eager and compiled, at the lengths compared.
        return torch.softmax(q * D**-0.5 @ k.transpose(-1, -2) + mask.to(q.dtype), dim=-1) @ v

    def loss_of(x, y):
        e = F.embedding(x, embedding)
        for n1, qkv, o, n2, gate_up, down in blocks:
            h = quantized(norm(e, n1))
            # Ternary q, k and v have a scale each; dense ones are one product.
            projected = [linear(h, w) for w in qkv] if ternary else linear(h, qkv[0]).chunk(3, dim=-1)
            q, k, v = (t.view(B, T, H, D).transpose(1, 2) for t in projected)
            a = attention(rope(q), rope(k), v).transpose(1, 2).reshape(B, T, C)
            e = e + linear(quantized(a), o)
            gate, up = linear(quantized(norm(e, n2)), gate_up).chunk(2, dim=-1)
            e = e + linear(quantized(F.silu(gate) * up), down)
        return F.cross_entropy(F.linear(norm(e, norm_f), embedding).view(-1, V), y.view(-1))

    params = []

    def parameter(value):
        params.append(torch.nn.Parameter(value))
        return params[-1]

    def matrix(rows, columns):
        return parameter((torch.rand(rows, columns) * 2 - 1) / columns**0.5)

    def block():
        qkv = [matrix(C, C) for _ in range(3)] if ternary else [matrix(3 * C, C)]
        return parameter(torch.ones(C)), qkv, matrix(C, C), parameter(torch.ones(C)), matrix(2 * d_ff, C), matrix(C, d_ff)

    embedding, norm_f = parameter(torch.randn(V, C) / C**0.5), parameter(torch.ones(C))
    blocks = [block() for _ in range(n_layer)]
    angle = torch.arange(T)[:, None] * 10000 ** (-torch.arange(0, D, 2) / D)[None]
    cos, sin, mask = angle.cos(), angle.sin(), torch.full((T, T), float("-inf")).triu(1)
    return params, loss_of


def timed_steps(step, repeats):
    step()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        step()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def torch_child(args):
    """Compiles and warms up, says so in a line of JSON, then takes a turn, and says its result, for every line of input."""
    warnings.filterwarnings("ignore")
    import torch

    torch.set_num_threads(args.threads[0])
    torch.manual_seed(1)
    layers, dtype, how = args.variants[0].split("-")
    shape = SHAPES[args.shapes[0]]
    B, T = args.batch_size or BATCH_SIZES[args.shapes[0]], args.seq_len
    params, loss_of = torch_model(torch, shape, B, T, layers == "ternary", dtype == "bf16")
    if how == "compiled":
        loss_of = torch.compile(loss_of, fullgraph=True)
    matrices, vectors = [p for p in params if p.dim() == 2], [p for p in params if p.dim() == 1]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=1e-5, betas=(0.9, 0.95), eps=1e-8, fused=True)
    text = torch.randint(32, 122, (B * T + 1,))
    x, y = text[:-1].view(B, T), text[1:].view(B, T)

    def step():
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bf16"):
            loss = loss_of(x, y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, 1.0)
        optimizer.step()
        return loss.item()

    def answer(**values):
        print(json.dumps(values), flush=True)

    start, loss = time.perf_counter(), step()
    answer(
        torch=torch.__version__,
        cpu=torch.backends.cpu.get_cpu_capability(),
        onednn_bf16=torch.ops.mkldnn._is_mkldnn_bf16_supported(),
        parameters=sum(p.numel() for p in params),
        first_loss=loss,
        first_step_s=time.perf_counter() - start,
    )
    for _ in sys.stdin:
        seconds = timed_steps(step, args.repeats)
        graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
        if graphs != (how == "compiled"):
            sys.exit(f"{args.variants[0]}: {graphs} graphs were compiled")
        answer(bytes_per_s=B * T / seconds, peak_mb=peak_mb(resource.getrusage(resource.RUSAGE_SELF)))


class TorchPeer:
    """One variant at one shape on so many threads, in a process that lives until the last of its turns."""

    def __init__(self, args, shape, threads, variant):
        self.errors = tempfile.TemporaryFile("w+")
        command = [sys.executable, __file__, "--child", "--shapes", shape, "--threads", str(threads), "--variants", variant]
        command += ["--repeats", str(args.repeats), "--batch_size", str(args.batch_size), "--seq_len", str(args.seq_len)]
        env = {**os.environ, **TORCH_ENV, "OMP_NUM_THREADS": str(threads)}
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self.errors, text=True, env=env)

    def answer(self):
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        status = self.process.wait()
        self.errors.seek(0)
        sys.stderr.writelines(self.errors.readlines()[-30:])
        raise Failed(ended(status))

    def turn(self):
        try:
            print(file=self.process.stdin, flush=True)
        except BrokenPipeError:
            pass  # it has ended: answer() says why
        return self.answer()

    def close(self):
        self.process.kill()
        self.process.communicate()
        self.errors.close()


def bitbyte_turn(args, shape, threads):
    command = [args.bitbyte, "bench", "--json", "--step_only", "--optim", "adamw", "--shape", shape, "--threads", str(threads)]
    command += ["--repeats", str(args.repeats), "--batch_size", str(args.batch_size), "--seq_len", str(args.seq_len)]
    try:
        text, _, peak = measured(command)
    except Failed as failure:
        sys.exit(f"{failure.output}compare_torch: {failure}")
    (result,) = json.loads(text)
    return {**result, **result["step"], "peak_mb": peak}


def compare(args, shape, threads):
    """Both at one shape on so many threads. A round is a turn of bitbyte, then one of torch; bitbyte has every turn of its."""
    ours, peers = [], []
    for variant in args.variants:
        print(f"shape {shape}, threads: {threads}, torch {variant}", file=sys.stderr)
        row, peer = {"variant": variant, "rounds": []}, TorchPeer(args, shape, threads, variant)
        peers.append(row)
        try:
            row.update(peer.answer())
            for _ in range(args.rounds):
                ours.append(bitbyte_turn(args, shape, threads))
                row["rounds"].append({"bitbyte": ours[-1], "torch": peer.turn()})
        except Failed as failure:
            row["failed"] = str(failure)
        finally:
            peer.close()
    while len(ours) < args.rounds:
        ours.append(bitbyte_turn(args, shape, threads))
    return {"shape": shape, "threads": threads, "bitbyte": ours, "torch": peers}


def figures(turns, limits):
    """Medians of some turns, as the table writes them."""
    rate = statistics.median(t["bytes_per_s"] for t in turns)
    share = statistics.median(t["bytes_per_s"] / limit for t, limit in zip(turns, limits))
    return f"{rate:,.0f}", f"{100 * share:.0f}%", f"{max(t['peak_mb'] for t in turns):,.0f}"


def show(result):
    ours = result["bitbyte"]
    limits = [o["limit_bytes_per_s"] for o in ours]
    peaks = ", ".join(f"{k} {statistics.median(o['peaks'][k] for o in ours):,.0f}" for k in ("int8", "bf16", "f32"))
    versions = {
        f"torch {t['torch']} ({t['cpu']}, oneDNN {'with' if t['onednn_bf16'] else 'without'} bf16)"
        for t in result["torch"]
        if "torch" in t
    }
    print(
        f"\nShape {result['shape']}, {ours[0]['batch_size']} x {ours[0]['seq_len']} bytes a step, threads: {result['threads']}"
    )
    print(", ".join([f"bitbyte ({ours[0]['description']})", *versions]))
    print(f"limit {statistics.median(limits):,.0f} bytes/s at this run's peaks, in 10^9/s: {peaks}")
    rows = [("", "bytes/s", "of the limit", "peak MB", "bitbyte / torch"), ("bitbyte", *figures(ours, limits), "")]
    for row in result["torch"]:
        rounds = row["rounds"]
        if "failed" in row:
            rows.append((f"torch {row['variant']}", row["failed"], "", "", ""))
            continue
        ratios = [r["bitbyte"]["bytes_per_s"] / r["torch"]["bytes_per_s"] for r in rounds]
        shown = figures([r["torch"] for r in rounds], [r["bitbyte"]["limit_bytes_per_s"] for r in rounds])
        spread = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
        rows.append((f"torch {row['variant']}", *shown, spread))
    print_table(rows)


def main():
    p = argparse.ArgumentParser(description="Trains one model with bitbyte and with PyTorch, turn by turn.", allow_abbrev=False)
    p.add_argument("--shapes", type=choices(SHAPES), default=["S", "M"], metavar="S,M,L", help="model shapes (default S,M)")
    p.add_argument("--threads", type=choices((), int), default=[1, 2], metavar="1,2", help="numbers of threads (default 1,2)")
    p.add_argument(
        "--variants", type=choices(VARIANTS), default=VARIANTS, metavar="V,V", help=f"of torch: {', '.join(VARIANTS)}"
    )
    p.add_argument("--rounds", type=int, default=3, help="turns of each (default %(default)s)")
    p.add_argument("--repeats", type=int, default=3, help="steps timed in a turn, after one to warm up (default %(default)s)")
    p.add_argument("--batch_size", type=int, default=0, help="sequences a step (default: the shape's own)")
    p.add_argument("--seq_len", type=int, default=512, help="bytes a sequence (default %(default)s)")
    p.add_argument(
        "--quick", action="store_true", help="shape S, one round of one step of 64 bytes: shows that everything runs"
    )
    p.add_argument("--ours_only", "--ours-only", action="store_true", help="leave torch out")
    p.add_argument("--json", metavar="FILE", help="write every turn's figures there")
    p.add_argument("--bitbyte", metavar="PROGRAM", default=BITBYTE, help="(default %(default)s)")
    p.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = p.parse_args()
    if args.quick:
        args.shapes, args.rounds, args.repeats, args.batch_size, args.seq_len = ["S"], 1, 1, 1, 64
    if args.ours_only:
        args.variants = []
    if args.child:
        return torch_child(args)

    print(
        f"Steps of forward, backward, clip and AdamW: {args.repeats} a turn, {args.rounds} turns of each, alternating; medians."
    )
    results = []
    for shape in args.shapes:
        for threads in args.threads:
            results.append(compare(args, shape, threads))
            show(results[-1])
    if args.json:
        write_json(args.json, results)


if __name__ == "__main__":
    sys.exit(main())
