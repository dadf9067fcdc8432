//! Attention's gradient on every level of this CPU against `reference::backward`, within the bound that its contract
//! states; the reference against central differences; the same bits for every way of sharing the work.

use super::*;
use crate::isa::IsaId;
use crate::kernels::attention::{
    self as forward, AttentionKernels, Inputs, ScoreOptions, Shape, Strides, Tensor,
};
use crate::kernels::backward::BackwardKernels;
use crate::kernels::levels;
use crate::kernels::reference::backward::{Attended, Head};
use crate::kernels::rows::tests::{CANARY, U, bits, random};

/// One sequence.
struct Case {
    shape: AttentionShape,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
    o: Vec<f32>,
    d_o: Vec<f32>,
    lse: Vec<f32>,
}

/// dq, dk, dv.
type Gradients = [Vec<f32>; 3];

fn sets() -> impl Iterator<Item = (IsaId, BackwardKernels)> {
    levels::here().map(|isa| (isa, BackwardKernels::select(isa)))
}

/// A head's rows of `[token][head][head_dim]`.
fn head_of(x: &[f32], heads: usize, head: usize, head_dim: usize) -> Vec<f64> {
    let rows = x.chunks(head_dim).skip(head).step_by(heads);
    rows.flatten().map(|&x| f64::from(x)).collect()
}

impl Case {
    fn new([tokens, n_head, n_head_kv, head_dim]: [usize; 4], causal: bool) -> Self {
        let scale = 1.0 / (head_dim as f32).sqrt();
        let shape = AttentionShape { tokens, n_head, n_head_kv, head_dim, scale, causal };
        let row = |heads: usize, seed| random(seed + tokens as u32, tokens * heads * head_dim, 2.0);
        let (q, k, v, d_o) = (row(n_head, 1), row(n_head_kv, 2), row(n_head_kv, 3), row(n_head, 4));
        let mut case = Self { shape, o: q.clone(), q, k, v, d_o, lse: vec![0.0; n_head * tokens] };
        for h in 0..n_head {
            let Attended { out, lse } = case.head(h, |head| head.forward());
            for (t, row) in out.chunks(head_dim).enumerate() {
                let to = &mut case.o[(t * n_head + h) * head_dim..][..head_dim];
                to.iter_mut().zip(row).for_each(|(to, &x)| *to = x as f32);
                case.lse[h * tokens + t] = lse[t] as f32;
            }
        }
        case
    }

    /// Query head `h` with the keys and values that it reads.
    fn head<R>(&self, h: usize, f: impl FnOnce(&Head<'_>) -> R) -> R {
        let AttentionShape { n_head, n_head_kv, head_dim, scale, causal, .. } = self.shape;
        let kv = h / (n_head / n_head_kv);
        let (q, scale) = (head_of(&self.q, n_head, h, head_dim), f64::from(scale));
        let (k, v) = (head_of(&self.k, n_head_kv, kv, head_dim), head_of(&self.v, n_head_kv, kv, head_dim));
        f(&Head { q: &q, k: &k, v: &v, head_dim, scale, causal })
    }

    fn values(&self) -> AttentionValues<'_> {
        let Self { q, k, v, o, d_o, lse, .. } = self;
        AttentionValues { q, k, v, o, d_o, lse }
    }

    fn scratch(&self, kernel: &AttentionBackward) -> Vec<f32> {
        let AttentionShape { tokens, n_head, n_head_kv, head_dim, .. } = self.shape;
        vec![f32::NAN; kernel.scratch_len(tokens, n_head / n_head_kv, head_dim).unwrap()]
    }

    fn gradients(&self) -> Gradients {
        [self.q.len(), self.k.len(), self.v.len()].map(|len| vec![CANARY; len])
    }

    fn run(&self, kernel: &AttentionBackward) -> Gradients {
        let mut gradients = self.gradients();
        let [dq, dk, dv] = &mut gradients;
        let into = AttentionGradients { dq, dk, dv };
        let mut scratch = self.scratch(kernel);
        scratch.push(CANARY);
        let last = scratch.len() - 1;
        kernel.apply(&self.shape, &self.values(), into, &mut scratch[..last]).unwrap();
        assert_eq!(scratch[last], CANARY, "scratch memory overrun");
        gradients
    }

