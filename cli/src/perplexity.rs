//! `smallmind perplexity`: how well a model predicts a text, computed as llama.cpp's `llama-perplexity` does it. The text
//! is cut into chunks of as many tokens as the context; each begins with the token for the beginning of a text, where the
//! file asks for it, and counts the predictions of its second half.

use std::time::Instant;

use serde_json::json;
use smallmind::Error;
use smallmind::runtime::{Context, ContextParams, Logits};
use smallmind::threads;
use smallmind::tokenizer::MAX_TEXT_BYTES;

use crate::args::Perplexity;
use crate::failure::{Failure, Result};
use crate::interrupt::{self, Stoppable};
use crate::machine::{explain, warn_of_threads};
use crate::output::{bar, print, print_json};
use crate::session::{loaded, with_load_bar};
use crate::small_file;

/// Most rows of logits that are held at a time.
const ROWS: usize = 128;

pub fn run(args: &Perplexity) -> Result<()> {
    interrupt::install();
    let text = read_text(args)?;
    let threads = args.threads.unwrap_or_else(threads::available);
    warn_of_threads(threads, args.quiet);
    let mut context = context(args, threads)?;
    let tokenizer = context.model().tokenizer()?;
    let (tokens, bos) = (tokenizer.encode(&text, false, true)?, tokenizer.added_bos());
    let n_ctx = args.ctx;
    if tokens.len() / 2 < n_ctx {
        let text = format!("the text has {} tokens; at least two chunks of {n_ctx} are needed", tokens.len());
        return Err(Error::invalid(text).into());
    }
    let chunks = (tokens.len() / n_ctx).min(args.chunks.unwrap_or(usize::MAX));
    let stoppable = Stoppable::begin();
    let progress =
        bar(args.quiet, chunks as u64, "{bar:40} {pos}/{len} chunks, {eta} left, perplexity {msg}");
    let start = Instant::now();
    let mut tally = Tally::default();
    for chunk in tokens.chunks_exact(n_ctx).take(chunks) {
        if stoppable.requested() {
            return Err(Failure::Interrupted);
        }
        measure(&mut context, chunk, bos, threads, &mut tally)?;
        progress.inc(1);
        progress.set_message(format!("{:.4}", tally.result()?.0));
    }
    progress.finish_and_clear();
    let (perplexity, error) = tally.result()?;
    if !args.json {
        return Ok(print(&format!("Final estimate: PPL = {perplexity:.4} +/- {error:.5}\n"))?);
    }
    let text = json!({
        "model": args.model.display().to_string(),
        "file": args.file.display().to_string(),
        "perplexity": perplexity,
        "error": error,
        "context": n_ctx,
        "chunks": chunks,
        "predictions": tally.count,
        "tokens": tokens.len(),
        "seconds": start.elapsed().as_secs_f64(),
    });
    Ok(print_json(&text.to_string())?)
}

/// A context of a chunk's length.
fn context(args: &Perplexity, threads: usize) -> Result<Context> {
    let adapters = args.conditions.adapters.open()?;
    let model = with_load_bar(args.quiet, |progress| {
        loaded(&args.model, false, &args.conditions.load_params(&adapters).with_progress(progress))
    })?;
    let (n_ctx, most) = (args.ctx, model.config().n_ctx_most());
    if n_ctx > most {
        return Err(Failure::Usage(format!(
            "invalid value '{n_ctx}' for '--ctx <N>': a context of this model has at most {most} positions"
        )));
    }
    let params = ContextParams::default()
        .with_n_ctx(n_ctx)
        .with_n_output(ROWS.min(n_ctx))
        .with_threads(threads)
        .with_kv(args.conditions.kv);
    Ok(Context::new(model, &params)?)
}

