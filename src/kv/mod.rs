//! The key/value cache: for each layer and key/value head, keys and values of all positions so far, in the tiles
//! that the attention kernel reads straight through (`kernels::attention`).
//! A tile's positions of all layers and heads adjoin, so that memory fills from its beginning as a text grows: it can
//! lie on huge pages, and what is never filled is never taken.

use std::marker::PhantomData;

use crate::error::{Error, Result};
pub use crate::kernels::attention::CacheType;
use crate::kernels::attention::{Layout, TILE};
use crate::memory::{AlignedBuf, checked_bytes};
use crate::ops::attention::LayerCache;

/// What the memory is for, in errors.
const WHAT: &str = "the key/value cache";

/// How large a cache is.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Layers.
    pub n_layer: usize,
    /// Key/value heads of a layer.
    pub n_head_kv: usize,
    /// Positions.
    pub n_ctx: usize,
    /// How positions lie within a head, and as what.
    pub layout: Layout,
}

impl Shape {
    /// Bytes of a tile's keys and values in one head, and in all of all layers.
    fn tile_bytes(&self) -> Result<(usize, usize)> {
        let head = self.layout.tile_bytes().ok_or(TOO_LARGE)?;
        Ok((head, checked_bytes(checked_bytes(self.n_layer, self.n_head_kv, WHAT)?, head, WHAT)?))
    }

    /// Bytes of a cache of this shape.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where no memory could hold it.
    pub fn bytes(&self) -> Result<usize> {
        checked_bytes(self.n_ctx.div_ceil(TILE), self.tile_bytes()?.1, WHAT)
    }
}

/// What is said where a size overflows.
const TOO_LARGE: Error = Error::OutOfMemory { bytes: usize::MAX, what: WHAT };

/// Keys and values of one sequence.
pub struct Cache {
    shape: Shape,
    /// Bytes of a tile in one head, and in all of all layers.
    head_tile: usize,
    tile: usize,
    memory: AlignedBuf,
}

impl Cache {
    /// An empty cache.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(shape: Shape) -> Result<Self> {
        let (head_tile, tile) = shape.tile_bytes()?;
        let memory = AlignedBuf::zeroed(shape.bytes()?, WHAT)?;
        Ok(Cache { shape, head_tile, tile, memory })
    }

    /// Access for the workers of a forward pass.
    pub fn view(&mut self) -> View<'_> {
        let Cache { shape, head_tile, tile, .. } = *self;
        View { first: self.memory.as_mut_ptr(), shape, head_tile, tile, cache: PhantomData }
    }
}

/// A cache that workers share during a pass; ops keep their writes apart.
#[derive(Clone, Copy)]
pub struct View<'a> {
    first: *mut u8,
    shape: Shape,
    head_tile: usize,
    tile: usize,
    cache: PhantomData<&'a mut Cache>,
}

// SAFETY: addresses and lengths; every access through them is an unsafe operation in an op.
unsafe impl Send for View<'_> {}
// SAFETY: as above.
unsafe impl Sync for View<'_> {}

impl View<'_> {
    /// Bytes of a layer's keys and values of the first `positions`.
    pub fn layer_bytes(&self, positions: usize) -> usize {
        self.shape.n_head_kv * positions * self.shape.layout.position_bytes()
    }

    /// The keys and values of a layer.
    pub fn layer(&self, layer: usize) -> LayerCache {
        let View { shape, head_tile, tile, .. } = *self;
        let first = self.first.wrapping_add(layer * shape.n_head_kv * head_tile);
        LayerCache { first, head_stride: head_tile, tile_stride: tile, layout: shape.layout }
    }
}
