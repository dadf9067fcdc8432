//! Attention for direct callers: queries, keys and values in plain slices with strides, checked, and a mask.
//! Keys and values are packed tile by tile into scratch memory of the caller, so nothing is allocated.

use super::pass::{self, Call, Sight, Source};
use super::scratch;
use super::steps::HeadRows;
use super::{Kernel, ScoreArgs, ScoreOptions};
use crate::error::{Error, Result};
use std::ptr::null_mut;

/// Floats between neighbours in a tensor; the elements of a head adjoin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Strides {
    /// From one sequence of the batch to the next.
    pub batch: usize,
    /// From one token to the next.
    pub token: usize,
    /// From one head to the next.
    pub head: usize,
}

impl Strides {
    /// Those of `[batch][tokens][heads][head_dim]` without gaps.
    pub const fn dense(tokens: usize, heads: usize, head_dim: usize) -> Self {
        let token = heads.saturating_mul(head_dim);
        Self { batch: tokens.saturating_mul(token), token, head: head_dim }
    }
}

/// The sizes of a computation, and the keys that each query sees.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Sequences.
    pub batch: usize,
    /// Query heads; query head h reads key/value head `h / (n_head / n_head_kv)`.
    pub n_head: usize,
    /// Key/value heads, of which the query heads are a multiple.
    pub n_head_kv: usize,
    /// Queries of a sequence, which stand at its end: query i at position i + tokens_kv − tokens_q.
    pub tokens_q: usize,
    /// Keys of a sequence, below 2³².
    pub tokens_kv: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Factor on the scores, usually 1/√head_dim.
    pub scale: f32,
    /// A query sees no key past its own position.
    pub causal: bool,
    /// A query sees no key but the last so many up to its own position, and those past it unless `causal`.
    pub window: Option<usize>,
}

impl Shape {
    /// Floating-point operations: two products for each key that a query sees.
    pub fn flops(&self) -> u64 {
        let sight = self.sight();
        let seen = (0..self.tokens_q).map(|token| sight.of(token).len() as u64).sum::<u64>();
        let sizes = [self.batch, self.n_head, self.head_dim];
        sizes.iter().fold(seen.saturating_mul(4), |flops, &n| flops.saturating_mul(n as u64))
    }

    fn sight(&self) -> Sight {
        let window = self.window.unwrap_or(usize::MAX);
        Sight::Placed { tokens: self.tokens_q, keys: self.tokens_kv, causal: self.causal, window }
    }
}

/// Elements and their places.
#[derive(Clone, Copy, Debug)]
pub struct Tensor<'a> {
    /// The elements.
    pub data: &'a [f32],
    /// The distances between them; 0 where all share one place.
    pub strides: Strides,
}

/// The inputs of [`attention`].
#[derive(Clone, Copy, Debug)]
pub struct Inputs<'a> {
    /// Queries.
    pub q: Tensor<'a>,
    /// Keys.
    pub k: Tensor<'a>,
    /// Values.
    pub v: Tensor<'a>,
    /// Added to the scaled scores, a row of `tokens_kv` for each query; −∞ hides a key.
    pub mask: Option<Tensor<'a>>,
    /// Further changes to the scores.
    pub scores: ScoreOptions<'a>,
}

/// Queries of one sequence, the keys and values of one key/value head, in rows, and the places of results. All strides
/// in floats; row (t, h) of Q and of the result lies `t · token_stride + h · head_stride` behind the first.
#[derive(Clone, Copy, Debug)]
#[doc(hidden)]
pub struct RowsArgs {
    /// First query row.
    pub q: *const f32,
    /// From one token's queries to the next's.
    pub q_token_stride: usize,
    /// From one head's query to the next's.
    pub q_head_stride: usize,
    /// First key.
    pub k: *const f32,
    /// From one key to the next.
    pub k_stride: usize,
    /// First value.
    pub v: *const f32,
    /// From one value to the next.
    pub v_stride: usize,
    /// First row of the result.
    pub out: *mut f32,
    /// From one token's results to the next's.
    pub out_token_stride: usize,
    /// From one head's result to the next's.
    pub out_head_stride: usize,
    /// ln Σ e^score of (t, h) is written at `log_sums + h · log_sum_stride + t`; or null.
    pub log_sums: *mut f32,
    /// From one head's to the next's.
    pub log_sum_stride: usize,
    /// Queries, which stand at the end of the keys: query i at position i + tokens_kv − tokens_q.
    pub tokens_q: usize,
    /// Keys, below 2³².
    pub tokens_kv: usize,
    /// Query heads that share this key/value head.
    pub heads: usize,
    /// Elements of a head.
    pub head_dim: usize,
    /// Factor on the scores, usually 1/√head_dim.
    pub scale: f32,
    /// A query sees no key past its own position.
    pub causal: bool,
    /// [`scratch_len`] floats for this shape, 64-byte alignment is fastest.
    pub scratch: *mut f32,
}

