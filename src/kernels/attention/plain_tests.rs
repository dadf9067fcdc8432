//! Attention on plain slices against the f64 reference: heads, windows, masks, strides, places in memory, what is
//! not a number, and what is refused.

use super::adjust_tests::{ALL, EACH, SLOPES};
use super::plain::*;
use super::tests::largest_finite;
use super::{AttentionKernels, Kernel, ScoreOptions, TILE};
use crate::kernels::{levels, reference};
use crate::testing::noise;

const CANARY: f32 = -7777.0;
const U: f64 = 1.0 / (1 << 24) as f64;

/// Dense inputs of a batch, and a mask `[batch][n_head][tokens_q][tokens_kv]`.
struct Case {
    shape: Shape,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    mask: Option<Vec<f32>>,
    scores: ScoreOptions<'static>,
}

impl Case {
    fn new(
        [batch, n_head, n_head_kv]: [usize; 3],
        [tokens_q, tokens_kv, head_dim]: [usize; 3],
        causal: bool,
        window: Option<usize>,
    ) -> Self {
        let mut seed = (tokens_q * 31 + tokens_kv * 7 + n_head * 3 + head_dim) as u64;
        let mut fill = |n: usize, factor: f32| (0..n).map(|_| factor * noise(&mut seed)).collect::<Vec<_>>();
        let scale = 1.0 / (head_dim as f32).sqrt();
        Self {
            shape: Shape { batch, n_head, n_head_kv, tokens_q, tokens_kv, head_dim, scale, causal, window },
            q: fill(batch * tokens_q * n_head * head_dim, 3.0),
            k: fill(batch * tokens_kv * n_head_kv * head_dim, 2.0),
            v: fill(batch * tokens_kv * n_head_kv * head_dim, 1.0),
            mask: None,
            scores: ScoreOptions::default(),
        }
    }

    /// Every fifth key hidden, the others biased; every seventh query's keys all hidden.
    fn masked(mut self) -> Self {
        let Shape { batch, n_head, tokens_q, tokens_kv, .. } = self.shape;
        let mut seed = 5;
        let value = |i: usize| match (i % 5, i / tokens_kv % 7) {
            (0, _) | (_, 6) => f32::NEG_INFINITY,
            _ => 2.0 * noise(&mut seed),
        };
        self.mask = Some((0..batch * n_head * tokens_q * tokens_kv).map(value).collect());
        self
    }

    fn reference(&self) -> Vec<f64> {
        let Shape { batch, n_head, n_head_kv, tokens_q, tokens_kv, head_dim, scale, causal, window } =
            self.shape;
        let part = |x: &[f32], b: usize| x[b * x.len() / batch..(b + 1) * x.len() / batch].to_vec();
        let sequence = |b: usize| {
            let mask = self.mask.as_ref().map(|mask| part(mask, b));
            let shape = reference::Attention {
                n_q: tokens_q,
                n_kv: tokens_kv,
                n_head,
                n_head_kv,
                head_dim,
                scale: f64::from(scale),
                causal,
                window,
                mask: mask.as_deref(),
                scores: self.scores,
            };
            reference::attention(&part(&self.q, b), &part(&self.k, b), &part(&self.v, b), &shape)
        };
        (0..batch).flat_map(sequence).collect()
    }

    /// Computes with `gap` floats behind every head, `shift` floats before the first; the rows without the gaps.
    fn run(&self, kernel: &Kernel, gap: usize, shift: usize) -> Vec<f32> {
        let Shape { batch, n_head, n_head_kv, tokens_q, tokens_kv, head_dim, .. } = self.shape;
        let spread = |x: &[f32]| {
            let heads = x.chunks(head_dim).flat_map(|head| [head.to_vec(), vec![f32::NAN; gap]].concat());
            [vec![f32::NAN; shift], heads.collect()].concat()
        };
        let (q, k, v) = (spread(&self.q), spread(&self.k), spread(&self.v));
        let tensor =
            |data, tokens, heads| Tensor { data, strides: Strides::dense(tokens, heads, head_dim + gap) };
        let rows =
            Strides { batch: n_head * tokens_q * tokens_kv, token: tokens_kv, head: tokens_q * tokens_kv };
        let inputs = Inputs {
            q: tensor(&q[shift..], tokens_q, n_head),
            k: tensor(&k[shift..], tokens_kv, n_head_kv),
            v: tensor(&v[shift..], tokens_kv, n_head_kv),
            mask: self.mask.as_ref().map(|mask| Tensor { data: mask, strides: rows }),
            scores: self.scores,
        };
        let strides = Strides::dense(tokens_q, n_head, head_dim + gap);
        let mut out = vec![CANARY; shift + batch * tokens_q * n_head * (head_dim + gap)];
        let mut scratch = vec![f32::NAN; scratch_len(kernel, &self.shape).unwrap() + 1];
        *scratch.last_mut().unwrap() = CANARY;
        let last = scratch.len() - 1;
        attention(kernel, &self.shape, &inputs, &mut out[shift..], strides, &mut scratch[..last]).unwrap();
        assert_eq!(scratch[last], CANARY, "scratch memory overrun");
        let heads = out[shift..].chunks(head_dim + gap);
        assert!(heads.clone().all(|head| head[head_dim..].iter().all(|&x| x == CANARY)), "gap touched");
        assert!(out[..shift].iter().all(|&x| x == CANARY));
        heads.flat_map(|head| head[..head_dim].to_vec()).collect()
    }

