//! The files of llama2.c (<https://github.com/karpathy/llama2.c>): a model of seven numbers and matrices in f32, and a
//! vocabulary with scores.

use std::path::Path;
use std::sync::Arc;

use super::assembled::{Assembled, Piece};
use crate::error::{Error, Result, at};
use crate::format::gguf::{Array, Metadata, Strings, Value};
use crate::format::{ByteSource, FileSource};
use crate::memory::reserve::{filled, reserve, with_room};
use crate::quant::DType;
use crate::text::escaped;

/// Numbers at the beginning of a model.
const HEADER: usize = 7;
/// Most of each of them; it bounds all sizes before memory is reserved.
const MOST: i64 = 1 << 24;
const MOST_LAYERS: u64 = 1024;
/// Longest token.
const MAX_TOKEN_BYTES: u64 = 1 << 16;

const WHAT: &str = "a llama2.c file";

/// The shape of a model.
struct Shape {
    width: u64,
    n_ff: u64,
    layers: u64,
    heads: u64,
    kv_heads: u64,
    vocabulary: u64,
    positions: u64,
    tied: bool,
}

/// A model of llama2.c (`stories15M.bin`) with its vocabulary (`tokenizer.bin`) as the GGUF file that it would be.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] where a file contradicts itself or the other; [`Error::OutOfMemory`].
pub fn llama2c(model: &Path, tokenizer: &Path) -> Result<Assembled> {
    let source: Arc<dyn ByteSource> = Arc::new(FileSource::open(model)?);
    let place = || escaped(source.name()).to_string();
    let shape = Shape::read(&*source).map_err(at(place))?;
    let vocabulary = FileSource::open(tokenizer)?;
    let mut metadata = shape.metadata()?;
    let name = model.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
    metadata.insert("general.name".into(), Value::Str(name))?;
    insert_vocabulary(&mut metadata, &vocabulary, shape.vocabulary)
        .map_err(at(|| escaped(vocabulary.name()).to_string()))?;
    let pieces = shape.pieces(&source).map_err(at(place))?;
    Assembled::new(model.display().to_string(), &metadata, pieces)
}

impl Shape {
    fn read(source: &dyn ByteSource) -> Result<Shape> {
        let mut bytes = [0; 4 * HEADER];
        if source.len() < bytes.len() as u64 {
            return Err(Error::format("not a llama2.c model: too short"));
        }
        source.read_at(0, &mut bytes)?;
        let numbers: [i32; HEADER] = std::array::from_fn(|i| {
            i32::from_le_bytes([bytes[4 * i], bytes[4 * i + 1], bytes[4 * i + 2], bytes[4 * i + 3]])
        });
        let positive = |i: usize| i64::from(numbers[i]) > 0 && i64::from(numbers[i]) <= MOST;
        let vocabulary = i64::from(numbers[5]).abs();
        let sound = [0, 1, 2, 3, 4, 6].into_iter().all(positive)
            && (1..=MOST).contains(&vocabulary)
            && numbers[0] % numbers[3] == 0
            && numbers[3] % numbers[4] == 0
            && numbers[2] as u64 <= MOST_LAYERS
            && numbers[0] / numbers[3] % 2 == 0;
        if !sound {
            return Err(Error::format(format!(
                "not a llama2.c model of version 0: it begins with the numbers {numbers:?}"
            )));
        }
        let number = |i: usize| numbers[i] as u64;
        Ok(Shape {
            width: number(0),
            n_ff: number(1),
            layers: number(2),
            heads: number(3),
            kv_heads: number(4),
            vocabulary: vocabulary as u64,
            positions: number(6),
            // A negative number of tokens says that the head is a matrix of its own.
            tied: numbers[5] > 0,
        })
    }

    fn metadata(&self) -> Result<Metadata> {
        let mut metadata = Metadata::new();
        metadata.insert("general.architecture".into(), Value::Str("llama".into()))?;
        metadata.insert("general.file_type".into(), Value::U32(0))?;
        for (key, value) in [
            ("context_length", self.positions),
            ("embedding_length", self.width),
            ("block_count", self.layers),
            ("feed_forward_length", self.n_ff),
            ("attention.head_count", self.heads),
            ("attention.head_count_kv", self.kv_heads),
            ("rope.dimension_count", self.width / self.heads),
            ("vocab_size", self.vocabulary),
        ] {
            metadata.insert(format!("llama.{key}"), Value::U32(value as u32))?;
        }
        metadata.insert("llama.attention.layer_norm_rms_epsilon".into(), Value::F32(1e-5))?;
        metadata.insert("llama.rope.freq_base".into(), Value::F32(10_000.0))?;
        Ok(metadata)
    }

