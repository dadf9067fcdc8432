"""Makes the files of cases/ that are not given, and the logits of those with scales.

Each file has something that a reader may drop in silence, refuse for the wrong reason, or show
raw; none has a vocabulary. Logits are those of a plain forward pass in f64 (`forward.py`). Made
with gguf 0.19.0 and numpy 2.4.6.
"""

import struct
from pathlib import Path

import numpy as np
from forward import File, gpt2, llama
from gguf import GGMLQuantizationType as Type
from gguf import GGUFWriter
from gguf.quants import quantize

FOLDER = Path(__file__).parent.parent / "cases"
WIDTH, FFN, HEADS, KV_HEADS, VOCABULARY, CONTEXT = 32, 64, 2, 1, 40, 64
HEAD_DIM = WIDTH // HEADS
TOKENS = [(7 * i + 3) % VOCABULARY for i in range(12)]


class Model:
    """A model of one block, and whatever a case adds to it."""

    def __init__(self, name, architecture, seed, kind=Type.F16, blocks=1, stated_blocks=None):
        self.rng = np.random.default_rng(seed)
        self.writer = GGUFWriter(FOLDER / f"{name}.gguf", architecture)
        self.architecture, self.kind = architecture, kind
        self.writer.add_block_count(stated_blocks or blocks)
        self.writer.add_context_length(CONTEXT)
        self.writer.add_embedding_length(WIDTH)
        self.writer.add_feed_forward_length(FFN)
        self.writer.add_head_count(HEADS)
        self.writer.add_tokenizer_model("no_vocab")
        if architecture == "gpt2":
            self.writer.add_layer_norm_eps(1e-5)
        else:
            self.writer.add_head_count_kv(KV_HEADS)
            self.writer.add_layer_norm_rms_eps(1e-5)
        self.matrix("token_embd", VOCABULARY, WIDTH, gain=4)
        if architecture == "gpt2":
            self.matrix("position_embd", CONTEXT, WIDTH, gain=2)
        for n in range(blocks):
            self.block(f"blk.{n}.")
        self.norm("output_norm")

    def vector(self, name, values):
        self.writer.add_tensor(name, np.atleast_1d(np.float32(values)))

    def scale(self, name, value):
        self.vector(f"{name}.scale", value)

    def matrix(self, name, rows, columns, gain=1.0):
        values = self.rng.normal(0, gain / columns**0.5, (rows, columns)).astype(np.float32)
        data = values if self.kind == Type.F32 else quantize(values, self.kind)
        self.writer.add_tensor(f"{name}.weight", data, raw_dtype=self.kind)

    def linear(self, name, rows, columns, gain=1.0):
        self.matrix(name, rows, columns, gain)
        biased = "qkv" if self.architecture == "qwen2" else ""
        if self.architecture == "gpt2" or (name[-6:-1] == "attn_" and name[-1] in biased):
            self.vector(f"{name}.bias", self.rng.normal(0, 0.3, rows))

    def norm(self, name):
        self.vector(f"{name}.weight", self.rng.uniform(0.5, 1.5, WIDTH))
        if self.architecture == "gpt2":
            self.vector(f"{name}.bias", self.rng.normal(0, 0.3, WIDTH))

    def block(self, block):
        self.norm(block + "attn_norm")
        if self.architecture == "gpt2":
            self.linear(block + "attn_qkv", 3 * WIDTH, WIDTH, gain=2)
        else:
            self.linear(block + "attn_q", WIDTH, WIDTH, gain=2)
            self.linear(block + "attn_k", KV_HEADS * HEAD_DIM, WIDTH, gain=2)
            self.linear(block + "attn_v", KV_HEADS * HEAD_DIM, WIDTH)
        self.linear(block + "attn_output", WIDTH, WIDTH)
        self.norm(block + "ffn_norm")
        self.mlp(block)

    def mlp(self, block):
        if self.architecture != "gpt2":
            self.linear(block + "ffn_gate", FFN, WIDTH)
        self.linear(block + "ffn_up", FFN, WIDTH)
        self.linear(block + "ffn_down", WIDTH, FFN)

    def close(self):
        self.writer.write_header_to_file()
        self.writer.write_kv_data_to_file()
        self.writer.write_tensors_to_file()
        self.writer.close()


class Experts(Model):
    """A model whose MLP is two experts, which no key states."""

    def mlp(self, block):
        self.matrix(block + "ffn_gate_inp", 2, WIDTH)
        for name, rows, columns in ("gate", FFN, WIDTH), ("up", FFN, WIDTH), ("down", WIDTH, FFN):
            values = self.rng.normal(0, 1 / columns**0.5, (2, rows, columns)).astype(np.float16)
            self.writer.add_tensor(f"{block}ffn_{name}_exps.weight", values)


