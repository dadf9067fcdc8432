"""Compares smallmind with other programs on all-MiniLM-L6-v2, or with llama.cpp on a file: vectors' cosine, and speed.

usage: compare.py FOLDER LIBRARY [--file GGUF [--strategies]] [--peer-python PYTHON] [--cases CASE ...]
                  [--threads N ...] [--rounds N] [--only NAME ...] [--json FILE]

FOLDER has texts.json, reference.npz and the model's forms. Every program runs in a process of its own. For each number
of threads, and for batches and texts alone, each of its settings is tried beforehand and the fastest one taken. Before
a program is timed it is checked: the least and the mean cosine of its vectors with those of plain f64. In a round all programs run once, for
a fifth of a second or one run, forward and next time backward; a process that isn't at work is stopped, so that its
threads can't spin.

A case is AxB, a call with A texts of B tokens (B may be "mix" with --file), "mix", calls of 32 texts of 4 to 256 tokens in random order, or
"mix, sorted", the same texts sorted by length beforehand. With --file the tokens are any, and cosines are with
smallmind's own vectors at 16 bits; --strategies has smallmind's strategies take turns, without other programs.
"""

import argparse
import contextlib
import datetime
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import engines
import numpy as np

HERE = Path(__file__).resolve().parent
SECONDS = 0.2
CASES = ("32x32", "mix", "mix, sorted", "1x8", "1x32", "1x128")
BITS = ("16", "auto", "8")


def question_of(case):
    """Its texts, the size of batches (0: one of all texts), whether texts are sorted beforehand."""
    texts, _, order = case.partition(", ")
    return {"case": texts, "batch": 32 if texts == "mix" else 0, "sorted": order == "sorted"}


class Program:
    """A program with the settings that are tried."""

    def __init__(self, name, kind, python, settings):
        self.name, self.kind, self.python, self.settings = name, kind, python, settings


def programs(args):
    folder, python = args.folder, sys.executable
    both = [{}, {"streams": True}]
    kinds = {"smallmind F32": ("minilm.F32.gguf", None)}
    kinds |= {f"smallmind Q8_0, {bits} bits": ("minilm.Q8_0.gguf", bits) for bits in BITS}
    for name, (file, bits) in kinds.items():
        settings = [{"library": str(args.library), "file": str(folder / file), "activations": bits}]
        yield Program(name, "smallmind", python, settings)
    fused = [{"file": str(folder / "fused.onnx")} | more for more in both]
    plain = [{"file": str(folder / "plain.onnx")} | more for more in both]
    int8 = [{"file": str(folder / f"{name}.onnx")} | more for name in ("int8", "int8_channels") for more in both]
    yield Program("ONNX Runtime", "onnxruntime", python, fused + plain)
    yield Program("ONNX Runtime int8", "onnxruntime", python, int8)
    yield Program("OpenVINO", "openvino", python, plain)
    yield Program("OpenVINO bf16", "openvino", python, [settings | {"precision": "bf16"} for settings in plain])
    for name, part, compute in (("", "", "float32"), (" int8", "_int8", "int8_float32")):
        settings = [
            {"folder": str(folder / f"ctranslate2{part}"), "compute": compute, "environment": {"CT2_USE_MKL": mkl}}
            for mkl in (0, 1)
        ]
        settings = [one | more for one in settings for more in both]
        yield Program(f"CTranslate2{name}", "ctranslate2", python, settings)
    for kind in ("F32", "Q8_0"):
        yield from llama_cpp(args, f"llama.cpp {kind}", folder / f"minilm.{kind}.gguf")


def llama_cpp(args, name, file):
    """llama.cpp, where it is there."""
    if args.peer_python:
        more = ({}, {"flash": True})
        settings = [{"file": str(file), "texts": texts} | each for texts in (1, 8) for each in more]
        yield Program(name, "llama_cpp", args.peer_python, settings)


def programs_of_file(args):
    """smallmind with all kinds of activations and llama.cpp; or smallmind's strategies."""
    common = {"library": str(args.library), "file": str(args.file)}
    if args.strategies:
        for strategy in ("auto", "fine", "coarse"):
            yield Program(strategy, "smallmind", sys.executable, [common | {"strategy": strategy}])
        return
    for bits in BITS:
        yield Program(f"smallmind, {bits} bits", "smallmind", sys.executable, [common | {"activations": bits}])
    yield from llama_cpp(args, "llama.cpp", args.file)


def write_tokens(cases, path):
    """Texts of any tokens."""
    rng = random.Random(16)
    texts = {}
    for case in cases:
        name = question_of(case)["case"]
        count, _, length = name.partition("x") if name != "mix" else ("64", "", "mix")
        mixed = length == "mix"
        lengths = [4 + int(252 * rng.random() ** 2) if mixed else int(length) for _ in range(int(count))]
        texts[name] = [[rng.randrange(1000, 9000) for _ in range(length)] for length in lengths]
    path.write_text(json.dumps(texts))


class Worker:
    """A process of a program, stopped whenever it has no question."""

    def __init__(self, program, threads, settings, texts):
        command = [program.python, HERE / "worker.py", program.kind, str(threads), json.dumps(settings), texts]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=engines.environment(settings),
        )
        self.answer()

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            last = self.process.stderr.read().strip().splitlines()[-1:] or ["it ended"]
            raise ValueError(last[0])
        os.kill(self.process.pid, signal.SIGSTOP)
        return json.loads(line)

    def ask(self, case, **question):
        question |= question_of(case)
        os.kill(self.process.pid, signal.SIGCONT)
        self.process.stdin.write(json.dumps(question) + "\n")
        self.process.stdin.flush()
        return self.answer()

    def seconds(self, case, seconds=SECONDS):
        return self.ask(case, seconds=seconds)["seconds"]

    def close(self):
        with contextlib.suppress(OSError):
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.process.stderr):
            pipe.close()


