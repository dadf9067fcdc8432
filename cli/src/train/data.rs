//! Texts as sequences of tokens: cut, split into those for training and those for validation, and put in an order that
//! depends on the seed and the epoch alone, so that a run can go on at any step.

use std::path::{Path, PathBuf};

use rand_core::{RngCore, SeedableRng};
use rand_pcg::Pcg64Mcg;
use smallmind::Error;
use smallmind::text::{escaped, escaped_path};
use smallmind::tokenizer::Tokenizer;
use smallmind::train::NO_TARGET;

use super::args::DataArgs;
use super::fingerprint::Fingerprint;
use crate::failure::{self, Failure};
use crate::machine::explain;
use crate::small_file;

/// Longest text of a file, in bytes.
const MAX_FILE: u64 = 4 << 30;
/// Bytes of a text that are tokenized at a time, about; far below what the tokenizer takes.
const PIECE: usize = 4 << 20;
/// The runs of sequences that are kept for validation, about.
const RUNS: usize = 4;

/// The documents of the files: each file is one, except that each line of a .jsonl file has one as its `field`.
pub fn read(paths: &[PathBuf], field: &str) -> failure::Result<Vec<String>> {
    let mut documents = Vec::new();
    for path in paths {
        let text = small_file::read_text(path, MAX_FILE).map_err(explain(path))?;
        let before = documents.len();
        match path.extension().is_some_and(|extension| extension == "jsonl") {
            true => read_lines(&text, field, &mut documents)
                .map_err(|why| Error::format(format!("{}, {why}", escaped_path(path))))?,
            false => documents.extend((!text.is_empty()).then_some(text)),
        }
        if documents[before..].iter().all(String::is_empty) {
            return Err(Failure::Failed(empty(path)));
        }
    }
    Ok(documents)
}

/// Adds the documents of the lines of a .jsonl file.
fn read_lines(text: &str, field: &str, documents: &mut Vec<String>) -> Result<(), String> {
    for (number, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let mut object: serde_json::Map<String, serde_json::Value> =
            serde_json::from_str(line).map_err(|error| format!("line {}: {error}", number + 1))?;
        match object.remove(field) {
            Some(serde_json::Value::String(document)) => documents.push(document),
            _ => return Err(format!("line {}: there is no text '{}'", number + 1, escaped(field))),
        }
    }
    Ok(())
}

fn empty(path: &Path) -> Error {
    Error::invalid(format!("{}: the text is empty", escaped_path(path)))
}

/// The tokens of all texts, one after the other. Each begins with the token for the beginning of a text and ends with
/// that for its end, as far as the model has them.
pub fn tokens(texts: &[String], tokenizer: &Tokenizer) -> smallmind::Result<Vec<u32>> {
    let mut tokens = Vec::new();
    for text in texts {
        tokens.extend(tokenizer.added_bos());
        for piece in pieces(text, PIECE) {
            tokens.extend(tokenizer.encode(piece, false, false)?);
        }
        tokens.extend(tokenizer.eos());
    }
    Ok(tokens)
}

/// Cuts a text before the beginning of a line, where there is one, into pieces of at most `most` bytes.
pub fn pieces(text: &str, most: usize) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let end = match rest.len() <= most {
            true => rest.len(),
            false => {
                let most = (0..=most).rev().find(|&at| rest.is_char_boundary(at)).unwrap_or(rest.len());
                rest[..most].rfind('\n').map_or(most, |newline| newline + 1)
            }
        };
        let (piece, after) = rest.split_at(end);
        rest = after;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Sequences of one length.
pub struct Data {
    tokens: Vec<u32>,
    context: usize,
    /// Indices of sequences.
    training: Vec<u32>,
    validation: Vec<u32>,
    seed: u64,
    /// The order of `training` in this epoch.
    order: Vec<u32>,
    epoch: Option<u64>,
}

impl Data {
    /// Cuts tokens into sequences, and splits these.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for fewer tokens than a sequence and the token that follows it.
    pub fn new(tokens: Vec<u32>, context: usize, args: &DataArgs) -> smallmind::Result<Data> {
        let count = tokens.len().saturating_sub(1) / context;
        if count == 0 {
            let len = tokens.len();
            return Err(Error::invalid(format!(
                "the text has {len} tokens; a sequence of {context} and its last target need {}: a smaller --context \
                 or more text helps",
                context + 1
            )));
        }
        let count = u32::try_from(count)
            .map_err(|_| Error::invalid(format!("{count} sequences; at most {} are taken", u32::MAX)))?;
        let (training, validation) = split(count, args.validation, args.seed);
        let order = training.clone();
        Ok(Data { tokens, context, training, validation, seed: args.seed, order, epoch: None })
    }

