//! How a service converges, as Docker shows it: an overall line, a line for each task, and a while in which the tasks must
//! stay up. Where it does not converge, one more line says why.

mod modes;
mod painter;
#[cfg(test)]
mod tests;

use super::extensions::{SCHEDULE, TIMEZONE};
use crate::commands::why;
use crate::context::Context;
use crate::error::CliError;
use crate::terminal;
use docker_api::{Node, Service, Task};
use painter::Painter;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often the daemon is asked.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long tasks must stay up when the service does not say.
const MONITOR: Duration = Duration::from_secs(5);
/// When nothing has happened for so long, the daemon is asked why, and so often from then on.
const STUCK: Duration = Duration::from_secs(2);
/// The longest error of a task in a line: it must not run over on a narrow terminal.
const CHARS_MAX: usize = 75;
/// The line that says why nothing happens.
const WHY: &str = "why";
/// Its longest text, where no terminal is too narrow for it.
const WHY_CHARS_MAX: usize = 1000;

/// What the watcher concluded from a look.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Watch,
    Converged,
    Failed(String),
}

/// A line: what happens, and how far it is (steps done, and of how many).
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    text: String,
    step: Option<(u64, u64)>,
}

/// What is on the screen, without I/O. A line without a name is its text alone.
#[derive(Debug, Default)]
struct Lines {
    /// In the order in which they appeared.
    names: Vec<String>,
    lines: BTreeMap<String, Line>,
    changed: BTreeSet<String>,
}

/// Follows one service, without I/O.
#[derive(Debug, Default)]
struct Watcher {
    lines: Lines,
    tally: modes::Tally,
    rolling_back: bool,
    converged_at: Option<Duration>,
    /// When the last line changed, and what the time is.
    moved_at: Duration,
    now: Duration,
    last_words: Option<String>,
    /// Columns of the terminal, when there is one.
    columns: Option<usize>,
    /// A scheduled job was told to run now.
    runs_now: bool,
}

/// Watches a service until it has converged, an update has stopped, or the user has seen enough (Ctrl-C).
pub(crate) async fn wait(ctx: &Context, id: &str, quiet: bool) -> Result<(), CliError> {
    watch(ctx, id, quiet, Watcher::default()).await
}

/// The same after `--force`, which has a job run now that has a schedule for it.
pub(crate) async fn wait_for_run(ctx: &Context, id: &str, quiet: bool) -> Result<(), CliError> {
    watch(ctx, id, quiet, Watcher { runs_now: true, ..Watcher::default() }).await
}

async fn watch(ctx: &Context, id: &str, quiet: bool, mut watcher: Watcher) -> Result<(), CliError> {
    watcher.columns = terminal::size().map(|[_, columns]| usize::from(columns));
    let mut painter = Painter::new(ctx.is_terminal());
    let started = tokio::time::Instant::now();
    let mut asked_at = Duration::ZERO;
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        let ask = !quiet && watcher.is_stuck() && started.elapsed() - asked_at >= STUCK;
        if ask {
            asked_at = started.elapsed();
        }
        let look = async {
            let service: Service = ctx.client.get(&format!("/services/{id}"), &[]).await?;
            let filters = serde_json::json!({"service": {id: true}, "_up-to-date": {"true": true}}).to_string();
            let tasks: Vec<Task> = ctx.client.get("/tasks", &[("filters", filters)]).await?;
            let nodes: Vec<Node> = ctx.client.get("/nodes", &[]).await?;
            let reason = if ask { Some(why::line(&ctx.client, id).await) } else { None };
            Ok::<_, CliError>((service, tasks, nodes, reason))
        };
        let (service, tasks, nodes, reason) = tokio::select! {
            biased;
            _ = &mut interrupted => return left(ctx, id),
            seen = look => seen?,
        };
        let outcome = watcher.look(&service, &tasks, &nodes, started.elapsed());
        if let Some(reason) = reason.filter(|_| outcome == Outcome::Watch) {
            watcher.explain(reason);
        }
        if !quiet {
            ctx.out(&painter.paint(&mut watcher.lines))?;
        }
        match outcome {
            Outcome::Watch => {}
            Outcome::Converged => return Ok(()),
            Outcome::Failed(reason) => return Err(CliError::text(reason)),
        }
        tokio::select! {
            biased;
            _ = &mut interrupted => return left(ctx, id),
            () = tokio::time::sleep(INTERVAL) => {}
        }
    }
}

fn left(ctx: &Context, id: &str) -> Result<(), CliError> {
    ctx.line("Operation continuing in background.")?;
    ctx.line(format!("Use `swarmlite service ps {id}` to check progress."))
}

// === impl Watcher ===

