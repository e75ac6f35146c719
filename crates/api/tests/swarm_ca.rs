//! What `swarm ca --rotate`, `swarm update --cert-expiry` and `node ls` send and see of the certificate authority.

mod support;

use model::{Cluster, NodeTls, Role};
use serde_json::{Value, json};
use std::time::Duration;
use store::{StoreClient as _, Transaction};
use support::{World, manager, node_id};
use swarmlite_api::{NewRoot, SwarmError};

const INVALID: &str = "rpc error: code = InvalidArgument desc = ";

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
    let invalid = INVALID;
    update(&world, |ca| ca["SigningCAKey"] = json!("KEY"))
        .await
        .is(400, &format!("{invalid}if a signing CA key is provided, the signing CA cert must also be provided"));
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
async fn authorities_elsewhere_are_kept_shown_and_looked_for_when_they_change() {
    let world = manager().await;
    assert!(cluster(&world).await.security.grants.is_none());
    let cas = json!([
        {"Protocol": "cfssl", "URL": "https://ca:8888/sign", "Options": {"a": "b"}, "CACert": ""},
        {"Protocol": "cfssl", "URL": "https://[::1]", "CACert": "-----BEGIN CERTIFICATE-----\nAA\n-----END CERTIFICATE-----"},
    ]);
    update(&world, |ca| ca["ExternalCAs"] = cas.clone()).await.ok(200);
    for shown in ["/swarm", "/info"] {
        let shown = world.get(shown).await.ok(200).json();
        let spec = shown.get("Spec").unwrap_or(&shown["Swarm"]["Cluster"]["Spec"]);
        assert_eq!(spec["CAConfig"]["ExternalCAs"], cas);
    }
    let urls = || vec!["https://ca:8888/sign".to_owned(), "https://[::1]".to_owned()];
    assert_eq!(*world.swarm.checked_cas.lock(), [urls()]);
    let grants = cluster(&world).await.security.grants.expect("certificates are marked from now on");
    assert!(!grants.required && !format!("{grants:?}").contains(&format!("{:?}", grants.key)));
    // Sent back as they are they need not be there.
    *world.swarm.outcome.lock() = Err(SwarmError::Invalid("there is none".into()));
    update(&world, |_| {}).await.ok(200);
    update(&world, |ca| ca["ExternalCAs"] = Value::Null).await.is(400, &format!("{INVALID}there is none"));
    *world.swarm.outcome.lock() = Ok(());
    update(&world, |ca| ca["ExternalCAs"] = json!([])).await.ok(200);
    assert_eq!(world.get("/swarm").await.json()["Spec"]["CAConfig"].get("ExternalCAs"), None);
    assert_eq!(cluster(&world).await.security.grants, Some(grants), "the key stays");
    // A certificate without its key is an authority's elsewhere.
    update(&world, |ca| (ca["SigningCACert"], ca["ExternalCAs"]) = (json!("CERT\n"), cas)).await.ok(200);
    assert_eq!(*world.swarm.rotations.lock(), [NewRoot::Elsewhere { cert_pem: "CERT".into() }]);
}

#[tokio::test]
async fn authorities_elsewhere_that_cannot_be_asked_are_refused() {
    let world = manager().await;
    let ca = |protocol: &str, url: &str, cert: &str| json!([{"Protocol": protocol, "URL": url, "CACert": cert}]);
    let too_long = "x".repeat(17_000);
    for (cas, words) in [
        (ca("acme", "https://ca", ""), "invalid protocol: \"acme\"".to_owned()),
        (ca("", "https://ca", ""), "invalid protocol: \"\"".to_owned()),
        (ca("cfssl", "http://ca", ""), format!("{INVALID}external CA URL \"http://ca\" is not one like")),
        (ca("cfssl", "https://me:secret@ca", ""), format!("{INVALID}external CA URL")),
        (ca("cfssl", "https://too:many:colons:1", ""), format!("{INVALID}external CA URL")),
        (ca("cfssl", "https://ca:88888/sign", ""), format!("{INVALID}external CA URL")),
        (ca("cfssl", "", ""), format!("{INVALID}external CA URL \"\" is not one like https://HOST[:PORT]/PATH")),
        (ca("cfssl", "https://ca", "junk"), format!("{INVALID}CA cert for external CA must be in PEM format")),
        (
            ca("cfssl", "https://ca", &too_long),
            format!("{INVALID}an external CA's URL, options and certificate have at most"),
        ),
        (json!(vec![&ca("cfssl", "https://ca", "")[0]; 17]), format!("{INVALID}at most 16 external CAs are accepted")),
    ] {
        let refused = update(&world, |config| config["ExternalCAs"] = cas.clone()).await.ok(400);
        assert!(refused.message().starts_with(&words), "{cas:.200}: {}", refused.message());
    }
    assert!(cluster(&world).await.spec.external_cas.is_empty());
}

#[tokio::test]
async fn init_takes_no_root_and_no_rotation() {
    let world = World::new(None);
    for config in [json!({"SigningCACert": "C", "SigningCAKey": "K"}), json!({"ForceRotate": 1})] {
        let refused = world.post("/swarm/init", &json!({"Spec": {"CAConfig": config}})).await.ok(400);
        assert!(refused.message().contains("are not taken by init"), "{}", refused.message());
    }
    assert!(world.swarm.inits.lock().is_empty());
    let cas = json!([{"Protocol": "CFSSL", "URL": "https://ca"}]);
    world.post("/swarm/init", &json!({"Spec": {"CAConfig": {"ExternalCAs": cas}}})).await.ok(200);
    assert_eq!(world.swarm.inits.lock()[0].spec.external_cas[0].url, "https://ca");
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
        granted: false,
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
