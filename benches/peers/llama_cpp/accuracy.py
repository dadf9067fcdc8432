"""Measures how far smallmind and llama.cpp are from the exact answer on model files, and prints a table.

usage: accuracy.py LIBRARY MODEL... [--positions N] [--chunks N] [--text FILE] [--threads T]
                   [--kv TYPE] [--json FILE] [--write]

The exact answer for a file: smallmind's next-token distributions on the same weights decoded to F32, with a
cache of F32. From it the mean Kullback-Leibler divergence (nats) is taken, over the first N positions of tests/goldens/parity.txt,
and the share of positions whose likeliest token is the same: of smallmind on the file, with activations of 16
bits, automatic ones and of 8 bits, and of llama.cpp on the file; caches are of the same TYPE. Perplexity is over chunks of 512 tokens of TEXT
(default: alice29.txt of the Canterbury corpus, out of the PyPI package brotli), the second half of each; not
for files of random weights. With --write the table goes into docs/parity.md.
"""

import argparse
import contextlib
import ctypes
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import llama_cpp
import numpy as np
import smallmind

REPOSITORY = Path(__file__).resolve().parents[3]
PAGE = REPOSITORY / "docs" / "parity.md"
PASSAGE = REPOSITORY / "tests" / "goldens" / "parity.txt"
BEGIN, END = "<!-- accuracy -->\n", "<!-- /accuracy -->\n"
ALICE = "7467306ee0feed4971260f3c87421154a05be571d944e9cb021a5713700c38f0"
CHUNK = 512
OURS = {"smallmind": "16", "smallmind_auto": "auto", "smallmind_8bit": "8"}
# A library without automatic activations is measured without.
OURS = {name: bits for name, bits in OURS.items() if smallmind.activations(bits)}
PROGRAMS = {"smallmind": "smallmind", "smallmind_auto": "automatic bits", "smallmind_8bit": "8 bits"}
PROGRAMS = {name: PROGRAMS[name] for name in OURS} | {"llama_cpp": "llama.cpp"}
CACHES = {"f32": 0, "f16": 1, "q8_0": 8}
_quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)


class Ours:
    """smallmind on a file: logits at every position."""

    def __init__(self, library, path, args, kv, activations="16"):
        self.model = smallmind.Model(library, path, **smallmind.activations(activations))
        sizes = {"n_ctx": CHUNK, "n_output": CHUNK, "n_threads": args.threads}
        self.context = smallmind.Context(self.model, **sizes, **smallmind.cache_type(kv))

    def logits(self, tokens):
        self.context.clear()
        self.context.decode(tokens, smallmind.LOGITS_ALL)
        return self.context.logits()

    def tokenize(self, text):
        return self.model.tokenize(text)


class Theirs:
    """llama.cpp on a file, with its own defaults but for the cache."""

    def __init__(self, path, args):
        self.model = llama_cpp.llama_model_load_from_file(
            str(path).encode(), llama_cpp.llama_model_default_params()
        )
        if not self.model:
            raise smallmind.Failure("llama.cpp can't load it")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = params.n_outputs_max = CHUNK
        params.n_threads = params.n_threads_batch = args.threads
        params.type_k = params.type_v = CACHES[args.kv]
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.vocabulary = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(self.model))
        self.batch = llama_cpp.llama_batch_init(CHUNK, 0, 1)

    def logits(self, tokens):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        self.batch.n_tokens = len(tokens)
        for n, token in enumerate(tokens):
            self.batch.token[n], self.batch.pos[n], self.batch.logits[n] = token, n, True
            self.batch.n_seq_id[n], self.batch.seq_id[n][0] = 1, 0
        status = llama_cpp.llama_decode(self.context, self.batch)
        assert status == 0, f"llama_decode gave {status}"
        rows = llama_cpp.llama_get_logits(self.context)
        return np.ctypeslib.as_array(rows, (len(tokens), self.vocabulary))

    def __del__(self):
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)


def log_softmax(logits):
    """Natural-log probabilities in f64 of one row of logits."""
    wide = logits.astype(np.float64)
    wide -= wide.max()
    return wide - np.log(np.exp(wide).sum())


def divergence(exact, rows):
    """Mean divergence of the distributions of `rows` from those of `exact`, and how often the best agree."""
    total = agree = 0.0
    for p, q in zip(exact, rows, strict=True):
        agree += p.argmax() == q.argmax()
        p, q = log_softmax(p), log_softmax(q)
        total += (np.exp(p) * (p - q)).sum()
    return {"kl": total / len(exact), "agree": agree / len(exact)}


