//! What an authority elsewhere is asked, and which of its answers are taken.

mod common;

use common::{At, HOUR, NOW, id, root, shake};
use model::{Cluster, ClusterSpec, ExternalCa, GrantKey, Meta, Role, RootCa, RootRotation, Timestamp};
use rcgen::{
    CertificateParams, CertificateSigningRequestParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, PublicKeyData as _, SanType, SubjectPublicKeyInfo,
};
use seams::real::OsRand;
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use swarmlite_ca::{
    CertificateGrant, Csr, ExternalAuthority, Identity, Issued, NodeKey, NotSigned, Signer, cross_sign,
    cross_sign_request, cross_signed, generate_grant_key, generate_join_tokens, judging_client_config, server_config,
};

fn cluster(root_ca: RootCa) -> Cluster {
    let ca = ExternalCa { url: "https://ca".into(), options: Default::default(), ca_cert_pem: String::new() };
    Cluster {
        id: id('c'),
        meta: Meta::default(),
        spec: ClusterSpec { external_cas: vec![ca], ..ClusterSpec::default() },
        join_tokens: generate_join_tokens(&root_ca.cert_pem, &OsRand),
        root_ca,
        gossip_keys: Vec::new(),
        default_addr_pool: Vec::new(),
        subnet_size: 24,
        data_path_port: 4789,
        removed_nodes: Default::default(),
        security: model::ClusterSecurity { grants: Some(generate_grant_key(&OsRand)), ..Default::default() },
    }
}

fn at(t: Duration) -> time::OffsetDateTime {
    time::OffsetDateTime::from_unix_timestamp(t.as_secs() as i64).unwrap()
}

/// Signs a request as cfssl does, with a change.
fn sign(root: &RootCa, request: &str, change: impl FnOnce(&mut CertificateParams)) -> String {
    let request: Value = serde_json::from_str(request).unwrap();
    let csr = CertificateSigningRequestParams::from_pem(request["certificate_request"].as_str().unwrap()).unwrap();
    let key = SubjectPublicKeyInfo::from_der(&csr.public_key.subject_public_key_info()).unwrap();
    let mut params = csr.params;
    if let Some(subject) = request.get("subject") {
        params.distinguished_name = DistinguishedName::new();
        let name = |at: &str| subject.pointer(at).unwrap().as_str().unwrap().to_owned();
        params.distinguished_name.push(DnType::OrganizationName, name("/names/0/O"));
        params.distinguished_name.push(DnType::OrganizationalUnitName, name("/names/0/OU"));
        params.distinguished_name.push(DnType::CommonName, name("/CN"));
    }
    let hosts = request["hosts"].as_array().unwrap();
    let hosts = hosts.iter().map(|host| SanType::DnsName(host.as_str().unwrap().try_into().unwrap()));
    params.subject_alt_names = hosts.collect();
    params.is_ca = if request.get("extensions").is_some() {
        IsCa::Ca(rcgen::BasicConstraints::Unconstrained)
    } else {
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        IsCa::ExplicitNoCa
    };
    (params.not_before, params.not_after) = (at(NOW - Duration::from_secs(300)), at(NOW + 24 * HOUR));
    change(&mut params);
    let key_pair = KeyPair::from_pem(&root.key_pem).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&root.cert_pem, key_pair).unwrap();
    params.signed_by(&key, &issuer).unwrap().pem()
}

fn answer(certificate: &str) -> Vec<u8> {
    json!({"success": true, "result": {"certificate": certificate}, "errors": [], "messages": []}).to_string().into()
}

struct Asked {
    key: NodeKey,
    csr_pem: String,
    csr: Csr,
    grant: CertificateGrant,
}

fn asked(role: Role) -> Asked {
    let key = NodeKey::generate().unwrap();
    let csr_pem = key.csr_pem().unwrap();
    let csr = Csr::parse(&csr_pem).unwrap();
    Asked { key, csr_pem, csr, grant: CertificateGrant { node_id: id('n'), role, expiry: 2 * HOUR } }
}

fn issued(identity: &Identity) -> Issued {
    identity.issued().clone()
}

