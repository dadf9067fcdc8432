//! Names of tensors: under which each class keeps them in a folder, and what they are called in GGUF, as tables.

/// The treatment of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// It is as in GGUF.
    Plain,
    /// The rows of heads that are rotated.
    Rotated,
    /// Queries, keys and values, one group of heads after the other.
    Grouped,
    /// A table of positions, whose first rows belong to no position.
    Positions,
    /// Inputs are rows, outputs are columns (`Conv1D`).
    Transposed,
    /// A matrix of each expert, one behind the other.
    Stacked,
    /// The same, with inputs as rows and outputs as columns.
    StackedTransposed,
    /// Rows of a gate, then as many of the matrix beside it, in some files of each expert. GGUF has a tensor of each; the
    /// names differ where `{gate}` stands.
    GateUp,
    /// It is of no use here.
    Idle,
}

use Kind::{GateUp, Grouped, Idle, Plain, Positions, Rotated, Stacked, StackedTransposed, Transposed};

/// A tensor's name in the folder and in GGUF, without `.weight` and `.bias`. `{}` is the block, `{#}` the number of a
/// tensor that becomes a part of a larger one.
pub(super) type Name = (&'static str, &'static str, Kind);

/// The names of a tensor in GGUF, and the rest that its name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Renamed {
    /// The name in GGUF; empty for [`Kind::Idle`].
    pub name: String,
    pub kind: Kind,
    /// Which part of the tensor it is, where that is made of several.
    pub part: Option<u32>,
}

/// The name in GGUF by tables of names, of which the first that fits counts; `None` where none does.
pub(super) fn rename(tables: &[&[Name]], name: &str) -> Option<Renamed> {
    let (stem, suffix) = match name.rsplit_once('.') {
        Some((stem, suffix @ ("weight" | "bias"))) => (stem, suffix),
        // LayerNorm's parameters in files of old.
        Some((stem, "gamma")) => (stem, "weight"),
        Some((stem, "beta")) => (stem, "bias"),
        _ => (name, ""),
    };
    tables.iter().copied().flatten().find_map(|&(theirs, ours, kind)| match kind {
        // Some of these names end in the suffix of others.
        Idle => {
            fit(theirs, stem).or_else(|| fit(theirs, name))?;
            Some(Renamed { name: String::new(), kind, part: None })
        }
        _ => {
            let (block, part) = fit(theirs, stem)?;
            let suffix = match (suffix, kind) {
                // Experts that are one parameter of a module.
                ("", Stacked | StackedTransposed | GateUp) => "weight",
                ("", _) => return None,
                _ => suffix,
            };
            Some(Renamed { name: format!("{}.{suffix}", ours.replace("{}", block)), kind, part })
        }
    })
}

/// The text at `{}`, empty for a pattern without, and the number at `{#}`, where a name fits a pattern.
fn fit<'a>(pattern: &str, name: &'a str) -> Option<(&'a str, Option<u32>)> {
    let Some((before, after)) = pattern.split_once("{#}") else { return Some((block(pattern, name)?, None)) };
    let rest = name.strip_suffix(after)?;
    let digits = rest.bytes().rev().take_while(u8::is_ascii_digit).count();
    let (rest, number) = rest.split_at(rest.len() - digits);
    Some((block(before, rest)?, Some(canonical(number)?)))
}

fn block<'a>(pattern: &str, name: &'a str) -> Option<&'a str> {
    let Some((before, after)) = pattern.split_once("{}") else { return (pattern == name).then_some("") };
    let block = name.strip_prefix(before)?.strip_suffix(after)?;
    canonical(block).map(|_| block)
}

/// A number without leading zeros.
fn canonical(text: &str) -> Option<u32> {
    text.parse::<u32>().ok().filter(|number| number.to_string() == text)
}

