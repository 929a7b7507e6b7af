#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""usage: scaling_model.py [scaling.jsonl]
Fits the cost model of docs/SCALING.md to measured training steps (bench/scaling.sh), validates it on the points it was not fitted to,
and extrapolates to machines that were not measured. Needs only the standard library."""
import json
import math
import os
import sys

CORES = 2  # of the machine that measured
BUCKET = 1 << 22  # elements that are exchanged at a time, src/training/shards.c
ACTIVE = 4  # of these, moving at the same time, src/dist/mpi_engine.h
PAYLOAD = 1448 / 1514  # of an Ethernet frame of 1,500 bytes, what TCP carries


def ternary(layers, width, feed):
    return layers * (4 * width * width + 3 * width * feed)


def parameters(layers, width, feed):
    return ternary(layers, width, feed) + (2 * layers + 1 + 256) * width


def weights_back(layers, width, feed):
    """bytes of what --zero 1 gives back after an update, all of it: two bits of what is ternary, the rest in f32"""
    of_ternary = ternary(layers, width, feed)
    return of_ternary / 4 + 4 * (parameters(layers, width, feed) - of_ternary)


SHAPES = {"A": (4, 512, 1408), "B": (6, 384, 1024)}


def rate_of(link):
    """bytes/s of the shaped link; 0: not shaped"""
    text = link.split(":")[0]
    return float(text[:-4]) * 1e9 / 8 if text.endswith("gbit") else 0.0


def buckets(layers, params):
    """how many ranges of at least 2^20 and at most 2^22 elements the backward pass hands over"""
    per_layer = params / layers
    together = max(1, math.ceil((1 << 20) / per_layer))
    return math.ceil(layers / together) * max(1, math.ceil(per_layer * together / BUCKET))


# The names of what is fitted, and where the search begins (seconds; seconds a byte; a share).
START = {
    "micro_A": 0.015,  # forward and backward pass of one batch
    "micro_B": 0.035,
    "param": 2e-9,  # what a step does once for each parameter: update, quantize
    "update": 0.5e-9,  # of that, what --zero 1 shares out
    "contend": 0.5,  # how much longer that takes, memory's work, while other ranks do the same
    "byte_net": 1e-9,  # processor time a byte sent: to the kernel, from it, added
    "byte_relay": 0.4e-9,  # in the switch that delays, on the same processors
    "wake": 1e-3,  # what a one-way trip takes beyond the link's delay
}


def predict(point, k):
    """seconds of a step"""
    layers, width, feed = SHAPES[point["shape"]]
    params = parameters(layers, width, feed)
    ranks, link = point["ranks"], point["link"]
    micro = k["micro_" + point["shape"]]
    once = params * k["param"]
    if ranks == 1:
        return point["micros"] * micro + once
    if point["zero"]:
        once -= params * min(k["update"], k["param"]) * (1 - 1 / ranks)
    # Gradients go while the backward pass goes on: to where they are summed, and back unless the update is shared out. Then what
    # was updated comes back after it.
    share = (ranks - 1) / ranks
    during = share * 4 * params * (1 if point["zero"] else 2)
    after = share * weights_back(layers, width, feed) if point["zero"] else 0
    cost = 0.0 if link == "alone" else k["byte_net"]  # within a host nothing that was seen beside the memory's work above
    if link != "alone" and not link.endswith(":0"):
        cost += k["byte_relay"]
    crowd = max(1.0, ranks / CORES)
    busy = crowd * (point["micros"] * micro + once * (1 + k["contend"]) + (during + after) * cost)
    if link == "alone":
        return busy
    # The wire moves while processors are busy with the exchange, and with part of the last batch's passes.
    exposed, rate = 0.0, rate_of(link) * PAYLOAD
    if rate:
        exposed = max(0.0, during / rate - crowd * (during * cost + micro * 2 / 3))
        exposed += max(0.0, after / rate - crowd * after * cost)
    # Two for each range, a step's reports, and with --zero 1 the norm's sums and the scales'.
    trips = 2 * math.ceil(buckets(layers, params) / ACTIVE) + math.ceil(math.log2(ranks)) + (2 if point["zero"] else 0)
    return busy + exposed + trips * (point["rtt_us"] * 0.5e-6 + k["wake"])


def fitted_to(p):
    """alone: all; otherwise shape A, one batch a rank, on 2 and 4 ranks over three of the links"""
    if p["link"] == "alone":
        return True
    return p["shape"] == "A" and p["micros"] == 1 and p["ranks"] in (2, 4) and p["link"] in ("0:0", "1gbit:100", "10gbit:1000")


def minimize(cost, start, rounds=6000):
    """Nelder and Mead's simplex, on logarithms"""
    n = len(start)
    simplex = [list(start)] + [[x + (0.7 if i == j else 0) for j, x in enumerate(start)] for i in range(n)]
    simplex = sorted((cost(x), x) for x in simplex)
    for _ in range(rounds):
        middle = [sum(x[i] for _, x in simplex[:-1]) / n for i in range(n)]
        worst_cost, worst = simplex[-1]
        along = lambda t: [m + t * (w - m) for m, w in zip(middle, worst)]
        tries = [along(-1)]
        c = cost(tries[0])
        if c < simplex[0][0]:
            far = along(-2)
            tries.append(far)
        elif c >= simplex[-2][0]:
            tries.append(along(0.5 if c >= worst_cost else -0.5))
        best = min((cost(x), x) for x in tries)
        if best[0] < worst_cost:
            simplex[-1] = best
        else:
            low = simplex[0][1]
            simplex = [simplex[0]] + [(cost(y), y) for y in ([(a + b) / 2 for a, b in zip(x, low)] for _, x in simplex[1:])]
        simplex.sort()
    return simplex[0][1]


