//! `smallmind bench`: tokens a second of prefill (pp) and decode (tg), of one sequence and of several in one batch, the
//! time to a prompt's first token (ft), and an encoder's passes (em), at each depth and number of threads asked for:
//! medians with their spread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use smallmind::Error;
use smallmind::format::gguf::Gguf;
use smallmind::format::{ByteSource, describe};
use smallmind::model::foreign::open_source;
use smallmind::model::{Model, RandomGpt};
use smallmind::runtime::{Batch, Context, ContextParams, Engine, EngineParams, Logits, Output, Span};
use smallmind::threads::{self, Team};

use crate::args::Bench;
use crate::failure::{Failure, Result};
use crate::machine::{explain, warn_of_threads};
use crate::output::{print, print_json, progress};
use crate::session::with_load_bar;

/// Speed doesn't depend on it.
const RANDOM_SEED: u64 = 42;

/// A kind of measurement.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// A prompt goes in, with the logits after its last token.
    Prefill,
    /// Tokens go in one by one, each with its logits.
    Decode,
    /// As a prefill; the result is the time until the first token can be sampled.
    FirstToken,
    /// A text goes in as a whole, with its vector.
    Embed,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Prefill => "pp",
            Kind::Decode => "tg",
            Kind::FirstToken => "ft",
            Kind::Embed => "em",
        }
    }
}

/// One measurement's conditions.
struct Test {
    kind: Kind,
    tokens: usize,
    depth: usize,
    threads: usize,
    /// Sequences that are decoded in one batch.
    parallel: usize,
}

impl Test {
    fn name(&self) -> String {
        let depth = if self.depth > 0 { format!("@d{}", self.depth) } else { String::new() };
        let parallel = if self.parallel > 1 { format!("x{}", self.parallel) } else { String::new() };
        format!("{}{}{parallel}{depth}", self.kind.name(), self.tokens)
    }
}

/// One test's outcome: seconds, shortest first.
struct Row {
    test: Test,
    seconds: Vec<f64>,
}

impl Row {
    fn median_seconds(&self) -> f64 {
        let n = self.seconds.len();
        (self.seconds[(n - 1) / 2] + self.seconds[n / 2]) / 2.0
    }

    fn speed(&self, seconds: f64) -> f64 {
        (self.test.tokens * self.test.parallel) as f64 / seconds
    }

    /// Median, lowest and highest speed.
    fn speeds(&self) -> [f64; 3] {
        let (shortest, longest) = (self.seconds[0], self.seconds[self.seconds.len() - 1]);
        [self.median_seconds(), longest, shortest].map(|seconds| self.speed(seconds))
    }

    fn json(&self, args: &Bench, loaded: &Loaded) -> serde_json::Value {
        let [median, min, max] = self.speeds();
        let round = |x: f64| (x * 1000.0).round() / 1000.0;
        serde_json::json!({
            "test": self.test.name(),
            "tokens": self.test.tokens,
            "depth": self.test.depth,
            "threads": self.test.threads,
            "parallel": self.test.parallel,
            "batch": args.batch,
            "tokens_per_second": round(median),
            "min": round(min),
            "max": round(max),
            "seconds": self.median_seconds(),
            "repetitions": self.seconds.len(),
            "load_seconds": loaded.seconds,
            "weights": loaded.types,
            "activation_bits": 8 * loaded.model.kernels().qmatmul().activations().bytes(),
            "kv": args.conditions.arithmetic.kv.name(),
            "isa": loaded.model.kernels().isa().name(),
        })
    }
}

/// A model, and facts about its load.
struct Loaded {
    model: Arc<Model>,
    seconds: f64,
    /// Types of its weights, the most bytes first.
    types: String,
}

