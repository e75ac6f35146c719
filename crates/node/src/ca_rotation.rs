//! Changing the cluster's root certificate (SwarmKit ca/reconciler.go, controlapi/ca_rotation.go).
//!
//! A change begins with a new root that the old one vouches for: from then on the new root signs, nodes trust both, and every
//! node gets a new certificate. When all nodes say that they have one, and that they trust the new root, the old one goes, and
//! with it the join tokens, which name it. All progress is in the store: in the cluster object and in what the nodes say of
//! themselves. A node that is away is waited for; one that will not come back has to be removed.

use crate::manager::Manager;
use crate::raft_store::LeaderStore;
use api::{NewRoot, SwarmError};
use ca::{RejectedRoot, RootDescription};
use model::{Cluster, Node, NodeId, NodeState, RootCa, RootRotation, Timestamp};
use seams::Rand;
use std::fmt;
use std::time::Duration;
use store::{Event, Snapshot, StoreClient as _, Transaction};
use tokio::time::Instant;

/// After a finish that could not be written.
const RETRY: Duration = Duration::from_millis(250);
/// Between two looks at all nodes while a change is under way: in a large cluster every node's word is a commit of its own, and the
/// leader has other things to do.
const LOOK_AT_MOST: Duration = Duration::from_millis(250);
/// Between two words on which nodes are waited for.
const WORD_PERIOD: Duration = Duration::from_secs(10);
/// Nodes named in one word.
const NAMED_MAX: usize = 5;

/// What is to be done about a change of the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing: there is none under way.
    Idle,
    /// These nodes have not moved over yet.
    Wait(Vec<Awaited>),
    /// All have: the old root goes.
    Finish,
}

/// A node that a change of the root waits for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Awaited {
    pub(crate) node: NodeId,
    pub(crate) hostname: String,
    pub(crate) state: NodeState,
    pub(crate) lacks: Lacks,
}

/// What a node lacks, by its own word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lacks {
    /// It has not said what it has.
    Word,
    /// A certificate of the new root.
    Certificate,
    /// Trust in the new root.
    Trust,
}

/// The next step of the change that is under way.
pub(crate) fn step(state: &Snapshot) -> Step {
    let rotation = state.cluster().and_then(|c| c.security.root_rotation.as_ref());
    let Some(rotation) = rotation else { return Step::Idle };
    // Read once: there may be ten thousand nodes.
    let issuer = ca::describe_root(&rotation.new.cert_pem);
    let root_pem = rotation.new.cert_pem.trim();
    let awaited: Vec<Awaited> = state.nodes().filter_map(|node| await_node(node, issuer.as_ref(), root_pem)).collect();
    if awaited.is_empty() { Step::Finish } else { Step::Wait(awaited) }
}

fn await_node(node: &Node, issuer: Option<&RootDescription>, root_pem: &str) -> Option<Awaited> {
    let said = node.description.as_ref().and_then(|d| d.tls.as_ref());
    let lacks = match said {
        None => Lacks::Word,
        Some(tls) => {
            let has = issuer.is_some_and(|i| {
                (&i.subject_der, &i.public_key_der) == (&tls.issuer_subject_der, &tls.issuer_public_key_der)
            });
            if !has {
                Lacks::Certificate
            } else if !tls.trust_root_pem.contains(root_pem) {
                Lacks::Trust
            } else {
                return None;
            }
        }
    };
    let hostname = node.description.as_ref().map(|d| d.hostname.clone()).unwrap_or_default();
    Some(Awaited { node: node.id.clone(), hostname, state: node.status.state, lacks })
}

/// What a wish for another root comes to, before the old root has vouched for the new one.
#[derive(Debug)]
pub(crate) enum Change {
    /// There is nothing to vouch for: the cluster as it will be.
    Settled(Box<Cluster>),
    /// To this root.
    To(RootCa),
}

