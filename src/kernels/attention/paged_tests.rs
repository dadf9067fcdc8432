//! Attention over a cache in pages: stores and reads have the bits of tiles that adjoin, wherever pages stand, and
//! look at no page or entry of the table that a call does not see; parts of the sequence join to the same bits.

use super::tests::{Case, Way, bits, kernels_here, name, tiles};
use super::*;
use crate::kernels::reference;
use std::ops::Range;

/// What the tokens of a case see, the last of which stands at the last key.
#[derive(Clone, Copy, Debug)]
enum Mask {
    /// Up to themselves.
    Causal,
    /// Up to themselves, so many.
    Window(usize),
    /// So many before them, and as many after them.
    Around(usize),
    /// All.
    Full,
}

/// What each token sees.
struct Sights {
    starts: Vec<u32>,
    limits: Vec<u32>,
}

impl Sights {
    fn new(mask: Mask, case: &Case) -> Self {
        let (mut starts, mut limits) = (Vec::new(), Vec::new());
        for position in case.n_kv - case.tokens..case.n_kv {
            let (start, limit) = match mask {
                Mask::Causal => (0, position + 1),
                Mask::Window(n) => ((position + 1).saturating_sub(n), position + 1),
                Mask::Around(n) => (position.saturating_sub(n), (position + n + 1).min(case.n_kv)),
                Mask::Full => (0, case.n_kv),
            };
            starts.push(start as u32);
            limits.push(limit as u32);
        }
        Self { starts, limits }
    }

    /// From the first position that any token sees to the last.
    fn hull(&self) -> Range<usize> {
        let seen = self.starts.iter().zip(&self.limits).filter(|(start, limit)| start < limit);
        seen.fold(None, |hull: Option<Range<usize>>, (&start, &limit)| {
            let (start, limit) = (start as usize, limit as usize);
            Some(hull.map_or(start..limit, |hull| hull.start.min(start)..hull.end.max(limit)))
        })
        .unwrap_or(0..0)
    }

    fn lists(&self) -> (&[u32], Option<&[u32]>) {
        (&self.limits, Some(&self.starts))
    }

    /// What the case's result is, in f64.
    fn reference(&self, case: &Case) -> Vec<f64> {
        let sees = |token: usize, key: usize| {
            (self.starts[token] as usize..self.limits[token] as usize).contains(&key)
        };
        let line =
            |token| (0..case.n_kv).map(move |key| if sees(token, key) { 0.0 } else { f32::NEG_INFINITY });
        let head: Vec<f32> = (0..case.tokens).flat_map(line).collect();
        let shape = reference::Attention {
            n_q: case.tokens,
            n_kv: case.n_kv,
            n_head: case.heads,
            n_head_kv: 1,
            head_dim: case.head_dim,
            scale: f64::from(case.scale()),
            causal: false,
            window: None,
            mask: Some(&head.repeat(case.heads)),
            scores: case.scores,
        };
        reference::attention(&case.q, &case.k, &case.v, &shape)
    }
}

/// A head's cache in a pool of pages, most of which are not the sequence's. All bits of what nobody stored are set:
/// NaN in any type. Entries of the table that nobody may look up are [`NO_PAGE`], one before the first and one
/// behind the last among them: looking one up panics.
struct Paged {
    pool: Vec<u8>,
    layout: Layout,
    /// The table begins at entry 1.
    table: Vec<u32>,
}

impl Paged {
    /// With pages for some positions.
    fn new(layout: Layout, positions: &Range<usize>) -> Self {
        let numbers = positions.start / TILE..positions.end.div_ceil(TILE);
        let (n, pages) = (numbers.len(), Self::pages(numbers.len()));
        let mut table = vec![NO_PAGE; numbers.end + 2];
        for (i, number) in numbers.enumerate() {
            // n + 1 and 2n + 3 have no common factor, so no page comes twice.
            table[1 + number] = ((i * (n + 1) + 2) % pages) as u32;
        }
        Self { pool: vec![0xff; pages * Self::stride(&layout)], layout, table }
    }

