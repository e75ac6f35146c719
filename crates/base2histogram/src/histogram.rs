//! The buckets.

use crate::PercentileStats;
use std::marker::PhantomData;

/// Buckets for each power of two: a bucket is then at most a quarter of its smallest value wide.
const PER_POWER: usize = 4;
/// Its logarithm: how many bits behind the leading one choose the bucket.
const PER_POWER_BITS: u32 = PER_POWER.trailing_zeros();

/// How often values of each size were recorded.
///
/// Values up to 7 are told apart exactly; above, each power of two is cut into four buckets. Only the buckets up to the
/// largest recorded value take memory: 8 bytes each, 320 bytes for values up to 1,024, 2 KB for any `u64`.
///
/// `T` is what the published crate lets its callers attach to a time slot. There are no slots here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    /// Counts by bucket. It ends with the bucket of the largest value, so equal contents are equal vectors.
    counts: Vec<u64>,
    /// The largest recorded value.
    max: u64,
    slots: PhantomData<T>,
}

/// The values that share a bucket, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) first: u64,
    pub(crate) last: u64,
}

// === impl Histogram ===

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Histogram<T> {
    /// An empty one. It allocates nothing.
    pub fn new() -> Self {
        Histogram { counts: Vec::new(), max: 0, slots: PhantomData }
    }

    /// Counts `value` once.
    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Counts `value` `count` times. A bucket that is full (2^64 - 1) stays full.
    pub fn record_n(&mut self, value: u64, count: u64) {
        if count == 0 {
            return;
        }
        let bucket = bucket_of(value);
        if bucket >= self.counts.len() {
            self.counts.reserve_exact(bucket + 1 - self.counts.len());
            self.counts.resize(bucket + 1, 0);
        }
        if let Some(counted) = self.counts.get_mut(bucket) {
            *counted = counted.saturating_add(count);
        }
        self.max = self.max.max(value);
    }

    /// How many values were recorded.
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// A value that the share `p` of the recorded ones does not exceed: the largest that shares a bucket with the exact answer,
    /// so at most a quarter above it, and never above the largest one recorded. 0 when nothing was recorded; `p` is taken as
    /// 0 below 0 and when it is no number, and as 1 above 1.
    pub fn percentile(&self, p: f64) -> u64 {
        // What is no number is 0 as an integer.
        let rank = ((p.clamp(0.0, 1.0) * self.total() as f64).ceil() as u64).max(1);
        let mut seen = 0_u64;
        for (bucket, count) in self.counts.iter().enumerate() {
            seen = seen.saturating_add(*count);
            if seen >= rank {
                return Range::of_bucket(bucket).last.min(self.max);
            }
        }
        // Nothing was recorded, or the rank was rounded up beyond the total (which is more than 2^53 then).
        self.max
    }

    /// The usual percentiles at once.
    pub fn percentile_stats(&self) -> PercentileStats {
        PercentileStats {
            samples: self.total(),
            p0_1: self.percentile(0.001),
            p1: self.percentile(0.01),
            p5: self.percentile(0.05),
            p10: self.percentile(0.1),
            p50: self.percentile(0.5),
            p90: self.percentile(0.9),
            p99: self.percentile(0.99),
            p99_9: self.percentile(0.999),
        }
    }

    /// The counts by bucket, up to the largest that is not empty.
    pub(crate) fn counts(&self) -> &[u64] {
        &self.counts
    }
}

// === impl Range ===

impl Range {
    /// The inverse of `bucket_of`.
    pub(crate) fn of_bucket(bucket: usize) -> Range {
        let Some(above) = bucket.checked_sub(PER_POWER) else {
            return Range { first: bucket as u64, last: bucket as u64 };
        };
        let shift = above / PER_POWER;
        let first = ((PER_POWER + above % PER_POWER) as u64) << shift;
        Range { first, last: first + ((1 << shift) - 1) }
    }
}

