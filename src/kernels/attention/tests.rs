//! Attention against the f64 reference, on every level: shapes round tile and panel edges, windows, grouped
//! heads, strides; the same bits in any batch; untouched surroundings.

use super::*;
use crate::kernels::reference;

const CANARY: f32 = -7777.0;
const U: f64 = 1.0 / (1u64 << 24) as f64;

/// A cache of random keys and values, and queries for its last tokens.
struct Case {
    tokens: usize,
    n_kv: usize,
    heads: usize,
    head_dim: usize,
    window: Option<usize>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

/// Uniform in −1..1, the same on every run.
pub(super) fn noise(seed: &mut u64) -> f32 {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*seed >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

impl Case {
    fn new(tokens: usize, n_kv: usize, heads: usize, head_dim: usize, window: Option<usize>) -> Self {
        let mut seed = (tokens * 31 + n_kv * 7 + heads * 3 + head_dim) as u64;
        let mut fill = |n: usize, factor: f32| (0..n).map(|_| factor * noise(&mut seed)).collect::<Vec<_>>();
        let (q, k, v) =
            (fill(tokens * heads * head_dim, 3.0), fill(n_kv * head_dim, 2.0), fill(n_kv * head_dim, 1.0));
        Self { tokens, n_kv, heads, head_dim, window, q, k, v }
    }

    fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    fn reference(&self) -> Vec<f64> {
        let shape = reference::Attention {
            n_q: self.tokens,
            n_kv: self.n_kv,
            n_head: self.heads,
            n_head_kv: 1,
            head_dim: self.head_dim,
            scale: f64::from(self.scale()),
            causal: true,
            window: self.window,
            mask: None,
        };
        reference::attention(&self.q, &self.k, &self.v, &shape)
    }

    /// Keys and values in the row's layout, with NaN wherever nothing was stored.
    fn cache(&self, row: &Row) -> (Vec<f32>, Vec<f32>) {
        let layout = row.layout(self.head_dim);
        let mut keys = vec![f32::NAN; layout.key_len(self.n_kv).unwrap()];
        let mut values = vec![f32::NAN; layout.value_len(self.n_kv).unwrap()];
        for p in 0..self.n_kv {
            let line = p * self.head_dim..(p + 1) * self.head_dim;
            layout.store_key(&mut keys, p, &self.k[line.clone()]).unwrap();
            layout.store_value(&mut values, p, &self.v[line]).unwrap();
        }
        (keys, values)
    }

    /// The result for tokens `from..to` in one call, with `gap` floats between tokens.
    fn run(&self, row: &Row, from: usize, to: usize, gap: usize) -> Vec<f32> {
        let (keys, values) = self.cache(row);
        let line = self.heads * self.head_dim;
        let first = self.n_kv - self.tokens;
        let limits: Vec<u32> = (from..to).map(|t| (first + t + 1) as u32).collect();
        let window =
            self.window.map(|w| limits.iter().map(|&l| l.saturating_sub(w as u32)).collect::<Vec<_>>());
        let mut scratch =
            vec![f32::NAN; row.scratch_len(self.head_dim, (to - from) * self.heads).unwrap() + 1];
        *scratch.last_mut().unwrap() = CANARY;
        let mut out = vec![CANARY; (to - from) * (line + gap) + 1];
        let args = AttentionArgs {
            q: self.q[from * line..].as_ptr(),
            q_token_stride: line,
            q_head_stride: self.head_dim,
            tokens: to - from,
            heads: self.heads,
            head_dim: self.head_dim,
            scale: self.scale(),
            k: keys.as_ptr(),
            v: values.as_ptr(),
            limits: limits.as_ptr(),
            starts: window.as_ref().map_or(std::ptr::null(), |w| w.as_ptr()),
            ahead: to - from == 1,
            out: out.as_mut_ptr(),
            out_token_stride: line + gap,
            out_head_stride: self.head_dim,
            scratch: scratch.as_mut_ptr(),
        };
        // SAFETY: every buffer is as long as the contract asks; the rows of available levels only get here.
        unsafe { row.run(&args) };
        assert_eq!(scratch.last(), Some(&CANARY), "scratch memory overrun");
        assert_eq!(out.pop(), Some(CANARY), "result overrun");
        let tokens = out.chunks_exact(line + gap);
        assert!(tokens.clone().all(|t| t[line..].iter().all(|&x| x == CANARY)), "gap touched");
        tokens.flat_map(|t| t[..line].to_vec()).collect()
    }

    /// The contract's bound on each output's error: scores of (head_dim + 8) roundings each, passed on by the
    /// exponential to weights and their sum; then the sums of weights and of values, the exponential itself, the
    /// rescalings, the division. |v| ≤ 1, so Σ weight·|v| ≤ 1.
    fn bound(&self) -> f64 {
        let largest = |x: &[f32], n: usize| {
            x.chunks(n.max(1)).map(|r| r.iter().map(|&x| f64::from(x.abs())).sum::<f64>()).fold(0.0, f64::max)
        };
        // Σ|q·k| ≤ Σ|q| · max|k|.
        let score = f64::from(self.scale()) * largest(&self.q, self.head_dim) * 2.0;
        let n = self.n_kv as f64;
        let scores = 2.0 * (self.head_dim as f64 + 8.0) * score;
        (scores + 2.0 * n + 4.0 * n / TILE as f64 + 32.0) * U
    }
}

fn rows_here() -> impl Iterator<Item = Row> {
    IsaId::available().map(|isa| Set::select(isa).f32)
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for head_dim in [1, 4, 5, 16, 31, 33, 64, 80] {
        for n_kv in [1, 2, 15, 16, 17, 31, 33, 127, 128, 129, 255, 300] {
            for (tokens, heads) in [(1, 1), (1, 3), (2, 2), (7, 4), (40, 1)] {
                if tokens <= n_kv {
                    cases.push(Case::new(tokens, n_kv, heads, head_dim, None));
                }
            }
        }
    }
    for window in [1, 2, 100, 128, 129, 250] {
        cases.push(Case::new(30, 300, 2, 64, Some(window)));
    }
    cases
}

#[test]
fn it_agrees_with_the_reference() {
    for case in cases() {
        let want = case.reference();
        for row in rows_here() {
            let got = case.run(&row, 0, case.tokens, 3);
            for (got, want) in got.iter().zip(&want) {
                let error = (f64::from(*got) - want).abs();
                assert!(
                    error <= case.bound(),
                    "{}: {} tokens, {} keys, {} heads of {}, window {:?}: {got} for {want}",
                    row.info.isa.name(),
                    case.tokens,
                    case.n_kv,
                    case.heads,
                    case.head_dim,
                    case.window
                );
            }
        }
    }
}

#[test]
fn the_bound_would_catch_one_key_too_many() {
    // The planted fault: the last but one token sees the last key too.
    let case = Case::new(2, 20, 1, 64, None);
    let want = case.reference();
    let row = rows_here().next().unwrap();
    let shifted = Case { tokens: 1, q: case.q[..64].to_vec(), ..Case::new(2, 20, 1, 64, None) };
    let got = shifted.run(&row, 0, 1, 0);
    let worst = got.iter().zip(&want).map(|(&g, w)| (f64::from(g) - w).abs()).fold(0.0, f64::max);
    assert!(worst > case.bound(), "{worst} is within {}", case.bound());
}

#[test]
fn a_token_has_the_same_bits_alone_and_in_a_batch() {
    for window in [None, Some(150)] {
        let case = Case::new(60, 300, 3, 48, window);
        for row in rows_here() {
            let together = case.run(&row, 0, 60, 0);
            let line = case.heads * case.head_dim;
            for (from, to) in [(0, 1), (1, 2), (13, 30), (59, 60)] {
                let part = case.run(&row, from, to, 0);
                let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&part), bits(&together[from * line..to * line]), "{}", row.info.isa.name());
            }
        }
    }
}

