//! Training of low-rank adapters: losses fall while the model stays as it is, the same bits for any number of threads and
//! after a break, files that apply at run time, merged files, and what is refused. Gradients are in `training_differences`.

use std::ops::ControlFlow;
use std::sync::Arc;

use crate::common::families::Family;
use crate::common::tiny_model;
use smallmind::format::gguf::Gguf;
use smallmind::format::{ByteSource, BytesSource, FileSource};
use smallmind::kv::CacheType;
use smallmind::model::quantize::{Mix, QuantizeParams, QuantizePlan};
use smallmind::model::{Adapter, LoadParams, Model};
use smallmind::runtime::{Context, ContextParams, Logits};
use smallmind::threads::Team;
use smallmind::train::{LoraParams, Schedule, TrainParams, Trainer};

/// A model of the Llama family whose matrices are quantised, of different types.
fn base() -> Arc<dyn ByteSource> {
    Arc::new(FileSource::open(tiny_model("untied-mixed")).unwrap())
}

fn params() -> TrainParams {
    TrainParams::default().with_sequences(2).with_context(16).with_schedule(Schedule::constant(0.01))
}

fn team(threads: usize) -> Arc<Team> {
    Arc::new(Team::new(threads).unwrap())
}

fn trainer(lora: &LoraParams, threads: usize) -> Trainer {
    Trainer::new_adapter(base(), lora, &params(), team(threads)).unwrap()
}

fn batch() -> [Vec<u32>; 2] {
    let token = |i: u32| (i * i * 7 + 3 * i + 1) % 250;
    [(0..32).map(token).collect(), (1..33).map(token).collect()]
}

fn written(trainer: &Trainer, state: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut write = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok(())
    };
    match state {
        true => trainer.write_state(&mut write).unwrap(),
        false => trainer.write_model(&mut write).unwrap(),
    }
    bytes
}

fn source(bytes: Vec<u8>) -> Arc<dyn ByteSource> {
    Arc::new(BytesSource::new("file", bytes))
}

/// The mean loss of a model's logits on the batch.
fn loss(model: &Arc<Model>) -> f64 {
    let [tokens, targets] = batch();
    let params = ContextParams::default().with_n_ctx(16).with_n_output(16).with_kv(CacheType::F32);
    let mut context = Context::new(model.clone(), &params).unwrap();
    let mut sum = 0.0;
    for (tokens, targets) in tokens.chunks(16).zip(targets.chunks(16)) {
        context.clear();
        context.decode(tokens, Logits::All).unwrap();
        let rows = context.logits().chunks(context.logits().len() / 16);
        for (row, &target) in rows.zip(targets) {
            let most = row.iter().fold(f64::NEG_INFINITY, |most, &x| most.max(x.into()));
            let total: f64 = row.iter().map(|&x| (f64::from(x) - most).exp()).sum();
            sum += most + total.ln() - f64::from(row[target as usize]);
        }
    }
    sum / 32.0
}

fn load(file: Arc<dyn ByteSource>, adapters: &[Adapter]) -> Arc<Model> {
    Model::from_source(file, &LoadParams::default().with_adapters(adapters)).unwrap()
}

#[test]
fn an_adapter_learns_and_applies_at_run_time() {
    let lora = LoraParams::new(4);
    let mut trainer = trainer(&lora, 2);
    let memory = Trainer::estimate_adapter(base(), &lora, &params(), 2).unwrap();
    assert_eq!(memory, trainer.memory());
    // Neither gradients nor moments of the model.
    let elements: usize = trainer.parameters().iter().map(|p| p.elements()).sum();
    assert!(memory.gradients < 4 * elements + 64 * trainer.parameters().len());
    assert_eq!(memory.moments, 2 * memory.gradients);
    assert!(trainer.parameters().iter().all(|p| p.name.contains(".weight.lora_")));
    let [tokens, targets] = batch();
    // B is zero: the model as it is, but for the rounding of activations at run time.
    let before = trainer.evaluate(&tokens, &targets).unwrap();
    let plain = loss(&load(base(), &[]));
    assert!((before / plain - 1.0).abs() < 1e-4, "{before} for {plain}");
    let first = trainer.parameters()[0].clone();
    let bound = 1.0 / (first.width as f32).sqrt();
    let beginning = trainer.weights(&first).to_vec();
    assert!(first.name.ends_with(".lora_a") && beginning.iter().all(|x| x.abs() <= bound && *x != 0.0));
    for _ in 0..60 {
        trainer.step(&tokens, &targets).unwrap();
    }
    let after = trainer.evaluate(&tokens, &targets).unwrap();
    println!("{before} before, {after} after");
    assert!(after < 0.3 * before, "{before} before, {after} after");
    assert!(trainer.weights(&first) != beginning);
    let adapter = Adapter::from_source(source(written(&trainer, false))).unwrap();
    assert_eq!((adapter.alpha(), adapter.targets().len()), (8.0, trainer.parameters().len() / 2));
    assert!(adapter.targets().all(|(_, rank)| rank == 4));
    let applied = loss(&load(base(), &[adapter]));
    assert!((applied - after).abs() < 1e-3 * before, "{applied} for {after}");
}

