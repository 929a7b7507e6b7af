# SPDX-License-Identifier: MIT
"""Loads a model into the PyTorch original: load_in_pytorch.py ORIGINAL model.safetensors, after
bitbyte export MODEL --format safetensors --out model.safetensors"""
import json
import sys

from safetensors import safe_open

sys.path.insert(0, sys.argv[1])
from models.bitbytelm import BitByteLM  # noqa: E402

with safe_open(sys.argv[2], "pt") as file:
    config = json.loads(file.metadata()["config"])
    state = {name: file.get_tensor(name) for name in file.keys()}
keys = ("n_layer", "d_model", "n_head", "n_kv_head", "d_ff", "act_quant", "rope_base")
model = BitByteLM(**{key: config[key] for key in keys}, ckpt=False)
model.load_state_dict(state, strict=True)
print(sum(p.numel() for p in model.parameters()), "parameters")
