//! Folders of Hugging Face: made from small models that load as GGUF files, they give the same logits and tokens, in one
//! file or several; and what is wrong with one is named. The names and the order of rows are written down here once more.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use crate::common::golden_path;
use serde_json::{Map, Value as Json, json};
use smallmind::Error;
use smallmind::format::gguf::Gguf;
use smallmind::kv::CacheType;
use smallmind::model::foreign::open_source;
use smallmind::model::{LoadParams, Model};
use smallmind::runtime::{Context, ContextParams, Logits};

/// A tensor of a folder: its name, shape (rows first) and values.
#[derive(Clone)]
struct Tensor {
    name: String,
    shape: Vec<u64>,
    values: Vec<f32>,
}

fn golden(name: &str) -> Gguf {
    Gguf::open_path(golden_path("gguf").join(name)).unwrap()
}

/// The tensors of a golden under the names of a class, in its order of rows and columns.
fn tensors(gguf: &Gguf, architecture: &str, n_head: u64, n_head_kv: u64) -> Vec<Tensor> {
    let theirs = |ours: &str| -> String {
        let gpt = architecture == "gpt2";
        let (stem, suffix) = ours.rsplit_once('.').unwrap();
        let stem = match stem.strip_prefix("blk.").and_then(|rest| rest.split_once('.')) {
            None if gpt => match stem {
                "token_embd" => "transformer.wte".into(),
                "position_embd" => "transformer.wpe".into(),
                "output_norm" => "transformer.ln_f".into(),
                _ => "lm_head".into(),
            },
            None => match stem {
                "token_embd" => "model.embed_tokens".into(),
                "output_norm" => "model.norm".into(),
                _ => "lm_head".to_owned(),
            },
            Some((block, part)) if gpt => {
                let part = match part {
                    "attn_norm" => "ln_1",
                    "attn_qkv" => "attn.c_attn",
                    "attn_output" => "attn.c_proj",
                    "ffn_norm" => "ln_2",
                    "ffn_up" => "mlp.c_fc",
                    _ => "mlp.c_proj",
                };
                format!("transformer.h.{block}.{part}")
            }
            Some((block, part)) => {
                let part = match part {
                    "attn_norm" => "input_layernorm",
                    "attn_q" => "self_attn.q_proj",
                    "attn_k" => "self_attn.k_proj",
                    "attn_v" => "self_attn.v_proj",
                    "attn_output" => "self_attn.o_proj",
                    "attn_q_norm" => "self_attn.q_norm",
                    "attn_k_norm" => "self_attn.k_norm",
                    "ffn_norm" => "post_attention_layernorm",
                    "ffn_gate" => "mlp.gate_proj",
                    "ffn_up" => "mlp.up_proj",
                    _ => "mlp.down_proj",
                };
                format!("model.layers.{block}.{part}")
            }
        };
        format!("{stem}.{suffix}")
    };
    let one = |info: &smallmind::format::gguf::TensorInfo| {
        let mut bytes = vec![0; info.bytes as usize];
        gguf.read_tensor(info, 0, &mut bytes).unwrap();
        let values: Vec<f32> =
            bytes.chunks_exact(4).map(|x| f32::from_le_bytes(x.try_into().unwrap())).collect();
        let mut shape: Vec<u64> = info.shape().iter().rev().copied().collect();
        let heads = match info.name.rsplit('.').nth(1).unwrap() {
            "attn_q" if architecture == "llama" => n_head,
            "attn_k" if architecture == "llama" => n_head_kv,
            _ => 0,
        };
        let mut stored = values.clone();
        if heads > 0 {
            let (rows, width) = (shape[0] as usize, shape[1] as usize);
            let head = rows / heads as usize;
            for row in 0..rows {
                // The first half of a head's rows are the first of each pair.
                let (half, place) = (row % head / (head / 2), row % (head / 2));
                let from = row - row % head + 2 * place + half;
                stored[row * width..][..width].copy_from_slice(&values[from * width..][..width]);
            }
        }
        let is_conv =
            ["attn_qkv", "attn_output", "ffn_up", "ffn_down"].iter().any(|part| info.name.contains(part));
        if architecture == "gpt2" && is_conv && shape.len() == 2 {
            let (rows, columns) = (shape[0] as usize, shape[1] as usize);
            for (i, value) in values.iter().enumerate() {
                stored[i % columns * rows + i / columns] = *value;
            }
            shape.reverse();
        }
        Tensor { name: theirs(&info.name), shape, values: stored }
    };
    gguf.tensors().iter().map(one).collect()
}

