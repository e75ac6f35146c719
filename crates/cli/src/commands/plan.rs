//! `--plan`: what a change would do, asked of the daemon instead of doing it. The exit code says whether it would do
//! anything.

use crate::client::{Query, decode};
use crate::context::Context;
use crate::error::CliError;
use crate::format::table;
use clap::Args;
use docker_api::{Forecast, ForecastNode, ForecastService, ForecastStep, ForecastUnplaced, GoDuration};
use serde::Serialize;

/// The exit code of a plan with changes in it, as Terraform and others have it; 0 is a plan without.
pub(crate) const EXIT_CHANGES: u8 = 2;
/// How our daemon names itself.
const SERVER: &str = "Swarmlite/";

/// The flag of every command that changes something.
#[derive(Args, Debug, Clone, Copy, Default)]
pub(crate) struct PlanFlag {
    /// Change nothing; print what would happen (exit code 0: nothing, 2: something)
    #[arg(long)]
    pub(crate) plan: bool,
}

/// Asks what a `POST` would do, and shows it.
pub(crate) async fn post(
    ctx: &Context,
    path: &str,
    query: Query<'_>,
    body: &impl Serialize,
    headers: &[(&str, String)],
) -> Result<(), CliError> {
    can_plan(ctx).await?;
    let answer = ctx.client.post_with(path, &with_plan(query), body, headers).await?;
    show(ctx, &decode(&format!("POST {path}?plan=1"), &answer)?)
}

/// Asks what a `DELETE` would do, and shows it.
pub(crate) async fn delete(ctx: &Context, path: &str, query: Query<'_>) -> Result<(), CliError> {
    can_plan(ctx).await?;
    let answer = ctx.client.delete_raw(path, &with_plan(query)).await?;
    show(ctx, &decode(&format!("DELETE {path}?plan=1"), &answer)?)
}

fn with_plan<'a>(query: Query<'a>) -> Vec<(&'a str, String)> {
    query.iter().cloned().chain([("plan", "1".to_owned())]).collect()
}

/// A daemon that does not know `plan` would make the change.
async fn can_plan(ctx: &Context) -> Result<(), CliError> {
    let server = ctx.client.server_name().await?;
    if server.starts_with(SERVER) {
        return Ok(());
    }
    Err(CliError::text(format!(
        "--plan needs a Swarmlite daemon: this one calls itself {server:?} and would make the change instead. Nothing was changed"
    )))
}

/// Prints a forecast. One with changes ends in [`EXIT_CHANGES`].
pub(crate) fn show(ctx: &Context, forecast: &Forecast) -> Result<(), CliError> {
    ctx.out(&text(forecast))?;
    if forecast.changes { Err(CliError::Silent(EXIT_CHANGES)) } else { Ok(()) }
}

/// The forecast, as people read it.
pub(crate) fn text(forecast: &Forecast) -> String {
    let mut parts = Vec::new();
    if !forecast.changes {
        parts.push("Nothing would change.\n".to_owned());
    }
    if !forecast.objects.is_empty() {
        parts.push(forecast.objects.iter().map(|o| format!("{o}\n")).collect());
    }
    parts.extend(steps(&forecast.steps));
    parts.extend(services(&forecast.services));
    parts.extend(unplaced(&forecast.unplaced));
    parts.extend(landing(&forecast.landing));
    if forecast.changes {
        parts.push(ends(&forecast.ends));
    }
    if !forecast.notes.is_empty() {
        parts.push(forecast.notes.iter().map(|n| format!("Note: {n}\n")).collect());
    }
    parts.join("\n")
}

fn aligned(rows: Vec<String>) -> Option<String> {
    // The first is the header.
    (rows.len() > 1).then(|| table::align(&rows.concat(), table::MIN_WIDTH, table::PADDING))
}

fn steps(steps: &[ForecastStep]) -> Option<String> {
    let rows = steps.iter().map(|s| {
        format!("{}\t{}\t{}\t{}\t{}\n", at(s.at_ms), s.action, name(&s.service, s.slot), place(s), one_line(&s.why))
    });
    aligned(["AT\tACTION\tTASK\tNODE\tWHY\n".to_owned()].into_iter().chain(rows).collect())
}

fn at(ms: u64) -> String {
    if ms == 0 { "at once".to_owned() } else { format!("+{}", millis(ms)) }
}

fn millis(ms: u64) -> GoDuration {
    GoDuration(i64::try_from(ms).unwrap_or(i64::MAX).saturating_mul(1_000_000))
}

/// `web.1`, or `web` for a task of a global service, which its node tells apart.
fn name(service: &str, slot: u64) -> String {
    if slot == 0 { service.to_owned() } else { format!("{service}.{slot}") }
}

fn place(step: &ForecastStep) -> String {
    match (step.from_node.as_str(), step.to_node.as_str()) {
        ("", "") => "-".to_owned(),
        (from, "") => from.to_owned(),
        ("", to) => to.to_owned(),
        (from, to) if from == to => to.to_owned(),
        (from, to) => format!("{from} -> {to}"),
    }
}

