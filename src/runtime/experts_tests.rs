//! Mixtures of experts, lowered and run, against plain f64 loops: every gating function, activation and way of choosing,
//! on all levels of instructions, with the same bits for any number of threads and any cutting of a sequence.

use std::path::Path;

use super::lower_tests::{Emit, Reference, Row, attend, difference, head, logits, model_by};
use crate::error::Result;
use crate::format::gguf::Gguf;
use crate::isa::IsaId;
use crate::model::experts::{Experts, ExpertsConfig, ExpertsProduct, Form, Gating, Inner};
use crate::model::graph::Activation;
use crate::model::{Builder, Config, Ends, Family, LoadParams};

/// The sum over each row's experts.
pub(super) fn experts(reference: &Reference<'_>, experts: &Experts) -> Vec<Row> {
    let rows = reference.of(experts.x).iter().zip(reference.of(experts.router));
    rows.map(|(x, scores)| {
        let mut sum = vec![0.0; x.len()];
        for (expert, weight) in routes(reference, experts, scores) {
            let before = if experts.weighs_input { weight } else { 1.0 };
            let x: Row = x.iter().map(|x| x * before).collect();
            let up = product(reference, &experts.up, expert, &x);
            let inside: Row = match experts.gate {
                Some(gate) => {
                    let gate = product(reference, &gate, expert, &x);
                    gate.iter().zip(up).map(|(&gate, up)| gated(experts.inner, gate, up)).collect()
                }
                None => up.into_iter().map(|x| gated(experts.inner, x, 1.0)).collect(),
            };
            let out = product(reference, &experts.down, expert, &inside);
            let after = if experts.weighs_input { 1.0 } else { weight };
            sum.iter_mut().zip(out).for_each(|(sum, out)| *sum += after * out);
        }
        sum
    })
    .collect()
}

fn gated(inner: Inner, gate: f64, up: f64) -> f64 {
    let sigmoid = |x: f64| 1.0 / (1.0 + (-x).exp());
    match inner {
        Inner::Activation(Activation::Silu) => gate * sigmoid(gate) * up,
        Inner::Activation(Activation::Relu) => gate.max(0.0) * up,
        Inner::Activation(Activation::GeluTanh) => {
            let inner = (2.0 / std::f64::consts::PI).sqrt() * (gate + 0.044715 * gate.powi(3));
            0.5 * gate * (1.0 + inner.tanh()) * up
        }
        Inner::ClampedSwiGlu { alpha, limit } => {
            let (alpha, limit) = (f64::from(alpha), f64::from(limit));
            let gate = gate.min(limit);
            gate * sigmoid(alpha * gate) * (up.clamp(-limit, limit) + 1.0)
        }
        _ => panic!("{inner} stands in no graph here"),
    }
}

fn product(reference: &Reference<'_>, product: &ExpertsProduct, expert: usize, x: &[f64]) -> Row {
    let matrix = &reference.weights.experts(product.matrices)[expert];
    let scale = product.scale.map_or(1.0, |scale| reference.vector(scale)[expert]);
    let bias = product.bias.map(|bias| reference.vector(bias));
    let mut weights = vec![0.0; matrix.k()];
    let row = |i: usize| {
        matrix.row(i, &mut weights).unwrap();
        let dot: f64 = weights.iter().zip(x).map(|(&w, x)| f64::from(w) * x).sum();
        scale * dot + bias.as_ref().map_or(0.0, |bias| bias[expert * matrix.n() + i])
    };
    (0..matrix.n()).map(row).collect()
}

