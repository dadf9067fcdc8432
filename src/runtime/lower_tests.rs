//! Graphs that no family here has, lowered and run, against the same graphs in plain f64 loops: fusing and adding in
//! place may only change rounding.

use std::path::Path;
use std::sync::Arc;

use super::{Batch, Engine, EngineParams, Span};
use crate::error::Result;
use crate::format::FileSource;
use crate::kernels::rope::Pairing;
use crate::kv::CacheType;
use crate::model::graph::{Activation, Attention, Graph, KeyValues, Norm, Op, Scores, Value};
use crate::model::{
    Builder, Config, Ends, Family, LayerConfig, LoadParams, Mask, MatrixId, Model, VectorId, Weights,
};
use crate::ops::attention::{HeadShape, alibi_slopes};
use crate::threads::Team;

pub(super) type Row = Vec<f64>;
pub(super) type Emit = fn(&mut Builder<'_>, &Config) -> Result<Ends>;

/// A graph's values for a whole sequence, node by node; all rows are output rows.
pub(super) struct Reference<'a> {
    graph: &'a Graph,
    pub weights: &'a Weights,
    tokens: &'a [u32],
    values: Vec<Vec<Row>>,
}

impl Reference<'_> {
    pub fn logits(graph: &Graph, weights: &Weights, tokens: &[u32]) -> Vec<Row> {
        let mut reference = Reference { graph, weights, tokens, values: Vec::new() };
        for node in &graph.nodes {
            let rows = reference.node(&node.op, node.shape.width);
            reference.values.push(rows);
        }
        reference.values.swap_remove(graph.logits.unwrap().index())
    }

    pub fn of(&self, value: Value) -> &[Row] {
        &self.values[value.index()]
    }

    pub fn vector(&self, id: VectorId) -> Row {
        self.weights.vector(id).iter().map(|&x| x.into()).collect()
    }

    fn each(&self, x: Value, f: impl Fn(&Row) -> Row) -> Vec<Row> {
        self.of(x).iter().map(f).collect()
    }

    fn map(&self, x: Value, f: impl Fn(f64) -> f64) -> Vec<Row> {
        self.each(x, |row| row.iter().map(|&x| f(x)).collect())
    }

    fn zip(&self, a: Value, b: Value, f: impl Fn(f64, f64) -> f64) -> Vec<Row> {
        let rows = self.of(a).iter().zip(self.of(b));
        rows.map(|(a, b)| a.iter().zip(b).map(|(&a, &b)| f(a, b)).collect()).collect()
    }

    fn node(&self, op: &Op, width: usize) -> Vec<Row> {
        match *op {
            Op::Embed(table) => {
                let row = |&token: &u32| {
                    let mut row = vec![0.0f32; width];
                    self.weights.table_row(table, token as usize, &mut row).unwrap();
                    row.into_iter().map(f64::from).collect()
                };
                self.tokens.iter().map(row).collect()
            }
            Op::Norm(x, norm) => self.each(x, |row| self.normalized(row, &norm)),
            Op::Linear(x, matrix, bias, scale) => self.linear(x, matrix, bias, scale),
            Op::Split(x, begin) => self.each(x, |row| row[begin..begin + width].to_vec()),
            Op::HeadNorm(x, head_dim, norm) => self
                .each(x, |row| row.chunks(head_dim).flat_map(|head| self.normalized(head, &norm)).collect()),
            Op::Rope(x, head_dim, rope) => {
                let rows = self.of(x).iter().enumerate();
                rows.map(|(position, row)| self.rotated(row, head_dim, position, rope.0 as usize)).collect()
            }
            Op::Attention(attention) => self.attention(&attention),
            Op::Activate(x, Activation::Silu) => self.map(x, |x| x / (1.0 + (-x).exp())),
            Op::Activate(x, Activation::Relu) => self.map(x, |x| x.max(0.0)),
            Op::Activate(x, Activation::GeluTanh) => self.map(x, |x| {
                let inner = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x.powi(3));
                0.5 * x * (1.0 + inner.tanh())
            }),
            Op::Experts(experts) => super::experts_tests::experts(self, &experts),
            Op::Gate(a, b) => self.zip(a, b, |a, b| a * b),
            Op::Add(a, b) => self.zip(a, b, |a, b| a + b),
            Op::Scale(x, factor) => self.map(x, |x| x * f64::from(factor)),
            Op::SoftCap(x, cap) => self.map(x, |x| f64::from(cap) * (x / f64::from(cap)).tanh()),
            Op::Select(x) => self.of(x).to_vec(),
            _ => panic!("{op:?} stands in no graph here"),
        }
    }

    fn normalized(&self, row: &[f64], norm: &Norm) -> Row {
        let Norm::Rms { gain, eps } = *norm else { panic!("no layer norm here") };
        let square = row.iter().map(|x| x * x).sum::<f64>() / row.len() as f64;
        let factor = 1.0 / (square + f64::from(eps)).sqrt();
        row.iter().zip(self.vector(gain)).map(|(x, gain)| x * factor * gain).collect()
    }

    fn linear(&self, x: Value, matrix: MatrixId, bias: Option<VectorId>, scale: f32) -> Vec<Row> {
        let matrix = self.weights.matrix(matrix);
        let mut weights = vec![vec![0.0f32; matrix.k()]; matrix.n()];
        for (i, row) in weights.iter_mut().enumerate() {
            matrix.row(i, row).unwrap();
        }
        let bias = bias.map_or(vec![0.0; matrix.n()], |bias| self.vector(bias));
        let dot =
            |row: &Row, weights: &[f32]| row.iter().zip(weights).map(|(x, &w)| x * f64::from(w)).sum::<f64>();
        self.each(x, |row| {
            weights
                .iter()
                .zip(&bias)
                .map(|(weights, bias)| f64::from(scale) * dot(row, weights) + bias)
                .collect()
        })
    }

    fn rotated(&self, row: &Row, head_dim: usize, position: usize, rope: usize) -> Row {
        let config = &self.graph.ropes[rope].config;
        let mut row = row.clone();
        for head in row.chunks_mut(head_dim) {
            for i in 0..config.dim / 2 {
                let frequency = f64::from(config.base).powf(-2.0 * i as f64 / config.dim as f64);
                let factor = self.graph.ropes[rope].factors.as_ref().map_or(1.0, |f| f64::from(f[i]));
                let angle = position as f64 * frequency / factor / f64::from(config.factor);
                let (a, b) = match config.pairing {
                    Pairing::Adjacent => (2 * i, 2 * i + 1),
                    Pairing::Halves => (i, i + config.dim / 2),
                };
                let (x, y) = (head[a], head[b]);
                (head[a], head[b]) = (x * angle.cos() - y * angle.sin(), y * angle.cos() + x * angle.sin());
            }
        }
        row
    }

    fn attention(&self, attention: &Attention) -> Vec<Row> {
        let HeadShape { n_head, n_head_kv, head_dim } = attention.heads;
        let KeyValues::Own(k, v) = attention.kv else { panic!("no shared keys here") };
        let (q, k, v) = (self.of(attention.q), self.of(k), self.of(v));
        let head = |row: &Row, head: usize| row[head * head_dim..(head + 1) * head_dim].to_vec();
        let slopes: Vec<f32> =
            attention.scores.alibi.into_iter().flat_map(|most| alibi_slopes(n_head, most)).collect();
        let sinks = attention.scores.sinks.map_or(Vec::new(), |sinks| self.vector(sinks));
        let one = |position: usize, h: usize| -> Row {
            let (query, shared) = (head(&q[position], h), h / (n_head / n_head_kv));
            let seen = attention.mask.sight(position, q.len());
            let score = |at: usize| {
                let key = head(&k[at], shared);
                let score = f64::from(attention.scores.scale)
                    * query.iter().zip(key).map(|(a, b)| a * b).sum::<f64>();
                let cap = attention.scores.soft_cap.map_or(f64::INFINITY, f64::from);
                let capped = if cap.is_finite() { cap * (score / cap).tanh() } else { score };
                capped - slopes.get(h).map_or(0.0, |&slope| f64::from(slope) * position.abs_diff(at) as f64)
            };
            let weights: Vec<f64> = seen.clone().map(|at| score(at).exp()).collect();
            let total: f64 = weights.iter().sum::<f64>() + sinks.get(h).map_or(0.0, |sink| sink.exp());
            let mut sum = vec![0.0; head_dim];
            for (at, weight) in seen.zip(weights) {
                sum.iter_mut().zip(head(&v[at], shared)).for_each(|(sum, x)| *sum += weight / total * x);
            }
            sum
        };
        (0..q.len()).map(|position| (0..n_head).flat_map(|h| one(position, h)).collect()).collect()
    }
}

