//! GPTs with random weights, for measurements and tests: the contents of a GGUF file that never exists as a whole. Each
//! element depends only on the seed, its tensor and its index, so any part can be read at any time by any number of
//! threads, and a random model is loaded by the same code as a file.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use super::config::{MAX_CONTEXT, MAX_DIM, MAX_HEAD_DIM, MAX_LAYERS};
use super::load::{LoadParams, Model};
use crate::error::{Error, Result, quoted};
use crate::format::ByteSource;
use crate::format::gguf::{Header, Metadata, TensorEntry, TensorType, Value};
use crate::memory::reserve::{collected, reserve};
use crate::quant::DType;

/// Most parameters of a random model: 8 GB of f32. A mistyped size should be an error, and not take all memory of the
/// machine.
const MAX_PARAMETERS: u64 = 1 << 31;
/// The purpose of lists with an entry for each tensor, in errors.
const TENSORS: &str = "the tensors of a random model";
/// Embeddings are uniform between this and its negative.
const EMBEDDING_BOUND: f32 = 0.02;

/// The shape of a GPT with learned positions, an MLP four times as wide as the residual stream, and an untied head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GptConfig {
    /// Tokens in the vocabulary.
    pub vocab: usize,
    /// Learned positions.
    pub context: usize,
    /// Width of the residual stream; a multiple of `heads`.
    pub dim: usize,
    /// Transformer blocks.
    pub layers: usize,
    /// Attention heads.
    pub heads: usize,
}

impl GptConfig {
    /// 470,528 parameters in 29 tensors.
    pub const SMALL: GptConfig = GptConfig { vocab: 256, context: 64, dim: 128, layers: 2, heads: 4 };
    /// 3,454,464 parameters in 53 tensors.
    pub const MEDIUM: GptConfig = GptConfig { vocab: 512, context: 128, dim: 256, layers: 4, heads: 8 };

    /// Checks the shape.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] naming the number that is 0 or too large, or a width that the heads don't divide.
    pub fn check(&self) -> Result<()> {
        for (name, value, most) in [
            ("vocab", self.vocab, MAX_DIM),
            ("context", self.context, MAX_CONTEXT),
            // The MLP is four times as wide.
            ("dim", self.dim, MAX_DIM / 4),
            ("layers", self.layers, MAX_LAYERS),
            ("heads", self.heads, MAX_DIM),
        ] {
            if !(1..=most).contains(&value) {
                return Err(Error::invalid(format!("{name} is {value}; expected 1 to {most}")));
            }
        }
        let (dim, heads) = (self.dim, self.heads);
        if !dim.is_multiple_of(heads) {
            return Err(Error::invalid(format!("dim is {dim}, no multiple of {heads} heads")));
        }
        if dim / heads > MAX_HEAD_DIM {
            return Err(Error::invalid(format!(
                "heads of {} dimensions; at most {MAX_HEAD_DIM}",
                dim / heads
            )));
        }
        let parameters = self.parameters();
        if parameters > MAX_PARAMETERS {
            return Err(Error::invalid(format!(
                "a random model of {parameters} parameters; at most {MAX_PARAMETERS}"
            )));
        }
        Ok(())
    }

    /// Elements of all tensors; saturating.
    pub fn parameters(&self) -> u64 {
        let [vocab, context, dim, layers] =
            [self.vocab, self.context, self.dim, self.layers].map(|x| x as u64);
        let square = dim.saturating_mul(dim);
        // Four matrices of attention and two of the MLP, which are four times as large; their biases, and two norms.
        let layer = square.saturating_mul(12).saturating_add(dim.saturating_mul(3 + 1 + 4 + 1 + 4));
        let tables = vocab.saturating_mul(2).saturating_add(context).saturating_mul(dim);
        tables.saturating_add(layers.saturating_mul(layer)).saturating_add(dim.saturating_mul(2))
    }

