"""Compares smallmind's logits with llama.cpp's on the random models of llama.cpp's own suite of architectures.

usage: suite.py PROGRAMS OURS [--models FOLDER] [--seeds N ...] [--only REGEX] [--write]

PROGRAMS is the folder with test-llama-archs, which writes a small random model in F32 for most decoder
architectures of llama.cpp, and logits (CMakeLists.txt builds both); OURS is the built examples/logits. Both
decode the same 40 tokens with keys and values in F32 on one thread and write the logits of every position. A
model matches where mse(llama.cpp, ours) / mse(llama.cpp, 0), the normalised mean square error, stays below 1e-6
at each seed. With --write the table goes into docs/models.md. Models and llama.cpp's logits stay in
FOLDER/SEED (default: target/peers/archs, 0.9 GB a seed) and are not made again.
"""

import argparse
import concurrent.futures
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np

REPOSITORY = Path(__file__).resolve().parents[3]
PAGE = REPOSITORY / "docs" / "models.md"
BEGIN, END = "<!-- suite -->\n", "<!-- /suite -->\n"
SEEDS = [1, 2, 3]
MARK = 1e-6
TIMEOUT = 300


class Refused(Exception):
    """Why a program wrote no logits."""


def run(program, model, out):
    """Has `program` write the logits on `model` into `out`."""
    try:
        done = subprocess.run([program, model, out], capture_output=True, text=True, timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        raise Refused(f"not done after {TIMEOUT} s") from None
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or [f"ended with {done.returncode}"]
        raise Refused(lines[-1])


def make_models(programs, folder, seed):
    """The models of a seed and llama.cpp's logits on them."""
    folder.mkdir(parents=True, exist_ok=True)
    complete = folder / "complete"
    if not complete.exists():
        command = [programs / "test-llama-archs", "-o", folder, "-s", str(seed)]
        subprocess.run(command, check=True, capture_output=True)
        complete.touch()
    models = sorted(folder.glob("*.gguf"))
    for model in models:
        logits, refusal = model.with_suffix(".logits"), model.with_suffix(".na")
        if logits.exists() or refusal.exists():
            continue
        partial = model.with_suffix(".partial")
        try:
            run(programs / "logits", model, partial)
            partial.rename(logits)
        except Refused as why:
            partial.unlink(missing_ok=True)
            refusal.write_text(f"{why}\n")
    return models


def error(theirs, ours):
    """The normalised mean square error of `ours`; infinite where it is no number."""
    theirs, ours = theirs.astype(np.float64), ours.astype(np.float64)
    value = np.square(theirs - ours).sum() / np.square(theirs).sum()
    return float(value) if np.isfinite(value) else float("inf")


def compare(ours, model):
    """The error of our logits on a model, `None` where llama.cpp has none itself."""
    if model.with_suffix(".na").exists():
        return None
    theirs = np.fromfile(model.with_suffix(".logits"), np.float32)
    with tempfile.NamedTemporaryFile(dir=model.parent) as out:
        run(ours, model, out.name)
        logits = np.fromfile(out.name, np.float32)
    if logits.size != theirs.size:
        raise Refused(f"{logits.size} logits, llama.cpp's are {theirs.size}")
    return error(theirs, logits)


def result(ours, models):
    """The largest error on the models of one architecture, or the reason why there is none."""
    try:
        errors = [compare(ours, model) for model in models]
    except Refused as why:
        return shortened(str(why), models[0])
    if None in errors:
        return "llama.cpp: " + shortened(models[0].with_suffix(".na").read_text(), models[0])
    return max(errors)


def shortened(why, model):
    """An error's text without what all of them have."""
    why = why.strip().removeprefix("Error: ").removeprefix("logits: ")
    # The debug form of an error has its text in quotes, with escapes.
    if found := re.fullmatch(r'(\w+)\("(.*)"\)', why):
        why = re.sub(r"\\(.)", r"\1", found[2])
    why = re.sub(r"\S*" + re.escape(model.name) + ": ", "", why)
    why = re.sub(r'architecture "[^"]*", for which (.*) is missing \(known: .*\)$', r"\1 is missing", why)
    why = re.sub(r'architecture "[^"]*" \(known: .*\)$', "its architecture is not known", why)
    return why if len(why) <= 160 else why[:159] + "…"


def table(results):
    """The page's part between the markers."""
    matched = sum(isinstance(value, float) and value < MARK for value in results.values())
    seeds = ", ".join(map(str, SEEDS))
    lines = [
        f"{matched} of {len(results)} models run and match at the seeds {seeds}.\n",
        "| model | runs and matches | largest error, or the reason |",
        "|---|---|---|",
    ]
    for name, value in results.items():
        if isinstance(value, float):
            lines.append(f"| {name} | {'yes' if value < MARK else 'differs'} | {value:.1e} |")
        else:
            cell = value.replace("|", "\\|").replace("<", "&lt;")
            lines.append(f"| {name} | no | {cell} |")
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("programs", type=Path)
    parser.add_argument("ours", type=Path)
    parser.add_argument("--models", type=Path, default=REPOSITORY / "target" / "peers" / "archs")
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--only", default="", metavar="REGEX", help="models whose names match")
    parser.add_argument("--write", action="store_true", help="put the table into docs/models.md")
    args = parser.parse_args()
    if args.write and (args.only or args.seeds != SEEDS):
        raise SystemExit("suite.py: the table is about all models at all seeds")

    models = {}
    for seed in args.seeds:
        for model in make_models(args.programs, args.models / str(seed), seed):
            if re.search(args.only, model.stem):
                models.setdefault(model.stem, []).append(model)
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        found = pool.map(lambda files: result(args.ours, files), models.values())
        results = dict(zip(models, found, strict=True))
    print(table(results), end="")
    if args.write:
        before, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(before + BEGIN + table(results) + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
