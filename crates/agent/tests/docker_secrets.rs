//! Secrets and configs in real containers: what the embedded engine cannot prove. See `common/docker.rs` for how the engine is
//! found; without one this test fails and says so. Needs root, as the agent does.
#![allow(clippy::disallowed_methods)] // looks at the machine from outside

mod common;
#[path = "common/docker.rs"]
mod real;

use common::{World, node_id, task, task_id, wanted};
use engine::{DockerEngine, DockerOptions, Engine, EngineError, FilePlace};
use model::{
    ConfigReference, ConfigTarget, Data, Dependency, FileTarget, Given, Payload, PayloadId, SecretReference, Signal,
    Task, TaskState,
};
use real::{host, make_image, sh};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

const IMAGE: &str = "swarmlite-agent-secrets-test:1";
const MARKER: &str = "swarmlite-marker-8c1f0b6e2d7a";

fn secret(n: u8, version: u64) -> PayloadId {
    PayloadId { of: Dependency::Secret(format!("{n:025}").parse().unwrap()), version }
}

fn config() -> PayloadId {
    PayloadId { of: Dependency::Config("c".repeat(25).parse().unwrap()), version: 1 }
}

fn file(path: &str, uid: u32, mode: u32) -> FileTarget {
    FileTarget { path: path.parse().unwrap(), uid, gid: uid + 1, mode: mode.try_into().unwrap() }
}

fn reference(n: u8, version: u64, target: FileTarget) -> SecretReference {
    SecretReference {
        secret_id: format!("{n:025}").parse().unwrap(),
        secret_name: format!("s{n}").parse().unwrap(),
        target,
        given: Given { version: Some(version), signal: Signal::parse("SIGUSR1"), templating: None },
    }
}

/// Prints the version of the first secret when it is told to.
fn a_task(n: u8, version: u64) -> Task {
    let mut task = task(n, IMAGE);
    let container = Arc::make_mut(&mut task.spec).container_mut().unwrap();
    container.command = vec!["/bin/sh".into(), "-c".into()];
    container.args =
        vec!["trap 'cat /run/secrets/key /abs/key' USR1; cat /run/secrets/key; while true; do sleep 0.1; done".into()];
    container.stop_grace_period = Some(Duration::ZERO);
    container.secrets = vec![
        reference(1, version, file("key", 1000, 0o400)),
        reference(2, 1, file("deep/er/key", 0, 0o444)),
        reference(1, version, file("/abs/key", 1000, 0o440)),
    ];
    container.configs = vec![ConfigReference {
        config_id: "c".repeat(25).parse().unwrap(),
        config_name: "conf".parse().unwrap(),
        target: ConfigTarget::File(file("/etc/app/conf.ini", 0, 0o444)),
        given: Given { version: Some(1), ..Given::default() },
    }];
    task
}

fn has(world: &World, ids: &[PayloadId]) {
    let payload = |id: &PayloadId| Payload {
        id: id.clone(),
        meta: Default::default(),
        data: Data::of_secret(format!("{MARKER} {} v{}\n", &id.of.as_str()[24..], id.version).into_bytes()).unwrap(),
    };
    world.manager().told.lock().payloads = ids.iter().map(|id| (id.clone(), payload(id))).collect();
}

struct Node {
    world: World,
    engine: Arc<DockerEngine>,
    run_dir: PathBuf,
}

impl Node {
    async fn new() -> Node {
        make_image(IMAGE, "sh sleep cat stat id ls mount touch");
        let run_dir = PathBuf::from("/run/swarmlite-agent-test");
        let options = DockerOptions { host: host(), run_dir: run_dir.clone(), ..DockerOptions::default() };
        let engine = Arc::new(DockerEngine::new(&options).unwrap());
        let mut world = World::new(1);
        world.config = swarmlite_agent::AgentConfig::new(node_id(9), "/agent/state".into());
        // Left over from a run that was killed.
        swarmlite_agent::remove_everything(&world.config, &world.seams, &*engine).await.unwrap();
        Node { world, engine, run_dir }
    }

    async fn start(&mut self) {
        self.world.agent = Some(self.world.agent_on(self.world.config.clone(), self.engine.clone()).await);
    }

    fn assign(&self, task: Task) {
        self.world.manager().assign(1, vec![Task { node_id: Some(node_id(9)), ..task }]);
    }

    fn exec(&self, n: u8, args: &str) -> String {
        sh(&format!("docker exec {} {args}", task(n, IMAGE).name()))
    }

    fn output(&self, n: u8) -> Vec<String> {
        sh(&format!("docker logs {} 2>&1", task(n, IMAGE).name())).lines().map(str::to_owned).collect()
    }

    fn dir(&self, n: u8) -> PathBuf {
        self.run_dir.join(node_id(9).as_str()).join(task_id(n).as_str())
    }

