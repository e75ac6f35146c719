use super::*;
use model::{
    AppArmor, ContainerSpec, Device, DnsConfig, Gpus, HostAccess, Limits, LogDriver, Privileges, PublishMode, SeLinux,
    Seccomp, Ulimit,
};
use serde_json::json;

const NEW: ClientVersion = ClientVersion { major_version: 1, minor_version: 53 };
const OLD: ClientVersion = ClientVersion { major_version: 1, minor_version: 41 };

fn text(s: &str) -> String {
    s.to_owned()
}

fn a_mount(kind: MountKind) -> Mount {
    Mount { kind, source: text("src"), target: text("/dst"), read_only: true, ..Mount::default() }
}

fn json_of(spec: ContainerSpec) -> serde_json::Value {
    serde_json::to_value(body(&NewContainer { spec, ..NewContainer::default() }, NEW).unwrap()).unwrap()
}

#[test]
fn a_plain_container_leaves_everything_else_to_the_image_and_the_engine() {
    let json = json_of(ContainerSpec { image: text("web:1"), ..ContainerSpec::default() });
    assert_eq!(
        json,
        json!({
            "AttachStdin": false, "AttachStdout": false, "AttachStderr": false,
            "Image": "web:1", "Tty": false, "OpenStdin": false, "Labels": {},
            "HostConfig": {"ReadonlyRootfs": false, "RestartPolicy": {"Name": "no"}},
        })
    );
}

#[test]
fn every_field_reaches_its_place() {
    let container = NewContainer {
        name: text("web.1.x"),
        spec: ContainerSpec {
            registry_auth: Default::default(),
            image: text("web:1"),
            labels: [(text("mine"), text("1")), (text("com.docker.swarm.task.id"), text("forged"))].into(),
            command: vec![text("/bin/sh")],
            args: vec![text("-c"), text("true")],
            hostname: text("h"),
            env: vec![text("A=1")],
            dir: text("/d"),
            user: text("u:g"),
            groups: vec![text("g2")],
            stop_signal: text("SIGINT"),
            stop_grace_period: Some(Duration::from_millis(1500)),
            tty: true,
            open_stdin: true,
            read_only: true,
            init: Some(true),
            mounts: Vec::new(),
            healthcheck: Some(Healthcheck {
                test: vec![text("CMD"), text("true")],
                interval: Some(Duration::from_secs(1)),
                retries: Some(3),
                ..Healthcheck::default()
            }),
            hosts: vec![text("1.2.3.4 a b"), text("::1\tc")],
            dns: Some(DnsConfig {
                nameservers: vec![text("9.9.9.9")],
                search: vec![text("x")],
                options: vec![text("o")],
            }),
            sysctls: [(text("net.x"), text("1"))].into(),
            cap_add: vec![text("CAP_NET_ADMIN")],
            cap_drop: vec![text("ALL")],
            ulimits: vec![Ulimit { name: text("nofile"), soft: 1, hard: 2 }],
            secrets: Vec::new(),
            configs: Vec::new(),
            oom_score_adj: -5,
            privileges: Some(Privileges {
                seccomp: Some(Seccomp::Unconfined),
                no_new_privileges: true,
                ..Privileges::default()
            }),
            host_access: HostAccess {
                privileged: true,
                devices: vec![Device { on_host: text("/dev/a"), in_container: text("/dev/b"), permissions: text("r") }],
                shm_size_bytes: Some(9),
                gpus: Some(Gpus::All),
            },
        },
        labels: [(text("com.docker.swarm.task.id"), text("x"))].into(),
        limits: Limits { nano_cpus: 5, memory_bytes: 6, pids: 7 },
        swap_bytes: Some(4),
        memory_swappiness: Some(0),
        memory_reservation_bytes: 8,
        log_driver: Some(LogDriver { name: text("json-file"), options: [(text("max-size"), text("1m"))].into() }),
        ports: vec![
            PortConfig {
                name: text(""),
                protocol: Protocol::Udp,
                target_port: 53,
                published_port: 5353,
                mode: PublishMode::Host,
            },
            PortConfig {
                name: text(""),
                protocol: Protocol::Tcp,
                target_port: 80,
                published_port: 0,
                mode: PublishMode::Host,
            },
        ],
        files: vec![crate::FileMount { source: text("/run/x/secrets"), target: text("/run/secrets") }],
    };
    let json = serde_json::to_value(body(&container, OLD).unwrap()).unwrap();
    let host = json!({
        "NanoCpus": 5, "Memory": 6, "PidsLimit": 7, "MemoryReservation": 8, "Init": true,
        "MemorySwap": 10, "MemorySwappiness": 0, "OomScoreAdj": -5, "Privileged": true, "ShmSize": 9,
        "SecurityOpt": ["seccomp=unconfined", "no-new-privileges=true"],
        "Devices": [{"PathOnHost": "/dev/a", "PathInContainer": "/dev/b", "CgroupPermissions": "r"}],
        "DeviceRequests": [{"Count": -1, "Capabilities": [["gpu"]]}],
        "ReadonlyRootfs": true, "GroupAdd": ["g2"], "ExtraHosts": ["a:1.2.3.4", "b:1.2.3.4", "c:::1"],
        "Dns": ["9.9.9.9"], "DnsSearch": ["x"], "DnsOptions": ["o"], "Sysctls": {"net.x": "1"},
        "CapAdd": ["CAP_NET_ADMIN"], "CapDrop": ["ALL"],
        "Mounts": [{"Type": "bind", "Source": "/run/x/secrets", "Target": "/run/secrets", "ReadOnly": true}],
        "Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}],
        "LogConfig": {"Type": "json-file", "Config": {"max-size": "1m"}},
        "RestartPolicy": {"Name": "no"},
        "PortBindings": {"53/udp": [{"HostPort": "5353"}], "80/tcp": [{"HostPort": ""}]},
    });
    let health = json!({"Test": ["CMD", "true"], "Interval": 1_000_000_000_i64, "Retries": 3});
    assert_eq!(
        json,
        json!({
            "AttachStdin": false, "AttachStdout": false, "AttachStderr": false,
            "Image": "web:1", "Tty": true, "OpenStdin": true, "Hostname": "h", "User": "u:g", "Env": ["A=1"],
            "Entrypoint": ["/bin/sh"], "Cmd": ["-c", "true"], "WorkingDir": "/d",
            "Labels": {"mine": "1", "com.docker.swarm.task.id": "x"},
            "StopSignal": "SIGINT", "StopTimeout": 2,
            "ExposedPorts": {"53/udp": {}, "80/tcp": {}},
            "Healthcheck": health, "HostConfig": host,
        })
    );
}