/// Queries, keys and values.
fn project(b: &mut Builder<'_>, x: Value, layer: &LayerConfig) -> Result<[Value; 3]> {
    let q = b.linear(x, "attn_q", layer.q_width())?;
    let k = b.linear(x, "attn_k", layer.kv_width())?;
    let v = b.linear(x, "attn_v", layer.kv_width())?;
    Ok([b.rope(q, layer)?, b.rope(k, layer)?, v])
}

pub(super) fn attend(b: &mut Builder<'_>, x: Value, layer: &LayerConfig) -> Result<Value> {
    let qkv = project(b, x, layer)?;
    let heads = b.attention(qkv, layer, Scores::scaled(layer.score_scale))?;
    b.linear(heads, "attn_output", layer.q_width())
}

pub(super) fn head(b: &mut Builder<'_>, x: Value, c: &Config) -> Result<Value> {
    b.linear(x, "token_embd", c.n_vocab)
}

/// Attention and MLP in parallel: on one norm, as in Phi-2, and on two, as in GPT-NeoX.
fn parallel(b: &mut Builder<'_>, c: &Config) -> Result<Ends> {
    let mut x = b.embed("token_embd", c.n_vocab, c.n_embd)?;
    for (i, layer) in c.layers.iter().enumerate() {
        b.enter_layer(Some(i));
        let normed = b.rms_norm(x, "attn_norm")?;
        let heads = attend(b, normed, layer)?;
        let other = if i == 0 { normed } else { b.rms_norm(x, "ffn_norm")? };
        let up = b.linear(other, "ffn_up", layer.n_ff)?;
        let up = b.activate(up, Activation::GeluTanh)?;
        let down = b.linear(up, "ffn_down", c.n_embd)?;
        let sum = b.add(x, heads)?;
        x = b.add(sum, down)?;
    }
    b.enter_layer(None);
    let last = b.select(x)?;
    let hidden = b.rms_norm(last, "output_norm")?;
    Ok((hidden, Some(head(b, hidden, c)?)))
}

