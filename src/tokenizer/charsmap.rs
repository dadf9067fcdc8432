//! SentencePiece's compiled rules of normalisation (`tokenizer.ggml.precompiled_charsmap`): a double array that maps
//! sequences of bytes to their replacements. The longest sequence at a place is replaced, as SentencePiece does;
//! `tokenizers` applies the rules to grapheme clusters instead, which gives other texts.

use super::VOCABULARY;
use crate::memory::reserve::with_room;
use crate::{Error, Result};

/// Longest sequence that a rule may have, in bytes: real rules have some 20.
const LONGEST: usize = 256;

/// The rules.
pub(super) struct Charsmap {
    /// Bits 0 to 7 of a unit are the byte that leads to it, bit 8 says that a rule ends here, bits 10 to 30 are the
    /// distance to its children, 256 times as far with bit 9. The unit of a rule's value has bit 31.
    units: Vec<u32>,
    /// Replacements, each with a zero byte behind it.
    replacements: Vec<u8>,
}

fn broken() -> Error {
    Error::format("tokenizer.ggml.precompiled_charsmap is broken")
}

impl Charsmap {
    /// Reads the rules: the number of bytes of the array, the array, the replacements; little-endian.
    ///
    /// # Errors
    /// [`Error::Format`] for an array that doesn't fit; [`Error::OutOfMemory`].
    pub(super) fn new(bytes: &[u8]) -> Result<Self> {
        let (size, rest) = bytes.split_first_chunk().ok_or_else(broken)?;
        let (array, replacements) =
            rest.split_at_checked(u32::from_le_bytes(*size) as usize).ok_or_else(broken)?;
        let (array, odd) = array.as_chunks();
        if array.is_empty() || !odd.is_empty() || replacements.last() != Some(&0) {
            return Err(broken());
        }
        let mut units = with_room(array.len(), VOCABULARY)?;
        units.extend(array.iter().map(|unit| u32::from_le_bytes(*unit)));
        let mut copy = with_room(replacements.len(), VOCABULARY)?;
        copy.extend_from_slice(replacements);
        Ok(Self { units, replacements: copy })
    }

    fn unit(&self, at: u32) -> Result<u32> {
        self.units.get(at as usize).copied().ok_or_else(broken)
    }

    /// Length and replacement of the longest sequence with a rule that `text` begins with.
    ///
    /// # Errors
    /// [`Error::Format`] where the array leads out of itself.
    pub(super) fn longest(&self, text: &[u8]) -> Result<Option<(usize, &[u8])>> {
        let children = |unit: u32| (unit >> 10) << ((unit & 0x200) >> 6);
        let mut at = children(self.unit(0)?);
        let mut found = None;
        for (depth, &byte) in text.iter().enumerate().take(LONGEST) {
            at ^= u32::from(byte);
            // An array may end behind the last byte that leads anywhere.
            let Ok(unit) = self.unit(at) else { break };
            if byte == 0 || unit & 0x8000_00ff != u32::from(byte) {
                break;
            }
            at ^= children(unit);
            if unit & 0x100 != 0 {
                found = Some((depth + 1, self.unit(at)? & 0x7fff_ffff));
            }
        }
        let Some((length, from)) = found else { return Ok(None) };
        let replacement = self.replacements.get(from as usize..).ok_or_else(broken)?;
        Ok(replacement.split(|&byte| byte == 0).next().map(|replacement| (length, replacement)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One rule: "a" becomes "bc".
    fn rule() -> Vec<u8> {
        let mut units = vec![0_u32; 512];
        // The root's children are 256 units away, the rule's value stands where "a" leads.
        units[0] = 256 << 10;
        let a = 256 ^ usize::from(b'a');
        units[a] = u32::from(b'a') | 0x100 | (1 << 10);
        units[a ^ 1] = 1 << 31;
        let array: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
        [&(array.len() as u32).to_le_bytes(), &array[..], b"bc\0"].concat()
    }

    #[test]
    fn a_rule_replaces_what_it_names() {
        let rules = Charsmap::new(&rule()).unwrap();
        assert_eq!(rules.longest(b"ab").unwrap(), Some((1, &b"bc"[..])));
        assert_eq!(rules.longest(b"ba").unwrap(), None);
        assert_eq!(rules.longest(b"").unwrap(), None);
    }

    #[test]
    fn broken_rules_are_refused() {
        let good = rule();
        for bad in [&good[..0], &good[..3], &good[..100], &good[..good.len() - 1], &[1, 0, 0, 0, 7, 0]] {
            assert!(Charsmap::new(bad).is_err());
        }
        // A value that points behind the replacements.
        let mut bad = good;
        let value = 4 + 4 * (256 ^ usize::from(b'a') ^ 1);
        bad[value] = 9;
        assert!(Charsmap::new(&bad).unwrap().longest(b"a").is_err());
    }
}