/// Llama's names, which most decoders share.
pub(super) const LLAMA: &[Name] = &[
    ("embed_tokens", "token_embd", Plain),
    ("norm", "output_norm", Plain),
    ("lm_head", "output", Plain),
    ("layers.{}.input_layernorm", "blk.{}.attn_norm", Plain),
    ("layers.{}.self_attn.q_proj", "blk.{}.attn_q", Rotated),
    ("layers.{}.self_attn.k_proj", "blk.{}.attn_k", Rotated),
    ("layers.{}.self_attn.v_proj", "blk.{}.attn_v", Plain),
    ("layers.{}.self_attn.o_proj", "blk.{}.attn_output", Plain),
    ("layers.{}.self_attn.q_norm", "blk.{}.attn_q_norm", Plain),
    ("layers.{}.self_attn.k_norm", "blk.{}.attn_k_norm", Plain),
    ("layers.{}.post_attention_layernorm", "blk.{}.ffn_norm", Plain),
    ("layers.{}.mlp.gate_proj", "blk.{}.ffn_gate", Plain),
    ("layers.{}.mlp.up_proj", "blk.{}.ffn_up", Plain),
    ("layers.{}.mlp.down_proj", "blk.{}.ffn_down", Plain),
    ("layers.{}.self_attn.rotary_emb.inv_freq", "", Idle),
    ("rotary_emb.inv_freq", "", Idle),
];

/// Projections that are one matrix (Phi-3, GLM-4).
pub(super) const FUSED: &[Name] = &[
    ("layers.{}.self_attn.qkv_proj", "blk.{}.attn_qkv", Plain),
    ("layers.{}.mlp.gate_up_proj", "blk.{}.ffn_up", Plain),
];

/// Norms before and after attention and MLP (Gemma 2 and 3).
pub(super) const GEMMA2: &[Name] = &[
    ("layers.{}.post_attention_layernorm", "blk.{}.post_attention_norm", Plain),
    ("layers.{}.pre_feedforward_layernorm", "blk.{}.ffn_norm", Plain),
    ("layers.{}.post_feedforward_layernorm", "blk.{}.post_ffw_norm", Plain),
];

pub(super) const GLM4: &[Name] = &[
    ("layers.{}.post_self_attn_layernorm", "blk.{}.post_attention_norm", Plain),
    ("layers.{}.post_mlp_layernorm", "blk.{}.post_ffw_norm", Plain),
];

pub(super) const STARCODER2: &[Name] =
    &[("layers.{}.mlp.c_fc", "blk.{}.ffn_up", Plain), ("layers.{}.mlp.c_proj", "blk.{}.ffn_down", Plain)];

/// A norm for each head.
pub(super) const STABLELM: &[Name] = &[
    ("layers.{}.self_attn.q_layernorm.norms.{#}", "blk.{}.attn_q_norm", Plain),
    ("layers.{}.self_attn.k_layernorm.norms.{#}", "blk.{}.attn_k_norm", Plain),
];

/// Experts of Mixtral.
pub(super) const MIXTRAL: &[Name] = &[
    ("layers.{}.block_sparse_moe.gate", "blk.{}.ffn_gate_inp", Plain),
    ("layers.{}.block_sparse_moe.experts.{#}.w1", "blk.{}.ffn_gate_exps", Plain),
    ("layers.{}.block_sparse_moe.experts.{#}.w2", "blk.{}.ffn_down_exps", Plain),
    ("layers.{}.block_sparse_moe.experts.{#}.w3", "blk.{}.ffn_up_exps", Plain),
    ("layers.{}.mlp.gate", "blk.{}.ffn_gate_inp", Plain),
];

/// Experts of Granite, those that all rows go through among them.
pub(super) const GRANITE_MOE: &[Name] = &[
    ("layers.{}.block_sparse_moe.router.layer", "blk.{}.ffn_gate_inp", Plain),
    ("layers.{}.block_sparse_moe.input_linear", "blk.{}.ffn_{gate}_exps", GateUp),
    ("layers.{}.block_sparse_moe.output_linear", "blk.{}.ffn_down_exps", Stacked),
    ("layers.{}.shared_mlp.input_linear", "blk.{}.ffn_{gate}_shexp", GateUp),
    ("layers.{}.shared_mlp.output_linear", "blk.{}.ffn_down_shexp", Plain),
];

