//! The same numbers as llama.cpp on a real model: next-token distributions over a page of text, and greedy
//! continuations. The goldens are llama.cpp's on the same weights; `tests/goldens/README.md` says how.

use crate::common::model;
use std::sync::Arc;

use crate::common::golden::{Cursor, read};
use smallmind::kernels::qmatmul::Activations;
use smallmind::kv::CacheType;
use smallmind::model::{LoadParams, Model};
use smallmind::runtime::{Context, ContextParams, Logits};

/// Mean divergence in nats that the project promises.
const MAX_MEAN_KL: f64 = 1e-3;
/// Share of positions with the same likeliest token.
const MIN_TOP1: f64 = 0.99;

fn smollm2(activations: Activations) -> Arc<Model> {
    Model::open(&model::smollm2(), &LoadParams::default().with_activations(activations)).unwrap()
}

fn log_softmax(logits: &[f32]) -> Vec<f64> {
    let max = logits.iter().fold(f64::NEG_INFINITY, |m, &x| m.max(f64::from(x)));
    let sum: f64 = logits.iter().map(|&x| (f64::from(x) - max).exp()).sum();
    logits.iter().map(|&x| f64::from(x) - max - sum.ln()).collect()
}

/// The oracle's distribution at one position: its best tokens, and the mass of all others.
struct Row {
    ids: Vec<usize>,
    log_p: Vec<f64>,
    log_rest: f64,
}

/// Divergence of ours from the oracle's over its best tokens and "any other" as one more event, which is
/// never more than the full divergence and here within 1e-5 of it.
fn divergence(oracle: &Row, ours: &[f64]) -> f64 {
    let seen: f64 = oracle.ids.iter().map(|&id| ours[id].exp()).sum();
    let our_rest = (1.0 - seen).max(1e-12).ln();
    let best = oracle.ids.iter().zip(&oracle.log_p).map(|(&id, &p)| p.exp() * (p - ours[id]));
    best.sum::<f64>() + oracle.log_rest.exp() * (oracle.log_rest - our_rest)
}

fn parity_rows() -> (Vec<u32>, Vec<Row>) {
    let bytes = read("parity.bin");
    let mut cursor = Cursor::new(&bytes, b"SMPD");
    let (positions, best, _vocabulary) = (cursor.size(), cursor.size(), cursor.size());
    let tokens = (0..=positions).map(|_| cursor.u32()).collect();
    let ids: Vec<usize> = (0..positions * best).map(|_| cursor.u16().into()).collect();
    let log_p: Vec<f64> = (0..positions * best).map(|_| cursor.f32().into()).collect();
    let rows = ids.chunks(best).zip(log_p.chunks(best));
    let rows = rows.map(|(ids, log_p)| Row {
        ids: ids.to_vec(),
        log_p: log_p.to_vec(),
        log_rest: cursor.f32().into(),
    });
    (tokens, rows.collect())
}

/// Our distributions after each of `tokens`.
fn distributions(model: &Arc<Model>, tokens: &[u32], kv: CacheType) -> Vec<Vec<f64>> {
    let params = ContextParams::default().with_n_ctx(tokens.len()).with_n_output(64).with_kv(kv);
    let mut context = Context::new(model.clone(), &params).unwrap();
    let mut rows = Vec::new();
    for piece in tokens.chunks(64) {
        context.decode(piece, Logits::All).unwrap();
        rows.extend(context.logits().chunks(model.config().n_vocab).map(log_softmax));
    }
    rows
}

/// Mean divergence and share of positions with the same likeliest token.
fn agreement(activations: Activations) -> (f64, f64) {
    let (tokens, oracle) = parity_rows();
    let ours = distributions(&smollm2(activations), &tokens[..oracle.len()], CacheType::F32);
    let kl: Vec<f64> = oracle.iter().zip(&ours).map(|(o, row)| divergence(o, row)).collect();
    let mean = kl.iter().sum::<f64>() / kl.len() as f64;
    let max = kl.iter().fold(0.0f64, |m, &x| m.max(x));
    let agree = oracle.iter().zip(&ours).filter(|(o, row)| {
        let best = (0..row.len()).max_by(|&a, &b| row[a].total_cmp(&row[b]));
        best == Some(o.ids[0])
    });
    let top1 = agree.count() as f64 / oracle.len() as f64;
    println!("{activations:?}: mean KL {mean:.2e}, max {max:.2e}, top-1 agreement {:.2} %", 100.0 * top1);

    // The measure sees what it must: distributions one position off are far away.
    let planted: f64 = oracle[1..].iter().zip(&ours).map(|(o, row)| divergence(o, row)).sum();
    assert!(planted / oracle.len() as f64 > 1.0);
    (mean, top1)
}

