"""Makes dequant.bin: random blocks of each format and their values by the gguf package.

Made with gguf 0.19.0 and numpy 2.4.6. Layout in ../README.md.
"""

import struct
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize

BLOCKS = 16
# Byte offsets of the f16 scales within a block: scale, and minimum where there is one.
SCALES = {
    Type.Q4_0: (0,),
    Type.Q4_1: (0, 2),
    Type.Q5_0: (0,),
    Type.Q5_1: (0, 2),
    Type.Q8_0: (0,),
}
# Zeros of both signs, smallest and largest subnormal, smallest normal, one,
# a third, largest finite. Scales stay finite: infinity times zero is NaN.
F16_SCALES = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x3C00, 0xB555, 0x7BFF, 0xFBFF]
# As above, plus infinities and a quiet NaN.
F16_VALUES = F16_SCALES + [0x7C00, 0xFC00, 0x7E00]
BF16_VALUES = [0x0000, 0x8000, 0x0001, 0x807F, 0x0080, 0x3F80, 0xBEAB, 0x7F7F, 0xFF7F]
BF16_VALUES += [0x7F80, 0xFF80, 0x7FC0]


def halves(values, count, rng, nan_above):
    """`values` first, then random bits without signalling NaNs, `count` u16 in all."""
    bits = rng.integers(0, 1 << 16, count, dtype=np.uint16)
    bits[(bits & 0x7FFF) > nan_above] &= 0x3FFF
    bits[: len(values)] = values
    return bits


def blocks(kind, rng):
    """Raw bytes of BLOCKS blocks: special scales first, then finite random ones."""
    raw = rng.integers(0, 256, (BLOCKS, GGML_QUANT_SIZES[kind][1]), dtype=np.uint8)
    for n, offset in enumerate(SCALES[kind]):
        scales = rng.normal(0, 0.1, BLOCKS).astype(np.float16).view(np.uint16)
        # The minimum runs backwards through the list, so both meet varied partners.
        special = F16_SCALES if n == 0 else F16_SCALES[::-1]
        scales[: len(special)] = special
        raw[:, offset : offset + 2] = scales.view(np.uint8).reshape(BLOCKS, 2)
    return raw.reshape(-1)


def main():
    rng = np.random.default_rng(20)
    sections = [
        (Type.F16, halves(F16_VALUES, 256, rng, 0x7C00).view(np.uint8)),
        (Type.BF16, halves(BF16_VALUES, 256, rng, 0x7F80).view(np.uint8)),
    ]
    sections += [(kind, blocks(kind, rng)) for kind in SCALES]

    out = bytearray(b"SMDQ" + struct.pack("<II", 1, len(sections)))
    for kind, raw in sections:
        elements, size = GGML_QUANT_SIZES[kind]
        values = dequantize(raw, kind).astype("<f4")
        assert values.size == raw.size // size * elements
        out += struct.pack("<IIII", kind, raw.size // size, elements, size)
        out += raw.tobytes() + values.tobytes()
    Path(__file__).parent.parent.joinpath("dequant.bin").write_bytes(out)


if __name__ == "__main__":
    main()
