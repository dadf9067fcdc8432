//! Training: losses, gradients and steps of small models against PyTorch's, the same bits for any number of threads.

use std::sync::Arc;

use crate::common::families::{Family, uniform};
use crate::common::golden_path;
use smallmind::format::gguf::Gguf;
use smallmind::format::{BytesSource, FileSource};
use smallmind::model::{GptConfig, LoadParams, Model, RandomGpt};
use smallmind::runtime::{Context, ContextParams, Logits};
use smallmind::threads::Team;
use smallmind::train::{AdamW, NO_TARGET, Optimizer, Schedule, Sgd, Sink, TrainParams, Trainer};

/// Largest difference of a tensor's gradient from PyTorch's, relative to its length.
const GRADIENT_MARK: f64 = 1e-4;
/// Largest relative difference of a loss.
const LOSS_MARK: f64 = 1e-5;

const FAMILIES: [&str; 4] = ["gpt2", "llama", "qwen2", "qwen3"];

/// PyTorch's answers on a model: a batch, the losses of steps, and gradients before the first.
struct Golden {
    gguf: Gguf,
    tokens: Vec<u32>,
    targets: Vec<u32>,
    losses: Vec<f64>,
}

impl Golden {
    fn read(family: &str) -> Golden {
        let path = golden_path("training").join(format!("{family}.gradients.gguf"));
        let gguf = Gguf::open_path(path).unwrap();
        let integers = |key: &str| {
            let array = gguf.metadata().get_i32_array(key).unwrap().expect(key);
            array.iter().map(|&x| x as u32).collect()
        };
        let losses = gguf.metadata().get_f32_array("training.losses").unwrap().expect("losses");
        let losses = losses.iter().map(|&x| x.into()).collect();
        let (tokens, targets) = (integers("training.tokens"), integers("training.targets"));
        Golden { gguf, tokens, targets, losses }
    }

    fn gradient(&self, name: &str) -> Vec<f32> {
        let tensor = self.gguf.tensor(name).expect(name);
        let mut bytes = vec![0; tensor.bytes as usize];
        self.gguf.read_tensor(tensor, 0, &mut bytes).unwrap();
        bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }
}

fn params() -> TrainParams {
    let adamw = AdamW::default().with_betas(0.9, 0.95).with_weight_decay(0.1);
    let optimizer = Optimizer::AdamW(adamw);
    let schedule = Schedule::constant(1e-2);
    TrainParams::default().with_sequences(2).with_optimizer(optimizer).with_schedule(schedule).with_clip(0.5)
}

fn trainer(family: &str, params: &TrainParams, threads: usize) -> Trainer {
    let path = golden_path("training").join(format!("{family}.gguf"));
    let source = Arc::new(FileSource::open(path).unwrap());
    Trainer::new(source, params, Arc::new(Team::new(threads).unwrap())).unwrap()
}

fn length(x: impl Iterator<Item = f64>) -> f64 {
    x.map(|x| x * x).sum::<f64>().sqrt()
}

#[test]
fn gradients_are_pytorchs() {
    for family in FAMILIES {
        let golden = Golden::read(family);
        let mut trainer = trainer(family, &params(), 2);
        let loss = trainer.compute_gradients(&golden.tokens, &golden.targets).unwrap();
        assert!((loss / golden.losses[0] - 1.0).abs() < LOSS_MARK, "{family}: loss {loss}");
        assert_eq!(trainer.evaluate(&golden.tokens, &golden.targets).unwrap(), loss);
        assert_eq!(trainer.parameters().len(), golden.gguf.tensors().len());
        for parameter in trainer.parameters() {
            let (ours, theirs) = (trainer.gradient(parameter), golden.gradient(&parameter.name));
            assert_eq!(ours.len(), theirs.len());
            let off = length(ours.iter().zip(&theirs).map(|(&a, &b)| f64::from(a) - f64::from(b)));
            let size = length(theirs.iter().map(|&x| x.into()));
            let name = &parameter.name;
            // A bias of keys shifts all scores of a row alike: its gradient is 0 but for rounding.
            let mark = if name.ends_with("attn_k.bias") { 1e-6 } else { GRADIENT_MARK * size };
            assert!(off < mark, "{family}: {name}: {off} of {size}");
        }
    }
}

#[test]
fn steps_are_pytorchs() {
    for family in FAMILIES {
        let golden = Golden::read(family);
        let mut trainer = trainer(family, &params(), 1);
        for (i, want) in golden.losses.iter().enumerate() {
            let report = trainer.step(&golden.tokens, &golden.targets).unwrap();
            assert_eq!(report.step, i as u64 + 1);
            let off = (report.loss / want - 1.0).abs();
            assert!(off < LOSS_MARK * 4f64.powi(i as i32), "{family}: step {i}: {} for {want}", report.loss);
        }
    }
}