    /// The tensors in the order of the file, and their fills.
    fn tensors(&self) -> Result<Vec<(TensorEntry, Fill)>> {
        let GptConfig { vocab, context, dim, layers, .. } = *self;
        let mut tensors = Vec::new();
        let mut add = |name: String, dims: &[usize], fill| {
            let dims = dims.iter().map(|&dim| dim as u64).collect();
            reserve(&mut tensors, 1, TENSORS)?;
            tensors.push((TensorEntry { name, dims, ty: TensorType(DType::F32.gguf_id()) }, fill));
            Ok::<_, Error>(())
        };
        add("token_embd.weight".into(), &[dim, vocab], Fill::Uniform(EMBEDDING_BOUND))?;
        add("position_embd.weight".into(), &[dim, context], Fill::Uniform(EMBEDDING_BOUND))?;
        for layer in 0..layers {
            let name = |part: &str| format!("blk.{layer}.{part}");
            let mut norm = |part: &str| {
                add(name(&format!("{part}.weight")), &[dim], Fill::Constant(1.0))?;
                add(name(&format!("{part}.bias")), &[dim], Fill::Constant(0.0))
            };
            norm("attn_norm")?;
            norm("ffn_norm")?;
            for (part, inputs, outputs) in [
                ("attn_qkv", dim, 3 * dim),
                ("attn_output", dim, dim),
                ("ffn_up", dim, 4 * dim),
                ("ffn_down", 4 * dim, dim),
            ] {
                add(name(&format!("{part}.weight")), &[inputs, outputs], Fill::xavier(inputs, outputs))?;
                add(name(&format!("{part}.bias")), &[outputs], Fill::Constant(0.0))?;
            }
        }
        add("output_norm.weight".into(), &[dim], Fill::Constant(1.0))?;
        add("output_norm.bias".into(), &[dim], Fill::Constant(0.0))?;
        add("output.weight".into(), &[dim, vocab], Fill::xavier(dim, vocab))?;
        Ok(tensors)
    }

    fn metadata(&self, seed: u64) -> Result<Metadata> {
        let GptConfig { vocab, context, dim, layers, heads } = *self;
        let mut metadata = Metadata::new();
        let mut put = |key: &str, value| metadata.insert(key.to_owned(), value);
        put("general.architecture", Value::Str("gpt2".into()))?;
        put("general.name", Value::Str(format!("Random GPT {vocab},{context},{dim},{layers},{heads}")))?;
        put("general.description", Value::Str(format!("random weights from seed {seed}")))?;
        // All tensors are F32.
        put("general.file_type", Value::U32(0))?;
        for (key, value) in [
            ("vocab_size", vocab),
            ("context_length", context),
            ("embedding_length", dim),
            ("feed_forward_length", 4 * dim),
            ("block_count", layers),
            ("attention.head_count", heads),
        ] {
            // `check` keeps all of these far below u32::MAX.
            put(&format!("gpt2.{key}"), Value::U32(value as u32))?;
        }
        put("gpt2.attention.layer_norm_epsilon", Value::F32(1e-5))?;
        // The name that writers give to a missing vocabulary.
        put("tokenizer.ggml.model", Value::Str("no_vocab".into()))?;
        Ok(metadata)
    }
}

impl FromStr for GptConfig {
    type Err = Error;

    /// Parses `small`, `medium`, or the five numbers vocab, context, dim, layers and heads, separated by commas.
    fn from_str(text: &str) -> Result<GptConfig> {
        let config = match text {
            "small" => GptConfig::SMALL,
            "medium" => GptConfig::MEDIUM,
            _ => {
                let numbers: Option<Vec<usize>> =
                    text.split(',').map(|part| part.trim().parse().ok()).collect();
                let Some(&[vocab, context, dim, layers, heads]) = numbers.as_deref() else {
                    return Err(Error::invalid(format!(
                        "{}: expected small, medium or VOCAB,CONTEXT,DIM,LAYERS,HEADS",
                        quoted(text)
                    )));
                };
                GptConfig { vocab, context, dim, layers, heads }
            }
        };
        config.check()?;
        Ok(config)
    }
}

impl Model {
    /// A GPT with random weights in f32 and without a vocabulary. The same seed gives the same weights on any machine
    /// and any number of threads.
    ///
    /// # Errors
    /// As [`GptConfig::check`]; [`Error::OutOfMemory`], [`Error::Cancelled`].
    pub fn random(config: &GptConfig, seed: u64, params: &LoadParams<'_>) -> Result<Arc<Model>> {
        Self::from_source(Arc::new(RandomGpt::new(config, seed)?), params)
    }
}