/// The bytes of a safetensors file.
fn safetensors(tensors: &[Tensor]) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::new());
    for tensor in tensors {
        let begin = data.len();
        tensor.values.iter().for_each(|x| data.extend_from_slice(&x.to_le_bytes()));
        let entry = json!({"dtype": "F32", "shape": tensor.shape, "data_offsets": [begin, data.len()]});
        header.insert(tensor.name.clone(), entry);
    }
    let header = Json::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// `tokenizer.json` of a golden's vocabulary: bytes, merged by rank, single digits.
fn tokenizer(gguf: &Gguf) -> Json {
    let metadata = gguf.metadata();
    let types = metadata.get_i32_array("tokenizer.ggml.token_type").unwrap().unwrap();
    let (mut vocab, mut added) = (Map::new(), Vec::new());
    for (id, token) in metadata.require_str_array("tokenizer.ggml.tokens").unwrap().iter().enumerate() {
        match types[id] {
            1 => drop(vocab.insert(token.into(), json!(id))),
            ty => added.push(json!({"id": id, "content": token, "special": ty == 3})),
        }
    }
    let merges = metadata.require_str_array("tokenizer.ggml.merges").unwrap();
    json!({
        "added_tokens": added,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": true},
            {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}
        ]},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges.iter().collect::<Vec<_>>()}
    })
}

/// A folder in the making.
struct Folder {
    config: Json,
    tensors: Vec<Tensor>,
    tokenizer: Json,
}

impl Folder {
    fn of(name: &str) -> Folder {
        let gguf = golden(name);
        let metadata = gguf.metadata();
        let architecture = metadata.require_str("general.architecture").unwrap();
        let number = |key: &str| metadata.get_u32(&format!("{architecture}.{key}")).unwrap();
        let float = |key: &str| metadata.get_f32(&format!("{architecture}.{key}")).unwrap();
        let heads = number("attention.head_count").unwrap();
        let kv_heads = number("attention.head_count_kv").unwrap_or(heads);
        let tied = gguf.tensor("output.weight").is_none();
        let special = |key: &str| metadata.get_u32(&format!("tokenizer.ggml.{key}")).unwrap();
        let mut config = match architecture {
            "gpt2" => json!({
                "architectures": ["GPT2LMHeadModel"],
                "activation_function": "gelu_new",
                "n_embd": number("embedding_length"), "n_head": heads, "n_layer": number("block_count"),
                "n_positions": number("context_length"), "n_inner": number("feed_forward_length"),
                "layer_norm_epsilon": float("attention.layer_norm_epsilon"),
            }),
            _ => json!({
                "architectures": [match architecture {
                    "llama" => "LlamaForCausalLM", "qwen2" => "Qwen2ForCausalLM", _ => "Qwen3ForCausalLM",
                }],
                "hidden_act": "silu",
                "hidden_size": number("embedding_length"), "num_attention_heads": heads,
                "num_key_value_heads": kv_heads, "num_hidden_layers": number("block_count"),
                "intermediate_size": number("feed_forward_length"),
                "max_position_embeddings": number("context_length"),
                "rms_norm_eps": float("attention.layer_norm_rms_epsilon"),
                "rope_theta": float("rope.freq_base"),
            }),
        };
        config["tie_word_embeddings"] = json!(tied);
        config["bos_token_id"] = json!(special("bos_token_id"));
        config["eos_token_id"] = json!([special("eos_token_id")]);
        if let Some(head_dim) = number("attention.key_length") {
            config["head_dim"] = json!(head_dim);
        }
        if let Some(factor) = float("rope.scaling.factor") {
            config["rope_scaling"] = json!({"type": "linear", "factor": factor});
        }
        let tensors = tensors(&gguf, architecture, heads.into(), kv_heads.into());
        Folder { config, tensors, tokenizer: tokenizer(&gguf) }
    }

    /// Writes the folder, its tensors in so many files.
    fn write(&self, files: usize) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        std::fs::write(path("config.json"), self.config.to_string()).unwrap();
        std::fs::write(path("tokenizer.json"), self.tokenizer.to_string()).unwrap();
        if files == 1 {
            std::fs::write(path("model.safetensors"), safetensors(&self.tensors)).unwrap();
            return folder;
        }
        let mut map = BTreeMap::new();
        for (i, chunk) in self.tensors.chunks(self.tensors.len().div_ceil(files)).enumerate() {
            let name = format!("model-{:05}-of-{files:05}.safetensors", i + 1);
            chunk.iter().for_each(|tensor| drop(map.insert(tensor.name.clone(), name.clone())));
            std::fs::write(path(&name), safetensors(chunk)).unwrap();
        }
        std::fs::write(path("model.safetensors.index.json"), json!({"weight_map": map}).to_string()).unwrap();
        folder
    }

    fn refusal(&self) -> String {
        refusal(self.write(1).path())
    }
}