    fn pages(tiles: usize) -> usize {
        2 * tiles + 3
    }

    /// Bytes of a page: a tile's keys and values, and room for others' on both sides.
    fn stride(layout: &Layout) -> usize {
        layout.key_tile() + layout.value_tile() + 100
    }

    /// The entry of a tile.
    fn entry(&mut self, number: usize) -> &mut u32 {
        &mut self.table[1 + number]
    }

    /// A page that is no tile's.
    fn spare(&self) -> u32 {
        (0..).find(|page| !self.table.contains(page)).unwrap()
    }

    fn tiles(&mut self) -> (HeadTiles, HeadTiles) {
        let (stride, table) = (Self::stride(&self.layout), self.table[1..].as_ptr());
        let keys = self.pool[52..].as_mut_ptr();
        let values = self.pool[52 + self.layout.key_tile()..].as_mut_ptr();
        (HeadTiles { first: keys, stride, table }, HeadTiles { first: values, stride, table })
    }

    /// A cache that holds some positions of a case: the first half of them stored one by one, the others together.
    fn of(kernel: &Kernel, case: &Case, positions: &Range<usize>) -> Self {
        let mut paged = Self::new(kernel.layout(case.head_dim), positions);
        let middle = positions.start.midpoint(positions.end);
        let mut pieces: Vec<_> = (positions.start..middle).map(|p| p..p + 1).collect();
        pieces.push(middle..positions.end);
        store(kernel, case, paged.tiles(), &pieces);
        paged
    }

    /// The pool that tiles which adjoin make, each copied to its page.
    fn filled(&self, keys: &[u8], values: &[u8]) -> Vec<u8> {
        let (key_tile, value_tile) = (self.layout.key_tile(), self.layout.value_tile());
        let mut pool = vec![0xff; self.pool.len()];
        for (number, &page) in self.table[1..].iter().enumerate().filter(|(_, page)| **page != NO_PAGE) {
            let page = &mut pool[52 + page as usize * Self::stride(&self.layout)..];
            page[..key_tile].copy_from_slice(&keys[number * key_tile..][..key_tile]);
            page[key_tile..][..value_tile].copy_from_slice(&values[number * value_tile..][..value_tile]);
        }
        pool
    }
}

/// Stores positions of a case piece by piece.
fn store(kernel: &Kernel, case: &Case, tiles: (HeadTiles, HeadTiles), pieces: &[Range<usize>]) {
    pieces.iter().for_each(|piece| case.store(kernel, tiles, piece.clone()));
}

/// The result over some tiles.
fn attend(kernel: &Kernel, case: &Case, tiles: (HeadTiles, HeadTiles), sights: &Sights) -> Vec<f32> {
    case.run_seeing(kernel, tiles, 0, sights.lists(), 3, &Way::Whole)
}

/// The result over tiles that adjoin.
fn attend_adjoining(kernel: &Kernel, case: &Case, sights: &Sights) -> Vec<f32> {
    let (mut keys, mut values) = case.cache(kernel);
    let tiles = tiles(&kernel.layout(case.head_dim), &mut keys, &mut values);
    attend(kernel, case, tiles, sights)
}

/// The result from some parts of the sequence, computed in pieces of so many.
fn attend_in_parts(
    kernel: &Kernel,
    case: &Case,
    tiles: (HeadTiles, HeadTiles),
    sights: &Sights,
    parts: Range<usize>,
    length: usize,
) -> Vec<f32> {
    case.run_seeing(kernel, tiles, 0, sights.lists(), 0, &Way::Parts(parts, length))
}

/// The largest error, or infinity where there is NaN.
fn worst(got: &[f32], want: &[f64]) -> f64 {
    let error = |(got, want): (&f32, &f64)| {
        let error = (f64::from(*got) - want).abs();
        if error.is_nan() { f64::INFINITY } else { error }
    };
    assert_eq!(got.len(), want.len());
    got.iter().zip(want).map(error).fold(0.0, f64::max)
}

