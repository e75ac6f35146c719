//! Exec anywhere: the unmodified `docker exec`, through managers whose own engine has never heard of the container. The worker
//! has an engine of its own, on a machine of its own; its session is with one of the two managers, so that what goes through the
//! other is relayed.

use super::contains;
use std::process::Command;
use std::time::Duration;
use swarmlite_tests::cluster::{say, service_spec};
use swarmlite_tests::engines::PrivateEngine;
use swarmlite_tests::network::{Kind, Network};
use swarmlite_tests::node::binary;
use swarmlite_tests::{Cli, Engine, Node, Outcome, image, wait};

/// For a task to run, and for nodes to become ready.
const SOON: Duration = Duration::from_secs(60);

/// Two managers on the shared engine, a worker on an engine of its own.
struct World {
    managers: [Node; 2],
    worker: Node,
    engine: PrivateEngine,
    _network: Network,
    _dir: tempfile::TempDir,
}

impl World {
    async fn start() -> Outcome<World> {
        let shared = Engine::find().await?.with_images().await?;
        let dir = tempfile::Builder::new().prefix("sl-exec-").tempdir().map_err(|error| error.to_string())?;
        let network = Network::new(Kind::Namespaces, 3)?;
        let mut engine = PrivateEngine::new(2, dir.path().join("engine"));
        engine.up(&network).await?;
        let node = |host: usize| Node::new(host, host < 2, network.address(host), dir.path().join(format!("n{host}")));
        let (mut managers, mut worker) = ([node(0)?, node(1)?], node(2)?);
        let args = |host: &str| ["--engine".to_string(), "docker".into(), "--docker-host".into(), host.into()];
        for manager in &mut managers {
            manager.start(network.command(manager.index, &binary()), &args(&shared.host))?;
        }
        // On the engine's machine: there its containers look for the files of secrets.
        let mut command = Command::new("nsenter");
        command.args(["-t", &engine.dockerd()?.to_string(), "-m", "-u", "-i", "-n", "-p", "--"]).arg(binary());
        worker.start(command, &args(&engine.address()))?;
        let [one, two] = &mut managers;
        for node in [&mut *one, &mut *two, &mut worker] {
            node.answers().await?;
        }
        one.init().await?;
        let tokens = one.api().get("/swarm").await?["JoinTokens"].clone();
        two.join(&one.remote(), tokens["Manager"].as_str().unwrap_or_default()).await?;
        worker.join(&one.remote(), tokens["Worker"].as_str().unwrap_or_default()).await?;
        Ok(World { managers, worker, engine, _network: network, _dir: dir })
    }

    fn said(&self) -> String {
        let nodes = self.managers.iter().chain([&self.worker]);
        nodes.map(|node| format!("  {}:\n{}\n", node.name(), node.log_tail(12))).collect()
    }