/// A random GPT whose logits come in several runs of rows.
fn random(vocab: usize) -> Arc<RandomGpt> {
    let shape = GptConfig { vocab, context: 40, dim: 24, layers: 2, heads: 3 };
    Arc::new(RandomGpt::new(&shape, 3).unwrap())
}

fn noise(count: usize, below: usize) -> Vec<u32> {
    (0..count).map(|i| ((i * i * 31 + i * 7 + 3) % 8191 % below) as u32).collect()
}

fn all_weights(trainer: &Trainer) -> Vec<u32> {
    let parameters = trainer.parameters().iter();
    parameters.flat_map(|p| trainer.weights(p)).map(|x| x.to_bits()).collect()
}

/// What is computed again is what it was, dropped elements included; and it needn't be kept.
#[test]
fn activations_that_are_computed_again_have_the_same_bits() {
    for family in FAMILIES {
        let golden = Golden::read(family);
        let run = |dropout, recompute| {
            let params = params().with_dropout(dropout).with_seed(5).with_recompute(recompute);
            let mut trainer = trainer(family, &params, 2);
            let reports: Vec<_> =
                (0..2).map(|_| trainer.step(&golden.tokens, &golden.targets).unwrap()).collect();
            (reports, all_weights(&trainer), trainer.batch_flops())
        };
        for dropout in [0.0, 0.25] {
            let ((kept, weights, flops), (again, bits, more)) = (run(dropout, false), run(dropout, true));
            assert_eq!(again, kept, "{family}, dropout {dropout}");
            assert!(bits == weights, "{family}, dropout {dropout}");
            // Forward is a third of the work; the last layer and the head aren't computed again.
            assert!(more > flops && more < flops + flops / 3, "{family}: {more} for {flops}");
        }
    }
    let shape = GptConfig { vocab: 64, context: 64, dim: 64, layers: 8, heads: 4 };
    let source = Arc::new(RandomGpt::new(&shape, 3).unwrap());
    let params = TrainParams::default().with_sequences(4);
    let arena = |recompute| {
        let params = params.with_recompute(recompute);
        Trainer::estimate(source.clone(), &params, 2).unwrap().arena
    };
    // A layer's input is a twelfth of what it keeps, or less.
    assert!(4 * arena(true) < arena(false), "{} for {}", arena(true), arena(false));
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    // Logits of all rows are more than stand in memory together.
    let source = random(14_000);
    let params = TrainParams::default().with_sequences(4).with_schedule(Schedule::constant(1e-3));
    let (tokens, targets) = (noise(320, 14_000), noise(321, 14_000)[1..].to_vec());
    let run = |threads| {
        let mut trainer =
            Trainer::new(source.clone(), &params, Arc::new(Team::new(threads).unwrap())).unwrap();
        // Two micro-batches a step.
        let reports: Vec<_> = (0..2).map(|_| trainer.step(&tokens, &targets).unwrap()).collect();
        (reports, all_weights(&trainer))
    };
    let (reports, weights) = run(1);
    assert!(reports[1].loss < reports[0].loss);
    for threads in [2, 3] {
        let (others, bits) = run(threads);
        assert_eq!(others, reports, "{threads} threads");
        assert!(bits == weights, "{threads} threads");
    }
    for family in FAMILIES {
        let golden = Golden::read(family);
        let run = |threads| {
            let mut trainer = trainer(family, &params_of_sgd(), threads);
            let reports: Vec<_> =
                (0..3).map(|_| trainer.step(&golden.tokens, &golden.targets).unwrap()).collect();
            (reports, all_weights(&trainer))
        };
        assert!(run(1) == run(2) && run(1) == run(5), "{family}");
    }
}

fn params_of_sgd() -> TrainParams {
    let sgd = Sgd::default().with_momentum(0.9).with_nesterov(true).with_weight_decay(0.01);
    params().with_optimizer(Optimizer::Sgd(sgd))
}

#[test]
fn micro_batches_add_up() {
    let golden = Golden::read("qwen3");
    let (tokens, targets) = (&golden.tokens, &golden.targets);
    let mut whole = trainer("qwen3", &params(), 1);
    let mut halves = trainer("qwen3", &params().with_sequences(1), 1);
    let loss = whole.compute_gradients(tokens, targets).unwrap();
    assert!((halves.compute_gradients(tokens, targets).unwrap() / loss - 1.0).abs() < 1e-6);
    for parameter in whole.parameters() {
        let (a, b) = (whole.gradient(parameter), halves.gradient(parameter));
        let off = length(a.iter().zip(b).map(|(&a, &b)| f64::from(a) - f64::from(b)));
        assert!(off < 1e-5 * length(a.iter().map(|&a| a.into())).max(0.1), "{}: {off}", parameter.name);
    }
}

