//! `smallmind bench`: tokens a second of prefill (pp) and decode (tg), medians with their spread.

use std::sync::Arc;
use std::time::Instant;

use smallmind::kv::CacheType;
use smallmind::model::{LoadParams, Model};
use smallmind::runtime::{Context, ContextParams, Logits};
use smallmind::{Result, threads};

use crate::args::Bench;
use crate::output::print;

/// One test's outcome, in tokens a second.
struct Row {
    test: String,
    threads: usize,
    samples: Vec<f64>,
}

impl Row {
    fn median(&self) -> f64 {
        let n = self.samples.len();
        (self.samples[(n - 1) / 2] + self.samples[n / 2]) / 2.0
    }

    fn json(&self, activation_bits: usize, kv: CacheType) -> String {
        format!(
            r#"{{"test":"{}","threads":{},"activation_bits":{activation_bits},"kv":"{}","tokens_per_second":{:.3},"min":{:.3},"max":{:.3},"repetitions":{}}}"#,
            self.test,
            self.threads,
            kv.name(),
            self.median(),
            self.samples[0],
            self.samples[self.samples.len() - 1],
            self.samples.len()
        )
    }
}

pub fn run(args: &Bench) -> Result<()> {
    let start = Instant::now();
    let model =
        Model::open(&args.model, &LoadParams { activations: args.activations, ..LoadParams::default() })?;
    let load = start.elapsed().as_secs_f64();
    let counts = if args.threads.is_empty() { vec![threads::available()] } else { args.threads.clone() };
    let mut rows = Vec::new();
    for threads in counts {
        rows.extend(measure(&model, args, threads)?);
    }
    let bits = 8 * args.activations.digits();
    if args.json {
        let rows: Vec<_> = rows.iter().map(|row| row.json(bits, args.kv)).collect();
        return print(&format!("[{}]\n", rows.join(",")));
    }
    let isa = model.kernels().isa.name();
    let mut text =
        format!("loaded in {load:.2} s, {isa} kernels, {bits}-bit activations, {} cache\n\n", args.kv.name());
    text.push_str(&format!("{:<14} {:>7} {:>10} {:>10} {:>10}\n", "test", "threads", "tok/s", "min", "max"));
    for row in &rows {
        let (min, max) = (row.samples[0], row.samples[row.samples.len() - 1]);
        let (test, threads, median) = (&row.test, row.threads, row.median());
        text.push_str(&format!("{test:<14} {threads:>7} {median:>10.1} {min:>10.1} {max:>10.1}\n"));
    }
    print(&text)
}

fn measure(model: &Arc<Model>, args: &Bench, threads: usize) -> Result<Vec<Row>> {
    let length = args.prompt.max(args.decode);
    let n_ctx = args.depth.saturating_add(length).max(1);
    let params = ContextParams { n_ctx, n_batch: args.batch, n_output: 1, threads, kv: args.kv };
    let mut context = Context::new(model.clone(), &params)?;
    // Which tokens they are doesn't change the work; a spread visits the embedding table fairly.
    let n_vocab = model.config().n_vocab;
    let tokens: Vec<u32> = (0..n_ctx).map(|i| (i.wrapping_mul(7919) % n_vocab) as u32).collect();
    if args.depth > 0 {
        context.decode(&tokens[..args.depth], Logits::None)?;
    }
    let suffix = if args.depth > 0 { format!("@d{}", args.depth) } else { String::new() };
    let mut rows = Vec::new();
    let mut test =
        |name: &str, count: usize, work: &mut dyn FnMut(&mut Context) -> Result<()>| -> Result<()> {
            if count == 0 {
                return Ok(());
            }
            let mut samples = Vec::new();
            for repetition in 0..=args.repetitions {
                context.rewind(args.depth)?;
                let start = Instant::now();
                work(&mut context)?;
                if repetition > 0 {
                    samples.push(count as f64 / start.elapsed().as_secs_f64());
                }
            }
            samples.sort_by(f64::total_cmp);
            rows.push(Row { test: format!("{name}{count}{suffix}"), threads, samples });
            Ok(())
        };
    let run = &tokens[args.depth..];
    test("pp", args.prompt, &mut |context| context.decode(&run[..args.prompt], Logits::Last))?;
    test("tg", args.decode, &mut |context| {
        run[..args.decode].iter().try_for_each(|&token| context.decode(&[token], Logits::Last))
    })?;
    Ok(rows)
}
