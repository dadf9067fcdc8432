//! The tokens of a conversation: the model's chat template and its tokenizer together.

use super::Model;
use crate::Result;
use crate::chat::{Message, Prompt, Template};
use crate::memory::reserve::held;
use crate::profile::{self, Zone};
use crate::tokenizer::Tokenizer;

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
        let prompt = Prompt::default().with_generation_prompt(add_generation_prompt);
        self.chat_tokens_with(messages, &prompt, add_bos)
    }

    /// [`Model::chat_tokens`] with a prompt's arguments and prefix, whose texts are inert too.
    ///
    /// # Errors
    /// Those of [`Model::chat_tokens`] and [`Template::render_with`](crate::chat::Template::render_with).
    pub fn chat_tokens_with(
        &self,
        messages: &[Message<'_>],
        prompt: &Prompt<'_>,
        add_bos: bool,
    ) -> Result<Vec<u32>> {
        let (template, tokenizer) = (self.chat_template()?, self.tokenizer()?);
        let marked = {
            let _zone = profile::scope(Zone::ChatTemplate);
            template.render_inert_with(messages, prompt, tokenizer.control_texts())?
        };
        let _zone = profile::scope(Zone::Tokenize);
        tokenizer.encode_marked(&marked.text, marked.mark, add_bos)
    }
}

/// The control token that the template writes behind an answer, by which a model ends its turn. Files state one such token,
/// and names are known of others; this finds the rest.
pub(super) fn turn_end(template: &Template, tokenizer: &Tokenizer) -> Option<u32> {
    const ANSWER: &str = "An answer.";
    // The engine of templates allocates infallibly.
    let _held = held(1 << 20, "a conversation").ok()?;
    let messages = [Message::new("user", "A question?"), Message::new("assistant", ANSWER)];
    let text = template.render(&messages, false).ok()?;
    let (_, rest) = text.rsplit_once(ANSWER)?;
    let rest = rest.trim_start();
    let end =
        tokenizer.control_texts().filter(|text| rest.starts_with(text)).max_by_key(|text| text.len())?;
    tokenizer.id(end)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::TokenizerSource;

    #[test]
    fn a_turn_ends_where_the_template_says() {
        let tokens = ["<unk>", "<s>", "</s>", "a", "[|end|]", "[|end|]2", "[|user|]", "b"];
        let source = TokenizerSource {
            model: "llama".into(),
            tokens: tokens.map(str::to_owned).to_vec(),
            scores: vec![0.0; tokens.len()],
            token_types: vec![2, 3, 3, 1, 3, 3, 3, 1],
            ..TokenizerSource::default()
        };
        let tokenizer = Tokenizer::new(source).unwrap();
        let end = |behind: &str| {
            let source =
                format!("{{% for m in messages %}}[|user|]{{{{ m.content }}}}{behind}{{% endfor %}}");
            turn_end(&Template::new(&source, "", "").unwrap(), &tokenizer)
        };
        assert_eq!(end("[|end|]"), Some(4));
        assert_eq!(end("\n[|end|]2"), Some(5));
        assert_eq!(end(""), None);
        assert_eq!(end("b"), None);
        assert_eq!(end("{{ raise_exception('no') }}"), None);
    }
}
