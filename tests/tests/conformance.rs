//! The unmodified `docker` command line, and `swarmlite` with the same words, against the sockets of real daemons.

#![allow(clippy::disallowed_methods)] // the real machine

#[path = "conformance/disaster.rs"]
mod disaster;
#[path = "conformance/exec.rs"]
mod exec;
#[path = "conformance/fields.rs"]
mod fields;
#[path = "conformance/orchestration.rs"]
mod orchestration;
#[path = "conformance/secrets.rs"]
mod secrets;
#[path = "conformance/security.rs"]
mod security;
#[path = "conformance/seed.rs"]
mod seed;

use swarmlite_tests::cluster::say;
use swarmlite_tests::network::Kind;
use swarmlite_tests::{Cli, Cluster, Options, Outcome, image};

/// Both command lines go on watching a service for its monitor time once it has converged. By default that is five seconds,
/// in which nothing more is learnt here.
const BRIEF: &str = "--update-monitor=500ms";

fn three_daemons() -> Options {
    Options { managers: 3, workers: 0, network: Kind::Loopback, ..Options::default() }
}

/// Runs a story with both command lines, each on daemons of its own.
macro_rules! with_both {
    ($($name:ident: $story:ident on $options:expr;)*) => { $(
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn by_docker() -> Outcome<()> {
                tell(Cli::docker(), $options, async |cli, cluster| $story(cli, cluster).await).await
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn by_swarmlite() -> Outcome<()> {
                tell(Cli::swarmlite(), $options, async |cli, cluster| $story(cli, cluster).await).await
            }
        }
    )* };
}

with_both! {
    membership: membership_story on three_daemons();
    services: services_story on Options { managers: 1, workers: 1, network: Kind::Loopback, ..Options::default() };
    rollout: rollout_story on Options { managers: 1, workers: 1, network: Kind::Loopback, ..Options::default() };
    errors: errors_story on Options { managers: 1, workers: 1, network: Kind::Loopback, ..Options::default() };
    every_field: every_field_story on Options { managers: 1, workers: 0, network: Kind::Loopback, ..Options::default() };
}

async fn tell(cli: Cli, options: Options, story: impl AsyncFnOnce(&Cli, &mut Cluster) -> Outcome<()>) -> Outcome<()> {
    // Membership starts from nothing; the others from a swarm.
    let fresh = options.managers == 3;
    let cluster = if fresh { Cluster::processes(options).await? } else { Cluster::start(options).await? };
    cluster.tell(async |cluster| story(&cli, cluster).await).await
}

