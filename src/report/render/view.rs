//! A part of a report as it is shown: medians over its runs with their spread, the run in the middle, and the
//! call tree with what each place did by itself.

use std::collections::{BTreeMap, HashMap};

use super::family::is_wait;
use super::text::ratio;
use crate::profile::Counter;
use crate::report::data::{Counters, Method, Part, Report, Run, ThreadTime};
use crate::sort;

/// Deeper places of a tree are shown below the last of these: no real tree is that deep.
const DEEPEST: usize = 128;

/// Callers that are looked at to tell two places apart: further up, no tree of a program differs for the first time.
const MOST_CALLERS: usize = 8;

/// A figure over several runs.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Spread {
    pub median: f64,
    pub low: f64,
    pub high: f64,
}

impl Spread {
    /// All zero where there are no values.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Spread {
        let mut values: Vec<f64> = values.into_iter().collect();
        sort::by(&mut values, f64::total_cmp);
        let (Some(&low), Some(&high)) = (values.first(), values.last()) else { return Spread::default() };
        let (half, odd) = (values.len() / 2, values.len() % 2 == 1);
        let median = if odd { values[half] } else { (values[half - 1] + values[half]) / 2.0 };
        Spread { median, low, high }
    }

    /// From the lowest to the highest, as a part of the median.
    pub fn width(&self) -> f64 {
        ratio(self.high - self.low, self.median)
    }

    /// `amount` over each value.
    pub fn rate(&self, amount: f64) -> Spread {
        let [median, low, high] = [self.median, self.high, self.low].map(|value| ratio(amount, value));
        Spread { median, low, high }
    }
}

/// A method over all runs of a part.
pub(super) struct MethodView {
    /// Medians; shortest and longest call of all runs.
    pub figures: Method,
    /// Its wall time, in nanoseconds.
    pub total: Spread,
}

/// A part with what its runs have in common.
pub(super) struct PartView<'a> {
    pub part: &'a Part,
    /// Which of the parts.
    pub index: usize,
    /// The run whose wall time is in the middle: a real run, whose figures add up.
    pub middle: &'a Run,
    /// Which of the runs, from 1.
    pub number: usize,
    /// Wall time in nanoseconds.
    pub wall: Spread,
    /// Bytes allocated by the process.
    pub alloc_bytes: f64,
    /// Allocations of the process.
    pub alloc_count: f64,
    /// Most bytes held at once, of any run.
    pub peak_bytes: u64,
    /// By falling median time.
    pub methods: Vec<MethodView>,
    /// The tree of the run in the middle.
    pub tree: Tree<'a>,
}

static NO_RUN: Run = Run {
    wall_ns: 0,
    dropped: 0,
    unbalanced: 0,
    alloc_bytes: 0,
    alloc_count: 0,
    peak_bytes: 0,
    methods: Vec::new(),
    tree: Vec::new(),
    timeline: Vec::new(),
    threads: Vec::new(),
    counters: None,
};

/// All parts of a report.
pub(super) fn parts(report: &Report) -> Vec<PartView<'_>> {
    report.parts.iter().enumerate().map(|(index, part)| PartView::new(part, index)).collect()
}

impl<'a> PartView<'a> {
    fn new(part: &'a Part, index: usize) -> Self {
        let mut order: Vec<usize> = (0..part.runs.len()).collect();
        sort::by_key(&mut order, |&run| part.runs[run].wall_ns);
        let place = order.get(order.len().saturating_sub(1) / 2).copied();
        let middle = place.map_or(&NO_RUN, |place| &part.runs[place]);
        let over = |figure: fn(&Run) -> u64| Spread::of(part.runs.iter().map(|run| figure(run) as f64));
        PartView {
            part,
            index,
            middle,
            number: place.map_or(0, |place| place + 1),
            wall: over(|run| run.wall_ns),
            alloc_bytes: over(|run| run.alloc_bytes).median,
            alloc_count: over(|run| run.alloc_count).median,
            peak_bytes: part.runs.iter().map(|run| run.peak_bytes).max().unwrap_or(0),
            methods: methods(&part.runs),
            tree: Tree::new(&middle.tree),
        }
    }

    /// The method of this name.
    pub fn method(&self, name: &str) -> Option<&MethodView> {
        self.methods.iter().find(|method| method.figures.name == name)
    }