/// Experts that are one tensor a layer, as transformers keeps them since its version 5.
pub(super) const STACKED_EXPERTS: &[Name] = &[
    ("layers.{}.mlp.experts.gate_up_proj", "blk.{}.ffn_{gate}_exps", GateUp),
    ("layers.{}.mlp.experts.down_proj", "blk.{}.ffn_down_exps", Stacked),
];

/// Experts of Qwen and OLMoE.
pub(super) const EXPERTS: &[Name] = &[
    ("layers.{}.mlp.gate", "blk.{}.ffn_gate_inp", Plain),
    ("layers.{}.mlp.experts.{#}.gate_proj", "blk.{}.ffn_gate_exps", Plain),
    ("layers.{}.mlp.experts.{#}.down_proj", "blk.{}.ffn_down_exps", Plain),
    ("layers.{}.mlp.experts.{#}.up_proj", "blk.{}.ffn_up_exps", Plain),
    ("layers.{}.mlp.shared_expert_gate", "blk.{}.ffn_gate_inp_shexp", Plain),
    ("layers.{}.mlp.shared_expert.gate_proj", "blk.{}.ffn_gate_shexp", Plain),
    ("layers.{}.mlp.shared_expert.down_proj", "blk.{}.ffn_down_shexp", Plain),
    ("layers.{}.mlp.shared_expert.up_proj", "blk.{}.ffn_up_shexp", Plain),
];

pub(super) const GPT2: &[Name] = &[
    ("wte", "token_embd", Plain),
    ("wpe", "position_embd", Plain),
    ("ln_f", "output_norm", Plain),
    ("lm_head", "output", Plain),
    ("h.{}.ln_1", "blk.{}.attn_norm", Plain),
    ("h.{}.attn.c_attn", "blk.{}.attn_qkv", Transposed),
    ("h.{}.attn.c_proj", "blk.{}.attn_output", Transposed),
    ("h.{}.ln_2", "blk.{}.ffn_norm", Plain),
    ("h.{}.mlp.c_fc", "blk.{}.ffn_up", Transposed),
    ("h.{}.mlp.c_proj", "blk.{}.ffn_down", Transposed),
    // The causal mask.
    ("h.{}.attn.bias", "", Idle),
    ("h.{}.attn.masked_bias", "", Idle),
];

pub(super) const GPTNEOX: &[Name] = &[
    ("gpt_neox.embed_in", "token_embd", Plain),
    ("gpt_neox.final_layer_norm", "output_norm", Plain),
    ("embed_out", "output", Plain),
    ("gpt_neox.layers.{}.input_layernorm", "blk.{}.attn_norm", Plain),
    ("gpt_neox.layers.{}.attention.query_key_value", "blk.{}.attn_qkv", Grouped),
    ("gpt_neox.layers.{}.attention.dense", "blk.{}.attn_output", Plain),
    ("gpt_neox.layers.{}.post_attention_layernorm", "blk.{}.ffn_norm", Plain),
    ("gpt_neox.layers.{}.mlp.dense_h_to_4h", "blk.{}.ffn_up", Plain),
    ("gpt_neox.layers.{}.mlp.dense_4h_to_h", "blk.{}.ffn_down", Plain),
    ("gpt_neox.layers.{}.attention.bias", "", Idle),
    ("gpt_neox.layers.{}.attention.masked_bias", "", Idle),
    ("gpt_neox.layers.{}.attention.rotary_emb.inv_freq", "", Idle),
];

pub(super) const FALCON: &[Name] = &[
    ("word_embeddings", "token_embd", Plain),
    ("ln_f", "output_norm", Plain),
    ("lm_head", "output", Plain),
    ("h.{}.input_layernorm", "blk.{}.attn_norm", Plain),
    ("h.{}.ln_mlp", "blk.{}.attn_norm", Plain),
    ("h.{}.ln_attn", "blk.{}.attn_norm_2", Plain),
    ("h.{}.self_attention.query_key_value", "blk.{}.attn_qkv", Grouped),
    ("h.{}.self_attention.dense", "blk.{}.attn_output", Plain),
    ("h.{}.mlp.dense_h_to_4h", "blk.{}.ffn_up", Plain),
    ("h.{}.mlp.dense_4h_to_h", "blk.{}.ffn_down", Plain),
];

