"""all-MiniLM-L6-v2 out of its folder of Hugging Face: its weights, and its vectors in plain f64 numpy, the measure of
all programs that are compared.
"""

import json
import struct
from math import erf
from pathlib import Path

import numpy as np

# The error function between these points is linear to 2e-11.
_POINTS = np.linspace(-6, 6, 1_000_001)
_ERF = np.array([erf(x) for x in _POINTS])


class Bert:
    """Weights by their names, with the hyperparameters that the comparison needs."""

    def __init__(self, folder):
        self.folder = Path(folder)
        config = json.loads((self.folder / "config.json").read_text())
        self.layers, self.width = config["num_hidden_layers"], config["hidden_size"]
        self.heads, self.epsilon = config["num_attention_heads"], config["layer_norm_eps"]
        self.vocabulary = (self.folder / "vocab.txt").read_text().splitlines()
        data = (self.folder / "model.safetensors").read_bytes()
        (size,) = struct.unpack_from("<Q", data)
        header, begin = json.loads(data[8 : 8 + size]), 8 + size
        self.weights = {}
        for name, tensor in header.items():
            if tensor.get("dtype") == "F32":
                first, end = tensor["data_offsets"]
                values = np.frombuffer(data[begin + first : begin + end], np.float32)
                self.weights[name] = values.reshape(tensor["shape"])

    def __getitem__(self, name):
        return self.weights[name]

    def linear(self, layer, name):
        """Weights (outputs × inputs) and bias of a product of a layer."""
        name = f"encoder.layer.{layer}.{name}"
        return self[f"{name}.weight"], self[f"{name}.bias"]

    def qkv(self, layer):
        """Query, key and value as one product."""
        parts = [self.linear(layer, f"attention.self.{part}") for part in ("query", "key", "value")]
        return np.concatenate([weight for weight, _ in parts]), np.concatenate([bias for _, bias in parts])

    def norm(self, name):
        return self[f"{name}.weight"], self[f"{name}.bias"]

    def positions(self):
        """Position embeddings with that of token type 0, which every token has here."""
        types = self["embeddings.token_type_embeddings.weight"]
        return self["embeddings.position_embeddings.weight"] + types[0]

    def vector(self, tokens):
        """The vector of a text in f64."""

        def norm(x, name):
            gain, bias = (part.astype(np.float64) for part in self.norm(name))
            x = x - x.mean(-1, keepdims=True)
            return x / np.sqrt((x * x).mean(-1, keepdims=True) + self.epsilon) * gain + bias

        def product(x, weight, bias):
            return x @ weight.T.astype(np.float64) + bias

        words = self["embeddings.word_embeddings.weight"][tokens].astype(np.float64)
        x = norm(words + self.positions()[: len(tokens)], "embeddings.LayerNorm")
        for layer in range(self.layers):
            name = f"encoder.layer.{layer}"
            qkv = product(x, *self.qkv(layer)).reshape(len(tokens), 3, self.heads, -1)
            query, key, value = np.moveaxis(qkv, (1, 2), (0, 1))
            scores = query @ key.swapaxes(1, 2) / np.sqrt(query.shape[-1])
            scores = np.exp(scores - scores.max(-1, keepdims=True))
            heads = scores / scores.sum(-1, keepdims=True) @ value
            heads = heads.swapaxes(0, 1).reshape(len(tokens), -1)
            dense = product(heads, *self.linear(layer, "attention.output.dense"))
            x = norm(x + dense, f"{name}.attention.output.LayerNorm")
            inner = product(x, *self.linear(layer, "intermediate.dense"))
            inner = inner * 0.5 * (1 + np.interp(inner / np.sqrt(2), _POINTS, _ERF))
            x = norm(x + product(inner, *self.linear(layer, "output.dense")), f"{name}.output.LayerNorm")
        mean = x.mean(0)
        return mean / np.linalg.norm(mean)
