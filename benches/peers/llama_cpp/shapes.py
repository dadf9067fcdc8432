"""Models with random weights in the shapes of other families, for the comparison of speed: a small Qwen 3, a mixture
of experts, an embedder with Gemma's vocabulary. They have no vocabulary: nothing is read but token ids.

A shape is a list of tensors; matrices have the type asked for, with scales as large as training leaves weights.
"""

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, PoolingType

BLOCK = 32
# Bytes of a block, and the standard deviation of a block's random bytes read as levels.
TYPES = {"Q8_0": (34, 74.0), "Q4_0": (18, 4.6)}


class Writer:
    """A file of one architecture."""

    def __init__(self, path, architecture, kind, layers, width, hidden, heads, kv_heads, head_dim, context):
        self.file, self.path = GGUFWriter(path, architecture), path
        self.kind, self.width, self.heads, self.kv_heads, self.head_dim = kind, width, heads, kv_heads, head_dim
        self.rng = np.random.default_rng(5)
        self.file.add_block_count(layers)
        self.file.add_context_length(context)
        self.file.add_embedding_length(width)
        self.file.add_feed_forward_length(hidden)
        self.file.add_head_count(heads)
        self.file.add_head_count_kv(kv_heads)
        self.file.add_key_length(head_dim)
        self.file.add_value_length(head_dim)
        self.file.add_layer_norm_rms_eps(1e-6)
        self.file.add_rope_freq_base(1e6)

    def vocabulary(self, size):
        self.file.add_tokenizer_model("no_vocab")
        self.file.add_vocab_size(size)
        self.matrix("token_embd", size, self.width)

    def matrix(self, name, *shape):
        *lead, rows, k = shape
        size, deviation = TYPES[self.kind]
        blocks = int(np.prod(lead, initial=1)) * rows * k // BLOCK
        data = np.frombuffer(self.rng.bytes(blocks * size), np.uint8).reshape(blocks, size).copy()
        data[:, :2] = np.frombuffer(np.float16(1 / deviation / k**0.5).tobytes(), np.uint8)
        data = data.reshape(*lead, rows, k // BLOCK * size)
        self.file.add_tensor(f"{name}.weight", data, raw_dtype=GGMLQuantizationType[self.kind])

    def norm(self, name, size):
        self.file.add_tensor(f"{name}.weight", np.ones(size, np.float32))

    def attention(self, block):
        self.norm(f"{block}.attn_norm", self.width)
        self.norm(f"{block}.attn_q_norm", self.head_dim)
        self.norm(f"{block}.attn_k_norm", self.head_dim)
        self.matrix(f"{block}.attn_q", self.heads * self.head_dim, self.width)
        self.matrix(f"{block}.attn_k", self.kv_heads * self.head_dim, self.width)
        self.matrix(f"{block}.attn_v", self.kv_heads * self.head_dim, self.width)
        self.matrix(f"{block}.attn_output", self.width, self.heads * self.head_dim)
        self.norm(f"{block}.ffn_norm", self.width)

    def mlp(self, block, hidden):
        self.matrix(f"{block}.ffn_gate", hidden, self.width)
        self.matrix(f"{block}.ffn_up", hidden, self.width)
        self.matrix(f"{block}.ffn_down", self.width, hidden)

    def close(self):
        self.file.write_header_to_file()
        self.file.write_kv_data_to_file()
        self.file.write_tensors_to_file()
        self.file.close()


def qwen3(path, kind):
    """Qwen3-0.6B's shape: 28 layers, tied head of 151,936 rows."""
    w = Writer(path, "qwen3", kind, 28, 1024, 3072, 16, 8, 128, 8192)
    w.vocabulary(151936)
    w.norm("output_norm", 1024)
    for n in range(28):
        w.attention(f"blk.{n}")
        w.mlp(f"blk.{n}", 3072)
    w.close()


def mixture(path, kind):
    """8 of 64 experts: 1.0 billion weights, 165 million of them for each token."""
    w = Writer(path, "qwen3moe", kind, 10, 1024, 4096, 16, 4, 64, 8192)
    w.file.add_expert_count(64)
    w.file.add_expert_used_count(8)
    w.file.add_expert_feed_forward_length(512)
    w.vocabulary(8192)
    w.matrix("output", 8192, 1024)
    w.norm("output_norm", 1024)
    for n in range(10):
        block = f"blk.{n}"
        w.attention(block)
        w.file.add_tensor(f"{block}.ffn_gate_inp.weight", w.rng.normal(0, 1 / 32, (64, 1024)).astype(np.float32))
        w.matrix(f"{block}.ffn_gate_exps", 64, 512, 1024)
        w.matrix(f"{block}.ffn_up_exps", 64, 512, 1024)
        w.matrix(f"{block}.ffn_down_exps", 64, 1024, 512)
    w.close()


def embedder(path, kind):
    """EmbeddingGemma's shape: 24 layers, symmetric windows of 512, the mean of all rows."""
    w = Writer(path, "gemma-embedding", kind, 24, 768, 1152, 3, 1, 256, 2048)
    w.file.add_sliding_window(512)
    w.file.add_pooling_type(PoolingType.MEAN)
    w.vocabulary(262144)
    w.norm("output_norm", 768)
    for n in range(24):
        block = f"blk.{n}"
        w.attention(block)
        w.norm(f"{block}.post_attention_norm", 768)
        w.mlp(block, 1152)
        w.norm(f"{block}.post_ffw_norm", 768)
    w.close()


SHAPES = {
    "Qwen3-0.6B-shape": (qwen3, ["Q8_0", "Q4_0"]),
    "Mixture-1B": (mixture, ["Q8_0", "Q4_0"]),
    "Embedder-300M": (embedder, ["Q8_0"]),
}
