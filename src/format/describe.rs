//! The generic facts that a model file states about itself, for listings. This module knows no model family.

use std::collections::BTreeMap;
use std::fmt;

use super::gguf::{Gguf, TensorType, Value};
use crate::sort;
use crate::text::{escaped_bytes, shortened};

/// The facts of a file. A fact that the file doesn't state, or states in an unexpected type, is `None`; a long text is
/// cut. Texts are as in the file, control characters included, but bytes that aren't UTF-8 are escaped.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Description {
    /// The name of the source: as a rule, the path of a file.
    pub source: String,
    /// Bytes in the file.
    pub file_bytes: u64,
    /// Version of the GGUF format.
    pub version: u32,
    /// `general.name`.
    pub name: Option<String>,
    /// `general.architecture`.
    pub architecture: Option<String>,
    /// `general.license`.
    pub license: Option<String>,
    /// Elements of all tensors.
    pub parameters: u64,
    /// Number of tensors.
    pub tensors: usize,
    /// The totals of each element type, the one with the most bytes first.
    pub types: Vec<TypeShare>,
    /// Positions the model was made for (`<architecture>.context_length`).
    pub context_length: Option<u64>,
    /// Width of the residual stream (`<architecture>.embedding_length`).
    pub embedding_length: Option<u64>,
    /// Layers (`<architecture>.block_count`).
    pub block_count: Option<u64>,
    /// Kind of tokenizer (`tokenizer.ggml.model`), with its pre-tokenizer where one is named.
    pub tokenizer: Option<String>,
    /// Tokens in the vocabulary.
    pub vocabulary: Option<usize>,
    /// Whether the file has a chat template.
    pub chat_template: bool,
}

/// The totals of all tensors of one element type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TypeShare {
    /// The type.
    pub ty: TensorType,
    /// Number of tensors.
    pub tensors: usize,
    /// Their elements.
    pub elements: u64,
    /// Their bytes.
    pub bytes: u64,
}

/// Most characters of a text in a [`Description`].
const MAX_TEXT: usize = 1000;

/// Collects the facts of an opened file.
pub fn describe(gguf: &Gguf) -> Description {
    let metadata = gguf.metadata();
    // A file may hold texts of many megabytes, and lists of as many tensors: what is copied from it is bounded.
    let text = |key: &str| match metadata.get(key)? {
        Value::Str(text) => Some(shortened(text, MAX_TEXT).to_owned()),
        Value::Bytes(bytes) => Some(escaped_bytes(&bytes[..bytes.len().min(MAX_TEXT)]).to_string()),
        _ => None,
    };
    let architecture = text("general.architecture");
    let prefix = architecture.as_deref().unwrap_or_default();
    let number = |key: &str| metadata.get_u64(&format!("{prefix}.{key}")).ok().flatten();
    let tokenizer = text("tokenizer.ggml.model").map(|model| match text("tokenizer.ggml.pre") {
        Some(pre) => format!("{model} ({pre})"),
        None => model,
    });
    let types = type_shares(gguf);
    Description {
        source: gguf.source().name().to_owned(),
        file_bytes: gguf.source().len(),
        version: gguf.version(),
        name: text("general.name"),
        license: text("general.license"),
        parameters: gguf.parameters(),
        tensors: gguf.tensors().len(),
        types,
        context_length: number("context_length"),
        embedding_length: number("embedding_length"),
        block_count: number("block_count"),
        tokenizer,
        vocabulary: metadata.get_str_array("tokenizer.ggml.tokens").ok().flatten().map(|t| t.len()),
        chat_template: text("tokenizer.chat_template").is_some(),
        architecture,
    }
}

/// Totals by type; saturating, as [`Gguf::parameters`].
fn type_shares(gguf: &Gguf) -> Vec<TypeShare> {
    let mut by_type: BTreeMap<TensorType, TypeShare> = BTreeMap::new();
    for tensor in gguf.tensors() {
        let ty = tensor.ty;
        let share = by_type.entry(ty).or_insert(TypeShare { ty, tensors: 0, elements: 0, bytes: 0 });
        share.tensors += 1;
        share.elements = share.elements.saturating_add(tensor.elements());
        share.bytes += tensor.bytes;
    }
    let mut shares: Vec<TypeShare> = by_type.into_values().collect();
    sort::by_key(&mut shares, |share| (std::cmp::Reverse(share.bytes), share.ty));
    shares
}

impl fmt::Display for TypeShare {
    /// Writes, for example, `210 × Q4_1, 106.2 M parameters, 66.4 MB`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (parameters, bytes) = (self.elements as f64 / 1e6, self.bytes as f64 / 1e6);
        write!(f, "{} × {}, {parameters:.1} M parameters, {bytes:.1} MB", self.tensors, self.ty)
    }
}
