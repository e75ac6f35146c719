//! Writes the lines of a watcher: in place on a terminal, one after the other elsewhere.

use super::Lines;

/// Width of a bar between its brackets.
const BAR_WIDTH: u64 = 50;
/// Room for the longest state, so that the bars stand below each other.
const STATE_WIDTH: usize = 9;

/// Where the lines go.
pub(super) struct Painter {
    in_place: bool,
    painted: usize,
}

impl Painter {
    /// One that moves the cursor, when there is a terminal.
    pub(super) fn new(in_place: bool) -> Painter {
        Painter { in_place, painted: 0 }
    }

    /// What is to be written now.
    pub(super) fn paint(&mut self, lines: &mut Lines) -> String {
        let changed = std::mem::take(&mut lines.changed);
        if changed.is_empty() {
            return String::new();
        }
        if !self.in_place {
            let told = lines.names.iter().filter(|n| changed.contains(*n)).filter_map(|n| {
                let text = lines.lines[n].text.trim_end();
                (!text.is_empty()).then(|| format!("{}{text}\n", prefix(n)))
            });
            return told.collect();
        }
        let mut out = if self.painted > 0 { format!("\x1b[{}A", self.painted) } else { String::new() };
        for name in &lines.names {
            let line = &lines.lines[name];
            let bar = line.step.map(|(done, of)| bar(done, of)).unwrap_or_default();
            let width = if line.step.is_some() { STATE_WIDTH } else { 0 };
            out.push_str(&format!("\x1b[2K\r{}{:width$}{bar}\n", prefix(name), line.text));
        }
        // A line may be gone.
        out.push_str("\x1b[J");
        self.painted = lines.names.len();
        out
    }
}

fn prefix(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!("{name}: ") }
}

/// `[=====>     ]`.
fn bar(done: u64, of: u64) -> String {
    let filled = (BAR_WIDTH * done).checked_div(of).map_or(BAR_WIDTH, |filled| filled.min(BAR_WIDTH));
    let arrow = if filled < BAR_WIDTH { ">" } else { "" };
    let width = BAR_WIDTH as usize;
    format!(" [{:width$}]", format!("{}{arrow}", "=".repeat(filled as usize)))
}
