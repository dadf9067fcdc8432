//! The limits of this CPU, measured: multiply-adds from registers, and reading from each level of memory.
//! Reports state speeds as shares of these.

use std::hint::black_box;
use std::time::Instant;

use super::{Isa, IsaId, SimdBody};

/// Twelve independent chains of multiply-adds: enough for two units with a latency of four to six.
struct Multiply {
    rounds: usize,
}

impl SimdBody for Multiply {
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

impl SimdBody for Lanes {
    type Output = usize;
    #[inline(always)]
    fn run<I: Isa>(self, _isa: I) -> usize {
        I::LANES
    }
}

/// Sums of all vectors, in eight chains, so that only loads take time.
struct Read<'a> {
    data: &'a [f32],
}

impl SimdBody for Read<'_> {
    type Output = f32;
    #[inline(always)]
    fn run<I: Isa>(self, isa: I) -> f32 {
        let mut sums = [isa.zero(); 8];
        for chunk in self.data.chunks_exact(8 * I::LANES) {
            for (sum, x) in sums.iter_mut().zip(chunk.chunks_exact(I::LANES)) {
                *sum = isa.add(*sum, isa.load_slice(x));
            }
        }
        let mut total = isa.zero();
        for sum in sums {
            total = isa.add(total, sum);
        }
        isa.sum_lanes(total)
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

/// Multiplies and adds in registers for some tens of microseconds; returns the floating-point operations that were
/// done, 0 where the CPU lacks the level.
pub fn multiply(isa: IsaId) -> f64 {
    let Some(lanes) = isa.run(Lanes) else { return 0.0 };
    let rounds = 10_000;
    black_box(isa.run(Multiply { rounds: black_box(rounds) }));
    (rounds * 12 * 2 * lanes) as f64
}

/// Floating-point operations a second that one thread reaches at this level; 0 where the CPU lacks it. Takes some
/// tens of milliseconds.
pub fn flops_per_second(isa: IsaId) -> f64 {
    multiply(isa) / best(1000, || _ = multiply(isa))
}

/// Reads `data` from wherever it lies, as often as makes a megabyte; returns the bytes that were read, 0 where the
/// CPU lacks the level. Floats that don't fill eight vectors are left out.
pub fn read(isa: IsaId, data: &[f32]) -> f64 {
    let Some(lanes) = isa.run(Lanes) else { return 0.0 };
    let bytes = size_of_val(data) / (32 * lanes) * (32 * lanes);
    let repeats = ((1 << 20) / bytes.max(1)).clamp(1, 1 << 10);
    for _ in 0..repeats {
        black_box(isa.run(Read { data: black_box(data) }));
    }
    (bytes * repeats) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_of_this_world() {
        let isa = IsaId::detect();
        let flops = flops_per_second(isa);
        assert!(flops > 1e6 && flops < 1e13, "{flops}");
        let data = vec![1.0f32; 1 << 12];
        assert_eq!(read(isa, &data), (1 << 20) as f64);
        assert_eq!(read(isa, &[]), 0.0);
        // Whole groups of eight vectors are summed: 4096 is a multiple of them at every level.
        assert_eq!(isa.run(Read { data: &data }), Some(4096.0));
    }
}