    /// Methods of the run in the middle by falling self time, those without any left out.
    pub fn by_self_time(&self) -> Vec<&'a Method> {
        let mut methods: Vec<&Method> = self.middle.methods.iter().filter(|m| m.self_ns > 0).collect();
        sort::by_key(&mut methods, |method| std::cmp::Reverse(method.self_ns));
        methods
    }

    /// Time of the run in the middle that was spent outside of every scope.
    pub fn outside_ns(&self) -> u64 {
        self.middle.wall_ns.saturating_sub(self.self_sum())
    }

    /// Self times of the run in the middle; more than its wall time where a host's threads ran side by side.
    pub fn self_sum(&self) -> u64 {
        self.middle.methods.iter().fold(0, |sum, method| sum.saturating_add(method.self_ns))
    }

    /// What each thread did in the run in the middle. A file from before that was measured tells it of the methods that
    /// threads shared.
    pub fn threads(&self) -> Vec<ThreadTime> {
        if !self.middle.threads.is_empty() {
            return self.middle.threads.clone();
        }
        let mut threads: BTreeMap<usize, ThreadTime> = BTreeMap::new();
        for method in &self.middle.methods {
            for lane in &method.lanes {
                let thread = threads.entry(lane.thread).or_default();
                let time =
                    if is_wait(&method.name) { &mut thread.waiting_ns } else { &mut thread.working_ns };
                *time = time.saturating_add(lane.self_ns);
            }
        }
        let of = |(thread, times): (usize, ThreadTime)| {
            let busy = times.working_ns.saturating_add(times.waiting_ns);
            ThreadTime { thread, idle_ns: self.middle.wall_ns.saturating_sub(busy), ..times }
        };
        threads.into_iter().map(of).collect()
    }

    /// Methods whose calls were counted, with what was counted: medians over the runs, by falling time.
    pub fn counted(&self) -> impl Iterator<Item = (&Method, &Counters)> {
        let figures = self.methods.iter().map(|method| &method.figures);
        figures.filter_map(|method| Some((method, method.counters.as_ref()?)))
    }

    /// Operations declared in the run in the middle.
    pub fn flops(&self) -> u64 {
        self.tree.roots().fold(0, |sum, root| sum.saturating_add(self.tree.nodes[root].flops))
    }

    /// 10⁹ operations a second over the whole wall time.
    pub fn gflops(&self) -> f64 {
        ratio(self.flops() as f64, self.middle.wall_ns as f64)
    }

    /// Scopes lost, and scopes opened and closed out of order, in all runs.
    pub fn amiss(&self) -> (u64, u64) {
        self.part.runs.iter().fold((0, 0), |(dropped, unbalanced), run| {
            (dropped.saturating_add(run.dropped), unbalanced.saturating_add(run.unbalanced))
        })
    }

    /// The share of the median wall time that some nanoseconds are.
    pub fn share(&self, ns: f64) -> f64 {
        ratio(ns, self.wall.median)
    }
}

fn methods(runs: &[Run]) -> Vec<MethodView> {
    let mut places: HashMap<&str, usize> = HashMap::new();
    let mut found: Vec<Vec<&Method>> = Vec::new();
    for method in runs.iter().flat_map(|run| &run.methods) {
        let place = *places.entry(&method.name).or_insert(found.len());
        if place == found.len() {
            found.push(Vec::new());
        }
        found[place].push(method);
    }
    let mut views: Vec<MethodView> = found.iter().map(|methods| over_runs(methods)).collect();
    sort::by(&mut views, |a, b| b.total.median.total_cmp(&a.total.median));
    views
}

/// One method from its figures in each run.
fn over_runs(runs: &[&Method]) -> MethodView {
    let spread = |figure: fn(&Method) -> u64| Spread::of(runs.iter().map(|method| figure(method) as f64));
    let median = |figure| spread(figure).median.round() as u64;
    let figures = Method {
        name: runs[0].name.clone(),
        calls: median(|m| m.calls),
        threads: runs.iter().map(|m| m.threads).max().unwrap_or(0),
        total_ns: median(|m| m.total_ns),
        cpu_ns: median(|m| m.cpu_ns),
        idle_ns: median(|m| m.idle_ns),
        self_ns: median(|m| m.self_ns),
        min_ns: runs.iter().map(|m| m.min_ns).min().unwrap_or(0),
        mean_ns: median(|m| m.mean_ns),
        max_ns: runs.iter().map(|m| m.max_ns).max().unwrap_or(0),
        std_ns: median(|m| m.std_ns),
        p50_ns: median(|m| m.p50_ns),
        p95_ns: median(|m| m.p95_ns),
        p99_ns: median(|m| m.p99_ns),
        flops: median(|m| m.flops),
        bytes: median(|m| m.bytes),
        alloc_bytes: median(|m| m.alloc_bytes),
        alloc_count: median(|m| m.alloc_count),
        self_alloc_bytes: median(|m| m.self_alloc_bytes),
        peak_bytes: runs.iter().map(|m| m.peak_bytes).max().unwrap_or(0),
        counters: median_counters(runs),
        ..Method::default()
    };
    let total = spread(|m| m.total_ns);
    // As whole as the other figures, or a method alone could seem to take longer than with what it called.
    MethodView { figures, total: Spread { median: total.median.round(), ..total } }
}

