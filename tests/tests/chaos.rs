//! Chaos: three managers and two workers as real processes, a real Docker Engine, and a fault under a stream of writes.
//! Every test ends with the same question, [`checks::all_is_well`].

#![allow(clippy::disallowed_methods)] // the real machine

#[path = "chaos/rotation.rs"]
mod rotation;
#[path = "chaos/update.rs"]
mod update;

use rustix::process::Signal;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use swarmlite_tests::checks::{all_is_well, replicas_run, running_containers};
use swarmlite_tests::cluster::say;
use swarmlite_tests::engines::PrivateEngine;
use swarmlite_tests::history::{self, Writers};
use swarmlite_tests::network::{Kind, Network};
use swarmlite_tests::{Cluster, Options, Outcome, image, wait};
use tokio::time::Instant;

/// Writers at a time.
const WRITERS: usize = 4;
/// Replicas of the service that must come through.
const REPLICAS: usize = 6;
/// For replicas to run, on a machine that other tests use as well.
const RUN_LIMIT: Duration = Duration::from_secs(60);
/// What nobody should have to wait longer for, whatever dies: a build without optimisation on a busy machine.
const PAUSE_MAX: Duration = Duration::from_secs(8);
/// For a condition that follows from another one at once.
const SOON: Duration = Duration::from_secs(30);

/// A cluster with a service that runs, and writers at work.
struct Scene {
    cluster: Cluster,
    writers: Option<Writers>,
    /// Since when things go wrong.
    disturbed: Instant,
    /// The longest time in which no write is acknowledged.
    pause_max: Option<Duration>,
}

/// Sets the scene, lets the story happen, ends the writing, checks everything, and cleans up.
async fn play(options: Options, story: impl AsyncFnOnce(&mut Scene) -> Outcome<()>) -> Outcome<()> {
    let mut scene = Scene::set(options).await?;
    let outcome = match story(&mut scene).await {
        Ok(()) => scene.finish().await,
        Err(error) => Err(error),
    };
    let outcome = outcome.map_err(|error| format!("{error}\n{}", scene.cluster.autopsy()));
    let cleaned = scene.cluster.tear_down().await;
    outcome.and(cleaned)
}

impl Scene {
    async fn set(options: Options) -> Outcome<Self> {
        let cluster = Cluster::start(options).await?;
        cluster.create_service(0, "web", image::WEB_1, REPLICAS as u64).await?;
        replicas_run(&cluster, 0, "web", REPLICAS, RUN_LIMIT).await?;
        let writers = Some(history::write(cluster.apis(), WRITERS));
        let mut scene = Self { cluster, writers, disturbed: Instant::now(), pause_max: None };
        scene.writes_for(Duration::from_secs(2)).await;
        scene.disturbed = Instant::now();
        Ok(scene)
    }

