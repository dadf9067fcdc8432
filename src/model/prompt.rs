//! The tokens of a conversation: the model's chat template and its tokenizer together.

use super::Model;
use crate::Result;
use crate::chat::Message;
use crate::profile::{self, Zone};

impl Model {
    /// The tokens of a conversation. Only the template writes control tokens: the text of one in a role or a content, as a
    /// person may type it, is text. With `add_generation_prompt` they end where the assistant's answer begins; with
    /// `add_bos` they begin with the token for the beginning of a text, once, if the vocabulary adds one.
    ///
    /// # Errors
    /// Those of [`Model::tokenizer`], [`Model::chat_template`],
    /// [`Template::render_inert`](crate::chat::Template::render_inert) and
    /// [`Tokenizer::encode_marked`](crate::tokenizer::Tokenizer::encode_marked).
    pub fn chat_tokens(
        &self,
        messages: &[Message<'_>],
        add_generation_prompt: bool,
        add_bos: bool,
    ) -> Result<Vec<u32>> {
        let (template, tokenizer) = (self.chat_template()?, self.tokenizer()?);
        let marked = {
            let _zone = profile::scope(Zone::ChatTemplate);
            template.render_inert(messages, add_generation_prompt, tokenizer.control_texts())?
        };
        let _zone = profile::scope(Zone::Tokenize);
        tokenizer.encode_marked(&marked.text, marked.mark, add_bos)
    }
}
