//! Histograms drawn with characters.

use crate::Histogram;
use crate::histogram::Range;
use std::fmt;

/// Length of the longest bar, in characters.
const BAR_WIDTH: u128 = 40;
/// One mark for each series; they start over when there are more series.
const MARKS: [char; 6] = ['#', '=', '+', 'o', '.', 'x'];

/// Several histograms in one picture: a line for each bucket that is not empty, the series stacked along it.
#[derive(Debug, Clone)]
pub struct AsciiChart<T = ()> {
    series: Vec<(String, Histogram<T>)>,
}

/// What [`AsciiChart::detailed`] returns: the chart in the form that is printed.
#[derive(Debug, Clone, Copy)]
pub struct Detailed<'a, T = ()> {
    chart: &'a AsciiChart<T>,
}

// === impl AsciiChart ===

impl<T> Default for AsciiChart<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> AsciiChart<T> {
    /// A chart of nothing.
    pub fn new() -> Self {
        AsciiChart { series: Vec::new() }
    }

    /// The chart with one more series.
    pub fn add(mut self, name: &str, histogram: Histogram<T>) -> Self {
        self.series.push((name.to_owned(), histogram));
        self
    }

    /// The chart with its legend. It prints nothing when nothing was recorded.
    pub fn detailed(&self) -> Detailed<'_, T> {
        Detailed { chart: self }
    }

    /// The counts of all series in one bucket.
    fn row(&self, bucket: usize) -> Vec<u64> {
        self.series.iter().map(|(_, h)| h.counts().get(bucket).copied().unwrap_or_default()).collect()
    }
}

// === impl Detailed ===

impl<T> fmt::Display for Detailed<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let series = &self.chart.series;
        let buckets = series.iter().map(|(_, h)| h.counts().len()).max().unwrap_or_default();
        let sum = |row: &[u64]| row.iter().map(|n| u128::from(*n)).sum::<u128>();
        let rows: Vec<(Range, Vec<u64>)> = (0..buckets)
            .map(|bucket| (Range::of_bucket(bucket), self.chart.row(bucket)))
            .filter(|(_, row)| sum(row) > 0)
            .collect();
        let longest = rows.iter().map(|(_, row)| sum(row)).max().unwrap_or(1);
        if !rows.is_empty() {
            for ((name, _), mark) in series.iter().zip(MARKS.iter().cycle()) {
                writeln!(f, "{mark} {name}")?;
            }
        }
        for (range, row) in &rows {
            write!(f, "{:>20}..={:<20} ", range.first, range.last)?;
            for (count, mark) in row.iter().zip(MARKS.iter().cycle()) {
                // Rounded up, so that whatever was seen shows.
                for _ in 0..(u128::from(*count) * BAR_WIDTH).div_ceil(longest) {
                    write!(f, "{mark}")?;
                }
            }
            writeln!(f, " {}", sum(row))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn histogram(values: &[(u64, u64)]) -> Histogram {
        let mut histogram = Histogram::new();
        values.iter().for_each(|(value, count)| histogram.record_n(*value, *count));
        histogram
    }

    #[test]
    fn nothing_recorded_prints_nothing() {
        assert_eq!(AsciiChart::<()>::default().detailed().to_string(), "");
        assert_eq!(AsciiChart::new().add("a", histogram(&[])).detailed().to_string(), "");
    }

    #[test]
    fn series_are_stacked_and_the_longest_bar_is_full() {
        let chart = AsciiChart::new().add("fast", histogram(&[(5, 30), (100, 1)])).add("slow", histogram(&[(5, 10)]));
        let text = chart.detailed().to_string();
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        assert_eq!(lines[..2], ["# fast", "= slow"]);
        assert!(lines[2].starts_with("5..=5"), "{text}");
        assert!(lines[2].ends_with(&format!("{}{} 40", "#".repeat(30), "=".repeat(10))), "{text}");
        assert!(lines[3].starts_with("96..=111") && lines[3].ends_with(" # 1"), "{text}");
        assert_eq!(lines.len(), 4);
    }

    #[test]
    fn full_buckets_and_many_series_do_not_overflow() {
        let mut chart = AsciiChart::new();
        for _ in 0..MARKS.len() + 1 {
            chart = chart.add("x", histogram(&[(u64::MAX, u64::MAX)]));
        }
        let total = u128::from(u64::MAX) * (MARKS.len() as u128 + 1);
        assert!(chart.detailed().to_string().ends_with(&format!(" {total}\n")));
    }
}
