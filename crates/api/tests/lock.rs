//! Autolock through the API, in Docker's words and status codes.

mod support;

use serde_json::{Value, json};
use support::{World, manager};
use swarmlite_api::{LocalState, NotManager, SwarmError};

const LOCKED: &str = "Swarm is encrypted and needs to be unlocked before it can be used. Please use \"docker swarm unlock\" to unlock it.";
const KEY: &str = "SWMKEY-1-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";

async fn shown(world: &World) -> String {
    let answer = world.get("/swarm/unlockkey").await.ok(200).json();
    answer["UnlockKey"].as_str().expect("a text").to_owned()
}

async fn update(world: &World, autolock: bool, query: &str) {
    let swarm = world.get("/swarm").await.json();
    let mut spec = swarm["Spec"].clone();
    spec["EncryptionConfig"]["AutoLockManagers"] = json!(autolock);
    let version = &swarm["Version"]["Index"];
    world.post(&format!("/swarm/update?version={version}{query}"), &spec).await.ok(200);
}

fn is_key(text: &str) -> bool {
    text.starts_with("SWMKEY-1-") && text.len() == KEY.len()
}

#[tokio::test]
async fn autolock_is_turned_on_rotated_and_turned_off() {
    let world = manager().await;
    assert_eq!(shown(&world).await, "");
    update(&world, false, "&rotateManagerUnlockKey=true").await;
    assert_eq!(shown(&world).await, "", "without autolock there is no key to rotate");

    update(&world, true, "").await;
    let first = shown(&world).await;
    assert!(is_key(&first), "{first}");
    let spec = &world.get("/swarm").await.json()["Spec"];
    assert_eq!(spec["EncryptionConfig"], json!({"AutoLockManagers": true}));
    update(&world, true, "").await;
    assert_eq!(shown(&world).await, first, "another update keeps the key");
    update(&world, true, "&rotateManagerUnlockKey=1").await;
    let second = shown(&world).await;
    assert!(is_key(&second) && second != first, "{second}");
    update(&world, false, "").await;
    assert_eq!(shown(&world).await, "");
}

#[tokio::test]
async fn attack_25_the_unlock_key_is_shown_nowhere_else() {
    let world = manager().await;
    update(&world, true, "").await;
    let key = shown(&world).await;
    for path in ["/swarm", "/info", "/nodes", "/events?since=0&until=1"] {
        let body = world.get(path).await.ok(200).body;
        assert!(!String::from_utf8_lossy(&body).contains(&key[9..]), "{path} shows it");
    }
}

#[tokio::test]
async fn init_takes_autolock_in_both_places() {
    for body in [
        json!({"AutoLockManagers": true, "Spec": {}}),
        json!({"Spec": {"EncryptionConfig": {"AutoLockManagers": true}}}),
    ] {
        let world = World::new(None);
        world.post("/swarm/init", &body).await.ok(200);
        assert!(world.swarm.inits.lock()[0].spec.autolock, "{body}");
    }
}

#[tokio::test]
async fn a_locked_manager_says_so_everywhere() {
    let world = manager().await;
    world.swarm.view.lock().state = LocalState::Locked;
    *world.swarm.store.lock() = Err(NotManager::Locked);
    *world.swarm.outcome.lock() = Err(SwarmError::NotInSwarm);
    for path in ["/swarm", "/swarm/unlockkey", "/nodes", "/services", "/tasks", "/swarmlite/tokens"] {
        world.get(path).await.is(503, LOCKED);
    }
    world.post("/swarmlite/tokens", &json!({"Role": "worker"})).await.is(503, LOCKED);
    world.post("/swarmlite/backup", &json!({})).await.is(503, LOCKED);
    world.post("/swarm/update?version=1", &json!({"Name": "default"})).await.is(503, LOCKED);
    let info: Value = world.get("/info").await.ok(200).json();
    assert_eq!(info["Swarm"]["LocalNodeState"], "locked");
    assert_eq!(info["Swarm"]["ControlAvailable"], false);
}

#[tokio::test]
async fn unlock_has_dockers_answers() {
    let world = manager().await;
    let body = json!({"UnlockKey": KEY});
    world.post("/swarm/unlock", &body).await.is(409, "swarm is not locked");
    for (why, state) in [(NotManager::NoSwarm, LocalState::Inactive), (NotManager::Worker, LocalState::Worker)] {
        *world.swarm.store.lock() = Err(why);
        world.swarm.view.lock().state = state;
        world.post("/swarm/unlock", &body).await.is(503, &why.to_string());
    }
    *world.swarm.store.lock() = Err(NotManager::Locked);
    world.swarm.view.lock().state = LocalState::Locked;
    for bad in ["", "SWMKEY-1-short", "SWMTKN-1-x-y"] {
        let answer = world.post("/swarm/unlock", &json!({"UnlockKey": bad})).await.ok(400);
        assert!(answer.message().starts_with("invalid key string"), "{}", answer.message());
    }
    assert!(world.swarm.unlocks.lock().is_empty(), "what is no key reaches no disk");
    *world.swarm.outcome.lock() = Err(SwarmError::WrongUnlockKey);
    world.post("/swarm/unlock", &body).await.is(401, "swarm could not be unlocked: invalid key provided");
    *world.swarm.outcome.lock() = Ok(());
    world.post("/swarm/unlock", &body).await.ok(200);
    assert_eq!(world.swarm.unlocks.lock().as_slice(), [KEY, KEY]);
}
