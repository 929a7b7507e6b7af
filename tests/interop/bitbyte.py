# SPDX-License-Identifier: MIT
"""BitByte for the interop tests: the program and the library in INTEROP_BUILD, and how results are printed."""
import ctypes
import os
import pathlib
import subprocess
import sys

import numpy as np

build = pathlib.Path(os.environ.get("INTEROP_BUILD", "build")).resolve()
program = build / "bitbyte"
PROMPTS = ["The ", "A tensor ", "static bb_status ", "file of ", "\n## "]
TEXT = ("It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness. " * 3)[:256].encode()


def run(*arguments):
    return subprocess.run([program, *map(str, arguments)], check=True, capture_output=True).stdout


def convert(source, out, *arguments):
    run("convert", source, out, *arguments)
    return out


def greedy(model, prompt, count, device="cpu"):
    """Bytes that follow the prompt; the cache rounds nothing."""
    return run("generate", model, "--prompt", prompt, "--max_new_bytes", count, "--temperature", 0, "--kv_cache", "f32", "--device", device)


class Library:
    def __init__(self, device="cpu"):
        self.library = ctypes.CDLL(str(build / "libbitbyte.so"))
        self.device = ctypes.c_void_p()
        self.call("bb_device_open", device.encode(), 0, ctypes.byref(self.device))

    def call(self, name, *arguments):
        err = ctypes.create_string_buffer(1 << 16)
        if getattr(self.library, name)(*arguments, err) != 0:
            sys.exit(f"{name}: {err.raw[4:].split(bytes(1))[0].decode()}")

    def logits(self, path, data):
        """(len(data), 256)"""
        model = ctypes.c_void_p()
        logits = np.empty((len(data), 256), np.float32)
        self.call("bb_model_load_for_inference", self.device, str(path).encode(), ctypes.byref(model))
        self.call("bb_model_forward", model, data, 1, len(data), logits.ctypes.data_as(ctypes.c_void_p))
        self.library.bb_model_free(model)
        return logits


def difference(found, expected):
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def by_position(found, expected):
    """The median, over positions, of the relative difference of logits. An input that lies between two int8 steps may be rounded to
    either, which moves the logits of its position and, less, those after it: PyTorch in f32 and in f64 differ as much."""
    return float(np.median(np.linalg.norm(found - expected, axis=1) / np.linalg.norm(expected, axis=1)))


failures = 0


def tell(good, what, figure=""):
    global failures
    failures += not good
    print(f"{'ok' if good else 'FAILED'}: {what}{': ' if figure else ''}{figure}", flush=True)


def finish():
    sys.exit(1 if failures else 0)
