"""Makes gguf/hybrid-quant.gguf and gguf/short-conv.gguf: small random models with recurrent layers.

usage: hybrid_files.py

A Granite 4 with two state spaces around attention without positions, and an LFM2 with a short convolution before and
behind attention in a window. Made with gguf 0.19.0 and numpy 2.4.6.
"""

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf import quants

from gguf_files import Llama


class Hybrid(Llama):
    """Writes a Granite 4: attention in layer 1, state spaces in layers 0 and 2."""

    architecture, states_sizes = "granitehybrid", False
    heads, groups, state, taps = 4, 2, 12, 4

    def space(self, n, inwards, outwards):
        width, conv = 2 * self.width, 2 * self.width + 2 * self.groups * self.state
        part = f"blk.{n}.ssm_"
        self.matrix(f"{part}in", width + conv + self.heads, self.width, inwards, gain=2)
        self.matrix(f"{part}conv1d", conv, self.taps)
        self.plain(f"{part}conv1d.bias", self.rng.uniform(-0.5, 0.5, conv))
        self.plain(f"{part}dt.bias", self.rng.uniform(-2, 0, self.heads))
        self.plain(f"{part}a", self.rng.uniform(-1.5, -0.5, (self.heads, 1)))
        self.plain(f"{part}d", self.rng.uniform(0.5, 1.5, (self.heads, 1)))
        self.plain(f"{part}norm.weight", self.rng.uniform(0.5, 1.5, (self.groups, width // self.groups)))
        self.matrix(f"{part}out", self.width, width, outwards)

    def plain(self, name, values):
        self.writer.add_tensor(name, values.astype(np.float32))

    def add(self, name, values, kind):
        self.writer.add_tensor(f"{name}.weight", quants.quantize(values, kind), raw_dtype=kind)

    def mixer(self, n, kinds):
        if n == 1:
            q, k, v, o = kinds
            self.matrix(f"blk.{n}.attn_q", self.q, self.width, q, gain=2)
            self.matrix(f"blk.{n}.attn_k", self.kv, self.width, k, gain=2)
            self.matrix(f"blk.{n}.attn_v", self.kv, self.width, v)
            self.attention_extras(n)
            self.matrix(f"blk.{n}.attn_output", self.width, self.q, o)
        else:
            self.space(n, *kinds)

    def body(self, kinds, embedding=Type.F32):
        """`kinds` of the mixer's matrices, and of gate, up and down, a list a layer."""
        self.matrix("token_embd", self.vocab, self.width, embedding, gain=4)
        for n, (mixer, (gate, up, down)) in enumerate(kinds):
            self.norm(f"blk.{n}.attn_norm")
            self.mixer(n, mixer)
            self.norm(f"blk.{n}.ffn_norm")
            self.matrix(f"blk.{n}.ffn_gate", self.ffn, self.width, gate)
            self.matrix(f"blk.{n}.ffn_up", self.ffn, self.width, up)
            self.matrix(f"blk.{n}.ffn_down", self.width, self.ffn, down)
        self.norm("token_embd_norm" if self.architecture == "lfm2" else "output_norm")


class ShortConv(Hybrid):
    """Writes an LFM2: attention in layer 1, short convolutions in layers 0 and 2."""

    architecture = "lfm2"

    def space(self, n, inwards, outwards):
        self.matrix(f"blk.{n}.shortconv.in_proj", 3 * self.width, self.width, inwards, gain=2)
        self.matrix(f"blk.{n}.shortconv.conv", self.width, 3)
        self.matrix(f"blk.{n}.shortconv.out_proj", self.width, self.width, outwards)

    def attention_extras(self, n):
        for name in "q", "k":
            gains = self.rng.uniform(0.5, 1.5, self.head_dim).astype(np.float32)
            self.add(f"blk.{n}.attn_{name}_norm", gains, Type.F32)


def kv_heads(model):
    """Numbers of key/value heads of each layer, in place of one number."""
    name = f"{model.architecture}.attention.head_count_kv"
    model.writer.kv_data[0].pop(name, None)
    model.writer.add_array(name, [0, 2, 0])


def hybrid_quant():
    hybrid = Hybrid("hybrid-quant", 14, width=64, layers=3, heads=4, kv_heads=2, ffn=32, base=10000.0)
    kv_heads(hybrid)
    add = hybrid.writer.add_uint32
    for name, value in [
        ("conv_kernel", hybrid.taps),
        ("inner_size", 2 * hybrid.width),
        ("state_size", hybrid.state),
        ("time_step_rank", hybrid.heads),
        ("group_count", hybrid.groups),
    ]:
        add(f"granitehybrid.ssm.{name}", value)
    hybrid.writer.add_bool("granitehybrid.rope.scaling.finetuned", False)
    for name, value in [("residual_scale", 0.5), ("embedding_scale", 2.0), ("logit_scale", 2.0)]:
        hybrid.writer.add_float32(f"granitehybrid.{name}", value)
    t = Type
    hybrid.body(
        [
            ([t.Q8_0, t.Q4_0], [t.Q8_0, t.Q8_0, t.Q4_0]),
            ([t.Q4_0, t.Q8_0, t.F16, t.Q5_0], [t.Q4_0, t.Q8_0, t.F16]),
            ([t.F16, t.Q8_0], [t.F32, t.F32, t.F32]),
        ],
        embedding=t.Q8_0,
    )
    hybrid.close()


def short_conv():
    model = ShortConv("short-conv", 15, width=64, layers=3, heads=4, kv_heads=2, ffn=32, base=1000000.0)
    kv_heads(model)
    model.writer.add_uint32("lfm2.shortconv.l_cache", 3)
    model.writer.add_sliding_window(40)
    f, q = Type.F16, Type.Q8_0
    model.body([([Type.F32, f], [f, f, f]), ([f, f, f, f], [f, f, f]), ([q, q], [q, q, q])], embedding=f)
    model.close()


if __name__ == "__main__":
    hybrid_quant()
    short_conv()
