#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Writes a byte model of random ternary weights: a GGUF file for llama.cpp or one of its relatives, or a packed file for bitbyte.

A seed gives the same weights in every format. Needs only Python's standard library.
"""

import argparse
import json
import os
import random
import struct
import sys

from common import SHAPES

ALIGNMENT = 32
F32, F16 = 0, 1
SHAPE = ("n_layer", "d_model", "n_head", "d_ff")
TERNARY = bytes(b % 3 for b in range(256))  # of a random byte, a weight's value + 1


def in_twos(values, stride, shifts):
    """Four values a byte: of each 4 * stride of them, those at j, j + stride, ... are in byte j at these shifts."""
    total = 0
    for n, shift in enumerate(shifts):
        plane = bytearray(len(values) // 4)
        for j in range(stride):
            plane[j::stride] = values[stride * n + j :: 4 * stride]
        total |= int.from_bytes(plane, "little") << shift
    return total.to_bytes(len(values) // 4, "little")


def tq2_0(values, columns, scale):
    """llama.cpp: blocks of 256, each followed by its scale."""
    packed, scale = in_twos(values, 32, (0, 2, 4, 6)), struct.pack("<e", scale)
    out = bytearray(len(packed) // 64 * 66)
    for j in range(66):
        out[j::66] = packed[j::64] if j < 64 else scale[j - 64 : j - 63] * (len(packed) // 64)
    return out


def i2_s(values, columns, scale):
    """bitnet.cpp: blocks of 128, one scale after all of them, which has 32 bytes."""
    return in_twos(values, 32, (6, 4, 2, 0)) + struct.pack("<f", scale).ljust(32, b"\0")


def iq2_bn(values, columns, scale):
    """ik_llama.cpp: blocks of 64, a scale before each row."""
    packed, scale = in_twos(values, 16, (0, 2, 4, 6)), struct.pack("<f", scale)
    return b"".join(scale + packed[r : r + columns // 4] for r in range(0, len(packed), columns // 4))


# the tensors' type, general.file_type, what the columns are a multiple of, the packing
FORMATS = {
    "tq2_0": (35, 37, 256, tq2_0),
    "i2_s": (36, 40, 128, i2_s),
    "iq2_bn": (135, 137, 64, iq2_bn),
    "bitbyte": (None, None, 4, lambda values, columns, scale: in_twos(values, 1, (0, 2, 4, 6))),
}


def string(text):
    text = text.encode()
    return struct.pack("<Q", len(text)) + text


def u32(value):
    return struct.pack("<II", 4, value)


def f32(value):
    return struct.pack("<If", 6, value)


def boolean(value):
    return struct.pack("<I?", 7, value)


def text(value):
    return struct.pack("<I", 8) + string(value)


def array(kind, items):
    return struct.pack("<IIQ", 9, kind, len(items)) + b"".join(items)


def byte_tokens():
    """GPT-2's printable character for each byte: token b is byte b."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(b) if b in printable else chr(next(others)) for b in range(256)]


