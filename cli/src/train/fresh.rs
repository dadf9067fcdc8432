//! New models: a byte-level BPE trained on the texts, and random weights, as the contents of a GGUF file that this
//! library and llama.cpp load.

use std::sync::Arc;

use rand_core::{RngCore, SeedableRng};
use rand_pcg::Pcg64Mcg;
use serde_json::Value as Json;
use smallmind::format::BytesSource;
use smallmind::format::gguf::{Array, Header, Metadata, Strings, TensorEntry, TensorType, Value};
use smallmind::model::GptConfig;
use smallmind::quant::DType;
use smallmind::{Error, Result};
use tokenizers::models::bpe::{BPE, BpeTrainer};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer, Trainer};

use super::args::{Family, NewArgs};
use super::data::pieces;

/// Most parameters: they are held in memory in addition to what the trainer takes.
const MAX_PARAMETERS: u64 = 1 << 28;
/// Bytes of a text that are split into words at a time, about.
const PIECE: usize = 1 << 16;
/// The token between texts.
const END: &str = "<|endoftext|>";
/// The standard deviation of weights, as in GPT-2.
const DEVIATION: f64 = 0.02;
/// Types of tokens in GGUF.
const NORMAL: i32 = 1;
const CONTROL: i32 = 3;

/// The contents of a file with a model that is to be trained on these texts.
///
/// # Errors
/// [`Error::InvalidArgument`] for a shape that can't be.
pub fn source(
    family: Family,
    args: &NewArgs,
    context: usize,
    texts: &[String],
    seed: u64,
) -> Result<Arc<BytesSource>> {
    let NewArgs { layers, dim, heads, vocabulary: vocab, .. } = *args;
    let shape = GptConfig { vocab, context, dim, layers, heads };
    shape.check()?;
    if shape.parameters() > MAX_PARAMETERS {
        let parameters = shape.parameters();
        return Err(Error::invalid(format!(
            "a new model of {parameters} parameters; at most {MAX_PARAMETERS} are made"
        )));
    }
    if family == Family::Llama && !(dim / heads).is_multiple_of(2) {
        return Err(Error::invalid(format!(
            "heads of {} dimensions; rotary positions need an even number",
            dim / heads
        )));
    }
    let words = Words::trained(texts, vocab)?;
    let shape = GptConfig { vocab: words.tokens.len(), ..shape };
    let tensors = tensors(family, &shape);
    let entries: Vec<_> = tensors.iter().map(|(entry, _)| entry.clone()).collect();
    let header = Header::new(&metadata(family, &shape, &words, seed)?, &entries)?;
    let mut random = Pcg64Mcg::seed_from_u64(seed);
    let mut bytes = header.bytes;
    bytes.reserve_exact(header.file_len as usize - bytes.len());
    for ((entry, fill), &offset) in tensors.iter().zip(&header.offsets) {
        bytes.resize(offset as usize, 0);
        let elements: u64 = entry.dims.iter().product();
        (0..elements).for_each(|_| bytes.extend_from_slice(&fill.next(&mut random).to_le_bytes()));
    }
    bytes.resize(header.file_len as usize, 0);
    Ok(Arc::new(BytesSource::new("the new model", bytes)))
}

/// The values of a tensor.
#[derive(Clone, Copy)]
enum Fill {
    Constant(f32),
    /// Random ones of this standard deviation.
    Random(f64),
}

