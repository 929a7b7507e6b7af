#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Makes the texts that bench/learning/experiments.py trains on, each cut in two: NAME.train, and NAME.held_out, the last 5% from the
next beginning of a record on. texts.json beside them says what each was made from, with versions and SHA-256.

  kjv      the King James Bible, a verse a line (`bible` of Debian's bible-kjv)
  python   20 MB of Python source: the standard library, python3-django and python3-twisted as Debian has them, in a random order of
           files that is always the same. A package that is not installed is downloaded by apt-get and unpacked aside; nothing is
           installed, and no root is needed.
  syslog   5 MB of a made-up system log (syslog_text.py), the same everywhere

The project has no others; yours are added by their paths:

  bench/learning/texts.py texts --text shakespeare=tinyshakespeare.txt --text tinystories=TinyStories-valid.txt \\
      --text russian=stories.jsonl --field story
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile

from syslog_text import syslog

PYTHON_BYTES = 20_000_000
SYSLOG_BYTES = 5_000_000


def stop(message):
    sys.exit(f"texts.py: {message}")


def output_of(command, why, cwd=None):
    """Its standard output, bytes."""
    try:
        done = subprocess.run(command, capture_output=True, check=False, cwd=cwd, stdin=subprocess.DEVNULL)
    except OSError as error:
        stop(f"{command[0]}: {error.strerror}: {why}")
    if done.returncode:
        stop(f"{' '.join(command)}: exit status {done.returncode}: {done.stderr.decode(errors='replace').strip()[-500:]}: {why}")
    return done.stdout


def package_files(package, folder):
    """Its version, and pairs of name and path of what it holds: of the installed package, else of one unpacked in the folder."""
    query = ["dpkg-query", "-W", "-f", "${db:Status-Status} ${Version}", package]
    found = subprocess.run(query, capture_output=True, text=True, check=False).stdout.split()
    if len(found) == 2 and found[0] == "installed":
        names = output_of(["dpkg-query", "-L", package], "needed for its files").decode().splitlines()
        return found[1], [(name, name) for name in names]
    output_of(["apt-get", "download", package], f"needed for {package}; `apt-get update` first where apt does not know it", folder)
    (archive,) = [name for name in os.listdir(folder) if name.startswith(package + "_")]
    version = output_of(["dpkg-deb", "-f", archive, "Version"], "needed for its version", folder).decode().strip()
    root = os.path.join(folder, package)
    output_of(["dpkg-deb", "-x", archive, root], "needed for its files", folder)
    paths = [os.path.join(where, name) for where, _, names in os.walk(root) for name in names]
    return version, [(path[len(root) :], path) for path in paths]


def python_text(size):
    """Text, places where a file begins, and the packages with their versions."""
    depends = output_of(["apt-cache", "depends", "libpython3-stdlib"], "needed for the name of the standard library's package").decode()
    library = re.search(r"libpython3\.\d+-stdlib", depends)
    if not library:
        stop(f"apt-cache depends libpython3-stdlib: expected libpython3.N-stdlib, found {depends.split()}")
    packages = [library[0].replace("stdlib", "minimal"), library[0], "python3-django", "python3-twisted"]
    files, versions = {}, []
    with tempfile.TemporaryDirectory() as folder:
        for package in packages:
            version, found = package_files(package, folder)
            versions.append(f"{package} {version}")
            for name, path in found:
                if name.endswith(".py") and os.path.isfile(path) and not os.path.islink(path):
                    with open(path, "rb") as file:
                        files[name] = file.read()
    text, starts, seen = bytearray(), [], set()
    for name in sorted(files, key=lambda name: hashlib.sha256(name.encode()).digest()):
        content = files[name].rstrip(b"\n") + b"\n"
        digest = hashlib.sha256(content).digest()
        if len(content) > 1 and digest not in seen and len(text) + len(content) <= size:
            seen.add(digest)
            starts.append(len(text))
            text += content
    return bytes(text), starts, ", ".join(versions)


def starts_after(text, separator):
    return [found.end() for found in re.finditer(re.escape(separator), text)]


def kjv_text():
    verses = output_of(["bible", "-f", "gen1:1-rev22:21"], "install bible-kjv").splitlines(keepends=True)
    text = b"".join(verse.split(b" ", 1)[-1] for verse in verses)
    version = subprocess.run(["dpkg-query", "-W", "-f", "${Version}", "bible-kjv"], capture_output=True, text=True, check=False).stdout
    return text, starts_after(text, b"\n"), f"bible-kjv {version}".strip()


def syslog_text(size):
    text = syslog(size)
    return text, starts_after(text, b"\n"), "bench/learning/syslog_text.py, seed 1"


def given_text(path, field):
    """A file as it is, whose records are paragraphs where it has any, else lines; of JSON lines that field, one text after another."""
    try:
        with open(path, "rb") as file:
            text = file.read()
    except OSError as error:
        stop(f"{path}: {error.strerror}")
    if not path.endswith(".jsonl"):
        paragraphs = starts_after(text, b"\n\n")
        return text, paragraphs or starts_after(text, b"\n"), os.path.basename(path)
    records = []
    for number, line in enumerate(text.splitlines(), 1):
        try:
            record = json.loads(line)
            records.append(record[field].strip().encode() + b"\n\n")
        except (ValueError, TypeError, KeyError, AttributeError):
            stop(f"{path}:{number}: expected a JSON object with a text '{field}' (--field), found {line[:60].decode(errors='replace')}")
    starts, at = [], 0
    for record in records:
        starts.append(at)
        at += len(record)
    return b"".join(records), starts, f"'{field}' of {os.path.basename(path)}"


def write(path, data):
    with open(path + ".tmp", "wb") as file:
        file.write(data)
    os.replace(path + ".tmp", path)


def save(folder, name, made, percent):
    """What texts.json says of it."""
    text, starts, source = made
    cut = next((start for start in starts if len(text) - start <= len(text) * percent / 100), None)
    if not cut or cut == len(text):
        stop(f"{name}: {len(text)} bytes have no record that begins in the last {percent:g}%")
    parts = {"train": text[:cut], "held_out": text[cut:]}
    about = {"made_from": source}
    for part, content in parts.items():
        write(os.path.join(folder, f"{name}.{part}"), content)
        about[part] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    print(f"{name}: {len(parts['train']):,} bytes to train on, {len(parts['held_out']):,} held out; {source}")
    return about


def pair(text):
    name, equals, path = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z0-9_-]+", name) or not path:
        raise argparse.ArgumentTypeError(f"expected NAME=PATH, found '{text}'")
    return name, path


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    makers = {"kjv": kjv_text, "python": lambda: python_text(PYTHON_BYTES), "syslog": lambda: syslog_text(SYSLOG_BYTES)}
    parser.add_argument("folder", help="where the texts go; made if need be, and texts of the same names are replaced")
    parser.add_argument("--text", type=pair, action="append", default=[], metavar="NAME=PATH", help="one more text; a *.jsonl is JSON lines")
    parser.add_argument("--field", default="text", help="of JSON lines: the field that holds the text (default %(default)s)")
    parser.add_argument("--only", action="append", choices=sorted(makers), help="make these, not all three; may be repeated")
    parser.add_argument("--none", action="store_true", help="make none of the three, only those of --text")
    parser.add_argument("--held_out", type=float, default=5, metavar="PERCENT", help="share of each text that is held out (default %(default)g)")
    args = parser.parse_args()
    if not 0 < args.held_out < 100:
        parser.error(f"--held_out: expected a percentage between 0 and 100, found {args.held_out:g}")
    if args.none and args.only:
        parser.error("--none and --only contradict each other")
    os.makedirs(args.folder, exist_ok=True)
    index, about = os.path.join(args.folder, "texts.json"), {}
    if os.path.exists(index):
        with open(index, encoding="utf-8") as file:
            about = json.load(file)
    for name in [] if args.none else args.only or makers:
        about[name] = save(args.folder, name, makers[name](), args.held_out)
    for name, path in args.text:
        about[name] = save(args.folder, name, given_text(path, args.field), args.held_out)
    write(index, (json.dumps(about, indent=1, ensure_ascii=False) + "\n").encode())


if __name__ == "__main__":
    main()