    /// The contract's bound, with |v| ≤ 1 and the mask's part of the scores.
    fn bound(&self) -> f64 {
        let Shape { head_dim, tokens_kv, scale, .. } = self.shape;
        let norm = |x: &[f32]| x.iter().map(|&x| f64::from(x.abs())).sum::<f64>();
        let score = f64::from(scale) * 2.0 * self.q.chunks(head_dim).map(norm).fold(0.0, f64::max);
        let mask = if self.mask.is_some() { 2.0 } else { 0.0 };
        let n = tokens_kv as f64;
        let (slope, sink) = (largest_finite(self.scores.slopes), largest_finite(self.scores.sinks));
        let each = head_dim as f64 + if self.scores.soft_cap > 0.0 { 20.0 } else { 8.0 };
        let scores = 2.0 * each * (score + mask + slope * n).max(sink);
        (scores + 2.0 * n + 4.0 * n / TILE as f64 + 40.0) * U
    }

    fn check(&self, kernel: &Kernel, got: &[f32], want: &[f64]) {
        let bound = self.bound();
        for (i, (&got, want)) in got.iter().zip(want).enumerate() {
            let error = (f64::from(got) - want).abs();
            assert!(error <= bound, "{} {:?}: {got} for {want} at {i}", kernel.info.isa.name(), self.shape);
        }
    }
}

fn kernels_here() -> impl DoubleEndedIterator<Item = Kernel> {
    levels::here().map(|isa| AttentionKernels::select(isa).f32)
}

fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn it_agrees_with_the_reference() {
    let mut cases = Vec::new();
    for head_dim in [1, 8, 24, 40, 64, 72, 80, 96, 128, 256] {
        cases.push(Case::new([2, 6, 2], [9, 150, head_dim], true, None));
        cases.push(Case::new([1, 2, 2], [3, 17, head_dim], false, None));
        cases.push(Case::new([1, 1, 1], [1, 130, head_dim], false, None));
        cases.push(Case::new([1, 3, 1], [70, 300, head_dim], true, Some(100)).masked());
    }
    cases.push(Case::new([1, 1, 1], [9, 5, 16], true, None));
    cases.push(Case::new([1, 2, 1], [900, 40, 64], false, Some(3)));
    cases.push(Case::new([2, 2, 1], [20, 260, 32], false, None).masked());
    // Positions count without causality, too, also those before the first key.
    for scores in EACH {
        cases.push(Case { scores, ..Case::new([2, 6, 2], [9, 150, 40], true, None) });
        cases.push(Case { scores, ..Case::new([1, 4, 1], [70, 300, 64], true, Some(100)).masked() });
        cases.push(Case { scores, ..Case::new([2, 2, 2], [20, 260, 24], false, None) });
        cases.push(Case { scores, ..Case::new([1, 2, 1], [33, 17, 64], false, None) });
    }
    for case in &cases {
        let want = case.reference();
        for kernel in kernels_here() {
            let got = case.run(&kernel, 0, 0);
            case.check(&kernel, &got, &want);
            assert_eq!(bits(&got), bits(&case.run(&kernel, 3, 1)), "places in memory change bits");
        }
    }
}

