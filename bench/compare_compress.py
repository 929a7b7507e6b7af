#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compares bitbyte compress with other programs, on files that are not in its model's training data.

    python3 bench/compare_compress.py --program build/bitbyte --model runs/texts FILE... [--levels 5 9] [--dictionary TRAINING_TEXT]

Prints a Markdown table: bits per byte, the same including the model that decompression needs, and MB of the file per second of processor
time, for both directions: one thread, the best of --repeats runs, programs in alternation. Programs that are not installed are named and skipped. Every result
is decompressed and compared. --dictionary trains a zstd dictionary on pieces of that text. --bytes N takes the first N bytes of each file, and
--random adds this number of random bytes.
"""
import argparse
import pathlib
import random
import resource
import subprocess
import sys
import tempfile

PAQ = """/usr/bin/python3 -c 'import paq, sys; open(sys.argv[2], "wb").write(paq.%s(open(sys.argv[1], "rb").read()))' """  # Debian's python3-paq

# name: the command that compresses IN to OUT, and the one that decompresses OUT to BACK
PROGRAMS = {
    "gzip -9": ("gzip -9 -c IN >OUT", "gzip -d -c OUT >BACK"),
    "xz -9e": ("xz -T1 -9e -c IN >OUT", "xz -d -c OUT >BACK"),
    "zstd -19 --long": ("zstd -q -19 --long=27 -c IN >OUT", "zstd -q -d --long=27 -c OUT >BACK"),
    "brotli -q 11": ("brotli -q 11 -w 24 -c IN >OUT", "brotli -d -c OUT >BACK"),
    "bzip3": ("bzip3 -e -c IN >OUT", "bzip3 -d -c OUT >BACK"),
    "zpaq -m5": ("rm -f OUT.zpaq; zpaq add OUT.zpaq IN -m5 -t1 >/dev/null 2>&1; mv OUT.zpaq OUT",
                 "cp OUT OUT.zpaq; zpaq extract OUT.zpaq -to BACK -force -t1 >/dev/null 2>&1; rm OUT.zpaq"),
    "7z PPMd": ("rm -f OUT.7z; 7za a -mx=9 -m0=PPMd -mmt=1 OUT.7z IN >/dev/null; mv OUT.7z OUT", "7za x -so OUT >BACK"),
    "paq9a": (PAQ % "compress" + "IN OUT", PAQ % "decompress" + "OUT BACK"),
    "lpaq1 9": ("lpaq1 9 IN OUT >/dev/null", "lpaq1 d OUT BACK >/dev/null"),
    "cmix": ("cmix -c IN OUT >/dev/null", "cmix -d OUT BACK >/dev/null"),
    "paq8l": ("paq8l -5 OUT IN >/dev/null; mv OUT.paq8l OUT", "cp OUT OUT.paq8l; paq8l -d OUT.paq8l . >/dev/null; mv IN BACK"),
}


# what finds out whether a program is there, where its name is not that of a command
CHECKS = {"7z PPMd": "command -v 7za", "paq9a": "/usr/bin/python3 -c 'import paq'"}


def is_installed(name):
    return subprocess.run(CHECKS.get(name, f"command -v {name.split()[0]}"), shell=True, capture_output=True, check=False).returncode == 0


def processor_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def run(command, names):
    for name, path in names.items():
        command = command.replace(name, f"'{path}'")
    begin = processor_seconds()
    subprocess.run(command, shell=True, check=True)
    return processor_seconds() - begin


def measure(name, commands, path, folder):
    names = {"IN": path, "OUT": folder / "coded", "BACK": folder / "back"}
    there = run(commands[0], names)
    size = names["OUT"].stat().st_size
    back = run(commands[1], names)
    if names["BACK"].read_bytes() != path.read_bytes():
        sys.exit(f"{name}: {path} came back changed")
    return size, there, back


def rate(size, seconds):
    return f"{size / max(seconds, 1e-3) / 1e6:.3g}"


def inputs(arguments, folder):
    """The files, or their beginnings, and the random one."""
    files = []
    for path in arguments.files:
        files.append(folder / "inputs" / path.name)
        files[-1].parent.mkdir(exist_ok=True)
        data = path.read_bytes()
        files[-1].write_bytes(data[: arguments.bytes] if arguments.bytes else data)
    if arguments.random:
        files.append(folder / "random")
        files[-1].write_bytes(random.Random(1).randbytes(arguments.random))
    return files


def zstd_dictionary(text, folder):
    """Pieces of 4 KB, as the dictionary builder wants many small files."""
    data, pieces = pathlib.Path(text).read_bytes(), folder / "pieces"
    pieces.mkdir()
    for i in range(0, len(data), 4096):
        (pieces / str(i)).write_bytes(data[i : i + 4096])
    subprocess.run(f"zstd -q --train -r '{pieces}' --maxdict=1MB -o '{folder}/dictionary'", shell=True, check=True)
    return f"{folder}/dictionary"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", default="build/bitbyte")
    parser.add_argument("--model", required=True)
    parser.add_argument("--levels", type=int, nargs="*", default=[5, 9])
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--dictionary")
    parser.add_argument("--bytes", type=int, default=0)
    parser.add_argument("--random", type=int, default=0)
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    arguments = parser.parse_args()
    program = f"'{pathlib.Path(arguments.program).resolve()}'"
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        programs = {n: c for n, c in PROGRAMS.items() if is_installed(n)}
        for missing in PROGRAMS.keys() - programs.keys():
            print(f"compare_compress.py: {missing} is not installed and is skipped", file=sys.stderr)
        files = inputs(arguments, folder)
        if arguments.dictionary:
            dictionary = zstd_dictionary(arguments.dictionary, folder)
            programs["zstd -19, dictionary"] = (f"zstd -q -19 -D '{dictionary}' -c IN >OUT", f"zstd -q -d -D '{dictionary}' -c OUT >BACK")
        packed = folder / "model.safetensors"
        subprocess.run(f"{program} export '{arguments.model}' --out '{packed}' >/dev/null", shell=True, check=True)
        for level in arguments.levels:
            programs[f"bitbyte -{level}"] = (f"{program} compress -q -T1 --model '{packed}' -{level} -c IN >OUT",
                                             f"{program} decompress -q -T1 --model '{packed}' -c OUT >BACK")
        print("| file | program | bits per byte | with the model | MB/s there | MB/s back |\n|---|---|---|---|---|---|")
        for path in files:
            best = {}
            for _ in range(arguments.repeats):
                for n, commands in programs.items():
                    size, there, back = measure(n, commands, path.resolve(), folder)
                    old = best.get(n, (size, there, back))
                    best[n] = (size, min(there, old[1]), min(back, old[2]))
            total = path.stat().st_size
            for n, (size, there, back) in best.items():
                whole = size + packed.stat().st_size * n.startswith("bitbyte")
                print(f"| {path.name} | {n} | {8 * size / max(total, 1):.4f} | {8 * whole / max(total, 1):.4f} "
                      f"| {rate(total, there)} | {rate(total, back)} |")
            sys.stdout.flush()
        print(f"\nThe model, exported: {packed.stat().st_size} bytes.")


if __name__ == "__main__":
    main()
