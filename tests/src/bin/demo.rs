//! The demonstration behind `cargo xtask demo`: a cluster on this machine, a web service on it, the death of its leader.
//!
//! Everything is done with the `swarmlite` binary and its API, as a user would.

#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods)] // the real machine

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;
use swarmlite_tests::cluster::service_spec;
use swarmlite_tests::node::binary;
use swarmlite_tests::{Api, Engine, Outcome, history, image, wait};
use tokio::time::Instant;

/// Replicas of the web service.
const REPLICAS: usize = 6;
/// For the replicas to run.
const RUN_LIMIT: Duration = Duration::from_secs(60);
/// How long writes are watched after the leader's death.
const WATCH: Duration = Duration::from_secs(5);

/// The demonstration's cluster.
struct Demo {
    dir: PathBuf,
    engine: Option<Engine>,
}

/// A running task: when its container was started, and where it answers.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Running {
    container: String,
    started_at: String,
    address: Option<String>,
}

#[tokio::main]
async fn main() -> ExitCode {
    let keep = std::env::args().any(|arg| arg == "--keep");
    let scratch = match tempfile::Builder::new().prefix("swarmlite-demo-").tempdir() {
        Ok(scratch) => scratch,
        Err(error) => {
            eprintln!("cannot create a temporary directory: {error}");
            return ExitCode::FAILURE;
        }
    };
    let engine = match std::env::var(swarmlite_tests::engine::ENV_DOCKER_HOST) {
        Ok(_) => Engine::find().await.map_err(|error| eprintln!("{error}; going on with the EMBEDDED engine")).ok(),
        Err(_) => None,
    };
    let demo = Demo { dir: scratch.path().to_path_buf(), engine };
    let outcome = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => Err("interrupted".to_string()),
        outcome = demo.run() => outcome,
    };
    let failed = outcome.map_err(|error| eprintln!("\nthe demonstration failed: {error}")).is_err();
    if keep && !failed {
        println!(
            "\nThe cluster stays. When you are done:\n  {} dev --dir {} down",
            binary().display(),
            scratch.keep().display()
        );
    } else if demo.dir.join("cluster.json").exists() {
        headline("and away with it");
        if let Err(error) = demo.dev(&["down"]) {
            eprintln!("{error}");
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

// === impl Demo ===

impl Demo {
    async fn run(&self) -> Outcome<()> {
        let mut up = vec!["up", "--managers", "3", "--workers", "2"];
        match &self.engine {
            Some(engine) => {
                headline("an image, made here and now: a static web server of 1.4 MB");
                image::ensure(&engine.api).await?;
                println!("{}", image::WEB_1);
                up.extend(["--engine", "docker", "--docker-host", &engine.host]);
            }
            None => up.extend(["--engine", "embedded"]),
        }
        headline("three managers and two workers");
        self.dev(&up)?;
        headline(&format!("a web service with {REPLICAS} replicas"));
        let api = self.api("manager1");
        let began = Instant::now();
        api.post("/services/create", &service_spec("web", image::WEB_1, REPLICAS as u64)).await?;
        let before = self.running(&api).await?;
        println!("{REPLICAS} tasks run after {:.2} s\n", began.elapsed().as_secs_f64());
        self.swarmlite("manager1", &["service", "ls"])?;
        println!();
        self.swarmlite("manager1", &["service", "ps", "web"])?;
        self.show_answers(&before).await?;
        self.lose_the_leader(&before).await?;
        headline("the dead manager comes back");
        self.dev(&["start"])?;
        self.dev(&["ls"])
    }

    async fn lose_the_leader(&self, before: &BTreeMap<String, Running>) -> Outcome<()> {
        headline("kill -9 the leader, while four clients write");
        let managers: Vec<Api> = ["manager1", "manager2", "manager3"].map(|name| self.api(name)).to_vec();
        let writers = history::write(managers.clone(), 4);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let killed = Instant::now();
        self.dev(&["kill", "leader"])?;
        tokio::time::sleep(WATCH).await;
        let history = writers.stop().await?;
        let pause = history.longest_pause(killed).as_secs_f64();
        println!("writes paused for {pause:.2} s at the longest; {} writes were acknowledged", history.acknowledged());
        let mut survivor = None;
        for api in managers {
            if api.get("/_ping").await.is_ok() {
                survivor = Some(api);
            }
        }
        let survivor = survivor.ok_or("no manager is left")?;
        history.check(&survivor).await?;
        println!("every acknowledged write is there");
        let after = self.running(&survivor).await?;
        if *before != after {
            return Err(format!("tasks were restarted:\nbefore {before:#?}\nafter {after:#?}"));
        }
        println!(
            "the same {} tasks run, in the same containers, started when they were: no task was restarted",
            after.len()
        );
        self.show_answers(&after).await
    }

    /// Waits until all replicas run; returns them by task.
    async fn running(&self, api: &Api) -> Outcome<BTreeMap<String, Running>> {
        let filters =
            swarmlite_tests::http::encoded(&json!({ "service": ["web"], "desired-state": ["running"] }).to_string());
        let tasks = wait::until("all replicas run", RUN_LIMIT, || async {
            let tasks = api.get(&format!("/tasks?filters={filters}")).await?;
            let running = |task: &&Value| task["Status"]["State"] == "running";
            let tasks: Vec<Value> = tasks.as_array().into_iter().flatten().filter(running).cloned().collect();
            if tasks.len() == REPLICAS { Ok(tasks) } else { Err(format!("{} of {REPLICAS} run", tasks.len())) }
        })
        .await?;
        let mut found = BTreeMap::new();
        for task in tasks {
            let container = text(&task["Status"]["ContainerStatus"]["ContainerID"]);
            let mut running =
                Running { container: container.clone(), started_at: text(&task["Status"]["Timestamp"]), address: None };
            if let Some(engine) = &self.engine {
                let seen = engine.api.get(&format!("/containers/{container}/json")).await?;
                running.started_at = text(&seen["State"]["StartedAt"]);
                running.address =
                    Some(text(&seen["NetworkSettings"]["IPAddress"])).filter(|address| !address.is_empty());
            }
            found.insert(text(&task["ID"]), running);
        }
        Ok(found)
    }

    async fn show_answers(&self, tasks: &BTreeMap<String, Running>) -> Outcome<()> {
        println!();
        if self.engine.is_none() {
            println!("(The engine is EMBEDDED: nothing runs in these containers, so nothing answers.)");
            return Ok(());
        }
        for running in tasks.values() {
            let address = running.address.as_deref().ok_or("a container has no address")?;
            println!("GET http://{address}/  →  {}", swarmlite_tests::http::fetch(&format!("{address}:80")).await?);
        }
        Ok(())
    }

    fn api(&self, node: &str) -> Api {
        Api::new(self.socket(node))
    }

    fn socket(&self, node: &str) -> PathBuf {
        self.dir.join(node).join("swarmlite.sock")
    }

    /// `swarmlite dev …` on our directory, with its output shown.
    fn dev(&self, args: &[&str]) -> Outcome<()> {
        println!("$ swarmlite dev {}", args.join(" "));
        shown(Command::new(binary()).args(["dev", "--dir"]).arg(&self.dir).args(args))
    }

    /// `swarmlite …` on a node, with its output shown.
    fn swarmlite(&self, node: &str, args: &[&str]) -> Outcome<()> {
        println!("$ swarmlite {}", args.join(" "));
        shown(Command::new(binary()).arg("-H").arg(format!("unix://{}", self.socket(node).display())).args(args))
    }
}

fn shown(command: &mut Command) -> Outcome<()> {
    let status = command.stdin(Stdio::null()).status().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{} failed: {status}", Path::new(command.get_program()).display()))
    }
}

fn headline(text: &str) {
    println!("\n── {text} ──");
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_string()
}
