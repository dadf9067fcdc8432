//! Folders of Hugging Face of each class that is known: small random ones of which llama.cpp's converter made a GGUF file.
//! Ours has the same keys and the same bytes, and the last row of logits (hidden rows, scores) is that of transformers.

use std::path::Path;
use std::sync::Arc;

use crate::common::golden_path;
use half::{bf16, f16};
use serde_json::{Map, Value as Json, json};
use smallmind::format::gguf::{Array, Gguf, Value};
use smallmind::kv::CacheType;
use smallmind::model::foreign::open_source;
use smallmind::model::{LoadParams, Model};
use smallmind::runtime::{Batch, Engine, EngineParams, Output, Span};
use smallmind::threads::Team;

use crate::common::families::uniform;

/// A folder in the making.
struct Golden(Json);

fn list(json: &Json) -> &[Json] {
    json.as_array().expect("a list")
}

fn text(json: &Json) -> &str {
    json.as_str().expect("a text")
}

fn numbers(json: &Json) -> Vec<u64> {
    list(json).iter().map(|x| x.as_u64().expect("a number")).collect()
}

fn names() -> Vec<String> {
    let entries = std::fs::read_dir(golden_path("folders")).expect("the folder");
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter_map(|name| name.strip_suffix(".json").map(str::to_owned)).collect();
    names.sort();
    names
}

impl Golden {
    fn read(name: &str) -> Golden {
        let path = golden_path("folders").join(format!("{name}.json"));
        Golden(serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap())
    }

    /// Gives the model as many tokens as this.
    fn resize(&mut self, tokens: u64) {
        for line in self.0["tensors"].as_array_mut().unwrap() {
            if line[1].as_str().is_some_and(|name| name.ends_with("embed_tokens.weight")) {
                line[2][0] = json!(tokens);
            }
        }
    }

    /// Writes the folder.
    fn write(&self, folder: &Path) {
        std::fs::write(folder.join("config.json"), self.0["config"].to_string()).unwrap();
        for (name, content) in self.0["files"].as_object().unwrap() {
            std::fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
            std::fs::write(folder.join(name), content.to_string()).unwrap();
        }
        let tensors = list(&self.0["tensors"]);
        let mut files: Vec<_> = tensors.iter().map(|line| text(&line[0])).collect();
        files.dedup();
        for file in files {
            let lines = tensors.iter().filter(|line| line[0] == file);
            std::fs::write(folder.join(file), safetensors(lines, text(&self.0["dtype"]))).unwrap();
        }
    }
}

/// A safetensors file of lines of names, shapes and ranges.
fn safetensors<'a>(lines: impl Iterator<Item = &'a Json>, dtype: &str) -> Vec<u8> {
    let (mut header, mut data) = (Map::new(), Vec::<u8>::new());
    for line in lines {
        let (name, shape) = (text(&line[1]), numbers(&line[2]));
        let [middle, half] = [&line[3], &line[4]].map(|x| x.as_f64().unwrap() as f32);
        let begin = data.len();
        for x in uniform(name, shape.iter().product::<u64>() as usize) {
            let x = middle + half * x;
            match dtype {
                "F32" => data.extend(x.to_le_bytes()),
                "F16" => data.extend(f16::from_f32(x).to_le_bytes()),
                _ => data.extend(bf16::from_f32(x).to_le_bytes()),
            }
        }
        let entry = json!({"dtype": dtype, "shape": shape, "data_offsets": [begin, data.len()]});
        header.insert(name.to_owned(), entry);
    }
    let header = Json::Object(header).to_string();
    [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &data].concat()
}

/// FNV-1a of 64-bit words.
fn hash(bytes: &[u8]) -> String {
    let words = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    let step = |hash: u64, word: u64| (hash ^ word).wrapping_mul(0x100_0000_01b3);
    format!("{:016x}", words.fold(0xcbf2_9ce4_8422_2325, step))
}

fn as_json(value: &Value) -> Json {
    match value {
        Value::U32(x) => json!(["uint32", x]),
        Value::F32(x) => json!(["float32", f64::from(*x)]),
        Value::Bool(x) => json!(["bool", x]),
        Value::Str(x) => json!(["string", x]),
        Value::Array(Array::Bool(x)) => json!(["bool[]", x]),
        Value::Array(Array::Str(x)) => json!(["string[]", x.iter().collect::<Vec<_>>()]),
        other => panic!("{}", other.type_name()),
    }
}

/// Keys and tensors that differ from the converter's.
fn differences(name: &str, golden: &Golden, gguf: &Gguf) -> Vec<String> {
    let mut faults = Vec::new();
    for (key, wanted) in golden.0["metadata"].as_object().unwrap() {
        let found = gguf.metadata().get(key).map_or(Json::Null, as_json);
        if found != *wanted {
            faults.push(format!("{key} is {found}, not {wanted}"));
        }
    }
    let converted = list(&golden.0["converted"]);
    for line in converted {
        let Some(tensor) = gguf.tensor(text(&line[0])) else {
            faults.push(format!("{} is missing", line[0]));
            continue;
        };
        let mut bytes = vec![0; tensor.bytes as usize];
        gguf.read_tensor(tensor, 0, &mut bytes).unwrap();
        let found = json!([tensor.name, tensor.shape(), tensor.ty.name(), hash(&bytes)]);
        if found != *line {
            faults.push(format!("{found} is not {line}"));
        }
    }
    // The converter drops a pooler that the class's own classifier reads.
    let more = |tensor: &&str| !(name == "bert-classifier" && ["cls.weight", "cls.bias"].contains(tensor));
    let ours = gguf.tensors().iter().map(|tensor| tensor.name.as_str()).filter(more).count();
    if !converted.is_empty() && ours != converted.len() {
        faults.push(format!("{ours} tensors, not {}", converted.len()));
    }
    faults
}

