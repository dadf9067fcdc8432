//! The options of `embed`, `search`, `rerank` and `eval`: which model, how it makes vectors, and which files.

use std::path::PathBuf;

use clap::{Args as Group, Subcommand, ValueEnum};

use super::output::Format;
use crate::conditions::Arithmetic;
use crate::values::{count, thread_count, whole};

/// The model, and how it makes vectors of texts.
#[derive(Group)]
pub struct Embedding {
    /// Model file (GGUF), or a folder of Hugging Face
    #[arg(short, long, value_name = "FILE")]
    pub model: PathBuf,
    /// The row that stands for a text [default: the file's]
    #[arg(long, value_enum)]
    pub pooling: Option<Row>,
    /// Keep only the first so many numbers of a vector, of a model that is trained for it (Matryoshka) [default: all]
    #[arg(long, value_name = "N", value_parser = whole(1, u64::MAX))]
    pub dimensions: Option<usize>,
    /// What becomes of a text that is longer than the model's context
    #[arg(long, value_enum, default_value = "truncate")]
    pub long: Long,
    /// How passes use threads: all in one (fine), or a pass on each (coarse)
    #[arg(long, value_enum, default_value = "auto")]
    pub strategy: Way,
    /// Worker threads [default: one for each core]
    #[arg(short, long, value_name = "N", value_parser = thread_count())]
    pub threads: Option<usize>,
    #[command(flatten)]
    pub arithmetic: Arithmetic,
    /// Print only results: no progress, no summary
    #[arg(short, long)]
    pub quiet: bool,
}

/// The text in front of each text.
#[derive(Group)]
pub struct Prompting {
    /// Put a known prompt in front of each text: query, document …, or one of another style, as in nomic:query
    #[arg(long, value_name = "NAME", conflicts_with = "prompt_text")]
    pub prompt: Option<String>,
    /// Put this text in front of each text; "" for none
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt_text: Option<String>,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Row {
    /// The mean of its rows
    Mean,
    /// Its first row
    Cls,
    /// Its last row
    Last,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Long {
    /// Its end is left out
    Truncate,
    /// It is split, and its vector is the mean of its parts'
    Split,
    /// It has no vector
    Error,
}

#[derive(Clone, Copy, ValueEnum)]
pub enum Way {
    Auto,
    Fine,
    Coarse,
}

#[derive(Group)]
pub struct Embed {
    /// Text files, .jsonl files, and folders, whose files are read in the order of their names, except hidden ones; -
    /// is standard input [default: -]
    #[arg(value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// Make one vector of each file, instead of one of each line
    #[arg(long)]
    pub whole_files: bool,
    /// The field of a .jsonl file that has the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub field: String,
    /// The file to write [default: JSONL to standard output]
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// The format [default: that of the file's extension, else jsonl]
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Leave the texts out of the output
    #[arg(long)]
    pub no_text: bool,
    /// Go on with a file that an earlier run, with the same model, inputs and options, left incomplete
    #[arg(long, requires = "out", conflicts_with = "force")]
    pub resume: bool,
    /// Overwrite an existing file
    #[arg(long)]
    pub force: bool,
    /// Don't scale vectors to length 1
    #[arg(long)]
    pub no_normalize: bool,
    #[command(flatten, next_help_heading = "Prompt [default: the model's for documents, if it has one]")]
    pub prompting: Prompting,
    #[command(flatten, next_help_heading = "Model and machine")]
    pub embedding: Embedding,
}

#[derive(Group)]
pub struct Search {
    /// The set: a .jsonl or .npy file that `smallmind embed` wrote
    #[arg(long = "in", value_name = "SET")]
    pub set: PathBuf,
    /// The text to search for
    pub query: String,
    /// How many results
    #[arg(long, value_name = "K", default_value_t = 10, value_parser = whole(1, 1_000_000))]
    pub top: usize,
    /// Print JSON, a line a result
    #[arg(long)]
    pub json: bool,
    #[command(flatten, next_help_heading = "Prompt [default: the model's for queries, if it has one]")]
    pub prompting: Prompting,
    #[command(flatten, next_help_heading = "Model and machine")]
    pub embedding: Embedding,
}

#[derive(Group)]
pub struct Rerank {
    /// The documents: as for embed
    #[arg(value_name = "INPUT")]
    pub inputs: Vec<PathBuf>,
    /// What the documents are to answer
    #[arg(short = 'Q', long, value_name = "TEXT", allow_hyphen_values = true)]
    pub query: String,
    /// Make one document of each file, instead of one of each line
    #[arg(long)]
    pub whole_files: bool,
    /// The field of a .jsonl file that has the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub field: String,
    /// How many results; 0 for all
    #[arg(long, value_name = "K", default_value_t = 0, value_parser = count())]
    pub top: usize,
    /// Print JSON, a line a result
    #[arg(long)]
    pub json: bool,
    #[command(flatten, next_help_heading = "Model and machine")]
    pub embedding: Embedding,
}

#[derive(Group)]
pub struct Eval {
    #[command(subcommand)]
    pub what: What,
}

#[derive(Subcommand)]
pub enum What {
    /// Compare cosines of pairs of texts with human ratings
    Similarity(Similarity),
}

#[derive(Group)]
pub struct Similarity {
    /// The pairs: .tsv, .csv or .jsonl; a first line without a rating is a header
    pub file: PathBuf,
    /// Columns of the first text, the second and the rating: numbers from 1 on or names [default: 1,2,3; of .jsonl
    /// sentence1,sentence2,score]
    #[arg(long, value_name = "A,B,RATING", value_delimiter = ',')]
    pub columns: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    #[command(flatten, next_help_heading = "Prompt [default: the model's for similarity, if it has one]")]
    pub prompting: Prompting,
    #[command(flatten, next_help_heading = "Model and machine")]
    pub embedding: Embedding,
}
