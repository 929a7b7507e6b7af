# SPDX-License-Identifier: MIT
"""Checkpoints with the other optimizers of the PyTorch original, bitsandbytes' AdamW8bit and GaLore: `train --resume` refuses their moments and
says what to do, and starts with fresh ones: check_optimizers.py RUN TEXT WORK. Run by `make test-interop`."""
import importlib.metadata
import json
import pathlib
import subprocess
import sys

import bitsandbytes
import galore_torch
import torch
from safetensors.torch import load_file

from bitbyte import TEXT, convert, finish, program, run, tell
from model import Model

source, text, work = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
config = json.loads(run("info", source, "--json"))["config"]
state = load_file(convert(source, work / "original.safetensors", "--to", "safetensors"))


def of_galore(model):
    """The groups of the original's utils/optim.py."""
    projected = [p for name, p in model.named_parameters() if "_proj." in name or ".mlp." in name]
    rest = [p for p in model.parameters() if all(p is not q for q in projected)]
    return galore_torch.GaLoreAdamW([{"params": rest}, {"params": projected, "rank": 128, "update_proj_gap": 200, "scale": 1.0, "proj_type": "std"}],
                                    lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)


def of_bitsandbytes(model):
    return bitsandbytes.optim.AdamW8bit(model.parameters(), lr=1e-4, betas=(0.9, 0.95), weight_decay=0.1)


def resume(path, *options):
    return subprocess.run([program, "train", "--resume", path, *options, "--data", text, "--seq_len", "32", "--batch_size", "1",
                           "--grad_accum", "1", "--steps", "10", "--log_every", "1"], capture_output=True, text=True)


for package, name, create in (("bitsandbytes", "bitsandbytes'", of_bitsandbytes), ("galore-torch", "GaLore", of_galore)):
    model = Model(config)
    model.load_state_dict(state)
    optimizer = create(model)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.tensor([list(TEXT)])).logsumexp(-1).sum().backward()
        optimizer.step()
    path = work / f"{package}.pt"
    torch.save({"step": 7, "variant": "ar", "model_family": "bitbyte", "model": model.state_dict(), "opt": optimizer.state_dict(), "scaler": {},
                "args": {**{key: config[key] for key in ("n_layer", "d_model", "n_head", "n_kv_head", "d_ff")}, "no_act_quant": not config["act_quant"]}}, path)
    refused = resume(path, "--optim", "adamw", "--out", work / "refused")
    advice = f"its optimizer is {name}: only the moments of torch.optim.AdamW are supported; use --no_opt_state"
    tell(refused.returncode != 0 and advice in refused.stderr, f"{package} {importlib.metadata.version(package)}: its moments are refused with advice",
         refused.stderr.strip().splitlines()[-1].removeprefix(f"bitbyte train: {path}: "))
    fresh = resume(path, "--no_opt_state", "--out", work / f"fresh-{package}")
    metrics = work / f"fresh-{package}" / "metrics.jsonl"
    steps = [json.loads(line)["step"] for line in metrics.read_text().splitlines()] if fresh.returncode == 0 else []
    tell(steps == [9, 10], f"{package}: --no_opt_state goes on after the file's 8 steps", f"with {steps}" if steps else fresh.stderr.strip())
    there = load_file(convert(path, work / "there.safetensors", "--to", "safetensors"))
    wrong = [key for key, w in model.state_dict().items() if key != "lm_head.weight" and not torch.equal(w, there[key])]
    tell(not wrong, f"{package}: the file's weights are the model's", f"{len(there)} tensors, {len(wrong)} wrong")
finish()