#[test]
fn mounts_keep_the_options_of_their_kind() {
    let bind = Mount { bind_propagation: text("rshared"), bind_non_recursive: true, ..a_mount(MountKind::Bind) };
    let read_only = Mount {
        bind_create_mountpoint: true,
        bind_read_only_non_recursive: true,
        bind_read_only_force_recursive: true,
        ..a_mount(MountKind::Bind)
    };
    let image = Mount { image_subpath: text("usr/share"), ..a_mount(MountKind::Image) };
    let volume = Mount {
        volume_no_copy: true,
        volume_labels: [(text("l"), text("1"))].into(),
        volume_driver: text("local"),
        volume_driver_opts: [(text("type"), text("nfs"))].into(),
        volume_subpath: text("sub"),
        ..a_mount(MountKind::Volume)
    };
    let tmpfs = Mount {
        source: String::new(),
        tmpfs_size_bytes: 1 << 20,
        tmpfs_mode: 0o700,
        tmpfs_options: vec![vec![text("exec")], vec![text("uid"), text("7")]],
        ..a_mount(MountKind::Tmpfs)
    };
    let json =
        json_of(ContainerSpec { mounts: vec![bind, read_only, volume, tmpfs, image], ..ContainerSpec::default() });
    assert_eq!(
        json["HostConfig"]["Mounts"],
        json!([
            {"Type": "bind", "Source": "src", "Target": "/dst", "ReadOnly": true,
             "BindOptions": {"Propagation": "rshared", "NonRecursive": true}},
            {"Type": "bind", "Source": "src", "Target": "/dst", "ReadOnly": true,
             "BindOptions": {"CreateMountpoint": true, "ReadOnlyNonRecursive": true, "ReadOnlyForceRecursive": true}},
            {"Type": "volume", "Source": "src", "Target": "/dst", "ReadOnly": true,
             "VolumeOptions": {"NoCopy": true, "Labels": {"l": "1"}, "Subpath": "sub",
                               "DriverConfig": {"Name": "local", "Options": {"type": "nfs"}}}},
            {"Type": "tmpfs", "Target": "/dst", "ReadOnly": true,
             "TmpfsOptions": {"SizeBytes": 1_048_576, "Mode": 0o700, "Options": [["exec"], ["uid", "7"]]}},
            {"Type": "image", "Source": "src", "Target": "/dst", "ReadOnly": true, "ImageOptions": {"Subpath": "usr/share"}},
        ])
    );
}

