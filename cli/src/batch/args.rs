//! The options of `batch`.

use std::path::PathBuf;

use clap::Args as Group;
use smallmind::runtime::generation::MAX_LOGPROBS;

use crate::args::{ModelArgs, TextArgs};
use crate::sampling::ChainArgs;
use crate::values::{count, whole};

#[derive(Group)]
pub struct Batch {
    /// The requests: a file of JSON, a line each; - is standard input
    #[arg(value_name = "INPUT", default_value = "-")]
    pub input: PathBuf,
    /// The file to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Go on with a file that an earlier run, with the same model, input and options, left incomplete
    #[arg(long, requires = "out", conflicts_with = "force")]
    pub resume: bool,
    /// Overwrite an existing file
    #[arg(long)]
    pub force: bool,
    /// Requests that run at the same time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = whole(1, 4096))]
    pub parallel: usize,
    /// Most tokens in a pass
    #[arg(short, long, value_name = "N", default_value_t = 256, value_parser = whole(1, 65_536))]
    pub batch: usize,
    /// Positions of the cache that all requests share: with fewer, requests wait for each other [default: --parallel
    /// times --ctx]
    #[arg(long, value_name = "N", value_parser = whole(1, u64::MAX))]
    pub positions: Option<usize>,
    /// Most tokens to generate, unless a line says otherwise
    #[arg(short = 'n', long, value_name = "N", default_value_t = 256, value_parser = count())]
    pub max_tokens: usize,
    /// Add the natural logarithm of each token's probability to the results, with those of the N likeliest tokens, under
    /// the model alone, unless a line says otherwise
    #[arg(long, value_name = "N", value_parser = whole(0, MAX_LOGPROBS as u64))]
    pub logprobs: Option<usize>,
    #[command(flatten, next_help_heading = "Sampling, unless a line says otherwise")]
    pub sampling: ChainArgs,
    #[command(flatten, next_help_heading = "Text")]
    pub text: TextArgs,
    #[command(flatten, next_help_heading = "Model and machine")]
    pub model: ModelArgs,
}