/// Tokens, keys, heads, head_dim; and masks. By levels: one row, blocks that read as stored, those for which tiles
/// are widened, several passes.
fn cases() -> Vec<(Case, Vec<Mask>)> {
    use Mask::{Around, Causal, Full, Window};
    let masks =
        || vec![Causal, Window(1), Window(100), Window(300), Around(1), Around(32), Around(127), Full];
    let mut cases = Vec::new();
    for (tokens, n_kv, heads, head_dim) in [
        (1, 128, 1, 64),
        (1, 700, 1, 64),
        (1, 513, 3, 80),
        (2, 300, 4, 33),
        (5, 400, 1, 136),
        (7, 640, 4, 64),
        (40, 600, 2, 80),
        (300, 300, 1, 64),
    ] {
        cases.push((Case::new(tokens, n_kv, heads, head_dim, None), masks()));
    }
    // More rows than any level takes in a pass, the last of which see other keys than the first.
    let many = [Causal, Window(20), Around(50), Full];
    cases.push((Case::new(270, 400, 3, 64, None), many.to_vec()));
    cases
}

#[test]
fn pages_have_the_bits_of_tiles_that_adjoin() {
    for (case, masks) in cases() {
        let stored = CacheType::ALL.map(|stored| case.stored(stored));
        for mask in masks {
            let sights = Sights::new(mask, &case);
            let wanted = stored.each_ref().map(|stored| sights.reference(stored));
            for kernel in kernels_here() {
                let what = format!(
                    "{}: {} tokens, {} keys, {} heads of {}, {mask:?}",
                    name(&kernel),
                    case.tokens,
                    case.n_kv,
                    case.heads,
                    case.head_dim
                );
                let want = attend_adjoining(&kernel, &case, &sights);
                let got = attend(&kernel, &case, Paged::of(&kernel, &case, &sights.hull()).tiles(), &sights);
                assert_eq!(bits(&got), bits(&want), "{what}");
                let error = worst(&got, &wanted[kernel.stored as usize]);
                assert!(error <= case.bound(), "{what}: an error of {error}");
            }
        }
    }
}

#[test]
fn stores_fill_their_pages_and_touch_no_other() {
    let n_kv = 420;
    let pieces: [Vec<Range<usize>>; 5] = [
        vec![0..0, 0..n_kv],
        (0..n_kv).map(|p| p..p + 1).collect(),
        vec![0..70, 70..300, 300..301, 301..n_kv],
        vec![130..131, 200..290, 131..200],
        vec![300..n_kv, n_kv..n_kv],
    ];
    for head_dim in [5, 64, 80, 136] {
        let case = Case::new(1, n_kv, 1, head_dim, None);
        for kernel in kernels_here() {
            let layout = kernel.layout(head_dim);
            for pieces in &pieces {
                let start = pieces.iter().map(|piece| piece.start).min().unwrap();
                let end = pieces.iter().map(|piece| piece.end).max().unwrap();
                let mut keys = vec![0xff; n_kv.div_ceil(TILE) * layout.key_tile()];
                let mut values = vec![0xff; n_kv.div_ceil(TILE) * layout.value_tile()];
                store(&kernel, &case, tiles(&layout, &mut keys, &mut values), pieces);
                let mut paged = Paged::new(layout, &(start..end));
                store(&kernel, &case, paged.tiles(), pieces);
                let same = paged.pool == paged.filled(&keys, &values);
                assert!(same, "{}: heads of {head_dim}, {pieces:?}", name(&kernel));
            }
        }
    }
}

