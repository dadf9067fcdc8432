//! The command line: commands, options, defaults and help.

use std::path::PathBuf;

use clap::builder::Styles;
use clap::error::ErrorKind;
use clap::{Arg, Args as Group, Command as Syntax, CommandFactory, FromArgMatches, Parser, Subcommand};
use smallmind::kernels::qmatmul::Activations;
use smallmind::kv::CacheType;
use smallmind::model::quantize::Mix;
use smallmind::model::{GptConfig, LoadParams, RopeOverrides};
use smallmind::runtime::generation::MAX_LOGPROBS;
use smallmind::runtime::generation::draft::MAX_DRAFT;

use crate::adapters::AdapterArgs;
use crate::batch::args::Batch;
use crate::conditions::{Arithmetic, Conditions};
use crate::embed::args::{Embed, Eval, Rerank, Search};
use crate::merge::Merge;
use crate::profile::args::{Baseline, Profile};
use crate::sampling::ChainArgs;
use crate::train::args::Train;
use crate::train::config;
use crate::values::{activations, cache_type, count, mix, rope, seed, shape, stop, thread_count, whole};

/// The syntax of a random model's shape, in help.
pub const SHAPE: &str = "small|medium|VOCAB,CONTEXT,DIM,LAYERS,HEADS";

/// Value names of options that take numbers.
const NUMBERS: [&str; 8] = ["N", "K", "T", "P", "R", "X", "PCT", SHAPE];

/// Runs small language models on the CPU.
#[derive(Parser)]
#[command(
    name = "smallmind",
    version,
    about,
    arg_required_else_help = true,
    after_help = "\
Examples:
  smallmind chat -m model.gguf                         talk with a model
  smallmind generate -m model.gguf -p \"Once upon\"     continue a text
  smallmind info model.gguf                            say what a file holds
  smallmind help generate                              the options of a command"
)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
}

impl Args {
    /// The arguments of this process.
    pub fn read() -> Result<Args, clap::Error> {
        let syntax = Args::syntax();
        let mut line: Vec<_> = std::env::args_os().collect();
        if let Some(train) = syntax.find_subcommand("train") {
            line = config::expanded(line, train).map_err(|why| clap::Error::raw(ErrorKind::Io, why))?;
        }
        match syntax.styles(Styles::plain()).try_get_matches_from(&line) {
            Ok(matches) => Args::from_arg_matches(&matches),
            // Help is more pleasant with styles; an error's text is told from what was typed without them.
            Err(error) if !error.use_stderr() => Args::syntax().try_get_matches_from(&line).and(Err(error)),
            Err(error) => Err(error),
        }
    }

    /// The whole syntax.
    fn syntax() -> Syntax {
        numbers_may_be_negative(Args::command())
    }
}

/// Lets what looks like an option reach an option that takes a number, which then says what is wrong with it.
fn numbers_may_be_negative(syntax: Syntax) -> Syntax {
    let arg = |arg: Arg| {
        let is_number = arg.get_value_names().is_some_and(|names| NUMBERS.contains(&names[0].as_str()));
        // -inf and lists that begin with a negative number, too.
        if is_number && !arg.is_positional() { arg.allow_hyphen_values(true) } else { arg }
    };
    syntax.mut_args(arg).mut_subcommands(numbers_may_be_negative)
}

#[derive(Subcommand)]
pub enum Command {
    /// Continue a text (or, with --chat, answer it)
    #[command(after_help = "\
On a terminal, control characters of the text are escaped; a file or a pipe gets it as the model wrote it.

Examples:
  smallmind generate -m model.gguf -p \"Once upon a time\" -n 200
  smallmind generate -m model.gguf --chat -p \"What is a monad?\" --temp 0
  smallmind generate -m model.gguf -q < prompt.txt > answer.txt")]
    Generate(Generate),
    /// Talk with a model, turn by turn
    #[command(after_help = "\
Type a message and press Enter. Alt-Enter, or a backslash before Enter, begins a new line; pasted lines stay \
together. Ctrl-C stops an answer, Ctrl-D ends the chat. A line that begins with a slash is a command (/help lists \
them); two slashes begin a message with one. Without a terminal, each line of standard input is a message or a command.

Examples:
  smallmind chat -m model.gguf --system \"Answer in one sentence.\"
  printf '%s\\n' \"Hello\" \"/save talk.json\" | smallmind chat -m model.gguf -q")]
    Chat(Chat),
    /// Show what a model file holds
    #[command(after_help = "\
