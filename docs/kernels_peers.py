#!/usr/bin/env -S python3 -B
"""Writes docs/benchmarks.md and docs/kernels_peers.svg from docs/kernels_peers.json.

The last parts of the page, whole models and vectors of texts, are docs/benchmarks.py's and docs/embed_peers.py's.

usage: docs/kernels_peers.py [--check]

The numbers come from a quiet machine: benches/peers/kernels/run.sh --json docs/kernels_peers.json
With --check nothing is written; it fails if page or picture isn't what the numbers give.
"""

import json
import math
import statistics
import sys
from html import escape
from pathlib import Path

import benchmarks
import embed_peers

DOCS = Path(__file__).resolve().parent
NUMBERS, PICTURE, PAGE = DOCS / "kernels_peers.json", DOCS / "kernels_peers.svg", DOCS / "benchmarks.md"

OURS = "smallmind"
GROUPS = {
    "matmul": "Matrix products, GFLOPS",
    "elementwise": "Elementwise functions, 10⁹ elements a second",
    "rows": "Functions of rows, 10⁹ elements a second",
    "attention": "Attention, 4 heads, GFLOPS",
}
WIDTH, LINE, LEFT, RIGHT = 760, 15, 260, 130
LOWEST, HIGHEST = 0.25, 4.0
GRID = (0.25, 0.5, 1, 2, 4)
STYLE = """
  .small { font-size: 11px; } .grid { stroke: #8c959f; stroke-width: 0.5; } .level { stroke: #8c959f; stroke-width: 1.5; }
  .one { fill: #2f7ed8; stroke: #2f7ed8; } .two { fill: none; stroke: #d9822b; stroke-width: 2; }
  .spread1 { stroke: #2f7ed8; } .spread2 { stroke: #d9822b; }
"""
SOURCE = """Written by [`kernels_peers.py`](kernels_peers.py) from [`kernels_peers.json`](kernels_peers.json), \
which `benches/peers/kernels/run.sh --json docs/kernels_peers.json` makes."""
METHOD = """Each library runs in a process of its own, through its C or C++ interface (ONNX Runtime: Python), on the \
same numbers in the same kind of memory. At each shape every result is checked against f64; then {rounds} rounds visit \
every library in turn, {turn}. Figures are medians; \
the ratio to the best peer is taken within each round, and its quartiles stand beside it. Of a library's several ways \
(versions, kernel sets, sgemv for one row, weights packed ahead) the fastest counts.

- M×N×K: C is M×N, sums run over K. NN: B as K×N; NT: B as N×K, how weights lie; packed: B in the library's own layout.
- Of the machine: ours beside a loop of multiply-adds that takes its turns with the libraries, or at M = 1 beside \
reading the matrix. Copy: as many elements copied, likewise."""
SHORT_TURN = "each for five milliseconds at least and beginning with another each time"
TURN = """each for 150 ms alone, after a warm-up and a pause in which the threads of the one before stop spinning, and \
beginning with another each time"""
RANDOM = """
- The last 20 products are random: `--seed {seed}` gives them again."""
MARKS = {1: "one", 2: "two"}


def threads_text(count):
    return f"{count} thread{'s' if count > 1 else ''}"


def sections(numbers):
    """(group, threads, its lines) in the order of the page."""
    for group in GROUPS:
        for threads in sorted({line["threads"] for line in numbers["lines"]}):
            lines = [line for line in numbers["lines"] if (line["group"], line["threads"]) == (group, threads)]
            if lines:
                yield group, threads, lines


def ratios(lines):
    return [line["ratio"]["median"] for line in lines if "ratio" in line]


def geometric_mean(values):
    return math.exp(statistics.fmean(map(math.log, values)))


def figure(value, unit):
    return (
        f"{value:.0f}" if unit == "GFLOPS" and value >= 10 else f"{value:.1f}" if unit == "GFLOPS" else f"{value:.2f}"
    )


def winner(line):
    return max(line["results"], key=lambda name: line["results"][name]["median"], default="–")


# The page.


def machine(numbers):
    sizes = ", ".join(f"{name} {size // 1024:,} KiB" for name, size in numbers["caches"].items())
    rows = [
        f"{numbers['cpu']}; caches {sizes}; {', '.join(numbers['flags'])}. {numbers['date']}. "
        f"Other programs used {numbers['others_busy']:.2f} cores meanwhile.\n",
        "| measured in the same run | " + " | ".join(map(threads_text, counts(numbers))) + " |",
        "|---|" + "---:|" * len(counts(numbers)),
    ]
    found = {}
    for entry in numbers["machine"]:
        title = f"{entry['what']}, {entry['isa']}" if entry["what"] == "FMA" else entry["what"]
        found.setdefault((title, entry["unit"]), {})[entry["threads"]] = entry["median"]
    for (title, unit), values in found.items():
        cells = " | ".join(f"{values[count]:.0f} {unit}" if count in values else "–" for count in counts(numbers))
        rows.append(f"| {title} | {cells} |")
    return "\n".join(rows) + "\n\nA copy counts what is read and what is written."


