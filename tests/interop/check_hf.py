# SPDX-License-Identifier: MIT
"""Compares the logits of an exported folder in transformers with BitByte's, and checks the tokenizer.

    bitbyte export MODEL --format hf --out DIR
    python3 tests/interop/check_hf.py MODEL DIR [build/libbitbyte.so]

Run by hand: it needs torch and transformers. The linear layers' inputs are rounded to int8 as in training.
"""
import ctypes
import os
import random
import sys

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

model_path, folder = sys.argv[1:3]
library = ctypes.CDLL(sys.argv[3] if len(sys.argv) > 3 else "build/libbitbyte.so")


def call(name, *args):
    err = ctypes.create_string_buffer(1 << 16)
    if getattr(library, name)(*args, err) != 0:
        sys.exit(f"{name}: {err.raw[4:].split(bytes(1))[0].decode()}")


def bitbyte_logits(data):
    device, model = ctypes.c_void_p(), ctypes.c_void_p()
    call("bb_device_open", b"cpu", 0, ctypes.byref(device))
    call("bb_model_load_for_inference", device, model_path.encode(), ctypes.byref(model))
    logits = np.empty((len(data), 256), np.float32)
    call("bb_model_forward", model, data, 1, len(data), logits.ctypes.data_as(ctypes.c_void_p))
    return torch.from_numpy(logits)


def int8(module, inputs):
    x = inputs[0]
    scale = (x.abs().amax(-1, keepdim=True) / 127).clamp(min=1e-8)
    return ((x / scale).round().clamp(-127, 127) * scale,)


tokenizer = AutoTokenizer.from_pretrained(folder)
assert len(tokenizer) == 256, len(tokenizer)
texts = ["Once upon a time,\n", "  two  spaces \t\r\n", "naïve — ŝanĝo 日本語 🎈", "<s></s><|endoftext|>[UNK]", "\x00\x01\x7f", ""]
random.seed(0)
texts += ["".join(chr(random.randrange(1, 0xD800)) for _ in range(200)) for _ in range(20)]
for text in texts:
    ids = tokenizer(text)["input_ids"]
    assert ids == list(text.encode()), (text, ids)
    assert tokenizer.decode(ids) == text, (text, tokenizer.decode(ids))

model = AutoModelForCausalLM.from_pretrained(folder).float()
text = ("It was the best of times, it was the worst of times, it was the age of wisdom, it was the age of foolishness. " * 3)[:256]
plain = model(torch.tensor([list(text.encode())])).logits[0].detach()
for name, module in model.named_modules():
    if name.endswith("_proj"):
        module.register_forward_pre_hook(int8)
found = model(torch.tensor([list(text.encode())])).logits[0].detach()
expected = bitbyte_logits(text.encode())
difference = ((found - expected).norm() / expected.norm()).item()
without = ((plain - expected).norm() / expected.norm()).item()
print(f"logits: relative difference {difference:.2e} with int8 inputs, {without:.2e} without; tokenizer: {len(texts)} texts agree")
generated = model.generate(**tokenizer("Once", return_tensors="pt"), max_new_tokens=8, do_sample=False)
assert generated.shape[1] == 12, generated.shape
sys.exit(0 if difference < 1e-4 or os.environ.get("TYPE") == "bf16" else "the logits differ")
