//! A made-up report for tests and for looking at pages: one of the mode `enhanced` on a small machine,
//! with two threads, three runs and a timeline.

use std::collections::HashMap;

use crate::profile::Counter;
use crate::report::data::{
    COUNTING_VERSION, Counters, Counting, Event, FORMAT, KernelRow, Lane, Limits, Machine, MemoryLevel,
    Method, MissingCounters, ModelSpec, OtherKernel, Part, Report, Run, ThreadTime, VERSION, key,
};

/// A place of a tree before figures are summed.
struct Place {
    name: String,
    calls: u64,
    own_ns: u64,
    flops: u64,
    bytes: u64,
    alloc_bytes: u64,
    alloc_count: u64,
    threads: usize,
    inside: Vec<Place>,
}

fn place(name: &str, calls: u64, own_ns: u64, inside: Vec<Place>) -> Place {
    let name = name.to_string();
    Place { name, calls, own_ns, flops: 0, bytes: 0, alloc_bytes: 0, alloc_count: 0, threads: 1, inside }
}

impl Place {
    fn work(mut self, flops: u64, bytes: u64) -> Self {
        (self.flops, self.bytes) = (flops * self.calls, bytes * self.calls);
        self
    }

    fn allocates(mut self, bytes: u64) -> Self {
        (self.alloc_bytes, self.alloc_count) = (bytes * self.calls, self.calls);
        self
    }

    /// Two workers share it: each call ends with a wait.
    fn shared(mut self) -> Self {
        self.threads = 2;
        let waiting = place("barrier", self.calls, self.own_ns / 12, vec![]);
        self.inside.push(Place { threads: 2, ..waiting });
        self
    }

    fn total_ns(&self) -> u64 {
        self.own_ns + self.inside.iter().map(Place::total_ns).sum::<u64>()
    }

    fn sum(&self, figure: fn(&Place) -> u64) -> u64 {
        figure(self) + self.inside.iter().map(|inner| inner.sum(figure)).sum::<u64>()
    }

    fn slower(mut self, factor: f64) -> Self {
        self.own_ns = (self.own_ns as f64 * factor) as u64;
        self.inside = self.inside.into_iter().map(|inner| inner.slower(factor)).collect();
        self
    }
}

fn figures(place: &Place, parent: Option<usize>, depth: usize) -> Method {
    let total = place.total_ns();
    let mean = total / place.calls.max(1);
    let lane = |thread: usize, percent: u64| Lane {
        thread,
        total_ns: total * percent / 100,
        self_ns: place.own_ns * percent / 100,
    };
    Method {
        name: place.name.clone(),
        parent,
        depth,
        calls: place.calls,
        threads: place.threads,
        total_ns: total,
        idle_ns: place.sum(|p| if p.name == "barrier" { p.own_ns * 193 / 100 } else { 0 }),
        cpu_ns: place.own_ns * place.threads as u64,
        self_ns: place.own_ns,
        min_ns: mean * 9 / 10,
        mean_ns: mean,
        max_ns: mean * 14 / 10,
        std_ns: mean / 14,
        p50_ns: mean * 98 / 100,
        p95_ns: mean * 115 / 100,
        p99_ns: mean * 130 / 100,
        flops: place.sum(|p| p.flops),
        bytes: place.sum(|p| p.bytes),
        alloc_bytes: place.sum(|p| p.alloc_bytes),
        alloc_count: place.sum(|p| p.alloc_count),
        self_alloc_bytes: place.alloc_bytes,
        peak_bytes: place.sum(|p| p.alloc_bytes / p.calls.max(1)),
        lanes: if place.threads > 1 { vec![lane(0, 100), lane(1, 93)] } else { vec![] },
        // As `--counters` has it; each page that is allocated is touched for the first time.
        counters: Some(counters(total, place.sum(|p| p.alloc_bytes) / 4096)),
        ..Method::default()
    }
}

/// Counters of so much time on a core of 3 GHz.
fn counters(ns: u64, faults: u64) -> Counters {
    let values = [
        (Counter::MinorFaults, faults),
        (Counter::MajorFaults, 0),
        (Counter::ContextSwitches, ns / 4_000_000),
        (Counter::Migrations, 0),
        (Counter::Cycles, 3 * ns),
        (Counter::Instructions, 6 * ns),
        (Counter::CacheReferences, ns / 20),
        (Counter::CacheMisses, ns / 200),
    ];
    Counters(values.into_iter().map(|(counter, value)| (key(counter), value)).collect())
}

