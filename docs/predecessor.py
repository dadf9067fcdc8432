#!/usr/bin/env python3
"""Puts our profiles beside the predecessor's figures: rewrites the tables of docs/predecessor.md.

usage: docs/predecessor.py FOLDER    where FOLDER has a profile of each mode:
    for mode in enhanced deep standard alloc memory; do
        smallmind profile $mode --runs 10 --out FOLDER/$mode
    done
"""

import json
import pathlib
import statistics
import sys

PAGE = pathlib.Path(__file__).with_name("predecessor.md")
BEGIN, END = "<!-- tables -->", "<!-- /tables -->"
PEAK = 261.0  # GFLOPS of a core of the machine that the predecessor was measured on

# Measured, warm: the same work again and again in one process, until it was compiled.
MATMUL = {64: 66, 128: 118, 256: 112, 512: 94}  # true GFLOPS
GELU = {1000: 0.004, 10000: 0.019, 100000: 0.29, 1000000: 3.2}  # ms, six calls
SOFTMAX = {256: 0.009, 512: 0.010, 1024: 0.019, 2048: 0.037}  # ms, six calls
MODELS = {"Small": (1884, 0.57, 19.3e6), "Medium": (226, 2.1, 146.4e6)}  # tokens/s, MB and FLOPs a token


class Profile:
    """One mode's report."""

    def __init__(self, folder, mode):
        self.report = json.loads((pathlib.Path(folder) / mode / "report.json").read_text())

    def runs(self, part):
        return next(p for p in self.report["parts"] if p["name"] == part)["runs"]

    def each(self, part, name, value, below=None):
        """`value` of a method, in each run; `below` names its caller."""
        found = []
        for run in self.runs(part):
            tree = run["tree"]
            for method in tree:
                caller = None if method["parent"] is None else tree[method["parent"]]["name"]
                if method["name"] == name and (below is None or caller == below):
                    found.append(value(method))
        if not found:
            raise SystemExit(f"{self.report['mode']}: no {name} in {part}")
        return found

    def model(self, name, part):
        """Tokens that a model generated in a part."""
        index = [p["name"] for p in self.report["parts"]].index(part)
        return next(m for m in self.report["models"] if m["name"] == name)["tokens"][index]


def ms(method):
    return method["total_ns"] / 1e6


def gflops(method):
    return method["flops"] / method["total_ns"]


def median(values, digits=3):
    """Median with the lowest and highest."""
    texts = [f"{x:.{digits}g}" if x < 100 else f"{x:,.0f}" for x in (statistics.median(values), min(values), max(values))]
    return f"{texts[0]} ({texts[1]}–{texts[2]})"


def row(*cells):
    return "| " + " | ".join(cells) + " |\n"


def kernels(enhanced, peak):
    text = row("", "predecessor, warm", "ours", "ratio", "ours, % of the FMA peak") + "|---|---:|---:|---:|---:|\n"
    for size, theirs in MATMUL.items():
        name = f"MatMul_{size}x{size}"
        ours = enhanced.each("same work", "MatMul_Iteration", gflops, below=name)
        mid = statistics.median(ours)
        text += row(f"MatMul {size}, GFLOPS", f"{theirs} ({100 * theirs / PEAK:.0f} %)", median(ours), f"{mid / theirs:.1f} ×", f"{100 * mid / peak:.0f}")
    for family, figures, what in (("GELU", GELU, "elements"), ("Softmax", SOFTMAX, "columns")):
        for size, theirs in figures.items():
            ours = enhanced.each("same work", f"{family}_{size}", ms)
            text += row(f"{family} {size:,} {what}, six calls, ms", f"{theirs}", median(ours), f"{theirs / statistics.median(ours):.1f} ×", "")
    return text


def models(enhanced, peak):
    head = ("", "predecessor, warm", "ours, same work", "ratio", "ours, % of the FMA peak", "ours, with cache")
    text = row(*head) + "|---|---:|---:|---:|---:|---:|\n"
    for name, (theirs, mb, flops) in MODELS.items():
        method = f"Model_{name}_Inference"
        speeds = {}
        for part in ("same work", "with cache"):
            tokens = enhanced.model(name, part)
            speeds[part] = enhanced.each(part, method, lambda m: tokens / (m["total_ns"] / 1e9))
        share = enhanced.each("same work", method, lambda m: 100 * gflops(m) / peak)
        mid = statistics.median(speeds["same work"])
        text += row(f"{name}, tokens/s", f"{theirs:,} ({100 * theirs * flops / 1e9 / PEAK:.0f} %)", median(speeds["same work"]), f"{mid / theirs:.1f} ×", f"{statistics.median(share):.0f}", median(speeds["with cache"]))
        allocated = statistics.median(enhanced.each("same work", f"Model_{name}_GenerateToken", lambda m: m["alloc_bytes"] / m["calls"]))
        text += row(f"{name}, MB a token", f"{mb}", f"{allocated / 1048576:.2f}", "", "", "")
    return text


def others(folder, enhanced):
    deep, standard = Profile(folder, "deep"), Profile(folder, "standard")
    alloc, memory = Profile(folder, "alloc"), Profile(folder, "memory")
    per_token = lambda m: ms(m) / m["calls"]
    samples = lambda m: 32 * m["calls"] / (m["total_ns"] / 1e9)
    elements = lambda m: 32 * 512 * 1000 / m["total_ns"]
    lines = [
        ("enhanced, wall, ms (theirs: the sum of nested scopes)", 452, [r["wall_ns"] / 1e6 for r in enhanced.runs("same work")], False),
        ("deep, ms a token, same work (theirs cold)", 26.0, deep.each("same work", "GenerateToken", per_token), False),
        ("standard, ms a token, same work (theirs cold)", 4.41, standard.each("same work", "GenerateToken", per_token), False),
        ("training loop, samples/s, back through the last layer", 164131, alloc.each("training, same work", "Training_Step", samples), True),
        ("MatMul + backward 128×256 @ 256×128, ms", 1.78, alloc.each("matmul", "MatMulBackward_Iteration", per_token), False),
        ("fused LayerNorm 32×512, G elements/s", 3.5, memory.each("memory", "LayerNorm_32x512", elements), True),
    ]
    text = row("", "predecessor", "ours", "ratio") + "|---|---:|---:|---:|\n"
    for name, theirs, ours, more_is_better in lines:
        mid = statistics.median(ours)
        ratio = mid / theirs if more_is_better else theirs / mid
        text += row(name, f"{theirs:,}", median(ours), f"{ratio:.1f} ×")
    return text


def main():
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    enhanced = Profile(sys.argv[1], "enhanced")
    machine = enhanced.report["machine"]
    peak = machine["limits"]["fma_gflops"]
    levels = ", ".join(f"{level['name']} {level['gbps']:.0f}" for level in machine["limits"]["levels"])
    text = (
        f"{machine['cpu']}, {machine['isa']}, {machine['threads']} thread, {len(enhanced.runs('same work'))} runs, "
        f"{enhanced.report['created'][:10]}: medians, with the lowest and highest. Limits measured in the same process: "
        f"{peak:.0f} GFLOPS of f32 multiply-adds; reading, GB/s: {levels}.\n\n"
        + kernels(enhanced, peak) + "\n" + models(enhanced, peak) + "\n" + others(sys.argv[1], enhanced)
    )
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    PAGE.write_text(before + BEGIN + "\n" + text + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
