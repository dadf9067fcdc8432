#!/usr/bin/env python3
"""Draws docs/benchmarks.svg, README's table of speeds and the whole models' part of docs/benchmarks.md.

usage: docs/benchmarks.py [--check]

The numbers, docs/benchmarks.json, come from a quiet machine:
benches/peers/llama_cpp/run.sh -- --json docs/benchmarks.json
With --check nothing is written; it fails if a page or the picture isn't what the numbers give.
"""

import json
import sys
from html import escape
from pathlib import Path

DOCS = Path(__file__).resolve().parent
NUMBERS, PICTURE = DOCS / "benchmarks.json", DOCS / "benchmarks.svg"
README, PAGE = DOCS.parent / "README.md", DOCS / "benchmarks.md"
BEGIN, END = "<!-- benchmarks -->\n", "<!-- /benchmarks -->\n"

TESTS = {
    "pp512": "prefill, 512 tokens",
    "tg128": "decode, 128 tokens",
    "tg128@d2048": "decode behind 2,048 tokens",
    "first16": "first token of 16",
    "load_to_first": "load to first token",
}
# Tests whose figures are seconds; the others' are tokens a second.
TIMES = ("first16", "load_to_first")
PROGRAMS = {
    "smallmind": "smallmind",
    "smallmind_auto": "with automatic activations",
    "smallmind_8bit": "with 8-bit activations",
    "llama_cpp": "llama.cpp",
}
SHORT = {"smallmind": "smallmind", "smallmind_auto": "auto", "smallmind_8bit": "8-bit", "llama_cpp": "llama.cpp"}
# What README and the picture show; docs/benchmarks.md has all.
SHOWN_TESTS, SHOWN_MODEL = ("pp512", "tg128"), "SmolLM2-135M"
WIDTH, BAR, GAP, LEFT, RIGHT = 760, 16, 14, 210, 70

# One picture for light pages and dark ones: the text follows the page, the bars are readable on both.
STYLE = """
  text { font: 13px -apple-system, "Segoe UI", "DejaVu Sans", Helvetica, Arial, sans-serif; fill: #24292f; }
  .head { font-weight: 600; font-size: 14px; }
  .smallmind { fill: #2f7ed8; } .smallmind_auto { fill: #579be1; } .smallmind_8bit { fill: #7fb2ea; } .llama_cpp { fill: #9a8f85; }
  .range { stroke: #24292f; stroke-width: 1; }
  @media (prefers-color-scheme: dark) { text { fill: #e6edf3; } .range { stroke: #e6edf3; } }
"""


def threads_text(count):
    return f"{count} thread{'s' if count > 1 else ''}"


def compared(numbers):
    """(model, type, its figures) of those that were."""
    for name, figures in numbers["models"].items():
        model, _, kind = name.rpartition(".")
        if "rows" in figures:
            yield model, kind, figures


def shown(numbers):
    """{type: {(test, threads): row}} of README's model."""
    models = {kind: figures for model, kind, figures in compared(numbers) if model == SHOWN_MODEL}
    return {kind: {(row["test"], row["threads"]): row for row in figures["rows"]} for kind, figures in models.items()}


def most_threads(kinds):
    return max((threads for rows in kinds.values() for _, threads in rows), default=1)


def chart(numbers):
    kinds = shown(numbers)
    threads = most_threads(kinds)
    shapes, y = [], 8
    for test in SHOWN_TESTS:
        rows = {kind: rows[test, threads] for kind, rows in kinds.items() if (test, threads) in rows}
        if not rows:
            continue
        top = max(row[name]["max"] for row in rows.values() for name in PROGRAMS if name in row)
        scale = (WIDTH - LEFT - RIGHT) / top
        y += 20
        title = f"{TESTS[test]}, {threads_text(threads)}: tokens/s, more is better"
        shapes.append(f'<text class="head" x="4" y="{y}">{title}</text>')
        y += 10
        for kind, row in rows.items():
            for name in (name for name in PROGRAMS if name in row):
                value, low, high = (row[name][key] * scale for key in ("median", "min", "max"))
                middle = y + BAR / 2
                label = PROGRAMS[name] if name.startswith("smallmind_") else f"{kind}, {PROGRAMS[name]}"
                shapes += [
                    f'<text x="{LEFT - 8}" y="{y + 12.5}" text-anchor="end">{escape(label)}</text>',
                    f'<rect class="{name}" x="{LEFT}" y="{y}" width="{value:.1f}" height="{BAR - 2}" rx="2"/>',
                    f'<line class="range" x1="{LEFT + low:.1f}" x2="{LEFT + high:.1f}" y1="{middle - 1}" y2="{middle - 1}"/>',
                    f'<text x="{LEFT + high + 6:.1f}" y="{y + 12.5}">{row[name]["median"]:.0f}</text>',
                ]
                y += BAR
            y += GAP
    height = y + 4
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'role="img" aria-label="Speed of prefill and decode against llama.cpp">\n'
        f"<style>{STYLE}</style>\n" + "\n".join(shapes) + "\n</svg>\n"
    )


def conditions(numbers):
    return (
        f"Medians of {numbers['rounds']} rounds; × is the median ratio of speeds to llama.cpp within a round. "
        f"{numbers['cpu']}, llama.cpp {numbers['llama_cpp']}, {numbers['date']}."
    )


def measured(groups):
    """The programs that have figures in groups of rows."""
    rows = [row for group in groups for row in group]
    return [name for name in PROGRAMS if any(name in row for row in rows)]