impl Fill {
    /// Random values are uniform: unlike normal ones, they need no function whose last bit depends on the system.
    fn next(self, random: &mut Pcg64Mcg) -> f32 {
        match self {
            Fill::Constant(x) => x,
            Fill::Random(deviation) => {
                let unit = (random.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
                ((2.0 * unit - 1.0) * deviation * 3f64.sqrt()) as f32
            }
        }
    }
}

/// The width of a Llama's MLP: 8/3 of the residual stream, in whole blocks of quantised types.
fn mlp(family: Family, dim: usize) -> usize {
    match family {
        Family::Gpt2 => 4 * dim,
        Family::Llama => (8 * dim).div_ceil(3).next_multiple_of(32),
    }
}

/// The tensors in the order of the file; the head is the table of embeddings. Matrices that write to the residual stream
/// begin smaller in deeper models, as in GPT-2.
fn tensors(family: Family, shape: &GptConfig) -> Vec<(TensorEntry, Fill)> {
    let GptConfig { vocab, context, dim, layers, .. } = *shape;
    let mlp = mlp(family, dim);
    let (random, smaller) = (Fill::Random(DEVIATION), Fill::Random(DEVIATION / (2.0 * layers as f64).sqrt()));
    let mut tensors = Vec::new();
    let mut add = |name: String, dims: &[usize], fill| {
        let dims = dims.iter().map(|&dim| dim as u64).collect();
        tensors.push((TensorEntry { name, dims, ty: TensorType(DType::F32.gguf_id()) }, fill));
    };
    let biased = family == Family::Gpt2;
    add("token_embd.weight".into(), &[dim, vocab], random);
    if biased {
        add("position_embd.weight".into(), &[dim, context], random);
    }
    let square = [("attn_q", dim, dim, random), ("attn_k", dim, dim, random), ("attn_v", dim, dim, random)];
    let (first, gate): (&[_], &[_]) = match family {
        Family::Gpt2 => (&[("attn_qkv", dim, 3 * dim, random)], &[]),
        Family::Llama => (&square, &[("ffn_gate", dim, mlp, random)]),
    };
    let rest =
        [("attn_output", dim, dim, smaller), ("ffn_up", dim, mlp, random), ("ffn_down", mlp, dim, smaller)];
    let norm = |name: String, add: &mut dyn FnMut(String, &[usize], Fill)| {
        add(format!("{name}.weight"), &[dim], Fill::Constant(1.0));
        if biased {
            add(format!("{name}.bias"), &[dim], Fill::Constant(0.0));
        }
    };
    for layer in 0..layers {
        norm(format!("blk.{layer}.attn_norm"), &mut add);
        norm(format!("blk.{layer}.ffn_norm"), &mut add);
        for &(part, inputs, outputs, fill) in first.iter().chain(gate).chain(&rest) {
            add(format!("blk.{layer}.{part}.weight"), &[inputs, outputs], fill);
            if biased {
                add(format!("blk.{layer}.{part}.bias"), &[outputs], Fill::Constant(0.0));
            }
        }
    }
    norm("output_norm".into(), &mut add);
    tensors
}

fn metadata(family: Family, shape: &GptConfig, words: &Words, seed: u64) -> Result<Metadata> {
    let GptConfig { vocab, context, dim, layers, heads } = *shape;
    let architecture = family.architecture();
    let mut metadata = Metadata::new();
    let mut put = |key: &str, value| metadata.insert(key.to_owned(), value);
    put("general.architecture", Value::Str(architecture.into()))?;
    put("general.description", Value::Str(format!("begun with random weights from seed {seed}")))?;
    // `GptConfig::check` keeps all of these far below u32::MAX.
    let mut numbers = vec![
        ("vocab_size", vocab),
        ("context_length", context),
        ("embedding_length", dim),
        ("feed_forward_length", mlp(family, dim)),
        ("block_count", layers),
        ("attention.head_count", heads),
        ("attention.head_count_kv", heads),
    ];
    if family == Family::Llama {
        numbers.push(("rope.dimension_count", dim / heads));
        put("llama.rope.freq_base", Value::F32(10_000.0))?;
        put("llama.attention.layer_norm_rms_epsilon", Value::F32(1e-5))?;
    } else {
        put("gpt2.attention.layer_norm_epsilon", Value::F32(1e-5))?;
    }
    for (key, value) in numbers {
        put(&format!("{architecture}.{key}"), Value::U32(value as u32))?;
    }
    let (mut tokens, mut merges) = (Strings::default(), Strings::default());
    words.tokens.iter().try_for_each(|token| tokens.push(token))?;
    words.merges.iter().try_for_each(|merge| merges.push(merge))?;
    let end = vocab as u32 - 1;
    let mut types = vec![NORMAL; vocab];
    types[end as usize] = CONTROL;
    put("tokenizer.ggml.model", Value::Str("gpt2".into()))?;
    put("tokenizer.ggml.pre", Value::Str("gpt-2".into()))?;
    put("tokenizer.ggml.tokens", Value::Array(Array::Str(tokens)))?;
    put("tokenizer.ggml.token_type", Value::Array(Array::I32(types)))?;
    put("tokenizer.ggml.merges", Value::Array(Array::Str(merges)))?;
    put("tokenizer.ggml.bos_token_id", Value::U32(end))?;
    put("tokenizer.ggml.eos_token_id", Value::U32(end))?;
    put("tokenizer.ggml.add_bos_token", Value::Bool(false))?;
    // The last, as in what the trainer writes.
    put("general.file_type", Value::U32(0))?;
    Ok(metadata)
}

/// A vocabulary, in GPT-2's spelling of bytes.
struct Words {
    tokens: Vec<String>,
    /// Pairs with a space between them, the best one first.
    merges: Vec<String>,
}

impl Words {
    /// The bytes, the merges that shorten the texts most, and the token for the end of a text; fewer than `vocab` tokens
    /// where the texts have no more pairs.
    fn trained(texts: &[String], vocab: usize) -> Result<Words> {
        let wrong = |error: String| Error::Internal(format!("the trainer of the vocabulary: {error}"));
        let mut trainer = BpeTrainer::builder()
            .vocab_size(vocab - 1)
            .show_progress(false)
            .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
            .build();
        let split = |text: &str| {
            let mut words = PreTokenizedString::from(text);
            ByteLevel::new(false, false, true).pre_tokenize(&mut words)?;
            let words = words.get_splits(OffsetReferential::Original, OffsetType::None);
            Ok(words.into_iter().map(|(word, ..)| word.to_owned()).collect())
        };
        let mut model = BPE::default();
        trainer
            .feed(texts.iter().flat_map(|text| pieces(text, PIECE)), split)
            .map_err(|e| wrong(e.to_string()))?;
        trainer.train(&mut model).map_err(|e| wrong(e.to_string()))?;
        let model = serde_json::to_value(&model).map_err(|e| wrong(e.to_string()))?;
        let read = || -> Option<Words> {
            let mut tokens: Vec<(&String, u64)> = model["vocab"]
                .as_object()?
                .iter()
                .map(|(text, id)| Some((text, id.as_u64()?)))
                .collect::<Option<_>>()?;
            tokens.sort_by_key(|&(_, id)| id);
            let tokens = tokens.into_iter().map(|(text, _)| text.clone()).chain([END.into()]).collect();
            let merge = |pair: &Json| Some(format!("{} {}", pair[0].as_str()?, pair[1].as_str()?));
            let merges = model["merges"].as_array()?.iter().map(merge).collect::<Option<_>>()?;
            Some(Words { tokens, merges })
        };
        read().ok_or_else(|| wrong("its result has another form".into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use smallmind::format::gguf::Gguf;
    use smallmind::tokenizer::Tokenizer;

    fn args() -> NewArgs {
        NewArgs { new: None, layers: 2, dim: 32, heads: 4, vocabulary: 300 }
    }

    #[test]
    fn a_vocabulary_is_trained_and_shortens_its_text() {
        let text: String = (0..50).map(|i| format!("the mouse saw the house {i} times\n")).collect();
        let texts = [text.clone(), "äöü\0 😀".into()];
        for family in [Family::Gpt2, Family::Llama] {
            let new = || source(family, &args(), 16, &texts, 3).unwrap();
            let gguf = Gguf::open(new()).unwrap();
            let tokenizer = Tokenizer::from_metadata(gguf.metadata()).unwrap();
            assert_eq!(tokenizer.vocab_size(), 300);
            let tokens = tokenizer.encode(&text, false, true).unwrap();
            assert!(tokens.len() * 3 < text.len(), "{} tokens", tokens.len());
            for text in &texts {
                let tokens = tokenizer.encode(text, false, true).unwrap();
                assert_eq!(&tokenizer.decode(&tokens, false).unwrap(), text);
            }
            // No text becomes the control token.
            assert!(
                !tokenizer.encode(END, false, true).unwrap().contains(&299) && tokenizer.eos() == Some(299)
            );
            assert!(bytes(&*new()) == bytes(&*new()), "the same seed, another file");
        }
    }

    fn bytes(source: &dyn smallmind::format::ByteSource) -> Vec<u8> {
        let mut bytes = vec![0; source.len() as usize];
        source.read_at(0, &mut bytes).unwrap();
        bytes
    }

    #[test]
    fn weights_have_their_deviation() {
        let mut random = Pcg64Mcg::seed_from_u64(7);
        let values: Vec<f64> = (0..10_000).map(|_| f64::from(Fill::Random(0.02).next(&mut random))).collect();
        let mean = values.iter().sum::<f64>() / 1e4;
        let deviation = (values.iter().map(|x| x * x).sum::<f64>() / 1e4).sqrt();
        assert!(mean.abs() < 1e-3 && (deviation - 0.02).abs() < 1e-3, "{mean} ± {deviation}");
    }

    #[test]
    fn shapes_that_cannot_be_are_refused() {
        let refused =
            |args: NewArgs| source(Family::Llama, &args, 16, &["x".into()], 1).err().unwrap().to_string();
        assert!(refused(NewArgs { heads: 5, ..args() }).contains("no multiple of 5 heads"));
        assert!(refused(NewArgs { heads: 32, ..args() }).contains("need an even number"));
        assert!(refused(NewArgs { layers: 8, dim: 4096, heads: 64, ..args() }).contains("parameters"));
    }
}
