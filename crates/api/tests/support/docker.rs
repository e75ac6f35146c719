//! The unmodified `docker` CLI on the API's socket.

use super::{World, manager};
use model::Role;

/// A manager and a worker behind a socket.
pub struct Cli {
    pub world: World,
    socket: String,
    _dir: tempfile::TempDir,
}

// === impl Cli ===

impl Cli {
    pub async fn start() -> Cli {
        let docker = tokio::process::Command::new("docker").arg("--version").output().await;
        docker.expect("these tests need the docker CLI: install Debian's docker.io, or run `cargo xtask test`");
        let world = manager().await;
        world.add_node(2, Role::Worker).await;
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("api.sock");
        let listener = tokio::net::UnixListener::bind(&path).expect("a socket");
        let (api, tasks) = (world.api.clone(), world.tasks.clone());
        world.tasks.spawn("serve", async move { api.serve_unix(listener, tasks).await });
        Cli { world, socket: format!("unix://{}", path.display()), _dir: dir }
    }

    /// Runs a command of words without spaces: whether it succeeded, and all that it said.
    pub async fn run(&self, args: &str) -> (bool, String) {
        let run = tokio::process::Command::new("docker")
            .args(["-H", &self.socket])
            .args(args.split_whitespace())
            .env("DOCKER_CONFIG", "/nonexistent")
            .output();
        let output =
            tokio::time::timeout(std::time::Duration::from_secs(60), run).await.expect("in time").expect("run");
        let text = [output.stdout, output.stderr].map(|b| String::from_utf8_lossy(&b).into_owned()).concat();
        (output.status.success(), text)
    }

    #[track_caller]
    pub fn good((ok, text): (bool, String)) -> String {
        assert!(ok, "{text}");
        text
    }
}
