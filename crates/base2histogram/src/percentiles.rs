//! The percentiles openraft shows.

use std::fmt;

/// The usual percentiles of a [`Histogram`](crate::Histogram). All are 0 when nothing was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    /// How many values were recorded.
    pub samples: u64,
    /// One value in a thousand is at most this.
    pub p0_1: u64,
    /// One value in a hundred is at most this.
    pub p1: u64,
    /// 5 % of the values are at most this.
    pub p5: u64,
    /// 10 % of the values are at most this.
    pub p10: u64,
    /// Half of the values are at most this.
    pub p50: u64,
    /// 90 % of the values are at most this.
    pub p90: u64,
    /// 99 % of the values are at most this.
    pub p99: u64,
    /// 99.9 % of the values are at most this.
    pub p99_9: u64,
}

// === impl PercentileStats ===

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PercentileStats { samples, p0_1, p1, p5, p10, p50, p90, p99, p99_9 } = self;
        write!(f, "{samples} samples: P0.1 {p0_1}, P1 {p1}, P5 {p5}, P10 {p10}, ")?;
        write!(f, "P50 {p50}, P90 {p90}, P99 {p99}, P99.9 {p99_9}")
    }
}
