//! Rows of floats in a caller's memory, and walks along them, a vector at a time. Elementwise and row-wise kernels read
//! and write memory here, and compute [`Function`]s of vectors.
//!
//! The promise that a row's memory is there is made once, where [`Row::new`] and its like take a pointer. What reads and
//! writes through them is safe for it: it stays inside the row, which debug builds look at.

use crate::isa::Isa;

/// A row of floats to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Row {
    first: *const f32,
    len: usize,
}

impl Row {
    /// # Safety
    /// Those of `len` floats from `first` on that are read by way of the value, or of one that is made of it, are there.
    #[inline(always)]
    pub unsafe fn new(first: *const f32, len: usize) -> Self {
        Self { first, len }
    }

    /// [`Row::new`], without elements where `first` is null.
    ///
    /// # Safety
    /// As [`Row::new`], unless `first` is null.
    #[inline(always)]
    pub unsafe fn or_empty(first: *const f32, len: usize) -> Self {
        Self { first, len: if first.is_null() { 0 } else { len } }
    }

    /// The elements `i .. i + count`; the rest are 0. `count ≤ LANES`.
    #[inline(always)]
    pub fn load<I: Isa>(self, isa: I, i: usize, count: usize) -> I::F32 {
        debug_assert!(i + count <= self.len && count <= I::LANES);
        // SAFETY: the row reaches to i + count. With a constant count the branch is decided at compile time.
        unsafe {
            let p = self.first.add(i);
            if count == I::LANES { isa.load(p) } else { isa.load_first(p, count) }
        }
    }

    /// Element `i`.
    #[inline(always)]
    pub fn get(self, i: usize) -> f32 {
        debug_assert!(i < self.len);
        // SAFETY: the row has the element.
        unsafe { *self.first.add(i) }
    }

    /// The elements from `i` on.
    #[inline(always)]
    pub fn from(self, i: usize) -> Self {
        debug_assert!(i <= self.len);
        Self { first: self.first.wrapping_add(i), len: self.len.wrapping_sub(i) }
    }
}

/// A row of floats to read and write, which nobody else does meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowMut {
    first: *mut f32,
    len: usize,
}

impl RowMut {
    /// # Safety
    /// As [`Row::new`]; those that are written are writable, and nobody else reads or writes them meanwhile, but the same
    /// code by way of other values.
    #[inline(always)]
    pub unsafe fn new(first: *mut f32, len: usize) -> Self {
        Self { first, len }
    }

    /// [`RowMut::new`], without elements where `first` is null.
    ///
    /// # Safety
    /// As [`RowMut::new`], unless `first` is null.
    #[inline(always)]
    pub unsafe fn or_empty(first: *mut f32, len: usize) -> Self {
        Self { first, len: if first.is_null() { 0 } else { len } }
    }

    /// Whether the row's memory isn't there.
    #[inline(always)]
    pub fn is_null(self) -> bool {
        self.first.is_null()
    }

    /// The same row, to read.
    #[inline(always)]
    pub fn row(self) -> Row {
        Row { first: self.first, len: self.len }
    }

    /// See [`Row::load`].
    #[inline(always)]
    pub fn load<I: Isa>(self, isa: I, i: usize, count: usize) -> I::F32 {
        self.row().load(isa, i, count)
    }

    /// Element `i`.
    #[inline(always)]
    pub fn get(self, i: usize) -> f32 {
        self.row().get(i)
    }

    /// Stores the first `count` lanes to the elements from `i` on; `count ≤ LANES`.
    #[inline(always)]
    pub fn store<I: Isa>(self, isa: I, i: usize, x: I::F32, count: usize) {
        debug_assert!(i + count <= self.len && count <= I::LANES);
        // SAFETY: the row reaches to i + count. With a constant count the branch is decided at compile time.
        unsafe {
            let p = self.first.add(i);
            if count == I::LANES { isa.store(p, x) } else { isa.store_first(p, x, count) }
        }
    }

    /// Stores a vector past the caches, to the elements from `i` on, where the row is aligned to vectors; see
    /// [`Isa::stream`].
    #[inline(always)]
    pub fn stream<I: Isa>(self, isa: I, i: usize, x: I::F32) {
        debug_assert!(i + I::LANES <= self.len && self.unaligned::<I>() % I::LANES == i % I::LANES);
        // SAFETY: the row reaches to i + LANES, and is aligned at i.
        unsafe { isa.stream(self.first.add(i), x) }
    }

    /// Elements before the first one that is aligned to vectors; many where there is none.
    #[inline(always)]
    pub fn unaligned<I: Isa>(self) -> usize {
        self.first.align_offset(I::LANES * size_of::<f32>())
    }