#[test]
fn adapters_have_the_same_bits_on_any_number_of_threads_and_after_a_break() {
    let [tokens, targets] = batch();
    let lora = LoraParams::new(3).with_alpha(5.0).with_targets(vec!["attn_q".into(), "ffn_down".into()]);
    let mut whole = trainer(&lora, 1);
    assert_eq!(whole.parameters().len() % 4, 0);
    let mut other = trainer(&lora, 3);
    let mut states = Vec::new();
    for step in 0..6 {
        if step == 3 {
            states.push(written(&whole, true));
        }
        let (one, three) = (whole.step(&tokens, &targets).unwrap(), other.step(&tokens, &targets).unwrap());
        assert_eq!(one, three);
    }
    assert!(written(&whole, true) == written(&other, true));
    let state = source(states.pop().unwrap());
    let mut resumed = Trainer::resume_adapter(base(), state.clone(), &params(), team(2)).unwrap();
    for _ in 3..6 {
        resumed.step(&tokens, &targets).unwrap();
    }
    assert!(written(&whole, true) == written(&resumed, true));
    // Another seed begins elsewhere.
    let seeded = Trainer::new_adapter(base(), &lora, &params().with_seed(1), team(1)).unwrap();
    assert!(written(&seeded, false) != written(&trainer(&lora, 1), false));
    // A state alone has no model, and a model's state no adapter; nor is it another model's.
    let error = Trainer::resume(state.clone(), &params(), team(1)).unwrap_err().to_string();
    assert!(error.contains("an adapter (LoRA)"), "{error}");
    let model = Trainer::new(base(), &params(), team(1)).unwrap();
    let error = Trainer::resume_adapter(base(), source(written(&model, true)), &params(), team(1));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("general.type"), "{error}");
    let qwen: Arc<dyn ByteSource> = Arc::new(FileSource::open(tiny_model("qwen3-untied")).unwrap());
    let error = Trainer::resume_adapter(qwen, state, &params(), team(1)).unwrap_err().to_string();
    assert!(error.contains("llama") && error.contains("qwen3"), "{error}");
}

/// Layers' activations that are computed again are what they were, behind an adapter's products too.
#[test]
fn adapters_have_the_same_bits_where_activations_are_computed_again() {
    let [tokens, targets] = batch();
    let lora = LoraParams::new(3).with_targets(vec!["attn_q".into(), "attn_v".into(), "ffn_down".into()]);
    let run = |recompute, threads| {
        let params = params().with_recompute(recompute);
        let mut trainer = Trainer::new_adapter(base(), &lora, &params, team(threads)).unwrap();
        let reports: Vec<_> = (0..4).map(|_| trainer.step(&tokens, &targets).unwrap()).collect();
        (reports, written(&trainer, true), trainer.batch_flops(), trainer.memory().arena)
    };
    let (kept, state, flops, arena) = run(false, 2);
    assert!(kept[3].loss < kept[0].loss);
    for threads in [1, 3] {
        let (again, bytes, more, less) = run(true, threads);
        assert_eq!(again, kept);
        assert!(bytes == state);
        assert!(more > flops && less < arena, "{more} for {flops} operations, {less} for {arena} bytes");
    }
}