def metadata(args):
    heads = u32(args.n_head)
    return {
        "general.architecture": text("llama"),
        "general.name": text("random ternary byte model"),
        "general.file_type": u32(FORMATS[args.format][1]),
        "general.alignment": u32(ALIGNMENT),
        "llama.vocab_size": u32(256),
        "llama.context_length": u32(args.context),
        "llama.embedding_length": u32(args.d_model),
        "llama.block_count": u32(args.n_layer),
        "llama.feed_forward_length": u32(args.d_ff),
        "llama.attention.head_count": heads,
        "llama.attention.head_count_kv": heads,
        "llama.attention.layer_norm_rms_epsilon": f32(1e-6),
        "llama.rope.dimension_count": u32(args.d_model // args.n_head),
        "llama.rope.freq_base": f32(10000),
        "tokenizer.ggml.model": text("gpt2"),
        "tokenizer.ggml.pre": text("qwen2"),
        "tokenizer.ggml.tokens": array(8, [string(t) for t in byte_tokens()]),
        "tokenizer.ggml.token_type": array(5, [struct.pack("<i", 1)] * 256),
        "tokenizer.ggml.merges": array(8, []),
        # Left out, they would be 11, a vertical tab, and end a text.
        "tokenizer.ggml.bos_token_id": u32(0),
        "tokenizer.ggml.eos_token_id": u32(0),
        "tokenizer.ggml.add_bos_token": boolean(False),
        "tokenizer.ggml.add_eos_token": boolean(False),
    }


def scale_of(columns):
    """A power of two near 1/sqrt(columns): exact in f16 as in f32."""
    return 2.0 ** -((columns.bit_length() - 1) // 2)


def tensors(args):
    """Name, dimensions (the fastest first) and values of each tensor: codes of ternary ones, else a list of numbers."""
    C, d_ff, source = args.d_model, args.d_ff, random.Random(args.seed)

    def ternary(name, rows, columns):
        return name, (columns, rows), source.randbytes(rows * columns).translate(TERNARY)

    def norm(name):
        return name, (C,), [1.0] * C

    halves = f"<{256 * C}e"  # they are exact in f16
    embedding = struct.unpack(halves, struct.pack(halves, *(source.gauss(0, C**-0.5) for _ in range(256 * C))))
    yield "token_embd", (C, 256), embedding
    for n in range(args.n_layer):
        yield norm(f"blk.{n}.attn_norm")
        for name in ("attn_q", "attn_k", "attn_v", "attn_output"):
            yield ternary(f"blk.{n}.{name}", C, C)
        yield norm(f"blk.{n}.ffn_norm")
        for name in ("ffn_gate", "ffn_up"):
            yield ternary(f"blk.{n}.{name}", d_ff, C)
        yield ternary(f"blk.{n}.ffn_down", C, d_ff)
    yield norm("output_norm")


def padding(size):
    return b"\0" * (-size % ALIGNMENT)


def write_gguf(args, file):
    kind, _, _, pack = FORMATS[args.format]
    entries, infos, contents, offset = metadata(args), b"", [], 0
    # Made before they are written, for the offsets: 175 MB at shape L.
    for name, dims, values in tensors(args):
        if isinstance(values, bytes):
            own, data = kind, bytes(pack(values, dims[0], scale_of(dims[0])))
        else:
            own = F16 if len(dims) == 2 else F32
            data = struct.pack(f"<{len(values)}{'e' if own == F16 else 'f'}", *values)
        infos += string(f"{name}.weight") + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, own, offset)
        contents.append(data + padding(len(data)))
        offset += len(contents[-1])
    header = b"GGUF" + struct.pack("<IQQ", 3, len(contents), len(entries))
    header += b"".join(string(key) + value for key, value in entries.items()) + infos
    file.write(header + padding(len(header)))
    for data in contents:
        file.write(data)


# bitbyte's names of a block's tensors
NAMES = {
    "attn_norm": "n1",
    "attn_q": "attn.q_proj",
    "attn_k": "attn.k_proj",
    "attn_v": "attn.v_proj",
    "attn_output": "attn.o_proj",
    "ffn_norm": "n2",
    "ffn_gate": "mlp.gate_up",
    "ffn_up": "mlp.gate_up",
    "ffn_down": "mlp.down",
    "token_embd": "tok_emb",
    "output_norm": "norm_f",
}


def half_split(values, C, heads):
    """Rows of q or k in bitbyte's order: the pairs that are turned together lie half a head apart, not beside each other."""
    half, rows = C // heads // 2, [values[r : r + C] for r in range(0, len(values), C)]
    return b"".join(rows[2 * (h * half + i) + part] for h in range(heads) for part in (0, 1) for i in range(half))


def write_packed(args, file):
    """A packed model file of docs/FORMAT.md, without checksums."""
    header, contents, offset = {}, [], 0

    def add(name, dtype, shape, data):
        nonlocal offset
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [offset, offset + len(data)]}
        contents.append(data)
        offset += len(data)

    gate = b""
    for name, dims, values in tensors(args):
        *block, part = name.split(".")
        own = f"{'blocks.' + block[1] + '.' if block else ''}{NAMES[part]}.weight"
        if not isinstance(values, bytes):
            add(own, "F32", dims[::-1], struct.pack(f"<{len(values)}f", *values))
            continue
        if part == "ffn_gate":
            gate = values
            continue
        if part == "ffn_up":
            values = gate + values
        if part in ("attn_q", "attn_k"):
            values = half_split(values, args.d_model, args.n_head)
        add(own, "U8", (len(values) // dims[0], dims[0] // 4), FORMATS["bitbyte"][3](values, dims[0], None))
        add(f"{own}_scale", "F32", (1,), struct.pack("<f", scale_of(dims[0])))
    config = {"vocab_size": 256, **{key: getattr(args, key) for key in SHAPE}}
    header["__metadata__"] = {"format": "bitbyte-2bit", "config": json.dumps(config), "trained_length": str(args.context)}
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    file.write(struct.pack("<Q", len(text)) + text)
    for data in contents:
        file.write(data)


def write_whole(args):
    """The file args.out, which is there whole or not at all."""
    partial = f"{args.out}.partial"
    try:
        with open(partial, "wb") as file:
            (write_packed if args.format == "bitbyte" else write_gguf)(args, file)
        os.replace(partial, args.out)
    finally:
        if os.path.exists(partial):
            os.remove(partial)


def main():
    p = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    p.add_argument("--format", choices=FORMATS, required=True, help="of the ternary weights")
    p.add_argument("--out", metavar="FILE", required=True, help="the file; it is there whole or not at all")
    p.add_argument("--shape", choices=SHAPES, default="L", help="S: 6 layers of 384, M: 12 of 768, L: 24 of 1536 (default L)")
    for name, what in zip(SHAPE, ("layers", "width", "heads", "width inside the MLP")):
        p.add_argument(f"--{name}", type=int, default=0, metavar="N", help=f"{what} (default: the shape's)")
    p.add_argument("--context", type=int, default=8192, metavar="N", help="the context length it names (default %(default)s)")
    p.add_argument("--seed", type=int, default=1, help="of the weights (default %(default)s)")
    args = p.parse_args()
    for name, value in zip(SHAPE, SHAPES[args.shape]):
        setattr(args, name, getattr(args, name) or value)
        if getattr(args, name) < 1:
            p.error(f"--{name}: expected a number from 1, found {getattr(args, name)}")
    multiple = FORMATS[args.format][2]
    for name in ("d_model", "d_ff"):
        if getattr(args, name) % multiple:
            p.error(f"--{name}: {args.format} needs a multiple of {multiple}, found {getattr(args, name)}")
    if args.d_model % (2 * args.n_head):
        p.error(f"--n_head: {args.d_model} in {args.n_head} heads gives no even number to each")

    try:
        write_whole(args)
    except OSError as error:
        sys.exit(f"random_model: {error.filename or args.out}: {error.strerror}")


if __name__ == "__main__":
    main()
