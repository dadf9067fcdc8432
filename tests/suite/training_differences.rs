//! Gradients against central differences of a plain forward pass in f64, for families whose graphs have every operation
//! that training knows.

use std::collections::HashMap;
use std::sync::Arc;

use crate::common::families::{Family, uniform};
use crate::common::tiny_model;
use smallmind::format::gguf::Gguf;
use smallmind::format::{ByteSource, BytesSource, FileSource};
use smallmind::kernels::rope::Pairing;
use smallmind::model::graph::{Activation, Attention, KeyValues, Norm, Op, Value};
use smallmind::model::{Adapter, Graph, Mask, Source, TensorSpec, VectorId, read_adapted_graph, read_graph};
use smallmind::quant;
use smallmind::threads::Team;
use smallmind::train::{LoraParams, Parameter, Schedule, TrainParams, Trainer};

/// Tokens of the sequence.
const TOKENS: usize = 5;
/// Largest difference, relative to the gradient's length.
const MARK: f64 = 1e-4;

type Row = Vec<f64>;
type Tensors = HashMap<String, Row>;

/// A plain forward pass.
struct Plain<'a> {
    graph: &'a Graph,
    tensors: &'a Tensors,
    tokens: &'a [u32],
    values: Vec<Vec<Row>>,
}

impl Plain<'_> {
    /// The mean loss of the targets.
    fn loss(graph: &Graph, tensors: &Tensors, tokens: &[u32], targets: &[u32]) -> f64 {
        let mut plain = Plain { graph, tensors, tokens, values: Vec::new() };
        for node in &graph.nodes {
            let rows = plain.node(&node.op, node.shape.width);
            plain.values.push(rows);
        }
        let logits = plain.of(graph.logits.unwrap());
        let losses = logits.iter().zip(targets).map(|(row, &target)| {
            let most = row.iter().fold(f64::NEG_INFINITY, |most, &x| most.max(x));
            most + row.iter().map(|x| (x - most).exp()).sum::<f64>().ln() - row[target as usize]
        });
        losses.sum::<f64>() / targets.len() as f64
    }

    fn of(&self, value: Value) -> &[Row] {
        &self.values[value.index()]
    }

    /// A tensor's values.
    fn tensor(&self, spec: &TensorSpec) -> Row {
        match spec.source {
            Source::Constant(value) => vec![value.into(); spec.k],
            Source::Rows { first, .. } => {
                self.tensors[&spec.name][first * spec.k..(first + spec.n) * spec.k].to_vec()
            }
            _ => unreachable!("training refuses these"),
        }
    }

    fn vector(&self, id: VectorId) -> Row {
        self.tensor(self.graph.weights.vector(id))
    }

    fn map(&self, x: Value, f: impl Fn(f64) -> f64) -> Vec<Row> {
        self.of(x).iter().map(|row| row.iter().map(|&x| f(x)).collect()).collect()
    }

    fn zip(&self, a: Value, b: Value, f: impl Fn(f64, f64) -> f64) -> Vec<Row> {
        let rows = self.of(a).iter().zip(self.of(b));
        rows.map(|(a, b)| a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()).collect()
    }

    fn node(&self, op: &Op, width: usize) -> Vec<Row> {
        match *op {
            Op::Embed(table) => {
                let table = self.tensor(self.graph.weights.table(table));
                self.tokens.iter().map(|&t| table[t as usize * width..][..width].to_vec()).collect()
            }
            Op::Positions(rows) => {
                let rows = self.vector(rows);
                (0..TOKENS).map(|t| rows[t * width..][..width].to_vec()).collect()
            }
            Op::Norm(x, norm) => self.of(x).iter().map(|row| self.normalized(row, &norm, 0)).collect(),
            Op::HeadNorm(x, head_dim, norm) => {
                let heads = |row: &Row| {
                    let heads = row.chunks(head_dim).enumerate();
                    heads.flat_map(|(h, head)| self.normalized(head, &norm, h * head_dim)).collect()
                };
                self.of(x).iter().map(heads).collect()
            }
            Op::Linear(x, matrix, bias, scale) => {
                let w = self.tensor(self.graph.weights.matrix(matrix));
                let bias = bias.map_or(vec![0.0; width], |bias| self.vector(bias));
                let product = |row: &Row| {
                    let rows = w.chunks(row.len()).zip(&bias);
                    rows.map(|(w, b)| scale as f64 * w.iter().zip(row).map(|(w, x)| w * x).sum::<f64>() + b)
                        .collect()
                };
                self.of(x).iter().map(product).collect()
            }
            Op::Split(x, first) => self.of(x).iter().map(|row| row[first..first + width].to_vec()).collect(),
            Op::Rope(x, head_dim, _) => {
                let rows = self.of(x).iter().enumerate();
                rows.map(|(t, row)| row.chunks(head_dim).flat_map(|head| self.rotated(head, t)).collect())
                    .collect()
            }
            Op::Attention(attention) => self.attention(&attention),
            Op::Activate(x, function) => self.map(x, |x| activated(x, function)),
            Op::Gate(a, b) => self.zip(a, b, |a, b| a * b),
            Op::Add(a, b) => self.zip(a, b, |a, b| a + b),
            Op::Scale(x, factor) => self.map(x, |x| x * f64::from(factor)),
            Op::Select(x) => self.of(x).to_vec(),
            _ => unreachable!("training refuses {op:?}"),
        }
    }

    fn normalized(&self, x: &[f64], norm: &Norm, first: usize) -> Row {
        let n = x.len() as f64;
        let (gain, bias, eps, mean) = match *norm {
            Norm::Rms { gain, eps } => (gain, None, eps, 0.0),
            Norm::Layer { gain, bias, eps } => (gain, Some(bias), eps, x.iter().sum::<f64>() / n),
            _ => unreachable!(),
        };
        let (gain, bias) = (self.vector(gain), bias.map(|bias| self.vector(bias)));
        let factor = x.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n + f64::from(eps);
        let place = if gain.len() == x.len() { 0 } else { first };
        let each = x.iter().enumerate().map(|(i, x)| {
            (x - mean) / factor.sqrt() * gain[place + i] + bias.as_ref().map_or(0.0, |bias| bias[i])
        });
        each.collect()
    }

    fn rotated(&self, head: &[f64], position: usize) -> Row {
        let rope = &self.graph.ropes[0];
        assert!(self.graph.ropes.len() == 1 && rope.config.yarn.is_none());
        let (dim, mut out) = (rope.config.dim, head.to_vec());
        for pair in 0..dim / 2 {
            let (a, b) = match rope.config.pairing {
                Pairing::Adjacent => (2 * pair, 2 * pair + 1),
                Pairing::Halves => (pair, pair + dim / 2),
            };
            let power = f64::from(rope.config.base).powf(-2.0 * pair as f64 / dim as f64);
            let divisor = rope.factors.as_ref().map_or(1.0, |factors| f64::from(factors[pair]));
            let angle = position as f64 / f64::from(rope.config.factor) * power / divisor;
            let (sin, cos) = angle.sin_cos();
            out[a] = f64::from(rope.config.magnitude) * (head[a] * cos - head[b] * sin);
            out[b] = f64::from(rope.config.magnitude) * (head[a] * sin + head[b] * cos);
        }
        out
    }

    fn attention(&self, attention: &Attention) -> Vec<Row> {
        let KeyValues::Own(k, v) = attention.kv else { unreachable!() };
        assert!(matches!(attention.mask, Mask::Causal | Mask::Window(TOKENS..)));
        let (q, k, v, heads) = (self.of(attention.q), self.of(k), self.of(v), attention.heads);
        let (n, group) = (heads.head_dim, heads.n_head / heads.n_head_kv);
        let head = |t: usize, h: usize| -> Row {
            let key = h / group * n;
            let query = &q[t][h * n..][..n];
            let scores = (0..=t).map(|j| {
                let dot: f64 = query.iter().zip(&k[j][key..]).map(|(a, b)| a * b).sum();
                (dot * f64::from(attention.scores.scale)).exp()
            });
            let scores: Row = scores.collect();
            let sum: f64 = scores.iter().sum();
            (0..n).map(|i| (0..=t).map(|j| scores[j] / sum * v[j][key + i]).sum()).collect()
        };
        (0..q.len()).map(|t| (0..heads.n_head).flat_map(|h| head(t, h)).collect()).collect()
    }
}

