//! Stages of the host: code that sees the candidates, and changes, removes or reorders them.
//! A closure is such a stage.

use super::cut::Candidate;
use super::mask::TokenSet;
use super::{is_usable, unusable};
use crate::{Error, Result};

/// A token that is left to pick from, and its logit.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct TokenLogit {
    /// The token.
    pub token: u32,
    /// Its logit, divided by the temperature if that stage came before; −∞ rules the token out.
    pub logit: f32,
}

/// A stage of the host ([`super::Stage::Custom`]). Any `FnMut(&mut Vec<TokenLogit>) -> Result<()>` that is `Send` is one
/// without a memory.
pub trait CustomStage: Send {
    /// Changes the candidates: logits may change, candidates may be removed or reordered. They come in any order, without those
    /// that can't come.
    ///
    /// # Errors
    /// Any error of the host; the sampler returns it. After the call, the sampler refuses a candidate that it did not
    /// give, or that is there twice, and a logit that is NaN or +∞.
    fn apply(&mut self, candidates: &mut Vec<TokenLogit>) -> Result<()>;

    /// A token was appended to the text: one of the prompt, too.
    fn accept(&mut self, _token: u32) {}

    /// Takes back the last `n` accepted tokens.
    fn rollback(&mut self, _n: usize) {}

    /// Takes back all tokens.
    fn reset(&mut self) {}
}

impl<F: FnMut(&mut Vec<TokenLogit>) -> Result<()> + Send> CustomStage for F {
    fn apply(&mut self, candidates: &mut Vec<TokenLogit>) -> Result<()> {
        self(candidates)
    }
}

/// Lets the host change the candidates, whose logits are divided by `temperature` first. `given` and `tokens` are scratch
/// memory, of and for the whole vocabulary.
pub(super) fn apply(
    stage: &mut dyn CustomStage,
    temperature: f32,
    candidates: &mut Vec<Candidate>,
    given: &mut TokenSet,
    tokens: &mut Vec<TokenLogit>,
) -> Result<()> {
    given.clear();
    tokens.clear();
    for candidate in candidates.iter() {
        given.insert(candidate.id());
        let logit = candidate.logit() / temperature;
        tokens.push(TokenLogit { token: candidate.id(), logit });
    }
    stage.apply(tokens)?;
    candidates.clear();
    for &TokenLogit { token, logit } in tokens.iter() {
        if !given.contains(token) {
            return Err(Error::invalid(format!(
                "a stage of the host gave back token {token}, which was not among the candidates, or twice"
            )));
        }
        if !is_usable(logit) {
            return Err(unusable(token, logit));
        }
        given.remove(token);
        if logit > f32::NEG_INFINITY {
            candidates.push(Candidate::new(logit, token));
        }
    }
    Ok(())
}
