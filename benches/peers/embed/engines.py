"""The programs that are compared, as classes with one method: `run` takes batches of texts and returns their vectors.

A batch is a list of texts, a text a list of tokens. Arrays that a program wants are made once for each list of batches,
outside the time that is taken.
"""

import ctypes
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

HERE = Path(__file__).resolve().parent


def padded(batch, dtype=np.int64):
    """Ids and mask of a batch, each text filled up to the longest."""
    shape = len(batch), max(map(len, batch))
    ids, mask = np.zeros(shape, dtype), np.zeros(shape, dtype)
    for row, text in enumerate(batch):
        ids[row, : len(text)] = text
        mask[row, : len(text)] = 1
    return ids, mask


def halves(batch):
    """A batch in two parts, for two passes at once."""
    middle = (len(batch) + 1) // 2
    return [part for part in (batch[:middle], batch[middle:]) if part]


class Padding:
    """A program whose passes take padded batches; with "streams", a batch is halved for passes on a thread each."""

    def __init__(self, threads, streams=False, **settings):
        self.pool = ThreadPoolExecutor(threads) if streams else None
        self.engine(1 if streams else threads, **settings)

    def prepare(self, batches):
        return [[self.inputs(part) for part in (halves(batch) if self.pool else [batch])] for batch in batches]

    def run(self, prepared):
        results = []
        for parts in prepared:
            results += self.pool.map(self.forward, parts) if self.pool else [self.forward(parts[0])]
        return np.concatenate(results)

    def inputs(self, batch):
        ids, mask = padded(batch)
        return {"input_ids": ids, "attention_mask": mask}


class OnnxRuntime(Padding):
    def engine(self, threads, file, spinning=True):
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def forward(self, inputs):
        return self.session.run(None, inputs)[0]


class OpenVino(Padding):
    def engine(self, threads, file, precision="f32", hint="LATENCY"):
        import openvino

        count = threads * (self.pool._max_workers if self.pool else 1)
        config = {
            "INFERENCE_NUM_THREADS": count,
            "NUM_STREAMS": count if self.pool else 1,
            "INFERENCE_PRECISION_HINT": precision,
            "PERFORMANCE_HINT": hint,
        }
        self.model = openvino.Core().compile_model(file, "CPU", config)

    def inputs(self, batch):
        # A request for each part: two of them run at once.
        return self.model.create_infer_request(), super().inputs(batch)

    def forward(self, inputs):
        request, arrays = inputs
        return request.infer(arrays, share_inputs=True)[0]


class CTranslate2(Padding):
    def engine(self, threads, folder, compute="float32"):
        import ctranslate2

        workers = self.pool._max_workers if self.pool else 1
        self.encoder = ctranslate2.Encoder(
            folder, device="cpu", compute_type=compute, intra_threads=threads, inter_threads=workers
        )
        self.storage = ctranslate2.StorageView

    def inputs(self, batch):
        ids, mask = padded(batch, np.int32)
        weights = mask / mask.sum(1, keepdims=True)
        return self.storage.from_array(ids), self.storage.from_array(mask.sum(1, dtype=np.int32)), weights.astype(np.float32)

    def forward(self, inputs):
        ids, lengths, weights = inputs
        rows = np.asarray(self.encoder.forward_batch(ids, lengths).last_hidden_state)
        means = np.einsum("bt,btw->bw", weights, rows)
        return means / np.linalg.norm(means, axis=1, keepdims=True)


