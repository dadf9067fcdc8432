//! Attention against the f64 reference, on every level: shapes round tile and panel edges, windows, grouped
//! heads, strides; the same bits in any batch; untouched surroundings.

use super::*;
use crate::kernels::{levels, reference};
use crate::testing::noise;
use std::ops::Range;

pub(super) const CANARY: f32 = -7777.0;
const U: f64 = 1.0 / (1u64 << 24) as f64;

/// How a result is computed.
pub(super) enum Way {
    /// In one call.
    Whole,
    /// From some parts of the sequence, in pieces of so many.
    Parts(Range<usize>, usize),
}

/// A cache of random keys and values, and queries for its last tokens.
pub(super) struct Case {
    pub tokens: usize,
    pub n_kv: usize,
    pub heads: usize,
    pub head_dim: usize,
    pub window: Option<usize>,
    pub scores: ScoreOptions<'static>,
    pub q: Vec<f32>,
    pub k: Vec<f32>,
    pub v: Vec<f32>,
}

impl Case {
    pub fn new(tokens: usize, n_kv: usize, heads: usize, head_dim: usize, window: Option<usize>) -> Self {
        let mut seed = (tokens * 31 + n_kv * 7 + heads * 3 + head_dim) as u64;
        let mut fill = |n: usize, factor: f32| (0..n).map(|_| factor * noise(&mut seed)).collect::<Vec<_>>();
        let (q, k, v) =
            (fill(tokens * heads * head_dim, 3.0), fill(n_kv * head_dim, 2.0), fill(n_kv * head_dim, 1.0));
        Self { tokens, n_kv, heads, head_dim, window, scores: ScoreOptions::default(), q, k, v }
    }

    pub fn scale(&self) -> f32 {
        1.0 / (self.head_dim as f32).sqrt()
    }

