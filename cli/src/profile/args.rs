//! The arguments of `smallmind profile` and `smallmind baseline`.

use std::path::PathBuf;

use clap::builder::PossibleValuesParser;
use clap::{Args as Group, Subcommand, ValueEnum};
use smallmind::model::GptConfig;

use crate::args::SHAPE;
use crate::conditions::{Arithmetic, Conditions};
use crate::predecessor::MODES;
use crate::values::{count, percent, shape, thread_count, whole};

/// Accepts a number of runs: at least one.
fn runs() -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    whole(1, 1000)
}

/// Accepts the name of a mode.
fn mode() -> PossibleValuesParser {
    PossibleValuesParser::new(MODES.map(|mode| mode.name))
}

#[derive(Group)]
#[command(args_conflicts_with_subcommands = true, arg_required_else_help = true)]
pub struct Profile {
    #[command(subcommand)]
    pub what: Option<What>,
    #[command(flatten)]
    pub file: ModelFile,
}

#[derive(Subcommand)]
pub enum What {
    /// A small model generating: 3 × 50 tokens, sampled
    Standard(RunArgs),
    /// Large matrix products, and a medium model generating 3 × 50 tokens
    Deep(RunArgs),
    /// Matrix products, GELU, softmax, tensor operations and two models
    Enhanced(RunArgs),
    /// Allocations of a product with its backward pass, and of a training loop's steps
    Alloc(RunArgs),
    /// Allocating against reusing: tensors, sums, fused LayerNorm
    Memory(RunArgs),
    /// Batches of texts to vectors, passes on all threads beside a pass on each
    Embed(Embed),
    /// Steps of training, forward and backward
    Train(Train),
    /// Compare two profiles: folders, JSON files, Markdown reports or names of baselines
    Compare(Compare),
    /// Compare the models in one profile
    Models(Models),
}

/// How often, and where results go.
#[derive(Group, Clone)]
pub struct Results {
    /// Times that everything is run; several give confidence intervals
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = runs())]
    pub runs: usize,
    /// Folder for report.md, report.json, report.html, flame.svg, trace.json and profile.pb.gz [default: none]
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Count page faults, switches, cycles and misses of every step too, not only of each part: half a microsecond
    /// or more a step and thread
    #[arg(long)]
    pub counters: bool,
    /// Print the report as JSON instead of Markdown
    #[arg(long)]
    pub json: bool,
    /// Print nothing but the report
    #[arg(short, long)]
    pub quiet: bool,
}

/// How often, on how many threads, and where results go.
#[derive(Group, Clone)]
pub struct RunArgs {
    #[command(flatten)]
    pub results: Results,
    /// Worker threads
    #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = thread_count())]
    pub threads: usize,
}

/// A model to profile that makes vectors of texts.
#[derive(Group)]
pub struct Embed {
    /// Model file (GGUF), or a folder of Hugging Face
    #[arg(short, long, value_name = "FILE")]
    pub model: PathBuf,
    /// Texts of a batch
    #[arg(short, long, value_name = "N", default_value_t = 32, value_parser = whole(1, 100_000))]
    pub batch: usize,
    /// How passes use threads
    #[arg(long, value_enum, default_value = "both")]
    pub strategy: Compared,
    /// Batches of a run
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = whole(1, 1_000_000))]
    pub iterations: usize,
    /// A file with a text a line, which batches take in turn [default: built-in texts of about 32 tokens]
    #[arg(long, value_name = "FILE")]
    pub texts: Option<PathBuf>,
    /// Worker threads [default: one for each core]
    #[arg(short, long, visible_alias = "workers", value_name = "N", value_parser = thread_count())]
    pub threads: Option<usize>,
    #[command(flatten, next_help_heading = "Conditions")]
    pub arithmetic: Arithmetic,
    #[command(flatten, next_help_heading = "Runs and results")]
    pub results: Results,
}

