//! Llama and its kin (SmolLM, TinyLlama, Mistral without a window): pre-norm decoder with RMSNorm,
//! rotary grouped-query attention and a SwiGLU MLP; the head is its own matrix or the embedding's.

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
    let mut b = Builder::new(gguf, kernels.qmatmul.activations());
    let table = b.table("token_embd.weight", c.n_vocab, c.n_embd)?;
    let x = b.embed(table, None, c.n_embd)?;
    for layer in 0..c.n_layer {
        let name = |part: &str| format!("blk.{layer}.{part}");

        let normed = b.rms_norm(x, &name("attn_norm.weight"), c.n_embd, c.norm_eps, BufKind::Batch)?;
        let prefixes = [name("attn_q"), name("attn_k"), name("attn_v")];
        let widths = [c.q_width(), c.kv_width(), c.kv_width()];
        let then = Then::RopeStore { layer };
        let qkv = b.project(Zone::LinearQkv, normed, &prefixes, &widths, c.n_embd, then)?;
        let heads = b.attention(layer, qkv, c)?;
        b.project_residual(Zone::LinearAttnOut, heads, &name("attn_output"), c.n_embd, c.q_width(), x)?;

        let normed = b.rms_norm(x, &name("ffn_norm.weight"), c.n_embd, c.norm_eps, BufKind::Batch)?;
        let [gate, up, down] = [name("ffn_gate"), name("ffn_up"), name("ffn_down")];
        b.swiglu_mlp(normed, [&gate, &up, &down], (c.n_embd, c.n_ff), x)?;
    }
    let normed = b.rms_norm(x, "output_norm.weight", c.n_embd, c.norm_eps, BufKind::Output)?;
    let head = if b.has("output.weight") { "output" } else { "token_embd" };
    let logits = b.project(Zone::LinearHead, normed, &[head], &[c.n_vocab], c.n_embd, Then::Nothing)?;
    Ok(b.finish(logits, c.n_vocab))
}
