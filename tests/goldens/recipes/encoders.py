"""Makes families/NAME.json and families/NAME.logits.bin of encoders: a small random model and llama.cpp's hidden rows.

usage: encoders.py PROGRAM [NAME...]
       encoders.py PROGRAM --compare OURS [NAME...]

llama.cpp's suite of architectures has no encoders, so their keys and tensors are written here. PROGRAM is
benches/peers/llama_cpp_archs's logits, OURS examples/logits; `--compare` writes no golden, but shows the difference
between both at several lengths. Files are otherwise those of families.py.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np

from families import FOLDER, write_golden, write_model

TOKENS = 90
# Around the first tokens, the edges of windows of 32 (16 on both sides) and of the text.
ROWS = [0, 1, 15, 16, 17, 33, 45, 73, 89]
LENGTHS = [1, 7, 40, 90]
WIDTH, HEADS, INNER, VOCABULARY, CONTEXT, LAYERS = 64, 4, 96, 128, 128, 3
HEAD = WIDTH // HEADS
EVERY = list(range(LAYERS))
EXPERTS = 4


def tensor(name, *dims, middle=0.0, half=None, layers=None):
    """A line of `tensors`: products keep the size of what goes into them."""
    half = float(str(np.float32((3 / dims[0]) ** 0.5))) if half is None else half
    layers = (EVERY if layers is None else layers) if name.startswith("blk.") else []
    return [name, list(dims), middle, half, layers]


def gain(name, width=WIDTH, layers=None):
    return tensor(f"{name}.weight", width, middle=1.0, half=0.25, layers=layers)


def bias(name, width=WIDTH, layers=None):
    return tensor(f"{name}.bias", width, half=0.1, layers=layers)


def norm(name, width=WIDTH):
    """A LayerNorm."""
    return [gain(name, width), bias(name, width)]


def linear(name, k, n, biased=True, layers=None):
    weight = tensor(f"{name}.weight", k, n, layers=layers)
    return [weight, bias(name, n, layers)] if biased else [weight]


def embedding():
    return [tensor("token_embd.weight", WIDTH, VOCABULARY, half=1.0)]


def projections(biased, kv=WIDTH):
    widths = {"q": WIDTH, "k": kv, "v": kv}
    return [line for part, n in widths.items() for line in linear(f"blk.*.attn_{part}", WIDTH, n, biased)] + linear(
        "blk.*.attn_output", WIDTH, WIDTH, biased
    )


def keys(**others):
    pairs = {
        ".context_length": ("uint32", CONTEXT),
        ".embedding_length": ("uint32", WIDTH),
        ".block_count": ("uint32", LAYERS),
        ".feed_forward_length": ("uint32", INNER),
        ".attention.head_count": ("uint32", HEADS),
        ".attention.causal": ("bool", False),
    }
    pairs |= others
    return [[key, *pair] for key, pair in pairs.items() if pair is not None]


LAYER_EPS = {".attention.layer_norm_epsilon": ("float32", 1e-5)}
RMS_EPS = {".attention.layer_norm_rms_epsilon": ("float32", 1e-5)}
TYPES = {"tokenizer.ggml.token_type_count": ("uint32", 2)}
ROPE = {".rope.freq_base": ("float32", 10000.0)}


def model(architecture, metadata, tensors):
    return {"architecture": architecture, "without": ["*"], "metadata": metadata, "tensors": tensors}


def bert_like(architecture, attention, inner, others, positions=False, extra=()):
    """Norms behind the sums, a type of tokens."""
    tensors = embedding() + [tensor("token_types.weight", WIDTH, 2, half=1.0)]
    tensors += [tensor("position_embd.weight", WIDTH, CONTEXT, half=1.0)] if positions else []
    tensors += norm("token_embd_norm") + attention + norm("blk.*.attn_output_norm") + list(extra)
    tensors += inner + norm("blk.*.layer_output_norm")
    return model(architecture, keys(**LAYER_EPS, **TYPES, **others), tensors)


def plain(layers=None):
    return linear("blk.*.ffn_up", WIDTH, INNER, layers=layers) + linear("blk.*.ffn_down", INNER, WIDTH, layers=layers)


def gated(biased=False):
    up = linear("blk.*.ffn_gate", WIDTH, INNER, False) + linear("blk.*.ffn_up", WIDTH, INNER, False)
    return up + linear("blk.*.ffn_down", INNER, WIDTH, biased)


def fused_qkv(biased):
    return linear("blk.*.attn_qkv", WIDTH, 3 * WIDTH, biased) + linear("blk.*.attn_output", WIDTH, WIDTH, biased)


def mixture():
    """Experts in the second layer."""
    odd = [1]
    experts = [
        tensor("blk.*.ffn_gate_inp.weight", WIDTH, EXPERTS, layers=odd),
        tensor("blk.*.ffn_up_exps.weight", WIDTH, INNER, EXPERTS, layers=odd),
        tensor("blk.*.ffn_down_exps.weight", INNER, WIDTH, EXPERTS, layers=odd),
    ]
    counts = {".expert_count": ("uint32", EXPERTS), ".expert_used_count": ("uint32", 2)}
    others = ROPE | counts | {".moe_every_n_layers": ("uint32", 2)}
    inner = plain([0, 2]) + experts
    return bert_like("nomic-bert-moe", fused_qkv(True), inner, others)


def jina(name):
    """The three MLPs of jina-bert-v2: gate and up in two matrices, in one, and neither."""
    extra = norm("blk.*.attn_q_norm") + norm("blk.*.attn_k_norm") + norm("blk.*.attn_norm_2")
    if name == "jina-bert-v2":
        return bert_like("jina-bert-v2", projections(True), gated(True), {})
    if name == "jina-bert-v2-fused":
        up = linear("blk.*.ffn_up", WIDTH, 2 * INNER, False) + linear("blk.*.ffn_down", INNER, WIDTH)
        return bert_like("jina-bert-v2", projections(True), up, {}, extra=extra)
    return bert_like("jina-bert-v2", projections(True), plain(), {})


def normed(architecture, attention, inner, metadata, gains, first=None):
    """Norms before attention and MLP; `first` are the layers that have one before attention."""
    tensors = embedding() + [gain(name) for name in gains] + [gain("blk.*.attn_norm", layers=first)]
    return model(architecture, metadata, tensors + attention + [gain("blk.*.ffn_norm")] + inner)


def fused_gate():
    return linear("blk.*.ffn_up", WIDTH, 2 * INNER, False) + linear("blk.*.ffn_down", INNER, WIDTH, False)


def modern(activation, pattern):
    others = LAYER_EPS | {
        ".attention.sliding_window": ("uint32", 32),
        ".attention.sliding_window_pattern": pattern,
        ".rope.freq_base": ("float32", 160000.0),
        ".rope.scaling.type": ("string", "none"),
        ".hidden_activation": activation,
    }
    gains = ["token_embd_norm", "output_norm"]
    return normed("modern-bert", fused_qkv(False), fused_gate(), keys(**others), gains, first=[1, 2])


def gemma():
    others = RMS_EPS | {
        ".attention.head_count_kv": ("uint32", 2),
        ".attention.key_length": ("uint32", 32),
        ".attention.value_length": ("uint32", 32),
        ".attention.sliding_window": ("uint32", 32),
        ".attention.sliding_window_pattern": ("bool[3]", [True, False, True]),
        ".rope.freq_base": ("float32", 1000000.0),
    }
    q, kv = HEADS * 32, 2 * 32
    tensors = embedding() + [gain("output_norm"), gain("blk.*.attn_norm")]
    for part, n in {"q": q, "k": kv, "v": kv}.items():
        tensors += linear(f"blk.*.attn_{part}", WIDTH, n, False)
    tensors += linear("blk.*.attn_output", q, WIDTH, False)
    tensors += [gain(f"blk.*.attn_{part}_norm", 32) for part in "qk"]
    tensors += [gain(f"blk.*.{name}") for name in ("post_attention_norm", "ffn_norm", "post_ffw_norm")] + gated()
    return model("gemma-embedding", keys(**others), tensors)


GROUPED = {".attention.head_count_kv": ("uint32", 2), ".rope.dimension_count": ("uint32", HEAD)}
KV = 2 * HEAD
MODELS = {
    "bert": bert_like("bert", projections(True), plain(), {}, positions=True),
    "nomic-bert": bert_like("nomic-bert", fused_qkv(False), gated(), {".rope.freq_base": ("float32", 1000.0)}),
    "nomic-bert-moe": mixture(),
    "jina-bert-v2": jina("jina-bert-v2"),
    "jina-bert-v2-fused": jina("jina-bert-v2-fused"),
    "jina-bert-v2-plain": jina("jina-bert-v2-plain"),
    "jina-bert-v3": bert_like("jina-bert-v3", fused_qkv(True), plain(), ROPE),
    "modern-bert": modern(None, None),
    "modern-bert-silu": modern(("string", "silu"), ("uint32", 2)),
    "neo-bert": normed(
        "neo-bert", fused_qkv(False), fused_gate(), keys(**RMS_EPS, **ROPE), ["enc.output_norm"]
    ),
    "eurobert": normed(
        "eurobert", projections(False, KV), gated(), keys(**RMS_EPS, **ROPE, **GROUPED), ["output_norm"]
    ),
    "llama-embed": normed(
        "llama-embed", projections(False, KV), gated(), keys(**RMS_EPS, **ROPE, **GROUPED), ["output_norm"]
    ),
    "gemma-embedding": gemma(),
}


def pooled(golden, kind, metadata=(), tensors=()):
    """The model with a pooling, and with what comes behind it."""
    golden = MODELS[golden] if isinstance(golden, str) else golden
    pairs = golden["metadata"] + [[".pooling_type", "uint32", kind], *metadata]
    return golden | {"metadata": pairs, "tensors": golden["tensors"] + list(tensors)}


def labels(n):
    return [[".classifier.output_labels", f"string[{n}]", [f"label {i}" for i in range(n)]]]


def qwen3():
    others = RMS_EPS | ROPE | {".attention.causal": None, ".attention.head_count_kv": ("uint32", 2)}
    attention = projections(False, KV) + [gain(f"blk.*.attn_{part}_norm", HEAD) for part in "qk"]
    return normed("qwen3", attention, gated(), keys(**others), ["output_norm"])


DENSE_KEYS = [
    [".dense_2_feat_in", "uint32", WIDTH],
    [".dense_2_feat_out", "uint32", INNER],
    [".dense_3_feat_in", "uint32", INNER],
    [".dense_3_feat_out", "uint32", WIDTH],
]
DENSE = linear("dense_2", WIDTH, INNER, False) + linear("dense_3", INNER, WIDTH, False)
MODELS |= {
    "bert-mean": pooled("bert", 1),
    "bert-cls": pooled("bert", 2),
    "bert-last": pooled("bert", 3),
    "bert-rank": pooled("bert", 4, labels(3), linear("cls", WIDTH, WIDTH) + linear("cls.output", WIDTH, 3)),
    "bert-rank-direct": pooled("bert", 4, (), linear("cls.output", WIDTH, 1)),
    "jina-bert-v2-rank": pooled("jina-bert-v2", 4, (), linear("cls", WIDTH, 1)),
    "modern-bert-rank": pooled(
        "modern-bert",
        4,
        labels(2),
        linear("cls", WIDTH, WIDTH, False) + [gain("cls.norm")] + linear("cls.output", WIDTH, 2),
    ),
    "modern-bert-rank-first": pooled(
        "modern-bert",
        4,
        labels(8) + [[".classifier.pooling_type", "uint32", 2]],
        linear("cls", WIDTH, WIDTH, False) + linear("cls.output", WIDTH, 8),
    ),
    "qwen3-last": pooled(qwen3(), 3),
    "qwen3-rank": pooled(qwen3(), 4, labels(2), linear("cls.output", WIDTH, 2, False)),
    "gemma-embedding-dense": pooled("gemma-embedding", 1, DENSE_KEYS, DENSE),
}


def is_pooled(golden):
    return any(key == ".pooling_type" for key, *_ in golden["metadata"])


def rows(program, path, tokens, golden):
    """Hidden rows of all tokens, in one batch, or the row that pooling makes of them."""
    what, count = ("--pooled", 1) if is_pooled(golden) else ("--embeddings", tokens)
    with tempfile.NamedTemporaryFile() as out:
        subprocess.run([program, path, out.name, str(tokens), what], check=True)
        hidden = np.fromfile(out.name, "<f4").reshape(count, -1)
    assert np.isfinite(hidden).all()
    return hidden


def compare(program, ours, path, golden):
    """Normalised mean square errors at several lengths."""
    errors = []
    for tokens in LENGTHS:
        a, b = (rows(p, path, tokens, golden).astype(np.float64) for p in (program, ours))
        errors.append(((a - b) ** 2).sum() / (a**2).sum())
    return errors


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--compare", type=Path, metavar="OURS")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="keep the models here")
    args = parser.parse_args()
    for name in args.names or MODELS:
        golden = MODELS[name]
        with tempfile.TemporaryDirectory() as folder:
            path = Path(args.keep or folder) / f"{name}.gguf"
            write_model(golden, path)
            try:
                if args.compare:
                    errors = compare(args.program, args.compare, path, golden)
                    print(f"{name:20}", *(f"{error:.1e}" for error in errors), "" if max(errors) < 1e-6 else "DIFFERS")
                    continue
                hidden = rows(args.program, path, TOKENS, golden)
            except subprocess.CalledProcessError as error:
                print(f"{name:20} {error}")
                continue
        places = [0] if is_pooled(golden) else ROWS
        write_golden(name, golden, TOKENS, places, hidden)
        print(f"{name}: rows of {hidden.std():.2f}, at most {abs(hidden).max():.2f}")


if __name__ == "__main__":
    main()