    /// Each key/value head by itself, in these shares, with `gap` floats behind every head and `shift` before the first.
    fn run_shares(
        &self,
        kernel: &AttentionBackward,
        shares: &[Share],
        gap: usize,
        shift: usize,
    ) -> Gradients {
        let AttentionShape { tokens, n_head, n_head_kv, head_dim, scale, causal } = self.shape;
        let (heads, wide) = (n_head / n_head_kv, head_dim + gap);
        let spread = |x: &[f32]| {
            let heads = x.chunks(head_dim).flat_map(|head| [head.to_vec(), vec![CANARY; gap]].concat());
            [vec![CANARY; shift], heads.collect()].concat()
        };
        let [mut q, mut k, mut v] = [&self.q, &self.k, &self.v].map(|x| spread(x));
        let [mut o, mut d_o] = [&self.o, &self.d_o].map(|x| spread(x));
        let mut out = self.gradients().map(|x| spread(&x));
        let mut scratch = self.scratch(kernel);
        for kv in 0..n_head_kv {
            let rows = |x: &mut [f32], all: usize, head: usize| HeadRows {
                first: x[shift + head * wide..].as_mut_ptr(),
                token_stride: all * wide,
                head_stride: wide,
            };
            let [dq, dk, dv] = &mut out;
            let args = AttentionBackwardArgs {
                q: rows(&mut q, n_head, kv * heads),
                k: rows(&mut k, n_head_kv, kv),
                v: rows(&mut v, n_head_kv, kv),
                o: rows(&mut o, n_head, kv * heads),
                d_o: rows(&mut d_o, n_head, kv * heads),
                lse: self.lse[kv * heads * tokens..].as_ptr(),
                lse_stride: tokens,
                dq: rows(dq, n_head, kv * heads),
                dk: rows(dk, n_head_kv, kv),
                dv: rows(dv, n_head_kv, kv),
                tokens,
                heads,
                head_dim,
                scale,
                causal,
                share: Share::All,
                scratch: scratch.as_mut_ptr(),
            };
            for share in shares {
                // SAFETY: every buffer holds the rows of this head at its strides, and the scratch memory is long enough.
                unsafe { kernel.run(&AttentionBackwardArgs { share: share.clone(), ..args.clone() }) };
            }
        }
        out.map(|x| {
            assert!(x[..shift].iter().all(|&x| x == CANARY));
            let heads = x[shift..].chunks(wide);
            assert!(heads.clone().all(|head| head[head_dim..].iter().all(|&x| x == CANARY)), "gap touched");
            heads.flat_map(|head| head[..head_dim].to_vec()).collect()
        })
    }

    /// The reference's gradients, and the error that the contract allows for each element.
    fn expected(&self) -> [(Vec<f64>, Vec<f64>); 3] {
        let AttentionShape { n_head, n_head_kv, head_dim, .. } = self.shape;
        let mut all = [self.q.len(), self.k.len(), self.v.len()].map(|len| (vec![0.0; len], vec![0.0; len]));
        for h in 0..n_head {
            let d_o = head_of(&self.d_o, n_head, h, head_dim);
            let gradients = self.head(h, |head| (head.backward(&d_o), bounds(head, &d_o)));
            let places =
                [(n_head, h), (n_head_kv, h * n_head_kv / n_head), (n_head_kv, h * n_head_kv / n_head)];
            for (i, (heads, head)) in places.into_iter().enumerate() {
                for (t, row) in gradients.0[i].chunks(head_dim).enumerate() {
                    let at = (t * heads + head) * head_dim;
                    for (d, x) in row.iter().enumerate() {
                        all[i].0[at + d] += x;
                        all[i].1[at + d] += gradients.1[i][t * head_dim + d];
                    }
                }
            }
        }
        all
    }
}

