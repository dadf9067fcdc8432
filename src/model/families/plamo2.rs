//! PLaMo 2: Mamba-2's scan whose steps, input and output weights are products of what the convolution gives, as in
//! Mamba; attention in some blocks; norms on both sides of each part.

use super::Family;
use super::parts::{self, Decoder, Inner, Place, gated};
use crate::error::Result;
use crate::kernels::rope::Pairing;
use crate::model::builder::Builder;
use crate::model::config::Config;
use crate::model::graph::{Activation, ScanShape, Value};
use crate::model::recurrence::{Recurrence, StateSpace};

/// The state space of a block. Gate and input stand side by side in each head of one product.
fn space(b: &mut Builder<'_>, x: Value, space: &StateSpace) -> Result<Value> {
    let StateSpace { taps, width, d_state, rank: heads, .. } = *space;
    let (n_embd, head) = (b.width(x), width / heads);
    let all = b.linear_bare(x, "ssm_in", 2 * width)?;
    let [z, x] = [b.split_heads(all, 2 * head, 0, head)?, b.split_heads(all, 2 * head, head, head)?];
    let x = b.conv(x, "ssm_conv1d", taps, None, true)?;
    let steps = (n_embd / 16).max(64);
    let all = b.linear_bare(x, "ssm_x", 2 * d_state + steps)?;
    let mut part = |begin, width, norm| {
        let part = b.split(all, begin, width)?;
        b.rms_norm(part, norm)
    };
    let input = part(0, d_state, "ssm_b_norm")?;
    let output = part(d_state, d_state, "ssm_c_norm")?;
    let dt = part(2 * d_state, steps, "ssm_dt_norm")?;
    let dt = b.linear_bare(dt, "ssm_dt", heads)?;
    let shape = ScanShape { heads, head_dim: Some(head), d_state, groups: 1 };
    let y = b.scan([x, dt, input, output], shape, false)?;
    let y = gated(b, z, y, Activation::Silu)?;
    b.linear_bare(y, "ssm_out", n_embd)
}

const DECODER: Decoder = Decoder {
    place: Place::Both,
    inner: Inner::GateUp(Activation::Silu),
    scaled_qkv: false,
    heads: |b, [q, k, v], layer| {
        let q = b.heads_rms_norm(q, "attn_q_norm", layer.head_dim)?;
        let k = b.heads_rms_norm(k, "attn_k_norm", layer.head_dim)?;
        parts::rotated(b, [q, k, v], layer)
    },
    mixer: |b, c, decoder, x, layer| match &layer.recurrence {
        Some(Recurrence::Mamba2(sizes)) => space(b, x, sizes),
        _ => decoder.attention(b, c, x, layer),
    },
    ..Decoder::LLAMA
};

pub const FAMILIES: &[Family] = &[Family {
    name: "plamo2",
    config: |keys, n_vocab| {
        let config = Config::read_hybrid(keys, n_vocab)?.with_rope(keys, Pairing::Halves)?;
        Ok(config.with_recurrence(keys, Recurrence::mamba2_in_one_group(keys)?))
    },
    emit: |b, c| DECODER.emit(b, c),
}];
