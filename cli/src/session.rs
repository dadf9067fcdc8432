//! The common part of `generate` and `chat`: loading with progress, streaming to the terminal, the summary.

use std::io::{ErrorKind, IsTerminal, Write};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use smallmind::chat::{Message, Prompt};
use smallmind::format::{FileSource, MapSource};
use smallmind::model::{LoadParams, Model, Progress};
use smallmind::profile::{self, Zone};
use smallmind::runtime::generation::draft::{DraftModel, Drafter, Drafting, PromptLookup};
use smallmind::runtime::generation::{
    Event, GenerationParams, MAX_STOPS, Output, StopReason, Summary, drive_drafted,
};
use smallmind::runtime::sampling::{Sampler, TokenLogprob};
use smallmind::runtime::{Context, ContextParams, Logits};
use smallmind::text::{escaped, escaped_lines, shortened};
use smallmind::{Error, threads};

use crate::args::{DraftArgs, ModelArgs, TextArgs};
use crate::failure::{Failure, Result};
use crate::interrupt::Stoppable;
use crate::logprobs::Picked;
use crate::machine::{check_context, explain, warn_of_threads};
use crate::output::{PATIENCE, bar, failed, json_fit_for_terminals, remark, while_waiting};
use crate::sampling::{Chain, ChainArgs, Samplers};
use crate::template::Given;

/// Most positions of context by default: the cache for all positions that a model was trained on may not fit into
/// memory.
const DEFAULT_CONTEXT: usize = 4096;

/// Most characters of a model's name that are shown; files may have any.
const MAX_NAME: usize = 100;

/// The result of [`Session::write`].
pub struct Written {
    pub text: String,
    pub summary: Summary,
    /// Standard output is closed: nobody reads any more.
    pub closed: bool,
}

/// A model and a context, ready to write.
pub struct Session {
    pub context: Context,
    sampler: Sampler,
    drafter: Option<(Box<dyn Drafter>, usize)>,
    chain: Chain,
    samplers: Samplers,
    /// Samplers made so far.
    n_samplers: u64,
    parse_special: bool,
    adds_bos: bool,
    template: Given,
    load_seconds: f64,
    quiet: bool,
    profile: bool,
}

impl Session {
    pub fn open(
        args: &ModelArgs,
        sampling: &ChainArgs,
        text: &TextArgs,
        draft: &DraftArgs,
        template: Given,
    ) -> Result<Session> {
        profile::set_enabled(args.profile);
        // Report a wrong value before a long load.
        if text.stop.len() > MAX_STOPS {
            let count = text.stop.len();
            return Err(Failure::Usage(format!(
                "'--stop <TEXT>' {count} times; at most {MAX_STOPS} are taken"
            )));
        }
        let chain = Chain::new(sampling, sampling.seed.unwrap_or_else(clock_seed))?;
        let threads = args.threads.unwrap_or_else(threads::available);
        warn_of_threads(threads, args.quiet);
        let start = Instant::now();
        let model = load(args)?;
        let load_seconds = start.elapsed().as_secs_f64();
        let mut samplers = Samplers::new(model.clone());
        let sampler = samplers.sampler(&chain)?;
        let n_output = if draft.lookup || draft.draft.is_some() { draft.draft_max + 1 } else { 1 };
        let context = context(model, args, threads, n_output)?;
        let drafter = drafter(draft, args, &context)?.map(|drafter| (drafter, draft.draft_max));
        if let (Some(warning), false) = (context.warning(), args.quiet) {
            remark(&format!("[{warning}]\n"));
        }
        Ok(Session {
            context,
            sampler,
            drafter,
            chain,
            samplers,
            n_samplers: 1,
            parse_special: text.parse_special,
            adds_bos: !text.no_bos,
            template,
            load_seconds,
            quiet: args.quiet,
            profile: args.profile,
        })
    }

    pub fn model(&self) -> &Arc<Model> {
        self.context.model()
    }

    /// Tokens of a text that is to be continued.
    pub fn text_tokens(&self, text: &str) -> Result<Vec<u32>> {
        while_waiting(self.quiet, "tokenizing", || {
            let _zone = profile::scope(Zone::Tokenize);
            let adds_bos = self.adds_bos && self.context.is_empty();
            Ok(self.model().tokenizer()?.encode(text, self.parse_special, adds_bos)?)
        })
    }