#[test]
fn a_query_has_the_same_bits_in_any_call() {
    let case = Case { scores: ALL, ..Case::new([1, 4, 2], [140, 300, 48], true, Some(170)).masked() };
    let Shape { n_head, tokens_kv, head_dim, .. } = case.shape;
    let line = n_head * head_dim;
    for kernel in kernels_here() {
        let together = case.run(&kernel, 0, 0);
        for (from, to) in [(0, 1), (5, 20), (139, 140)] {
            // The queries up to `to` of a sequence whose last key is that of query `to`.
            let seen = tokens_kv - (140 - to);
            let keys = 2 * head_dim * seen;
            let mask = case.mask.as_ref().unwrap();
            let rows =
                |h: usize| (from..to).flat_map(move |t| mask[(h * 140 + t) * tokens_kv..][..seen].to_vec());
            let part = Case {
                shape: Shape { tokens_q: to - from, tokens_kv: seen, ..case.shape },
                q: case.q[from * line..to * line].to_vec(),
                k: case.k[..keys].to_vec(),
                v: case.v[..keys].to_vec(),
                mask: Some((0..n_head).flat_map(rows).collect()),
                scores: case.scores,
            };
            assert_eq!(bits(&part.run(&kernel, 0, 0)), bits(&together[from * line..to * line]));
        }
    }
}

#[test]
fn plain_rows_and_a_packed_cache_give_the_same_bits() {
    for scores in [ScoreOptions::default(), ALL] {
        let case = Case { scores, ..Case::new([1, 3, 1], [33, 290, 80], true, None) };
        for kernel in kernels_here() {
            let layout = kernel.layout(80);
            let mut keys = vec![0xff; 3 * layout.key_tile()];
            let mut values = vec![0xff; 3 * layout.value_tile()];
            for (p, (k, v)) in case.k.chunks(80).zip(case.v.chunks(80)).enumerate() {
                kernel.store(&mut keys, &mut values, p, k, v).unwrap();
            }
            let limits: Vec<u32> = (258..291).collect();
            let mut out = vec![0.0; case.q.len()];
            let mut scratch = vec![0.0; kernel.scratch_len(80, 99).unwrap()];
            let (k, v) = super::tests::tiles(&layout, &mut keys, &mut values);
            let args = super::AttentionArgs {
                q: case.q.as_ptr(),
                q_token_stride: 240,
                q_head_stride: 80,
                tokens: 33,
                heads: 3,
                head_dim: 80,
                scale: case.shape.scale,
                k,
                v,
                limits: limits.as_ptr(),
                starts: std::ptr::null(),
                scores: scores.args(0, 257),
                ahead: true,
                out: out.as_mut_ptr(),
                out_token_stride: 240,
                out_head_stride: 80,
                scratch: scratch.as_mut_ptr(),
            };
            // SAFETY: every buffer is as long as the contract asks.
            unsafe { kernel.run(&args) };
            assert_eq!(bits(&out), bits(&case.run(&kernel, 0, 0)));
        }
    }
}

#[test]
fn what_is_not_a_number_stays_where_it_is_seen() {
    for kernel in kernels_here() {
        for (key, bad) in [(0, f32::NAN), (140, f32::INFINITY), (149, f32::NAN)] {
            let mut case = Case::new([1, 1, 1], [150, 150, 16], true, None);
            case.k[key * 16 + 3] = bad;
            let got = case.run(&kernel, 0, 0);
            assert!(got[..key * 16].iter().all(|x| x.is_finite()), "seen too early");
            // An infinite key scores ∞ or −∞, as the query's sign says: NaN, or a weight of 0.
            let sees = |t: usize| bad.is_nan() || case.q[t * 16 + 3] > 0.0;
            let lost = (key..150).find(|&t| sees(t) && !got[t * 16..][..16].iter().all(|x| x.is_nan()));
            assert_eq!(lost, None, "{}: {bad} at {key}", kernel.info.isa.name());
        }
        let mut case = Case::new([1, 1, 1], [2, 3, 16], false, None);
        case.v[16 + 2] = f32::INFINITY;
        let got = case.run(&kernel, 0, 0);
        assert!(got.iter().enumerate().all(|(i, x)| x.is_finite() == (i % 16 != 2)));
        // Scores near ±3e38 in scaled units: no overflow on the way, one key takes all.
        let mut case = Case::new([1, 1, 1], [1, 9, 16], false, None);
        case.q.fill(0.0);
        case.q[0] = 1e19;
        case.k.iter_mut().enumerate().for_each(|(i, k)| *k = if i == 5 * 16 { 1e19 } else { -1e19 });
        let got = case.run(&kernel, 0, 0);
        assert_eq!(bits(&got), bits(&case.v[5 * 16..6 * 16]), "{}", kernel.info.isa.name());
        // Denormal queries and keys score 0 and −0: the mean of the values.
        let mut case = Case::new([1, 1, 1], [1, 4, 8], false, None);
        case.q.fill(-1e-40);
        case.k.fill(1e-40);
        case.v.fill(3.0);
        assert!(case.run(&kernel, 0, 0).iter().all(|&x| x == 3.0));
    }
}

