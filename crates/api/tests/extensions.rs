//! What Docker has no fields for, through HTTP: labels of services and of the swarm, under the swarm's policy.

mod support;

use model::{AllowedDevices, Device, Gpus, HostAccess, Rebalance, RebalancePolicy, Service};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use store::{Changes, LocalStore, ProposeError, ReadError, Snapshot, StoreClient, Transaction};
use support::{Answer, World, id, manager, minimal};

const DENIED: &str = "rpc error: code = PermissionDenied desc = the swarm's policy ";

fn labelled(name: &str, labels: Value) -> Value {
    let mut spec = minimal(name, 1);
    spec["Labels"] = labels;
    spec
}

fn service(world: &World, name: &str) -> Arc<Service> {
    world.store.local().service_named(&name.parse().expect("a name")).expect("the service").clone()
}

/// Sets the labels of the swarm, and leaves the rest as it is.
async fn label_swarm(world: &World, labels: Value) -> Answer {
    let swarm = world.get("/swarm").await.ok(200).json();
    let mut spec = swarm["Spec"].clone();
    spec["Labels"] = labels;
    world.post(&format!("/swarm/update?version={}", swarm["Version"]["Index"]), &spec).await
}

async fn update(world: &World, name: &str, query: &str, spec: &Value) -> Answer {
    let version = world.version_of(&format!("/services/{name}")).await;
    world.post(&format!("/services/{name}/update?version={version}{query}"), spec).await
}

#[tokio::test]
async fn attack_26_the_swarms_policy_is_closed_until_it_is_opened() {
    let world = manager().await;
    for (service_labels, opens, denied) in [
        (
            json!({"swarmlite.privileged": "true"}),
            json!({"swarmlite.policy.privileged": "allow"}),
            "does not let services be privileged",
        ),
        (
            json!({"swarmlite.devices": "/dev/fuse"}),
            json!({"swarmlite.policy.devices": "/dev/kvm,/dev/fuse"}),
            "does not let services have the device /dev/fuse",
        ),
        (
            json!({"swarmlite.shm-size": "64m"}),
            json!({"swarmlite.policy.shm-size": "64m"}),
            "does not let services choose the size of /dev/shm",
        ),
        (
            json!({"swarmlite.gpus": "all"}),
            json!({"swarmlite.policy.gpus": "allow"}),
            "does not let services have GPUs",
        ),
    ] {
        let spec = labelled("web", service_labels.clone());
        let refused = |reply: Answer| {
            let text = reply.ok(403).message();
            assert!(text.starts_with(&format!("{DENIED}{denied}")), "{text}");
            let (label, _) = opens.as_object().and_then(|o| o.iter().next()).expect("a label");
            assert!(text.contains(label.as_str()), "it says which label opens it: {text}");
        };
        refused(world.post("/services/create", &spec).await);
        label_swarm(&world, opens.clone()).await.ok(200);
        world.post("/services/create", &spec).await.ok(201);
        assert_eq!(world.get("/services/web").await.json()["Spec"]["Labels"], service_labels);
        // Closed again, it goes on; but no new spec passes, though it wants no more than before.
        label_swarm(&world, json!({})).await.ok(200);
        let before = service(&world, "web");
        refused(update(&world, "web", "", &spec).await);
        assert_eq!(service(&world, "web"), before);
        update(&world, "web", "", &minimal("web", 1)).await.ok(200);
        assert_eq!(service(&world, "web").spec.task.container().unwrap().host_access, HostAccess::default());
        // Nor does the one before come back.
        refused(update(&world, "web", "&rollback=previous", &minimal("web", 1)).await);
        world.delete("/services/web").await.ok(200);
    }
}

/// A store in which somebody closes the policy between a look at it and the next change.
struct Closing {
    store: Arc<LocalStore>,
    open: AtomicBool,
}