/// What is to be done for another root. A change that is under way gets a new target; nodes that have moved over already do so again.
/// When it is the present root that is given, the change that is under way is given up. A root that is given again may bring its
/// key along, or leave it to an authority elsewhere.
pub(crate) fn change(
    cluster: &Cluster,
    new_root: NewRoot,
    now: Duration,
    rand: &dyn Rand,
) -> Result<Change, SwarmError> {
    let mut cluster = cluster.clone();
    let new = match new_root {
        NewRoot::Generated => ca::generate_root(now, rand).map_err(|e| SwarmError::Internal(e.to_string()))?,
        NewRoot::Given { cert_pem, key_pem } => ca::accept_root(&cert_pem, &key_pem, now, rand).map_err(rejected)?,
        NewRoot::Elsewhere { cert_pem } => {
            let cert_pem = ca::accept_root_certificate(&cert_pem, now).map_err(rejected)?;
            RootCa { cert_pem, key_pem: String::new() }
        }
    };
    if new.is(&cluster.root_ca.cert_pem) {
        let is_here = take_key(&mut cluster.root_ca, new);
        cluster.security.root_rotation = None;
        if is_here {
            sign_here(&mut cluster);
        }
        return Ok(Change::Settled(Box::new(cluster)));
    }
    if let Some(under_way) = cluster.security.root_rotation.as_mut().filter(|r| new.is(&r.new.cert_pem)) {
        if take_key(&mut under_way.new, new) {
            sign_here(&mut cluster);
        }
        return Ok(Change::Settled(Box::new(cluster)));
    }
    if !cluster.root_ca.has_key() && !new.has_key() {
        return Err(SwarmError::Invalid(
            "rotating from one external CA to a different external CA is not supported".into(),
        ));
    }
    Ok(Change::To(new))
}

/// Whether the key is here now, and was not before.
fn take_key(root: &mut RootCa, again: RootCa) -> bool {
    let was_here = root.has_key();
    if was_here != again.has_key() {
        root.key_pem = again.key_pem;
    }
    root.has_key() && !was_here
}

/// Who brings the key of the root that signs wants the managers to sign: the authority that had it may be gone, and while it is named
/// they would go on asking it.
fn sign_here(cluster: &mut Cluster) {
    let gone = cluster.external_cas_of(cluster.signing_root());
    let gone: Vec<model::ExternalCa> = gone.into_iter().cloned().collect();
    cluster.spec.external_cas.retain(|ca| !gone.contains(ca));
}

/// The cluster with the change to `new` begun, for which the old root has vouched.
pub(crate) fn begun(cluster: &Cluster, new: RootCa, cross_signed_pem: String, now: Duration) -> Cluster {
    let mut cluster = cluster.clone();
    let started_at = Timestamp::from_unix(now);
    cluster.security.root_rotation = Some(RootRotation { new, cross_signed_pem, started_at });
    cluster
}

/// The cluster with a change to another root begun, where the old root's key is here.
#[cfg(test)]
pub(crate) fn begin(
    cluster: &Cluster,
    new_root: NewRoot,
    now: Duration,
    rand: &dyn Rand,
) -> Result<Cluster, SwarmError> {
    match change(cluster, new_root, now, rand)? {
        Change::Settled(cluster) => Ok(*cluster),
        Change::To(new) => {
            let crossed = ca::cross_sign(&new, &cluster.root_ca, now, rand).map_err(rejected)?;
            Ok(begun(cluster, new, crossed, now))
        }
    }
}

/// The cluster with the new root in the place of the old one, and with new join tokens; `None` when no change is under way.
pub(crate) fn finish(cluster: &Cluster, rand: &dyn Rand) -> Option<Cluster> {
    let mut cluster = cluster.clone();
    let old = std::mem::replace(&mut cluster.root_ca, cluster.security.root_rotation.take()?.new);
    // Who signs under "the root of now" has the old root's key: asked for certificates of the new one, it would refuse them all.
    for ca in cluster.spec.external_cas.iter_mut().filter(|ca| ca.ca_cert_pem.trim().is_empty()) {
        ca.ca_cert_pem.clone_from(&old.cert_pem);
    }
    cluster.join_tokens = ca::generate_join_tokens(&cluster.root_ca.cert_pem, rand);
    Some(cluster)
}

pub(crate) fn rejected(e: RejectedRoot) -> SwarmError {
    match e {
        RejectedRoot::Issue(_) | RejectedRoot::TrialKey(_) | RejectedRoot::TrialCsr(_) | RejectedRoot::TrialTls(_) => {
            SwarmError::Internal(e.to_string())
        }
        e => SwarmError::Invalid(e.to_string()),
    }
}

