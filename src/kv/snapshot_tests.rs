//! Snapshots come back byte for byte; whatever was cut off, changed or made elsewhere is refused and changes nothing.

use super::*;
use crate::format::BytesSource;
use crate::kernels::attention::NO_PAGE;

const TAGS: Tags = Tags { shape: 1, weights: 2, numerics: 3 };
const STATE: usize = 24;
/// The text of the error of a sequence that is too long.
const FULL: &str = "positions; ";

/// A cache with a group of all positions and one with a window, full of bytes that differ for each seed.
fn cache(stored: CacheType, n_ctx: usize, seed: u64) -> Cache {
    let layout = Layout { stored, head_dim: 20, nr: 16, value_step: 16 };
    let group = |reach| Group { layers: 2, n_head_kv: 2, layout, reach };
    let mut cache = Cache::new(Shape {
        groups: vec![group(None), group(Some(TILE + 2))],
        state_bytes: STATE,
        n_sequences: 2,
        n_ctx,
        n_positions: n_ctx,
        n_batch: TILE,
        prefix_index: false,
    })
    .unwrap();
    let mut random = seed;
    let mut next = || {
        random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
        (random >> 56) as u8
    };
    for pool in &mut cache.pools {
        for page in 0..pool.total() as u32 {
            pool.bytes_mut(page).fill_with(&mut next);
        }
    }
    cache
}

/// A sequence of `n` positions with a copy of its state at an earlier one, and its tokens.
fn grown(cache: &mut Cache, n: usize) -> (SequenceId, Vec<u32>) {
    let id = cache.create().unwrap();
    let slot = id.slot as usize;
    while cache.len(id).unwrap() < n {
        let len = cache.len(id).unwrap();
        cache.states.restored(slot, None).0.fill(len as u8 + 1);
        cache.keep(id).unwrap();
        cache.reserve([(id, len, (n - len).min(50))].into_iter()).unwrap();
        cache.advance(id);
    }
    cache.states.restored(slot, cache.kept(id).unwrap()).0.fill(77);
    (id, (0..n as u32).map(|i| i * i + 7).collect())
}

fn saved(cache: &Cache, id: SequenceId, tokens: &[u32]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut append = |more: &[u8]| {
        bytes.extend_from_slice(more);
        Ok(())
    };
    cache.save(id, tokens, TAGS, &mut append).unwrap();
    assert_eq!(bytes.len() as u64, cache.snapshot_bytes(id, !tokens.is_empty()).unwrap());
    bytes
}

fn restore(cache: &mut Cache, bytes: &[u8]) -> Result<(SequenceId, Vec<u32>)> {
    let (source, mut tokens) = (BytesSource::new("a snapshot", bytes.to_vec()), vec![9]);
    let checked = cache.check_snapshot(TAGS, &source);
    let restored = cache.restore(TAGS, &source, &mut tokens);
    cache.audit();
    match &restored {
        Ok(_) => drop(checked.unwrap()),
        Err(_) => assert_eq!(tokens, [9]),
    }
    restored.map(|id| (id, tokens))
}

#[test]
fn a_restored_sequence_is_the_saved_one() {
    for stored in CacheType::ALL {
        for n in [0, 1, 50, TILE, TILE + 1, 3 * TILE + 77, 4 * TILE] {
            let mut from = cache(stored, 4 * TILE, 1);
            let (id, tokens) = grown(&mut from, n);
            for tokens in [&tokens[..], &[]] {
                let bytes = saved(&from, id, tokens);
                let mut to = cache(stored, 4 * TILE, 2);
                let (restored, read) = restore(&mut to, &bytes).unwrap();
                assert_eq!(read, tokens);
                assert_eq!((to.len(restored).unwrap(), to.kept(restored).unwrap()), {
                    (n, from.kept(id).unwrap().filter(|_| n > 0))
                });
                assert!(saved(&to, restored, tokens) == bytes, "{stored:?}, {n} positions");
                let table = &to.sequences[restored.slot as usize].tables[1];
                let first = to.pools[1].group().first_page(n);
                let gone = table.pages().iter().take_while(|&&page| page == NO_PAGE).count();
                assert_eq!(gone, first.min(table.pages().len()), "of a window, only pages that are seen");
                to.remove(restored).unwrap();
                assert!(to.is_free());
            }
        }
    }
}

#[test]
fn a_snapshot_has_nothing_of_other_sequences() {
    let mut cache = cache(CacheType::Q8_0, 2 * TILE, 1);
    let (id, tokens) = grown(&mut cache, TILE + 20);
    let bytes = saved(&cache, id, &tokens);
    for group in 0..2 {
        let page = cache.sequences[id.slot as usize].tables[group].pages()[1];
        let pool = &mut cache.pools[group];
        let (layout, head) = (pool.group().layout, pool.head_len());
        for place in pool.bytes_mut(page).chunks_mut(head) {
            let mut filled = vec![false; head];
            layout.filled(20, &mut |range| filled[range].fill(true));
            place.iter_mut().zip(filled).filter(|(_, filled)| !filled).for_each(|(byte, _)| *byte ^= 0xff);
        }
    }
    assert!(saved(&cache, id, &tokens) == bytes);
}