/// The contract's bounds for one head, whose sums may go on over others.
fn bounds(head: &Head<'_>, d_o: &[f64]) -> [Vec<f64>; 3] {
    let (n, tokens) = (head.head_dim, head.q.len() / head.head_dim);
    let Attended { out, lse } = head.forward();
    let mut bounds = [vec![0.0; head.q.len()], vec![0.0; head.k.len()], vec![0.0; head.v.len()]];
    let terms = 8 * tokens;
    let sum = (terms as f64 + 2.0) * U;
    for i in 0..tokens {
        let row = |x: &'_ [f64], i: usize| x[i * n..(i + 1) * n].to_vec();
        let (q, g, o) = (row(head.q, i), row(d_o, i), row(&out, i));
        let both = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
        let sizes = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a * b).abs()).sum::<f64>();
        let seen = if head.causal { i + 1 } else { tokens };
        let size = |j: usize| (head.scale * sizes(&q, &row(head.k, j))).abs();
        let largest = (0..seen).map(size).fold(0.0, f64::max);
        let c = (n as f64 + 6.0) * U * largest + 4.0 * U * lse[i].abs();
        for j in 0..seen {
            let (k, v) = (row(head.k, j), row(head.v, j));
            let w = (head.scale * both(&q, &k) - lse[i]).exp();
            let difference = both(&g, &v) - both(&g, &o);
            let t = (w * difference * head.scale).abs();
            let w_off = (c + 3.0 * U) * w + 2f64.powi(-126);
            let rounded = (n as f64 + 4.0) * U * (sizes(&g, &v) + sizes(&g, &o));
            let t_off = head.scale.abs() * w * ((c + 8.0 * U) * difference.abs() + rounded);
            let [dq, dk, dv] = &mut bounds;
            for d in 0..n {
                dq[i * n + d] += (t_off + sum * t) * k[d].abs();
                dk[j * n + d] += (t_off + sum * t) * q[d].abs();
                dv[j * n + d] += (w_off + sum * w) * g[d].abs();
            }
        }
    }
    bounds
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for causal in [true, false] {
        for tokens in [1, 2, 5, 6, 7, 15, 16, 17, 31, 33, 63, 65] {
            cases.push(Case::new([tokens, 2, 1, 8], causal));
        }
        for head_dim in [1, 3, 7, 12, 16, 17, 40, 64, 80] {
            cases.push(Case::new([37, 2, 2, head_dim], causal));
        }
        for tokens in [95, 97, 127, 128, 129, 193, 260] {
            cases.push(Case::new([tokens, 3, 1, 20], causal));
        }
        cases.push(Case::new([140, 4, 2, 64], causal));
    }
    cases
}

#[test]
fn it_stays_within_its_bound() {
    for case in cases() {
        let expected = case.expected();
        for (isa, set) in sets() {
            let got = case.run(&set.attention);
            for (name, got, (want, bounds)) in
                [("dq", &got[0], &expected[0]), ("dk", &got[1], &expected[1]), ("dv", &got[2], &expected[2])]
            {
                for (i, (&got, (want, bound))) in got.iter().zip(want.iter().zip(bounds)).enumerate() {
                    let error = (f64::from(got) - want).abs();
                    assert!(error <= *bound, "{isa:?} {:?}, {name}[{i}]: {got} for {want}", case.shape);
                }
            }
        }
    }
}

/// The reference is the slope of attention: central differences in f64.
#[test]
fn the_gradient_is_the_slope_of_attention() {
    for causal in [true, false] {
        let case = Case::new([6, 1, 1, 5], causal);
        let d_o = head_of(&case.d_o, 1, 0, 5);
        case.head(0, |head| {
            let loss = |head: &Head<'_>| -> f64 {
                head.forward().out.iter().zip(&d_o).map(|(o, d_o)| o * d_o).sum()
            };
            let gradients = head.backward(&d_o);
            for (which, gradient) in gradients.iter().enumerate() {
                let x = [head.q, head.k, head.v][which];
                for (i, gradient) in gradient.iter().enumerate() {
                    let moved = |by: f64| {
                        let mut x = x.to_vec();
                        x[i] += by;
                        let [q, k, v] = match which {
                            0 => [&x, head.k, head.v],
                            1 => [head.q, &x, head.v],
                            _ => [head.q, head.k, &x],
                        };
                        loss(&Head { q, k, v, ..*head })
                    };
                    let slope = (moved(1e-5) - moved(-1e-5)) / 2e-5;
                    assert!((slope - gradient).abs() < 1e-8, "{which}, {i}: {slope} for {gradient}");
                }
            }
        });
    }
}

#[test]
fn shares_and_places_in_memory_change_no_bit() {
    for (sizes, causal) in [([300, 4, 2, 24], true), ([150, 2, 1, 17], false), ([129, 3, 1, 16], true)] {
        let case = Case::new(sizes, causal);
        let tokens = sizes[0];
        for (isa, set) in sets() {
            let kernel = &set.attention;
            let whole = case.run(kernel).map(|x| bits(&x));
            assert_eq!(case.run_shares(kernel, &[Share::All], 3, 1).map(|x| bits(&x)), whole, "{isa:?}");
            for cuts in [&[0, tokens][..], &[0, 1, 50, 131.min(tokens), tokens], &[0, 96, 100, tokens]] {
                let ranges = || cuts.windows(2).map(|at| at[0]..at[1]);
                let shares: Vec<_> = ranges().map(Share::Queries).chain(ranges().map(Share::Keys)).collect();
                let got = case.run_shares(kernel, &shares, 0, 0).map(|x| bits(&x));
                assert_eq!(got, whole, "{isa:?} {cuts:?}");
            }
            // A share leaves the rest alone.
            let [dq, dk, dv] = case.run_shares(kernel, &[Share::Queries(7..9)], 0, 0);
            let line = sizes[1] * sizes[3];
            let outside = |x: &[f32], line: usize| {
                x.chunks(line)
                    .enumerate()
                    .all(|(t, row)| (7..9).contains(&t) || row.iter().all(|&x| x == CANARY))
            };
            assert!(outside(&dq, line) && dk.iter().chain(&dv).all(|&x| x == CANARY));
            let [dq, dk, dv] = case.run_shares(kernel, &[Share::Keys(7..9)], 0, 0);
            let line = sizes[2] * sizes[3];
            assert!(outside(&dk, line) && outside(&dv, line) && dq.iter().all(|&x| x == CANARY));
        }
    }
}

