//! The unmodified `docker` CLI against the API. (With a real engine behind it: `tests/tests/conformance.rs`.)

mod support;

use model::{Availability, TaskState};
use serde_json::{Value, json};
use std::time::Duration;
use support::docker::Cli;

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flags_of_swarm_init_join_and_update_arrive() {
    let cli = Cli::start().await;
    let addresses =
        "--listen-addr 0.0.0.0:2378 --advertise-addr 10.0.0.1:2379 --data-path-addr 10.0.1.1 --data-path-port 4790";
    let pools = "--default-addr-pool 10.20.0.0/16 --default-addr-pool 10.30.0.0/16 --default-addr-pool-mask-length 26";
    let spec = "--autolock --cert-expiry 720h --dispatcher-heartbeat 3s --task-history-limit 3 --snapshot-interval 5000 --max-snapshots 4";
    Cli::good(
        cli.run(&format!("swarm init --availability drain --force-new-cluster {addresses} {pools} {spec}")).await,
    );
    let init = cli.world.swarm.inits.lock()[0].clone();
    assert_eq!((&*init.listen_addr, &*init.advertise_addr), ("0.0.0.0:2378", "10.0.0.1:2379"));
    assert_eq!((&*init.data_path_addr, init.data_path_port), ("10.0.1.1", 4790));
    assert_eq!((init.default_addr_pool, init.subnet_size), (vec!["10.20.0.0/16".into(), "10.30.0.0/16".into()], 26));
    assert_eq!((init.availability, init.force_new_cluster), (Availability::Drain, true));
    assert_eq!((init.spec.autolock, init.spec.node_cert_expiry), (true, Duration::from_secs(720 * 3600)));
    assert_eq!((init.spec.heartbeat_period, init.spec.task_history_retention_limit), (Duration::from_secs(3), 3));
    assert_eq!((init.spec.snapshot_interval, init.spec.raft.keep_old_snapshots), (5000, 4));

    let addresses = "--listen-addr 0.0.0.0:2378 --advertise-addr 10.0.0.2 --data-path-addr eth1";
    let join = format!("swarm join --token SWMTKN-1-a-b --availability pause {addresses} m1.example.org:2377");
    Cli::good(cli.run(&join).await);
    let join = cli.world.swarm.joins.lock()[0].clone();
    assert_eq!((&*join.listen_addr, &*join.advertise_addr), ("0.0.0.0:2378", "10.0.0.2"));
    assert_eq!((&*join.data_path_addr, join.availability), ("eth1", Availability::Pause));
    assert_eq!((join.remote_addrs, &*join.join_token), (vec!["m1.example.org:2377".to_owned()], "SWMTKN-1-a-b"));

    let spec =
        "--cert-expiry 48h --dispatcher-heartbeat 2s --task-history-limit 7 --snapshot-interval 300 --max-snapshots 3";
    Cli::good(cli.run(&format!("swarm update {spec}")).await);
    let spec = cli.world.get("/swarm").await.json()["Spec"].clone();
    for (at, expected) in [
        ("/CAConfig/NodeCertExpiry", json!(48 * 3600 * 1_000_000_000_u64)),
        ("/Dispatcher/HeartbeatPeriod", json!(2_000_000_000)),
        ("/Orchestration/TaskHistoryRetentionLimit", json!(7)),
        ("/Raft/SnapshotInterval", json!(300)),
        ("/Raft/KeepOldSnapshots", json!(3)),
    ] {
        assert_eq!(spec.pointer(at).unwrap_or(&Value::Null), &expected, "{at}");
    }
    for (args, says) in [
        ("swarm update --max-snapshots 101", "Raft.KeepOldSnapshots is 101: a manager keeps at most 100"),
        ("swarm update --external-ca protocol=cfssl,url=http://ca.example.org", "is not one like https://HOST"),
    ] {
        let (ok, text) = cli.run(args).await;
        assert!(!ok && text.contains(says), "{args}: {text}");
    }
    let root = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    *cli.world.swarm.trust_root.lock() = root.into();
    Cli::good(cli.run("swarm update --external-ca protocol=cfssl,url=https://ca.example.org/sign,by=me").await);
    let sent = cli.world.get("/swarm").await.json()["Spec"]["CAConfig"]["ExternalCAs"].clone();
    let url = "https://ca.example.org/sign";
    assert_eq!(sent, json!([{"Protocol": "cfssl", "URL": url, "Options": {"by": "me"}, "CACert": root}]));
    let (ok, info) = cli.run("info").await;
    assert!(ok && info.contains(&format!("   External CAs:\n     cfssl: {url}\n")), "{info}");
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    std::io::Write::write_all(&mut file, root.as_bytes()).expect("written");
    let ca = format!("--ca-cert {} --external-ca protocol=cfssl,url={url}", file.path().display());
    Cli::good(cli.run(&format!("swarm ca --rotate --detach {ca}")).await);
    let asked = cli.world.swarm.rotations.lock().clone();
    assert_eq!(asked, [swarmlite_api::NewRoot::Elsewhere { cert_pem: root.trim().into() }]);
    cli.world.tasks.stop();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_services_and_tasks_are_listed_and_filtered() {
    let cli = Cli::start().await;
    Cli::good(cli.run("node update --label-add zone=a --availability pause host2").await);
    for args in ["--name web --label tier=front", "--name db --mode global", "--name tick --mode replicated-job"] {
        Cli::good(cli.run(&format!("service create --detach --no-resolve-image {args} nginx:1.25")).await);
    }
    cli.world.add_task("web", 1, TaskState::Running, TaskState::Running).await;
    cli.world.add_task("web", 2, TaskState::Failed, TaskState::Shutdown).await;
    let (node, task) = (support::node_id(2), support::id('t', 1));
    let web = Cli::good(cli.run("service inspect web --format {{.ID}}").await);
    for (list, format, filters) in [
        (
            "node ls",
            "{{.Hostname}}",
            vec![
                ("role=worker", "host2"),
                ("role=manager", "host1"),
                ("name=host2", "host2"),
                ("membership=accepted", "host1 host2"),
                ("membership=pending", ""),
                ("label=disk=ssd", "host1 host2"),
                ("node.label=zone=a", "host2"),
                (&*format!("id={node}"), "host2"),
            ],
        ),
        (
            "service ls",
            "{{.Name}}",
            vec![
                (&*format!("id={}", web.trim()), "web"),
                ("name=d", "db"),
                ("label=tier=front", "web"),
                ("mode=global", "db"),
                ("mode=replicated-job", "tick"),
                ("mode=replicated", "web"),
            ],
        ),
        (
            "service ps web",
            "{{.Name}}",
            vec![
                (&*format!("id={task}"), "web.1"),
                ("name=web.2", "web.2"),
                ("node=host1", "web.1 web.2"),
                ("desired-state=running", "web.1"),
            ],
        ),
        (
            "node ps host1",
            "{{.Name}}",
            vec![
                (&*format!("id={task}"), "web.1"),
                ("name=web.2", "web.2"),
                ("desired-state=shutdown", "web.2"),
                ("label=none", ""),
            ],
        ),
    ] {
        for (filter, expected) in filters {
            let listed = Cli::good(cli.run(&format!("{list} --format {format} --filter {filter}")).await);
            // The history of a slot is drawn as a tree.
            let mut names: Vec<&str> = listed.split_whitespace().filter(|word| !word.contains('\\')).collect();
            names.sort_unstable();
            assert_eq!(names.join(" "), expected, "{list} --filter {filter}");
        }
    }
    for (args, expected) in [
        ("node ls -q", 2),
        ("service ls -q", 3),
        ("service ps -q web", 2),
        ("node ps -q self", 2),
        ("node ps --no-resolve --no-trunc -q host1", 2),
    ] {
        let listed = Cli::good(cli.run(args).await);
        assert_eq!(listed.lines().count(), expected, "{args}:\n{listed}");
    }
    let unresolved = Cli::good(cli.run("service ps web --no-resolve --no-trunc --format {{.Node}}").await);
    assert!(unresolved.lines().all(|line| line == support::node_id(1).as_str()), "{unresolved}");
    for list in ["node ls", "service ls", "service ps web", "node ps self"] {
        let (ok, text) = cli.run(&format!("{list} --filter nonsense=1")).await;
        assert!(!ok && text.contains("invalid filter 'nonsense'"), "{list}: {text}");
    }
    cli.world.tasks.stop();
}