def counts(numbers):
    return sorted({line["threads"] for line in numbers["lines"]})


def avx2_share(numbers):
    """What AVX2's multiply-adds give of the CPU's widest."""
    peaks = {
        entry["isa"]: entry["median"]
        for entry in numbers["machine"]
        if entry["what"] == "FMA" and entry["threads"] == 1
    }
    return peaks["AVX2"] / peaks["AVX-512"] if {"AVX2", "AVX-512"} <= peaks.keys() else None


def wide_vectors(peer, limit):
    """Whether a library uses AVX-512: it says so, or is faster than AVX2 can be."""
    share = peer["best_share"]
    if limit is None:
        return "–"
    if share > limit * 1.05:
        return "yes, faster than AVX2 can be"
    if any(word in text.upper() for text in peer["about"] for word in ("AVX512", "AVX-512")):
        return "yes, it says"
    return "not seen" if share else "–"


def libraries(numbers):
    limit = avx2_share(numbers)
    rows = ["| library | from | version, kernels | most of the FMA peak | AVX-512 |", "|---|---|---|---:|---|"]
    for name, peer in numbers["peers"].items():
        about = "; ".join(peer["about"]) or f"left out: {peer['missing']}"
        share = f"{peer['best_share']:.0%}" if peer["best_share"] else "–"
        rows.append(f"| {name} | {peer['package']} | {about} | {share} | {wide_vectors(peer, limit)} |")
    return "\n".join(rows)


def summary(numbers):
    rows = ["| | threads | shapes | geometric mean | least | where |", "|---|---:|---:|---:|---:|---|"]
    for group, threads, lines in sections(numbers):
        found = [line for line in lines if "ratio" in line]
        if found:
            least = min(found, key=lambda line: line["ratio"]["median"])
            mean = geometric_mean(ratios(found))
            rows.append(
                f"| {GROUPS[group].split(',')[0]} | {threads} | {len(found)} | {mean:.2f} | "
                f"{least['ratio']['median']:.2f} | {least['case']} ({least['best_peer']}) |"
            )
    return "\n".join(rows)


def table(lines, names):
    beside = "of the machine" if lines[0]["unit"] == "GFLOPS" else "copy"
    rows = [
        "| shape | " + " | ".join(names) + f" | winner | {OURS} / best peer | {beside} |",
        "|---|" + "---:|" * len(names) + "---|---:|---:|",
    ]
    for line in lines:
        cells = []
        for name in names:
            found = line["results"].get(name)
            text = figure(found["median"], line["unit"]) if found else "–"
            cells.append(f"**{text}**" if name == winner(line) else text)
        ratio = line.get("ratio")
        ratio = f"{ratio['median']:.2f} ({ratio['q1']:.2f}–{ratio['q3']:.2f})" if ratio else "–"
        rows.append(f"| {line['case']} | {' | '.join(cells)} | {winner(line)} | {ratio} | {machine_cell(line)} |")
    return "\n".join(rows)


def machine_cell(line):
    if "machine" not in line:
        return "–"
    if line["unit"] != "GFLOPS":
        return f"{line['machine']['median']:.2f}"
    if OURS not in line["results"]:
        return "–"
    limit = {"fma": "FMA", "read": "reading"}[line["machine"]["what"]]
    return f"{line['results'][OURS]['median'] / line['machine']['median']:.0%} of {limit}"


def gaps(lines, names):
    """Why figures are missing, a sentence for each library and reason."""
    found = {}
    for line in lines:
        for name, reason in line["missing"].items():
            found.setdefault((name, reason), []).append(line["case"])
    texts = []
    for (name, reason), shapes in found.items():
        where = (
            "throughout"
            if len(shapes) == len(lines)
            else ", ".join(shapes)
            if len(shapes) <= 3
            else f"{len(shapes)} shapes"
        )
        texts.append(f"{name}: {reason} ({where})")
    return "Missing: " + "; ".join(texts) + ".\n" if texts else ""


def method(numbers):
    """How the figures came about; older ones were taken in shorter turns."""
    if "seed" not in numbers:
        return METHOD.format(rounds=numbers["rounds"], turn=SHORT_TURN)
    return METHOD.format(rounds=numbers["rounds"], turn=TURN) + RANDOM.format(seed=numbers["seed"])


def against_itself(numbers):
    """How a second process of this library compared, which shows whether the comparison is fair."""
    texts = []
    for threads in counts(numbers):
        found = [
            line["itself"]["median"] for line in numbers["lines"] if line["threads"] == threads and "itself" in line
        ]
        if found:
            mean = geometric_mean(found)
            texts.append(f"{mean:.3f} with {threads_text(threads)} (from {min(found):.2f} to {max(found):.2f})")
    return f"\nThis library against itself in a second process, matrix products: {'; '.join(texts)}.\n" if texts else ""


