//! Everything that rotates, one after the other, while others write: join tokens, node certificates, data keys, gossip keys, the
//! root certificate. Nobody may notice.

use super::{SOON, Scene, same_containers};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use swarmlite_tests::checks::running_containers;
use swarmlite_tests::cluster::say;
use swarmlite_tests::{Api, ApiError, Cluster, Outcome, wait};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// How often a change of the swarm is tried again because something else changed it.
const ATTEMPTS: usize = 20;
/// How often every node's failure detector is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// A node's certificate in its data directory.
const CERTIFICATE: &str = "certificates/swarm-node.crt";
/// What a manager says when nothing on its disk needs an older data key any more.
const SEALED_ANEW: &str = "everything on this node's disk is sealed with its new data key";
/// What the leader says when it judges a node anew.
const JUDGED: &str = "a node's state changed";

/// The story.
pub(crate) async fn everything(scene: &mut Scene) -> Outcome<()> {
    let cluster = &scene.cluster;
    let before = running_containers(cluster).await?;
    let judged = judgements(cluster);
    let detector = Detector::watch(cluster).await?;
    let began = Instant::now();
    tokens(cluster).await?;
    step("join tokens", began);
    certificates(cluster).await?;
    step("the certificates of all nodes", began);
    data_keys(cluster).await?;
    step("the data keys of all managers", began);
    gossip_keys(cluster).await?;
    step("the gossip key on all nodes", began);
    root(cluster).await?;
    step("the root certificate", began);
    scene.writes_for(Duration::from_secs(2)).await;
    same_containers(&before, &running_containers(cluster).await?)?;
    detector.nobody_was_suspected().await?;
    let now = judgements(cluster);
    if now == judged { Ok(()) } else { Err(format!("nodes were judged anew: before {judged:?}, now {now:?}")) }
}

/// Looks at the failure detectors of all nodes all the time.
struct Detector {
    stop: Arc<AtomicBool>,
    watching: JoinHandle<Outcome<usize>>,
}

impl Detector {
    async fn watch(cluster: &Cluster) -> Outcome<Self> {
        let (mut nodes, count) = (Vec::new(), cluster.nodes.len());
        for node in &cluster.nodes {
            let live = live(&node.look()).await?;
            if live < count - 1 {
                return Err(format!("{} hears {live} nodes of {count} to begin with", node.name()));
            }
            nodes.push((node.name(), node.look(), live));
        }
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let watching = tokio::spawn(async move {
            let mut looks = 0;
            while !stopped.load(Ordering::Relaxed) {
                for (name, api, before) in &nodes {
                    let now = live(api).await?;
                    if now < *before {
                        return Err(format!("{name} hears {now} nodes, {before} before: it suspects one that is well"));
                    }
                    looks += 1;
                }
                tokio::time::sleep(LOOK_EVERY).await;
            }
            Ok(looks)
        });
        Ok(Self { stop, watching })
    }

    async fn nobody_was_suspected(self) -> Outcome<()> {
        self.stop.store(true, Ordering::Relaxed);
        let looks = self.watching.await.map_err(|error| error.to_string())??;
        say(&format!("looked {looks} times at a failure detector: no node was suspected"));
        if looks == 0 { Err("nobody looked: this proves nothing".into()) } else { Ok(()) }
    }
}

/// How many nodes a node hears.
async fn live(api: &Api) -> Outcome<usize> {
    let gossip = api.get("/swarmlite/gossip").await?;
    gossip["Live"].as_array().map(Vec::len).ok_or_else(|| format!("nobody lives in {gossip}"))
}

fn step(what: &str, began: Instant) {
    say(&format!("rotated {what}, {:.1} s after the beginning", began.elapsed().as_secs_f64()));
}

/// What the managers have said of the states of nodes.
fn judgements(cluster: &Cluster) -> Vec<String> {
    let logs: Vec<String> = cluster.managers().iter().map(|manager| manager.log()).collect();
    let lines = logs.iter().flat_map(|log| log.lines()).filter(|line| line.contains(JUDGED));
    lines.map(String::from).collect()
}

