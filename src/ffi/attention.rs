//! Attention
//! ---------

use std::mem::size_of;
use std::ptr;

use super::boundary;
use super::buffers;
use super::matrices::{apart, bytes};
use super::params::{self, Params, Versioned, boolean};
use super::status::{Failure, sm_status};
use crate::kernels::KernelSet;
use crate::kernels::attention::{self, Inputs, Shape, Strides, Tensor};
use crate::memory::AlignedBuf;
use crate::profile::{self, Zone};

/// Floats from one sequence, token or head of a tensor to the next; the elements of a head adjoin.
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
    /// Key/value heads: query head h reads head h / (n_head / n_head_kv). 0, the default, for as many as
    /// there are query heads, which must be a multiple of it.
    pub n_head_kv: usize,
    /// Queries of each sequence. They stand at its end: query i at position i + tokens_kv - tokens_q.
    pub tokens_q: usize,
    /// Keys and values of each sequence, below 2^32.
    pub tokens_kv: usize,
    /// Elements of a head. Any number; multiples of 16 are fastest.
    pub head_dim: usize,
    /// A query sees none before the last `window` keys up to its own position; 0, the default, for all.
    pub window: usize,
    /// Factor on the products of queries and keys; 0, the default, for 1 / sqrt(head_dim).
    pub scale: f32,
    /// 1: query i sees keys j <= i + tokens_kv - tokens_q only. 0, the default: also later ones.
    pub causal: i32,
    /// Places of the queries. In these four, a 0 stands for the dense `[batch][tokens][heads][head_dim]`:
    /// head_dim from head to head, the heads together from token to token, and the tokens from sequence to
    /// sequence.
    pub q: sm_strides,
    /// Places of the keys.
    pub k: sm_strides,
    /// Places of the values.
    pub v: sm_strides,
    /// Places of the results, which must not overlap.
    pub out: sm_strides,
    /// Added to the scaled products: `tokens_kv` floats that adjoin for each query, of which -infinity hides a
    /// key. NULL, the default, adds nothing.
    pub mask: *const f32,
    /// Places of the mask's rows, one a query (`token`); a 0 here means that all share one.
    pub mask_strides: sm_strides,
}

// SAFETY: repr(C); integers, floats and raw pointers.
unsafe impl Versioned for sm_attention_params {
    const NAME: &'static str = "sm_attention_params";
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
        }
    }
}

impl sm_strides {
    /// As the kernels take them, with what is left open filled in.
    fn or_dense(self, tokens: usize, heads: usize, head_dim: usize) -> Strides {
        let or = |stride, dense| if stride == 0 { dense } else { stride };
        let head = or(self.head, head_dim);
        let token = or(self.token, heads.saturating_mul(head));
        Strides { batch: or(self.batch, tokens.saturating_mul(token)), token, head }
    }
}

impl sm_attention_params {
    fn shape(&self) -> Result<Shape, Failure> {
        if !self.scale.is_finite() {
            return Err(Failure::invalid(format!("scale is {}; it must be finite", self.scale)));
        }
        let scale = if self.scale == 0.0 { 1.0 / (self.head_dim as f32).sqrt() } else { self.scale };
        Ok(Shape {
            batch: self.batch,
            n_head: self.n_head,
            n_head_kv: if self.n_head_kv == 0 { self.n_head } else { self.n_head_kv },
            tokens_q: self.tokens_q,
            tokens_kv: self.tokens_kv,
            head_dim: self.head_dim,
            scale,
            causal: boolean(self.causal, "causal")?,
            window: (self.window > 0).then_some(self.window),
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
/// The scores are never held as a whole: the call takes less than 768 KiB of memory and 1.75 KiB for each
/// element of a head. A query that sees no key, or none that the mask leaves, gets zeros. A NaN in a query, or
/// in a key or a mask that it sees, makes its result NaN. Values must be finite: of a key that a query does not
/// see, they may count with weight 0. A query's result has the same bits in any batch, and however its sequence
/// is cut into calls.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn sm_attention_f32(
    params: *const sm_attention_params,
    q: *const f32,
    k: *const f32,
    v: *const f32,
    out: *mut f32,
) -> sm_status {
    boundary::call(|| {
        if params.is_null() {
            return Err(Failure::null(sm_attention_params::NAME));
        }
        // SAFETY: the header's contract.
        let params = unsafe { params::read(params) }?;
        let shape = params.shape()?;
        let Shape { batch, n_head, n_head_kv, tokens_q, tokens_kv, head_dim, .. } = shape;
        let queries = [batch, tokens_q, n_head, head_dim];
        let keys = [batch, tokens_kv, n_head_kv, head_dim];
        if queries.contains(&0) {
            return Ok(());
        }
        // SAFETY: the header's contract.
        let tensor = |name, data: *const f32, strides: Strides, sizes| unsafe {
            let len = floats(name, &strides, sizes)?;
            Ok::<_, Failure>(Tensor { data: buffers::array(data, len, name)?, strides })
        };
        let dense = |strides: sm_strides, [_, tokens, heads, elements]: [usize; 4]| {
            strides.or_dense(tokens, heads, elements)
        };
        let q = tensor("q", q, dense(params.q, queries), queries)?;
        let k = tensor("k", k, dense(params.k, keys), keys)?;
        let v = tensor("v", v, dense(params.v, keys), keys)?;
        let sm_strides { batch: sequence, token, head } = params.mask_strides;
        let strides = Strides { batch: sequence, token, head };
        let sizes = [batch, tokens_q, n_head, tokens_kv];
        let mask =
            (!params.mask.is_null()).then(|| tensor("mask", params.mask, strides, sizes)).transpose()?;

        let strides = dense(params.out, queries);
        let len = floats("out", &strides, queries)?;
        buffers::check(out, len, "out")?;
        for (name, input) in [("q", Some(q)), ("k", Some(k)), ("v", Some(v)), ("mask", mask)] {
            if let Some(input) = input {
                apart("out", out, len, name, input.data)?;
            }
        }
        // SAFETY: the header's contract; it overlaps no input.
        let out = unsafe { buffers::array_mut(out, len, "out") }?;

        let kernel = KernelSet::default_set()?.attention.f32;
        let scratch = attention::scratch_len(&kernel, &shape).unwrap_or(usize::MAX);
        let mut scratch = AlignedBuf::zeroed(scratch.saturating_mul(size_of::<f32>()), "an attention")?;
        let moved = [q.data.len(), k.data.len(), v.data.len(), len]
            .iter()
            .fold(0, |sum: usize, &x| sum.saturating_add(x));
        let _zone = profile::scope(Zone::Attention).work(shape.flops(), bytes(moved));
        let inputs = Inputs { q, k, v, mask };
        Ok(attention::attention(&kernel, &shape, &inputs, out, strides, scratch.as_mut_slice())?)
    })
}

/// Floats from the first to the last element.
fn floats(name: &str, strides: &Strides, sizes: [usize; 4]) -> Result<usize, Failure> {
    let len = attention::extent(strides, sizes);
    len.ok_or_else(|| Failure::invalid(format!("{name} of {sizes:?} doesn't fit into memory")))
}
