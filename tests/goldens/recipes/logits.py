"""Makes gguf/*.logits.bin: llama.cpp's logits on the tiny models of gguf/.

Made with llama-cpp-python 0.3.36 (llama.cpp 0.5.0-dev) and numpy 2.4.6, weights
widened to f32; for untied-mixed also as it is, in untied-mixed-8bit.logits.bin.
Layout in ../README.md.
"""

import struct
from pathlib import Path

import numpy as np
from oracle import Context, Model, widened

FOLDER = Path(__file__).parent.parent / "gguf"
POSITIONS = 40


def golden(path, name):
    """The bytes of a golden: tokens, among them a repeated and a control token, and logits."""
    model = Model(path)
    tokens = np.random.default_rng(4).integers(0, model.n_vocab, POSITIONS)
    tokens[:4] = [1, 70, 70, 2]
    logits = Context(model, n_ctx=128).logits(tokens.tolist())
    one = Context(model, n_ctx=128, batch=1).logits(tokens.tolist())
    print(f"{name}: largest logit {abs(logits).max():.2f}, batch of 1 within {abs(one - logits).max():.1e}")
    header = struct.pack("<4s3I", b"SMLG", 1, POSITIONS, model.n_vocab)
    return header + tokens.astype("<u4").tobytes() + logits.astype("<f4").tobytes()


if __name__ == "__main__":
    llamas = "untied-mixed", "tied-rope-freqs", "untied-linear-rope", "untied-every-quant"
    gpts = "gpt-untied", "gpt-tied-quant"
    qwens = "qwen2-tied", "qwen2-quant", "qwen3-untied", "qwen3-tied-quant"
    for name in *llamas, *gpts, *qwens:
        with widened(FOLDER / f"{name}.gguf") as copy:
            FOLDER.joinpath(f"{name}.logits.bin").write_bytes(golden(copy, name))
    rounded = golden(FOLDER / "untied-mixed.gguf", "untied-mixed, 8-bit")
    FOLDER.joinpath("untied-mixed-8bit.logits.bin").write_bytes(rounded)
