//! Parts of families with recurrent layers: the mixers between a block's norm and its sum.

use super::parts::{Decoder, gated};
use crate::error::Result;
use crate::kernels::recurrence::KeyHeads;
use crate::model::builder::Builder;
use crate::model::config::{Config, LayerConfig};
use crate::model::graph::{Activation, ScanShape, Value};
use crate::model::recurrence::{DeltaNet, DeltaShape, Recurrence, StateSpace};

/// Attention or the recurrence of a layer; the sum of both in a layer that has both.
pub fn mix(
    b: &mut Builder<'_>,
    c: &Config,
    decoder: &Decoder,
    x: Value,
    layer: &LayerConfig,
) -> Result<Value> {
    let Some(recurrence) = &layer.recurrence else { return decoder.attention(b, c, x, layer) };
    if !layer.attends() {
        return recur(b, x, recurrence, c.n_embd);
    }
    let attended = decoder.attention(b, c, x, layer)?;
    let recurred = recur(b, x, recurrence, c.n_embd)?;
    b.add(attended, recurred)
}

/// A layer's recurrence, from normalised rows to rows of `n_embd`.
pub fn recur(b: &mut Builder<'_>, x: Value, recurrence: &Recurrence, n_embd: usize) -> Result<Value> {
    match recurrence {
        Recurrence::ShortConv(taps) => short_conv(b, x, *taps),
        Recurrence::Mamba(space) => mamba(b, x, space, n_embd),
        Recurrence::Mamba2(space) => mamba2(b, x, space, n_embd),
        Recurrence::Delta(net) => delta_net(b, x, net, n_embd),
    }
}

/// `out · (after ∘ conv(before ∘ x))`, where one product gives both gates and `x` (LFM2).
fn short_conv(b: &mut Builder<'_>, x: Value, taps: usize) -> Result<Value> {
    let width = b.width(x);
    let all = b.linear_bare(x, "shortconv.in_proj", 3 * width)?;
    let [before, after, x] =
        [b.split(all, 0, width)?, b.split(all, width, width)?, b.split(all, 2 * width, width)?];
    let x = b.conv(x, "shortconv.conv", taps, Some((before, after)), false)?;
    b.linear_bare(x, "shortconv.out_proj", width)
}

/// Mamba: steps, input and output weights are products of what the convolution gives.
fn mamba(b: &mut Builder<'_>, x: Value, space: &StateSpace, n_embd: usize) -> Result<Value> {
    let StateSpace { taps, width, d_state, rank, normed, .. } = *space;
    let all = b.linear_unbiased(x, "ssm_in", 2 * width)?;
    let [x, z] = [b.split(all, 0, width)?, b.split(all, width, width)?];
    b.require(&["ssm_conv1d.bias"])?;
    let x = b.conv(x, "ssm_conv1d", taps, None, true)?;
    let all = b.linear_bare(x, "ssm_x", rank + 2 * d_state)?;
    let parts =
        [(0, rank, "ssm_dt_norm"), (rank, d_state, "ssm_b_norm"), (rank + d_state, d_state, "ssm_c_norm")];
    let gains = parts.iter().any(|(_, _, norm)| b.has(&format!("{norm}.weight")));
    let mut part = |(begin, width, norm)| {
        let x = b.split(all, begin, width)?;
        match (gains, normed) {
            (true, _) => b.rms_norm(x, norm),
            (_, true) => b.plain_rms_norm(x),
            _ => Ok(x),
        }
    };
    let [dt, input, output] = [part(parts[0])?, part(parts[1])?, part(parts[2])?];
    let dt = b.linear_bare(dt, "ssm_dt", width)?;
    let shape = ScanShape { heads: width, head_dim: None, d_state, groups: 1 };
    let y = b.scan([x, dt, input, output], shape, false)?;
    let y = gated(b, z, y, Activation::Silu)?;
    b.linear_unbiased(y, "ssm_out", n_embd)
}

/// Mamba-2: one product gives gate, input, input and output weights, and steps; a norm of each group may follow.
fn mamba2(b: &mut Builder<'_>, x: Value, space: &StateSpace, n_embd: usize) -> Result<Value> {
    let StateSpace { taps, width, d_state, rank: heads, groups, .. } = *space;
    let (conv_width, shared) = (space.conv_width(), groups * d_state);
    let all = b.linear_unbiased(x, "ssm_in", width + conv_width + heads)?;
    let z = b.split(all, 0, width)?;
    let x = b.split(all, width, conv_width)?;
    let dt = b.split(all, width + conv_width, heads)?;
    let x = b.conv(x, "ssm_conv1d", taps, None, true)?;
    let [x, input, output] =
        [b.split(x, 0, width)?, b.split(x, width, shared)?, b.split(x, width + shared, shared)?];
    let shape = ScanShape { heads, head_dim: Some(width / heads), d_state, groups };
    let y = b.scan([x, dt, input, output], shape, true)?;
    let mut y = gated(b, z, y, Activation::Silu)?;
    if space.normed || b.has("ssm_norm.weight") {
        y = b.heads_rms_norm(y, "ssm_norm", width / groups)?;
    }
    b.linear_unbiased(y, "ssm_out", n_embd)
}

/// A gated delta net: a convolution of queries, keys and values, the delta rule, a norm of its heads, a gate.
fn delta_net(b: &mut Builder<'_>, x: Value, net: &DeltaNet, n_embd: usize) -> Result<Value> {
    let DeltaNet { taps, heads, key_heads, head_dim, grouped, scaled } = *net;
    let project = |b: &mut Builder<'_>, x, part, n| match scaled {
        true => b.linear_unbiased(x, part, n),
        false => b.linear_bare(x, part, n),
    };
    let shared = heads / key_heads;
    let keys = if grouped { KeyHeads::Grouped(shared) } else { KeyHeads::Cyclic(key_heads) };
    let shape = DeltaShape { heads, key_heads, d_k: head_dim, d_v: head_dim, keys };
    let qkv = project(b, x, "attn_qkv", shape.width())?;
    let z = project(b, x, "attn_gate", shape.values())?;
    let gates = if grouped {
        // The same as two other matrices, in files of an older kind.
        b.ignore("ssm_in.weight");
        b.ignore("ssm_in.scale");
        let both = project(b, x, "ssm_ba", 2 * heads)?;
        [b.split_heads(both, 2 * shared, shared, shared)?, b.split_heads(both, 2 * shared, 0, shared)?]
    } else {
        [project(b, x, "ssm_alpha", heads)?, project(b, x, "ssm_beta", heads)?]
    };
    let qkv = b.conv(qkv, "ssm_conv1d", taps, None, true)?;
    let y = b.delta(qkv, gates, shape)?;
    let y = b.head_norm(y, "ssm_norm", head_dim)?;
    let y = gated(b, z, y, Activation::Silu)?;
    project(b, y, "ssm_out", n_embd)
}
