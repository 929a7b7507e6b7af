# SPDX-License-Identifier: MIT
"""The ten training losses of the reference in f64: writes train_losses_f64.json, and prints how far the stored ones in f32 are from
them, and how far they and the first gradients move when each weight is changed by up to half of its last bit in f32, when every
gradient has the errors of a backward pass in bf16 and int8, and when attention is in int8 besides.

Needs torch and numpy (Debian: python3-torch).
"""
import json
import os

import torch

import reference as r

DRAWS = 24
# Errors in parts of the norm: of every gradient; in attention, of the scores, of the weights, and of the scores' gradient. A step of
# int8 is 1/42 of most elements where the largest is three times as large, and random by 1/147 of them: of two sides are the scores.
COARSE, INT8 = (0.01, 0, 0, 0), (0.01, 1.4 / 147, 1.4 / 147, 3 / 147)

folder = os.path.dirname(os.path.abspath(__file__))
torch.set_default_dtype(torch.float64)
exact = {}
softmax = torch.softmax
for case in ("mha", "gqa_clipped", "no_act_quant", "no_act_quant_clipped", "odd"):
    tensors, meta = r.load(os.path.join(folder, case + ".safetensors"))
    names = [n for n in tensors if not n.startswith(("io.", "out.", "grad.", "train.", "after."))]
    gen = torch.Generator().manual_seed(0)

    def noise(t):
        return torch.randn(t.shape, generator=gen)

    def rms(t):
        return t.pow(2).mean().sqrt()

    def attention(scores, weights, gradients):
        def noisy_softmax(x, dim):
            seen = torch.isfinite(x)
            x = torch.where(seen, x + scores * rms(x[seen]) * noise(x), x)
            if gradients and x.requires_grad:
                x.register_hook(lambda g: torch.where(seen, g + gradients * rms(g[seen]) * noise(g), g))
            y = softmax(x, dim)
            return y * (1 + weights * noise(y))

        return noisy_softmax

    def weights_with(change, errors):
        p = {n: tensors[n].double() for n in names}
        p = {n: t * (1 + change * (2 * torch.rand(t.shape, generator=gen) - 1)) for n, t in p.items()}
        for t in p.values():
            t.requires_grad_(True).register_hook(lambda g: g + errors[0] * rms(g) * noise(g))
        torch.softmax = attention(*errors[1:]) if any(errors) else softmax
        return p

    config, x, y = json.loads(meta["config"]), tensors["io.x"].long(), tensors["io.y"].long()

    def losses(change, errors=(0, 0, 0, 0)):
        return torch.tensor(r.train(weights_with(change, errors), config, x, y, 10, 1e-2, 3))

    def gradients(errors=(0, 0, 0, 0)):
        p = weights_with(0, errors)
        r.loss_of(p, config, x, y).backward()
        return {n: t.grad for n, t in p.items()}

    def distance(a, b):
        return ((a - b).norm() / b.norm()).item()

    want, stored = losses(0), tensors["train.losses"].double()
    exact[case] = want.tolist()
    moved = sorted(distance(losses(2**-25), want) for _ in range(DRAWS))
    print(f"{case:22} f32: first three {distance(stored[:3], want[:3]):.1e}, ten {distance(stored, want):.1e}; "
          f"moved: {moved[0]:.1e} to {moved[-1]:.1e}, median {moved[DRAWS // 2]:.1e}")
    right = gradients()
    for name, errors in (("bf16 and int8", COARSE), ("and attention in int8", INT8)):
        moved = sorted(distance(losses(0, errors), want) for _ in range(DRAWS))
        off = sorted(max(distance(g, right[n]) for n, g in gradients(errors).items()) for _ in range(DRAWS))
        print(f"{'':22} {name}: ten {moved[0]:.1e} to {moved[-1]:.1e}, median {moved[DRAWS // 2]:.1e}; "
              f"worst gradient {off[0]:.1e} to {off[-1]:.1e}")
with open(os.path.join(folder, "train_losses_f64.json"), "w") as f:
    f.write("{\n" + ",\n".join(f'  "{case}": {json.dumps(values)}' for case, values in exact.items()) + "\n}\n")