fn activated(x: f64, function: Activation) -> f64 {
    let sigmoid = 1.0 / (1.0 + (-x).exp());
    match function {
        Activation::Silu => x * sigmoid,
        Activation::Sigmoid => sigmoid,
        Activation::Relu => x.max(0.0),
        Activation::GeluTanh => {
            let root = (2.0 / std::f64::consts::PI).sqrt();
            0.5 * x * (1.0 + (root * (x + 0.044715 * x * x * x)).tanh())
        }
        Activation::GeluErf => 0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2)),
        _ => unreachable!(),
    }
}

/// The error function by its series, or its continued fraction far out.
fn erf(x: f64) -> f64 {
    let square = x * x;
    if square < 9.0 {
        let (mut term, mut sum) = (x, x);
        for n in 1..100 {
            term *= -square / f64::from(n);
            sum += term / f64::from(2 * n + 1);
        }
        return sum * std::f64::consts::FRAC_2_SQRT_PI;
    }
    let mut rest = 0.0;
    for n in (1..60).rev() {
        rest = f64::from(n) / 2.0 / (x.abs() + rest);
    }
    let tail = (-square).exp() / (x.abs() + rest) / std::f64::consts::PI.sqrt();
    (1.0 - tail).copysign(x)
}

fn batch(vocabulary: usize) -> [Vec<u32>; 2] {
    let tokens = (0..TOKENS).map(|i| ((i * i * 11 + 5) % vocabulary) as u32).collect();
    let targets = (0..TOKENS).map(|i| ((i * 17 + 2) % vocabulary) as u32).collect();
    [tokens, targets]
}

fn widened(x: &[f32]) -> Row {
    x.iter().map(|&x| f64::from(x)).collect()
}

