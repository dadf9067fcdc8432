"""Makes quantize.bin: blocks of floats, and what the gguf package encodes them to.

Made with gguf 0.19.0 and numpy 2.4.6. Layout in ../README.md.
"""

import struct
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.quants import quantize

KINDS = [Type.F16, Type.BF16, Type.Q4_0, Type.Q4_1, Type.Q5_0, Type.Q5_1, Type.Q8_0]
KINDS += [Type.MXFP4, Type.TQ1_0, Type.TQ2_0]


def inputs(rng):
    """Rows of 32: random at many scales, and those whose scale, sign or rounding is a special case.

    The first rows have one scale for each eight, which are a block of 256.
    """
    scales = np.concatenate([10.0 ** rng.uniform(-5, 4, (8, 1)).repeat(8, 0), 10.0 ** rng.uniform(-5, 4, (17, 1))])
    rows = [rng.normal(0, 1, (len(scales), 32)) * scales]
    rows.append(np.zeros((1, 32)))
    rows.append(np.full((1, 32), 3.5))
    rows.append(np.full((1, 32), -0.25))
    rows.append(np.abs(rng.normal(0, 1, (4, 32))) + 1)
    rows.append(-np.abs(rng.normal(0, 1, (4, 32))) - 1)
    # Halves of a step: ties for every format.
    rows.append((np.arange(32).reshape(1, 32) - 16) / 2)
    rows.append((np.arange(32).reshape(1, 32) - 15) * 127 / 32)
    # The largest magnitude twice, with both signs.
    pair = rng.normal(0, 0.1, (2, 32))
    pair[0, 3], pair[0, 20] = 1, -1
    pair[1, 3], pair[1, 20] = -1, 1
    rows.append(pair)
    x = np.concatenate(rows).astype("<f4")
    assert x.size % 256 == 0
    return x


def main():
    x = inputs(np.random.default_rng(21))
    out = bytearray(b"SMQT" + struct.pack("<III", 1, len(KINDS), x.size) + x.tobytes())
    for kind in KINDS:
        wide = x.reshape(-1, 256)
        raw = quantize(wide, kind).tobytes()
        out += struct.pack("<II", kind, len(raw)) + raw
    Path(__file__).parent.parent.joinpath("quantize.bin").write_bytes(out)


if __name__ == "__main__":
    main()
