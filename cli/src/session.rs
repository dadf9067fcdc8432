//! The common part of `generate` and `chat`: loading with progress, streaming to the terminal, the summary.

use std::io::{ErrorKind, IsTerminal, Write};
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use indicatif::{ProgressBar, ProgressStyle};
use smallmind::format::MapSource;
use smallmind::model::{LoadParams, Model, RopeOverrides};
use smallmind::profile;
use smallmind::runtime::generation::{Event, GenerationParams, Output, StopReason, Summary, drive};
use smallmind::runtime::sampling::{Sampler, SamplerParams};
use smallmind::runtime::{Context, ContextParams};
use smallmind::{Error, Result, threads};

use crate::args::{ModelArgs, SamplingArgs};
use crate::interrupt::Generating;
use crate::output::{failed, remark};

/// Most positions of context by default: the cache for all positions that a model was trained on may not fit into
/// memory.
const DEFAULT_CONTEXT: usize = 4096;

/// The result of [`Session::write`].
pub struct Written {
    pub text: String,
    pub summary: Summary,
    /// Ended by Ctrl-C.
    pub interrupted: bool,
}

/// A model and a context, ready to write.
pub struct Session {
    pub context: Context,
    pub sampler: Sampler,
    pub seed: u64,
    load_seconds: f64,
    quiet: bool,
    profile: bool,
}

impl Session {
    pub fn open(args: &ModelArgs, sampling: &SamplingArgs, length: &GenerationParams<'_>) -> Result<Session> {
        profile::set_enabled(args.profile);
        let seed = sampling.seed.unwrap_or_else(clock_seed);
        let params = SamplerParams::default()
            .with_temperature(sampling.temp)
            .with_top_k(sampling.top_k)
            .with_top_p(sampling.top_p)
            .with_min_p(sampling.min_p)
            .with_repetition_penalty(sampling.repeat_penalty)
            .with_seed(seed);
        // Report a wrong value before a long load.
        params.validate()?;
        length.validate()?;
        let rope = RopeOverrides::default().with_base(args.rope_base).with_factor(args.rope_scale);
        rope.check()?;
        let start = Instant::now();
        let model = load(args)?;
        let load_seconds = start.elapsed().as_secs_f64();
        let sampler = Sampler::new(params, model.config().n_vocab)?;
        let threads = args.threads.unwrap_or_else(threads::available);
        let n_ctx = args.ctx.unwrap_or_else(|| model.config().n_ctx_train.min(DEFAULT_CONTEXT));
        let params =
            ContextParams::default().with_n_ctx(n_ctx).with_threads(threads).with_kv(args.kv).with_rope(rope);
        let context = Context::new(model, &params)?;
        if let (Some(warning), false) = (context.warning(), args.quiet) {
            remark(&format!("[{warning}]\n"));
        }
        Ok(Session { context, sampler, seed, load_seconds, quiet: args.quiet, profile: args.profile })
    }

    pub fn model(&self) -> &Arc<Model> {
        self.context.model()
    }

    /// Appends `prompt`, streams the generated text to standard output and returns it. Ctrl-C ends the generation, also
    /// between two pieces of the prompt.
    pub fn write(&mut self, prompt: &[u32], params: &GenerationParams<'_>) -> Result<Written> {
        let generating = Generating::begin();
        let mut text = String::new();
        let mut out = std::io::stdout().lock();
        let mut result = Ok(());
        let summary = drive(&mut self.context, &mut self.sampler, prompt, params, &mut |event| {
            if let Event::Output(Output { text: piece, .. }) = event {
                text.push_str(piece);
                result = out.write_all(piece.as_bytes()).and_then(|()| out.flush());
            }
            if result.is_err() || generating.interrupted() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        })?;
        match result.and_then(|()| writeln!(out)) {
            // A closed pipe is no error: nobody reads any more.
            Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(failed(error)),
            _ => Ok(Written { text, summary, interrupted: generating.interrupted() }),
        }
    }

    /// One line on the speed, unless quiet.
    pub fn report_speed(&self, summary: &Summary) {
        if self.quiet {
            return;
        }
        let why = match summary.reason {
            StopReason::EndOfText => "end of text",
            StopReason::Length => "token limit",
            StopReason::Callback => "stopped",
            StopReason::ContextFull => "context full",
            StopReason::StopString => "stop string",
            _ => "ended",
        };
        remark(&format!(
            "[prefill {} tokens, {:.1} tok/s · decode {} tokens, {:.1} tok/s · loaded in {:.2} s · {} threads · seed {} · {why}]\n",
            summary.n_prompt,
            summary.prefill_rate(),
            summary.n_generated,
            summary.decode_rate(),
            self.load_seconds,
            self.context.threads(),
            self.seed,
        ));
    }

    /// The profile's table, if it was asked for.
    pub fn report_profile(&self) {
        if self.profile {
            remark(&format!("\n{}", profile::render_table(&profile::snapshot())));
        }
    }
}

fn clock_seed() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    // Short enough to be typed again.
    (since.as_nanos() % 1_000_000_007) as u64
}

/// Loads a model, with a progress bar on a terminal if the load takes long.
pub fn load(args: &ModelArgs) -> Result<Arc<Model>> {
    let bar = if args.quiet || !std::io::stderr().is_terminal() {
        ProgressBar::hidden()
    } else {
        ProgressBar::new(1000)
    };
    if let Ok(style) = ProgressStyle::with_template("loading {bar:40} {percent:>3} %") {
        bar.set_style(style);
    }
    let start = Instant::now();
    let progress = |done: f32| {
        // For a short load, a bar would only flicker.
        if start.elapsed() > Duration::from_millis(300) {
            bar.set_position((done * 1000.0) as u64);
        }
        ControlFlow::Continue(())
    };
    let params = LoadParams::default().with_progress(&progress).with_activations(args.activations);
    let model = if args.mmap {
        // SAFETY: --mmap is the user's promise (see its help) that nobody changes the file while the program runs.
        unsafe { MapSource::open(&args.model) }.and_then(|map| Model::from_source(Arc::new(map), &params))
    } else {
        Model::open(&args.model, &params)
    };
    bar.finish_and_clear();
    let model = model?;
    if !args.quiet {
        let (config, seconds) = (model.config(), start.elapsed().as_secs_f64());
        let name = if config.name.is_empty() { &config.architecture } else { &config.name };
        let megabytes = model.weight_bytes() as f64 / 1e6;
        remark(&format!(
            "[{name}: {megabytes:.0} MB of weights in {seconds:.2} s, {} kernels, {}-bit activations]\n",
            model.kernels().isa().name(),
            8 * args.activations.bytes()
        ));
    }
    Ok(model)
}

/// Checks that the prompt has tokens and fits into the context.
pub fn checked_prompt(tokens: Vec<u32>, n_ctx: usize) -> Result<Vec<u32>> {
    if tokens.is_empty() {
        return Err(Error::invalid("the prompt is empty"));
    }
    if tokens.len() >= n_ctx {
        return Err(Error::ContextFull { n_ctx, needed: tokens.len() + 1 });
    }
    Ok(tokens)
}