/// The experts of a row and their weights.
fn routes(reference: &Reference<'_>, experts: &Experts, scores: &[f64]) -> Vec<(usize, f64)> {
    let routing = experts.routing;
    let softmax = |scores: &[f64]| -> Row {
        let sum: f64 = scores.iter().map(|x| x.exp()).sum();
        scores.iter().map(|x| x.exp() / sum).collect()
    };
    let weights: Row = match routing.gating {
        Gating::Softmax => softmax(scores),
        Gating::Sigmoid => scores.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect(),
        Gating::SqrtSoftplus => scores.iter().map(|x| x.exp().ln_1p().sqrt()).collect(),
        Gating::SoftmaxOfChosen => scores.to_vec(),
    };
    let mut choice = weights.clone();
    if let Some(bias) = routing.bias {
        choice.iter_mut().zip(reference.vector(bias)).for_each(|(x, bias)| *x += bias);
    }
    let best = |list: &[f64], n: usize| -> Vec<usize> {
        let mut order: Vec<usize> = (0..list.len()).collect();
        order.sort_by(|&a, &b| list[b].total_cmp(&list[a]));
        order.truncate(n);
        order
    };
    if let Some((groups, used)) = routing.groups {
        let size = choice.len() / groups;
        let sums: Row = choice.chunks(size).map(|g| best(g, 2).iter().map(|&i| g[i]).sum()).collect();
        let kept = best(&sums, used);
        for (i, x) in choice.iter_mut().enumerate() {
            *x = if kept.contains(&(i / size)) { *x } else { f64::NEG_INFINITY };
        }
    }
    let chosen = best(&choice, routing.used);
    let mut chosen_weights: Row = chosen.iter().map(|&i| weights[i]).collect();
    if routing.gating == Gating::SoftmaxOfChosen {
        chosen_weights = softmax(&chosen_weights);
    }
    let sum: f64 = if routing.norm { chosen_weights.iter().sum() } else { 1.0 };
    chosen.into_iter().zip(chosen_weights).map(|(i, w)| (i, w / sum * f64::from(routing.scale))).collect()
}

/// A decoder whose layers all have experts; `change` sets what a family would.
fn mixture(b: &mut Builder<'_>, c: &Config, change: impl Fn(&mut ExpertsConfig, &mut Form)) -> Result<Ends> {
    let mut x = b.embed("token_embd", c.n_vocab, c.n_embd)?;
    for (i, layer) in c.layers.iter().enumerate() {
        b.enter_layer(Some(i));
        let normed = b.rms_norm(x, "attn_norm")?;
        let heads = attend(b, normed, layer)?;
        x = b.add(x, heads)?;
        let normed = b.rms_norm(x, "ffn_norm")?;
        let (mut config, mut form) = (layer.experts.unwrap(), Form::SCALED);
        change(&mut config, &mut form);
        let router = b.linear(normed, "ffn_gate_inp", config.count)?;
        let sum = b.experts(normed, router, &config, form)?;
        // With a factor, the sum is not added in place.
        x = if i == 0 { b.add(x, sum)? } else { b.scale(sum, 1.5).and_then(|sum| b.add(sum, x))? };
        let shared = b.shared_expert(normed, layer.n_ff, false)?;
        x = b.add(x, shared)?;
    }
    b.enter_layer(None);
    let last = b.select(x)?;
    let hidden = b.rms_norm(last, "output_norm")?;
    Ok((hidden, Some(head(b, hidden, c)?)))
}

fn softmax(b: &mut Builder<'_>, c: &Config) -> Result<Ends> {
    mixture(b, c, |config, _| config.norm = true)
}

fn grouped(b: &mut Builder<'_>, c: &Config) -> Result<Ends> {
    mixture(b, c, |config, form| {
        (config.gating, config.groups, config.scale) = (Gating::Sigmoid, Some((4, 2)), 2.5);
        form.inner = Inner::Activation(Activation::GeluTanh);
    })
}

fn clamped(b: &mut Builder<'_>, c: &Config) -> Result<Ends> {
    mixture(b, c, |config, form| {
        (config.gating, config.used) = (Gating::SoftmaxOfChosen, 4);
        form.inner = Inner::ClampedSwiGlu { alpha: 1.702, limit: 0.9 };
    })
}

fn weighed_first(b: &mut Builder<'_>, c: &Config) -> Result<Ends> {
    mixture(b, c, |config, form| {
        (config.gating, config.used) = (Gating::Sigmoid, 1);
        form.weighs_input = true;
    })
}

fn ungated(b: &mut Builder<'_>, c: &Config) -> Result<Ends> {
    mixture(b, c, |config, form| {
        (config.gating, config.used) = (Gating::SqrtSoftplus, config.count);
        (form.gated, form.inner) = (false, Inner::Activation(Activation::Relu));
    })
}

const MIXTURES: [(&str, Emit); 5] = [
    ("softmax", softmax),
    ("groups", grouped),
    ("clamped", clamped),
    ("inputs weighted", weighed_first),
    ("without gates", ungated),
];