/// The bytes that a trainer writes.
fn written(write: impl FnOnce(Sink<'_>) -> smallmind::Result<()>) -> Vec<u8> {
    let mut bytes = Vec::new();
    write(&mut |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })
    .unwrap();
    bytes
}

fn model_of(trainer: &Trainer) -> Arc<Model> {
    let bytes = written(|write| trainer.write_model(write));
    Model::from_source(Arc::new(BytesSource::new("trained", bytes)), &LoadParams::default()).unwrap()
}

#[test]
fn a_model_that_has_learned_a_sentence_says_it() {
    let sentence: Vec<u32> =
        b"the quick brown fox jumps over the lazy dog.".iter().map(|&b| b.into()).collect();
    let shape = GptConfig { vocab: 128, context: 64, dim: 32, layers: 2, heads: 4 };
    let rest = sentence.len() - 1;
    let params = TrainParams::default().with_context(rest).with_schedule(Schedule::cosine(1e-2, 5, 60));
    let source = Arc::new(RandomGpt::new(&shape, 5).unwrap());
    let mut trainer = Trainer::new(source, &params, Arc::new(Team::new(2).unwrap())).unwrap();
    let mut loss = f64::INFINITY;
    for _ in 0..60 {
        loss = trainer.step(&sentence[..rest], &sentence[1..]).unwrap().loss;
    }
    assert!(loss < 0.1, "{loss}");
    let mut context = Context::new(model_of(&trainer), &ContextParams::default().with_n_ctx(64)).unwrap();
    let mut said = vec![sentence[0], sentence[1]];
    context.decode(&said, Logits::Last).unwrap();
    while said.len() < sentence.len() {
        let logits = context.logits();
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap() as u32;
        said.push(best);
        context.decode(&[best], Logits::Last).unwrap();
    }
    assert_eq!(said, sentence);
}

#[test]
fn a_saved_model_has_the_losses_of_its_trainer() {
    for family in FAMILIES {
        let golden = Golden::read(family);
        let mut trainer = trainer(family, &params(), 1);
        trainer.step(&golden.tokens, &golden.targets).unwrap();
        let want = trainer.evaluate(&golden.tokens, &golden.targets).unwrap();
        let model = model_of(&trainer);
        let vocab = model.config().n_vocab;
        let params = ContextParams::default().with_n_ctx(12).with_n_output(12);
        let (mut sum, mut counted) = (0.0, 0);
        for (tokens, targets) in golden.tokens.chunks(12).zip(golden.targets.chunks(12)) {
            let mut context = Context::new(model.clone(), &params).unwrap();
            context.decode(tokens, Logits::All).unwrap();
            for (row, &target) in context.logits().chunks(vocab).zip(targets) {
                if target != NO_TARGET {
                    let sum_of: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
                    sum += sum_of.ln() - f64::from(row[target as usize]);
                    counted += 1;
                }
            }
        }
        // Keys and values of the context are rounded to f16.
        let loss = sum / f64::from(counted);
        assert!((loss / want - 1.0).abs() < 1e-3, "{family}: {loss} for {want}");
    }
}

#[test]
fn a_resumed_training_makes_the_same_steps() {
    let golden = Golden::read("llama");
    for params in [params(), params_of_sgd()] {
        let params = params.with_schedule(Schedule::cosine(1e-2, 2, 8));
        let team = Arc::new(Team::new(2).unwrap());
        let mut first = trainer("llama", &params, 1);
        for _ in 0..3 {
            first.step(&golden.tokens, &golden.targets).unwrap();
        }
        let state = written(|write| first.write_state(write));
        let source = Arc::new(BytesSource::new("state", state.clone()));
        let mut second = Trainer::resume(source, &params, team.clone()).unwrap();
        assert_eq!(second.steps(), 3);
        for _ in 0..3 {
            let reports = [&mut first, &mut second].map(|t| t.step(&golden.tokens, &golden.targets).unwrap());
            assert_eq!(reports[0], reports[1]);
        }
        assert!(all_weights(&first) == all_weights(&second));
        // States that are none, or are cut off.
        let refused = |bytes: &[u8], params: &TrainParams| {
            let source = Arc::new(BytesSource::new("state", bytes.to_vec()));
            Trainer::resume(source, params, team.clone()).unwrap_err().to_string()
        };
        for cut in [0, 10, 500, state.len() / 2, state.len() - 1] {
            refused(&state[..cut], &params);
        }
        let model = written(|write| first.write_model(write));
        assert!(refused(&model, &params).contains("no state of a training"));
        let other = match params.optimizer {
            Optimizer::AdamW(_) => params_of_sgd(),
            _ => self::params(),
        };
        assert!(refused(&state, &other).contains("a state of"));
    }
}

