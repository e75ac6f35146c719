//! Managers that are gone for good: one that is left makes the swarm anew; and when none is, a backup does, on another data
//! directory.

use super::{BRIEF, contains};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use swarmlite_tests::checks::{replicas_run, running_containers};
use swarmlite_tests::cluster::{Options, say};
use swarmlite_tests::network::Kind;
use swarmlite_tests::{Cli, Cluster, Node, Outcome, image, wait};

/// A secret's data, which only the backup has when all managers are gone.
const SECRET: &str = "what only the backup knows";
/// Replicas of the service that must come back.
const REPLICAS: usize = 2;
/// For what follows by itself, on a machine that other tests use as well.
const SOON: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wiped_cluster_is_restored_from_a_backup() -> Outcome<()> {
    let options = Options { managers: 3, workers: 2, network: Kind::Loopback, ..Options::default() };
    Cluster::start(options).await?.tell(async |cluster| story(&Cli::swarmlite(), cluster).await).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_manager_of_three_makes_the_swarm_anew() -> Outcome<()> {
    let options = Options { managers: 3, workers: 2, network: Kind::Loopback, ..Options::default() };
    Cluster::start(options).await?.tell(async |cluster| survive(&Cli::docker(), cluster).await).await
}

async fn survive(cli: &Cli, cluster: &mut Cluster) -> Outcome<()> {
    let (survivor, remote) = (2, cluster.nodes[2].remote());
    on_workers_only(cli, cluster, survivor).await?;
    let create = ["service", "create", "--no-resolve-image", BRIEF, "--name", "app", "--replicas", "2", image::WEB_1];
    contains(&cli.ok(&cluster.nodes[survivor], &create).await?, "converged")?;
    let before = running_containers(cluster).await?;
    say("two of three managers lose power and their disks");
    for index in 0..survivor {
        cluster.nodes[index].kill()?;
        std::fs::remove_dir_all(cluster.nodes[index].data_dir()).map_err(|error| error.to_string())?;
    }
    let three = &cluster.nodes[survivor];
    let force = ["swarm", "init", "--force-new-cluster", "--advertise-addr", &remote, "--listen-addr", &remote];
    contains(&cli.ok(three, &force).await?, &format!("current node ({}) is now a manager.", three.id))?;
    workers_are_back(cluster, survivor).await?;
    replicas_run(cluster, survivor, "app", REPLICAS, SOON).await?;
    let now = running_containers(cluster).await?;
    if now != before {
        return Err(format!("the workers' containers should have gone on: before {before:?}, now {now:?}"));
    }
    contains(&cli.ok(three, &["service", "scale", "app=3"]).await?, "converged")?;
    let leader = cli.ok(three, &["node", "ls", "--format", "{{.ID}} {{.ManagerStatus}}"]).await?;
    let leads = |line: &str| line.ends_with(" Leader");
    let managers: Vec<&str> = leader.lines().filter(|line| leads(line) || line.ends_with("able")).collect();
    if managers == [format!("{} Leader", three.id)] { Ok(()) } else { Err(format!("not the only manager:\n{leader}")) }
}

/// Keeps tasks off the managers: what runs on the workers goes on without them.
async fn on_workers_only(cli: &Cli, cluster: &Cluster, through: usize) -> Outcome<()> {
    for manager in cluster.managers() {
        let drain = ["node", "update", "--availability", "drain", &manager.id];
        cli.ok(&cluster.nodes[through], &drain).await?;
    }
    Ok(())
}

async fn workers_are_back(cluster: &Cluster, through: usize) -> Outcome<()> {
    wait::until("the workers are back, by themselves", SOON, || async {
        let nodes = cluster.nodes[through].nodes().await?;
        for worker in &cluster.nodes[3..5] {
            let state = nodes.iter().find(|n| n["ID"] == worker.id.as_str()).map(|n| n["Status"]["State"].clone());
            if state.as_ref().is_none_or(|state| state != "ready") {
                return Err(format!("{} is {state:?}", worker.name()));
            }
        }
        Ok(())
    })
    .await
}

async fn story(cli: &Cli, cluster: &mut Cluster) -> Outcome<()> {
    let scratch = tempfile::tempdir().map_err(|error| error.to_string())?;
    let (file, key) = back_up(cli, cluster, scratch.path()).await?;
    let before = running_containers(cluster).await?;
    let (id, remote) = (cluster.nodes[0].id.clone(), cluster.nodes[0].remote());
    say("all managers lose power and their disks, the workers go on");
    for index in 0..3 {
        cluster.nodes[index].kill()?;
        std::fs::remove_dir_all(cluster.nodes[index].data_dir()).map_err(|error| error.to_string())?;
    }
    let mut heir = cluster.place(0, "heir")?;
    refuse(cli, &heir, &file, &key, scratch.path()).await?;
    say("restore, on another data directory");
    let data_dir = heir.data_dir();
    let printed = restore(cli, &heir, &file, &key, &data_dir).await?;
    if printed.code != 0 {
        return Err(printed.report("it should restore"));
    }
    contains(&printed.stdout, &format!("is its only manager, at {remote}."))?;
    cluster.start_at(&mut heir)?;
    heir.answers().await?;
    heir.member().await?;
    if heir.id == id {
        return Err("the heir has the id of a manager that may come back".into());
    }
    cluster.nodes.push(heir);
    back(cli, cluster, &before).await
}

/// Makes a service with a secret, and a backup of it all; returns the backup and a file with its key.
async fn back_up(cli: &Cli, cluster: &Cluster, scratch: &Path) -> Outcome<(String, String)> {
    let two = &cluster.nodes[1];
    for args in [["secret", "create", "vault", "-"], ["config", "create", "site", "-"]] {
        let done = cli.run_with(two, &args, SECRET).await?;
        if done.code != 0 {
            return Err(done.report("it should be made"));
        }
    }
    on_workers_only(cli, cluster, 1).await?;
    let create =
        ["service", "create", "--no-resolve-image", BRIEF, "--name", "app", "--replicas", "2", "--secret", "vault"];
    contains(&cli.ok(two, &[&create[..], &[image::WEB_1, "sleep"]].concat()).await?, "converged")?;
    say("a backup while it runs");
    let path = |name: &str| scratch.join(name).to_string_lossy().into_owned();
    let (file, key) = (path("swarm.bak"), path("key"));
    let printed = cli.ok(two, &["backup", "create", &file]).await?;
    let text = printed.lines().map(str::trim).find(|line| line.starts_with("SWMBAK-1-"));
    std::fs::write(&key, text.ok_or_else(|| format!("no key in:\n{printed}"))?).map_err(|error| error.to_string())?;
    let bytes = std::fs::read(&file).map_err(|error| error.to_string())?;
    for marker in [SECRET, "PRIVATE KEY", "SWMTKN-1-"] {
        if bytes.windows(marker.len()).any(|window| window == marker.as_bytes()) {
            return Err(format!("the backup shows {marker:?}"));
        }
    }
    cli.ok(two, &["backup", "verify", "--key-file", &key, &file]).await?;
    Ok((file, key))
}

async fn restore(
    cli: &Cli,
    node: &Node,
    file: &str,
    key: &str,
    data_dir: &Path,
) -> Outcome<swarmlite_tests::cli::Done> {
    let (remote, data_dir) = (node.remote(), data_dir.to_string_lossy().into_owned());
    let at = ["--listen-addr", &remote, "--advertise-addr", &remote, "--data-dir", &data_dir];
    cli.run(node, &[&["restore", "--key-file", key][..], &at, &[file]].concat()).await
}

/// A wrong key, a damaged file, a directory that is in use: nothing is half done.
async fn refuse(cli: &Cli, heir: &Node, file: &str, key: &str, scratch: &Path) -> Outcome<()> {
    let failed = |error: std::io::Error| error.to_string();
    let wrong = scratch.join("wrong");
    std::fs::write(&wrong, "SWMBAK-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA").map_err(failed)?;
    let damaged = scratch.join("damaged");
    let mut bytes = std::fs::read(file).map_err(failed)?;
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, bytes).map_err(failed)?;
    let taken = scratch.join("taken");
    std::fs::create_dir(&taken).and_then(|()| std::fs::write(taken.join("mine"), "x")).map_err(failed)?;
    let (wrong, damaged) = (wrong.to_string_lossy(), damaged.to_string_lossy());
    let data_dir = heir.data_dir();
    for (file, key, place) in [(file, &*wrong, &*data_dir), (&*damaged, key, &*data_dir), (file, key, &*taken)] {
        let done = restore(cli, heir, file, key, place).await?;
        if done.code != 1 || done.stderr.is_empty() {
            return Err(done.report("it should be refused"));
        }
        // But for the lock, which is held while it works on a directory.
        let left =
            std::fs::read_dir(place).into_iter().flatten().flatten().filter(|file| file.file_name() != "lock").count();
        if left != usize::from(place == taken) {
            return Err(done.report(&format!("something was half done: {left} files are there")));
        }
    }
    Ok(())
}