async fn membership_story(cli: &Cli, cluster: &mut Cluster) -> Outcome<()> {
    let addresses: Vec<String> = cluster.nodes.iter().map(|node| node.remote()).collect();
    let [one, two, three] = cluster.nodes.as_slice() else { return Err("three nodes".into()) };
    cli.fails(one, &["node", "ls"], 1, "This node is not a swarm manager. Use \"docker swarm init\" or \"docker swarm join\" to connect this node to swarm and try again.").await?;
    let printed =
        cli.ok(one, &["swarm", "init", "--advertise-addr", &addresses[0], "--listen-addr", &addresses[0]]).await?;
    let id = cli.ok(one, &["info", "--format", "{{.Swarm.NodeID}}"]).await?.trim().to_string();
    contains(&printed, &format!("Swarm initialized: current node ({id}) is now a manager."))?;
    contains(&printed, "To add a worker to this swarm, run the following command:")?;
    let worker_token = cli.ok(one, &["swarm", "join-token", "-q", "worker"]).await?.trim().to_string();
    let manager_token = cli.ok(one, &["swarm", "join-token", "-q", "manager"]).await?.trim().to_string();
    contains(&printed, &format!("swarm join --token {worker_token} {}", addresses[0]))?;
    contains(&cli.ok(one, &["swarm", "join-token", "manager"]).await?, &manager_token)?;
    say("a worker joins, then a manager");
    let joined = cli
        .ok(
            two,
            &[
                "swarm",
                "join",
                "--token",
                &worker_token,
                "--listen-addr",
                &addresses[1],
                "--advertise-addr",
                &addresses[1],
                &addresses[0],
            ],
        )
        .await?;
    contains(&joined, "This node joined a swarm as a worker.")?;
    let joined = cli
        .ok(
            three,
            &[
                "swarm",
                "join",
                "--token",
                &manager_token,
                "--listen-addr",
                &addresses[2],
                "--advertise-addr",
                &addresses[2],
                &addresses[0],
            ],
        )
        .await?;
    contains(&joined, "This node joined a swarm as a manager.")?;
    cli.fails(
        two,
        &["node", "ls"],
        1,
        "This node is not a swarm manager. Worker nodes can't be used to view or modify cluster state.",
    )
    .await?;
    let listed = cli
        .until(
            three,
            &["node", "ls", "--format", "{{.ID}} {{.Status}} {{.Availability}} {{.ManagerStatus}}"],
            "three nodes are ready",
            |text| text.matches("Ready Active").count() == 3,
        )
        .await?;
    contains(&listed, "Ready Active Leader")?;
    contains(&cli.ok(three, &["node", "ls"]).await?, "MANAGER STATUS")?;
    let second = cli.ok(two, &["info", "--format", "{{.Swarm.NodeID}}"]).await?.trim().to_string();
    say("promote, demote, drain, inspect");
    contains(&cli.ok(one, &["node", "promote", &second]).await?, "promoted to a manager in the swarm.")?;
    cli.until(
        one,
        &["node", "inspect", &second, "--format", "{{.ManagerStatus.Reachability}}"],
        "the second is a manager",
        |text| text.trim() == "reachable",
    )
    .await?;
    cli.until(two, &["node", "ls", "-q"], "the second lists nodes", |text| text.lines().count() == 3).await?;
    contains(&cli.ok(one, &["node", "demote", &second]).await?, "demoted in the swarm.")?;
    cli.until(two, &["info", "--format", "{{.Swarm.ControlAvailable}}"], "the second is a worker again", |text| {
        text.trim() == "false"
    })
    .await?;
    cli.ok(one, &["node", "update", "--availability", "drain", "--label-add", "zone=a", &second]).await?;
    let pretty = cli.ok(one, &["node", "inspect", "--pretty", &second]).await?;
    contains(&pretty, "Drain")?;
    contains(&pretty, "zone=a")?;
    say("rotate a token, leave, remove");
    let rotated = cli.ok(one, &["swarm", "join-token", "-q", "--rotate", "worker"]).await?;
    if rotated.trim() == worker_token {
        return Err("rotating the token left it as it was".into());
    }
    cli.fails(one, &["node", "rm", &second], 1, "is not down and can't be removed").await?;
    contains(&cli.ok(two, &["swarm", "leave"]).await?, "Node left the swarm.")?;
    cli.until(one, &["node", "inspect", &second, "--format", "{{.Status.State}}"], "the second is down", |text| {
        text.trim() == "down"
    })
    .await?;
    cli.ok(one, &["node", "rm", &second]).await?;
    cli.until(one, &["node", "ls", "-q"], "two nodes are left", |text| text.lines().count() == 2).await?;
    cli.fails(
        one,
        &["swarm", "leave"],
        1,
        "You are attempting to leave the swarm on a node that is participating as a manager.",
    )
    .await
}

