//! Services whose tasks are plugins of the engine. The texts and what is shown were taken from a dockerd 20.10 that runs with
//! `experimental`.

mod support;

use model::{PluginPrivilege, RegistryAuth, TaskState};
use serde_json::{Value, json};
use store::StoreClient as _;
use support::docker::Cli;
use support::{Answer, World, manager, minimal};

const INVALID: &str = "rpc error: code = InvalidArgument desc = ";

fn plugin(name: &str) -> Value {
    json!({
        "Name": name,
        "TaskTemplate": {
            "Runtime": "plugin",
            "PluginSpec": {
                "Name": "net", "Remote": "registry:5000/net:1", "Env": ["A=1"],
                "Privileges": [{"Name": "network", "Description": "d", "Value": ["host"]}]
            }
        },
        "Mode": {"Global": {}}
    })
}

fn with(path: &str, value: Value) -> Value {
    let mut spec = plugin("net");
    let (parent, key) = path.rsplit_once('/').expect("a path");
    spec.pointer_mut(parent).expect("the parent")[key] = value;
    spec
}

async fn update(world: &World, spec: &Value) -> Answer {
    let version = world.version_of("/services/net").await;
    world.post(&format!("/services/net/update?version={version}"), spec).await
}

#[tokio::test]
async fn a_service_of_plugins_comes_back_as_docker_shows_it() {
    let world = manager().await;
    let mut spec = plugin("net");
    // It is one of each node, whether that was said or not.
    spec.as_object_mut().expect("an object").remove("Mode");
    world.post("/services/create", &spec).await.ok(201);
    let back = world.get("/services/net").await.ok(200).json();
    assert_eq!(
        back["Spec"]["TaskTemplate"],
        json!({
            "PluginSpec": {
                "name": "net", "remote": "registry:5000/net:1", "env": ["A=1"],
                "privileges": [{"name": "network", "description": "d", "value": ["host"]}]
            },
            "ForceUpdate": 0, "Runtime": "plugin"
        })
    );
    assert_eq!(back["Spec"]["Mode"], json!({"Global": {}}));
    // What was shown is taken again; defaults are filled in without a container.
    let defaults = world.get("/services/net?insertDefaults=1").await.ok(200).json();
    assert_eq!(defaults["Spec"]["TaskTemplate"]["RestartPolicy"]["Condition"], "any");
    assert!(defaults["Spec"]["TaskTemplate"].get("ContainerSpec").is_none());
    update(&world, &defaults["Spec"]).await.ok(200);
    let kept = world.store.local().services().next().expect("it").clone();
    let kept = kept.spec.task.plugin().expect("a plugin");
    let privilege = PluginPrivilege { name: "network".into(), description: "d".into(), value: vec!["host".into()] };
    assert_eq!((&kept.privileges[..], kept.disabled), (&[privilege][..], false));
}

#[tokio::test]
async fn what_docker_refuses_is_refused_in_its_words() {
    let world = manager().await;
    let mismatched = || "mismatched Runtime and *Spec fields".to_owned();
    let container = json!({"Image": "nginx"});
    let mut both = minimal("web", 1);
    both["TaskTemplate"]["PluginSpec"] = plugin("net")["TaskTemplate"]["PluginSpec"].clone();
    for (spec, says) in [
        (with("/Mode", json!({"Replicated": {"Replicas": 1}})), "plugins must not use replicated mode".to_owned()),
        (with("/Mode", json!({"ReplicatedJob": {}})), "must specify only one service mode".into()),
        (with("/Mode", json!({"GlobalJob": {}})), "must specify only one service mode".into()),
        (with("/TaskTemplate", json!({"Runtime": "plugin"})), mismatched()),
        (with("/TaskTemplate", json!({"Runtime": "plugin", "ContainerSpec": container})), mismatched()),
        (with("/TaskTemplate/ContainerSpec", container.clone()), mismatched()),
        (with("/TaskTemplate/Runtime", json!("")), mismatched()),
        (both, mismatched()),
        (with("/TaskTemplate/Runtime", json!("Plugin")), "unsupported runtime".into()),
        (with("/TaskTemplate/PluginSpec", json!({})), format!("{INVALID}Generic runtime has an empty payload")),
        (
            with("/TaskTemplate/PluginSpec/Remote", json!("A B")),
            format!("{INVALID}PluginSpec: error parsing remote reference \"A B\": invalid reference format"),
        ),
        (
            with("/TaskTemplate/PluginSpec/Name", json!("a@b")),
            format!("{INVALID}PluginSpec: invalid plugin name \"a@b\": invalid reference format"),
        ),
        (
            with("/TaskTemplate/PluginSpec/Env", json!(["A=1", "hunter2"])),
            format!("{INVALID}PluginSpec: entry 1 of Env is not KEY=value"),
        ),
        (
            with("/EndpointSpec", json!({"Ports": [{"TargetPort": 80, "PublishMode": "host"}]})),
            format!("{INVALID}EndpointSpec: a plugin publishes no ports: leave them out"),
        ),
    ] {
        world.post("/services/create", &spec).await.is(400, &says);
    }
    let privileged = with("/Labels", json!({"swarmlite.privileged": "true"}));
    let refused = world.post("/services/create", &privileged).await.ok(400).message();
    assert!(refused.contains("PluginSpec.Privileges"), "{refused}");
    assert_eq!(world.store.local().services().count(), 0);
}

