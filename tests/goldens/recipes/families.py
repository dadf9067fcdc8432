"""Makes families/NAME.json and families/NAME.logits.bin: a small random model of a family and llama.cpp's logits.

usage: families.py PROGRAM FILE...

FILE is a GGUF model, NAME its stem: its metadata and its tensors' names and shapes are taken, its weights are not,
so that tests can make them again from a few numbers. PROGRAM is benches/peers/llama_cpp_archs's logits; the files
of llama.cpp's suite are made by that folder's run.sh, in target/peers/archs/1.
Made with gguf 0.19.0, numpy 2.4.6 and llama.cpp 0.5.0-dev. Layout in ../README.md.
"""

import argparse
import json
import re
import struct
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter

FOLDER = Path(__file__).parent.parent / "families"
COMMON = FOLDER / "common.json"
TOKENS = 64
# Around the first tokens, the edges of batches of 7, of windows of 32 and of the sequence.
ROWS = [0, 1, 6, 7, 31, 33, 63]
# Most logits that are kept of a row.
COLUMNS = 128
U64 = 2**64 - 1


def fnv1a(text):
    """The 64-bit FNV-1a hash of the text's bytes."""
    value = 0xCBF29CE484222325
    for byte in text.encode():
        value = (value ^ byte) * 0x100000001B3 & U64
    return value


