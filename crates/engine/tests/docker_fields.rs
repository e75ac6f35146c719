//! Every field of a container on a real dockerd: what `docker inspect` says of it, and what the container sees. What the engine
//! is too old for must be refused.

mod support;

use bollard::query_parameters::InspectContainerOptions;
use futures::StreamExt as _;
use model::{
    AppArmor, Device, DnsConfig, Gpus, Healthcheck, LogDriver, Mount, MountKind, PortConfig, Privileges, Protocol,
    PublishMode, SeLinux, Seccomp, Ulimit,
};
use serde_json::{Value, json};
use std::time::Duration;
use support::{Bench, client, tmpfs, with_bench};
use swarmlite_engine::{ContainerPhase, Engine, EngineError, LogOptions, NewContainer};

/// What is asked for, how, and where the engine shows it (JSON pointers).
type Row = (&'static str, fn(&mut NewContainer), Vec<(&'static str, Value)>);

fn text(s: &str) -> String {
    s.to_owned()
}

/// A profile that allows everything but making directories.
const NO_MKDIR: &str =
    r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["mkdir","mkdirat"],"action":"SCMP_ACT_ERRNO"}]}"#;

fn rows_of_the_process() -> Vec<Row> {
    vec![
        ("labels", |c| drop(c.spec.labels.insert(text("a"), text("b"))), vec![("/Config/Labels/a", json!("b"))]),
        ("command", |c| c.spec.command = vec![text("/bin/echo")], vec![("/Config/Entrypoint", json!(["/bin/echo"]))]),
        ("args", |c| c.spec.args = vec![text("x")], vec![("/Config/Cmd", json!(["x"]))]),
        ("hostname", |c| c.spec.hostname = text("h1"), vec![("/Config/Hostname", json!("h1"))]),
        ("env", |c| c.spec.env = vec![text("A=1")], vec![("/Config/Env/0", json!("A=1"))]),
        ("dir", |c| c.spec.dir = text("/bin"), vec![("/Config/WorkingDir", json!("/bin"))]),
        ("user", |c| c.spec.user = text("5:6"), vec![("/Config/User", json!("5:6"))]),
        ("groups", |c| c.spec.groups = vec![text("7")], vec![("/HostConfig/GroupAdd", json!(["7"]))]),
        ("stop signal", |c| c.spec.stop_signal = text("SIGINT"), vec![("/Config/StopSignal", json!("SIGINT"))]),
        (
            "stop grace period",
            |c| c.spec.stop_grace_period = Some(Duration::from_secs(3)),
            vec![("/Config/StopTimeout", json!(3))],
        ),
        ("tty", |c| c.spec.tty = true, vec![("/Config/Tty", json!(true))]),
        ("open stdin", |c| c.spec.open_stdin = true, vec![("/Config/OpenStdin", json!(true))]),
        ("init", |c| c.spec.init = Some(true), vec![("/HostConfig/Init", json!(true))]),
        ("read only", |c| c.spec.read_only = true, vec![("/HostConfig/ReadonlyRootfs", json!(true))]),
        (
            "health check",
            |c| {
                let test = vec![text("CMD"), text("/bin/true")];
                let interval = Some(Duration::from_secs(9));
                c.spec.healthcheck = Some(Healthcheck { test, interval, retries: Some(4), ..Healthcheck::default() });
            },
            vec![
                ("/Config/Healthcheck/Test", json!(["CMD", "/bin/true"])),
                ("/Config/Healthcheck/Interval", json!(9_000_000_000_i64)),
                ("/Config/Healthcheck/Retries", json!(4)),
            ],
        ),
        (
            "hosts",
            |c| c.spec.hosts = vec![text("1.2.3.4 a b")],
            vec![("/HostConfig/ExtraHosts", json!(["a:1.2.3.4", "b:1.2.3.4"]))],
        ),
        (
            "dns",
            |c| {
                c.spec.dns = Some(DnsConfig {
                    nameservers: vec![text("9.9.9.9")],
                    search: vec![text("x.test")],
                    options: vec![text("ndots:2")],
                });
            },
            vec![
                ("/HostConfig/Dns", json!(["9.9.9.9"])),
                ("/HostConfig/DnsSearch", json!(["x.test"])),
                ("/HostConfig/DnsOptions", json!(["ndots:2"])),
            ],
        ),
        (
            "published ports",
            |c| {
                c.ports = vec![PortConfig {
                    name: String::new(),
                    protocol: Protocol::Udp,
                    target_port: 53,
                    published_port: 45353,
                    mode: PublishMode::Host,
                }];
            },
            vec![("/HostConfig/PortBindings", json!({"53/udp": [{"HostIp": "", "HostPort": "45353"}]}))],
        ),
        (
            "log driver",
            |c| {
                let options = [(text("max-size"), text("1m"))].into();
                c.log_driver = Some(LogDriver { name: text("json-file"), options });
            },
            vec![("/HostConfig/LogConfig", json!({"Type": "json-file", "Config": {"max-size": "1m"}}))],
        ),
    ]
}