/// The leading one of the value gives the power of two, the next two bits one of its four buckets. At most 251.
fn bucket_of(value: u64) -> usize {
    if value < PER_POWER as u64 {
        return value as usize;
    }
    let shift = value.ilog2() - PER_POWER_BITS;
    PER_POWER * shift as usize + (value >> shift) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Values of every size, not only huge ones.
    fn values() -> impl Strategy<Value = u64> {
        (any::<u64>(), 0..64_u32).prop_map(|(value, shift)| value >> shift)
    }

    fn recorded(values: &[u64]) -> Histogram {
        let mut histogram = Histogram::new();
        values.iter().for_each(|v| histogram.record(*v));
        histogram
    }

    #[test]
    fn buckets_tile_all_values_without_gap_or_overlap() {
        let mut next = Some(0);
        for bucket in 0..252 {
            let range = Range::of_bucket(bucket);
            assert_eq!(Some(range.first), next, "bucket {bucket}");
            assert_eq!((bucket_of(range.first), bucket_of(range.last)), (bucket, bucket));
            next = range.last.checked_add(1);
        }
        assert_eq!(next, None, "the last bucket ends with the largest value");
    }

    #[test]
    fn small_values_are_exact() {
        let histogram = recorded(&[0, 1, 2, 3, 4, 5, 6, 7]);
        for (p, want) in
            [(0.0, 0), (0.125, 0), (0.13, 1), (0.5, 3), (0.51, 4), (1.0, 7), (2.0, 7), (-1.0, 0), (f64::NAN, 0)]
        {
            assert_eq!(histogram.percentile(p), want, "p = {p}");
        }
    }

    #[test]
    fn an_empty_histogram_is_all_zero_and_allocates_nothing() {
        let mut histogram = Histogram::<()>::default();
        histogram.record_n(1 << 40, 0);
        assert_eq!(histogram.counts.capacity(), 0);
        assert_eq!((histogram.total(), histogram.percentile(0.5)), (0, 0));
        assert!(histogram.percentile_stats().to_string().starts_with("0 samples: P0.1 0"));
    }

    #[test]
    fn memory_is_bounded_and_small_for_small_values() {
        assert!(recorded(&[1, 1024]).counts.capacity() * 8 <= 400);
        assert!(recorded(&[u64::MAX]).counts.capacity() <= 252);
    }

    #[test]
    fn counts_saturate() {
        let mut histogram = recorded(&[9]);
        histogram.record_n(9, u64::MAX);
        histogram.record_n(70, u64::MAX);
        assert_eq!(histogram.total(), u64::MAX);
        assert_eq!(histogram.percentile(0.5), 9);
    }

    #[test]
    fn the_stats_are_the_percentiles() {
        let histogram = recorded(&(1..=1000).collect::<Vec<u64>>());
        let stats = histogram.percentile_stats();
        assert_eq!(stats.samples, 1000);
        assert_eq!((stats.p0_1, stats.p1, stats.p5, stats.p10), (1, 11, 55, 111));
        assert_eq!((stats.p50, stats.p90, stats.p99, stats.p99_9), (511, 1000, 1000, 1000));
    }

    proptest! {
        #[test]
        fn every_value_lies_in_its_bucket(value in values()) {
            let range = Range::of_bucket(bucket_of(value));
            prop_assert!(range.first <= value && value <= range.last);
            prop_assert!(range.last - range.first <= range.first / 4);
        }

        #[test]
        fn percentiles_are_within_a_quarter_above_the_exact_ones(
            values in prop::collection::vec(values(), 1..300),
            p in 0.0..=1.0_f64,
        ) {
            let histogram = recorded(&values);
            let mut sorted = values.clone();
            sorted.sort_unstable();
            let rank = ((p * sorted.len() as f64).ceil() as usize).max(1);
            let exact = sorted[rank - 1];
            let got = histogram.percentile(p);
            prop_assert!(exact <= got && got - exact <= exact / 4, "exact {exact}, got {got}");
            prop_assert!(got <= sorted[sorted.len() - 1]);
        }

        #[test]
        fn percentiles_grow_with_the_share(values in prop::collection::vec(values(), 0..100), p in 0.0..=1.0_f64, q in 0.0..=1.0_f64) {
            let histogram = recorded(&values);
            prop_assert!(histogram.percentile(p.min(q)) <= histogram.percentile(p.max(q)));
        }

        #[test]
        fn the_order_of_recording_does_not_matter(values in prop::collection::vec(values(), 0..50)) {
            let reversed: Vec<u64> = values.iter().rev().copied().collect();
            prop_assert_eq!(recorded(&values), recorded(&reversed));
            prop_assert_eq!(recorded(&values).total(), values.len() as u64);
        }
    }
}
