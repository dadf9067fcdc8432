"""Runs smallmind and llama.cpp by turns on one model and prints how they compare.

usage: compare.py SMALLMIND PEER_PYTHON MODEL [--rounds N]

llama.cpp runs with whichever of its settings is fastest here, found beforehand
for prompt and generation each. In a round each program runs once at each thread
count, the two right after each other, first the one and next time the other;
the ratio is taken within the round, so that a slow spell of the machine hits both.
"""

import argparse
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


def spread(values, digits):
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("smallmind")
    parser.add_argument("peer_python")
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()

    info = subprocess.run([args.peer_python, PEER, "--info"], stdout=subprocess.PIPE, text=True, check=True)
    print(info.stdout.strip())
    peer = [args.peer_python, PEER, "--model", args.model]
    threads = sorted({1, min(2, os.cpu_count() or 1)})
    settings = fastest(peer, 1)
    for test, (_, name) in settings.items():
        print(f"llama.cpp's {test} is fastest with {name or 'its defaults'}")

    def ours(count):
        command = [args.smallmind, "bench", "--model", args.model, "-p", "512", "-n", "128"]
        return run([*command, "--threads", str(count), "-r", "1", "--json"])

    def theirs(count):
        speeds = {}
        for flags, _ in settings.values():
            speeds |= run([*peer, *flags, "--threads", str(count)]) or {}
        return speeds

    rows = {(test, count): ([], []) for test in TESTS for count in threads}
    start = clocks()
    for turn in range(args.rounds):
        for count in threads:
            pair = [None, None]
            for n in (0, 1) if turn % 2 == 0 else (1, 0):
                pair[n] = (ours, theirs)[n](count)
            if not all(pair):
                raise SystemExit(f"{'llama.cpp' if pair[0] else 'smallmind'} failed at {count} threads")
            for test in TESTS:
                for column, speeds in zip(rows[test, count], pair):
                    column.append(speeds[test])
    others = others_busy(start)

    print(f"\nmedian (lowest–highest) of {args.rounds} rounds, tokens/s\n")
    print("| test | threads | smallmind | llama.cpp | ratio in a round |")
    print("|---|---|---|---|---|")
    for (test, count), (mine, peers) in rows.items():
        ratios = [a / b for a, b in zip(mine, peers)]
        print(f"| {test} | {count} | {spread(mine, 1)} | {spread(peers, 1)} | {spread(ratios, 2)} |")
    print(f"\nOther programs kept {others:.2f} of {os.cpu_count()} cores busy meanwhile.")
    if others > 0.1:
        # A spinning barrier burns whole time slices while its partner waits for a core.
        print("That is too many: two-thread figures especially mean little. Run it again on a quiet machine.")


if __name__ == "__main__":
    main()