/// The planted fault: an entry that names another page of finite keys or values, or a table that is not read.
#[test]
fn a_wrong_page_changes_the_result() {
    for (tokens, heads) in [(1, 1), (40, 2)] {
        let case = Case::new(tokens, 300, heads, 64, None);
        let other = Case::new(tokens + 1, 300, heads, 64, None);
        let sights = Sights::new(Mask::Full, &case);
        for kernel in kernels_here() {
            let want = sights.reference(&case.stored(kernel.stored));
            let mut paged = Paged::of(&kernel, &case, &sights.hull());
            for number in 0..3 {
                let (page, spare) = (*paged.entry(number), paged.spare());
                *paged.entry(number) = spare;
                let tile = number * TILE..300.min((number + 1) * TILE);
                store(&kernel, &other, paged.tiles(), std::slice::from_ref(&tile));
                let wrong = paged.table.clone();
                *paged.entry(number) = page;
                let (keys, values) = paged.tiles();
                let misled = |tiles: HeadTiles| HeadTiles { table: wrong[1..].as_ptr(), ..tiles };
                assert!(worst(&attend(&kernel, &case, (keys, values), &sights), &want) <= case.bound());
                for tiles in [(misled(keys), values), (keys, misled(values))] {
                    let error = worst(&attend(&kernel, &case, tiles, &sights), &want);
                    assert!(error > case.bound(), "{}: page {spare} for tile {number}", name(&kernel));
                }
            }
            let (keys, values) = paged.tiles();
            let ignored = |tiles: HeadTiles| HeadTiles { table: null(), ..tiles };
            let error = worst(&attend(&kernel, &case, (ignored(keys), ignored(values)), &sights), &want);
            assert!(error > case.bound(), "{}: no table", name(&kernel));
        }
    }
}

/// The other planted fault: a token that sees a position whose page was released.
#[test]
#[cfg(debug_assertions)]
#[should_panic(expected = "has no page")]
fn looking_up_no_page_would_be_seen() {
    let case = Case::new(1, 300, 1, 64, None);
    let kernel = kernels_here().next().unwrap();
    let mut paged = Paged::of(&kernel, &case, &(0..300));
    *paged.entry(1) = NO_PAGE;
    attend(&kernel, &case, paged.tiles(), &Sights::new(Mask::Causal, &case));
}

#[test]
fn parts_join_from_the_first_that_is_seen() {
    let n_kv: usize = 900;
    // Seen from the middle of a part's first tile, and of its second; from an edge of a part, of a tile, and round
    // it; in one part only; nothing.
    let starts = [300, 400, 511, 512, 513, 384, 5, 800, 899, 900];
    for (tokens, heads, head_dim) in [(1, 1, 64), (1, 3, 80), (1, 9, 64), (3, 2, 33), (30, 1, 64)] {
        let case = Case::new(tokens, n_kv, heads, head_dim, None);
        for mask in starts.map(|start| Mask::Window(n_kv - start)) {
            let sights = Sights::new(mask, &case);
            let hull = sights.hull();
            let seen = hull.start / PART..hull.end.div_ceil(PART);
            for kernel in kernels_here() {
                let want = attend_adjoining(&kernel, &case, &sights);
                let mut paged = Paged::of(&kernel, &case, &hull);
                let mut same = |parts: Range<usize>, length| {
                    let what = format!("{}: {tokens} tokens, {mask:?}, {parts:?} by {length}", name(&kernel));
                    let got = attend_in_parts(&kernel, &case, paged.tiles(), &sights, parts, length);
                    assert_eq!(bits(&got), bits(&want), "{what}");
                };
                for length in [1, 2, 3] {
                    same(seen.clone(), length);
                }
                same(0..seen.end, 1);
                same(seen.start.saturating_sub(1)..seen.end + 2, 2);
            }
        }
    }
}

/// The planted fault: the first part that is seen is left out.
#[test]
fn a_part_too_few_changes_the_result() {
    let case = Case::new(1, 900, 3, 64, None);
    let sights = Sights::new(Mask::Window(500), &case);
    for kernel in kernels_here() {
        let mut paged = Paged::of(&kernel, &case, &sights.hull());
        let got = attend_in_parts(&kernel, &case, paged.tiles(), &sights, 2..4, 1);
        assert!(
            worst(&got, &sights.reference(&case.stored(kernel.stored))) > case.bound(),
            "{}",
            name(&kernel)
        );
    }
}
