//! What unit tests share: numbers that look random and are the same on every run, how time grows with size, and goldens.
//! Integration tests include `growth` and `golden`, too.

#[cfg(feature = "models")]
pub(crate) mod golden;
#[cfg(feature = "models")]
pub(crate) mod growth;

/// A file of `tests/goldens`.
#[cfg(feature = "models")]
pub(crate) fn golden_path(name: &str) -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens").join(name)
}

/// The next number of a series, uniform in −1..1; `seed` says which series, and where in it.
pub(crate) fn noise(seed: &mut u64) -> f32 {
    *seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
    (*seed >> 40) as f32 / (1u64 << 23) as f32 - 1.0
}

/// The first numbers of a series of [`noise`].
pub(crate) fn noise_vec(len: usize, mut seed: u64) -> Vec<f32> {
    (0..len).map(|_| noise(&mut seed)).collect()
}