def fit(points):
    names = list(START)
    of = lambda x: dict(zip(names, map(math.exp, x)))
    cost = lambda x: sum(math.log(predict(p, of(x)) / p["step_s"]) ** 2 for p in points)
    x = [math.log(v) for v in START.values()]
    for _ in range(4):  # from where it ended, with a fresh simplex
        x = minimize(cost, x, 2500)
    return of(x)


def report(points, k):
    print("fitted:", ", ".join(f"{name} {value:.3g}" for name, value in k.items()))
    for title, chosen in (("fitted to", [p for p in points if fitted_to(p)]), ("not fitted to", [p for p in points if not fitted_to(p)])):
        errors = sorted(abs(predict(p, k) / p["step_s"] - 1) for p in chosen)
        print(f"\n{title}: {len(errors)} points, error median {errors[len(errors) // 2]:.0%}, largest {errors[-1]:.0%}")
        print(f"{'link':>13} ranks shape micros zero measured predicted  error")
        for p in chosen:
            t = predict(p, k)
            print(f"{p['link']:>13} {p['ranks']:5} {p['shape']:>5} {p['micros']:6} {p['zero']:4} {p['step_s'] * 1e3:6.0f} ms "
                  f"{t * 1e3:6.0f} ms  {t / p['step_s'] - 1:+5.0%}")


# ---- read out ------------------------------------------------------------------------------------------------------------

# Public figures. H100 SXM: 989 TFLOP/s of dense bf16, 3.35 TB/s of memory, NVLink 900 GB/s both ways together (NVIDIA's data sheet).
# 40% of the peak: 38-43% in "The Llama 3 Herd of Models" (arXiv:2407.21783, table 4), on such GPUs. Of a link's rate a large
# all-reduce is taken to get 80%; a trip between nodes to take 2 us, a small message 1 us of a processor or card.
PEAK, SHARE, NVLINK, EFFICIENCY, MEMORY, TRIP, MESSAGE = 989e12, 0.40, 450e9, 0.8, 3.35e12, 2e-6, 1e-6
LAYERS, WIDTH, FEED = 24, 1536, 4096


