//! What must hold when the faults are over.

use crate::cluster::{READY_LIMIT, say};
use crate::engine::Container;
use crate::history::History;
use crate::{Cluster, Outcome, wait};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How long services have to be back at their replicas.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

/// Waits until the cluster is as it should be, and checks that nothing was lost or harmed on the way:
/// all nodes ready, one leader, every manager with the same state, no acknowledged write lost, every service at its replicas,
/// every container explained by a task and every task by a container, and all that is not ours untouched.
pub async fn all_is_well(cluster: &Cluster, history: &History) -> Outcome<()> {
    cluster.all_ready().await?;
    let leader = cluster.leader().await?;
    for manager in cluster.managers() {
        history.check(&manager.api()).await.map_err(|error| format!("through {}: {error}", manager.name()))?;
    }
    wait::until("all managers have the same state", READY_LIMIT, || same_state(cluster)).await?;
    wait::until("services are at their replicas and containers match", SETTLE_LIMIT, || settled(cluster)).await?;
    if let Some(engine) = &cluster.engine {
        engine.check_untouched(&cluster.bystanders).await?;
    }
    say(&format!(
        "all is well: {} leads, {} acknowledged writes are all there ({} had an unknown outcome)",
        cluster.nodes[leader].name(),
        history.acknowledged(),
        history.unknown()
    ));
    Ok(())
}

async fn same_state(cluster: &Cluster) -> Outcome<()> {
    let mut first: Option<BTreeMap<String, Value>> = None;
    for manager in cluster.managers() {
        let services = by_id(&manager.look().get("/services").await?);
        match &first {
            None => first = Some(services),
            Some(other) if *other == services => {}
            Some(other) => {
                return Err(format!(
                    "{} has {} services, another manager {}, or they differ",
                    manager.name(),
                    services.len(),
                    other.len()
                ));
            }
        }
    }
    Ok(())
}

/// Every service has as many running tasks as replicas, and tasks and containers explain each other.
async fn settled(cluster: &Cluster) -> Outcome<()> {
    let api = cluster.nodes[0].look();
    let services = by_id(&api.get("/services").await?);
    let tasks = by_id(&api.get("/tasks").await?);
    let wanted: BTreeMap<&String, &Value> =
        tasks.iter().filter(|(_, task)| task["DesiredState"] == "running").collect();
    for (id, service) in &services {
        let replicas = service["Spec"]["Mode"]["Replicated"]["Replicas"].as_u64().unwrap_or_default();
        let of_it: Vec<&&Value> = wanted.values().filter(|task| task["ServiceID"] == id.as_str()).collect();
        let running = of_it.iter().filter(|task| task["Status"]["State"] == "running").count();
        if running as u64 != replicas || of_it.len() as u64 != replicas {
            return Err(format!(
                "{}: {running} of {replicas} run, {} are wanted",
                service["Spec"]["Name"],
                of_it.len()
            ));
        }
    }
    let Some(engine) = &cluster.engine else { return Ok(()) };
    containers_match(&engine.containers_of(&cluster.ids()).await?, &tasks, &wanted)
}

fn containers_match(
    containers: &[Container],
    tasks: &BTreeMap<String, Value>,
    wanted: &BTreeMap<&String, &Value>,
) -> Outcome<()> {
    let mut running = BTreeSet::new();
    for container in containers {
        let task = container.task().to_string();
        if !tasks.contains_key(&task) {
            return Err(format!(
                "orphan: container {} ({}) is of task {task}, which nobody knows",
                container.name, container.state
            ));
        }
        if container.state == "running" {
            if !wanted.contains_key(&task) {
                return Err(format!("container {} runs, but its task {task} should not", container.name));
            }
            if !running.insert(task) {
                return Err(format!("container {} is the second of its task", container.name));
            }
        }
    }
    match wanted.keys().find(|task| !running.contains(**task)) {
        Some(task) => Err(format!("task {task} runs, it says, but has no running container")),
        None => Ok(()),
    }
}

fn by_id(list: &Value) -> BTreeMap<String, Value> {
    let id = |object: &Value| object["ID"].as_str().unwrap_or_default().to_string();
    list.as_array().into_iter().flatten().map(|object| (id(object), object.clone())).collect()
}

/// The containers that run now, by task, with when they were started.
pub async fn running_containers(cluster: &Cluster) -> Outcome<BTreeMap<String, String>> {
    let engine = cluster.engine.as_ref().ok_or("an embedded cluster has no containers")?;
    let mut running = BTreeMap::new();
    for container in engine.containers_of(&cluster.ids()).await? {
        if container.state == "running" {
            running.insert(container.task().to_string(), engine.started_at(&container.id).await?);
        }
    }
    Ok(running)
}

/// Waits until a service has so many running tasks.
pub async fn replicas_run(
    cluster: &Cluster,
    through: usize,
    service: &str,
    replicas: usize,
    limit: Duration,
) -> Outcome<()> {
    let filters =
        crate::http::encoded(&serde_json::json!({ "service": [service], "desired-state": ["running"] }).to_string());
    let api = cluster.nodes[through].look();
    wait::until(&format!("{replicas} replicas of {service} run"), limit, || async {
        let tasks = api.get(&format!("/tasks?filters={filters}")).await?;
        let tasks: Vec<&Value> = tasks.as_array().into_iter().flatten().collect();
        let running = tasks.iter().filter(|task| task["Status"]["State"] == "running").count();
        if running == replicas && tasks.len() == replicas {
            Ok(())
        } else {
            let states: Vec<String> =
                tasks.iter().map(|task| format!("{} {}", task["Status"]["State"], task["Status"]["Err"])).collect();
            Err(format!("{running} run: {}", states.join(", ")))
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::TASK_LABEL;
    use serde_json::json;

    fn container(task: &str, state: &str) -> Container {
        let labels = BTreeMap::from([(TASK_LABEL.to_string(), task.to_string())]);
        Container { id: "c".into(), name: "web.1.x".into(), state: state.into(), labels }
    }

    #[test]
    fn containers_and_tasks_explain_each_other() {
        let tasks = by_id(&json!([{"ID": "a"}, {"ID": "old"}]));
        let wanted: BTreeMap<&String, &Value> = tasks.iter().filter(|(id, _)| *id == "a").collect();
        let running = container("a", "running");
        for (containers, expected) in [
            (vec![running.clone(), container("old", "exited")], None),
            (vec![], Some("has no running container")),
            (vec![running.clone(), running.clone()], Some("the second of its task")),
            (vec![running.clone(), container("old", "running")], Some("should not")),
            (vec![running.clone(), container("stranger", "exited")], Some("nobody knows")),
        ] {
            let outcome = containers_match(&containers, &tasks, &wanted);
            match expected {
                None => assert_eq!(outcome, Ok(())),
                Some(part) => assert!(outcome.clone().is_err_and(|error| error.contains(part)), "{outcome:?}"),
            }
        }
    }
}
