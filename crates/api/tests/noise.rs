//! Noise at every door: an error of Docker's kind, never a panic, never a half-done change.

mod support;

use proptest::prelude::*;
use serde_json::{Value, json};
use support::{escape, manager};

/// A spec with something wrong (or not) in one place.
fn damaged() -> impl Strategy<Value = Value> {
    let pointers = vec![
        "/Name",
        "/Labels",
        "/TaskTemplate",
        "/TaskTemplate/ContainerSpec",
        "/TaskTemplate/ContainerSpec/Image",
        "/TaskTemplate/Resources",
        "/TaskTemplate/Resources/Limits",
        "/TaskTemplate/Placement",
        "/Mode",
        "/Mode/Replicated",
        "/Mode/Replicated/Replicas",
        "/EndpointSpec",
        "/EndpointSpec/Mode",
    ];
    let values = prop_oneof![
        Just(Value::Null),
        any::<i64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
        Just(json!([])),
        Just(json!([{}])),
        Just(json!({"a": 1})),
        any::<u64>().prop_map(
            |n| json!({"NanoCPUs": n, "MemoryBytes": n, "Ports": [{"TargetPort": n, "PublishMode": "host"}]})
        ),
    ];
    (proptest::sample::select(pointers), values).prop_map(|(pointer, value)| {
        let mut spec = support::minimal("web", 1);
        *spec.pointer_mut(pointer).expect("a place in the spec") = value;
        spec
    })
}

/// The labels of a service that say what Docker has no fields for.
const OF_SERVICES: [&str; 9] = [
    "swarmlite.cron.schedule",
    "swarmlite.cron.timezone",
    "swarmlite.cron.missed-run-window",
    "swarmlite.cron.history",
    "swarmlite.restart.backoff-max",
    "swarmlite.devices",
    "swarmlite.shm-size",
    "swarmlite.gpus",
    "swarmlite.",
];
/// Those of a swarm.
const OF_SWARMS: [&str; 4] =
    ["swarmlite.policy.devices", "swarmlite.policy.shm-size", "swarmlite.autopilot.after", "swarmlite.autopilot"];

/// Something like a value of one of them, or nothing like it.
fn value_like() -> impl Strategy<Value = String> {
    prop_oneof![
        ".{0,16}",
        "[0-9*/,@ -]{0,16}",
        "[0-9]{0,20}[a-zA-Zµ.]{0,4}",
        "/dev/[a-z./:,]{0,16}",
        "device=[a-z0-9,]{0,8}",
        "[A-Z][a-z]{1,8}/[A-Z][a-z_]{1,8}",
    ]
}

fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_spec_makes_one_service_or_none(spec in damaged()) {
        run(async {
            let world = manager().await;
            let reply = world.post("/services/create", &spec).await;
            let made = world.get("/services").await.json().as_array().expect("a list").len();
            match reply.status.as_u16() {
                201 => assert_eq!(made, 1),
                400..=499 => assert!(made == 0 && !reply.message().is_empty()),
                other => panic!("{other}: {}", reply.message()),
            }
        });
    }

    #[test]
    fn noise_in_filters_paths_and_queries_is_a_client_error(filter in ".{0,40}", id in "[^/?#\u{0}-\u{20}\u{7f}]{1,20}", query in "[a-z0-9=&%-]{0,30}") {
        run(async {
            let world = manager().await;
            world.service("web", 1).await;
            for path in [
                format!("/services?filters={}", escape(&filter)),
                format!("/tasks?filters={}", escape(&filter)),
                format!("/nodes?filters={}", escape(&filter)),
                format!("/secrets?filters={}", escape(&filter)),
                format!("/configs?filters={}", escape(&filter)),
                format!("/secrets/{}?{query}", escape(&id)),
                format!("/services/{}", escape(&id)),
                format!("/nodes/{}?{query}", escape(&id)),
                format!("/tasks/{}/logs?stdout=1&{query}", escape(&id)),
                format!("/v{query}/services"),
            ] {
                let Ok(uri) = path.parse::<http::Uri>() else { continue };
                let reply = world.get(&uri.to_string()).await;
                let status = reply.status.as_u16();
                assert!(matches!(status, 200 | 400..=499 | 501), "{path}: {status} {}", reply.message());
            }
        });
    }

    #[test]
    fn noise_in_labels_of_ours_is_read_or_refused(
        of_service in proptest::sample::select(&OF_SERVICES[..]),
        of_swarm in proptest::sample::select(&OF_SWARMS[..]),
        value in value_like(),
    ) {
        run(async {
            let world = manager().await;
            let mut spec = support::minimal("web", 1);
            spec["Mode"] = json!({"ReplicatedJob": {}});
            spec["Labels"] = json!({"swarmlite.cron.schedule": "@daily", of_service: value});
            let reply = world.post("/services/create", &spec).await;
            let status = reply.status.as_u16();
            assert!(matches!(status, 201 | 400 | 403), "{of_service}={value:?}: {status} {}", reply.message());
            let swarm = world.get("/swarm").await.json();
            let mut spec = swarm["Spec"].clone();
            spec["Labels"] = json!({of_swarm: value});
            let reply = world.post(&format!("/swarm/update?version={}", swarm["Version"]["Index"]), &spec).await;
            let status = reply.status.as_u16();
            let kept = world.get("/swarm").await.json()["Spec"]["Labels"].clone();
            match status {
                200 => assert_eq!(kept, spec["Labels"]),
                400 => assert_eq!(kept, json!({}), "{}", reply.message()),
                other => panic!("{of_swarm}={value:?}: {other} {}", reply.message()),
            }
        });
    }

    #[test]
    fn noise_in_constraints_and_templates_is_read_or_refused(text in "[a-z.=! {}\"|-]{0,24}", around in 0..3_usize) {
        run(async {
            let world = manager().await;
            let text = [text.clone(), format!("node.labels.{text}==a"), format!("{{{{{text}}}}}")][around].clone();
            let mut spec = support::minimal("web", 1);
            spec["TaskTemplate"]["Placement"] = json!({"Constraints": [text]});
            let reply = world.post("/services/create", &spec).await;
            // As in Docker, a constraint that is none is an error without a kind.
            assert!(matches!(reply.status.as_u16(), 201 | 500), "{text:?}: {}", reply.message());
            let mut spec = support::minimal("db", 1);
            spec["TaskTemplate"]["ContainerSpec"]["Hostname"] = json!(text);
            let reply = world.post("/services/create", &spec).await;
            assert!(matches!(reply.status.as_u16(), 201 | 400), "{text:?}: {}", reply.message());
        });
    }

    #[test]
    fn noise_in_bodies_is_a_client_error(body in ".{0,60}") {
        run(async {
            let world = manager().await;
            for path in ["/services/create", "/swarm/update?version=1", "/swarm/join", "/nodes/host1/update?version=1", "/secrets/create", "/configs/create", "/secrets/db/update?version=1"] {
                let request = http::Request::post(path).header("content-type", "application/json");
                let request = request.body(http_body_util::Full::from(body.clone())).expect("a request");
                let reply = world.send(request).await;
                assert!((400..500).contains(&reply.status.as_u16()) || reply.status == 500 && reply.message().contains("out of sequence"), "{path}: {}", reply.message());
            }
            assert_eq!(world.get("/services").await.json(), json!([]));
        });
    }
}
