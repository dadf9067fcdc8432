"""Makes parity.bin and parity-8bit.bin: llama.cpp's next-token distributions over parity.txt.

Made with llama-cpp-python 0.3.36 (llama.cpp 0.5.0-dev) and numpy 2.4.6, one thread.
parity.bin: the model's weights widened to f32, so that nothing is rounded to 8
bits; parity-8bit.bin: the model as it is. Layout in ../README.md.

usage: parity.py MODEL [--floor]

--floor: print how far llama.cpp's own variants are from each other (slow).
"""

import struct
import sys
from pathlib import Path

import numpy as np
from oracle import F16, Context, Model, divergence, log_softmax, widened

FOLDER = Path(__file__).parent.parent
POSITIONS, TOP = 512, 64


def golden(tokens, logits):
    """The bytes of a golden: tokens, then each position's best and the rest's mass."""
    logp = log_softmax(logits)
    best = np.argsort(-logp, axis=-1, kind="stable")[:, :TOP]
    top = np.take_along_axis(logp, best, axis=-1)
    others = np.exp(logp)
    np.put_along_axis(others, best, 0, axis=-1)
    rest = np.log(others.sum(axis=-1))
    header = struct.pack("<4s4I", b"SMPD", 1, POSITIONS, TOP, logits.shape[-1])
    arrays = [np.array(tokens, "<u4"), best.astype("<u2"), top.astype("<f4"), rest.astype("<f4")]
    return header + b"".join(array.tobytes() for array in arrays)


def variants(model, tokens, reference):
    """Print each variant's divergence from `reference`, the logits of the default."""
    for name, settings in {
        "batches of 64": {"batch": 64},
        "batches of 1": {"batch": 1},
        "2 threads": {"threads": 2},
        "f16 cache": {"kv": F16},
        "flash attention": {"flash": True},
        "f16 cache, flash attention": {"kv": F16, "flash": True},
    }.items():
        kl, agree = divergence(reference, Context(model, **settings).logits(tokens))
        print(f"  {name}: KL {kl:.1e}, top-1 {agree:.2%}", flush=True)


def main(path, floor=False):
    model = Model(path)
    tokens = model.tokenize(FOLDER.joinpath("parity.txt").read_text())[: POSITIONS + 1]
    assert len(tokens) == POSITIONS + 1, "the text is too short"
    rounded = Context(model).logits(tokens[:-1])
    FOLDER.joinpath("parity-8bit.bin").write_bytes(golden(tokens, rounded))
    if floor:
        print("as it is:")
        variants(model, tokens[:-1], rounded)
    with widened(path) as copy:
        model = Model(copy)
        exact = Context(model).logits(tokens[:-1])
        FOLDER.joinpath("parity.bin").write_bytes(golden(tokens, exact))
        if floor:
            print("widened:")
            variants(model, tokens[:-1], exact)
    kl, agree = divergence(exact, rounded)
    loss = -log_softmax(exact)[np.arange(POSITIONS), tokens[1:]].mean()
    print(f"as it is, from widened: KL {kl:.1e}, top-1 {agree:.2%}; perplexity {np.exp(loss):.3f}")


if __name__ == "__main__":
    main(sys.argv[1], "--floor" in sys.argv[2:])
