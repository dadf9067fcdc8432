//! Log-probabilities of tokens, as JSON has them.

use serde::Serialize;
use smallmind::Result;
use smallmind::runtime::sampling::TokenLogprob;
use smallmind::tokenizer::Tokenizer;

/// A token and the natural logarithm of its probability under the model; `null` for one that can't come.
#[derive(Debug, Serialize)]
struct Likely {
    token: u32,
    /// With U+FFFD in place of bytes that are no whole character.
    text: String,
    logprob: f32,
}

/// A token of a text, and the likeliest ones at its place.
#[derive(Debug, Serialize)]
pub struct Picked {
    #[serde(flatten)]
    token: Likely,
    top: Vec<Likely>,
}

impl Picked {
    /// # Errors
    /// None for tokens of the tokenizer.
    pub fn new(tokenizer: &Tokenizer, token: TokenLogprob, best: &[TokenLogprob]) -> Result<Picked> {
        let likely = |&TokenLogprob { token, logprob }: &TokenLogprob| {
            let text = String::from_utf8_lossy(tokenizer.token_bytes(token)?).into_owned();
            Ok(Likely { token, text, logprob })
        };
        Ok(Picked { token: likely(&token)?, top: best.iter().map(likely).collect::<Result<_>>()? })
    }
}