    /// Runs one task on the worker, and returns its container's id, as the swarm has it.
    async fn container_on_worker(&self, cli: &Cli) -> Outcome<String> {
        let [one, _] = &self.managers;
        for manager in &self.managers {
            // Who asks for events begins the manager's record of them, if it has just become one.
            cli.ok(manager, &["events", "--since", "1", "--until", "1"]).await?;
            cli.ok(one, &["node", "update", "--availability", "drain", &manager.id]).await?;
        }
        one.api().post("/services/create", &service_spec("web", image::WEB_1, 1)).await?;
        wait::until("the task runs on the worker", SOON, || async {
            let tasks = one.api().get("/tasks").await?;
            let running = tasks.as_array().into_iter().flatten().find(|task| task["Status"]["State"] == "running");
            let container = running.and_then(|task| task["Status"]["ContainerStatus"]["ContainerID"].as_str());
            container.map(String::from).ok_or_else(|| tasks.to_string())
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn docker_exec_reaches_a_container_on_another_node() -> Outcome<()> {
    let world = World::start().await?;
    story(&world).await.map_err(|error| format!("{error}\n{}", world.said()))
}

async fn story(world: &World) -> Outcome<()> {
    let cli = Cli::docker();
    let id = world.container_on_worker(&cli).await?;
    let shown = world.engine.api().get(&format!("/containers/{id}/json")).await?;
    let name = shown["Name"].as_str().unwrap_or_default().trim_start_matches('/').to_string();
    for manager in &world.managers {
        say(&format!("docker exec through {}", manager.name()));
        let local = Engine::find().await?.api.get(&format!("/containers/{id}/json")).await;
        if local.is_ok() {
            return Err("the managers' engine has the container too: nothing would be shown".into());
        }
        for target in [id.as_str(), &id[..12], &name] {
            let said = cli.ok(manager, &["exec", target, "/web", "say", "hello", target]).await?;
            contains(&said, &format!("hello {target}"))?;
        }
        let piped = "line of input\n".repeat(20_000);
        let done = cli.run_with(manager, &["exec", "-i", &id, "/web", "cat"], &piped).await?;
        if done.code != 0 || done.stdout != piped {
            return Err(format!("{} bytes of {} came back, code {}", done.stdout.len(), piped.len(), done.code));
        }
        let failed = cli.run(manager, &["exec", &id, "/web", "fail", "42"]).await?;
        if failed.code != 42 || failed.stderr.trim() != "failing as asked" || !failed.stdout.is_empty() {
            return Err(failed.report("its exit code should be 42, and only its standard error should say something"));
        }
        let lost = cli.run(manager, &["exec", &id, "/nosuch"]).await?;
        contains(&lost.report("it cannot be found"), "/nosuch")?;
        if !matches!(lost.code, 126 | 127) {
            return Err(lost.report("its exit code should be 126 or 127"));
        }
        let tty = cli.ok(manager, &["exec", "-t", "-e", "X=1", "-w", "/", &id, "/web", "say", "a", "terminal"]).await;
        // Without a terminal of our own the client may refuse; what it may not do is to hang.
        if let Ok(said) = tty {
            contains(&said, "a terminal")?;
        }
        cli.ok(manager, &["exec", "-d", &id, "/web", "say", "nobody", "listens"]).await?;
        let inspected = cli.ok(manager, &["inspect", "--type", "container", "--format", "{{.Id}}", &id]).await?;
        contains(&inspected, &id)?;
        cli.fails(manager, &["exec", "nosuchcontainer", "/web"], 1, "No such container: nosuchcontainer").await?;
    }
    say("a worker knows its own containers only");
    contains(&cli.ok(&world.worker, &["exec", &id, "/web", "say", "here"]).await?, "here")?;
    details_of_output(world, &cli).await?;
    replayed_events(world, &cli).await
}

/// The worker's engine has the details, and any manager shows them.
async fn details_of_output(world: &World, cli: &Cli) -> Outcome<()> {
    say("details of output, from the log options of the container");
    let [one, two] = &world.managers;
    let options = ["--log-opt", "env=ZONE", "--log-opt", "tag={{.Name}}", "--env", "ZONE=a b"];
    let create = ["service", "create", "-d", "--name", "told", "--log-driver", "json-file"];
    cli.ok(one, &[&create[..], &options, &[image::WEB_1, "lines", "2"]].concat()).await?;
    for manager in [one, two] {
        let lines = cli
            .until(manager, &["service", "logs", "--raw", "--details", "told"], "both lines", |text| {
                text.contains("line 2")
            })
            .await?;
        let first = lines.lines().next().unwrap_or_default().to_string();
        let expected = ["ZONE=a+b,com.docker.swarm.node.id=", ",tag=told.1.", " line 1"];
        expected.iter().try_for_each(|part| contains(&first, part))?;
    }
    Ok(())
}

/// What happened is told again, alike by both managers, and from any event on.
async fn replayed_events(world: &World, cli: &Cli) -> Outcome<()> {
    say("events since");
    let [one, two] = &world.managers;
    cli.ok(one, &["service", "rm", "told"]).await?;
    let events = async |manager: &Node, since: &str| {
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().map_err(|error| error.to_string())?.as_secs().to_string();
        let filters = ["--filter", "type=service", "--format", "{{json .}}"];
        cli.ok(manager, &[&["events", "--since", since, "--until", &now][..], &filters].concat()).await
    };
    let all = wait::until("the removal is told", SOON, || async {
        let told = events(one, "1").await?;
        if told.contains("\"Action\":\"remove\"") { Ok(told) } else { Err(told) }
    })
    .await?;
    let words = |text: &str| -> Vec<String> {
        let line = |line: &str| -> Option<String> {
            let event: serde_json::Value = serde_json::from_str(line).ok()?;
            Some(format!("{} {}", event["Action"].as_str()?, event["Actor"]["Attributes"]["name"].as_str()?))
        };
        text.lines().filter_map(line).collect()
    };
    let told = words(&all);
    if told.first().map(String::as_str) != Some("create web") || told.last().map(String::as_str) != Some("remove told")
    {
        return Err(format!("not what happened, or not in order:\n{all}"));
    }
    let other = events(two, "1").await?;
    if other != all {
        return Err(format!("the managers tell different stories:\n{all}\n{other}"));
    }
    for (at, line) in all.lines().enumerate() {
        let event: serde_json::Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
        let nanos = event["timeNano"].as_u64().ok_or("no time")?;
        let again = events(two, &format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)).await?;
        let rest: Vec<&str> = all.lines().skip(at).collect();
        // Events of one commit have one time.
        if !again.trim_end().ends_with(&rest.join("\n")) {
            return Err(format!("from event {at} on, this is told:\n{again}\nof this:\n{all}"));
        }
    }
    Ok(())
}
