"""Prints how far the ten training losses of the reference in f64 are from the stored ones in f32. Needs torch and numpy."""
import json
import os

import torch

import reference as r

folder = os.path.dirname(os.path.abspath(__file__))
for case in ("mha", "gqa_clipped", "odd", "no_act_quant", "no_act_quant_clipped"):
    tensors, meta = r.load(os.path.join(folder, case + ".safetensors"))
    names = [n for n in tensors if not n.startswith(("io.", "out.", "grad.", "train.", "after."))]
    torch.set_default_dtype(torch.float64)
    params = {n: tensors[n].double() for n in names}
    found = torch.tensor(r.train(params, json.loads(meta["config"]), tensors["io.x"].long(), tensors["io.y"].long(), 10, 1e-2, 3))
    want = tensors["train.losses"].double()
    print(case, "first three", ((found - want)[:3].norm() / want[:3].norm()).item(), "ten", ((found - want).norm() / want.norm()).item())