fn privileges(privileges: Privileges) -> Option<Privileges> {
    Some(privileges)
}

fn rows_of_what_it_may_do() -> Vec<Row> {
    vec![
        (
            "sysctls",
            |c| drop(c.spec.sysctls.insert(text("net.core.somaxconn"), text("77"))),
            vec![("/HostConfig/Sysctls", json!({"net.core.somaxconn": "77"}))],
        ),
        (
            "capabilities added",
            |c| c.spec.cap_add = vec![text("CAP_NET_ADMIN")],
            vec![("/HostConfig/CapAdd", json!(["CAP_NET_ADMIN"]))],
        ),
        (
            "capabilities dropped",
            |c| c.spec.cap_drop = vec![text("ALL")],
            vec![("/HostConfig/CapDrop", json!(["ALL"]))],
        ),
        (
            "ulimits",
            |c| c.spec.ulimits = vec![Ulimit { name: text("nofile"), soft: 100, hard: 200 }],
            vec![("/HostConfig/Ulimits", json!([{"Name": "nofile", "Soft": 100, "Hard": 200}]))],
        ),
        ("OOM score", |c| c.spec.oom_score_adj = 300, vec![("/HostConfig/OomScoreAdj", json!(300))]),
        ("CPUs", |c| c.limits.nano_cpus = 500_000_000, vec![("/HostConfig/NanoCpus", json!(500_000_000))]),
        ("memory", |c| c.limits.memory_bytes = 64 << 20, vec![("/HostConfig/Memory", json!(64 << 20))]),
        (
            "reserved memory",
            |c| c.memory_reservation_bytes = 32 << 20,
            vec![("/HostConfig/MemoryReservation", json!(32 << 20))],
        ),
        ("swappiness", |c| c.memory_swappiness = Some(7), vec![("/HostConfig/MemorySwappiness", json!(7))]),
        (
            "swap",
            |c| (c.limits.memory_bytes, c.swap_bytes) = (64 << 20, Some(16 << 20)),
            vec![("/HostConfig/MemorySwap", json!(80 << 20))],
        ),
        ("processes", |c| c.limits.pids = 33, vec![("/HostConfig/PidsLimit", json!(33))]),
        (
            "seccomp unconfined, no new privileges",
            |c| {
                let seccomp = Some(Seccomp::Unconfined);
                c.spec.privileges =
                    privileges(Privileges { seccomp, no_new_privileges: true, ..Privileges::default() });
            },
            vec![("/HostConfig/SecurityOpt", json!(["seccomp=unconfined", "no-new-privileges=true"]))],
        ),
        (
            "a seccomp profile",
            |c| {
                let seccomp = Some(Seccomp::Custom(text(NO_MKDIR)));
                c.spec.privileges = privileges(Privileges { seccomp, ..Privileges::default() });
            },
            vec![("/HostConfig/SecurityOpt", json!([format!("seccomp={NO_MKDIR}")]))],
        ),
        (
            "AppArmor",
            |c| {
                let apparmor = Some(AppArmor::Disabled);
                c.spec.privileges = privileges(Privileges { apparmor, ..Privileges::default() });
            },
            vec![("/HostConfig/SecurityOpt", json!(["apparmor=unconfined"]))],
        ),
        (
            "SELinux",
            |c| {
                let selinux = Some(SeLinux { user: text("u"), kind: text("t"), ..SeLinux::default() });
                c.spec.privileges = privileges(Privileges { selinux, ..Privileges::default() });
            },
            vec![("/HostConfig/SecurityOpt", json!(["label=user:u", "label=type:t"]))],
        ),
        ("privileged", |c| c.spec.host_access.privileged = true, vec![("/HostConfig/Privileged", json!(true))]),
        (
            "shm size",
            |c| c.spec.host_access.shm_size_bytes = Some(8 << 20),
            vec![("/HostConfig/ShmSize", json!(8 << 20))],
        ),
        (
            "devices",
            |c| {
                let (on_host, in_container, permissions) = (text("/dev/null"), text("/dev/zilch"), text("r"));
                c.spec.host_access.devices = vec![Device { on_host, in_container, permissions }];
            },
            vec![(
                "/HostConfig/Devices",
                json!([{"PathOnHost": "/dev/null", "PathInContainer": "/dev/zilch", "CgroupPermissions": "r"}]),
            )],
        ),
        (
            "GPUs",
            |c| c.spec.host_access.gpus = Some(Gpus::All),
            vec![
                ("/HostConfig/DeviceRequests/0/Count", json!(-1)),
                ("/HostConfig/DeviceRequests/0/Capabilities", json!([["gpu"]])),
            ],
        ),
    ]
}

