//! The command line: commands, options, defaults and help.

use std::path::PathBuf;

use clap::builder::RangedU64ValueParser;
use clap::{Args as Group, Parser, Subcommand};
use smallmind::kernels::qmatmul::Activations;
use smallmind::kv::CacheType;
use smallmind::model::GptConfig;
use smallmind::threads::MAX_WORKERS;

use crate::conditions::Conditions;
use crate::profile::args::{Baseline, Profile};

/// The syntax of a random model's shape, in help.
const SHAPE: &str = "small|medium|VOCAB,CONTEXT,DIM,LAYERS,HEADS";

/// Accepts the sizes of a team, so that a wrong one is an error before a long load.
pub fn thread_count() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=MAX_WORKERS as u64)
}

/// How many bits activations keep, as it is typed.
pub fn activations(bits: &str) -> Result<Activations, &'static str> {
    match bits {
        "16" => Ok(Activations::Bits16),
        "auto" => Ok(Activations::Adaptive),
        "8" => Ok(Activations::Bits8),
        _ => Err("16, auto or 8 is needed"),
    }
}

/// What the cache holds, as it is typed.
pub fn cache_type(name: &str) -> Result<CacheType, &'static str> {
    CacheType::ALL.into_iter().find(|kv| kv.name() == name).ok_or("f32, f16 or q8_0 is needed")
}

fn shape(text: &str) -> Result<GptConfig, String> {
    // Only the text: clap adds the argument.
    text.parse().map_err(|error: smallmind::Error| match error {
        smallmind::Error::InvalidArgument(what) => what,
        other => other.to_string(),
    })
}

/// Runs small language models on the CPU.
#[derive(Parser)]
#[command(name = "smallmind", version, about, arg_required_else_help = true)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Subcommand)]
pub enum Command {
    /// Continue a text (or, with --chat, answer it)
    Generate(Generate),
    /// Talk with a model, turn by turn
    Chat(Chat),
    /// Show what a model file holds
    Info(Info),
    /// List the kernels and which of them this CPU runs
    Kernels(Kernels),
    /// Measure prefill and decode speed
    Bench(Bench),
    /// Write a model file with random weights
    Create(Create),
    /// Find out where time and memory go, and compare two such findings
    Profile(Profile),
    /// Keep profiles under names, to compare later ones with
    Baseline(Baseline),
}

/// The model and the parameters of its context.
#[derive(Group)]
pub struct ModelArgs {
    /// Model file (GGUF)
    #[arg(short, long, value_name = "FILE")]
    pub model: PathBuf,
    /// Worker threads [default: one for each core]
    #[arg(short, long, value_name = "N", value_parser = thread_count())]
    pub threads: Option<usize>,
    /// Positions of context; 0 takes what the model was trained on [default: that, but at most 4096]
    #[arg(short, long, value_name = "N")]
    pub ctx: Option<usize>,
    /// Bits that activations keep at matmuls with quantised weights: 16 is as good as unrounded, 8 (as in
    /// llama.cpp) is faster, auto is 16 in blocks with an outlier and 8 elsewhere
    #[arg(long, value_name = "16|auto|8", default_value = "16", hide_default_value = true, value_parser = activations)]
    pub activations: Activations,
    /// Element type of cached keys and values: fewer bytes are faster deep in a text; f16 is as good as f32
    #[arg(long, value_name = "f32|f16|q8_0", default_value = "f16", hide_default_value = true, value_parser = cache_type)]
    pub kv: CacheType,
    /// Divide positions by this factor, for contexts longer than the model was trained on [default: the file's]
    #[arg(long, value_name = "X", default_value_t = 0.0, hide_default_value = true)]
    pub rope_scale: f32,
    /// Base of the rotary frequencies [default: the file's]
    #[arg(long, value_name = "X", default_value_t = 0.0, hide_default_value = true)]
    pub rope_base: f32,
    /// Map the file instead of reading it; nobody may change the file while the program runs
    #[arg(long)]
    pub mmap: bool,
    /// Print where time and memory went
    #[arg(long)]
    pub profile: bool,
    /// Print only the text: no progress, no summary
    #[arg(short, long)]
    pub quiet: bool,
}

/// The parameters of sampling.
#[derive(Group)]
pub struct SamplingArgs {
    /// 0 always takes the likeliest token; higher values are more varied
    #[arg(long, value_name = "T", default_value_t = 0.8, allow_negative_numbers = true)]
    pub temp: f32,
    /// Keep the K likeliest tokens; 0 keeps all
    #[arg(long, value_name = "K", default_value_t = 40)]
    pub top_k: usize,
    /// Keep the likeliest tokens that together reach this probability
    #[arg(long, value_name = "P", default_value_t = 0.95, allow_negative_numbers = true)]
    pub top_p: f32,
    /// Keep tokens at least this many times as likely as the likeliest
    #[arg(long, value_name = "P", default_value_t = 0.05, allow_negative_numbers = true)]
    pub min_p: f32,
    /// Make tokens of the recent text less likely; 1 is off
    #[arg(long, value_name = "R", default_value_t = 1.0, allow_negative_numbers = true)]
    pub repeat_penalty: f32,
    /// Seed of the random draws; the same seed gives the same text [default: from the clock]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
}

