//! A bench for tests against a real dockerd.
#![allow(dead_code)] // each test file uses its part

use bollard::Docker;
use bollard::query_parameters::CreateImageOptionsBuilder;
use futures::StreamExt as _;
use model::{ContainerSpec, Mount, MountKind};
use std::collections::BTreeMap;
use std::future::Future;
use std::process::Command;
use std::time::Duration;
use swarmlite_engine::{ContainerState, DockerEngine, DockerOptions, Engine, NewContainer};
use tokio::sync::OnceCell;
use tokio::time::Instant;

pub(crate) const IMAGE: &str = "swarmlite-engine-test:1";
const LABEL: &str = "swarmlite.engine-test";

/// An engine with the test image, and a label of the test's own.
pub(crate) struct Bench {
    pub(crate) engine: DockerEngine,
    pub(crate) label: String,
    pub(crate) name: String,
}

/// The engine for tests, found as all our tests find it: what `SWARMLITE_TEST_DOCKER_HOST` or `DOCKER_HOST` names, else the
/// machine's own, else the one of `cargo xtask docker up`.
pub(crate) fn host() -> String {
    let named = ["SWARMLITE_TEST_DOCKER_HOST", "DOCKER_HOST"].map(|name| std::env::var(name).unwrap_or_default());
    let usual = ["/var/run/docker.sock", "/run/swarmlite-xtask/docker.sock"];
    let there = usual.iter().find(|path| std::os::unix::net::UnixStream::connect(path).is_ok());
    let found = named.into_iter().find(|host| !host.is_empty()).or_else(|| there.map(|path| format!("unix://{path}")));
    found.unwrap_or_else(|| {
        panic!(
            "this test needs a real Docker Engine, and none answers at {}: `cargo xtask docker up`, or set DOCKER_HOST \
             (unix:///path or tcp://host:port)",
            usual.join(" or ")
        )
    })
}

pub(crate) fn engine() -> DockerEngine {
    DockerEngine::new(&DockerOptions { host: host(), ..DockerOptions::default() }).unwrap()
}

/// Imports an image that holds a static busybox and nothing else.
pub(crate) async fn make_image() {
    static MADE: OnceCell<()> = OnceCell::const_new();
    MADE.get_or_init(|| async {
        let busybox = ["/bin/busybox", "/usr/bin/busybox"].into_iter().find(|p| std::path::Path::new(p).exists());
        let busybox = busybox.expect("the test image is made from a static busybox: apt-get install busybox-static");
        let dir = std::env::temp_dir().join(format!("swarmlite-engine-test-{}", std::process::id()));
        let script = format!(
            "set -e; mkdir -p {d}/bin; cp {busybox} {d}/bin/busybox; for a in sh sleep echo cat true false; do ln -sf busybox {d}/bin/$a; \
             done; tar -C {d} -c .; rm -rf {d}",
            d = dir.display()
        );
        let tar = Command::new("sh").arg("-c").arg(script).output().unwrap();
        assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
        let (name, tag) = IMAGE.split_once(':').unwrap();
        let options = CreateImageOptionsBuilder::new().from_src("-").repo(name).tag(tag).build();
        let mut import = client().create_image(Some(options), Some(bollard::body_full(tar.stdout.into())), None);
        while let Some(progress) = import.next().await {
            progress.unwrap();
        }
    })
    .await;
}

pub(crate) fn client() -> Docker {
    let host = host();
    match host.strip_prefix("tcp://") {
        Some(_) => Docker::connect_with_http(&host, 60, bollard::API_DEFAULT_VERSION),
        None => Docker::connect_with_unix(&host, 60, bollard::API_DEFAULT_VERSION),
    }
    .unwrap()
}

// === impl Bench ===

impl Bench {
    async fn new(test: &str) -> Bench {
        make_image().await;
        let label = format!("{LABEL}={test}-{}", std::process::id());
        let name = format!("swarmlite-engine-test-{test}-{}", std::process::id());
        Bench { engine: engine(), label, name }
    }

    /// A container that runs this shell script.
    pub(crate) fn container(&self, script: &str) -> NewContainer {
        let (key, value) = self.label.split_once('=').unwrap();
        NewContainer {
            name: self.name.clone(),
            spec: ContainerSpec {
                image: IMAGE.into(),
                command: vec!["/bin/sh".into()],
                args: vec!["-c".into(), script.into()],
                ..ContainerSpec::default()
            },
            labels: BTreeMap::from([(key.to_owned(), value.to_owned())]),
            ..NewContainer::default()
        }
    }

    pub(crate) async fn run(&self, container: &NewContainer) -> String {
        let id = self.engine.create(container).await.unwrap();
        self.engine.start(&id).await.unwrap();
        id
    }

    pub(crate) async fn until(&self, id: &str, what: impl Fn(&ContainerState) -> bool) -> ContainerState {
        let waited = Instant::now();
        loop {
            let state = self.engine.inspect(id).await.unwrap().unwrap();
            if what(&state) {
                return state;
            }
            assert!(waited.elapsed() < Duration::from_secs(30), "{state:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub(crate) async fn clean(&self) {
        for container in self.engine.list(&self.label).await.unwrap() {
            self.engine.remove(&container.id).await.unwrap();
        }
    }
}

/// Runs a test and removes its containers, also when it fails.
pub(crate) async fn with_bench<F: Future<Output = ()> + Send + 'static>(
    name: &str,
    test: impl FnOnce(std::sync::Arc<Bench>) -> F,
) {
    let bench = std::sync::Arc::new(Bench::new(name).await);
    bench.clean().await;
    let mut set = tokio::task::JoinSet::new();
    set.spawn(test(std::sync::Arc::clone(&bench)));
    let done = set.join_next().await.unwrap();
    bench.clean().await;
    if let Err(panic) = done {
        std::panic::resume_unwind(panic.into_panic());
    }
}

pub(crate) fn tmpfs(target: &str) -> Mount {
    Mount {
        kind: MountKind::Tmpfs,
        target: target.into(),
        tmpfs_size_bytes: 1 << 20,
        tmpfs_mode: 0o1777,
        ..Mount::default()
    }
}
