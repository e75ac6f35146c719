//! `/swarmlite/backup` and `/swarmlite/gossip` through HTTP.

mod support;

use serde_json::json;
use store::StoreClient as _;
use support::{World, manager};
use swarmlite_api::SwarmError;

#[tokio::test]
async fn a_backup_is_sealed_under_the_key_that_was_sent() {
    let world = manager().await;
    let key = seal::Key::from_bytes([7; 32]);
    let sent = json!({ "Key": key.to_text(seal::KeyForm::Backup) });
    let answer = world.post("/swarmlite/backup", &sent).await.ok(200);
    assert_eq!(answer.headers["content-type"], "application/octet-stream");
    assert_eq!(&key.open(b"backup", answer.body).unwrap()[..], b"the state");

    *world.swarm.outcome.lock() = Err(SwarmError::Unavailable("no leader, say".into()));
    world.post("/swarmlite/backup", &sent).await.is(503, "no leader, say");
}

#[tokio::test]
async fn a_backup_without_a_good_key_is_refused_and_the_key_is_not_repeated() {
    let world = manager().await;
    for none in [json!({}), json!({"Key": ""}), json!({"Key": null})] {
        let refused = world.post("/swarmlite/backup", &none).await.ok(400);
        assert!(refused.message().contains("is sealed under a key of yours"), "{}", refused.message());
    }
    for bad in ["SWMKEY-1-AAAA", "SWMBAK-1-half-a-secret"] {
        let refused = world.post("/swarmlite/backup", &json!({ "Key": bad })).await.ok(400);
        assert!(refused.message().starts_with("invalid key string"), "{}", refused.message());
        assert!(!refused.message().contains("half-a-secret") && !refused.message().contains("AAAA"));
    }
}

#[tokio::test]
async fn gossip_shows_its_keys_by_id_and_what_it_dropped() {
    let world = manager().await;
    let shown = world.get("/swarmlite/gossip").await.ok(200).json();
    assert_eq!((&shown["Keys"], &shown["Counters"]["Forged"]), (&json!([2, 1]), &json!(3)));
    let outside = World::new(None).get("/swarmlite/gossip").await.ok(503);
    assert!(!outside.message().is_empty());
}

#[tokio::test]
async fn a_rotation_is_asked_for_once_however_often_it_is_called() {
    let world = manager().await;
    let asked = || world.store.local().cluster().map(|c| (c.security.gossip_rotation.asked, c.meta.version));
    assert_eq!(world.post("/swarmlite/gossip/rotate", &json!({})).await.ok(200).json(), json!({ "Replaces": 1 }));
    let (first, version) = asked().unwrap();
    assert!(first);
    world.call("POST", "/swarmlite/gossip/rotate", None).await.ok(200);
    assert_eq!(asked(), Some((true, version)), "it is on its way already");
}
