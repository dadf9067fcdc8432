"""Compares vectors of texts with llama.cpp's on the same weights in F32, and prints a table of cosines.

usage: cosine.py LIBRARY MODEL... [--tokens N...] [--threads T]

A text of N tokens for each N; ours with the activations that encoders have by default, and with 16 and 8 bits.
"""

import argparse
import ctypes
from pathlib import Path

import llama_cpp
import numpy as np
import smallmind
from accuracy import widened

# SM_TEXT_DONE of the header.
DONE = 1
TOKENS = [1, 7, 300, 600, 2048]
KINDS = {"default": {}, "16 bits": {"activation_bits": 16}, "8 bits": {"activation_bits": 8}}
_quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)


def text(count):
    """Tokens that lie all over a vocabulary."""
    return [100 + n * 7919 % 29000 for n in range(count)]


def ours(library, path, lengths, threads, **params):
    """A row for each length."""
    model, handle = smallmind.Model(library, path, **params), ctypes.c_void_p()
    size = library.params("embedder", n_ctx=max(lengths), n_threads=threads)
    library.call("sm_embedder_create", model.handle, ctypes.byref(size), ctypes.byref(handle))
    width = ctypes.c_size_t()
    library.call("sm_embedder_width", handle, ctypes.byref(width))
    spans = [(ctypes.c_uint32 * count)(*text(count)) for count in lengths]
    pointers = (ctypes.POINTER(ctypes.c_uint32) * len(spans))(*spans)
    counts = (ctypes.c_size_t * len(spans))(*lengths)
    rows = np.zeros((len(spans), width.value), np.float32)
    statuses = (ctypes.c_int32 * len(spans))()
    out = rows.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    sizes = [ctypes.c_size_t(n) for n in (len(spans), width.value, 0)]
    library.call("sm_embedder_embed_tokens", handle, pointers, counts, sizes[0], out, sizes[1], statuses, None, sizes[2])
    assert set(statuses) == {DONE}, f"statuses {list(statuses)}"
    library.call("sm_embedder_free", handle)
    return rows


def theirs(path, lengths, threads):
    """A row for each length, pooled as the file says."""
    params = llama_cpp.llama_model_default_params()
    model = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
    if not model:
        raise SystemExit(f"llama.cpp can't load {path}")
    rows = []
    for count in lengths:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = count
        params.n_threads = params.n_threads_batch = threads
        params.embeddings, params.type_k, params.type_v = True, 0, 0
        context = llama_cpp.llama_init_from_model(model, params)
        # The batch points into them.
        ids = (llama_cpp.llama_token * count)(*text(count))
        batch = llama_cpp.llama_batch_get_one(ids, count)
        assert llama_cpp.llama_encode(context, batch) == 0
        vector = llama_cpp.llama_get_embeddings_seq(context, 0)
        rows.append(np.ctypeslib.as_array(vector, (llama_cpp.llama_model_n_embd(model),)).copy())
        llama_cpp.llama_free(context)
    llama_cpp.llama_model_free(model)
    return np.array(rows)


def cosines(a, b):
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("library")
    parser.add_argument("models", nargs="+", type=Path, metavar="MODEL")
    parser.add_argument("--tokens", type=int, nargs="+", default=TOKENS)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    llama_cpp.llama_log_set(_quiet, ctypes.c_void_p())
    llama_cpp.llama_backend_init()
    library = smallmind.Library(args.library)
    print("| file | activations | " + " | ".join(f"{count} tokens" for count in args.tokens) + " |")
    print("|---|---|" + "---:|" * len(args.tokens))
    for model in args.models:
        with widened(model) as copy:
            exact = theirs(copy, args.tokens, args.threads)
        for kind, params in KINDS.items():
            rows = cosines(ours(library, model, args.tokens, args.threads, **params), exact)
            print(f"| {model.stem} | {kind} | " + " | ".join(f"{x:.6f}" for x in rows) + " |", flush=True)


if __name__ == "__main__":
    main()
