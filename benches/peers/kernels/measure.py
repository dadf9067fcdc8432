"""Times this library's kernels and its peers' by turns, prints how they compare and writes the figures.

usage: measure.py ROOT LIBRARY [--quick] [--only REGEX] [--rounds N] [--seed N] [--json FILE]

ROOT is what run.sh has filled, LIBRARY this library. At each shape every library's result is checked, then each of the
rounds visits every library once, for 150 ms and beginning with another each time; the ratio of ours to the best is
taken within the round, so that a slow spell of the machine hits both. A loop of multiply-adds (or a copy of as many
elements) takes part like a library: it says what the machine gave at that moment. In products a second process of this
library takes part, too: a fair comparison gives it the ratio 1.
"""

import argparse
import datetime
import json
import math
import os
import random
import re
import statistics
import sys
import time
from pathlib import Path

import cases
import peers
from workers import Refused, Worker

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "llama_cpp"))
from compare import clocks, others_busy, processor  # noqa: E402

OURS, AGAIN, PEAK, AVX2_PEAK = "smallmind", "smallmind, again", "machine", "machine, AVX2"
ANSWER_LIMIT = 90


class Column:
    """One library at one number of threads: its processes, and the figures of the case at hand."""

    def __init__(self, peer, threads, cpus):
        self.peer, self.threads, self.why_not, self.current = peer, threads, peer.missing, None
        self.workers = {}
        self.about = {}
        self.best_share = 0.0
        for variant in peer.variants:
            self._start(variant, threads, cpus)

    def _start(self, variant, threads, cpus):
        try:
            worker = Worker(variant, threads, peers.threads_env(threads), cpus, ANSWER_LIMIT)
            about = worker.ask("describe")
            if about in self.about.values() and len(self.peer.variants) > 1:
                worker.close()  # it made nothing of the setting that sets this variant apart
                return
            self.about[variant.name], self.workers[variant.name] = about, worker
        except (Refused, OSError) as error:
            self.why_not = str(error)

    def prepare(self, case):
        """Readies the case in every variant and keeps the fastest; says whether there is one."""
        self.times, self.current = [], None
        if case.group not in (*self.peer.groups, "machine") or (case.group == "machine") != (
            "machine" in self.peer.groups
        ):
            return False
        quickest, reason = math.inf, self.why_not
        for name, worker in list(self.workers.items()):
            try:
                way = worker.ready(case)
                taken = worker.time() if len(self.workers) > 1 else 0.0
            except (Refused, ValueError) as error:
                reason = str(error)
                if worker.process.poll() is not None:
                    del self.workers[name]
                continue
            if taken < quickest:
                quickest, self.current, self.way = taken, worker, ", ".join(filter(None, [name, way]))
        self.reason = reason
        return self.current is not None

    def sample(self, work):
        """One more figure: units of work a nanosecond; none where the process fails."""
        try:
            self.times.append(work / self.current.time())
        except (Refused, ValueError) as error:
            self.reason, self.current = str(error), None

    def close(self):
        for worker in self.workers.values():
            worker.close()


def spread(values):
    if len(values) == 1:
        values = values * 2
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "q1": low, "q3": high}


def machine_peer(root, name):
    binary = root / "bin" / {PEAK: "machine", AVX2_PEAK: "machine_avx2"}[name]
    variants = [peers.Variant("", [str(binary), "THREADS"])] if binary.exists() else []
    return peers.Peer(name, "", ("machine",), variants, "" if variants else "didn't build")


def companion(case, threads):
    """What the machine alone does beside a case, as work of one of its threads in the case's unit."""
    if case.op == "matmul" and case.m == 1:
        return cases.reading(case, threads)
    if case.unit == "GFLOPS":
        return cases.fma()
    return cases.machine("copy", "copy", case.m * case.n, 1, case.work, "G elements/s")