#[test]
fn batches_that_cannot_be_are_refused() {
    let mut trainer = trainer("gpt2", &params(), 1);
    let before = all_weights(&trainer);
    let good = noise(24, 40);
    for (tokens, targets, said) in [
        (vec![], vec![], "0 tokens and 0 targets"),
        (good[1..].to_vec(), good[1..].to_vec(), "a multiple of 24"),
        (good.clone(), good[1..].to_vec(), "24 tokens and 23 targets"),
        (vec![40; 24], good.clone(), "token 40 at 0 of a vocabulary of 40"),
        (good.clone(), vec![u32::MAX - 1; 24], "target 4294967294 at 0"),
        (good.clone(), vec![NO_TARGET; 24], "no target counts"),
    ] {
        for error in [trainer.step(&tokens, &targets).err(), trainer.evaluate(&tokens, &targets).err()] {
            let error = error.expect("an error").to_string();
            assert!(error.contains(said), "{error}");
        }
    }
    assert!(all_weights(&trainer) == before && trainer.steps() == 0);
    let refused = |params: TrainParams| {
        let team = Arc::new(Team::new(1).unwrap());
        Trainer::new(random(40), &params, team).unwrap_err().to_string()
    };
    for (params, said) in [
        (params().with_context(41), "sequences of 41 tokens; the model takes 1 to 40"),
        (params().with_sequences(0), "0 sequences"),
        (params().with_sequences(usize::MAX), "sequences"),
        (params().with_dropout(1.0), "dropout is 1"),
        (params().with_clip(f64::NAN), "the longest gradient is NaN"),
        (params().with_schedule(Schedule::constant(-1.0)), "learning rate is -1"),
        (params().with_optimizer(Optimizer::AdamW(AdamW::default().with_betas(1.0, 0.9))), "beta1 is 1"),
        (params().with_optimizer(Optimizer::Sgd(Sgd::default().with_momentum(-0.1))), "momentum is -0.1"),
    ] {
        let error = refused(params);
        assert!(error.contains(said), "{error}");
    }
    assert!(trainer.set_params(&params_of_sgd()).is_err());
    trainer.set_params(&params().with_schedule(Schedule::constant(0.5))).unwrap();
    assert_eq!(trainer.step(&good, &good).unwrap().rate, 0.5);
}

/// A file with one tensor's elements replaced.
fn with_tensor(family: &str, name: &str, value: f32) -> Arc<BytesSource> {
    let path = golden_path("training").join(format!("{family}.gguf"));
    let mut bytes = std::fs::read(&path).unwrap();
    let gguf = Gguf::open_path(&path).unwrap();
    let tensor = gguf.tensor(name).unwrap();
    bytes[tensor.offset as usize..][..4].copy_from_slice(&value.to_le_bytes());
    Arc::new(BytesSource::new(family, bytes))
}

#[test]
fn a_loss_that_is_no_number_names_the_first_bad_tensor() {
    let golden = Golden::read("llama");
    let team = Arc::new(Team::new(2).unwrap());
    for (name, value, said) in [
        ("blk.1.ffn_up.weight", f32::NAN, "weight blk.1.ffn_up.weight"),
        // Too large for sums of squares, or of products.
        ("blk.0.attn_norm.weight", 3e38, "the result of blk.0.attn_"),
        ("blk.1.ffn_down.weight", 3e38, "the result of blk.1.ffn_down.weight"),
    ] {
        let mut trainer = Trainer::new(with_tensor("llama", name, value), &params(), team.clone()).unwrap();
        let before = all_weights(&trainer);
        let error = trainer.step(&golden.tokens, &golden.targets).unwrap_err();
        assert!(matches!(error, smallmind::Error::NotFinite(_)), "{error}");
        let error = error.to_string();
        assert!(error.starts_with("step 1: ") && error.contains(said), "{name}: {error}");
        assert!(all_weights(&trainer) == before && trainer.steps() == 0);
    }
    // A rate that is too high, some steps on.
    let params = params_of_sgd().with_clip(None).with_schedule(Schedule::constant(1e12));
    let mut trainer = trainer("llama", &params, 1);
    let error = (0..20).find_map(|_| trainer.step(&golden.tokens, &golden.targets).err()).expect("an error");
    assert!(error.to_string().starts_with(&format!("step {}: ", trainer.steps() + 1)), "{error}");
    let finite = |p| trainer.weights(p).iter().all(|x| x.is_finite());
    assert!(trainer.parameters().iter().all(finite), "weights are those of the last good step");
}