#[async_trait::async_trait]
impl StoreClient for Closing {
    fn local(&self) -> Snapshot {
        self.store.local()
    }
    async fn current(&self) -> Result<Snapshot, ReadError> {
        self.store.current().await
    }
    async fn propose(&self, transaction: Transaction) -> Result<u64, ProposeError> {
        if self.open.swap(false, Ordering::SeqCst) {
            let mut cluster = model::Cluster::clone(self.store.local().cluster().expect("a cluster"));
            cluster.spec.policy = Default::default();
            let mut tx = Transaction::new(model::Timestamp(1));
            tx.update(cluster);
            self.store.propose(tx).await?;
        }
        self.store.propose(transaction).await
    }
    fn changes(&self) -> Changes {
        self.store.changes()
    }
}

#[tokio::test]
async fn attack_26_a_policy_that_is_closed_meanwhile_is_closed() {
    let world = manager().await;
    world.service("web", 1).await;
    let version = world.version_of("/services/web").await;
    let privileged = |name: &str| labelled(name, json!({"swarmlite.privileged": "true"}));
    for (path, spec) in [
        ("/services/create".to_owned(), privileged("db")),
        (format!("/services/web/update?version={version}"), privileged("web")),
    ] {
        label_swarm(&world, json!({"swarmlite.policy.privileged": "allow"})).await.ok(200);
        let closing = Closing { store: world.store.clone(), open: AtomicBool::new(true) };
        *world.swarm.store.lock() = Ok(Arc::new(closing));
        let text = world.post(&path, &spec).await.ok(403).message();
        assert!(text.starts_with(DENIED), "{text}");
        *world.swarm.store.lock() = Ok(world.store.clone());
    }
    assert!(world.store.local().services().all(|s| !s.spec.task.container().unwrap().host_access.privileged));
    assert_eq!(world.store.local().services().len(), 1);
}

#[tokio::test]
async fn labels_of_a_service_become_what_they_say() {
    let world = manager().await;
    let open = json!({
        "swarmlite.policy.privileged": "allow", "swarmlite.policy.devices": "*", "swarmlite.policy.shm-size": "1g",
        "swarmlite.policy.gpus": "allow", "team": "core"
    });
    label_swarm(&world, open.clone()).await.ok(200);
    assert_eq!(world.get("/swarm").await.json()["Spec"]["Labels"], open);
    let labels = json!({
        "swarmlite.privileged": "true", "swarmlite.devices": "/dev/sda:/dev/xvda:r", "swarmlite.shm-size": "1g",
        "swarmlite.gpus": "device=0,1", "swarmlite.restart.backoff": "off", "swarmlite.restart.backoff-max": "1m"
    });
    world.post("/services/create", &labelled("web", labels)).await.ok(201);
    let spec = service(&world, "web").spec.clone();
    let device = Device { on_host: "/dev/sda".into(), in_container: "/dev/xvda".into(), permissions: "r".into() };
    assert_eq!(
        spec.task.container().unwrap().host_access,
        HostAccess {
            privileged: true,
            devices: vec![device],
            shm_size_bytes: Some(1 << 30),
            gpus: Some(Gpus::Ids(vec!["0".into(), "1".into()])),
        }
    );
    assert_eq!((spec.backoff.on, spec.backoff.max.as_secs()), (false, 60));
    let too_much = labelled("db", json!({"swarmlite.shm-size": "2g"}));
    let text = world.post("/services/create", &too_much).await.ok(403).message();
    let at_most = "lets services have a /dev/shm of at most 1073741824 bytes, and this one wants 2147483648";
    assert!(text.starts_with(&format!("{DENIED}{at_most}")), "{text}");
    let typo = labelled("db", json!({"swarmlite.privilegd": "true"}));
    let text = world.post("/services/create", &typo).await.ok(400).message();
    assert!(text.contains("the service label swarmlite.privilegd is not known"), "{text}");
}

