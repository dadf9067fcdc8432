//! A profile as it is kept: the contents of a JSON file, and the source of every report and picture.
//! Times are nanoseconds, memory is bytes, rates are derived by methods and never stored.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::profile::{Counter, Counts};

/// The value of [`Report::format`].
pub const FORMAT: &str = "smallmind-profile";

/// The version of the layout that this library writes and reads.
pub const VERSION: u32 = 1;

/// The version of [`Counting`], [`Counters`] and [`ThreadTime`]. Older files have none of these.
pub const COUNTING_VERSION: u32 = 1;

/// Everything one profiling session measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// [`FORMAT`].
    pub format: String,
    /// [`VERSION`].
    pub version: u32,
    /// When it was made: RFC 3339, UTC.
    pub created: String,
    /// The workload, such as `enhanced`; `model` for a model file, `host` for a host's own code.
    pub mode: String,
    /// Where it ran.
    pub machine: Machine,
    /// Models that ran.
    #[serde(default)]
    pub models: Vec<ModelSpec>,
    /// Parts with a clock of their own, such as "same work" and "with cache".
    pub parts: Vec<Part>,
    /// Which scopes were counted; none where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counting: Option<Counting>,
}

/// Which scopes were counted, and which counters are missing.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Counting {
    /// [`COUNTING_VERSION`].
    pub version: u32,
    /// Whether every scope was counted, or only runs and a host's zones.
    pub every_scope: bool,
    /// Counters that the machine or the system didn't give.
    pub missing: Vec<MissingCounters>,
}

/// Counters that are unknown for one reason.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MissingCounters {
    /// Their names, as in [`Counters`].
    pub counters: Vec<String>,
    /// Why.
    pub reason: String,
}

/// Values of counters by their names, such as "minor_page_faults"; unknown ones are left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Counters(pub BTreeMap<String, u64>);

impl Counters {
    /// The value of a counter, where it is known.
    pub fn get(&self, counter: Counter) -> Option<u64> {
        self.0.get(&key(counter)).copied()
    }

    /// Instructions for each cycle, where both are known.
    pub fn instructions_per_cycle(&self) -> Option<f64> {
        let cycles = self.get(Counter::Cycles).filter(|&cycles| cycles > 0)?;
        Some(self.get(Counter::Instructions)? as f64 / cycles as f64)
    }
}

impl From<&Counts> for Counters {
    fn from(counts: &Counts) -> Counters {
        Counters(counts.iter().map(|(counter, value)| (key(counter), value)).collect())
    }
}

/// A counter's name in files.
pub(super) fn key(counter: Counter) -> String {
    counter.name().replace(' ', "_")
}

/// The machine and the build.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's own name.
    pub cpu: String,
    /// Hardware threads that the process may use.
    pub cores: usize,
    /// Workers of the contexts that were profiled.
    pub threads: usize,
    /// Operating system and architecture, such as "linux x86_64".
    pub os: String,
    /// Memory of the machine, 0 where unknown.
    pub memory_bytes: u64,
    /// Instruction set chosen, such as "avx512vnni".
    pub isa: String,
    /// The kernel of each operation and type that was chosen.
    pub kernels: Vec<KernelRow>,
    /// The other kernels of the build, and why each wasn't chosen.
    #[serde(default)]
    pub other_kernels: Vec<OtherKernel>,
    /// Version of the library.
    pub version: String,
    /// Commit that the build stands on, empty where unknown.
    pub commit: String,
    /// The machine's limits, where they were measured.
    pub limits: Option<Limits>,
}

/// A kernel that was chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct KernelRow {
    /// Its operation, such as "matmul".
    pub family: String,
    /// Type, level and register tile, such as "f32.avx512.14x32".
    pub name: String,
}

/// A kernel that wasn't chosen.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct OtherKernel {
    /// Its operation.
    pub family: String,
    /// Type, level and register tile.
    pub name: String,
    /// Why, such as "this CPU lacks amx".
    pub reason: String,
    /// Whether this CPU runs it, and it is of a higher level than the one that was chosen.
    pub better: bool,
}

/// Measured limits of the machine, for as many threads as [`Machine::threads`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limits {
    /// 10⁹ f32 operations a second with multiply-adds from registers.
    pub fma_gflops: f64,
    /// Reading speed of each level, nearest first.
    pub levels: Vec<MemoryLevel>,
}

/// A level of the memory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemoryLevel {
    /// "L1", "L2", "L3" or "DRAM".
    pub name: String,
    /// Its size for one thread; 0 for the memory itself.
    pub bytes: u64,
    /// 10⁹ bytes a second read.
    pub gbps: f64,
}

/// A model that was profiled.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelSpec {
    /// Such as "Small"; methods about it are named `Model_Small_…` in the mode `enhanced`.
    pub name: String,
    /// Elements of all its tensors.
    pub parameters: u64,
    /// Tensors.
    pub tensors: u64,
    /// Size of its vocabulary.
    pub vocab: u64,
    /// Positions it was made for.
    pub context: u64,
    /// Width of the residual stream.
    pub dim: u64,
    /// Layers.
    pub layers: u64,
    /// Query heads.
    pub heads: u64,
    /// Bytes of its weights as packed.
    pub weight_bytes: u64,
    /// Tokens that it generated in each part, in the order of [`Report::parts`]: rates per token divide by these.
    pub tokens: Vec<u64>,
}

/// One way of doing the work, run several times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Such as "same work".
    pub name: String,
    /// The work, in a sentence.
    #[serde(default)]
    pub about: String,
    /// The runs, at least one; every run did the same work.
    pub runs: Vec<Run>,
}