#[derive(Group)]
pub struct Generate {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// The text to continue; without it, standard input
    #[arg(short, long, value_name = "TEXT")]
    pub prompt: Option<String>,
    /// Most tokens to generate
    #[arg(short = 'n', long = "max-tokens", value_name = "N", default_value_t = 128)]
    pub max_tokens: usize,
    /// End the text before this string; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub stop: Vec<String>,
    /// Treat the text as a message, and answer it with the model's chat template
    #[arg(long)]
    pub chat: bool,
    /// With --chat: how the model should behave
    #[arg(long, value_name = "TEXT", requires = "chat")]
    pub system: Option<String>,
}

#[derive(Group)]
pub struct Chat {
    #[command(flatten)]
    pub model: ModelArgs,
    #[command(flatten)]
    pub sampling: SamplingArgs,
    /// How the model should behave
    #[arg(long, value_name = "TEXT")]
    pub system: Option<String>,
    /// Most tokens in a reply
    #[arg(short = 'n', long = "max-tokens", value_name = "N", default_value_t = 1024)]
    pub max_tokens: usize,
    /// End a reply before this string; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub stop: Vec<String>,
}

#[derive(Group)]
pub struct Info {
    /// Model file (GGUF)
    pub file: PathBuf,
    /// List every tensor
    #[arg(long)]
    pub tensors: bool,
    /// List every metadata key
    #[arg(long)]
    pub metadata: bool,
    /// Show only the computation graph
    #[arg(long)]
    pub graph: bool,
    /// Show only the steps of a forward pass
    #[arg(long)]
    pub plan: bool,
    /// With --plan: bits that activations keep at matmuls with quantised weights
    #[arg(long, value_name = "16|auto|8", default_value = "16", hide_default_value = true, requires = "plan",
        value_parser = activations)]
    pub activations: Activations,
}

#[derive(Group)]
pub struct Kernels {
    /// Say of each kernel why it is chosen or not
    #[arg(long)]
    pub why: bool,
}

#[derive(Group)]
pub struct Create {
    /// The shape: a GPT in f32, without a vocabulary
    #[arg(long, value_name = SHAPE, value_parser = shape)]
    pub random: GptConfig,
    /// Seed of the weights: the same seed gives the same file
    #[arg(long, value_name = "N", default_value_t = 42)]
    pub seed: u64,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Overwrite an existing file
    #[arg(long)]
    pub force: bool,
}

#[derive(Group)]
pub struct Bench {
    /// Model file (GGUF)
    #[arg(short, long, value_name = "FILE", required_unless_present = "random")]
    pub model: Option<PathBuf>,
    /// Instead of a file, a GPT with random weights: small, medium, or its numbers
    #[arg(long, value_name = SHAPE, value_parser = shape, conflicts_with = "model")]
    pub random: Option<GptConfig>,
    /// Tokens of a prompt to prefill (pp), several separated by commas; 0 leaves it out [default: 512, or as many as
    /// the model has learned positions for]
    #[arg(short = 'p', long = "prompt-tokens", value_name = "N", value_delimiter = ',')]
    pub prompt: Vec<usize>,
    /// Tokens to decode one by one (tg), several separated by commas; 0 leaves it out [default: 128, likewise]
    #[arg(short = 'n', long = "decode-tokens", value_name = "N", value_delimiter = ',')]
    pub decode: Vec<usize>,
    /// Tokens of a prompt whose first answer is waited for (ft), several separated by commas; 0 leaves it out
    /// [default: 16, likewise]
    #[arg(short = 'f', long = "first-token", value_name = "N", value_delimiter = ',')]
    pub first: Vec<usize>,
    /// Sequences that decode a token each in one batch, several numbers separated by commas (tg128x8 is of 8)
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=4096))]
    pub parallel: Vec<usize>,
    #[command(flatten)]
    pub conditions: Conditions,
    /// Tokens that go through the model at once; 0 is the default
    #[arg(short, long, value_name = "N", default_value_t = 0)]
    pub batch: usize,
    /// Worker threads, several separated by commas [default: one for each core]
    #[arg(short, long, value_name = "N", value_delimiter = ',', value_parser = thread_count())]
    pub threads: Vec<usize>,
    /// Measurements of each test, after one that isn't counted
    #[arg(short, long, value_name = "N", default_value_t = 5,
        value_parser = RangedU64ValueParser::<usize>::new().range(1..))]
    pub repetitions: usize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}