/// Norms after the sums, as in BERT, and no norm at the end.
fn post_norm(b: &mut Builder<'_>, c: &Config) -> Result<Ends> {
    let mut x = b.embed("token_embd", c.n_vocab, c.n_embd)?;
    for (i, layer) in c.layers.iter().enumerate() {
        b.enter_layer(Some(i));
        let heads = attend(b, x, layer)?;
        let sum = b.add(x, heads)?;
        x = b.rms_norm(sum, "attn_norm")?;
        let up = b.linear(x, "ffn_up", layer.n_ff)?;
        let up = b.activate(up, Activation::Relu)?;
        let down = b.linear(up, "ffn_down", c.n_embd)?;
        let sum = b.add(down, x)?;
        x = b.rms_norm(sum, "ffn_norm")?;
    }
    b.enter_layer(None);
    let hidden = b.select(x)?;
    Ok((hidden, Some(head(b, hidden, c)?)))
}

/// Norms before and after each block, a factor on embeddings, two kinds of gates, and capped logits, as in Gemma 2.
fn sandwich(b: &mut Builder<'_>, c: &Config) -> Result<Ends> {
    let x = b.embed("token_embd", c.n_vocab, c.n_embd)?;
    let mut x = b.scale(x, 3.5)?;
    for (i, layer) in c.layers.iter().enumerate() {
        b.enter_layer(Some(i));
        let normed = b.rms_norm(x, "attn_norm")?;
        let heads = attend(b, normed, layer)?;
        let heads = b.rms_norm(heads, "ffn_norm")?;
        x = b.add(x, heads)?;
        let normed = b.rms_norm(x, "ffn_norm")?;
        let gate = b.linear(normed, "ffn_gate", layer.n_ff)?;
        let up = b.linear(normed, "ffn_up", layer.n_ff)?;
        let gate = match i {
            0 => b.activate(gate, Activation::GeluTanh)?,
            _ => b.activate(gate, Activation::Relu)?,
        };
        // In the other order: lowering must find out which of the two is the gate.
        let inner = b.gate(up, gate)?;
        let down = b.linear(inner, "ffn_down", c.n_embd)?;
        let down = b.rms_norm(down, "attn_norm")?;
        x = b.add(down, x)?;
    }
    b.enter_layer(None);
    let last = b.select(x)?;
    let hidden = b.rms_norm(last, "output_norm")?;
    let logits = head(b, hidden, c)?;
    Ok((hidden, Some(b.soft_cap(logits, 2.0)?)))
}

/// Capped scores, biases by distance, and sinks where the file has a tensor of as many numbers as there are heads.
fn changed_scores(b: &mut Builder<'_>, c: &Config) -> Result<Ends> {
    const SINKS: &str = "rope_freqs.weight";
    let mut x = b.embed("token_embd", c.n_vocab, c.n_embd)?;
    // The tensor of the sinks belongs to no layer.
    let sinks = if b.has(SINKS) { Some(b.floats(SINKS, c.first().n_head)?) } else { None };
    let usual = Scores::scaled(c.first().score_scale);
    let scores =
        [Scores { soft_cap: Some(0.5), sinks, ..usual }, Scores { alibi: Some(8.0), ..Scores::scaled(0.4) }];
    for (i, (layer, scores)) in c.layers.iter().zip(scores).enumerate() {
        b.enter_layer(Some(i));
        let normed = b.rms_norm(x, "attn_norm")?;
        let qkv = project(b, normed, layer)?;
        let heads = b.attention(qkv, layer, scores)?;
        let heads = b.linear(heads, "attn_output", c.n_embd)?;
        x = b.add(x, heads)?;
    }
    b.enter_layer(None);
    let last = b.select(x)?;
    let hidden = b.rms_norm(last, "output_norm")?;
    Ok((hidden, Some(head(b, hidden, c)?)))
}