class LlamaCpp:
    """llama.cpp, many texts in a pass, which it doesn't pad; each pass computes attention over all of its tokens, so
    that passes of fewer texts may be faster."""

    TOKENS = 2048

    def __init__(self, threads, file, texts=32, flash=False, plain=False):
        import llama_cpp

        self.api, self.texts = llama_cpp, texts
        self.log = llama_cpp.llama_log_callback(lambda level, text, data: None)
        llama_cpp.llama_log_set(self.log, ctypes.c_void_p())
        llama_cpp.llama_backend_init()
        params = llama_cpp.llama_model_default_params()
        params.n_gpu_layers = 0
        params.use_extra_bufts = not plain
        self.model = llama_cpp.llama_model_load_from_file(str(file).encode(), params)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = self.TOKENS
        params.n_seq_max = texts
        params.kv_unified = True
        params.n_threads = params.n_threads_batch = threads
        params.embeddings = True
        params.flash_attn_type = int(flash)
        self.context = self.model and llama_cpp.llama_init_from_model(self.model, params)
        if not self.context:
            raise SystemExit(f"llama.cpp can't run {file}")
        self.width = llama_cpp.llama_model_n_embd(self.model)

    def batch(self, texts):
        """Tokens as llama.cpp takes them, and for how many texts."""
        batch, place = self.api.llama_batch_init(sum(map(len, texts)), 0, 1), 0
        for sequence, text in enumerate(texts):
            for position, token in enumerate(text):
                batch.token[place], batch.pos[place], batch.logits[place] = token, position, 1
                batch.n_seq_id[place], batch.seq_id[place][0] = 1, sequence
                place += 1
        batch.n_tokens = place
        return batch, len(texts)

    def prepare(self, batches):
        parts = []
        for batch in batches:
            parts.append([])
            for text in batch:
                if len(parts[-1]) == self.texts or sum(map(len, parts[-1])) + len(text) > self.TOKENS:
                    parts.append([])
                parts[-1].append(text)
        return [self.batch(part) for part in parts]

    def run(self, prepared):
        rows = []
        for batch, count in prepared:
            if self.api.llama_get_memory(self.context):
                self.api.llama_memory_clear(self.api.llama_get_memory(self.context), False)
            if self.api.llama_decode(self.context, batch) != 0:
                raise SystemExit("llama_decode failed")
            for sequence in range(count):
                vector = self.api.llama_get_embeddings_seq(self.context, sequence)
                rows.append(np.ctypeslib.as_array(vector, (self.width,)).copy())
        rows = np.stack(rows)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


class Smallmind:
    """smallmind through its C ABI."""

    STRATEGIES = {"auto": 0, "fine": 1, "coarse": 2}

    def __init__(self, threads, library, file, activations=None, strategy="auto"):
        sys.path.append(str(HERE.parent / "llama_cpp"))
        import smallmind

        self.library = smallmind.Library(library)
        params = smallmind.activations(activations) if activations else {}
        self.model = smallmind.Model(self.library, file, **params)
        self.embedder = ctypes.c_void_p()
        params = self.library.params("embedder", n_threads=threads, strategy=self.STRATEGIES[strategy])
        self.library.call("sm_embedder_create", self.model.handle, ctypes.byref(params), ctypes.byref(self.embedder))
        width = ctypes.c_size_t()
        self.library.call("sm_embedder_width", self.embedder, ctypes.byref(width))
        self.width = width.value

    def prepare(self, batches):
        prepared = []
        for batch in batches:
            texts = [(ctypes.c_uint32 * len(text))(*text) for text in batch]
            spans = (ctypes.POINTER(ctypes.c_uint32) * len(batch))(*texts)
            lengths = (ctypes.c_size_t * len(batch))(*map(len, batch))
            rows = np.empty((len(batch), self.width), np.float32)
            prepared.append((spans, lengths, rows))
        return prepared

    def run(self, prepared):
        size = ctypes.c_size_t
        for spans, lengths, rows in prepared:
            out = rows.ctypes.data_as(ctypes.c_void_p)
            arguments = [self.embedder, spans, lengths, size(len(rows)), out, size(self.width), None, None, size(0)]
            self.library.call("sm_embedder_embed_tokens", *arguments)
        return np.concatenate([rows for _, _, rows in prepared])


CLASSES = {
    "onnxruntime": OnnxRuntime,
    "openvino": OpenVino,
    "ctranslate2": CTranslate2,
    "llama_cpp": LlamaCpp,
    "smallmind": Smallmind,
}


def make(kind, threads, settings):
    """The program of this kind; settings of the environment must have been made before it is loaded."""
    return CLASSES[kind](threads, **{name: value for name, value in settings.items() if name != "environment"})


def environment(settings):
    """What a process of these settings has around it."""
    return os.environ | {key: str(value) for key, value in settings.get("environment", {}).items()}
