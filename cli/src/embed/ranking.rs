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
    /// Its place among all texts.
    pub place: u64,
    pub id: String,
    pub text: Option<String>,
}

/// The texts with the highest scores, best first; of equal ones the earlier first.
pub struct Ranking {
    most: usize,
    /// Up to twice as many as are kept.
    found: Vec<Scored>,
    /// The lowest score of those that are kept, once there are enough.
    least: Option<f32>,
}

impl Ranking {
    /// Keeps at most so many.
    pub fn new(most: usize) -> Ranking {
        Ranking { most, found: Vec::new(), least: None }
    }

    /// The best of several rankings.
    pub fn of(most: usize, parts: impl Iterator<Item = Ranking>) -> Ranking {
        Ranking { most, found: parts.flat_map(|part| part.found).collect(), least: None }
    }

    /// Whether a text with this score, behind all that were added, may be kept.
    pub fn wants(&self, score: f32) -> bool {
        !score.is_nan() && self.least.is_none_or(|least| score > least)
    }

    pub fn add(&mut self, scored: Scored) {
        if self.wants(scored.score) {
            self.found.push(scored);
            if self.found.len() / 2 >= self.most {
                self.settle();
            }
        }
    }

    /// Leaves the best, in their order.
    fn settle(&mut self) {
        self.found.sort_by(|a, b| b.score.total_cmp(&a.score).then(a.place.cmp(&b.place)));
        self.found.truncate(self.most);
        self.least = self.found.last().filter(|_| self.found.len() == self.most).map(|last| last.score);
    }

    /// Prints a line for each.
    pub fn print(&mut self, json: bool) -> Result<()> {
        self.settle();
        let mut out = BufWriter::new(std::io::stdout().lock());
        for scored in &self.found {
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
        for most in [3, 10, usize::MAX] {
            let mut ranking = Ranking::new(most);
            let scores = [0.5, 0.9, f32::NAN, -1.0, 0.9, 0.5, 0.6, 0.9, 0.1];
            let mut parts = [Ranking::new(most), Ranking::new(most)];
            for (i, score) in scores.into_iter().enumerate() {
                let scored = || Scored { score, place: i as u64, id: i.to_string(), text: None };
                ranking.add(scored());
                parts[(i + 1) % 2].add(scored());
            }
            ranking.settle();
            // Whoever found them, equal ones stand in the order of their places.
            let mut joined = Ranking::of(most, parts.into_iter());
            joined.settle();
            let places =
                |ranking: &Ranking| ranking.found.iter().map(|found| found.place).collect::<Vec<_>>();
            assert_eq!(places(&joined), places(&ranking));
            let ids: String = ranking.found.iter().map(|scored| scored.id.as_str()).collect();
            assert_eq!(ids, &"14760583"[..most.min(8)]);
            assert_eq!(ranking.wants(0.9), most > 3);
        }
    }
}
