//! Memory of a real model: what a load takes at its peak, and what stays resident once a context is full.
//! In a process of its own, because it looks at the whole process.

use crate::common::{model, process};
use smallmind::model::{LoadParams, Model};
use smallmind::profile::alloc::total_counts;
use smallmind::runtime::{Context, ContextParams, Logits};
use smallmind::threads;

/// Bytes of this process that are in memory and in no file.
#[cfg(target_os = "linux")]
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[cfg(target_os = "linux")]
#[test]
fn a_model_takes_its_weights_and_little_more() {
    let _turn = crate::turn();
    process::alone("memory::a_model_takes_its_weights_and_little_more", load_and_fill);
}

#[cfg(target_os = "linux")]
fn load_and_fill() {
    let path = model::smollm2();
    let before = resident();
    let loaded = Model::open(&path, &LoadParams::default()).unwrap();
    let weights = loaded.weight_bytes() as u64;
    // Beside the packed weights: a chunk for each loading thread, the file's metadata and the vocabulary.
    let others = 2 * (1 << 20) * threads::available() as u64 + (40 << 20);
    let peak = total_counts().peak_bytes;
    let live = total_counts().live_bytes;
    println!("load: {weights} bytes of weights, {peak} at the peak, {live} stay");
    assert!(peak <= weights + others, "{peak} bytes at the peak of a load of {weights}");

    let loaded_resident = resident();
    // The head is the embedding: stored once. Packed, nothing is wider than in the file.
    let file = std::fs::metadata(&path).unwrap().len();
    assert!(weights < file, "{weights} bytes of weights from {file} bytes of file");

    let params = ContextParams::default().with_n_ctx(3072).with_threads(2);
    let estimate = Context::memory(&loaded, &params).unwrap();
    let mut context = Context::new(loaded, &params).unwrap();
    context.decode(&[7; 3072], Logits::Last).unwrap();
    let (taken, planned) = (resident() - before, weights + estimate.total_bytes as u64);
    println!("load: {} bytes resident after it", loaded_resident - before);
    println!("full context: {taken} bytes resident, {planned} planned: {:.3}", taken as f64 / planned as f64);
    assert!(taken as f64 <= 1.1 * planned as f64, "{taken} bytes are resident, {planned} were planned");
}
