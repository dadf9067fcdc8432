//! The key/value cache: for each layer and key/value head, keys and values of all positions so far,
//! kept in the panels that the attention kernel reads straight through (`kernels::attention`).

use std::marker::PhantomData;

use crate::error::{Error, Result};
pub use crate::kernels::attention::CacheType;
use crate::kernels::attention::Layout;
use crate::memory::{AlignedBuf, Pages, checked_bytes};
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
    /// Bytes of one head's keys and of its values.
    fn head_lens(&self) -> Result<(usize, usize)> {
        let keys = self.layout.key_bytes(self.n_ctx);
        let lens = keys.zip(self.layout.value_bytes(self.n_ctx));
        lens.ok_or(Error::OutOfMemory { bytes: usize::MAX, what: WHAT })
    }

    /// Bytes of all keys and of all values.
    fn halves(&self) -> Result<(usize, usize)> {
        let heads = checked_bytes(self.n_layer, self.n_head_kv, WHAT)?;
        let (keys, values) = self.head_lens()?;
        Ok((checked_bytes(heads, keys, WHAT)?, checked_bytes(heads, values, WHAT)?))
    }

    /// Bytes of a cache of this shape.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`] where no memory could hold it.
    pub fn bytes(&self) -> Result<usize> {
        let (keys, values) = self.halves()?;
        keys.checked_add(values).ok_or(Error::OutOfMemory { bytes: usize::MAX, what: WHAT })
    }
}

/// Keys and values of one sequence.
pub struct Cache {
    shape: Shape,
    key_len: usize,
    value_len: usize,
    keys: AlignedBuf,
    values: AlignedBuf,
}

impl Cache {
    /// An empty cache.
    ///
    /// # Errors
    /// [`Error::OutOfMemory`].
    pub fn new(shape: Shape) -> Result<Self> {
        let (key_len, value_len) = shape.head_lens()?;
        let (keys, values) = shape.halves()?;
        // A head's positions fill one after the other, and most contexts are never full: with huge pages the
        // first token alone would take two megabytes for each head.
        let small = |bytes| AlignedBuf::zeroed_in(Pages::Small, bytes, WHAT);
        let (keys, values) = (small(keys)?, small(values)?);
        Ok(Cache { shape, key_len, value_len, keys, values })
    }

    /// Access for the workers of a forward pass.
    pub fn view(&mut self) -> View<'_> {
        View {
            keys: self.keys.as_mut_ptr(),
            values: self.values.as_mut_ptr(),
            key_len: self.key_len,
            value_len: self.value_len,
            shape: self.shape,
            cache: PhantomData,
        }
    }
}

/// A cache that workers share during a pass; ops keep their writes apart.
#[derive(Clone, Copy)]
pub struct View<'a> {
    keys: *mut u8,
    values: *mut u8,
    key_len: usize,
    value_len: usize,
    shape: Shape,
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
        let View { shape, key_len, value_len, .. } = *self;
        let heads = layer * shape.n_head_kv;
        LayerCache {
            keys: self.keys.wrapping_add(heads * key_len),
            values: self.values.wrapping_add(heads * value_len),
            key_len,
            value_len,
            layout: shape.layout,
        }
    }
}
