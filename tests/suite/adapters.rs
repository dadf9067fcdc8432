//! Low-rank adapters (LoRA) at run time: the logits are those of the model in which they are merged, and llama.cpp's; an
//! adapter that changes nothing changes no bit; one of another model is refused by the name of its tensor.

use std::sync::Arc;

use crate::common::adapters::{Matrix, Recipe, matrices, merged};
use crate::common::families::{Family, names};
use crate::common::gguf_writer::{F16, F32, Writer, f32_bytes};
use crate::common::golden::{Cursor, read};
use crate::common::{golden_path, tiny_model};
use smallmind::format::gguf::{Array, Gguf, Value};
use smallmind::format::{ByteSource, BytesSource, FileSource};
use smallmind::kernels::qmatmul::Activations;
use smallmind::kv::CacheType;
use smallmind::model::{Adapter, LoadParams, Model};
use smallmind::runtime::{Context, ContextParams, Logits};

/// Largest mean square difference between logits with adapters and those of the merged model, relative to their mean
/// square, in f32: some thirty products stand one behind the other, each of at most 384 terms in f32, whose sum is off by
/// about √384 · 2⁻²⁴ = 1.2e-6 of its size; a merged weight is rounded once more, by 2⁻²⁴. (30 · 1.2e-6)² = 1.3e-9.
const MARK: f64 = 1.3e-9;

/// Quantised models, all kinds of blocks among them.
const QUANTISED: [&str; 4] = ["untied-mixed", "untied-every-quant", "qwen2-quant", "gpt-tied-quant"];

/// Of a model, the logits of `tokens`, decoded in pieces.
fn logits(model: &Arc<Model>, tokens: &[u32], piece: usize, threads: usize) -> Vec<f32> {
    let params = ContextParams::default()
        .with_n_ctx(tokens.len())
        .with_n_output(tokens.len())
        .with_threads(threads)
        .with_kv(CacheType::F32);
    let mut context = Context::new(model.clone(), &params).unwrap();
    let mut all = Vec::new();
    for piece in tokens.chunks(piece) {
        context.decode(piece, Logits::All).unwrap();
        all.extend_from_slice(context.logits());
    }
    all
}

fn tokens(model: &Model, count: usize) -> Vec<u32> {
    (0..count).map(|i| ((37 * i + 11 * i * i + 5) % model.config().n_vocab) as u32).collect()
}

fn bytes(name: &str, file: Vec<u8>) -> Arc<dyn ByteSource> {
    Arc::new(BytesSource::new(name, file))
}

fn adapter(file: Vec<u8>, scale: f32) -> smallmind::Result<Adapter> {
    Ok(Adapter::from_source(bytes("adapter.gguf", file))?.with_scale(scale))
}

fn load(file: Arc<dyn ByteSource>, adapters: &[Adapter]) -> smallmind::Result<Arc<Model>> {
    let params = LoadParams::default().with_activations(Activations::Bits16).with_adapters(adapters);
    Model::from_source(file, &params)
}

/// Mean square difference, relative to the mean square of the first.
fn off(exact: &[f32], other: &[f32]) -> f64 {
    assert_eq!(exact.len(), other.len());
    let square = |x: f64| x * x;
    let error: f64 = exact.iter().zip(other).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    error / exact.iter().map(|&a| square(a.into())).sum::<f64>()
}

fn architecture(gguf: &Gguf) -> &str {
    gguf.metadata().require_str("general.architecture").unwrap()
}

/// Two adapters of a model, the second of some matrices only.
struct Two {
    recipes: [Recipe; 2],
    matrices: [Vec<Matrix>; 2],
}

const SCALES: [f32; 2] = [0.7, -1.3];

impl Two {
    fn of(gguf: &Gguf) -> Two {
        let all = matrices(gguf);
        let some = all.iter().step_by(3).cloned().collect();
        // Together they change products by about a third.
        let recipes =
            [Recipe::new("one", 4, 8.0).sized(0.5), Recipe { ty: F16, ..Recipe::new("two", 3, 0.0) }];
        Two { recipes, matrices: [all, some] }
    }

    fn adapters(&self, architecture: &str) -> smallmind::Result<Vec<Adapter>> {
        let parts = self.recipes.iter().zip(&self.matrices).zip(SCALES);
        parts.map(|((recipe, matrices), scale)| adapter(recipe.file(architecture, matrices), scale)).collect()
    }

