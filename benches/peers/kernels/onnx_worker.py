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
}


def session(op, rows, columns, parameters, threads):
    kind, domain, attributes, names = NODES[op]
    node = helper.make_node(kind, ["x", *names], ["y"], domain=domain, **attributes)
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, columns]) for name in "xy"]
    constants = [onnx.numpy_helper.from_array(parameters[name], name) for name in names]
    graph = helper.make_graph([node], op, ends[:1], ends[1:], constants)
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


class Case:
    def __init__(self, op, rows, columns, threads):
        random = numpy.random.default_rng(1)
        parameters = {name: random.uniform(-1, 1, columns).astype(numpy.float32) for name in ("weight", "bias")}
        x = random.uniform(-6, 6, (rows, columns)).astype(numpy.float32)
        self.session = session(op, rows, columns, parameters, threads)
        self.binding = self.session.io_binding()
        self.x, self.y = onnxruntime.OrtValue.ortvalue_from_numpy(x), onnxruntime.OrtValue.ortvalue_from_numpy(x * 0)
        self.binding.bind_ortvalue_input("x", self.x)
        self.binding.bind_ortvalue_output("y", self.y)
        self.time_calls(1)
        self.error = error(op, x, self.y.numpy(), parameters)
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
                case = Case(words[1], int(words[2]), int(words[3]), threads)
                print(f"ready node {case.error:.3g}", file=answers)
            except Exception as failure:  # whatever it raises, the case can't be had
                print("none", " ".join(str(failure).split())[:200], file=answers)
        elif words[0] == "run":
            print(f"{case.sample():.1f}" if case else "none no case", file=answers)
        else:
            print(onnxruntime.__version__, file=answers)


if __name__ == "__main__":
    main()
