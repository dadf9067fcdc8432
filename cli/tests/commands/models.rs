//! Commands that make model files and judge models: quantize, convert, perplexity, and what info says of any file.

use std::path::Path;

use crate::common::gguf_writer::{F32, Writer, f32_bytes, put_u32, string};
use crate::common::golden_path;
use crate::support::{TINY, fails, generate, smallmind, stdout, succeeds};
use serde_json::Value as Json;
use smallmind::model::{LoadParams, Model};
use smallmind::runtime::{Context, ContextParams, Logits};

fn path(folder: &Path, name: &str) -> String {
    folder.join(name).into_os_string().into_string().unwrap()
}

fn golden(name: &str) -> String {
    path(&golden_path("gguf"), name)
}

#[test]
fn a_quantised_file_runs() {
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (golden("qwen3-untied.gguf"), path(folder.path(), "q8.gguf"));
    let quantize = |args: &[&str]| {
        let mut command = smallmind(&["quantize", &from, &to]);
        command.args(args);
        command
    };
    let said = succeeds(&mut quantize(&["--type", "q8_0"]));
    assert!(
        said.contains("blk.1.ffn_down.weight")
            && said.contains("Q8_0")
            && said.contains("others, as they are"),
        "{said}"
    );
    let last = said.lines().last().unwrap();
    assert!(last.contains("q8.gguf: Q8_0,") && last.ends_with("bits a parameter"), "{last}");
    let info = succeeds(&mut smallmind(&["info", &to, "--tensors"]));
    assert!(info.contains("Q8_0") && !info.contains("can't be run"), "{info}");
    succeeds(generate(&to, &["-q", "-n", "4", "--temp", "0"]).arg("-pabc"));
    fails(&mut quantize(&["--type", "Q4_0"]), 1, "is there already (--force overwrites it)");
    let json = succeeds(&mut quantize(&["--type", "Q4_0", "--force", "--json"]));
    let json: Json = serde_json::from_str(&json).unwrap();
    let error = |name: &str| {
        let tensors = json["tensors"].as_array().unwrap();
        tensors.iter().find(|tensor| tensor["name"] == name).unwrap()["error"].as_f64().unwrap()
    };
    assert!((0.01..0.2).contains(&error("blk.0.ffn_up.weight")), "{json}");
    assert_eq!(error("blk.0.attn_norm.weight"), 0.0);
}

#[test]
fn what_cannot_be_quantised_leaves_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let to = path(folder.path(), "new.gguf");
    fails(&mut smallmind(&["quantize", TINY, &to, "--type", "Q4_K_M"]), 1, "--requantize");
    fails(&mut smallmind(&["quantize", TINY, &to, "--type", "Q9"]), 2, "Q4_K_M");
    fails(&mut smallmind(&["quantize", TINY, &to]), 2, "--type");
    fails(
        &mut smallmind(&["quantize", TINY, &to, "--type", "F16", "--imatrix", TINY]),
        1,
        "no importance matrix",
    );
    let values = f32_bytes(&[f32::NAN; 64]);
    let bad = Writer::new().tensor("a.weight", &[32, 2], F32, &values).build();
    std::fs::write(path(folder.path(), "bad.gguf"), bad).unwrap();
    fails(
        &mut smallmind(&["quantize", &path(folder.path(), "bad.gguf"), &to, "-t", "Q8_0"]),
        1,
        "\"a.weight\"",
    );
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    succeeds(&mut smallmind(&["quantize", TINY, &to, "--type", "Q4_0", "--requantize", "-q"]));
}