    fn merged(&self, gguf: &Gguf) -> Vec<u8> {
        let parts: Vec<_> = (0..2).map(|i| (&self.recipes[i], SCALES[i], &self.matrices[i][..])).collect();
        merged(gguf, &parts)
    }
}

/// A family's file without factors on matrices, which don't multiply the products of adapters.
fn unscaled(name: &str) -> Vec<u8> {
    let mut family = Family::read(name);
    family.tensors.retain(|tensor| !tensor.name.ends_with(".scale"));
    family.file()
}

/// What is wrong with a family's logits; the error if the family refuses adapters.
fn compared(name: &str) -> Result<Option<String>, String> {
    let file = bytes(name, unscaled(name));
    let gguf = Gguf::open(file.clone()).unwrap();
    let two = Two::of(&gguf);
    let model = load(file.clone(), &two.adapters(architecture(&gguf)).unwrap()).map_err(|e| e.to_string())?;
    if model.graph().logits.is_none() {
        return Ok(None);
    }
    let exact = load(bytes("merged", two.merged(&gguf)), &[]).unwrap();
    let tokens = tokens(&model, 24);
    let (exact, got) = (logits(&exact, &tokens, 24, 1), logits(&model, &tokens, 24, 1));
    let plain = logits(&load(file, &[]).unwrap(), &tokens, 24, 1);
    let (error, moved) = (off(&exact, &got), off(&plain, &got));
    println!("{name}: {error:.1e}, moved by {moved:.1e}");
    // Fails for NaN too.
    if !(error < MARK && moved > 1e-4) {
        return Ok(Some(format!("{name}: {error:.1e}, moved by {moved:.1e}")));
    }
    let causal = model.config().layers.iter().all(|layer| layer.mask.is_causal());
    let pieces = [(24, 2), (7, 1), (1, 2)];
    let differs = |&(piece, threads): &(usize, usize)| {
        (causal || piece == 24) && logits(&model, &tokens, piece, threads) != got
    };
    let other = pieces.into_iter().find(differs);
    Ok(other.map(|(piece, threads)| format!("{name}: other bits in pieces of {piece} on {threads} threads")))
}

