//! The fields of a service's spec, one by one: what they become when they are shown again, what is refused, and what clients of
//! older versions of the API have of them.

mod support;

use serde_json::{Value, json};
use support::{World, manager, minimal};

const INVALID: &str = "rpc error: code = InvalidArgument desc = ";
const UNKNOWN: &str = "rpc error: code = Unknown desc = ";

/// A small service with one more thing in it, at a path such as `/TaskTemplate/Placement`.
fn with(path: &str, value: Value) -> Value {
    let mut spec = minimal("web", 1);
    let (parent, key) = path.rsplit_once('/').expect("a path");
    spec.pointer_mut(parent).expect("the parent")[key] = value;
    spec
}

fn in_container(field: &str, value: Value) -> Value {
    with(&format!("/TaskTemplate/ContainerSpec/{field}"), value)
}

/// Creates the service, and shows what is at the path then.
async fn shown(world: &World, api: &str, spec: &Value, path: &str) -> Value {
    world.post(&format!("{api}/services/create"), spec).await.ok(201);
    let back = world.get("/services/web").await.ok(200).json();
    world.delete("/services/web").await.ok(200);
    back["Spec"].pointer(path).cloned().unwrap_or(Value::Null)
}

#[tokio::test]
async fn a_mode_has_its_defaults_filled_in() {
    let world = manager().await;
    for (mode, back) in [
        (json!({}), json!({"Replicated": {"Replicas": 1}})),
        (json!({"Replicated": {}}), json!({"Replicated": {"Replicas": 1}})),
        (json!({"Replicated": {"Replicas": 0}}), json!({"Replicated": {"Replicas": 0}})),
        (json!({"Global": {}}), json!({"Global": {}})),
        (json!({"GlobalJob": {}}), json!({"GlobalJob": {}})),
        (json!({"ReplicatedJob": {}}), json!({"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 1}})),
        (
            json!({"ReplicatedJob": {"MaxConcurrent": 3}}),
            json!({"ReplicatedJob": {"MaxConcurrent": 3, "TotalCompletions": 3}}),
        ),
        (
            json!({"ReplicatedJob": {"TotalCompletions": 5}}),
            json!({"ReplicatedJob": {"MaxConcurrent": 1, "TotalCompletions": 5}}),
        ),
        (
            json!({"ReplicatedJob": {"MaxConcurrent": 0, "TotalCompletions": 5}}),
            json!({"ReplicatedJob": {"MaxConcurrent": 0, "TotalCompletions": 5}}),
        ),
    ] {
        assert_eq!(shown(&world, "", &with("/Mode", mode.clone()), "/Mode").await, back, "{mode}");
    }
}

#[tokio::test]
async fn a_field_is_shown_as_docker_shows_it() {
    let world = manager().await;
    let default_privileges = json!({"CredentialSpec": null, "SELinuxContext": null, "NoNewPrivileges": false});
    for (path, sent, back) in [
        ("/TaskTemplate/ContainerSpec/Privileges", json!({}), default_privileges.clone()),
        (
            "/TaskTemplate/ContainerSpec/Privileges",
            json!({"Seccomp": {"Mode": "unconfined"}, "AppArmor": {}}),
            json!({"CredentialSpec": null, "SELinuxContext": null, "Seccomp": {"Mode": "unconfined"}, "AppArmor": {"Mode": "default"}, "NoNewPrivileges": false}),
        ),
        (
            "/TaskTemplate/ContainerSpec/Mounts",
            json!([{"Source": "/a", "Target": "/a", "BindOptions": {"NonRecursive": true}}]),
            json!([{"Type": "bind", "Source": "/a", "Target": "/a", "BindOptions": {"NonRecursive": true, "Propagation": "rprivate"}}]),
        ),
        (
            "/TaskTemplate/ContainerSpec/Mounts",
            json!([{"Type": "VOLUME", "Source": "v", "Target": "/a"}]),
            json!([{"Type": "volume", "Source": "v", "Target": "/a"}]),
        ),
        ("/TaskTemplate/ContainerSpec/Isolation", json!("Default"), json!("default")),
        (
            "/TaskTemplate/Placement",
            json!({"Preferences": [{"Spread": {"SpreadDescriptor": "x"}}, {}]}),
            json!({"Preferences": [{"Spread": {"SpreadDescriptor": "x"}}]}),
        ),
        ("/TaskTemplate/Resources", json!({}), json!({})),
        ("/TaskTemplate/RestartPolicy", json!({}), json!({"Condition": "any", "MaxAttempts": 0})),
        ("/TaskTemplate/LogDriver", json!({}), json!({})),
    ] {
        assert_eq!(shown(&world, "", &with(path, sent.clone()), path).await, back, "{path}: {sent}");
    }
}

#[tokio::test]
async fn what_is_wrong_is_refused_in_dockers_words() {
    let world = manager().await;
    let placement = |constraint: &str| with("/TaskTemplate/Placement", json!({"Constraints": [constraint]}));
    let job = |field: &str, value: Value| {
        let mut spec = with("/Mode", json!({"GlobalJob": {}}));
        spec[field] = value;
        spec
    };
    let generic =
        |resource: Value| with("/TaskTemplate/Resources", json!({"Reservations": {"GenericResources": [resource]}}));
    let mount = |mount: Value| in_container("Mounts", json!([mount]));
    for (spec, status, text) in [
        (with("/Mode", json!({"Global": {}, "Replicated": {}})), 400, "must specify only one service mode".to_owned()),
        (
            with("/Mode", json!({"Replicated": {"Replicas": (1_u64 << 63) + 1}})),
            400,
            format!("{INVALID}Number of replicas must be non-negative"),
        ),
        (
            with("/Mode", json!({"ReplicatedJob": {"MaxConcurrent": u64::MAX}})),
            400,
            format!("{INVALID}Maximum concurrent jobs must not be negative"),
        ),
        (
            with("/Mode", json!({"ReplicatedJob": {"TotalCompletions": u64::MAX}})),
            400,
            format!("{INVALID}Total completed jobs must not be negative"),
        ),
        (job("UpdateConfig", json!({})), 400, format!("{INVALID}Jobs may not have an update config")),
        // SwarmKit's parser of constraints forgets to say what kind of error it is.
        (placement("disk"), 500, format!("{UNKNOWN}constraint expected one operator from ==, !=")),
        (placement("node.labels.a b==c"), 500, format!("{UNKNOWN}key 'node.labels.a b' is invalid")),
        (placement("node.role==a,b"), 500, format!("{UNKNOWN}value 'a,b' is invalid")),
        (
            with("/TaskTemplate/Placement", json!({"Constraints": vec!["node.id==a"; 65]})),
            400,
            format!("{INVALID}65 placement constraints are too many: at most 64 are accepted for one service"),
        ),
        (
            generic(json!({"NamedResourceSpec": {"Kind": "GPU", "Value": "a"}})),
            400,
            format!(
                "{INVALID}invalid generic-resource request `GPU=a`, Named Generic Resources is not supported for service create or update"
            ),
        ),
        (
            generic(json!({"DiscreteResourceSpec": {"Kind": "GPU", "Value": -1}})),
            400,
            format!(
                "{INVALID}invalid generic-resource request `GPU=-1`: it needs a kind, and a number that is not negative"
            ),
        ),
        (
            with("/TaskTemplate/Resources", json!({"SwapBytes": 1})),
            400,
            format!("{INVALID}a swap limit works together with a memory limit only: give Limits.MemoryBytes"),
        ),
        (
            with("/TaskTemplate/Resources", json!({"MemorySwappiness": 101})),
            400,
            format!("{INVALID}invalid value: 101, valid memory swappiness range is 0-100"),
        ),
        (in_container("Isolation", json!("hyperv")), 400, "invalid isolation \"hyperv\" on linux".into()),
        (
            in_container("OomScoreAdj", json!(1001)),
            400,
            "invalid value 1001, range for oom score adj is [-1000, 1000]".into(),
        ),
        (
            in_container("Privileges", json!({"AppArmor": {"Mode": "x"}})),
            400,
            "invalid Privileges.AppArmor: unknown mode \"x\": use default or disabled".into(),
        ),
        (
            in_container("Privileges", json!({"Seccomp": {"Mode": "custom", "Profile": "eA=="}})),
            400,
            "invalid Privileges.Seccomp: the mode custom needs a profile: a JSON object in the engine's format, in base64"
                .into(),
        ),
        (
            mount(json!({"Type": "image", "Target": "/a"})),
            400,
            format!("{INVALID}invalid mount config for type \"image\": field Source must not be empty"),
        ),
        (
            mount(json!({"Type": "image", "Source": "a", "Target": "/a", "ImageOptions": {"Subpath": "../x"}})),
            400,
            format!(
                "{INVALID}invalid mount config for type \"image\": subpath must be a relative path within the image"
            ),
        ),
        (
            mount(json!({"Type": "tmpfs", "Target": "/a", "TmpfsOptions": {"Options": [["suid"]]}})),
            400,
            format!("{INVALID}invalid mount config for type \"tmpfs\": invalid option: suid"),
        ),
        (
            mount(json!({"Type": "tmpfs", "Target": "/a", "BindOptions": {}})),
            400,
            format!("{INVALID}invalid mount config for type \"tmpfs\": field BindOptions must not be specified"),
        ),
    ] {
        world.post("/services/create", &spec).await.is(status, &text);
    }
    assert_eq!(world.get("/services").await.json(), json!([]));
}

#[tokio::test]
async fn templates_are_looked_at_before_any_task_is_given_one() {
    let world = manager().await;
    let labelled = |hostname: &str| {
        let mut spec = in_container("Hostname", json!(hostname));
        spec["Labels"] = json!({"zone": "a"});
        spec
    };
    for spec in [
        in_container("Hostname", json!("{{.Service.Name}}-{{.Task.Slot}}")),
        in_container("Env", json!(["A={{.Node.Platform.OS}}", "B={{index .Service.Labels \"none\"}}"])),
        in_container("Mounts", json!([{"Type": "volume", "Source": "{{.Node.ID}}", "Target": "{{.Task.Name}}"}])),
        labelled("{{.Service.Labels.zone}}"),
    ] {
        world.post("/services/create", &spec).await.ok(201);
        world.delete("/services/web").await.ok(200);
    }
    for (spec, begins) in [
        (in_container("Hostname", json!("{{.Task.Slot")), "expanding hostname failed: the template has an action"),
        (
            in_container("Hostname", json!("{{.Task.Foo}}")),
            "expanding hostname failed: the template uses {{.Task.Foo}}",
        ),
        (
            in_container("Env", json!(["A={{secret \"x\"}}"])),
            "expanding env failed: expanding env \"A\": {{secret \"x\"}} is for the data of secrets",
        ),
        (
            in_container("Mounts", json!([{"Type": "volume", "Source": "{{.X}}", "Target": "/a"}])),
            "expanding mounts failed: expanding mount source \"{{.X}}\": the template uses {{.X}}",
        ),
        (
            in_container(
                "Mounts",
                json!([{"Type": "volume", "Target": "/a", "VolumeOptions": {"DriverConfig": {"Options": {"o": "{{.X}}"}}}}]),
            ),
            "expanding mounts failed: expanding volume driver config: the template uses {{.X}}",
        ),
        (labelled("{{.Service.Labels.rack}}"), "expanding hostname failed: the service has no label \"rack\""),
    ] {
        let reply = world.post("/services/create", &spec).await.ok(400);
        let text = reply.message();
        assert!(text.starts_with(&format!("{INVALID}{begins}")), "{text}");
    }
}

#[tokio::test]
async fn clients_of_older_versions_have_no_newer_fields() {
    let world = manager().await;
    let resources = "/TaskTemplate/Resources";
    let placement = "/TaskTemplate/Placement";
    let swap = json!({"Limits": {"MemoryBytes": 1 << 24}, "SwapBytes": 1, "MemorySwappiness": 2});
    let tmpfs = |options: Value| json!([{"Type": "tmpfs", "Target": "/a", "TmpfsOptions": options}]);
    let privileges =
        json!({"Seccomp": {"Mode": "unconfined"}, "AppArmor": {"Mode": "disabled"}, "NoNewPrivileges": true});
    let no_privileges = json!({"CredentialSpec": null, "SELinuxContext": null, "NoNewPrivileges": false});
    let container = |field: &str| format!("/TaskTemplate/ContainerSpec/{field}");
    for (version, path, sent, back) in [
        ("1.51", resources.to_owned(), swap.clone(), json!({"Limits": {"MemoryBytes": 1 << 24}})),
        ("1.45", container("OomScoreAdj"), json!(5), Value::Null),
        (
            "1.45",
            container("Mounts"),
            tmpfs(json!({"SizeBytes": 5, "Options": [["exec"]]})),
            tmpfs(json!({"SizeBytes": 5})),
        ),
        ("1.43", container("Privileges"), privileges.clone(), no_privileges),
        (
            "1.43",
            container("Healthcheck"),
            json!({"Test": ["NONE"], "StartInterval": 5_000_000_000_u64}),
            json!({"Test": ["NONE"]}),
        ),
        ("1.40", container("CapabilityAdd"), json!(["CAP_CHOWN"]), Value::Null),
        ("1.40", container("CapabilityDrop"), json!(["CAP_CHOWN"]), Value::Null),
        ("1.40", container("Ulimits"), json!([{"Name": "nofile", "Soft": 1, "Hard": 1}]), Value::Null),
        ("1.40", resources.to_owned(), json!({"Limits": {"Pids": 5}}), json!({"Limits": {}})),
        ("1.40", "/Mode".to_owned(), json!({"GlobalJob": {}}), json!({"Replicated": {"Replicas": 1}})),
        ("1.39", container("Sysctls"), json!({"a": "b"}), Value::Null),
        ("1.39", placement.to_owned(), json!({"MaxReplicas": 5}), json!({})),
    ] {
        let spec = with(&path, sent.clone());
        let old = shown(&world, &format!("/v{version}"), &spec, &path).await;
        assert_eq!(old, back, "{version} {path}");
        let new = shown(&world, "/v1.52", &spec, &path).await;
        assert_ne!(new, back, "{path} is there for those who know it");
    }
}