fn push(tree: &mut Vec<Method>, place: &Place, parent: Option<usize>, depth: usize) {
    let index = tree.len();
    tree.push(figures(place, parent, depth));
    let mut inside: Vec<&Place> = place.inside.iter().collect();
    inside.sort_by_key(|inner| std::cmp::Reverse(inner.total_ns()));
    inside.into_iter().for_each(|inner| push(tree, inner, Some(index), depth + 1));
}

/// One entry a name.
fn by_name(tree: &[Method]) -> Vec<Method> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut methods: Vec<Method> = Vec::new();
    for node in tree {
        let Some(&known) = places.get(node.name.as_str()) else {
            places.insert(&node.name, methods.len());
            methods.push(Method { parent: None, depth: 0, ..node.clone() });
            continue;
        };
        let sum = &mut methods[known];
        sum.calls += node.calls;
        sum.total_ns += node.total_ns;
        sum.cpu_ns += node.cpu_ns;
        sum.idle_ns += node.idle_ns;
        sum.self_ns += node.self_ns;
        sum.flops += node.flops;
        sum.bytes += node.bytes;
        sum.alloc_bytes += node.alloc_bytes;
        sum.alloc_count += node.alloc_count;
        sum.self_alloc_bytes += node.self_alloc_bytes;
        sum.mean_ns = sum.total_ns / sum.calls.max(1);
        sum.min_ns = sum.min_ns.min(node.min_ns);
        sum.max_ns = sum.max_ns.max(node.max_ns);
        if let (Some(to), Some(from)) = (&mut sum.counters, &node.counters) {
            from.0.iter().for_each(|(name, value)| *to.0.entry(name.clone()).or_default() += value);
        }
        for (to, from) in sum.lanes.iter_mut().zip(&node.lanes) {
            to.total_ns += from.total_ns;
            to.self_ns += from.self_ns;
        }
    }
    methods.sort_by_key(|method| std::cmp::Reverse(method.total_ns));
    methods
}

fn run(roots: Vec<Place>, outside_ns: u64) -> Run {
    let mut tree = Vec::new();
    let mut roots = roots;
    roots.sort_by_key(|root| std::cmp::Reverse(root.total_ns()));
    roots.iter().for_each(|root| push(&mut tree, root, None, 0));
    let over = |figure: fn(&Place) -> u64| roots.iter().map(|root| root.sum(figure)).sum::<u64>();
    let wall_ns = roots.iter().map(Place::total_ns).sum::<u64>() + outside_ns;
    let waiting_ns = over(|p| if p.name == "barrier" { p.own_ns } else { 0 });
    let thread = |thread: usize, share: u64| {
        let working_ns = (wall_ns - outside_ns - waiting_ns) * share / 100;
        ThreadTime {
            thread,
            working_ns,
            waiting_ns: waiting_ns * share / 100,
            idle_ns: wall_ns - working_ns - waiting_ns * share / 100,
            counters: Some(counters(working_ns, 20 / share)),
        }
    };
    Run {
        wall_ns,
        threads: vec![thread(0, 100), thread(1, 93)],
        counters: Some(counters(2 * wall_ns, over(|p| p.alloc_bytes) / 4096)),
        alloc_bytes: over(|p| p.alloc_bytes) + 4096,
        alloc_count: over(|p| p.alloc_count) + 3,
        peak_bytes: 21 << 20,
        methods: by_name(&tree),
        tree,
        ..Run::default()
    }
}

/// A root with its iterations, each one op.
fn micro(name: &str, op: &str, calls: u64, each_ns: u64, flops: u64, bytes: u64) -> Place {
    let group = name.split('_').next().unwrap_or(name);
    let op = place(op, calls, each_ns * calls, vec![]).work(flops, bytes);
    place(name, 1, 900, vec![place(&format!("{group}_Iteration"), calls, 150 * calls, vec![op])])
}

