//! The member's certificate: what it should be, and how it becomes that.

use super::{ASK_TIMEOUT, Member, RETRY};
use crate::ca_service;
use crate::join::new_raft_id;
use agent::SessionInfo;
use ca::{Identity, NodeKey};
use model::Role;
use rpc::proto::ca as pb;
use seams::{Rand, RandExt as _};
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;
use tonic::Status;

/// The certificate is looked at this often at least: a clock may be set.
const LOOK: Duration = Duration::from_secs(60);
/// Between two tries that go on failing, at most.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// All nodes are asked to renew at once when the root or the validity changes; they do not all come at once.
const SPREAD: Duration = Duration::from_secs(2);
/// Between two tries to start the manager's part.
const START_RETRY: Duration = Duration::from_secs(5);
/// Between two renewals that only a clock that is off asks for, at most: each restarts the connections between managers.
const CLOCK_PAUSE_MAX: Duration = Duration::from_secs(3600);
/// For one manager's answer where authorities elsewhere may sign, which the manager asks in turn.
const ASK_TIMEOUT_ELSEWHERE: Duration = Duration::from_secs(7);
/// Certificates are cut to whole seconds.
const EXPIRY_TOLERANCE: Duration = Duration::from_secs(2);

/// Why a node gets another certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// It should have another role.
    Role,
    /// It was made a manager again, and the certificate is from the time before.
    Promotion,
    /// Another root signs now.
    Issuer,
    /// Managers mark certificates now, and this one has no mark.
    Mark,
    /// Certificates are valid for another time now.
    Validity,
    /// It is old enough.
    Age,
}

/// Keeps the certificate: what is remembered between two looks.
pub(super) struct Keeper {
    /// When to renew for age, since the Unix epoch.
    renew_at: Duration,
    /// What is to be done, and not before when.
    due: Option<(Why, Instant)>,
    backoff: Duration,
    /// Log index of the cluster whose roots are trusted: what is said of an older one is out of date.
    cluster_version: u64,
    /// The manager's part could not be started (its port was taken, say): it is tried again.
    manager_is_missing: bool,
}

/// What a renewal brought.
struct Renewed {
    identity: Identity,
    cluster_version: u64,
}

/// Why another certificate is wanted, if one is.
pub(super) fn wanted(identity: &Identity, news: &SessionInfo, now: Duration, renew_at: Duration) -> Option<Why> {
    if news.desired_role.is_some_and(|role| role != identity.role) {
        return Some(Why::Role);
    }
    if identity.role == Role::Manager && news.certificate_after > 0 && identity.state_index() <= news.certificate_after
    {
        return Some(Why::Promotion);
    }
    if ca::describe_root(&news.root_certificate_pem).is_some_and(|wanted| wanted != *identity.issuer()) {
        return Some(Why::Issuer);
    }
    if news.certificate_marked && !identity.issued().is_marked() {
        return Some(Why::Mark);
    }
    let expiry = news.node_cert_expiry;
    if !expiry.is_zero() && identity.expiry().abs_diff(expiry) > EXPIRY_TOLERANCE {
        return Some(Why::Validity);
    }
    (now >= renew_at).then_some(Why::Age)
}

// === impl Keeper ===

impl Keeper {
    pub(super) fn new(identity: &Identity, rand: &dyn Rand) -> Keeper {
        let renew_at = identity.renew_at(rand);
        Keeper { renew_at, due: None, backoff: RETRY, cluster_version: 0, manager_is_missing: false }
    }

    /// How long to wait before this is done: zero for now.
    fn wait(&mut self, why: Why, rand: &dyn Rand) -> Duration {
        let at = match self.due {
            Some((known, at)) if known == why => at,
            _ => {
                self.backoff = RETRY;
                let spread = match why {
                    Why::Issuer | Why::Mark | Why::Validity => {
                        Duration::from_millis(rand.below(SPREAD.as_millis() as u64))
                    }
                    Why::Role | Why::Promotion | Why::Age => Duration::ZERO,
                };
                Instant::now() + spread
            }
        };
        self.due = Some((why, at));
        at.saturating_duration_since(Instant::now())
    }