    /// Writes element `i`.
    #[inline(always)]
    pub fn set(self, i: usize, x: f32) {
        debug_assert!(i < self.len);
        // SAFETY: the row has the element.
        unsafe { self.first.add(i).write(x) }
    }

    /// Makes the elements from `i` on 0.
    #[inline(always)]
    pub fn clear_from(self, i: usize) {
        debug_assert!(i <= self.len);
        // SAFETY: the row reaches to its end.
        unsafe { self.first.add(i).write_bytes(0, self.len - i) }
    }
}

/// Rows of floats to read, one behind another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rows {
    first: *const f32,
    stride: usize,
    rows: usize,
    cols: usize,
}

impl Rows {
    /// `rows` rows of `cols` floats, with `stride` floats from one to the next.
    ///
    /// # Safety
    /// As [`Row::new`], for each row.
    #[inline(always)]
    pub unsafe fn new(first: *const f32, stride: usize, rows: usize, cols: usize) -> Self {
        Self { first, stride, rows, cols }
    }

    /// Row `r`.
    #[inline(always)]
    pub fn row(self, r: usize) -> Row {
        debug_assert!(r < self.rows);
        Row { first: self.first.wrapping_add(r * self.stride), len: self.cols }
    }
}

/// Rows of floats to read and write, one behind another.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowsMut {
    first: *mut f32,
    stride: usize,
    rows: usize,
    cols: usize,
}

impl RowsMut {
    /// `rows` rows of `cols` floats, with `stride` floats from one to the next.
    ///
    /// # Safety
    /// As [`RowMut::new`], for each row.
    #[inline(always)]
    pub unsafe fn new(first: *mut f32, stride: usize, rows: usize, cols: usize) -> Self {
        Self { first, stride, rows, cols }
    }

    /// The rows from `row` on, each from element `column` on.
    #[inline(always)]
    pub fn part(self, row: usize, column: usize) -> Self {
        debug_assert!(row <= self.rows && column <= self.cols);
        let first = self.first.wrapping_add(row * self.stride + column);
        Self { first, rows: self.rows.wrapping_sub(row), cols: self.cols.wrapping_sub(column), ..self }
    }

    /// Row `r`.
    #[inline(always)]
    pub fn row(self, r: usize) -> RowMut {
        debug_assert!(r < self.rows);
        RowMut { first: self.first.wrapping_add(r * self.stride), len: self.cols }
    }
}

/// A function of N numbers, computed on N vectors.
pub(super) trait Function<const N: usize>: Copy {
    /// The function of each lane. Implementations are `#[inline(always)]`.
    fn call<I: Isa>(self, isa: I, x: [I::F32; N]) -> I::F32;
}

/// Vectors along a row. Implementations are `#[inline(always)]`.
pub(super) trait Terms {
    /// The terms `i .. i + count`, which there are, and anything in the lanes from `count` on; `count ≤ LANES`.
    fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32;
}

/// The elements.
impl Terms for Row {
    #[inline(always)]
    fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        self.load(isa, i, count)
    }
}

/// A function of the elements of N rows.
#[derive(Clone, Copy)]
pub(super) struct Over<F, const N: usize>(pub F, pub [Row; N]);

impl<F: Function<N>, const N: usize> Terms for Over<F, N> {
    #[inline(always)]
    fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        let mut x = [isa.zero(); N];
        for (j, x) in x.iter_mut().enumerate() {
            *x = self.1[j].load(isa, i, count);
        }
        self.0.call(isa, x)
    }
}

/// Terms that are stored to a row on the way.
#[derive(Clone, Copy)]
pub(super) struct Stored<T>(pub T, pub RowMut);

impl<T: Terms> Terms for Stored<T> {
    #[inline(always)]
    fn at<I: Isa>(&self, isa: I, i: usize, count: usize) -> I::F32 {
        let x = self.0.at(isa, i, count);
        self.1.store(isa, i, x, count);
        x
    }
}

/// Visits the terms `first .. n`, which there are, a vector at a time, so that they are stored on the way. `first ≤ n`.
#[inline(always)]
pub(super) fn visit<I: Isa>(isa: I, terms: &impl Terms, first: usize, n: usize) {
    // A bound that the compiler can count the steps to, so that it unrolls the loop.
    let whole = n - (n - first) % I::LANES;
    let mut i = first;
    while i < whole {
        terms.at(isa, i, I::LANES);
        i += I::LANES;
    }
    if i < n {
        terms.at(isa, i, n - i);
    }
}
