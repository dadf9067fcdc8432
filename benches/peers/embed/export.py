"""Writes all-MiniLM-L6-v2 in the forms that the other programs read.

usage: export.py BERT_FOLDER OUTPUT_FOLDER

plain.onnx has operators of the standard; fused.onnx those of ONNX Runtime (attention, norms of sums), which its own
optimiser makes of models of this kind; int8.onnx and int8_channels.onnx are fused.onnx quantised by ONNX Runtime for
dynamic quantisation, with a scale for each matrix and for each output. ctranslate2/ and ctranslate2_int8/ are
CTranslate2's.
"""

import sys
from pathlib import Path

import ctranslate2
import numpy as np
import onnx
from bert import Bert
from ctranslate2.specs import common_spec, transformer_spec
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType, quantize_dynamic

CONTRIB = "com.microsoft"


class Builder:
    """An ONNX graph: nodes in order, constants by value."""

    def __init__(self, bert, fused):
        self.bert, self.fused = bert, fused
        self.nodes, self.constants = [], []

    def constant(self, values, dtype=np.float32):
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values, dtype), name))
        return name

    def __call__(self, op, *inputs, outputs=1, domain="", **attributes):
        names = [f"v{len(self.nodes)}_{n}" for n in range(outputs)]
        self.nodes.append(helper.make_node(op, inputs, names, domain=domain, **attributes))
        return names[0]

    def matmul(self, x, weight):
        return self("MatMul", x, self.constant(weight.T))

    def linear(self, x, weight, bias):
        return self("Add", self.matmul(x, weight), self.constant(bias))

    def norm(self, x, name):
        gain, bias = map(self.constant, self.bert.norm(name))
        return self("LayerNormalization", x, gain, bias, axis=-1, epsilon=self.bert.epsilon)

    def norm_of_sum(self, x, heads, weight, bias, name):
        """The norm of x + (heads · weightᵀ + bias)."""
        if not self.fused:
            return self.norm(self("Add", self.linear(heads, weight, bias), x), name)
        inputs = [self.matmul(heads, weight), x, *map(self.constant, self.bert.norm(name)), self.constant(bias)]
        return self("SkipLayerNormalization", *inputs, domain=CONTRIB, epsilon=self.bert.epsilon)

    def embeddings(self):
        words = self("Gather", self.constant(self.bert["embeddings.word_embeddings.weight"]), "input_ids")
        length = self("Shape", "input_ids", start=1, end=2)
        zero, one = self.constant([0], np.int64), self.constant([1], np.int64)
        places = self("Slice", self.constant(self.bert.positions()), zero, length, zero, one)
        return self.norm(self("Add", words, places), "embeddings.LayerNorm")

    def attention(self, x, layer, mask):
        weight, bias = self.bert.qkv(layer)
        if self.fused:
            inputs = [x, self.constant(weight.T), self.constant(bias), mask]
            return self("Attention", *inputs, domain=CONTRIB, num_heads=self.bert.heads)
        width, heads = self.bert.width, self.bert.heads
        split = self.constant([0, 0, heads, width // heads], np.int64)
        parts = []
        for part, order in enumerate([(0, 2, 1, 3), (0, 2, 3, 1), (0, 2, 1, 3)]):
            rows = slice(part * width, (part + 1) * width)
            product = self.linear(x, weight[rows], bias[rows])
            parts.append(self("Transpose", self("Reshape", product, split), perm=order))
        scale = self.constant((width / heads) ** -0.5)
        scores = self("Add", self("Mul", self("MatMul", parts[0], parts[1]), scale), mask)
        joined = self("MatMul", self("Softmax", scores, axis=-1), parts[2])
        joined = self("Transpose", joined, perm=(0, 2, 1, 3))
        return self("Reshape", joined, self.constant([0, 0, width], np.int64))

    def mask(self):
        """32-bit integers for the fused operator; otherwise a number that is added to scores."""
        if self.fused:
            return self("Cast", "attention_mask", to=TensorProto.INT32)
        floats = self("Cast", "attention_mask", to=TensorProto.FLOAT)
        absent = self("Mul", self("Sub", floats, self.constant(1.0)), self.constant(1e9))
        return self("Unsqueeze", absent, self.constant([1, 2], np.int64))

    def pooled(self, x):
        """The mean of the rows that aren't padding, at length 1."""
        weights = self("Unsqueeze", self("Cast", "attention_mask", to=TensorProto.FLOAT), self.constant([2], np.int64))
        axis = self.constant([1], np.int64)
        total = self("ReduceSum", self("Mul", x, weights), axis, keepdims=0)
        count = self("ReduceSum", weights, axis, keepdims=0)
        return self("LpNormalization", self("Div", total, count), axis=-1, p=2)

    def model(self):
        bert, mask = self.bert, self.mask()
        x = self.embeddings()
        for layer in range(bert.layers):
            name = f"encoder.layer.{layer}"
            heads = self.attention(x, layer, mask)
            dense = bert.linear(layer, "attention.output.dense")
            x = self.norm_of_sum(x, heads, *dense, f"{name}.attention.output.LayerNorm")
            weight, bias = bert.linear(layer, "intermediate.dense")
            if self.fused:
                inner = self("BiasGelu", self.matmul(x, weight), self.constant(bias), domain=CONTRIB)
            else:
                inner = self("Gelu", self.linear(x, weight, bias))
            x = self.norm_of_sum(x, inner, *bert.linear(layer, "output.dense"), f"{name}.output.LayerNorm")
        vector = self.pooled(x)
        inputs = [
            helper.make_tensor_value_info(name, TensorProto.INT64, ["texts", "tokens"])
            for name in ("input_ids", "attention_mask")
        ]
        output = helper.make_tensor_value_info(vector, TensorProto.FLOAT, ["texts", bert.width])
        graph = helper.make_graph(self.nodes, "bert", inputs, [output], self.constants)
        opsets = [helper.make_opsetid("", 20), helper.make_opsetid(CONTRIB, 1)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=10)


def write_ctranslate2(bert, folder, quantization):
    """CTranslate2's form, as its converter makes it of Hugging Face's class."""
    spec = transformer_spec.TransformerEncoderModelSpec(
        transformer_spec.TransformerEncoderSpec(
            bert.layers,
            bert.heads,
            pre_norm=False,
            activation=common_spec.Activation.GELU,
            layernorm_embedding=True,
        )
    )
    spec.register_vocabulary(bert.vocabulary)
    spec.config.unk_token, spec.config.layer_norm_epsilon = "[UNK]", bert.epsilon
    encoder = spec.encoder
    encoder.scale_embeddings = False

    def linear(part, weight, bias):
        # Quantising writes into it.
        part.weight, part.bias = weight.copy(), bias

    def norm(part, name):
        part.gamma, part.beta = bert.norm(name)

    encoder.embeddings[0].weight = bert["embeddings.word_embeddings.weight"].copy()
    encoder.position_encodings.encodings = bert.positions()
    norm(encoder.layernorm_embedding, "embeddings.LayerNorm")
    for n, layer in enumerate(encoder.layer):
        name = f"encoder.layer.{n}"
        linear(layer.self_attention.linear[0], *bert.qkv(n))
        linear(layer.self_attention.linear[1], *bert.linear(n, "attention.output.dense"))
        norm(layer.self_attention.layer_norm, f"{name}.attention.output.LayerNorm")
        linear(layer.ffn.linear_0, *bert.linear(n, "intermediate.dense"))
        linear(layer.ffn.linear_1, *bert.linear(n, "output.dense"))
        norm(layer.ffn.layer_norm, f"{name}.output.LayerNorm")
    spec.validate()
    spec.optimize(quantization=quantization)
    folder.mkdir(exist_ok=True)
    spec.save(str(folder))


def main():
    bert, folder = Bert(sys.argv[1]), Path(sys.argv[2])
    for name, fused in (("plain", False), ("fused", True)):
        model = Builder(bert, fused).model()
        if not fused:
            onnx.checker.check_model(model)
        onnx.save(model, folder / f"{name}.onnx")
    for name, per_channel in (("int8", False), ("int8_channels", True)):
        quantize_dynamic(
            folder / "fused.onnx",
            folder / f"{name}.onnx",
            op_types_to_quantize=["MatMul", "Attention"],
            per_channel=per_channel,
            weight_type=QuantType.QInt8,
            extra_options={"DefaultTensorType": TensorProto.FLOAT},
        )
    for name, quantization in (("ctranslate2", None), ("ctranslate2_int8", "int8")):
        write_ctranslate2(bert, folder / name, quantization)
    print(f"written with ctranslate2 {ctranslate2.__version__}, onnx {onnx.__version__}")


if __name__ == "__main__":
    main()