    async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let waited = tokio::time::Instant::now();
        while !is_so() {
            assert!(waited.elapsed() < Duration::from_secs(30), "waited in vain until {what}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn attack_24_secrets_in_real_containers() {
    let mut node = Node::new().await;
    node.start().await;
    has(&node.world, &[secret(1, 1), secret(2, 1), config()]);
    node.assign(a_task(1, 1));
    node.world.until_state(1, TaskState::Running).await;

    // Right owner and mode, in memory, read-only, and there before the process started.
    let stat = |path: &str| node.exec(1, &format!("stat -c '%u:%g %a' {path}"));
    assert_eq!(stat("/run/secrets/key"), "1000:1001 400");
    assert_eq!(stat("/run/secrets/deep/er/key"), "0:1 444");
    assert_eq!(stat("/abs/key"), "1000:1001 440");
    assert_eq!(stat("/etc/app/conf.ini"), "0:1 444");
    node.until("it prints", || !node.output(1).is_empty()).await;
    assert_eq!(node.output(1), [format!("{MARKER} 1 v1")]);
    assert_eq!(node.exec(1, "cat /etc/app/conf.ini"), format!("{MARKER} c v1"));
    let mounts = node.exec(1, "cat /proc/mounts");
    for path in ["/run/secrets", "/abs/key", "/etc/app/conf.ini"] {
        let line = mounts.lines().find(|l| l.split(' ').nth(1) == Some(path)).unwrap();
        let options: Vec<&str> = line.split(' ').nth(3).unwrap().split(',').collect();
        assert_eq!(line.split(' ').nth(2), Some("tmpfs"), "{line}");
        // (An engine that makes a bind mount read-only does not keep nosuid and its like.)
        assert!(options.contains(&"ro"), "{line}");
    }
    let refused =
        |command: &str| sh(&format!("docker exec {} || echo refused", command.replace("C", &task(1, IMAGE).name())));
    assert!(refused("--user 2000:2000 C cat /run/secrets/key 2>/dev/null").ends_with("refused"), "another user");
    assert!(refused("--user 1000:2000 C cat /run/secrets/key").ends_with("1 v1"), "its owner");
    assert!(refused("C touch /run/secrets/new 2>/dev/null").ends_with("refused"), "read-only");

    // It survives its agent, without a manager.
    node.world.stop().await;
    node.world.manager().set_alive(false);
    node.start().await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(node.exec(1, "cat /run/secrets/deep/er/key"), format!("{MARKER} 2 v1"));
    node.world.manager().set_alive(true);

    // Updated in place, in the directory as in the file that is mounted alone, and then told.
    has(&node.world, &[secret(1, 2), secret(2, 1), config()]);
    node.assign(a_task(1, 2));
    let v2 = format!("{MARKER} 1 v2");
    node.until("it was told", || node.output(1).len() >= 3).await;
    assert_eq!(node.output(1)[1..], [v2.clone(), v2]);

    // Nothing of it is anywhere on the engine's disk (but what the container itself printed), nor in what the engine tells.
    let root = sh("docker info -f '{{.DockerRootDir}}'");
    assert_eq!(sh(&format!("grep -rl --exclude='*-json.log' '{MARKER}' {root} || true")), "");
    assert!(!sh(&format!("docker inspect {}", task(1, IMAGE).name())).contains(MARKER));
    let files = format!("{:?}", node.world.disk.files.lock());
    assert!(!files.contains(MARKER));

    // Stopped: its container is kept, its files are not.
    assert!(node.dir(1).exists());
    has(&node.world, &[]);
    node.assign(wanted(a_task(1, 2), TaskState::Shutdown));
    node.world.until_state(1, TaskState::Shutdown).await;
    node.until("its files are gone", || !node.dir(1).exists()).await;
    assert_eq!(sh(&format!("grep -rl '{MARKER}' {} || true", node.run_dir.display())), "");

    // A container whose files were lost before it was started (a reboot) gets them again.
    has(&node.world, &[secret(1, 1), secret(2, 1), config()]);
    node.assign(wanted(a_task(2, 1), TaskState::Ready));
    node.world.until_state(2, TaskState::Ready).await;
    node.engine.files().clear(node_id(9).as_str()).await.unwrap();
    assert!(!node.dir(2).exists());
    node.assign(a_task(2, 1));
    node.world.until_state(2, TaskState::Running).await;
    assert_eq!(node.exec(2, "cat /run/secrets/key"), format!("{MARKER} 1 v1"));

    // The node leaves: no container, no file, no mount.
    node.world.stop().await;
    swarmlite_agent::remove_everything(&node.world.config, &node.world.seams, &*node.engine).await.unwrap();
    assert!(!node.run_dir.join(node_id(9).as_str()).exists());
    assert!(!std::fs::read_to_string("/proc/mounts").unwrap().contains(&node.run_dir.display().to_string()));
    std::fs::remove_dir(&node.run_dir).unwrap();
}

#[tokio::test]
async fn an_engine_that_may_be_elsewhere_gets_no_secrets() {
    let options = DockerOptions { host: "tcp://127.0.0.1:1".into(), ..DockerOptions::default() };
    let files = DockerEngine::new(&options).unwrap().files();
    let place = FilePlace::new(node_id(9).as_str(), task_id(1).as_str()).unwrap();
    assert!(matches!(files.put(&place, &[]).await, Err(EngineError::Refused(_))));
}
