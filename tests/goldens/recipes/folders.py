"""Makes folders/NAME.json: a small random folder of Hugging Face, and the GGUF file that llama.cpp's converter makes of it.

usage: folders.py LLAMA_CPP [NAME...]

LLAMA_CPP is llama.cpp's source, whose packages `conversion` and `gguf-py` are run (PYTHONPATH=LLAMA_CPP/gguf-py). The folder is the configuration and the tensors that
transformers saves of a small model of each class; classes of which transformers has no code are written down here.
Values follow from names, as in families.py, so that tests can make the folder again. Of the converted file, the keys and
each tensor's dimensions, type and hash are kept, and of transformers' outcome the last row's logits (hidden rows for
encoders). Vocabularies aren't converted here: the converter knows them by hashes, which small ones don't have.
Made with transformers 5.24.0, torch 2.15.0, numpy 2.4.6 and llama.cpp 0.5.0-dev. Layout in ../README.md.
"""

import json
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch
import transformers
from gguf import GGUFReader, GGUFValueType
from safetensors.numpy import load_file
from safetensors.torch import save_file

from families import uniform

FOLDER = Path(__file__).parent.parent / "folders"
COLUMNS = 64
TOKENS = [(7 * i + 3) % 90 for i in range(24)]
WIDTH, HEADS, KV_HEADS, INNER, LAYERS, VOCABULARY = 64, 4, 2, 96, 2, 96
DENSE = dict(
    hidden_size=WIDTH,
    num_attention_heads=HEADS,
    num_key_value_heads=KV_HEADS,
    intermediate_size=INNER,
    num_hidden_layers=LAYERS,
    vocab_size=VOCABULARY,
    max_position_embeddings=128,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
UNGROUPED = {key: value for key, value in DENSE.items() if key != "num_key_value_heads"}
ENCODER = UNGROUPED | dict(type_vocab_size=2)
EXPERTS = dict(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32)
LLAMA3 = dict(
    rope_type="llama3",
    rope_theta=10000.0,
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
YARN = dict(rope_type="yarn", rope_theta=10000.0, factor=4.0, original_max_position_embeddings=32)
MINISTRAL = YARN | dict(mscale=1.0, mscale_all_dim=1.0, llama_4_scaling_beta=0.1, beta_fast=32.0, beta_slow=1.0)
LONGROPE = dict(
    rope_type="longrope",
    rope_theta=10000.0,
    short_factor=[1.0 + 0.05 * i for i in range(8)],
    long_factor=[2.0 + 0.5 * i for i in range(8)],
    original_max_position_embeddings=32,
)
GRANITE = dict(attention_multiplier=0.2, embedding_multiplier=3.0, residual_multiplier=0.4, logits_scaling=4.0)
WINDOW = dict(sliding_window=8)
POOLED = {
    "modules.json": [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]
}


def pooled(mode):
    return POOLED | {"1_Pooling/config.json": {"word_embedding_dimension": WIDTH, f"pooling_mode_{mode}": True}}


DENSE_HEADS = {
    "modules.json": POOLED["modules.json"]
    + [
        {"idx": i, "name": str(i), "path": f"{i}_Dense", "type": "sentence_transformers.models.Dense"} for i in (2, 3)
    ],
    "1_Pooling/config.json": {"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": True},
    "2_Dense/config.json": {"in_features": WIDTH, "out_features": 128, "bias": False},
    "3_Dense/config.json": {"in_features": 128, "out_features": WIDTH, "bias": False},
}

# Classes of transformers: the name, the class, the keys of the configuration, other files, the type of elements.
MODELS = [
    ("llama", "LlamaForCausalLM", DENSE | dict(rope_parameters=LLAMA3, tie_word_embeddings=True), {}, "BF16"),
    ("llama-bias", "LlamaForCausalLM", DENSE | dict(attention_bias=True, head_dim=8), {}, "F16"),
    ("mistral", "MistralForCausalLM", DENSE | dict(sliding_window=None, head_dim=16), {}, "F32"),
    ("ministral3", "Ministral3ForCausalLM", DENSE | dict(head_dim=16, rope_parameters=MINISTRAL), {}, "F32"),
    ("smollm3", "SmolLM3ForCausalLM", DENSE | dict(num_hidden_layers=4, no_rope_layer_interval=4), {}, "F32"),
    ("qwen2", "Qwen2ForCausalLM", DENSE | dict(rope_parameters=YARN), {}, "F32"),
    ("qwen3", "Qwen3ForCausalLM", DENSE | dict(head_dim=24, tie_word_embeddings=True), {}, "F32"),
    ("qwen3-embedding", "Qwen3Model", DENSE | dict(head_dim=16), pooled("lasttoken"), "F32"),
    ("gpt2", "GPT2LMHeadModel", dict(n_embd=WIDTH, n_head=HEADS, n_layer=LAYERS, n_positions=128, vocab_size=96), {}, "F32"),
    ("phi3", "Phi3ForCausalLM", DENSE | WINDOW | dict(rope_parameters=LONGROPE, original_max_position_embeddings=32), {}, "F32"),
    ("phi4", "Phi3ForCausalLM", DENSE | dict(rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.75), original_max_position_embeddings=128, tie_word_embeddings=True), {}, "F32"),
    ("gemma", "GemmaForCausalLM", DENSE | dict(head_dim=16), {}, "F32"),
    ("gemma2", "Gemma2ForCausalLM", DENSE | WINDOW | dict(head_dim=16, query_pre_attn_scalar=16), {}, "BF16"),
    ("gemma3", "Gemma3ForCausalLM", DENSE | WINDOW | dict(head_dim=16, num_hidden_layers=7, query_pre_attn_scalar=16), {}, "F32"),
    ("embeddinggemma", "Gemma3TextModel", DENSE | WINDOW | dict(head_dim=16, use_bidirectional_attention=True, query_pre_attn_scalar=16), DENSE_HEADS, "F32"),
    ("olmo", "OlmoForCausalLM", DENSE | dict(clip_qkv=0.5), {}, "F32"),
    ("olmo2", "Olmo2ForCausalLM", DENSE, {}, "F32"),
    ("olmo3", "Olmo3ForCausalLM", DENSE | WINDOW | dict(num_hidden_layers=4), {}, "F32"),
    ("granite", "GraniteForCausalLM", DENSE | GRANITE, {}, "F32"),
    ("starcoder2", "Starcoder2ForCausalLM", DENSE | dict(use_bias=True), {}, "F32"),
    ("gptneox", "GPTNeoXForCausalLM", UNGROUPED | dict(rotary_pct=0.25, use_parallel_residual=True), {}, "F32"),
    ("stablelm", "StableLmForCausalLM", DENSE | dict(partial_rotary_factor=0.25, use_qkv_bias=True), {}, "F32"),
    ("stablelm-norms", "StableLmForCausalLM", DENSE | dict(partial_rotary_factor=0.25, qk_layernorm=True, use_parallel_residual=True), {}, "F32"),
    ("falcon", "FalconForCausalLM", DENSE | dict(multi_query=True, parallel_attn=True, new_decoder_architecture=False, alibi=False), {}, "F32"),
    ("falcon-groups", "FalconForCausalLM", DENSE | dict(num_kv_heads=2, new_decoder_architecture=True, alibi=False), {}, "F32"),
    ("command-r", "CohereForCausalLM", DENSE | dict(logit_scale=0.25, use_qk_norm=False), {}, "F32"),
    ("cohere2", "Cohere2ForCausalLM", DENSE | WINDOW | dict(num_hidden_layers=4, logit_scale=0.25), {}, "F32"),
    ("glm4", "Glm4ForCausalLM", DENSE | dict(head_dim=16, attention_bias=True), {}, "F32"),
    ("nemotron", "NemotronForCausalLM", DENSE | dict(head_dim=16), {}, "F32"),
    ("granitemoe", "GraniteMoeForCausalLM", DENSE | GRANITE | dict(num_local_experts=4, num_experts_per_tok=2), {}, "F32"),
    ("granitemoe-shared", "GraniteMoeSharedForCausalLM", DENSE | GRANITE | dict(num_local_experts=4, num_experts_per_tok=2, shared_intermediate_size=48), {}, "BF16"),
    ("mixtral", "MixtralForCausalLM", DENSE | dict(num_local_experts=4, num_experts_per_tok=2, sliding_window=None), {}, "F32"),
    ("qwen2moe", "Qwen2MoeForCausalLM", DENSE | EXPERTS | dict(shared_expert_intermediate_size=48, decoder_sparse_step=1), {}, "F32"),
    ("qwen3moe", "Qwen3MoeForCausalLM", DENSE | EXPERTS | dict(head_dim=16, norm_topk_prob=True), {}, "BF16"),
    ("qwen3moe-stacked", "Qwen3MoeForCausalLM", DENSE | EXPERTS | dict(head_dim=16, norm_topk_prob=True), {}, "F32"),
    ("olmoe", "OlmoeForCausalLM", DENSE | dict(num_experts=4, num_experts_per_tok=2), {}, "F32"),
    ("bert", "BertModel", ENCODER, pooled("cls_token"), "F16"),
    ("bert-classifier", "BertForSequenceClassification", ENCODER | dict(num_labels=1), {}, "F32"),
    ("xlm-roberta", "XLMRobertaModel", ENCODER | dict(type_vocab_size=1, pad_token_id=1, max_position_embeddings=66), pooled("mean_tokens"), "F32"),
    ("xlm-roberta-classifier", "XLMRobertaForSequenceClassification", ENCODER | dict(type_vocab_size=1, pad_token_id=1, max_position_embeddings=66, num_labels=1), {}, "F32"),
    ("modernbert", "ModernBertModel", {key: value for key, value in ENCODER.items() if key != "type_vocab_size"} | dict(num_hidden_layers=4, local_attention=16, global_attn_every_n_layers=3, cls_token_id=1, sep_token_id=2), pooled("cls_token"), "F32"),
]

NOMIC = dict(
    architectures=["NomicBertModel"], model_type="nomic_bert", activation_function="swiglu", causal=False, n_embd=WIDTH,
    n_head=HEADS, n_inner=INNER, n_layer=LAYERS, n_positions=8192, layer_norm_epsilon=1e-12, mlp_fc1_bias=False,
    mlp_fc2_bias=False, qkv_proj_bias=False, prenorm=False, rotary_emb_base=1000, rotary_emb_fraction=1.0,
    rotary_emb_interleaved=False, rotary_emb_scale_base=None, type_vocab_size=2, vocab_size=VOCABULARY,
)  # fmt: skip
NOMIC_MOE = NOMIC | dict(
    activation_function="gelu", n_positions=2048, mlp_fc1_bias=True, mlp_fc2_bias=True, qkv_proj_bias=True,
    type_vocab_size=1, moe_every_n_layers=2, moe_top_k=2, num_experts=4,
)  # fmt: skip
JINA = dict(
    architectures=["JinaBertForMaskedLM"], model_type="bert", position_embedding_type="alibi", feed_forward_type="geglu",
    hidden_act="gelu", hidden_size=WIDTH, num_attention_heads=HEADS, intermediate_size=INNER, num_hidden_layers=LAYERS,
    max_position_embeddings=128, layer_norm_eps=1e-12, type_vocab_size=2, vocab_size=VOCABULARY, pad_token_id=0,
)  # fmt: skip

# Keys that files of these classes have and that today's transformers no longer writes.
OLDER = {"gpt2": {"n_ctx": 128}, "gptneox": {"rotary_pct": 0.25, "rotary_emb_base": 10000}}
OLDER |= {"falcon": {"num_kv_heads": 1}, "cohere2": {"rotary_pct": 1.0}}
# Saved as the class itself names and stacks them, without the way back to older files.
STACKED = ["qwen3moe-stacked"]
# The converter loses the norms of heads of this class; transformers' logits tell whether they are right.
UNCONVERTED = ["stablelm-norms"]


def norm(name):
    return [[f"{name}.weight", [WIDTH]], [f"{name}.bias", [WIDTH]]]


def linear(name, n, k):
    return [[f"{name}.weight", [n, k]], [f"{name}.bias", [n]]]


def nomic():
    tensors = [
        ["embeddings.word_embeddings.weight", [VOCABULARY, WIDTH]],
        ["embeddings.token_type_embeddings.weight", [2, WIDTH]],
        *norm("emb_ln"),
    ]
    for block in (f"encoder.layers.{layer}" for layer in range(LAYERS)):
        tensors += [[f"{block}.attn.Wqkv.weight", [3 * WIDTH, WIDTH]], [f"{block}.attn.out_proj.weight", [WIDTH, WIDTH]]]
        tensors += [[f"{block}.mlp.{part}.weight", [INNER, WIDTH]] for part in ("fc11", "fc12")]
        tensors += [[f"{block}.mlp.fc2.weight", [WIDTH, INNER]], *norm(f"{block}.norm1"), *norm(f"{block}.norm2")]
    return tensors


def nomic_moe():
    tensors = [
        ["embeddings.word_embeddings.weight", [VOCABULARY, WIDTH]],
        ["embeddings.token_type_embeddings.weight", [1, WIDTH]],
        *norm("emb_ln"),
    ]
    for layer in range(LAYERS):
        block = f"encoder.layers.{layer}"
        tensors += linear(f"{block}.attn.Wqkv", 3 * WIDTH, WIDTH) + linear(f"{block}.attn.out_proj", WIDTH, WIDTH)
        if layer % 2 == 1:
            tensors += [[f"{block}.mlp.experts.mlp.{part}", [4 * INNER, WIDTH]] for part in ("w1", "w2")]
            tensors += [[f"{block}.mlp.experts.bias", [WIDTH]], [f"{block}.mlp.router.layer.weight", [4, WIDTH]]]
        else:
            tensors += linear(f"{block}.mlp.fc1", INNER, WIDTH) + linear(f"{block}.mlp.fc2", WIDTH, INNER)
        tensors += [*norm(f"{block}.norm1"), *norm(f"{block}.norm2")]
    return tensors


def jina():
    tensors = [
        ["bert.embeddings.word_embeddings.weight", [VOCABULARY, WIDTH]],
        ["bert.embeddings.token_type_embeddings.weight", [2, WIDTH]],
        *norm("bert.embeddings.LayerNorm"),
        *linear("bert.pooler.dense", WIDTH, WIDTH),
    ]
    for block in (f"bert.encoder.layer.{layer}" for layer in range(LAYERS)):
        for part in ("query", "key", "value"):
            tensors += linear(f"{block}.attention.self.{part}", WIDTH, WIDTH)
        tensors += linear(f"{block}.attention.output.dense", WIDTH, WIDTH)
        tensors += norm(f"{block}.attention.output.LayerNorm")
        tensors += [[f"{block}.mlp.gated_layers.weight", [2 * INNER, WIDTH]], *linear(f"{block}.mlp.wo", WIDTH, INNER)]
        tensors += norm(f"{block}.mlp.layernorm")
    return tensors


# Classes without code in transformers: name, configuration, tensors, other files.
WRITTEN = [
    ("nomic-bert", NOMIC, nomic(), pooled("mean_tokens")),
    ("nomic-bert-moe", NOMIC_MOE, nomic_moe(), pooled("mean_tokens")),
    ("jina-bert-v2", JINA, jina(), pooled("mean_tokens")),
]

TOKENIZER = {
    "added_tokens": [],
    "model": {"type": "WordPiece", "unk_token": "t3", "vocab": {f"t{i}": i for i in range(VOCABULARY)}},
}


def spread(name, shape, shifted):
    """Middle and half width of the range of a tensor's values. `shifted`: norms are kept without their 1."""
    if name.endswith(".bias"):
        return 0.0, 0.1
    if len(shape) == 1:
        return (0.0 if shifted else 1.0), 0.25
    return 0.0, float(str(np.float32((3 / shape[-1]) ** 0.5)))


def torch_type(dtype):
    return {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}[dtype]


def write(folder, config, tensors, dtype, files):
    """Writes the folder, and tensors of Dense modules. Returns lines of names, files, shapes and ranges."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "tokenizer.json").write_text(json.dumps(TOKENIZER))
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    shifted = "emma" in config["architectures"][0] or "Nemotron" in config["architectures"][0]
    lines = [["model.safetensors", name, shape, *spread(name, shape, shifted)] for name, shape in tensors]
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(json.dumps(content))
        if "Dense" in name:
            shape = [content["out_features"], content["in_features"]]
            file = name.replace("config.json", "model.safetensors")
            lines.append([file, "linear.weight", shape, *spread("linear.weight", shape, False)])
    for file in sorted({line[0] for line in lines}):
        contents = {}
        for _, name, shape, middle, half in (line for line in lines if line[0] == file):
            values = np.float32(middle) + np.float32(half) * uniform(name, int(np.prod(shape)))
            contents[name] = torch.from_numpy(values.reshape(shape)).to(torch_type(dtype))
        save_file(contents, folder / file, metadata={"format": "pt"})
    return lines


def saved(folder, name, keys, stacked):
    """The configuration and the tensors that transformers saves of a class; `stacked` as the class has them."""
    model_class = getattr(transformers, name)
    model = model_class(model_class.config_class(**keys))
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    values = model.state_dict() if stacked else load_file(folder / "model.safetensors")
    tensors = [[name, list(values.shape)] for name, values in values.items()]
    return config, sorted(tensors)


def outcome(folder, name):
    """The last row's logits, or an encoder's last hidden row, or its scores."""
    model = getattr(transformers, name).from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        result = model(torch.tensor([TOKENS]))
    if name.endswith("SequenceClassification"):
        return [float(x) for x in result.logits[0]]
    rows = result.logits[0] if "logits" in result else result.last_hidden_state[0]
    return [float(str(np.float32(x))) for x in rows[-1][:COLUMNS]]


def fnv1a(data):
    """The 64-bit FNV-1a hash of 64-bit words: bytes one by one would take long."""
    value = 0xCBF29CE484222325
    for word in np.frombuffer(data.tobytes() + bytes(-len(data.tobytes()) % 8), np.uint64).tolist():
        value = (value ^ word) * 0x100000001B3 & 2**64 - 1
    return f"{value:016x}"


def convert(conversion, folder, config, dtype):
    """Keys and tensors of the file that llama.cpp's converter writes."""
    import gguf

    model_class = conversion.get_model_class(config["architectures"][0])
    for known in model_class.__mro__:
        if "set_vocab" in vars(known):
            known.set_vocab = lambda self: None
    path = folder / "model.gguf"
    # A list that the class shares with all its instances.
    getattr(model_class, "module_paths", []).clear()
    types = {"F32": "ALL_F32", "F16": "MOSTLY_F16", "BF16": "MOSTLY_BF16"}
    file_type = gguf.LlamaFileType[types[dtype]]
    # Today's transformers renames keys that the converter asks for.
    renamed = config["model_type"] in ("gpt_neox", "nomic_bert")
    own = {"hparams": dict(config)} if renamed else {}
    model = model_class(folder, file_type, path, eager=True, sentence_transformers_dense_modules=True, **own)
    if hasattr(model, "impl"):
        type(model.impl).set_vocab = lambda self: None
    (model.impl if hasattr(model, "impl") else model).write()
    reader = GGUFReader(path)
    keys = {}
    for field in reader.fields.values():
        if field.name.startswith(("GGUF.", "general.", "tokenizer.")) and field.name != "general.architecture":
            continue
        kind = field.types[-1].name.lower() + ("[]" if field.types[0] == GGUFValueType.ARRAY else "")
        keys[field.name] = [kind, field.contents()]
    tensors = [
        [tensor.name, [int(dim) for dim in tensor.shape], tensor.tensor_type.name, fnv1a(tensor.data)]
        for tensor in reader.tensors
    ]
    return keys, sorted(tensors)


def dumped(golden):
    """The golden as JSON, a line a tensor."""
    lines = {key: value for key, value in golden.items() if key not in ("tensors", "converted")}
    text = json.dumps(lines, ensure_ascii=False)[:-1]
    for key in ("tensors", "converted"):
        text += f',\n"{key}": [\n' + ",\n".join(json.dumps(line) for line in golden[key]) + "\n]"
    return text + "}\n"


def main():
    sys.path.insert(0, sys.argv[1])
    import conversion

    names = sys.argv[2:]
    FOLDER.mkdir(exist_ok=True)
    for name, *described in MODELS + WRITTEN:
        if names and name not in names:
            continue
        with tempfile.TemporaryDirectory() as place:
            torch.manual_seed(1)
            if isinstance(described[0], str):
                model_class, keys, files, dtype = described
                config, tensors = saved(Path(place) / "saved", model_class, keys, name in STACKED)
            else:
                (config, tensors, files), dtype, model_class = described, "F32", None
            folder, config = Path(place) / "folder", config | OLDER.get(name, {})
            lines = write(folder, config, tensors, dtype, files)
            row = outcome(folder, model_class) if model_class else []
            metadata, converted = ({}, []) if name in UNCONVERTED else convert(conversion, folder, config, dtype)
        golden = {"config": config, "files": files, "dtype": dtype, "tokens": TOKENS, "row": row, "metadata": metadata}
        (FOLDER / f"{name}.json").write_text(dumped(golden | {"tensors": lines, "converted": converted}))
        print(name)


if __name__ == "__main__":
    main()
