//! A sequence as bytes: written straight from its pages and read straight into new ones. Only filled positions are
//! written, so a snapshot has nothing of other sequences, and the same sequence gives the same bytes.
//!
//! A header of 80 bytes, integers in little-endian order: the magic number, the version, tags of what the keys and values
//! depend on ([`Tags`], and the layout of pages), the number of positions, the number of tokens (as many, or none), bytes of
//! a state, the position of its copy, bytes of all that follows, and a checksum of the header. Then come the tokens, the
//! state, its copy, the pages of each group, and a checksum of all. Whatever is wrong with the header is found before
//! anything is reserved.

use super::pages::Pool;
use super::{Cache, SequenceId, TILE, WHAT};
use crate::error::{Error, Result};
use crate::format::ByteSource;
use crate::kernels::attention::CacheType;
use crate::memory::reserve::{reserve, with_room};
use crate::text::escaped;

/// The first bytes of a snapshot.
const MAGIC: [u8; 8] = *b"smallkv\0";
/// The version of the format. Another one has another number, also where its header is longer.
const VERSION: u32 = 1;
/// Bytes of the header.
const HEADER: usize = 80;
/// Bytes of a checksum.
const CHECKSUM: u64 = 4;
/// Bytes that are checked, or tokens' bytes that are read, at a time.
const CHUNK: usize = 1 << 16;
/// The position of a copy that isn't there.
const NO_COPY: u64 = u64::MAX;

/// Takes a snapshot's bytes, in their order.
pub type Sink<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;

/// What the keys and values of a sequence depend on besides its tokens, as checksums: a snapshot is only restored where
/// all are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tags {
    /// The model's computation: its graph with all shapes and factors.
    pub shape: u32,
    /// The model's weights.
    pub weights: u32,
    /// How the engine computes: rotary tables, activations.
    pub numerics: u32,
}

/// The header of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Header {
    tags: Tags,
    /// The element type, by its place in [`CacheType::ALL`].
    kv: u32,
    /// The layout of pages.
    layout: u32,
    positions: u64,
    tokens: u64,
    state: u64,
    copy: u64,
    body: u64,
}

impl Header {
    fn bytes(&self) -> [u8; HEADER] {
        let Header { tags, kv, layout, positions, tokens, state, copy, body } = *self;
        let mut bytes = [0; HEADER];
        bytes[..8].copy_from_slice(&MAGIC);
        let words = [VERSION, tags.shape, tags.weights, tags.numerics, kv, layout];
        let longs = [positions, tokens, state, copy, body];
        let words = words.iter().flat_map(|word| word.to_le_bytes());
        let fields = words.chain(longs.iter().flat_map(|long| long.to_le_bytes()));
        bytes[8..].iter_mut().zip(fields).for_each(|(byte, field)| *byte = field);
        let sum = crc32fast::hash(&bytes[..HEADER - 4]).to_le_bytes();
        bytes[HEADER - 4..].copy_from_slice(&sum);
        bytes
    }

    /// The header in these bytes, or why it is none.
    fn parse(bytes: &[u8; HEADER]) -> Result<Header, String> {
        let word = |at: usize| bytes[at..].first_chunk().map_or(0, |word| u32::from_le_bytes(*word));
        let long = |i: usize| bytes[32 + 8 * i..].first_chunk().map_or(0, |long| u64::from_le_bytes(*long));
        if !bytes.starts_with(&MAGIC) {
            return Err("no snapshot of a sequence".into());
        }
        if word(8) != VERSION {
            return Err(format!("a snapshot of version {}; this library reads version {VERSION}", word(8)));
        }
        if crc32fast::hash(&bytes[..HEADER - 4]) != word(HEADER - 4) {
            return Err("the snapshot's header is damaged".into());
        }
        let tags = Tags { shape: word(12), weights: word(16), numerics: word(20) };
        let [positions, tokens, state, copy, body] = [0, 1, 2, 3, 4].map(long);
        Ok(Header { tags, kv: word(24), layout: word(28), positions, tokens, state, copy, body })
    }
}

/// A source that is read from its beginning to its end, and summed.
struct Reader<'a> {
    source: &'a dyn ByteSource,
    at: u64,
    sum: crc32fast::Hasher,
}

