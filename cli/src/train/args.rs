//! The options of `smallmind train`.

use std::path::PathBuf;

use clap::{Args as Group, ValueEnum};

use crate::values::{count, seed, thread_count, whole};

/// Most steps, sequences of a step, and the like: what is multiplied stays far below the range of numbers.
const MOST: u64 = 1 << 32;

/// Trains a model on texts.
#[derive(Group)]
pub struct Train {
    /// Model file (GGUF) or folder to go on from: of the families of GPT-2, Llama and Qwen
    #[arg(short, long, value_name = "FILE", required_unless_present = "new")]
    pub model: Option<PathBuf>,
    /// Texts, UTF-8: each file is a document; of a .jsonl file, each line
    #[arg(value_name = "TEXT", required = true)]
    pub texts: Vec<PathBuf>,
    /// The file to write, in f32, of the model or of its adapter; next to it FILE.state, from which --resume goes on, FILE.losses.jsonl, and the curve
    #[arg(short, long, value_name = "FILE")]
    pub out: PathBuf,
    /// Take options from a TOML file, by their names without dashes, and the texts as a list; those of the command line
    /// count more
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Picture of the losses [default: FILE.svg next to --out]
    #[arg(long, value_name = "FILE")]
    pub curve: Option<PathBuf>,
    /// Go on from the state next to --out
    #[arg(long, conflicts_with = "force")]
    pub resume: bool,
    /// Overwrite existing files
    #[arg(long)]
    pub force: bool,
    #[command(flatten, next_help_heading = "A new model")]
    pub new: NewArgs,
    #[command(flatten, next_help_heading = "An adapter")]
    pub lora: LoraArgs,
    #[command(flatten, next_help_heading = "Data")]
    pub data: DataArgs,
    #[command(flatten, next_help_heading = "Steps")]
    pub steps: StepArgs,
    /// Worker threads [default: one for each core]
    #[arg(short, long, value_name = "N", value_parser = thread_count())]
    pub threads: Option<usize>,
    /// Print no progress and no plan
    #[arg(short, long)]
    pub quiet: bool,
}

/// The shape of a new model.
#[derive(Clone, Group)]
pub struct NewArgs {
    /// Instead of a model file: begin with random weights, and a vocabulary that is made for the texts
    #[arg(long, value_name = "FAMILY", conflicts_with = "model")]
    pub new: Option<Family>,
    /// Layers
    #[arg(long, value_name = "N", default_value = "4", value_parser = whole(1, MOST), conflicts_with = "model")]
    pub layers: usize,
    /// Width of the residual stream; a multiple of --heads
    #[arg(long, value_name = "N", default_value = "256", value_parser = whole(1, MOST), conflicts_with = "model")]
    pub dim: usize,
    /// Attention heads
    #[arg(long, value_name = "N", default_value = "4", value_parser = whole(1, MOST), conflicts_with = "model")]
    pub heads: usize,
    /// Most tokens of the vocabulary, a byte-level BPE
    #[arg(long, value_name = "N", default_value = "2048", value_parser = whole(257, 1 << 20),
        conflicts_with = "model")]
    pub vocabulary: usize,
}

/// The adapter that is trained in place of the model.
#[derive(Clone, Group)]
pub struct LoraArgs {
    /// Train a low-rank adapter (LoRA) of this rank, and leave the model, of any types, as it is: --out is the adapter, for
    /// --lora and llama.cpp
    #[arg(long, value_name = "N", value_parser = whole(1, MOST), conflicts_with = "new")]
    pub lora_rank: Option<usize>,
    /// Factor of the adapter's change, which is divided by the rank [default: twice the rank]
    #[arg(long, value_name = "X", value_parser = alpha, requires = "lora_rank")]
    pub lora_alpha: Option<f32>,
    /// The matrices of each layer that it changes, separated by commas, such as attn_q,attn_v [default: all of attention
    /// and MLP]
    #[arg(long, value_name = "NAMES", value_delimiter = ',', requires = "lora_rank")]
    pub lora_targets: Vec<String>,
}

/// The families of new models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Family {
    /// Learned positions, LayerNorm, GELU
    Gpt2,
    /// Rotary positions, RMSNorm, SwiGLU
    Llama,
}

impl Family {
    /// The name in files.
    pub fn architecture(self) -> &'static str {
        match self {
            Family::Gpt2 => "gpt2",
            Family::Llama => "llama",
        }
    }
}

