# SPDX-License-Identifier: MIT
"""Shared by the comparisons: measuring a command as a separate process, list arguments, and tables.
"""

import argparse
import json
import os
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
BITBYTE = os.path.join(ROOT, "build", "bitbyte")
# layers, width, heads, d_ff: those of `bitbyte bench`
SHAPES = {"S": (6, 384, 6, 1024), "M": (12, 768, 12, 2048), "L": (24, 1536, 12, 4096)}


class Failed(Exception):
    """A command that could not be run, or ended badly; `output` is the end of its standard error."""

    def __init__(self, reason, output=""):
        super().__init__(reason)
        self.output = output


def peak_mb(usage):
    return usage.ru_maxrss * 1024 / 1e6


def ended(status):
    return f"killed by signal {-status}" if status < 0 else f"exit status {status}"


def measured(command, text=True):
    """Runs it to its end: its standard output (bytes unless `text`), the seconds it took and the most memory it had, in MB."""
    with tempfile.TemporaryFile("w+", errors="replace") as errors:
        start = time.perf_counter()
        try:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, text=text)
        except OSError as error:
            raise Failed(f"{command[0]}: {error.strerror}") from error
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        process.stdout.close()
        if process.returncode != 0:
            errors.seek(0)
            raise Failed(f"{' '.join(command)}: {ended(process.returncode)}", "".join(errors.readlines()[-30:]))
    return output, seconds, peak_mb(usage)


def choices(known, kind=str, least=1):
    """Parses a list of known words, or of numbers from `least` where none is known."""

    def parse(text):
        try:
            values = [kind(v) for v in text.split(",")]
        except ValueError:
            values = []
        if not values or (known and set(values) - set(known)) or (not known and min(values) < least):
            raise argparse.ArgumentTypeError(f"expected {', '.join(known) or f'numbers from {least}'}, found '{text}'")
        return values

    return parse


def print_table(rows):
    """The first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for name, *cells in rows:
        print("  ".join([name.ljust(widths[0])] + [c.rjust(w) for c, w in zip(cells, widths[1:])]).rstrip(), flush=True)


def write_json(path, value):
    with open(path, "w") as file:
        json.dump(value, file, indent=1)
