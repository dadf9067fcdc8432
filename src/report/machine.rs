//! The machine and the build that a profile was made on, and the machine's limits.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::choice::{Choice, Reason, choices, tile_name};
use super::data::{KernelRow, Limits, Machine, MemoryLevel, OtherKernel};
use crate::isa::{IsaId, limits};
use crate::kernels::KernelSet;
use crate::memory::{self, AlignedBuf, CacheSizes};
use crate::threads::{self, Team};
use crate::{Error, Result, isa};

/// Bytes read to learn how fast memory itself is, where caches are smaller: more would take long to touch.
const MOST_READ: usize = 256 << 20;

impl Machine {
    /// This machine, with the kernels of `set` on `threads` workers. With `limits`, its limits are measured, which takes
    /// some tenths of a second the first time; they are left out where that fails.
    pub fn detect(set: &KernelSet, threads: usize, limits: bool) -> Machine {
        let (kernels, other_kernels) = kernel_rows(set.isa);
        Machine {
            cpu: isa::cpu_name(),
            cores: threads::available(),
            threads,
            os: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
            memory_bytes: memory::total_memory().unwrap_or(0),
            isa: set.isa.name().to_owned(),
            kernels,
            other_kernels,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: option_env!("SMALLMIND_COMMIT").unwrap_or("").to_owned(),
            limits: if limits { measured(set.isa, threads).ok() } else { None },
        }
    }
}

/// The kernels that are chosen at this level, and the others.
fn kernel_rows(used: IsaId) -> (Vec<KernelRow>, Vec<OtherKernel>) {
    let (mut chosen, mut others) = (Vec::new(), Vec::new());
    for Choice { kernel, reason, chosen: best } in choices(used) {
        let (family, name) = (kernel.op.to_owned(), tile_name(&kernel));
        match reason {
            Reason::Chosen => chosen.push(KernelRow { family, name }),
            _ => {
                let better = kernel.isa.is_available() && best.is_none_or(|best| kernel.isa > best);
                others.push(OtherKernel { family, name, reason: reason.to_string(), better });
            }
        }
    }
    (chosen, others)
}

/// Limits that were measured, by level and number of threads, the latest requested last.
static KNOWN: Mutex<Vec<((IsaId, usize), Limits)>> = Mutex::new(Vec::new());

/// The machine's limits at this level on so many threads; measured once a process.
///
/// # Errors
/// [`Error::OutOfMemory`]; those of [`Team::new`].
pub fn measured(isa: IsaId, threads: usize) -> Result<Limits> {
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    let entry = match known.iter().position(|(of, _)| *of == (isa, threads)) {
        Some(index) => known.remove(index),
        None => ((isa, threads), measure(isa, threads)?),
    };
    let limits = entry.1.clone();
    known.push(entry);
    Ok(limits)
}

/// The limits that [`measured`] returned last; none before its first call.
pub fn last_measured() -> Option<Limits> {
    let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    known.last().map(|(_, limits)| limits.clone())
}

fn measure(isa: IsaId, threads: usize) -> Result<Limits> {
    let team = Team::new(threads)?;
    let fma_gflops = together(&team, 200, |_| (0..20).map(|_| limits::multiply(isa)).sum())? / 1e9;
    let mut levels = Vec::new();
    for (name, size, read) in levels_of(memory::cache_sizes(), threads) {
        let mut data = AlignedBuf::zeroed(read * threads, "a measurement of memory")?;
        let floats = data.as_mut_slice::<f32>();
        // Touched, so that it is not the one page of zeros that is read.
        floats.fill(1.0);
        let share = floats.len() / threads;
        let floats = &*floats;
        let work = |worker: usize| limits::read(isa, &floats[worker * share..][..share]);
        levels.push(MemoryLevel {
            name: name.to_owned(),
            bytes: size as u64,
            gbps: together(&team, 8, work)? / 1e9,
        });
    }
    Ok(Limits { fma_gflops, levels })
}

/// Name, size for one thread (0 for memory) and bytes to read of each level.
fn levels_of(caches: CacheSizes, threads: usize) -> Vec<(&'static str, usize, usize)> {
    let half = |size: usize| (size / 2).next_multiple_of(4096);
    let mut levels = vec![("L1", caches.l1d, half(caches.l1d))];
    if caches.l2 > caches.l1d {
        levels.push(("L2", caches.l2, half(caches.l2)));
    }
    let l3 = caches.l3 / threads;
    // A last level that is shared with other machines may be larger than what this one gets of it.
    if l3 > 2 * caches.l2 {
        levels.push(("L3", l3, half(l3.min(8 * caches.l2))));
    }
    levels.push(("DRAM", 0, (4 * caches.l3).min(MOST_READ) / threads));
    levels
}

/// The work of all workers in a second, side by side: the best of some rounds that all begin together. The best round
/// of a worker alone may be one in which the others, on the same core, had nothing to do.
fn together(team: &Team, rounds: usize, work: impl Fn(usize) -> f64 + Sync) -> Result<f64> {
    let speeds = Mutex::new(vec![0.0; rounds]);
    team.run(|worker| {
        for round in 0..rounds {
            if worker.barrier().is_err() {
                return;
            }
            let start = Instant::now();
            let done = work(worker.index());
            let speed = done / start.elapsed().as_secs_f64();
            speeds.lock().unwrap_or_else(PoisonError::into_inner)[round] += speed;
        }
    })?;
    let speeds = speeds.into_inner().unwrap_or_else(PoisonError::into_inner);
    let best = speeds.into_iter().fold(0.0, f64::max);
    if best > 0.0 { Ok(best) } else { Err(Error::Internal("nothing could be measured".into())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_is_described_and_its_limits_are_kept() {
        let set = KernelSet::default_set().unwrap();
        let machine = Machine::detect(set, 2, true);
        assert_eq!((machine.threads, machine.isa.as_str()), (2, set.isa.name()));
        assert!(machine.kernels.iter().any(|k| k.family == "matmul" && k.name.starts_with("f32.")));
        let limits = machine.limits.unwrap();
        assert!(limits.fma_gflops > 0.0);
        let names: Vec<_> = limits.levels.iter().map(|level| level.name.as_str()).collect();
        assert_eq!((names[0], names[names.len() - 1]), ("L1", "DRAM"));
        assert!(limits.levels.iter().all(|level| level.gbps > 0.0));
        assert_eq!(measured(set.isa, 2).unwrap(), limits, "measured once");
        assert_eq!(Machine::detect(set, 1, false).limits, None);
    }
}