    /// All tokens, those behind the last whole sequence included.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// Tokens of a sequence.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Sequences for training, and for validation.
    pub fn counts(&self) -> (usize, usize) {
        (self.training.len(), self.validation.len())
    }

    /// A fingerprint of all tokens.
    pub fn fingerprint(&self) -> String {
        let mut fingerprint = Fingerprint::default();
        self.tokens.iter().for_each(|token| fingerprint.add(&token.to_le_bytes()));
        fingerprint.to_string()
    }

    /// Fills a batch with the sequences from `first` on, counted over all epochs.
    pub fn batch(&mut self, first: u64, sequences: usize, batch: &mut Batch) {
        batch.clear();
        let count = self.training.len() as u64;
        for place in first..first + sequences as u64 {
            self.arrange(place / count);
            self.add(self.order[(place % count) as usize], batch);
        }
    }

    /// Batches of the sequences for validation; the last one is filled up with targets that don't count.
    pub fn validation(&self, sequences: usize) -> impl Iterator<Item = Batch> + '_ {
        self.validation.chunks(sequences).map(move |indices| {
            let mut batch = Batch::default();
            indices.iter().for_each(|&index| self.add(index, &mut batch));
            batch.tokens.resize(sequences * self.context, 0);
            batch.targets.resize(sequences * self.context, NO_TARGET);
            batch
        })
    }

    fn add(&self, index: u32, batch: &mut Batch) {
        let begin = index as usize * self.context;
        batch.tokens.extend_from_slice(&self.tokens[begin..][..self.context]);
        batch.targets.extend_from_slice(&self.tokens[begin + 1..][..self.context]);
    }

    /// Puts the sequences into the order of an epoch.
    fn arrange(&mut self, epoch: u64) {
        if self.epoch == Some(epoch) {
            return;
        }
        self.order.copy_from_slice(&self.training);
        shuffle(&mut self.order, self.seed, epoch + 1);
        self.epoch = Some(epoch);
    }
}

/// Tokens and the targets of each.
#[derive(Default)]
pub struct Batch {
    pub tokens: Vec<u32>,
    pub targets: Vec<u32>,
}

impl Batch {
    fn clear(&mut self) {
        self.tokens.clear();
        self.targets.clear();
    }

    /// Targets that count.
    pub fn counted(&self) -> usize {
        self.targets.iter().filter(|&&target| target != NO_TARGET).count()
    }
}

/// Sequences for training and for validation: of the latter a few runs of neighbours, so that few of them have a
/// neighbour that is trained on.
fn split(count: u32, share: f64, seed: u64) -> (Vec<u32>, Vec<u32>) {
    let wanted = (f64::from(count) * share).round() as u32;
    // A sequence at least, if there is one to spare.
    let least = u32::from(share > 0.0 && count > 1);
    let wanted = wanted.clamp(least, (count - 1).max(least));
    let run = wanted.div_ceil(RUNS as u32).max(1);
    let mut runs: Vec<u32> = (0..count / run).collect();
    shuffle(&mut runs, seed, 0);
    let mut validates = vec![false; count as usize];
    let places = runs.into_iter().flat_map(|i| i * run..(i + 1) * run).take(wanted as usize);
    places.for_each(|place| validates[place as usize] = true);
    (0..count).partition(|&i| !validates[i as usize])
}

