//! The steps of a training: with validations, checkpoints and progress, until the last one or Ctrl-C.

use std::time::Instant;

use indicatif::ProgressBar;
use smallmind::Error;
use smallmind::text::escaped_path;
use smallmind::train::Trainer;

use super::args::Train;
use super::data::{Batch, Data};
use super::files::Files;
use super::losses::Losses;
use crate::failure::{Failure, Result};
use crate::interrupt::Stoppable;
use crate::output::{bar, print, remark};

/// A training under way.
pub struct Run<'a> {
    args: &'a Train,
    files: &'a Files,
    data: Data,
    trainer: Trainer,
    losses: Losses,
    /// The number of the last step.
    total: u64,
    /// Steps from one validation to the next, and from one checkpoint to the next.
    evaluate_every: u64,
    save_every: u64,
    stoppable: &'a Stoppable,
    progress: ProgressBar,
    /// Of steps alone.
    tokens: usize,
    seconds: f64,
    /// The step of the last checkpoint.
    saved: Option<u64>,
}

impl<'a> Run<'a> {
    pub fn new(
        args: &'a Train,
        files: &'a Files,
        data: Data,
        trainer: Trainer,
        losses: Losses,
        total: u64,
        stoppable: &'a Stoppable,
    ) -> Run<'a> {
        let every = |steps: Option<usize>| steps.map_or((total / 10).max(1), |steps| steps as u64);
        let progress = bar(args.quiet, total, "{bar:30} {pos}/{len} steps, {eta} left, {msg}");
        let steps = trainer.steps();
        let saved = args.resume.then_some(steps);
        if steps > 0 {
            progress.set_position(steps);
            progress.reset_eta();
        }
        Run {
            args,
            files,
            data,
            trainer,
            losses,
            total,
            evaluate_every: every(args.steps.evaluate_every),
            save_every: every(args.steps.save_every),
            stoppable,
            progress,
            tokens: 0,
            seconds: 0.0,
            saved,
        }
    }

    /// Makes all steps that are left.
    pub fn finish(mut self) -> Result<()> {
        let done = self.steps();
        self.progress.finish_and_clear();
        done.map_err(|error| match (error, self.saved) {
            (Failure::Failed(error @ Error::NotFinite(_)), Some(step)) => {
                let hint = format!("{} keeps the state of step {step}", escaped_path(&self.files.state));
                Failure::Hinted(error, hint)
            }
            (other, _) => other,
        })
    }

    fn steps(&mut self) -> Result<()> {
        let mut batch = Batch::default();
        loop {
            let step = self.trainer.steps();
            let last = step >= self.total;
            if last || step.is_multiple_of(self.evaluate_every) {
                self.evaluate(step)?;
            }
            let stopped = self.stoppable.requested();
            if (last || stopped || step > 0 && step.is_multiple_of(self.save_every))
                && self.saved != Some(step)
            {
                self.files.save(&self.trainer, &self.losses)?;
                self.saved = Some(step);
            }
            if last {
                return self.summary();
            }
            if stopped {
                let state = escaped_path(&self.files.state);
                self.say(&format!("[stopped at step {step}; --resume goes on from {state}]\n"));
                return Err(Failure::Interrupted);
            }
            self.step(&mut batch)?;
        }
    }

    fn step(&mut self, batch: &mut Batch) -> Result<()> {
        let sequences = self.args.steps.batch * self.args.steps.accumulate;
        self.data.batch(self.trainer.steps() * sequences as u64, sequences, batch);
        let start = Instant::now();
        let report = self.trainer.step(&batch.tokens, &batch.targets)?;
        self.seconds += start.elapsed().as_secs_f64();
        self.tokens += batch.tokens.len();
        self.losses.add(&report);
        self.progress.set_position(report.step);
        self.progress.set_message(format!("loss {:.4}, {:.0} tokens/s", report.loss, self.speed()));
        Ok(())
    }

    /// Tokens a second.
    fn speed(&self) -> f64 {
        self.tokens as f64 / self.seconds.max(1e-9)
    }

    /// The mean loss of the sequences for validation, if there are any, unless Ctrl-C comes before it is known.
    fn evaluate(&mut self, step: u64) -> Result<()> {
        if self.losses.validation().last().is_some_and(|&(known, _)| known == step) {
            return Ok(());
        }
        let (mut sum, mut counted) = (0.0, 0);
        for batch in self.data.validation(self.args.steps.batch) {
            if self.stoppable.requested() {
                return Ok(());
            }
            let count = batch.counted();
            sum += self.trainer.evaluate(&batch.tokens, &batch.targets)? * count as f64;
            counted += count;
        }
        if counted == 0 {
            return Ok(());
        }
        let loss = sum / counted as f64;
        self.losses.add_validation(step, loss);
        let training = self.losses.training().last().map(|point| format!("loss {:.4}, ", point.1));
        self.say(&format!(
            "[step {step}: {}validation loss {loss:.4}, perplexity {:.3}]\n",
            training.unwrap_or_default(),
            loss.exp()
        ));
        Ok(())
    }

    /// A remark above the bar.
    fn say(&self, text: &str) {
        if !self.args.quiet {
            self.progress.suspend(|| remark(text));
        }
    }

    /// Says what was made.
    fn summary(&self) -> Result<()> {
        let mut line = format!("{}: step {}", escaped_path(&self.files.out), self.trainer.steps());
        if let Some((_, loss)) = self.losses.training().last() {
            line.push_str(&format!(", loss {loss:.4}"));
        }
        if let Some((_, loss)) = self.losses.validation().last() {
            line.push_str(&format!(", validation loss {loss:.4} (perplexity {:.3})", loss.exp()));
        }
        if self.tokens > 0 {
            line.push_str(&format!(", {:.0} tokens/s", self.speed()));
        }
        self.progress.finish_and_clear();
        Ok(print(&format!("{line}\n"))?)
    }
}
