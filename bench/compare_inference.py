#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Runs one model with bitbyte and with llama.cpp and its relatives, in alternation, and prints a table for each number of threads.

bench/compare_inference.sh builds the programs. Every run is a separate process.
"""

import argparse
import json
import multiprocessing
import os
import random
import shlex
import statistics
import sys
import tempfile

import random_model
from common import BITBYTE, SHAPES, Failed, choices, measured, print_table, write_json

SEED = 1
OURS = "bitbyte"


def model_bytes(shape):
    """What a decoded byte has to read of a model, at the least: two bits a ternary weight, the head in f32."""
    n_layer, C, _, d_ff = SHAPES[shape]
    return n_layer * (4 * C * C + 3 * C * d_ff) / 4 + 256 * C * 4


def cache_bytes(shape):
    """A position of the cache of keys and values, at one byte each."""
    n_layer, C, _, _ = SHAPES[shape]
    return 2 * n_layer * C


def prefill_operations(shape):
    """Of a byte in the ternary products."""
    n_layer, C, _, d_ff = SHAPES[shape]
    return 2 * n_layer * (4 * C * C + 3 * C * d_ff)


def evict(path):
    """Out of the page cache, so that the next one to read it reads the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)


class Engine:
    """Something that runs a model file; each of its turns is its `value` (bytes/s), peak_mb and its own result."""

    def __init__(self, name, file_format):
        self.name, self.file_format = name, file_format

    def model(self, args):
        return os.path.join(args.models, f"{args.shape}-{self.file_format}{'' if self.file_format == 'bitbyte' else '.gguf'}")

    def prepare(self, args):
        if os.path.exists(self.model(args)):
            return
        print(f"writing {self.model(args)}", file=sys.stderr)
        options = argparse.Namespace(**dict(zip(random_model.SHAPE, SHAPES[args.shape])), context=8192, seed=SEED)
        options.format, options.out = self.file_format, self.model(args)
        # Elsewhere, so that this process stays small: the most memory of what it starts is never told as less than its own.
        writer = multiprocessing.Process(target=random_model.write_whole, args=(options,))
        writer.start()
        writer.join()
        if writer.exitcode != 0:
            sys.exit(f"{self.model(args)} could not be written")

    def start(self, args, threads):
        """From the program's start to its end, with one byte decoded in between: the value is in seconds."""
        evict(self.model(args))
        turn = self.one_byte(args, threads)
        return {**turn, "value": turn["seconds"]}


