//! GPT-2 and its kin: pre-norm decoder with LayerNorm, learned positions, biases everywhere and a GELU MLP;
//! queries, keys and values are one matrix; the head is its own matrix or the embedding's.

use super::builder::Builder;
use super::config::Config;
use super::plan::{BufKind, Plan, Then};
use super::weights::WeightSpec;
use crate::error::Result;
use crate::format::gguf::Gguf;
use crate::kernels::KernelSet;
use crate::profile::Zone;

/// Emits the forward pass and the list of weights it reads.
pub(super) fn build(gguf: &Gguf, config: &Config, kernels: &KernelSet) -> Result<(Plan, Vec<WeightSpec>)> {
    let c = config;
    let qkv_width = c.q_width() + 2 * c.kv_width();
    let mut b = Builder::new(gguf, kernels.qmatmul.activations());
    let table = b.table("token_embd.weight", c.n_vocab, c.n_embd)?;
    let positions = b.positions("position_embd.weight", c.n_ctx_train, c.n_embd)?;
    let x = b.embed(table, Some(positions), c.n_embd)?;
    for layer in 0..c.n_layer {
        let name = |part: &str| format!("blk.{layer}.{part}");
        // A file without them holds another family, or is not whole.
        for (part, width) in
            [("attn_qkv", qkv_width), ("attn_output", c.n_embd), ("ffn_up", c.n_ff), ("ffn_down", c.n_embd)]
        {
            b.vector(&name(&format!("{part}.bias")), width)?;
        }

        let normed = b.layer_norm(x, &name("attn_norm"), c.n_embd, c.norm_eps, BufKind::Batch)?;
        let then = Then::Store { layer };
        let qkv = b.project(Zone::LinearQkv, normed, &[name("attn_qkv")], &[qkv_width], c.n_embd, then)?;
        let heads = b.attention(layer, qkv, c)?;
        b.project_residual(Zone::LinearAttnOut, heads, &name("attn_output"), c.n_embd, c.q_width(), x)?;

        let normed = b.layer_norm(x, &name("ffn_norm"), c.n_embd, c.norm_eps, BufKind::Batch)?;
        let [up, down] = [name("ffn_up"), name("ffn_down")];
        b.gelu_mlp(normed, [&up, &down], (c.n_embd, c.n_ff), x)?;
    }
    let normed = b.layer_norm(x, "output_norm", c.n_embd, c.norm_eps, BufKind::Output)?;
    let head = if b.has("output.weight") { "output" } else { "token_embd" };
    let logits = b.project(Zone::LinearHead, normed, &[head], &[c.n_vocab], c.n_embd, Then::Nothing)?;
    Ok(b.finish(logits, c.n_vocab))
}
