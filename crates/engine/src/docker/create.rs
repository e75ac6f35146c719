//! Our container in Docker's terms, as Docker Swarm's executor maps it (moby daemon/cluster/executor/container).

use crate::{EngineError, NewContainer};
use bollard::ClientVersion;
use bollard::models::{
    ContainerCreateBody, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountBindOptions,
    MountBindOptionsPropagationEnum as Propagation, MountTmpfsOptions, MountType, MountVolumeOptions,
    MountVolumeOptionsDriverConfig, PortBinding, PortMap, ResourcesUlimits, RestartPolicy, RestartPolicyNameEnum,
};
use model::{Healthcheck, MountKind, PortConfig, Protocol};
use std::collections::BTreeMap;
use std::time::Duration;

/// The body of the create call. What this engine's API version would silently drop is refused.
pub(super) fn body(container: &NewContainer, version: ClientVersion) -> Result<ContainerCreateBody, EngineError> {
    let spec = &container.spec;
    refuse_unknown(container, version)?;
    let mut labels = spec.labels.clone();
    labels.extend(container.labels.clone());
    let (exposed, bindings) = ports(&container.ports);
    let mut host = host_config(container)?;
    host.port_bindings = bindings;
    Ok(ContainerCreateBody {
        hostname: some(&spec.hostname),
        user: some(&spec.user),
        attach_stdin: Some(false),
        attach_stdout: Some(false),
        attach_stderr: Some(false),
        exposed_ports: exposed,
        tty: Some(spec.tty),
        open_stdin: Some(spec.open_stdin),
        env: some_list(&spec.env),
        entrypoint: some_list(&spec.command),
        cmd: some_list(&spec.args),
        healthcheck: spec.healthcheck.as_ref().map(health),
        image: Some(spec.image.clone()),
        working_dir: some(&spec.dir),
        labels: Some(labels.into_iter().collect()),
        stop_signal: some(&spec.stop_signal),
        stop_timeout: spec.stop_grace_period.map(seconds_up),
        host_config: Some(host),
        ..ContainerCreateBody::default()
    })
}

fn host_config(container: &NewContainer) -> Result<HostConfig, EngineError> {
    let spec = &container.spec;
    let dns = spec.dns.clone().unwrap_or_default();
    let log = container.log_driver.as_ref().filter(|l| !l.name.is_empty());
    let ulimits: Vec<ResourcesUlimits> = spec
        .ulimits
        .iter()
        .map(|u| ResourcesUlimits { name: Some(u.name.clone()), soft: Some(u.soft), hard: Some(u.hard) })
        .collect();
    Ok(HostConfig {
        nano_cpus: positive(container.limits.nano_cpus),
        memory: positive(container.limits.memory_bytes),
        memory_reservation: positive(container.memory_reservation_bytes),
        pids_limit: positive(container.limits.pids),
        ulimits: some_list(&ulimits),
        init: spec.init,
        readonly_rootfs: Some(spec.read_only),
        group_add: some_list(&spec.groups),
        extra_hosts: some_list(&extra_hosts(&spec.hosts)),
        dns: some_list(&dns.nameservers),
        dns_search: some_list(&dns.search),
        dns_options: some_list(&dns.options),
        sysctls: some_map(&spec.sysctls).map(|m| m.into_iter().collect()),
        cap_add: some_list(&spec.cap_add),
        cap_drop: some_list(&spec.cap_drop),
        mounts: some_list(&mounts(container)?),
        log_config: log.map(|l| HostConfigLogConfig {
            typ: Some(l.name.clone()),
            config: some_map(&l.options).map(|m| m.into_iter().collect()),
        }),
        // Whether it runs again is for the cluster to say, never for the engine.
        restart_policy: Some(RestartPolicy { name: Some(RestartPolicyNameEnum::NO), maximum_retry_count: None }),
        ..HostConfig::default()
    })
}

fn refuse_unknown(container: &NewContainer, version: ClientVersion) -> Result<(), EngineError> {
    let spec = &container.spec;
    let start_interval = spec.healthcheck.as_ref().is_some_and(|h| h.start_interval.is_some());
    let subpath = spec.mounts.iter().any(|m| !m.volume_subpath.is_empty());
    for (wanted, what, minor) in
        [(start_interval, "a health check's start interval", 44), (subpath, "a path inside a volume", 45)]
    {
        let needed = ClientVersion { major_version: 1, minor_version: minor };
        if wanted && version < needed {
            return Err(EngineError::Refused(format!(
                "{what} needs an engine with API version {needed}; this one has {version}"
            )));
        }
    }
    Ok(())
}

