//! What the machine can do, measured in the same run as what is compared with it.

use smallmind::isa::{Isa, IsaId, Kernel};
use std::hint::black_box;
use std::time::Instant;

/// Twelve independent chains of multiply-adds: enough for two units with a latency of four to six.
struct Multiply {
    rounds: usize,
}

impl Kernel for Multiply {
    type Output = f32;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f32 {
        let (a, b) = (isa.splat(black_box(0.999)), isa.splat(black_box(1e-3)));
        let mut sums = [isa.zero(); 12];
        for (i, sum) in sums.iter_mut().enumerate() {
            *sum = isa.splat(black_box(i as f32));
        }
        for _ in 0..self.rounds {
            for sum in &mut sums {
                *sum = isa.mul_add(*sum, a, b);
            }
        }
        let mut total = isa.zero();
        for sum in sums {
            total = isa.add(total, sum);
        }
        isa.sum_lanes(total)
    }
}

/// Lanes of a level.
struct Lanes;

impl Kernel for Lanes {
    type Output = usize;
    #[inline(always)]
    fn run<I: Isa>(self, _isa: I) -> usize {
        I::LANES
    }
}

/// The shortest of many runs, in seconds.
pub fn best(runs: usize, mut work: impl FnMut()) -> f64 {
    let timed = |_| {
        let start = Instant::now();
        work();
        start.elapsed().as_secs_f64()
    };
    (0..runs).map(timed).fold(f64::INFINITY, f64::min)
}

/// Floating-point operations a second that the level's FMA units reach.
pub fn peak(isa: IsaId) -> f64 {
    let rounds = 10_000;
    let flops = (rounds * 12 * 2 * isa.run(Lanes).unwrap()) as f64;
    flops / best(200, || _ = black_box(isa.run(Multiply { rounds: black_box(rounds) })))
}
