//! `/services` through HTTP.

mod support;

use serde_json::{Value, json};
use store::StoreClient as _;
use support::{World, escape, manager, minimal};

async fn update(world: &World, id: &str, query: &str, spec: &Value) -> support::Answer {
    world.post(&format!("/v1.47/services/{id}/update?{query}"), spec).await
}

#[tokio::test]
async fn a_service_is_created_and_echoed_as_docker_does() {
    let world = manager().await;
    let created = world.post("/v1.47/services/create", &minimal("web", 3)).await.ok(201);
    let body = created.json();
    assert_eq!(body["Warnings"], Value::Null);
    let id = body["ID"].as_str().expect("an id");
    let service = world.get(&format!("/v1.47/services/{id}")).await.ok(200).json();
    assert_eq!(
        service,
        json!({
            "ID": id, "Version": {"Index": 3},
            "CreatedAt": "2023-11-14T22:13:20Z", "UpdatedAt": "2023-11-14T22:13:20Z",
            "Spec": {
                "Name": "web", "Labels": {},
                "TaskTemplate": {
                    "ContainerSpec": {"Image": "nginx:1.25", "Init": false, "DNSConfig": {}, "Isolation": "default"},
                    "Resources": {"Limits": {}, "Reservations": {}}, "Placement": {}, "ForceUpdate": 0,
                    "Runtime": "container"
                },
                "Mode": {"Replicated": {"Replicas": 3}},
                "EndpointSpec": {"Mode": "vip"}
            },
            "Endpoint": {"Spec": {}}
        })
    );
}

