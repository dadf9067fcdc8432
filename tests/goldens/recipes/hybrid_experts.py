"""Writes hybrids with experts, for families.py: llama.cpp's suite has none.

usage: hybrid_experts.py SUITE OUT

SUITE has the suite's files, OUT gets nemotron_h_moe-moe.gguf (experts on narrower rows), granitehybrid-moe.gguf and
jamba-moe.gguf, whose weights are zeros: families.py takes names and shapes alone. Made with gguf 0.19.0.
"""

import sys
from pathlib import Path

import numpy as np
from gguf import GGUFReader, GGUFValueType, GGUFWriter

EXPERTS, USED, WIDTH, NARROW, SHARED = 4, 2, 96, 64, 160


def nemotron(tensors):
    for name in [name for name in tensors if name.startswith("blk.2.ffn_")]:
        del tensors[name]
    for name, dims in {
        "ffn_gate_inp.weight": [256, EXPERTS],
        "exp_probs_b.bias": [EXPERTS],
        "ffn_latent_down.weight": [256, NARROW],
        "ffn_latent_up.weight": [NARROW, 256],
        "ffn_up_exps.weight": [NARROW, WIDTH, EXPERTS],
        "ffn_down_exps.weight": [WIDTH, NARROW, EXPERTS],
        "ffn_up_shexp.weight": [256, SHARED],
        "ffn_down_shexp.weight": [SHARED, 256],
    }.items():
        tensors[f"blk.2.{name}"] = dims
    numbers = {"expert_feed_forward_length": WIDTH, "moe_latent_size": NARROW}
    return numbers | {"expert_weights_norm": True, "expert_weights_scale": 2.5}


def mixture(layers, shared):
    def change(tensors):
        for layer in layers:
            for name in [name for name in tensors if name.startswith(f"blk.{layer}.ffn_") and "norm" not in name]:
                del tensors[name]
            tensors[f"blk.{layer}.ffn_gate_inp.weight"] = [256, EXPERTS]
            for part, dims in ("gate", [256, 384]), ("up", [256, 384]), ("down", [384, 256]):
                tensors[f"blk.{layer}.ffn_{part}_exps.weight"] = [*dims, EXPERTS]
                if shared:
                    dims = [SHARED if dim == 384 else dim for dim in dims]
                    tensors[f"blk.{layer}.ffn_{part}_shexp.weight"] = dims
        return {}

    return change


def write(source, path, change):
    reader = GGUFReader(source)
    tensors = {tensor.name: [int(dim) for dim in tensor.shape] for tensor in reader.tensors}
    numbers = {"expert_count": EXPERTS, "expert_used_count": USED, **change(tensors)}
    if any("shexp" in name for name in tensors):
        numbers["expert_shared_feed_forward_length"] = SHARED
    architecture = reader.get_field("general.architecture").contents()
    writer = GGUFWriter(path, architecture)
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        content = numbers.get(field.name.removeprefix(f"{architecture}."), field.contents())
        array = field.types[0] == GGUFValueType.ARRAY
        if not array or content:
            writer.add_key_value(field.name, content, field.types[0], field.types[-1] if array else None)
    for key in [key for key in numbers if reader.get_field(f"{architecture}.{key}") is None]:
        writer.add_uint32(f"{architecture}.{key}", numbers[key])
    for name, dims in tensors.items():
        writer.add_tensor(name, np.zeros(dims[::-1], np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    suite, out = map(Path, sys.argv[1:])
    write(suite / "nemotron_h_moe-dense.gguf", out / "nemotron_h_moe-moe.gguf", nemotron)
    write(suite / "granitehybrid-dense.gguf", out / "granitehybrid-moe.gguf", mixture([0, 1], True))
    write(suite / "jamba-dense.gguf", out / "jamba-moe.gguf", mixture([1], False))