#[test]
fn the_request_is_cfssls_and_the_answer_makes_an_identity() {
    let cluster = cluster(root());
    let Signer::Elsewhere(authority) = Signer::of(&cluster).unwrap() else { panic!("an authority elsewhere") };
    for role in [Role::Worker, Role::Manager] {
        let Asked { key, csr_pem, csr, grant } = asked(role);
        let request = authority.request(77, &csr, &grant).unwrap();
        let sent: Value = serde_json::from_str(request.body()).unwrap();
        let word = if role == Role::Manager { "swarm-manager" } else { "swarm-worker" };
        let subject = json!({"CN": "n".repeat(25), "names": [{"OU": word, "O": "c".repeat(25)}]});
        assert_eq!((&sent["subject"], &sent["profile"]), (&subject, &json!("")));
        assert_eq!((&sent["hosts"][0], &sent["hosts"][1]), (&json!(word), &json!("n".repeat(25))));
        assert_eq!(sent["certificate_request"], json!(csr_pem.replace('\r', "")), "the node's own request");

        let leaf = sign(&cluster.root_ca, request.body(), |_| {});
        let chain = request.judge(200, &answer(&leaf), NOW).unwrap();
        let identity = Identity::new(chain, key.key_pem(), cluster.trusted_roots_pem()).unwrap();
        assert_eq!((identity.role, identity.state_index(), identity.tls().granted), (role, 77, true));
        assert_eq!(identity.issuer(), &swarmlite_ca::describe_root(&cluster.root_ca.cert_pem).unwrap());
        // Only who has the key can have made the mark.
        let right = cluster.security.grants.as_ref();
        assert_eq!(issued(&identity).from_state(right), Some(77));
        assert_eq!(issued(&identity).from_state(Some(&generate_grant_key(&OsRand))), None);
        // Renewal is due in time, though it was not valid for an hour before.
        let due = identity.renew_at(&OsRand);
        assert!(due > NOW + 11 * HOUR && due < NOW + 20 * HOUR, "{due:?}");
    }
}

#[tokio::test]
async fn attack_09_an_authority_elsewhere_makes_no_manager_by_itself() {
    let mut cluster = cluster(root());
    let required = GrantKey { required: true, ..cluster.security.grants.clone().unwrap() };
    cluster.security.grants = Some(required.clone());
    let authority = ExternalAuthority::of(&cluster).unwrap().unwrap();
    let (manager, worker) = (asked(Role::Manager), asked(Role::Worker));
    let honest = authority.request(77, &manager.csr, &manager.grant).unwrap();
    let hosts = serde_json::from_str::<Value>(honest.body()).unwrap()["hosts"].clone();
    let granted = honest.judge(200, &answer(&sign(&cluster.root_ca, honest.body(), |_| {})), NOW).unwrap();
    let caller = Identity::new(granted, manager.key.key_pem(), cluster.trusted_roots_pem()).unwrap();
    // It has seen a manager's request, and has a key of its own.
    let own = asked(Role::Manager);
    let forged = |key: &NodeKey, change: &dyn Fn(&mut Value), also: &dyn Fn(&mut CertificateParams)| {
        let mut request: Value = serde_json::from_str(honest.body()).unwrap();
        request["certificate_request"] = json!(key.csr_pem().unwrap());
        change(&mut request);
        let leaf = sign(&cluster.root_ca, &request.to_string(), |params| also(params));
        let chain = format!("{leaf}{}", cluster.root_ca.cert_pem);
        Identity::new(chain, key.key_pem(), cluster.trusted_roots_pem())
    };
    let serial = |params: &mut CertificateParams| {
        // The form in which the swarm's own authority names a state: one far in the future.
        let mut serial = [0xff; 20];
        serial[0] = 1;
        params.serial_number = Some(rcgen::SerialNumber::from_slice(&serial));
    };
    let nothing = |_: &mut CertificateParams| {};
    let later = |request: &mut Value| {
        let mark = hosts[2].as_str().unwrap().replace(&format!("{:016x}", 77), &format!("{:016x}", 9999));
        request["hosts"][2] = json!(mark);
    };
    let unmarked = |request: &mut Value| drop(request["hosts"].as_array_mut().unwrap().pop());
    for (what, identity) in [
        ("another key under a manager's mark", forged(&own.key, &|_| {}, &nothing)),
        ("no mark", forged(&own.key, &unmarked, &nothing)),
        ("no mark, and a serial number like ours", forged(&own.key, &unmarked, &serial)),
        ("a later state", forged(&manager.key, &later, &nothing)),
        ("another node", forged(&manager.key, &|r| r["subject"]["CN"] = json!("m".repeat(25)), &nothing)),
    ] {
        let identity = identity.unwrap_or_else(|e| panic!("{what}: {e}"));
        assert_eq!(issued(&identity).from_state(Some(&required)), None, "{what}");
    }
    // A worker's request, of which it makes a manager.
    let request = authority.request(77, &worker.csr, &worker.grant).unwrap();
    let as_manager = sign(&cluster.root_ca, &request.body().replace("swarm-worker", "swarm-manager"), |_| {});
    let chain = format!("{as_manager}{}", cluster.root_ca.cert_pem);
    let identity = Identity::new(chain, worker.key.key_pem(), cluster.trusted_roots_pem()).unwrap();
    assert_eq!(identity.role, Role::Manager);
    assert_eq!(issued(&identity).from_state(Some(&required)), None);
    // Nor does a manager take such a one for the manager that it wants to call.
    let (at, any) = (|| Arc::new(At(NOW)) as Arc<dyn seams::Clock>, swarmlite_ca::ExpectedServer::AnyManager);
    let judge = |server: &Identity| {
        let client = judging_client_config(&caller, at(), &any, Some(required.clone())).unwrap();
        shake(server_config(server, at()).unwrap(), client)
    };
    assert!(judge(&caller).await.is_ok());
    let refused = judge(&identity).await.unwrap_err().to_string();
    assert!(refused.contains("NotGranted"), "{refused}");
    // Two marks, one of them right.
    let two = forged(
        &manager.key,
        &|r| r["hosts"][1] = json!(format!("swarm-grant-{:016x}-{}", 1, "0".repeat(32))),
        &nothing,
    );
    assert!(two.unwrap_err().to_string().contains("mark"));
}

