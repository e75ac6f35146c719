//! One object of each kind, with every field set.
#![allow(dead_code)] // each test binary uses its part

pub(crate) mod elsewhere;

use model::*;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use swarmlite_store::{Check, Kind, Object, Transaction};

pub(crate) fn id<T: std::str::FromStr<Err = InvalidId>>(c: char) -> T {
    c.to_string().repeat(25).parse().expect("25 equal digits are an id")
}

fn map(key: &str) -> BTreeMap<String, String> {
    [(key.to_owned(), "value".to_owned())].into()
}

pub(crate) fn cluster() -> Cluster {
    Cluster {
        id: id('c'),
        meta: Meta { version: 7, created_at: Timestamp(1), updated_at: Timestamp(2) },
        spec: ClusterSpec {
            name: "default".into(),
            labels: map("cluster"),
            task_history_retention_limit: -1,
            snapshot_interval: 10_000,
            heartbeat_period: Duration::from_millis(1500),
            node_cert_expiry: Duration::from_secs(2160 * 3600),
            autolock: false,
            ..ClusterSpec::default()
        },
        root_ca: RootCa { cert_pem: "CERT".into(), key_pem: "KEY".into() },
        join_tokens: JoinTokens { worker: "SWMTKN-1-w".into(), manager: "SWMTKN-1-m".into() },
        gossip_keys: vec![GossipKey { id: 3, key: [9; 32] }],
        default_addr_pool: vec!["10.0.0.0/8".into()],
        subnet_size: 24,
        data_path_port: 4789,
        removed_nodes: [(id('r'), Timestamp(8))].into(),
        security: Default::default(),
    }
}

pub(crate) fn node() -> Node {
    Node {
        id: id('n'),
        meta: Meta { version: 8, created_at: Timestamp(3), updated_at: Timestamp(4) },
        spec: NodeSpec {
            name: "one".into(),
            labels: map("node"),
            role: Role::Manager,
            availability: Availability::Drain,
        },
        description: Some(NodeDescription {
            hostname: "host".into(),
            platform: Platform { architecture: "x86_64".into(), os: "linux".into() },
            resources: Resources { nano_cpus: 4_000_000_000, memory_bytes: 1 << 33 },
            engine: EngineDescription {
                version: "28.0.0".into(),
                labels: map("engine"),
                plugins: vec![("Network".into(), "bridge".into())],
            },
            tls: None,
            ..NodeDescription::default()
        }),
        status: NodeStatus {
            state: NodeState::Ready,
            message: "well".into(),
            addr: "10.0.0.1".into(),
            ..NodeStatus::default()
        },
        manager: Some(ManagerStatus { raft_id: 42, addr: "10.0.0.1:2377".into() }),
    }
}

fn task_spec() -> TaskSpec {
    TaskSpec {
        runtime: Runtime::Container(ContainerSpec {
            image: "nginx:1.27".into(),
            labels: map("container"),
            command: vec!["/bin/sh".into()],
            args: vec!["-c".into(), "true".into()],
            hostname: "h".into(),
            env: vec!["A=b".into()],
            dir: "/srv".into(),
            user: "www:www".into(),
            groups: vec!["adm".into()],
            stop_signal: "SIGINT".into(),
            stop_grace_period: Some(Duration::from_secs(3)),
            tty: true,
            open_stdin: true,
            read_only: true,
            init: Some(true),
            mounts: vec![mount()],
            healthcheck: Some(Healthcheck {
                test: vec!["CMD".into(), "true".into()],
                interval: Some(Duration::from_secs(1)),
                timeout: Some(Duration::from_secs(2)),
                retries: Some(3),
                start_period: Some(Duration::from_secs(4)),
                start_interval: Some(Duration::from_secs(5)),
            }),
            hosts: vec!["1.2.3.4 name".into()],
            dns: Some(DnsConfig {
                nameservers: vec!["1.1.1.1".into()],
                search: vec!["local".into()],
                options: vec!["ndots:1".into()],
            }),
            sysctls: map("net.core.somaxconn"),
            cap_add: vec!["NET_ADMIN".into()],
            cap_drop: vec!["ALL".into()],
            ulimits: vec![Ulimit { name: "nofile".into(), soft: 1, hard: 2 }],
            registry_auth: Some(RegistryAuth("credentials".into())),
            secrets: Vec::new(),
            configs: Vec::new(),
            ..ContainerSpec::default()
        }),
        resources: Some(ResourceRequirements {
            limits: Some(Limits { nano_cpus: 1, memory_bytes: 2, pids: 3 }),
            reservations: Some(Resources { nano_cpus: 4, memory_bytes: 5 }),
            ..ResourceRequirements::default()
        }),
        restart: Some(RestartPolicy {
            condition: Some(RestartCondition::OnFailure),
            delay: Some(Duration::from_secs(6)),
            max_attempts: Some(7),
            window: Some(Duration::from_secs(8)),
        }),
        placement: Some(Placement {
            platforms: vec![Platform { architecture: "arm64".into(), os: "linux".into() }],
            ..Placement::default()
        }),
        log_driver: Some(LogDriver { name: "json-file".into(), options: map("max-size") }),
        force_update: 2,
    }
}