fn model(file: &str, emit: Emit) -> Arc<Model> {
    model_by(file, emit, &LoadParams::default())
}

pub(super) fn model_by(file: &str, emit: Emit, params: &LoadParams<'_>) -> Arc<Model> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/goldens/gguf/{file}.gguf"));
    let source = Arc::new(FileSource::open(&path).unwrap());
    let family = Family { name: "test", config: Family::named("llama").config, emit };
    let read = |gguf: &_| {
        family.read_changed(gguf, |config| {
            config.layers.iter_mut().for_each(|layer| layer.mask = Mask::Window(9))
        })
    };
    Model::load(source, params, read).unwrap()
}

/// Logits of all tokens, in passes of the given number of tokens.
pub(super) fn logits(model: &Arc<Model>, tokens: &[u32], pieces: &[usize], threads: usize) -> Vec<f32> {
    let n = tokens.len();
    let params =
        EngineParams { n_ctx: n, n_batch: n, n_output: n, kv: CacheType::F32, ..EngineParams::default() };
    let mut engine = Engine::new(model.clone(), &params, Arc::new(Team::new(threads).unwrap())).unwrap();
    let sequence = engine.create().unwrap();
    let (mut all, mut first) = (Vec::new(), 0);
    for &rows in pieces {
        let outputs: Vec<u32> = (0..rows as u32).collect();
        let spans = [Span { sequence, rows, first }];
        engine
            .run(&Batch { tokens: &tokens[first..first + rows], spans: &spans, outputs: &outputs })
            .unwrap();
        all.extend_from_slice(engine.output());
        first += rows;
    }
    all
}

/// Root mean square of the differences, relative to that of the logits.
pub(super) fn difference(got: &[f32], wanted: &[Row]) -> f64 {
    let wanted = || wanted.iter().flatten();
    assert_eq!(got.len(), wanted().count());
    let off: f64 = got.iter().zip(wanted()).map(|(&a, b)| (f64::from(a) - b).powi(2)).sum();
    (off / wanted().map(|x| x * x).sum::<f64>()).sqrt()
}

#[test]
fn graphs_without_a_pattern_are_what_they_say() {
    let tokens: Vec<u32> = (0..23).map(|i| (i * 37 + 5) % 288).collect();
    let graphs = [
        ("parallel", parallel as Emit),
        ("post-norm", post_norm),
        ("sandwich", sandwich),
        ("changed scores", changed_scores),
    ];
    for (name, emit) in graphs {
        // In f32 some fifteen sums of up to 96 terms follow each other: √(15 · 96) · 2⁻²⁴ where roundings are random.
        // 16 bits round a term by up to 2⁻¹⁶ of its block's largest, some 2.5 times the block's root mean square, so
        // by 2.2e-5 of that on average: √15 of these, doubled.
        for (file, bound) in [("tied-rope-freqs", 2.3e-6), ("untied-mixed", 1.7e-4)] {
            let model = model(file, emit);
            let wanted = Reference::logits(model.graph(), model.weights(), &tokens);
            let whole = logits(&model, &tokens, &[23], 1);
            let off = difference(&whole, &wanted);
            println!("{name} of {file}: {off:.2e}");
            assert!(off < bound, "{name} of {file} is off by {off:e}");
            for (pieces, threads) in [(&[23][..], 2), (&[1; 23], 3), (&[4, 12, 3, 4], 2), (&[1; 23], 1)] {
                let got = logits(&model, &tokens, pieces, threads);
                assert!(
                    got.iter().zip(&whole).all(|(a, b)| a.to_bits() == b.to_bits()),
                    "{name} of {file} by {pieces:?} on {threads}"
                );
            }
            // Planted faults must be noticed: a window longer by one token, a change of scores left out.
            let faults: [fn(&mut Attention); 4] = [
                |attention| attention.mask = Mask::Window(10),
                |attention| attention.scores.soft_cap = None,
                |attention| attention.scores.alibi = None,
                |attention| attention.scores.sinks = None,
            ];
            for fault in faults {
                let mut other = model.graph().clone();
                let mut planted = false;
                for node in &mut other.nodes {
                    if let Op::Attention(attention) = &mut node.op {
                        let before = *attention;
                        fault(attention);
                        planted |= before != *attention;
                    }
                }
                let off = difference(&whole, &Reference::logits(&other, model.weights(), &tokens));
                assert!(!planted || off > 10.0 * bound, "{name} of {file}: {off:e}");
            }
        }
    }
}