fn open(path: &Path) -> smallmind::Result<Arc<Model>> {
    Model::open(path, &LoadParams::default())
}

fn refusal(path: &Path) -> String {
    let error = open(path).expect_err("it loads");
    assert!(matches!(error, Error::Format(_) | Error::Unsupported(_)), "{error}");
    let message = error.to_string();
    assert!(!message.contains('\n') && message.len() < 600, "{message}");
    message
}

/// The logits of some tokens at all positions, and the tokens of a text.
fn outcome(model: Arc<Model>) -> (Vec<f32>, Vec<u32>) {
    let tokens: Vec<u32> = (5..25).collect();
    let words = model.tokenizer().unwrap().encode("The 12 quick foxes\n  don't!", true, true).unwrap();
    let n = tokens.len();
    let params =
        ContextParams::default().with_n_ctx(n).with_n_output(n).with_kv(CacheType::F32).with_threads(1);
    let mut context = Context::new(model, &params).unwrap();
    context.decode(&tokens, Logits::All).unwrap();
    (context.logits().to_vec(), words)
}

const GOLDENS: [&str; 4] =
    ["untied-linear-rope.gguf", "qwen2-tied.gguf", "qwen3-untied.gguf", "gpt-untied.gguf"];

#[test]
fn folders_compute_what_their_files_do() {
    for name in GOLDENS {
        let folder = Folder::of(name);
        let wanted = outcome(open(&golden_path("gguf").join(name)).unwrap());
        for files in [1, 3] {
            let written = folder.write(files);
            let model = open(written.path()).unwrap_or_else(|error| panic!("{name}: {error}"));
            assert!(model.warnings().is_empty(), "{name}: {:?}", model.warnings());
            let (logits, tokens) = outcome(model);
            assert!(logits == wanted.0, "{name} in {files} files: other logits");
            assert_eq!(tokens, wanted.1, "{name}");
        }
    }
}

#[test]
fn a_folder_is_a_file_that_can_be_written() {
    let written = Folder::of("qwen2-tied.gguf").write(2);
    let source = open_source(written.path()).unwrap();
    let mut bytes = vec![0; source.len() as usize];
    source.read_at(0, &mut bytes).unwrap();
    let file = written.path().join("model.gguf");
    std::fs::write(&file, bytes).unwrap();
    assert!(outcome(open(&file).unwrap()) == outcome(open(written.path()).unwrap()));
}

#[test]
fn configurations_that_do_not_fit_are_named() {
    let changed = |key: &str, value: Json| {
        let mut folder = Folder::of("untied-linear-rope.gguf");
        folder.config[key] = value;
        folder.refusal()
    };
    for (key, value, named) in [
        ("architectures", json!(["MambaForCausalLM"]), "\"MambaForCausalLM\""),
        ("architectures", json!([]), "no class"),
        ("hidden_size", Json::Null, "\"hidden_size\" is missing"),
        ("hidden_size", json!("wide"), "a whole number is needed"),
        ("hidden_act", json!("relu"), "\"relu\""),
        ("num_hidden_layers", json!(2), "blk.1"),
        ("head_dim", json!(7), "no whole number of heads of 7"),
        ("head_dim", json!(0), "heads of 0"),
        ("rope_scaling", json!({"rope_type": "dynamic", "factor": 2.0}), "\"dynamic\""),
        ("rope_scaling", json!({"rope_type": "longrope", "factor": 2.0}), "no list \"long_factor\""),
        ("rope_scaling", json!({"rope_type": "longrope", "long_factor": [1, 2]}), "has no"),
        ("rope_scaling", json!({"rope_type": "llama3", "factor": "8"}), "a number is needed"),
        ("quantization_config", json!({"bits": 4}), "quantised already"),
    ] {
        let message = changed(key, value);
        assert!(
            message.contains("config.json") || message.contains("blk.1") || message.contains("heads of"),
            "{message}"
        );
        assert!(message.contains(named), "{named:?} is not in {message:?}");
    }
}

