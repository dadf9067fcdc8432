"""Makes adapters/NAME.bin: llama.cpp's logits on tiny models of gguf/ with low-rank adapters (LoRA).

Adapters follow from names, so that tests can make them again: see `adapter`. But adapters/trained.gguf is smallmind's,
trained with

    smallmind train -m ../gguf/untied-mixed.gguf ../parity.txt --out ../adapters/trained.gguf --context 32 --steps 40 \\
        --lr 0.05 --lora-rank 1 --lora-targets attn_q,attn_v,ffn_down

and trained.bin has llama.cpp's logits with it. Made with llama-cpp-python 0.3.36 (llama.cpp 0.5.0-dev), gguf 0.19.0 and
numpy 2.4.6, quantised weights widened to f32. Layout in ../README.md.
"""

import contextlib
import ctypes
import re
import struct
import tempfile
from pathlib import Path

import llama_cpp
import numpy as np
from families import uniform
from gguf import GGUFReader, GGUFWriter
from oracle import Context, Model, widened

GGUF = Path(__file__).parent.parent / "gguf"
FOLDER = Path(__file__).parent.parent / "adapters"
POSITIONS = 24
ROWS = [0, 7, 23]
# Name, rank, alpha, targets, scale. An alpha of 0 counts as the rank. In f32, since llama.cpp rounds what it multiplies
# with f16.
ADAPTERS = [
    ("first", 4, 8.0, r"blk\.\d+\.(attn|ffn)_[a-z]+\.weight|output\.weight", 0.75),
    ("second", 3, 0.0, r"blk\.0\.(attn_v|attn_qkv|ffn_up)\.weight", -1.5),
]


def tokens(n_vocab):
    return [(37 * i + 11 * i * i + 5) % n_vocab for i in range(POSITIONS)]


def adapter(base, path, name, rank, alpha, targets):
    """Writes an adapter: A is uniform within ±√(3 / inputs), B within ±1 / (2 √rank)."""
    reader = GGUFReader(base)
    writer = GGUFWriter(path, reader.get_field("general.architecture").contents())
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", alpha)
    for tensor in reader.tensors:
        dims = [int(dim) for dim in tensor.shape]
        if len(dims) != 2 or "norm" in tensor.name or not re.fullmatch(targets, tensor.name):
            continue
        k, n = dims
        for end, shape, bound in ("a", (rank, k), (3 / k) ** 0.5), ("b", (n, rank), 0.5 / rank**0.5):
            values = np.float32(bound) * uniform(f"{name} {tensor.name}.lora_{end}", rank * shape[end == "a"])
            writer.add_tensor(f"{tensor.name}.lora_{end}", values.reshape(shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@contextlib.contextmanager
def adapted(base, files):
    """A model and a context with adapters, each a file and a scale."""
    model = Model(base)
    context = Context(model, n_ctx=128)
    loaded = [llama_cpp.llama_adapter_lora_init(model.handle, str(path).encode()) for path, _ in files]
    assert all(loaded), "llama.cpp can't load an adapter"
    handles = (llama_cpp.llama_adapter_lora_p_ctypes * len(files))(*loaded)
    scales = (ctypes.c_float * len(files))(*(scale for _, scale in files))
    assert llama_cpp.llama_set_adapters_lora(context.handle, handles, len(files), scales) == 0
    yield model, context


def golden(base, files):
    with adapted(base, files) as (model, context):
        ids = tokens(model.n_vocab)
        logits = context.logits(ids)
        plain = Context(model, n_ctx=128).logits(ids)
        print(f"adapters move logits by {abs(logits - plain).max():.2f} of {abs(plain).max():.2f}")
        head = struct.pack("<4s4I", b"SMLR", 1, POSITIONS, len(ROWS), model.n_vocab)
        return head + struct.pack(f"<{len(ROWS)}I", *ROWS) + logits[ROWS].astype("<f4").tobytes()


def made(base, folder):
    """The adapters that follow from names, as files with scales."""
    for name, rank, alpha, targets, scale in ADAPTERS:
        path = Path(folder) / f"{name}.gguf"
        adapter(base, path, name, rank, alpha, targets)
        yield path, scale


if __name__ == "__main__":
    for name in "qwen3-untied", "untied-mixed":
        with widened(GGUF / f"{name}.gguf") as copy, tempfile.TemporaryDirectory() as folder:
            FOLDER.joinpath(f"{name}.bin").write_bytes(golden(copy, list(made(copy, folder))))
    with widened(GGUF / "untied-mixed.gguf") as copy:
        trained = golden(copy, [(FOLDER / "trained.gguf", 1.0)])
        FOLDER.joinpath("trained.bin").write_bytes(trained)
