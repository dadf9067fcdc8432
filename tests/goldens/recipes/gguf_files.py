"""Makes the files of gguf/ but their logits, which logits.py makes.

Tiny Llamas with random weights, each with a trait that SmolLM2 lacks, tiny GPT-2s and Qwens,
and two files with every kind of metadata value. Made with gguf 0.19.0, numpy 2.4.6 and,
for the types that gguf doesn't encode, ggml as of llama-cpp-python 0.3.36.
"""

import ctypes

import json
import struct
from pathlib import Path

import llama_cpp
import numpy as np
from gguf import GGML_QUANT_SIZES
from gguf import GGMLQuantizationType as Type
from gguf import GGUFValueType as Value
from gguf import GGUFWriter, RopeScalingType, TokenType
from gguf.quants import quantize

FOLDER = Path(__file__).parent.parent / "gguf"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = """
Ġ t|h e|i n|Ġ a|r e|o n|Ġt he|e r|Ġ s|a t|n d|Ġ o|i s|o r|e n|Ġ w|in g|Ġa nd|Ġ Ġ|e d
Ġo f|o u|Ġ l|l l|Ġt o|Ġ in|ĠĠ ĠĠ|Ġs he|Ċ Ċ
"""


def byte_letters():
    """The printable character that stands for each byte in a byte-level vocabulary."""
    plain = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in plain]
    return [chr(b) if b in plain else chr(0x100 + others.index(b)) for b in range(256)]


def add_tokenizer(writer, add_bos):
    merges = MERGES.strip().replace("\n", "|").split("|")
    tokens = SPECIAL + byte_letters() + [merge.replace(" ", "") for merge in merges]
    kinds = [TokenType.CONTROL] * len(SPECIAL)
    kinds += [TokenType.NORMAL] * (len(tokens) - len(SPECIAL))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_add_bos_token(add_bos)
    writer.add_add_space_prefix(False)
    return len(tokens)


