//! What a join token does at a manager: it is judged (but not too often), used up, and what it gives goes into the node.

use ca::{JoinGrant, WrongTokens};
use model::{Availability, Cluster, Meta, Node, NodeId, NodeSpec, NodeStatus, Timestamp, limits};
use parking_lot::Mutex;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;
use store::{Check, Snapshot, Transaction};
use tokio::time::Instant;
use tonic::Status;

/// How often a join is tried again when the cluster object was changed at the same moment: by another user of the same
/// token, most likely, of which there may be many at once.
pub(crate) const ATTEMPTS: u32 = 24;
/// The longest pause before another try.
pub(crate) const PAUSE_MAX: Duration = Duration::from_millis(100);

/// Judges join tokens, and refuses whoever has shown too many wrong ones.
pub(crate) struct Doorkeeper {
    wrong: Mutex<WrongTokens>,
    since: Instant,
}

// === impl Doorkeeper ===

impl Doorkeeper {
    pub(crate) fn new() -> Doorkeeper {
        Doorkeeper { wrong: Mutex::default(), since: Instant::now() }
    }

    /// Whether `remote` may show a token at all.
    pub(crate) fn check(&self, remote: IpAddr) -> Result<(), Status> {
        let refused = self.wrong.lock().check(remote, self.since.elapsed());
        refused.map_err(|e| Status::resource_exhausted(e.to_string()))
    }

    /// What the token gives. Between the look at the bound and the note of a wrong token nobody else comes in.
    pub(crate) fn admit(
        &self,
        remote: IpAddr,
        token: &str,
        cluster: &Cluster,
        now: Timestamp,
    ) -> Result<JoinGrant, Status> {
        let mut wrong = self.wrong.lock();
        let elapsed = self.since.elapsed();
        wrong.check(remote, elapsed).map_err(|e| Status::resource_exhausted(e.to_string()))?;
        ca::admit(token, cluster, now).map_err(|e| {
            wrong.wrong(remote, elapsed);
            let (total, refused) = wrong.counts();
            tracing::warn!(%remote, reason = %e, wrong = total, refused, "a join was refused");
            Status::invalid_argument(e.to_string())
        })
    }
}

/// The address of the other end; one that is not known shares its bound with all such.
pub(crate) fn source<T>(request: &tonic::Request<T>) -> IpAddr {
    rpc::remote_addr(request).map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |addr| addr.ip())
}

/// The transaction that makes a node of what was granted. A use of the token is taken in the same transaction, so that two
/// nodes cannot share one; and it holds only for the cluster object that the grant was read from, so that no token which
/// has been revoked or rotated since admits anybody.
pub(crate) fn admission(
    state: &Snapshot,
    cluster: &Cluster,
    grant: &JoinGrant,
    id: NodeId,
    availability: Availability,
    now: Timestamp,
) -> Result<Transaction, Status> {
    if state.nodes().len() >= limits::NODES_MAX {
        let max = limits::NODES_MAX;
        let text = format!("the swarm has {max} nodes, the most it takes; remove those that are gone with `node rm`");
        return Err(Status::resource_exhausted(text));
    }
    let mut tx = Transaction::new(now);
    let limited = |id: &String| cluster.security.tokens.get(id).is_some_and(|t| t.uses_left.is_some());
    match grant.token_id.as_ref().filter(|id| limited(id)) {
        None => tx.check(Check::Unchanged { id: (&cluster.id).into(), version: cluster.meta.version }),
        Some(token) => {
            let mut cluster = cluster.clone();
            // Before, so that one which this join uses up still says so to the next.
            cluster.security.forget_old_tokens(now);
            if let Some(left) = cluster.security.tokens.get_mut(token).and_then(|t| t.uses_left.as_mut()) {
                *left = left.saturating_sub(1);
            }
            tx.update(cluster)
        }
    };
    tx.create(Node {
        id,
        meta: Meta::default(),
        spec: NodeSpec { role: grant.role, availability, labels: grant.labels.clone(), ..Default::default() },
        description: None,
        status: NodeStatus::default(),
        manager: None,
    });
    Ok(tx)
}