    pub fn reference(&self) -> Vec<f64> {
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
            scores: self.scores,
        };
        reference::attention(&self.q, &self.k, &self.v, &shape)
    }

    /// Keys and values as the kernel stores them, with NaN wherever nothing was stored; some are stored one by one,
    /// the others together.
    pub fn cache(&self, kernel: &Kernel) -> (Vec<u8>, Vec<u8>) {
        let (layout, head_dim) = (kernel.layout(self.head_dim), self.head_dim);
        // All bits set: NaN as f32 and as f16, and a factor that is NaN.
        let mut keys = vec![0xff; self.n_kv.div_ceil(TILE) * layout.key_tile()];
        let mut values = vec![0xff; self.n_kv.div_ceil(TILE) * layout.value_tile()];
        let single = self.n_kv / 2;
        for p in 0..single {
            let line = p * head_dim..(p + 1) * head_dim;
            kernel.store(&mut keys, &mut values, p, &self.k[line.clone()], &self.v[line]).unwrap();
        }
        self.store(kernel, tiles(&layout, &mut keys, &mut values), single..self.n_kv);
        (keys, values)
    }

    /// Stores some positions together in tiles that have pages for them.
    pub fn store(&self, kernel: &Kernel, (keys, values): (HeadTiles, HeadTiles), positions: Range<usize>) {
        let (first, head_dim) = (positions.start, self.head_dim);
        let rows = |x: &[f32]| (x[first * head_dim..][..positions.len() * head_dim].as_ptr(), head_dim);
        let ((k, stride), (v, _)) = (rows(&self.k), rows(&self.v));
        // SAFETY: the case has the positions, and the tiles have pages for them.
        unsafe {
            kernel.store_keys(head_dim, keys, first, (k, stride, positions.len()));
            kernel.store_values(head_dim, values, first, (v, stride, positions.len()));
        }
    }

    /// The case with keys and values as a cache of that type gives them back.
    pub fn stored(&self, stored: CacheType) -> Self {
        let round = |x: &[f32]| x.chunks(self.head_dim).flat_map(|row| rounded(row, stored)).collect();
        Case { q: self.q.clone(), k: round(&self.k), v: round(&self.v), ..*self }
    }

    /// The result for tokens `from..to` in one call, with `gap` floats between tokens.
    pub fn run(&self, kernel: &Kernel, from: usize, to: usize, gap: usize) -> Vec<f32> {
        self.run_over(kernel, self.cache(kernel), (from, to), gap, &Way::Whole)
    }

    /// The same, in pieces of so many parts of the sequence.
    pub fn run_in_parts(&self, kernel: &Kernel, from: usize, to: usize, length: usize) -> Vec<f32> {
        let way = Way::Parts(0..self.n_kv.div_ceil(PART), length);
        self.run_over(kernel, self.cache(kernel), (from, to), 0, &way)
    }

    /// The same over a given cache.
    fn run_over(
        &self,
        kernel: &Kernel,
        (mut keys, mut values): (Vec<u8>, Vec<u8>),
        (from, to): (usize, usize),
        gap: usize,
        way: &Way,
    ) -> Vec<f32> {
        let first = self.n_kv - self.tokens;
        let limits: Vec<u32> = (from..to).map(|t| (first + t + 1) as u32).collect();
        let window =
            self.window.map(|w| limits.iter().map(|&l| l.saturating_sub(w as u32)).collect::<Vec<_>>());
        let tiles = tiles(&kernel.layout(self.head_dim), &mut keys, &mut values);
        self.run_seeing(kernel, tiles, from, (&limits, window.as_deref()), gap, way)
    }

    /// The same for as many tokens from `from` on as there are limits, over tiles anywhere, which have pages for what
    /// the tokens see.
    pub fn run_seeing(
        &self,
        kernel: &Kernel,
        (k, v): (HeadTiles, HeadTiles),
        from: usize,
        (limits, starts): (&[u32], Option<&[u32]>),
        gap: usize,
        way: &Way,
    ) -> Vec<f32> {
        let (tokens, line) = (limits.len(), self.heads * self.head_dim);
        let mut scratch = vec![f32::NAN; kernel.scratch_len(self.head_dim, tokens * self.heads).unwrap() + 1];
        *scratch.last_mut().unwrap() = CANARY;
        let mut out = vec![CANARY; tokens * (line + gap) + 1];
        let args = AttentionArgs {
            q: self.q[from * line..].as_ptr(),
            q_token_stride: line,
            q_head_stride: self.head_dim,
            tokens,
            heads: self.heads,
            head_dim: self.head_dim,
            scale: self.scale(),
            k,
            v,
            limits: limits.as_ptr(),
            starts: starts.map_or(null(), |starts| starts.as_ptr()),
            scores: self.scores.args(0, (self.n_kv - self.tokens + from) as i64),
            ahead: tokens == 1,
            out: out.as_mut_ptr(),
            out_token_stride: line + gap,
            out_head_stride: self.head_dim,
            scratch: scratch.as_mut_ptr(),
        };
        match way {
            // SAFETY: the buffers hold all rows, and the tiles have pages for what is seen.
            Way::Whole => unsafe { kernel.run(&args) },
            Way::Parts(parts, length) => run_parts(kernel, &args, parts, *length),
        }
        assert_eq!(scratch.last(), Some(&CANARY), "scratch memory overrun");
        assert_eq!(out.pop(), Some(CANARY), "result overrun");
        let tokens = out.chunks_exact(line + gap);
        assert!(tokens.clone().all(|t| t[line..].iter().all(|&x| x == CANARY)), "gap touched");
        tokens.flat_map(|t| t[..line].to_vec()).collect()
    }

    /// The contract's bound on each output's error: scores of (head_dim + 8) roundings each, passed on by the
    /// exponential to weights and their sum; then the sums of weights and of values, the exponential itself, the
    /// rescalings, the division. |v| ≤ 1, so Σ weight·|v| ≤ 1.
    pub fn bound(&self) -> f64 {
        let largest = |x: &[f32], n: usize| {
            x.chunks(n.max(1)).map(|r| r.iter().map(|&x| f64::from(x.abs())).sum::<f64>()).fold(0.0, f64::max)
        };
        // Σ|q·k| ≤ Σ|q| · max|k|.
        let score = f64::from(self.scale()) * largest(&self.q, self.head_dim) * 2.0;
        let n = self.n_kv as f64;
        let (slope, sink) = (largest_finite(self.scores.slopes), largest_finite(self.scores.sinks));
        let each = self.head_dim as f64 + if self.scores.soft_cap > 0.0 { 20.0 } else { 8.0 };
        let scores = 2.0 * each * (score + slope * n).max(sink);
        let joins = 32.0 + if sink > 0.0 { 8.0 } else { 0.0 };
        (scores + 2.0 * n + 8.0 * n / TILE as f64 + joins) * U
    }
}

