"""Runs smallmind and llama.cpp by turns on model files and prints how they compare.

usage: compare.py SMALLMIND PEER_PYTHON MODEL... [--tests T ...] [--threads N ...] [--rounds N] [--kv TYPE]
                  [--prefix COMMAND] [--json FILE]

llama.cpp runs with whichever of its settings is fastest here, found beforehand for each file and test with the
first number of threads; smallmind with activations of 16 bits, automatic ones (where it has them) and of 8 bits. In a round
each runs once, llama.cpp in the middle, forward and next time backward; the ratio is taken within the round, so that a slow spell of the machine
hits both. Caches are of one type where smallmind has a choice. Greedy texts are compared by the way.
A file that smallmind can't load is reported, and the next one taken. With --json the figures also go into a
file, for docs/benchmarks.py: those of other files that it has already stay.
"""

import argparse
import datetime
import json
import os
import shlex
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
# What a test asks of `smallmind bench` and of peer.py; the others are the common worker's, in seconds.
SPEEDS = {
    "pp512": ["-p", "512", "-n", "0", "-d", "0"],
    "tg128": ["-p", "0", "-n", "128", "-d", "0"],
    "tg128@d2048": ["-p", "0", "-n", "128", "-d", "2048"],
    "em512": ["-p", "0", "-n", "0", "-e", "512"],
}
TIMES = ("load_to_first", "first16")
TESTS = (*SPEEDS, *TIMES)
# Only where they are asked for: 64 tokens each of so many sequences, one of each in a pass.
BATCHES = {f"tg64x{count}": ["-p", "0", "-n", "64", "-d", "0", "--parallel", str(count)] for count in (1, 4, 16, 64)}
SPEEDS |= BATCHES
# Of models that give vectors, and of those without a vocabulary.
ONLY = {"Embedder": ["em512"], "Qwen3": list(SPEEDS)[:2], "Mixture": list(SPEEDS)[:2]}
VARIANTS = {
    "repacking": [],
    "repacking, flash attention": ["--flash"],
    "neither": ["--plain"],
    "flash attention": ["--plain", "--flash"],
}
# In the order of a round.
PROGRAMS = {
    "smallmind": "smallmind",
    "smallmind_auto": "smallmind, automatic bits",
    "llama_cpp": "llama.cpp",
    "smallmind_8bit": "smallmind, 8 bits",
}
OURS = {"smallmind": "16", "smallmind_auto": "auto", "smallmind_8bit": "8"}


class Died(Exception):
    """A program that ended badly, and what it said last."""


