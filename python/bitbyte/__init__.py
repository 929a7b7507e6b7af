# SPDX-License-Identifier: MIT
"""BitByte: byte-level language models with ternary weights.

    import bitbyte
    model = bitbyte.load("runs/first")
    print(model.score("In the beginning").bits_per_byte)
    for byte in model.generate("In the ", max_new_bytes=80, temperature=0.8, seed=7):
        sys.stdout.buffer.write(byte)
"""
from bitbyte._generate import Generation, Metrics
from bitbyte._library import (
    ArgumentError,
    DataError,
    Error,
    FileError,
    FormatError,
    NumericError,
    OutOfMemoryError,
    StoppedError,
    UnsupportedError,
    lib as _lib,
    text as _text,
)
from bitbyte._model import Config, Device, Evaluation, Model, Score, default_device, describe
from bitbyte._train import Trained, TrainEvent, train

load = Model.load
__version__: str = _text(_lib.bb_version())
__all__ = [
    "ArgumentError", "Config", "DataError", "Device", "Error", "Evaluation", "FileError", "FormatError", "Generation", "Metrics", "Model",
    "NumericError", "OutOfMemoryError", "Score", "StoppedError", "TrainEvent", "Trained", "UnsupportedError", "default_device", "describe",
    "load", "train",
]