def middle(turns):
    return sorted(turns, key=lambda t: t["value"])[len(turns) // 2]


class Bitbyte(Engine):
    """`bitbyte generate` with a packed model file, byte by byte: no guessing ahead, which repetitive text makes faster."""

    def __init__(self):
        super().__init__(OURS, "bitbyte")

    def generate(self, args, threads, prompt, new_bytes):
        with tempfile.TemporaryDirectory() as folder:
            text, metrics = os.path.join(folder, "prompt"), os.path.join(folder, "metrics.json")
            with open(text, "wb") as file:
                file.write(random.Random(SEED).randbytes(prompt))
            command = [*args.prefix, args.bitbyte, "generate", self.model(args), "--threads", str(threads), "--temperature", "0"]
            command += ["--max_new_bytes", str(new_bytes), "--prompt_file", text, "--metrics_json", metrics]
            command += ["--context_length", str(prompt + new_bytes + 1), "--speculate", "off"]
            _, seconds, peak = measured(command, text=False)
            with open(metrics) as file:
                return {"seconds": seconds, "peak_mb": peak, "result": json.load(file)}

    def decode_at(self, args, threads, position):
        """Each byte after the first: that one's logits are the prompt's."""
        turns = []
        for _ in range(args.repeats if position == 0 else 1):
            turn = self.generate(args, threads, position, args.tokens + 1)
            result = turn["result"]
            decoding = result["decode_seconds"] - (result["first_byte_seconds"] - result["prompt_seconds"])
            turns.append({"value": (result["new_bytes"] - 1) / decoding, **turn})
        return middle(turns)

    def prefill(self, args, threads):
        turns = [self.generate(args, threads, args.prompt, 1) for _ in range(args.repeats)]
        for turn in turns:
            turn["value"] = turn["result"]["prompt_bytes"] / turn["result"]["prompt_seconds"]
        return middle(turns)

    def one_byte(self, args, threads):
        return self.generate(args, threads, 0, 1)


# Weights in pages of 2 MB where the system gives them to those that ask, as bitbyte does: a third faster in ik_llama.cpp.
HUGE_PAGES = ("env", "GLIBC_TUNABLES=glibc.malloc.hugetlb=1")


class LlamaBench(Engine):
    """An engine of llama.cpp's family: one file format, run by its llama-bench with the settings that are fastest there."""

    def __init__(self, name, file_format, program, common=(), decode=(), prefill=(), read=(), cold=(), depth="-d"):
        super().__init__(name, file_format)
        self.program, self.depth = program, depth
        self.common, self.decode, self.prefill_flags, self.read, self.cold = common, decode, prefill, read, cold

    def bench(self, args, threads, *flags):
        command = [*args.prefix, *HUGE_PAGES, self.program, "-m", self.model(args), "-t", str(threads), "-o", "json", *self.common, *flags]
        text, seconds, peak = measured(command)
        try:
            # ik_llama.cpp's warnings stand among its JSON.
            (result,) = json.loads("".join(line for line in text.splitlines() if line[:1] in "[]{} "))
            return {"value": statistics.median(result["samples_ts"]), "seconds": seconds, "peak_mb": peak, "result": result}
        except (ValueError, KeyError, TypeError) as error:
            raise Failed(f"{' '.join(command)}: its output is not what was expected: {text[:200]!r}") from error

    def decode_at(self, args, threads, position):
        flags = (*self.decode, *self.read)
        if position == 0:
            return self.bench(args, threads, "-p", "0", "-n", str(args.tokens), "-r", str(args.repeats), *flags)
        if self.depth == "-gp":
            return self.bench(args, threads, "-p", "0", "-n", "0", "-gp", f"{position},{args.tokens}", "-r", "1", *flags)
        if self.depth == "-d":
            return self.bench(args, threads, "-p", "0", "-n", str(args.tokens), "-d", str(position), "-r", "1", *flags)
        return self.batched(args, threads, position)

    def batched(self, args, threads, position):
        """A llama-bench without a way to decode at a position has llama-batched-bench beside it, which has one."""
        program = os.path.join(os.path.dirname(self.program), "llama-batched-bench")
        command = [*args.prefix, *HUGE_PAGES, program, "-m", self.model(args), "-t", str(threads), "-c", str(position + args.tokens)]
        command += ["-npp", str(position), "-ntg", str(args.tokens), "-npl", "1", "--output-format", "jsonl", "--no-mmap"]
        text, seconds, peak = measured(command)
        for line in text.splitlines():
            if line.startswith("{"):
                result = json.loads(line)
                return {"value": result["speed_tg"], "seconds": seconds, "peak_mb": peak, "result": result}
        raise Failed(f"{' '.join(command)}: its output has no line of JSON: {text[:200]!r}")

    def prefill(self, args, threads):
        flags = ["-p", str(args.prompt), "-n", "0", "-r", str(args.repeats), *self.prefill_flags, *self.read]
        return self.bench(args, threads, *flags)

    def one_byte(self, args, threads):
        return self.bench(args, threads, "-p", "0", "-n", "1", "-r", "1", *self.decode, *self.cold)


# Each at its fastest: the file read, not mapped, but where a cold start is timed; decoding without flash attention, also deep into a
# text; prefill with what is the default.
READ = ("-mmp", "0")


def llama(program):
    return [LlamaBench("llama.cpp TQ2_0", "tq2_0", program, decode=("-fa", "0"), read=("-lm", "none"), cold=("--no-warmup",))]


def ik_llama(program):
    settings = {"decode": ("-fa", "0"), "read": READ, "cold": ("-w", "0"), "depth": "-gp"}
    return [
        LlamaBench("ik_llama.cpp IQ2_BN_R4", "iq2_bn", program, ("-rtr", "1"), **settings),
        LlamaBench("ik_llama.cpp IQ2_BN", "iq2_bn", program, **settings),
    ]


def bitnet(program):
    return [LlamaBench("bitnet.cpp I2_S", "i2_s", program, read=READ, depth="batched")]


FAMILY = {"llama.cpp": llama, "ik_llama.cpp": ik_llama, "bitnet.cpp": bitnet}


def peaks(args, threads):
    """What the machine gives at this moment."""
    command = [*args.prefix, args.bitbyte, "bench", "--json", "--step_only", "--shape", "S", "--batch_size", "1"]
    text, _, _ = measured([*command, "--seq_len", "16", "--repeats", "1", "--threads", str(threads)])
    (result,) = json.loads(text)
    return {**result["peaks"], "description": result["description"]}


def measures(args):
    """Each measure's key, heading and the function of an engine that takes a turn of it."""
    found = []
    for position in args.positions:
        heading = f"decode at {position:,}" if position else "decode"
        found.append((f"decode_{position}", heading, lambda e, t, p=position: e.decode_at(args, t, p)))
    found.append(("prefill", f"prefill {args.prompt:,}", lambda e, t: e.prefill(args, t)))
    found.append(("start", "start, s", lambda e, t: e.start(args, t)))
    return [m for m in found if m[0].split("_")[0] in args.measure]


def turn(engine, threads, take):
    try:
        return take(engine, threads)
    except Failed as failure:
        sys.stderr.write(f"{failure.output}compare_inference: {engine.name}: {failure}\n")
        return {"failed": str(failure)}


def compare(args, engines, threads, result):
    """Every engine's turns of every measure, engine after engine in each round."""
    result.update(shape=args.shape, threads=threads, peaks=[], turns={e.name: {} for e in engines})
    for key, heading, take in measures(args):
        for number in range(args.rounds):
            print(f"threads: {threads}, {heading}, round {number + 1} of {args.rounds}", file=sys.stderr)
            result["peaks"].append(peaks(args, threads))
            for engine in engines:
                turns = result["turns"][engine.name].setdefault(key, [])
                # What has failed once is not tried again.
                if not any("failed" in t for t in turns):
                    turns.append(turn(engine, threads, take))


def limits(args, result):
    """The most that each measure can give at the peaks of the run."""
    read = 1e9 * statistics.median(p["read_gb"] for p in result["peaks"])
    int8 = 1e9 * statistics.median(p["int8"] for p in result["peaks"])
    found = {f"decode_{p}": read / (model_bytes(args.shape) + p * cache_bytes(args.shape)) for p in args.positions}
    return {**found, "prefill": int8 / prefill_operations(args.shape)}


def figure(turns):
    """Their median; None where there is none."""
    return None if not turns or any("failed" in t for t in turns) else statistics.median(t["value"] for t in turns)


def ratios(ours, theirs, more_is_better):
    """How many times as good ours is in each round, as the table writes it."""
    found = [o["value"] / t["value"] if more_is_better else t["value"] / o["value"] for o, t in zip(ours, theirs)]
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


def show(args, result):
    limit, all_measures = limits(args, result), measures(args)
    rows = [["", *(heading for _, heading, _ in all_measures), "peak MB"]]
    best = {}
    for name, turns in result["turns"].items():
        row = [name]
        for key, _, _ in all_measures:
            value = figure(turns.get(key))
            if value is None:
                row.append("failed" if turns.get(key) else "")
                continue
            row.append(f"{value:.2f}" if key == "start" else f"{value:.1f} ({100 * value / limit[key]:.0f}%)")
            better = value if key == "start" else -value
            if name != OURS and (key not in best or better < best[key][0]):
                best[key] = better, name
        peak = [t["peak_mb"] for key, _, _ in all_measures for t in turns.get(key, []) if "peak_mb" in t]
        rows.append([*row, f"{max(peak):,.0f}" if peak else ""])
    ours = result["turns"].get(OURS, {})
    if best and ours:
        row = ["bitbyte / the best of them"]
        for key, _, _ in all_measures:
            known = key in best and figure(ours.get(key)) is not None
            row.append(ratios(ours[key], result["turns"][best[key][1]][key], key != "start") if known else "")
        rows.append([*row, ""])
    peak = {k: statistics.median(p[k] for p in result["peaks"]) for k in ("read_gb", "int8", "f32")}
    print(f"\nShape {result['shape']}, threads: {result['threads']}; bytes/s, and the share of the limit")
    print(f"{result['peaks'][0]['description']}; at this run's peaks: memory read {peak['read_gb']:.1f} GB/s, int8", end=" ")
    print(f"{peak['int8']:,.0f}, f32 {peak['f32']:,.0f} x 10^9/s")
    print_table(rows)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    p.add_argument("--shape", choices=SHAPES, default="L", help="S: 6 layers of 384, M: 12 of 768, L: 24 of 1536 (default L)")
    p.add_argument("--threads", type=choices((), int), default=[1, 2], metavar="1,2", help="numbers of threads (default 1,2)")
    p.add_argument(
        "--measure",
        type=choices(("decode", "prefill", "start")),
        default=["decode", "prefill", "start"],
        metavar="M,M",
        help="decode, prefill, start (from a program's start to its end with one byte decoded, the file not in memory) "
        "(default: all)",
    )
    p.add_argument(
        "--positions",
        type=choices((), int, 0),
        default=[0, 1024, 4096],
        metavar="N,N",
        help="lengths of the text that is there before bytes are decoded (default 0,1024,4096)",
    )
    p.add_argument("--tokens", type=int, default=64, metavar="N", help="bytes decoded in a turn (default %(default)s)")
    p.add_argument("--prompt", type=int, default=512, metavar="N", help="bytes of the prefill (default %(default)s)")
    p.add_argument("--rounds", type=int, default=3, metavar="N", help="turns of each (default %(default)s)")
    p.add_argument("--repeats", type=int, default=3, metavar="N", help="repetitions in a turn (default %(default)s)")
    p.add_argument("--quick", action="store_true", help="shape M, one short round: shows that everything runs")
    p.add_argument("--ours_only", "--ours-only", action="store_true", help="leave the others out")
    p.add_argument("--json", metavar="FILE", help="write every turn's figures there")
    p.add_argument("--prefix", type=shlex.split, default=[], metavar="CMD", help="put before every measured command: taskset -c 0")
    p.add_argument("--models", metavar="DIR", default="build/bench-models", help="the model files (default %(default)s)")
    p.add_argument("--bitbyte", metavar="PROGRAM", default=BITBYTE, help="(default %(default)s)")
    p.add_argument(
        "--peer",
        action="append",
        default=[],
        metavar="NAME=PROGRAM",
        help=f"a llama-bench to compare with; NAME is one of {', '.join(FAMILY)}",
    )
    args = p.parse_args()
    if args.quick:
        args.shape, args.positions, args.tokens, args.prompt, args.rounds, args.repeats = "M", [0, 64], 16, 64, 1, 1

    engines = [Bitbyte()]
    for peer in [] if args.ours_only else args.peer:
        name, _, program = peer.partition("=")
        if name not in FAMILY or not program:
            p.error(f"--peer: expected NAME=PROGRAM with NAME one of {', '.join(FAMILY)}, found '{peer}'")
        engines += FAMILY[name](program)
    results = []
    try:
        os.makedirs(args.models, exist_ok=True)
        for engine in engines:
            engine.prepare(args)
        for threads in args.threads:
            results.append({})
            compare(args, engines, threads, results[-1])
            show(args, results[-1])
    except (Failed, OSError) as failure:
        sys.exit(f"{getattr(failure, 'output', '')}compare_inference: {failure}")
    except KeyboardInterrupt:
        sys.exit(130)
    finally:
        # Also what was measured before an interruption.
        if args.json:
            write_json(args.json, results)


if __name__ == "__main__":
    main()
