//! Trains a GPT with random weights on tokens that follow a rule, and tells how fast it goes:
//! `train [VOCAB,CONTEXT,DIM,LAYERS,HEADS [SEQUENCES [THREADS [STEPS]]]]`.

use std::sync::Arc;
use std::time::Instant;

use smallmind::model::{GptConfig, RandomGpt};
use smallmind::threads::Team;
use smallmind::train::{Schedule, TrainParams, Trainer};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let shape: GptConfig = arguments.first().map_or("small", String::as_str).parse()?;
    let number = |i: usize, default: usize| arguments.get(i).map_or(Ok(default), |text| text.parse());
    let (sequences, threads, steps) = (number(1, 8)?, number(2, 2)?, number(3, 20)?);
    let source = Arc::new(RandomGpt::new(&shape, 1)?);
    let schedule = Schedule::cosine(1e-3, 10, steps as u64);
    let params = TrainParams::default().with_sequences(sequences).with_schedule(schedule);
    let memory = Trainer::estimate(source.clone(), &params, threads)?;
    println!("{} MB, {} MB of it activations", memory.total >> 20, memory.arena >> 20);
    let mut trainer = Trainer::new(source, &params, Arc::new(Team::new(threads)?))?;
    for step in 0..steps {
        // Each token follows from the one before and its position.
        let token = |i: usize| ((i * i + step) % 97 * 31 % shape.vocab) as u32;
        let tokens: Vec<u32> = (0..trainer.batch_tokens()).map(token).collect();
        let targets: Vec<u32> = (1..=trainer.batch_tokens()).map(token).collect();
        let begun = Instant::now();
        let report = trainer.step(&tokens, &targets)?;
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "step {}: loss {:.4}, {:.1} ms, {:.0} tokens/s, {:.1} GFLOP/s",
            report.step,
            report.loss,
            seconds * 1e3,
            tokens.len() as f64 / seconds,
            trainer.batch_flops() as f64 / seconds / 1e9
        );
    }
    Ok(())
}