/// Perplexity by one token at a time, and sums in f64.
fn perplexity(model: &str, text: &str, n_ctx: usize) -> (f64, f64) {
    let model = Model::open(Path::new(model), &LoadParams::default()).unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let tokens = tokenizer.encode(text, false, true).unwrap();
    let bos = tokenizer.added_bos();
    let mut context = Context::new(model.clone(), &ContextParams::default().with_n_ctx(n_ctx)).unwrap();
    let mut surprises = Vec::new();
    for chunk in tokens.chunks_exact(n_ctx) {
        context.clear();
        for (i, &token) in chunk[..n_ctx - 1].iter().enumerate() {
            context.decode(&[bos.filter(|_| i == 0).unwrap_or(token)], Logits::Last).unwrap();
            if i >= n_ctx / 2 {
                let logits: Vec<f64> = context.logits().iter().map(|&x| x.into()).collect();
                let sum: f64 = logits.iter().map(|x| x.exp()).sum();
                surprises.push(sum.ln() - logits[chunk[i + 1] as usize]);
            }
        }
    }
    let count = surprises.len() as f64;
    let mean = surprises.iter().sum::<f64>() / count;
    let variance = surprises.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
    (mean.exp(), mean.exp() * (variance / (count - 1.0)).sqrt())
}

#[test]
fn perplexity_is_that_of_each_token() {
    let folder = tempfile::tempdir().unwrap();
    let file = path(folder.path(), "text.txt");
    let text = "The quick brown fox jumps over the lazy dog, 12 times or so. ".repeat(12);
    std::fs::write(&file, format!("{text}\n")).unwrap();
    for model in [TINY.to_owned(), golden("qwen2-tied.gguf")] {
        for n_ctx in [16, 31] {
            let ctx = n_ctx.to_string();
            let args = ["perplexity", "-m", &model, "-f", &file, "-c", &ctx, "--json"];
            let json: Json = serde_json::from_str(&succeeds(&mut smallmind(&args))).unwrap();
            let wanted = perplexity(&model, &text, n_ctx);
            let near = |key: &str, wanted: f64| {
                let got = json[key].as_f64().unwrap();
                assert!((got / wanted - 1.0).abs() < 1e-4, "{model} {n_ctx} {key}: {got} not {wanted}");
            };
            near("perplexity", wanted.0);
            near("error", wanted.1);
            assert_eq!(
                json["predictions"],
                json["chunks"].as_u64().unwrap() * (n_ctx as u64 - n_ctx as u64 / 2 - 1)
            );
        }
    }
    let said =
        succeeds(&mut smallmind(&["perplexity", "-m", TINY, "-f", &file, "-c", "16", "--chunks", "2", "-q"]));
    assert!(said.starts_with("Final estimate: PPL = ") && said.contains(" +/- "), "{said}");
    let short = ["perplexity", "-m", TINY, "-f", &file, "-c", "128", "--kv", "f32"];
    std::fs::write(&file, "short").unwrap();
    fails(&mut smallmind(&short), 1, "at least two chunks of 128");
    fails(&mut smallmind(&["perplexity", "-m", TINY, "-f", &file, "-c", "3"]), 2, "--ctx");
    fails(&mut smallmind(&["perplexity", "-m", TINY, "-f", &path(folder.path(), "none")]), 1, "none");
}

/// A model of llama2.c, with one layer and three tokens besides those of bytes.
fn llama2c(folder: &Path) -> (String, String) {
    let (width, n_ff, heads, kv_heads, vocabulary, positions) = (8, 16, 2, 1, 262, 32);
    let mut model = Vec::new();
    [width, n_ff, 1, heads, kv_heads, vocabulary, positions].iter().for_each(|&x| put_u32(&mut model, x));
    let head = width / heads;
    let count = vocabulary * width
        + 2 * width * width
        + 2 * width * head * kv_heads
        + 3 * width * n_ff
        + 3 * width
        + positions * head;
    for i in 0..count {
        model.extend_from_slice(&(((i * 37 % 101) as f32 - 50.0) / 100.0).to_le_bytes());
    }
    let mut tokenizer = Vec::new();
    put_u32(&mut tokenizer, 8);
    let texts = ["<unk>".to_owned(), "\n<s>\n".into(), "\n</s>\n".into()].into_iter();
    let texts = texts.chain((0..256).map(|byte| format!("<0x{byte:02X}>")));
    for (i, text) in texts.chain([" a".to_owned(), "b".into(), " ".into()]).enumerate() {
        tokenizer.extend_from_slice(&(-(i as f32)).to_le_bytes());
        put_u32(&mut tokenizer, text.len() as u32);
        tokenizer.extend_from_slice(text.as_bytes());
    }
    let (at, beside) = (path(folder, "model.bin"), path(folder, "tokenizer.bin"));
    std::fs::write(&at, model).unwrap();
    std::fs::write(&beside, tokenizer).unwrap();
    (at, beside)
}