#[tokio::test]
async fn labels_of_the_swarm_are_its_policy() {
    let world = manager().await;
    let policy = || world.store.local().cluster().expect("a cluster").spec.policy.clone();
    let labels = json!({
        "swarmlite.policy.devices": "/dev/fuse", "swarmlite.rebalance": "on-join", "swarmlite.autopilot": "on",
        "swarmlite.autopilot.after": "2m"
    });
    label_swarm(&world, labels).await.ok(200);
    let set = policy();
    assert_eq!(set.host.devices, AllowedDevices::These(vec!["/dev/fuse".into()]));
    assert_eq!((set.rebalance, set.autopilot.on), (RebalancePolicy::OnJoin, true));
    assert_eq!(set.autopilot.after.as_secs(), 120);
    for (label, value, part) in [
        ("swarmlite.policy.privileged", "yes", "give allow or deny"),
        ("swarmlite.policy.privilegd", "allow", "the swarm label swarmlite.policy.privilegd is not known"),
        ("swarmlite.autopilot", "true", "give on or off"),
    ] {
        let text = label_swarm(&world, json!({label: value})).await.ok(400).message();
        assert!(text.contains(part), "{text}");
        assert_eq!(policy(), set, "what is refused changes nothing");
    }
    label_swarm(&world, json!({})).await.ok(200);
    assert_eq!(policy(), Default::default());
}

#[tokio::test]
async fn a_spare_manager_is_named_clearly() {
    let world = manager().await;
    let node = id('n', 1);
    let label = async |value: &str| {
        let version = world.version_of(&format!("/nodes/{node}")).await;
        let spec = json!({"Role": "manager", "Availability": "active", "Labels": {"swarmlite.spare-manager": value}});
        world.post(&format!("/nodes/{node}/update?version={version}"), &spec).await
    };
    label("true").await.ok(200);
    label("false").await.ok(200);
    label("yes").await.is(
        400,
        "rpc error: code = InvalidArgument desc = invalid value \"yes\" of the node label swarmlite.spare-manager: give true or false",
    );
}

#[tokio::test]
async fn the_default_log_driver_of_tasks_is_the_swarms() {
    let world = manager().await;
    let set = async |driver: Value| {
        let swarm = world.get("/swarm").await.ok(200).json();
        let mut spec = swarm["Spec"].clone();
        spec["TaskDefaults"] = driver;
        world.post(&format!("/swarm/update?version={}", swarm["Version"]["Index"]), &spec).await.ok(200);
        world.get("/swarm").await.json()["Spec"]["TaskDefaults"].clone()
    };
    let syslog = json!({"LogDriver": {"Name": "syslog", "Options": {"tag": "x"}}});
    assert_eq!(set(syslog.clone()).await, syslog);
    // What is left out stays; a driver without a name is the engine's own.
    assert_eq!(set(json!({})).await, syslog);
    assert_eq!(set(json!({"LogDriver": {}})).await, json!({}));
}

#[tokio::test]
async fn a_wish_to_rebalance_is_kept_with_the_services() {
    let world = manager().await;
    for name in ["web", "db"] {
        world.service(name, 2).await;
    }
    let mut global = minimal("agent", 1);
    global["Mode"] = json!({"Global": {}});
    world.post("/services/create", &global).await.ok(201);
    let wished = |name: &str| service(&world, name).progress.rebalance.clone();
    let reply = world.post("/swarmlite/rebalance", &json!({"Services": ["web"]})).await.ok(200).json();
    assert_eq!(reply, json!({"Services": ["web"]}));
    let asked_at = model::Timestamp(1_700_000_000_000_000_000);
    assert_eq!(wished("web"), Some(Rebalance { asked_at, ..Rebalance::default() }));
    assert_eq!(wished("db"), None);
    let mut all = world.post("/swarmlite/rebalance", &json!({})).await.ok(200).json()["Services"].clone();
    all.as_array_mut().expect("a list").sort_by_key(|v| v.to_string());
    assert_eq!(all, json!(["db", "web"]));
    assert_eq!((wished("db").is_some(), wished("agent")), (true, None));
    world
        .post("/swarmlite/rebalance", &json!({"Services": ["agent"]}))
        .await
        .is(400, "service agent cannot be rebalanced: its mode is global; only replicated services can");
    world.post("/swarmlite/rebalance", &json!({"Services": ["none"]})).await.is(404, "service none not found");
}
