//! GPT-2: a pre-norm decoder with LayerNorm, learned positions, biases on all projections and a GELU MLP. Queries, keys
//! and values are one matrix; the head is a matrix of its own or the embedding's.

use super::{Family, parts};
use crate::error::Result;
use crate::model::builder::Builder;
use crate::model::config::{Config, LAYER_EPS};
use crate::model::graph::{Activation, Value};

pub const FAMILY: Family =
    Family { name: "gpt2", config: |keys, n_vocab| Config::read(keys, n_vocab, LAYER_EPS), emit };

fn emit(b: &mut Builder<'_>, c: &Config) -> Result<(Value, Value)> {
    let tokens = b.embed("token_embd", c.n_vocab, c.n_embd)?;
    let positions = b.positions("position_embd", c.n_ctx_train, c.n_embd)?;
    let mut x = b.add(tokens, positions)?;
    for (i, layer) in c.layers.iter().enumerate() {
        b.enter_layer(Some(i));
        let (q_width, kv_width) = (layer.q_width(), layer.kv_width());
        let normed = b.layer_norm(x, "attn_norm")?;
        let qkv = b.linear_biased(normed, "attn_qkv", q_width + 2 * kv_width)?;
        let q = b.split(qkv, 0, q_width)?;
        let k = b.split(qkv, q_width, kv_width)?;
        let v = b.split(qkv, q_width + kv_width, kv_width)?;
        let heads = b.attention([q, k, v], layer)?;
        let out = b.linear_biased(heads, "attn_output", c.n_embd)?;
        x = b.add(x, out)?;
        let normed = b.layer_norm(x, "ffn_norm")?;
        let up = b.linear_biased(normed, "ffn_up", layer.n_ff)?;
        let inner = b.activate(up, Activation::GeluTanh)?;
        let out = b.linear_biased(inner, "ffn_down", c.n_embd)?;
        x = b.add(x, out)?;
    }
    b.enter_layer(None);
    let last = b.select(x)?;
    let hidden = b.layer_norm(last, "output_norm")?;
    Ok((hidden, parts::head(b, hidden, c)?))
}