#[tokio::test]
async fn they_are_listed_for_who_asks_for_them() {
    let world = manager().await;
    world.service("web", 1).await;
    world.post("/services/create", &plugin("net")).await.ok(201);
    world.add_task("net", 1, TaskState::Running, TaskState::Running).await;
    world.add_task("web", 2, TaskState::Running, TaskState::Running).await;
    let names = async |path: &str| -> Vec<String> {
        let list = world.get(path).await.ok(200).json();
        let name = |o: &Value| o["Spec"]["Name"].as_str().or(o["ServiceID"].as_str()).expect("one").to_owned();
        list.as_array().expect("a list").iter().map(name).collect()
    };
    let only = |runtime: &str| format!("filters={}", support::escape(&json!({"runtime": [runtime]}).to_string()));
    assert_eq!(names("/services").await, ["web"]);
    assert_eq!(names(&format!("/services?{}", only("container"))).await, ["web"]);
    assert_eq!(names(&format!("/services?{}&status=1", only("plugin"))).await, ["net"]);
    let id = |name: &str| {
        let local = world.store.local();
        local.services().find(|s| s.spec.name.as_str() == name).expect("it").id.to_string()
    };
    assert_eq!(names("/tasks").await, [id("web")]);
    assert_eq!(names(&format!("/tasks?{}", only("plugin"))).await, [id("net")]);
    let task = world.get(&format!("/tasks?{}", only("plugin"))).await.json();
    assert!(task[0]["Spec"]["PluginSpec"].is_object() && task[0]["Spec"].get("ContainerSpec").is_none());
    assert!(task[0]["Spec"].get("Runtime").is_none(), "that is said of services only");
    let no_logs = "error making log selector: logs only supported on container tasks";
    world.get("/services/net/logs?stdout=1").await.is(500, no_logs);
}

#[tokio::test]
async fn credentials_go_with_it_and_are_never_shown() {
    use base64::Engine as _;
    use http_body_util::Full;
    let world = manager().await;
    let auth = base64::engine::general_purpose::URL_SAFE.encode(r#"{"username":"u","password":"hunter2"}"#);
    let request = http::Request::post("/services/create")
        .header("content-type", "application/json")
        .header("x-registry-auth", &auth)
        .body(Full::from(plugin("net").to_string()))
        .expect("a request");
    world.send(request).await.ok(201);
    let kept = || world.store.local().services().next().expect("it").spec.task.registry_auth().cloned();
    assert_eq!(kept(), Some(RegistryAuth(auth.clone())));
    update(&world, &with("/TaskTemplate/PluginSpec/Remote", json!("registry:5000/net:2"))).await.ok(200);
    assert_eq!(kept(), Some(RegistryAuth(auth.clone())), "they stay when none are sent");
    let shown = world.get("/services/net").await.body;
    let shown = String::from_utf8_lossy(&shown);
    assert!(!shown.contains(&auth) && !shown.contains("hunter2"), "{shown}");
    let debug = format!("{:?}", world.store.local().services().next());
    assert!(!debug.contains(&auth), "{debug}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_docker_cli_shows_them() {
    let cli = Cli::start().await;
    cli.world.post("/services/create", &plugin("net")).await.ok(201);
    let row = "--format {{.Name}}|{{.Mode}}|{{.Replicas}}|{{.Image}}|";
    assert_eq!(Cli::good(cli.run(&format!("service ls {row}")).await), "");
    let listed = Cli::good(cli.run(&format!("service ls --filter runtime=plugin {row}")).await);
    assert_eq!(listed.trim(), "net|global|0/0||");
    let remote = Cli::good(cli.run("service inspect net --format {{.Spec.TaskTemplate.PluginSpec.Remote}}").await);
    assert_eq!(remote.trim(), "registry:5000/net:1");
    Cli::good(cli.run("service inspect net").await);
    Cli::good(cli.run("service rm net").await);
    cli.world.tasks.stop();
}
