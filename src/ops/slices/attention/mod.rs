//! Attention over plain queries, keys and values: its parameters, their checks, and the memory that it computes in.
//! `blocks` divides it among the workers of a team.

mod blocks;

use super::{bytes, check_finite, kernels, worth_sharing};
use crate::error::{Error, Result};
use crate::kernels::attention::{self as kernel, Inputs, SOFT_CAPS, ScoreOptions, Shape, Strides, Tensor};
use crate::memory::checked_bytes;
use crate::ops::scratch::Scratch;
use crate::profile::{self, Zone};
use crate::threads::Team;
use blocks::Blocks;

/// Operations in a nanosecond, about, on one thread.
const FLOPS_PER_NANOSECOND: u64 = 50;
/// The purpose of the memory, in errors.
const WHAT: &str = "an attention";

/// Attention's shapes, places and options. Start from [`Attention::new`] or the default, then change what differs.
///
/// A stride of 0 stands for the dense `[batch][tokens][heads][head_dim]`: `head_dim` floats from one head to the next,
/// all heads from one token to the next, all tokens from one sequence to the next.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Attention<'a> {
    /// Sequences. Default 1.
    pub batch: usize,
    /// Query heads. Default 1.
    pub n_head: usize,
    /// Key/value heads: query head h reads head `h / (n_head / n_head_kv)`. `n_head` is a multiple of it. 0, the
    /// default, for as many as there are query heads.
    pub n_head_kv: usize,
    /// Queries of each sequence. They stand at its end: query i at position `i + tokens_kv − tokens_q`.
    pub tokens_q: usize,
    /// Keys and values of each sequence, below 2³².
    pub tokens_kv: usize,
    /// Elements of a head. Any number; multiples of 16 are fastest.
    pub head_dim: usize,
    /// Factor on the products of queries and keys, finite; absent, the default, for `1 / √head_dim`.
    pub scale: Option<f32>,
    /// A query sees no key behind its own position. Default false.
    pub causal: bool,
    /// A query sees none but the last so many keys up to its own position, and those behind it unless `causal`;
    /// absent, the default, for all.
    pub window: Option<usize>,
    /// Places of the queries.
    pub q: Strides,
    /// Places of the keys.
    pub k: Strides,
    /// Places of the values.
    pub v: Strides,
    /// Places of the results. Rows must not overlap.
    pub out: Strides,
    /// Added to the scaled products: `tokens_kv` adjoining floats for each query, of which −∞ hides a key.
    pub mask: Option<&'a [f32]>,
    /// Places of the mask's rows, one for each query; a stride of 0 means that all share one.
    pub mask_strides: Strides,
    /// Soft-cap: cap · tanh(score / cap) replaces each scaled product, before slopes and mask.
    /// Between 1e-30 and 1e30; absent, the default, for none.
    pub soft_cap: Option<f32>,
    /// ALiBi: a slope for each query head. Slope · |i − j| is subtracted from the score of the query at position i and
    /// the key at position j.
    pub slopes: Option<&'a [f32]>,
    /// Sinks: a logit for each query head, which takes part in the softmax as a score does, but has no value. −∞
    /// changes nothing.
    pub sinks: Option<&'a [f32]>,
}

impl Default for Attention<'_> {
    fn default() -> Self {
        let dense = Strides::default();
        Self {
            batch: 1,
            n_head: 1,
            n_head_kv: 0,
            tokens_q: 0,
            tokens_kv: 0,
            head_dim: 0,
            scale: None,
            causal: false,
            window: None,
            q: dense,
            k: dense,
            v: dense,
            out: dense,
            mask: None,
            mask_strides: dense,
            soft_cap: None,
            slopes: None,
            sinks: None,
        }
    }
}

/// The floats that each of attention's tensors reaches over, from its first to its last element.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extents {
    /// Queries.
    pub q: usize,
    /// Keys.
    pub k: usize,
    /// Values.
    pub v: usize,
    /// A mask, be it there or not.
    pub mask: usize,
    /// Results.
    pub out: usize,
}

/// Memory that [`attention()`] computes in. It grows to what the largest call needs, and stays: a call that needs no
/// more than an earlier one allocates nothing. Less than 768 KiB and 1.75 KiB for each element of a head for a call on
/// one thread; on a team for each worker, with the results of a block.
#[derive(Debug, Default)]
pub struct AttentionWorkspace {
    scratch: Scratch,
}

