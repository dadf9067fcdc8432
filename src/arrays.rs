//! Arrays, element by element, in code that runs a block or a vector at a time. The standard library's functions of these
//! names, and iteration by value, are calls unless link-time optimisation inlines them, which quick builds go without.

/// f(0), f(1) … f(N − 1), for N from 1 on.
#[inline(always)]
pub fn from_fn<T: Copy, const N: usize>(mut f: impl FnMut(usize) -> T) -> [T; N] {
    let mut all = [f(0); N];
    let mut i = 1;
    while i < N {
        all[i] = f(i);
        i += 1;
    }
    all
}

/// f of each element.
#[inline(always)]
pub fn map<T: Copy, U: Copy, const N: usize>(x: [T; N], mut f: impl FnMut(T) -> U) -> [U; N] {
    from_fn(
        #[inline(always)]
        |i| f(x[i]),
    )
}
