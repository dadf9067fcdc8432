//! Ops: places of the call tree that declared work of their own, each held against the machine's roofline
//! (Williams, Waterman & Patterson 2009).

use super::text::ratio;
use super::view::{PartView, Tree};
use crate::report::data::{Limits, Machine, MemoryLevel, Method};
use crate::sort;

/// A place that did work.
pub(super) struct Op<'a> {
    /// Its figures; work and time of what it called are in them.
    pub node: &'a Method,
    /// A name that no other op of the part has.
    pub label: String,
    /// Where it stands in the tree.
    pub place: usize,
    /// What the machine would allow.
    pub roof: Option<Roof>,
}

/// What a machine allows an op.
pub(super) struct Roof {
    /// What limits it: a level of the memory, or the arithmetic.
    pub name: String,
    /// The part of it that the op reached; above 1 where its numbers are narrower than f32 or lay nearer.
    pub share: f64,
}

impl Op<'_> {
    /// Time that would be saved if the op ran at its roof, in nanoseconds.
    pub fn stake_ns(&self) -> f64 {
        let reached = self.roof.as_ref().map_or(1.0, |roof| roof.share);
        self.node.total_ns as f64 * (1.0 - reached).max(0.0)
    }
}

/// The ops of a part by falling time.
pub(super) fn of<'a>(part: &PartView<'a>, machine: &Machine) -> Vec<Op<'a>> {
    let tree = &part.tree;
    let works = |&place: &usize| {
        tree.nodes[place].total_ns > 0 && (tree.own_flops(place) > 0 || tree.own_bytes(place) > 0)
    };
    let mut places: Vec<usize> = (0..tree.nodes.len()).filter(works).collect();
    sort::by_key(&mut places, |&place| std::cmp::Reverse(tree.nodes[place].total_ns));
    let labels = labels(tree, &places);
    let ops = places.into_iter().zip(labels).map(|(place, label)| {
        let node = &tree.nodes[place];
        let roof = machine.limits.as_ref().and_then(|limits| roof(limits, node, working_set(tree, place)));
        Op { node, label, place, roof }
    });
    ops.collect()
}

/// Bytes that pass by before an op meets the same ones again: what one call of its caller moves, for each thread.
fn working_set(tree: &Tree<'_>, place: usize) -> f64 {
    let node = &tree.nodes[place];
    let caller = tree.parents[place].map(|parent| &tree.nodes[parent]).filter(|caller| caller.calls > 0);
    let whole = caller.unwrap_or(node);
    ratio(whole.bytes as f64, whole.calls as f64) / node.threads.max(1) as f64
}

/// The level that holds `bytes`; the last one holds anything.
fn level(limits: &Limits, bytes: f64) -> Option<&MemoryLevel> {
    let usable = || limits.levels.iter().filter(|level| level.gbps > 0.0);
    usable().find(|level| level.bytes as f64 >= bytes).or(usable().next_back())
}

fn roof(limits: &Limits, node: &Method, working_set: f64) -> Option<Roof> {
    let level = level(limits, working_set);
    let Some((intensity, level)) = node.intensity().zip(level) else {
        let reached = ratio(node.gflops(), limits.fma_gflops);
        return (reached > 0.0).then(|| Roof { name: "arithmetic".to_string(), share: reached });
    };
    if node.flops == 0 {
        return Some(Roof { name: level.name.clone(), share: node.gbps() / level.gbps });
    }
    let allowed = limits.roof(intensity, level);
    let name = if allowed < limits.fma_gflops { level.name.as_str() } else { "arithmetic" };
    (allowed > 0.0).then(|| Roof { name: name.to_string(), share: node.gflops() / allowed })
}

/// Names for the places of ops: of the outermost caller that did nothing else.
fn labels(tree: &Tree<'_>, places: &[usize]) -> Vec<String> {
    let stands_for: Vec<usize> = places.iter().map(|&place| only_worker(tree, place)).collect();
    tree.labels(&stands_for)
}

/// The outermost caller of an op whose whole work is that op.
fn only_worker(tree: &Tree<'_>, place: usize) -> usize {
    let node = &tree.nodes[place];
    let same = |&caller: &usize| {
        let caller = &tree.nodes[caller];
        caller.flops == node.flops && caller.bytes == node.bytes
    };
    tree.way_up(place).take_while(same).last().unwrap_or(place)
}

#[cfg(test)]
mod tests {
    use super::super::sample::{report, tree_node};
    use super::super::view;
    use super::*;

    #[test]
    fn an_op_is_held_against_the_level_that_its_caller_sweeps() {
        let report = report();
        let parts = view::parts(&report);
        let ops = of(&parts[0], &report.machine);
        let matmul = ops.iter().find(|op| op.label == "MatMul_512x512").unwrap();
        assert_eq!(matmul.node.name, "matmul");
        let roof = matmul.roof.as_ref().unwrap();
        assert_eq!(roof.name, "arithmetic");
        assert!((roof.share - matmul.node.gflops() / 160.0).abs() < 1e-12);
        assert!((matmul.stake_ns() - matmul.node.total_ns as f64 * (1.0 - roof.share)).abs() < 1e-3);
        assert!(ops.windows(2).all(|pair| pair[0].node.total_ns >= pair[1].node.total_ns));
    }

    #[test]
    fn the_same_op_of_two_callers_has_two_labels() {
        let nodes = vec![
            tree_node("Small", None, 10, 300, 600),
            tree_node("decode", Some(0), 10, 300, 600),
            tree_node("linear", Some(1), 10, 200, 400),
            tree_node("gelu", Some(1), 10, 100, 200),
            tree_node("Medium", None, 10, 30, 60),
            tree_node("decode", Some(4), 10, 30, 60),
            tree_node("linear", Some(5), 10, 20, 40),
            tree_node("norm", Some(5), 10, 10, 20),
        ];
        let tree = Tree::new(&nodes);
        let found = labels(&tree, &[2, 3, 6, 7]);
        assert_eq!(found, ["linear ‹ Small", "gelu", "linear ‹ Medium", "norm"]);
        // The caller's sweep, not the op's own bytes, says where they come from.
        assert_eq!(working_set(&tree, 2), 60.0);
    }
}