impl Kernel {
    /// Computes the queries of one sequence with one key/value head in rows, as [`attention`] does.
    ///
    /// # Safety
    /// All rows that `args` names are there, with `head_dim` floats each, places for the sums where these are not null,
    /// and the scratch memory. The result overlaps nothing else but Q, and Q only row on row.
    #[doc(hidden)]
    pub unsafe fn run_rows(&self, args: &RowsArgs) {
        let &RowsArgs { heads, tokens_q: tokens, tokens_kv: keys, causal, .. } = args;
        let call = Call {
            queries: HeadRows {
                first: args.q.cast_mut(),
                heads,
                token_stride: args.q_token_stride,
                head_stride: args.q_head_stride,
            },
            result: HeadRows {
                first: args.out,
                heads,
                token_stride: args.out_token_stride,
                head_stride: args.out_head_stride,
            },
            log_sums: args.log_sums,
            log_sum_stride: args.log_sum_stride,
            mask: None,
            rows: tokens * heads,
            head_dim: args.head_dim,
            scale: args.scale,
            scores: ScoreArgs::NONE,
            sight: Sight::Placed { tokens, keys, causal, window: usize::MAX },
            source: Source::Plain {
                keys: args.k,
                key_stride: args.k_stride,
                values: args.v,
                value_stride: args.v_stride,
            },
            ahead: false,
            scratch: args.scratch,
        };
        // SAFETY: the caller promises all memory that `args` names.
        unsafe { pass::run(self, &call) }
    }
}

/// Floats of scratch memory that [`attention`] needs: less than 192 Ki + 400 · head_dim, whatever the other sizes are.
/// `None` on overflow.
pub fn scratch_len(kernel: &Kernel, shape: &Shape) -> Option<usize> {
    let rows = shape.tokens_q.saturating_mul(shape.n_head.checked_div(shape.n_head_kv).unwrap_or(0));
    scratch::len(kernel, shape.head_dim, rows, true)
}

/// softmax(scale · Q·Kᵀ + mask) · V for every query, with the changes of [`Inputs::scores`], as the module's contract
/// says; nothing else of `out` is written. A query that sees no key, or only ones that the mask hides, gets zeros.
///
/// # Errors
/// [`Error::InvalidArgument`] where shapes disagree, a tensor does not fit its slice, results would share their
/// place, there are too few slopes or sinks, or the scratch memory is shorter than [`scratch_len`].
pub fn attention(
    kernel: &Kernel,
    shape: &Shape,
    inputs: &Inputs<'_>,
    out: &mut [f32],
    out_strides: Strides,
    scratch: &mut [f32],
) -> Result<()> {
    compute(kernel, shape, inputs, (out, out_strides), None, scratch)
}

/// As [`attention`], and keeps ln Σ e^score of each query for a backward pass, `[batch][head][query]`; −∞ for a query
/// that sees no key.
///
/// # Errors
/// [`Error::InvalidArgument`] as [`attention`], and where `log_sums` has not one float for each query and head.
pub fn attention_and_keep(
    kernel: &Kernel,
    shape: &Shape,
    inputs: &Inputs<'_>,
    (out, out_strides): (&mut [f32], Strides),
    log_sums: &mut [f32],
    scratch: &mut [f32],
) -> Result<()> {
    let rows = shape.batch.checked_mul(shape.n_head).and_then(|heads| heads.checked_mul(shape.tokens_q));
    if rows != Some(log_sums.len()) {
        let floats = log_sums.len();
        return Err(Error::invalid(format!("{floats} floats for the sums of {shape:?}")));
    }
    compute(kernel, shape, inputs, (out, out_strides), Some(log_sums), scratch)
}

