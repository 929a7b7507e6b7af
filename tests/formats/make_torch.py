# SPDX-License-Identifier: MIT
"""Writes the .pt files of this folder, and losses.txt: the loss of each in PyTorch.

    python3 tests/formats/make_torch.py PATH_TO_THE_ORIGINAL

The original (BitByte in PyTorch) provides the model; bitsandbytes and galore-torch are from PyPI. Run by hand; the files are in the repository.
"""
import argparse
import os
import pathlib
import sys

import bitsandbytes
import galore_torch
import torch
import torch.nn.functional as F

sys.path.insert(0, sys.argv[1])
from models.bitbytelm import BitByteLM  # noqa: E402
from utils.optim import _get_galore_param_groups  # noqa: E402

here = pathlib.Path(__file__).parent
torch.manual_seed(0)
shape = dict(n_layer=1, d_model=16, n_head=2, n_kv_head=1, d_ff=24)
# tests/test_torch_pt.c has the same bytes.
data = torch.tensor([97 + (7 * i * i + i // 5) % 26 for i in range(129)])


def build():
    return BitByteLM(**shape, ckpt=False)


def loss_of(state):
    model = build()
    model.load_state_dict(state)
    with torch.no_grad():
        return F.cross_entropy(model(data[None, :-1])[0], data[1:])


model = build()
# The embedding, half of the weights, has an optimizer of its own, which is not saved: it keeps the file small.
opt = torch.optim.AdamW(model.blocks.parameters(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)
other_opt = torch.optim.AdamW([model.tok_emb.weight, model.norm_f.weight], lr=1e-2, betas=(0.9, 0.95))
for _ in range(20):
    loss = F.cross_entropy(model(data[None, :-1])[0], data[1:])
    model.zero_grad()
    loss.backward()
    opt.step()
    other_opt.step()

args = dict(shape, no_act_quant=False, lr=1e-2, seq_len=128, batch_size=1, steps=20, data_dir="data", resume=None)
scaler = dict(scale=65536.0, growth_factor=2.0, backoff_factor=0.5, growth_interval=2000, _growth_tracker=0)
state = model.state_dict()
half = {k: v.half() for k, v in state.items()}
bfloat = {k: v.bfloat16() for k, v in state.items()}
half["lm_head.weight"] = half["tok_emb.weight"]  # tied, as in the model
losses = {}


def save(name, contents, weights=None):
    torch.save(contents, here / f"{name}.pt")
    if weights is not None:
        losses[name] = loss_of(weights).item()


def prefixed(prefix, weights):
    return {prefix + k: v for k, v in weights.items()}


# What the trainer writes; its step, optimizer and scaler are passed over.
save("trainer", {"step": 19, "variant": "ar", "model_family": "bitbyte", "model": state, "opt": opt.state_dict(),
                 "scaler": scaler, "args": args}, state)
save("state", state, state)
save("half", {"model": prefixed("module.", half), "args": args}, half)
# .bfloat16() of a tied weight makes two tensors with the same numbers.
save("bfloat", {"model": prefixed("_orig_mod.", bfloat), "args": args}, bfloat)
save("parameters", {"model": prefixed("module._orig_mod.", {k: torch.nn.Parameter(v) for k, v in half.items()}),
                    "args": args}, half)
# Column-major matrices, and vectors that are every second element of a storage.
save("views", {"model": {k: v.t().contiguous().t() if v.dim() == 2 else torch.stack((v, v + 1), 1)[:, 0]
                         for k, v in half.items() if k != "lm_head.weight"}, "args": args}, half)
save("head_only", {"model": {k: v for k, v in half.items() if k != "tok_emb.weight"}, "args": args}, half)
save("untied", {"model": dict(half, **{"lm_head.weight": half["lm_head.weight"] * 2}), "args": args})
few = {"blocks.0.attn.q_proj.weight": torch.ones(1, 1), "norm_f.weight": torch.ones(1)}
save("mamba", {"variant": "ar", "model_family": "mamba", "model": few})
save("diffusion", {"variant": "diffusion", "model_family": "bitbyte", "model": few})


class Command:
    def __reduce__(self):
        return os.system, ("touch bitbyte_ran_a_command",)


save("command", dict({"model": few}, x=Command()))
save("namespace", dict({"model": few}, args=argparse.Namespace(**shape)))
torch.save({"model": few}, here / "legacy.pt", _use_new_zipfile_serialization=False)

# A checkpoint with the moments of every parameter, as the trainer writes it after its third step, number 2.
torch.manual_seed(1)
shape = dict(n_layer=1, d_model=8, n_head=2, n_kv_head=1, d_ff=12)
model = build()
opt = torch.optim.AdamW(model.parameters(), lr=1e-2, betas=(0.9, 0.95), weight_decay=0.1)
for _ in range(3):
    loss = F.cross_entropy(model(data[None, :-1])[0], data[1:])
    opt.zero_grad()
    loss.backward()
    opt.step()
save("resume", {"step": 2, "variant": "ar", "model_family": "bitbyte", "model": model.state_dict(), "opt": opt.state_dict(),
                "scaler": scaler, "args": dict(args, **shape)})
# Optimizers whose state cannot be taken. The first is bitsandbytes' AdamW8bit as its versions before 2026 wrote it.
small = {k: v.half() for k, v in model.state_dict().items()}


def save_optimizer(name, state):
    save(name, {"step": 2, "model": small, "opt": state, "args": dict(args, **shape)})


def after_a_step(optimizer):
    loss = F.cross_entropy(model(data[None, :-1])[0], data[1:])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return optimizer.state_dict()


eight = {"step": 3, "state1": torch.zeros(4, dtype=torch.uint8), "state2": torch.zeros(4, dtype=torch.uint8), "absmax1": torch.zeros(1)}
save_optimizer("bitsandbytes", {"state": {0: eight}, "param_groups": [opt.state_dict()["param_groups"][0]]})
save_optimizer("bitsandbytes_nested", after_a_step(bitsandbytes.optim.AdamW8bit(model.parameters(), lr=1e-2, min_8bit_size=0)))
save_optimizer("galore", after_a_step(galore_torch.GaLoreAdamW(_get_galore_param_groups(model, rank=4), lr=1e-2)))

with open(here / "losses.txt", "w") as f:
    for name, value in losses.items():
        f.write(f"{name} {value:.7f}\n")