/// Fisher and Yates' shuffle. Each `stream` of a seed gives another order.
fn shuffle(items: &mut [u32], seed: u64, stream: u64) {
    let state = Pcg64Mcg::seed_from_u64(seed).next_u64().wrapping_add(stream);
    let mut random = Pcg64Mcg::seed_from_u64(state);
    for i in (1..items.len()).rev() {
        let other = (u128::from(random.next_u64()) * (i as u128 + 1)) >> 64;
        items.swap(i, other as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(validation: f64, seed: u64) -> DataArgs {
        DataArgs { context: None, validation, seed, field: "text".into() }
    }

    #[test]
    fn each_sequence_comes_once_an_epoch_and_in_another_order() {
        let mut data = Data::new((0..101).collect(), 5, &args(0.2, 7)).unwrap();
        assert_eq!(data.counts(), (16, 4));
        let mut batch = Batch::default();
        let mut epochs = Vec::new();
        for epoch in 0..3 {
            data.batch(epoch * 16, 16, &mut batch);
            let firsts: Vec<u32> = batch.tokens.iter().copied().step_by(5).collect();
            assert!(batch.tokens.iter().zip(&batch.targets).all(|(token, target)| token + 1 == *target));
            epochs.push(firsts);
        }
        assert!(epochs[0] != epochs[1] && epochs[1] != epochs[2]);
        let mut seen: Vec<u32> = data.validation(3).flat_map(|batch| batch.tokens).step_by(5).collect();
        // Two sequences of padding.
        assert_eq!(seen.split_off(4), [0, 0]);
        seen.extend(&epochs[2]);
        seen.sort_unstable();
        assert_eq!(seen, (0..20).map(|i| i * 5).collect::<Vec<_>>());
        // Any place can be had without those before it.
        let mut again = Data::new((0..101).collect(), 5, &args(0.2, 7)).unwrap();
        let mut other = Batch::default();
        again.batch(2 * 16 - 3, 5, &mut other);
        let firsts: Vec<u32> = other.tokens.iter().copied().step_by(5).collect();
        assert_eq!(firsts, [&epochs[1][13..], &epochs[2][..2]].concat());
    }

    #[test]
    fn validation_is_of_runs_and_leaves_something_to_train_on() {
        for seed in 0..20 {
            let (training, validation) = split(1000, 0.05, seed);
            assert_eq!((training.len(), validation.len()), (950, 50));
            let gaps = validation.windows(2).filter(|pair| pair[0] + 1 != pair[1]).count();
            assert!(gaps < RUNS, "{validation:?}");
        }
        assert_ne!(split(1000, 0.05, 1), split(1000, 0.05, 2));
        let counts = |count, share| {
            let (training, validation) = split(count, share, 1);
            (training.len(), validation.len())
        };
        assert_eq!(counts(1, 0.5), (1, 0));
        assert_eq!(counts(2, 0.01), (1, 1));
        assert_eq!(counts(3, 0.99), (1, 2));
        assert_eq!(counts(9, 0.0), (9, 0));
        assert_eq!(counts(10, 0.9), (1, 9));
    }

    #[test]
    fn padding_does_not_count() {
        let data = Data::new((0..61).collect(), 10, &args(0.5, 1)).unwrap();
        let counted: Vec<usize> = data.validation(2).map(|batch| batch.counted()).collect();
        assert_eq!(counted, [20, 10]);
    }

    #[test]
    fn a_line_of_json_is_a_document() {
        let read = |text| {
            let mut documents = Vec::new();
            read_lines(text, "text", &mut documents).map(|()| documents)
        };
        let text = "{\"text\": \"one\\ntwo\", \"id\": 1}\n\n{\"text\": \"\"}\r\n{\"text\": \"ö\"}";
        assert_eq!(read(text).unwrap(), ["one\ntwo", "", "ö"]);
        assert!(
            read("{\"text\": \"one\"}\n{\"text\": 1}").unwrap_err().starts_with("line 2: there is no text")
        );
        assert!(read("\n{\"text\"").unwrap_err().starts_with("line 2: EOF"));
    }

    #[test]
    fn a_sequence_needs_a_token_more() {
        assert!(Data::new((0..5).collect(), 5, &args(0.1, 1)).is_err());
        assert!(Data::new((0..6).collect(), 5, &args(0.1, 1)).is_ok());
        assert!(Data::new(vec![], 1, &args(0.1, 1)).is_err());
    }

    #[test]
    fn long_texts_are_cut_where_lines_begin() {
        let cut = |text, most| pieces(text, most).collect::<Vec<_>>();
        assert_eq!(cut("one\ntwo\nthree", 9), ["one\ntwo\n", "three"]);
        assert_eq!(cut("ööö", 3), ["ö", "ö", "ö"]);
        assert_eq!(cut("", 3), [""; 0]);
    }
}