/// Finishes changes of the root for as long as this manager leads.
pub(crate) async fn keep(manager: &Manager, store: &LeaderStore) {
    let mut changes = store.changes();
    let mut last_word: Option<Instant> = None;
    loop {
        match step(&store.local()) {
            Step::Idle => last_word = None,
            Step::Wait(awaited) => {
                if last_word.is_none_or(|at| at.elapsed() >= WORD_PERIOD) {
                    last_word = Some(Instant::now());
                    tracing::info!("the change of the root certificate waits for {}", Names(&awaited));
                }
                tokio::time::sleep(LOOK_AT_MOST).await;
            }
            Step::Finish => {
                if let Err(reason) = write_finish(manager, store).await {
                    tracing::debug!(reason, "the change of the root certificate is finished a moment later");
                    tokio::time::sleep(RETRY).await;
                    continue;
                }
            }
        }
        let next = tokio::select! {
            biased;
            event = changes.next() => Some(event),
            () = tokio::time::sleep(WORD_PERIOD) => None,
        };
        if matches!(next, Some(Event::Closed)) {
            return;
        }
    }
}

async fn write_finish(manager: &Manager, store: &LeaderStore) -> Result<(), String> {
    // Once more, on what is written to: the nodes and the cluster may have changed since.
    let state = store.local();
    if step(&state) != Step::Finish {
        return Ok(());
    }
    let Some(cluster) = state.cluster().and_then(|c| finish(c, &*manager.seams.rand)) else { return Ok(()) };
    let mut tx = Transaction::new(Timestamp::from_unix(manager.seams.clock.unix_now()));
    // A node that joins meanwhile has a certificate of the new root already.
    tx.update(cluster);
    store.propose(tx).await.map_err(|e| e.to_string())?;
    tracing::info!("the root certificate has been changed; the join tokens are new");
    Ok(())
}

