//! Buckets of a logarithmic histogram: eight to each doubling, so a percentile is right within 6 %.
//! Values are clock ticks; below 8 each has its own bucket, beyond the last they share it.

/// Buckets: up to 2⁴⁴ ticks, more than an hour at any clock's rate.
pub(super) const BUCKETS: usize = (44 - 2) * 8;

/// The bucket a value falls in.
#[inline(always)]
pub(super) fn bucket(value: u64) -> usize {
    if value < 8 {
        return value as usize;
    }
    let exponent = 63 - value.leading_zeros() as usize;
    let eighth = (value >> (exponent - 3)) as usize & 7;
    ((exponent - 2) * 8 + eighth).min(BUCKETS - 1)
}

/// The middle of a bucket.
fn middle(bucket: usize) -> f64 {
    if bucket < 8 {
        return bucket as f64;
    }
    let (exponent, eighth) = (bucket / 8 + 2, bucket % 8);
    (8.0 + eighth as f64 + 0.5) * 2f64.powi(exponent as i32 - 3)
}

/// The value below which the fraction `p` of all counted values lies (nearest rank); 0 where none were.
pub(super) fn percentile(counts: &[u64; BUCKETS], p: f64) -> f64 {
    let total: u64 = counts.iter().sum();
    let rank = ((p * total as f64).ceil() as u64).clamp(1, total.max(1));
    let mut seen = 0;
    for (index, &count) in counts.iter().enumerate() {
        seen += count;
        if seen >= rank {
            return middle(index);
        }
    }
    0.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_rise_and_their_middle_is_near() {
        let mut last = 0;
        for value in (0..4096).chain((12..43).flat_map(|e| [(1 << e) - 1, 1 << e, (1 << e) + (1 << (e - 1))]))
        {
            let index = bucket(value);
            assert!(index >= last || value < 4096, "{value}");
            last = index;
            // A bucket spans 1/8 of its lower end at most; its middle is within half of that.
            assert!((middle(index) - value as f64).abs() <= value as f64 / 16.0 + 1e-9, "{value}");
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn percentiles_of_a_ramp() {
        let mut counts = [0; BUCKETS];
        for value in 1..=1000 {
            counts[bucket(value)] += 1;
        }
        for p in [0.5, 0.95, 0.99] {
            assert!((percentile(&counts, p) / (p * 1000.0) - 1.0).abs() < 1.0 / 8.0);
        }
        assert_eq!(percentile(&[0; BUCKETS], 0.5), 0.0);
    }
}
