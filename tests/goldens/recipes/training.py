"""Makes training/FAMILY.gguf and training/FAMILY.gradients.gguf: a small random model, and PyTorch's loss and gradients.

usage: training.py

The forward passes are written out below on the tensors as the GGUF files have them, so that autograd's gradients are
those of the files' tensors. Everything is in f32. Made with gguf 0.19.0, numpy 1.26.4 and torch 2.2.2 on a CPU.
Layout in ../README.md.
"""

from pathlib import Path

import numpy as np
import torch
from gguf import GGUFWriter
from torch.nn.functional import cross_entropy, gelu, layer_norm, scaled_dot_product_attention, silu

FOLDER = Path(__file__).parent.parent / "training"
VOCAB, CONTEXT, DIM, INNER, LAYERS, BATCH = 40, 12, 16, 24, 2, 2
# Targets that don't count.
IGNORED = 0xFFFFFFFF
# The optimizer of the steps whose losses are kept; matrices alone decay.
STEPS, RATE, DECAY, CLIP = 5, 1e-2, 0.1, 0.5


class Family:
    def __init__(self, name, heads, heads_kv, head_dim, *, halves=False, tied=True, biased=False, normed=False):
        self.name, self.heads, self.heads_kv, self.head_dim = name, heads, heads_kv, head_dim
        self.halves, self.tied, self.biased, self.normed = halves, tied, biased, normed
        self.learned = name == "gpt2"

    def shapes(self):
        """Names and shapes of tensors, rows first."""
        q, kv = self.heads * self.head_dim, self.heads_kv * self.head_dim
        yield "token_embd.weight", (VOCAB, DIM)
        if self.learned:
            yield "position_embd.weight", (CONTEXT, DIM)
        for layer in range(LAYERS):
            for part, shape in self.parts(q, kv):
                yield f"blk.{layer}.{part}", shape
        yield "output_norm.weight", (DIM,)
        if self.learned:
            yield "output_norm.bias", (DIM,)
        if not self.tied:
            yield "output.weight", (VOCAB, DIM)

    def parts(self, q, kv):
        products = [("attn_output", q, DIM), ("ffn_up", DIM, INNER), ("ffn_down", INNER, DIM)]
        if self.learned:
            products.append(("attn_qkv", DIM, q + 2 * kv))
        else:
            products += [("attn_q", DIM, q), ("attn_k", DIM, kv), ("attn_v", DIM, kv), ("ffn_gate", DIM, INNER)]
        for part, inputs, outputs in products:
            yield f"{part}.weight", (outputs, inputs)
            if self.learned or self.biased and part in ("attn_q", "attn_k", "attn_v"):
                yield f"{part}.bias", (outputs,)
        for part in ("attn_norm", "ffn_norm"):
            yield f"{part}.weight", (DIM,)
            if self.learned:
                yield f"{part}.bias", (DIM,)
        if self.normed:
            yield "attn_q_norm.weight", (self.head_dim,)
            yield "attn_k_norm.weight", (self.head_dim,)

    def weights(self):
        generator = torch.Generator().manual_seed(17)
        weights = {}
        for name, shape in self.shapes():
            noise = torch.rand(shape, generator=generator) * 2 - 1
            if "norm.weight" in name:
                weights[name] = 1 + 0.25 * noise
            elif len(shape) == 1:
                weights[name] = 0.1 * noise
            elif "embd" in name:
                weights[name] = 0.5 * noise
            else:
                weights[name] = (3 / shape[1]) ** 0.5 * noise
        return weights

    def norm(self, w, x, part):
        if self.learned:
            return layer_norm(x, (DIM,), w[f"{part}.weight"], w[f"{part}.bias"], 1e-5)
        return rms(x, w[f"{part}.weight"])

    def linear(self, w, x, part):
        y = x @ w[f"{part}.weight"].T
        return y + w[f"{part}.bias"] if f"{part}.bias" in w else y

    def rotated(self, x):
        """Heads rotated by their positions, in pairs of adjacent elements or of elements half a head apart."""
        half = self.head_dim // 2
        angle = torch.arange(CONTEXT)[:, None] * 10000.0 ** (-2 * torch.arange(half) / self.head_dim)
        cos, sin = angle.cos(), angle.sin()
        a, b = (x[..., :half], x[..., half:]) if self.halves else (x[..., ::2], x[..., 1::2])
        a, b = a * cos - b * sin, a * sin + b * cos
        return torch.cat([a, b], -1) if self.halves else torch.stack([a, b], -1).flatten(-2)

    def attention(self, w, x, block):
        if self.learned:
            q, k, v = self.linear(w, x, f"{block}attn_qkv").split(DIM, -1)
        else:
            q, k, v = (self.linear(w, x, f"{block}attn_{part}") for part in "qkv")
        q, k, v = (x.view(BATCH, CONTEXT, -1, self.head_dim).transpose(1, 2) for x in (q, k, v))
        if self.normed:
            q, k = rms(q, w[f"{block}attn_q_norm.weight"]), rms(k, w[f"{block}attn_k_norm.weight"])
        if not self.learned:
            q, k = self.rotated(q), self.rotated(k)
        k, v = (x.repeat_interleave(self.heads // self.heads_kv, 1) for x in (k, v))
        y = scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.linear(w, y.transpose(1, 2).flatten(2), f"{block}attn_output")

    def mlp(self, w, x, block):
        up = self.linear(w, x, f"{block}ffn_up")
        inner = gelu(up, approximate="tanh") if self.learned else silu(self.linear(w, x, f"{block}ffn_gate")) * up
        return self.linear(w, inner, f"{block}ffn_down")

    def loss(self, w, tokens, targets):
        x = w["token_embd.weight"][tokens]
        if self.learned:
            x = x + w["position_embd.weight"]
        for layer in range(LAYERS):
            block = f"blk.{layer}."
            x = x + self.attention(w, self.norm(w, x, f"{block}attn_norm"), block)
            x = x + self.mlp(w, self.norm(w, x, f"{block}ffn_norm"), block)
        x = self.norm(w, x, "output_norm")
        logits = x @ w["token_embd.weight" if self.tied else "output.weight"].T
        return cross_entropy(logits.view(-1, VOCAB), targets.view(-1), ignore_index=IGNORED)

    def write(self, path, tensors, add=lambda writer: None):
        writer = GGUFWriter(path, self.name)
        writer.add_vocab_size(VOCAB)
        writer.add_context_length(CONTEXT)
        writer.add_embedding_length(DIM)
        writer.add_block_count(LAYERS)
        writer.add_feed_forward_length(INNER)
        writer.add_head_count(self.heads)
        writer.add_head_count_kv(self.heads_kv)
        if self.learned:
            writer.add_layer_norm_eps(1e-5)
        else:
            writer.add_layer_norm_rms_eps(1e-5)
            writer.add_key_length(self.head_dim)
            writer.add_value_length(self.head_dim)
            writer.add_rope_dimension_count(self.head_dim)
            writer.add_rope_freq_base(10000.0)
        writer.add_tokenizer_model("no_vocab")
        add(writer)
        for name, tensor in tensors.items():
            writer.add_tensor(name, tensor.detach().numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def rms(x, gain):
    return x * (x.square().mean(-1, keepdim=True) + 1e-5).rsqrt() * gain


def main():
    torch.set_num_threads(1)
    FOLDER.mkdir(exist_ok=True)
    for family in (
        Family("gpt2", 4, 4, 4),
        Family("llama", 4, 2, 4, tied=False),
        Family("qwen2", 2, 1, 8, halves=True, biased=True),
        Family("qwen3", 2, 1, 12, halves=True, normed=True),
    ):
        weights = {name: tensor.requires_grad_() for name, tensor in family.weights().items()}
        family.write(FOLDER / f"{family.name}.gguf", weights)
        tokens = np.arange(BATCH * CONTEXT) ** 2 * 7 % 37
        targets = (tokens * 5 + 3) % VOCAB
        targets[[4, 13]] = IGNORED
        batch = [torch.from_numpy(x).view(BATCH, CONTEXT) for x in (tokens, targets)]
        loss = family.loss(weights, *batch)
        loss.backward()
        gradients = {name: tensor.grad.clone() for name, tensor in weights.items()}
        groups = [
            {"params": [w for w in weights.values() if w.dim() > 1], "weight_decay": DECAY},
            {"params": [w for w in weights.values() if w.dim() == 1], "weight_decay": 0.0},
        ]
        optimizer = torch.optim.AdamW(groups, lr=RATE, betas=(0.9, 0.95), eps=1e-8)
        losses = []
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = family.loss(weights, *batch)
            loss.backward()
            torch.nn.utils.clip_grad_norm_(list(weights.values()), CLIP)
            optimizer.step()
            losses.append(loss.item())

        def add(writer):
            writer.add_array("training.tokens", [int(x) for x in tokens])
            writer.add_array("training.targets", [int(x) - (1 << 32 if x == IGNORED else 0) for x in targets])
            writer.add_array("training.losses", losses)

        family.write(FOLDER / f"{family.name}.gradients.gguf", gradients, add)
        print(family.name, losses)


if __name__ == "__main__":
    main()