Examples:
  smallmind info model.gguf --tensors
  smallmind info model.gguf --json --metadata | jq .metadata
  smallmind info model.gguf --plan --activations 8")]
    Info(Info),
    /// List the kernels and which of them this CPU runs
    #[command(after_help = "Example:\n  SMALLMIND_ISA=avx2 smallmind kernels --why")]
    Kernels(Kernels),
    /// Measure prefill and decode speed
    #[command(after_help = "\
Examples:
  smallmind bench -m model.gguf -p 512 -n 128
  smallmind bench -m model.gguf -t 1,2,4 --depth 0,4096 --json
  smallmind bench --random medium --parallel 1,4")]
    Bench(Bench),
    /// Write a model file with random weights
    #[command(after_help = "Example:\n  smallmind create --random 256,64,128,2,4 --seed 7 -o random.gguf")]
    Create(Create),
    /// Make a GGUF file of a model in another format
    #[command(after_help = "\
Read are folders of Hugging Face with the classes LlamaForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, GPT2LMHeadModel \
and BertModel, and models of llama2.c with their tokenizer.bin. Other commands read such folders as they are.

Examples:
  smallmind convert SmolLM2-135M smollm2.gguf --type Q8_0
  smallmind convert stories15M.bin stories15M.gguf --tokenizer tokenizer.bin")]
    Convert(Convert),
    /// Make a smaller model file, with fewer bits a weight
    #[command(after_help = "\
A type is a mix: most matrices have it, those in which errors cost more have more bits. The mixes are those of \
llama.cpp. From many bits to few: F32, F16, BF16, Q8_0, Q6_K, Q5_K_M, Q5_K_S, Q5_1, Q5_0, Q4_K_M, Q4_K_S, Q4_1, Q4_0, \
IQ4_NL, IQ4_XS, Q3_K_L, Q3_K_M, Q3_K_S, Q2_K, Q2_K_S, TQ1_0, TQ2_0.

Examples:
  smallmind quantize model-f16.gguf model-q4.gguf --type Q4_K_M
  smallmind quantize model-f16.gguf model-q3.gguf --type Q3_K_M --imatrix imatrix.gguf")]
    Quantize(Quantize),
    /// Merge low-rank adapters (LoRA) into a model file
    #[command(after_help = "\
Matrices that an adapter changes become sums of theirs and its product, and keep their types; all else is copied. With \
--lora, other commands apply adapters to a model as it is.

Examples:
  smallmind merge -m model-f16.gguf --lora adapter.gguf -o merged.gguf
  smallmind merge -m model-f16.gguf --lora a.gguf=0.5 --lora b.gguf=0.5 -o merged.gguf --type Q4_K_M")]
    Merge(Merge),
    /// Measure how well a model predicts a text
    #[command(after_help = "\
The text is cut into chunks of --ctx tokens; the predictions of each chunk's second half count, as in llama.cpp's \
llama-perplexity, whose numbers these can be compared with. Lower is better.

Example:
  smallmind perplexity -m model.gguf -f wiki.test.raw --ctx 512")]
    Perplexity(Perplexity),
    /// Train a model on texts
    #[command(
        args_override_self = true,
        after_help = "\
The model is written in f32; quantize makes a smaller file of it. Ctrl-C writes model and state, and stops; the same \
command with --resume goes on, and makes the same model as without the break.