#[test]
fn nothing_is_nothing_and_no_keys_give_zeros() {
    let kernel = kernels_here().next_back().unwrap();
    for sizes in [[0, 2, 2, 3, 5, 8], [1, 0, 0, 3, 5, 8], [1, 2, 2, 0, 5, 8], [1, 2, 2, 3, 5, 0]] {
        let [batch, n_head, n_head_kv, tokens_q, tokens_kv, head_dim] = sizes;
        let shape = Shape {
            batch,
            n_head,
            n_head_kv,
            tokens_q,
            tokens_kv,
            head_dim,
            scale: 1.0,
            causal: true,
            window: None,
        };
        let none = Tensor { data: &[], strides: Strides::default() };
        let inputs = Inputs { q: none, k: none, v: none, mask: None, scores: ScoreOptions::default() };
        attention(&kernel, &shape, &inputs, &mut [], Strides::default(), &mut []).unwrap();
    }
    let case = Case::new([1, 2, 1], [3, 0, 8], false, None);
    assert!(case.run(&kernel, 1, 0).iter().all(|&x| x.to_bits() == 0));
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_written() {
    let kernel = kernels_here().next_back().unwrap();
    let case = Case::new([2, 4, 2], [3, 5, 8], false, None);
    let dense = |data, tokens, heads| Tensor { data, strides: Strides::dense(tokens, heads, 8) };
    let good = Inputs {
        q: dense(&case.q, 3, 4),
        k: dense(&case.k, 5, 2),
        v: dense(&case.v, 5, 2),
        mask: None,
        scores: ALL,
    };
    let strides = Strides::dense(3, 4, 8);
    let refused = |shape: &Shape, inputs: &Inputs<'_>, strides: Strides, scratch: usize| {
        let mut out = vec![CANARY; 2 * 3 * 4 * 8];
        let mut scratch = vec![0.0; scratch];
        let result = attention(&kernel, shape, inputs, &mut out, strides, &mut scratch);
        assert!(out.iter().all(|&x| x == CANARY) || result.is_ok());
        result.is_err()
    };
    let len = scratch_len(&kernel, &case.shape).unwrap();
    assert!(!refused(&case.shape, &good, strides, len));
    assert!(refused(&case.shape, &good, strides, len - 1));
    for inputs in [
        Inputs { q: dense(&case.q[1..], 3, 4), ..good },
        Inputs { k: dense(&case.k[1..], 5, 2), ..good },
        Inputs { v: dense(&case.v[1..], 5, 2), ..good },
        Inputs { mask: Some(dense(&[0.0; 4], 0, 0)), ..good },
        Inputs { scores: ScoreOptions { slopes: Some(&SLOPES[..3]), ..ALL }, ..good },
        Inputs { scores: ScoreOptions { sinks: Some(&[]), ..ALL }, ..good },
        Inputs { q: Tensor { data: &case.q, strides: Strides { batch: usize::MAX, ..strides } }, ..good },
    ] {
        assert!(refused(&case.shape, &inputs, strides, len));
    }
    for wrong in [
        Strides { batch: 0, ..strides },
        Strides { head: 7, ..strides },
        Strides { token: 16, ..strides },
        Strides { batch: 97, ..strides },
    ] {
        assert!(refused(&case.shape, &good, wrong, len), "{wrong:?}");
    }
    for shape in [
        Shape { n_head_kv: 3, ..case.shape },
        Shape { n_head_kv: 0, ..case.shape },
        Shape { tokens_kv: usize::MAX, ..case.shape },
        Shape { tokens_q: usize::MAX / 8, ..case.shape },
        Shape { head_dim: usize::MAX / 2, ..case.shape },
        Shape { batch: usize::MAX, ..case.shape },
    ] {
        assert!(refused(&shape, &good, strides, len), "{shape:?}");
    }
}

#[test]
fn scratch_memory_is_bounded() {
    for kernel in kernels_here() {
        for head_dim in [1, 8, 64, 80, 96, 128, 256, 1024, 100_000] {
            let shape = Case::new([1, 1, 1], [0, 0, head_dim], true, None).shape;
            let len =
                scratch_len(&kernel, &Shape { tokens_q: 1 << 40, tokens_kv: 1 << 30, ..shape }).unwrap();
            assert!(len < (192 << 10) + 432 * head_dim, "{head_dim}: {len}");
        }
    }
}