pub fn run(args: &Bench) -> Result<()> {
    let loaded = load(args)?;
    let counts = if args.threads.is_empty() { vec![threads::available()] } else { args.threads.clone() };
    warn_of_threads(counts.iter().copied().max().unwrap_or(1), false);
    check_lengths(&loaded.model, args)?;
    let writes_text = loaded.model.graph().logits.is_some();
    if !writes_text
        && [&args.prompt, &args.decode, &args.first].into_iter().flatten().any(|&tokens| tokens > 0)
    {
        let name = &loaded.model.config().architecture;
        return Err(Failure::Usage(format!(
            "{name} is an encoder: of its speeds there is --embed-tokens only"
        )));
    }
    let progress = progress(false);
    let mut rows = Vec::new();
    for threads in counts {
        rows.extend(measure_embeddings(&loaded.model, args, threads, &progress)?);
        for &depth in args.conditions.depth.iter().filter(|_| writes_text) {
            rows.extend(measure(&loaded.model, args, threads, depth, &progress)?);
            for &parallel in args.parallel.iter().filter(|&&parallel| parallel > 1) {
                rows.extend(measure_parallel(&loaded.model, args, (threads, parallel), depth, &progress)?);
            }
        }
    }
    progress.finish_and_clear();
    if args.json {
        let rows: Vec<_> = rows.iter().map(|row| row.json(args, &loaded)).collect();
        let text = serde_json::to_string(&rows).map_err(|error| Error::Internal(error.to_string()))?;
        return Ok(print_json(&text)?);
    }
    Ok(print(&table(args, &loaded, &rows))?)
}

/// Refuses numbers of tokens for which the model has no positions, before anything is measured.
fn check_lengths(model: &Model, args: &Bench) -> Result<()> {
    let most = model.config().n_ctx_most();
    let depth = args.conditions.depth.iter().copied().max().unwrap_or(0);
    let options = [
        ("--prompt-tokens", &args.prompt),
        ("--decode-tokens", &args.decode),
        ("--first-token", &args.first),
        ("--embed-tokens", &args.embed),
    ];
    let counts =
        options.iter().flat_map(|&(option, counts)| counts.iter().map(move |&count| (option, count)));
    for (option, count) in counts.chain([("--depth", 0)]) {
        if depth.saturating_add(count) > most {
            let value = if option == "--depth" { depth } else { count };
            let behind = if depth > 0 && value != depth { format!(" behind {depth}") } else { String::new() };
            return Err(Failure::Usage(format!(
                "invalid value '{value}' for '{option} <N>': the model has {most} positions, too few for \
                 {value}{behind}"
            )));
        }
    }
    Ok(())
}

fn load(args: &Bench) -> Result<Loaded> {
    let start = Instant::now();
    let source = source(args)?;
    let arithmetic = &args.conditions.arithmetic;
    let adapters = arithmetic.adapters.open()?;
    let model = with_load_bar(false, |progress| {
        Model::from_source(source.clone(), &arithmetic.load_params(&adapters).with_progress(progress))
    })?;
    let seconds = start.elapsed().as_secs_f64();
    let mut types = describe(&Gguf::open(source)?).types;
    types.sort_by_key(|share| std::cmp::Reverse(share.bytes));
    let types: Vec<_> = types.iter().map(|share| share.ty.to_string()).collect();
    Ok(Loaded { model, seconds, types: types.join("+") })
}

/// The file, or the random model in its place.
fn source(args: &Bench) -> Result<Arc<dyn ByteSource>> {
    match (&args.model, &args.random) {
        (Some(path), _) => Ok(open_source(path).map_err(explain(path))?),
        (None, Some(config)) => Ok(Arc::new(RandomGpt::new(config, RANDOM_SEED)?)),
        (None, None) => Err(Failure::Usage("a model file or the shape of a random model is needed".into())),
    }
}