class Programs:
    """Both programs on one file."""

    def __init__(self, args, model):
        self.args, self.model, self.texts = args, str(model), {}
        # A choice that `smallmind bench` lacks is not made.
        usage = subprocess.run([args.smallmind, "bench", "--help"], stdout=subprocess.PIPE, text=True, check=True)
        self.ours_names = [name for name, bits in OURS.items() if bits != "auto" or "16|auto|8" in usage.stdout]
        self.names = [name for name in PROGRAMS if name in self.ours_names or name == "llama_cpp"]
        self.kv = ["--kv", args.kv] if "--kv" in usage.stdout else []
        self.bench = [args.smallmind, "bench", "--model", self.model, "-r", "1", "--json", *self.kv]
        if "--first-token" in usage.stdout:
            self.bench += ["--first-token", "0"]

    def output(self, command, shown=True):
        command = [*shlex.split(self.args.prefix), *map(str, command)]
        result = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=False)
        if result.returncode != 0:
            last = result.stderr.strip().splitlines()[-1:] or [f"status {result.returncode}"]
            raise Died(last[0])
        if shown and result.stderr:
            print(result.stderr.strip(), file=sys.stderr)
        return json.loads(result.stdout)

    def ours(self, name, test, threads):
        """Tokens a second, or for a test of time firsts a second, so that more is better throughout."""
        flags = ["--activations", OURS[name], "--threads", threads]
        if test in SPEEDS:
            return self.output([*self.bench, *SPEEDS[test], *flags])[0]["tokens_per_second"]
        library = Path(self.args.smallmind).with_name("libsmallmind.so")
        flags += ["--kv", self.args.kv]
        return self.times(name, test, [self.args.peer_python, HERE / "ours.py", library, self.model, *flags])

    def peer(self, test, threads, variant):
        command = [self.args.peer_python, HERE / "peer.py", "--model", self.model, "--kv", self.args.kv]
        command += ["--threads", threads, *VARIANTS[variant]]
        if test in SPEEDS:
            return self.output([*command, *SPEEDS[test]])[0]["tokens_per_second"]
        return self.times("llama_cpp", test, [*command, "--first"])

    def times(self, name, test, command):
        figures = self.output(command)
        self.texts.setdefault(name, figures["texts"])
        return 1 / figures[test]

    def fastest(self, test, threads):
        """The name of llama.cpp's fastest settings."""
        speeds = {}
        for variant in VARIANTS:
            try:
                speeds[variant] = self.peer(test, threads, variant)
            except Died as death:
                print(f"llama.cpp died on {test} with {variant}: {death}", file=sys.stderr)
        if not speeds:
            raise Died("llama.cpp runs with no settings")
        return max(speeds, key=speeds.get)

    def agreement(self):
        """Of each of our greedy texts, how it agrees with llama.cpp's."""
        theirs = self.texts.get("llama_cpp", {})
        return {
            name: [alike(self.texts[name][prompt]["ids"], text) for prompt, text in theirs.items()]
            for name in OURS
            if name in self.texts
        }


def alike(ids, theirs):
    """How many tokens of a text are llama.cpp's before the first that isn't, and how close a choice that was:
    llama.cpp's gap between its two likeliest there. It rounds activations to 8 bits, so close ones may differ."""
    begin = len(theirs["ids"]) - len(theirs["gaps"])
    same = [a == b for a, b in zip(ids, theirs["ids"], strict=True)]
    if all(same):
        return {"tokens": len(theirs["gaps"])}
    equal = same.index(False) - begin
    return {"tokens": equal, "gap": theirs["gaps"][equal] if equal >= 0 else None}


def alike_text(texts):
    """`64, 13 (gap 0.05)`"""
    gaps = [f" (gap {text['gap']:.2f})" if text.get("gap") is not None else "" for text in texts]
    return ", ".join(f"{text['tokens']}{gap}" for text, gap in zip(texts, gaps))


def clocks():
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    busy = sum(ticks[:3]) + sum(ticks[5:8])
    times = os.times()
    ours = times.children_user + times.children_system + times.user + times.system
    return time.monotonic(), busy / os.sysconf("SC_CLK_TCK"), ours


def others_busy(start):
    """CPU seconds that programs other than ours used a second since `start`."""
    (wall, cpu, ours), (now, cpu_now, ours_now) = start, clocks()
    return ((cpu_now - cpu) - (ours_now - ours)) / (now - wall)


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown CPU'}, {os.cpu_count()} cores"


def entry(test, threads, speeds, settings):
    """A row of the JSON; figures of tests of time are seconds."""
    figures = {name: values if test in SPEEDS else [1 / value for value in values] for name, values in speeds.items()}
    row = {"test": test, "threads": threads} | {name: summary(values) for name, values in figures.items()}
    row["llama_cpp"]["settings"] = settings
    for name in speeds.keys() & OURS.keys():
        ratios = [a / b for a, b in zip(speeds[name], speeds["llama_cpp"])]
        row[name] |= {"ratio": statistics.median(ratios), "ratio_min": min(ratios), "ratio_max": max(ratios)}
    return row


def tests_of(model, tests):
    """Of `tests`, those that a model can take; it takes em512 only where that is all it takes."""
    name = Path(model).stem
    only = next((only for part, only in ONLY.items() if name.startswith(part)), None)
    chosen = [test for test in tests if (test in BATCHES or test in only if only else test != "em512")]
    if not chosen:
        raise Died(f"none of the tests {', '.join(tests)} is for {name}")
    return chosen


