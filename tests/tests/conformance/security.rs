//! Join tokens, the root certificate and autolock, as a user handles them: on three managers and two workers that go on
//! running a service all the while.

use super::contains;
use std::collections::BTreeMap;
use std::time::Duration;
use swarmlite_tests::checks::{replicas_run, running_containers};
use swarmlite_tests::cluster::{Options, say};
use swarmlite_tests::network::Kind;
use swarmlite_tests::{Cli, Cluster, Node, Outcome, image, wait};

/// Replicas of the service that must come through.
const REPLICAS: usize = 4;
/// For what follows by itself, on a machine that other tests use as well.
const SOON: Duration = Duration::from_secs(60);
const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it.";

/// Runs a story on a swarm with a service; its containers must be the same afterwards.
async fn tell(cli: Cli, story: impl AsyncFnOnce(&Cli, &mut Cluster) -> Outcome<()>) -> Outcome<()> {
    let options = Options { managers: 3, workers: 2, network: Kind::Loopback, ..Options::default() };
    Cluster::start(options).await?.tell(async |cluster| undisturbed(&cli, cluster, story).await).await
}

async fn undisturbed(
    cli: &Cli,
    cluster: &mut Cluster,
    story: impl AsyncFnOnce(&Cli, &mut Cluster) -> Outcome<()>,
) -> Outcome<()> {
    cluster.create_service(0, "web", image::WEB_1, REPLICAS as u64).await?;
    replicas_run(cluster, 0, "web", REPLICAS, SOON).await?;
    let before = running_containers(cluster).await?;
    story(cli, cluster).await?;
    cluster.all_ready().await?;
    let after: BTreeMap<String, String> = running_containers(cluster).await?;
    if before == after {
        Ok(())
    } else {
        Err(format!("containers were restarted:\n  before {before:?}\n  after  {after:?}"))
    }
}

macro_rules! with_both {
    ($($name:ident: $story:ident;)*) => { $(
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn by_docker() -> Outcome<()> {
                tell(Cli::docker(), async |cli, cluster| $story(cli, cluster).await).await
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn by_swarmlite() -> Outcome<()> {
                tell(Cli::swarmlite(), async |cli, cluster| $story(cli, cluster).await).await
            }
        }
    )* };
}

with_both! {
    tokens_and_root: tokens_and_root_story;
    autolock: autolock_story;
}

async fn tokens_and_root_story(cli: &Cli, cluster: &mut Cluster) -> Outcome<()> {
    rotate_token(cli, cluster).await?;
    say("a new root certificate");
    let one = &cluster.nodes[0];
    let old_root = cli.ok(one, &["swarm", "ca"]).await?;
    contains(&old_root, "-----BEGIN CERTIFICATE-----")?;
    let old_token = token(cli, one, "manager").await?;
    // It waits until every node has moved over, and prints the root that they all trust.
    let printed = cli.ok(one, &["swarm", "ca", "--rotate"]).await?;
    let new_root = cli.ok(one, &["swarm", "ca"]).await?;
    contains(&printed, new_root.trim())?;
    if new_root.trim() == old_root.trim() || token(cli, one, "manager").await? == old_token {
        return Err("the root or the token is still the old one".into());
    }
    cli.until(
        &cluster.nodes[1],
        &["node", "ls", "--format", "{{.Hostname}} {{.TLSStatus}}"],
        "all have moved",
        |text| text.lines().count() == 5 && text.lines().all(|line| line.ends_with(" Ready")),
    )
    .await?;
    for manager in cluster.managers() {
        if cli.ok(manager, &["swarm", "ca"]).await?.trim() != new_root.trim() {
            return Err(format!("{} shows another root", manager.name()));
        }
    }
    Ok(())
}

async fn token(cli: &Cli, node: &Node, role: &str) -> Outcome<String> {
    Ok(cli.ok(node, &["swarm", "join-token", "-q", role]).await?.trim().to_string())
}