#[test]
fn what_cannot_be_trained_is_named() {
    for (name, said) in [
        ("gemma2-dense", "logits that are no plain product"),
        ("bloom-dense", "attention with changed scores"),
        ("mamba-dense", "layer 0: training of convolutions"),
        ("llama-moe", "mixtures of experts"),
        ("gpt-oss-moe", "training of"),
        ("bert", "encoder"),
    ] {
        let source = Arc::new(BytesSource::new(name, Family::read(name).file()));
        let team = Arc::new(Team::new(1).unwrap());
        let params = TrainParams::default().with_context(8);
        let error = Trainer::new(source, &params, team).unwrap_err();
        assert!(matches!(error, smallmind::Error::Unsupported(_)), "{error}");
        assert!(error.to_string().contains(said), "{name}: {error}");
    }
}

#[test]
fn dropout_drops_the_same_elements_forward_and_backward() {
    let (tokens, targets) = (noise(24, 40), noise(25, 40)[1..].to_vec());
    for (family, name) in [
        ("gpt2", "blk.0.ffn_down.weight"),
        ("gpt2", "position_embd.weight"),
        ("gpt2", "blk.1.attn_output.bias"),
        ("llama", "token_embd.weight"),
        ("llama", "blk.0.ffn_norm.weight"),
    ] {
        let path = golden_path("training").join(format!("{family}.gguf"));
        let (bytes, gguf) = (std::fs::read(&path).unwrap(), Gguf::open_path(&path).unwrap());
        let tensor = gguf.tensor(name).unwrap();
        let place = tensor.offset as usize..(tensor.offset + tensor.bytes) as usize;
        let direction = uniform(name, tensor.elements() as usize);
        let params = params().with_dropout(0.3).with_seed(7);
        // The trainer of weights that are moved along the direction.
        let moved = |step: f32, threads: usize| {
            let mut bytes = bytes.clone();
            for (bytes, d) in bytes[place.clone()].as_chunks_mut().0.iter_mut().zip(&direction) {
                *bytes = (f32::from_le_bytes(*bytes) + step * d).to_le_bytes();
            }
            let source = Arc::new(BytesSource::new(family, bytes));
            Trainer::new(source, &params, Arc::new(Team::new(threads).unwrap())).unwrap()
        };
        let loss = |step| moved(step, 2).compute_gradients(&tokens, &targets).unwrap();
        let want = (loss(3e-3) - loss(-3e-3)) / 6e-3;
        let mut trainer = moved(0.0, 1);
        assert_eq!(trainer.compute_gradients(&tokens, &targets).unwrap(), loss(0.0));
        assert_ne!(trainer.evaluate(&tokens, &targets).unwrap(), loss(0.0));
        let parameter = trainer.parameters().iter().find(|p| p.name == name).unwrap();
        let pairs = trainer.gradient(parameter).iter().zip(&direction);
        let got: f64 = pairs.map(|(&g, &d)| f64::from(g) * f64::from(d)).sum();
        let length = length(trainer.gradient(parameter).iter().map(|&g| g.into()));
        assert!((got - want).abs() < 2e-3 * length + 2e-4, "{family}: {name}: {got} for {want}, of {length}");
        // Another step drops others.
        let before = loss(0.0);
        trainer.set_params(&params.with_schedule(Schedule::constant(0.0))).unwrap();
        assert_eq!(trainer.step(&tokens, &targets).unwrap().loss, before);
        assert_ne!(trainer.step(&tokens, &targets).unwrap().loss, before);
    }
}

#[test]
fn the_estimate_is_what_is_reserved() {
    let params = TrainParams::default().with_sequences(2);
    let source = random(500);
    let estimate = Trainer::estimate(source.clone(), &params, 2).unwrap();
    let trainer = Trainer::new(source, &params, Arc::new(Team::new(2).unwrap())).unwrap();
    assert_eq!(trainer.memory(), estimate);
    let parts = estimate.weights + estimate.gradients + estimate.moments + estimate.arena + estimate.scratch;
    assert_eq!(parts, estimate.total);
    assert_eq!(estimate.moments, 2 * estimate.gradients);
}
