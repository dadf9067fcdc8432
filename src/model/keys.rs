//! Typed look-ups of hyperparameters under one architecture's prefix, with an account of the keys that were looked up:
//! a key that nothing has read, but that would change the computation, is an error or a warning.

use std::cell::Cell;
use std::ops::RangeInclusive;

use super::config::MAX_CONTEXT;
use super::unread::{self, Effect};
use crate::error::{Error, Result};
use crate::format::gguf::{Array, Metadata, Value};
use crate::memory::reserve::{collected, filled, reserve};

/// The purpose of lists with an entry for each layer, in errors.
const LAYERS: &str = "the configuration of layers";

/// Most ignored keys that are told one by one.
const MAX_WARNINGS: usize = 20;

/// Typed look-ups under one architecture's prefix.
pub(crate) struct Keys<'a> {
    metadata: &'a Metadata,
    architecture: &'a str,
    /// Whether each pair of the metadata has been looked up.
    read: Vec<Cell<bool>>,
}

impl<'a> Keys<'a> {
    pub fn new(metadata: &'a Metadata) -> Result<Self> {
        let architecture = metadata.require_str("general.architecture")?;
        let read = filled(Cell::new(false), metadata.len(), "the configuration")?;
        Ok(Keys { metadata, architecture, read })
    }

