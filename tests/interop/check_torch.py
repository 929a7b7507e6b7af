# SPDX-License-Identifier: MIT
"""PyTorch loads our state dictionary, and we open its files: check_torch.py RUN TEXT WORK. Run by `make test-interop`."""
import json
import math
import pathlib
import sys

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from bitbyte import TEXT, Library, by_position, convert, difference, finish, run, tell
from model import Model

source, text, work = sys.argv[1], pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3])
library = Library("ref")
config = json.loads(run("info", source, "--json"))["config"]


def bits_per_byte(model, data, window):
    """As `bitbyte eval --seq_len window`: windows apart from each other, every byte but the first."""
    total, count = 0.0, 0
    for at in range(0, len(data) - 1, window):
        part = torch.tensor(list(data[at:at + window + 1]))
        with torch.no_grad():
            total += F.cross_entropy(model(part[None, :-1])[0], part[1:], reduction="sum").item()
        count += len(part) - 1
    return total / count / math.log(2)


def ours(path, *arguments):
    return json.loads(run("eval", path, text, "--seq_len", 256, "--json", *arguments))["bpb"]


state = load_file(convert(source, work / "original.safetensors", "--to", "safetensors"))
model = Model(config)
keys = model.load_state_dict(state, strict=True)
tell(not keys.missing_keys and not keys.unexpected_keys, "PyTorch: load_state_dict(strict=True)", f"{len(state)} tensors")
expected = library.logits(source, TEXT)
found = {}
for dtype in torch.float64, torch.float32:
    with torch.no_grad():
        found[dtype] = model.to(dtype)(torch.tensor([list(TEXT)]))[0].numpy()
d, median = (measure(found[torch.float64], expected) for measure in (difference, by_position))
tell(d < 1e-3 and median < 1e-5, "PyTorch: logits in f64, relative difference", f"{d:.1e} (median of positions {median:.1e})")
d, median = (measure(found[torch.float32], expected) for measure in (difference, by_position))
tell(d < 5e-3, "PyTorch: logits in f32, relative difference", f"{d:.1e} (median of positions {median:.1e})")
theirs = bits_per_byte(model, text.read_bytes(), 256)

# The files of the original's trainer, of a state_dict() alone, and of its save_model.
args = {key: config[key] for key in ("n_layer", "d_model", "n_head", "n_kv_head", "d_ff")}
optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, betas=(0.9, 0.95))
model(torch.tensor([list(TEXT)])).sum().backward()
optimizer.step()
whole = {"step": 7, "variant": "ar", "model_family": "bitbyte", "model": model.state_dict(), "opt": optimizer.state_dict(),
         "scaler": {"scale": 65536.0}, "args": dict(args, no_act_quant=not config["act_quant"])}
torch.save(whole, work / "ckpt.pt")
torch.save(dict(whole, model={"module._orig_mod." + k: v for k, v in model.state_dict().items()}), work / "compiled.pt")
torch.save(model.state_dict(), work / "state_dict.pt")
save_file({k: v for k, v in model.state_dict().items() if k != "tok_emb.weight"}, work / "save_model.safetensors")
for name, arguments in (("ckpt.pt", ()), ("compiled.pt", ()), ("state_dict.pt", ("--n_head", config["n_head"])),
                        ("save_model.safetensors", ("--n_head", config["n_head"]))):
    found = ours(work / name, *arguments)
    tell(abs(found - theirs) < 1e-4, f"PyTorch {torch.__version__}: bits per byte of {name}, {len(text.read_bytes())} bytes",
         f"{found:.6f} here, {theirs:.6f} there")
finish()