def run_case(case, columns, peak, rounds):
    """One line of the table."""
    ready = [column for column in columns if column.prepare(case)]
    beside = companion(case, peak.threads)
    if peak.prepare(beside):
        ready.append(peak)
    for turn in range(rounds):
        start = turn % len(ready)
        for column in ready[start:] + ready[:start]:
            if column.current is not None:
                column.sample(beside.work * peak.threads if column is peak else case.work)
    ready = [column for column in ready if column.current is not None]
    again = [column.times for column in ready if column.peer.name == AGAIN]
    results = {
        column.peer.name: spread(column.times) | {"way": column.way}
        for column in ready
        if column is not peak and column.peer.name != AGAIN
    }
    line = {"group": case.group, "case": case.name, "unit": case.unit, "results": results}
    line["missing"] = {
        column.peer.name: column.reason if column.workers else column.why_not
        for column in columns
        if column not in ready and case.group in column.peer.groups and column.peer.name != AGAIN
    }
    if peak in ready:
        line["machine"] = spread(peak.times) | {"what": beside.op}
    if again and OURS in results:
        ours = next(column.times for column in ready if column.peer.name == OURS)
        line["itself"] = spread([a / b for a, b in zip(ours, again[0])])
    line |= against_best(ready, results)
    return line


def against_best(ready, results):
    """The best peer by its median, and ours as a multiple of it, round by round."""
    theirs = {name: figures["median"] for name, figures in results.items() if name != OURS}
    if not theirs:
        return {}
    best = max(theirs, key=theirs.get)
    times = {column.peer.name: column.times for column in ready}
    if OURS not in times:
        return {"best_peer": best}
    ratios = [a / b for a, b in zip(times[OURS], times[best])]
    return {"best_peer": best, "ratio": spread(ratios)}


def cell(line, name):
    if name in line["results"]:
        return f"{line['results'][name]['median']:.{1 if line['unit'] == 'GFLOPS' else 2}f}"
    return "–"


def show(line, names):
    ratio = f"{line['ratio']['median']:.2f}" if "ratio" in line else "–"
    winner = max(line["results"], key=lambda name: line["results"][name]["median"], default="–")
    figures = "  ".join(f"{name} {cell(line, name)}" for name in names if name in line["results"])
    print(f"{line['threads']}T {line['case']:38} {ratio:>5}  winner {winner:14} {figures}", flush=True)


def note_shares(columns, line):
    """Remembers for each library the largest share of the multiply-add peak that it reached."""
    if line.get("machine", {}).get("what") != "fma":
        return
    for column in columns:
        if column.peer.name in line["results"]:
            share = line["results"][column.peer.name]["median"] / line["machine"]["median"]
            column.best_share = max(column.best_share, share)


def caches():
    """Bytes of the caches of the first CPU, by name."""
    sizes = {}
    for folder in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        level, kind, size = ((folder / name).read_text().strip() for name in ("level", "type", "size"))
        if kind != "Instruction" and size.endswith("K"):
            sizes[f"L{level}"] = int(size[:-1]) * 1024
    return sizes


def machine_lines(root, threads, cpus, wanted, rounds):
    """What one number of threads gets of the machine alone."""
    columns = [Column(machine_peer(root, name), threads, cpus) for name in (PEAK, AVX2_PEAK)]
    # A read of half a huge shared cache is no longer one of the cache.
    reads = cases.reads({name: min(size, 2**26) for name, size in caches().items()})
    for case in [cases.fma(), *reads]:
        if not wanted(case):
            continue
        for column in columns if case.op == "fma" else columns[:1]:
            if column.prepare(case):
                for _ in range(rounds):
                    column.sample(case.work * threads)
                yield {"what": case.name, "isa": column.way, "threads": threads, "unit": case.unit} | spread(
                    column.times
                )
    for column in columns:
        column.close()


def measure(args, threads, lines, machine, about):
    cpus = sorted(os.sched_getaffinity(0))
    allowed = cpus[-1:] if threads == 1 else cpus[-threads:]
    wanted = re.compile(args.only).search

    def chosen(case):
        return wanted(f"{threads}T {case.group} {case.name}") and (not args.quick or case.name in cases.QUICK)

    machine += machine_lines(args.root, threads, allowed, lambda case: args.only == "", min(args.rounds, 9))
    groups = ("matmul", "attention") if threads > 1 else ("matmul", "elementwise", "rows", "attention")
    todo = [case for case in cases.all_cases(args.seed) if case.group in groups and chosen(case)]
    if not todo:
        return
    needed = {case.group for case in todo}
    taking_part = [peer for peer in peers.all_peers(args.root, args.library, threads) if needed & set(peer.groups)]
    ours = taking_part[0]
    taking_part.append(peers.Peer(AGAIN, ours.package, ("matmul",), ours.variants))
    columns = [Column(peer, threads, allowed) for peer in taking_part]
    peak = Column(machine_peer(args.root, PEAK), threads, allowed)
    for column in columns:
        told = "; ".join(filter(None, [*column.about.values(), column.why_not]))
        print(f"{threads}T {column.peer.name:14} {told}")
    for case in todo:
        line = run_case(case, columns, peak, args.rounds) | {"threads": threads}
        show(line, [column.peer.name for column in columns])
        note_shares(columns, line)
        lines.append(line)
    for column in columns:
        column.close()
        if column.peer.name == AGAIN:
            continue
        entry = about.setdefault(
            column.peer.name, {"package": column.peer.package, "missing": column.why_not, "best_share": 0.0}
        )
        entry["about"] = sorted({text for text in column.about.values() if text})
        entry["best_share"] = max(entry["best_share"], column.best_share)
    peak.close()


