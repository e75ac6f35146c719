//! Counts of `u64` values in buckets that widen with the value, for percentiles without keeping the values.
//!
//! **Owns** the part of the interface of the published crate `base2histogram` 0.2.3 that openraft 0.10.0-alpha.37 uses:
//! [`Histogram`], [`PercentileStats`] and [`AsciiChart`]. `[patch.crates-io]` in the root manifest puts it in that crate's place.
//!
//! **Why it exists.** On the first use of any histogram the published crate builds lookup tables for all of its sixteen
//! bucket widths, and keeps them: 26.7 MB in each manager, more than everything else together. openraft uses one width, in
//! one histogram. Here a bucket's number is computed from the value's bits and nothing is tabulated. See
//! `docs/adr/0004-own-base2histogram.md`.
//!
//! **When it can go.** As soon as openraft depends on a version that builds only the table it uses, or makes the histogram
//! optional: delete this crate and the patch.
//!
//! **Must never** be used by our own code, which has no business with openraft's statistics; nor grow anything that openraft
//! does not call.
#![forbid(unsafe_code)]

mod chart;
mod histogram;
mod percentiles;

pub use chart::{AsciiChart, Detailed};
pub use histogram::Histogram;
pub use percentiles::PercentileStats;