#[test]
fn equal_scores_average_the_values_exactly() {
    // Queries of 0 weigh every key 1; sums of small integers over a power of two of keys are exact.
    for row in rows_here() {
        for n_kv in [1, 2, 16, 128, 256] {
            let mut case = Case::new(1, n_kv, 2, 8, None);
            case.q.fill(0.0);
            case.v.iter_mut().enumerate().for_each(|(i, v)| *v = ((i * 7) % 23) as f32 - 11.0);
            let got = case.run(&row, 0, 1, 1);
            for (d, got) in got.iter().enumerate() {
                let sum: f32 = case.v.chunks(8).map(|v| v[d % 8]).sum();
                assert_eq!(*got, sum / n_kv as f32, "{}: {n_kv} keys", row.info.isa.name());
            }
        }
    }
}

#[test]
fn what_a_row_does_not_see_or_see_as_nan() {
    for row in rows_here() {
        let case = Case::new(1, 20, 1, 16, Some(0));
        assert!(case.run(&row, 0, 1, 0).iter().all(|&x| x == 0.0), "a row that sees nothing");
        let mut case = Case::new(3, 140, 1, 16, None);
        case.k[139 * 16] = f32::NAN;
        let got = case.run(&row, 0, 3, 0);
        assert!(got[..32].iter().all(|x| x.is_finite()), "{}: a later key's NaN shows", row.info.isa.name());
        assert!(got[32..].iter().all(|x| x.is_nan()), "{}: a NaN is lost", row.info.isa.name());
        let empty = Case::new(0, 5, 1, 16, None);
        assert!(empty.run(&row, 0, 0, 0).is_empty());
    }
}

#[test]
fn positions_outside_the_cache_are_refused() {
    let layout = Layout { head_dim: 8, nr: 16, value_step: 8 };
    let (mut keys, mut values) =
        (vec![0.0; layout.key_len(16).unwrap()], vec![0.0; layout.value_len(TILE).unwrap()]);
    assert!(layout.store_key(&mut keys, 16, &[0.0; 8]).is_err());
    assert!(layout.store_key(&mut keys, 15, &[0.0; 7]).is_err());
    assert!(layout.store_key(&mut keys, usize::MAX, &[0.0; 8]).is_err());
    assert!(layout.store_value(&mut values, TILE, &[0.0; 8]).is_err());
    assert!(layout.store_value(&mut values, usize::MAX, &[0.0; 8]).is_err());
    assert!(layout.key_len(usize::MAX).is_none() && layout.value_len(usize::MAX / 2).is_none());
}