/// The transaction that undoes [`admission`], the taken use included; `None` when there is nothing left to undo.
pub(crate) fn retraction(state: &Snapshot, grant: &JoinGrant, id: &NodeId, now: Timestamp) -> Option<Transaction> {
    let node = state.node(id)?;
    let mut tx = Transaction::new(now);
    tx.remove(id, node.meta.version);
    if let (Some(token), Some(cluster)) = (&grant.token_id, state.cluster()) {
        let mut cluster = Cluster::clone(cluster);
        if let Some(left) = cluster.security.tokens.get_mut(token).and_then(|t| t.uses_left.as_mut()) {
            *left = left.saturating_add(1);
            tx.update(cluster);
        }
    }
    Some(tx)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca_service::CaService;
    use crate::external_ca::Signers;
    use ca::NodeKey;
    use model::{ExtraToken, Role};
    use rpc::proto::ca::IssueNodeCertificateRequest;
    use rpc::proto::ca::node_ca_server::NodeCa as _;
    use std::collections::BTreeSet;
    use std::net::SocketAddr;
    use std::sync::Arc;
    use store::{LocalStore, StoreClient as _};
    use tonic::{Code, Request};

    struct World {
        store: Arc<LocalStore>,
        service: Arc<CaService>,
        csr_pem: String,
    }

    impl World {
        async fn new() -> World {
            let store = Arc::new(LocalStore::default());
            let mut tx = Transaction::new(Timestamp(1));
            tx.create(crate::testing::cluster());
            store.propose(tx).await.expect("a cluster");
            let (seams, tasks) = (seams::real::seams(), seams::Tasks::new());
            let service = CaService::new(store.clone(), seams.clone(), Signers::anonymous(seams), tasks);
            let service = Arc::new(service);
            World { store, service, csr_pem: NodeKey::generate().and_then(|key| key.csr_pem()).expect("a request") }
        }

        fn cluster(&self) -> Cluster {
            Cluster::clone(self.store.local().cluster().expect("a cluster"))
        }

        async fn change(&self, what: impl FnOnce(&mut Cluster)) {
            let mut cluster = self.cluster();
            what(&mut cluster);
            let mut tx = Transaction::new(Timestamp(1));
            tx.update(cluster);
            self.store.propose(tx).await.expect("written");
        }

        /// Makes a token as the API does, and gives its text.
        async fn token(&self, id: &str, token: impl FnOnce(&mut ExtraToken)) -> String {
            let standing = self.cluster().join_tokens.worker;
            let text = format!("{}-{id:0>25}", standing.rsplit_once('-').expect("a token").0);
            let mut made = ExtraToken {
                role: Role::Worker,
                digest: ca::token_digest(&text),
                created_at: Timestamp(1),
                expires_at: None,
                uses_left: None,
                labels: Default::default(),
                root_digest: String::new(),
            };
            token(&mut made);
            self.change(|c| drop(c.security.tokens.insert(id.into(), made))).await;
            text
        }

        async fn join(&self, from: u8, token: &str) -> Result<String, Status> {
            let message = IssueNodeCertificateRequest {
                token: token.into(),
                csr_pem: self.csr_pem.clone(),
                ..Default::default()
            };
            let mut request = Request::new(message);
            request.extensions_mut().insert(rpc::RemoteAddr(SocketAddr::from(([10, 0, 0, from], 999))));
            self.service.issue_node_certificate(request).await.map(|answer| answer.into_inner().node_id)
        }

        fn node(&self, id: &str) -> Node {
            Node::clone(self.store.local().node(&id.parse().expect("an id")).expect("the node"))
        }
    }

    fn refused(joined: Result<String, Status>) -> (Code, String) {
        let status = joined.expect_err("refused");
        (status.code(), status.message().to_owned())
    }

    const WRONG: &str = "A valid join token is necessary to join this cluster";

    #[tokio::test(start_paused = true)]
    async fn attack_01_wrong_tokens_are_all_told_the_same_and_not_often() {
        let world = World::new().await;
        let tokens = world.cluster().join_tokens;
        let single = world.token("one", |t| t.uses_left = Some(1)).await;
        let wrong = [
            String::new(),
            "x".repeat(60_000),
            tokens.worker[..tokens.worker.len() - 1].to_owned(),
            format!("{}x", tokens.manager),
            tokens.worker.to_uppercase(),
            format!("{} ", single),
            single.replace("SWMTKN-1", "SWMTKN-2"),
            format!("{}\n", tokens.manager),
            tokens.worker.replace("SWMTKN", "swmtkn"),
            single[9..].to_owned(),
        ];
        for token in &wrong {
            assert_eq!(refused(world.join(1, token).await), (Code::InvalidArgument, WRONG.into()), "{token:.100}");
        }
        let (code, text) = refused(world.join(1, "once more").await);
        assert_eq!(
            (code, text.as_str()),
            (Code::ResourceExhausted, "too many wrong join tokens came from this address; try again in 6 s")
        );
        // Right or wrong: who is held up learns nothing.
        assert_eq!(refused(world.join(1, &tokens.worker).await).0, Code::ResourceExhausted);
        world.join(2, &tokens.worker).await.expect("another address is not held up");
        tokio::time::sleep(Duration::from_secs(6)).await;
        world.join(1, &tokens.worker).await.expect("it is forgiven with time");
        assert_eq!(world.store.local().nodes().len(), 2, "and nobody else was let in");
    }

    #[tokio::test]
    async fn attack_02_a_token_gives_its_own_role_whatever_the_request_wants() {
        let world = World::new().await;
        // The certificate request asks to be a manager.
        let key = NodeKey::generate().expect("a key");
        let world = World { csr_pem: key.csr_pem().expect("a request"), ..world };
        let tokens = world.cluster().join_tokens;
        let made = world.token("made", |t| t.role = Role::Worker).await;
        for (token, role) in [(&tokens.worker, Role::Worker), (&made, Role::Worker), (&tokens.manager, Role::Manager)] {
            let id = world.join(1, token).await.expect("it joins");
            assert_eq!(world.node(&id).spec.role, role);
        }
    }

    #[tokio::test]
    async fn attack_03_rotated_revoked_expired_and_used_up_tokens_admit_nobody() {
        let world = World::new().await;
        let old = world.cluster().join_tokens;
        let revoked = world.token("revoked", |_| {}).await;
        let expired = world.token("expired", |t| t.expires_at = Some(Timestamp(2))).await;
        let used_up = world.token("used", |t| t.uses_left = Some(0)).await;
        world.join(1, &revoked).await.expect("it admits until it is revoked");
        let rotated = ca::generate_join_tokens(&world.cluster().root_ca.cert_pem, &seams::real::OsRand);
        world
            .change(|c| {
                c.join_tokens = rotated.clone();
                c.security.tokens.remove("revoked");
            })
            .await;
        for (token, part) in [
            (&old.worker, WRONG),
            (&old.manager, WRONG),
            (&revoked, WRONG),
            (&expired, "the join token has expired"),
            (&used_up, "the join token has been used as often as it may be"),
        ] {
            let (code, text) = refused(world.join(1, token).await);
            assert!(code == Code::InvalidArgument && text.starts_with(part), "{text}");
        }
        world.join(1, &rotated.worker).await.expect("the new one admits");
        assert_eq!(world.store.local().nodes().len(), 2);
    }

    #[tokio::test]
    async fn attack_04_a_join_that_is_sent_again_makes_no_second_node() {
        let world = World::new().await;
        let single = world.token("single", |t| t.uses_left = Some(1)).await;
        let id = world.join(1, &single).await.expect("it joins");
        // The same bytes again: token, request and key.
        let (code, text) = refused(world.join(1, &single).await);
        assert!(code == Code::InvalidArgument && text.contains("used as often as it may be"), "{text}");
        let state = world.store.local();
        assert_eq!(state.nodes().map(|n| n.id.to_string()).collect::<Vec<_>>(), [id]);
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn attack_04_nodes_that_join_at_once_share_no_use() {
        let world = Arc::new(World::new().await);
        let token = world.token("five", |t| t.uses_left = Some(5)).await;
        let tries = (0..20_u8).map(|from| {
            let (world, token) = (world.clone(), token.clone());
            async move { world.join(from, &token).await }
        });
        let joined = futures::future::join_all(tries).await;
        let ids: BTreeSet<String> = joined.iter().filter_map(|j| j.as_ref().ok()).cloned().collect();
        assert_eq!((ids.len(), world.store.local().nodes().len()), (5, 5), "{joined:?}");
        for status in joined.iter().filter_map(|j| j.as_ref().err()) {
            assert_eq!(status.code(), Code::InvalidArgument, "{status:?}");
        }
    }

    #[tokio::test]
    async fn a_node_is_born_with_its_tokens_labels_and_a_use_is_taken() {
        let world = World::new().await;
        let token = world
            .token("zone", |t| {
                t.uses_left = Some(2);
                t.labels = [("zone".to_owned(), "a".to_owned())].into();
            })
            .await;
        world.token("over", |t| t.expires_at = Some(Timestamp(2))).await;
        let id = world.join(1, &token).await.expect("it joins");
        assert_eq!(world.node(&id).spec.labels, [("zone".to_owned(), "a".to_owned())].into());
        let left = world.cluster().security.tokens;
        assert_eq!(left["zone"].uses_left, Some(1));
        assert!(!left.contains_key("over"), "what is over is forgotten when the object is written anyway");
        // One without a bound costs no write of the cluster object.
        let any = world.token("any", |_| {}).await;
        let version = world.cluster().meta.version;
        world.join(1, &any).await.expect("it joins");
        assert_eq!(world.cluster().meta.version, version);
    }

    #[tokio::test]
    async fn attack_19_ten_thousand_joins_and_leaves_leave_nothing_behind() {
        let world = World::new().await;
        let tokens = world.cluster().join_tokens;
        let single = |n: u32| format!("t{n}");
        for n in 0..10_000_u32 {
            let id = if n % 100 == 0 {
                let token = world.token(&single(n), |t| t.uses_left = Some(1)).await;
                world.join(1, &token).await
            } else {
                world.join(1, &tokens.worker).await
            };
            let id: NodeId = id.expect("it joins").parse().expect("an id");
            let version = world.store.local().node(&id).expect("the node").meta.version;
            let mut tx = Transaction::new(Timestamp(1));
            tx.remove(&id, version);
            world.store.propose(tx).await.expect("removed");
        }
        let state = world.store.local();
        assert_eq!((state.nodes().len(), state.objects().count()), (0, 1), "only the cluster object is left");
        assert!(world.cluster().security.tokens.len() <= 1, "{}", world.cluster().security.tokens.len());
        assert!(format!("{:?}", world.cluster()).len() < 4096);
    }

    #[tokio::test]
    async fn attack_19_there_are_only_so_many_nodes() {
        let world = World::new().await;
        for chunk in 0..10 {
            let mut tx = Transaction::new(Timestamp(1));
            for n in 0..limits::NODES_MAX / 10 {
                tx.create(Node {
                    id: format!("n{chunk}{n:023}").parse().expect("an id"),
                    meta: Meta::default(),
                    spec: NodeSpec::default(),
                    description: None,
                    status: NodeStatus::default(),
                    manager: None,
                });
            }
            world.store.propose(tx).await.expect("nodes");
        }
        let (code, text) = refused(world.join(1, &world.cluster().join_tokens.worker).await);
        assert!(code == Code::ResourceExhausted && text.contains("the swarm has 10000 nodes"), "{text}");
    }
}
