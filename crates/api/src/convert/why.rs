//! Why tasks are not where they should be, to its JSON.

use control::why::{Rejection, TaskWhy, Why};
use docker_api::{RejectedNode, WhyService, WhyTask};

/// Tasks of one answer. Each may name every node; whoever wants to know of a certain task asks for that task.
const TASKS_MAX: usize = 200;

/// An answer.
pub(crate) fn why(w: Why) -> docker_api::Why {
    let more = w.tasks.len().saturating_sub(TASKS_MAX);
    let mut lines = w.lines;
    match more {
        0 => {}
        1 => lines.push("and 1 more task is not where it should be".into()),
        _ => lines.push(format!("and {more} more tasks are not where they should be")),
    }
    docker_api::Why {
        service: WhyService { id: w.service.to_string(), name: w.name },
        lines,
        update: w.update,
        tasks: w.tasks.into_iter().take(TASKS_MAX).map(task).collect(),
    }
}

fn task(t: TaskWhy) -> WhyTask {
    WhyTask {
        id: t.id.to_string(),
        name: t.name,
        slot: t.slot,
        node_id: t.node.map(|n| n.to_string()).unwrap_or_default(),
        desired_state: t.desired.as_str().into(),
        state: t.state.as_str().into(),
        line: t.line,
        rejected: t.rejected.into_iter().map(rejected).collect(),
    }
}

fn rejected(r: Rejection) -> RejectedNode {
    RejectedNode {
        node_id: r.node.to_string(),
        hostname: r.hostname,
        filter: r.filter.as_str().into(),
        reason: r.reason,
    }
}
