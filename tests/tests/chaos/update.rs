//! A leader is killed in the middle of rolling updates that fail and are rolled back: whatever the moment, they end as those
//! that nobody disturbs.

use super::{SOON, others};
use serde_json::{Value, json};
use std::time::Duration;
use swarmlite_tests::cluster::{say, update_service};
use swarmlite_tests::http::encoded;
use swarmlite_tests::network::Kind;
use swarmlite_tests::{Api, Cluster, Options, Outcome, wait};
use tokio::time::Instant;

/// How many times the leader is killed; the environment may ask for more.
const KILLS: u32 = 4;
const ENV_KILLS: &str = "SWARMLITE_TEST_KILLS";
/// What the moments are drawn from; they are printed.
const SEED: u64 = 20;
const ENV_SEED: &str = "SWARMLITE_TEST_SEED";
/// Updates at a time. Each began at another moment before the kill: so many moments are tried with each of them.
const SERVICES: usize = 5;
const REPLICAS: usize = 6;
/// An image of the embedded engine that runs, and one whose containers end with code 3 after a second.
const GOOD: &str = "good:1";
const BAD: &str = "exit:3";
/// An update that began this long ago is acknowledged.
const BEGUN: Duration = Duration::from_millis(100);
/// For an update and its rollback, with a change of the leader between.
const UPDATE_LIMIT: Duration = Duration::from_secs(60);

pub(super) async fn story() -> Outcome<()> {
    // Containers of the embedded engine die with their daemon: they are on the workers, and managers are killed.
    let options = Options { managers: 3, workers: 3, network: Kind::Loopback, embedded: true, ..Options::default() };
    Cluster::start(options).await?.tell(async |cluster| kills(cluster).await).await
}

async fn kills(cluster: &mut Cluster) -> Outcome<()> {
    let number = |name: &str, usual: u64| {
        std::env::var(name).map_or(Ok(usual), |text| text.parse().map_err(|_| format!("{name} is no number: {text}")))
    };
    let (kills, mut dice) = (number(ENV_KILLS, KILLS.into())?, number(ENV_SEED, SEED)?);
    let (expected, took) = undisturbed(cluster).await?;
    say(&format!(
        "undisturbed, update and rollback take {:.1} s and end with {}",
        took.as_secs_f64(),
        expected["UpdateStatus"]
    ));
    for kill in 1..=kills {
        let mut moments: Vec<Duration> = (0..SERVICES).map(|_| BEGUN.max(took.mul_f64(random(&mut dice)))).collect();
        moments.sort_unstable_by(|one, other| other.cmp(one));
        let shown: Vec<String> = moments.iter().map(|moment| format!("{:.3}", moment.as_secs_f64())).collect();
        say(&format!("kill {kill} of {kills}, {} s after the beginnings of the updates", shown.join(", ")));
        let disturbed = disturbed(cluster, &moments).await.map_err(|error| format!("kill {kill}: {error}"))?;
        for (service, end) in disturbed.iter().enumerate() {
            if *end != expected {
                return Err(format!("kill {kill}: service {service}, {} s: it ends with {end:#}", shown[service]));
            }
        }
    }
    say(&format!("{} updates ended as the undisturbed ones", kills as usize * SERVICES));
    Ok(())
}

/// Lets updates run in peace; returns in what they end, and the time that it takes.
async fn undisturbed(cluster: &Cluster) -> Outcome<(Value, Duration)> {
    let api = cluster.nodes[0].api();
    create(&api).await?;
    let began = Instant::now();
    for service in 0..SERVICES {
        begin(&api, service).await?;
    }
    let mut ends = ends(&api).await?;
    let took = began.elapsed();
    remove(&api).await?;
    let expected = ends.pop().unwrap_or_default();
    match ends.iter().find(|end| **end != expected) {
        Some(other) => Err(format!("undisturbed updates end in two ways: {expected:#} and {other:#}")),
        None => Ok((expected, took)),
    }
}

/// Begins updates so long before the leader is killed, the longest first; returns in what they end.
async fn disturbed(cluster: &mut Cluster, moments: &[Duration]) -> Outcome<Vec<Value>> {
    let leader = cluster.leader().await?;
    let api = cluster.nodes[others(leader)[0]].api();
    create(&api).await?;
    let killed_at = Instant::now() + moments.first().copied().unwrap_or_default();
    for (service, moment) in moments.iter().enumerate() {
        tokio::time::sleep_until(killed_at - *moment).await;
        begin(&api, service).await?;
    }
    tokio::time::sleep_until(killed_at).await;
    cluster.nodes[leader].kill()?;
    let ends = ends(&api).await?;
    cluster.restart(leader).await?;
    cluster.all_ready().await?;
    remove(&api).await?;
    Ok(ends)
}