/// A model that makes `tokens` tokens, over `positions` positions in all.
fn model(name: &str, dim: u64, layers: u64, vocab: u64, tokens: u64, positions: u64) -> Place {
    let each = positions / tokens;
    let calls = tokens * layers;
    // 60 GFLOPS, and the fixed cost of a call.
    let linear = |zone: &str, calls: u64, n: u64, k: u64| {
        let flops = 2 * each * n * k;
        place(zone, calls, calls * (600 + flops / 60), vec![])
            .work(flops, 4 * (n * k + each * (n + k)))
            .shared()
    };
    let row_op = |zone: &str, calls: u64, n: u64, flops: u64, ns: u64| {
        place(zone, calls, calls * (200 + each * n * ns / 100), vec![])
            .work(flops * each * n, 8 * each * n)
            .shared()
    };
    let forward = vec![
        row_op("embed", tokens, dim, 0, 20),
        row_op("layer_norm", 2 * calls + tokens, dim, 7, 35),
        linear("linear.qkv", calls, 3 * dim, dim),
        row_op("attention", calls, dim, 2 * each, 60),
        linear("linear.attn_out", calls, dim, dim),
        linear("linear.up", calls, 4 * dim, dim),
        row_op("gelu", calls, 4 * dim, 12, 25),
        linear("linear.down", calls, dim, 4 * dim),
        row_op("add", 2 * calls, dim, 1, 12),
        linear("linear.head", tokens, vocab, dim),
    ];
    let forward = place(&format!("Model_{name}_Forward"), tokens, tokens * 700, forward);
    let sample = place("sample", tokens, tokens * 2_600, vec![]);
    let token = place(&format!("Model_{name}_GenerateToken"), tokens, tokens * 240, vec![forward, sample]);
    place(&format!("Model_{name}_Inference"), 1, 5_200, vec![token]).allocates(2_048)
}

fn roots(cached: bool, factor: f64) -> Vec<Place> {
    let positions = if cached { 34 } else { 550 };
    let mut roots = vec![
        model("Small", 128, 2, 256, 25, positions),
        model("Medium", 256, 4, 512, 25, positions),
        place("Model_Small_Creation", 1, 2_100_000, vec![]).allocates(1_900_000),
        place("Model_Medium_Creation", 1, 14_800_000, vec![]).allocates(13_900_000),
    ];
    if !cached {
        for (n, gflops) in [(64, 61), (128, 118), (256, 139), (512, 146)] {
            let (flops, bytes) = (2 * n * n * n, 12 * n * n);
            roots.push(micro(&format!("MatMul_{n}x{n}"), "matmul", 4, flops / gflops, flops, bytes));
        }
        for n in [1_000, 10_000, 100_000, 1_000_000] {
            roots.push(micro(&format!("GELU_{n}"), "gelu", 6, 300 + n * 22 / 100, 12 * n, 8 * n));
        }
        for n in [256, 512, 1024, 2048] {
            roots.push(micro(&format!("Softmax_{n}"), "softmax", 6, 160 + n * 35 / 100, 6 * n, 8 * n));
        }
        roots.push(micro("TensorAdd_10000", "add", 10, 1_150, 10_000, 120_000));
        roots.push(micro("TensorMul_10000", "mul", 10, 1_170, 10_000, 120_000));
        roots.push(micro("BroadcastAdd_100x100", "add", 10, 980, 10_000, 80_400));
    }
    roots.into_iter().map(|root| root.slower(factor)).collect()
}

/// Four layers of one token on two threads.
fn timeline() -> Vec<Event> {
    let steps: [(&str, u64, u64); 8] = [
        ("layer_norm", 900, 860),
        ("linear.qkv", 7_400, 7_900),
        ("attention", 5_200, 4_100),
        ("linear.attn_out", 2_900, 3_300),
        ("linear.up", 9_300, 9_000),
        ("gelu", 1_300, 1_250),
        ("linear.down", 9_800, 10_400),
        ("add", 500, 480),
    ];
    let mut events = Vec::new();
    let mut now = 400;
    let mut step = |name: &str, took: [u64; 2], now: &mut u64| {
        let longest = took[0].max(took[1]) + 250;
        for (thread, took) in took.into_iter().enumerate() {
            let event = |name: &str, start_ns, duration_ns, depth| Event {
                name: name.to_string(),
                thread,
                start_ns,
                duration_ns,
                depth: depth + 2 * usize::from(thread == 0),
                counters: Some(counters(start_ns + duration_ns, start_ns / 9_000)),
            };
            events.push(event(name, *now, longest, 0));
            events.push(event("barrier", *now + took, longest - took, 1));
        }
        *now += longest + 30;
    };
    step("embed", [350, 340], &mut now);
    for _ in 0..4 {
        steps.iter().for_each(|&(name, a, b)| step(name, [a, b], &mut now));
    }
    step("linear.head", [15_200, 14_700], &mut now);
    let outer = |name: &str, start_ns, end: u64, depth| Event {
        name: name.to_string(),
        thread: 0,
        start_ns,
        duration_ns: end - start_ns,
        depth,
        counters: None,
    };
    events.push(outer("Model_Medium_Forward", 150, now, 1));
    events.push(outer("Model_Medium_GenerateToken", 0, now + 3_100, 0));
    events.push(outer("sample", now + 200, now + 2_900, 1));
    events
}