    /// Tokens of a conversation, ending where the model's next reply begins, or goes on behind a prefix. Names of special
    /// tokens in a message are text, unless the command line says otherwise.
    pub fn conversation_tokens(&self, messages: &[Message<'_>]) -> Result<Vec<u32>> {
        let Given { arguments, prefix } = &self.template;
        let prompt = Prompt::default().with_arguments(arguments).with_prefix(prefix);
        while_waiting(self.quiet, "tokenizing", || {
            Ok(conversation_tokens(self.model(), messages, &prompt, self.parse_special, self.adds_bos)?)
        })
    }

    /// Keeps as much of the context as `tokens` begins with, but not all of them, for the logits after the last one.
    /// Returns how many are kept.
    pub fn keep_beginning(&mut self, tokens: &[u32]) -> Result<usize> {
        let same = self.context.tokens().iter().zip(tokens).take_while(|(a, b)| a == b).count();
        let mut kept = same.min(tokens.len().saturating_sub(1));
        if kept == self.context.len() {
            return Ok(kept);
        }
        // Fewer where a layer with a window has released positions before these, or for a recurrent layer's state.
        kept = self.context.rewind_at_most(kept);
        // The sampler forgets as well, and draws other numbers than for what was taken back.
        self.sampler = self.samplers.sampler(&self.chain.later(self.n_samplers))?;
        self.n_samplers += 1;
        tokens[..kept].iter().try_for_each(|&token| self.sampler.read(token))?;
        Ok(kept)
    }

    /// Goes on from a file that [`Session::save`] wrote.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        let source = FileSource::open(path)?;
        while_waiting(self.quiet, "loading the snapshot", || self.context.load(&source))?;
        self.sampler.reset();
        Ok(self.context.tokens().iter().try_for_each(|&token| self.sampler.read(token))?)
    }

    /// Writes what the context holds to a file, with the last token of the text, which the model hasn't read yet.
    pub fn save(&mut self, path: &Path, summary: Option<&Summary>) -> Result<()> {
        let ended = summary.is_none_or(|summary| summary.reason == StopReason::EndOfText);
        let last = summary.and_then(|summary| summary.last_token).filter(|_| !ended);
        if let Some(token) = last.filter(|_| self.context.check_room(1).is_ok()) {
            self.context.decode(&[token], Logits::None)?;
        }
        Ok(while_waiting(self.quiet, "saving the snapshot", || self.context.save_file(path))?)
    }

    /// Forgets all tokens.
    pub fn clear(&mut self) {
        self.context.clear();
        self.sampler.reset();
    }

    /// Appends `prompt`, streams the generated text, behind an answer's prefix, to standard output and returns both. Ctrl-C
    /// ends the generation, also between two pieces of the prompt. On a terminal, control characters of the text are
    /// escaped. Where log-probabilities are asked for, a line of JSON for each token goes out in place of the text.
    pub fn write(
        &mut self,
        prompt: &[u32],
        params: &GenerationParams<'_>,
        stoppable: &Stoppable,
    ) -> Result<Written> {
        let mut out = Stream::new(&self.template.prefix, params.logprobs.is_none());
        let model = self.context.model().clone();
        let reading = bar(self.quiet, prompt.len() as u64, "reading the prompt {bar:40} {pos}/{len} tokens");
        let start = Instant::now();
        let drafting = match &mut self.drafter {
            Some((drafter, most)) => Some(Drafting::new(drafter.as_mut(), *most)?),
            None => None,
        };
        let (context, sampler) = (&mut self.context, &mut self.sampler);
        let driven = drive_drafted(context, sampler, prompt, params, drafting, &mut |event| {
            match event {
                Event::Prompt { read, .. } if start.elapsed() > PATIENCE => reading.set_position(read as u64),
                Event::Logprobs { token, best } => {
                    reading.finish_and_clear();
                    out.list(&model, token, best);
                }
                Event::Output(Output { text: piece, .. }) => {
                    reading.finish_and_clear();
                    out.write(piece);
                }
                _ => {}
            }
            if out.failed() || stoppable.requested() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        reading.finish_and_clear();
        if driven.is_ok() && !stoppable.requested() {
            out.write("");
        }
        let (text, closed) = out.finish(driven.is_ok())?;
        Ok(Written { text, summary: driven?, closed })
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
            "[prefill {} tokens, {:.1} tok/s · decode {} tokens, {:.1} tok/s · context {} of {} · loaded in {:.2} s · {} threads · seed {} · {why}]\n",
            summary.n_prompt,
            summary.prefill_rate(),
            summary.n_generated,
            summary.decode_rate(),
            self.context.len(),
            self.context.n_ctx(),
            self.load_seconds,
            self.context.threads(),
            self.chain.params.seed,
        ));
        if self.drafter.is_some() {
            let (right, guessed) = (summary.n_accepted, summary.n_drafted);
            let share = 100.0 * right as f64 / guessed.max(1) as f64;
            remark(&format!("[{right} of {guessed} guessed tokens were right ({share:.0} %)]\n"));
        }
    }

