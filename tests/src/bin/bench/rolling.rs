//! Rows 12 and 13: a rolling update, and growing.

use crate::containers;
use crate::hosts::{self, Hosts, LONG};
use serde_json::{Value, json};
use std::time::Duration;
use swarmlite_tests::cluster::{service_spec, update_service};
use swarmlite_tests::{Api, Outcome, image};
use tokio::time::Instant;

const SERVICE: &str = "rolling";
/// Replicas of the service that is updated; so many of them may be missing at a time.
const REPLICAS: usize = 10;
const PARALLELISM: usize = 2;
/// Replicas before and after growing.
const FROM: usize = 10;
const TO: usize = 60;
/// How often it is looked how many replicas run.
const LOOK: Duration = Duration::from_millis(10);
const SECOND: u64 = 1_000_000_000;

/// What a rolling update took.
pub(crate) struct Update {
    /// From the request until the update is completed.
    pub(crate) took: Duration,
    /// How many replicas did not run, at the worst moment that was looked at.
    pub(crate) missing: usize,
    /// How often it was looked.
    pub(crate) looks: usize,
}

/// Updates ten replicas to another image, two at a time, with a monitor of one second.
pub(crate) async fn update<H: Hosts>(hosts: &H) -> Outcome<Update> {
    let api = hosts.api(0);
    let mut spec = service_spec(SERVICE, image::WEB_1, REPLICAS as u64);
    spec["UpdateConfig"] = json!({ "Parallelism": PARALLELISM, "Monitor": SECOND, "FailureAction": "pause" });
    api.post("/services/create", &spec).await?;
    hosts::until_running(hosts, SERVICE, REPLICAS, |_| true).await?;
    let began = Instant::now();
    let new = |spec: &mut Value| spec["TaskTemplate"]["ContainerSpec"]["Image"] = Value::from(image::WEB_2);
    update_service(&api, SERVICE, new).await.map_err(|error| error.to_string())?;
    let (mut missing, mut looks) = (0, 0);
    while !completed(&api).await? {
        let running = hosts::running(hosts, SERVICE).await?.len();
        missing = missing.max(REPLICAS.saturating_sub(running));
        looks += 1;
        if began.elapsed() > LONG {
            return Err(format!("the update is not completed after {} s", LONG.as_secs()));
        }
        tokio::time::sleep(LOOK).await;
    }
    let took = began.elapsed();
    let old = hosts::running(hosts, SERVICE).await?;
    if old.len() != REPLICAS || old.iter().any(|task| task["Spec"]["ContainerSpec"]["Image"] != image::WEB_2) {
        return Err("the update is completed, but not all replicas run the new image".into());
    }
    hosts::remove_all(hosts).await?;
    Ok(Update { took, missing, looks })
}

async fn completed(api: &Api) -> Outcome<bool> {
    let service = api.get(&format!("/services/{SERVICE}")).await?;
    match service["UpdateStatus"]["State"].as_str() {
        Some("completed") => Ok(true),
        None | Some("updating") => Ok(false),
        Some(other) => Err(format!("the update is {other}: {}", service["UpdateStatus"]["Message"])),
    }
}

/// Scales a service from ten to sixty replicas; returns the time until all run, and that of fifty `docker run -d` on the same
/// engines.
pub(crate) async fn grow<H: Hosts>(hosts: &H) -> Outcome<(Duration, Duration)> {
    hosts::create(hosts, SERVICE, FROM).await?;
    hosts::until_running(hosts, SERVICE, FROM, |_| true).await?;
    let began = Instant::now();
    hosts::scale(hosts, SERVICE, TO).await?;
    let scaled = began.elapsed();
    hosts::remove_all(hosts).await?;
    Ok((scaled, containers::docker_run(&hosts.engines(), TO - FROM).await?))
}