impl Reader<'_> {
    fn read(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.source.read_at(self.at, bytes)?;
        self.at += bytes.len() as u64;
        self.sum.update(bytes);
        Ok(())
    }

    /// Compares the sum with the one at the end.
    fn end(self) -> Result<()> {
        let mut sum = [0; CHECKSUM as usize];
        self.source.read_at(self.at, &mut sum)?;
        match self.sum.finalize() == u32::from_le_bytes(sum) {
            true => Ok(()),
            false => Err(damaged(self.source, "the snapshot is damaged: its checksum is another one")),
        }
    }
}

/// The error about a source's contents.
fn damaged(source: &dyn ByteSource, what: &str) -> Error {
    Error::format(format!("{}: {what}", escaped(source.name())))
}

/// The error about a snapshot that belongs elsewhere.
fn foreign(source: &dyn ByteSource, what: &str) -> Error {
    Error::invalid(format!("{}: {what}", escaped(source.name())))
}

/// The pages of a sequence of so many positions in a group: each entry, and its number of filled positions.
fn entries(pool: &Pool, positions: usize) -> impl Iterator<Item = (usize, usize)> + use<> {
    let first = pool.group().first_page(positions);
    (first..positions.div_ceil(TILE)).map(move |entry| (entry, (positions - entry * TILE).min(TILE)))
}

impl Cache {
    /// The checksum of what the layout of pages depends on.
    fn layout_tag(&self) -> u32 {
        let mut sum = crc32fast::Hasher::new();
        // Elements are stored in the machine's order of bytes.
        sum.update(&1u32.to_ne_bytes());
        for pool in &self.pools {
            let group = pool.group();
            let layout = &group.layout;
            let reach = group.reach.map_or(0, |reach| reach as u64 + 1);
            let sizes = [group.layers, group.n_head_kv, layout.head_dim, layout.nr, layout.value_step];
            sum.update(&reach.to_le_bytes());
            sizes.iter().for_each(|&size| sum.update(&(size as u64).to_le_bytes()));
        }
        sum.finalize()
    }

    /// The place of the element type in [`CacheType::ALL`]; none without groups.
    fn kv_tag(&self) -> u32 {
        let stored = self.pools.first().map(|pool| pool.group().layout.stored);
        let place = CacheType::ALL.iter().position(|&kv| Some(kv) == stored);
        place.map_or(u32::MAX, |place| place as u32)
    }

    /// Bytes behind the header of a snapshot, the checksum included.
    fn body(&self, positions: usize, tokens: usize, copy: bool) -> u64 {
        let states = if positions > 0 { self.shape.state_bytes * (1 + usize::from(copy)) } else { 0 };
        let pages = self.pools.iter().flat_map(|pool| {
            entries(pool, positions).map(|(_, count)| pool.page_len() as u64 / TILE as u64 * count as u64)
        });
        tokens as u64 * 4 + states as u64 + pages.sum::<u64>() + CHECKSUM
    }

    /// Bytes of a snapshot of a sequence, with its tokens or without.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sequence that doesn't exist.
    pub fn snapshot_bytes(&self, id: SequenceId, with_tokens: bool) -> Result<u64> {
        let slot = self.slot(id)?;
        let len = self.sequences[slot].len;
        let copy = self.states.kept(slot).is_some();
        Ok(HEADER as u64 + self.body(len, if with_tokens { len } else { 0 }, copy))
    }

    /// Hands out the bytes of a snapshot of a sequence: [`Cache::restore`] makes a sequence of it that goes on bit for bit.
    /// `tokens` are those of its positions, or none, where the host keeps them itself.
    ///
    /// # Errors
    /// [`Error::InvalidArgument`] for a sequence that doesn't exist, and for another number of tokens; those of `write`.
    pub fn save(&self, id: SequenceId, tokens: &[u32], tags: Tags, write: Sink<'_>) -> Result<()> {
        let slot = self.slot(id)?;
        let len = self.sequences[slot].len;
        if !tokens.is_empty() && tokens.len() != len {
            return Err(Error::invalid(format!("{} tokens for a sequence of {len}", tokens.len())));
        }
        let kept = self.states.kept(slot);
        let header = Header {
            tags,
            kv: self.kv_tag(),
            layout: self.layout_tag(),
            positions: len as u64,
            tokens: tokens.len() as u64,
            state: self.shape.state_bytes as u64,
            copy: kept.map_or(NO_COPY, |kept| kept as u64),
            body: self.body(len, tokens.len(), kept.is_some()),
        };
        let mut sum = crc32fast::Hasher::new();
        let mut put = |bytes: &[u8]| {
            sum.update(bytes);
            write(bytes)
        };
        put(&header.bytes())?;
        for tokens in tokens.chunks(64) {
            let mut bytes = [0; 256];
            let places = bytes.as_chunks_mut().0;
            places.iter_mut().zip(tokens).for_each(|(place, token)| *place = token.to_le_bytes());
            put(&bytes[..4 * tokens.len()])?;
        }
        if len > 0 {
            let (state, copy) = self.states.saved(slot);
            put(state)?;
            put(copy.unwrap_or_default())?;
        }
        let mut heap = Vec::new();
        for (pool, table) in self.pools.iter().zip(&self.sequences[slot].tables) {
            for (entry, count) in entries(pool, len) {
                put_page(pool, table.pages()[entry], count, &mut heap, &mut put)?;
            }
        }
        write(&sum.finalize().to_le_bytes())
    }