fn mount() -> Mount {
    Mount {
        kind: MountKind::Volume,
        source: "data".into(),
        target: "/data".into(),
        read_only: true,
        consistency: "cached".into(),
        bind_propagation: "rslave".into(),
        bind_non_recursive: true,
        volume_no_copy: true,
        volume_labels: map("volume"),
        volume_driver: "local".into(),
        volume_driver_opts: map("type"),
        volume_subpath: "sub".into(),
        tmpfs_size_bytes: 1,
        tmpfs_mode: 0o1777,
        ..Mount::default()
    }
}

fn port(mode: PublishMode) -> PortConfig {
    PortConfig { name: "http".into(), protocol: Protocol::Udp, target_port: 80, published_port: 8080, mode }
}

pub(crate) fn service() -> Service {
    let update = UpdateConfig {
        parallelism: 2,
        delay: Duration::from_secs(1),
        failure_action: FailureAction::Rollback,
        monitor: Some(Duration::from_secs(2)),
        max_failure_ratio_ppm: 100_000,
        order: UpdateOrder::StartFirst,
    };
    let spec = ServiceSpec {
        name: "web".parse().expect("a name"),
        labels: map("service"),
        task: Arc::new(task_spec()),
        mode: Mode::Replicated { replicas: 3 },
        update: Some(update.clone()),
        rollback: Some(UpdateConfig { failure_action: FailureAction::Continue, ..update }),
        endpoint: Some(EndpointSpec { mode: EndpointMode::DnsRr, ports: vec![port(PublishMode::Ingress)] }),
        cron: None,
        backoff: Default::default(),
    };
    Service {
        id: id('s'),
        meta: Meta { version: 9, created_at: Timestamp(5), updated_at: Timestamp(6) },
        previous_spec: Some(spec.clone()),
        spec,
        spec_version: 4,
        update_status: Some(UpdateStatus {
            state: UpdateState::RollbackPaused,
            started_at: Timestamp(7),
            completed_at: Some(Timestamp(8)),
            message: "rollback paused".into(),
            spec_version: 4,
        }),
        progress: Default::default(),
    }
}

pub(crate) fn task() -> Task {
    Task {
        id: id('t'),
        meta: Meta { version: 10, created_at: Timestamp(9), updated_at: Timestamp(10) },
        service_id: id('s'),
        service_name: "web".parse().expect("a name"),
        slot: 2,
        spec: Arc::new(task_spec()),
        spec_version: 4,
        host_ports: vec![port(PublishMode::Host)],
        node_id: Some(id('n')),
        desired: TaskState::Shutdown,
        run_after: Some(Timestamp(11)),
        status: TaskStatus {
            state: TaskState::Failed,
            at: Timestamp(12),
            message: "started".into(),
            err: "task: non-zero exit (1)".into(),
            running_at: Some(Timestamp(11)),
            container: Some(ContainerStatus { id: "abc".into(), pid: 5, exit_code: Some(1) }),
            ports: vec![PortStatus { protocol: Protocol::Sctp, target_port: 80, published_port: 32768 }],
        },
        for_node: None,
        job_iteration: None,
        failures: 0,
        inherited: None,
        generic: Vec::new(),
    }
}

pub(crate) fn objects() -> Vec<Object> {
    vec![cluster().into(), node().into(), service().into(), task().into()]
}

/// Every kind of check and change.
pub(crate) fn transaction() -> Transaction {
    let mut transaction = Transaction::new(Timestamp(99));
    for object in objects() {
        transaction.create(object);
    }
    transaction.update(node());
    transaction.remove(id::<TaskId>('t'), 10);
    transaction.check(Check::Exists { id: (&id::<ServiceId>('s')).into() });
    transaction.check(Check::NameFree { kind: Kind::Service, name: "web".into() });
    transaction
}

// === Since 2: secrets and configs ===

fn target(path: &str) -> FileTarget {
    FileTarget { path: path.parse().expect("a target"), uid: 33, gid: 34, mode: 0o440.try_into().expect("a mode") }
}

pub(crate) fn secret() -> Secret {
    let spec = SecretSpec {
        name: "key".parse().expect("a name"),
        labels: map("secret"),
        templating: Some(Templating::Golang),
    };
    Secret { id: id('k'), meta: Meta::default(), spec, data_version: 2 }
}

