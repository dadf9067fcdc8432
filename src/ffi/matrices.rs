//! Checks of the matrices that a host passes to kernels: shapes, leading dimensions, sizes, overlap.

use std::mem::size_of;
use std::ops::Range;

use super::status::Failure;

/// Floats from the first to the last element of a matrix; 0 for one without elements.
#[inline]
pub(super) fn floats(name: &'static str, rows: usize, cols: usize, ld: usize) -> Result<usize, Failure> {
    if rows == 0 || cols == 0 {
        return Ok(0);
    }
    if ld < cols {
        return Err(Failure::invalid(format!(
            "{name}: {cols} columns, but only {ld} floats to the next row"
        )));
    }
    let len = (rows - 1).checked_mul(ld).and_then(|whole| whole.checked_add(cols));
    len.ok_or_else(|| Failure::invalid(format!("{name} of {rows} x {cols} doesn't fit into memory")))
}

/// Refuses an output that shares memory with an input.
pub(super) fn apart(
    name: &str,
    output: *const f32,
    len: usize,
    input_name: &str,
    input: &[f32],
) -> Result<(), Failure> {
    if overlap(&range(output, len), &range(input.as_ptr(), input.len())) {
        return Err(Failure::invalid(format!("{name} overlaps {input_name}")));
    }
    Ok(())
}

/// The addresses from a matrix's first to its last element; none by default.
#[derive(Clone, Debug, Default)]
pub(super) struct Extent {
    name: &'static str,
    addresses: Range<usize>,
}

impl Extent {
    /// Of `len` floats, which are known to fit into memory.
    pub(super) fn new(name: &'static str, first: *const f32, len: usize) -> Self {
        Self { name, addresses: range(first, len) }
    }

    pub(super) fn of<T>(name: &'static str, elements: &[T]) -> Self {
        let first = elements.as_ptr().addr();
        Self { name, addresses: first..first + size_of_val(elements) }
    }

    fn refuse_overlap(&self, other: &Extent) -> Result<(), Failure> {
        if overlap(&self.addresses, &other.addresses) {
            return Err(Failure::invalid(format!("{} overlaps {}", self.name, other.name)));
        }
        Ok(())
    }

    /// Refuses outputs that share memory with each other or with an input; sorts them.
    pub(super) fn check_apart(outputs: &mut [Extent], inputs: &[Extent]) -> Result<(), Failure> {
        outputs.sort_unstable_by_key(|output| output.addresses.start);
        for pair in outputs.windows(2) {
            pair[0].refuse_overlap(&pair[1])?;
        }
        for input in inputs {
            let next = outputs.partition_point(|output| output.addresses.end <= input.addresses.start);
            if let Some(output) = outputs.get(next) {
                output.refuse_overlap(input)?;
            }
        }
        Ok(())
    }
}

/// Addresses of `len` floats, which are known to fit into memory.
#[inline]
pub(super) fn range(first: *const f32, len: usize) -> Range<usize> {
    first.addr()..first.addr() + len * size_of::<f32>()
}

#[inline]
pub(super) fn overlap(a: &Range<usize>, b: &Range<usize>) -> bool {
    !a.is_empty() && !b.is_empty() && a.start < b.end && b.start < a.end
}

#[inline]
pub(super) fn bytes(floats: usize) -> u64 {
    (floats as u64).saturating_mul(size_of::<f32>() as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overlaps_are_found_wherever_they_are() {
        let memory = [0.0f32; 100];
        let at = |name, first: usize, len| Extent::new(name, memory[first..].as_ptr(), len);
        let check = |outputs: &[(usize, usize)], inputs: &[(usize, usize)]| {
            let mut outputs: Vec<_> = outputs.iter().map(|&(first, len)| at("C", first, len)).collect();
            let inputs: Vec<_> = inputs.iter().map(|&(first, len)| at("A", first, len)).collect();
            Extent::check_apart(&mut outputs, &inputs).map_err(|failure| failure.message.into_owned())
        };
        assert_eq!(check(&[(20, 10), (0, 10)], &[(10, 10), (30, 70), (5, 0)]), Ok(()));
        assert_eq!(check(&[(20, 10), (0, 21)], &[]), Err("C overlaps C".into()));
        for input in [(9, 1), (0, 1), (5, 50), (15, 6), (29, 1), (0, 100)] {
            assert_eq!(check(&[(20, 10), (0, 10)], &[input]), Err("C overlaps A".into()), "{input:?}");
        }
    }
}
