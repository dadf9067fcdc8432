#!/usr/bin/env python3
"""Draws docs/benchmarks.svg and README's table of speeds from docs/benchmarks.json.

usage: docs/benchmarks.py [--check]

The numbers come from a quiet machine: benches/peers/llama_cpp/run.sh MODEL 5 docs/benchmarks.json
With --check nothing is written; it fails if picture or table isn't what the numbers give.
"""

import json
import sys
from html import escape
from pathlib import Path

DOCS = Path(__file__).resolve().parent
NUMBERS, PICTURE, README = DOCS / "benchmarks.json", DOCS / "benchmarks.svg", DOCS.parent / "README.md"
BEGIN, END = "<!-- benchmarks -->\n", "<!-- /benchmarks -->\n"

TESTS = {"pp512": "prefill, 512 tokens", "tg128": "decode, 128 tokens"}
PROGRAMS = {"smallmind": "smallmind", "smallmind_8bit": "smallmind, 8-bit activations", "llama_cpp": "llama.cpp"}
WIDTH, BAR, GAP, LEFT, RIGHT = 760, 16, 14, 210, 70

# One picture for light pages and dark ones: the text follows the page, the bars are readable on both.
STYLE = """
  text { font: 13px -apple-system, "Segoe UI", "DejaVu Sans", Helvetica, Arial, sans-serif; fill: #24292f; }
  .head { font-weight: 600; font-size: 14px; }
  .smallmind { fill: #2f7ed8; } .smallmind_8bit { fill: #7fb2ea; } .llama_cpp { fill: #9a8f85; }
  .range { stroke: #24292f; stroke-width: 1; }
  @media (prefers-color-scheme: dark) { text { fill: #e6edf3; } .range { stroke: #e6edf3; } }
"""


def median(figures):
    return figures["median"]


def chart(numbers):
    shapes, y = [], 8
    for test, title in TESTS.items():
        rows = [row for row in numbers["rows"] if row["test"] == test]
        if not rows:
            continue
        top = max(row[name]["max"] for row in rows for name in PROGRAMS if name in row)
        scale = (WIDTH - LEFT - RIGHT) / top
        y += 20
        shapes.append(f'<text class="head" x="4" y="{y}">{title}: tokens/s, more is better</text>')
        y += 10
        for row in rows:
            names = [name for name in PROGRAMS if name in row]
            threads = f'{row["threads"]} thread{"s" if row["threads"] > 1 else ""}'
            for name in names:
                figures = row[name]
                value, low, high = (figures[key] * scale for key in ("median", "min", "max"))
                middle = y + BAR / 2
                label = f"{PROGRAMS[name]}, {threads}" if name != "smallmind_8bit" else "with 8-bit activations"
                shapes += [
                    f'<text x="{LEFT - 8}" y="{y + 12.5}" text-anchor="end">{escape(label)}</text>',
                    f'<rect class="{name}" x="{LEFT}" y="{y}" width="{value:.1f}" height="{BAR - 2}" rx="2"/>',
                    f'<line class="range" x1="{LEFT + low:.1f}" x2="{LEFT + high:.1f}" y1="{middle - 1}" y2="{middle - 1}"/>',
                    f'<text x="{LEFT + high + 6:.1f}" y="{y + 12.5}">{median(figures):.0f}</text>',
                ]
                y += BAR
            y += GAP
    height = y + 4
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        'role="img" aria-label="Speed of prefill and decode against llama.cpp">\n'
        f"<style>{STYLE}</style>\n" + "\n".join(shapes) + "\n</svg>\n"
    )


def table(numbers):
    if not numbers["rows"]:
        return "Not measured yet: `docs/benchmarks.json` is empty.\n"

    def cell(row, name):
        if name not in row:
            return "–"
        ratio = "" if name == "llama_cpp" else f' ({row[name]["ratio"]:.2f} ×)'
        return f"{median(row[name]):.0f}{ratio}"

    lines = [
        "![Speed of prefill and decode against llama.cpp](docs/benchmarks.svg)\n",
        "| tokens/s | threads | " + " | ".join(PROGRAMS.values()) + " |",
        "|---|---:|" + "---:|" * len(PROGRAMS),
    ]
    for row in numbers["rows"]:
        cells = " | ".join(cell(row, name) for name in PROGRAMS)
        lines.append(f'| {TESTS[row["test"]]} | {row["threads"]} | {cells} |')
    lines.append(
        f'\nMedians of {numbers["rounds"]} rounds; × is the median ratio to llama.cpp within a round. '
        f'{numbers["cpu"]}, {numbers["model"]}, llama.cpp {numbers["llama_cpp"]}, {numbers["date"]}.'
    )
    return "\n".join(lines) + "\n"


def main():
    check = sys.argv[1:] == ["--check"]
    numbers = json.loads(NUMBERS.read_text())
    readme = README.read_text()
    before, rest = readme.split(BEGIN)
    _, after = rest.split(END)
    wanted = {PICTURE: chart(numbers), README: before + BEGIN + table(numbers) + END + after}
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text() != text]
    if check and stale:
        raise SystemExit(f"not what the numbers give: {', '.join(path.name for path in stale)}; run docs/benchmarks.py")
    for path in stale:
        path.write_text(wanted[path])


if __name__ == "__main__":
    main()