def page(numbers):
    parts = [
        "# The kernels beside other libraries'\n",
        SOURCE + "\n",
        method(numbers) + "\n",
        "![Ratios of speed to the best peer](kernels_peers.svg)\n",
        "## In short\n",
        f"Speed of {OURS} as a multiple of the best other library's at the same shape.\n",
        summary(numbers) + "\n",
        against_itself(numbers).lstrip("\n"),
        "## The machine\n",
        machine(numbers) + "\n",
        "## The libraries\n",
        libraries(numbers) + "\n",
    ]
    for group, threads, lines in sections(numbers):
        present = {name for line in lines for name in line["results"]}
        names = [name for name in numbers["peers"] if name in present]
        parts += [f"## {GROUPS[group]}, {threads_text(threads)}\n", table(lines, names) + "\n", gaps(lines, names)]
    return "\n".join(part for part in parts if part)


# The picture.


def place(ratio):
    share = math.log(min(max(ratio, LOWEST), HIGHEST) / LOWEST) / math.log(HIGHEST / LOWEST)
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def mark(line, y):
    ratio, threads = line["ratio"], line["threads"]
    low, middle, high = (place(ratio[key]) for key in ("q1", "median", "q3"))
    return [
        f'<line class="spread{threads}" x1="{low:.1f}" x2="{high:.1f}" y1="{y}" y2="{y}"/>',
        f'<circle class="{MARKS[threads]}" cx="{middle:.1f}" cy="{y}" r="3.5"/>',
    ]


def chart_line(case, lines, y):
    drawn = [line for line in lines if line["case"] == case and "ratio" in line and line["threads"] in MARKS]
    if not drawn:
        return []
    best = ", ".join(dict.fromkeys(line["best_peer"] for line in drawn))
    shapes = [
        f'<text class="small" x="{LEFT - 10}" y="{y + 4}" text-anchor="end">{escape(case)}</text>',
        f'<text class="small" x="{WIDTH - RIGHT + 10}" y="{y + 4}">{escape(best)}</text>',
    ]
    for line in drawn:
        shapes += mark(line, y)
    return shapes


def grid(top, bottom):
    shapes = []
    for ratio in GRID:
        x = place(ratio)
        kind = "level" if ratio == 1 else "grid"
        shapes.append(f'<line class="{kind}" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{bottom}"/>')
        shapes.append(f'<text class="small" x="{x:.1f}" y="{bottom + 13}" text-anchor="middle">{ratio}×</text>')
    return shapes


def chart(numbers):
    y = 24
    shapes = [
        f'<text class="head" x="4" y="{y}">Speed as a multiple of the best other library\'s, right is better</text>',
        f'<circle class="one" cx="{WIDTH - 150}" cy="{y - 4}" r="3.5"/><text x="{WIDTH - 142}" y="{y}">1 thread</text>',
        f'<circle class="two" cx="{WIDTH - 76}" cy="{y - 4}" r="3.5"/><text x="{WIDTH - 68}" y="{y}">2 threads</text>',
    ]
    for group, title in GROUPS.items():
        lines = [line for line in numbers["lines"] if line["group"] == group]
        block, at = [], y + 46
        for case in dict.fromkeys(line["case"] for line in lines):
            drawn = chart_line(case, lines, at)
            block += drawn
            at += LINE if drawn else 0
        if block:
            shapes.append(f'<text class="head" x="4" y="{y + 28}">{escape(title.split(",")[0])}</text>')
            shapes += grid(y + 36, at - 4) + block
            y = at + 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 8}" viewBox="0 0 {WIDTH} {y + 8}" '
        'role="img" aria-label="Speed of the kernels against the best of other libraries">\n'
        f"<style>{benchmarks.STYLE}{STYLE}</style>\n" + "\n".join(shapes) + "\n</svg>\n"
    )


def main():
    check = sys.argv[1:] == ["--check"]
    numbers = json.loads(NUMBERS.read_text())
    models = benchmarks.section(json.loads(benchmarks.NUMBERS.read_text()))
    vectors = json.loads(embed_peers.NUMBERS.read_text())
    wanted = {PICTURE: chart(numbers), PAGE: page(numbers) + "\n" + models + "\n" + embed_peers.section(vectors)}
    wanted[embed_peers.PICTURE] = embed_peers.chart(vectors)
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if check and stale:
        raise SystemExit(
            f"not what the numbers give: {', '.join(path.name for path in stale)}; run docs/kernels_peers.py"
        )
    for path in stale:
        path.write_text(wanted[path])


if __name__ == "__main__":
    main()
