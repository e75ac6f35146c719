//! What `swarm ca --rotate`, `swarm update --cert-expiry` and `node ls` send and see of the certificate authority.

mod support;

use model::{Cluster, NodeTls, Role};
use serde_json::{Value, json};
use std::time::Duration;
use store::{StoreClient as _, Transaction};
use support::{World, manager, node_id};
use swarmlite_api::{NewRoot, SwarmError};

async fn cluster(world: &World) -> Cluster {
    Cluster::clone(world.store.current().await.expect("a state").cluster().expect("a cluster"))
}

/// Sends the spec that is shown, with a change, as Docker's clients do.
async fn update(world: &World, change: impl FnOnce(&mut Value)) -> support::Answer {
    let swarm = world.get("/swarm").await.ok(200).json();
    let mut spec = swarm["Spec"].clone();
    change(&mut spec["CAConfig"]);
    world.post(&format!("/swarm/update?version={}", swarm["Version"]["Index"]), &spec).await
}

#[tokio::test]
async fn a_raised_force_rotate_begins_a_change_and_an_equal_one_does_not() {
    let world = manager().await;
    assert_eq!(world.get("/swarm").await.json()["RootRotationInProgress"], false);
    // The spec as it is, and one without the field.
    update(&world, |_| {}).await.ok(200);
    assert!(world.swarm.rotations.lock().is_empty());

    update(&world, |ca| ca["ForceRotate"] = json!(1)).await.ok(200);
    assert_eq!(*world.swarm.rotations.lock(), [NewRoot::Generated]);
    let swarm = world.get("/swarm").await.json();
    assert_eq!(
        (&swarm["RootRotationInProgress"], &swarm["Spec"]["CAConfig"]["ForceRotate"]),
        (&json!(true), &json!(1))
    );
    assert_eq!(world.get("/info").await.json()["Swarm"]["Cluster"]["RootRotationInProgress"], true);

    for same in [json!(1), json!(0), Value::Null] {
        update(&world, |ca| ca["ForceRotate"] = same).await.ok(200);
    }
    assert_eq!(world.swarm.rotations.lock().len(), 1, "what is sent back, or left out, asks for nothing");
    update(&world, |ca| ca["ForceRotate"] = json!(2)).await.ok(200);
    assert_eq!(world.swarm.rotations.lock().len(), 2);
}

#[tokio::test]
async fn a_root_is_given_with_its_key_and_neither_is_shown() {
    let world = manager().await;
    let invalid = "rpc error: code = InvalidArgument desc = ";
    update(&world, |ca| ca["SigningCAKey"] = json!("KEY"))
        .await
        .is(400, &format!("{invalid}if a signing CA key is provided, the signing CA cert must also be provided"));
    let no_key = update(&world, |ca| ca["SigningCACert"] = json!("CERT")).await.ok(400);
    assert!(no_key.message().starts_with(&format!("{invalid}the key of the signing CA cert must be provided")));
    let external = update(&world, |ca| ca["ExternalCAs"] = json!([{"Protocol": "cfssl", "URL": "https://ca"}])).await;
    assert!(external.ok(400).message().starts_with("CAConfig.ExternalCAs is not supported"));
    let long = update(&world, |ca| (ca["SigningCACert"], ca["SigningCAKey"]) = (json!("C".repeat(70_000)), json!("K")));
    assert!(long.await.ok(400).message().contains("at most 65536 bytes"));
    assert!(world.swarm.rotations.lock().is_empty());

    update(&world, |ca| (ca["SigningCACert"], ca["SigningCAKey"]) = (json!("CERT\n"), json!("KEY\n"))).await.ok(200);
    let given = NewRoot::Given { cert_pem: "CERT".into(), key_pem: "KEY".into() };
    assert_eq!(*world.swarm.rotations.lock(), [given]);
    for shown in ["/swarm", "/info"] {
        let text = world.get(shown).await.ok(200).json().to_string();
        assert!(!text.contains("SECRET") && !text.contains("\"KEY\"") && !text.contains("SigningCA"), "{text}");
    }
    assert!(!format!("{:?}", world.swarm.rotations.lock()).contains("KEY"));

    *world.swarm.outcome.lock() = Err(SwarmError::Invalid("CA certificate expires too soon".into()));
    let bad = update(&world, |ca| (ca["SigningCACert"], ca["SigningCAKey"]) = (json!("OLD"), json!("KEY"))).await;
    bad.is(400, &format!("{invalid}CA certificate expires too soon"));
}

