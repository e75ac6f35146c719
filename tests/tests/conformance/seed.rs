//! The commands of a public talk on Docker Swarm ("Container Orchestration with Docker Swarm and Traefik", J. Hajek, 2019), as
//! they stand there: what somebody types who knows Docker Swarm and has never heard of Swarmlite.

use super::contains;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;
use swarmlite_tests::cluster::{Options, say};
use swarmlite_tests::network::Kind;
use swarmlite_tests::{Cli, Cluster, Engine, Node, Outcome, image, wait};

/// `docker service create \ …`, line by line.
const CREATE: &[&[&str]] = &[
    &["service", "create"],
    &["--name", "web"],
    &["--replicas", "3"],
    &["--update-delay", "10s"],
    &["--update-parallelism", "1"],
    &["--constraint", "node.role == manager"],
    &["--publish", "8080:80"],
    &["--env", "MY_ENV=my-value"],
    &["--secret", "source=SSL_KEY,target=ssl-key"],
    &["nginx:1.17"],
];
/// The line that needs the routing mesh.
const PUBLISH: &str = "--publish";
/// What is in the secret.
const KEY: &str = "the key";
/// For the tasks to run.
const RUN_LIMIT: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_docker() -> Outcome<()> {
    tell(Cli::docker()).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_swarmlite() -> Outcome<()> {
    tell(Cli::swarmlite()).await
}

async fn tell(cli: Cli) -> Outcome<()> {
    let options = Options { managers: 3, workers: 1, network: Kind::Loopback, ..Options::default() };
    let cluster = Cluster::start(options).await?;
    let engine = cluster.engine.clone().ok_or("no engine")?;
    let lent = lend_nginx(&engine).await?;
    let told = cluster.tell(async |cluster| story(&cli, cluster, &engine).await).await;
    if lent {
        engine.api.delete("/images/nginx:1.17?noprune=true").await?;
    }
    told
}

/// There is no registry here: the test image goes by the name of nginx, unless that is on the engine. Whether it does.
async fn lend_nginx(engine: &Engine) -> Outcome<bool> {
    if engine.api.get("/images/nginx:1.17/json").await.is_ok() {
        return Ok(false);
    }
    engine.api.post(&format!("/images/{}/tag?repo=nginx&tag=1.17", image::WEB_1), &Value::Null).await?;
    Ok(true)
}

async fn story(cli: &Cli, cluster: &Cluster, engine: &Engine) -> Outcome<()> {
    let manager = &cluster.nodes[0];
    say("printf \"This is a secret\" | docker secret create my_secret_data -");
    piped(cli, manager, &["secret", "create", "my_secret_data", "-"], "This is a secret").await?;
    piped(cli, manager, &["secret", "create", "SSL_KEY", "-"], KEY).await?;
    say("cat nginx.conf | docker config create nginx.conf -");
    piped(cli, manager, &["config", "create", "nginx.conf", "-"], "events {}").await?;
    say("docker service create …, as written: it says that there is no routing mesh yet, and what to do");
    cli.fails(manager, &CREATE.concat(), 1, "there is no routing mesh yet; publish with mode=host").await?;
    say("the same without --publish");
    let create: Vec<&[&str]> = CREATE.iter().copied().filter(|line| line[0] != PUBLISH).collect();
    contains(&cli.ok(manager, &create.concat()).await?, "converged")?;
    say("docker service ls");
    let listed = cli.ok(manager, &["service", "ls"]).await?;
    let [head, row] = listed.lines().collect::<Vec<_>>()[..] else { return Err(format!("not two lines:\n{listed}")) };
    let words = |line: &str| line.split_whitespace().map(String::from).collect::<Vec<_>>();
    if words(head) != ["ID", "NAME", "MODE", "REPLICAS", "IMAGE", "PORTS"]
        || words(row)[1..] != ["web", "replicated", "3/3", "nginx:1.17"]
    {
        return Err(format!("this is not the table of the talk:\n{listed}"));
    }
    let nodes = cli.ok(manager, &["service", "ps", "web", "--format", "{{.Node}}"]).await?;
    let mut nodes: Vec<&str> = nodes.lines().collect();
    nodes.sort_unstable();
    if nodes != ["manager1", "manager2", "manager3"] {
        return Err(format!("one task should run on each manager: {nodes:?}"));
    }
    wait::until("the containers are as asked for", RUN_LIMIT, || in_containers(engine, cluster)).await?;
    cli.ok(manager, &["service", "rm", "web"]).await.map(drop)
}

async fn piped(cli: &Cli, manager: &Node, args: &[&str], input: &str) -> Outcome<()> {
    let done = cli.run_with(manager, args, input).await?;
    if done.code == 0 { Ok(()) } else { Err(done.report("it should succeed")) }
}

/// The variable and the secret are in every container.
async fn in_containers(engine: &Engine, cluster: &Cluster) -> Outcome<()> {
    let containers = engine.containers_of(&cluster.ids()).await?;
    let running: Vec<_> = containers.iter().filter(|container| container.state == "running").collect();
    if running.len() != 3 {
        return Err(format!("{} run", running.len()));
    }
    for container in running {
        let seen = engine.api.get(&format!("/containers/{}/json", container.id)).await?;
        let env = seen["Config"]["Env"].as_array().into_iter().flatten().any(|set| set == "MY_ENV=my-value");
        let mut mounts = seen["Mounts"].as_array().into_iter().flatten();
        let secrets = mounts.find(|mount| mount["Destination"] == "/run/secrets");
        let file = Path::new(secrets.and_then(|mount| mount["Source"].as_str()).unwrap_or_default()).join("ssl-key");
        let secret = std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?;
        if !env || secret != KEY {
            return Err(format!("the variable or the secret is wrong: {} {secret}", seen["Config"]["Env"]));
        }
    }
    Ok(())
}
