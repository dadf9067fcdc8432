"""Checks gguf/*.logits.bin: how far a plain forward pass in f64 is from each.

A second opinion on what llama.cpp was asked: every family is written out here, from the
weights that gguf decodes. Made with gguf 0.19.0 and numpy 2.4.6.

usage: forward.py [NAME...]
"""

import struct
import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader
from gguf.quants import dequantize

FOLDER = Path(__file__).parent.parent / "gguf"


class File:
    """A model file: its numbers by key without the architecture, its tensors in f64."""

    def __init__(self, path):
        reader = GGUFReader(path)
        self.fields = reader.fields
        self.architecture = self.fields["general.architecture"].contents()
        self.tensors = {
            tensor.name: np.float64(dequantize(tensor.data, tensor.tensor_type)) for tensor in reader.tensors
        }

    def number(self, key, default=None):
        field = self.fields.get(f"{self.architecture}.{key}")
        return default if field is None else field.contents()

    def linear(self, name, x):
        """`x` times the matrix and its scale, plus the bias, if there are such.

        llama.cpp has no scales in the MLPs of GPT-2 and Qwen 2.
        """
        scaled = ".ffn_" not in name or self.architecture not in ("gpt2", "qwen2")
        product = x @ self.tensors[f"{name}.weight"].T
        if scaled:
            product = product * self.tensors.get(f"{name}.scale", 1)
        return product + self.tensors.get(f"{name}.bias", 0)

    def head(self, x):
        """Logits: of the head, or of the embedding's rows where that is tied."""
        tied = "output.weight" not in self.tensors
        return self.linear("token_embd" if tied else "output", x)


def attention(q, k, v):
    """Causal attention of q [position, head, dim] on k and v, which each serve as many heads."""
    positions, heads, dim = q.shape
    k, v = (np.repeat(x, heads // x.shape[1], axis=1) for x in (k, v))
    scores = np.einsum("phd,shd->hps", q, k) / dim**0.5
    scores[:, ~np.tri(positions, dtype=bool)] = -np.inf
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    return np.einsum("hps,shd->phd", weights, v).reshape(positions, -1)


def rotated(file, x):
    """`x` [position, head, dim], rotated: Llama's pairs are neighbours, Qwen's dim ÷ 2 apart."""
    positions, _, dim = x.shape
    frequencies = file.number("rope.freq_base", 10000.0) ** (-np.arange(0, dim, 2) / dim)
    frequencies /= file.tensors.get("rope_freqs.weight", 1.0) * file.number("rope.scaling.factor", 1.0)
    angles = np.outer(np.arange(positions), frequencies)[:, None, :]
    first, second = (
        (slice(0, None, 2), slice(1, None, 2))
        if file.architecture == "llama"
        else (slice(0, dim // 2), slice(dim // 2, None))
    )
    a, b = x[..., first], x[..., second]
    out = np.empty_like(x)
    out[..., first] = a * np.cos(angles) - b * np.sin(angles)
    out[..., second] = a * np.sin(angles) + b * np.cos(angles)
    return out


def llama(file, tokens):
    """Llama, Qwen2 (biases, which `linear` adds) and Qwen3 (each head's query and key normed)."""
    epsilon = file.number("attention.layer_norm_rms_epsilon")
    heads, kv_heads = file.number("attention.head_count"), file.number("attention.head_count_kv")

    def norm(name, x):
        return x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + epsilon) * file.tensors[f"{name}.weight"]

    def queries_or_keys(name, count, x):
        x = file.linear(name, x).reshape(len(tokens), count, -1)
        if f"{name}_norm.weight" in file.tensors:
            x = norm(f"{name}_norm", x)
        return rotated(file, x)

    x = file.tensors["token_embd.weight"][tokens]
    for n in range(file.number("block_count")):
        block = f"blk.{n}."
        h = norm(block + "attn_norm", x)
        q = queries_or_keys(block + "attn_q", heads, h)
        k = queries_or_keys(block + "attn_k", kv_heads, h)
        v = file.linear(block + "attn_v", h).reshape(len(tokens), kv_heads, -1)
        x = x + file.linear(block + "attn_output", attention(q, k, v))
        h = norm(block + "ffn_norm", x)
        gate = file.linear(block + "ffn_gate", h)
        x = x + file.linear(block + "ffn_down", gate / (1 + np.exp(-gate)) * file.linear(block + "ffn_up", h))
    return file.head(norm("output_norm", x))


def gpt2(file, tokens):
    """GPT-2, its GELU in the form with tanh."""
    epsilon = file.number("attention.layer_norm_epsilon")
    heads = file.number("attention.head_count")

    def norm(name, x):
        x = x - x.mean(axis=-1, keepdims=True)
        x = x / np.sqrt((x * x).mean(axis=-1, keepdims=True) + epsilon)
        return x * file.tensors[f"{name}.weight"] + file.tensors[f"{name}.bias"]

    x = file.tensors["token_embd.weight"][tokens] + file.tensors["position_embd.weight"][: len(tokens)]
    for n in range(file.number("block_count")):
        block = f"blk.{n}."
        qkv = file.linear(block + "attn_qkv", norm(block + "attn_norm", x))
        q, k, v = (part.reshape(len(tokens), heads, -1) for part in np.split(qkv, 3, axis=-1))
        x = x + file.linear(block + "attn_output", attention(q, k, v))
        up = file.linear(block + "ffn_up", norm(block + "ffn_norm", x))
        gelu = up / 2 * (1 + np.tanh((2 / np.pi) ** 0.5 * (up + 0.044715 * up**3)))
        x = x + file.linear(block + "ffn_down", gelu)
    return file.head(norm("output_norm", x))


def main(names):
    for name in names or sorted(path.name[: -len(".logits.bin")] for path in FOLDER.glob("*.logits.bin")):
        data = FOLDER.joinpath(f"{name}.logits.bin").read_bytes()
        magic, version, positions, vocabulary = struct.unpack_from("<4s3I", data)
        assert (magic, version) == (b"SMLG", 1), name
        tokens = np.frombuffer(data, "<u4", positions, 16)
        golden = np.frombuffer(data, "<f4", offset=16 + 4 * positions).reshape(positions, vocabulary)
        file = File(FOLDER / f"{name.removesuffix('-8bit')}.gguf")
        off = (gpt2 if file.architecture == "gpt2" else llama)(file, tokens) - golden
        print(f"{name}: largest logit {abs(golden).max():.2f}, off by {abs(off).max():.1e} at most")


if __name__ == "__main__":
    main(sys.argv[1:])
