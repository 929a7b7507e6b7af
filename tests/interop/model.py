# SPDX-License-Identifier: MIT
"""The model of docs/FORMAT.md in PyTorch, with the module names of the PyTorch original."""
import math

import torch
import torch.nn.functional as F
from torch import nn


class BitLinear(nn.Module):
    def __init__(self, inputs, outputs, act_quant):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs))
        self.act_quant = act_quant

    def forward(self, x):
        if self.act_quant:
            scale = (x.abs().amax(-1, keepdim=True) / 127).clamp(min=1e-8)
            x = x + ((x / scale).round().clamp(-127, 127) * scale - x).detach()
        g = self.weight.abs().mean().clamp(min=1e-8)
        q = (self.weight / g).clamp(-1, 1).round() * g
        return F.linear(x, self.weight + (q - self.weight).detach())


class Norm(nn.Module):
    def __init__(self, width, eps):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x):
        return x * (x.pow(2).mean(-1, keepdim=True) + self.eps).rsqrt() * self.weight


class Attention(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.c, self.d = c, c["d_model"] // c["n_head"]
        kv = c["n_kv_head"] * self.d
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (
            BitLinear(c["d_model"], n, c["act_quant"]) for n in (c["d_model"], kv, kv, c["d_model"]))

    def rotate(self, x):
        angle = torch.arange(x.shape[2])[:, None] * self.c["rope_base"] ** (-torch.arange(0, self.d, 2) / self.d)
        a, b = x.chunk(2, -1)
        return torch.cat((a * angle.cos() - b * angle.sin(), b * angle.cos() + a * angle.sin()), -1)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = (p(x).view(B, T, -1, self.d).transpose(1, 2) for p in (self.q_proj, self.k_proj, self.v_proj))
        repeat = self.c["n_head"] // self.c["n_kv_head"]
        k, v = self.rotate(k).repeat_interleave(repeat, 1), v.repeat_interleave(repeat, 1)
        scores = self.rotate(q) @ k.transpose(2, 3) / math.sqrt(self.d)
        scores = scores.masked_fill(torch.ones(T, T).triu(1).bool(), -math.inf)
        return self.o_proj((scores.softmax(-1) @ v).transpose(1, 2).reshape(B, T, C))


class MLP(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.gate_up = BitLinear(c["d_model"], 2 * c["d_ff"], c["act_quant"])
        self.down = BitLinear(c["d_ff"], c["d_model"], c["act_quant"])

    def forward(self, x):
        gate, up = self.gate_up(x).chunk(2, -1)
        return self.down(F.silu(gate) * up)


class Block(nn.Module):
    def __init__(self, c):
        super().__init__()
        self.n1, self.attn, self.n2, self.mlp = Norm(c["d_model"], c["norm_eps"]), Attention(c), Norm(c["d_model"], c["norm_eps"]), MLP(c)

    def forward(self, x):
        x = x + self.attn(self.n1(x))
        return x + self.mlp(self.n2(x))


class Model(nn.Module):
    """c: the configuration as `bitbyte info --json` has it."""

    def __init__(self, c):
        super().__init__()
        self.tok_emb = nn.Embedding(c["vocab_size"], c["d_model"])
        self.blocks = nn.ModuleList(Block(c) for _ in range(c["n_layer"]))
        self.norm_f = Norm(c["d_model"], c["norm_eps"])
        self.lm_head = nn.Linear(c["d_model"], c["vocab_size"], bias=False)
        self.lm_head.weight = self.tok_emb.weight

    def forward(self, ids):
        x = self.tok_emb(ids)
        for block in self.blocks:
            x = block(x)
        return self.lm_head(self.norm_f(x))