impl AttentionWorkspace {
    /// Memory for `workers` times `len` floats.
    pub(super) fn floats(&mut self, workers: usize, len: usize) -> Result<&mut [f32]> {
        let bytes = checked_bytes(workers.saturating_mul(len), size_of::<f32>(), WHAT)?;
        Ok(self.scratch.reserve(bytes, WHAT)?.as_mut_slice())
    }
}

impl Attention<'_> {
    /// Attention of `tokens_q` queries over `tokens_kv` keys in one sequence, with `n_head` heads of `head_dim`.
    pub fn new(tokens_q: usize, tokens_kv: usize, n_head: usize, head_dim: usize) -> Self {
        Self { tokens_q, tokens_kv, n_head, head_dim, ..Self::default() }
    }

    /// Sequences, tokens, heads and elements of the queries, the keys and the mask.
    fn sizes(&self) -> [[usize; 4]; 3] {
        let &Self { batch, n_head, tokens_q, tokens_kv, head_dim, .. } = self;
        [
            [batch, tokens_q, n_head, head_dim],
            [batch, tokens_kv, self.heads_kv(), head_dim],
            [batch, tokens_q, n_head, tokens_kv],
        ]
    }

    fn heads_kv(&self) -> usize {
        if self.n_head_kv == 0 { self.n_head } else { self.n_head_kv }
    }

    /// Floats of each tensor.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for one that no memory can hold, and for heads that don't fit each other.
    pub(crate) fn extents(&self) -> Result<Extents> {
        self.check_heads()?;
        let [queries, keys, mask] = self.sizes();
        let floats = |name: &str, strides: &Strides, sizes: [usize; 4]| {
            let len = kernel::extent(strides, sizes);
            len.ok_or_else(|| Error::invalid(format!("{name} of {sizes:?} doesn't fit into memory")))
        };
        Ok(Extents {
            q: floats("q", &or_dense(self.q, queries), queries)?,
            k: floats("k", &or_dense(self.k, keys), keys)?,
            v: floats("v", &or_dense(self.v, keys), keys)?,
            mask: floats("mask", &self.mask_strides, mask)?,
            out: floats("out", &or_dense(self.out, queries), queries)?,
        })
    }

    /// Whether there is nothing to compute.
    pub(crate) fn is_empty(&self) -> bool {
        self.sizes()[0].contains(&0)
    }

    /// Refuses query heads that can't share the key/value heads evenly.
    fn check_heads(&self) -> Result<()> {
        let (n_head, n_head_kv) = (self.n_head, self.heads_kv());
        if n_head_kv > 0 && !n_head.is_multiple_of(n_head_kv) {
            return Err(Error::invalid(format!(
                "{n_head} query heads can't share {n_head_kv} key/value heads evenly"
            )));
        }
        Ok(())
    }

    fn scores(&self) -> ScoreOptions<'_> {
        let &Self { soft_cap, slopes, sinks, .. } = self;
        ScoreOptions { soft_cap: soft_cap.unwrap_or(0.0), slopes, sinks }
    }

    /// Refuses a soft-cap that the kernels don't take.
    fn check_soft_cap(&self) -> Result<()> {
        match self.soft_cap {
            Some(cap) if !SOFT_CAPS.contains(&cap) => {
                let (least, most) = (SOFT_CAPS.start(), SOFT_CAPS.end());
                Err(Error::invalid(format!("soft_cap is {cap}; it must lie between {least:e} and {most:e}")))
            }
            _ => Ok(()),
        }
    }

    fn shape(&self) -> Shape {
        Shape {
            batch: self.batch,
            n_head: self.n_head,
            n_head_kv: self.heads_kv(),
            tokens_q: self.tokens_q,
            tokens_kv: self.tokens_kv,
            head_dim: self.head_dim,
            scale: self.scale.unwrap_or(1.0 / (self.head_dim as f32).sqrt()),
            causal: self.causal,
            window: self.window,
        }
    }
}

/// Strides with those that are 0 filled in for `[batch][tokens][heads][elements]` without gaps.
fn or_dense(strides: Strides, [_, tokens, heads, elements]: [usize; 4]) -> Strides {
    let or = |stride, dense| if stride == 0 { dense } else { stride };
    let head = or(strides.head, elements);
    let token = or(strides.token, heads.saturating_mul(head));
    Strides { batch: or(strides.batch, tokens.saturating_mul(token)), token, head }
}