/// The file, without the line break at its end, which llama.cpp leaves out too.
fn read_text(args: &Perplexity) -> Result<String> {
    let read = small_file::read_text(&args.file, MAX_TEXT_BYTES as u64);
    let mut text = read.map_err(explain(&args.file))?;
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

/// Sums over predictions.
#[derive(Default)]
struct Tally {
    count: usize,
    /// Of the negative logarithms of the probabilities that the model gave to the tokens that came.
    sum: f64,
    squares: f64,
}

impl Tally {
    fn add(&mut self, surprise: f64) {
        self.count += 1;
        self.sum += surprise;
        self.squares += surprise * surprise;
    }

    /// The perplexity and its standard error.
    fn result(&self) -> Result<(f64, f64)> {
        let count = self.count as f64;
        let mean = self.sum / count;
        let perplexity = mean.exp();
        if !perplexity.is_finite() {
            return Err(Error::invalid("the model's logits are not finite, or rule the text out").into());
        }
        let variance = (self.squares / count - mean * mean).max(0.0);
        Ok((perplexity, perplexity * (variance / (count - 1.0).max(1.0)).sqrt()))
    }
}

/// Adds the predictions of a chunk's second half.
fn measure(
    context: &mut Context,
    chunk: &[u32],
    bos: Option<u32>,
    threads: usize,
    tally: &mut Tally,
) -> Result<()> {
    let first = chunk.len() / 2;
    let mut tokens = chunk.to_vec();
    if let Some(bos) = bos {
        tokens[0] = bos;
    }
    context.clear();
    context.decode(&tokens[..first], Logits::None)?;
    // Nothing is known to follow the last token.
    let last = chunk.len() - 1;
    for begin in (first..last).step_by(ROWS) {
        let end = (begin + ROWS).min(last);
        context.decode(&tokens[begin..end], Logits::All)?;
        let followers = &chunk[begin + 1..=end];
        surprises(context.logits(), followers, threads).into_iter().for_each(|surprise| tally.add(surprise));
    }
    Ok(())
}

/// The negative logarithm of each follower's probability, from the row of logits before it.
fn surprises(logits: &[f32], followers: &[u32], threads: usize) -> Vec<f64> {
    let width = logits.len() / followers.len();
    let share = followers.len().div_ceil(threads.max(1));
    std::thread::scope(|scope| {
        let shares = followers.chunks(share).zip(logits.chunks(share * width));
        let work = |(followers, logits): (&[u32], &[f32])| {
            let rows = followers.iter().zip(logits.chunks_exact(width));
            rows.map(|(&follower, row)| surprise(row, follower)).collect::<Vec<_>>()
        };
        let handles: Vec<_> = shares.map(|share| scope.spawn(move || work(share))).collect();
        handles.into_iter().flat_map(|handle| handle.join().unwrap_or_default()).collect()
    })
}

fn surprise(row: &[f32], follower: u32) -> f64 {
    let peak = row.iter().fold(f32::NEG_INFINITY, |peak, &x| peak.max(x));
    let sum: f64 = row.iter().map(|&x| f64::from((x - peak).exp())).sum();
    sum.ln() - f64::from(row[follower as usize] - peak)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn even_logits_are_as_surprising_as_the_vocabulary_is_large() {
        let surprises = surprises(&[0.5f32; 30], &[0, 4, 9], 2);
        assert_eq!(surprises.len(), 3);
        let mut tally = Tally::default();
        surprises.iter().for_each(|&surprise| tally.add(surprise));
        let (perplexity, error) = tally.result().unwrap();
        assert!((perplexity - 10.0).abs() < 1e-9 && error < 1e-6, "{perplexity} ± {error}");
    }

    #[test]
    fn the_error_is_that_of_the_mean() {
        let mut tally = Tally::default();
        [1.0, 3.0].iter().for_each(|&surprise| tally.add(surprise));
        let (perplexity, error) = tally.result().unwrap();
        // The mean is 2; the variance 1 over one degree of freedom.
        assert!((perplexity - 2f64.exp()).abs() < 1e-9 && (error - 2f64.exp()).abs() < 1e-9);
        tally.add(f64::NAN);
        assert!(tally.result().is_err());
    }
}