#[tokio::test]
async fn init_takes_no_root_and_no_rotation() {
    let world = World::new(None);
    for config in [json!({"SigningCACert": "C", "SigningCAKey": "K"}), json!({"ForceRotate": 1})] {
        let refused = world.post("/swarm/init", &json!({"Spec": {"CAConfig": config}})).await.ok(400);
        assert!(refused.message().contains("are not taken by init"), "{}", refused.message());
    }
    assert!(world.swarm.inits.lock().is_empty());
}

#[tokio::test]
async fn a_shorter_validity_is_remembered_for_certificates_that_are_out_there() {
    let world = manager().await;
    update(&world, |ca| ca["NodeCertExpiry"] = json!(3_600_000_000_000_u64)).await.ok(200);
    let cluster = cluster(&world).await;
    assert_eq!(cluster.spec.node_cert_expiry, Duration::from_secs(3600));
    assert!(
        cluster.security.certificates.longest_until > cluster.meta.updated_at.plus(Duration::from_secs(89 * 86400))
    );
    let short = update(&world, |ca| ca["NodeCertExpiry"] = json!(1_000_000_000)).await.ok(400);
    assert!(short.message().contains("minimum certificate expiry time is: 1h0m0s"), "{}", short.message());

    // A node that is removed now may have one of those.
    world.add_node(2, Role::Worker).await;
    world.delete(&format!("/nodes/{}?force=1", node_id(2))).await.ok(200);
    let after = self::cluster(&world).await;
    let barred = after.removed_nodes[&node_id(2)];
    assert!(barred > after.meta.updated_at.plus(Duration::from_secs(89 * 86400)), "{barred:?}");
}

#[tokio::test]
async fn attack_08_a_promotion_makes_older_certificates_of_the_node_worthless() {
    let world = manager().await;
    world.add_node(2, Role::Worker).await;
    let before = world.store.current().await.expect("a state").index();
    let version = world.version_of(&format!("/nodes/{}", node_id(2))).await;
    let spec = json!({"Role": "manager", "Availability": "active"});
    world.post(&format!("/nodes/{}/update?version={version}", node_id(2)), &spec).await.ok(200);
    let promoted = &cluster(&world).await.security.certificates.promoted_after;
    assert_eq!(promoted.get(&node_id(2)), Some(&before));
    assert_eq!(promoted.len(), 1);
}

#[tokio::test]
async fn each_node_shows_what_it_says_of_its_own_certificate() {
    let world = manager().await;
    let shown = world.get("/nodes").await.ok(200).json();
    assert_eq!(shown[0]["Description"]["TLSInfo"], json!({}), "it has said nothing");
    let state = world.store.current().await.expect("a state");
    let mut node = model::Node::clone(state.node(&node_id(1)).expect("a node"));
    node.description.as_mut().expect("a description").tls = Some(NodeTls {
        trust_root_pem: "ITS PEM".into(),
        issuer_subject_der: vec![9],
        issuer_public_key_der: vec![1, 2],
    });
    let mut tx = Transaction::new(model::Timestamp(1));
    tx.update(node);
    world.store.propose(tx).await.expect("an update");
    let shown = world.get(&format!("/nodes/{}", node_id(1))).await.ok(200).json();
    assert_eq!(
        shown["Description"]["TLSInfo"],
        json!({"TrustRoot": "ITS PEM", "CertIssuerSubject": "CQ==", "CertIssuerPublicKey": "AQI="})
    );
}