/// Names of awaited nodes, for people.
struct Names<'a>(&'a [Awaited]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of the nodes:", self.0.len())?;
        for (n, a) in self.0.iter().take(NAMED_MAX).enumerate() {
            let lacks = match a.lacks {
                Lacks::Word => "has not said what it has",
                Lacks::Certificate => "has no certificate of the new root yet",
                Lacks::Trust => "does not trust the new root yet",
            };
            let down = if a.state == NodeState::Ready { "" } else { ", is not there: bring it back or remove it" };
            write!(f, "{} {} ({}) {lacks}{down}", if n == 0 { "" } else { ";" }, a.hostname, a.node)?;
        }
        if self.0.len() > NAMED_MAX { write!(f, "; …") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ca::{Authority, CertificateGrant, Csr, Identity, NodeKey};
    use model::{Meta, NodeDescription, NodeSpec, NodeStatus, NodeTls, Role};
    use proptest::prelude::*;
    use seams::real::OsRand;
    use store::Store;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn node_id(n: usize) -> NodeId {
        format!("{n:025}").parse().unwrap()
    }

    fn node(n: usize, tls: Option<NodeTls>) -> Node {
        let description = NodeDescription { hostname: format!("host{n}"), tls, ..Default::default() };
        Node {
            id: node_id(n),
            meta: Meta::default(),
            spec: NodeSpec::default(),
            description: Some(description),
            status: NodeStatus { state: NodeState::Ready, ..Default::default() },
            manager: None,
        }
    }

    fn state(cluster: &Cluster, nodes: &[Node]) -> Snapshot {
        let store = Store::new();
        let mut tx = Transaction::new(Timestamp(1));
        tx.create(cluster.clone());
        nodes.iter().for_each(|n| _ = tx.create(n.clone()));
        store.apply(1, &tx).unwrap();
        store.snapshot()
    }

    /// A node's identity as the cluster of now gives it.
    fn identity(cluster: &Cluster, n: usize) -> Identity {
        let key = NodeKey::generate().unwrap();
        let csr = Csr::parse(&key.csr_pem().unwrap()).unwrap();
        let expiry = cluster.spec.node_cert_expiry;
        let grant = CertificateGrant { node_id: node_id(n), role: Role::Worker, expiry };
        let chain = Authority::of(cluster).unwrap().issue_from(5, &csr, &grant, NOW, &OsRand).unwrap();
        Identity::new(chain, key.key_pem(), cluster.trusted_roots_pem()).unwrap()
    }

    fn rotating() -> (Cluster, Cluster) {
        let before = crate::testing::cluster();
        let during = begin(&before, NewRoot::Generated, NOW, &OsRand).unwrap();
        (before, during)
    }

    #[test]
    fn a_change_is_finished_when_every_node_has_moved_and_not_before() {
        let (before, during) = rotating();
        let old = identity(&before, 1);
        let both = old.with_trust(during.trusted_roots_pem()).unwrap();
        let moved = identity(&during, 1);
        let blind = NodeTls { trust_root_pem: before.root_ca.cert_pem.clone(), ..moved.tls() };
        for (what, said, lacks) in [
            ("said nothing", None, Some(Lacks::Word)),
            ("old certificate, old trust", Some(old.tls()), Some(Lacks::Certificate)),
            ("old certificate, both roots", Some(both.tls()), Some(Lacks::Certificate)),
            ("new certificate, old trust", Some(blind), Some(Lacks::Trust)),
            ("moved over", Some(moved.tls()), None),
        ] {
            let nodes = [node(1, said), node(2, Some(identity(&during, 2).tls()))];
            assert_eq!(step(&state(&before, &nodes)), Step::Idle, "{what}");
            let expected = match lacks {
                None => Step::Finish,
                Some(lacks) => Step::Wait(vec![Awaited {
                    node: node_id(1),
                    hostname: "host1".into(),
                    state: NodeState::Ready,
                    lacks,
                }]),
            };
            assert_eq!(step(&state(&during, &nodes)), expected, "{what}");
        }
        let after = finish(&during, &OsRand).unwrap();
        assert_eq!(after.root_ca, during.security.root_rotation.unwrap().new);
        assert!(after.join_tokens.worker != before.join_tokens.worker && after.security.root_rotation.is_none());
        let token: ca::JoinToken = after.join_tokens.worker.parse().unwrap();
        assert_eq!(token.check_root(&after.root_ca.cert_pem), Ok(()));
        assert_eq!(during.join_tokens, before.join_tokens, "until then the old tokens hold");
        assert_eq!(finish(&after, &OsRand), None);
    }

    fn authority(under: &str) -> model::ExternalCa {
        let url = "https://ca.example.org/sign".into();
        model::ExternalCa { url, options: Default::default(), ca_cert_pem: under.to_owned() }
    }

    #[test]
    fn who_brings_the_key_of_a_root_that_was_elsewhere_makes_managers_sign() {
        let mut cluster = crate::testing::cluster();
        let other = ca::generate_root(NOW, &OsRand).unwrap().cert_pem;
        let root = cluster.root_ca.clone();
        let bring = || NewRoot::Given { cert_pem: root.cert_pem.clone(), key_pem: root.key_pem.clone() };
        cluster.spec.external_cas = vec![authority(&root.cert_pem), authority(""), authority(&other)];
        let same = begin(&cluster, bring(), NOW, &OsRand).unwrap();
        assert!(same.signs_elsewhere(), "its key was here, and the authority signs all the same");
        cluster.root_ca.key_pem.clear();
        let own = begin(&cluster, bring(), NOW, &OsRand).unwrap();
        assert!(own.root_ca.has_key() && !own.signs_elsewhere());
        assert_eq!(own.spec.external_cas, [authority(&other)]);
    }

    #[test]
    fn an_authority_of_the_root_of_now_does_not_sign_under_the_next_one() {
        let mut before = crate::testing::cluster();
        before.spec.external_cas = vec![authority("")];
        assert!(before.signs_elsewhere());
        let during = begin(&before, NewRoot::Generated, NOW, &OsRand).unwrap();
        let after = finish(&during, &OsRand).unwrap();
        assert!(!during.signs_elsewhere() && !after.signs_elsewhere(), "it has the old root's key only");
        assert_eq!(after.external_cas_of(&before.root_ca).len(), 1, "it is still named, and with which root");
    }

    #[test]
    fn awaited_nodes_are_named() {
        let nodes: Vec<Node> = (1..=6).map(|n| node(n, None)).collect();
        let (_, during) = rotating();
        let Step::Wait(mut awaited) = step(&state(&during, &nodes)) else { panic!("they are awaited") };
        awaited[0].state = NodeState::Down;
        let words = Names(&awaited).to_string();
        assert!(words.starts_with("6 of the nodes: host1 ("), "{words}");
        assert!(words.contains("is not there: bring it back or remove it; host2 ("), "{words}");
        assert!(words.ends_with("; …"), "{words}");
    }

    #[test]
    fn a_change_during_a_change_replaces_the_target_and_the_old_root_ends_it() {
        let (before, first) = rotating();
        let second = begin(&first, NewRoot::Generated, NOW, &OsRand).unwrap();
        assert_eq!(second.root_ca, before.root_ca);
        assert_ne!(second.signing_root(), first.signing_root());
        // Who moved to the first target is understood by everybody, and moves again.
        let moved = identity(&first, 1);
        assert!(moved.with_trust(before.root_ca.cert_pem.clone()).is_ok());
        assert!(moved.with_trust(second.trusted_roots_pem()).is_ok());
        assert!(matches!(step(&state(&second, &[node(1, Some(moved.tls()))])), Step::Wait(_)));

        let given = |root: &RootCa| NewRoot::Given { cert_pem: root.cert_pem.clone(), key_pem: root.key_pem.clone() };
        let again = begin(&second, given(second.signing_root()), NOW, &OsRand).unwrap();
        assert_eq!(again, second, "the same target changes nothing");
        let given_up = begin(&second, given(&before.root_ca), NOW, &OsRand).unwrap();
        assert_eq!(given_up, before);
    }

    #[test]
    fn a_root_that_cannot_be_used_is_refused_in_words() {
        let cluster = crate::testing::cluster();
        let root = || ca::generate_root(NOW, &OsRand).unwrap();
        let (a, b) = (root(), root());
        let aged = ca::generate_root(NOW - Duration::from_secs(630_720_000), &OsRand).unwrap();
        for (cert_pem, key_pem, words) in [
            ("junk".to_owned(), a.key_pem.clone(), "could not parse the desired CA certificate"),
            (format!("{}{}", a.cert_pem, b.cert_pem), a.key_pem.clone(), "cannot contain multiple certificates"),
            (a.cert_pem.clone(), b.key_pem.clone(), "the key is not the certificate's"),
            (a.cert_pem.clone(), "junk".into(), "PKCS#8"),
            (aged.cert_pem.clone(), aged.key_pem.clone(), "CA certificate expires too soon"),
        ] {
            let refused = begin(&cluster, NewRoot::Given { cert_pem, key_pem }, NOW, &OsRand).unwrap_err();
            let SwarmError::Invalid(text) = &refused else { panic!("{refused:?}") };
            assert!(text.contains(words), "{text}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(24))]

        /// Whatever rotations are begun, given up and finished: certificates of now and of the time just before verify under
        /// the roots of now, and a finish never leaves a node behind that has said that it moved.
        #[test]
        fn neighbours_in_time_understand_each_other(moves in prop::collection::vec(0..3_u8, 1..5)) {
            let mut cluster = crate::testing::cluster();
            let mut node_of_before = identity(&cluster, 1);
            for m in moves {
                let next = match m {
                    0 => begin(&cluster, NewRoot::Generated, NOW, &OsRand).unwrap(),
                    1 => {
                        let root = cluster.root_ca.clone();
                        let given = NewRoot::Given { cert_pem: root.cert_pem, key_pem: root.key_pem };
                        begin(&cluster, given, NOW, &OsRand).unwrap()
                    }
                    _ => {
                        // Finished only when every node has moved over.
                        node_of_before = identity(&cluster, 1);
                        finish(&cluster, &OsRand).unwrap_or_else(|| cluster.clone())
                    }
                };
                prop_assert!(node_of_before.with_trust(next.trusted_roots_pem()).is_ok());
                let newcomer = identity(&next, 2);
                prop_assert!(newcomer.with_trust(node_of_before.root_pem.clone()).is_ok()
                    || next.security.root_rotation.is_none());
                node_of_before = node_of_before.with_trust(next.trusted_roots_pem()).unwrap();
                cluster = next;
            }
        }
    }
}