    pub fn architecture(&self) -> &'a str {
        self.architecture
    }

    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    /// The full key, which counts as read from now on.
    fn look_up(&self, name: &str) -> String {
        let key = self.key(name);
        self.mark(&key);
        key
    }

    /// Whether the key is there.
    pub fn has(&self, name: &str) -> bool {
        self.metadata.get(&self.key(name)).is_some()
    }

    fn mark(&self, key: &str) {
        if let Some(place) = self.metadata.position(key) {
            self.read[place].set(true);
        }
    }

    /// Notes that keys mean nothing beside the values of others, so that they don't count as unread.
    pub fn void(&self, names: &[&str]) {
        names.iter().for_each(|name| self.mark(&self.key(name)));
    }

    /// A number from 1 to `max`; `None` where the key is absent.
    pub fn optional(&self, name: &str, max: usize) -> Result<Option<usize>> {
        let key = self.look_up(name);
        let Some(value) = self.metadata.get_u32(&key)? else { return Ok(None) };
        in_range(&key, i64::from(value), 1..=max).map(Some)
    }

    /// [`Keys::optional`] for a key that must exist.
    pub fn required(&self, name: &str, max: usize) -> Result<usize> {
        self.optional(name, max)?.ok_or_else(|| self.missing(name))
    }

    /// The positions that a layer's window has, up to a context's; 0 where the file states none.
    pub fn window(&self) -> Result<usize> {
        self.count_below("attention.sliding_window", MAX_CONTEXT + 1)
    }

    /// A number below `end`; 0 where the key is absent.
    pub fn count_below(&self, name: &str, end: usize) -> Result<usize> {
        let key = self.look_up(name);
        match self.metadata.get_u32(&key)?.unwrap_or(0) as usize {
            count if count < end => Ok(count),
            count => Err(Error::format(format!("{key} is {count}; expected less than {end}"))),
        }
    }

    /// The error for a key that must exist.
    pub fn missing(&self, name: &str) -> Error {
        Error::format(format!("metadata key {} is missing", self.key(name)))
    }

    /// A number for each layer, from one number for all layers or an array. `None` where the key is absent.
    pub fn per_layer(&self, name: &str, max: usize, n_layer: usize) -> Result<Option<Vec<usize>>> {
        self.layers_in(name, 1..=max, n_layer)
    }

    /// [`Keys::per_layer`], where a number may be 0.
    pub fn per_layer_or_zero(&self, name: &str, max: usize, n_layer: usize) -> Result<Option<Vec<usize>>> {
        self.layers_in(name, 0..=max, n_layer)
    }

    fn layers_in(
        &self,
        name: &str,
        range: RangeInclusive<usize>,
        n_layer: usize,
    ) -> Result<Option<Vec<usize>>> {
        let key = self.look_up(name);
        let number = |value: i64| in_range(&key, value, range.clone());
        match self.metadata.get(&key) {
            Some(Value::Array(array)) if array.len() != n_layer => {
                Err(Error::format(format!("{key} has {} numbers for {n_layer} layers", array.len())))
            }
            Some(Value::Array(Array::U32(values))) => {
                collected(values.iter().map(|&value| number(value.into())), LAYERS).map(Some)
            }
            Some(Value::Array(Array::I32(values))) => {
                collected(values.iter().map(|&value| number(value.into())), LAYERS).map(Some)
            }
            _ => {
                let value = self.metadata.get_u32(&key)?.map(|value| number(value.into())).transpose()?;
                value.map(|value| filled(value, n_layer, LAYERS)).transpose()
            }
        }
    }

    /// A truth value for each of `n_layer` layers: from a list, or from a period whose last layer is false; a period of 0
    /// is true everywhere.
    pub fn pattern(&self, name: &str, period: usize, n_layer: usize) -> Result<Vec<bool>> {
        let key = self.look_up(name);
        let list = match self.metadata.get(&key) {
            Some(Value::Array(Array::Bool(list))) => Some(collected(list.iter().map(|&x| Ok(x)), LAYERS)?),
            Some(Value::Array(Array::U32(list))) => {
                Some(collected(list.iter().map(|&x| Ok(x != 0)), LAYERS)?)
            }
            Some(Value::Array(Array::I32(list))) => {
                Some(collected(list.iter().map(|&x| Ok(x != 0)), LAYERS)?)
            }
            _ => None,
        };
        match list {
            Some(list) if list.len() == n_layer => return Ok(list),
            Some(list) => {
                return Err(Error::format(format!("{key} has {} values for {n_layer} layers", list.len())));
            }
            None => {}
        }
        let period = self.metadata.get_u32(&key)?.map_or(period, |period| period as usize);
        collected((0..n_layer).map(|i| Ok(period == 0 || i % period != period - 1)), LAYERS)
    }

    /// Whether the key has a list.
    pub fn is_list(&self, name: &str) -> bool {
        matches!(self.metadata.get(&self.look_up(name)), Some(Value::Array(_)))
    }

    /// [`Keys::pattern`], except that the first layer of a period, and not its last, is the one that differs; it is
    /// true, the others are false.
    pub fn first_of_period(&self, name: &str, period: usize, n_layer: usize) -> Result<Vec<bool>> {
        match self.is_list(name) {
            true => {
                let mut windowed = self.pattern(name, period, n_layer)?;
                windowed.iter_mut().for_each(|windowed| *windowed = !*windowed);
                Ok(windowed)
            }
            false => {
                let period = self.metadata.get_u32(&self.key(name))?.map_or(period, |period| period as usize);
                collected((0..n_layer).map(|i| Ok(period != 0 && i % period == 0)), LAYERS)
            }
        }
    }

    /// A list of numbers; empty where the key is absent.
    pub fn list(&self, name: &str) -> Result<Vec<i64>> {
        let key = self.look_up(name);
        match self.metadata.get(&key) {
            None => Ok(Vec::new()),
            Some(Value::Array(Array::U32(list))) => collected(list.iter().map(|&x| Ok(x.into())), LAYERS),
            Some(Value::Array(Array::I32(list))) => collected(list.iter().map(|&x| Ok(x.into())), LAYERS),
            Some(_) => Err(Error::format(format!("{key} is no list of numbers"))),
        }
    }

    /// A finite number of at least 0, or the default where the key is absent.
    pub fn not_negative(&self, name: &str, default: f32) -> Result<f32> {
        match self.number(name)?.unwrap_or(default) {
            value if value >= 0.0 => Ok(value),
            value => {
                let key = self.key(name);
                Err(Error::format(format!("{key} is {value}; expected a finite number of at least 0")))
            }
        }
    }

    /// A finite number; `None` where the key is absent.
    pub fn number(&self, name: &str) -> Result<Option<f32>> {
        let key = self.look_up(name);
        match self.metadata.get_f32(&key)? {
            Some(value) if !value.is_finite() => {
                Err(Error::format(format!("{key} is {value}; expected a finite number")))
            }
            value => Ok(value),
        }
    }

    /// A finite number other than 0; `None` where the key is absent or 0.
    pub fn nonzero(&self, name: &str) -> Result<Option<f32>> {
        Ok(self.number(name)?.filter(|&value| value != 0.0))
    }

    /// A truth value, or the default where the key is absent.
    pub fn flag(&self, name: &str, default: bool) -> Result<bool> {
        let key = self.look_up(name);
        match self.metadata.get(&key) {
            None => Ok(default),
            Some(Value::Bool(value)) => Ok(*value),
            Some(_) => Err(Error::format(format!("{key} is no truth value"))),
        }
    }

    /// A text; `None` where the key is absent.
    pub fn text(&self, name: &str) -> Result<Option<&'a str>> {
        self.metadata.get_str(&self.look_up(name))
    }

    /// A number of 32 bits, with or without a sign; `None` where the key is absent.
    pub fn integer(&self, name: &str) -> Result<Option<i64>> {
        let key = self.look_up(name);
        match self.metadata.get(&key) {
            Some(Value::I32(number)) => Ok(Some((*number).into())),
            _ => Ok(self.metadata.get_u32(&key)?.map(i64::from)),
        }
    }

    /// The length of a list of texts; 0 where the key is absent.
    pub fn count_of_texts(&self, name: &str) -> Result<usize> {
        let key = self.look_up(name);
        match self.metadata.get(&key) {
            None => Ok(0),
            Some(Value::Array(array @ Array::Str(_))) => Ok(array.len()),
            Some(_) => Err(Error::format(format!("{key} is no list of texts"))),
        }
    }

    /// `general.name`, which computes nothing: empty where it is absent or no text.
    pub fn model_name(&self) -> &'a str {
        self.metadata.get_str("general.name").ok().flatten().unwrap_or_default()
    }

    /// A finite float above zero, or the default where the key is absent.
    pub fn positive(&self, name: &str, default: f32) -> Result<f32> {
        let key = self.look_up(name);
        let value = self.metadata.get_f32(&key)?.unwrap_or(default);
        if !(value.is_finite() && value > 0.0) {
            return Err(Error::format(format!("{key} is {value}; expected a finite number above 0")));
        }
        Ok(value)
    }

    /// [`Keys::positive`], except that 0 and −1 count as an absent key, as in llama.cpp.
    pub fn positive_or_unset(&self, name: &str, default: f32) -> Result<f32> {
        match self.metadata.get_f32(&self.look_up(name))? {
            Some(0.0 | -1.0) => Ok(default),
            _ => self.positive(name, default),
        }
    }

    /// Warnings about keys that nothing has read and whose values would change the computation.
    ///
    /// # Errors
    /// [`Error::Unsupported`] for a key without which the results would be wrong: llama.cpp computes with it in every
    /// family, or the model was trained with it.
    pub fn unread(&self) -> Result<Vec<String>> {
        let (mut warnings, mut ignored) = (Vec::new(), 0);
        for ((key, value), read) in self.metadata.iter().zip(&self.read) {
            let of_family = key.strip_prefix(self.architecture).and_then(|rest| rest.strip_prefix('.'));
            let Some(name) = of_family.or(key.starts_with("xielu.").then_some(key)) else { continue };
            match unread::effect(name, value) {
                _ if read.get() => {}
                Effect::None => {}
                Effect::Wrong(about) => {
                    let key = crate::error::quoted(key);
                    return Err(Error::Unsupported(format!("{about} (metadata key {key} = {value})")));
                }
                Effect::Ignored(about) => {
                    ignored += 1;
                    if ignored <= MAX_WARNINGS {
                        reserve(&mut warnings, 1, "warnings")?;
                        warnings.push(unread::warning(key, value, about));
                    }
                }
            }
        }
        if ignored > MAX_WARNINGS {
            reserve(&mut warnings, 1, "warnings")?;
            warnings.push(format!("{} further metadata keys are ignored", ignored - MAX_WARNINGS));
        }
        Ok(warnings)
    }
}