Examples:
  smallmind train -m model.gguf book.txt --out tuned.gguf --epochs 3
  smallmind train -m model.gguf book.txt --out tuned.gguf --epochs 3 --resume
  smallmind train -m model.gguf book.txt --out adapter.gguf --lora-rank 8 --epochs 3
  smallmind train --new llama --layers 6 --dim 384 --heads 6 book.txt --out new.gguf --steps 2000 --lr 1e-3"
    )]
    Train(Train),
    /// Generate a text for each line of a file, many at once
    #[command(after_help = "\
A line is JSON: \"prompt\" or \"messages\" (a list of {\"role\": …, \"content\": …}), an id, a priority, and what may \
stand in place of the command line's: max_tokens, stop, logprobs, seed, temperature, temperature_range, \
temperature_exponent, top_k, top_p, min_p, typical_p, top_n_sigma, xtc_probability, xtc_threshold, repetition_penalty, \
frequency_penalty, presence_penalty, penalty_last_n, dry_multiplier, dry_base, dry_allowed_length, dry_last_n, \
dry_breakers (a list), mirostat (0 or 2), mirostat_tau, mirostat_eta, logit_bias ([[15043, 1.5], [7, false]]), samplers \
(a list), json_schema, regex, grammar. Results come in the order of the lines, and are those that a \
line has alone; a bad line has a record that says why. Ctrl-C, a kill or a full disk leaves whole records; --resume goes \
on behind them.

Examples:
  smallmind batch -m model.gguf questions.jsonl --out answers.jsonl
  smallmind batch -m model.gguf questions.jsonl --out answers.jsonl --parallel 32 --resume
  echo '{\"prompt\": \"Once upon\", \"max_tokens\": 20}' | smallmind batch -m model.gguf -q")]
    Batch(Batch),
    /// Make vectors of texts
    #[command(after_help = "\
A text that can't be embedded (no UTF-8, too long with --long error) has a record with its status and no vector, and \
costs no other. Ctrl-C, a kill or a full disk leaves whole records; --resume goes on behind them.

Examples:
  smallmind embed -m minilm.gguf notes/ --whole-files --out notes.jsonl
  smallmind embed -m minilm.gguf titles.txt --out titles.npy --resume
  echo 'A man plays a guitar.' | smallmind embed -m minilm.gguf -q")]
    Embed(Embed),
    /// Find the nearest texts of a set of vectors
    #[command(after_help = "\
A line a result: the cosine, the id and the text's first line.

Example:
  smallmind search -m minilm.gguf --in notes.jsonl \"who plays the guitar?\" --top 5")]
    Search(Search),
    /// Order documents by their scores as answers to a query
    #[command(after_help = "\
The model is a reranker: a file with a classifier.

Example:
  smallmind rerank -m reranker.gguf --query \"who plays the guitar?\" notes.txt")]
    Rerank(Rerank),
    /// Measure how good a model is
    #[command(after_help = "Example:\n  smallmind eval similarity -m minilm.gguf stsb-test.tsv")]
    Eval(Eval),
    /// Find out where time and memory go, and compare two such findings
    #[command(after_help = "\
Examples:
  smallmind profile -m model.gguf --runs 5 --out before
  smallmind profile compare before after --fail-on-regression 5")]
    Profile(Profile),
    /// Keep profiles under names, to compare later ones with
    #[command(after_help = "\
Examples:
  smallmind baseline save before --mode deep
  smallmind baseline list")]
    Baseline(Baseline),
}

