//! temporary: speeds of strategies
use std::path::Path;
use std::time::Instant;
use smallmind::embed::*;
use smallmind::model::{LoadParams, Model};

fn main() -> smallmind::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let model = Model::open(Path::new(&args[0]), &LoadParams::default())?;
    let rounds: usize = args[1].parse().unwrap();
    let threads: Vec<usize> = args[2].split(',').map(|x| x.parse().unwrap()).collect();
    let budgets: Vec<usize> = args[3].split(',').map(|x| x.parse().unwrap()).collect();
    let wanted: Vec<&str> = args[4].split(',').collect();
    let n_vocab = model.config().n_vocab as u32;
    let span = |seed: usize, len: usize| -> Vec<u32> { (0..len).map(|j| ((seed * 7919 + j * 104729 + 1000) as u32) % n_vocab).collect() };
    let mix = |n: usize| -> Vec<Vec<u32>> { let mut s = 12345u64; (0..n).map(|i| { s = s.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407); let u = (s >> 40) as f64 / (1u64 << 24) as f64; let len = (4.0 * (64.0f64).powf(u)) as usize; span(i, len) }).collect() };
    let sets: Vec<(&str, Vec<Vec<u32>>)> = vec![
        ("1x8", vec![span(1, 8)]), ("1x32", vec![span(1, 32)]), ("1x256", vec![span(1, 256)]),
        ("2x32", (0..2).map(|i| span(i, 32)).collect()), ("3x32", (0..3).map(|i| span(i, 32)).collect()), ("4x32", (0..4).map(|i| span(i, 32)).collect()),
        ("8x32", (0..8).map(|i| span(i, 32)).collect()),
        ("32x32", (0..32).map(|i| span(i, 32)).collect()),
        ("mix32", mix(32)), ("mix256", mix(256)), ("32x8", (0..32).map(|i| span(i, 8)).collect()), ("8x256", (0..8).map(|i| span(i, 256)).collect()),
        ("5mixed", [200, 20, 10, 30, 60].iter().map(|&l| span(l, l)).collect()),
    ];
    for (name, spans) in sets.iter().filter(|s| wanted.contains(&s.0)) {
        let refs: Vec<&[u32]> = spans.iter().map(|s| &s[..]).collect();
        let tokens: usize = refs.iter().map(|s| s.len()).sum();
        for &t in &threads {
            let mut variants = Vec::new();
            for &b in &budgets {
                for s in [Strategy::Fine, Strategy::Coarse, Strategy::Auto] {
                    if t == 1 && s != Strategy::Fine { continue; }
                    let p = EmbedderParams::default().with_threads(t).with_n_batch(b).with_strategy(s).with_n_ctx(512);
                    variants.push((format!("{s:?}/{b}"), Embedder::new(model.clone(), &p)?, Vec::new()));
                }
            }
            let width = variants[0].1.width();
            let mut rows = vec![0.0; width * refs.len()];
            let mut st = vec![TextStatus::NotDone; refs.len()];
            let reps = (2000 / tokens).max(1);
            for r in 0..=rounds {
                for (_, e, times) in &mut variants {
                    let start = Instant::now();
                    for _ in 0..reps { e.embed_tokens(&refs, &mut Results::new(&mut rows, width, &mut st))?; }
                    if r > 0 { times.push(start.elapsed().as_secs_f64() / reps as f64); }
                }
            }
            print!("{name} {t}t:");
            for (n, _, times) in &mut variants { times.sort_by(f64::total_cmp); print!("  {n} {:.2}ms", times[times.len() / 2] * 1e3); }
            println!();
        }
    }
    if let Ok(tokenizer) = model.tokenizer() && args.len() > 5 {
        let _ = tokenizer;
        let text = std::fs::read_to_string(&args[5]).unwrap();
        let texts: Vec<&str> = text.split("\n").filter(|t| !t.trim().is_empty()).take(2000).collect();
        for &t in &threads { for s in [Strategy::Fine, Strategy::Coarse] {
            let mut e = Embedder::new(model.clone(), &EmbedderParams::default().with_threads(t).with_strategy(s))?;
            let width = e.width();
            let (mut rows, mut st) = (vec![0.0; width * texts.len()], vec![TextStatus::NotDone; texts.len()]);
            let sum = e.embed(&texts, &mut Results::new(&mut rows, width, &mut st))?;
            println!("texts {t}t {s:?}: {} texts {} tokens {:.3} s, {:.0} texts/s, tokenizing {:.2} %", sum.texts, sum.tokens, sum.seconds, sum.texts as f64 / sum.seconds, 100.0 * sum.tokenize_share());
        } }
    }
    Ok(())
}
