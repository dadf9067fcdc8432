"""Adapter for ONNX Runtime, in its own language: a model of one node, inputs and outputs bound ahead.

usage: onnx_worker.py THREADS. Speaks the lines that worker.c does. What calling through Python costs, about ten
microseconds, is in its figures.
"""

import os
import sys
import time

import numpy
import onnx
import onnxruntime
from onnx import TensorProto, helper

SAMPLE_NS = 5e6
EPS = 1e-5
PLACES = 307
# Node by operation: type, domain, attributes, inputs beside x.
NODES = {
    "exp": ("Exp", "", {}, ()),
    "tanh": ("Tanh", "", {}, ()),
    "gelu_tanh": ("Gelu", "", {"approximate": "tanh"}, ()),
    "gelu_erf": ("Gelu", "", {"approximate": "none"}, ()),
    "silu": ("QuickGelu", "com.microsoft", {"alpha": 1.0}, ()),
    "softmax": ("Softmax", "", {"axis": -1}, ()),
    "layer_norm": ("LayerNormalization", "", {"epsilon": EPS}, ("weight", "bias")),
    "rms_norm": ("SimplifiedLayerNormalization", "", {"epsilon": EPS}, ("weight",)),
    "attention": ("MultiHeadAttention", "com.microsoft", {}, ()),
}


def session(op, inputs, constants, attributes, threads):
    """A model of one node over arrays by name, and what else the node takes."""
    kind, domain, own, _ = NODES[op]
    node = helper.make_node(kind, [*inputs, *constants], ["y"], domain=domain, **own, **attributes)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, array.shape) for name, array in inputs.items()]
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, next(iter(inputs.values())).shape)
    weights = [onnx.numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph([node], op, ends, [result], weights)
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=9)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def expected(op, x, parameters):
    """The result in f64."""
    x = x.astype(numpy.float64)
    if op == "softmax":
        powers = numpy.exp(x)
        return powers / powers.sum(axis=-1, keepdims=True)
    if op.endswith("norm"):
        x = x - x.mean(axis=-1, keepdims=True) if op == "layer_norm" else x
        y = x / numpy.sqrt((x * x).mean(axis=-1, keepdims=True) + EPS) * parameters["weight"]
        return y + parameters["bias"] if op == "layer_norm" else y
    if op == "gelu_erf":
        from math import erfc

        return x * numpy.vectorize(erfc)(-x / numpy.sqrt(2)) / 2
    functions = {
        "exp": numpy.exp,
        "tanh": numpy.tanh,
        "silu": lambda x: x / (1 + numpy.exp(-x)),
        "gelu_tanh": lambda x: x / (1 + numpy.exp(-2 * numpy.sqrt(2 / numpy.pi) * (x + 0.044715 * x**3))),
    }
    return functions[op](x)


def error(op, x, y, parameters):
    """Largest error, as a share of what is tolerated, over some rows or elements."""
    if op in ("softmax", "layer_norm", "rms_norm"):
        some = numpy.linspace(0, len(x) - 1, min(5, len(x))).astype(int)
        wanted = expected(op, x[some], parameters)
        tolerance = 2e-4 * wanted if op == "softmax" else 4e-5
        return float(numpy.max(numpy.abs(y[some] - wanted) / tolerance))
    some = numpy.linspace(0, x.size - 1, min(PLACES, x.size)).astype(int)
    wanted = expected(op, x[0, some], parameters)
    return float(numpy.max(numpy.abs(y[0, some] - wanted) / (1e-4 * (numpy.abs(wanted) + 1))))


def attention_error(inputs, y, heads, causal):
    """The same for some queries of each head; positions × heads × elements lie in that order."""
    length = y.shape[1]
    q, k, v, y = (array.reshape(length, heads, -1).astype(numpy.float64) for array in (*inputs.values(), y))
    worst = 0.0
    for query in (0, length // 3, length - 1):
        seen = query + 1 if causal else length
        scores = numpy.einsum("he,phe->hp", q[query], k[:seen]) / numpy.sqrt(q.shape[-1])
        weights = numpy.exp(scores) / numpy.exp(scores).sum(axis=-1, keepdims=True)
        wanted = numpy.einsum("hp,phe->he", weights, v[:seen])
        worst = max(worst, float(numpy.max(numpy.abs(y[query] - wanted))) / 4e-5)
    return worst


class Case:
    """`rows` × `columns`; for attention positions × elements of a head, with the heads and whether it is causal."""

    def __init__(self, op, rows, columns, heads, causal, threads):
        random = numpy.random.default_rng(1)
        parameters = {name: random.uniform(-1, 1, columns).astype(numpy.float32) for name in ("weight", "bias")}
        if op == "attention":
            shape, names, scale = (1, rows, heads * columns), "qkv", 1
            attributes = {"num_heads": heads, "unidirectional": causal}
        else:
            shape, names, scale, attributes = (rows, columns), "x", 6, {}
        inputs = {name: random.uniform(-scale, scale, shape).astype(numpy.float32) for name in names}
        constants = {name: parameters[name] for name in NODES[op][3]}
        self.session = session(op, inputs, constants, attributes, threads)
        self.binding = self.session.io_binding()
        self.values = {name: onnxruntime.OrtValue.ortvalue_from_numpy(array) for name, array in inputs.items()}
        for name, value in self.values.items():
            self.binding.bind_ortvalue_input(name, value)
        self.y = onnxruntime.OrtValue.ortvalue_from_numpy(numpy.zeros(shape, numpy.float32))
        self.binding.bind_ortvalue_output("y", self.y)
        self.time_calls(1)
        y = self.y.numpy()
        self.error = (
            attention_error(inputs, y, heads, causal) if op == "attention" else error(op, inputs["x"], y, parameters)
        )
        once = min(self.time_calls(1) for _ in range(3))
        self.calls = int(SAMPLE_NS / once) + 1

    def time_calls(self, count):
        run, binding = self.session.run_with_iobinding, self.binding
        start = time.perf_counter_ns()
        for _ in range(count):
            run(binding)
        return (time.perf_counter_ns() - start) / count

    def sample(self):
        if self.calls > 1:
            self.time_calls(self.calls // 10 + 1)
        return self.time_calls(self.calls)


def main():
    threads = int(sys.argv[1])
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    print("ready", file=answers)
    case = None
    for line in sys.stdin:
        words = line.split()
        if words[0] == "case":
            case = None
            if words[1] not in NODES:
                print("none not compared", file=answers)
                continue
            try:
                case = Case(words[1], *map(int, words[2:6]), threads)
                print(f"ready node {case.error:.3g}", file=answers)
            except Exception as failure:  # whatever it raises, the case can't be had
                print("none", " ".join(str(failure).split())[:200], file=answers)
        elif words[0] == "run":
            print(f"{case.sample():.1f}" if case else "none no case", file=answers)
        else:
            print(onnxruntime.__version__, file=answers)


if __name__ == "__main__":
    main()
