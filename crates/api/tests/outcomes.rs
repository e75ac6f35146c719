//! What a caller is told when the store cannot say yes or no.

mod support;

use async_trait::async_trait;
use parking_lot::Mutex;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use store::{Change, Changes, Conflict, LocalStore, ProposeError, ReadError, Snapshot, StoreClient, Transaction};
use support::{manager, minimal, node_id};

/// A store whose leader is in trouble.
struct Troubled {
    store: Arc<LocalStore>,
    read: Mutex<Option<ReadError>>,
    /// What the next proposals end in; after that they are applied.
    proposals: Mutex<Vec<ProposeError>>,
    /// What this manager has applied, when it is behind.
    behind: Mutex<Option<Snapshot>>,
}

#[async_trait]
impl StoreClient for Troubled {
    fn local(&self) -> Snapshot {
        self.behind.lock().clone().unwrap_or_else(|| self.store.local())
    }
    async fn current(&self) -> Result<Snapshot, ReadError> {
        match self.read.lock().clone() {
            Some(e) => Err(e),
            None => Ok(self.store.local()),
        }
    }
    async fn propose(&self, transaction: Transaction) -> Result<u64, ProposeError> {
        let next = self.proposals.lock().pop();
        match next {
            Some(e) => Err(e),
            None => self.store.propose(transaction).await,
        }
    }
    fn changes(&self) -> Changes {
        self.store.changes()
    }
}

const OUT_OF_SEQUENCE: &str = "rpc error: code = Unknown desc = update out of sequence";
const NO_LEADER: &str = "rpc error: code = Unknown desc = The swarm does not have a leader. It's possible that too few managers are online. Make sure more than half of the managers are online.";

async fn troubled() -> (support::World, Arc<Troubled>) {
    let world = manager().await;
    let store = Arc::new(Troubled {
        store: world.store.clone(),
        read: Mutex::default(),
        proposals: Mutex::default(),
        behind: Mutex::default(),
    });
    *world.swarm.store.lock() = Ok(store.clone());
    (world, store)
}

#[tokio::test]
async fn without_a_leader_reads_say_so_unless_a_stale_one_will_do() {
    let (world, store) = troubled().await;
    world.service("web", 1).await;
    *store.read.lock() = Some(ReadError::NoLeader { waited: Duration::from_secs(5) });
    for path in ["/services", "/services/web", "/nodes", "/tasks", "/swarm"] {
        world.get(path).await.is(500, NO_LEADER);
        world.get(&format!("{path}?stale=true")).await.ok(200);
    }
    let request = http::Request::get("/services/web").header("x-swarmlite-read", "stale");
    world.send(request.body(Default::default()).expect("a request")).await.ok(200);
    store.proposals.lock().push(ProposeError::NoLeader { waited: Duration::from_secs(5) });
    world.delete("/services/web").await.is(500, NO_LEADER);
    world.delete("/services/unknown").await.is(500, NO_LEADER);
}

#[tokio::test]
async fn a_manager_that_is_behind_asks_the_leader_before_it_refuses() {
    let (world, store) = troubled().await;
    let before = world.store.local();
    world.service("web", 1).await;
    let version = world.version_of("/services/web").await;
    *store.behind.lock() = Some(before);
    let update = format!("/services/web/update?version={version}");
    world.post(&update, &minimal("web", 2)).await.ok(200);
    world.post(&update, &minimal("web", 3)).await.is(500, OUT_OF_SEQUENCE);

    // It still sees the service that somebody has removed elsewhere and made anew.
    *store.behind.lock() = Some(world.store.local());
    let removed = world.store.local().services().next().expect("a service").id.clone();
    let mut tx = Transaction::default();
    tx.changes.push(Change::Remove(removed.into()));
    world.store.propose(tx).await.expect("removed");
    world.delete("/services/web").await.is(404, "service web not found");
    world.service("web", 1).await;
    // The name is another service's by now.
    world.delete("/services/web").await.ok(200);
    assert_eq!(world.store.local().services().len(), 0);
}

#[tokio::test]
async fn an_unknown_outcome_is_called_unknown() {
    let (world, store) = troubled().await;
    store.proposals.lock().push(ProposeError::Unknown { reason: "the leader was lost".into() });
    let reply = world.post("/services/create", &minimal("web", 1)).await.ok(500);
    assert_eq!(
        reply.message(),
        "the outcome of the change is unknown: the leader was lost; it may have been applied or may yet be: look before you try again"
    );
    store.proposals.lock().push(ProposeError::NoLeader { waited: Duration::from_secs(5) });
    world.post("/services/create", &minimal("web", 1)).await.is(500, NO_LEADER);
    store.proposals.lock().push(ProposeError::NotManager);
    world.post("/services/create", &minimal("web", 1)).await.ok(503);
    world.post("/services/create", &minimal("web", 1)).await.ok(201);
}

#[tokio::test]
async fn what_depends_on_no_version_is_tried_again_when_a_node_joins_at_the_same_moment() {
    let (world, store) = troubled().await;
    let version = world.version_of("/swarm").await;
    let lost = || {
        let id = world.store.local().cluster().expect("a cluster").id.clone();
        store.proposals.lock().push(Conflict::Changed { id: id.into(), expected: version, actual: version + 1 }.into());
    };
    lost();
    world.post("/swarmlite/tokens", &json!({"Role": "worker"})).await.ok(201);
    let made = world.get("/swarmlite/tokens").await.ok(200).json();
    assert_eq!(made.as_array().map(Vec::len), Some(1), "{made}");
    lost();
    world.delete(&format!("/swarmlite/tokens/{}", made[0]["ID"].as_str().expect("an id"))).await.ok(204);
    lost();
    world.post("/swarmlite/gossip/rotate", &json!({})).await.ok(200);
    assert!(world.store.local().cluster().expect("a cluster").security.gossip_rotation.asked);
}

#[tokio::test]
async fn a_lost_race_for_a_version_is_out_of_sequence() {
    let (world, store) = troubled().await;
    world.service("web", 1).await;
    let version = world.version_of("/services/web").await;
    let id = world.store.local().services().next().expect("a service").id.clone();
    let lost = Conflict::Changed { id: id.into(), expected: version, actual: version + 1 };
    store.proposals.lock().push(lost.into());
    world.post(&format!("/services/web/update?version={version}"), &minimal("web", 2)).await.is(500, OUT_OF_SEQUENCE);
}

#[tokio::test]
async fn a_demotion_is_judged_again_when_another_manager_changed() {
    let (world, store) = troubled().await;
    for n in [2, 3] {
        world.add_node(n, model::Role::Manager).await;
    }
    let other = Conflict::Changed { id: node_id(2).into(), expected: 1, actual: 2 };
    store.proposals.lock().push(other.into());
    let node = node_id(3);
    let version = world.version_of(&format!("/nodes/{node}")).await;
    let spec = json!({"Labels": {}, "Role": "worker", "Availability": "active"});
    world.post(&format!("/nodes/{node}/update?version={version}"), &spec).await.ok(200);
    assert!(store.proposals.lock().is_empty());
}
