//! Modes, placement, updates: what users do to services while nodes come, go and change, on three managers and two workers.

use super::{BRIEF, contains};
use std::time::Duration;
use swarmlite_tests::cluster::{Options, say};
use swarmlite_tests::network::Kind;
use swarmlite_tests::{Cli, Cluster, Node, Outcome, image, wait};

/// For tasks to be where they belong, on a machine that other tests use as well.
const SETTLE_LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_docker() -> Outcome<()> {
    tell(Cli::docker()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_swarmlite() -> Outcome<()> {
    tell(Cli::swarmlite()).await
}

async fn tell(cli: Cli) -> Outcome<()> {
    let options = Options { managers: 3, workers: 2, network: Kind::Loopback, ..Options::default() };
    Cluster::start(options).await?.tell(async |cluster| story(&cli, cluster).await).await
}

async fn story(cli: &Cli, cluster: &Cluster) -> Outcome<()> {
    // Through a manager that need not be the leader.
    let manager = &cluster.nodes[2];
    global(cli, cluster, manager).await?;
    constraints(cli, cluster, manager).await?;
    jobs(cli, cluster, manager).await?;
    rolling_update(cli, manager).await?;
    rollback(cli, manager).await
}

/// Creates a service of the test image that is waited for, and checks that the display came to its end.
async fn create(cli: &Cli, manager: &Node, flags: &[&str], args: &[&str]) -> Outcome<String> {
    let printed =
        cli.ok(manager, &[&["service", "create", "--no-resolve-image"], flags, &[image::WEB_1], args].concat()).await?;
    Ok(printed)
}

/// The nodes of a service's tasks that should run and do, sorted.
async fn running_on(cli: &Cli, manager: &Node, service: &str) -> Outcome<Vec<String>> {
    let format = "{{.Node}} {{.CurrentState}}";
    let listed =
        cli.ok(manager, &["service", "ps", service, "--filter", "desired-state=running", "--format", format]).await?;
    let running = listed.lines().filter_map(|line| line.split_once(" Running"));
    let mut nodes: Vec<String> = running.map(|(node, _)| node.to_string()).collect();
    nodes.sort();
    Ok(nodes)
}

async fn until_on(cli: &Cli, manager: &Node, service: &str, nodes: &[&str]) -> Outcome<()> {
    wait::until(&format!("{service} runs on {}", nodes.join(", ")), SETTLE_LIMIT, || async {
        let running = running_on(cli, manager, service).await?;
        if running == nodes { Ok(()) } else { Err(format!("it runs on {}", running.join(", "))) }
    })
    .await
}

async fn until_replicas(cli: &Cli, manager: &Node, service: &str, replicas: &str) -> Outcome<()> {
    let args = ["service", "ls", "--filter", &format!("name={service}"), "--format", "{{.Replicas}}"];
    cli.until(manager, &args, &format!("{service} has {replicas}"), |text| text.trim() == replicas).await.map(drop)
}

async fn global(cli: &Cli, cluster: &Cluster, manager: &Node) -> Outcome<()> {
    say("a global service follows drains and joins");
    let printed = create(cli, manager, &[BRIEF, "--name", "everywhere", "--mode", "global"], &["sleep"]).await?;
    contains(&printed, "overall progress: 5 out of 5 tasks")?;
    contains(&printed, "converged")?;
    let names = cli.ok(manager, &["service", "ps", "everywhere", "--no-trunc", "--format", "{{.Name}}"]).await?;
    for node in &cluster.nodes {
        contains(&names, &format!("everywhere.{}", node.id))?;
    }
    until_replicas(cli, manager, "everywhere", "5/5").await?;
    cli.ok(manager, &["node", "update", "--availability", "drain", "worker4"]).await?;
    until_on(cli, manager, "everywhere", &["manager1", "manager2", "manager3", "worker5"]).await?;
    until_replicas(cli, manager, "everywhere", "4/4").await?;
    cli.ok(manager, &["node", "update", "--availability", "active", "worker4"]).await?;
    until_replicas(cli, manager, "everywhere", "5/5").await?;
    let mut stranger = cluster.stranger().await?;
    let (_, token) = cluster.tokens().await?;
    stranger.join(&cluster.nodes[0].remote(), &token).await?;
    until_on(
        cli,
        manager,
        "everywhere",
        &["manager1", "manager2", "manager3", "worker4", "worker5", stranger.name().as_str()],
    )
    .await?;
    let id = stranger.id.clone();
    stranger.terminate().await?;
    cli.until(manager, &["node", "inspect", &id, "--format", "{{.Status.State}}"], "the sixth is down", |text| {
        text.trim() == "down"
    })
    .await?;
    cli.ok(manager, &["node", "rm", &id]).await?;
    until_replicas(cli, manager, "everywhere", "5/5").await?;
    cli.ok(manager, &["service", "rm", "everywhere"]).await?;
    // Nobody is left to remove the containers of a node that is gone.
    let engine = cluster.engine.as_ref().ok_or("no engine")?;
    engine.remove(&engine.containers_of(&[id]).await?).await
}

async fn constraints(cli: &Cli, cluster: &Cluster, manager: &Node) -> Outcome<()> {
    say("tasks leave a node whose labels change, and go where the labels are");
    cli.ok(manager, &["node", "update", "--label-add", "disk=ssd", "worker4"]).await?;
    let placed = [BRIEF, "--name", "picky", "--replicas", "2", "--constraint", "node.labels.disk==ssd"];
    contains(&create(cli, manager, &placed, &["sleep"]).await?, "converged")?;
    until_on(cli, manager, "picky", &["worker4", "worker4"]).await?;
    cli.ok(manager, &["node", "update", "--label-add", "disk=ssd", "worker5"]).await?;
    cli.ok(manager, &["node", "update", "--label-rm", "disk", "worker4"]).await?;
    until_on(cli, manager, "picky", &["worker5", "worker5"]).await?;
    cli.ok(manager, &["node", "update", "--label-rm", "disk", "worker5"]).await?;
    cli.until(
        manager,
        &["service", "ps", "picky", "--no-trunc", "--filter", "desired-state=running", "--format", "{{.Error}}"],
        "both tasks say what they wait for",
        |text| text.matches("no suitable node (scheduling constraints not satisfied on 5 nodes)").count() == 2,
    )
    .await?;
    cli.ok(manager, &["service", "rm", "picky"]).await?;
    let spread = [BRIEF, "--name", "even", "--replicas", "4", "--placement-pref", "spread=node.labels.zone"];
    let limited = ["--constraint", "node.role==worker", "--replicas-max-per-node", "2"];
    create(cli, manager, &[&spread[..], &limited].concat(), &["sleep"]).await?;
    until_on(cli, manager, "even", &["worker4", "worker4", "worker5", "worker5"]).await?;
    until_replicas(cli, manager, "even", "4/4 (max 2 per node)").await?;
    let elsewhere = cluster.engine.as_ref().ok_or("no engine")?.containers_of(&cluster.ids()[..3]).await?;
    if elsewhere.iter().any(|container| container.state == "running" && container.name.starts_with("even.")) {
        return Err("a container of `even` runs on a manager".into());
    }
    cli.ok(manager, &["service", "rm", "even"]).await.map(drop)
}

async fn jobs(cli: &Cli, cluster: &Cluster, manager: &Node) -> Outcome<()> {
    say("jobs run to their end, again when they are updated, and on every node");
    let job = ["--name", "batch", "--mode", "replicated-job", "--replicas", "4", "--max-concurrent", "2"];
    contains(&create(cli, manager, &job, &["say", "done"]).await?, "job complete")?;
    until_replicas(cli, manager, "batch", "0/2 (4/4 completed)").await?;
    let names = cli.ok(manager, &["service", "ps", "batch", "--no-trunc", "--format", "{{.Name}}"]).await?;
    for slot in 1..=3 {
        contains(&names, &format!("batch.{slot}"))?;
    }
    if names.lines().count() != 4 {
        return Err(format!("these should be the four tasks of `batch`:\n{names}"));
    }
    cli.ok(manager, &["service", "update", "--detach", "--no-resolve-image", "--force", "batch"]).await?;
    let done = ["service", "ps", "batch", "--format", "{{.CurrentState}}"];
    cli.until(manager, &done, "it ran twice", |text| text.matches("Complete").count() == 8).await?;
    cli.ok(manager, &["service", "rm", "batch"]).await?;
    contains(
        &create(cli, manager, &["--name", "sweep", "--mode", "global-job"], &["say", "done"]).await?,
        "job complete",
    )?;
    let listed = cli
        .ok(manager, &["service", "ps", "sweep", "--no-trunc", "--format", "{{.Name}} {{.Node}} {{.CurrentState}}"])
        .await?;
    for node in &cluster.nodes {
        contains(&listed, &format!("sweep.{} {} Complete", node.id, node.name()))?;
    }
    cli.ok(manager, &["service", "rm", "sweep"]).await.map(drop)
}

async fn rolling_update(cli: &Cli, manager: &Node) -> Outcome<()> {
    say("the display of a rolling update fills up");
    let web = ["--name", "web", "--replicas", "4", "--update-parallelism", "2", "--update-monitor", "500ms"];
    contains(&create(cli, manager, &web, &["sleep"]).await?, "overall progress: 4 out of 4 tasks")?;
    let printed = cli.ok(manager, &["service", "update", "--no-resolve-image", "--image", image::WEB_2, "web"]).await?;
    contains(&printed, "overall progress: 4 out of 4 tasks")?;
    contains(&printed, "converged")?;
    let images = cli
        .ok(manager, &["service", "ps", "web", "--filter", "desired-state=running", "--format", "{{.Image}}"])
        .await?;
    if images.lines().count() == 4 && images.lines().all(|line| line == image::WEB_2) {
        Ok(())
    } else {
        Err(format!("these should be four tasks of the new image:\n{images}"))
    }
}

async fn rollback(cli: &Cli, manager: &Node) -> Outcome<()> {
    say("an update that fails is rolled back, and one that succeeds by hand");
    let status = ["service", "inspect", "web", "--format", "{{.UpdateStatus.State}}: {{.UpdateStatus.Message}}"];
    let broken = ["service", "update", "--detach", "--no-resolve-image", "--args", "fail 3", "--update-monitor", "5s"];
    cli.ok(manager, &[&broken[..], &["--update-failure-action", "rollback", "web"]].concat()).await?;
    cli.until(manager, &status, "it is rolled back", |text| text.starts_with("rollback_completed: rollback completed"))
        .await?;
    until_replicas(cli, manager, "web", "4/4").await?;
    let args = ["service", "inspect", "web", "--format", "{{.Spec.TaskTemplate.ContainerSpec.Args}}"];
    contains(&cli.ok(manager, &args).await?, "[sleep]")?;
    let monitor = ["--update-monitor", "500ms", "--rollback-monitor", "500ms"];
    let update = ["service", "update", "--no-resolve-image", "--image", image::WEB_1];
    contains(&cli.ok(manager, &[&update[..], &monitor, &["web"]].concat()).await?, "converged")?;
    contains(&cli.ok(manager, &["service", "rollback", "web"]).await?, "rollback")?;
    cli.until(manager, &status, "it is back", |text| text.starts_with("rollback_completed: rollback completed"))
        .await?;
    let images = cli
        .ok(manager, &["service", "ps", "web", "--filter", "desired-state=running", "--format", "{{.Image}}"])
        .await?;
    if images.lines().count() != 4 || images.lines().any(|line| line != image::WEB_2) {
        return Err(format!("these should be four tasks of the image before:\n{images}"));
    }
    cli.ok(manager, &["service", "rm", "web"]).await.map(drop)
}