fn in_range(key: &str, value: i64, range: RangeInclusive<usize>) -> Result<usize> {
    match usize::try_from(value) {
        Ok(value) if range.contains(&value) => Ok(value),
        _ => Err(Error::format(format!("{key} is {value}; expected {range:?}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(pairs: &[(&str, Value)]) -> Metadata {
        let mut metadata = Metadata::new();
        metadata.insert("general.architecture".into(), Value::Str("llama".into())).unwrap();
        for (key, value) in pairs {
            metadata.insert((*key).into(), value.clone()).unwrap();
        }
        metadata
    }

    #[test]
    fn keys_that_were_read_or_mean_nothing_are_no_fault() {
        let metadata = metadata(&[
            ("llama.attention.causal", Value::Bool(true)),
            ("llama.logit_scale", Value::F32(1.0)),
            ("llama.residual_scale", Value::F32(0.5)),
            ("llama.rope.scaling.factor", Value::F32(2.0)),
            ("llama.vocab_size", Value::U32(7)),
            ("general.logit_scale", Value::F32(0.5)),
            ("llama2.logit_scale", Value::F32(0.5)),
        ]);
        let keys = Keys::new(&metadata).unwrap();
        assert_eq!(keys.positive("residual_scale", 1.0).unwrap(), 0.5);
        keys.void(&["rope.scaling.factor"]);
        assert_eq!(keys.unread().unwrap(), [""; 0]);
    }

    /// llama.cpp's writers put 0 or −1 where a scale isn't set.
    #[test]
    fn scales_that_are_not_set_are_absent() {
        for (value, wanted) in
            [(0.0, Some(1.0)), (-1.0, Some(1.0)), (2.0, Some(2.0)), (-2.0, None), (f32::NAN, None)]
        {
            let metadata = metadata(&[("llama.rope.scaling.factor", Value::F32(value))]);
            let keys = Keys::new(&metadata).unwrap();
            assert_eq!(keys.positive_or_unset("rope.scaling.factor", 1.0).ok(), wanted, "{value}");
        }
    }

    #[test]
    fn many_ignored_keys_are_told_in_few_lines() {
        let names: Vec<_> = (0..100).map(|i| format!("llama.made_up.{i}")).collect();
        let pairs: Vec<_> = names.iter().map(|name| (name.as_str(), Value::U32(3))).collect();
        let metadata = metadata(&pairs);
        let warnings = Keys::new(&metadata).unwrap().unread().unwrap();
        assert_eq!(warnings.len(), MAX_WARNINGS + 1);
        assert_eq!(warnings.last().unwrap(), "80 further metadata keys are ignored");
    }

    #[test]
    fn keys_that_nothing_read_are_told() {
        let metadata = metadata(&[
            ("llama.logit_scale", Value::F32(0.5)),
            ("llama.made_up\x1b", Value::U32(3)),
            ("xielu.beta", Value::F32(0.5)),
        ]);
        let warnings = Keys::new(&metadata).unwrap().unread().unwrap();
        assert_eq!(
            warnings,
            [
                "metadata key \"llama.logit_scale\" = 0.5 is ignored: a factor on logits",
                "metadata key \"llama.made_up\\x1b\" = 3 is ignored: its meaning is not known",
                "metadata key \"xielu.beta\" = 0.5 is ignored: its meaning is not known",
            ]
        );
    }
}