/// The median of each counter that all runs know.
fn median_counters(runs: &[&Method]) -> Option<Counters> {
    let all: Vec<&Counters> = runs.iter().map(|method| method.counters.as_ref()).collect::<Option<_>>()?;
    let names = all.first()?.0.keys();
    let median = |name: &String| -> Option<(String, u64)> {
        let values: Vec<u64> =
            all.iter().map(|counters| counters.0.get(name).copied()).collect::<Option<_>>()?;
        let median = Spread::of(values.into_iter().map(|value| value as f64)).median;
        Some((name.clone(), median.round() as u64))
    };
    Some(Counters(names.filter_map(median).collect()))
}

/// A call tree whose places are sound, whatever a file said.
pub(super) struct Tree<'a> {
    pub nodes: &'a [Method],
    /// The caller of each, which stands before it.
    pub parents: Vec<Option<usize>>,
    /// Callers above each.
    pub depths: Vec<usize>,
    /// Operations, bytes moved and wall time of what each calls directly.
    inside: Vec<Inside>,
}

#[derive(Clone, Copy, Default)]
struct Inside {
    flops: u64,
    bytes: u64,
    total_ns: u64,
}

impl<'a> Tree<'a> {
    pub fn new(nodes: &'a [Method]) -> Self {
        let mut parents: Vec<Option<usize>> = Vec::with_capacity(nodes.len());
        let mut depths: Vec<usize> = Vec::with_capacity(nodes.len());
        let mut inside = vec![Inside::default(); nodes.len()];
        for (place, node) in nodes.iter().enumerate() {
            let mut parent = node.parent.filter(|&parent| parent < place);
            while let Some(deep) = parent.filter(|&parent| depths[parent] >= DEEPEST) {
                parent = parents[deep];
            }
            if let Some(parent) = parent {
                let sum = &mut inside[parent];
                sum.flops = sum.flops.saturating_add(node.flops);
                sum.bytes = sum.bytes.saturating_add(node.bytes);
                sum.total_ns = sum.total_ns.saturating_add(node.total_ns);
            }
            depths.push(parent.map_or(0, |parent| depths[parent] + 1));
            parents.push(parent);
        }
        Tree { nodes, parents, depths, inside }
    }

    /// Places that nothing called.
    pub fn roots(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|&place| self.parents[place].is_none())
    }

    /// From a place to its root, itself first.
    pub fn way_up(&self, place: usize) -> impl Iterator<Item = usize> {
        std::iter::successors(Some(place), |&place| self.parents[place])
    }

    /// Names from the root to a place.
    pub fn path(&self, place: usize) -> Vec<&'a str> {
        let mut names: Vec<&str> = self.way_up(place).map(|place| self.nodes[place].name.as_str()).collect();
        names.reverse();
        names
    }

    /// A name for each of some places; where several have the same, with that of the nearest caller that tells them
    /// apart.
    pub fn labels(&self, places: &[usize]) -> Vec<String> {
        let name = |place: usize| self.nodes[place].name.as_str();
        let mut labels: Vec<String> = places.iter().map(|&place| name(place).to_string()).collect();
        for callers in 1..=MOST_CALLERS {
            let mut times: HashMap<String, usize> = HashMap::new();
            labels.iter().for_each(|label| *times.entry(label.clone()).or_default() += 1);
            if times.values().all(|&times| times == 1) {
                break;
            }
            for (label, &place) in labels.iter_mut().zip(places).filter(|(label, _)| times[*label] > 1) {
                if let Some(caller) = self.way_up(place).nth(callers) {
                    *label = format!("{} ‹ {}", name(place), name(caller));
                }
            }
        }
        labels
    }

    /// Operations declared by the place itself.
    pub fn own_flops(&self, place: usize) -> u64 {
        self.nodes[place].flops.saturating_sub(self.inside[place].flops)
    }

    /// Bytes that the place itself declared to move.
    pub fn own_bytes(&self, place: usize) -> u64 {
        self.nodes[place].bytes.saturating_sub(self.inside[place].bytes)
    }

    /// What was counted in each place outside of the counted places that it calls.
    pub fn own_counts(&self, counter: Counter) -> Vec<u64> {
        let of =
            |node: &Method| node.counters.as_ref().and_then(|counters| counters.get(counter)).unwrap_or(0);
        let mut own: Vec<u64> = self.nodes.iter().map(of).collect();
        for (node, parent) in self.nodes.iter().zip(&self.parents) {
            if let Some(parent) = parent {
                own[*parent] = own[*parent].saturating_sub(of(node));
            }
        }
        own
    }

    /// Wall time of what a place calls directly.
    pub fn inside_ns(&self, place: usize) -> u64 {
        self.inside[place].total_ns
    }

    /// Wall time of all roots.
    pub fn roots_ns(&self) -> u64 {
        self.roots().fold(0, |sum, root| sum.saturating_add(self.nodes[root].total_ns))
    }
}
