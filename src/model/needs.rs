//! What a file's model takes to run, told from its header alone and for any family, also one that is unknown here: bytes
//! of weights, those that each token reads, and those that each position of a context keeps.

use crate::format::gguf::{Array, Gguf, Value};

/// The needs of a model. All numbers are of the file: what is loaded may be packed a little differently.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Needs {
    /// Bytes of all tensors.
    pub weight_bytes: u64,
    /// Bytes of tensors that are read to decode one token: all but tables, and of experts those that are chosen.
    pub token_bytes: u64,
    /// Elements of keys and values that a position keeps; `None` where the file doesn't tell.
    pub cache_elements: Option<u64>,
    /// Bytes of state that recurrent layers keep, however long a text is.
    pub state_bytes: u64,
    /// Layers with a window keep this many positions at most, and so many of the elements are theirs.
    pub windowed: Option<Windowed>,
}

/// The part of a cache that doesn't grow beyond a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Windowed {
    /// Positions.
    pub positions: u64,
    /// Elements of a position, of those of [`Needs::cache_elements`].
    pub elements: u64,
}

impl Needs {
    /// The needs of the model in a file.
    pub fn of(gguf: &Gguf) -> Needs {
        let weight_bytes = gguf.tensors().iter().fold(0u64, |sum, tensor| sum.saturating_add(tensor.bytes));
        let cache_elements = cache_elements(gguf);
        let token_bytes = token_bytes(gguf);
        Needs {
            weight_bytes,
            token_bytes,
            cache_elements,
            windowed: windowed(gguf, cache_elements),
            state_bytes: state_bytes(gguf),
        }
    }

    /// Bytes of the cache for so many positions, with elements of `element_bits` bits.
    pub fn cache_bytes(&self, positions: u64, element_bits: u64) -> Option<u64> {
        let all = u128::from(self.cache_elements?);
        let (inner, most) = self.windowed.map_or((0, 0), |window| (window.elements, window.positions));
        let whole = (all - u128::from(inner)) * u128::from(positions);
        let elements = whole + u128::from(inner) * u128::from(positions.min(most));
        u64::try_from(elements * u128::from(element_bits) / 8).ok()
    }
}

/// A hyperparameter of the file's architecture: a number, or the sum of one for each layer.
fn number(gguf: &Gguf, key: &str) -> Option<u64> {
    let metadata = gguf.metadata();
    let architecture = metadata.get_str("general.architecture").ok().flatten()?;
    match metadata.get(&format!("{architecture}.{key}"))? {
        Value::Array(array) => array.first_integer(),
        _ => metadata.get_u64(&format!("{architecture}.{key}")).ok().flatten(),
    }
}

fn token_bytes(gguf: &Gguf) -> u64 {
    let tied = gguf.tensor("output.weight").is_none();
    let experts = number(gguf, "expert_count").filter(|&count| count > 0);
    let used = number(gguf, "expert_used_count");
    let bytes = gguf.tensors().iter().map(|tensor| match tensor.name.as_str() {
        "token_embd.weight" if tied => tensor.bytes,
        "token_embd.weight"
        | "per_layer_token_embd.weight"
        | "position_embd.weight"
        | "token_types.weight" => 0,
        name if name.contains("_exps.") => match (experts, used) {
            (Some(count), Some(used)) => tensor.bytes / count * used.min(count),
            _ => tensor.bytes,
        },
        _ => tensor.bytes,
    });
    bytes.fold(0, u64::saturating_add)
}

/// Elements of keys and values of a position, in all layers that have any.
fn cache_elements(gguf: &Gguf) -> Option<u64> {
    let heads = largest(gguf, "attention.head_count")?;
    let width = number(gguf, "embedding_length")?;
    let kv_heads = largest(gguf, "attention.head_count_kv").unwrap_or(heads);
    let head = || width.checked_div(heads);
    let keys = number(gguf, "attention.key_length").or_else(head)?;
    let values = number(gguf, "attention.value_length").or_else(head)?;
    kv_heads.checked_mul(keys.checked_add(values)?)?.checked_mul(attention_layers(gguf)?)
}