    /// The profile's table, if it was asked for.
    pub fn report_profile(&self) {
        if self.profile {
            remark(&format!("\n{}", profile::render_table(&profile::snapshot())));
        }
    }
}

/// Tokens of a conversation, ending where the model's next reply begins.
pub fn conversation_tokens(
    model: &Model,
    messages: &[Message<'_>],
    prompt: &Prompt<'_>,
    parse_special: bool,
    adds_bos: bool,
) -> smallmind::Result<Vec<u32>> {
    if !parse_special {
        return model.chat_tokens_with(messages, prompt, adds_bos);
    }
    let text = {
        let _zone = profile::scope(Zone::ChatTemplate);
        model.chat_template()?.render_with(messages, prompt)?
    };
    let _zone = profile::scope(Zone::Tokenize);
    model.tokenizer()?.encode_chat(&text, adds_bos)
}

/// Generated text on its way to standard output.
struct Stream<'a> {
    out: std::io::StdoutLock<'static>,
    escapes: bool,
    /// Whether the text goes out; it is only returned otherwise.
    shows: bool,
    /// Comes before the first piece.
    prefix: &'a str,
    text: String,
    result: std::io::Result<()>,
}

impl<'a> Stream<'a> {
    fn new(prefix: &'a str, shows: bool) -> Stream<'a> {
        let out = std::io::stdout().lock();
        // A file or another program gets the text as the model wrote it.
        Stream { escapes: out.is_terminal(), shows, out, prefix, text: String::new(), result: Ok(()) }
    }

    /// Writes the log-probabilities of a token as a line.
    fn list(&mut self, model: &Model, token: TokenLogprob, best: &[TokenLogprob]) {
        let line = model.tokenizer().and_then(|tokenizer| Picked::new(tokenizer, token, best));
        let line = line.map_err(std::io::Error::other).and_then(|line| Ok(serde_json::to_string(&line)?));
        self.result = line.and_then(|line| {
            self.out.write_all(json_fit_for_terminals(&line).as_bytes())?;
            self.out.flush()
        });
    }

    fn write(&mut self, piece: &str) {
        let prefix = std::mem::take(&mut self.prefix);
        if !prefix.is_empty() {
            self.write(prefix);
        }
        self.text.push_str(piece);
        if !self.shows {
            return;
        }
        let written = match self.escapes {
            true => write!(self.out, "{}", escaped_lines(piece)),
            false => self.out.write_all(piece.as_bytes()),
        };
        self.result = written.and_then(|()| self.out.flush());
    }

    fn failed(&self) -> bool {
        self.result.is_err()
    }

    /// Ends the line, unless an error ended the generation before its first word; returns the text, and whether nobody
    /// reads any more.
    fn finish(mut self, whole: bool) -> Result<(String, bool)> {
        let ended = match self.shows && (whole || !self.text.is_empty()) {
            true => self.result.and_then(|()| writeln!(self.out)),
            false => self.result,
        };
        match ended {
            Ok(()) => Ok((self.text, false)),
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok((self.text, true)),
            Err(error) => Err(failed(error).into()),
        }
    }
}

/// A context as the command line asks for it.
fn context(model: Arc<Model>, args: &ModelArgs, threads: usize, n_output: usize) -> Result<Context> {
    let n_ctx = default_context(&model, args.ctx);
    let params = ContextParams::default()
        .with_n_ctx(n_ctx)
        .with_n_output(n_output)
        .with_threads(threads)
        .with_kv(args.kv)
        .with_rope(args.rope());
    if args.ctx.is_some() {
        check_context(&model, &params, n_ctx)?;
    }
    Context::new(model, &params).map_err(|error| match error {
        Error::OutOfMemory { .. } => {
            let hint =
                format!("a context of {n_ctx} positions; a smaller --ctx takes less, and so does --kv q8_0");
            Failure::Hinted(error, hint)
        }
        other => Failure::Failed(other),
    })
}

/// The drafter that the command line asks for. A draft model has the context's positions, as far as it was trained on so
/// many, and its team.
fn drafter(draft: &DraftArgs, args: &ModelArgs, context: &Context) -> Result<Option<Box<dyn Drafter>>> {
    let Some(path) = &draft.draft else {
        return Ok(draft.lookup.then(|| Box::new(PromptLookup::default()) as Box<dyn Drafter>));
    };
    let model = loaded(path, args.mmap, &args.load_params())?;
    let n_ctx = context.n_ctx().min(model.config().n_ctx_train);
    let params =
        ContextParams::default().with_n_ctx(n_ctx).with_kv(args.kv).with_team(context.team().clone());
    let drafter = DraftModel::new(Context::new(model, &params)?, context.model()).map_err(explain(path))?;
    Ok(Some(Box::new(drafter)))
}

/// Positions of a context, as the command line asks for it.
pub fn default_context(model: &Model, asked: Option<usize>) -> usize {
    match asked {
        None => model.config().n_ctx_train.min(DEFAULT_CONTEXT),
        Some(0) => model.config().n_ctx_train,
        Some(ctx) => ctx,
    }
}

/// A seed that differs from run to run.
pub fn clock_seed() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
    // Short enough to be typed again.
    (since.as_nanos() % 1_000_000_007) as u64
}

