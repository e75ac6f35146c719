//! Every field of a service's container, from the command line to `docker inspect` of the container on the node's engine.

use super::{BRIEF, contains};
use serde_json::{Value, json};
use std::time::Duration;
use swarmlite_tests::cluster::update_service;
use swarmlite_tests::{Cli, Cluster, Engine, Outcome, image, wait};

/// For a task to be replaced.
const SOON: Duration = Duration::from_secs(60);

/// The flags, and where `docker inspect` shows what they say.
fn flags(port: u16) -> Vec<(Vec<String>, &'static str, Value)> {
    let publish = format!("mode=host,target=80,published={port}");
    let publish: &[&str] = &["--publish", &publish];
    let mounted = json!([
        {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20}},
        {"Type": "volume", "Source": "fields-1", "Target": "/v", "VolumeOptions": {"Labels": {"l": "1"}}},
        {"Type": "bind", "Source": "/tmp", "Target": "/b", "ReadOnly": true, "BindOptions": {"Propagation": "rprivate"}}
    ]);
    let table: Vec<(&[&str], &str, Value)> = vec![
        (&["--hostname", "{{.Service.Name}}-{{.Task.Slot}}"], "/Config/Hostname", json!("fields-1")),
        (&["--container-label", "c=d"], "/Config/Labels/c", json!("d")),
        (&["--workdir", "/tmp"], "/Config/WorkingDir", json!("/tmp")),
        (&["--user", "5:6"], "/Config/User", json!("5:6")),
        (&["--group", "7"], "/HostConfig/GroupAdd", json!(["7"])),
        (&["--init"], "/HostConfig/Init", json!(true)),
        (&["--stop-signal", "SIGINT"], "/Config/StopSignal", json!("SIGINT")),
        (&["--stop-grace-period", "3s"], "/Config/StopTimeout", json!(3)),
        (&["--read-only"], "/HostConfig/ReadonlyRootfs", json!(true)),
        (&["--host", "a:1.2.3.4"], "/HostConfig/ExtraHosts", json!(["a:1.2.3.4"])),
        (&["--dns", "9.9.9.9"], "/HostConfig/Dns", json!(["9.9.9.9"])),
        (&["--dns-search", "x.test"], "/HostConfig/DnsSearch", json!(["x.test"])),
        (&["--dns-option", "ndots:2"], "/HostConfig/DnsOptions", json!(["ndots:2"])),
        (&["--sysctl", "net.core.somaxconn=77"], "/HostConfig/Sysctls", json!({"net.core.somaxconn": "77"})),
        (&["--cap-add", "NET_ADMIN"], "/HostConfig/CapAdd", json!(["CAP_NET_ADMIN"])),
        (&["--cap-drop", "CHOWN"], "/HostConfig/CapDrop", json!(["CAP_CHOWN"])),
        (&["--ulimit", "nofile=100:200"], "/HostConfig/Ulimits", json!([{"Name": "nofile", "Soft": 100, "Hard": 200}])),
        (&["--limit-cpu", "0.5"], "/HostConfig/NanoCpus", json!(500_000_000)),
        (&["--limit-memory", "64M"], "/HostConfig/Memory", json!(64 << 20)),
        (&["--limit-pids", "33"], "/HostConfig/PidsLimit", json!(33)),
        (&["--mount", "type=tmpfs,target=/t,tmpfs-size=1m"], "/HostConfig/Mounts", mounted),
        (
            &["--mount", "type=volume,source={{.Service.Name}}-{{.Task.Slot}},target=/v,volume-label=l=1"],
            "",
            Value::Null,
        ),
        (&["--mount", "type=bind,source=/tmp,target=/b,readonly,bind-propagation=rprivate"], "", Value::Null),
        (
            &["--log-driver", "json-file", "--log-opt", "max-size=1m"],
            "/HostConfig/LogConfig",
            json!({"Type": "json-file", "Config": {"max-size": "1m"}}),
        ),
        (publish, "/HostConfig/PortBindings/80~1tcp/0/HostPort", json!(port.to_string())),
        (&["--tty"], "/Config/Tty", json!(true)),
    ];
    table.into_iter().map(|(f, at, shown)| (f.iter().map(|f| (*f).to_owned()).collect(), at, shown)).collect()
}

/// The service's one running container, as `docker inspect` shows it.
async fn container(engine: &Engine, cluster: &Cluster, good: impl Fn(&Value) -> Result<(), String>) -> Outcome<Value> {
    wait::until("the container is as asked for", SOON, || async {
        let tasks = cluster.nodes[0].api().get("/tasks").await?;
        let running = tasks
            .as_array()
            .into_iter()
            .flatten()
            .find(|task| task["DesiredState"] == "running" && task["Status"]["State"] == "running");
        let id = running.and_then(|task| task["Status"]["ContainerStatus"]["ContainerID"].as_str());
        let id = id.ok_or_else(|| tasks.to_string())?;
        let found = engine.api.get(&format!("/containers/{id}/json")).await?;
        good(&found).map(|()| found)
    })
    .await
}

