//! What the bench needs of a swarm, whoever makes it.

use serde_json::{Value, json};
use std::time::Duration;
use swarmlite_tests::cluster::{service_spec, update_service};
use swarmlite_tests::http::{encoded, json as parsed};
use swarmlite_tests::{Api, Outcome, image, wait};

/// For everything that ends some day.
pub(crate) const LONG: Duration = Duration::from_secs(120);
/// How often it is looked whether tasks run: it counts towards what is measured.
const LOOK: Duration = Duration::from_millis(20);
/// Number of managers.
pub(crate) const MANAGERS: usize = 3;

/// A swarm of three managers and some workers, managers first.
pub(crate) trait Hosts {
    /// The API of a host.
    fn api(&self, host: usize) -> Api;
    /// A host's id in the swarm.
    fn node_id(&self, host: usize) -> String;
    /// Number of hosts.
    fn len(&self) -> usize;
    /// The process of a manager, in this machine's numbers.
    fn process(&self, host: usize) -> Outcome<u32>;
    /// Addresses of the Docker Engines that run the tasks.
    fn engines(&self) -> Vec<String>;
    /// Whether containers outlive a manager's process.
    fn keeps_containers(&self) -> bool;
    /// Kills a manager at once.
    async fn kill(&mut self, host: usize) -> Outcome<()>;
    /// Kills a worker with its containers, as when the machine is gone.
    async fn kill_machine(&mut self, host: usize) -> Outcome<()>;
    /// Tells a manager to stop in good order; it is not waited for.
    fn ask_to_stop(&mut self, host: usize) -> Outcome<()>;
    /// Waits until a host that was killed or told to stop is gone.
    async fn gone(&mut self, host: usize) -> Outcome<()>;
    /// Starts a host again; it is not waited for.
    async fn start_again(&mut self, host: usize) -> Outcome<()>;
    /// Waits until all hosts are ready and all managers reachable.
    async fn whole(&self) -> Outcome<()>;
    /// Ends it, and removes everything that it made.
    async fn tear_down(self) -> Outcome<()>;
}

/// The manager that leads, as another one sees it.
pub(crate) async fn leader_seen_by<H: Hosts>(hosts: &H, api: &Api) -> Outcome<usize> {
    let nodes = api.get("/nodes").await?;
    let leader = nodes.as_array().into_iter().flatten().find(|node| node["ManagerStatus"]["Leader"] == true);
    let id = leader.and_then(|node| node["ID"].as_str()).ok_or("no manager leads")?;
    (0..MANAGERS).find(|host| hosts.node_id(*host) == id).ok_or_else(|| "an unknown manager leads".to_string())
}

/// The manager that leads, once there is one.
pub(crate) async fn leader<H: Hosts>(hosts: &H) -> Outcome<usize> {
    wait::until("a leader", LONG, || async { leader_seen_by(hosts, &hosts.api(0)).await }).await
}

/// The tasks of a service that run and should.
pub(crate) async fn running<H: Hosts>(hosts: &H, service: &str) -> Outcome<Vec<Value>> {
    let filters = encoded(&json!({ "service": [service], "desired-state": ["running"] }).to_string());
    let tasks = hosts.api(0).get(&format!("/tasks?filters={filters}")).await?;
    Ok(tasks.as_array().into_iter().flatten().filter(|task| task["Status"]["State"] == "running").cloned().collect())
}

/// Waits until so many tasks of a service run that `counts`.
pub(crate) async fn until_running<H: Hosts>(
    hosts: &H,
    service: &str,
    replicas: usize,
    counts: impl Fn(&Value) -> bool,
) -> Outcome<()> {
    let deadline = tokio::time::Instant::now() + LONG;
    loop {
        let running = running(hosts, service).await?.iter().filter(|task| counts(task)).count();
        if running == replicas {
            return Ok(());
        }
        if tokio::time::Instant::now() >= deadline {
            return Err(format!("{running} of {replicas} replicas run after {} s", LONG.as_secs()));
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// Creates a service of the test image.
pub(crate) async fn create<H: Hosts>(hosts: &H, name: &str, replicas: usize) -> Outcome<()> {
    hosts.api(0).post("/services/create", &service_spec(name, image::WEB_1, replicas as u64)).await?;
    Ok(())
}

/// Scales a service, and waits until its replicas run.
pub(crate) async fn scale<H: Hosts>(hosts: &H, service: &str, replicas: usize) -> Outcome<()> {
    update_service(&hosts.api(0), service, |spec| spec["Mode"]["Replicated"]["Replicas"] = Value::from(replicas))
        .await?;
    until_running(hosts, service, replicas, |_| true).await
}

/// Removes all services, and waits until their tasks are gone.
pub(crate) async fn remove_all<H: Hosts>(hosts: &H) -> Outcome<()> {
    let api = hosts.api(0);
    let services = parsed(&api.raw("GET", "/services", "").await?);
    for service in services.as_array().into_iter().flatten() {
        match api.delete(&format!("/services/{}", service["ID"].as_str().unwrap_or_default())).await {
            Err(error) if !error.is_not_found() => return Err(error.into()),
            _ => {}
        }
    }
    wait::until("no task is left", LONG, || async {
        let tasks = api.get("/tasks").await?;
        let left = tasks.as_array().map_or(0, Vec::len);
        if left == 0 { Ok(()) } else { Err(format!("{left} are")) }
    })
    .await
}