/// The model and the parameters of its context.
#[derive(Group)]
pub struct ModelArgs {
    /// Model file (GGUF) or folder [default: the built-in model, which writes short stories]
    #[arg(short, long, value_name = "FILE")]
    pub model: Option<PathBuf>,
    #[command(flatten)]
    pub adapters: AdapterArgs,
    /// Worker threads [default: one for each core]
    #[arg(short, long, value_name = "N", value_parser = thread_count())]
    pub threads: Option<usize>,
    /// Positions of context; 0 takes what the model was trained on [default: that, but at most 4096]
    #[arg(short, long, value_name = "N", value_parser = count())]
    pub ctx: Option<usize>,
    /// Bits that activations keep at matmuls with quantised weights: 16 is as good as unrounded, 8 (as in
    /// llama.cpp) is faster, auto is 16 in blocks with an outlier and 8 elsewhere
    #[arg(long, value_name = "16|auto|8", default_value = "16", value_parser = activations)]
    pub activations: Activations,
    /// Element type of cached keys and values: fewer bytes are faster deep in a text; f16 is as good as f32
    #[arg(long, value_name = "f32|f16|q8_0", default_value = "f16", value_parser = cache_type)]
    pub kv: CacheType,
    /// Divide positions by this factor, for contexts longer than the model was trained on [default: the file's]
    #[arg(long, value_name = "X", default_value_t = 0.0, hide_default_value = true, value_parser = rope)]
    pub rope_scale: f32,
    /// Base of the rotary frequencies [default: the file's]
    #[arg(long, value_name = "X", default_value_t = 0.0, hide_default_value = true, value_parser = rope)]
    pub rope_base: f32,
    /// Split text as GPT-2 does where the file names a pre-tokenizer that is not known here
    #[arg(long)]
    pub default_pre_tokenizer: bool,
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

impl ModelArgs {
    /// What loads the model, but for its adapters.
    pub fn load_params(&self) -> LoadParams<'static> {
        LoadParams::default()
            .with_activations(self.activations)
            .with_default_pre_tokenizer(self.default_pre_tokenizer)
    }

    /// The changes in its rotary embedding.
    pub fn rope(&self) -> RopeOverrides {
        RopeOverrides::default().with_base(self.rope_base).with_factor(self.rope_scale)
    }
}

/// How tokens are guessed, so that several come from one pass; the text is the same.
#[derive(Group)]
pub struct DraftArgs {
    /// Let a smaller model of the same vocabulary guess tokens
    #[arg(long, value_name = "FILE")]
    pub draft: Option<PathBuf>,
    /// Guess that the text repeats what stands in it or its prompt
    #[arg(long, conflicts_with = "draft")]
    pub lookup: bool,
    /// Most tokens that are guessed at a time
    #[arg(long, value_name = "N", default_value_t = 6, value_parser = whole(1, MAX_DRAFT as u64))]
    pub draft_max: usize,
}

/// How text becomes tokens, and where it ends.
#[derive(Group)]
pub struct TextArgs {
    /// End the text before this string; may be given several times
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true, value_parser = stop)]
    pub stop: Vec<String>,
    /// Read the names of special tokens (<|im_end|>) in prompts and messages as these tokens; they are text otherwise
    #[arg(long)]
    pub parse_special: bool,
    /// Don't begin with the token for the beginning of a text; without this it is there, once, where the file or its
    /// pre-tokenizer asks for it, whether or not the chat template writes it
    #[arg(long)]
    pub no_bos: bool,
}

impl TextArgs {
    /// The strings that end a text.
    pub fn stops(&self) -> Vec<&str> {
        self.stop.iter().map(String::as_str).collect()
    }
}

/// What a run leaves for a later one.
#[derive(Group)]
pub struct SnapshotArgs {
    /// Go on from a file that --save wrote: what it has read isn't computed again
    #[arg(long, value_name = "FILE")]
    pub load: Option<PathBuf>,
    /// Write all that the model has read and written to a file, for --load
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,
}

/// What the chat template sees in addition to the messages.
#[derive(Group)]
pub struct TemplateArgs {
    /// Give the chat template a variable, with a JSON value (enable_thinking=false, reasoning_effort='"high"'); may be
    /// given several times
    #[arg(long = "chat-arg", value_name = "KEY=VALUE", allow_hyphen_values = true)]
    pub arguments: Vec<String>,
    /// Tell the model of tools: a file with a JSON list, as the chat template takes it
    #[arg(long, value_name = "FILE")]
    pub tools: Option<PathBuf>,
    /// Let answers begin with this text; the model goes on from there
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub prefix: Option<String>,
}

