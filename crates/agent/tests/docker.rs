//! The agent on a real dockerd: what the embedded engine cannot prove. `DOCKER_HOST` names it (default:
//! `/var/run/docker.sock`); without one this test fails and says so.

mod common;

use common::{World, task, task_id};
use engine::{ContainerPhase, DockerEngine, DockerOptions, Engine};
use model::{Task, TaskState};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use swarmlite_agent::{NODE_LABEL, remove_everything};

const IMAGE: &str = "swarmlite-agent-test:1";

fn host() -> String {
    let host = std::env::var("DOCKER_HOST").unwrap_or_default();
    if !host.is_empty() {
        return host;
    }
    assert!(
        std::path::Path::new("/var/run/docker.sock").exists(),
        "this test needs a real Docker Engine: set DOCKER_HOST (unix:///path or tcp://host:port), or start one at \
         /var/run/docker.sock"
    );
    "unix:///var/run/docker.sock".to_owned()
}

fn sh(script: &str) {
    let output = Command::new("sh").arg("-c").arg(script).env("DOCKER_HOST", host()).output().unwrap();
    assert!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
}

fn a_task(n: u8, script: &str) -> Task {
    let mut task = task(n, IMAGE);
    let container = &mut Arc::make_mut(&mut task.spec).container;
    container.command = vec!["/bin/sh".into(), "-c".into()];
    container.args = vec![script.into()];
    container.stop_grace_period = Some(Duration::from_secs(1));
    task
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_run_survive_their_agent_and_leave_nothing() {
    sh(&format!(
        "set -e; for b in /bin/busybox /usr/bin/busybox; do [ -e $b ] && busybox=$b; done; \
         [ -n \"$busybox\" ] || {{ echo 'a static busybox is needed: apt-get install busybox-static' >&2; exit 1; }}; \
         d=$(mktemp -d); mkdir $d/bin; cp $busybox $d/bin/; ln -s busybox $d/bin/sh; ln -s busybox $d/bin/sleep; \
         tar -C $d -c . | docker import - {IMAGE} >/dev/null; rm -rf $d"
    ));
    let engine = Arc::new(DockerEngine::new(&DockerOptions { host: host(), ..DockerOptions::default() }).unwrap());
    let mut world = World::new(1);
    // Left over from a run that was killed.
    remove_everything(&world.config, &world.seams, &*engine).await.unwrap();
    let label = format!("{NODE_LABEL}={}", world.config.node_id);
    let running = async || -> Vec<(String, i64)> {
        let all = engine.list(&label).await.unwrap();
        all.into_iter().filter(|c| c.phase == ContainerPhase::Running).map(|c| (c.name, c.pid)).collect()
    };

    world.agent = Some(world.agent_on(world.config.clone(), engine.clone()).await);
    world.manager().assign(1, vec![a_task(1, "sleep 1000"), a_task(2, "exit 3"), task(3, "swarmlite-none:1")]);
    world.until_state(1, TaskState::Running).await;
    world.until_state(2, TaskState::Failed).await;
    world.until_state(3, TaskState::Rejected).await;
    assert_eq!(world.manager().status(&task_id(2)).err, "task: non-zero exit (3)");
    let err = world.manager().status(&task_id(3)).err;
    assert!(err.starts_with("No such image: swarmlite-none:1"), "{err}");
    let was = running().await;
    assert_eq!(was.len(), 1);
    assert_eq!(world.manager().status(&task_id(1)).container.unwrap().pid, was[0].1);

    // The agent goes and comes back: the same process still runs.
    world.stop().await;
    world.agent = Some(world.agent_on(world.config.clone(), engine.clone()).await);
    world.manager().assign(1, vec![a_task(1, "sleep 1000"), a_task(4, "sleep 1000")]);
    world.until_state(4, TaskState::Running).await;
    assert!(running().await.contains(&was[0]));
    // An event tells a death; the stop of another is one that was wanted.
    sh(&format!("docker kill {}", task(4, IMAGE).name()));
    world.until_state(4, TaskState::Failed).await;
    assert_eq!(world.manager().status(&task_id(4)).err, "task: non-zero exit (137)");

    world.manager().assign(1, vec![]);
    world.until("the agent has no task", |w| w.agent.as_ref().unwrap().tasks().is_empty()).await;
    let waited = tokio::time::Instant::now();
    while !engine.list(&label).await.unwrap().is_empty() {
        assert!(waited.elapsed() < Duration::from_secs(30), "something is left");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.stop().await;
}
