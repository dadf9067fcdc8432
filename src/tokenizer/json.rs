//! Tokenizers of Hugging Face folders: `tokenizer.json` is read and applied by the `tokenizers` crate itself, so tokens
//! are those that the model was trained with. Decoding is this library's: the bytes of each token are worked out once.

use super::special::Finder;
use super::vocab::{Kind, Spelling, Vocabulary};
use super::{Algorithm, Tokenizer, TokenizerSource, VOCABULARY, WHAT};
use crate::error::{Error, Result, quoted};
use crate::memory::reserve::{filled, held, reserve};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tokenizers::models::TrainerWrapper;
use tokenizers::{
    DecoderWrapper, Model, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper, Token,
    TokenizerBuilder, TokenizerImpl,
};

/// Most memory that `tokenizers` takes for a file, in bytes for each of its bytes.
const FILE_BYTES_PER_BYTE: usize = 16;
/// Most memory that it takes for a text, in bytes for each of its bytes: alignments, tokens, and their texts.
const TEXT_BYTES_PER_BYTE: usize = 300;
/// Most tokens of a vocabulary: ids are positions in lists.
const MAX_TOKENS: usize = 1 << 24;

/// What a folder says of its tokenizer in files other than `tokenizer.json`.
#[derive(Clone, Copy, Debug, Default)]
pub struct JsonConfig<'a> {
    /// The contents of `tokenizer_config.json`, which names the tokens that begin and end a sequence.
    pub tokenizer_config: Option<&'a [u8]>,
    /// The contents of `generation_config.json`, which lists the tokens that end a generation.
    pub generation_config: Option<&'a [u8]>,
    /// Rows of the embedding. The file may have fewer tokens, the others have no text; it can't have more.
    pub n_vocab: Option<usize>,
}

/// A model that two tokenizers share.
#[derive(Clone)]
struct Shared(Arc<ModelWrapper>);

impl Model for Shared {
    type Trainer = TrainerWrapper;

    fn tokenize(&self, sequence: &str) -> tokenizers::Result<Vec<Token>> {
        self.0.tokenize(sequence)
    }

    fn token_to_id(&self, token: &str) -> Option<u32> {
        self.0.token_to_id(token)
    }

    fn id_to_token(&self, id: u32) -> Option<String> {
        self.0.id_to_token(id)
    }

    fn get_vocab(&self) -> HashMap<String, u32> {
        self.0.get_vocab()
    }

    fn get_vocab_size(&self) -> usize {
        self.0.get_vocab_size()
    }

    fn save(&self, folder: &Path, prefix: Option<&str>) -> tokenizers::Result<Vec<PathBuf>> {
        self.0.save(folder, prefix)
    }

    fn get_trainer(&self) -> TrainerWrapper {
        self.0.get_trainer()
    }
}

type Whole =
    TokenizerImpl<Shared, NormalizerWrapper, PreTokenizerWrapper, PostProcessorWrapper, DecoderWrapper>;

/// A tokenizer of the `tokenizers` crate.
pub(super) struct Json {
    /// Makes control tokens of their texts.
    parsing: Whole,
    /// Makes none.
    plain: Whole,
    ids: HashMap<String, u32>,
}

impl Json {
    fn new(tokenizer: &tokenizers::Tokenizer, ids: HashMap<String, u32>) -> Result<Self> {
        let model = Shared(Arc::new(tokenizer.get_model().clone()));
        let build = |encode_special: bool| {
            let mut built: Whole = TokenizerBuilder::new()
                .with_model(model.clone())
                .with_normalizer(tokenizer.get_normalizer().cloned())
                .with_pre_tokenizer(tokenizer.get_pre_tokenizer().cloned())
                .with_post_processor(tokenizer.get_post_processor().cloned())
                .with_decoder(tokenizer.get_decoder().cloned())
                .with_added_vocabulary(tokenizer.get_added_vocabulary().clone())
                .build()
                .map_err(|error| Error::Internal(format!("a tokenizer: {error}")))?;
            built.set_encode_special_tokens(encode_special);
            Ok::<_, Error>(built)
        };
        Ok(Self { parsing: build(false)?, plain: build(true)?, ids })
    }

    /// Appends the tokens of `text`.
    pub(super) fn encode(
        &self,
        text: &str,
        parse_special: bool,
        add_special: bool,
        ids: &mut Vec<u32>,
    ) -> Result<()> {
        let _held = held(text.len().saturating_mul(TEXT_BYTES_PER_BYTE), WHAT)?;
        let tokenizer = if parse_special { &self.parsing } else { &self.plain };
        let encoding = tokenizer
            .encode_fast(text, add_special)
            .map_err(|error| Error::format(format!("tokenizer.json: {}", quoted(&error.to_string()))))?;
        reserve(ids, encoding.len(), WHAT)?;
        ids.extend_from_slice(encoding.get_ids());
        Ok(())
    }

    /// The token with this text.
    pub(super) fn id(&self, text: &str) -> Option<u32> {
        self.ids.get(text).copied()
    }
}