#[derive(Group)]
pub struct Generate {
    /// The text to continue [default: standard input]
    #[arg(short, long, value_name = "TEXT", allow_hyphen_values = true)]
    pub prompt: Option<String>,
    /// Most tokens to generate
    #[arg(short = 'n', long = "max-tokens", value_name = "N", default_value_t = 128, value_parser = count())]
    pub max_tokens: usize,
    /// Treat the text as a message, and answer it with the model's chat template
    #[arg(long)]
    pub chat: bool,
    /// With --chat: how the model should behave [default: as the template says]
    #[arg(long, value_name = "TEXT", requires = "chat", allow_hyphen_values = true)]
    pub system: Option<String>,
    /// Write, in place of the text, a line of JSON for each token: the natural logarithm of its probability and those of the
    /// N likeliest tokens, under the model alone, before any option of sampling
    #[arg(long, value_name = "N", value_parser = whole(0, MAX_LOGPROBS as u64))]
    pub logprobs: Option<usize>,
    /// Go on when the context is full: keep its beginning, drop the older half of the rest, and move the newer half up
    #[arg(long)]
    pub context_shift: bool,
    /// With --context-shift: tokens to keep at the beginning, besides the one for the beginning of a text
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true, requires = "context_shift",
        value_parser = count())]
    pub keep: usize,
    #[command(flatten)]
    pub snapshot: SnapshotArgs,
    #[command(flatten)]
    pub text: TextArgs,
    #[command(flatten, next_help_heading = "Chat template, with --chat")]
    pub template: TemplateArgs,
    #[command(flatten, next_help_heading = "Sampling")]
    pub sampling: ChainArgs,
    #[command(flatten, next_help_heading = "Speculation")]
    pub draft: DraftArgs,
    #[command(flatten, next_help_heading = "Model and machine")]
    pub model: ModelArgs,
}

#[derive(Group)]
pub struct Chat {
    /// How the model should behave [default: as the template says]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    pub system: Option<String>,
    /// Most tokens in a reply
    #[arg(short = 'n', long = "max-tokens", value_name = "N", default_value_t = 1024, value_parser = count())]
    pub max_tokens: usize,
    /// Keep no history of what is typed [default: in smallmind/chat-history of the user's state folder]
    #[arg(long)]
    pub no_history: bool,
    #[command(flatten)]
    pub snapshot: SnapshotArgs,
    #[command(flatten)]
    pub text: TextArgs,
    #[command(flatten, next_help_heading = "Chat template")]
    pub template: TemplateArgs,
    #[command(flatten, next_help_heading = "Sampling")]
    pub sampling: ChainArgs,
    #[command(flatten, next_help_heading = "Speculation")]
    pub draft: DraftArgs,
    #[command(flatten, next_help_heading = "Model and machine")]
    pub model: ModelArgs,
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
    /// Print JSON
    #[arg(long, conflicts_with_all = ["graph", "plan"])]
    pub json: bool,
    /// Show only the computation graph
    #[arg(long)]
    pub graph: bool,
    /// Show only the steps of a forward pass
    #[arg(long)]
    pub plan: bool,
    /// With --plan: bits that activations keep at matmuls with quantised weights
    #[arg(long, value_name = "16|auto|8", default_value = "16", requires = "plan",
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
    #[arg(long, value_name = "N", default_value_t = 42, value_parser = seed)]
    pub seed: u64,
    /// The file to write
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Overwrite an existing file
    #[arg(long)]
    pub force: bool,
}