def gpu_step(gpus, per_node, nic, length, micros, direct=False, gradient_bytes=4, zero=False, batch=1):
    """(seconds of a step, of these waiting for the exchange) for the default model on `gpus` GPUs, per_node of them joined by NVLink,
    nodes by `nic` bytes/s each. direct: as src/dist exchanges, every rank with every other; else within the node first, then by
    rings between nodes, in which every GPU takes its part over the node's link. zero: the update is shared out, and codes come back."""
    params = parameters(LAYERS, WIDTH, FEED)
    tokens = batch * length
    flops = tokens * (6 * params + 6 * LAYERS * WIDTH * length)  # causal attention: half of 12 L d s
    micro = flops * 4 / 3 / (PEAK * SHARE)  # blocks are computed again
    update = params * 20 / MEMORY / (gpus if zero else 1)  # weights, gradients, 8-bit moments: read and written
    compute = micros * micro + params * 12 / MEMORY + update
    nodes, ranges = math.ceil(gpus / per_node), math.ceil(params / BUCKET)
    local = min(gpus, per_node)

    def moving(size):  # seconds of a phase in which each GPU gives all but its own part of size bytes
        if direct:
            wire, across = (gpus - 1) / gpus * size, (gpus - local) / max(1, gpus - 1)
            return max(wire * (1 - across) / (NVLINK * EFFICIENCY), wire * across * local / (nic * EFFICIENCY))
        return max((local - 1) / local * size / (NVLINK * EFFICIENCY), (nodes - 1) / nodes * size / (nic * EFFICIENCY))

    if direct:
        latency = ranges * 2 * (gpus - 1) * MESSAGE
    else:
        latency = ranges / ACTIVE * 2 * (TRIP * (local - 1) + TRIP * math.ceil(math.log2(nodes) if nodes > 1 else 0))
    during = moving(gradient_bytes * params) * (1 if zero else 2)
    after = moving(weights_back(LAYERS, WIDTH, FEED)) if zero else 0
    hidden = micro / 2  # the last batch's backward pass: half of the time with what is computed again, less its beginning
    exposed = max(during - hidden, during / ranges) + after + latency
    return compute + exposed, exposed


def read_out():
    print(f"\nthe default model, {parameters(LAYERS, WIDTH, FEED) / 1e6:.1f} M parameters: a step in ms, of it exposed, efficiency")
    machines = [("8 GPUs, NVLink", 8, 8, 50e9), ("64 nodes of 1 GPU, 400 Gbit/s", 64, 1, 50e9), ("64 nodes of 8, 400 Gbit/s a node", 512, 8, 50e9),
                ("1,000 nodes of 1, 400 Gbit/s", 1000, 1, 50e9), ("1,000 nodes of 8, 400 Gbit/s a node", 8000, 8, 50e9)]
    ways = [("direct (as it is)", dict(direct=True)), ("direct, codes", dict(direct=True, zero=True)), ("hierarchical", {}),
            ("hierarchical, codes", dict(zero=True)), ("hierarchical, codes, 2-byte gradients", dict(zero=True, gradient_bytes=2)),
            ("hierarchical, codes, 1-byte gradients", dict(zero=True, gradient_bytes=1)), ("hierarchical, batches of 4", dict(batch=4)),
            ("hierarchical, codes, batches of 4", dict(zero=True, batch=4)),
            ("hierarchical, codes, 2 bytes, batches of 4", dict(zero=True, batch=4, gradient_bytes=2))]
    for length in (2048, 8192):
        for name, gpus, per_node, nic in machines:
            print(f"\n{name}, sequences of {length:,}; 8 and 1 batches a step and GPU")
            for way, options in ways:
                cells = []
                for micros in (8, 1):
                    step, exposed = gpu_step(gpus, per_node, nic, length, micros, **options)
                    cells.append(f"{step * 1e3:8.0f} ({exposed * 1e3:6.0f}) {1 - exposed / step:4.0%}")
                print(f"  {way:42}", "   ".join(cells))


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else os.path.join(os.path.dirname(os.path.abspath(__file__)), "scaling.jsonl")
    with open(path, encoding="utf-8") as lines:
        points = [json.loads(line) for line in lines if line.strip()]
    k = fit([p for p in points if fitted_to(p)])
    report(points, k)
    read_out()


main()