/// [`number`], but of several numbers the largest: in hybrids layers without attention have 0 heads.
fn largest(gguf: &Gguf, key: &str) -> Option<u64> {
    let metadata = gguf.metadata();
    let architecture = metadata.get_str("general.architecture").ok().flatten()?;
    match metadata.get(&format!("{architecture}.{key}"))? {
        Value::Array(Array::U32(list)) => list.iter().max().map(|&count| count.into()),
        Value::Array(Array::I32(list)) => list.iter().max().and_then(|&count| count.try_into().ok()),
        _ => number(gguf, key),
    }
}

/// Bytes of the state of all recurrent layers, told from their convolutions: the last inputs of each, and the state
/// behind it.
fn state_bytes(gguf: &Gguf) -> u64 {
    let behind = number(gguf, "ssm.state_size").zip(number(gguf, "ssm.inner_size"));
    let behind = behind.map_or(0, |(state, inner)| state.saturating_mul(inner));
    let floats = gguf.tensors().iter().map(|tensor| {
        let behind = match tensor.name.strip_prefix("blk.").and_then(|name| name.split_once('.')) {
            Some((_, "ssm_conv1d.weight")) => behind,
            Some((_, "shortconv.conv.weight")) => 0,
            _ => return 0,
        };
        let dim = |i: usize| tensor.shape().get(i).copied().unwrap_or(1);
        dim(0).saturating_sub(1).saturating_mul(dim(1)).saturating_add(behind)
    });
    floats.fold(0, u64::saturating_add).saturating_mul(4)
}

/// Blocks that keep keys: in hybrids only some do.
fn attention_layers(gguf: &Gguf) -> Option<u64> {
    let blocks = number(gguf, "block_count")?;
    let keeps = |tensor: &&crate::format::gguf::TensorInfo| {
        tensor.name.starts_with("blk.")
            && [".attn_k.weight", ".attn_qkv.weight", ".attn_kv_a_mqa.weight"]
                .iter()
                .any(|end| tensor.name.ends_with(end))
    };
    match gguf.tensors().iter().filter(keeps).count() as u64 {
        0 if state_bytes(gguf) > 0 => Some(0),
        0 => Some(blocks),
        count => Some(count.min(blocks)),
    }
}

