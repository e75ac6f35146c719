//! How a service converges, as Docker shows it: an overall line, a line for each slot, and a while in which the tasks
//! must stay up.

use crate::context::Context;
use crate::error::CliError;
use docker_api::{Node, Service, Task};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often the daemon is asked.
const INTERVAL: Duration = Duration::from_millis(200);
/// How long tasks must stay up when the service does not say.
const MONITOR: Duration = Duration::from_secs(5);
/// With more tasks than this there is only the overall line.
const BARS_MAX: u64 = 20;
/// The longest task error in a line.
const ERROR_CHARS_MAX: usize = 75;
/// Width of a bar between its brackets.
const BAR_WIDTH: usize = 50;
/// Steps of a task that fill a bar.
const STATES: [&str; 9] =
    ["new", "allocated", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running"];
const TERMINAL_STATES: [&str; 6] = ["complete", "shutdown", "failed", "rejected", "remove", "orphaned"];

/// What the watcher concluded from a look.
#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Watch,
    Converged,
    Failed(String),
}

/// A line: its name, what happens, and how far it is in tenths of a bar.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    text: String,
    step: Option<usize>,
}

/// Follows one service, without I/O.
#[derive(Debug, Default)]
struct Watcher {
    /// In the order in which they appeared.
    names: Vec<String>,
    lines: BTreeMap<String, Line>,
    changed: BTreeSet<String>,
    bar_of_slot: BTreeMap<u64, u64>,
    started: bool,
    done: bool,
    rolling_back: bool,
    converged_at: Option<Duration>,
    last_words: Option<(String, String)>,
}

/// Writes the lines of a [`Watcher`]: in place on a terminal, one after the other elsewhere.
struct Painter {
    in_place: bool,
    painted: usize,
}

/// Watches a service until it has converged, an update has stopped, or the user has seen enough (Ctrl-C).
pub(crate) async fn wait(ctx: &Context, id: &str, quiet: bool) -> Result<(), CliError> {
    let mut watcher = Watcher::default();
    let mut painter = Painter { in_place: ctx.is_terminal(), painted: 0 };
    let started = tokio::time::Instant::now();
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        let look = async {
            let service: Service = ctx.client.get(&format!("/services/{id}"), &[]).await?;
            let filters = serde_json::json!({"service": {id: true}, "_up-to-date": {"true": true}}).to_string();
            let tasks: Vec<Task> = ctx.client.get("/tasks", &[("filters", filters)]).await?;
            let nodes: Vec<Node> = ctx.client.get("/nodes", &[]).await?;
            Ok::<_, CliError>((service, tasks, nodes))
        };
        let seen = tokio::select! {
            biased;
            _ = &mut interrupted => return left(ctx, id),
            seen = look => seen?,
        };
        let outcome = watcher.look(&seen.0, &seen.1, &seen.2, started.elapsed());
        if !quiet {
            ctx.out(&painter.paint(&mut watcher))?;
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
        let Some(replicas) = service.spec.mode.replicated.as_ref().map(|r| r.replicas.unwrap_or(1)) else {
            return Outcome::Converged;
        };
        if let Some(failed) = self.update_status(service) {
            return failed;
        }
        let monitor = service.spec.update_config.as_ref().and_then(|c| c.monitor.to_std()).filter(|m| !m.is_zero());
        let monitor = monitor.unwrap_or(MONITOR);
        if self.converged_at.is_some_and(|at| now.saturating_sub(at) >= monitor) {
            self.say("verify", format!("Service {} converged", service.id), None);
            if let Some((name, words)) = self.last_words.take() {
                self.say(&name, words, None);
            }
            return Outcome::Converged;
        }
        if self.tasks(replicas, tasks, nodes) {
            let at = *self.converged_at.get_or_insert(now);
            let left = monitor.saturating_sub(now.saturating_sub(at));
            self.say(
                "verify",
                format!(
                    "Waiting {} seconds to verify that tasks are stable...",
                    left.saturating_sub(Duration::from_nanos(1)).as_secs() + 1
                ),
                None,
            );
        } else if self.converged_at.take().is_some() {
            self.say("verify", "Detected task failure".to_owned(), None);
        }
        Outcome::Watch
    }

    fn update_status(&mut self, service: &Service) -> Option<Outcome> {
        let status = service.update_status.as_ref()?;
        match status.state.as_str() {
            "updating" => self.rolling_back = false,
            "paused" => return Some(Outcome::Failed(format!("service update paused: {}", status.message))),
            "rollback_paused" => return Some(Outcome::Failed(format!("service rollback paused: {}", status.message))),
            "rollback_started" => {
                if !self.rolling_back && !status.message.is_empty() {
                    self.say("rollback", status.message.clone(), None);
                }
                self.rolling_back = true;
            }
            "rollback_completed" => {
                if self.converged_at.is_none() {
                    self.last_words = Some(("rollback".to_owned(), status.message.clone()));
                }
                self.rolling_back = true;
            }
            _ => {}
        }
        None
    }

    /// True when as many tasks run as shall.
    fn tasks(&mut self, replicas: u64, tasks: &[Task], nodes: &[Node]) -> bool {
        if !self.started {
            self.started = true;
            self.overall(0, replicas);
            if replicas <= BARS_MAX {
                (1..=replicas).for_each(|slot| self.say(&format!("{slot}/{replicas}"), String::new(), None));
            }
        }
        let active: BTreeSet<&str> = nodes.iter().filter(|n| n.status.state != "down").map(|n| n.id.as_str()).collect();
        let current = task_of_each_slot(tasks, &active);
        self.done &= current.values().all(|t| t.status.state == "running");
        let mut running = 0;
        for task in current.values() {
            let next = self.bar_of_slot.len() as u64 + 1;
            let bar = *self.bar_of_slot.entry(task.slot).or_insert(next);
            running += u64::from(!is_terminal(&task.desired_state) && task.status.state == "running");
            if !self.done && replicas <= BARS_MAX && bar <= replicas {
                self.task(bar, replicas, task);
            }
        }
        if !self.done {
            self.overall(running, replicas);
            self.done = running == replicas;
        }
        running == replicas
    }

    fn task(&mut self, bar: u64, replicas: u64, task: &Task) {
        let name = format!("{bar}/{replicas}");
        if !task.status.err.is_empty() {
            self.say(&name, shortened(&task.status.err), None);
        } else if !is_terminal(&task.desired_state) && !is_terminal(&task.status.state) {
            self.say(&name, task.status.state.clone(), step(&task.status.state));
        }
    }

    fn overall(&mut self, running: u64, replicas: u64) {
        let what = if self.rolling_back { "rolling back update" } else { "overall progress" };
        let gone = if self.rolling_back { "overall progress" } else { "rolling back update" };
        if self.lines.contains_key(gone) {
            self.say(gone, "stopped".to_owned(), None);
        }
        self.say(what, format!("{running} out of {replicas} tasks"), None);
    }

    fn say(&mut self, name: &str, text: String, step: Option<usize>) {
        let line = Line { text, step };
        if self.lines.get(name) == Some(&line) {
            return;
        }
        if self.lines.insert(name.to_owned(), line).is_none() {
            self.names.push(name.to_owned());
        }
        self.changed.insert(name.to_owned());
    }
}