#[tokio::test]
async fn inserted_defaults_are_dockers() {
    let world = manager().await;
    let spec = json!({"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "nginx"}}});
    world.post("/services/create", &spec).await.ok(201);
    let plain = world.get("/services/web").await.json();
    assert_eq!(plain["Spec"]["Mode"], json!({"Replicated": {"Replicas": 1}}));
    assert!(plain["Spec"].get("UpdateConfig").is_none() && plain["Spec"].get("EndpointSpec").is_none());
    let spec = world.get("/services/web?insertDefaults=true").await.json()["Spec"].clone();
    let update = json!({"Parallelism": 1, "FailureAction": "pause", "Monitor": 5_000_000_000_u64, "MaxFailureRatio": 0, "Order": "stop-first"});
    assert_eq!((&spec["UpdateConfig"], &spec["RollbackConfig"]), (&update, &update));
    let task = &spec["TaskTemplate"];
    assert_eq!(task["RestartPolicy"], json!({"Condition": "any", "Delay": 5_000_000_000_u64, "MaxAttempts": 0}));
    assert_eq!((&task["Resources"], &task["Placement"]), (&json!({}), &json!({})));
    assert_eq!(task["ContainerSpec"]["StopGracePeriod"], json!(10_000_000_000_u64));
    assert_eq!(task["ContainerSpec"]["DNSConfig"], json!({}));
}

#[tokio::test]
async fn every_supported_flag_comes_back_as_it_was_sent() {
    let sent: Value = serde_json::from_str(include_str!("data/service_create_all_flags.json")).expect("golden JSON");
    let world = manager().await;
    world.post("/v1.52/services/create", &sent).await.ok(201);
    let mut back = world.get("/v1.52/services/all").await.json()["Spec"].clone();
    // What Docker adds of its own.
    assert_eq!(back["TaskTemplate"]["Runtime"].take(), "container");
    assert_eq!(back["TaskTemplate"]["ContainerSpec"]["Isolation"].take(), "default");
    back["TaskTemplate"].as_object_mut().expect("an object").remove("Runtime");
    back["TaskTemplate"]["ContainerSpec"].as_object_mut().expect("an object").remove("Isolation");
    assert_eq!(back, sent);
}

#[tokio::test]
async fn a_service_without_a_name_gets_one() {
    let world = manager().await;
    for _ in 0..20 {
        let mut spec = minimal("", 1);
        spec.as_object_mut().expect("an object").remove("Name");
        world.post("/services/create", &spec).await.ok(201);
    }
    let all = world.get("/services").await.json();
    let names: std::collections::BTreeSet<&str> =
        all.as_array().expect("a list").iter().filter_map(|s| s["Spec"]["Name"].as_str()).collect();
    assert_eq!(names.len(), 20);
    assert!(names.iter().all(|n| n.contains('_')), "{names:?}");
}

#[tokio::test]
async fn wrong_specs_are_refused_in_dockers_words_and_nothing_is_made() {
    let world = manager().await;
    let with = |pointer: &str, value: Value| {
        let mut spec = minimal("web", 1);
        let (parent, key) = pointer.rsplit_once('/').expect("a pointer");
        spec.pointer_mut(parent).expect("the parent")[key] = value;
        spec
    };
    let invalid = "rpc error: code = InvalidArgument desc = ";
    let container = "/TaskTemplate/ContainerSpec";
    let at = |p: &str| format!("{container}/{p}");
    let long = "x".repeat(64);
    for (spec, status, message) in [
        (with("/Name", json!("a.b")), 400, format!("{invalid}name must be valid as a DNS name component")),
        (with("/Name", json!(long)), 400, format!("{invalid}name must be 63 characters or fewer")),
        (with("/TaskTemplate", json!({})), 400, "mismatched Runtime and *Spec fields".into()),
        (with(&at("Image"), json!("")), 400, format!("{invalid}ContainerSpec: image reference must be provided")),
        (
            with(&at("Image"), json!("No Good")),
            400,
            format!("{invalid}ContainerSpec: \"No Good\" is not a valid repository/tag"),
        ),
        (
            with(&at("Mounts"), json!([{"Type": "tmpfs", "Target": "/a"}, {"Type": "tmpfs", "Target": "/a"}])),
            400,
            format!("{invalid}ContainerSpec: duplicate mount point: /a"),
        ),
        (
            with(&at("Mounts"), json!([{"Type": "bind", "Target": "/a"}])),
            400,
            format!("{invalid}invalid mount config for type \"bind\": field Source must not be empty"),
        ),
        (with(&at("Mounts"), json!([{"Type": "what", "Target": "/a"}])), 400, "invalid MountType: \"what\"".into()),
        (
            with(&at("Healthcheck"), json!({"Interval": 1000})),
            400,
            format!("{invalid}ContainerSpec: Interval in HealthConfig cannot be less than 1ms"),
        ),
        (
            with("/TaskTemplate/Resources", json!({"Limits": {"NanoCPUs": 100}})),
            400,
            format!("{invalid}invalid cpu value 0.0000001: Must be at least 0.001"),
        ),
        (
            with("/TaskTemplate/Resources", json!({"Reservations": {"MemoryBytes": 100}})),
            400,
            format!("{invalid}invalid memory value 100: Must be at least 4MiB"),
        ),
        (
            with("/TaskTemplate/RestartPolicy", json!({"Delay": -1})),
            400,
            format!("{invalid}TaskSpec: restart-delay cannot be negative"),
        ),
        (with("/UpdateConfig", json!({"FailureAction": "x"})), 400, "unrecognized update failure action x".into()),
        (
            with("/UpdateConfig", json!({"MaxFailureRatio": 1.5})),
            400,
            format!("{invalid}TaskSpec: update-maxfailureratio cannot be less than 0 or bigger than 1"),
        ),
        (
            with(
                "/EndpointSpec",
                json!({"Ports": [{"TargetPort": 80, "PublishedPort": 80, "PublishMode": "host"}, {"TargetPort": 81, "PublishedPort": 80, "PublishMode": "host"}]}),
            ),
            400,
            format!("{invalid}EndpointSpec: duplicate published ports provided"),
        ),
        (with("/EndpointSpec", json!({"Mode": "what"})), 400, "invalid resolution mode: \"what\"".into()),
        (
            with("/Mode", json!({"Replicated": {"Replicas": 100_001}})),
            400,
            format!("{invalid}100001 replicas are too many: at most 100000 are accepted for one service"),
        ),
    ] {
        world.post("/services/create", &spec).await.is(status, &message);
    }
    assert_eq!(world.get("/services").await.json(), json!([]));
}

#[tokio::test]
async fn a_field_that_is_not_supported_is_named() {
    let world = manager().await;
    let task = |field: &str, value: Value| {
        let mut spec = minimal("web", 1);
        spec["TaskTemplate"][field] = value;
        spec
    };
    let container = |field: &str, value: Value| {
        let mut spec = minimal("web", 1);
        spec["TaskTemplate"]["ContainerSpec"][field] = value;
        spec
    };
    let top = |field: &str, value: Value| {
        let mut spec = minimal("web", 1);
        spec[field] = value;
        spec
    };
    for (spec, field) in [
        (top("Networks", json!([{"Target": "n"}])), "Networks"),
        (top("EndpointSpec", json!({"Ports": [{"TargetPort": 80, "PublishedPort": 8080}]})), "EndpointSpec.Ports"),
        (task("Networks", json!([{"Target": "n"}])), "TaskTemplate.Networks"),
        (task("Runtime", json!("attachment")), "TaskTemplate.NetworkAttachmentSpec"),
        (task("NetworkAttachmentSpec", json!({"ContainerID": "x"})), "TaskTemplate.NetworkAttachmentSpec"),
        (container("Privileges", json!({"CredentialSpec": {"File": "x"}})), "ContainerSpec.Privileges.CredentialSpec"),
        (container("Mounts", json!([{"Type": "cluster", "Source": "a", "Target": "/b"}])), "ContainerSpec.Mounts.Type"),
        (container("Mounts", json!([{"Type": "npipe", "Source": "a", "Target": "/b"}])), "ContainerSpec.Mounts.Type"),
    ] {
        let reply = world.post("/services/create", &spec).await.ok(400);
        let message = reply.message();
        assert!(
            message.starts_with(field) && message.contains("is not supported by this release"),
            "{field}: {message}"
        );
    }
    assert_eq!(world.get("/services").await.json(), json!([]));
}

#[tokio::test]
async fn what_an_unmodified_client_sends_by_default_is_no_use_of_a_field() {
    let world = manager().await;
    let mut spec = minimal("web", 1);
    spec["TaskTemplate"]["ContainerSpec"]["Privileges"] =
        json!({"CredentialSpec": null, "SELinuxContext": null, "NoNewPrivileges": false});
    spec["TaskTemplate"]["ContainerSpec"]["Init"] = Value::Null;
    spec["TaskTemplate"]["ContainerSpec"]["Secrets"] = json!([]);
    spec["TaskTemplate"]["Networks"] = Value::Null;
    spec["TaskTemplate"]["Placement"] =
        json!({"Platforms": [{"Architecture": "amd64", "OS": "linux"}, {"OS": "linux"}]});
    spec["Labels"] = Value::Null;
    spec["SomethingNew"] = json!({"a": 1});
    world.post("/services/create", &spec).await.ok(201);
    let back = world.get("/services/web").await.json();
    assert_eq!(back["Spec"]["Labels"], json!({}));
    assert_eq!(back["Spec"]["TaskTemplate"]["Placement"], spec["TaskTemplate"]["Placement"]);
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let world = manager().await;
    world.service("web", 1).await;
    world.post("/services/create", &minimal("web", 1)).await.is(
        409,
        "rpc error: code = AlreadyExists desc = name conflicts with an existing object: service web already exists",
    );
}

#[tokio::test]
async fn an_update_needs_the_version_and_keeps_what_was_before() {
    let world = manager().await;
    let id = world.service("web", 1).await;
    let first = world.version_of("/services/web").await;
    let bad = "invalid service version '': strconv.ParseUint: parsing \"\": invalid syntax";
    update(&world, &id, "", &minimal("web", 2)).await.is(400, bad);
    let stale = "rpc error: code = Unknown desc = update out of sequence";
    update(&world, &id, &format!("version={}", first + 1), &minimal("web", 2)).await.is(500, stale);
    let reply = update(&world, "web", &format!("version={first}"), &minimal("web", 2)).await.ok(200);
    assert_eq!(reply.json(), json!({"Warnings": null}));
    update(&world, &id, &format!("version={first}"), &minimal("web", 3)).await.is(500, stale);
    let service = world.get("/services/web").await.json();
    assert_eq!(service["Spec"]["Mode"]["Replicated"]["Replicas"], 2);
    assert_eq!(service["PreviousSpec"]["Mode"]["Replicated"]["Replicas"], 1);
    assert!(service.get("UpdateStatus").is_none());
    assert_ne!(service["Version"]["Index"], first);
}

#[tokio::test]
async fn mode_and_name_stay() {
    let world = manager().await;
    world.service("web", 1).await;
    let version = format!("version={}", world.version_of("/services/web").await);
    let text = "rpc error: code = Unimplemented desc = renaming services is not supported";
    update(&world, "web", &version, &minimal("other", 1)).await.is(501, text);
    update(&world, "none", &version, &minimal("none", 1)).await.is(404, "service none not found");
}

#[tokio::test]
async fn a_rollback_swaps_the_specs() {
    let world = manager().await;
    world.service("web", 1).await;
    let version = world.version_of("/services/web").await;
    let reply =
        update(&world, "web", &format!("version={version}&rollback=previous"), &minimal("web", 1)).await.ok(400);
    assert!(reply.message().ends_with("does not have a previous spec"), "{}", reply.message());
    update(&world, "web", &format!("version={version}"), &minimal("web", 5)).await.ok(200);
    let version = world.version_of("/services/web").await;
    update(&world, "web", &format!("version={version}&rollback=previous"), &minimal("web", 5)).await.ok(200);
    let service = world.get("/services/web").await.json();
    assert_eq!(service["Spec"]["Mode"]["Replicated"]["Replicas"], 1);
    assert_eq!(service["PreviousSpec"]["Mode"]["Replicated"]["Replicas"], 5);
    assert_eq!(service["UpdateStatus"]["State"], "rollback_started");
    assert_eq!(service["UpdateStatus"]["Message"], "manually requested rollback");
    let version = world.version_of("/services/web").await;
    update(&world, "web", &format!("version={version}&rollback=what"), &minimal("web", 5)).await.ok(400);
}

#[tokio::test]
async fn credentials_are_kept_and_never_shown() {
    use base64::Engine as _;
    use model::RegistryAuth;
    let world = manager().await;
    let auth = base64::engine::general_purpose::URL_SAFE.encode(r#"{"username":"u","password":"hunter2"}"#);
    let send = async |path: &str, auth: &str| {
        let body = minimal("web", 1).to_string();
        let request =
            http::Request::post(path).header("content-type", "application/json").header("x-registry-auth", auth);
        world.send(request.body(http_body_util::Full::from(body)).expect("a request")).await
    };
    send("/services/create", "%%%").await.ok(400);
    send("/services/create", &auth).await.ok(201);
    let kept = || {
        use store::StoreClient as _;
        let snapshot = world.store.local();
        let service = snapshot.services().next().expect("the service").clone();
        service.spec.task.container().unwrap().registry_auth.clone()
    };
    assert_eq!(kept(), Some(RegistryAuth(auth.clone())));
    // Without a header the stored ones stay; `{}` says nothing either.
    for header in ["", "e30="] {
        let version = world.version_of("/services/web").await;
        send(&format!("/services/web/update?version={version}"), header).await.ok(200);
        assert_eq!(kept(), Some(RegistryAuth(auth.clone())));
    }
    let shown = world.get("/services").await.body;
    assert!(!String::from_utf8_lossy(&shown).contains(&auth));
}

#[tokio::test]
async fn services_are_found_by_id_name_or_prefix() {
    let world = manager().await;
    let a = world.service("web", 1).await;
    let b = world.service("db", 1).await;
    let prefix: String = a.chars().zip(b.chars()).take_while(|(x, y)| x == y).map(|(x, _)| x).collect();
    for what in [a.as_str(), "web", &a[..=prefix.len()]] {
        assert_eq!(world.get(&format!("/services/{what}")).await.ok(200).json()["ID"], a, "{what}");
    }
    world.get("/services/none").await.is(404, "service none not found");
    world.get("/services/we").await.is(404, "service we not found");
    world.delete("/services/none").await.is(404, "service none not found");
    world.delete("/services/web").await.ok(200);
    world.get("/services/web").await.is(404, "service web not found");
}

#[tokio::test]
async fn lists_are_filtered() {
    let world = manager().await;
    for (name, label) in [("web", "a"), ("web2", "b"), ("db", "a")] {
        let mut spec = minimal(name, 1);
        spec["Labels"] = json!({"tier": label});
        world.post("/services/create", &spec).await.ok(201);
    }
    let names = async |filters: &str| {
        let all = world.get(&format!("/services?filters={}", escape(filters))).await.ok(200).json();
        let mut names: Vec<String> = all
            .as_array()
            .expect("a list")
            .iter()
            .map(|s| s["Spec"]["Name"].as_str().unwrap_or_default().into())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("").await, ["db", "web", "web2"]);
    assert_eq!(names(r#"{"name":{"we":true}}"#).await, ["web", "web2"]);
    assert_eq!(names(r#"{"label":["tier=a"]}"#).await, ["db", "web"]);
    assert_eq!(names(r#"{"mode":["replicated"],"label":["tier"]}"#).await, ["db", "web", "web2"]);
    assert_eq!(names(r#"{"mode":["global"]}"#).await, Vec::<String>::new());
    world.get(&format!("/services?filters={}", escape(r#"{"foo":["x"]}"#))).await.is(400, "invalid filter 'foo'");
    world.get("/services?filters=x").await.is(400, "invalid filter");
}

#[tokio::test]
async fn status_counts_are_there_only_when_asked_for() {
    let world = manager().await;
    world.service("web", 2).await;
    assert!(world.get("/services").await.json()[0].get("ServiceStatus").is_none());
    let status = world.get("/services?status=true").await.json()[0]["ServiceStatus"].clone();
    assert_eq!(status, json!({"RunningTasks": 0, "DesiredTasks": 2, "CompletedTasks": 0}));
}

#[tokio::test]
async fn bodies_that_are_no_json_are_refused() {
    let world = manager().await;
    let send = async |body: &'static str, content_type: &str| {
        let request = http::Request::post("/services/create").header("content-type", content_type);
        world.send(request.body(http_body_util::Full::from(body)).expect("a request")).await
    };
    let reply = send("{", "application/json").await.ok(400);
    assert!(reply.message().starts_with("invalid JSON: "), "{}", reply.message());
    send("{} {}", "application/json").await.is(400, "unexpected content after JSON");
    send("{}", "text/plain").await.is(400, "unsupported Content-Type header (text/plain): must be 'application/json'");
    send("[]", "application/json").await.ok(400);
    send(r#"{"Name": 3}"#, "application/json").await.ok(400);
    let huge = "x".repeat((4 << 20) + 1);
    let request = http::Request::post("/services/create").header("content-type", "application/json");
    let reply = world.send(request.body(http_body_util::Full::from(huge)).expect("a request")).await;
    assert_eq!(reply.status, 413, "{}", reply.message());
    assert_eq!(world.get("/services").await.json(), json!([]));
}

/// What a client that shows services and scales them does: it sends back what it was shown. Nothing may be restarted for that,
/// however little of the spec was ever said.
#[tokio::test]
async fn a_spec_that_is_sent_back_as_shown_is_the_same() {
    let world = manager().await;
    let container = |more: Value| {
        let mut spec = json!({"ContainerSpec": {"Image": "nginx"}});
        spec["ContainerSpec"].as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        spec
    };
    let task = |key: &str, value: Value| {
        let mut spec = container(json!({}));
        spec[key] = value;
        spec
    };
    let templates = [
        container(json!({})),
        container(json!({"Healthcheck": {}})),
        container(json!({"Healthcheck": {"Test": ["CMD", "true"]}})),
        container(json!({"DNSConfig": {}, "Privileges": {}, "Hosts": [], "Env": [], "Labels": {}, "Args": []})),
        container(json!({"Privileges": {"NoNewPrivileges": false, "CredentialSpec": null, "SELinuxContext": null}})),
        container(
            json!({"Mounts": [{"Source": "/a", "Target": "/a"}, {"Type": "tmpfs", "Target": "/b", "TmpfsOptions": {}}]}),
        ),
        container(json!({"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/a", "BindOptions": {}}]})),
        container(
            json!({"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/a", "BindOptions": {"NonRecursive": true}}]}),
        ),
        container(json!({"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/a",
            "BindOptions": {"CreateMountpoint": true, "Propagation": "rprivate"}}]})),
        container(json!({"Mounts": [{"Type": "bind", "Source": "/a", "Target": "/a",
            "BindOptions": {"Propagation": "rprivate"}}]})),
        container(json!({"Mounts": [{"Type": "volume", "Target": "/a", "VolumeOptions": {"DriverConfig": {}}}]})),
        container(json!({"Isolation": "default", "StopGracePeriod": 0, "Init": null, "Sysctls": {}, "Ulimits": []})),
        container(json!({"Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}], "CapabilityAdd": ["NET_ADMIN"]})),
        task("RestartPolicy", json!({})),
        task("RestartPolicy", json!({"Delay": 1_000_000_000})),
        task("RestartPolicy", json!({"Condition": "on-failure", "Window": 0})),
        task("Resources", json!({})),
        task("Resources", json!({"Limits": {}, "Reservations": {}})),
        task("Resources", json!({"Limits": {"Pids": 0}, "SwapBytes": 0, "MemorySwappiness": 0})),
        task("Placement", json!({})),
        task("Placement", json!({"Constraints": [], "Preferences": [], "MaxReplicas": 0, "Platforms": [{}]})),
        task("Placement", json!({"Platforms": [{"Architecture": "amd64", "OS": "linux"}]})),
        task("LogDriver", json!({})),
        task("LogDriver", json!({"Name": "json-file", "Options": {}})),
        task("ForceUpdate", json!(0)),
    ];
    for (n, template) in templates.into_iter().enumerate() {
        let name = format!("s{n}");
        world.post("/v1.52/services/create", &json!({"Name": name, "TaskTemplate": template})).await.ok(201);
        let stored = || {
            let snapshot = world.store.local();
            let service = snapshot.services().find(|service| service.spec.name.as_str() == name);
            service.map(|service| service.spec.task.clone()).expect("it is there")
        };
        let before = stored();
        for query in ["", "?insertDefaults=false"] {
            let shown = world.get(&format!("/v1.52/services/{name}{query}")).await.json();
            let mut spec = shown["Spec"].clone();
            spec["Mode"] = json!({"Replicated": {"Replicas": 7}});
            let path = format!("/v1.52/services/{name}/update?version={}", shown["Version"]["Index"]);
            world.post(&path, &spec).await.ok(200);
            assert_eq!(stored(), before, "{}", shown["Spec"]);
        }
    }
}

/// Older releases stored `any` and no limit as they were said, and left them out where they were not: a service of theirs is
/// scaled without a restart too.
#[tokio::test]
async fn a_restart_policy_is_the_same_in_whichever_form_a_release_stored_it() {
    use model::{RestartCondition, RestartPolicy};
    let world = manager().await;
    let forms = [
        RestartPolicy { condition: Some(RestartCondition::Any), max_attempts: Some(0), ..RestartPolicy::default() },
        RestartPolicy::default(),
    ];
    for (n, form) in forms.into_iter().enumerate() {
        let name = format!("s{n}");
        world.service(&name, 1).await;
        let stored = || {
            let snapshot = world.store.local();
            let service = snapshot.services().find(|service| service.spec.name.as_str() == name).cloned();
            service.expect("it is there")
        };
        let mut old = stored().as_ref().clone();
        std::sync::Arc::make_mut(&mut old.spec.task).restart = Some(form);
        let before = old.spec.task.clone();
        let mut tx = store::Transaction::new(model::Timestamp(1_600_000_000_000_000_000));
        tx.update(old);
        world.store.propose(tx).await.expect("what an older release stored");
        let shown = world.get(&format!("/services/{name}")).await.json();
        let policy = &shown["Spec"]["TaskTemplate"]["RestartPolicy"];
        assert_eq!((&policy["Condition"], &policy["MaxAttempts"]), (&json!("any"), &json!(0)));
        let mut spec = shown["Spec"].clone();
        spec["Mode"] = json!({"Replicated": {"Replicas": 7}});
        let version = async || format!("version={}", world.version_of(&format!("/services/{name}")).await);
        update(&world, &name, &version().await, &spec).await.ok(200);
        assert_eq!(stored().spec.task, before);
        // What differs is a change all the same.
        spec["TaskTemplate"]["RestartPolicy"]["MaxAttempts"] = json!(3);
        update(&world, &name, &version().await, &spec).await.ok(200);
        assert_ne!(stored().spec.task, before);
    }
}