fn check(name: &str) {
    let source = Arc::new(BytesSource::new(name, Family::read(name).file()));
    let (config, graph) = read_graph(&Gguf::open(source.clone()).unwrap()).unwrap();
    let params = TrainParams::default().with_context(TOKENS);
    let mut trainer = Trainer::new(source, &params, Arc::new(Team::new(2).unwrap())).unwrap();
    compare(name, &graph, &mut trainer, Tensors::new(), config.n_vocab);
}

/// [`check`] for an adapter of the model, after some steps, so that B isn't zero any more.
fn check_adapter(name: &str, source: Arc<dyn ByteSource>) {
    let gguf = Gguf::open(source.clone()).unwrap();
    let schedule = Schedule::constant(0.02);
    let params = TrainParams::default().with_context(TOKENS).with_schedule(schedule);
    let team = Arc::new(Team::new(2).unwrap());
    let mut trainer = Trainer::new_adapter(source, &LoraParams::new(3), &params, team).unwrap();
    let [tokens, targets] = batch(trainer.config().n_vocab);
    for _ in 0..3 {
        trainer.step(&tokens, &targets).unwrap();
    }
    let mut bytes = Vec::new();
    let mut write = |piece: &[u8]| {
        bytes.extend_from_slice(piece);
        Ok(())
    };
    trainer.write_model(&mut write).unwrap();
    let adapter = Adapter::from_source(Arc::new(BytesSource::new("adapter", bytes))).unwrap();
    let (config, graph) = read_adapted_graph(&gguf, &[adapter]).unwrap();
    let base = gguf.tensors().iter().map(|info| {
        let mut data = vec![0; info.bytes as usize];
        gguf.read_tensor(info, 0, &mut data).unwrap();
        let mut values = vec![0.0f32; info.elements() as usize];
        quant::decode_row(info.dtype().unwrap(), &data, &mut values).unwrap();
        (info.name.clone(), widened(&values))
    });
    let moved = |p: &Parameter| p.name.ends_with(".lora_a") || trainer.weights(p).iter().any(|&x| x != 0.0);
    assert!(trainer.parameters().iter().all(moved), "{name}: a B that is zero still");
    compare(name, &graph, &mut trainer, base.collect(), config.n_vocab);
}

/// Checks the derivative of the loss along a direction of ±1 for each tensor that is trained; `tensors` has the others.
fn compare(name: &str, graph: &Graph, trainer: &mut Trainer, mut tensors: Tensors, vocabulary: usize) {
    let [tokens, targets] = batch(vocabulary);
    let loss = trainer.compute_gradients(&tokens, &targets).unwrap();
    tensors.extend(trainer.parameters().iter().map(|p| (p.name.clone(), widened(trainer.weights(p)))));
    let exact = Plain::loss(graph, &tensors, &tokens, &targets);
    assert!((loss / exact - 1.0).abs() < 1e-5, "{name}: {loss} where {exact} is right");
    for parameter in trainer.parameters() {
        let direction: Row = uniform(&parameter.name, parameter.elements())
            .iter()
            .map(|&x| if x < 0.0 { -1.0 } else { 1.0 })
            .collect();
        let origin = tensors[&parameter.name].clone();
        let mut moved = |step: f64| {
            let there = origin.iter().zip(&direction).map(|(x, d)| x + step * d).collect();
            tensors.insert(parameter.name.clone(), there);
            Plain::loss(graph, &tensors, &tokens, &targets)
        };
        let step = 1e-5;
        let want = (moved(step) - moved(-step)) / (2.0 * step);
        moved(0.0);
        let gradient = widened(trainer.gradient(parameter));
        let got: f64 = gradient.iter().zip(&direction).map(|(g, d)| g * d).sum();
        let length = gradient.iter().map(|g| g * g).sum::<f64>().sqrt();
        let off = (got - want).abs();
        assert!(off < MARK * length + 1e-7, "{name}: {}: {got} for {want}, of {length}", parameter.name);
    }
}

#[test]
fn gradients_are_central_differences() {
    for name in [
        "gpt2-dense",
        "llama-dense",
        "qwen2-dense",
        "qwen3-dense",
        // Attention and MLP side by side, each behind a norm of its own.
        "gptneox-dense",
        // One product for queries, keys and values, one for gate and up.
        "phi3-dense",
        // Squares of a rectifier.
        "nemotron-dense",
        // Factors of embeddings, residuals and logits.
        "granite-dense",
        // Norms behind attention and MLP, over all heads.
        "olmo2-dense",
    ] {
        check(name);
    }
}

#[test]
fn gradients_of_adapters_are_central_differences() {
    for name in ["llama-dense", "qwen2-dense", "qwen3-dense", "gpt2-dense", "phi3-dense", "granite-dense"] {
        check_adapter(name, Arc::new(BytesSource::new(name, Family::read(name).file())));
    }
    for name in ["untied-mixed", "qwen3-tied-quant"] {
        check_adapter(name, Arc::new(FileSource::open(tiny_model(name)).unwrap()));
    }
}