/// `IP name [name…]` lines as Docker's `name:IP`.
fn extra_hosts(lines: &[String]) -> Vec<String> {
    let split = |line: &String| {
        let mut words = line.split_whitespace().map(str::to_owned);
        let ip = words.next().unwrap_or_default();
        words.map(move |name| format!("{name}:{ip}")).collect::<Vec<_>>()
    };
    lines.iter().flat_map(split).collect()
}

fn health(check: &Healthcheck) -> HealthConfig {
    let ns = |d: Option<Duration>| d.map(|d| i64::try_from(d.as_nanos()).unwrap_or(i64::MAX));
    HealthConfig {
        test: some_list(&check.test),
        interval: ns(check.interval),
        timeout: ns(check.timeout),
        retries: check.retries,
        start_period: ns(check.start_period),
        start_interval: ns(check.start_interval),
    }
}

fn mounts(container: &NewContainer) -> Result<Vec<Mount>, EngineError> {
    let asked: Result<Vec<Mount>, EngineError> = container.spec.mounts.iter().map(mount).collect();
    let files = container.files.iter().map(|file| Mount {
        typ: Some(MountType::BIND),
        source: Some(file.source.clone()),
        target: Some(file.target.clone()),
        read_only: Some(true),
        ..Mount::default()
    });
    Ok(asked?.into_iter().chain(files).collect())
}

fn mount(mount: &model::Mount) -> Result<Mount, EngineError> {
    let mut out = Mount {
        target: Some(mount.target.clone()),
        source: some(&mount.source),
        read_only: Some(mount.read_only),
        consistency: some(&mount.consistency),
        ..Mount::default()
    };
    match mount.kind {
        MountKind::Bind => {
            out.typ = Some(MountType::BIND);
            let propagation = propagation(&mount.bind_propagation)?;
            if propagation.is_some() || mount.bind_non_recursive {
                let non_recursive = mount.bind_non_recursive.then_some(true);
                out.bind_options = Some(MountBindOptions { propagation, non_recursive, ..Default::default() });
            }
        }
        MountKind::Volume => {
            out.typ = Some(MountType::VOLUME);
            out.volume_options = Some(MountVolumeOptions {
                no_copy: mount.volume_no_copy.then_some(true),
                labels: some_map(&mount.volume_labels).map(|m| m.into_iter().collect()),
                driver_config: driver(mount),
                subpath: some(&mount.volume_subpath),
            });
        }
        MountKind::Tmpfs => {
            out.typ = Some(MountType::TMPFS);
            out.tmpfs_options = Some(MountTmpfsOptions {
                size_bytes: positive(mount.tmpfs_size_bytes),
                mode: positive(i64::from(mount.tmpfs_mode)),
                options: None,
            });
        }
    }
    Ok(out)
}

fn driver(mount: &model::Mount) -> Option<MountVolumeOptionsDriverConfig> {
    let options = some_map(&mount.volume_driver_opts).map(|m| m.into_iter().collect());
    let name = some(&mount.volume_driver);
    (name.is_some() || options.is_some()).then_some(MountVolumeOptionsDriverConfig { name, options })
}

fn propagation(word: &str) -> Result<Option<Propagation>, EngineError> {
    Ok(Some(match word {
        "" => return Ok(None),
        "private" => Propagation::PRIVATE,
        "rprivate" => Propagation::RPRIVATE,
        "shared" => Propagation::SHARED,
        "rshared" => Propagation::RSHARED,
        "slave" => Propagation::SLAVE,
        "rslave" => Propagation::RSLAVE,
        other => return Err(EngineError::Refused(format!("invalid propagation mode: {other}"))),
    }))
}

fn ports(ports: &[PortConfig]) -> (Option<Vec<String>>, Option<PortMap>) {
    let mut bindings: BTreeMap<String, Option<Vec<PortBinding>>> = BTreeMap::new();
    for port in ports {
        let protocol = match port.protocol {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        };
        // An empty host port lets the engine choose.
        let host_port = if port.published_port == 0 { String::new() } else { port.published_port.to_string() };
        let binding = PortBinding { host_ip: None, host_port: Some(host_port) };
        bindings
            .entry(format!("{}/{protocol}", port.target_port))
            .or_default()
            .get_or_insert_with(Vec::new)
            .push(binding);
    }
    if bindings.is_empty() {
        return (None, None);
    }
    (Some(bindings.keys().cloned().collect()), Some(bindings.into_iter().collect()))
}