/// A model whose training is profiled.
#[derive(Group)]
pub struct Train {
    /// Model file (GGUF) or folder, of the families of GPT-2, Llama and Qwen [default: that of --random]
    #[arg(short, long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Instead of a file, a GPT with random weights: small, medium, or its numbers
    #[arg(long, value_name = SHAPE, value_parser = shape, default_value = "256,256,384,6,6", conflicts_with = "model")]
    pub random: GptConfig,
    /// Sequences of a step
    #[arg(short, long, value_name = "N", default_value_t = 8, value_parser = whole(1, 100_000))]
    pub batch: usize,
    /// Tokens of a sequence [default: the model's positions, but at most 256]
    #[arg(short, long, value_name = "N", value_parser = whole(1, 1 << 20))]
    pub context: Option<usize>,
    /// Steps of a run
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = whole(1, 1_000_000))]
    pub steps: usize,
    /// Compute activations again in the backward pass instead of keeping them
    #[arg(long)]
    pub recompute: bool,
    /// Worker threads [default: one for each core]
    #[arg(short, long, value_name = "N", value_parser = thread_count())]
    pub threads: Option<usize>,
    #[command(flatten, next_help_heading = "Runs and results")]
    pub results: Results,
}

/// The strategies that are profiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Compared {
    /// All threads in one pass
    Fine,
    /// A pass on each thread
    Coarse,
    /// The one of the two that is estimated to be faster
    Auto,
    /// Fine and coarse, one beside the other
    Both,
}

/// A model file to profile: prefill, decode and a batch.
#[derive(Group)]
pub struct ModelFile {
    /// Model file (GGUF) to profile
    #[arg(short, long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    /// Tokens of the prompt
    #[arg(short = 'p', long = "prompt-tokens", value_name = "N", default_value_t = 128, value_parser = count())]
    pub prompt: usize,
    /// Tokens to decode after it
    #[arg(short = 'n', long = "decode-tokens", value_name = "N", default_value_t = 64, value_parser = count())]
    pub decode: usize,
    #[command(flatten, next_help_heading = "Conditions")]
    pub conditions: Conditions,
    #[command(flatten, next_help_heading = "Runs and results")]
    pub run: RunArgs,
}

#[derive(Group)]
pub struct Compare {
    /// The earlier profile: a folder, a file, or the name of a baseline where there is no such path
    pub before: String,
    /// The later profile, likewise
    pub after: String,
    /// Exit with code 3 where a method is slower by more than this many percent, beyond doubt
    #[arg(long, value_name = "PCT", value_parser = percent)]
    pub fail_on_regression: Option<f64>,
    /// Write the comparison to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Write a page too: the changes, a flame graph of the difference, and the baselines over time
    #[arg(long, value_name = "FILE")]
    pub html: Option<PathBuf>,
    /// Print JSON instead of Markdown
    #[arg(long)]
    pub json: bool,
    /// Where baselines are kept [default: the user's data folder]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
}

#[derive(Group)]
pub struct Models {
    /// A profile with several models: a folder, a JSON file or a Markdown report
    pub report: String,
    /// Write the comparison to a file instead of standard output
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}

#[derive(Group)]
pub struct Baseline {
    #[command(subcommand)]
    pub what: BaselineCommand,
    /// Where baselines are kept [default: the user's data folder]
    #[arg(long, value_name = "DIR", global = true)]
    pub dir: Option<PathBuf>,
}

#[derive(Subcommand)]
pub enum BaselineCommand {
    /// Run a mode and keep the result under a name
    Save {
        /// Name: letters, digits, '.', '-' and '_'
        name: String,
        /// The workload
        #[arg(long, value_name = "MODE", default_value = "enhanced", value_parser = mode())]
        mode: String,
        /// Times that everything is run
        #[arg(long, value_name = "N", default_value_t = 10, value_parser = runs())]
        runs: usize,
        /// Worker threads
        #[arg(short, long, value_name = "N", default_value_t = 1, value_parser = thread_count())]
        threads: usize,
        /// Replace a baseline of this name
        #[arg(long)]
        force: bool,
        /// Keep this profile (a folder or a JSON file) instead of running one
        #[arg(long, value_name = "PATH", conflicts_with_all = ["mode", "runs", "threads"])]
        from: Option<PathBuf>,
    },
    /// List the baselines
    List,
    /// Draw how each method's time went over the baselines
    History {
        /// The page to write
        #[arg(short, long, value_name = "FILE")]
        out: PathBuf,
    },
    /// Delete a baseline
    Delete {
        /// Its name
        name: String,
    },
}
