"""Writes a model with random weights in the shape of bge-base-en: bge.py OUTPUT [TYPE]. It has no vocabulary."""

import sys
from pathlib import Path

import numpy as np
from gguf import PoolingType

sys.path.append(str(Path(__file__).resolve().parent.parent / "llama_cpp"))
from shapes import Writer

LAYERS, WIDTH, HIDDEN, HEADS, CONTEXT, VOCABULARY = 12, 768, 3072, 12, 512, 30522


def main():
    w = Writer(sys.argv[1], "bert", *(sys.argv[2:] or ["Q8_0"]), LAYERS, WIDTH, HIDDEN, HEADS, HEADS, WIDTH // HEADS, CONTEXT)
    w.file.add_layer_norm_eps(1e-12)
    w.file.add_causal_attention(False)
    w.file.add_pooling_type(PoolingType.CLS)
    w.file.add_token_type_count(2)

    def table(name, rows):
        w.file.add_tensor(f"{name}.weight", w.rng.normal(0, 0.02, (rows, WIDTH)).astype(np.float32))

    def bias(name, size):
        w.file.add_tensor(f"{name}.bias", w.rng.normal(0, 0.02, size).astype(np.float32))

    def norm(name):
        w.norm(name, WIDTH)
        bias(name, WIDTH)

    w.vocabulary(VOCABULARY)
    table("position_embd", CONTEXT)
    table("token_types", 2)
    norm("token_embd_norm")
    for n in range(LAYERS):
        for name, rows, columns in (
            *((f"attn_{part}", WIDTH, WIDTH) for part in ("q", "k", "v", "output")),
            ("ffn_up", HIDDEN, WIDTH),
            ("ffn_down", WIDTH, HIDDEN),
        ):
            w.matrix(f"blk.{n}.{name}", rows, columns)
            bias(f"blk.{n}.{name}", rows)
        norm(f"blk.{n}.attn_output_norm")
        norm(f"blk.{n}.layer_output_norm")
    w.close()


if __name__ == "__main__":
    main()