#[test]
fn distributions_are_llama_cpps() {
    let (mean, top1) = agreement(Activations::Bits16);
    assert!(mean < MAX_MEAN_KL && top1 >= MIN_TOP1, "mean KL {mean:e}, top-1 {top1}");
}

/// The faster mode is as far from the unrounded model as llama.cpp is from itself when it rounds likewise
/// (3e-3 and 96 %, `tests/goldens/README.md`), and no further.
#[test]
fn eight_bits_cost_what_they_cost_llama_cpp() {
    let (mean, top1) = agreement(Activations::Bits8);
    assert!(mean < 4e-3 && top1 > 0.95, "mean KL {mean:e}, top-1 {top1}");
}

/// What rounding the cache costs: the divergence from our own distributions with an exact cache.
#[test]
fn rounded_caches_are_near_the_exact_one() {
    let (tokens, oracle) = parity_rows();
    let (model, tokens) = (smollm2(Activations::Bits16), &tokens[..oracle.len()]);
    let exact = distributions(&model, tokens, CacheType::F32);
    for (kv, most, least_top1) in [(CacheType::F16, 2e-6, 0.995), (CacheType::Q8_0, 1e-3, 0.97)] {
        let (mut sum, mut max, mut agree) = (0.0, 0.0f64, 0);
        for (want, got) in exact.iter().zip(distributions(&model, tokens, kv)) {
            let kl: f64 = want.iter().zip(&got).map(|(&p, &q)| p.exp() * (p - q)).sum();
            let best = |x: &[f64]| (0..x.len()).max_by(|&a, &b| x[a].total_cmp(&x[b]));
            sum += kl;
            max = max.max(kl);
            agree += usize::from(best(want) == best(&got));
        }
        let (mean, top1) = (sum / tokens.len() as f64, agree as f64 / tokens.len() as f64);
        println!("{}: mean KL {mean:.2e}, max {max:.2e}, top-1 agreement {:.2} %", kv.name(), 100.0 * top1);
        assert!(mean > 0.0 && mean < most && top1 >= least_top1, "{}: {mean:e}, {top1}", kv.name());
    }
}

#[test]
fn sixteen_bits_for_outliers_alone_are_most_of_sixteen_bits() {
    let (divergence, agreement) = agreement(Activations::Adaptive);
    println!("adaptive: mean KL {divergence:.1e}, likeliest token agrees {agreement:.4}");
    assert!(divergence < 1e-3 && agreement > 0.975, "{divergence} {agreement}");
}

#[test]
fn greedy_text_is_llama_cpps() {
    let model = smollm2(Activations::Bits16);
    let golden: serde_json::Value = serde_json::from_slice(&read("greedy.json")).unwrap();
    let tokens = |value: &serde_json::Value| -> Vec<u32> {
        value.as_array().unwrap().iter().map(|id| id.as_u64().unwrap() as u32).collect()
    };
    for prompt in golden["prompts"].as_array().unwrap() {
        let text = prompt["text"].as_str().unwrap();
        let ids = tokens(&prompt["tokens"]);
        assert_eq!(model.tokenizer().unwrap().encode(text, true, true).unwrap(), ids);
        let params = ContextParams::default().with_n_ctx(ids.len() + 64);
        let mut context = Context::new(model.clone(), &params).unwrap();
        let mut next = ids;
        for (i, &wanted) in tokens(&prompt["continuation"]).iter().enumerate() {
            context.decode(&next, Logits::Last).unwrap();
            let logits = context.logits();
            let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b])).unwrap();
            if best as u32 != wanted {
                let gap = prompt["steps"][i]["logits"].as_array().unwrap();
                let gap = gap[0].as_f64().unwrap() - gap[1].as_f64().unwrap();
                assert!(gap < 0.05, "{}: token {i} is {best}, not {wanted}; gap {gap}", prompt["name"]);
                println!("{}: another choice at token {i}, gap {gap}", prompt["name"]);
                break;
            }
            next = vec![wanted];
        }
    }
}