fn name(service: usize) -> String {
    format!("web{service}")
}

/// The services, as they are before the update, running.
async fn create(api: &Api) -> Outcome<()> {
    let second = 1_000_000_000u64;
    for service in 0..SERVICES {
        let spec = json!({
            "Name": name(service),
            "TaskTemplate": {
                "ContainerSpec": { "Image": GOOD },
                "RestartPolicy": { "Condition": "none" },
                "Placement": { "Constraints": ["node.role==worker"] },
            },
            "Mode": { "Replicated": { "Replicas": REPLICAS } },
            // One of six may fail, two may not.
            "UpdateConfig": {
                "Parallelism": 1, "Delay": 3 * second / 2, "Monitor": 2 * second, "FailureAction": "rollback",
                "MaxFailureRatio": 0.2,
            },
            "RollbackConfig": { "Parallelism": 1, "Monitor": second / 5, "FailureAction": "pause" },
        });
        api.post("/services/create", &spec).await?;
    }
    for service in 0..SERVICES {
        wait::until("its replicas run", SOON, || async {
            let running = running(&tasks(api, service).await?, GOOD);
            if running == REPLICAS { Ok(()) } else { Err(format!("{running} do")) }
        })
        .await?;
    }
    Ok(())
}

/// Updates a service to an image that fails.
async fn begin(api: &Api, service: usize) -> Outcome<()> {
    let bad = |spec: &mut Value| spec["TaskTemplate"]["ContainerSpec"]["Image"] = Value::from(BAD);
    update_service(api, &name(service), bad).await.map_err(|error| format!("{}: {error}", name(service)))
}

/// Waits until all services are rolled back; returns what they are then.
async fn ends(api: &Api) -> Outcome<Vec<Value>> {
    let mut ends = Vec::new();
    let api = api.clone().within(Duration::from_secs(5));
    for service in 0..SERVICES {
        let what = format!("{} is rolled back", name(service));
        ends.push(wait::until(&what, UPDATE_LIMIT, || end(&api, service)).await?);
    }
    Ok(ends)
}

async fn end(api: &Api, service: usize) -> Outcome<Value> {
    let mut seen = api.get(&format!("/services/{}", name(service))).await?;
    let tasks = tasks(api, service).await?;
    let status = &seen["UpdateStatus"];
    if status["State"] != "rollback_completed" || running(&tasks, GOOD) != REPLICAS {
        return Err(format!("{status}, {} replicas run", running(&tasks, GOOD)));
    }
    // Not compared: how many tasks failed before the rollback began. That more than the ratio did is why it began.
    let failed = tasks.iter().filter(|task| task["Status"]["State"] == "failed").count();
    if failed < 2 {
        return Err(format!("it was rolled back after {failed} failures"));
    }
    let live = tasks.iter().filter(|task| task["DesiredState"] != "shutdown");
    let mut slots: Vec<String> = live
        .map(|task| {
            let image = &task["Spec"]["ContainerSpec"]["Image"];
            format!("{}: {image} {} {}", task["Slot"], task["DesiredState"], task["Status"]["State"])
        })
        .collect();
    slots.sort();
    let (state, message) = (status["State"].clone(), status["Message"].clone());
    let mut spec = seen["Spec"].take();
    spec["Name"] = Value::from("web");
    Ok(json!({ "UpdateStatus": [state, message], "Spec": spec, "PreviousSpec": seen["PreviousSpec"], "Slots": slots }))
}

async fn tasks(api: &Api, service: usize) -> Outcome<Vec<Value>> {
    let filters = encoded(&json!({ "service": [name(service)] }).to_string());
    let tasks = api.get(&format!("/tasks?filters={filters}")).await?;
    Ok(tasks.as_array().cloned().unwrap_or_default())
}

fn running(tasks: &[Value], image: &str) -> usize {
    let wanted = |task: &&Value| task["DesiredState"] == "running" && task["Spec"]["ContainerSpec"]["Image"] == image;
    tasks.iter().filter(wanted).filter(|task| task["Status"]["State"] == "running").count()
}

async fn remove(api: &Api) -> Outcome<()> {
    for service in 0..SERVICES {
        api.delete(&format!("/services/{}", name(service))).await?;
    }
    wait::until("no task is left", SOON, || async {
        let left = api.get("/tasks").await?.as_array().map_or(0, Vec::len);
        if left == 0 { Ok(()) } else { Err(format!("{left} are")) }
    })
    .await
}

/// A number from 0 to 1 (SplitMix64).
fn random(state: &mut u64) -> f64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut mixed = *state;
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
}