#[test]
fn experts_are_what_they_say_on_every_level() {
    let tokens: Vec<u32> = (0..61).map(|i| (i * 37 + 5) % 288).collect();
    for isa in IsaId::available() {
        for (name, emit) in MIXTURES {
            // As in `lower_tests`.
            for (file, bound) in [("experts-f32", 2.3e-6), ("experts-quant", 1.7e-4)] {
                let model = model_by(file, emit, &LoadParams::default().with_isa(isa));
                let wanted = Reference::logits(model.graph(), model.weights(), &tokens);
                let whole = logits(&model, &tokens, &[61], 1);
                let off = difference(&whole, &wanted);
                println!("{isa:?}, {name} of {file}: {off:.2e}");
                assert!(off < bound, "{name} of {file} is off by {off:e} with {isa:?}");
                for (pieces, threads) in [(&[61][..], 3), (&[1; 61], 2), (&[4, 50, 3, 4], 2)] {
                    let got = logits(&model, &tokens, pieces, threads);
                    assert!(
                        got.iter().zip(&whole).all(|(a, b)| a.to_bits() == b.to_bits()),
                        "{name} of {file} by {pieces:?} on {threads} with {isa:?}"
                    );
                }
            }
        }
    }
}

fn nan(b: &mut Builder<'_>, c: &Config) -> Result<Ends> {
    let mut x = b.embed("token_embd", c.n_vocab, c.n_embd)?;
    for (i, layer) in c.layers.iter().enumerate() {
        b.enter_layer(Some(i));
        let normed = b.rms_norm(x, "ffn_norm")?;
        let router = b.linear(normed, "ffn_gate_inp", 8)?;
        let router = b.scale(router, f32::NAN)?;
        let sum = b.experts(normed, router, &layer.experts.unwrap(), Form::SWIGLU)?;
        x = b.add(x, sum)?;
    }
    b.enter_layer(None);
    let hidden = b.select(x)?;
    Ok((hidden, Some(head(b, hidden, c)?)))
}

#[test]
fn a_router_of_nan_makes_logits_of_nan() {
    for file in ["experts-f32", "experts-quant"] {
        let model = model_by(file, nan, &LoadParams::default());
        for threads in [1, 2] {
            assert!(logits(&model, &[1, 2, 3, 4, 5, 6, 7], &[7], threads).iter().all(|x| x.is_nan()));
        }
    }
}

#[test]
fn experts_that_contradict_the_configuration_are_named() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/gguf/experts-f32.gguf");
    let gguf = Gguf::open_path(path).unwrap();
    type Change = fn(&mut ExpertsConfig);
    let changes: [(Change, &str); 3] = [
        (|experts| experts.count = 7, "tensor blk.0.ffn_gate_inp.weight has shape [32, 8]"),
        (
            |experts| experts.n_ff = 23,
            "tensor blk.0.ffn_gate_exps.weight has shape [32, 24, 8]; the configuration wants [32, 23, 8]",
        ),
        (|experts| experts.n_ff_shared = 5, "tensor blk.0.ffn_gate_shexp.weight has shape [32, 24]"),
    ];
    for (change, wanted) in changes {
        let error = Family::named("llama").read_changed(&gguf, |config| {
            config.layers.iter_mut().flat_map(|layer| &mut layer.experts).for_each(change);
        });
        let error = error.err().unwrap().to_string();
        assert!(error.contains("llama, layer 0") && error.contains(wanted), "{error}");
    }
}

/// Planted faults must be noticed: another number of experts, another factor.
#[test]
fn other_experts_are_told_apart() {
    use crate::model::graph::Op;
    let tokens: Vec<u32> = (0..23).map(|i| (i * 37 + 5) % 288).collect();
    for (name, emit) in MIXTURES {
        let model = model_by("experts-f32", emit, &LoadParams::default());
        let got = logits(&model, &tokens, &[23], 1);
        let changes: [fn(&mut Experts); 3] = [
            |experts| experts.routing.scale *= 1.01,
            |experts| experts.routing.used = if experts.routing.used == 1 { 2 } else { 1 },
            |experts| experts.down.bias = None,
        ];
        for (i, change) in changes.into_iter().enumerate() {
            let mut other = model.graph().clone();
            for node in &mut other.nodes {
                match &mut node.op {
                    Op::Experts(experts) if experts.routing.count > 1 => change(experts),
                    _ => {}
                }
            }
            let off = difference(&got, &Reference::logits(&other, model.weights(), &tokens));
            assert!(off > 1e-4, "{name}: change {i} makes {off:e}");
        }
    }
}