pub(crate) fn config() -> Config {
    let spec = ConfigSpec { name: "conf.ini".parse().expect("a name"), labels: map("config"), templating: None };
    Config { id: id('i'), meta: Meta::default(), spec, data_version: 1 }
}

pub(crate) fn payload(of: PayloadId) -> Payload {
    let text = format!("DATA of {of}\0");
    Payload { id: of, meta: Meta::default(), data: Data::of_secret(text.into_bytes()).expect("a few bytes") }
}

/// A service that uses them.
pub(crate) fn user() -> Service {
    let mut service = service();
    service.id = id('u');
    service.spec.name = "user".parse().expect("a name");
    let container = Arc::make_mut(&mut service.spec.task).container_mut().unwrap();
    container.secrets = vec![SecretReference {
        secret_id: id('k'),
        secret_name: "key".parse().expect("a name"),
        target: target("tls/key"),
        given: Given { version: Some(2), signal: Some(Signal::default()), templating: None },
    }];
    let reference = |target| ConfigReference {
        config_id: id('i'),
        config_name: "conf.ini".parse().expect("a name"),
        target,
        given: Given::default(),
    };
    let file = ConfigTarget::File(target("/etc/conf.ini"));
    container.configs = vec![reference(file), reference(ConfigTarget::Runtime)];
    service
}

pub(crate) fn granted() -> Vec<Object> {
    let payloads = [payload(secret().payload_id()), payload(config().payload_id())];
    let mut objects: Vec<Object> = vec![secret().into(), config().into(), user().into()];
    objects.extend(payloads.map(Object::from));
    objects
}

/// What a transaction can say since then.
pub(crate) fn transaction_2() -> Transaction {
    let mut transaction = Transaction::new(Timestamp(98));
    for object in granted() {
        transaction.create(object);
    }
    transaction.update(secret());
    transaction.remove(config().payload_id(), 3);
    transaction.check(Check::NameFree { kind: Kind::Secret, name: "key".into() });
    transaction.check(Check::NameFree { kind: Kind::Config, name: "conf.ini".into() });
    transaction.check(Check::Unreferenced { id: (&id::<SecretId>('k')).into() });
    transaction
}

// === Since 3: modes, placement, and what Swarm never had ===

fn beyond_container() -> ContainerSpec {
    ContainerSpec {
        image: "job:1".into(),
        mounts: vec![
            Mount {
                kind: MountKind::Tmpfs,
                target: "/tmp".into(),
                tmpfs_options: vec![vec!["noexec".into()], vec!["uid".into(), "7".into()]],
                ..Mount::default()
            },
            Mount {
                kind: MountKind::Bind,
                source: "/a".into(),
                target: "/b".into(),
                bind_create_mountpoint: true,
                bind_read_only_non_recursive: true,
                bind_read_only_force_recursive: true,
                ..Mount::default()
            },
            Mount {
                kind: MountKind::Image,
                source: "tools:1".into(),
                target: "/tools".into(),
                image_subpath: "bin".into(),
                ..Mount::default()
            },
        ],
        oom_score_adj: -5,
        privileges: Some(Privileges {
            selinux: Some(SeLinux {
                disable: true,
                user: "u".into(),
                role: "r".into(),
                kind: "t".into(),
                level: "l".into(),
            }),
            seccomp: Some(Seccomp::Custom("{}".into())),
            apparmor: Some(AppArmor::Disabled),
            no_new_privileges: true,
        }),
        host_access: HostAccess {
            privileged: true,
            devices: vec![Device { on_host: "/dev/a".into(), in_container: "/dev/b".into(), permissions: "rw".into() }],
            shm_size_bytes: Some(1 << 20),
            gpus: Some(Gpus::Ids(vec!["GPU-1".into()])),
        },
        ..ContainerSpec::default()
    }
}

fn beyond_spec() -> ServiceSpec {
    let task = TaskSpec {
        runtime: beyond_container().into(),
        resources: Some(ResourceRequirements {
            limits: None,
            reservations: None,
            generic: vec![GenericRequest { kind: "gpu".into(), amount: 2 }],
            swap_bytes: Some(-1),
            memory_swappiness: Some(60),
        }),
        placement: Some(Placement {
            platforms: Vec::new(),
            constraints: vec!["node.labels.disk != hdd".parse().expect("a constraint")],
            preferences: vec![Preference::Spread("node.labels.zone".into())],
            max_replicas: 2,
        }),
        ..TaskSpec::default()
    };
    ServiceSpec {
        name: "nightly".parse().expect("a name"),
        labels: map("swarmlite.cron.schedule"),
        task: Arc::new(task),
        mode: Mode::ReplicatedJob { max_concurrent: 1, total_completions: 2 },
        update: None,
        rollback: None,
        endpoint: None,
        cron: Some(CronSpec {
            schedule: "30 2 * * *".parse().expect("a schedule"),
            timezone: "Europe/Berlin".parse().expect("a time zone"),
            missed_run_window: Duration::from_secs(600),
            concurrency: Concurrency::Replace,
            history: 4,
        }),
        backoff: Backoff { on: false, max: Duration::from_secs(60) },
    }
}