fn differences(found: &Value, shown: &[(&str, Value)]) -> Result<(), String> {
    let at = |pointer: &str| found.pointer(pointer).cloned().unwrap_or_default();
    let wrong = shown.iter().filter(|(pointer, expected)| at(pointer) != *expected);
    let wrong: Vec<String> = wrong.map(|(pointer, v)| format!("{pointer} is {}, not {v}", at(pointer))).collect();
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// For `with_both!`.
pub(super) async fn story(cli: &Cli, cluster: &mut Cluster) -> Outcome<()> {
    let (one, engine) = (&cluster.nodes[0], cluster.engine.clone().ok_or("no engine")?);
    let rows = flags(super::free_port()?);
    let node = format!("NODE={}", one.id);
    let mut args = vec!["service", "create", "--no-resolve-image", BRIEF, "--name", "fields", "--label", "zone=b"];
    args.extend(["--env", "ZONE={{index .Service.Labels \"zone\"}}", "--env", "NODE={{.Node.ID}}"]);
    args.extend(rows.iter().flat_map(|(flags, ..)| flags.iter().map(String::as_str)));
    args.push(image::WEB_1);
    contains(&cli.ok(one, &args).await?, "converged")?;
    let mut shown: Vec<(&str, Value)> = rows.iter().map(|(_, at, shown)| (*at, shown.clone())).collect();
    shown.retain(|(at, _)| !at.is_empty());
    shown.extend([("/Config/Env/0", json!("ZONE=b")), ("/Config/Env/1", json!(node))]);
    container(&engine, cluster, |found| differences(found, &shown)).await?;

    // What the command lines have no flags for, or `docker` has not with an engine as old as Debian's.
    update_service(&one.api(), "fields", |spec| {
        let task = &mut spec["TaskTemplate"];
        task["ContainerSpec"]["Privileges"] = json!({
            "NoNewPrivileges": true, "Seccomp": {"Mode": "unconfined"}, "AppArmor": {"Mode": "disabled"},
            "SELinuxContext": {"Disable": false, "Type": "t"}
        });
        task["ContainerSpec"]["OomScoreAdj"] = json!(300);
        task["Resources"]["SwapBytes"] = json!(16 << 20);
        task["Resources"]["MemorySwappiness"] = json!(7);
    })
    .await
    .map_err(|error| error.to_string())?;
    let options = json!(["label=type:t", "seccomp=unconfined", "apparmor=unconfined", "no-new-privileges=true"]);
    let shown = [
        ("/HostConfig/SecurityOpt", options),
        ("/HostConfig/OomScoreAdj", json!(300)),
        ("/HostConfig/MemorySwap", json!(80 << 20)),
        ("/HostConfig/MemorySwappiness", json!(7)),
    ];
    container(&engine, cluster, |found| differences(found, &shown)).await?;

    let wrong =
        ["service", "create", "--no-resolve-image", "--name", "w", "--hostname", "{{.Task.Sloth}}", image::WEB_1];
    cli.fails(one, &wrong, 1, "expanding hostname failed").await?;
    contains(&cli.ok(one, &["service", "rm", "fields"]).await?, "fields")?;
    // A named volume outlives its containers, as it should; not this test.
    wait::until("the volume is free", SOON, || async {
        engine.api.delete("/volumes/fields-1").await.map_err(|error| error.to_string())
    })
    .await?;
    access_story(cli, cluster, &engine).await
}

/// What Docker's services are not given, by label, once the swarm's policy is open for it; and the swarm's own log driver, on a
/// global service.
async fn access_story(cli: &Cli, cluster: &Cluster, engine: &Engine) -> Outcome<()> {
    let one = &cluster.nodes[0];
    let create = [
        &["service", "create", "--no-resolve-image", "--name", "near", "--mode", "global"][..],
        &["--label", "swarmlite.shm-size=8m", "--label", "swarmlite.devices=/dev/null:/dev/zilch:r", image::WEB_1],
    ]
    .concat();
    cli.fails(one, &create, 1, "swarmlite.policy.").await?;
    let swarm = one.api().get("/swarm").await?;
    let mut spec = swarm["Spec"].clone();
    spec["Labels"] = json!({"swarmlite.policy.devices": "/dev/null", "swarmlite.policy.shm-size": "16m"});
    spec["TaskDefaults"] = json!({"LogDriver": {"Name": "json-file", "Options": {"max-size": "2m"}}});
    one.api().post(&format!("/swarm/update?version={}", swarm["Version"]["Index"]), &spec).await?;
    contains(&cli.ok(one, &create).await?, "converged")?;
    let shown = [
        ("/HostConfig/ShmSize", json!(8 << 20)),
        (
            "/HostConfig/Devices",
            json!([{"PathOnHost": "/dev/null", "PathInContainer": "/dev/zilch", "CgroupPermissions": "r"}]),
        ),
        ("/HostConfig/LogConfig", json!({"Type": "json-file", "Config": {"max-size": "2m"}})),
    ];
    let found = container(engine, cluster, |found| differences(found, &shown)).await?;
    contains(found["Name"].as_str().unwrap_or_default(), &format!("/near.{}.", one.id))?;
    contains(&cli.ok(one, &["service", "rm", "near"]).await?, "near")
}