def encoded(values, kind):
    """The rows of `values` as `kind`: by gguf where it can, else by ggml, all weights equally important."""
    try:
        return quantize(values, kind)
    except NotImplementedError:
        ggml = ctypes.CDLL(str(Path(llama_cpp.__file__).parent / "lib" / "libggml-base.so"))
        ggml.ggml_quantize_chunk.restype = ctypes.c_size_t
        rows, columns = values.shape
        elements, size = GGML_QUANT_SIZES[kind]
        out = np.zeros((rows, columns // elements * size), np.uint8)
        importance = np.ones(columns, np.float32)
        counts = [ctypes.c_int64(n) for n in (0, rows, columns)]
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (values, out, importance)]
        done = ggml.ggml_quantize_chunk(int(kind), *pointers[:2], *counts, pointers[2])
        assert done == out.size
        return out


class Gpt:
    """Writes a GPT-2 with matrices as a Llama's here, and biases and gains that all differ."""

    def __init__(self, name, seed, *, width, layers, heads, context):
        self.rng = np.random.default_rng(seed)
        self.writer = GGUFWriter(FOLDER / f"{name}.gguf", "gpt2")
        self.writer.add_name(name)
        self.writer.add_block_count(layers)
        self.writer.add_context_length(context)
        self.writer.add_embedding_length(width)
        self.writer.add_feed_forward_length(4 * width)
        self.writer.add_head_count(heads)
        self.writer.add_layer_norm_eps(1e-5)
        self.width, self.context = width, context
        self.vocab = add_tokenizer(self.writer, False)

    def add(self, name, values, kind):
        data = values if kind == Type.F32 else encoded(values, kind)
        self.writer.add_tensor(name, data, raw_dtype=kind)

    def table(self, name, rows, kind, gain):
        values = self.rng.normal(0, gain / self.width**0.5, (rows, self.width)).astype(np.float32)
        self.add(f"{name}.weight", values, kind)

    def linear(self, name, rows, columns, kind, gain=1.0):
        values = self.rng.normal(0, gain / columns**0.5, (rows, columns)).astype(np.float32)
        self.add(f"{name}.weight", values, kind)
        self.add(f"{name}.bias", self.rng.normal(0, 0.3, rows).astype(np.float32), Type.F32)

    def norm(self, name):
        self.add(f"{name}.weight", self.rng.uniform(0.5, 1.5, self.width).astype(np.float32), Type.F32)
        self.add(f"{name}.bias", self.rng.normal(0, 0.3, self.width).astype(np.float32), Type.F32)

    def body(self, kinds, embedding, positions):
        """`kinds` of the matrices qkv, output, up, down, a list a layer."""
        self.table("token_embd", self.vocab, embedding, gain=4)
        self.table("position_embd", self.context, positions, gain=2)
        for n, (qkv, output, up, down) in enumerate(kinds):
            self.norm(f"blk.{n}.attn_norm")
            self.linear(f"blk.{n}.attn_qkv", 3 * self.width, self.width, qkv, gain=2)
            self.linear(f"blk.{n}.attn_output", self.width, self.width, output)
            self.norm(f"blk.{n}.ffn_norm")
            self.linear(f"blk.{n}.ffn_up", 4 * self.width, self.width, up, gain=2)
            self.linear(f"blk.{n}.ffn_down", self.width, 4 * self.width, down)
        self.norm("output_norm")

    def close(self):
        close(self.writer)


class Llama:
    """Writes a Llama whose matrices are normal with a spread that keeps logits lively."""

    architecture, epsilon = "llama", 1e-5
    # Whether the family's converter states the rotated dimensions and the vocabulary's size.
    states_sizes = True

    def __init__(self, name, seed, *, width, layers, heads, kv_heads, ffn, base, **more):
        self.rng = np.random.default_rng(seed)
        self.writer = GGUFWriter(FOLDER / f"{name}.gguf", self.architecture)
        self.writer.add_name(name)
        self.writer.add_block_count(layers)
        self.writer.add_context_length(128)
        self.writer.add_embedding_length(width)
        self.writer.add_feed_forward_length(ffn)
        self.writer.add_head_count(heads)
        self.writer.add_head_count_kv(kv_heads)
        self.writer.add_rope_freq_base(base)
        self.writer.add_layer_norm_rms_eps(self.epsilon)
        self.width, self.layers, self.ffn = width, layers, ffn
        self.head_dim = more.get("head_dim", width // heads)
        if self.states_sizes:
            self.writer.add_rope_dimension_count(self.head_dim)
        if self.head_dim != width // heads:
            self.writer.add_key_length(self.head_dim)
            self.writer.add_value_length(self.head_dim)
        self.q, self.kv = heads * self.head_dim, kv_heads * self.head_dim
        self.vocab = add_tokenizer(self.writer, more.get("add_bos", False))
        if self.states_sizes:
            self.writer.add_vocab_size(self.vocab)

    def matrix(self, name, rows, columns, kind=Type.F32, gain=1.0):
        values = self.rng.normal(0, gain / columns**0.5, (rows, columns)).astype(np.float32)
        self.add(name, values, kind)

    def norm(self, name):
        self.add(name, self.rng.uniform(0.5, 1.5, self.width).astype(np.float32), Type.F32)

    def add(self, name, values, kind):
        data = values if kind == Type.F32 else encoded(values, kind)
        self.writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)

    def body(self, kinds, embedding=Type.F32):
        """`kinds` of the matrices q k v o gate up down, a list a layer."""
        self.matrix("token_embd", self.vocab, self.width, embedding, gain=4)
        for n, layer in enumerate(kinds):
            q, k, v, o, gate, up, down = layer
            self.norm(f"blk.{n}.attn_norm")
            self.matrix(f"blk.{n}.attn_q", self.q, self.width, q, gain=2)
            self.matrix(f"blk.{n}.attn_k", self.kv, self.width, k, gain=2)
            self.matrix(f"blk.{n}.attn_v", self.kv, self.width, v)
            self.attention_extras(n)
            self.matrix(f"blk.{n}.attn_output", self.width, self.q, o)
            self.norm(f"blk.{n}.ffn_norm")
            self.matrix(f"blk.{n}.ffn_gate", self.ffn, self.width, gate)
            self.matrix(f"blk.{n}.ffn_up", self.ffn, self.width, up)
            self.matrix(f"blk.{n}.ffn_down", self.width, self.ffn, down)
        self.norm("output_norm")

    def attention_extras(self, n):
        """What the family's attention has in layer `n` beside four matrices: nothing."""

    def close(self):
        close(self.writer)


class Qwen2(Llama):
    """Writes a Qwen2: a Llama with biases on queries, keys and values, no small ones, and halves rotated."""

    architecture, epsilon, states_sizes = "qwen2", 1e-6, False

    def attention_extras(self, n):
        for name, rows in ("q", self.q), ("k", self.kv), ("v", self.kv):
            bias = self.rng.uniform(-0.5, 0.5, rows).astype(np.float32)
            self.writer.add_tensor(f"blk.{n}.attn_{name}.bias", bias)


class Qwen3(Llama):
    """Writes a Qwen3: a Llama with a norm on each head's query and key, and halves rotated."""

    architecture, epsilon, states_sizes = "qwen3", 1e-6, False

    def attention_extras(self, n):
        for name in "q", "k":
            gains = self.rng.uniform(0.5, 1.5, self.head_dim).astype(np.float32)
            self.add(f"blk.{n}.attn_{name}_norm", gains, Type.F32)


class Mixture(Llama):
    """Writes a Llama with experts in each layer's MLP. Layer 0 has biases and factors of experts, layer 1 a bias of the
    choice; both have an expert for all rows, with a router of its own."""

    def __init__(self, name, seed, *, experts, used, **more):
        super().__init__(name, seed, **more)
        self.experts = experts
        self.writer.add_expert_count(experts)
        self.writer.add_expert_used_count(used)

    def stack(self, name, rows, columns, kind):
        values = self.rng.normal(0, columns**-0.5, (self.experts, rows, columns)).astype(np.float32)
        data = values if kind == Type.F32 else np.stack([encoded(matrix, kind) for matrix in values])
        self.writer.add_tensor(f"{name}.weight", data, raw_dtype=kind)

    def body(self, kinds, embedding=Type.F32):
        """`kinds` of attention's matrices, gate, up and down, a list a layer."""
        self.matrix("token_embd", self.vocab, self.width, embedding, gain=4)
        for n, (attention, gate, up, down) in enumerate(kinds):
            self.norm(f"blk.{n}.attn_norm")
            self.matrix(f"blk.{n}.attn_q", self.q, self.width, attention, gain=2)
            self.matrix(f"blk.{n}.attn_k", self.kv, self.width, attention, gain=2)
            self.matrix(f"blk.{n}.attn_v", self.kv, self.width, attention)
            self.matrix(f"blk.{n}.attn_output", self.width, self.q, attention)
            self.norm(f"blk.{n}.ffn_norm")
            self.matrix(f"blk.{n}.ffn_gate_inp", self.experts, self.width, gain=2)
            shapes = [
                ("gate", self.ffn, self.width, gate),
                ("up", self.ffn, self.width, up),
                ("down", self.width, self.ffn, down),
            ]
            for part, rows, columns, kind in shapes:
                self.stack(f"blk.{n}.ffn_{part}_exps", rows, columns, kind)
                self.matrix(f"blk.{n}.ffn_{part}_shexp", rows, columns, kind)
                if n == 0:
                    bias = self.rng.normal(0, 0.3, (self.experts, rows)).astype(np.float32)
                    self.writer.add_tensor(f"blk.{n}.ffn_{part}_exps.bias", bias)
                    scale = self.rng.uniform(0.5, 1.5, self.experts).astype(np.float32)
                    self.writer.add_tensor(f"blk.{n}.ffn_{part}_exps.scale", scale)
            self.matrix(f"blk.{n}.ffn_gate_inp_shexp", 1, self.width)
            if n == 1:
                bias = self.rng.normal(0, 0.3, self.experts).astype(np.float32)
                self.writer.add_tensor(f"blk.{n}.exp_probs_b.bias", bias)
        self.norm("output_norm")

    def close(self):
        close(self.writer)


def close(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def untied_mixed():
    """Untied head, two query heads a key head, every weight format, a BOS of its own."""
    llama = Llama(
        "untied-mixed", 1, width=64, layers=2, heads=4, kv_heads=2, ffn=96, base=10000.0, add_bos=True
    )
    t = Type
    kinds = [
        [t.F32, t.F16, t.BF16, t.Q4_0, t.Q4_1, t.Q5_0, t.Q5_1],
        [t.Q8_0, t.Q4_0, t.Q4_1, t.Q5_0, t.Q5_1, t.Q8_0, t.F16],
    ]
    llama.body(kinds, embedding=t.F16)
    llama.matrix("output", llama.vocab, llama.width, t.Q8_0, gain=2)
    llama.close()


def tied_rope_freqs():
    """Tied head, four query heads a key head, a high base, Llama 3's frequency factors."""
    llama = Llama("tied-rope-freqs", 2, width=32, layers=2, heads=4, kv_heads=1, ffn=64, base=500000.0)
    factors = np.array([1.0, 1.0, 2.5, 8.0], dtype=np.float32)
    llama.add("rope_freqs", factors, Type.F32)
    llama.body([[Type.F32] * 7] * 2)
    llama.close()


def untied_linear_rope():
    """No grouping, heads wider than width ÷ heads, rope scaled linearly, a base of its own."""
    llama = Llama(
        "untied-linear-rope", 3, width=32, layers=1, heads=2, kv_heads=2, ffn=32, base=20000.0, head_dim=24
    )
    llama.writer.add_rope_scaling_type(RopeScalingType.LINEAR)
    llama.writer.add_rope_scaling_factor(4.0)
    llama.body([[Type.F32] * 7])
    llama.matrix("output", llama.vocab, llama.width, gain=2)
    llama.close()


def untied_every_quant():
    """Every type that untied-mixed lacks, types mixed in each group of matrices; heads narrower than usual."""
    llama = Llama(
        "untied-every-quant",
        5,
        width=256,
        layers=3,
        heads=2,
        kv_heads=1,
        ffn=64,
        base=10000.0,
        head_dim=32,
    )
    t = Type
    kinds = [
        [t.Q2_K, t.Q3_K, t.Q4_K, t.IQ4_NL, t.Q5_K, t.Q6_K, t.MXFP4],
        [t.IQ4_XS, t.IQ1_S, t.IQ2_XXS, t.NVFP4, t.IQ3_XXS, t.IQ2_XS, t.IQ4_NL],
        [t.IQ2_S, t.IQ3_S, t.IQ1_M, t.MXFP4, t.TQ1_0, t.TQ2_0, t.NVFP4],
    ]
    llama.body(kinds, embedding=t.Q4_K)
    llama.matrix("output", llama.vocab, llama.width, t.Q6_K, gain=2)
    llama.close()


def gpt_untied():
    """An untied head, three heads of 16, all F32."""
    gpt = Gpt("gpt-untied", 6, width=48, layers=2, heads=3, context=40)
    gpt.body([[Type.F32] * 4] * 2, Type.F32, Type.F32)
    gpt.table("output", gpt.vocab, Type.F32, gain=2)
    gpt.close()


def gpt_tied_quant():
    """A tied head, quantised matrices, one not quantised after a quantised one and the other way round."""
    gpt = Gpt("gpt-tied-quant", 7, width=64, layers=2, heads=2, context=64)
    t = Type
    kinds = [[t.Q8_0, t.Q4_1, t.Q4_0, t.Q8_0], [t.F16, t.Q5_0, t.Q8_0, t.F32]]
    gpt.body(kinds, t.Q8_0, t.F16)
    gpt.close()


def qwen2_tied():
    """A tied head, two query heads a key head, a high base, all F32."""
    qwen = Qwen2("qwen2-tied", 8, width=64, layers=2, heads=4, kv_heads=2, ffn=32, base=1000000.0)
    qwen.body([[Type.F32] * 7] * 2)
    qwen.close()


def qwen2_quant():
    """An untied head, types mixed within each group of matrices, of which some have biases."""
    qwen = Qwen2("qwen2-quant", 9, width=64, layers=3, heads=4, kv_heads=2, ffn=64, base=1000000.0)
    t = Type
    kinds = [
        [t.Q4_0, t.Q8_0, t.F16, t.Q5_0, t.Q4_1, t.Q8_0, t.Q5_1],
        [t.Q5_0, t.Q5_0, t.Q8_0, t.Q4_0, t.Q4_0, t.Q4_0, t.IQ4_NL],
        [t.F32, t.BF16, t.Q4_0, t.Q8_0, t.F16, t.MXFP4, t.Q8_0],
    ]
    qwen.body(kinds, embedding=t.Q8_0)
    qwen.matrix("output", qwen.vocab, qwen.width, t.Q5_0, gain=2)
    qwen.close()


def qwen3_untied():
    """An untied head, heads twice as wide as width ÷ heads, two query heads a key head, all F32."""
    qwen = Qwen3(
        "qwen3-untied", 10, width=32, layers=2, heads=2, kv_heads=1, ffn=32, base=1000000.0, head_dim=32
    )
    qwen.body([[Type.F32] * 7] * 2)
    qwen.matrix("output", qwen.vocab, qwen.width, gain=2)
    qwen.close()


def qwen3_tied_quant():
    """A tied head in Q8_0, wide heads, types mixed within each group of matrices."""
    qwen = Qwen3(
        "qwen3-tied-quant", 11, width=64, layers=2, heads=4, kv_heads=2, ffn=96, base=1000000.0, head_dim=32
    )
    t = Type
    kinds = [
        [t.Q4_0, t.Q8_0, t.F16, t.Q5_0, t.Q8_0, t.Q4_1, t.Q4_0],
        [t.Q8_0, t.Q8_0, t.Q5_1, t.Q4_0, t.Q5_0, t.Q5_0, t.Q8_0],
    ]
    qwen.body(kinds, embedding=t.Q8_0)
    qwen.close()


def experts_f32():
    """3 of 8 experts narrower than a panel, all F32."""
    more = dict(width=32, layers=2, heads=2, kv_heads=1, ffn=24, base=10000.0)
    mixture = Mixture("experts-f32", 12, experts=8, used=3, **more)
    mixture.body([[Type.F32] * 4] * 2)
    mixture.close()


def experts_quant():
    """2 of 8 experts, types mixed within each."""
    more = dict(width=64, layers=2, heads=2, kv_heads=1, ffn=32, base=10000.0)
    mixture = Mixture("experts-quant", 13, experts=8, used=2, **more)
    t = Type
    mixture.body([[t.Q8_0, t.Q4_0, t.Q8_0, t.Q5_0], [t.Q8_0, t.Q4_1, t.F16, t.MXFP4]], embedding=t.F16)
    mixture.close()


METADATA = [
    ("test.u8", 255, Value.UINT8),
    ("test.i8", -128, Value.INT8),
    ("test.u16", 65535, Value.UINT16),
    ("test.i16", -32768, Value.INT16),
    ("test.u32", 4294967295, Value.UINT32),
    ("test.i32", -2147483648, Value.INT32),
    ("test.f32", 0.15625, Value.FLOAT32),
    ("test.true", True, Value.BOOL),
    ("test.false", False, Value.BOOL),
    ("test.string", "na\u00efve \U0001f999\0end", Value.STRING),
    ("test.empty", "", Value.STRING),
    ("test.u64", 18446744073709551615, Value.UINT64),
    ("test.i64", -9223372036854775808, Value.INT64),
    ("test.f64", -1e300, Value.FLOAT64),
    ("test.strings", ["", "a", "\u00e9"], Value.STRING),
    ("test.i16s", [-1, 0, 1], Value.INT16),
    ("test.f64s", [0.5, -0.25], Value.FLOAT64),
    ("test.bools", [True, False, True], Value.BOOL),
    ("test.nested", [[1, 2], [3]], Value.INT32),
]


def metadata():
    """Every value type, an alignment of 64, tensors of one to four dimensions; v3 and v2."""
    path = FOLDER / "metadata.gguf"
    writer = GGUFWriter(path, "test")
    writer.add_custom_alignment(64)
    for key, value, kind in METADATA:
        if isinstance(value, list):
            nested = isinstance(value[0], list)
            writer.add_key_value(key, value, Value.ARRAY, None if nested else kind)
        else:
            writer.add_key_value(key, value, kind)
    for dimensions in range(1, 5):
        shape = tuple(range(2, 2 + dimensions))
        values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        writer.add_tensor(f"ramp{dimensions}", values)
    writer.add_tensor("halves", np.array([1, -2, 0.5], dtype=np.float16))
    writer.add_tensor("bytes", np.arange(-3, 4, dtype=np.int8))
    close(writer)

    # Version 3 only added big-endian files: the bytes of version 2 are the same.
    bytes_ = bytearray(path.read_bytes())
    assert struct.unpack_from("<I", bytes_, 4) == (3,)
    struct.pack_into("<I", bytes_, 4, 2)
    path.with_name("metadata-v2.gguf").write_bytes(bytes_)

    expected = [
        {"key": key, "type": kind.name.lower(), "array": isinstance(value, list), "value": value}
        for key, value, kind in METADATA
    ]
    text = json.dumps(expected, indent=1, ensure_ascii=True)
    path.with_suffix(".json").write_text(text + "\n")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    untied_mixed()
    tied_rope_freqs()
    untied_linear_rope()
    untied_every_quant()
    gpt_untied()
    gpt_tied_quant()
    qwen2_tied()
    qwen2_quant()
    qwen3_untied()
    qwen3_tied_quant()
    experts_f32()
    experts_quant()
    metadata()
