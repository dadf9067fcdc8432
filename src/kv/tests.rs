//! The accounts of pages, and the index of prefixes: texts with the same hash are told apart, and what was used least
//! recently goes first.

use super::*;
use crate::kernels::attention::NO_PAGE;

impl Cache {
    /// Checks that uses, holds and free pages add up.
    pub(crate) fn audit(&self) {
        for (group, pool) in self.pools.iter().enumerate() {
            let mut uses = vec![0; pool.total()];
            for sequence in &self.sequences {
                let pages = sequence.tables[group].pages();
                assert!(sequence.alive || pages.is_empty());
                assert_eq!(pages.len(), sequence.len.div_ceil(TILE), "as many pages as positions fill");
                let first = sequence.tables[group].first();
                assert!(pages[..first].iter().all(|&page| page == NO_PAGE));
                pages[first..].iter().for_each(|&page| uses[page as usize] += 1);
            }
            pool.audit(&uses);
        }
        if let Some(index) = &self.index {
            index.audit(&self.pools);
        }
    }

    /// The key of a position, all heads of a layer, and the bytes of its value.
    pub(crate) fn stored(&self, id: LayerId, sequence: SequenceId, position: usize) -> (Vec<f32>, Vec<u8>) {
        let (pool, slot) = (&self.pools[id.group], sequence.slot as usize);
        let page = pool.bytes(self.sequences[slot].tables[id.group].pages()[position / TILE]);
        let heads = pool.group().n_head_kv;
        removal::read(
            pool.group().layout,
            position % TILE,
            (0..heads).map(|head| {
                let head = id.layer * heads + head;
                &page[head * pool.head_len()..][..pool.head_len()]
            }),
        )
    }

    /// Whether every page of every group is free for sequences.
    pub(crate) fn is_free(&self) -> bool {
        self.pools.iter().all(|pool| pool.available() == pool.total())
    }
}

fn group(reach: Option<usize>) -> Group {
    let layout = Layout { stored: CacheType::F32, head_dim: 4, nr: 16, value_step: 16 };
    Group { layers: 2, n_head_kv: 1, layout, reach }
}

fn cache(n_positions: usize, reach: Option<usize>) -> Cache {
    let groups = vec![group(None), group(reach)];
    let (n_sequences, n_ctx, n_batch) = (4, 8 * TILE, 2 * TILE);
    Cache::new(Shape { groups, state_bytes: 0, n_sequences, n_ctx, n_positions, n_batch, prefix_index: true })
        .unwrap()
}

/// Pages of tokens: each page is filled with one number.
fn text(pages: &[u32]) -> Vec<u32> {
    pages.iter().flat_map(|&page| [page; TILE]).collect()
}

fn grow(cache: &mut Cache, id: SequenceId, rows: usize) -> Result<()> {
    cache.reserve([(id, cache.len(id)?, rows)].into_iter())?;
    cache.advance(id);
    cache.audit();
    Ok(())
}

/// A sequence with this text, which the index knows afterwards.
fn indexed(cache: &mut Cache, tokens: &[u32]) -> SequenceId {
    let (id, known) = cache.create_with_prefix(tokens).unwrap();
    for _ in 0..(tokens.len() - known).div_ceil(TILE) {
        let rows = TILE.min(tokens.len() - cache.len(id).unwrap());
        grow(cache, id, rows).unwrap();
        cache.index_prefix(id, tokens).unwrap();
    }
    cache.audit();
    id
}

fn remove(cache: &mut Cache, id: SequenceId) {
    cache.remove(id).unwrap();
    cache.audit();
}

#[test]
fn a_text_is_found_again_by_whole_pages_up_to_its_last_token() {
    let mut cache = cache(8 * TILE, None);
    let tokens = text(&[1, 2, 3]);
    let id = indexed(&mut cache, &tokens);
    assert_eq!(cache.known_prefix(&tokens), 2 * TILE, "the last token is computed");
    assert_eq!(cache.known_prefix(&text(&[1, 2, 3, 4])), 3 * TILE);
    assert_eq!(cache.known_prefix(&text(&[1, 3])), TILE);
    assert_eq!(cache.known_prefix(&text(&[2, 3])), 0, "a page is known behind its own text only");
    assert_eq!(cache.known_prefix(&tokens[..TILE]), 0);
    assert_eq!(cache.known_prefix(&[]), 0);
    remove(&mut cache, id);
    assert_eq!(cache.known_prefix(&text(&[1, 2, 3, 4])), 3 * TILE, "and after it has ended");
    let pages = cache.pages();
    assert_eq!((pages.free, pages.kept), (pages.total, 3));
    let (again, known) = cache.create_with_prefix(&text(&[1, 2, 9])).unwrap();
    cache.audit();
    assert_eq!((known, cache.len(again).unwrap()), (2 * TILE, 2 * TILE));
    assert_eq!((cache.pages().free, cache.pages().kept), (pages.total - 2, 1));
    cache.clear_prefixes();
    cache.audit();
    assert_eq!(cache.known_prefix(&tokens), 0);
    assert_eq!((cache.pages().free, cache.pages().kept), (pages.total - 2, 0), "the sequence has its pages");
    remove(&mut cache, again);
    assert!(cache.is_free());
}