/// The values that fill a tensor.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Fill {
    Constant(f32),
    /// Uniform between minus this bound and this bound.
    Uniform(f32),
}

impl Fill {
    /// The bound of Glorot & Bengio 2010, for the matrix as it is stored: queries, keys and values are one matrix.
    fn xavier(inputs: usize, outputs: usize) -> Fill {
        Fill::Uniform((6.0 / (inputs + outputs) as f64).sqrt() as f32)
    }
}

/// The contents of a GGUF file with a GPT's random weights.
///
/// Matrices are Xavier-uniform (queries, keys and values are stored as one matrix), embeddings uniform within ±0.02,
/// biases 0, gains 1.
#[derive(Clone)]
pub struct RandomGpt(RandomFile);

impl fmt::Debug for RandomGpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let RandomFile { seed, fills, header, .. } = &self.0;
        let (tensors, bytes) = (fills.len(), header.file_len);
        write!(f, "RandomGpt of seed {seed} with {tensors} tensors in {bytes} bytes")
    }
}

impl RandomGpt {
    /// The contents for a configuration and a seed.
    ///
    /// # Errors
    /// As [`GptConfig::check`].
    pub fn new(config: &GptConfig, seed: u64) -> Result<RandomGpt> {
        config.check()?;
        let tensors = config.tensors()?;
        let fills = collected(tensors.iter().map(|&(_, fill)| Ok(fill)), TENSORS)?;
        let tensors = collected(tensors.into_iter().map(|(tensor, _)| Ok(tensor)), TENSORS)?;
        let name = format!("random model of seed {seed}");
        Ok(RandomGpt(RandomFile::new(name, seed, &config.metadata(seed)?, &tensors, fills)?))
    }
}

impl ByteSource for RandomGpt {
    fn len(&self) -> u64 {
        self.0.len()
    }

    fn name(&self) -> &str {
        self.0.name()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        self.0.read_at(offset, buf)
    }
}

/// The contents of a GGUF file whose tensors, of f32, are filled by rules.
#[derive(Clone)]
pub(super) struct RandomFile {
    name: String,
    seed: u64,
    header: Header,
    fills: Vec<Fill>,
}

impl RandomFile {
    /// # Errors
    /// As [`Header::new`].
    pub fn new(
        name: String,
        seed: u64,
        metadata: &Metadata,
        tensors: &[TensorEntry],
        fills: Vec<Fill>,
    ) -> Result<RandomFile> {
        Ok(RandomFile { name, seed, header: Header::new(metadata, tensors)?, fills })
    }

    /// Fills the beginning of `out` with the contents at a position, up to the end of the header, tensor or padding
    /// that it is in; returns the number of bytes.
    fn read_piece(&self, at: u64, out: &mut [u8]) -> usize {
        let Header { bytes, offsets, sizes, .. } = &self.header;
        let upto = |end: u64| usize::try_from(end - at).map_or(out.len(), |left| left.min(out.len()));
        let after = offsets.partition_point(|&begin| begin <= at);
        let Some(tensor) = after.checked_sub(1) else {
            let count = upto(bytes.len() as u64);
            out[..count].copy_from_slice(&bytes[at as usize..][..count]);
            return count;
        };
        let within = at - offsets[tensor];
        if within < sizes[tensor] {
            let count = upto(offsets[tensor] + sizes[tensor]);
            self.fill(tensor, within, &mut out[..count]);
            return count;
        }
        let count = upto(offsets.get(after).copied().unwrap_or(self.header.file_len));
        out[..count].fill(0);
        count
    }

    /// Fills `out` with the bytes of a tensor from `at` on.
    fn fill(&self, tensor: usize, at: u64, out: &mut [u8]) {
        let bound = match self.fills[tensor] {
            Fill::Constant(x) => return copy_elements(at, out, |_| x),
            Fill::Uniform(bound) => bound,
        };
        let key = mix(mix(self.seed).wrapping_add(tensor as u64));
        copy_elements(at, out, |element| bound * uniform(mix(key.wrapping_add(element.wrapping_mul(STEP)))));
    }
}

