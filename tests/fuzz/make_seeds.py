# SPDX-License-Identifier: MIT
"""Writes the seeds of fuzz_gguf, fuzz_hf and fuzz_safetensors from a model with one block.

    python3 tests/fuzz/make_seeds.py build/bitbyte

Run by hand; the seeds are in the repository.
"""
import json
import pathlib
import struct
import subprocess
import sys
import tempfile

program = pathlib.Path(sys.argv[1]).resolve()
seeds = pathlib.Path(__file__).parent / "seeds"
end = b"\xff"  # of a part, see the targets


def run(*arguments):
    subprocess.run([program, *arguments], cwd=work, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def save(target, name, data):
    (seeds / target).mkdir(exist_ok=True)
    (seeds / target / name).write_bytes(data)


def parts(file):
    """Header and data of a safetensors file. The data are zeros: a fuzzer has enough to do with the header."""
    data = file.read_bytes()
    size, = struct.unpack("<Q", data[:8])
    return data[8:8 + size].rstrip(), bytes(len(data) - 8 - size)


def text(value):
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def pair(key, kind, value):
    return text(key) + struct.pack("<I", kind) + value


def gguf(pairs, tensors, data=b""):
    head = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(pairs)) + b"".join(pairs + tensors)
    return head + bytes(-len(head) % 32) + data


def tensor(name, shape, kind, offset):
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


with tempfile.TemporaryDirectory() as folder:
    work = pathlib.Path(folder)
    (work / "text").write_bytes(bytes(97 + i * i % 26 for i in range(3000)))
    run("train", "--data", "text", "--out", "run", "--n_layer", "1", "--d_model", "4", "--n_head", "2", "--n_kv_head", "1", "--d_ff", "2",
        "--seq_len", "16", "--batch_size", "1", "--steps", "1", "--optim", "adamw")
    run("convert", "run", "model.safetensors")
    run("convert", "run", "packed.safetensors", "--to", "packed")
    run("convert", "run", "f32.gguf", "--type", "f32")
    run("convert", "run", "f16.gguf", "--type", "f16")
    run("convert", "run", "hf/")

    save("gguf", "f32.gguf", (work / "f32.gguf").read_bytes())
    save("gguf", "f16.gguf", (work / "f16.gguf").read_bytes())
    save("gguf", "small.gguf", gguf(
        [pair("general.architecture", 8, text("llama")), pair("general.alignment", 4, struct.pack("<I", 64)),
         pair("a", 9, struct.pack("<IQ", 9, 1) + struct.pack("<IQ", 8, 2) + text("x") + text("")),
         pair("b", 7, b"\1"), pair("c", 12, struct.pack("<d", 1.5)), pair("d", 3, b"\xfe\xff")],
        [tensor("q", (256, 1), 35, 0), tensor("t", (256, 1), 34, 128), tensor("e", (32,), 8, 192), tensor("f", (4, 2), 0, 256)], bytes(288)))
    save("gguf", "empty.gguf", gguf([], []))

    for name in "model", "packed":
        header, data = parts(work / f"{name}.safetensors")
        save("safetensors", f"{name}.parts", header + end + data)
    header, data = parts(work / "run" / "step-00000001.safetensors")
    save("safetensors", "checkpoint.parts", header + end + data)

    config = (work / "hf" / "config.json").read_bytes()
    header, data = parts(work / "hf" / "model.safetensors")
    save("hf", "whole", config + end + end + header + end + data + end + end)
    tensors = {name: t for name, t in json.loads(header).items() if name != "__metadata__"}
    shards, files = [{}, {}], {}
    sizes = [0, 0]
    for i, (name, t) in enumerate(tensors.items()):
        size = t["data_offsets"][1] - t["data_offsets"][0]
        shards[i % 2][name] = dict(t, data_offsets=[sizes[i % 2], sizes[i % 2] + size])
        sizes[i % 2] += size
        files[name] = "ab"[i % 2] + ".safetensors"
    index = {"metadata": {"total_size": sum(sizes)}, "weight_map": files}
    save("hf", "shards", end.join([config, json.dumps(index).encode(), json.dumps(shards[0]).encode(), bytes(sizes[0]),
                                   json.dumps(shards[1]).encode(), bytes(sizes[1])]))