def summary(lines):
    """For each group and number of threads: geometric mean and least of our ratios to the best peer."""
    for group, threads in sorted({(line["group"], line["threads"]) for line in lines}):
        ratios = [
            line["ratio"]["median"]
            for line in lines
            if (line["group"], line["threads"]) == (group, threads) and "ratio" in line
        ]
        if ratios:
            mean = math.exp(statistics.fmean(map(math.log, ratios)))
            about = f"geometric mean {mean:.2f}, least {min(ratios):.2f} of {len(ratios)} shapes"
            print(f"{group}, threads {threads}: {about}{against_itself(lines, group, threads)}")


def against_itself(lines, group, threads):
    """How the second process of this library compared, which should be no difference."""
    ratios = [
        line["itself"]["median"]
        for line in lines
        if (line["group"], line["threads"]) == (group, threads) and "itself" in line
    ]
    if not ratios:
        return ""
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    return f"; against itself in another process {mean:.3f}, from {min(ratios):.2f} to {max(ratios):.2f}"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("root", type=Path)
    parser.add_argument("library", type=Path)
    parser.add_argument("--quick", action="store_true", help="few shapes, few rounds")
    parser.add_argument("--only", default="", metavar="REGEX", help="of lines such as '1T matmul 64x64x64 NN'")
    parser.add_argument("--rounds", type=int, default=0)
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="of the random shapes")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.rounds = args.rounds or (2 if args.quick else 3)
    print(f"random shapes by --seed {args.seed}")

    lines, machine, about = [], [], {}
    start, begun = clocks(), time.monotonic()
    # This process only waits; it does so away from what it measures, where there is room.
    cpus = sorted(os.sched_getaffinity(0))
    for threads in sorted({1, min(2, len(cpus))}):
        measure(args, threads, lines, machine, about)
    summary(lines)
    print(f"{time.monotonic() - begun:.0f} s; other programs used {others_busy(start):.2f} cores meanwhile")
    if args.json:
        figures = {
            "date": datetime.date.today().isoformat(),
            "cpu": processor(),
            "caches": caches(),
            "flags": isa_flags(),
            "rounds": args.rounds,
            "seed": args.seed,
            "others_busy": round(others_busy(start), 3),
            "peers": about,
            "machine": machine,
            "lines": lines,
        }
        args.json.write_text(as_text(figures))


def rounded(value):
    """Numbers to the digits that mean something."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    return [rounded(item) for item in value] if isinstance(value, list) else value


def as_text(figures):
    """JSON with a line for each case, library and measurement of the machine, so that changes can be read."""
    parts = []
    for key, value in rounded(figures).items():
        if key in ("machine", "lines"):
            text = "[\n" + ",\n".join("  " + json.dumps(item) for item in value) + "\n ]"
        elif key == "peers":
            text = (
                "{\n" + ",\n".join(f"  {json.dumps(name)}: {json.dumps(item)}" for name, item in value.items()) + "\n }"
            )
        else:
            text = json.dumps(value)
        parts.append(f" {json.dumps(key)}: {text}")
    return "{\n" + ",\n".join(parts) + "\n}\n"


def isa_flags():
    """The vector extensions that the CPU names."""
    words = Path("/proc/cpuinfo").read_text().split()
    return sorted({word for word in words if re.fullmatch(r"avx\w*|fma|f16c|amx\w*|asimd\w*|sve\w*|bf16|i8mm", word)})


if __name__ == "__main__":
    main()
