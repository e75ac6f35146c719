//! `/secrets` and `/configs` through HTTP, and what services have of them.

mod support;

use base64::Engine as _;
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use serde_json::{Value, json};
use support::{Answer, World, escape, manager, minimal};

/// What must never be seen again once it was sent.
const MARKER: &str = "hunter2-marker";
const RPC: &str = "rpc error: code = InvalidArgument desc =";

fn base64(bytes: impl AsRef<[u8]>) -> String {
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn spec(name: &str, data: impl AsRef<[u8]>) -> Value {
    json!({"Name": name, "Labels": {}, "Data": base64(data)})
}

/// Creates one and returns its id. `kind` is `secrets` or `configs`.
async fn create(world: &World, kind: &str, name: &str, data: &str) -> String {
    let reply = world.post(&format!("/{kind}/create"), &spec(name, data)).await.ok(201);
    reply.json()["ID"].as_str().expect("an id").to_owned()
}

async fn update(world: &World, kind: &str, name: &str, version: u64, spec: &Value) -> Answer {
    world.post(&format!("/{kind}/{name}/update?version={version}"), spec).await
}

/// The version of the data that is handed out now.
async fn data_version(world: &World, name: &str) -> u64 {
    use store::StoreClient as _;
    world.store.local().secret_named(&name.parse().expect("a name")).expect("a secret").data_version
}

fn secret_file(id: &str, name: &str, target: &str) -> Value {
    json!({"SecretID": id, "SecretName": name, "File": {"Name": target, "UID": "33", "GID": "44", "Mode": 0o400}})
}

fn config_file(id: &str, name: &str, target: &str) -> Value {
    json!({"ConfigID": id, "ConfigName": name, "File": {"Name": target, "UID": "0", "GID": "0", "Mode": 0o444}})
}

fn using(name: &str, secrets: Value, configs: Value) -> Value {
    let mut spec = minimal(name, 1);
    spec["TaskTemplate"]["ContainerSpec"]["Secrets"] = secrets;
    spec["TaskTemplate"]["ContainerSpec"]["Configs"] = configs;
    spec
}

#[tokio::test]
async fn they_are_created_and_echoed_as_docker_does_without_a_secrets_data() {
    let world = manager().await;
    let sent = json!({"Name": "db", "Labels": {"a": "1"}, "Data": base64(MARKER), "Templating": {"Name": "golang"}});
    for (kind, data) in [("secrets", None), ("configs", Some(base64(MARKER)))] {
        let created = world.post(&format!("/v1.47/{kind}/create"), &sent).await.ok(201).json();
        let id = created["ID"].as_str().expect("an id");
        assert_eq!(created, json!({"ID": id}));
        let mut want = json!({"Name": "db", "Labels": {"a": "1"}, "Templating": {"Name": "golang"}});
        if let Some(data) = data {
            want["Data"] = data.into();
        }
        let got = world.get(&format!("/{kind}/db")).await.ok(200).json();
        let (at, version) = ("2023-11-14T22:13:20Z", &got["Version"]);
        assert_eq!(got, json!({"ID": id, "Version": version, "CreatedAt": at, "UpdatedAt": at, "Spec": want}));
        assert_eq!(world.get(&format!("/{kind}")).await.ok(200).json(), json!([got]));
        assert_eq!(world.get(&format!("/{kind}/{id}")).await.ok(200).json(), got);
        assert_eq!(world.get(&format!("/{kind}/{}", &id[..6])).await.ok(200).json(), got);
    }
    let plain = world.post("/secrets/create", &json!({"Name": "x", "Labels": null, "Data": "eA=="})).await.ok(201);
    let id = plain.json()["ID"].as_str().expect("an id").to_owned();
    assert_eq!(world.get(&format!("/secrets/{id}")).await.json()["Spec"], json!({"Name": "x", "Labels": {}}));
}

#[tokio::test]
async fn what_cannot_be_created_is_refused_in_dockers_words() {
    let world = manager().await;
    let name = format!(
        "{RPC} invalid name, only 64 [a-zA-Z0-9-_.] characters allowed, and the start and end character must be [a-zA-Z0-9]"
    );
    let label = |value: &str| json!({"Name": "a", "Labels": {"swarmlite.update": value}, "Data": "eA=="});
    for (kind, end) in [("secret", 512_000), ("config", 1_024_000)] {
        let size = format!("{RPC} {kind} data must be larger than 0 and less than {end} bytes");
        let path = format!("/{kind}s/create");
        for (sent, says) in [
            (spec("", "x"), format!("{RPC} name must be provided")),
            (spec("-a", "x"), name.clone()),
            (spec("a/b", "x"), name.clone()),
            (spec(&"a".repeat(65), "x"), name.clone()),
            (spec("a", ""), size.clone()),
            (json!({"Name": "a"}), size.clone()),
            (spec("a", vec![0; end]), size.clone()),
            (
                json!({"Name": "a", "Data": "eA==", "Templating": {"Name": "jinja"}}),
                format!("{RPC} unrecognized template driver \"jinja\": use golang"),
            ),
            (
                json!({"Name": "a", "Data": base64("a\n{{if .X}}"), "Templating": {"Name": "golang"}}),
                format!("{RPC} {}", model::Template::parse(b"a\n{{if .X}}").unwrap_err()),
            ),
            (
                label("explode"),
                format!(
                    "{RPC} invalid value \"explode\" of the label swarmlite.update: give roll, keep, signal, or signal:<name> such as signal:SIGUSR1"
                ),
            ),
        ] {
            world.post(&path, &sent).await.is(400, &says);
        }
        world.post(&path, &spec("a", vec![0; end - 1])).await.ok(201);
        let taken = format!("rpc error: code = AlreadyExists desc = {kind} a already exists");
        world.post(&path, &spec("a", "x")).await.is(409, &taken);
        world
            .post(
                &path,
                &label("signal:SIGUSR1")
                    .as_object_mut()
                    .map(|o| {
                        o["Name"] = "b".into();
                        json!(o)
                    })
                    .expect("an object"),
            )
            .await
            .ok(201);
        for (method, rest) in [("GET", ""), ("DELETE", ""), ("POST", "/update?version=1")] {
            let path = format!("/{kind}s/none{rest}");
            world.call(method, &path, Some(&json!({"Name": "none"}))).await.is(404, &format!("{kind} none not found"));
        }
        let broken = world.post(&path, &json!({"Name": "c", "Data": "hunter2*"})).await;
        assert!(broken.status == 400 && !broken.message().contains("hunter2"), "{}", broken.message());
    }
    let driver = |d: Value| json!({"Name": "c", "Driver": d});
    world.post("/secrets/create", &driver(json!({}))).await.is(400, &format!("{RPC} secret driver must have a name"));
    let reply = world.post("/secrets/create", &driver(json!({"Name": "vault"}))).await;
    assert!(reply.status == 400 && reply.message().starts_with("Driver is not supported"), "{}", reply.message());
}

#[tokio::test]
async fn old_versions_of_the_api_do_not_know_them() {
    let world = manager().await;
    for (path, status) in
        [("/v1.24/secrets", 404), ("/v1.25/secrets", 200), ("/v1.29/configs", 404), ("/v1.30/configs", 200)]
    {
        world.get(path).await.ok(status);
    }
    let sent = json!({"Name": "a", "Data": "eA==", "Templating": {"Name": "golang"}});
    let says = "config templating is not supported on the specified API version: 1.36";
    world.post("/v1.36/configs/create", &sent).await.is(400, says);
    world.post("/v1.37/configs/create", &sent).await.ok(201);
}

#[tokio::test]
async fn lists_are_filtered_and_prefixes_found() {
    let world = manager().await;
    let mut ids = Vec::new();
    for (name, label) in [("db", "a"), ("db-2", "b"), ("web", "a")] {
        let sent = json!({"Name": name, "Labels": {label: "1"}, "Data": "eA=="});
        ids.push(world.post("/configs/create", &sent).await.ok(201).json()["ID"].as_str().expect("an id").to_owned());
    }
    let first_id = json!({"id": [&ids[0][..10]]});
    for (filters, names) in [
        (json!({"name": ["db"]}), &["db", "db-2"][..]),
        (json!({"names": {"db": true}}), &["db"]),
        (json!({"label": ["a"]}), &["db", "web"]),
        (json!({"label": ["a=1"], "name": ["w"]}), &["web"]),
        (first_id, &["db"]),
        (json!({"name": ["nobody"]}), &[]),
    ] {
        let found = world.get(&format!("/configs?filters={}", escape(&filters.to_string()))).await.ok(200).json();
        let mut found: Vec<&str> =
            found.as_array().expect("a list").iter().filter_map(|c| c["Spec"]["Name"].as_str()).collect();
        found.sort_unstable();
        assert_eq!(found, names, "{filters}");
    }
    for kind in ["secrets", "configs"] {
        world.get(&format!("/{kind}?filters={}", escape(r#"{"what":["x"]}"#))).await.is(400, "invalid filter 'what'");
    }
    // Of two ids of 25 characters with one beginning, neither is meant.
    let common = ids[0].bytes().zip(ids[1].bytes()).take_while(|(a, b)| a == b).count();
    let what = &ids[0][..common];
    if !what.is_empty() && ids.iter().filter(|id| id.starts_with(what)).count() == 2 {
        world.get(&format!("/configs/{what}")).await.is(400, &format!("config {what} is ambiguous (2 matches found)"));
    }
}

#[tokio::test]
async fn labels_are_updated_and_names_are_not() {
    let world = manager().await;
    for kind in ["secrets", "configs"] {
        let one = kind.trim_end_matches('s');
        let id = create(&world, kind, "db", "one").await;
        let version = world.version_of(&format!("/{kind}/db")).await;
        let labels = json!({"Name": "db", "Labels": {"b": "2"}});
        update(&world, kind, &id, version, &labels).await.ok(200);
        let now = world.get(&format!("/{kind}/db")).await.json();
        assert_eq!(now["Spec"]["Labels"], json!({"b": "2"}));
        assert_eq!(now["Spec"].get("Data"), (kind == "configs").then(|| json!(base64("one"))).as_ref());
        update(&world, kind, "db", version, &labels)
            .await
            .is(500, "rpc error: code = Unknown desc = update out of sequence");
        let version = world.version_of(&format!("/{kind}/db")).await;
        let only_labels = format!("{RPC} only updates to Labels are allowed");
        update(&world, kind, "db", version, &json!({"Name": "other"})).await.is(400, &only_labels);
        let template = json!({"Name": "db", "Templating": {"Name": "golang"}});
        update(&world, kind, "db", version, &template).await.is(400, &only_labels);
        let reply = world.post(&format!("/{kind}/db/update"), &labels).await;
        reply.is(400, &format!("invalid {one} version '': strconv.ParseUint: parsing \"\": invalid syntax"));
        let wrong = json!({"Name": "db", "Labels": {"swarmlite.update": "x"}});
        assert_eq!(update(&world, kind, "db", version, &wrong).await.status, 400);
        assert_eq!(world.version_of(&format!("/{kind}/db")).await, version);
    }
}

#[tokio::test]
async fn data_is_updated_in_place_and_the_same_data_is_no_update() {
    let world = manager().await;
    let id = create(&world, "secrets", "db", "one").await;
    for (data, version) in [("one", 1), ("two", 2), ("two", 2), ("one", 3)] {
        let now = world.version_of("/secrets/db").await;
        update(&world, "secrets", "db", now, &spec("db", data)).await.ok(200);
        assert_eq!(data_version(&world, "db").await, version, "{data}");
    }
    assert_eq!(world.get("/secrets/db").await.json()["ID"], json!(id));
    let now = world.version_of("/secrets/db").await;
    let size = format!("{RPC} secret data must be larger than 0 and less than 512000 bytes");
    update(&world, "secrets", "db", now, &spec("db", vec![0; 512_000])).await.is(400, &size);
    create(&world, "configs", "site", "one").await;
    let now = world.version_of("/configs/site").await;
    update(&world, "configs", "site", now, &spec("site", "two")).await.ok(200);
    assert_eq!(world.get("/configs/site").await.json()["Spec"]["Data"], json!(base64("two")));
}

#[tokio::test]
async fn versions_of_data_are_bounded() {
    let world = manager().await;
    create(&world, "secrets", "db", "0").await;
    // Nobody prunes here, so every version stays.
    for n in 1..model::limits::DATA_VERSIONS_MAX {
        let now = world.version_of("/secrets/db").await;
        update(&world, "secrets", "db", now, &spec("db", n.to_string())).await.ok(200);
    }
    let now = world.version_of("/secrets/db").await;
    let reply = update(&world, "secrets", "db", now, &spec("db", "one more")).await;
    let says = "rpc error: code = FailedPrecondition desc = secret db has 16 versions of its data in use";
    assert!(reply.status == 400 && reply.message().starts_with(says), "{}", reply.message());
    update(&world, "secrets", "db", now, &json!({"Name": "db", "Labels": {"still": "works"}})).await.ok(200);
}

#[tokio::test]
async fn all_data_together_is_bounded() {
    use store::StoreClient as _;
    let world = manager().await;
    create(&world, "secrets", "db", "x").await;
    let largest: std::sync::Arc<[u8]> = vec![b'x'; model::limits::CONFIG_BYTES_END - 1].into();
    for n in 0..131_usize {
        let spec = model::ConfigSpec {
            name: format!("c{n}").parse().expect("a name"),
            labels: Default::default(),
            templating: None,
        };
        let data = model::Data::of_config(largest.clone()).expect("not too large");
        let mut tx = store::Transaction::new(model::Timestamp(1));
        control::grants::create_config(&mut tx, support::id('g', n).parse().expect("an id"), spec, data);
        world.store.propose(tx).await.expect("room");
    }
    let says = "rpc error: code = FailedPrecondition desc = the secrets and configs of the swarm hold 134143870 bytes, and can \
                hold 134217728 together: remove some that no service uses";
    let large = "y".repeat(100_000);
    world.post("/secrets/create", &spec("more", &large)).await.is(400, says);
    let now = world.version_of("/secrets/db").await;
    update(&world, "secrets", "db", now, &spec("db", &large)).await.is(400, says);
    // What is small still fits, and no data is no more data.
    update(&world, "secrets", "db", now, &json!({"Name": "db", "Labels": {"a": "b"}})).await.ok(200);
    create(&world, "secrets", "small", "y").await;
}

#[tokio::test]
async fn a_service_is_given_what_is_there_and_it_comes_back_as_it_was_sent() {
    let world = manager().await;
    let (secret, config) = (create(&world, "secrets", "db", "x").await, create(&world, "configs", "site", "y").await);
    let secrets = json!([secret_file(&secret, "db", "pw"), secret_file(&secret, "db", "/etc/pw")]);
    let mut runtime = config_file(&config, "site", "");
    runtime.as_object_mut().expect("an object").remove("File");
    runtime["Runtime"] = json!({});
    let configs = json!([config_file(&config, "site", "/etc/site.conf"), runtime]);
    world.post("/services/create", &using("web", secrets.clone(), configs.clone())).await.ok(201);
    let back = world.get("/services/web").await.json()["Spec"]["TaskTemplate"]["ContainerSpec"].clone();
    assert_eq!((&back["Secrets"], &back["Configs"]), (&secrets, &configs));
    // And it is taken as it came: what Portainer and `service update` do.
    let whole = world.get("/services/web?insertDefaults=true").await.json();
    let version = whole["Version"]["Index"].as_u64().expect("a version");
    world.post(&format!("/services/web/update?version={version}"), &whole["Spec"]).await.ok(200);
}

#[tokio::test]
async fn wrong_references_are_refused_in_dockers_words_and_nothing_is_made() {
    let world = manager().await;
    let (s, c) = (create(&world, "secrets", "db", "x").await, create(&world, "configs", "site", "y").await);
    let none = "n".repeat(25);
    let edit = |mut v: Value, pointer: &str, to: Value| {
        *v.pointer_mut(pointer).expect("a place") = to;
        v
    };
    let one = || secret_file(&s, "db", "pw");
    let conf = || config_file(&c, "site", "/etc/x");
    for (secrets, configs, says) in [
        (json!([{"SecretName": "db"}]), json!([]), "malformed secret reference"),
        (json!([edit(one(), "/SecretName", "".into())]), json!([]), "malformed secret reference"),
        (json!([edit(one(), "/File", Value::Null)]), json!([]), "malformed secret reference, no target provided"),
        (
            json!([secret_file(&s, "db", "")]),
            json!([]),
            "malformed file secret reference, invalid target file name provided",
        ),
        (json!([one(), one()]), json!([]), "secret references 'db' and 'db' have a conflicting target: 'pw'"),
        (json!([secret_file(&none, "db", "pw")]), json!([]), "secret not found: db"),
        (json!([secret_file("x", "db", "pw")]), json!([]), "secret not found: db"),
        (json!([secret_file(&s, "other", "pw")]), json!([]), "secret not found: other"),
        (json!([secret_file(&none, "a", "a"), secret_file(&s, "b", "b")]), json!([]), "secrets not found: a, b"),
        (json!([]), json!([{"ConfigID": c}]), "malformed config reference"),
        (json!([]), json!([config_file(&none, "site", "/x")]), "config not found: site"),
        (
            json!([]),
            json!([config_file(&c, "site", "")]),
            "malformed file config reference, invalid target file name provided",
        ),
        (json!([]), json!([conf(), conf()]), "config references 'site' and 'site' have a conflicting target: '/etc/x'"),
        (
            json!([edit(one(), "/File/UID", "root".into())]),
            json!([]),
            "invalid UID \"root\" of secret 'db': it must be a number",
        ),
        (json!([edit(one(), "/File/Mode", 0o10_000.into())]), json!([]), "invalid file mode 0o10000: at most 0o7777"),
    ] {
        world.post("/services/create", &using("web", secrets, configs)).await.is(400, &format!("{RPC} {says}"));
    }
    for (reference, says) in [
        (json!({"ConfigID": c, "ConfigName": "site"}), "either File or Runtime should be set"),
        (
            edit(conf(), "/File/Mode", 1.into())
                .as_object_mut()
                .map(|o| {
                    o.insert("Runtime".into(), json!({}));
                    json!(o)
                })
                .expect("an object"),
            "cannot specify both File and Runtime",
        ),
    ] {
        world.post("/services/create", &using("web", json!([]), json!([reference]))).await.is(400, says);
    }
    assert_eq!(world.get("/services").await.json(), json!([]));
}

/// Point 23 of the attack list: a target that climbs out of where secrets are put, or covers what is not the user's.
#[tokio::test]
async fn attack_23_a_target_that_climbs_out_is_refused_at_the_api() {
    let world = manager().await;
    let s = create(&world, "secrets", "db", "x").await;
    let long = "x".repeat(2000);
    for target in [
        "../escape",
        "a/../../b",
        "..",
        ".",
        "/",
        "/../etc/passwd",
        "a//b",
        "a/",
        "a\u{0}b",
        "a\nb",
        "/proc/1/mem",
        "/run/secrets",
        &long,
    ] {
        let reply =
            world.post("/services/create", &using("web", json!([secret_file(&s, "db", target)]), json!([]))).await;
        assert!(reply.status == 400 && reply.message().contains("invalid target"), "{target:?}: {}", reply.message());
    }
    assert_eq!(world.get("/services").await.json(), json!([]));
}

#[tokio::test]
async fn what_is_in_use_cannot_be_removed() {
    let world = manager().await;
    for kind in ["secrets", "configs"] {
        let one = kind.trim_end_matches('s');
        let id = create(&world, kind, "db", "x").await;
        for name in ["web", "api"] {
            let spec = match kind {
                "secrets" => using(name, json!([secret_file(&id, "db", "pw")]), json!([])),
                _ => using(name, json!([]), json!([config_file(&id, "db", "/x")])),
            };
            world.post("/services/create", &spec).await.ok(201);
        }
        let reply = world.delete(&format!("/{kind}/db")).await.ok(400).message();
        let start = format!("{RPC} {one} 'db' is in use by the following services: ");
        let mut services: Vec<&str> = reply.strip_prefix(&start).expect(&reply).split(", ").collect();
        services.sort_unstable();
        assert_eq!(services, ["api", "web"]);
        world.delete("/services/api").await.ok(200);
        let says = format!("{RPC} {one} 'db' is in use by the following service: web");
        world.delete(&format!("/{kind}/{id}")).await.is(400, &says);
        // Taken away from the service, it can go; and the service cannot go back to it.
        let version = world.version_of("/services/web").await;
        world.post(&format!("/services/web/update?version={version}"), &minimal("web", 1)).await.ok(200);
        assert!(world.delete(&format!("/{kind}/db")).await.ok(204).body.is_empty());
        let version = world.version_of("/services/web").await;
        let rollback = format!("/services/web/update?version={version}&rollback=previous");
        let says = format!("{RPC} {one} not found: db");
        world.post(&rollback, &minimal("web", 1)).await.is(400, &says);
        world.delete("/services/web").await.ok(200);
        world.get(&format!("/{kind}/db")).await.is(404, &format!("{one} db not found"));
    }
}

#[tokio::test]
async fn a_service_says_only_what_can_be_done_with_new_data() {
    let world = manager().await;
    let mut spec = minimal("web", 1);
    spec["Labels"] = json!({"swarmlite.update": "restart"});
    let reply = world.post("/services/create", &spec).await.ok(400);
    assert!(reply.message().contains("invalid value \"restart\" of the label swarmlite.update"), "{}", reply.message());
    spec["Labels"] = json!({"swarmlite.update": "signal"});
    world.post("/services/create", &spec).await.ok(201);
}

#[tokio::test]
async fn events_name_them_and_never_show_their_data() {
    let world = manager().await;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(hyper_util::rt::TokioIo::new(world.connect()))
        .await
        .expect("a connection");
    world.tasks.spawn("client", async move { drop(connection.await) });
    let filters = escape(r#"{"type":["secret","config"]}"#);
    let request = http::Request::get(format!("/events?filters={filters}"));
    let request = request.body(http_body_util::Full::<bytes::Bytes>::default()).expect("a request");
    let mut events = sender.send_request(request).await.expect("a reply").into_body();
    for kind in ["secrets", "configs"] {
        let one = kind.trim_end_matches('s');
        let id = create(&world, kind, "db", MARKER).await;
        let version = world.version_of(&format!("/{kind}/db")).await;
        update(&world, kind, "db", version, &spec("db", format!("{MARKER}2"))).await.ok(200);
        world.delete(&format!("/{kind}/db")).await.ok(204);
        for action in ["create", "update", "remove"] {
            let line = events.frame().await.expect("more").expect("no error").into_data().expect("data");
            let text = String::from_utf8(line.to_vec()).expect("text");
            assert!(!text.contains(MARKER) && !text.contains(&base64(MARKER)), "{text}");
            let event: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(
                (&event["Type"], &event["Action"], &event["Actor"], &event["scope"]),
                (&json!(one), &json!(action), &json!({"ID": id, "Attributes": {"name": "db"}}), &json!("swarm"))
            );
        }
    }
}

/// Point 24 of the attack list, at the API: whatever is asked of it, a secret's data is in no answer.
#[tokio::test]
async fn attack_24_no_answer_has_a_secrets_data() {
    let world = manager().await;
    let id = create(&world, "secrets", "db", MARKER).await;
    world.post("/services/create", &using("web", json!([secret_file(&id, "db", "pw")]), json!([]))).await.ok(201);
    let version = world.version_of("/secrets/db").await;
    let answers = [
        world.get("/secrets").await,
        world.get("/secrets/db").await,
        world.get(&format!("/secrets/{id}?data=1&insertDefaults=true")).await,
        world.get("/configs").await,
        world.get("/services").await,
        world.get("/services/web?insertDefaults=true").await,
        world.get("/tasks").await,
        world.get("/info").await,
        world.get("/swarm").await,
        world.post("/secrets/create", &spec("db", MARKER)).await,
        world.post("/secrets/create", &spec("-", MARKER)).await,
        world.post("/secrets/create", &json!({"Name": MARKER, "Data": {"x": MARKER}})).await,
        update(&world, "secrets", "db", version + 9, &spec("db", MARKER)).await,
        update(&world, "secrets", "db", version, &spec("other", MARKER)).await,
        world.delete("/secrets/db").await,
    ];
    for answer in answers {
        let text = String::from_utf8_lossy(&answer.body);
        assert!(!text.contains(MARKER) && !text.contains(&base64(MARKER)), "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn noise_in_a_reference_makes_one_service_or_none(target in ".{0,24}", uid in "[-0-9a-z ]{0,12}", mode in any::<u32>(), id in "[a-z0-9/.]{0,26}") {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let world = manager().await;
            let real = create(&world, "secrets", "db", "x").await;
            for id in [id, real] {
                let mut reference = secret_file(&id, "db", &target);
                reference["File"]["UID"] = uid.clone().into();
                reference["File"]["Mode"] = mode.into();
                let reply = world.post("/services/create", &using("web", json!([reference]), json!([]))).await;
                let made = world.get("/services").await.json().as_array().expect("a list").len();
                match reply.status.as_u16() {
                    201 => assert_eq!(made, 1),
                    400 => assert!(made == 0 && !reply.message().is_empty()),
                    other => panic!("{other}: {}", reply.message()),
                }
            }
        });
    }
}