    /// The header of a snapshot that this cache can restore.
    fn header(&self, tags: Tags, source: &dyn ByteSource) -> Result<Header> {
        let mut bytes = [0; HEADER];
        let short = source.len() < HEADER as u64;
        source.read_at(0, &mut bytes[..(source.len() as usize).min(HEADER)])?;
        if short {
            return Err(damaged(source, "no snapshot of a sequence: it is too short"));
        }
        let header = Header::parse(&bytes).map_err(|why| damaged(source, &why))?;
        self.check_owner(&header, tags).map_err(|why| foreign(source, &why))?;
        let n_ctx = self.shape.n_ctx;
        let positions = usize::try_from(header.positions).unwrap_or(usize::MAX);
        if positions > n_ctx {
            return Err(Error::ContextFull { n_ctx, needed: positions });
        }
        let has_copy = header.copy != NO_COPY;
        let tokens_fit = header.tokens == 0 || header.tokens == header.positions;
        let copy_fits = !has_copy || (header.copy <= header.positions && self.states.exist());
        if !tokens_fit || !copy_fits || header.body != self.body(positions, header.tokens as usize, has_copy)
        {
            return Err(damaged(source, "the snapshot contradicts itself"));
        }
        let whole = HEADER as u64 + header.body;
        if source.len() != whole {
            let len = source.len();
            return Err(damaged(source, &format!("{len} bytes, of a snapshot of {whole}")));
        }
        Ok(header)
    }

    /// Why a snapshot isn't one of this cache.
    fn check_owner(&self, header: &Header, tags: Tags) -> Result<(), String> {
        if header.tags.shape != tags.shape {
            return Err("a snapshot of a model of another shape or with other factors".into());
        }
        if header.tags.weights != tags.weights {
            return Err("a snapshot of a model with other weights".into());
        }
        let own = self.kv_tag();
        if header.kv != own {
            let name = |kv: u32| CacheType::ALL.get(kv as usize).map_or("unknown", |kv| kv.name());
            let (theirs, own) = (name(header.kv), name(own));
            return Err(format!("a snapshot with {theirs} keys and values; the cache has {own}"));
        }
        if header.tags.numerics != tags.numerics {
            return Err("a snapshot of an engine with other rotary scaling or activations".into());
        }
        if header.layout != self.layout_tag() || header.state != self.shape.state_bytes as u64 {
            return Err("a snapshot whose keys and values are laid out for another instruction set".into());
        }
        Ok(())
    }

    /// Checks header and checksum, and returns whether the snapshot has the tokens of its positions. [`Cache::restore`]
    /// takes it then, if there is room.
    ///
    /// # Errors
    /// As [`Cache::restore`].
    pub fn check_snapshot(&self, tags: Tags, source: &dyn ByteSource) -> Result<bool> {
        let header = self.header(tags, source)?;
        let mut reader = Reader { source, at: 0, sum: crc32fast::Hasher::new() };
        let end = HEADER as u64 + header.body - CHECKSUM;
        let mut bytes = with_room(CHUNK, WHAT)?;
        while reader.at < end {
            bytes.resize(((end - reader.at) as usize).min(CHUNK), 0);
            reader.read(&mut bytes)?;
        }
        reader.end()?;
        Ok(header.tokens == header.positions)
    }