/// Changes the swarm as a user does, also while others change it.
async fn update(api: &Api, query: &str, change: impl Fn(&mut Value)) -> Outcome<()> {
    for _ in 0..ATTEMPTS {
        let swarm = api.get("/swarm").await?;
        let mut spec = swarm["Spec"].clone();
        change(&mut spec);
        match api.post(&format!("/swarm/update?version={}{query}", swarm["Version"]["Index"]), &spec).await {
            Err(ApiError::Refused { message, .. }) if message.contains("out of sequence") => {}
            outcome => return outcome.map(drop).map_err(String::from),
        }
    }
    Err("the swarm is changed by others all the time".into())
}

async fn tokens(cluster: &Cluster) -> Outcome<()> {
    let old = cluster.tokens().await?;
    update(&cluster.nodes[1].api(), "&rotateWorkerToken=true&rotateManagerToken=true", |_| ()).await?;
    let new = cluster.tokens().await?;
    if new.0 == old.0 || new.1 == old.1 { Err("a join token is still the old one".into()) } else { Ok(()) }
}

/// With another validity, every node gets a new certificate.
async fn certificates(cluster: &Cluster) -> Outcome<()> {
    let read = |node: &swarmlite_tests::Node| {
        let path = node.data_dir().join(CERTIFICATE);
        std::fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))
    };
    let mut old = BTreeMap::new();
    for node in &cluster.nodes {
        old.insert(node.name(), read(node)?);
    }
    update(&cluster.nodes[2].api(), "", |spec| {
        spec["CAConfig"]["NodeCertExpiry"] = (48 * 3600 * 1_000_000_000_u64).into()
    })
    .await?;
    wait::until_now("every node has a new certificate", SOON, || {
        match cluster.nodes.iter().find(|node| read(node).ok().as_ref() == old.get(&node.name())) {
            None => Ok(()),
            Some(node) => Err(format!("{} has not", node.name())),
        }
    })
    .await
}

/// With the unlock key the data keys change too: every manager seals its log and its files anew.
async fn data_keys(cluster: &Cluster) -> Outcome<()> {
    let sealed = || cluster.managers().iter().map(|m| m.log().matches(SEALED_ANEW).count()).collect::<Vec<_>>();
    let wait_for_all = async |before: Vec<usize>| {
        wait::until_now("every manager has sealed its disk anew", SOON, || {
            let now = sealed();
            if now.iter().zip(&before).all(|(now, before)| now > before) { Ok(()) } else { Err(format!("{now:?}")) }
        })
        .await
    };
    let before = sealed();
    update(&cluster.nodes[0].api(), "", |spec| spec["EncryptionConfig"]["AutoLockManagers"] = true.into()).await?;
    wait_for_all(before).await?;
    let before = sealed();
    update(&cluster.nodes[0].api(), "&rotateManagerUnlockKey=true", |_| ()).await?;
    wait_for_all(before).await
}

async fn gossip_keys(cluster: &Cluster) -> Outcome<()> {
    let asked = cluster.nodes[1].api().post("/swarmlite/gossip/rotate", &Value::Null).await?;
    let old = asked["Replaces"].as_u64().ok_or_else(|| format!("no key in {asked}"))?;
    wait::until("every node seals with the new key", SOON, || async {
        for node in &cluster.nodes {
            let gossip = node.look().get("/swarmlite/gossip").await?;
            if gossip["Keys"][0].as_u64().is_none_or(|key| key <= old) {
                return Err(format!("{} seals with {}", node.name(), gossip["Keys"]));
            }
        }
        Ok(())
    })
    .await
}

async fn root(cluster: &Cluster) -> Outcome<()> {
    let api = cluster.nodes[0].api();
    let old = api.get("/swarm").await?["TLSInfo"]["TrustRoot"].clone();
    let rotate = |spec: &mut Value| {
        let force = spec["CAConfig"]["ForceRotate"].as_u64().unwrap_or_default();
        spec["CAConfig"]["ForceRotate"] = (force + 1).into();
    };
    update(&api, "", rotate).await?;
    wait::until("every node has moved to the new root", SOON, || async {
        let swarm = cluster.nodes[0].look().get("/swarm").await?;
        let root = &swarm["TLSInfo"]["TrustRoot"];
        if swarm["RootRotationInProgress"] != false || *root == old {
            return Err("the change is under way".into());
        }
        for node in cluster.nodes[0].nodes().await? {
            if node["Description"]["TLSInfo"]["TrustRoot"] != *root {
                return Err(format!("{} trusts another root", node["Description"]["Hostname"]));
            }
        }
        Ok(())
    })
    .await
}
