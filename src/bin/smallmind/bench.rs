//! `smallmind bench`: tokens a second of prefill (pp) and decode (tg), and the time to a prompt's first token (ft),
//! at each depth and number of threads asked for: medians with their spread.

use std::sync::Arc;
use std::time::{Duration, Instant};

use indicatif::ProgressBar;
use smallmind::format::gguf::Gguf;
use smallmind::format::{ByteSource, FileSource, describe};
use smallmind::model::{LoadParams, Model, RandomGpt};
use smallmind::runtime::{Context, ContextParams, Logits};
use smallmind::{Error, Result, threads};

use crate::args::Bench;
use crate::output::{print, progress};

/// Speed doesn't depend on it.
const RANDOM_SEED: u64 = 42;

/// What is measured.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    /// A prompt goes in, with the logits after its last token.
    Prefill,
    /// Tokens go in one by one, each with its logits.
    Decode,
    /// As a prefill; what counts is the time until the first token could be drawn.
    FirstToken,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Kind::Prefill => "pp",
            Kind::Decode => "tg",
            Kind::FirstToken => "ft",
        }
    }
}

/// One measurement's conditions.
struct Test {
    kind: Kind,
    tokens: usize,
    depth: usize,
    threads: usize,
}

impl Test {
    fn name(&self) -> String {
        let depth = if self.depth > 0 { format!("@d{}", self.depth) } else { String::new() };
        format!("{}{}{depth}", self.kind.name(), self.tokens)
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
        self.test.tokens as f64 / seconds
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
            "batch": args.batch,
            "tokens_per_second": round(median),
            "min": round(min),
            "max": round(max),
            "seconds": self.median_seconds(),
            "repetitions": self.seconds.len(),
            "load_seconds": loaded.seconds,
            "weights": loaded.types,
            "activation_bits": 8 * args.activations.digits(),
            "kv": args.kv.name(),
            "isa": loaded.model.kernels().isa.name(),
        })
    }
}

/// A model and what is worth telling of its load.
struct Loaded {
    model: Arc<Model>,
    seconds: f64,
    /// Types of its weights, the most bytes first.
    types: String,
}

pub fn run(args: &Bench) -> Result<()> {
    let loaded = load(args)?;
    let counts = if args.threads.is_empty() { vec![threads::available()] } else { args.threads.clone() };
    let progress = progress(false);
    let mut rows = Vec::new();
    for threads in counts {
        for &depth in &args.depth {
            rows.extend(measure(&loaded.model, args, threads, depth, &progress)?);
        }
    }
    progress.finish_and_clear();
    if args.json {
        let rows: Vec<_> = rows.iter().map(|row| row.json(args, &loaded)).collect();
        let text = serde_json::to_string(&rows).map_err(|error| Error::Internal(error.to_string()))?;
        return print(&(text + "\n"));
    }
    print(&table(args, &loaded, &rows))
}

fn load(args: &Bench) -> Result<Loaded> {
    let start = Instant::now();
    let params = LoadParams { activations: args.activations, ..LoadParams::default() };
    let source = source(args)?;
    let model = Model::from_source(source.clone(), &params)?;
    let seconds = start.elapsed().as_secs_f64();
    let mut types = describe(&Gguf::open(source)?).types;
    types.sort_by_key(|share| std::cmp::Reverse(share.bytes));
    let types: Vec<_> = types.iter().map(|share| share.ty.to_string()).collect();
    Ok(Loaded { model, seconds, types: types.join("+") })
}

/// The file, or what takes its place.
fn source(args: &Bench) -> Result<Arc<dyn ByteSource>> {
    match (&args.model, &args.random) {
        (Some(path), _) => Ok(Arc::new(FileSource::open(path)?)),
        (None, Some(config)) => Ok(Arc::new(RandomGpt::new(config, RANDOM_SEED)?)),
        (None, None) => Err(Error::InvalidArgument("a model file or the shape of a random model".into())),
    }
}

fn table(args: &Bench, loaded: &Loaded, rows: &[Row]) -> String {
    let Loaded { model, seconds, types } = loaded;
    let (isa, bits) = (model.kernels().isa.name(), 8 * args.activations.digits());
    let mut text = format!(
        "{types}, loaded in {seconds:.2} s, {isa} kernels, {bits}-bit activations, {} cache\n\n",
        args.kv.name()
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

/// All tests at one depth on one number of threads.
fn measure(
    model: &Arc<Model>,
    args: &Bench,
    threads: usize,
    depth: usize,
    progress: &ProgressBar,
) -> Result<Vec<Row>> {
    let room = model.config().n_ctx_most().saturating_sub(depth);
    let counts = |given: &[usize], default: usize| match given {
        [] => vec![default.min(room)],
        given => given.to_vec(),
    };
    let kinds = [
        (Kind::Prefill, counts(&args.prompt, 512)),
        (Kind::Decode, counts(&args.decode, 128)),
        (Kind::FirstToken, counts(&args.first, 16)),
    ];
    let tests =
        kinds.into_iter().flat_map(|(kind, counts)| counts.into_iter().map(move |tokens| (kind, tokens)));
    let tests: Vec<_> = tests.filter(|&(_, tokens)| tokens > 0).collect();
    let length = tests.iter().map(|&(_, tokens)| tokens).max().unwrap_or(0);
    let n_ctx = depth.saturating_add(length).max(1);
    let params =
        ContextParams { n_ctx, n_batch: args.batch, threads, kv: args.kv, ..ContextParams::default() };
    let mut context = Context::new(model.clone(), &params)?;
    // Which tokens they are doesn't change the work; a spread visits the embedding table fairly.
    let n_vocab = model.config().n_vocab;
    let tokens: Vec<u32> = (0..n_ctx).map(|i| (i.wrapping_mul(7919) % n_vocab) as u32).collect();
    if depth > 0 {
        progress.set_message(format!("filling {depth} positions, {threads} threads"));
        context.decode(&tokens[..depth], Logits::None)?;
    }
    let mut rows = Vec::new();
    for (kind, count) in tests {
        let test = Test { kind, tokens: count, depth, threads };
        let mut seconds = Vec::new();
        for repetition in 0..=args.repetitions {
            progress.set_message(format!("{}, {threads} threads: {repetition}", test.name()));
            context.rewind(depth)?;
            let time = once(&mut context, kind, &tokens[depth..depth + count])?.as_secs_f64();
            if repetition > 0 {
                seconds.push(time);
            }
        }
        seconds.sort_by(f64::total_cmp);
        rows.push(Row { test, seconds });
    }
    Ok(rows)
}

fn once(context: &mut Context, kind: Kind, tokens: &[u32]) -> Result<Duration> {
    let start = Instant::now();
    match kind {
        Kind::Prefill | Kind::FirstToken => context.decode(tokens, Logits::Last)?,
        Kind::Decode => tokens.iter().try_for_each(|&token| context.decode(&[token], Logits::Last))?,
    }
    Ok(start.elapsed())
}
