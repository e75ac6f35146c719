//! The agent on a real dockerd: what the embedded engine cannot prove. See `common/docker.rs` for how it is found; without one
//! these tests fail and say so.

mod common;
#[path = "common/docker.rs"]
mod real;

use common::{World, node_id, task, task_id, wanted};
use engine::{ContainerPhase, DockerEngine, DockerOptions, Engine};
use model::{
    ContainerSpec, GenericResource, Healthcheck, Inherited, Limits, LogDriver, Mount, MountKind, ResourceRequirements,
    Task, TaskState,
};
use real::{host, make_image, sh};
use std::sync::Arc;
use std::time::Duration;
use swarmlite_agent::{NODE_LABEL, remove_everything};

const IMAGE: &str = "swarmlite-agent-test:1";

fn a_task(n: u8, script: &str) -> Task {
    let mut task = task(n, IMAGE);
    let container = Arc::make_mut(&mut task.spec).container_mut().unwrap();
    container.command = vec!["/bin/sh".into(), "-c".into()];
    container.args = vec![script.into()];
    container.stop_grace_period = Some(Duration::from_secs(1));
    task
}

#[tokio::test(flavor = "multi_thread")]
async fn tasks_run_survive_their_agent_and_leave_nothing() {
    make_image(IMAGE, "sh sleep");
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

fn with_container(mut task: Task, change: impl FnOnce(&mut ContainerSpec)) -> Task {
    change(Arc::make_mut(&mut task.spec).container_mut().unwrap());
    task
}

/// A world with an agent on the real engine, without what another run of this node has left.
async fn real_world(node: u8) -> (World, Arc<DockerEngine>) {
    make_image(IMAGE, "sh sleep");
    let engine = Arc::new(DockerEngine::new(&DockerOptions { host: host(), ..DockerOptions::default() }).unwrap());
    let mut world = World::new(1);
    world.config.node_id = node_id(node);
    remove_everything(&world.config, &world.seams, &*engine).await.unwrap();
    world.agent = Some(world.agent_on(world.config.clone(), engine.clone()).await);
    (world, engine)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_made_from_all_that_its_task_says() {
    let (mut world, engine) = real_world(31).await;
    let mut task = with_container(a_task(11, "sleep 1000"), |c| {
        c.hostname = "{{.Service.Name}}-{{.Task.Slot}}".into();
        c.env = vec!["ZONE={{index .Service.Labels \"zone\"}}".into(), "OS={{.Node.Platform.OS}}".into()];
        c.mounts = vec![Mount { kind: MountKind::Tmpfs, target: "/scratch-{{.Task.Slot}}".into(), ..Mount::default() }];
    });
    task.generic = vec![GenericResource::Discrete { kind: "apple".into(), amount: 2 }];
    let service_labels = [("zone".to_owned(), "b".to_owned())].into();
    let options = [("max-size".to_owned(), "2m".to_owned())].into();
    let log_driver = Some(LogDriver { name: "json-file".into(), options });
    task.inherited = Some(Arc::new(Inherited { log_driver, service_labels }));
    let mut global = a_task(12, "sleep 1000");
    (global.slot, global.for_node) = (0, Some(node_id(31)));
    let tasks = [task, global].map(|t| Task { node_id: Some(node_id(31)), ..t });
    world.manager().assign(1, tasks.to_vec());
    world.until_state(11, TaskState::Running).await;
    world.until_state(12, TaskState::Running).await;

    let name = tasks[0].name();
    let inspect = |format: &str| sh(&format!("docker inspect -f '{format}' {name}"));
    assert_eq!(inspect("{{.Config.Hostname}}"), "web-11");
    assert_eq!(inspect("{{json .Config.Env}}"), r#"["ZONE=b","OS=linux","DOCKER_RESOURCE_APPLE=2"]"#);
    assert_eq!(
        inspect("{{.HostConfig.LogConfig.Type}} {{index .HostConfig.LogConfig.Config \"max-size\"}}"),
        "json-file 2m"
    );
    assert_eq!(
        sh(&format!("docker exec {name} sh -c 'echo $HOSTNAME; [ -d /scratch-11 ] && echo there'")),
        "web-11\nthere"
    );
    let global = format!("web.{}.{}", node_id(31), task_id(12));
    assert_eq!(
        sh(&format!("docker inspect -f '{{{{index .Config.Labels \"com.docker.swarm.task.name\"}}}}' {global}")),
        global
    );
    world.stop().await;
    remove_everything(&world.config, &world.seams, &*engine).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_went_wrong_is_said_in_docker_s_words() {
    let (mut world, engine) = real_world(32).await;
    let program = with_container(a_task(21, ""), |c| c.command = vec!["/no/such/program".into()]);
    let source =
        Mount { kind: MountKind::Bind, source: "/swarmlite/none".into(), target: "/x".into(), ..Mount::default() };
    let source = with_container(a_task(22, ""), |c| c.mounts = vec![source]);
    let sick = with_container(a_task(23, "sleep 1000"), |c| {
        let (test, interval) = (vec!["CMD".into(), "/bin/false".into()], Some(Duration::from_millis(100)));
        c.healthcheck = Some(Healthcheck { test, interval, retries: Some(1), ..Healthcheck::default() });
    });
    let mut hungry = a_task(24, "x=xxxxxxxxxxxxxxxx; while :; do x=$x$x; done");
    let limits = Some(Limits { memory_bytes: 8 << 20, ..Limits::default() });
    let resources = ResourceRequirements { limits, swap_bytes: Some(0), ..ResourceRequirements::default() };
    Arc::make_mut(&mut hungry.spec).resources = Some(resources);
    let job = wanted(Task { job_iteration: Some(0), ..a_task(25, "exit 0") }, TaskState::Complete);
    let tasks = [program, source, sick, hungry, job].map(|t| Task { node_id: Some(node_id(32)), ..t });
    world.manager().assign(1, tasks.to_vec());
    for (n, state, begins, contains) in [
        (21, TaskState::Failed, "starting container failed: ", "no such file or directory"),
        (
            22,
            TaskState::Rejected,
            "invalid mount config for type \"bind\": ",
            "bind source path does not exist: /swarmlite/none",
        ),
        (23, TaskState::Failed, "task: non-zero exit (137): ", "dockerexec: unhealthy container"),
        // That memory was short is in `docker inspect` only, as with Docker Swarm, and there not always: an engine may see the
        // end before it sees why.
        (24, TaskState::Failed, "task: non-zero exit (137)", ""),
        (25, TaskState::Complete, "", ""),
    ] {
        world.until_state(n, state).await;
        let err = world.manager().status(&task_id(n)).err;
        assert!(err.starts_with(begins) && err.contains(contains), "{n}: {err}");
    }
    world.stop().await;
    remove_everything(&world.config, &world.seams, &*engine).await.unwrap();
}
