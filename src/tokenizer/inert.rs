//! Tokens of a text in which marks keep special tokens apart: those of a conversation whose contents are inert.

use super::{MAX_TEXT_BYTES, Piece, Run, Tokenizer, WHAT};
use crate::memory::reserve::reserve_text;
use crate::{Error, Result};

impl Tokenizer {
    /// The texts of the control tokens, in the order of their ids.
    pub fn control_texts(&self) -> impl Iterator<Item = &str> + Clone {
        let ids = (0..self.vocab_size() as u32).filter(|&id| self.is_control(id));
        ids.filter_map(|id| std::str::from_utf8(self.vocabulary.bytes(id)?).ok())
            .filter(|text| !text.is_empty())
    }

    /// Tokens of `text` as [`Tokenizer::encode_chat`] makes them, except that a special token's text that `mark` breaks is no
    /// control token. The marks themselves have no tokens: the text is cut into words without them.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_marked(&self, text: &str, mark: char, add_bos: bool) -> Result<Vec<u32>> {
        self.begun_once(text, add_bos, |text| self.marked_tokens(text, mark))
    }

    fn marked_tokens(&self, text: &str, mark: char) -> Result<Vec<u32>> {
        if text.len() > MAX_TEXT_BYTES {
            return Err(Error::invalid(format!(
                "a text of {} bytes; the tokenizer takes {MAX_TEXT_BYTES}",
                text.len()
            )));
        }
        let (mut run, mut plain) = (Run::new(self, text)?, String::new());
        self.all_special.split(text, |piece| match piece {
            Piece::Text(text) if text.contains(mark) => {
                plain.clear();
                reserve_text(&mut plain, text.len(), WHAT)?;
                plain.extend(text.split(mark));
                self.user_defined.split(&plain, |piece| run.piece(piece))
            }
            piece => run.piece(piece),
        })?;
        Ok(run.ids)
    }
}
