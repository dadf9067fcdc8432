//! The call tree as an icicle: a row a level, callers above what they called, each as wide as its wall time.

use serde::Serialize;

use super::super::family;
use super::super::text::{duration, percent, ratio, short};
use super::super::view::PartView;
use super::{place, tooltip};

/// Narrower cells than this part of the whole can't be seen.
const NARROWEST: f64 = 0.0004;
/// Cells that a browser still moves swiftly.
const MOST_CELLS: usize = 3000;

/// The picture.
#[derive(Serialize)]
pub(in super::super) struct Icicle {
    rows: usize,
    cells: Vec<Cell>,
    hidden: usize,
}

#[derive(Serialize)]
struct Cell {
    name: String,
    class: &'static str,
    row: usize,
    left: String,
    width: String,
    title: String,
}

pub(super) fn of(part: &PartView<'_>) -> Icicle {
    let tree = &part.tree;
    let wall = part.middle.wall_ns.max(tree.roots_ns()) as f64;
    // Where the next of each place's children begins; the last is that of roots.
    let mut next = vec![0.0; tree.nodes.len() + 1];
    let mut scale = vec![ratio(1.0, wall); tree.nodes.len() + 1];
    let mut cells = vec![whole(part)];
    let mut hidden = 0;
    for (index, node) in tree.nodes.iter().enumerate() {
        let parent = tree.parents[index].unwrap_or(tree.nodes.len());
        let left = next[parent];
        let width = node.total_ns as f64 * scale[parent];
        next[parent] += width;
        next[index] = left;
        // Callees that took longer than their caller (on several threads) are drawn to fit.
        let inside = tree.inside_ns(index) as f64;
        scale[index] = ratio(width, inside.max(node.total_ns as f64));
        if width < NARROWEST || cells.len() >= MOST_CELLS {
            hidden += 1;
            continue;
        }
        let mut facts = vec![
            ("time", duration(node.total_ns as f64)),
            ("by itself", duration(node.self_ns as f64)),
            ("share", format!("{} %", percent(ratio(node.total_ns as f64, part.middle.wall_ns as f64)))),
            ("calls", node.calls.to_string()),
        ];
        if node.flops > 0 {
            facts.push(("GFLOPS", short(node.gflops())));
        }
        cells.push(Cell {
            name: node.name.clone(),
            class: family::of(&node.name).class,
            row: tree.depths[index] + 1,
            left: place(left),
            width: place(width),
            title: tooltip(&node.name, &facts),
        });
    }
    let rows = cells.iter().map(|cell| cell.row + 1).max().unwrap_or(1);
    Icicle { rows, cells, hidden }
}

/// The run itself, above all roots.
fn whole(part: &PartView<'_>) -> Cell {
    let facts = [
        ("wall time", duration(part.middle.wall_ns as f64)),
        ("outside of every scope", duration(part.outside_ns() as f64)),
    ];
    Cell {
        name: part.part.name.clone(),
        class: "whole",
        row: 0,
        left: place(0.0),
        width: place(1.0),
        title: tooltip(&part.part.name, &facts),
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::{sample, view};
    use super::*;

    #[test]
    fn children_lie_within_their_callers_and_side_by_side() {
        let report = sample::report();
        let parts = view::parts(&report);
        let icicle = of(&parts[0]);
        let figures = |cell: &Cell| (cell.left.parse::<f64>().unwrap(), cell.width.parse::<f64>().unwrap());
        let roots: f64 = icicle.cells.iter().filter(|cell| cell.row == 1).map(|cell| figures(cell).1).sum();
        assert!(roots > 99.5 && roots < 100.01, "{roots}");
        for pair in icicle.cells.windows(2).filter(|pair| pair[1].row == pair[0].row + 1) {
            let ((left, width), (inner_left, inner_width)) = (figures(&pair[0]), figures(&pair[1]));
            assert!((inner_left - left).abs() < 0.002 && inner_width <= width + 0.002);
        }
        assert_eq!(icicle.cells[1].name, "Model_Medium_Inference");
        assert!((figures(&icicle.cells[1]).1 - 65.0).abs() < 0.1);
    }
}
