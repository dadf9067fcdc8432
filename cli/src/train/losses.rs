//! The losses of a training, as points of a curve and as JSON lines: `{"step":…,"loss":…,"rate":…,"gradient_norm":…}` for
//! each step, `{"step":…,"validation_loss":…,"perplexity":…}` for each validation.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::{Value as Json, json};
use smallmind::text::escaped_path;
use smallmind::train::StepReport;
use smallmind::{Error, Result};

use crate::small_file;

/// Longest file of losses that is read again.
const MAX_FILE: u64 = 1 << 30;

/// A step and a loss.
pub type Point = (u64, f64);

/// All losses so far.
#[derive(Default)]
pub struct Losses {
    lines: String,
    training: Vec<Point>,
    validation: Vec<Point>,
}

impl Losses {
    /// The losses of a file up to a step, or none where there is no file.
    ///
    /// # Errors
    /// Those of reading it; [`Error::Format`] for a line that is no loss.
    pub fn read(path: &Path, last: u64) -> Result<Losses> {
        let text = match small_file::read_text(path, MAX_FILE) {
            Err(Error::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
                return Ok(Losses::default());
            }
            read => read?,
        };
        let mut losses = Losses::default();
        for (i, line) in text.lines().enumerate() {
            let known = losses.read_line(line, last);
            known.ok_or_else(|| {
                Error::format(format!("{}: line {} has no loss", escaped_path(path), i + 1))
            })?;
        }
        Ok(losses)
    }

    fn read_line(&mut self, line: &str, last: u64) -> Option<()> {
        let value: Json = serde_json::from_str(line).ok()?;
        let step = value["step"].as_u64()?;
        let (points, loss) = match value["loss"].as_f64() {
            Some(loss) => (&mut self.training, loss),
            None => (&mut self.validation, value["validation_loss"].as_f64()?),
        };
        if step <= last {
            points.push((step, loss));
            self.lines.push_str(line);
            self.lines.push('\n');
        }
        Some(())
    }

    /// Adds a step.
    pub fn add(&mut self, report: &StepReport) {
        let StepReport { step, loss, gradient_norm, rate, .. } = *report;
        self.training.push((step, loss));
        self.line(json!({ "step": step, "loss": loss, "rate": rate, "gradient_norm": gradient_norm }));
    }

    /// Adds a validation.
    pub fn add_validation(&mut self, step: u64, loss: f64) {
        self.validation.push((step, loss));
        self.line(json!({ "step": step, "validation_loss": loss, "perplexity": loss.exp() }));
    }

    fn line(&mut self, value: Json) {
        self.lines.push_str(&value.to_string());
        self.lines.push('\n');
    }

    /// The JSON lines.
    pub fn lines(&self) -> &str {
        &self.lines
    }

    /// The losses of steps.
    pub fn training(&self) -> &[Point] {
        &self.training
    }

    /// The losses of validations.
    pub fn validation(&self) -> &[Point] {
        &self.validation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_read_up_to_a_step_and_kept_as_they_stand() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("losses");
        let mut losses = Losses::default();
        losses.add_validation(0, 0.1 + 0.2);
        (1..4).for_each(|step| losses.line(json!({ "step": step, "loss": 1.0 / step as f64 })));
        losses.add_validation(3, 2.5);
        std::fs::write(&path, losses.lines()).unwrap();
        let all = Losses::read(&path, 3).unwrap();
        assert_eq!((all.lines(), all.validation().len()), (losses.lines(), 2));
        let some = Losses::read(&path, 2).unwrap();
        assert_eq!(some.training(), [(1, 1.0), (2, 0.5)]);
        assert!(losses.lines().starts_with(some.lines()) && some.validation().len() == 1);
        std::fs::write(&path, "{\"step\":1,\"loss\":2}\nrubbish\n").unwrap();
        assert!(Losses::read(&path, 9).err().unwrap().to_string().ends_with("line 2 has no loss"));
        assert!(Losses::read(&folder.path().join("none"), 9).unwrap().lines().is_empty());
    }
}
