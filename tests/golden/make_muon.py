# SPDX-License-Identifier: MIT
"""Writes muon.safetensors: Newton-Schulz on three matrices (ns.in.N -> ns.out.N), and ten steps of Muon + AdamW on one batch.

Weights and batch as make_golden.py writes them; `train.losses` and `after.NAME` with gate_up as one matrix, `split.losses` with gate and up apart;
`bf16.losses`, `bf16_split.losses`: the same with momentum that is rounded to bf16 after each step; `bf16_heads.losses`: the latter, and
each head of q and of k a matrix of its own.
Rates: lr 0.02 (Muon), 3e-3 (AdamW), warm-up 3, cosine to a tenth, wd 0.1, clip 1.0, momentum 0.95.
"""
import json
import os

import torch

import reference as r

here = os.path.dirname(os.path.abspath(__file__))
cfg = dict(vocab_size=256, rope_base=10000.0, norm_eps=1e-6, n_layer=2, d_model=48, n_head=4, n_kv_head=2, d_ff=80, act_quant=True, ste="identity")
text = open(os.path.join(here, "make_golden.py"), "rb").read().split(b"\n", 1)[1]
raw = torch.tensor(list(text[100:100 + 2 * 34]), dtype=torch.int64).view(2, 34)
x, y = raw[:, :-1].contiguous(), raw[:, 1:].contiguous()
p = r.init_params(cfg, 31)
out = {n: v.clone() for n, v in p.items()}
out["io.x"], out["io.y"] = x.to(torch.uint8), y.to(torch.uint8)
gen = torch.Generator().manual_seed(5)
for i, shape in enumerate([(48, 48), (160, 48), (48, 80)]):
    g = torch.randn(*shape, generator=gen)
    out[f"ns.in.{i}"], out[f"ns.out.{i}"] = g, r.newton_schulz(g.double()).float()
q = {n: v.clone() for n, v in p.items()}
out["train.losses"] = torch.tensor(r.train_muon(q, cfg, x, y, 10, 0.02, 3e-3, 3))
for n, v in q.items():
    out["after." + n] = v.detach()
q = {n: v.clone() for n, v in p.items()}
GATE_UP = {"gate_up.weight": 2}
HEADS = {**GATE_UP, "q_proj.weight": cfg["n_head"], "k_proj.weight": cfg["n_kv_head"]}
out["split.losses"] = torch.tensor(r.train_muon(q, cfg, x, y, 10, 0.02, 3e-3, 3, apart=GATE_UP))
# in double precision, which what rounds differently is nearest to
torch.set_default_dtype(torch.float64)
for name, apart in ("bf16", {}), ("bf16_split", GATE_UP), ("bf16_heads", HEADS):
    q = {n: v.double() for n, v in p.items()}
    out[name + ".losses"] = torch.tensor(r.train_muon(q, cfg, x, y, 10, 0.02, 3e-3, 3, apart=apart, bf16=True)).float()
torch.set_default_dtype(torch.float32)
r.save(os.path.join(here, "muon.safetensors"), out, {"format": "bitbyte-golden", "config": json.dumps(cfg)})
print([round(v, 4) for v in out["train.losses"].tolist()], [round(v, 4) for v in out["split.losses"].tolist()])
# how far rounding alone moves them: the same steps in double precision
torch.set_default_dtype(torch.float64)
q = {n: v.double() for n, v in p.items()}
print([round(v, 4) for v in r.train_muon(q, cfg, x, y, 10, 0.02, 3e-3, 3)])