/// The sums that the forward pass keeps are the reference's, and its results those that it has without them.
#[test]
fn the_forward_pass_keeps_what_backward_needs() {
    for (sizes, causal) in [([300, 4, 2, 24], true), ([37, 2, 1, 16], false), ([1, 1, 1, 8], true)] {
        let case = Case::new(sizes, causal);
        let AttentionShape { tokens, n_head, n_head_kv, head_dim, scale, .. } = case.shape;
        let (tokens_q, tokens_kv) = (tokens, tokens);
        let shape =
            Shape { batch: 1, n_head, n_head_kv, tokens_q, tokens_kv, head_dim, scale, causal, window: None };
        let tensor = |data, heads| Tensor { data, strides: Strides::dense(tokens, heads, head_dim) };
        let (q, k, v) = (tensor(&case.q, n_head), tensor(&case.k, n_head_kv), tensor(&case.v, n_head_kv));
        let inputs = Inputs { q, k, v, mask: None, scores: ScoreOptions::default() };
        for isa in levels::here() {
            let kernel = AttentionKernels::select(isa).f32;
            let mut scratch = vec![f32::NAN; forward::scratch_len(&kernel, &shape).unwrap()];
            let strides = Strides::dense(tokens, n_head, head_dim);
            let (mut plain, mut out) = (case.o.clone(), vec![CANARY; case.o.len()]);
            forward::attention(&kernel, &shape, &inputs, &mut plain, strides, &mut scratch).unwrap();
            let mut lse = vec![CANARY; n_head * tokens];
            let kept = forward::attention_and_keep(
                &kernel,
                &shape,
                &inputs,
                (&mut out, strides),
                &mut lse,
                &mut scratch,
            );
            kept.unwrap();
            assert_eq!(bits(&out), bits(&plain));
            for (i, (got, want)) in lse.iter().zip(&case.lse).enumerate() {
                let size = (head_dim as f32 + 8.0) * 4.0 * 40.0;
                let bound = U as f32 * (size + 32.0 + tokens as f32 / 32.0 + 12.0 + 2.0 * want.abs());
                assert!((got - want).abs() <= bound, "{isa:?}: {got} for {want} at {i}");
            }
            check_rows(&case, &kernel, (&out, &lse), &mut scratch);
            let short = &mut lse[1..];
            assert!(
                forward::attention_and_keep(
                    &kernel,
                    &shape,
                    &inputs,
                    (&mut out, strides),
                    short,
                    &mut scratch
                )
                .is_err()
            );
        }
    }
}

/// Workers that take some queries of a key/value head compute the same bits.
fn check_rows(case: &Case, kernel: &forward::Kernel, (want, sums): (&[f32], &[f32]), scratch: &mut [f32]) {
    let AttentionShape { tokens, n_head, n_head_kv, head_dim, scale, causal } = case.shape;
    let heads = n_head / n_head_kv;
    let (mut out, mut lse) = (vec![CANARY; want.len()], vec![CANARY; sums.len()]);
    for kv in 0..n_head_kv {
        for range in [0..tokens / 3, tokens / 3..tokens] {
            let (line, first) = (n_head * head_dim, kv * heads * head_dim);
            let args = forward::RowsArgs {
                q: case.q[range.start * line + first..].as_ptr(),
                q_token_stride: line,
                q_head_stride: head_dim,
                k: case.k[kv * head_dim..].as_ptr(),
                k_stride: n_head_kv * head_dim,
                v: case.v[kv * head_dim..].as_ptr(),
                v_stride: n_head_kv * head_dim,
                out: out[range.start * line + first..].as_mut_ptr(),
                out_token_stride: line,
                out_head_stride: head_dim,
                log_sums: lse[kv * heads * tokens + range.start..].as_mut_ptr(),
                log_sum_stride: tokens,
                tokens_q: range.len(),
                tokens_kv: if causal { range.end } else { tokens },
                heads,
                head_dim,
                scale,
                causal,
                scratch: scratch.as_mut_ptr(),
            };
            // SAFETY: the rows lie in their slices, and the scratch memory is that of all queries.
            unsafe { kernel.run_rows(&args) };
        }
    }
    assert_eq!((bits(&out), bits(&lse)), (bits(want), bits(sums)));
}

