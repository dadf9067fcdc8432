"""The shapes that are compared, and how much work each is."""

import math
import random
from dataclasses import dataclass

SQUARES = (64, 128, 256, 512, 1024, 2048)
WIDTHS = (1024, 4096)
SKINNY = (1, 8, 32)
LAYOUTS = ("NN", "NT", "packed")
# Sizes that no tile divides, and a model's.
ODD = ((7, 513, 1999), (96, 3072, 768), (5, 1000, 1000), (48, 2560, 640))
RANDOM_SHAPES = 20
# Random sizes are as likely between 32 and 64 as between 2048 and 4096; a product takes a few milliseconds at most.
RANDOM_ROWS, RANDOM_WIDTHS, RANDOM_FLOPS = (1, 1024), (32, 4096), 2**30
UNARY = ("exp", "tanh", "gelu_tanh", "gelu_erf", "silu")
ROWS = ("softmax", "layer_norm", "rms_norm")
SIZES = (10**3, 10**4, 10**5, 10**6, 10**7)
ROW_LENGTHS = (768, 4096)
ATTENTION_HEADS = 4
# What --quick keeps.
QUICK = {
    "256x256x256 NN", "1024x1024x1024 NN", "1x1024x1024 NT", "8x1024x1024 NN", "32x4096x4096 NT", "32x1024x1024 packed",
    "5x1000x1000 NT", "exp 100000", "gelu_tanh 100000", "softmax 130x768", "layer_norm 130x768", "attention T=512 head_dim=64 causal",
}  # fmt: skip


@dataclass(frozen=True)
class Case:
    """One line of a table. The fields after `name` are what a worker is told; `work` is in `unit`s a call."""

    group: str
    name: str
    op: str
    m: int
    n: int
    k: int
    transposed: int
    packed: int
    work: float
    unit: str

    def line(self):
        return f"case {self.op} {self.m} {self.n} {self.k} {self.transposed} {self.packed}"


def matmul(m, n, k, layout):
    transposed, packed = int(layout == "NT"), int(layout == "packed")
    name = f"{m}x{n}x{k} {layout}"
    return Case("matmul", name, "matmul", m, n, k, transposed, packed, 2.0 * m * n * k, "GFLOPS")


def unary(op, size):
    return Case("elementwise", f"{op} {size}", op, 1, size, 0, 0, 0, size, "G elements/s")


def rows(op, size, length):
    count = max(1, size // length)
    return Case("rows", f"{op} {count}x{length}", op, count, length, 0, 0, 0, count * length, "G elements/s")


def attention(length, head_dim, causal):
    pairs = length * (length + 1) / 2 if causal else length * length
    name = f"attention T={length} head_dim={head_dim} {'causal' if causal else 'full'}"
    work = 4.0 * pairs * head_dim * ATTENTION_HEADS
    return Case("attention", name, "attention", length, head_dim, ATTENTION_HEADS, int(causal), 0, work, "GFLOPS")


def machine(op, name, floats, passes, work, unit):
    return Case("machine", name, op, 1, floats, passes, 0, 0, work, unit)


def fma():
    """A few milliseconds of multiply-adds in registers."""
    operations = 10**8
    return machine("fma", "FMA", 0, operations, operations, "GFLOPS")


def reading(case, threads):
    """One row times a matrix can't be faster than reading the matrix, a part by each thread."""
    floats = case.n * case.k // threads
    passes = max(1, 2**24 // floats)
    return machine("read", "read the matrix", floats, passes, 2.0 * floats * passes, "GFLOPS")


def reads(cache_bytes):
    """Reads of half of each cache, and of what no cache holds; `cache_bytes` by name."""
    spans = {f"read {name}": size // 2 for name, size in cache_bytes.items()} | {"read memory": 2**30}
    for name, span in spans.items():
        passes = max(1, 2**29 // span)
        yield machine("read", name, span // 4, passes, float(span) * passes, "GB/s")
    yield machine("copy", "copy memory", 2**26, 1, 2.0**29, "GB/s")


def random_products(seed):
    """Products of random sizes and layouts, the same for the same seed."""
    chance = random.Random(seed)

    def size(low, high):
        return round(math.exp(chance.uniform(math.log(low), math.log(high))))

    found = 0
    while found < RANDOM_SHAPES:
        m, n, k = size(*RANDOM_ROWS), size(*RANDOM_WIDTHS), size(*RANDOM_WIDTHS)
        layout = chance.choice(LAYOUTS)
        if 2 * m * n * k <= RANDOM_FLOPS:
            found += 1
            yield matmul(m, n, k, layout)


def all_cases(seed):
    for size in SQUARES:
        yield matmul(size, size, size, "NN")
    for width in WIDTHS:
        for m in SKINNY:
            for layout in LAYOUTS:
                yield matmul(m, width, width, layout)
        yield matmul(512, width, width, "packed")
    for m, n, k in ODD:
        for layout in LAYOUTS:
            yield matmul(m, n, k, layout)
    yield from random_products(seed)
    for op in UNARY:
        for size in SIZES:
            yield unary(op, size)
    for op in ROWS:
        for length in ROW_LENGTHS:
            for size in SIZES:
                if size >= length or length == ROW_LENGTHS[0]:
                    yield rows(op, size, length)
    for length in (512, 2048):
        for head_dim in (64, 128):
            for causal in (True, False):
                yield attention(length, head_dim, causal)
