"""Makes dequant.bin: random blocks of each format and their values by the gguf package.

Made with gguf 0.19.0 and numpy 2.4.6. Layout in ../README.md.
"""

import struct
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize

# Byte offsets of the f16 scales within a block: scale, and minimum where there is one. IQ1_M spreads its
# scale over four half words; the 4-bit floats have scales of other kinds, any byte being one.
SCALES = {
    Type.Q4_0: (0,),
    Type.Q4_1: (0, 2),
    Type.Q5_0: (0,),
    Type.Q5_1: (0, 2),
    Type.Q8_0: (0,),
    Type.Q2_K: (80, 82),
    Type.Q3_K: (108,),
    Type.Q4_K: (0, 2),
    Type.Q5_K: (0, 2),
    Type.Q6_K: (208,),
    Type.IQ4_NL: (0,),
    Type.IQ4_XS: (0,),
    Type.MXFP4: (),
    Type.NVFP4: (),
    Type.IQ1_S: (0,),
    Type.IQ1_M: (),
    Type.IQ2_XXS: (0,),
    Type.IQ2_XS: (0,),
    Type.IQ2_S: (0,),
    Type.IQ3_XXS: (0,),
    Type.IQ3_S: (0,),
    Type.TQ1_0: (52,),
    Type.TQ2_0: (64,),
}
# Zeros of both signs, smallest and largest subnormal, smallest normal, one,
# a third, largest finite, infinities, a quiet NaN.
F16_SCALES = [0x0000, 0x8000, 0x0001, 0x83FF, 0x0400, 0x3C00, 0xB555, 0x7BFF, 0xFBFF]
F16_SCALES += [0x7C00, 0xFC00, 0x7E00]
BF16_VALUES = [0x0000, 0x8000, 0x0001, 0x807F, 0x0080, 0x3F80, 0xBEAB, 0x7F7F, 0xFF7F]
BF16_VALUES += [0x7F80, 0xFF80, 0x7FC0]
# Blocks that are written out: those of zeros and of ones, then random ones, of which the first have the
# scales above. Of blocks of 256 a few, since the digests cover the rest.
WRITTEN, WRITTEN_LONG = 18, 5
# Blocks behind a digest. Their bytes are made by `mix`, so they need not be stored.
DIGESTED = 2048


def halves(values, count, rng, nan_above):
    """`values` first, then random bits without signalling NaNs, `count` u16 in all."""
    bits = rng.integers(0, 1 << 16, count, dtype=np.uint16)
    bits[(bits & 0x7FFF) > nan_above] &= 0x3FFF
    bits[: len(values)] = values
    return bits


def blocks(kind, rng):
    """Raw bytes of the blocks that are written out, a row a block."""
    elements, size = GGML_QUANT_SIZES[kind]
    count = WRITTEN if elements < 256 else WRITTEN_LONG
    raw = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for n, offset in enumerate(SCALES[kind]):
        scales = rng.normal(0, 0.1, count).astype(np.float16).view(np.uint16)
        # The minimum runs backwards through the list, so both meet varied partners.
        special = F16_SCALES if n == 0 else F16_SCALES[::-1]
        scales[2 : 2 + len(special)] = special[: count - 2]
        raw[:, offset : offset + 2] = scales.view(np.uint8).reshape(count, 2)
    raw[0], raw[1] = 0, 255
    return raw


def mix(x):
    """A bijection of u64 that scatters bits (the finaliser of SplitMix64)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def digest(kind):
    """Of DIGESTED blocks of pseudo-random bytes: the sum of their values' bits, each mixed with its place.

    NaNs count as one and the same.
    """
    size = GGML_QUANT_SIZES[kind][1]
    raw = mix(np.arange(DIGESTED * size, dtype=np.uint64)).astype(np.uint8)
    values = dequantize(raw.reshape(DIGESTED, size), kind).reshape(-1).astype("<f4")
    bits = np.where(np.isnan(values), 0x7FC00000, values.view(np.uint32)).astype(np.uint64)
    places = np.arange(values.size, dtype=np.uint64) << np.uint64(32)
    return int(mix(places | bits).sum(dtype=np.uint64))


def main():
    np.seterr(all="ignore")
    rng = np.random.default_rng(20)
    sections = [
        (Type.F16, halves(F16_SCALES, 256, rng, 0x7C00).view(np.uint8).reshape(-1, 2)),
        (Type.BF16, halves(BF16_VALUES, 256, rng, 0x7F80).view(np.uint8).reshape(-1, 2)),
    ]
    sections += [(kind, blocks(kind, rng)) for kind in SCALES]

    out = bytearray(b"SMDQ" + struct.pack("<II", 2, len(sections)))
    for kind, raw in sections:
        elements, size = GGML_QUANT_SIZES[kind]
        values = dequantize(raw.reshape(-1), kind).astype("<f4")
        assert values.size == len(raw) * elements
        out += struct.pack("<IIII", kind, len(raw), elements, size)
        out += raw.tobytes() + values.tobytes()
        out += struct.pack("<IQ", DIGESTED, digest(kind))
    Path(__file__).parent.parent.joinpath("dequant.bin").write_bytes(out)


if __name__ == "__main__":
    main()
