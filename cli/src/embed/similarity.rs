//! `smallmind eval similarity`: how well cosines of pairs of texts agree with human ratings, as the correlation of their
//! ranks (Spearman) and of the values (Pearson).

use std::io::BufRead;

use serde_json::{Value as Json, json};
use smallmind::Error;
use smallmind::embed::Embedder;
use smallmind::text::escaped_path;

use super::args::Similarity;
use super::engine::{self, Choice, Run};
use super::inputs::{Inputs, Text};
use super::search::cosine;
use crate::failure::{Failure, Result};
use crate::interrupt;
use crate::output::{print, print_json};
use crate::small_file;

/// Most bytes of a file of pairs.
const MAX_BYTES: u64 = 256 << 20;

pub fn run(args: &Similarity) -> Result<()> {
    interrupt::install();
    let pairs = Pairs::read(args)?;
    let choice = Choice { normalize: true, prompt: "sentence similarity" };
    let mut embedder = engine::open(&args.embedding, Some(&args.prompting), choice)?;
    let (cosines, ratings, rate) = cosines(pairs, &mut embedder, args.embedding.quiet)?;
    let correlations = spearman(&cosines, &ratings).zip(pearson(&cosines, &ratings));
    let (spearman, pearson) = correlations.ok_or_else(|| {
        Error::invalid("no correlation: at least two different ratings and cosines are needed")
    })?;
    let count = ratings.len();
    if args.json {
        let text = json!({
            "model": args.embedding.model.display().to_string(),
            "file": args.file.display().to_string(),
            "pairs": count,
            "spearman": spearman,
            "pearson": pearson,
            "texts_per_second": rate,
        });
        return print_json(&text.to_string()).map_err(Failure::from);
    }
    Ok(print(&format!("Spearman {spearman:.4}, Pearson {pearson:.4}, {count} pairs, {rate:.0} texts/s\n"))?)
}

/// Pairs of texts, one behind the other, and a rating a pair.
struct Pairs {
    texts: Vec<String>,
    ratings: Vec<f64>,
}

impl Pairs {
    fn read(args: &Similarity) -> Result<Pairs> {
        let bytes = small_file::read(&args.file, MAX_BYTES)?;
        let extension = args.file.extension().and_then(|extension| extension.to_str()).unwrap_or("");
        let usual: &[&str] =
            if extension == "jsonl" { &["sentence1", "sentence2", "score"] } else { &["1", "2", "3"] };
        let columns: Vec<&str> = match args.columns.is_empty() {
            true => usual.to_vec(),
            false => args.columns.iter().map(String::as_str).collect(),
        };
        let &[a, b, rating] = &columns[..] else {
            return Err(Failure::Usage("'--columns <A,B,RATING>' needs three names or numbers".into()));
        };
        let mut pairs = Pairs { texts: Vec::new(), ratings: Vec::new() };
        match extension {
            "jsonl" => pairs.read_json(args, &bytes, [a, b, rating])?,
            "csv" => pairs.read_table(args, csv::ReaderBuilder::new(), &bytes, [a, b, rating])?,
            _ => {
                let mut tabs = csv::ReaderBuilder::new();
                tabs.delimiter(b'\t').quoting(false);
                pairs.read_table(args, tabs, &bytes, [a, b, rating])?;
            }
        }
        Ok(pairs)
    }

    fn add(&mut self, a: &str, b: &str, rating: f64) {
        self.texts.extend([a.to_owned(), b.to_owned()]);
        self.ratings.push(rating);
    }

    fn read_table(
        &mut self,
        args: &Similarity,
        mut format: csv::ReaderBuilder,
        bytes: &[u8],
        names: [&str; 3],
    ) -> Result<()> {
        let mut reader = format.has_headers(false).flexible(true).from_reader(bytes);
        let mut columns = None;
        for (i, row) in reader.records().enumerate() {
            let row = row.map_err(|error| bad(args, &error.to_string()))?;
            let (known, line) = (columns.is_some(), i + 1);
            let places = match columns {
                Some(places) => places,
                None => *columns.insert(places(args, &row, names)?),
            };
            let [a, b, rating] = places.map(|place| row.get(place));
            match (a, b, rating.and_then(number)) {
                (Some(a), Some(b), Some(rating)) => self.add(a, b, rating),
                // The header.
                _ if !known => {}
                _ => return Err(bad(args, &format!("row {line} has no two texts and a rating"))),
            }
        }
        Ok(())
    }

    fn read_json(&mut self, args: &Similarity, bytes: &[u8], names: [&str; 3]) -> Result<()> {
        for (i, line) in bytes.lines().enumerate() {
            let line = line.map_err(|source| Error::Io { path: args.file.clone(), source })?;
            if line.trim().is_empty() {
                continue;
            }
            let json: Json = serde_json::from_str(&line)
                .map_err(|error| bad(args, &format!("line {}: {error}", i + 1)))?;
            let [a, b, rating] = names.map(|name| json.get(name));
            match (a.and_then(Json::as_str), b.and_then(Json::as_str), rating.and_then(Json::as_f64)) {
                (Some(a), Some(b), Some(rating)) => self.add(a, b, rating),
                _ => return Err(bad(args, &format!("line {} has no two texts and a rating", i + 1))),
            }
        }
        Ok(())
    }
}

