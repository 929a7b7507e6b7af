# SPDX-License-Identifier: MIT
"""Writes bitbyte/_declarations.py, what cffi needs to call the library, from the C headers: declarations.py INCLUDE OUT."""
import pathlib
import re
import sys

import cffi

TOPICS = ["base", "model", "data", "dist", "training", "plan", "inference", "compression", "bench"]


def declarations(include):
    headers = {path.stem for path in (include / "bitbyte").glob("*.h")}
    if headers != set(TOPICS):
        sys.exit(f"{__file__}: TOPICS differs from the headers in: {sorted(headers ^ set(TOPICS))}")
    text = "\n".join((include / "bitbyte" / f"{topic}.h").read_text() for topic in TOPICS)
    text = re.sub(r"^#(?:.*\\\n)*.*$", "", text, flags=re.M)
    text = re.sub(r"BB_OPTIONS\((\w+)\);", r"void \1_init(\1 *options, size_t struct_size);", text)
    return text.replace("BB_API ", "")


if __name__ == "__main__":
    ffi = cffi.FFI()
    ffi.cdef(declarations(pathlib.Path(sys.argv[1])))
    ffi.set_source("bitbyte._declarations", None)
    ffi.emit_python_code(sys.argv[2])
