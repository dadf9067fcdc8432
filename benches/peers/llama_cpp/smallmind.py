"""smallmind through its C ABI, for the comparisons in this folder: load, decode, logits, greedy text.

Structures are read from include/smallmind.h, so fields that are added to them can be set by name.
"""

import ctypes
import re
from pathlib import Path

import numpy as np

HEADER = Path(__file__).resolve().parents[3] / "include" / "smallmind.h"
LOGITS_LAST, LOGITS_ALL = 1, 2
TYPES = {
    "size_t": ctypes.c_size_t,
    "int32_t": ctypes.c_int32,
    "uint32_t": ctypes.c_uint32,
    "uint64_t": ctypes.c_uint64,
    "float": ctypes.c_float,
}


def structure(name):
    """The structure `name` of the header; pointers and callbacks are addresses, texts C strings."""
    text = re.sub(r"//[^\n]*", "", HEADER.read_text())
    body = re.search(r"typedef struct \{([^}]*)\} " + name + ";", text).group(1)
    fields = []
    for line in filter(None, map(str.strip, body.split(";"))):
        kind, field = re.fullmatch(r"(.*?)\s*(\w+)", line, re.DOTALL).groups()
        if kind == "const char *":
            fields.append((field, ctypes.c_char_p))
        else:
            fields.append((field, TYPES.get(kind, ctypes.c_void_p)))
    return type(name, (ctypes.Structure,), {"_fields_": fields})


def cache_type(kind):
    """Of the parameters of a context, the one that makes its cache `kind`; none where there is no choice."""
    value = re.search(rf"#define SM_(?:KV|CACHE)_(?:TYPE_)?{kind.upper()} (\d+)", HEADER.read_text())
    fields = [name for name, _ in structure("sm_context_params")._fields_ if re.match("kv|cache", name)]
    return {fields[0]: int(value.group(1))} if value and fields else {}


def activations(kind):
    """The parameter of a model for activations "16", "auto" or "8"; nothing where the library lacks it."""
    value = re.search(r"#define SM_ACTIVATION_BITS_AUTO (-?\d+)", HEADER.read_text())
    if kind == "auto":
        return {"activation_bits": int(value.group(1))} if value else None
    return {"activation_bits": int(kind)}


class Failure(Exception):
    """What the library said of a call that failed."""


class Library:
    """The shared library at `path`."""

    def __init__(self, path):
        self.dll = ctypes.CDLL(str(path))
        self.dll.sm_last_error.restype = ctypes.c_char_p

    def call(self, function, *arguments):
        if getattr(self.dll, function)(*arguments) != 0:
            raise Failure(self.dll.sm_last_error().decode())

    def params(self, name, **values):
        """Parameters of kind `name`, such as "model", with some set and the others as they come."""
        kind = structure(f"sm_{name}_params")
        params = kind()
        self.call(f"sm_{name}_params_init", ctypes.byref(params), ctypes.c_size_t(ctypes.sizeof(kind)))
        for field, value in values.items():
            assert hasattr(params, field), f"no {field} in {kind.__name__}"
            setattr(params, field, value)
        return params


class Model:
    """A model file; further arguments are fields of sm_model_params."""

    def __init__(self, library, path, **params):
        self.library, self.handle = library, ctypes.c_void_p()
        params = library.params("model", **params)
        library.call("sm_model_load", str(path).encode(), ctypes.byref(params), ctypes.byref(self.handle))

    def tokenize(self, text):
        """Ids of `text`, control tokens parsed, with what the model wants round a text."""
        data, count = text.encode(), ctypes.c_size_t()
        ids = (ctypes.c_uint32 * (len(data) + 8))()
        size = [ctypes.c_size_t(n) for n in (len(data), len(ids))]
        self.library.call("sm_tokenize", self.handle, data, size[0], 1, 1, ids, size[1], ctypes.byref(count))
        return list(ids[: count.value])

    def __del__(self):
        self.library.dll.sm_model_free(self.handle)


class Context:
    """A context over `model`; further arguments are fields of sm_context_params."""

    def __init__(self, model, **params):
        self.model, self.library, self.handle = model, model.library, ctypes.c_void_p()
        params = self.library.params("context", **params)
        self.library.call("sm_context_create", model.handle, ctypes.byref(params), ctypes.byref(self.handle))

    def clear(self):
        self.library.call("sm_context_clear", self.handle)

    def decode(self, tokens, logits=LOGITS_LAST):
        ids = (ctypes.c_uint32 * len(tokens))(*tokens)
        self.library.call("sm_decode", self.handle, ids, ctypes.c_size_t(len(tokens)), logits)

    def logits(self):
        """The rows of the last decode, which the next one overwrites."""
        rows, n_rows, n_vocab = ctypes.POINTER(ctypes.c_float)(), ctypes.c_size_t(), ctypes.c_size_t()
        pointers = [ctypes.byref(out) for out in (rows, n_rows, n_vocab)]
        self.library.call("sm_logits", self.handle, *pointers)
        return np.ctypeslib.as_array(rows, (n_rows.value, n_vocab.value))

    def __del__(self):
        self.library.dll.sm_context_free(self.handle)