/// Checks everything and computes one key/value head after the other.
fn compute(
    kernel: &Kernel,
    shape: &Shape,
    inputs: &Inputs<'_>,
    (out, out_strides): (&mut [f32], Strides),
    log_sums: Option<&mut [f32]>,
    scratch: &mut [f32],
) -> Result<()> {
    let &Shape { batch, n_head, n_head_kv, tokens_q, tokens_kv, head_dim, .. } = shape;
    if batch == 0 || n_head == 0 || tokens_q == 0 || head_dim == 0 {
        return Ok(());
    }
    if n_head_kv == 0 || n_head % n_head_kv != 0 {
        return Err(Error::invalid(format!(
            "{n_head} query heads can't share {n_head_kv} key/value heads evenly"
        )));
    }
    if u32::try_from(tokens_kv).is_err() {
        return Err(Error::invalid(format!("{tokens_kv} keys; at most 2^32 - 1")));
    }
    let Inputs { q, k, v, mask, scores } = *inputs;
    fits("Q", q.data.len(), &q.strides, [batch, tokens_q, n_head, head_dim])?;
    fits("K", k.data.len(), &k.strides, [batch, tokens_kv, n_head_kv, head_dim])?;
    fits("V", v.data.len(), &v.strides, [batch, tokens_kv, n_head_kv, head_dim])?;
    if let Some(mask) = &mask {
        fits("the mask", mask.data.len(), &mask.strides, [batch, tokens_q, n_head, tokens_kv])?;
    }
    for (name, list) in [("slopes", scores.slopes), ("sinks", scores.sinks)] {
        let count = list.map_or(n_head, <[f32]>::len);
        if count < n_head {
            return Err(Error::invalid(format!("{count} {name} for {n_head} query heads")));
        }
    }
    fits("the result", out.len(), &out_strides, [batch, tokens_q, n_head, head_dim])?;
    check_distinct(&out_strides, [batch, tokens_q, n_head, head_dim])?;
    let needed = scratch_len(kernel, shape).unwrap_or(usize::MAX);
    if scratch.len() < needed {
        return Err(Error::invalid(format!(
            "{} floats of scratch memory where {needed} are needed",
            scratch.len()
        )));
    }

    let heads = n_head / n_head_kv;
    let log_sums = log_sums.map_or(null_mut(), <[f32]>::as_mut_ptr);
    for (sequence, head) in (0..batch).flat_map(|b| (0..n_head_kv).map(move |h| (b, h))) {
        let rows = |first: *const f32, strides: &Strides| HeadRows {
            first: first.wrapping_add(sequence * strides.batch + head * heads * strides.head).cast_mut(),
            heads,
            token_stride: strides.token,
            head_stride: strides.head,
        };
        let place =
            |x: &Tensor<'_>| x.data.as_ptr().wrapping_add(sequence * x.strides.batch + head * x.strides.head);
        let call = Call {
            queries: rows(q.data.as_ptr(), &q.strides),
            result: rows(out.as_mut_ptr(), &out_strides),
            // Null stays null: `Call` tells it from a place.
            log_sums: if log_sums.is_null() {
                log_sums
            } else {
                log_sums.wrapping_add((sequence * n_head + head * heads) * tokens_q)
            },
            log_sum_stride: tokens_q,
            mask: mask.map(|mask| rows(mask.data.as_ptr(), &mask.strides)),
            rows: tokens_q * heads,
            head_dim,
            scale: shape.scale,
            scores: scores.args(head * heads, tokens_kv as i64 - tokens_q as i64),
            sight: shape.sight(),
            source: Source::Plain {
                keys: place(&k),
                key_stride: k.strides.token,
                values: place(&v),
                value_stride: v.strides.token,
            },
            ahead: false,
            scratch: scratch.as_mut_ptr(),
        };
        // SAFETY: every tensor lies in its slice, as was just checked, and so does the scratch memory; both outputs are
        // borrowed mutably.
        unsafe { pass::run(kernel, &call) }
    }
    Ok(())
}

/// Floats from the first to the last of `[batch, tokens, heads, elements]`; `None` on overflow.
pub fn extent(strides: &Strides, [batch, tokens, heads, elements]: [usize; 4]) -> Option<usize> {
    if batch == 0 || tokens == 0 || heads == 0 || elements == 0 {
        return Some(0);
    }
    let axes = [(batch, strides.batch), (tokens, strides.token), (heads, strides.head)];
    axes.into_iter().try_fold(elements, |sum, (n, stride)| sum.checked_add((n - 1).checked_mul(stride)?))
}

fn fits(name: &str, len: usize, strides: &Strides, sizes: [usize; 4]) -> Result<()> {
    match extent(strides, sizes) {
        Some(needed) if needed <= len => Ok(()),
        _ => Err(Error::invalid(format!(
            "{name} of {sizes:?} (sequences, tokens, heads, elements) with {strides:?} does not fit {len} floats"
        ))),
    }
}

/// Refuses strides that give two rows one place, and strides that interleave rows.
pub(crate) fn check_distinct(strides: &Strides, [batch, tokens, heads, elements]: [usize; 4]) -> Result<()> {
    let mut axes = [(strides.batch, batch), (strides.token, tokens), (strides.head, heads)];
    axes.sort_unstable();
    let mut inner = elements;
    for (stride, n) in axes {
        if n > 1 {
            if stride < inner {
                return Err(Error::invalid(format!("rows of out overlap: {strides:?} floats apart")));
            }
            inner += (n - 1) * stride;
        }
    }
    Ok(())
}