impl ByteSource for RandomFile {
    fn len(&self) -> u64 {
        self.header.file_len
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<()> {
        let end = offset.checked_add(buf.len() as u64).filter(|&end| end <= self.len());
        if end.is_none() {
            return Err(Error::format(format!(
                "{}: {} bytes at {offset} are past the end, which is at {}",
                self.name,
                buf.len(),
                self.len()
            )));
        }
        let mut done = 0;
        while done < buf.len() {
            done += self.read_piece(offset + done as u64, &mut buf[done..]);
        }
        Ok(())
    }
}

/// Fills `out` with the little-endian bytes of a tensor's elements, from byte `at` of the tensor on.
fn copy_elements(at: u64, out: &mut [u8], element: impl Fn(u64) -> f32) {
    let (first, skipped) = (at / 4, (at % 4) as usize);
    let (head, rest) = out.split_at_mut(((4 - skipped) % 4).min(out.len()));
    if !head.is_empty() {
        head.copy_from_slice(&element(first).to_le_bytes()[skipped..][..head.len()]);
    }
    let first = first + u64::from(skipped > 0);
    for (i, bytes) in rest.chunks_mut(4).enumerate() {
        bytes.copy_from_slice(&element(first + i as u64).to_le_bytes()[..bytes.len()]);
    }
}

/// SplitMix64's step.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// SplitMix64's output function (Steele, Lea & Flood 2014) of the next step.
pub(crate) fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(STEP);
    let x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ x >> 31
}