impl Watcher {
    /// Takes in what the daemon says at `now` (time since the start).
    fn look(&mut self, service: &Service, tasks: &[Task], nodes: &[Node], now: Duration) -> Outcome {
        self.now = now;
        if let Some(schedule) = service.spec.labels.get(SCHEDULE).filter(|_| !self.runs_now) {
            let zone = service.spec.labels.get(TIMEZONE).map_or("UTC", String::as_str);
            self.lines.say("schedule", format!("runs at {schedule:?} ({zone}), not now"), None);
            return Outcome::Converged;
        }
        if let Some(over) = self.update_status(service) {
            return over;
        }
        let monitor = service.spec.update_config.as_ref().and_then(|c| c.monitor.to_std()).filter(|m| !m.is_zero());
        let monitor = monitor.unwrap_or(MONITOR);
        if self.converged_at.is_some_and(|at| now.saturating_sub(at) >= monitor) {
            self.lines.say("verify", format!("Service {} converged", service.id), None);
            if let Some(words) = self.last_words.take() {
                self.lines.say("rollback", words, None);
            }
            return Outcome::Converged;
        }
        let before = self.lines.changed.len();
        let up = self.tally.take(&mut self.lines, service, tasks, nodes, self.rolling_back);
        if self.lines.changed.len() > before {
            self.moved_at = now;
        }
        if up && super::spec::is_job(&service.spec.mode) {
            // What is done stays done: there is nothing to verify.
            self.explain(None);
            self.lines.say("", "job complete".to_owned(), None);
            return Outcome::Converged;
        }
        self.verify(up, monitor);
        Outcome::Watch
    }

    fn verify(&mut self, up: bool, monitor: Duration) {
        if up {
            self.explain(None);
            let at = *self.converged_at.get_or_insert(self.now);
            let left = monitor.saturating_sub(self.now.saturating_sub(at));
            let seconds = left.saturating_sub(Duration::from_nanos(1)).as_secs() + 1;
            self.lines.say("verify", format!("Waiting {seconds} seconds to verify that tasks are stable..."), None);
        } else if self.converged_at.take().is_some() {
            self.lines.say("verify", "Detected task failure".to_owned(), None);
        }
    }

    fn update_status(&mut self, service: &Service) -> Option<Outcome> {
        let status = service.update_status.as_ref()?;
        match status.state.as_str() {
            "updating" => self.rolling_back = false,
            // An update that goes on after failures may end without all tasks up.
            "completed" if self.converged_at.is_none() => return Some(Outcome::Converged),
            "paused" => return Some(Outcome::Failed(format!("service update paused: {}", status.message))),
            "rollback_paused" => return Some(Outcome::Failed(format!("service rollback paused: {}", status.message))),
            "rollback_started" => {
                if !self.rolling_back && !status.message.is_empty() {
                    self.lines.say("rollback", status.message.clone(), None);
                }
                self.rolling_back = true;
            }
            "rollback_completed" => {
                if self.converged_at.is_none() {
                    self.last_words = Some(status.message.clone());
                }
                self.rolling_back = true;
            }
            _ => {}
        }
        None
    }

    /// True when it is time to ask why nothing happens.
    fn is_stuck(&self) -> bool {
        self.converged_at.is_none() && !self.tally.at_work && self.now.saturating_sub(self.moved_at) >= STUCK
    }

    /// Says why nothing happens, or no longer.
    fn explain(&mut self, reason: Option<String>) {
        match reason {
            Some(reason) => {
                // The line's name, and the last column, where some terminals begin a new line.
                let room = self.columns.map_or(WHY_CHARS_MAX, |columns| columns.saturating_sub(WHY.len() + 3));
                self.lines.say(WHY, shortened(&reason, room), None);
            }
            None => self.lines.unsay(WHY),
        }
    }
}

// === impl Lines ===

impl Lines {
    fn say(&mut self, name: &str, text: String, step: Option<(u64, u64)>) {
        let line = Line { text, step };
        if self.lines.get(name) == Some(&line) {
            return;
        }
        if self.lines.insert(name.to_owned(), line).is_none() {
            self.names.push(name.to_owned());
        }
        self.changed.insert(name.to_owned());
    }

    fn unsay(&mut self, name: &str) {
        if self.lines.remove(name).is_some() {
            self.names.retain(|n| n != name);
            self.changed.insert(name.to_owned());
        }
    }
}

/// A text without line ends, and not longer than there is room for.
fn shortened(text: &str, room: usize) -> String {
    let text = text.replace('\n', " ");
    if text.chars().count() <= room { text } else { text.chars().take(room.saturating_sub(1)).chain(['…']).collect() }
}
