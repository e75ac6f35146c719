//! The table: a line a figure, with Docker Swarm's beside it and what is to be reached.

use crate::lines::{LINES, Line};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// One measured figure.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Figure {
    /// In the line's unit.
    pub(crate) value: f64,
    /// What else there is to say: the worst, how many rounds.
    pub(crate) detail: String,
}

/// What stands in a cell.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cell {
    Figure(Figure),
    /// Why there is no figure.
    Missing(String),
}

/// Whose figures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Column {
    Lite,
    Swarm,
}

/// All that was measured.
#[derive(Debug, Default)]
pub(crate) struct Table {
    cells: BTreeMap<(Column, &'static str), Cell>,
    /// The machine's load while a row was measured.
    loads: BTreeMap<(Column, u8), f64>,
    began: f64,
}

/// The processes that are running or about to, averaged over the last minute.
pub(crate) fn load_average() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|word| word.parse().ok()).unwrap_or_default()
}

// === impl Figure ===

impl Figure {
    /// A bare one.
    pub(crate) fn of(value: f64) -> Self {
        Self { value, detail: String::new() }
    }

    /// With words.
    pub(crate) fn with(value: f64, detail: impl Into<String>) -> Self {
        Self { value, detail: detail.into() }
    }

    /// The median of several times, in seconds, and the worst in words.
    pub(crate) fn median(times: &[Duration]) -> Self {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let median = sorted.get(sorted.len() / 2).copied().unwrap_or_default().as_secs_f64();
        let worst = sorted.last().copied().unwrap_or_default().as_secs_f64();
        Self { value: median, detail: format!("median of {}, worst {worst:.2} s", sorted.len()) }
    }

    /// The worst of several times, in seconds.
    pub(crate) fn worst(times: &[Duration]) -> Self {
        let worst = times.iter().max().copied().unwrap_or_default();
        Self { value: worst.as_secs_f64(), detail: format!("of {}", times.len()) }
    }
}

// === impl Table ===

impl Table {
    /// An empty one, which remembers how busy the machine is now.
    pub(crate) fn new() -> Self {
        Self { began: load_average(), ..Self::default() }
    }

    /// Fills a cell.
    pub(crate) fn put(&mut self, column: Column, id: &str, figure: Figure) {
        let line = line(id);
        eprintln!("  {column}: {} {}: {} {}", line.row, line.what, line.unit.show(figure.value), figure.detail);
        self.loads.insert((column, line.row), load_average());
        self.cells.insert((column, line.id), Cell::Figure(figure));
    }

    /// Says why a row has no figures, in every cell of it that has none yet.
    pub(crate) fn miss(&mut self, column: Column, row: u8, reason: &str) {
        eprintln!("  {column}: {row} NOT MEASURED: {reason}");
        let reason = reason.lines().next().unwrap_or_default();
        for line in LINES.iter().filter(|line| line.row == row) {
            self.cells.entry((column, line.id)).or_insert_with(|| Cell::Missing(reason.to_string()));
        }
    }

    fn value(&self, column: Column, id: &'static str) -> Option<f64> {
        match self.cells.get(&(column, id)) {
            Some(Cell::Figure(figure)) => Some(figure.value),
            _ => None,
        }
    }

    /// How many times as good as Docker Swarm.
    fn advantage(&self, line: &Line) -> Option<f64> {
        let (ours, theirs) = (self.value(Column::Lite, line.id)?, self.value(Column::Swarm, line.id)?);
        let (good, bad) = if line.unit.more_is_better() { (ours, theirs) } else { (theirs, ours) };
        (bad > 0.0 && good > 0.0).then_some(good / bad)
    }

    /// Whether what is to be reached is; none when nobody can say.
    fn reached(&self, line: &Line) -> Option<bool> {
        line.target.reached(self.value(Column::Lite, line.id)?, self.advantage(line))
    }