#[test]
fn what_is_not_a_number_stays_where_it_is_seen() {
    let finite = |x: &[f32]| x.iter().all(|x| x.is_finite());
    for (isa, set) in sets() {
        let mut case = Case::new([200, 1, 1, 16], true);
        case.d_o[150 * 16 + 3] = f32::NAN;
        let [dq, dk, dv] = case.run(&set.attention);
        assert!(dq[150 * 16..151 * 16].iter().all(|x| x.is_nan()), "{isa:?}");
        assert!(finite(&dq[..150 * 16]) && finite(&dq[151 * 16..]), "{isa:?}");
        assert!(dk[..151 * 16].iter().all(|x| x.is_nan()) && finite(&dk[151 * 16..]), "{isa:?}");
        let (seen, behind) = (&dv[..151 * 16], &dv[156 * 16..]);
        assert!(
            seen.iter().enumerate().all(|(i, x)| x.is_nan() == (i % 16 == 3)) && finite(behind),
            "{isa:?}"
        );
        let mut case = Case::new([200, 1, 1, 16], true);
        case.lse[100] = f32::NAN;
        let [dq, dk, dv] = case.run(&set.attention);
        assert!(dq.iter().enumerate().all(|(i, x)| x.is_nan() == (i / 16 == 100)), "{isa:?}");
        assert!(
            dk.iter().chain(&dv).enumerate().all(|(i, x)| x.is_nan() == (i % 3200 / 16 <= 100)),
            "{isa:?}"
        );
    }
}

#[test]
fn nothing_is_nothing() {
    for (_, set) in sets() {
        for sizes in [[0, 2, 1, 8], [5, 0, 0, 8], [5, 2, 1, 0]] {
            let [tokens, n_head, n_head_kv, head_dim] = sizes;
            let shape = AttentionShape { tokens, n_head, n_head_kv, head_dim, scale: 1.0, causal: true };
            let lse = vec![0.0; tokens * n_head];
            let values = AttentionValues { q: &[], k: &[], v: &[], o: &[], d_o: &[], lse: &lse };
            let gradients = AttentionGradients { dq: &mut [], dk: &mut [], dv: &mut [] };
            let mut scratch = vec![0.0; set.attention.scratch_len(tokens, 2, head_dim).unwrap()];
            set.attention.apply(&shape, &values, gradients, &mut scratch).unwrap();
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_nothing_written() {
    let kernel = BackwardKernels::select(IsaId::detect()).attention;
    let case = Case::new([5, 4, 2, 8], true);
    let good = case.values();
    let len = case.scratch(&kernel).len();
    let refused = |shape: AttentionShape, values: &AttentionValues<'_>, scratch: usize, cut: usize| {
        let mut gradients = case.gradients();
        let [dq, dk, dv] = &mut gradients;
        let into = AttentionGradients { dq: &mut dq[cut..], dk, dv };
        let result = kernel.apply(&shape, values, into, &mut vec![0.0; scratch]);
        assert!(result.is_ok() || gradients.iter().flatten().all(|&x| x == CANARY));
        result.is_err()
    };
    assert!(!refused(case.shape, &good, len, 0));
    assert!(refused(case.shape, &good, len - 1, 0) && refused(case.shape, &good, len, 1));
    for values in [
        AttentionValues { q: &case.q[1..], ..good },
        AttentionValues { k: &case.k[1..], ..good },
        AttentionValues { v: &case.v[1..], ..good },
        AttentionValues { o: &case.o[1..], ..good },
        AttentionValues { d_o: &case.d_o[1..], ..good },
        AttentionValues { lse: &case.lse[1..], ..good },
    ] {
        assert!(refused(case.shape, &values, len, 0));
    }
    for shape in [
        AttentionShape { n_head_kv: 3, ..case.shape },
        AttentionShape { n_head_kv: 0, ..case.shape },
        AttentionShape { tokens: usize::MAX, ..case.shape },
        AttentionShape { head_dim: usize::MAX / 4, ..case.shape },
    ] {
        assert!(refused(shape, &good, len, 0), "{shape:?}");
    }
    assert_eq!(kernel.scratch_len(usize::MAX, 2, 64), None);
    assert_eq!(kernel.scratch_len(5, 2, usize::MAX), None);
}
