//! The comparison of instruction counts: it finds what is slower, faster, new or gone, and nothing else; and the
//! committed table holds the kernels that are counted.

#[path = "../../benches/instructions/table.rs"]
mod table;

#[path = "../../benches/instructions/cases.rs"]
mod cases;

use std::collections::BTreeSet;

use table::{Difference, Table};

fn table(counts: &[(&str, u64)]) -> Table {
    let instructions = counts.iter().map(|&(name, count)| (name.to_owned(), count)).collect();
    Table { compiler: "a compiler".into(), instructions }
}

#[test]
fn within_one_percent_is_the_same() {
    let before = table(&[("a", 10_000), ("b", 1), ("c", 0)]);
    for now in [9_900, 10_000, 10_100] {
        assert_eq!(before.differences(&table(&[("a", now), ("b", 1), ("c", 0)])), []);
    }
}

#[test]
fn planted_changes_are_found() {
    let before = table(&[("gemm", 10_000), ("gone", 70), ("same", 300), ("softmax", 10_000)]);
    let now = table(&[("gemm", 10_101), ("new", 5), ("same", 300), ("softmax", 9_899)]);
    let differences = before.differences(&now);
    let changed = |name: &str, now| Difference::Changed { name: name.into(), before: 10_000, now };
    assert_eq!(
        differences,
        [
            changed("gemm", 10_101),
            Difference::Missing { name: "gone".into(), before: 70 },
            changed("softmax", 9_899),
            Difference::Added { name: "new".into(), now: 5 },
        ]
    );
    let lines: Vec<_> = differences.iter().map(|difference| difference.to_string()).collect();
    let has = |line: &str, parts: [&str; 4]| parts.iter().all(|part| line.contains(part));
    assert!(has(&lines[0], ["gemm ", " 10000 ", " 10101 ", "+1.0 %"]), "{}", lines[0]);
    assert!(has(&lines[1], ["gone ", " 70 ", " - ", "no longer counted"]), "{}", lines[1]);
    assert!(has(&lines[2], ["softmax ", " 10000 ", " 9899 ", "-1.0 %"]), "{}", lines[2]);
    assert!(has(&lines[3], ["new ", " - ", " 5 ", "not in the table"]), "{}", lines[3]);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_committed_table_holds_the_kernels_that_are_counted() {
    if !cases::LEVELS.iter().all(|isa| isa.is_available()) {
        return;
    }
    let text = include_str!("../../benches/instructions/table.json");
    let committed: Table = serde_json::from_str(text).unwrap();
    let mut names = BTreeSet::new();
    for mut case in cases::all() {
        (case.run)();
        assert!(names.insert(case.name.clone()), "{} twice", case.name);
    }
    let known: BTreeSet<_> = committed.instructions.into_keys().collect();
    assert_eq!(known, names);
}