fn one_line(text: &str) -> String {
    text.replace(['\n', '\t'], " ")
}

fn services(services: &[ForecastService]) -> Option<String> {
    let rows = services.iter().map(|s| {
        let wanted = match (s.wanted_before, s.wanted_after) {
            (before, after) if before == after => after.to_string(),
            (before, after) => format!("{before} -> {after}"),
        };
        // Fewer than wanted is a dip only below what is wanted all the time.
        let dip = if s.dip_ms == 0 { "none".to_owned() } else { format!("for {}", millis(s.dip_ms)) };
        format!("{}\t{wanted}\t{}\t{dip}\n", s.service, s.least_running)
    });
    aligned(["SERVICE\tTASKS WANTED\tLEAST RUNNING\tTOO FEW\n".to_owned()].into_iter().chain(rows).collect())
}

fn unplaced(unplaced: &[ForecastUnplaced]) -> Option<String> {
    let rows = unplaced.iter().map(|u| format!("{}\t{}\n", name(&u.service, u.slot), one_line(&u.reason)));
    aligned(["NO PLACE FOR\tWHY\n".to_owned()].into_iter().chain(rows).collect())
}

fn landing(nodes: &[ForecastNode]) -> Option<String> {
    let rows = nodes.iter().map(|n| {
        let tasks: Vec<String> = n.tasks.iter().map(|(service, count)| format!("{count} {service}")).collect();
        let host = if n.hostname.is_empty() { &n.node } else { &n.hostname };
        let tasks = if tasks.is_empty() { "-".to_owned() } else { tasks.join(", ") };
        format!("{host}\t{tasks}\n")
    });
    aligned(["NODE\tTASKS IN THE END\n".to_owned()].into_iter().chain(rows).collect())
}

fn ends(ends: &str) -> String {
    match ends {
        "" => "Nothing was changed: this is a plan.\n".to_owned(),
        "settled" => "In the end everything is settled. Nothing was changed: this is a plan.\n".to_owned(),
        "waiting" => {
            "In the end something still waits, for a place or for time to pass. Nothing was changed: this is a plan.\n"
                .to_owned()
        }
        other => format!("In the end: {other}. Nothing was changed: this is a plan.\n"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(forecast: serde_json::Value) -> String {
        text(&serde_json::from_value(forecast).unwrap())
    }

    #[test]
    fn a_plan_is_read_from_top_to_bottom() {
        let got = shown(json!({
            "Changes": true, "Objects": ["node host1: availability active -> drain"],
            "Steps": [
                {"AtMs": 0, "Action": "move", "Service": "web", "Slot": 1, "Task": "t1", "FromNode": "host1", "ToNode": "host2", "Why": "the node is drained"},
                {"AtMs": 1500, "Action": "stop", "Service": "agent", "Slot": 0, "Task": "t2", "FromNode": "host1", "ToNode": "", "Why": "the node is\ndrained"},
                {"AtMs": 65000, "Action": "update-status", "Service": "web", "Slot": 0, "Task": "", "FromNode": "", "ToNode": "", "Why": "update completed"},
            ],
            "Services": [
                {"Service": "web", "WantedBefore": 3, "WantedAfter": 3, "LeastRunning": 2, "DipMs": 2500},
                {"Service": "agent", "WantedBefore": 2, "WantedAfter": 1, "LeastRunning": 1, "DipMs": 0},
            ],
            "Unplaced": [{"Service": "db", "Slot": 1, "Reason": "no suitable node"}],
            "Landing": [{"Node": "n1", "Hostname": "host1", "Tasks": {}}, {"Node": "n2", "Hostname": "host2", "Tasks": {"agent": 1, "web": 3}}],
            "Ends": "waiting", "Notes": ["health checks are taken to pass"],
        }));
        let want = "\
node host1: availability active -> drain

AT        ACTION          TASK      NODE             WHY
at once   move            web.1     host1 -> host2   the node is drained
+1.5s     stop            agent     host1            the node is drained
+1m5s     update-status   web       -                update completed

SERVICE   TASKS WANTED   LEAST RUNNING   TOO FEW
web       3              2               for 2.5s
agent     2 -> 1         1               none

NO PLACE FOR   WHY
db.1           no suitable node

NODE      TASKS IN THE END
host1     -
host2     1 agent, 3 web

In the end something still waits, for a place or for time to pass. Nothing was changed: this is a plan.

Note: health checks are taken to pass
";
        assert_eq!(got, want);
    }

    #[test]
    fn a_plan_without_changes_says_so() {
        assert_eq!(shown(json!({"Changes": false, "Ends": "settled"})), "Nothing would change.\n");
        assert!(
            shown(json!({"Changes": true, "Ends": "failed to settle within 10m"}))
                .contains("failed to settle within 10m.")
        );
    }
}
