//! An embedder's call allocates nothing once an earlier one had as many tokens, on any thread and with either strategy.
//! (Texts are tokenized by libraries that allocate, so these calls have tokens.) In a process of its own, because it counts
//! what the whole process allocates.

use crate::allocations;
use crate::common::{embedders, process};
use smallmind::embed::{Embedder, EmbedderParams, LongTexts, Results, Strategy, TextStatus};
use smallmind::profile;
use smallmind::profile::alloc::total_counts;

#[test]
fn a_batch_allocates_nothing() {
    let _turn = crate::turn();
    process::alone("embed_alloc::a_batch_allocates_nothing", count_everything);
}

fn count_everything() {
    let model = embedders::bare("bert-mean");
    // More than a window, most of them short.
    let lengths = (0..5000).map(|i| if i % 10 == 0 { 1 + i / 10 * 7 % 60 } else { 1 });
    let spans: Vec<Vec<u32>> = lengths.map(|len| (0..len as u32).collect()).collect();
    let spans: Vec<&[u32]> = spans.iter().map(Vec::as_slice).collect();
    let (mut rows, mut statuses) = (vec![0.0; spans.len() * 64], vec![TextStatus::NotDone; spans.len()]);
    for strategy in [Strategy::Fine, Strategy::Coarse, Strategy::Auto] {
        let params = EmbedderParams::default()
            .with_threads(3)
            .with_strategy(strategy)
            .with_n_ctx(50)
            .with_long_texts(LongTexts::Split);
        let mut embedder = Embedder::new(model.clone(), &params).unwrap();
        let mut run = |spans: &[&[u32]]| {
            let mut results = Results::new(&mut rows, 64, &mut statuses);
            embedder.embed_tokens(spans, &mut results).unwrap();
        };
        profile::set_enabled(true);
        run(&spans);
        run(&spans);
        for enabled in [false, true] {
            profile::set_enabled(enabled);
            assert_eq!(allocations(|| run(&spans)), 0, "{strategy:?}");
            assert_eq!(allocations(|| run(&spans[..7])), 0, "{strategy:?}, a few");
        }
        profile::set_enabled(false);
        // The guard sees a single planted one, and what a larger batch takes.
        assert!(allocations(|| drop(std::hint::black_box(Box::new(1)))) > 0);
        let longest = spans.iter().copied().max_by_key(|span| span.len()).unwrap();
        let larger = vec![longest; spans.len()];
        let before = total_counts().count;
        run(&larger);
        assert!(total_counts().count > before, "{strategy:?}, a larger batch");
    }
}
