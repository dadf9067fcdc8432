//! The best results of a command that scores texts.

use std::io::{BufWriter, Write};

use smallmind::Error;
use smallmind::text::{escaped, shortened};

use super::output::put_text;
use crate::failure::Result;
use crate::output::failed;

/// Most bytes of a text that are shown in a line for people.
const SHOWN: usize = 200;

/// A text with its score.
pub struct Scored {
    pub score: f32,
    pub id: String,
    pub text: Option<String>,
}

/// The texts with the highest scores, best first; of equal ones the earlier first.
pub struct Ranking {
    most: usize,
    best: Vec<Scored>,
}

impl Ranking {
    /// Keeps at most so many.
    pub fn new(most: usize) -> Ranking {
        Ranking { most, best: Vec::new() }
    }

    /// Whether a text with this score would be kept.
    pub fn wants(&self, score: f32) -> bool {
        self.best.len() < self.most || self.best.last().is_some_and(|last| score > last.score)
    }

    pub fn add(&mut self, scored: Scored) {
        if self.wants(scored.score) {
            let place = self.best.partition_point(|other| other.score >= scored.score);
            self.best.insert(place, scored);
            self.best.truncate(self.most);
        }
    }

    /// Prints a line for each.
    pub fn print(&self, json: bool) -> Result<()> {
        let mut out = BufWriter::new(std::io::stdout().lock());
        for scored in &self.best {
            let line = if json { scored.json()? } else { scored.line().into_bytes() };
            out.write_all(&line).map_err(failed)?;
        }
        Ok(out.flush().map_err(failed)?)
    }
}

impl Scored {
    fn line(&self) -> String {
        let text = self.text.as_deref().unwrap_or("");
        let (first, id) = (text.lines().next().unwrap_or(""), escaped(&self.id));
        let shown = shortened(first, SHOWN);
        let more = if shown.len() < text.trim_end().len() { " …" } else { "" };
        format!("{:.4}\t{id}\t{}{more}\n", self.score, escaped(shown))
    }

    fn json(&self) -> smallmind::Result<Vec<u8>> {
        let score = serde_json::to_string(&self.score).map_err(|error| Error::Internal(error.to_string()))?;
        let mut line = format!("{{\"score\":{score},\"id\":").into_bytes();
        put_text(&mut line, &self.id)?;
        if let Some(text) = &self.text {
            line.extend_from_slice(b",\"text\":");
            put_text(&mut line, text)?;
        }
        line.extend_from_slice(b"}\n");
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_best_are_kept_in_their_order() {
        let mut ranking = Ranking::new(3);
        for (i, score) in [0.5, 0.9, -1.0, 0.9, 0.5, 0.6].into_iter().enumerate() {
            ranking.add(Scored { score, id: i.to_string(), text: None });
        }
        let ids: Vec<_> = ranking.best.iter().map(|scored| scored.id.as_str()).collect();
        assert_eq!(ids, ["1", "3", "5"]);
        assert!(!ranking.wants(0.6) && ranking.wants(0.7));
    }
}