pub(super) const BERT: &[Name] = &[
    ("embeddings.word_embeddings", "token_embd", Plain),
    ("embeddings.position_embeddings", "position_embd", Positions),
    ("embeddings.token_type_embeddings", "token_types", Plain),
    ("embeddings.LayerNorm", "token_embd_norm", Plain),
    ("encoder.layer.{}.attention.self.query", "blk.{}.attn_q", Plain),
    ("encoder.layer.{}.attention.self.key", "blk.{}.attn_k", Plain),
    ("encoder.layer.{}.attention.self.value", "blk.{}.attn_v", Plain),
    ("encoder.layer.{}.attention.output.dense", "blk.{}.attn_output", Plain),
    ("encoder.layer.{}.attention.output.LayerNorm", "blk.{}.attn_output_norm", Plain),
    ("encoder.layer.{}.intermediate.dense", "blk.{}.ffn_up", Plain),
    ("encoder.layer.{}.output.dense", "blk.{}.ffn_down", Plain),
    ("encoder.layer.{}.output.LayerNorm", "blk.{}.layer_output_norm", Plain),
    ("embeddings.position_ids", "", Idle),
    // Trained for the prediction of words and of following texts; embeddings don't read them.
    ("pooler.dense", "", Idle),
    ("cls.predictions.transform.dense", "", Idle),
    ("cls.predictions.transform.LayerNorm", "", Idle),
    ("cls.predictions.decoder", "", Idle),
    ("cls.predictions.bias", "", Idle),
    ("cls.seq_relationship", "", Idle),
    ("lm_head.dense", "", Idle),
    ("lm_head.layer_norm", "", Idle),
    ("lm_head.decoder", "", Idle),
    ("lm_head.bias", "", Idle),
];

/// The pooler of a classifier, which reads it.
pub(super) const BERT_CLASSIFIER: &[Name] =
    &[("pooler.dense", "cls", Plain), ("classifier", "cls.output", Plain)];

pub(super) const ROBERTA_CLASSIFIER: &[Name] =
    &[("classifier.dense", "cls", Plain), ("classifier.out_proj", "cls.output", Plain)];

pub(super) const JINA2: &[Name] = &[
    ("encoder.layer.{}.mlp.gated_layers", "blk.{}.ffn_up", Plain),
    ("encoder.layer.{}.mlp.up_gated_layer", "blk.{}.ffn_up", Plain),
    ("encoder.layer.{}.mlp.wo", "blk.{}.ffn_down", Plain),
    ("encoder.layer.{}.mlp.down_layer", "blk.{}.ffn_down", Plain),
    ("encoder.layer.{}.mlp.layernorm", "blk.{}.layer_output_norm", Plain),
    ("encoder.layer.{}.layer_norm_1", "blk.{}.attn_norm_2", Plain),
    ("encoder.layer.{}.layer_norm_2", "blk.{}.layer_output_norm", Plain),
    ("encoder.layer.{}.attention.self.layer_norm_q", "blk.{}.attn_q_norm", Plain),
    ("encoder.layer.{}.attention.self.layer_norm_k", "blk.{}.attn_k_norm", Plain),
];

pub(super) const NOMIC: &[Name] = &[
    ("embeddings.word_embeddings", "token_embd", Plain),
    ("embeddings.token_type_embeddings", "token_types", Plain),
    ("emb_ln", "token_embd_norm", Plain),
    ("encoder.layers.{}.attn.Wqkv", "blk.{}.attn_qkv", Plain),
    ("encoder.layers.{}.attn.out_proj", "blk.{}.attn_output", Plain),
    ("encoder.layers.{}.norm1", "blk.{}.attn_output_norm", Plain),
    ("encoder.layers.{}.mlp.fc11", "blk.{}.ffn_up", Plain),
    ("encoder.layers.{}.mlp.fc12", "blk.{}.ffn_gate", Plain),
    ("encoder.layers.{}.mlp.fc2", "blk.{}.ffn_down", Plain),
    ("encoder.layers.{}.norm2", "blk.{}.layer_output_norm", Plain),
];

