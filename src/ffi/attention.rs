//! Attention
//! ---------

use std::mem::size_of;
use std::ptr;

use super::boundary;
use super::operands::Output;
use super::params::{self, Params, Versioned, boolean, fields};
use super::status::{Failure, sm_status};
use super::team::{self, sm_team};
use crate::ops::{self, Attention, AttentionWorkspace, Extents, Strides};

/// Floats from one sequence, token or head of a tensor to the next. The elements of a head are adjacent.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct sm_strides {
    /// From one sequence of the batch to the next.
    pub batch: usize,
    /// From one token to the next.
    pub token: usize,
    /// From one head to the next.
    pub head: usize,
}

/// The shape of an attention. Fill it with `sm_attention_params_init`, then set at least `tokens_q`,
/// `tokens_kv` and `head_dim`.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct sm_attention_params {
    /// Size of this structure in bytes.
    pub struct_size: usize,
    /// Sequences. Default 1.
    pub batch: usize,
    /// Query heads. Default 1.
    pub n_head: usize,
    /// Key/value heads: query head h reads head h / (n_head / n_head_kv), so n_head is a multiple of it. 0, the default,
    /// for as many as there are query heads.
    pub n_head_kv: usize,
    /// Queries of each sequence. They stand at its end: query i at position i + tokens_kv - tokens_q.
    pub tokens_q: usize,
    /// Keys and values of each sequence, below 2^32.
    pub tokens_kv: usize,
    /// Elements of a head. Any number; multiples of 16 are fastest.
    pub head_dim: usize,
    /// A query sees only the last `window` keys up to its own position, and unless `causal` those behind it; 0, the
    /// default, for all.
    pub window: usize,
    /// Factor on the products of queries and keys, finite; 0, the default, for 1 / sqrt(head_dim).
    pub scale: f32,
    /// 1: query i sees the keys j <= i + tokens_kv - tokens_q only. 0, the default: it sees later keys, too.
    pub causal: i32,
    /// Strides of the queries. In this and the next three, a 0 stands for the dense `[batch][tokens][heads][head_dim]`:
    /// head_dim floats from one head to the next, all heads from one token to the next, all tokens from one sequence to
    /// the next.
    pub q: sm_strides,
    /// Strides of the keys.
    pub k: sm_strides,
    /// Strides of the values.
    pub v: sm_strides,
    /// Strides of the results. Rows must not overlap.
    pub out: sm_strides,
    /// Added to the scaled products: `tokens_kv` adjacent floats for each query, of which -infinity hides a key. NULL, the
    /// default, adds nothing.
    pub mask: *const f32,
    /// Strides of the mask's rows. A stride of 0 means that all sequences, tokens or heads share one row.
    pub mask_strides: sm_strides,
    /// A team whose threads share the work where there is enough, and which keeps the working memory; NULL, the
    /// default, for the calling thread and memory for the call.
    pub team: *mut sm_team,
    /// ALiBi: a slope for each query head. slope |i - j| is subtracted from the score of the query at position i and the
    /// key at position j. NULL, the default, for none.
    pub slopes: *const f32,
    /// Sinks: a logit for each query head, which takes part in the softmax as a score does, but has no value. NULL, the
    /// default, for none, and so does -infinity.
    pub sinks: *const f32,
    /// Soft-cap: soft_cap tanh(score / soft_cap) replaces each scaled product, before slopes and mask. Between 1e-30 and
    /// 1e30; 0, the default, for none.
    pub soft_cap: f32,
    /// Always 0; fills the structure up to a multiple of 8.
    pub reserved: i32,
}

// SAFETY: repr(C); integers, floats and raw pointers.
unsafe impl Versioned for sm_attention_params {
    const NAME: &'static str = "sm_attention_params";

    fields!(
        struct_size,
        batch,
        n_head,
        n_head_kv,
        tokens_q,
        tokens_kv,
        head_dim,
        window,
        scale,
        causal,
        q,
        k,
        v,
        out,
        mask,
        mask_strides,
        team,
        slopes,
        sinks,
        soft_cap,
        reserved
    );
}