fn step(state: &str) -> Option<usize> {
    STATES.iter().position(|s| *s == state).map(|at| at + 1)
}

fn is_terminal(state: &str) -> bool {
    TERMINAL_STATES.contains(&state)
}

/// The order of states, of those that are wanted and those that are.
fn rank(state: &str) -> usize {
    step(state)
        .or_else(|| TERMINAL_STATES.iter().position(|s| *s == state).map(|at| STATES.len() + 1 + at))
        .unwrap_or(0)
}

/// Of several tasks of a slot, the one that shall run; of several of those (start-first updates), the one behind.
fn task_of_each_slot<'a>(tasks: &'a [Task], active: &BTreeSet<&str>) -> BTreeMap<u64, &'a Task> {
    let mut current: BTreeMap<u64, &Task> = BTreeMap::new();
    for task in tasks {
        let order = |t: &Task| (rank(&t.desired_state), rank(&t.status.state));
        if order(task).0 == 0 || order(task).1 == 0 {
            continue;
        }
        if current.get(&task.slot).is_some_and(|other| order(other) <= order(task)) {
            continue;
        }
        if task.node_id.is_empty() || active.contains(task.node_id.as_str()) {
            current.insert(task.slot, task);
        }
    }
    current
}

fn shortened(error: &str) -> String {
    let error = error.replace('\n', " ");
    if error.chars().count() <= ERROR_CHARS_MAX {
        error
    } else {
        error.chars().take(ERROR_CHARS_MAX - 1).chain(['…']).collect()
    }
}

// === impl Painter ===

impl Painter {
    fn paint(&mut self, watcher: &mut Watcher) -> String {
        let changed = std::mem::take(&mut watcher.changed);
        if changed.is_empty() {
            return String::new();
        }
        if !self.in_place {
            let lines = watcher.names.iter().filter(|n| changed.contains(*n)).filter_map(|n| {
                let text = &watcher.lines[n].text;
                (!text.is_empty()).then(|| format!("{n}: {text}\n"))
            });
            return lines.collect();
        }
        let mut out = if self.painted > 0 { format!("\x1b[{}A", self.painted) } else { String::new() };
        for name in &watcher.names {
            let line = &watcher.lines[name];
            let bar = line.step.map(bar).unwrap_or_default();
            let width = if line.step.is_some() { 9 } else { 0 };
            out.push_str(&format!("\x1b[2K\r{name}: {:width$}{bar}\n", line.text));
        }
        self.painted = watcher.names.len();
        out
    }
}