async fn services_story(cli: &Cli, cluster: &mut Cluster) -> Outcome<()> {
    let [one, worker] = cluster.nodes.as_slice() else { return Err("two nodes".into()) };
    let created = cli
        .ok(
            one,
            &[
                "service",
                "create",
                "--no-resolve-image",
                BRIEF,
                "--name",
                "web",
                "--replicas",
                "3",
                "--env",
                "A=b",
                "--label",
                "l=m",
                image::WEB_1,
            ],
        )
        .await?;
    contains(&created, "converged")?;
    contains(
        &cli.ok(one, &["service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}}"]).await?,
        &format!("web replicated 3/3 {}", image::WEB_1),
    )?;
    let listed = cli.ok(one, &["service", "ls"]).await?;
    contains(&listed, "REPLICAS")?;
    let tasks =
        cli.ok(one, &["service", "ps", "web", "--format", "{{.Name}} {{.DesiredState}} {{.CurrentState}}"]).await?;
    for slot in 1..=3 {
        contains(&tasks, &format!("web.{slot} Running Running"))?;
    }
    contains(
        &cli.ok(one, &["service", "inspect", "--format", "{{.Spec.TaskTemplate.ContainerSpec.Env}}", "web"]).await?,
        "[A=b]",
    )?;
    contains(&cli.ok(one, &["service", "inspect", "--pretty", "web"]).await?, "Replicas:")?;
    say("logs, scale, update, roll out");
    cli.until(one, &["service", "logs", "web"], "every task's output is there", |text| {
        text.matches("web 1 listens on port 80").count() == 3
    })
    .await?;
    contains(&cli.ok(one, &["service", "scale", "web=5"]).await?, "web scaled to 5")?;
    cli.until(one, &["service", "ls", "--format", "{{.Replicas}}"], "five replicas", |text| text.trim() == "5/5")
        .await?;
    contains(
        &cli.ok(one, &["service", "update", "--no-resolve-image", "--image", image::WEB_2, "web"]).await?,
        "converged",
    )?;
    let images =
        cli.ok(one, &["service", "ps", "web", "--filter", "desired-state=running", "--format", "{{.Image}}"]).await?;
    if images.lines().count() != 5 || images.lines().any(|line| line != image::WEB_2) {
        return Err(format!("not all tasks run the new image:\n{images}"));
    }
    contains(&cli.ok(one, &["node", "ps", "self"]).await?, "web.")?;
    engine_story(one, worker).await?;
    say("remove");
    contains(&cli.ok(one, &["service", "rm", "web"]).await?, "web")?;
    let engine = cluster.engine.clone().ok_or("no engine")?;
    let ids = cluster.ids();
    swarmlite_tests::wait::until("no container is left", std::time::Duration::from_secs(60), || async {
        let left = engine.containers_of(&ids).await?;
        if left.is_empty() { Ok(()) } else { Err(format!("{} are left", left.len())) }
    })
    .await
}

/// What goes through to the engine, with connections that are taken over. Only `docker` has these verbs.
async fn engine_story(manager: &swarmlite_tests::Node, worker: &swarmlite_tests::Node) -> Outcome<()> {
    let docker = Cli::docker();
    for node in [manager, worker] {
        let containers = docker
            .ok(node, &["ps", "--filter", "label=com.docker.swarm.service.name=web", "--format", "{{.Names}}"])
            .await?;
        let name = containers.lines().next().ok_or("no container of web is listed")?.to_string();
        let done = docker.run_with(node, &["exec", "-i", &name, "/web", "cat"], "through and back\n").await?;
        if done.stdout != "through and back\n" {
            return Err(done.report("it should echo its input"));
        }
        let done = docker.run(node, &["exec", &name, "/web", "fail", "7"]).await?;
        if done.code != 7 {
            return Err(done.report("its exit code should be 7"));
        }
        contains(&docker.ok(node, &["run", "--rm", image::WEB_1, "say", "hello"]).await?, "hello")?;
        contains(&docker.ok(node, &["images", "--format", "{{.Repository}}:{{.Tag}}"]).await?, image::WEB_1)?;
    }
    Ok(())
}

async fn every_field_story(cli: &Cli, cluster: &mut Cluster) -> Outcome<()> {
    fields::story(cli, cluster).await
}