    /// There is a new certificate, and the reason for it still holds: when to try again. The session may not have heard yet of what
    /// the manager knows; or the clocks differ, and then the next one will be no better.
    fn in_vain(&mut self, why: Why, identity: &Identity, now: Duration) -> Duration {
        let wait = self.failed(why);
        if why != Why::Age {
            return wait;
        }
        // An authority elsewhere may begin certificates long ago: one that has an hour left must not be used up by the pause.
        let left = identity.validity().1.saturating_sub(now) / 2;
        let left = if left.is_zero() { CLOCK_PAUSE_MAX } else { left.max(LOOK) };
        let pause = (identity.expiry() / 20).min(CLOCK_PAUSE_MAX).min(left);
        self.due = Some((why, Instant::now() + pause));
        pause.min(LOOK)
    }

    /// It did not work out: when to try again.
    fn failed(&mut self, why: Why) -> Duration {
        let wait = self.backoff;
        self.due = Some((why, Instant::now() + wait));
        // A change of role waits for other nodes, which takes no longer than an election.
        self.backoff = if why == Why::Role { RETRY } else { (self.backoff * 2).min(RETRY_MAX) };
        wait
    }
}

// === impl Member ===

impl Member {
    /// Brings certificate and trust to what the managers say and the clock asks for, as far as that can be done now. Returns
    /// how long to wait before the next look.
    pub(super) async fn keep_certificate(self: &Arc<Self>, news: &SessionInfo, keeper: &mut Keeper) -> Duration {
        if keeper.manager_is_missing {
            keeper.manager_is_missing = !self.becomes_manager().await;
        }
        let wait = self.keep_certificate_once(news, keeper).await;
        if keeper.manager_is_missing { wait.min(START_RETRY) } else { wait }
    }

    async fn keep_certificate_once(self: &Arc<Self>, news: &SessionInfo, keeper: &mut Keeper) -> Duration {
        self.trust(news, keeper).await;
        let (now, rand) = (self.world.seams.clock.unix_now(), &*self.world.seams.rand);
        let Some(why) = wanted(&self.identity(), news, now, keeper.renew_at) else {
            keeper.due = None;
            return keeper.renew_at.saturating_sub(now).clamp(RETRY, LOOK);
        };
        let wait = keeper.wait(why, rand);
        if !wait.is_zero() {
            return wait;
        }
        let patience = if news.certificate_marked { ASK_TIMEOUT_ELSEWHERE } else { ASK_TIMEOUT };
        match self.renew(keeper, patience).await {
            Ok(()) if wanted(&self.identity(), news, now, keeper.renew_at) == Some(why) => {
                let identity = self.identity();
                if why == Why::Age {
                    let (until, clock) = (ca::clock_text(identity.validity().1), ca::clock_text(now));
                    let text = "a new certificate is old already by this node's clock; compare it with the managers'";
                    tracing::warn!(until, clock, "{text}");
                }
                keeper.in_vain(why, &identity, now)
            }
            Ok(()) => {
                keeper.due = None;
                RETRY
            }
            Err(reason) => {
                self.complain(why, &reason);
                keeper.failed(why)
            }
        }
    }

    /// That the certificate has run out, in Docker's words and with the times; `None` when it has not.
    pub(crate) fn expired(&self) -> Option<String> {
        let ((_, until), now) = (self.identity().validity(), self.world.seams.clock.unix_now());
        let whose = format!("this node ({})", self.identity().node_id);
        let why = (now > until).then(|| ca::not_valid(&whose, (Duration::ZERO, until), now)).flatten()?;
        Some(format!("{} ({why})", docker_api::errors::CERTIFICATES_EXPIRED))
    }

    /// Says that there is no new certificate yet, the louder the more it matters.
    fn complain(&self, why: Why, reason: &str) {
        let ((_, until), now) = (self.identity().validity(), self.world.seams.clock.unix_now());
        let (until, clock) = (ca::clock_text(until), ca::clock_text(now));
        match why {
            Why::Role | Why::Promotion => tracing::debug!(?why, reason, "no new certificate yet"),
            _ => {
                tracing::warn!(?why, reason, until, clock, "this node's certificate could not be renewed; trying again")
            }
        }
    }