/// Loads a model, with a progress bar on a terminal if the load takes long.
pub fn load(args: &ModelArgs) -> Result<Arc<Model>> {
    let start = Instant::now();
    let adapters = args.adapters.open()?;
    let params = args.load_params().with_adapters(&adapters);
    let model = with_load_bar(args.quiet, |progress| {
        let params = params.with_progress(progress);
        match &args.model {
            Some(path) => loaded(path, args.mmap, &params),
            None => Ok(Model::builtin(&params)?),
        }
    })?;
    if !args.quiet {
        let (config, seconds) = (model.config(), start.elapsed().as_secs_f64());
        let name = match (&args.model, config.name.as_str()) {
            (None, _) => "the built-in model",
            (_, "") => &config.architecture,
            (_, name) => name,
        };
        let megabytes = model.weight_bytes() as f64 / 1e6;
        remark(&format!(
            "[{}: {megabytes:.0} MB of weights in {seconds:.2} s, {} kernels, {}-bit activations]\n",
            escaped(shortened(name, MAX_NAME)),
            model.kernels().isa().name(),
            8 * args.activations.bytes()
        ));
        args.adapters.report(&adapters);
        for warning in &config.warnings {
            remark(&format!("[{}]\n", escaped(warning)));
        }
    }
    Ok(model)
}

/// The model at a path.
pub fn loaded(path: &Path, mmap: bool, params: &LoadParams<'_>) -> Result<Arc<Model>> {
    let model = match mmap {
        // SAFETY: --mmap is the user's promise (see its help) that nobody changes the file while the program runs.
        true => unsafe { MapSource::open(path) }.and_then(|map| Model::from_source(Arc::new(map), params)),
        false => Model::open(path, params),
    };
    model.map_err(explain(path))
}

/// Runs a load with a bar on a terminal, where it takes long.
pub fn with_load_bar<T>(quiet: bool, load: impl FnOnce(Progress<'_>) -> T) -> T {
    let bar = bar(quiet, 1000, "loading {bar:40} {percent:>3} %");
    let start = Instant::now();
    let loaded = load(&|done: f32| {
        // For a short load, a bar would only flicker.
        if start.elapsed() > Duration::from_millis(300) {
            bar.set_position((done * 1000.0) as u64);
        }
        ControlFlow::Continue(())
    });
    bar.finish_and_clear();
    loaded
}

/// Checks that the prompt has tokens and fits into the context.
pub fn checked_prompt(tokens: Vec<u32>, n_ctx: usize) -> Result<Vec<u32>> {
    if tokens.is_empty() {
        return Err(Error::invalid("the prompt is empty").into());
    }
    if tokens.len() >= n_ctx {
        return Err(Error::ContextFull { n_ctx, needed: tokens.len() + 1 }.into());
    }
    Ok(tokens)
}