    /// Lets the writers write: it is they who need the time.
    async fn writes_for(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    async fn finish(&mut self) -> Outcome<()> {
        let history = self.writers.take().ok_or("nobody writes")?.stop().await?;
        if history.acknowledged() == 0 {
            return Err("no write was acknowledged: this proves nothing".into());
        }
        if history.first_ack_after(self.disturbed).is_none() {
            return Err("no write was acknowledged after the fault".into());
        }
        let pause = history.longest_pause(self.disturbed);
        say(&format!("writes paused for {:.2} s at the longest", pause.as_secs_f64()));
        if let Some(max) = self.pause_max.filter(|max| pause > *max) {
            return Err(format!("writes paused for {pause:?}, more than {max:?}"));
        }
        all_is_well(&self.cluster, &history).await
    }
}

/// That the same containers run as before, not restarted.
fn same_containers(before: &BTreeMap<String, String>, after: &BTreeMap<String, String>) -> Outcome<()> {
    if before == after {
        Ok(())
    } else {
        Err(format!("containers were restarted:\n  before {before:?}\n  after  {after:?}"))
    }
}

fn others(leader: usize) -> Vec<usize> {
    (0..3).filter(|index| *index != leader).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_the_leader_under_writes() -> Outcome<()> {
    play(Options::default(), async |scene| {
        let before = running_containers(&scene.cluster).await?;
        for round in 1..=2 {
            let leader = scene.cluster.leader().await?;
            say(&format!("round {round}: kill -9 {}", scene.cluster.nodes[leader].name()));
            scene.cluster.nodes[leader].kill()?;
            scene.cluster.leader_among(&others(leader)).await?;
            scene.writes_for(Duration::from_secs(2)).await;
            scene.cluster.restart(leader).await?;
            scene.cluster.all_ready().await?;
        }
        same_containers(&before, &running_containers(&scene.cluster).await?)?;
        scene.pause_max = Some(PAUSE_MAX);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_the_leader_in_good_order() -> Outcome<()> {
    play(Options::default(), async |scene| {
        let before = running_containers(&scene.cluster).await?;
        let leader = scene.cluster.leader().await?;
        say(&format!("SIGTERM {}", scene.cluster.nodes[leader].name()));
        scene.cluster.nodes[leader].terminate().await?;
        scene.cluster.leader_among(&others(leader)).await?;
        scene.writes_for(Duration::from_secs(1)).await;
        scene.cluster.restart(leader).await?;
        scene.cluster.all_ready().await?;
        same_containers(&before, &running_containers(&scene.cluster).await?)?;
        scene.pause_max = Some(PAUSE_MAX);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_a_worker_with_its_containers() -> Outcome<()> {
    play(Options::default(), async |scene| {
        let worker = 3;
        let id = scene.cluster.nodes[worker].id.clone();
        scene.cluster.nodes[worker].kill()?;
        let engine = scene.cluster.engine.clone().ok_or("no engine")?;
        let killed = engine.kill_containers_of(&id).await?;
        if killed == 0 {
            return Err("the worker had no containers: this proves nothing".into());
        }
        say(&format!("killed {} and its {killed} containers", scene.cluster.nodes[worker].name()));
        wait::until("its replicas run elsewhere", RUN_LIMIT, || async {
            let mut elsewhere = scene.cluster.ids();
            elsewhere.retain(|other| *other != id);
            let running =
                engine.containers_of(&elsewhere).await?.iter().filter(|container| container.state == "running").count();
            if running == REPLICAS { Ok(()) } else { Err(format!("{running} containers run")) }
        })
        .await?;
        say(&format!("its replicas run elsewhere after {:.1} s", scene.disturbed.elapsed().as_secs_f64()));
        scene.cluster.restart(worker).await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_a_worker_that_comes_back_to_containers_it_should_not_run() -> Outcome<()> {
    play(Options::default(), async |scene| {
        let worker = 4;
        say("kill -9 worker5, whose containers go on running, until others have taken over");
        scene.cluster.nodes[worker].kill()?;
        replicas_run_elsewhere(&scene.cluster, worker).await?;
        scene.cluster.restart(worker).await?;
        Ok(())
    })
    .await
}

async fn replicas_run_elsewhere(cluster: &Cluster, worker: usize) -> Outcome<()> {
    let engine = cluster.engine.clone().ok_or("no engine")?;
    let mut elsewhere = cluster.ids();
    elsewhere.remove(worker);
    wait::until("all replicas run on the other nodes", RUN_LIMIT, || async {
        let running =
            engine.containers_of(&elsewhere).await?.iter().filter(|container| container.state == "running").count();
        if running == REPLICAS { Ok(()) } else { Err(format!("{running} containers run there")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pause_the_leader_and_let_it_go_on() -> Outcome<()> {
    play(Options::default(), async |scene| {
        let leader = scene.cluster.leader().await?;
        say(&format!("SIGSTOP {}", scene.cluster.nodes[leader].name()));
        scene.cluster.signal(leader, Signal::STOP)?;
        scene.cluster.leader_among(&others(leader)).await?;
        scene.writes_for(Duration::from_secs(3)).await;
        scene.cluster.signal(leader, Signal::CONT)?;
        scene.cluster.all_ready().await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cut_managers_off_and_heal_them() -> Outcome<()> {
    play(Options::default(), async |scene| {
        let leader = scene.cluster.leader().await?;
        let follower = others(leader)[0];
        for (index, what) in [(follower, "a follower"), (leader, "the leader")] {
            say(&format!("cut off {what}, {}", scene.cluster.nodes[index].name()));
            scene.cluster.cut(index)?;
            scene.cluster.leader_among(&others(index)).await?;
            scene.writes_for(Duration::from_secs(2)).await;
            scene.cluster.heal(index)?;
            scene.cluster.all_ready().await?;
        }
        let leader = scene.cluster.leader().await?;
        say(&format!("{} can send, but not receive", scene.cluster.nodes[leader].name()));
        scene.cluster.deafen(leader)?;
        scene.cluster.leader_among(&others(leader)).await?;
        scene.writes_for(Duration::from_secs(2)).await;
        scene.cluster.heal(leader)?;
        scene.cluster.all_ready().await?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restart_all_managers_at_once() -> Outcome<()> {
    play(Options::default(), async |scene| {
        let before = running_containers(&scene.cluster).await?;
        say("kill -9 all managers at once, and start them again");
        for index in 0..3 {
            scene.cluster.nodes[index].kill()?;
        }
        for index in 0..3 {
            scene.cluster.spawn(index)?;
        }
        for index in 0..3 {
            scene.cluster.nodes[index].answers().await?;
        }
        scene.cluster.all_ready().await?;
        scene.writes_for(Duration::from_secs(1)).await;
        same_containers(&before, &running_containers(&scene.cluster).await?)?;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_the_engine_of_all_nodes() -> Outcome<()> {
    let scratch = tempfile::Builder::new().prefix("sle-").tempdir().map_err(|error| error.to_string())?;
    let network = Network::new(Kind::Namespaces, 1)?;
    let mut engine = PrivateEngine::new(0, scratch.path().to_path_buf());
    engine.up(&network).await?;
    let options = Options { docker_host: Some(engine.address()), ..Options::default() };
    play(options, async |scene| {
        say("cut the power of the Docker Engine of all nodes, and of its containers");
        engine.kill();
        // They are gone with it, those too that are none of ours.
        scene.cluster.bystanders.clear();
        scene.writes_for(Duration::from_secs(2)).await;
        engine.up(&network).await?;
        say("it is back; what it took along is replaced");
        replicas_run(&scene.cluster, 0, "web", REPLICAS, RUN_LIMIT).await?;
        scene.pause_max = Some(PAUSE_MAX);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotate_everything_under_writes() -> Outcome<()> {
    play(Options::default(), async |scene| {
        rotation::everything(scene).await?;
        scene.pause_max = Some(PAUSE_MAX);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_leaders_at_twenty_moments_of_updates_that_fail() -> Outcome<()> {
    update::story().await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fill_the_disk_of_a_manager() -> Outcome<()> {
    const DISK_BYTES: u64 = 96 << 20;
    let options = Options { small_disk: Some((1, DISK_BYTES)), ..Options::default() };
    play(options, async |scene| {
        let ballast = fill(scene.cluster.nodes[1].data_dir())?;
        say("filled the disk of manager2");
        scene.writes_for(Duration::from_secs(5)).await;
        wait::until_now("manager2 stops, saying what is wrong and what to do", SOON, || {
            let (running, log) = (scene.cluster.nodes[1].is_running(), scene.cluster.nodes[1].log());
            let says = log.contains("No space left on device") && log.contains("Make room on its disk");
            if says && !running { Ok(()) } else { Err(format!("running: {running}, says so: {says}")) }
        })
        .await?;
        scene.cluster.leader_among(&[0, 2]).await?;
        say("it stopped, the others go on; a start on a disk that is still full says so too");
        scene.cluster.spawn(1)?;
        scene.writes_for(Duration::from_secs(2)).await;
        std::fs::remove_file(&ballast).map_err(|error| error.to_string())?;
        say("made room again");
        if !scene.cluster.nodes[1].is_running() {
            scene.cluster.spawn(1)?;
        }
        scene.cluster.nodes[1].answers().await?;
        scene.cluster.all_ready().await?;
        Ok(())
    })
    .await
}

fn fill(dir: PathBuf) -> Outcome<PathBuf> {
    use std::io::Write;
    let path = dir.join("ballast");
    let mut file = std::fs::File::create(&path).map_err(|error| error.to_string())?;
    let (mut block, mut written) = (vec![0u8; 1 << 16], 0u64);
    loop {
        match file.write(&block) {
            Ok(bytes) => written += bytes as u64,
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull && block.len() > 1 => {
                block.truncate(block.len() / 2)
            }
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => break,
            Err(error) => return Err(error.to_string()),
        }
    }
    if written == 0 { Err("the disk was full before".into()) } else { Ok(path) }
}
