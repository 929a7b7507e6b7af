# SPDX-License-Identifier: MIT
"""PyPI's gguf reads our files, and we read its: check_gguf.py RUN WORK. Run by `make test-interop`."""
import json
import pathlib
import sys

import gguf
import numpy as np
from safetensors.numpy import load_file

from bitbyte import convert, finish, run, tell

source, work = sys.argv[1], pathlib.Path(sys.argv[2])
config = json.loads(run("info", source, "--json"))["config"]
weights = load_file(convert(source, work / "hf-gguf", "--to", "hf") / "model.safetensors")
NAMES = {"input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
         "self_attn.o_proj": "attn_output", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
         "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down"}


def name_of(theirs):
    if theirs.startswith("model.layers."):
        _, _, layer, rest = theirs.split(".", 3)
        return f"blk.{layer}.{NAMES[rest.removesuffix('.weight')]}.weight"
    return {"model.embed_tokens.weight": "token_embd.weight", "model.norm.weight": "output_norm.weight"}[theirs]


def interleave(name, w):
    """llama.cpp's llama turns the rows 2i and 2i + 1 of a head, transformers i and i + D/2."""
    heads = {"attn_q": config["n_head"], "attn_k": config["n_kv_head"]}.get(name.split(".")[-2])
    return w.reshape(heads, 2, -1, w.shape[1]).swapaxes(1, 2).reshape(w.shape) if heads else w


expected = {name_of(name): interleave(name_of(name), w) for name, w in weights.items()}
for kind in "f32", "f16", "q8_0", "tq1_0", "tq2_0", "q2_0":
    if kind.upper() not in gguf.GGMLQuantizationType.__members__ and kind == "q2_0":
        print(f"skipped: PyPI's gguf has no {kind}", flush=True)
        continue
    path = convert(source, work / f"{kind}.gguf", "--type", kind, "--name", "Test", "--license", "mit", "--description", "A test")
    reader = gguf.GGUFReader(path)
    found = {t.name: gguf.quants.dequantize(t.data, t.tensor_type).reshape(expected[t.name].shape) for t in reader.tensors}
    codes = sum(int(np.any(np.sign(found[name]) != np.sign(w))) for name, w in expected.items())
    scales = max(float(np.max(np.abs(found[name] - w)) / np.max(np.abs(w))) for name, w in expected.items())
    field = {key: reader.get_field(key).contents() for key in ("general.name", "general.license", "general.description", "general.file_type")}
    good = set(found) == set(expected) and not codes and scales <= (0 if kind == "f32" else 2**-11 * 1.01)
    good = good and (field["general.name"], field["general.license"], field["general.description"]) == ("Test", "mit", "A test")
    good = good and gguf.LlamaFileType(field["general.file_type"]).name.endswith({"f32": "ALL_F32", "f16": "MOSTLY_F16"}.get(kind, "MOSTLY_" + kind.upper()))
    tell(good, f"gguf {kind}: PyPI's reader has the same codes, largest difference of a value", f"{scales:.1e} of the tensor's largest")

# What PyPI's writer writes, with the quantization of gguf.quants.
packed = convert(source, work / "packed-gguf", "--to", "packed").read_bytes()
for kind in "F32", "Q8_0", "TQ1_0", "TQ2_0":
    path = work / f"theirs-{kind}.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(json.loads(run("info", source, "--json"))["trained_length"])
    writer.add_embedding_length(config["d_model"])
    writer.add_block_count(config["n_layer"])
    writer.add_feed_forward_length(config["d_ff"])
    writer.add_head_count(config["n_head"])
    writer.add_head_count_kv(config["n_kv_head"])
    writer.add_layer_norm_rms_eps(config["norm_eps"])
    writer.add_rope_freq_base(config["rope_base"])
    writer.add_vocab_size(256)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([t for t in gguf.GGUFReader(work / "f32.gguf").get_field("tokenizer.ggml.tokens").contents()])
    for name, w in expected.items():
        ternary = w.ndim == 2 and name != "token_embd.weight"
        quantized = gguf.GGMLQuantizationType[kind] if ternary else gguf.GGMLQuantizationType.F32
        writer.add_tensor(name, gguf.quants.quantize(w, quantized), raw_dtype=quantized)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    back = load_file(convert(path, work / f"theirs-{kind}", "--to", "hf") / "model.safetensors")
    codes = sum(int(np.any(np.sign(back[name]) != np.sign(w))) for name, w in weights.items())
    scales = max(float(np.max(np.abs(back[name] - w)) / np.max(np.abs(w))) for name, w in weights.items())
    tell(not codes and scales <= (0 if kind == "F32" else 2**-11 * 1.01), f"gguf {kind}: a file of PyPI's writer is read to the same codes",
         f"{scales:.1e}")
finish()
