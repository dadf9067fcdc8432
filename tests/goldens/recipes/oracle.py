"""llama.cpp through the low-level calls of llama-cpp-python, shared by the recipes.

One context takes tokens in batches and gives every position's logits. The
defaults are the settings that goldens are made with: the plain CPU kernels, f32
keys and values, no flash attention, one thread.
"""

import contextlib
import ctypes
import tempfile
from pathlib import Path

import llama_cpp
import numpy as np

F32, F16 = 0, 1
# Silence the loader's log; the callback must outlive every call.
_quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)
llama_cpp.llama_log_set(_quiet, ctypes.c_void_p())
llama_cpp.llama_backend_init()

VERSIONS = {"llama-cpp-python": llama_cpp.__version__, "numpy": np.__version__}


class Model:
    """`repacked`: let llama.cpp rearrange weights for its faster kernels (and AMX)."""

    def __init__(self, path, repacked=False):
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        params.use_extra_bufts = repacked
        self.handle = llama_cpp.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle:
            raise SystemExit(f"llama.cpp can't load {path}")
        self.vocab = llama_cpp.llama_model_get_vocab(self.handle)
        self.n_vocab = llama_cpp.llama_vocab_n_tokens(self.vocab)

    def tokenize(self, text, special=False, bos=True):
        """Ids of `text` (str or bytes); `bos`: put BOS first if the model says so."""
        data = text.encode() if isinstance(text, str) else text
        ids = (llama_cpp.llama_token * (len(data) + 8))()
        count = llama_cpp.llama_tokenize(self.vocab, data, len(data), ids, len(ids), bos, special)
        assert count >= 0, "more tokens than bytes"
        return list(ids[:count])

    def detokenize(self, ids, special=True):
        """The bytes of `ids`; `special`: write control tokens out too."""
        array = (llama_cpp.llama_token * max(1, len(ids)))(*ids)
        size = 64 + 256 * len(ids)
        text = ctypes.create_string_buffer(size)
        count = llama_cpp.llama_detokenize(self.vocab, array, len(ids), text, size, False, special)
        assert count >= 0, "a token longer than 256 bytes"
        return text.raw[:count]

    def __del__(self):
        llama_cpp.llama_model_free(self.handle)


class Context:
    """A context over `model` and its cache. `batch`: most tokens decoded at once."""

    def __init__(self, model, n_ctx=1024, batch=512, threads=1, kv=F32, flash=False):
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = n_ctx
        params.n_batch = params.n_ubatch = batch
        params.n_threads = params.n_threads_batch = threads
        params.type_k = params.type_v = kv
        params.flash_attn_type = int(flash)
        params.n_outputs_max = batch
        params.no_perf = True
        self.model, self.size, self.past = model, batch, 0
        self.handle = llama_cpp.llama_init_from_model(model.handle, params)
        if not self.handle:
            raise SystemExit("llama.cpp can't make a context")
        self.batch = llama_cpp.llama_batch_init(batch, 0, 1)

    def clear(self):
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.handle), True)
        self.past = 0

    def feed(self, tokens, every=True):
        """Decode one batch; with `every`, all positions give logits, else the last."""
        self.batch.n_tokens = len(tokens)
        for n, token in enumerate(tokens):
            self.batch.token[n] = token
            self.batch.pos[n] = self.past + n
            self.batch.n_seq_id[n] = 1
            self.batch.seq_id[n][0] = 0
            self.batch.logits[n] = every or n == len(tokens) - 1
        status = llama_cpp.llama_decode(self.handle, self.batch)
        assert status == 0, f"llama_decode gave {status}"
        self.past += len(tokens)

    def logits(self, tokens):
        """The logits after each of `tokens`, f32, a row a position."""
        rows = np.empty((len(tokens), self.model.n_vocab), np.float32)
        for start in range(0, len(tokens), self.size):
            piece = tokens[start : start + self.size]
            self.feed(piece)
            for n in range(len(piece)):
                row = llama_cpp.llama_get_logits_ith(self.handle, n)
                rows[start + n] = np.ctypeslib.as_array(row, (self.model.n_vocab,))
        return rows

    def __del__(self):
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.handle)


@contextlib.contextmanager
def widened(path):
    """A temporary copy of the model at `path` with every weight decoded to f32.

    llama.cpp rounds activations to 8 bits before it multiplies them with
    quantised weights; with f32 weights it doesn't, so this is the same model
    without the oracle's own rounding.
    """
    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = 0  # all f32
    params.allow_requantize = True
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "widened.gguf"
        status = llama_cpp.llama_model_quantize(
            str(path).encode(), str(copy).encode(), ctypes.byref(params)
        )
        assert status == 0, f"llama_model_quantize gave {status}"
        yield copy


def log_softmax(logits):
    """Natural-log probabilities in f64, along the last axis."""
    wide = logits.astype(np.float64)
    wide -= wide.max(axis=-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(axis=-1, keepdims=True))


def divergence(p, q):
    """Mean Kullback-Leibler divergence of q from p in nats, and top-1 agreement."""
    p, q = log_softmax(p), log_softmax(q)
    mean = (np.exp(p) * (p - q)).sum(axis=-1).mean()
    return mean, (p.argmax(axis=-1) == q.argmax(axis=-1)).mean()