def measure(programs, args):
    """The rows of one file."""
    tests = tests_of(programs.model, args.tests)
    for name in programs.ours_names:
        programs.ours(name, tests[0], args.threads[0])
    cases = [(test, threads) for test in tests for threads in args.threads]
    settings = {test: programs.fastest(test, args.threads[0]) for test in tests}
    speeds = {case: {name: [] for name in programs.names} for case in cases}
    for turn in range(args.rounds):
        for case in cases:
            for name in programs.names[:: 1 if turn % 2 == 0 else -1]:
                speed = programs.ours(name, *case) if name in OURS else programs.peer(*case, settings[case[0]])
                speeds[case][name].append(speed)
    return [entry(*case, speeds[case], settings[case[0]]) for case in cases]


def print_rows(rows):
    def cell(test, figures):
        digits, unit = (1, "") if test in SPEEDS else (3, " s")
        return "{median:.{d}f}{unit} ({min:.{d}f}–{max:.{d}f})".format(**figures, d=digits, unit=unit)

    names = [name for name in PROGRAMS if name in rows[0]]
    ours = [name for name in names if name in OURS]
    heads = ["test", "threads", *(PROGRAMS[name] for name in names), *(f"×, {OURS[name]} bits" for name in ours)]
    print(f"| {' | '.join(heads)} |\n" + "|---" * len(heads) + "|")
    for row in rows:
        cells = [cell(row["test"], row[name]) for name in names]
        cells += ["{ratio:.2f} ({ratio_min:.2f}–{ratio_max:.2f})".format(**row[name]) for name in ours]
        print(f"| {row['test']} | {row['threads']} | {' | '.join(cells)} |")


def store(path, args, version, models):
    """What docs/benchmarks.py draws; what the file says of other models stays."""
    kept = json.loads(path.read_text()).get("models", {}) if path.exists() else {}
    common = {"date": datetime.date.today().isoformat(), "cpu": processor()}
    common |= {"llama_cpp": version, "rounds": args.rounds, "kv": args.kv}
    path.write_text(json.dumps(common | {"models": kept | models}, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("smallmind")
    parser.add_argument("peer_python")
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--tests", nargs="+", choices=[*TESTS, *BATCHES], default=list(TESTS))
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, min(2, os.cpu_count() or 1)}))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kv", choices=["f32", "f16", "q8_0"], default="f16", help="type of both caches")
    parser.add_argument("--prefix", default="", help='put before every run, such as "taskset -c 2,3"')
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    info = [args.peer_python, HERE / "peer.py", "--info"]
    info = subprocess.run(info, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()
    print(info)
    version = info.split(" (")[0].removeprefix("llama.cpp ")
    print(f"Median (lowest–highest) of {args.rounds} rounds, tokens/s; × = ratio of speeds to llama.cpp in a round")
    failed = False
    for model in args.models:
        programs, start = Programs(args, model), clocks()
        print(f"\n## {model.stem}\n", flush=True)
        try:
            rows = measure(programs, args)
        except Died as death:
            print(f"not compared: {death}")
            figures, failed = {"error": str(death)}, True
        else:
            print_rows(rows)
            figures = {"bytes": model.stat().st_size, "rows": rows, "agreement": programs.agreement()}
            for name, texts in figures["agreement"].items():
                print(f"\n{PROGRAMS[name]}: tokens of greedy texts that are llama.cpp's, of 64: {alike_text(texts)}")
            figures["others_busy"] = others_busy(start)
            print(f"\nOther programs kept {figures['others_busy']:.2f} of {os.cpu_count()} cores busy meanwhile.")
            if figures["others_busy"] > 0.1:
                # A spinning barrier burns whole time slices while its partner waits for a core.
                print("That is too many: figures of several threads mean little. Repeat on a quiet machine.")
        if args.json:
            store(args.json, args, version, {model.stem: figures})
    sys.exit(failed)


if __name__ == "__main__":
    main()