/// The largest magnitude; 0 without a list.
pub(super) fn largest_finite(list: Option<&[f32]>) -> f64 {
    let finite = list.into_iter().flatten().filter(|x| x.is_finite());
    finite.fold(0.0, |most, x| most.max(f64::from(x.abs())))
}

/// Computes some parts of the sequence in pieces, the last piece first, and joins them.
fn run_parts(kernel: &Kernel, args: &AttentionArgs, parts: &Range<usize>, length: usize) {
    let len = kernel.part_len(args.head_dim, args.tokens * args.heads).unwrap();
    let mut room = vec![f32::NAN; parts.len().max(1) * len + 1];
    *room.last_mut().unwrap() = CANARY;
    let to = room.as_mut_ptr();
    // SAFETY: as in `run_seeing`; each part has its room.
    unsafe {
        for begin in parts.clone().step_by(length).rev() {
            let piece = begin..parts.end.min(begin + length);
            kernel.run_parts(args, piece, to.add((begin - parts.start) * len));
        }
        kernel.join_parts(args, to, parts.len());
    }
    assert_eq!(room.last(), Some(&CANARY), "parts overrun");
}

/// A row as a cache gives it back.
fn rounded(row: &[f32], stored: CacheType) -> Vec<f32> {
    let bytes = |run: &[f32]| {
        let largest = run.iter().fold(0.0f32, |most, x| most.max(x.abs()));
        let scale = largest / 127.0;
        let normal = scale >= f32::MIN_POSITIVE;
        let level = |&x: &f32| if normal { (x * (127.0 / largest)).round_ties_even() * scale } else { 0.0 };
        run.iter().map(level).collect::<Vec<_>>()
    };
    match stored {
        CacheType::F32 => row.to_vec(),
        CacheType::F16 => row.iter().map(|&x| half::f16::from_f32(x).to_f32()).collect(),
        CacheType::Q8_0 => row.chunks(64).flat_map(bytes).collect(),
    }
}

pub(super) fn kernels_here() -> impl Iterator<Item = Kernel> {
    levels::here().flat_map(|isa| CacheType::ALL.map(|stored| *AttentionKernels::select(isa).of(stored)))
}

/// A head's tiles, which adjoin.
pub(super) fn tiles(layout: &Layout, keys: &mut [u8], values: &mut [u8]) -> (HeadTiles, HeadTiles) {
    let keys = HeadTiles { first: keys.as_mut_ptr(), stride: layout.key_tile(), table: null() };
    (keys, HeadTiles { first: values.as_mut_ptr(), stride: layout.value_tile(), table: null() })
}

pub(super) fn name(kernel: &Kernel) -> String {
    format!("{} {}", kernel.info.isa.name(), kernel.info.dtype)
}

pub(super) fn bits(x: &[f32]) -> Vec<u32> {
    x.iter().map(|x| x.to_bits()).collect()
}

fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for head_dim in [1, 4, 5, 16, 31, 33, 64, 80, 136] {
        for n_kv in [1, 2, 15, 16, 17, 31, 33, 127, 128, 129, 255, 256, 257, 300, 520] {
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
        let wanted = CacheType::ALL.map(|stored| case.stored(stored).reference());
        for kernel in kernels_here() {
            let want = &wanted[kernel.stored as usize];
            let got = case.run(&kernel, 0, case.tokens, 3);
            for (got, want) in got.iter().zip(want) {
                let error = (f64::from(*got) - want).abs();
                assert!(
                    error <= case.bound(),
                    "{}: {} tokens, {} keys, {} heads of {}, window {:?}: {got} for {want}",
                    name(&kernel),
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
    let kernel = kernels_here().next().unwrap();
    let shifted = Case { tokens: 1, q: case.q[..64].to_vec(), ..Case::new(2, 20, 1, 64, None) };
    let got = shifted.run(&kernel, 0, 1, 0);
    let worst = got.iter().zip(&want).map(|(&g, w)| (f64::from(g) - w).abs()).fold(0.0, f64::max);
    assert!(worst > case.bound(), "{worst} is within {}", case.bound());
}

#[test]
fn a_token_has_the_same_bits_alone_and_in_a_batch() {
    for window in [None, Some(150)] {
        let case = Case::new(60, 600, 3, 48, window);
        for kernel in kernels_here() {
            let together = case.run(&kernel, 0, 60, 0);
            let line = case.heads * case.head_dim;
            for (from, to) in [(0, 1), (1, 2), (13, 30), (59, 60)] {
                let part = case.run(&kernel, from, to, 0);
                assert_eq!(bits(&part), bits(&together[from * line..to * line]), "{}", name(&kernel));
            }
        }
    }
}

#[test]
fn equal_scores_average_the_values_exactly() {
    // Queries of 0 weigh every key 1; sums of small integers over a power of two of keys are exact.
    for kernel in kernels_here() {
        for n_kv in [1, 2, 16, 128, 256] {
            let mut case = Case::new(1, n_kv, 2, 8, None);
            case.q.fill(0.0);
            case.v.iter_mut().enumerate().for_each(|(i, v)| *v = ((i * 7) % 23) as f32 - 11.0);
            // Bytes hold these exactly where 127 is the largest of each value.
            case.v.iter_mut().step_by(8).for_each(|v| *v = 127.0);
            let got = case.run(&kernel, 0, 1, 1);
            for (d, got) in got.iter().enumerate() {
                let sum: f32 = case.v.chunks(8).map(|v| v[d % 8]).sum();
                assert_eq!(*got, sum / n_kv as f32, "{}: {n_kv} keys", name(&kernel));
            }
        }
    }
}

#[test]
fn what_a_row_does_not_see_or_see_as_nan() {
    for kernel in kernels_here() {
        let case = Case::new(1, 20, 1, 16, Some(0));
        assert!(case.run(&kernel, 0, 1, 0).iter().all(|&x| x == 0.0), "a row that sees nothing");
        let mut case = Case::new(3, 140, 1, 16, None);
        case.k[139 * 16] = f32::NAN;
        let got = case.run(&kernel, 0, 3, 0);
        assert!(got[..32].iter().all(|x| x.is_finite()), "{}: a later key's NaN shows", name(&kernel));
        assert!(got[32..].iter().all(|x| x.is_nan()), "{}: a NaN is lost", name(&kernel));
        let empty = Case::new(0, 5, 1, 16, None);
        assert!(empty.run(&kernel, 0, 0, 0).is_empty());
    }
}

/// A type differs from f32 by what it rounds when it stores, and by nothing else: rows that read it as it is
/// stored, and those for which it is widened, have the bits of an f32 cache of the rounded numbers.
#[test]
fn storage_rounds_and_arithmetic_does_not_change() {
    for head_dim in [1, 5, 16, 31, 64, 65, 80, 96, 128, 200] {
        for (tokens, n_kv, heads) in [(1, 300, 1), (1, 130, 3), (2, 77, 4), (5, 290, 7), (20, 270, 1)] {
            let case = Case::new(tokens, n_kv, heads, head_dim, None);
            for kernel in kernels_here().filter(|kernel| kernel.stored != CacheType::F32) {
                let exact = AttentionKernels::select(kernel.info.isa).f32;
                let want = case.stored(kernel.stored).run(&exact, 0, tokens, 0);
                let got = case.run(&kernel, 0, tokens, 0);
                assert_eq!(bits(&got), bits(&want), "{}: {n_kv} keys, {heads} of {head_dim}", name(&kernel));
            }
        }
    }
}

/// The contract's bounds on what storing a number costs.
#[test]
fn storage_keeps_its_bounds() {
    let mut seed = 5;
    for magnitude in [1e-37f32, 1e-9, 3e-5, 1.0, 1e3, 6e4] {
        let row: Vec<f32> = (0..200).map(|_| magnitude * noise(&mut seed)).collect();
        for (x, got) in row.iter().zip(rounded(&row, CacheType::F16)) {
            let error = (f64::from(*x) - f64::from(got)).abs();
            assert!(error <= (f64::from(x.abs()) / 2048.0).max(1.0 / (1u64 << 25) as f64), "{x}: {got}");
        }
        for (run, got) in row.chunks(64).zip(rounded(&row, CacheType::Q8_0).chunks(64)) {
            let largest = run.iter().fold(0.0, |most: f64, &x| most.max(f64::from(x.abs())));
            let bound = largest / 254.0 * (1.0 + 1.0 / 16384.0) + 127.0 * f64::from(f32::MIN_POSITIVE);
            for (x, got) in run.iter().zip(got) {
                assert!((f64::from(*x) - f64::from(*got)).abs() <= bound, "{x}: {got}");
            }
        }
    }
}

#[test]
fn parts_of_the_sequence_join_to_the_same_bits() {
    for (n_kv, heads, head_dim) in [(1, 1, 8), (256, 3, 64), (257, 3, 64), (900, 3, 64), (1300, 9, 80)] {
        for tokens in [1, 3] {
            if tokens > n_kv {
                continue;
            }
            let case = Case::new(tokens, n_kv, heads, head_dim, None);
            for kernel in kernels_here() {
                let want = case.run(&kernel, 0, tokens, 0);
                for length in [1, 2, 3, 100] {
                    let got = case.run_in_parts(&kernel, 0, tokens, length);
                    assert_eq!(bits(&got), bits(&want), "{}: {n_kv} keys by {length} parts", name(&kernel));
                }
            }
        }
    }
}

/// Old entries leave nothing behind: neither numbers, nor factors, nor NaN.
#[test]
fn entries_are_overwritten() {
    let (old, new) = (Case::new(1, 300, 2, 80, None), Case::new(1, 170, 2, 80, None));
    for kernel in kernels_here() {
        let (mut keys, mut values) = old.cache(&kernel);
        let poison = vec![f32::NAN; 80];
        for p in 0..170 {
            kernel.store(&mut keys, &mut values, p, &poison, &poison).unwrap();
        }
        for (p, (k, v)) in new.k.chunks(80).zip(new.v.chunks(80)).enumerate() {
            kernel.store(&mut keys, &mut values, p, k, v).unwrap();
        }
        let want = new.run(&kernel, 0, 1, 0);
        let got = new.run_over(&kernel, (keys, values), (0, 1), 0, &Way::Whole);
        assert_eq!(bits(&got), bits(&want), "{}", name(&kernel));
    }
}

#[test]
fn what_is_not_finite_is_not_hidden_by_rounding() {
    for kernel in kernels_here() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            // A value of that kind reaches its own element at least.
            let mut case = Case::new(1, 300, 2, 70, None);
            case.v[200 * 70 + 66] = bad;
            let got = case.run(&kernel, 0, 1, 0);
            assert!(!got[66].is_finite() && !got[70 + 66].is_finite(), "{}: {bad}", name(&kernel));
            assert!(
                got[..64].iter().all(|x| x.is_finite()),
                "{}: other runs are as they were",
                name(&kernel)
            );
        }
        // Too large for half floats: ∞, which makes the score NaN or leaves the key out.
        let mut case = Case::new(1, 20, 1, 16, None);
        (case.k[16], case.q[0]) = (1e30, 1.0);
        let all_finite = case.run(&kernel, 0, 1, 0).iter().all(|x| x.is_finite());
        assert_eq!(all_finite, kernel.stored != CacheType::F16, "{}", name(&kernel));
        // Tiny runs, denormals and −0 are numbers like others.
        let mut case = Case::new(1, 20, 1, 16, None);
        case.k[..16].fill(1e-40);
        case.v[..16].fill(-0.0);
        case.k[16..32].fill(0.0);
        assert!(case.run(&kernel, 0, 1, 0).iter().all(|x| x.is_finite()), "{}", name(&kernel));
    }
}

#[test]
fn positions_outside_the_cache_are_refused() {
    for kernel in kernels_here() {
        let layout = kernel.layout(8);
        let mut keys = vec![0; layout.key_tile()];
        let mut values = vec![0; 2 * layout.value_tile()];
        let mut store = |position, key: &[f32], value: &[f32]| {
            kernel.store(&mut keys, &mut values, position, key, value).is_ok()
        };
        assert!(store(15, &[0.0; 8], &[0.0; 8]));
        assert!(!store(TILE, &[0.0; 8], &[0.0; 8]));
        assert!(!store(usize::MAX, &[0.0; 8], &[0.0; 8]));
        assert!(!store(15, &[0.0; 8], &[0.0; 7]));
        assert!(
            kernel.layout(usize::MAX).tile_bytes().is_none()
                && kernel.layout(usize::MAX / 32).tile_bytes().is_none()
        );
    }
}
