//! The unmodified `docker` CLI against the API. (With a real engine behind it: `tests/tests/conformance.rs`.)

mod support;

use model::Role;
use support::{World, manager};

struct Cli {
    world: World,
    socket: String,
    _dir: tempfile::TempDir,
}

impl Cli {
    async fn start() -> Cli {
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

    async fn run(&self, args: &str) -> (bool, String) {
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
    fn good((ok, text): (bool, String)) -> String {
        assert!(ok, "{text}");
        text
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_are_created_shown_changed_and_removed() {
    let cli = Cli::start().await;
    let flags = "--name web --replicas 3 --label a=b --env X=1 --mount type=volume,src=v,dst=/v --limit-memory 64m \
        --reserve-cpu 0.1 --publish mode=host,published=8080,target=80 --health-cmd true --stop-grace-period 5s \
        --restart-condition on-failure --update-parallelism 2 --update-order start-first --user app --hostname box";
    Cli::good(cli.run(&format!("service create --detach --no-resolve-image {flags} nginx:1.25 sh -c true")).await);
    let list = Cli::good(cli.run("service ls").await);
    assert!(list.contains("web") && list.contains("replicated") && list.contains("0/3"), "{list}");
    let pretty = Cli::good(cli.run("service inspect --pretty web").await);
    for part in ["Replicas:\t3", "PublishMode = host", "Parallelism:\t2", "nginx:1.25", "64MiB"] {
        assert!(pretty.contains(part), "{part} in {pretty}");
    }
    Cli::good(cli.run("service scale --detach web=5").await);
    Cli::good(cli.run("service update --detach --no-resolve-image --image nginx:1.26 --env-add Y=2 web").await);
    let image = Cli::good(cli.run("service inspect web --format {{.Spec.TaskTemplate.ContainerSpec.Image}}").await);
    assert_eq!(image.trim(), "nginx:1.26");
    Cli::good(cli.run("service update --detach --rollback web").await);
    let image = Cli::good(cli.run("service inspect web --format {{.Spec.TaskTemplate.ContainerSpec.Image}}").await);
    assert_eq!(image.trim(), "nginx:1.25");
    Cli::good(cli.run("service update --detach --force web").await);
    Cli::good(cli.run("service ps web").await);
    let (ok, text) = cli.run("service create --detach --no-resolve-image --name web nginx").await;
    assert!(!ok && text.contains("service web already exists"), "{text}");
    let (ok, text) = cli.run("service create --detach --no-resolve-image --constraint role nginx").await;
    let no_operator =
        "Error response from daemon: rpc error: code = Unknown desc = constraint expected one operator from ==, !=";
    assert!(!ok && text.contains(no_operator), "{text}");
    Cli::good(cli.run("service rm web").await);
    let (ok, text) = cli.run("service inspect web").await;
    assert!(!ok && text.contains("no such service: web"), "{text}");
    cli.world.tasks.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn services_of_all_modes_are_created_and_shown() {
    let cli = Cli::start().await;
    let placement = "--constraint node.role==worker --placement-pref spread=node.labels.zone";
    for (name, flags, mode, replicas) in [
        ("web", &*format!("--replicas 2 --replicas-max-per-node 1 {placement}"), "replicated", "0/2 (max 1 per node)"),
        ("agent", "--mode global --generic-resource GPU=2 --oom-score-adj 5", "global", "0/0"),
        ("job", "--mode replicated-job --replicas 5 --max-concurrent 2", "replicated job", "0/2 (0/5 completed)"),
        ("jobs", "--mode global-job", "global job", "0/0 (0/0 completed)"),
    ] {
        Cli::good(cli.run(&format!("service create --detach --no-resolve-image --name {name} {flags} nginx")).await);
        let row = Cli::good(
            cli.run(&format!("service ls --filter name={name} --format {{{{.Name}}}}|{{{{.Mode}}}}|{{{{.Replicas}}}}"))
                .await,
        );
        assert!(row.lines().any(|l| l == format!("{name}|{mode}|{replicas}")), "{row}");
    }
    let pretty = Cli::good(cli.run("service inspect --pretty web").await);
    for part in ["node.role==worker", "spread=node.labels.zone", "Max Replicas Per Node:   1"] {
        assert!(pretty.contains(part), "{part} in {pretty}");
    }
    let filtered = Cli::good(cli.run("service ls --filter mode=global --format {{.Name}}").await);
    assert_eq!(filtered.trim(), "agent");
    let (ok, text) = cli.run("service scale --detach job=3").await;
    assert!(ok, "{text}");
    let (ok, text) = cli.run("service scale --detach agent=3").await;
    assert!(!ok && text.contains("scale can only be used with replicated or replicated-job mode"), "{text}");
    Cli::good(cli.run("service update --detach --force job").await);
    let iteration = Cli::good(cli.run("service inspect job --format {{.JobStatus.JobIteration.Index}}").await);
    assert_eq!(iteration.trim(), "2");
    let labels = "--label swarmlite.privileged=true";
    let (ok, text) = cli.run(&format!("service create --detach --no-resolve-image {labels} nginx")).await;
    assert!(!ok && text.contains("swarm label swarmlite.policy.privileged=allow"), "{text}");
    cli.world.tasks.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_tokens_and_info_are_shown() {
    let cli = Cli::start().await;
    let nodes = Cli::good(cli.run("node ls").await);
    assert!(nodes.contains("host1") && nodes.contains("Leader") && nodes.contains("host2"), "{nodes}");
    Cli::good(cli.run("node update --availability drain --label-add zone=a host2").await);
    let pretty = Cli::good(cli.run("node inspect --pretty host2").await);
    assert!(pretty.contains("Drain") && pretty.contains("zone=a"), "{pretty}");
    Cli::good(cli.run("node promote host2").await);
    let (ok, text) = cli.run("node rm host2").await;
    assert!(!ok && text.contains("must be demoted"), "{text}");
    Cli::good(cli.run("node ps self").await);
    let token = Cli::good(cli.run("swarm join-token -q worker").await);
    assert!(token.starts_with("SWMTKN-1-"), "{token}");
    let rotated = Cli::good(cli.run("swarm join-token -q --rotate worker").await);
    assert_ne!(token, rotated);
    Cli::good(cli.run("swarm update --task-history-limit 3").await);
    let info = Cli::good(cli.run("info").await);
    for part in ["Swarm: active", "Is Manager: true", "Managers: ", "Task History Retention Limit: 3"] {
        assert!(info.contains(part), "{part} in {info}");
    }
    let version = Cli::good(cli.run("version").await);
    assert!(version.contains("Swarmlite"), "{version}");
    let (ok, text) = cli.run("swarm leave").await;
    assert!(!ok && text.contains("participating as a manager"), "{text}");
    cli.world.tasks.stop();
}