    /// Trusts the roots that the managers name, as far as this node's own certificate leads to one of them; if it does not, a
    /// new certificate brings them along.
    async fn trust(self: &Arc<Self>, news: &SessionInfo, keeper: &mut Keeper) {
        let (roots, version) = (&news.root_certificate_pem, news.cluster_version);
        let identity = self.identity();
        if roots.is_empty() || version < keeper.cluster_version {
            return;
        }
        if *roots == identity.root_pem {
            keeper.cluster_version = version;
            return;
        }
        match identity.with_trust(roots.clone()) {
            Ok(identity) => {
                if let Err(reason) = self.adopt(identity, keeper).await {
                    tracing::error!(reason, "the root certificates that the swarm trusts could not be saved");
                    return;
                }
                keeper.cluster_version = version;
                tracing::info!("the root certificates that this node trusts have changed");
            }
            Err(e) => tracing::debug!(error = %e, "the swarm's root certificates are taken with the next certificate"),
        }
    }

    /// Gets a certificate as the managers think it should be, and becomes what it says.
    async fn renew(self: &Arc<Self>, keeper: &mut Keeper, patience: Duration) -> Result<(), String> {
        let renewed = self.renewed(patience).await?;
        self.adopt(renewed.identity, keeper).await?;
        // Not the greater of the two: the answer is from the state of now, which may be that of a backup.
        keeper.cluster_version = renewed.cluster_version;
        let identity = self.identity();
        keeper.renew_at = identity.renew_at(&*self.world.seams.rand);
        tracing::info!(role = ?identity.role, until = ca::clock_text(identity.validity().1), "this node has a new certificate");
        Ok(())
    }

    /// Saves an identity, and acts on it from then on: new connections use it, those that stand go on.
    async fn adopt(self: &Arc<Self>, identity: Identity, keeper: &mut Keeper) -> Result<(), String> {
        identity.save(&*self.world.seams.disk, self.layout.root()).await.map_err(|e| e.to_string())?;
        let before = self.identity().role;
        let (now, identity) = (identity.role, Arc::new(identity));
        match (before, now) {
            (Role::Worker, Role::Manager) => {
                self.identity.send_replace(Some(identity));
                keeper.manager_is_missing = !self.becomes_manager().await;
            }
            (Role::Manager, Role::Worker) => {
                keeper.manager_is_missing = false;
                self.stop_manager().await;
                // Before anybody hears of it: a worker's data keys are not locked, and the log has the swarm's secrets.
                self.forget_group().await;
                self.identity.send_replace(Some(identity));
            }
            (Role::Worker, Role::Worker) | (Role::Manager, Role::Manager) => {
                self.identity.send_replace(Some(identity));
            }
        }
        Ok(())
    }

    /// A worker has no Raft log, unless a crash came between a demotion's certificate and the rest of it. It would keep the
    /// group's secrets, and a later promotion would go on from it.
    pub(super) async fn finish_demotion(&self) {
        let left = self.world.seams.disk.list(&self.layout.raft()).await;
        if left.is_ok_and(|files| !files.is_empty()) {
            tracing::info!("a demotion of this node was cut short; its Raft log is removed now");
            self.forget_group().await;
        }
    }

    async fn becomes_manager(self: &Arc<Self>) -> bool {
        let started = self.start_manager().await;
        if let Err(e) = &started {
            tracing::error!(error = %e, "this node cannot act as the manager that it should be; trying again");
        }
        started.is_ok()
    }

    /// A demoted manager's log and Raft id are of no use to anybody; should it be promoted again, it joins as a new one.
    async fn forget_group(&self) {
        let raft_id = new_raft_id(&*self.world.seams.rand);
        self.membership.send_modify(|m| m.raft_id = raft_id);
        self.save().await;
        if let Err(e) = self.world.seams.disk.remove_dir(&self.layout.raft()).await {
            tracing::warn!(error = %e, "the Raft log of the demoted manager could not be removed");
        }
        self.gossip_members.send_replace(BTreeSet::new());
    }

    /// `patience` is for each manager.
    async fn renewed(&self, patience: Duration) -> Result<Renewed, String> {
        let key = NodeKey::generate().map_err(|e| e.to_string())?;
        let csr_pem = key.csr_pem().map_err(|e| e.to_string())?;
        let mut last = match self.renewed_by_itself(&csr_pem, patience).await {
            Some(Ok(answer)) => return self.read_answer(answer, &key),
            Some(Err(status)) => rpc::describe(&status),
            None => "no manager is known".to_owned(),
        };
        for addr in self.manager_addrs() {
            let Ok(channel) = self.channels.manager(&addr) else { continue };
            let request = pb::RenewNodeCertificateRequest { csr_pem: csr_pem.clone() };
            let mut client = rpc::node_ca_client(channel);
            match tokio::time::timeout(patience, client.renew_node_certificate(request)).await {
                Ok(Ok(answer)) => {
                    return self.read_answer(answer.into_inner(), &key).map_err(|e| format!("{addr}: {e}"));
                }
                Ok(Err(status)) => last = rpc::describe(&status),
                Err(_) => last = format!("the manager at {addr} did not answer in time"),
            }
        }
        Err(last)
    }