/// Everything is there again, with workers that came back by themselves.
async fn back(cli: &Cli, cluster: &Cluster, before: &BTreeMap<String, String>) -> Outcome<()> {
    let place = cluster.nodes.len() - 1;
    let heir = &cluster.nodes[place];
    workers_are_back(cluster, place).await?;
    replicas_run(cluster, place, "app", REPLICAS, SOON).await?;
    let now = running_containers(cluster).await?;
    if now != *before {
        return Err(format!("the workers' containers should have gone on: before {before:?}, now {now:?}"));
    }
    for noun in ["secret", "config"] {
        let name = if noun == "secret" { "vault" } else { "site" };
        let listed = cli.ok(heir, &[noun, "ls", "--format", "{{.Name}}"]).await?;
        if listed.trim() != name {
            return Err(format!("of the {noun}s there are:\n{listed}"));
        }
    }
    let forced = cli.ok(heir, &["service", "update", "--no-resolve-image", "--force", "app"]).await?;
    contains(&forced, "converged")?;
    say("new tasks, made by the new manager, have the secret");
    let filter = "label=com.docker.swarm.service.name=app";
    let tasks =
        cli.ok(heir, &["service", "ps", "-q", "--no-trunc", "--filter", "desired-state=running", "app"]).await?;
    let docker = Cli::docker();
    let names = docker.ok(heir, &["ps", "--filter", filter, "--format", "{{.Names}}"]).await?;
    for task in tasks.lines() {
        let name = names.lines().find(|name| name.ends_with(task)).ok_or_else(|| format!("{task} has no container"))?;
        contains(&docker.ok(heir, &["exec", name, "/web", "look", "/run/secrets/vault"]).await?, SECRET)?;
    }
    Ok(())
}