fn some(text: &str) -> Option<String> {
    (!text.is_empty()).then(|| text.to_owned())
}

fn some_list<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}

fn some_map(map: &BTreeMap<String, String>) -> Option<BTreeMap<String, String>> {
    (!map.is_empty()).then(|| map.clone())
}

fn positive(number: i64) -> Option<i64> {
    (number > 0).then_some(number)
}

fn seconds_up(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis().div_ceil(1000)).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::{ContainerSpec, DnsConfig, Limits, LogDriver, PublishMode, Ulimit};
    use serde_json::json;

    const NEW: ClientVersion = ClientVersion { major_version: 1, minor_version: 53 };
    const OLD: ClientVersion = ClientVersion { major_version: 1, minor_version: 41 };

    fn text(s: &str) -> String {
        s.to_owned()
    }

    fn a_mount(kind: MountKind) -> model::Mount {
        model::Mount {
            kind,
            source: text("src"),
            target: text("/dst"),
            read_only: true,
            consistency: String::new(),
            bind_propagation: String::new(),
            bind_non_recursive: false,
            volume_no_copy: false,
            volume_labels: BTreeMap::new(),
            volume_driver: String::new(),
            volume_driver_opts: BTreeMap::new(),
            volume_subpath: String::new(),
            tmpfs_size_bytes: 0,
            tmpfs_mode: 0,
        }
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
            },
            labels: [(text("com.docker.swarm.task.id"), text("x"))].into(),
            limits: Limits { nano_cpus: 5, memory_bytes: 6, pids: 7 },
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
        let bind =
            model::Mount { bind_propagation: text("rshared"), bind_non_recursive: true, ..a_mount(MountKind::Bind) };
        let volume = model::Mount {
            volume_no_copy: true,
            volume_labels: [(text("l"), text("1"))].into(),
            volume_driver: text("local"),
            volume_driver_opts: [(text("type"), text("nfs"))].into(),
            volume_subpath: text("sub"),
            ..a_mount(MountKind::Volume)
        };
        let tmpfs = model::Mount {
            source: String::new(),
            tmpfs_size_bytes: 1 << 20,
            tmpfs_mode: 0o700,
            ..a_mount(MountKind::Tmpfs)
        };
        let json = json_of(ContainerSpec { mounts: vec![bind, volume, tmpfs], ..ContainerSpec::default() });
        assert_eq!(
            json["HostConfig"]["Mounts"],
            json!([
                {"Type": "bind", "Source": "src", "Target": "/dst", "ReadOnly": true,
                 "BindOptions": {"Propagation": "rshared", "NonRecursive": true}},
                {"Type": "volume", "Source": "src", "Target": "/dst", "ReadOnly": true,
                 "VolumeOptions": {"NoCopy": true, "Labels": {"l": "1"}, "Subpath": "sub",
                                   "DriverConfig": {"Name": "local", "Options": {"type": "nfs"}}}},
                {"Type": "tmpfs", "Target": "/dst", "ReadOnly": true, "TmpfsOptions": {"SizeBytes": 1_048_576, "Mode": 0o700}},
            ])
        );
    }

    #[test]
    fn what_an_old_engine_would_drop_is_refused() {
        let subpath = model::Mount { volume_subpath: text("s"), ..a_mount(MountKind::Volume) };
        let check = Healthcheck { start_interval: Some(Duration::from_secs(1)), ..Healthcheck::default() };
        for (spec, says) in [
            (ContainerSpec { mounts: vec![subpath], ..ContainerSpec::default() }, "a path inside a volume needs"),
            (ContainerSpec { healthcheck: Some(check), ..ContainerSpec::default() }, "start interval needs"),
        ] {
            let container = NewContainer { spec, ..NewContainer::default() };
            let Err(EngineError::Refused(message)) = body(&container, OLD) else { panic!("not refused") };
            assert!(message.contains(says) && message.contains("1.41"), "{message}");
            assert!(body(&container, NEW).is_ok());
        }
    }

    #[test]
    fn an_unknown_propagation_is_refused_in_dockers_words() {
        let bind = model::Mount { bind_propagation: text("sideways"), ..a_mount(MountKind::Bind) };
        let container = NewContainer {
            spec: ContainerSpec { mounts: vec![bind], ..ContainerSpec::default() },
            ..NewContainer::default()
        };
        assert_eq!(body(&container, NEW).unwrap_err().to_string(), "invalid propagation mode: sideways");
    }
}