#[test]
fn configurations_that_no_key_can_state_are_refused() {
    for (golden, key, value, named) in [
        ("qwen2-tied.gguf", "use_sliding_window", json!(true), "sliding windows"),
        ("qwen3-untied.gguf", "hidden_act", json!("gelu"), "\"gelu\""),
        ("qwen2-tied.gguf", "max_position_embeddings", json!(1e12), "a whole number is needed"),
    ] {
        let mut folder = Folder::of(golden);
        folder.config[key] = value;
        let message = folder.refusal();
        assert!(message.contains("config.json") && message.contains(named), "{message}");
    }
}

#[test]
fn tensors_that_do_not_fit_are_named() {
    let changed = |change: &dyn Fn(&mut Vec<Tensor>)| {
        let mut folder = Folder::of("qwen3-untied.gguf");
        change(&mut folder.tensors);
        folder.refusal()
    };
    let message =
        changed(&|tensors| tensors.retain(|tensor| tensor.name != "model.layers.1.self_attn.k_norm.weight"));
    assert!(message.contains("blk.1.attn_k_norm.weight"), "{message}");
    let message = changed(&|tensors| tensors[3].name = "model.layers.0.strange.weight".into());
    assert!(message.contains("\"model.layers.0.strange.weight\" is unknown"), "{message}");
    let message = changed(&|tensors| {
        let mut again = tensors[0].clone();
        again.name = again.name.trim_start_matches("model.").into();
        tensors.push(again);
    });
    assert!(message.contains("both have the tensor") && message.contains("token_embd.weight"), "{message}");
    let message = changed(&|tensors| tensors[1].shape = [&[1, 1], &tensors[1].shape[..]].concat());
    assert!(message.contains("shape") || message.contains("dimensions"), "{message}");
}

#[test]
fn files_that_do_not_fit_are_named() {
    let folder = Folder::of("qwen3-untied.gguf");
    let written = folder.write(2);
    let path = |name: &str| written.path().join(name);
    let (first, second) =
        (path("model-00001-of-00002.safetensors"), path("model-00002-of-00002.safetensors"));
    let whole = std::fs::read(&second).unwrap();
    std::fs::write(&second, &whole[..whole.len() - 1]).unwrap();
    let message = refusal(written.path());
    assert!(message.contains("00002.safetensors") && message.contains("past the end"), "{message}");
    std::fs::copy(&first, &second).unwrap();
    let message = refusal(written.path());
    assert!(message.contains("model.safetensors.index.json says is there, is missing"), "{message}");
    std::fs::remove_file(&second).unwrap();
    assert!(matches!(open(written.path()), Err(Error::Io { .. })));
    for (file, named) in [("../a.safetensors", "no file's name"), ("", "no file's name")] {
        let index = json!({"weight_map": {"a.weight": file}}).to_string();
        std::fs::write(path("model.safetensors.index.json"), index).unwrap();
        assert!(refusal(written.path()).contains(named));
    }
    std::fs::write(path("model.safetensors.index.json"), "{}").unwrap();
    assert!(refusal(written.path()).contains("weight_map"));
    std::fs::remove_file(path("model.safetensors.index.json")).unwrap();
    assert!(refusal(written.path()).contains("neither model.safetensors nor"));
    std::fs::write(path("config.json"), "{").unwrap();
    assert!(refusal(written.path()).contains("config.json"));
    std::fs::remove_file(path("config.json")).unwrap();
    let error = open(written.path()).unwrap_err().to_string();
    assert!(error.contains("a folder; that of a model has config.json"), "{error}");
}

#[test]
fn vocabularies_that_do_not_fit_are_named() {
    let mut folder = Folder::of("qwen3-untied.gguf");
    folder.tokenizer["added_tokens"][0]["id"] = json!(288);
    let message = folder.refusal();
    assert!(message.contains("tokenizer.json") && message.contains("288 rows"), "{message}");
    let mut folder = Folder::of("qwen3-untied.gguf");
    folder.tokenizer["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [
        {"type": "Split", "pattern": {"Regex": "[xyz]"}}, {"type": "ByteLevel", "use_regex": false}
    ]});
    let error = open(folder.write(1).path()).unwrap().tokenizer().unwrap_err().to_string();
    assert!(error.contains("[xyz]"), "{error}");
    let written = Folder::of("qwen3-untied.gguf").write(1);
    std::fs::remove_file(written.path().join("tokenizer.json")).unwrap();
    let model = open(written.path()).unwrap();
    assert!(model.tokenizer().unwrap_err().to_string().contains("no vocabulary"));
}
