"""Models with random weights in the shapes of families with recurrent layers, for the comparison of speed: short
convolutions, gated delta nets, and both kinds of state spaces. The larger ones have fewer layers.
"""

import numpy as np
from shapes import Writer


class Recurrent(Writer):
    """A file of a family with recurrent layers."""

    def floats(self, name, *shape, low=-0.3, high=0.3):
        self.file.add_tensor(name, self.rng.uniform(low, high, shape).astype(np.float32))

    def small_matrix(self, name, rows, k):
        """A matrix whose rows are no whole blocks, which files keep in f32."""
        self.file.add_tensor(f"{name}.weight", self.rng.normal(0, k**-0.5, (rows, k)).astype(np.float32))

    def state_space(self, taps, inner, state, rank, groups):
        self.file.add_ssm_conv_kernel(taps)
        self.file.add_ssm_inner_size(inner)
        self.file.add_ssm_state_size(state)
        self.file.add_ssm_time_step_rank(rank)
        self.file.add_ssm_group_count(groups)

    def steps(self, block, *shape):
        """Decays per token between 0.9 and 0.999, mostly."""
        self.floats(f"{block}.ssm_a", *shape, low=-4.0, high=-1.0)
        self.floats(f"{block}.ssm_dt.bias", shape[0], low=-6.0, high=-3.0)


def lfm2(path, kind):
    """LFM2-350M's shape: 16 layers, of which 6 have attention."""
    attends = {2, 5, 8, 10, 12, 14}
    w = Recurrent(path, "lfm2", kind, 16, 1024, 4608, 16, [8 if n in attends else 0 for n in range(16)], 64, 8192)
    w.kv_heads = 8
    w.file.add_shortconv_l_cache(3)
    w.vocabulary(65536)
    w.norm("token_embd_norm", 1024)
    for n in range(16):
        block = f"blk.{n}"
        if n in attends:
            w.attention(block)
        else:
            w.norm(f"{block}.attn_norm", 1024)
            w.matrix(f"{block}.shortconv.in_proj", 3072, 1024)
            w.floats(f"{block}.shortconv.conv.weight", 1024, 3)
            w.matrix(f"{block}.shortconv.out_proj", 1024, 1024)
            w.norm(f"{block}.ffn_norm", 1024)
        w.mlp(block, 4608)
    w.close()


def qwen35(path, kind):
    """Qwen3.5-0.8B's shape, 8 of its 24 layers: three with the delta rule, one with attention."""
    w = Recurrent(path, "qwen35", kind, 8, 1024, 3584, 8, 2, 256, 8192)
    w.file.add_rope_dimension_count(64)
    w.file.add_rope_dimension_sections([11, 11, 10, 0])
    w.state_space(4, 2048, 128, 16, 16)
    w.vocabulary(65536)
    w.norm("output_norm", 1024)
    for n in range(8):
        block = f"blk.{n}"
        w.norm(f"{block}.attn_norm", 1024)
        w.norm(f"{block}.post_attention_norm", 1024)
        if n % 4 == 3:
            w.norm(f"{block}.attn_q_norm", 256)
            w.norm(f"{block}.attn_k_norm", 256)
            w.matrix(f"{block}.attn_q", 4096, 1024)
            w.matrix(f"{block}.attn_k", 512, 1024)
            w.matrix(f"{block}.attn_v", 512, 1024)
            w.matrix(f"{block}.attn_output", 1024, 2048)
        else:
            w.matrix(f"{block}.attn_qkv", 6144, 1024)
            w.matrix(f"{block}.attn_gate", 2048, 1024)
            w.matrix(f"{block}.ssm_alpha", 16, 1024)
            w.matrix(f"{block}.ssm_beta", 16, 1024)
            w.floats(f"{block}.ssm_conv1d.weight", 6144, 4)
            w.steps(block, 16)
            w.norm(f"{block}.ssm_norm", 128)
            w.matrix(f"{block}.ssm_out", 1024, 2048)
        w.mlp(block, 3584)
    w.close()