def vectors_of(worker, case):
    with tempfile.NamedTemporaryFile(suffix=".npy") as file:
        worker.ask(case, vectors=file.name)
        vectors = np.load(file.name).astype(np.float64)
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def cosines(vectors, reference):
    """The least and the mean cosine of vectors with the reference."""
    found = (vectors * reference).sum(1)
    return {"least": float(found.min()), "mean": float(found.mean())}


def shown(settings):
    """Settings in words, without paths."""
    words = []
    for name, value in settings.items():
        if name in ("library", "activations") or value in (None, False):
            continue
        if name == "environment":
            words += [f"{key}={each}" for key, each in value.items()]
        elif name in ("file", "folder"):
            words.append(Path(value).name)
        else:
            words.append(name if value is True else f"{name} {value}")
    return ", ".join(words)


def fastest(program, case, threads, args):
    """A worker with the program's fastest settings, and these; or why there is none."""
    best, reason = None, "no settings"
    for settings in program.settings:
        several = kind_of(case) == "batches"
        if settings.get("streams") and (threads == 1 or not several) or settings.get("texts", 1) > 1 and not several:
            continue
        try:
            worker = Worker(program, threads, settings, args.texts)
        except ValueError as error:
            reason = str(error)
            continue
        if len(program.settings) == 1:
            return worker, settings
        taken = worker.seconds(case, SECONDS / 2)
        if best and best[0] <= taken:
            worker.close()
            continue
        if best:
            best[1].close()
        best = taken, worker, settings
    return best[1:] if best else reason


def kind_of(case):
    """Cases of one kind run with the same settings, which are tried on the first of them."""
    return "one text" if case.startswith("1x") else "batches"


def measure(cases, threads, args, references):
    """The rows of cases of one kind, as they are done."""
    workers, settings, missing = {}, {}, {}
    try:
        for program in args.programs:
            found = fastest(program, cases[0], threads, args)
            if isinstance(found, str):
                missing[program.name] = {"missing": found}
            else:
                workers[program.name], settings[program.name] = found
        for case in cases:
            figures, reference = {}, references.get(question_of(case)["case"])
            for name, worker in workers.items():
                vectors = vectors_of(worker, case)
                reference = vectors if reference is None else reference
                cosine = cosines(vectors, reference)
                figures[name] = {"settings": shown(settings[name]), "cosine": cosine, "seconds": []}
            for turn in range(args.rounds):
                for name in workers if turn % 2 == 0 else reversed(workers):
                    figures[name]["seconds"].append(workers[name].seconds(case))
            texts = 0 if reference is None else len(reference)
            yield {"case": case, "threads": threads, "texts": texts, "programs": figures | missing}
    finally:
        for worker in workers.values():
            worker.close()


def print_row(row):
    print(f"\n{row['case']}, {row['threads']} threads: ms, least and mean cosine, settings")
    for name, figures in row["programs"].items():
        if "missing" in figures:
            print(f"  {name:24} left out: {figures['missing']}")
            continue
        times = sorted(1e3 * seconds for seconds in figures["seconds"])
        middle, cosine = statistics.median(times), "{least:.6f} {mean:.6f}".format(**figures["cosine"])
        print(f"  {name:24} {middle:8.2f} ({times[0]:.2f}–{times[-1]:.2f})  {cosine}  {figures['settings']}")
    sys.stdout.flush()


def processor():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else 'unknown CPU'}, {os.cpu_count()} cores"


def versions(args):
    """Of the packages that are compared."""
    from importlib.metadata import version

    found = {name: version(name) for name in ("onnxruntime", "openvino", "ctranslate2")}
    if args.peer_python:
        code = "from importlib.metadata import version; print(version('llama-cpp-python'))"
        command = [args.peer_python, "-c", code]
        found["llama-cpp-python"] = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    return found


def store(path, args, rows):
    """What docs/embed_peers.py draws; rows of other cases stay."""
    kept = json.loads(path.read_text())["rows"] if path.exists() else []
    measured = {(row["case"], row["threads"]) for row in rows}
    rows = [row for row in kept if (row["case"], row["threads"]) not in measured] + rows
    rows.sort(key=lambda row: (CASES.index(row["case"]) if row["case"] in CASES else len(CASES), row["threads"]))
    numbers = {"date": datetime.date.today().isoformat(), "cpu": processor(), "rounds": args.rounds, "load": args.load}
    path.write_text(json.dumps(numbers | {"versions": versions(args), "rows": rows}, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("library", type=Path)
    parser.add_argument("--peer-python", help="a Python that has llama.cpp")
    parser.add_argument("--file", type=Path, help="a model file to take instead of all-MiniLM-L6-v2")
    parser.add_argument("--strategies", action="store_true")
    parser.add_argument("--cases", nargs="+", default=list(CASES))
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, min(2, os.cpu_count() or 1)}))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--only", nargs="+", default=[""], help="programs whose name has one of these parts")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    args.load = os.getloadavg()[0]
    args.texts = args.folder / "texts.json"
    if args.file:
        write_tokens(args.cases, args.folder / "tokens.json")
        args.texts, references = args.folder / "tokens.json", {}
    else:
        references = np.load(args.folder / "reference.npz")
    found = programs_of_file(args) if args.file else programs(args)
    args.programs = [one for one in found if any(part in one.name for part in args.only)]
    for threads in args.threads:
        for kind in dict.fromkeys(map(kind_of, args.cases)):
            cases = [case for case in args.cases if kind_of(case) == kind]
            for row in measure(cases, threads, args, references):
                print_row(row)
                if args.json:
                    store(args.json, args, [row])


if __name__ == "__main__":
    main()