/// The layers with a window: all, or as many as a pattern says (of five in six, as a rule).
fn windowed(gguf: &Gguf, cache_elements: Option<u64>) -> Option<Windowed> {
    let positions = number(gguf, "attention.sliding_window").filter(|&positions| positions > 0)?;
    let metadata = gguf.metadata();
    let architecture = metadata.get_str("general.architecture").ok().flatten()?;
    let elements = cache_elements?;
    let elements = match metadata.get(&format!("{architecture}.attention.sliding_window_pattern")) {
        Some(Value::Array(Array::Bool(layers))) if !layers.is_empty() => {
            let windowed = layers.iter().filter(|&&windowed| windowed).count() as u64;
            elements / layers.len() as u64 * windowed
        }
        Some(value) => match value.to_string().parse::<u64>() {
            Ok(pattern @ 2..) => elements / pattern * (pattern - 1),
            _ => elements,
        },
        None => match architecture {
            "gemma3" => elements / 6 * 5,
            "gemma2" | "gpt-oss" => elements / 2,
            _ => elements,
        },
    };
    Some(Windowed { positions, elements })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::BytesSource;
    use crate::format::gguf::{Header, Metadata, TensorEntry, TensorType};
    use std::sync::Arc;

    fn file(pairs: &[(&str, u32)], tensors: &[(&str, &[u64])]) -> Gguf {
        let mut metadata = Metadata::new();
        metadata.insert("general.architecture".into(), Value::Str("strange".into())).unwrap();
        for (key, value) in pairs {
            metadata.insert(format!("strange.{key}"), Value::U32(*value)).unwrap();
        }
        let entries: Vec<_> = tensors
            .iter()
            .map(|(name, dims)| TensorEntry { name: (*name).into(), dims: dims.to_vec(), ty: TensorType(0) })
            .collect();
        let header = Header::new(&metadata, &entries).unwrap();
        let mut bytes = header.bytes;
        bytes.resize(header.file_len as usize, 0);
        Gguf::open(Arc::new(BytesSource::new("a", bytes))).unwrap()
    }

    #[test]
    fn experts_and_tables_are_read_in_part() {
        let tensors: [(&str, &[u64]); 4] = [
            ("token_embd.weight", &[8, 10]),
            ("output.weight", &[8, 10]),
            ("blk.0.ffn_up_exps.weight", &[8, 4, 16]),
            ("blk.0.attn_k.weight", &[8, 4]),
        ];
        let needs = Needs::of(&file(&[("expert_count", 16), ("expert_used_count", 2)], &tensors));
        assert_eq!(needs.weight_bytes, 4 * (80 + 80 + 512 + 32));
        assert_eq!(needs.token_bytes, 4 * (80 + 64 + 32));
        assert_eq!(needs.cache_elements, None);
        let tied = Needs::of(&file(&[], &tensors[..1]));
        assert_eq!(tied.token_bytes, 320);
    }

    #[test]
    fn recurrent_layers_keep_states_and_no_keys() {
        let pairs =
            [("embedding_length", 8), ("block_count", 3), ("ssm.state_size", 5), ("ssm.inner_size", 16)];
        let conv: (&str, &[u64]) = ("blk.0.ssm_conv1d.weight", &[4, 20]);
        let heads = [("attention.head_count", 2), ("attention.head_count_kv", 2)];
        let needs = Needs::of(&file(&[&pairs[..], &heads].concat(), &[conv]));
        assert_eq!((needs.state_bytes, needs.cache_elements), (4 * (3 * 20 + 5 * 16), Some(0)));
        let key: (&str, &[u64]) = ("blk.2.attn_k.weight", &[8, 8]);
        let short: (&str, &[u64]) = ("blk.1.shortconv.conv.weight", &[3, 8]);
        let needs = Needs::of(&file(&[&pairs[..2], &heads].concat(), &[short, key]));
        assert_eq!((needs.state_bytes, needs.cache_elements), (4 * 2 * 8, Some(2 * 2 * 4)));
    }

    #[test]
    fn a_cache_grows_up_to_its_windows() {
        let pairs = [
            ("attention.head_count", 8),
            ("attention.head_count_kv", 2),
            ("embedding_length", 64),
            ("block_count", 6),
        ];
        let needs = Needs::of(&file(&pairs, &[]));
        assert_eq!(needs.cache_elements, Some(6 * 2 * 16));
        assert_eq!(needs.cache_bytes(1000, 16), Some(6 * 2 * 16 * 2 * 1000));
        let pairs =
            [&pairs[..], &[("attention.sliding_window", 100), ("attention.sliding_window_pattern", 6)]]
                .concat();
        let needs = Needs::of(&file(&pairs, &[]));
        assert_eq!(needs.cache_bytes(1000, 16), Some(2 * 16 * 2 * (1000 + 5 * 100)));
        let absurd =
            [("attention.head_count", u32::MAX), ("embedding_length", u32::MAX), ("block_count", u32::MAX)];
        let needs = Needs::of(&file(&absurd, &[]));
        assert!(needs.cache_bytes(u64::MAX, 16).is_none());
        assert_eq!(
            Needs::of(&file(&[("attention.head_count", 0), ("embedding_length", 1)], &[])).cache_elements,
            None
        );
    }
}