fn with_mode(c: char, name: &str, mode: Mode) -> Service {
    let mut service = service();
    service.id = id(c);
    service.spec.name = name.parse().expect("a name");
    service.spec.mode = mode;
    service.previous_spec = None;
    service
}

pub(crate) fn beyond() -> Vec<Object> {
    let mut cluster = cluster();
    cluster.spec.task_log_driver = Some(LogDriver { name: "local".into(), options: map("max-size") });
    cluster.spec.policy = ClusterPolicy {
        host: HostPolicy {
            privileged: true,
            devices: AllowedDevices::These(vec!["/dev/fuse".into()]),
            shm_size_bytes_max: Some(1 << 30),
            gpus: true,
        },
        rebalance: RebalancePolicy::OnJoin,
        autopilot: Autopilot { on: true, after: Duration::from_secs(90) },
    };
    let mut node = node();
    node.status.stands_in_for = Some(id('m'));
    (node.status.since, node.status.takes_tasks_since) = (Timestamp(16), Timestamp(17));
    node.description.get_or_insert_default().generic = vec![
        GenericResource::Named { kind: "gpu".into(), value: "GPU-1".into() },
        GenericResource::Discrete { kind: "slots".into(), amount: 3 },
    ];
    let nightly = Service {
        id: id('j'),
        meta: Meta::default(),
        spec: beyond_spec(),
        spec_version: 1,
        previous_spec: None,
        update_status: None,
        progress: Progress {
            job: Some(JobRun { iteration: 7, last_execution: Timestamp(13) }),
            cron: Some(CronState {
                considered_until: Timestamp(14),
                left_out: 1,
                started: Some(7),
                followed: "30 2 * * * Europe/Berlin".into(),
                forced: 2,
                open: BTreeMap::new(),
            }),
            ..Progress::default()
        },
    };
    let mut global = with_mode('g', "everywhere", Mode::Global);
    global.progress.joins_considered = Timestamp(18);
    global.progress.rebalance = Some(Rebalance {
        asked_at: Timestamp(15),
        because_of: Some(id('n')),
        moving: Some(Move { task: id('v'), from: id('n') }),
        given_up: Some(id('w')),
    });
    let once = with_mode('o', "once", Mode::GlobalJob);
    let run = Task {
        id: id('x'),
        service_id: id('j'),
        service_name: "nightly".parse().expect("a name"),
        slot: 0,
        for_node: Some(id('n')),
        job_iteration: Some(7),
        inherited: Some(Arc::new(Inherited {
            log_driver: Some(LogDriver { name: "local".into(), options: map("max-size") }),
            service_labels: map("service"),
        })),
        generic: vec![GenericResource::Named { kind: "gpu".into(), value: "GPU-1".into() }],
        desired: TaskState::Complete,
        failures: 3,
        ..task()
    };
    vec![cluster.into(), node.into(), nightly.into(), global.into(), once.into(), run.into()]
}

pub(crate) fn transaction_3() -> Transaction {
    let mut transaction = Transaction::new(Timestamp(97));
    for object in beyond() {
        transaction.create(object);
    }
    transaction
}

/// A service whose tasks are plugins, and one of its tasks.
pub(crate) fn plugins() -> Vec<Object> {
    let plugin = PluginSpec {
        name: "net".into(),
        remote: "registry:5000/net:1".into(),
        privileges: vec![PluginPrivilege {
            name: "network".into(),
            description: "permissions to access a network".into(),
            value: vec!["host".into()],
        }],
        disabled: true,
        env: vec!["A=b".into()],
        registry_auth: Some(RegistryAuth("credentials".into())),
    };
    let spec = Arc::new(TaskSpec { runtime: plugin.into(), ..task_spec() });
    let mut service = Service { id: id('p'), ..service() };
    service.spec.name = "net".parse().expect("a name");
    service.spec.mode = Mode::Global;
    service.spec.task = spec.clone();
    service.previous_spec = None;
    let service_name = service.spec.name.clone();
    let task = Task { service_id: id('p'), service_name, slot: 0, for_node: Some(id('n')), spec, ..task() };
    vec![service.into(), task.into()]
}

pub(crate) fn transaction_4() -> Transaction {
    let mut transaction = Transaction::new(Timestamp(96));
    for object in plugins() {
        transaction.create(object);
    }
    transaction
}