    /// The tensors in the order of the file, each kind of all layers one after the other.
    fn pieces(&self, source: &Arc<dyn ByteSource>) -> Result<Vec<Piece>> {
        let (width, n_ff) = (self.width, self.n_ff);
        let kv_width = width / self.heads * self.kv_heads;
        let kinds: [(&str, &[u64]); 9] = [
            ("attn_norm", &[width]),
            ("attn_q", &[width, width]),
            ("attn_k", &[width, kv_width]),
            ("attn_v", &[width, kv_width]),
            ("attn_output", &[width, width]),
            ("ffn_norm", &[width]),
            ("ffn_gate", &[width, n_ff]),
            ("ffn_down", &[n_ff, width]),
            ("ffn_up", &[width, n_ff]),
        ];
        let mut offset = 4 * HEADER as u64;
        let mut pieces = Vec::new();
        let mut push = |name: String, dims: &[u64], offset: &mut u64| {
            reserve(&mut pieces, 1, WHAT)?;
            pieces.push(Piece::plain(name, dims.to_vec(), DType::F32, source.clone(), *offset));
            *offset += 4 * dims.iter().product::<u64>();
            Ok::<_, Error>(())
        };
        push("token_embd.weight".into(), &[width, self.vocabulary], &mut offset)?;
        for (kind, dims) in kinds {
            for layer in 0..self.layers {
                push(format!("blk.{layer}.{kind}.weight"), dims, &mut offset)?;
            }
        }
        push("output_norm.weight".into(), &[width], &mut offset)?;
        // Tables of cosines and sines.
        offset += 4 * self.positions * (width / self.heads);
        if !self.tied {
            push("output.weight".into(), &[width, self.vocabulary], &mut offset)?;
        }
        match offset == source.len() {
            true => Ok(pieces),
            false => Err(Error::format(format!(
                "a model of these numbers has {offset} bytes, the file {}; was its download interrupted?",
                source.len()
            ))),
        }
    }
}

/// The tokens and scores of a vocabulary of so many tokens.
fn insert_vocabulary(metadata: &mut Metadata, source: &FileSource, count: u64) -> Result<()> {
    let mut tokens = Strings::default();
    let mut scores = with_room(count as usize, WHAT)?;
    let mut types = with_room(count as usize, WHAT)?;
    // The file begins with the length of its longest token.
    let mut at_byte = 4;
    let number = |at_byte: &mut u64| {
        let mut bytes = [0; 4];
        source.read_at(*at_byte, &mut bytes)?;
        *at_byte += 4;
        Ok::<_, Error>(bytes)
    };
    for id in 0..count {
        let fault = |what: String| Error::format(format!("token {id}: {what}"));
        scores.push(f32::from_le_bytes(number(&mut at_byte)?));
        let length = u64::from(u32::from_le_bytes(number(&mut at_byte)?));
        if length > MAX_TOKEN_BYTES {
            return Err(fault(format!("{length} bytes; at most {MAX_TOKEN_BYTES} are taken")));
        }
        let mut bytes = filled(0u8, length as usize, WHAT)?;
        source.read_at(at_byte, &mut bytes)?;
        at_byte += length;
        let text = std::str::from_utf8(&bytes).map_err(|_| fault("it is not UTF-8".into()))?;
        let (text, kind) = token(id, text);
        tokens.push(&text)?;
        types.push(kind);
    }
    if at_byte != source.len() {
        return Err(Error::format(format!(
            "the model has {count} tokens, which end at byte {at_byte}; the file has {}",
            source.len()
        )));
    }
    metadata.insert("tokenizer.ggml.model".into(), Value::Str("llama".into()))?;
    metadata.insert("tokenizer.ggml.tokens".into(), Value::Array(Array::Str(tokens)))?;
    metadata.insert("tokenizer.ggml.scores".into(), Value::Array(Array::F32(scores)))?;
    metadata.insert("tokenizer.ggml.token_type".into(), Value::Array(Array::I32(types)))?;
    for (key, id) in [("unknown_token_id", 0), ("bos_token_id", 1), ("eos_token_id", 2), ("eot_token_id", 1)]
    {
        metadata.insert(format!("tokenizer.ggml.{key}"), Value::U32(id))?;
    }
    metadata.insert("tokenizer.ggml.add_bos_token".into(), Value::Bool(true))
}

/// A token's text in GGUF, and its type. llama2.c has SentencePiece's vocabulary, with plain spaces in place of the marks
/// of words, and line breaks around the names of special tokens.
fn token(id: u64, text: &str) -> (String, i32) {
    const NORMAL: i32 = 1;
    const UNKNOWN: i32 = 2;
    const CONTROL: i32 = 3;
    const BYTE: i32 = 6;
    match id {
        0 => (text.trim().to_owned(), UNKNOWN),
        1 | 2 => (text.trim().to_owned(), CONTROL),
        // Some writers give the character with the byte's number in place of its name, which is another token's text.
        3..259 => (format!("<0x{:02X}>", id - 3), BYTE),
        _ => (text.replace(' ', "\u{2581}"), NORMAL),
    }
}