/// What a nomic-bert with experts in some layers has beside or instead of these.
pub(super) const NOMIC_MOE: &[Name] = &[
    ("encoder.layers.{}.mlp.fc1", "blk.{}.ffn_up", Plain),
    ("encoder.layers.{}.mlp.router.layer", "blk.{}.ffn_gate_inp", Plain),
    ("encoder.layers.{}.mlp.experts.mlp.w1", "blk.{}.ffn_up_exps", Stacked),
    ("encoder.layers.{}.mlp.experts.mlp.w2", "blk.{}.ffn_down_exps", StackedTransposed),
    // llama.cpp's family has none.
    ("encoder.layers.{}.mlp.experts.bias", "", Idle),
];

pub(super) const MODERN_BERT: &[Name] = &[
    ("embeddings.tok_embeddings", "token_embd", Plain),
    ("embeddings.norm", "token_embd_norm", Plain),
    ("final_norm", "output_norm", Plain),
    ("layers.{}.attn_norm", "blk.{}.attn_norm", Plain),
    ("layers.{}.attn.Wqkv", "blk.{}.attn_qkv", Plain),
    ("layers.{}.attn.Wo", "blk.{}.attn_output", Plain),
    ("layers.{}.mlp_norm", "blk.{}.ffn_norm", Plain),
    ("layers.{}.mlp.Wi", "blk.{}.ffn_up", Plain),
    ("layers.{}.mlp.Wo", "blk.{}.ffn_down", Plain),
    // The head that predicts words.
    ("head.dense", "", Idle),
    ("head.norm", "", Idle),
    ("decoder", "", Idle),
];

/// Parts of models with pictures that the text's decoder doesn't read.
pub(super) const PICTURES: [&str; 4] =
    ["vision_tower.", "model.vision_tower.", "multi_modal_projector.", "model.multi_modal_projector."];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_those_of_gguf() {
        for (tables, theirs, ours, kind, part) in [
            (&[LLAMA][..], "layers.12.self_attn.q_proj.weight", "blk.12.attn_q.weight", Rotated, None),
            (&[LLAMA], "layers.0.mlp.down_proj.weight", "blk.0.ffn_down.weight", Plain, None),
            (&[LLAMA], "lm_head.weight", "output.weight", Plain, None),
            (&[LLAMA], "layers.0.self_attn.rotary_emb.inv_freq", "", Idle, None),
            (
                &[GEMMA2, LLAMA],
                "layers.3.post_attention_layernorm.weight",
                "blk.3.post_attention_norm.weight",
                Plain,
                None,
            ),
            (
                &[EXPERTS, LLAMA],
                "layers.1.mlp.experts.63.up_proj.weight",
                "blk.1.ffn_up_exps.weight",
                Plain,
                Some(63),
            ),
            (
                &[STABLELM],
                "layers.1.self_attn.k_layernorm.norms.0.weight",
                "blk.1.attn_k_norm.weight",
                Plain,
                Some(0),
            ),
            (
                &[STACKED_EXPERTS],
                "layers.1.mlp.experts.gate_up_proj",
                "blk.1.ffn_{gate}_exps.weight",
                GateUp,
                None,
            ),
            (&[GPT2], "h.3.attn.c_attn.bias", "blk.3.attn_qkv.bias", Transposed, None),
            (&[GPT2], "h.3.attn.bias", "", Idle, None),
            (&[BERT], "embeddings.LayerNorm.beta", "token_embd_norm.bias", Plain, None),
            (&[BERT], "encoder.layer.5.output.dense.weight", "blk.5.ffn_down.weight", Plain, None),
            (&[BERT], "pooler.dense.bias", "", Idle, None),
        ] {
            let wanted = Renamed { name: ours.to_owned(), kind, part };
            assert_eq!(rename(tables, theirs), Some(wanted), "{theirs}");
        }
        for unknown in [
            "layers.x.self_attn.q_proj.weight",
            "layers.01.mlp.up_proj.weight",
            "layers.1.mlp.experts.01.up_proj.weight",
            "layers.1.mlp.experts..up_proj.weight",
            "lm_head",
            "a.weight",
            "",
        ] {
            assert_eq!(rename(&[EXPERTS, LLAMA], unknown), None, "{unknown}");
        }
    }
}