/// `[=====>     ]`.
fn bar(step: usize) -> String {
    let filled = BAR_WIDTH * step / STATES.len();
    let arrow = if filled < BAR_WIDTH { ">" } else { "" };
    format!(" [{:BAR_WIDTH$}]", format!("{}{arrow}", "=".repeat(filled)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn service(replicas: u64, status: serde_json::Value) -> Service {
        serde_json::from_value(
            json!({"ID": "svc", "CreatedAt": "2026-01-01T00:00:00Z", "UpdatedAt": "2026-01-01T00:00:00Z",
            "Spec": {"Mode": {"Replicated": {"Replicas": replicas}}}, "UpdateStatus": status}),
        )
        .unwrap()
    }

    fn task(slot: u64, state: &str, error: &str) -> Task {
        serde_json::from_value(json!({"ID": format!("t{slot}"), "Slot": slot, "NodeID": "n", "DesiredState": "running",
            "Status": {"State": state, "Err": error}}))
        .unwrap()
    }

    fn nodes() -> Vec<Node> {
        vec![serde_json::from_value(json!({"ID": "n", "Status": {"State": "ready"}})).unwrap()]
    }

    /// Looks at each of the states, a second apart, and returns what a log would show.
    fn told(looks: &[(Service, Vec<Task>)]) -> (String, Outcome) {
        let (mut watcher, mut painter) = (Watcher::default(), Painter { in_place: false, painted: 0 });
        let (mut text, mut outcome) = (String::new(), Outcome::Watch);
        for (second, (service, tasks)) in looks.iter().enumerate() {
            outcome = watcher.look(service, tasks, &nodes(), Duration::from_secs(second as u64));
            text += &painter.paint(&mut watcher);
        }
        (text, outcome)
    }

    #[test]
    fn a_service_converges_line_by_line() {
        let up = || (service(2, json!(null)), vec![task(1, "running", ""), task(2, "running", "")]);
        let mut looks = vec![
            (service(2, json!(null)), vec![]),
            (service(2, json!(null)), vec![task(1, "preparing", ""), task(2, "running", "")]),
        ];
        looks.extend((0..6).map(|_| up()));
        let want = "overall progress: 0 out of 2 tasks\n\
            overall progress: 1 out of 2 tasks\n1/2: preparing\n2/2: running\n\
            overall progress: 2 out of 2 tasks\n1/2: running\nverify: Waiting 5 seconds to verify that tasks are stable...\n\
            verify: Waiting 4 seconds to verify that tasks are stable...\n\
            verify: Waiting 3 seconds to verify that tasks are stable...\n\
            verify: Waiting 2 seconds to verify that tasks are stable...\n\
            verify: Waiting 1 seconds to verify that tasks are stable...\n\
            verify: Service svc converged\n";
        assert_eq!(told(&looks), (want.to_owned(), Outcome::Converged));
    }

    #[test]
    fn a_failing_task_says_why_and_stops_the_wait() {
        let looks = [
            (service(1, json!(null)), vec![task(1, "running", "")]),
            (service(1, json!(null)), vec![task(1, "pending", "no suitable node (insufficient resources on 3 nodes)")]),
        ];
        let (text, outcome) = told(&looks);
        assert!(
            text.ends_with(
                "1/1: no suitable node (insufficient resources on 3 nodes)\nverify: Detected task failure\n"
            ),
            "{text}"
        );
        assert_eq!(outcome, Outcome::Watch);
    }

    #[test]
    fn a_paused_update_is_an_error() {
        let paused = service(1, json!({"State": "paused", "Message": "update paused due to failure"}));
        assert_eq!(
            told(&[(paused, vec![])]).1,
            Outcome::Failed("service update paused: update paused due to failure".to_owned())
        );
    }

    #[test]
    fn nothing_to_run_is_converged_at_once() {
        let looks: Vec<_> = (0..7).map(|_| (service(0, json!(null)), vec![])).collect();
        assert_eq!(told(&looks).1, Outcome::Converged);
    }

    #[test]
    fn a_terminal_is_painted_in_place() {
        let (mut watcher, mut painter) = (Watcher::default(), Painter { in_place: true, painted: 0 });
        watcher.look(&service(1, json!(null)), &[task(1, "ready", "")], &nodes(), Duration::ZERO);
        let first = painter.paint(&mut watcher);
        assert!(first.contains("1/1: ready     [======================================>           ]\n"), "{first}");
        watcher.look(&service(1, json!(null)), &[task(1, "running", "")], &nodes(), Duration::from_secs(1));
        let second = painter.paint(&mut watcher);
        assert!(second.starts_with("\x1b[2A") && second.contains(&"=".repeat(BAR_WIDTH)), "{second}");
    }
}