fn table(args: &Bench, loaded: &Loaded, rows: &[Row]) -> String {
    let Loaded { model, seconds, types } = loaded;
    let (isa, bits) = (model.kernels().isa().name(), 8 * model.kernels().qmatmul().activations().bytes());
    let mut text = format!(
        "{types}, loaded in {seconds:.2} s, {isa} kernels, {bits}-bit activations, {} cache\n\n",
        args.conditions.arithmetic.kv.name()
    );
    text.push_str(&format!(
        "{:<14} {:>7} {:>10} {:>10} {:>10} {:>10}\n",
        "test", "threads", "tok/s", "min", "max", "ms"
    ));
    for row in rows {
        let [median, min, max] = row.speeds();
        let (test, threads, ms) = (row.test.name(), row.test.threads, row.median_seconds() * 1e3);
        text.push_str(&format!(
            "{test:<14} {threads:>7} {median:>10.1} {min:>10.1} {max:>10.1} {ms:>10.2}\n"
        ));
    }
    text
}

/// The given numbers of tokens, or the default as far as the model has room.
fn counts(given: &[usize], default: usize, room: usize) -> Vec<usize> {
    match given {
        [] => vec![default.min(room)],
        given => given.to_vec(),
    }
}

/// Tokens of a text. Which they are doesn't change the work; a spread visits the embedding table fairly.
fn spread(model: &Model, count: usize) -> Vec<u32> {
    let n_vocab = model.config().n_vocab;
    (0..count).map(|i| (i.wrapping_mul(7919) % n_vocab) as u32).collect()
}

/// All tests at one depth on one number of threads.
fn measure(
    model: &Arc<Model>,
    args: &Bench,
    threads: usize,
    depth: usize,
    progress: &ProgressBar,
) -> Result<Vec<Row>> {
    let room = model.config().n_ctx_most().saturating_sub(depth);
    let kinds = [
        (Kind::Prefill, counts(&args.prompt, 512, room)),
        (Kind::Decode, counts(&args.decode, 128, room)),
        (Kind::FirstToken, counts(&args.first, 16, room)),
    ];
    let tests =
        kinds.into_iter().flat_map(|(kind, counts)| counts.into_iter().map(move |tokens| (kind, tokens)));
    let tests: Vec<_> = tests.filter(|&(_, tokens)| tokens > 0).collect();
    let length = tests.iter().map(|&(_, tokens)| tokens).max().unwrap_or(0);
    let n_ctx = depth.saturating_add(length).max(1);
    let params = ContextParams::default()
        .with_n_ctx(n_ctx)
        .with_n_batch(args.batch)
        .with_threads(threads)
        .with_kv(args.conditions.arithmetic.kv);
    let mut context = Context::new(model.clone(), &params)?;
    let tokens = spread(model, n_ctx);
    if depth > 0 {
        progress.set_message(format!("filling {depth} positions, {threads} threads"));
        context.decode(&tokens[..depth], Logits::None)?;
        context.keep()?;
    }
    let mut rows = Vec::new();
    for (kind, count) in tests {
        let test = Test { kind, tokens: count, depth, threads, parallel: 1 };
        rows.push(repeat(test, args, progress, || {
            context.rewind(depth)?;
            once(&mut context, kind, &tokens[depth..depth + count])
        })?);
    }
    Ok(rows)
}

/// A test's measurements, after one that isn't counted.
fn repeat(
    test: Test,
    args: &Bench,
    progress: &ProgressBar,
    mut once: impl FnMut() -> Result<Duration>,
) -> Result<Row> {
    let mut seconds = Vec::new();
    for repetition in 0..=args.repetitions {
        progress.set_message(format!("{}, {} threads: {repetition}", test.name(), test.threads));
        let time = once()?.as_secs_f64();
        if repetition > 0 {
            seconds.push(time);
        }
    }
    seconds.sort_by(f64::total_cmp);
    Ok(Row { test, seconds })
}

