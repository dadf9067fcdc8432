//! The files of a training: the model, the state, the losses and their curve. They are checked before work begins, and
//! each appears whole or not at all.

use std::path::{Path, PathBuf};

use smallmind::Error;
use smallmind::files;
use smallmind::text::escaped_path;
use smallmind::train::Trainer;

use super::args::Train;
use super::curve;
use super::losses::Losses;
use crate::failure::{Failure, Result};
use crate::writing::NewFile;

/// The paths of a training.
pub struct Files {
    pub out: PathBuf,
    pub state: PathBuf,
    pub losses: PathBuf,
    pub curve: PathBuf,
}

impl Files {
    /// The paths of a command line, each of which can be written.
    ///
    /// # Errors
    /// [`Failure::Usage`] for two of the same path; those of making the files; [`Error::Io`] for a state that isn't there.
    pub fn begin(args: &Train) -> Result<Files> {
        let next_to_out = |ending: &str| {
            let mut name = args.out.clone().into_os_string();
            name.push(ending);
            PathBuf::from(name)
        };
        let files = Files {
            out: args.out.clone(),
            state: next_to_out(".state"),
            losses: next_to_out(".losses.jsonl"),
            curve: args.curve.clone().unwrap_or_else(|| next_to_out(".svg")),
        };
        let others = [&files.out, &files.state, &files.losses];
        if others.contains(&&files.curve) {
            let curve = escaped_path(&files.curve);
            return Err(Failure::Usage(format!(
                "invalid value '{curve}' for '--curve <FILE>': it is another file's path"
            )));
        }
        if args.resume {
            std::fs::metadata(&files.state)
                .map_err(|source| Error::Io { path: files.state.clone(), source })?;
        }
        for path in others.into_iter().chain([&files.curve]) {
            // Made and dropped again: an error now is better than one after the first steps.
            NewFile::begin(path, args.force || args.resume)?;
        }
        Ok(files)
    }

    /// Writes all of them; the state at last, so that the others are never older.
    pub fn save(&self, trainer: &Trainer, losses: &Losses) -> Result<()> {
        let write = |path: &Path, text: &str| files::write(path, text.as_bytes());
        write(&self.losses, losses.lines())?;
        write(&self.curve, &curve::svg(losses.training(), losses.validation()))?;
        trainer.save_model(&self.out)?;
        Ok(trainer.save_state(&self.state)?)
    }
}
