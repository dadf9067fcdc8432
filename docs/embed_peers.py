#!/usr/bin/env -S python3 -B
"""The part of docs/benchmarks.md about vectors of texts, and docs/embed_peers.svg, from docs/embed_peers.json.

usage: docs/embed_peers.py

It draws the picture; the page is kernels_peers.py's, which asks for the part. The numbers come from a quiet machine:
benches/peers/embed/run.sh --json docs/embed_peers.json
"""

import json
import statistics
from html import escape
from pathlib import Path

import benchmarks

DOCS = Path(__file__).resolve().parent
NUMBERS, PICTURE = DOCS / "embed_peers.json", DOCS / "embed_peers.svg"

OURS = "smallmind"
CASES = {
    "32x32": "32 texts of 32 tokens in a call",
    "mix": "64 texts of 4 to 256 tokens, 32 in a call",
    "mix, sorted": "The same texts, sorted by length beforehand",
    "1x8": "One text of 8 tokens",
    "1x32": "One text of 32 tokens",
    "1x128": "One text of 128 tokens",
}
EXACT = ("ONNX Runtime", "OpenVINO", "CTranslate2", "llama.cpp F32")
QUANTISED = ("ONNX Runtime int8", "CTranslate2 int8", "llama.cpp Q8_0")
WIDTH, BAR, LEFT, RIGHT = 760, 15, 190, 70
STYLE = " .ours { fill: #2f7ed8; } .peer { fill: #9a8f85; }"
INTRO = """# Vectors of texts, with other programs

Written by [`embed_peers.py`](embed_peers.py) from [`embed_peers.json`](embed_peers.json), which \
`benches/peers/embed/run.sh --json docs/embed_peers.json` makes, packages and model files included.

all-MiniLM-L6-v2, from token ids to vectors of length 1. Every program runs in a process of its own with whichever of \
its settings is fastest for the number of threads (ONNX graphs of plain operators or of ONNX Runtime's own, a pass on \
all threads or one on each, oneDNN or MKL, texts in a pass, flash attention), which stands in its line. Programs that \
pad get each batch padded to its longest text. Figures are medians of {rounds} rounds or more, in each of which all programs \
run once; a process that isn't at work is stopped. Ratios are taken within a round. The cosine is the least and the \
mean one of all texts with vectors in plain f64 on the unquantised weights. {cpu}, {date}; {versions}."""
BUSY = """The machine was not quiet (load average {load:.0f} beforehand): caches and memory were shared with other \
programs."""


def threads_text(count):
    return f"{count} thread{'s' if count > 1 else ''}"


def milliseconds(figures):
    times = [1e3 * seconds for seconds in figures["seconds"]]
    return statistics.median(times), min(times), max(times)


def ratio(row, name, peer):
    """How many times as fast a program is as another one."""
    pairs = zip(row["programs"][peer]["seconds"], row["programs"][name]["seconds"])
    return statistics.median(theirs / ours for theirs, ours in pairs)


def measured(row, names):
    return [name for name in names if "seconds" in row["programs"].get(name, {})]


def compared(row, name):
    """One of ours as a multiple of its peers: of the best one that doesn't round, or of each that is quantised."""
    if not name.startswith(OURS):
        return ""
    quantised = "Q8_0" in name
    peers = measured(row, QUANTISED if quantised else EXACT)
    ratios = {peer: ratio(row, name, peer) for peer in peers}
    if ratios and not quantised:
        best = min(ratios, key=ratios.get)
        ratios = {best: ratios[best]}
    return ", ".join(f"{value:.2f} × {peer}" for peer, value in ratios.items())


def table(row):
    lines = ["| program | ms | texts/s | times as fast as | cosine | settings |", "|---|---:|---:|---|---:|---|"]
    for name, figures in row["programs"].items():
        if "missing" in figures:
            lines.append(f"| {name} | – | – | left out: {figures['missing']} | – | – |")
            continue
        median, least, most = milliseconds(figures)
        cosine = "{least:.5f}, {mean:.5f}".format(**figures["cosine"])
        cells = [name, f"{median:.2f} ({least:.2f}–{most:.2f})", f"{1e3 * row['texts'] / median:.0f}"]
        cells += [compared(row, name), cosine, figures["settings"]]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def section(numbers):
    versions = ", ".join(f"{name} {version}" for name, version in numbers["versions"].items())
    parts = [INTRO.format(**numbers | {"versions": versions}) + "\n"]
    if numbers["load"] > 1:
        parts.append(BUSY.format(**numbers) + "\n")
    parts.append("![Texts a second by program](embed_peers.svg)\n")
    for row in numbers["rows"]:
        parts.append(f"## {CASES[row['case']]}, {threads_text(row['threads'])}\n")
        parts.append(table(row))
    return "\n".join(parts)


def chart(numbers):
    shapes, y = [], 8
    for row in numbers["rows"]:
        speeds = {
            name: row["texts"] / statistics.median(row["programs"][name]["seconds"])
            for name in measured(row, row["programs"])
        }
        scale = (WIDTH - LEFT - RIGHT) / max(speeds.values())
        y += 24
        title = f"{CASES[row['case']]}, {threads_text(row['threads'])}: texts/s"
        shapes.append(f'<text class="head" x="4" y="{y}">{escape(title)}</text>')
        y += 8
        for name, speed in speeds.items():
            kind, end = "ours" if name.startswith(OURS) else "peer", LEFT + speed * scale
            shapes += [
                f'<text x="{LEFT - 8}" y="{y + 11.5}" text-anchor="end">{escape(name)}</text>',
                f'<rect class="{kind}" x="{LEFT}" y="{y}" width="{speed * scale:.1f}" height="{BAR - 2}" rx="2"/>',
                f'<text x="{end + 6:.1f}" y="{y + 11.5}">{speed:.0f}</text>',
            ]
            y += BAR
        y += 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{y + 4}" viewBox="0 0 {WIDTH} {y + 4}" '
        'role="img" aria-label="Texts a second of programs that make vectors">\n'
        f"<style>{benchmarks.STYLE}{STYLE}</style>\n" + "\n".join(shapes) + "\n</svg>\n"
    )


def main():
    PICTURE.write_text(chart(json.loads(NUMBERS.read_text())))


if __name__ == "__main__":
    main()
