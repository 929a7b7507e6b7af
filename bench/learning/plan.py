# SPDX-License-Identifier: MIT
"""The runs that a configuration file defines, each with the options of `bitbyte train` that determine its result, and a key made from them."""

import hashlib
import json
import os
import shlex
from dataclasses import dataclass

# What the script itself decides.
RESERVED = ("data", "val_data", "out", "seed", "resume", "json", "threads", "stop_at", "allow_overwrite", "max_minutes", "ddp", "profile")
MEMBERS = {"about": str, "texts": list, "seeds": list, "options": str, "variants": dict, "seconds": (int, float)}


class Wrong(Exception):
    """A configuration, a text or an option that can't be used; the message names the place."""


def parse_options(words, where):
    """Name (without dashes, with _) and value of each option, None where it is a switch; of a name given twice the last one."""
    options = {}
    name = None
    for word in shlex.split(words):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            name = name.replace("-", "_")
            if name in RESERVED:
                raise Wrong(f"{where}: --{name} is for bench/learning/experiments.py to give, not for a configuration")
            options[name] = value if equals else None
            name = None if equals else name
        elif name is None:
            raise Wrong(f"{where}: expected an option (--name), found '{word}'")
        else:
            options[name], name = word, None
    return options


def to_words(options):
    return [word for name, value in options.items() for word in ([f"--{name}"] if value is None else [f"--{name}", value])]


def key_of(parts):
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def digest(path):
    try:
        with open(path, "rb") as file:
            return hashlib.sha256(file.read()).hexdigest()
    except OSError as error:
        raise Wrong(f"{path}: {error.strerror}") from error


@dataclass
class Text:
    name: str
    train: str
    held_out: str
    digests: list


@dataclass
class Run:
    variant: str
    text: Text
    seed: int
    options: dict  # with the number of steps

    @property
    def key(self):
        """The same for whatever has the same result: names, threads and places don't count."""
        return key_of({"options": self.options, "seed": self.seed, "text": self.text.digests})

    @property
    def title(self):
        return f"{self.variant}, {self.text.name}, seed {self.seed}"


class Configuration:
    def __init__(self, path):
        try:
            with open(path, encoding="utf-8") as file:
                found = json.load(file)
        except OSError as error:
            raise Wrong(f"{path}: {error.strerror}") from error
        except ValueError as error:
            raise Wrong(f"{path}: not JSON: {error}") from error
        if not isinstance(found, dict):
            raise Wrong(f"{path}: expected an object, found {json.dumps(found)[:40]}")
        for name, value in found.items():
            if name not in MEMBERS:
                raise Wrong(f"{path}: expected {', '.join(MEMBERS)}, found '{name}'")
            if not isinstance(value, MEMBERS[name]) or isinstance(value, bool):
                raise Wrong(f"{path}: {name}: {json.dumps(value)[:40]} is not of the right kind (see --help)")
        for name in ("texts", "seeds", "variants"):
            if not found.get(name):
                raise Wrong(f"{path}: {name}: expected at least one")
        if not all(isinstance(seed, int) for seed in found["seeds"]):
            raise Wrong(f"{path}: seeds: expected whole numbers, found {json.dumps(found['seeds'])}")
        if found.get("seconds", 1) <= 0:
            raise Wrong(f"{path}: seconds: expected more than 0, found {found['seconds']}")
        self.path, self.texts, self.seeds = path, found["texts"], found["seeds"]
        self.seconds = found.get("seconds")
        common = parse_options(found.get("options", ""), f"{path}: options")
        self.variants = {}
        for name, words in found["variants"].items():
            if not isinstance(words, str):
                raise Wrong(f"{path}: variants: {name}: expected a text of options, found {json.dumps(words)[:40]}")
            self.variants[name] = {**common, **parse_options(words, f"{path}: variants: {name}")}
            if not self.variants[name].get("steps", "").isdigit():
                raise Wrong(f"{path}: variants: {name}: expected --steps N, in its own options or the common ones")
        self.first = next(iter(self.variants))

    def open_texts(self, folder):
        texts = []
        for name in self.texts:
            train, held_out = (os.path.join(folder, f"{name}.{part}") for part in ("train", "held_out"))
            for path in (train, held_out):
                if not os.path.exists(path):
                    raise Wrong(f"{path}: no such text; bench/learning/texts.py makes texts (see its --help)")
            texts.append(Text(name, train, held_out, [digest(train), digest(held_out)]))
        return texts

    def runs(self, texts, steps=None):
        """In an order that completes whole pairs early. `steps`: of each variant, in place of its own; None for one that has none."""
        found = []
        for seed in self.seeds:
            for text in texts:
                for name, options in self.variants.items():
                    if steps is not None:
                        if steps[name] is None:
                            continue
                        options = {**options, "steps": str(steps[name])}
                    found.append(Run(name, text, seed, options))
        return found
