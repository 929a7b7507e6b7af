"""The ten training losses of the reference in f64: writes train_losses_f64.json, and prints how far the stored ones in f32 are from
them, and how far they move by themselves when each weight is changed by up to half of its last bit in f32, and when every gradient
and attention's weights have the errors of coarser arithmetic.

Needs torch and numpy (Debian: python3-torch).
"""
import json
import os

import torch

import reference as r

DRAWS = 24
GRADIENTS, WEIGHTS = 0.01, 1.3e-4  # errors by norm: of bf16 and int8 in the backward pass, of int16 in attention's forward pass

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

    def losses(change, gradients=0, weights=0):
        p = {n: tensors[n].double() for n in names}
        p = {n: t * (1 + change * (2 * torch.rand(t.shape, generator=gen) - 1)) for n, t in p.items()}
        if gradients:
            for t in p.values():
                t.requires_grad_(True).register_hook(lambda g: g + gradients * g.pow(2).mean().sqrt() * noise(g))
        torch.softmax = lambda x, dim: (lambda y: y * (1 + weights * noise(y)))(softmax(x, dim)) if weights else softmax(x, dim)
        return torch.tensor(r.train(p, json.loads(meta["config"]), tensors["io.x"].long(), tensors["io.y"].long(), 10, 1e-2, 3))

    def distance(a, b):
        return ((a - b).norm() / b.norm()).item()

    want, stored = losses(0), tensors["train.losses"].double()
    exact[case] = want.tolist()
    moved = sorted(distance(losses(2**-25), want) for _ in range(DRAWS))
    print(f"{case:22} f32: first three {distance(stored[:3], want[:3]):.1e}, ten {distance(stored, want):.1e}; "
          f"moved: {moved[0]:.1e} to {moved[-1]:.1e}, median {moved[DRAWS // 2]:.1e}")
    for errors in ((GRADIENTS, 0), (GRADIENTS, WEIGHTS)):
        moved = sorted(distance(losses(0, *errors), want) for _ in range(DRAWS))
        print(f"{'':22} with errors of {errors[0]:g} and {errors[1]:g}: {moved[0]:.1e} to {moved[-1]:.1e}, "
              f"median {moved[DRAWS // 2]:.1e}")
with open(os.path.join(folder, "train_losses_f64.json"), "w") as f:
    f.write("{\n" + ",\n".join(f'  "{case}": {json.dumps(values)}' for case, values in exact.items()) + "\n}\n")