#[derive(Group)]
pub struct Convert {
    /// A model's folder, or a file of llama2.c
    pub input: PathBuf,
    /// The file to write
    pub output: PathBuf,
    /// Types other than those of the model: a mix by its name, as for quantize
    #[arg(short = 't', long = "type", value_name = "NAME", value_parser = mix)]
    pub mix: Option<Mix>,
    /// For a file of llama2.c: its vocabulary [default: tokenizer.bin next to it]
    #[arg(long, value_name = "FILE")]
    pub tokenizer: Option<PathBuf>,
    /// Overwrite an existing file
    #[arg(long)]
    pub force: bool,
    /// Print no progress
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Group)]
pub struct Quantize {
    /// Model file (GGUF) or folder, as a rule of F16, BF16 or F32
    pub input: PathBuf,
    /// The file to write
    pub output: PathBuf,
    /// The types of the new file: a mix by its name
    #[arg(short = 't', long = "type", value_name = "NAME", value_parser = mix)]
    pub mix: Mix,
    /// Give all matrices the same type, as far as their rows allow it
    #[arg(long)]
    pub pure: bool,
    /// Importance matrix (GGUF, of llama.cpp's llama-imatrix): errors of weights that matter more cost more
    #[arg(long, value_name = "FILE")]
    pub imatrix: Option<PathBuf>,
    /// Also quantise tensors that are quantised already, which adds to their errors
    #[arg(long)]
    pub requantize: bool,
    /// Overwrite an existing file
    #[arg(long)]
    pub force: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Print no progress and no table
    #[arg(short, long)]
    pub quiet: bool,
}

#[derive(Group)]
pub struct Perplexity {
    /// Model file (GGUF)
    #[arg(short, long, value_name = "FILE")]
    pub model: PathBuf,
    /// The text, UTF-8
    #[arg(short, long, value_name = "FILE")]
    pub file: PathBuf,
    /// Tokens of a chunk
    #[arg(short, long, value_name = "N", default_value = "512", value_parser = whole(4, u64::MAX))]
    pub ctx: usize,
    /// Stop after so many chunks [default: the whole text]
    #[arg(long, value_name = "N", value_parser = whole(1, u64::MAX))]
    pub chunks: Option<usize>,
    /// Worker threads [default: one for each core]
    #[arg(short, long, value_name = "N", value_parser = thread_count())]
    pub threads: Option<usize>,
    #[command(flatten, next_help_heading = "Conditions")]
    pub conditions: Arithmetic,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Print no progress
    #[arg(short, long)]
    pub quiet: bool,
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
    #[arg(short = 'p', long = "prompt-tokens", value_name = "N", value_delimiter = ',', value_parser = count())]
    pub prompt: Vec<usize>,
    /// Tokens to decode one by one (tg), several separated by commas; 0 leaves it out [default: 128, likewise]
    #[arg(short = 'n', long = "decode-tokens", value_name = "N", value_delimiter = ',', value_parser = count())]
    pub decode: Vec<usize>,
    /// Tokens of a prompt whose first answer is waited for (ft), several separated by commas; 0 leaves it out
    /// [default: 16, likewise]
    #[arg(short = 'f', long = "first-token", value_name = "N", value_delimiter = ',', value_parser = count())]
    pub first: Vec<usize>,
    /// Tokens of a text whose embedding is computed (em), several separated by commas [default: none, or 512 of a model
    /// that gives vectors only]
    #[arg(short = 'e', long = "embed-tokens", value_name = "N", value_delimiter = ',', value_parser = count())]
    pub embed: Vec<usize>,
    /// Sequences that decode a token each in one batch, several numbers separated by commas (tg128x8 is of 8)
    #[arg(long, value_name = "N", value_delimiter = ',', default_value = "1",
        value_parser = whole(1, 4096))]
    pub parallel: Vec<usize>,
    #[command(flatten, next_help_heading = "Conditions")]
    pub conditions: Conditions,
    /// Tokens that go through the model at once; 0 takes as many as the library does
    #[arg(short, long, value_name = "N", default_value_t = 0, value_parser = count())]
    pub batch: usize,
    /// Worker threads, several separated by commas [default: one for each core]
    #[arg(short, long, value_name = "N", value_delimiter = ',', value_parser = thread_count())]
    pub threads: Vec<usize>,
    /// Measurements of each test, after one that isn't counted
    #[arg(short, long, value_name = "N", default_value_t = 5,
        value_parser = whole(1, u64::MAX))]
    pub repetitions: usize,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_syntax_is_sound() {
        Args::syntax().debug_assert();
    }
}