fn rows_of_mounts() -> Vec<Row> {
    vec![
        (
            "a bind mount",
            |c| {
                c.spec.mounts = vec![Mount {
                    kind: MountKind::Bind,
                    source: text("/tmp"),
                    target: text("/m"),
                    read_only: true,
                    bind_propagation: text("rslave"),
                    bind_non_recursive: true,
                    ..Mount::default()
                }];
            },
            vec![(
                "/HostConfig/Mounts/0",
                json!({"Type": "bind", "Source": "/tmp", "Target": "/m", "ReadOnly": true,
                       "BindOptions": {"Propagation": "rslave", "NonRecursive": true}}),
            )],
        ),
        (
            "a volume",
            |c| {
                c.spec.mounts = vec![Mount {
                    target: text("/m"),
                    volume_no_copy: true,
                    volume_labels: [(text("l"), text("1"))].into(),
                    volume_driver: text("local"),
                    volume_driver_opts: [("type", "tmpfs"), ("device", "tmpfs"), ("o", "size=1m")]
                        .map(|(k, v)| (text(k), text(v)))
                        .into(),
                    ..Mount::default()
                }];
            },
            vec![
                ("/HostConfig/Mounts/0/VolumeOptions/NoCopy", json!(true)),
                ("/HostConfig/Mounts/0/VolumeOptions/Labels", json!({"l": "1"})),
                ("/HostConfig/Mounts/0/VolumeOptions/DriverConfig/Name", json!("local")),
                ("/HostConfig/Mounts/0/VolumeOptions/DriverConfig/Options/o", json!("size=1m")),
            ],
        ),
        (
            "a tmpfs",
            |c| c.spec.mounts = vec![tmpfs("/m")],
            vec![(
                "/HostConfig/Mounts/0",
                json!({"Type": "tmpfs", "Target": "/m", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1777}}),
            )],
        ),
    ]
}

fn a_mount(c: &mut NewContainer, kind: MountKind, source: &str, change: impl FnOnce(&mut Mount)) {
    let mut mount = Mount { kind, source: text(source), target: text("/m"), ..Mount::default() };
    change(&mut mount);
    c.spec.mounts = vec![mount];
}