/// One run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// Time that recording was on: shares of time are shares of this.
    pub wall_ns: u64,
    /// Scopes that could not be recorded; 0 unless something is amiss.
    pub dropped: u64,
    /// Scopes that a host opened and never closed, or closed out of order.
    #[serde(default)]
    pub unbalanced: u64,
    /// Allocated by the process in this run.
    pub alloc_bytes: u64,
    /// Allocations of the process in this run.
    pub alloc_count: u64,
    /// Most memory that the process held at once in this run, by the counting allocator.
    pub peak_bytes: u64,
    /// One entry a method, wherever in the tree it was, by falling time.
    pub methods: Vec<Method>,
    /// The call tree: a parent stands before its children, siblings by falling time.
    pub tree: Vec<Method>,
    /// When things happened, of a piece of the run that was traced.
    #[serde(default)]
    pub timeline: Vec<Event>,
    /// Each thread's time; empty in older files.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub threads: Vec<ThreadTime>,
    /// Counters of all threads together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<Counters>,
}

/// One thread's time in a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ThreadTime {
    /// The thread's number.
    pub thread: usize,
    /// Time in methods, waiting left out.
    pub working_ns: u64,
    /// Time that it waited at barriers for other threads.
    pub waiting_ns: u64,
    /// Time in no method: parked until there is work, or in code that isn't measured.
    pub idle_ns: u64,
    /// Its counters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<Counters>,
}

/// Figures of one method: of a place in the call tree, or of all its places.
///
/// Times are those of the thread that called it; an op that workers share is one call. `cpu_ns` is the time of all
/// threads together. Work, allocations and times, except `self_ns`, include the methods that it called.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Method {
    /// Its name.
    pub name: String,
    /// Index of the caller in [`Run::tree`]; none for a root, and in [`Run::methods`].
    pub parent: Option<usize>,
    /// Callers above it.
    pub depth: usize,
    /// Calls that ended.
    pub calls: u64,
    /// Threads that worked in it.
    pub threads: usize,
    /// Wall time.
    pub total_ns: u64,
    /// Time of all threads, waiting at barriers left out.
    pub cpu_ns: u64,
    /// Time that all threads waited at barriers in it.
    #[serde(default)]
    pub idle_ns: u64,
    /// Wall time outside of the methods that it called.
    pub self_ns: u64,
    /// Shortest call.
    pub min_ns: u64,
    /// Mean of the calls.
    pub mean_ns: u64,
    /// Longest call.
    pub max_ns: u64,
    /// Standard deviation of the calls.
    pub std_ns: u64,
    /// Half of the calls took no longer (within 6 %, as the next two).
    pub p50_ns: u64,
    /// 95 % of the calls took no longer.
    pub p95_ns: u64,
    /// 99 % of the calls took no longer.
    pub p99_ns: u64,
    /// Floating-point operations declared; a multiplication with an addition is two.
    pub flops: u64,
    /// Bytes declared that had to be read or written.
    pub bytes: u64,
    /// Bytes allocated.
    pub alloc_bytes: u64,
    /// Allocations.
    pub alloc_count: u64,
    /// Bytes allocated outside of the methods that it called.
    pub self_alloc_bytes: u64,
    /// Most bytes that one call held at once beyond what its thread held when it began.
    pub peak_bytes: u64,
    /// Time of each thread that worked in it, the busiest first; empty where there is one.
    #[serde(default)]
    pub lanes: Vec<Lane>,
    /// Counters of all threads in it; none where its calls weren't counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<Counters>,
    /// The same of each thread, where there were several.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub thread_counters: Vec<ThreadCounters>,
}

/// Counters of one thread in a method.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct ThreadCounters {
    /// The thread's number.
    pub thread: usize,
    /// Its part.
    pub counters: Counters,
}

/// One thread's part of a method.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Lane {
    /// The thread's number.
    pub thread: usize,
    /// Its time in the method.
    pub total_ns: u64,
    /// The same outside of the methods that it called.
    pub self_ns: u64,
}

/// Something that happened on a thread.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Name of the method.
    pub name: String,
    /// The thread's number, 0 for the first.
    pub thread: usize,
    /// From the beginning of the timeline.
    pub start_ns: u64,
    /// How long it took.
    pub duration_ns: u64,
    /// Scopes around it on its thread.
    pub depth: usize,
    /// Its thread's counters at its end, from the beginning of the timeline; none where scopes weren't counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub counters: Option<Counters>,
}

impl Method {
    /// 10⁹ operations a second of wall time; 0 where no time was measured.
    pub fn gflops(&self) -> f64 {
        rate(self.flops, self.total_ns)
    }

    /// 10⁹ bytes a second of wall time; 0 where no time was measured.
    pub fn gbps(&self) -> f64 {
        rate(self.bytes, self.total_ns)
    }

    /// Operations for each byte moved; none where no bytes were declared.
    pub fn intensity(&self) -> Option<f64> {
        (self.bytes > 0).then(|| self.flops as f64 / self.bytes as f64)
    }
}

impl Limits {
    /// 10⁹ operations a second that this many operations for each byte allow, when the bytes come from `level`
    /// (Williams, Waterman & Patterson 2009).
    pub fn roof(&self, intensity: f64, level: &MemoryLevel) -> f64 {
        self.fma_gflops.min(intensity * level.gbps)
    }
}

fn rate(amount: u64, ns: u64) -> f64 {
    if ns == 0 { 0.0 } else { amount as f64 / ns as f64 }
}