// SAFETY: struct_size comes first.
unsafe impl Params for sm_attention_params {
    fn defaults() -> Self {
        let dense = sm_strides::default();
        Self {
            struct_size: size_of::<Self>(),
            batch: 1,
            n_head: 1,
            n_head_kv: 0,
            tokens_q: 0,
            tokens_kv: 0,
            head_dim: 0,
            window: 0,
            scale: 0.0,
            causal: 0,
            q: dense,
            k: dense,
            v: dense,
            out: dense,
            mask: ptr::null(),
            mask_strides: dense,
            team: ptr::null_mut(),
            slopes: ptr::null(),
            sinks: ptr::null(),
            soft_cap: 0.0,
            reserved: 0,
        }
    }

    fn reserved(&self) -> i32 {
        self.reserved
    }
}

impl From<sm_strides> for Strides {
    fn from(sm_strides { batch, token, head }: sm_strides) -> Self {
        Strides { batch, token, head }
    }
}

impl sm_attention_params {
    /// As the op takes them, without the mask, slopes and sinks.
    fn attention(&self) -> Result<Attention<'static>, Failure> {
        Ok(Attention {
            batch: self.batch,
            n_head: self.n_head,
            n_head_kv: self.n_head_kv,
            tokens_q: self.tokens_q,
            tokens_kv: self.tokens_kv,
            head_dim: self.head_dim,
            scale: (self.scale != 0.0).then_some(self.scale),
            causal: boolean(self.causal, "causal")?,
            window: (self.window > 0).then_some(self.window),
            q: self.q.into(),
            k: self.k.into(),
            v: self.v.into(),
            out: self.out.into(),
            mask: None,
            mask_strides: self.mask_strides.into(),
            soft_cap: (self.soft_cap != 0.0).then_some(self.soft_cap),
            slopes: None,
            sinks: None,
        })
    }
}

/// Fills `params` with the defaults. `struct_size` is `sizeof(sm_attention_params)`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_attention_params_init(
    params: *mut sm_attention_params,
    struct_size: usize,
) -> sm_status {
    // SAFETY: the header's contract.
    boundary::call(|| unsafe { params::init(params, struct_size) })
}

/// Attention of each query over the keys that it sees: out = softmax(scale q K' + mask) V.
///
/// `q`, `k`, `v` and `out` point to the first element of each tensor; `out` overlaps no input. With `batch`, `n_head`,
/// `tokens_q` or `head_dim` 0, nothing is done, and pointers may be NULL.
///
/// The scores are never held as a whole. On the calling thread, the call takes less than 768 KiB of memory and 1.75 KiB for
/// each element of a head. On a team, each thread has as much, and room for the results of up to 768 rows; the team keeps
/// that memory. A window or slopes without `causal` run on the calling thread.
///
/// A query that sees no key, or none that the mask leaves, gets zeros. A NaN in a query, or in a key or a mask that it
/// sees, makes its result NaN. Values must be finite: the value of a key that a query doesn't see may count with weight 0.
/// A query's result has the same bits in any batch, on any team, and however its sequence is cut into calls; only the sign
/// of a zero that underflowed may differ.
///
/// `SM_STATUS_INVALID_ARGUMENT` for shapes that don't fit each other or memory, strides with which results overlap, a
/// scale that isn't finite, and a soft-cap out of its range. `SM_STATUS_BUSY` if another kernel call is using the team.
/// `SM_STATUS_OUT_OF_MEMORY`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_attention_f32(
    params: *const sm_attention_params,
    q: *const f32,
    k: *const f32,
    v: *const f32,
    out: *mut f32,
) -> sm_status {
    // SAFETY: the header's contract; every input is compared with the result before that is borrowed.
    boundary::call(|| unsafe {
        let params = params::read_given(params)?;
        let attention = params.attention()?;
        let extents = if attention.is_empty() { Extents::default() } else { attention.extents()? };
        let out = Output::new("out", out, extents.out)?;
        let (q, k) = (out.read("q", q, extents.q)?, out.read("k", k, extents.k)?);
        let v = out.read("v", v, extents.v)?;
        let mask = out.read_optional("mask", params.mask, extents.mask)?;
        let heads = if attention.is_empty() { 0 } else { params.n_head };
        let slopes = out.read_optional("slopes", params.slopes, heads)?;
        let sinks = out.read_optional("sinks", params.sinks, heads)?;
        let attention = Attention { mask, slopes, sinks, ..attention };
        let mut own = AttentionWorkspace::default();
        let mut inside = team::enter(params.team)?;
        let (team, workspace) = match &mut inside {
            Some(inside) => (Some(inside.team), &mut *inside.attention),
            None => (None, &mut own),
        };
        Ok(ops::attention(&attention, q, k, v, out.borrow(), workspace, team)?)
    })
}