impl Tokenizer {
    /// The tokenizer of a Hugging Face folder: `json` is the contents of `tokenizer.json`.
    ///
    /// # Errors
    /// [`Error::Format`] for a file that is no such tokenizer, has more tokens than the embedding has rows, or two tokens
    /// with one id, and for configurations that are no JSON; [`Error::Unsupported`] for a decoder that this library
    /// doesn't have; [`Error::OutOfMemory`].
    pub fn from_json(json: &[u8], config: &JsonConfig<'_>) -> Result<Self> {
        let _held = held(json.len().saturating_mul(FILE_BYTES_PER_BYTE), VOCABULARY)?;
        let tokenizer = tokenizers::Tokenizer::from_bytes(json)
            .map_err(|error| Error::format(format!("tokenizer.json: {}", quoted(&error.to_string()))))?;
        let decoder = Decoder::of(&tokenizer)?;
        let ids = tokenizer.get_vocab(true);
        let mut source = source(&tokenizer, &ids, &decoder, config.n_vocab)?;
        let settings = parsed("tokenizer_config.json", config.tokenizer_config)?;
        let generation = parsed("generation_config.json", config.generation_config)?;
        let named = |key: &str| {
            let value = &settings[key];
            value.as_str().or_else(|| value["content"].as_str()).and_then(|text| ids.get(text).copied())
        };
        let listed = |key: &str| listed(&generation[key], source.tokens.len());
        (source.bos, source.eos) = (named("bos_token"), named("eos_token"));
        source.bos = source.bos.or(listed("bos_token_id").first().copied());
        let ends = listed("eos_token_id");
        source.eos = source.eos.or(ends.first().copied());
        let mut vocabulary = Vocabulary::new(&source, decoder.spelling)?;
        vocabulary.add_ends(&ends)?;
        let all_special = Finder::new(&source, vocabulary.ids_of(&[Kind::Control, Kind::UserDefined])?)?;
        let user_defined = Finder::new(&source, vocabulary.ids_of(&[Kind::UserDefined])?)?;
        let json = Json::new(&tokenizer, ids)?;
        let mut empty = Vec::new();
        json.encode("", false, true, &mut empty)?;
        let adds_bos = source.bos.is_some() && empty.first() == source.bos.as_ref();
        Ok(Self {
            vocabulary,
            algorithm: Algorithm::Json(Box::new(json)),
            others: HashMap::new(),
            all_special,
            user_defined,
            adds_bos,
            appended: None,
            adds_space: decoder.strips_space,
        })
    }
}

/// What the file's decoder does.
struct Decoder {
    spelling: Spelling,
    /// Whether it takes a space from the beginning of the text.
    strips_space: bool,
    /// The mark of a token that continues a word, for WordPiece.
    continuation: Option<String>,
}

impl Decoder {
    fn of(tokenizer: &tokenizers::Tokenizer) -> Result<Self> {
        let spaced =
            |strips_space, continuation| Self { spelling: Spelling::Spaced, strips_space, continuation };
        Ok(match tokenizer.get_decoder() {
            None => spaced(false, None),
            Some(DecoderWrapper::ByteLevel(_)) => {
                Self { spelling: Spelling::Bytes, strips_space: false, continuation: None }
            }
            Some(DecoderWrapper::WordPiece(decoder)) => spaced(true, Some(decoder.prefix.clone())),
            Some(DecoderWrapper::Metaspace(_)) => spaced(true, None),
            Some(DecoderWrapper::Sequence(steps)) => {
                let steps = steps.get_decoders();
                if steps.iter().any(|step| matches!(step, DecoderWrapper::ByteLevel(_))) {
                    return Ok(Self { spelling: Spelling::Bytes, strips_space: false, continuation: None });
                }
                let strips = |step: &DecoderWrapper| {
                    matches!(step, DecoderWrapper::Strip(_) | DecoderWrapper::Metaspace(_))
                };
                spaced(steps.iter().any(strips), None)
            }
            Some(_) => return Err(Error::Unsupported("the decoder in tokenizer.json".into())),
        })
    }
}

/// The vocabulary as plain data, from which the bytes of tokens are worked out.
fn source(
    tokenizer: &tokenizers::Tokenizer,
    ids: &HashMap<String, u32>,
    decoder: &Decoder,
    n_vocab: Option<usize>,
) -> Result<TokenizerSource> {
    let n_tokens = ids.values().max().map_or(0, |&id| id as usize + 1);
    let limit = n_vocab.unwrap_or(MAX_TOKENS).min(MAX_TOKENS);
    if n_tokens > limit {
        let last = n_tokens - 1;
        return Err(Error::format(format!("token {last} in tokenizer.json; ids must be below {limit}")));
    }
    let n_tokens = n_vocab.unwrap_or(n_tokens);
    let mut tokens = filled(String::new(), n_tokens, VOCABULARY)?;
    let mut token_types = filled(5, n_tokens, VOCABULARY)?;
    let added = tokenizer.get_added_tokens_decoder();
    for (text, &id) in ids {
        let at = id as usize;
        if token_types[at] != 5 {
            return Err(Error::format(format!("token {id} occurs twice in tokenizer.json")));
        }
        let kind = added.get(&id).map(|token| if token.special { 3 } else { 4 });
        token_types[at] = kind.unwrap_or(if super::vocab::byte_named(text).is_some() { 6 } else { 1 });
        tokens[at] = match decoder.continuation.as_deref().filter(|_| kind.is_none()) {
            None => text.clone(),
            Some(prefix) => match text.strip_prefix(prefix) {
                Some(rest) => rest.into(),
                None => format!("{}{text}", super::SPACE),
            },
        };
    }
    Ok(TokenizerSource { model: "json".into(), tokens, token_types, ..TokenizerSource::default() })
}

/// A configuration, or null.
fn parsed(name: &str, bytes: Option<&[u8]>) -> Result<Value> {
    bytes.map_or(Ok(Value::Null), |bytes| {
        serde_json::from_slice(bytes).map_err(|error| Error::format(format!("{name}: {error}")))
    })
}

/// The ids of a value that is one or a list of them.
fn listed(value: &Value, n_tokens: usize) -> Vec<u32> {
    let one = std::slice::from_ref(value);
    let ids = value.as_array().map_or(one, Vec::as_slice).iter().filter_map(Value::as_u64);
    ids.filter(|&id| id < n_tokens as u64).map(|id| id as u32).collect()
}
