#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How much faster `bitbyte generate` is with speculative decoding: --speculate auto compared with off, in alternation, after prompts from a
held-out text and after repetitive texts. The output must be the same.

bench/widen_model.py makes a model that is too large to train from a small one. Needs only Python's standard library.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile

REPEATING = {
    "a sentence": b"The quick brown fox jumps over the lazy dog. " * 6,
    "lines of a log": b"".join(b"2024-05-01 12:00:%02d INFO worker %d finished job %d\n" % (i, i % 3, 100 + i) for i in range(6)),
    "options": b'    parser.add_argument("--name", default=None)\n' * 2 + b'    parser.add_argument("--size", default=None)\n' * 2,
    "assertions": b"        self.assertEqual(a, b)\n        self.assertEqual(c, d)\n" * 3,
}


def prompts(path, lengths, seed):
    """Name and bytes: beginnings of lines of the file, lengths as given; then what repeats itself."""
    with open(path, "rb") as file:
        text = file.read()
    if len(text) < 2 * max(lengths):
        sys.exit(f"{path}: {len(text)} bytes, at least {2 * max(lengths)} are needed")
    draw = random.Random(seed)
    found = []
    for length in lengths:
        at = text.find(b"\n", draw.randrange(len(text) - 2 * length)) + 1
        found.append((f"{length} bytes at {at}", text[at : at + length]))
    return found + list(REPEATING.items())


def generate(args, prompt, speculate, seed, folder):
    """The bytes that follow, and how many a second."""
    prompt_file, metrics = os.path.join(folder, "prompt"), os.path.join(folder, "metrics.json")
    with open(prompt_file, "wb") as file:
        file.write(prompt)
    command = [args.bitbyte, "generate", args.model, "--prompt_file", prompt_file, "--no_echo", "--metrics_json", metrics]
    command += ["--max_new_bytes", str(args.tokens), "--temperature", str(args.temperature), "--seed", str(seed)]
    command += ["--threads", str(args.threads), "--speculate", speculate]
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.decode(errors='replace')}")
    with open(metrics, encoding="utf-8") as file:
        return done.stdout, json.load(file)["bytes_per_s"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a model file or run folder")
    parser.add_argument("text", help="bytes that it has not seen")
    parser.add_argument("--lengths", default="60,60,60,320,320,320,320", help="of the prompts out of the text (default %(default)s)")
    parser.add_argument("--tokens", type=int, default=190, help="bytes to generate (default %(default)s)")
    parser.add_argument("--temperature", type=float, default=0.0)
    parser.add_argument("--rounds", type=int, default=4, help="turns of each, each with a seed of its own (default %(default)s)")
    parser.add_argument("--seed", type=int, default=11, help="draws the places in the text (default %(default)s)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--bitbyte", default="build/bitbyte", help="the program (default %(default)s)")
    args = parser.parse_args()
    chosen = prompts(args.text, [int(n) for n in args.lengths.split(",")], args.seed)
    ratios, alone = {name: [] for name, _ in chosen}, []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(args.rounds):
            for name, prompt in chosen:
                print(f"\rround {turn + 1} of {args.rounds}, {name}".ljust(60), end="", file=sys.stderr, flush=True)
                expected, off = generate(args, prompt, "off", turn, folder)
                found, auto = generate(args, prompt, "auto", turn, folder)
                if found != expected:
                    sys.exit(f"\n{name}: the text differs when bytes are guessed")
                ratios[name].append(auto / off)
                alone.append(off)
    print("\r".ljust(61) + "\r", end="", file=sys.stderr)
    print(f"{args.tokens} bytes, temperature {args.temperature:g}, {args.threads} threads; times as fast, median and range")
    for name, values in ratios.items():
        print(f"{name:20} {statistics.median(values):5.2f} ({min(values):.2f} to {max(values):.2f})")
    print(f"without guessing: {statistics.median(alone):.1f} bytes/s")


if __name__ == "__main__":
    main()