/// Attention of each query over the keys that it sees: `out = softmax(scale · q · kᵀ + mask) · v`, without ever holding
/// all scores.
///
/// A query that sees no key, or none that the mask leaves, gets zeros. A NaN in a query, or in a key or a mask that it
/// sees, makes its result NaN. Values must be finite: of a key that a query does not see, they may count with weight 0.
/// A query's result has the same bits in any batch, on any team, and however its sequence is cut into calls, but for
/// the sign of a zero that underflowed. A window without causality, and slopes without it, are computed on the calling
/// thread.
///
/// # Errors
/// [`Error::InvalidArgument`] where a slice is too short for its tensor, rows of the results overlap, the query heads
/// are no multiple of the key/value heads, there are 2³² keys or more, `scale` is not finite, or `soft_cap` is not between
/// 1e-30 and 1e30; [`Error::OutOfMemory`]; the errors of [`Team::run`].
///
/// # Examples
/// ```
/// use smallmind::ops::{Attention, AttentionWorkspace, attention};
/// use smallmind::threads::Team;
///
/// // 5 tokens with 4 query heads of 8 elements, which share 2 key/value heads; no token sees the future.
/// let mut params = Attention::new(5, 5, 4, 8);
/// params.n_head_kv = 2;
/// params.causal = true;
/// let (q, k) = (vec![0.5; 5 * 4 * 8], vec![0.25; 5 * 2 * 8]);
/// let v: Vec<f32> = (0..5 * 2 * 8).map(|i| (i / 16) as f32).collect();
/// let mut out = vec![0.0; 5 * 4 * 8];
/// let mut workspace = AttentionWorkspace::default();
/// let team = Team::new(2)?;
/// attention(&params, &q, &k, &v, &mut out, &mut workspace, Some(&team))?;
/// // All keys are equal, so token t gets the mean of the values 0 to t.
/// assert!((0..5).all(|t| (out[t * 32] - t as f32 / 2.0).abs() < 1e-6));
/// # Ok::<(), smallmind::Error>(())
/// ```
pub fn attention(
    params: &Attention<'_>,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    out: &mut [f32],
    workspace: &mut AttentionWorkspace,
    team: Option<&Team>,
) -> Result<()> {
    params.scale.map_or(Ok(()), |scale| check_finite("scale", scale))?;
    params.check_soft_cap()?;
    if params.is_empty() {
        return Ok(());
    }
    let Extents { q: q_len, k: k_len, v: v_len, mask: mask_len, out: out_len } = params.extents()?;
    check_len("q", q.len(), q_len)?;
    check_len("k", k.len(), k_len)?;
    check_len("v", v.len(), v_len)?;
    params.mask.map_or(Ok(()), |mask| check_len("mask", mask.len(), mask_len))?;
    for (name, list) in [("slopes", params.slopes), ("sinks", params.sinks)] {
        list.map_or(Ok(()), |list| check_len(name, list.len(), params.n_head))?;
    }
    check_len("out", out.len(), out_len)?;
    let [queries, keys, _] = params.sizes();
    let out_strides = or_dense(params.out, queries);
    kernel::check_distinct(&out_strides, queries)?;
    let inputs = Inputs {
        q: Tensor { data: q, strides: or_dense(params.q, queries) },
        k: Tensor { data: k, strides: or_dense(params.k, keys) },
        v: Tensor { data: v, strides: or_dense(params.v, keys) },
        mask: params.mask.map(|data| Tensor { data, strides: params.mask_strides }),
        scores: params.scores(),
    };
    let (kernel, shape) = (&kernels()?.attention.f32, params.shape());
    let flops = shape.flops();
    let moved = [q_len, k_len, v_len, out_len].iter().fold(0usize, |sum, &n| sum.saturating_add(n));
    let _zone = profile::scope(Zone::Attention).work(flops, bytes(moved));
    let anywhere = shape.window.is_none() && params.slopes.is_none();
    let divisible = team.filter(|_| shape.causal || anywhere);
    match worth_sharing((flops / FLOPS_PER_NANOSECOND) as usize, divisible) {
        None => {
            let len = kernel::scratch_len(kernel, &shape).unwrap_or(usize::MAX);
            let scratch = workspace.floats(1, len)?;
            kernel::attention(kernel, &shape, &inputs, out, out_strides, scratch)
        }
        Some(team) => {
            let blocks = Blocks::new(kernel, shape, inputs, team.count());
            blocks.compute(team, out, &out_strides, workspace)
        }
    }
}

/// Checks that a slice reaches over its tensor.
fn check_len(name: &str, len: usize, needed: usize) -> Result<()> {
    if len < needed {
        return Err(Error::invalid(format!("{name} reaches over {needed} floats; the slice has {len}")));
    }
    Ok(())
}
