#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes a packed model file of a larger shape that computes the same as a given model: its weights padded with zeros, its blocks followed by
blocks that add nothing. For timing features that depend on a model's text, such as speculative decoding, at the cost of a model too large to
train here.

Needs only Python's standard library.
"""

import argparse
import json
import math
import struct
import sys

ZERO = 0x55  # four weights of 0


def read(path):
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
        data = file.read()
    metadata = header.pop("__metadata__")
    if metadata.get("format") != "bitbyte-2bit":
        sys.exit(f"{path}: no packed model file; bitbyte export writes one")
    return metadata, {name: data[slice(*t["data_offsets"])] for name, t in header.items()}


def matrix(codes, rows, columns, to_rows, to_columns):
    """(rows, columns) in the upper left corner of zeros; columns are multiples of 4."""
    width, filler = columns // 4, bytes([ZERO]) * ((to_columns - columns) // 4)
    out = b"".join(codes[r * width : (r + 1) * width] + filler for r in range(rows))
    return out + bytes([ZERO]) * ((to_rows - rows) * to_columns // 4)


def widened(config, tensors, C, d_ff, n_layer):
    """Name, dtype, shape and bytes of each tensor."""
    c, f = config["d_model"], config["d_ff"]
    narrower = math.sqrt(c / C)  # of the mean square, over more columns

    def norm(name, weights):
        values = struct.unpack(f"<{c}f", weights)
        return name, "F32", [C], struct.pack(f"<{C}f", *(v * narrower for v in values), *([0.0] * (C - c)))

    def ternary(name, source, shape, to_shape, halves=1):
        codes, scale = tensors.get(source), tensors.get(f"{source}_scale", struct.pack("<f", 1))
        if codes is None:
            out = bytes([ZERO]) * (to_shape[0] * to_shape[1] // 4)
        else:
            part = len(codes) // halves
            out = b"".join(
                matrix(codes[h * part : (h + 1) * part], shape[0] // halves, shape[1], to_shape[0] // halves, to_shape[1])
                for h in range(halves)
            )
        yield name, "U8", [to_shape[0], to_shape[1] // 4], out
        yield f"{name}_scale", "F32", [1], scale

    embedding, row = tensors["tok_emb.weight"], 4 * c
    rows = (embedding[i : i + row] for i in range(0, len(embedding), row))
    yield "tok_emb.weight", "F32", [256, C], b"".join(r + bytes(4 * (C - c)) for r in rows)
    for n in range(n_layer):
        block = f"blocks.{n}."
        for name in ("n1", "n2"):
            yield norm(f"{block}{name}.weight", tensors.get(f"{block}{name}.weight", bytes(4 * c)))
        for name in ("q_proj", "k_proj", "v_proj", "o_proj"):
            weight = f"{block}attn.{name}.weight"
            yield from ternary(weight, weight, (c, c), (C, C))
        weight = f"{block}mlp.gate_up.weight"
        yield from ternary(weight, weight, (2 * f, c), (2 * d_ff, C), halves=2)
        weight = f"{block}mlp.down.weight"
        yield from ternary(weight, weight, (c, f), (C, d_ff))
    yield norm("norm_f.weight", tensors["norm_f.weight"])


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="packed model file")
    parser.add_argument("out")
    parser.add_argument("--n_layer", type=int, default=24)
    parser.add_argument("--d_model", type=int, default=1536, help="a multiple of the model's head size")
    parser.add_argument("--d_ff", type=int, default=4096)
    args = parser.parse_args()
    metadata, tensors = read(args.model)
    config = json.loads(metadata["config"])
    head = config["d_model"] // config["n_head"]
    if config["n_kv_head"] != config["n_head"]:
        sys.exit(f"{args.model}: its heads share keys and values, which is not known here")
    if args.d_model % head or args.d_model < config["d_model"] or args.d_ff < config["d_ff"] or args.n_layer < config["n_layer"]:
        sys.exit(f"{args.model}: does not fit the shape asked for")
    made = list(widened(config, tensors, args.d_model, args.d_ff, args.n_layer))
    config["norm_eps"] *= config["d_model"] / args.d_model
    config.update(n_layer=args.n_layer, d_model=args.d_model, d_ff=args.d_ff)
    config.update(n_head=args.d_model // head, n_kv_head=args.d_model // head)
    metadata["config"] = json.dumps(config)
    metadata.pop("tensor_xxh3", None)
    header, offset = {"__metadata__": metadata}, 0
    for name, dtype, shape, data in made:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        offset += len(data)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(args.out, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for _, _, _, data in made:
            file.write(data)


if __name__ == "__main__":
    main()