#[test]
fn adapters_that_a_model_cannot_have_are_refused() {
    let refuses = |lora: LoraParams, words: &[&str]| {
        let made = Trainer::new_adapter(base(), &lora, &params(), team(1));
        let error = made.unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}; expected {words:?}");
        let error = Trainer::estimate_adapter(base(), &lora, &params(), 1).unwrap_err().to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}; expected {words:?}");
    };
    refuses(LoraParams::new(0).with_alpha(1.0), &["rank 0", "blk.0."]);
    refuses(LoraParams::new(1 << 40).with_alpha(1.0), &["rank 1099511627776", "blk.0."]);
    refuses(LoraParams::new(2).with_alpha(f32::NAN), &["alpha of NaN"]);
    refuses(LoraParams::new(2).with_alpha(-1.0), &["alpha of -1"]);
    refuses(LoraParams::new(2).with_targets(vec!["attn_norm".into()]), &["attn_norm", "attn_q", "ffn_down"]);
    refuses(LoraParams::new(2).with_targets(vec!["".into()]), &["no matrix"]);
    let lora = LoraParams::new(2);
    let error = Trainer::new_adapter(base(), &lora, &params().with_dropout(0.1), team(1)).unwrap_err();
    assert!(error.to_string().contains("an adapter with dropout"), "{error}");
    let mixture = source(Family::read("qwen3moe-moe").file());
    let error = Trainer::new_adapter(mixture, &lora, &params(), team(1)).unwrap_err().to_string();
    assert!(error.contains("mixtures of experts"), "{error}");
}

/// The file of a plan.
fn run(plan: &QuantizePlan<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let write = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok(())
    };
    plan.run(write, |_| ControlFlow::Continue(())).unwrap();
    assert_eq!(bytes.len() as u64, plan.file_len());
    bytes
}

#[test]
fn merged_files_give_the_logits_of_adapters() {
    let [tokens, targets] = batch();
    let mut trainer = trainer(&LoraParams::new(4), 2);
    for _ in 0..30 {
        trainer.step(&tokens, &targets).unwrap();
    }
    let adapters = [
        Adapter::from_source(source(written(&trainer, false))).unwrap().with_scale(0.75),
        Adapter::from_source(source(written(&trainer, false))).unwrap().with_scale(0.25),
    ];
    let wanted = loss(&load(base(), &adapters));
    let gguf = Gguf::open(base()).unwrap();
    // Of other types on the way.
    let widen = QuantizeParams::new(Mix::named("F32").unwrap()).with_requantize(true);
    let whole = run(&QuantizePlan::new(&gguf, &widen.with_adapters(&adapters)).unwrap());
    let merged = loss(&load(source(whole.clone()), &[]));
    assert!((merged - wanted).abs() < 1e-3, "{merged} for {wanted}");
    // The same types: F32 here.
    let widened = run(&QuantizePlan::new(&gguf, &widen).unwrap());
    let widened = Gguf::open(source(widened)).unwrap();
    assert!(run(&QuantizePlan::merge(&widened, &adapters, false).unwrap()) == whole);
    // Quantised ones, where it is asked for: types stay, and so does all that no adapter changes.
    let error = QuantizePlan::merge(&gguf, &adapters, false).unwrap_err().to_string();
    assert!(error.contains("already") && error.contains("blk.0."), "{error}");
    let again = Gguf::open(source(run(&QuantizePlan::merge(&gguf, &adapters, true).unwrap()))).unwrap();
    let bytes = |gguf: &Gguf, i: usize| {
        let tensor = &gguf.tensors()[i];
        let mut bytes = vec![0; tensor.bytes as usize];
        gguf.read_tensor(tensor, 0, &mut bytes).unwrap();
        bytes
    };
    for (i, (old, new)) in gguf.tensors().iter().zip(again.tensors()).enumerate() {
        assert_eq!((&old.name, old.ty), (&new.name, new.ty));
        let changed = adapters[0].targets().any(|(target, _)| target == old.name);
        assert_eq!(bytes(&gguf, i) != bytes(&again, i), changed, "{}", old.name);
    }
    assert_eq!(gguf.metadata().len(), again.metadata().len());
    // An adapter of another model.
    let qwen = Gguf::open_path(tiny_model("qwen3-untied")).unwrap();
    let error = QuantizePlan::merge(&qwen, &adapters, true).unwrap_err().to_string();
    assert!(error.contains("llama") && error.contains("qwen3"), "{error}");
}