    /// A leader needs no other manager: it signs, or asks who does, and needs no connection for which its certificate may be too
    /// old.
    async fn renewed_by_itself(
        &self,
        csr_pem: &str,
        patience: Duration,
    ) -> Option<Result<pb::RenewNodeCertificateResponse, Status>> {
        let manager = self.manager().filter(|m| m.raft.view().role == raft::Role::Leader)?;
        let node_id = self.identity().node_id.clone();
        let renewed = ca_service::renew(&*manager.client, &manager.signers, &node_id, csr_pem);
        let late = || Err(Status::deadline_exceeded("this manager leads, but hears no majority"));
        Some(tokio::time::timeout(patience, renewed).await.unwrap_or_else(|_elapsed| late()))
    }

    fn read_answer(&self, answer: pb::RenewNodeCertificateResponse, key: &NodeKey) -> Result<Renewed, String> {
        let own = self.identity();
        let roots =
            if answer.root_certificate_pem.is_empty() { own.root_pem.clone() } else { answer.root_certificate_pem };
        let identity = Identity::new(answer.certificate_pem, key.key_pem(), roots).map_err(|e| e.to_string())?;
        if identity.node_id != own.node_id || identity.cluster_id != own.cluster_id {
            return Err("its certificate is for somebody else".into());
        }
        Ok(Renewed { identity, cluster_version: answer.cluster_version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ca::{Authority, CertificateGrant, Csr};
    use model::{Cluster, NodeId};
    use proptest::prelude::*;
    use seams::real::OsRand;

    const NOW: Duration = Duration::from_secs(1_800_000_000);

    fn identity(cluster: &Cluster, role: Role, index: u64, now: Duration) -> Identity {
        let key = NodeKey::generate().unwrap();
        let csr = Csr::parse(&key.csr_pem().unwrap()).unwrap();
        let node_id: NodeId = "n".repeat(25).parse().unwrap();
        let grant = CertificateGrant { node_id, role, expiry: cluster.spec.node_cert_expiry };
        let chain = Authority::of(cluster).unwrap().issue_from(index, &csr, &grant, now, &OsRand).unwrap();
        Identity::new(chain, key.key_pem(), cluster.trusted_roots_pem()).unwrap()
    }

    /// What a manager says that agrees with the cluster.
    fn news(cluster: &Cluster, role: Role) -> SessionInfo {
        SessionInfo {
            desired_role: Some(role),
            root_certificate_pem: cluster.trusted_roots_pem(),
            node_cert_expiry: cluster.spec.node_cert_expiry,
            ..SessionInfo::default()
        }
    }

    #[test]
    fn each_reason_asks_for_another_certificate_and_nothing_else_does() {
        let cluster = crate::testing::cluster();
        let manager = identity(&cluster, Role::Manager, 7, NOW);
        let later = manager.renew_at(&OsRand);
        let good = news(&cluster, Role::Manager);
        let rotating = crate::ca_rotation::begin(&cluster, api::NewRoot::Generated, NOW, &OsRand).unwrap();
        let expiry = |expiry| SessionInfo { node_cert_expiry: expiry, ..good.clone() };
        let after = |certificate_after| SessionInfo { certificate_after, ..good.clone() };
        let kept = cluster.spec.node_cert_expiry;
        for (what, news, now, reason) in [
            ("all is well", good.clone(), NOW, None),
            ("nothing is known yet", SessionInfo::default(), NOW, None),
            ("demoted", news(&cluster, Role::Worker), later, Some(Why::Role)),
            ("promoted again since", after(7), NOW, Some(Why::Promotion)),
            ("promoted before", after(6), NOW, None),
            ("another root signs", news(&rotating, Role::Manager), later, Some(Why::Issuer)),
            ("certificates are marked", SessionInfo { certificate_marked: true, ..good.clone() }, NOW, Some(Why::Mark)),
            ("a longer validity", expiry(kept * 2), NOW, Some(Why::Validity)),
            ("a shorter one", expiry(kept / 2), NOW, Some(Why::Validity)),
            ("cut to whole seconds", expiry(kept + Duration::from_millis(900)), NOW, None),
            ("a moment too early", good.clone(), later - Duration::from_secs(1), None),
            ("old enough", good.clone(), later, Some(Why::Age)),
            ("expired long ago, and no manager in sight", SessionInfo::default(), later * 2, Some(Why::Age)),
        ] {
            assert_eq!(wanted(&manager, &news, now, later), reason, "{what}");
        }
        // One that has its mark, and that an authority elsewhere made as long as it pleased.
        let mut marking = cluster.clone();
        marking.security.grants = Some(ca::generate_grant_key(&OsRand));
        let marked = self::identity(&marking, Role::Manager, 7, NOW);
        let said = SessionInfo { certificate_marked: true, node_cert_expiry: Duration::ZERO, ..good.clone() };
        assert_eq!((wanted(&marked, &said, NOW, later), marked.state_index()), (None, 7));
        // A worker's certificate opens no manager's door, whenever it is from.
        let worker = identity(&cluster, Role::Worker, 7, NOW);
        let news = SessionInfo { certificate_after: 9, ..news(&cluster, Role::Worker) };
        assert_eq!(wanted(&worker, &news, NOW, later), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_fails_is_tried_again_ever_more_slowly_and_a_new_reason_at_once() {
        let identity = identity(&crate::testing::cluster(), Role::Worker, 0, NOW);
        let mut keeper = Keeper::new(&identity, &OsRand);
        assert_eq!(keeper.wait(Why::Age, &OsRand), Duration::ZERO);
        let waits: Vec<Duration> = (0..10)
            .map(|_| {
                let wait = keeper.failed(Why::Age);
                assert_eq!(keeper.wait(Why::Age, &OsRand), wait);
                wait
            })
            .collect();
        assert_eq!((waits[0], waits[1], waits[9]), (RETRY, RETRY * 2, RETRY_MAX));
        tokio::time::sleep(RETRY_MAX).await;
        assert_eq!(keeper.wait(Why::Age, &OsRand), Duration::ZERO);
        assert_eq!(keeper.wait(Why::Role, &OsRand), Duration::ZERO, "another reason");
        assert_eq!((keeper.failed(Why::Role), keeper.failed(Why::Role)), (RETRY, RETRY), "an election takes no longer");
        assert!(keeper.wait(Why::Issuer, &OsRand) < SPREAD);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_ahead_costs_no_certificate_every_few_seconds() {
        let mut cluster = crate::testing::cluster();
        // (Validity, what is left of it by the node's clock, pause.)
        let s = Duration::from_secs;
        for (expiry_h, left, pause) in [
            (1, s(1200), s(180)),
            (2160, s(2160 * 360), CLOCK_PAUSE_MAX),
            (2160, s(3600), s(1800)),
            (1, Duration::ZERO, s(180)),
        ] {
            cluster.spec.node_cert_expiry = s(expiry_h * 3600);
            let late = NOW + cluster.spec.node_cert_expiry - left;
            let identity = identity(&cluster, Role::Worker, 0, NOW);
            let mut keeper = Keeper::new(&identity, &OsRand);
            assert_eq!(keeper.wait(Why::Age, &OsRand), Duration::ZERO);
            assert_eq!(keeper.in_vain(Why::Age, &identity, late), LOOK, "a clock may be set meanwhile");
            assert_eq!(keeper.wait(Why::Age, &OsRand), pause);
            assert_eq!(keeper.wait(Why::Role, &OsRand), Duration::ZERO, "another reason is not held up");
            assert_eq!(
                keeper.in_vain(Why::Role, &identity, late),
                RETRY,
                "what a session has not heard yet it hears soon"
            );
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// However long certificates are valid: between half and four fifths of the time from issue to end, and so always with
        /// time left for trying again.
        #[test]
        fn renewal_is_due_between_half_and_four_fifths_of_the_validity(hours in 1..100_000_u64) {
            let mut cluster = crate::testing::cluster();
            cluster.spec.node_cert_expiry = Duration::from_secs(hours * 3600);
            let identity = identity(&cluster, Role::Worker, 0, NOW);
            let at = identity.renew_at(&OsRand) - NOW;
            let whole = cluster.spec.node_cert_expiry;
            prop_assert!(at >= whole / 2 && at <= whole * 8 / 10, "{:?} of {:?}", at, whole);
        }
    }
}