fn bad(args: &Similarity, what: &str) -> Failure {
    Error::invalid(format!("{}: {what}", escaped_path(&args.file))).into()
}

/// A rating.
fn number(text: &str) -> Option<f64> {
    text.trim().parse().ok().filter(|x: &f64| x.is_finite())
}

/// Where columns stand: their numbers, or the places of their names in the first row.
fn places(args: &Similarity, first: &csv::StringRecord, names: [&str; 3]) -> Result<[usize; 3]> {
    let mut places = [0; 3];
    for (place, name) in places.iter_mut().zip(names) {
        let found = match name.parse::<usize>() {
            Ok(number) => number.checked_sub(1),
            Err(_) => first.iter().position(|field| field.trim() == name),
        };
        *place = found.ok_or_else(|| {
            bad(args, &format!("there is no column \"{}\"", smallmind::text::escaped(name)))
        })?;
    }
    Ok(places)
}

/// The cosine of each pair with its rating, and texts a second. A pair with a text that has no vector is an error.
fn cosines(pairs: Pairs, embedder: &mut Embedder, quiet: bool) -> Result<(Vec<f32>, Vec<f64>, f64)> {
    let text = |(i, text)| Text { id: format!("pair {}", i / 2 + 1), source: String::new(), text: Ok(text) };
    let mut inputs = Inputs::given(pairs.texts.into_iter().enumerate().map(text).collect());
    let mut run = Run::new(&inputs, quiet);
    let (mut cosines, mut first): (_, Option<Vec<f32>>) = (Vec::new(), None);
    while let Some(chunk) =
        run.next(&mut inputs, embedder, |embedder, texts, out| embedder.embed(texts, out))?
    {
        for (text, status, vector) in chunk.results() {
            let Some(vector) = vector else {
                return Err(
                    Error::invalid(format!("{} has a text without a vector: {status}", text.id)).into()
                );
            };
            match first.take() {
                None => first = Some(vector.to_vec()),
                Some(first) => cosines.push(cosine(&first, vector)?),
            }
        }
    }
    Ok((cosines, pairs.ratings, run.rate()))
}

/// The correlation of ranks; `None` where one side has a single value.
fn spearman(a: &[f32], b: &[f64]) -> Option<f64> {
    let a: Vec<f64> = a.iter().map(|&x| x.into()).collect();
    correlation(&ranks(&a), &ranks(b))
}

fn pearson(a: &[f32], b: &[f64]) -> Option<f64> {
    correlation(&a.iter().map(|&x| x.into()).collect::<Vec<f64>>(), b)
}

/// Each value's place in their order; equal ones have the mean of their places.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut first = 0;
    for same in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let mean = first as f64 + (same.len() - 1) as f64 / 2.0;
        same.iter().for_each(|&i| ranks[i] = mean);
        first += same.len();
    }
    ranks
}

fn correlation(a: &[f64], b: &[f64]) -> Option<f64> {
    let mean = |x: &[f64]| x.iter().sum::<f64>() / x.len() as f64;
    let (mean_a, mean_b) = (mean(a), mean(b));
    let (mut product, mut squares_a, mut squares_b) = (0.0, 0.0, 0.0);
    for (a, b) in a.iter().zip(b) {
        let (a, b) = (a - mean_a, b - mean_b);
        product += a * b;
        squares_a += a * a;
        squares_b += b * b;
    }
    let lengths: f64 = (squares_a * squares_b).sqrt();
    (lengths > 0.0).then(|| product / lengths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_values_share_their_ranks() {
        assert_eq!(ranks(&[3.0, 1.0, 3.0, 2.0, 3.0]), [3.0, 0.0, 3.0, 1.0, 3.0]);
    }

    /// Ranks 0, 1.5, 1.5, 3 and 1, 0, 2.5, 2.5 differ from their mean, 1.5, by −1.5, 0, 0, 1.5 and −0.5, −1.5, 1, 1: the
    /// products' sum is 2.25, the squares' sums are 4.5 and 4.5.
    #[test]
    fn correlations_are_those_by_hand() {
        let (a, b) = ([0.1, 0.5, 0.5, 0.9], [2.0, 1.0, 4.0, 4.0]);
        assert!((spearman(&a, &b).unwrap() - 0.5).abs() < 1e-12);
        // Deviations −0.4, 0, 0, 0.4 and −0.75, −1.75, 1.25, 1.25: 0.8 over the root of 0.32 · 6.75.
        assert!((pearson(&a, &b).unwrap() - 0.8 / (0.32f64 * 6.75).sqrt()).abs() < 1e-6);
        assert_eq!(spearman(&[0.5, 0.5], &[1.0, 2.0]), None);
        assert_eq!(spearman(&[], &[]), None);
    }
}