def logits(name):
    file = File(FOLDER / f"{name}.gguf")
    rows = (gpt2 if file.architecture == "gpt2" else llama)(file, TOKENS)
    head = struct.pack(f"<4s3I{len(TOKENS)}I", b"SMLG", 1, len(TOKENS), rows.shape[1], *TOKENS)
    (FOLDER / f"{name}.logits.bin").write_bytes(head + np.float32(rows).tobytes())


def scales():
    logits("scales")
    model = Model("scales-gpt2", "gpt2", 1, Type.F32)
    model.matrix("output", VOCABULARY, WIDTH, gain=2)
    for i, name in enumerate(("attn_qkv", "attn_output", "ffn_up", "ffn_down")):
        model.scale(f"blk.0.{name}", 0.3 + 0.45 * i)
    model.scale("output", -0.7)
    model.close()
    logits("scales-gpt2")
    model = Model("scales-qwen2-q8", "qwen2", 2, Type.Q8_0)
    model.matrix("output", VOCABULARY, WIDTH, gain=2)
    names = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")
    for i, name in enumerate(names):
        model.scale(f"blk.0.{name}", 0.4 + 0.21 * i)
    model.scale("output", 1.9)
    model.close()
    logits("scales-qwen2-q8")
    # A scale of the embedding would be one of the head too: nothing here multiplies by it.
    model = Model("scales-tied", "qwen3", 3)
    for name in "q", "k":
        model.vector(f"blk.0.attn_{name}_norm.weight", np.ones(HEAD_DIM))
    model.scale("token_embd", 0.5)
    model.close()


def tensors():
    model = Model("norm-bias", "llama", 4)
    model.vector("blk.0.attn_norm.bias", np.ones(WIDTH))
    model.close()
    model = Model("rope-factors-long", "llama", 5)
    model.vector("rope_factors_long.weight", np.ones(HEAD_DIM // 2))
    model.vector("rope_factors_short.weight", np.ones(HEAD_DIM // 2))
    model.close()
    for name, idle in ("idle", True), ("idle-without", False):
        model = Model(name, "llama", 6, stated_blocks=2 if idle else 1)
        if idle:
            model.vector("blk.0.attn_rot_embd", np.ones(HEAD_DIM // 2))
            model.vector("blk.0.attn.rotary_emb.inv_freq", np.ones(HEAD_DIM // 2))
            model.vector("blk.0.attn_q.input_scale", 0.1)
            model.writer.add_nextn_predict_layers(1)
            model.vector("blk.1.attn_norm.weight", np.ones(WIDTH))
            model.matrix("blk.1.nextn.eh_proj", WIDTH, 2 * WIDTH)
            # Another one, which the file doesn't state.
            model.vector("blk.2.nextn.enorm.weight", np.ones(WIDTH))
            model.vector("blk.2.ffn_norm.weight", np.ones(WIDTH))
        model.close()
    Experts("experts-unstated", "qwen3", 7).close()


def keys():
    model = Model("not-causal", "qwen2", 8)
    model.writer.add_causal_attention(False)
    model.close()
    model = Model("softcap", "llama", 9)
    model.writer.add_final_logit_softcapping(30.0)
    model.writer.add_float32("llama.logit_scale\x1b[2J", 0.5)
    model.close()
    model = Model("last-pooling", "llama", 10)
    model.writer.add_uint32("llama.pooling_type", 3)
    model.close()


def parts_and_others():
    model = Model("part-00002-of-00003", "llama", 11)
    model.writer.add_uint16("split.no", 1)
    model.writer.add_uint16("split.count", 3)
    model.close()
    model = Model("adapter", "llama", 12)
    model.writer.add_string("general.type", "adapter")
    model.close()
    # gguf's writer can't write what isn't UTF-8: the bytes are put in afterwards.
    model = Model("latin1-everywhere", "llama", 13)
    model.writer.add_string("general.name", "Caf@1 one")
    model.writer.add_string("general.na@1ve", "odd")
    model.writer.add_array("general.tags", ["plain", "r@1sum@1"])
    model.close()
    path = FOLDER / "latin1-everywhere.gguf"
    path.write_bytes(path.read_bytes().replace(b"@1", b"\xe9\x80"))


if __name__ == "__main__":
    scales()
    tensors()
    keys()
    parts_and_others()