#[test]
fn what_is_cut_off_or_changed_is_refused() {
    let mut from = cache(CacheType::F16, 2 * TILE, 1);
    let (id, tokens) = grown(&mut from, TILE + 3);
    let bytes = saved(&from, id, &tokens);
    let mut to = cache(CacheType::F16, 2 * TILE, 2);
    let mut refused = |bytes: &[u8], why: &str| {
        let error = restore(&mut to, bytes).unwrap_err();
        assert!(error.to_string().contains(why) && matches!(error, Error::Format(_)), "{error:?}");
        assert!(to.is_free());
        to.create().map(|id| to.remove(id).unwrap()).unwrap();
    };
    for len in [0, 1, 79] {
        refused(&bytes[..len], "too short");
    }
    for len in [80, 81, bytes.len() / 2, bytes.len() - 1] {
        refused(&bytes[..len], &format!("{len} bytes, of a snapshot of {}", bytes.len()));
    }
    let mut longer = bytes.clone();
    longer.push(0);
    refused(&longer, "of a snapshot of");
    for at in (0..80).chain((80..bytes.len()).step_by(501)).chain([bytes.len() - 1]) {
        let mut changed = bytes.clone();
        changed[at] ^= 4;
        let why = match at {
            0..8 => "no snapshot",
            8..12 => "version",
            12..80 => "header is damaged",
            _ => "checksum",
        };
        refused(&changed, why);
    }
    restore(&mut to, &bytes).unwrap();
}

/// The bytes with another header, whose checksum is right.
fn with_header(bytes: &[u8], at: usize, value: u64, len: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at..at + len].copy_from_slice(&value.to_le_bytes()[..len]);
    let sum = crc32fast::hash(&bytes[..76]).to_le_bytes();
    bytes[76..80].copy_from_slice(&sum);
    bytes
}

#[test]
fn a_header_is_not_believed() {
    let mut from = cache(CacheType::F16, 2 * TILE, 1);
    let (id, tokens) = grown(&mut from, TILE + 3);
    let bytes = saved(&from, id, &tokens);
    let mut to = cache(CacheType::F16, 2 * TILE, 2);
    let mut refused = |at: usize, value: u64, len: usize, why: &str| {
        let error = restore(&mut to, &with_header(&bytes, at, value, len)).unwrap_err().to_string();
        assert!(error.contains(why), "{at}: {error}");
        assert!(to.is_free());
    };
    refused(12, 0, 4, "a model of another shape");
    refused(16, 0, 4, "other weights");
    refused(20, 0, 4, "other rotary scaling or activations");
    refused(24, 0, 4, "f32 keys and values; the cache has f16");
    refused(24, 77, 4, "unknown keys and values");
    refused(28, 0, 4, "another instruction set");
    refused(32, u64::MAX, 8, FULL);
    refused(32, 2 * TILE as u64 + 1, 8, FULL);
    refused(32, 1, 8, "contradicts itself");
    refused(40, u64::MAX, 8, "contradicts itself");
    refused(48, u64::MAX, 8, "another instruction set");
    refused(56, 10_000, 8, "contradicts itself");
    refused(64, u64::MAX, 8, "contradicts itself");
    assert_eq!(with_header(&bytes, 32, TILE as u64 + 3, 8), bytes, "the places are right");
}

#[test]
fn a_cache_without_room_refuses_it() {
    let mut from = cache(CacheType::F16, 4 * TILE, 1);
    let (id, tokens) = grown(&mut from, 3 * TILE);
    let bytes = saved(&from, id, &tokens);
    let mut small = cache(CacheType::F16, 2 * TILE, 2);
    assert!(matches!(restore(&mut small, &bytes).unwrap_err(), Error::ContextFull { .. }));
    // One more page than positions ask for: two are free while another sequence has three.
    let mut full = cache(CacheType::F16, 4 * TILE, 2);
    let (other, _) = grown(&mut full, 3 * TILE);
    assert!(matches!(restore(&mut full, &bytes).unwrap_err(), Error::ContextFull { .. }));
    assert_eq!(full.len(other).unwrap(), 3 * TILE);
    full.rewind(other, 0).unwrap();
    restore(&mut full, &bytes).unwrap();
    let (none, _) = grown(&mut from, 0);
    let empty = saved(&from, none, &[]);
    assert!(restore(&mut full, &empty).unwrap_err().to_string().contains("2 sequences already"));
    assert!(from.save(id, &tokens[1..], TAGS, &mut |_| Ok(())).is_err());
    let stopped = from.save(id, &tokens, TAGS, &mut |_| Err(Error::invalid("full")));
    assert!(stopped.unwrap_err().to_string().contains("full"));
}
