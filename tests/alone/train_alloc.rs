//! A training step allocates nothing, on any thread. In a process of its own, because it counts what the whole process
//! allocates.

use std::sync::Arc;

use crate::allocations;
use crate::common::process;
use smallmind::model::{GptConfig, RandomGpt};
use smallmind::threads::Team;
use smallmind::train::{LoraParams, TrainParams, Trainer};

#[test]
fn a_training_step_allocates_nothing() {
    let _turn = crate::turn();
    process::alone("train_alloc::a_training_step_allocates_nothing", || {
        // The guard sees one allocation.
        assert!(allocations(|| drop(std::hint::black_box(Box::new(1)))) > 0);
        let shape = GptConfig { vocab: 300, context: 32, dim: 32, layers: 2, heads: 2 };
        let source = Arc::new(RandomGpt::new(&shape, 1).unwrap());
        for threads in [1, 2] {
            let team = Arc::new(Team::new(threads).unwrap());
            let params = TrainParams::default().with_sequences(2);
            let adapter = Trainer::new_adapter(source.clone(), &LoraParams::new(4), &params, team.clone());
            let model = Trainer::new(source.clone(), &params, team);
            for trainer in [model, adapter] {
                steps_allocate_nothing(trainer.unwrap(), threads);
            }
        }
    });
}

fn steps_allocate_nothing(mut trainer: Trainer, threads: usize) {
    let tokens: Vec<u32> = (0..128).map(|i| i * 7 % 300).collect();
    let targets: Vec<u32> = tokens.iter().map(|token| (token + 7) % 300).collect();
    trainer.step(&tokens, &targets).unwrap();
    let steps = allocations(|| {
        for _ in 0..3 {
            trainer.step(&tokens, &targets).unwrap();
        }
    });
    assert_eq!(steps, 0, "steps on {threads} threads");
    let losses = allocations(|| {
        trainer.evaluate(&tokens, &targets).unwrap();
    });
    assert_eq!(losses, 0, "losses on {threads} threads");
}