#[test]
fn answers_that_are_not_what_was_asked_for_are_refused() {
    let cluster = cluster(root());
    let authority = ExternalAuthority::of(&cluster).unwrap().unwrap();
    let Asked { csr, grant, .. } = asked(Role::Worker);
    let request = authority.request(7, &csr, &grant).unwrap();
    let signed =
        |change: &dyn Fn(&mut CertificateParams)| answer(&sign(&cluster.root_ca, request.body(), |p| change(p)));
    let asked_for = |other: &str| answer(&sign(&cluster.root_ca, other, |_| {}));
    let other_key = authority.request(7, &self::asked(Role::Worker).csr, &grant).unwrap().body().to_owned();
    let name = |at: usize, to: &str| {
        let mut body: Value = serde_json::from_str(request.body()).unwrap();
        body["hosts"][at] = json!(to);
        body.to_string()
    };
    for (what, status, body, words) in [
        ("no JSON", 404, b"<html>".to_vec(), "its answer (HTTP status 404) is none of cfssl's"),
        ("nothing", 200, Vec::new(), "is none of cfssl's signing service"),
        (
            "a refusal",
            200,
            json!({"success": false, "result": null, "errors": [{"code": 5200, "message": "policy\u{1b}[31m"}]})
                .to_string()
                .into(),
            "it refused: policy[31m (code 5200)",
        ),
        ("no reason", 500, b"{}".to_vec(), "it does not say why (HTTP status 500)"),
        ("another status", 500, signed(&|_| {}), "it does not say why (HTTP status 500)"),
        ("no certificate", 200, answer("junk"), "1 to 4"),
        ("too many", 200, answer(&cluster.root_ca.cert_pem.repeat(5)), "1 to 4"),
        ("another key", 200, asked_for(&other_key), "for another key"),
        (
            "another role",
            200,
            asked_for(&request.body().replace("swarm-worker", "swarm-manager")),
            "another node, role or swarm",
        ),
        (
            "another swarm",
            200,
            asked_for(&request.body().replace(&"c".repeat(25), &"d".repeat(25))),
            "another node, role or swarm",
        ),
        ("the root itself", 200, answer(&cluster.root_ca.cert_pem), "for another key"),
        ("no mark", 200, asked_for(&name(2, "swarm-grant")), "its names are not the ones"),
        (
            "one name more",
            200,
            signed(&|p| p.subject_alt_names.push(SanType::DnsName("swarm-manager".try_into().unwrap()))),
            "its names are not",
        ),
        (
            "an address",
            200,
            signed(&|p| p.subject_alt_names.push(SanType::IpAddress([10, 0, 0, 1].into()))),
            "its names are not",
        ),
        (
            "a URI in a name's place",
            200,
            signed(&|p| p.subject_alt_names[1] = SanType::URI("spiffe://other".try_into().unwrap())),
            "its names are not",
        ),
        ("another root", 200, answer(&sign(&root(), request.body(), |_| {})), "none that the swarm's root signed"),
        (
            "for clients only",
            200,
            signed(&|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]),
            "none that the swarm's root signed",
        ),
        (
            "for servers only",
            200,
            signed(&|p| p.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]),
            "none that the swarm's root signed",
        ),
        (
            "an authority",
            200,
            signed(&|p| p.is_ca = IsCa::Ca(rcgen::BasicConstraints::Unconstrained)),
            "none that the swarm's root signed",
        ),
        ("too short", 200, signed(&|p| p.not_after = at(NOW + HOUR / 2)), "for less than an hour"),
        ("over", 200, signed(&|p| p.not_after = at(NOW - HOUR / 2)), "for less than an hour"),
        ("not yet", 200, signed(&|p| p.not_before = at(NOW + HOUR)), "it is not valid before"),
    ] {
        let refused = request.judge(status, &body, NOW).expect_err(what).to_string();
        assert!(refused.contains(words), "{what}: {refused}");
    }
    assert!(matches!(request.judge(200, &vec![b'['; 100_000], NOW), Err(NotSigned::Answer { .. })));
    request.judge(200, &signed(&|_| {}), NOW).unwrap();
}