def figure(row, name):
    """A program's figure with its ratio, if it has one."""
    if name not in row:
        return "–"
    value = row[name]["median"]
    text = f"{value * 1000:.0f} ms" if row["test"] in TIMES else f"{value:.0f}"
    return text if name == "llama_cpp" else f"{text} ({row[name]['ratio']:.2f} ×)"


def table(numbers):
    """README's: a row a type, tokens a second."""
    kinds = shown(numbers)
    if not kinds:
        return "Not measured yet: `docs/benchmarks.json` is empty.\n"
    threads = most_threads(kinds)
    names = measured(rows.values() for rows in kinds.values())
    heads = [f"{TESTS[test].split(',')[0]}: {SHORT[name]}" for test in SHOWN_TESTS for name in names]
    lines = [
        "![Speed of prefill and decode against llama.cpp](docs/benchmarks.svg)\n",
        f"| {SHOWN_MODEL}, {threads_text(threads)} | " + " | ".join(heads) + " |",
        "|---|" + "---:|" * len(heads),
    ]
    for kind, rows in kinds.items():
        cells = [figure(rows.get((test, threads), {}), name) for test in SHOWN_TESTS for name in names]
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    lines.append(
        f"\nTokens a second; auto, 8-bit: kinds of activations. {conditions(numbers)} "
        "More models, one thread, depth, load and first token: [docs/benchmarks.md](docs/benchmarks.md)."
    )
    return "\n".join(lines) + "\n"


def spread(row, name):
    """A program's figure with its range."""
    if name not in row:
        return "–"
    factor, unit, digits = (1000, " ms", 0) if row["test"] in TIMES else (1, "", 1)
    median, low, high = (row[name][key] * factor for key in ("median", "min", "max"))
    return f"{median:.{digits}f}{unit} ({low:.{digits}f}–{high:.{digits}f})"


def ratio(row, name):
    if name not in row:
        return "–"
    figures = row[name]
    range_text = f" ({figures['ratio_min']:.2f}–{figures['ratio_max']:.2f})" if "ratio_min" in figures else ""
    return f"{figures['ratio']:.2f}{range_text}"


def alike_text(texts):
    """`64, 13 (0.05)`"""
    gaps = [f" ({text['gap']:.2f})" if text.get("gap") is not None else "" for text in texts]
    return ", ".join(f"{text['tokens']}{gap}" for text, gap in zip(texts, gaps))


def agreements(model, numbers):
    """How far greedy texts are llama.cpp's, in words."""
    counts = []
    for _, kind, figures in (of for of in compared(numbers) if of[0] == model):
        texts = figures.get("agreement", {})
        if "smallmind" in texts:
            others = [f"{SHORT[name]}: {alike_text(texts[name])}" for name in PROGRAMS if name in texts][1:]
            counts.append(f"{kind} {alike_text(texts['smallmind'])} ({', '.join(others)})")
    text = (
        "Tokens of three greedy texts before the first that isn't llama.cpp's, of 64 each, and how far apart "
        "llama.cpp's two likeliest were there (logits), its activations being of 8 bits"
    )
    return [f"{text}: {'; '.join(counts)}.\n"] if counts else []


def section(numbers):
    """The whole models' part of docs/benchmarks.md: a row a type and test."""
    lines = [
        BEGIN.strip(),
        "# Whole models beside llama.cpp\n",
        "Written by [`benchmarks.py`](benchmarks.py) from [`benchmarks.json`](benchmarks.json), which "
        "`benches/peers/llama_cpp/run.sh -- --json docs/benchmarks.json` makes, model files included.\n",
        f"{conditions(numbers)} Beside each figure stands its range. llama.cpp runs with whichever of its settings "
        "(flash attention, repacking) is fastest for the file and the test; the column says "
        f"which. Its cache is {numbers.get('kv', 'f16')}. Load to first token begins with the call that loads and "
        "ends with the logits behind a prompt of 16 tokens, the file being in memory already.\n",
    ]
    for model in dict.fromkeys(model for model, _, _ in compared(numbers)):
        names = measured(of[2]["rows"] for of in compared(numbers) if of[0] == model)
        ours = [name for name in names if name != "llama_cpp"]
        heads = [PROGRAMS[name] for name in names] + [f"×, {SHORT[name]}" for name in ours]
        lines += [f"## {model}\n", f"| type | test | threads | {' | '.join(heads)} | llama.cpp's settings |"]
        lines.append("|---|---|---:|" + "---:|" * len(heads) + "---|")
        for _, kind, figures in (of for of in compared(numbers) if of[0] == model):
            for row in figures["rows"]:
                cells = [kind, TESTS[row["test"]], str(row["threads"])]
                cells += [spread(row, name) for name in names] + [ratio(row, name) for name in ours]
                cells.append(row["llama_cpp"].get("settings", "–"))
                lines.append(f"| {' | '.join(cells)} |")
        lines += ["", *agreements(model, numbers)]
    for name, figures in numbers["models"].items():
        if "error" in figures:
            lines.append(f"Not compared: {name}: {figures['error']}.\n")
    return "\n".join(lines) + END


def replaced(path, text):
    """The page with the part between the marks replaced."""
    before, rest = path.read_text().split(BEGIN)
    return before + text + rest.split(END)[1]


def main():
    check = sys.argv[1:] == ["--check"]
    numbers = json.loads(NUMBERS.read_text())
    wanted = {
        PICTURE: chart(numbers),
        README: replaced(README, BEGIN + table(numbers) + END),
        PAGE: replaced(PAGE, section(numbers)),
    }
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if check and stale:
        raise SystemExit(f"not what the numbers give: {', '.join(path.name for path in stale)}; run docs/benchmarks.py")
    for path in stale:
        path.write_text(wanted[path])


if __name__ == "__main__":
    main()