/// A float between −1 and 1 from 23 random bits. It is never −1, 0 or 1, and the distribution is symmetric.
fn uniform(bits: u64) -> f32 {
    ((bits >> 41) as f32 + 0.5) * (1.0 / (1 << 22) as f32) - 1.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::gguf::Gguf;

    const TINY: GptConfig = GptConfig { vocab: 10, context: 5, dim: 6, layers: 1, heads: 2 };

    fn values(source: &RandomGpt, name: &str) -> Vec<f32> {
        let gguf = Gguf::open(Arc::new(source.clone())).unwrap();
        let tensor = gguf.tensor(name).unwrap();
        let mut bytes = vec![0; tensor.bytes as usize];
        gguf.read_tensor(tensor, 0, &mut bytes).unwrap();
        bytes.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }

    #[test]
    fn presets_have_the_counts_they_are_known_by() {
        for (config, parameters, tensors) in
            [(GptConfig::SMALL, 470_528, 29), (GptConfig::MEDIUM, 3_454_464, 53), (TINY, 672, 17)]
        {
            let source = RandomGpt::new(&config, 1).unwrap();
            let gguf = Gguf::open(Arc::new(source)).unwrap();
            assert_eq!((gguf.parameters(), gguf.tensors().len()), (config.parameters(), tensors));
            assert_eq!(config.parameters(), parameters);
        }
    }

    #[test]
    fn any_read_sees_the_same_bytes() {
        let source = RandomGpt::new(&TINY, 7).unwrap();
        let mut whole = vec![0; source.len() as usize];
        source.read_at(0, &mut whole).unwrap();
        for size in [1, 3, 4, 7, 64, 1000] {
            let mut parts = vec![0xee; whole.len()];
            for (i, part) in parts.chunks_mut(size).enumerate() {
                source.read_at((i * size) as u64, part).unwrap();
            }
            assert!(parts == whole, "in parts of {size}");
        }
        for begin in (0..whole.len()).rev() {
            let mut end = vec![0; whole.len() - begin];
            source.read_at(begin as u64, &mut end).unwrap();
            assert!(end == whole[begin..], "from {begin} on");
        }
        source.read_at(source.len(), &mut []).unwrap();
        for (offset, len) in [(source.len(), 1), (0, whole.len() + 1), (u64::MAX, 2)] {
            let error = source.read_at(offset, &mut vec![0; len]).unwrap_err().to_string();
            assert!(error.contains("past the end"), "{error}");
        }
    }

    #[test]
    fn tensors_hold_what_is_promised() {
        let source = RandomGpt::new(&GptConfig::SMALL, 42).unwrap();
        for (name, bound) in [
            ("token_embd.weight", 0.02),
            ("position_embd.weight", 0.02),
            ("blk.0.attn_qkv.weight", (6.0f64 / 512.0).sqrt()),
            ("blk.1.attn_output.weight", (6.0f64 / 256.0).sqrt()),
            ("blk.0.ffn_up.weight", (6.0f64 / 640.0).sqrt()),
            ("blk.1.ffn_down.weight", (6.0f64 / 640.0).sqrt()),
            ("output.weight", (6.0f64 / 384.0).sqrt()),
        ] {
            let values = values(&source, name);
            let n = values.len() as f64;
            let mean = values.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
            let variance = values.iter().map(|&x| f64::from(x) * f64::from(x)).sum::<f64>() / n;
            let largest = values.iter().fold(0.0f64, |max, &x| max.max(f64::from(x).abs()));
            // Five standard deviations of the mean and of the variance; the largest of thousands is near.
            assert!(mean.abs() < 5.0 * bound / (3.0 * n).sqrt(), "{name}: mean {mean}");
            let off = (variance / (bound * bound / 3.0) - 1.0).abs();
            assert!(off < 5.0 * (0.8 / n).sqrt(), "{name}: variance {variance}");
            assert!(largest <= bound * 1.000_001 && largest > bound * 0.998, "{name}: {largest}");
        }
        for (name, value) in
            [("blk.0.attn_norm.weight", 1.0), ("blk.1.ffn_up.bias", 0.0), ("output_norm.bias", 0.0)]
        {
            assert!(values(&source, name).iter().all(|&x| x == value), "{name}");
        }
        let other = RandomGpt::new(&GptConfig::SMALL, 43).unwrap();
        let name = "blk.0.attn_qkv.weight";
        let equal = values(&source, name).iter().zip(values(&other, name)).filter(|(a, b)| *a == b).count();
        assert!(equal < 10, "{equal} elements of another seed are the same");
        let (a, b) = (values(&source, "blk.0.ffn_up.weight"), values(&source, "blk.1.ffn_up.weight"));
        assert!(a.iter().zip(b).filter(|(a, b)| *a == b).count() < 10, "layers are alike");
    }

    #[test]
    fn shapes_that_cannot_be_are_named() {
        let base = GptConfig::SMALL;
        for (config, said) in [
            (GptConfig { vocab: 0, ..base }, "vocab is 0"),
            (GptConfig { context: 0, ..base }, "context is 0"),
            (GptConfig { dim: 0, ..base }, "dim is 0"),
            (GptConfig { layers: 0, ..base }, "layers is 0"),
            (GptConfig { heads: 0, ..base }, "heads is 0"),
            (GptConfig { heads: 3, ..base }, "no multiple of 3 heads"),
            (GptConfig { dim: 2048, heads: 1, ..base }, "heads of 2048 dimensions"),
            (GptConfig { dim: usize::MAX, ..base }, "dim is"),
            (GptConfig { layers: 5000, ..base }, "layers is 5000"),
            (GptConfig { vocab: 1 << 24, dim: 1 << 22, heads: 1 << 12, ..base }, "parameters"),
            (GptConfig { dim: 1 << 16, heads: 64, ..base }, "parameters"),
        ] {
            let error = RandomGpt::new(&config, 0).unwrap_err().to_string();
            assert!(error.contains(said), "{config:?}: {error}");
            assert!(Model::random(&config, 0, &LoadParams::default()).is_err());
        }
        let huge = usize::MAX;
        let all = GptConfig { vocab: huge, context: huge, dim: huge, layers: huge, heads: huge };
        assert_eq!(all.parameters(), u64::MAX);
    }

    #[test]
    fn a_shape_can_be_told_in_words_or_numbers() {
        assert_eq!("small".parse::<GptConfig>().unwrap(), GptConfig::SMALL);
        assert_eq!("medium".parse::<GptConfig>().unwrap(), GptConfig::MEDIUM);
        assert_eq!("10, 5,6,1,2".parse::<GptConfig>().unwrap(), TINY);
        for wrong in ["", "large", "1,2,3,4", "1,2,3,4,5,6", "10,5,-6,1,2", "10,5,6,1,4", "1e9,1,1,1,1"] {
            assert!(wrong.parse::<GptConfig>().is_err(), "{wrong}");
        }
    }
}