/// Our logits, hidden row or scores.
fn outcome(model: &Arc<Model>, golden: &Golden) -> Vec<f32> {
    let tokens: Vec<u32> = numbers(&golden.0["tokens"]).iter().map(|&x| x as u32).collect();
    let class = text(&golden.0["config"]["architectures"][0]);
    let output = match class {
        _ if class.ends_with("SequenceClassification") => Output::Pooled(smallmind::model::Pooling::Rank),
        _ if class.ends_with("Model") && !class.contains("LMHead") => Output::Hidden,
        _ => Output::Logits,
    };
    let n = tokens.len();
    let params = EngineParams::default()
        .with_n_sequences(1)
        .with_n_ctx(n)
        .with_n_batch(n)
        .with_n_output(n)
        .with_output(output)
        .with_kv(CacheType::F32);
    let mut engine = Engine::new(model.clone(), &params, Arc::new(Team::new(1).unwrap())).unwrap();
    let span = [Span::new(engine.create().unwrap(), 0, n)];
    let all: Vec<u32> = (0..n as u32).collect();
    engine.run(&Batch::new(&tokens, &span, &all)).unwrap();
    let found = engine.output();
    let rows = if matches!(output, Output::Pooled(_)) { 1 } else { n };
    found[found.len() / rows * (rows - 1)..].to_vec()
}

/// The normalised mean square error against transformers' last row.
fn error(ours: &[f32], theirs: &[f64]) -> f64 {
    let off: f64 = ours.iter().zip(theirs).map(|(&a, &b)| (f64::from(a) - b).powi(2)).sum();
    off / theirs.iter().map(|x| x * x).sum::<f64>()
}

fn faults(name: &str) -> Vec<String> {
    let golden = Golden::read(name);
    let folder = tempfile::tempdir().unwrap();
    golden.write(folder.path());
    let gguf = match open_source(folder.path()).and_then(Gguf::open) {
        Ok(gguf) => gguf,
        Err(error) => return vec![error.to_string()],
    };
    let mut faults = differences(name, &golden, &gguf);
    let model = match Model::open(folder.path(), &LoadParams::default()) {
        Ok(model) => model,
        Err(error) => {
            faults.push(error.to_string());
            return faults;
        }
    };
    faults.extend(model.warnings().iter().map(|warning| format!("warning: {warning}")));
    let row: Vec<f64> = list(&golden.0["row"]).iter().map(|x| x.as_f64().unwrap()).collect();
    if !row.is_empty() {
        let error = error(&outcome(&model, &golden), &row);
        println!("{name}: {error:.1e}");
        if error.is_nan() || error > mark(name) {
            faults.push(format!("{error:.1e} from transformers"));
        }
    }
    faults
}

/// Largest error. GELU is computed by its approximation, as in llama.cpp, where these classes have the function itself.
fn mark(name: &str) -> f64 {
    let approximated = ["bert", "xlm-roberta", "modernbert", "falcon", "gptneox"];
    if approximated.iter().any(|class| name.starts_with(class)) { 2e-7 } else { 1e-11 }
}

#[test]
fn folders_become_the_files_that_llama_cpp_makes_of_them() {
    let names = names();
    assert!(names.len() >= 35, "{names:?}");
    let all: Vec<_> = names.iter().map(|name| (name, faults(name))).filter(|(_, f)| !f.is_empty()).collect();
    let told = all.iter().map(|(name, faults)| format!("{name}: {}", faults.join("\n    ")));
    assert!(all.is_empty(), "{}", told.collect::<Vec<_>>().join("\n"));
}

#[test]
fn folders_of_each_kind_of_vocabulary_have_the_tokens_of_their_own_library() {
    let path = golden_path("folder-vocabularies.json");
    let golden: Json = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    for (name, golden) in golden.as_object().unwrap() {
        let mut model = Golden::read("llama");
        model.resize(700);
        let folder = tempfile::tempdir().unwrap();
        model.write(folder.path());
        let write =
            |file: &str, json: &Json| std::fs::write(folder.path().join(file), json.to_string()).unwrap();
        write("tokenizer.json", &golden["tokenizer.json"]);
        write("tokenizer_config.json", &golden["config"]);
        let model = Model::open(folder.path(), &LoadParams::default()).unwrap();
        let tokenizer = model.tokenizer().unwrap_or_else(|error| panic!("{name}: {error}"));
        for pair in list(&golden["texts"]) {
            let wanted: Vec<u32> = numbers(&pair[1]).iter().map(|&id| id as u32).collect();
            let found = tokenizer.encode(text(&pair[0]), true, true).unwrap();
            assert_eq!(found, wanted, "{name}: {}", pair[0]);
        }
    }
}