/// The old token of workers admits nobody, the new one does, and that of managers is what it was.
async fn rotate_token(cli: &Cli, cluster: &mut Cluster) -> Outcome<()> {
    say("a new join token");
    let remote = cluster.nodes[0].remote();
    let one = &cluster.nodes[0];
    let (old, managers) = (token(cli, one, "worker").await?, token(cli, one, "manager").await?);
    let printed = cli.ok(one, &["swarm", "join-token", "--rotate", "worker"]).await?;
    contains(&printed, "Successfully rotated worker join token.")?;
    let new = token(cli, one, "worker").await?;
    contains(&printed, &format!("swarm join --token {new} {remote}"))?;
    if new == old || token(cli, one, "manager").await? != managers {
        return Err("only the worker's token should be new".into());
    }
    // Another daemon than those of the cluster, so that no task has to move.
    let mut stranger = cluster.stranger().await?;
    let address = stranger.remote();
    let join = ["swarm", "join", "--listen-addr", &address, "--advertise-addr", &address, "--token"];
    let refused = cli.run(&stranger, &[&join[..], &[&old, &remote]].concat()).await?;
    if refused.code != 1 || !refused.stderr.contains("A valid join token is necessary to join this cluster") {
        return Err(refused.report("the old token should be refused"));
    }
    contains(
        &cli.ok(&stranger, &[&join[..], &[&new, &remote]].concat()).await?,
        "This node joined a swarm as a worker.",
    )?;
    stranger.member().await?;
    cli.ok(&stranger, &["swarm", "leave"]).await?;
    cli.until(one, &["node", "inspect", &stranger.id, "--format", "{{.Status.State}}"], "it is down", |text| {
        text.trim() == "down"
    })
    .await?;
    cli.ok(one, &["node", "rm", &stranger.id]).await.map(drop)
}

async fn autolock_story(cli: &Cli, cluster: &mut Cluster) -> Outcome<()> {
    let fails_for_want_of_a_key = ["swarm", "unlock-key", "-q"];
    cli.fails(&cluster.nodes[0], &fails_for_want_of_a_key, 1, "no unlock key is set").await?;
    say("managers lock themselves");
    let printed = cli.ok(&cluster.nodes[0], &["swarm", "update", "--autolock=true"]).await?;
    contains(&printed, "Swarm updated.")?;
    let key = cli.ok(&cluster.nodes[0], &["swarm", "unlock-key", "-q"]).await?.trim().to_string();
    contains(&key, "SWMKEY-1-")?;
    contains(&printed, &format!("    {key}\n"))?;
    let locked = 1;
    restart_until_locked(cluster, locked).await?;
    let two = &cluster.nodes[locked];
    cli.fails(two, &["node", "ls"], 1, LOCKED).await?;
    cli.fails(two, &["service", "ls"], 1, LOCKED).await?;
    cli.fails(two, &["secret", "ls"], 1, LOCKED).await?;
    let wrong = "SWMKEY-1-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
    for (sent, says) in [(wrong, "invalid key provided"), ("nonsense", "")] {
        let refused = cli.run_with(two, &["swarm", "unlock"], &format!("{sent}\n")).await?;
        if refused.code != 1 || !refused.stderr.contains(says) {
            return Err(refused.report("a wrong key should be refused"));
        }
    }
    let done = cli.run_with(two, &["swarm", "unlock"], &format!("{key}\n")).await?;
    if done.code != 0 {
        return Err(done.report("the key should unlock it"));
    }
    wait::until("it serves again", SOON, || async {
        let done = cli.run(two, &["node", "ls", "-q"]).await?;
        if done.code == 0 && done.stdout.lines().count() == 5 {
            Ok(())
        } else {
            Err(done.report("it should list nodes"))
        }
    })
    .await?;
    let again = cli.run_with(two, &["swarm", "unlock"], &format!("{key}\n")).await?;
    if again.code != 1 || !again.stderr.contains("swarm is not locked") {
        return Err(again.report("it is not locked any more"));
    }
    say("a new key, and none");
    let one = &cluster.nodes[0];
    let rotated = cli.ok(one, &["swarm", "unlock-key", "--rotate"]).await?;
    contains(&rotated, "Successfully rotated manager unlock key.")?;
    let new = cli.ok(one, &["swarm", "unlock-key", "-q"]).await?.trim().to_string();
    contains(&rotated, &new)?;
    if new == key {
        return Err("the key is still the old one".into());
    }
    contains(&cli.ok(one, &["swarm", "update", "--autolock=false"]).await?, "Swarm updated.")?;
    cli.fails(one, &fails_for_want_of_a_key, 1, "no unlock key is set").await
}

/// Kills a manager and starts it again, until it has had the time to lock its disk before.
async fn restart_until_locked(cluster: &mut Cluster, index: usize) -> Outcome<()> {
    for _ in 0..10 {
        cluster.nodes[index].kill()?;
        cluster.restart(index).await?;
        let node = &cluster.nodes[index];
        let state = wait::until("it knows its state", SOON, || async {
            let info = node.look().get("/info").await?;
            match info["Swarm"]["LocalNodeState"].as_str() {
                Some(state @ ("locked" | "active")) => Ok(state.to_string()),
                other => Err(format!("it is {other:?}")),
            }
        })
        .await?;
        if state == "locked" {
            return Ok(());
        }
    }
    Err("it never locks itself".into())
}