#[test]
fn who_signs_follows_from_the_state() {
    let mut cluster = cluster(root());
    let here = |cluster: &Cluster| matches!(Signer::of(cluster), Ok(Signer::Here(_)));
    assert!(!here(&cluster));
    // A root that is on its way, which nobody elsewhere knows.
    let new = root();
    let cross_signed_pem = cross_sign(&new, &cluster.root_ca, NOW, &OsRand).unwrap();
    cluster.security.root_rotation = Some(RootRotation { new, cross_signed_pem, started_at: Timestamp(1) });
    assert!(here(&cluster));
    cluster.security.root_rotation = None;
    cluster.spec.external_cas.clear();
    assert!(here(&cluster));
    cluster.root_ca.key_pem.clear();
    let nobody = Signer::of(&cluster).unwrap_err().to_string();
    assert!(nobody.contains("an authority elsewhere signs with it"), "{nobody}");
}

#[test]
fn an_authority_elsewhere_vouches_for_the_next_root() {
    let (old, new) = (root(), root());
    let request = cross_sign_request(&new).unwrap();
    let sent: Value = serde_json::from_str(&request).unwrap();
    assert_eq!((&sent["profile"], sent.get("subject")), (&json!("CA"), None));
    assert_eq!(sent["extensions"], json!([{"id": "2.5.29.19", "critical": true, "value": "30030101ff"}]));
    let crossed = |pem: &str| cross_signed(&new, &old, (200, &answer(pem)), NOW, &OsRand).map_err(|e| e.to_string());
    let good = sign(&old, &request, |p| p.not_after = at(NOW + 1000 * HOUR));
    assert!(crossed(&good).unwrap().contains("BEGIN CERTIFICATE"));
    for (what, pem) in [
        ("no authority", sign(&old, &request, |p| p.is_ca = IsCa::ExplicitNoCa)),
        ("another root's", sign(&root(), &request, |_| {})),
        ("another key", sign(&old, &cross_sign_request(&root()).unwrap(), |_| {})),
        ("another name", sign(&old, &request, |p| p.distinguished_name.push(DnType::CountryName, "XX"))),
    ] {
        assert!(crossed(&pem).is_err(), "{what}");
    }
    assert!(cross_sign_request(&RootCa { key_pem: String::new(), ..new.clone() }).is_err());
}