    /// The lines of which something was asked for.
    fn shown(&self) -> impl Iterator<Item = &'static Line> {
        LINES.iter().filter(|line| self.cells.keys().any(|(_, id)| *id == line.id))
    }

    /// As Markdown.
    pub(crate) fn render(&self) -> String {
        let mut text = String::from(
            "\n| row | what | Docker Swarm | Swarmlite | × | to reach | reached | load (Swarm · ours) |\n|---|---|---|---|---|---|---|---|\n",
        );
        for line in self.shown() {
            let times = self.advantage(line).map_or_else(String::new, |times| format!("{times:.1}"));
            let reached = self.reached(line).map_or("", |reached| if reached { "yes" } else { "NO" });
            text.push_str(&format!(
                "| {} | {} | {} | {} | {times} | {} | {reached} | {} · {} |\n",
                line.row,
                line.what,
                self.cell(Column::Swarm, line),
                self.cell(Column::Lite, line),
                line.target,
                self.load(Column::Swarm, line.row),
                self.load(Column::Lite, line.row),
            ));
        }
        text.push_str(&format!(
            "\n× is how many times as good as Docker Swarm in the same run. {} cores; load average {:.1} at the start, {:.1} at the end.\n",
            cores(),
            self.began,
            load_average()
        ));
        text
    }

    fn load(&self, column: Column, row: u8) -> String {
        self.loads.get(&(column, row)).map_or_else(|| "–".into(), |load| format!("{load:.1}"))
    }

    fn cell(&self, column: Column, line: &Line) -> String {
        match self.cells.get(&(column, line.id)) {
            Some(Cell::Figure(figure)) if figure.detail.is_empty() => line.unit.show(figure.value),
            Some(Cell::Figure(figure)) => format!("{} ({})", line.unit.show(figure.value), figure.detail),
            Some(Cell::Missing(reason)) => format!("not measured: {}", reason.replace('|', "/")),
            None => "–".into(),
        }
    }

    /// For other programs.
    pub(crate) fn json(&self) -> Value {
        let cell = |column, line: &Line| match self.cells.get(&(column, line.id)) {
            Some(Cell::Figure(figure)) => {
                json!({ "value": figure.value, "detail": figure.detail, "load_average": self.loads.get(&(column, line.row)) })
            }
            Some(Cell::Missing(reason)) => json!({ "missing": reason }),
            None => Value::Null,
        };
        let rows: Vec<Value> = self
            .shown()
            .map(|line| {
                json!({
                    "row": line.row,
                    "id": line.id,
                    "what": line.what,
                    "unit": line.unit.name(),
                    "docker_swarm": cell(Column::Swarm, line),
                    "swarmlite": cell(Column::Lite, line),
                    "times_as_good": self.advantage(line),
                    "target": line.target.to_string(),
                    "reached": self.reached(line),
                })
            })
            .collect();
        json!({
            "cores": cores(),
            "load_average": { "start": self.began, "end": load_average() },
            "rows": rows,
        })
    }
}

impl fmt::Display for Column {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Lite => "swarmlite",
            Self::Swarm => "docker swarm",
        })
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

fn line(id: &str) -> &'static Line {
    LINES.iter().find(|line| line.id == id).expect("a figure belongs to a line of the table")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread() {
        let times = [3, 1, 2].map(Duration::from_secs);
        assert_eq!(Figure::median(&times), Figure::with(2.0, "median of 3, worst 3.00 s"));
        assert_eq!(Figure::worst(&times), Figure::with(3.0, "of 3"));
    }

    #[test]
    fn a_figure_beside_docker_swarms() {
        let mut table = Table::new();
        table.put(Column::Swarm, "writes-16", Figure::of(400.0));
        table.put(Column::Lite, "writes-16", Figure::of(3000.0));
        let text = table.render();
        assert!(text.contains("| 400 /s | 3000 /s | 7.5 | ≥ 10 × Swarm's | NO |"), "{text}");
        assert_eq!(table.json()["rows"][0]["reached"], false);
    }

    #[test]
    fn a_row_that_cannot_be_measured_says_why() {
        let mut table = Table::new();
        table.put(Column::Lite, "binary", Figure::of(12.0));
        table.miss(Column::Swarm, 10, "no dockerd\nmore");
        let text = table.render();
        assert!(text.contains("| not measured: no dockerd | 12.0 MB |  | ≤ 30.0 MB | yes |"), "{text}");
        assert_eq!(table.json()["rows"][0]["docker_swarm"]["missing"], "no dockerd");
    }
}
