//! ALiBi's slopes, and slopes and sinks of the right heads at the right positions, however workers share the attention.

use super::*;
use crate::isa::IsaId;
use crate::kernels::attention::{AttentionKernels, TILE};
use crate::kernels::reference;
use crate::memory::AlignedBuf;
use crate::testing::noise_vec;
use crate::threads::Team;

const SHAPE: HeadShape = HeadShape { n_head: 6, n_head_kv: 2, head_dim: 24 };
const SCALE: f32 = 0.25;
const SCORES: ScoreOptions<'static> = ScoreOptions {
    soft_cap: 2.0,
    slopes: Some(&[0.5, 0.25, 0.125, 0.0625, 0.031_25, 0.015_625]),
    sinks: Some(&[1.0, -2.0, f32::NEG_INFINITY, 3.0, 0.5, -0.5]),
};

#[test]
fn slopes_are_those_of_the_paper() {
    let slopes = |n_head, most| alibi_slopes(n_head, most).collect::<Vec<_>>();
    assert_eq!(slopes(8, 8.0), [0.5, 0.25, 0.125, 0.0625, 0.031_25, 0.015_625, 0.007_812_5, 0.003_906_25]);
    assert_eq!(slopes(1, 8.0), [0.003_906_25]);
    assert!(slopes(0, 8.0).is_empty());
    // Of 6 heads, the last two lie between those of 4: the odd ones of 8 heads.
    for (got, wanted) in slopes(6, 8.0).iter().zip([-2.0f32, -4.0, -6.0, -8.0, -1.0, -3.0]) {
        assert!((got / wanted.exp2() - 1.0).abs() < 1e-6, "{got}");
    }
}

/// Rows of queries, keys and values of a whole sequence.
fn rows(n: usize) -> Vec<f32> {
    noise_vec(n * (SHAPE.n_head + 2 * SHAPE.n_head_kv) * SHAPE.head_dim, 7)
}

/// Columns `begin .. begin + width` of the rows from `first` on.
fn columns(qkv: &[f32], n: usize, first: usize, begin: usize, width: usize) -> Vec<f32> {
    qkv.chunks(qkv.len() / n).skip(first).flat_map(|row| row[begin..begin + width].to_vec()).collect()
}

/// The results of the last `tokens` of `n` positions, computed by some threads.
fn attend(qkv: &mut [f32], n: usize, tokens: usize, threads: usize) -> Vec<f32> {
    let kernel = &AttentionKernels::select(IsaId::detect()).f32;
    let (layout, width, q_width) =
        (kernel.layout(SHAPE.head_dim), qkv.len() / n, SHAPE.n_head * SHAPE.head_dim);
    let head = layout.key_tile() + layout.value_tile();
    let pages = n.div_ceil(TILE);
    let mut room = vec![0u8; pages * SHAPE.n_head_kv * head];
    let table: Vec<u32> = (0..pages as u32).collect();
    let cache = LayerCache {
        first: room.as_mut_ptr(),
        head_stride: head,
        page_stride: SHAPE.n_head_kv * head,
        table: table.as_ptr(),
        layout,
    };
    let mut out = AlignedBuf::zeroed(tokens * q_width * 4, "a test").unwrap();
    let first = out.as_mut_slice::<f32>().as_mut_ptr();
    // SAFETY: the slices hold so many rows; heads have no more alignment than floats. Each worker writes results of its own.
    let (all, results) = unsafe {
        (Rows::new(qkv.as_mut_ptr().cast(), 4 * width, n), Rows::new(first.cast(), 4 * q_width, tokens))
    };
    let heads = || 0..SHAPE.n_head_kv;
    let whole = SpanRows { rows: 0..n, position: 0 };
    // SAFETY: the cache has pages for all positions, and the rows hold all heads.
    unsafe { store(kernel, &cache, &whole, all, &SHAPE, (heads(), heads())) };
    let limits: Vec<u32> = (n - tokens..n).map(|position| position as u32 + 1).collect();
    let parts =
        Parts::new(Parts::bytes(kernel, &SHAPE, n, threads).unwrap(), SHAPE.n_head_kv, n, threads).unwrap();
    let spans = [SpanRows { rows: 0..tokens, position: n - tokens }];
    let (team, counter) = (Team::new(threads).unwrap(), WorkCounter::new());
    let cache = AtomicCache(cache);
    let queries = all.skip(n - tokens);
    team.run(|worker| {
        let mut scratch = vec![0.0f32; scratch_len(kernel, &SHAPE).unwrap()];
        let args = Args {
            qkv: queries,
            out: results,
            spans: &spans,
            cache: |_| cache.get(),
            shape: SHAPE,
            limits: &limits,
            starts: None,
            scale: SCALE,
            scores: SCORES,
            parts: &parts,
        };
        // SAFETY: rows, cache, parts and scratch memory are as long as the shape asks.
        unsafe { run(kernel, worker, &counter, &args, scratch.as_mut_ptr()) };
    })
    .unwrap();
    out.as_slice::<f32>()[..tokens * q_width].to_vec()
}

/// A cache that workers only read.
struct AtomicCache(LayerCache);

impl AtomicCache {
    fn get(&self) -> LayerCache {
        self.0
    }
}

// SAFETY: addresses and numbers; workers only read what stands there.
unsafe impl Sync for AtomicCache {}

#[test]
fn heads_have_their_own_slopes_and_sinks_on_any_number_of_threads() {
    let (q_width, kv_width) = (SHAPE.n_head * SHAPE.head_dim, SHAPE.n_head_kv * SHAPE.head_dim);
    for (n, tokens) in [(700, 1), (256, 1), (90, 90), (300, 41)] {
        let mut qkv = rows(n);
        let shape = reference::Attention {
            n_q: tokens,
            n_kv: n,
            n_head: SHAPE.n_head,
            n_head_kv: SHAPE.n_head_kv,
            head_dim: SHAPE.head_dim,
            scale: f64::from(SCALE),
            causal: true,
            window: None,
            mask: None,
            scores: SCORES,
        };
        let (q, k) = (columns(&qkv, n, n - tokens, 0, q_width), columns(&qkv, n, 0, q_width, kv_width));
        let v = columns(&qkv, n, 0, q_width + kv_width, kv_width);
        let wanted = reference::attention(&q, &k, &v, &shape);
        let alone = attend(&mut qkv, n, tokens, 1);
        let off = alone.iter().zip(&wanted).map(|(&a, b)| (f64::from(a) - b).abs()).fold(0.0, f64::max);
        // Distances of up to 700 at a slope of ½ make scores of up to 350, with an error of 350 · 32 · 2⁻²⁴.
        assert!(off < 7e-4, "{tokens} of {n}: {off:e}");
        for threads in [2, 3, 5] {
            let shared = attend(&mut qkv, n, tokens, threads);
            assert!(alone.iter().zip(&shared).all(|(a, b)| a.to_bits() == b.to_bits()), "{tokens} of {n}");
        }
    }
}