#[test]
fn what_an_old_engine_would_drop_is_refused() {
    let bind = || a_mount(MountKind::Bind);
    let mounts = [
        (Mount { volume_subpath: text("s"), ..a_mount(MountKind::Volume) }, "a path inside a volume needs", "1.45"),
        (Mount { bind_create_mountpoint: true, ..bind() }, "a bind mount that makes its path needs", "1.42"),
        (Mount { bind_read_only_non_recursive: true, ..bind() }, "read-only by itself only needs", "1.44"),
        (Mount { bind_read_only_force_recursive: true, ..bind() }, "read-only with all below it needs", "1.44"),
        (Mount { tmpfs_options: vec![vec![text("exec")]], ..a_mount(MountKind::Tmpfs) }, "tmpfs with options", "1.46"),
        (a_mount(MountKind::Image), "a mount of an image needs", "1.48"),
    ];
    let with = |mount| ContainerSpec { mounts: vec![mount], ..ContainerSpec::default() };
    let check = Healthcheck { start_interval: Some(Duration::from_secs(1)), ..Healthcheck::default() };
    let check = ContainerSpec { healthcheck: Some(check), ..ContainerSpec::default() };
    let cases = mounts.into_iter().map(|(mount, says, needs)| (with(mount), says, needs));
    for (spec, says, needs) in cases.chain([(check, "start interval needs", "1.44")]) {
        let container = NewContainer { spec, ..NewContainer::default() };
        let Err(EngineError::Refused(message)) = body(&container, OLD) else { panic!("not refused: {says}") };
        assert!(message.contains(says) && message.contains(needs) && message.contains("1.41"), "{message}");
        assert!(body(&container, NEW).is_ok());
    }
}

#[test]
fn privileges_become_the_security_options_of_docker_run() {
    let selinux = SeLinux { disable: true, user: text("u"), role: text("r"), kind: text("t"), level: text("l") };
    let seccomp = |seccomp| Privileges { seccomp: Some(seccomp), ..Privileges::default() };
    let apparmor = |apparmor| Privileges { apparmor: Some(apparmor), ..Privileges::default() };
    for (privileges, options) in [
        (Privileges::default(), json!(null)),
        (seccomp(Seccomp::Default), json!(null)),
        (apparmor(AppArmor::Default), json!(null)),
        (seccomp(Seccomp::Unconfined), json!(["seccomp=unconfined"])),
        (seccomp(Seccomp::Custom(text("{\"a\":1}"))), json!(["seccomp={\"a\":1}"])),
        (apparmor(AppArmor::Disabled), json!(["apparmor=unconfined"])),
        (Privileges { no_new_privileges: true, ..Privileges::default() }, json!(["no-new-privileges=true"])),
        (
            Privileges { selinux: Some(selinux), ..Privileges::default() },
            json!(["label=disable", "label=user:u", "label=role:r", "label=level:l", "label=type:t"]),
        ),
    ] {
        let json = json_of(ContainerSpec { privileges: Some(privileges), ..ContainerSpec::default() });
        assert_eq!(json["HostConfig"]["SecurityOpt"], options);
    }
}

#[test]
fn swap_is_added_to_a_memory_limit() {
    for (memory, swap, sum) in [
        (0, None, json!(null)),
        (0, Some(5), json!(null)),
        (100, None, json!(null)),
        (100, Some(5), json!(105)),
        (100, Some(0), json!(100)),
        (100, Some(-1), json!(-1)),
        (i64::MAX, Some(1), json!(i64::MAX)),
    ] {
        let limits = Limits { memory_bytes: memory, ..Limits::default() };
        let container = NewContainer { limits, swap_bytes: swap, ..NewContainer::default() };
        let json = serde_json::to_value(body(&container, NEW).unwrap()).unwrap();
        assert_eq!(json["HostConfig"]["MemorySwap"], sum, "{memory} {swap:?}");
    }
}

#[test]
fn gpus_are_asked_for_as_the_cli_does() {
    for (gpus, request) in [
        (Gpus::All, json!({"Count": -1, "Capabilities": [["gpu"]]})),
        (Gpus::Count(2), json!({"Count": 2, "Capabilities": [["gpu"]]})),
        (Gpus::Ids(vec![text("a")]), json!({"DeviceIDs": ["a"], "Capabilities": [["gpu"]]})),
    ] {
        let host_access = HostAccess { gpus: Some(gpus), ..HostAccess::default() };
        let json = json_of(ContainerSpec { host_access, ..ContainerSpec::default() });
        assert_eq!(json["HostConfig"]["DeviceRequests"], json!([request]));
    }
}

#[test]
fn an_unknown_propagation_is_refused_in_dockers_words() {
    let bind = Mount { bind_propagation: text("sideways"), ..a_mount(MountKind::Bind) };
    let container = NewContainer {
        spec: ContainerSpec { mounts: vec![bind], ..ContainerSpec::default() },
        ..NewContainer::default()
    };
    assert_eq!(body(&container, NEW).unwrap_err().to_string(), "invalid propagation mode: sideways");
}

#[test]
fn options_without_a_log_driver_are_for_the_engine_s_own() {
    let options = [(text("max-size"), text("1m"))].into();
    for (driver, shown) in [
        (LogDriver { name: String::new(), options }, json!({"Config": {"max-size": "1m"}})),
        (LogDriver { name: text("none"), ..LogDriver::default() }, json!({"Type": "none"})),
        (LogDriver::default(), json!(null)),
    ] {
        let container = NewContainer { log_driver: Some(driver), ..NewContainer::default() };
        let json = serde_json::to_value(body(&container, NEW).unwrap()).unwrap();
        assert_eq!(json["HostConfig"]["LogConfig"], shown);
    }
}
