//! Rows 3, 4 and 5: what needs containers that run.

use crate::hosts::{self, Hosts, LONG, MANAGERS};
use crate::pause::Loss;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::Duration;
use swarmlite_tests::{Api, Outcome, image, wait};
use tokio::process::Command;
use tokio::time::Instant;

/// The service that leaders and workers are taken from.
const SERVICE: &str = "web";
const REPLICAS: usize = 6;
/// A replica that died with its node is started elsewhere after this at the latest, and one that is restarted wrongly too.
const AFTERMATH: Duration = Duration::from_secs(3);
/// Containers of [`docker_run`] that are removed at the same time on an engine.
const REMOVALS: usize = 8;
/// By this label the containers of [`docker_run`] are removed.
const LABEL: &str = "swarmlite.bench";

/// From the death of workers to all replicas running on the others, so many times.
pub(crate) async fn workers_lost<H: Hosts>(hosts: &mut H, rounds: usize) -> Outcome<Vec<Duration>> {
    hosts::create(hosts, SERVICE, REPLICAS).await?;
    hosts::until_running(hosts, SERVICE, REPLICAS, |_| true).await?;
    let mut times = Vec::new();
    for round in 1..=rounds {
        let victim = worker_with_replicas(hosts).await?;
        let id = hosts.node_id(victim);
        let lost = Instant::now();
        hosts.kill_machine(victim).await?;
        hosts::until_running(hosts, SERVICE, REPLICAS, |task| task["NodeID"] != id.as_str()).await?;
        times.push(lost.elapsed());
        eprintln!("  worker killed, {round} of {rounds}: {:.2} s", lost.elapsed().as_secs_f64());
        hosts.start_again(victim).await?;
        hosts.whole().await?;
    }
    hosts::remove_all(hosts).await?;
    Ok(times)
}

async fn worker_with_replicas<H: Hosts>(hosts: &H) -> Outcome<usize> {
    for _ in 0..3 {
        let tasks = hosts::running(hosts, SERVICE).await?;
        let has_some = |host: &usize| tasks.iter().any(|task| task["NodeID"] == hosts.node_id(*host).as_str());
        if let Some(host) = (MANAGERS..hosts.len()).rev().find(has_some) {
            return Ok(host);
        }
        // Rescheduling has left the workers empty: spread again.
        hosts::scale(hosts, SERVICE, 0).await?;
        hosts::scale(hosts, SERVICE, REPLICAS).await?;
    }
    Err("no worker gets a replica".into())
}

/// How many tasks that had no reason to are restarted when the leader goes, by turns killed and stopped.
pub(crate) async fn restarted<H: Hosts>(hosts: &mut H, rounds: usize) -> Outcome<usize> {
    hosts::create(hosts, SERVICE, REPLICAS).await?;
    hosts::until_running(hosts, SERVICE, REPLICAS, |_| true).await?;
    let mut restarted = 0;
    for loss in [Loss::Killed, Loss::Stopped].into_iter().cycle().take(rounds) {
        let leader = hosts::leader(hosts).await?;
        // Where the leader's machine is gone with its containers, its tasks have a reason.
        let spared = if hosts.keeps_containers() { String::new() } else { hosts.node_id(leader) };
        let before = containers(hosts, &spared).await?;
        match loss {
            Loss::Killed => hosts.kill(leader).await?,
            _ => hosts.ask_to_stop(leader)?,
        }
        hosts.gone(leader).await?;
        hosts.start_again(leader).await?;
        hosts.whole().await?;
        tokio::time::sleep(AFTERMATH).await;
        hosts::until_running(hosts, SERVICE, REPLICAS, |_| true).await?;
        let after = containers(hosts, &spared).await?;
        restarted += before.iter().filter(|(task, container)| after.get(*task) != Some(container)).count();
    }
    hosts::remove_all(hosts).await?;
    Ok(restarted)
}

/// The running tasks that are not on a certain node, and their containers.
async fn containers<H: Hosts>(hosts: &H, but_not_on: &str) -> Outcome<BTreeMap<String, String>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_string();
    let tasks = hosts::running(hosts, SERVICE).await?;
    Ok(tasks
        .iter()
        .filter(|task| task["NodeID"] != but_not_on)
        .map(|task| (text(&task["ID"]), text(&task["Status"]["ContainerStatus"]["ContainerID"])))
        .collect())
}

/// From `service create` to all replicas running; the service is gone afterwards.
pub(crate) async fn create<H: Hosts>(hosts: &H, replicas: usize) -> Outcome<Duration> {
    let began = Instant::now();
    hosts::create(hosts, SERVICE, replicas).await?;
    hosts::until_running(hosts, SERVICE, replicas, |_| true).await?;
    let took = began.elapsed();
    hosts::remove_all(hosts).await?;
    Ok(took)
}

/// So many `docker run -d` at the same time, spread over the engines.
pub(crate) async fn docker_run(engines: &[String], containers: usize) -> Outcome<Duration> {
    let began = Instant::now();
    let mut runs = tokio::task::JoinSet::new();
    for engine in engines.iter().cycle().take(containers) {
        let mut docker = Command::new("docker");
        docker.args(["-H", engine, "run", "-d", "--label", LABEL, image::WEB_1]).kill_on_drop(true);
        docker.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        runs.spawn(async move { tokio::time::timeout(LONG, docker.output()).await });
    }
    while let Some(run) = runs.join_next().await {
        let output = run.map_err(|error| error.to_string())?.map_err(|_| "`docker run` hangs")?;
        let output = output.map_err(|error| format!("cannot run docker: {error}"))?;
        if !output.status.success() {
            return Err(format!("docker run: {}", String::from_utf8_lossy(&output.stderr).trim()));
        }
    }
    let took = began.elapsed();
    remove_labelled(engines).await?;
    Ok(took)
}

/// The same without the command: bare `create` and `start` calls.
pub(crate) async fn bare_run(engines: &[String], containers: usize) -> Outcome<Duration> {
    let create = json!({ "Image": image::WEB_1, "Labels": { LABEL: "" } });
    let began = Instant::now();
    let runs = engines.iter().cycle().take(containers).map(|engine| async {
        let engine = api(engine);
        let created = engine.post("/containers/create", &create).await?;
        let id = created["Id"].as_str().unwrap_or_default().to_string();
        engine.post(&format!("/containers/{id}/start"), &Value::Null).await?;
        Outcome::Ok(())
    });
    futures::future::try_join_all(runs).await?;
    let took = began.elapsed();
    remove_labelled(engines).await?;
    Ok(took)
}

async fn remove_labelled(engines: &[String]) -> Outcome<()> {
    for engine in engines {
        let engine = swarmlite_tests::Engine { api: api(engine), host: engine.clone() };
        let containers = engine.containers(LABEL).await?;
        let removals = containers.chunks(containers.len().div_ceil(REMOVALS).max(1)).map(|some| engine.remove(some));
        futures::future::try_join_all(removals).await?;
        wait::until("no container is left", LONG, || async {
            let left = engine.containers(LABEL).await?.len();
            if left == 0 { Ok(()) } else { Err(format!("{left} are")) }
        })
        .await?;
    }
    Ok(())
}

fn api(engine: &str) -> Api {
    Api::new(engine.trim_start_matches("unix://"))
}