#[test]
fn texts_with_the_same_hash_are_told_apart() {
    let mut cache = cache(8 * TILE, None);
    cache.index = Some(Index::with_hash(16, 2, Box::new(|_, _| 7)).unwrap());
    let ids = [text(&[1, 2]), text(&[2, 1]), text(&[1, 1])].map(|tokens| indexed(&mut cache, &tokens));
    for (tokens, known) in [([1, 2, 0], 2), ([2, 1, 0], 2), ([1, 1, 0], 2), ([2, 2, 0], 1), ([3, 1, 0], 0)] {
        assert_eq!(cache.known_prefix(&text(&tokens)), known * TILE, "{tokens:?}");
    }
    // A node is taken out of the middle of its bucket's list.
    let table = &cache.sequences[ids[1].slot as usize].tables[0];
    let holder = cache.pools[0].holder(table.pages()[1]).unwrap();
    cache.index.as_mut().unwrap().remove(&mut cache.pools, holder);
    cache.audit();
    assert_eq!(cache.known_prefix(&text(&[2, 1, 0])), TILE);
    assert_eq!(cache.known_prefix(&text(&[1, 1, 0])), 2 * TILE);
}

#[test]
fn sequences_that_computed_the_same_share_it_afterwards() {
    let mut cache = cache(8 * TILE, None);
    let tokens = text(&[1, 2, 3]);
    let ids = [(); 2].map(|()| cache.create().unwrap());
    for id in ids {
        grow(&mut cache, id, 2 * TILE).unwrap();
        grow(&mut cache, id, 2).unwrap();
    }
    let free = cache.pages().free;
    ids.iter().for_each(|&id| cache.index_prefix(id, &tokens[..2 * TILE + 2]).unwrap());
    cache.audit();
    assert_eq!(cache.pages().free, free + 2);
    assert_eq!(ids.map(|id| cache.pages_freed(id).unwrap()), [1, 1], "the page that isn't whole");
}

#[test]
fn pages_go_when_they_are_needed_the_least_recently_used_first() {
    // Seven pages: four, and one more for each other sequence.
    let mut cache = cache(4 * TILE, None);
    assert_eq!(cache.pages().total, 7);
    for tokens in [text(&[1, 2, 3]), text(&[4, 5, 6])] {
        let id = indexed(&mut cache, &tokens);
        remove(&mut cache, id);
    }
    // Uses the first text again.
    let (first, _) = cache.create_with_prefix(&text(&[1, 2, 0])).unwrap();
    remove(&mut cache, first);
    let id = cache.create().unwrap();
    let known =
        |cache: &Cache| [[1, 2, 3, 0], [4, 5, 6, 0]].map(|tokens| cache.known_prefix(&text(&tokens)) / TILE);
    for expected in [[3, 3], [2, 3], [2, 2], [2, 1], [2, 0], [1, 0], [0, 0]] {
        grow(&mut cache, id, TILE).unwrap();
        assert_eq!(known(&cache), expected);
    }
    let error = grow(&mut cache, id, 1).unwrap_err();
    assert!(matches!(error, Error::ContextFull { .. }), "{error}");
    assert_eq!(cache.len(id).unwrap(), 7 * TILE);
    remove(&mut cache, id);
    assert!(cache.is_free());
}

#[test]
fn where_a_window_has_lost_its_pages_less_is_known() {
    let mut cache = cache(8 * TILE, Some(TILE + 1));
    let tokens = text(&[1, 2, 3, 4, 5]);
    let id = cache.create().unwrap();
    (0..4).for_each(|_| grow(&mut cache, id, TILE).unwrap());
    cache.index_prefix(id, &tokens[..4 * TILE]).unwrap();
    cache.audit();
    // The row at position 4 · TILE sees page 3, that at 3 · TILE sees page 2, which was released.
    assert_eq!(cache.known_prefix(&tokens), 4 * TILE);
    assert_eq!(cache.known_prefix(&text(&[1, 2, 3, 9])), 0);
    remove(&mut cache, id);
    let (id, known) = cache.create_with_prefix(&tokens).unwrap();
    cache.audit();
    assert_eq!(known, 4 * TILE);
    assert!(cache.fork(id, 2 * TILE).unwrap_err().to_string().contains("window"));
    let fork = cache.fork(id, 4 * TILE).unwrap();
    cache.audit();
    [id, fork].iter().for_each(|&id| grow(&mut cache, id, 2 * TILE).unwrap());
}