def perplexity(program, tokens, chunks):
    """Over the second half of each chunk, whose tokens see half a chunk at least."""
    total = count = 0
    for start in range(0, min(chunks * CHUNK, len(tokens) - CHUNK), CHUNK):
        piece = tokens[start : start + CHUNK + 1]
        logits = program.logits(piece[:-1])
        for n in range(CHUNK // 2, CHUNK):
            total -= log_softmax(logits[n])[piece[n + 1]]
            count += 1
    return float(np.exp(total / count))


@contextlib.contextmanager
def widened(path):
    """A temporary copy of the model with every weight decoded to F32."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype, params.allow_requantize = llama_cpp.LLAMA_FTYPE_ALL_F32, True
    with tempfile.TemporaryDirectory(dir=REPOSITORY / "target") as folder:
        copy = Path(folder) / "widened.gguf"
        status = llama_cpp.llama_model_quantize(str(path).encode(), str(copy).encode(), ctypes.byref(params))
        assert status == 0, f"llama_model_quantize gave {status}"
        yield copy


def alice():
    """The path of alice29.txt, fetched once."""
    folder = REPOSITORY / "target" / "text"
    path = folder / "alice29.txt"
    if not path.exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
        with tempfile.TemporaryDirectory() as work:
            subprocess.run([*command, "--dest", work, "brotli==1.2.1"], stdout=sys.stderr, check=True)
            with tarfile.open(next(Path(work).glob("*.tar.gz"))) as archive:
                name = next(name for name in archive.getnames() if name.endswith("/alice29.txt"))
                path.write_bytes(archive.extractfile(name).read())
    if hashlib.sha256(path.read_bytes()).hexdigest() != ALICE:
        raise SystemExit(f"{path} is not the text it should be")
    return path


def measure(args, library, model, text):
    """The figures of one file."""
    makers = {name: lambda bits=bits: Ours(library, model, args, args.kv, bits) for name, bits in OURS.items()}
    makers["llama_cpp"] = lambda: Theirs(model, args)
    # What can't be loaded is found before the wide copy is made.
    tokenizer = makers["smallmind"]()
    passage = tokenizer.tokenize(PASSAGE.read_text())[: args.positions]
    tokens = [] if "Random" in model.stem else tokenizer.tokenize(text)
    del tokenizer
    figures = {}
    with widened(model) as copy:
        program = Ours(library, copy, args, "f32")
        exact = program.logits(passage).copy()
        if tokens:
            figures["exact_perplexity"] = perplexity(program, tokens, args.chunks)
        del program
    for name, make in makers.items():
        program = make()
        figures[name] = divergence(exact, program.logits(passage))
        if tokens:
            figures[name]["perplexity"] = perplexity(program, tokens, args.chunks)
        del program
    return figures


def row(name, figures):
    """A line of the table."""
    if "error" in figures:
        return f"| {name} | not compared: {figures['error']} |" + " |" * (len(PROGRAMS) * 2)
    cells = [f"{figures[p]['kl']:.1e}, {100 * figures[p]['agree']:.1f} %" for p in PROGRAMS]
    if "exact_perplexity" in figures:
        cells.append(f"{figures['exact_perplexity']:.3f}")
        cells += [f"{figures[p]['perplexity']:.3f}" for p in PROGRAMS]
    else:
        cells += ["–"] * (len(PROGRAMS) + 1)
    return f"| {name} | " + " | ".join(cells) + " |"


def table(args, results):
    heads = [f"KL, agreement: {title}" for title in PROGRAMS.values()]
    heads += ["perplexity: exact", *PROGRAMS.values()]
    lines = ["| file | " + " | ".join(heads) + " |", "|---|" + "---:|" * len(heads)]
    lines += [row(name, figures) for name, figures in results.items()]
    lines.append(
        f"\nOver {args.positions} positions, perplexity over {args.chunks} chunks; llama.cpp "
        f"{llama_cpp.llama_version().decode()} with the settings it comes with, caches of {args.kv.upper()}."
    )
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--positions", type=int, default=512, help=f"at most {CHUNK}")
    parser.add_argument("--chunks", type=int, default=20, help="of the text, for perplexity")
    parser.add_argument("--text", type=Path, help="another text for perplexity")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--kv", choices=CACHES, default="f16", help="type of both caches, where ours has a choice")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--write", action="store_true", help="put the table into docs/parity.md")
    args = parser.parse_args()

    llama_cpp.llama_log_set(_quiet, ctypes.c_void_p())
    llama_cpp.llama_backend_init()
    library = smallmind.Library(args.library)
    text = (args.text or alice()).read_text()
    results = {}
    for model in args.models:
        try:
            results[model.stem] = measure(args, library, model, text)
        except smallmind.Failure as failure:
            results[model.stem] = {"error": str(failure)}
        print(row(model.stem, results[model.stem]), flush=True)
    print("\n" + table(args, results))
    if args.json:
        args.json.write_text(json.dumps(results, indent=1) + "\n")
    if args.write:
        before, rest = PAGE.read_text().split(BEGIN)
        PAGE.write_text(before + BEGIN + table(args, results) + END + rest.split(END)[1])


if __name__ == "__main__":
    main()