    /// A new sequence from a snapshot. Its tokens replace those in `tokens`, where the snapshot has them. After an error
    /// the cache is as before.
    ///
    /// # Errors
    /// [`Error::Format`] where the source is no snapshot, is cut off, or was changed; [`Error::InvalidArgument`] for a
    /// snapshot of another model or other settings, and where [`Shape::n_sequences`](super::Shape) sequences exist already;
    /// [`Error::ContextFull`] where the sequence is too long or no pages are free; those of reading;
    /// [`Error::OutOfMemory`] for the tokens.
    pub fn restore(
        &mut self,
        tags: Tags,
        source: &dyn ByteSource,
        tokens: &mut Vec<u32>,
    ) -> Result<SequenceId> {
        let header = self.header(tags, source)?;
        let positions = header.positions as usize;
        let suffices = |pool: &Pool| entries(pool, positions).count() <= pool.available();
        if !self.pools.iter().all(suffices) {
            let n_ctx = self.shape.n_positions;
            return Err(Error::ContextFull { n_ctx, needed: n_ctx + 1 });
        }
        let mut read = with_room(header.tokens as usize, WHAT)?;
        let id = self.create()?;
        match self.fill(id.slot as usize, &header, source, &mut read) {
            Ok(()) => {
                *tokens = read;
                Ok(id)
            }
            Err(error) => {
                self.remove(id)?;
                Err(error)
            }
        }
    }

    /// Fills a new sequence from a snapshot with this header.
    fn fill(
        &mut self,
        slot: usize,
        header: &Header,
        source: &dyn ByteSource,
        tokens: &mut Vec<u32>,
    ) -> Result<()> {
        let mut reader = Reader { source, at: 0, sum: crc32fast::Hasher::new() };
        reader.read(&mut [0; HEADER])?;
        let positions = header.positions as usize;
        while tokens.len() < header.tokens as usize {
            let mut bytes = [0; 256];
            let bytes = &mut bytes[..4 * (header.tokens as usize - tokens.len()).min(64)];
            reader.read(bytes)?;
            tokens.extend(bytes.as_chunks().0.iter().map(|token| u32::from_le_bytes(*token)));
        }
        if positions > 0 {
            let kept = Some(header.copy).filter(|&copy| copy != NO_COPY).map(|copy| copy as usize);
            let (state, copy) = self.states.restored(slot, kept);
            reader.read(state)?;
            reader.read(copy.unwrap_or_default())?;
        }
        for group in 0..self.pools.len() {
            let pool = &self.pools[group];
            let first = pool.group().first_page(positions);
            pool.lay_out(&mut self.sequences[slot].tables[group], positions.div_ceil(TILE), first);
        }
        self.sequences[slot].len = positions;
        let mut heap = Vec::new();
        for group in 0..self.pools.len() {
            for (entry, count) in entries(&self.pools[group], positions) {
                let missing = || Error::Internal("a page that was counted isn't there".into());
                let page = self.take(group).ok_or_else(missing)?;
                self.pools[group].put(&mut self.sequences[slot].tables[group], entry, page);
                read_page(&mut self.pools[group], page, count, &mut heap, &mut reader)?;
            }
        }
        reader.end()
    }
}

/// Hands out the first `count` positions of a page: in one piece, or a head at a time through `heap`.
fn put_page(
    pool: &Pool,
    page: u32,
    count: usize,
    heap: &mut Vec<u8>,
    put: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let page = pool.bytes(page);
    if count == TILE {
        return put(page);
    }
    let layout = pool.group().layout;
    reserve(heap, count * layout.position_bytes(), WHAT)?;
    page.chunks(pool.head_len()).try_for_each(|head| {
        heap.clear();
        layout.filled(count, &mut |range| heap.extend_from_slice(&head[range]));
        put(heap)
    })
}

/// Reads the first `count` positions of a page: in one piece, or a head at a time through `heap`.
fn read_page(
    pool: &mut Pool,
    page: u32,
    count: usize,
    heap: &mut Vec<u8>,
    reader: &mut Reader<'_>,
) -> Result<()> {
    let (layout, head_len) = (pool.group().layout, pool.head_len());
    let page = pool.bytes_mut(page);
    if count == TILE {
        return reader.read(page);
    }
    let len = count * layout.position_bytes();
    heap.clear();
    reserve(heap, len, WHAT)?;
    heap.resize(len, 0);
    page.chunks_mut(head_len).try_for_each(|head| {
        reader.read(heap)?;
        let mut rest = &heap[..];
        layout.filled(count, &mut |range| {
            let (piece, behind) = rest.split_at(range.len());
            head[range].copy_from_slice(piece);
            rest = behind;
        });
        Ok(())
    })
}