async fn rollout_story(cli: &Cli, cluster: &mut Cluster) -> Outcome<()> {
    let one = &cluster.nodes[0];
    let port = free_port()?;
    let publish = format!("mode=host,target=80,published={port}");
    cli.ok(
        one,
        &["service", "create", "--no-resolve-image", BRIEF, "--name", "api", "--publish", &publish, image::WEB_1],
    )
    .await?;
    answers(port, "web 1").await?;
    contains(&cli.ok(one, &["service", "ps", "api"]).await?, &format!("*:{port}->80/tcp"))?;
    say("a new image, and back");
    contains(
        &cli.ok(one, &["service", "update", "--no-resolve-image", "--image", image::WEB_2, "api"]).await?,
        "converged",
    )?;
    answers(port, "web 2").await?;
    cli.ok(one, &["service", "rollback", "api"]).await?;
    answers(port, "web 1").await?;
    let before = cli.ok(one, &["service", "ps", "-q", "--filter", "desired-state=running", "api"]).await?;
    cli.ok(one, &["service", "update", "--no-resolve-image", "--force", "api"]).await?;
    let after = cli.ok(one, &["service", "ps", "-q", "--filter", "desired-state=running", "api"]).await?;
    if before == after {
        return Err("update --force left the task as it was".into());
    }
    say("a task that fails says why, and is tried again");
    let create =
        ["service", "create", "-d", "--no-resolve-image", "--name", "bad", "--restart-delay", "500ms", image::WEB_1];
    cli.ok(one, &[&create[..], &["fail", "7"]].concat()).await?;
    cli.until(one, &["service", "ps", "bad", "--no-trunc"], "two tasks have failed", |text| {
        text.matches("task: non-zero exit (7)").count() >= 2
    })
    .await?;
    contains(&cli.run(one, &["service", "logs", "bad"]).await?.stderr, "failing as asked")
}

/// A port that nobody listens on.
fn free_port() -> Outcome<u16> {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").map_err(|error| error.to_string())?;
    Ok(listener.local_addr().map_err(|error| error.to_string())?.port())
}

/// Waits until the web server on a port of this machine says what is expected.
async fn answers(port: u16, expected: &str) -> Outcome<()> {
    swarmlite_tests::wait::until("the port answers", std::time::Duration::from_secs(30), || async {
        let said = swarmlite_tests::http::fetch(&format!("127.0.0.1:{port}")).await?;
        if said.starts_with(expected) { Ok(()) } else { Err(format!("it says {said:?}, not {expected:?}")) }
    })
    .await
}

async fn errors_story(cli: &Cli, cluster: &mut Cluster) -> Outcome<()> {
    let one = &cluster.nodes[0];
    cli.ok(one, &["service", "create", "-d", "--no-resolve-image", "--name", "taken", "--replicas", "0", image::WEB_1])
        .await?;
    for (args, code, says) in [
        (
            &["service", "create", "-d", "--no-resolve-image", "--name", "taken", image::WEB_1][..],
            1,
            "name conflicts with an existing object: service taken already exists",
        ),
        (&["service", "inspect", "nobody"], 1, "no such service: nobody"),
        (&["service", "ps", "nobody"], 1, "no such service: nobody"),
        (&["service", "rm", "nobody"], 1, "service nobody not found"),
        (&["service", "logs", "nobody"], 1, "no such task or service: nobody"),
        (&["service", "create"], 1, "requires at least 1 argument"),
        (
            &["service", "create", "--replicas", "x", image::WEB_1],
            125,
            "invalid argument \"x\" for \"--replicas\" flag",
        ),
        (
            &["service", "create", "-d", "--no-resolve-image", "--name", "bad name", image::WEB_1],
            1,
            "name must be valid as a DNS name component",
        ),
        (&["node", "inspect", "nobody"], 1, "node nobody not found"),
        (&["node", "promote", "nobody"], 1, "node nobody not found"),
        (&["node", "ls", "--filter", "nonsense=1"], 1, "nonsense"),
        (
            &["service", "create", "-d", "--no-resolve-image", "--mode", "global", "--replicas", "2", image::WEB_1],
            1,
            "can only be used with replicated",
        ),
        (
            &["service", "create", "-d", "--no-resolve-image", "--constraint", "node.role=worker", image::WEB_1],
            1,
            "constraint expected one operator from ==, !=",
        ),
        (
            &["service", "create", "-d", "--no-resolve-image", "-p", "80:80", image::WEB_1],
            1,
            "there is no routing mesh yet",
        ),
        (&["swarm", "init"], 1, "This node is already part of a swarm."),
        (&["swarm", "join", "--token", "SWMTKN-1-x", "127.0.0.1:1"], 1, "This node is already part of a swarm."),
        (&["swarm", "join-token", "boss"], 1, "unknown role"),
    ] {
        cli.fails(one, args, code, says).await?;
    }
    Ok(())
}

fn contains(text: &str, part: &str) -> Outcome<()> {
    if text.contains(part) { Ok(()) } else { Err(format!("{part:?} is missing in:\n{text}")) }
}
