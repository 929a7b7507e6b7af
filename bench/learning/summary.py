# SPDX-License-Identifier: MIT
"""Means, their standard errors, and the table."""

import math


def mean_and_error(values):
    """The mean, and its standard error, None for a single value."""
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    variance = sum((value - mean) ** 2 for value in values) / (len(values) - 1)
    return mean, math.sqrt(variance / len(values))


def shown(values, sign=""):
    if not values:
        return "–"
    mean, error = mean_and_error(values)
    return f"{mean:{sign}.4f}" + ("" if error is None else f" ± {error:.4f}")


def differences(results, variant, first):
    """Held-out bits per byte over those of the first variant, of all pairs of seed and text that both have."""
    by_pair = {(r["text"], r["seed"]): r["bpb"] for r in results if r["variant"] == first}
    return [r["bpb"] - by_pair[r["text"], r["seed"]] for r in results if r["variant"] == variant and (r["text"], r["seed"]) in by_pair]


def spread(values, form):
    """One number where all are the same, else the mean."""
    return f"{sum(values) / len(values):{form}}" if values else "–"


def table_of(results, variants, planned):
    """Markdown. `results`: of one text or all; `planned`: how many runs a variant should have."""
    first = variants[0]
    # Over texts, which differ by what they are, only differences have an error that says something.
    level = shown if len({r["text"] for r in results}) < 2 else lambda values: spread(values, ".4f")
    lines = ["| variant | runs | steps | held-out bits per byte | difference | last tenth of training | training, s | bytes/s |"]
    lines.append("|---|---|---|---|---|---|---|---|")
    for variant in variants:
        mine = [r for r in results if r["variant"] == variant]
        paired = differences(results, variant, first)
        difference = "first" if variant == first else shown(paired, "+")
        if len(paired) not in (0, len(mine)):
            difference += f" ({len(paired)} pairs)"
        runs = f"{len(mine)}" + ("" if len(mine) == planned else f" of {planned}")
        cells = [variant.replace("|", "\\|"), runs, spread([r["steps"] for r in mine], ",.0f"), level([r["bpb"] for r in mine])]
        cells += [difference, level([r["train_bpb"] for r in mine if r["train_bpb"] is not None])]
        cells += [spread([r["seconds"] for r in mine], ",.1f"), spread([r["bytes_per_s"] for r in mine], ",.0f")]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def notes_of(results, variants, equal, last_program):
    """What makes the comparison worth less."""
    notes = []
    means = {}
    for variant in variants:
        mine = [r for r in results if r["variant"] == variant]
        if mine:
            means[variant] = {what: sum(r[what] for r in mine) / len(mine) for what in ("bytes", "seconds")}
    what, allowed = {"bytes": ("bytes", 0.001), "time": ("seconds", 0.05)}[equal]
    first = means.get(variants[0], {}).get(what)
    for variant in list(means) if first else []:
        off = means[variant][what] / first - 1
        if abs(off) > allowed:
            notes.append(f"not equal {what}: {variant} had {off:+.1%} of {what} beside {variants[0]}")
    programs = {r["program"] for r in results}
    if len(programs) > 1 or programs - {last_program}:
        notes.append(f"results of {len(programs | {last_program})} builds of bitbyte, the present one included (--again runs the others' again)")
    if len({(r["threads"], r["jobs"]) for r in results}) > 1:
        notes.append("not all runs had the same --threads and --jobs: compare no times")
    return notes


def report(results, failures, config, texts, equal, program):
    """All of it. `results` and `failures`: of the configuration's runs, with the names that it gives them."""
    variants = list(config.variants)
    seeds = len(config.seeds)
    parts = [f"Equal {equal}. A difference is to *{variants[0]}*, paired by seed and text; ± is one standard error over the runs."]
    for text in texts:
        parts.append(f"### {text.name}\n" + table_of([r for r in results if r["text"] == text.name], variants, seeds))
    if len(texts) > 1:
        parts.append("### all texts\n" + table_of(results, variants, seeds * len(texts)))
    notes = notes_of(results, variants, equal, program)
    for reason in dict.fromkeys(reason for _, reason in failures):
        titles = [title for title, why in failures if why == reason]
        notes.append(f"failed: {'; '.join(titles)}: {reason}")
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts)