#[test]
fn files_of_llama2c_become_gguf() {
    let folder = tempfile::tempdir().unwrap();
    let (model, tokenizer) = llama2c(folder.path());
    let to = path(folder.path(), "new.gguf");
    let said = succeeds(&mut smallmind(&["convert", &model, &to]));
    assert!(said.contains("11 tensors"), "{said}");
    let info: Json =
        serde_json::from_str(&succeeds(&mut smallmind(&["info", &to, "--json", "--metadata"]))).unwrap();
    assert!(info["cannot_be_run"].is_null(), "{info}");
    let tokens = &info["metadata"]["tokenizer.ggml.tokens"];
    assert_eq!([&tokens[1], &tokens[3], &tokens[259]], ["<s>", "<0x00>", "\u{2581}a"]);
    let types = &info["metadata"]["tokenizer.ggml.token_type"];
    assert_eq!([&types[0], &types[1], &types[3], &types[260]], [2, 3, 6, 1]);
    let half = path(folder.path(), "half.gguf");
    succeeds(&mut smallmind(&["convert", &model, &half, "--type", "F16", "--tokenizer", &tokenizer, "-q"]));
    assert!(succeeds(&mut smallmind(&["info", &half])).contains("F16"));
    fails(&mut smallmind(&["convert", &to, &half]), 1, "is a GGUF file already");
    fails(&mut smallmind(&["convert", &model, &to, "--tokenizer", &model]), 1, "model.bin");
    let whole = std::fs::read(&model).unwrap();
    std::fs::write(&model, &whole[..whole.len() - 4]).unwrap();
    fails(&mut smallmind(&["convert", &model, &half, "--force"]), 1, "was its download interrupted?");
    std::fs::write(&model, [0; 28]).unwrap();
    fails(&mut smallmind(&["convert", &model, &half, "--force"]), 1, "not a llama2.c model");
    fails(&mut smallmind(&["convert", &path(folder.path(), "none"), &half]), 1, "none");
    fails(
        &mut smallmind(&["convert", &path(folder.path(), ""), &half]),
        1,
        "but a folder; that of a model has config.json",
    );
}

#[test]
fn info_estimates_any_file() {
    let folder = tempfile::tempdir().unwrap();
    let file = path(folder.path(), "strange.gguf");
    let strange = Writer::new()
        .pair("general.architecture", string("strange"))
        .tensor("blk.0.odd.weight", &[32, 2], F32, &f32_bytes(&[0.5; 64]))
        .build();
    std::fs::write(&file, strange).unwrap();
    let text = succeeds(&mut smallmind(&["info", &file]));
    let line = |key: &str| {
        text.lines().find(|line| line.starts_with(key)).unwrap_or_else(|| panic!("{key} in {text}"))
    };
    assert!(line("weights").contains("0.3 kB; a token reads 0.3 kB"));
    assert!(line("memory").contains("fits into"));
    assert!(line("speed").contains("at most about") && line("speed").contains("an estimate"));
    assert!(line("can't be run").contains("strange"));
    let json: Json = serde_json::from_str(&succeeds(&mut smallmind(&["info", TINY, "--json"]))).unwrap();
    assert_eq!(json["estimate"]["fits"], true);
    assert!(json["estimate"]["cache_bytes"].as_u64().unwrap() > 0, "{json}");
    let output = smallmind(&["info", TINY]).output().unwrap();
    assert!(stdout(&output).contains("cache            "));
}