fn part(name: &str, about: &str, cached: bool) -> Part {
    let runs = [1.031, 1.0, 1.012].map(|factor| run(roots(cached, factor), 61_000));
    let mut runs = Vec::from(runs);
    runs[0].timeline = timeline();
    Part { name: name.to_string(), about: about.to_string(), runs }
}

fn machine() -> Machine {
    let kernel = |family: &str, name: &str| KernelRow { family: family.into(), name: name.into() };
    let other = |family: &str, name: &str, reason: &str| OtherKernel {
        family: family.into(),
        name: name.into(),
        reason: reason.into(),
        better: false,
    };
    let level = |name: &str, bytes: u64, gbps: f64| MemoryLevel { name: name.to_string(), bytes, gbps };
    Machine {
        cpu: "Example Server CPU @ 2.60GHz".into(),
        cores: 2,
        threads: 2,
        os: "linux x86_64".into(),
        memory_bytes: 16 << 30,
        isa: "avx512vnni".into(),
        kernels: vec![
            kernel("matmul", "f32.avx512.14x32"),
            kernel("qmatmul", "q.vnni.16"),
            kernel("attention", "f16.avx512"),
            kernel("rows", "avx512"),
        ],
        other_kernels: vec![
            other("matmul", "f32.avx2.6x16", "the kernel for avx512 is chosen"),
            other("qmatmul", "q4_1.amx", "this CPU lacks amx"),
        ],
        version: "0.1.0".into(),
        commit: "0123abc".into(),
        limits: Some(Limits {
            fma_gflops: 160.0,
            levels: vec![
                level("L1", 48 << 10, 290.0),
                level("L2", 2 << 20, 118.0),
                level("L3", 32 << 20, 46.0),
                level("DRAM", 0, 21.0),
            ],
        }),
    }
}

/// The report.
pub(in crate::report) fn report() -> Report {
    let spec = |name: &str, parameters, tensors, vocab, context, dim, layers, heads| ModelSpec {
        name: String::from(name),
        parameters,
        tensors,
        vocab,
        context,
        dim,
        layers,
        heads,
        weight_bytes: 4 * parameters,
        tokens: vec![25, 25],
    };
    Report {
        format: FORMAT.into(),
        version: VERSION,
        counting: Some(Counting {
            version: COUNTING_VERSION,
            every_scope: true,
            missing: vec![MissingCounters {
                counters: [Counter::Branches, Counter::BranchMisses].map(key).to_vec(),
                reason: "the processor has too few counters for it".into(),
            }],
        }),
        created: "2026-11-21T05:00:00Z".into(),
        mode: "enhanced".into(),
        machine: machine(),
        models: vec![
            spec("Small", 470_528, 29, 256, 64, 128, 2, 4),
            spec("Medium", 3_454_464, 53, 512, 128, 256, 4, 8),
        ],
        parts: vec![
            part("same work", "A full forward pass again for each token, logits at all positions.", false),
            part("with cache", "Keys and values are kept; each token passes once.", true),
        ],
    }
}

/// A place of a tree with work, for tests that build trees by hand.
pub(super) fn tree_node(name: &str, parent: Option<usize>, calls: u64, flops: u64, bytes: u64) -> Method {
    let depth = parent.map_or(0, |parent| parent + 1);
    let total_ns = flops.max(1);
    Method { name: name.into(), parent, depth, calls, flops, bytes, total_ns, ..Method::default() }
}