def granite4(path, kind):
    """Granite-4.0-H-Tiny's shape, 12 of its 40 layers: Mamba-2 in 11, attention in one, 6 of 64 experts."""
    w = Recurrent(path, "granitehybrid", kind, 12, 1536, 512, 12, [4 if n == 5 else 0 for n in range(12)], 128, 8192)
    w.state_space(4, 3072, 128, 48, 1)
    w.file.add_rope_scaling_finetuned(False)
    w.file.add_expert_count(64)
    w.file.add_expert_used_count(6)
    w.file.add_expert_shared_feed_forward_length(1024)
    w.vocabulary(100352)
    w.norm("output_norm", 1536)
    for n in range(12):
        block = f"blk.{n}"
        w.norm(f"{block}.attn_norm", 1536)
        w.norm(f"{block}.ffn_norm", 1536)
        if n == 5:
            w.matrix(f"{block}.attn_q", 1536, 1536)
            w.matrix(f"{block}.attn_k", 512, 1536)
            w.matrix(f"{block}.attn_v", 512, 1536)
            w.matrix(f"{block}.attn_output", 1536, 1536)
        else:
            mamba2(w, block, 1536, 3072, 128, 48)
        w.small_matrix(f"{block}.ffn_gate_inp", 64, 1536)
        w.matrix(f"{block}.ffn_gate_exps", 64, 512, 1536)
        w.matrix(f"{block}.ffn_up_exps", 64, 512, 1536)
        w.matrix(f"{block}.ffn_down_exps", 64, 1536, 512)
        w.matrix(f"{block}.ffn_gate_shexp", 1024, 1536)
        w.matrix(f"{block}.ffn_up_shexp", 1024, 1536)
        w.matrix(f"{block}.ffn_down_shexp", 1536, 1024)
    w.close()


def mamba2(w, block, width, inner, state, heads):
    """Tensors of one Mamba-2 with one group of heads."""
    w.matrix(f"{block}.ssm_in", 2 * inner + 2 * state + heads, width)
    w.floats(f"{block}.ssm_conv1d.weight", inner + 2 * state, 4)
    w.floats(f"{block}.ssm_conv1d.bias", inner + 2 * state)
    w.steps(block, heads, 1)
    w.floats(f"{block}.ssm_d", heads, 1)
    w.file.add_tensor(f"{block}.ssm_norm.weight", np.ones((1, inner), np.float32))
    w.matrix(f"{block}.ssm_out", width, inner)


def mamba(path, kind):
    """Mamba-130M's shape."""
    w = Recurrent(path, "mamba", kind, 24, 768, 0, 0, 0, 64, 8192)
    w.state_space(4, 1536, 16, 48, 0)
    w.vocabulary(50304)
    w.norm("output_norm", 768)
    for n in range(24):
        block = f"blk.{n}"
        w.norm(f"{block}.attn_norm", 768)
        w.matrix(f"{block}.ssm_in", 3072, 768)
        w.floats(f"{block}.ssm_conv1d.weight", 1536, 4)
        w.floats(f"{block}.ssm_conv1d.bias", 1536)
        w.matrix(f"{block}.ssm_x", 80, 1536)
        w.small_matrix(f"{block}.ssm_dt", 1536, 48)
        w.steps(block, 1536, 16)
        w.floats(f"{block}.ssm_d", 1536)
        w.matrix(f"{block}.ssm_out", 768, 1536)
    w.close()


RECURRENT = {
    "LFM2-350M-shape": (lfm2, ["Q8_0"]),
    "Qwen3.5-8-layers": (qwen35, ["Q8_0"]),
    "Granite4-H-12-layers": (granite4, ["Q4_0"]),
    "Mamba-130M-shape": (mamba, ["Q8_0"]),
}