def uniform(name, count):
    """`count` floats in [-1, 1) with 24 random bits each: SplitMix64 that begins at the name's hash."""
    with np.errstate(over="ignore"):
        state = np.uint64(fnv1a(name)) + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        state = (state ^ state >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        state = (state ^ state >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        state ^= state >> np.uint64(31)
    return (state >> np.uint64(40)).astype(np.float32) * np.float32(2**-23) - np.float32(1)


def spread(name, dims, tied):
    """Middle and half width of the range of a tensor's values: about what training leaves. `tied`: there is no head."""
    last = name.rsplit(".", 1)[-1]
    if last == "ssm_a":  # rates of decay
        return -1.0, 0.5
    if last in ("scale", "input_scale") or "output_scale" in name or "rope_f" in name:
        return 1.0, 0.25
    if "norm" in name and last == "weight" or "ssm_d" in name:
        return 1.0, 0.25
    if last == "bias":
        return 0.0, 0.1
    if name in ("token_embd.weight", "position_embd.weight") and not tied or len(dims) == 1:
        return 0.0, 1.0
    # Products keep the size of what goes into them.
    return 0.0, float(np.float32((3 / dims[0]) ** 0.5))


def values(name, dims, middle, half):
    count = int(np.prod(dims))
    return (np.float32(middle) + np.float32(half) * uniform(name, count)).reshape(dims[::-1])


def pairs(path):
    """Keys, types and values of a file but its vocabulary's; the architecture in front of a key is left out."""
    reader = GGUFReader(path)
    architecture = reader.get_field("general.architecture").contents()
    for field in reader.fields.values():
        if field.name.startswith(("GGUF.", "tokenizer.")) or field.name == "general.architecture":
            if field.name != "tokenizer.ggml.token_type_count" or not field.contents():
                continue
        content = field.contents()
        kind = field.types[-1].name.lower()
        if field.types[0] == GGUFValueType.ARRAY:
            kind += f"[{len(content)}]"
            if not content:
                continue
            if all(item == content[0] for item in content):
                content = content[0]
        yield field.name.removeprefix(architecture), kind, jsonable(content)


def jsonable(content):
    """The value with infinities as texts, which JSON lacks."""
    return str(content) if isinstance(content, float) and np.isinf(content) else content


def grouped(reader):
    """Names, dimensions and ranges of a file's tensors; `*` stands for the numbers of layers, which come last."""
    groups = {}
    tied = all(tensor.name != "output.weight" for tensor in reader.tensors)
    for tensor in reader.tensors:
        assert tensor.tensor_type == GGMLQuantizationType.F32, f"{tensor.name} is no F32"
        dims = [int(dim) for dim in tensor.shape]
        name, layer = re.sub(r"^blk\.\d+\.", "blk.*.", tensor.name), re.match(r"blk\.(\d+)\.", tensor.name)
        middle, half = (float(str(np.float32(x))) for x in spread(tensor.name, dims, tied))
        layers = groups.setdefault((name, tuple(dims), middle, half), [])
        layers.extend([int(layer[1])] if layer else [])
    return [[name, list(dims), middle, half, layers] for (name, dims, middle, half), layers in groups.items()]


def chosen(golden):
    """The model with twice the experts: those of the suite use all they have, so that nothing depends on the choice."""
    for pair in golden["metadata"]:
        if pair[0] == ".expert_count":
            pair[2] *= 2
            count = pair[2]
    for name, dims, *_ in golden["tensors"]:
        if re.search(r"(?<!norm)_(ch)?exps\.|ffn_gate_inp\.|exp_probs_b", name):
            assert 2 * dims[-1] == count, f"{name} has {dims}"
            dims[-1] = count
    return golden


def described(path):
    """Metadata and tensors of a file. Metadata is what differs from common.json, where little does."""
    common = {key: (kind, value) for key, kind, value in json.loads(COMMON.read_text())["metadata"]}
    own = {key: (kind, value) for key, kind, value in pairs(path)}
    without = [key for key in common if key not in own]
    if len(without) > len(common) // 2:
        common, without = {}, ["*"]
    reader = GGUFReader(path)
    golden = {
        "architecture": reader.get_field("general.architecture").contents(),
        "without": without,
        "metadata": [[key, *pair] for key, pair in own.items() if common.get(key) != pair],
        "tensors": grouped(reader),
    }
    uses_all = own.get(".expert_count") == own.get(".expert_used_count") != ("uint32", 0)
    return chosen(golden) if uses_all else golden


def metadata(golden):
    """All keys and values of a model."""
    common = [] if golden["without"] == ["*"] else json.loads(COMMON.read_text())["metadata"]
    every = {key: (kind, value) for key, kind, value in common if key not in golden["without"]}
    return every | {key: (kind, value) for key, kind, value in golden["metadata"]}


def add_pair(writer, key, kind, value):
    name, count = re.fullmatch(r"(\w+)(?:\[(\d+)\])?", kind).groups()
    convert = float if name.startswith("float") else lambda x: x
    item = GGUFValueType[name.upper()]
    if count is None:
        writer.add_key_value(key, convert(value), item)
        return
    values = value if isinstance(value, list) else [value] * int(count)
    writer.add_key_value(key, [convert(value) for value in values], GGUFValueType.ARRAY, sub_type=item)


def write_model(golden, path):
    """The model as a file, with a vocabulary that llama.cpp has for its own tests. Returns the vocabulary's size."""
    writer = GGUFWriter(path, golden["architecture"])
    for key, (kind, value) in metadata(golden).items():
        add_pair(writer, golden["architecture"] + key if key.startswith(".") else key, kind, value)
    vocabulary = next(dims[1] for name, dims, *_ in golden["tensors"] if name == "token_embd.weight")
    writer.add_tokenizer_model("test")
    writer.add_token_list([f"tok_{n}" for n in range(vocabulary)])
    writer.add_token_scores([0.0] * vocabulary)
    for pattern, dims, middle, half, layers in golden["tensors"]:
        for name in [pattern.replace("*", str(n)) for n in layers] or [pattern]:
            writer.add_tensor(name, values(name, dims, middle, half))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return vocabulary


def logits(program, golden):
    """llama.cpp's logits of all tokens, in one batch."""
    with tempfile.TemporaryDirectory() as folder:
        model, out = Path(folder) / "model.gguf", Path(folder) / "logits"
        vocabulary = write_model(golden, model)
        subprocess.run([program, model, out, str(TOKENS)], check=True)
        rows = np.fromfile(out, "<f4").reshape(TOKENS, -1)
    assert np.isfinite(rows).all() and rows.shape[1] == vocabulary
    return rows


def dumped(golden):
    """JSON with a line for each key and tensor."""
    lines = []
    for part, content in golden.items():
        if isinstance(content, list) and content and isinstance(content[0], list):
            content = "[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in content) + "\n]"
        else:
            content = json.dumps(content)
        lines.append(f'"{part}": {content}')
    return "{" + ",\n".join(lines) + "}\n"


def write_golden(name, golden, tokens, places, rows):
    """Writes a model and, of the peer's rows for so many tokens, those at some places."""
    kept = rows[places, :COLUMNS].astype("<f4")
    header = struct.pack("<4s4I", b"SMFL", 1, tokens, *kept.shape)
    FOLDER.joinpath(f"{name}.json").write_text(dumped(golden))
    content = header + np.array(places, "<u4").tobytes() + kept.tobytes()
    FOLDER.joinpath(f"{name}.logits.bin").write_bytes(content)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=Path)
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--common", action="store_true", help="make common.json of the first file's metadata")
    args = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    if args.common:
        COMMON.write_text(dumped({"metadata": [list(pair) for pair in pairs(args.files[0])]}))
    for path in args.files:
        golden = described(path)
        rows = logits(args.program, golden)
        write_golden(path.stem, golden, TOKENS, ROWS, rows)
        print(f"{path.stem}: logits of {rows.std():.2f}, at most {abs(rows).max():.2f}")


if __name__ == "__main__":
    main()