/// What newer engines have, with the API version that began with it.
fn rows_of_newer_engines() -> Vec<(usize, Row)> {
    vec![
        (
            42,
            (
                "a bind mount that makes its path",
                |c| a_mount(c, MountKind::Bind, "/tmp", |m| m.bind_create_mountpoint = true),
                vec![("/HostConfig/Mounts/0/BindOptions/CreateMountpoint", json!(true))],
            ),
        ),
        (
            44,
            (
                "a health check's start interval",
                |c| {
                    let (test, start_interval) = (vec![text("CMD"), text("/bin/true")], Some(Duration::from_secs(2)));
                    c.spec.healthcheck = Some(Healthcheck { test, start_interval, ..Healthcheck::default() });
                },
                vec![("/Config/Healthcheck/StartInterval", json!(2_000_000_000))],
            ),
        ),
        (
            44,
            (
                "a bind mount that is read-only by itself only",
                |c| {
                    a_mount(c, MountKind::Bind, "/tmp", |m| {
                        (m.read_only, m.bind_read_only_non_recursive) = (true, true);
                    });
                },
                vec![("/HostConfig/Mounts/0/BindOptions/ReadOnlyNonRecursive", json!(true))],
            ),
        ),
        (
            46,
            (
                "a tmpfs with options",
                |c| a_mount(c, MountKind::Tmpfs, "", |m| m.tmpfs_options = vec![vec![text("exec")]]),
                vec![("/HostConfig/Mounts/0/TmpfsOptions/Options", json!([["exec"]]))],
            ),
        ),
        (
            48,
            (
                "a mount of an image",
                |c| a_mount(c, MountKind::Image, support::IMAGE, |_| ()),
                vec![("/HostConfig/Mounts/0/Type", json!("image"))],
            ),
        ),
    ]
}

#[tokio::test]
async fn what_the_engine_is_too_old_for_is_refused_and_the_rest_is_there() {
    with_bench("newer", |b| async move {
        let has = client().negotiate_version().await.unwrap().client_version().minor_version;
        for (needs, (what, ask, shown)) in rows_of_newer_engines() {
            let mut new = b.container("true");
            ask(&mut new);
            let made = b.engine.create(&new).await;
            if has < needs {
                let says = format!("{what} needs an engine with API version 1.{needs}; this one has 1.{has}");
                assert_eq!(made, Err(EngineError::Refused(says)));
                continue;
            }
            let wrong = differences(&made.unwrap_or_else(|error| panic!("{what}: {error}")), what, shown).await;
            assert!(wrong.is_empty(), "{wrong:#?}");
            b.clean().await;
        }
    })
    .await;
}