/// Decoding of several sequences, a token of each in one batch.
fn measure_parallel(
    model: &Arc<Model>,
    args: &Bench,
    (threads, parallel): (usize, usize),
    depth: usize,
    progress: &ProgressBar,
) -> Result<Vec<Row>> {
    let room = model.config().n_ctx_most().saturating_sub(depth);
    let counts: Vec<_> = counts(&args.decode, 128, room).into_iter().filter(|&count| count > 0).collect();
    let n_ctx = depth.saturating_add(counts.iter().copied().max().unwrap_or(0)).max(1);
    let params = EngineParams::default()
        .with_n_sequences(parallel)
        .with_n_ctx(n_ctx)
        .with_n_batch(args.batch)
        .with_n_output(parallel)
        .with_kv(args.conditions.arithmetic.kv);
    let mut engine = Engine::new(model.clone(), &params, Arc::new(Team::new(threads)?))?;
    let sequences = (0..parallel).map(|_| engine.create()).collect::<smallmind::Result<Vec<_>>>()?;
    let tokens = spread(model, n_ctx);
    for &sequence in &sequences {
        for (i, piece) in tokens[..depth].chunks(engine.n_batch()).enumerate() {
            let spans = [Span::new(sequence, i * engine.n_batch(), piece.len())];
            engine.run(&Batch::new(piece, &spans, &[]))?;
        }
        engine.keep(sequence)?;
    }
    let outputs: Vec<u32> = (0..parallel as u32).collect();
    let run = |engine: &mut Engine, count: usize| {
        sequences.iter().try_for_each(|&sequence| engine.rewind(sequence, depth))?;
        let start = Instant::now();
        for (i, &token) in tokens[depth..depth + count].iter().enumerate() {
            let (batch, first) = (vec![token; parallel], depth + i);
            let spans: Vec<_> = sequences.iter().map(|&sequence| Span::new(sequence, first, 1)).collect();
            engine.run(&Batch::new(&batch, &spans, &outputs))?;
        }
        Ok(start.elapsed())
    };
    let test = |tokens| Test { kind: Kind::Decode, tokens, depth, threads, parallel };
    counts.iter().map(|&count| repeat(test(count), args, progress, || run(&mut engine, count))).collect()
}

/// Passes over one text, pooled as the file says: asked for, or of an encoder.
fn measure_embeddings(
    model: &Arc<Model>,
    args: &Bench,
    threads: usize,
    progress: &ProgressBar,
) -> Result<Vec<Row>> {
    let default = if model.graph().logits.is_some() { 0 } else { 512 };
    let counts = counts(&args.embed, default, model.config().n_ctx_most());
    let Some(&most) = counts.iter().max().filter(|&&most| most > 0) else { return Ok(Vec::new()) };
    let params = EngineParams::default()
        .with_n_ctx(most)
        .with_n_batch(most)
        .with_n_output(most)
        .with_kv(args.conditions.arithmetic.kv)
        .with_output(Output::embedding(model));
    let mut engine = Engine::new(model.clone(), &params, Arc::new(Team::new(threads)?))?;
    let sequence = engine.create()?;
    let (tokens, outputs) = (spread(model, most), (0..most as u32).collect::<Vec<_>>());
    let mut rows = Vec::new();
    for tokens in counts.into_iter().filter(|&count| count > 0).map(|count| &tokens[..count]) {
        let test = Test { kind: Kind::Embed, tokens: tokens.len(), depth: 0, threads, parallel: 1 };
        rows.push(repeat(test, args, progress, || {
            engine.rewind(sequence, 0)?;
            let start = Instant::now();
            engine.run(&Batch::new(
                tokens,
                &[Span::new(sequence, 0, tokens.len())],
                &outputs[..tokens.len()],
            ))?;
            Ok(start.elapsed())
        })?);
    }
    Ok(rows)
}

fn once(context: &mut Context, kind: Kind, tokens: &[u32]) -> Result<Duration> {
    let start = Instant::now();
    match kind {
        Kind::Prefill | Kind::FirstToken | Kind::Embed => context.decode(tokens, Logits::Last)?,
        Kind::Decode => tokens.iter().try_for_each(|&token| context.decode(&[token], Logits::Last))?,
    }
    Ok(start.elapsed())
}