/// How texts become sequences.
#[derive(Group)]
pub struct DataArgs {
    /// The field of a .jsonl file that has the text
    #[arg(long, value_name = "NAME", default_value = "text")]
    pub field: String,
    /// Tokens of a sequence and positions of a new model [default: the model's positions, but at most 256]
    #[arg(short, long, value_name = "N", value_parser = whole(1, MOST))]
    pub context: Option<usize>,
    /// Share of the sequences that validate and aren't trained on; 0 keeps none
    #[arg(long, value_name = "X", default_value_t = 0.05, value_parser = share)]
    pub validation: f64,
    /// Seed of the split, the order of sequences, dropout and a new model: the same seed gives the same model
    #[arg(long, value_name = "N", default_value_t = 42, value_parser = seed)]
    pub seed: u64,
}

/// How many steps are made, and how far each goes.
#[derive(Group)]
pub struct StepArgs {
    /// Steps, all in all [default: those of --epochs]
    #[arg(long, value_name = "N", value_parser = whole(1, MOST), conflicts_with = "epochs")]
    pub steps: Option<usize>,
    /// How often each sequence is trained on
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = above_zero)]
    pub epochs: f64,
    /// Sequences that are computed together
    #[arg(short, long, value_name = "N", default_value = "8", value_parser = whole(1, MOST))]
    pub batch: usize,
    /// Batches of a step, whose gradients are added: as good as a larger batch, in less memory
    #[arg(long, value_name = "N", default_value = "1", value_parser = whole(1, 1 << 20))]
    pub accumulate: usize,
    /// Highest learning rate
    #[arg(long, value_name = "X", default_value_t = 3e-4, value_parser = not_negative)]
    pub lr: f64,
    /// How the learning rate goes on after the warm-up
    #[arg(long, value_name = "NAME", default_value = "cosine")]
    pub schedule: ScheduleName,
    /// Steps in which the learning rate rises [default: a tenth of all, but at most 100]
    #[arg(long, value_name = "N", value_parser = count())]
    pub warm_up: Option<usize>,
    /// Share of a weight that a learning rate of 1 would take away in a step (AdamW)
    #[arg(long, value_name = "X", default_value_t = 0.1, value_parser = not_negative)]
    pub weight_decay: f64,
    /// Longest gradient; a longer one is scaled down. 0 leaves all as they are
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = not_negative)]
    pub clip: f64,
    /// Share of elements that are dropped at random
    #[arg(long, value_name = "X", default_value_t = 0.0, value_parser = share)]
    pub dropout: f64,
    /// Compute activations again in the backward pass instead of keeping them: much less memory, a third more work
    #[arg(long)]
    pub recompute: bool,
    /// Compute the validation loss after so many steps [default: a tenth of all]
    #[arg(long, value_name = "N", value_parser = whole(1, MOST))]
    pub evaluate_every: Option<usize>,
    /// Write the model and the state after so many steps [default: a tenth of all]
    #[arg(long, value_name = "N", value_parser = whole(1, MOST))]
    pub save_every: Option<usize>,
}

/// The names of schedules.
#[derive(Clone, Copy, ValueEnum)]
pub enum ScheduleName {
    /// It stays
    Constant,
    /// Half a period of a cosine, down to a tenth at the last step
    Cosine,
    /// A straight line, down to 0 after the last step
    Linear,
    /// A tenth after each third of the steps
    Step,
    /// Up over three tenths of the steps and down to nearly 0; best without a warm-up
    OneCycle,
}

/// A number from 0 on, below 1.
fn share(text: &str) -> Result<f64, &'static str> {
    number(text, |x| (0.0..1.0).contains(&x)).ok_or("a number from 0 on and below 1 is needed")
}

/// A number from 0 on.
fn not_negative(text: &str) -> Result<f64, &'static str> {
    number(text, |x| x >= 0.0).ok_or("a number, not negative, is needed")
}

/// A number above 0 that single precision holds.
fn alpha(text: &str) -> Result<f32, &'static str> {
    let number = text.parse().ok().filter(|x: &f32| x.is_finite() && *x > 0.0);
    number.ok_or("a number above 0 is needed")
}

/// A number above 0.
fn above_zero(text: &str) -> Result<f64, &'static str> {
    number(text, |x| x > 0.0).ok_or("a number above 0 is needed")
}

fn number(text: &str, right: impl Fn(f64) -> bool) -> Option<f64> {
    text.parse().ok().filter(|x: &f64| x.is_finite() && right(*x))
}