/// Where `docker inspect` does not show what it should.
async fn differences(id: &str, what: &str, shown: Vec<(&'static str, Value)>) -> Vec<String> {
    let inspected = client().inspect_container(id, None::<InspectContainerOptions>).await.unwrap();
    let inspected = serde_json::to_value(inspected).unwrap();
    let found = |pointer: &str| inspected.pointer(pointer).cloned().unwrap_or_default();
    let wrong = shown.into_iter().filter(|(pointer, expected)| found(pointer) != *expected);
    wrong.map(|(pointer, expected)| format!("{what}: {pointer} is {}, not {expected}", found(pointer))).collect()
}

#[tokio::test]
async fn every_field_is_what_docker_inspect_shows() {
    with_bench("fields", |b| async move {
        let rows = rows_of_the_process().into_iter().chain(rows_of_what_it_may_do()).chain(rows_of_mounts());
        let mut wrong = Vec::new();
        for (what, ask, shown) in rows {
            let mut new = b.container("true");
            ask(&mut new);
            let id = b.engine.create(&new).await.unwrap_or_else(|error| panic!("{what}: {error}"));
            wrong.extend(differences(&id, what, shown).await);
            b.engine.remove(&id).await.unwrap();
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    })
    .await;
}

/// What a container that runs this script prints.
async fn printed(b: &Bench, ask: impl FnOnce(&mut NewContainer), script: &str) -> String {
    let mut new = b.container(script);
    ask(&mut new);
    let id = b.run(&new).await;
    b.until(&id, |s| s.phase == ContainerPhase::Exited).await;
    let options = LogOptions { stdout: true, stderr: true, ..LogOptions::default() };
    let chunks: Vec<_> = b.engine.logs(&id, options).await.unwrap().collect().await;
    b.engine.remove(&id).await.unwrap();
    let lines = chunks.into_iter().map(|c| String::from_utf8_lossy(&c.unwrap().data).trim().to_owned());
    lines.collect::<Vec<_>>().join("|")
}

#[tokio::test]
async fn a_container_sees_what_was_asked_for() {
    with_bench("seen", |b| async move {
        type Seen = (fn(&mut NewContainer), &'static str, &'static str);
        let rows: Vec<Seen> = vec![
            (|c| c.spec.hostname = text("h1"), "cat /proc/sys/kernel/hostname", "h1"),
            (|c| c.spec.env = vec![text("A=1")], "echo $A", "1"),
            (|c| c.spec.dir = text("/bin"), "pwd", "/bin"),
            (
                |c| (c.spec.user, c.spec.groups) = (text("5:6"), vec![text("7")]),
                "busybox id -u; busybox id -g; busybox id -G",
                "5|6|6 7",
            ),
            (|c| c.spec.init = Some(true), "busybox awk '/Name/{print $2}' /proc/1/status", "docker-init"),
            (|c| c.spec.read_only = true, "busybox touch /x 2>&1 | busybox grep -o Read-only", "Read-only"),
            (|c| c.spec.hosts = vec![text("1.2.3.4 a b")], "busybox grep -c 1.2.3.4 /etc/hosts", "2"),
            (
                |c| drop(c.spec.sysctls.insert(text("net.core.somaxconn"), text("77"))),
                "cat /proc/sys/net/core/somaxconn",
                "77",
            ),
            (
                |c| c.spec.ulimits = vec![Ulimit { name: text("nofile"), soft: 100, hard: 200 }],
                "ulimit -n; ulimit -Hn",
                "100|200",
            ),
            (|c| c.spec.oom_score_adj = 300, "cat /proc/self/oom_score_adj", "300"),
            (
                |c| c.spec.cap_drop = vec![text("ALL")],
                "busybox awk '/CapEff/{print $2}' /proc/self/status",
                "0000000000000000",
            ),
            (
                |c| c.spec.privileges = privileges(Privileges { no_new_privileges: true, ..Privileges::default() }),
                "busybox awk '/NoNewPrivs/{print $2}' /proc/self/status",
                "1",
            ),
            (
                |c| {
                    let seccomp = Some(Seccomp::Unconfined);
                    c.spec.privileges = privileges(Privileges { seccomp, ..Privileges::default() });
                },
                "busybox awk '/Seccomp:/{print $2}' /proc/self/status",
                "0",
            ),
            (
                |c| {
                    let seccomp = Some(Seccomp::Custom(text(NO_MKDIR)));
                    c.spec.privileges = privileges(Privileges { seccomp, ..Privileges::default() });
                },
                "busybox mkdir /d",
                "mkdir: can't create directory '/d': Operation not permitted",
            ),
            (|c| c.spec.mounts = vec![tmpfs("/m")], "busybox df -k /m | busybox awk 'END{print $1, $2}'", "tmpfs 1024"),
            (
                |c| c.spec.host_access.shm_size_bytes = Some(8 << 20),
                "busybox df -k /dev/shm | busybox awk 'END{print $2}'",
                "8192",
            ),
            (
                |c| {
                    let (on_host, in_container, permissions) = (text("/dev/null"), text("/dev/zilch"), text("r"));
                    c.spec.host_access.devices = vec![Device { on_host, in_container, permissions }];
                },
                "[ -c /dev/zilch ] && echo there",
                "there",
            ),
            (
                |_| (),
                "busybox mount -t tmpfs none /bin 2>&1 | busybox grep -o 'permission denied'",
                "permission denied",
            ),
            (|c| c.spec.tty = true, "[ -t 1 ] && echo terminal", "terminal"),
        ];
        let mut wrong = Vec::new();
        for (ask, script, expected) in rows {
            let found = printed(&b, ask, script).await;
            if found != expected {
                wrong.push(format!("{script}: {found:?}, not {expected:?}"));
            }
        }
        assert!(wrong.is_empty(), "{wrong:#?}");
    })
    .await;
}