#[test]
fn a_page_is_copied_only_while_others_have_it() {
    let mut cache = cache(4 * TILE, None);
    let id = cache.create().unwrap();
    grow(&mut cache, id, TILE + 10).unwrap();
    let forks = [TILE + 10, TILE + 3].map(|n| cache.fork(id, n).unwrap());
    cache.audit();
    let all = [id, forks[0], forks[1]];
    assert_eq!(cache.pages().free, 5, "shared");
    assert_eq!(all.map(|id| cache.pages_needed(id, 1).unwrap()), [1; 3]);
    assert_eq!(all.map(|id| cache.pages_freed(id).unwrap()), [0; 3]);
    let page = |cache: &Cache, id: SequenceId| cache.sequences[id.slot as usize].tables[0].pages()[1];
    let shared = page(&cache, id);
    cache.pools[0].bytes_mut(shared).iter_mut().enumerate().for_each(|(i, byte)| *byte = (i % 251) as u8);
    // All go on in one batch: the last one keeps the page.
    let lens = all.map(|id| cache.len(id).unwrap());
    cache.reserve(all.into_iter().zip(lens).map(|(id, len)| (id, len, 1))).unwrap();
    all.iter().for_each(|&id| cache.advance(id));
    cache.audit();
    assert_eq!(cache.pages().free, 3);
    assert_eq!(page(&cache, forks[1]), shared);
    for id in [id, forks[0]] {
        assert_ne!(page(&cache, id), shared);
        assert!(cache.pools[0].bytes(page(&cache, id)) == cache.pools[0].bytes(shared), "a copy");
    }
    assert_eq!(all.map(|id| cache.pages_needed(id, 1).unwrap()), [0; 3]);
    assert_eq!(cache.pages_needed(id, TILE).unwrap(), 1);
    assert!(cache.pages_needed(id, 8 * TILE).is_err());
    assert!(cache.fork(id, 2 * TILE).unwrap_err().to_string().contains("only 139 positions"));
    cache.fork(id, 0).unwrap();
    assert!(cache.fork(id, 1).unwrap_err().to_string().contains("4 sequences already"));
    cache.audit();
}

#[test]
fn a_batch_without_enough_pages_changes_nothing() {
    let mut cache = cache(TILE, None);
    // Four pages: one, and one more for each other sequence.
    let ids = [(); 2].map(|()| cache.create().unwrap());
    ids.iter().for_each(|&id| grow(&mut cache, id, 100).unwrap());
    let fork = cache.fork(ids[0], 100).unwrap();
    let before = cache.pages();
    let spans = [(ids[0], 100, 1), (ids[1], 100, 100), (fork, 100, 100)];
    let error = cache.reserve(spans.into_iter()).unwrap_err();
    assert!(matches!(error, Error::ContextFull { .. }), "{error}");
    cache.audit();
    assert_eq!(cache.pages(), before);
    let twice = [(ids[0], 100, 1), (ids[0], 100, 1)];
    assert!(cache.reserve(twice.into_iter()).unwrap_err().to_string().contains("same sequence"));
    cache.audit();
    // One page is left: enough for both sequences of a shared page, since the second one keeps it.
    grow(&mut cache, ids[1], 100).unwrap();
    assert_eq!(cache.pages().free, 1);
    cache.reserve([(ids[0], 100, 1), (fork, 100, 1)].into_iter()).unwrap();
    [ids[0], fork].iter().for_each(|&id| cache.advance(id));
    cache.audit();
    assert_eq!(cache.pages().free, 0);
}

#[test]
fn an_index_never_keeps_a_page_from_its_own_sequence() {
    let mut cache = cache(TILE, None);
    let id = indexed(&mut cache, &text(&[1, 2, 3, 4]));
    assert_eq!(cache.pages().free, 0);
    cache.rewind(id, TILE + 5).unwrap();
    assert_eq!((cache.pages().free, cache.pages_needed(id, 5).unwrap()), (2, 0));
    grow(&mut cache, id, 5).unwrap();
    assert_eq!(cache.known_prefix(&text(&[1, 2, 3])), TILE, "what is overwritten isn't known any more");
    assert_eq!(cache.pages().free, 2);
}