#[test]
fn every_family_with_adapters_is_the_merged_model() {
    let (mut faults, mut refused) = (Vec::new(), Vec::new());
    for name in names().iter().filter(|name| name.ends_with("-dense")) {
        match compared(name) {
            Ok(fault) => faults.extend(fault),
            Err(error) => refused.push((name.clone(), error)),
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");
    // Layers that read the keys and values of another one.
    let known = |(name, error): &(String, String)| {
        name.starts_with("gemma4") && error.contains("adapters of queries of another layer's keys")
    };
    assert!(refused.iter().all(known), "{refused:#?}");
}

#[test]
fn quantised_models_with_adapters_are_as_near_to_merged_ones_as_without() {
    for name in QUANTISED {
        let file: Arc<dyn ByteSource> = Arc::new(FileSource::open(tiny_model(name)).unwrap());
        let gguf = Gguf::open(file.clone()).unwrap();
        let two = Two::of(&gguf);
        let adapted = load(file.clone(), &two.adapters(architecture(&gguf)).unwrap()).unwrap();
        let tokens = tokens(&adapted, 24);
        let [adapted, merged, plain, widened] = [
            adapted,
            load(bytes("merged", two.merged(&gguf)), &[]).unwrap(),
            load(file, &[]).unwrap(),
            load(bytes("widened", merged(&gguf, &[])), &[]).unwrap(),
        ]
        .map(|model| logits(&model, &tokens, 24, 1));
        let (error, usual) = (off(&merged, &adapted), off(&widened, &plain));
        println!("{name}: {error:.1e}; {usual:.1e} without adapters");
        // The rounding of activations, of which adapters' products, in f32, have none of their own.
        assert!(error < 4.0 * usual + MARK, "{name}: {error:.1e}; {usual:.1e} without adapters");
    }
}

/// Where a product is added to the residual stream, its sum with an adapter's comes first: another order of additions.
#[test]
fn adapters_with_a_zero_b_or_scale_change_no_bit_outside_of_the_residual_stream() {
    let mut models: Vec<(String, Arc<dyn ByteSource>)> = Vec::new();
    for name in QUANTISED {
        models.push((name.into(), Arc::new(FileSource::open(tiny_model(name)).unwrap())));
    }
    for name in ["llama-dense", "qwen2-dense", "qwen3-dense", "gpt2-dense", "phi3-dense", "gemma2-dense"] {
        models.push((name.into(), bytes(name, Family::read(name).file())));
    }
    for (name, file) in models {
        let gguf = Gguf::open(file.clone()).unwrap();
        let streamed = |(name, _): &Matrix| name.contains("attn_output") || name.contains("ffn_down");
        let (outside, inside): (Vec<_>, Vec<_>) = matrices(&gguf).into_iter().partition(|m| !streamed(m));
        let make = |matrices: &[Matrix], size, scale| {
            let recipe = Recipe::new("zero", 5, 5.0).sized(size);
            adapter(recipe.file(architecture(&gguf), matrices), scale).unwrap()
        };
        for activations in [Activations::Bits16, Activations::Bits8] {
            let load = |adapters: &[Adapter]| {
                let params = LoadParams::default().with_activations(activations).with_adapters(adapters);
                Model::from_source(file.clone(), &params).unwrap()
            };
            let plain = load(&[]);
            let tokens = tokens(&plain, 24);
            let plain = logits(&plain, &tokens, 24, 2);
            for (size, scale) in [(0.0, 1.0), (1.0, 0.0)] {
                let got = logits(&load(&[make(&outside, size, scale)]), &tokens, 24, 2);
                assert!(got == plain, "{name}, {activations:?}: off by {:.1e}", off(&plain, &got));
            }
            let error = off(&plain, &logits(&load(&[make(&inside, 0.0, 1.0)]), &tokens, 24, 2));
            println!("{name}, {activations:?}: {error:.1e}");
            // Where activations are quantised, some fall on the other side of a rounding.
            let mark = match (gguf.tensors().iter().any(|t| t.dtype().unwrap().is_quantized()), activations) {
                (false, _) => MARK,
                (true, Activations::Bits16) => 1e-8,
                (true, _) => 1e-3,
            };
            assert!(error < mark, "{name}, {activations:?}: {error:.1e}");
        }
    }
}

/// Adapters of the embeddings, whose A has a row for each token.
#[test]
fn embeddings_take_adapters() {
    let file = bytes("model", Family::read("llama-dense").file());
    let gguf = Gguf::open(file.clone()).unwrap();
    let table = gguf.tensor("token_embd.weight").unwrap();
    let [width, n] = [table.dims[0], table.dims[1]];
    let matrix: Matrix = ("token_embd.weight".into(), [width, n]);
    let recipe = Recipe::new("embedding", 2, 2.0);
    // B · A of the recipe is n × width; here A is what the recipe calls B.
    let [down, up] = recipe.halves(&matrix, [(width * 2) as usize, (n * 2) as usize]);
    let transposed: Vec<f32> =
        (0..width as usize).flat_map(|j| [down[j], down[width as usize + j]]).collect();
    let made = recipe
        .pairs("llama")
        .tensor("token_embd.weight.lora_a", &[2, n], F32, &f32_bytes(&up))
        .tensor("token_embd.weight.lora_b", &[2, width], F32, &f32_bytes(&transposed))
        .build();
    let model = load(file, &[adapter(made, 0.5).unwrap()]).unwrap();
    let exact = load(bytes("merged", merged(&gguf, &[(&recipe, 0.5, &[matrix])])), &[]).unwrap();
    let tokens = tokens(&model, 24);
    let error = off(&logits(&exact, &tokens, 24, 1), &logits(&model, &tokens, 24, 1));
    assert!(error < MARK, "{error:.1e}");
}

/// The largest difference of a model's logits from llama.cpp's in a golden.
fn difference(model: &Arc<Model>, name: &str) -> f32 {
    let golden = read(&format!("adapters/{name}.bin"));
    let mut cursor = Cursor::new(&golden, b"SMLR");
    let [positions, rows, width] = std::array::from_fn(|_| cursor.size());
    let ours = logits(model, &tokens(model, positions), positions, 2);
    let places: Vec<_> = (0..rows).map(|_| cursor.size()).collect();
    let of_row = |place: usize| ours[place * width..][..width].iter();
    let most = places.into_iter().flat_map(of_row).fold(0.0f32, |most, x| most.max((x - cursor.f32()).abs()));
    println!("{name}: {most:.1e}");
    most
}

/// The recipe is `tests/goldens/recipes/adapters.py`.
#[test]
fn logits_are_llama_cpps() {
    for (name, mark) in [("qwen3-untied", 1e-4), ("untied-mixed", 1.5e-3)] {
        let file: Arc<dyn ByteSource> = Arc::new(FileSource::open(tiny_model(name)).unwrap());
        let gguf = Gguf::open(file.clone()).unwrap();
        let architecture = architecture(&gguf);
        let all = matrices(&gguf);
        let some: Vec<Matrix> = all
            .iter()
            .filter(|(name, _)| ["blk.0.attn_v.weight", "blk.0.ffn_up.weight"].contains(&name.as_str()))
            .cloned()
            .collect();
        let first = Recipe::new("first", 4, 8.0).file(architecture, &all);
        let second = Recipe::new("second", 3, 0.0).file(architecture, &some);
        let adapters = [adapter(first, 0.75).unwrap(), adapter(second, -1.5).unwrap()];
        let most = difference(&load(file, &adapters).unwrap(), name);
        assert!(most < mark, "{name}: {most}");
    }
}

/// The adapter is one that this library has trained, by the recipe's command.
#[test]
fn llama_cpp_applies_a_trained_adapter_alike() {
    let file: Arc<dyn ByteSource> = Arc::new(FileSource::open(tiny_model("untied-mixed")).unwrap());
    let trained = Adapter::open(&golden_path("adapters/trained.gguf")).unwrap();
    let most = difference(&load(file.clone(), &[trained]).unwrap(), "trained");
    assert!(most < 1.5e-3, "{most}");
    let without = difference(&load(file, &[]).unwrap(), "trained");
    assert!(without > 0.1, "{without}");
}

/// A base, and the files of adapters that don't fit it with the words that the error has.
#[test]
fn adapters_of_other_models_are_refused_by_name() {
    let file = bytes("model", Family::read("llama-dense").file());
    let gguf = Gguf::open(file.clone()).unwrap();
    let all = matrices(&gguf);
    let query: Vec<Matrix> = all.iter().filter(|(name, _)| name == "blk.0.attn_q.weight").cloned().collect();
    let [k, n] = query[0].1;
    let recipe = Recipe::new("bad", 2, 2.0);
    let good = recipe.file("llama", &query);
    let pair = |w: Writer, name: &str, a: &[u64], b: &[u64]| {
        let zeros = |dims: &[u64]| vec![0; 4 * dims.iter().product::<u64>() as usize];
        let w = if a.is_empty() { w } else { w.tensor(&format!("{name}.lora_a"), a, F32, &zeros(a)) };
        if b.is_empty() { w } else { w.tensor(&format!("{name}.lora_b"), b, F32, &zeros(b)) }
    };
    let one = |name: &str, a: &[u64], b: &[u64]| pair(recipe.pairs("llama"), name, a, b).build();
    let q = "blk.0.attn_q.weight";
    let alpha = |alpha: Option<f32>| {
        let w = Writer::new()
            .pair("general.architecture", Value::Str("llama".into()))
            .pair("general.type", Value::Str("adapter".into()))
            .pair("adapter.type", Value::Str("lora".into()));
        let w = match alpha {
            Some(alpha) => w.pair("adapter.lora.alpha", Value::F32(alpha)),
            None => w,
        };
        pair(w, q, &[k, 2], &[2, n]).build()
    };
    let typed = |kind: &str, ty: &str| {
        let w = Writer::new()
            .pair("general.architecture", Value::Str("llama".into()))
            .pair("general.type", Value::Str(kind.into()))
            .pair("adapter.type", Value::Str(ty.into()))
            .pair("adapter.lora.alpha", Value::F32(1.0));
        pair(w, q, &[k, 2], &[2, n]).build()
    };
    let activated = pair(
        recipe.pairs("llama").pair("adapter.alora.invocation_tokens", Value::Array(Array::U32(vec![1]))),
        q,
        &[k, 2],
        &[2, n],
    );
    let cases: &[(Vec<u8>, f32, &[&str])] = &[
        (recipe.file("qwen2", &query), 1.0, &["adapter.gguf", "qwen2", "llama"]),
        (good.clone(), f32::NAN, &["adapter.gguf", "scale of NaN"]),
        (good.clone(), f32::INFINITY, &["adapter.gguf", "scale of inf"]),
        (good[..good.len() - 40].to_vec(), 1.0, &["adapter.gguf", "lora_b"]),
        (alpha(None), 1.0, &["adapter.gguf", "adapter.lora.alpha", "missing"]),
        (alpha(Some(f32::NAN)), 1.0, &["adapter.gguf", "adapter.lora.alpha is NaN"]),
        (alpha(Some(f32::MAX)), f32::MAX, &["adapter.gguf", "scale"]),
        (typed("model", "lora"), 1.0, &["adapter.gguf", "general.type is \"model\""]),
        (typed("adapter", "dora"), 1.0, &["adapter.gguf", "adapter.type is \"dora\""]),
        (activated.build(), 1.0, &["adapter.gguf", "aLoRA"]),
        (recipe.pairs("llama").build(), 1.0, &["adapter.gguf", "without tensors"]),
        (one(q, &[k, 2], &[]), 1.0, &["adapter.gguf", "attn_q.weight.lora_a", "lora_b"]),
        (one(q, &[], &[2, n]), 1.0, &["adapter.gguf", "attn_q.weight.lora_b", "lora_a"]),
        (one(q, &[k, 2], &[3, n]), 1.0, &["adapter.gguf", "attn_q.weight.lora_b", "rank 2"]),
        (one(q, &[k + 1, 2], &[2, n]), 1.0, &["adapter.gguf", "attn_q.weight.lora_a", "shape"]),
        (one(q, &[k, 2], &[2, n + 1]), 1.0, &["adapter.gguf", "attn_q.weight.lora_b", "shape"]),
        (
            one("blk.99.attn_q.weight", &[k, 2], &[2, n]),
            1.0,
            &["blk.99.attn_q.weight.lora_a", "doesn't have"],
        ),
        (one("blk.0.attn_norm.weight", &[k, 2], &[2, 1]), 1.0, &["blk.0.attn_norm.weight.lora_a"]),
        (one("blk.0.ffn_up_exps.weight", &[k, 2, 4], &[2, n, 4]), 1.0, &["ffn_up_exps", "experts"]),
        (
            recipe
                .pairs("llama")
                .tensor("blk.0.attn_norm.weight", &[k], F32, &vec![0; 4 * k as usize])
                .build(),
            1.0,
            &["adapter.gguf", "blk.0.attn_norm.weight", "llama.cpp ignores"],
        ),
        (
            recipe
                .pairs("llama")
                .tensor(&format!("{q}.lora_a"), &[k, 2], 99, &[0; 64])
                .tensor(&format!("{q}.lora_b"), &[2, n], F32, &vec![0; 8 * n as usize])
                .build(),
            1.0,
            &["adapter.gguf", "attn_q.weight.lora_a", "type"],
        ),
        (b"GGUF".to_vec(), 1.0, &["adapter.gguf"]),
    ];
    assert!(load(file.clone(), &[adapter(good.clone(), 1.0).unwrap()]).is_ok());
    for (i, (bad, scale, words)) in cases.iter().enumerate() {
        let error = adapter(bad.clone(), *scale).and_then(|adapter| load(file.clone(), &[adapter]));
        let error = error.expect_err(&format!("case {i}: {words:?}")).to_string();
        assert!(words.iter().all(|word| error.contains(word)), "case {i}: {error}; expected {words:?}");
    }
    // A head that is the table of embeddings, and learned positions.
    for (name, words) in [("gemma2-dense", "a table and a matrix"), ("gpt2-dense", "learned positions")] {
        let file = bytes(name, Family::read(name).file());
        let gguf = Gguf::open(file.clone()).unwrap();
        let table = gguf.tensor("token_embd.weight").unwrap();
        let made = pair(
            recipe.pairs(architecture(&gguf)),
            "token_embd.weight",
            &[2, table.dims[1]],
            &[2, table.dims[0]],
        );
        let error = load(file, &[adapter(made.build(), 1.0).unwrap()]).unwrap_err().to_string();
        assert!(error.contains("token_embd.weight") && error.contains(words), "{name}: {error}");
    }
}
