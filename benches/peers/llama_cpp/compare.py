"""Runs smallmind and llama.cpp by turns on one model and prints how they compare.

usage: compare.py SMALLMIND PEER_PYTHON MODEL [--rounds N] [--json FILE]

llama.cpp runs with whichever of its settings is fastest here, found beforehand
for prompt and generation each; smallmind with activations of 16 bits and of 8. In a
round each runs once at each thread count, llama.cpp between the two, forward and next
time backward; the ratio is taken within the round, so that a slow spell of the machine
hits both. With --json the figures also go into a file, for docs/benchmarks.py.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

PEER = Path(__file__).with_name("peer.py")
TESTS = {"pp512": ["-p", "512", "-n", "0"], "tg128": ["-p", "0", "-n", "128"]}
VARIANTS = {
    "": [],
    "flash attention": ["--flash"],
    "no repacking": ["--plain"],
    "no repacking, flash attention": ["--plain", "--flash"],
}


# In the order of a round.
PROGRAMS = {"smallmind": "smallmind", "llama_cpp": "llama.cpp", "smallmind_8bit": "smallmind, 8 bits"}


def run(command):
    """The speeds by test that a program printed, or None if it died."""
    result = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    if result.returncode != 0:
        return None
    return {row["test"]: row["tokens_per_second"] for row in json.loads(result.stdout)}


def fastest(peer, threads):
    """For each test the arguments and name of llama.cpp's fastest variant."""
    best = {}
    for test, size in TESTS.items():
        speeds = {}
        for name, flags in VARIANTS.items():
            command = [*peer, *size, "--threads", str(threads), "-r", "2", *flags]
            speeds[name] = (run(command) or {}).get(test)
            if speeds[name] is None:
                print(f"llama.cpp died on {test} with {name or 'its defaults'}", file=sys.stderr)
        if not any(speeds.values()):
            raise SystemExit("llama.cpp runs with no settings")
        name = max(speeds, key=lambda name: speeds[name] or 0)
        best[test] = (size + VARIANTS[name], name)
    return best


def others_busy(start):
    """CPU seconds that programs other than ours used a second since `start`."""
    (wall, cpu, ours), (now, cpu_now, ours_now) = start, clocks()
    return ((cpu_now - cpu) - (ours_now - ours)) / (now - wall)


def clocks():
    ticks = [int(word) for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    busy = sum(ticks[:3]) + sum(ticks[5:8])
    times = os.times()
    ours = times.children_user + times.children_system + times.user + times.system
    return time.monotonic(), busy / os.sysconf("SC_CLK_TCK"), ours


def summary(values):
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def spread(values, digits):
    return "{median:.{d}f} ({min:.{d}f}–{max:.{d}f})".format(**summary(values), d=digits)


def processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown CPU'}, {os.cpu_count()} cores"


def as_json(args, version, rows):
    """What docs/benchmarks.py draws."""

    def entry(test, count, speeds):
        row = {"test": test, "threads": count} | {name: summary(values) for name, values in speeds.items()}
        for name in row.keys() & PROGRAMS.keys() - {"llama_cpp"}:
            row[name]["ratio"] = statistics.median(a / b for a, b in zip(speeds[name], speeds["llama_cpp"]))
        return row

    figures = {
        "date": datetime.date.today().isoformat(),
        "cpu": processor(),
        "model": Path(args.model).stem,
        "llama_cpp": version,
        "rounds": args.rounds,
        "rows": [entry(test, count, speeds) for (test, count), speeds in rows.items()],
    }
    return json.dumps(figures, indent=1) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("smallmind")
    parser.add_argument("peer_python")
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()

    info = subprocess.run([args.peer_python, PEER, "--info"], stdout=subprocess.PIPE, text=True, check=True)
    print(info.stdout.strip())
    peer = [args.peer_python, PEER, "--model", args.model]
    threads = sorted({1, min(2, os.cpu_count() or 1)})
    settings = fastest(peer, 1)
    for test, (_, name) in settings.items():
        print(f"llama.cpp's {test} is fastest with {name or 'its defaults'}")

    def ours(count, bits):
        command = [args.smallmind, "bench", "--model", args.model, "-p", "512", "-n", "128"]
        return run([*command, "--threads", str(count), "--activations", bits, "-r", "1", "--json"])

    def theirs(count):
        speeds = {}
        for flags, _ in settings.values():
            speeds |= run([*peer, *flags, "--threads", str(count)]) or {}
        return speeds

    programs = {
        "smallmind": lambda count: ours(count, "16"),
        "llama_cpp": theirs,
        "smallmind_8bit": lambda count: ours(count, "8"),
    }
    rows = {(test, count): {name: [] for name in PROGRAMS} for test in TESTS for count in threads}
    start = clocks()
    for turn in range(args.rounds):
        for count in threads:
            for name in list(PROGRAMS)[:: 1 if turn % 2 == 0 else -1]:
                speeds = programs[name](count)
                if not speeds:
                    raise SystemExit(f"{PROGRAMS[name]} failed at {count} threads")
                for test in TESTS:
                    rows[test, count][name].append(speeds[test])
    others = others_busy(start)

    print(f"\nmedian (lowest–highest) of {args.rounds} rounds, tokens/s; × = ratio to llama.cpp in a round\n")
    print("| test | threads | " + " | ".join(PROGRAMS.values()) + " | × | ×, 8 bits |")
    print("|---" * (len(PROGRAMS) + 4) + "|")
    for (test, count), speeds in rows.items():
        cells = [spread(values, 1) for values in speeds.values()]
        for name in "smallmind", "smallmind_8bit":
            cells.append(spread([a / b for a, b in zip(speeds[name], speeds["llama_cpp"])], 2))
        print(f"| {test} | {count} | {' | '.join(cells)} |")
    if args.json:
        args.json.write_text(as_json(args, info.stdout.split(" (")[0].removeprefix("llama.cpp "), rows))
    print(f"\nOther programs kept {others:.2f} of {os.cpu_count()} cores busy meanwhile.")
    if others > 0.1:
        # A spinning barrier burns whole time slices while its partner waits for a core.
        print("That is too many: two-thread figures especially mean little. Run it again on a quiet machine.")


if __name__ == "__main__":
    main()
